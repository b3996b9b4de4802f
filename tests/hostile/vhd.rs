//! VHD: offsets are those of the footer and the dynamic disk header in Microsoft's specification 1.0.

use super::image::Image;
use super::{Hostile, found_late, refused};

const DATA_OFFSET: usize = 16;
const CURRENT_SIZE: usize = 48;
const DISK_TYPE: usize = 60;
const CHECKSUM: usize = 64;
/// Of the dynamic disk header, and within it.
const DYNAMIC: usize = 512;
const TABLE_OFFSET: usize = DYNAMIC + 16;
const HEADER_VERSION: usize = DYNAMIC + 24;
const MAX_TABLE_ENTRIES: usize = DYNAMIC + 28;
const BLOCK_SIZE: usize = DYNAMIC + 32;
const DYNAMIC_CHECKSUM: usize = DYNAMIC + 36;

fn sound() -> Image {
    Image::made("vpc", "subformat=dynamic,force_size=on")
}

fn fixed() -> Image {
    Image::made("vpc", "subformat=fixed,force_size=on")
}

/// With the checksums of what the header and both footers say now.
fn summed(image: Image) -> Image {
    let image = sum(sum(image, 0..512, CHECKSUM), DYNAMIC..DYNAMIC + 1024, DYNAMIC_CHECKSUM);
    let footer = image.bytes()[..512].to_vec();
    let end = image.len() - 512;
    image.put(end, &footer)
}

fn sum(image: Image, range: std::ops::Range<usize>, at: usize) -> Image {
    let image = image.be32(at, 0);
    let sum = image.bytes()[range].iter().fold(0_u32, |sum, byte| sum + u32::from(*byte));
    image.be32(at, !sum)
}

/// Changes the footer of a fixed disk.
fn fixed_with(change: fn(Image, usize) -> Image) -> Image {
    let image = fixed();
    let end = image.len() - 512;
    let image = change(image, end);
    sum(image, end..end + 512, end + CHECKSUM)
}

fn first_entry(entry: u32) -> Image {
    let image = sound();
    let table = usize::try_from(image.get_be64(TABLE_OFFSET)).expect("an offset");
    image.be32(table, entry)
}

pub(super) const ALL: &[Hostile] = &[
    refused("both-footers-damaged", || {
        let image = sound().be32(CHECKSUM, 1);
        let end = image.len() - 512;
        image.be32(end + CHECKSUM, 1)
    }),
    refused("header-checksum", || sound().be32(DYNAMIC_CHECKSUM, 1)),
    refused("table-beyond-eof", || summed(sound().be64(TABLE_OFFSET, 1 << 40))),
    refused("table-at-the-end-of-numbers", || summed(sound().be64(TABLE_OFFSET, u64::MAX - 3))),
    refused("max-table-entries", || summed(sound().be32(MAX_TABLE_ENTRIES, u32::MAX))),
    refused("too-few-table-entries", || summed(sound().be32(MAX_TABLE_ENTRIES, 1))),
    refused("block-size-0", || summed(sound().be32(BLOCK_SIZE, 0))),
    refused("block-size-3", || summed(sound().be32(BLOCK_SIZE, 3))),
    refused("block-size-max", || summed(sound().be32(BLOCK_SIZE, 1 << 31))),
    refused("header-version", || summed(sound().be32(HEADER_VERSION, 0x0009_0000))),
    refused("type-77", || summed(sound().be32(DISK_TYPE, 77))),
    refused("size-max", || summed(sound().be64(CURRENT_SIZE, u64::MAX - 511))),
    refused("header-beyond-eof", || summed(sound().be64(DATA_OFFSET, 1 << 40))),
    refused("fixed-larger-than-the-file", || fixed_with(|image, at| image.be64(at + CURRENT_SIZE, 1 << 40))),
    refused("fixed-footer-truncated", || {
        let image = fixed();
        let len = image.len();
        image.cut(len - 100)
    }),
    found_late("bat-beyond-eof", || first_entry(0x7fff_ffff)),
    found_late("bat-in-the-header", || first_entry(0)),
    found_late("truncated-in-data", || sound().cut(64 << 10)),
];
