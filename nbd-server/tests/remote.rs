//! The client against our server: what it reads and writes, many at once, over connections that break.

use std::ops::{ControlFlow, Range};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use hyper2kvm_nbd::client::{Client, Kind, Options, Style, Uri};
use hyper2kvm_nbd::{
    Allocation, Combine, Context, Errno, Error, Export, Extent, Server, Status, Visit, VisitStatus, Zero,
};

use crate::fixture::{HUGE, Huge, Memory, Slow, serve, socket};

/// Bytes that can be written, with a map of what was, and a context that tells of it.
pub(crate) struct Disk {
    pub(crate) bytes: Mutex<Vec<u8>>,
    pub(crate) flushes: AtomicUsize,
    block: u32,
}

impl Disk {
    pub(crate) fn new(size: usize) -> Self {
        Self { bytes: Mutex::new(vec![0; size]), flushes: AtomicUsize::new(0), block: 1 }
    }

    fn blocks(size: usize, block: u32) -> Self {
        Self { block, ..Self::new(size) }
    }
}

impl Export for Disk {
    fn size(&self) -> u64 {
        self.bytes.lock().unwrap().len() as u64
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), Error> {
        buf.copy_from_slice(&self.bytes.lock().unwrap()[offset as usize..][..buf.len()]);
        Ok(())
    }
    /// Pages of zeros are holes.
    fn extents(&self, range: Range<u64>, visit: &mut Visit<'_>) -> Result<(), Error> {
        let bytes = self.bytes.lock().unwrap();
        let mut at = range.start;
        while at < range.end {
            let end = (at + 4096 - at % 4096).min(bytes.len() as u64);
            let zero = bytes[at as usize..end as usize].iter().all(|&byte| byte == 0);
            let kind = if zero { Allocation::Hole } else { Allocation::Data };
            if visit(Extent { length: end - at, kind }) == ControlFlow::Break(()) {
                break;
            }
            at = end;
        }
        Ok(())
    }
    fn is_writable(&self) -> bool {
        true
    }
    fn minimum_block(&self) -> u32 {
        self.block
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<(), Error> {
        self.bytes.lock().unwrap()[offset as usize..][..buf.len()].copy_from_slice(buf);
        Ok(())
    }
    fn zero(&self, range: Range<u64>, how: Zero) -> Result<(), Error> {
        if !how.may_punch {
            return Err(Error::new(Errno::NotSup, "holes only"));
        }
        self.bytes.lock().unwrap()[range.start as usize..range.end as usize].fill(0);
        Ok(())
    }
    fn can_trim(&self) -> bool {
        true
    }
    fn trim(&self, range: Range<u64>) -> Result<(), Error> {
        self.zero(range, Zero { may_punch: true, fast: false })
    }
    fn flush(&self) -> Result<(), Error> {
        self.flushes.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
    fn contexts(&self) -> Vec<Context> {
        vec![Context { name: "x:parity".into(), combine: Combine::Any }]
    }
    fn status(&self, _: usize, range: Range<u64>, visit: &mut VisitStatus<'_>) -> Result<(), Error> {
        let mut at = range.start;
        while at < range.end {
            let length = 65536 - at % 65536;
            if visit(Status { length, flags: at / 65536 % 2 }).is_break() {
                break;
            }
            at += length;
        }
        Ok(())
    }
}

const STYLES: [Style; 3] = [Style::Simple, Style::Structured, Style::Extended];

fn connect(uri: &str, style: Style) -> Client {
    let contexts = vec!["base:allocation".into(), "x:parity".into(), "x:unknown".into()];
    let options = Options { style, contexts, retry_for: Duration::from_secs(5), ..Options::default() };
    Client::with_options(uri.parse().unwrap(), options).unwrap()
}

#[test]
fn every_operation_in_every_style() {
    for style in STYLES {
        let disk = Arc::new(Disk::new(40 << 20));
        let (_folder, path) = socket();
        let server =
            Server::builder().export("disk", Arc::clone(&disk) as Arc<dyn Export>).unix(&path).start().unwrap();
        let client = connect(&server.uri(), style);
        assert_eq!((client.terms().style, client.size(), client.is_read_only()), (style, 40 << 20, false));
        let bytes: Vec<u8> = (0..35 << 20).map(|at: u32| (at % 251) as u8).collect();
        client.write_at(&bytes, 3, false).unwrap();
        let mut read = vec![0xee; bytes.len()];
        client.read_at(&mut read, 3).unwrap();
        assert!(read == bytes, "{style:?}");
        assert_eq!(disk.flushes.load(Ordering::SeqCst), 0);
        client.flush().unwrap();
        client.write_at(b"durable", 0, true).unwrap();
        assert_eq!(disk.flushes.load(Ordering::SeqCst), 2);
        let punch = |may_punch, fast| client.zero(1 << 20..2 << 20, Zero { may_punch, fast }, false);
        punch(true, true).unwrap();
        assert_eq!(punch(false, true).unwrap_err().kind(), Kind::Export(Errno::NotSup));
        punch(false, false).unwrap();
        client.trim(3 << 20..4 << 20, false).unwrap();
        client.cache(0..client.size()).unwrap();
        let mut read = vec![0xee; 1 << 20];
        client.read_at(&mut read, 1 << 20).unwrap();
        assert!(read.iter().all(|&byte| byte == 0));
        if style > Style::Simple {
            assert_eq!(map(&client), mapped(&disk));
            assert!(client.has_context("x:parity") && !client.has_context("x:unknown"));
            let mut parity = Vec::new();
            let range = 65000..3 * 65536_u64;
            client
                .status("x:parity", range, &mut |status| {
                    parity.push((status.length, status.flags));
                    ControlFlow::Continue(())
                })
                .unwrap();
            let total: u64 = parity.iter().map(|(length, _)| length).sum();
            assert_eq!((parity[0], total), ((536, 0), 3 * 65536 - 65000));
        }
        for (offset, len) in [(40 << 20, 1), ((40 << 20) - 1, 2), (u64::MAX, 1)] {
            assert_eq!(client.read_at(&mut vec![0; len], offset).unwrap_err().kind(), Kind::Unsupported);
            assert_eq!(client.write_at(&vec![0; len], offset, false).unwrap_err().kind(), Kind::Unsupported);
        }
    }
}

fn map(client: &Client) -> Vec<(u64, bool)> {
    let mut map: Vec<(u64, bool)> = Vec::new();
    let walked = client.extents(0..client.size(), &mut |extent| {
        match map.last_mut() {
            Some(last) if last.1 == extent.kind.is_zero() => last.0 += extent.length,
            _ => map.push((extent.length, extent.kind.is_zero())),
        }
        ControlFlow::Continue(())
    });
    walked.unwrap();
    map
}

fn mapped(disk: &Disk) -> Vec<(u64, bool)> {
    let mut map: Vec<(u64, bool)> = Vec::new();
    let told = disk.extents(0..disk.size(), &mut |extent| {
        match map.last_mut() {
            Some(last) if last.1 == extent.kind.is_zero() => last.0 += extent.length,
            _ => map.push((extent.length, extent.kind.is_zero())),
        }
        ControlFlow::Continue(())
    });
    told.unwrap();
    map
}

#[test]
fn a_read_only_export_takes_no_writes() {
    let (_folder, _path, server) = serve(Memory::mixed());
    let client = Client::connect(&server.uri()).unwrap();
    assert_eq!(client.write_at(&[0], 0, false).unwrap_err().kind(), Kind::Unsupported);
    assert_eq!(client.trim(0..1, false).unwrap_err().kind(), Kind::Unsupported);
    client.flush().unwrap();
    let mut all = vec![0; client.size() as usize];
    client.read_at(&mut all, 0).unwrap();
    assert!(all == Memory::mixed().bytes);
}

#[test]
fn unaligned_reads_of_large_blocks() {
    let disk = Arc::new(Disk::blocks(3 << 20, 4096));
    disk.bytes.lock().unwrap().iter_mut().zip(0_u32..).for_each(|(byte, at)| *byte = (at % 253) as u8);
    let (_folder, path) = socket();
    let server = Server::builder().export("", Arc::clone(&disk) as Arc<dyn Export>).unix(&path).start().unwrap();
    let client = Client::connect(&server.uri()).unwrap();
    assert_eq!(client.terms().minimum_block, 4096);
    for (offset, len) in [(0, 1), (4095, 2), (1, 3 << 20 >> 1), (5000, 1_500_000), ((3 << 20) - 1, 1), (4096, 4096)] {
        let mut read = vec![0; len];
        client.read_at(&mut read, offset as u64).unwrap();
        assert!(read == disk.bytes.lock().unwrap()[offset..offset + len], "{offset} {len}");
    }
    assert_eq!(client.write_at(&[1; 512], 0, false).unwrap_err().kind(), Kind::Unsupported);
    client.write_at(&[1; 4096], 4096, false).unwrap();
}

#[test]
fn many_threads_share_few_connections() {
    let (_folder, _path, server) = serve(Memory::mixed());
    let bytes = Memory::mixed().bytes;
    for style in STYLES {
        let client = connect(&server.uri(), style);
        thread::scope(|scope| {
            for seed in 0..24_usize {
                let (client, bytes) = (&client, &bytes);
                scope.spawn(move || {
                    for round in 0..60_usize {
                        let offset = (seed * 7919 + round * 104_729) % (bytes.len() - 1);
                        let len = [1, 512, 4096, 70_000, 1 << 20][(seed + round) % 5].min(bytes.len() - offset);
                        let mut read = vec![0xee; len];
                        client.read_at(&mut read, offset as u64).unwrap();
                        assert!(read == bytes[offset..offset + len], "{offset} {len}");
                    }
                });
            }
        });
        assert!(client.connections() > 1 && client.connections() <= 4, "{}", client.connections());
    }
}

#[test]
fn depth_comes_from_threads() {
    let pause = Duration::from_millis(40);
    let (_folder, _path, server) = serve(Slow(pause));
    let client = Client::connect(&server.uri()).unwrap();
    let started = Instant::now();
    thread::scope(|scope| {
        for seed in 0..24_u64 {
            let client = &client;
            scope.spawn(move || {
                for at in seed * 4..seed * 4 + 4 {
                    let mut read = [0; 4096];
                    client.read_at(&mut read, at << 12).unwrap();
                    assert_eq!(read, [at as u8; 4096]);
                }
            });
        }
    });
    let (elapsed, alone) = (started.elapsed(), pause * 96);
    assert!(elapsed < alone / 2, "{elapsed:?} for what takes {alone:?} one after the other");
}

#[test]
fn a_server_that_comes_back_is_used_on() {
    let (_folder, path) = socket();
    let disk = Arc::new(Disk::new(1 << 20));
    let start = || Server::builder().export("", Arc::clone(&disk) as Arc<dyn Export>).unix(&path).start().unwrap();
    let server = start();
    let client = connect(&server.uri(), Style::Extended);
    client.write_at(b"one", 0, false).unwrap();
    client.flush().unwrap();
    client.write_at(b"two", 0, false).unwrap();
    drop(server);
    let reader = thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut read = [0; 3];
            client.read_at(&mut read, 0).map(|()| read)
        });
        thread::sleep(Duration::from_millis(200));
        let server = start();
        let read = reader.join().unwrap();
        assert_eq!(client.flush().unwrap_err().kind(), Kind::Unflushed, "what was written before may be lost");
        client.flush().unwrap();
        drop(server);
        read
    });
    assert_eq!(reader.unwrap(), *b"two");
}

