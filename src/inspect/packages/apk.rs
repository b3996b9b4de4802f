//! apk's database: blocks of lines that begin with a letter and a colon, an empty line after each.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use super::lines::Lines;
use super::{Database, LONGEST_LINE, LONGEST_WORD, Package, text};
use crate::error::Result;
use crate::fs::Tree;
use crate::fs::tree::FileReader;

const PATHS: &[&str] = &["/lib/apk/db/installed", "/usr/lib/apk/db/installed"];

pub(super) fn read(tree: &Tree) -> Result<Option<Database>> {
    for path in PATHS {
        if let Some(file) = tree.open(path)? {
            let mut database = Database::new("apk", None, *path);
            let read = read_all(file, &mut database);
            return database.finish(read).map(Some);
        }
    }
    Ok(None)
}

fn read_all(file: FileReader, database: &mut Database) -> Result<()> {
    let mut lines = Lines::new(file);
    let mut package = Package::default();
    while let Some(line) = lines.next()? {
        match line.split_at_checked(2) {
            None => database.push(std::mem::take(&mut package))?,
            Some((field, value)) => set(&mut package, field, value),
        }
    }
    database.push(package)
}

fn set(package: &mut Package, field: &[u8], value: &[u8]) {
    let word = || text(value, LONGEST_WORD);
    match field {
        b"P:" => package.name = word().unwrap_or_default(),
        b"V:" => {
            let version = word().unwrap_or_default();
            let (version, release) = match version.rsplit_once('-') {
                Some((version, release)) => (version, Some(release)),
                None => (version.as_str(), None),
            };
            package.version = version.to_owned();
            package.release = release.map(str::to_owned);
        }
        b"A:" => package.arch = word(),
        b"I:" => package.size = word().and_then(|size| size.parse().ok()),
        b"T:" => package.summary = text(value, LONGEST_LINE),
        b"U:" => package.url = text(value, LONGEST_LINE),
        b"m:" => package.vendor = text(value, LONGEST_LINE),
        b"o:" => package.source = word().filter(|source| *source != package.name),
        _ => {}
    }
}
