//! Subvolumes and snapshots: the trees that hold files, and how they hang together.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::checksum::name_hash;
use super::dir::{self, Target};
use super::key::{Key, id, is_subvolume, kind};
use super::superblock::{MAX_LEVEL, Place};
use super::tree::{Store, Tree};
use super::{Core, corrupt};
use crate::disk::bytes::{array, le16, le32, le64, u8_at};
use crate::error::{Error, Result};
use crate::fs::Subvolume;
use crate::limits;

/// A subvolume's tree and what its item says (`btrfs_root_item`).
#[derive(Clone, Debug)]
pub(super) struct Volume {
    pub(super) tree: Tree,
    flags: u64,
    refs: u32,
    uuid: [u8; 16],
    parent_uuid: [u8; 16],
    pub(super) directory: u64,
}

/// `BTRFS_ROOT_SUBVOL_RDONLY`.
const READ_ONLY: u64 = 1;

impl Volume {
    /// Checks the item of tree `id`.
    pub(super) fn parse(id: u64, bytes: &[u8]) -> Result<Self> {
        // What came first has no UUIDs.
        if bytes.len() < 239 {
            return Err(corrupt(format!("the item of tree {id} is too short")).found(bytes.len()));
        }
        let place = Place { bytenr: le64(bytes, 176), level: u8_at(bytes, 238), generation: le64(bytes, 160) };
        if place.level >= MAX_LEVEL || place.bytenr == 0 {
            return Err(corrupt(format!("tree {id} is at an impossible place")));
        }
        // An old kernel writes the front only; what is behind is of no worth then (`generation_v2`).
        let rest = if le64(bytes, 239) == place.generation { bytes } else { &[] };
        Ok(Self {
            tree: Tree::new(id, place),
            flags: le64(bytes, 208),
            refs: le32(bytes, 216),
            uuid: array(rest, 247),
            parent_uuid: array(rest, 263),
            directory: id::FIRST_FREE,
        })
    }
}

impl Volume {
    pub(super) const fn is_read_only(&self) -> bool {
        self.flags & READ_ONLY != 0
    }
}

impl Store {
    /// The tree of the root tree.
    pub(super) fn root_tree(&self) -> Tree {
        Tree::new(id::ROOT_TREE, self.sb.root)
    }

    /// The tree `id` that is no subvolume; `None` when there is none.
    pub(super) fn find_tree(&self, id: u64) -> Result<Option<Tree>> {
        let mut found = None;
        self.scan_kind(&self.root_tree(), (id, kind::ROOT_ITEM, 0), &mut |_, item| {
            found = Some(Volume::parse(id, item)?.tree);
            Ok(ControlFlow::Break(()))
        })?;
        Ok(found)
    }

    /// All subvolumes in the root tree that are not being removed.
    pub(super) fn volumes(&self, roots: &Tree) -> Result<BTreeMap<u64, Volume>> {
        let mut volumes = BTreeMap::new();
        let mut from = Some(Key::new(id::FS_TREE, kind::ROOT_ITEM, 0));
        while let Some(key) = from {
            let Some((found, item)) = self.ceiling(roots, key)? else { break };
            from = if found.kind < kind::ROOT_ITEM {
                Some(Key::new(found.objectid, kind::ROOT_ITEM, 0))
            } else {
                found.objectid.checked_add(1).map(|next| Key::new(next, kind::ROOT_ITEM, 0))
            };
            if found.kind != kind::ROOT_ITEM || !is_subvolume(found.objectid) {
                continue;
            }
            let volume = Volume::parse(found.objectid, &item)?;
            if volume.refs == 0 {
                continue;
            }
            if volumes.len() >= limits::MAX_BTRFS_SUBVOLUMES {
                return Err(Error::limit("btrfs.limit", "a file system with too many subvolumes")
                    .expected(format!("at most {}", limits::MAX_BTRFS_SUBVOLUMES)));
            }
            volumes.insert(found.objectid, volume);
        }
        Ok(volumes)
    }

    /// The number of the subvolume that is mounted when none is named.
    pub(super) fn default_volume(&self) -> Result<u64> {
        let key = Key::new(self.sb.root_dir_objectid, kind::DIR_ITEM, name_hash(b"default"));
        let item = self.get(&self.root_tree(), key)?.unwrap_or_default();
        let entries = dir::parse(&item)?;
        let entry = entries.iter().find(|entry| entry.name == b"default");
        Ok(entry.map_or(id::FS_TREE, |entry| entry.location.objectid))
    }

    /// Where subvolume `child` hangs: its parent, the directory there and its name.
    fn backref(&self, child: u64) -> Result<Option<(u64, u64, Vec<u8>)>> {
        let mut found = None;
        self.scan_kind(&self.root_tree(), (child, kind::ROOT_BACKREF, 0), &mut |parent, item| {
            found = reference(item).map(|(dir, name)| (parent, dir, name.to_vec()));
            Ok(ControlFlow::Break(()))
        })?;
        Ok(found)
    }

    /// Whether the entry `name` of directory `dir` in subvolume `parent` is where `child` hangs. That of a snapshot of the parent
    /// is not.
    pub(super) fn is_attached(&self, parent: u64, dir: u64, name: &[u8], child: u64) -> Result<bool> {
        let item = self.get(&self.root_tree(), Key::new(parent, kind::ROOT_REF, child))?;
        Ok(item.is_some_and(|item| reference(&item) == Some((dir, name))))
    }
}

