use std::io::Write;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::disk::{Checked, Memory};
use crate::format::{Finding, Severity};
use crate::limits::{MAX_DISK_LEN, MAX_QCOW2_BACKING_NAME, MAX_QCOW2_L1_ENTRIES};
use crate::source::FileSource;
use crate::testing::{arg, noise, qemu_img, qemu_io};

mod checks;
mod features;

/// Cluster size of the images built here.
const BITS: u32 = 12;
const CLUSTER: usize = 1 << BITS;
const L1: usize = CLUSTER;
const L2: usize = 2 * CLUSTER;
const DATA: usize = 3 * CLUSTER;
const SIZE: usize = 8 * CLUSTER;

/// What a case does to an image.
type Change = fn(&mut Image) -> &mut Image;

/// A version 3 image of eight clusters: header, L1, L2, then whatever a test appends.
struct Image(Vec<u8>);

impl Image {
    fn new() -> Self {
        let mut image = Self(vec![0; DATA]);
        image.poke(0, &header::MAGIC).u32(4, 3).u32(20, BITS).u64(24, SIZE as u64);
        image.u32(36, 1).u64(40, L1 as u64).u32(96, 4).u32(100, 112).u64(L1, L2 as u64);
        image
    }

    fn poke(&mut self, at: usize, bytes: &[u8]) -> &mut Self {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    fn u32(&mut self, at: usize, value: u32) -> &mut Self {
        self.poke(at, &value.to_be_bytes())
    }

    fn u64(&mut self, at: usize, value: u64) -> &mut Self {
        self.poke(at, &value.to_be_bytes())
    }

    fn l2(&mut self, index: usize, entry: u64) -> &mut Self {
        self.u64(L2 + 8 * index, entry)
    }

    fn append(&mut self, bytes: &[u8]) -> u64 {
        let at = self.0.len() as u64;
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(CLUSTER), 0);
        at
    }

    /// Appends `stored` and makes it the compressed cluster `index`.
    fn compressed(&mut self, index: usize, stored: &[u8]) -> &mut Self {
        let at = self.append(stored);
        let sectors = (stored.len() as u64).div_ceil(512) - 1;
        self.l2(index, 1 << 62 | sectors << (70 - BITS) | at)
    }

    fn zstd(&mut self) -> &mut Self {
        self.u64(72, 8).poke(104, &[1])
    }

    /// Appends refcounts: 1 for each cluster of the file.
    fn counted(&mut self) -> &mut Self {
        let table = self.append(&[0; CLUSTER]);
        let block = self.append(&[0; CLUSTER]);
        let clusters = self.0.len() / CLUSTER;
        for index in 0..clusters {
            self.poke(usize::try_from(block).unwrap() + 2 * index, &[0, 1]);
        }
        self.u64(48, table).u32(56, 1).u64(usize::try_from(table).unwrap(), block)
    }

    fn check(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        let layer = self.open().unwrap();
        layer
            .check(&mut |finding| {
                found.push(finding);
                ControlFlow::Continue(())
            })
            .unwrap();
        found
    }

    fn open(&self) -> Result<Arc<Qcow2>> {
        Qcow2::open(Checked::wrap(Memory::new(self.0.clone())), &Session::with_defaults())
    }
}

/// All bytes of a layer without a parent.
fn read(layer: &dyn Layer) -> Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(layer.len()).unwrap()];
    let mut at = 0;
    while at < layer.len() {
        let run = layer.map(at, layer.len() - at)?;
        assert!(run.len > 0 && run.len <= layer.len() - at);
        let out = &mut bytes[usize::try_from(at).unwrap()..usize::try_from(at + run.len).unwrap()];
        match run.place {
            Place::Data { file, offset } => layer.files()[file].read_at(out, offset)?,
            Place::Encoded(unit) => {
                let mut decoded = vec![0xa5; unit.len as usize];
                layer.decode(&unit, &mut decoded)?;
                let from = usize::try_from(at - unit.start).unwrap();
                out.copy_from_slice(&decoded[from..from + out.len()]);
            }
            Place::Parent | Place::Zero => out.fill(0),
        }
        at += run.len;
    }
    Ok(bytes)
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn reads_every_kind_of_cluster() {
    let mut image = Image::new();
    let data = noise(1, 2 * CLUSTER);
    let at = image.append(&data);
    image.l2(0, at | 1 << 63).l2(1, at + CLUSTER as u64).l2(2, 1).l2(3, at | 1);
    image.compressed(5, &deflate(&[7; CLUSTER]));
    let layer = image.open().unwrap();
    let bytes = read(&*layer).unwrap();
    assert_eq!(bytes[..2 * CLUSTER], data);
    assert_eq!(bytes[2 * CLUSTER..5 * CLUSTER], [0; 3 * CLUSTER]);
    assert_eq!(bytes[5 * CLUSTER..6 * CLUSTER], [7; CLUSTER]);
    assert_eq!(layer.map(100, 1 << 20).unwrap().len, 2 * CLUSTER as u64 - 100);
    assert_eq!(layer.map(2 * CLUSTER as u64, 1 << 20).unwrap(), Run { len: 2 * CLUSTER as u64, place: Place::Zero });
    assert_eq!(layer.map(6 * CLUSTER as u64, 9).unwrap(), Run { len: 9, place: Place::Parent });
}

