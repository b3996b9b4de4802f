//! Thin volumes, read from the metadata of device mapper's thin provisioning target (`drivers/md/dm-thin-metadata.c`,
//! `drivers/md/persistent-data/dm-btree*`).

use std::collections::HashMap;
use std::fmt;
use std::ops::{ControlFlow, Range};
use std::sync::{Arc, Mutex, PoisonError};

use crate::disk::bytes::{le32, le64, long, size};
use crate::disk::{
    Disk, DiskMut, Extent, ExtentKind, Fingerprint, Hints, HostRange, SectorSize, Visit, read_vec, readable,
};
use crate::error::{Error, Result};
use crate::limits;

/// Bytes of a metadata block, whatever the superblock says.
const BLOCK: u64 = 4096;
const BLOCK_LEN: usize = 4096;
const MAGIC: u64 = 27_022_010;
const SUPERBLOCK_XOR: u32 = 160_774;
const NODE_XOR: u32 = 121_107;
const NODE_HEADER: usize = 32;
const INTERNAL: u32 = 1;
const LEAF: u32 = 2;
/// Levels of a tree: nodes have 84 entries at least, and more levels than that number more blocks than there can be.
const DEPTH: u32 = 12;
/// Of a mapping's value: the low bits are a time.
const TIME_BITS: u32 = 24;

/// A thin pool: its metadata and its data.
pub(super) struct Pool {
    meta: Arc<dyn DiskMut>,
    data: Arc<dyn DiskMut>,
    /// Bytes of a block of data.
    block: u64,
    /// The tree of all volumes' trees.
    root: u64,
    /// The tree of what is known of each volume.
    details: u64,
    nodes: Mutex<HashMap<u64, Arc<Node>>>,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("meta", &self.meta).field("data", &self.data).field("block", &self.block).finish()
    }
}

/// A node of a tree, its checksum verified.
struct Node {
    is_leaf: bool,
    keys: Vec<u64>,
    /// The first eight bytes of each value: a block for inner nodes.
    values: Vec<u64>,
}

impl Pool {
    /// Opens the pool whose data blocks have `block` bytes, as the group's metadata says.
    pub(super) fn open(meta: Arc<dyn DiskMut>, data: Arc<dyn DiskMut>, block: u64) -> Result<Self> {
        if meta.len() < BLOCK {
            return Err(wrong("has no superblock"));
        }
        let bytes = read_vec(&*meta, 0, BLOCK_LEN)?;
        check(&bytes, SUPERBLOCK_XOR, 0)?;
        if le64(&bytes, 32) != MAGIC || !matches!(le32(&bytes, 40), 1 | 2) {
            return Err(wrong("is not of a thin pool"));
        }
        if le32(&bytes, 360) != 0 {
            return Err(Error::unsupported("lvm.unsupported", "a thin pool has features that are not known")
                .found(format!("{:#x}", le32(&bytes, 360))));
        }
        let own = u64::from(le32(&bytes, 336)).saturating_mul(512);
        if own != block || !(4096..=1 << 30).contains(&block) {
            return Err(wrong("has another chunk size than LVM's").expected(block).found(own));
        }
        Ok(Self { meta, data, block, root: le64(&bytes, 320), details: le64(&bytes, 328), nodes: Mutex::default() })
    }

    fn node(&self, block: u64) -> Result<Arc<Node>> {
        let lock = || self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(node) = lock().get(&block) {
            return Ok(Arc::clone(node));
        }
        let node = Arc::new(self.read_node(block)?);
        let mut nodes = lock();
        if nodes.len() >= limits::MAX_THIN_NODES {
            nodes.clear();
        }
        nodes.insert(block, Arc::clone(&node));
        Ok(node)
    }

