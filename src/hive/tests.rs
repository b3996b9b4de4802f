#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    reason = "tests build their input"
)]

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::testing::{Builder, Cells, new_log, old_log, open, seal, set, soil, utf16};
use super::*;

type Values = BTreeMap<(String, String), (u32, Vec<u8>)>;

/// All values by the path of their key and their name.
fn values(hive: &Hive) -> Result<Values> {
    let (mut values, mut path) = (Values::new(), Vec::new());
    hive.walk(hive.root()?, &mut |key, depth| {
        let key = key?;
        path.truncate(depth);
        path.push(key.name().to_owned());
        for value in key.values()? {
            let value = value?;
            let data = value.data()?;
            assert_eq!(data.bytes.len(), value.size());
            values.insert((path[1..].join("\\"), value.name().to_owned()), (data.kind, data.bytes));
        }
        Ok(Step::In)
    })?;
    Ok(values)
}

/// The same, read by another program's code.
fn values_of_regf(hive: &[u8]) -> Values {
    fn add(key: &regf::hive::RegistryKey<'_>, path: &str, values: &mut Values) {
        for value in key.values().unwrap() {
            values.insert((path.to_owned(), value.name()), (value.raw_data_type(), value.raw_data().unwrap()));
        }
        for subkey in key.subkeys().unwrap() {
            let below = if path.is_empty() { subkey.name() } else { format!("{path}\\{}", subkey.name()) };
            add(&subkey, &below, values);
        }
    }
    let hive = regf::RegistryHive::from_bytes(hive.to_vec()).unwrap();
    let mut values = Values::new();
    add(&hive.root_key().unwrap(), "", &mut values);
    values
}

fn sample() -> Vec<u8> {
    Builder::new()
        .text("Software\\Größe", "", "default")
        .text("Software\\Größe", "Ünit", "größer 🚀")
        .number("Software", "Number", 7)
        .value("Software", "Long", 11, &(1_u64 << 40).to_le_bytes())
        .value("Software", "Swapped", 5, &[0, 0, 1, 2])
        .texts("Software", "Many", &["one", "two"])
        .value("Software", "Empty", 0, &[])
        .value("Software", "Tiny", 3, &[1])
        .value("Software", "Big", 3, &vec![0xab; 50_000])
        .value("Software", "Odd", 1, &[b'a', 0, b'b', 0, 0])
        .key("Software\\Below\\It")
        .build()
}

