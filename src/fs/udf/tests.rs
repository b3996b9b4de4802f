//! What no image may do to the driver, on a small image that genisoimage makes and the tests damage, with checksums that are right
//! again.
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
use crate::disk::bytes::{le64, put, put16, put32};
use crate::disk::{Checked, Memory};
use crate::fs::everything;

/// Bytes of a block here.
const BLOCK: usize = 2048;

#[allow(clippy::disallowed_methods, reason = "genisoimage is the second implementation")]
fn image() -> Vec<u8> {
    static IMAGE: OnceLock<Vec<u8>> = OnceLock::new();
    let make = || {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        std::fs::create_dir_all(root.join("dir/below")).unwrap();
        std::fs::write(root.join("file"), vec![7; 5000]).unwrap();
        for index in 0..60 {
            std::fs::write(root.join(format!("dir/{index} {}", "n".repeat(60))), "x").unwrap();
        }
        let image = folder.path().join("image");
        let options = ["-quiet", "-udf", "-no-pad", "-V", "LABEL", "-o"].map(Path::new);
        let made = std::process::Command::new("genisoimage").args(options).args([&image, &root]).output();
        let made = made.expect("genisoimage is needed: apt-get install genisoimage");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        std::fs::read(image).unwrap()
    };
    IMAGE.get_or_init(make).clone()
}

fn open(bytes: &[u8]) -> Result<Udf> {
    Udf::open(Checked::wrap(Memory::new(bytes.to_vec())))
}

/// Makes the checksums of the descriptor at `at` right again.
fn seal(bytes: &mut [u8], at: usize) {
    let len = usize::from(le16(bytes, at + 10));
    let crc = bytes.get(at + 16..at + 16 + len).map_or(0, tag::crc);
    put16(bytes, at + 8, crc);
    let sum = (0..16).filter(|byte| *byte != 4).fold(0_u8, |sum, byte| sum.wrapping_add(bytes[at + byte]));
    bytes[at + 4] = sum;
}

/// Where the descriptors of a kind are.
fn all(bytes: &[u8], kind: u16) -> Vec<usize> {
    let blocks = (0..bytes.len() / BLOCK).map(|block| block * BLOCK);
    blocks.filter(|at| tag::kind(&bytes[*at..(*at + BLOCK).min(bytes.len())]) == Some(kind)).collect()
}

/// The image with all descriptors of a kind changed.
fn with(kind: u16, change: impl Fn(&mut [u8])) -> Vec<u8> {
    let mut image = image();
    let places = all(&image, kind);
    assert!(!places.is_empty());
    for at in places {
        change(&mut image[at..at + BLOCK]);
        seal(&mut image, at);
    }
    image
}

fn find(fs: &Udf, path: &str) -> Inode {
    path.split('/').fold(fs.root(), |dir, name| fs.lookup(dir, name.as_bytes()).unwrap().expect(path))
}

/// Where the entry of a file is.
fn entry_of(bytes: &[u8], path: &str) -> usize {
    let fs = open(bytes).unwrap();
    let inode = if path.is_empty() { fs.root() } else { find(&fs, path) };
    size(fs.volume.locate(Place::of(inode)).unwrap().0)
}

/// The image with one file's entry changed.
fn changed(path: &str, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut image = image();
    let at = entry_of(&image, path);
    change(&mut image[at..at + BLOCK]);
    seal(&mut image, at);
    image
}

/// Reads everything. The first error.
fn survive(bytes: &[u8]) -> Result<()> {
    everything::read(&open(bytes)?, 300, b"no such name")
}

fn code(bytes: &[u8]) -> &'static str {
    survive(bytes).map_or_else(|error| error.code(), |()| "none")
}

