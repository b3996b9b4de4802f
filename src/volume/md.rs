//! Linux software RAID: members, and the arrays that they make up, as disks.
//!
//! The freshest superblock decides who belongs to an array and what is up to date. Bitmaps are not needed for reading.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::disk::{Checked, Disk, DiskMut, How, Mapped, Piece, Place, ReadOnly, Slice, readable};
use crate::error::{Error, Result};
use crate::limits;
use crate::volume::parity::{Geometry, Layout, Parity};

mod superblock;

pub use superblock::{Member, probe};
use superblock::{Role, whole_chunks};

/// Multi-zone layouts of level 0.
const ORIGINAL_LAYOUT: u32 = 1;
const ALTERNATE_LAYOUT: u32 = 2;

/// A member with its device.
pub type Found = (Member, Arc<dyn DiskMut>);

/// An array.
#[derive(Debug)]
pub struct Array {
    /// As mdadm shows it.
    pub uuid: String,
    /// Its name without the host's, if it has one.
    pub name: Option<String>,
    /// The name as it is written, with the host's.
    pub full_name: Option<String>,
    /// The number of its device, if the superblock or the name says so: `/dev/md0`.
    pub number: Option<u32>,
    /// `linear`, `raid0` …
    pub level: String,
    /// Members that it should have.
    pub members: u32,
    /// Members that are used.
    pub active: usize,
    /// Its bytes, or why there are none.
    pub disk: Result<Arc<dyn DiskMut>>,
}

/// Puts together the arrays of these members, by UUID.
#[must_use]
pub fn arrays(members: Vec<Found>) -> Vec<Array> {
    let mut sets: BTreeMap<String, Vec<Found>> = BTreeMap::new();
    for (member, disk) in members {
        sets.entry(member.uuid.clone()).or_default().push((member, disk));
    }
    sets.into_values().filter_map(|set| open(&set)).collect()
}

fn open(set: &[Found]) -> Option<Array> {
    let (newest, _) = set.iter().max_by_key(|(member, _)| member.events)?;
    let full_name = Some(newest.name.clone()).filter(|name| is_plain(name));
    let name = full_name.as_deref().map(|name| name.split_once(':').map_or(name, |(_, name)| name).to_owned());
    let name = name.filter(|name| !name.is_empty());
    let named = name.as_deref().and_then(|name| name.strip_prefix("md").unwrap_or(name).parse().ok());
    let slots = slots(newest, set);
    let active = slots.as_ref().map_or(0, |slots| slots.iter().flatten().count());
    let place = full_name.clone().unwrap_or_else(|| newest.uuid.clone());
    Some(Array {
        uuid: newest.uuid.clone(),
        full_name,
        name,
        number: newest.number.or(named),
        level: level_name(newest.level),
        members: newest.raid_disks,
        active,
        disk: slots.and_then(|slots| build(newest, &slots)).map_err(|error| error.at(place)),
    })
}

/// Names become those of devices, exports and files.
fn is_plain(name: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"+_.:-".contains(&byte);
    !name.is_empty() && name.bytes().all(good) && !name.starts_with(['-', '.']) && !name.contains(":.")
}

fn level_name(level: i32) -> String {
    if level == -1 { "linear".to_owned() } else { format!("raid{level}") }
}

/// A member in its place: the bytes of it that are data.
type Slot = Option<Found>;

/// Who is in which place. Members that are stale, failed or not filled are left out.
fn slots(newest: &Member, set: &[Found]) -> Result<Vec<Slot>> {
    if let Some(error) = set.iter().find_map(|(member, _)| member.refused.clone()) {
        return Err(error);
    }
    let count = usize::try_from(newest.raid_disks).unwrap_or(usize::MAX);
    let mut slots: Vec<Slot> = vec![None; count.min(limits::MAX_RAID_MEMBERS)];
    for (member, disk) in set {
        // The kernel too takes members that are one event behind: they differ when it stopped between two writes.
        let is_stale = member.events.saturating_add(1) < newest.events;
        let role = newest.roles.get(usize::try_from(member.device).unwrap_or(usize::MAX));
        let Some(Role::Active(place)) = role.filter(|_| !is_stale && member.is_filled) else { continue };
        if (member.level, member.layout, member.chunk, member.raid_disks)
            != (newest.level, newest.layout, newest.chunk, newest.raid_disks)
        {
            return Err(wrong("has members that disagree about it"));
        }
        let Some(slot) = slots.get_mut(usize::try_from(*place).unwrap_or(usize::MAX)) else { continue };
        match slot {
            Some((there, _)) if there.events >= member.events => {
                if there.events == member.events {
                    return Err(Error::unsupported("md.duplicate", "two devices have the same place in an array"));
                }
            }
            _ => *slot = Some((member.clone(), Arc::clone(disk))),
        }
    }
    Ok(slots)
}

