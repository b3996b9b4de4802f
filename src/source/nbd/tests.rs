//! Servers that serve, that fail and that lie, on sockets of the test.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Mutex;
use std::thread;

use hyper2kvm_nbd::protocol::constants::*;
use hyper2kvm_nbd::{Server, Visit};

use super::*;
use crate::disk::{Disk, collect_extents};
use crate::session::{Access, Patience};

/// A run with time for a server that will say something on a busy machine.
fn patient(retries: u32) -> Arc<Session> {
    waiting(Duration::from_secs(30), retries)
}

fn waiting(silence: Duration, retries: u32) -> Arc<Session> {
    let session = Session::with_defaults();
    session.give_access(Access { patience: Patience { connect: silence, silence, retries }, ..Access::default() });
    session
}

fn address(socket: &Path, export: &str) -> Address {
    Address::parse(&format!("nbd+unix:///{export}?socket={}", socket.display())).unwrap()
}

/// An export of our own server: a mebibyte of sevens, and as much of nothing.
#[derive(Debug)]
struct Half;

impl hyper2kvm_nbd::Export for Half {
    fn size(&self) -> u64 {
        2 << 20
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> std::result::Result<(), hyper2kvm_nbd::Error> {
        for (at, byte) in (offset..).zip(buf) {
            *byte = if at < 1 << 20 { 7 } else { 0 };
        }
        Ok(())
    }

    fn extents(&self, range: Range<u64>, visit: &mut Visit<'_>) -> std::result::Result<(), hyper2kvm_nbd::Error> {
        let middle = (1_u64 << 20).clamp(range.start, range.end);
        for (part, kind) in [(range.start..middle, Allocation::Data), (middle..range.end, Allocation::Hole)] {
            if !part.is_empty() && visit(Extent { length: part.end - part.start, kind }).is_break() {
                break;
            }
        }
        Ok(())
    }
}

#[test]
fn an_export_is_a_disk_with_holes() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("nbd");
    let _server = Server::builder().export("half", Arc::new(Half)).unix(&socket).start().unwrap();
    let session = patient(0);
    let disk = open(&address(&socket, "half"), &session).unwrap();
    let mut buf = [1; 4];
    disk.read_at(&mut buf, (1 << 20) - 2).unwrap();
    assert_eq!((buf, disk.len()), ([7, 7, 0, 0], 2 << 20));
    let extents = collect_extents(&*disk, 5..2 << 20).unwrap();
    let kinds: Vec<_> = extents.iter().map(|extent| (extent.range.clone(), extent.kind)).collect();
    assert_eq!(kinds, [(5..1 << 20, ExtentKind::Data), (1 << 20..2 << 20, ExtentKind::Hole)]);
    let traffic = disk.traffic().unwrap();
    assert_eq!((traffic.bytes, traffic.retries), (4, 0));
    let again = open(&address(&socket, "half"), &session).unwrap();
    assert_eq!(disk.fingerprint().unwrap(), again.fingerprint().unwrap());
    session.cancel();
    assert_eq!(disk.read_at(&mut buf, 0).unwrap_err().code(), "session.interrupted");
}

#[test]
fn a_wrong_name_is_answered_with_the_right_ones() {
    let (most, longest) = SHOWN_EXPORTS;
    for count in [most - 1, most, most + 1] {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("nbd");
        let long = |n: usize| format!("{n}{}", "x".repeat(longest));
        let builder = (0..count).fold(Server::builder(), |builder, n| builder.export(long(n), Arc::new(Half)));
        let _server = builder.unix(&socket).start().unwrap();
        let error = open(&address(&socket, "none"), &patient(0)).unwrap_err();
        assert_eq!(error.code(), "nbd.missing");
        let text = error.to_json().to_string();
        assert!(text.contains(&long(most - 2)[..longest]) && !text.contains(&long(0)), "{text}");
        assert_eq!(text.contains("1 more"), count > most, "{text}");
    }
}

/// Serves one connection after the other: each with the next of the sizes, the last one from then on. `script` answers requests.
fn scripted(
    folder: &Path,
    greeting: &'static [u8],
    sizes: Vec<u64>,
    script: impl Fn(u64, u16, u64, u32) -> Vec<u8> + Send + 'static,
) -> Address {
    let socket = folder.join("nbd");
    let listener = UnixListener::bind(&socket).unwrap();
    let sizes = Mutex::new(sizes);
    thread::spawn(move || {
        for stream in listener.incoming().map_while(std::result::Result::ok) {
            let mut sizes = sizes.lock().unwrap();
            let size = if sizes.len() > 1 { sizes.remove(0) } else { sizes[0] };
            drop(sizes);
            let _ = talk(stream, greeting, size, &script);
        }
    });
    address(&socket, "disk")
}

