//! An export of an NBD server, which whoever runs it keeps on something of theirs.
//!
//! A server that tells that an export reads as zeros everywhere is believed, as a source is: such an export is taken without being
//! asked, and what a sink leaves out stays as it is. Elsewhere the server makes zeros by itself (`WRITE_ZEROES`, which may
//! punch holes), or they are written.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hyper2kvm_nbd::client::{self, Client, Stop};
use hyper2kvm_nbd::protocol::constants::{FLAG_SEND_FAST_ZERO, FLAG_SEND_WRITE_ZEROES};
use hyper2kvm_nbd::{Errno, Zero};

use super::Medium;
use super::writers::{Carrier, MERGE, Writers};
use crate::cache::BlockCache;
use crate::disk::Disk;
use crate::error::{Error, Kind, Result};
use crate::session::Session;
use crate::source::{Address, nbd};

/// Answers about holes that are asked for to see whether an export is blank: of 1 TiB where each tells of 4 GiB.
const BLANK_ANSWERS: usize = 256;

/// Bytes that a server has to zero at once if it may have to write them all: a second or two of a slow disk.
const SLOW_ZERO: u64 = 32 << 20;

/// An export that is being written.
#[derive(Debug)]
pub(super) struct Export {
    target: Arc<Target>,
    writers: Writers,
    session: Arc<Session>,
    /// Whether it read as zeros everywhere when it was claimed.
    blank: bool,
    /// Whether all of it will be read back, so that nothing can be lost unnoticed.
    verify: bool,
    /// Nobody waits for what is still under way.
    abandoned: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Target {
    client: Arc<Client>,
    address: Address,
    /// Zeroing turned out to be slow.
    slow: AtomicBool,
}

impl Export {
    pub(super) fn claim(
        address: &Address,
        force: bool,
        verify: bool,
        source: &dyn Disk,
        session: &Arc<Session>,
    ) -> Result<Self> {
        if reads_from(source, &address.to_string()) {
            let error = Error::new(Kind::Usage, "output.source", "the export is what the source lies on");
            return Err(error.at(address));
        }
        let abandoned = Arc::new(AtomicBool::new(false));
        let (flag, of) = (Arc::clone(&abandoned), Arc::clone(session));
        let stop = Stop::when(move || flag.load(Ordering::Relaxed) || of.check().is_err());
        let client = nbd::attach(address, session, stop)?;
        if client.is_read_only() {
            return Err(Error::failed("nbd.unsupported", "the export takes no writes")
                .at(address)
                .hint("have the server offer it for writing"));
        }
        let target = Arc::new(Target { client, address: address.clone(), slow: AtomicBool::new(false) });
        let blank = target.is_blank().map_err(|error| target.explain(&error))?;
        if !blank && !force {
            return Err(Error::new(Kind::Exists, "output.exists", "the export may have some content")
                .at(address)
                .hint("give --force to overwrite all of it"));
        }
        let carrier: Arc<dyn Carrier> = Arc::<Target>::clone(&target);
        let writers = Writers::new(carrier, target.block(), session)?;
        Ok(Self { target, writers, session: Arc::clone(session), blank, verify, abandoned })
    }
}

impl Drop for Export {
    fn drop(&mut self) {
        self.abandoned.store(true, Ordering::Relaxed);
    }
}

/// Whether anything below `disk` is the export at `address`.
fn reads_from(disk: &dyn Disk, address: &str) -> bool {
    let (kind, label) = disk.describe();
    (kind == "nbd" && label == address) || disk.below().iter().any(|below| reads_from(&**below, address))
}

impl Medium for Export {
    fn name(&self) -> String {
        self.target.address.to_string()
    }

    fn noun(&self) -> &'static str {
        "export"
    }

    fn len(&self) -> u64 {
        self.target.client.size()
    }

    fn write(&self, data: &[u8], offset: u64) -> Result<()> {
        self.writers.write(data, offset)
    }

    fn zero(&self, range: Range<u64>) -> Result<()> {
        if self.writers.pad(&range)? || self.blank {
            return Ok(());
        }
        self.writers.zero(range)
    }

    fn sync(&self) -> Result<()> {
        self.writers.drain()?;
        let flush = || self.target.client.flush();
        let flushed = match flush() {
            // The server may have lost what it took before. Reading it back tells.
            Err(error) if error.kind() == client::Kind::Unflushed && self.verify => {
                tracing::warn!(
                    "{}: the connection ended before a flush; reading back tells whether all is there",
                    self.name()
                );
                flush()
            }
            flushed => flushed,
        };
        flushed.map_err(|error| self.target.explain(&error))
    }

