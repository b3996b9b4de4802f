//! Disks as NBD exports and as files of a mount.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use hyper2kvm_fuse::{Failure, File};
use hyper2kvm_nbd::{Allocation, Combine, Context, Errno, Export, Status, Zero};

use super::device::View;
use crate::disk::{Disk, DiskMut, ExtentKind, Latency};
use crate::error::{Error, Kind};

/// A device behind NBD's own trait.
///
/// Meta contexts: `qemu:allocation-depth` with the layer that the bytes come from, counted from 1, or 0 where none has any; and
/// `qemu:dirty-bitmap:NAME` for each bitmap that the image keeps, with bit 0 for what was written.
#[derive(Clone, Debug)]
pub struct DiskExport {
    view: View,
    description: String,
    /// Names of the bitmaps that can be believed, with their numbers in the image.
    bitmaps: Vec<(usize, String)>,
}

impl DiskExport {
    /// An export of `view`; listings show `description`.
    #[must_use]
    pub fn new(view: View, description: String) -> Self {
        let bitmaps = view.bitmaps().iter().enumerate().filter(|(_, bitmap)| !bitmap.in_use);
        let bitmaps = bitmaps.map(|(index, bitmap)| (index, bitmap.name.clone())).take(MAX_BITMAPS).collect();
        Self { view, description, bitmaps }
    }

    fn writer(&self) -> Result<&Arc<dyn DiskMut>, hyper2kvm_nbd::Error> {
        self.view.writer.as_ref().ok_or_else(|| hyper2kvm_nbd::Error::new(Errno::Perm, "the export is read-only"))
    }

    fn depths(
        &self,
        range: Range<u64>,
        visit: &mut hyper2kvm_nbd::VisitStatus<'_>,
    ) -> Result<(), hyper2kvm_nbd::Error> {
        let walked = self.view.disk.extents(range, &mut |extent| {
            let flags = if extent.kind == ExtentKind::Hole { 0 } else { u64::from(extent.depth).saturating_add(1) };
            visit(Status { length: extent.range.end.saturating_sub(extent.range.start), flags })
        });
        walked.map_err(|error| told(&error))
    }

    fn dirty(
        &self,
        bitmap: usize,
        range: &Range<u64>,
        visit: &mut hyper2kvm_nbd::VisitStatus<'_>,
    ) -> Result<(), hyper2kvm_nbd::Error> {
        let mut at = range.start;
        let walked = self.view.dirty(bitmap, range, &mut |dirty| {
            let clean = dirty.start.saturating_sub(at);
            at = dirty.end;
            if clean > 0 {
                visit(Status { length: clean, flags: 0 })?;
            }
            visit(Status { length: dirty.end.saturating_sub(dirty.start), flags: DIRTY })
        });
        walked.map_err(|error| told(&error))
    }
}

/// Bit 0 of `qemu:dirty-bitmap`.
const DIRTY: u64 = 1;

/// Bitmaps that an export shows: the protocol's own bound, less the context for the depth.
const MAX_BITMAPS: usize = hyper2kvm_nbd::limits::MAX_CONTEXTS - 1;

impl Export for DiskExport {
    fn size(&self) -> u64 {
        self.view.disk.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), hyper2kvm_nbd::Error> {
        self.view.disk.read_at(buf, offset).map_err(|error| told(&error))
    }

