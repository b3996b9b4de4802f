//! Names that move from one directory to another, and directories that go.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use super::create::{check_name, more_links};
use super::dir::entries;
use super::features::RO_COMPAT_DIR_NLINK;
use super::names::NewName;
use super::node::{FLAG_INDEX, FLAG_INLINE, Node};
use super::view::View;
use super::{ROOT, corrupt};
use crate::disk::bytes::{put, put32};
use crate::error::{Error, Kind, Result, escape_bytes};
use crate::fs::FileKind;

impl View<'_> {
    /// Removes an empty directory and its name.
    pub(super) fn remove_dir(&mut self, parent: u32, name: &[u8]) -> Result<()> {
        let mut dir = self.node(parent)?;
        let mut node = self.named(&dir, name)?;
        if !node.is_dir() {
            return Err(Error::failed("ext.name", format!("`{}` is not a directory", escape_bytes(name))));
        }
        if !self.is_empty_dir(&node)? {
            let what = format!("directory `{}` is not empty", escape_bytes(name));
            return Err(Error::failed("ext.not-empty", what));
        }
        self.remove_name(&mut dir, name)?;
        dir.set_links(fewer_links(&dir));
        self.put_node(&mut dir)?;
        self.erase(&mut node)
    }

    /// Gives what is called `name` in `parent` the name `new_name` in `new_parent`, where there is none of that name.
    pub(super) fn rename(&mut self, parent: u32, name: &[u8], new_parent: u32, new_name: &[u8]) -> Result<()> {
        check_name(new_name)?;
        let mut dir = self.node(parent)?;
        let mut node = self.named(&dir, name)?;
        let kind = node.kind().ok_or_else(|| corrupt(format!("inode {} has no kind", node.number)))?;
        let new = NewName { name: new_name, inode: node.number, kind };
        if parent == new_parent {
            self.check_free(&dir, new_name)?;
            self.add_name(&mut dir, new)?;
            self.remove_name(&mut dir, name)?;
            return self.put_node(&mut dir);
        }
        let mut new_dir = self.node(new_parent)?;
        self.check_free(&new_dir, new_name)?;
        if kind == FileKind::Directory {
            self.check_not_below(&new_dir, node.number)?;
            new_dir.set_links(more_links(&new_dir, self.sb.ro_compat() & RO_COMPAT_DIR_NLINK != 0)?);
            dir.set_links(fewer_links(&dir));
            self.set_parent(&mut node, new_parent)?;
        }
        self.add_name(&mut new_dir, new)?;
        self.remove_name(&mut dir, name)?;
        self.put_node(&mut new_dir)?;
        self.put_node(&mut dir)
    }

    /// What is called `name` in `dir`.
    pub(super) fn named(&self, dir: &Node, name: &[u8]) -> Result<Node> {
        // `.` and `..` are entries too, but nothing that could be taken away.
        let place = if matches!(name, b"." | b"..") { None } else { self.find(dir, name)? };
        let place = place.ok_or_else(|| {
            Error::new(Kind::NotFound, "ext.not-found", format!("there is no `{}`", escape_bytes(name)))
        })?;
        let node = self.node(place.inode)?;
        if node.links() == 0 || u64::from(node.number) == ROOT {
            return Err(corrupt(format!("`{}` leads to inode {}", escape_bytes(name), node.number)));
        }
        Ok(node)
    }

    /// An error when `dir` has the name already.
    pub(super) fn check_free(&self, dir: &Node, name: &[u8]) -> Result<()> {
        if self.find(dir, name)?.is_some() {
            return Err(Error::failed("ext.exists", format!("`{}` exists already", escape_bytes(name))));
        }
        Ok(())
    }

    fn is_empty_dir(&self, dir: &Node) -> Result<bool> {
        self.check_dir(dir)?;
        let mut empty = true;
        let mut look = |bytes: &[u8]| {
            entries(bytes, self.has_filetype(), &mut |entry| {
                empty &= entry.inode == 0 || matches!(entry.name, b"." | b"..");
                if empty { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })
        };
        if dir.has(FLAG_INLINE) {
            for area in self.inline_areas(dir)? {
                let _ = look(&area)?;
            }
        } else {
            self.walk_dir(dir, 0..u64::MAX, &mut |_, _, bytes| look(bytes))?;
        }
        Ok(empty)
    }

    /// An error when `dir` is the directory `above` or lies somewhere below it.
    fn check_not_below(&self, dir: &Node, above: u32) -> Result<()> {
        let mut seen = BTreeSet::new();
        let mut at = dir.clone();
        while u64::from(at.number) != ROOT {
            if at.number == above {
                return Err(Error::failed("ext.name", "a directory cannot be moved into itself"));
            }
            if !seen.insert(at.number) {
                return Err(corrupt(format!("directory {} lies in itself", at.number)));
            }
            at = self.node(self.parent_of(&at)?)?;
            self.check_dir(&at)?;
        }
        Ok(())
    }

    fn parent_of(&self, dir: &Node) -> Result<u32> {
        if dir.has(FLAG_INLINE) {
            return Ok(Self::inline_parent(dir));
        }
        let place = self.find_in(dir, 0..1, b"..")?;
        Ok(place.ok_or_else(|| corrupt(format!("directory {} has no parent", dir.number)))?.inode)
    }

    /// Makes `..` of `dir` lead to `parent`.
    fn set_parent(&mut self, dir: &mut Node, parent: u32) -> Result<()> {
        if dir.has(FLAG_INLINE) {
            let mut map = dir.map().to_vec();
            put(&mut map, 0, &parent.to_le_bytes());
            dir.set_map(&map);
            return self.put_node(dir);
        }
        let place = self.find_in(dir, 0..1, b"..")?;
        let place = place.ok_or_else(|| corrupt(format!("directory {} has no parent", dir.number)))?;
        if dir.has(FLAG_INDEX) {
            let mut root = self.frame(dir, 0)?;
            let bytes: &mut Vec<u8> = std::sync::Arc::make_mut(&mut root.bytes);
            put32(bytes, place.at, parent);
            self.put_frame(dir, &mut root);
            return Ok(());
        }
        let mut bytes = self.block(place.block)?.to_vec();
        put32(&mut bytes, place.at, parent);
        self.seal_leaf(dir, &mut bytes);
        self.put(place.block, bytes);
        Ok(())
    }
}

/// The link count of `dir` with one subdirectory less; 1, which means many, stays.
fn fewer_links(dir: &Node) -> u16 {
    if dir.links() > 2 { dir.links().saturating_sub(1) } else { dir.links() }
}
