//! Unified kernel images: an EFI program (PE) with kernel, initramfs and command line in sections, as systemd's stub reads them
//! (UAPI.5 Unified Kernel Image; Microsoft PE format).
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::io::{Read, Seek, SeekFrom, Take};

use crate::error::{Error, Result};
use crate::fs::Tree;
use crate::fs::tree::{FileReader, cause};

/// An EFI program with its sections.
#[derive(Debug)]
pub(crate) struct Program {
    file: FileReader,
    /// Name without its padding, place and length in the file.
    sections: Vec<(Vec<u8>, u64, u64)>,
    /// Whether it carries a signature.
    pub(crate) signed: bool,
}

/// Sections that a program may have: Windows loads none with more than 96, and EFI programs have some twenty.
const MAX_SECTIONS: u16 = 96;

/// Bytes of a section header.
const SECTION: usize = 40;

impl Program {
    /// Reads the headers of the file at `path`; `None` when there is no file or it is no EFI program.
    pub(crate) fn open(tree: &Tree, path: &str) -> Result<Option<Self>> {
        let Some(mut file) = tree.open(path)? else { return Ok(None) };
        let Some(dos) = read(&mut file, 0, 64)?.filter(|dos| dos.starts_with(b"MZ")) else { return Ok(None) };
        let at = u64::from(u32_at(&dos, 0x3c).unwrap_or(0));
        let Some(coff) = read(&mut file, at, 24)?.filter(|coff| coff.starts_with(b"PE\0\0")) else { return Ok(None) };
        let (count, optional) = (u16_at(&coff, 6).unwrap_or(0).min(MAX_SECTIONS), u16_at(&coff, 20).unwrap_or(0));
        let rest = usize::from(optional).saturating_add(usize::from(count).saturating_mul(SECTION));
        let Some(rest) = read(&mut file, at.saturating_add(24), rest)? else { return Ok(None) };
        let Some((optional, table)) = rest.split_at_checked(usize::from(optional)) else { return Ok(None) };
        let sections = table.chunks_exact(SECTION).filter_map(section).collect();
        Ok(Some(Self { file, sections, signed: is_signed(optional) }))
    }

    /// Whether it is a unified kernel image.
    pub(crate) fn is_unified(&self) -> bool {
        self.place(".linux").is_some()
    }

    /// Place and length of a section's content.
    fn place(&self, name: &str) -> Option<(u64, u64)> {
        let found = self.sections.iter().find(|(known, _, _)| known == name.as_bytes());
        found.map(|(_, offset, length)| (*offset, *length))
    }

    /// A section's content as text, without what pads it; `None` when there is no such section or it has more than `most` bytes.
    pub(crate) fn text(&mut self, name: &str, most: usize) -> Result<Option<String>> {
        let Some((offset, length)) = self.place(name) else { return Ok(None) };
        let Some(length) = usize::try_from(length).ok().filter(|length| *length <= most) else { return Ok(None) };
        let content = read(&mut self.file, offset, length)?.unwrap_or_default();
        Ok(Some(String::from_utf8_lossy(&content).trim_end_matches(['\0', '\n', ' ']).to_owned()))
    }

    /// How many sections have that name: an image of several profiles has some twice.
    pub(crate) fn count(&self, name: &str) -> usize {
        self.sections.iter().filter(|(known, _, _)| known == name.as_bytes()).count()
    }

    /// Length of a section's content, and the content as a stream.
    pub(crate) fn stream(mut self, name: &str) -> Result<Option<(u64, Take<FileReader>)>> {
        let Some((offset, length)) = self.place(name) else { return Ok(None) };
        self.file.seek(SeekFrom::Start(offset)).map_err(unreadable)?;
        Ok(Some((length, self.file.take(length))))
    }
}

/// The program `file` with the content of sections replaced: where it lies if that is enough, else behind the file's end.
///
/// # Errors
/// `initramfs.unified` for a program that is signed, has no such section or has it twice, or whose headers contradict themselves.
pub(crate) fn rebuild(file: &[u8], replaced: &[(&str, Vec<u8>)]) -> Result<Vec<u8>> {
    let mut layout = Layout::parse(file).ok_or_else(|| broken("its headers contradict themselves"))?;
    if layout.signed {
        return Err(broken("it is signed, and firmware that checks signatures would refuse it changed"));
    }
    let mut out = file.to_vec();
    for (name, content) in replaced {
        layout
            .replace(&mut out, name, content)
            .ok_or_else(|| broken(&format!("its section {name} cannot be replaced")))?;
    }
    layout.write(&mut out).ok_or_else(|| broken("its headers contradict themselves"))?;
    Ok(out)
}

fn broken(what: &str) -> Error {
    Error::unsupported("initramfs.unified", format!("the unified kernel image is not changed: {what}"))
}