#[test]
fn a_server_that_comes_back_different_is_not() {
    let (_folder, path) = socket();
    let start =
        |size| Server::builder().export("", Arc::new(Disk::new(size)) as Arc<dyn Export>).unix(&path).start().unwrap();
    let server = start(1 << 20);
    let client = connect(&server.uri(), Style::Extended);
    drop(server);
    let _server = start(2 << 20);
    assert_eq!(client.read_at(&mut [0], 0).unwrap_err().kind(), Kind::Changed);
}

#[test]
fn a_server_that_is_gone_is_waited_for_and_not_for_ever() {
    let (_folder, path, server) = serve(Memory::mixed());
    let uri: Uri = server.uri().parse().unwrap();
    let options = Options { retry_for: Duration::from_millis(300), ..Options::default() };
    let client = Client::with_options(uri.clone(), options.clone()).unwrap();
    drop(server);
    assert!(matches!(client.read_at(&mut [0], 0).unwrap_err().kind(), Kind::Connect | Kind::Lost));
    assert_eq!(Client::with_options(uri.clone(), options.clone()).unwrap_err().kind(), Kind::Connect);
    let late = thread::spawn(move || {
        thread::sleep(Duration::from_millis(200));
        Server::builder().export("", Arc::new(Memory::mixed())).unix(&path).start().unwrap()
    });
    let patient = Options { wait_for: Duration::from_secs(10), ..options };
    Client::with_options(uri, patient).unwrap().read_at(&mut [0], 0).unwrap();
    drop(late.join().unwrap());
}

