//! File systems in libguestfs's appliance, which gets the machine's volumes over a private NBD server.

use std::sync::Arc;

use hyper2kvm_nbd::Server;

use crate::appliance::{Appliance, Drive};
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::fs::Filesystem;
use crate::pipeline::device::View;
use crate::pipeline::export::DiskExport;
use crate::session::{PrivateFolder, Session};
use crate::volume::signature::Usage;
use crate::volume::stack::Layer;

/// An appliance and what it lives on, which go in this order.
pub(super) struct Hosted {
    appliance: Arc<Appliance>,
    _server: Server,
    _folder: PrivateFolder,
    /// Which layer each drive is.
    drives: Vec<(usize, Drive)>,
}

impl std::fmt::Debug for Hosted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hosted").field("drives", &self.drives).finish_non_exhaustive()
    }
}

impl Hosted {
    /// Starts an appliance with every layer that holds a file system and nothing else. `None` when there is none.
    pub(super) fn start(layers: &[Layer], session: &Arc<Session>) -> Result<Option<Self>> {
        let folder = PrivateFolder::new()?;
        let (mut server, mut drives) = (Server::builder().unix(folder.socket()), Vec::new());
        for (index, layer) in layers.iter().enumerate() {
            if layer.sole().is_none_or(|signature| signature.usage != Usage::Filesystem) {
                continue;
            }
            let drive = Drive { export: format!("drive{}", drives.len()), can_write: layer.disk.can_write() };
            let view = View::of(Arc::clone(&layer.disk));
            server = server.export(&drive.export, Arc::new(DiskExport::new(view, layer.name.clone())));
            drives.push((index, drive));
        }
        if drives.is_empty() {
            return Ok(None);
        }
        let server = server.start();
        let server =
            server.map_err(|e| Error::failed("appliance.start", "the NBD server cannot be started").because(e))?;
        let list: Vec<Drive> = drives.iter().map(|(_, drive)| drive.clone()).collect();
        let appliance = Appliance::start(&folder.socket(), &list, session)?;
        Ok(Some(Self { appliance, _server: server, _folder: folder, drives }))
    }

    /// The file system of the layer `index`. `None` when it has none.
    pub(super) fn open(&self, index: usize, layer: &Layer) -> Option<Result<Arc<dyn Filesystem>>> {
        let place = self.drives.iter().position(|(of, _)| *of == index)?;
        let (_, drive) = self.drives.get(place)?;
        let volume = Arc::clone(&layer.disk) as Arc<dyn Disk>;
        Some(self.appliance.open(place, drive, &volume, layer.sole()?))
    }

    /// Ends the appliance: what was changed is in the overlays then.
    pub(super) fn finish(&self) -> Result<()> {
        self.appliance.finish()
    }
}