fn build(array: &Member, slots: &[Slot]) -> Result<Arc<dyn DiskMut>> {
    match array.level {
        -1 => linear(array, &all(slots)?),
        0 => striped(array, &all(slots)?),
        1 => mirror(array, slots),
        4..=6 => parity(array, slots),
        10 => near(array, slots),
        level => Err(Error::unsupported("md.unsupported", "an array of this level is not read").found(level)),
    }
}

fn all(slots: &[Slot]) -> Result<Vec<&Found>> {
    let there: Vec<_> = slots.iter().flatten().collect();
    if there.len() == slots.len() { Ok(there) } else { Err(degraded(there.len(), slots.len())) }
}

fn degraded(there: usize, wanted: usize) -> Error {
    Error::unsupported("md.degraded", "members of an array are missing or out of date")
        .expected(format!("{wanted} members"))
        .found(there)
        .hint("name all disks of the machine")
}

fn mapped(array: &Member, disks: Vec<Arc<dyn DiskMut>>, pieces: Vec<Piece>) -> Result<Arc<dyn DiskMut>> {
    if pieces.is_empty() {
        return Err(wrong("has no room for anything"));
    }
    let label = if array.name.is_empty() { array.uuid.clone() } else { array.name.clone() };
    let mapped =
        Mapped::new("md", label, disks, pieces).map_err(|error| wrong("does not fit on its members").because(error))?;
    Ok(Checked::wrap(mapped))
}

fn linear(array: &Member, members: &[&Found]) -> Result<Arc<dyn DiskMut>> {
    let piece = |(index, (member, _)): (usize, &&Found)| {
        let len = if array.chunk > 0 { whole_chunks(member.data_size, array.chunk) } else { member.data_size };
        Piece::linear(len, index, member.data_offset)
    };
    let pieces = members.iter().enumerate().map(piece).collect();
    mapped(array, disks(members), pieces)
}

fn disks(members: &[&Found]) -> Vec<Arc<dyn DiskMut>> {
    members.iter().map(|(_, disk)| Arc::clone(disk)).collect()
}

/// Level 0: zones, each over all members that are long enough for it.
fn striped(array: &Member, members: &[&Found]) -> Result<Arc<dyn DiskMut>> {
    let chunk = chunk(array)?;
    let sizes: Vec<u64> = members.iter().map(|(member, _)| whole_chunks(member.data_size, chunk)).collect();
    let mut pieces = Vec::new();
    let (mut from, mut placed) = (0, 0_u64);
    loop {
        let longer: Vec<usize> =
            (0..members.len()).filter(|index| sizes.get(*index).is_some_and(|len| *len > from)).collect();
        let Some(to) = longer.iter().filter_map(|index| sizes.get(*index)).min().copied() else { break };
        let count = u64::try_from(longer.len()).unwrap_or(0);
        let len = to.saturating_sub(from).checked_mul(count).ok_or_else(|| wrong("is too large"))?;
        let mut places: Vec<Option<Place>> = Vec::new();
        for index in &longer {
            let (member, _) = members.get(*index).ok_or_else(|| wrong("has no such member"))?;
            places.push(Some(Place { disk: *index, start: member.data_offset.saturating_add(from) }));
        }
        match array.layout {
            _ if pieces.is_empty() => {}
            // Turns were counted from the array's start.
            ORIGINAL_LAYOUT => {
                let turns = placed.checked_div(chunk).and_then(|chunks| chunks.checked_rem(count)).unwrap_or(0);
                places.rotate_left(usize::try_from(turns).unwrap_or(0));
            }
            ALTERNATE_LAYOUT => {}
            layout => {
                return Err(Error::unsupported(
                    "md.unsupported",
                    "members differ in size, and the layout is not written down",
                )
                .found(layout)
                .hint("the guest's kernel says which with raid0.default_layout"));
            }
        }
        pieces.push(Piece { len, how: How::Striped { chunk, copies: 1, places } });
        placed = placed.saturating_add(len);
        from = to;
    }
    mapped(array, disks(members), pieces)
}

