//! A guest's files as a tar archive (POSIX.1-2001, pax), with owners, times, links and extended attributes.

use std::collections::HashMap;
use std::io::Write;

use tar::{EntryType, Header};

use super::read_to;
use super::walk::{Step, walk};
use crate::error::{Error, Result, escape_bytes};
use crate::fs::tree::{FileId, Found};
use crate::fs::{FileKind, Timestamp, Tree};
use crate::session::Session;

/// Bytes of a header's fields for the name and the link's target.
const NAME: usize = 100;

/// Largest number of seven octal digits.
const SEVEN_DIGITS: u64 = 0o777_7777;

/// Largest number of eleven octal digits.
const ELEVEN_DIGITS: u64 = 0o777_7777_7777;

/// Writes `top` and all that is in it to `to` as an archive whose names begin below `top`. Sockets are left out, as by GNU tar.
/// `problem` hears of what cannot be read; what it lets pass is missing from the archive.
///
/// # Errors
/// Those of `to`, of `problem`, and of a file whose reading fails after its header was written.
pub fn archive(
    tree: &Tree,
    top: &Found,
    session: &Session,
    to: &mut dyn Write,
    problem: &mut dyn FnMut(Error) -> Result<()>,
) -> Result<()> {
    let mut archive = Archive { tree, session, to, links: HashMap::new() };
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
