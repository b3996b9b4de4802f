use std::collections::BTreeMap;
use std::ops::ControlFlow;

use proptest::prelude::*;

use super::*;
use crate::disk::{Checked, Memory};
use crate::limits::{MAX_DISK_LEN, MAX_VHD_BLOCK};
use crate::session::{Budget, Policy, Session};
use crate::source::FileSource;
use crate::testing::{arg, noise, qemu_img};

const BLOCK: usize = 8 * 512;
const TABLE: usize = 1536;

/// What a test builds an image from: a disk of some sectors in blocks of eight.
struct Builder {
    disk_type: u32,
    sectors: u64,
    geometry: (u16, u8, u8),
    creator: [u8; 4],
    id: [u8; 16],
    parent_id: [u8; 16],
    parent_name: &'static str,
    locators: Vec<([u8; 4], Vec<u8>)>,
    /// By number: the sectors that are here.
    blocks: BTreeMap<u32, BTreeMap<usize, [u8; 512]>>,
}

impl Builder {
    fn new(disk_type: u32, sectors: u64) -> Self {
        Self {
            disk_type,
            sectors,
            geometry: (1, 2, 3),
            creator: *b"win ",
            id: [1; 16],
            parent_id: [0; 16],
            parent_name: "",
            locators: Vec::new(),
            blocks: BTreeMap::new(),
        }
    }

    fn sector(&mut self, sector: usize, byte: u8) -> &mut Self {
        let block = self.blocks.entry((sector / 8) as u32).or_default();
        block.insert(sector % 8, [byte; 512]);
        self
    }

    fn footer(&self) -> [u8; 512] {
        let mut footer = [0; 512];
        footer[..8].copy_from_slice(b"conectix");
        put(&mut footer, 12, &0x1_0000_u32.to_be_bytes());
        let header = if self.disk_type == 2 { u64::MAX } else { 512 };
        put(&mut footer, 16, &header.to_be_bytes());
        put(&mut footer, 28, &self.creator);
        put(&mut footer, 48, &(self.sectors * 512).to_be_bytes());
        put(&mut footer, 56, &self.geometry.0.to_be_bytes());
        put(&mut footer, 58, &[self.geometry.1, self.geometry.2]);
        put(&mut footer, 60, &self.disk_type.to_be_bytes());
        put(&mut footer, 68, &self.id);
        summed(&mut footer, 64);
        footer
    }

    fn header(&self, data: &mut Vec<u8>) -> Vec<u8> {
        let mut header = vec![0; 1024];
        header[..8].copy_from_slice(b"cxsparse");
        put(&mut header, 8, &u64::MAX.to_be_bytes());
        put(&mut header, 16, &(TABLE as u64).to_be_bytes());
        put(&mut header, 24, &0x1_0000_u32.to_be_bytes());
        put(&mut header, 28, &(self.sectors.div_ceil(8) as u32).to_be_bytes());
        put(&mut header, 32, &(BLOCK as u32).to_be_bytes());
        put(&mut header, 40, &self.parent_id);
        let name: Vec<u8> = self.parent_name.encode_utf16().flat_map(u16::to_be_bytes).collect();
        put(&mut header, 64, &name);
        for (index, (code, name)) in self.locators.iter().enumerate() {
            let entry = 576 + 24 * index;
            put(&mut header, entry, code);
            put(&mut header, entry + 4, &512_u32.to_be_bytes());
            put(&mut header, entry + 8, &(name.len() as u32).to_be_bytes());
            put(&mut header, entry + 16, &(data.len() as u64).to_be_bytes());
            data.extend(name);
            data.resize(data.len().next_multiple_of(512), 0);
        }
        summed(&mut header, 36);
        header
    }

