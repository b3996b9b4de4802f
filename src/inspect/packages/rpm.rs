//! rpm's database: a header for each package, in one of three kinds of files.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::ops::ControlFlow;

use super::sqlite;
use super::{Database, LONGEST_LINE, LONGEST_TEXT, LONGEST_WORD, Package, bdb, ndb, text};
use crate::disk::bytes::{be16, be32, be64, size};
use crate::error::{Error, Result};
use crate::fs::Tree;

/// Folders of the database, the newest place first. Images of ostree keep it with the system.
const FOLDERS: &[&str] = &["/usr/lib/sysimage/rpm", "/var/lib/rpm", "/usr/share/rpm"];

/// Gives every header of the database at a path.
type Read = fn(&Tree, &str, &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()>;

/// The kinds of files, the one that replaced the others first.
const BACKENDS: &[(&str, &str, Read)] =
    &[("rpmdb.sqlite", "sqlite", read_sqlite), ("Packages.db", "ndb", ndb::headers), ("Packages", "bdb", bdb::headers)];

pub(super) fn read(tree: &Tree) -> Result<Option<Database>> {
    for folder in FOLDERS {
        for (name, backend, read) in BACKENDS {
            let path = format!("{folder}/{name}");
            if !tree.is_file(&path)? {
                continue;
            }
            let mut database = Database::new("rpm", Some(backend), &path);
            let read = read(tree, &path, &mut |header| database.push(parse(header)?)).map_err(|error| error.at(path));
            return database.finish(read).map(Some);
        }
    }
    Ok(None)
}

fn read_sqlite(tree: &Tree, path: &str, visit: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let Some(file) = sqlite::Database::open(tree, path)? else { return Ok(()) };
    let Some(packages) = file.table("Packages")? else {
        return Err(corrupt("a database without the table Packages"));
    };
    file.rows(&packages, &mut |row| {
        if let Some(header) = row.blob("blob") {
            visit(header)?;
        }
        Ok(ControlFlow::Continue(()))
    })
}

/// Tags of what is told (rpmtag.h).
mod tag {
    pub(super) const NAME: u32 = 1000;
    pub(super) const VERSION: u32 = 1001;
    pub(super) const RELEASE: u32 = 1002;
    pub(super) const EPOCH: u32 = 1003;
    pub(super) const SUMMARY: u32 = 1004;
    pub(super) const DESCRIPTION: u32 = 1005;
    pub(super) const INSTALL_TIME: u32 = 1008;
    pub(super) const SIZE: u32 = 1009;
    pub(super) const VENDOR: u32 = 1011;
    pub(super) const URL: u32 = 1020;
    pub(super) const ARCH: u32 = 1022;
    pub(super) const SOURCE_RPM: u32 = 1044;
    pub(super) const LONG_SIZE: u32 = 5009;
}

/// A package's header: entries of 16 bytes that say what the bytes after them mean, all big-endian.
struct Header<'a> {
    index: &'a [u8],
    data: &'a [u8],
}

/// A header as the database holds it: the number of entries, the length of the data, the entries, the data.
fn parse(blob: &[u8]) -> Result<Package> {
    /// rpm's own bound on entries.
    const MAX_ENTRIES: u32 = 0xffff;
    let entries = be32(blob, 0);
    if blob.len() < 8 || entries == 0 || entries > MAX_ENTRIES {
        return Err(corrupt("a package's header with an impossible number of entries").found(entries));
    }
    let length = size(u64::from(entries)).saturating_mul(16);
    let body = blob.get(8..).and_then(|body| body.split_at_checked(length));
    let Some((index, data)) = body.filter(|(_, data)| size(u64::from(be32(blob, 4))) == data.len()) else {
        return Err(corrupt("a package's header whose length contradicts it").found(blob.len()));
    };
    let header = Header { index, data };
    let word = |tag| header.string(tag, LONGEST_WORD);
    let name = word(tag::NAME).ok_or_else(|| corrupt("a package's header without a name"))?;
    Ok(Package {
        arch: word(tag::ARCH),
        epoch: header.number(tag::EPOCH),
        version: word(tag::VERSION).unwrap_or_default(),
        release: word(tag::RELEASE),
        vendor: header.string(tag::VENDOR, LONGEST_LINE),
        install_time: header.number(tag::INSTALL_TIME).and_then(|time| i64::try_from(time).ok()),
        size: header.number(tag::LONG_SIZE).or_else(|| header.number(tag::SIZE)),
        summary: header.string(tag::SUMMARY, LONGEST_LINE),
        description: header.string(tag::DESCRIPTION, LONGEST_TEXT),
        url: header.string(tag::URL, LONGEST_LINE),
        source: word(tag::SOURCE_RPM).as_deref().and_then(source_name).filter(|source| *source != name),
        name,
        state: None,
    })
}

impl<'a> Header<'a> {
    /// The type and the data of a tag. What was added at installation comes last and replaces what the package brought.
    fn entry(&self, tag: u32) -> Option<(u32, &'a [u8])> {
        let entry = self.index.chunks_exact(16).rfind(|entry| be32(entry, 0) == tag && be32(entry, 12) > 0)?;
        Some((be32(entry, 4), self.data.get(size(u64::from(be32(entry, 8)))..)?))
    }

    /// The first string of a tag; of one that is translated, the untranslated one.
    fn string(&self, tag: u32, most: usize) -> Option<String> {
        const STRING: u32 = 6;
        const STRING_ARRAY: u32 = 8;
        const I18N_STRING: u32 = 9;
        let (STRING | STRING_ARRAY | I18N_STRING, data) = self.entry(tag)? else { return None };
        let end = data.iter().take(most).position(|byte| *byte == 0);
        text(data.get(..end.unwrap_or(most)).unwrap_or(data), most)
    }

    /// The first number of a tag.
    fn number(&self, tag: u32) -> Option<u64> {
        const INT16: u32 = 3;
        const INT32: u32 = 4;
        const INT64: u32 = 5;
        let (kind, data) = self.entry(tag)?;
        match kind {
            INT16 if data.len() >= 2 => Some(u64::from(be16(data, 0))),
            INT32 if data.len() >= 4 => Some(u64::from(be32(data, 0))),
            INT64 if data.len() >= 8 => Some(be64(data, 0)),
            _ => None,
        }
    }
}

/// The name in `NAME-VERSION-RELEASE.src.rpm`.
fn source_name(file: &str) -> Option<String> {
    let mut parts = file.rsplitn(3, '-');
    let (_release, _version, name) = (parts.next()?, parts.next()?, parts.next()?);
    Some(name.to_owned())
}

pub(super) fn corrupt(what: &str) -> Error {
    Error::corrupt("rpm.database", what)
}
