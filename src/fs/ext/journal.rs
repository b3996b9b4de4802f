//! The journal (kernel documentation, ext4, "Journal (jbd2)"): which blocks a crash left in it, and how to leave it empty.
//!
//! Two passes as in the kernel: the first finds the last complete transaction and the revoked blocks, the second the newest
//! copy of every block that is not revoked. Nothing is written here; [`Replay::blocks`] says what to write.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use super::checksum::{crc32_be, crc32c};
use super::map::{END, Run};
use super::superblock::Superblock;
use super::view::{Blocks, Journalled, View};
use crate::disk::bytes::{array, be32, put_be32, u8_at};
use crate::error::{Error, Result};
use crate::limits;

/// `h_magic` of every block that the journal itself wrote.
pub(super) const MAGIC: u32 = 0xc03b_3998;

const DESCRIPTOR: u32 = 1;
const COMMIT: u32 = 2;
const SUPERBLOCK_V2: u32 = 4;
const REVOKE: u32 = 5;

const COMPAT_CHECKSUM: u32 = 0x1;
const INCOMPAT_64BIT: u32 = 0x2;
const INCOMPAT_ASYNC_COMMIT: u32 = 0x4;
const INCOMPAT_CSUM_V2: u32 = 0x8;
const INCOMPAT_CSUM_V3: u32 = 0x10;
const INCOMPAT_FAST_COMMIT: u32 = 0x20;
const INCOMPAT_KNOWN: u32 = 0x3f;

const TAG_ESCAPED: u32 = 1;
const TAG_SAME_UUID: u32 = 2;
const TAG_LAST: u32 = 8;

/// What a journal holds that is not yet in place.
#[derive(Clone, Debug, Default)]
pub(super) struct Replay {
    /// Each block with its newest copy.
    pub(super) blocks: BTreeMap<u64, Journalled>,
    /// The superblock of the empty journal, and its block on the volume.
    pub(super) emptied: Option<(u64, Vec<u8>)>,
    /// Whether an error was noted in the journal.
    pub(super) errors: bool,
}

/// The journal's own superblock, big-endian.
struct Header {
    raw: Vec<u8>,
}

impl Header {
    fn parse(raw: Vec<u8>, block_size: u64) -> Result<Self> {
        let header = Self { raw };
        if header.field(0) != MAGIC || !matches!(header.field(4), 3 | 4) {
            return Err(damaged("it has no superblock"));
        }
        if u64::from(header.field(0xc)) != block_size {
            return Err(damaged("its block size is not the file system's").found(header.field(0xc)));
        }
        let unknown = header.incompat() & !INCOMPAT_KNOWN;
        if unknown != 0 {
            return Err(Error::unsupported("ext.journal", "the journal has features that are not known")
                .found(format!("{unknown:#x}")));
        }
        if header.has_csum() && (u8_at(&header.raw, 0x50) != 4 || header.field(0xfc) != header.checksum()) {
            return Err(damaged("the checksum of its superblock is wrong"));
        }
        if header.first() == 0 || header.first() >= header.end() {
            return Err(damaged("its first block is impossible").found(header.first()));
        }
        Ok(header)
    }

    fn field(&self, at: usize) -> u32 {
        be32(&self.raw, at)
    }

    fn is_v2(&self) -> bool {
        self.field(4) == SUPERBLOCK_V2
    }

    fn compat(&self) -> u32 {
        if self.is_v2() { self.field(0x24) } else { 0 }
    }

    fn incompat(&self) -> u32 {
        if self.is_v2() { self.field(0x28) } else { 0 }
    }

    fn has(&self, feature: u32) -> bool {
        self.incompat() & feature != 0
    }

    fn has_csum(&self) -> bool {
        self.has(INCOMPAT_CSUM_V2 | INCOMPAT_CSUM_V3)
    }

    /// One past the last block that ordinary transactions use; fast commits have the rest.
    fn end(&self) -> u32 {
        let fast = match (self.has(INCOMPAT_FAST_COMMIT), self.field(0x54)) {
            (false, _) => 0,
            (true, 0) => 256,
            (true, blocks) => blocks,
        };
        self.field(0x10).saturating_sub(fast)
    }

    fn first(&self) -> u32 {
        self.field(0x14)
    }

    fn sequence(&self) -> u32 {
        self.field(0x18)
    }

    /// Where the oldest transaction starts; 0 for an empty journal.
    fn start(&self) -> u32 {
        self.field(0x1c)
    }

    /// What the checksums of the journal's blocks start from.
    fn seed(&self) -> u32 {
        crc32c(!0, &array::<16>(&self.raw, 0x30))
    }