    fn build(&self) -> Vec<u8> {
        let footer = self.footer();
        if self.disk_type == 2 {
            let mut bytes = vec![0; (self.sectors * 512) as usize];
            for (block, sectors) in &self.blocks {
                for (sector, content) in sectors {
                    put(&mut bytes, *block as usize * BLOCK + sector * 512, content);
                }
            }
            bytes.extend(footer);
            return bytes;
        }
        let blocks = self.sectors.div_ceil(8) as usize;
        let mut bytes = vec![0xff; (TABLE + 4 * blocks).next_multiple_of(512)];
        let header = self.header(&mut bytes);
        put(&mut bytes, 0, &footer);
        put(&mut bytes, 512, &header);
        for (block, sectors) in &self.blocks {
            let at = (bytes.len() / 512) as u32;
            put(&mut bytes, TABLE + 4 * *block as usize, &at.to_be_bytes());
            let mut stored = vec![0; 512 + BLOCK];
            for (sector, content) in sectors {
                stored[0] |= 0x80 >> sector;
                put(&mut stored, 512 + 512 * sector, content);
            }
            bytes.extend(stored);
        }
        bytes.extend(footer);
        bytes
    }
}

fn put(bytes: &mut [u8], at: usize, what: &[u8]) {
    bytes[at..at + what.len()].copy_from_slice(what);
}

fn summed(bytes: &mut [u8], at: usize) {
    put(bytes, at, &[0; 4]);
    let sum = footer::checksum(bytes, at);
    put(bytes, at, &sum.to_be_bytes());
}

fn head(bytes: Vec<u8>) -> Result<Head> {
    open(Checked::wrap(Memory::new(bytes)), &Ask::current(&Session::with_defaults()))
}

fn layer(bytes: Vec<u8>) -> Result<Arc<dyn Layer>> {
    (head(bytes)?.build)(Vec::new())
}

/// For each sector, its first byte, or none where the parent decides.
fn sectors(layer: &dyn Layer) -> Result<Vec<Option<u8>>> {
    let mut found = Vec::new();
    while (found.len() as u64) * 512 < layer.len() {
        let at = found.len() as u64 * 512;
        let run = layer.map(at, layer.len() - at)?;
        assert!(run.len > 0 && run.len % 512 == 0 && at + run.len <= layer.len());
        for sector in 0..run.len / 512 {
            found.push(match run.place {
                Place::Data { offset, .. } => Some(read_vec(&*layer.files()[0], offset + sector * 512, 512)?[0]),
                _ => None,
            });
        }
    }
    Ok(found)
}

fn code(bytes: Vec<u8>) -> &'static str {
    layer(bytes).and_then(|layer| sectors(&*layer)).map_or_else(|error| error.code(), |_| "ok")
}

#[test]
fn a_fixed_disk_is_its_bytes() {
    let mut builder = Builder::new(2, 20);
    builder.sector(0, 7).sector(19, 9);
    let bytes = builder.build();
    let layer = layer(bytes.clone()).unwrap();
    assert_eq!(layer.len(), 20 * 512);
    let sectors = sectors(&*layer).unwrap();
    assert_eq!((sectors[0], sectors[1], sectors[19]), (Some(7), Some(0), Some(9)));
    let sample = Sample::take(&Memory::new(bytes)).unwrap();
    assert!(probe(&sample) && is_fixed(&sample));
}

