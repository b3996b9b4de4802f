//! The B+trees of allocation groups ("AG Free Space B+trees" and the following): one algorithm for all six.

use std::ops::ControlFlow;

use super::page::Page;
use super::{Header, Run, Writer};
use crate::disk::bytes::{array, be32, be64, put, put_be32};
use crate::error::Result;
use crate::fs::xfs::corrupt;
use crate::limits;

/// Set in the offset of a reverse mapping: the extent was allocated and nothing written to it.
pub(super) const UNWRITTEN: u64 = 1 << 61;
/// Set there too: a block of a tree of extents, for which the offset says nothing.
pub(super) const BMBT: u64 = 1 << 62;

/// Where the header of free space counts the blocks of its trees, which are taken for free.
const TREE_BLOCKS: usize = 60;

/// What sorts records. Trees with fewer fields leave the rest 0.
pub(super) type Order = (u64, u64, u64);

/// Which tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tree {
    /// Free space by block.
    Bno,
    /// Free space by size.
    Cnt,
    /// Inode chunks with free inodes.
    FreeIno,
    /// Inode chunks.
    Ino,
    /// Reference counts of shared blocks.
    Refcount,
    /// Owners of blocks.
    Rmap,
}

/// Where the header of a group keeps a tree's root, levels, and blocks.
struct Place {
    header: Header,
    root: usize,
    level: usize,
    blocks: Option<usize>,
}

impl Tree {
    pub(super) fn magic(self, is_v5: bool) -> u32 {
        match (self, is_v5) {
            (Self::Bno, false) => 0x4142_5442,
            (Self::Bno, true) => 0x4142_3342,
            (Self::Cnt, false) => 0x4142_5443,
            (Self::Cnt, true) => 0x4142_3343,
            (Self::Ino, false) => 0x4941_4254,
            (Self::Ino, true) => 0x4941_4233,
            (Self::FreeIno, false) => 0x4649_4254,
            (Self::FreeIno, true) => 0x4649_4233,
            (Self::Rmap, _) => 0x524d_4233,
            (Self::Refcount, _) => 0x5233_4643,
        }
    }

    /// Bytes of a record.
    pub(super) fn record(self) -> usize {
        match self {
            Self::Bno | Self::Cnt => 8,
            Self::Ino | Self::FreeIno => 16,
            Self::Rmap => 24,
            Self::Refcount => 12,
        }
    }

    /// Bytes of the keys that a pointer has.
    pub(super) fn key(self) -> usize {
        if self == Self::Rmap { 40 } else { self.least() }
    }

    /// Bytes of the least key that a pointer has.
    pub(super) fn least(self) -> usize {
        match self {
            Self::Bno | Self::Cnt => 8,
            Self::Ino | Self::FreeIno | Self::Refcount => 4,
            Self::Rmap => 20,
        }
    }

    pub(super) fn order(self, record: &[u8]) -> Order {
        match self {
            Self::Rmap => (u64::from(be32(record, 0)), be64(record, 8), be64(record, 16) & !UNWRITTEN),
            _ => self.order_of_key(record),
        }
    }

    pub(super) fn order_of_key(self, key: &[u8]) -> Order {
        let first = u64::from(be32(key, 0));
        match self {
            Self::Bno | Self::Ino | Self::FreeIno | Self::Refcount => (first, 0, 0),
            Self::Cnt => (u64::from(be32(key, 4)), first, 0),
            Self::Rmap => (first, be64(key, 4), be64(key, 12) & !UNWRITTEN),
        }
    }

    pub(super) fn least_key(self, record: &[u8]) -> Vec<u8> {
        match self {
            // Whether an extent is unwritten does not sort it.
            Self::Rmap => {
                let offset = be64(record, 16) & !UNWRITTEN;
                [array::<4>(record, 0).as_slice(), &array::<8>(record, 8), &offset.to_be_bytes()].concat()
            }
            _ => record.get(..self.least()).unwrap_or_default().to_vec(),
        }
    }

    /// The key of the last block of a reverse mapping.
    pub(super) fn greatest_key(self, record: &[u8]) -> Vec<u8> {
        let mut key = self.least_key(record);
        let rest = be32(record, 4).saturating_sub(1);
        let (owner, offset) = (be64(record, 8), be64(record, 16));
        put_be32(&mut key, 0, be32(record, 0).saturating_add(rest));
        if !super::reverse::is_without_offset(owner, offset) {
            put(&mut key, 12, &(offset & !UNWRITTEN).saturating_add(u64::from(rest)).to_be_bytes());
        }
        key
    }

