//! Servers that lie: whatever they send, the client gives an error in time, and never bytes that are not theirs.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::ops::ControlFlow;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use hyper2kvm_nbd::client::{Client, Kind, Options, Style};
use hyper2kvm_nbd::protocol::constants::*;

/// Serves one connection after the other with the same words: `script` gets each request's cookie and sends what it likes.
fn rogue(
    style: Style,
    option_replies: impl Fn(u32) -> Vec<u8> + Send + 'static,
    script: impl Fn(u64) -> Vec<u8> + Send + 'static,
) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nbd.sock");
    let listener = UnixListener::bind(&path).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = talk(stream.unwrap(), style, &option_replies, &script);
        }
    });
    (folder, format!("nbd+unix:///?socket={}", path.display()))
}

fn talk(
    mut stream: UnixStream,
    style: Style,
    option_replies: &dyn Fn(u32) -> Vec<u8>,
    script: &dyn Fn(u64) -> Vec<u8>,
) -> std::io::Result<()> {
    negotiate(&mut stream, option_replies)?;
    loop {
        let cookie = asked(&mut stream, style)?;
        stream.write_all(&script(cookie))?;
    }
}

fn negotiate(stream: &mut UnixStream, option_replies: &dyn Fn(u32) -> Vec<u8>) -> std::io::Result<()> {
    stream.write_all(b"NBDMAGICIHAVEOPT\0\x03")?;
    stream.read_exact(&mut [0; 4])?;
    loop {
        let mut header = [0; 16];
        stream.read_exact(&mut header)?;
        let option = u32::from_be_bytes(header[8..12].try_into().unwrap());
        let len = u32::from_be_bytes(header[12..].try_into().unwrap());
        stream.read_exact(&mut vec![0; len as usize])?;
        stream.write_all(&option_replies(option))?;
        if option == OPT_GO {
            return Ok(());
        }
    }
}

/// The cookie of the next request.
fn asked(stream: &mut UnixStream, style: Style) -> std::io::Result<u64> {
    let mut request = vec![0; style.request_size()];
    stream.read_exact(&mut request)?;
    Ok(u64::from_be_bytes(request[8..16].try_into().unwrap()))
}

fn reply(option: u32, kind: u32, data: &[u8]) -> Vec<u8> {
    let len = (data.len() as u32).to_be_bytes();
    [&REP_MAGIC.to_be_bytes()[..], &option.to_be_bytes(), &kind.to_be_bytes(), &len, data].concat()
}

fn info(size: u64, flags: u16) -> Vec<u8> {
    reply(OPT_GO, REP_INFO, &[&[0, 0][..], &size.to_be_bytes(), &flags.to_be_bytes()].concat())
}

/// A good negotiation of a read-only export of 1 MiB.
fn good(style: Style) -> impl Fn(u32) -> Vec<u8> + Send {
    move |option| match option {
        OPT_EXTENDED_HEADERS if style < Style::Extended => reply(option, REP_ERR_UNSUP, b""),
        OPT_STRUCTURED_REPLY if style < Style::Structured => reply(option, REP_ERR_UNSUP, b""),
        OPT_SET_META_CONTEXT => {
            [reply(option, REP_META_CONTEXT, b"\0\0\0\x09base:allocation"), reply(option, REP_ACK, b"")].concat()
        }
        OPT_GO => [info(1 << 20, FLAG_HAS_FLAGS | FLAG_READ_ONLY), reply(option, REP_ACK, b"")].concat(),
        _ => reply(option, REP_ACK, b""),
    }
}

fn chunk(cookie: u64, last: bool, kind: u16, data: &[u8]) -> Vec<u8> {
    let mut bytes = STRUCTURED_REPLY_MAGIC.to_be_bytes().to_vec();
    bytes.extend(u16::from(last).to_be_bytes());
    bytes.extend(kind.to_be_bytes());
    bytes.extend(cookie.to_be_bytes());
    bytes.extend((data.len() as u32).to_be_bytes());
    bytes.extend(data);
    bytes
}

fn data(offset: u64, bytes: &[u8]) -> Vec<u8> {
    [&offset.to_be_bytes()[..], bytes].concat()
}

fn hasty() -> Options {
    Options { patience: Duration::from_millis(400), retry_for: Duration::ZERO, ..Options::default() }
}