#[test]
fn blocks_of_a_dynamic_disk_are_read_whatever_their_bitmap_says() {
    let mut builder = Builder::new(3, 30);
    builder.sector(9, 7).sector(29, 9);
    let found = sectors(&*layer(builder.build()).unwrap()).unwrap();
    let expected: Vec<_> = (0..30)
        .map(|sector| match sector {
            9 => Some(7),
            29 => Some(9),
            8..16 | 24..30 => Some(0),
            _ => None,
        })
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn sectors_of_a_differencing_disk_are_here_or_in_the_parent() {
    let mut builder = Builder::new(4, 32);
    builder.parent_name = "C:\\vm\\base.vhd";
    for sector in [0, 8, 9, 10, 15, 17, 30, 31] {
        builder.sector(sector, sector as u8 + 1);
    }
    let layer = layer(builder.build()).unwrap();
    let expected: Vec<_> = (0..32).map(|s| [0, 8, 9, 10, 15, 17, 30, 31].contains(&s).then_some(s as u8 + 1)).collect();
    assert_eq!(sectors(&*layer).unwrap(), expected);
    assert_eq!(layer.map(8 * 512 + 100, 4096).unwrap().len, 3 * 512 - 100);
    assert_eq!(layer.map(18 * 512, 32 * 512 - 18 * 512).unwrap(), Run { len: 6 * 512, place: Place::Parent });
}

#[test]
fn the_parent_is_sought_beside_the_disk_first_and_must_be_the_right_one() {
    let mut builder = Builder::new(4, 8);
    builder.parent_id = [9; 16];
    builder.parent_name = "base.vhd";
    let utf16 = |name: &str| name.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    builder.locators.push((*b"W2ku", utf16("D:\\vm\\base.vhd")));
    builder.locators.push((*b"W2ru", utf16(".\\sub\\base.vhd")));
    let parent = head(builder.build()).unwrap().parent.unwrap();
    let names: Vec<String> = parent.names.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["base.vhd", "sub/base.vhd", "D:\\vm\\base.vhd"]);
    let mut right = Builder::new(2, 8);
    right.id = [9; 16];
    assert!((parent.accept)(&*layer(right.build()).unwrap()).is_ok());
    right.id = [8; 16];
    let error = (parent.accept)(&*layer(right.build()).unwrap()).unwrap_err();
    assert_eq!(error.code(), "vhd.parent");
}

#[test]
fn the_size_follows_the_program_that_made_the_disk() {
    let mut builder = Builder::new(2, 24);
    builder.geometry = (3, 2, 3);
    let size = |creator: &[u8; 4], geometry, asked| {
        let mut builder = Builder::new(2, 24);
        (builder.creator, builder.geometry) = (*creator, geometry);
        let policy = Policy { vhd_size: asked, ..Policy::default() };
        let session = Session::new(Budget::new(0), policy, 1);
        let head = open(Checked::wrap(Memory::new(builder.build())), &Ask::current(&session)).unwrap();
        (head.build)(Vec::new()).unwrap().len() / 512
    };
    for creator in [b"vpc ", b"qemu"] {
        assert_eq!(size(creator, (3, 2, 3), VhdSize::ByCreator), 18);
        assert_eq!(size(creator, (65_535, 16, 255), VhdSize::ByCreator), 24);
        assert_eq!(size(creator, (0, 0, 0), VhdSize::ByCreator), 24);
        assert_eq!(size(creator, (3, 2, 3), VhdSize::Current), 24);
    }
    for creator in [b"win ", b"qem2", b"tap\0", b"wa\0\0", b"vbox"] {
        assert_eq!(size(creator, (3, 2, 3), VhdSize::ByCreator), 24);
        assert_eq!(size(creator, (3, 2, 3), VhdSize::Geometry), 18);
    }
}

#[test]
fn a_lost_footer_is_taken_from_its_copy() {
    let mut builder = Builder::new(3, 16);
    builder.sector(3, 5);
    let mut bytes = builder.build();
    bytes.truncate(bytes.len() - 512);
    let layer = layer(bytes).unwrap();
    assert_eq!(sectors(&*layer).unwrap()[3], Some(5));
    assert!(layer.facts().iter().any(|(key, value)| *key == "note" && value.contains("copy")));
}

#[test]
fn a_footer_of_511_bytes_is_read() {
    let mut builder = Builder::new(2, 16);
    builder.sector(3, 5);
    let mut bytes = builder.build();
    bytes.pop();
    assert_eq!(sectors(&*layer(bytes).unwrap()).unwrap()[3], Some(5));
}

