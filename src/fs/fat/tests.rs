//! What no image may do to the driver, on small images that mkfs.vfat makes and the tests damage.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::indexing_slicing,
    reason = "tests build their input"
)]

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::disk::bytes::{le16, le32, put, put16, put32};
use crate::disk::{Checked, Memory};
use crate::fs::everything;

/// An empty file system that mkfs.vfat makes.
#[allow(clippy::disallowed_methods, reason = "dosfstools is the second implementation")]
fn make(kib: u64, options: &[&str]) -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(kib << 10).unwrap();
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let made = std::process::Command::new("mkfs.vfat").args(options).arg(file.path()).env("PATH", path).output();
    let made = made.expect("mkfs.vfat is needed: apt-get install dosfstools");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    std::fs::read(file.path()).unwrap()
}

fn disk(bytes: Vec<u8>) -> Arc<Checked<Memory>> {
    Checked::wrap(Memory::new(bytes))
}

/// A disk with some files on it: a file of several clusters, a directory with a long name in it.
fn filled(kib: u64, options: &[&str]) -> Vec<u8> {
    let disk = disk(make(kib, options));
    let fs = Fat::open_mut(disk.clone()).unwrap();
    let none = Attributes { mode: 0o644, ..Attributes::default() };
    let file = fs.create(ROOT, b"FILE", &none, &[7; 9000]).unwrap();
    assert_eq!(fs.stat(file).unwrap().size, 9000);
    let dir = fs.create_dir(ROOT, b"DIR", &none).unwrap();
    fs.create(dir, b"a long name in a directory", &none, b"x").unwrap();
    let mut bytes = vec![0; size(disk.len())];
    disk.read_at(&mut bytes, 0).unwrap();
    bytes
}

fn fat12() -> Vec<u8> {
    static IMAGE: OnceLock<Vec<u8>> = OnceLock::new();
    IMAGE.get_or_init(|| filled(1440, &["-F", "12", "-i", "1234abcd", "-n", "LABEL"])).clone()
}

/// Smaller than FAT32 should be, which nobody minds.
fn fat32() -> Vec<u8> {
    static IMAGE: OnceLock<Vec<u8>> = OnceLock::new();
    IMAGE.get_or_init(|| filled(2000, &["-F", "32", "-s", "1"])).clone()
}

/// Everything that a caller may do. The first error.
fn exercise(fs: &Fat) -> Result<()> {
    let mut first = everything::read(fs, 300, b"no such name");
    let mut note = |result: Result<()>| {
        if first.is_ok() {
            first = result;
        }
    };
    if let Ok(writer) = fs.writer() {
        let attributes = Attributes::default();
        for (name, content) in [(&b"a new file"[..], &[1; 5000][..]), (b"EMPTY", b""), (b"a third one", &[2; 700])] {
            note(writer.create(ROOT, name, &attributes, content).map(drop));
        }
        note(writer.create_dir(ROOT, b"new dir", &attributes).map(drop));
        for name in [&b"FILE"[..], b"DIR"] {
            if let Ok(Some(inode)) = fs.lookup(ROOT, name) {
                let changed = match name {
                    b"FILE" => writer.append(inode, &[3; 3000]).and_then(|()| writer.replace(inode, &[4; 100])),
                    _ => writer.create(inode, b"another long name", &attributes, b"y").map(drop),
                };
                note(changed);
            }
        }
        if let (Ok(Some(dir)), Ok(Some(new))) = (fs.lookup(ROOT, b"DIR"), fs.lookup(ROOT, b"new dir")) {
            note(writer.rename(ROOT, b"FILE", dir, b"a file that moved"));
            note(writer.rename(dir, b"a file that moved", ROOT, b"FILE"));
            note(writer.rename(ROOT, b"DIR", new, b"inner"));
            note(writer.rename(new, b"inner", ROOT, b"DIR"));
            note(writer.remove_dir(ROOT, b"new dir"));
        }
        if let Ok(Some(inode)) = fs.lookup(ROOT, b"FILE") {
            note(writer.set_owner(inode, 0o444, 0, 0));
            note(writer.remove_xattr(inode, b"user.x"));
        }
        note(writer.remove(ROOT, b"FILE"));
        note(writer.sync());
    }
    first
}

