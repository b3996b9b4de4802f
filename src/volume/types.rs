//! Names of well-known partition types.

/// The name of an MBR type.
pub(super) fn mbr(id: u8) -> Option<&'static str> {
    Some(match id {
        0x01 => "FAT12",
        0x04 | 0x06 | 0x0e => "FAT16",
        0x05 | 0x0f => "extended",
        0x07 => "NTFS, exFAT or HPFS",
        0x0b | 0x0c => "FAT32",
        0x27 => "Windows recovery",
        0x42 => "Windows dynamic disk",
        0x82 => "Linux swap",
        0x83 => "Linux",
        0x85 => "Linux extended",
        0x8e => "Linux LVM",
        0xa5 => "FreeBSD",
        0xa6 => "OpenBSD",
        0xa9 => "NetBSD",
        0xaf => "HFS or HFS+",
        0xbf => "Solaris",
        0xee => "GPT protective",
        0xef => "EFI system",
        0xfb => "VMware VMFS",
        0xfc => "VMware core dump",
        0xfd => "Linux RAID",
        _ => return None,
    })
}

/// The name of a GPT type, by its GUID in lower case.
pub(super) fn gpt(guid: &str) -> Option<&'static str> {
    GPT.iter().find(|(known, _)| *known == guid).map(|(_, name)| *name)
}

const GPT: &[(&str, &str)] = &[
    ("024dee41-33e7-11d3-9d69-0008c781f39f", "MBR partition scheme"),
    ("0657fd6d-a4ab-43c4-84e5-0933c84b4f4f", "Linux swap"),
    ("0fc63daf-8483-4772-8e79-3d69d8477de4", "Linux"),
    ("21686148-6449-6e6f-744e-656564454649", "BIOS boot"),
    ("3b8f8425-20e0-4f3b-907f-1a25a76f98e8", "Linux /srv"),
    ("4f68bce3-e8cd-4db1-96e7-fbcaf984b709", "Linux root (x86-64)"),
    ("516e7cb4-6ecf-11d6-8ff8-00022d09712b", "FreeBSD"),
    ("516e7cb6-6ecf-11d6-8ff8-00022d09712b", "FreeBSD UFS"),
    ("516e7cba-6ecf-11d6-8ff8-00022d09712b", "FreeBSD ZFS"),
    ("5808c8aa-7e8f-42e0-85d2-e1e90434cfb3", "Windows LDM metadata"),
    ("6a898cc3-1dd2-11b2-99a6-080020736631", "ZFS"),
    ("83bd6b9d-7f41-11dc-be0b-001560b84f0f", "FreeBSD boot"),
    ("933ac7e1-2eb4-4f13-b844-0e14e2aef915", "Linux /home"),
    ("9d275380-40ad-11db-bf97-000c2911d1b8", "VMware core dump"),
    ("a19d880f-05fc-4d3b-a006-743f0f84911e", "Linux RAID"),
    ("aa31e02a-400f-11db-9590-000c2911d1b8", "VMware VMFS"),
    ("af9b60a0-1431-4f62-bc68-3311714a69ad", "Windows LDM data"),
    ("b921b045-1df0-41c3-af44-4c6f280d3fae", "Linux root (ARM64)"),
    ("bc13c2ff-59e6-4262-a352-b275fd6f7172", "Linux extended boot"),
    ("c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "EFI system"),
    ("ca7d7ccb-63ed-4c53-861c-1742536059cc", "LUKS"),
    ("de94bba4-06d1-4d40-a16a-bfd50179d6ac", "Windows recovery"),
    ("e3c9e316-0b5c-4db8-817d-f92df00215ae", "Microsoft reserved"),
    ("e6d6d379-f507-44c2-a23c-238f2a3df928", "Linux LVM"),
    ("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7", "Microsoft basic data"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn well_known_types_have_names() {
        assert_eq!(mbr(0x83), Some("Linux"));
        assert_eq!(mbr(0x13), None);
        assert!(GPT.windows(2).all(|pair| pair[0].0 < pair[1].0), "keep GPT sorted");
        assert_eq!(gpt("c12a7328-f81f-11d2-ba4b-00a0c93ec93b"), Some("EFI system"));
        assert_eq!(gpt(""), None);
    }
}
