//! The formats that can be written, in one table: their names, suffixes, options and sinks.

use std::path::Path;
use std::sync::Arc;

use super::output::Surface;
use super::plan::{BLOCK, CHUNK};
use super::sink::ova::{OvaOptions, OvaSink};
use super::sink::qcow2::{Preallocation, Qcow2Fixed, Qcow2Options, Qcow2Sink};
use super::sink::raw::{RawOptions, RawPreallocation, RawSink};
use super::sink::vdi::{VdiOptions, VdiSink};
use super::sink::vhd::{VhdOptions, VhdSink, VhdSubformat};
use super::sink::vhdx::{VhdxOptions, VhdxSink};
use super::sink::vmdk::{VmdkOptions, VmdkSink};
use super::sink::{Make, Sink};
use crate::cache::BlockCache;
use crate::chain::Image;
use crate::container::Ova;
use crate::disk::{Checked, Concat, Disk, Zero};
use crate::error::{Error, Kind, Result};
use crate::format::qcow2::Qcow2;
use crate::format::{Ask, Head, Layer, raw, vdi, vhd, vhdx, vmdk};
use crate::session::Session;

/// A format that can be written, as the static table [`TARGETS`] lists it.
#[derive(Debug)]
pub struct Target {
    /// The name that `--to` takes.
    pub name: &'static str,
    /// What it is, for `--help` and the documentation.
    pub about: &'static str,
    /// Suffixes of file names that mean this format, in lower case.
    pub suffixes: &'static [&'static str],
    /// The format with its default options.
    pub format: fn() -> Format,
}

/// Every format that can be written, by name.
pub static TARGETS: &[Target] = &[
    Target {
        name: "ova",
        about: "a package for VMware, VirtualBox and others: the machine's description and its disks",
        suffixes: &["ova"],
        format: || Format::Ova(OvaOptions::default()),
    },
    Target {
        name: "qcow2",
        about: "QEMU's copy-on-write format, version 3",
        suffixes: &["qcow2", "qcow"],
        format: || Format::Qcow2(Qcow2Options::default()),
    },
    Target {
        name: "raw",
        about: "the bytes as they are, with holes for zeros",
        suffixes: &["raw", "img"],
        format: || Format::Raw(RawOptions::default()),
    },
    Target {
        name: "vdi",
        about: "VirtualBox's format, dynamic",
        suffixes: &["vdi"],
        format: || Format::Vdi(VdiOptions::default()),
    },
    Target {
        name: "vhd",
        about: "Virtual PC's and Azure's format, fixed or dynamic",
        suffixes: &["vhd", "vpc"],
        format: || Format::Vhd(VhdOptions::default()),
    },
    Target {
        name: "vhdx",
        about: "Hyper-V's format, dynamic",
        suffixes: &["vhdx"],
        format: || Format::Vhdx(VhdxOptions::default()),
    },
    Target {
        name: "vmdk",
        about: "VMware's format, stream-optimized",
        suffixes: &["vmdk"],
        format: || Format::Vmdk(VmdkOptions::default()),
    },
];

/// What is written, with the options of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// A package of a machine's description and its disks, as stream-optimized VMDK.
    Ova(OvaOptions),
    /// QEMU's copy-on-write format, version 3: nothing but clusters that are not zero.
    Qcow2(Qcow2Options),
    /// The bytes as they are, with holes for zeros.
    Raw(RawOptions),
    /// VirtualBox's format: blocks where there is data.
    Vdi(VdiOptions),
    /// Virtual PC's and Azure's format.
    Vhd(VhdOptions),
    /// Hyper-V's format: blocks where there is data.
    Vhdx(VhdxOptions),
    /// VMware's format, stream-optimized: compressed grains where there is data.
    Vmdk(VmdkOptions),
}

impl Default for Format {
    fn default() -> Self {
        Self::Qcow2(Qcow2Options::default())
    }
}

impl Format {
    /// The format of a name, with its default options.
    ///
    /// # Errors
    /// `convert.format` when there is none.
    pub fn by_name(name: &str) -> Result<Self> {
        let target = TARGETS.iter().find(|target| target.name == name);
        target.map(|target| (target.format)()).ok_or_else(|| {
            let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
            Error::new(Kind::Usage, "convert.format", "no such format can be written")
                .found(name)
                .expected(names.join(", "))
        })
    }