    fn checksum(&self) -> u32 {
        let mut raw = self.raw.get(..1024).unwrap_or_default().to_vec();
        put_be32(&mut raw, 0xfc, 0);
        crc32c(!0, &raw)
    }

    /// The superblock of the same journal with nothing in it, the next transaction being `sequence`.
    fn emptied(&self, sequence: u32) -> Vec<u8> {
        let mut empty = Self { raw: self.raw.clone() };
        put_be32(&mut empty.raw, 0x18, sequence);
        put_be32(&mut empty.raw, 0x1c, 0);
        if empty.has_csum() {
            let sum = empty.checksum();
            put_be32(&mut empty.raw, 0xfc, sum);
        }
        empty.raw
    }

    /// Bytes of a tag without the UUID that may follow.
    fn tag_len(&self) -> usize {
        if self.has(INCOMPAT_CSUM_V3) {
            return 16;
        }
        let sum: usize = if self.has(INCOMPAT_CSUM_V2) { 2 } else { 0 };
        sum.saturating_add(if self.has(INCOMPAT_64BIT) { 12 } else { 8 })
    }
}

/// A block that a transaction logged.
#[derive(Clone, Copy, Debug)]
struct Tag {
    block: u64,
    checksum: u32,
    escaped: bool,
}

/// Reads the journal of the file system.
///
/// # Errors
/// When what it holds cannot be trusted or is not understood, as in the kernel: nothing of it is replayed then.
pub(super) fn read(blocks: &Blocks, sb: &Superblock) -> Result<Replay> {
    let (log, header) = open(blocks, sb)?;
    let at = log.place(0)?;
    Reader { log, header, sb }.replay(at)
}

/// The blocks on the volume that an empty journal keeps for its log, ascending in the journal's file; none if anything is in it.
///
/// # Errors
/// As for [`read`], for as much of the journal as this looks at.
pub(super) fn idle(blocks: &Blocks, sb: &Superblock) -> Result<Vec<Range<u64>>> {
    if !sb.has_journal() || sb.journal_inode() == 0 || sb.needs_recovery() {
        return Ok(Vec::new());
    }
    let (log, header) = open(blocks, sb)?;
    if header.start() != 0 {
        return Ok(Vec::new());
    }
    let all = u64::from(header.first())..u64::from(header.field(0x10));
    let idle = log.runs.iter().filter(|run| !run.unwritten).filter_map(|run| run.clip(&all));
    Ok(idle.map(|run| run.physical..run.physical.saturating_add(run.len)).collect())
}

fn open<'a>(blocks: &'a Blocks, sb: &Superblock) -> Result<(Log<'a>, Header)> {
    if !sb.has_journal() {
        return Err(damaged("there is none"));
    }
    if sb.journal_inode() == 0 {
        return Err(Error::unsupported("ext.journal", "the journal is on another device"));
    }
    let view = View::new(blocks, std::sync::Arc::new(sb.clone()));
    let node = view.node(sb.journal_inode())?;
    let runs = view.runs(&node, 0..END)?;
    let log = Log { blocks, runs };
    let header = Header::parse(log.block(0)?, sb.block_size.get())?;
    let end = log.runs.last().map_or(0, Run::end);
    if u64::from(header.field(0x10)) > end {
        return Err(damaged("it is larger than its file").found(header.field(0x10)));
    }
    Ok((log, header))
}

/// The journal's file.
struct Log<'a> {
    blocks: &'a Blocks,
    runs: Vec<Run>,
}

impl Log<'_> {
    /// The block on the volume.
    fn place(&self, logical: u32) -> Result<u64> {
        let logical = u64::from(logical);
        let index = self.runs.partition_point(|run| run.end() <= logical);
        let run = self.runs.get(index).and_then(|run| run.clip(&(logical..logical.saturating_add(1))));
        run.filter(|run| !run.unwritten).map(|run| run.physical).ok_or_else(|| damaged("its file has a hole"))
    }

    fn block(&self, logical: u32) -> Result<Vec<u8>> {
        self.blocks.journalled_copy(Journalled { at: self.place(logical)?, escaped: false })
    }
}

struct Reader<'a> {
    log: Log<'a>,
    header: Header,
    sb: &'a Superblock,
}

/// The complete transactions: for each descriptor its sequence and its tags with the block that holds the copy.
#[derive(Default)]
struct Scan {
    logged: Vec<(u32, Vec<(Tag, u32)>)>,
    /// The last sequence that revoked a block.
    revoked: HashMap<u64, u32>,
    next: u32,
}

