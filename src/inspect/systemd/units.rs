//! Which units are installed, and whether they are enabled: what `systemctl --root=DIR list-unit-files` tells, by the same links.
//!
//! Generators are programs and do not run here, so what they would make of fstab, crypttab or the kernel command line is not listed.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::install::Install;
use super::names::{self, Shape, instance, same_kind, shape, template, with_instance};
use super::preset::{Preset, Presets};
use crate::error::Result;
use crate::fs::{FileKind, Tree};
use crate::inspect::Reader;
use crate::limits;

/// Whose units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// The system's.
    #[default]
    System,
    /// Those that every user's own manager has (`systemctl --global`), without what users have in their homes.
    User,
}

impl Scope {
    /// Where units are, the first of them first. Those of a running system only are left out.
    pub(super) const fn folders(self) -> &'static [&'static str] {
        match self {
            Self::System => &[
                "/etc/systemd/system.control",
                "/run/systemd/system.control",
                "/etc/systemd/system",
                "/etc/systemd/system.attached",
                "/run/systemd/system",
                "/run/systemd/system.attached",
                "/usr/local/lib/systemd/system",
                "/lib/systemd/system",
                "/usr/lib/systemd/system",
            ],
            Self::User => &[
                "/etc/systemd/user",
                "/run/systemd/user",
                "/usr/local/share/systemd/user",
                "/usr/share/systemd/user",
                "/usr/local/lib/systemd/user",
                "/usr/lib/systemd/user",
            ],
        }
    }

    /// Where the administrator's links are.
    const fn config(self) -> &'static str {
        match self {
            Self::System => "/etc/systemd/system",
            Self::User => "/etc/systemd/user",
        }
    }
}

/// Whether a unit is started by itself (`systemctl is-enabled`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum UnitState {
    /// Links say so.
    Enabled,
    /// The same until the next start.
    EnabledRuntime,
    /// The unit is elsewhere, and linked here.
    Linked,
    /// The same until the next start.
    LinkedRuntime,
    /// Another name for a unit.
    Alias,
    /// It cannot be started.
    Masked,
    /// The same until the next start.
    MaskedRuntime,
    /// It cannot be enabled, and is started by others.
    Static,
    /// It can be enabled, and is not.
    Disabled,
    /// Others that belong to it can be enabled, or it is enabled by another name.
    Indirect,
    /// It cannot be made sense of.
    Bad,
}

impl UnitState {
    /// The word that `systemctl` uses.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::EnabledRuntime => "enabled-runtime",
            Self::Linked => "linked",
            Self::LinkedRuntime => "linked-runtime",
            Self::Alias => "alias",
            Self::Masked => "masked",
            Self::MaskedRuntime => "masked-runtime",
            Self::Static => "static",
            Self::Disabled => "disabled",
            Self::Indirect => "indirect",
            Self::Bad => "bad",
        }
    }
}

/// A unit that has a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Unit {
    /// Its name.
    pub name: String,
    /// Its file, or the link that stands for it.
    pub path: String,
    /// Whether it is started by itself.
    pub state: UnitState,
    /// What the distribution would do; `None` where that makes no sense.
    pub preset: Option<Preset>,
}

/// All installed units of the system.
#[derive(Clone, Debug, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Units {
    /// By kind and name.
    pub units: Vec<Unit>,
    /// The target that is reached at start, where it is known.
    pub default_target: Option<String>,
    /// What could not be read, and why.
    pub notes: Vec<String>,
}

impl Units {
    /// Reads those of the system.
    pub fn read(tree: &Tree) -> Result<Self> {
        Self::read_scope(tree, Scope::System)
    }

    /// Reads those of the system, or of its users.
    pub fn read_scope(tree: &Tree, scope: Scope) -> Result<Self> {
        let mut folders = Folders::read(tree, scope)?;
        let presets = Presets::read(&mut folders.reader, scope)?;
        let mut units = Vec::new();
        for (name, folder) in folders.names() {
            let state = folders.state(&name)?;
            let is_settled = matches!(state, UnitState::Alias | UnitState::Static);
            let preset = (!is_settled).then(|| presets.of(&name));
            units.push(Unit { path: format!("{folder}/{name}"), name, state, preset });
        }
        let suffix = |unit: &Unit| unit.name.rsplit('.').next().unwrap_or_default().to_owned();
        units.sort_by_cached_key(|unit| (suffix(unit), unit.name.to_ascii_lowercase(), unit.name.clone()));
        let default_target = folders.discover("default.target")?.map(|found| found.name);
        Ok(Self { units, default_target, notes: folders.reader.notes })
    }
}

