//! Journals made here, whole and damaged. `tests/journal.rs` compares with `journalctl`.
#![allow(clippy::arithmetic_side_effects, clippy::as_conversions, reason = "tests build their input")]

mod build;

use std::sync::Arc;

use jiff::tz::TimeZone;
use proptest::prelude::*;

use self::build::{Build, ID};
use super::show::{Format, Style};
use super::*;
use crate::fs::MemoryFs;

/// A guest with these journal files.
fn guest(files: &[&[u8]]) -> Tree {
    let fs = MemoryFs::default();
    for (index, file) in files.iter().enumerate() {
        fs.add_file(&format!("/var/log/journal/{ID}/{index}.journal"), file).unwrap();
    }
    Tree::new(Arc::new(fs))
}

fn messages(journal: &Journal<'_>, mut walk: Walk<'_>) -> Vec<String> {
    let mut messages = Vec::new();
    while let Some(entry) = walk.next() {
        let message = journal.value(&entry, "MESSAGE").unwrap().unwrap_or_default();
        messages.push(String::from_utf8_lossy(&message).into_owned());
    }
    messages
}

fn all(tree: &Tree, filter: &Filter, direction: Direction) -> Vec<String> {
    let journal = Journal::open(tree).unwrap();
    messages(&journal, journal.walk(filter, Span::default(), direction))
}

fn sample(build: Build) -> Vec<u8> {
    filled(build).finish()
}

fn filled(build: Build) -> Build {
    build.entry(1, 10, &["MESSAGE=one", "_UID=0", "_PID=1"]).entry(1, 20, &["MESSAGE=two", "_UID=0", "_PID=2"]).entry(
        2,
        30,
        &["MESSAGE=three", "_UID=7", "_PID=1"],
    )
}

#[test]
fn every_layout_and_compression_reads_the_same() {
    for build in Build::every() {
        let tree = guest(&[&sample(build.clone())]);
        let up = all(&tree, &Filter::everything(), Direction::Up);
        assert_eq!(up, ["three", "two", "one"], "{build:?}");
        let field = |word: &str| Filter::words(&[word.as_bytes().to_vec()]);
        assert_eq!(all(&tree, &field("_PID=1"), Direction::Down), ["one", "three"]);
        assert_eq!(all(&tree, &field("_PID=3"), Direction::Down), Vec::<String>::new());
        let journal = Journal::open(&tree).unwrap();
        assert_eq!(journal.boots().unwrap().len(), 2);
        assert_eq!(journal.fields().unwrap(), [&b"MESSAGE"[..], b"_BOOT_ID", b"_PID", b"_UID"]);
        let verdicts = journal.verify(&mut || Ok(())).unwrap();
        assert_eq!(verdicts[0].fault, None, "{build:?}");
    }
}

#[test]
fn conditions_combine_as_those_of_journalctl() {
    let tree = guest(&[&sample(Build::default())]);
    let words = |text: &str| {
        let words: Vec<Vec<u8>> = text.split(' ').map(|word| word.as_bytes().to_vec()).collect();
        all(&tree, &Filter::words(&words), Direction::Down)
    };
    assert_eq!(words("_PID=1 _PID=2"), ["one", "two", "three"]);
    assert_eq!(words("_PID=1 _UID=0"), ["one"]);
    assert_eq!(words("_PID=2 + _UID=7"), ["two", "three"]);
    assert_eq!(words("+ +"), ["one", "two", "three"]);
    assert_eq!(all(&tree, &Filter::Any(Vec::new()), Direction::Down), Vec::<String>::new());
}

#[test]
fn files_are_merged_and_what_several_hold_is_shown_once() {
    let (a, b) = (sample(Build::default()), Build::default().seqnum_id(9));
    let b = b.entry(1, 15, &["MESSAGE=between"]).entry(3, 40, &["MESSAGE=after"]).finish();
    let tree = guest(&[&a, &b, &a]);
    let down = all(&tree, &Filter::everything(), Direction::Down);
    assert_eq!(down, ["one", "between", "two", "three", "after"]);
    let journal = Journal::open(&tree).unwrap();
    let mut walk = journal.walk(&Filter::everything(), Span::default(), Direction::Up);
    for expected in [40, 30, 20] {
        assert_eq!(walk.next().unwrap().realtime, expected);
    }
    walk.turn();
    assert_eq!(messages(&journal, walk), ["two", "three", "after"]);
}

