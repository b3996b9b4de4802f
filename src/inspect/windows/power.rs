//! Whether Windows was shut down, or keeps a state that whoever writes to its volumes would destroy.

use serde::Serialize;

use super::system::below;
use super::{Reader, resolve};
use crate::error::Result;
use crate::hive::Key;

/// Power settings and what became of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Power {
    /// Whether shutting down keeps the kernel's state for the next start (Fast Startup), where it says.
    pub fast_startup: Option<bool>,
    /// Whether hibernation is enabled, where it says.
    pub hibernation_enabled: Option<bool>,
    /// What its hibernation file says.
    pub hibernation: Hibernation,
}

/// The state of the file that hibernation writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Hibernation {
    /// There is none in the volume.
    #[default]
    Absent,
    /// It is there and holds nothing to go on from.
    Empty,
    /// It holds a state: the machine was hibernated, or shut down with Fast Startup.
    Hibernated,
    /// It was being resumed from.
    Resuming,
}

pub(super) fn read(set: &Key<'_>) -> Result<Power> {
    let number = |path: &str, name: &str| match below(set, path)? {
        Some(key) => key.number(name),
        None => Ok(None),
    };
    let fast_startup = number("Control\\Session Manager\\Power", "HiberbootEnabled")?.map(|number| number != 0);
    let hibernation_enabled = number("Control\\Power", "HibernateEnabled")?.map(|number| number != 0);
    Ok(Power { fast_startup, hibernation_enabled, hibernation: Hibernation::Absent })
}

/// By the first bytes of `hiberfil.sys`.
pub(super) fn hibernation(reader: &mut Reader<'_>) -> Result<Hibernation> {
    let opened =
        resolve(reader.tree, "/hiberfil.sys").and_then(|path| path.map_or(Ok(None), |path| reader.tree.open(path)));
    let Some(file) = reader.part("hiberfil.sys", opened)? else { return Ok(Hibernation::Absent) };
    let mut signature = [0; 4];
    let read = file.read_at(&mut signature, 0).map(|_| signature);
    let signature = reader.part("hiberfil.sys", read)?;
    Ok(match signature.to_ascii_lowercase().as_slice() {
        b"hibr" => Hibernation::Hibernated,
        b"rstr" => Hibernation::Resuming,
        _ => Hibernation::Empty,
    })
}