#[test]
fn zstd_clusters_may_be_of_several_frames() {
    let half = CLUSTER / 2;
    let mut frames = zstd::bulk::compress(&noise(1, half), 1).unwrap();
    frames.extend(zstd::bulk::compress(&[5; CLUSTER / 2], 1).unwrap());
    let mut image = Image::new();
    image.zstd().compressed(0, &frames);
    let bytes = read(&*image.open().unwrap()).unwrap();
    assert_eq!(bytes[..half], noise(1, half));
    assert_eq!(bytes[half..CLUSTER], [5; CLUSTER / 2]);
}

#[test]
fn an_empty_petabyte_maps_in_few_steps() {
    let mut image = Image::new();
    image.u32(20, 21).u64(24, 1 << 50).u32(36, 2048).u64(40, 2 << 20);
    image.0.resize((2 << 20) + 2048 * 8, 0);
    let layer = image.open().unwrap();
    assert_eq!(layer.map(0, 1 << 50).unwrap(), Run { len: 1 << 50, place: Place::Parent });
    assert_eq!(layer.map(123, 1 << 49).unwrap(), Run { len: 1 << 49, place: Place::Parent });
}

#[test]
fn a_run_ends_with_its_table() {
    // Behind the L2 table lies a cluster of zeros, which is not a table of empty entries.
    let mut image = Image::new();
    let span = 512 * CLUSTER as u64;
    image.u64(24, 2 * span).u32(36, 2);
    image.append(&[0; CLUSTER]);
    let second = image.append(&[0; CLUSTER]);
    let data = image.append(&[7; CLUSTER]);
    image.u64(L1 + 8, second).u64(usize::try_from(second).unwrap(), data);
    let layer = image.open().unwrap();
    assert_eq!(layer.map(0, 2 * span).unwrap(), Run { len: span, place: Place::Parent });
    assert_eq!(layer.map(span, 1).unwrap().place, Place::Data { file: 0, offset: data });
}

#[test]
fn backing_file_is_a_name_and_nothing_else() {
    let mut image = Image::new();
    image.u32(112, 0xe279_2aca).u32(116, 3).poke(120, b"raw").u64(8, 136).u32(16, 11).poke(136, b"/etc/passwd");
    let layer = image.open().unwrap();
    let backing = layer.backing().unwrap();
    assert_eq!(
        (backing.name, backing.role, backing.format),
        (b"/etc/passwd".to_vec(), Role::Parent, Some("raw".into()))
    );
    assert!(layer.facts().contains(&("backing_file", "/etc/passwd".to_owned())));
    assert_eq!(Image::new().open().unwrap().backing(), None);
}

#[test]
fn dirty_is_a_note() {
    let mut image = Image::new();
    image.u64(72, 1);
    assert!(image.open().unwrap().facts().iter().any(|(key, _)| *key == "dirty"));
}

