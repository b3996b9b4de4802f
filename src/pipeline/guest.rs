//! A machine with its guest: overlays on its disks, volumes, file systems, the root, and the facts.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::sync::Arc;

use crate::chain::OpenedDisk;
use crate::container::ovf::{self, Ovf};
use crate::disk::{Checked, Disk, DiskMut};
use crate::error::{Error, Result};
use crate::fs::{self, Filesystem, Tree};
use crate::inspect::{self, Deeper, Facts, Linux, Machine, MachineDisk, MachineNic, Root, Volume};
use crate::limits;
use crate::overlay::Overlay;
use crate::session::{Engine, Session};
use crate::volume::letters;
use crate::volume::signature::{Signature, Usage};
use crate::volume::stack::{Layer, LayerKind, Stack, Whole};
use crate::volume::trim::{FreeMap, FreeSpace, Trimmed};
use crate::volume::{self, Table};

mod engine;
mod inspector;
mod tree;

use engine::Hosted;

/// A machine, opened for inspection and fixing. Nothing is written but its overlays.
#[derive(Debug)]
pub struct Guest {
    /// Each disk with its copy-on-write overlay.
    pub overlays: Vec<Arc<Checked<Overlay>>>,
    /// Each disk's partition table.
    pub tables: Vec<Option<Table>>,
    /// Disks, volumes and network cards.
    pub machine: Machine,
    /// The installed systems: those of Linux in the order of their root volumes, then those of Windows. The first is the one that is fixed.
    pub systems: Vec<System>,
    /// What could not be read, and why.
    pub notes: Vec<String>,
    /// The appliance that has the file systems, where the own drivers do not.
    hosted: Option<Hosted>,
}

/// An installed system and what is known about it.
#[derive(Debug)]
pub struct System {
    /// Its tree of mounted file systems.
    pub root: Root,
    /// The facts.
    pub facts: Facts,
    /// Those that [`Guest::look_deeper`] added.
    pub deep: Option<Deeper>,
}

impl Guest {
    /// Looks inside `disks` with the session's engine. Journals are replayed into the overlays, which spill into `spill_dir`.
    pub fn open(
        disks: &[OpenedDisk],
        described: Option<&Ovf>,
        session: &Arc<Session>,
        spill_dir: Option<&Path>,
    ) -> Result<Self> {
        Self::open_by(session.policy.engine, disks, described, session, spill_dir)
    }

    fn open_by(
        engine: Engine,
        disks: &[OpenedDisk],
        described: Option<&Ovf>,
        session: &Arc<Session>,
        spill_dir: Option<&Path>,
    ) -> Result<Self> {
        let mut guest = Self {
            overlays: Vec::new(),
            tables: Vec::new(),
            machine: Machine { nics: nics(described, session), ..Machine::default() },
            systems: Vec::new(),
            notes: Vec::new(),
            hosted: None,
        };
        for (index, disk) in disks.iter().enumerate() {
            guest.add_disk(index, disk, session, spill_dir)?;
        }
        guest.add_volumes(engine, session)?;
        guest.machine.uefi =
            described.map_or_else(|| guest.looks_like_uefi(), |machine| machine.firmware == ovf::Firmware::Uefi);
        for root in inspect::find_roots(&guest.machine)? {
            let facts = Facts::Linux(Box::new(inspect::linux(&root.tree)?));
            guest.systems.push(System { root, facts, deep: None });
        }
        for found in inspect::find_windows(&guest.machine)? {
            let facts = Facts::Windows(Box::new(inspect::windows::windows(&guest.machine, &found)?));
            guest.systems.push(System { root: found.root, facts, deep: None });
        }
        let others = guest.systems.len().saturating_sub(1);
        if others > 0 {
            guest.notes.push(format!("{others} more installed systems are left as they are"));
        }
        Ok(guest)
    }

