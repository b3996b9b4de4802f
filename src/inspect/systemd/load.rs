//! Units with all their files: what they say together, and what they ask of each other (`systemd.unit(5)`).
//!
//! Told are the dependencies that files and links name, those by default, and those that follow from a socket, timer or path and
//! what it starts. What systemd adds from mounts, slices, devices and settings of how programs run is not.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::Serialize;

use super::file::{self, Setting};
use super::names::{Shape, instance, shape, template};
use super::units::{Folders, Scope, leads_to_null};
use crate::error::Result;
use crate::fs::Tree;
use crate::limits;

mod defaults;
#[cfg(test)]
mod tests;

/// What one unit asks of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum DependencyKind {
    /// Start it too.
    Wants,
    /// Start it too, and stop when it is stopped.
    Requires,
    /// It must run already.
    Requisite,
    /// Like [`DependencyKind::Requires`], and stop whenever it is gone.
    BindsTo,
    /// Stop and restart with it.
    PartOf,
    /// Start it again whenever it is gone.
    Upholds,
    /// Stop it.
    Conflicts,
    /// Be started before it.
    Before,
    /// Be started after it.
    After,
    /// Start it after a failure.
    OnFailure,
    /// Start it after the end without a failure.
    OnSuccess,
    /// A socket, timer or path starts it.
    Triggers,
}

impl DependencyKind {
    const ALL: [(&'static str, Self); 11] = [
        ("Wants", Self::Wants),
        ("Requires", Self::Requires),
        ("Requisite", Self::Requisite),
        ("BindsTo", Self::BindsTo),
        ("PartOf", Self::PartOf),
        ("Upholds", Self::Upholds),
        ("Conflicts", Self::Conflicts),
        ("Before", Self::Before),
        ("After", Self::After),
        ("OnFailure", Self::OnFailure),
        ("OnSuccess", Self::OnSuccess),
    ];

    /// The word that systemd has for it, and that for it seen from the other unit.
    #[must_use]
    pub const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Wants => ("Wants", "WantedBy"),
            Self::Requires => ("Requires", "RequiredBy"),
            Self::Requisite => ("Requisite", "RequisiteOf"),
            Self::BindsTo => ("BindsTo", "BoundBy"),
            Self::PartOf => ("PartOf", "ConsistsOf"),
            Self::Upholds => ("Upholds", "UpheldBy"),
            Self::Conflicts => ("Conflicts", "ConflictedBy"),
            Self::Before => ("Before", "After"),
            Self::After => ("After", "Before"),
            Self::OnFailure => ("OnFailure", "OnFailureOf"),
            Self::OnSuccess => ("OnSuccess", "OnSuccessOf"),
            Self::Triggers => ("Triggers", "TriggeredBy"),
        }
    }
}

/// Why there is a dependency.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A file says so.
    File {
        /// Which.
        path: String,
        /// Where, from 1.
        line: u32,
    },
    /// A link in a `.wants`, `.requires` or `.upholds` folder does.
    Link {
        /// Which.
        path: String,
    },
    /// Units of this kind have it unless `DefaultDependencies=no`.
    Default,
    /// It follows from what the unit does.
    Implied,
}

/// What a unit asks of another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Dependency {
    /// What.
    pub kind: DependencyKind,
    /// Of which unit.
    pub unit: String,
    /// Why.
    pub origin: Origin,
}

/// A unit with all its files.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// Its name, and not another one for it.
    pub name: String,
    /// Its other names.
    pub aliases: Vec<String>,
    /// Its file; `None` where there is none.
    pub path: Option<String>,
    /// Files that add to it, in the order in which they count.
    pub drop_ins: Vec<String>,
    /// Whether it cannot be started.
    pub is_masked: bool,
    /// What it asks of others.
    pub dependencies: Vec<Dependency>,
    /// What its files say, each with the file.
    pub(super) settings: Vec<(String, Setting)>,
    /// Lines of its files that are no settings.
    pub(super) odd_lines: Vec<(String, u32, String)>,
}