#[test]
fn bounds_hold_at_and_above() {
    let mut image = Image::new();
    image.u32(20, 21).u32(36, MAX_QCOW2_L1_ENTRIES).u64(24, MAX_DISK_LEN).u64(40, 2 << 20);
    image.0.resize((2 << 20) + (1 << 20), 0);
    assert!(image.open().is_ok());
    assert_eq!(image.u64(24, MAX_DISK_LEN + 1).open().unwrap_err().code(), "disk.too-large");
    assert_eq!(image.u64(24, SIZE as u64).u32(36, MAX_QCOW2_L1_ENTRIES + 1).open().unwrap_err().code(), "qcow2.l1");

    let largest = crate::limits::MAX_UNIT.trailing_zeros();
    let mut clusters = Image::new();
    clusters.u64(40, 2 << 20).0.resize((2 << 20) + 4096, 0);
    assert!(clusters.u32(20, largest - 1).open().is_ok() && clusters.u32(20, largest).open().is_ok());
    assert_eq!(clusters.u32(20, largest + 1).open().unwrap_err().code(), "qcow2.header");

    let mut named = Image::new();
    named.u64(8, 200).u32(16, MAX_QCOW2_BACKING_NAME);
    assert!(named.open().is_ok());
    assert_eq!(named.u32(16, MAX_QCOW2_BACKING_NAME + 1).open().unwrap_err().code(), "qcow2.header");
}

#[test]
fn hostile_headers_are_named_errors() {
    let cases: &[(&str, &str, Change)] = &[
        ("magic", "qcow2.header", |i| i.poke(0, b"QFI\0")),
        ("version-1", "qcow2.version", |i| i.u32(4, 1)),
        ("version-4", "qcow2.version", |i| i.u32(4, 4)),
        ("cluster-bits-0", "qcow2.header", |i| i.u32(20, 0)),
        ("cluster-bits-8", "qcow2.header", |i| i.u32(20, 8)),
        ("cluster-bits-22", "qcow2.header", |i| i.u32(20, 22)),
        ("cluster-bits-63", "qcow2.header", |i| i.u32(20, 63)),
        ("refcount-order-7", "qcow2.header", |i| i.u32(96, 7)),
        ("refcount-order-255", "qcow2.header", |i| i.u32(96, 255)),
        ("header-len-0", "qcow2.header", |i| i.u32(100, 0)),
        ("header-len-96", "qcow2.header", |i| i.u32(100, 96)),
        ("header-len-odd", "qcow2.header", |i| i.u32(100, 106)),
        ("header-len-beyond-cluster", "qcow2.header", |i| i.u32(100, 4104)),
        ("header-len-ffffffff", "qcow2.header", |i| i.u32(100, u32::MAX)),
        ("ext-len-7fffffff", "qcow2.header", |i| i.u32(112, 1).u32(116, 0x7fff_ffff)),
        ("ext-len-ffffffff", "qcow2.header", |i| i.u32(112, 1).u32(116, u32::MAX)),
        ("l1-zero", "qcow2.header", |i| i.u32(36, 0)),
        ("l1-too-short", "qcow2.header", |i| i.u64(24, 1 << 30)),
        ("l1-overflow", "qcow2.truncated", |i| i.u64(40, !0xfff)),
        ("l1-unaligned", "qcow2.header", |i| i.u64(40, 4104)),
        ("l1-beyond-eof", "qcow2.truncated", |i| i.u64(40, 1 << 40)),
        ("vsize-max", "disk.too-large", |i| i.u64(24, u64::MAX)),
        ("encrypted", "qcow2.encrypted", |i| i.u32(32, 2)),
        ("corrupt-bit", "qcow2.corrupt-bit", |i| i.u64(72, 2)),
        ("cve-2024-32498-datafile", "qcow2.data-file", |i| {
            i.u64(72, 4).u32(112, 0x4441_5441).u32(116, 11).poke(120, b"/etc/passwd")
        }),
        ("extended-l2-of-small-clusters", "qcow2.header", |i| i.u64(72, 16)),
        ("data-file-unnamed", "qcow2.data-file", |i| i.u64(72, 4)),
        ("unknown-feature", "qcow2.features", |i| i.u64(72, 1 << 63)),
        ("compression-without-bit", "qcow2.header", |i| i.poke(104, &[1])),
        ("bit-without-compression", "qcow2.header", |i| i.u64(72, 8)),
        ("compression-unknown", "qcow2.compression", |i| i.u64(72, 8).poke(104, &[9])),
        ("backing-name-0", "qcow2.header", |i| i.u64(8, 200)),
        ("backing-name-beyond-cluster", "qcow2.header", |i| i.u64(8, 4090).u32(16, 7)),
        ("backing-name-overflow", "qcow2.header", |i| i.u64(8, u64::MAX).u32(16, 7)),
    ];
    for (name, code, change) in cases {
        let mut image = Image::new();
        let error = change(&mut image).open().unwrap_err();
        assert_eq!(error.code(), *code, "{name}: {error:?}");
    }
}

