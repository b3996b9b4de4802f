//! A machine's volumes upon each other: partitions, arrays, encrypted volumes, logical volumes, in whatever order they lie.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::signature::{self, Signature, Usage};
use super::{Partition, Role, Table, luks, lvm, md};
use crate::disk::bytes::is_at;
use crate::disk::{Checked, DiskMut, Slice, read_vec, readable};
use crate::error::{Error, Result};
use crate::limits;
use crate::session::Keys;

/// Layers of arrays, encryption and groups upon each other. Real machines have three.
const DEPTH: usize = 8;

/// A disk of the machine, with what its partition table says.
#[derive(Debug)]
pub struct Whole<'a> {
    /// Its bytes.
    pub disk: Arc<dyn DiskMut>,
    /// Its table, if it has one.
    pub table: Option<&'a Table>,
}

/// All volumes of a machine.
#[derive(Debug, Default)]
pub struct Stack {
    /// Those on the disks first, in order; then what was found in them.
    pub layers: Vec<Layer>,
    /// What could not be used, and why.
    pub notes: Vec<String>,
    /// The names of all layers, each with the number that the next one of that name is tried with.
    names: BTreeMap<String, u64>,
}

/// A volume.
#[derive(Clone, Debug)]
pub struct Layer {
    /// What it is called here: `disk1`, `disk1/p2`, `vg/root`, `md0`, `md0/p1`, `luks-UUID`.
    pub name: String,
    /// What it is.
    pub kind: LayerKind,
    /// The partition that it is, of its disk or array.
    pub partition: Option<Partition>,
    /// The path of its device in the guest, other than a disk's or partition's: `/dev/mapper/vg-root`.
    pub path: Option<String>,
    /// Other paths of it.
    pub aliases: Vec<String>,
    /// The encrypted volume whose inside it is, among all layers.
    pub inside: Option<usize>,
    /// Its bytes.
    pub disk: Arc<dyn DiskMut>,
    /// What is on it.
    pub signatures: Vec<Signature>,
}

/// What a [`Layer`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerKind {
    /// An array of MD, or a partition of one.
    Array,
    /// The inside of an encrypted volume.
    Crypt,
    /// A logical volume.
    Logical,
    /// A partition of a disk, or a whole disk without a table.
    Place {
        /// The disk's index.
        disk: usize,
    },
}

impl Layer {
    /// The one thing that it holds, if it holds one thing. A member of an array holds what its array holds too, so the
    /// superblock alone counts.
    #[must_use]
    pub fn sole(&self) -> Option<&Signature> {
        let is_member = |signature: &&Signature| signature.kind == "linux_raid_member";
        self.signatures.iter().find(is_member).or_else(|| signature::sole(&self.signatures))
    }
}