/// What must fit together in a program's headers.
struct Layout {
    /// Where the optional header begins.
    optional: usize,
    /// Where the table of sections begins.
    table: usize,
    /// `SectionAlignment`.
    memory_unit: u32,
    /// `FileAlignment`.
    file_unit: u32,
    /// `SizeOfImage`.
    image_size: u32,
    sections: Vec<Section>,
    signed: bool,
}

/// A section header. Sizes and places are bytes.
struct Section {
    header: [u8; SECTION],
    size: u32,
    address: u32,
    raw_size: u32,
    raw: u32,
}

impl Section {
    fn parse(header: &[u8]) -> Option<Self> {
        let header: [u8; SECTION] = header.try_into().ok()?;
        let at = |offset| u32_at(&header, offset);
        Some(Self { size: at(8)?, address: at(12)?, raw_size: at(16)?, raw: at(20)?, header })
    }

    fn is_named(&self, name: &str) -> bool {
        self.header.get(..8).and_then(|start| start.split(|byte| *byte == 0).next()) == Some(name.as_bytes())
    }

    fn end(&self) -> Option<u32> {
        self.address.checked_add(self.size)
    }

    fn to_bytes(&self) -> Option<[u8; SECTION]> {
        let mut header = self.header;
        for (at, value) in [(8, self.size), (12, self.address), (16, self.raw_size), (20, self.raw)] {
            put(&mut header, at, value)?;
        }
        Some(header)
    }
}

impl Layout {
    fn parse(file: &[u8]) -> Option<Self> {
        let coff = usize::try_from(u32_at(file.get(..64)?, 0x3c)?).ok()?;
        file.get(coff..coff.checked_add(4)?).filter(|magic| *magic == b"PE\0\0")?;
        let count = usize::from(u16_at(file, coff.checked_add(6)?)?.min(MAX_SECTIONS));
        let optional = coff.checked_add(24)?;
        let optional_size = usize::from(u16_at(file, coff.checked_add(20)?)?);
        let table = optional.checked_add(optional_size)?;
        let headers = file.get(table..table.checked_add(count.checked_mul(SECTION)?)?)?;
        let optional_header = file.get(optional..table)?;
        let at = |offset| u32_at(optional_header, offset);
        Some(Self {
            optional,
            table,
            memory_unit: at(32).filter(|unit| unit.is_power_of_two())?,
            file_unit: at(36).filter(|unit| unit.is_power_of_two())?,
            image_size: at(56)?,
            sections: headers.chunks_exact(SECTION).map(Section::parse).collect::<Option<_>>()?,
            signed: is_signed(optional_header),
        })
    }

    fn replace(&mut self, out: &mut Vec<u8>, name: &str, content: &[u8]) -> Option<()> {
        let mut named = self.sections.iter().enumerate().filter(|(_, section)| section.is_named(name));
        let (index, section) = named.next()?;
        if named.next().is_some() {
            return None;
        }
        let size = u32::try_from(content.len()).ok()?;
        let after = self.sections.iter().map(|other| other.address).filter(|address| *address > section.address).min();
        let room = after.unwrap_or(self.image_size).checked_sub(section.address)?;
        let fits = size <= section.raw_size && size <= room;
        let (raw, raw_size) = (usize::try_from(section.raw).ok()?, usize::try_from(section.raw_size).ok()?);
        if fits {
            let place = out.get_mut(raw..raw.checked_add(raw_size)?)?;
            place.fill(0);
            place.get_mut(..content.len())?.copy_from_slice(content);
            self.sections.get_mut(index)?.size = size;
            return Some(());
        }
        let ends: Option<Vec<u32>> = self.sections.iter().map(Section::end).collect();
        let end = ends?.into_iter().max()?.max(self.image_size);
        let address = end.checked_next_multiple_of(self.memory_unit)?;
        let unit = usize::try_from(self.file_unit).ok()?;
        out.resize(out.len().checked_next_multiple_of(unit)?, 0);
        let raw = u32::try_from(out.len()).ok()?;
        out.extend(content);
        out.resize(out.len().checked_next_multiple_of(unit)?, 0);
        let raw_size = size.checked_next_multiple_of(self.file_unit)?;
        self.image_size = address.checked_add(size)?.checked_next_multiple_of(self.memory_unit)?;
        let section = self.sections.get_mut(index)?;
        (section.size, section.address, section.raw_size, section.raw) = (size, address, raw_size, raw);
        Some(())
    }

