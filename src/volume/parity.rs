//! Arrays with parity (levels 4, 5 and 6), read with all members or all but one. `drivers/md/raid5.c` names the layouts.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use crate::disk::bytes::{long, size};
use crate::disk::{Disk, Extent, ExtentKind, Fingerprint, Hints, HostRange, SectorSize, Visit, read_vec};
use crate::error::{Error, Result};
use crate::limits;

/// Where parity is, and where the data goes around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Parity moves from the last member to the first, data begins on the first member. With `six`, the last member is all Q.
    LeftAsymmetric,
    /// As above; data begins behind the parity.
    LeftSymmetric,
    /// Parity moves from the first member to the last.
    RightAsymmetric,
    /// As above; data begins behind the parity.
    RightSymmetric,
    /// Parity on the first member.
    ParityFirst,
    /// Parity behind the data.
    ParityLast,
    /// Level 6 of DDF, `ROTATING_N_CONTINUE`.
    RotatingContinue,
    /// Level 6 of DDF, `ROTATING_N_RESTART`.
    RotatingRestart,
    /// Level 6 of DDF, `ROTATING_ZERO_RESTART`.
    RotatingZero,
    /// A level 5 layout on all members but the last, which has Q.
    Six(Five),
}

/// Layouts of level 5 that level 6 has too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Five {
    /// See [`Layout::LeftAsymmetric`].
    LeftAsymmetric,
    /// See [`Layout::LeftSymmetric`].
    LeftSymmetric,
    /// See [`Layout::ParityFirst`].
    ParityFirst,
    /// See [`Layout::RightAsymmetric`].
    RightAsymmetric,
    /// See [`Layout::RightSymmetric`].
    RightSymmetric,
}

impl Layout {
    /// The layout that MD's superblock and LVM's segment types number so.
    #[must_use]
    pub fn numbered(level: i32, number: u32) -> Option<Self> {
        Some(match (level, number) {
            (4, _) => Self::ParityLast,
            (5 | 6, 0) => Self::LeftAsymmetric,
            (5 | 6, 1) => Self::RightAsymmetric,
            (5 | 6, 2) => Self::LeftSymmetric,
            (5 | 6, 3) => Self::RightSymmetric,
            (5 | 6, 4) => Self::ParityFirst,
            (5 | 6, 5) => Self::ParityLast,
            (6, 8) => Self::RotatingZero,
            (6, 9) => Self::RotatingRestart,
            (6, 10) => Self::RotatingContinue,
            (6, 16) => Self::Six(Five::LeftAsymmetric),
            (6, 17) => Self::Six(Five::RightAsymmetric),
            (6, 18) => Self::Six(Five::LeftSymmetric),
            (6, 19) => Self::Six(Five::RightSymmetric),
            (6, 20) => Self::Six(Five::ParityFirst),
            _ => return None,
        })
    }

    /// The members that hold chunk `data` of row `row`, and P and Q of the row, of `members`.
    fn places(self, members: u64, six: bool, row: u64, data: u64) -> Row {
        if let Self::Six(five) = self {
            let rest = members.saturating_sub(1);
            let inner = five.layout().places(rest, false, row, data);
            return Row { q: Some(rest), ..inner };
        }
        let last = members.saturating_sub(1);
        let turn = |row: u64| row.checked_rem(members).unwrap_or(0);
        let around = |at: u64| at.checked_rem(members).unwrap_or(0);
        let right = turn(row);
        let left = last.saturating_sub(right);
        let parities = if six { 2 } else { 1 };
        let p = match self {
            Self::LeftAsymmetric | Self::LeftSymmetric | Self::RotatingContinue => left,
            Self::RightAsymmetric | Self::RightSymmetric | Self::RotatingZero => right,
            Self::RotatingRestart => last.saturating_sub(turn(row.saturating_add(1))),
            Self::ParityFirst => 0,
            Self::ParityLast | Self::Six(_) => members.saturating_sub(parities),
        };
        let q = match self {
            Self::RotatingContinue => around(p.saturating_add(last)),
            _ => around(p.saturating_add(1)),
        };
        let data = match self {
            Self::LeftSymmetric | Self::RightSymmetric => around(p.saturating_add(parities).saturating_add(data)),
            Self::RotatingContinue => around(p.saturating_add(1).saturating_add(data)),
            _ => {
                // In order over the members that have no parity.
                let (low, high) = if six { (p.min(q), p.max(q)) } else { (p, u64::MAX) };
                let data = if data >= low { data.saturating_add(1) } else { data };
                if data >= high { data.saturating_add(1) } else { data }
            }
        };
        Row { data, p, q: six.then_some(q) }
    }
}

