//! Facts that take more reading than the default ones: what `inspect --deep` adds.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use serde::Serialize;

use super::{KernelDrivers, Linux, drivers, packages};
use crate::error::Result;
use crate::fs::Tree;

/// What is known of an installed Linux beyond [`super::Linux`].
#[derive(Clone, Debug, Default, Serialize)]
pub struct Deep {
    /// What each kernel has for KVM in its initramfs.
    pub drivers: Vec<KernelDrivers>,
    /// The databases of installed packages.
    pub packages: Vec<packages::Database>,
    /// What was installed, upgraded and removed when.
    pub package_history: packages::History,
}

/// Reads the further facts of an installed Linux.
pub fn deep(tree: &Tree, facts: &Linux) -> Result<Deep> {
    Ok(Deep {
        drivers: drivers(tree, facts)?,
        packages: packages::find(tree)?,
        package_history: packages::history(tree)?,
    })
}
