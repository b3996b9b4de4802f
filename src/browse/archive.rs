//! A guest's files as a tar archive (POSIX.1-2001, pax), with owners, times, links and extended attributes. Files with holes are
//! stored without them, in version 1.0 of GNU's format for that ("Storing Sparse Files" of its manual).

use std::collections::HashMap;
use std::io::Write;
use std::ops::{ControlFlow, Range};

use tar::{EntryType, Header};

use super::walk::{Step, walk};
use super::{each_part, each_piece_of, of, read_to};
use crate::error::{Error, Result, escape_bytes};
use crate::fs::tree::{FileId, Found};
use crate::fs::{FileKind, Timestamp, Tree};
use crate::limits;
use crate::session::Session;

/// Bytes of a header's fields for the name and the link's target.
const NAME: usize = 100;

/// Largest number of seven octal digits.
const SEVEN_DIGITS: u64 = 0o777_7777;

/// Largest number of eleven octal digits.
const ELEVEN_DIGITS: u64 = 0o777_7777_7777;

/// Writes `top` and all that is in it to `to` as an archive whose names begin below `top`. Sockets are left out, as by GNU tar.
/// Holes are left out if `holes`, and zeros otherwise. `problem` hears of what cannot be read; what it lets pass is missing from
/// the archive.
///
/// # Errors
/// Those of `to`, of `problem`, and of a file whose reading fails after its header was written.
pub fn archive(
    tree: &Tree,
    top: &Found,
    session: &Session,
    holes: bool,
    to: &mut dyn Write,
    problem: &mut dyn FnMut(Error) -> Result<()>,
) -> Result<()> {
    let mut archive = Archive { tree, session, holes, to, links: HashMap::new() };
    walk(tree, top, session, &mut |found, _| {
        match found {
            Ok(found) => archive.add(found, &relative(&found.path, &top.path))?,
            Err(error) => problem(error)?,
        }
        Ok(Step::In)
    })?;
    archive.write(&[0; 1024])
}

/// `path` as it is called below `top`, with a dot in front, so that no name is absolute or empty.
fn relative(path: &[u8], top: &[u8]) -> Vec<u8> {
    let rest = path.strip_prefix(top).unwrap_or(path);
    let rest = rest.strip_prefix(b"/").unwrap_or(rest);
    if rest.is_empty() { b".".to_vec() } else { [b"./", rest].concat() }
}

struct Archive<'a> {
    tree: &'a Tree,
    session: &'a Session,
    /// Whether holes are left out.
    holes: bool,
    to: &'a mut dyn Write,
    /// Names of files that have more than one, by what they are.
    links: HashMap<FileId, Vec<u8>>,
}