#[test]
fn hostile_disks_are_refused() {
    let sound = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut builder = Builder::new(3, 16);
        builder.sector(3, 5).sector(9, 6);
        let mut bytes = builder.build();
        change(&mut bytes);
        bytes
    };
    // Changes a field of the dynamic header, or of both footers, and their checksums.
    let header = |at: usize, value: Vec<u8>| {
        sound(&|bytes| {
            put(bytes, 512 + at, &value);
            summed(&mut bytes[512..1536], 36);
        })
    };
    let footer = |at: usize, value: Vec<u8>| {
        sound(&|bytes| {
            let end = bytes.len() - 512;
            for start in [0, end] {
                put(bytes, start + at, &value);
                summed(&mut bytes[start..start + 512], 64);
            }
        })
    };
    let u32s = |value: u32| value.to_be_bytes().to_vec();
    let u64s = |value: u64| value.to_be_bytes().to_vec();
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("sound", sound(&|_| {}), "ok"),
        ("header checksum", sound(&|bytes| bytes[600] ^= 1), "vhd.header"),
        ("header magic", sound(&|bytes| bytes[512] = 0), "vhd.header"),
        ("header version", header(24, u32s(0x2_0000)), "vhd.header"),
        ("header beyond the end", footer(16, u64s(1 << 40)), "vhd.header"),
        ("header at the end of numbers", footer(16, u64s(u64::MAX)), "vhd.header"),
        ("block size 0", header(32, u32s(0)), "vhd.header"),
        ("block size 3", header(32, u32s(3)), "vhd.header"),
        ("block size 256", header(32, u32s(256)), "vhd.header"),
        ("block size huge", header(32, u32s(1 << 31)), "vhd.header"),
        ("too few entries", header(28, u32s(1)), "vhd.header"),
        ("entries beyond the end", header(28, u32s(u32::MAX)), "vhd.header"),
        ("table beyond the end", header(16, u64s(1 << 40)), "vhd.header"),
        ("table unaligned", header(16, u64s(1537)), "vhd.header"),
        ("disk type 7", footer(60, u32s(7)), "vhd.footer"),
        ("version 9", footer(12, u32s(0x9_0000)), "vhd.footer"),
        ("size 0", footer(48, u64s(0)), "vhd.footer"),
        ("half a sector", footer(48, u64s(700)), "vhd.footer"),
        ("size beyond all limits", footer(48, u64s(MAX_DISK_LEN + 512)), "vhd.footer"),
        ("size beyond the table", footer(48, u64s(1 << 30)), "vhd.header"),
        ("block beyond the end", sound(&|bytes| put(bytes, TABLE, &0x00ff_ffff_u32.to_be_bytes())), "vhd.truncated"),
        ("block in the footer's copy", sound(&|bytes| put(bytes, TABLE, &[0; 4])), "vhd.block"),
        ("block in the header", sound(&|bytes| put(bytes, TABLE, &[0, 0, 0, 1])), "vhd.block"),
        ("block in the table", sound(&|bytes| put(bytes, TABLE, &[0, 0, 0, 3])), "vhd.block"),
        ("no footer at all", vec![0; 4096], "vhd.footer"),
        ("a fixed disk cut short", Builder::new(2, 16).build()[4096..].to_vec(), "vhd.truncated"),
        ("differencing without a parent", Builder::new(4, 16).build(), "vhd.parent"),
    ];
    for (name, bytes, expected) in cases {
        assert_eq!(code(bytes), expected, "{name}");
    }
}

#[test]
fn the_bound_of_a_block_holds() {
    let with = |block: u64| {
        let mut bytes = Builder::new(3, 16).build();
        put(&mut bytes, 512 + 32, &u32::try_from(block).unwrap().to_be_bytes());
        summed(&mut bytes[512..1536], 36);
        head(bytes).is_ok()
    };
    assert!(with(MAX_VHD_BLOCK) && with(MAX_VHD_BLOCK / 2) && !with(MAX_VHD_BLOCK * 2));
}

#[test]
fn a_file_cut_anywhere_is_an_error_or_the_same_disk() {
    let mut builder = Builder::new(3, 16);
    builder.sector(3, 5).sector(9, 6);
    let whole = builder.build();
    let expected = sectors(&*layer(whole.clone()).unwrap()).unwrap();
    for len in 0..whole.len() {
        if let Ok(found) = layer(whole[..len].to_vec()).and_then(|layer| sectors(&*layer)) {
            assert_eq!(found, expected, "cut to {len}");
        }
    }
}

