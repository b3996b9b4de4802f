//! The Windows firewall.

use serde::Serialize;

use super::system::below;
use super::{bounded, bounded_list};
use crate::error::Result;
use crate::hive::Key;

/// The firewall's profiles and rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Firewall {
    /// `domain`, `private` and `public`, as far as they are configured.
    pub profiles: Vec<Profile>,
    /// Rules of the machine itself, without those that a group policy adds.
    pub rules: Vec<Rule>,
}

/// A profile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Profile {
    /// Its name.
    pub name: &'static str,
    /// Whether the firewall is on.
    pub enabled: Option<bool>,
}

/// A rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Rule {
    /// The name of its value.
    pub id: String,
    /// What people see; it may refer to a string in a file (`@…`).
    pub name: Option<String>,
    /// Whether it counts.
    pub active: bool,
    /// `allow`, `block` or `bypass`.
    pub action: Option<String>,
    /// `in` or `out`.
    pub direction: Option<String>,
    /// The protocol's number; `None` for any.
    pub protocol: Option<u8>,
    /// Local ports and ranges of them.
    pub local_ports: Vec<String>,
    /// Remote ports and ranges of them.
    pub remote_ports: Vec<String>,
    /// Remote addresses it is about.
    pub remote_addresses: Vec<String>,
    /// Profiles that it belongs to; none for all.
    pub profiles: Vec<String>,
    /// The program that it is about.
    pub program: Option<String>,
    /// The service that it is about.
    pub service: Option<String>,
}

pub(super) fn read(set: &Key<'_>) -> Result<Firewall> {
    let mut firewall = Firewall::default();
    let Some(policy) = below(set, "Services\\SharedAccess\\Parameters\\FirewallPolicy")? else { return Ok(firewall) };
    for (name, key) in [("domain", "DomainProfile"), ("private", "StandardProfile"), ("public", "PublicProfile")] {
        if let Some(key) = policy.subkey(key)? {
            let enabled = key.number("EnableFirewall")?.map(|number| number != 0);
            firewall.profiles.push(Profile { name, enabled });
        }
    }
    if let Some(key) = policy.subkey("FirewallRules")? {
        firewall.rules = bounded_list(key.values()?.map(|value| {
            let value = value?;
            Ok(rule(value.name(), &value.data()?.text().unwrap_or_default()))
        }))?;
    }
    Ok(firewall)
}

/// A rule: `v2.30|Action=Allow|Active=TRUE|Dir=In|Protocol=6|LPort=3389|…|`.
fn rule(id: &str, text: &str) -> Rule {
    let mut rule = Rule { id: bounded(id.to_owned()), ..Rule::default() };
    for field in text.split('|') {
        let Some((key, value)) = field.split_once('=') else { continue };
        let value = bounded(value.to_owned());
        match key {
            "Action" => rule.action = Some(value.to_lowercase()),
            "Active" => rule.active = value.eq_ignore_ascii_case("TRUE"),
            "Dir" => rule.direction = Some(value.to_lowercase()),
            "Protocol" => rule.protocol = value.parse().ok(),
            "LPort" | "LPort2_10" | "LPort2_20" | "LPort2_24" | "LPort2_29" => rule.local_ports.push(value),
            "RPort" | "RPort2_10" | "RPort2_25" => rule.remote_ports.push(value),
            "RA4" | "RA6" | "RA42" | "RA62" => rule.remote_addresses.push(value),
            "Profile" => rule.profiles.push(value.to_lowercase()),
            "App" => rule.program = Some(value),
            "Svc" => rule.service = Some(value),
            "Name" => rule.name = Some(value),
            _ => {}
        }
    }
    rule
}
