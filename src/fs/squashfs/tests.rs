//! What no image may do to the driver, on small images that mksquashfs makes and the tests damage.
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
use crate::disk::bytes::{le32, le64, put, put32, size};
use crate::disk::{Checked, Memory};
use crate::fs::everything;
use crate::limits;
use crate::testing::noise;

/// An image of a tree with a large directory, a file of several blocks and a hole, an end in a fragment, a link and an attribute.
#[allow(clippy::disallowed_methods, reason = "mksquashfs is the second implementation")]
fn make(options: &[&str]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    std::fs::create_dir_all(root.join("large")).unwrap();
    std::fs::write(root.join("file"), [noise(1, 9000), vec![0; 8192], noise(2, 100)].concat()).unwrap();
    std::fs::write(root.join("small"), "small").unwrap();
    std::os::unix::fs::symlink("target", root.join("link")).unwrap();
    for index in 0..600 {
        std::fs::write(root.join(format!("large/{index}-{}", "n".repeat(30))), "x").unwrap();
    }
    // Attributes make their inodes extended ones.
    for name in ["file", "small"] {
        rustix::fs::setxattr(root.join(name), "user.name", b"value", rustix::fs::XattrFlags::empty()).unwrap();
    }
    let image = folder.path().join("image");
    let always = ["-quiet", "-no-progress", "-b", "4096", "-processors", "1"];
    let arguments = [root.as_path(), &image].into_iter().chain(always.iter().chain(options).map(Path::new));
    let made = std::process::Command::new("mksquashfs").args(arguments).output();
    let made = made.expect("mksquashfs is needed: apt-get install squashfs-tools");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    std::fs::read(image).unwrap()
}

fn packed() -> Vec<u8> {
    static IMAGE: OnceLock<Vec<u8>> = OnceLock::new();
    IMAGE.get_or_init(|| make(&[])).clone()
}

/// One in which nothing is compressed.
fn plain() -> Vec<u8> {
    static IMAGE: OnceLock<Vec<u8>> = OnceLock::new();
    IMAGE.get_or_init(|| make(&["-noI", "-noId", "-noD", "-noF", "-noX"])).clone()
}

fn open(bytes: &[u8]) -> Result<Squashfs> {
    Squashfs::open(Checked::wrap(Memory::new(bytes.to_vec())))
}

/// Reads everything. The first error.
fn survive(bytes: &[u8]) -> Result<()> {
    everything::read(&open(bytes)?, 700, b"zz")
}

fn code(bytes: &[u8]) -> &'static str {
    survive(bytes).map_or_else(|error| error.code(), |()| "none")
}

fn find(bytes: &[u8], name: &str) -> Inode {
    let fs = open(bytes).unwrap();
    fs.lookup(fs.root(), name.as_bytes()).unwrap().expect(name)
}

/// Where an inode lies in an image whose metadata are plain.
fn place(bytes: &[u8], name: &str) -> usize {
    let inode = find(bytes, name).0;
    size(le64(bytes, 64) + (inode >> 16) + 2 + (inode & 0xffff))
}

#[test]
fn sound_images_are_sound() {
    for options in [
        &["-comp", "gzip"][..],
        &["-comp", "lzma"],
        &["-comp", "lzo"],
        &["-comp", "lz4", "-Xhc"],
        &["-comp", "xz", "-Xbcj", "x86"],
        &["-comp", "zstd", "-Xcompression-level", "19"],
        &["-no-fragments", "-no-xattrs", "-no-exports"],
        &["-always-use-fragments", "-noI", "-noF"],
    ] {
        let image = make(options);
        survive(&image).unwrap_or_else(|error| panic!("{options:?}: {error}"));
        let fs = open(&image).unwrap();
        let mut content = vec![0; 20_000];
        let file = find(&image, "file");
        assert_eq!(fs.read_at(file, &mut content, 0).unwrap(), 17_292, "{options:?}");
        assert!(content[..9000] == noise(1, 9000) && content[9000..17_192].iter().all(|byte| *byte == 0));
        assert_eq!(content[17_192..17_292], noise(2, 100));
        assert_eq!(fs.read_at(file, &mut content, 17_292).unwrap(), 0);
    }
}

#[test]
fn facts_are_those_of_the_superblock() {
    let image = packed();
    let fs = open(&image).unwrap();
    let facts = fs.facts();
    assert_eq!((facts.kind, facts.block_size, facts.dirty), ("squashfs", 4096, false));
    assert_eq!(facts.features, ["gzip"]);
    assert_eq!(facts.size, le64(&image, 40));
    assert_eq!(fs.xattrs(find(&image, "small")).unwrap(), [(b"user.name".to_vec(), b"value".to_vec())]);
    assert_eq!(fs.read_link(find(&image, "link")).unwrap(), b"target");
    assert_eq!(fs.writer().unwrap_err().code(), "squashfs.read-only");
}