#[test]
fn reads_what_was_written() {
    let bytes = sample();
    let hive = open(&bytes, &[]).unwrap();
    assert_eq!(hive.facts().state, State::Clean);
    let key = hive.key("SOFTWARE").unwrap().unwrap();
    assert_eq!(key.name(), "Software");
    assert_eq!(key.number("number").unwrap(), Some(7));
    assert_eq!(key.number("LONG").unwrap(), Some(1 << 40));
    assert_eq!(key.number("Swapped").unwrap(), Some(0x102));
    assert_eq!(key.texts("Many").unwrap(), ["one", "two"]);
    assert_eq!(key.bytes("Big").unwrap().unwrap(), vec![0xab; 50_000]);
    assert_eq!(key.bytes("Tiny").unwrap().unwrap(), [1]);
    assert_eq!(key.text("Odd").unwrap().unwrap(), "ab");
    assert_eq!(key.text("Number").unwrap(), None);
    assert_eq!(hive.value("software\\GRÖßE", "üNIT").unwrap().unwrap().data().unwrap().text().unwrap(), "größer 🚀");
    assert_eq!(hive.value("software\\größe", "").unwrap().unwrap().data().unwrap().text().unwrap(), "default");
    assert!(hive.key("\\Software\\\\Below\\it\\").unwrap().is_some());
    assert!(hive.key("Software\\None").unwrap().is_none());
    assert!(hive.value("Software\\None", "x").unwrap().is_none());
    assert_eq!(values(&hive).unwrap(), values_of_regf(&bytes));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_tree_is_read_as_another_program_reads_it(
        tree in prop::collection::vec(("[a-dÄ-Ö€]{1,3}(\\\\[a-dé]{1,2}){0,3}", "[x-zß-ü]{0,3}", 0_u32..12, prop::collection::vec(any::<u8>(), 0..40), 0_usize..900), 0..60)
    ) {
        let builder = tree.iter().fold(Builder::new(), |builder, (path, name, kind, data, times)| {
            builder.value(path, &format!("{name}{}", data.len()), *kind, &data.repeat(*times))
        });
        let bytes = builder.build();
        prop_assert_eq!(values(&open(&bytes, &[]).unwrap()).unwrap(), values_of_regf(&bytes));
    }

    #[test]
    fn any_patch_gives_values_or_an_error(patches in prop::collection::vec((4096_usize..40_000, any::<u8>()), 1..40)) {
        let mut bytes = sample();
        for (at, byte) in patches {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        seal(&mut bytes);
        if let Ok(hive) = open(&bytes, &[]) {
            let _ = values(&hive);
        }
    }
}

/// Four states of a hive that has the same cells in the same places.
fn states() -> [Vec<u8>; 4] {
    [1, 2, 3, 4].map(|number| {
        (0..40)
            .fold(Builder::new().number("A", "Number", number), |builder, index| {
                builder.value(&format!("Key{index}"), "Fill", 3, &[u8::try_from(number).unwrap(); 600])
            })
            .build()
    })
}

fn number(hive: &Hive) -> u64 {
    // All of a state is there, not a mixture.
    let number = hive.key("A").unwrap().unwrap().number("Number").unwrap().unwrap();
    for (_, (kind, data)) in values(hive).unwrap() {
        assert!(kind == 4 || data.iter().all(|byte| u64::from(*byte) == number));
    }
    number
}

#[test]
fn an_old_log_completes_the_hive() {
    let [one, two, three, _] = states();
    let mut dirty = one.clone();
    soil(&mut dirty, 9);
    let hive = open(&dirty, &[&old_log(&one, &two)]).unwrap();
    assert_eq!(number(&hive), 2);
    assert!(matches!(hive.facts().state, State::Recovered { sectors, entries: 1 } if sectors > 40));
    // The newer of two counts, whatever the order; without any, the hive is as it stands.
    let mut newer = three.clone();
    newer[12..20].copy_from_slice(&u64::MAX.to_le_bytes());
    let (old, new) = (old_log(&one, &two), old_log(&one, &newer));
    assert_eq!(number(&open(&dirty, &[&old, &new]).unwrap()), 3);
    assert_eq!(number(&open(&dirty, &[&new, &old]).unwrap()), 3);
    assert_eq!(open(&dirty, &[]).unwrap().facts().state, State::Dirty);
    // A clean hive needs no log, whatever it says.
    assert_eq!(number(&open(&one, &[&new]).unwrap()), 1);
    // One that is older than the hive does not fit.
    dirty[12..20].copy_from_slice(&u64::MAX.to_le_bytes());
    seal(&mut dirty);
    assert_eq!(open(&dirty, &[&old]).unwrap().facts().state, State::Dirty);
}

#[test]
fn new_logs_complete_the_hive_one_after_the_other() {
    let [one, two, three, four] = states();
    for begun in [7_u32, u32::MAX - 1] {
        let mut dirty = one.clone();
        soil(&mut dirty, begun.wrapping_add(1));
        set(&mut dirty, 8, begun);
        let first = new_log(&[&one, &two, &three], begun);
        let second = new_log(&[&three, &four], begun.wrapping_add(2));
        assert_eq!(number(&open(&dirty, &[&first]).unwrap()), 3);
        for logs in [[&*first, &second], [&*second, &first]] {
            let hive = open(&dirty, &logs).unwrap();
            assert_eq!(number(&hive), 4);
            assert!(matches!(hive.facts().state, State::Recovered { entries: 3, .. }));
        }
        // A log that is not the next is left alone.
        let apart = new_log(&[&three, &four], begun.wrapping_add(3));
        assert_eq!(number(&open(&dirty, &[&first, &apart]).unwrap()), 3);
        // So is one that the hive has already.
        set(&mut dirty, 8, begun.wrapping_add(2));
        assert_eq!(number(&open(&dirty, &[&first, &apart]).unwrap()), 4);
        let stale = open(&dirty, &[&first]).unwrap();
        assert_eq!((number(&stale), stale.facts().state), (1, State::Dirty));
    }
}

#[test]
fn a_torn_entry_ends_a_log() {
    let [one, two, three, _] = states();
    let mut dirty = one.clone();
    soil(&mut dirty, 8);
    let whole = new_log(&[&one, &two, &three], 8);
    let second = whole.len() - (whole.len() - 512) / 2;
    for (place, expected) in [(second + 2000, 2), (second + 30, 2), (second + 12, 2), (second, 2), (600, 1), (520, 1)] {
        let mut torn = whole.clone();
        torn[place] ^= 1;
        let hive = open(&dirty, &[&torn]).unwrap();
        assert_eq!(number(&hive), expected, "{place}");
        assert_eq!(number(&open(&dirty, &[&whole[..whole.len() - 1]]).unwrap()), 2);
    }
}

#[test]
fn a_log_makes_up_for_a_damaged_base_block() {
    let [one, two, three, four] = states();
    let mut torn = one.clone();
    torn[40..44].copy_from_slice(&[0; 4]);
    assert_eq!(open(&torn, &[]).unwrap_err().code(), "hive.corrupt");
    assert_eq!(number(&open(&torn, &[&old_log(&one, &two)]).unwrap()), 2);
    // What the hive has already cannot be told: the newer log has to be enough.
    let logs = [new_log(&[&one, &two], 7), new_log(&[&three, &four], 8)];
    assert_eq!(number(&open(&torn, &[&logs[0], &logs[1]]).unwrap()), 4);
}

/// A log lengthens the hive.
#[test]
fn a_log_adds_bins() {
    let one = Builder::new().number("A", "Number", 1).build();
    let two = (0..40)
        .fold(Builder::new().number("A", "Number", 2), |it, index| it.value(&format!("K{index}"), "", 3, &[2; 600]))
        .build();
    assert!(two.len() > one.len());
    let mut dirty = one.clone();
    soil(&mut dirty, 8);
    for log in [new_log(&[&one, &two], 8), old_log(&one, &two)] {
        assert_eq!(number(&open(&dirty, &[&log]).unwrap()), 2);
    }
}

/// What comes of a hive that is `cells`.
fn outcome(hive: &[u8]) -> &'static str {
    match open(hive, &[]).and_then(|hive| values(&hive)) {
        Ok(_) => "ok",
        Err(error) => error.code(),
    }
}

