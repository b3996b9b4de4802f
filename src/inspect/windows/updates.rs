//! Updates that were installed: packages of component-based servicing, and the hotfixes of versions before it.
//!
//! Source: Microsoft's table of "CBS servicing states" for the numbers in `CurrentState`.

use serde::Serialize;

use super::{bounded, filetime, text};
use crate::error::Result;
use crate::hive::{Hive, Key};
use crate::limits;

/// An update.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Hotfix {
    /// `KB5005039`, or what its package is called where that has no such number: `RollupFix`.
    pub id: String,
    /// The name of its key.
    pub package: String,
    /// Its version.
    pub version: Option<String>,
    /// `installed`, `superseded`, `staged` …
    pub state: &'static str,
    /// When it was installed: seconds since the epoch.
    pub installed: Option<i64>,
    /// The program that installed it.
    pub client: Option<String>,
}

const PACKAGES: &str = "Microsoft\\Windows\\CurrentVersion\\Component Based Servicing\\Packages";
const HOTFIXES: &str = "Microsoft\\Windows NT\\CurrentVersion\\HotFix";

pub(super) fn read(software: &Hive) -> Result<Vec<Hotfix>> {
    let mut found = Vec::new();
    if let Some(packages) = software.key(PACKAGES)? {
        for key in packages.subkeys()? {
            let key = key?;
            let Some(fix) = package(&key)? else { continue };
            found.push(fix);
            if found.len() >= limits::MAX_WINDOWS_ITEMS {
                break;
            }
        }
    }
    if let Some(fixes) = software.key(HOTFIXES)? {
        for key in fixes.subkeys()?.take(limits::MAX_WINDOWS_ITEMS.saturating_sub(found.len())) {
            let key = key?;
            if key.number("Installed")? == Some(1) {
                let name = bounded(key.name().to_owned());
                found.push(Hotfix { id: name.clone(), package: name, state: "installed", ..Hotfix::default() });
            }
        }
    }
    Ok(found)
}

/// A package of a whole update: `Package_for_KB5005039~31bf3856ad364e35~amd64~~22000.132.1.1`. Those of its parts have numbers in
/// their names, and those of features other beginnings.
fn package(key: &Key<'_>) -> Result<Option<Hotfix>> {
    let Some(rest) = key.name().strip_prefix("Package_for_") else { return Ok(None) };
    let mut fields = rest.split('~');
    let name = fields.next().unwrap_or_default();
    let version = fields.nth(3).filter(|version| !version.is_empty());
    let number =
        name.strip_prefix("KB").map(|digits| digits.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default());
    let id = match number.filter(|digits| !digits.is_empty()) {
        Some(digits) => format!("KB{digits}"),
        None => name.to_owned(),
    };
    let half = |name: &str| key.number(name).map(|number| number.and_then(|number| u32::try_from(number).ok()));
    let installed = match (half("InstallTimeHigh")?, half("InstallTimeLow")?) {
        (Some(high), Some(low)) => filetime(u64::from(high) << 32 | u64::from(low)),
        _ => None,
    };
    Ok(Some(Hotfix {
        id: bounded(id),
        package: bounded(key.name().to_owned()),
        version: version.map(|version| bounded(version.to_owned())),
        state: state(key.number("CurrentState")?),
        installed,
        client: text(key, "InstallClient")?,
    }))
}

const fn state(number: Option<u64>) -> &'static str {
    match number {
        Some(0) => "absent",
        Some(0x05) => "uninstall-pending",
        Some(0x10) => "resolving",
        Some(0x20) => "resolved",
        Some(0x30) => "staging",
        Some(0x40) => "staged",
        Some(0x50) => "superseded",
        Some(0x60) => "install-pending",
        Some(0x65) => "partially-installed",
        Some(0x70) => "installed",
        Some(0x80) => "permanent",
        _ => "unknown",
    }
}
