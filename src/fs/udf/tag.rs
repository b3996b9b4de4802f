//! Descriptors: each begins with a tag that says what it is and where it belongs (ECMA-167, 3/7.2).

use super::corrupt;
use crate::disk::bytes::{le16, le32, u8_at};
use crate::error::Result;
use crate::fs::pages::Pages;

pub(super) const PRIMARY: u16 = 1;
pub(super) const ANCHOR: u16 = 2;
pub(super) const POINTER: u16 = 3;
pub(super) const PARTITION: u16 = 5;
pub(super) const LOGICAL: u16 = 6;
pub(super) const TERMINATING: u16 = 8;
pub(super) const INTEGRITY: u16 = 9;
pub(super) const FILE_SET: u16 = 256;
pub(super) const FILE_IDENTIFIER: u16 = 257;
pub(super) const ALLOCATION_EXTENT: u16 = 258;
pub(super) const FILE_ENTRY: u16 = 261;
pub(super) const ATTRIBUTE_HEADER: u16 = 262;
pub(super) const EXTENDED_FILE_ENTRY: u16 = 266;
pub(super) const INDIRECT_ENTRY: u16 = 248;

/// Bytes of a tag.
pub(super) const TAG: usize = 16;

/// What `bytes` begin with, if their checksum and CRC say that it is a descriptor.
pub(super) fn kind(bytes: &[u8]) -> Option<u16> {
    let tag = bytes.get(..TAG)?;
    let counted = tag.iter().enumerate().filter(|(at, _)| *at != 4);
    let sum = counted.fold(0_u8, |sum, (_, byte)| sum.wrapping_add(*byte));
    let covered = bytes.get(TAG..)?.get(..usize::from(le16(tag, 10)))?;
    (sum == u8_at(tag, 4) && crc(covered) == le16(tag, 8)).then(|| le16(tag, 0))
}

/// The descriptor in the block of `len` bytes at `place`, which must say that it belongs at `location`, and its kind.
pub(super) fn read(pages: &Pages, place: u64, len: usize, location: u32) -> Result<(u16, Vec<u8>)> {
    let bytes = pages.bytes(place, len)?;
    let kind = kind(&bytes).ok_or_else(|| corrupt("a descriptor's checksum is wrong").offset(place))?;
    if le32(&bytes, 12) != location {
        let error = corrupt("a descriptor belongs to another place").offset(place);
        return Err(error.expected(location).found(le32(&bytes, 12)));
    }
    Ok((kind, bytes))
}

/// The same, of one kind.
pub(super) fn expect(pages: &Pages, place: u64, len: usize, location: u32, wanted: u16) -> Result<Vec<u8>> {
    let (kind, bytes) = read(pages, place, len, location)?;
    if kind != wanted {
        return Err(corrupt("a descriptor is of another kind").offset(place).expected(wanted).found(kind));
    }
    Ok(bytes)
}

/// The CRC of ECMA-167, 3/7.2.6: x^16 + x^12 + x^5 + 1.
pub(super) fn crc(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0_u16, |crc, byte| {
        let [high, low] = crc.to_be_bytes();
        // Eight steps at once.
        let a = high ^ byte;
        let b = a ^ a >> 4;
        let wide = u16::from(b);
        u16::from_be_bytes([low, 0]) ^ wide << 12 ^ wide << 5 ^ wide
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crc_is_that_of_the_standard() {
        assert_eq!(crc(&[0x70, 0x6a, 0x77]), 0x3299);
        assert_eq!(crc(b"123456789"), 0x31c3);
        assert_eq!(crc(b""), 0);
    }
}
