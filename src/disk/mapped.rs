//! A disk put together of ranges of others: linear, striped, mirrored. Logical volumes and arrays are made of it.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use super::{Disk, DiskMut, Extent, ExtentKind, Fingerprint, Hints, HostRange, SectorSize, Visit};
use crate::error::{Error, Result};

/// Ranges of other disks as one disk, which writes through to them.
#[derive(Debug)]
pub struct Mapped {
    kind: &'static str,
    label: String,
    len: u64,
    disks: Vec<Arc<dyn DiskMut>>,
    /// Each with its first byte, ascending, without gaps.
    pieces: Vec<(u64, Piece)>,
}

/// A run of bytes of a [`Mapped`] disk.
#[derive(Clone, Debug)]
pub struct Piece {
    /// Bytes, never none.
    pub len: u64,
    /// Where they are.
    pub how: How,
}

/// Where the bytes of a [`Piece`] are.
#[derive(Clone, Debug)]
pub enum How {
    /// Nowhere, and why: every read and write fails with it.
    Broken(Error),
    /// At each of these places alike; one place is a plain linear range. The first that can be read is read; all are written.
    Copies(Vec<Place>),
    /// At each of these places alike, but only the first is sure to be right: it alone is read, and all are written.
    Led(Vec<Place>),
    /// Dealt out in chunks to the places in turn, each chunk to `copies` of them, one after the other. A place that is missing
    /// is never the only one of its chunk.
    Striped {
        /// Bytes that go to one place before the next has its turn; a power of two or any other multiple of 512.
        chunk: u64,
        /// Places that hold the same chunk, at least one and at most as many as there are.
        copies: usize,
        /// In the order of their turns.
        places: Vec<Option<Place>>,
    },
    /// Nowhere: they read as zeros, and what is written is forgotten.
    Zeros,
}

/// A place on one of the disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its index.
    pub disk: usize,
    /// Bytes from its start.
    pub start: u64,
}

/// What [`Mapped::runs`] calls: a range of the disk, all of whose bytes are in a row at each of the places.
type Run<'a> = dyn FnMut(Range<u64>, &[Place]) -> Result<ControlFlow<()>> + 'a;

impl Mapped {
    /// The disk of all `pieces`, one after the other. `kind` and `label` are for messages.
    ///
    /// # Errors
    /// `disk.range` when a piece reaches past the end of a disk, has no places, or does not come out even.
    pub fn new(
        kind: &'static str,
        label: impl Into<String>,
        disks: Vec<Arc<dyn DiskMut>>,
        pieces: Vec<Piece>,
    ) -> Result<Self> {
        let label = label.into();
        let mut len = 0_u64;
        let mut placed = Vec::with_capacity(pieces.len());
        for piece in pieces {
            piece.check(&disks).map_err(|error| error.at(&label))?;
            let start = len;
            len = start.checked_add(piece.len).filter(|len| *len <= crate::limits::MAX_DISK_LEN).ok_or_else(|| {
                Error::limit("disk.range", "a volume is larger than any disk can be").at(&label).offset(start)
            })?;
            placed.push((start, piece));
        }
        Ok(Self { kind, label, len, disks, pieces: placed })
    }

    /// Whether of several copies at `offset` only the first may be read.
    fn is_led(&self, offset: u64) -> bool {
        let piece = self.pieces.partition_point(|(start, piece)| start + piece.len <= offset);
        matches!(self.pieces.get(piece), Some((_, Piece { how: How::Led(_), .. })))
    }

    /// Calls `each` for the runs of `range`, in order.
    fn runs(&self, range: Range<u64>, each: &mut Run<'_>) -> Result<()> {
        let first = self.pieces.partition_point(|(start, piece)| start + piece.len <= range.start);
        let mut copies = Vec::new();
        for (start, piece) in self.pieces.iter().skip(first).take_while(|(start, _)| *start < range.end) {
            let (mut at, end) = (range.start.max(*start), range.end.min(start + piece.len));
            while at < end {
                let len = piece.how.locate(at - start, &mut copies)?;
                let until = end.min(at.saturating_add(len));
                if each(at..until, &copies)?.is_break() {
                    return Ok(());
                }
                at = until;
            }
        }
        Ok(())
    }

    fn disk(&self, place: Place) -> Result<&Arc<dyn DiskMut>> {
        self.disks
            .get(place.disk)
            .ok_or_else(|| Error::corrupt("disk.range", "a volume has no such disk").at(&self.label))
    }

