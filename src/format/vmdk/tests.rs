#![allow(clippy::arithmetic_side_effects, clippy::as_conversions, reason = "tests build their input")]

mod esx;
mod forward;

use super::header::tests::{good, poke};
use super::*;
use crate::disk::{Checked, Memory};
use crate::format::{FORMATS, Place, Run};
use crate::session::{Budget, Session};
use crate::testing::{arg, noise, qemu_img};

const GRAIN: usize = 4096;

/// A sparse file in memory, built grain by grain: 8 sectors a grain, 4 entries a table.
struct Builder {
    header: [u8; 512],
    footer: bool,
    zlib: bool,
    /// By grain: what is stored.
    grains: Vec<Option<Vec<u8>>>,
    /// Entries to overwrite after all: grain and value.
    entries: Vec<(usize, u32)>,
    directory: Vec<(usize, u32)>,
    redundant: bool,
    descriptor: String,
}

const EMBEDDED: &str =
    "# Disk DescriptorFile\nCID=1\nparentCID=ffffffff\ncreateType=\"monolithicSparse\"\nRW 99 SPARSE \"a.vmdk\"\n";

impl Builder {
    fn new(sectors: u64) -> Self {
        let mut header = good();
        poke(&mut header, 12, sectors);
        poke(&mut header, 20, 8);
        poke(&mut header, 44, 4);
        poke(&mut header, 28, 1);
        poke(&mut header, 36, 1);
        poke(&mut header, 8, 1);
        let count = (sectors as usize).div_ceil(8);
        Self {
            header,
            footer: false,
            zlib: false,
            grains: vec![None; count],
            entries: Vec::new(),
            directory: Vec::new(),
            redundant: false,
            descriptor: EMBEDDED.into(),
        }
    }

    fn stream(sectors: u64) -> Self {
        let mut builder = Self::new(sectors);
        poke(&mut builder.header, 8, 1 | 1 << 16 | 1 << 17);
        poke(&mut builder.header, 77, 1);
        builder.zlib = true;
        builder.footer = true;
        builder
    }

    fn grain(mut self, index: usize, byte: u8) -> Self {
        self.grains[index] = Some((0..GRAIN).map(|at| byte.wrapping_add((at / 64) as u8)).collect());
        self
    }

    fn entry(mut self, grain: usize, value: u32) -> Self {
        self.entries.push((grain, value));
        self
    }

    fn table(mut self, number: usize, value: u32) -> Self {
        self.directory.push((number, value));
        self
    }

    fn field(mut self, at: usize, value: u64) -> Self {
        poke(&mut self.header, at, value);
        self
    }

    /// Header, descriptor, directory, redundant directory, tables, grains, footer.
    fn build(&self) -> Vec<u8> {
        let tables = self.grains.len().div_ceil(4);
        let first_table = 4;
        let mut sector = first_table + tables;
        let mut entries = vec![0_u32; tables * 4];
        let mut data = Vec::new();
        for (index, grain) in self.grains.iter().enumerate() {
            let Some(grain) = grain else { continue };
            entries[index] = sector as u32;
            let stored =
                if self.zlib { super::grain::tests::stored(index as u64 * 8, grain, true) } else { grain.clone() };
            sector += stored.len() / 512;
            data.extend(stored);
        }
        for (grain, value) in &self.entries {
            entries[*grain] = *value;
        }
        let good_directory: Vec<u32> = (0..tables)
            .map(|number| {
                let used = entries[number * 4..number * 4 + 4].iter().any(|entry| *entry != 0);
                if used { (first_table + number) as u32 } else { 0 }
            })
            .collect();
        let mut directory = good_directory.clone();
        for (number, value) in &self.directory {
            directory[*number] = *value;
        }
        let mut header = self.header;
        if self.redundant {
            poke(&mut header, 48, 3);
        }
        let mut footer = header;
        poke(&mut footer, 56, 2);
        poke(&mut header, 56, if self.footer { u64::MAX } else { 2 });
        let mut file = header.to_vec();
        file.extend(padded(self.descriptor.as_bytes(), 512));
        for list in [&directory, &good_directory] {
            file.extend(padded(&list.iter().flat_map(|entry| entry.to_le_bytes()).collect::<Vec<u8>>(), 512));
        }
        for table in entries.chunks(4) {
            file.extend(padded(&table.iter().flat_map(|entry| entry.to_le_bytes()).collect::<Vec<u8>>(), 512));
        }
        file.extend(data);
        if self.footer {
            let mut marker = [0; 512];
            marker[12] = 3;
            file.extend(marker);
            file.extend(footer);
            file.extend([0; 512]);
        }
        file
    }
}

