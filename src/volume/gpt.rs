//! GUID partition table (UEFI specification 2.10, chapter 5.3): checksums, backup header, entry bounds.

use super::{Partition, Problem, Role, Table, TableKind, types};
use crate::disk::bytes::{array, is_at, le32, le64};
use crate::disk::{Disk, SectorSize, read_vec};
use crate::error::Result;
use crate::limits;

const SIGNATURE: &[u8] = b"EFI PART";
const HEADER: usize = 92;
const ENTRY: u32 = 128;
const LEGACY_BIOS_BOOTABLE: u64 = 1 << 2;

/// A header whose checksum is right.
struct Header {
    alternate_lba: u64,
    first_usable_lba: u64,
    last_usable_lba: u64,
    disk_guid: String,
    entry_size: usize,
    entries: Vec<u8>,
}

/// The GPT of `disk` in sectors of `size`: the primary one, else the backup in the last sector.
pub(super) fn read(disk: &dyn Disk, size: SectorSize) -> Result<Option<Table>> {
    let sectors = disk.len().checked_div(size.bytes()).unwrap_or(0);
    let Some(last) = sectors.checked_sub(1).filter(|last| *last > 1) else {
        return Ok(None);
    };
    let mut problems = Vec::new();
    let header = match header(disk, size, 1, last)? {
        Some(header) => {
            if header.alternate_lba != last {
                problems.push(Problem::BackupNotAtEnd);
            }
            header
        }
        None => match header(disk, size, last, last)? {
            Some(header) => {
                problems.push(Problem::BackupUsed);
                header
            }
            None => return Ok(None),
        },
    };
    Ok(Some(table(&header, size, problems)))
}

/// The header in sector `lba` with its entries, if both checksums are right and every field is within bounds.
fn header(disk: &dyn Disk, size: SectorSize, lba: u64, last: u64) -> Result<Option<Header>> {
    let sector_len = usize::try_from(size.bytes()).unwrap_or(usize::MAX);
    let sector = read_vec(disk, lba.saturating_mul(size.bytes()), sector_len)?;
    let header_size = usize::try_from(le32(&sector, 12)).unwrap_or(usize::MAX);
    if !is_at(&sector, 0, SIGNATURE) || header_size < HEADER {
        return Ok(None);
    }
    let Some(header) = sector.get(..header_size) else {
        return Ok(None);
    };
    let mut zeroed = header.to_vec();
    crate::disk::bytes::put32(&mut zeroed, 16, 0);
    if crc32fast::hash(&zeroed) != le32(header, 16) || le64(header, 24) != lba {
        return Ok(None);
    }
    let entry_size = le32(header, 84);
    let entries_len = u64::from(le32(header, 80)).saturating_mul(u64::from(entry_size));
    let entries_lba = le64(header, 72);
    let fits = entries_lba
        .checked_mul(size.bytes())
        .and_then(|start| start.checked_add(entries_len))
        .is_some_and(|end| end <= disk.len());
    if entry_size < ENTRY || !entry_size.is_multiple_of(ENTRY) || entries_len > limits::MAX_GPT_ENTRIES || !fits {
        return Ok(None);
    }
    let entries_len = usize::try_from(entries_len).unwrap_or(0);
    let entries = read_vec(disk, entries_lba.saturating_mul(size.bytes()), entries_len)?;
    if crc32fast::hash(&entries) != le32(header, 88) {
        return Ok(None);
    }
    let (first_usable_lba, last_usable_lba) = (le64(header, 40), le64(header, 48));
    if first_usable_lba > last_usable_lba || last_usable_lba > last.max(le64(header, 32)) {
        return Ok(None);
    }
    Ok(Some(Header {
        alternate_lba: le64(header, 32),
        first_usable_lba,
        last_usable_lba,
        disk_guid: guid(header, 56),
        entry_size: usize::try_from(entry_size).unwrap_or(usize::MAX),
        entries,
    }))
}

