//! Installed packages, from the databases of the guest's package managers.
//!
//! Databases are read as they lie: rpm's in SQLite, ndb and Berkeley DB, dpkg's and apk's text, pacman's folders. One record
//! is in memory at a time, beside the list that is made. What a damaged database still told is kept, with the reason why
//! there is no more.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use serde::Serialize;

use crate::error::{Error, Kind, Result};
use crate::fs::Tree;
use crate::limits;

mod apk;
mod bdb;
mod dpkg;
mod history;
mod lines;
mod ndb;
mod pacman;
mod rpm;
mod sqlite;

pub use history::{Change, History, Transaction, history};

/// One database of packages.
#[derive(Clone, Debug, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Database {
    /// `deb`, `rpm`, `apk` or `pacman`.
    pub format: &'static str,
    /// How rpm keeps it: `sqlite`, `ndb` or `bdb`.
    pub backend: Option<&'static str>,
    /// The file or folder that it lies in.
    pub path: String,
    /// The packages, sorted by name, architecture and version.
    pub packages: Vec<Package>,
    /// Why packages may be missing.
    pub problem: Option<String>,
    /// Bytes of text in the packages.
    #[serde(skip)]
    weight: usize,
}

/// One installed package.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Package {
    /// Its name.
    pub name: String,
    /// The architecture that it is built for, in the distribution's own term.
    pub arch: Option<String>,
    /// What outranks the version; rpm, dpkg and pacman have it.
    pub epoch: Option<u64>,
    /// The version of the software.
    pub version: String,
    /// The distribution's revision of it.
    pub release: Option<String>,
    /// Who made the package: rpm's vendor, otherwise the maintainer or packager.
    pub vendor: Option<String>,
    /// When it was installed or last upgraded, in seconds since the epoch. apk does not know.
    pub install_time: Option<i64>,
    /// Bytes of its files, as the package says.
    pub size: Option<u64>,
    /// One line about it.
    pub summary: Option<String>,
    /// Paragraphs about it.
    pub description: Option<String>,
    /// The home page of the software.
    pub url: Option<String>,
    /// The source package, where it has another name.
    pub source: Option<String>,
    /// dpkg's state of it, if that is not `installed`: `unpacked`, `half-configured` …
    pub state: Option<String>,
}

/// Bytes of names, versions, architectures.
const LONGEST_WORD: usize = 256;
/// Bytes of a line for people.
const LONGEST_LINE: usize = 1024;
/// Bytes of a description.
const LONGEST_TEXT: usize = 8192;

/// The databases of installed packages. A machine has one as a rule, and may have several: rpm can be installed on Debian.
pub fn find(tree: &Tree) -> Result<Vec<Database>> {
    let mut databases = Vec::new();
    for read in [dpkg::read, rpm::read, apk::read, pacman::read] {
        databases.extend(read(tree)?);
    }
    Ok(databases)
}

impl Database {
    fn new(format: &'static str, backend: Option<&'static str>, path: impl Into<String>) -> Self {
        Self { format, backend, path: path.into(), ..Self::default() }
    }

    /// Adds a package. One without a name is none.
    fn push(&mut self, package: Package) -> Result<()> {
        if package.name.is_empty() {
            return Ok(());
        }
        if self.packages.len() >= limits::MAX_PACKAGES {
            return Err(Error::limit("packages.size", "more packages than make sense on one machine")
                .expected(format!("at most {}", limits::MAX_PACKAGES)));
        }
        self.weight = self.weight.saturating_add(package.weight());
        if self.weight > limits::MAX_PACKAGE_TEXT {
            return Err(Error::limit("packages.size", "more text about packages than makes sense on one machine")
                .expected(format!("at most {} bytes", limits::MAX_PACKAGE_TEXT)));
        }
        self.packages.push(package);
        Ok(())
    }

    /// Sorts what was read. A database that contradicts itself tells so; a disk that cannot be read is an error.
    fn finish(mut self, read: Result<()>) -> Result<Self> {
        self.packages.sort();
        self.problem = problem(read)?;
        Ok(self)
    }
}

impl Package {
    /// Bytes of text.
    fn weight(&self) -> usize {
        let texts =
            [&self.arch, &self.release, &self.vendor, &self.summary, &self.description, &self.url, &self.source];
        let texts = texts.into_iter().flatten().map(String::len);
        texts.fold(self.name.len().saturating_add(self.version.len()), usize::saturating_add)
    }
}

/// What is wrong with the guest's own files; anything else is passed on.
fn problem(read: Result<()>) -> Result<Option<String>> {
    match read {
        Ok(()) => Ok(None),
        Err(error) if matches!(error.kind(), Kind::Corrupt | Kind::Limit | Kind::NotFound | Kind::Unsupported) => {
            Ok(Some(error.to_string()))
        }
        Err(error) => Err(error),
    }
}

/// Text of at most `most` bytes, without what is no text at its ends; `None` when nothing is left.
fn text(bytes: &[u8], most: usize) -> Option<String> {
    let bytes = bytes.trim_ascii();
    let text = String::from_utf8_lossy(bytes.get(..most).unwrap_or(bytes)).into_owned();
    (!text.is_empty()).then_some(text)
}

/// `EPOCH:VERSION-RELEASE`, of which only the version must be there.
fn split_version(text: &str) -> (Option<u64>, &str, Option<&str>) {
    let (epoch, rest) = match text.split_once(':').and_then(|(epoch, rest)| Some((epoch.parse().ok()?, rest))) {
        Some((epoch, rest)) => (Some(epoch), rest),
        None => (None, text),
    };
    match rest.rsplit_once('-') {
        Some((version, release)) => (epoch, version, Some(release)),
        None => (epoch, rest, None),
    }
}

#[cfg(test)]
mod tests;
