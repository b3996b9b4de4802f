//! Master boot record with its chain of extended boot records, as Linux reads them (`block/partitions/msdos.c` names the rules).

use std::collections::BTreeSet;
use std::ops::Range;

use super::{Partition, Problem, Role, Table, TableKind, types};
use crate::disk::bytes::{is_at, le32, u8_at};
use crate::disk::{Disk, SectorSize, read_vec};
use crate::error::Result;
use crate::limits;

const SECTOR: usize = 512;
const FIRST_ENTRY: usize = 446;
const SIGNATURE: [u8; 2] = [0x55, 0xaa];
const PROTECTIVE: u8 = 0xee;

/// A sector 0 that is a master boot record.
pub(super) struct Mbr {
    disk_signature: u32,
    entries: [Entry; 4],
    sector_size: SectorSize,
}

/// One of the four 16-byte entries. Addresses are in sectors.
#[derive(Clone, Copy)]
struct Entry {
    active: u8,
    kind: u8,
    start: u32,
    sectors: u32,
}

/// The MBR of `disk`, if sector 0 is one. A file system's boot sector ends with the same signature; it is told apart by
/// entries whose first byte is neither 0 nor `0x80`.
pub(super) fn read(disk: &dyn Disk, sector_size: SectorSize) -> Result<Option<Mbr>> {
    Ok(sector(disk, 0, sector_size)?.and_then(|bytes| {
        let entries = entries(&bytes);
        entries.iter().all(|entry| matches!(entry.active, 0 | 0x80)).then(|| Mbr {
            disk_signature: le32(&bytes, 440),
            entries,
            sector_size,
        })
    }))
}

impl Mbr {
    /// Whether an entry points at a GPT.
    pub(super) fn is_protective(&self) -> bool {
        self.entries.iter().any(|entry| entry.kind == PROTECTIVE && entry.start == 1)
    }

    /// Whether something else is listed beside the protective entry.
    pub(super) fn is_hybrid(&self) -> bool {
        self.entries.iter().any(|entry| !matches!(entry.kind, 0 | PROTECTIVE))
    }

    /// Whether nothing is listed.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.iter().all(|entry| entry.is_unused())
    }

    /// The table with its logical partitions.
    pub(super) fn table(&self, disk: &dyn Disk) -> Result<Table> {
        let mut table = Table {
            kind: TableKind::Mbr,
            id: format!("{:08x}", self.disk_signature),
            sector_size: self.sector_size,
            partitions: Vec::new(),
            problems: Vec::new(),
        };
        for (number, entry) in (1..).zip(&self.entries).filter(|(_, entry)| !entry.is_unused()) {
            let role = if entry.is_extended() { Role::Extended } else { Role::Primary };
            table.partitions.push(self.partition(number, entry, 0, role));
        }
        if let Some(extended) = self.entries.iter().find(|entry| entry.is_extended() && !entry.is_unused()) {
            self.walk(disk, extended, &mut table)?;
        }
        Ok(table)
    }

    /// Follows the chain of extended boot records of `extended`. Each record holds logical partitions, relative to itself, and
    /// the place of the next record, relative to the extended partition.
    fn walk(&self, disk: &dyn Disk, extended: &Entry, table: &mut Table) -> Result<()> {
        let first = u64::from(extended.start);
        let mut seen = BTreeSet::new();
        let mut at = first;
        let mut number = 5;
        loop {
            if !seen.insert(at) || seen.len() > limits::MAX_PARTITIONS {
                table.problems.push(Problem::BrokenChain { sector: at });
                return Ok(());
            }
            let Some(bytes) = sector(disk, at, self.sector_size)? else {
                // A new extended partition has no record yet.
                if at != first {
                    table.problems.push(Problem::BrokenChain { sector: at });
                }
                return Ok(());
            };
            let entries = entries(&bytes);
            for (slot, entry) in entries.iter().enumerate().filter(|(_, e)| !e.is_unused() && !e.is_extended()) {
                if table.partitions.len() >= limits::MAX_PARTITIONS {
                    table.problems.push(Problem::TooMany);
                    return Ok(());
                }
                let partition = self.partition(number, entry, at, Role::Logical);
                // Linux trusts the third and fourth entry only inside the extended partition.
                if slot >= 2 && !self.holds(extended, &partition.range) {
                    continue;
                }
                table.partitions.push(partition);
                number = number.saturating_add(1);
            }
            match entries.iter().find(|entry| entry.is_extended() && !entry.is_unused()) {
                Some(next) => at = first.saturating_add(u64::from(next.start)),
                None => return Ok(()),
            }
        }
    }

    fn holds(&self, extended: &Entry, range: &Range<u64>) -> bool {
        let container = self.bytes(extended, 0);
        container.start <= range.start && range.end <= container.end
    }

    fn partition(&self, number: u32, entry: &Entry, base: u64, role: Role) -> Partition {
        Partition {
            number,
            range: self.bytes(entry, base),
            type_id: format!("{:02x}", entry.kind),
            type_name: types::mbr(entry.kind),
            bootable: entry.active == 0x80,
            partuuid: format!("{:08x}-{number:02x}", self.disk_signature),
            label: None,
            role,
        }
    }

    /// Never overflows: 34 bits of sectors times 12 bits of sector size.
    fn bytes(&self, entry: &Entry, base: u64) -> Range<u64> {
        let start = base.saturating_add(u64::from(entry.start));
        let end = start.saturating_add(u64::from(entry.sectors));
        start.saturating_mul(self.sector_size.bytes())..end.saturating_mul(self.sector_size.bytes())
    }
}

