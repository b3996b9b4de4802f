use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::disk::Memory;
use crate::disk::bytes::{le32, put, put32};
use crate::session::Session;
use crate::source::FileSource;
use crate::testing::{arg, noise, qemu_img};

const M: usize = 1 << 20;
const LOG: usize = M;
const METADATA: usize = 2 * M;
const BAT: usize = 3 * M;
const DATA: usize = 4 * M;
pub(super) const LOG_GUID: [u8; 16] = [7; 16];
const DATA_GUID: [u8; 16] = [9; 16];

/// A disk in blocks of 1 MiB: headers, log, metadata, table, then whatever a test appends.
struct Image {
    bytes: Vec<u8>,
    items: usize,
    item_bytes: usize,
}

impl Image {
    fn new(size: u64, sector: u32) -> Self {
        let mut image = Self { bytes: vec![0; DATA], items: 0, item_bytes: 64 << 10 };
        put(&mut image.bytes, 0, b"vhdxfile");
        for (at, sequence) in [(64 << 10, 1_u64), (128 << 10, 2)] {
            let header = &mut image.bytes[at..at + 4096];
            put(header, 0, b"head");
            put(header, 8, &sequence.to_le_bytes());
            put(header, 32, &DATA_GUID);
            put(header, 66, &[1, 0]);
            put32(header, 68, M as u32);
            put(header, 72, &(LOG as u64).to_le_bytes());
        }
        for at in [192 << 10, 256 << 10] {
            let table = &mut image.bytes[at..at + (64 << 10)];
            put(table, 0, b"regi");
            put32(table, 8, 2);
            for (index, (guid, offset)) in [
                (0x2dc2_7766_f623_4200_9d64_115e_9bfd_4a08, BAT),
                (0x8b7c_a206_4790_4b9a_b8fe_575f_050f_886e, METADATA),
            ]
            .into_iter()
            .enumerate()
            {
                let entry = 16 + 32 * index;
                put(table, entry, &Uuid::from_u128(guid).to_bytes_le());
                put(table, entry + 16, &(offset as u64).to_le_bytes());
                put32(table, entry + 24, M as u32);
                put32(table, entry + 28, 1);
            }
        }
        put(&mut image.bytes, METADATA, b"metadata");
        image.item(0xcaa1_6737_fa36_4d43_b3b6_33f0_aa44_e76b, &(M as u64).to_le_bytes());
        image.item(0x2fa5_4224_cd1b_4876_b211_5dbe_d83b_f4b8, &size.to_le_bytes());
        image.item(0x8141_bf1d_a96f_4709_ba47_f233_a8fa_ab5f, &sector.to_le_bytes());
        image.summed();
        image
    }

    fn item(&mut self, guid: u128, value: &[u8]) -> &mut Self {
        let entry = METADATA + 32 + 32 * self.items;
        put(&mut self.bytes, entry, &Uuid::from_u128(guid).to_bytes_le());
        put32(&mut self.bytes, entry + 16, self.item_bytes as u32);
        put32(&mut self.bytes, entry + 20, value.len() as u32);
        put32(&mut self.bytes, entry + 24, 4);
        put(&mut self.bytes, METADATA + self.item_bytes, value);
        self.item_bytes += value.len().next_multiple_of(64);
        self.items += 1;
        put(&mut self.bytes, METADATA + 10, &(self.items as u16).to_le_bytes());
        self
    }

    /// Makes it a differencing disk with these entries of the parent locator.
    fn parent(&mut self, entries: &[(&str, &str)]) -> &mut Self {
        put32(&mut self.bytes, METADATA + (64 << 10) + 4, 2);
        let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
        let mut table = Uuid::from_u128(0xb04a_efb7_d19e_4a81_b789_25b8_e944_5913).to_bytes_le().to_vec();
        table.extend([0, 0]);
        table.extend((entries.len() as u16).to_le_bytes());
        let mut texts = Vec::new();
        let start = 20 + 12 * entries.len();
        for (key, value) in entries {
            let (key, value) = (utf16(key), utf16(value));
            table.extend(((start + texts.len()) as u32).to_le_bytes());
            table.extend(((start + texts.len() + key.len()) as u32).to_le_bytes());
            table.extend((key.len() as u16).to_le_bytes());
            table.extend((value.len() as u16).to_le_bytes());
            texts.extend(key);
            texts.extend(value);
        }
        table.extend(texts);
        self.item(0xa8d3_5f2d_b30b_454d_abf7_d3d8_4834_ab0c, &table)
    }