fn connect(uri: &str) -> Result<Client, hyper2kvm_nbd::client::Error> {
    Client::with_options(uri.parse().unwrap(), hasty())
}

#[test]
fn replies_to_reads_that_lie() {
    const D: u16 = REPLY_TYPE_OFFSET_DATA;
    let hole = |offset: u64, len: u32| [&offset.to_be_bytes()[..], &len.to_be_bytes()].concat();
    type Script = Box<dyn Fn(u64) -> Vec<u8> + Send>;
    let cases: Vec<(&str, Kind, Script)> = vec![
        ("bad-magic", Kind::Protocol, Box::new(|_| vec![7; 64])),
        ("reply-to-nothing", Kind::Protocol, Box::new(|c| chunk(c + 1, true, REPLY_TYPE_NONE, &[]))),
        ("chunk-missing", Kind::Protocol, Box::new(|c| chunk(c, true, D, &data(0, &[1; 511])))),
        ("nothing-at-all", Kind::Protocol, Box::new(|c| chunk(c, true, REPLY_TYPE_NONE, &[]))),
        ("chunk-too-long", Kind::Protocol, Box::new(|c| chunk(c, true, D, &data(0, &[1; 513])))),
        (
            "chunk-without-end",
            Kind::Protocol,
            Box::new(|c| {
                let mut bytes = chunk(c, true, D, &data(0, &[1; 512]));
                bytes[16..20].fill(0xff);
                bytes
            }),
        ),
        (
            "chunk-overlap",
            Kind::Protocol,
            Box::new(|c| [chunk(c, false, D, &data(0, &[1; 300])), chunk(c, true, D, &data(299, &[1; 213]))].concat()),
        ),
        ("offset-outside", Kind::Protocol, Box::new(|c| chunk(c, true, D, &data(512, &[1; 512])))),
        ("offset-huge", Kind::Protocol, Box::new(|c| chunk(c, true, D, &data(u64::MAX, &[1; 512])))),
        ("hole-outside", Kind::Protocol, Box::new(move |c| chunk(c, true, REPLY_TYPE_OFFSET_HOLE, &hole(1, 512)))),
        ("hole-huge", Kind::Protocol, Box::new(move |c| chunk(c, true, REPLY_TYPE_OFFSET_HOLE, &hole(0, u32::MAX)))),
        (
            "hole-over-data",
            Kind::Protocol,
            Box::new(move |c| {
                [chunk(c, false, D, &data(0, &[1; 512])), chunk(c, true, REPLY_TYPE_OFFSET_HOLE, &hole(0, 512))]
                    .concat()
            }),
        ),
        ("unknown-kind", Kind::Protocol, Box::new(|c| chunk(c, true, 4242, &[]))),
        (
            "simple-reply",
            Kind::Protocol,
            Box::new(|c| [&SIMPLE_REPLY_MAGIC.to_be_bytes()[..], &[0; 4], &c.to_be_bytes(), &[1; 512]].concat()),
        ),
        ("extended-reply", Kind::Protocol, Box::new(|_| EXTENDED_REPLY_MAGIC.to_be_bytes().repeat(8))),
        ("status-to-a-read", Kind::Protocol, Box::new(|c| chunk(c, true, REPLY_TYPE_BLOCK_STATUS, &[0; 12]))),
        ("error-0", Kind::Protocol, Box::new(|c| chunk(c, true, REPLY_TYPE_ERROR, &[0; 6]))),
        (
            "error-with-a-message-too-long",
            Kind::Protocol,
            Box::new(|c| chunk(c, true, REPLY_TYPE_ERROR, &[&[0, 0, 0, 5, 0xff, 0xff][..], &[b'x'; 100]].concat())),
        ),
        ("error-of-5000-bytes", Kind::Protocol, Box::new(|c| chunk(c, true, REPLY_TYPE_ERROR, &[5; 5000]))),
        (
            "error-elsewhere",
            Kind::Protocol,
            Box::new(|c| {
                chunk(c, true, REPLY_TYPE_ERROR_OFFSET, &[&[0, 0, 0, 5, 0, 0][..], &4096_u64.to_be_bytes()].concat())
            }),
        ),
        (
            "reply-after-error",
            Kind::Export(hyper2kvm_nbd::Errno::Io),
            Box::new(|c| {
                let error = chunk(c, false, REPLY_TYPE_ERROR, &[0, 0, 0, 5, 0, 0]);
                [error, chunk(c, true, D, &data(0, &[1; 512]))].concat()
            }),
        ),
        ("no-reply", Kind::TimedOut, Box::new(|_| Vec::new())),
        ("cut-short", Kind::TimedOut, Box::new(|c| chunk(c, true, D, &data(0, &[1; 512]))[..300].to_vec())),
    ];
    for (name, kind, script) in cases {
        let (_folder, uri) = rogue(Style::Structured, good(Style::Structured), script);
        let client = connect(&uri).unwrap();
        let error = client.read_at(&mut [0; 512], 0).unwrap_err();
        assert_eq!(error.kind(), kind, "{name}: {error}");
    }
}

