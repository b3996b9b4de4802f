//! What a client that misbehaves can do: nothing to others.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use hyper2kvm_nbd::limits::{LARGE_BUFFER, MAX_HANDSHAKES};
use hyper2kvm_nbd::protocol::constants::*;
use hyper2kvm_nbd::{Error, Export};

use crate::client::{Client, FIXED, NO_ZEROES, details, half_closed, request};
use crate::fixture::{Memory, serve, serve_with};
use crate::remote::Disk;

/// A well-behaved client, which must get its bytes whatever others do.
fn works(path: &Path) {
    let want = Memory::mixed().bytes;
    assert!(Client::ready(path).read(0, 0, 1 << 20) == want[..1 << 20]);
}

#[test]
fn unknown_handshake_flags_end_the_connection() {
    let (_folder, path, _server) = serve(Memory::mixed());
    for flags in [4, 0xdead_beef, u32::MAX] {
        let mut client = Client::unix(&path);
        client.greet(flags);
        assert!(client.is_closed(), "{flags:#x}");
    }
    works(&path);
}

#[test]
fn garbage_ends_the_connection() {
    let (_folder, path, _server) = serve(Memory::mixed());
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 64], &[0xff; 64], &REQUEST_MAGIC.to_be_bytes().repeat(8)] {
        let mut client = Client::greeted(&path);
        let _ = client.try_send(garbage);
        assert!(client.is_closed());
        let mut client = Client::ready(&path);
        let _ = client.try_send(&garbage.repeat(2)[1..]);
        assert!(client.is_closed());
    }
    works(&path);
}

#[test]
fn a_command_before_negotiation_ends_the_connection() {
    let (_folder, path, _server) = serve(Memory::mixed());
    let mut client = Client::greeted(&path);
    client.request(CMD_READ, 0, 1, 0, 512);
    assert!(client.is_closed());
    let mut client = Client::greeted(&path);
    client.structured();
    client.request(CMD_BLOCK_STATUS, 0, 1, 0, 512);
    assert!(client.is_closed());
    works(&path);
}

#[test]
fn an_option_in_the_transmission_ends_the_connection() {
    let (_folder, path, _server) = serve(Memory::mixed());
    let mut client = Client::ready(&path);
    client.send_option(OPT_GO, &details(b"disk", &[]));
    assert!(client.is_closed());
    works(&path);
}

#[test]
fn an_endless_option_is_refused() {
    let (_folder, path, _server) = serve(Memory::mixed());
    for option in [OPT_LIST, OPT_GO, OPT_SET_META_CONTEXT, 0xfeed] {
        let mut client = Client::greeted(&path);
        let mut bytes = IHAVEOPT.to_be_bytes().to_vec();
        bytes.extend(option.to_be_bytes());
        bytes.extend(u32::MAX.to_be_bytes());
        client.send(&bytes);
        assert_eq!(client.option_reply().kind, REP_ERR_TOO_BIG);
        assert!(client.is_closed());
    }
    works(&path);
}

#[test]
fn a_long_option_is_skipped() {
    let (_folder, path, _server) = serve(Memory::mixed());
    let mut client = Client::greeted(&path);
    assert_eq!(client.kinds(OPT_GO, &vec![0; 1 << 20]), [REP_ERR_TOO_BIG]);
    assert_eq!(client.kinds(OPT_GO, &details(&[b'x'; 4097], &[])), [REP_ERR_TOO_BIG]);
    assert_eq!(client.kinds(OPT_GO, &details(&[b'x'; 4096], &[])), [REP_ERR_UNKNOWN]);
    assert_eq!(client.go("disk").0, Memory::mixed().size());
}

#[test]
fn a_payload_that_is_too_large_ends_the_connection() {
    let (_folder, path, _server) = serve(Memory::mixed());
    let mut client = Client::ready(&path);
    client.request(CMD_WRITE, 0, 1, 0, (32 << 20) + 1);
    assert!(client.is_closed());
    works(&path);
}

