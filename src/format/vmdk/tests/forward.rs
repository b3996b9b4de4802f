//! Stream-optimized disks read forward, compared with reading the same bytes by their tables.

use super::super::forward::Markers;
use super::super::grain::tests::stored;
use super::*;
use crate::disk::feed::{Content, DiskStream};

const SECTORS: u64 = 100;

/// What stands in a stream, in order.
enum Part {
    Grain(u64, Vec<u8>),
    /// `val` and `type` of a marker, and the sectors behind it.
    Marker(u64, u32, Vec<u8>),
}

fn marker(value: u64, kind: u32) -> Vec<u8> {
    let mut bytes = value.to_le_bytes().to_vec();
    bytes.extend([0; 4]);
    bytes.extend(kind.to_le_bytes());
    padded(&bytes, 512)
}

/// A stream as ESXi writes it: header, descriptor, grains, then tables, directory, footer and the end-of-stream marker.
struct StreamFile {
    header: [u8; 512],
    descriptor: String,
    parts: Vec<Part>,
    end: bool,
}

impl StreamFile {
    fn new() -> Self {
        let mut header = Builder::stream(SECTORS).header;
        poke(&mut header, 56, u64::MAX);
        poke(&mut header, 64, 2);
        let grain = |index: u64| Part::Grain(index * 8, noise(index, GRAIN));
        let mut parts: Vec<Part> = [0, 1, 3, 11].map(grain).into();
        // The disk ends within its last grain.
        parts.push(Part::Grain(96, noise(12, 4 * 512)));
        Self { header, descriptor: EMBEDDED.into(), parts, end: true }
    }

    fn build(&self) -> Vec<u8> {
        let mut file = self.header.to_vec();
        file.extend(padded(self.descriptor.as_bytes(), 512));
        let mut entries = vec![0_u32; (SECTORS as usize).div_ceil(8).next_multiple_of(4)];
        for part in &self.parts {
            match part {
                Part::Grain(lba, data) => {
                    if let Some(entry) = entries.get_mut((*lba / 8) as usize) {
                        *entry = (file.len() / 512) as u32;
                    }
                    file.extend(stored(*lba, data, true));
                }
                Part::Marker(value, kind, behind) => {
                    file.extend(marker(*value, *kind));
                    file.extend(behind);
                }
            }
        }
        let mut directory = Vec::new();
        for table in entries.chunks(4) {
            file.extend(marker(1, 1));
            directory.extend(((file.len() / 512) as u32).to_le_bytes());
            file.extend(padded(&table.iter().flat_map(|entry| entry.to_le_bytes()).collect::<Vec<u8>>(), 512));
        }
        file.extend(marker(1, 2));
        let mut footer = self.header;
        poke(&mut footer, 56, (file.len() / 512) as u64);
        file.extend(padded(&directory, 512));
        file.extend(marker(1, 3));
        file.extend(footer);
        if self.end {
            file.extend(marker(0, 0));
        }
        file
    }
}

/// The disk in a stream.
fn forward(bytes: &[u8]) -> Result<Vec<u8>> {
    let stream = DiskStream::new(Checked::wrap(Memory::new(bytes.to_vec())), 0);
    let mut markers = Markers::open(Box::new(stream), &Policy::default())?;
    let len = markers.disk_len().unwrap() as usize;
    let mut disk = vec![0; len];
    while let Some(piece) = markers.next_piece()? {
        let Content::Data(data) = piece.content else { panic!("grains have data") };
        disk[piece.offset as usize..][..data.len()].copy_from_slice(&data);
    }
    assert_eq!(markers.next_piece()?, None, "the end stays the end");
    Ok(disk)
}

#[test]
fn a_stream_is_the_disk_that_its_tables_tell() {
    let file = StreamFile::new().build();
    let disk = forward(&file).unwrap();
    assert!(disk == read(&*layer(file.clone()).unwrap()).unwrap());
    assert_eq!(disk[3 * GRAIN..4 * GRAIN], noise(3, GRAIN));
    let mut longer = file;
    longer.extend([7; 3000]);
    assert!(forward(&longer).unwrap() == disk, "what is behind the end does not matter");
}

#[test]
fn every_cut_is_an_error() {
    let file = StreamFile::new().build();
    for len in (0..file.len()).step_by(128) {
        assert!(forward(&file[..len]).is_err(), "cut at {len}");
    }
    assert_eq!(forward(&StreamFile { end: false, ..StreamFile::new() }.build()).unwrap_err().code(), "vmdk.stream");
}

