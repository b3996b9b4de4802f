//! A writer of small journal files, which shares no code with the reader but the hashes (which have published values).

use std::collections::BTreeMap;

use crate::inspect::journal::hash::{jenkins, siphash24};

/// The machine that the files belong to.
pub(super) const ID: &str = "00112233445566778899aabbccddeeff";

const BUCKETS: u64 = 5;
const FILE_ID: [u8; 16] = [3; 16];

/// A journal file to be.
#[derive(Clone, Debug)]
pub(super) struct Build {
    compact: bool,
    keyed: bool,
    /// The object flag of the compression: 1 XZ, 2 LZ4, 4 Zstandard.
    compression: u8,
    seqnum_id: u8,
    array_items: usize,
    entries: Vec<(u8, u64, Vec<Vec<u8>>)>,
}

/// Where some objects are: the first data object, the first entry, the list of all entries.
#[derive(Clone, Copy)]
pub(super) struct Places {
    pub(super) data: usize,
    pub(super) entry: usize,
    pub(super) array: usize,
}

impl Default for Build {
    fn default() -> Self {
        Self { compact: false, keyed: false, compression: 0, seqnum_id: 1, array_items: 2, entries: Vec::new() }
    }
}

/// What is known of a data object while the file grows.
struct Known {
    at: usize,
    entries: Vec<usize>,
}

struct Writer<'b> {
    build: &'b Build,
    bytes: Vec<u8>,
    data: BTreeMap<Vec<u8>, Known>,
    fields: BTreeMap<Vec<u8>, usize>,
    counts: [u64; 8],
    tail: usize,
}

impl Build {
    /// All layouts, and all compressions.
    pub(super) fn every() -> Vec<Self> {
        let layouts = [(false, false), (false, true), (true, false), (true, true)];
        let layouts = layouts.map(|(compact, keyed)| Self { compact, keyed, ..Self::default() });
        let packed = [1, 2, 4].map(|compression| Self { compression, ..Self::default() });
        layouts.into_iter().chain(packed).collect()
    }

    pub(super) fn seqnum_id(self, seqnum_id: u8) -> Self {
        Self { seqnum_id, ..self }
    }

    /// How many entries go into one array of a list.
    pub(super) fn array_items(self, array_items: usize) -> Self {
        Self { array_items, ..self }
    }

    /// One more entry, of this start of the machine and at this time.
    pub(super) fn entry(mut self, boot: u8, realtime: u64, fields: &[&str]) -> Self {
        let boot_id = format!("_BOOT_ID={}", format!("{boot:02x}").repeat(16));
        let fields = fields.iter().map(|field| field.as_bytes().to_vec()).chain([boot_id.into_bytes()]);
        self.entries.push((boot, realtime, fields.collect()));
        self
    }

    pub(super) fn places(&self) -> Places {
        let bytes = self.clone().finish();
        let find =
            |kind: u8| (272..bytes.len()).step_by(8).find(|at| bytes[*at..at + 8] == [kind, 0, 0, 0, 0, 0, 0, 0]);
        let array = u64::from_le_bytes(bytes[176..184].try_into().unwrap());
        Places { data: find(1).unwrap(), entry: find(3).unwrap(), array: array as usize }
    }

    /// A file with so many data objects, all in the chain of `NOT=there`.
    pub(super) fn chain(others: usize) -> Vec<u8> {
        let build = Self::default();
        let mut writer = build.start();
        let at: Vec<usize> = (0..others)
            .map(|_| {
                let at = writer.object(1, 0, &[0; 48]);
                writer.bytes.extend([b'x'; 8]);
                writer.close(at)
            })
            .collect();
        for pair in at.windows(2) {
            writer.put(pair[0] + 24, pair[1]);
        }
        let hash = writer.hash(b"NOT=there");
        writer.put(272 + 16 + 16 * (hash % BUCKETS) as usize, at[0]);
        writer.header(0)
    }

    fn start(&self) -> Writer<'_> {
        let mut writer = Writer {
            build: self,
            bytes: vec![0; 272],
            data: BTreeMap::new(),
            fields: BTreeMap::new(),
            counts: [0; 8],
            tail: 0,
        };
        for kind in [4, 5] {
            let at = writer.object(kind, 0, &[0; 16 * BUCKETS as usize]);
            writer.close(at);
        }
        writer
    }

    /// The file.
    pub(super) fn finish(self) -> Vec<u8> {
        let mut writer = self.start();
        let mut all = Vec::new();
        for (number, (boot, realtime, fields)) in self.entries.iter().enumerate() {
            let items: Vec<usize> = fields.iter().map(|field| writer.field(field)).collect();
            let mut head = vec![];
            head.extend((number as u64 + 1).to_le_bytes());
            head.extend(realtime.to_le_bytes());
            head.extend(realtime.to_le_bytes());
            head.extend([*boot; 16]);
            head.extend((number as u64 ^ *realtime).to_le_bytes());
            let at = writer.object(3, 0, &head);
            for item in items {
                if self.compact {
                    writer.bytes.extend((item as u32).to_le_bytes());
                } else {
                    writer.bytes.extend((item as u64).to_le_bytes());
                    writer.bytes.extend([0; 8]);
                }
            }
            all.push(writer.close(at));
            for field in fields {
                let known = writer.data.get_mut(field).unwrap();
                if known.entries.last() != all.last() {
                    known.entries.extend(all.last());
                }
            }
        }
        let lists: Vec<(usize, Vec<usize>)> =
            writer.data.values().map(|known| (known.at, known.entries.clone())).collect();
        for (at, entries) in lists {
            writer.put(at + 40, entries[0]);
            let array = writer.arrays(&entries[1..]);
            writer.put(at + 48, array);
            writer.put(at + 56, entries.len());
        }
        let array = writer.arrays(&all);
        writer.header(array)
    }
}

