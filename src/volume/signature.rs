//! Which file systems and volume formats a volume carries, by their magic numbers: all of them, not the first.
//!
//! Two reads: the start and the end of the volume. Free space is only believed when one signature is there
//! ([`sole`]), since a second one may own blocks that the first calls free.

use crate::disk::bytes::{is_at, le16, le32, text, u8_at, uuid};
use crate::disk::{Disk, read_vec};
use crate::error::Result;

mod named;

/// Bytes read from the start: the furthest magic there is a ZFS uberblock's at 128 KiB.
const HEAD: u64 = 132 << 10;
/// Bytes read from the end: the furthest back is MD 0.90's superblock, 64 to 128 KiB before the end.
const TAIL: u64 = 128 << 10;

/// A format found on a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// The format, as `blkid` calls it (`ext4`, `LVM2_member` …).
    pub kind: &'static str,
    /// What it is for.
    pub usage: Usage,
    /// Its UUID or serial number, where that is at a fixed place.
    pub uuid: Option<String>,
    /// Its label, where that is at a fixed place.
    pub label: Option<String>,
    /// Where its magic number is, from the start of the volume.
    pub offset: u64,
}

/// What a format is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// Holds a volume in an encrypted form.
    Crypto,
    /// Holds files.
    Filesystem,
    /// Is a part of a larger volume.
    Raid,
    /// Swap space.
    Swap,
}

/// All signatures of `volume`, in the order of their offsets.
///
/// # Errors
/// When the volume cannot be read.
pub fn probe(volume: &dyn Disk) -> Result<Vec<Signature>> {
    let head_len = usize::try_from(HEAD.min(volume.len())).unwrap_or(0);
    let head = read_vec(volume, 0, head_len)?;
    let tail_start = volume.len().saturating_sub(TAIL);
    let tail_len = usize::try_from(volume.len().saturating_sub(tail_start)).unwrap_or(0);
    let tail = read_vec(volume, tail_start, tail_len)?;
    let mut found = of_head(&head);
    if let Some(encrypted) = named::bitlocker(&head, volume)? {
        // A drive to go pretends to be FAT.
        found.retain(|signature| signature.kind != "vfat");
        found.push(encrypted);
    }
    found.extend(of_tail(&tail, tail_start, volume.len()));
    found.sort_by_key(|signature| signature.offset);
    Ok(found)
}

/// The one signature of a volume; `None` when there are several or none. A disc that holds the same files as ISO 9660 and as UDF
/// is UDF: Windows' own discs have all their files there only, and Linux mounts it as such.
#[must_use]
pub fn sole(signatures: &[Signature]) -> Option<&Signature> {
    match signatures {
        [one] => Some(one),
        [a, b] if (a.kind, b.kind) == ("iso9660", "udf") => Some(b),
        _ => None,
    }
}

/// The signatures in the first bytes of a volume.
fn of_head(head: &[u8]) -> Vec<Signature> {
    let mut found = Vec::new();
    found.extend(ext(head));
    found.extend(fat(head));
    found.extend(swap(head));
    found.extend(luks(head));
    found.extend(lvm(head));
    found.extend(md(head, 0, 0));
    found.extend(md(head, 4096, 0));
    found.extend(named::exfat(head));
    found.extend(named::f2fs(head));
    found.extend(named::udf(head));
    found.extend(named::ufs(head));
    found.extend(named::zfs(head));
    for magic in MAGICS {
        if is_at(head, magic.at, magic.bytes) {
            found.push(magic.signature(head));
        }
    }
    found
}

/// The signatures at the end of a volume of `len` bytes; `tail` starts at `start`.
fn of_tail(tail: &[u8], start: u64, len: u64) -> Vec<Signature> {
    let mut found = Vec::new();
    let sectors_1_0 = len.checked_div(512).and_then(|sectors| sectors.checked_sub(16)).map(|sector| sector & !7);
    if let Some(at) = sectors_1_0.and_then(|sector| sector.checked_mul(512)).and_then(|at| at.checked_sub(start)) {
        found.extend(md(tail, usize::try_from(at).unwrap_or(usize::MAX), start));
    }
    let block = 64_u64 << 10;
    let md_0_90 = (len & !0xffff).checked_sub(block).and_then(|at| at.checked_sub(start));
    if let Some(at) = md_0_90 {
        let index = usize::try_from(at).unwrap_or(usize::MAX);
        if is_at(tail, index, &0xa92b_4efc_u32.to_le_bytes()) && le32(tail, index.saturating_add(4)) == 0 {
            found.push(plain("linux_raid_member", Usage::Raid, start.saturating_add(at)));
        }
    }
    let last = tail.len().saturating_sub(512);
    if is_at(tail, last, &[0xde, 0x11, 0xde, 0x11]) {
        found.push(plain("ddf_raid_member", Usage::Raid, len.saturating_sub(512)));
    }
    found
}

