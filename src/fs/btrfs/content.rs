//! What files hold: holes, inline bytes, and data whose checksums are verified, from whichever copy is right.

use std::collections::VecDeque;
use std::ops::{ControlFlow, Range};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::dir::Target;
use super::extent::{self, Body, Compression, Data, Extent};
use super::inode::NODATASUM;
use super::key::{Key, id, kind};
use super::tree::Tree;
use super::{Core, corrupt, not_a, wrong_sum};
use crate::disk::bytes::{long, size};
use crate::error::{Error, Result};
use crate::fs::FileKind;
use crate::fs::parts::Parts;
use crate::limits;

/// Extents that were decoded last.
#[derive(Debug, Default)]
pub(super) struct Decoded(Mutex<VecDeque<(Unit, Arc<Vec<u8>>)>>);

impl Decoded {
    fn lock(&self) -> MutexGuard<'_, VecDeque<(Unit, Arc<Vec<u8>>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, unit: Unit) -> Option<Arc<Vec<u8>>> {
        self.lock().iter().find(|(known, _)| *known == unit).map(|(_, bytes)| Arc::clone(bytes))
    }

    fn keep(&self, unit: Unit, bytes: &Arc<Vec<u8>>) {
        let mut kept = self.lock();
        kept.push_front((unit, Arc::clone(bytes)));
        kept.truncate(limits::BTRFS_DECODED);
    }
}

/// What tells one compressed extent from another.
type Unit = (u64, u64, Compression);

/// Bytes that are read and verified at once.
const STEP: u64 = 1 << 20;

impl Core {
    /// Fills `buf` from a regular file, up to its end. How much that was.
    pub(super) fn read_file(&self, file: Target, buf: &mut [u8], offset: u64) -> Result<usize> {
        let item = self.inode(file)?;
        if file.is_stub || item.kind() != Some(FileKind::Regular) {
            return Err(not_a(file.inode, "a regular file"));
        }
        let len = buf.len().min(size(item.size().saturating_sub(offset)));
        let buf = buf.get_mut(..len).unwrap_or_default();
        buf.fill(0);
        if !buf.is_empty() {
            self.fill(file, buf, offset, item.flags() & NODATASUM == 0)?;
        }
        Ok(len)
    }

    /// Adds to `parts` what is no hole.
    pub(super) fn data(&self, file: Target, parts: &mut Parts<'_>) -> Result<ControlFlow<()>> {
        let tree = &self.volume(file.volume)?.tree;
        let wanted = parts.rest(0);
        let (mut done, mut flow) = (0, ControlFlow::Continue(()));
        self.scan_extents(tree, file, wanted.start, &mut |extent| {
            if extent.start >= wanted.end {
                return Ok(ControlFlow::Break(()));
            }
            if extent.start < done {
                return Err(corrupt(format!("two extents of inode {} overlap", file.inode)).found(extent.start));
            }
            done = extent.end();
            if !matches!(extent.body, Body::Hole | Body::Prealloc(_)) {
                flow = parts.add(extent.start..done);
            }
            Ok(flow)
        })?;
        Ok(flow)
    }