fn padded(bytes: &[u8], to: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.resize(bytes.len().next_multiple_of(to).max(to), 0);
    bytes
}

fn layer(bytes: Vec<u8>) -> Result<Arc<dyn Layer>> {
    let file: Arc<dyn Disk> = Checked::wrap(Memory::new(bytes));
    let head = open(file, &Ask::current(&Session::with_defaults()))?;
    assert!(head.extents.is_empty(), "{:?}", head.extents);
    (head.build)(Vec::new())
}

/// Reads all of a layer the way `Image` does, without its checks.
fn read(layer: &dyn Layer) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    while (out.len() as u64) < layer.len() {
        let offset = out.len() as u64;
        let run = layer.map(offset, layer.len() - offset)?;
        let len = run.len as usize;
        assert!(len > 0 && out.len() + len <= layer.len() as usize);
        match run.place {
            Place::Data { file, offset } => out.extend(read_vec(&*layer.files()[file], offset, len)?),
            Place::Encoded(unit) => {
                let mut bytes = vec![0xa5; unit.len as usize];
                layer.decode(&unit, &mut bytes)?;
                let within = (offset - unit.start) as usize;
                out.extend(&bytes[within..within + len]);
            }
            Place::Parent | Place::Zero => out.resize(out.len() + len, 0),
        }
    }
    Ok(out)
}

fn expected(builder: &Builder, sectors: usize) -> Vec<u8> {
    let grains = builder.grains.iter().flat_map(|grain| grain.clone().unwrap_or(vec![0; GRAIN]));
    grains.take(sectors * 512).collect()
}

#[test]
fn sparse_and_stream_files_read_the_same() {
    for mut builder in [Builder::new(93), Builder::stream(93)] {
        for (index, byte) in [(0, 1), (1, 2), (3, 3), (4, 4), (11, 5)] {
            builder = builder.grain(index, byte);
        }
        let layer = layer(builder.build()).unwrap();
        assert_eq!((layer.len(), layer.unit_size()), (93 * 512, GRAIN as u64));
        assert_eq!(read(&*layer).unwrap(), expected(&builder, 93));
    }
}

#[test]
fn runs_are_long() {
    let builder = Builder::new(8 * 16).grain(1, 1).grain(2, 2).grain(3, 3).grain(4, 4);
    let layer = layer(builder.build()).unwrap();
    let run = layer.map(0, 8 * 16 * 512).unwrap();
    assert_eq!(run, Run { len: 4096, place: Place::Parent });
    let run = layer.map(4096 + 512, 8 * 15 * 512).unwrap();
    assert_eq!((run.len, run.place), (4 * 4096 - 512, Place::Data { file: 0, offset: 8 * 512 + 512 }), "across tables");
    let run = layer.map(5 * 4096, 11 * 4096).unwrap();
    assert_eq!((run.len, run.place), (11 * 4096, Place::Parent), "over tables that are not there");
}

#[test]
fn an_encoded_unit_is_bounded_by_the_next() {
    let bytes = Builder::stream(32).grain(0, 1).grain(1, 2).build();
    let len = bytes.len() as u64;
    let layer = layer(bytes).unwrap();
    let unit = |offset| match layer.map(offset, 4096).unwrap().place {
        Place::Encoded(unit) => unit,
        place => panic!("{place:?}"),
    };
    let (first, second) = (unit(512), unit(4096));
    assert_eq!(u64::from(first.stored), second.offset - first.offset);
    assert!(second.offset + u64::from(second.stored) <= len);
    assert_eq!((first.start, first.len), (0, 4096));
}

#[test]
fn zeroed_grains_and_tables_are_zero_where_the_header_says_so() {
    let builder = Builder::new(64).grain(0, 1).entry(1, 1).table(1, 1).field(8, 1 | 4);
    let layer = layer(builder.build()).unwrap();
    assert_eq!(layer.map(4096, 8192).unwrap(), Run { len: 4096, place: Place::Zero });
    assert_eq!(layer.map(4 * 4096, 4 * 4096).unwrap(), Run { len: 4 * 4096, place: Place::Zero });
    assert_eq!(layer.map(2 * 4096, 4096).unwrap().place, Place::Parent);
}