/// A magic number that needs no second look.
struct Magic {
    at: usize,
    bytes: &'static [u8],
    kind: &'static str,
    usage: Usage,
    uuid: Option<usize>,
    label: Option<(usize, usize)>,
}

impl Magic {
    const fn fs(kind: &'static str, at: usize, bytes: &'static [u8]) -> Self {
        Self { at, bytes, kind, usage: Usage::Filesystem, uuid: None, label: None }
    }

    const fn named(self, uuid: usize, label: (usize, usize)) -> Self {
        Self { uuid: Some(uuid), label: Some(label), ..self }
    }

    const fn labelled(self, at: usize, len: usize) -> Self {
        Self { label: Some((at, len)), ..self }
    }

    const fn of(self, usage: Usage) -> Self {
        Self { usage, ..self }
    }

    fn signature(&self, head: &[u8]) -> Signature {
        Signature {
            kind: self.kind,
            usage: self.usage,
            uuid: self.uuid.and_then(|at| uuid(head, at)),
            label: self.label.and_then(|(at, len)| text(head.get(at..)?.get(..len)?)),
            offset: u64::try_from(self.at).unwrap_or(u64::MAX),
        }
    }
}

const MAGICS: &[Magic] = &[
    Magic::fs("xfs", 0, b"XFSB").named(32, (108, 12)),
    Magic::fs("btrfs", 0x1_0040, b"_BHRfS_M").named(0x1_0020, (0x1_012b, 256)),
    Magic::fs("ntfs", 3, b"NTFS    "),
    Magic::fs("ReFS", 3, b"ReFS\0\0\0\0"),
    Magic::fs("iso9660", 0x8001, b"CD001").labelled(0x8028, 32),
    Magic::fs("squashfs", 0, b"hsqs"),
    Magic::fs("erofs", 1024, &[0xe2, 0xe1, 0xf5, 0xe0]).named(1072, (1088, 16)),
    Magic::fs("nilfs2", 1024, &[2, 0, 0, 0, 0, 0, 0x34, 0x34]),
    Magic::fs("hfsplus", 1024, b"H+\0\x04"),
    Magic::fs("hfsplus", 1024, b"HX\0\x05"),
    Magic::fs("apfs", 32, b"NXSB"),
    Magic::fs("jfs", 0x8000, b"JFS1").named(0x8088, (0x8098, 16)),
    Magic::fs("reiserfs", 0x1_0034, b"ReIsErFs").named(0x1_0054, (0x1_0064, 16)),
    Magic::fs("reiserfs", 0x1_0034, b"ReIsEr2Fs").named(0x1_0054, (0x1_0064, 16)),
    Magic::fs("reiserfs", 0x1_0034, b"ReIsEr3Fs").named(0x1_0054, (0x1_0064, 16)),
    Magic::fs("gfs2", 0x1_0000, &[0x01, 0x16, 0x19, 0x70]),
    Magic::fs("ocfs2", 0x2000, b"OCFSV2"),
    Magic::fs("bcachefs", 4120, &[0xc6, 0x85, 0x73, 0xf6, 0x66, 0xce, 0x90, 0xa9]),
    Magic::fs("bcache", 4120, &[0xc6, 0x85, 0x73, 0xf6, 0x4e, 0x1a, 0x45, 0xca]).of(Usage::Raid),
    Magic::fs("LVM1_member", 0, b"HM\x01\0").of(Usage::Raid),
];

/// ext2, ext3 or ext4, by the features that only the later ones have.
fn ext(head: &[u8]) -> Option<Signature> {
    let sb = head.get(1024..2048)?;
    if le16(sb, 0x38) != 0xef53 {
        return None;
    }
    let (compat, incompat, ro_compat) = (le32(sb, 0x5c), le32(sb, 0x60), le32(sb, 0x64));
    let kind = if incompat & 0x8 != 0 {
        "jbd"
    } else if incompat & !0x16 != 0 || ro_compat & !0x7 != 0 {
        "ext4"
    } else if compat & 0x4 != 0 {
        "ext3"
    } else {
        "ext2"
    };
    let label = text(sb.get(0x78..0x88)?);
    Some(Signature { kind, usage: Usage::Filesystem, uuid: uuid(sb, 0x68), label, offset: 0x438 })
}

