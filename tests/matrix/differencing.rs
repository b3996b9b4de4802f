//! Chains that qemu-img cannot make or read: differencing VHD and VHDX, and ESXi's snapshots (COWD). They are built here, byte by
//! byte, on empty images that qemu-img makes; libvhdi and libvmdk say whether what was built is such a chain, and what it holds.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::content::noise;
use super::reading::assert_reads_as;
use crate::support::{Lab, tools};

const SECTOR: usize = 512;

/// A layer over another one: the sectors that it has, and their bytes.
struct Layer {
    sectors: BTreeSet<usize>,
    bytes: Vec<u8>,
}

impl Layer {
    /// Some sectors, alone and in runs that end at multiples of `unit`, of a disk of `len` bytes; the first and the last among
    /// them in every third layer.
    fn some(seed: u64, len: usize, unit: usize) -> Self {
        let all = len / SECTOR;
        let mut sectors = BTreeSet::new();
        for place in noise(seed, 8 * 24).chunks(8) {
            let word = usize::from_le_bytes(place.try_into().expect("eight bytes"));
            let run = if word >> 60 < 3 { 1 } else { (word >> 48) % 700 };
            let first = word % all;
            sectors.extend(first..(first + run).next_multiple_of(unit).min(all));
        }
        if seed.is_multiple_of(3) {
            sectors.extend((0..unit).chain([all - 1]));
        }
        Self { sectors, bytes: noise(seed + 1000, len) }
    }

    /// What a sector of this layer holds: noise, and zeros that hide what is below.
    fn sector(&self, number: usize) -> Vec<u8> {
        let range = number * SECTOR..(number + 1) * SECTOR;
        if number.is_multiple_of(7) { vec![0; SECTOR] } else { self.bytes[range].to_vec() }
    }

    fn over(&self, below: &[u8]) -> Vec<u8> {
        let mut disk = below.to_vec();
        for number in &self.sectors {
            disk[number * SECTOR..(number + 1) * SECTOR].copy_from_slice(&self.sector(*number));
        }
        disk
    }
}

/// A kind of chain.
struct Chain {
    name: &'static str,
    /// Our name of the format.
    format: &'static str,
    /// Makes the lowest image out of a raw disk.
    base: fn(&Path, &Path),
    /// Makes an image over another one, whose number is given.
    child: fn(&Lab, &Path, usize, usize, &Layer),
    /// Python's module that reads it, and how.
    judge: &'static str,
    /// Runs of sectors whose ends the judge reads right end at a multiple of this. libvhdi 20210425 takes what is behind a run, up
    /// to the end of its byte of the bitmap, for zeros instead of the parent's.
    judged: usize,
}

const CHAINS: &[Chain] = &[
    Chain { name: "VHD", format: "vhd", base: vhd::base, child: vhd::child, judge: VHDI, judged: 8 },
    Chain { name: "VHDX", format: "vhdx", base: vhdx::base, child: vhdx::child, judge: VHDI, judged: 8 },
    Chain { name: "COWD", format: "vmdk", base: cowd::base, child: cowd::child, judge: VMDK, judged: 1 },
];

const VHDI: &str = "
import sys, pyvhdi
images, below = [], None
for name in sys.argv[2:]:
    image = pyvhdi.file()
    image.open(name)
    if below: image.set_parent(below)
    below = image
    images.append(image)
open(sys.argv[1], 'wb').write(below.read_buffer_at_offset(below.get_media_size(), 0))
";

const VMDK: &str = "
import sys, pyvmdk
images, below = [], None
for name in sys.argv[2:]:
    image = pyvmdk.handle()
    image.open(name)
    image.open_extent_data_files()
    if below: image.set_parent(below)
    below = image
    images.append(image)
open(sys.argv[1], 'wb').write(below.read_buffer_at_offset(below.get_media_size(), 0))
";

#[test]
fn differencing_chains_read_as_other_readers_read_them() {
    for chain in CHAINS {
        let disks = [(5 << 20, 1), ((3 << 20) + 7 * SECTOR, 2), (6 << 20, 8), (64 << 10, 3)];
        for (seed, (len, depth)) in (1..).zip(disks) {
            chain.assert_read(seed * 100, len, depth, chain.judged);
            if chain.judged > 1 {
                chain.assert_read(seed * 100, len, depth, 1);
            }
        }
    }
}

