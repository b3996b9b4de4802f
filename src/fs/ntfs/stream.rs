//! The bytes of an attribute: in the record, in runs of clusters, compressed.

use std::ops::ControlFlow;
use std::sync::{Arc, PoisonError};

use super::record::refuse_flags;
use super::runs::Run;
use super::{Ntfs, corrupt, feature, lznt1};
use crate::disk::bytes::{long, size};
use crate::error::Result;
use crate::fs::parts::Parts;
use crate::limits;

/// An attribute as a sequence of bytes.
#[derive(Clone, Debug)]
pub(super) enum Stream {
    Resident(Vec<u8>),
    Mapped(Mapped),
}

/// An attribute that lies in clusters.
#[derive(Clone, Debug)]
pub(super) struct Mapped {
    pub(super) runs: Vec<Run>,
    /// Log2 of the clusters that are compressed together.
    pub(super) unit: u8,
    pub(super) len: u64,
    /// Bytes that were ever written; what follows reads as zeros.
    pub(super) valid: u64,
    pub(super) flags: u16,
}

impl Stream {
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Resident(value) => long(value.len()),
            Self::Mapped(mapped) => mapped.len,
        }
    }
}

impl Mapped {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    fn is_compressed(&self) -> bool {
        self.flags & 1 != 0
    }

    /// The cluster `vcn`, where it lies, and how many follow in one piece.
    fn at(&self, vcn: u64) -> Option<(Option<u64>, u64)> {
        let after = self.runs.partition_point(|run| run.vcn <= vcn);
        let run = self.runs.get(after.checked_sub(1)?)?;
        let within = vcn.checked_sub(run.vcn).filter(|within| *within < run.len)?;
        Some((run.lcn.map(|lcn| lcn.saturating_add(within)), run.len.saturating_sub(within)))
    }

    /// Adds to `parts` what is no hole, in clusters or, of a compressed attribute, units.
    pub(super) fn data(&self, cluster: u64, parts: &mut Parts<'_>) -> ControlFlow<()> {
        let clusters = if self.is_compressed() { 1_u64.checked_shl(u32::from(self.unit)).unwrap_or(1) } else { 1 };
        let step = clusters.saturating_mul(cluster).max(1);
        let mut done = 0;
        for run in self.runs.iter().filter(|run| run.lcn.is_some()) {
            let (start, end) =
                (run.vcn.saturating_mul(cluster), run.vcn.saturating_add(run.len).saturating_mul(cluster));
            let start = start.checked_div(step).unwrap_or(0).saturating_mul(step).max(done);
            done = end.checked_next_multiple_of(step).unwrap_or(u64::MAX);
            // What was never written reads as zeros.
            parts.add(start..done.min(self.valid))?;
        }
        ControlFlow::Continue(())
    }

    /// Bytes that are allocated, holes left out.
    pub(super) fn used(&self, cluster: u64) -> u64 {
        let clusters = self.runs.iter().filter(|run| run.lcn.is_some()).map(|run| run.len);
        clusters.fold(0, u64::saturating_add).saturating_mul(cluster)
    }
}

impl Ntfs {
    /// Fills `buf` from `offset` of a stream that reaches that far.
    pub(super) fn read_stream(&self, stream: &Stream, buf: &mut [u8], offset: u64) -> Result<()> {
        match stream {
            Stream::Resident(value) => {
                let bytes = value.get(size(offset)..).and_then(|rest| rest.get(..buf.len()));
                buf.copy_from_slice(bytes.ok_or_else(|| corrupt("an attribute is too short"))?);
                Ok(())
            }
            Stream::Mapped(mapped) => {
                refuse_flags(mapped.flags)?;
                let end = offset.saturating_add(long(buf.len()));
                let written = size(mapped.valid.saturating_sub(offset)).min(buf.len());
                let (head, tail) = buf.split_at_mut_checked(written).unwrap_or_default();
                tail.fill(0);
                if end > mapped.len {
                    return Err(corrupt("an attribute is too short").found(mapped.len));
                }
                if mapped.is_compressed() {
                    self.read_units(mapped, head, offset)
                } else {
                    self.read_mapped(mapped, head, offset)
                }
            }
        }
    }