impl Five {
    const fn layout(self) -> Layout {
        match self {
            Self::LeftAsymmetric => Layout::LeftAsymmetric,
            Self::LeftSymmetric => Layout::LeftSymmetric,
            Self::ParityFirst => Layout::ParityFirst,
            Self::RightAsymmetric => Layout::RightAsymmetric,
            Self::RightSymmetric => Layout::RightSymmetric,
        }
    }
}

/// The members of a chunk and of its row's parity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Row {
    data: u64,
    p: u64,
    q: Option<u64>,
}

/// The parameters of an array with parity.
#[derive(Clone, Debug)]
pub struct Geometry {
    /// Level 6, which has two parities.
    pub six: bool,
    /// Where they are.
    pub layout: Layout,
    /// Bytes of a chunk.
    pub chunk: u64,
    /// Bytes of a member that are used, whole chunks.
    pub used: u64,
}

/// An array with parity; it can only be read.
#[derive(Debug)]
pub struct Parity {
    label: String,
    geometry: Geometry,
    len: u64,
    /// Each as long as what is used of it; at most one is missing.
    members: Vec<Option<Arc<dyn Disk>>>,
}

/// What [`Parity::runs`] calls: the range of the array, its row, and where it begins in every member.
type Run<'a> = dyn FnMut(Range<u64>, Row, u64) -> Result<ControlFlow<()>> + 'a;

impl Parity {
    /// The array of `members`, whose data begins at their first byte.
    ///
    /// # Errors
    /// `raid.degraded` when more than one member is missing, `raid.corrupt` when the numbers do not fit together.
    pub fn new(label: impl Into<String>, geometry: Geometry, members: Vec<Option<Arc<dyn Disk>>>) -> Result<Self> {
        let label = label.into();
        let missing = members.iter().filter(|member| member.is_none()).count();
        if missing > 1 {
            return Err(Error::unsupported("raid.degraded", "an array with parity lacks more than one member")
                .at(label)
                .found(format!("{missing} of {} missing", members.len())));
        }
        let parities = if geometry.six { 2 } else { 1 };
        let wrong = |what: &str| Err(Error::corrupt("raid.corrupt", what).at(&label));
        let data = long(members.len()).saturating_sub(parities);
        if data == 0 || members.len() > limits::MAX_RAID_MEMBERS || (geometry.six && data < 2) {
            return wrong("an array has an impossible number of members");
        }
        if geometry.chunk < 4096 || !geometry.chunk.is_power_of_two() || geometry.chunk > limits::MAX_DISK_LEN {
            return wrong("an array has an impossible chunk size");
        }
        if geometry.used.checked_rem(geometry.chunk) != Some(0)
            || members.iter().flatten().any(|member| member.len() < geometry.used)
        {
            return wrong("a member is shorter than its array");
        }
        let len = geometry.used.checked_mul(data).filter(|len| *len <= limits::MAX_DISK_LEN);
        let len = len.ok_or_else(|| Error::limit("raid.corrupt", "an array is too large").at(&label))?;
        Ok(Self { label, geometry, len, members })
    }

    /// Chunks of data in a row.
    fn width(&self) -> u64 {
        long(self.members.len()).saturating_sub(if self.geometry.six { 2 } else { 1 })
    }

