//! Replay: items put in place in memory, each only if what is there is older.

use std::collections::{BTreeMap, HashMap};

use super::item::{self, Buffer, Created, InodeItem, Place};
use super::transaction::{Item, Transaction};
use super::{Intent, damaged, inode, intent, too_much};
use crate::disk::bytes::{array, be32, be64, long, put, put_be32, put_be64, size};
use crate::error::{Error, Result};
use crate::fs::xfs::store::{BASIC, Store};
use crate::fs::xfs::superblock::{self, Superblock};
use crate::fs::xfs::{block, node};
use crate::limits;

/// Bytes of inodes in a cluster, for inodes of 256 bytes; in proportion for larger ones.
const CLUSTER: u64 = 8192;
const NO_INODE: u32 = u32::MAX;

/// What a replay has to remember.
pub(in crate::fs::xfs) struct Replay {
    sb: Superblock,
    /// Buffers that were freed, with how often; until the last time, nothing of them is replayed.
    cancelled: HashMap<Place, u32>,
    /// Buffers that were changed by transactions that began at `lsn`, and whether each is a superblock.
    pending: BTreeMap<Place, bool>,
    lsn: u64,
    intents: Begun,
    /// Whether something about quotas was left out, which have to be counted anew.
    lost_quotas: bool,
}

/// What was begun and not finished, in order.
#[derive(Debug, Default)]
struct Begun {
    items: BTreeMap<u64, Item>,
    /// Where those of a kind and identifier are.
    places: HashMap<(u16, u64), Vec<u64>>,
    next: u64,
}

impl Begun {
    /// Gives how many there are now.
    fn begin(&mut self, kind: u16, identifier: u64, item: &Item) -> usize {
        self.items.insert(self.next, item.clone());
        self.places.entry((kind, identifier)).or_default().push(self.next);
        self.next = self.next.saturating_add(1);
        self.items.len()
    }

    fn finish(&mut self, kind: u16, identifier: u64) {
        for place in self.places.remove(&(kind, identifier)).unwrap_or_default() {
            self.items.remove(&place);
        }
    }
}

impl Replay {
    pub(super) fn new(sb: &Superblock) -> Self {
        Self {
            sb: sb.clone(),
            cancelled: HashMap::new(),
            pending: BTreeMap::new(),
            lsn: 0,
            intents: Begun::default(),
            lost_quotas: false,
        }
    }

    /// What was begun and not finished: the items.
    pub(super) fn intents(&self) -> impl Iterator<Item = &Item> {
        self.intents.items.values()
    }