#[test]
fn exports_are_listed_and_named() {
    let (_folder, path) = socket();
    let export = |length| Arc::new(Memory::new(&[(length, Allocation::Data)]));
    let server = Server::builder().export("a b", export(512)).export("ß/?", export(1024)).unix(&path).start().unwrap();
    let names: Vec<_> =
        Client::list(server.uri().parse().unwrap(), None).unwrap().into_iter().map(|e| e.name).collect();
    assert_eq!(names, ["a b", "ß/?"]);
    assert_eq!(Client::connect(&server.uris("ß/?")[0]).unwrap().size(), 1024);
    assert_eq!(Client::connect(&server.uris("none")[0]).unwrap_err().kind(), Kind::Missing);
}

#[test]
fn an_export_can_be_served_on() {
    let (_folder, _path, server) = serve(Memory::mixed());
    let (_other_folder, _other_path, proxy) = serve(Client::connect(&server.uri()).unwrap());
    let client = Client::connect(&proxy.uri()).unwrap();
    let mut read = vec![0; client.size() as usize];
    client.read_at(&mut read, 0).unwrap();
    assert!(read == Memory::mixed().bytes);
    assert_eq!(map(&client), map(&Client::connect(&server.uri()).unwrap()));
}

#[test]
fn offsets_near_the_ends_of_numbers() {
    let (_folder, _path, server) = serve(Huge);
    let uri = server.uri();
    for style in STYLES {
        let client = connect(&uri, style);
        for (offset, want) in
            [(0, 0), ((1 << 32) - 1, 0), (1 << 32, 1), ((1 << 32) + 1, 0), (HUGE - 2, 0), (HUGE - 1, 1)]
        {
            let mut read = [9];
            client.read_at(&mut read, offset).unwrap();
            assert_eq!(read, [want], "{style:?} {offset}");
        }
        client.write_at(&[1], HUGE - 1, true).unwrap();
        let zero = Zero { may_punch: true, fast: false };
        client.zero((1 << 32) - 1..(1 << 33) + 1, zero, false).unwrap();
        if style == Style::Extended {
            client.zero(0..HUGE, zero, false).unwrap();
            assert_eq!(map(&client), [(HUGE, true)]);
        }
    }
}