    fn extents(&self, range: Range<u64>, visit: &mut hyper2kvm_nbd::Visit<'_>) -> Result<(), hyper2kvm_nbd::Error> {
        let walked = self.view.disk.extents(range, &mut |extent| {
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
        self.view.disk.prefetch(range);
    }

    fn is_quick(&self, _range: Range<u64>) -> bool {
        self.view.disk.hints().latency < Latency::Remote
    }

    fn preferred_block(&self) -> u32 {
        self.view.disk.hints().preferred
    }

    fn description(&self) -> String {
        self.description.clone()
    }

    fn is_writable(&self) -> bool {
        self.view.writer.is_some()
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<(), hyper2kvm_nbd::Error> {
        self.writer()?.write_at(buf, offset).map_err(|error| told(&error))
    }

    fn zero(&self, range: Range<u64>, _how: Zero) -> Result<(), hyper2kvm_nbd::Error> {
        self.writer()?.zero(range).map_err(|error| told(&error))
    }

    fn can_trim(&self) -> bool {
        self.is_writable()
    }

    fn trim(&self, range: Range<u64>) -> Result<(), hyper2kvm_nbd::Error> {
        self.writer()?.zero(range).map_err(|error| told(&error))
    }

    fn flush(&self) -> Result<(), hyper2kvm_nbd::Error> {
        match &self.view.writer {
            Some(writer) => writer.flush().map_err(|error| told(&error)),
            None => Ok(()),
        }
    }

    fn contexts(&self) -> Vec<Context> {
        let depth = Context { name: "qemu:allocation-depth".to_owned(), combine: Combine::Largest };
        let bitmaps = self
            .bitmaps
            .iter()
            .map(|(_, name)| Context { name: format!("qemu:dirty-bitmap:{name}"), combine: Combine::Any });
        [depth].into_iter().chain(bitmaps).collect()
    }

    fn status(
        &self,
        context: usize,
        range: Range<u64>,
        visit: &mut hyper2kvm_nbd::VisitStatus<'_>,
    ) -> Result<(), hyper2kvm_nbd::Error> {
        match context.checked_sub(1).and_then(|index| self.bitmaps.get(index)) {
            Some((bitmap, _)) => self.dirty(*bitmap, &range, visit),
            None => self.depths(range, visit),
        }
    }
}

/// The client learns the code; the message, which may name paths of this host, goes to the log.
fn told(error: &Error) -> hyper2kvm_nbd::Error {
    tracing::warn!(%error, code = error.code(), "a request of an NBD client failed");
    let errno = if is_full(error) { Errno::NoSpc } else { Errno::Io };
    hyper2kvm_nbd::Error::new(errno, error.code())
}

/// Whether a write failed for want of room.
fn is_full(error: &Error) -> bool {
    error.kind() == Kind::NoSpace || error.code() == "overlay.full"
}

/// A device as a file in a FUSE mount.
#[derive(Clone, Debug)]
pub struct DiskFile(pub View);

impl File for DiskFile {
    fn len(&self) -> u64 {
        self.0.disk.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), Failure> {
        self.0.disk.read_at(buf, offset).map_err(|error| failure(&error))
    }

    fn next_data(&self, offset: u64) -> Result<Option<u64>, Failure> {
        self.next(offset, |kind| !kind.is_zero())
    }

    fn next_hole(&self, offset: u64) -> Result<u64, Failure> {
        Ok(self.next(offset, ExtentKind::is_zero)?.unwrap_or(self.0.disk.len()))
    }

    fn backing(&self) -> Option<Arc<std::fs::File>> {
        let whole = 0..self.0.disk.len();
        let host = if whole.is_empty() { None } else { self.0.disk.host(whole.clone()).ok().flatten() }?;
        (host.offset == 0 && host.len == whole.end && self.0.writer.is_none()).then_some(host.file)
    }

    fn is_writable(&self) -> bool {
        self.0.writer.is_some()
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<(), Failure> {
        self.writer()?.write_at(buf, offset).map_err(|error| failure(&error))
    }

    fn zero(&self, range: Range<u64>) -> Result<(), Failure> {
        self.writer()?.zero(range).map_err(|error| failure(&error))
    }

    fn flush(&self) -> Result<(), Failure> {
        self.0.writer.as_ref().map_or(Ok(()), |writer| writer.flush().map_err(|error| failure(&error)))
    }
}

impl DiskFile {
    fn writer(&self) -> Result<&Arc<dyn DiskMut>, Failure> {
        self.0.writer.as_ref().ok_or(Failure::ReadOnly)
    }

    /// The first offset at or behind `offset` whose extent is wanted.
    fn next(&self, offset: u64, wanted: impl Fn(ExtentKind) -> bool) -> Result<Option<u64>, Failure> {
        let mut found = None;
        let walked = self.0.disk.extents(offset..self.0.disk.len(), &mut |extent| {
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

fn failure(error: &Error) -> Failure {
    tracing::warn!(%error, code = error.code(), "a request of a mount failed");
    if is_full(error) { Failure::NoSpace } else { Failure::Io }
}

/// Text as a file.
#[derive(Clone, Debug)]
pub struct TextFile(pub String);

impl File for TextFile {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), Failure> {
        let start = usize::try_from(offset).map_err(|_| Failure::Io)?;
        let bytes = start.checked_add(buf.len()).and_then(|end| self.0.as_bytes().get(start..end));
        buf.copy_from_slice(bytes.ok_or(Failure::Io)?);
        Ok(())
    }
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
