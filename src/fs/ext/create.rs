//! Files that come and go: new inodes, links, removal, and what a crash left half removed.

use std::collections::BTreeSet;

use super::checksum::crc32c;
use super::features::{RO_COMPAT_DIR_NLINK, RO_COMPAT_ORPHAN_PRESENT};
use super::names::NewName;
use super::node::{FLAG_EXTENTS, FLAG_INLINE, MAP_LEN, Node};
use super::view::View;
use super::{corrupt, full};
use crate::disk::bytes::{le32, long, put32, size};
use crate::error::{Error, Kind, Result, escape_bytes};
use crate::fs::{Attributes, FileKind};

/// Subdirectories from which a directory no longer counts them.
const MANY_LINKS: u16 = 65000;
const ORPHAN_MAGIC: u32 = 0x0b10_ca04;

impl View<'_> {
    /// Creates an inode of `kind` under `name` in `parent`. The inode is not stored yet.
    pub(super) fn create(&mut self, parent: u32, name: &[u8], kind: FileKind, attributes: &Attributes) -> Result<Node> {
        check_name(name)?;
        let mut dir = self.node(parent)?;
        self.check_free(&dir, name)?;
        let is_dir = kind == FileKind::Directory;
        let number = self.allocate_inode(parent, is_dir)?;
        let mut node = Node::new(&self.sb, number, kind);
        node.set_owner(attributes.mode, attributes.uid, attributes.gid);
        node.set_links(1);
        let seconds = attributes.time.seconds.to_le_bytes();
        node.set_generation(crc32c(crc32c(self.sb.seed, name), &seconds));
        node.set_atime(attributes.time);
        node.set_mtime(attributes.time);
        node.set_ctime(attributes.time);
        node.set_crtime(attributes.time);
        self.init_map(&mut node);
        if is_dir {
            node.set_links(2);
            dir.set_links(more_links(&dir, self.sb.ro_compat() & RO_COMPAT_DIR_NLINK != 0)?);
        }
        self.add_name(&mut dir, NewName { name, inode: number, kind })?;
        dir.set_mtime(attributes.time);
        dir.set_ctime(attributes.time);
        self.put_node(&mut dir)?;
        for (name, value) in &attributes.xattrs {
            self.set_attribute(&mut node, name, Some(value))?;
        }
        if is_dir {
            let (_, physical) = self.append_block(&mut node)?;
            let mut bytes = self.first_block(&node, parent);
            self.seal_leaf(&node, &mut bytes);
            self.put(physical, bytes);
        }
        Ok(node)
    }

    /// Makes `node` a link to `target`: in the inode if it fits there, else in a block.
    pub(super) fn set_target(&mut self, node: &mut Node, target: &[u8]) -> Result<()> {
        if target.is_empty() || target.contains(&0) || target.len() >= self.sb.block_len().min(4096) {
            return Err(Error::new(
                Kind::Usage,
                "ext.name",
                "a symbolic link's target is empty, too long or has a NUL",
            ));
        }
        if target.len() < MAP_LEN {
            let mut map = vec![0; MAP_LEN];
            crate::disk::bytes::put(&mut map, 0, target);
            node.set_flag(FLAG_EXTENTS, false);
            node.set_map(&map);
            node.set_size(long(target.len()));
            return Ok(());
        }
        self.write_content(node, 0, target, true)
    }

    /// Whether a symbolic link keeps its target in the inode.
    pub(super) fn is_short_link(&self, node: &Node) -> bool {
        node.size(&self.sb) < long(MAP_LEN) && !node.has(FLAG_EXTENTS | FLAG_INLINE)
    }

    /// The target of a symbolic link.
    pub(super) fn target(&self, node: &Node) -> Result<Vec<u8>> {
        let len = node.size(&self.sb);
        if node.kind() != Some(FileKind::Symlink) || len == 0 || len > 4096 {
            return Err(corrupt(format!("inode {} is not a symbolic link", node.number)));
        }
        if node.has(super::node::FLAG_ENCRYPT) {
            return Err(super::unsupported(format!("the target of inode {} is encrypted", node.number)));
        }
        let mut target = vec![0; size(len)];
        if node.has(FLAG_INLINE) {
            self.read_inline(node, &mut target, 0)?;
        } else if self.is_short_link(node) {
            let map = node.map().get(..target.len()).unwrap_or_default();
            crate::disk::bytes::put(&mut target, 0, map);
        } else {
            self.read_content(node, &mut target, 0)?;
        }
        Ok(target)
    }

    /// Removes the name of something that is not a directory, and the file with its last name.
    pub(super) fn remove(&mut self, parent: u32, name: &[u8]) -> Result<()> {
        let mut dir = self.node(parent)?;
        let mut node = self.named(&dir, name)?;
        if node.is_dir() || node.kind().is_none() {
            return Err(Error::failed("ext.name", format!("`{}` is not a file or link", escape_bytes(name))));
        }
        self.remove_name(&mut dir, name)?;
        self.put_node(&mut dir)?;
        node.set_links(node.links().saturating_sub(1));
        if node.links() == 0 { self.erase(&mut node) } else { self.put_node(&mut node) }
    }

    /// Frees an inode that has no name, with all that it holds.
    pub(super) fn erase(&mut self, node: &mut Node) -> Result<()> {
        if self.has_value_inodes(node)? {
            return Err(super::unsupported(format!("inode {} has attributes with inodes of their own", node.number)));
        }
        let is_dir = node.is_dir();
        self.release_content(node)?;
        node.set_links(0);
        node.set_size(0);
        // A small number would look like a link of the list of orphans.
        node.set_dtime(self.sb.wtime().max(self.sb.inodes_count));
        self.put_node(node)?;
        self.release_inode(node.number, is_dir)
    }

    /// Finishes what a crash interrupted: frees inodes without a name, and cuts files to their size.
    pub(super) fn settle_orphans(&mut self) -> Result<()> {
        let mut seen = BTreeSet::new();
        let mut next = self.sb.last_orphan();
        while next != 0 {
            if !seen.insert(next) {
                return Err(corrupt("the list of orphans is a loop").found(next));
            }
            let mut node = self.node(next)?;
            next = node.dtime();
            self.settle(&mut node)?;
        }
        if self.sb.last_orphan() != 0 {
            self.edit_sb().set_last_orphan(0);
        }
        self.settle_orphan_file()
    }

    fn settle(&mut self, node: &mut Node) -> Result<()> {
        node.set_dtime(0);
        if node.number < self.sb.first_inode() {
            return Err(corrupt("a reserved inode is an orphan").found(node.number));
        }
        if node.links() == 0 {
            return self.erase(node);
        }
        self.cut_to_size(node)?;
        self.put_node(node)
    }

    /// The same for the file that lists orphans (feature orphan_file).
    fn settle_orphan_file(&mut self) -> Result<()> {
        let Some(number) = self.sb.orphan_file() else {
            return Ok(());
        };
        let file = self.node(number)?;
        let runs = self.runs(&file, 0..super::map::END)?;
        for block in runs.iter().flat_map(|run| run.physical..run.physical.saturating_add(run.len)) {
            let mut bytes = self.block(block)?.to_vec();
            let tail = bytes.len().saturating_sub(8);
            let listed = bytes.get(..tail).unwrap_or_default();
            let orphans: Vec<u32> =
                listed.as_chunks::<4>().0.iter().map(|n| u32::from_le_bytes(*n)).filter(|n| *n != 0).collect();
            let sum = |listed: &[u8], view: &Self| {
                [&block.to_le_bytes()[..], listed].into_iter().fold(file.seed(&view.sb), crc32c)
            };
            if le32(&bytes, tail) != ORPHAN_MAGIC
                || (self.sb.has_csum() && le32(&bytes, tail.saturating_add(4)) != sum(listed, self))
            {
                return Err(self.bad_checksum(block, "a block of the orphan file"));
            }
            if orphans.is_empty() {
                continue;
            }
            for orphan in orphans {
                let mut node = self.node(orphan)?;
                self.settle(&mut node)?;
            }
            bytes.get_mut(..tail).unwrap_or_default().fill(0);
            if self.sb.has_csum() {
                let sum = sum(bytes.get(..tail).unwrap_or_default(), self);
                put32(&mut bytes, tail.saturating_add(4), sum);
            }
            self.put(block, bytes);
        }
        self.edit_sb().clear_ro_compat(RO_COMPAT_ORPHAN_PRESENT);
        Ok(())
    }
}

/// An error for what no file can be called.
pub(super) fn check_name(name: &[u8]) -> Result<()> {
    let forbidden = name.iter().any(|c| matches!(c, 0 | b'/'));
    if name.is_empty() || name.len() > 255 || matches!(name, b"." | b"..") || forbidden {
        return Err(Error::new(Kind::Usage, "ext.name", format!("`{}` is not a file name", escape_bytes(name))));
    }
    Ok(())
}

/// The link count of `dir` with one more subdirectory; 1 means many.
pub(super) fn more_links(dir: &Node, may_be_many: bool) -> Result<u16> {
    match dir.links().saturating_add(1) {
        2 => Ok(1),
        links if links < MANY_LINKS => Ok(links),
        _ if may_be_many => Ok(1),
        _ => Err(full(format!("directory {} has too many subdirectories", dir.number))),
    }
}
