//! Checks a VMDK's tables: that every entry leads into the file, no two to the same bytes, and the redundant copies say the same.

use std::ops::{ControlFlow, Range};

use super::grain;
use super::header::SECTOR;
use super::layer::{Kind, Vmdk};
use super::layout::{Grain, Stored, Table};
use super::tables::Grains;
use crate::error::Result;
use crate::format::{Finding, Report, Severity};
use crate::limits::MAX_VMDK_CHECK_PASSES;

/// Words of the map of a file's sectors: 16 MiB, for 64 GiB of file in one pass over the tables.
const WORDS: u64 = 2 << 20;

/// Checks every extent of grains.
pub(super) fn run(vmdk: &Vmdk, found: &mut Report<'_>) -> Result<()> {
    let mut teller = Teller { found, stopped: false };
    for note in vmdk.notes() {
        teller.say(Finding::new(Severity::Note, note));
    }
    for (kind, grains) in vmdk.sparse() {
        tables(grains, &mut teller)?;
        let leaks = matches!(kind, Kind::Hosted { .. }) && grains.layout().stored() == Stored::Plain;
        places(grains, leaks, WORDS, &mut teller)?;
    }
    Ok(())
}

/// Reports, until it is told to stop.
struct Teller<'a, 'b> {
    found: &'a mut Report<'b>,
    stopped: bool,
}

impl Teller<'_, '_> {
    fn say(&mut self, finding: Finding) {
        if !self.stopped {
            self.stopped = (self.found)(finding) == ControlFlow::Break(());
        }
    }

    fn corrupt(&mut self, what: &str, offset: u64) {
        self.say(Finding::new(Severity::Corruption, what).offset(offset));
    }
}

/// Compares the directory and its tables with the redundant copies.
fn tables(grains: &Grains, teller: &mut Teller<'_, '_>) -> Result<()> {
    let layout = grains.layout();
    let (mut own_walk, mut copy_walk) = (grains.walk(), grains.walk());
    for number in 0..layout.tables() {
        if teller.stopped {
            return Ok(());
        }
        let entry = layout.directory.saturating_add(number.saturating_mul(layout.width()));
        let own = own_walk.own_table(number)?;
        if own.is_none() {
            teller.corrupt("an entry of the grain directory leads out of the file", entry);
        }
        if layout.redundant.is_none() {
            continue;
        }
        match (own, copy_walk.copied_table(number)?) {
            (_, None) => teller.corrupt("an entry of the redundant grain directory leads out of the file", entry),
            (Some(Table::At(own)), Some(Table::At(copy))) if own == copy => {
                teller.say(Finding::new(Severity::Note, "a grain table is its own redundant copy").offset(own));
            }
            (Some(Table::At(own)), Some(Table::At(copy))) => {
                let first = number.saturating_mul(layout.per_table);
                for within in 0..layout.used_entries(number) {
                    let index = first.saturating_add(within);
                    let (one, _) = own_walk.grain_in(own, index, within)?;
                    let (other, _) = copy_walk.grain_in(copy, index, within)?;
                    if one != other {
                        let what = format!("a grain table differs from its redundant copy from grain {index} on");
                        teller.say(Finding::new(Severity::Corruption, what).offset(own));
                        break;
                    }
                }
            }
            (own, copy) if own == copy => {}
            (None, _) => {}
            _ => teller.corrupt("the grain directory and the redundant one disagree about a table", entry),
        }
    }
    Ok(())
}

/// Marks the sectors of every table and grain, a part of the file at a time, and reports what is used twice and, with `leaks`, what
/// is not used at all.
fn places(grains: &Grains, leaks: bool, words: u64, teller: &mut Teller<'_, '_>) -> Result<()> {
    let sectors = grains.file().len().div_ceil(SECTOR);
    let (parts, all) = parts(sectors, words.saturating_mul(64));
    for part in parts {
        if teller.stopped {
            return Ok(());
        }
        let mut map = Map::new(part.start, part.end.saturating_sub(part.start));
        mark(grains, &mut map, part.start == 0, teller)?;
        if leaks && !teller.stopped {
            map.leaks(grains.layout().grain, teller);
        }
    }
    if !all {
        teller.say(Finding::new(Severity::Note, "the file is too large to look for overlaps in all of it"));
    }
    Ok(())
}