/// Opens an image both ways and does everything with it. What failed first.
fn survive(bytes: &[u8]) -> Result<()> {
    let start = Instant::now();
    let read = Fat::open(disk(bytes.to_vec())).and_then(|fs| exercise(&fs));
    let written = Fat::open_mut(disk(bytes.to_vec())).and_then(|fs| exercise(&fs));
    assert!(start.elapsed() < Duration::from_secs(20), "took {:?}", start.elapsed());
    read.and(written)
}

fn code(bytes: &[u8]) -> &'static str {
    survive(bytes).map_or_else(|error| error.code(), |()| "none")
}

/// Where the entry of a name in the root directory is.
fn slot_of(bytes: &[u8], name: &[u8]) -> usize {
    let fs = Fat::open(disk(bytes.to_vec())).unwrap();
    size(fs.lookup(ROOT, name).unwrap().unwrap().0 * 32)
}

/// Sets an entry of every table of FAT32.
fn link32(bytes: &mut [u8], cluster: u32, value: u32) {
    let (reserved, len) = (usize::from(le16(bytes, 14)), size(u64::from(le32(bytes, 36))));
    for table in 0..usize::from(bytes[16]) {
        put32(bytes, (reserved + table * len) * 512 + size(u64::from(cluster)) * 4, value);
    }
}

fn first_of(bytes: &[u8], name: &[u8]) -> u32 {
    u32::from(le16(bytes, slot_of(bytes, name) + 26))
}

#[test]
fn names_move_and_empty_directories_go() {
    for image in [fat12(), fat32()] {
        let fs = Fat::open_mut(disk(image)).unwrap();
        let dir = fs.lookup(ROOT, b"DIR").unwrap().unwrap();
        let none = Attributes::default();
        assert_eq!(fs.remove_dir(ROOT, b"DIR").unwrap_err().code(), "fat.not-empty");
        assert_eq!(fs.remove_dir(ROOT, b"FILE").unwrap_err().code(), "fat.name");
        assert_eq!(fs.remove_dir(ROOT, b"NONE").unwrap_err().code(), "fat.not-found");
        assert_eq!(fs.rename(ROOT, b"FILE", ROOT, b"dir").unwrap_err().code(), "fat.exists");
        assert_eq!(fs.rename(ROOT, b"FILE", ROOT, b"a/b").unwrap_err().code(), "fat.name");
        assert_eq!(fs.rename(ROOT, b"NONE", ROOT, b"x").unwrap_err().code(), "fat.not-found");
        assert_eq!(fs.rename(ROOT, b"DIR", dir, b"inside").unwrap_err().code(), "fat.name");
        let inner = fs.create_dir(dir, b"inner", &none).unwrap();
        assert_eq!(fs.rename(ROOT, b"DIR", inner, b"inside").unwrap_err().code(), "fat.name");
        assert_eq!(fs.set_owner(inner, 0o700, 1, 0).unwrap_err().code(), "fat.feature");
        let before = fs.stat(fs.lookup(ROOT, b"FILE").unwrap().unwrap()).unwrap();
        // The same name in another case.
        fs.rename(ROOT, b"FILE", ROOT, b"File").unwrap();
        fs.rename(ROOT, b"File", inner, b"a longer name in another directory").unwrap();
        fs.rename(dir, b"inner", ROOT, b"Outer").unwrap();
        let outer = fs.lookup(ROOT, b"outer").unwrap().unwrap();
        let file = fs.lookup(outer, b"a longer name in another directory").unwrap().unwrap();
        fs.set_owner(file, 0o444, 0, 0).unwrap();
        assert_eq!(fs.stat(file).unwrap(), Stat { inode: file, mode: 0o555, ..before });
        fs.set_owner(file, 0o644, 0, 0).unwrap();
        assert_eq!(fs.stat(file).unwrap(), Stat { inode: file, ..before });
        fs.rename(outer, b"a longer name in another directory", ROOT, b"FILE").unwrap();
        fs.remove_dir(ROOT, b"Outer").unwrap();
        assert_eq!(fs.stat(ROOT).unwrap().links, 3);
    }
}

#[test]
fn sound_images_are_sound() {
    for image in [fat12(), fat32(), filled(16_000, &["-F", "16"])] {
        survive(&image).unwrap();
    }
}