/// A `btrfs_root_ref`: the directory and the name in it.
fn reference(item: &[u8]) -> Option<(u64, &[u8])> {
    let name = item.get(18..)?.get(..usize::from(le16(item, 16)))?;
    Some((le64(item, 0), name))
}

impl Core {
    /// What is known about each subvolume.
    pub(super) fn subvolumes(&self) -> Result<Vec<Subvolume>> {
        let mut places: BTreeMap<u64, Option<(u64, Vec<u8>)>> = BTreeMap::new();
        for id in self.volumes.keys() {
            let place = match self.store.backref(*id)? {
                Some((parent, dir, name)) => self.path_in(parent, dir)?.map(|mut path| {
                    path.extend_from_slice(&name);
                    (parent, path)
                }),
                None => None,
            };
            places.insert(*id, place);
        }
        let described = self.volumes.iter().map(|(id, volume)| Subvolume {
            id: *id,
            path: full_path(*id, &places),
            parent: places.get(id).and_then(Option::as_ref).map_or(0, |(parent, _)| *parent),
            uuid: known(volume.uuid),
            parent_uuid: known(volume.parent_uuid),
            read_only: volume.flags & READ_ONLY != 0,
            generation: volume.tree.place.generation,
        });
        Ok(described.collect())
    }

    /// The path of directory `dir` in subvolume `volume`, with a slash at its end unless it is the root.
    fn path_in(&self, volume: u64, dir: u64) -> Result<Option<Vec<u8>>> {
        let Some(volume) = self.volumes.get(&volume) else { return Ok(None) };
        let (mut names, mut at, mut len) = (Vec::new(), dir, 0_usize);
        while at != volume.directory {
            let Some((parent, name)) = self.parent_of(&volume.tree, at)? else { return Ok(None) };
            len = len.saturating_add(name.len()).saturating_add(1);
            if len > limits::MAX_GUEST_PATH {
                return Ok(None);
            }
            names.push(name);
            at = parent;
        }
        Ok(Some(names.iter().rev().flat_map(|name| [name.as_slice(), b"/"]).flatten().copied().collect()))
    }

    pub(super) fn parent_of(&self, tree: &Tree, inode: u64) -> Result<Option<(u64, Vec<u8>)>> {
        let mut found = None;
        self.store.scan_kind(tree, (inode, kind::INODE_REF, 0), &mut |parent, item| {
            let name = item.get(10..).and_then(|rest| rest.get(..usize::from(le16(item, 8))));
            found = name.filter(|name| !name.is_empty()).map(|name| (parent, name.to_vec()));
            Ok(ControlFlow::Break(()))
        })?;
        Ok(found)
    }

    /// The subvolume at `path`, from the top-level one, as `subvol=` names it.
    pub(super) fn volume_at(&self, path: &[u8]) -> Result<Option<u64>> {
        let mut place = Target { volume: id::FS_TREE, inode: self.volume(id::FS_TREE)?.directory, is_stub: false };
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".") {
            match self.enter(place, name)? {
                Some(next) if !next.is_stub => place = next,
                _ => return Ok(None),
            }
        }
        let is_root = self.volume(place.volume)?.directory == place.inode;
        Ok(is_root.then_some(place.volume))
    }

    pub(super) fn volume(&self, id: u64) -> Result<&Volume> {
        self.volumes.get(&id).ok_or_else(|| {
            Error::new(crate::error::Kind::NotFound, "btrfs.subvolume", format!("there is no subvolume {id}"))
        })
    }
}

fn known(uuid: [u8; 16]) -> Option<uuid::Uuid> {
    let uuid = uuid::Uuid::from_bytes(uuid);
    (!uuid.is_nil()).then_some(uuid)
}

fn full_path(id: u64, places: &BTreeMap<u64, Option<(u64, Vec<u8>)>>) -> Option<Vec<u8>> {
    let (mut parts, mut at, mut len) = (Vec::new(), id, 0_usize);
    while at != id::FS_TREE {
        let (parent, path) = places.get(&at)?.as_ref()?;
        len = len.saturating_add(path.len()).saturating_add(1);
        // Ends cycles too: every path has a name.
        if len > limits::MAX_GUEST_PATH {
            return None;
        }
        parts.push(path.as_slice());
        at = *parent;
    }
    parts.reverse();
    Some(parts.join(&b'/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_joined_and_cycles_end() {
        let place = |parent, path: &[u8]| Some((parent, path.to_vec()));
        let places = BTreeMap::from([
            (5, None),
            (256, place(5, b"@")),
            (257, place(256, b"var/lib/machines")),
            (258, place(259, b"a")),
            (259, place(258, b"b")),
            (260, None),
        ]);
        let path = |id| full_path(id, &places).map(|path| String::from_utf8(path).unwrap());
        assert_eq!(path(5).as_deref(), Some(""));
        assert_eq!(path(257).as_deref(), Some("@/var/lib/machines"));
        assert_eq!((path(258), path(260), path(261)), (None, None, None));
    }

    #[test]
    fn damaged_items_of_trees() {
        let mut item = vec![0; 439];
        assert_eq!(Volume::parse(5, &item).unwrap_err().code(), "btrfs.corrupt");
        item[176] = 1;
        assert!(Volume::parse(5, &item).is_ok() && Volume::parse(5, &item[..239]).is_ok());
        assert_eq!(Volume::parse(5, &item[..238]).unwrap_err().code(), "btrfs.corrupt");
        item[238] = 8;
        assert_eq!(Volume::parse(5, &item).unwrap_err().code(), "btrfs.corrupt");
        assert_eq!(reference(&[0; 17]), None);
        assert_eq!(reference(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]), None);
    }
}