/// One entry of a folder of units.
#[derive(Clone, Debug)]
pub(super) enum Item {
    File,
    /// With where it leads, as it is written.
    Link(String),
}

/// What lies in one folder.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) path: &'static str,
    pub(super) items: BTreeMap<String, Item>,
    /// Links by the last name of what they lead to.
    by_target: BTreeMap<String, Vec<String>>,
    /// Links in `.wants`, `.requires` and `.upholds` folders.
    wanted: BTreeSet<String>,
    /// The same links by their folder.
    pub(super) wants: BTreeMap<String, Vec<String>>,
    /// Folders of drop-ins.
    pub(super) drop_ins: BTreeSet<String>,
}

/// A unit's file at the end of all links.
#[derive(Debug)]
pub(super) struct Discovered {
    pub(super) name: String,
    pub(super) path: String,
    pub(super) is_masked: bool,
    install: Install,
}

pub(super) struct Folders<'a> {
    pub(super) reader: Reader<'a>,
    scope: Scope,
    pub(super) folders: Vec<Folder>,
}

impl<'a> Folders<'a> {
    pub(super) fn read(tree: &'a Tree, scope: Scope) -> Result<Self> {
        let mut all = Self { reader: Reader { tree, notes: Vec::new() }, scope, folders: Vec::new() };
        let mut count = 0_usize;
        for path in scope.folders().iter().copied() {
            let mut folder = Folder {
                path,
                items: BTreeMap::new(),
                by_target: BTreeMap::new(),
                wanted: BTreeSet::new(),
                wants: BTreeMap::new(),
                drop_ins: BTreeSet::new(),
            };
            for listed in tree.list(path)? {
                let Some(name) = listed.text() else { continue };
                count = count.saturating_add(1);
                if count > limits::MAX_UNITS {
                    all.reader.notes.push(format!("only the first {} units are looked at", limits::MAX_UNITS));
                    break;
                }
                match listed.kind {
                    FileKind::Directory if is_wanting(name) => {
                        let links = links(tree, path, name)?;
                        folder.wanted.extend(links.iter().cloned());
                        folder.wants.insert(name.to_owned(), links);
                    }
                    FileKind::Directory => drop(folder.drop_ins.insert(name.to_owned())),
                    FileKind::Regular => drop(folder.items.insert(name.to_owned(), Item::File)),
                    FileKind::Symlink => {
                        let target = tree.read_link(format!("{path}/{name}"))?.unwrap_or_default();
                        let target = String::from_utf8_lossy(&target).into_owned();
                        let base = target.rsplit('/').next().unwrap_or_default().to_owned();
                        folder.by_target.entry(base).or_default().push(name.to_owned());
                        folder.items.insert(name.to_owned(), Item::Link(target));
                    }
                    _ => {}
                }
            }
            all.folders.push(folder);
        }
        Ok(all)
    }

