//! Any bytes patched into a journal file: every question ends, and no walk shows more entries than the file has bytes.
#![no_main]

use std::process::Command;
use std::sync::{Arc, LazyLock};

use hyper2kvm::fs::{MemoryFs, Tree};
use hyper2kvm::inspect::journal::show::{Format, Style};
use hyper2kvm::inspect::journal::{Direction, Filter, Journal, Span};
use hyper2kvm::inspect::systemd::time::now;
use libfuzzer_sys::fuzz_target;

/// A small journal; what follows its objects is not needed.
static FILE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let script = "d=$(mktemp -d); trap 'rm -r $d' EXIT; for i in 1 2 3 4 5 6 7 8; do printf '__REALTIME_TIMESTAMP=170000000000000%d\\n_BOOT_ID=%032x\\nMESSAGE=%2000d\\n_PID=1\\n_UID=%d\\n\\n' $i 7 $i $i; done >$d/e
        /lib/systemd/systemd-journal-remote -o $d/a.journal $d/e 2>/dev/null; cat $d/a.journal";
    let mut file = Command::new("bash").args(["-c", script]).output().unwrap().stdout;
    assert!(file.starts_with(b"LPKSHHRH"), "systemd-journal-remote is needed");
    let number = |at: usize| u64::from_le_bytes(file[at..at + 8].try_into().unwrap());
    let (header, end) = (number(88), number(136) + 4096);
    file.truncate(end as usize);
    let arena = file.len() as u64 - header;
    file[96..104].copy_from_slice(&arena.to_le_bytes());
    file
});

fuzz_target!(|data: &[u8]| {
    let mut file = FILE.clone();
    for patch in data.chunks(8) {
        let [a, b, c, bytes @ ..] = patch else { break };
        let at = u32::from_le_bytes([*a, *b, *c, 0]) as usize % (file.len() - 5);
        file[at..at + bytes.len()].copy_from_slice(bytes);
    }
    let (fs, size) = (MemoryFs::default(), file.len());
    fs.add_file("/var/log/journal/a.journal", file).expect("room");
    let tree = Tree::new(Arc::new(fs));
    let journal = Journal::open(&tree).expect("memory can be read");
    let style = Style::new(Format::Verbose, now().time_zone().clone());
    for filter in [Filter::everything(), Filter::unit("a.slice"), Filter::field("_PID", 1)] {
        for direction in [Direction::Down, Direction::Up] {
            let (mut walk, mut left) = (journal.walk(&filter, Span::default(), direction), size);
            while let Some(entry) = walk.next() {
                left = left.checked_sub(1).expect("no more entries than bytes");
                let _ = style.write(&journal, &entry, &mut Vec::new());
            }
        }
    }
    let _ = (journal.boots(), journal.fields(), journal.values("_UID"), journal.verify(&mut || Ok(())));
});