#[test]
fn a_damaged_directory_entry_is_taken_from_the_redundant_one() {
    let mut builder = Builder::new(64).grain(0, 1).grain(5, 2).table(1, 0x7fff_ffff);
    assert_eq!(read(&*layer(builder.build()).unwrap()).unwrap_err().code(), "vmdk.grain");
    builder.redundant = true;
    builder = builder.field(8, 3);
    let layer = layer(builder.build()).unwrap();
    assert_eq!(read(&*layer).unwrap(), expected(&builder, 64));
    assert!(layer.facts().contains(&("repairedTables", "1".into())));
}

#[test]
fn hostile_files_are_refused() {
    let stream = || Builder::stream(64).grain(0, 1).grain(5, 2);
    let sparse = || Builder::new(64).grain(0, 1).grain(5, 2);
    let with = |builder: Builder, descriptor: &str| Builder { descriptor: descriptor.into(), ..builder };
    let flat = "# Disk DescriptorFile\nRW 64 FLAT \"/etc/passwd\" 0\n";
    let elsewhere = "# Disk DescriptorFile\nRW 64 SPARSE \"../x.vmdk\"\n";
    let parent = "# Disk DescriptorFile\nparentCID=00000001\nRW 64 SPARSE \"x.vmdk\"\n";
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("gte far away", sparse().entry(0, 0x7fff_ffff).build(), "vmdk.grain"),
        ("gte at the last byte", sparse().entry(0, 20).build(), "vmdk.grain"),
        ("gte max", stream().entry(5, u32::MAX).build(), "vmdk.grain"),
        ("table far away", sparse().table(0, u32::MAX).build(), "vmdk.grain"),
        ("stream grain of another place", stream().entry(0, 14).entry(5, 6).build(), "vmdk.grain"),
        ("stream grain in the descriptor", stream().entry(0, 1).build(), "vmdk.grain"),
        (
            "more tables than the file can hold",
            sparse().field(12, 1 << 16).field(44, 1).field(56, 4).build(),
            "vmdk.directory",
        ),
        ("tiny file, huge disk", sparse().field(12, 1 << 40).build(), "vmdk.directory"),
        ("too many tables", sparse().field(12, 1 << 36).field(44, 1).build(), "vmdk.directory"),
        ("descriptor outside", sparse().field(28, 1 << 30).build(), "vmdk.descriptor"),
        ("empty descriptor", with(sparse(), "").build(), "vmdk.descriptor"),
        ("no descriptor", sparse().field(28, 0).build(), "vmdk.descriptor"),
        ("descriptor names a host file", with(stream(), flat).build(), "reference.refused"),
        ("descriptor leads elsewhere", with(stream(), elsewhere).build(), "reference.refused"),
        ("a snapshot", with(sparse(), parent).build(), "vmdk.parent"),
        ("no footer", Builder { footer: false, ..stream() }.field(56, 2).build(), "ok"),
    ];
    for (name, bytes, code) in cases {
        let result = layer(bytes).and_then(|layer| read(&*layer));
        assert_eq!(result.map_or_else(|error| error.code(), |_| "ok"), code, "{name}");
    }
}

#[test]
fn the_name_inside_is_not_opened_and_must_not_lead_elsewhere() {
    let named = |name: &str, policy: Policy| {
        let descriptor = format!("# Disk DescriptorFile\nRW 64 SPARSE \"{name}\"\n");
        let bytes = Builder { descriptor, ..Builder::new(64) }.build();
        let session = Session::new(Budget::new(0), policy, 1);
        open(Checked::wrap(Memory::new(bytes)), &Ask::current(&session)).map_or_else(|error| error.code(), |_| "ok")
    };
    for (name, code) in [
        ("disk.vmdk", "ok"),
        ("out/disk.vmdk", "ok"),
        ("/etc/passwd", "reference.refused"),
        ("../x.vmdk", "reference.refused"),
        ("a/../../x.vmdk", "reference.refused"),
        ("C:\\x.vmdk", "reference.refused"),
        ("nbd:host", "reference.refused"),
        ("", "reference.refused"),
    ] {
        assert_eq!(named(name, Policy::default()), code, "{name}");
    }
    let policy =
        Policy { allow_dirs: vec!["/build".into()], map_path: vec![("C:\\".into(), "/x".into())], ..Policy::default() };
    assert_eq!(named("/build/out/disk.vmdk", policy.clone()), "ok");
    assert_eq!(named("C:\\x.vmdk", policy.clone()), "ok");
    assert_eq!(named("/etc/passwd", policy), "reference.refused");
}

