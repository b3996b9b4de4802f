//! The metadata region: what sort of disk it is ([MS-VHDX] 2.6).

use std::ops::Range;

use uuid::Uuid;

use super::header::MIB;
use crate::disk::bytes::{array, le16, le32, le64};
use crate::disk::{Disk, SectorSize, read_vec};
use crate::error::{Error, Result};
use crate::format::windows::{parents, utf16};
use crate::limits::{MAX_REFERENCE, MAX_VHDX_SIZE};
use crate::source::Reference;

const TABLE_LEN: usize = 64 << 10;
const MAX_ENTRIES: u16 = 2047;

const FILE_PARAMETERS: Uuid = Uuid::from_u128(0xcaa1_6737_fa36_4d43_b3b6_33f0_aa44_e76b);
const VIRTUAL_DISK_SIZE: Uuid = Uuid::from_u128(0x2fa5_4224_cd1b_4876_b211_5dbe_d83b_f4b8);
const VIRTUAL_DISK_ID: Uuid = Uuid::from_u128(0xbeca_12ab_b2e6_4523_93ef_c309_e000_c746);
const LOGICAL_SECTOR_SIZE: Uuid = Uuid::from_u128(0x8141_bf1d_a96f_4709_ba47_f233_a8fa_ab5f);
const PHYSICAL_SECTOR_SIZE: Uuid = Uuid::from_u128(0xcda3_48c7_445d_4471_9cc9_e988_5251_c556);
const PARENT_LOCATOR: Uuid = Uuid::from_u128(0xa8d3_5f2d_b30b_454d_abf7_d3d8_4834_ab0c);

/// `LocatorType` of a parent that is a VHDX itself.
const VHDX_PARENT: Uuid = Uuid::from_u128(0xb04a_efb7_d19e_4a81_b789_25b8_e944_5913);

/// The known items, checked against each other.
#[derive(Clone, Debug)]
pub(super) struct Metadata {
    /// `BlockSize` in bytes: a power of two from 1 to 256 MiB.
    pub(super) block_size: u64,
    /// `LeaveBlockAllocated`: a fixed disk.
    pub(super) leave_block_allocated: bool,
    /// `VirtualDiskSize` in bytes.
    pub(super) size: u64,
    /// `VirtualDiskId`.
    pub(super) id: Option<Uuid>,
    /// `LogicalSectorSize`.
    pub(super) sector_size: SectorSize,
    /// `PhysicalSectorSize` in bytes.
    pub(super) physical_sector_size: u32,
    /// Where the parent is, when `HasParent` is set.
    pub(super) parent: Option<Locator>,
}

/// A parent locator's keys and values.
#[derive(Clone, Debug, Default)]
pub(super) struct Locator {
    /// `parent_linkage` and `parent_linkage2`: the parent's `DataWriteGuid`.
    pub(super) linkages: Vec<Uuid>,
    /// `relative_path`, `absolute_win32_path`, `volume_path`, as far as there are any.
    pub(super) paths: Vec<String>,
}

impl Locator {
    /// The names under which the parent may be found, the best first.
    pub(super) fn names(&self) -> Vec<Reference> {
        parents(&self.paths)
    }
}

impl Metadata {
    /// Reads the region at `region`.
    ///
    /// # Errors
    /// `vhdx.metadata`, `vhdx.feature`, or those of reading.
    pub(super) fn read(file: &dyn Disk, region: &Range<u64>) -> Result<Self> {
        let items = Items::read(file, region)?;
        let parameters = items.needed(FILE_PARAMETERS, 8)?;
        let block_size = u64::from(le32(&parameters, 0));
        if !block_size.is_power_of_two() || !(MIB..=256 * MIB).contains(&block_size) {
            return Err(items
                .bad("the block size is impossible")
                .expected("a power of two from 1 to 256 MiB")
                .found(block_size));
        }
        let sector_size = match le32(&items.needed(LOGICAL_SECTOR_SIZE, 4)?, 0) {
            512 => SectorSize::B512,
            4096 => SectorSize::B4096,
            other => {
                return Err(items.bad("the logical sector size is impossible").expected("512 or 4096").found(other));
            }
        };
        let size = le64(&items.needed(VIRTUAL_DISK_SIZE, 8)?, 0);
        if size == 0 || size > MAX_VHDX_SIZE || !size.is_multiple_of(sector_size.bytes()) {
            return Err(items
                .bad("the size of the disk is impossible")
                .expected(format!("whole sectors, at most {MAX_VHDX_SIZE:#x}"))
                .found(format!("{size:#x}")));
        }
        let flags = le32(&parameters, 4);
        let parent = match flags & 2 != 0 {
            true => Some(items.locator()?),
            false => None,
        };
        let physical = items.value(PHYSICAL_SECTOR_SIZE, 4)?.map_or(512, |bytes| le32(&bytes, 0));
        let id = items.value(VIRTUAL_DISK_ID, 16)?.map(|bytes| Uuid::from_bytes_le(array(&bytes, 0)));
        let leave_block_allocated = flags & 1 != 0;
        Ok(Self { block_size, leave_block_allocated, size, id, sector_size, physical_sector_size: physical, parent })
    }
}