#[test]
fn tables_before_the_grains_tell_how_many_must_come() {
    let mut builder = Builder::stream(SECTORS).grain(0, 1).grain(5, 2).grain(12, 3);
    builder.footer = false;
    let first = 4 + (SECTORS as usize).div_ceil(8).div_ceil(4);
    let file = builder.field(64, first as u64).build();
    assert!(forward(&file).unwrap() == read(&*layer(file.clone()).unwrap()).unwrap());
    let ends = file.len() - stored(96, &[3; GRAIN], true).len();
    assert_eq!(forward(&file[..ends]).unwrap_err().code(), "vmdk.stream");
    let mut more = file.clone();
    more.splice(first * 512..first * 512, stored(0, &[9; GRAIN], true));
    assert_eq!(forward(&more).unwrap(), forward(&more).unwrap(), "only as many are read as the tables have");
}

#[test]
fn hostile_streams_are_refused() {
    type Change = fn(&mut StreamFile);
    let cases: [(&str, &str, Change); 13] = [
        ("another magic", "feed.format", |file| file.header[0] = b'X'),
        ("not compressed", "feed.format", |file| poke(&mut file.header, 8, 1)),
        ("no capacity", "feed.format", |file| poke(&mut file.header, 12, 0)),
        ("no descriptor", "feed.format", |file| poke(&mut file.header, 28, 0)),
        ("a huge descriptor", "vmdk.descriptor", |file| poke(&mut file.header, 36, 1 << 40)),
        ("a descriptor at the end of the world", "vmdk.stream", |file| poke(&mut file.header, 28, 1 << 50)),
        ("a directory behind the grains", "feed.format", |file| poke(&mut file.header, 56, 1 << 40)),
        ("a parent", "feed.parent", |file| {
            file.descriptor = EMBEDDED.replace("ffffffff", "12345678\nparentFileNameHint=\"p.vmdk\"");
        }),
        ("names elsewhere", "reference.refused", |file| {
            file.descriptor = EMBEDDED.replace("a.vmdk", "/etc/passwd");
        }),
        ("a grain behind the end", "vmdk.marker", |file| file.parts.push(Part::Grain(104, vec![1; GRAIN]))),
        ("a grain between two", "vmdk.marker", |file| file.parts.push(Part::Grain(3, vec![1; GRAIN]))),
        ("an unknown marker", "vmdk.marker", |file| file.parts.push(Part::Marker(0, 4, Vec::new()))),
        ("an endless table", "vmdk.marker", |file| file.parts.push(Part::Marker(1 << 60, 1, Vec::new()))),
    ];
    for (name, code, change) in cases {
        let mut file = StreamFile::new();
        change(&mut file);
        assert_eq!(forward(&file.build()).unwrap_err().code(), code, "{name}");
    }
    let good = StreamFile::new().build();
    for (at, value) in [(1024 + 11, 0x7f), (1024 + 40, 0x55)] {
        let mut bad = good.clone();
        bad[at] ^= value;
        assert!(forward(&bad).is_err(), "byte {at}");
    }
    let mut bomb = StreamFile::new();
    bomb.parts = vec![Part::Grain(0, vec![0; 16 * GRAIN])];
    let error = forward(&bomb.build()).unwrap_err();
    assert_eq!(error.code(), "vmdk.grain", "{error:?}");
}

#[test]
#[allow(clippy::disallowed_methods, reason = "the test reads what it had written")]
fn streams_of_qemu_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let (raw, vmdk) = (dir.path().join("a.raw"), dir.path().join("a.vmdk"));
    let mut bytes = vec![0; 3 << 20];
    bytes[100_000..400_000].copy_from_slice(&noise(1, 300_000));
    bytes[(3 << 20) - 512..].fill(9);
    std::fs::write(&raw, &bytes).unwrap();
    qemu_img(&["convert", "-O", "vmdk", "-o", "subformat=streamOptimized", arg(&raw), arg(&vmdk)]);
    let file = std::fs::read(vmdk).unwrap();
    assert!(forward(&file).unwrap() == bytes);
    for len in (0..file.len()).step_by(4096) {
        let cut = forward(&file[..len]);
        assert!(cut.is_err() || cut.is_ok_and(|disk| disk == bytes), "cut at {len}");
    }
}