    /// The format that a file name's suffix means, with its default options.
    #[must_use]
    pub fn by_suffix(path: &Path) -> Option<Self> {
        let suffix = path.extension()?.to_str()?.to_lowercase();
        let target = TARGETS.iter().find(|target| target.suffixes.contains(&suffix.as_str()))?;
        Some((target.format)())
    }

    /// Its name in [`TARGETS`].
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Ova(_) => "ova",
            Self::Qcow2(_) => "qcow2",
            Self::Raw(_) => "raw",
            Self::Vdi(_) => "vdi",
            Self::Vhd(_) => "vhd",
            Self::Vhdx(_) => "vhdx",
            Self::Vmdk(_) => "vmdk",
        }
    }

    /// The same format in one of its variants, by name.
    ///
    /// # Errors
    /// `convert.format` when it has none of that name.
    pub fn subformat(self, name: &str) -> Result<Self> {
        match (&self, name) {
            (Self::Vhd(_), "dynamic") => Ok(Self::Vhd(VhdOptions { subformat: VhdSubformat::Dynamic })),
            (Self::Vhd(_), "fixed") => Ok(Self::Vhd(VhdOptions { subformat: VhdSubformat::Fixed })),
            (Self::Vmdk(_), "streamOptimized") => Ok(self),
            _ => Err(Error::new(Kind::Usage, "convert.format", format!("{} has no such variant", self.name()))
                .found(name)
                .expected("vhd: fixed or dynamic; vmdk: streamOptimized")),
        }
    }

    /// Bytes of which a disk's size must be a multiple, beside whole sectors.
    pub(super) const fn size_unit(&self) -> u64 {
        match self {
            Self::Vhd(options) => options.size_unit(),
            _ => 1,
        }
    }

    /// Whether it can be written where `surface` says.
    pub(super) fn suits(&self, surface: Surface) -> bool {
        match surface {
            Surface::Empty => true,
            Surface::Parts => match self {
                // What is compressed goes into gaps that were left for it, however far back.
                Self::Qcow2(options) => options.compression.is_none() && options.preallocation == Preallocation::Off,
                _ => matches!(self, Self::Raw(_) | Self::Vmdk(_)),
            },
            Surface::Used => matches!(self, Self::Raw(_) | Self::Qcow2(_)),
            Surface::Stream => matches!(self, Self::Raw(_) | Self::Vmdk(_)),
        }
    }

    /// Refuses a format that cannot be written where `surface` says, and names those that can.
    pub(super) fn check(&self, surface: Surface) -> Result<()> {
        if self.suits(surface) {
            return Ok(());
        }
        let what = match surface {
            Surface::Parts => {
                format!(
                    "{} cannot be written to an object store in this way: it goes back in what was sent",
                    self.name()
                )
            }
            Surface::Stream => {
                format!("{} cannot be written to a pipe: its tables are known only at the end", self.name())
            }
            _ => format!("{} cannot be written to a device: nothing would find its end there", self.name()),
        };
        let able = TARGETS.iter().filter(|target| (target.format)().suits(surface)).map(|target| target.name);
        let able: Vec<_> = able.collect();
        Err(Error::new(Kind::Usage, "convert.stream", what)
            .expected(able.join(", "))
            .hint(format!("choose one with --to, for example --to {}", able.last().unwrap_or(&"raw"))))
    }

    /// Whether it takes plain bytes at places that suit a file system's blocks.
    pub(super) fn takes_plain(&self) -> bool {
        match self {
            Self::Raw(options) => options.preallocation == RawPreallocation::Off,
            Self::Qcow2(options) => {
                options.compression.is_none()
                    && options.backing.is_none()
                    && options.cluster_size <= BLOCK
                    && matches!(options.preallocation, Preallocation::Off | Preallocation::Metadata)
            }
            _ => false,
        }
    }

    /// What writes a disk.
    pub(super) fn sink(&self, make: &Make) -> Result<Box<dyn Sink>> {
        Ok(match self {
            Self::Ova(options) => Box::new(OvaSink::new(make, options)?),
            Self::Qcow2(options) if options.preallocation == Preallocation::Off => {
                Box::new(Qcow2Sink::new(make.len, options)?)
            }
            Self::Qcow2(options) => Box::new(Qcow2Fixed::new(make.len, options)?),
            Self::Raw(options) => Box::new(RawSink::new(make.len, options, make.surface)),
            Self::Vdi(options) => Box::new(VdiSink::new(make, options)?),
            Self::Vhd(options) => Box::new(VhdSink::new(make, options)?),
            Self::Vhdx(options) => Box::new(VhdxSink::new(make, options)?),
            Self::Vmdk(options) => Box::new(VmdkSink::new(make, options)?),
        })
    }

    /// Opens the output's `file` as anyone would who has nothing else but the backing file's disk, if there is one.
    pub(super) fn open(
        &self,
        file: Arc<dyn Disk>,
        base: Option<&Arc<dyn Disk>>,
        session: &Arc<Session>,
    ) -> Result<Arc<dyn Disk>> {
        match self {
            Self::Raw(_) => Ok(file),
            Self::Ova(options) => package(options, file, session),
            Self::Qcow2(_) => {
                let mut layers: Vec<Arc<dyn Layer>> = vec![Qcow2::open(file, session)?];
                if let Some(base) = base {
                    let head = raw::open(Arc::clone(base), &Ask::current(session))?;
                    layers.push((head.build)(Vec::new())?);
                }
                Ok(Checked::wrap(Image::new(layers, session)?))
            }
            Self::Vdi(_) => image(vdi::open, file, session),
            Self::Vhd(_) => image(vhd::open, file, session),
            Self::Vhdx(_) => image(vhdx::open, file, session),
            Self::Vmdk(_) => image(vmdk::open, file, session),
        }
    }
}

