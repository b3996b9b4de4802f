//! qcow2: offsets are those of the header in qemu's `docs/interop/qcow2.txt`.

use super::image::Image;
use super::{Hostile, found_late, harmless, refused};

const CLUSTER_BITS: usize = 20;
const SIZE: usize = 24;
const CRYPT: usize = 32;
const L1_SIZE: usize = 36;
const L1_OFFSET: usize = 40;
const REFCOUNT_OFFSET: usize = 48;
const SNAPSHOTS: usize = 60;
const SNAPSHOTS_OFFSET: usize = 64;
const INCOMPATIBLE: usize = 72;
const REFCOUNT_ORDER: usize = 96;
const HEADER_LENGTH: usize = 100;
const COMPRESSION: usize = 104;
const EXTENSIONS: usize = 112;

fn sound() -> Image {
    Image::made("qcow2", "")
}

fn compressed() -> Image {
    Image::made("qcow2", "-c")
}

/// Where the first L2 table lies.
fn l2(image: &Image) -> usize {
    let l1 = usize::try_from(image.get_be64(L1_OFFSET)).expect("an offset");
    usize::try_from(image.get_be64(l1) & 0x00ff_ffff_ffff_fe00).expect("an offset")
}

/// Changes the first L2 entry.
fn first_entry(image: Image, entry: u64) -> Image {
    let at = l2(&image);
    image.be64(at, entry)
}

pub(super) const ALL: &[Hostile] = &[
    refused("l1-overflow", || sound().be32(L1_SIZE, u32::MAX)),
    refused("l1-zero", || sound().be32(L1_SIZE, 0)),
    refused("l1-beyond-eof", || sound().be64(L1_OFFSET, 1 << 40)),
    refused("l1-unaligned", || sound().be64(L1_OFFSET, 0x30001)),
    refused("cluster-bits-0", || sound().be32(CLUSTER_BITS, 0)),
    refused("cluster-bits-8", || sound().be32(CLUSTER_BITS, 8)),
    refused("cluster-bits-22", || sound().be32(CLUSTER_BITS, 22)),
    refused("cluster-bits-63", || sound().be32(CLUSTER_BITS, 63)),
    refused("refcount-order-7", || sound().be32(REFCOUNT_ORDER, 7)),
    refused("refcount-order-255", || sound().be32(REFCOUNT_ORDER, 255)),
    refused("header-len-0", || sound().be32(HEADER_LENGTH, 0)),
    refused("header-len-ffffffff", || sound().be32(HEADER_LENGTH, u32::MAX)),
    refused("ext-len-7fffffff", || sound().be32(EXTENSIONS, 0x1234_5678).be32(EXTENSIONS + 4, 0x7fff_ffff)),
    refused("cve-2015-5162-tiny-petabyte", || sound().be64(SIZE, 1 << 50)),
    refused("vsize-max", || sound().be64(SIZE, u64::MAX)),
    refused("unknown-incompatible-bit", || sound().be64(INCOMPATIBLE, 1 << 40)),
    refused("compression-type-7", || sound().be64(INCOMPATIBLE, 1 << 3).put(COMPRESSION, &[7])),
    refused("encrypted", || sound().be32(CRYPT, 1)),
    refused("version-4", || sound().be32(4, 4)),
    refused("cut-in-header", || sound().cut(100)),
    harmless("snapshots-65537", || sound().be32(SNAPSHOTS, 65_537).be64(SNAPSHOTS_OFFSET, 0x1_0000)),
    harmless("refcounts-beyond-eof", || sound().be64(REFCOUNT_OFFSET, 1 << 40)),
    found_late("l2-beyond-eof", || {
        let image = sound();
        let l1 = usize::try_from(image.get_be64(L1_OFFSET)).expect("an offset");
        image.be64(l1, (1 << 63) | (1 << 40))
    }),
    harmless("l2-is-the-l1-table", || {
        let image = sound();
        let l1 = image.get_be64(L1_OFFSET);
        image.be64(usize::try_from(l1).expect("an offset"), (1 << 63) | l1)
    }),
    found_late("cluster-beyond-eof", || first_entry(sound(), (1 << 63) | (1 << 40))),
    found_late("cluster-unaligned", || first_entry(sound(), (1 << 63) | 0x5_0200)),
    found_late("compressed-beyond-eof", || first_entry(compressed(), (1 << 62) | (1 << 45))),
    found_late("cut-in-data", || sound().cut(0x6_0000)),
];
