//! What of an ext file system is in use and read by nobody, as e2fsprogs tell it.

use std::ops::Range;
use std::path::Path;

use super::tools;

/// Blocks of inodes that never were, and the log of the journal, which must be empty: byte ranges of the image, ascending, of the
/// file system that lies at `offset` in it.
pub(crate) fn idle(image: &Path, offset: u64) -> Vec<Range<u64>> {
    let place = format!("{}?offset={offset}", image.display());
    let text = tools::ok("dumpe2fs", [&place]);
    let field = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        value.and_then(|value| value.parse::<u64>().ok())
    };
    let (block, inode) = (field("Block size:").expect("blocks"), field("Inode size:").expect("inodes"));
    let in_group = field("Inodes per group:").expect("inodes in a group");
    let (mut blocks, mut table) = (Vec::new(), 0..0);
    for line in text.lines().map(str::trim_start) {
        if let Some(range) = line.strip_prefix("Inode table at ") {
            table = numbers(range.split(' ').next().expect("a range"));
        }
        let unused = line.strip_suffix(" unused inodes").and_then(|line| line.rsplit(' ').next());
        if let Some(unused) = unused.map(|unused| unused.parse::<u64>().expect("a number")) {
            blocks.push(table.start + ((in_group - unused) * inode).div_ceil(block)..table.end);
        }
    }
    if field("Journal inode:").is_some() {
        assert_eq!(field("Journal start:"), Some(0), "the journal is not empty");
        blocks.extend(log(&place));
    }
    let mut ranges: Vec<Range<u64>> = Vec::new();
    blocks.retain(|range| !range.is_empty());
    blocks.sort_by_key(|range| range.start);
    for range in blocks {
        let range = offset + range.start * block..offset + range.end * block;
        match ranges.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => ranges.push(range),
        }
    }
    ranges
}

/// The blocks of the journal's file, but for the first, which is its superblock.
fn log(place: &str) -> Vec<Range<u64>> {
    let text = tools::ok("debugfs", ["-R", "stat <8>", place]);
    let list = text.split_once("EXTENTS:").or_else(|| text.split_once("BLOCKS:")).expect("a map").1;
    // `(0-11):514-525, (IND):526`, for blocks of the file and where they are; names are those of the map's own blocks.
    let pieces = list.lines().flat_map(|line| line.split(", ")).filter_map(|piece| piece.split_once("):"));
    let content = pieces.filter(|(logical, _)| logical.starts_with('(') && !logical.contains(char::is_alphabetic));
    content
        .map(|(logical, physical)| {
            let (logical, physical) = (numbers(&logical[1..]), numbers(physical));
            physical.start + u64::from(logical.start == 0)..physical.end
        })
        .collect()
}

/// `3` or `3-7`.
fn numbers(text: &str) -> Range<u64> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| text.trim_end_matches(',').parse::<u64>().expect("a number");
    number(first)..number(last) + 1
}
