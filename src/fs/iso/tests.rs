//! What no image may do to the driver, on small images that genisoimage makes and the tests damage.
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
use crate::disk::bytes::{be32, is_at, le32, put, put32};
use crate::disk::{Checked, Memory};
use crate::fs::everything;

/// An image of a tree with a long link, a large directory, and a path that is too deep for the format.
#[allow(clippy::disallowed_methods, reason = "genisoimage is the second implementation")]
fn make(options: &[&str]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    std::fs::create_dir_all(root.join("1/2/3/4/5/6/7/8/9")).unwrap();
    std::fs::write(root.join("1/2/3/4/5/6/7/8/9/deep"), "deep").unwrap();
    std::fs::write(root.join("file"), vec![7; 5000]).unwrap();
    std::fs::write(root.join("file-b"), vec![8; 2048]).unwrap();
    std::fs::create_dir(root.join("large")).unwrap();
    for index in 0..60 {
        std::fs::write(root.join(format!("large/{index} {}", "n".repeat(90))), "x").unwrap();
    }
    std::os::unix::fs::symlink("../".repeat(80) + "/absolute/./x", root.join("link")).unwrap();
    let image = folder.path().join("image");
    let arguments = [Path::new("-quiet"), Path::new("-o"), &image].into_iter().chain(options.iter().map(Path::new));
    let made = std::process::Command::new("genisoimage").args(arguments.chain([root.as_path()])).output();
    let made = made.expect("genisoimage is needed: apt-get install genisoimage");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    std::fs::read(image).unwrap()
}

fn rock() -> Vec<u8> {
    static IMAGE: OnceLock<Vec<u8>> = OnceLock::new();
    IMAGE.get_or_init(|| make(&["-R", "-V", "LABEL"])).clone()
}

fn joliet() -> Vec<u8> {
    static IMAGE: OnceLock<Vec<u8>> = OnceLock::new();
    IMAGE.get_or_init(|| make(&["-J", "-joliet-long", "-D", "-V", "LABEL"])).clone()
}

fn open(bytes: &[u8]) -> Result<Iso> {
    Iso::open(Checked::wrap(Memory::new(bytes.to_vec())))
}

/// Reads everything. The first error.
fn survive(bytes: &[u8]) -> Result<()> {
    everything::read(&open(bytes)?, 300, b"no such name")
}

fn code(bytes: &[u8]) -> &'static str {
    survive(bytes).map_or_else(|error| error.code(), |()| "none")
}

fn find(fs: &Iso, path: &str) -> Inode {
    path.split('/').fold(fs.root(), |dir, name| fs.lookup(dir, name.as_bytes()).unwrap().expect(path))
}

fn record_of(bytes: &[u8], path: &str) -> usize {
    size(find(&open(bytes).unwrap(), path).0)
}

/// Where an entry of a system use area begins.
fn entry_of(bytes: &[u8], path: &str, signature: &[u8]) -> usize {
    let at = record_of(bytes, path);
    (at..at + 250).find(|at| is_at(bytes, *at, signature)).unwrap()
}

#[test]
fn sound_images_are_sound() {
    for image in [rock(), joliet(), make(&["-D"]), make(&["-R", "-J", "-joliet-long"])] {
        survive(&image).unwrap();
    }
}

#[test]
fn facts_are_those_of_the_descriptors() {
    let fs = open(&rock()).unwrap();
    assert_eq!((fs.facts().kind, fs.facts().label.as_deref()), ("iso9660", Some("LABEL")));
    assert_eq!(fs.facts().features, ["RockRidge"]);
    assert_eq!(fs.facts().uuid.as_ref().unwrap().len(), 22);
    assert_eq!(fs.writer().unwrap_err().code(), "iso.read-only");
    assert_eq!(open(&joliet()).unwrap().facts().features, ["Joliet"]);
}

#[test]
fn links_and_moved_directories_are_where_they_belong() {
    let fs = open(&rock()).unwrap();
    let target = fs.read_link(find(&fs, "link")).unwrap();
    assert_eq!(target, ("../".repeat(80) + "/absolute/./x").as_bytes());
    let deep = find(&fs, "1/2/3/4/5/6/7/8/9/deep");
    let mut buf = [0; 9];
    assert_eq!(fs.read_at(deep, &mut buf, 0).unwrap(), 4);
    assert_eq!(&buf[..4], b"deep");
    assert_eq!(fs.lookup(fs.root(), b"FILE").unwrap(), None);
    let fs = open(&joliet()).unwrap();
    assert_eq!(fs.lookup(fs.root(), b"FILE").unwrap(), Some(find(&fs, "file")));
}

