//! Symbolic links: the target in the inode if it has room, else in blocks.

use super::Writer;
use super::fork::{Body, Map};
use crate::disk::bytes::{long, put, put_be32, size};
use crate::error::{Error, Kind, Result};
use crate::fs::FileKind;
use crate::fs::xfs::block;
use crate::fs::xfs::link::{HEADER, MAX_TARGET};
use crate::fs::xfs::node::{Fork, Node};

impl Writer<'_> {
    /// Makes `node` a link to `target`. It is not stored.
    pub(super) fn set_target(&mut self, node: &mut Node, target: &[u8]) -> Result<()> {
        if target.is_empty() || target.contains(&0) || long(target.len()) >= MAX_TARGET {
            let what = "a symbolic link's target is empty, too long or has a NUL";
            return Err(Error::new(Kind::Usage, "xfs.name", what));
        }
        let attr = self.body(node, Fork::Attr)?;
        let data = Body::Local(target.to_vec());
        node.set_size(long(target.len()));
        if self.fork_offset(node, &data, &attr).is_some() {
            return self.put_bodies(node, data, attr);
        }
        self.put_long_target(node, target)
    }

    /// Takes the target of a link back into the inode where attributes leave it room again: `xfs_repair` takes one that could be
    /// there and is not for damage.
    pub(super) fn target_back(&mut self, node: &Node, data: Body, attr: &Body) -> Result<Body> {
        let (Body::Mapped(map), Some(FileKind::Symlink)) = (&data, node.kind()) else { return Ok(data) };
        if node.size() > long(node.room()) {
            return Ok(data);
        }
        let inside = Body::Local(self.view().target(node)?);
        if self.fork_offset(node, &inside, attr).is_none() {
            return Ok(data);
        }
        self.drop_map(node.number, Fork::Data, map.clone())?;
        Ok(inside)
    }

    /// Puts the target into blocks: each run of them has a header in version 5.
    pub(super) fn put_long_target(&mut self, node: &mut Node, target: &[u8]) -> Result<()> {
        let header = if self.sb.has_crc() { HEADER } else { 0 };
        let attr = self.body(node, Fork::Attr)?;
        let mut map = Map::default();
        let (mut rest, mut at) = (target, 0_usize);
        while !rest.is_empty() {
            let logical = map.extents.last().map_or(0, |last| last.end());
            let goal = map
                .extents
                .last()
                .map_or(self.goal(node.number), |last| last.startblock.saturating_add(last.blockcount));
            let wanted = long(rest.len().saturating_add(header)).div_ceil(self.sb.block_size());
            let taken = self.fill(node.number, Fork::Data, logical, wanted, goal)?;
            for extent in taken {
                let place = self.sb.run(extent.startblock, extent.blockcount)?;
                let mut bytes = vec![0; size(self.sb.bytes(extent.blockcount))];
                let here = bytes.len().saturating_sub(header).min(rest.len());
                let (now, later) = rest.split_at_checked(here).unwrap_or((rest, &[]));
                if self.sb.has_crc() {
                    put_be32(&mut bytes, 0, block::SYMLINK);
                    put_be32(&mut bytes, 4, u32::try_from(at).unwrap_or(u32::MAX));
                    put_be32(&mut bytes, 8, u32::try_from(now.len()).unwrap_or(u32::MAX));
                    self.describe(&mut bytes, place, node.number);
                }
                put(&mut bytes, header, now);
                self.put_checked(place, bytes)?;
                rest = later;
                at = at.saturating_add(here);
                map.push(extent);
            }
        }
        self.put_bodies(node, Body::Mapped(map), attr)
    }
}