    fn add_disk(
        &mut self,
        index: usize,
        disk: &OpenedDisk,
        session: &Arc<Session>,
        spill_dir: Option<&Path>,
    ) -> Result<()> {
        let overlay = Overlay::new(disk.disk(), session, spill_dir);
        let flat: Arc<dyn Disk> = Arc::clone(&overlay) as Arc<dyn Disk>;
        let address = disk.described.as_ref().and_then(|described| described.attached);
        self.machine.disks.push(MachineDisk {
            name: format!("sd{}", letters(index)),
            size: disk.image.len(),
            controller: address.map_or(Some(0), |(_, controller, _)| u32::try_from(controller).ok()),
            unit: address.map_or(u32::try_from(index).ok(), |(_, _, unit)| Some(unit)),
        });
        self.tables.push(volume::scan(&flat)?);
        self.overlays.push(overlay);
        Ok(())
    }

    /// Finds the volumes on all disks and opens the file systems on them.
    fn add_volumes(&mut self, engine: Engine, session: &Arc<Session>) -> Result<()> {
        let whole = |(overlay, table): (&Arc<Checked<Overlay>>, _)| Whole { disk: Arc::clone(overlay) as _, table };
        let disks: Vec<Whole<'_>> =
            self.overlays.iter().zip(self.tables.iter().map(Option::as_ref)).map(whole).collect();
        let Stack { layers, notes, .. } = Stack::find(&disks, session.keys())?;
        self.notes.extend(notes);
        if engine == Engine::Appliance {
            self.hosted = Hosted::start(&layers, session)?;
        }
        let spread = spread(&layers);
        for (index, layer) in layers.iter().enumerate() {
            session.check()?;
            self.add_volume(index, layer, spread.iter().any(|parts| parts.contains(&index)));
        }
        spread.iter().for_each(|parts| self.open_spread(parts, &layers));
        name_encrypted(&mut self.machine, &layers);
        Ok(())
    }

    /// Adds a volume. One that is a part of a file system is opened later.
    fn add_volume(&mut self, index: usize, layer: &Layer, is_part: bool) {
        let leaves = leaves(&layer.disk, &self.overlays);
        let disk = match layer.kind {
            LayerKind::Place { disk } => disk,
            _ => leaves.first().copied().unwrap_or(0),
        };
        let mut volume = Volume {
            disk,
            disks: leaves,
            name: layer.name.clone(),
            partition: layer.partition.as_ref().filter(|_| layer.path.is_none()).map(|partition| partition.number),
            mapper: layer.path.clone(),
            aliases: layer.aliases.clone(),
            partuuid: layer.partition.as_ref().map(|partition| partition.partuuid.clone()),
            start: layer.partition.as_ref().filter(|_| layer.path.is_none()).map(|partition| partition.range.start),
            partlabel: layer.partition.as_ref().and_then(|partition| partition.label.clone()),
            size: layer.disk.len(),
            bytes: Some(Arc::clone(&layer.disk)),
            ..Volume::default()
        };
        if let Some(signature) = layer.sole() {
            self.open_volume(&mut volume, signature, (!is_part).then_some((index, layer)));
        } else if layer.signatures.len() > 1 {
            let kinds: Vec<&str> = layer.signatures.iter().map(|signature| signature.kind).collect();
            self.notes.push(format!("{} carries several signatures: {}", layer.name, kinds.join(", ")));
        }
        self.machine.volumes.push(volume);
    }

    fn open_volume(&mut self, volume: &mut Volume, signature: &Signature, whole: Option<(usize, &Layer)>) {
        volume.fs_kind = Some(signature.kind.to_owned());
        volume.fs_uuid.clone_from(&signature.uuid);
        volume.fs_label.clone_from(&signature.label);
        let opened = match (signature.usage, whole, &self.hosted) {
            (Usage::Filesystem, Some((index, layer)), Some(hosted)) => hosted.open(index, layer),
            (Usage::Filesystem, Some((_, layer)), None) => fs::open::open_mut(signature.kind, Arc::clone(&layer.disk)),
            _ => None,
        };
        match opened {
            None if signature.usage == Usage::Filesystem && whole.is_some() => {
                self.notes.push(format!("{} holds {}, of which no files can be read", volume.name, signature.kind));
            }
            None if signature.kind == "BitLocker" => {
                self.notes.push(format!("{} is encrypted by BitLocker, which cannot be opened", volume.name));
            }
            None => {}
            Some(Ok(fs)) => {
                volume.fs_kind = Some(fs.facts().kind.to_owned());
                volume.fs_uuid.clone_from(&fs.facts().uuid);
                volume.fs_label.clone_from(&fs.facts().label);
                volume.fs = Some(fs);
            }
            Some(Err(error)) => {
                self.notes.push(format!("the {} of {} cannot be opened: {error}", signature.kind, volume.name));
            }
        }
    }