impl Stack {
    /// Finds everything on `disks`. Encrypted volumes are opened with those of `keys` that fit.
    ///
    /// # Errors
    /// When a disk cannot be read. Damage is told in the notes.
    pub fn find(disks: &[Whole<'_>], keys: &Keys) -> Result<Self> {
        let mut stack = Self::default();
        for (index, whole) in disks.iter().enumerate() {
            stack.places(index, whole)?;
        }
        let mut next = 0;
        for _ in 0..DEPTH {
            // Arrays and encryption first, until there is nothing new: groups may need them all.
            let from = std::mem::replace(&mut next, stack.layers.len());
            if from == next {
                stack.number_the_last();
                return Ok(stack);
            }
            stack.arrays(from..next);
            stack.encrypted(from..next, keys);
            if stack.layers.len() == next {
                stack.groups();
            }
        }
        stack.notes.push("volumes are stacked too deeply; the rest is left alone".to_owned());
        Ok(stack)
    }

    /// An array without a number gets the highest that is free, 127; which one that is, is clear when there is one such array.
    fn number_the_last(&mut self) {
        let is_unnumbered = |layer: &&mut Layer| {
            let of_array = layer.path.as_deref().and_then(|path| path.strip_prefix("/dev/md"));
            layer.partition.is_none() && of_array.is_some_and(|rest| rest.starts_with('/'))
        };
        let mut unnumbered = self.layers.iter_mut().filter(is_unnumbered);
        if let (Some(layer), None) = (unnumbered.next(), unnumbered.next()) {
            layer.aliases.push("/dev/md127".to_owned());
        }
    }

    /// The partitions of a disk that lie on it alone, or all of the disk where it has no table or belongs to an array.
    fn places(&mut self, disk: usize, whole: &Whole<'_>) -> Result<()> {
        let number = disk.saturating_add(1);
        let Some(table) = whole.table.filter(|table| !is_whole_member(whole, table)) else {
            let kind = LayerKind::Place { disk };
            return self.add(format!("disk{number}"), kind, Arc::clone(&whole.disk), None);
        };
        for partition in &table.partitions {
            if partition.role == Role::Extended || table.check_writable(partition.number).is_err() {
                continue;
            }
            let label = format!("partition {} of disk {number}", partition.number);
            let slice = Checked::wrap(Slice::new_mut(label, Arc::clone(&whole.disk), partition.range.clone())?);
            let name = format!("disk{number}/p{}", partition.number);
            self.add(name, LayerKind::Place { disk }, slice, Some(partition.clone()))?;
            if is_dynamic(whole, partition)?
                && let Some(layer) = self.layers.last_mut()
            {
                // What begins there may go on elsewhere, or have a copy that is newer.
                let dynamic = Signature { kind: "LDM", usage: Usage::Raid, uuid: None, label: None, offset: 0 };
                layer.signatures = vec![dynamic];
                self.notes.push(format!("{} is of a Windows dynamic disk, whose volumes are not read", layer.name));
            }
        }
        Ok(())
    }

    fn add(
        &mut self,
        name: String,
        kind: LayerKind,
        disk: Arc<dyn DiskMut>,
        partition: Option<Partition>,
    ) -> Result<()> {
        if self.layers.len() >= limits::MAX_VOLUMES {
            return Err(Error::limit("volume.count", "a machine has too many volumes"));
        }
        let signatures = signature::probe(&*disk)?;
        let name = self.free_name(name);
        let (path, aliases) = (None, Vec::new());
        self.layers.push(Layer { name, kind, partition, path, aliases, inside: None, disk, signatures });
        Ok(())
    }

    /// `name`, or one like it that is not taken.
    fn free_name(&mut self, name: String) -> String {
        let Some(first) = self.names.get(&name).copied() else {
            self.names.insert(name.clone(), 2);
            return name;
        };
        let taken = |number: &u64| self.names.contains_key(&format!("{name}.{number}"));
        let number = (first..).find(|number| !taken(number)).unwrap_or(first);
        let free = format!("{name}.{number}");
        self.names.insert(name, number.saturating_add(1));
        self.names.insert(free.clone(), 2);
        free
    }

    /// Adds a volume that was found in others; what is wrong with it becomes a note.
    fn found(&mut self, name: String, kind: LayerKind, disk: Arc<dyn DiskMut>, path: String, aliases: Vec<String>) {
        match self.add(name.clone(), kind, disk, None) {
            Ok(()) => {
                if let Some(layer) = self.layers.last_mut() {
                    layer.path = Some(path);
                    layer.aliases = aliases;
                }
            }
            Err(error) => self.notes.push(format!("{name} is left alone: {error}")),
        }
    }

    /// Puts together the arrays whose members are among `layers`.
    fn arrays(&mut self, layers: Range<usize>) {
        let mut members = Vec::new();
        for layer in self.layers.get(layers).unwrap_or_default() {
            if layer.sole().is_none_or(|signature| signature.kind != "linux_raid_member") {
                continue;
            }
            match md::probe(&*layer.disk) {
                Ok(Some(member)) => members.push((member, Arc::clone(&layer.disk))),
                Ok(None) => {}
                Err(error) => self.notes.push(format!("{} is left alone: {error}", layer.name)),
            }
        }
        for array in md::arrays(members) {
            let name = array_name(&array);
            match &array.disk {
                Ok(disk) => self.array(&array, name, Arc::clone(disk)),
                Err(error) => self.notes.push(format!("the array {name} is left alone: {error}")),
            }
        }
    }

    fn array(&mut self, array: &md::Array, name: String, disk: Arc<dyn DiskMut>) {
        if array.active < usize::try_from(array.members).unwrap_or(usize::MAX) {
            self.notes.push(format!("the array {name} is read with {} of {} members", array.active, array.members));
        }
        let named = |prefix: &str, name: &Option<String>| name.as_ref().map(|name| format!("{prefix}{name}"));
        let mut paths: Vec<String> = array.number.map(|number| format!("/dev/md{number}")).into_iter().collect();
        paths.extend(named("/dev/md/", &array.name));
        paths.extend(named("/dev/md/", &array.full_name).filter(|path| !paths.contains(path)));
        paths.extend(named("/dev/disk/by-id/md-name-", &array.full_name));
        paths.push(format!("/dev/disk/by-id/md-uuid-{}", array.uuid));
        let path = paths.remove(0);
        let first = self.layers.len();
        self.found(name.clone(), LayerKind::Array, Arc::clone(&disk), path.clone(), paths);
        let whole = readable(&disk);
        let table = match super::scan(&whole) {
            Ok(Some(table)) if self.layers.len() > first => table,
            Ok(_) => return,
            Err(error) => return self.notes.push(format!("the partitions of {name} are left alone: {error}")),
        };
        for partition in table.partitions.iter().filter(|partition| partition.role != Role::Extended) {
            if table.check_writable(partition.number).is_err() {
                continue;
            }
            let label = format!("partition {} of {name}", partition.number);
            let Ok(slice) = Slice::new_mut(label, Arc::clone(&disk), partition.range.clone()) else { continue };
            let path = format!("{path}p{}", partition.number);
            let before = self.layers.len();
            self.found(
                format!("{name}/p{}", partition.number),
                LayerKind::Array,
                Checked::wrap(slice),
                path,
                Vec::new(),
            );
            if let Some(layer) = self.layers.get_mut(before) {
                layer.partition = Some(partition.clone());
            }
        }
    }

    /// Opens the encrypted volumes among `layers`, as far as there are keys.
    fn encrypted(&mut self, layers: Range<usize>, keys: &Keys) {
        let is_encrypted = |layer: &Layer| layer.sole().is_some_and(|signature| signature.kind == "crypto_LUKS");
        let encrypted: Vec<(usize, Layer)> = self
            .layers
            .iter()
            .enumerate()
            .filter(|(index, layer)| layers.contains(index) && is_encrypted(layer))
            .map(|(index, layer)| (index, layer.clone()))
            .collect();
        for (index, layer) in encrypted {
            match open_encrypted(&layer, keys) {
                Ok((uuid, disk)) => {
                    let mut aliases = vec![format!("/dev/disk/by-id/dm-uuid-CRYPT-LUKS-{uuid}")];
                    aliases.extend(debian_name(&layer));
                    let name = format!("luks-{uuid}");
                    let inner = self.layers.len();
                    self.found(name.clone(), LayerKind::Crypt, disk, format!("/dev/mapper/{name}"), aliases);
                    if let Some(layer) = self.layers.get_mut(inner) {
                        layer.inside = Some(index);
                    }
                }
                Err(error) => {
                    let hint = error.next().map(|hint| format!("; {hint}")).unwrap_or_default();
                    self.notes.push(format!("{} stays encrypted: {error}{hint}", layer.name));
                }
            }
        }
    }

    /// Opens the groups of all physical volumes. A group that was opened before, when some of them were not found yet, is left.
    fn groups(&mut self) {
        let is_physical = |layer: &&Layer| layer.sole().is_some_and(|signature| signature.kind == "LVM2_member");
        let physical: Vec<_> = self.layers.iter().filter(is_physical).map(|layer| Arc::clone(&layer.disk)).collect();
        if physical.is_empty() {
            return;
        }
        let found = lvm::groups(&physical);
        for error in &found.problems {
            let note = format!("a physical volume is not used as it should be: {error}");
            if !self.notes.contains(&note) {
                self.notes.push(note);
            }
        }
        for group in &found.groups {
            for volume in &group.volumes {
                let mapper = group.mapper_name(volume);
                let path = format!("/dev/mapper/{mapper}");
                let is_known = self.layers.iter().any(|layer| layer.path.as_deref() == Some(&path));
                let name = format!("{}/{}", group.name, volume.name);
                match &volume.disk {
                    Ok(_) if is_known => {}
                    Ok(disk) => {
                        let uuids = [group.uuid.as_str(), &volume.uuid].map(|uuid| uuid.replace('-', ""));
                        let aliases = vec![
                            format!("/dev/{name}"),
                            format!("/dev/disk/by-id/dm-name-{mapper}"),
                            format!("/dev/disk/by-id/dm-uuid-LVM-{}", uuids.concat()),
                        ];
                        self.found(name, LayerKind::Logical, Arc::clone(disk), path, aliases);
                    }
                    Err(error) => {
                        let note = format!("the logical volume {name} is left alone: {error}");
                        if !self.notes.contains(&note) {
                            self.notes.push(note);
                        }
                    }
                }
            }
        }
    }
}

/// Whether a disk with a partition table is a member of an array as a whole: the table is then the array's. A superblock at the
/// end of the disk may just as well be that of a last partition.
fn is_whole_member(whole: &Whole<'_>, table: &Table) -> bool {
    let Ok(Some(member)) = md::probe(&*whole.disk) else { return false };
    let is_of_partition = |partition: &&Partition| {
        if partition.role == Role::Extended || !partition.range.contains(&member.offset) {
            return false;
        }
        let slice = Slice::new_mut("partition", Arc::clone(&whole.disk), partition.range.clone());
        let of_partition = slice.ok().and_then(|slice| md::probe(&*Checked::wrap(slice)).ok().flatten());
        of_partition.is_some_and(|found| found.uuid == member.uuid && found.fits())
    };
    !table.partitions.iter().any(|partition| is_of_partition(&partition))
}

/// Whether a partition belongs to Windows' Logical Disk Manager. On an MBR its private header lies behind the table.
fn is_dynamic(whole: &Whole<'_>, partition: &Partition) -> Result<bool> {
    const PRIVATE_HEADER: u64 = 6 * 512;
    match partition.type_id.as_str() {
        "5808c8aa-7e8f-42e0-85d2-e1e90434cfb3" | "af9b60a0-1431-4f62-bc68-3311714a69ad" => Ok(true),
        "42" if whole.disk.len() >= PRIVATE_HEADER + 512 => {
            Ok(is_at(&read_vec(&*whole.disk, PRIVATE_HEADER, 8)?, 0, b"PRIVHEAD"))
        }
        _ => Ok(false),
    }
}

fn array_name(array: &md::Array) -> String {
    match (array.number, &array.name) {
        (Some(number), _) => format!("md{number}"),
        (None, Some(name)) => format!("md/{name}"),
        (None, None) => format!("md-{}", array.uuid),
    }
}

/// What Debian's installer calls the inside of an encrypted partition: `/dev/mapper/sda3_crypt`.
fn debian_name(layer: &Layer) -> Option<String> {
    let (LayerKind::Place { disk }, Some(partition)) = (layer.kind, &layer.partition) else { return None };
    let letter = u8::try_from(disk).ok().filter(|disk| *disk < 26)?.saturating_add(b'a');
    Some(format!("/dev/mapper/sd{}{}_crypt", char::from(letter), partition.number))
}

fn open_encrypted(layer: &Layer, keys: &Keys) -> Result<(String, Arc<dyn DiskMut>)> {
    let header = luks::Header::read(&*layer.disk)?;
    let uuid = header.uuid().to_owned();
    let mut names = vec![uuid.as_str(), layer.name.as_str()];
    names.extend(layer.path.as_deref());
    names.extend(layer.aliases.iter().map(String::as_str));
    let disk = header.unlock(Arc::clone(&layer.disk), keys.fitting(&names))?;
    Ok((uuid, disk))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Memory;
    use crate::disk::bytes::{put, put32};
    use crate::volume::scan;

    #[test]
    fn volumes_of_dynamic_disks_are_named_and_not_taken_for_what_they_hold() {
        let mut image = vec![0; 1 << 20];
        put(&mut image, 446, &[0, 0, 0, 0, 0x42]);
        put32(&mut image, 446 + 8, 64);
        put32(&mut image, 446 + 12, 1024);
        put(&mut image, 510, &[0x55, 0xaa]);
        put(&mut image, 64 * 512 + 3, b"NTFS    ");
        for (header, kind) in [(&b"PRIVHEAD"[..], "LDM"), (b"", "ntfs")] {
            let mut image = image.clone();
            put(&mut image, 6 * 512, header);
            let disk: Arc<dyn DiskMut> = Checked::wrap(Memory::new(image));
            let table = scan(&readable(&disk)).unwrap().unwrap();
            let stack = Stack::find(&[Whole { disk, table: Some(&table) }], &Keys::default()).unwrap();
            let [layer] = stack.layers.as_slice() else { panic!("{:?}", stack.layers) };
            assert_eq!(layer.sole().unwrap().kind, kind);
            assert_eq!(stack.notes.len(), usize::from(kind == "LDM"), "{:?}", stack.notes);
        }
    }

    #[test]
    fn names_that_are_taken_get_numbers() {
        let mut stack = Stack::default();
        let mut name = |name: &str| stack.free_name(name.to_owned());
        assert_eq!(["a", "a", "a.3", "a", "b", "a.3"].map(&mut name), ["a", "a.2", "a.3", "a.4", "b", "a.3.2"]);
        for number in 5..5000 {
            assert_eq!(name("a"), format!("a.{number}"));
        }
    }

    #[test]
    fn as_many_volumes_as_the_limit() {
        let disk = || -> Arc<dyn DiskMut> { Checked::wrap(Memory::new(vec![0; 512])) };
        let mut stack = Stack::default();
        for number in 0..limits::MAX_VOLUMES.saturating_sub(2) {
            let (name, kind) = (format!("disk{number}"), LayerKind::Place { disk: number });
            let (path, aliases, signatures) = (None, Vec::new(), Vec::new());
            stack.layers.push(Layer {
                name,
                kind,
                partition: None,
                path,
                aliases,
                inside: None,
                disk: disk(),
                signatures,
            });
        }
        let mut add =
            || stack.add("one more".to_owned(), LayerKind::Logical, disk(), None).map_err(|error| error.code());
        assert_eq!((add(), add(), add()), (Ok(()), Ok(()), Err("volume.count")));
    }
}
