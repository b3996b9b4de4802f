//! Tar archives (POSIX.1-2024 `pax`, GNU tar): where each member lies.
//!
//! Where readers are known to disagree about an archive, it is refused: two readers that see different members are a way to
//! smuggle one past the other (CVE-2025-62518).

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::ops::Range;

use crate::disk::{Disk, read_vec};
use crate::error::{Error, Result, escape_bytes};
use crate::limits;

const BLOCK: usize = 512;
const BLOCK_U64: u64 = 512;

/// Whether `head`, the first bytes of a file, begins with a tar header.
#[must_use]
pub fn probe(head: &[u8]) -> bool {
    head.first_chunk().is_some_and(|block| !is_zero(block) && checksum_fits(block))
}

/// The header (`ustar`) of a regular file of `size` bytes. The name has at most 100 bytes; what is longer is cut.
#[must_use]
pub fn header(name: &str, size: u64) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| {
        for (to, from) in block.iter_mut().skip(at).zip(bytes) {
            *to = *from;
        }
    };
    put(0, name.as_bytes().get(..100).unwrap_or(name.as_bytes()));
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    if size < 1 << 33 {
        put(124, format!("{size:011o}").as_bytes());
    } else {
        // GNU tar's notation for what octal digits cannot hold.
        put(124, &[0x80, 0, 0, 0]);
        put(128, &size.to_be_bytes());
    }
    put(136, b"00000000000\0");
    put(156, b"0");
    put(257, b"ustar\x0000");
    put(148, b"        ");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).fold(0, u32::wrapping_add);
    for (to, from) in block.iter_mut().skip(148).zip(format!("{sum:06o}\0").as_bytes()) {
        *to = *from;
    }
    block
}

/// An archive's members, in its order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Archive {
    /// The regular files.
    pub members: Vec<Member>,
    /// What else there is and is ignored, one sentence each.
    pub notes: Vec<String>,
}

/// A regular file of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The name, without a leading `./`. Not checked otherwise: it is never opened.
    pub name: String,
    /// Its bytes in the archive.
    pub range: Range<u64>,
}

impl Archive {
    /// Reads the headers of all members.
    ///
    /// # Errors
    /// `tar.header` for what is not a tar archive or is ambiguous, `tar.truncated` when it ends early, `tar.unsupported` for
    /// sparse and multi-volume members, `tar.limit` for too many members.
    pub fn read(disk: &dyn Disk) -> Result<Self> {
        let mut reader = Reader { disk, at: 0, pending: Pending::default(), archive: Self::default(), headers: 0 };
        while reader.member()? {}
        Ok(reader.archive)
    }

    /// The member named `name`, if there is one.
    ///
    /// # Errors
    /// `tar.duplicate` when there are several.
    pub fn find(&self, name: &str) -> Result<Option<&Member>> {
        let mut found = self.members.iter().filter(|member| member.name == name);
        match (found.next(), found.next()) {
            (first, None) => Ok(first),
            (_, Some(_)) => Err(Error::corrupt("tar.duplicate", "the archive has two members of one name").at(name)),
        }
    }
}

/// What the extended headers before a member say of it.
#[derive(Debug, Default)]
struct Pending {
    /// GNU's long name.
    long_name: Option<Vec<u8>>,
    /// Whether there was a GNU long link name, which does not matter here.
    long_link: bool,
    /// PAX records; `Some` as soon as there was an extended header.
    pax: Option<Pax>,
}

/// The records of a PAX extended header that matter.
#[derive(Debug, Default, PartialEq, Eq)]
struct Pax {
    path: Option<Vec<u8>>,
    size: Option<u64>,
    sparse: bool,
}

struct Reader<'a> {
    disk: &'a dyn Disk,
    at: u64,
    pending: Pending,
    archive: Archive,
    headers: usize,
}