    /// Opens a file system that spreads over the volumes `parts`. The first one has it, and alone answers to its UUID and label.
    fn open_spread(&mut self, parts: &[usize], layers: &[Layer]) {
        let layers: Vec<&Layer> = parts.iter().filter_map(|part| layers.get(*part)).collect();
        let Some(kind) = layers.first().and_then(|layer| layer.sole()).map(|signature| signature.kind) else { return };
        let opened = match (&self.hosted, parts.first(), layers.first()) {
            (Some(hosted), Some(first), Some(layer)) => hosted.open(*first, layer),
            _ => fs::open::open_spread(kind, layers.iter().map(|layer| Arc::clone(&layer.disk)).collect()),
        };
        match opened {
            None => {}
            Some(Err(error)) => self.notes.push(format!("the {kind} of several volumes cannot be opened: {error}")),
            Some(Ok(fs)) => {
                let mut fs = Some(fs);
                for part in parts {
                    let Some(volume) = self.machine.volumes.get_mut(*part) else { continue };
                    volume.fs = fs.take();
                    if volume.fs.is_none() {
                        (volume.fs_uuid, volume.fs_label) = (None, None);
                    }
                }
            }
        }
    }

    /// Reads the facts that take more reading, of every system.
    pub fn look_deeper(&mut self) -> Result<()> {
        for system in &mut self.systems {
            system.deep = Some(match &system.facts {
                Facts::Linux(facts) => Deeper::Linux(Box::new(inspect::deep(&system.root.tree, facts)?)),
                Facts::Windows(facts) => Deeper::Windows(Box::new(inspect::windows::deep(&system.root, facts)?)),
            });
        }
        Ok(())
    }

    /// The installed system that is fixed.
    #[must_use]
    pub fn system(&self) -> Option<&System> {
        self.systems.first()
    }

    /// The installed Linux, or an error that says what was found instead.
    pub fn linux(&self) -> Result<(&Root, &Linux)> {
        let system = self.installed()?;
        system.facts.linux().map(|facts| (&system.root, facts)).ok_or_else(|| self.nothing_to_fix())
    }

    /// The installed system that is fixed, or an error that says what was found instead.
    pub fn installed(&self) -> Result<&System> {
        self.system().ok_or_else(|| self.nothing_to_fix())
    }

    fn nothing_to_fix(&self) -> Error {
        let kinds: Vec<&str> = self.machine.volumes.iter().filter_map(|volume| volume.fs_kind.as_deref()).collect();
        let found = if kinds.is_empty() { "no file system".to_owned() } else { kinds.join(", ") };
        let error = Error::unsupported("guest.none", "no operating system that can be fixed was found").found(found);
        match self.notes.first() {
            Some(note) => error.hint(format!("{note}; `hyper2kvm convert` copies the disk as it is")),
            None => error.hint("`hyper2kvm convert` copies the disk as it is"),
        }
    }

    /// Whether the disks are made for UEFI: an EFI system partition and no BIOS boot partition on a GPT.
    #[must_use]
    pub fn looks_like_uefi(&self) -> bool {
        const ESP: &str = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";
        const BIOS_BOOT: &str = "21686148-6449-6e6f-744e-656564454649";
        let has = |guid: &str| {
            let mut partitions = self.tables.iter().flatten().flat_map(|table| &table.partitions);
            partitions.any(|partition| partition.type_id == guid)
        };
        has(ESP) && !has(BIOS_BOOT)
    }