#[test]
fn check_finds_blocks_that_share_bytes() {
    let mut builder = Builder::new(3, 32);
    builder.sector(3, 5).sector(9, 6);
    let findings = |bytes: Vec<u8>| {
        let mut found = Vec::new();
        let mut report = |finding: Finding| {
            found.push((finding.severity, finding.what));
            ControlFlow::Continue(())
        };
        layer(bytes).unwrap().check(&mut report).unwrap();
        found
    };
    let mut bytes = builder.build();
    assert_eq!(findings(bytes.clone()), []);
    bytes.copy_within(TABLE..TABLE + 4, TABLE + 4);
    put(&mut bytes, TABLE + 12, &[0, 0, 0, 1]);
    let found = findings(bytes.clone());
    assert_eq!(found.iter().filter(|(severity, _)| *severity == Severity::Corruption).count(), 2, "{found:?}");
    bytes[100] ^= 1;
    assert!(findings(bytes).iter().any(|(severity, _)| *severity == Severity::Note));
}

#[test]
fn a_raw_disk_that_ends_like_a_damaged_vhd_is_said_to() {
    let mut bytes = Builder::new(2, 16).build();
    let end = bytes.len() - 512;
    bytes[end + 100] ^= 1;
    let sample = Sample::take(&Memory::new(bytes)).unwrap();
    assert!(!probe(&sample));
    assert_eq!(super::super::probe::marks(&sample), ["the end of a VHD image"]);
}

#[test]
fn reads_what_qemu_img_writes() {
    let dir = tempfile::tempdir().unwrap();
    let (raw, vhd) = (dir.path().join("raw"), dir.path().join("vhd"));
    let mut content = vec![0; 5 << 20];
    content[..1 << 20].copy_from_slice(&noise(1, 1 << 20));
    content[(4 << 20) + 512..(4 << 20) + 1024].fill(7);
    std::fs::write(&raw, &content).unwrap();
    for options in ["subformat=dynamic,force_size=on", "subformat=fixed,force_size=on", "subformat=dynamic"] {
        qemu_img(&["convert", "-f", "raw", "-O", "vpc", "-o", options, arg(&raw), arg(&vhd)]);
        let head = open(FileSource::open(&vhd).unwrap(), &Ask::current(&Session::with_defaults())).unwrap();
        let layer = (head.build)(Vec::new()).unwrap();
        let info: serde_json::Value =
            serde_json::from_str(&qemu_img(&["info", "-f", "vpc", "--output=json", arg(&vhd)])).unwrap();
        assert_eq!(info["virtual-size"].as_u64(), Some(layer.len()), "{options}");
        for (index, byte) in sectors(&*layer).unwrap().into_iter().enumerate() {
            let expected = content.get(index * 512).copied().unwrap_or(0);
            assert_eq!(byte.unwrap_or(0), expected, "sector {index}, {options}");
        }
    }
}

proptest! {
    #[test]
    fn any_set_of_sectors_is_found_again(here in proptest::collection::btree_set(0_usize..200, 0..60), from in 0_u64..200, max in 1_u64..200) {
        let mut builder = Builder::new(4, 200);
        builder.parent_name = "p.vhd";
        for sector in &here {
            builder.sector(*sector, 1);
        }
        let layer = layer(builder.build()).unwrap();
        let found: Vec<bool> = sectors(&*layer).unwrap().iter().map(Option::is_some).collect();
        prop_assert_eq!(&found, &(0..200).map(|sector| here.contains(&sector)).collect::<Vec<_>>());
        let max = max.min(200 - from);
        let run = layer.map(from * 512, max * 512);
        if max > 0 {
            let run = run.unwrap();
            let sectors = usize::try_from(run.len / 512).unwrap();
            let first = usize::try_from(from).unwrap();
            prop_assert!(found[first..first + sectors].iter().all(|here| *here == found[first]));
        }
    }
}