    fn entry(&mut self, index: usize, value: u64) -> &mut Self {
        put(&mut self.bytes, BAT + 8 * index, &value.to_le_bytes());
        self
    }

    /// Appends a block whose sectors all begin with `byte`; gives its offset.
    fn append(&mut self, byte: u8) -> u64 {
        let at = self.bytes.len();
        self.bytes.resize(at + M, byte);
        at as u64
    }

    fn summed(&mut self) -> &mut Self {
        for (at, len) in [(64 << 10, 4096), (128 << 10, 4096), (192 << 10, 64 << 10), (256 << 10, 64 << 10)] {
            let part = &mut self.bytes[at..at + len];
            put32(part, 4, 0);
            let sum = crc32c::crc32c(part);
            put32(part, 4, sum);
        }
        self
    }

    /// Says in both headers that the log holds entries.
    fn logged(&mut self) -> &mut Self {
        for at in [64 << 10, 128 << 10] {
            put(&mut self.bytes, at + 48, &LOG_GUID);
        }
        self.summed()
    }

    /// Writes a log entry at `at` of the log, wrapping; gives where the next one goes.
    fn log(&mut self, at: usize, sequence: u64, tail: usize, changes: &[Change]) -> usize {
        let entry = log_entry(sequence, tail, self.bytes.len() as u64, changes);
        for (index, byte) in entry.iter().enumerate() {
            self.bytes[LOG + (at + index) % M] = *byte;
        }
        (at + entry.len()) % M
    }

    fn head(&self) -> Result<Head> {
        open(Checked::wrap(Memory::new(self.bytes.clone())), &Ask::current(&Session::with_defaults()))
    }

    fn layer(&self) -> Result<Arc<dyn Layer>> {
        (self.head()?.build)(Vec::new())
    }

    fn code(&self) -> &'static str {
        self.layer().and_then(|layer| blocks(&*layer)).map_or_else(|error| error.code(), |_| "ok")
    }
}

/// What a log entry does.
pub(super) enum Change {
    Put(u64, Box<[u8; 4096]>),
    Zero(u64, u64),
}

pub(super) fn log_entry(sequence: u64, tail: usize, file_len: u64, changes: &[Change]) -> Vec<u8> {
    let mut entry = vec![0; (64 + 32 * changes.len()).next_multiple_of(4096)];
    put(&mut entry, 0, b"loge");
    put32(&mut entry, 12, tail as u32);
    put(&mut entry, 16, &sequence.to_le_bytes());
    put32(&mut entry, 24, changes.len() as u32);
    put(&mut entry, 32, &LOG_GUID);
    put(&mut entry, 48, &file_len.to_le_bytes());
    put(&mut entry, 56, &file_len.to_le_bytes());
    for (index, change) in changes.iter().enumerate() {
        let at = 64 + 32 * index;
        put(&mut entry, at + 24, &sequence.to_le_bytes());
        match change {
            Change::Put(offset, data) => {
                put(&mut entry, at, b"desc");
                put(&mut entry, at + 4, &data[4092..]);
                put(&mut entry, at + 8, &data[..8]);
                put(&mut entry, at + 16, &offset.to_le_bytes());
                let mut sector = vec![0; 4096];
                put(&mut sector, 0, b"data");
                put32(&mut sector, 4, (sequence >> 32) as u32);
                put(&mut sector, 8, &data[8..4092]);
                put32(&mut sector, 4092, sequence as u32);
                entry.extend(sector);
            }
            Change::Zero(offset, length) => {
                put(&mut entry, at, b"zero");
                put(&mut entry, at + 8, &length.to_le_bytes());
                put(&mut entry, at + 16, &offset.to_le_bytes());
            }
        }
    }
    let len = entry.len() as u32;
    put32(&mut entry, 8, len);
    let sum = crc32c::crc32c(&entry);
    put32(&mut entry, 4, sum);
    entry
}