    /// Leaves every file system clean: what was changed is in the overlays. With an appliance no file can be read any more.
    pub fn settle(&self) -> Result<()> {
        for fs in self.machine.volumes.iter().filter_map(|volume| volume.fs.as_ref()) {
            match fs.writer() {
                Ok(writer) => writer.sync()?,
                Err(error) => tracing::info!(%error, "a file system is left as it is"),
            }
        }
        self.hosted.as_ref().map_or(Ok(()), Hosted::finish)
    }

    /// Leaves every file system clean and the overlays frozen, and gives each disk as it will be copied.
    pub fn finish(&self, skip_free_space: bool) -> Result<Vec<Arc<dyn Disk>>> {
        self.settle()?;
        self.overlays.iter().for_each(|overlay| overlay.inner().freeze());
        let disk = |index: usize| -> Result<Arc<dyn Disk>> {
            let overlay = self.overlays.get(index).map(|overlay| Arc::clone(overlay) as Arc<dyn Disk>);
            let overlay = overlay.ok_or_else(|| Error::failed("guest.disk", "there is no such disk"))?;
            Ok(if skip_free_space {
                Checked::wrap(Trimmed::new(overlay, self.free_map(index, |_| true)))
            } else {
                overlay
            })
        };
        (0..self.overlays.len()).map(disk).collect()
    }

    /// The provably free and idle ranges of a disk, of the file systems that `counts`. One whose allocation state cannot be read has none.
    fn free_map(&self, disk: usize, counts: impl Fn(&dyn Filesystem) -> bool) -> FreeMap {
        let mut map = FreeMap::new();
        let Some(overlay) = self.overlays.get(disk) else { return map };
        for volume in self.machine.volumes.iter().filter(|volume| volume.disks.contains(&disk)) {
            let (Some(fs), Some(bytes)) = (&volume.fs, &volume.bytes) else { continue };
            if !counts(&**fs) {
                continue;
            }
            // What the appliance left, the own driver knows, if there is one.
            let own = match self.hosted {
                None => Some(Arc::clone(fs)),
                Some(_) => fs::open::open(fs.facts().kind, Arc::clone(bytes) as Arc<dyn Disk>).and_then(Result::ok),
            };
            let Some(own) = own else { continue };
            let mut free = FreeMap::new();
            let idle = free.add(&(0..bytes.len()), &Free(&*own)).and_then(|()| own.idle_ranges());
            match idle {
                Ok(idle) => free.add_ranges(idle),
                Err(error) => {
                    tracing::warn!(%error, "free space is copied, since it cannot be told from the rest");
                    continue;
                }
            }
            let (volume, mut homes) = (Arc::clone(bytes) as Arc<dyn Disk>, Vec::new());
            for range in free.ranges() {
                find_homes(&volume, range.clone(), overlay, 0, &mut homes);
            }
            map.add_ranges(homes);
        }
        map
    }
}

/// Boxes between a file system and its disks: a few for each layer of the stack.
const MAX_BOXES: usize = 64;

/// Where the bytes of `range` live on one disk. Beyond a bound the rest is left out, and is copied.
fn find_homes(
    from: &Arc<dyn Disk>,
    range: Range<u64>,
    on: &Arc<Checked<Overlay>>,
    depth: usize,
    found: &mut Vec<Range<u64>>,
) {
    if depth > MAX_BOXES || found.len() >= limits::MAX_FREE_RANGES.saturating_mul(4) {
        return;
    }
    // A disk without a partition table is a volume itself.
    if is_same(from, on) {
        found.push(range);
        return;
    }
    let below = from.below();
    from.homes(range, &mut |index, range| {
        if let Some(disk) = below.get(index) {
            find_homes(disk, range, on, depth.saturating_add(1), found);
        }
    });
}

fn is_same(disk: &Arc<dyn Disk>, overlay: &Arc<Checked<Overlay>>) -> bool {
    std::ptr::addr_eq(Arc::as_ptr(disk), Arc::as_ptr(overlay))
}