impl Reader<'_> {
    /// Reads one header and passes over what it describes; false at the end of the archive.
    fn member(&mut self) -> Result<bool> {
        let Some(block) = self.header()? else {
            if self.pending.any() {
                return Err(bad("the archive ends after an extended header", self.at));
            }
            return Ok(false);
        };
        let start = self.at;
        self.at = self.at.saturating_add(BLOCK_U64);
        let size = number(field(&block, 124..136)).map_err(|error| error.offset(start.saturating_add(124)))?;
        match kind(&block) {
            b'L' => {
                let name = self.text(size, limits::MAX_REFERENCE, start)?;
                if self.pending.long_name.replace(name).is_some() {
                    return Err(bad("two long names for one member", start));
                }
            }
            b'K' => {
                self.text(size, limits::MAX_REFERENCE, start)?;
                if std::mem::replace(&mut self.pending.long_link, true) {
                    return Err(bad("two long link names for one member", start));
                }
            }
            b'x' => {
                let records = self.text(size, limits::MAX_TAR_PAX, start)?;
                let pax = Pax::parse(&records).map_err(|error| error.offset(start))?;
                if self.pending.pax.replace(pax).is_some() {
                    return Err(bad("two extended headers for one member", start));
                }
            }
            b'g' => {
                let records = self.text(size, limits::MAX_TAR_PAX, start)?;
                if Pax::parse(&records).map_err(|error| error.offset(start))? != Pax::default() {
                    return Err(bad("a global header gives a name or a size", start));
                }
            }
            b'0' | 0 | b'7' => self.file(&block, size, start)?,
            b'S' => return Err(sparse(start)),
            b'M' => return Err(unsupported("the archive spans several volumes", start)),
            other => self.other(other, &block, size, start)?,
        }
        Ok(true)
    }

    /// The next header; `None` at the end, which two zero blocks mark. One, or the end of the file, is taken for it too.
    fn header(&mut self) -> Result<Option<[u8; BLOCK]>> {
        if self.at >= self.disk.len() {
            self.archive.notes.push("the archive has no end mark".into());
            return Ok(None);
        }
        self.headers = self.headers.saturating_add(1);
        if self.headers > limits::MAX_TAR_HEADERS {
            return Err(Error::limit("tar.limit", "the archive has too many members")
                .expected(format!("at most {}", limits::MAX_TAR_HEADERS)));
        }
        if self.disk.len().saturating_sub(self.at) < BLOCK_U64 {
            return Err(truncated("a header", self.at));
        }
        let mut block = [0; BLOCK];
        self.disk.read_at(&mut block, self.at)?;
        if is_zero(&block) {
            return Ok(None);
        }
        if !checksum_fits(&block) {
            return Err(bad("the header's checksum is wrong", self.at));
        }
        Ok(Some(block))
    }

    /// A regular file.
    fn file(&mut self, block: &[u8; BLOCK], size: u64, start: u64) -> Result<()> {
        let pending = std::mem::take(&mut self.pending);
        if pending.pax.as_ref().is_some_and(|pax| pax.sparse) {
            return Err(sparse(start));
        }
        let name = pending.name(block, start)?;
        // The extended header's size is the member's, whatever the plain header says.
        let size = pending.pax.and_then(|pax| pax.size).unwrap_or(size);
        let range = self.skip(size, &name, start)?;
        let name = match String::from_utf8(name) {
            Ok(name) => name,
            Err(error) => escape_bytes(error.as_bytes()),
        };
        // Before POSIX, a name that ends in a slash was a directory.
        if name.ends_with('/') {
            if size > 0 {
                return Err(bad("a directory with content", start));
            }
            return Ok(());
        }
        let name = name.strip_prefix("./").map(str::to_owned).unwrap_or(name);
        self.archive.members.push(Member { name, range });
        Ok(())
    }

    /// Links, directories, devices: they have no content here.
    fn other(&mut self, kind: u8, block: &[u8; BLOCK], size: u64, start: u64) -> Result<()> {
        let pending = std::mem::take(&mut self.pending);
        let what = match kind {
            b'1' => "a hard link",
            b'2' => "a symbolic link",
            b'3' | b'4' => "a device",
            b'5' => "",
            b'6' => "a fifo",
            b'V' => "a volume label",
            _ => return Err(unsupported("a member of unknown type", start).found(escape_bytes(&[kind]))),
        };
        if size > 0 || pending.pax.as_ref().and_then(|pax| pax.size).is_some_and(|size| size > 0) {
            return Err(bad("a member that can have no content has a size", start));
        }
        if !what.is_empty() {
            let name = escape_bytes(&pending.name(block, start)?);
            self.archive.notes.push(format!("{name} is {what} and is ignored"));
        }
        Ok(())
    }

    /// Passes over `size` bytes of content and its padding; the content's range.
    fn skip(&mut self, size: u64, name: &[u8], start: u64) -> Result<Range<u64>> {
        let end = self.at.checked_add(size).filter(|end| *end <= self.disk.len());
        let Some(end) = end else {
            return Err(truncated(&escape_bytes(name), start)
                .expected(format!("{size} bytes"))
                .found(self.disk.len().saturating_sub(self.at)));
        };
        let range = self.at..end;
        self.at = end.checked_next_multiple_of(BLOCK_U64).unwrap_or(end);
        Ok(range)
    }

    /// The content of an extended header.
    fn text(&mut self, size: u64, most: usize, start: u64) -> Result<Vec<u8>> {
        let len = usize::try_from(size).ok().filter(|len| *len <= most).ok_or_else(|| {
            Error::limit("tar.limit", "an extended header is too long")
                .offset(start)
                .expected(format!("at most {most} bytes"))
                .found(size)
        })?;
        let range = self.skip(size, b"an extended header", start)?;
        read_vec(self.disk, range.start, len)
    }
}