#[test]
fn facts_are_those_of_blkid() {
    let fs = Fat::open(disk(fat12())).unwrap();
    let facts = fs.facts();
    assert_eq!((facts.kind, facts.uuid.as_deref(), facts.label.as_deref()), ("vfat", Some("1234-ABCD"), Some("LABEL")));
    assert_eq!((facts.features.as_slice(), facts.dirty), (&["FAT12".to_owned()][..], false));
    assert_eq!(fs.writer().unwrap_err().code(), "fat.read-only");
}

#[test]
fn a_geometry_that_cannot_be_is_refused() {
    let image = fat12();
    for (name, at, value) in [
        ("sectors of 0 bytes", 11, 0),
        ("sectors of 513 bytes", 11, 513),
        ("sectors of 8 KiB", 11, 8192),
        ("three sectors in a cluster", 13, 0x0103),
        ("no reserved sector", 14, 0),
        ("more sectors than the volume", 19, 2881),
        ("fewer sectors than the tables", 19, 3),
    ] {
        let mut image = image.clone();
        put16(&mut image, at, value);
        assert_eq!(code(&image), "fat.geometry", "{name}");
    }
    let mut none = image.clone();
    none[16] = 0;
    assert_eq!(code(&none), "fat.geometry");
    let mut unsigned = image.clone();
    unsigned[510] = 0;
    assert_eq!(code(&unsigned), "fat.corrupt");
    let mut newer = fat32();
    put16(&mut newer, 42, 1);
    assert_eq!(code(&newer), "fat.feature");
}

#[test]
fn any_truncation_is_an_error() {
    let image = fat12();
    for len in (0..1024).chain([4096, 10_000, image.len() - 1]) {
        assert!(survive(&image[..len]).is_err(), "{len}");
    }
}

#[test]
fn a_chain_that_comes_back_ends() {
    for target in 0..2 {
        let mut image = fat32();
        let first = first_of(&image, b"FILE");
        link32(&mut image, first + 3, first + target * 2);
        let slot = slot_of(&image, b"FILE");
        assert_eq!(code(&image), "fat.corrupt");
        // Even if the file would be as large as all of the volume.
        put32(&mut image, slot + 28, u32::MAX);
        assert_eq!(code(&image), "fat.corrupt");
    }
}

#[test]
fn a_directory_whose_chain_comes_back_ends() {
    let mut image = fat32();
    let dir = first_of(&image, b"DIR");
    link32(&mut image, dir, dir);
    assert!(["fat.limit", "fat.corrupt"].contains(&code(&image)));
    let mut root = fat32();
    link32(&mut root, 2, 2);
    assert!(["fat.limit", "fat.corrupt"].contains(&code(&root)));
}

#[test]
fn a_directory_that_holds_itself_ends() {
    let mut image = fat32();
    let (dir, slot) = (first_of(&image, b"DIR"), slot_of(&image, b"FILE"));
    image[slot + 11] = dir::ATTR_DIRECTORY;
    put16(&mut image, slot + 26, u16::try_from(dir).unwrap());
    let fs = Fat::open(disk(image.clone())).unwrap();
    let entry = fs.lookup(fs.lookup(ROOT, b"FILE").unwrap().unwrap(), b"a long name in a directory").unwrap();
    assert_eq!(entry, fs.lookup(fs.lookup(ROOT, b"DIR").unwrap().unwrap(), b"a long name in a directory").unwrap());
    survive(&image).unwrap_err();
}

#[test]
fn chains_that_lead_nowhere_are_refused() {
    for (name, value) in [("free", 0), ("reserved", 1), ("bad", 0x0fff_fff7), ("outside", 0x0fff_0000)] {
        let mut image = fat32();
        let first = first_of(&image, b"FILE");
        link32(&mut image, first, value);
        assert_eq!(code(&image), "fat.corrupt", "{name}");
    }
    let mut short = fat32();
    let first = first_of(&short, b"FILE");
    link32(&mut short, first, u32::MAX);
    assert_eq!(code(&short), "fat.corrupt");
    let mut none = fat32();
    let slot = slot_of(&none, b"FILE");
    put16(&mut none, slot + 26, 0);
    assert_eq!(code(&none), "fat.corrupt");
}

