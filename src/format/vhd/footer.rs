//! The hard disk footer: 512 bytes at the end of every VHD, and a copy at the front of those that are not fixed. All fields are
//! big endian.

use uuid::Uuid;

use crate::disk::bytes::{array, be32, be64};
use crate::error::{Error, Result};
use crate::limits::MAX_DISK_LEN;
use crate::session::VhdSize;

/// Bytes of the footer.
pub(super) const LEN: usize = 512;

/// `Cookie`.
pub(super) const COOKIE: &[u8; 8] = b"conectix";

const CHECKSUM: usize = 64;

/// Geometry beyond which it says nothing of the size: 65,535 cylinders, 16 heads, 255 sectors.
const MOST: (u16, u8, u8) = (65_535, 16, 255);

/// A footer whose checksum is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Footer {
    /// `Data Offset`: where the dynamic disk header is.
    pub(super) data_offset: u64,
    /// `Time Stamp`: seconds since 2000-01-01.
    pub(super) time_stamp: u32,
    /// `Creator Application`.
    pub(super) creator: [u8; 4],
    /// `Creator Version`: major and minor.
    pub(super) creator_version: (u16, u16),
    /// `Current Size` in bytes.
    pub(super) current_size: u64,
    /// `Disk Geometry`: cylinders, heads, sectors a track.
    pub(super) geometry: (u16, u8, u8),
    /// `Disk Type`.
    pub(super) disk_type: DiskType,
    /// `Unique Id`.
    pub(super) unique_id: Uuid,
    /// `Saved State`: the machine was suspended.
    pub(super) saved_state: bool,
}

/// `Disk Type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DiskType {
    Fixed,
    Dynamic,
    Differencing,
}

impl DiskType {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Fixed => "fixed",
            Self::Dynamic => "dynamic",
            Self::Differencing => "differencing",
        }
    }
}

impl Footer {
    /// Parses a footer found at `at`.
    ///
    /// # Errors
    /// `vhd.footer`.
    pub(super) fn parse(bytes: &[u8; LEN], at: u64) -> Result<Self> {
        let bad = |what: &str, field: u64| Error::corrupt("vhd.footer", what).offset(at.saturating_add(field));
        if !bytes.starts_with(COOKIE) {
            return Err(bad("there is no footer", 0).expected("conectix"));
        }
        let (stored, sum) = (be32(bytes, CHECKSUM), checksum(bytes, CHECKSUM));
        if stored != sum {
            let error = bad("the footer's checksum is wrong", 64);
            return Err(error.expected(format!("{sum:#x}")).found(format!("{stored:#x}")));
        }
        if be32(bytes, 12) >> 16 != 1 {
            return Err(bad("the version is not known", 12).expected("1.0").found(format!("{:#x}", be32(bytes, 12))));
        }
        let disk_type = match be32(bytes, 60) {
            2 => DiskType::Fixed,
            3 => DiskType::Dynamic,
            4 => DiskType::Differencing,
            other => return Err(bad("the disk type is not known", 60).expected("2, 3 or 4").found(other)),
        };
        let current_size = be64(bytes, 48);
        if current_size == 0 || !current_size.is_multiple_of(512) || current_size > MAX_DISK_LEN {
            return Err(bad("the size is impossible", 48).found(format!("{current_size:#x}")));
        }
        let [c0, c1, heads, sectors] = array(bytes, 56);
        let [v0, v1, v2, v3] = array(bytes, 32);
        Ok(Self {
            data_offset: be64(bytes, 16),
            time_stamp: be32(bytes, 24),
            creator: array(bytes, 28),
            creator_version: (u16::from_be_bytes([v0, v1]), u16::from_be_bytes([v2, v3])),
            current_size,
            geometry: (u16::from_be_bytes([c0, c1]), heads, sectors),
            disk_type,
            unique_id: Uuid::from_bytes(array(bytes, 68)),
            saved_state: array::<1>(bytes, 84) != [0],
        })
    }

    /// The virtual size in bytes, and the rule that gave it. Virtual PC and old QEMU made disks as large as their geometry
    /// says; everybody else goes by `Current Size`, and so does everybody once the geometry is at its limit.
    pub(super) fn size(&self, asked: VhdSize) -> (u64, VhdSize) {
        let by_geometry = match asked {
            VhdSize::ByCreator => matches!(&self.creator, b"vpc " | b"qemu"),
            VhdSize::Geometry => true,
            VhdSize::Current => false,
        };
        let (cylinders, heads, sectors) = self.geometry;
        let bytes = u64::from(cylinders)
            .saturating_mul(u64::from(heads))
            .saturating_mul(u64::from(sectors))
            .saturating_mul(512);
        if by_geometry && self.geometry != MOST && bytes > 0 {
            (bytes, VhdSize::Geometry)
        } else {
            (self.current_size, VhdSize::Current)
        }
    }
}

/// The one's complement of the sum of all bytes but those of the checksum itself, which is at `at`.
pub(super) fn checksum(bytes: &[u8], at: usize) -> u32 {
    let of = |bytes: &[u8]| bytes.iter().fold(0_u32, |sum, byte| sum.wrapping_add(u32::from(*byte)));
    let own = bytes.get(at..).and_then(|rest| rest.get(..4)).unwrap_or_default();
    !of(bytes).wrapping_sub(of(own))
}
