//! A compressed file as the bytes that it holds: gzip, xz, zstd, bzip2.
//!
//! An index says where decoding can begin ([`Units`]): xz and bzip2 blocks, zstd frames, access points in gzip. A unit that is
//! small enough is decoded whole and kept in the session's pool, several at once on several threads. Larger ones (one xz block
//! or zstd frame that is the whole file) can only be read forward; for those a decoder is kept where it stands, and reading back
//! and forth is refused when it becomes unbounded work.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::collections::VecDeque;
use std::fmt::Debug;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::{bzip2, gzip, xz, zstd};
use crate::cache::{Block, Class, Key, Pool};
use crate::disk::{Checked, Disk, ExtentKind, Fingerprint, Hints, Stream, Visit, read_full, whole};
use crate::error::{Error, Result};
use crate::limits;
use crate::session::Session;

pub(super) mod input;
#[cfg(test)]
mod tests;

/// How a file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// bzip2.
    Bzip2,
    /// gzip.
    Gzip,
    /// xz.
    Xz,
    /// Zstandard.
    Zstd,
}

impl Compression {
    /// By the first bytes of a file.
    #[must_use]
    pub fn detect(head: &[u8]) -> Option<Self> {
        match head {
            [0x1f, 0x8b, 8, ..] => Some(Self::Gzip),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Self::Xz),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Self::Zstd),
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, 0x53, 0x59, ..] => Some(Self::Bzip2),
            _ => None,
        }
    }

    /// The name for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bzip2 => "bzip2",
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
        }
    }

    /// Decodes `stream` forward, with every checksum.
    ///
    /// # Errors
    /// When a decoder cannot be made.
    pub fn decode(self, stream: Box<dyn Stream>) -> Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Bzip2 => Box::new(bzip2::Bunzip::new(stream)),
            Self::Gzip => Box::new(gzip::Gunzip::new(stream)),
            Self::Xz => Box::new(xz::Unxz::new(stream)?),
            Self::Zstd => Box::new(zstd::Unzstd::new(stream)?),
        })
    }

    fn index(self, source: &Arc<dyn Disk>, session: &Session) -> Result<Index> {
        match self {
            Self::Bzip2 => bzip2::index(source, session),
            Self::Gzip => gzip::index(source, session),
            Self::Xz => xz::index(source, session),
            Self::Zstd => zstd::index(source, session),
        }
    }
}

/// Where decoding can begin in a file.
#[derive(Debug)]
pub(super) struct Index {
    /// Offsets in the content, ascending; the first is 0 unless there is no content.
    pub(super) starts: Vec<u64>,
    /// Length of the content.
    pub(super) len: u64,
    pub(super) units: Box<dyn Units>,
}

/// What decodes from where an index says. What comes may reach beyond the unit.
pub(super) trait Units: Debug + Send + Sync {
    fn open(&self, unit: usize, source: &Arc<dyn Disk>) -> Result<Box<dyn Stream>>;
}

/// The content of a compressed file.
#[derive(Debug)]
pub struct Packed {
    source: Arc<dyn Disk>,
    compression: Compression,
    index: Index,
    session: Arc<Session>,
    pool: Arc<Pool>,
    owner: u32,
    /// Largest unit that is decoded whole.
    most: u64,
    gate: Gate,
    /// Steps that are kept for those who come a bit later: more than all threads of a copy read at a time, since whoever finds
    /// his own gone has to begin at the start of the unit.
    recent: usize,
    cursors: Mutex<Cursors>,
}

/// Bytes that a standing decoder gives at a time.
const STEP: u64 = 256 << 10;

/// Standing decoders.
const CURSORS: usize = 2;

impl Packed {
    /// The content of `source`, of which `index` is made now: at once for xz and zstd, by a pass over all of it for gzip and
    /// bzip2.
    ///
    /// # Errors
    /// `packed.*`, those of reading, and interruption.
    pub fn open(source: Arc<dyn Disk>, compression: Compression, session: &Arc<Session>) -> Result<Arc<Checked<Self>>> {
        let index = compression.index(&source, session)?;
        if index.len == 0 {
            return Err(Error::corrupt("packed.empty", "the compressed file holds nothing").at(source.name()));
        }
        let pool = Pool::of(session);
        Ok(Checked::wrap(Self {
            source,
            compression,
            index,
            owner: pool.owner(),
            most: session.budget.cache() / 4,
            gate: Gate::new(session.budget.cache() / 2),
            recent: usize::try_from(session.budget.cache() / 4 / STEP).unwrap_or(usize::MAX),
            session: Arc::clone(session),
            pool,
            cursors: Mutex::default(),
        }))
    }