    /// Visits a file's extents from the one on that byte `from` lies in.
    fn scan_extents(
        &self,
        tree: &Tree,
        file: Target,
        from: u64,
        visit: &mut dyn FnMut(Extent<'_>) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let before = self.store.floor(tree, Key::new(file.inode, kind::EXTENT_DATA, from))?;
        let from = before.filter(|(key, _)| key.is(file.inode, kind::EXTENT_DATA)).map_or(from, |(key, _)| key.offset);
        self.store.scan_kind(tree, (file.inode, kind::EXTENT_DATA, from), &mut |start, item| {
            visit(Extent::parse(start, item, self.store.sb.sectorsize)?)
        })
    }

    /// Fills `buf`, which is zeros, with what the extents from `offset` on hold.
    fn fill(&self, file: Target, buf: &mut [u8], offset: u64, verified: bool) -> Result<()> {
        let tree = &self.volume(file.volume)?.tree;
        let wanted = offset..offset.saturating_add(long(buf.len()));
        let mut done = 0;
        self.scan_extents(tree, file, offset, &mut |extent| {
            let start = extent.start;
            if start >= wanted.end {
                return Ok(ControlFlow::Break(()));
            }
            if start < done {
                return Err(corrupt(format!("two extents of inode {} overlap", file.inode)).found(start));
            }
            done = extent.end();
            let common = start.max(wanted.start)..done.min(wanted.end);
            if common.start < common.end {
                let at = size(common.start.saturating_sub(wanted.start))..size(common.end.saturating_sub(wanted.start));
                let part = buf.get_mut(at).unwrap_or_default();
                self.read_extent(&extent, common.start.saturating_sub(start), part, verified)?;
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    /// Fills `buf` from `skip` bytes into the extent.
    fn read_extent(&self, extent: &Extent<'_>, skip: u64, buf: &mut [u8], verified: bool) -> Result<()> {
        match &extent.body {
            Body::Hole | Body::Prealloc(_) => Ok(()),
            Body::Inline { bytes, compression: None, .. } => copy(bytes, skip, buf),
            Body::Inline { bytes, compression: Some(compression), decoded } => {
                copy(&extent::decode(*compression, bytes, *decoded, self.store.sb.sectorsize)?, skip, buf)
            }
            Body::Regular(data) => {
                let from = data.offset.saturating_add(skip);
                match data.compression {
                    None => self.read_data(data.bytenr.saturating_add(from), buf, verified),
                    Some(compression) => copy(&self.decoded(data, compression, verified)?, from, buf),
                }
            }
        }
    }

    /// All of a compressed extent, decoded.
    fn decoded(&self, data: &Data, compression: Compression, verified: bool) -> Result<Arc<Vec<u8>>> {
        let unit = (data.bytenr, data.ram_bytes, compression);
        if let Some(bytes) = self.decoded.find(unit) {
            return Ok(bytes);
        }
        // The item bounds both lengths.
        let mut input = vec![0; size(data.disk_len)];
        self.read_data(data.bytenr, &mut input, verified)?;
        let bytes = extent::decode(compression, &input, data.ram_bytes, self.store.sb.sectorsize);
        let bytes = Arc::new(bytes.map_err(|error| error.offset(data.bytenr))?);
        self.decoded.keep(unit, &bytes);
        Ok(bytes)
    }

    /// Fills `buf` from the data at `logical`.
    fn read_data(&self, logical: u64, buf: &mut [u8], verified: bool) -> Result<()> {
        if !verified {
            return self.read_any(logical, buf);
        }
        let sector = u64::from(self.store.sb.sectorsize);
        let mut done = 0_usize;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let at = logical.saturating_add(long(done));
            let skip = at.checked_rem(sector).unwrap_or(0);
            let take = long(rest.len()).min(STEP.saturating_sub(skip));
            let whole = skip.saturating_add(take).checked_next_multiple_of(sector).unwrap_or(STEP);
            let part = rest.get_mut(..size(take)).unwrap_or_default();
            if skip == 0 && whole == take {
                self.read_verified(at, part)?;
            } else {
                let mut sectors = vec![0; size(whole)];
                self.read_verified(at.saturating_sub(skip), &mut sectors)?;
                copy(&sectors, skip, part)?;
            }
            done = done.saturating_add(part.len());
        }
        Ok(())
    }

    /// Fills `buf` from the first copy that can be read.
    fn read_any(&self, logical: u64, buf: &mut [u8]) -> Result<()> {
        let mut worst = None;
        for copy in self.store.devices.order(&self.store.chunks, logical, long(buf.len()))? {
            match self.store.devices.read(&self.store.chunks, buf, logical, copy) {
                Ok(()) => return Ok(()),
                Err(error) => drop(worst.get_or_insert(error)),
            }
        }
        Err(worst.unwrap_or_else(|| corrupt("data without a copy").offset(logical)))
    }

    /// Fills whole sectors, each from the first copy whose checksum is right.
    fn read_verified(&self, logical: u64, buf: &mut [u8]) -> Result<()> {
        let sector = size(u64::from(self.store.sb.sectorsize));
        let sums = self.sums(logical..logical.saturating_add(long(buf.len())))?;
        let checksum = self.store.sb.checksum;
        let is_right =
            |sum: &Option<Vec<u8>>, bytes: &[u8]| sum.as_ref().is_some_and(|sum| checksum.matches(sum, bytes));
        let order = self.store.devices.order(&self.store.chunks, logical, long(buf.len()))?;
        let first = order.first().copied().unwrap_or(0);
        let read = self.store.devices.read(&self.store.chunks, buf, logical, first);
        let mut at = logical;
        for (sum, bytes) in sums.iter().zip(buf.chunks_mut(sector)) {
            if sum.is_none() {
                return Err(Error::corrupt("btrfs.checksum", "data of a file has no checksum").offset(at));
            }
            if read.is_err() || !is_right(sum, bytes) {
                let others = order.iter().skip(usize::from(read.is_ok()));
                let mut found = false;
                let mut cause = None;
                for copy in others {
                    match self.store.devices.read(&self.store.chunks, bytes, at, *copy) {
                        Ok(()) if is_right(sum, bytes) => {
                            found = true;
                            break;
                        }
                        Ok(()) => {}
                        Err(error) => cause = Some(error),
                    }
                }
                if !found {
                    return Err(cause.filter(|_| read.is_err()).unwrap_or_else(|| wrong_sum("data of a file", at)));
                }
            }
            at = at.saturating_add(long(sector));
        }
        Ok(())
    }

    /// The checksum of each sector of `range`, where there is one.
    fn sums(&self, range: Range<u64>) -> Result<Vec<Option<Vec<u8>>>> {
        let (sector, len) = (u64::from(self.store.sb.sectorsize), self.store.sb.checksum.len());
        let slot = |at: u64| size(at.saturating_sub(range.start).checked_div(sector).unwrap_or(0));
        let mut sums = vec![None; slot(range.end)];
        for (at, sum) in self.logged_sums.range(range.clone()) {
            sums.get_mut(slot(*at)).into_iter().for_each(|slot| *slot = Some(sum.clone()));
        }
        let Some(tree) = self.sum_tree.as_ref().filter(|_| sums.iter().any(Option::is_none)) else { return Ok(sums) };
        let key = Key::new(id::EXTENT_CSUM, kind::EXTENT_CSUM, range.start);
        let before = self.store.floor(tree, key)?;
        let from =
            before.filter(|(found, _)| found.is(key.objectid, key.kind)).map_or(range.start, |(key, _)| key.offset);
        self.store.scan_kind(tree, (key.objectid, key.kind, from), &mut |start, item| {
            if start >= range.end {
                return Ok(ControlFlow::Break(()));
            }
            let skipped = range.start.saturating_sub(start).checked_div(sector).unwrap_or(0);
            let mut at = start.saturating_add(skipped.saturating_mul(sector));
            for sum in item.chunks_exact(len).skip(size(skipped)) {
                if at >= range.end {
                    break;
                }
                if let Some(slot) = sums.get_mut(slot(at)) {
                    slot.get_or_insert_with(|| sum.to_vec());
                }
                at = at.saturating_add(sector);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(sums)
    }

    /// A symbolic link's target.
    pub(super) fn target_text(&self, link: Target) -> Result<Vec<u8>> {
        let item = self.inode(link)?;
        if link.is_stub || item.kind() != Some(FileKind::Symlink) {
            return Err(not_a(link.inode, "a symbolic link"));
        }
        let len = size(item.size());
        if len > limits::MAX_GUEST_PATH {
            return Err(corrupt(format!("the target of inode {} is too long", link.inode)).found(len));
        }
        let mut target = vec![0; len];
        if len > 0 {
            self.fill(link, &mut target, 0, item.flags() & NODATASUM == 0)?;
        }
        Ok(target)
    }
}

/// Copies what `from` holds at `skip`; beyond its end are zeros.
fn copy(from: &[u8], skip: u64, to: &mut [u8]) -> Result<()> {
    let from = from.get(size(skip)..).ok_or_else(|| corrupt("an extent is shorter than it says"))?;
    let len = from.len().min(to.len());
    let (filled, rest) = to.split_at_mut_checked(len).unwrap_or_default();
    filled.copy_from_slice(from.get(..len).unwrap_or_default());
    rest.fill(0);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_extents_are_kept_decoded_as_the_limit() {
        let decoded = Decoded::default();
        let most = long(limits::BTRFS_DECODED);
        for bytenr in 0..=most {
            decoded.keep((bytenr, 4096, Compression::Zlib), &Arc::new(vec![1]));
            assert_eq!(long(decoded.lock().len()), most.min(bytenr.saturating_add(1)));
        }
        let is_kept = |bytenr| decoded.find((bytenr, 4096, Compression::Zlib)).is_some();
        assert!(!is_kept(0) && is_kept(1) && is_kept(most));
    }
}
