//! A machine as the source describes it: disks in order, what lies on them, and its network cards.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::sync::Arc;

use serde::Serialize;

use crate::disk::DiskMut;
use crate::fs::Filesystem;

/// The disks of one machine in the order in which its firmware and kernel number them, and what is known beside them.
#[derive(Clone, Debug, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Machine {
    /// Disks in order; the first is `sda` on the source.
    pub disks: Vec<MachineDisk>,
    /// Everything on the disks that has a file system, is swap space, or could have one.
    pub volumes: Vec<Volume>,
    /// Network cards in order.
    pub nics: Vec<MachineNic>,
    /// Whether its firmware is UEFI rather than a BIOS.
    #[serde(skip)]
    pub uefi: bool,
}

/// A disk of the source machine.
#[derive(Clone, Debug, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct MachineDisk {
    /// The name that the guest's kernel gave it there: `sda`.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Which of the machine's disk controllers it is attached to, where known.
    pub controller: Option<u32>,
    /// Its address on that controller (the SCSI target), where known.
    pub unit: Option<u32>,
}

/// A network card.
#[derive(Clone, Debug, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct MachineNic {
    /// The address that it had on the source and keeps on the target, `00:50:56:…`, where known.
    pub mac: Option<String>,
    /// The source's model: `VmxNet3`.
    pub model: Option<String>,
}

/// A partition, a whole disk without a partition table, or a logical volume.
#[derive(Clone, Debug, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Volume {
    /// Index of its disk in [`Machine::disks`]; the first one for a volume that spans several.
    pub disk: usize,
    /// Partition number, from 1; `None` for a whole disk and for logical volumes.
    pub partition: Option<u32>,
    /// The disks that it lies on, by index: one but for arrays and logical volumes.
    pub disks: Vec<usize>,
    /// What it is called here: `disk1/p2`, `vg0/root`, `md0`.
    pub name: String,
    /// The path of a volume that is neither a partition nor a disk: `/dev/mapper/vg0-root`, `/dev/md0`.
    pub mapper: Option<String>,
    /// Other paths of it: `/dev/vg0/root`, `/dev/md/data`.
    pub aliases: Vec<String>,
    /// The partition's UUID as `PARTUUID=` writes it: 36 characters on GPT, `1a2b3c4d-01` on MBR.
    pub partuuid: Option<String>,
    /// Where a partition begins on its disk, in bytes.
    pub start: Option<u64>,
    /// The partition's name on GPT.
    pub partlabel: Option<String>,
    /// `ext4`, `xfs`, `swap` …, as in fstab.
    pub fs_kind: Option<String>,
    /// The UUID as fstab writes it.
    pub fs_uuid: Option<String>,
    /// The file system's label.
    pub fs_label: Option<String>,
    /// Bytes.
    pub size: u64,
    /// The opened file system, where there is a driver for it.
    #[serde(skip)]
    pub fs: Option<Arc<dyn Filesystem>>,
    /// Its bytes; what is written goes to the overlays of its disks.
    #[serde(skip)]
    pub bytes: Option<Arc<dyn DiskMut>>,
}

impl Volume {
    /// The specification that keeps its meaning on any bus: `UUID=` of the file system, else `PARTUUID=` of the partition.
    #[must_use]
    pub fn stable_spec(&self) -> Option<String> {
        let of = |key: &str, value: &Option<String>| {
            let value = value.as_deref().filter(|value| is_plain(value))?;
            Some(format!("{key}={value}"))
        };
        of("UUID", &self.fs_uuid).or_else(|| of("PARTUUID", &self.partuuid))
    }
}

