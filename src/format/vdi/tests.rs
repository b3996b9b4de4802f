use std::ops::ControlFlow;

use super::*;
use crate::disk::bytes::{put, put32};
use crate::disk::{Checked, Memory};
use crate::session::Session;

const MAP: usize = 512;
const DATA: usize = 1024;

/// A disk in blocks of 1 KiB, made block by block: none, zeros, or bytes of one value.
struct Image {
    bytes: Vec<u8>,
    stored: u32,
}

impl Image {
    fn new(blocks: u32, extra: u32) -> Self {
        let mut bytes = vec![0; DATA];
        put(&mut bytes, 0x40, &SIGNATURE);
        for (at, value) in [
            (0x44, 0x1_0001),
            (0x48, 0x190),
            (0x4c, 1),
            (0x154, MAP as u32),
            (0x158, DATA as u32),
            (0x168, 512),
            (0x170, blocks * 1024),
            (0x178, 1024),
            (0x17c, extra),
            (0x180, blocks),
        ] {
            put32(&mut bytes, at, value);
        }
        put(&mut bytes, 0x188, &[1; 16]);
        put(&mut bytes, 0x198, &[2; 16]);
        bytes[MAP..MAP + 4 * blocks as usize].fill(0xff);
        Self { bytes, stored: 0 }
    }

    fn block(&mut self, block: usize, byte: u8) -> &mut Self {
        let extra = le32(&self.bytes, 0x17c) as usize;
        put32(&mut self.bytes, MAP + 4 * block, self.stored);
        self.bytes.resize(self.bytes.len() + extra, 0xee);
        self.bytes.resize(self.bytes.len() + 1024, byte);
        self.stored += 1;
        put32(&mut self.bytes, 0x184, self.stored);
        self
    }

    fn set(&mut self, at: usize, value: u32) -> &mut Self {
        put32(&mut self.bytes, at, value);
        self
    }

    fn head(&self) -> Result<Head> {
        open(Checked::wrap(Memory::new(self.bytes.clone())), &Ask::current(&Session::with_defaults()))
    }

    fn layer(&self) -> Arc<dyn Layer> {
        (self.head().unwrap().build)(Vec::new()).unwrap()
    }

    fn code(&self) -> &'static str {
        let layer = self.head().and_then(|head| (head.build)(Vec::new()));
        layer.and_then(|layer| runs(&*layer)).map_or_else(|error| error.code(), |_| "ok")
    }
}

/// Runs by their length in KiB, with the first byte of those that are stored.
fn runs(layer: &dyn Layer) -> Result<Vec<(u64, Option<u8>)>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < layer.len() {
        let run = layer.map(at, layer.len() - at)?;
        assert!(run.len > 0 && at + run.len <= layer.len());
        found.push((
            run.len >> 10,
            match run.place {
                Place::Data { offset, .. } => Some(read_vec(&*layer.files()[0], offset, 1)?[0]),
                Place::Zero => Some(0),
                _ => None,
            },
        ));
        at += run.len;
    }
    Ok(found)
}

#[test]
fn blocks_are_where_the_map_says() {
    let mut image = Image::new(8, 0);
    image.block(1, 7).block(2, 8).block(6, 9).set(MAP + 16, ZERO);
    let expected = [(1, None), (2, Some(7)), (1, None), (1, Some(0)), (1, None), (1, Some(9)), (1, None)];
    assert_eq!(runs(&*image.layer()).unwrap(), expected);
}

#[test]
fn extra_bytes_lie_before_each_block() {
    let mut image = Image::new(3, 512);
    image.block(0, 7).block(1, 8);
    assert_eq!(runs(&*image.layer()).unwrap(), [(1, Some(7)), (1, Some(8)), (1, None)]);
}

#[test]
fn a_differencing_disk_knows_its_parent() {
    let mut image = Image::new(2, 0);
    put(&mut image.set(0x4c, 4).bytes, 0x1a8, &[1; 16]);
    put(&mut image.bytes, 0x1b8, &[2; 16]);
    let parent = image.head().unwrap().parent.unwrap();
    assert_eq!(parent.names[0].name, b"{01010101-0101-0101-0101-010101010101}.vdi");
    assert!(parent.names[0].is_plain());
    let mut base = Image::new(2, 0);
    assert!((parent.accept)(&*base.layer()).is_ok());
    put(&mut base.bytes, 0x198, &[3; 16]);
    assert_eq!((parent.accept)(&*base.layer()).unwrap_err().code(), "vdi.parent");
    put(&mut base.bytes, 0x188, &[3; 16]);
    assert_eq!((parent.accept)(&*base.layer()).unwrap_err().code(), "vdi.parent");
}

#[test]
fn hostile_disks_are_refused() {
    let cases: &[(&str, usize, u32, &str)] = &[
        ("sound", 0x1c0, 0, "ok"),
        ("signature", 0x40, 0, "vdi.header"),
        ("version 2", 0x44, 0x2_0000, "vdi.version"),
        ("version 1.0", 0x44, 0x1_0000, "vdi.version"),
        ("type 9", 0x4c, 9, "vdi.header"),
        ("map unaligned", 0x154, 513, "vdi.header"),
        ("map in the header", 0x154, 0, "vdi.header"),
        ("map beyond the end", 0x154, 0x7000_0000, "vdi.header"),
        ("data in the map", 0x158, 512, "vdi.header"),
        ("data beyond the end", 0x158, 0xffff_fe00, "vdi.header"),
        ("sectors of 0", 0x168, 0, "vdi.header"),
        ("size 0", 0x170, 0, "vdi.header"),
        ("size huge", 0x174, u32::MAX, "vdi.header"),
        ("half a sector", 0x170, 700, "vdi.header"),
        ("block size 0", 0x178, 0, "vdi.header"),
        ("block size 3", 0x178, 3, "vdi.header"),
        ("extra bytes without end", 0x17c, u32::MAX, "vdi.header"),
        ("no blocks", 0x180, 0, "vdi.header"),
        ("blocks without end", 0x180, u32::MAX, "vdi.header"),
        ("block beyond the end", MAP, 5, "vdi.truncated"),
        ("block at the end of numbers", MAP, 0xffff_fffd, "vdi.truncated"),
    ];
    for (name, at, value, expected) in cases {
        let mut image = Image::new(4, 0);
        image.block(0, 1).block(3, 2).set(*at, *value);
        assert_eq!(image.code(), *expected, "{name}");
    }
}

#[test]
fn a_file_cut_anywhere_is_an_error() {
    let mut whole = Image::new(4, 0);
    whole.block(0, 1).block(3, 2);
    for len in 0..whole.bytes.len() {
        let cut = Image { bytes: whole.bytes[..len].to_vec(), stored: 0 };
        assert_ne!(cut.code(), "ok", "cut to {len}");
    }
}

#[test]
fn check_counts() {
    let severities = |image: &Image| {
        let mut found = Vec::new();
        let mut report = |finding: Finding| {
            found.push(finding.severity);
            ControlFlow::Continue(())
        };
        image.layer().check(&mut report).unwrap();
        found
    };
    let mut image = Image::new(4, 0);
    image.block(0, 1).block(3, 2);
    assert_eq!(severities(&image), []);
    assert_eq!(severities(image.set(0x184, 3)), [Severity::Leak]);
    assert_eq!(severities(image.set(0x184, 1)), [Severity::Note]);
    assert_eq!(severities(image.set(0x184, 2).set(MAP + 12, 0)), [Severity::Corruption]);
    assert_eq!(severities(image.set(MAP + 12, 99)), [Severity::Corruption, Severity::Leak]);
}
