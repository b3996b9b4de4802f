//! The header of a hosted sparse extent: `SparseExtentHeader` of VMware's Virtual Disk Format 5.0, all fields little endian.

use crate::error::{Error, Result};
use crate::limits;

/// Bytes in a sector, the unit of nearly every field.
pub(super) const SECTOR: u64 = 512;

/// Length of the header in bytes.
pub(super) const LEN: usize = 512;

/// `gdOffset` of a stream-optimized extent whose grain directory is at the end: the footer tells where.
const GD_AT_END: u64 = u64::MAX;

const FLAG_NEWLINES: u32 = 1;
const FLAG_RGD: u32 = 1 << 1;
const FLAG_ZEROED_GRAINS: u32 = 1 << 2;
const FLAG_COMPRESSED: u32 = 1 << 16;
const FLAG_MARKERS: u32 = 1 << 17;

/// A header whose fields were checked against each other. Offsets were not checked against the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// `version`: 1, 2 or 3.
    pub(super) version: u32,
    /// `capacity` in bytes; 0 in a header that only holds a descriptor.
    pub(super) capacity: u64,
    /// `grainSize` in bytes: a power of two, at most [`limits::MAX_UNIT`].
    pub(super) grain: u64,
    /// `numGTEsPerGT`: entries in a grain table, 1 to [`limits::MAX_VMDK_GTES`].
    pub(super) gtes: u64,
    /// `descriptorOffset` and `descriptorSize` in bytes, when there is an embedded descriptor.
    pub(super) descriptor: Option<(u64, usize)>,
    /// `rgdOffset` in bytes, when the flags say that it is valid.
    pub(super) rgd: Option<u64>,
    /// `gdOffset` in bytes; `None` when the footer tells.
    pub(super) gd: Option<u64>,
    /// A grain table entry of 1 means zeros.
    pub(super) zeroed_grains: bool,
    /// Grains are compressed.
    pub(super) compressed: bool,
    /// A marker stands before each compressed grain and each table.
    pub(super) markers: bool,
    /// `uncleanShutdown`.
    pub(super) unclean: bool,
}

impl Header {
    /// Parses the 512 bytes at the front, or of the footer.
    ///
    /// # Errors
    /// `vmdk.header` when a field is impossible, `vmdk.version` for versions and compressions that are not known.
    pub(super) fn parse(bytes: &[u8; LEN]) -> Result<Self> {
        if !bytes.starts_with(b"KDMV") {
            return Err(bad(
                "the magic number is wrong",
                0,
                "KDMV",
                crate::error::escape_bytes(bytes.get(..4).unwrap_or_default()),
            ));
        }
        let (version, flags) = (u32_at(bytes, 4), u32_at(bytes, 8));
        if !(1..=3).contains(&version) {
            return Err(unsupported("the version is not known", 4, "1 to 3", version));
        }
        if flags & FLAG_NEWLINES != 0 && bytes.get(73..77) != Some(b"\n \r\n") {
            return Err(bad(
                "line ends were converted, as an FTP transfer in text mode does",
                73,
                "\\n \\r\\n",
                "others",
            ));
        }
        let compressed = flags & FLAG_COMPRESSED != 0;
        let algorithm = u16_at(bytes, 77);
        if compressed && algorithm != 1 {
            return Err(unsupported("the compression is not known", 77, "1 (deflate)", algorithm));
        }
        let grain = sectors(bytes, 20)?;
        let capacity = sectors(bytes, 12)?;
        let gtes = u64::from(u32_at(bytes, 44));
        if capacity != 0 {
            check_geometry(capacity, grain, gtes)?;
        }
        let gd_sectors = u64_at(bytes, 56);
        Ok(Self {
            version,
            capacity,
            grain,
            gtes,
            descriptor: descriptor(bytes)?,
            rgd: (flags & FLAG_RGD != 0).then(|| sectors(bytes, 48)).transpose()?,
            gd: (gd_sectors != GD_AT_END).then(|| sectors(bytes, 56)).transpose()?,
            zeroed_grains: flags & FLAG_ZEROED_GRAINS != 0,
            compressed,
            markers: flags & FLAG_MARKERS != 0,
            unclean: bytes.get(72) != Some(&0),
        })
    }

