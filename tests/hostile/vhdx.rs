//! VHDX: offsets are those of [MS-VHDX].

use super::image::Image;
use super::{Hostile, found_late, harmless, refused};

const HEADERS: [usize; 2] = [64 << 10, 128 << 10];
const REGIONS: [usize; 2] = [192 << 10, 256 << 10];
const METADATA_REGION: [u8; 16] =
    [0x06, 0xa2, 0x7c, 0x8b, 0x90, 0x47, 0x9a, 0x4b, 0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e];
const BAT_REGION: [u8; 16] =
    [0x66, 0x77, 0xc2, 0x2d, 0x23, 0xf6, 0x00, 0x42, 0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a, 0x08];
const FILE_PARAMETERS: [u8; 16] =
    [0x37, 0x67, 0xa1, 0xca, 0x36, 0xfa, 0x43, 0x4d, 0xb3, 0xb6, 0x33, 0xf0, 0xaa, 0x44, 0xe7, 0x6b];
const VIRTUAL_DISK_SIZE: [u8; 16] =
    [0x24, 0x42, 0xa5, 0x2f, 0x1b, 0xcd, 0x76, 0x48, 0xb2, 0x11, 0x5d, 0xbe, 0xd8, 0x3b, 0xf4, 0xb8];
const LOGICAL_SECTOR_SIZE: [u8; 16] =
    [0x1d, 0xbf, 0x41, 0x81, 0x6f, 0xa9, 0x09, 0x47, 0xba, 0x47, 0xf2, 0x33, 0xa8, 0xfa, 0xab, 0x5f];

fn sound() -> Image {
    Image::made("vhdx", "subformat=dynamic")
}

/// With the checksums of what the headers and region tables say now.
fn summed(image: Image) -> Image {
    let image = HEADERS.into_iter().fold(image, |image, at| sum(image, at, 4 << 10));
    REGIONS.into_iter().fold(image, |image, at| sum(image, at, 64 << 10))
}

fn sum(image: Image, at: usize, len: usize) -> Image {
    let image = image.le32(at + 4, 0);
    let crc = crc32c::crc32c(&image.bytes()[at..at + len]);
    image.le32(at + 4, crc)
}

/// Changes both headers.
fn headers(change: fn(Image, usize) -> Image) -> Image {
    summed(HEADERS.into_iter().fold(sound(), change))
}

/// Changes a region's entry in both tables: the offset that is given is that of the entry.
fn region(guid: &[u8], change: fn(Image, usize) -> Image) -> Image {
    let image = sound();
    let at = REGIONS.map(|table| find(&image, table, guid));
    summed(at.into_iter().fold(image, change))
}

/// Where an entry with this GUID lies in the table at `table`.
fn find(image: &Image, table: usize, guid: &[u8]) -> usize {
    let bytes = &image.bytes()[table..table + (64 << 10)];
    table + bytes.windows(16).position(|window| window == guid).expect("an entry")
}

fn region_start(image: &Image, guid: &[u8]) -> usize {
    usize::try_from(image.get_le64(find(image, REGIONS[0], guid) + 16)).expect("an offset")
}

/// Overwrites a metadata item's value.
fn metadata(item: &[u8], value: &[u8]) -> Image {
    let image = sound();
    let region = region_start(&image, &METADATA_REGION);
    let entry = find(&image, region, item);
    let offset = usize::try_from(image.get_le32(entry + 16)).expect("an offset");
    image.put(region + offset, value)
}

fn first_entry(entry: u64) -> Image {
    let image = sound();
    let bat = region_start(&image, &BAT_REGION);
    image.le64(bat, entry)
}

pub(super) const ALL: &[Hostile] = &[
    refused("no-valid-header", || sound().le32(HEADERS[0] + 4, 1).le32(HEADERS[1] + 4, 1)),
    refused("header-version-9", || headers(|image, at| image.put(at + 66, &[9, 0]))),
    refused("conflicting-headers", || {
        let image = headers(|image, at| image.le64(at + 8, 7));
        summed(image.put(HEADERS[1] + 48, &[1; 16]))
    }),
    refused("log-beyond-eof", || headers(|image, at| image.put(at + 48, &[1; 16]).le64(at + 72, 1 << 50))),
    refused("log-length-max", || headers(|image, at| image.put(at + 48, &[1; 16]).le32(at + 68, u32::MAX))),
    harmless("log-without-entries", || headers(|image, at| image.put(at + 48, &[1; 16]))),
    refused("no-valid-region-table", || sound().le32(REGIONS[0] + 4, 1).le32(REGIONS[1] + 4, 1)),
    refused("regions-ffffffff", || summed(sound().le32(REGIONS[0] + 8, u32::MAX).le32(REGIONS[1] + 8, u32::MAX))),
    refused("unknown-required-region", || region(&METADATA_REGION, |image, at| image.put(at, &[7; 16]))),
    refused("region-overlap", || region(&BAT_REGION, |image, at| image.le64(at + 16, 0))),
    refused("region-beyond-eof", || region(&BAT_REGION, |image, at| image.le64(at + 16, 1 << 50))),
    refused("region-unaligned", || region(&BAT_REGION, |image, at| image.le64(at + 16, (2 << 20) + 512))),
    refused("bat-region-too-small", || region(&BAT_REGION, |image, at| image.le32(at + 24, 0))),
    refused("block-size-0", || metadata(&FILE_PARAMETERS, &[0, 0, 0, 0])),
    refused("block-size-3", || metadata(&FILE_PARAMETERS, &[3, 0, 0, 0])),
    refused("block-size-max", || metadata(&FILE_PARAMETERS, &[0, 0, 0, 0x80])),
    refused("disk-size-max", || metadata(&VIRTUAL_DISK_SIZE, &[255; 8])),
    refused("disk-size-0", || metadata(&VIRTUAL_DISK_SIZE, &[0; 8])),
    refused("sector-size-513", || metadata(&LOGICAL_SECTOR_SIZE, &[1, 2, 0, 0])),
    found_late("bat-beyond-eof", || first_entry((1 << 40) << 20 | 6)),
    found_late("bat-state-4", || first_entry(4)),
    found_late("bat-in-the-headers", || first_entry(6)),
];