    fn read_node(&self, block: u64) -> Result<Node> {
        let offset =
            block.checked_mul(BLOCK).filter(|at| at.checked_add(BLOCK).is_some_and(|end| end <= self.meta.len()));
        let offset = offset.ok_or_else(|| wrong("leads past its end").found(block))?;
        let bytes = read_vec(&*self.meta, offset, BLOCK_LEN)?;
        check(&bytes, NODE_XOR, block).map_err(|error| error.offset(offset))?;
        let (flags, count, most) = (le32(&bytes, 4), le32(&bytes, 16), le32(&bytes, 20));
        let (count, most) = (size(u64::from(count)), size(u64::from(most)));
        let value = size(u64::from(le32(&bytes, 24)));
        let is_leaf = match flags {
            INTERNAL => false,
            LEAF => true,
            _ => return Err(wrong("has a node that is neither inner nor a leaf").offset(offset)),
        };
        let entry = value.saturating_add(8);
        let fits = most.saturating_mul(entry) <= BLOCK_LEN.saturating_sub(NODE_HEADER);
        if count > most || !fits || !(8..=64).contains(&value) || (!is_leaf && value != 8) {
            return Err(wrong("has a node of impossible size").offset(offset));
        }
        let values_at = most.saturating_mul(8).saturating_add(NODE_HEADER);
        let keys: Vec<u64> =
            (0..count).map(|i| le64(&bytes, i.saturating_mul(8).saturating_add(NODE_HEADER))).collect();
        let values = (0..count).map(|i| le64(&bytes, i.saturating_mul(value).saturating_add(values_at))).collect();
        if keys.windows(2).any(|pair| pair.first() >= pair.last()) {
            return Err(wrong("has a node whose keys are not in order").offset(offset));
        }
        Ok(Node { is_leaf, keys, values })
    }

    /// The first entry of the tree at `root` whose key is `key` or larger.
    fn find(&self, root: u64, key: u64) -> Result<Option<(u64, u64)>> {
        // Where the leaf ends before the key, the first entry of the subtree that follows is the one.
        match self.descend(root, key)? {
            (Some(found), _) => Ok(Some(found)),
            (None, None) => Ok(None),
            (None, Some(next)) => match self.descend(root, next)? {
                (Some(found), _) if found.0 >= next => Ok(Some(found)),
                _ => Err(wrong("has a tree whose keys are not in order")),
            },
        }
    }

    /// Goes down to the leaf that would hold `key`. Gives the first entry from there on in that leaf, and the smallest key of the
    /// subtree that follows it.
    #[allow(clippy::type_complexity, reason = "two optional results of one walk")]
    fn descend(&self, root: u64, key: u64) -> Result<(Option<(u64, u64)>, Option<u64>)> {
        let (mut block, mut next) = (root, None);
        for _ in 0..DEPTH {
            let node = self.node(block)?;
            let above = node.keys.partition_point(|have| *have < key);
            if node.is_leaf {
                let entry = node.keys.get(above).zip(node.values.get(above));
                return Ok((entry.map(|(key, value)| (*key, *value)), next));
            }
            let is_exact = node.keys.get(above) == Some(&key);
            let child = if is_exact { above } else { above.saturating_sub(1) };
            if let Some(follows) = node.keys.get(child.saturating_add(1)) {
                next = Some(*follows);
            }
            match node.values.get(child) {
                Some(child) => block = *child,
                None => return Ok((None, next)),
            }
        }
        Err(wrong("has a tree that is too deep"))
    }

    /// The value of exactly `key`.
    fn get(&self, root: u64, key: u64) -> Result<Option<u64>> {
        Ok(self.find(root, key)?.filter(|(found, _)| *found == key).map(|(_, value)| value))
    }
}

/// A thin volume: the blocks that were never written are holes.
#[derive(Debug)]
pub(super) struct Thin {
    pool: Arc<Pool>,
    id: u64,
    root: u64,
    len: u64,
}

impl Thin {
    /// The volume with the device id `id`, of `len` bytes.
    pub(super) fn open(pool: Arc<Pool>, id: u64, len: u64) -> Result<Self> {
        let unknown = || wrong("has no volume of that number").found(id);
        let root = pool.get(pool.root, id)?.ok_or_else(unknown)?;
        pool.get(pool.details, id)?.ok_or_else(unknown)?;
        Ok(Self { pool, id, root, len })
    }

    /// Calls `each` for runs of `range`, in order, with the place in the pool's data of what is mapped.
    fn runs(&self, range: Range<u64>, each: &mut Run<'_>) -> Result<()> {
        let block = self.pool.block;
        let mut at = range.start;
        while at < range.end {
            let number = at.checked_div(block).unwrap_or(0);
            let found = self.pool.find(self.root, number)?;
            let (end, place) = match found {
                Some((key, value)) if key == number => {
                    let inside = at.checked_rem(block).unwrap_or(0);
                    let start = (value >> TIME_BITS).checked_mul(block);
                    let start =
                        start.filter(|start| start.checked_add(block).is_some_and(|end| end <= self.pool.data.len()));
                    let start = start.ok_or_else(|| wrong("maps a block past the end of the pool's data"))?;
                    (at.saturating_sub(inside).saturating_add(block), Some(start.saturating_add(inside)))
                }
                Some((key, _)) => (key.saturating_mul(block), None),
                None => (range.end, None),
            };
            let end = end.min(range.end);
            if each(at..end, place)?.is_break() {
                return Ok(());
            }
            at = end;
        }
        Ok(())
    }
}

