//! What no image may do to the driver, on a small image that mkfs.exfat makes and the tests fill and damage.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::indexing_slicing,
    reason = "tests build their input"
)]

use std::sync::OnceLock;

use proptest::prelude::*;

use super::*;
use crate::disk::bytes::{le32, put, put16, put32};
use crate::disk::{Checked, Memory};
use crate::fs::everything;

/// Bytes of a cluster here.
const CLUSTER: usize = 512;

/// An empty file system of 1 MiB.
#[allow(clippy::disallowed_methods, reason = "exfatprogs is the second implementation")]
fn make() -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(1 << 20).unwrap();
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let options = ["-c", "512", "-b", "4096", "-L", "Größe"];
    let made = std::process::Command::new("mkfs.exfat").args(options).arg(file.path()).env("PATH", path).output();
    let made = made.expect("mkfs.exfat is needed: apt-get install exfatprogs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    std::fs::read(file.path()).unwrap()
}

/// A volume that files are put on by hand.
struct Volume {
    bytes: Vec<u8>,
    table: usize,
    heap: usize,
    root: u32,
}

impl Volume {
    fn new() -> Self {
        let bytes = make();
        let sector = |at: usize| le32(&bytes, at) as usize * 512;
        let (table, heap, root) = (sector(80), sector(88), le32(&bytes, 96));
        Self { bytes, table, heap, root }
    }

    fn place(&self, cluster: u32) -> usize {
        self.heap + (cluster as usize - 2) * CLUSTER
    }

    fn chain(&mut self, clusters: &[u32]) {
        let next = clusters.iter().skip(1).copied().chain([u32::MAX]);
        for (cluster, next) in clusters.iter().zip(next) {
            put32(&mut self.bytes, self.table + *cluster as usize * 4, next);
        }
    }

    fn fill(&mut self, clusters: &[u32], content: &[u8]) {
        for (cluster, piece) in clusters.iter().zip(content.chunks(CLUSTER)) {
            let place = self.place(*cluster);
            put(&mut self.bytes, place, piece);
        }
    }
}

/// The entries of a file.
fn set(name: &str, attributes: u16, first: u32, len: u64, valid: u64, straight: bool) -> Vec<u8> {
    let units: Vec<u16> = name.encode_utf16().collect();
    let names = units.len().div_ceil(15);
    let mut bytes = vec![0; 64 + names * 32];
    bytes[0] = 0x85;
    bytes[1] = u8::try_from(names + 1).unwrap();
    put16(&mut bytes, 4, attributes);
    // 2026-11-21 10:30:04, two hours ahead of universal time.
    put32(&mut bytes, 12, (46 << 25 | 11 << 21 | 21 << 16) | (10 << 11 | 30 << 5 | 2));
    bytes[21] = 150;
    bytes[23] = 0x80 | 8;
    bytes[32] = 0xc0;
    bytes[33] = if straight { 3 } else { 1 };
    bytes[35] = u8::try_from(units.len()).unwrap();
    put(&mut bytes, 40, &valid.to_le_bytes());
    put32(&mut bytes, 52, first);
    put(&mut bytes, 56, &len.to_le_bytes());
    let upper = units.iter().flat_map(|unit| utf16::upper(*unit).to_le_bytes());
    let hash = upper.fold(0_u16, |sum, byte| sum.rotate_right(1).wrapping_add(u16::from(byte)));
    put16(&mut bytes, 36, hash);
    for (slot, chunk) in units.chunks(15).enumerate() {
        bytes[64 + slot * 32] = 0xc1;
        for (at, unit) in chunk.iter().enumerate() {
            put16(&mut bytes, 64 + slot * 32 + 2 + at * 2, *unit);
        }
    }
    seal(&mut bytes);
    bytes
}

/// Makes the checksum right.
fn seal(set: &mut [u8]) {
    let sum = dir::set_checksum(set);
    put16(set, 2, sum);
}

/// Where everything is.
const FILE: u32 = 60;
const PIECES: [u32; 3] = [70, 72, 71];
const DIR: u32 = 80;