    /// How the file is compressed.
    #[must_use]
    pub const fn compression(&self) -> Compression {
        self.compression
    }

    /// How many places decoding can begin at.
    #[must_use]
    pub const fn points(&self) -> usize {
        self.index.starts.len()
    }

    /// The unit that holds the byte at `offset`, and its bytes.
    fn unit(&self, offset: u64) -> (usize, Range<u64>) {
        let starts = &self.index.starts;
        let number = starts.partition_point(|start| *start <= offset).saturating_sub(1);
        let start = starts.get(number).copied().unwrap_or(0);
        let end = starts.get(number.saturating_add(1)).copied().unwrap_or(self.index.len);
        (number, start..end)
    }

    /// A whole unit, from the pool or decoded now.
    fn whole(&self, number: usize, range: &Range<u64>) -> Result<Block> {
        let key = Key { owner: self.owner, index: u64::try_from(number).unwrap_or(u64::MAX) };
        self.pool.get(key, Class::now(&self.session), || {
            let len = range.end.saturating_sub(range.start);
            let _admitted = self.gate.enter(len);
            self.session.check()?;
            let mut stream = self.index.units.open(number, &self.source)?;
            let block = self.exactly(&mut *stream, len, range.start)?;
            // What ends with its unit must end here: only then is its checksum verified, and the index right.
            if self.compression != Compression::Gzip && stream.read(&mut [0])? != 0 {
                return Err(self.lies(range.start));
            }
            Ok(block)
        })
    }

    fn exactly(&self, stream: &mut dyn Stream, len: u64, at: u64) -> Result<Block> {
        let mut block: Block = std::iter::repeat_n(0, usize::try_from(len).unwrap_or(0)).collect();
        let complete = match Arc::get_mut(&mut block) {
            Some(bytes) => read_full(stream, bytes)? == bytes.len(),
            None => false,
        };
        if complete { Ok(block) } else { Err(self.lies(at)) }
    }

    fn lies(&self, at: u64) -> Error {
        Error::corrupt("packed.corrupt", "a part of the compressed file does not hold as much as its index says")
            .at(self.source.name())
            .found(format!("at {at:#x} of its content"))
    }

    /// A step of a unit that is too large to be decoded whole: its bytes from `start` on.
    fn step(&self, number: usize, range: &Range<u64>, start: u64) -> Result<Block> {
        let mut cursors = lock(&self.cursors);
        if let Some((_, block)) = cursors.recent.iter().find(|(at, _)| *at == start) {
            return Ok(Arc::clone(block));
        }
        let best =
            cursors.standing.iter().enumerate().filter(|(_, cursor)| cursor.unit == number && cursor.at <= start);
        let best = best.max_by_key(|(_, cursor)| cursor.at).map(|(place, _)| place);
        let mut cursor = match best.and_then(|place| cursors.standing.remove(place)) {
            Some(cursor) => cursor,
            None => Cursor { unit: number, at: range.start, stream: self.index.units.open(number, &self.source)? },
        };
        loop {
            self.session.check()?;
            let at = cursor.at;
            let len = STEP.min(range.end.saturating_sub(at));
            let block = self.exactly(&mut *cursor.stream, len, at)?;
            cursor.at = at.saturating_add(len);
            cursors.decoded = cursors.decoded.saturating_add(len);
            if cursors.recent.len() >= self.recent {
                cursors.recent.pop_front();
            }
            cursors.recent.push_back((at, Arc::clone(&block)));
            if at == start {
                if cursor.at == range.end && self.compression != Compression::Gzip && cursor.stream.read(&mut [0])? != 0
                {
                    return Err(self.lies(range.start));
                }
                cursors.wanted = cursors.wanted.saturating_add(len);
                cursors.standing.push_back(cursor);
                if cursors.standing.len() > CURSORS {
                    cursors.standing.pop_front();
                }
                return Ok(block);
            }
            if cursors.decoded.saturating_sub(cursors.wanted.saturating_mul(2)) > limits::MAX_PACKED_WASTE {
                return Err(self.unbounded());
            }
        }
    }

