//! Where the copies go.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::chain::{Opened, OpenedDisk};
use crate::convert::{Format, Place, TARGETS};
use crate::error::{Error, Kind, Result};
use crate::pipeline::naming;
use crate::source::{Address, Location, Protocol};

/// What was typed as the destination.
pub(super) enum Destination<'a> {
    /// A file, for one disk.
    File(&'a Path),
    /// A directory, which gets a file for each disk.
    Directory(&'a Path),
    /// An export of an NBD server, for one disk.
    Export(Address),
    /// An object of a store, for one disk.
    Object(Address),
    /// Standard output, for one disk.
    Stdout,
}

impl<'a> Destination<'a> {
    /// An address is what begins with a scheme; a directory is what is one, and what ends in a slash.
    ///
    /// # Errors
    /// `convert.destination` for an address where nothing is written, and those of [`Location::parse`].
    pub(super) fn of(path: &'a Path) -> Result<Self> {
        if path.as_os_str() == "-" {
            return Ok(Self::Stdout);
        }
        match path.to_str().map(Location::parse) {
            None | Some(Ok(Location::Path(_))) => {}
            Some(Ok(Location::Remote(address))) if address.protocol() == Protocol::Nbd => {
                return Ok(Self::Export(address));
            }
            Some(Ok(Location::Remote(address))) if address.protocol() == Protocol::S3 => {
                return Ok(Self::Object(address));
            }
            Some(Err(error)) if error.code() != "source.scheme" => return Err(error),
            Some(_) => {
                return Err(Error::new(Kind::Usage, "convert.destination", "nothing is written to such an address")
                    .expected("a file, a directory, a device, -, nbd://HOST/EXPORT or s3://BUCKET/KEY")
                    .hint("name a file by its path; ./NAME is one in any case"));
            }
        }
        let slash = path.as_os_str().as_encoded_bytes().ends_with(b"/");
        Ok(if slash || path.is_dir() { Self::Directory(path) } else { Self::File(path) })
    }

    /// Makes the directory, if it is missing.
    pub(super) fn make(&self) -> Result<()> {
        let Self::Directory(path) = self else { return Ok(()) };
        std::fs::create_dir_all(path).map_err(|e| Error::write("making the output directory", e).path(path))
    }

    /// A path for each of `disks`, which came from `sources`.
    pub(super) fn paths(&self, sources: &[Opened], disks: &[OpenedDisk], format: &Format) -> Result<Vec<PathBuf>> {
        let names: Vec<&str> = disks.iter().map(|disk| disk.name.as_str()).collect();
        match (self, disks) {
            (_, []) => Err(Error::unsupported("source.no-disk", "the source has no disk")),
            (Self::File(path), [_]) => Ok(vec![path.to_path_buf()]),
            (Self::Stdout | Self::Export(_) | Self::Object(_), [_]) => Ok(vec![self.file()?]),
            (Self::File(_) | Self::Stdout | Self::Export(_) | Self::Object(_), _) => {
                Err(Error::new(Kind::Usage, "source.disk", "the source has several disks")
                    .found(names.join(", "))
                    .hint("choose one with --disk N, or SRC#N, or give a directory for all of them: DIR/"))
            }
            (Self::Directory(path), _) => {
                let names = file_names(sources, &names, format)?;
                Ok(names.into_iter().map(|name| path.join(name)).collect())
            }
        }
    }

    /// The path of a package of all `disks`, which came from `sources`.
    pub(super) fn package(&self, sources: &[Opened], disks: &[OpenedDisk]) -> Result<PathBuf> {
        match (self, disks) {
            (_, []) => Err(Error::unsupported("source.no-disk", "the source has no disk")),
            (Self::File(path), _) => Ok(path.to_path_buf()),
            (Self::Stdout | Self::Export(_) | Self::Object(_), _) => self.file(),
            (Self::Directory(path), _) => Ok(path.join(format!("{}.ova", machine_stem(sources)))),
        }
    }

    /// The file, which is the only one.
    pub(super) fn file(&self) -> Result<PathBuf> {
        match self {
            Self::File(path) => Ok(path.to_path_buf()),
            Self::Export(address) | Self::Object(address) => Ok(PathBuf::from(address.to_string())),
            Self::Stdout => Ok(PathBuf::from("-")),
            Self::Directory(_) => {
                Err(Error::new(Kind::Usage, "convert.names", "standard input has no name to give to a file")
                    .hint("name the file to write, not its directory"))
            }
        }
    }

    /// Where one output goes, by its path.
    pub(super) const fn place<'p>(&'p self, path: &'p Path) -> Place<'p> {
        match self {
            Self::Export(address) => Place::Export(address),
            Self::Object(address) => Place::Object(address),
            Self::Stdout => Place::Stdout,
            _ => Place::Path(path),
        }
    }

    /// The field of the JSON that tells what was written.
    pub(super) const fn key(&self) -> &'static str {
        match self {
            Self::File(_) | Self::Export(_) | Self::Object(_) | Self::Stdout => "output",
            Self::Directory(_) => "outputs",
        }
    }

    /// What that field holds.
    pub(super) fn shown(&self, mut outputs: Vec<Value>) -> Value {
        match self {
            Self::File(_) | Self::Export(_) | Self::Object(_) | Self::Stdout => outputs.pop().unwrap_or_default(),
            Self::Directory(_) => outputs.into(),
        }
    }
}

/// What the machine is called, or its first file, as a file name.
fn machine_stem(sources: &[Opened]) -> String {
    let described = sources.first().and_then(|source| source.machine.as_ref()).map(|machine| machine.name.clone());
    let by_file = || sources.first()?.location.stem();
    naming::file_stem(&described.filter(|name| !name.is_empty()).or_else(by_file).unwrap_or_default())
}

/// Disks of one source are named like their machine and numbered, those of several each like its own file.
fn file_names(sources: &[Opened], disks: &[&str], format: &Format) -> Result<Vec<String>> {
    let target = TARGETS.iter().find(|target| target.name == format.name());
    let suffix = target.and_then(|target| target.suffixes.first()).unwrap_or(&"img");
    if let [_] = sources {
        let stem = machine_stem(sources);
        return Ok((0..disks.len()).map(|index| naming::disk_file(&stem, index, disks.len(), suffix)).collect());
    }
    let stem = |name: &&str| {
        let name = Path::new(*name).file_stem().map(|stem| stem.to_string_lossy().into_owned());
        format!("{}.{suffix}", naming::file_stem(&name.unwrap_or_default()))
    };
    let names: Vec<String> = disks.iter().map(stem).collect();
    let mut seen = BTreeSet::new();
    match names.iter().find(|name| !seen.insert(*name)) {
        None => Ok(names),
        Some(name) => Err(Error::new(Kind::Usage, "convert.names", "two of the disks would get the same name")
            .found(name)
            .hint("convert them one by one, or into different directories")),
    }
}