#[test]
fn times_bound_a_walk() {
    let tree = guest(&[&sample(Build::default())]);
    let journal = Journal::open(&tree).unwrap();
    let within = |since, until, direction| {
        messages(&journal, journal.walk(&Filter::everything(), Span { since, until }, direction))
    };
    assert_eq!(within(Some(20), None, Direction::Down), ["two", "three"]);
    assert_eq!(within(Some(20), Some(20), Direction::Up), ["two"]);
    assert_eq!(within(None, Some(29), Direction::Up), ["two", "one"]);
    assert_eq!(within(None, Some(9), Direction::Up), Vec::<String>::new());
    assert_eq!(within(Some(31), None, Direction::Down), Vec::<String>::new());
    let mut empty = journal.walk(&Filter::everything(), Span { since: Some(31), until: None }, Direction::Up);
    assert!(empty.next().is_none());
    empty.turn();
    assert!(empty.next().is_none());
}

#[test]
fn text_for_people_cannot_disturb_a_terminal() {
    let file = Build::default()
        .entry(1, 1 << 40, &["MESSAGE=a\u{202e}b", "_HOSTNAME=\u{1b}[2Jh", "SYSLOG_IDENTIFIER=x\ty", "\u{1b}]0;=1"])
        .entry(1, (1 << 40) + 1, &["MESSAGE=\u{1b}[31mred\u{1b}[0m \u{1b}]0;t\u{7}\u{1b}[2J", "SYSLOG_IDENTIFIER=i"])
        .finish();
    let tree = guest(&[&file]);
    let journal = Journal::open(&tree).unwrap();
    for (format, shown_all) in [
        (Format::Short, false),
        (Format::Short, true),
        (Format::Verbose, true),
        (Format::Verbose, false),
        (Format::Cat, false),
    ] {
        let mut walk = journal.walk(&Filter::everything(), Span::default(), Direction::Down);
        let style = Style { all: shown_all, ..Style::new(format, TimeZone::UTC) };
        let mut out = Vec::new();
        while let Some(entry) = walk.next() {
            style.write(&journal, &entry, &mut out).unwrap();
        }
        let text = String::from_utf8(out).unwrap();
        assert!(!text.contains(|c: char| (c.is_control() && c != '\n' && c != '\t') || c == '\u{202e}'), "{text:?}");
        assert!(text.contains("a\\u{202e}b"));
    }
}

/// Damage in one place: the file, where, and the bytes that are put there.
fn damaged(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut file = sample(Build::default());
    file[at..at + bytes.len()].copy_from_slice(bytes);
    file
}

/// Everything that can be asked of a journal ends, and gives at most what the whole one has.
fn ask_everything(file: &[u8]) -> (usize, Vec<String>) {
    let tree = guest(&[file]);
    let journal = Journal::open(&tree).unwrap();
    let mut notes = journal.notes().to_vec();
    let mut count = 0;
    for direction in [Direction::Down, Direction::Up] {
        for filter in [Filter::everything(), Filter::unit("a.slice"), Filter::field("_PID", 1)] {
            let mut walk = journal.walk(&filter, Span { since: Some(5), until: Some(50) }, direction);
            let style = Style::new(Format::Json, TimeZone::UTC);
            let mut seen = 0;
            while let Some(entry) = walk.next() {
                seen += 1;
                let _ = style.write(&journal, &entry, &mut Vec::new());
                assert!(seen < 10_000, "a walk that does not end");
            }
            count = count.max(seen);
            notes.extend_from_slice(walk.notes());
        }
    }
    notes.extend(journal.boots().err().map(|error| error.to_string()));
    notes.extend(journal.fields().err().map(|error| error.to_string()));
    notes.extend(journal.verify(&mut || Ok(())).unwrap().into_iter().filter_map(|verdict| verdict.fault));
    (count, notes)
}