    fn runs(&self, range: Range<u64>, each: &mut Run<'_>) -> Result<()> {
        let (chunk, width) = (self.geometry.chunk, self.width());
        let mut at = range.start;
        while at < range.end {
            let number = at.checked_div(chunk).unwrap_or(0);
            let inside = at.checked_rem(chunk).unwrap_or(0);
            let (row, data) = (number.checked_div(width).unwrap_or(0), number.checked_rem(width).unwrap_or(0));
            let end = range.end.min(at.saturating_add(chunk.saturating_sub(inside)));
            let places = self.geometry.layout.places(long(self.members.len()), self.geometry.six, row, data);
            let start = row.saturating_mul(chunk).saturating_add(inside);
            if each(at..end, places, start)?.is_break() {
                return Ok(());
            }
            at = end;
        }
        Ok(())
    }

    fn member(&self, number: u64) -> Option<&Arc<dyn Disk>> {
        self.members.get(size(number)).and_then(Option::as_ref)
    }

    fn read_run(&self, buf: &mut [u8], row: Row, start: u64) -> Result<()> {
        match self.member(row.data) {
            Some(member) => member.read_at(buf, start),
            None => self.rebuild(buf, row, start),
        }
    }

    /// What the missing member would hold: the sum of all the others but Q.
    fn rebuild(&self, buf: &mut [u8], row: Row, start: u64) -> Result<()> {
        buf.fill(0);
        for (number, member) in (0_u64..).zip(&self.members) {
            if number == row.data || Some(number) == row.q {
                continue;
            }
            let member = member.as_ref().ok_or_else(|| {
                Error::unsupported("raid.degraded", "two members of a row are missing").at(&self.label)
            })?;
            let other = read_vec(&**member, start, buf.len())?;
            buf.iter_mut().zip(other).for_each(|(byte, other)| *byte ^= other);
        }
        Ok(())
    }

    /// How many bytes from `at` on, where a row begins, are zeros since all members have none, in whole rows.
    fn empty_rows(&self, at: u64, end: u64) -> Result<u64> {
        let chunk = self.geometry.chunk;
        let row = chunk.saturating_mul(self.width());
        let rows = end.saturating_sub(at).checked_div(row).unwrap_or(0);
        if at.checked_rem(row) != Some(0) || rows < 2 {
            return Ok(0);
        }
        let from = at.checked_div(self.width()).unwrap_or(0);
        let mut empty = rows.saturating_mul(chunk);
        for member in self.members.iter().flatten() {
            let mut zeros = 0;
            member.extents(from..from.saturating_add(empty), &mut |extent| {
                if extent.kind.is_zero() {
                    zeros = extent.range.end.saturating_sub(from);
                    return ControlFlow::Continue(());
                }
                ControlFlow::Break(())
            })?;
            empty = empty.min(zeros);
        }
        Ok(empty.checked_div(chunk).unwrap_or(0).saturating_mul(row))
    }
}

impl Disk for Parity {
    fn len(&self) -> u64 {
        self.len
    }

