//! From a path that the user gives to flat disks.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::image::Image;
use super::resolver::Resolver;
use crate::cache::BlockCache;
use crate::disk::{Checked, Disk};
use crate::error::{Error, Result};
use crate::format::{Driver, Layer, Sample, probe};
use crate::session::Session;
use crate::source::{FileSource, Reference};

/// How to open a source.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// The format of the disks (`--format`); `None` looks for magic numbers.
    pub format: Option<String>,
    /// Which disk to open; `None` opens all.
    pub disk: Option<Selector>,
}

/// One of a source's disks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// By position, from 1.
    Number(usize),
    /// By name.
    Name(String),
}

/// A source, opened.
#[derive(Debug)]
pub struct Opened {
    /// As the user gave it.
    pub path: PathBuf,
    /// The disks in the machine's order.
    pub disks: Vec<OpenedDisk>,
    /// What is worth telling the user, one sentence each.
    pub notes: Vec<String>,
}

/// One disk of a source.
#[derive(Debug)]
pub struct OpenedDisk {
    /// The name of the disk's file.
    pub name: String,
    /// The flat disk.
    pub image: Arc<Checked<Image>>,
}

impl OpenedDisk {
    /// The flat disk, as the boxes above take it.
    #[must_use]
    pub fn disk(&self) -> Arc<dyn Disk> {
        Arc::clone(&self.image) as Arc<dyn Disk>
    }
}

/// Opens the source at `path`: a disk image in any known format.
///
/// # Errors
/// Those of the source, the format and the references; every one has a place.
pub fn open(path: &Path, options: &OpenOptions, session: &Arc<Session>) -> Result<Opened> {
    let resolver = Resolver::beside(path, session)?;
    let source = BlockCache::wrap(FileSource::open(path)?, session);
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    let disk = open_disk(name, source, options, &resolver, session).map_err(|error| error.path(path))?;
    Ok(Opened { path: path.to_path_buf(), disks: vec![disk], notes: Vec::new() })
}

fn open_disk(
    name: String,
    file: Arc<dyn Disk>,
    options: &OpenOptions,
    resolver: &Resolver,
    session: &Arc<Session>,
) -> Result<OpenedDisk> {
    let layers = open_layers(file, options.format.as_deref(), resolver, session)?;
    Ok(OpenedDisk { name, image: Checked::wrap(Image::new(layers, session)?) })
}

/// The layer that `file` holds and all layers below it. The resolver bounds how many there are.
fn open_layers(
    file: Arc<dyn Disk>,
    format: Option<&str>,
    resolver: &Resolver,
    session: &Arc<Session>,
) -> Result<Vec<Arc<dyn Layer>>> {
    session.check()?;
    let head = (driver(&*file, format)?.open)(file, session)?;
    let open = |reference: &Reference| -> Result<Arc<dyn Disk>> {
        let source = resolver.open(reference)?.source;
        Ok(BlockCache::wrap(source, session))
    };
    let extents = head.extents.iter().map(open).collect::<Result<Vec<_>>>()?;
    let mut layers = vec![(head.build)(extents)?];
    if let Some(parent) = head.parent {
        let resolved = resolver.open(&parent)?;
        let below = BlockCache::wrap(resolved.source, session);
        let below = open_layers(below, parent.format.as_deref(), &resolved.resolver, session);
        layers.extend(below.map_err(|error| error.at(&parent))?);
    }
    Ok(layers)
}

fn driver(file: &dyn Disk, format: Option<&str>) -> Result<&'static Driver> {
    match format {
        Some(name) => probe::by_name(name),
        None => probe::detect(&Sample::take(file)?),
    }
}

impl std::str::FromStr for Selector {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.parse() {
            Ok(0) => Err(Error::new(crate::Kind::Usage, "source.disk", "disks are counted from 1")),
            Ok(number) => Ok(Self::Number(number)),
            Err(_) => Ok(Self::Name(text.to_owned())),
        }
    }
}
