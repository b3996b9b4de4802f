//! The volume descriptors: which trees there are, and where they begin.

use super::{corrupt, geometry};
use crate::disk::bytes::{array, be32, is_at, le16, le32, u8_at};
use crate::error::Result;
use crate::fs::Timestamp;
use crate::fs::calendar::Moment;
use crate::fs::pages::Pages;
use crate::fs::utf16;

/// Bytes of a sector, whatever the logical block size is.
pub(super) const SECTOR: u64 = 2048;

/// The sector of the first volume descriptor.
const FIRST: u64 = 16;

/// Descriptors that are looked at. Discs have three to five.
const MOST: u64 = 64;

/// Where the root directory's record is in a descriptor.
const ROOT_RECORD: u64 = 156;

/// A primary or supplementary volume descriptor (ECMA-119, 8.4 and 8.5).
#[derive(Clone, Debug)]
pub(super) struct Descriptor {
    /// Bytes of a logical block.
    pub(super) block: u64,
    /// Bytes of the volume.
    pub(super) size: u64,
    /// Where the record of the root directory lies.
    pub(super) root: u64,
    pub(super) label: Option<String>,
    /// The time of the last change, or of creation, as `blkid` writes it.
    pub(super) uuid: Option<String>,
}

/// The primary descriptor, and Joliet's if there is one.
pub(super) fn read(pages: &Pages) -> Result<(Descriptor, Option<Descriptor>)> {
    let (mut primary, mut joliet) = (None, None);
    for number in FIRST..FIRST.saturating_add(MOST) {
        let at = number.saturating_mul(SECTOR);
        let bytes = pages.bytes(at, 2048)?;
        if !is_at(&bytes, 1, b"CD001") {
            return Err(corrupt("a volume descriptor has no identifier").offset(at));
        }
        match u8_at(&bytes, 0) {
            1 if primary.is_none() => primary = Some(parse(&bytes, at, false)?),
            2 if joliet.is_none() && is_joliet(&bytes) => joliet = Some(parse(&bytes, at, true)?),
            255 => break,
            _ => {}
        }
    }
    let primary = primary.ok_or_else(|| corrupt("there is no primary volume descriptor"))?;
    Ok((primary, joliet))
}

/// Whether the escape sequences are those of UCS-2 at level 1, 2 or 3.
fn is_joliet(bytes: &[u8]) -> bool {
    [b"%/@", b"%/C", b"%/E"].iter().any(|escape| is_at(bytes, 88, *escape))
}

fn parse(bytes: &[u8], at: u64, joliet: bool) -> Result<Descriptor> {
    let block = u64::from(le16(bytes, 128));
    if !(block.is_power_of_two() && (512..=SECTOR).contains(&block)) {
        return Err(geometry("logical blocks have an impossible size").offset(at.saturating_add(128)).found(block));
    }
    let label: [u8; 32] = array(bytes, 40);
    let label = if joliet {
        let units: Vec<u16> = label.chunks_exact(2).map(|pair| u16::from_be_bytes(array(pair, 0))).collect();
        String::from_utf8_lossy(&utf16::to_bytes(&units)).into_owned()
    } else {
        String::from_utf8_lossy(&label).into_owned()
    };
    let label = label.trim_end_matches(['\0', ' ']).to_owned();
    Ok(Descriptor {
        block,
        size: u64::from(le32(bytes, 80)).saturating_mul(block),
        root: at.saturating_add(ROOT_RECORD),
        label: (!label.is_empty()).then_some(label),
        uuid: [830, 813].into_iter().find_map(|at| written_date(array(bytes, at))),
    })
}

/// A date of sixteen digits as `blkid` writes it; `None` when there is none.
fn written_date(date: [u8; 17]) -> Option<String> {
    let digits = std::str::from_utf8(date.get(..16)?).ok()?;
    let fits = digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.bytes().any(|byte| byte != b'0');
    let parts = [0..4, 4..6, 6..8, 8..10, 10..12, 12..14, 14..16];
    fits.then(|| parts.into_iter().filter_map(|part| digits.get(part)).collect::<Vec<_>>().join("-"))
}

/// A date of seven bytes (ECMA-119, 9.1.5): years from 1900, and quarters of an hour from universal time.
pub(super) fn short_date(date: [u8; 7]) -> Timestamp {
    let [year, month, day, hour, minute, second, zone] = date;
    if date == [0; 7] {
        return Timestamp::default();
    }
    moment(i64::from(year).saturating_add(1900), [month, day, hour, minute, second], zone, 0)
}

/// A date of sixteen digits and a zone (ECMA-119, 8.4.26.1).
pub(super) fn long_date(date: [u8; 17]) -> Timestamp {
    let number = |at: usize, len: usize| {
        let digits = date.get(at..at.saturating_add(len)).unwrap_or_default();
        digits
            .iter()
            .fold(0_u16, |sum, byte| sum.saturating_mul(10).saturating_add(u16::from(byte.saturating_sub(b'0').min(9))))
    };
    if number(0, 4) == 0 {
        return Timestamp::default();
    }
    let small = |at: usize| u8::try_from(number(at, 2)).unwrap_or(0);
    let fields = [4, 6, 8, 10, 12].map(small);
    moment(i64::from(number(0, 4)), fields, u8_at(&date, 16), small(14))
}

fn moment(year: i64, fields: [u8; 5], zone: u8, hundredths: u8) -> Timestamp {
    let [month, day, hour, minute, second] = fields.map(i64::from);
    let moment = Moment { year, month: month.clamp(1, 12), day: day.max(1), hour, minute, second };
    let east = i64::from(i8::from_le_bytes([zone])).clamp(-52, 52).saturating_mul(900);
    Timestamp {
        seconds: moment.seconds().saturating_sub(east),
        nanoseconds: u32::from(hundredths.min(99)).saturating_mul(10_000_000),
    }
}

/// The same number in both byte orders, of which discs have been seen with only one.
pub(super) fn both32(bytes: &[u8], at: usize) -> u32 {
    match le32(bytes, at) {
        0 => be32(bytes, at.saturating_add(4)),
        value => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_universal() {
        assert_eq!(short_date([70, 1, 1, 1, 0, 0, 4]).seconds, 0);
        assert_eq!(short_date([126, 11, 21, 10, 30, 5, 0]).seconds, 1_795_257_005);
        assert_eq!(long_date(*b"2026112110300550\0").seconds, 1_795_257_005);
        assert_eq!(long_date(*b"2026112110300550\0").nanoseconds, 500_000_000);
        assert_eq!(long_date(*b"0000000000000000\0"), Timestamp::default());
        assert_eq!(written_date(*b"2026112110300550\0").as_deref(), Some("2026-11-21-10-30-05-50"));
        assert_eq!(written_date(*b"0000000000000000\0"), None);
    }
}