fn image() -> Vec<u8> {
    static IMAGE: OnceLock<Vec<u8>> = OnceLock::new();
    IMAGE
        .get_or_init(|| {
            let mut volume = Volume::new();
            let long = "a long name ".repeat(20);
            // Its clusters lie here and there, so that sets of entries lie in two of them.
            let mut names = Vec::new();
            for index in 0..40 {
                names.extend(set(&format!("{index} {}", &long[..20 + index]), 0x20, FILE, 700, 700, true));
            }
            let dir: Vec<u32> = (0..names.len().div_ceil(CLUSTER)).map(|at| DIR + at as u32 * 2).collect();
            volume.chain(&dir);
            volume.fill(&dir, &names);
            volume.fill(&[FILE, FILE + 1], &[7; 700]);
            volume.chain(&PIECES);
            volume.fill(&PIECES, &(0..1400_u32).map(|at| (at % 251) as u8).collect::<Vec<_>>());
            let entries = [
                set("FILE", 0x21, FILE, 700, 700, true),
                set("pieces of a file", 0x20, PIECES[0], 1400, 1300, false),
                set("Straße", 0x20, 0, 0, 0, false),
                set("dir", 0x10, DIR, (dir.len() * CLUSTER) as u64, (dir.len() * CLUSTER) as u64, false),
                set("same", 0x10, volume.root, CLUSTER as u64, CLUSTER as u64, true),
            ];
            // The root directory gets two more clusters.
            let root = [volume.root, 200, 202];
            volume.chain(&root);
            let start = volume.place(volume.root);
            let used = volume.bytes[start..].chunks(32).position(|slot| slot[0] == 0).unwrap() * 32;
            let mut content = volume.bytes[start..start + used].to_vec();
            content.extend(entries.concat());
            volume.fill(&root, &content);
            volume.bytes
        })
        .clone()
}

fn open(bytes: &[u8]) -> Result<Exfat> {
    Exfat::open(Checked::wrap(Memory::new(bytes.to_vec())))
}

/// Where the first entry of a file lies.
fn place_of(bytes: &[u8], name: &str) -> usize {
    let fs = open(bytes).unwrap();
    let inode = fs.lookup(fs.root(), name.as_bytes()).unwrap().unwrap();
    (inode.0 & 0xffff_ffff) as usize * 32
}

/// The image with a file's entries changed, and their checksum right again.
fn with(name: &str, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut image = image();
    let at = place_of(&image, name);
    let len = (usize::from(image[at + 1]) + 1) * 32;
    change(&mut image[at..at + len]);
    let sealed = dir::set_checksum(&image[at..at + len]);
    put16(&mut image, at + 2, sealed);
    image
}

/// The image with its boot region changed, and its checksum right again, in both copies.
fn booted(change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut image = image();
    change(&mut image[..512]);
    let fixed = image[..11 * 512].iter().enumerate().filter(|(at, _)| !matches!(at, 106 | 107 | 112));
    let sum = boot::checksum(fixed.map(|(_, byte)| *byte));
    (0..128).for_each(|at| put32(&mut image, 11 * 512 + at * 4, sum));
    image.copy_within(..12 * 512, 12 * 512);
    image
}

/// Reads everything. The first error.
fn survive(bytes: &[u8]) -> Result<()> {
    everything::read(&open(bytes)?, 300, b"no such name")
}

fn code(bytes: &[u8]) -> &'static str {
    survive(bytes).map_or_else(|error| error.code(), |()| "none")
}

fn names(fs: &Exfat, dir: Inode, cursor: u64) -> Vec<(Vec<u8>, u64)> {
    let mut names = Vec::new();
    fs.read_dir(dir, cursor, &mut |entry| {
        names.push((entry.name, entry.cursor));
        ControlFlow::Continue(())
    })
    .unwrap();
    names
}

#[test]
fn a_sound_image_is_sound() {
    survive(&image()).unwrap();
    let fs = open(&image()).unwrap();
    let facts = fs.facts();
    assert_eq!((facts.kind, facts.label.as_deref(), facts.dirty), ("exfat", Some("Größe"), false));
    assert_eq!((facts.block_size, facts.features.as_slice()), (512, ["revision 1.00".to_owned()].as_slice()));
    assert_eq!(fs.writer().unwrap_err().code(), "exfat.read-only");
    assert!(fs.free().unwrap() > 500 << 10);
    for (name, found) in [("file", true), ("STRASSE", false), ("STRAßE", true), ("fil", false), ("Same", true)] {
        assert_eq!(fs.lookup(fs.root(), name.as_bytes()).unwrap().is_some(), found, "{name}");
    }
    let file = fs.stat(fs.lookup(fs.root(), b"file").unwrap().unwrap()).unwrap();
    assert_eq!((file.mode, file.size, file.allocated), (0o555, 700, 1024));
    assert_eq!(file.mtime, Timestamp { seconds: 1_795_257_005 - 7200, nanoseconds: 500_000_000 });
}