/// Whether an identifier can stand in a configuration file without quoting.
fn is_plain(value: &str) -> bool {
    !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

impl Machine {
    /// What the source's kernel called a volume: `sda2`, or the path of a logical volume.
    #[must_use]
    pub fn name_of(&self, volume: &Volume) -> String {
        let disk = self.disks.get(volume.disk).map_or("?", |disk| disk.name.as_str());
        match (&volume.mapper, volume.partition) {
            (Some(mapper), _) => mapper.clone(),
            (None, Some(number)) => format!("{disk}{number}"),
            (None, None) => disk.to_owned(),
        }
    }

    /// Whether `name` is a volume's: as [`Machine::name_of`] has it, with or without `/dev/`, or `VG/LV`.
    #[must_use]
    pub fn is_called(&self, volume: &Volume, name: &str) -> bool {
        let plain = |name: &str| name.strip_prefix("/dev/").unwrap_or(name).to_owned();
        let mapped = |name: &str| match name.split_once('/') {
            Some((group, name)) => format!("mapper/{}-{}", group.replace('-', "--"), name.replace('-', "--")),
            None => name.to_owned(),
        };
        let (own, name) = (plain(&self.name_of(volume)), plain(name));
        own == name || own == mapped(&name)
    }

    /// The volume that a device specification (an fstab or `root=` value) names, as the source machine resolved it. `None`
    /// when it names none of this machine's volumes, or more than one.
    #[must_use]
    pub fn resolve(&self, spec: &str) -> Option<usize> {
        let spec = unquote(spec.trim());
        if let Some((key, value)) = spec.split_once('=') {
            return self.by_tag(key, unquote(value));
        }
        let name = spec.strip_prefix("/dev/")?;
        let is_named = |volume: &Volume| {
            volume.mapper.as_deref() == Some(spec) || volume.aliases.iter().any(|alias| unescape_udev(spec) == *alias)
        };
        if self.volumes.iter().any(is_named) {
            return self.only(is_named);
        }
        let disk_link = name.strip_prefix("disk/").and_then(|rest| rest.split_once('/'));
        match disk_link {
            Some(("by-uuid", value)) => self.by_tag("UUID", &unescape_udev(value)),
            Some(("by-label", value)) => self.by_tag("LABEL", &unescape_udev(value)),
            Some(("by-partuuid", value)) => self.by_tag("PARTUUID", &unescape_udev(value)),
            Some(("by-partlabel", value)) => self.by_tag("PARTLABEL", &unescape_udev(value)),
            Some(("by-path", value)) => self.by_path(value),
            Some(("by-id", value)) => self.by_id(value),
            Some(_) => None,
            None if name.starts_with("mapper/") => None,
            None => self.by_device(name),
        }
    }

    /// The specification of a volume that keeps its meaning on any bus, and means no other volume of this machine: `UUID=` of
    /// the file system; where a copy or snapshot has the same one, the path of a logical volume or `PARTUUID=`.
    #[must_use]
    pub fn stable_spec(&self, volume: &Volume) -> Option<String> {
        let is_it = |spec: &String| self.by_spec(spec).is_some_and(|found| std::ptr::eq(found, volume));
        let by_uuid = volume.stable_spec().filter(is_it);
        let by_name = || volume.mapper.clone().filter(|path| path.starts_with("/dev/mapper/")).filter(is_it);
        by_uuid.or_else(by_name).or_else(|| self.partuuid(volume))
    }

    /// `PARTUUID=` of a partition, which the kernel itself understands, if it means no other.
    #[must_use]
    pub fn partuuid(&self, volume: &Volume) -> Option<String> {
        let spec = format!("PARTUUID={}", volume.partuuid.as_deref().filter(|value| is_plain(value))?);
        Some(spec).filter(|spec| self.by_spec(spec).is_some_and(|found| std::ptr::eq(found, volume)))
    }

    fn by_spec(&self, spec: &str) -> Option<&Volume> {
        self.volumes.get(self.resolve(spec)?)
    }

    fn by_tag(&self, key: &str, value: &str) -> Option<usize> {
        if value.is_empty() {
            return None;
        }
        let same = |field: &Option<String>| field.as_deref().is_some_and(|field| field.eq_ignore_ascii_case(value));
        match key {
            "UUID" => self.only(|volume| same(&volume.fs_uuid)),
            "PARTUUID" => self.only(|volume| same(&volume.partuuid)),
            "LABEL" => self.only(|volume| volume.fs_label.as_deref() == Some(value)),
            "PARTLABEL" => self.only(|volume| volume.partlabel.as_deref() == Some(value)),
            _ => None,
        }
    }

    fn by_device(&self, name: &str) -> Option<usize> {
        let device = Device::parse(name)?;
        let named = self.disks.iter().position(|disk| disk.name == device.disk);
        self.on_disk(named.or(device.index)?, device.partition)
    }

    /// `pci-0000:03:00.0-scsi-0:0:1:0-part1`: the SCSI target tells the disk when all disks hang on one controller.
    fn by_path(&self, name: &str) -> Option<usize> {
        let (name, partition) = split_part(name)?;
        let (_, address) = name.split_once("-scsi-")?;
        let target: u32 = address.split(':').nth(2)?.parse().ok()?;
        let first = self.disks.first()?.controller?;
        if self.disks.iter().any(|disk| disk.controller != Some(first)) {
            return None;
        }
        let mut matching = self.disks.iter().enumerate().filter(|(_, disk)| disk.unit == Some(target));
        let (index, _) = matching.next()?;
        if matching.next().is_some() { None } else { self.on_disk(index, partition) }
    }

    /// `scsi-36000c29…-part1`: serial numbers are not known here, but a machine of one disk leaves no choice.
    fn by_id(&self, name: &str) -> Option<usize> {
        if name.starts_with("dm-") || name.starts_with("md-") || name.starts_with("lvm-") || self.disks.len() != 1 {
            return None;
        }
        let (_, partition) = split_part(name)?;
        self.on_disk(0, partition)
    }

    fn on_disk(&self, disk: usize, partition: Option<u32>) -> Option<usize> {
        self.only(|volume| volume.disk == disk && volume.partition == partition && volume.mapper.is_none())
    }

    fn only(&self, matches: impl Fn(&Volume) -> bool) -> Option<usize> {
        let mut found = self.volumes.iter().enumerate().filter(|(_, volume)| matches(volume)).map(|(index, _)| index);
        let first = found.next()?;
        if found.next().is_some() { None } else { Some(first) }
    }
}

/// A kernel's name of a disk or partition.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Device<'a> {
    /// `sda`, `nvme0n1`.
    disk: &'a str,
    /// Its place among disks of its kind, from 0.
    index: Option<usize>,
    /// From 1.
    partition: Option<u32>,
}

