//! Facts that take more reading than the default ones: what `inspect --deep` adds.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use serde::Serialize;

use super::accounts::{self, User};
use super::identity::{self, Identity};
use super::privileges::{self, Privileges};
use super::systemd::Units;
use super::{Init, KernelDrivers, Linux, Reader, drivers, packages};
use crate::error::Result;
use crate::fs::Tree;

/// What is known of an installed Linux beyond [`super::Linux`].
#[derive(Clone, Debug, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Deep {
    /// What it is told about itself.
    pub identity: Identity,
    /// The users that it knows itself.
    pub users: Vec<User>,
    /// Who may act as somebody else.
    pub privileges: Privileges,
    /// The units of systemd; `None` where another program runs as process 1.
    pub units: Option<Units>,
    /// What each kernel has for KVM in its initramfs.
    pub drivers: Vec<KernelDrivers>,
    /// The databases of installed packages.
    pub packages: Vec<packages::Database>,
    /// What was installed, upgraded and removed when.
    pub package_history: packages::History,
    /// What could not be read, and why.
    pub notes: Vec<String>,
}

/// Reads the further facts of an installed Linux.
pub fn deep(tree: &Tree, facts: &Linux) -> Result<Deep> {
    let mut reader = Reader { tree, notes: Vec::new() };
    let (identity, users) = (identity::read(&mut reader)?, accounts::users(&mut reader)?);
    let privileges = privileges::read(&mut reader, &users, facts.hostname.as_deref())?;
    let units = matches!(facts.init, Init::Systemd(_)).then(|| Units::read(tree)).transpose()?;
    let (drivers, package_history) = (drivers(tree, facts)?, packages::history(tree)?);
    let (packages, notes) = (packages::find(tree)?, reader.notes);
    Ok(Deep { identity, users, privileges, units, drivers, packages, package_history, notes })
}
