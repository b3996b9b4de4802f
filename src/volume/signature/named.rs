//! Formats whose name, UUID or label takes more than a look at a fixed place.

use super::{Signature, Usage};
use crate::disk::bytes::{array, be32, be64, is_at, le16, le32, le64, long, size, text};
use crate::disk::{Disk, read_vec};
use crate::error::Result;

/// The GUID of a volume that BitLocker encrypts, in FVE's boot sectors.
const FVE: [u8; 16] = [0x3b, 0xd6, 0x67, 0x49, 0x29, 0x2e, 0xd8, 0x4a, 0x83, 0x99, 0xf6, 0xa3, 0x39, 0xe3, 0xd0, 0x01];

/// The sectors in which a volume recognition sequence may begin and go on.
const RECOGNITION: usize = 0x8000;

/// exFAT, whose label is in its root directory.
pub(super) fn exfat(head: &[u8]) -> Option<Signature> {
    is_at(head, 3, b"EXFAT   ").then(|| {
        let serial = le32(head, 100);
        signature("exfat", Usage::Filesystem, 3, Some(format!("{:04X}-{:04X}", serial >> 16, serial & 0xffff)), None)
    })
}

/// F2FS, by either copy of its superblock.
pub(super) fn f2fs(head: &[u8]) -> Option<Signature> {
    let at = [1024_usize, 5120].into_iter().find(|at| le32(head, *at) == 0xf2f5_2010)?;
    let sb = head.get(at..)?;
    let units = sb.get(124..124 + 1024).unwrap_or_default().chunks_exact(2).map(|unit| le16(unit, 0));
    let units: Vec<u16> = units.take_while(|unit| *unit != 0).collect();
    let label = (!units.is_empty()).then(|| String::from_utf16_lossy(&units));
    Some(signature("f2fs", Usage::Filesystem, at, crate::disk::bytes::uuid(sb, 108), label))
}

/// UFS of either version in either byte order.
pub(super) fn ufs(head: &[u8]) -> Option<Signature> {
    for at in [0_usize, 8 << 10, 64 << 10] {
        let Some(sb) = head.get(at..).and_then(|sb| sb.get(..1376)) else { continue };
        for read in [le32, be32] {
            let magic = read(sb, 1372);
            if !matches!(magic, 0x0001_1954 | 0x1954_0119) {
                continue;
            }
            let (first, second) = (read(sb, 144), read(sb, 148));
            let uuid = (first != 0 || second != 0).then(|| format!("{first:08x}{second:08x}"));
            let label = sb.get(680..712).and_then(text).filter(|_| magic == 0x1954_0119);
            return Some(signature("ufs", Usage::Filesystem, at.saturating_add(1372), uuid, label));
        }
    }
    None
}

/// UDF, by the descriptor in its volume recognition sequence that names its version. Structures lie in sectors of 2048 bytes, or
/// in larger ones of the medium.
pub(super) fn udf(head: &[u8]) -> Option<Signature> {
    for step in [2048, 4096] {
        for at in (RECOGNITION..head.len()).step_by(step) {
            let name: [u8; 5] = array(head, at.saturating_add(1));
            match &name {
                b"NSR02" | b"NSR03" => {
                    return Some(signature("udf", Usage::Filesystem, at.saturating_add(1), None, None));
                }
                b"BEA01" | b"BOOT2" | b"CD001" | b"CDW02" => {}
                _ => break,
            }
        }
    }
    None
}

/// A ZFS member: any uberblock of the first label. Its name is in the list of values before them.
pub(super) fn zfs(head: &[u8]) -> Option<Signature> {
    let magic = 0x00ba_b10c_u64;
    let at = (0..4_usize)
        .map(|slot| slot.saturating_mul(1024).saturating_add(128 << 10))
        .find(|at| le64(head, *at) == magic || be64(head, *at) == magic)?;
    let values = head.get((16 << 10) + 12..128 << 10).unwrap_or_default();
    let pool = value(values, b"pool_guid", 8).and_then(|value| value.get(..8)).map(|value| be64(value, 0).to_string());
    let name = value(values, b"name", 9).and_then(|value| {
        let len = size(u64::from(be32(value, 0)));
        text(value.get(4..)?.get(..len)?)
    });
    Some(signature("zfs_member", Usage::Raid, at, pool, name))
}

/// The value `name` of the type `kind` in a list of names and values as XDR has it; not those of lists in it.
fn value<'a>(mut list: &'a [u8], name: &[u8], kind: u32) -> Option<&'a [u8]> {
    // A pair has at least its two sizes, which end the list when they are zero.
    loop {
        let pair = size(u64::from(be32(list, 0)));
        let body = list.get(8..pair)?;
        let len = size(u64::from(be32(body, 0)));
        let padded = len.checked_next_multiple_of(4)?;
        let rest = body.get(4..)?.get(padded..)?;
        if body.get(4..)?.get(..len)? == name && be32(rest, 0) == kind && be32(rest, 4) == 1 {
            return rest.get(8..);
        }
        list = list.get(pair..)?;
    }
}

