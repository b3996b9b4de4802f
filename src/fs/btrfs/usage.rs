//! How much each kind of chunk holds and has in use, from the block groups.

use super::chunk::{self, Chunk};
use super::key::{Key, id, kind};
use super::{Core, corrupt, features, used};
use crate::disk::bytes::le64;
use crate::error::Result;

/// One line of `btrfs filesystem df`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// `Data`, `System`, `Metadata`, or `Data+Metadata`.
    pub kind: &'static str,
    /// `single`, `DUP`, `RAID1` …
    pub profile: &'static str,
    /// Bytes that its chunks can hold.
    pub total: u64,
    /// Bytes in use in them.
    pub used: u64,
}

impl Core {
    /// Each chunk with the bytes that are in use in it.
    pub(super) fn each_group(&self, visit: &mut dyn FnMut(&Chunk, u64)) -> Result<()> {
        let has_own = self.store.sb.compat_ro & features::COMPAT_RO_BLOCK_GROUP_TREE != 0;
        let tree = self.store.find_tree(if has_own { id::BLOCK_GROUP_TREE } else { id::EXTENT_TREE })?;
        let tree = tree.ok_or_else(|| corrupt("there is no tree of block groups"))?;
        for chunk in self.store.chunks.iter() {
            let key = Key::new(chunk.start, kind::BLOCK_GROUP_ITEM, chunk.len);
            let item = self.store.get(&tree, key)?;
            let item = item.ok_or_else(|| corrupt("a chunk without a block group").offset(chunk.start))?;
            if le64(&item, 16) != chunk.flags || used(&item) > chunk.len {
                return Err(corrupt("a block group contradicts its chunk").offset(chunk.start));
            }
            visit(chunk, used(&item));
        }
        Ok(())
    }

    pub(super) fn usage(&self) -> Result<Vec<Usage>> {
        let mut all: Vec<Usage> = Vec::new();
        self.each_group(&mut |chunk, used| {
            let (kind, profile) = (name(chunk.flags), chunk.profile.name());
            match all.iter_mut().find(|usage| usage.kind == kind && usage.profile == profile) {
                Some(usage) => {
                    usage.total = usage.total.saturating_add(chunk.len);
                    usage.used = usage.used.saturating_add(used);
                }
                None => all.push(Usage { kind, profile, total: chunk.len, used }),
            }
        })?;
        Ok(all)
    }

    /// Bytes of the devices that no copy of anything takes.
    pub(super) fn free_bytes(&self) -> Result<u64> {
        let mut taken = 0_u64;
        self.each_group(&mut |chunk, used| {
            let (copies, of) = chunk.factor();
            let bytes = used.saturating_mul(copies).checked_div(of).unwrap_or(used);
            taken = taken.saturating_add(bytes);
        })?;
        Ok(self.store.sb.total_bytes.saturating_sub(taken))
    }
}

const fn name(flags: u64) -> &'static str {
    const MIXED: u64 = chunk::DATA | chunk::METADATA;
    match flags & (MIXED | chunk::SYSTEM) {
        chunk::DATA => "Data",
        chunk::METADATA => "Metadata",
        MIXED => "Data+Metadata",
        _ => "System",
    }
}
