//! The superblock (`btrfs_super_block`) and its mirrors.

use super::checksum::Checksum;
use super::{corrupt, features};
use crate::disk::bytes::{array, is_at, le16, le32, le64, long, size, text, u8_at};
use crate::disk::{Disk, read_vec};
use crate::error::{Error, Result};

/// Bytes of a superblock.
pub(super) const LEN: usize = 4096;
/// Where superblocks lie on every device that is large enough (`btrfs_sb_offset`).
pub(super) const OFFSETS: [u64; 3] = [64 << 10, 64 << 20, 256 << 30];
/// `BTRFS_MAGIC`.
const MAGIC: &[u8] = b"_BHRfS_M";
/// `sys_chunk_array` and its room.
pub(super) const SYS_CHUNKS: usize = 0x32b;
pub(super) const SYS_CHUNKS_LEN: usize = 2048;
/// `uuid_tree_generation` and the first of `super_roots`.
pub(super) const UUID_TREE_GENERATION: usize = 0x233;
pub(super) const BACKUPS: usize = 0xb2b;
/// `BTRFS_SUPER_FLAG_ERROR`.
const FLAG_ERROR: u64 = 1 << 2;
/// Flags that change nothing for who writes: `WRITTEN` and `RELOC` of the header, and [`FLAG_ERROR`]. Others tell of a seed, or of
/// a conversion that goes on.
const FLAGS_USUAL: u64 = 0b11 | FLAG_ERROR;
/// Flags of an image without data, or whose conversion to another identity was interrupted.
const FLAGS_UNREADABLE: u64 = 1 << 33 | 1 << 34;
/// Trees are at most this high (`BTRFS_MAX_LEVEL`).
pub(super) const MAX_LEVEL: u8 = 8;

/// What a superblock says, checked.
#[derive(Clone, Debug)]
pub(super) struct Superblock {
    pub(super) fsid: [u8; 16],
    /// What metadata carries: another identity when that was changed.
    pub(super) metadata_uuid: [u8; 16],
    flags: u64,
    pub(super) generation: u64,
    pub(super) root: Place,
    pub(super) chunk_root: Place,
    /// The tree of logs; none when `bytenr` is 0.
    pub(super) log_root: Place,
    pub(super) total_bytes: u64,
    pub(super) bytes_used: u64,
    pub(super) root_dir_objectid: u64,
    pub(super) num_devices: u64,
    pub(super) sectorsize: u32,
    pub(super) nodesize: u32,
    pub(super) incompat: u64,
    pub(super) compat_ro: u64,
    pub(super) checksum: Checksum,
    /// `dev_item`: the device's number, length and UUID.
    pub(super) devid: u64,
    pub(super) device_len: u64,
    pub(super) device_uuid: [u8; 16],
    pub(super) label: Option<String>,
    /// The used part of `sys_chunk_array`.
    pub(super) sys_chunks: Vec<u8>,
}

/// Where the root of a tree is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) bytenr: u64,
    pub(super) level: u8,
    pub(super) generation: u64,
}

/// The superblock that counts on one device, and whether its mirrors agree with it.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) sb: Superblock,
    pub(super) sound: bool,
}

/// The superblock of a device: the first one, as for the kernel, while it is valid; otherwise the newest valid mirror.
pub(super) fn find(volume: &dyn Disk) -> Result<Found> {
    let mut first = None;
    let mut mirrors: Vec<Superblock> = Vec::new();
    let mut sound = true;
    for at in OFFSETS {
        if at.saturating_add(long(LEN)) > volume.len() {
            break;
        }
        let parsed = read_vec(volume, at, LEN).and_then(|bytes| Superblock::parse(&bytes, at));
        if first.is_none() {
            first = Some(parsed);
            continue;
        }
        match parsed {
            Ok(sb) => mirrors.push(sb),
            Err(_) => sound = false,
        }
    }
    match first {
        None => Err(corrupt("too short for a btrfs file system").found(volume.len())),
        Some(Ok(sb)) => {
            // A mirror may lie behind the end of a file system that was made smaller than its volume.
            let counted = OFFSETS.iter().filter(|at| at.saturating_add(long(LEN)) <= sb.device_len).count();
            let same = |mirror: &Superblock| mirror.fsid == sb.fsid && mirror.generation == sb.generation;
            let agree = counted <= 1 || (sound && mirrors.iter().all(same));
            Ok(Found { sb, sound: agree })
        }
        Some(Err(error)) => match mirrors.into_iter().max_by_key(|sb| sb.generation) {
            Some(sb) => Ok(Found { sb, sound: false }),
            None => Err(error),
        },
    }
}