/// What [`Thin::runs`] calls.
type Run<'a> = dyn FnMut(Range<u64>, Option<u64>) -> Result<ControlFlow<()>> + 'a;

impl Disk for Thin {
    fn len(&self) -> u64 {
        self.len
    }

    fn sector_size(&self) -> SectorSize {
        self.pool.data.sector_size()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let end = offset.saturating_add(long(buf.len()));
        let mut rest = buf;
        self.runs(offset..end, &mut |range, place| {
            let len = size(range.end.saturating_sub(range.start));
            if let Some((head, tail)) = std::mem::take(&mut rest).split_at_mut_checked(len) {
                rest = tail;
                match place {
                    Some(place) => self.pool.data.read_at(head, place)?,
                    None => head.fill(0),
                }
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    fn extents(&self, range: Range<u64>, visit: &mut Visit<'_>) -> Result<()> {
        self.runs(range, &mut |run, place| {
            let Some(place) = place else {
                return Ok(visit(Extent { range: run, kind: ExtentKind::Hole, depth: 0, place: None }));
            };
            let mut flow = ControlFlow::Continue(());
            let len = run.end.saturating_sub(run.start);
            self.pool.data.extents(place..place.saturating_add(len), &mut |extent| {
                let shift = |there: u64| there.saturating_sub(place).saturating_add(run.start);
                flow = visit(Extent { range: shift(extent.range.start)..shift(extent.range.end), ..extent });
                flow
            })?;
            Ok(flow)
        })
    }

    fn host(&self, range: Range<u64>) -> Result<Option<HostRange>> {
        let mut found = None;
        self.runs(range, &mut |run, place| {
            if let Some(place) = place {
                found = self.pool.data.host(place..place.saturating_add(run.end.saturating_sub(run.start)))?;
            }
            Ok(ControlFlow::Break(()))
        })?;
        Ok(found)
    }

    fn prefetch(&self, range: Range<u64>) {
        let _ = self.runs(range, &mut |run, place| {
            if let Some(place) = place {
                self.pool.data.prefetch(place..place.saturating_add(run.end.saturating_sub(run.start)));
            }
            Ok(ControlFlow::Continue(()))
        });
    }

    fn hints(&self) -> Hints {
        self.pool.data.hints()
    }

    fn fingerprint(&self) -> Result<Fingerprint> {
        let (meta, data) = (self.pool.meta.fingerprint()?, self.pool.data.fingerprint()?);
        Ok(Fingerprint::of(&[&meta.0, &data.0, &self.id.to_le_bytes(), &self.len.to_le_bytes()]))
    }

    fn describe(&self) -> (&'static str, String) {
        ("thin", format!("volume {}", self.id))
    }

    fn below(&self) -> Vec<Arc<dyn Disk>> {
        vec![readable(&self.pool.data), readable(&self.pool.meta)]
    }
}

/// Verifies a block's checksum and that it is where it says.
fn check(bytes: &[u8], xor: u32, block: u64) -> Result<()> {
    let found = checksum(bytes, xor);
    if le32(bytes, 0) != found || le64(bytes, 8) != block {
        return Err(wrong("has a block with a wrong checksum or place")
            .expected(format!("{:#x}", le32(bytes, 0)))
            .found(format!("{found:#x}")));
    }
    Ok(())
}

/// CRC-32C without the inversion at its end, and with what tells kinds of blocks apart.
pub(super) fn checksum(block: &[u8], xor: u32) -> u32 {
    !crc32c::crc32c(block.get(4..).unwrap_or_default()) ^ xor
}

fn wrong(what: &str) -> Error {
    Error::corrupt("lvm.thin", format!("the metadata of a thin pool {what}"))
}

#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::indexing_slicing,
    reason = "tests build their input"
)]
mod tests;