#[test]
fn a_sound_image_is_sound() {
    survive(&image()).unwrap();
    let fs = open(&image()).unwrap();
    assert_eq!((fs.facts().kind, fs.facts().label.as_deref(), fs.facts().dirty), ("udf", Some("LABEL"), false));
    assert_eq!(
        (fs.facts().block_size, fs.facts().features.as_slice()),
        (2048, ["revision 1.02".to_owned()].as_slice())
    );
    assert_eq!(fs.writer().unwrap_err().code(), "udf.read-only");
    assert_eq!(fs.lookup(fs.root(), b"FILE").unwrap(), None);
    assert_eq!(fs.read_link(find(&fs, "file")).unwrap_err().code(), "udf.name");
    assert_eq!(fs.read_at(fs.root(), &mut [0], 0).unwrap_err().code(), "udf.name");
    assert_eq!(fs.lookup(find(&fs, "file"), b"x").unwrap_err().code(), "udf.name");
}

#[test]
fn a_listing_goes_on_where_it_stopped() {
    let fs = open(&image()).unwrap();
    let names = |cursor| {
        let mut names = Vec::new();
        fs.read_dir(find(&fs, "dir"), cursor, &mut |entry| {
            names.push((entry.name, entry.cursor));
            ControlFlow::Continue(())
        })
        .unwrap();
        names
    };
    let all = names(0);
    assert_eq!(all.len(), 61);
    for (at, (_, cursor)) in all.iter().enumerate() {
        assert_eq!(names(*cursor), all[at + 1..]);
    }
    assert_eq!(names(u64::MAX), []);
}

#[test]
fn any_truncation_is_survived() {
    let image = image();
    for len in (0..image.len()).step_by(1021) {
        let _ = survive(&image[..len]);
    }
    for len in [0, 16, 100 * BLOCK, 256 * BLOCK] {
        assert_eq!(code(&image[..len]), "udf.corrupt", "{len}");
    }
}

#[test]
fn the_reserve_stands_in_for_the_main_sequence() {
    let mut image = image();
    let anchor = all(&image, tag::ANCHOR)[0];
    let main = size(u64::from(le32(&image, anchor + 20))) * BLOCK;
    image[main..main + 6 * BLOCK].fill(0);
    survive(&image).unwrap();
    let reserve = size(u64::from(le32(&image, anchor + 28))) * BLOCK;
    image[reserve..reserve + 6 * BLOCK].fill(0);
    assert_eq!(code(&image), "udf.corrupt");
}

#[test]
fn descriptors_that_cannot_be_are_refused() {
    for (name, kind, at, bytes, expected) in [
        ("another size of blocks", tag::LOGICAL, 212, &[0, 2, 0, 0][..], "udf.geometry"),
        ("maps that are too long", tag::LOGICAL, 264, &[255, 255, 0, 0], "udf.corrupt"),
        ("a map of no length", tag::LOGICAL, 441, &[0], "udf.feature"),
        ("a map of an unknown type", tag::LOGICAL, 440, &[9], "udf.feature"),
        ("a map of another partition", tag::LOGICAL, 444, &[9, 9], "udf.corrupt"),
        ("no maps", tag::LOGICAL, 268, &[0, 0, 0, 0], "udf.corrupt"),
        ("files outside of all partitions", tag::LOGICAL, 256, &[9, 0], "udf.corrupt"),
        ("files outside of the partition", tag::LOGICAL, 252, &[255, 255, 255, 255], "udf.corrupt"),
        ("an empty partition", tag::PARTITION, 192, &[0, 0, 0, 0], "udf.corrupt"),
        ("a partition past the end", tag::PARTITION, 188, &[255, 255, 255, 255], "udf.corrupt"),
        ("a root elsewhere", tag::FILE_SET, 404, &[255, 255, 0, 0], "udf.corrupt"),
        ("a set of files elsewhere", tag::FILE_SET, 12, &[9, 9, 9, 9], "udf.corrupt"),
    ] {
        assert_eq!(code(&with(kind, |descriptor| put(descriptor, at, bytes))), expected, "{name}");
    }
}

