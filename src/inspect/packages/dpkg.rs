//! dpkg's database: paragraphs of `Field: value` lines (deb822(5)), with the updates that were not yet merged.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::collections::BTreeMap;

use super::lines::Lines;
use super::{Database, LONGEST_LINE, LONGEST_TEXT, LONGEST_WORD, Package, split_version, text};
use crate::error::Result;
use crate::fs::tree::{FileId, FileReader};
use crate::fs::{FileKind, Tree};

const ADMIN: &str = "/var/lib/dpkg";

/// Which package a paragraph is about.
type Key = (String, Option<String>);

/// Reads the database at a path.
type Read = fn(&Tree, &str, &mut Database) -> Result<()>;

/// A paragraph.
#[derive(Debug, Default)]
struct Paragraph {
    package: Package,
    /// The last word of `Status`.
    state: Option<String>,
    /// Packages of several architectures can be there at once; then dpkg names its files by architecture too.
    shared: bool,
}

/// Packages of the main file, and those whose newer paragraph waits in a file of its own.
struct Found<'a> {
    tree: &'a Tree,
    /// The folder with the lists of files, whose times are those of the installation.
    info: Option<FileId>,
    updates: BTreeMap<Key, Paragraph>,
}

/// Reads the ordinary database, or that of images that are put together without dpkg.
pub(super) fn read(tree: &Tree) -> Result<Option<Database>> {
    let status = format!("{ADMIN}/status");
    let pieces = format!("{ADMIN}/status.d");
    let (path, read): (_, Read) = if tree.is_file(&status)? {
        (status, read_status)
    } else if tree.is_dir(&pieces)? {
        (pieces, read_pieces)
    } else {
        return Ok(None);
    };
    let mut database = Database::new("deb", None, &path);
    let read = read(tree, &path, &mut database);
    database.finish(read).map(Some)
}

fn read_status(tree: &Tree, path: &str, database: &mut Database) -> Result<()> {
    let info = tree.find(format!("{ADMIN}/info"))?.filter(|found| found.stat.kind == FileKind::Directory);
    let mut found = Found { tree, info: info.map(|found| found.id()), updates: BTreeMap::new() };
    // Counts them, for its bounds.
    let mut waiting = Database::default();
    // dpkg numbers these files, and merges them when there are many, or when it ends.
    for entry in tree.list(format!("{ADMIN}/updates"))? {
        let Some(name) = entry.text().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())) else { continue };
        let Some(file) = tree.open(format!("{ADMIN}/updates/{name}"))? else { continue };
        paragraphs(file, &mut |paragraph| {
            waiting.push(paragraph.package.clone())?;
            found.updates.insert(paragraph.key(), paragraph);
            Ok(())
        })?;
    }
    let Some(file) = tree.open(path)? else { return Ok(()) };
    paragraphs(file, &mut |paragraph| {
        let newer = found.updates.remove(&paragraph.key());
        found.add(newer.unwrap_or(paragraph), database)
    })?;
    for paragraph in std::mem::take(&mut found.updates).into_values() {
        found.add(paragraph, database)?;
    }
    Ok(())
}

fn read_pieces(tree: &Tree, path: &str, database: &mut Database) -> Result<()> {
    for entry in tree.list(path)?.into_iter().filter(|entry| !entry.name.ends_with(b".md5sums")) {
        let piece = [path.as_bytes(), b"/", &entry.name].concat();
        if let Some(file) = tree.open(piece)? {
            paragraphs(file, &mut |paragraph| database.push(paragraph.package))?;
        }
    }
    Ok(())
}

impl Found<'_> {
    /// Adds what is installed, wholly or in part.
    fn add(&self, paragraph: Paragraph, database: &mut Database) -> Result<()> {
        let state = paragraph.state.clone().filter(|state| state != "installed");
        if matches!(state.as_deref(), Some("not-installed" | "config-files")) {
            return Ok(());
        }
        let install_time = self.install_time(&paragraph)?;
        database.push(Package { state, install_time, ..paragraph.package })
    }

    fn install_time(&self, paragraph: &Paragraph) -> Result<Option<i64>> {
        let (Some(info), name) = (self.info, &paragraph.package.name) else { return Ok(None) };
        let file = match &paragraph.package.arch {
            Some(arch) if paragraph.shared => format!("{name}:{arch}.list"),
            _ => format!("{name}.list"),
        };
        match self.tree.child(info, file.as_bytes())? {
            Some(list) => Ok(Some(self.tree.found(list)?.stat.mtime.seconds)),
            None => Ok(None),
        }
    }
}

impl Paragraph {
    /// Packages of one architecture at a time are told apart by name alone.
    fn key(&self) -> Key {
        (self.package.name.clone(), self.package.arch.clone().filter(|_| self.shared))
    }

    fn set(&mut self, field: &[u8], value: &[u8]) {
        let package = &mut self.package;
        let word = || text(value, LONGEST_WORD);
        match field.to_ascii_lowercase().as_slice() {
            b"package" => package.name = word().unwrap_or_default(),
            b"status" => self.state = word().and_then(|status| status.split(' ').nth(2).map(str::to_owned)),
            b"multi-arch" => self.shared = value.trim_ascii() == b"same",
            b"architecture" => package.arch = word(),
            b"version" => {
                let full = word().unwrap_or_default();
                let (epoch, version, release) = split_version(&full);
                (package.epoch, package.version) = (epoch, version.to_owned());
                package.release = release.map(str::to_owned);
            }
            b"maintainer" => package.vendor = text(value, LONGEST_LINE),
            b"homepage" => package.url = text(value, LONGEST_LINE),
            b"source" => package.source = word().and_then(|source| source.split(' ').next().map(str::to_owned)),
            b"installed-size" => {
                package.size = word().and_then(|size| size.parse::<u64>().ok()?.checked_mul(1024));
            }
            b"description" => package.summary = text(value, LONGEST_LINE),
            _ => {}
        }
    }

    /// A line of the description, which begins with a space; one with a dot alone is empty.
    fn describe(&mut self, line: &[u8]) {
        let line = line.get(1..).filter(|line| line.trim_ascii() != b".").unwrap_or_default();
        let description = self.package.description.get_or_insert_default();
        if description.len().saturating_add(line.len()) < LONGEST_TEXT {
            if !description.is_empty() {
                description.push('\n');
            }
            description.push_str(String::from_utf8_lossy(line).trim_end());
        }
    }
}

fn paragraphs(file: FileReader, visit: &mut dyn FnMut(Paragraph) -> Result<()>) -> Result<()> {
    let mut lines = Lines::new(file);
    let mut paragraph = Paragraph::default();
    let mut in_description = false;
    while let Some(line) = lines.next()? {
        match line {
            [] => {
                visit(std::mem::take(&mut paragraph))?;
                in_description = false;
            }
            [b' ' | b'\t', ..] if in_description => paragraph.describe(line),
            [b' ' | b'\t', ..] => {}
            _ => {
                let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
                let (field, value) = line.split_at_checked(colon).unwrap_or_default();
                in_description = field.eq_ignore_ascii_case(b"description");
                paragraph.set(field, value.get(1..).unwrap_or_default());
            }
        }
    }
    visit(paragraph)
}