fn chunk(array: &Member) -> Result<u64> {
    let is_possible = array.chunk >= 4096 && array.chunk.is_multiple_of(512) && array.chunk <= limits::MAX_DISK_LEN;
    if is_possible { Ok(array.chunk) } else { Err(wrong("has an impossible chunk size").found(array.chunk)) }
}

fn mirror(array: &Member, slots: &[Slot]) -> Result<Arc<dyn DiskMut>> {
    let there: Vec<_> = slots.iter().flatten().collect();
    if there.is_empty() {
        return Err(degraded(0, slots.len()));
    }
    let places =
        there.iter().enumerate().map(|(disk, (member, _))| Place { disk, start: member.data_offset }).collect();
    fits(array, &there)?;
    mapped(array, disks(&there), vec![Piece { len: array.used, how: How::Copies(places) }])
}

fn fits(array: &Member, members: &[&Found]) -> Result<()> {
    if members.iter().all(|(member, _)| array.used <= member.data_size) {
        return Ok(());
    }
    Err(wrong("is larger than what its members have for data").found(array.used))
}

fn near(array: &Member, slots: &[Slot]) -> Result<Arc<dyn DiskMut>> {
    let chunk = chunk(array)?;
    let (near, far) = (array.layout & 0xff, (array.layout >> 8) & 0xff);
    let copies = usize::try_from(near).unwrap_or(0);
    if far != 1 || array.layout >> 16 != 0 || copies == 0 || copies > slots.len() {
        return Err(Error::unsupported("md.unsupported", "of level 10, only near layouts are read")
            .found(format!("near={near}, far={far}")));
    }
    let there: Vec<_> = slots.iter().flatten().collect();
    fits(array, &there)?;
    let mut next = 0..there.len();
    let place = |slot: &Slot| {
        let (member, _) = slot.as_ref()?;
        Some(Place { disk: next.next()?, start: member.data_offset })
    };
    let places: Vec<Option<Place>> = slots.iter().map(place).collect();
    // Every run of copies, around the circle, needs one that is there.
    let count = places.len();
    let is_lost = |first: usize| {
        let at = |copy: usize| first.saturating_mul(copies).saturating_add(copy).checked_rem(count);
        (0..copies).all(|copy| at(copy).and_then(|at| places.get(at)).is_none_or(Option::is_none))
    };
    if (0..count).any(is_lost) {
        return Err(degraded(there.len(), count));
    }
    let chunks = array.used.checked_div(chunk).unwrap_or(0);
    let chunks = chunks.checked_mul(u64::from(array.raid_disks)).and_then(|all| all.checked_div(u64::from(near)));
    let len = chunks.and_then(|chunks| chunks.checked_mul(chunk)).ok_or_else(|| wrong("is too large"))?;
    mapped(array, disks(&there), vec![Piece { len, how: How::Striped { chunk, copies, places } }])
}

fn parity(array: &Member, slots: &[Slot]) -> Result<Arc<dyn DiskMut>> {
    let chunk = chunk(array)?;
    let there: Vec<_> = slots.iter().flatten().collect();
    let missing = slots.len().saturating_sub(there.len());
    if missing > 1 {
        return Err(degraded(there.len(), slots.len()));
    }
    if missing == 1 && there.iter().any(|(member, _)| !member.is_clean) {
        return Err(Error::unsupported(
            "md.degraded",
            "a member is missing, and the parity of the others is not up to date",
        ));
    }
    let layout = Layout::numbered(array.level, array.layout).ok_or_else(|| {
        Error::unsupported("md.unsupported", "an array with parity has a layout that is not known").found(array.layout)
    })?;
    fits(array, &there)?;
    let used = whole_chunks(array.used, chunk);
    let data = |slot: &Slot| -> Result<Option<Arc<dyn Disk>>> {
        let Some((member, disk)) = slot else { return Ok(None) };
        let end = member.data_offset.saturating_add(used);
        let slice = Slice::new(disk.name(), readable(disk), member.data_offset..end)?;
        Ok(Some(Checked::wrap(slice)))
    };
    let members = slots.iter().map(data).collect::<Result<Vec<_>>>()?;
    let geometry = Geometry { six: array.level == 6, layout, chunk, used };
    let array = Checked::wrap(Parity::new(&array.uuid, geometry, members)?);
    Ok(Checked::wrap(ReadOnly::new(array, "arrays with parity are read only")))
}

fn wrong(what: &str) -> Error {
    Error::corrupt("md.superblock", format!("an array of MD {what}"))
}

#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::indexing_slicing,
    reason = "tests build their input"
)]
mod tests;