#[test]
fn partitions_have_a_bound() {
    let most = limits::MAX_UDF_PARTITIONS;
    for (count, expected) in [(most - 1, most - 1), (most, most), (most + 1, most)] {
        let image = with(tag::LOGICAL, |logical| {
            put32(logical, 264, count * 6);
            put32(logical, 268, count);
            let map: [u8; 6] = crate::disk::bytes::array(logical, 440);
            (0..count as usize).for_each(|number| put(logical, 440 + number * 6, &map));
            put16(logical, 10, 2032);
        });
        assert_eq!(open(&image).unwrap().volume.maps.len(), expected as usize);
    }
}

#[test]
fn sequences_that_never_end_are_refused() {
    let mut image = image();
    let anchor = all(&image, tag::ANCHOR)[0];
    for sequence in [le32(&image, anchor + 20), le32(&image, anchor + 28)] {
        // The first descriptor points to the sequence that it is in.
        let at = size(u64::from(sequence)) * BLOCK;
        put16(&mut image, at, tag::POINTER);
        put32(&mut image, at + 20, 16 * 2048);
        put32(&mut image, at + 24, sequence);
        seal(&mut image, at);
    }
    assert_eq!(code(&image), "udf.limit");
}

#[test]
fn state_that_goes_on_and_on_ends() {
    let image = with(tag::INTEGRITY, |integrity| {
        let own = le32(integrity, 12);
        put32(integrity, 28, 0);
        put32(integrity, 32, 2048);
        put32(integrity, 36, own);
    });
    survive(&image).unwrap();
    assert!(open(&image).unwrap().facts().dirty);
}

#[test]
fn entries_that_cannot_be_are_refused() {
    for (name, at, bytes, expected) in [
        ("an unknown strategy", 20, &[9, 0][..], "udf.feature"),
        ("an unknown type", 27, &[99], "udf.feature"),
        ("extended descriptors", 34, &[2, 0], "udf.feature"),
        ("attributes that are too long", 168, &[255, 255, 0, 0], "udf.corrupt"),
        ("descriptors that are too long", 172, &[255, 255, 255, 255], "udf.corrupt"),
        ("embedded and too long", 34, &[3, 0], "udf.corrupt"),
        ("an extent outside", 176 + 4, &[255, 255, 255, 255], "udf.corrupt"),
        ("another place", 12, &[1, 2, 3, 4], "udf.corrupt"),
        ("another kind", 0, &[1, 1], "udf.corrupt"),
    ] {
        assert_eq!(code(&changed("file", |entry| put(entry, at, bytes))), expected, "{name}");
    }
    assert_eq!(code(&changed("", |root| root[27] = 5)), "udf.corrupt");
    let mut unsealed = image();
    let at = entry_of(&unsealed, "file");
    unsealed[at + 60] ^= 1;
    assert_eq!(code(&unsealed), "udf.corrupt");
}

#[test]
fn content_may_lie_in_the_entry_in_holes_and_nowhere() {
    let read = |image: &[u8]| {
        let fs = open(image).unwrap();
        let mut buf = vec![9; 9000];
        let len = fs.read_at(find(&fs, "file"), &mut buf, 0).unwrap();
        buf.truncate(len);
        buf
    };
    let embedded = changed("file", |entry| {
        put16(entry, 34, 3);
        put(entry, 56, &5_u64.to_le_bytes());
        put32(entry, 172, 5);
        put(entry, 176, b"hello");
    });
    assert_eq!(read(&embedded), b"hello");
    for kind in [1_u32, 2] {
        let hole = changed("file", |entry| put32(entry, 176, kind << 30 | le32(entry, 176)));
        assert_eq!(read(&hole), vec![0; 5000]);
    }
    let short = changed("file", |entry| put32(entry, 176, 4096));
    assert_eq!(read(&short), [vec![7; 4096], vec![0; 904]].concat());
    let grown_in_its_block = changed("file", |entry| put32(entry, 176, 4097));
    assert_eq!(read(&grown_in_its_block), vec![7; 5000]);
    let long = changed("file", |entry| put(entry, 56, &u64::MAX.to_le_bytes()));
    assert_eq!(le64(&long, entry_of(&long, "file") + 56), u64::MAX);
    assert_eq!(read(&long).len(), 9000);
}

