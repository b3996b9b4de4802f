//! The text that describes a VMDK, inside of it.

use super::Make;
use crate::disk::bytes::be32;

/// The name of a file whose own is not known, or cannot be written in ASCII.
const NAME: &str = "disk.vmdk";

/// The descriptor of a stream-optimized disk, as ESXi, Workstation and QEMU write it.
pub(super) fn text(make: &Make) -> String {
    let sectors = make.len / 512;
    let (cylinders, heads, per_track) = geometry(sectors);
    let content = content_id(make.id("vmdk content"));
    let [_, _, _, id @ ..] = make.id("vmdk disk");
    let uuid = [&[0x60, 0x00, 0xc2, 0x90 | id[0] & 0x0f][..], &id[1..]].concat();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>();
    let uuid = hex(&uuid);
    let (front, back) = uuid.split_at(8);
    format!(
        "# Disk DescriptorFile\n\
         version=1\n\
         CID={cid:08x}\n\
         parentCID=ffffffff\n\
         createType=\"streamOptimized\"\n\
         \n\
         # Extent description\n\
         RW {sectors} SPARSE \"{name}\"\n\
         \n\
         # The Disk Data Base\n\
         #DDB\n\
         \n\
         ddb.virtualHWVersion = \"4\"\n\
         ddb.adapterType = \"lsilogic\"\n\
         ddb.geometry.cylinders = \"{cylinders}\"\n\
         ddb.geometry.heads = \"{heads}\"\n\
         ddb.geometry.sectors = \"{per_track}\"\n\
         ddb.longContentID = \"{long}\"\n\
         ddb.toolsVersion = \"2147483647\"\n\
         ddb.uuid = \"{front}-{back}\"\n",
        name = name(&make.name),
        cid = be32(&content, 12),
        long = hex(&content).concat(),
        front = front.join(" "),
        back = back.join(" "),
    )
}

/// The name of the file in its own descriptor. Most readers take the file that they have, and some look for this one.
fn name(name: &str) -> &str {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, ' ' | '(' | ')' | '+' | '-' | '.' | '_');
    let known = name.to_ascii_lowercase().ends_with(".vmdk") && name.chars().all(plain);
    if known { name } else { NAME }
}

/// A content id, whose last four bytes are the CID: neither that of no parent nor the one that sends to the long id.
fn content_id(mut id: [u8; 16]) -> [u8; 16] {
    if be32(&id, 12) >= 0xffff_fffe {
        id[12] = 0;
    }
    id
}

/// Cylinders, heads and sectors a track, as VMware's SCSI controllers see a disk of so many sectors.
fn geometry(sectors: u64) -> (u64, u64, u64) {
    const GIB: u64 = 1 << 21;
    let (heads, per_track) = match sectors {
        0..GIB => (64, 32),
        GIB..0x40_0000 => (128, 32),
        _ => (255, 63),
    };
    ((sectors / (heads * per_track)).max(1), heads, per_track)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn geometries_grow_with_the_disk() {
        assert_eq!(geometry(1), (1, 64, 32));
        assert_eq!(geometry((1 << 21) - 1), (1023, 64, 32));
        assert_eq!(geometry(1 << 21), (512, 128, 32));
        assert_eq!(geometry(1 << 22), (261, 255, 63));
    }

    #[test]
    fn names_that_might_mean_something_else_are_not_written() {
        for good in ["a.vmdk", "My disk (2).VMDK", "..vmdk"] {
            assert_eq!(name(good), good);
        }
        for bad in ["standard output", "out", "caf\u{e9}.vmdk", "a\"b.vmdk", "nbd:x.vmdk", "a\\b.vmdk", "a\nb.vmdk", ""]
        {
            assert_eq!(name(bad), NAME);
        }
    }

    #[test]
    fn reserved_ids_are_not_given() {
        assert_eq!(be32(&content_id([0xff; 16]), 12), 0x00ff_ffff);
        assert_eq!(content_id([7; 16]), [7; 16]);
    }
}
