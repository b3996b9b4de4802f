//! Calls on a full file system: those that free room may use the last of it, which no other call does.
//!
//! What other calls need is estimated, and rather too high: so they leave some nodes free. A call that frees room and that the estimate
//! refuses is tried: it becomes a transaction of its own in memory, which is stored if it found nodes enough, and else forgotten.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::Core;
use super::super::chunk::{self, Chunks};
use super::super::dir::Target;
use super::super::node::Node;
use super::super::subvolume::Volume;
use super::super::superblock::Superblock;
use super::super::tree::Tree;
use super::{SPACE, Writing};
use crate::disk::bytes::long;
use crate::error::Result;

/// Nodes that other calls leave: about twice as many as removing a file changes, with all that this changes in turn.
const RESERVE: u64 = 32;
/// More nodes that giving a file its content changes than emptying it, besides those of checksums.
const MORE: u64 = 12;

/// All that a transaction changes before it is stored.
struct Saved {
    sb: Superblock,
    chunks: Chunks,
    dirty: BTreeMap<u64, Arc<Node>>,
    volumes: BTreeMap<u64, Volume>,
    sum_tree: Option<Tree>,
    writing: Writing,
}

impl Core {
    /// Runs one call that leaves no less room than there was. When it fails, it changed nothing.
    pub(in super::super) fn write_freeing<T>(&mut self, job: impl Fn(&mut Self) -> Result<T>) -> Result<T> {
        match self.write(&job) {
            Err(error) if error.code() == SPACE => {}
            done => return done,
        }
        // Nothing else waits: it was stored before the call was refused.
        let saved = self.saved();
        match job(self).and_then(|value| self.settle().map(|()| value)) {
            Ok(value) => self.store_settled().map(|()| value),
            Err(error) => {
                self.go_back(saved);
                Err(error)
            }
        }
    }

    /// Replaces the whole content of a file. Where there is room only once the old content is gone, the file is empty for one
    /// transaction, as it is when the kernel truncates it first.
    pub(in super::super) fn overwrite(&mut self, file: Target, content: &[u8]) -> Result<()> {
        let job = |core: &mut Self| core.replace_content(file, content);
        let is_longer = long(content.len()) > self.inode(file)?.size();
        let done = if is_longer { self.write(job) } else { self.write_freeing(job) };
        match done {
            Err(error) if error.code() == SPACE && self.has_room_instead(file, content)? => {}
            done => return done,
        }
        self.write_freeing(|core| core.replace_content(file, &[]))?;
        self.commit()?;
        self.write_freeing(job)
    }

    /// Whether `content` has room in the place of what a file has.
    fn has_room_instead(&mut self, file: Target, content: &[u8]) -> Result<bool> {
        let saved = self.saved();
        let emptied = self.replace_content(file, &[]).and_then(|()| self.settle());
        let has_room = self.has_room_now(long(content.len()), long(self.store.dirty.len()).saturating_add(MORE));
        self.go_back(saved);
        match emptied {
            Ok(()) => Ok(has_room),
            Err(error) if error.code() == SPACE => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether so many bytes of content have a place in the groups that there are, and so many nodes, and those of its checksums.
    fn has_room_now(&self, content: u64, nodes: u64) -> bool {
        let (sector, nodesize) = (u64::from(self.store.sb.sectorsize), u64::from(self.store.sb.nodesize));
        let sectors = content.div_ceil(sector);
        let sums = sectors.saturating_mul(long(self.store.sb.checksum.len())).div_ceil(nodesize).saturating_mul(2);
        let (data, metadata) = (sectors.saturating_mul(sector), nodes.saturating_add(sums).saturating_mul(nodesize));
        let unused = |kind| self.writing.space.unused(kind);
        let left = unused(chunk::METADATA).saturating_sub(if self.is_mixed() { data } else { 0 });
        unused(chunk::DATA) >= data && left >= metadata
    }

    /// Bytes of the nodes that are left to calls that free room.
    pub(super) fn reserve_of_nodes(&self) -> u64 {
        RESERVE.saturating_mul(u64::from(self.store.sb.nodesize))
    }

    fn saved(&self) -> Saved {
        Saved {
            sb: self.store.sb.clone(),
            chunks: self.store.chunks.clone(),
            dirty: self.store.dirty.clone(),
            volumes: self.volumes.clone(),
            sum_tree: self.sum_tree.clone(),
            writing: self.writing.clone(),
        }
    }

    fn go_back(&mut self, saved: Saved) {
        let Saved { sb, chunks, dirty, volumes, sum_tree, writing } = saved;
        self.store.sb = sb;
        self.store.chunks = chunks;
        self.store.dirty = dirty;
        self.volumes = volumes;
        self.sum_tree = sum_tree;
        self.writing = writing;
    }
}