#[test]
fn the_number_of_tables_is_bounded() {
    let of = |tables: u64| {
        let mut bytes = Builder::new(8).field(12, tables * 8).field(44, 1).build();
        bytes.resize(1024 + 4 * tables as usize, 0);
        bytes[1024..].fill(0);
        layer(bytes)
    };
    let layer = of(limits::MAX_VMDK_TABLES).unwrap();
    assert_eq!(layer.map(0, layer.len()).unwrap(), Run { len: layer.len(), place: Place::Parent });
    assert_eq!(of(limits::MAX_VMDK_TABLES + 1).unwrap_err().code(), "vmdk.directory");
}

#[test]
fn a_footer_that_differs_is_refused() {
    let bytes = Builder::stream(64).grain(0, 1).build();
    let footer = bytes.len() - 1024;
    for at in [0, 4, 12, 20, 28, 44] {
        let mut bytes = bytes.clone();
        bytes[footer + at] ^= 2;
        assert!(matches!(layer(bytes).unwrap_err().code(), "vmdk.footer" | "vmdk.header"), "{at}");
    }
    for at in [footer - 512 + 12, footer + 512 + 12] {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        assert_eq!(layer(bytes).unwrap_err().code(), "vmdk.footer");
    }
}

#[test]
fn every_truncation_fails_or_reads_the_same() {
    for builder in [Builder::new(64).grain(0, 1).grain(5, 2), Builder::stream(64).grain(0, 1).grain(5, 2)] {
        let (bytes, expected) = (builder.build(), expected(&builder, 64));
        for len in 1..bytes.len() {
            if let Ok(read) = layer(bytes[..len].to_vec()).and_then(|layer| read(&*layer)) {
                assert_eq!(read, expected, "cut at {len}");
            }
        }
    }
}

#[test]
fn a_descriptor_names_its_files_once_and_in_order() {
    let text = "# Disk DescriptorFile\nRW 8 FLAT \"a\" 8\nRW 8 ZERO\nRW 8 FLAT \"b\" 0\nRW 8 FLAT \"a\" 0\n";
    let head = open(Checked::wrap(Memory::new(text.into())), &Ask::current(&Session::with_defaults())).unwrap();
    assert_eq!(head.extents.iter().map(ToString::to_string).collect::<Vec<_>>(), ["a", "b"]);
    let file = |byte: u8, len| -> Arc<dyn Disk> { Checked::wrap(Memory::new(vec![byte; len])) };
    let layer = (head.build)(vec![file(1, 8192), file(2, 4096)]).unwrap();
    let bytes: Vec<u8> = [1, 0, 2, 1].iter().flat_map(|byte| [*byte; 4096]).collect();
    assert_eq!(read(&*layer).unwrap(), bytes);
    assert_eq!(layer.map(0, 100).unwrap().place, Place::Data { file: 0, offset: 4096 });
    let head = open(Checked::wrap(Memory::new(text.into())), &Ask::current(&Session::with_defaults())).unwrap();
    assert_eq!((head.build)(vec![file(1, 8191), file(2, 4096)]).unwrap_err().code(), "vmdk.extent");
}

#[test]
fn a_descriptor_inside_a_header_without_capacity_counts() {
    let descriptor = "# Disk DescriptorFile\nRW 8 FLAT \"a\" 0\n".to_owned();
    let bytes = Builder { descriptor, ..Builder::new(8) }.field(12, 0).build();
    let head = open(Checked::wrap(Memory::new(bytes)), &Ask::current(&Session::with_defaults())).unwrap();
    assert_eq!(head.extents.len(), 1);
}

#[test]
fn the_table_lists_it() {
    assert!(FORMATS.iter().any(|driver| driver.name == "vmdk"));
    let sample = Sample::take(&Memory::new(Builder::new(8).build())).unwrap();
    assert_eq!(crate::format::probe::detect(&sample).unwrap().name, "vmdk");
}