#[test]
fn unknown_features_are_called_by_their_names() {
    let mut image = Image::new();
    image.u64(72, 1 << 5 | 1 << 6).u32(112, 0x6803_f857).u32(116, 48).poke(120, &[0, 5]).poke(122, b"shiny\x1b[2J");
    let error = image.open().unwrap_err().to_string();
    assert!(error.contains("bit 5 (shiny\\u{1b}[2J), bit 6"), "{error}");
}

#[test]
fn hostile_tables_and_clusters_are_named_errors() {
    let bomb = |bytes: usize| deflate(&vec![0; bytes]);
    let cases: &[(&str, &str, Change)] = &[
        ("l1-entry-unaligned", "qcow2.entry", |i| i.u64(L1, L2 as u64 + 512)),
        ("l1-entry-reserved", "qcow2.entry", |i| i.u64(L1, L2 as u64 | 1)),
        ("l2-beyond-eof", "qcow2.truncated", |i| i.u64(L1, 1 << 40)),
        ("l2-last-offset", "qcow2.truncated", |i| i.u64(L1, 0x00ff_ffff_ffff_f000)),
        ("l2-entry-unaligned", "qcow2.entry", |i| i.l2(0, 512)),
        ("l2-entry-reserved-low", "qcow2.entry", |i| i.l2(0, 2)),
        ("l2-entry-reserved-high", "qcow2.entry", |i| i.l2(0, 1 << 60)),
        ("v2-zero-flag", "qcow2.entry", |i| i.u32(4, 2).l2(0, 1)),
        ("data-beyond-eof", "qcow2.truncated", |i| i.l2(0, DATA as u64)),
        ("data-last-offset", "qcow2.truncated", |i| i.l2(0, 0x00ff_ffff_ffff_f000)),
        ("compressed-beyond-eof", "qcow2.truncated", |i| i.l2(0, 1 << 62 | 1 << 50)),
        ("compressed-at-eof", "qcow2.truncated", |i| i.l2(0, 1 << 62 | DATA as u64)),
        ("compressed-all-ones", "qcow2.truncated", |i| i.l2(0, u64::MAX >> 1)),
        ("deflate-garbage", "qcow2.decode", |i| i.compressed(0, &[0xff; 64])),
        ("zstd-garbage", "qcow2.decode", |i| i.zstd().compressed(0, &[0xff; 64])),
        ("zstd-window-2g", "qcow2.decode", |i| {
            // Frame header: magic, no content size, window descriptor for 2 GiB; then a raw block that never comes.
            i.zstd().compressed(0, &[0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0xff, 0xff, 0xff])
        }),
        ("zstd-skippable-for-ever", "qcow2.decode", |i| {
            let frame = [0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0];
            i.zstd().compressed(0, &frame.repeat(64))
        }),
    ];
    for (name, code, change) in cases {
        let mut image = Image::new();
        let error = change(&mut image).open().and_then(|layer| read(&*layer)).unwrap_err();
        assert_eq!(error.code(), *code, "{name}: {error:?}");
    }
    for (name, stored, zstd) in [
        ("deflate-bomb", bomb(64 << 20), false),
        ("deflate-short", bomb(CLUSTER - 1), false),
        ("zstd-bomb", zstd::bulk::compress(&vec![0; 8 << 20], 1).unwrap(), true),
        ("zstd-short", zstd::bulk::compress(&[0; CLUSTER - 1], 1).unwrap(), true),
    ] {
        let mut image = Image::new();
        if zstd {
            image.zstd();
        }
        image.compressed(0, &stored[..stored.len().min(CLUSTER)]);
        let error = read(&*image.open().unwrap()).unwrap_err();
        assert_eq!(error.code(), "qcow2.decode", "{name}: {error:?}");
    }
}

#[test]
fn tables_that_point_at_themselves_end() {
    let mut image = Image::new();
    image.u64(L1, L1 as u64);
    assert!(read(&*image.open().unwrap()).is_ok(), "its first entry names a cluster that is there");
    let mut image = Image::new();
    image.u64(L1, 0).l2(0, 0).u64(40, 0);
    let _ = image.open().and_then(|layer| read(&*layer));
}