#[test]
fn a_file_may_lie_in_several_pieces() {
    let mut image = make(&["-iso-level", "3", "-D"]);
    let (a, b) = (record_of(&image, "file"), record_of(&image, "file_b"));
    let len = usize::from(image[a]);
    assert_eq!(a + len, b, "the records are neighbours");
    // The first piece fills its blocks; both get one name.
    image[a + 25] = FLAG_CONTINUES;
    put32(&mut image, a + 10, 4096);
    let name = image[a + 32..a + 33 + usize::from(image[a + 32])].to_vec();
    assert!(name.len() <= usize::from(image[b + 32]) + 1);
    put(&mut image, b + 32, &name);
    let fs = open(&image).unwrap();
    let inode = find(&fs, "file");
    assert_eq!(fs.stat(inode).unwrap().size, 4096 + 2048);
    let mut buf = vec![0; 3000];
    assert_eq!(fs.read_at(inode, &mut buf, 4000).unwrap(), 2144);
    assert!(buf[..96].iter().all(|byte| *byte == 7) && buf[96..2144].iter().all(|byte| *byte == 8));
    let mut names = Vec::new();
    fs.read_dir(fs.root(), 0, &mut |entry| {
        names.push(entry.name);
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(names.iter().filter(|name| name.starts_with(b"file")).count(), 1);
    image[b + 25] = FLAG_CONTINUES;
    assert_eq!(open(&image).unwrap().stat(inode).unwrap_err().code(), "iso.corrupt");
}

const FLAG_CONTINUES: u8 = 0x80;

#[test]
fn descriptors_that_cannot_be_are_refused() {
    let image = rock();
    let mut blocks = image.clone();
    put(&mut blocks, 0x8000 + 128, &[1, 3]);
    assert_eq!(code(&blocks), "iso.geometry");
    let mut none = image.clone();
    none[0x8000] = 255;
    assert_eq!(code(&none), "iso.corrupt");
    let mut endless = image.clone();
    (0x8000..0x8000 + 2048 * 64).step_by(2048).for_each(|at| put(&mut endless, at, b"\x03CD001\x01"));
    assert_eq!(code(&endless), "iso.corrupt");
    let mut root = image.clone();
    root[0x8000 + 156 + 25] = 0;
    assert_eq!(code(&root), "iso.corrupt");
    let mut outside = image;
    put32(&mut outside, 0x8000 + 156 + 2, 0x7fff_ffff);
    assert_eq!(code(&outside), "iso.corrupt");
}

#[test]
fn any_truncation_is_an_error() {
    let image = rock();
    for len in (0..2048).map(|at| 0x8000 - 1024 + at).chain([0, 0x9000, 0xa000]) {
        assert!(survive(&image[..len]).is_err(), "{len}");
    }
}

#[test]
fn records_that_cannot_be_are_refused() {
    let image = rock();
    let at = record_of(&image, "file");
    for (name, field, value) in
        [("too short", 0, 33), ("too long", 0, 255), ("a name out of it", 32, 250), ("no name", 32, 0)]
    {
        let mut image = image.clone();
        image[at + field] = value;
        assert_eq!(code(&image), "iso.corrupt", "{name}");
    }
    let mut interleaved = image.clone();
    interleaved[at + 26] = 1;
    assert_eq!(code(&interleaved), "iso.feature");
    let mut large = image;
    put32(&mut large, at + 10, u32::MAX);
    assert_eq!(code(&large), "iso.corrupt");
}

#[test]
fn a_directory_has_a_bound() {
    let image = rock();
    let root = size(u64::from(le32(&image, 0x8000 + 156 + 2))) * 2048;
    assert_eq!(be32(&image, root + 6), le32(&image, root + 2));
    let most = u32::try_from(limits::MAX_ISO_DIR).unwrap();
    for (len, expected) in [(most - 2048, "iso.corrupt"), (most, "iso.corrupt"), (most + 1, "iso.limit")] {
        let mut image = image.clone();
        put32(&mut image, 0x8000 + 156 + 10, len);
        assert_eq!(code(&image), expected, "{len}");
    }
}

#[test]
fn a_directory_that_holds_itself_ends() {
    let mut image = rock();
    let (large, root) = (record_of(&image, "large"), le32(&image, 0x8000 + 156 + 2));
    put32(&mut image, large + 2, root);
    let _ = survive(&image);
    let fs = open(&image).unwrap();
    assert_eq!(find(&fs, "large/large/large/file"), find(&fs, "file"));
}

#[test]
fn continuations_that_never_end_are_refused() {
    let image = rock();
    let entry = entry_of(&image, "link", b"CE");
    let block = size(u64::from(le32(&image, entry + 4))) * 2048 + size(u64::from(le32(&image, entry + 12)));
    // The continuation names itself.
    let mut cycle = image.clone();
    let own = image[entry..entry + 28].to_vec();
    put(&mut cycle, block, &own);
    put32(&mut cycle, entry + 20, 28);
    put32(&mut cycle, block + 20, 28);
    assert_eq!(code(&cycle), "iso.limit");
    let mut outside = image;
    put32(&mut outside, entry + 20, 2049);
    assert_eq!(code(&outside), "iso.corrupt");
}

#[test]
fn entries_of_the_system_use_area_that_cannot_be_are_refused() {
    let image = rock();
    let mut link = image.clone();
    let entry = entry_of(&image, "link", b"SL");
    link[entry + 6] = 255;
    assert_eq!(code(&link), "iso.corrupt");
    let mut part = image.clone();
    part[entry + 5] = 0x20;
    assert_ne!(code(&part), "panic");
    let mut kind = image.clone();
    let mode = entry_of(&image, "file", b"PX");
    put32(&mut kind, mode + 4, 0o040_755);
    assert_eq!(code(&kind), "iso.corrupt");
    let mut name = image;
    let at = entry_of(&name, "file", b"NM");
    name[at + 5] = b'/';
    assert_eq!(code(&name), "iso.corrupt");
}

#[test]
fn a_moved_directory_that_is_none_is_refused() {
    let image = rock();
    let entry = (0..image.len() - 4).find(|at| is_at(&image, *at, b"CL\x0c\x01")).unwrap();
    for block in [0, 16, u32::MAX] {
        let mut image = image.clone();
        put32(&mut image, entry + 4, block);
        put(&mut image, entry + 8, &block.to_be_bytes());
        assert_eq!(code(&image), "iso.corrupt", "{block}");
    }
    // One that belongs into itself is found once, and walks end.
    let mut cycle = image.clone();
    put32(&mut cycle, entry + 4, le32(&image, 0x8000 + 156 + 2));
    let _ = survive(&cycle);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn any_damage_is_survived(which in any::<bool>(), damage in proptest::collection::vec((0x8000_usize..0x18000, any::<u8>()), 1..30)) {
        let mut image = if which { rock() } else { joliet() };
        for (at, byte) in damage {
            image[at] = byte;
        }
        let _ = survive(&image);
    }
}

#[test]
fn a_record_has_as_many_continuations_as_the_limit() {
    let image = rock();
    let entry = entry_of(&image, "link", b"CE");
    let inode = find(&open(&image).unwrap(), "link");
    let block = image.len() / 2048;
    let goes_on = |offset: usize| {
        let mut entry = b"CE\x1c\x01".to_vec();
        for number in [block, offset, 28] {
            let number = u32::try_from(number).unwrap();
            entry.extend(number.to_le_bytes());
            entry.extend(number.to_be_bytes());
        }
        entry
    };
    let code = |count: usize| {
        let mut image = image.clone();
        put(&mut image, entry, &goes_on(0));
        let chain: Vec<u8> = (1..count).flat_map(|number| goes_on(number * 28)).collect();
        image.extend(chain);
        image.resize((block + 1) * 2048, 0);
        open(&image).unwrap().stat(inode).map_or_else(|error| error.code(), |_| "ok")
    };
    let most = limits::MAX_ISO_CONTINUATIONS;
    assert!(most * 28 + 28 < 2048);
    assert_ne!((code(most - 1), code(most)), ("iso.limit", "iso.limit"));
    assert_ne!(code(most), "iso.limit");
    assert_eq!(code(most + 1), "iso.limit");
}

#[test]
fn a_file_has_as_many_pieces_as_the_limit() {
    let image = make(&["-iso-level", "3", "-D"]);
    let at = record_of(&image, "file");
    let len = usize::from(image[at]);
    let start = image.len();
    let most = limits::MAX_ISO_EXTENTS;
    for (count, fits) in [(most - 1, true), (most, true), (most + 1, false)] {
        let mut image = image.clone();
        for number in 0..count {
            // A record does not cross the end of a sector.
            if image.len() % 2048 + len > 2048 {
                image.resize(image.len().next_multiple_of(2048), 0);
            }
            let mut record = image[at..at + len].to_vec();
            record[25] = if number + 1 < count { FLAG_CONTINUES } else { 0 };
            image.extend(record);
        }
        image.resize(image.len().next_multiple_of(2048) + 2048, 0);
        let fs = open(&image).unwrap();
        let found = fs.extents(&fs.record(start as u64).unwrap()).map(|pieces| pieces.len());
        assert_eq!(found.map_err(|error| error.code()), if fits { Ok(count) } else { Err("iso.limit") }, "{count}");
    }
}
