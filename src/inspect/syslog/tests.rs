//! Logs of trees made here; `tests/syslog.rs` has logs as logrotate leaves them.
#![allow(clippy::as_conversions, clippy::arithmetic_side_effects, reason = "tests build their input")]

use std::sync::Arc;

use super::*;
use crate::fs::{Filesystem, MemoryFs};

const ZONE: TimeZone = TimeZone::UTC;

/// 2026-01-02 00:00:00 UTC.
const MODIFIED: i64 = 1_767_312_000;

fn time(text: &str) -> Option<u64> {
    Line::parse(text.as_bytes(), &ZONE, MODIFIED).time.map(|micros| micros / 1_000_000)
}

#[test]
fn lines_have_parts() {
    let zone = TimeZone::fixed(jiff::tz::offset(1));
    let line = |text: &'static str| Line::parse(text.as_bytes(), &zone, MODIFIED);
    let ssh = line("Jan  1 16:45:25 web sshd[812]: Accepted: [x] for y");
    assert_eq!((ssh.host, ssh.identifier, ssh.pid), (Some("web"), Some("sshd"), Some(812)));
    assert_eq!((ssh.time, ssh.message), (Some(1_767_282_325_000_000), b"Accepted: [x] for y".as_slice()));
    let kernel = line("2026-01-01T16:45:25.250000+01:00 web kernel: [    0.000000] Linux");
    assert_eq!((kernel.time, kernel.identifier), (Some(1_767_282_325_250_000), Some("kernel")));
    assert_eq!(kernel.message, b"[    0.000000] Linux");
    let busybox = line("Jan  1 16:45:25 web daemon.info init: starting pid 1");
    assert_eq!((busybox.identifier, busybox.message), (Some("init"), b"starting pid 1".as_slice()));
    let mark = line("Jan  1 16:45:25 web -- MARK --");
    assert_eq!((mark.identifier, mark.message), (None, b"-- MARK --".as_slice()));
    let other = line("  at main.c:12");
    assert_eq!((other.time, other.host, other.message), (None, None, b"  at main.c:12".as_slice()));
}

#[test]
fn a_year_is_the_latest_that_can_be() {
    // Of a file that was last written at the second day of 2026.
    for (text, seconds) in [
        ("Jan  1 00:00:00 h x: y", Some(1_767_225_600)),
        ("Jan  2 23:59:59 h x: y", Some(1_767_398_399)),
        ("Jan  3 00:00:01 h x: y", Some(1_735_862_401)),
        ("Dec 31 23:59:59 h x: y", Some(1_767_225_599)),
        ("Feb 29 12:00:00 h x: y", Some(1_709_208_000)),
        ("Feb 30 12:00:00 h x: y", None),
    ] {
        assert_eq!(time(text), seconds, "{text}");
    }
}

#[test]
fn odd_lines_have_no_time() {
    for text in [
        "",
        " ",
        "Nov",
        "Nov 21",
        "Nov 21 16:45:25",
        "Nov 99 16:45:25 h x",
        "Nov 21 99:45:25 h x",
        "Nov 21 16:45 h x",
        "Nov 21 16:45:25:1 h x",
        "Nov -1 16:45:25 h x",
        "nov 21 16:45:25 h x",
        "2026-99-99T16:45:25+01:00 h x",
        "2026-01-01 16:45:25 h x",
        "99999999999999999999T0 h x",
        "\u{1b}[31m Nov 21 16:45:25 h x",
    ] {
        assert_eq!(time(text), None, "{text:?}");
    }
    let mut long = b"Jan  1 16:45:25 web a[4294967296]: \xff".to_vec();
    long.resize(1 << 20, 0xff);
    let line = Line::parse(&long, &ZONE, MODIFIED);
    assert_eq!((line.identifier, line.message.len()), (None, (1 << 20) - 20));
    assert!(Line::parse(&[0xff; 600], &ZONE, i64::MAX).time.is_none());
}

fn tree(files: &[(&str, Vec<u8>)]) -> Tree {
    let fs = MemoryFs::default();
    for (name, content) in files {
        fs.add_file(&format!("/var/log/{name}"), content.clone()).unwrap();
    }
    let fs: Arc<dyn Filesystem> = Arc::new(fs);
    Tree::new(fs)
}

fn names(files: &[&str]) -> Vec<String> {
    let files: Vec<_> = files.iter().map(|name| (*name, Vec::new())).collect();
    let tree = tree(&files);
    let log = Syslog::find(&tree).unwrap();
    let name = |file: &LogFile| file.path.rsplit('/').next().unwrap().to_owned();
    log.map(|log| log.files().iter().map(name).collect()).unwrap_or_default()
}