fn talk(
    mut stream: UnixStream,
    greeting: &[u8],
    size: u64,
    script: &dyn Fn(u64, u16, u64, u32) -> Vec<u8>,
) -> std::io::Result<()> {
    stream.write_all(greeting)?;
    stream.read_exact(&mut [0; 4])?;
    let reply = |option: u32, kind: u32, data: &[u8]| {
        let len = u32::try_from(data.len()).unwrap().to_be_bytes();
        [&REP_MAGIC.to_be_bytes()[..], &option.to_be_bytes(), &kind.to_be_bytes(), &len, data].concat()
    };
    loop {
        let mut header = [0; 16];
        stream.read_exact(&mut header)?;
        let option = u32::from_be_bytes(header[8..12].try_into().unwrap());
        let len = u32::from_be_bytes(header[12..].try_into().unwrap());
        stream.read_exact(&mut vec![0; len as usize])?;
        let info = [&[0, 0][..], &size.to_be_bytes(), &(FLAG_HAS_FLAGS | FLAG_READ_ONLY).to_be_bytes()].concat();
        let answer = match option {
            OPT_EXTENDED_HEADERS => reply(option, REP_ERR_UNSUP, b""),
            OPT_SET_META_CONTEXT => {
                [reply(option, REP_META_CONTEXT, b"\0\0\0\x09base:allocation"), reply(option, REP_ACK, b"")].concat()
            }
            OPT_GO => [reply(option, REP_INFO, &info), reply(option, REP_ACK, b"")].concat(),
            _ => reply(option, REP_ACK, b""),
        };
        stream.write_all(&answer)?;
        if option == OPT_GO {
            break;
        }
    }
    loop {
        let mut request = [0; 28];
        stream.read_exact(&mut request)?;
        let number = |range: Range<usize>| request[range].iter().fold(0_u64, |all, byte| all << 8 | u64::from(*byte));
        let command = u16::try_from(number(6..8)).unwrap();
        let answer = script(number(8..16), command, number(16..24), u32::try_from(number(24..28)).unwrap());
        if answer.is_empty() {
            return Ok(());
        }
        stream.write_all(&answer)?;
    }
}

fn chunk(cookie: u64, kind: u16, data: &[u8]) -> Vec<u8> {
    let len = u32::try_from(data.len()).unwrap().to_be_bytes();
    let magic = STRUCTURED_REPLY_MAGIC.to_be_bytes();
    [&magic[..], &[0, 1], &kind.to_be_bytes(), &cookie.to_be_bytes(), &len, data].concat()
}

fn data(cookie: u64, offset: u64, len: u32) -> Vec<u8> {
    chunk(cookie, REPLY_TYPE_OFFSET_DATA, &[&offset.to_be_bytes()[..], &vec![7; len as usize]].concat())
}

fn status(cookie: u64, extents: &[(u32, u32)]) -> Vec<u8> {
    let extents = extents.iter().flat_map(|(len, flags)| [len.to_be_bytes(), flags.to_be_bytes()].concat());
    chunk(cookie, REPLY_TYPE_BLOCK_STATUS, &[9_u32.to_be_bytes().to_vec(), extents.collect()].concat())
}

const GREETING: &[u8] = b"NBDMAGICIHAVEOPT\0\x03";

/// Answers a request, of which it gets the cookie, the command, the offset and the length.
type Script = Box<dyn Fn(u64, u16, u64, u32) -> Vec<u8> + Send>;

#[test]
fn servers_that_lie_are_left_with_the_right_word() {
    let silent: Script = Box::new(|_, _, _, _| {
        thread::sleep(Duration::from_secs(2));
        Vec::new()
    });
    let cases: Vec<(&str, &[u8], Script, &str)> = vec![
        ("no NBD server", b"HTTP/1.1 400 Bad R", Box::new(|_, _, _, _| Vec::new()), "nbd.protocol"),
        (
            "an old server",
            b"NBDMAGIC\x00\x00\x42\x02\x81\x86\x12\x53\0\0",
            Box::new(|_, _, _, _| Vec::new()),
            "nbd.refused",
        ),
        ("no reply", GREETING, Box::new(|_, _, _, _| vec![7; 64]), "nbd.protocol"),
        ("another request", GREETING, Box::new(|c, _, o, l| data(c + 1, o, l)), "nbd.protocol"),
        ("too little", GREETING, Box::new(|c, _, o, l| data(c, o, l - 1)), "nbd.protocol"),
        ("too much", GREETING, Box::new(|c, _, o, l| data(c, o, l + 1)), "nbd.protocol"),
        ("before the range", GREETING, Box::new(|c, _, o, l| data(c, o - 1, l)), "nbd.protocol"),
        ("behind the range", GREETING, Box::new(|c, _, o, l| data(c, o + 1, l)), "nbd.protocol"),
        ("cut short", GREETING, Box::new(|c, _, o, l| data(c, o, l)[..100].to_vec()), "nbd.silent"),
        ("at once the end", GREETING, Box::new(|_, _, _, _| Vec::new()), "nbd.connection"),
        ("silence", GREETING, silent, "nbd.silent"),
    ];
    for (name, greeting, script, code) in cases {
        let folder = tempfile::tempdir().unwrap();
        let address = scripted(folder.path(), greeting, vec![1 << 20], script);
        let silence = if code == "nbd.silent" { Duration::from_millis(500) } else { Duration::from_secs(30) };
        let result = open(&address, &waiting(silence, 0)).and_then(|disk| disk.read_at(&mut [0; 512], 4096));
        assert_eq!(result.unwrap_err().code(), code, "{name}");
    }
}