impl Pending {
    fn any(&self) -> bool {
        self.long_name.is_some() || self.long_link || self.pax.is_some()
    }

    /// The member's name: by PAX, by GNU, or by the header itself.
    fn name(&self, block: &[u8; BLOCK], start: u64) -> Result<Vec<u8>> {
        let pax = self.pax.as_ref().and_then(|pax| pax.path.as_deref());
        let gnu = self.long_name.as_deref().map(until_nul);
        let name = match (pax, gnu) {
            (Some(pax), Some(gnu)) if pax != gnu => return Err(bad("two different long names for one member", start)),
            (Some(name), _) | (None, Some(name)) => name.to_vec(),
            (None, None) => short_name(block),
        };
        if name.is_empty() || name.contains(&0) {
            return Err(bad("a member has no name", start));
        }
        Ok(name)
    }
}

impl Pax {
    /// Parses records of the form `LENGTH KEY=VALUE\n`, where the length counts all of it.
    fn parse(mut records: &[u8]) -> Result<Self> {
        let bad = || Error::corrupt("tar.header", "an extended header is malformed");
        let mut pax = Self::default();
        while !records.is_empty() {
            let digits = records.iter().position(|b| *b == b' ').ok_or_else(bad)?;
            let len = decimal(records.get(..digits).unwrap_or_default()).ok_or_else(bad)?;
            let len = usize::try_from(len).map_err(|_| bad())?;
            let (record, rest) = records.split_at_checked(len).ok_or_else(bad)?;
            let record = record.get(digits..).and_then(|record| record.get(1..)).ok_or_else(bad)?;
            let record = record.strip_suffix(b"\n").ok_or_else(bad)?;
            let equals = record.iter().position(|b| *b == b'=').ok_or_else(bad)?;
            let (key, value) = record.split_at_checked(equals).ok_or_else(bad)?;
            let value = value.get(1..).unwrap_or_default();
            pax.record(key, value)?;
            records = rest;
        }
        Ok(pax)
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        match key {
            b"path" => set(&mut self.path, value.to_vec())?,
            b"size" => {
                let size = decimal(value).ok_or_else(|| {
                    Error::corrupt("tar.header", "an extended header's size is not a number").found(escape_bytes(value))
                })?;
                set(&mut self.size, size)?;
            }
            key if key.starts_with(b"GNU.sparse.") => self.sparse = true,
            _ => {}
        }
        Ok(())
    }
}

/// Stores a record that may come once only: readers disagree on which of two counts.
fn set<T>(slot: &mut Option<T>, value: T) -> Result<()> {
    match slot.replace(value) {
        Some(_) => Err(Error::corrupt("tar.header", "an extended header gives a value twice")),
        None => Ok(()),
    }
}

/// `name`, with `prefix` before it where the header is a POSIX one.
fn short_name(block: &[u8; BLOCK]) -> Vec<u8> {
    let name = until_nul(field(block, 0..100));
    let prefix = until_nul(field(block, 345..500));
    let posix = field(block, 257..263) == b"ustar\0";
    if posix && !prefix.is_empty() { [prefix, b"/", name].concat() } else { name.to_vec() }
}

fn kind(block: &[u8; BLOCK]) -> u8 {
    field(block, 156..157).first().copied().unwrap_or(0)
}