impl<'a> Device<'a> {
    /// Reads `sda1`, `hdb`, `xvda2`, `vdc`, `nvme0n1p3`, `mmcblk0p1`, `cciss/c0d0p1`; nothing else.
    fn parse(name: &'a str) -> Option<Self> {
        if let Some(found) = Self::numbered(name) {
            return Some(found);
        }
        if let Some(rest) = name.strip_prefix("nvme") {
            let (controller, rest) = rest.split_once('n')?;
            let (namespace, partition) = match rest.split_once('p') {
                Some((namespace, partition)) => (namespace, Some(number(partition)?)),
                None => (rest, None),
            };
            let index = usize::try_from(plain(controller)?).ok().filter(|_| namespace == "1");
            plain(namespace)?;
            let disk = match partition {
                Some(_) => name.rsplit_once('p')?.0,
                None => name,
            };
            return Some(Self { disk, index, partition });
        }
        let letters = ["xvd", "sd", "hd", "vd"].iter().find_map(|prefix| name.strip_prefix(prefix))?;
        let digits = letters.trim_start_matches(|c: char| c.is_ascii_lowercase());
        let disk = name.strip_suffix(digits)?;
        let letters = letters.strip_suffix(digits)?;
        if letters.is_empty() || letters.len() > 3 {
            return None;
        }
        let partition = if digits.is_empty() { None } else { Some(number(digits)?) };
        let one_based = letters.bytes().try_fold(0_usize, |sum, letter| {
            let digit = usize::from(letter.checked_sub(b'a')?).checked_add(1)?;
            sum.checked_mul(26)?.checked_add(digit)
        })?;
        Some(Self { disk, index: one_based.checked_sub(1), partition })
    }

    /// Names that end in the disk's number, with `p` before the partition's: SD cards, and controllers of Compaq and Mylex.
    fn numbered(name: &'a str) -> Option<Self> {
        let (first, rest) = match name.strip_prefix("mmcblk") {
            Some(rest) => (true, rest),
            None => {
                let unit = ["cciss/", "ida/", "rd/"].iter().find_map(|prefix| name.strip_prefix(prefix))?;
                let (controller, rest) = unit.strip_prefix('c')?.split_once('d')?;
                (plain(controller)? == 0, rest)
            }
        };
        let (disk, partition) = match rest.split_once('p') {
            Some((disk, partition)) => (disk, Some(number(partition)?)),
            None => (rest, None),
        };
        let index = usize::try_from(plain(disk)?).ok().filter(|_| first);
        let path = if partition.is_some() { name.rsplit_once('p')?.0 } else { name };
        Some(Self { disk: path, index, partition })
    }
}

/// Whether `name` is a kernel's name of a disk or partition that depends on the bus: `sda1`, `nvme0n1p2`.
#[must_use]
pub fn is_disk_name(name: &str) -> bool {
    Device::parse(name).is_some()
}

fn split_part(name: &str) -> Option<(&str, Option<u32>)> {
    match name.rsplit_once("-part") {
        Some((disk, digits)) => Some((disk, Some(number(digits)?))),
        None => Some((name, None)),
    }
}

