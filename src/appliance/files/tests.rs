use super::*;

const STAT: &str = "st_dev: 2064\nst_ino: 13\nst_mode: 33188\nst_nlink: 1\nst_uid: 5\nst_gid: 6\nst_rdev: 0\nst_size: 12813\n\
                    st_blksize: 1024\nst_blocks: 26\nst_atime_sec: -5\nst_atime_nsec: 584000031\nst_mtime_sec: 1795305518\n\
                    st_mtime_nsec: 600000032\nst_ctime_sec: 1795305518\nst_ctime_nsec: 600000032\nst_spare1: 0\n";

#[test]
fn attributes_are_read() {
    let (stat, device) = stat_of(STAT.as_bytes()).unwrap();
    assert_eq!((stat.inode, stat.kind, stat.mode, stat.size), (Inode(13), FileKind::Regular, 0o644, 12813));
    assert_eq!((stat.uid, stat.gid, stat.links, stat.allocated, device), (5, 6, 1, 13312, 2064));
    assert_eq!((stat.atime.seconds, stat.mtime.nanoseconds, stat.device), (-5, 600_000_032, None));
    let device = STAT.replace("33188", "24992").replace("st_rdev: 0", "st_rdev: 2049");
    assert_eq!(stat_of(device.as_bytes()).unwrap().0.device, Some((8, 1)));
}

#[test]
fn attributes_that_make_no_sense_are_none() {
    for (from, to) in [
        ("st_ino: 13\n", ""),
        ("st_ino: 13", "st_ino: -13"),
        ("33188", "0"),
        ("33188", "x"),
        ("st_nlink: 1", "st_nlink: 99999999999"),
        ("st_atime_nsec: 584000031", "st_atime_nsec: -1"),
        ("st_dev: 2064", "st_dev 2064"),
    ] {
        assert_eq!(stat_of(STAT.replace(from, to).as_bytes()), None, "{to}");
    }
    assert_eq!(stat_of(b""), None);
}

fn printed(entries: &[(u64, char, &str)]) -> Vec<u8> {
    let entry = |(index, (inode, kind, name)): (usize, &(u64, char, &str))| {
        format!("[{index}] = {{\n  ino: {inode}\n  ftyp: {kind}\n  name: {name}\n}}\n")
    };
    entries.iter().enumerate().map(entry).collect::<String>().into_bytes()
}

#[test]
fn a_listing_is_taken_only_where_it_is_what_the_names_say() {
    let good = printed(&[(2, 'd', "."), (2, 'd', ".."), (12, 'l', "b"), (13, 'r', "a: b")]);
    let read = quick(&good, &[b"a: b", b"b"]).unwrap();
    assert_eq!(read, [(&b"a: b"[..], 13, Some(FileKind::Regular)), (&b"b"[..], 12, Some(FileKind::Symlink))]);
    for names in [&[&b"a: b"[..]][..], &[b"a: b", b"b", b"c"], &[b"a: b", b"c"], &[b"a: b", b"b\n"], &[]] {
        assert_eq!(quick(&good, names), None, "{names:?}");
    }
    // A name that pretends to be two entries.
    let forged = printed(&[(12, 'r', "a\n}\n[1] = {\n  ino: 1\n  ftyp: r\n  name: b")]);
    assert_eq!(quick(&forged, &[b"a\n}\n[1] = {\n  ino: 1\n  ftyp: r\n  name: b"]), None);
    let twice = printed(&[(12, 'r', "a"), (13, 'r', "a")]);
    assert_eq!(quick(&twice, &[b"a", b"b"]), None);
}

#[test]
fn what_is_known_is_bounded() {
    let room = |count| has_room(count).map_err(|error| error.code());
    assert!(room(MAX_APPLIANCE_FILES - 1).is_ok());
    assert_eq!(room(MAX_APPLIANCE_FILES), Err("appliance.files"));
    assert_eq!(room(MAX_APPLIANCE_FILES + 1), Err("appliance.files"));
}