#[test]
fn the_oldest_file_comes_first() {
    assert_eq!(
        names(&[
            "syslog",
            "syslog.1",
            "syslog.10.gz",
            "syslog.2.gz",
            "syslog.old",
            "syslog.1.gz.bak",
            "messages",
            "syslogd"
        ]),
        ["syslog.10.gz", "syslog.2.gz", "syslog.1", "syslog"]
    );
    assert_eq!(
        names(&["messages", "messages-20260101.xz", "messages-20251225", "messages-x", "messages-1", "messages-"]),
        ["messages-20251225", "messages-20260101.xz", "messages"]
    );
    assert_eq!(names(&["dmesg", "syslog.99999999999"]), Vec::<String>::new());
    assert_eq!(names(&["syslog.1"]), ["syslog.1"]);
}

/// The lines of all files, and the notes.
fn read(tree: &Tree) -> (Vec<Vec<u8>>, Vec<String>) {
    let mut log = Syslog::find(tree).unwrap().unwrap();
    let mut lines = Vec::new();
    for file in log.files().to_vec() {
        let mut visit = |line: &Line<'_>| {
            lines.push(line.text.to_vec());
            Ok(true)
        };
        log.read(&file, &ZONE, &mut visit).unwrap();
    }
    (lines, log.notes().to_vec())
}

#[test]
fn what_is_damaged_ends_with_a_note() {
    for head in [&[0x1f, 0x8b, 8][..], &[0xfd, b'7', b'z', b'X', b'Z', 0], &[0x28, 0xb5, 0x2f, 0xfd]] {
        let mut damaged = head.to_vec();
        damaged.extend_from_slice(&[0xff; 100]);
        let tree = tree(&[("syslog.1.gz", damaged), ("syslog", b"a\nb".to_vec())]);
        let (lines, notes) = read(&tree);
        assert_eq!(lines, [b"a", b"b"]);
        assert!(notes[0].starts_with("/var/log/syslog.1.gz is not read to its end: "), "{notes:?}");
    }
}

#[test]
fn long_lines_go_on_in_the_next() {
    for (length, expected) in [
        (limits::MAX_SYSLOG_LINE - 1, vec![limits::MAX_SYSLOG_LINE - 1]),
        (limits::MAX_SYSLOG_LINE, vec![limits::MAX_SYSLOG_LINE]),
        (limits::MAX_SYSLOG_LINE + 1, vec![limits::MAX_SYSLOG_LINE, 1]),
    ] {
        let (lines, _) = read(&tree(&[("syslog", vec![b'x'; length])]));
        assert_eq!(lines.iter().map(Vec::len).collect::<Vec<_>>(), expected);
    }
    let (lines, _) = read(&tree(&[("syslog", b"\n\nx\n".to_vec())]));
    assert_eq!(lines, [b"".as_slice(), b"", b"x"]);
}

#[test]
fn files_are_bounded() {
    for (count, notes) in
        [(limits::MAX_SYSLOG_FILES - 1, 0), (limits::MAX_SYSLOG_FILES, 0), (limits::MAX_SYSLOG_FILES + 1, 1)]
    {
        let files: Vec<_> = (0..count).map(|number| (format!("syslog.{number}"), Vec::new())).collect();
        let files: Vec<_> = files.iter().map(|(name, content)| (name.as_str(), content.clone())).collect();
        let tree = tree(&files);
        let log = Syslog::find(&tree).unwrap().unwrap();
        assert_eq!((log.files().len(), log.notes().len()), (count.min(limits::MAX_SYSLOG_FILES), notes));
    }
}

#[test]
fn a_file_is_read_as_far_as_the_limit() {
    #[derive(Debug)]
    struct Line(usize);

    impl Stream for Line {
        fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
            let count = self.0.min(buf.len());
            self.0 -= count;
            buf[..count].fill(b'x');
            Ok(count)
        }

        fn name(&self) -> String {
            "log".to_owned()
        }
    }

    // All but ten bytes were read before.
    for (left, fits) in [(9, true), (10, true), (11, false)] {
        let read = crate::limits::MAX_SYSLOG_BYTES - 10;
        let mut lines = Lines { stream: Box::new(Line(left)), buf: Vec::new(), read, is_over: false };
        let found = lines.next().map(|line| line.map(|line| line.len())).map_err(|error| error.code());
        assert_eq!(found, if fits { Ok(Some(left)) } else { Err("log.size") }, "{left}");
    }
}