    /// Every unit with the first folder that has it.
    pub(super) fn names(&self) -> BTreeMap<String, &'static str> {
        let mut names = BTreeMap::new();
        for folder in &self.folders {
            for name in folder.items.keys().filter(|name| shape(name).is_some()) {
                names.entry(name.clone()).or_insert(folder.path);
            }
        }
        names
    }

    fn state(&mut self, name: &str) -> Result<UnitState> {
        let Some(found) = self.discover(name)? else { return Ok(UnitState::Bad) };
        if found.is_masked {
            let runtime = found.path.starts_with("/run/");
            return Ok(if runtime { UnitState::MaskedRuntime } else { UnitState::Masked });
        }
        if found.name != name {
            return Ok(UnitState::Alias);
        }
        if let Some(state) = self.linked(&found, true) {
            return Ok(state);
        }
        if self.linked(&found, false).is_some() {
            return Ok(UnitState::Indirect);
        }
        Ok(match &found.install {
            install if install.has_rules() => UnitState::Disabled,
            install if !install.also.is_empty() => UnitState::Indirect,
            _ => UnitState::Static,
        })
    }

    /// What the links in all folders say. With `known`, only links count that enabling the unit would make.
    fn linked(&self, unit: &Discovered, known: bool) -> Option<UnitState> {
        let (mut runtime, mut somewhere, mut same_config, mut same_runtime) = (false, false, false, false);
        // A link of the unit's own name in a folder behind its file has no effect.
        let mut is_behind = false;
        for folder in &self.folders {
            let is_run = folder.path.starts_with("/run/");
            let (is_linked, is_same) = folder.links_to(unit, known, is_behind);
            if is_linked {
                match folder.path {
                    path if path == self.scope.config() => return Some(UnitState::Enabled),
                    _ if is_run => runtime = true,
                    _ => somewhere = true,
                }
            } else if is_same {
                same_config |= folder.path == self.scope.config();
                same_runtime |= is_run;
            }
            let inside = unit.path.strip_prefix(folder.path).is_some_and(|rest| rest.starts_with('/'));
            is_behind |= inside;
        }
        if runtime {
            Some(UnitState::EnabledRuntime)
        } else if somewhere && shape(&unit.name) == Some(Shape::Instance) {
            Some(UnitState::Static)
        } else if same_config {
            Some(UnitState::Linked)
        } else if same_runtime {
            Some(UnitState::LinkedRuntime)
        } else {
            None
        }
    }

    /// The file that a unit's name leads to; `None` for what leads nowhere, or to a unit of another kind.
    pub(super) fn discover(&mut self, name: &str) -> Result<Option<Discovered>> {
        let mut name = name.to_owned();
        for _ in 0..limits::MAX_UNIT_LINKS {
            let Some((path, item)) = self.search(&name) else { return Ok(None) };
            let Some(end) = self.chase(&path, &item)? else { return Ok(None) };
            match end {
                End::Masked => {
                    return Ok(Some(Discovered { name, path, is_masked: true, install: Install::default() }));
                }
                End::File(file) => {
                    let (folder, base) = file.rsplit_once('/').unwrap_or_default();
                    let is_linked = matches!(item, Item::Link(_));
                    let is_inside = self.scope.folders().contains(&folder);
                    // A link to a unit of the same name where units are anyway leads to itself.
                    if is_linked && is_inside && base == name {
                        return Ok(None);
                    }
                    let base = base.to_owned();
                    let is_own = base == name
                        || !is_linked
                        || instance(&name).and_then(|i| with_instance(&base, i)).is_some_and(|own| own == name);
                    if is_own {
                        let install = self.install(&name, &file)?;
                        return Ok(Some(Discovered { path: file, name, is_masked: false, install }));
                    }
                    let Some(next) = renamed(&name, &base) else { return Ok(None) };
                    if !is_inside {
                        let install = Install::default();
                        return Ok(Some(Discovered { path: file, name: next, is_masked: false, install }));
                    }
                    name = next;
                }
                End::Name(base) => {
                    let Some(next) = renamed(&name, &base).filter(|next| *next != name) else { return Ok(None) };
                    name = next;
                }
            }
        }
        Ok(None)
    }

    /// The first file or link of that name, or of its template.
    fn search(&self, name: &str) -> Option<(String, Item)> {
        let find = |name: &str| {
            let mut hits = self.folders.iter().filter_map(|folder| Some((folder.path, folder.items.get(name)?)));
            hits.next().map(|(folder, item)| (format!("{folder}/{name}"), item.clone()))
        };
        find(name).or_else(|| {
            let is_instance = shape(name) == Some(Shape::Instance);
            is_instance.then(|| template(name)).flatten().and_then(|template| find(&template))
        })
    }

    /// Follows an item to its end.
    fn chase(&self, path: &str, item: &Item) -> Result<Option<End>> {
        let tree = self.reader.tree;
        if let Item::Link(target) = item {
            if leads_to_null(tree, path, target)? {
                return Ok(Some(End::Masked));
            }
            let target = absolute(path, target);
            let (folder, base) = target.rsplit_once('/').unwrap_or_default();
            if self.scope.folders().contains(&folder) && tree.find(path)?.is_none() {
                return Ok(Some(End::Name(base.to_owned())));
            }
        }
        let Some(found) = tree.find(path)?.filter(|found| found.stat.kind == FileKind::Regular) else {
            return Ok(None);
        };
        if found.stat.size == 0 {
            return Ok(Some(End::Masked));
        }
        // A file keeps the folder that it was found in; what a link leads to is where it really is.
        let text = if matches!(item, Item::File) { Some(path) } else { found.text() };
        Ok(text.map(|text| End::File(text.to_owned())))
    }

    /// The `[Install]` sections of a unit's file and its drop-ins.
    fn install(&mut self, name: &str, file: &str) -> Result<Install> {
        let mut install = Install::default();
        if let Some(text) = self.reader.text(file)? {
            install.add(&text);
        }
        let owners: Vec<String> = [Some(name.to_owned()), names::template(name)].into_iter().flatten().collect();
        for path in self.drop_ins(&owners)? {
            if let Some(text) = self.reader.text(&path)? {
                install.add(&text);
            }
        }
        Ok(install)
    }

    /// The drop-ins of some names, in the order in which they count: a file hides those of its name in later folders.
    pub(super) fn drop_ins(&mut self, owners: &[String]) -> Result<Vec<String>> {
        let mut drop_ins: BTreeMap<String, String> = BTreeMap::new();
        for folder in &self.folders {
            for owned in owners.iter().map(|owner| format!("{owner}.d")).filter(|owned| folder.drop_ins.contains(owned))
            {
                for path in self.reader.files(&format!("{}/{owned}", folder.path), ".conf")? {
                    let base = path.rsplit('/').next().unwrap_or_default().to_owned();
                    drop_ins.entry(base).or_insert(path);
                }
            }
        }
        Ok(drop_ins.into_values().collect())
    }
}