/// The allocation descriptors of a file in a block of their own, which leads to `next`.
fn continued(next: Option<u32>) -> Vec<u8> {
    let mut image = image();
    // What lies behind its content becomes such a block.
    let file = entry_of(&image, "file");
    let content = le32(&image, file + 180);
    let fs = open(&image).unwrap();
    let own = content + 2;
    let at = size(fs.volume.locate(Place { partition: 0, block: own }).unwrap().0);
    put32(&mut image, file + 176, 4096);
    put32(&mut image, file + 172, 16);
    put32(&mut image, file + 184, 3 << 30 | 2048);
    put32(&mut image, file + 188, own);
    put16(&mut image, file + 10, 2032);
    seal(&mut image, file);
    image[at..at + BLOCK].fill(0);
    put16(&mut image, at, tag::ALLOCATION_EXTENT);
    put16(&mut image, at + 10, 2032);
    put32(&mut image, at + 12, own);
    put32(&mut image, at + 20, 16);
    put32(&mut image, at + 24, if next.is_some() { 3 << 30 | 2048 } else { 904 });
    put32(&mut image, at + 28, next.map_or(content, |next| if next == 0 { own } else { next }));
    seal(&mut image, at);
    image
}

#[test]
fn allocation_descriptors_may_go_on_but_not_for_ever() {
    let image = continued(None);
    survive(&image).unwrap();
    let fs = open(&image).unwrap();
    let mut buf = vec![0; 9000];
    assert_eq!(fs.read_at(find(&fs, "file"), &mut buf, 0).unwrap(), 5000);
    assert_eq!(buf[..5000], [7; 5000]);
    assert_eq!(code(&continued(Some(0))), "udf.limit");
    assert_eq!(code(&continued(Some(u32::MAX))), "udf.corrupt");
}

#[test]
fn directories_that_cannot_be_are_refused() {
    let image = image();
    let fs = open(&image).unwrap();
    let at =
        size(fs.volume.locate(Place { partition: 0, block: le32(&image, entry_of(&image, "dir") + 180) }).unwrap().0);
    // The first entry is that of the directory above.
    let first = at + 40;
    assert_eq!(tag::kind(&image[first..]), Some(tag::FILE_IDENTIFIER));
    for (name, field, bytes) in
        [("a longer name", 19, &[255][..]), ("a longer use", 36, &[255, 255]), ("another kind", 0, &[5, 1])]
    {
        let mut image = image.clone();
        put(&mut image, first + field, bytes);
        assert_eq!(code(&image), "udf.corrupt", "{name}");
    }
    let count = |image: &[u8]| {
        let (fs, mut count) = (open(image).unwrap(), 0);
        fs.read_dir(find(&fs, "dir"), 0, &mut |_| {
            count += 1;
            ControlFlow::Continue(())
        })
        .unwrap();
        count
    };
    for (name, field, byte) in [
        ("hidden", 18, 1),
        ("deleted", 18, 4),
        ("the one above", 18, 8),
        ("a name in no known form", 38, 254),
        ("a slash", 39, b'/'),
        ("a zero", 39, 0),
    ] {
        let mut image = image.clone();
        image[first + field] = byte;
        seal(&mut image, first);
        assert_eq!(count(&image), 60, "{name}");
    }
    let cut = changed("dir", |entry| put(entry, 56, &100_u64.to_le_bytes()));
    assert_eq!(code(&cut), "udf.corrupt");
}

#[test]
fn a_directory_has_a_bound() {
    let most = limits::MAX_UDF_DIR;
    for (len, expected) in [(most - 1, "udf.corrupt"), (most, "udf.corrupt"), (most + 1, "udf.limit")] {
        assert_eq!(code(&changed("dir", |entry| put(entry, 56, &len.to_le_bytes()))), expected, "{len}");
    }
}