    /// What was begun and not finished and shows in files, in words.
    pub(in crate::fs::xfs) fn unfinished(&self) -> Option<&'static str> {
        let visible = self.intents().map(Item::kind).find(|kind| !item::INVISIBLE.contains(kind))?;
        item::INTENTS.iter().find(|(known, _)| *known == visible).map(|(_, what)| *what)
    }

    /// Whether everything that was begun was finished.
    pub(in crate::fs::xfs) fn has_no_intents(&self) -> bool {
        self.intents.items.is_empty()
    }

    /// The same, as what is to be done; none if only the kernel can do it.
    pub(in crate::fs::xfs) fn to_finish(&self) -> Result<Option<Vec<Intent>>> {
        let all: Option<Vec<Vec<Intent>>> = self.intents().map(intent::parse).collect::<Result<_>>()?;
        Ok(all.map(|all| all.concat()))
    }

    /// Notes that everything that was begun was finished.
    pub(in crate::fs::xfs) fn forget_intents(&mut self) {
        self.intents = Begun::default();
    }

    /// Whether quotas have to be counted anew.
    pub(in crate::fs::xfs) fn lost_quotas(&self) -> bool {
        self.lost_quotas
    }

    /// The first pass.
    pub(super) fn note_cancelled(&mut self, transaction: &Transaction) -> Result<()> {
        for item in &transaction.items {
            if item.kind() == item::BUFFER {
                let buffer = Buffer::parse(item)?;
                if buffer.has(item::CANCEL) {
                    let count = self.cancelled.entry(buffer.place).or_insert(0);
                    *count = count.saturating_add(1);
                }
            }
        }
        if self.cancelled.len() > limits::MAX_XFS_CANCELLED {
            return Err(too_much(self.cancelled.len()));
        }
        Ok(())
    }

    /// The second pass. New inodes and other buffers first, then inodes, then lists of unlinked ones, then what was freed.
    pub(super) fn apply(&mut self, store: &mut Store, transaction: &Transaction) -> Result<()> {
        if transaction.lsn != self.lsn {
            self.finish(store)?;
            self.lsn = transaction.lsn;
        }
        let mut ordered: Vec<(u8, &Item)> = Vec::with_capacity(transaction.items.len());
        for item in &transaction.items {
            ordered.push((rank(item)?, item));
        }
        ordered.sort_by_key(|(rank, _)| *rank);
        for (_, item) in ordered {
            self.item(store, item)?;
        }
        if store.changed().saturating_mul(size(BASIC)) > limits::MAX_XFS_REPLAYED {
            return Err(too_much(store.changed()));
        }
        Ok(())
    }

    /// Gives the buffers that were changed their LSN and checksum. Those of one LSN get it together, since it keeps more from
    /// being replayed over them.
    pub(super) fn finish(&mut self, store: &mut Store) -> Result<()> {
        for (place, is_superblock) in std::mem::take(&mut self.pending) {
            let mut bytes = self.read(store, place)?;
            if is_superblock {
                superblock::stamp(&mut bytes, self.lsn);
            } else if let Some(layout) = block::layout(&bytes) {
                block::stamp(&mut bytes, layout, self.lsn);
            } else {
                continue;
            }
            store.change(&bytes, place.block.saturating_mul(BASIC))?;
        }
        Ok(())
    }

    fn item(&mut self, store: &mut Store, item: &Item) -> Result<()> {
        match item.kind() {
            item::BUFFER => self.buffer(store, item),
            item::INODE => self.inode(store, item),
            item::ICREATE => self.create(store, item),
            item::DQUOT | item::QUOTAOFF => {
                self.lost_quotas = true;
                Ok(())
            }
            kind => self.intent(kind, item),
        }
    }

    fn intent(&mut self, kind: u16, item: &Item) -> Result<()> {
        let identifier = item::identifier(item);
        if item::INTENTS.iter().any(|(known, _)| *known == kind) {
            let held = self.intents.begin(kind, identifier, item);
            return if held > limits::MAX_XFS_INTENTS { Err(too_much(held)) } else { Ok(()) };
        }
        if let Some((begun, _)) = item::INTENTS.iter().find(|(known, _)| known.saturating_add(1) == kind) {
            self.intents.finish(*begun, identifier);
            return Ok(());
        }
        Err(crate::fs::xfs::unsupported("the log holds an item of an unknown kind").found(kind))
    }

    fn is_cancelled(&self, place: Place) -> bool {
        self.cancelled.contains_key(&place)
    }

    fn buffer(&mut self, store: &mut Store, item: &Item) -> Result<()> {
        let buffer = Buffer::parse(item)?;
        let place = buffer.place;
        if buffer.has(item::CANCEL) {
            if let Some(count) = self.cancelled.get_mut(&place) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    self.cancelled.remove(&place);
                }
            }
            return Ok(());
        }
        if self.is_cancelled(place) {
            return Ok(());
        }
        if buffer.has(item::QUOTA_BUFFER) {
            self.lost_quotas = true;
            return Ok(());
        }
        let mut bytes = self.read(store, place)?;
        let content = buffer.content();
        if self.is_newer(&bytes) {
            return Ok(());
        }
        if buffer.has(item::INODE_BUFFER) {
            self.unlinked(&mut bytes, &buffer, item)?;
        } else {
            put_chunks(&mut bytes, &buffer, item)?;
            if self.sb.has_crc() && !matches!(content, item::TYPE_UNKNOWN | item::TYPE_INODES) {
                self.pending.insert(place, content == item::TYPE_SUPERBLOCK);
            }
        }
        store.change(&bytes, place.block.saturating_mul(BASIC))
    }

    /// Whether a buffer of version 5 says that it was written after the present transaction began.
    fn is_newer(&self, bytes: &[u8]) -> bool {
        if !self.sb.has_crc() {
            return false;
        }
        let (lsn, uuid) = if be32(bytes, 0) == superblock::MAGIC {
            (be64(bytes, 240), self.sb.meta_uuid)
        } else {
            match block::layout(bytes).filter(|_| be32(bytes, 0) != block::ATTR_REMOTE) {
                Some(layout) => (be64(bytes, layout.lsn), array(bytes, layout.uuid)),
                None => return false,
            }
        };
        uuid == self.sb.meta_uuid && lsn != 0 && lsn != u64::MAX && lsn >= self.lsn
    }

    /// Of a buffer of inodes, only the links of the lists of unlinked ones count; the rest is logged inode by inode.
    fn unlinked(&self, bytes: &mut [u8], buffer: &Buffer, item: &Item) -> Result<()> {
        let mut logged = bytes.to_vec();
        put_chunks(&mut logged, buffer, item)?;
        let len = self.sb.inode_len();
        for start in (0..bytes.len()).step_by(len) {
            let at = start.saturating_add(96);
            let is_logged = buffer.runs.iter().any(|(first, count)| {
                let chunk = at / item::CHUNK;
                (*first..first.saturating_add(*count)).contains(&chunk)
            });
            if !is_logged {
                continue;
            }
            let next = be32(&logged, at);
            if next == 0 {
                return Err(damaged("a list of unlinked inodes is impossible"));
            }
            put_be32(bytes, at, next);
            if self.sb.has_crc()
                && let Some(inode) = bytes.get_mut(start..).and_then(|rest| rest.get_mut(..len))
            {
                block::seal(inode, block::INODE_CRC);
            }
        }
        Ok(())
    }

    fn inode(&self, store: &mut Store, item: &Item) -> Result<()> {
        let form = InodeItem::parse(item)?;
        if self.is_cancelled(form.place) {
            return Ok(());
        }
        let mut bytes = self.read(store, form.place)?;
        let at = size(u64::from(form.offset));
        let raw = bytes.get_mut(at..).and_then(|rest| rest.get_mut(..self.sb.inode_len()));
        let raw = raw.ok_or_else(|| damaged("an inode is outside of its buffer").found(form.number))?;
        inode::apply(raw, item, &form, &self.sb, self.lsn)?;
        store.change(&bytes, form.place.block.saturating_mul(BASIC))
    }

    /// New inodes of version 3, all of them free.
    fn create(&self, store: &mut Store, item: &Item) -> Result<()> {
        let created = Created::parse(item);
        let (len, per_block) = (self.sb.inode_len(), 1_u64.wrapping_shl(self.sb.inopblog));
        let end = u64::from(created.agbno).saturating_add(u64::from(created.blocks));
        let right = self.sb.has_crc()
            && created.agno < self.sb.agcount
            && u64::from(created.inode_len) == long(len)
            && (1..=64).contains(&created.count)
            && u64::from(created.count) == u64::from(created.blocks).saturating_mul(per_block)
            && created.agbno > 0
            && end <= u64::from(self.sb.ag_len(created.agno));
        if !right {
            return Err(damaged("new inodes are impossible"));
        }
        let cluster = self.cluster_blocks();
        let start = self.sb.place(created.agno, created.agbno);
        let (step, count) = (self.sb.bytes(cluster), u64::from(created.blocks).div_ceil(cluster.max(1)));
        for index in 0..count {
            let block = start.saturating_add(index.saturating_mul(step)) / BASIC;
            if self.is_cancelled(Place { block, len: u32::try_from(step / BASIC).unwrap_or(u32::MAX) }) {
                return Ok(());
            }
        }
        let log = self.sb.agblklog;
        let first = u64::from(created.agno).wrapping_shl(log) | u64::from(created.agbno);
        let first = first.wrapping_shl(self.sb.inopblog);
        let mut bytes = vec![0; size(self.sb.bytes(u64::from(created.blocks)))];
        for (number, raw) in (first..).zip(bytes.chunks_mut(len)) {
            put(raw, 0, &node::MAGIC.to_be_bytes());
            put(raw, 4, &[3]);
            put_be32(raw, 92, created.generation);
            put_be32(raw, 96, NO_INODE);
            put_be64(raw, 152, number);
            put(raw, 160, &self.sb.meta_uuid);
            block::seal(raw, block::INODE_CRC);
        }
        store.change(&bytes, start)
    }

    /// Blocks of one buffer of inodes.
    fn cluster_blocks(&self) -> u64 {
        let scaled = CLUSTER.saturating_mul(long(self.sb.inode_len()) / 256);
        let wanted = scaled.wrapping_shr(self.sb.blocklog);
        let bytes = if u64::from(self.sb.inoalignmt()) >= wanted { scaled } else { CLUSTER };
        bytes.wrapping_shr(self.sb.blocklog).max(1)
    }

    fn read(&self, store: &Store, place: Place) -> Result<Vec<u8>> {
        let end = place.block.checked_add(u64::from(place.len)).and_then(|end| end.checked_mul(BASIC));
        if end.is_none_or(|end| end > store.len()) {
            return Err(damaged("it holds a block outside of the file system").found(place.block));
        }
        let mut bytes = vec![0; size(u64::from(place.len).saturating_mul(BASIC))];
        store.read(&mut bytes, place.block.saturating_mul(BASIC))?;
        Ok(bytes)
    }
}

