//! The time zones of a guest, by its own tables.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::error::{Kind, Result};
use crate::fs::Tree;
use crate::limits;

/// A time zone.
#[derive(Clone, Debug)]
pub struct Zone {
    /// `Europe/Berlin`, `UTC`.
    pub name: String,
    /// What its clocks show when.
    pub rules: TimeZone,
}

impl Zone {
    /// Coordinated Universal Time.
    #[must_use]
    pub fn utc() -> Self {
        Self { name: "UTC".to_owned(), rules: TimeZone::UTC }
    }
}

/// The zones that a guest knows (`tzfile(5)`), and the one that its clock shows.
#[derive(Debug)]
pub struct Zones<'a> {
    tree: &'a Tree,
    local: Zone,
    /// What clocks of the local zone are called, and whether that is summer time.
    seasons: Vec<(String, bool)>,
}

impl<'a> Zones<'a> {
    /// Those of a guest. Without a usable `/etc/localtime`, its clock shows UTC.
    pub fn read(tree: &'a Tree, now: Timestamp) -> Result<Self> {
        let link = tree.read_link("/etc/localtime")?.unwrap_or_default();
        let link = String::from_utf8_lossy(&link).into_owned();
        let name = link.split_once("zoneinfo/").map_or("localtime", |(_, name)| name);
        let local = rules(tree, "/etc/localtime", name)?.unwrap_or_else(Zone::utc);
        Ok(Self { tree, seasons: seasons(&local.rules, now), local })
    }

    /// What the guest's clock shows.
    #[must_use]
    pub const fn local(&self) -> &Zone {
        &self.local
    }

    /// The zone of this name; `None` where the guest knows none.
    pub fn named(&self, name: &str) -> Result<Option<Zone>> {
        if name == "UTC" {
            return Ok(Some(Zone::utc()));
        }
        let is_plain = |part: &str| {
            let fits = |c: char| c.is_ascii_alphanumeric() || "-_+".contains(c);
            !part.is_empty() && part.chars().all(fits)
        };
        let begins = name.starts_with(|c: char| c.is_ascii_alphanumeric());
        if !begins || name.len() > 255 || !name.split('/').all(is_plain) {
            return Ok(None);
        }
        rules(self.tree, &format!("/usr/share/zoneinfo/{name}"), name)
    }

    /// Whether an abbreviation is one of the local zone's: its name, and whether it is that of summer time.
    pub(super) fn season(&self, word: &str) -> Option<(String, bool)> {
        self.seasons.iter().find(|(name, _)| name.eq_ignore_ascii_case(word)).cloned()
    }
}

/// The zone that a file holds. One that is no table is no zone.
fn rules(tree: &Tree, path: &str, name: &str) -> Result<Option<Zone>> {
    let data = match tree.read(path, limits::MAX_TIME_ZONE) {
        Err(error) if error.kind() == Kind::Limit => return Ok(None),
        other => other?,
    };
    let rules = data.and_then(|data| TimeZone::tzif(name, &data).ok());
    Ok(rules.map(|rules| Zone { name: name.to_owned(), rules }))
}

/// The abbreviations before and after the change that comes next.
fn seasons(zone: &TimeZone, now: Timestamp) -> Vec<(String, bool)> {
    let here = zone.to_offset_info(now);
    let mut seasons = vec![(here.abbreviation().to_owned(), here.dst().is_dst())];
    if let Some(change) = zone.following(now).next() {
        seasons.push((change.abbreviation().to_owned(), change.dst().is_dst()));
    }
    seasons
}