/// The first byte of every run with its length in KiB; none for the parent's.
fn blocks(layer: &dyn Layer) -> Result<Vec<(Option<u8>, u64)>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < layer.len() {
        let run = layer.map(at, layer.len() - at)?;
        assert!(run.len > 0 && at + run.len <= layer.len());
        let byte = match run.place {
            Place::Data { offset, .. } => Some(read_vec(&*layer.files()[0], offset, 512)?[0]),
            Place::Zero => Some(0),
            _ => None,
        };
        found.push((byte, run.len >> 10));
        at += run.len;
    }
    Ok(found)
}

fn five_blocks() -> Image {
    let mut image = Image::new(5 << 20, 512);
    let (a, b) = (image.append(1), image.append(2));
    image.entry(0, a | 6).entry(1, b | 6).entry(3, 2).entry(4, a | 6);
    image
}

#[test]
fn blocks_are_where_the_table_says() {
    let layer = five_blocks().layer().unwrap();
    let expected = [(Some(1), 2048), (None, 1024), (Some(0), 1024), (Some(1), 1024)];
    assert_eq!(blocks(&*layer).unwrap(), expected);
    assert_eq!(layer.identity().unwrap(), Uuid::from_bytes_le(DATA_GUID).to_string());
}

#[test]
fn every_state_of_a_block_has_its_meaning() {
    for (state, expected) in [(0, None), (1, Some(0)), (2, Some(0)), (3, Some(0)), (5, Some(0)), (6, Some(8))] {
        let mut image = Image::new(1 << 20, 512);
        let at = image.append(8);
        image.entry(0, at | state);
        assert_eq!(blocks(&*image.layer().unwrap()).unwrap(), [(expected, 1024)], "state {state}");
    }
    for state in [4, 7] {
        let mut image = Image::new(1 << 20, 512);
        let at = image.append(8);
        assert_eq!(image.entry(0, at | state).code(), "vhdx.bat", "state {state}");
    }
}

#[test]
fn sector_bitmaps_take_their_places_in_the_table() {
    // The 4,097th entry stands for the bitmap of the 4,096 blocks before it.
    let mut image = Image::new(4098 << 20, 512);
    let (a, b) = (image.append(1), image.append(2));
    image.entry(4095, a | 6).entry(4096, 0xdead_beef).entry(4098, b | 6);
    let layer = image.layer().unwrap();
    let at = |block: u64| match layer.map(block << 20, 512).unwrap().place {
        Place::Data { offset, .. } => Some(read_vec(&*layer.files()[0], offset, 1).unwrap()[0]),
        _ => None,
    };
    assert_eq!([4094, 4095, 4096, 4097].map(at), [None, Some(1), None, Some(2)]);
}

#[test]
fn sectors_of_a_differencing_disk_are_here_or_in_the_parent() {
    for sector in [512_u32, 4096] {
        let mut image = Image::new(3 << 20, sector);
        image.parent(&[("parent_linkage", "{83ed72a9-2a4b-4b9f-8f0c-7c1d2b1e4a10}"), ("relative_path", "p.vhdx")]);
        let (a, b, bitmap) = (image.append(1), image.append(2), image.append(0));
        let chunk = 4096 * sector as usize / 512;
        image.entry(0, a | 6).entry(1, b | 7).entry(chunk, bitmap | 6);
        // The second block's bits follow those of the first: sectors 0, 1 and 17 are here.
        let first = M / sector as usize / 8;
        put(&mut image.bytes, bitmap as usize + first, &[0b11, 0, 0b10]);
        let layer = image.layer().unwrap();
        let k = u64::from(sector) / 512;
        let runs: Vec<(Option<u8>, u64)> = blocks(&*layer).unwrap();
        assert_eq!(runs[..2], [(Some(1), 1024), (Some(2), k)]);
        assert_eq!(
            layer.map(M as u64 + 2 * u64::from(sector), 1 << 20).unwrap(),
            Run { len: 15 * u64::from(sector), place: Place::Parent }
        );
        assert_eq!(layer.map(M as u64 + 17 * u64::from(sector) + 100, 1 << 20).unwrap().len, u64::from(sector) - 100);
        assert_eq!(layer.sector_size().bytes(), u64::from(sector));
        image.entry(chunk, 0);
        assert_eq!(image.code(), "vhdx.bat");
    }
}