    /// Takes the place of the grain directory from the footer, which must otherwise say what the header says.
    ///
    /// # Errors
    /// `vmdk.footer` when they disagree.
    pub(super) fn with_footer(self, footer: &Self) -> Result<Self> {
        let same_descriptor = footer.descriptor.is_none() || footer.descriptor == self.descriptor;
        let same = (
            footer.version,
            footer.capacity,
            footer.grain,
            footer.gtes,
            footer.compressed,
            footer.markers,
            footer.zeroed_grains,
        ) == (
            self.version,
            self.capacity,
            self.grain,
            self.gtes,
            self.compressed,
            self.markers,
            self.zeroed_grains,
        );
        if !same || !same_descriptor {
            return Err(Error::corrupt("vmdk.footer", "the footer contradicts the header")
                .expected(format!("capacity {:#x}, grain {:#x}", self.capacity, self.grain))
                .found(format!("capacity {:#x}, grain {:#x}", footer.capacity, footer.grain)));
        }
        if footer.gd.is_none() {
            return Err(Error::corrupt("vmdk.footer", "the footer does not say where the grain directory is"));
        }
        Ok(Self { gd: footer.gd, rgd: footer.rgd, ..self })
    }
}

/// `overHead` in bytes: where the grains begin.
///
/// # Errors
/// `vmdk.header` when it is impossible.
pub(super) fn overhead(bytes: &[u8; LEN]) -> Result<u64> {
    sectors(bytes, 64)
}

fn check_geometry(capacity: u64, grain: u64, gtes: u64) -> Result<()> {
    let largest = u64::try_from(limits::MAX_UNIT).unwrap_or(u64::MAX);
    if !grain.is_power_of_two() || grain > largest {
        return Err(bad("the grain size is impossible", 20, "a power of two up to 2 MiB", format!("{grain:#x} bytes")));
    }
    if gtes == 0 || gtes > limits::MAX_VMDK_GTES {
        return Err(bad("the number of entries in a grain table is impossible", 44, "1 to 512", gtes));
    }
    if capacity > limits::MAX_DISK_LEN {
        return Err(Error::limit("disk.too-large", "the disk is too large")
            .offset(12)
            .expected(format!("at most {:#x} bytes", limits::MAX_DISK_LEN))
            .found(format!("{capacity:#x}")));
    }
    Ok(())
}

fn descriptor(bytes: &[u8; LEN]) -> Result<Option<(u64, usize)>> {
    let (offset, size) = (sectors(bytes, 28)?, sectors(bytes, 36)?);
    if offset == 0 || size == 0 {
        return Ok(None);
    }
    match usize::try_from(size) {
        Ok(size) if size <= limits::MAX_VMDK_DESCRIPTOR => Ok(Some((offset, size))),
        _ => Err(Error::limit("vmdk.descriptor", "the embedded descriptor is too large")
            .offset(36)
            .expected(format!("at most {:#x} bytes", limits::MAX_VMDK_DESCRIPTOR))
            .found(format!("{size:#x}"))),
    }
}

/// A field in sectors, in bytes.
fn sectors(bytes: &[u8; LEN], at: usize) -> Result<u64> {
    let value = u64_at(bytes, at);
    value
        .checked_mul(SECTOR)
        .ok_or_else(|| bad("a size or offset is impossible", at, "a number of sectors", format!("{value:#x}")))
}

fn bad(what: &str, at: usize, expected: &str, found: impl std::fmt::Display) -> Error {
    Error::corrupt("vmdk.header", what).offset(u64::try_from(at).unwrap_or(0)).expected(expected).found(found)
}

fn unsupported(what: &str, at: usize, expected: &str, found: impl std::fmt::Display) -> Error {
    Error::unsupported("vmdk.version", what).offset(u64::try_from(at).unwrap_or(0)).expected(expected).found(found)
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(<[u8]>::first_chunk).copied().unwrap_or([0; N])
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(field(bytes, at))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(field(bytes, at))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(field(bytes, at))
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, clippy::as_conversions, reason = "tests build their input")]
pub(super) mod tests {
    use super::*;