fn of_cells(make: impl FnOnce(&mut Cells) -> u32) -> &'static str {
    let mut cells = Cells::new();
    let root = make(&mut cells);
    outcome(&cells.finish(root))
}

const NONE: (u32, u32) = (0, u32::MAX);

#[test]
fn hostile_hives_are_told() {
    let cases: [(&str, &str, &str); 12] = [
        ("none", of_cells(|it| it.key("R", NONE, NONE)), "ok"),
        ("root outside", of_cells(|_| 0xffff_f000), "hive.corrupt"),
        ("root unaligned", of_cells(|it| it.key("R", NONE, NONE) + 4), "hive.corrupt"),
        ("root no key", of_cells(|it| it.list(b"li", &[])), "hive.corrupt"),
        ("free cell", of_cells(|it| it.key("R", NONE, NONE) + 0x800), "hive.corrupt"),
        (
            "no such list",
            of_cells(|it| {
                let list = it.add(b"xy\x01\0....");
                it.key("R", (1, list), NONE)
            }),
            "hive.corrupt",
        ),
        (
            "a list of lists of lists",
            of_cells(|it| {
                let inner = it.list(b"ri", &[32]);
                let list = it.list(b"ri", &[inner]);
                it.key("R", (1, list), NONE)
            }),
            "hive.corrupt",
        ),
        (
            "a list that is too short",
            of_cells(|it| {
                let list = it.add(b"li\xff\xff\0\0\0\0");
                it.key("R", (1, list), NONE)
            }),
            "hive.corrupt",
        ),
        (
            "too few values",
            of_cells(|it| {
                let list = it.add(&[0; 4]);
                it.key("R", NONE, (99, list))
            }),
            "hive.corrupt",
        ),
        (
            "own data of more than four bytes",
            of_cells(|it| {
                let value = it.value("V", 0x8000_0005, 0);
                let list = it.add(&value.to_le_bytes());
                it.key("R", NONE, (1, list))
            }),
            "hive.corrupt",
        ),
        (
            "data longer than the cell",
            of_cells(|it| {
                let data = it.add(&[0; 12]);
                let value = it.value("V", 13, data);
                let list = it.add(&value.to_le_bytes());
                it.key("R", NONE, (1, list))
            }),
            "hive.corrupt",
        ),
        (
            "pieces that are not there",
            of_cells(|it| {
                let list = it.list(b"li", &[]);
                let data = it.add(&[&b"db\xff\xff"[..], &list.to_le_bytes()].concat());
                let value = it.value("V", 1 << 20, data);
                let list = it.add(&value.to_le_bytes());
                it.key("R", NONE, (1, list))
            }),
            "hive.corrupt",
        ),
    ];
    for (name, found, expected) in cases {
        assert_eq!(found, expected, "{name}");
    }
}