#[test]
fn the_parent_must_be_the_one_that_was_meant() {
    let mut image = Image::new(1 << 20, 512);
    let linkage = format!("{{{}}}", Uuid::from_bytes_le(DATA_GUID).to_string().to_uppercase());
    image.parent(&[
        ("parent_linkage2", "{00000000-0000-0000-0000-000000000000}"),
        ("parent_linkage", &linkage),
        ("relative_path", "..\\base\\p.vhdx"),
        ("absolute_win32_path", "\\\\?\\C:\\base\\p.vhdx"),
    ]);
    let parent = image.head().unwrap().parent.unwrap();
    let names: Vec<_> = parent.names.iter().map(|name| String::from_utf8(name.name.clone()).unwrap()).collect();
    assert_eq!(names, ["p.vhdx", "../base/p.vhdx", "\\\\?\\C:\\base\\p.vhdx"]);
    let right = Image::new(1 << 20, 512);
    assert!((parent.accept)(&*right.layer().unwrap()).is_ok());
    let mut wrong = Image::new(1 << 20, 512);
    for at in [64 << 10, 128 << 10] {
        put(&mut wrong.bytes, at + 32, &[8; 16]);
    }
    assert_eq!((parent.accept)(&*wrong.summed().layer().unwrap()).unwrap_err().code(), "vhdx.parent");
}

#[test]
fn the_log_is_replayed_in_order_and_only_the_active_sequence() {
    let mut image = five_blocks();
    let table = |image: &Image, entries: [u64; 5]| {
        let mut sector = [0; 4096];
        sector.copy_from_slice(&image.bytes[BAT..BAT + 4096]);
        for (index, entry) in entries.into_iter().enumerate() {
            put(&mut sector, 8 * index, &entry.to_le_bytes());
        }
        sector
    };
    let (a, b) = (DATA as u64, (DATA + M) as u64);
    let old = table(&image, [2; 5]);
    let middle = table(&image, [0, 0, 0, 0, b | 6]);
    let last = table(&image, [b | 6, 2, a | 6, 2, 0]);
    // An older sequence, then the active one, which begins near the end of the ring and goes on at its front.
    image.log(256 << 10, 3, 256 << 10, &[Change::Put(BAT as u64, Box::new(old))]);
    let tail = M - 4096;
    let next = image.log(tail, 10, tail, &[Change::Put(BAT as u64, Box::new(middle))]);
    image.log(next, 11, tail, &[Change::Zero(BAT as u64, 4096), Change::Put(BAT as u64, Box::new(last))]);
    image.logged();
    let layer = image.layer().unwrap();
    let found = blocks(&*layer).unwrap();
    assert_eq!(found, [(Some(2), 1024), (Some(0), 1024), (Some(1), 1024), (Some(0), 1024), (None, 1024)]);
    assert!(layer.facts().contains(&("log", "2 entries, replayed in memory".to_owned())));
}

#[test]
fn zeros_of_the_log_hide_what_was_there_and_what_was_logged_before() {
    let mut image = five_blocks();
    let sector: [u8; 4096] = image.bytes[BAT..BAT + 4096].try_into().unwrap();
    let next = image.log(0, 1, 0, &[Change::Put(BAT as u64, Box::new(sector))]);
    image.log(next, 2, 0, &[Change::Zero(BAT as u64, 8192)]);
    assert_eq!(blocks(&*image.logged().layer().unwrap()).unwrap(), [(None, 5 << 10)]);
}