/// The disk of an image that needs no other file.
fn image(
    open: fn(Arc<dyn Disk>, &Ask<'_>) -> Result<Head>,
    file: Arc<dyn Disk>,
    session: &Arc<Session>,
) -> Result<Arc<dyn Disk>> {
    let layer = (open(file, &Ask::current(session))?.build)(Vec::new())?;
    Ok(Checked::wrap(Image::new(vec![layer], session)?))
}

/// The disks of a package, side by side as they were written.
fn package(options: &OvaOptions, file: Arc<dyn Disk>, session: &Arc<Session>) -> Result<Arc<dyn Disk>> {
    let label = file.name();
    let ova = Ova::open(&BlockCache::wrap(file, session))?;
    let disks = options.disks.len().max(1);
    let disks: Vec<Arc<dyn Disk>> = (0..disks)
        .map(|index| image(vmdk::open, ova.file(&options.disk_name(index))?, session))
        .collect::<Result<_>>()?;
    Ok(side_by_side(&label, disks))
}

/// Disks one after the other on one, each at the start of a chunk, as [`OvaOptions::disks`] wants them.
#[must_use]
pub fn side_by_side(label: &str, disks: Vec<Arc<dyn Disk>>) -> Arc<dyn Disk> {
    let mut parts: Vec<Arc<dyn Disk>> = Vec::new();
    let mut next = 0_u64;
    for disk in disks {
        let gap = next.next_multiple_of(CHUNK) - next;
        if gap > 0 {
            parts.push(Checked::wrap(Zero { len: gap }));
        }
        next += gap + disk.len();
        parts.push(disk);
    }
    match (parts.pop(), parts.is_empty()) {
        (Some(only), true) => only,
        (last, _) => Checked::wrap(Concat::new(label.to_owned(), parts.into_iter().chain(last).collect())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_and_knows_every_format() {
        assert!(TARGETS.is_sorted_by_key(|target| target.name));
        for target in TARGETS {
            assert_eq!((target.format)().name(), target.name);
            assert_eq!(Format::by_name(target.name).unwrap(), (target.format)());
            for suffix in target.suffixes {
                assert_eq!(Format::by_suffix(Path::new(&format!("x.{suffix}"))), Some((target.format)()));
            }
        }
        let suffixes: Vec<_> = TARGETS.iter().flat_map(|target| target.suffixes).collect();
        assert_eq!(suffixes.len(), suffixes.iter().collect::<std::collections::BTreeSet<_>>().len());
        assert_eq!(Format::by_name("floppy").unwrap_err().code(), "convert.format");
        assert_eq!(Format::by_suffix(Path::new("x.QCOW2")), Some(Format::default()));
        assert_eq!(Format::by_suffix(Path::new("x")), None);
    }
}
