//! VMDK: offsets are those of SparseExtentHeader in VMware's "Virtual Disk Format 5.0".

use super::image::Image;
use super::{Hostile, found_late, harmless, refused};

const CAPACITY: usize = 12;
const GRAIN_SIZE: usize = 20;
const DESCRIPTOR_OFFSET: usize = 28;
const DESCRIPTOR_SIZE: usize = 36;
const GTES_PER_GT: usize = 44;
const RGD: usize = 48;
const GD: usize = 56;
const NEWLINES: usize = 73;
const COMPRESSION: usize = 77;

fn sound() -> Image {
    Image::made("vmdk", "subformat=monolithicSparse")
}

fn stream() -> Image {
    Image::made("vmdk", "subformat=streamOptimized")
}

/// A descriptor alone, with these extent lines.
fn descriptor(extents: &str) -> Image {
    Image::of(format!(
        "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n{extents}\n"
    ))
}

/// The first grain table of a directory.
fn first_table(image: &Image, field: usize) -> usize {
    let directory = usize::try_from(image.get_le64(field)).expect("a sector") * 512;
    usize::try_from(image.get_le32(directory)).expect("a sector") * 512
}

pub(super) const ALL: &[Hostile] = &[
    refused("capacity-max", || sound().le64(CAPACITY, u64::MAX)),
    refused("capacity-2-to-61", || sound().le64(CAPACITY, 1 << 52)),
    refused("grain-0", || sound().le64(GRAIN_SIZE, 0)),
    refused("grain-3", || sound().le64(GRAIN_SIZE, 3)),
    refused("grain-huge", || sound().le64(GRAIN_SIZE, 1 << 63)),
    refused("gtes-0", || sound().le32(GTES_PER_GT, 0)),
    refused("gtes-ffffffff", || sound().le32(GTES_PER_GT, u32::MAX)),
    refused("both-directories-beyond-eof", || sound().le64(GD, 1 << 40).le64(RGD, 1 << 40)),
    refused("descriptor-beyond-eof", || sound().le64(DESCRIPTOR_OFFSET, 1 << 40)),
    refused("descriptor-huge", || sound().le64(DESCRIPTOR_SIZE, 1 << 50)),
    refused("damaged-by-text-transfer", || sound().put(NEWLINES, b"\n \n\n")),
    refused("compression-9", || stream().put(COMPRESSION, &[9, 0])),
    harmless("compression-9-unused", || sound().put(COMPRESSION, &[9, 0])),
    refused("cut-in-header", || sound().cut(300)),
    refused("stream-without-footer", || stream().le64(GD, u64::MAX)),
    refused("no-extent", || descriptor("")),
    refused("extent-sum-overflows", || descriptor(&format!("RW {} ZERO\nRW {} ZERO", u64::MAX / 512, u64::MAX / 512))),
    refused("extent-count", || descriptor(&"RW 1 ZERO\n".repeat(100_000))),
    refused("extent-type-unknown", || descriptor("RW 8 MAGIC \"a\" 0")),
    refused("raw-device", || descriptor("RW 2048 VMFSRDM \"lun-rdm.vmdk\"")),
    refused("extent-is-itself", || descriptor("RW 2048 SPARSE \"vmdk-extent-is-itself\"")),
    // The redundant copy of the table stands in for it.
    harmless("gte-ffffffff", || {
        let image = sound();
        let table = first_table(&image, GD);
        image.le32(table, u32::MAX)
    }),
    found_late("gte-ffffffff-in-both-tables", || {
        let image = sound();
        let tables = [GD, RGD].map(|field| first_table(&image, field));
        tables.into_iter().fold(image, |image, table| image.le32(table, u32::MAX))
    }),
];
