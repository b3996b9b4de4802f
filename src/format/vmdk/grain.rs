//! Compressed grains: a marker of logical address and size, then zlib data.

use std::cell::RefCell;

use libdeflater::{DecompressionError, Decompressor};

use crate::disk::Disk;
use crate::error::{Error, Result};

/// Length of a grain marker: `lba` (u64, sectors) and `size` (u32, bytes of data that follow).
pub(super) const MARKER: usize = 12;

/// The largest number of bytes that a grain of `grain` bytes may take in the file. Incompressible data grows a little; qemu
/// reads two grains at most.
pub(super) fn largest_stored(grain: u64) -> u64 {
    grain.saturating_mul(2).saturating_add(super::header::SECTOR)
}

/// Bytes that the grain of sector `lba` takes at `offset` of `file`, its marker included. It has `grain` bytes when decoded.
///
/// # Errors
/// `vmdk.grain`.
pub(super) fn stored_len(file: &dyn Disk, offset: u64, lba: u64, grain: u64) -> Result<u64> {
    marker(file, offset, lba, grain).map(|len| u64::try_from(len).unwrap_or(u64::MAX).saturating_add(12))
}

/// Reads the grain at `offset` of `file`, which must say that it holds sector `lba`, and inflates it into `out`, which has the
/// length of a grain. At least `needed` bytes must come out; the rest becomes zeros.
///
/// # Errors
/// `vmdk.grain`.
pub(super) fn read(file: &dyn Disk, offset: u64, lba: u64, out: &mut [u8], needed: usize) -> Result<()> {
    let len = marker(file, offset, lba, u64::try_from(out.len()).unwrap_or(u64::MAX))?;
    unpack(file, offset.saturating_add(12), len, out, needed)
}

/// Reads the marker at `offset`, which must be that of sector `lba`, of a grain of `grain` bytes; gives how many bytes follow.
fn marker(file: &dyn Disk, offset: u64, lba: u64, grain: u64) -> Result<usize> {
    let bad = |what: &str| Error::corrupt("vmdk.grain", what).offset(offset);
    let mut marker = [0; MARKER];
    file.read_at(&mut marker, offset)?;
    let [l0, l1, l2, l3, l4, l5, l6, l7, s0, s1, s2, s3] = marker;
    let found = u64::from_le_bytes([l0, l1, l2, l3, l4, l5, l6, l7]);
    let size = u64::from(u32::from_le_bytes([s0, s1, s2, s3]));
    if found != lba {
        return Err(bad("a grain belongs to another place")
            .expected(format!("sector {lba:#x}"))
            .found(format!("{found:#x}")));
    }
    let data = offset.saturating_add(12);
    let most = largest_stored(grain).min(file.len().saturating_sub(data));
    let len = usize::try_from(size).ok().filter(|_| size > 0 && size <= most);
    let Some(len) = len else {
        return Err(bad("a compressed grain's size is impossible").expected(format!("1 to {most}")).found(size));
    };
    Ok(len)
}

/// As [`read`], for a grain without a marker, of which at most `stored` bytes are in the file.
///
/// # Errors
/// `vmdk.grain`.
pub(super) fn read_bare(file: &dyn Disk, offset: u64, stored: u32, out: &mut [u8], needed: usize) -> Result<()> {
    let most = u64::from(stored).min(file.len().saturating_sub(offset));
    unpack(file, offset, usize::try_from(most).unwrap_or(0), out, needed)
}

/// Inflates `stored` into `out`, which has the length of a grain. At least `needed` bytes must come out; the rest becomes zeros.
///
/// # Errors
/// `vmdk.grain`.
pub(super) fn decode(stored: &[u8], out: &mut [u8], needed: usize) -> Result<()> {
    let inflated = SCRATCH.with_borrow_mut(|scratch| inflate_into(stored, out, needed, &mut scratch.decompressor))?;
    out.get_mut(inflated..).unwrap_or_default().fill(0);
    Ok(())
}

/// Inflates the `len` bytes at `offset` of `file`.
fn unpack(file: &dyn Disk, offset: u64, len: usize, out: &mut [u8], needed: usize) -> Result<()> {
    let inflated = SCRATCH.with_borrow_mut(|scratch| {
        if scratch.stored.len() < len {
            scratch.stored.resize(len, 0);
        }
        let stored = scratch.stored.get_mut(..len).unwrap_or_default();
        file.read_at(stored, offset)?;
        inflate_into(stored, out, needed, &mut scratch.decompressor).map_err(|error| error.offset(offset))
    })?;
    out.get_mut(inflated..).unwrap_or_default().fill(0);
    Ok(())
}