impl Reader<'_> {
    fn replay(&self, header_at: u64) -> Result<Replay> {
        let mut replay = Replay { errors: self.header.field(0x20) != 0, ..Replay::default() };
        if self.header.start() == 0 {
            self.refuse_fast_commits(self.header.sequence())?;
            return Ok(replay);
        }
        let scan = self.scan()?;
        self.refuse_fast_commits(scan.next)?;
        for (sequence, tags) in &scan.logged {
            for (tag, logical) in tags {
                let revoked = scan.revoked.get(&tag.block).is_some_and(|by| !before(*by, *sequence));
                if revoked {
                    continue;
                }
                if tag.block >= self.sb.blocks_count {
                    return Err(damaged("it holds a block outside of the file system").found(tag.block));
                }
                self.verify(tag, *sequence, *logical)?;
                let copy = Journalled { at: self.log.place(*logical)?, escaped: tag.escaped };
                replay.blocks.insert(tag.block, copy);
            }
        }
        replay.emptied = Some((header_at, self.header.emptied(scan.next.wrapping_add(1))));
        Ok(replay)
    }

    /// Finds the complete transactions. The log ends where a block is not the journal's or not of the expected sequence.
    fn scan(&self) -> Result<Scan> {
        let mut scan = Scan { next: self.header.sequence(), ..Scan::default() };
        let mut open = Scan::default();
        let mut at = self.header.start();
        let mut sum = !0;
        if at < self.header.first() || at >= self.header.end() {
            return Err(damaged("its start is impossible").found(at));
        }
        // Every block is visited at most once, so a log that bites its tail ends.
        let mut left = self.header.end().saturating_sub(self.header.first());
        while left > 0 {
            let bytes = self.log.block(at)?;
            if be32(&bytes, 0) != MAGIC || be32(&bytes, 8) != scan.next {
                break;
            }
            (at, left) = (self.after(at, 1), left.saturating_sub(1));
            match be32(&bytes, 4) {
                DESCRIPTOR => {
                    if !self.tail_is_right(&bytes) {
                        break;
                    }
                    let tags = self.tags(&bytes);
                    let count = u32::try_from(tags.len()).unwrap_or(u32::MAX);
                    if count > left {
                        break;
                    }
                    sum = self.sum_of(sum, &bytes, at, count)?;
                    let places = (0..count).map(|index| self.after(at, index));
                    open.logged.push((scan.next, tags.into_iter().zip(places).collect()));
                    (at, left) = (self.after(at, count), left.saturating_sub(count));
                }
                REVOKE => {
                    if !self.tail_is_right(&bytes) {
                        break;
                    }
                    for block in self.revoked(&bytes)? {
                        open.revoked.insert(block, scan.next);
                    }
                }
                COMMIT => {
                    if !self.commit_is_right(&bytes, sum) {
                        break;
                    }
                    sum = !0;
                    scan.logged.append(&mut open.logged);
                    scan.revoked.extend(open.revoked.drain());
                    scan.next = scan.next.wrapping_add(1);
                }
                _ => break,
            }
            let held = scan.revoked.len().saturating_add(open.revoked.len());
            if held > limits::MAX_EXT_REVOKED {
                return Err(Error::limit("ext.limit", "the journal revokes too many blocks").found(held));
            }
        }
        Ok(scan)
    }

    /// The block `count` after `at`; the log is a ring.
    fn after(&self, at: u32, count: u32) -> u32 {
        let next = u64::from(at).saturating_add(u64::from(count));
        let (first, end) = (u64::from(self.header.first()), u64::from(self.header.end()));
        let wrapped = if next >= end { next.saturating_sub(end).saturating_add(first) } else { next };
        u32::try_from(wrapped).unwrap_or(u32::MAX)
    }

    fn tags(&self, bytes: &[u8]) -> Vec<Tag> {
        let v3 = self.header.has(INCOMPAT_CSUM_V3);
        let len = self.header.tag_len();
        let end = bytes.len().saturating_sub(if self.header.has_csum() { 4 } else { 0 });
        let mut rest = bytes.get(12..end).unwrap_or_default();
        let mut tags = Vec::new();
        while let Some(tag) = rest.get(..len) {
            let high = |at| if self.header.has(INCOMPAT_64BIT) { u64::from(be32(tag, at)) << 32 } else { 0 };
            let low = u64::from(be32(tag, 0));
            let (flags, checksum, block) = if v3 {
                (be32(tag, 4), be32(tag, 12), low | high(8))
            } else {
                // Two fields of 16 bits: checksum and flags.
                let both = be32(tag, 4);
                (both & 0xffff, both >> 16, low | high(8))
            };
            tags.push(Tag { block, checksum, escaped: flags & TAG_ESCAPED != 0 });
            let uuid = if flags & TAG_SAME_UUID == 0 { 16 } else { 0 };
            if flags & TAG_LAST != 0 {
                break;
            }
            rest = rest.get(len.saturating_add(uuid)..).unwrap_or_default();
        }
        tags
    }

    fn revoked(&self, bytes: &[u8]) -> Result<Vec<u64>> {
        let end = usize::try_from(be32(bytes, 12)).unwrap_or(usize::MAX);
        let room = bytes.len().saturating_sub(if self.header.has_csum() { 4 } else { 0 });
        if end > room {
            return Err(damaged("a list of revoked blocks is too long").found(end));
        }
        let list = bytes.get(16..end).unwrap_or_default();
        Ok(if self.header.has(INCOMPAT_64BIT) {
            list.as_chunks::<8>().0.iter().map(|block| u64::from_be_bytes(*block)).collect()
        } else {
            list.as_chunks::<4>().0.iter().map(|block| u64::from(u32::from_be_bytes(*block))).collect()
        })
    }

    /// The checksum at the end of a descriptor or revoke block.
    fn tail_is_right(&self, bytes: &[u8]) -> bool {
        let at = bytes.len().saturating_sub(4);
        !self.header.has_csum() || be32(bytes, at) == self.sum_without(bytes, at)
    }

    fn commit_is_right(&self, bytes: &[u8], sum: u32) -> bool {
        if self.header.has_csum() {
            return be32(bytes, 16) == self.sum_without(bytes, 16);
        }
        if self.header.compat() & COMPAT_CHECKSUM == 0 || self.header.has(INCOMPAT_ASYNC_COMMIT) {
            return true;
        }
        let (kind, len, stored) = (u8_at(bytes, 12), u8_at(bytes, 13), be32(bytes, 16));
        (kind, len, stored) == (1, 4, sum) || (kind, len, stored) == (0, 0, 0)
    }

    /// The checksum of a block of the journal, with the one stored at `at` taken as 0.
    fn sum_without(&self, bytes: &[u8], at: usize) -> u32 {
        let (head, rest) = bytes.split_at_checked(at).unwrap_or_default();
        let rest = rest.get(4..).unwrap_or_default();
        [head, &[0; 4], rest].into_iter().fold(self.header.seed(), crc32c)
    }

    /// The oldest kind of checksum: over the descriptor and the blocks after it.
    fn sum_of(&self, sum: u32, descriptor: &[u8], at: u32, count: u32) -> Result<u32> {
        if self.header.has_csum() || self.header.compat() & COMPAT_CHECKSUM == 0 {
            return Ok(sum);
        }
        let mut sum = crc32_be(sum, descriptor);
        for index in 0..count {
            sum = crc32_be(sum, &self.log.block(self.after(at, index))?);
        }
        Ok(sum)
    }

    /// Verifies a logged block, as it lies in the journal.
    fn verify(&self, tag: &Tag, sequence: u32, logical: u32) -> Result<()> {
        if !self.header.has_csum() {
            return Ok(());
        }
        let bytes = self.log.block(logical)?;
        let sum = crc32c(crc32c(self.header.seed(), &sequence.to_be_bytes()), &bytes);
        let right = if self.header.has(INCOMPAT_CSUM_V3) { sum == tag.checksum } else { sum & 0xffff == tag.checksum };
        if right { Ok(()) } else { Err(damaged("a logged block has a wrong checksum").found(tag.block)) }
    }

    /// Fast commits are not replayed; a journal that may hold one is refused.
    fn refuse_fast_commits(&self, next: u32) -> Result<()> {
        if !self.header.has(INCOMPAT_FAST_COMMIT) {
            return Ok(());
        }
        // The block between ordinary and fast commits is unused.
        let bytes = self.log.block(self.header.end().saturating_add(1))?;
        // A head tag: type 9, and the transaction that the commit follows.
        let head = u16::from_le_bytes(array(&bytes, 0)) == 9;
        let sequence = u32::from_le_bytes(array(&bytes, 8));
        if head && !before(sequence, next) {
            return Err(Error::unsupported("ext.journal", "the journal holds fast commits")
                .hint("mount and unmount the file system in the guest"));
        }
        Ok(())
    }
}

/// Whether sequence `a` comes before `b`; sequences wrap around.
fn before(a: u32, b: u32) -> bool {
    a != b && b.wrapping_sub(a) < 1 << 31
}

fn damaged(what: &str) -> Error {
    Error::corrupt("ext.journal", format!("the journal cannot be replayed: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_wrap_around() {
        assert!(before(1, 2));
        assert!(before(u32::MAX, 0));
        assert!(!before(2, 2));
        assert!(!before(3, 2));
    }
}