#[test]
fn a_log_that_grows_the_file_is_replayed_past_its_end() {
    let mut image = Image::new(2 << 20, 512);
    let end = image.bytes.len() as u64;
    let mut sector: [u8; 4096] = image.bytes[BAT..BAT + 4096].try_into().unwrap();
    put(&mut sector, 0, &(end | 6).to_le_bytes());
    let mut entry = log_entry(1, 0, end, &[Change::Put(BAT as u64, Box::new(sector))]);
    put(&mut entry, 56, &(end + (M as u64)).to_le_bytes());
    put32(&mut entry, 4, 0);
    let sum = crc32c::crc32c(&entry);
    put32(&mut entry, 4, sum);
    put(&mut image.bytes, LOG, &entry);
    assert_eq!(blocks(&*image.logged().layer().unwrap()).unwrap(), [(Some(0), 1024), (None, 1024)]);
}

#[test]
fn hostile_logs_are_refused() {
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut image = five_blocks();
        let mut entry = log_entry(5, 0, image.bytes.len() as u64, &[Change::Put(BAT as u64, Box::new([0; 4096]))]);
        change(&mut entry);
        put32(&mut entry, 4, 0);
        let sum = crc32c::crc32c(&entry);
        put32(&mut entry, 4, sum);
        put(&mut image.bytes, LOG, &entry);
        image.logged().code()
    };
    let put64 = |bytes: &mut Vec<u8>, at: usize, value: u64| put(bytes, at, &value.to_le_bytes());
    assert_eq!(with(&|_| {}), "ok");
    assert_eq!(with(&|entry| put32(entry, 8, 0)), "vhdx.log", "length 0");
    assert_eq!(with(&|entry| put32(entry, 8, u32::MAX)), "vhdx.log", "length huge");
    assert_eq!(with(&|entry| put32(entry, 12, 4096)), "vhdx.log", "a tail that is not in the sequence");
    assert_eq!(with(&|entry| put32(entry, 24, u32::MAX)), "vhdx.log", "descriptors without end");
    assert_eq!(with(&|entry| put32(entry, 24, 2)), "vhdx.log", "a descriptor without a signature");
    assert_eq!(with(&|entry| put64(entry, 16, 0)), "vhdx.log", "sequence number 0");
    assert_eq!(with(&|entry| put64(entry, 64 + 24, 6)), "vhdx.log", "another entry's descriptor");
    assert_eq!(with(&|entry| put64(entry, 64 + 16, 1 << 50)), "vhdx.log", "data past the end");
    assert_eq!(with(&|entry| put64(entry, 64 + 16, u64::MAX - 4095)), "vhdx.log", "data at the end of numbers");
    assert_eq!(with(&|entry| put64(entry, 64 + 16, 7)), "vhdx.log", "data unaligned");
    assert_eq!(with(&|entry| put32(entry, 4096 + 4092, 1)), "vhdx.log", "torn data");
    assert_eq!(with(&|entry| put64(entry, 48, 1 << 40)), "vhdx.log", "a file that was cut short");
    assert_eq!(with(&|entry| put64(entry, 56, 1 << 60)), "vhdx.log", "a file beyond all limits");
    assert_eq!(five_blocks().logged().code(), "ok", "no entry yet");
    let mut looped = five_blocks();
    for at in (0..M).step_by(4096) {
        let mut entry = vec![0; 4096];
        put(&mut entry, 0, b"loge");
        put32(&mut entry, 8, M as u32);
        put(&mut entry, 16, &[1]);
        put(&mut entry, 32, &LOG_GUID);
        put(&mut looped.bytes, LOG + at, &entry);
    }
    assert_eq!(looped.logged().code(), "vhdx.log", "entries that overlap");
}