/// A numeric field: octal digits between blanks and NULs, or base 256 when the first bit is set.
fn number(field: &[u8]) -> Result<u64> {
    let bad = || Error::corrupt("tar.header", "a size is not a number").found(escape_bytes(field));
    match field.split_first() {
        Some((0x80, digits)) => {
            digits.iter().try_fold(0_u64, |value, digit| value.checked_mul(256)?.checked_add(u64::from(*digit)))
        }
        Some((first, _)) if first & 0x80 != 0 => None,
        _ => {
            let text = field.trim_ascii_start();
            let end = text.iter().position(|b| matches!(b, b' ' | 0)).unwrap_or(text.len());
            let (digits, rest) = text.split_at_checked(end).unwrap_or_default();
            let clean = rest.iter().all(|b| matches!(b, b' ' | 0));
            let octal = |value: u64, digit: &u8| match digit {
                b'0'..=b'7' => value.checked_mul(8)?.checked_add(u64::from(digit.saturating_sub(b'0'))),
                _ => None,
            };
            digits.iter().try_fold(0_u64, octal).filter(|_| clean)
        }
    }
    .ok_or_else(bad)
}

fn decimal(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.len() <= 20 && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| digits)?.parse().ok()
}

/// Whether the stored checksum is the sum of all bytes, taken as unsigned, or as signed by some old writers.
fn checksum_fits(block: &[u8; BLOCK]) -> bool {
    let Ok(stored) = number(field(block, 148..156)) else { return false };
    let (mut unsigned, mut signed) = (0_u64, 0_i64);
    for (at, byte) in block.iter().enumerate() {
        let byte = if (148..156).contains(&at) { b' ' } else { *byte };
        unsigned = unsigned.saturating_add(u64::from(byte));
        signed = signed.saturating_add(i64::from(byte.cast_signed()));
    }
    stored == unsigned || i64::try_from(stored) == Ok(signed)
}

fn is_zero(block: &[u8; BLOCK]) -> bool {
    block.iter().all(|b| *b == 0)
}

fn field(block: &[u8; BLOCK], range: Range<usize>) -> &[u8] {
    block.get(range).unwrap_or_default()
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|b| *b == 0).next().unwrap_or_default()
}

fn bad(what: &str, offset: u64) -> Error {
    Error::corrupt("tar.header", what).offset(offset)
}

fn unsupported(what: &str, offset: u64) -> Error {
    Error::unsupported("tar.unsupported", what).offset(offset)
}

fn sparse(offset: u64) -> Error {
    unsupported("a sparse member is not handled", offset).hint("pack the files again without --sparse")
}

fn truncated(what: &str, offset: u64) -> Error {
    Error::corrupt("tar.truncated", format!("the archive ends inside {what}"))
        .offset(offset)
        .hint("the file may be incomplete; get it again")
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, clippy::as_conversions, reason = "tests build their input")]
pub(super) mod tests {
    use super::*;
    use crate::disk::{Checked, Memory};