/// A key that is its own grandchild, and one in two places.
#[test]
fn a_cycle_ends() {
    let mut hive = sample();
    let root = usize::try_from(le32(&hive, 36)).unwrap() + 4096 + 4;
    let list = usize::try_from(le32(&hive, root + 28)).unwrap() + 4096 + 4;
    let at_root = le32(&hive, 36).to_le_bytes();
    hive[list + 4..list + 8].copy_from_slice(&at_root);
    assert_eq!(outcome(&hive), "hive.corrupt");
    let found = of_cells(|it| {
        let child = it.key("C", NONE, NONE);
        let list = it.list(b"li", &[child, child]);
        it.key("R", (2, list), NONE)
    });
    assert_eq!(found, "hive.corrupt");
}

#[test]
fn hostile_base_blocks_are_told() {
    let good = sample();
    let with = |at, value| {
        let mut hive = good.clone();
        set(&mut hive, at, value);
        outcome(&hive)
    };
    assert_eq!(with(44, 1), "ok");
    for (at, value, expected) in [
        (0, 0, "hive.signature"),
        (20, 2, "hive.version"),
        (24, 1, "hive.version"),
        (24, 7, "hive.version"),
        (28, 6, "hive.version"),
        (28, 77, "hive.version"),
        (32, 0, "hive.version"),
        (44, 0, "hive.version"),
        (40, 0, "hive.corrupt"),
        (40, 4097, "hive.corrupt"),
        (40, 0xffff_f000, "hive.corrupt"),
        (36, u32::MAX, "hive.corrupt"),
    ] {
        assert_eq!(with(at, value), expected, "{at} {value:#x}");
    }
    for length in [0, 3, 4, 100, 511, 512, 4096, 5000] {
        assert_ne!(outcome(&good[..length]), "ok", "{length}");
    }
}

#[test]
fn bins_are_as_large_as_the_limit() {
    let mut hive = sample();
    for (bins, fits) in [(limits::MAX_HIVE - 4096, true), (limits::MAX_HIVE, true), (limits::MAX_HIVE + 4096, false)] {
        set(&mut hive, 40, u32::try_from(bins).unwrap());
        assert_eq!(outcome(&hive) == "ok", fits);
    }
}

#[test]
fn keys_are_as_deep_as_the_limit() {
    for (depth, expected) in
        [(limits::MAX_HIVE_DEPTH - 1, "ok"), (limits::MAX_HIVE_DEPTH, "ok"), (limits::MAX_HIVE_DEPTH + 1, "hive.limit")]
    {
        let found = of_cells(|it| {
            (0..depth).fold(it.key("K", NONE, NONE), |below, _| {
                let list = it.list(b"li", &[below]);
                it.key("K", (1, list), NONE)
            })
        });
        assert_eq!(found, expected, "{depth}");
    }
}

#[test]
fn a_walk_visits_as_many_keys_as_the_limit() {
    let bytes = sample();
    let hive = open(&bytes, &[]).unwrap();
    let walk = |most| {
        let mut count = 0_usize;
        let walked = hive.walk_at_most(most, hive.root().unwrap(), &mut |_, _| {
            count += 1;
            Ok(Step::In)
        });
        (count, walked.is_ok())
    };
    let (all, _) = walk(limits::MAX_HIVE_KEYS);
    assert_eq!((walk(all + 1), walk(all), walk(all - 1)), ((all, true), (all, true), (all - 1, false)));
}

#[test]
fn a_key_has_as_many_subkeys_as_the_limit() {
    let each = 4096;
    for (count, expected) in [
        (limits::MAX_HIVE_SUBKEYS - 1, "hive.corrupt"),
        (limits::MAX_HIVE_SUBKEYS, "hive.corrupt"),
        (limits::MAX_HIVE_SUBKEYS + 1, "hive.limit"),
    ] {
        let found = of_cells(|it| {
            let child = it.key("C", NONE, NONE);
            let full = it.list(b"li", &vec![child; each]);
            let rest = it.list(b"li", &vec![child; count % each]);
            let list = it.list(b"ri", &[vec![full; count / each], vec![rest]].concat());
            it.key("R", (u32::try_from(count).unwrap(), list), NONE)
        });
        // The same key so many times is no hive either.
        assert_eq!(found, expected, "{count}");
    }
}

#[test]
fn a_key_has_as_many_values_as_the_limit() {
    for (count, expected) in [
        (limits::MAX_HIVE_VALUES - 1, "ok"),
        (limits::MAX_HIVE_VALUES, "ok"),
        (limits::MAX_HIVE_VALUES + 1, "hive.limit"),
    ] {
        let found = of_cells(|it| {
            let value = it.value("V", 0x8000_0004, 5);
            let list = it.add(&value.to_le_bytes().repeat(count));
            it.key("R", NONE, (u32::try_from(count).unwrap(), list))
        });
        assert_eq!(found, expected, "{count}");
    }
}

