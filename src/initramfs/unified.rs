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

    /// Length of a section's content, and the content as a stream.
    pub(crate) fn stream(mut self, name: &str) -> Result<Option<(u64, Take<FileReader>)>> {
        let Some((offset, length)) = self.place(name) else { return Ok(None) };
        self.file.seek(SeekFrom::Start(offset)).map_err(unreadable)?;
        Ok(Some((length, self.file.take(length))))
    }
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
        optional[108] = 6;
        optional[148] = u8::from(signed);
        file.extend(optional);
        let mut at = file.len().checked_add(sections.len().checked_mul(SECTION).unwrap()).unwrap();
        for (name, content) in sections {
            let (mut header, size) = (vec![0; SECTION], u32::try_from(content.len()).unwrap().to_le_bytes());
            header[..name.len()].copy_from_slice(name.as_bytes());
            header[8..12].copy_from_slice(&size);
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
