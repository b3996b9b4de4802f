//! cpio in the "newc" format, as the kernel reads and we write it (Documentation/driver-api/early-userspace/buffer-format.rst).
//!
//! A header is 110 bytes: magic `070701` or `070702`, then 13 numbers of eight hexadecimal digits: ino, mode, uid, gid, nlink,
//! mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check. The name follows with its NUL, then the body,
//! each padded to four bytes from the archive's start.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::io::{self, Read};

use crate::error::{Error, Result};
use crate::limits;

const HEADER: usize = 110;
const TRAILER: &[u8] = b"TRAILER!!!";

/// A file in an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its name without leading `/` and `./`; empty for the root directory.
    pub(crate) name: Vec<u8>,
    /// Kind and permissions, as in `st_mode`.
    pub(crate) mode: u32,
    /// Bytes of the body: content, or a symbolic link's target.
    pub(crate) size: u32,
}

impl Entry {
    pub(crate) const fn is_dir(&self) -> bool {
        self.mode & 0o170_000 == 0o040_000
    }

    pub(crate) const fn is_file(&self) -> bool {
        self.mode & 0o170_000 == 0o100_000
    }

    pub(crate) const fn is_link(&self) -> bool {
        self.mode & 0o170_000 == 0o120_000
    }
}

/// Reads one archive from its first header to the end of its trailer. `visit` gets each entry with its body and need not read
/// it. Gives the bytes taken.
pub(crate) fn read(input: &mut dyn Read, visit: &mut dyn FnMut(&Entry, &mut dyn Read) -> Result<()>) -> Result<u64> {
    let mut input = Counted { input, taken: 0 };
    loop {
        let at = input.taken;
        let mut header = [0; HEADER];
        match input.fill(&mut header)? {
            HEADER => {}
            // The kernel needs no trailer either.
            0 => return Ok(at),
            _ => return Err(truncated(at)),
        }
        let fields = Fields::parse(&header).ok_or_else(|| bad("bad magic or number in a header", at))?;
        let name_size = usize::try_from(fields.name_size).unwrap_or(usize::MAX);
        if name_size == 0 || name_size > limits::MAX_GUEST_PATH {
            return Err(bad("a name of impossible length", at).found(fields.name_size));
        }
        let mut name = vec![0; name_size];
        if input.fill(&mut name)? != name_size {
            return Err(truncated(at));
        }
        if name.pop() != Some(0) || name.contains(&0) {
            return Err(bad("a name without its end", at));
        }
        input.align()?;
        if name == TRAILER {
            skip(&mut input, u64::from(fields.size), at)?;
            input.align()?;
            return Ok(input.taken);
        }
        let entry = Entry { name: plain_name(&name), mode: fields.mode, size: fields.size };
        let body_end = input.taken.saturating_add(u64::from(fields.size));
        visit(&entry, &mut Read::take(&mut input, u64::from(fields.size)))?;
        let unread = body_end.saturating_sub(input.taken);
        skip(&mut input, unread, at)?;
        input.align()?;
    }
}

fn skip(input: &mut Counted<'_>, count: u64, at: u64) -> Result<()> {
    let copied = io::copy(&mut Read::take(&mut *input, count), &mut io::sink()).map_err(broken)?;
    if copied == count { Ok(()) } else { Err(truncated(at)) }
}

struct Counted<'a> {
    input: &'a mut dyn Read,
    taken: u64,
}

impl Counted<'_> {
    /// Fills `buf` as far as the input goes, and says how far.
    fn fill(&mut self, buf: &mut [u8]) -> Result<usize> {
        let mut filled = 0_usize;
        while let Some(rest) = buf.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.read(rest) {
                Ok(0) => break,
                Ok(count) => filled = filled.saturating_add(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(broken(error)),
            }
        }
        Ok(filled)
    }

    /// Padding that is cut off at the end of the input is no loss.
    fn align(&mut self) -> Result<()> {
        let mut padding = [0; 3];
        let count = usize::try_from(self.taken.wrapping_neg() % 4).unwrap_or(0);
        if let Some(padding) = padding.get_mut(..count) {
            self.fill(padding)?;
        }
        Ok(())
    }
}

impl Read for Counted<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buf)?;
        self.taken = self.taken.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        Ok(count)
    }
}

struct Fields {
    mode: u32,
    size: u32,
    name_size: u32,
}

impl Fields {
    fn parse(header: &[u8; HEADER]) -> Option<Self> {
        let (magic, numbers) = header.split_at_checked(6)?;
        if magic != b"070701" && magic != b"070702" {
            return None;
        }
        let mut fields = [0; 13];
        for (field, digits) in fields.iter_mut().zip(numbers.chunks(8)) {
            let is_hex = digits.iter().all(u8::is_ascii_hexdigit);
            let text = std::str::from_utf8(digits).ok().filter(|_| is_hex)?;
            *field = u32::from_str_radix(text, 16).ok()?;
        }
        let [_ino, mode, _uid, _gid, _nlink, _mtime, size, _, _, _, _, name_size, _check] = fields;
        Some(Self { mode, size, name_size })
    }
}

fn plain_name(name: &[u8]) -> Vec<u8> {
    let parts = name.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".");
    parts.collect::<Vec<_>>().join(&b'/')
}

/// An archive being written. Every file has an inode of its own and one link, so that no reader joins two.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    out: Vec<u8>,
    next_inode: u32,
}

impl Writer {
    /// Adds a directory of mode 0755.
    pub(crate) fn dir(&mut self, name: &str) -> Result<()> {
        self.entry(name, 0o040_755, &[])
    }