    /// Writes the headers, sections ascending by address.
    fn write(&mut self, out: &mut [u8]) -> Option<()> {
        self.sections.sort_by_key(|section| section.address);
        let headers: Option<Vec<[u8; SECTION]>> = self.sections.iter().map(Section::to_bytes).collect();
        let headers = headers?.concat();
        out.get_mut(self.table..)?.get_mut(..headers.len())?.copy_from_slice(&headers);
        put(out, self.optional.checked_add(56)?, self.image_size)?;
        // `CheckSum`: nobody looks at it, and zero says that there is none.
        put(out, self.optional.checked_add(64)?, 0)
    }
}

fn put(bytes: &mut [u8], at: usize, value: u32) -> Option<()> {
    bytes.get_mut(at..)?.get_mut(..4)?.copy_from_slice(&value.to_le_bytes());
    Some(())
}

/// Exactly `length` bytes; `None` when the file is shorter.
fn read(file: &mut FileReader, offset: u64, length: usize) -> Result<Option<Vec<u8>>> {
    let is_there = u64::try_from(length).ok().and_then(|length| offset.checked_add(length));
    if is_there.is_none_or(|end| end > file.size()) {
        return Ok(None);
    }
    let mut content = vec![0; length];
    file.seek(SeekFrom::Start(offset)).and_then(|_| file.read_exact(&mut content)).map_err(unreadable)?;
    Ok(Some(content))
}

fn unreadable(error: std::io::Error) -> Error {
    cause(error, |error| Error::unreadable("reading a program", error))
}

/// A section header: `Name`, `VirtualSize`, `VirtualAddress`, `SizeOfRawData`, `PointerToRawData`.
fn section(header: &[u8]) -> Option<(Vec<u8>, u64, u64)> {
    let name = header.get(..8)?.split(|byte| *byte == 0).next()?.to_vec();
    let (size, raw_size, raw) = (u32_at(header, 8)?, u32_at(header, 16)?, u32_at(header, 20)?);
    Some((name, u64::from(raw), u64::from(size.min(raw_size))))
}

