//! Which driver opens which file system: one line each, by the name of its signature.

use std::sync::Arc;

use super::Filesystem;
use super::btrfs::Btrfs;
use super::exfat::Exfat;
use super::ext::Ext;
use super::fat::Fat;
use super::iso::Iso;
use super::ntfs::Ntfs;
use super::squashfs::Squashfs;
use super::udf::Udf;
use super::xfs::Xfs;
use crate::disk::{Disk, DiskMut};
use crate::error::Result;

/// Opens `volume` for reading, with the driver for `kind` (a [`crate::volume::signature::Signature`]'s). Nothing is written.
/// `None` when there is no driver for it.
pub fn open(kind: &str, volume: Arc<dyn Disk>) -> Option<Result<Arc<dyn Filesystem>>> {
    Some(match kind {
        "btrfs" => boxed(Btrfs::open(volume)),
        "ext2" | "ext3" | "ext4" => boxed(Ext::open(volume)),
        "exfat" => boxed(Exfat::open(volume)),
        "vfat" => boxed(Fat::open(volume)),
        "iso9660" => boxed(Iso::open(volume)),
        "ntfs" => boxed(Ntfs::open(volume)),
        "squashfs" => boxed(Squashfs::open(volume)),
        "udf" => boxed(Udf::open(volume)),
        "xfs" => boxed(Xfs::open(volume)),
        _ => return None,
    })
}

/// The same for a volume that may be changed: what its journal holds is put in place where the driver can do that. A driver
/// that only reads says so when its [`Filesystem::writer`] is asked for.
pub fn open_mut(kind: &str, volume: Arc<dyn DiskMut>) -> Option<Result<Arc<dyn Filesystem>>> {
    Some(match kind {
        "btrfs" => boxed(Btrfs::open_mut(volume)),
        "ext2" | "ext3" | "ext4" => boxed(Ext::open_mut(volume)),
        "vfat" => boxed(Fat::open_mut(volume)),
        "xfs" => boxed(Xfs::open_mut(volume)),
        _ => return open(kind, volume),
    })
}

/// Opens a file system that spreads over `volumes`, in any order, as [`open_mut`] does. `None` when the driver for `kind` knows no such thing.
pub fn open_spread(kind: &str, volumes: Vec<Arc<dyn DiskMut>>) -> Option<Result<Arc<dyn Filesystem>>> {
    match kind {
        "btrfs" => Some(boxed(Btrfs::open_devices_mut(volumes))),
        _ => None,
    }
}

fn boxed(opened: Result<impl Filesystem + 'static>) -> Result<Arc<dyn Filesystem>> {
    opened.map(|fs| Arc::new(fs) as Arc<dyn Filesystem>)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Checked, Memory};

    #[test]
    fn what_no_driver_knows_is_told_apart_from_what_is_damaged() {
        let volume = || Checked::wrap(Memory::new(vec![0; 4096]));
        assert!(open("ReFS", volume()).is_none() && open_mut("ReFS", volume()).is_none());
        for kind in ["btrfs", "ext2", "ext3", "ext4", "xfs"] {
            assert!(open(kind, volume()).unwrap().is_err() && open_mut(kind, volume()).unwrap().is_err(), "{kind}");
        }
    }
}