#[test]
fn what_is_said_of_holes_is_checked() {
    let cases: Vec<(&str, Script, std::result::Result<u64, &str>)> = vec![
        ("true", Box::new(|c, _, _, l| status(c, &[(l, 3)])), Ok(0)),
        ("a hole of something", Box::new(|c, _, _, l| status(c, &[(l, 1)])), Ok(1 << 20)),
        ("beyond the end", Box::new(|c, _, _, _| status(c, &[(u32::MAX, 3)])), Ok(0)),
        ("little by little", Box::new(|c, _, _, _| status(c, &[(4096, 3)])), Ok(0)),
        ("nothing", Box::new(|c, _, _, _| status(c, &[])), Err("nbd.protocol")),
        ("empty ones", Box::new(|c, _, _, l| status(c, &[(0, 3), (l, 3)])), Err("nbd.protocol")),
        (
            "another context",
            Box::new(|c, _, _, _| chunk(c, REPLY_TYPE_BLOCK_STATUS, &[0, 0, 0, 8, 0, 0, 16, 0, 0, 0, 0, 3])),
            Err("nbd.protocol"),
        ),
        ("it cannot", Box::new(|c, _, _, _| chunk(c, REPLY_TYPE_ERROR, &[0, 0, 0, 95, 0, 0])), Ok(1 << 20)),
        ("it fails", Box::new(|c, _, _, _| chunk(c, REPLY_TYPE_ERROR, &[0, 0, 0, 5, 0, 0])), Err("nbd.error")),
    ];
    for (name, script, expected) in cases {
        let folder = tempfile::tempdir().unwrap();
        let address = scripted(folder.path(), GREETING, vec![1 << 20], script);
        let disk = open(&address, &patient(0)).unwrap();
        let data = collect_extents(&*disk, 0..1 << 20).map(|extents| {
            let data = extents.iter().filter(|extent| !extent.kind.is_zero());
            data.map(|extent| extent.range.end - extent.range.start).sum::<u64>()
        });
        assert_eq!(data.as_ref().map_err(|error| error.code()).copied(), expected, "{name}");
    }
}

#[test]
fn what_came_is_not_asked_for_again_and_another_size_ends_it() {
    for (size, expected) in [(1 << 20, Ok(())), (2 << 20, Err("source.changed"))] {
        let folder = tempfile::tempdir().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        // A reply of two chunks, of which only the first and half of the second come, and then the end of the connection.
        let script = move |cookie: u64, _: u16, offset: u64, len: u32| {
            let mut asked = log.lock().unwrap();
            asked.push((offset, len));
            let mut bytes = data(cookie, offset, len);
            match asked.len() {
                1 => bytes.truncate(20 + 8 + 6000),
                2 => bytes.clear(),
                _ => {}
            }
            bytes
        };
        let address = scripted(folder.path(), GREETING, vec![1 << 20, size], script);
        let disk = open(&address, &waiting(Duration::from_secs(2), 2)).unwrap();
        let mut buf = vec![0; 10_000];
        let result = disk.read_at(&mut buf, 4096);
        assert_eq!(result.as_ref().map_err(|error| error.code()).copied(), expected);
        if expected.is_ok() {
            assert_eq!(*asked.lock().unwrap(), [(4096, 10_000), (4096 + 6000, 4000), (4096 + 6000, 4000)]);
            assert!(buf.iter().all(|byte| *byte == 7));
            assert_eq!((disk.traffic().unwrap().bytes, disk.traffic().unwrap().retries), (10_000, 2));
        }
    }
}

#[test]
fn errors_that_may_pass_are_told_from_those_that_do_not() {
    for (number, tries) in [(5_u8, 3), (12, 3), (1, 1), (22, 1)] {
        let folder = tempfile::tempdir().unwrap();
        let count = Arc::new(Mutex::new(0));
        let counter = Arc::clone(&count);
        let script = move |cookie: u64, _: u16, _: u64, _: u32| {
            *counter.lock().unwrap() += 1;
            chunk(cookie, REPLY_TYPE_ERROR, &[0, 0, 0, number, 0, 0])
        };
        let disk = open(&scripted(folder.path(), GREETING, vec![1 << 20], script), &patient(2)).unwrap();
        assert_eq!(disk.read_at(&mut [0; 512], 0).unwrap_err().code(), "nbd.error");
        assert_eq!(*count.lock().unwrap(), tries, "error {number}");
    }
}