/// The table of items.
struct Items<'a> {
    file: &'a dyn Disk,
    region: Range<u64>,
    table: Vec<u8>,
    count: usize,
}

impl<'a> Items<'a> {
    fn read(file: &'a dyn Disk, region: &Range<u64>) -> Result<Self> {
        let table = read_vec(file, region.start, TABLE_LEN)?;
        let count = le16(&table, 10);
        let items = Self { file, region: region.clone(), count: usize::from(count), table };
        if !items.table.starts_with(b"metadata") || count > MAX_ENTRIES {
            return Err(items.bad("the metadata table is damaged"));
        }
        const KNOWN: [Uuid; 6] = [
            FILE_PARAMETERS,
            VIRTUAL_DISK_SIZE,
            VIRTUAL_DISK_ID,
            LOGICAL_SECTOR_SIZE,
            PHYSICAL_SECTOR_SIZE,
            PARENT_LOCATOR,
        ];
        for entry in items.entries() {
            let id = Uuid::from_bytes_le(array(entry, 0));
            // IsRequired; an item that is not known must be left to who knows it.
            if le32(entry, 24) & 4 != 0 && !KNOWN.contains(&id) {
                return Err(Error::unsupported("vhdx.feature", "the disk needs a metadata item that is not known")
                    .offset(items.region.start)
                    .found(id));
            }
        }
        Ok(items)
    }

    fn entries(&self) -> impl Iterator<Item = &[u8]> {
        self.table.get(32..).unwrap_or_default().chunks_exact(32).take(self.count)
    }

    /// The value of `item`, at least `least` bytes long.
    fn value(&self, item: Uuid, least: u32) -> Result<Option<Vec<u8>>> {
        let Some(entry) = self.entries().find(|entry| Uuid::from_bytes_le(array(entry, 0)) == item) else {
            return Ok(None);
        };
        let (offset, length) = (le32(entry, 16), le32(entry, 20));
        let start = self.region.start.saturating_add(u64::from(offset));
        let end = start.saturating_add(u64::from(length));
        let most = u32::try_from(MIB).unwrap_or(u32::MAX);
        if offset < 64 << 10 || !(least..=most).contains(&length) || end > self.region.end {
            return Err(self
                .bad("a metadata item lies where it cannot be")
                .found(format!("{length:#x} bytes at {offset:#x} of the region")));
        }
        read_vec(self.file, start, usize::try_from(length).unwrap_or(0)).map(Some)
    }

    fn needed(&self, item: Uuid, least: u32) -> Result<Vec<u8>> {
        self.value(item, least)?.ok_or_else(|| self.bad("a metadata item is missing").expected(item))
    }

    fn locator(&self) -> Result<Locator> {
        let bytes = self.needed(PARENT_LOCATOR, 20)?;
        let kind = Uuid::from_bytes_le(array(&bytes, 0));
        if kind != VHDX_PARENT {
            return Err(Error::unsupported("vhdx.feature", "the parent is of a kind that is not known")
                .offset(self.region.start)
                .found(kind));
        }
        let mut locator = Locator::default();
        let (mut relative, mut absolute, mut volume) = (None, None, None);
        let count = usize::from(le16(&bytes, 18));
        for entry in bytes.get(20..).unwrap_or_default().chunks_exact(12).take(count) {
            let text = |at: u32, len: u16| {
                let start = usize::try_from(at).ok()?;
                let text = bytes.get(start..start.checked_add(usize::from(len))?)?;
                (text.len() <= MAX_REFERENCE).then(|| utf16(text, u16::from_le_bytes))
            };
            let key = text(le32(entry, 0), le16(entry, 8));
            let value = text(le32(entry, 4), le16(entry, 10));
            let (Some(key), Some(value)) = (key, value) else {
                return Err(self.bad("an entry of the parent locator lies outside of it"));
            };
            match key.as_str() {
                "parent_linkage" | "parent_linkage2" => {
                    let linkage = Uuid::parse_str(value.trim()).ok();
                    locator.linkages.extend(linkage.filter(|linkage| !linkage.is_nil()));
                }
                "relative_path" => relative = Some(value),
                "absolute_win32_path" => absolute = Some(value),
                "volume_path" => volume = Some(value),
                _ => {}
            }
        }
        locator.paths.extend([relative, absolute, volume].into_iter().flatten());
        Ok(locator)
    }

    fn bad(&self, what: &str) -> Error {
        Error::corrupt("vhdx.metadata", what).offset(self.region.start)
    }
}