#[test]
fn hostile_disks_are_refused() {
    let with = |change: &dyn Fn(&mut Image)| {
        let mut image = five_blocks();
        change(&mut image);
        image.summed().code()
    };
    let both = |at: [usize; 2], field: usize, value: &[u8]| {
        with(&|image| at.iter().for_each(|at| put(&mut image.bytes, at + field, value)))
    };
    const HEADERS: [usize; 2] = [64 << 10, 128 << 10];
    const REGIONS: [usize; 2] = [192 << 10, 256 << 10];
    let region = |field: usize, value: &[u8]| both(REGIONS, 16 + field, value);
    let item =
        |number: usize, value: &[u8]| with(&|image| put(&mut image.bytes, METADATA + (64 << 10) + 64 * number, value));
    let meta = |at: usize, value: &[u8]| with(&|image| put(&mut image.bytes, METADATA + at, value));
    let cases = [
        ("sound", with(&|_| {}), "ok"),
        ("version 9", both(HEADERS, 66, &[9, 0]), "vhdx.version"),
        (
            "equal sequence numbers",
            with(&|image| {
                put(&mut image.bytes, HEADERS[0] + 8, &[2]);
                put(&mut image.bytes, HEADERS[0] + 32, &[8]);
            }),
            "vhdx.header",
        ),
        ("regions without number", both(REGIONS, 8, &[255; 4]), "vhdx.region"),
        ("no regions", both(REGIONS, 8, &[0; 4]), "vhdx.region"),
        ("region at 0", region(16, &[0; 8]), "vhdx.region"),
        ("region beyond the end", region(16, &[0, 0, 0, 0, 0, 1, 0, 0]), "vhdx.region"),
        ("region unaligned", region(16, &[0, 2, 0x30]), "vhdx.region"),
        ("regions overlap", region(16, &[0, 0, 0x20]), "vhdx.region"),
        ("region empty", region(24, &[0; 4]), "vhdx.region"),
        ("unknown region", region(0, &[3; 16]), "vhdx.feature"),
        ("metadata signature", meta(0, b"METADATA"), "vhdx.metadata"),
        ("items without number", meta(10, &[255, 255]), "vhdx.metadata"),
        ("item missing", meta(10, &[2, 0]), "vhdx.metadata"),
        ("item beyond the region", meta(32 + 16, &[0, 0, 0xff, 0xff]), "vhdx.metadata"),
        ("item in the table", meta(32 + 16, &[0; 4]), "vhdx.metadata"),
        ("item empty", meta(32 + 20, &[0; 4]), "vhdx.metadata"),
        ("unknown item", meta(32 + 32 * 2, &[3; 16]), "vhdx.feature"),
        ("block size 0", item(0, &[0; 4]), "vhdx.metadata"),
        ("block size 3", item(0, &[3, 0, 0, 0]), "vhdx.metadata"),
        ("block size huge", item(0, &[0, 0, 0, 0x80]), "vhdx.metadata"),
        ("disk size 0", item(1, &[0; 8]), "vhdx.metadata"),
        ("disk size huge", item(1, &[255; 8]), "vhdx.metadata"),
        ("disk larger than the table", item(1, &(1_u64 << 40).to_le_bytes()), "vhdx.bat"),
        ("sector size 513", item(2, &[1, 2, 0, 0]), "vhdx.metadata"),
        ("block beyond the end", with(&|image| _ = image.entry(0, (1 << 40) | 6)), "vhdx.truncated"),
        ("block at the end of numbers", with(&|image| _ = image.entry(0, u64::MAX - 1)), "vhdx.truncated"),
        ("block in the headers", with(&|image| _ = image.entry(0, 6)), "vhdx.bat"),
        ("block in the table", with(&|image| _ = image.entry(0, BAT as u64 | 6)), "vhdx.bat"),
    ];
    for (name, found, expected) in cases {
        assert_eq!(found, expected, "{name}");
    }
    let mut damaged = five_blocks();
    damaged.bytes[HEADERS[0] + 100] ^= 1;
    assert_eq!(damaged.code(), "ok", "one sound header is enough");
    damaged.bytes[HEADERS[1] + 100] ^= 1;
    assert_eq!(damaged.code(), "vhdx.header");
    let mut damaged = five_blocks();
    damaged.bytes[REGIONS[0] + 100] ^= 1;
    assert_eq!(damaged.code(), "ok", "one sound region table is enough");
    damaged.bytes[REGIONS[1] + 100] ^= 1;
    assert_eq!(damaged.code(), "vhdx.region");
}