#[test]
fn a_client_may_vanish_at_any_byte() {
    let (_folder, path, server) = serve(Memory::mixed());
    let mut sent = (FIXED | NO_ZEROES).to_be_bytes().to_vec();
    for (option, data) in [(OPT_STRUCTURED_REPLY, Vec::new()), (OPT_GO, details(b"disk", &[INFO_NAME]))] {
        sent.extend(IHAVEOPT.to_be_bytes());
        sent.extend(option.to_be_bytes());
        sent.extend((data.len() as u32).to_be_bytes());
        sent.extend(data);
    }
    sent.extend(request(CMD_READ, 0, 1, 0, 1 << 20));
    sent.extend(request(CMD_WRITE, 0, 2, 0, 64));
    sent.extend([0; 64]);
    sent.extend(request(CMD_READ, 0, 3, 0, 4 << 20));
    for len in 0..=sent.len() {
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.write_all(&sent[..len]).unwrap();
    }
    for len in 0..=sent.len() {
        let mut received = Vec::new();
        half_closed(&path, &sent[..len]).read_to_end(&mut received).unwrap();
        assert!(received.len() >= 18);
    }
    works(&path);
    wait_until(|| server.stats().connections == 0);
}

#[test]
fn a_client_may_leave_with_replies_under_way() {
    let (_folder, path, server) = serve(Memory::mixed());
    for _ in 0..20 {
        let mut client = Client::ready(&path);
        for cookie in 0..200 {
            if client.try_send(&request(CMD_READ, 0, cookie, 0, 4 << 20)).is_err() {
                break;
            }
        }
    }
    works(&path);
    wait_until(|| server.stats().connections == 0);
}

