//! A machine's disks as devices for other programs: each disk, its partitions, and what writes go to.

use std::fmt::{self, Display};
use std::ops::{ControlFlow, Range};
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::json;

use super::guest::Guest;
use super::migrate::{Machine, Planned};
use crate::chain::{Image, OpenOptions, Opened, OpenedDisk};
use crate::disk::{Checked, Disk, DiskMut, ReadOnly, Slice, readable};
use crate::error::{Error, Kind, Result, escape};
use crate::fix::{self, Plan};
use crate::format::Bitmap;
use crate::fs::Timestamp;
use crate::overlay::{Backing, Kept, Overlay};
use crate::session::Session;
use crate::source::Location;
use crate::volume::stack::{Layer, Stack, Whole};
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
    /// The files that keep what is written, one for each disk; empty to forget it at the end.
    pub overlays: Vec<PathBuf>,
    /// The directory for changes that do not fit into memory.
    pub spill: PathBuf,
}

/// The devices of one machine.
#[derive(Debug)]
pub struct Devices {
    /// One for each disk, in the machine's order.
    pub disks: Vec<Device>,
    /// Arrays, logical volumes and opened encrypted volumes.
    pub volumes: Vec<Volume>,
    /// What of those could not be used, and why.
    pub notes: Vec<String>,
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

/// A volume that is neither a disk nor a partition of one.
#[derive(Clone, Debug)]
pub struct Volume {
    /// `vg0/root`, `md0`, `md0/p1`, `luks-UUID`.
    pub name: String,
    /// Its device's path in the guest: `/dev/mapper/vg0-root`.
    pub path: String,
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
        let devices = Self::opened(request, session)?;
        session.begin_serving();
        Ok(devices)
    }

    fn opened(request: &Request, session: &Arc<Session>) -> Result<Self> {
        let machine = Machine::open(&request.sources, &request.open, session)?;
        let mut keepers = keepers(&machine, request)?.into_iter();
        if request.fix {
            return Self::fixed(machine, request, keepers, session);
        }
        let devices = machine.disks.iter().enumerate().map(|(index, disk)| {
            let whole = if let Some(keeper) = keepers.next() {
                View::writable(keeper.open(disk.disk(), session)?)
            } else if request.writable {
                View::writable(Overlay::new(disk.disk(), session, Some(&request.spill)))
            } else {
                View { disk: disk.disk(), writer: None, image: Some((Arc::clone(&disk.image), 0)) }
            };
            Device::new(index, disk, whole)
        });
        Self::with_volumes(devices.collect::<Result<_>>()?, machine.sources, None, session)
    }

    fn fixed(
        machine: Machine,
        request: &Request,
        mut keepers: impl Iterator<Item = Keeper>,
        session: &Arc<Session>,
    ) -> Result<Self> {
        let planned = machine.plan(&fix::Options::default(), session, Some(&request.spill))?;
        let now = Timestamp { seconds: session.now(), nanoseconds: 0 };
        fix::apply(&planned.plan, &planned.guest.linux()?.0.tree, now)?;
        planned.guest.settle()?;
        let Planned { sources, disks, guest, plan, .. } = planned;
        // With the guest go its file systems, whose caches know nothing of what others write from now on.
        let Guest { overlays, .. } = guest;
        let devices = disks.iter().zip(overlays).enumerate().map(|(index, (disk, overlay))| {
            let whole = if let Some(keeper) = keepers.next() {
                let kept = keeper.open(disk.disk(), session)?;
                copy_changes(&overlay, &kept, session)?;
                View::writable(kept)
            } else if request.writable {
                View::writable(overlay)
            } else {
                overlay.inner().freeze();
                View { disk: overlay, writer: None, image: None }
            };
            Device::new(index, disk, whole)
        });
        Self::with_volumes(devices.collect::<Result<_>>()?, sources, Some(plan), session)
    }

    /// Adds the volumes that lie on the disks.
    fn with_volumes(disks: Vec<Device>, sources: Vec<Opened>, plan: Option<Plan>, session: &Session) -> Result<Self> {
        let whole = |device: &Device| -> Arc<dyn DiskMut> {
            let why = "writes are taken with --writable only";
            let sealed = || Checked::wrap(ReadOnly::new(Arc::clone(&device.whole.disk), why)) as Arc<dyn DiskMut>;
            device.whole.writer.as_ref().map_or_else(sealed, Arc::clone)
        };
        let table = |device: &Device| volume::scan(&device.whole.disk);
        let tables = disks.iter().map(table).collect::<Result<Vec<_>>>()?;
        let wholes: Vec<Whole<'_>> = disks
            .iter()
            .zip(&tables)
            .map(|(device, table)| Whole { disk: whole(device), table: table.as_ref() })
            .collect();
        let Stack { layers, notes, .. } = Stack::find(&wholes, session.keys())?;
        let volume = |layer: Layer| {
            let path = layer.path?;
            Some(Volume { name: layer.name, path, view: View::of(layer.disk) })
        };
        let volumes = layers.into_iter().filter_map(volume).collect();
        notes.iter().for_each(|note| tracing::warn!("{}", escape(note)));
        Ok(Self { disks, volumes, notes, sources, plan })
    }

