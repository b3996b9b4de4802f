//! pacman's database: a folder for each package, with a file `desc` of `%FIELD%` lines and values below them.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use super::{Database, LONGEST_LINE, LONGEST_WORD, Package, split_version, text};
use crate::error::Result;
use crate::fs::{FileKind, Tree};
use crate::limits;

const PATH: &str = "/var/lib/pacman/local";

pub(super) fn read(tree: &Tree) -> Result<Option<Database>> {
    if !tree.is_dir(PATH)? {
        return Ok(None);
    }
    let mut database = Database::new("pacman", None, PATH);
    let read = read_all(tree, &mut database);
    database.finish(read).map(Some)
}

fn read_all(tree: &Tree, database: &mut Database) -> Result<()> {
    for entry in tree.list(PATH)?.into_iter().filter(|entry| entry.kind == FileKind::Directory) {
        let path = [PATH.as_bytes(), b"/", &entry.name, b"/desc"].concat();
        if let Some(desc) = tree.read(path, limits::MAX_GUEST_CONFIG)? {
            database.push(parse(&desc))?;
        }
    }
    Ok(())
}

fn parse(desc: &[u8]) -> Package {
    let mut package = Package::default();
    let mut field: &[u8] = b"";
    for line in desc.split(|byte| *byte == b'\n') {
        if line.starts_with(b"%") && line.ends_with(b"%") {
            field = line;
            continue;
        }
        if line.is_empty() {
            field = b"";
            continue;
        }
        let word = || text(line, LONGEST_WORD);
        match field {
            b"%NAME%" => package.name = word().unwrap_or_default(),
            b"%VERSION%" => {
                let full = word().unwrap_or_default();
                let (epoch, version, release) = split_version(&full);
                (package.epoch, package.version) = (epoch, version.to_owned());
                package.release = release.map(str::to_owned);
            }
            b"%ARCH%" => package.arch = word(),
            b"%BASE%" => package.source = word(),
            b"%DESC%" => package.summary = text(line, LONGEST_LINE),
            b"%URL%" => package.url = text(line, LONGEST_LINE),
            b"%PACKAGER%" => package.vendor = text(line, LONGEST_LINE),
            b"%INSTALLDATE%" => package.install_time = word().and_then(|time| time.parse().ok()),
            b"%SIZE%" => package.size = word().and_then(|size| size.parse().ok()),
            _ => {}
        }
    }
    package.source = package.source.filter(|source| *source != package.name);
    package
}