#[test]
fn a_reply_after_the_end_hurts_the_next_request_only_with_an_error() {
    let (_folder, uri) = rogue(Style::Structured, good(Style::Structured), |cookie| {
        let reply = chunk(cookie, true, REPLY_TYPE_OFFSET_DATA, &data(0, &[1; 512]));
        [&reply[..], &reply].concat()
    });
    let client = connect(&uri).unwrap();
    let mut read = [0; 512];
    client.read_at(&mut read, 0).unwrap();
    assert_eq!(read, [1; 512]);
    assert_eq!(client.read_at(&mut read, 0).unwrap_err().kind(), Kind::Protocol);
}

#[test]
fn what_was_answered_before_a_connection_ended_is_taken() {
    const LEN: usize = 60_000;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nbd.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let [answered, connections] = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
    let (sent, count) = (Arc::clone(&answered), Arc::clone(&connections));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            count.fetch_add(1, Relaxed);
            // Before it is sent: whoever asked may have it before we get on.
            let answer = |stream: &mut UnixStream| {
                let cookie = asked(stream, Style::Structured)?;
                sent.fetch_add(1, Relaxed);
                let reply = chunk(cookie, true, REPLY_TYPE_OFFSET_DATA, &data(0, &[1; LEN]));
                stream.write_all(&reply).inspect_err(|_| _ = sent.fetch_sub(1, Relaxed))
            };
            let talked = negotiate(&mut stream, &good(Style::Structured));
            let _ = talked.and_then(|()| (0..30).try_for_each(|_| answer(&mut stream)));
            let _ = stream.shutdown(Shutdown::Both);
        }
    });
    let options = Options { retry_for: Duration::ZERO, ..Options::default() };
    let client = Client::with_options(format!("nbd+unix:///?socket={}", path.display()).parse().unwrap(), options);
    let (client, taken) = (client.unwrap(), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut read = vec![0; LEN];
                while connections.load(Relaxed) < 100 {
                    match client.read_at(&mut read, 0) {
                        Ok(()) => _ = taken.fetch_add(1, Relaxed),
                        Err(error) => assert_eq!(error.kind(), Kind::Lost, "{error}"),
                    }
                }
            });
        }
    });
    assert_eq!(taken.into_inner(), answered.load(Relaxed));
}

#[test]
fn block_status_that_lies() {
    let status = |context: u32, extents: &[(u32, u32)]| {
        let mut bytes = context.to_be_bytes().to_vec();
        extents.iter().for_each(|(len, flags)| bytes.extend([len.to_be_bytes(), flags.to_be_bytes()].as_flattened()));
        bytes
    };
    for (name, payload) in [
        ("no-extent", status(9, &[])),
        ("empty-extent", status(9, &[(0, 0)])),
        ("another-context", status(1, &[(512, 0)])),
        ("beyond", status(9, &[(1 << 20, 0), (1, 0)])),
        ("far-beyond", status(9, &[(u32::MAX, 0), (u32::MAX, 0)])),
        ("odd", status(9, &[(512, 0)])[..11].to_vec()),
    ] {
        let (_folder, uri) = rogue(Style::Structured, good(Style::Structured), move |cookie| {
            chunk(cookie, true, REPLY_TYPE_BLOCK_STATUS, &payload)
        });
        let client = connect(&uri).unwrap();
        let told = client.extents(0..1 << 20, &mut |_| ControlFlow::Continue(()));
        assert_eq!(told.unwrap_err().kind(), Kind::Protocol, "{name}");
    }
    let twice = status(9, &[(1 << 20, 3)]);
    let (_folder, uri) = rogue(Style::Structured, good(Style::Structured), move |cookie| {
        let one = |last| chunk(cookie, last, REPLY_TYPE_BLOCK_STATUS, &twice);
        [one(false), one(true)].concat()
    });
    let told = connect(&uri).unwrap().extents(0..1 << 20, &mut |_| ControlFlow::Continue(()));
    assert_eq!(told.unwrap_err().kind(), Kind::Protocol);
}