#[test]
fn a_value_is_as_large_as_the_limit() {
    let most = limits::MAX_HIVE_VALUE;
    for (size, expected) in [(most - 1, "hive.corrupt"), (most, "hive.corrupt"), (most + 1, "hive.limit")] {
        let found = of_cells(|it| {
            let data = it.add(b"db\0\0\xff\xff\xff\xff");
            let value = it.value("V", u32::try_from(size).unwrap(), data);
            let list = it.add(&value.to_le_bytes());
            it.key("R", NONE, (1, list))
        });
        assert_eq!(found, expected, "{size}");
    }
}

/// A log whose bitmap has `sectors` bits, and as many zeros after it, which take no memory.
#[derive(Debug)]
struct Zeros(Vec<u8>, u64);

impl Bytes for Zeros {
    fn len(&self) -> u64 {
        self.1
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        let count = Bytes::read_at(&self.0, buf, offset)?;
        buf[count..].fill(0);
        Ok(buf.len())
    }
}

#[test]
fn a_log_has_as_many_sectors_as_the_limit() {
    let (most, mut dirty) = (limits::MAX_HIVE_DIRTY, sample());
    soil(&mut dirty, 5);
    for (sectors, expected) in [(most - 1, true), (most, true), (most + 1, false)] {
        let mut head = sample()[..512].to_vec();
        let bitmap = sectors.div_ceil(8);
        set(&mut head, 28, 1);
        set(&mut head, 40, u32::try_from(bitmap * 4096).unwrap());
        head.extend(b"DIRT");
        head.extend((0..bitmap).map(|byte| if byte < sectors / 8 { 0xff } else { (1 << (sectors % 8)) - 1_u8 }));
        let log = Zeros(head, 1 << 31);
        let hive = Hive::open(Box::new(dirty.clone()), vec![Box::new(log)]).unwrap();
        assert_eq!(hive.facts().state != State::Dirty, expected, "{sectors}");
    }
}

#[test]
fn an_entry_of_a_log_is_as_large_as_the_limit() {
    let [one, two, ..] = states();
    let mut dirty = one.clone();
    soil(&mut dirty, 8);
    let mut head = new_log(&[&one, &two], 8)[..552].to_vec();
    // The digest over so much is not worth its time: that of the head is wrong, so that nothing is applied.
    head[544] ^= 1;
    for size in [limits::MAX_HIVE_LOG_ENTRY - 512, limits::MAX_HIVE_LOG_ENTRY, limits::MAX_HIVE_LOG_ENTRY + 512] {
        head[516..520].copy_from_slice(&u32::try_from(size).unwrap().to_le_bytes());
        let log = Zeros(head.clone(), 1 << 31);
        let hive = Hive::open(Box::new(dirty.clone()), vec![Box::new(log)]).unwrap();
        assert_eq!(hive.facts().state, State::Dirty);
    }
}

#[test]
fn an_export_is_the_text_that_regedit_reads() {
    let bytes = Builder::new()
        .text("A", "", "it \"is\" C:\\")
        .number("A", "n", 10)
        .value("A\\B", "x", 3, &(0..40).collect::<Vec<u8>>())
        .value("A\\B", "y\\z", 2, &utf16(&["%A%"]))
        .value("A\\B", "line", 1, &utf16(&["a\nb"]))
        .build();
    let (hive, mut text) = (open(&bytes, &[]).unwrap(), Vec::new());
    export(&hive, hive.key("A").unwrap().unwrap(), "HKEY_LOCAL_MACHINE\\X", &mut text).unwrap();
    let expected = "Windows Registry Editor Version 5.00\n\n[HKEY_LOCAL_MACHINE\\X]\n@=\"it \\\"is\\\" C:\\\\\"\n\"n\"=dword:0000000a\n\n\
        [HKEY_LOCAL_MACHINE\\X\\B]\n\"x\"=hex:00,01,02,03,04,05,06,07,08,09,0a,0b,0c,0d,0e,0f,10,11,12,13,14,15,16,\\\n  \
        17,18,19,1a,1b,1c,1d,1e,1f,20,21,22,23,24,25,26,27\n\"y\\\\z\"=hex(2):25,00,41,00,25,00,00,00\n\
        \"line\"=hex(1):61,00,0a,00,62,00,00,00\n";
    assert_eq!(String::from_utf8(text).unwrap(), expected);
}