impl Archive<'_> {
    fn add(&mut self, found: &Found, name: &[u8]) -> Result<()> {
        let mut member = Member::new(found, name);
        let kind = match found.stat.kind {
            FileKind::Regular => return self.add_file(found, member),
            FileKind::Directory => EntryType::Directory,
            FileKind::Symlink => {
                member.link(&self.tree.target(found)?);
                EntryType::Symlink
            }
            FileKind::BlockDevice => EntryType::Block,
            FileKind::CharDevice => EntryType::Char,
            FileKind::Fifo => EntryType::Fifo,
            FileKind::Socket => return Ok(()),
        };
        member.xattrs(self.tree.xattrs_of(found)?);
        let bytes = member.finish(kind, 0);
        self.write(&bytes)
    }

    fn add_file(&mut self, found: &Found, mut member: Member) -> Result<()> {
        if found.stat.links > 1 {
            if let Some(first) = self.links.get(&found.id()) {
                member.link(first);
                let bytes = member.finish(EntryType::Link, 0);
                return self.write(&bytes);
            }
            self.links.insert(found.id(), member.name.clone());
        }
        member.xattrs(self.tree.xattrs_of(found)?);
        let size = found.stat.size;
        let parts = if self.holes { self.parts(found)? } else { None };
        if let Some(parts) = parts {
            return self.add_sparse(found, member, &parts);
        }
        let bytes = member.finish(EntryType::Regular, size);
        self.write(&bytes)?;
        let written = read_to(self.tree, found, self.session, self.to)?;
        if written != size {
            return Err(Error::corrupt("guest.short-file", "a guest file is shorter than its inode says")
                .at(escape_bytes(&found.path))
                .expected(size)
                .found(written));
        }
        self.pad(size)
    }

    /// The parts of a file that are no holes, in order, if it has a hole. Behind the last one that is kept, everything is one.
    fn parts(&self, found: &Found) -> Result<Option<Vec<Range<u64>>>> {
        let reader = self.tree.reader(found)?;
        let mut parts: Vec<Range<u64>> = Vec::new();
        each_part(&reader, self.session, |part| Ok(keep(&mut parts, part, reader.size()))).map_err(of(found))?;
        let whole = 0..reader.size();
        Ok((parts != [whole.clone()] && !whole.is_empty()).then_some(parts))
    }

    /// A file without its holes: first a map of what is there, in decimal numbers.
    fn add_sparse(&mut self, found: &Found, mut member: Member, parts: &[Range<u64>]) -> Result<()> {
        let size = found.stat.size;
        let mut map = Vec::new();
        // The last one says where the file ends.
        let end = parts.last().is_none_or(|last| last.end < size).then_some(size..size);
        let all: Vec<Range<u64>> = parts.iter().cloned().chain(end).collect();
        map.extend(format!("{}\n", all.len()).into_bytes());
        for part in &all {
            map.extend(format!("{}\n{}\n", part.start, part.end.saturating_sub(part.start)).into_bytes());
        }
        map.resize(map.len().next_multiple_of(512), 0);
        let held = parts.iter().map(|part| part.end.saturating_sub(part.start)).fold(0, u64::saturating_add);
        let stored = u64::try_from(map.len()).unwrap_or(u64::MAX).saturating_add(held);
        member.sparse(size);
        let bytes = member.finish(EntryType::Regular, stored);
        self.write(&bytes)?;
        self.write(&map)?;
        let reader = self.tree.reader(found)?;
        for part in parts {
            let write = |_, piece: &[u8]| self.to.write_all(piece).map_err(|e| Error::write("writing the archive", e));
            each_piece_of(&reader, part.clone(), self.session, write).map_err(of(found))?;
        }
        self.pad(stored)
    }

    /// Fills the last block of a member.
    fn pad(&mut self, size: u64) -> Result<()> {
        let over = size.checked_rem(512).and_then(|over| usize::try_from(over).ok()).unwrap_or(0);
        let missing = if over == 0 { 0 } else { 512_usize.saturating_sub(over) };
        self.write([0; 512].get(..missing).unwrap_or_default())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.to.write_all(bytes).map_err(|e| Error::write("writing the archive", e))
    }
}

/// Adds a part of a file of `size` bytes to those before; when there are too many, all that follows belongs to the last one.
fn keep(parts: &mut Vec<Range<u64>>, part: Range<u64>, size: u64) -> ControlFlow<()> {
    let is_full = parts.len() >= limits::MAX_ARCHIVE_PARTS;
    match parts.last_mut() {
        Some(last) if last.end == part.start => last.end = part.end,
        Some(last) if is_full => {
            last.end = size;
            return ControlFlow::Break(());
        }
        _ => parts.push(part),
    }
    ControlFlow::Continue(())
}

