//! What the user wants to be put into the guest: accounts, keys, files, scripts of the first boot, services, cloud-init.
//!
//! Unlike fixes, these were asked for: what cannot be done is an error, and nothing is done then.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

mod accounts;
mod agent;
mod cloud;
mod config;
mod files;
mod first_boot;
mod hostname;
mod network;
mod services;

use super::draft::Draft;
use crate::error::{Error, Kind, Result};

pub use config::{CloudInit, GuestAgent, Injection, NewFile, NewUser, PasswordHash, Script, Services, key_lines};
pub use network::NewAddresses;

/// The name of these changes in a plan.
const FIX: &str = "inject";

/// Why they are made.
const WHY: &str = "it was asked for";

pub(super) fn plan(draft: &mut Draft<'_>) -> Result<()> {
    let wanted = &draft.options().inject;
    let before = draft.left_so_far().len();
    if let Some(name) = &wanted.hostname {
        hostname::plan(draft, name)?;
    }
    wanted.network.iter().try_for_each(|interface| network::plan(draft, interface))?;
    accounts::plan(draft, &wanted.users)?;
    wanted.files.iter().try_for_each(|file| files::plan(draft, file))?;
    let agent = wanted.guest_agent.as_ref().map(|wanted| agent::plan(draft, wanted)).transpose()?.flatten();
    let scripts: Vec<&Script> = wanted.first_boot.iter().chain(&agent).collect();
    first_boot::plan(draft, &scripts)?;
    services::plan(draft, &wanted.services)?;
    if let Some(cloud) = &wanted.cloud_init {
        cloud::plan(draft, cloud)?;
    }
    match draft.left_so_far().get(before) {
        None => Ok(()),
        Some(left) => Err(Error::unsupported("inject.impossible", "something that was asked for cannot be done")
            .at(&left.path)
            .expected(&left.what)
            .found(&left.why)),
    }
}

/// A value that cannot be what it is for.
fn bad_value(what: &str, found: &str) -> Error {
    Error::new(Kind::Usage, "inject.value", format!("that is no {what}")).found(crate::error::escape(found))
}

/// The guest lacks what is needed.
fn absent(what: impl Into<String>, found: &str) -> Error {
    Error::unsupported("inject.absent", what).found(crate::error::escape(found))
}

#[cfg(test)]
mod tests;