/// A volume that BitLocker encrypts. Its identifier lies in its metadata, somewhere on the volume.
pub(super) fn bitlocker(head: &[u8], volume: &dyn Disk) -> Result<Option<Signature>> {
    // A drive to go looks like FAT to those who do not know it.
    let (magic, guid) = match head {
        head if is_at(head, 3, b"-FVE-FS-") => (3, 160),
        head if is_at(head, 3, b"MSWIN4.1") && is_at(head, 424, &FVE) => (424, 424),
        _ => return Ok(None),
    };
    let metadata = le64(head, if guid == 424 { 440 } else { 176 });
    let fits = metadata.checked_add(128).is_some_and(|end| end <= volume.len());
    let block = if fits { read_vec(volume, metadata, 128)? } else { Vec::new() };
    let uuid = is_at(&block, 0, b"-FVE-FS-").then(|| uuid::Uuid::from_bytes_le(array(&block, 80)));
    let uuid = uuid.filter(|uuid| !uuid.is_nil()).map(|uuid| uuid.to_string());
    Ok(Some(signature("BitLocker", Usage::Crypto, magic, uuid, None)))
}

fn signature(kind: &'static str, usage: Usage, at: usize, uuid: Option<String>, label: Option<String>) -> Signature {
    Signature { kind, usage, uuid, label, offset: long(at) }
}

#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::indexing_slicing,
    reason = "tests build their input"
)]
mod tests {
    use super::*;
    use crate::disk::Memory;
    use crate::disk::bytes::{put, put_be32, put16, put32};
    use crate::volume::signature::{probe, sole};

    fn blank() -> Vec<u8> {
        vec![0; 1 << 20]
    }

    fn only(volume: &[u8]) -> (&'static str, Option<String>, Option<String>) {
        let found = probe(&Memory::new(volume.to_vec())).unwrap();
        let found = sole(&found).unwrap_or_else(|| panic!("{found:?}"));
        (found.kind, found.uuid.clone(), found.label.clone())
    }