    /// Adds a regular file of mode 0644.
    #[cfg(test)]
    pub(crate) fn file(&mut self, name: &str, content: &[u8]) -> Result<()> {
        self.entry(name, 0o100_644, content)
    }

    /// Adds a regular file with permissions of its own.
    pub(crate) fn file_with(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.entry(name, 0o100_000 | (mode & 0o7777), content)
    }

    /// Adds a symbolic link.
    pub(crate) fn link(&mut self, name: &str, target: &str) -> Result<()> {
        self.entry(name, 0o120_777, target.as_bytes())
    }

    /// The archive with its trailer.
    pub(crate) fn finish(mut self) -> Result<Vec<u8>> {
        self.next_inode = 0;
        self.entry("TRAILER!!!", 0, &[])?;
        Ok(self.out)
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<()> {
        let too_long = |_| Error::limit("initramfs.segment-size", "a file is too large for the cpio format");
        let size = u32::try_from(content.len()).map_err(too_long)?;
        let name_size = u32::try_from(name.len().saturating_add(1)).map_err(too_long)?;
        let inode = self.next_inode;
        self.next_inode = inode.saturating_add(1);
        self.out.extend(b"070701");
        for field in [inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0] {
            self.out.extend(format!("{field:08X}").bytes());
        }
        self.out.extend(name.bytes());
        self.out.push(0);
        self.align();
        self.out.extend(content);
        self.align();
        Ok(())
    }

    fn align(&mut self) {
        let padded = self.out.len().next_multiple_of(4);
        self.out.resize(padded, 0);
    }
}

fn bad(what: &str, at: u64) -> Error {
    Error::corrupt("initramfs.cpio", format!("the initramfs archive has {what}")).offset(at)
}

fn truncated(at: u64) -> Error {
    Error::corrupt("initramfs.cpio", "the initramfs archive ends inside an entry").offset(at)
}

fn broken(error: io::Error) -> Error {
    Error::corrupt("initramfs.decode", "the initramfs does not decode").because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Listed = (String, u32, Vec<u8>);

    fn list(archive: &[u8]) -> Result<(Vec<Listed>, u64)> {
        let mut entries = Vec::new();
        let mut input = archive;
        let taken = read(&mut input, &mut |entry, body| {
            let mut content = Vec::new();
            body.read_to_end(&mut content).unwrap();
            entries.push((String::from_utf8_lossy(&entry.name).into_owned(), entry.mode, content));
            Ok(())
        })?;
        Ok((entries, taken))
    }

    fn sample() -> Vec<u8> {
        let mut writer = Writer::default();
        writer.dir("usr").unwrap();
        writer.file("usr/a", b"12345").unwrap();
        writer.file("usr/empty", b"").unwrap();
        writer.finish().unwrap()
    }

    #[test]
    fn reads_what_it_writes() {
        let archive = sample();
        let (entries, taken) = list(&archive).unwrap();
        assert_eq!(taken, u64::try_from(archive.len()).unwrap());
        assert_eq!(
            entries,
            [
                ("usr".to_owned(), 0o040_755, Vec::new()),
                ("usr/a".to_owned(), 0o100_644, b"12345".to_vec()),
                ("usr/empty".to_owned(), 0o100_644, Vec::new()),
            ]
        );
    }

    #[test]
    fn bodies_may_be_left_unread_and_bytes_may_follow() {
        let mut archive = sample();
        archive.extend(b"next");
        let mut names = 0_u32;
        let mut input = archive.as_slice();
        read(&mut input, &mut |_, _| {
            names = names.checked_add(1).unwrap();
            Ok(())
        })
        .unwrap();
        assert_eq!((names, input), (3, b"next".as_slice()));
    }

    #[test]
    fn a_cut_archive_is_an_error_unless_cut_between_entries() {
        let archive = sample();
        let mut whole = Vec::new();
        for cut in 0..archive.len() {
            match list(&archive[..cut]) {
                Ok(_) => whole.push(cut),
                Err(error) => assert!(error.code().starts_with("initramfs."), "{cut}"),
            }
        }
        // Behind each entry, and inside the padding of the trailer.
        assert!(whole.contains(&0) && whole.len() < 130, "{whole:?}");
    }

    #[test]
    fn hostile_headers_are_errors() {
        let good = sample();
        let with = |at: usize, digits: &[u8]| {
            let mut bad = good.clone();
            bad[at..][..digits.len()].copy_from_slice(digits);
            list(&bad)
        };
        for (what, result) in [
            ("magic", with(0, b"070707")),
            ("number", with(14, b"0000xyz0")),
            ("sign", with(14, b"+0000001")),
            ("name size 0", with(94, b"00000000")),
            ("name size huge", with(94, b"FFFFFFFF")),
            ("name size beyond the limit", with(94, b"00001001")),
            ("name without NUL", with(94, b"00000003")),
            ("body beyond the end", with(54, b"7FFFFFFF")),
            ("body of 4 GiB", with(54, b"FFFFFFFF")),
            ("name with NUL inside", with(111, b"\0")),
        ] {
            assert!(result.is_err(), "{what}");
        }
    }

    #[test]
    fn names_lose_what_means_nothing() {
        for (raw, plain) in [(".", ""), ("./usr", "usr"), ("/usr//lib/", "usr/lib"), ("a/./b", "a/b"), ("../x", "../x")]
        {
            assert_eq!(plain_name(raw.as_bytes()), plain.as_bytes(), "{raw}");
        }
    }
}