    fn read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.writers.drain()?;
        self.target.client.read_at(buf, offset).map_err(|error| self.target.explain(&error).offset(offset))
    }

    /// Through the same connections, since a server may allow no others.
    fn reopen(&self) -> Result<Arc<dyn Disk>> {
        self.writers.drain()?;
        let disk = nbd::reader(&self.target.client, &self.target.address, &self.session)?;
        Ok(BlockCache::wrap(disk, &self.session))
    }
}

impl Target {
    fn block(&self) -> u64 {
        u64::from(self.client.terms().minimum_block)
    }

    fn explain(&self, error: &client::Error) -> Error {
        nbd::explain(error).at(&self.address)
    }

    fn has(&self, flag: u16) -> bool {
        self.client.terms().flags & flag != 0
    }

    /// Whether the server says that all of it reads as zeros.
    fn is_blank(&self) -> client::Result<bool> {
        if !self.client.has_context("base:allocation") {
            return Ok(false);
        }
        let (mut at, end) = (0, self.client.size());
        for _ in 0..BLANK_ANSWERS {
            if at >= end {
                return Ok(true);
            }
            let before = at;
            let mut zeros = true;
            self.client.extents_once(at..end, &mut |extent| {
                zeros = extent.kind.is_zero();
                at += extent.length;
                if zeros { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            if !zeros || at == before {
                return Ok(false);
            }
        }
        Ok(false)
    }

    /// Whole blocks, by the server itself.
    fn zero_blocks(&self, range: Range<u64>) -> client::Result<()> {
        let quick = self.has(FLAG_SEND_FAST_ZERO) && !self.slow.load(Ordering::Relaxed);
        if quick {
            match self.client.zero(range.clone(), Zero { may_punch: true, fast: true }, false) {
                Err(error) if error.kind() == client::Kind::Export(Errno::NotSup) => {
                    self.slow.store(true, Ordering::Relaxed);
                }
                done => return done,
            }
        }
        for start in range.clone().step_by(SLOW_ZERO as usize) {
            let part = start..range.end.min(start + SLOW_ZERO);
            self.client.zero(part, Zero { may_punch: true, fast: false }, false)?;
        }
        Ok(())
    }

    /// Bytes that may begin and end within blocks: those around them are read first.
    fn put(&self, data: &[u8], offset: u64) -> client::Result<()> {
        let (block, end) = (self.block(), offset + data.len() as u64);
        let blocks = offset - offset % block..end.next_multiple_of(block);
        if blocks == (offset..end) {
            return self.client.write_at(data, offset, false);
        }
        let mut bytes = vec![0; usize::try_from(blocks.end - blocks.start).unwrap_or(0)];
        let edge = usize::try_from(block).unwrap_or(1);
        let last = bytes.len() - edge;
        self.client.read_at(&mut bytes[..edge], blocks.start)?;
        self.client.read_at(&mut bytes[last..], blocks.end - block)?;
        let at = usize::try_from(offset - blocks.start).unwrap_or(0);
        bytes[at..at + data.len()].copy_from_slice(data);
        self.client.write_at(&bytes, blocks.start, false)
    }
}

impl Carrier for Target {
    fn write(&self, data: &[u8], offset: u64) -> Result<()> {
        self.put(data, offset).map_err(|error| self.explain(&error).offset(offset))
    }

    fn zero(&self, range: Range<u64>) -> Result<()> {
        let block = self.block();
        let whole = range.start.next_multiple_of(block)..range.end - range.end % block;
        let explain = |error: client::Error| self.explain(&error).offset(range.start);
        let zeros = vec![0; usize::try_from(MERGE).unwrap_or(0)];
        let overwrite = |part: Range<u64>| -> client::Result<()> {
            for start in part.clone().step_by(zeros.len()) {
                let len = usize::try_from(part.end - start).map_or(zeros.len(), |left| left.min(zeros.len()));
                self.put(&zeros[..len], start)?;
            }
            Ok(())
        };
        if !self.has(FLAG_SEND_WRITE_ZEROES) || whole.start >= whole.end {
            return overwrite(range.clone()).map_err(explain);
        }
        overwrite(range.start..whole.start).map_err(explain)?;
        self.zero_blocks(whole.clone()).map_err(explain)?;
        overwrite(whole.end..range.end).map_err(explain)
    }
}
