//! Everything that is known of a machine and the systems on it, in the form that `inspect --json` prints.

use serde::Serialize;

use super::guest::{Guest, System};
use super::migrate::Machine;
use super::source;
use crate::container::ovf::Firmware;
use crate::inspect::{self, Deeper, Facts, Mount};
use crate::volume::{Partition, Table};

/// What `inspect` found.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Inspection<'a> {
    /// The disks and containers as they were named.
    pub sources: Vec<String>,
    /// Disks, volumes and network cards.
    pub machine: &'a inspect::Machine,
    /// Each disk's partition table; null for a disk without one.
    pub partition_tables: Vec<Option<PartitionTable<'a>>>,
    /// The firmware that the machine boots with: `bios` or `uefi`.
    pub firmware: &'static str,
    /// What says so: `source` (the description of the machine) or `disk` (its partitions).
    pub firmware_by: &'static str,
    /// The installed system, or the first of several: the one that `migrate` fixes.
    pub guest: Option<SystemFacts<'a>>,
    /// More systems on the machine.
    pub other_guests: Vec<SystemFacts<'a>>,
    /// Bytes that were fetched from the sources to tell all this.
    pub bytes_read: u64,
    /// What could not be read, and why.
    pub notes: &'a [String],
}

/// A partition table.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PartitionTable<'a> {
    /// `gpt` or `mbr`.
    pub kind: &'static str,
    /// The disk's identity: eight hexadecimal digits for MBR, a GUID for GPT.
    pub id: &'a str,
    /// Bytes of a sector, in which its addresses count.
    pub sector_size: u64,
    /// The partitions in Linux's order of numbers.
    pub partitions: Vec<PartitionFacts<'a>>,
    /// What is wrong or unusual.
    pub problems: Vec<String>,
}

/// A partition.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PartitionFacts<'a> {
    /// Linux's number of it.
    pub number: u32,
    /// Bytes from the start of the disk.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    /// Two hexadecimal digits for MBR, a GUID for GPT.
    #[serde(rename = "type")]
    pub type_id: &'a str,
    /// What that type is for.
    pub type_name: Option<&'a str>,
    /// Whether it is marked for booting.
    pub bootable: bool,
    /// As `PARTUUID=` writes it.
    pub partuuid: &'a str,
    /// Its name on GPT.
    pub label: Option<&'a str>,
}

/// An installed system.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SystemFacts<'a> {
    /// The volume of its root, by index.
    pub root_volume: usize,
    /// What is mounted where; the root comes first.
    pub mounts: &'a [Mount],
    /// What is known about it.
    pub facts: &'a Facts,
    /// Those that [`Guest::look_deeper`] added.
    pub deep: Option<&'a Deeper>,
}

impl<'a> Inspection<'a> {
    /// What is known of `machine` and the `guest` in it, which was opened from `sources`.
    #[must_use]
    pub fn of(sources: &[String], machine: &Machine, guest: &'a Guest) -> Self {
        let (firmware, firmware_by) = match machine.described() {
            Some(described) => (described.firmware, "source"),
            None if guest.looks_like_uefi() => (Firmware::Uefi, "disk"),
            None => (Firmware::Bios, "disk"),
        };
        let mut systems = guest.systems.iter().map(SystemFacts::of);
        Self {
            sources: source::shown(sources),
            machine: &guest.machine,
            partition_tables: guest.tables.iter().map(|table| table.as_ref().map(PartitionTable::of)).collect(),
            firmware: match firmware {
                Firmware::Bios => "bios",
                Firmware::Uefi => "uefi",
            },
            firmware_by,
            guest: systems.next(),
            other_guests: systems.collect(),
            bytes_read: machine.bytes_read(),
            notes: &guest.notes,
        }
    }
}

impl<'a> SystemFacts<'a> {
    fn of(system: &'a System) -> Self {
        Self {
            root_volume: system.root.volume,
            mounts: &system.root.mounts,
            facts: &system.facts,
            deep: system.deep.as_ref(),
        }
    }
}

impl<'a> PartitionTable<'a> {
    fn of(table: &'a Table) -> Self {
        Self {
            kind: table.kind.name(),
            id: &table.id,
            sector_size: table.sector_size.bytes(),
            partitions: table.partitions.iter().map(PartitionFacts::of).collect(),
            problems: table.problems.iter().map(ToString::to_string).collect(),
        }
    }
}

impl<'a> PartitionFacts<'a> {
    fn of(partition: &'a Partition) -> Self {
        Self {
            number: partition.number,
            offset: partition.range.start,
            length: partition.range.end.saturating_sub(partition.range.start),
            type_id: &partition.type_id,
            type_name: partition.type_name,
            bootable: partition.bootable,
            partuuid: &partition.partuuid,
            label: partition.label.as_deref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With `HYPER2KVM_WRITE_SCHEMA` set the file is written anew.
    #[test]
    #[allow(clippy::disallowed_methods, reason = "a test reads a file of the repository")]
    fn the_published_schema_is_that_of_the_types() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/inspect.schema.json");
        let schema = serde_json::to_string_pretty(&schemars::schema_for!(Inspection<'static>)).unwrap() + "\n";
        if std::env::var_os("HYPER2KVM_WRITE_SCHEMA").is_some() {
            std::fs::write(path, &schema).unwrap();
        }
        assert!(
            std::fs::read_to_string(path).unwrap() == schema,
            "write it anew: HYPER2KVM_WRITE_SCHEMA=1 cargo test schema"
        );
    }
}