impl Chain {
    fn assert_read(&self, seed: u64, len: usize, depth: usize, unit: usize) {
        let name = format!("{} of {len} bytes, {depth} deep, runs of {unit}", self.name);
        let lab = Lab::new();
        let mut disk = [noise(seed, len / 2), vec![0; len - len / 2]].concat();
        let image = |number: usize| lab.path(&format!("layer{number}.{}", self.format));
        (self.base)(&lab.file("base.raw", &disk), &image(0));
        for number in 1..=depth {
            let layer = Layer::some(seed + number as u64, len, unit);
            disk = layer.over(&disk);
            (self.child)(&lab, &image(number), number, len, &layer);
        }
        let images: Vec<PathBuf> = (0..=depth).map(image).collect();
        if unit == self.judged {
            self.assert_judged(&lab, &images, &disk, &name);
        }
        assert_reads_as(&images[depth], self.format, &disk, &name);
    }

    fn assert_judged(&self, lab: &Lab, images: &[PathBuf], disk: &[u8], name: &str) {
        let judged = lab.path("judged.raw");
        let words =
            [Path::new("-c"), Path::new(self.judge), &judged].into_iter().chain(images.iter().map(PathBuf::as_path));
        // The distribution's own, which has the modules.
        tools::ok("/usr/bin/python3", words);
        assert!(std::fs::read(judged).expect("its bytes") == disk, "{name}: the other reader finds something else");
    }
}

fn qemu_img(format: &str, options: &str, words: &[&Path], verb: &str) {
    let fixed = match verb {
        "convert" => vec!["convert", "-f", "raw", "-O", format, "-o", options],
        _ => vec!["create", "-q", "-f", format, "-o", options],
    };
    tools::ok("qemu-img", fixed.into_iter().map(Path::new).chain(words.iter().copied()));
}

fn put(bytes: &mut [u8], at: usize, what: &[u8]) {
    bytes[at..at + what.len()].copy_from_slice(what);
}

fn utf16(text: &str, unit: fn(u16) -> [u8; 2]) -> Vec<u8> {
    text.encode_utf16().flat_map(unit).collect()
}

/// By Microsoft's specification 1.0.
mod vhd {
    use super::*;

    const OPTIONS: &str = "subformat=dynamic,force_size=on";
    const HEADER: usize = 512;
    const TABLE: usize = 1536;
    const BLOCK: usize = 2 << 20;

    pub(super) fn base(raw: &Path, image: &Path) {
        qemu_img("vpc", OPTIONS, &[raw, image], "convert");
    }

    pub(super) fn child(lab: &Lab, image: &Path, number: usize, len: usize, layer: &Layer) {
        qemu_img("vpc", OPTIONS, &[image, Path::new(&len.to_string())], "create");
        let mut file = std::fs::read(image).expect("the empty image");
        let mut footer = file.split_off(file.len() - 512);
        let parent = format!("layer{}.vhd", number - 1);
        let below = std::fs::read(lab.path(&parent)).expect("the image below");
        // Disk Type 4, and the parent's Unique Id.
        put(&mut footer, 60, &4_u32.to_be_bytes());
        put(&mut file, HEADER + 40, &below[68..84]);
        put(&mut file, HEADER + 64, &utf16(&parent, u16::to_be_bytes));
        let locator = utf16(&format!(".\\{parent}"), u16::to_le_bytes);
        let entry = [*b"W2ru", 512_u32.to_be_bytes(), (locator.len() as u32).to_be_bytes(), [0; 4]].concat();
        put(&mut file, HEADER + 576, &entry);
        let end = (file.len() as u64).to_be_bytes();
        put(&mut file, HEADER + 592, &end);
        file.extend(&locator);
        file.resize(file.len().next_multiple_of(512), 0);
        for block in 0..len.div_ceil(BLOCK) {
            add_block(&mut file, block, layer);
        }
        sum(&mut file[HEADER..HEADER + 1024], 36);
        sum(&mut footer, 64);
        put(&mut file, 0, &footer);
        file.extend(footer);
        std::fs::write(image, file).expect("the image");
    }

    /// A bitmap, highest bit first, and the data behind it.
    fn add_block(file: &mut Vec<u8>, block: usize, layer: &Layer) {
        let first = block * BLOCK / SECTOR;
        let here: Vec<usize> = layer.sectors.range(first..first + BLOCK / SECTOR).copied().collect();
        if here.is_empty() {
            return;
        }
        let place = (file.len() / SECTOR) as u32;
        put(file, TABLE + block * 4, &place.to_be_bytes());
        let mut data = vec![0; 512 + BLOCK];
        for number in here {
            let at = number - first;
            data[at / 8] |= 0x80 >> (at % 8);
            put(&mut data, 512 + at * SECTOR, &layer.sector(number));
        }
        file.extend(data);
    }