/// A partition number: decimal digits without a leading zero.
fn number(digits: &str) -> Option<u32> {
    plain(digits).filter(|_| !digits.starts_with('0'))
}

fn plain(digits: &str) -> Option<u32> {
    if digits.is_empty() || digits.len() > 4 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

/// Removes one pair of quotes, as in `UUID="…"`.
fn unquote(value: &str) -> &str {
    value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value)
}

/// udev writes unusual bytes of link names as `\x2f`.
fn unescape_udev(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some((before, after)) = rest.split_once("\\x") {
        out.push_str(before);
        let code = after.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (code, after.get(2..)) {
            (Some(code), Some(tail)) => {
                out.push(char::from(code));
                rest = tail;
            }
            _ => {
                out.push_str("\\x");
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn volume(disk: usize, partition: u32, kind: &str, uuid: &str) -> Volume {
        Volume {
            disk,
            partition: Some(partition),
            fs_kind: Some(kind.to_owned()),
            fs_uuid: Some(uuid.to_owned()),
            partuuid: Some(format!("1a2b3c4d-0{partition}")),
            size: 1 << 30,
            ..Volume::default()
        }
    }

    fn machine() -> Machine {
        let disk = |name: &str, unit| MachineDisk {
            name: name.to_owned(),
            size: 1 << 32,
            controller: Some(0),
            unit: Some(unit),
        };
        let mut data = volume(1, 1, "xfs", "U-3");
        data.fs_label = Some("my data".to_owned());
        data.partuuid = None;
        Machine {
            disks: vec![disk("sda", 0), disk("sdb", 1)],
            volumes: vec![volume(0, 1, "ext4", "U-1"), volume(0, 5, "swap", "U-2"), data],
            nics: Vec::new(),
            uefi: false,
        }
    }

    #[test]
    fn resolves_what_fstab_may_say() {
        let machine = machine();
        for (spec, volume) in [
            ("/dev/sda1", Some(0)),
            ("/dev/hda5", Some(1)),
            ("/dev/xvdb1", Some(2)),
            ("/dev/vda1", Some(0)),
            ("UUID=u-1", Some(0)),
            ("UUID=\"U-1\"", Some(0)),
            ("PARTUUID=1A2B3C4D-05", Some(1)),
            ("LABEL=my data", Some(2)),
            ("/dev/disk/by-uuid/U-3", Some(2)),
            ("/dev/disk/by-label/my\\x20data", Some(2)),
            ("/dev/disk/by-path/pci-0000:03:00.0-scsi-0:0:1:0-part1", Some(2)),
            ("/dev/disk/by-path/pci-0000:03:00.0-scsi-0:0:0:0-part5", Some(1)),
            ("/dev/disk/by-path/pci-0000:03:00.0-scsi-0:0:2:0-part1", None),
            ("/dev/disk/by-path/pci-0000:03:00.0-ata-1-part1", None),
            ("/dev/disk/by-id/scsi-36000c29abc-part1", None),
            ("/dev/sda2", None),
            ("/dev/sda", None),
            ("/dev/sdc1", None),
            ("/dev/sda01", None),
            ("/dev/sda1x", None),
            ("/dev/sdaaaaaaaa1", None),
            ("/dev/mapper/vg-root", None),
            ("LABEL=", None),
            ("tmpfs", None),
            ("", None),
        ] {
            assert_eq!(machine.resolve(spec), volume, "{spec}");
        }
    }

    #[test]
    fn resolves_volumes_that_are_no_partitions() {
        let mut machine = machine();
        let stacked = |path: &str, aliases: &[&str], uuid: &str| Volume {
            mapper: Some(path.to_owned()),
            aliases: aliases.iter().map(|alias| (*alias).to_owned()).collect(),
            fs_uuid: Some(uuid.to_owned()),
            ..Volume::default()
        };
        machine.volumes.push(stacked(
            "/dev/mapper/vg--a-root",
            &["/dev/vg-a/root", "/dev/disk/by-id/dm-name-vg--a-root"],
            "U-4",
        ));
        machine.volumes.push(stacked("/dev/md0", &["/dev/md/data", "/dev/disk/by-id/md-name-host:data"], "U-5"));
        machine.volumes.push(stacked("/dev/md0p1", &[], "U-6"));
        for (spec, volume) in [
            ("/dev/mapper/vg--a-root", Some(3)),
            ("/dev/vg-a/root", Some(3)),
            ("/dev/disk/by-id/dm-name-vg--a-root", Some(3)),
            ("/dev/disk/by-id/md-name-host:data", Some(4)),
            ("/dev/disk/by-id/md-name-host\\x3adata", Some(4)),
            ("UUID=U-4", Some(3)),
            ("/dev/md0", Some(4)),
            ("/dev/md/data", Some(4)),
            ("/dev/md0p1", Some(5)),
            ("/dev/mapper/vg-a-root", None),
            ("/dev/vg-a/other", None),
            ("/dev/md1", None),
            ("/dev/sda1", Some(0)),
        ] {
            assert_eq!(machine.resolve(spec), volume, "{spec}");
        }
        machine.volumes.push(stacked("/dev/mapper/vg--a-root", &["/dev/vg-a/root"], "U-7"));
        assert_eq!(machine.resolve("/dev/vg-a/root"), None, "two groups of one name");
    }

    #[test]
    fn reads_device_names() {
        for (name, disk, index, partition) in [
            ("sda", "sda", Some(0), None),
            ("sdz9", "sdz", Some(25), Some(9)),
            ("sdaa1", "sdaa", Some(26), Some(1)),
            ("nvme0n1", "nvme0n1", Some(0), None),
            ("nvme1n1p15", "nvme1n1", Some(1), Some(15)),
            ("nvme0n2p1", "nvme0n2", None, Some(1)),
            ("mmcblk0p2", "mmcblk0", Some(0), Some(2)),
            ("cciss/c0d1p3", "cciss/c0d1", Some(1), Some(3)),
            ("cciss/c1d0", "cciss/c1d0", None, None),
            ("rd/c0d0p1", "rd/c0d0", Some(0), Some(1)),
        ] {
            assert_eq!(Device::parse(name), Some(Device { disk, index, partition }), "{name}");
        }
        for name in [
            "",
            "sd",
            "sd1",
            "sda0",
            "sdA1",
            "nvme0",
            "nvme0n1p",
            "nvmen1",
            "sr0",
            "fd0",
            "loop0",
            "dm-0",
            "mmcblk",
            "mmcblk0p",
            "cciss/c0",
            "cciss/c0d",
            "ida/d0",
        ] {
            assert_eq!(Device::parse(name), None, "{name}");
        }
    }

    #[test]
    fn one_disk_leaves_by_id_no_choice() {
        let mut machine = machine();
        machine.disks.pop();
        machine.volumes.pop();
        assert_eq!(machine.resolve("/dev/disk/by-id/scsi-36000c29abc-part1"), Some(0));
        assert_eq!(machine.resolve("/dev/disk/by-id/dm-name-vg-root"), None);
    }

    #[test]
    fn two_controllers_leave_by_path_open() {
        let mut machine = machine();
        machine.disks[1].controller = Some(1);
        machine.disks[1].unit = Some(0);
        assert_eq!(machine.resolve("/dev/disk/by-path/pci-0000:03:00.0-scsi-0:0:0:0-part1"), None);
    }

    #[test]
    fn a_duplicate_uuid_resolves_to_nothing() {
        let mut machine = machine();
        machine.volumes[2].fs_uuid = Some("U-1".to_owned());
        assert_eq!(machine.resolve("UUID=U-1"), None);
    }

    #[test]
    fn a_stable_name_prefers_the_file_system() {
        let mut volume = volume(0, 1, "ext4", "U-1");
        assert_eq!(volume.stable_spec().unwrap(), "UUID=U-1");
        volume.fs_uuid = Some("a b".to_owned());
        assert_eq!(volume.stable_spec().unwrap(), "PARTUUID=1a2b3c4d-01");
        volume.partuuid = None;
        assert_eq!(volume.stable_spec(), None);
    }

    #[test]
    fn a_stable_name_means_one_volume_only() {
        let mut machine = machine();
        assert_eq!(machine.stable_spec(&machine.volumes[0]).unwrap(), "UUID=U-1");
        machine.volumes[1].fs_uuid = Some("u-1".to_owned());
        assert_eq!(machine.stable_spec(&machine.volumes[0]).unwrap(), "PARTUUID=1a2b3c4d-01");
        machine.volumes[1].partuuid = machine.volumes[0].partuuid.clone();
        assert_eq!(machine.stable_spec(&machine.volumes[0]), None);
        let snapshot = |name: &str| Volume {
            mapper: Some(format!("/dev/mapper/vg-{name}")),
            fs_uuid: Some("U-9".to_owned()),
            ..Volume::default()
        };
        machine.volumes.extend([snapshot("root"), snapshot("snap")]);
        assert_eq!(machine.stable_spec(&machine.volumes[3]).unwrap(), "/dev/mapper/vg-root");
    }
}