    /// Fills `buf` from `offset` of the clusters, as they are.
    pub(super) fn read_mapped(&self, mapped: &Mapped, buf: &mut [u8], offset: u64) -> Result<()> {
        let cluster = self.boot.cluster;
        let mut done = 0_usize;
        while done < buf.len() {
            let at = offset.saturating_add(long(done));
            let (lcn, len) = mapped.at(at / cluster).ok_or_else(|| corrupt("an attribute has too few clusters"))?;
            let room = len.saturating_mul(cluster.get()).saturating_sub(at % cluster);
            let end = done.saturating_add(size(room)).min(buf.len());
            let piece = buf.get_mut(done..end).unwrap_or_default();
            match lcn {
                Some(lcn) => {
                    self.pages.content(piece, lcn.saturating_mul(cluster.get()).saturating_add(at % cluster))?;
                }
                None => piece.fill(0),
            }
            done = end;
        }
        Ok(())
    }

    /// Fills `buf` from `offset` of a compressed attribute.
    fn read_units(&self, mapped: &Mapped, buf: &mut [u8], offset: u64) -> Result<()> {
        let clusters = 1_u64.checked_shl(u32::from(mapped.unit)).unwrap_or(0);
        let unit = clusters.saturating_mul(self.boot.cluster.get());
        if !(1..=limits::MAX_NTFS_UNIT).contains(&unit) {
            return Err(feature("a file is compressed in units that are too large").found(unit));
        }
        let mut done = 0_usize;
        while done < buf.len() {
            let at = offset.saturating_add(long(done));
            let number = at.checked_div(unit).unwrap_or(0);
            let within = size(at.saturating_sub(number.saturating_mul(unit)));
            let bytes = self.unit(mapped, number.saturating_mul(clusters), clusters)?;
            let piece = bytes.get(within..).unwrap_or_default();
            let len = piece.len().min(buf.len().saturating_sub(done)).max(1);
            let end = done.saturating_add(len);
            if let (Some(to), Some(from)) = (buf.get_mut(done..end), piece.get(..len)) {
                to.copy_from_slice(from);
            }
            done = end;
        }
        Ok(())
    }

    /// The unit of `clusters` that begins at cluster `vcn`, decoded.
    fn unit(&self, mapped: &Mapped, vcn: u64, clusters: u64) -> Result<Arc<Vec<u8>>> {
        let cluster = self.boot.cluster.get();
        let mut stored = 0_u64;
        let mut first = None;
        while stored < clusters {
            match mapped.at(vcn.saturating_add(stored)) {
                Some((Some(lcn), len)) => {
                    first = first.or(Some(lcn));
                    stored = stored.saturating_add(len).min(clusters);
                }
                // The rest is a hole, or the file ends.
                Some((None, _)) | None => break,
            }
        }
        let mut out = vec![0; size(clusters.saturating_mul(cluster))];
        let Some(first) = first else { return Ok(Arc::new(out)) };
        if stored == clusters {
            self.read_mapped(mapped, &mut out, vcn.saturating_mul(cluster))?;
            return Ok(Arc::new(out));
        }
        let mut kept = self.unit.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((place, bytes)) = &*kept
            && *place == first
        {
            return Ok(Arc::clone(bytes));
        }
        let mut input = vec![0; size(stored.saturating_mul(cluster))];
        self.read_mapped(mapped, &mut input, vcn.saturating_mul(cluster))?;
        lznt1::decode(&input, &mut out).ok_or_else(|| corrupt("a compressed file is damaged"))?;
        let out = Arc::new(out);
        *kept = Some((first, Arc::clone(&out)));
        Ok(out)
    }
}