    /// Every device, partition and volume by name, such as `disk1`, `disk1/p2` and `vg0/root`.
    pub fn views(&self) -> impl Iterator<Item = (String, &View)> {
        let volumes = self.volumes.iter().map(|volume| (volume.name.clone(), &volume.view));
        let disks = self.disks.iter().flat_map(|device| {
            let part = |part: &Partition| format!("{}/p{}", device.name, part.number);
            let parts = device.partitions.iter().map(|it| (part(it), &it.view)).collect::<Vec<_>>();
            [(device.name.clone(), &device.whole)].into_iter().chain(parts)
        });
        disks.chain(volumes)
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
    /// All of `disk`, which takes writes if it can.
    pub(super) fn of(disk: Arc<dyn DiskMut>) -> Self {
        if disk.can_write() {
            return Self::writable(disk);
        }
        Self { disk: readable(&disk), writer: None, image: None }
    }

    fn writable(writer: Arc<dyn DiskMut>) -> Self {
        Self { disk: readable(&writer), writer: Some(writer), image: None }
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
        top.dirty(bitmap, start.saturating_add(range.start), &mut |dirty| {
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

/// A file that will keep what is written to a disk.
struct Keeper {
    path: PathBuf,
    backing: Backing,
}

impl Keeper {
    fn open(self, disk: Arc<dyn Disk>, session: &Session) -> Result<Arc<Checked<Kept>>> {
        Kept::open(disk, &self.path, &self.backing, session)
    }
}

/// The files that keep what is written, one for each disk of the machine, or none.
fn keepers(machine: &Machine, request: &Request) -> Result<Vec<Keeper>> {
    if request.overlays.is_empty() {
        return Ok(Vec::new());
    }
    if request.overlays.len() != machine.disks.len() {
        return Err(Error::new(Kind::Usage, "overlay.count", "every disk needs an overlay of its own")
            .expected(format!("--overlay {} times", machine.disks.len()))
            .found(request.overlays.len()));
    }
    if request.open.snapshot.is_some() {
        return Err(Error::unsupported(
            "overlay.backing",
            "an overlay that is kept cannot lie on an internal snapshot",
        ));
    }
    if request.fix
        && let Some(there) = request.overlays.iter().find(|path| path.exists())
    {
        return Err(Error::new(Kind::Exists, "overlay.exists", "the overlay exists already")
            .path(there)
            .hint("leave --fix out to go on with it: what was fixed is in it; or name a new file"));
    }
    let pairs = machine.disks.iter().zip(&request.overlays);
    pairs.map(|(disk, path)| Ok(Keeper { path: path.clone(), backing: backing(disk, &machine.sources)? })).collect()
}

/// How QEMU opens what lies below an overlay.
fn backing(disk: &OpenedDisk, sources: &[Opened]) -> Result<Backing> {
    let refused = |what: &str| {
        Error::unsupported(
            "overlay.backing",
            format!("a kept overlay needs a source that QEMU opens too, and it does not open {what}"),
        )
        .hint("use --writable without --overlay, or unpack the source first")
    };
    let layer = disk.image.inner().layers().next().ok_or_else(|| refused("a disk without layers"))?;
    let format = match layer.format() {
        "vhd" => "vpc",
        known @ ("raw" | "qcow2" | "vmdk" | "vhdx" | "vdi") => known,
        _ => return Err(refused("this format")),
    };
    let file = layer.files().first().ok_or_else(|| refused("a disk without a file"))?;
    // The one that the user named: as it is, or as the archive in which the disk's file lies as it is.
    let is_named = |file: &Arc<dyn Disk>, source: &Opened| {
        source.sources.first().is_some_and(|own| std::ptr::addr_eq(Arc::as_ptr(file), Arc::as_ptr(own)))
    };
    if let Some(source) = sources.iter().find(|source| is_named(file, source)) {
        return Ok(Backing { name: absolute(&source.location)?, format });
    }
    let below = file.below();
    let archive = sources.iter().find(|source| below.len() == 1 && below.iter().all(|below| is_named(below, source)));
    let archive = archive.ok_or_else(|| refused("a compressed source or this sort of package"))?;
    let mut place = None;
    file.extents(0..1.min(file.len()), &mut |extent| {
        place = extent.place;
        ControlFlow::Break(())
    })?;
    let start = place.ok_or_else(|| refused("this sort of package"))?;
    let whole = json!({ "driver": "file", "filename": absolute(&archive.location)? });
    let member = json!({ "driver": "raw", "offset": start, "size": file.len(), "file": whole });
    Ok(Backing { name: format!("json:{}", json!({ "driver": format, "file": member })), format })
}

/// A path as QEMU finds it from anywhere.
fn absolute(location: &Location) -> Result<String> {
    let path = location.path().ok_or_else(|| {
        Error::unsupported("overlay.backing", "an overlay that is kept needs a source on this host")
            .at(location)
            .hint("use --writable without --overlay, or download the source first")
    })?;
    let refused =
        || Error::unsupported("overlay.backing", "the source's path cannot stand in a qcow2 image").path(path);
    let path = std::path::absolute(path).map_err(|e| refused().because(e))?;
    path.to_str().map(str::to_owned).ok_or_else(refused)
}

/// Copies what an overlay changed into another one over the same base.
fn copy_changes(from: &Checked<Overlay>, to: &Checked<Kept>, session: &Session) -> Result<()> {
    const CHUNK: u64 = 64 << 10;
    let mut buf = Vec::new();
    for range in from.inner().changes() {
        let mut at = range.start;
        while at < range.end {
            session.check()?;
            let end = range.end.min(at.saturating_add(CHUNK));
            buf.resize(usize::try_from(end.saturating_sub(at)).unwrap_or(0), 0);
            from.read_at(&mut buf, at)?;
            if buf.iter().all(|&byte| byte == 0) {
                to.zero(at..end)?
            } else {
                to.write_at(&buf, at)?
            }
            at = end;
        }
    }
    to.flush()
}

impl Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.label)
    }
}
