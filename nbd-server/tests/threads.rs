//! Which thread serves a request, and how many at once.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use hyper2kvm_nbd::limits::{MAX_QUEUED, MAX_WORKERS};
use hyper2kvm_nbd::protocol::constants::*;
use hyper2kvm_nbd::{Error, Export, Server, Visit};

use crate::client::{Client, place, request};
use crate::fixture::{Gate, Memory, Slow, serve, socket};

struct Shared(Arc<Gate>);

impl Export for Shared {
    fn size(&self) -> u64 {
        self.0.size()
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), Error> {
        self.0.read_at(buf, offset)
    }
    fn extents(&self, range: Range<u64>, visit: &mut Visit<'_>) -> Result<(), Error> {
        self.0.extents(range, visit)
    }
}

#[test]
fn a_request_alone_is_served_by_the_reader() {
    let gate = Arc::new(Gate::default());
    gate.open();
    let (_folder, path, _server) = serve(Shared(Arc::clone(&gate)));
    let mut client = Client::ready(&path);
    for at in 0..100 {
        assert_eq!(client.read(0, at << 12, 4096), [at as u8; 4096]);
    }
    assert!(gate.threads().iter().all(|name| name == "nbd-reader"), "{:?}", gate.threads());
}

#[test]
fn requests_that_pile_up_on_a_slow_export_are_served_together() {
    let (_folder, path, _server) = serve(Slow(Duration::from_millis(20)));
    let mut client = Client::ready(&path);
    let started = Instant::now();
    let count = 200;
    pipeline(&mut client, count, 4096);
    let elapsed = started.elapsed();
    let alone = Duration::from_millis(20) * count as u32;
    assert!(elapsed < alone / 2, "{elapsed:?} for what takes {alone:?} one after the other");
}

#[test]
fn a_rare_slow_read_holds_up_no_quick_one() {
    /// One page in a hundred is far away.
    struct Cached;
    impl Export for Cached {
        fn size(&self) -> u64 {
            1 << 30
        }
        fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), Error> {
            if !self.is_quick(offset..offset) {
                thread::sleep(Duration::from_millis(50));
            }
            buf.fill((offset >> 12) as u8);
            Ok(())
        }
        fn is_quick(&self, range: Range<u64>) -> bool {
            !(range.start >> 12).is_multiple_of(100)
        }
    }
    let (_folder, path, _server) = serve(Cached);
    let mut client = Client::ready(&path);
    let mut batch = Vec::new();
    for page in 99..131 {
        batch.extend(request(CMD_READ, 0, page, page << 12, 4096));
    }
    client.send(&batch);
    let cookies: Vec<u64> = (99..131).map(|_| client.chunk().cookie).collect();
    assert_eq!(cookies.last(), Some(&100), "{cookies:?}");
}

#[test]
fn no_more_than_16_requests_of_a_connection_are_served_at_once() {
    let gate = Arc::new(Gate::default());
    let (_folder, path) = socket();
    let slow = Arc::new(Slow(Duration::from_millis(5)));
    let shared: Arc<dyn Export> = Arc::new(Shared(Arc::clone(&gate)));
    let _server = Server::builder().export("gate", shared).export("slow", slow).unix(&path).start().unwrap();
    let mut client = Client::ready(&path);
    let count = (MAX_WORKERS + MAX_QUEUED) * 3;
    // The reader learns that the export is slow from the first request, which it serves itself.
    for at in 0..count as u64 {
        client.request(CMD_READ, 0, at, at << 12, 4096);
    }
    gate.wait_for(1);
    thread::sleep(Duration::from_millis(50));
    gate.open();
    let mut cookies: Vec<u64> = (0..count).map(|_| client.chunk().cookie).collect();
    cookies.sort_unstable();
    assert_eq!(cookies, (0..count as u64).collect::<Vec<_>>());
    assert!(gate.most() <= MAX_WORKERS + 1, "{}", gate.most());
}

#[test]
fn replies_come_in_any_order_and_none_is_lost() {
    /// Every third read takes long.
    struct Uneven;
    impl Export for Uneven {
        fn size(&self) -> u64 {
            1 << 30
        }
        fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), Error> {
            if (offset >> 12).is_multiple_of(3) {
                thread::sleep(Duration::from_millis(2));
            }
            buf.fill((offset >> 12) as u8);
            Ok(())
        }
    }
    let (_folder, path, server) = serve(Uneven);
    for length in [512, 4096, 100_000] {
        pipeline(&mut Client::ready(&path), 600, length);
    }
    assert!(server.stats().requests >= 1800);
}

#[test]
fn large_reads_pile_up_without_harm() {
    let memory = Memory::mixed();
    let bytes = memory.bytes.clone();
    let (_folder, path, _server) = serve(memory);
    let clients: Vec<_> = (0..4)
        .map(|seed| {
            let (path, bytes) = (path.clone(), bytes.clone());
            thread::spawn(move || {
                let mut client = Client::ready(&path);
                let mut parts: HashMap<u64, (u64, Vec<u8>)> = HashMap::new();
                for cookie in 0..16 {
                    let offset = (cookie * 7919 + seed * 4001) % 1_000_000;
                    let length = bytes.len() as u64 - offset - cookie;
                    let flags = if cookie % 4 == 0 { CMD_FLAG_DF } else { 0 };
                    client.send(&request(CMD_READ, flags, cookie, offset, length as u32));
                    parts.insert(cookie, (offset, vec![0xee; length as usize]));
                }
                let mut left = parts.len();
                while left > 0 {
                    let chunk = client.chunk();
                    let (offset, part) = parts.get_mut(&chunk.cookie).unwrap();
                    place(&chunk, *offset, part);
                    left -= usize::from(chunk.last);
                }
                for (offset, part) in parts.into_values() {
                    assert!(part == bytes[offset as usize..][..part.len()]);
                }
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
}

/// Sends reads from another thread as fast as the socket takes them, and checks the replies, in whatever order.
fn pipeline(client: &mut Client, count: u64, length: u32) {
    let mut open: HashMap<u64, u64> = HashMap::new();
    let mut next = 0;
    while next < count || !open.is_empty() {
        while next < count && open.len() < 64 {
            let offset = (next * 7919 % 60_000) << 12;
            client.request(CMD_READ, 0, next, offset, length);
            open.insert(next, offset);
            next += 1;
        }
        let chunk = client.chunk();
        let offset = open[&chunk.cookie];
        let at = u64::from_be_bytes(chunk.data[..8].try_into().unwrap());
        assert_eq!(chunk.kind, REPLY_TYPE_OFFSET_DATA);
        let fill = (at >> 12) as u8;
        assert!(chunk.data[8..].iter().all(|&byte| byte == fill), "offset {offset}");
        if chunk.last {
            open.remove(&chunk.cookie);
        }
    }
}
