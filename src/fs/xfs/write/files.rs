//! What is done to a file as a whole: its content, its attributes, and its names.

use std::collections::HashSet;

use super::Writer;
use super::data::Name;
use super::dirs::ftype_of;
use super::parents::pointer;
use crate::error::{Error, Kind, Result, escape_bytes};
use crate::fs::xfs::node::{ATIME, CRTIME, CTIME, MTIME, Node, mode_of};
use crate::fs::xfs::{corrupt, unsupported};
use crate::fs::{Attributes, FileKind, Inode, Timestamp};

/// Names that a file has at most.
const MOST_LINKS: u32 = i32::MAX.unsigned_abs();

impl Writer<'_> {
    /// Replaces the content of a regular file.
    pub(in crate::fs::xfs) fn replace(&mut self, inode: Inode, content: &[u8]) -> Result<()> {
        let mut node = self.view().regular(inode)?;
        self.write_content(&mut node, 0, content, true)?;
        self.put_node(&mut node)
    }

    /// Appends to a regular file.
    pub(in crate::fs::xfs) fn append(&mut self, inode: Inode, content: &[u8]) -> Result<()> {
        let mut node = self.view().regular(inode)?;
        let end = node.size();
        if !content.is_empty() {
            self.write_content(&mut node, end, content, false)?;
            self.put_node(&mut node)?;
        }
        Ok(())
    }

    pub(in crate::fs::xfs) fn set_owner(&mut self, inode: Inode, mode: u32, uid: u32, gid: u32) -> Result<()> {
        let mut node = self.view().inode(inode)?;
        node.set_owner(mode, uid, gid);
        self.put_node(&mut node)
    }

    /// Sets the times of access and modification; that of the inode's change only moves forward.
    pub(in crate::fs::xfs) fn set_times(&mut self, inode: Inode, atime: Timestamp, mtime: Timestamp) -> Result<()> {
        let mut node = self.view().inode(inode)?;
        node.set_time(ATIME, atime);
        node.set_time(MTIME, mtime);
        if node.time(CTIME) < mtime {
            node.set_time(CTIME, mtime);
        }
        self.put_node(&mut node)
    }

    /// Sets an extended attribute, or removes it.
    pub(in crate::fs::xfs) fn change_xattr(&mut self, inode: Inode, name: &[u8], value: Option<&[u8]>) -> Result<()> {
        let mut node = self.view().inode(inode)?;
        self.set_attribute(&mut node, name, value)?;
        self.put_node(&mut node)
    }

    /// Creates a regular file.
    pub(in crate::fs::xfs) fn create(
        &mut self,
        dir: Inode,
        name: &[u8],
        attributes: &Attributes,
        content: &[u8],
    ) -> Result<Inode> {
        let mut node = self.add(dir, name, FileKind::Regular, attributes)?;
        self.write_content(&mut node, 0, content, true)?;
        self.put_node(&mut node)?;
        Ok(Inode(node.number))
    }

    /// Creates a directory.
    pub(in crate::fs::xfs) fn create_dir(&mut self, dir: Inode, name: &[u8], attributes: &Attributes) -> Result<Inode> {
        let mut node = self.add(dir, name, FileKind::Directory, attributes)?;
        self.init_dir(&mut node, dir.0)?;
        self.put_node(&mut node)?;
        Ok(Inode(node.number))
    }

    /// Creates a symbolic link.
    pub(in crate::fs::xfs) fn symlink(
        &mut self,
        dir: Inode,
        name: &[u8],
        target: &[u8],
        attributes: &Attributes,
    ) -> Result<Inode> {
        let attributes = Attributes { mode: 0o777, ..attributes.clone() };
        let mut node = self.add(dir, name, FileKind::Symlink, &attributes)?;
        self.set_target(&mut node, target)?;
        self.put_node(&mut node)?;
        Ok(Inode(node.number))
    }

    /// A new inode under `name` in `dir`. It has no content and is not stored.
    fn add(&mut self, dir: Inode, name: &[u8], kind: FileKind, attributes: &Attributes) -> Result<Node> {
        self.check_name(name)?;
        let mut parent = self.view().dir(dir)?;
        self.check_free(&parent, name)?;
        let number = self.take_inode(dir.0)?;
        let mut node = self.new_node(number, mode_of(kind))?;
        node.set_owner(attributes.mode, attributes.uid, attributes.gid);
        let created = if self.sb.has_crc() { Some(CRTIME) } else { None };
        for at in [ATIME, MTIME, CTIME].into_iter().chain(created) {
            node.set_time(at, attributes.time);
        }
        if let Some(project) = parent.inherited_project() {
            node.set_project(project);
        }
        let is_dir = kind == FileKind::Directory;
        node.set_links(if is_dir { 2 } else { 1 });
        for (name, value) in &attributes.xattrs {
            self.set_attribute(&mut node, name, Some(value))?;
        }
        self.change_pointer(&mut node, None, Some(pointer(&parent, name)))?;
        if is_dir {
            parent.set_links(more(&parent)?);
        }
        self.add_name(&mut parent, Name { name: name.to_vec(), inode: number, ftype: ftype_of(kind) })?;
        parent.set_time(MTIME, attributes.time);
        parent.set_time(CTIME, attributes.time);
        self.put_node(&mut parent)?;
        Ok(node)
    }

    /// Removes the name of something that is not a directory, and the file with its last name.
    pub(in crate::fs::xfs) fn remove_file(&mut self, dir: Inode, name: &[u8]) -> Result<()> {
        self.check_name(name)?;
        let mut parent = self.view().dir(dir)?;
        let mut node = self.named(&parent, name)?;
        if node.is_dir() {
            return Err(Error::failed("xfs.name", format!("`{}` is a directory", escape_bytes(name))));
        }
        self.remove_name(&mut parent, name)?;
        self.put_node(&mut parent)?;
        let links = fewer(&node)?;
        node.set_links(links);
        if links == 0 {
            return self.free_node(node);
        }
        self.change_pointer(&mut node, Some(&pointer(&parent, name)), None)?;
        self.put_node(&mut node)
    }

    /// Removes an empty directory.
    pub(in crate::fs::xfs) fn remove_empty(&mut self, dir: Inode, name: &[u8]) -> Result<()> {
        self.check_name(name)?;
        let mut parent = self.view().dir(dir)?;
        let node = self.named(&parent, name)?;
        if !node.is_dir() {
            return Err(Error::failed("xfs.name", format!("`{}` is not a directory", escape_bytes(name))));
        }
        let mut cursor = 0;
        while let Some((entries, next)) = self.view().list(&node, cursor)? {
            if !entries.is_empty() {
                return Err(Error::failed("xfs.name", format!("directory `{}` is not empty", escape_bytes(name))));
            }
            cursor = next;
        }
        self.remove_name(&mut parent, name)?;
        parent.set_links(fewer(&parent)?);
        self.put_node(&mut parent)?;
        self.free_node(node)
    }

    /// Gives a file or directory another name.
    pub(in crate::fs::xfs) fn rename(&mut self, dir: Inode, name: &[u8], new_dir: Inode, new: &[u8]) -> Result<()> {
        self.check_name(name)?;
        self.check_name(new)?;
        let mut from = self.view().dir(dir)?;
        let mut node = self.named(&from, name)?;
        let kind = node.kind().ok_or_else(|| corrupt(format!("inode {} is not in use", node.number)))?;
        let new_name = Name { name: new.to_vec(), inode: node.number, ftype: ftype_of(kind) };
        if dir == new_dir {
            self.check_free(&from, new)?;
            self.change_pointer(&mut node, Some(&pointer(&from, name)), Some(pointer(&from, new)))?;
            self.put_node(&mut node)?;
            self.add_name(&mut from, new_name)?;
            self.remove_name(&mut from, name)?;
            return self.put_node(&mut from);
        }
        let mut to = self.view().dir(new_dir)?;
        self.check_free(&to, new)?;
        if node.is_dir() {
            self.check_not_below(&to, node.number)?;
            self.redirect(&mut node, b"..", to.number)?;
            to.set_links(more(&to)?);
            from.set_links(fewer(&from)?);
        }
        self.change_pointer(&mut node, Some(&pointer(&from, name)), Some(pointer(&to, new)))?;
        self.put_node(&mut node)?;
        self.add_name(&mut to, new_name)?;
        self.put_node(&mut to)?;
        self.remove_name(&mut from, name)?;
        self.put_node(&mut from)
    }

    fn named(&self, dir: &Node, name: &[u8]) -> Result<Node> {
        let found = self.view().find(dir, name)?;
        let found = found.ok_or_else(|| {
            Error::new(Kind::NotFound, "xfs.not-found", format!("there is no `{}`", escape_bytes(name)))
        })?;
        self.view().inode(found)
    }

    fn check_free(&self, dir: &Node, name: &[u8]) -> Result<()> {
        match self.view().find(dir, name)? {
            None => Ok(()),
            Some(_) => Err(Error::new(Kind::Exists, "xfs.exists", format!("`{}` exists already", escape_bytes(name)))),
        }
    }

    fn check_name(&self, name: &[u8]) -> Result<()> {
        let is_name = (1..=255).contains(&name.len())
            && !matches!(name, b"." | b"..")
            && !name.iter().any(|byte| matches!(byte, 0 | b'/'));
        if !is_name {
            return Err(Error::new(Kind::Usage, "xfs.name", format!("`{}` is not a file name", escape_bytes(name))));
        }
        if self.sb.features.has_ascii_ci() && !name.is_ascii() {
            return Err(unsupported("names that are not ASCII where names have no case"));
        }
        Ok(())
    }

    /// Makes sure that `dir` does not lie in directory `number`.
    fn check_not_below(&self, dir: &Node, number: u64) -> Result<()> {
        let mut at = dir.clone();
        let mut seen = HashSet::new();
        while at.number != self.sb.root() {
            if at.number == number {
                return Err(Error::new(Kind::Usage, "xfs.name", "a directory cannot be moved into itself"));
            }
            if !seen.insert(at.number) {
                return Err(corrupt("directories lie in each other"));
            }
            at = self.view().dir(Inode(self.parent_of(&at)?))?;
        }
        Ok(())
    }
}

fn more(node: &Node) -> Result<u32> {
    let links = node.links().checked_add(1).filter(|links| *links <= MOST_LINKS);
    links.ok_or_else(|| Error::limit("xfs.limit", format!("inode {} has too many names", node.number)))
}

fn fewer(node: &Node) -> Result<u32> {
    node.links().checked_sub(1).ok_or_else(|| corrupt(format!("inode {} has no name", node.number)))
}
