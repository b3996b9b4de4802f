//! `guest log`, compared with `journalctl` on the same files. systemd's own importer makes them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::{Lab, Run, tools};

const REMOTE: &str = "/lib/systemd/systemd-journal-remote";
const MACHINE: &str = "00112233445566778899aabbccddeeff";

/// A guest, as a folder and as a disk that holds the same.
struct Journals {
    lab: Lab,
    folder: PathBuf,
    image: PathBuf,
}

impl Journals {
    /// Three files, one after the other in time, of every layout, and one of odd messages.
    fn new() -> Self {
        let lab = Lab::new();
        let folder = Self::guest(&lab);
        let make = |name: &str, text: &[u8], options: &[&str], env: &[(&str, &str)]| {
            import(&lab, &folder.join("var/log/journal").join(MACHINE).join(name), text, options, env);
        };
        make("system.journal", &made(1500, 1), &[], &[]);
        make("user-1000.journal", &made(1000, 2), &[], &[("SYSTEMD_JOURNAL_COMPACT", "0")]);
        let old = [("SYSTEMD_JOURNAL_COMPACT", "0"), ("SYSTEMD_JOURNAL_KEYED_HASH", "0")];
        make("system@1.journal", &made(500, 3), &["--compress=no"], &old);
        make("odd.journal", &odd(), &[], &[]);
        Self::close(lab, folder)
    }

    fn guest(lab: &Lab) -> PathBuf {
        let folder = lab.folder("guest");
        for path in ["etc", "bin", "sbin", &format!("var/log/journal/{MACHINE}")] {
            std::fs::create_dir_all(folder.join(path)).expect("a folder");
        }
        std::fs::write(folder.join("etc/os-release"), "ID=debian\n").expect("writing");
        folder
    }

    fn close(lab: Lab, folder: PathBuf) -> Self {
        let image = lab.path("guest.raw");
        let args = ["-q".as_ref(), "-d".as_ref(), folder.as_os_str(), image.as_os_str(), "96M".as_ref()];
        tools::ok("mkfs.ext4", args);
        Self { lab, folder, image }
    }

    fn ours(&self, args: &[&str], zone: &str) -> Vec<u8> {
        // Not by `Run`, which takes what is printed for text.
        let run = Command::new(env!("CARGO_BIN_EXE_hyper2kvm"))
            .args(["guest".as_ref(), "log".as_ref(), self.image.as_os_str()])
            .args(args)
            .env("TZ", zone)
            .output()
            .expect("the program");
        assert!(run.status.success(), "{args:?}: {}", String::from_utf8_lossy(&run.stderr));
        run.stdout
    }

    fn theirs(&self, args: &[&str], zone: &str) -> Vec<u8> {
        let run = Command::new("journalctl")
            .arg(format!("--root={}", self.folder.display()))
            .args(args)
            .env("TZ", zone)
            .env("LC_ALL", "C.UTF-8")
            .output();
        run.expect("journalctl").stdout
    }

    /// Both say the same, byte for byte.
    fn assert_same(&self, args: &[&str]) {
        let zone = "CET-1CEST,M3.5.0,M10.5.0/3";
        let (ours, theirs) = (self.ours(args, zone), self.theirs(args, zone));
        // Systemd 254 and later add these.
        let theirs: Vec<&[u8]> =
            theirs.split_inclusive(|byte| *byte == b'\n').filter(|line| !line.starts_with(b"__SEQNUM")).collect();
        let theirs = theirs.concat();
        if ours != theirs {
            let (ours, theirs) = (String::from_utf8_lossy(&ours), String::from_utf8_lossy(&theirs));
            let pair = ours.lines().zip(theirs.lines()).find(|(ours, theirs)| ours != theirs);
            panic!("{args:?}: {} and {} bytes; first difference: {pair:#?}", ours.len(), theirs.len());
        }
    }

    /// Both give the same objects, whose fields have no order there.
    fn assert_same_json(&self, args: &[&str]) {
        let objects = |text: &[u8]| -> Vec<BTreeMap<String, Value>> {
            let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            lines
                .map(|line| {
                    let mut object: BTreeMap<String, Value> = serde_json::from_slice(line).expect("JSON");
                    object.retain(|name, _| !name.starts_with("__SEQNUM"));
                    object
                })
                .collect()
        };
        let args: Vec<&str> = ["-o", "json"].into_iter().chain(args.iter().copied()).collect();
        let (ours, theirs) = (objects(&self.ours(&args, "UTC")), objects(&self.theirs(&args, "UTC")));
        assert_eq!(ours.len(), theirs.len(), "{args:?}");
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert_eq!(ours, theirs, "{args:?}");
        }
    }
}