#[test]
fn a_file_cut_anywhere_is_an_error() {
    let whole = five_blocks();
    let edges = [0, 8, 520, 64 << 10, 128 << 10, 192 << 10, 256 << 10, M, METADATA, BAT, BAT + 4096, DATA, DATA + M];
    for edge in edges {
        for len in [edge.saturating_sub(1), edge, edge + 1] {
            let cut = Image { bytes: whole.bytes[..len].to_vec(), ..Image::new(512, 512) };
            assert_ne!(cut.code(), "ok", "cut to {len:#x}");
        }
    }
}

#[test]
fn check_finds_blocks_that_share_bytes_and_damaged_copies() {
    let mut image = five_blocks();
    image.bytes[(128 << 10) + 100] ^= 1;
    let mut found = Vec::new();
    let mut report = |finding: Finding| {
        found.push(finding.severity);
        ControlFlow::Continue(())
    };
    image.layer().unwrap().check(&mut report).unwrap();
    assert_eq!(found, [Severity::Note, Severity::Corruption]);
}

#[test]
fn the_bounds_of_the_log_hold() {
    use crate::limits::MAX_VHDX_LOG;
    let with = |length: u64| {
        let mut image = five_blocks();
        image.bytes.resize(DATA + 2 * M, 0);
        image.log(0, 1, 0, &[]);
        for at in [64 << 10, 128 << 10] {
            put32(&mut image.bytes, at + 68, u32::try_from(length).unwrap());
        }
        image.logged();
        let disk: Arc<dyn Disk> = Checked::wrap(Memory::new(image.bytes.clone()));
        let zeros: Arc<dyn Disk> = Checked::wrap(crate::disk::Zero { len: length });
        let long: Arc<dyn Disk> = Checked::wrap(crate::disk::Concat::new("long", vec![disk, zeros]));
        open(long, &Ask::current(&Session::with_defaults()))
            .map_or_else(|error| error.kind() != crate::Kind::Limit, |_| true)
    };
    assert!(with(MAX_VHDX_LOG - M as u64) && with(MAX_VHDX_LOG) && !with(MAX_VHDX_LOG + M as u64));
}

fn layer_of(path: &std::path::Path) -> Arc<dyn Layer> {
    let head = open(FileSource::open(path).unwrap(), &Ask::current(&Session::with_defaults())).unwrap();
    (head.build)(Vec::new()).unwrap()
}

/// All bytes of an image file, as the layer maps them.
fn content(path: &std::path::Path) -> Vec<u8> {
    let layer = layer_of(path);
    let mut bytes = vec![0; usize::try_from(layer.len()).unwrap()];
    let mut at = 0_u64;
    while at < layer.len() {
        let run = layer.map(at, layer.len() - at).unwrap();
        if let Place::Data { offset, .. } = run.place {
            let range = usize::try_from(at).unwrap()..usize::try_from(at + run.len).unwrap();
            layer.files()[0].read_at(&mut bytes[range], offset).unwrap();
        }
        at += run.len;
    }
    bytes
}

#[test]
fn reads_what_qemu_img_writes() {
    let dir = tempfile::tempdir().unwrap();
    let (raw, vhdx) = (dir.path().join("raw"), dir.path().join("vhdx"));
    let mut bytes = vec![0; 5 << 20];
    bytes[..1 << 20].copy_from_slice(&noise(1, 1 << 20));
    bytes[(4 << 20) + 512..(4 << 20) + 1024].fill(7);
    std::fs::write(&raw, &bytes).unwrap();
    for options in ["subformat=dynamic", "subformat=fixed", "subformat=dynamic,block_size=1M,log_size=2M"] {
        qemu_img(&["convert", "-f", "raw", "-O", "vhdx", "-o", options, arg(&raw), arg(&vhdx)]);
        assert!(content(&vhdx) == bytes, "{options}");
    }
}

