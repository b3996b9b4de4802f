//! Logical volumes as disks: what each segment type means, as `lvm2`'s `lib/*/*.c` write and read it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::group::{Described, Logical, Segment};
use super::raid::{self, LegState};
use super::text::Section;
use super::thin;
use crate::disk::bytes::{long, size};
use crate::disk::{Checked, DiskMut, How, Mapped, Piece, Place, ReadOnly, readable};
use crate::error::{Error, Result};
use crate::limits;
use crate::volume::parity::{Geometry, Layout, Parity};

/// Volumes made of volumes made of volumes: a cached thin pool's data on RAID has four levels.
const DEPTH: usize = 12;

/// Makes disks of a group's logical volumes.
pub(super) struct Builder<'a> {
    group: &'a Described,
    /// The physical volumes that are there, by their names in the group.
    physical: BTreeMap<&'a str, Arc<dyn DiskMut>>,
    /// What has been made, hidden volumes too.
    made: BTreeMap<&'a str, Result<Made>>,
    /// What is being made, from the outside in.
    making: Vec<&'a str>,
    pools: BTreeMap<&'a str, Result<Arc<thin::Pool>>>,
    /// Volumes that keep the old contents of another, or that another is merged into, and what is said of them.
    snapshots: BTreeMap<&'a str, Snapshot>,
}

/// A volume's part in an old-style snapshot.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Snapshot {
    /// It holds what was overwritten elsewhere.
    Cow,
    /// Another volume holds what is overwritten here.
    Origin,
    /// It is becoming what it was before.
    Merging,
}

/// A volume as a disk.
#[derive(Clone)]
struct Made {
    disk: Arc<dyn DiskMut>,
    /// Volumes below each other.
    depth: usize,
}

impl<'a> Builder<'a> {
    /// For the volumes of `group`, of which `physical` gives the physical volumes that are there, by UUID.
    pub(super) fn new(group: &'a Described, physical: &BTreeMap<String, Arc<dyn DiskMut>>) -> Self {
        let there = group.physical.iter().filter(|(_, pv)| !pv.is_missing);
        let there = there.filter_map(|(name, pv)| Some((name.as_str(), Arc::clone(physical.get(&pv.uuid)?))));
        let physical = there.collect();
        let mut snapshots = BTreeMap::new();
        for segment in group.logical.values().flat_map(|lv| &lv.segments).filter(|segment| segment.kind == "snapshot") {
            let about = &segment.about;
            for (key, role) in
                [("cow_store", Snapshot::Cow), ("merging_store", Snapshot::Cow), ("origin", Snapshot::Origin)]
            {
                let Some(name) = about.text(key) else { continue };
                let is_merging = role == Snapshot::Origin && about.has("merging_store");
                let role = if is_merging { Snapshot::Merging } else { role };
                // Of several snapshots of one origin, the one that is merging says more.
                if snapshots.get(name) != Some(&Snapshot::Merging) {
                    snapshots.insert(name, role);
                }
            }
        }
        Self { group, physical, made: BTreeMap::new(), making: Vec::new(), pools: BTreeMap::new(), snapshots }
    }