#[test]
fn a_root_directory_outside_of_the_file_system_is_refused() {
    for cluster in [1, 0x0fff_fff0, u32::MAX] {
        let mut image = fat32();
        put32(&mut image, 44, cluster);
        put32(&mut image, 6 * 512 + 44, cluster);
        assert!(["fat.corrupt", "fat.space"].contains(&code(&image)), "{cluster}: {}", code(&image));
    }
}

#[test]
fn names_that_lead_out_of_their_directory_are_not_shown() {
    let image = fat32();
    let slot = slot_of(&image, b"FILE");
    for name in [&b"A/B        "[..], b"           ", b"A\0C        "] {
        let mut image = image.clone();
        put(&mut image, slot, name);
        let fs = Fat::open(disk(image)).unwrap();
        let mut names = Vec::new();
        fs.read_dir(ROOT, 0, &mut |entry| {
            names.push(entry.name);
            ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!(names, [b"DIR"]);
    }
}

#[test]
fn a_backup_boot_sector_is_enough_to_read() {
    let mut image = fat32();
    image[..512].fill(0);
    let fs = Fat::open_mut(disk(image.clone())).unwrap();
    assert!(fs.facts().dirty && fs.lookup(ROOT, b"file").unwrap().is_some());
    assert_eq!(fs.writer().unwrap_err().code(), "fat.read-only");
    assert!(fs.free_ranges(&mut |range| panic!("{range:?}")).is_ok());
    image[6 * 512..7 * 512].fill(0);
    assert!(Fat::open(disk(image)).is_err());
}

#[test]
fn what_was_in_use_is_dirty_and_nothing_of_it_is_free() {
    let mut by_kernel = fat32();
    by_kernel[65] |= 1;
    let mut by_windows = fat32();
    link32(&mut by_windows, 1, 0x07ff_ffff);
    for image in [by_kernel, by_windows] {
        let disk = disk(image);
        let fs = Fat::open_mut(disk.clone()).unwrap();
        assert!(fs.facts().dirty);
        fs.free_ranges(&mut |range| panic!("{range:?}")).unwrap();
        // It can be changed, and stays as dirty as it was.
        fs.writer().unwrap().create(ROOT, b"x", &Attributes::default(), b"y").unwrap();
        assert!(Fat::open(disk).unwrap().facts().dirty);
    }
    let mut differing = fat32();
    let at = (usize::from(le16(&differing, 14)) + size(u64::from(le32(&differing, 36)))) * 512 + 4 * 1000;
    put32(&mut differing, at, 0x0fff_ffff);
    Fat::open(disk(differing)).unwrap().free_ranges(&mut |range| panic!("{range:?}")).unwrap();
}

#[test]
fn only_the_active_table_counts_when_there_is_one() {
    let mut image = fat32();
    put16(&mut image, 40, 0x81);
    let first = usize::from(le16(&image, 14)) * 512;
    let len = size(u64::from(le32(&image, 36))) * 512;
    image[first..first + len].fill(0xff);
    survive(&image).unwrap();
}

#[test]
fn what_fat_cannot_keep_is_refused() {
    let fs = Fat::open_mut(disk(fat12())).unwrap();
    let writer = fs.writer().unwrap();
    let none = Attributes::default();
    let file = fs.lookup(ROOT, b"FILE").unwrap().unwrap();
    let labelled = Attributes { xattrs: vec![(b"user.x".to_vec(), Vec::new())], ..none.clone() };
    assert_eq!(writer.symlink(ROOT, b"link", b"file", &none).unwrap_err().code(), "fat.feature");
    assert_eq!(writer.set_xattr(file, b"user.x", b"").unwrap_err().code(), "fat.feature");
    assert_eq!(writer.create(ROOT, b"y", &labelled, b"").unwrap_err().code(), "fat.feature");
    for name in [&b"a:b"[..], b"..", b".", b"", b"a.", b"a ", b"a/b", b"\xff"] {
        assert_eq!(writer.create(ROOT, name, &none, b"").unwrap_err().code(), "fat.name", "{name:?}");
    }
    for name in [&b"FILE"[..], b"file", b"File."] {
        let error = writer.create(ROOT, name, &none, b"").unwrap_err();
        assert!(["fat.exists", "fat.name"].contains(&error.code()));
    }
    let dir = fs.lookup(ROOT, b"dir").unwrap().unwrap();
    assert_eq!(writer.create(dir, b"ALONGN~1", &none, b"").unwrap_err().code(), "fat.exists");
    assert_eq!(writer.remove(ROOT, b"dir").unwrap_err().code(), "fat.name");
    assert_eq!(writer.remove(ROOT, b"no").unwrap_err().code(), "fat.not-found");
    assert_eq!(writer.create(ROOT, b"big", &none, &vec![0; 2 << 20]).unwrap_err().code(), "fat.space");
    assert_eq!(fs.lookup(ROOT, b"big").unwrap(), None);
    writer.remove(ROOT, b"file").unwrap();
    assert_eq!(writer.append(file, b"x").unwrap_err().code(), "fat.not-found");
}

#[test]
fn a_root_directory_with_a_place_of_its_own_can_be_full() {
    let image = make(16_000, &["-F", "16", "-r", "16"]);
    let most = le16(&image, 17);
    let fs = Fat::open_mut(disk(image)).unwrap();
    let none = Attributes::default();
    for index in 0..most {
        fs.create(ROOT, format!("{index}").as_bytes(), &none, b"").unwrap();
    }
    assert_eq!(fs.create(ROOT, b"X", &none, b"").unwrap_err().code(), "fat.space");
    fs.remove(ROOT, b"7").unwrap();
    fs.create(ROOT, b"X", &none, b"").unwrap();
}

#[test]
fn directories_have_a_bound() {
    let fs = Fat::open_mut(disk(make(40_000, &["-F", "32", "-s", "8"]))).unwrap();
    let dir = fs.create_dir(ROOT, b"DIR", &Attributes::default()).unwrap();
    let mut view = View::new(&fs.pages, &fs.boot, Room::default());
    let most = view.clusters_of(limits::MAX_FAT_DIR);
    let chain = view.chain(view.node(dir).unwrap().slot.first_cluster(Width::Fat32), u32::MAX).unwrap();
    for (more, fits) in [(most - 1, true), (most, true), (most + 1, false)] {
        let mut chain = chain.clone();
        view.extend(&mut chain, more).unwrap();
        assert_eq!(view.dir(dir).map_err(|error| error.code()).map(drop), if fits { Ok(()) } else { Err("fat.limit") });
        view.cut(&mut chain, 1).unwrap();
    }
}

#[test]
fn content_is_written_in_pieces_of_the_limit() {
    let fs = Fat::open_mut(disk(make(40_000, &["-F", "32", "-s", "8"]))).unwrap();
    let most = size(limits::FS_WRITE);
    let mut chain = Chain::default();
    (2..2002).for_each(|cluster| chain.push(cluster, LIMIT).unwrap());
    for (len, lens) in [
        (most - 4096, vec![most - 4096]),
        (most, vec![most]),
        (most + 4096, vec![most, 4096]),
        (2 * most + 1, vec![most, most, 4096]),
    ] {
        let mut view = View::new(&fs.pages, &fs.boot, Room::default());
        view.put_content(&chain, 0, &vec![1; len]);
        assert_eq!(view.content_lens(), lens, "{len}");
    }
}

#[test]
fn pieces_of_a_file_have_a_bound() {
    let mut chain = Chain::default();
    for index in 0..u32::try_from(limits::MAX_FAT_RUNS).unwrap() {
        chain.push(2 + index * 2, LIMIT).unwrap();
    }
    assert_eq!(chain.push(1, LIMIT).unwrap_err().code(), "fat.limit");
    let last = chain.len() - 1;
    chain.push(2 + last * 2 + 1, LIMIT).unwrap();
}

#[test]
fn times_are_set_and_read() {
    let fs = Fat::open_mut(disk(fat12())).unwrap();
    let file = fs.lookup(ROOT, b"FILE").unwrap().unwrap();
    let time = Timestamp { seconds: 1_700_000_001, nanoseconds: 5 };
    fs.set_times(file, time, time).unwrap();
    let stat = fs.stat(file).unwrap();
    assert_eq!((stat.mtime.seconds, stat.atime.seconds), (1_700_000_000, 1_700_000_000 / 86_400 * 86_400));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn any_damage_is_survived(which in any::<bool>(), damage in proptest::collection::vec((0_usize..40_000, any::<u8>()), 1..30)) {
        let mut image = if which { fat12() } else { fat32() };
        for (at, byte) in damage {
            image[at] = byte;
        }
        let _ = survive(&image);
    }
}