#[test]
fn content_lies_in_pieces_and_ends_in_zeros() {
    let fs = open(&image()).unwrap();
    let pieces = fs.lookup(fs.root(), b"pieces of a file").unwrap().unwrap();
    let expected: Vec<u8> = (0..1400_u32).map(|at| if at < 1300 { (at % 251) as u8 } else { 0 }).collect();
    for (offset, len) in [(0, 2000), (500, 30), (1290, 30), (1305, 3), (1399, 5), (1400, 5), (5000, 5)] {
        let mut buf = vec![9; len];
        let read = fs.read_at(pieces, &mut buf, offset as u64).unwrap();
        assert_eq!(buf[..read], expected[offset.min(1400)..(offset + len).min(1400)], "{offset}");
    }
}

#[test]
fn a_listing_goes_on_where_it_stopped() {
    let fs = open(&image()).unwrap();
    let dir = fs.lookup(fs.root(), b"dir").unwrap().unwrap();
    let all = names(&fs, dir, 0);
    assert_eq!(all.len(), 40);
    for (at, (name, cursor)) in all.iter().enumerate() {
        assert_eq!(names(&fs, dir, *cursor), all[at + 1..]);
        assert!(fs.lookup(dir, name).unwrap().is_some());
    }
    assert_eq!(names(&fs, dir, u64::MAX), []);
}

#[test]
fn boot_regions_that_cannot_be_are_refused() {
    for (name, at, bytes) in [
        ("sectors too small", 108, vec![8]),
        ("sectors too large", 108, vec![13]),
        ("clusters too large", 109, vec![17]),
        ("clusters of any size", 109, vec![255]),
        ("no clusters", 92, vec![0; 4]),
        ("more clusters than fit", 92, vec![255; 4]),
        ("a volume too long", 72, vec![255; 8]),
        ("an empty volume", 72, vec![0; 8]),
        ("no tables", 110, vec![0]),
        ("many tables", 110, vec![3]),
        ("tables too short", 84, vec![0; 4]),
        ("tables in the heap", 80, vec![255; 4]),
        ("a root without a number", 96, vec![1, 0, 0, 0]),
        ("a root past the end", 96, vec![255; 4]),
    ] {
        assert_eq!(code(&booted(|boot| put(boot, at, &bytes))), "exfat.geometry", "{name}");
    }
    assert_eq!(code(&booted(|boot| boot[3] = b'e')), "exfat.corrupt");
}

#[test]
fn the_second_boot_region_stands_in_for_the_first() {
    let mut image = image();
    image[100] ^= 1;
    let fs = open(&image).unwrap();
    assert!(fs.facts().dirty && fs.facts().uuid == open(&self::image()).unwrap().facts().uuid);
    survive(&image).unwrap();
    image[12 * 512 + 100] ^= 1;
    assert_eq!(code(&image), "exfat.corrupt");
}

#[test]
fn what_was_in_use_has_no_free_space() {
    let dirty = booted(|boot| boot[106] = 2);
    let fs = open(&dirty).unwrap();
    assert!(fs.facts().dirty);
    fs.free_ranges(&mut |_| panic!("nothing of it is proved")).unwrap();
    assert!(fs.free().unwrap() > 0);
}

#[test]
fn any_truncation_is_an_error() {
    let image = image();
    for len in (0..image.len()).step_by(4093) {
        assert!(survive(&image[..len]).is_err(), "{len}");
    }
}

#[test]
fn entries_that_make_no_file_are_refused() {
    for (name, at, bytes) in [
        ("too few", 1, &[1][..]),
        ("too many", 1, &[19]),
        ("no stream", 32, &[0xc1]),
        ("no name", 35, &[0]),
        ("a name longer than its entries", 35, &[16]),
        ("another kind within the name", 64, &[0xe0]),
    ] {
        let mut image = image();
        let place = place_of(&image, "file");
        let len = (usize::from(image[place + 1]) + 1) * 32;
        put(&mut image[place..], at, bytes);
        seal(&mut image[place..place + len]);
        assert_eq!(code(&image), "exfat.corrupt", "{name}");
    }
    let mut unsealed = image();
    let place = place_of(&unsealed, "file");
    unsealed[place + 4] ^= 1;
    assert_eq!(code(&unsealed), "exfat.corrupt");
}

