//! What is inside a guest: facts read from its files, never by running them.
//!
//! [`find_roots`] tells which file system of a [`Machine`] is a root and mounts its fstab around it; [`linux`] reads the facts
//! of that tree. [`find_windows`] and [`windows::windows`] do the same for Windows. An unknown distribution is not an error:
//! every fact is optional. Text from the guest is bounded here and escaped where it is printed.

pub mod accounts;
pub mod bootloader;
pub mod deep;
pub mod fstab;
pub mod journal;
pub mod kernels;
pub mod network;
pub mod packages;
pub mod privileges;
pub mod syslog;
pub mod systemd;
pub mod windows;

mod drivers;
mod identity;
mod machine;
mod os;
mod roots;
mod security;
mod subvolumes;
mod swap;
mod tools;

use serde::Serialize;

use crate::error::{Kind, Result};
use crate::fs::Tree;
use crate::limits;

pub use bootloader::{BootEntry, Bootloader, BootloaderKind, EfiProgram, EfiProgramKind};
pub use deep::{Deep, deep};
pub use drivers::{KernelDrivers, drivers};
pub use identity::{CloudInit, Identity};
pub use kernels::Kernel;
pub use machine::{Machine, MachineDisk, MachineNic, Volume, is_disk_name};
pub use network::{Interface, InterfaceKind, Lease, Method, NicConfig, Pin};
pub use os::{Os, Packaging, Version};
pub use roots::{Mount, Root, find_roots};
pub use security::{Encrypted, SecureBoot, Security, Selinux, SelinuxMode};
pub use swap::{Swap, SwapKind};
pub use tools::{Init, Tool};
pub use windows::{Windows, WindowsDeep, find_windows};

/// What is known about one installed system.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Facts {
    /// A Linux of any distribution.
    Linux(Box<Linux>),
    /// A Windows with a registry.
    Windows(Box<Windows>),
}

/// What is known of one installed system beyond its facts.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum Deeper {
    /// Of a Linux.
    Linux(Box<Deep>),
    /// Of a Windows.
    Windows(Box<WindowsDeep>),
}

impl Facts {
    /// The facts of a Linux.
    #[must_use]
    pub fn linux(&self) -> Option<&Linux> {
        match self {
            Self::Linux(facts) => Some(facts),
            Self::Windows(_) => None,
        }
    }

    /// The facts of a Windows.
    #[must_use]
    pub fn windows(&self) -> Option<&Windows> {
        match self {
            Self::Linux(_) => None,
            Self::Windows(facts) => Some(facts),
        }
    }
}

/// Everything that is known about one installed Linux.
#[derive(Clone, Debug, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Linux {
    /// Name and version of the distribution.
    pub os: Os,
    /// The host name, as configured.
    pub hostname: Option<String>,
    /// The processor architecture of its programs: `x86_64`, `aarch64` …
    pub arch: Option<String>,
    /// What runs as process 1.
    pub init: Init,
    /// What installs software.
    pub packaging: Packaging,
    /// The lines of fstab that name a file system.
    pub fstab: Vec<fstab::Entry>,
    /// Swap space.
    pub swap: Vec<Swap>,
    /// Boot loaders with the files that configure them.
    pub bootloaders: Vec<Bootloader>,
    /// What those files boot.
    pub boot_entries: Vec<BootEntry>,
    /// What EFI system partitions hold.
    pub efi_programs: Vec<EfiProgram>,
    /// Kernels that can be booted, each with its initramfs images and modules.
    pub kernels: Vec<Kernel>,
    /// SELinux, AppArmor, encryption, Secure Boot and TPM.
    pub security: Security,
    /// Software that only makes sense on the hypervisor that the guest comes from.
    pub tools: Vec<Tool>,
    /// Configured network interfaces, without loopback.
    pub interfaces: Vec<Interface>,
    /// The network cards among them, and those that others of them lie on.
    pub nics: Vec<NicConfig>,
    /// The addresses that servers gave to interfaces.
    pub leases: Vec<Lease>,
    /// Interface names that the guest ties to hardware addresses.
    pub nic_pins: Vec<Pin>,
    /// Whether interfaces have the kernel's names (`eth0`), since predictable names are switched off.
    pub kernel_nic_names: bool,
    /// What could not be read, and why.
    pub notes: Vec<String>,
}

/// Reads the facts of an installed Linux.
pub fn linux(tree: &Tree) -> Result<Linux> {
    let mut reader = Reader { tree, notes: Vec::new() };
    let mut bootloaders = bootloader::find(&mut reader)?;
    let boot_entries = bootloader::entries(&mut reader, &mut bootloaders)?;
    let kernels = kernels::find(&mut reader, &boot_entries)?;
    let fstab = reader.text("/etc/fstab")?.map(|text| fstab::parse(&text)).unwrap_or_default();
    let interfaces = network::find(&mut reader)?;
    let efi_programs = bootloader::efi_programs(&mut reader)?;
    let init = tools::init(&mut reader)?;
    let kernel_nic_names = network::kernel_names(&mut reader, &boot_entries)?;
    Ok(Linux {
        swap: swap::find(&mut reader, &fstab, &boot_entries)?,
        security: security::find(&mut reader, &bootloaders, &boot_entries, &efi_programs)?,
        os: os::read(&mut reader)?,
        hostname: os::hostname(&mut reader)?,
        arch: os::arch(tree)?,
        init,
        packaging: os::packaging(tree)?,
        fstab,
        bootloaders,
        boot_entries,
        efi_programs,
        kernels,
        tools: tools::find(tree)?,
        nics: network::cards(&interfaces),
        leases: network::leases(&mut reader)?,
        interfaces,
        nic_pins: network::pins(&mut reader)?,
        kernel_nic_names,
        notes: reader.notes,
    })
}

/// Reads configuration files; one that is too large is noted and treated as absent.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    pub(crate) tree: &'a Tree,
    pub(crate) notes: Vec<String>,
}

impl Reader<'_> {
    /// A configuration file as text (invalid UTF-8 replaced); `None` when there is none that can be used.
    pub(crate) fn text(&mut self, path: &str) -> Result<Option<String>> {
        Ok(self.bytes(path)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// A configuration file's bytes; `None` when there is none that can be used.
    pub(crate) fn bytes(&mut self, path: &str) -> Result<Option<Vec<u8>>> {
        match self.tree.read(path, limits::MAX_GUEST_CONFIG) {
            Err(error) if error.kind() == Kind::Limit => {
                self.notes.push(format!("{path} is ignored: {error}"));
                Ok(None)
            }
            other => other,
        }
    }

    /// The regular files of a directory whose names end in `suffix`, as full paths in name order. Names that are not plain
    /// text are noted and left out.
    pub(crate) fn files(&mut self, dir: &str, suffix: &str) -> Result<Vec<String>> {
        let mut paths = Vec::new();
        for entry in self.tree.list(dir)? {
            let Some(name) = entry.text() else {
                self.notes.push(format!("{dir} holds a name that is not text: {}", entry.name.escape_ascii()));
                continue;
            };
            if name.ends_with(suffix) && !name.starts_with('.') && self.tree.is_file(format!("{dir}/{name}"))? {
                paths.push(format!("{dir}/{name}"));
            }
        }
        Ok(paths)
    }
}

#[cfg(test)]
mod tests;