/// Lets systemd make a journal file of entries in Journal Export Format.
fn import(lab: &Lab, to: &Path, text: &[u8], options: &[&str], env: &[(&str, &str)]) {
    let text = lab.file("entries.export", text);
    let made = Command::new(REMOTE)
        .args(options)
        .arg("-o")
        .args([to, &text])
        .envs(env.iter().copied())
        .output()
        .expect("systemd-journal-remote");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// Numbers that look random and are always the same.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len() as u64) as usize]
    }
}

fn field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend(name.as_bytes());
    if value.iter().any(|byte| *byte < 32) {
        out.push(b'\n');
        out.extend((value.len() as u64).to_le_bytes());
    } else {
        out.push(b'=');
    }
    out.extend(value);
    out.push(b'\n');
}

/// `count` entries of two starts of a machine. Each `number` is an hour later.
fn made(count: u64, number: u64) -> Vec<u8> {
    let (mut numbers, mut out) = (Numbers(number), Vec::new());
    let start = 1_700_000_000_000_000 + number * 3_600_000_000;
    let mut time = start;
    for index in 0..count {
        time += 1 + numbers.below(900_000);
        let boot = format!("{:032x}", number * 16 + index * 2 / count + 1);
        field(&mut out, "__REALTIME_TIMESTAMP", time.to_string().as_bytes());
        field(&mut out, "__MONOTONIC_TIMESTAMP", (time - start).to_string().as_bytes());
        field(&mut out, "_BOOT_ID", boot.as_bytes());
        field(&mut out, "_HOSTNAME", "gäst".as_bytes());
        field(&mut out, "PRIORITY", numbers.below(8).to_string().as_bytes());
        field(&mut out, "_PID", numbers.below(400).to_string().as_bytes());
        field(&mut out, "_UID", numbers.pick(&["0", "1000"]).as_bytes());
        field(&mut out, "UNIT", numbers.pick(&["ssh.service", "a.mount"]).as_bytes());
        field(&mut out, "SYSLOG_FACILITY", numbers.pick(&["0", "3", "10"]).as_bytes());
        field(&mut out, "SYSLOG_IDENTIFIER", numbers.pick(&["sshd", "cron", "kernel"]).as_bytes());
        field(&mut out, "_TRANSPORT", numbers.pick(&["kernel", "syslog", "journal"]).as_bytes());
        field(&mut out, "_SYSTEMD_UNIT", numbers.pick(&["ssh.service", "cron.service", "user.slice"]).as_bytes());
        let message = match numbers.below(7) {
            0 => format!("hello {index}"),
            1 => format!("line\nsecond {index}\n  third"),
            2 => "tab\tand \u{1b}[31mred\u{1b}[0m".to_owned(),
            3 => "x".repeat(numbers.below(3000) as usize),
            4 => "y".repeat(5000),
            5 => format!("café {index}"),
            _ => "unprintable \u{1}".to_owned(),
        };
        field(&mut out, "MESSAGE", message.as_bytes());
        if index % 5 == 0 {
            field(&mut out, "_SOURCE_REALTIME_TIMESTAMP", (time - 1234).to_string().as_bytes());
        }
        if index % 7 == 0 {
            field(&mut out, "MULTI", b"a");
            field(&mut out, "MULTI", b"b");
        }
        out.push(b'\n');
    }
    out
}

/// Messages and fields at the edges of what the formats show.
fn odd() -> Vec<u8> {
    let mut out = Vec::new();
    let start = 1_700_040_000_000_000_u64;
    let messages: [&[u8]; 22] = [
        b"a\x1b[0;1mb",
        b"\x1b[3",
        b"\x1b]0;title\x07x",
        b"\x1b]0;\xc3\xa9\x07x",
        b"\x1bZ",
        b"\t\n",
        b"\n\nx\n\n",
        b"\x1b",
        b"\xff",
        b"\x1b[\x1b[1mq",
        b"tail\n",
        b"\xc2\x85",
        b"=",
        b"",
        b"aaa\x01",
        b"\0",
        b"\r\n",
        b"a\r\rb",
        b"a\rb",
        b"a\r\n\r\r\n",
        b"a\x01\r",
        b"\xed\xa0\x80",
    ];
    let sizes = [1023, 1024, 1025, 10_000];
    let long = sizes.iter().map(|size| [&vec![b'b'; *size], &b"\x01"[..]].concat());
    for (index, message) in messages.iter().map(|message| message.to_vec()).chain(long).enumerate() {
        let time = start + index as u64;
        field(&mut out, "__REALTIME_TIMESTAMP", time.to_string().as_bytes());
        field(&mut out, "__MONOTONIC_TIMESTAMP", (index + 1).to_string().as_bytes());
        field(&mut out, "_BOOT_ID", format!("{:032x}", 0xfff).as_bytes());
        field(&mut out, "MESSAGE", b"one of two");
        field(&mut out, "MESSAGE", &message);
        field(&mut out, "EMPTY", b"");
        field(&mut out, "_COMM", if index % 2 == 0 { b"comm" } else { b"\x7f" });
        field(&mut out, "SYSLOG_PID", b"7");
        field(&mut out, "SYSLOG_IDENTIFIER", "i".repeat(298 + index % 4).as_bytes());
        field(&mut out, "LONG", "z".repeat(4085 + index).as_bytes());
        field(&mut out, "_SOURCE_REALTIME_TIMESTAMP", b"0");
        field(&mut out, "_SOURCE_MONOTONIC_TIMESTAMP", b"12x");
        field(&mut out, "PRIORITY", b"9");
        out.push(b'\n');
    }
    out
}

