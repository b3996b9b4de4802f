//! Which subvolume of a file system is the root of an installed system, and which one a line of fstab mounts.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::sync::Arc;

use super::fstab::{self, Entry};
use super::roots::is_root;
use crate::error::{Kind, Result};
use crate::fs::{Filesystem, SubvolumeName, Tree};
use crate::limits;

/// What installers call the subvolume of the root: Ubuntu, openSUSE and Arch; Debian; Fedora.
const USUAL: &[&[u8]] = &[b"@", b"@rootfs", b"root"];

/// The tree of an installed system's root on `fs`: of what is mounted when nothing is said, of the subvolume that its own fstab
/// names as the root, or of one with a usual name.
pub(super) fn root_of(fs: &Arc<dyn Filesystem>) -> Result<Option<Tree>> {
    let tree = Tree::new(Arc::clone(fs));
    if is_root(&tree)? {
        return Ok(Some(match named_root(&tree)? {
            Some(name) => open_root(fs, &name)?.unwrap_or(tree),
            None => tree,
        }));
    }
    let mut paths: Vec<Vec<u8>> = USUAL.iter().map(|path| path.to_vec()).collect();
    let others = fs.subvolumes()?.into_iter().filter_map(|volume| volume.path);
    paths.extend(others.filter(|path| !path.is_empty() && !USUAL.contains(&path.as_slice())));
    paths.truncate(limits::MAX_ROOT_SUBVOLUMES);
    let mut usual = None;
    for path in paths {
        let name = SubvolumeName::Path(path.clone());
        let Some(tree) = open_root(fs, &name)? else { continue };
        // A snapshot of the root has an fstab too, which names the root.
        if named_root(&tree)?.is_some_and(|named| is_same(&named, &path)) {
            return Ok(Some(tree));
        }
        if USUAL.contains(&path.as_slice()) {
            usual.get_or_insert(tree);
        }
    }
    Ok(usual)
}

fn open_root(fs: &Arc<dyn Filesystem>, name: &SubvolumeName) -> Result<Option<Tree>> {
    let Some(tree) = fs.subvolume(name)?.map(Tree::new) else { return Ok(None) };
    Ok(is_root(&tree)?.then_some(tree))
}

/// The subvolume that a system's own fstab names as its root.
fn named_root(tree: &Tree) -> Result<Option<SubvolumeName>> {
    let text = match tree.read("/etc/fstab", limits::MAX_GUEST_CONFIG) {
        Err(error) if error.kind() == Kind::Limit => None,
        other => other?,
    };
    let entries = fstab::parse(&String::from_utf8_lossy(&text.unwrap_or_default()));
    Ok(entries.iter().find(|entry| entry.mount_point == "/").and_then(wanted))
}

fn is_same(name: &SubvolumeName, path: &[u8]) -> bool {
    matches!(name, SubvolumeName::Path(named) if named.strip_prefix(b"/").unwrap_or(named) == path)
}

/// The subvolume that the options of a line name; the last one counts.
pub(super) fn wanted(entry: &Entry) -> Option<SubvolumeName> {
    let mut wanted = None;
    for option in entry.options.split(',') {
        match option.split_once('=') {
            Some(("subvol", path)) => wanted = Some(SubvolumeName::Path(path.as_bytes().to_vec())),
            Some(("subvolid", id)) => wanted = Some(SubvolumeName::Id(number(id)?)),
            _ => {}
        }
    }
    wanted
}

/// A number as the kernel reads it: hexadecimal and octal too.
fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None if text.len() > 1 && text.starts_with('0') => u64::from_str_radix(text, 8).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(options: &str) -> Option<SubvolumeName> {
        wanted(&fstab::entry(&format!("UUID=x / btrfs {options} 0 0"), 1).unwrap())
    }

    #[test]
    fn options_name_subvolumes() {
        let path = |path: &str| Some(SubvolumeName::Path(path.into()));
        assert_eq!(of("defaults"), None);
        assert_eq!(of("rw,subvol=@,compress=zstd"), path("@"));
        assert_eq!(of("subvol=/@/var"), path("/@/var"));
        assert_eq!(of("subvolid=257,subvol=@"), path("@"));
        assert_eq!(of("subvol=@,subvolid=257"), Some(SubvolumeName::Id(257)));
        assert_eq!(of("subvolid=0x101"), Some(SubvolumeName::Id(257)));
        assert_eq!(of("subvolid=0401"), Some(SubvolumeName::Id(257)));
        assert_eq!(of("subvolid=x"), None);
        assert!(is_same(&SubvolumeName::Path(b"/@".to_vec()), b"@"));
        assert!(!is_same(&SubvolumeName::Path(b"@home".to_vec()), b"@") && !is_same(&SubvolumeName::Id(5), b"@"));
    }
}