#[test]
fn a_file_cut_anywhere_is_an_error_and_never_zeros() {
    let mut image = Image::new();
    let at = image.append(&noise(3, CLUSTER));
    image.l2(0, at).compressed(1, &deflate(&noise(4, CLUSTER / 4).repeat(4)));
    let whole = read(&*image.open().unwrap()).unwrap();
    let end = image.0.len();
    for len in (0..512).chain((512..end).step_by(61)).chain([L1, L1 + 7, L2, L2 + 8, DATA, DATA + 1, DATA + CLUSTER]) {
        let cut = Image(image.0[..len].to_vec());
        match cut.open().and_then(|layer| read(&*layer)) {
            Ok(bytes) => assert_eq!(bytes, whole, "cut to {len}"),
            Err(error) => {
                assert!(matches!(error.code(), "qcow2.truncated" | "qcow2.header" | "qcow2.decode"), "{error:?}")
            }
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_tables_never_panic(entries in prop::collection::vec(any::<u64>(), 8), l1 in any::<u64>(), v2 in any::<bool>()) {
        let mut image = Image::new();
        image.append(&noise(1, CLUSTER));
        for (index, entry) in entries.into_iter().enumerate() {
            image.l2(index, entry);
        }
        if l1 % 4 == 0 {
            image.u64(L1, l1);
        }
        if v2 {
            image.u32(4, 2);
        }
        let layer = image.open().unwrap();
        let _ = read(&*layer);
        for offset in [0, 1, CLUSTER as u64, SIZE as u64 - 1] {
            let _ = layer.map(offset, SIZE as u64 - offset);
        }
    }

    #[test]
    fn a_poked_header_never_panics(at in 0_usize..160, value in any::<u64>()) {
        let mut image = Image::new();
        image.u64(at, value);
        if let Ok(layer) = image.open() {
            let _ = layer.map(0, layer.len().max(1));
        }
    }
}

/// Clusters of noise, of text and of nothing, with odd ends.
fn sample(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    for (index, part) in bytes.chunks_mut(40_000).enumerate() {
        match index % 4 {
            0 => part.copy_from_slice(&noise(index as u64, part.len())),
            1 => part.fill(b'x'),
            2 => part[..1].fill(1),
            _ => {}
        }
    }
    bytes
}

fn read_file(path: &Path) -> Vec<u8> {
    #[allow(clippy::disallowed_methods, reason = "a test reads its own file")]
    let bytes = std::fs::read(path).unwrap();
    let image = Image(bytes);
    read(&*image.open().unwrap()).unwrap()
}

#[test]
fn agrees_with_qemu_img() {
    let dir = tempfile::tempdir().unwrap();
    let raw = dir.path().join("raw");
    let image = dir.path().join("image.qcow2");
    for len in [512, 1_500_672, 4 << 20] {
        let bytes = sample(len);
        std::fs::write(&raw, &bytes).unwrap();
        for options in [
            "compat=0.10",
            "compat=1.1",
            "cluster_size=512",
            "cluster_size=4k",
            "cluster_size=2M",
            "preallocation=metadata",
            "preallocation=falloc",
        ] {
            let base = ["convert", "-f", "raw", "-O", "qcow2", "-o", options];
            qemu_img(&[&base[..], &[arg(&raw), arg(&image)]].concat());
            assert_eq!(read_file(&image), bytes, "{len} {options}");
            if !options.starts_with("prealloc") {
                qemu_img(&[&base[..], &["-c", arg(&raw), arg(&image)]].concat());
                assert_eq!(read_file(&image), bytes, "{len} {options} -c");
            }
            if !options.starts_with("prealloc") && !options.starts_with("compat=0") {
                let zstd = format!("{options},compression_type=zstd");
                qemu_img(&["convert", "-f", "raw", "-O", "qcow2", "-o", &zstd, "-c", arg(&raw), arg(&image)]);
                assert_eq!(read_file(&image), bytes, "{len} {zstd} -c");
            }
        }
    }
}

#[test]
fn agrees_with_qemu_img_on_empty_images() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image.qcow2");
    for size in ["0", "512", "1M", "3G"] {
        for preallocation in ["off", "metadata"] {
            let options = format!("preallocation={preallocation}");
            qemu_img(&["create", "-q", "-f", "qcow2", "-o", &options, arg(&image), size]);
            let file = FileSource::open(&image).unwrap();
            let layer = Qcow2::open(file, &Session::with_defaults()).unwrap();
            let mut at = 0;
            while at < layer.len() {
                at += layer.map(at, layer.len() - at).unwrap().len;
            }
        }
    }
}
