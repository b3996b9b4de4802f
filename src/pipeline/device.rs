//! A machine's disks as devices for other programs: each disk, its partitions, and what writes go to.

use std::fmt::{self, Display};
use std::ops::{ControlFlow, Range};
use std::path::PathBuf;
use std::sync::Arc;

use super::guest::Guest;
use super::migrate::{Machine, Planned};
use crate::chain::{Image, OpenOptions, Opened, OpenedDisk};
use crate::disk::{Checked, Disk, DiskMut, Slice};
use crate::error::Result;
use crate::fix::{self, Plan};
use crate::format::Bitmap;
use crate::fs::Timestamp;
use crate::overlay::Overlay;
use crate::session::Session;
use crate::volume::{self, Role};

/// What to make devices of.
#[derive(Clone, Debug)]
pub struct Request {
    /// The disks of one machine in order: one OVA, or several images.
    pub sources: Vec<String>,
    /// How the images are opened, and which disks.
    pub open: OpenOptions,
    /// Make the guest ready for KVM first, in the overlay.
    pub fix: bool,
    /// Take writes.
    pub writable: bool,
    /// The directory for changes that do not fit into memory.
    pub spill: PathBuf,
}

/// The devices of one machine.
#[derive(Debug)]
pub struct Devices {
    /// One for each disk, in the machine's order.
    pub disks: Vec<Device>,
    /// What was opened; it lives as long as the devices do.
    pub sources: Vec<Opened>,
    /// What was changed in the guest and what was left, if that was asked for.
    pub plan: Option<Plan>,
}

/// One disk.
#[derive(Clone, Debug)]
pub struct Device {
    /// `disk1`, `disk2` …
    pub name: String,
    /// The name of its file, or its id in the package.
    pub label: String,
    /// The whole disk.
    pub whole: View,
    /// Its partitions.
    pub partitions: Vec<Partition>,
}

/// A partition of a disk.
#[derive(Clone, Debug)]
pub struct Partition {
    /// Its number.
    pub number: u32,
    /// Where it begins on the disk, in bytes.
    pub offset: u64,
    /// Its bytes.
    pub view: View,
}

/// A disk or a part of it, as others use it.
#[derive(Clone, Debug)]
pub struct View {
    /// What is read.
    pub disk: Arc<dyn Disk>,
    /// The same, if it can be written.
    pub writer: Option<Arc<dyn DiskMut>>,
    /// The image that it shows unchanged, and the offset in it.
    image: Option<(Arc<Checked<Image>>, u64)>,
}

impl Devices {
    /// Opens the machine, fixes it if that is wanted, and gives its disks. Nothing is written but overlays.
    ///
    /// # Errors
    /// Those of opening the sources; with `fix`, those of inspecting and fixing the guest.
    pub fn open(request: &Request, session: &Arc<Session>) -> Result<Self> {
        let machine = Machine::open(&request.sources, &request.open, session)?;
        if request.fix {
            return Self::fixed(machine, request, session);
        }
        let devices = machine.disks.iter().enumerate().map(|(index, disk)| {
            let whole = if request.writable {
                View::writable(Overlay::new(disk.disk(), session, Some(&request.spill)))
            } else {
                View { disk: disk.disk(), writer: None, image: Some((Arc::clone(&disk.image), 0)) }
            };
            Device::new(index, disk, whole)
        });
        Ok(Self { disks: devices.collect::<Result<_>>()?, sources: machine.sources, plan: None })
    }

    fn fixed(machine: Machine, request: &Request, session: &Arc<Session>) -> Result<Self> {
        let planned = machine.plan(session, Some(&request.spill))?;
        let now = Timestamp { seconds: session.now(), nanoseconds: 0 };
        fix::apply(&planned.plan, &planned.guest.system()?.root.tree, now)?;
        planned.guest.settle()?;
        let Planned { sources, disks, guest, plan, .. } = planned;
        // With the guest go its file systems, whose caches know nothing of what others write from now on.
        let Guest { overlays, .. } = guest;
        let devices = disks.iter().zip(overlays).enumerate().map(|(index, (disk, overlay))| {
            let whole = if request.writable {
                View::writable(overlay)
            } else {
                overlay.inner().freeze();
                View { disk: overlay, writer: None, image: None }
            };
            Device::new(index, disk, whole)
        });
        Ok(Self { disks: devices.collect::<Result<_>>()?, sources, plan: Some(plan) })
    }

    /// Every device and partition by name, such as `disk1` and `disk1/p2`.
    pub fn views(&self) -> impl Iterator<Item = (String, &View)> {
        self.disks.iter().flat_map(|device| {
            let part = |part: &Partition| format!("{}/p{}", device.name, part.number);
            let parts = device.partitions.iter().map(|it| (part(it), &it.view)).collect::<Vec<_>>();
            [(device.name.clone(), &device.whole)].into_iter().chain(parts)
        })
    }
}

impl Device {
    fn new(index: usize, disk: &OpenedDisk, whole: View) -> Result<Self> {
        let mut partitions = Vec::new();
        if let Some(table) = volume::scan(&whole.disk)? {
            let len = whole.disk.len();
            for part in table.partitions.iter().filter(|part| part.role != Role::Extended) {
                if part.range.end <= len {
                    let view = whole.part(format!("partition {}", part.number), &part.range)?;
                    partitions.push(Partition { number: part.number, offset: part.range.start, view });
                }
            }
        }
        let name = format!("disk{}", index.saturating_add(1));
        Ok(Self { name, label: disk.name.clone(), whole, partitions })
    }
}

impl View {
    fn writable<D: DiskMut>(disk: Arc<D>) -> Self {
        let writer: Arc<dyn DiskMut> = disk;
        Self { disk: Arc::clone(&writer) as Arc<dyn Disk>, writer: Some(writer), image: None }
    }

    /// The part `range` of it.
    fn part(&self, label: String, range: &Range<u64>) -> Result<Self> {
        if let Some(writer) = &self.writer {
            return Ok(Self::writable(Checked::wrap(Slice::new_mut(label, Arc::clone(writer), range.clone())?)));
        }
        let image = self.image.as_ref().map(|(image, start)| (Arc::clone(image), start.saturating_add(range.start)));
        let disk = Checked::wrap(Slice::new(label, Arc::clone(&self.disk), range.clone())?);
        Ok(Self { disk, writer: None, image })
    }

    /// What the image remembers of ranges that were written; nothing once an overlay may know better.
    #[must_use]
    pub fn bitmaps(&self) -> &[Bitmap] {
        let top = self.image.as_ref().and_then(|(image, _)| image.inner().layers().next());
        top.map_or(&[], |top| top.bitmaps())
    }

    /// Visits the parts of `range` that a bitmap says were written, in order.
    ///
    /// # Errors
    /// Those of reading the bitmap.
    pub fn dirty(
        &self,
        bitmap: usize,
        range: &Range<u64>,
        visit: &mut dyn FnMut(Range<u64>) -> ControlFlow<()>,
    ) -> Result<()> {
        let Some((image, start)) = &self.image else { return Ok(()) };
        let Some(top) = image.inner().layers().next() else { return Ok(()) };
        top.dirty(bitmap, &mut |dirty| {
            let dirty = dirty.start.saturating_sub(*start)..dirty.end.saturating_sub(*start);
            let inside = dirty.start.max(range.start)..dirty.end.min(range.end);
            if dirty.start >= range.end {
                ControlFlow::Break(())
            } else if inside.is_empty() {
                ControlFlow::Continue(())
            } else {
                visit(inside)
            }
        })
    }
}

impl Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.label)
    }
}