impl Writer<'_> {
    fn put(&mut self, at: usize, value: usize) {
        self.bytes[at..at + 8].copy_from_slice(&(value as u64).to_le_bytes());
    }

    fn get(&self, at: usize) -> usize {
        u64::from_le_bytes(self.bytes[at..at + 8].try_into().unwrap()) as usize
    }

    fn hash(&self, payload: &[u8]) -> u64 {
        if self.build.keyed { siphash24(payload, &FILE_ID) } else { jenkins(payload) }
    }

    fn object(&mut self, kind: u8, flags: u8, fixed: &[u8]) -> usize {
        let at = self.bytes.len();
        self.bytes.extend([kind, flags, 0, 0, 0, 0, 0, 0]);
        self.bytes.extend([0; 8]);
        self.bytes.extend(fixed);
        at
    }

    fn close(&mut self, at: usize) -> usize {
        let size = self.bytes.len() - at;
        self.put(at + 8, size);
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        self.counts[usize::from(self.bytes[at])] += 1;
        self.tail = at;
        at
    }

    /// Links an object into the chain of its hash.
    fn link(&mut self, table: usize, hash: u64, at: usize) {
        let bucket = table + 16 + 16 * (hash % BUCKETS) as usize;
        let mut last = self.get(bucket);
        if last == 0 {
            return self.put(bucket, at);
        }
        while self.get(last + 24) != 0 {
            last = self.get(last + 24);
        }
        self.put(last + 24, at);
    }

    fn field(&mut self, payload: &[u8]) -> usize {
        if let Some(known) = self.data.get(payload) {
            return known.at;
        }
        let (flags, stored) = self.packed(payload);
        let hash = self.hash(payload);
        let at = self.object(1, flags, &hash.to_le_bytes());
        self.bytes.extend(vec![0; if self.build.compact { 48 } else { 40 }]);
        self.bytes.extend(stored);
        self.close(at);
        self.link(272, hash, at);
        let name = payload.split(|byte| *byte == b'=').next().unwrap().to_vec();
        let hash = self.hash(&name);
        let field = match self.fields.get(&name) {
            Some(field) => *field,
            None => {
                let field = self.object(2, 0, &hash.to_le_bytes());
                self.bytes.extend([0; 16]);
                self.bytes.extend(&name);
                self.close(field);
                self.link(272 + 16 + 16 * BUCKETS as usize, hash, field);
                self.fields.insert(name, field);
                field
            }
        };
        let head = self.get(field + 32);
        self.put(at + 32, head);
        self.put(field + 32, at);
        self.data.insert(payload.to_vec(), Known { at, entries: Vec::new() });
        at
    }

    fn packed(&self, payload: &[u8]) -> (u8, Vec<u8>) {
        let flags = self.build.compression;
        let stored = match flags {
            1 => {
                let mut packed = Vec::new();
                let mut encoder = liblzma::read::XzEncoder::new(payload, 1);
                std::io::copy(&mut encoder, &mut packed).unwrap();
                packed
            }
            2 => [&(payload.len() as u64).to_le_bytes(), &*lz4_flex::block::compress(payload)].concat(),
            4 => zstd::stream::encode_all(payload, 1).unwrap(),
            _ => payload.to_vec(),
        };
        (flags, stored)
    }

    fn arrays(&mut self, entries: &[usize]) -> usize {
        let (mut first, mut before) = (0, None);
        for items in entries.chunks(self.build.array_items) {
            let at = self.object(6, 0, &[0; 8]);
            for item in items {
                let width = if self.build.compact { 4 } else { 8 };
                self.bytes.extend(&(*item as u64).to_le_bytes()[..width]);
            }
            // The last one may have room that is not used yet.
            self.bytes.resize(at + 24 + self.build.array_items * if self.build.compact { 4 } else { 8 }, 0);
            self.close(at);
            match before {
                None => first = at,
                Some(before) => self.put(before, at),
            }
            before = Some(at + 16);
        }
        first
    }

    fn header(mut self, array: usize) -> Vec<u8> {
        let build = self.build;
        self.bytes[..8].copy_from_slice(b"LPKSHHRH");
        let packed = match build.compression {
            4 => 8,
            other => other,
        };
        self.bytes[12] = packed | u8::from(build.keyed) << 2 | u8::from(build.compact) << 4;
        self.bytes[24..40].copy_from_slice(&FILE_ID);
        self.bytes[72..88].copy_from_slice(&[build.seqnum_id; 16]);
        let table = 16 * BUCKETS as usize;
        let times = |index: Option<usize>| index.map_or(0, |index| build.entries[index].1 as usize);
        let last = build.entries.len().checked_sub(1);
        let numbers = [
            (88, 272),
            (96, self.bytes.len() - 272),
            (104, 272 + 16),
            (112, table),
            (120, 272 + 16 + table + 16),
            (128, table),
            (136, self.tail),
            (144, self.counts.iter().sum::<u64>() as usize),
            (152, build.entries.len()),
            (160, build.entries.len()),
            (168, usize::from(last.is_some())),
            (176, array),
            (184, times(last.map(|_| 0))),
            (192, times(last)),
            (208, self.counts[1] as usize),
            (216, self.counts[2] as usize),
            (224, self.counts[7] as usize),
            (232, self.counts[6] as usize),
        ];
        for (at, number) in numbers {
            self.put(at, number);
        }
        self.bytes
    }
}