/// The parts of a file of so many `sectors`, of `each` sectors, and whether they are all of it.
fn parts(sectors: u64, each: u64) -> (impl Iterator<Item = Range<u64>>, bool) {
    let count = sectors.div_ceil(each.max(1)).min(MAX_VMDK_CHECK_PASSES);
    let end = move |number: u64| number.saturating_mul(each).min(sectors);
    ((0..count).map(move |number| end(number)..end(number.saturating_add(1))), end(count) == sectors)
}

/// Marks what lies in the map's part of the file. What is wrong with an entry itself is told in the `first` pass only.
fn mark(grains: &Grains, map: &mut Map, first: bool, teller: &mut Teller<'_, '_>) -> Result<()> {
    let layout = grains.layout();
    let directory_len = layout.tables().saturating_mul(layout.width());
    for (at, len) in grains.fixed() {
        map.mark(at, len);
    }
    for directory in [Some(layout.directory), layout.redundant].into_iter().flatten() {
        if map.mark(directory, directory_len) {
            teller.corrupt("the grain directory overlaps something else", directory);
        }
    }
    let table_len = layout.per_table.saturating_mul(layout.width());
    let mut walk = grains.walk();
    // Tables first: a grain that overlaps one is what is wrong then.
    for number in 0..layout.tables() {
        let own = walk.own_table(number)?;
        let copy = walk.copied_table(number)?.filter(|copy| Some(*copy) != own);
        for table in [own, copy] {
            if let Some(Table::At(at)) = table
                && map.mark(at, table_len)
            {
                teller.corrupt("a grain table overlaps another one, or a directory", at);
            }
        }
    }
    for number in 0..layout.tables() {
        if teller.stopped {
            return Ok(());
        }
        let Ok(Table::At(table)) = walk.table(number) else { continue };
        for within in 0..layout.used_entries(number) {
            let index = number.saturating_mul(layout.per_table).saturating_add(within);
            let entry = table.saturating_add(within.saturating_mul(layout.width()));
            match walk.grain_in(table, index, within)?.1 {
                Some(Grain::At(at)) => grain_at(grains, (index, at), map, first, teller)?,
                None if first => teller.corrupt("an entry of a grain table leads out of the file", entry),
                _ => {}
            }
        }
    }
    Ok(())
}