fn inflate_into(stored: &[u8], out: &mut [u8], needed: usize, decompressor: &mut Decompressor) -> Result<usize> {
    let inflated = inflate(decompressor, stored, out)
        .map_err(|error| Error::corrupt("vmdk.grain", "a compressed grain is damaged").because(error))?;
    if inflated < needed {
        return Err(Error::corrupt("vmdk.grain", "a compressed grain is too short")
            .expected(format!("{needed} bytes"))
            .found(inflated));
    }
    Ok(inflated)
}

/// What each decoding thread keeps: the decompressor's tables and room for the stored bytes of a grain.
struct Scratch {
    stored: Vec<u8>,
    decompressor: Decompressor,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch { stored: Vec::new(), decompressor: Decompressor::new() });
}

/// Inflates zlib data (RFC 1950), as all writers store, or bare deflate data (RFC 1951), as the specification says.
fn inflate(decompressor: &mut Decompressor, stored: &[u8], out: &mut [u8]) -> Result<usize, DecompressionError> {
    let zlib = matches!(stored, [cmf, flg, ..] if cmf & 0x0f == 8 && u16::from_be_bytes([*cmf, *flg]) % 31 == 0);
    match zlib {
        true => decompressor.zlib_decompress(stored, out),
        false => decompressor.deflate_decompress(stored, out),
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, clippy::as_conversions, reason = "tests build their input")]
pub(super) mod tests {
    use super::*;
    use crate::disk::{Checked, Memory};
    use libdeflater::{CompressionLvl, Compressor};

    const GRAIN: usize = 4096;

    /// A grain as a writer stores it, padded to a sector.
    pub(in crate::format::vmdk) fn stored(lba: u64, data: &[u8], zlib: bool) -> Vec<u8> {
        let mut compressor = Compressor::new(CompressionLvl::default());
        let mut packed = vec![0; data.len() + 1024];
        let len = match zlib {
            true => compressor.zlib_compress(data, &mut packed),
            false => compressor.deflate_compress(data, &mut packed),
        };
        packed.truncate(len.unwrap());
        let mut bytes = lba.to_le_bytes().to_vec();
        bytes.extend(u32::try_from(packed.len()).unwrap().to_le_bytes());
        bytes.extend(packed);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }

    fn read_from(bytes: Vec<u8>, lba: u64, needed: usize) -> Result<Vec<u8>> {
        let mut out = vec![0xa5; GRAIN];
        read(&*Checked::wrap(Memory::new(bytes)), 0, lba, &mut out, needed).map(|()| out)
    }

    fn data() -> Vec<u8> {
        (0..GRAIN).map(|at| (at % 251) as u8).collect()
    }

    #[test]
    fn zlib_and_bare_deflate_are_read() {
        for zlib in [true, false] {
            assert_eq!(read_from(stored(77, &data(), zlib), 77, GRAIN).unwrap(), data(), "{zlib}");
        }
    }

    #[test]
    fn a_short_last_grain_is_filled_with_zeros() {
        let short = read_from(stored(8, &data()[..1000], true), 8, 600).unwrap();
        assert_eq!(short[..1000], data()[..1000]);
        assert!(short[1000..].iter().all(|b| *b == 0));
        assert_eq!(read_from(stored(8, &data()[..1000], true), 8, 1001).unwrap_err().code(), "vmdk.grain");
    }

    #[test]
    fn hostile_grains_are_refused() {
        let good = stored(8, &data(), true);
        assert_eq!(read_from(good.clone(), 9, GRAIN).unwrap_err().code(), "vmdk.grain");
        for (at, value) in [(8, 0), (9, 0xff), (10, 0xff), (11, 0x7f), (14, 0xff), (40, 0x55), (0, 1)] {
            let mut bad = good.clone();
            bad[at] = value;
            if at == 8 {
                bad[9] = 0;
            }
            assert!(read_from(bad, 8, GRAIN).is_err(), "byte {at}");
        }
        let bomb = stored(8, &vec![0; 1 << 20], true);
        assert_eq!(read_from(bomb, 8, GRAIN).unwrap_err().code(), "vmdk.grain");
        for len in 0..good.len() - 512 {
            assert!(read_from(good[..len].to_vec(), 8, GRAIN).is_err(), "cut at {len}");
        }
    }
}
