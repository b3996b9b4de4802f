//! Drive letters.

use serde::Serialize;

use super::{bounded, bounded_list};
use crate::disk::bytes::{le32, le64};
use crate::error::Result;
use crate::hive::Hive;
use crate::inspect::machine::Machine;

/// A drive letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Drive {
    /// `C`.
    pub letter: char,
    /// What it stands for, as the registry has it.
    pub target: DriveTarget,
    /// Index in [`Machine::volumes`], where it is one of these.
    pub volume: Option<usize>,
}

/// What a drive letter stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum DriveTarget {
    /// A partition of a disk with an MBR.
    Mbr {
        /// The signature in the disk's MBR.
        disk: String,
        /// Bytes from the start of the disk.
        offset: u64,
    },
    /// A partition of a disk with a GPT, by its unique GUID.
    Gpt {
        /// In lower case.
        partition: String,
    },
    /// Something that is named by its driver: an optical drive, a removable disk.
    Device {
        /// The name.
        name: String,
    },
}

pub(super) fn read(hive: &Hive, machine: &Machine) -> Result<Vec<Drive>> {
    let Some(key) = hive.key("MountedDevices")? else { return Ok(Vec::new()) };
    let mut drives = bounded_list(key.values()?.filter_map(|value| {
        let value = match value {
            Ok(value) => value,
            Err(error) => return Some(Err(error)),
        };
        let letter = letter_of(value.name())?;
        Some(value.data().map(|data| {
            let target = target(&data.bytes);
            let volume = volume(machine, &target);
            Drive { letter, target, volume }
        }))
    }))?;
    drives.sort_by_key(|drive| drive.letter);
    Ok(drives)
}

/// The letter in `\DosDevices\C:`.
fn letter_of(name: &str) -> Option<char> {
    const PREFIX: &str = "\\DosDevices\\";
    let (prefix, rest) = name.split_at_checked(PREFIX.len())?;
    let mut chars = rest.chars();
    match (prefix.eq_ignore_ascii_case(PREFIX), chars.next(), chars.as_str()) {
        (true, Some(letter), ":") if letter.is_ascii_alphabetic() => Some(letter.to_ascii_uppercase()),
        _ => None,
    }
}

fn target(data: &[u8]) -> DriveTarget {
    if data.len() == 12 {
        return DriveTarget::Mbr { disk: format!("{:08x}", le32(data, 0)), offset: le64(data, 4) };
    }
    if let Some(guid) = data.strip_prefix(b"DMIO:ID:").and_then(|guid| <[u8; 16]>::try_from(guid).ok()) {
        return DriveTarget::Gpt { partition: uuid::Uuid::from_bytes_le(guid).to_string() };
    }
    let units: Vec<u16> = data.chunks_exact(2).map(|unit| crate::disk::bytes::le16(unit, 0)).collect();
    DriveTarget::Device { name: bounded(String::from_utf16_lossy(&units)) }
}

/// The only volume that is this target.
pub(super) fn volume(machine: &Machine, target: &DriveTarget) -> Option<usize> {
    let mut matching = machine.volumes.iter().enumerate().filter(|(_, volume)| {
        let Some(partuuid) = volume.partuuid.as_deref().filter(|_| volume.mapper.is_none()) else { return false };
        match target {
            DriveTarget::Mbr { disk, offset } => {
                let signature = partuuid.split_once('-').map(|(signature, _)| signature);
                partuuid.len() < 36
                    && signature.is_some_and(|signature| signature.eq_ignore_ascii_case(disk))
                    && volume.start == Some(*offset)
            }
            DriveTarget::Gpt { partition } => partuuid.eq_ignore_ascii_case(partition),
            DriveTarget::Device { .. } => false,
        }
    });
    let (index, _) = matching.next()?;
    matching.next().is_none().then_some(index)
}