#[test]
fn a_directory_that_holds_itself_ends() {
    let image = changed("dir/below", |entry| {
        let root = self::image();
        let at = entry_of(&root, "");
        put(entry, 176, &root[at + 176..at + 184]);
        put(entry, 56, &root[at + 56..at + 64]);
    });
    survive(&image).unwrap();
    let fs = open(&image).unwrap();
    assert_eq!(find(&fs, "dir/below/dir/below/file"), find(&fs, "file"));
}

#[test]
fn entries_that_stand_for_one_another_have_an_end() {
    // The block behind the entry says that it is the entry before.
    let mut image = image();
    let (at, fs) = (entry_of(&image, "dir"), open(&image).unwrap());
    let place = Place::of(find(&fs, "dir"));
    put16(&mut image, at + 20, 4096);
    seal(&mut image, at);
    image[at + BLOCK..at + 2 * BLOCK].fill(0);
    put16(&mut image, at + BLOCK, tag::INDIRECT_ENTRY);
    put16(&mut image, at + BLOCK + 10, 100);
    put32(&mut image, at + BLOCK + 12, place.block + 1);
    put32(&mut image, at + BLOCK + 36, 2048);
    put32(&mut image, at + BLOCK + 40, place.block);
    seal(&mut image, at + BLOCK);
    assert_eq!(code(&image), "udf.limit");
    // One that leads nowhere is not needed.
    put32(&mut image, at + BLOCK + 36, 0);
    seal(&mut image, at + BLOCK);
    assert_eq!(open(&image).unwrap().stat(place.inode()).unwrap().kind, FileKind::Directory);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn any_damage_is_survived(damage in proptest::collection::vec((0_usize..1 << 20, any::<u8>()), 1..30)) {
        let mut image = image();
        // Where there are descriptors.
        let places: Vec<usize> = (0..image.len() / BLOCK).map(|block| block * BLOCK).filter(|at| tag::kind(&image[*at..*at + BLOCK]).is_some()).collect();
        for (at, byte) in damage {
            let place = places[at % places.len()];
            image[place + 16 + at / places.len() % 500] = byte;
            seal(&mut image, place);
        }
        let _ = survive(&image);
    }
}

#[test]
fn a_file_has_as_many_blocks_of_descriptors_as_the_limit() {
    let mut image = continued(None);
    let file = entry_of(&image, "file");
    let content = le32(&image, file + 180);
    // The partition goes on behind the end of the image.
    for at in all(&image, 5) {
        put32(&mut image, at + 192, 1 << 20);
        seal(&mut image, at);
    }
    let start = open(&image).unwrap().volume.locate(Place { partition: 0, block: 0 }).unwrap().0;
    image.resize(image.len().next_multiple_of(BLOCK), 0);
    let first = u32::try_from((image.len() - size(start)) / BLOCK).unwrap();
    let most = u32::try_from(limits::MAX_UDF_CONTINUATIONS).unwrap();
    for (count, fits) in [(most - 1, true), (most, true), (most + 1, false)] {
        let mut image = image.clone();
        put32(&mut image, file + 188, first);
        seal(&mut image, file);
        for number in 0..count {
            let own = first + number;
            let at = image.len();
            image.resize(at + BLOCK, 0);
            put16(&mut image, at, tag::ALLOCATION_EXTENT);
            put16(&mut image, at + 10, 16);
            put32(&mut image, at + 12, own);
            put32(&mut image, at + 20, 8);
            let last = number + 1 == count;
            put32(&mut image, at + 24, if last { 904 } else { 3 << 30 | 2048 });
            put32(&mut image, at + 28, if last { content } else { own + 1 });
            seal(&mut image, at);
        }
        let fs = open(&image).unwrap();
        let read = fs.read_at(find(&fs, "file"), &mut [0; 5000], 0).map(drop).map_err(|error| error.code());
        assert_eq!(read, if fits { Ok(()) } else { Err("udf.limit") }, "{count}");
    }
}