    /// The disk of a visible volume.
    pub(super) fn visible(&mut self, name: &'a str) -> Result<Arc<dyn DiskMut>> {
        let lv = self.logical(name)?;
        let disk = match self.snapshots.get(name) {
            Some(Snapshot::Cow) => {
                return Err(Error::unsupported(
                    "lvm.snapshot",
                    "snapshots of the old kind are not read; their origin is",
                )
                .at(self.path(name)));
            }
            Some(Snapshot::Merging) => {
                return Err(Error::unsupported("lvm.snapshot", "a snapshot is being merged into the volume")
                    .at(self.path(name))
                    .hint("let the merge end in the guest; lvs shows how far it is"));
            }
            Some(Snapshot::Origin) => {
                let why = format!("{} has snapshots, which a write would change", self.path(name));
                Checked::wrap(ReadOnly::new(self.volume(name)?.disk, why))
            }
            None => self.volume(name)?.disk,
        };
        Ok(if lv.is_writable {
            disk
        } else {
            Checked::wrap(ReadOnly::new(disk, format!("{} is a read-only volume", self.path(name))))
        })
    }

    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.group.name)
    }

    fn logical(&self, name: &str) -> Result<&'a Logical> {
        self.group.logical.get(name).ok_or_else(|| self.wrong("names a volume that it does not have").found(name))
    }

    /// The disk of any volume; each is made once.
    fn volume(&mut self, name: &'a str) -> Result<Made> {
        if let Some(made) = self.made.get(name) {
            return made.clone();
        }
        if self.making.contains(&name) || self.making.len() >= DEPTH {
            return Err(self.wrong("has volumes that are made of themselves").found(name));
        }
        self.making.push(name);
        let made = self.make(name);
        self.making.pop();
        self.made.insert(name, made.clone());
        made
    }

    fn make(&mut self, name: &'a str) -> Result<Made> {
        let lv = self.logical(name)?;
        let mut parts = Parts::default();
        for segment in &lv.segments {
            let len = self.bytes(segment.count)?;
            self.segment(&mut parts, segment, len).map_err(|error| error.at(self.path(name)))?;
        }
        let mapped = Mapped::new("lvm", self.path(name), parts.disks, parts.pieces);
        let mapped = mapped.map_err(|error| self.wrong("maps a volume to where its disks are not").because(error))?;
        let depth = parts.depth.saturating_add(1);
        if depth > DEPTH {
            return Err(self.wrong("has volumes that are nested too deeply").found(name));
        }
        Ok(Made { disk: Checked::wrap(mapped), depth })
    }

    /// Adds what one segment of `len` bytes maps to.
    fn segment(&mut self, parts: &mut Parts, segment: &'a Segment, len: u64) -> Result<()> {
        let about = &segment.about;
        let known = ["METADATA_FORMAT", "CROP_METADATA", "ERROR_IF_NO_SPACE"];
        if let Some(flag) = segment.flags.iter().find(|flag| !known.contains(&flag.as_str())) {
            return Err(unsupported(&format!("{} with {flag}", segment.kind)));
        }
        let how = match segment.kind.as_str() {
            "linear" | "striped" => self.striped(parts, about, len)?,
            "mirror" => self.mirror(parts, about, len)?,
            "raid1" => self.raid1(parts, about, len)?,
            "raid10" | "raid10_near" => self.raid10(parts, about)?,
            "raid0" | "raid0_meta" => self.raid0(parts, about)?,
            "thin" => {
                let disk = self.thin(about, len)?;
                parts.whole(Made { disk, depth: 2 })
            }
            "zero" => How::Zeros,
            "error" => How::Broken(unsupported("error")),
            kind => match raid_layout(kind) {
                Some((six, layout)) => {
                    let made = self.parity(about, len, six, layout)?;
                    parts.whole(made)
                }
                None => return Err(unsupported(kind)),
            },
        };
        parts.pieces.push(Piece { len, how });
        Ok(())
    }

    /// Areas of physical or logical volumes, in turn when there are several.
    fn striped(&mut self, parts: &mut Parts, about: &'a Section, len: u64) -> Result<How> {
        let pairs = about.list("stripes");
        let count = long(pairs.len() / 2);
        if count == 0 || about.count("stripe_count") != Some(count) {
            return Err(self.wrong("has a segment whose stripes are not as many as it says"));
        }
        if len.checked_rem(count) != Some(0) {
            return Err(self.wrong("has a striped segment that does not come out even"));
        }
        let each = len.checked_div(count).unwrap_or(0);
        let places = self.areas(parts, pairs, each)?;
        if let [place] = places.as_slice() {
            return Ok(How::Copies(vec![*place]));
        }
        let chunk = self.chunk(about)?;
        Ok(How::Striped { chunk, copies: 1, places: places.into_iter().map(Some).collect() })
    }

    /// Areas that hold the same. The first is always right; the others may not be filled yet.
    fn mirror(&mut self, parts: &mut Parts, about: &'a Section, len: u64) -> Result<How> {
        let places = self.areas(parts, about.list("mirrors"), len)?;
        if places.is_empty() {
            return Err(self.wrong("has a mirror without legs"));
        }
        Ok(How::Led(places))
    }

    /// Name and number in turn: a physical or logical volume, and the extent at which the area begins, of `len` bytes.
    fn areas(&mut self, parts: &mut Parts, pairs: &'a [super::text::Value], len: u64) -> Result<Vec<Place>> {
        let mut places = Vec::new();
        for pair in pairs.chunks(2) {
            let [name, extent] = pair else { return Err(self.wrong("has an area without an extent")) };
            let (Some(name), Some(extent)) = (name.text(), extent.count()) else {
                return Err(self.wrong("has an area without a name or an extent"));
            };
            let start = self.bytes(extent)?;
            places.push(match self.group.physical.get(name) {
                Some(pv) => {
                    let Some(disk) = self.physical.get(name) else { return Err(missing(&pv.uuid, name)) };
                    let end = start.checked_add(len).filter(|end| self.bytes(pv.count).is_ok_and(|all| *end <= all));
                    if end.is_none() {
                        return Err(self.wrong("maps a volume past the end of a physical volume").found(name));
                    }
                    let start =
                        start.checked_add(pv.start).ok_or_else(|| self.wrong("has numbers that are too large"))?;
                    Place { disk: parts.add(Made { disk: Arc::clone(disk), depth: 0 }), start }
                }
                None => {
                    let made = self.volume(name)?;
                    Place { disk: parts.add(made), start }
                }
            });
        }
        Ok(places)
    }

    fn raid1(&mut self, parts: &mut Parts, about: &'a Section, len: u64) -> Result<How> {
        let legs = self.legs(about, true)?;
        let there = legs.good.into_iter().flatten().filter(|made| made.disk.len() >= len);
        let places: Vec<Place> = there.map(|made| Place { disk: parts.add(made), start: 0 }).collect();
        if places.is_empty() { Err(legs.failure) } else { Ok(How::Copies(places)) }
    }

    fn raid0(&mut self, parts: &mut Parts, about: &'a Section) -> Result<How> {
        let legs = self.legs(about, about.has("raids"))?;
        let chunk = self.chunk(about)?;
        self.dealt(parts, legs, chunk, 1)
    }

    fn raid10(&mut self, parts: &mut Parts, about: &'a Section) -> Result<How> {
        let copies = size(about.count("data_copies").unwrap_or(2));
        let legs = self.legs(about, true)?;
        let chunk = self.chunk(about)?;
        self.dealt(parts, legs, chunk, copies)
    }

    fn dealt(&self, parts: &mut Parts, legs: Legs, chunk: u64, copies: usize) -> Result<How> {
        let failure = legs.failure;
        let places: Vec<Option<Place>> =
            legs.good.into_iter().map(|made| made.map(|made| Place { disk: parts.add(made), start: 0 })).collect();
        let count = places.len();
        let lost = |first: usize| {
            (0..copies).all(|copy| {
                let index = first.saturating_add(copy).checked_rem(count).unwrap_or(0);
                places.get(index).is_none_or(Option::is_none)
            })
        };
        if count == 0 || copies == 0 || copies > count {
            return Err(self.wrong("has a raid segment without legs"));
        }
        if (0..count).any(|chunk| lost(chunk.saturating_mul(copies).checked_rem(count).unwrap_or(0))) {
            return Err(failure);
        }
        Ok(How::Striped { chunk, copies, places })
    }

    fn parity(&mut self, about: &'a Section, len: u64, six: bool, layout: Layout) -> Result<Made> {
        let legs = self.legs(about, true)?;
        let chunk = self.chunk(about)?;
        let missing = legs.good.iter().filter(|leg| leg.is_none()).count();
        if missing > 1 || (missing == 1 && !legs.is_resynced) {
            return Err(legs.failure);
        }
        let depth = legs.good.iter().flatten().map(|made| made.depth).max().unwrap_or(0);
        let width = long(legs.good.len()).checked_sub(if six { 2 } else { 1 }).filter(|width| *width > 0);
        let used = width.and_then(|width| len.checked_div(width));
        let used = used.ok_or_else(|| self.wrong("has a raid segment without legs"))?;
        let members = legs.good.into_iter().map(|leg| leg.map(|made| readable(&made.disk))).collect();
        let array = Checked::wrap(Parity::new("raid", Geometry { six, layout, chunk, used }, members)?);
        let why = "volumes with parity are read only";
        Ok(Made { disk: Checked::wrap(ReadOnly::new(array, why)), depth })
    }

    /// The data legs of a raid segment; those that are missing or not in sync are left out.
    fn legs(&mut self, about: &'a Section, has_meta: bool) -> Result<Legs> {
        if about.count("data_offset").unwrap_or(0) > 1 {
            return Err(Error::unsupported("lvm.reshape", "a volume is being reshaped, or keeps room for it")
                .hint("let the reshape end in the guest; lvs -o+raid_sync_action shows it"));
        }
        let names = about.list(if has_meta { "raids" } else { "raid0_lvs" });
        let step = if has_meta { 2 } else { 1 };
        if names.is_empty()
            || names.len() > limits::MAX_RAID_MEMBERS.saturating_mul(2)
            || (has_meta && !names.len().is_multiple_of(2))
        {
            return Err(self.wrong("has a raid segment without legs"));
        }
        let (mut legs, mut states, mut failure) = (Vec::new(), Vec::new(), None);
        for leg in names.chunks(step) {
            let mut part = |value: Option<&'a super::text::Value>| -> Result<Made> {
                let name = value.and_then(|value| value.text());
                self.volume(name.ok_or_else(|| Error::corrupt("lvm.metadata", "a raid leg has no name"))?)
            };
            let state = if has_meta {
                match part(leg.first()) {
                    Ok(made) => LegState::read(&*made.disk)?,
                    Err(error) => {
                        failure = failure.or(Some(error));
                        None
                    }
                }
            } else {
                None
            };
            states.push(state);
            legs.push(part(leg.last()).map_err(|error| failure = failure.take().or(Some(error))).ok());
        }
        let in_sync = raid::in_sync(&states);
        let good = legs.into_iter().zip(in_sync).map(|(leg, in_sync)| leg.filter(|_| in_sync)).collect();
        let stale = || Error::unsupported("lvm.degraded", "too few legs of a raid volume are in sync");
        Ok(Legs { good, is_resynced: raid::is_resynced(&states), failure: failure.unwrap_or_else(stale) })
    }

    fn thin(&mut self, about: &'a Section, len: u64) -> Result<Arc<dyn DiskMut>> {
        if about.has("external_origin") {
            return Err(unsupported("thin with an external origin"));
        }
        if about.has("merge") {
            return Err(Error::unsupported("lvm.snapshot", "a snapshot is being merged into the volume"));
        }
        let pool = about.text("thin_pool").ok_or_else(|| self.wrong("has a thin volume without a pool"))?;
        let id = about.count("device_id").ok_or_else(|| self.wrong("has a thin volume without a device_id"))?;
        let pool = self.pool(pool)?;
        let thin = Checked::wrap(thin::Thin::open(pool, id, len)?);
        Ok(Checked::wrap(ReadOnly::new(thin, "thin volumes are read only")))
    }

    fn pool(&mut self, name: &'a str) -> Result<Arc<thin::Pool>> {
        if let Some(pool) = self.pools.get(name) {
            return pool.clone();
        }
        if self.making.contains(&name) || self.making.len() >= DEPTH {
            return Err(self.wrong("has volumes that are made of themselves").found(name));
        }
        self.making.push(name);
        let pool = self.open_pool(name).map_err(|error| error.at(self.path(name)));
        self.making.pop();
        self.pools.insert(name, pool.clone());
        pool
    }

    fn open_pool(&mut self, name: &'a str) -> Result<Arc<thin::Pool>> {
        let [segment] = self.logical(name)?.segments.as_slice() else {
            return Err(self.wrong("has a thin pool of several segments"));
        };
        if segment.kind != "thin-pool" {
            return Err(self.wrong("has a thin volume in something that is no pool").found(&segment.kind));
        }
        let about = &segment.about;
        let part = |key| about.text(key).ok_or_else(|| self.wrong("has a thin pool without its parts"));
        let (meta, data) = (part("metadata")?, part("pool")?);
        let (meta, data) = (self.volume(meta)?.disk, self.volume(data)?.disk);
        let block = about.count("chunk_size").and_then(|sectors| sectors.checked_mul(512));
        let block = block.ok_or_else(|| self.wrong("has a thin pool without a chunk_size"))?;
        thin::Pool::open(meta, data, block).map(Arc::new)
    }

    fn chunk(&self, about: &Section) -> Result<u64> {
        let chunk = about.count("stripe_size").and_then(|sectors| sectors.checked_mul(512));
        chunk
            .filter(|chunk| *chunk >= 4096 && *chunk <= limits::MAX_DISK_LEN)
            .ok_or_else(|| self.wrong("has stripes without a stripe_size"))
    }

    fn bytes(&self, extents: u64) -> Result<u64> {
        let bytes = extents.checked_mul(self.group.extent).filter(|bytes| *bytes <= limits::MAX_DISK_LEN);
        bytes.ok_or_else(|| Error::limit("lvm.metadata", "a volume is larger than any disk can be").found(extents))
    }

    fn wrong(&self, what: &str) -> Error {
        Error::corrupt("lvm.metadata", format!("LVM's metadata {what}")).at(&self.group.name)
    }
}