#[test]
fn a_client_that_reads_nothing_delays_no_other() {
    let (_folder, path, _server) = serve(Memory::mixed());
    let mut stalled: Vec<Client> = (0..40).map(|_| Client::ready(&path)).collect();
    for client in &mut stalled {
        for cookie in 0..100 {
            client.request(CMD_READ, CMD_FLAG_DF, cookie, 0, 4 << 20);
        }
    }
    let started = Instant::now();
    for _ in 0..10 {
        works(&path);
    }
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[test]
fn idle_sockets_are_dropped_at_the_deadline() {
    let deadline = Duration::from_millis(1500);
    let (_folder, path, _server) = serve_with(Memory::mixed(), |builder| builder.handshake_deadline(deadline));
    let mut transmitting = Client::ready(&path);
    let started = Instant::now();
    let mut idle: Vec<Client> = (0..200)
        .map(|at| match at % 3 {
            0 => Client::unix(&path),
            1 => Client::greeted(&path),
            _ => {
                let mut client = Client::greeted(&path);
                client.send(b"IHAVE");
                client
            }
        })
        .collect();
    while started.elapsed() < deadline / 2 {
        works(&path);
    }
    for client in &mut idle {
        assert!(client.is_closed());
    }
    assert!(started.elapsed() >= deadline, "not before");
    assert!(started.elapsed() < deadline + Duration::from_secs(20), "nor much later");
    assert_eq!(transmitting.read(0, 0, 64), Memory::mixed().bytes[..64], "past the handshake there is no deadline");
}

#[test]
fn slow_bytes_do_not_stretch_the_deadline() {
    let deadline = Duration::from_millis(500);
    let (_folder, path, _server) = serve_with(Memory::mixed(), |builder| builder.handshake_deadline(deadline));
    let mut client = Client::greeted(&path);
    let started = Instant::now();
    while client.try_send(&IHAVEOPT.to_be_bytes()[..1]).is_ok() && started.elapsed() < Duration::from_secs(10) {
        client.send_option(0xfeed, &[]);
        thread::sleep(Duration::from_millis(50));
        if started.elapsed() > deadline * 2 {
            break;
        }
    }
    assert!(client.is_closed());
}

#[test]
fn more_idle_sockets_than_there_is_room_for_keep_nobody_out() {
    let (_folder, path, _server) = serve(Memory::mixed());
    let mut idle: Vec<Client> = (0..MAX_HANDSHAKES + 50).map(|_| Client::unix(&path)).collect();
    works(&path);
    assert!(idle[0].is_closed(), "the oldest makes room");
    let newest = idle.last_mut().unwrap();
    newest.greet(FIXED);
    newest.go("disk");
}

/// CVE-2024-7409: sockets that never negotiate.
#[test]
fn a_thousand_idle_sockets_cost_little_and_keep_nobody_out() {
    let (_folder, path, server) = serve(Memory::mixed());
    let threads = || fs_count("/proc/self/task");
    let before = threads();
    let idle: Vec<UnixStream> = (0..1000).map(|_| UnixStream::connect(&path).unwrap()).collect();
    wait_until(|| server.stats().accepted >= 1000);
    works(&path);
    assert!(threads() < before + 300, "an idle socket has no thread (other tests have some)");
    drop(idle);
    works(&path);
}

fn fs_count(folder: &str) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

/// However many large writes stall in the middle, others write on.
#[test]
fn writes_that_stall_hold_up_nobody() {
    let (_folder, path, server) = serve(Disk::new(40 << 20));
    let mut stalled: Vec<Client> = (0..8).map(|_| Client::ready(&path)).collect();
    for client in &mut stalled {
        client.request(CMD_WRITE, 0, 1, 0, 32 << 20);
        client.send(&[1; 1000]);
    }
    let remote = hyper2kvm_nbd::client::Client::connect(&server.uri()).unwrap();
    let bytes = vec![9; 4 << 20];
    remote.write_at(&bytes, 34 << 20, false).unwrap();
    let mut read = vec![0; 4 << 20];
    remote.read_at(&mut read, 34 << 20).unwrap();
    assert!(read == bytes);
    // A write in pieces is complete too, or tells its error.
    let mut last = stalled.pop().unwrap();
    last.send(&vec![3; (32 << 20) - 1000]);
    assert_eq!(last.reply(1)[0].kind, REPLY_TYPE_NONE);
    assert_eq!(last.read(0, (32 << 20) - 512, 512), [3; 512]);
}

#[test]
fn connections_are_bounded() {
    let (_folder, path, server) = serve_with(Memory::mixed(), |builder| builder.max_connections(2));
    let first = Client::ready(&path);
    let _second = Client::ready(&path);
    let mut third = Client::greeted(&path);
    assert_eq!(third.kinds(OPT_GO, &details(b"disk", &[])), [REP_ERR_POLICY]);
    let mut old_way = Client::greeted(&path);
    old_way.send_option(OPT_EXPORT_NAME, b"disk");
    assert!(old_way.is_closed());
    drop(first);
    wait_until(|| server.stats().connections < 2);
    wait_until(|| third.kinds(OPT_GO, &details(b"disk", &[])).last() == Some(&REP_ACK));
}

#[test]
fn a_panic_in_the_export_is_an_error_of_one_request() {
    struct Panics;
    impl Export for Panics {
        fn size(&self) -> u64 {
            LARGE_BUFFER as u64 * 4
        }
        fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), Error> {
            assert!(offset != 4096, "a bug");
            buf.fill(1);
            Ok(())
        }
    }
    let (_folder, path, _server) = serve(Panics);
    let mut client = Client::ready(&path);
    for length in [1, 4096, LARGE_BUFFER as u32] {
        assert_eq!(client.error(CMD_READ, 0, 4096, length), 5);
        assert_eq!(client.read(0, 0, 16), [1; 16]);
    }
}

pub(crate) fn wait_until(mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < end, "it does not happen");
        thread::sleep(Duration::from_millis(5));
    }
}
