//! The sector bitmap of a differencing disk's block: a bit a sector, the most significant first; 1 means that it is here.

use super::truncated;
use crate::error::Result;
use crate::format::pages::Pages;

const SECTOR: u64 = 512;

/// Whether the sector at `within` of the block at `at` is here, and for how many bytes that stays so: at most `max`, at least to
/// the end of the sector or of `max`.
pub(super) fn run(pages: &Pages, at: u64, within: u64, max: u64) -> Result<(bool, u64)> {
    let first = within / SECTOR;
    let here = bit(pages, at, first)?;
    let wanted = within.saturating_add(max).div_ceil(SECTOR);
    let mut sector = first.saturating_add(1);
    let same = if here { u8::MAX } else { 0 };
    while sector < wanted {
        if sector.is_multiple_of(8) {
            let whole = whole_bytes(pages, at, sector, wanted, same)?;
            sector = sector.saturating_add(whole);
            if sector >= wanted {
                break;
            }
        }
        if bit(pages, at, sector)? != here {
            break;
        }
        sector = sector.saturating_add(1);
    }
    Ok((here, sector.saturating_mul(SECTOR).saturating_sub(within).min(max)))
}

/// Sectors from `sector` on, a multiple of 8, whose bytes are all `same`.
fn whole_bytes(pages: &Pages, at: u64, sector: u64, wanted: u64, same: u8) -> Result<u64> {
    let entries = pages.entries(at.saturating_add(sector / 8))?;
    let most = usize::try_from(wanted.saturating_sub(sector) / 8).unwrap_or(usize::MAX);
    let count = entries.bytes().iter().take(most).take_while(|byte| **byte == same).count();
    Ok(u64::try_from(count).unwrap_or(0).saturating_mul(8))
}

fn bit(pages: &Pages, at: u64, sector: u64) -> Result<bool> {
    let [byte] = pages.entry(at.saturating_add(sector / 8)).map_err(|_| truncated(at))?;
    Ok(byte & (0x80 >> (sector % 8)) != 0)
}
