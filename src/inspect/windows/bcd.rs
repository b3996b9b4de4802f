//! Boot configuration data: what the boot manager of Windows starts. It is a hive of objects with elements.

use std::sync::Arc;

use serde::Serialize;

use super::drives::{self, DriveTarget};
use super::hives::{open_hive, resolve};
use super::{Reader, bounded, text};
use crate::disk::bytes::{array, le32, le64};
use crate::error::{Kind, Result};
use crate::fs::Tree;
use crate::hive::{Hive, Key};
use crate::inspect::machine::Machine;
use crate::limits;

/// A boot configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Bcd {
    /// Index in [`Machine::volumes`] of the volume that has it.
    pub volume: usize,
    /// Its path there.
    pub path: String,
    /// `bios` or `uefi`: the firmware that it is for.
    pub firmware: &'static str,
    /// The object that is started when nobody chooses.
    pub default: Option<String>,
    /// Seconds that the boot manager waits for a choice.
    pub timeout: Option<u64>,
    /// What it can start, in the order in which it offers it; then what it does not offer.
    pub loaders: Vec<Loader>,
}

/// Something that the boot manager can start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Loader {
    /// The object's GUID, with braces.
    pub id: String,
    /// What people see.
    pub description: Option<String>,
    /// The program: `\Windows\system32\winload.exe`.
    pub path: Option<String>,
    /// The directory of the Windows that it starts, in its volume.
    pub system_root: Option<String>,
    /// Index in [`Machine::volumes`] of the Windows that it starts, where it is known.
    pub volume: Option<usize>,
    /// Whether the boot manager offers it.
    pub is_offered: bool,
}

/// Where a BCD lies on a volume, and the firmware that looks there.
const PLACES: &[(&str, &str)] = &[("/Boot/BCD", "bios"), ("/EFI/Microsoft/Boot/BCD", "uefi")];

/// The boot manager's object.
const MANAGER: &str = "{9dea862c-5cdd-4e70-acc1-f32b344d4795}";

/// `Description\Type` of objects that start a Windows, and of those that start something else from a boot sector.
const STARTERS: [u64; 2] = [0x1020_0003, 0x1030_0005];

/// The volume and path of the BCD of a Windows on `volume`: its own disk is looked at first.
pub(super) fn places(machine: &Machine, volume: usize) -> Result<Option<(usize, String)>> {
    let disk = machine.volumes.get(volume).map_or(0, |volume| volume.disk);
    let mut order: Vec<usize> = (0..machine.volumes.len()).collect();
    order.sort_by_key(|index| machine.volumes.get(*index).map(|volume| volume.disk != disk));
    for index in order {
        let fs = machine.volumes.get(index).and_then(|volume| volume.fs.as_ref());
        let Some(fs) = fs.filter(|fs| matches!(fs.facts().kind, "ntfs" | "vfat")) else { continue };
        let tree = Tree::new(Arc::clone(fs));
        for (path, _) in PLACES {
            let found = match resolve(&tree, path) {
                Err(error) if matches!(error.kind(), Kind::Corrupt | Kind::Limit | Kind::Unsupported) => None,
                other => other?,
            };
            if let Some(path) = found {
                return Ok(Some((index, path)));
            }
        }
    }
    Ok(None)
}

pub(super) fn find(reader: &mut Reader<'_>, machine: &Machine, volume: usize) -> Result<Option<Bcd>> {
    let Some((index, path)) = places(machine, volume)? else { return Ok(None) };
    let Some(fs) = machine.volumes.get(index).and_then(|volume| volume.fs.as_ref()) else { return Ok(None) };
    let tree = Tree::new(Arc::clone(fs));
    let read = open_hive(&tree, &path).and_then(|hive| match hive {
        Some(hive) => read(&hive, machine, index, &path).map(Some),
        None => Ok(None),
    });
    reader.part(&path, read)
}

fn read(hive: &Hive, machine: &Machine, volume: usize, path: &str) -> Result<Bcd> {
    let is_uefi = path.to_ascii_lowercase().starts_with("/efi/");
    let mut bcd = Bcd {
        volume,
        path: path.to_owned(),
        firmware: if is_uefi { "uefi" } else { "bios" },
        default: None,
        timeout: None,
        loaders: Vec::new(),
    };
    let mut offered = Vec::new();
    if let Some(manager) = hive.key(&format!("Objects\\{MANAGER}\\Elements"))? {
        bcd.default = element(&manager, "23000003")?.map_or(Ok(None), |key| text(&key, "Element"))?;
        bcd.timeout = element(&manager, "25000004")?
            .map_or(Ok(None), |key| key.bytes("Element"))?
            .filter(|bytes| bytes.len() == 8)
            .map(|bytes| le64(&bytes, 0));
        offered = element(&manager, "24000001")?.map_or(Ok(Vec::new()), |key| key.texts("Element"))?;
    }
    let Some(objects) = hive.key("Objects")? else { return Ok(bcd) };
    for object in objects.subkeys()?.take(limits::MAX_WINDOWS_ITEMS) {
        let object = object?;
        let kind = object.subkey("Description")?.map_or(Ok(None), |key| key.number("Type"))?;
        if kind.is_some_and(|kind| STARTERS.contains(&kind)) {
            bcd.loaders.push(loader(&object, machine, &offered)?);
        }
    }
    let place =
        |loader: &Loader| offered.iter().position(|id| id.eq_ignore_ascii_case(&loader.id)).unwrap_or(usize::MAX);
    bcd.loaders.sort_by_key(place);
    Ok(bcd)
}

fn loader(object: &Key<'_>, machine: &Machine, offered: &[String]) -> Result<Loader> {
    let elements = object.subkey("Elements")?;
    let find = |name: &str| elements.as_ref().map_or(Ok(None), |elements| element(elements, name));
    let words = |name: &str| find(name)?.map_or(Ok(None), |key| text(&key, "Element"));
    let device = match find("21000001")? {
        Some(key) => key.bytes("Element")?,
        None => find("11000001")?.map_or(Ok(None), |key| key.bytes("Element"))?,
    };
    let target = device.as_deref().and_then(partition);
    Ok(Loader {
        id: bounded(object.name().to_owned()),
        description: words("12000004")?,
        path: words("12000002")?,
        system_root: words("22000002")?,
        volume: target.and_then(|target| drives::volume(machine, &target)),
        is_offered: offered.iter().any(|id| id.eq_ignore_ascii_case(object.name())),
    })
}

fn element<'a>(elements: &Key<'a>, name: &str) -> Result<Option<Key<'a>>> {
    elements.subkey(name)
}

/// The partition that a device element names, which follows the GUID of its options: type 6, flags, size, then the partition's GUID
/// or offset, the kind of its table, and the disk's GUID or signature.
fn partition(element: &[u8]) -> Option<DriveTarget> {
    const QUALIFIED_PARTITION: u32 = 6;
    if element.len() < 0x48 || le32(element, 0x10) != QUALIFIED_PARTITION {
        return None;
    }
    match le32(element, 0x34) {
        0 => Some(DriveTarget::Gpt { partition: uuid::Uuid::from_bytes_le(array(element, 0x20)).to_string() }),
        1 => Some(DriveTarget::Mbr { disk: format!("{:08x}", le32(element, 0x38)), offset: le64(element, 0x20) }),
        _ => None,
    }
}