/// QEMU, killed at one sync after the other, leaves a log behind; its own replay, which writes the file, is the oracle. strace
/// counts the syncs of each thread, and which thread makes which is the scheduler's choice: so there may be more rounds than one.
#[test]
#[allow(clippy::disallowed_methods, reason = "tests compare with a second implementation")]
fn a_log_that_qemu_left_is_replayed_as_qemu_replays_it() {
    let dir = tempfile::tempdir().unwrap();
    let (vhdx, raw) = (dir.path().join("vhdx"), dir.path().join("raw"));
    let mut logs = 0;
    for (round, sync) in (0..10).flat_map(|round| (3..12).map(move |sync| (round, sync))) {
        if round > 0 && logs > 1 {
            break;
        }
        let _ = std::fs::remove_file(&vhdx);
        qemu_img(&["create", "-f", "vhdx", "-o", "block_size=1M", arg(&vhdx), "40M"]);
        let mut io = std::process::Command::new("strace");
        io.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync", "-e"]);
        io.arg(format!("inject=fdatasync:signal=SIGKILL:when={sync}")).args(["qemu-io", "-f", "vhdx"]);
        io.args(["-c", "write -P 1 0 4k", "-c", "write -P 2 9M 3M", "-c", "write -P 3 30M 512"]).arg(&vhdx);
        io.output().expect("strace and qemu-io are needed: apt-get install strace qemu-utils");
        let ours = content(&vhdx);
        let facts = layer_of(&vhdx).facts();
        logs += usize::from(!facts.contains(&("log", "empty".to_owned())));
        qemu_img(&["check", "-q", "-r", "all", "-f", "vhdx", arg(&vhdx)]);
        qemu_img(&["convert", "-f", "vhdx", "-O", "raw", arg(&vhdx), arg(&raw)]);
        let raw = FileSource::open(&raw).unwrap();
        assert!(read_vec(&*raw, 0, ours.len()).unwrap() == ours, "killed at sync {sync}");
    }
    assert!(logs > 1, "QEMU left {logs} logs");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Any changes in any number of entries, against a plain copy of the file that they are written to.
    #[test]
    fn replay_is_writing(changes in prop::collection::vec((0_u64..16, any::<u8>(), any::<bool>(), 1_u64..5), 1..40), per_entry in 1_usize..6, start in 0_usize..256) {
        let mut image = five_blocks();
        let area = DATA;
        let mut expected = image.bytes.clone();
        let tail = start * 4096;
        let (mut at, mut sequence) = (tail, 100);
        for group in changes.chunks(per_entry) {
            let mut entry = Vec::new();
            for (sector, byte, zero, count) in group {
                let offset = area + 4096 * *sector as usize;
                if *zero {
                    let len = 4096 * *count as usize;
                    expected[offset..offset + len].fill(0);
                    entry.push(Change::Zero(offset as u64, len as u64));
                } else {
                    let data: [u8; 4096] = noise(u64::from(*byte), 4096).try_into().unwrap();
                    expected[offset..offset + 4096].copy_from_slice(&data);
                    entry.push(Change::Put(offset as u64, Box::new(data)));
                }
            }
            at = image.log(at, sequence, tail, &entry);
            sequence += 1;
        }
        image.logged();
        let layer = image.layer().unwrap();
        let file = &layer.files()[0];
        let found = read_vec(&**file, area as u64, 2 * M).unwrap();
        prop_assert!(found == expected[area..]);
        prop_assert_eq!(le32(&found, 4095), le32(&expected[area..], 4095));
        let odd = read_vec(&**file, area as u64 + 4000, 10_000).unwrap();
        prop_assert!(odd == expected[area + 4000..area + 14_000]);
    }
}

#[test]
fn a_disk_is_as_large_as_the_format_allows() {
    use crate::limits::MAX_VHDX_SIZE;
    let code = |size: u64| Image::new(size, 512).code();
    // A disk that may be has a table that is too small for it here.
    assert_eq!((code(MAX_VHDX_SIZE - 512), code(MAX_VHDX_SIZE)), ("vhdx.bat", "vhdx.bat"));
    assert_eq!(code(MAX_VHDX_SIZE + 512), "vhdx.metadata");
}