impl Loaded {
    /// The settings of a key in order.
    pub(super) fn all<'s>(&'s self, section: &'s str, key: &'s str) -> impl DoubleEndedIterator<Item = &'s Setting> {
        let settings = self.settings.iter().map(|(_, setting)| setting);
        settings.filter(move |setting| setting.section == section && setting.key == key)
    }

    /// The value of a key that has one: the last.
    pub(super) fn value<'s>(&'s self, section: &'s str, key: &'s str) -> Option<&'s str> {
        self.all(section, key).next_back().map(|setting| setting.value.as_str()).filter(|value| !value.is_empty())
    }

    /// The values of a list.
    pub(super) fn list<'s>(&'s self, section: &'s str, key: &'s str) -> Vec<&'s str> {
        file::list(self.all(section, key)).into_iter().map(|setting| setting.value.as_str()).collect()
    }

    /// Whether a switch is on.
    pub(super) fn is_on(&self, section: &str, key: &str, default: bool) -> bool {
        self.value(section, key).and_then(file::boolean).unwrap_or(default)
    }

    /// `service`, `socket` …
    #[must_use]
    pub fn suffix(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or_default()
    }

    /// The unit that a socket, timer or path starts.
    #[must_use]
    pub fn triggers(&self) -> Option<String> {
        let stem = self.name.strip_suffix(self.suffix())?;
        match self.suffix() {
            "socket" => Some(match self.value("Socket", "Service") {
                Some(service) => self.expanded(service)?,
                None if self.is_on("Socket", "Accept", false) => format!("{}@.service", stem.strip_suffix('.')?),
                None => format!("{stem}service"),
            }),
            "timer" => {
                Some(self.value("Timer", "Unit").map_or(Some(format!("{stem}service")), |unit| self.expanded(unit))?)
            }
            "path" => {
                Some(self.value("Path", "Unit").map_or(Some(format!("{stem}service")), |unit| self.expanded(unit))?)
            }
            "automount" => Some(format!("{stem}mount")),
            _ => None,
        }
    }

    /// Text with the specifiers that the name tells; `None` for others.
    pub(super) fn expanded(&self, text: &str) -> Option<String> {
        let (stem, _) = self.name.rsplit_once('.')?;
        let prefix = stem.split_once('@').map_or(stem, |(prefix, _)| prefix);
        let own = instance(&self.name).unwrap_or_default();
        let (mut out, mut chars) = (String::new(), text.chars());
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            match chars.next()? {
                '%' => out.push('%'),
                'i' => out.push_str(own),
                'I' => out.push_str(&unescaped(own)),
                'n' => out.push_str(&self.name),
                'N' => out.push_str(stem),
                'p' => out.push_str(prefix),
                'P' => out.push_str(&unescaped(prefix)),
                'j' => out.push_str(prefix.rsplit('-').next().unwrap_or_default()),
                'J' => out.push_str(&unescaped(prefix.rsplit('-').next().unwrap_or_default())),
                _ => return None,
            }
        }
        Some(out)
    }
}

