//! Facts about an installed Windows, from its registry and a few files.
//!
//! [`find_windows`] tells which file systems have one; [`windows`] reads its facts. What a damaged hive or key does not tell is
//! noted and left out; only a source that cannot be read ends the reading.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use serde::Serialize;

use super::machine::Machine;
use crate::error::{Kind, Result};
use crate::fs::Tree;
use crate::hive::{Hive, Key};
use crate::limits;

mod accounts;
mod bcd;
mod deep;
mod drives;
mod find;
mod firewall;
mod hives;
mod network;
mod power;
mod services;
mod software;
mod system;
mod tasks;
mod updates;

pub use accounts::{Account, Group};
pub use bcd::{Bcd, Loader};
pub use deep::{UserApplications, WindowsDeep, deep};
pub use drives::{Drive, DriveTarget};
pub use find::{WindowsRoot, find_windows};
pub use firewall::{Firewall, Profile, Rule};
pub use hives::{HiveFile, hives, open_hive, resolve, state_name};
pub use network::Adapter;
pub use power::{Hibernation, Power};
pub use services::{Service, ServiceKind, Start};
pub use software::{Application, Product};
pub use tasks::Task;
pub use updates::Hotfix;

/// Everything that is known about one installed Windows.
#[derive(Clone, Debug, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Windows {
    /// What it is.
    pub product: Product,
    /// The processor architecture of its programs: `x86_64`, `i686`, `aarch64`.
    pub arch: Option<String>,
    /// The directory that it is installed in, as a path in its volume: `/Windows`.
    pub system_root: String,
    /// The control set that it starts with: `ControlSet001`.
    pub control_set: Option<String>,
    /// The host name, as configured.
    pub hostname: Option<String>,
    /// The DNS domain that it belongs to.
    pub domain: Option<String>,
    /// The time zone's name in the registry.
    pub time_zone: Option<String>,
    /// Whether it keeps the hardware clock in universal time.
    pub universal_clock: bool,
    /// `bios` or `uefi`, as it was started last; by its boot configuration where it does not say.
    pub firmware: Option<&'static str>,
    /// Whether Secure Boot was on when it was started last, where it says.
    pub secure_boot: Option<bool>,
    /// The version of the TPM that it has seen, `1.2` or `2.0`, if any.
    pub tpm: Option<&'static str>,
    /// The hives that were read, and whether they were complete.
    pub hives: Vec<HiveFile>,
    /// Drive letters and what they stand for.
    pub drives: Vec<Drive>,
    /// Network adapters with their configuration.
    pub adapters: Vec<Adapter>,
    /// Installed applications, of the machine and not of single users.
    pub applications: Vec<Application>,
    /// Services and drivers.
    pub services: Vec<Service>,
    /// The firewall.
    pub firewall: Firewall,
    /// Environment variables of the machine: name and value.
    pub environment: Vec<(String, String)>,
    /// Group policies that were applied to the machine, by name where they have one.
    pub group_policies: Vec<String>,
    /// Protection against malware that is installed.
    pub antivirus: Vec<String>,
    /// Software that belongs to a hypervisor: the hypervisor and the service that shows it.
    pub tools: Vec<(&'static str, String)>,
    /// Whether it was shut down or only sent to sleep.
    pub power: Power,
    /// Profiles of users: security identifier and directory.
    pub profiles: Vec<(String, String)>,
    /// What its boot manager starts.
    pub boot: Option<Bcd>,
    /// What could not be read, and why.
    pub notes: Vec<String>,
}

/// Reads the facts of the Windows at `root`; `machine` is what it lies on.
pub fn windows(machine: &Machine, root: &WindowsRoot) -> Result<Windows> {
    let mut reader = Reader { tree: &root.root.tree, notes: Vec::new(), hives: Vec::new() };
    let mut facts = Windows { system_root: root.system_root.clone(), ..Windows::default() };
    let config = format!("{}/System32/config", root.system_root);
    if let Some(hive) = reader.hive(&format!("{config}/SYSTEM"))? {
        system::read(&mut reader, &hive, machine, &mut facts)?;
    }
    if let Some(hive) = reader.hive(&format!("{config}/SOFTWARE"))? {
        software::read(&mut reader, &hive, &mut facts)?;
    }
    facts.arch = system::arch(&mut reader, &facts)?;
    facts.power.hibernation = power::hibernation(&mut reader)?;
    facts.antivirus = software::antivirus(&facts);
    facts.tools = services::tools(&facts.services);
    facts.boot = bcd::find(&mut reader, machine, root.root.volume)?;
    facts.firmware = facts.firmware.or_else(|| facts.boot.as_ref().map(|boot| boot.firmware));
    facts.product.finish();
    (facts.notes, facts.hives) = (reader.notes, reader.hives);
    Ok(facts)
}

/// Reads hives and files; what is damaged is noted and left out.
#[derive(Debug)]
struct Reader<'a> {
    tree: &'a Tree,
    notes: Vec<String>,
    hives: Vec<HiveFile>,
}

impl Reader<'_> {
    /// Opens the hive at `path`; `None` when there is none that can be used.
    fn hive(&mut self, path: &str) -> Result<Option<Hive>> {
        let Some(path) = resolve(self.tree, path)? else {
            self.notes.push(format!("there is no {path}"));
            return Ok(None);
        };
        let opened = open_hive(self.tree, &path);
        let Some(hive) = self.try_part(&path, opened)?.flatten() else { return Ok(None) };
        self.hives.push(HiveFile::of(&path, &hive));
        Ok(Some(hive))
    }

    /// `part`, or its default when what it is about is damaged, which is noted.
    fn part<T: Default>(&mut self, what: &str, part: Result<T>) -> Result<T> {
        Ok(self.try_part(what, part)?.unwrap_or_default())
    }

    fn try_part<T>(&mut self, what: &str, part: Result<T>) -> Result<Option<T>> {
        match part {
            Ok(value) => Ok(Some(value)),
            Err(error) if matches!(error.kind(), Kind::Corrupt | Kind::Limit | Kind::NotFound | Kind::Unsupported) => {
                self.notes.push(format!("{what} cannot be read: {error}"));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Characters of one text that are kept.
const LONGEST: usize = 1024;

/// A text of a value, bounded; `None` when there is none, or it is empty.
fn text(key: &Key<'_>, name: &str) -> Result<Option<String>> {
    Ok(key.text(name)?.map(bounded).filter(|text| !text.is_empty()))
}

fn bounded(text: String) -> String {
    if text.len() <= LONGEST { text } else { text.chars().take(LONGEST).collect() }
}

/// Seconds since the epoch of a FILETIME; `None` for those that say never.
fn filetime(time: u64) -> Option<i64> {
    const SECOND: u64 = 10_000_000;
    /// Seconds from 1601 to 1970.
    const EPOCH: i64 = 11_644_473_600;
    let is_never = time == 0 || time >= i64::MAX.unsigned_abs();
    let seconds = i64::try_from(time.checked_div(SECOND)?).ok()?;
    (!is_never).then(|| seconds.saturating_sub(EPOCH))
}

/// The first of a list that may be too long.
fn bounded_list<T>(items: impl Iterator<Item = Result<T>>) -> Result<Vec<T>> {
    items.take(limits::MAX_WINDOWS_ITEMS).collect()
}

#[cfg(test)]
mod tests;