impl Superblock {
    /// Checks the superblock that was read from `at`.
    pub(super) fn parse(bytes: &[u8], at: u64) -> Result<Self> {
        if bytes.len() < LEN || !is_at(bytes, 0x40, MAGIC) {
            return Err(corrupt("no superblock of btrfs is there").offset(at));
        }
        let checksum = Checksum::new(le16(bytes, 0xc4)).ok_or_else(|| {
            Error::unsupported("btrfs.feature", "an unknown kind of checksum").found(le16(bytes, 0xc4)).offset(at)
        })?;
        if !checksum.matches(bytes, bytes.get(32..LEN).unwrap_or_default()) {
            return Err(Error::corrupt("btrfs.checksum", "the checksum of a superblock is wrong").offset(at));
        }
        if le64(bytes, 0x30) != at {
            return Err(corrupt("a superblock is at the wrong place").expected(at).found(le64(bytes, 0x30)));
        }
        let sb = Self::fields(bytes, checksum);
        features::check(sb.incompat)?;
        sb.check(le32(bytes, 0xa0)).map_err(|error| error.offset(at))?;
        Ok(sb)
    }

    fn fields(bytes: &[u8], checksum: Checksum) -> Self {
        let (fsid, incompat) = (array(bytes, 0x20), le64(bytes, 0xbc));
        let generation = le64(bytes, 0x48);
        let place = |at, level, generation| Place { bytenr: le64(bytes, at), level: u8_at(bytes, level), generation };
        let sys_chunks = SYS_CHUNKS..SYS_CHUNKS.saturating_add(size(u64::from(le32(bytes, 0xa0))).min(SYS_CHUNKS_LEN));
        Self {
            fsid,
            metadata_uuid: if incompat & features::INCOMPAT_METADATA_UUID == 0 { fsid } else { array(bytes, 0x23b) },
            flags: le64(bytes, 0x38),
            generation,
            root: place(0x50, 0xc6, generation),
            chunk_root: place(0x58, 0xc7, le64(bytes, 0xa4)),
            log_root: place(0x60, 0xc8, generation.saturating_add(1)),
            total_bytes: le64(bytes, 0x70),
            bytes_used: le64(bytes, 0x78),
            root_dir_objectid: le64(bytes, 0x80),
            num_devices: le64(bytes, 0x88),
            sectorsize: le32(bytes, 0x90),
            nodesize: le32(bytes, 0x94),
            incompat,
            compat_ro: le64(bytes, 0xb4),
            checksum,
            devid: le64(bytes, 0xc9),
            device_len: le64(bytes, 0xd1),
            device_uuid: array(bytes, 0x10b),
            label: text(bytes.get(0x12b..0x22b).unwrap_or_default()),
            sys_chunks: bytes.get(sys_chunks).unwrap_or_default().to_vec(),
        }
    }

    /// What the kernel checks too (`btrfs_validate_super`).
    fn check(&self, sys_len: u32) -> Result<()> {
        let bad = |what: &str| Err(Error::corrupt("btrfs.geometry", what.to_owned()));
        let in_range = |value: u32| value.is_power_of_two() && (4096..=65536).contains(&value);
        if !in_range(self.sectorsize) || !in_range(self.nodesize) || self.nodesize < self.sectorsize {
            return bad("a sector or node size that is not possible");
        }
        let places = [self.root, self.chunk_root, self.log_root];
        let aligned = |place: &Place| place.bytenr.checked_rem(u64::from(self.sectorsize)) == Some(0);
        if places.iter().any(|place| place.level >= MAX_LEVEL || !aligned(place)) {
            return bad("the root of a tree is at an impossible place");
        }
        if self.root.bytenr == 0 || self.chunk_root.bytenr == 0 || size(u64::from(sys_len)) > SYS_CHUNKS_LEN {
            return bad("a superblock without the trees that everything hangs on");
        }
        if self.num_devices == 0 || self.device_len == 0 || self.total_bytes == 0 {
            return bad("a file system of nothing");
        }
        if self.flags & FLAGS_UNREADABLE != 0 {
            return Err(Error::unsupported("btrfs.feature", "an image of metadata only (btrfs-image)"));
        }
        Ok(())
    }

    /// Flags that forbid writing.
    pub(super) const fn special_flags(&self) -> u64 {
        self.flags & !FLAGS_USUAL
    }

    /// Whether the kernel met an error that it could not undo.
    pub(super) const fn has_errors(&self) -> bool {
        self.flags & FLAG_ERROR != 0
    }
}
