//! A tar archive of disk images that is no OVA: `disk.raw` for a cloud, or what someone packed for moving it.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::fmt::Debug;
use std::sync::Arc;

use super::tar::{Archive, Member};
use crate::cache::BlockCache;
use crate::disk::{Checked, Disk, Slice};
use crate::error::{Error, Kind, Result};

/// Files that are found by name, in a package and nowhere else.
pub trait Members: Debug {
    /// The file called `name`.
    ///
    /// # Errors
    /// `ova.missing` when there is none, `tar.duplicate` when there are several.
    fn file(&self, name: &str) -> Result<Arc<dyn Disk>>;
}

/// An archive, its headers read.
#[derive(Debug)]
pub struct Bundle {
    disk: Arc<Checked<BlockCache>>,
    archive: Archive,
}

impl Bundle {
    /// Reads the headers of the archive that `disk` holds.
    ///
    /// # Errors
    /// `tar.*` codes.
    pub fn open(disk: &Arc<Checked<BlockCache>>) -> Result<Self> {
        Ok(Self { archive: Archive::read(&**disk)?, disk: Arc::clone(disk) })
    }

    /// Whether the archive in `disk` has an OVF descriptor, and so is an OVA.
    ///
    /// # Errors
    /// `tar.*` codes.
    pub fn has_descriptor(disk: &Arc<Checked<BlockCache>>) -> Result<bool> {
        let is_descriptor = |member: &Member| member.name.to_ascii_lowercase().ends_with(".ovf");
        Ok(Archive::read(&**disk)?.members.iter().any(is_descriptor))
    }

    /// All files that have bytes, in the archive's order.
    ///
    /// # Errors
    /// When a member does not lie inside the archive.
    pub fn files(&self) -> Result<Vec<(String, Arc<dyn Disk>)>> {
        let with_bytes = self.archive.members.iter().filter(|member| !member.range.is_empty());
        with_bytes.map(|member| Ok((member.name.clone(), self.slice(member)?))).collect()
    }

    /// What is odd, one sentence each.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        self.archive.notes.clone()
    }

    fn slice(&self, member: &Member) -> Result<Arc<dyn Disk>> {
        let disk: Arc<dyn Disk> = Arc::<Checked<BlockCache>>::clone(&self.disk);
        Ok(Checked::wrap(Slice::new(member.name.clone(), disk, member.range.clone())?))
    }
}

impl Members for Bundle {
    fn file(&self, name: &str) -> Result<Arc<dyn Disk>> {
        let member = self.archive.find(name)?.ok_or_else(|| {
            Error::new(Kind::NotFound, "ova.missing", "the package does not hold a file that it lists").at(name)
        })?;
        self.slice(member)
    }
}
