//! libvirt: the domain XML of a migrated machine.

mod names;
mod xml;

pub use names::{Mac, OsId};
pub use xml::{
    Chipset, Clock, Disk, DiskBus, Domain, Firmware, Hypervisor, Nic, NicModel, NicSource, SourceNic, Video,
};