    fn sum(bytes: &mut [u8], at: usize) {
        put(bytes, at, &[0; 4]);
        let sum = bytes.iter().fold(0_u32, |sum, byte| sum + u32::from(*byte));
        put(bytes, at, &(!sum).to_be_bytes());
    }
}

/// By [MS-VHDX].
mod vhdx {
    use super::*;

    const MIB: usize = 1 << 20;
    const OPTIONS: &str = "subformat=dynamic,block_size=1M";
    const HEADERS: [usize; 2] = [64 << 10, 128 << 10];
    const REGIONS: usize = 192 << 10;
    const METADATA: u128 = 0x8b7c_a206_4790_4b9a_b8fe_575f_050f_886e;
    const BAT: u128 = 0x2dc2_7766_f623_4200_9d64_115e_9bfd_4a08;
    const FILE_PARAMETERS: u128 = 0xcaa1_6737_fa36_4d43_b3b6_33f0_aa44_e76b;
    const PARENT_LOCATOR: u128 = 0xa8d3_5f2d_b30b_454d_abf7_d3d8_4834_ab0c;
    const VHDX_LOCATOR: u128 = 0xb04a_efb7_d19e_4a81_b789_25b8_e944_5913;
    /// Sectors of which one bitmap block tells: 2^23.
    const CHUNK: usize = 1 << 23;

    pub(super) fn base(raw: &Path, image: &Path) {
        qemu_img("vhdx", OPTIONS, &[raw, image], "convert");
    }

    pub(super) fn child(lab: &Lab, image: &Path, number: usize, len: usize, layer: &Layer) {
        qemu_img("vhdx", OPTIONS, &[image, Path::new(&len.to_string())], "create");
        let mut file = std::fs::read(image).expect("the empty image");
        let parent = format!("layer{}.vhdx", number - 1);
        let below = std::fs::read(lab.path(&parent)).expect("the image below");
        name_parent(&mut file, &parent, data_write_guid(&below));
        let bat = region(&file, BAT);
        let mut bitmap = vec![0; MIB];
        for block in 0..len.div_ceil(MIB) {
            let first = block * MIB / SECTOR;
            let here: Vec<usize> = layer.sectors.range(first..first + MIB / SECTOR).copied().collect();
            if here.is_empty() {
                continue;
            }
            let mut data = vec![0; MIB];
            for number in &here {
                bitmap[number / 8] |= 1 << (number % 8);
                put(&mut data, (number - first) * SECTOR, &layer.sector(*number));
            }
            // Fully present when all of it is here, else partially.
            let state = if here.len() == MIB / SECTOR { 6 } else { 7 };
            append(&mut file, bat + block * 8, state, &data);
        }
        append(&mut file, bat + CHUNK * SECTOR / MIB * 8, 6, &bitmap);
        std::fs::write(image, file).expect("the image");
    }

    /// Adds a block at the end, and its entry: offset in mebibytes, and state.
    fn append(file: &mut Vec<u8>, entry: usize, state: u64, data: &[u8]) {
        file.resize(file.len().next_multiple_of(MIB), 0);
        let place = (file.len() / MIB) as u64;
        put(file, entry, &(place << 20 | state).to_le_bytes());
        file.extend(data);
    }

    /// Sets HasParent, and adds a parent locator to the metadata.
    fn name_parent(file: &mut [u8], parent: &str, linkage: [u8; 16]) {
        let table = region(file, METADATA);
        let parameters = table + le32(file, find(file, table, FILE_PARAMETERS) + 16);
        file[parameters + 4] |= 2;
        let count = usize::from(file[table + 10]);
        file[table + 10] += 1;
        let value = locator(parent, linkage);
        let free = 512 << 10;
        let entry = table + 32 + count * 32;
        put(file, entry, &guid(PARENT_LOCATOR));
        put(
            file,
            entry + 16,
            &[(free as u32).to_le_bytes(), (value.len() as u32).to_le_bytes(), 4_u32.to_le_bytes()].concat(),
        );
        put(file, table + free, &value);
    }

    fn locator(parent: &str, linkage: [u8; 16]) -> Vec<u8> {
        let id = uuid::Uuid::from_bytes_le(linkage);
        let pairs = [("parent_linkage", format!("{{{id}}}")), ("relative_path", format!(".\\{parent}"))];
        let mut head = [&guid(VHDX_LOCATOR)[..], &[0, 0, 2, 0]].concat();
        let mut texts = Vec::new();
        for (key, value) in pairs {
            let [key, value] = [utf16(key, u16::to_le_bytes), utf16(&value, u16::to_le_bytes)];
            let at = (20 + 2 * 12 + texts.len()) as u32;
            head.extend([at.to_le_bytes(), (at + key.len() as u32).to_le_bytes()].concat());
            head.extend([(key.len() as u16).to_le_bytes(), (value.len() as u16).to_le_bytes()].concat());
            texts.extend([key, value].concat());
        }
        [head, texts].concat()
    }