/// Where an item leads.
enum End {
    Masked,
    File(String),
    /// To a place where units are, but not this one; it may be in another such folder.
    Name(String),
}

/// The unit that a link of this name to that file stands for.
fn renamed(name: &str, base: &str) -> Option<String> {
    let fits = match shape(name)? {
        Shape::Plain => shape(base) == Some(Shape::Plain),
        Shape::Instance => matches!(shape(base), Some(Shape::Instance | Shape::Template)),
        Shape::Template => shape(base) == Some(Shape::Template),
    };
    if !fits || !same_kind(name, base) {
        return None;
    }
    match (shape(name), shape(base)) {
        (Some(Shape::Instance), Some(Shape::Template)) => with_instance(base, instance(name)?),
        _ => Some(base.to_owned()),
    }
}

pub(super) fn leads_to_null(tree: &Tree, path: &str, target: &str) -> Result<bool> {
    let (mut path, mut target) = (path.to_owned(), target.to_owned());
    for _ in 0..limits::MAX_UNIT_LINKS {
        path = absolute(&path, &target);
        if path == "/dev/null" {
            return Ok(true);
        }
        match tree.read_link(&path)? {
            Some(next) => target = String::from_utf8_lossy(&next).into_owned(),
            None => return Ok(false),
        }
    }
    Ok(false)
}

/// The path that the link `path` has as its target, without `.` and `..`.
pub(super) fn absolute(path: &str, target: &str) -> String {
    let folder = if target.starts_with('/') { "" } else { path.rsplit_once('/').map_or("", |(folder, _)| folder) };
    let mut parts = Vec::new();
    for part in folder.split('/').chain(target.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

fn is_wanting(name: &str) -> bool {
    [".wants", ".requires", ".upholds"].iter().any(|suffix| name.ends_with(suffix))
}

fn links(tree: &Tree, path: &str, name: &str) -> Result<Vec<String>> {
    let listed = tree.list(format!("{path}/{name}"))?;
    let links = listed.iter().filter(|listed| listed.kind == FileKind::Symlink).filter_map(|listed| listed.text());
    Ok(links.map(str::to_owned).take(limits::MAX_UNITS).collect())
}

impl Folder {
    /// Whether a link here enables the unit, and whether one is here that only has its name.
    fn links_to(&self, unit: &Discovered, known: bool, is_behind: bool) -> (bool, bool) {
        let name = &unit.name;
        let counts = |link: &str| !known || unit.install.makes(name, link);
        if (!is_behind && self.wanted.contains(name) && counts(name)) || self.instances(name).any(|link| counts(link)) {
            return (true, false);
        }
        let leads_here = self.by_target.get(name).map(Vec::as_slice).unwrap_or_default();
        let has_name = !is_behind && matches!(self.items.get(name), Some(Item::Link(_)));
        let is_same = has_name && leads_here.contains(name);
        let by_name = has_name && !is_same && counts(name);
        let by_target = leads_here.iter().any(|link| !(is_same && link == name) && counts(link));
        (by_name || by_target, is_same)
    }

    /// Wanted instances of a template.
    fn instances<'f>(&'f self, name: &'f str) -> impl Iterator<Item = &'f String> {
        let prefix = name.split_once('@').filter(|_| shape(name) == Some(Shape::Template)).map(|(prefix, _)| prefix);
        let start = prefix.map(|prefix| format!("{prefix}@"));
        let from = start.clone();
        let links = from.into_iter().flat_map(|from| self.wanted.range(from..));
        links
            .take_while(move |link| start.as_ref().is_some_and(|start| link.starts_with(start)))
            .filter(move |link| template(link).as_deref() == Some(name))
    }
}