    /// A header with a good checksum.
    pub(in crate::container) fn header(name: &str, kind: u8, size: &[u8]) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        block[..name.len()].copy_from_slice(name.as_bytes());
        block[100..108].copy_from_slice(b"0000644\0");
        block[124..124 + size.len()].copy_from_slice(size);
        block[156] = kind;
        block[257..265].copy_from_slice(b"ustar\x0000");
        seal(&mut block);
        block
    }

    fn seal(block: &mut [u8; BLOCK]) {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }

    /// A member with its header and padding.
    pub(in crate::container) fn member(name: &str, kind: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = header(name, kind, format!("{:011o}", content.len()).as_bytes()).to_vec();
        bytes.extend(content);
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        bytes
    }

    pub(in crate::container) fn end() -> Vec<u8> {
        vec![0; 2 * BLOCK]
    }

    fn pax(records: &[(&str, &str)]) -> Vec<u8> {
        let mut text = String::new();
        for (key, value) in records {
            let plain = key.len() + value.len() + 3;
            let mut len = plain + 1;
            while len != plain + len.to_string().len() {
                len = plain + len.to_string().len();
            }
            text += &format!("{len} {key}={value}\n");
        }
        text.into_bytes()
    }

    fn read(parts: &[Vec<u8>]) -> Result<Archive> {
        Archive::read(&*Checked::wrap(Memory::new(parts.concat())))
    }

    fn members(archive: &Archive) -> Vec<(&str, Range<u64>)> {
        archive.members.iter().map(|member| (member.name.as_str(), member.range.clone())).collect()
    }

    #[test]
    fn members_are_ranges() {
        let archive = read(&[member("./a.ovf", b'0', b"text"), member("b", 0, &[1; 512]), end()]).unwrap();
        assert_eq!(members(&archive), [("a.ovf", 512..516), ("b", 1536..2048)]);
        assert!(archive.notes.is_empty());
    }

    #[test]
    fn long_names_of_both_kinds_and_prefixes() {
        let long = "x".repeat(300);
        let gnu = [member("././@LongLink", b'L', format!("{long}\0").as_bytes()), member("short", b'0', b"1"), end()];
        let posix = [member("pax", b'x', &pax(&[("path", &long)])), member("short", b'0', b"1"), end()];
        for parts in [&gnu, &posix] {
            assert_eq!(read(parts).unwrap().members[0].name, long);
        }
        let mut prefixed = header("name", b'0', b"00000000000");
        prefixed[345..348].copy_from_slice(b"dir");
        seal(&mut prefixed);
        assert_eq!(read(&[prefixed.to_vec(), end()]).unwrap().members[0].name, "dir/name");
    }

    #[test]
    fn sizes_in_base_256_and_in_extended_headers() {
        let base = header("big", b'0', b"\x80\0\0\0\0\0\0\0\0\0\x02\x01").to_vec();
        let archive = read(&[base, vec![0; 1024], member("next", b'0', b""), end()]).unwrap();
        assert_eq!(members(&archive), [("big", 512..512 + 513), ("next", 2048..2048)]);
        // CVE-2025-62518: the plain header says 0, the extended one says 1024; its content looks like a member.
        let inner = member("smuggled", b'0', b"");
        let mut content = inner.clone();
        content.resize(1024, 0);
        let parts = [
            member("pax", b'x', &pax(&[("size", "1024")])),
            header("outer", b'0', b"00000000000").to_vec(),
            content,
            end(),
        ];
        assert_eq!(members(&read(&parts).unwrap()), [("outer", 1536..2560)]);
    }

    #[test]
    fn what_is_not_a_file_is_noted() {
        let parts = [
            member("dir/", b'5', b""),
            member("link", b'2', b""),
            member("hard", b'1', b""),
            member("dev", b'3', b""),
            member("fifo", b'6', b""),
            member("a", b'0', b""),
        ];
        let archive = read(&parts).unwrap();
        assert_eq!(members(&archive), [("a", 3072..3072)]);
        assert_eq!(archive.notes.len(), 5, "{:?}", archive.notes);
        assert!(archive.notes[0].contains("symbolic") && archive.notes[4].contains("no end mark"));
    }

    #[test]
    fn duplicates_are_told_when_asked_for() {
        let archive = read(&[member("a", b'0', b"1"), member("./a", b'0', b"2"), end()]).unwrap();
        assert_eq!(archive.find("a").unwrap_err().code(), "tar.duplicate");
        assert_eq!(archive.find("b").unwrap(), None);
    }

    #[test]
    fn hostile_archives_are_refused() {
        let file = || member("a", b'0', b"content");
        let big = |size: &[u8]| header("a", b'0', size).to_vec();
        let long = |content: &[u8]| member("l", b'L', content);
        let mut broken = file();
        broken[0] ^= 1;
        let cases: Vec<(&str, Vec<Vec<u8>>, &str)> = vec![
            ("checksum", vec![broken], "tar.header"),
            ("text", vec![b"not a tar at all".repeat(64)], "tar.header"),
            ("negative base 256", vec![big(&[0xff; 12])], "tar.header"),
            ("huge base 256", vec![big(b"\x80\0\0\xff\xff\xff\xff\xff\xff\xff\xff\xff")], "tar.header"),
            ("size past the end", vec![big(b"77777777777"), end()], "tar.truncated"),
            ("size with junk", vec![big(b"00000z00000")], "tar.header"),
            ("cut header", vec![file(), vec![1; 100]], "tar.truncated"),
            ("gnu sparse", vec![member("a", b'S', b"")], "tar.unsupported"),
            ("pax sparse", vec![member("x", b'x', &pax(&[("GNU.sparse.major", "1")])), file()], "tar.unsupported"),
            ("multi-volume", vec![member("a", b'M', b"")], "tar.unsupported"),
            ("unknown type", vec![member("a", b'Z', b"")], "tar.unsupported"),
            ("link with content", vec![member("a", b'1', b"content")], "tar.header"),
            ("two long names", vec![long(b"a\0"), long(b"b\0"), file()], "tar.header"),
            ("gnu and pax names", vec![long(b"a\0"), member("x", b'x', &pax(&[("path", "b")])), file()], "tar.header"),
            ("two extended", vec![member("x", b'x', &pax(&[("path", "b")])).repeat(2), file()], "tar.header"),
            ("pax size twice", vec![member("x", b'x', &pax(&[("size", "1"), ("size", "2")])), file()], "tar.header"),
            ("pax size junk", vec![member("x", b'x', &pax(&[("size", "-1")])), file()], "tar.header"),
            ("pax length lies", vec![member("x", b'x', b"99 size=1\n"), file()], "tar.header"),
            ("pax length zero", vec![member("x", b'x', b"0 size=1\n"), file()], "tar.header"),
            ("global size", vec![member("g", b'g', &pax(&[("size", "1")])), file()], "tar.header"),
            ("extended at the end", vec![member("x", b'x', &pax(&[("path", "b")])), end()], "tar.header"),
            ("no name", vec![header("", b'0', b"0").to_vec()], "tar.header"),
            ("directory with content", vec![member("a/", b'0', b"content")], "tar.header"),
        ];
        for (name, parts, code) in cases {
            assert_eq!(read(&parts).unwrap_err().code(), code, "{name}");
        }
    }

    #[test]
    fn bounds_hold() {
        let many = |count| read(&[header("a", b'0', b"0").repeat(count), end()]);
        assert_eq!(many(limits::MAX_TAR_HEADERS - 1).unwrap().members.len(), limits::MAX_TAR_HEADERS - 1);
        assert_eq!(many(limits::MAX_TAR_HEADERS).unwrap_err().code(), "tar.limit");
        let named = |len| read(&[member("l", b'L', &vec![b'a'; len]), member("a", b'0', b""), end()]);
        assert!(named(limits::MAX_REFERENCE).is_ok());
        assert_eq!(named(limits::MAX_REFERENCE + 1).unwrap_err().code(), "tar.limit");
        let comment = |len: usize| read(&[member("g", b'g', &pax(&[("comment", &"c".repeat(len))])), end()]);
        assert!(comment(limits::MAX_TAR_PAX - 20).is_ok());
        assert_eq!(comment(limits::MAX_TAR_PAX).unwrap_err().code(), "tar.limit");
    }

    #[test]
    fn every_truncation_fails_or_loses_whole_members() {
        let bytes = [member("x", b'x', &pax(&[("size", "7")])), member("a", b'0', b"content"), member("b", b'0', b"c")]
            .concat();
        for len in 1..bytes.len() {
            if let Ok(archive) = read(&[bytes[..len].to_vec()]) {
                let first: Vec<_> = members(&archive);
                assert!(first.is_empty() || first[0] == ("a", 1536..1543), "cut at {len}: {first:?}");
            }
        }
    }

    /// Python's reader, on archives that Python and tar(1) write.
    #[test]
    fn agrees_with_python() {
        const SCRIPT: &str = r#"
import io, sys, tarfile
for kind in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=kind) as tar:
        for name, size in (("a.ovf", 100), ("d/" + "n" * 90, 512), ("d" * 60 + "/" + "e" * 90, 0), ("é.vmdk", 70000)):
            info = tarfile.TarInfo(name)
            info.size = size
            tar.addfile(info, io.BytesIO(b"x" * size))
        if kind != tarfile.USTAR_FORMAT:
            info = tarfile.TarInfo("f" * 300)
            info.size = 9
            tar.addfile(info, io.BytesIO(b"123456789"))
        info = tarfile.TarInfo("link")
        info.type, info.linkname = tarfile.SYMTYPE, "l" * 200 if kind != tarfile.USTAR_FORMAT else "l"
        tar.addfile(info)
        if kind != tarfile.USTAR_FORMAT:
            info = tarfile.TarInfo("last")
            tar.addfile(info)
    data = out.getvalue()
    open(f"{sys.argv[1]}/{kind}.tar", "wb").write(data)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for member in tar:
            if member.isreg():
                print(f"{kind}\t{member.name}\t{member.offset_data}\t{member.size}")
"#;
        let dir = tempfile::tempdir().unwrap();
        #[allow(clippy::disallowed_methods, reason = "tests run a second implementation")]
        let output = std::process::Command::new("python3").arg("-c").arg(SCRIPT).arg(dir.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let theirs = String::from_utf8(output.stdout).unwrap();
        let mut ours = String::new();
        for kind in 0..3 {
            let source = crate::source::FileSource::open(&dir.path().join(format!("{kind}.tar"))).unwrap();
            for member in Archive::read(&*source).unwrap().members {
                let (start, len) = (member.range.start, member.range.end - member.range.start);
                ours += &format!("{kind}\t{}\t{start}\t{len}\n", member.name);
            }
        }
        assert_eq!(ours, theirs);
    }
}
