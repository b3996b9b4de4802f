//! A disk as an NBD export.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use hyper2kvm_nbd::{Allocation, Errno, Export};

use crate::disk::{Disk, ExtentKind, Latency};

/// The flattened disk behind NBD's own trait.
#[derive(Clone, Debug)]
pub struct DiskExport(pub Arc<dyn Disk>);

impl Export for DiskExport {
    fn size(&self) -> u64 {
        self.0.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), hyper2kvm_nbd::Error> {
        self.0.read_at(buf, offset).map_err(|error| told(&error))
    }

    fn extents(&self, range: Range<u64>, visit: &mut hyper2kvm_nbd::Visit<'_>) -> Result<(), hyper2kvm_nbd::Error> {
        let walked = self.0.extents(range, &mut |extent| {
            let length = extent.range.end.saturating_sub(extent.range.start);
            let kind = match extent.kind {
                ExtentKind::Data => Allocation::Data,
                ExtentKind::Zero => Allocation::Zero,
                ExtentKind::Hole => Allocation::Hole,
            };
            visit(hyper2kvm_nbd::Extent { length, kind })
        });
        walked.map_err(|error| told(&error))
    }

    fn prefetch(&self, range: Range<u64>) {
        self.0.prefetch(range);
    }

    fn is_quick(&self, _range: Range<u64>) -> bool {
        self.0.hints().latency < Latency::Remote
    }

    fn preferred_block(&self) -> u32 {
        self.0.hints().preferred
    }

    fn description(&self) -> String {
        let (kind, label) = self.0.describe();
        format!("{kind} {label}")
    }
}

/// The client learns the code; the message, which may name paths of this host, goes to the log.
fn told(error: &crate::error::Error) -> hyper2kvm_nbd::Error {
    tracing::warn!(%error, code = error.code(), "a read for an NBD client failed");
    hyper2kvm_nbd::Error::new(Errno::Io, error.code())
}

/// A disk as a file in a FUSE mount.
#[derive(Clone, Debug)]
pub struct DiskFile(pub Arc<dyn Disk>);

impl hyper2kvm_fuse::File for DiskFile {
    fn len(&self) -> u64 {
        self.0.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), hyper2kvm_fuse::Failure> {
        self.0.read_at(buf, offset).map_err(|error| failure(&error))
    }

    fn next_data(&self, offset: u64) -> Result<Option<u64>, hyper2kvm_fuse::Failure> {
        self.next(offset, |kind| !kind.is_zero())
    }

    fn next_hole(&self, offset: u64) -> Result<u64, hyper2kvm_fuse::Failure> {
        Ok(self.next(offset, ExtentKind::is_zero)?.unwrap_or(self.0.len()))
    }
}

impl DiskFile {
    /// The first offset at or behind `offset` whose extent is wanted.
    fn next(&self, offset: u64, wanted: impl Fn(ExtentKind) -> bool) -> Result<Option<u64>, hyper2kvm_fuse::Failure> {
        let mut found = None;
        let walked = self.0.extents(offset..self.0.len(), &mut |extent| {
            if wanted(extent.kind) {
                found = Some(extent.range.start);
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        });
        walked.map_err(|error| failure(&error))?;
        Ok(found)
    }
}

fn failure(error: &crate::error::Error) -> hyper2kvm_fuse::Failure {
    tracing::warn!(%error, code = error.code(), "a read for a mount failed");
    hyper2kvm_fuse::Failure::Io
}

/// Bytes of a disk that hold data, from its map.
pub fn data_bytes(disk: &dyn Disk) -> crate::error::Result<u64> {
    let mut bytes = 0_u64;
    disk.extents(0..disk.len(), &mut |extent| {
        if !extent.kind.is_zero() {
            bytes = bytes.saturating_add(extent.range.end.saturating_sub(extent.range.start));
        }
        ControlFlow::Continue(())
    })?;
    Ok(bytes)
}