/// The data legs of a raid volume.
struct Legs {
    /// Those that are there and in sync.
    good: Vec<Option<Made>>,
    /// Whether parity can be relied on.
    is_resynced: bool,
    /// What to say when they are too few.
    failure: Error,
}

/// What a disk is put together of.
#[derive(Default)]
struct Parts {
    disks: Vec<Arc<dyn DiskMut>>,
    pieces: Vec<Piece>,
    depth: usize,
}

impl Parts {
    /// The index of a volume's disk, which is added when it is new.
    fn add(&mut self, made: Made) -> usize {
        let Made { disk, depth } = made;
        self.depth = self.depth.max(depth);
        let same = |known: &Arc<dyn DiskMut>| std::ptr::addr_eq(Arc::as_ptr(known), Arc::as_ptr(&disk));
        self.disks.iter().position(same).unwrap_or_else(|| {
            self.disks.push(disk);
            self.disks.len().saturating_sub(1)
        })
    }

    /// All of a disk.
    fn whole(&mut self, made: Made) -> How {
        How::Copies(vec![Place { disk: self.add(made), start: 0 }])
    }
}

/// The parity layouts of LVM's segment types, and whether they are of level 6. `raid4` keeps its parity first.
fn raid_layout(kind: &str) -> Option<(bool, Layout)> {
    let (level, number) = match kind {
        "raid4" => (5, 4),
        "raid5_la" => (5, 0),
        "raid5_ra" => (5, 1),
        "raid5" | "raid5_ls" => (5, 2),
        "raid5_rs" => (5, 3),
        "raid5_n" => (5, 5),
        "raid6" | "raid6_zr" => (6, 8),
        "raid6_nr" => (6, 9),
        "raid6_nc" => (6, 10),
        "raid6_n_6" => (6, 5),
        "raid6_la_6" => (6, 16),
        "raid6_ra_6" => (6, 17),
        "raid6_ls_6" => (6, 18),
        "raid6_rs_6" => (6, 19),
        _ => return None,
    };
    Layout::numbered(level, number).map(|layout| (level == 6, layout))
}

fn unsupported(kind: &str) -> Error {
    Error::unsupported("lvm.unsupported", "a logical volume of this type is not read").found(kind)
}

fn missing(uuid: &str, name: &str) -> Error {
    Error::unsupported("lvm.missing", "a physical volume of the group is missing")
        .expected(format!("{name} with UUID {}", super::dashed(uuid)))
        .hint("name all disks of the machine, in their order")
}
