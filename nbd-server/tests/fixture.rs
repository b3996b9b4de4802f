//! Exports with known bytes, and servers for them.

use std::ops::{ControlFlow, Range};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use hyper2kvm_nbd::{Allocation, Builder, Error, Export, Extent, Server, Visit, Zero};
use tempfile::TempDir;

/// Bytes in memory with a map.
pub(crate) struct Memory {
    pub(crate) bytes: Vec<u8>,
    map: Vec<Extent>,
}

impl Memory {
    /// Data whose bytes depend on their place and are never zero, zeros, and holes.
    pub(crate) fn new(map: &[(u64, Allocation)]) -> Self {
        let mut bytes = Vec::new();
        for &(length, kind) in map {
            let start = bytes.len() as u64;
            let byte = |at: u64| if kind.is_zero() { 0 } else { (at * 7 % 255) as u8 + 1 };
            bytes.extend((start..start + length).map(byte));
        }
        Self { bytes, map: map.iter().map(|&(length, kind)| Extent { length, kind }).collect() }
    }

    /// 4 MiB + 512 bytes with runs of every kind, some of them not aligned to anything.
    pub(crate) fn mixed() -> Self {
        use Allocation::{Data, Hole, Zero};
        Self::new(&[
            (1 << 20, Data),
            (512 << 10, Hole),
            (512 << 10, Zero),
            (100_000, Data),
            (300_000, Hole),
            (512, Data),
            ((2 << 20) - 400_512, Hole),
            (512, Data),
        ])
    }
}

impl Export for Memory {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), Error> {
        buf.copy_from_slice(&self.bytes[offset as usize..][..buf.len()]);
        Ok(())
    }

    fn extents(&self, range: Range<u64>, visit: &mut Visit<'_>) -> Result<(), Error> {
        let mut start = 0;
        for extent in &self.map {
            let end = start + extent.length;
            if end > range.start && start < range.end {
                let length = end.min(range.end) - start.max(range.start);
                if visit(Extent { length, ..*extent }) == ControlFlow::Break(()) {
                    break;
                }
            }
            start = end;
        }
        Ok(())
    }

    fn preferred_block(&self) -> u32 {
        65536
    }

    fn description(&self) -> String {
        "a disk of every kind".into()
    }
}

/// An export of nearly 8 EiB of zeros, but for a byte at 4 GiB and the last one.
pub(crate) struct Huge;

pub(crate) const HUGE: u64 = i64::MAX as u64 - 511;

impl Export for Huge {
    fn size(&self) -> u64 {
        HUGE
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), Error> {
        for (at, byte) in (offset..).zip(buf) {
            *byte = u8::from(at == (1 << 32) || at == HUGE - 1);
        }
        Ok(())
    }

    fn extents(&self, range: Range<u64>, visit: &mut Visit<'_>) -> Result<(), Error> {
        let _ = visit(Extent { length: range.end - range.start, kind: Allocation::Zero });
        Ok(())
    }

    fn is_writable(&self) -> bool {
        true
    }

    fn write_at(&self, _: &[u8], _: u64) -> Result<(), Error> {
        Ok(())
    }

    fn zero(&self, _: Range<u64>, _: Zero) -> Result<(), Error> {
        Ok(())
    }
}

/// An export whose reads wait until they are let go, and which counts how many do.
#[derive(Default)]
pub(crate) struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    open: bool,
    waiting: usize,
    most: usize,
    threads: Vec<String>,
}

impl Gate {
    pub(crate) fn open(&self) {
        self.state.lock().unwrap().open = true;
        self.changed.notify_all();
    }

    /// Waits until so many reads wait at the gate.
    pub(crate) fn wait_for(&self, count: usize) {
        let state = self.state.lock().unwrap();
        let (state, timeout) =
            self.changed.wait_timeout_while(state, Duration::from_secs(20), |state| state.waiting < count).unwrap();
        assert!(!timeout.timed_out(), "{} reads wait", state.waiting);
    }

    pub(crate) fn most(&self) -> usize {
        self.state.lock().unwrap().most
    }

    /// The names of the threads that read, in order.
    pub(crate) fn threads(&self) -> Vec<String> {
        self.state.lock().unwrap().threads.clone()
    }
}

impl Export for Gate {
    fn size(&self) -> u64 {
        1 << 30
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), Error> {
        let mut state = self.state.lock().unwrap();
        state.threads.push(thread::current().name().unwrap_or_default().to_owned());
        state.waiting += 1;
        state.most = state.most.max(state.waiting);
        self.changed.notify_all();
        let mut state = self.changed.wait_while(state, |state| !state.open).unwrap();
        state.waiting -= 1;
        buf.fill((offset >> 12) as u8);
        Ok(())
    }
}

/// An export that takes its time.
pub(crate) struct Slow(pub(crate) Duration);

impl Export for Slow {
    fn size(&self) -> u64 {
        1 << 30
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), Error> {
        thread::sleep(self.0);
        buf.fill((offset >> 12) as u8);
        Ok(())
    }
}

/// A folder with a socket path in it.
pub(crate) fn socket() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nbd.sock");
    (folder, path)
}

/// A server for one export named "disk" on a Unix socket.
pub(crate) fn serve(export: impl Export + 'static) -> (TempDir, PathBuf, Server) {
    serve_with(export, |builder| builder)
}

pub(crate) fn serve_with(
    export: impl Export + 'static,
    configure: impl FnOnce(Builder) -> Builder,
) -> (TempDir, PathBuf, Server) {
    let (folder, path) = socket();
    let builder = Server::builder().export("disk", Arc::new(export)).unix(&path);
    (folder, path, configure(builder).start().unwrap())
}