#[test]
fn hostile_files() {
    let good = sample(Build::default());
    let places = filled(Build::default()).places();
    let u64s = u64::to_le_bytes;
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("magic", damaged(0, b"X"), "no journal file"),
        ("unknown feature", damaged(12, &[0x80]), "features"),
        ("state", damaged(16, &[9]), "state"),
        ("header size", damaged(88, &u64s(7)), "impossible size"),
        ("header size max", damaged(88, &u64s(u64::MAX - 7)), "shorter"),
        ("arena beyond the file", damaged(96, &u64s(1 << 40)), "shorter"),
        ("no hash table", damaged(112, &u64s(0)), ""),
        ("hash table outside", damaged(104, &u64s(u64::MAX - 15)), "hash table"),
        ("hash table of every size", damaged(112, &u64s(u64::MAX)), "hash table"),
        ("entry count", damaged(152, &u64s(u64::MAX)), "number of entries"),
        ("entry array to itself", damaged(places.array + 16, &u64s(places.array as u64)), "leads back"),
        ("entry array at the header", damaged(176, &u64s(8)), "no object"),
        ("entry array unaligned", damaged(176, &u64s(places.array as u64 + 1)), "no object"),
        ("object of no kind", damaged(places.entry, &[0]), "no known kind"),
        ("object without size", damaged(places.entry + 8, &u64s(0)), "impossible size"),
        ("object of every size", damaged(places.entry + 8, &u64s(u64::MAX)), "impossible size"),
        ("field chain to itself", damaged(places.data + 24, &u64s(places.data as u64)), "leads back"),
        ("values in a loop", damaged(places.data + 32, &u64s(places.data as u64)), ""),
        ("two compressions", damaged(places.data + 1, &[5]), "decoded"),
        ("wrong hash", damaged(places.data + 64, b"N"), "hash of a field"),
        ("item to nowhere", damaged(places.entry + 64, &u64s(u64::MAX - 7)), "no object"),
        ("time goes back", damaged(places.entry + 24, &u64s(99)), ""),
    ];
    for (name, file, note) in cases {
        assert_eq!(file.len(), good.len());
        let (count, notes) = ask_everything(&file);
        assert!(count <= 3, "{name}: {count} entries");
        assert!(note.is_empty() || notes.iter().any(|found| found.contains(note)), "{name}: {notes:?}");
    }
}

#[test]
fn a_file_cut_anywhere_gives_an_error() {
    let good = sample(Build::default());
    for cut in 0..good.len() {
        let (count, notes) = ask_everything(&good[..cut]);
        assert!(count == 0 && !notes.is_empty(), "{cut}: {count} {notes:?}");
    }
}

#[test]
fn what_the_writer_did_not_finish_is_left_out() {
    let build = Build::default().array_items(4);
    let (mut file, array) = (sample(build.clone()), filled(build).places().array);
    // The last entry is not in the list yet.
    file[array + 24 + 16..][..8].fill(0);
    file[16] = 1;
    let (count, notes) = ask_everything(&file);
    assert_eq!(count, 2);
    assert!(notes.iter().any(|note| note.contains("another length")), "{notes:?}");
}

#[test]
fn bounds_hold_at_their_limits() {
    for (fields, fits) in [
        (limits::MAX_JOURNAL_FIELDS - 2, true),
        (limits::MAX_JOURNAL_FIELDS - 1, true),
        (limits::MAX_JOURNAL_FIELDS, false),
    ] {
        let names: Vec<String> = (0..fields).map(|number| format!("F={number}")).collect();
        let words: Vec<&str> = names.iter().map(String::as_str).collect();
        // The boot's identifier is one more.
        let tree = guest(&[&Build::default().entry(1, 10, &words).finish()]);
        let journal = Journal::open(&tree).unwrap();
        let entry = journal.walk(&Filter::everything(), Span::default(), Direction::Down).next().unwrap();
        let visited = journal.visit(&entry, &mut |_| Ok(()));
        assert_eq!(visited.is_ok(), fits, "{fields}");
    }
    let mut map = BTreeMap::new();
    for number in 0..limits::MAX_JOURNAL_VALUES {
        bounded(&mut map, &number.to_le_bytes(), ()).unwrap();
    }
    assert!(bounded(&mut map, &0_usize.to_le_bytes(), ()).is_ok());
    assert_eq!(bounded(&mut map, b"x", ()).unwrap_err().code(), "journal.values");
}

