//! squashfs 4.0: reading.
//!
//! Field names are those of the kernel's `squashfs_fs.h`. Everything is compressed in blocks, which are decoded when they are asked
//! for. An inode is the place of its record in the inode table (`squashfs_base_inode`'s reference), which hard links share.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::fmt;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use super::pages::Pages;
use super::parts::Parts;
use super::{DirEntry, FileKind, Filesystem, FilesystemMut, FsFacts, Inode, Stat};
use crate::disk::Disk;
use crate::error::{Error, Kind, Result};
use content::Contents;
use metadata::Metadata;
use node::{Body, Node, Nodes};
use superblock::Superblock;

mod codec;
mod content;
mod dir;
mod metadata;
mod node;
mod superblock;
mod tables;
#[cfg(test)]
mod tests;
mod xattr;

/// A squashfs file system.
pub struct Squashfs {
    sb: Superblock,
    metadata: Metadata,
    contents: Contents,
    nodes: Nodes,
    facts: FsFacts,
}

impl Squashfs {
    /// Opens a volume.
    ///
    /// # Errors
    /// When it is not a squashfs file system, or one that cannot be read.
    pub fn open(volume: Arc<dyn Disk>) -> Result<Self> {
        let sb = Superblock::read(&*volume)?;
        let facts = FsFacts {
            kind: "squashfs",
            uuid: None,
            label: None,
            block_size: u64::from(sb.block_size),
            size: sb.bytes_used,
            free: Some(0),
            dirty: false,
            features: vec![sb.codec.name().to_owned()],
        };
        let metadata = Metadata::new(Pages::new(Arc::clone(&volume), "squashfs.corrupt"), &sb);
        let contents = Contents::new(volume, &sb);
        let fs = Self { sb, metadata, contents, nodes: Nodes::default(), facts };
        if fs.node(fs.root())?.kind != FileKind::Directory {
            return Err(corrupt("the root directory is not a directory"));
        }
        Ok(fs)
    }

    /// What `inode` is.
    fn node(&self, inode: Inode) -> Result<Arc<Node>> {
        if let Some(node) = self.nodes.get(inode) {
            return Ok(node);
        }
        let node = Node::read(self, inode).map_err(|error| error.at(format!("inode {}", inode.0)))?;
        Ok(self.nodes.keep(inode, node))
    }
}

impl fmt::Debug for Squashfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Squashfs").field("facts", &self.facts).finish_non_exhaustive()
    }
}

impl Filesystem for Squashfs {
    fn facts(&self) -> &FsFacts {
        &self.facts
    }

    fn root(&self) -> Inode {
        Inode(self.sb.root_inode)
    }

    fn lookup(&self, dir: Inode, name: &[u8]) -> Result<Option<Inode>> {
        self.find(dir, name).map_err(|error| error.at(format!("inode {}", dir.0)))
    }

    fn stat(&self, inode: Inode) -> Result<Stat> {
        let node = self.node(inode)?;
        let (size, allocated) = match &node.body {
            Body::File(file) => (file.size, file.allocated()),
            Body::Dir(dir) => (dir.file_size, 0),
            Body::Link(target) => (crate::disk::bytes::long(target.len()), 0),
            Body::Device(_) | Body::Nothing => (0, 0),
        };
        Ok(Stat {
            inode,
            kind: node.kind,
            mode: node.mode,
            uid: node.uid,
            gid: node.gid,
            size,
            allocated,
            device: if let Body::Device(device) = node.body { Some(device) } else { None },
            links: node.links,
            atime: node.time,
            mtime: node.time,
            ctime: node.time,
            btime: None,
        })
    }

    fn read_at(&self, inode: Inode, buf: &mut [u8], offset: u64) -> Result<usize> {
        let node = self.node(inode)?;
        let Body::File(file) = &node.body else { return Err(not("a regular file", inode)) };
        self.read_file(file, buf, offset).map_err(|error| error.at(format!("inode {}", inode.0)))
    }

    fn data_ranges(
        &self,
        inode: Inode,
        range: Range<u64>,
        visit: &mut dyn FnMut(Range<u64>) -> ControlFlow<()>,
    ) -> Result<()> {
        let node = self.node(inode)?;
        let Body::File(file) = &node.body else { return Err(not("a regular file", inode)) };
        let mut parts = Parts::new(&range, file.size, visit);
        if file.data(u64::from(self.sb.block_size), &mut parts).is_continue() {
            parts.finish();
        }
        Ok(())
    }

    fn read_dir(&self, dir: Inode, cursor: u64, visit: &mut dyn FnMut(DirEntry) -> ControlFlow<()>) -> Result<()> {
        self.walk(dir, cursor, visit).map_err(|error| error.at(format!("inode {}", dir.0)))
    }

    fn read_link(&self, inode: Inode) -> Result<Vec<u8>> {
        match &self.node(inode)?.body {
            Body::Link(target) => Ok(target.clone()),
            _ => Err(not("a symbolic link", inode)),
        }
    }

    fn xattrs(&self, inode: Inode) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let Some(index) = self.node(inode)?.xattr else { return Ok(Vec::new()) };
        self.xattrs_of(index).map_err(|error| error.at(format!("inode {}", inode.0)))
    }

    /// Nothing in such a file system is ever free.
    fn free_ranges(&self, _visit: &mut dyn FnMut(Range<u64>) -> ControlFlow<()>) -> Result<()> {
        Ok(())
    }

    fn writer(&self) -> Result<&dyn FilesystemMut> {
        Err(Error::refused("squashfs.read-only", "a squashfs file system is never changed"))
    }
}

/// A file is not what it was taken for.
fn not(what: &str, inode: Inode) -> Error {
    Error::new(Kind::NotFound, "squashfs.name", format!("not {what}")).at(format!("inode {}", inode.0))
}

/// The bytes contradict the format.
fn corrupt(what: impl Into<String>) -> Error {
    Error::corrupt("squashfs.corrupt", what)
}

/// More than this program handles.
fn limit(what: &str) -> Error {
    Error::limit("squashfs.limit", what)
}