    /// DataWriteGuid of the header that is current.
    fn data_write_guid(file: &[u8]) -> [u8; 16] {
        let sequence = |at: &usize| u64::from_le_bytes(file[at + 8..at + 16].try_into().expect("eight bytes"));
        let current = HEADERS.into_iter().max_by_key(sequence).expect("a header");
        file[current + 32..current + 48].try_into().expect("a GUID")
    }

    fn region(file: &[u8], id: u128) -> usize {
        let entry = find(file, REGIONS, id);
        usize::try_from(u64::from_le_bytes(file[entry + 16..entry + 24].try_into().expect("eight bytes")))
            .expect("an offset")
    }

    fn find(file: &[u8], table: usize, id: u128) -> usize {
        let place = file[table..table + (64 << 10)].windows(16).position(|window| window == guid(id));
        table + place.expect("an entry")
    }

    fn guid(id: u128) -> [u8; 16] {
        uuid::Uuid::from_u128(id).to_bytes_le()
    }

    fn le32(file: &[u8], at: usize) -> usize {
        u32::from_le_bytes(file[at..at + 4].try_into().expect("four bytes")) as usize
    }
}

/// Snapshots as ESXi writes them: a descriptor, and an extent of COWD beside it.
mod cowd {
    use super::*;

    const GRAIN: usize = SECTOR;
    const TABLE: usize = 4096;

    pub(super) fn base(raw: &Path, image: &Path) {
        let flat = raw.with_file_name("layer0-flat.vmdk");
        std::fs::copy(raw, &flat).expect("copying");
        let sectors = std::fs::metadata(raw).expect("the disk").len() / 512;
        describe(image, "ffffffff", "", &format!("RW {sectors} VMFS \"layer0-flat.vmdk\" 0"), "vmfs", 0);
    }

    pub(super) fn child(lab: &Lab, image: &Path, number: usize, len: usize, layer: &Layer) {
        let sectors = len / SECTOR;
        let hint = format!("parentFileNameHint=\"layer{}.vmdk\"\n", number - 1);
        let extent = format!("RW {sectors} VMFSSPARSE \"layer{number}-delta.vmdk\"");
        describe(image, &format!("{:08x}", 0xc0de_0000_u32 + number as u32 - 1), &hint, &extent, "vmfsSparse", number);
        lab.file(&format!("layer{number}-delta.vmdk"), delta(sectors, layer));
    }

    fn describe(image: &Path, parent: &str, hint: &str, extent: &str, kind: &str, number: usize) {
        let cid = 0xc0de_0000_u32 + number as u32;
        let text = format!(
            "# Disk DescriptorFile\nversion=1\nencoding=\"UTF-8\"\nCID={cid:08x}\nparentCID={parent}\nisNativeSnapshot=\"no\"\n\
             createType=\"{kind}\"\n{hint}# Extent description\n{extent}\n\n# The Disk Data Base\n#DDB\n\nddb.adapterType = \"lsilogic\"\n"
        );
        std::fs::write(image, text).expect("a descriptor");
    }

    /// Header of four sectors, directory, then tables and grains as they are needed.
    fn delta(sectors: usize, layer: &Layer) -> Vec<u8> {
        let tables = sectors.div_ceil(TABLE);
        let directory = 4 * SECTOR;
        let mut file = vec![0; directory + (tables * 4).next_multiple_of(SECTOR)];
        let words = [1, 3, sectors as u32, (GRAIN / SECTOR) as u32, 4, tables as u32];
        put(&mut file, 0, b"COWD");
        put(&mut file, 4, &words.map(u32::to_le_bytes).concat());
        for number in &layer.sectors {
            let entry = directory + number / TABLE * 4;
            if file[entry..entry + 4] == [0; 4] {
                let place = file.len() / SECTOR;
                put(&mut file, entry, &(place as u32).to_le_bytes());
                file.resize(file.len() + TABLE * 4, 0);
            }
            let table = u32::from_le_bytes(file[entry..entry + 4].try_into().expect("four bytes")) as usize * SECTOR;
            let place = file.len() / SECTOR;
            put(&mut file, table + number % TABLE * 4, &(place as u32).to_le_bytes());
            file.extend(layer.sector(*number));
        }
        // The next free sector.
        let free = (file.len() / SECTOR) as u32;
        put(&mut file, 28, &free.to_le_bytes());
        file
    }
}