#[test]
fn negotiations_that_lie() {
    let sizes = |sizes: [u32; 3]| {
        let data: Vec<u8> = sizes.iter().flat_map(|size| size.to_be_bytes()).collect();
        reply(OPT_GO, REP_INFO, &[&[0, 3][..], &data].concat())
    };
    let ack = reply(OPT_GO, REP_ACK, b"");
    let flags = FLAG_HAS_FLAGS;
    let long = vec![b'x'; 4097];
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("no-size", ack.clone()),
        ("size-of-8-EiB", [info(1 << 63, flags), ack.clone()].concat()),
        ("size-of-all-ones", [info(u64::MAX, flags), ack.clone()].concat()),
        ("no-flags", [info(512, 0), ack.clone()].concat()),
        ("info-cut-short", [reply(OPT_GO, REP_INFO, &[0]), ack.clone()].concat()),
        ("export-cut-short", [reply(OPT_GO, REP_INFO, &[0; 11]), ack.clone()].concat()),
        ("blocks-of-3", [info(512, flags), sizes([3, 4096, 1 << 20]), ack.clone()].concat()),
        ("blocks-of-0", [info(512, flags), sizes([0, 4096, 1 << 20]), ack.clone()].concat()),
        ("blocks-of-128K", [info(1 << 20, flags), sizes([1 << 17, 1 << 17, 1 << 20]), ack.clone()].concat()),
        ("largest-below-smallest", [info(4096, flags), sizes([4096, 4096, 512]), ack.clone()].concat()),
        ("size-between-blocks", [info(4097, flags), sizes([4096, 4096, 1 << 20]), ack.clone()].concat()),
        ("description-too-long", [reply(OPT_GO, REP_INFO, &[&[0, 2][..], &long].concat()), ack.clone()].concat()),
        ("another-option", reply(OPT_LIST, REP_ACK, b"")),
        ("bad-magic", vec![0; 20]),
        ("answer-without-end", {
            let mut bytes = ack.clone();
            bytes[16..20].fill(0xff);
            bytes
        }),
        ("endless-details", info(512, flags).repeat(1000)),
        ("another-kind", reply(OPT_GO, REP_SERVER, b"\0\0\0\0")),
    ];
    for (name, answer) in cases {
        let others = good(Style::Structured);
        let answers = move |option| if option == OPT_GO { answer.clone() } else { others(option) };
        let (_folder, uri) = rogue(Style::Structured, answers, |_| Vec::new());
        assert_eq!(connect(&uri).unwrap_err().kind(), Kind::Protocol, "{name}");
    }
    for (name, answer) in [
        ("unasked", b"\0\0\0\x01x:other".to_vec()),
        ("cut-short", vec![0; 3]),
        ("too-long", [&[0; 4][..], &long].concat()),
    ] {
        let others = good(Style::Structured);
        let answers = move |option| match option {
            OPT_SET_META_CONTEXT => [reply(option, REP_META_CONTEXT, &answer), reply(option, REP_ACK, b"")].concat(),
            option => others(option),
        };
        let (_folder, uri) = rogue(Style::Structured, answers, |_| Vec::new());
        assert_eq!(connect(&uri).unwrap_err().kind(), Kind::Protocol, "{name}");
    }
}

#[test]
fn what_is_no_nbd_server() {
    for (greeting, kind) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], Kind::Protocol),
        (b"NBDMAGIC\x00\x00\x42\x02\x81\x86\x12\x53\0\0", Kind::Refused),
        (b"NBDMAGICIHAVEOPT\0\0", Kind::Refused),
        (b"NBD", Kind::Lost),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nbd.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let server = thread::spawn(move || listener.accept().unwrap().0.write_all(greeting));
        let error = connect(&format!("nbd+unix:///?socket={}", path.display())).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        server.join().unwrap().unwrap();
    }
}