/// The disks that a volume lies on, ascending.
fn leaves(volume: &Arc<dyn DiskMut>, overlays: &[Arc<Checked<Overlay>>]) -> Vec<usize> {
    let (mut found, mut seen) = (BTreeSet::new(), HashSet::new());
    let mut pending = vec![Arc::clone(volume) as Arc<dyn Disk>];
    while let Some(disk) = pending.pop() {
        if !seen.insert(Arc::as_ptr(&disk).cast::<()>()) {
            continue;
        }
        match overlays.iter().position(|overlay| is_same(&disk, overlay)) {
            Some(index) => drop(found.insert(index)),
            None => pending.extend(disk.below()),
        }
    }
    found.into_iter().collect()
}

/// Gives the insides of encrypted volumes the names that the guest's `/etc/crypttab` gives them.
fn name_encrypted(machine: &mut Machine, layers: &[Layer]) {
    if layers.iter().all(|layer| layer.inside.is_none()) {
        return;
    }
    let mut names: Vec<(usize, String)> = Vec::new();
    for fs in machine.volumes.iter().filter_map(|volume| volume.fs.as_ref()) {
        // A file system that cannot be read here says so where it is needed.
        let Ok(Some(text)) = Tree::new(Arc::clone(fs)).read("/etc/crypttab", limits::MAX_GUEST_CONFIG) else {
            continue;
        };
        for line in String::from_utf8_lossy(&text).lines().filter(|line| !line.trim_start().starts_with('#')) {
            let mut words = line.split_whitespace();
            let (Some(name), Some(device)) = (words.next(), words.next()) else { continue };
            let outside = machine.resolve(device);
            let inner = layers.iter().position(|layer| layer.inside.is_some() && layer.inside == outside);
            names.extend(inner.map(|inner| (inner, format!("/dev/mapper/{name}"))));
        }
    }
    for (inner, name) in names {
        if let Some(volume) = machine.volumes.get_mut(inner).filter(|volume| !volume.aliases.contains(&name)) {
            volume.aliases.push(name);
        }
    }
}

/// `disk` without what its file systems say is free; the bytes that stay are the disk's own.
///
/// A file system with something to replay or to finish keeps all its bytes: what is free afterwards is still in use for whoever
/// reads it before, such as a boot loader, or the kernel that does the finishing.
pub fn without_free_space(disk: &OpenedDisk, session: &Arc<Session>) -> Result<Arc<dyn Disk>> {
    let guest = Guest::open_by(Engine::Own, std::slice::from_ref(disk), None, session, None)?;
    Ok(Checked::wrap(Trimmed::new(disk.disk(), guest.free_map(0, |fs| !fs.facts().dirty))))
}

/// The machine's network cards, each with the MAC address that it will have: its own, or a new one of QEMU's range.
fn nics(described: Option<&Ovf>, session: &Session) -> Vec<MachineNic> {
    let nic = |(index, nic): (usize, &ovf::Nic)| MachineNic {
        mac: Some(nic.mac.clone().unwrap_or_else(|| new_mac(index, session))),
        model: nic.model.clone(),
    };
    described.map(|machine| machine.nics.iter().enumerate().map(nic).collect()).unwrap_or_default()
}

fn new_mac(index: usize, session: &Session) -> String {
    let [a, b, c, ..] = session.random(&format!("mac {index}"));
    format!("52:54:00:{a:02x}:{b:02x}:{c:02x}")
}

/// The layers that are parts of one file system: those with its signature and UUID, where there are several.
fn spread(layers: &[Layer]) -> Vec<Vec<usize>> {
    let mut parts: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, layer) in layers.iter().enumerate() {
        let signature = layer.sole().filter(|signature| signature.kind == "btrfs");
        if let Some(uuid) = signature.and_then(|signature| signature.uuid.as_deref()) {
            parts.entry(uuid).or_default().push(index);
        }
    }
    parts.into_values().filter(|parts| parts.len() > 1).collect()
}

/// A file system as the free map sees it.
struct Free<'a>(&'a dyn Filesystem);

impl FreeSpace for Free<'_> {
    fn free_ranges(&self, visit: &mut dyn FnMut(Range<u64>) -> ControlFlow<()>) -> Result<()> {
        self.0.free_ranges(visit)
    }
}