    fn sector_size(&self) -> SectorSize {
        let large = self.members.iter().flatten().any(|member| member.sector_size() == SectorSize::B4096);
        if large { SectorSize::B4096 } else { SectorSize::B512 }
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let end = offset.saturating_add(long(buf.len()));
        let mut rest = buf;
        self.runs(offset..end, &mut |range, row, start| {
            let len = size(range.end.saturating_sub(range.start));
            if let Some((head, tail)) = std::mem::take(&mut rest).split_at_mut_checked(len) {
                rest = tail;
                self.read_run(head, row, start)?;
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    fn extents(&self, range: Range<u64>, visit: &mut Visit<'_>) -> Result<()> {
        let mut at = range.start;
        while at < range.end {
            let empty = self.empty_rows(at, range.end)?;
            let mut flow = ControlFlow::Continue(());
            if empty > 0 {
                let hole = at..at.saturating_add(empty);
                at = hole.end;
                flow = visit(Extent { range: hole, kind: ExtentKind::Hole, depth: 0, place: None });
            } else {
                // One row, or what is left of it, before the next look for empty ones.
                let row = self.geometry.chunk.saturating_mul(self.width());
                let end = at.saturating_sub(at.checked_rem(row).unwrap_or(0)).saturating_add(row).min(range.end);
                self.runs(at..end, &mut |run, row, start| {
                    let Some(member) = self.member(row.data) else {
                        flow = visit(Extent { range: run, kind: ExtentKind::Data, depth: 0, place: None });
                        return Ok(flow);
                    };
                    let len = run.end.saturating_sub(run.start);
                    member.extents(start..start.saturating_add(len), &mut |extent| {
                        let shift = |there: u64| there.saturating_sub(start).saturating_add(run.start);
                        flow = visit(Extent { range: shift(extent.range.start)..shift(extent.range.end), ..extent });
                        flow
                    })?;
                    Ok(flow)
                })?;
                at = end;
            }
            if flow.is_break() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn host(&self, range: Range<u64>) -> Result<Option<HostRange>> {
        let mut found = None;
        self.runs(range, &mut |run, row, start| {
            if let Some(member) = self.member(row.data) {
                let len = run.end.saturating_sub(run.start);
                found = member.host(start..start.saturating_add(len))?;
            }
            Ok(ControlFlow::Break(()))
        })?;
        Ok(found)
    }

    fn prefetch(&self, range: Range<u64>) {
        let _ = self.runs(range, &mut |run, row, start| {
            let len = run.end.saturating_sub(run.start);
            if let Some(member) = self.member(row.data) {
                member.prefetch(start..start.saturating_add(len));
            }
            Ok(ControlFlow::Continue(()))
        });
    }

    fn hints(&self) -> Hints {
        let hints = self.members.iter().flatten().map(|member| member.hints());
        hints.max_by_key(|hints| (hints.latency, hints.preferred)).unwrap_or_default()
    }

    fn fingerprint(&self) -> Result<Fingerprint> {
        let below = Fingerprint::of_disks(self.members.iter().flatten())?;
        Ok(Fingerprint::of(&[&below.0, format!("{:?}", self.geometry).as_bytes()]))
    }

    fn describe(&self) -> (&'static str, String) {
        ("parity", self.label.clone())
    }

    fn below(&self) -> Vec<Arc<dyn Disk>> {
        self.members.iter().flatten().map(Arc::clone).collect()
    }
}

#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::indexing_slicing,
    reason = "tests build their input"
)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::disk::{Checked, Memory, Zero, collect_extents};

    const CHUNK: u64 = 4096;

    fn all() -> Vec<(bool, Layout, u64)> {
        let numbers = [(4, 0..1), (5, 0..6), (6, 0..6), (6, 8..11), (6, 16..21)];
        let layouts = numbers
            .into_iter()
            .flat_map(|(level, range)| range.map(move |number| (level == 6, Layout::numbered(level, number).unwrap())));
        layouts.flat_map(|(six, layout)| (4..7).map(move |members| (six, layout, members))).collect()
    }

    #[test]
    fn every_row_uses_every_member_once() {
        for (six, layout, members) in all() {
            let width = members - if six { 2 } else { 1 };
            for row in 0..20 {
                let mut seen: Vec<u64> = (0..width).map(|data| layout.places(members, six, row, data).data).collect();
                let any = layout.places(members, six, row, 0);
                seen.push(any.p);
                seen.extend(any.q);
                seen.sort_unstable();
                assert_eq!(seen, (0..members).collect::<Vec<_>>(), "{layout:?} of {members}, row {row}");
            }
        }
        assert_eq!(Layout::numbered(5, 8), None);
        assert_eq!(Layout::numbered(6, 11), None);
        assert_eq!(Layout::numbered(7, 0), None);
    }

    /// Members whose rows add up to nothing (Q is arbitrary, since it is never used).
    fn members(six: bool, layout: Layout, count: u64, rows: u64) -> (Vec<Vec<u8>>, Vec<u8>) {
        let mut members = vec![vec![0xee; (rows * CHUNK) as usize]; count as usize];
        let mut flat = Vec::new();
        let width = count - if six { 2 } else { 1 };
        for row in 0..rows {
            let at = (row * CHUNK) as usize..((row + 1) * CHUNK) as usize;
            let mut parity = vec![0; CHUNK as usize];
            for data in 0..width {
                let chunk: Vec<u8> = (0..CHUNK).map(|i| (i * 31 + row * 7 + data * 101) as u8).collect();
                parity.iter_mut().zip(&chunk).for_each(|(sum, byte)| *sum ^= byte);
                members[layout.places(count, six, row, data).data as usize][at.clone()].copy_from_slice(&chunk);
                flat.extend(chunk);
            }
            members[layout.places(count, six, row, 0).p as usize][at].copy_from_slice(&parity);
        }
        (members, flat)
    }

    proptest! {
        #[test]
        fn any_one_member_may_be_missing(pick in 0_usize..60, lost in 0_usize..8, start in 0_u64..100_000, len in 0_u64..100_000) {
            let all = all();
            let (six, layout, count) = all[pick % all.len()];
            let (bytes, flat) = members(six, layout, count, 7);
            let mut disks: Vec<Option<Arc<dyn Disk>>> =
                bytes.into_iter().map(|bytes| Some(Checked::wrap(Memory::new(bytes)) as Arc<dyn Disk>)).collect();
            if let Some(lost) = disks.get_mut(lost) {
                *lost = None;
            }
            let geometry = Geometry { six, layout, chunk: CHUNK, used: 7 * CHUNK };
            let array = Checked::wrap(Parity::new("x", geometry, disks).unwrap());
            prop_assert_eq!(array.len(), flat.len() as u64);
            let (start, end) = (start.min(array.len()), (start + len).min(array.len()));
            let mut buf = vec![0; (end - start) as usize];
            array.read_at(&mut buf, start).unwrap();
            prop_assert_eq!(&buf, &flat[start as usize..end as usize]);
            collect_extents(&*array, start..end).unwrap();
            let mut homes = 0;
            array.homes(start..end, &mut |_, _| homes += 1);
            prop_assert_eq!(homes, 0);
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let disk = |len| Some(Checked::wrap(Zero { len }) as Arc<dyn Disk>);
        let code = |geometry, members| Parity::new("x", geometry, members).unwrap_err().code();
        let good = Geometry { six: false, layout: Layout::LeftSymmetric, chunk: 4096, used: 8192 };
        assert!(Parity::new("x", good.clone(), vec![disk(8192), None, disk(8192)]).is_ok());
        assert_eq!(code(good.clone(), vec![disk(8192), None, None]), "raid.degraded");
        assert_eq!(code(good.clone(), vec![disk(8192), disk(8191), None]), "raid.corrupt");
        assert_eq!(code(good.clone(), vec![disk(8192)]), "raid.corrupt");
        assert_eq!(
            code(Geometry { six: true, ..good.clone() }, vec![disk(8192), disk(8192), disk(8192)]),
            "raid.corrupt"
        );
        assert_eq!(code(Geometry { chunk: 0, ..good.clone() }, vec![disk(8192), disk(8192)]), "raid.corrupt");
        assert_eq!(code(Geometry { chunk: 12288, ..good.clone() }, vec![disk(8192), disk(8192)]), "raid.corrupt");
        assert_eq!(code(Geometry { used: 4097, ..good.clone() }, vec![disk(8192), disk(8192)]), "raid.corrupt");
        assert_eq!(code(good.clone(), (0..=limits::MAX_RAID_MEMBERS).map(|_| disk(8192)).collect()), "raid.corrupt");
        assert!(Parity::new("x", good.clone(), (0..limits::MAX_RAID_MEMBERS).map(|_| disk(8192)).collect()).is_ok());
        let huge = Geometry { used: 60 << 50, ..good };
        assert_eq!(code(huge, (0..3).map(|_| disk(60 << 50)).collect()), "raid.corrupt");
    }

    #[test]
    fn petabytes_of_nothing_are_one_extent() {
        let disks = (0..4).map(|_| Some(Checked::wrap(Zero { len: 1 << 50 }) as Arc<dyn Disk>)).collect();
        let geometry = Geometry { six: false, layout: Layout::RightAsymmetric, chunk: 4096, used: 1 << 50 };
        let array = Checked::wrap(Parity::new("x", geometry, disks).unwrap());
        assert_eq!(collect_extents(&*array, 0..array.len()).unwrap().len(), 1);
        assert!(collect_extents(&*array, 5..array.len() - 5).unwrap().len() < 20);
    }
}
