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
    use std::ops::{ControlFlow, Range};

    use super::*;
    use crate::fs::{DirEntry, FilesystemMut, FsFacts, Inode, MemoryFs, Stat, Subvolume};

    /// A file system whose top level is empty, with a root in one of many subvolumes.
    #[derive(Debug)]
    struct Parts {
        top: MemoryFs,
        paths: Vec<Vec<u8>>,
    }

    #[rustfmt::skip]
    impl Filesystem for Parts {
        fn facts(&self) -> &FsFacts { self.top.facts() }
        fn root(&self) -> Inode { self.top.root() }
        fn lookup(&self, dir: Inode, name: &[u8]) -> Result<Option<Inode>> { self.top.lookup(dir, name) }
        fn stat(&self, inode: Inode) -> Result<Stat> { self.top.stat(inode) }
        fn read_at(&self, inode: Inode, buf: &mut [u8], offset: u64) -> Result<usize> { self.top.read_at(inode, buf, offset) }
        fn read_dir(&self, _: Inode, _: u64, _: &mut dyn FnMut(DirEntry) -> ControlFlow<()>) -> Result<()> { Ok(()) }
        fn read_link(&self, inode: Inode) -> Result<Vec<u8>> { self.top.read_link(inode) }
        fn xattrs(&self, inode: Inode) -> Result<Vec<(Vec<u8>, Vec<u8>)>> { self.top.xattrs(inode) }
        fn free_ranges(&self, _: &mut dyn FnMut(Range<u64>) -> ControlFlow<()>) -> Result<()> { Ok(()) }
        fn writer(&self) -> Result<&dyn FilesystemMut> { self.top.writer() }

        fn subvolumes(&self) -> Result<Vec<Subvolume>> {
            let volume = |(path, id): (&Vec<u8>, u64)| Subvolume {
                id, path: Some(path.clone()), parent: 5, uuid: None, parent_uuid: None, read_only: false, generation: 1,
            };
            Ok(self.paths.iter().zip(256..).map(volume).collect())
        }

        fn subvolume(&self, name: &SubvolumeName) -> Result<Option<Arc<dyn Filesystem>>> {
            let SubvolumeName::Path(path) = name else { return Ok(None) };
            let part = MemoryFs::default();
            if Some(path) == self.paths.last() {
                part.add_dir("/bin").unwrap();
                let fstab = format!("UUID=x / btrfs subvol={}\n", String::from_utf8_lossy(path));
                part.add_file("/etc/fstab", fstab).unwrap();
            }
            Ok(if self.paths.contains(path) { Some(Arc::new(part)) } else { None })
        }
    }

    #[test]
    fn as_many_subvolumes_are_looked_at_as_the_limit_and_no_more() {
        let others = limits::MAX_ROOT_SUBVOLUMES - USUAL.len();
        for (count, found) in [(others - 1, true), (others, true), (others + 1, false)] {
            let paths = (0..count).map(|index| format!("snapshot-{index}").into_bytes()).collect();
            let fs: Arc<dyn Filesystem> = Arc::new(Parts { top: MemoryFs::default(), paths });
            assert_eq!(root_of(&fs).unwrap().is_some(), found, "{count}");
        }
    }

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