/// A member's header, and the extended one for what does not fit there.
struct Member {
    name: Vec<u8>,
    header: Header,
    /// Records of the extended header: key and value.
    records: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Member {
    fn new(found: &Found, name: &[u8]) -> Self {
        let stat = &found.stat;
        let name = if stat.kind == FileKind::Directory { [name, b"/"].concat() } else { name.to_vec() };
        let mut member = Self { name: name.clone(), header: Header::new_ustar(), records: Vec::new() };
        member.text(b"path", &name, |header, short| put(&mut header.as_old_mut().name, short));
        member.header.set_mode(stat.mode);
        member.number(b"uid", u64::from(stat.uid), SEVEN_DIGITS, Header::set_uid);
        member.number(b"gid", u64::from(stat.gid), SEVEN_DIGITS, Header::set_gid);
        member.time(stat.mtime);
        if let Some((major, minor)) = stat.device {
            // A ustar header has these fields, so this cannot fail.
            let _ = member.header.set_device_major(major).and_then(|()| member.header.set_device_minor(minor));
        }
        member
    }

    /// Says that holes are left out. Programs that do not know of such members see one of another name.
    fn sparse(&mut self, size: u64) {
        self.records.retain(|(key, _)| key != b"path");
        self.header.as_old_mut().name = [0; NAME];
        put(&mut self.header.as_old_mut().name, b"./GNUSparseFile.0/member");
        for (key, value) in [
            (&b"GNU.sparse.major"[..], b"1".to_vec()),
            (b"GNU.sparse.minor", b"0".to_vec()),
            (b"GNU.sparse.name", self.name.clone()),
            (b"GNU.sparse.realsize", size.to_string().into_bytes()),
        ] {
            self.records.push((key.to_vec(), value));
        }
    }

    fn link(&mut self, target: &[u8]) {
        self.text(b"linkpath", target, |header, short| put(&mut header.as_old_mut().linkname, short));
    }

    fn xattrs(&mut self, xattrs: Vec<(Vec<u8>, Vec<u8>)>) {
        // A record's key ends at the first equals sign.
        let fit = xattrs.into_iter().filter(|(name, _)| !name.contains(&b'='));
        self.records.extend(fit.map(|(name, value)| ([b"SCHILY.xattr.", name.as_slice()].concat(), value)));
    }

    /// A text in its field or, where it does not fit or is not plain, in a record too.
    fn text(&mut self, key: &[u8], value: &[u8], set: impl FnOnce(&mut Header, &[u8])) {
        if value.len() > NAME || !value.is_ascii() {
            self.records.push((key.to_vec(), value.to_vec()));
        }
        set(&mut self.header, value.get(..NAME).unwrap_or(value));
    }

    fn number(&mut self, key: &[u8], value: u64, most: u64, set: impl FnOnce(&mut Header, u64)) {
        if value > most {
            self.records.push((key.to_vec(), value.to_string().into_bytes()));
        }
        set(&mut self.header, value.min(most));
    }

    fn time(&mut self, time: Timestamp) {
        let whole = u64::try_from(time.seconds).ok().filter(|seconds| *seconds <= ELEVEN_DIGITS);
        self.header.set_mtime(whole.unwrap_or(0));
        if whole.is_none() || time.nanoseconds != 0 {
            self.records.push((b"mtime".to_vec(), decimal(time).into_bytes()));
        }
    }

    /// Everything that comes before the content.
    fn finish(mut self, kind: EntryType, size: u64) -> Vec<u8> {
        self.number(b"size", size, ELEVEN_DIGITS, Header::set_size);
        self.header.set_entry_type(kind);
        self.header.set_cksum();
        let mut bytes = Vec::new();
        let body: Vec<u8> = self.records.iter().flat_map(|(key, value)| record(key, value)).collect();
        if !body.is_empty() {
            let mut header = Header::new_ustar();
            put(&mut header.as_old_mut().name, b"./PaxHeaders/member");
            header.set_mode(0o644);
            header.set_mtime(0);
            header.set_uid(0);
            header.set_gid(0);
            header.set_size(u64::try_from(body.len()).unwrap_or(u64::MAX));
            header.set_entry_type(EntryType::XHeader);
            header.set_cksum();
            bytes.extend_from_slice(header.as_bytes());
            bytes.extend_from_slice(&body);
            bytes.resize(bytes.len().next_multiple_of(512), 0);
        }
        bytes.extend_from_slice(self.header.as_bytes());
        bytes
    }
}

/// A record: its own length in decimal, a space, the key, an equals sign, the value, and a newline.
fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len().saturating_add(value.len()).saturating_add(3);
    let mut len = rest;
    while rest.saturating_add(len.to_string().len()) != len {
        len = rest.saturating_add(len.to_string().len());
    }
    [len.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

/// A time as a decimal number of seconds; also one before 1970.
fn decimal(time: Timestamp) -> String {
    let nanoseconds =
        i128::from(time.seconds).saturating_mul(1_000_000_000).saturating_add(i128::from(time.nanoseconds));
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let (whole, part) = (nanoseconds.unsigned_abs() / 1_000_000_000, nanoseconds.unsigned_abs() % 1_000_000_000);
    if part == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{part:09}") }
}

fn put(field: &mut [u8], value: &[u8]) {
    field.iter_mut().zip(value).for_each(|(to, from)| *to = *from);
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "tests build their input")]
mod tests {
    use super::*;

    #[test]
    fn an_archive_keeps_as_many_parts_apart_as_the_limit() {
        let limit = u64::try_from(limits::MAX_ARCHIVE_PARTS).unwrap();
        for (count, kept) in [(limit - 1, limit - 1), (limit, limit), (limit + 1, limit), (limit + 9, limit)] {
            let (mut parts, size) = (Vec::new(), count * 10);
            let ended = (0..count).find(|part| keep(&mut parts, part * 10..part * 10 + 5, size).is_break());
            assert_eq!(u64::try_from(parts.len()).unwrap(), kept);
            assert_eq!(ended, (count > limit).then_some(limit));
            assert_eq!(parts.last().unwrap().end, if count > limit { size } else { count * 10 - 5 });
        }
    }

    #[test]
    fn parts_that_touch_are_one() {
        let mut parts = Vec::new();
        for part in [0..5, 5..9, 12..20, 20..21] {
            assert!(keep(&mut parts, part, 30).is_continue());
        }
        assert_eq!(parts, [0..9, 12..21]);
    }
}