impl Entry {
    fn is_unused(&self) -> bool {
        self.kind == 0 || self.sectors == 0
    }

    fn is_extended(&self) -> bool {
        matches!(self.kind, 0x05 | 0x0f | 0x85)
    }
}

/// The first 512 bytes of a sector, if they lie on the disk and carry the signature.
fn sector(disk: &dyn Disk, number: u64, size: SectorSize) -> Result<Option<Vec<u8>>> {
    let offset = number.saturating_mul(size.bytes());
    if offset.saturating_add(size.bytes()) > disk.len() {
        return Ok(None);
    }
    let bytes = read_vec(disk, offset, SECTOR)?;
    Ok(is_at(&bytes, 510, &SIGNATURE).then_some(bytes))
}

fn entries(bytes: &[u8]) -> [Entry; 4] {
    [0, 16, 32, 48].map(|at: usize| {
        let entry = bytes.get(FIRST_ENTRY.saturating_add(at)..).unwrap_or_default();
        Entry { active: u8_at(entry, 0), kind: u8_at(entry, 4), start: le32(entry, 8), sectors: le32(entry, 12) }
    })
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, clippy::as_conversions, reason = "tests build their input")]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::disk::{Checked, Memory};
    use crate::volume::scan;

    const MIB: u64 = 1 << 20;

    struct Builder(Vec<u8>);

    impl Builder {
        fn new(len: u64) -> Self {
            let mut bytes = vec![0; usize::try_from(len).unwrap()];
            bytes[440..444].copy_from_slice(&0xdead_beef_u32.to_le_bytes());
            Self(bytes).sign(0)
        }

        fn sign(mut self, sector: usize) -> Self {
            self.0[sector * 512 + 510..sector * 512 + 512].copy_from_slice(&SIGNATURE);
            self
        }

        fn entry(mut self, sector: usize, slot: usize, kind: u8, start: u32, sectors: u32) -> Self {
            let at = sector * 512 + FIRST_ENTRY + slot * 16;
            self.0[at + 4] = kind;
            self.0[at + 8..at + 12].copy_from_slice(&start.to_le_bytes());
            self.0[at + 12..at + 16].copy_from_slice(&sectors.to_le_bytes());
            self.sign(sector)
        }

        fn byte(mut self, at: usize, value: u8) -> Self {
            self.0[at] = value;
            self
        }

        fn scan(self) -> Option<Table> {
            let disk: Arc<dyn Disk> = Checked::wrap(Memory::new(self.0));
            scan(&disk).unwrap()
        }
    }

    #[test]
    fn primary_and_logical_partitions_are_numbered_as_in_linux() {
        let table = Builder::new(MIB)
            .entry(0, 0, 0x83, 64, 64)
            .byte(FIRST_ENTRY, 0x80)
            .entry(0, 3, 0x05, 200, 500)
            .entry(200, 0, 0x83, 8, 20)
            .entry(200, 1, 0x05, 100, 50)
            .entry(300, 0, 0x82, 8, 20)
            .scan()
            .unwrap();
        assert_eq!((table.kind, table.id.as_str()), (TableKind::Mbr, "deadbeef"));
        let rows: Vec<_> =
            table.partitions.iter().map(|p| (p.number, p.range.start / 512, p.role, p.partuuid.as_str())).collect();
        assert_eq!(
            rows,
            [
                (1, 64, Role::Primary, "deadbeef-01"),
                (4, 200, Role::Extended, "deadbeef-04"),
                (5, 208, Role::Logical, "deadbeef-05"),
                (6, 308, Role::Logical, "deadbeef-06"),
            ]
        );
        assert!(table.partitions[0].bootable);
        assert_eq!(table.problems, []);
        assert!(table.check_writable(1).is_ok());
    }

    #[test]
    fn hostile_extended_record_that_points_to_itself() {
        let table = Builder::new(MIB)
            .entry(0, 0, 0x05, 100, 500)
            .entry(100, 0, 0x83, 8, 4)
            .entry(100, 1, 0x05, 0, 50)
            .scan()
            .unwrap();
        assert_eq!(table.partitions.len(), 2);
        assert_eq!(table.problems, [Problem::BrokenChain { sector: 100 }]);
    }

    #[test]
    fn hostile_extended_records_in_a_cycle() {
        let table = Builder::new(MIB)
            .entry(0, 0, 0x05, 100, 500)
            .entry(100, 1, 0x05, 20, 50)
            .entry(120, 1, 0x05, 0, 50)
            .scan()
            .unwrap();
        assert_eq!(table.problems, [Problem::BrokenChain { sector: 100 }]);
    }

    #[test]
    fn hostile_chain_longer_than_the_limit() {
        let count = u32::try_from(limits::MAX_PARTITIONS).unwrap() + 40;
        let mut builder = Builder::new(2 * MIB).entry(0, 0, 0x05, 10, 4000);
        for i in 0..count {
            builder = builder.entry(10 + 2 * i as usize, 0, 0x83, 1, 1).entry(10 + 2 * i as usize, 1, 5, 2 * i + 2, 1);
        }
        let table = builder.scan().unwrap();
        assert_eq!(table.partitions.len(), limits::MAX_PARTITIONS);
        assert_eq!(table.problems, [Problem::TooMany]);
    }

    #[test]
    fn hostile_chain_that_leaves_the_disk() {
        let table = Builder::new(MIB).entry(0, 0, 0x0f, 100, 500).entry(100, 1, 5, u32::MAX, 50).scan().unwrap();
        assert_eq!(table.problems, [Problem::BrokenChain { sector: u64::from(u32::MAX) + 100 }]);
    }

    #[test]
    fn hostile_chain_into_a_sector_without_signature() {
        let table = Builder::new(MIB).entry(0, 0, 0x85, 100, 500).entry(100, 1, 5, 7, 50).scan().unwrap();
        assert_eq!(table.problems, [Problem::BrokenChain { sector: 107 }]);
    }

    #[test]
    fn hostile_overlap_is_reported_and_not_writable() {
        let table = Builder::new(MIB)
            .entry(0, 0, 0x83, 64, 640)
            .entry(0, 1, 0x83, 100, 10)
            .entry(0, 2, 0x83, 700, 10)
            .scan()
            .unwrap();
        assert_eq!(
            table.problems,
            [Problem::Overlap { first: 1, second: 2 }, Problem::Overlap { first: 1, second: 3 }]
        );
        assert_eq!(table.check_writable(3).unwrap_err().code(), "volume.overlap");
        let table = Builder::new(MIB).entry(0, 0, 0x83, 64, 64).entry(0, 1, 0x83, 128, 64).scan().unwrap();
        assert_eq!(table.problems, []);
    }

    #[test]
    fn hostile_partition_outside_of_the_disk() {
        let table = Builder::new(MIB).entry(0, 0, 0x83, u32::MAX, u32::MAX).scan().unwrap();
        assert_eq!(table.problems, [Problem::Outside { number: 1 }]);
        assert_eq!(table.partitions[0].range.end, (u64::from(u32::MAX) * 2) * 512);
        assert_eq!(table.check_writable(1).unwrap_err().code(), "volume.outside");
        let table = Builder::new(MIB).entry(0, 0, 0x83, 1, 2047).scan().unwrap();
        assert_eq!(table.problems, []);
    }

    #[test]
    fn hostile_logical_partition_over_a_primary_one() {
        let table = Builder::new(MIB)
            .entry(0, 0, 0x83, 10, 40)
            .entry(0, 1, 0x05, 100, 500)
            .entry(100, 0, 0x83, u32::MAX - 40, 10)
            .scan()
            .unwrap();
        assert_eq!(table.problems, [Problem::Outside { number: 5 }]);
    }

    #[test]
    fn hostile_third_entry_of_an_extended_record_must_lie_inside() {
        let table = Builder::new(MIB)
            .entry(0, 0, 0x05, 100, 50)
            .entry(100, 0, 0x83, 8, 4)
            .entry(100, 2, 0x83, 500, 10)
            .scan()
            .unwrap();
        assert_eq!(table.partitions.len(), 2);
    }

    #[test]
    fn hostile_boot_sector_of_a_file_system_is_no_table() {
        assert!(Builder::new(MIB).entry(0, 0, 0x83, 64, 64).byte(FIRST_ENTRY + 16, 0x33).scan().is_none());
        assert!(Builder::new(MIB).scan().is_none(), "an empty MBR lists nothing");
    }

    #[test]
    fn hostile_disks_shorter_than_a_sector() {
        for len in 0..=512 {
            let bytes = Builder::new(1024).entry(0, 0, 0x83, 1, 1).0[..len].to_vec();
            let disk: Arc<dyn Disk> = Checked::wrap(Memory::new(bytes));
            assert_eq!(scan(&disk).unwrap().is_some(), len == 512);
        }
    }
}
