//! What the distribution would enable by itself (`systemd.preset(5)`).
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::collections::BTreeMap;

use globset::{GlobBuilder, GlobMatcher};
use serde::Serialize;

use super::names::{Shape, shape, with_instance};
use super::units::Scope;
use crate::error::Result;
use crate::inspect::Reader;
use crate::limits;

/// Folders, the first of them first.
const fn folders(scope: Scope) -> &'static [&'static str] {
    match scope {
        Scope::System => &[
            "/etc/systemd/system-preset",
            "/run/systemd/system-preset",
            "/usr/local/lib/systemd/system-preset",
            "/usr/lib/systemd/system-preset",
            "/lib/systemd/system-preset",
        ],
        Scope::User => &[
            "/etc/systemd/user-preset",
            "/run/systemd/user-preset",
            "/usr/local/lib/systemd/user-preset",
            "/usr/lib/systemd/user-preset",
        ],
    }
}

/// What a preset says of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// Enable it; also when nothing is said.
    Enabled,
    /// Disable it.
    Disabled,
    /// Leave it as it is.
    Ignored,
}

/// The rules of all files in order.
#[derive(Debug, Default)]
pub(super) struct Presets(Vec<Rule>);

#[derive(Debug)]
struct Rule {
    preset: Preset,
    pattern: GlobMatcher,
    instances: Vec<String>,
}

impl Presets {
    pub(super) fn read(reader: &mut Reader<'_>, scope: Scope) -> Result<Self> {
        // A file hides those of its name in later folders.
        let mut paths: BTreeMap<String, String> = BTreeMap::new();
        for folder in folders(scope) {
            for path in reader.files(folder, ".preset")? {
                let name = path.rsplit('/').next().unwrap_or_default().to_owned();
                paths.entry(name).or_insert(path);
            }
        }
        let mut rules = Vec::new();
        for path in paths.values() {
            let Some(text) = reader.text(path)? else { continue };
            rules.extend(text.lines().filter_map(rule));
        }
        if rules.len() > limits::MAX_PRESETS {
            reader.notes.push(format!("only the first {} presets of units are looked at", limits::MAX_PRESETS));
            rules.truncate(limits::MAX_PRESETS);
        }
        Ok(Self(rules))
    }

    /// What is said of the unit `name`: by the first rule that fits.
    pub(super) fn of(&self, name: &str) -> Preset {
        let is_template = shape(name) == Some(Shape::Template);
        let fits = |rule: &&Rule| {
            if rule.pattern.is_match(name) {
                return true;
            }
            is_template
                && rule
                    .instances
                    .iter()
                    .filter_map(|instance| with_instance(name, instance))
                    .any(|n| rule.pattern.is_match(n))
        };
        self.0.iter().find(fits).map_or(Preset::Enabled, |rule| rule.preset)
    }
}

fn rule(line: &str) -> Option<Rule> {
    let mut words = line.split_whitespace();
    let preset = match words.next()? {
        "enable" => Preset::Enabled,
        "disable" => Preset::Disabled,
        "ignore" => Preset::Ignored,
        _ => return None,
    };
    let pattern = GlobBuilder::new(words.next()?).literal_separator(false).build().ok()?.compile_matcher();
    Some(Rule { preset, pattern, instances: words.map(str::to_owned).collect() })
}