/// The order of an item in its transaction.
fn rank(item: &Item) -> Result<u8, Error> {
    Ok(match item.kind() {
        item::ICREATE => 0,
        item::BUFFER => {
            let buffer = Buffer::parse(item)?;
            match () {
                () if buffer.has(item::CANCEL) => 3,
                () if buffer.has(item::INODE_BUFFER) => 2,
                () => 0,
            }
        }
        _ => 1,
    })
}

/// Puts the chunks that were logged in place. A region may be shorter than its run, which then goes on in the next.
fn put_chunks(bytes: &mut [u8], buffer: &Buffer, item: &Item) -> Result<()> {
    let mut next = 1;
    for (first, count) in &buffer.runs {
        let (mut at, end) = (*first, first.saturating_add(*count));
        while at < end {
            let region = item.region(next);
            let chunks = (region.len() / item::CHUNK).min(end.saturating_sub(at));
            let len = chunks.saturating_mul(item::CHUNK);
            let room = bytes.get_mut(at.saturating_mul(item::CHUNK)..).and_then(|rest| rest.get_mut(..len));
            let (Some(room), Some(logged), 1..) = (room, region.get(..len), chunks) else {
                return Err(damaged("a buffer was logged in part"));
            };
            room.copy_from_slice(logged);
            at = at.saturating_add(chunks);
            next = next.saturating_add(1);
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "limits are far from the ends of their types")]
mod tests {
    use super::*;

    fn replay() -> Replay {
        let mut raw = crate::fs::xfs::tests::superblock();
        raw.truncate(512);
        Replay::new(&Superblock::parse(raw, u64::MAX).unwrap())
    }

    #[test]
    fn as_many_buffers_are_known_to_be_freed_as_the_limit() {
        let mut replay = replay();
        let place = |block: usize| Place { block: long(block), len: 1 };
        replay.cancelled.extend((0..limits::MAX_XFS_CANCELLED - 1).map(|block| (place(block), 1)));
        let fits = |replay: &mut Replay| replay.note_cancelled(&Transaction::default()).is_ok();
        assert!(fits(&mut replay));
        replay.cancelled.insert(place(usize::MAX), 1);
        assert!(fits(&mut replay));
        replay.cancelled.insert(place(usize::MAX - 1), 1);
        assert!(!fits(&mut replay));
    }

    #[test]
    fn as_many_changes_are_under_way_as_the_limit() {
        let mut replay = replay();
        let (kind, item) = (item::INTENTS[0].0, Item::default());
        for _ in 0..limits::MAX_XFS_INTENTS {
            replay.intent(kind, &item).unwrap();
        }
        assert!(replay.intent(kind, &item).is_err());
        // What was finished is not under way any more.
        replay.intent(kind + 1, &item).unwrap();
        assert!(replay.has_no_intents() && replay.intent(kind, &item).is_ok());
    }
}
