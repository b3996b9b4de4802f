//! An opened VMDK as a layer: extents one behind the other.

use std::sync::Arc;

use super::check;
use super::descriptor::{Descriptor, NO_PARENT};
use super::header::SECTOR;
use super::layout::Stored;
use super::parent;
use super::tables::Grains;
use crate::disk::Disk;
use crate::error::{Error, Result, escape_bytes};
use crate::format::{Layer, Place, Report, Run, Unit};

/// A VMDK, opened.
#[derive(Debug)]
pub(super) struct Vmdk {
    pub(super) len: u64,
    /// In the order of the disk, without gaps, covering it.
    pub(super) extents: Vec<Extent>,
    pub(super) files: Vec<Arc<dyn Disk>>,
    pub(super) descriptor: Descriptor,
}

/// Some of the disk.
#[derive(Debug)]
pub(super) struct Extent {
    /// First byte on the disk.
    pub(super) start: u64,
    /// Length in bytes.
    pub(super) len: u64,
    /// Where it is.
    pub(super) storage: Opened,
}

/// Where an extent is.
#[derive(Debug)]
pub(super) enum Opened {
    /// In a file, as it is.
    Flat { file: usize, offset: u64 },
    /// In a file of grains.
    Sparse { file: usize, kind: Kind, grains: Box<Grains> },
    /// Nowhere.
    Zero,
}

/// What kind of file of grains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// With the header of Virtual Disk Format 5.0.
    Hosted { version: u32, unclean: bool },
    /// ESX's old snapshots.
    Cowd { unclean: bool },
    /// ESXi's snapshots.
    SeSparse,
}

impl Kind {
    fn is_unclean(self) -> bool {
        match self {
            Self::Hosted { unclean, .. } | Self::Cowd { unclean } => unclean,
            Self::SeSparse => false,
        }
    }
}

impl Vmdk {
    /// The extent that holds `offset`.
    fn extent(&self, offset: u64) -> Result<&Extent> {
        let after = self.extents.partition_point(|extent| extent.start <= offset);
        after
            .checked_sub(1)
            .and_then(|index| self.extents.get(index))
            .ok_or_else(|| Error::corrupt("disk.range", "there is no extent here").offset(offset))
    }

    /// The extents of grains.
    pub(super) fn sparse(&self) -> impl Iterator<Item = (Kind, &Grains)> {
        self.extents.iter().filter_map(|extent| match &extent.storage {
            Opened::Sparse { kind, grains, .. } => Some((*kind, &**grains)),
            _ => None,
        })
    }

    /// What the user should know before relying on the disk.
    pub(super) fn notes(&self) -> Vec<&'static str> {
        let mut notes = Vec::new();
        if self.sparse().any(|(kind, _)| kind.is_unclean()) {
            notes.push("the machine was not shut down properly, or is running: what it wrote last may be missing");
        }
        if self.descriptor.extents.iter().any(|line| !line.readable) {
            notes.push("a part of the disk is not accessible to its guest (NOACCESS) and reads as zeros");
        }
        if self.sparse().any(|(_, grains)| grains.repaired() > 0) {
            notes.push("the grain directory is damaged; its redundant copy was used");
        }
        notes
    }
}

impl Layer for Vmdk {
    fn format(&self) -> &'static str {
        "vmdk"
    }

    fn identity(&self) -> Option<String> {
        self.descriptor.cid.map(parent::id)
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn unit_size(&self) -> u64 {
        self.sparse().map(|(_, grains)| grains.layout().grain).max().unwrap_or(SECTOR)
    }

    fn map(&self, offset: u64, max: u64) -> Result<Run> {
        let extent = self.extent(offset)?;
        let within = offset.saturating_sub(extent.start);
        let max = max.min(extent.len.saturating_sub(within));
        match &extent.storage {
            Opened::Flat { file, offset: base } => {
                Ok(Run { len: max, place: Place::Data { file: *file, offset: base.saturating_add(within) } })
            }
            Opened::Sparse { file, grains, .. } => grains.map(within, max, extent.start, *file),
            Opened::Zero => Ok(Run { len: max, place: Place::Zero }),
        }
    }

    fn decode(&self, unit: &Unit, out: &mut [u8]) -> Result<()> {
        let extent = self.extent(unit.start)?;
        match &extent.storage {
            Opened::Sparse { grains, .. } => {
                grains.decode(unit.start.saturating_sub(extent.start), unit.offset, unit.stored, out)
            }
            _ => Err(Error::failed("format.unit", "the extent has no encoded units").offset(unit.start)),
        }
    }

    fn files(&self) -> &[Arc<dyn Disk>] {
        &self.files
    }

    fn check(&self, found: &mut Report<'_>) -> Result<()> {
        check::run(self, found)
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        let descriptor = &self.descriptor;
        let mut facts = Vec::new();
        let mut fact = |key, value: Option<String>| facts.extend(value.map(|value| (key, value)));
        fact("createType", descriptor.create_type.clone());
        fact("CID", self.identity());
        fact("parentCID", descriptor.parent_cid.filter(|cid| *cid != NO_PARENT).map(parent::id));
        fact("parentFileNameHint", descriptor.parent_hint.as_deref().map(escape_bytes));
        fact("adapterType", descriptor.adapter.clone());
        fact("virtualHWVersion", descriptor.hardware.clone());
        fact("extents", Some(self.extents.len().to_string()));
        fact("grainSize", self.sparse().next().map(|(_, grains)| grains.layout().grain.to_string()));
        let version = |(kind, grains): (Kind, &Grains)| match kind {
            Kind::Hosted { version, .. } => version.to_string(),
            _ => grains.layout().name.to_owned(),
        };
        fact("version", self.sparse().next().map(version));
        let compressed = self.sparse().any(|(_, grains)| grains.layout().stored() != Stored::Plain);
        fact("compressed", compressed.then(|| "deflate".to_owned()));
        let unclean = self.sparse().any(|(kind, _)| kind.is_unclean());
        fact("uncleanShutdown", unclean.then(|| "true".to_owned()));
        let repaired: u64 = self.sparse().map(|(_, grains)| grains.repaired()).fold(0, u64::saturating_add);
        fact("repairedTables", (repaired > 0).then(|| repaired.to_string()));
        facts.extend(self.notes().iter().map(|note| ("note", (*note).to_owned())));
        facts
    }
}