    fn place(self, has_counts: bool) -> Place {
        let (header, root, level, blocks) = match self {
            Self::Bno => (Header::Agf, 16, 28, None),
            Self::Cnt => (Header::Agf, 20, 32, None),
            Self::Rmap => (Header::Agf, 24, 36, Some(80)),
            Self::Refcount => (Header::Agf, 88, 92, Some(84)),
            Self::Ino => (Header::Agi, 20, 24, has_counts.then_some(336)),
            Self::FreeIno => (Header::Agi, 328, 332, has_counts.then_some(340)),
        };
        Place { header, root, level, blocks }
    }

    /// Whether its blocks come from the group's list of blocks for such trees.
    fn is_from_list(self) -> bool {
        matches!(self, Self::Bno | Self::Cnt | Self::Rmap)
    }

    fn owner(self) -> u64 {
        match self {
            Self::Bno | Self::Cnt | Self::Rmap => super::reverse::OWNER_AG,
            Self::Ino | Self::FreeIno => super::reverse::OWNER_INOBT,
            Self::Refcount => super::reverse::OWNER_REFCOUNT,
        }
    }
}

/// What is done to a tree.
enum Change<'a> {
    Insert(&'a [u8]),
    Remove,
    /// Puts a record over that of the same order.
    Update(&'a [u8]),
}

/// What became of a block: its row in the parent, that of a new block to its right, and its rows.
struct Outcome {
    row: Vec<u8>,
    split: Option<Vec<u8>>,
    count: usize,
}

/// Reverse mappings that were found, and how many blocks of their tree may still be read.
struct Owners {
    records: Vec<Vec<u8>>,
    left: u32,
}

impl Owners {
    fn add(&mut self, row: &[u8]) -> Result<()> {
        self.records.push(row.to_vec());
        if self.records.len() > limits::MAX_XFS_OWNERS {
            return Err(crate::error::Error::limit("xfs.limit", "too many files share a block"));
        }
        Ok(())
    }
}

impl Writer<'_> {
    pub(super) fn insert(&mut self, agno: u32, tree: Tree, record: &[u8]) -> Result<()> {
        self.change(agno, tree, &Change::Insert(record), tree.order(record))
    }

    pub(super) fn remove(&mut self, agno: u32, tree: Tree, record: &[u8]) -> Result<()> {
        self.change(agno, tree, &Change::Remove, tree.order(record))
    }

    pub(super) fn update(&mut self, agno: u32, tree: Tree, record: &[u8]) -> Result<()> {
        self.change(agno, tree, &Change::Update(record), tree.order(record))
    }

    /// The root of a tree and its levels.
    pub(super) fn root(&self, agno: u32, tree: Tree) -> Result<(u32, u16)> {
        let place = tree.place(self.sb.features.has_inobt_counts());
        let root = self.field(agno, place.header, place.root)?;
        let level = self.field(agno, place.header, place.level)?;
        let level = u16::try_from(level).ok().filter(|level| (1..=limits::MAX_XFS_LEVELS).contains(level));
        let level = level.ok_or_else(|| damaged(agno, "a tree has an impossible number of levels"))?;
        Ok((root, level))
    }

    fn set_root(&mut self, agno: u32, tree: Tree, root: u32, level: u16) -> Result<()> {
        let place = tree.place(self.sb.features.has_inobt_counts());
        self.set_field(agno, place.header, place.root, root)?;
        self.set_field(agno, place.header, place.level, u32::from(level))
    }

    fn page(&self, agno: u32, tree: Tree, agbno: u32, level: u16) -> Result<Page> {
        let bytes = self.view().group_block(agno, agbno)?;
        Page::parse(tree, agbno, level, self.sb.has_crc(), bytes.to_vec())
    }

    fn put_page(&mut self, agno: u32, page: &Page) -> Result<()> {
        self.put(self.sb.place(agno, page.agbno), page.bytes())
    }

    /// A new block for a tree, without rows.
    fn new_page(&mut self, agno: u32, tree: Tree, level: u16) -> Result<Page> {
        let agbno = if tree.is_from_list() {
            self.count(agno, Header::Agf, TREE_BLOCKS, 1)?;
            self.sb.count_free(1);
            self.take_from_list(agno)?
        } else {
            self.allocate_in(agno, 1)?.agbno
        };
        if !tree.is_from_list() {
            self.add_owner(Run { agno, agbno, len: 1 }, tree.owner(), 0)?;
        }
        if let Some(at) = tree.place(self.sb.features.has_inobt_counts()).blocks {
            self.count(agno, tree.place(true).header, at, 1)?;
        }
        let mut raw = self.empty_block();
        put_be32(&mut raw, 0, tree.magic(self.sb.has_crc()));
        put(&mut raw, 4, &level.to_be_bytes());
        self.describe(&mut raw, self.sb.place(agno, agbno), u64::from(agno));
        Ok(Page::empty(tree, agbno, level, self.sb.has_crc(), raw))
    }

    fn free_page(&mut self, agno: u32, page: &Page) -> Result<()> {
        if let Some(at) = page.tree.place(self.sb.features.has_inobt_counts()).blocks {
            self.count(agno, page.tree.place(true).header, at, -1)?;
        }
        if page.tree.is_from_list() {
            self.count(agno, Header::Agf, TREE_BLOCKS, -1)?;
            self.sb.count_free(-1);
            return self.give_to_list(agno, page.agbno);
        }
        let run = Run { agno, agbno: page.agbno, len: 1 };
        self.remove_owner(run, page.tree.owner(), 0)?;
        self.give(run)
    }

    fn change(&mut self, agno: u32, tree: Tree, change: &Change<'_>, order: Order) -> Result<()> {
        let (root, levels) = self.root(agno, tree)?;
        let top = levels.saturating_sub(1);
        let outcome = self.descend(agno, tree, (root, top), change, order)?;
        if let Some(split) = outcome.split {
            let mut page = self.new_page(agno, tree, levels)?;
            page.insert(0, &outcome.row);
            page.insert(1, &split);
            self.put_page(agno, &page)?;
            return self.set_root(agno, tree, page.agbno, levels.saturating_add(1));
        }
        if top > 0 && outcome.count == 1 {
            let page = self.page(agno, tree, root, top)?;
            self.set_root(agno, tree, page.pointer(0), top)?;
            self.free_page(agno, &page)?;
        }
        Ok(())
    }

    fn descend(
        &mut self,
        agno: u32,
        tree: Tree,
        (agbno, level): (u32, u16),
        change: &Change<'_>,
        order: Order,
    ) -> Result<Outcome> {
        let mut page = self.page(agno, tree, agbno, level)?;
        if level == 0 {
            apply(agno, &mut page, change, order)?;
        } else {
            let index = page.child_for(order);
            let below = level.saturating_sub(1);
            let outcome = self.descend(agno, tree, (page.pointer(index), below), change, order)?;
            page.set(index, &outcome.row);
            if let Some(split) = outcome.split {
                page.insert(index.saturating_add(1), &split);
            } else {
                self.balance(agno, &mut page, index, outcome.count)?;
            }
        }
        let split = if page.count() > page.max() { Some(self.split(agno, &mut page)?) } else { None };
        self.put_page(agno, &page)?;
        Ok(Outcome { row: page.parent_row(), split, count: page.count() })
    }

    /// Moves the upper half of `page` to a new block on its right; gives that one's row.
    fn split(&mut self, agno: u32, page: &mut Page) -> Result<Vec<u8>> {
        let mut right = self.new_page(agno, page.tree, page.level)?;
        let at = page.count().div_ceil(2).saturating_mul(page.width);
        right.rows = page.rows.split_off(at.min(page.rows.len()));
        right.left = page.agbno;
        right.right = page.right;
        if page.right != u32::MAX {
            let mut next = self.page(agno, page.tree, page.right, page.level)?;
            next.left = right.agbno;
            self.put_page(agno, &next)?;
        }
        page.right = right.agbno;
        self.put_page(agno, &right)?;
        Ok(right.parent_row())
    }

    /// Gives child `index` of `parent` rows of a neighbour, or joins the two, if it has too few.
    fn balance(&mut self, agno: u32, parent: &mut Page, index: usize, count: usize) -> Result<()> {
        if parent.count() < 2 {
            return Ok(());
        }
        let below = parent.level.saturating_sub(1);
        let first = index.saturating_sub(1);
        let second = first.saturating_add(1);
        let mut left = self.page(agno, parent.tree, parent.pointer(first), below)?;
        if count >= left.min() {
            return Ok(());
        }
        let mut right = self.page(agno, parent.tree, parent.pointer(second), below)?;
        let mut rows = std::mem::take(&mut left.rows);
        rows.append(&mut right.rows);
        let all = rows.len().checked_div(left.width).unwrap_or(0);
        if all > left.max() {
            right.rows = rows.split_off(all.div_ceil(2).saturating_mul(left.width).min(rows.len()));
            left.rows = rows;
            self.put_page(agno, &right)?;
            parent.set(second, &right.parent_row());
        } else {
            left.rows = rows;
            left.right = right.right;
            if right.right != u32::MAX {
                let mut next = self.page(agno, parent.tree, right.right, below)?;
                next.left = left.agbno;
                self.put_page(agno, &next)?;
            }
            parent.remove(second);
            self.free_page(agno, &right)?;
        }
        self.put_page(agno, &left)?;
        parent.set(first, &left.parent_row());
        Ok(())
    }

    /// Visits the records of a tree in order, from the last that is not greater than `from`, or the first.
    pub(super) fn walk(
        &self,
        agno: u32,
        tree: Tree,
        from: Order,
        visit: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<()> {
        let (mut agbno, levels) = self.root(agno, tree)?;
        for level in (1..levels).rev() {
            let page = self.page(agno, tree, agbno, level)?;
            agbno = page.pointer(page.child_for(from));
        }
        let mut left = self.sb.ag_len(agno);
        let mut page = self.page(agno, tree, agbno, 0)?;
        let mut index = page.child_for(from);
        loop {
            while index < page.count() {
                if visit(page.row(index)).is_break() {
                    return Ok(());
                }
                index = index.saturating_add(1);
            }
            if page.right == u32::MAX {
                return Ok(());
            }
            left = left.checked_sub(1).ok_or_else(|| damaged(agno, "the leaves of a tree go round in a circle"))?;
            page = self.page(agno, tree, page.right, 0)?;
            index = 0;
        }
    }

    /// The last record that is not greater than `order`.
    pub(super) fn at_most(&self, agno: u32, tree: Tree, order: Order) -> Result<Option<Vec<u8>>> {
        let mut found = None;
        self.walk(agno, tree, order, &mut |record| {
            found = (tree.order(record) <= order).then(|| record.to_vec());
            ControlFlow::Break(())
        })?;
        Ok(found)
    }

    /// The first record that is not less than `order`.
    pub(super) fn at_least(&self, agno: u32, tree: Tree, order: Order) -> Result<Option<Vec<u8>>> {
        let mut found = None;
        self.walk(agno, tree, order, &mut |record| {
            if tree.order(record) < order {
                return ControlFlow::Continue(());
            }
            found = Some(record.to_vec());
            ControlFlow::Break(())
        })?;
        Ok(found)
    }

    /// The reverse mappings of any of the blocks from `first` to `last`.
    pub(super) fn owners(&self, agno: u32, first: u32, last: u32) -> Result<Vec<Vec<u8>>> {
        let (root, levels) = self.root(agno, Tree::Rmap)?;
        let mut found = Owners { records: Vec::new(), left: self.sb.ag_len(agno) };
        self.owners_below(agno, (root, levels.saturating_sub(1)), (first, last), &mut found)?;
        Ok(found.records)
    }

    fn owners_below(
        &self,
        agno: u32,
        (agbno, level): (u32, u16),
        (first, last): (u32, u32),
        found: &mut Owners,
    ) -> Result<()> {
        let left = found.left.checked_sub(1);
        found.left = left.ok_or_else(|| damaged(agno, "the tree of owners has more blocks than there are"))?;
        let page = self.page(agno, Tree::Rmap, agbno, level)?;
        for index in 0..page.count() {
            let row = page.row(index);
            let start = be32(row, 0);
            if start > last {
                break;
            }
            let end = if level == 0 { start.saturating_add(be32(row, 4).saturating_sub(1)) } else { be32(row, 20) };
            if end < first {
                continue;
            }
            if level == 0 {
                found.add(row)?;
            } else {
                self.owners_below(agno, (page.pointer(index), level.saturating_sub(1)), (first, last), found)?;
            }
        }
        Ok(())
    }
}

fn apply(agno: u32, page: &mut Page, change: &Change<'_>, order: Order) -> Result<()> {
    let index = page.first_from(order);
    let is_there = index < page.count() && page.order(index) == order;
    match change {
        Change::Insert(record) if !is_there => page.insert(index, record),
        Change::Remove if is_there => page.remove(index),
        Change::Update(record) if is_there => page.set(index, record),
        Change::Insert(_) => return Err(damaged(agno, "a tree has a record that should not be there")),
        Change::Remove | Change::Update(_) => return Err(damaged(agno, "a tree lacks a record")),
    }
    Ok(())
}

pub(super) fn damaged(agno: u32, what: &str) -> crate::error::Error {
    corrupt(format!("allocation group {agno} is damaged: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_has_as_many_owners_as_the_limit() {
        let mut found = Owners { records: Vec::new(), left: 0 };
        for _ in 0..limits::MAX_XFS_OWNERS {
            found.add(&[0; 24]).unwrap();
        }
        assert_eq!(found.add(&[0; 24]).unwrap_err().code(), "xfs.limit");
    }
}
