//! What no image may do to the driver, on small images that mkntfs and ntfscp make and the tests damage.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::indexing_slicing,
    reason = "tests build their input"
)]

use std::path::Path;
use std::sync::OnceLock;

use proptest::prelude::*;

use super::*;
use crate::disk::bytes::{is_at, le16, le32, put, put16, put32};
use crate::disk::{Checked, Memory};
use crate::fs::everything;

#[allow(clippy::disallowed_methods, reason = "ntfs-3g is the second implementation")]
fn run(program: &str, arguments: &[&Path]) {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let output = std::process::Command::new(program).args(arguments).env("PATH", path).output();
    let output = output.unwrap_or_else(|error| panic!("{program} is needed: apt-get install ntfs-3g: {error}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A volume of 3 MiB with these files.
#[allow(clippy::disallowed_methods, reason = "reads what ntfs-3g made")]
fn make(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let (image, file) = (folder.path().join("image"), folder.path().join("file"));
    std::fs::File::create(&image).unwrap().set_len(3 << 20).unwrap();
    run("mkntfs", &["-q".as_ref(), "-F".as_ref(), "-f".as_ref(), "-L".as_ref(), "Größe".as_ref(), &image]);
    for (name, content) in files {
        std::fs::write(&file, content).unwrap();
        run("ntfscp", &["-q".as_ref(), "-f".as_ref(), &image, &file, name.as_ref()]);
    }
    std::fs::read(image).unwrap()
}

/// One with a file in its record and one in clusters.
fn image() -> Vec<u8> {
    static IMAGE: OnceLock<Vec<u8>> = OnceLock::new();
    IMAGE.get_or_init(|| make(&[("small", vec![1; 100]), ("file", vec![7; 30_000])])).clone()
}

fn open(bytes: &[u8]) -> Result<Ntfs> {
    Ntfs::open(Checked::wrap(Memory::new(bytes.to_vec())))
}

/// Reads everything. The first error.
fn survive(bytes: &[u8]) -> Result<()> {
    everything::read(&open(bytes)?, 300, b"no such name")
}

fn code(bytes: &[u8]) -> &'static str {
    survive(bytes).map_or_else(|error| error.code(), |()| "none")
}

/// Where the record `number` begins; those of a new volume lie together.
fn record_at(image: &[u8], number: u64) -> usize {
    size(open(image).unwrap().boot.mft + number * 1024)
}

fn record_of(image: &[u8], name: &str) -> usize {
    let fs = open(image).unwrap();
    record_at(image, fs.lookup(fs.root(), name.as_bytes()).unwrap().unwrap().0)
}

/// Where an attribute begins in a record.
fn attribute_in(image: &[u8], record: usize, kind: u32) -> usize {
    let mut at = record + usize::from(le16(image, record + 20));
    while le32(image, at) != kind {
        assert_ne!(le32(image, at), u32::MAX, "{kind:x}");
        at += size(u64::from(le32(image, at + 4)));
    }
    at
}

/// Changes a record, whose fixups are taken off before and put back after.
fn edited(record: usize, change: impl Fn(&mut [u8])) -> Vec<u8> {
    let mut image = image();
    change(&mut image[record..]);
    image
}

#[test]
fn a_sound_image_is_sound() {
    survive(&image()).unwrap();
    let fs = open(&image()).unwrap();
    let facts = fs.facts();
    assert_eq!((facts.kind, facts.label.as_deref(), facts.dirty), ("ntfs", Some("Größe"), false));
    assert_eq!(facts.uuid.as_ref().unwrap().len(), 16);
    assert!(fs.free().unwrap() > 0 && facts.features == ["version 3.1"]);
    assert_eq!(fs.writer().unwrap_err().code(), "ntfs.read-only");
    let found = fs.lookup(fs.root(), b"SMALL").unwrap().unwrap();
    assert_eq!(fs.lookup(fs.root(), b"$mft").unwrap(), Some(Inode(0)));
    assert_eq!(fs.stat(found).unwrap().size, 100);
}

#[test]
fn a_copy_of_the_boot_sector_is_enough() {
    let mut image = image();
    image[..512].fill(0);
    let fs = open(&image).unwrap();
    assert!(fs.facts().dirty && fs.lookup(fs.root(), b"file").unwrap().is_some());
    let last = image.len() - 512;
    image[last..].fill(0);
    assert_eq!(code(&image), "ntfs.corrupt");
}

#[test]
fn a_geometry_that_cannot_be_is_refused() {
    for (name, at, value) in [
        ("sectors of 3 bytes", 11, 3),
        ("no sectors in a cluster", 13, 0),
        ("three of them", 13, 3),
        ("a volume without an end", 46, 0x7f),
        ("file records of no clusters", 64, 0x0300),
        ("file records of 2^-128", 64, 0x80),
        ("a table at cluster 0", 48, 0),
    ] {
        let mut image = image();
        let last = image.len() - 512;
        image[last..].fill(0);
        if at == 48 {
            image[48..56].fill(0);
        } else {
            put(&mut image, at, &[u8::try_from(value & 0xff).unwrap()]);
        }
        assert!(["ntfs.geometry", "none"].contains(&code(&image)), "{name}: {}", code(&image));
        assert!(value == 0x0300 || code(&image) == "ntfs.geometry", "{name}");
    }
}

#[test]
fn any_truncation_is_an_error() {
    let image = image();
    for len in (0..1024).chain([4096, 100_000, image.len() - 1024]) {
        assert!(survive(&image[..len]).is_err(), "{len}");
    }
}

#[test]
fn the_mirror_stands_in_for_the_first_record() {
    let mut image = image();
    let record = record_at(&image, 0);
    image[record..record + 4].fill(0);
    survive(&image).unwrap();
}

#[test]
fn fixups_that_cannot_be_are_refused() {
    let record = record_of(&image(), "file");
    for (name, at, value) in [
        ("no magic", 0, 0),
        ("a table outside", 4, 1020),
        ("too few", 6, 2),
        ("too many", 6, 0xffff),
        ("an odd place", 4, 0x31),
    ] {
        let image = edited(record, |bytes| put16(bytes, at, value));
        assert_eq!(code(&image), "ntfs.corrupt", "{name}");
    }
    let torn = edited(record, |bytes| bytes[510] ^= 1);
    assert_eq!(code(&torn), "ntfs.corrupt");
}

#[test]
fn attributes_that_cannot_be_are_refused() {
    let (small, file) = (record_of(&image(), "small"), record_of(&image(), "file"));
    let resident = attribute_in(&image(), small, DATA) - small;
    let mapped = attribute_in(&image(), file, DATA) - file;
    for (name, record, at, value) in [
        ("attributes outside", small, 20, 2000),
        ("more than there is", small, 24, 5000),
        ("a length of 0", small, resident + 4, 0),
        ("a length past the end", small, resident + 4, 4000),
        ("a value past its end", small, resident + 16, 4000),
        ("a value far away", small, resident + 20, 0xfff0),
        ("a name far away", small, resident + 9, 0xff),
        ("runs far away", file, mapped + 32, 0xfff0),
        ("a piece that is missing", file, mapped + 16, 5),
        ("more bytes than clusters", file, mapped + 54, 1),
    ] {
        let image = edited(record, |bytes| put16(bytes, at, value));
        let code = code(&image);
        // What was never written is zeros, however long it is said to be.
        assert!(code == "ntfs.corrupt" || (at == mapped + 54 && code == "none"), "{name}: {code}");
    }
}

#[test]
fn runs_outside_of_the_volume_are_refused() {
    let image_now = image();
    let file = record_of(&image_now, "file");
    let data = attribute_in(&image_now, file, DATA);
    let pairs = data + usize::from(le16(&image_now, data + 32)) - file;
    for bytes in
        [&[0x81, 8, 0, 0, 0, 0, 0, 0, 0, 0x40][..], &[0x21, 8, 0xff, 0x7f, 0], &[0x11, 8, 0x80, 0], &[0x01, 0, 0]]
    {
        let image = edited(file, |record| put(record, pairs, bytes));
        assert_eq!(code(&image), "ntfs.corrupt", "{bytes:?}");
    }
}

#[test]
fn encrypted_files_are_refused_by_name() {
    for (flags, expected) in [(0x4000, "ntfs.feature"), (2, "ntfs.feature")] {
        let file = record_of(&image(), "file");
        let data = attribute_in(&image(), file, DATA) - file;
        assert_eq!(code(&edited(file, |record| put16(record, data + 12, flags))), expected);
    }
    // Compressed in units without an end.
    let file = record_of(&image(), "file");
    let data = attribute_in(&image(), file, DATA) - file;
    let endless = edited(file, |record| {
        put16(record, data + 12, 1);
        record[data + 34] = 60;
    });
    assert_eq!(code(&endless), "ntfs.feature");
}

#[test]
fn an_index_that_cannot_be_is_refused() {
    let root = record_at(&image(), ROOT);
    let index = attribute_in(&image(), root, record::INDEX_ROOT) - root;
    let value = index + usize::from(le16(&image(), root + index + 20));
    for (name, at, field) in [
        ("blocks of 3 bytes", 8, 3),
        ("blocks of 1 MiB", 8, 1 << 20),
        ("entries outside", 16, 0xffff),
        ("an end outside", 20, 0x1_0000),
    ] {
        let image = edited(root, |record| put32(record, value + at, field));
        assert_eq!(code(&image), "ntfs.corrupt", "{name}");
    }
    let blocks: Vec<usize> = (0..image().len()).step_by(4096).filter(|at| is_at(&image(), *at, b"INDX")).collect();
    for (name, at, field) in
        [("an entry of no length", 24 + 40 + 8, 0_u16), ("one that is too long", 24 + 40 + 8, 0xfff0)]
    {
        let mut image = image();
        blocks.iter().for_each(|block| put16(&mut image, block + at, field));
        let _ = (name, survive(&image));
    }
}

#[test]
fn a_list_of_attributes_that_names_itself_ends() {
    // The attribute of times becomes a list with an entry that leads to the same record, and to another file's.
    let small = record_of(&image(), "small");
    let at = attribute_in(&image(), small, STANDARD_INFORMATION) - small;
    for (target, expected) in [(None, "none"), (Some(ROOT), "ntfs.corrupt"), (Some(1 << 40), "ntfs.not-found")] {
        let own = open(&image()).unwrap().lookup(Inode(ROOT), b"small").unwrap().unwrap().0;
        let image = edited(small, |record| {
            put32(record, at, 0x20);
            let value = at + usize::from(le16(record, at + 20));
            let len = usize::from(le16(record, at + 16));
            record[value..value + len].fill(0);
            put16(record, value + 4, u16::try_from(len).unwrap());
            put(record, value + 16, &target.unwrap_or(own).to_le_bytes());
        });
        assert_eq!(code(&image), expected, "{target:?}");
    }
}

#[test]
fn what_was_not_left_in_order_is_dirty_and_nothing_of_it_is_free() {
    let volume = record_at(&image(), VOLUME_FILE);
    let information = attribute_in(&image(), volume, record::VOLUME_INFORMATION) - volume;
    let value = information + usize::from(le16(&image(), volume + information + 20));
    let dirty = edited(volume, |record| put16(record, value + 10, 1));
    let hibernated = make(&[("hiberfil.sys", b"HIBR and more".to_vec())]);
    for image in [dirty, hibernated] {
        let fs = open(&image).unwrap();
        assert!(fs.facts().dirty);
        fs.free_ranges(&mut |range| panic!("{range:?}")).unwrap();
    }
    assert!(!open(&make(&[("hiberfil.sys", b"WAKE and more".to_vec())])).unwrap().facts().dirty);
    let log = record_at(&image(), LOG_FILE);
    let emptied = edited(log, |record| {
        let data = attribute_in(record, 0, DATA);
        // A log that nobody ever wrote holds zeros.
        put(record, data + 56, &[0; 8]);
    });
    assert!(open(&emptied).unwrap().facts().dirty);
}

#[test]
fn bounds_hold() {
    let fs = open(&image()).unwrap();
    let mapped = |unit: u8| Mapped {
        runs: vec![runs::Run { vcn: 0, lcn: None, len: 64 }],
        unit,
        len: 65536,
        valid: 65536,
        flags: 1,
    };
    let units = limits::MAX_NTFS_UNIT / fs.boot.cluster.get();
    let most = u8::try_from(units.ilog2()).unwrap();
    for (unit, fits) in [(most - 1, true), (most, true), (most + 1, false)] {
        let read = fs.read_stream(&Stream::Mapped(mapped(unit)), &mut [0; 10], 0);
        assert_eq!(read.map_err(|error| error.code()), if fits { Ok(()) } else { Err("ntfs.feature") });
    }
}

/// The image with an attribute of a record as long as said.
fn stretched(record: usize, kind: u32, len: u64) -> Vec<u8> {
    let at = attribute_in(&image(), record, kind) - record;
    edited(record, |record| {
        // Allocated and real size.
        put(record, at + 40, &len.next_multiple_of(4096).to_le_bytes());
        put(record, at + 48, &len.to_le_bytes());
    })
}

#[test]
fn a_directory_has_a_largest_index() {
    let root = record_at(&image(), ROOT);
    let most = limits::MAX_NTFS_INDEX;
    for (len, fits) in [(most - 4096, true), (most, true), (most + 4096, false)] {
        let image = stretched(root, record::INDEX_ALLOCATION, len);
        let nodes = open(&image).and_then(|fs| Ok(fs.index(&fs.file(ROOT)?)?.nodes()));
        assert_eq!(nodes.map_err(|error| error.code()), if fits { Ok(len / 4096 + 1) } else { Err("ntfs.limit") });
    }
}

#[test]
fn a_list_of_attributes_has_a_largest_size() {
    let file = record_of(&image(), "file");
    let number = open(&image()).unwrap().lookup(Inode(ROOT), b"file").unwrap().unwrap().0;
    let most = limits::MAX_NTFS_ATTRIBUTE_LIST;
    // What was never written is zero, and that is no list.
    for (len, code) in [(most - 1, "ntfs.corrupt"), (most, "ntfs.corrupt"), (most + 1, "ntfs.limit")] {
        let mut image = stretched(file, DATA, len);
        let at = attribute_in(&image, file, DATA);
        put(&mut image, at + 56, &[0; 8]);
        put32(&mut image, at, 0x20);
        assert_eq!(open(&image).unwrap().file(number).unwrap_err().code(), code, "{len}");
    }
}

#[test]
#[allow(clippy::disallowed_methods, reason = "reads what ntfs-3g made")]
fn a_stream_that_is_shown_has_a_largest_size() {
    let folder = tempfile::tempdir().unwrap();
    let (path, content) = (folder.path().join("image"), folder.path().join("content"));
    for (more, shown) in [(0, true), (1, true), (2, false)] {
        let len = limits::MAX_NTFS_STREAM - 1 + more;
        std::fs::write(&path, image()).unwrap();
        std::fs::write(&content, vec![3; size(len)]).unwrap();
        let options = ["-q", "-f", "-N", "s"].map(Path::new);
        run("ntfscp", &[&options[..], &[&path, &content, "small".as_ref()]].concat());
        let fs = open(&std::fs::read(&path).unwrap()).unwrap();
        let found = fs.xattrs(fs.lookup(fs.root(), b"small").unwrap().unwrap()).unwrap();
        let lens: Vec<u64> = found.iter().map(|(_, value)| value.len() as u64).collect();
        assert_eq!(lens, if shown { vec![len] } else { Vec::new() });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(80))]
    #[test]
    fn any_damage_is_survived(damage in proptest::collection::vec((0_usize..0x20000, any::<u8>()), 1..30)) {
        let mut image = image();
        for (at, byte) in damage {
            image[at] = byte;
        }
        let _ = survive(&image);
    }
}
