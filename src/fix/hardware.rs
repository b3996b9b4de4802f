//! The devices that a machine on KVM must have so that its guest finds them.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use serde::Serialize;

use super::draft::Draft;
use crate::error::Result;
use crate::initramfs::modules::{Lists, modules_dir};
use crate::inspect::Kernel;

/// What the kernel that is started by default can work with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Hardware {
    /// Buses on which it finds its root once the plan is done, the best first. None when nothing is known of the kernel.
    pub disk_buses: Vec<Bus>,
    /// Network cards that it has drivers for, the best first. None when nothing is known of the kernel.
    pub nics: Vec<Card>,
    /// The kernel.
    pub kernel: Option<String>,
    /// Whether the guest takes the hardware clock for local time, not UTC.
    pub local_clock: bool,
}

/// What a disk is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bus {
    /// One PCI device a disk.
    VirtioBlk,
    /// One controller for all disks.
    VirtioScsi,
    /// AHCI.
    Sata,
    /// IDE of the `pc` machine type.
    Ide,
}

/// A model of network card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Card {
    /// Paravirtual.
    Virtio,
    /// Intel's 82574L.
    E1000e,
    /// Intel's 82540EM.
    E1000,
    /// Realtek's, which everything has a driver for.
    Rtl8139,
}

impl Bus {
    /// All buses, the best first.
    pub(super) const ALL: [Self; 4] = [Self::VirtioBlk, Self::VirtioScsi, Self::Sata, Self::Ide];

    /// The sets of drivers that find a disk on it, any of which will do.
    pub(super) const fn needs(self) -> &'static [&'static [&'static str]] {
        match self {
            Self::VirtioBlk => &[&["virtio_pci", "virtio_blk"]],
            Self::VirtioScsi => &[&["virtio_pci", "virtio_scsi", "sd_mod"]],
            Self::Sata => &[&["ahci", "sd_mod"]],
            Self::Ide => &[&["ata_piix", "sd_mod"], &["piix", "ide_disk"], &["piix", "ide_gd_mod"]],
        }
    }

    /// Whether the drivers for it are there.
    pub(super) fn works(self, has: impl Fn(&str) -> bool) -> bool {
        self.needs().iter().any(|set| set.iter().all(|name| has(name)))
    }

    /// Whether it is one of virtio's.
    #[must_use]
    pub const fn is_virtio(self) -> bool {
        matches!(self, Self::VirtioBlk | Self::VirtioScsi)
    }

    /// Its name for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::VirtioBlk => "virtio-blk",
            Self::VirtioScsi => "virtio-scsi",
            Self::Sata => "SATA",
            Self::Ide => "IDE",
        }
    }
}

impl Card {
    /// All models, the best first.
    const ALL: [Self; 4] = [Self::Virtio, Self::E1000e, Self::E1000, Self::Rtl8139];

    /// The kernel's driver for it, as udev and ethtool(8) name it.
    pub(super) const fn driver(self) -> &'static str {
        match self {
            Self::Virtio => "virtio_net",
            Self::E1000e => "e1000e",
            Self::E1000 => "e1000",
            Self::Rtl8139 => "8139cp",
        }
    }
}

impl Hardware {
    /// What `kernel` works with, which finds its root on `buses`. Drivers of network cards come from the root itself.
    pub(super) fn of(draft: &Draft<'_>, kernel: &Kernel, buses: Vec<Bus>) -> Result<Self> {
        let tree = draft.tree();
        let dir = match (&kernel.modules, &kernel.release) {
            (Some(dir), _) => Some(dir.clone()),
            (None, Some(release)) => modules_dir(tree, release)?,
            (None, None) => None,
        };
        let mut nics = Vec::new();
        if let Some(dir) = dir {
            let (lists, builtin) = (Lists::of_guest(tree, &dir)?, Lists::builtin_of_guest(tree, &dir)?);
            let has = |name: &str| lists.module(name).is_some() || builtin.is_builtin(name);
            // IDE comes with a machine that has no PCI Express.
            let is_old = buses == [Bus::Ide];
            nics.extend(Card::ALL.into_iter().filter(|card| has(card.driver()) && !(is_old && *card == Card::E1000e)));
        }
        Ok(Self { disk_buses: buses, nics, kernel: Some(kernel.image.clone()), local_clock: false })
    }

    /// The bus to use where `wanted` is asked for: that, if the kernel finds its root there or nothing is known.
    #[must_use]
    pub fn bus(&self, wanted: Bus) -> Bus {
        let fits = self.disk_buses.is_empty() || self.disk_buses.contains(&wanted);
        if fits { wanted } else { self.disk_buses.first().copied().unwrap_or(wanted) }
    }

    /// The card to use.
    #[must_use]
    pub fn nic(&self) -> Card {
        self.nics.first().copied().unwrap_or(Card::Virtio)
    }
}