#[test]
fn names_that_no_file_can_have_are_not_shown() {
    let image = with("file", |set| put16(set, 66, u16::from(b'/')));
    survive(&image).unwrap();
    let fs = open(&image).unwrap();
    assert_eq!(names(&fs, fs.root(), 0).len(), 4);
}

#[test]
fn files_that_lie_outside_are_refused() {
    for (name, at, bytes) in [
        ("a first cluster without a number", 52, 1_u64.to_le_bytes()),
        ("a first cluster past the end", 52, u64::MAX.to_le_bytes()),
        ("longer than the volume", 56, (2_u64 << 20).to_le_bytes()),
        ("as long as can be", 56, u64::MAX.to_le_bytes()),
    ] {
        let image = with("file", |set| {
            put(set, at, &bytes[..if at == 52 { 4 } else { 8 }]);
            set.copy_within(56..64, 40);
        });
        assert_eq!(code(&image), "exfat.corrupt", "{name}");
    }
}

#[test]
fn chains_that_cannot_be_are_refused() {
    let image = image();
    let table = le32(&image, 80) as usize * 512;
    for (name, next) in [
        ("a cycle", PIECES[0]),
        ("free", 0),
        ("bad", 0xffff_fff7),
        ("outside", 0x00ff_ffff),
        ("an early end", u32::MAX),
    ] {
        let mut image = image.clone();
        put32(&mut image, table + PIECES[1] as usize * 4, next);
        assert_eq!(code(&image), "exfat.corrupt", "{name}");
    }
    // A root directory that comes back to itself.
    let mut cycle = image;
    let root = le32(&cycle, 96);
    put32(&mut cycle, table + 202 * 4, root);
    assert_eq!(code(&cycle), "exfat.corrupt");
}

#[test]
fn the_root_directory_has_a_bound() {
    let fs = open(&image()).unwrap();
    for (most, expected) in [(2, Some("exfat.limit")), (3, None), (4, None)] {
        let found = fs.whole_chain(fs.boot.root, most).map_err(|error| error.code());
        assert_eq!(found.err(), expected, "{most}");
    }
}

#[test]
fn a_directory_has_a_bound() {
    let most = limits::MAX_EXFAT_DIR;
    for (len, expected) in [(most - 512, "exfat.corrupt"), (most, "exfat.corrupt"), (most + 1, "exfat.limit")] {
        let image = with("dir", |set| put(set, 56, &len.to_le_bytes()));
        assert_eq!(code(&image), expected, "{len}");
    }
}

#[test]
fn a_damaged_table_of_upper_case_is_done_without() {
    let mut image = image();
    let root = le32(&image, 88) as usize * 512 + (le32(&image, 96) as usize - 2) * CLUSTER;
    let at = (root..root + 512).step_by(32).find(|at| image[*at] == 0x82).unwrap();
    for (field, value) in [(4, 1), (20, 0xffff_fff0), (24, 0x7fff_ffff), (28, 1)] {
        let mut image = image.clone();
        let old = le32(&image, at + field);
        put32(&mut image, at + field, old ^ value);
        survive(&image).unwrap();
        let fs = open(&image).unwrap();
        assert!(fs.facts().dirty && fs.lookup(fs.root(), "STRAßE".as_bytes()).unwrap().is_some());
    }
    image[at] = 2;
    survive(&image).unwrap();
}

#[test]
fn a_bitmap_that_is_too_short_proves_nothing() {
    let image = image();
    let root = le32(&image, 88) as usize * 512 + (le32(&image, 96) as usize - 2) * CLUSTER;
    let at = (root..root + 512).step_by(32).find(|at| image[*at] == 0x81).unwrap();
    let mut short = image.clone();
    put32(&mut short, at + 24, 1);
    assert_eq!(code(&short), "exfat.corrupt");
    let mut none = image;
    none[at] = 1;
    assert_eq!(code(&none), "exfat.corrupt");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn any_damage_is_survived(damage in proptest::collection::vec((0_usize..1 << 18, any::<u8>()), 1..30)) {
        let mut image = image();
        let len = image.len();
        for (at, byte) in damage {
            // Where there is something: the boot regions, the tables and the first clusters.
            image[at % len] = byte;
        }
        let _ = survive(&image);
    }
}