    /// A good header of a disk of 1,000 sectors in grains of 128, tables at sector 21.
    pub(in crate::format::vmdk) fn good() -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[..4].copy_from_slice(b"KDMV");
        for (at, value) in
            [(4, 1), (8, 3), (12, 1000), (20, 128), (28, 1), (36, 20), (44, 512), (48, 21), (56, 22), (64, 128)]
        {
            poke(&mut bytes, at, value);
        }
        bytes[73..77].copy_from_slice(b"\n \r\n");
        bytes
    }

    /// Writes a field of the width that the structure has at `at`.
    pub(in crate::format::vmdk) fn poke(bytes: &mut [u8; LEN], at: usize, value: u64) {
        let width = match at {
            4 | 8 | 44 => 4,
            72 => 1,
            77 => 2,
            _ => 8,
        };
        bytes[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
    }

    #[test]
    fn a_good_header_parses() {
        let header = Header::parse(&good()).unwrap();
        assert_eq!((header.capacity, header.grain, header.gtes), (512_000, 65_536, 512));
        assert_eq!((header.descriptor, header.rgd, header.gd), (Some((512, 10_240)), Some(10_752), Some(11_264)));
        assert!(!header.compressed && !header.unclean && !header.zeroed_grains);
    }

    #[test]
    fn impossible_fields_are_named() {
        let cases: &[(usize, u64, &str)] = &[
            (4, 0, "vmdk.version"),
            (4, 4, "vmdk.version"),
            (12, u64::MAX, "vmdk.header"),
            (12, (64 << 41) + 1, "disk.too-large"),
            (20, 0, "vmdk.header"),
            (20, 127, "vmdk.header"),
            (20, 8192, "vmdk.header"),
            (20, 1 << 63, "vmdk.header"),
            (28, u64::MAX, "vmdk.header"),
            (36, 2049, "vmdk.descriptor"),
            (44, 0, "vmdk.header"),
            (44, 513, "vmdk.header"),
            (48, 1 << 60, "vmdk.header"),
            (56, u64::MAX - 1, "vmdk.header"),
            (8, 3 | 1 << 16, "vmdk.version"),
            (8, 3 | 3 << 16, "vmdk.version"),
        ];
        for (at, value, code) in cases {
            let mut bytes = good();
            poke(&mut bytes, *at, *value);
            assert_eq!(Header::parse(&bytes).unwrap_err().code(), *code, "{at} {value:#x}");
        }
        let mut ftp = good();
        ftp[75] = b'\n';
        assert!(Header::parse(&ftp).unwrap_err().to_string().contains("FTP"));
        ftp[8] = 0;
        assert!(Header::parse(&ftp).is_ok(), "the test is off without its flag");
    }

    #[test]
    fn bounds_are_inclusive() {
        for (at, value) in [(20, 4096), (20, 1), (44, 512), (44, 1), (12, 64 << 41), (36, 2048)] {
            let mut bytes = good();
            poke(&mut bytes, at, value);
            assert!(Header::parse(&bytes).is_ok(), "{at} {value:#x}");
        }
    }

    #[test]
    fn the_footer_must_agree() {
        let mut front = good();
        poke(&mut front, 56, u64::MAX);
        let header = || Header::parse(&front).unwrap();
        assert_eq!(header().gd, None);
        let footer = |at, value| {
            let mut bytes = good();
            poke(&mut bytes, at, value);
            Header::parse(&bytes).unwrap()
        };
        assert_eq!(header().with_footer(&footer(56, 99)).unwrap().gd, Some(99 * 512));
        assert!(header().with_footer(&footer(28, 0)).is_ok(), "a footer may leave out the descriptor");
        for (at, value) in [(12, 999), (20, 64), (44, 256), (28, 3), (56, u64::MAX), (8, 7), (4, 3)] {
            assert_eq!(header().with_footer(&footer(at, value)).unwrap_err().code(), "vmdk.footer", "{at}");
        }
    }

    #[test]
    fn grains_and_their_tables_have_bounds() {
        let parse = |at, value| {
            let mut bytes = good();
            poke(&mut bytes, at, value);
            Header::parse(&bytes).map_or_else(|error| error.code(), |_| "ok")
        };
        let largest = u64::try_from(limits::MAX_UNIT).unwrap() / 512;
        assert_eq!([largest / 2, largest, largest * 2].map(|grain| parse(20, grain)), ["ok", "ok", "vmdk.header"]);
        let most = limits::MAX_VMDK_GTES;
        assert_eq!([most - 1, most, most + 1].map(|count| parse(44, count)), ["ok", "ok", "vmdk.header"]);
    }
}
