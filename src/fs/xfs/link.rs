//! Symbolic links ("Symbolic Links"): the target in the inode, or in blocks.

use super::node::{Fork, Format, Node};
use super::view::View;
use super::{block, corrupt};
use crate::disk::bytes::{be32, long, size};
use crate::error::{Error, Result};
use crate::fs::FileKind;

/// Bytes of the longest target.
pub(super) const MAX_TARGET: u64 = 1024;
/// Bytes before the target in a block of version 5.
pub(super) const HEADER: usize = 56;

impl View<'_> {
    /// The target of a symbolic link.
    pub(super) fn target(&self, node: &Node) -> Result<Vec<u8>> {
        if node.kind() != Some(FileKind::Symlink) {
            return Err(Error::failed("xfs.name", format!("inode {} is not a symbolic link", node.number)));
        }
        if node.size() > MAX_TARGET {
            return Err(corrupt(format!("the target of link {} is too long", node.number)).found(node.size()));
        }
        if node.format(Fork::Data)? == Format::Local {
            return Ok(self.local(node, Fork::Data, node.size())?.to_vec());
        }
        let len = size(node.size());
        let mut target = vec![0; len];
        if !self.sb.has_crc() {
            self.read_content(node, &mut target, 0)?;
            return Ok(target);
        }
        target.clear();
        let mut at = 0;
        while target.len() < len {
            let count = self.map(node, Fork::Data, at)?.count.min(node.size());
            let (bytes, offset) = self.fork_blocks(node, Fork::Data, at, count)?;
            block::verify(&bytes, offset, &self.sb.meta_uuid, Some(node.number))?;
            let here = size(u64::from(be32(&bytes, 8)));
            let part = bytes.get(HEADER..).and_then(|rest| rest.get(..here)).filter(|part| !part.is_empty());
            let right = be32(&bytes, 0) == block::SYMLINK && u64::from(be32(&bytes, 4)) == long(target.len());
            let Some(part) = part.filter(|_| right) else {
                return Err(corrupt(format!("the target of link {} contradicts itself", node.number)).offset(offset));
            };
            target.extend_from_slice(part);
            at = at.saturating_add(count);
        }
        target.truncate(len);
        Ok(target)
    }
}