#[test]
fn every_format_is_journalctls() {
    let journals = Journals::new();
    for format in
        ["short", "short-precise", "short-full", "short-monotonic", "short-unix", "with-unit", "verbose", "export"]
    {
        journals.assert_same(&["-o", format]);
        journals.assert_same(&["-o", format, "-n", "700"]);
    }
    // Later versions write the zone with a colon.
    let version = tools::ok("journalctl", ["--version"]);
    let version: u32 = version.split_whitespace().nth(1).and_then(|word| word.parse().ok()).expect("a version");
    if version < 255 {
        journals.assert_same(&["-o", "short-iso"]);
        journals.assert_same(&["-o", "short-iso-precise"]);
    }
    journals.assert_same(&["-o", "cat", "-g", "hello"]);
    journals.assert_same(&["-r", "--utc", "--no-hostname"]);
    journals.assert_same(&["-o", "export", "--output-fields=MESSAGE,_PID"]);
    journals.assert_same_json(&[]);
    journals.assert_same_json(&["-a", "-n", "300"]);
    journals.assert_same_json(&["--output-fields=MESSAGE,MULTI"]);
}

#[test]
fn every_question_has_journalctls_answer() {
    let journals = Journals::new();
    for line in [
        "-b -n 3",
        "-b -1",
        "-b 2 -n 5",
        "-b 00000000000000000000000000000011",
        "-b 00000000000000000000000000000021-1 -n 7",
        "-k -n 5",
        "-b -1 -p 3",
        "-b all -p warning..err -n 100",
        "-u ssh",
        "-u s*",
        "-u user.slice -u cron -t kernel",
        "-u a.mount -r",
        "--facility=3",
        "_UID=0 _PID=1 + _PID=2 _PID=3",
        "_UID=0 _UID=1000 PRIORITY=3 _TRANSPORT=syslog",
        "-o export -g hello",
        "-o export -g HELLO",
        "-n all -p 0 -t sshd -r",
        "-t nobody",
        "-n 0",
        "-n",
        "-n 2999",
        "-n 99999",
        "-n 10 -S 2030-01-01",
        "-n 10 -U 2010-01-01",
        "-S @1700007500",
        "-S @1700007500 -r -u ssh",
        "-S @1700007500 -U @1700011000.5",
        "-U @1700007500 -r",
        "--list-boots",
        "-F NOPE",
    ] {
        journals.assert_same(&line.split(' ').collect::<Vec<_>>());
    }
    for line in ["-F _PID", "-F MESSAGE", "-N"] {
        let args: Vec<&str> = line.split(' ').collect();
        let sorted = |text: Vec<u8>| {
            let text = String::from_utf8_lossy(&text).into_owned();
            let mut lines: Vec<_> = text.lines().map(|line| line.chars().take(200).collect::<String>()).collect();
            lines.sort();
            lines
        };
        let theirs = sorted(journals.theirs(&args, "UTC"));
        let ours = sorted(journals.ours(&args, "UTC"));
        if line == "-F MESSAGE" {
            // What a terminal must not see is escaped, so only the number can be the same.
            let theirs = journals.theirs(&["-o", "json", "-a", "--output-fields=MESSAGE"], "UTC");
            let theirs: std::collections::BTreeSet<String> = theirs
                .split(|byte| *byte == b'\n')
                .filter(|line| !line.is_empty())
                .flat_map(|line| {
                    let object: Value = serde_json::from_slice(line).expect("JSON");
                    match &object["MESSAGE"] {
                        Value::Array(several) if several[0].is_string() => {
                            several.iter().map(Value::to_string).collect()
                        }
                        one => vec![one.to_string()],
                    }
                })
                .collect();
            assert_eq!(ours.len(), theirs.len());
        } else {
            assert_eq!(ours, theirs, "{line}");
        }
    }
    let usage = Run::new(["guest".as_ref(), "log".as_ref(), journals.image.as_os_str()]).arg("--disk-usage").success();
    assert!(usage.stdout.starts_with("Archived and active journals take up "), "{}", usage.stdout);
    let check = Run::new(["guest".as_ref(), "log".as_ref(), journals.image.as_os_str()]).arg("--check").success();
    assert_eq!(check.stdout.lines().filter(|line| line.starts_with("PASS: ")).count(), 4);
}

