//! A raw disk: the bytes as they are.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::sync::Arc;

use super::{Ask, Head, Layer, Place, Run, Sample};
use crate::disk::feed::RawFeed;
use crate::disk::{Disk, Feed, SectorSize, Stream};
use crate::error::Result;
use crate::session::Session;

/// The whole file is the disk.
#[derive(Debug)]
struct Raw {
    files: [Arc<dyn Disk>; 1],
    len: u64,
}

/// Takes the file as it is.
///
/// # Errors
/// `format.snapshot`.
pub fn open(file: Arc<dyn Disk>, ask: &Ask<'_>) -> Result<Head> {
    ask.without_snapshots()?;
    let len = file.len();
    Ok(Head::complete(Arc::new(Raw { files: [file], len })))
}

/// The bytes of the stream are those of the disk.
///
/// # Errors
/// None.
pub fn feed(stream: Box<dyn Stream>, _session: &Session) -> Result<Box<dyn Feed>> {
    Ok(Box::new(RawFeed::new(stream)))
}

/// Whether there is a partition table: a plausible MBR (UEFI specification, section 5.2.1) or a GPT header (5.3.2) for
/// sectors of 512 or 4096 bytes; or a file system or physical volume that fills the disk. Nothing else makes a file raw.
#[must_use]
pub fn probe(sample: &Sample) -> bool {
    let table = sample.has(512, b"EFI PART") || sample.has(4096, b"EFI PART") || has_mbr(sample);
    // The first bytes of a fixed VHD are those of the raw disk in it.
    (table || has_ext(sample) || is_volume(sample)) && !super::vhd::is_fixed(sample)
}

/// What stands at which place of a volume without a partition table, as on a logical volume or an ISO image.
const VOLUMES: &[(usize, &[u8])] = &[
    (0, b"XFSB"),
    (0, b"LUKS\xba\xbe"),
    // NTFS and FAT32: the name that their boot sectors have, which is followed by spaces.
    (3, b"NTFS    "),
    (82, b"FAT32   "),
    // A physical volume's label is in one of the first four sectors; all tools write the second.
    (512, b"LABELONE"),
    (0x8001, b"CD001"),
    (0x1_0040, b"_BHRfS_M"),
];

fn is_volume(sample: &Sample) -> bool {
    VOLUMES.iter().any(|(offset, magic)| sample.has(*offset, magic))
}

/// A superblock of ext2, ext3 or ext4 at 1,024: `s_magic`, and plausible `s_log_block_size` and `s_rev_level`.
fn has_ext(sample: &Sample) -> bool {
    let small = |offset: usize, most: u8| {
        sample.head.get(offset..).is_some_and(|bytes| matches!(bytes, [low, 0, 0, 0, ..] if *low <= most))
    };
    sample.has(0x438, &[0x53, 0xef]) && small(0x418, 6) && small(0x44c, 1)
}

impl Layer for Raw {
    fn format(&self) -> &'static str {
        "raw"
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn sector_size(&self) -> SectorSize {
        let [file] = &self.files;
        file.sector_size()
    }

    fn unit_size(&self) -> u64 {
        self.sector_size().bytes()
    }

    fn map(&self, offset: u64, max: u64) -> Result<Run> {
        Ok(Run { len: max, place: Place::Data { file: 0, offset } })
    }

    fn files(&self) -> &[Arc<dyn Disk>] {
        &self.files
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

/// Four entries whose status is 0x00 or 0x80, at least one in use, and each in use begins inside the disk.
fn has_mbr(sample: &Sample) -> bool {
    if !sample.has(510, &[0x55, 0xaa]) {
        return false;
    }
    let Some(table) = sample.head.get(446..510) else { return false };
    let sectors = sample.len / 512;
    let mut used = 0_u32;
    for entry in table.chunks_exact(16) {
        let [status, _, _, _, kind, _, _, _, s0, s1, s2, s3, n0, n1, n2, n3] = *entry else { return false };
        let start = u32::from_le_bytes([s0, s1, s2, s3]);
        let count = u32::from_le_bytes([n0, n1, n2, n3]);
        if status != 0 && status != 0x80 {
            return false;
        }
        if kind == 0 {
            continue;
        }
        if start == 0 || count == 0 || u64::from(start) >= sectors {
            return false;
        }
        used = used.saturating_add(1);
    }
    used > 0
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::disk::Memory;

    #[test]
    fn volumes_without_a_partition_table_are_raw() {
        let with = |parts: &[(usize, &[u8])]| {
            let mut bytes = vec![0; 68 << 10];
            parts.iter().for_each(|(at, part)| bytes[*at..at + part.len()].copy_from_slice(part));
            probe(&Sample::take(&*crate::disk::Checked::wrap(Memory::new(bytes))).unwrap())
        };
        for volume in VOLUMES {
            assert!(with(&[*volume]), "{volume:?}");
            assert!(!with(&[(volume.0, &volume.1[1..])]), "{volume:?}");
        }
        assert!(with(&[(0x438, &[0x53, 0xef]), (0x418, &[2]), (0x44c, &[1])]));
        assert!(!with(&[(0x438, &[0x53, 0xef]), (0x418, &[7])]));
        assert!(!with(&[(0x438, &[0x53, 0xef]), (0x44c, &[1, 1])]));
        assert!(!with(&[]));
    }

    /// A boot sector with one Linux partition at sector 1.
    pub(in crate::format) fn mbr() -> [u8; 512] {
        let mut sector = [0; 512];
        sector[446] = 0x80;
        sector[450] = 0x83;
        sector[454] = 1;
        sector[458] = 4;
        sector[510] = 0x55;
        sector[511] = 0xaa;
        sector
    }

    fn is_raw(sector: &[u8], len: usize) -> bool {
        let mut bytes = vec![0; len];
        bytes[..sector.len()].copy_from_slice(sector);
        probe(&Sample::take(&Memory::new(bytes)).unwrap())
    }

    #[test]
    fn a_partition_table_makes_a_disk_raw() {
        assert!(is_raw(&mbr(), 1 << 16));
        for (at, bad) in [(446, 0x12), (450, 0), (454, 0), (458, 0), (510, 0), (462, 1), (457, 9)] {
            let mut sector = mbr();
            sector[at] = bad;
            assert!(!is_raw(&sector, 1 << 16), "byte {at}");
        }
        let mut gpt = vec![0; 520];
        gpt[512..].copy_from_slice(b"EFI PART");
        assert!(is_raw(&gpt, 1 << 16));
    }

    #[test]
    fn truncated_samples_are_not_raw() {
        let sector = mbr();
        for len in 0..512 {
            assert!(!is_raw(&sector[..len], len.max(1)), "{len}");
        }
    }
}
