//! LVM2: physical volumes, their groups, and the logical volumes as disks.
//!
//! Metadata is believed when its checksums are right; of several copies, the newest counts. What a group lacks or what is not
//! read is told of each volume by itself, and the others can be used.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::disk::DiskMut;
use crate::error::{Error, Result};

mod build;
mod group;
mod label;
mod raid;
mod text;
mod thin;

use build::Builder;
use group::Described;

/// A volume group with its logical volumes.
#[derive(Debug)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// As LVM shows it.
    pub uuid: String,
    /// Which change of it this is.
    pub seqno: u64,
    /// The UUIDs of physical volumes that belong to it and are not there, or are out of date.
    pub missing: Vec<String>,
    /// Its visible volumes, by name.
    pub volumes: Vec<LogicalVolume>,
}

/// A logical volume.
#[derive(Debug)]
pub struct LogicalVolume {
    /// Its name in its group.
    pub name: String,
    /// As LVM shows it.
    pub uuid: String,
    /// The types of its segments: `linear`, `raid1` …
    pub kinds: Vec<String>,
    /// Its bytes, or why there are none.
    pub disk: Result<Arc<dyn DiskMut>>,
}

impl Group {
    /// The name of a volume below `/dev/mapper`: a dash in either name is written twice.
    #[must_use]
    pub fn mapper_name(&self, volume: &LogicalVolume) -> String {
        format!("{}-{}", self.name.replace('-', "--"), volume.name.replace('-', "--"))
    }
}

/// What was found on some physical volumes.
#[derive(Debug, Default)]
pub struct Found {
    /// By name.
    pub groups: Vec<Group>,
    /// What could not be used, and why.
    pub problems: Vec<Error>,
}

/// Puts together the groups of these physical volumes. What cannot be read is among the problems.
#[must_use]
pub fn groups(disks: &[Arc<dyn DiskMut>]) -> Found {
    let mut found = Found::default();
    let mut physical: BTreeMap<String, Arc<dyn DiskMut>> = BTreeMap::new();
    let mut twice = Vec::new();
    let mut newest: BTreeMap<String, Described> = BTreeMap::new();
    for disk in disks {
        let label = match label::read(&**disk) {
            Ok(label) => label,
            Err(error) => {
                found.problems.push(error.at(disk.name()));
                continue;
            }
        };
        if physical.insert(label.uuid.clone(), Arc::clone(disk)).is_some() {
            twice.push(label.uuid.clone());
        }
        found.problems.extend(label.problems.into_iter().map(|error| error.at(disk.name())));
        for copy in &label.copies {
            match Described::read(copy) {
                Ok(group) if newest.get(&group.uuid).is_some_and(|known| known.seqno >= group.seqno) => {}
                Ok(group) => drop(newest.insert(group.uuid.clone(), group)),
                Err(error) => found.problems.push(error.at(disk.name())),
            }
        }
    }
    for uuid in twice {
        // Which of them is the right one cannot be told.
        physical.remove(&uuid);
        let error = Error::unsupported("lvm.duplicate", "two physical volumes have the same UUID; neither is used");
        found.problems.push(error.found(dashed(&uuid)));
    }
    found.groups = newest.values().map(|group| open(group, &physical)).collect();
    found.groups.sort_by(|a, b| (&a.name, &a.uuid).cmp(&(&b.name, &b.uuid)));
    found
}

fn open(group: &Described, physical: &BTreeMap<String, Arc<dyn DiskMut>>) -> Group {
    let mut builder = Builder::new(group, physical);
    // What a snapshot of the old kind keeps is not marked as visible, but it is what people know as the snapshot.
    let snapshots: Vec<&str> = group.snapshots().collect();
    let visible = group.logical.iter().filter(|(name, lv)| lv.is_visible || snapshots.contains(&name.as_str()));
    // A thin pool shows as a volume, and has no bytes of its own for anybody; a snapshot's segment belongs to its two volumes.
    let is_inner = |kind: &str| matches!(kind, "thin-pool" | "cache-pool" | "vdo-pool" | "snapshot");
    let volumes =
        visible.filter(|(_, lv)| !lv.segments.iter().any(|segment| is_inner(&segment.kind))).map(|(name, lv)| {
            let mut kinds: Vec<String> = lv.segments.iter().map(kind_name).collect();
            kinds.dedup();
            LogicalVolume { name: name.clone(), uuid: lv.uuid.clone(), kinds, disk: builder.visible(name) }
        });
    let is_missing = |pv: &&group::Physical| pv.is_missing || !physical.contains_key(&pv.uuid);
    Group {
        name: group.name.clone(),
        uuid: group.uuid.clone(),
        seqno: group.seqno,
        volumes: volumes.collect(),
        missing: group.physical.values().filter(is_missing).map(|pv| dashed(&pv.uuid)).collect(),
    }
}

/// What LVM calls a segment's type: `striped` over one area is `linear`.
fn kind_name(segment: &group::Segment) -> String {
    let is_linear = segment.kind == "striped" && segment.about.count("stripe_count") == Some(1);
    if is_linear { "linear".to_owned() } else { segment.kind.clone() }
}

/// A UUID of 32 characters as LVM shows it: `6-4-4-4-4-4-6`.
fn dashed(uuid: &str) -> String {
    let groups = [0..6, 6..10, 10..14, 14..18, 18..22, 22..26, 26..32];
    let parts: Vec<&str> = groups.into_iter().filter_map(|range| uuid.get(range)).collect();
    if parts.len() == 7 { parts.join("-") } else { uuid.to_owned() }
}

#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::indexing_slicing,
    reason = "tests build their input"
)]
mod tests;