/// FAT12, 16 and 32: a boot sector whose geometry is possible and which names itself.
fn fat(head: &[u8]) -> Option<Signature> {
    let jump = u8_at(head, 0) == 0xe9 || (u8_at(head, 0) == 0xeb && u8_at(head, 2) == 0x90);
    let sector = le16(head, 11);
    let possible =
        jump && sector.is_power_of_two() && (512..=4096).contains(&sector) && is_at(head, 510, &[0x55, 0xaa]);
    let (name, serial, label): (usize, usize, usize) = if is_at(head, 0x36, b"FAT1") {
        (0x36, 0x27, 0x2b)
    } else if is_at(head, 0x52, b"FAT32") {
        (0x52, 0x43, 0x47)
    } else {
        return None;
    };
    possible.then(|| Signature {
        kind: "vfat",
        usage: Usage::Filesystem,
        uuid: Some(le32(head, serial)).map(|id| format!("{:04X}-{:04X}", id >> 16, id & 0xffff)),
        label: head.get(label..label.saturating_add(11)).and_then(text).filter(|label| label != "NO NAME"),
        offset: u64::try_from(name).unwrap_or(0),
    })
}

/// Linux swap, for every page size.
fn swap(head: &[u8]) -> Option<Signature> {
    let magic = [4096_usize, 8192, 16384, 32768, 65536].iter().map(|page| page.saturating_sub(10)).find(|at| {
        is_at(head, *at, b"SWAPSPACE2") || is_at(head, *at, b"SWAP-SPACE") || is_at(head, *at, b"S1SUSPEND\0")
    })?;
    Some(Signature {
        kind: "swap",
        usage: Usage::Swap,
        uuid: uuid(head, 1036),
        label: head.get(1052..1068).and_then(text),
        offset: u64::try_from(magic).unwrap_or(0),
    })
}

/// LUKS 1 and 2, also by the second header of version 2, which survives when the first is overwritten.
fn luks(head: &[u8]) -> Option<Signature> {
    let first = is_at(head, 0, b"LUKS\xba\xbe").then_some(0_usize);
    let second = || (14..18).map(|bits| 1_usize << bits).find(|at| is_at(head, *at, b"SKUL\xba\xbe"));
    let at = first.or_else(second)?;
    let uuid_at = at.saturating_add(168);
    Some(Signature {
        kind: "crypto_LUKS",
        usage: Usage::Crypto,
        uuid: head.get(uuid_at..uuid_at.saturating_add(40)).and_then(text),
        label: None,
        offset: u64::try_from(at).unwrap_or(0),
    })
}

/// An LVM2 physical volume: its label is in one of the first four sectors.
fn lvm(head: &[u8]) -> Option<Signature> {
    let at = [0_usize, 512, 1024, 1536]
        .into_iter()
        .find(|at| is_at(head, *at, b"LABELONE") && is_at(head, at.saturating_add(24), b"LVM2 001"))?;
    let header = at.saturating_add(usize::try_from(le32(head, at.saturating_add(20))).unwrap_or(usize::MAX));
    let id = head.get(header..).and_then(|rest| rest.get(..32)).filter(|id| id.is_ascii());
    let dashed = id.map(|id| {
        let text = String::from_utf8_lossy(id);
        let groups = [0..6, 6..10, 10..14, 14..18, 18..22, 22..26, 26..32];
        groups.into_iter().filter_map(|range| text.get(range)).collect::<Vec<_>>().join("-")
    });
    Some(Signature {
        kind: "LVM2_member",
        usage: Usage::Raid,
        uuid: dashed,
        label: None,
        offset: u64::try_from(at).unwrap_or(0),
    })
}

/// An MD superblock of version 1 at `at` of `bytes`, which start at `base`.
fn md(bytes: &[u8], at: usize, base: u64) -> Option<Signature> {
    let sb = bytes.get(at..)?;
    (le32(sb, 0) == 0xa92b_4efc && le32(sb, 4) == 1).then(|| Signature {
        kind: "linux_raid_member",
        usage: Usage::Raid,
        uuid: uuid(sb, 16),
        label: sb.get(32..64).and_then(text),
        offset: base.saturating_add(u64::try_from(at).unwrap_or(0)),
    })
}

