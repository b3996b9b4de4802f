//! Against a server that lies, stalls and breaks off.

use std::io::{Read, Write};
use std::ops::Range;
use std::os::unix::net::UnixStream;

use super::super::super::runtime::Runtime;
use super::*;
use crate::session::Session;

const LEN: u64 = 1 << 20;

fn content() -> Vec<u8> {
    (0..LEN).map(|at| (at / 7 % 251).to_le_bytes()[0]).collect()
}

fn string(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

/// What one request asks for.
struct Asked {
    kind: u8,
    id: [u8; 4],
    /// For a read.
    range: Range<u64>,
    /// How many requests of its kind came before.
    number: u64,
}

impl Asked {
    fn reply(&self, kind: u8, body: &[u8]) -> Option<Vec<u8>> {
        Some(string(&[&[kind][..], &self.id, body].concat()))
    }

    fn status(&self, code: u32) -> Option<Vec<u8>> {
        self.reply(101, &[&code.to_be_bytes()[..], &string(b"said"), &string(b"")].concat())
    }

    fn attributes(&self, len: u64, mode: u32, modified: u32) -> Option<Vec<u8>> {
        let numbers = [mode, 1, modified].map(u32::to_be_bytes).concat();
        self.reply(105, &[&13_u32.to_be_bytes()[..], &len.to_be_bytes(), &numbers].concat())
    }

    fn data(&self, range: Range<u64>) -> Option<Vec<u8>> {
        let [start, end] = [range.start, range.end.min(LEN)].map(|at| usize::try_from(at).unwrap());
        self.reply(103, &string(&content()[start..end]))
    }

    /// What an honest server says.
    fn honest(&self) -> Option<Vec<u8>> {
        match self.kind {
            3 => self.reply(102, &string(b"h")),
            4 => self.status(0),
            5 => self.data(self.range.clone()),
            8 => self.attributes(LEN, 0o100_644, 7),
            _ => self.status(8),
        }
    }
}

/// Serves on one end of a socket; `answer` gives what is sent, or nothing to hang up.
fn serve(mut socket: UnixStream, greeting: &[u8], answer: impl Fn(&Asked) -> Option<Vec<u8>>) -> std::io::Result<()> {
    socket.read_exact(&mut [0; 9])?;
    socket.write_all(greeting)?;
    let mut counts = HashMap::new();
    loop {
        let mut len = [0; 4];
        socket.read_exact(&mut len)?;
        let mut packet = vec![0; usize::try_from(u32::from_be_bytes(len)).unwrap()];
        socket.read_exact(&mut packet)?;
        let range = if packet[0] == 5 {
            let at = packet.len() - 12;
            let start = u64::from_be_bytes(packet[at..at + 8].try_into().unwrap());
            start..start + u64::from(u32::from_be_bytes(packet[at + 8..].try_into().unwrap()))
        } else {
            0..0
        };
        let number: &mut u64 = counts.entry(packet[0]).or_default();
        let asked = Asked { kind: packet[0], id: packet[1..5].try_into().unwrap(), range, number: *number };
        *number += 1;
        match answer(&asked) {
            Some(reply) => socket.write_all(&reply)?,
            None => return Ok(()),
        }
    }
}

fn greeting() -> Vec<u8> {
    vec![0, 0, 0, 5, 2, 0, 0, 0, 3]
}

/// How long a server that will say something may take on a busy machine, and how long one is waited for that will not.
const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(400);

/// Reads the file of a server that answers so, as far as that goes.
fn read(
    greeting: Vec<u8>,
    answer: impl Fn(&Asked) -> Option<Vec<u8>> + Send + 'static,
) -> (Result<(), Failure>, Vec<u8>) {
    read_within(LONG, greeting, answer)
}

fn read_within(
    patience: Duration,
    greeting: Vec<u8>,
    answer: impl Fn(&Asked) -> Option<Vec<u8>> + Send + 'static,
) -> (Result<(), Failure>, Vec<u8>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    std::thread::spawn(move || serve(theirs, &greeting, answer));
    let session = Session::with_defaults();
    let mut got = Vec::new();
    let result = Runtime::of(&session).wait(&session, async {
        let stream = tokio::net::UnixStream::from_std(ours).unwrap();
        let sftp = Sftp::start(stream, patience, patience).await?;
        let file = File::open(&sftp, b"/f").await?;
        file.read(&sftp, 0..file.identity.len, &mut |part| got.extend_from_slice(part)).await
    });
    (result.unwrap(), got)
}

/// The code of a failure, and whether it may pass.
fn code(result: &Result<(), Failure>) -> (&'static str, bool) {
    match result {
        Ok(()) => ("", false),
        Err(Failure::Again { error, .. }) => (error.code(), true),
        Err(Failure::Final(error)) => (error.code(), false),
    }
}

fn patience(expected: &str) -> Duration {
    if expected == "ssh.silent" { SHORT } else { LONG }
}

#[test]
fn a_file_is_read_in_order_whatever_the_order_of_answers() {
    let (result, got) = read(greeting(), Asked::honest);
    assert!(result.is_ok() && got == content(), "{result:?}");
    // A server may give less than it was asked for.
    let (result, got) = read(greeting(), |asked| match asked.kind {
        5 => asked.data(asked.range.start..asked.range.end.min(asked.range.start + 10_007)),
        _ => asked.honest(),
    });
    assert!(result.is_ok() && got == content(), "{result:?}");
    // One that says how much it gives at once is asked for that.
    let limits = [&3_u32.to_be_bytes()[..], &string(b"limits@openssh.com"), &string(b"1")].concat();
    let with_limits = string(&[&[2][..], &limits].concat());
    let (result, got) = read(with_limits, |asked| match asked.kind {
        200 => asked.reply(201, &[0, 261_120, 0, 0].map(u64::to_be_bytes).concat()),
        5 if asked.range.end - asked.range.start > 261_120 => None,
        5 if asked.number > 5 => None,
        _ => asked.honest(),
    });
    assert!(result.is_ok() && got == content(), "{result:?}");
}

#[test]
fn hostile_answers_end_the_connection_and_never_give_wrong_bytes() {
    type Answer = fn(&Asked) -> Option<Vec<u8>>;
    let cases: &[(&str, Answer, (&str, bool))] = &[
        (
            "no such file",
            |asked| {
                if asked.kind == 3 { asked.status(2) } else { asked.honest() }
            },
            ("ssh.missing", false),
        ),
        (
            "not for us",
            |asked| {
                if asked.kind == 3 { asked.status(3) } else { asked.honest() }
            },
            ("ssh.denied", false),
        ),
        (
            "it fails",
            |asked| {
                if asked.kind == 5 { asked.status(4) } else { asked.honest() }
            },
            ("ssh.failed", true),
        ),
        (
            "not done",
            |asked| {
                if asked.kind == 5 { asked.status(8) } else { asked.honest() }
            },
            ("ssh.failed", false),
        ),
        (
            "a directory",
            |asked| {
                if asked.kind == 8 { asked.attributes(LEN, 0o040_755, 7) } else { asked.honest() }
            },
            ("ssh.kind", false),
        ),
        (
            "no length",
            |asked| {
                if asked.kind == 8 { asked.reply(105, &[0; 4]) } else { asked.honest() }
            },
            ("ssh.kind", false),
        ),
        (
            "it grew",
            |asked| {
                if asked.kind == 8 { asked.attributes(LEN + asked.number, 0, 7) } else { asked.honest() }
            },
            ("source.changed", false),
        ),
        (
            "another time",
            |asked| {
                let time = u32::try_from(asked.number).unwrap();
                if asked.kind == 8 { asked.attributes(LEN, 0, time) } else { asked.honest() }
            },
            ("source.changed", false),
        ),
        (
            "it ends before its end",
            |asked| {
                if asked.kind == 5 && asked.range.start > 0 { asked.status(1) } else { asked.honest() }
            },
            ("ssh.protocol", true),
        ),
        (
            "data without bytes",
            |asked| {
                if asked.kind == 5 { asked.data(0..0) } else { asked.honest() }
            },
            ("ssh.protocol", true),
        ),
        (
            "more data than asked for",
            |asked| {
                if asked.kind == 5 { asked.data(asked.range.start..asked.range.end + 1) } else { asked.honest() }
            },
            ("ssh.protocol", true),
        ),
        (
            "an answer to nobody",
            |asked| {
                let other = Asked { kind: 5, id: [9; 4], range: 0..9, number: 0 };
                if asked.kind == 5 { other.honest() } else { asked.honest() }
            },
            ("ssh.protocol", true),
        ),
        (
            "a handle for data",
            |asked| {
                if asked.kind == 5 { asked.reply(102, &string(b"h")) } else { asked.honest() }
            },
            ("ssh.protocol", true),
        ),
        (
            "success for data",
            |asked| {
                if asked.kind == 5 { asked.status(0) } else { asked.honest() }
            },
            ("ssh.protocol", true),
        ),
        (
            "a packet of 4 GiB",
            |asked| {
                if asked.kind == 5 { Some([&[255; 4][..], &[103], &asked.id].concat()) } else { asked.honest() }
            },
            ("ssh.protocol", true),
        ),
        (
            "a packet of nothing",
            |asked| {
                if asked.kind == 5 { Some([&[0; 4][..], &[103], &asked.id].concat()) } else { asked.honest() }
            },
            ("ssh.protocol", true),
        ),
        (
            "data that says to be longer",
            |asked| {
                if asked.kind == 5 { asked.reply(103, &[0, 0, 0, 9, 1]) } else { asked.honest() }
            },
            ("ssh.protocol", true),
        ),
        (
            "it hangs up",
            |asked| {
                if asked.kind == 5 && asked.range.start > 0 { None } else { asked.honest() }
            },
            ("ssh.connection", true),
        ),
        (
            "it stalls",
            |asked| {
                if asked.kind == 5 && asked.range.start > 0 { Some(Vec::new()) } else { asked.honest() }
            },
            ("ssh.silent", true),
        ),
        (
            "it stalls in the middle of an answer",
            |asked| {
                if asked.kind == 5 {
                    asked.honest().map(|reply| reply[..99].to_vec()).filter(|_| asked.number == 0).or(Some(Vec::new()))
                } else {
                    asked.honest()
                }
            },
            ("ssh.silent", true),
        ),
        (
            "no handle at all",
            |asked| {
                if asked.kind == 3 { asked.reply(102, &[]) } else { asked.honest() }
            },
            ("ssh.protocol", true),
        ),
        (
            "a status without a code",
            |asked| {
                if asked.kind == 3 { asked.reply(101, &[]) } else { asked.honest() }
            },
            ("ssh.protocol", true),
        ),
    ];
    let right = content();
    for (what, answer, expected) in cases {
        let (result, got) = read_within(patience(expected.0), greeting(), *answer);
        assert_eq!(code(&result), *expected, "{what}: {result:?}");
        assert!(right.starts_with(&got) && got.len() < right.len(), "{what}");
    }
}

#[test]
fn what_is_no_greeting_is_told() {
    for (what, greeting, expected) in [
        ("words of a shell", b"Welcome to this server, stranger!".to_vec(), "ssh.protocol"),
        ("another version", vec![0, 0, 0, 5, 2, 0, 0, 0, 6], "ssh.protocol"),
        ("no greeting", vec![0, 0, 0, 5, 101, 0, 0, 0, 3], "ssh.protocol"),
        ("extensions cut off", vec![0, 0, 0, 7, 2, 0, 0, 0, 3, 0, 0], "ssh.protocol"),
        ("nothing", vec![], "ssh.silent"),
        ("half", vec![0, 0, 0, 5, 2], "ssh.silent"),
        ("one that is too long", [&(limits::MAX_SFTP_REPLY + 1).to_be_bytes()[..], &[2]].concat(), "ssh.protocol"),
    ] {
        let (result, _) = read_within(patience(expected), greeting, Asked::honest);
        assert_eq!(code(&result), (expected, true), "{what}: {result:?}");
    }
    for len in [limits::MAX_SFTP_REPLY - 1, limits::MAX_SFTP_REPLY] {
        let body = [&[2][..], &3_u32.to_be_bytes(), &string(b"x"), &string(&vec![0; len as usize - 14])].concat();
        assert!(read(string(&body), Asked::honest).0.is_ok());
    }
}
