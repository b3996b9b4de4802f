//! What starts units by itself or is mounted: timers, sockets and mounts, by their units.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use jiff::Timestamp;
use serde::Serialize;

use super::calendar::Calendar;
use super::load::{Graph, Loaded};
use super::zones::Zones;
use crate::error::Result;

/// A timer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Timer {
    /// The unit.
    pub unit: String,
    /// The unit that it starts.
    pub activates: Option<String>,
    /// When: `OnCalendar=daily`, `OnBootSec=15min`.
    pub when: Vec<String>,
    /// When the calendar expressions elapse next, in microseconds since 1970, without the delays that it may add. Unknown for
    /// other times, which count from what only a running system does.
    pub next: Option<u64>,
    /// Whether it starts at once what it missed while the system was off.
    pub persistent: bool,
}

/// A socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Socket {
    /// The unit.
    pub unit: String,
    /// The unit that it starts.
    pub activates: Option<String>,
    /// On what it listens: `ListenStream`, and an address or a path.
    pub listens: Vec<(String, String)>,
    /// Whether each connection has a service of its own.
    pub accept: bool,
}

/// A mount, or a place that mounts when it is entered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct MountUnit {
    /// The unit.
    pub unit: String,
    /// The place.
    pub place: Option<String>,
    /// What is mounted; none for an automount.
    pub what: Option<String>,
    /// The type of file system.
    pub kind: Option<String>,
    /// Options.
    pub options: Option<String>,
}

const TIMES: [&str; 8] = [
    "OnCalendar",
    "OnActiveSec",
    "OnBootSec",
    "OnStartupSec",
    "OnUnitActiveSec",
    "OnUnitInactiveSec",
    "OnClockChange",
    "OnTimezoneChange",
];

/// What sockets listen on.
pub(super) const LISTENS: [&str; 8] = [
    "ListenStream",
    "ListenDatagram",
    "ListenSequentialPacket",
    "ListenFIFO",
    "ListenSpecial",
    "ListenNetlink",
    "ListenMessageQueue",
    "ListenUSBFunction",
];

impl Graph {
    fn of<'g>(&'g self, suffix: &'g str) -> impl Iterator<Item = &'g Loaded> {
        self.units.values().filter(move |unit| unit.suffix() == suffix && unit.path.is_some() && !unit.is_masked)
    }

    /// The timers, with when they elapse after `base`.
    pub fn timers(&self, zones: &Zones<'_>, base: Timestamp) -> Result<Vec<Timer>> {
        let mut timers = Vec::new();
        for unit in self.of("timer") {
            let mut next: Option<Timestamp> = None;
            for expression in unit.list("Timer", "OnCalendar") {
                let Ok(calendar) = Calendar::parse(expression, zones) else { continue };
                let elapses = calendar.next(base, &zones.local().rules);
                next = next.into_iter().chain(elapses).min();
            }
            timers.push(Timer {
                unit: unit.name.clone(),
                activates: unit.triggers(),
                when: pairs(unit, "Timer", &TIMES).into_iter().map(|(key, value)| format!("{key}={value}")).collect(),
                next: next.and_then(|next| u64::try_from(next.as_microsecond()).ok()),
                persistent: unit.is_on("Timer", "Persistent", false),
            });
        }
        Ok(timers)
    }

    /// The sockets.
    #[must_use]
    pub fn sockets(&self) -> Vec<Socket> {
        let socket = |unit: &Loaded| Socket {
            unit: unit.name.clone(),
            activates: unit.triggers(),
            listens: pairs(unit, "Socket", &LISTENS),
            accept: unit.is_on("Socket", "Accept", false),
        };
        self.of("socket").map(socket).collect()
    }

    /// The mounts that have units; those of fstab have none before the system starts.
    #[must_use]
    pub fn mounts(&self) -> Vec<MountUnit> {
        let text =
            |unit: &Loaded, section: &str, key: &str| unit.value(section, key).and_then(|value| unit.expanded(value));
        let mount = |unit: &Loaded| MountUnit {
            unit: unit.name.clone(),
            place: text(unit, "Mount", "Where"),
            what: text(unit, "Mount", "What"),
            kind: text(unit, "Mount", "Type"),
            options: text(unit, "Mount", "Options"),
        };
        let automount = |unit: &Loaded| MountUnit {
            unit: unit.name.clone(),
            place: text(unit, "Automount", "Where"),
            what: None,
            kind: None,
            options: text(unit, "Automount", "ExtraOptions"),
        };
        self.of("mount").map(mount).chain(self.of("automount").map(automount)).collect()
    }
}

/// The settings of some keys in the order of the files; an empty one takes back those before it of its key.
fn pairs(unit: &Loaded, section: &str, keys: &[&str]) -> Vec<(String, String)> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    for (_, setting) in unit.settings.iter().filter(|(_, setting)| setting.section == section) {
        if !keys.contains(&setting.key.as_str()) {
            continue;
        }
        if setting.value.is_empty() {
            pairs.retain(|(key, _)| *key != setting.key);
        } else {
            let value = unit.expanded(&setting.value).unwrap_or_else(|| setting.value.clone());
            pairs.push((setting.key.clone(), value));
        }
    }
    pairs
}
