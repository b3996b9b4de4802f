//! The hives of a Windows: where they are, and opening them with their logs.

use serde::Serialize;

use crate::error::Result;
use crate::fs::Tree;
use crate::fs::tree::Found;
use crate::hive::{Bytes, Hive, State};
use crate::inspect::machine::Machine;
use crate::inspect::roots::Root;

/// A hive that was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HiveFile {
    /// Its path.
    pub path: String,
    /// `clean`, `recovered` by its logs, or `dirty` where they did not fit.
    pub state: &'static str,
}

impl HiveFile {
    pub(super) fn of(path: &str, hive: &Hive) -> Self {
        Self { path: path.to_owned(), state: state_name(hive.facts().state) }
    }
}

/// What the state of a hive is called.
#[must_use]
pub const fn state_name(state: State) -> &'static str {
    match state {
        State::Clean => "clean",
        State::Recovered { .. } => "recovered",
        State::Dirty => "dirty",
    }
}

/// The hive at `path`, with the logs that lie beside it; `None` when `path` leads to no regular file.
pub fn open_hive(tree: &Tree, path: &str) -> Result<Option<Hive>> {
    let Some(file) = tree.open(path)? else { return Ok(None) };
    let mut logs: Vec<Box<dyn Bytes>> = Vec::new();
    for suffix in [".LOG1", ".LOG2", ".LOG"] {
        if let Some(path) = resolve(tree, &format!("{path}{suffix}"))?
            && let Some(log) = tree.open(path)?
        {
            logs.push(Box::new(log));
        }
    }
    Hive::open(Box::new(file), logs).map(Some).map_err(|error| error.at(path))
}

/// What `path` is spelled like in the guest, where names are the same whatever their case; `None` when it leads to nothing.
pub fn resolve(tree: &Tree, path: &str) -> Result<Option<String>> {
    let Some(mut at) = tree.find("/")? else { return Ok(None) };
    let mut spelled = String::new();
    for name in path.split(['/', '\\']).filter(|name| !name.is_empty()) {
        let Some((next, found)) = child(tree, &at, &spelled, name)? else { return Ok(None) };
        (spelled, at) = (next, found);
    }
    Ok(Some(if spelled.is_empty() { "/".to_owned() } else { spelled }))
}

fn child(tree: &Tree, dir: &Found, at: &str, name: &str) -> Result<Option<(String, Found)>> {
    // A file system that knows no case spells the name its own way, which only a listing tells; here it does not matter.
    let exact = format!("{at}/{name}");
    if let Some(found) = tree.find(&exact)? {
        return Ok(Some((exact, found)));
    }
    if knows_no_case(tree) || dir.stat.kind != crate::fs::FileKind::Directory {
        return Ok(None);
    }
    for entry in tree.list(if at.is_empty() { "/" } else { at })? {
        if let Some(text) = entry.text().filter(|text| text.eq_ignore_ascii_case(name)) {
            let path = format!("{at}/{text}");
            return Ok(tree.find(&path)?.map(|found| (path, found)));
        }
    }
    Ok(None)
}

/// Whether the root's file system finds names whatever their case.
fn knows_no_case(tree: &Tree) -> bool {
    tree.mounts().next().is_some_and(|(_, fs)| matches!(fs.facts().kind, "ntfs" | "vfat" | "exfat"))
}

/// The hives of a Windows by name, with the volume (index in [`Machine::volumes`]) and path of each that is there: those of the
/// machine, `BCD`, and `NTUSER:NAME` and `USRCLASS:NAME` of each profile.
pub fn hives(machine: &Machine, root: &Root, system_root: &str) -> Result<Vec<(String, usize, String)>> {
    let (tree, volume) = (&root.tree, root.volume);
    let mut found = Vec::new();
    let mut add = |name: String, path: String| -> Result<()> {
        if let Some(path) = resolve(tree, &path)?
            && tree.is_file(&path)?
        {
            found.push((name, volume, path));
        }
        Ok(())
    };
    for name in ["SYSTEM", "SOFTWARE", "SAM", "SECURITY", "DEFAULT", "COMPONENTS", "DRIVERS", "ELAM", "BBI"] {
        add(name.to_owned(), format!("{system_root}/System32/config/{name}"))?;
    }
    add("AMCACHE".to_owned(), format!("{system_root}/AppCompat/Programs/Amcache.hve"))?;
    for profiles in ["/Users", "/Documents and Settings"] {
        let Some(dir) = resolve(tree, profiles)? else { continue };
        // A link of newer versions to where the profiles are.
        if tree.read_link(&dir)?.is_some() {
            continue;
        }
        for entry in tree.list(&dir)? {
            let Some(user) = entry.text().filter(|_| entry.kind == crate::fs::FileKind::Directory) else { continue };
            add(format!("NTUSER:{user}"), format!("{dir}/{user}/NTUSER.DAT"))?;
            add(format!("USRCLASS:{user}"), format!("{dir}/{user}/AppData/Local/Microsoft/Windows/UsrClass.dat"))?;
        }
    }
    found.extend(super::bcd::places(machine, volume)?.map(|(volume, path)| ("BCD".to_owned(), volume, path)));
    Ok(found)
}