#[test]
fn a_listing_goes_on_at_every_cursor_and_finds_every_name() {
    let image = packed();
    let fs = open(&image).unwrap();
    let dir = find(&image, "large");
    let mut all = Vec::new();
    fs.read_dir(dir, 0, &mut |entry| {
        all.push(entry);
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(all.len(), 600);
    for (number, entry) in all.iter().enumerate() {
        assert_eq!(fs.lookup(dir, &entry.name).unwrap(), Some(entry.inode));
        let mut next = None;
        fs.read_dir(dir, entry.cursor, &mut |entry| {
            next = Some(entry);
            ControlFlow::Break(())
        })
        .unwrap();
        assert_eq!(next.as_ref(), all.get(number + 1));
    }
    for name in [&b"0"[..], b"3-nnnn", b"zz", b""] {
        assert_eq!(fs.lookup(dir, name).unwrap(), None);
    }
    assert!(all.iter().any(|entry| entry.cursor >> 9 > 8192), "more than a block");
}

#[test]
fn a_superblock_that_lies() {
    let image = plain();
    for (what, at, value, expected) in [
        ("magic", 0, 0, "squashfs.corrupt"),
        ("version 3.0", 28, 3, "squashfs.feature"),
        ("compression 0", 20, 12 << 16, "squashfs.feature"),
        ("compression 9", 20, 12 << 16 | 9, "squashfs.feature"),
        ("block of 0", 12, 0, "squashfs.geometry"),
        ("block of 4095", 12, 4095, "squashfs.geometry"),
        ("block of 2 MiB", 12, 2 << 20, "squashfs.geometry"),
        ("block_log of another size", 12, 8192, "squashfs.geometry"),
        ("more bytes than there are", 44, 1, "squashfs.geometry"),
        ("hardly any bytes", 40, 95, "squashfs.geometry"),
        ("inodes behind directories", 64, u32::try_from(le64(&image, 72) + 1).unwrap(), "squashfs.geometry"),
        ("inodes in front", 64, 95, "squashfs.geometry"),
        ("owners beyond", 52, 1, "squashfs.geometry"),
        ("fragments beyond", 84, 1, "squashfs.geometry"),
        ("root beyond", 36, 0xffff, "squashfs.corrupt"),
        ("root past its block", 32, le32(&image, 32) | 0xffff, "squashfs.corrupt"),
    ] {
        let mut bytes = image.clone();
        put32(&mut bytes, at, value);
        assert_eq!(code(&bytes), expected, "{what}");
    }
    for len in [0, 95, 96, image.len() / 2] {
        assert_eq!(code(&image[..len]), "squashfs.geometry", "{len}");
    }
}

#[test]
fn inodes_that_lie() {
    let image = plain();
    let (file, link, small, large) =
        (place(&image, "file"), place(&image, "link"), place(&image, "small"), place(&image, "large"));
    let wide = (1_u32 << 24) | 4097;
    for (what, at, value, expected) in [
        ("no such type", file, 0x1ed_000f, "squashfs.corrupt"),
        ("type 0", file, 0x1ed_0000, "squashfs.corrupt"),
        ("no such owner", file + 4, 77, "squashfs.corrupt"),
        ("a file of 16 EiB", file + 28, u32::MAX, "squashfs.limit"),
        ("a block far away", file + 20, u32::MAX, "squashfs.corrupt"),
        ("a block larger than blocks are", file + 56, wide, "squashfs.corrupt"),
        ("a block that is not compressed and said to be", file + 56, 4096, "squashfs.corrupt"),
        ("a block that is too short", file + 56, 1 << 24 | 10, "squashfs.corrupt"),
        ("a link's target of 4 GiB", link + 20, u32::MAX, "squashfs.limit"),
        ("a link's target that is empty", link + 20, 0, "none"),
        ("a fragment that is not there", small + 44, 900, "squashfs.corrupt"),
        ("an end past its fragment", small + 48, 1 << 30, "squashfs.corrupt"),
        ("an attribute that is not there", small + 52, 99, "squashfs.corrupt"),
        ("a directory of 4 GiB", large + 20, u32::MAX, "squashfs.limit"),
        ("a directory that is cut short", large + 20, 30, "squashfs.corrupt"),
        ("a listing far away", large + 24, u32::MAX, "squashfs.corrupt"),
        ("an index of 65535 entries", large + 32, 0xffff, "squashfs.corrupt"),
    ] {
        let mut bytes = image.clone();
        put32(&mut bytes, at, value);
        assert_eq!(code(&bytes), expected, "{what}");
    }
}

#[test]
fn listings_that_lie() {
    let image = plain();
    let start = size(le64(&image, 72)) + 2;
    let first = |name: &[u8]| (start..image.len()).find(|at| image[*at..].starts_with(name)).unwrap();
    let file = first(b"file");
    for (what, at, value, expected) in [
        ("a run of 257 entries", start, &256_u32.to_le_bytes()[..], "squashfs.corrupt"),
        ("a run longer than the listing", start, &255_u32.to_le_bytes(), "squashfs.corrupt"),
        ("an entry of no known type", start + 12 + 4, &99_u16.to_le_bytes(), "squashfs.corrupt"),
        ("a name of 64 KiB", start + 12 + 6, &u16::MAX.to_le_bytes(), "squashfs.corrupt"),
        ("inodes elsewhere", start + 4, &u32::MAX.to_le_bytes(), "squashfs.corrupt"),
    ] {
        let mut bytes = image.clone();
        put(&mut bytes, at, value);
        assert_eq!(code(&bytes), expected, "{what}");
    }
    for (what, name) in [("a slash", &b"fi/e"[..]), ("two dots", b"..\0\0"), ("NUL", b"fil\0")] {
        let mut bytes = image.clone();
        put(&mut bytes, file, name);
        assert_eq!(code(&bytes), "squashfs.corrupt", "{what}");
    }
}

#[test]
fn metadata_blocks_that_lie() {
    let (image, squeezed) = (plain(), packed());
    let inodes = size(le64(&image, 64));
    for (what, header) in [("empty", 0_u16), ("plain and empty", 0x8000), ("larger than blocks are", 0xa001)] {
        let mut bytes = image.clone();
        put(&mut bytes, inodes, &header.to_le_bytes());
        assert_eq!(code(&bytes), "squashfs.corrupt", "{what}");
    }
    let mut bytes = squeezed.clone();
    let at = size(le64(&bytes, 64)) + 2;
    bytes[at..at + 20].fill(0x55);
    assert_eq!(code(&bytes), "squashfs.corrupt");
    // A list of places that leads to itself.
    let mut bytes = image.clone();
    let table = size(le64(&bytes, 48));
    let own = le64(&bytes, 48);
    put(&mut bytes, table, &own.to_le_bytes());
    assert_ne!(code(&bytes), "none");
}

/// A bomb: a block that decodes to more than a block is damaged, whatever it is compressed with.
#[test]
fn a_block_decodes_to_no_more_than_a_block() {
    use std::io::Write;
    let content = vec![0; 1 << 20];
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::new(6));
    zlib.write_all(&content).unwrap();
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(&content).unwrap();
    for (number, input) in [
        (1, zlib.finish().unwrap()),
        (4, xz.finish().unwrap()),
        (5, lz4_flex::block::compress(&content)),
        (6, zstd::bulk::compress(&content, 3).unwrap()),
    ] {
        let codec = codec::Codec::of(number).unwrap();
        assert!(codec.decode(&input, 1 << 20).unwrap() == content, "{codec:?}");
        for max in [0, 8192, (1 << 20) - 1] {
            assert_eq!(codec.decode(&input, max).unwrap_err().code(), "squashfs.corrupt", "{codec:?}");
        }
        for bytes in [&[][..], &[255; 40]] {
            assert!(codec.decode(bytes, 8192).is_err(), "{codec:?} {bytes:?}");
        }
    }
}

#[test]
fn as_many_blocks_are_kept_as_the_limit() {
    let fs = open(&make(&["-no-fragments"])).unwrap();
    let dir = fs.lookup(fs.root(), b"large").unwrap().unwrap();
    let mut files = Vec::new();
    fs.read_dir(dir, 0, &mut |entry| {
        files.push(entry.inode);
        ControlFlow::Continue(())
    })
    .unwrap();
    // All of them hold the same and are stored once, so other blocks come from the file.
    let file = fs.lookup(fs.root(), b"file").unwrap().unwrap();
    for _ in 0..limits::SQUASHFS_DECODED {
        for file in files.iter().take(3).chain([&file]) {
            fs.read_at(*file, &mut vec![0; 20_000], 0).unwrap();
            assert!(fs.contents.kept() <= limits::SQUASHFS_DECODED);
        }
    }
    assert!(fs.contents.kept() > 1);
}

/// A list of blocks in metadata, for a file with so many blocks. Only the list is read, none of them is.
#[test]
fn a_file_has_as_many_blocks_as_the_limit() {
    let limit = limits::MAX_SQUASHFS_BLOCKS as u64;
    let mut image = plain();
    let file = place(&image, "file");
    for (blocks, expected) in
        [(limit - 1, "squashfs.corrupt"), (limit, "squashfs.corrupt"), (limit + 1, "squashfs.limit")]
    {
        put(&mut image, file + 24, &(blocks * 4096).to_le_bytes());
        assert_eq!(code(&image), expected, "{blocks}");
    }
}

#[test]
fn a_directory_is_as_long_as_the_limit() {
    let mut image = plain();
    let at = place(&image, "large") + 20;
    let limit = u32::try_from(limits::MAX_SQUASHFS_DIR).unwrap();
    for (len, expected) in [(limit - 1, "squashfs.corrupt"), (limit, "squashfs.corrupt"), (limit + 1, "squashfs.limit")]
    {
        put32(&mut image, at, len + 3);
        assert_eq!(code(&image), expected, "{len}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn damaged_images_end(is_plain: bool, patches in proptest::collection::vec((any::<u32>(), any::<u32>()), 1..12)) {
        let mut bytes = if is_plain { plain() } else { packed() };
        for (at, value) in patches {
            let at = at as usize % (bytes.len() - 4);
            put32(&mut bytes, at, value);
        }
        let _ = survive(&bytes);
    }
}