#[test]
fn lists_and_chains_are_bounded() {
    for (arrays, fits) in [
        (limits::MAX_JOURNAL_ARRAYS - 1, true),
        (limits::MAX_JOURNAL_ARRAYS, true),
        (limits::MAX_JOURNAL_ARRAYS + 1, false),
    ] {
        let mut build = Build::default().array_items(1);
        for number in 0..arrays {
            build = build.entry(1, 10 + number as u64, &["A=1"]);
        }
        let tree = guest(&[&build.finish()]);
        let journal = Journal::open(&tree).unwrap();
        let mut walk = journal.walk(&Filter::everything(), Span::default(), Direction::Down);
        assert_eq!(walk.next().is_some(), fits, "{arrays}");
        assert_eq!(walk.notes().is_empty(), fits);
    }
    for (others, fits) in [
        (limits::MAX_JOURNAL_CHAIN - 2, true),
        (limits::MAX_JOURNAL_CHAIN - 1, true),
        (limits::MAX_JOURNAL_CHAIN, false),
    ] {
        let tree = guest(&[&Build::chain(others)]);
        let journal = Journal::open(&tree).unwrap();
        assert_eq!(journal.files()[0].find_data(b"NOT=there").is_ok(), fits, "{others}");
    }
}

#[test]
fn too_many_files_are_an_error() {
    let fs = MemoryFs::default();
    let file = Build::default().finish();
    for number in 0..limits::MAX_JOURNAL_FILES {
        fs.add_file(&format!("/var/log/journal/{number}.journal"), &file).unwrap();
    }
    let fs = Arc::new(fs);
    let open = |fs: &Arc<MemoryFs>| {
        let tree = Tree::new(Arc::clone(fs) as _);
        Journal::open(&tree).map(|journal| journal.files().len())
    };
    assert_eq!(open(&fs).unwrap(), limits::MAX_JOURNAL_FILES);
    fs.add_file("/var/log/journal/x.journal~", &file).unwrap();
    assert_eq!(open(&fs).unwrap_err().code(), "journal.files");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_anywhere_end(patches in prop::collection::vec((0..4000_usize, any::<[u8; 3]>()), 1..6)) {
        let mut file = sample(Build::default());
        for (at, bytes) in patches {
            let at = at % (file.len() - 3);
            file[at..at + 3].copy_from_slice(&bytes);
        }
        ask_everything(&file);
    }

    #[test]
    fn conditions_select_what_a_scan_selects(
        entries in prop::collection::vec((0..3_u8, 0..4_u8, 0..3_u8), 0..40),
        words in prop::collection::vec(prop::sample::select(vec!["A=0", "A=1", "B=0", "B=2", "B=3", "+"]), 0..5),
        up in any::<bool>(),
        layout in 0..4_usize,
    ) {
        let mut build = Build::every().swap_remove(layout);
        let mut expected = Vec::new();
        for (index, (a, b, boot)) in entries.iter().enumerate() {
            let fields = [format!("A={a}"), format!("B={b}"), format!("MESSAGE={index}")];
            let texts: Vec<&str> = fields.iter().map(String::as_str).collect();
            build = build.entry(u8::max(*boot, 1), 10 + index as u64, &texts);
            let group = |group: &[&str]| ["A", "B"].iter().all(|name| {
                let mut wanted = group.iter().filter(|word| word.starts_with(name)).peekable();
                wanted.peek().is_none() || wanted.any(|word| texts.contains(word))
            });
            let groups: Vec<&[&str]> = words.split(|word| *word == "+").filter(|group| !group.is_empty()).collect();
            if groups.is_empty() || groups.iter().any(|words| group(words)) {
                expected.push(index.to_string());
            }
        }
        let direction = if up { Direction::Up } else { Direction::Down };
        if up {
            expected.reverse();
        }
        let words: Vec<Vec<u8>> = words.iter().map(|word| word.as_bytes().to_vec()).collect();
        let tree = guest(&[&build.finish()]);
        prop_assert_eq!(all(&tree, &Filter::words(&words), direction), expected);
    }
}