/// Marks the grain `index`, which is at `at`.
fn grain_at(
    grains: &Grains,
    (index, at): (u64, u64),
    map: &mut Map,
    first: bool,
    teller: &mut Teller<'_, '_>,
) -> Result<()> {
    let layout = grains.layout();
    let len = match layout.stored() {
        Stored::Plain => layout.used_bytes(index),
        Stored::Bare => SECTOR,
        Stored::Marked if !map.holds(at) && !first => return Ok(()),
        Stored::Marked => {
            let lba = index.saturating_mul(layout.grain).checked_div(SECTOR).unwrap_or(0);
            match grain::stored_len(grains.file(), at, lba, layout.grain) {
                Ok(len) => len,
                Err(error) if error.code() == "vmdk.grain" => {
                    if first {
                        teller.corrupt(&format!("the marker of grain {index} is not its own, or is damaged"), at);
                    }
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
    };
    if map.mark(at, len) {
        teller.corrupt(&format!("grain {index} overlaps another grain or a table"), at);
    }
    Ok(())
}

/// Which sectors of a part of a file are in use.
struct Map {
    /// The first sector.
    start: u64,
    sectors: u64,
    words: Vec<u64>,
}

impl Map {
    fn new(start: u64, sectors: u64) -> Self {
        let words = usize::try_from(sectors.div_ceil(64)).unwrap_or(0);
        Self { start, sectors, words: vec![0; words] }
    }

    /// Whether the byte at `at` of the file is in this part.
    fn holds(&self, at: u64) -> bool {
        let sector = at.checked_div(SECTOR).unwrap_or(0);
        (self.start..self.start.saturating_add(self.sectors)).contains(&sector)
    }

    /// Marks what of `len` bytes at `at` lies in this part; whether any of it was marked before.
    fn mark(&mut self, at: u64, len: u64) -> bool {
        let first = at.checked_div(SECTOR).unwrap_or(0).max(self.start).saturating_sub(self.start);
        let end = at.saturating_add(len).div_ceil(SECTOR).saturating_sub(self.start).min(self.sectors);
        let (mut bit, mut before) = (first, false);
        while bit < end {
            let (within, stop) = (bit & 63, end.min((bit | 63).saturating_add(1)));
            let count = stop.saturating_sub(bit);
            let ones = u64::MAX.checked_shr(u32::try_from(64_u64.saturating_sub(count)).unwrap_or(0)).unwrap_or(0);
            let mask = ones.checked_shl(u32::try_from(within).unwrap_or(0)).unwrap_or(0);
            if let Some(word) = usize::try_from(bit >> 6).ok().and_then(|word| self.words.get_mut(word)) {
                before |= *word & mask != 0;
                *word |= mask;
            }
            bit = stop;
        }
        before
    }

    /// Reports runs of unused sectors that could hold a `grain`.
    fn leaks(&self, grain: u64, teller: &mut Teller<'_, '_>) {
        let mut free = 0_u64;
        for sector in 0..=self.sectors {
            let word = usize::try_from(sector >> 6).ok().and_then(|word| self.words.get(word)).copied();
            let used = sector == self.sectors || word.is_none_or(|word| word >> (sector & 63) & 1 == 1);
            if !used {
                free = free.saturating_add(1);
                continue;
            }
            let len = free.saturating_mul(SECTOR);
            if len >= grain {
                let at = self.start.saturating_add(sector.saturating_sub(free)).saturating_mul(SECTOR);
                let what = format!("{len:#x} bytes that no grain table leads to");
                teller.say(Finding::new(Severity::Leak, what).offset(at));
            }
            free = 0;
        }
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "tests build their input")]
mod tests {
    use super::*;

    #[test]
    fn sectors_are_marked_once() {
        let mut map = Map::new(100, 300);
        assert!(!map.mark(0, 100 * 512), "before the part");
        assert!(!map.mark(99 * 512, 2 * 512) && map.mark(100 * 512, 1));
        assert!(!map.mark(101 * 512, 128 * 512) && map.mark(228 * 512, 512) && !map.mark(229 * 512, 512));
        assert!(!map.mark(399 * 512, 1 << 40) && map.mark(399 * 512 + 511, 1));
        assert!(!map.mark(u64::MAX - 5, 5));
        assert!(map.holds(100 * 512) && !map.holds(400 * 512) && !map.holds(99 * 512));
    }

    #[test]
    fn passes_are_bounded() {
        for (sectors, count, all) in
            [(31 * 64 + 1, 32, true), (32 * 64, 32, true), (32 * 64 + 1, 32, false), (1, 1, true)]
        {
            let (parts, complete) = parts(sectors, 64);
            let parts: Vec<_> = parts.collect();
            assert_eq!((parts.len(), complete), (count, all), "{sectors}");
            assert!(parts.windows(2).all(|pair| pair[0].end == pair[1].start));
            assert_eq!(parts[0].start, 0);
        }
        assert_eq!(MAX_VMDK_CHECK_PASSES, 32);
    }

    #[test]
    fn long_free_runs_are_leaks() {
        let mut map = Map::new(0, 400);
        map.mark(0, 10 * 512);
        map.mark(138 * 512, 134 * 512);
        let mut found = Vec::new();
        let report: &mut Report<'_> = &mut |finding: Finding| {
            found.push((finding.severity, finding.offset));
            ControlFlow::Continue(())
        };
        map.leaks(65_536, &mut Teller { found: report, stopped: false });
        assert_eq!(found, [(Severity::Leak, Some(10 * 512)), (Severity::Leak, Some(272 * 512))]);
    }
}