    /// What `blkid` says of the same bytes.
    #[allow(clippy::disallowed_methods, reason = "blkid is the second implementation")]
    fn blkid(volume: &[u8]) -> (String, Option<String>, Option<String>) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), volume).unwrap();
        // It looks for some only where there is enough room.
        file.as_file().set_len(20 << 20).unwrap();
        let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
        let mut run = std::process::Command::new("blkid");
        let run = run.args(["-p", "-o", "export"]).arg(file.path()).env("PATH", path).output();
        let text = String::from_utf8(run.expect("blkid is needed: apt-get install util-linux").stdout).unwrap();
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.map(|value| value.replace('\\', ""))
        };
        (value("TYPE").unwrap_or_else(|| panic!("{text}")), value("UUID"), value("LABEL"))
    }

    fn assert_as_blkid(volume: &[u8]) {
        let (kind, uuid, label) = only(volume);
        assert_eq!((kind.to_owned(), uuid, label), blkid(volume));
    }

    fn f2fs_volume() -> Vec<u8> {
        let mut volume = blank();
        put32(&mut volume, 1024, 0xf2f5_2010);
        put32(&mut volume, 1024 + 4, 0x0010_0001);
        put(&mut volume, 1024 + 108, b"0123456789abcdef");
        for (index, unit) in "Some label".encode_utf16().enumerate() {
            put16(&mut volume, 1024 + 124 + index * 2, unit);
        }
        volume
    }

    fn zfs_volume() -> Vec<u8> {
        let mut volume = blank();
        (0..8).for_each(|slot| put(&mut volume, (128 << 10) + slot * 1024, &0x00ba_b10c_u64.to_le_bytes()));
        let mut list = vec![1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        for (name, kind, value) in [
            ("version", 8, 5000_u64.to_be_bytes().to_vec()),
            ("name", 9, [&4_u32.to_be_bytes()[..], b"tank"].concat()),
            ("pool_guid", 8, 0x1234_5678_9abc_def0_u64.to_be_bytes().to_vec()),
            ("guid", 8, 77_u64.to_be_bytes().to_vec()),
        ] {
            let mut pair = vec![0; 12];
            put_be32(&mut pair, 8, u32::try_from(name.len()).unwrap());
            pair.extend(name.as_bytes());
            pair.resize(pair.len().next_multiple_of(4), 0);
            pair.extend([0, 0, 0, kind, 0, 0, 0, 1]);
            pair.extend(value);
            let len = u32::try_from(pair.len()).unwrap();
            put_be32(&mut pair, 0, len);
            put_be32(&mut pair, 4, len);
            list.extend(pair);
        }
        put(&mut volume, 16 << 10, &list);
        volume
    }

    fn ufs_volume(magic: u32, at: usize, big: bool) -> Vec<u8> {
        let mut volume = blank();
        let bytes = |value: u32| if big { value.to_be_bytes() } else { value.to_le_bytes() };
        put(&mut volume, at + 1372, &bytes(magic));
        put(&mut volume, at + 144, &bytes(0x1234_5678));
        put(&mut volume, at + 148, &bytes(0x0000_0abc));
        if magic == 0x1954_0119 {
            put(&mut volume, at + 680, b"data");
        }
        volume
    }

    #[test]
    fn names_are_those_of_blkid() {
        for volume in [
            f2fs_volume(),
            ufs_volume(0x1954_0119, 64 << 10, false),
            ufs_volume(0x1954_0119, 64 << 10, true),
            ufs_volume(0x0001_1954, 8 << 10, false),
        ] {
            assert_as_blkid(&volume);
        }
        // blkid looks at all four labels, of which there is one here.
        assert_eq!(
            only(&zfs_volume()),
            ("zfs_member", Some(0x1234_5678_9abc_def0_u64.to_string()), Some("tank".to_owned()))
        );
    }

    #[test]
    fn superblocks_at_fixed_places_are_named_as_by_blkid() {
        let mut jfs = blank();
        put(&mut jfs, 0x8000, b"JFS1\x01\0\0\0");
        put32(&mut jfs, 0x8000 + 16, 4096);
        put16(&mut jfs, 0x8000 + 20, 12);
        put16(&mut jfs, 0x8000 + 22, 3);
        put32(&mut jfs, 0x8000 + 24, 512);
        put16(&mut jfs, 0x8000 + 28, 9);
        put(&mut jfs, 0x8088, b"0123456789abcdef");
        put(&mut jfs, 0x8098, b"label");
        let mut reiser = blank();
        put(&mut reiser, 0x1_0034, b"ReIsEr2Fs");
        put16(&mut reiser, 0x1_002c, 4096);
        put32(&mut reiser, 0x1_000c, 18);
        put(&mut reiser, 0x1_0054, b"0123456789abcdef");
        put(&mut reiser, 0x1_0064, b"label");
        for volume in [jfs, reiser] {
            assert_eq!(only(&volume).2.as_deref(), Some("label"));
            assert_as_blkid(&volume);
        }
    }

    #[test]
    fn udf_is_found_behind_what_else_is_recognised_and_is_what_a_bridge_holds() {
        let mut volume = blank();
        for (number, name) in [&b"CD001"[..], b"CD001", b"CD001", b"BEA01", b"NSR02", b"TEA01"].iter().enumerate() {
            put(&mut volume, 0x8001 + number * 2048, name);
        }
        let found = probe(&Memory::new(volume.clone())).unwrap();
        assert_eq!(found.iter().map(|one| one.kind).collect::<Vec<_>>(), ["iso9660", "udf"]);
        assert_eq!(sole(&found).unwrap().kind, "udf");
        put(&mut volume, 0x8001 + 2 * 2048, b"XXXXX");
        assert_eq!(only(&volume).0, "iso9660");
        let mut large = blank();
        for (number, name) in [&b"BEA01"[..], b"NSR03", b"TEA01"].iter().enumerate() {
            put(&mut large, 0x8001 + number * 4096, name);
        }
        assert_eq!(only(&large).0, "udf");
    }

    #[test]
    fn bitlocker_is_named_by_its_metadata_where_that_is_there() {
        let mut volume = blank();
        put(&mut volume, 3, b"-FVE-FS-");
        assert_eq!(only(&volume), ("BitLocker", None, None));
        put(&mut volume, 176, &0x2_0000_u64.to_le_bytes());
        put(&mut volume, 0x2_0000, b"-FVE-FS-");
        put(&mut volume, 0x2_0000 + 80, uuid::Uuid::from_u128(7).to_bytes_le().as_slice());
        assert_eq!(only(&volume).1.as_deref(), Some("00000000-0000-0000-0000-000000000007"));
        put(&mut volume, 176, &u64::MAX.to_le_bytes());
        assert_eq!(only(&volume), ("BitLocker", None, None));
        let mut to_go = blank();
        put(&mut to_go, 0, &[0xeb, 0x58, 0x90]);
        put(&mut to_go, 3, b"MSWIN4.1");
        put16(&mut to_go, 11, 512);
        put(&mut to_go, 0x52, b"FAT32   ");
        put(&mut to_go, 424, &FVE);
        put(&mut to_go, 510, &[0x55, 0xaa]);
        assert_eq!(only(&to_go).0, "BitLocker");
    }

    #[test]
    fn lists_of_values_that_make_no_sense_have_none() {
        let good = zfs_volume();
        for at in (16 << 10)..(16 << 10) + 200 {
            for byte in [0, 1, 0x7f, 0xff] {
                let mut volume = good.clone();
                volume[at] = byte;
                assert_eq!(only(&volume).0, "zfs_member");
            }
        }
        assert_eq!(value(&[0; 64], b"name", 9), None);
        assert_eq!(value(&[0xff; 64], b"name", 9), None);
    }
}