    fn unbounded(&self) -> Error {
        let name = self.compression.name();
        Error::unsupported(
            "packed.random",
            format!("the {name} file is one piece, so reading here and there in it takes too long"),
        )
        .at(self.source.name())
        .hint(format!(
            "decompress it first, or compress it in blocks ({})",
            match self.compression {
                Compression::Xz => "xz -T0 --block-size=16MiB",
                Compression::Zstd => "pzstd, or the seekable format",
                Compression::Gzip | Compression::Bzip2 => "xz -T0",
            }
        ))
    }
}

impl Disk for Packed {
    fn len(&self) -> u64 {
        self.index.len
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let (mut rest, mut at) = (buf, offset);
        while !rest.is_empty() {
            let (number, range) = self.unit(at);
            let inside = at.saturating_sub(range.start);
            let (block, skip) = if range.end.saturating_sub(range.start) <= self.most {
                (self.whole(number, &range)?, inside)
            } else {
                let skip = inside % STEP;
                (self.step(number, &range, at.saturating_sub(skip))?, skip)
            };
            let part = block.get(usize::try_from(skip).unwrap_or(usize::MAX)..).unwrap_or_default();
            let count = part.len().min(rest.len());
            let (Some(from), Some((to, left))) = (part.get(..count), rest.split_at_mut_checked(count)) else {
                return Err(self.lies(at));
            };
            if count == 0 {
                return Err(self.lies(at));
            }
            to.copy_from_slice(from);
            rest = left;
            at = at.saturating_add(u64::try_from(count).unwrap_or(0));
        }
        Ok(())
    }

    fn extents(&self, range: Range<u64>, visit: &mut Visit<'_>) -> Result<()> {
        let start = range.start;
        whole(range, ExtentKind::Data, Some(start), visit);
        Ok(())
    }

    fn hints(&self) -> Hints {
        Hints { preferred: 1 << 20, ..self.source.hints() }
    }

    fn fingerprint(&self) -> Result<Fingerprint> {
        Ok(Fingerprint::of(&[self.compression.name().as_bytes(), &self.source.fingerprint()?.0]))
    }

    fn describe(&self) -> (&'static str, String) {
        (self.compression.name(), format!("{} places to begin at", self.points()))
    }

    fn name(&self) -> String {
        self.source.name()
    }

    fn below(&self) -> Vec<Arc<dyn Disk>> {
        vec![Arc::clone(&self.source)]
    }
}

/// Decoders that stand where they came to.
#[derive(Debug, Default)]
struct Cursors {
    standing: VecDeque<Cursor>,
    /// What was decoded last, by its offset.
    recent: VecDeque<(u64, Block)>,
    /// Bytes that were decoded.
    decoded: u64,
    /// Bytes that were asked for.
    wanted: u64,
}

#[derive(Debug)]
struct Cursor {
    unit: usize,
    at: u64,
    stream: Box<dyn Stream>,
}

/// Bounds the bytes of units that are being decoded.
#[derive(Debug)]
struct Gate {
    free: Mutex<u64>,
    left: Condvar,
}

/// The right to decode so many bytes.
struct Admitted<'a> {
    gate: &'a Gate,
    bytes: u64,
}

impl Gate {
    fn new(bytes: u64) -> Self {
        Self { free: Mutex::new(bytes), left: Condvar::new() }
    }

    /// Waits until there is room for `bytes`, which must be less than all of it.
    fn enter(&self, bytes: u64) -> Admitted<'_> {
        let free = lock(&self.free);
        let mut free = self.left.wait_while(free, |free| *free < bytes).unwrap_or_else(PoisonError::into_inner);
        *free = free.saturating_sub(bytes);
        Admitted { gate: self, bytes }
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        let mut free = lock(&self.gate.free);
        *free = free.saturating_add(self.bytes);
        self.gate.left.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
