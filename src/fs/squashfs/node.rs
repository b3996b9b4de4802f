//! Inodes: seven kinds, each in a short and an extended form.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::content::File;
use super::metadata::Stream;
use super::{Squashfs, corrupt, limit};
use crate::disk::bytes::{le16, le32, le64, size};
use crate::error::Result;
use crate::fs::{FileKind, Inode, Timestamp};
use crate::limits;

/// A number that stands for nothing.
const NONE: u32 = u32::MAX;

/// Inodes that are kept.
const KEPT: usize = 1024;

/// An inode.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) kind: FileKind,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) time: Timestamp,
    pub(super) links: u32,
    /// Its number in the table of attributes.
    pub(super) xattr: Option<u32>,
    pub(super) body: Body,
}

/// What is not the same for all kinds.
#[derive(Debug)]
pub(super) enum Body {
    Device((u32, u32)),
    Dir(Dir),
    File(File),
    Link(Vec<u8>),
    Nothing,
}

/// Where a directory's listing lies.
#[derive(Clone, Debug)]
pub(super) struct Dir {
    /// The block, from the start of the table of directories, and the place in what it decodes to.
    pub(super) start_block: u32,
    pub(super) offset: u16,
    /// Bytes of the listing and 3 more.
    pub(super) file_size: u64,
    /// Entries of the index, which follows the inode.
    pub(super) index: Option<(Inode, u16)>,
}

/// The kind of an inode's or directory entry's type, short or extended.
pub(super) const fn kind(inode_type: u16) -> Option<FileKind> {
    Some(match inode_type {
        1 | 8 => FileKind::Directory,
        2 | 9 => FileKind::Regular,
        3 | 10 => FileKind::Symlink,
        4 | 11 => FileKind::BlockDevice,
        5 | 12 => FileKind::CharDevice,
        6 | 13 => FileKind::Fifo,
        7 | 14 => FileKind::Socket,
        _ => return None,
    })
}

/// Bytes of an extended directory's inode, behind which its index is.
pub(super) const EXTENDED_DIR: usize = 40;

impl Node {
    pub(super) fn read(fs: &Squashfs, inode: Inode) -> Result<Self> {
        let mut stream = fs.inode_stream(inode)?;
        let base = stream.take(16)?;
        let inode_type = le16(&base, 0);
        let kind = kind(inode_type).ok_or_else(|| corrupt("an inode of no known type").found(inode_type))?;
        let is_extended = inode_type > 7;
        let (body, links, xattr) = match kind {
            FileKind::Directory => dir(&mut stream, is_extended, inode)?,
            FileKind::Regular => file(&mut stream, is_extended, fs.sb.block_size)?,
            FileKind::Symlink => link(&mut stream, is_extended)?,
            FileKind::BlockDevice | FileKind::CharDevice => {
                let bytes = stream.take(if is_extended { 12 } else { 8 })?;
                let dev = le32(&bytes, 4);
                let device = ((dev & 0x000f_ff00) >> 8, dev & 0xff | dev >> 12 & 0x000f_ff00);
                (Body::Device(device), le32(&bytes, 0), if is_extended { le32(&bytes, 8) } else { NONE })
            }
            FileKind::Fifo | FileKind::Socket => {
                let bytes = stream.take(if is_extended { 8 } else { 4 })?;
                (Body::Nothing, le32(&bytes, 0), if is_extended { le32(&bytes, 4) } else { NONE })
            }
        };
        Ok(Self {
            kind,
            mode: u32::from(le16(&base, 2)) & 0o7777,
            uid: fs.id(le16(&base, 4))?,
            gid: fs.id(le16(&base, 6))?,
            time: Timestamp { seconds: i64::from(le32(&base, 8)), nanoseconds: 0 },
            links,
            xattr: (xattr != NONE).then_some(xattr),
            body,
        })
    }

    /// Numbers that it holds.
    fn weight(&self) -> usize {
        if let Body::File(file) = &self.body { file.blocks() } else { 0 }
    }
}

impl Squashfs {
    /// The metadata from an inode on.
    pub(super) fn inode_stream(&self, inode: Inode) -> Result<Stream<'_>> {
        let place = self.sb.inode_table_start.saturating_add(inode.0 >> 16);
        if place >= self.sb.directory_table_start {
            return Err(corrupt("an inode is not in the table").found(inode.0));
        }
        self.metadata.at(place, inode.0 & 0xffff)
    }
}

type Parts = (Body, u32, u32);

fn dir(stream: &mut Stream<'_>, is_extended: bool, inode: Inode) -> Result<Parts> {
    if is_extended {
        let bytes = stream.take(EXTENDED_DIR.saturating_sub(16))?;
        let count = le16(&bytes, 16);
        let dir = Dir {
            start_block: le32(&bytes, 8),
            offset: le16(&bytes, 18),
            file_size: u64::from(le32(&bytes, 4)),
            index: (count > 0).then_some((inode, count)),
        };
        return Ok((Body::Dir(dir), le32(&bytes, 0), le32(&bytes, 20)));
    }
    let bytes = stream.take(16)?;
    let dir = Dir {
        start_block: le32(&bytes, 0),
        offset: le16(&bytes, 10),
        file_size: u64::from(le16(&bytes, 8)),
        index: None,
    };
    Ok((Body::Dir(dir), le32(&bytes, 4), NONE))
}

fn file(stream: &mut Stream<'_>, is_extended: bool, block_size: u32) -> Result<Parts> {
    let (file, links, xattr) = if is_extended {
        let bytes = stream.take(40)?;
        let fragment = (le32(&bytes, 28), le32(&bytes, 32));
        let file = File::new(le64(&bytes, 0), le64(&bytes, 8), le64(&bytes, 16), fragment);
        (file, le32(&bytes, 24), le32(&bytes, 36))
    } else {
        let bytes = stream.take(16)?;
        let fragment = (le32(&bytes, 4), le32(&bytes, 8));
        (File::new(u64::from(le32(&bytes, 0)), u64::from(le32(&bytes, 12)), 0, fragment), 1, NONE)
    };
    Ok((Body::File(file.with_blocks(stream, block_size)?), links, xattr))
}

fn link(stream: &mut Stream<'_>, is_extended: bool) -> Result<Parts> {
    let bytes = stream.take(8)?;
    let len = size(u64::from(le32(&bytes, 4)));
    if len > limits::MAX_GUEST_PATH {
        return Err(limit("a link's target is too long").found(len));
    }
    let target = stream.take(len)?;
    let xattr = if is_extended { le32(&stream.take(4)?, 0) } else { NONE };
    Ok((Body::Link(target), le32(&bytes, 0), xattr))
}

/// Inodes that were read last.
#[derive(Debug, Default)]
pub(super) struct Nodes(Mutex<(HashMap<Inode, Arc<Node>>, usize)>);

impl Nodes {
    pub(super) fn get(&self, inode: Inode) -> Option<Arc<Node>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0.get(&inode).map(Arc::clone)
    }

    pub(super) fn keep(&self, inode: Inode, node: Node) -> Arc<Node> {
        let node = Arc::new(node);
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let weight = kept.1.saturating_add(node.weight());
        if kept.0.len() >= KEPT || weight > limits::MAX_SQUASHFS_BLOCKS {
            *kept = (HashMap::new(), node.weight());
        } else {
            kept.1 = weight;
        }
        kept.0.insert(inode, Arc::clone(&node));
        node
    }
}
