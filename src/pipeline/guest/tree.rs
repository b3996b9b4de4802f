//! Which of a guest's files people mean.

use std::sync::Arc;

use super::Guest;
use crate::error::{Error, Kind, Result};
use crate::fs::Tree;
use crate::inspect::Volume;

impl Guest {
    /// The guest's files: of its installed system, with everything mounted as its fstab says; or of one file system by itself, that
    /// of partition `part` of the first disk or of the volume that is called `volume`.
    ///
    /// # Errors
    /// `guest.none` when there is no system and not just one file system, `guest.volume` when there is no such volume or no driver
    /// for it.
    pub fn files(&self, part: Option<u32>, volume: Option<&str>) -> Result<Tree> {
        let volumes = &self.machine.volumes;
        let found = match (part, volume) {
            (None, None) => return self.default_files(),
            (Some(number), _) => {
                volumes.iter().find(|it| it.disk == 0 && it.partition == Some(number) && it.mapper.is_none())
            }
            (None, Some(name)) => volumes.iter().find(|it| self.machine.is_called(it, name)),
        };
        let found = found.ok_or_else(|| self.no_volume("guest.volume", "there is no such volume"))?;
        let fs = found.fs.as_ref().ok_or_else(|| {
            self.no_volume("guest.volume", "there is no file system in it that can be read")
                .found(found.fs_kind.as_deref().unwrap_or("nothing that is known"))
        })?;
        Ok(Tree::new(Arc::clone(fs)))
    }

    fn default_files(&self) -> Result<Tree> {
        if let Some(system) = self.system() {
            return Ok(system.root.tree.clone());
        }
        let mut readable = self.machine.volumes.iter().filter_map(|volume| volume.fs.as_ref());
        match (readable.next(), readable.next()) {
            (Some(only), None) => Ok(Tree::new(Arc::clone(only))),
            _ => Err(self.no_volume("guest.none", "no operating system was found")),
        }
    }

    /// An error that lists the volumes there are.
    fn no_volume(&self, code: &'static str, what: &str) -> Error {
        let told = |it: &Volume| {
            format!("{} ({})", self.machine.name_of(it), it.fs_kind.as_deref().unwrap_or("nothing that is known"))
        };
        let list: Vec<String> = self.machine.volumes.iter().map(told).collect();
        Error::new(Kind::NotFound, code, what).hint(match list.is_empty() {
            true => "the disk has no partitions and no file system that is known".to_owned(),
            false => format!(
                "name one with --part or --volume: {}; further disks of the machine are given with --also SRC",
                list.join(", ")
            ),
        })
    }
}