    fn read_copy(&self, buf: &mut [u8], copies: &[Place]) -> Result<()> {
        let mut failure = None;
        for place in copies {
            match self.disk(*place)?.read_at(buf, place.start) {
                Ok(()) => return Ok(()),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        match failure {
            Some(error) => Err(error),
            None => {
                buf.fill(0);
                Ok(())
            }
        }
    }

    /// How many bytes from `at` on, where a new turn begins, are zeros on all places, in whole turns: so that a volume of
    /// terabytes of nothing is not walked chunk by chunk.
    fn empty_turns(&self, at: u64, end: u64) -> Result<u64> {
        let first = self.pieces.partition_point(|(start, piece)| start + piece.len <= at);
        let Some((start, Piece { len, how: How::Striped { chunk, copies, places } })) = self.pieces.get(first) else {
            return Ok(0);
        };
        let turn = chunk * (places.len() / copies) as u64;
        let turns = (end.min(start + len) - at) / turn;
        if !(at - start).is_multiple_of(turn) || turns < 2 || !places.len().is_multiple_of(*copies) {
            return Ok(0);
        }
        let behind = (at - start) / turn * chunk;
        let mut empty = turns * chunk;
        for place in places.iter().flatten() {
            let from = place.start + behind;
            let mut zeros = 0;
            self.disk(*place)?.extents(from..from + empty, &mut |extent| {
                if extent.kind.is_zero() {
                    zeros = extent.range.end - from;
                    return ControlFlow::Continue(());
                }
                ControlFlow::Break(())
            })?;
            empty = empty.min(zeros);
        }
        Ok(empty / chunk * turn)
    }
}

impl Piece {
    /// A linear range.
    #[must_use]
    pub fn linear(len: u64, disk: usize, start: u64) -> Self {
        Self { len, how: How::Copies(vec![Place { disk, start }]) }
    }

    fn check(&self, disks: &[Arc<dyn DiskMut>]) -> Result<()> {
        let outside = |what: String| Err(Error::corrupt("disk.range", what));
        let fits = |place: &Place, len: u64| {
            let end = place.start.checked_add(len);
            disks.get(place.disk).is_some_and(|disk| end.is_some_and(|end| end <= disk.len()))
        };
        match &self.how {
            _ if self.len == 0 => outside("a piece of a volume is empty".to_owned()),
            How::Broken(_) | How::Zeros => Ok(()),
            How::Copies(places) | How::Led(places) if places.is_empty() => {
                outside("a piece of a volume is nowhere".to_owned())
            }
            How::Copies(places) | How::Led(places) => match places.iter().find(|place| !fits(place, self.len)) {
                Some(place) => outside(format!("{} bytes from {:#x} go past the end of a disk", self.len, place.start)),
                None => Ok(()),
            },
            How::Striped { chunk, copies, places } => {
                let count = places.len() as u64;
                if *chunk < 512
                    || chunk % 512 != 0
                    || !self.len.is_multiple_of(*chunk)
                    || *copies == 0
                    || *copies > places.len()
                {
                    return outside("the chunks of a striped volume do not come out even".to_owned());
                }
                let each = (self.len / chunk).saturating_mul(*copies as u64).div_ceil(count).saturating_mul(*chunk);
                if let Some(place) = places.iter().flatten().find(|place| !fits(place, each)) {
                    return outside(format!("{each} bytes from {:#x} go past the end of a disk", place.start));
                }
                let lost = |first: usize| {
                    let mut copies = (0..*copies).map(|copy| places.get((first + copy) % places.len()));
                    copies.all(|place| place.is_none_or(Option::is_none))
                };
                // The first copies of chunks begin at every multiple of their number, around the circle.
                if (0..places.len()).any(|chunk| lost(chunk * copies % places.len())) {
                    return outside("all copies of a chunk are on disks that are missing".to_owned());
                }
                Ok(())
            }
        }
    }
}

impl How {
    /// Fills `copies` with where the byte at `offset` of the piece is, and gives the bytes from there on that are in a row.
    fn locate(&self, offset: u64, found: &mut Vec<Place>) -> Result<u64> {
        found.clear();
        match self {
            Self::Broken(error) => Err(error.clone()),
            Self::Zeros => Ok(u64::MAX),
            Self::Copies(places) | Self::Led(places) => {
                found.extend(places.iter().map(|place| Place { start: place.start + offset, ..*place }));
                Ok(u64::MAX)
            }
            Self::Striped { chunk, copies, places } => {
                let (number, inside) = (offset / chunk, offset % chunk);
                let count = places.len() as u64;
                let first = number * *copies as u64;
                for position in first..first + *copies as u64 {
                    let index = usize::try_from(position % count).unwrap_or(usize::MAX);
                    if let Some(Some(place)) = places.get(index) {
                        found.push(Place { start: place.start + position / count * chunk + inside, ..*place });
                    }
                }
                Ok(chunk - inside)
            }
        }
    }
}

impl Disk for Mapped {
    fn len(&self) -> u64 {
        self.len
    }

    fn sector_size(&self) -> SectorSize {
        let large = self.disks.iter().any(|disk| disk.sector_size() == SectorSize::B4096);
        if large { SectorSize::B4096 } else { SectorSize::B512 }
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let mut rest = buf;
        self.runs(offset..offset + rest.len() as u64, &mut |range, copies| {
            let len = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
            let (head, tail) = std::mem::take(&mut rest).split_at_mut(len);
            rest = tail;
            let readable = if copies.len() > 1 && self.is_led(range.start) { 1 } else { copies.len() };
            self.read_copy(head, copies.get(..readable).unwrap_or_default())?;
            Ok(ControlFlow::Continue(()))
        })
    }

    fn extents(&self, range: Range<u64>, visit: &mut Visit<'_>) -> Result<()> {
        let mut at = range.start;
        while at < range.end {
            let empty = self.empty_turns(at, range.end)?;
            if empty > 0 {
                let hole = Extent { range: at..at + empty, kind: ExtentKind::Hole, depth: 0, place: None };
                at += empty;
                if visit(hole).is_break() {
                    return Ok(());
                }
                continue;
            }
            let mut flow = ControlFlow::Continue(());
            let mut started = false;
            self.runs(at..range.end, &mut |run, copies| {
                // Where a turn begins, there may be many empty ones.
                if std::mem::replace(&mut started, true) && self.empty_turns(run.start, range.end)? > 0 {
                    return Ok(ControlFlow::Break(()));
                }
                at = run.end;
                let Some(place) = copies.first() else {
                    flow = visit(Extent { range: run, kind: ExtentKind::Hole, depth: 0, place: None });
                    return Ok(flow);
                };
                self.disk(*place)?.extents(place.start..place.start + (run.end - run.start), &mut |extent| {
                    let shift = |there: u64| there - place.start + run.start;
                    flow = visit(Extent { range: shift(extent.range.start)..shift(extent.range.end), ..extent });
                    flow
                })?;
                Ok(flow)
            })?;
            if flow.is_break() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn homes(&self, range: Range<u64>, visit: &mut dyn FnMut(usize, Range<u64>)) {
        // What is broken has no home, and so nothing of it is ever called free.
        let _ = self.runs(range, &mut |run, copies| {
            copies.iter().for_each(|place| visit(place.disk, place.start..place.start + (run.end - run.start)));
            Ok(ControlFlow::Continue(()))
        });
    }

    fn host(&self, range: Range<u64>) -> Result<Option<HostRange>> {
        let mut found = None;
        self.runs(range, &mut |run, copies| {
            if let Some(place) = copies.first() {
                found = self.disk(*place)?.host(place.start..place.start + (run.end - run.start))?;
            }
            Ok(ControlFlow::Break(()))
        })?;
        Ok(found)
    }

    fn prefetch(&self, range: Range<u64>) {
        let _ = self.runs(range, &mut |run, copies| {
            if let Some(place) = copies.first() {
                self.disk(*place)?.prefetch(place.start..place.start + (run.end - run.start));
            }
            Ok(ControlFlow::Continue(()))
        });
    }

    fn hints(&self) -> Hints {
        let hints = self.disks.iter().map(|disk| disk.hints());
        hints.max_by_key(|hints| (hints.latency, hints.preferred)).unwrap_or_default()
    }

    fn fingerprint(&self) -> Result<Fingerprint> {
        let below = self.disks.iter().map(|disk| disk.fingerprint()).collect::<Result<Vec<_>>>()?;
        let layout = format!("{:?}", self.pieces);
        let mut facts: Vec<&[u8]> = below.iter().map(|below| &below.0[..]).collect();
        facts.push(layout.as_bytes());
        Ok(Fingerprint::of(&facts))
    }

    fn describe(&self) -> (&'static str, String) {
        (self.kind, self.label.clone())
    }

    fn below(&self) -> Vec<Arc<dyn Disk>> {
        self.disks.iter().map(|disk| Arc::clone(disk) as Arc<dyn Disk>).collect()
    }
}

impl DiskMut for Mapped {
    fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        let mut rest = data;
        self.runs(offset..offset + data.len() as u64, &mut |range, copies| {
            let len = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
            let (head, tail) = rest.split_at(len);
            rest = tail;
            for place in copies {
                self.disk(*place)?.write_at(head, place.start)?;
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    fn zero(&self, range: Range<u64>) -> Result<()> {
        self.runs(range, &mut |range, copies| {
            for place in copies {
                self.disk(*place)?.zero(place.start..place.start + (range.end - range.start))?;
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    fn flush(&self) -> Result<()> {
        self.disks.iter().try_for_each(|disk| disk.flush())
    }

    fn can_write(&self) -> bool {
        self.disks.iter().all(|disk| disk.can_write())
    }
}

#[cfg(test)]
mod tests;
