//! Names of devices: which of them another bus changes, and what to write instead.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use crate::inspect::{Machine, Volume, is_disk_name};

/// Whether a name depends on the bus that a disk is attached to, or on the order in which devices are found: `/dev/sda1`,
/// `by-path`, `by-id` (serial numbers are the hypervisor's), `/dev/dm-0`. Names of logical volumes and of RAID sets do not.
pub(super) fn is_unstable(spec: &str) -> bool {
    let Some(name) = spec.strip_prefix("/dev/") else { return false };
    if let Some(id) = name.strip_prefix("disk/by-id/") {
        return !["dm-", "md-", "lvm-"].iter().any(|prefix| id.starts_with(prefix));
    }
    let is_number = |rest: &str| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit());
    name.starts_with("disk/by-path/")
        || name.starts_with("disk/by-diskseq/")
        || name.strip_prefix("dm-").is_some_and(is_number)
        || is_disk_name(name)
}

/// Whether an unstable name tells its disk by a place or serial number, which only a guess can translate.
pub(super) fn is_address(spec: &str) -> bool {
    spec.starts_with("/dev/disk/")
}

/// Whether a word means disks by their kernel's names or places, maybe several: `/dev/sd*`, `/dev/disk/by-path/…`.
pub(super) fn is_disk_pattern(word: &str) -> bool {
    const STARTS: &[&str] = &["sd", "hd", "vd", "xvd", "nvme", "mmcblk", "cciss/", "ida/", "rd/"];
    let Some(name) = word.strip_prefix("/dev/") else { return false };
    let next_is_disk =
        |rest: &str| rest.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "*[?(.".contains(c));
    is_unstable(word) || STARTS.iter().any(|start| name.strip_prefix(start).is_some_and(next_is_disk))
}

/// The volume that an unstable name means.
pub(super) fn volume<'a>(machine: &'a Machine, spec: &str) -> Option<&'a Volume> {
    if !is_unstable(spec) {
        return None;
    }
    machine.volumes.get(machine.resolve(spec)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_which_names_a_bus_changes() {
        for name in [
            "/dev/sda1",
            "/dev/hdb",
            "/dev/xvda2",
            "/dev/vda1",
            "/dev/nvme0n1p1",
            "/dev/disk/by-path/x",
            "/dev/disk/by-id/scsi-3",
            "/dev/disk/by-diskseq/1-part1",
            "/dev/cciss/c0d0p1",
            "/dev/mmcblk0p1",
            "/dev/dm-0",
        ] {
            assert!(is_unstable(name), "{name}");
        }
        for name in [
            "UUID=x",
            "LABEL=sda1",
            "/dev/mapper/vg-root",
            "/dev/vg0/root",
            "/dev/md0",
            "/dev/sr0",
            "/dev/dm-x",
            "/dev/fd0",
            "/dev/cdrom",
            "sda1",
            "/dev/disk/by-uuid/x",
            "/dev/disk/by-id/dm-name-vg-root",
            "/dev/disk/by-id/lvm-pv-x",
            "",
        ] {
            assert!(!is_unstable(name), "{name}");
        }
    }
}