/// Whether the certificate table, the fifth data directory of the optional header, holds anything.
fn is_signed(optional: &[u8]) -> bool {
    let directories = match u16_at(optional, 0) {
        Some(0x10b) => 96_usize,
        Some(0x20b) => 112,
        _ => return false,
    };
    let count = u32_at(optional, directories.saturating_sub(4)).unwrap_or(0);
    let place = directories.saturating_add(4 * 8);
    count > 4 && u32_at(optional, place.saturating_add(4)).is_some_and(|size| size > 0)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::fs::MemoryFs;

    /// Where the section of a number is in memory.
    fn place(index: u32) -> u32 {
        index.checked_mul(64).and_then(|index| index.checked_add(1)?.checked_mul(4096)).unwrap()
    }

    /// An EFI program with these sections.
    pub(crate) fn program(sections: &[(&str, &[u8])], signed: bool) -> Vec<u8> {
        let mut file = b"MZ".to_vec();
        file.resize(0x3c, 0);
        file.extend(64_u32.to_le_bytes());
        file.extend(b"PE\0\0\x64\x86");
        file.extend(u16::try_from(sections.len()).unwrap().to_le_bytes());
        file.extend([0; 12]);
        file.extend([160, 0, 0, 0]);
        let mut optional = vec![0; 160];
        optional[..2].copy_from_slice(&[0x0b, 0x02]);
        optional[32..36].copy_from_slice(&4096_u32.to_le_bytes());
        optional[36..40].copy_from_slice(&512_u32.to_le_bytes());
        let count = u32::try_from(sections.len()).unwrap();
        optional[56..60].copy_from_slice(&place(count).to_le_bytes());
        optional[108] = 6;
        optional[148] = u8::from(signed);
        file.extend(optional);
        let mut at = file.len().checked_add(sections.len().checked_mul(SECTION).unwrap()).unwrap();
        for (index, (name, content)) in (0_u32..).zip(sections) {
            let (mut header, size) = (vec![0; SECTION], u32::try_from(content.len()).unwrap().to_le_bytes());
            header[..name.len()].copy_from_slice(name.as_bytes());
            header[8..12].copy_from_slice(&size);
            header[12..16].copy_from_slice(&place(index).to_le_bytes());
            header[16..20].copy_from_slice(&size);
            header[20..24].copy_from_slice(&u32::try_from(at).unwrap().to_le_bytes());
            file.extend(header);
            at = at.checked_add(content.len()).unwrap();
        }
        sections.iter().for_each(|(_, content)| file.extend(*content));
        file
    }

    fn open(file: &[u8]) -> Option<Program> {
        let fs = MemoryFs::default();
        fs.add_file("/p", file).unwrap();
        Program::open(&Tree::new(Arc::new(fs)), "/p").unwrap()
    }

    #[test]
    fn reads_sections_and_signatures() {
        let file = program(&[(".linux", b"kernel"), (".cmdline", b"root=x ro\n\0\0"), (".initrd", b"cpio")], true);
        let mut found = open(&file).unwrap();
        assert!(found.is_unified() && found.signed);
        assert_eq!(found.text(".cmdline", 99).unwrap().as_deref(), Some("root=x ro"));
        assert_eq!((found.text(".cmdline", 9).unwrap(), found.text(".uname", 99).unwrap()), (None, None));
        let (length, mut stream) = found.stream(".initrd").unwrap().unwrap();
        let mut content = Vec::new();
        stream.read_to_end(&mut content).unwrap();
        assert_eq!((length, content.as_slice()), (4, b"cpio".as_slice()));
        let plain = open(&program(&[(".text", b"")], false)).unwrap();
        assert!(!plain.is_unified() && !plain.signed);
    }

    fn content(file: &[u8], name: &str) -> Vec<u8> {
        let (_, mut stream) = open(file).unwrap().stream(name).unwrap().unwrap();
        let mut content = Vec::new();
        stream.read_to_end(&mut content).unwrap();
        content
    }

    #[test]
    fn sections_are_replaced_where_they_lie_or_behind_the_end() {
        let old = program(&[(".cmdline", b"root=/dev/sda1"), (".linux", b"kernel"), (".initrd", b"cpio")], false);
        let long = vec![b'x'; 5000];
        let new = rebuild(&old, &[(".cmdline", b"root=U".to_vec()), (".initrd", long.clone())]).unwrap();
        for (name, wanted) in [(".cmdline", b"root=U".as_slice()), (".linux", b"kernel"), (".initrd", &long)] {
            assert_eq!(content(&new, name), wanted, "{name}");
        }
        assert_eq!(new.get(..64), old.get(..64));
        let layout = Layout::parse(&new).unwrap();
        let addresses: Vec<u32> = layout.sections.iter().map(|section| section.address).collect();
        assert!(addresses.is_sorted() && addresses.iter().all(|address| address.is_multiple_of(4096)));
        let last = layout.sections.last().unwrap();
        assert_eq!((last.size, last.raw_size, last.raw % 512), (5000, 5120, 0));
        assert!(layout.image_size >= last.end().unwrap() && layout.image_size.is_multiple_of(4096));
        let again = rebuild(&new, &[(".initrd", long)]).unwrap();
        assert_eq!(again, new);
    }

    #[test]
    fn programs_that_are_not_rebuilt() {
        let section: (&str, &[u8]) = (".cmdline", b"x");
        let replaced = [(".cmdline", b"y".to_vec())];
        let why = |file: &[u8]| rebuild(file, &replaced).unwrap_err().to_string();
        assert!(why(&program(&[section], true)).contains("signed"));
        assert!(why(&program(&[section, section], false)).contains(".cmdline"));
        assert!(why(&program(&[(".linux", b"")], false)).contains(".cmdline"));
        let good = program(&[section], false);
        for cut in 0..good.len() {
            assert!(rebuild(&good[..cut], &replaced).is_err(), "{cut}");
        }
        let long = [(".cmdline", vec![0; 600])];
        for at in 64..good.len().saturating_sub(1) {
            let mut bad = good.clone();
            bad[at] ^= 0xff;
            let _ = (rebuild(&bad, &replaced), rebuild(&bad, &long));
        }
    }

    #[test]
    fn hostile_programs_are_none_or_empty() {
        let good = program(&[(".linux", b"kernel")], true);
        for cut in 0..good.len() {
            if let Some(mut found) = open(&good[..cut]) {
                assert!(
                    found.text(".linux", 99).unwrap().is_none_or(|text| text.is_empty() || text == "kernel"),
                    "{cut}"
                );
            }
        }
        let with = |at: usize, bytes: &[u8]| {
            let mut bad = good.clone();
            bad[at..][..bytes.len()].copy_from_slice(bytes);
            open(&bad)
        };
        assert!(with(0, b"ZM").is_none());
        assert!(with(0x3c, &[0xff; 4]).is_none(), "header beyond the end");
        assert!(with(0x3c, &[0; 4]).is_none(), "header inside the other");
        assert!(with(64, b"NE").is_none());
        assert!(with(70, &[0xff; 2]).is_none(), "sections beyond the end");
        assert!(with(84, &[0xff; 2]).is_none(), "optional header beyond the end");
        assert!(!with(88, &[0; 2]).unwrap().signed, "optional header of no kind");
        let table = 88 + 160;
        for at in [8, 16, 20] {
            let mut found = with(table + at, &[0xff; 4]).unwrap();
            assert!(found.text(".linux", usize::MAX).unwrap().is_none_or(|text| text.len() <= 6), "{at}");
        }
    }
}