fn table(header: &Header, size: SectorSize, problems: Vec<Problem>) -> Table {
    let mut table = Table {
        kind: TableKind::Gpt,
        id: header.disk_guid.clone(),
        sector_size: size,
        partitions: Vec::new(),
        problems,
    };
    for (number, entry) in (1..).zip(header.entries.chunks_exact(header.entry_size)) {
        if array::<16>(entry, 0) == [0; 16] {
            continue;
        }
        if table.partitions.len() >= limits::MAX_PARTITIONS {
            table.problems.push(Problem::TooMany);
            break;
        }
        match partition(number, entry, header, size) {
            Some(partition) => table.partitions.push(partition),
            None => table.problems.push(Problem::BadEntry { number }),
        }
    }
    table
}

/// The partition of `entry`, if its addresses are in order and usable.
fn partition(number: u32, entry: &[u8], header: &Header, size: SectorSize) -> Option<Partition> {
    let (first, last) = (le64(entry, 32), le64(entry, 40));
    if first > last || first < header.first_usable_lba || last > header.last_usable_lba {
        return None;
    }
    let start = first.checked_mul(size.bytes())?;
    let end = last.checked_add(1)?.checked_mul(size.bytes())?;
    let type_id = guid(entry, 0);
    Some(Partition {
        number,
        range: start..end,
        type_name: types::gpt(&type_id),
        type_id,
        bootable: le64(entry, 48) & LEGACY_BIOS_BOOTABLE != 0,
        partuuid: guid(entry, 16),
        label: label(entry.get(56..128)?),
        role: Role::Primary,
    })
}

/// UTF-16 up to the first NUL.
fn label(bytes: &[u8]) -> Option<String> {
    let units = bytes.as_chunks().0.iter().map(|unit: &[u8; 2]| u16::from_le_bytes(*unit));
    let text: String = char::decode_utf16(units.take_while(|unit| *unit != 0))
        .map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect();
    (!text.is_empty()).then_some(text)
}