fn plain(kind: &'static str, usage: Usage, offset: u64) -> Signature {
    Signature { kind, usage, uuid: None, label: None, offset }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, clippy::as_conversions, reason = "tests build their input")]
mod tests {
    use super::*;
    use crate::disk::Memory;
    use crate::disk::bytes::{put, put16, put32};

    fn kinds(bytes: &[u8]) -> Vec<&'static str> {
        probe(&Memory::new(bytes.to_vec())).unwrap().iter().map(|signature| signature.kind).collect()
    }

    fn blank() -> Vec<u8> {
        vec![0; 1 << 20]
    }

    #[test]
    fn ext_is_told_apart_by_features() {
        let mut volume = blank();
        put16(&mut volume, 1024 + 0x38, 0xef53);
        put(&mut volume, 1024 + 0x78, b"root");
        assert_eq!(kinds(&volume), ["ext2"]);
        put32(&mut volume, 1024 + 0x5c, 4);
        assert_eq!(kinds(&volume), ["ext3"]);
        put32(&mut volume, 1024 + 0x60, 0x40);
        assert_eq!(kinds(&volume), ["ext4"]);
        put32(&mut volume, 1024 + 0x60, 8);
        assert_eq!(kinds(&volume), ["jbd"]);
        assert_eq!(probe(&Memory::new(volume)).unwrap()[0].label.as_deref(), Some("root"));
    }

    #[test]
    fn every_plain_magic_is_found() {
        for magic in MAGICS {
            let mut volume = blank();
            put(&mut volume, magic.at, magic.bytes);
            assert!(kinds(&volume).contains(&magic.kind), "{}", magic.kind);
        }
    }

    #[test]
    fn several_signatures_are_all_reported_and_none_is_sole() {
        let mut volume = blank();
        put16(&mut volume, 1024 + 0x38, 0xef53);
        put(&mut volume, 512, b"LABELONE");
        put(&mut volume, 512 + 24, b"LVM2 001");
        put(&mut volume, 4086, b"SWAPSPACE2");
        let found = probe(&Memory::new(volume)).unwrap();
        assert_eq!(found.iter().map(|s| s.kind).collect::<Vec<_>>(), ["LVM2_member", "ext2", "swap"]);
        assert!(sole(&found).is_none());
        assert!(sole(&found[..1]).is_some());
        assert!(sole(&[]).is_none());
    }

    #[test]
    fn raid_members_are_found_at_the_end() {
        for (at, version) in [(0, 1), (4096, 1), ((1 << 20) - 8192, 1), ((1 << 20) - 65536, 0)] {
            let mut volume = blank();
            put32(&mut volume, at, 0xa92b_4efc);
            put32(&mut volume, at + 4, version);
            assert_eq!(kinds(&volume), ["linux_raid_member"], "{at}");
        }
    }

    #[test]
    fn luks_is_found_by_either_header() {
        let mut volume = blank();
        put(&mut volume, 16384, b"SKUL\xba\xbe");
        assert_eq!(kinds(&volume), ["crypto_LUKS"]);
        put(&mut volume, 0, b"LUKS\xba\xbe");
        put(&mut volume, 168, b"11111111-2222-3333-4444-555555555555\0\0\0\0");
        let found = probe(&Memory::new(volume)).unwrap();
        assert_eq!(found[0].uuid.as_deref(), Some("11111111-2222-3333-4444-555555555555"));
    }

    #[test]
    fn a_boot_sector_is_fat_only_with_a_possible_geometry() {
        let mut volume = blank();
        put(&mut volume, 0, &[0xeb, 0x3c, 0x90]);
        put16(&mut volume, 11, 512);
        put(&mut volume, 0x36, b"FAT16   ");
        put(&mut volume, 0x2b, b"NO NAME    ");
        put32(&mut volume, 0x27, 0x1234_abcd);
        assert_eq!(kinds(&volume), [""; 0]);
        put(&mut volume, 510, &[0x55, 0xaa]);
        let found = probe(&Memory::new(volume.clone())).unwrap();
        assert_eq!((found[0].uuid.as_deref(), found[0].label.as_deref()), (Some("1234-ABCD"), None));
        put16(&mut volume, 11, 513);
        assert_eq!(kinds(&volume), [""; 0]);
    }

    #[test]
    fn short_volumes_have_no_signature_and_no_panic() {
        for len in (0..2048).chain([4096, 65535, 131_072, 131_073]) {
            assert_eq!(kinds(&vec![0; len]), [""; 0]);
            probe(&Memory::new(vec![0xff; len])).unwrap();
        }
    }
}