/// `-` is a slash, and `\x2d` a byte.
pub(super) fn unescaped(text: &str) -> String {
    let (mut out, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'-' => out.push(b'/'),
            b'\\' => {
                let code = after.strip_prefix(b"x").and_then(|hex| std::str::from_utf8(hex.get(..2)?).ok());
                match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
                    Some(byte) => {
                        out.push(byte);
                        rest = after.get(3..).unwrap_or_default();
                    }
                    None => out.push(b'\\'),
                }
            }
            byte => out.push(*byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The units of a guest.
#[derive(Debug, Default)]
pub struct Graph {
    /// By name, without templates.
    pub units: BTreeMap<String, Loaded>,
    /// Other names, with what they stand for.
    pub names: BTreeMap<String, String>,
    /// What could not be read, and why.
    pub notes: Vec<String>,
}

impl Graph {
    /// Loads all units that have files, and those that they name.
    pub fn read(tree: &Tree, scope: Scope) -> Result<Self> {
        let mut folders = Folders::read(tree, scope)?;
        let mut graph = Self::default();
        let mut queue: VecDeque<String> = folders.names().into_keys().collect();
        queue.push_back("default.target".to_owned());
        let mut seen: BTreeSet<String> = queue.iter().cloned().collect();
        let mut all_aliases: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for name in &queue {
            if let Some(found) = folders.discover(name)?.filter(|found| found.name != *name) {
                all_aliases.entry(found.name.clone()).or_default().push(name.clone());
                graph.names.insert(name.clone(), found.name);
            }
        }
        while let Some(name) = queue.pop_front() {
            if graph.units.len() >= limits::MAX_UNITS {
                graph.notes.push(format!("only the first {} units are looked at", limits::MAX_UNITS));
                break;
            }
            if shape(&name) == Some(Shape::Template) {
                continue;
            }
            let found = folders.discover(&name)?;
            let id = found.as_ref().map_or(name.clone(), |found| found.name.clone());
            if id != name {
                graph.names.insert(name, id.clone());
            }
            if graph.units.contains_key(&id) {
                continue;
            }
            let mut unit = Loaded {
                name: id.clone(),
                aliases: all_aliases.get(&id).cloned().unwrap_or_default(),
                ..Loaded::default()
            };
            unit.is_masked = found.as_ref().is_some_and(|found| found.is_masked);
            unit.path = found.map(|found| found.path);
            load(&mut folders, &mut unit)?;
            for dependency in &unit.dependencies {
                if seen.len() < limits::MAX_UNITS && seen.insert(dependency.unit.clone()) {
                    queue.push_back(dependency.unit.clone());
                }
            }
            graph.units.insert(id, unit);
        }
        defaults::add(&mut graph);
        graph.notes.append(&mut folders.reader.notes);
        Ok(graph)
    }

    /// The unit of this name, or of another name for it.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Loaded> {
        self.units.get(self.names.get(name).map_or(name, String::as_str))
    }

    /// What other units ask of this one: each of them with what it asks.
    #[must_use]
    pub fn reverse(&self, name: &str) -> Vec<(&Loaded, &Dependency)> {
        let is_it = |dependency: &&Dependency| self.names.get(&dependency.unit).unwrap_or(&dependency.unit) == name;
        let units = self.units.values();
        units
            .flat_map(|unit| unit.dependencies.iter().filter(is_it).map(move |dependency| (unit, dependency)))
            .collect()
    }
}

/// Reads a unit's files, and what they and links ask of others.
fn load(folders: &mut Folders<'_>, unit: &mut Loaded) -> Result<()> {
    if unit.is_masked {
        return Ok(());
    }
    let owners = owners(unit);
    unit.drop_ins = folders.drop_ins(&owners)?;
    let files: Vec<String> = unit.path.iter().chain(&unit.drop_ins).cloned().collect();
    for path in files {
        let Some(text) = folders.reader.text(&path)? else { continue };
        let (settings, odd) = file::parse(&text);
        unit.settings.extend(settings.into_iter().map(|setting| (path.clone(), setting)));
        unit.odd_lines.extend(odd.into_iter().map(|(line, what)| (path.clone(), line, what)));
    }
    let mut found = BTreeSet::new();
    for (path, setting) in unit.settings.iter().filter(|(_, setting)| setting.section == "Unit") {
        let Some(kind) = kind_of(&setting.key) else { continue };
        // Quotes have no meaning in lists of units.
        let words = setting.value.split_whitespace().filter_map(|word| unit.expanded(word));
        for name in words.filter(|name| shape(name).is_some()) {
            let origin = Origin::File { path: path.clone(), line: setting.line };
            found.insert(Dependency { kind, unit: name, origin });
        }
    }
    for (kind, suffix) in
        [(DependencyKind::Wants, "wants"), (DependencyKind::Requires, "requires"), (DependencyKind::Upholds, "upholds")]
    {
        for (name, path) in links(folders, &owners, suffix)? {
            found.insert(Dependency { kind, unit: name, origin: Origin::Link { path } });
        }
    }
    for name in unit.list("Service", "Sockets").iter().flat_map(|value| value.split_whitespace()) {
        for kind in [DependencyKind::Wants, DependencyKind::After] {
            let Some(unit) = unit.expanded(name).filter(|name| shape(name).is_some()) else { continue };
            found.insert(Dependency { kind, unit, origin: Origin::Implied });
        }
    }
    let mut told = BTreeSet::new();
    unit.dependencies = found.into_iter().filter(|one| told.insert((one.kind, one.unit.clone()))).collect();
    if let Some(triggered) = unit.triggers().filter(|name| matches!(shape(name), Some(Shape::Plain | Shape::Instance)))
    {
        for kind in [DependencyKind::Triggers, DependencyKind::Before] {
            unit.dependencies.push(Dependency { kind, unit: triggered.clone(), origin: Origin::Implied });
        }
    }
    Ok(())
}

/// Old names of keys are known too.
fn kind_of(key: &str) -> Option<DependencyKind> {
    let key = match key {
        "BindTo" => "BindsTo",
        "RequiresOverridable" => "Requires",
        "RequisiteOverridable" => "Requisite",
        key => key,
    };
    DependencyKind::ALL.iter().find(|(name, _)| *name == key).map(|(_, kind)| *kind)
}

/// The names whose folders of drop-ins and links are a unit's: its own, its template's, shorter ones (`a-.service` of
/// `a-b.service`), those of its other names, and that of its kind.
fn owners(unit: &Loaded) -> Vec<String> {
    let mut owners = Vec::new();
    for name in [&unit.name].into_iter().chain(&unit.aliases) {
        owners.push(name.clone());
        owners.extend(template(name));
        let Some((stem, suffix)) = name.rsplit_once('.') else { continue };
        let mut stem = stem.split_once('@').map_or(stem, |(prefix, _)| prefix);
        while let Some((shorter, _)) = stem.rsplit_once('-').filter(|(shorter, _)| !shorter.is_empty()) {
            owners.push(format!("{shorter}-.{suffix}"));
            stem = shorter;
        }
    }
    owners.push(unit.suffix().to_owned());
    owners
}

/// What links in such folders name, each with the link. One that leads to `/dev/null` takes back those behind it.
fn links(folders: &Folders<'_>, owners: &[String], suffix: &str) -> Result<Vec<(String, String)>> {
    let mut links: BTreeMap<String, String> = BTreeMap::new();
    for folder in &folders.folders {
        for owned in owners.iter().map(|owner| format!("{owner}.{suffix}")) {
            for name in folder.wants.get(&owned).into_iter().flatten().filter(|name| shape(name).is_some()) {
                links.entry(name.clone()).or_insert_with(|| format!("{}/{owned}/{name}", folder.path));
            }
        }
    }
    let mut found = Vec::new();
    for (name, path) in links {
        let target = folders.reader.tree.read_link(&path)?.unwrap_or_default();
        if !leads_to_null(folders.reader.tree, &path, &String::from_utf8_lossy(&target))? {
            found.push((name, path));
        }
    }
    Ok(found)
}
