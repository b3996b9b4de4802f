//! Which file systems have a Windows, and where in them.

use std::sync::Arc;

use super::hives::resolve;
use crate::error::{Kind, Result};
use crate::fs::Tree;
use crate::inspect::machine::Machine;
use crate::inspect::roots::{Mount, Root};
use crate::limits;

/// An installed Windows.
#[derive(Debug)]
pub struct WindowsRoot {
    /// Its volume, mounted by itself.
    pub root: Root,
    /// The directory that it is installed in, as it is spelled there: `/Windows`.
    pub system_root: String,
}

/// Directories that setup programs have used.
const NAMES: &[&str] = &["Windows", "WINNT", "WIN32", "WIN", "ReactOS"];

/// Lines of a `boot.ini` that are looked at.
const MOST_LINES: usize = 64;

/// The installed Windows of a machine, in volume order: directories with the hives `SYSTEM` and `SOFTWARE`, of the usual names or
/// of those that a `boot.ini` gives.
///
/// # Errors
/// Where a file system cannot be read because the source cannot; one that is damaged has no Windows.
pub fn find_windows(machine: &Machine) -> Result<Vec<WindowsRoot>> {
    let mut found = Vec::new();
    for (index, volume) in machine.volumes.iter().enumerate() {
        let Some(fs) = &volume.fs else { continue };
        if !matches!(fs.facts().kind, "ntfs" | "vfat" | "exfat" | "btrfs") {
            continue;
        }
        let tree = Tree::new(Arc::clone(fs));
        let roots = match roots_of(&tree) {
            Err(error) if matches!(error.kind(), Kind::Corrupt | Kind::Limit | Kind::Unsupported) => continue,
            other => other?,
        };
        for system_root in roots {
            let mounts = vec![Mount { at: "/".to_owned(), volume: index, subvolume: None }];
            let root = Root { volume: index, tree: tree.clone(), mounts, unmounted: Vec::new() };
            found.push(WindowsRoot { root, system_root });
        }
    }
    Ok(found)
}

fn roots_of(tree: &Tree) -> Result<Vec<String>> {
    let mut names: Vec<String> = NAMES.iter().map(|name| (*name).to_owned()).collect();
    if let Some(path) = resolve(tree, "/boot.ini")? {
        let text = tree.read(path, limits::MAX_GUEST_CONFIG)?.unwrap_or_default();
        names.extend(boot_ini(&String::from_utf8_lossy(&text)));
    }
    let mut found: Vec<String> = Vec::new();
    for name in names {
        let Some(path) = resolve(tree, &format!("/{name}"))? else { continue };
        if !found.contains(&path) && is_root(tree, &path)? {
            found.push(path);
        }
    }
    Ok(found)
}

fn is_root(tree: &Tree, path: &str) -> Result<bool> {
    for hive in ["SYSTEM", "SOFTWARE"] {
        match resolve(tree, &format!("{path}/System32/config/{hive}"))? {
            Some(path) if tree.is_file(&path)? => {}
            _ => return Ok(false),
        }
    }
    Ok(true)
}

/// The directories that a `boot.ini` gives: `multi(0)disk(0)rdisk(0)partition(1)\WINNT="…"`.
fn boot_ini(text: &str) -> Vec<String> {
    let path = |line: &str| {
        let (place, _) = line.split_once('=')?;
        let (_, path) = place.split_once(")\\")?;
        let path = path.trim().replace('\\', "/");
        (!path.is_empty() && path.split('/').all(|name| name != "..")).then_some(path)
    };
    text.lines().take(MOST_LINES).filter_map(path).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn boot_ini_names_directories() {
        let text = "[boot loader]\ntimeout=30\ndefault=multi(0)disk(0)rdisk(0)partition(1)\\WINNT\n[operating systems]\n\
            multi(0)disk(0)rdisk(0)partition(1)\\WINNT=\"Windows 2000\" /fastdetect\nC:\\CMDCONS=\"x\"\n\
            multi(0)disk(0)rdisk(0)partition(2)\\a\\..\\b=\"x\"\nmulti(0)disk(0)rdisk(0)partition(2)\\sys\\win=\"y\"\n";
        assert_eq!(super::boot_ini(text), ["WINNT", "sys/win"]);
    }
}
