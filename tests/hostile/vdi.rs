//! VDI: offsets are those of VirtualBox's header, version 1.1.

use super::image::Image;
use super::{Hostile, found_late, refused};

const VERSION: usize = 0x44;
const TYPE: usize = 0x4c;
const MAP_OFFSET: usize = 0x154;
const DATA_OFFSET: usize = 0x158;
const SECTOR_SIZE: usize = 0x168;
const DISK_SIZE: usize = 0x170;
const BLOCK_SIZE: usize = 0x178;
const BLOCK_EXTRA: usize = 0x17c;
const BLOCKS: usize = 0x180;

fn sound() -> Image {
    Image::made("vdi", "")
}

/// Changes the first entry of the map.
fn first_entry(entry: u32) -> Image {
    let image = sound();
    let map = usize::try_from(image.get_le32(MAP_OFFSET)).expect("an offset");
    image.le32(map, entry)
}

pub(super) const ALL: &[Hostile] = &[
    refused("bad-version", || sound().le32(VERSION, 0x0002_0000)),
    refused("version-max", || sound().le32(VERSION, u32::MAX)),
    refused("unknown-type", || sound().le32(TYPE, 77)),
    refused("unaligned-map", || sound().le32(MAP_OFFSET, u32::MAX)),
    refused("map-beyond-eof", || sound().le32(MAP_OFFSET, 0x7000_0000)),
    refused("data-beyond-eof", || sound().le32(DATA_OFFSET, 0xffff_fe00)),
    refused("sector-size-0", || sound().le32(SECTOR_SIZE, 0)),
    refused("disk-size-max", || sound().le64(DISK_SIZE, u64::MAX)),
    refused("disk-size-petabyte", || sound().le64(DISK_SIZE, 1 << 50)),
    refused("block-size-0", || sound().le32(BLOCK_SIZE, 0)),
    refused("block-size-3", || sound().le32(BLOCK_SIZE, 3)),
    refused("block-extra-max", || sound().le32(BLOCK_EXTRA, u32::MAX)),
    refused("block-count", || sound().le32(BLOCKS, u32::MAX)),
    refused("block-count-0", || sound().le32(BLOCKS, 0)),
    refused("cut-in-header", || sound().cut(0x100)),
    found_late("block-beyond-eof", || first_entry(0x00ff_ffff)),
    found_late("block-fffffffd", || first_entry(0xffff_fffd)),
];