#[test]
fn other_compressions_read_the_same() {
    for (flag, name) in [(1_u8, "xz"), (2, "lz4")] {
        let lab = Lab::new();
        let folder = Journals::guest(&lab);
        let path = folder.join("var/log/journal").join(MACHINE).join("system.journal");
        import(&lab, &path, &made(400, 1), &["--compress=no"], &[]);
        let mut bytes = std::fs::read(&path).expect("a journal");
        assert!(compress(&mut bytes, flag) > 20, "{name}");
        std::fs::write(&path, bytes).expect("writing");
        let journals = Journals::close(lab, folder);
        journals.assert_same(&["-o", "export"]);
        journals.assert_same(&["-u", "cron", "-o", "verbose"]);
    }
}

/// Compresses long fields of a journal where they are, and gives their number.
fn compress(file: &mut [u8], flag: u8) -> usize {
    let number = |file: &[u8], at: usize| u64::from_le_bytes(file[at..at + 8].try_into().expect("8 bytes")) as usize;
    let fixed = if file[12] & 16 != 0 { 72 } else { 64 };
    let (mut at, tail, mut count) = (number(file, 88), number(file, 136), 0);
    file[12] |= flag;
    while at <= tail {
        let (kind, size) = (file[at], number(file, at + 8));
        if kind == 1 && size > 600 {
            let payload = &file[at + fixed..at + size];
            let packed = match flag {
                1 => {
                    let mut packed = Vec::new();
                    std::io::copy(&mut liblzma::read::XzEncoder::new(payload, 1), &mut packed).expect("memory");
                    packed
                }
                _ => [&(payload.len() as u64).to_le_bytes(), &*lz4_flex::block::compress(payload)].concat(),
            };
            file[at + 1] = flag;
            file[at + 8..at + 16].copy_from_slice(&((fixed + packed.len()) as u64).to_le_bytes());
            file[at + fixed..at + size].fill(0);
            file[at + fixed..][..packed.len()].copy_from_slice(&packed);
            count += 1;
        }
        at = (at + size).next_multiple_of(8);
    }
    count
}

#[test]
fn a_journal_that_was_being_written_gives_what_it_has() {
    let journals = Journals::new();
    let path = journals.folder.join("var/log/journal").join(MACHINE);
    let mut bytes = std::fs::read(path.join("system.journal")).expect("a journal");
    // As a crash leaves it: online, and the last object overwritten.
    let tail = u64::from_le_bytes(bytes[136..144].try_into().expect("8 bytes")) as usize;
    bytes[16] = 1;
    bytes[tail..tail + 16].fill(0);
    std::fs::write(path.join("system.journal"), bytes).expect("writing");
    std::fs::write(path.join("broken.journal"), "no journal").expect("writing");
    std::fs::remove_file(&journals.image).expect("removing");
    let journals = Journals::close(journals.lab, journals.folder);
    journals.assert_same(&["-o", "export"]);
    let run = Run::new(["guest".as_ref(), "log".as_ref(), journals.image.as_os_str()]);
    let checked = run.arg("--check").ran().exits_with(4);
    assert!(checked.stdout.contains("system.journal, which was not closed"), "{}", checked.stdout);
    assert!(checked.stderr.contains("broken.journal: this is no journal file"), "{}", checked.stderr);
}

#[test]
fn a_guest_without_a_journal_shows_its_syslog() {
    let lab = Lab::new();
    let folder = Journals::guest(&lab);
    let mut text = String::new();
    for number in 1..=30 {
        writeln!(text, "Nov  1 00:00:{number:02} guest cron: {number}\u{1b}[2J").expect("memory");
    }
    std::fs::write(folder.join("var/log/messages"), text).expect("writing");
    let journals = Journals::close(lab, folder);
    let run = || Run::new(["guest".as_ref(), "log".as_ref(), journals.image.as_os_str()]);
    let all = run().success().stdout;
    assert_eq!(all.lines().count(), 30);
    assert!(all.starts_with("Nov  1 00:00:01 guest cron: 1\\u{1b}[2J\n"), "{all}");
    let last = run().args(["-n", "2", "-r", "-g", "cron: 1"]).success().stdout;
    let last: Vec<&str> = last.lines().map(|line| &line[7..15]).collect();
    assert_eq!(last, ["00:00:19", "00:00:18"]);
    run().args(["-u", "ssh"]).fails_with(2).stderr_contains("plain lines only");
    run().args(["-S", "never"]).fails_with(2).stderr_contains("log.time");
    run().args(["-p", "loud"]).fails_with(2).stderr_contains("emerg, alert");
}