/// A GUID: its first three fields are little-endian.
fn guid(bytes: &[u8], at: usize) -> String {
    uuid::Uuid::from_bytes_le(array(bytes, at)).to_string()
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, clippy::as_conversions, reason = "tests build their input")]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::disk::bytes::{put, put32};
    use crate::disk::{Checked, Memory};
    use crate::volume::scan;

    const SECTORS: u64 = 2048;

    /// A GPT disk of 1 MiB, built the way the specification words it, to be damaged by the tests.
    struct Builder {
        bytes: Vec<u8>,
        size: usize,
    }

    impl Builder {
        fn new(size: usize) -> Self {
            let mut bytes = vec![0; size * usize::try_from(SECTORS).unwrap()];
            bytes[450] = 0xee;
            put32(&mut bytes, 454, 1);
            put32(&mut bytes, 458, u32::MAX);
            put(&mut bytes, 510, &[0x55, 0xaa]);
            let mut builder = Self { bytes, size };
            builder.header(1, SECTORS - 1, 2);
            builder.header(SECTORS - 1, 1, SECTORS - 33);
            builder.sealed()
        }

        fn header(&mut self, lba: u64, alternate: u64, entries: u64) {
            let at = usize::try_from(lba).unwrap() * self.size;
            put(&mut self.bytes, at, SIGNATURE);
            put32(&mut self.bytes, at + 8, 0x1_0000);
            put32(&mut self.bytes, at + 12, 92);
            for (field, value) in [(24, lba), (32, alternate), (40, 34), (48, SECTORS - 34), (72, entries)] {
                put(&mut self.bytes, at + field, &value.to_le_bytes());
            }
            put(&mut self.bytes, at + 56, &[7; 16]);
            put32(&mut self.bytes, at + 80, 128);
            put32(&mut self.bytes, at + 84, 128);
        }

        fn entry(mut self, slot: usize, first: u64, last: u64) -> Self {
            for table in [2, usize::try_from(SECTORS).unwrap() - 33] {
                let at = table * self.size + slot * 128;
                put(&mut self.bytes, at, &uuid::uuid!("0fc63daf-8483-4772-8e79-3d69d8477de4").to_bytes_le());
                put(&mut self.bytes, at + 16, &[u8::try_from(slot).unwrap() + 1; 16]);
                put(&mut self.bytes, at + 32, &first.to_le_bytes());
                put(&mut self.bytes, at + 40, &last.to_le_bytes());
                put(&mut self.bytes, at + 56, &[b'r', 0, 0xe9, 0, 0x00, 0xd8]);
            }
            self.sealed()
        }

        /// Sets a field of the primary header, checksums following.
        fn field(mut self, at: usize, value: &[u8]) -> Self {
            let at = self.size + at;
            put(&mut self.bytes, at, value);
            self.sealed()
        }

        /// Damages a byte, checksums not following.
        fn flip(mut self, lba: u64, at: usize) -> Self {
            let at = usize::try_from(lba).unwrap() * self.size + at;
            self.bytes[at] ^= 0xff;
            self
        }

        fn sealed(mut self) -> Self {
            for lba in [1, usize::try_from(SECTORS).unwrap() - 1] {
                let at = lba * self.size;
                let start = usize::try_from(le64(&self.bytes, at + 72)).unwrap().saturating_mul(self.size);
                let len = le32(&self.bytes, at + 80) as usize * le32(&self.bytes, at + 84) as usize;
                let crc = self.bytes.get(start..start.saturating_add(len)).map_or(0, crc32fast::hash);
                put32(&mut self.bytes, at + 88, crc);
                put32(&mut self.bytes, at + 16, 0);
                let header_len = (le32(&self.bytes, at + 12) as usize).min(self.size);
                let crc = crc32fast::hash(&self.bytes[at..at + header_len]);
                put32(&mut self.bytes, at + 16, crc);
            }
            self
        }

        fn scan(self) -> Option<Table> {
            let disk: Arc<dyn Disk> = Checked::wrap(Memory::new(self.bytes));
            scan(&disk).unwrap()
        }
    }

    #[test]
    fn partitions_are_read_with_512_and_4096_byte_sectors() {
        for size in [512, 4096] {
            let table = Builder::new(size).entry(0, 40, 49).entry(3, 100, 100).scan().unwrap();
            assert_eq!((table.kind, table.sector_size.bytes()), (TableKind::Gpt, size as u64));
            assert_eq!(table.id, "07070707-0707-0707-0707-070707070707");
            let second = table.partition(4).unwrap();
            assert_eq!(second.range, 100 * size as u64..101 * size as u64);
            assert_eq!(second.partuuid, "04040404-0404-0404-0404-040404040404");
            assert_eq!(second.label.as_deref(), Some("ré\u{fffd}"));
            assert_eq!(second.type_name, Some("Linux"));
            let expected: &[Problem] =
                if size == 512 { &[] } else { &[Problem::SectorSize { table: 4096, disk: 512 }] };
            assert_eq!(table.problems, expected);
        }
    }

    #[test]
    fn hostile_primary_header_crc() {
        let table = Builder::new(512).entry(0, 40, 49).flip(1, 60).scan().unwrap();
        assert_eq!((table.partitions.len(), table.problems), (1, vec![Problem::BackupUsed]));
    }

    #[test]
    fn hostile_primary_entries_crc() {
        let table = Builder::new(512).entry(0, 40, 49).flip(2, 35).scan().unwrap();
        assert_eq!((table.partitions.len(), table.problems), (1, vec![Problem::BackupUsed]));
    }

    #[test]
    fn hostile_both_headers_damaged_leave_the_protective_mbr() {
        let table = Builder::new(512).entry(0, 40, 49).flip(1, 60).flip(SECTORS - 1, 60).scan().unwrap();
        assert_eq!(table.kind, TableKind::Mbr);
        assert_eq!(table.problems, [Problem::Outside { number: 1 }]);
    }

    #[test]
    fn hostile_2_to_the_32_entries() {
        let count = u32::MAX.to_le_bytes();
        let table = Builder::new(512).entry(0, 40, 49).field(80, &count).scan().unwrap();
        assert_eq!(table.problems, [Problem::BackupUsed]);
    }

    #[test]
    fn the_entries_bound_holds_at_below_and_above() {
        // With sectors of 4096 bytes, the disk of 8 MiB has room for a table of 1 MiB.
        let most = u32::try_from(limits::MAX_GPT_ENTRIES / 128).unwrap();
        for (entries, accepted) in [(most - 1, true), (most, true), (most + 1, false)] {
            let table = Builder::new(4096).field(80, &entries.to_le_bytes()).scan().unwrap();
            assert_eq!(!table.problems.contains(&Problem::BackupUsed), accepted, "{entries}");
        }
    }

    #[test]
    fn hostile_entry_sizes() {
        for size in [0_u32, 1, 127, 129, 192, u32::MAX] {
            let table = Builder::new(512).entry(0, 40, 49).field(84, &size.to_le_bytes()).scan().unwrap();
            assert_eq!(table.problems, [Problem::BackupUsed], "{size}");
        }
        assert_eq!(Builder::new(512).entry(0, 40, 49).field(84, &256_u32.to_le_bytes()).scan().unwrap().problems, []);
    }

    #[test]
    fn hostile_header_sizes() {
        for size in [0_u32, 91, 513, u32::MAX] {
            let table = Builder::new(512).field(12, &size.to_le_bytes()).scan().unwrap();
            assert_eq!(table.problems, [Problem::BackupUsed], "{size}");
        }
    }

    #[test]
    fn hostile_entries_address() {
        for lba in [SECTORS, u64::MAX, u64::MAX / 512] {
            let table = Builder::new(512);
            let table = Builder { bytes: table.bytes, size: 512 }.flip(1, 72);
            let mut table = table;
            put(&mut table.bytes, 512 + 72, &lba.to_le_bytes());
            put32(&mut table.bytes, 512 + 16, 0);
            let crc = crc32fast::hash(&table.bytes[512..604]);
            put32(&mut table.bytes, 512 + 16, crc);
            assert_eq!(table.scan().unwrap().problems, [Problem::BackupUsed]);
        }
    }

    #[test]
    fn hostile_header_that_is_a_copy_of_the_other() {
        let table = Builder::new(512).field(24, &9_u64.to_le_bytes()).scan().unwrap();
        assert_eq!(table.problems, [Problem::BackupUsed]);
    }

    #[test]
    fn hostile_entries_out_of_order_or_bounds() {
        for (first, last) in [(50, 49), (0, 49), (40, SECTORS), (40, u64::MAX), (u64::MAX, u64::MAX)] {
            let table = Builder::new(512).entry(1, first, last).entry(2, 60, 60).scan().unwrap();
            assert_eq!(table.partitions.len(), 1);
            assert_eq!(table.problems, [Problem::BadEntry { number: 2 }], "{first}..={last}");
        }
    }

    #[test]
    fn hostile_overlap() {
        let table = Builder::new(512).entry(0, 40, 49).entry(1, 49, 60).scan().unwrap();
        assert_eq!(table.problems, [Problem::Overlap { first: 1, second: 2 }]);
        assert!(table.check_writable(2).is_err());
    }

    #[test]
    fn hybrid_and_missing_protective_mbr_are_noted() {
        let mut hybrid = Builder::new(512).entry(0, 40, 49);
        hybrid.bytes[466] = 0x83;
        put32(&mut hybrid.bytes, 470, 40);
        put32(&mut hybrid.bytes, 474, 10);
        assert_eq!(hybrid.scan().unwrap().problems, [Problem::HybridMbr]);
        let mut bare = Builder::new(512).entry(0, 40, 49);
        bare.bytes[..512].fill(0);
        assert_eq!(bare.scan().unwrap().problems, [Problem::NoProtectiveMbr]);
        let mut mbr = Builder::new(512).entry(0, 40, 49);
        mbr.bytes[450] = 0x83;
        assert_eq!(mbr.scan().unwrap().kind, TableKind::Mbr);
    }

    #[test]
    fn a_grown_disk_is_noted() {
        let mut grown = Builder::new(512).entry(0, 40, 49);
        grown.bytes.extend([0; 512]);
        assert_eq!(grown.scan().unwrap().problems, [Problem::BackupNotAtEnd]);
    }

    #[test]
    fn hostile_truncation_at_every_sector() {
        let whole = Builder::new(512).entry(0, 40, 49).bytes;
        for sectors in 0..40 {
            let disk: Arc<dyn Disk> = Checked::wrap(Memory::new(whole[..sectors * 512].to_vec()));
            scan(&disk).unwrap();
        }
    }
}
