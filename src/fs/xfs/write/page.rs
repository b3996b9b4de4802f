//! One block of a group's B+tree in memory: rows of records or, above the leaves, of keys and pointers.

use super::tree::{Order, Tree};
use crate::disk::bytes::{be16, be32, put, put_be32};
use crate::error::Result;
use crate::fs::xfs::corrupt;

/// Bytes of a pointer.
pub(super) const POINTER: usize = 4;

/// A block of a tree.
#[derive(Clone, Debug)]
pub(super) struct Page {
    pub(super) tree: Tree,
    pub(super) agbno: u32,
    /// 0 for a leaf.
    pub(super) level: u16,
    pub(super) left: u32,
    pub(super) right: u32,
    /// All rows, each of `width` bytes; a pointer follows its key.
    pub(super) rows: Vec<u8>,
    pub(super) width: usize,
    /// Bytes before the rows.
    header: usize,
    /// The block as it was read.
    raw: Vec<u8>,
}

impl Page {
    /// Parses a block that was read from `agbno`.
    pub(super) fn parse(tree: Tree, agbno: u32, level: u16, is_v5: bool, raw: Vec<u8>) -> Result<Self> {
        let mut page = Self::empty(tree, agbno, level, is_v5, raw);
        page.left = be32(&page.raw, 8);
        page.right = be32(&page.raw, 12);
        let count = usize::from(be16(&page.raw, 6));
        let right = be32(&page.raw, 0) == tree.magic(is_v5) && be16(&page.raw, 4) == level && count <= page.max();
        if !right || (count == 0 && level > 0) {
            return Err(corrupt(format!("a tree of block {agbno} of an allocation group contradicts itself")));
        }
        if level == 0 {
            let len = count.saturating_mul(page.width);
            page.rows = page.raw.get(page.header..).and_then(|rest| rest.get(..len)).unwrap_or_default().to_vec();
            return Ok(page);
        }
        let (keys, pointers) = page.areas();
        for index in 0..count {
            let part = |area: usize, each: usize| {
                let at = area.saturating_add(index.saturating_mul(each));
                page.raw.get(at..).and_then(|rest| rest.get(..each)).unwrap_or_default().to_vec()
            };
            let (key, pointer) = (part(keys, tree.key()), part(pointers, POINTER));
            page.rows.extend(key);
            page.rows.extend(pointer);
        }
        Ok(page)
    }

    /// One without rows, in a block that begins with what `raw` has.
    pub(super) fn empty(tree: Tree, agbno: u32, level: u16, is_v5: bool, raw: Vec<u8>) -> Self {
        let header = if is_v5 { 56 } else { 16 };
        let width = if level == 0 { tree.record() } else { tree.key().saturating_add(POINTER) };
        Self { tree, agbno, level, left: u32::MAX, right: u32::MAX, rows: Vec::new(), width, header, raw }
    }

    /// Where keys start, and pointers.
    fn areas(&self) -> (usize, usize) {
        (self.header, self.header.saturating_add(self.max().saturating_mul(self.tree.key())))
    }

    /// Rows that a block has room for.
    pub(super) fn max(&self) -> usize {
        self.raw.len().saturating_sub(self.header).checked_div(self.width).unwrap_or(0)
    }

    /// Rows that any block but a root has at least.
    pub(super) fn min(&self) -> usize {
        self.max() / 2
    }

    pub(super) fn count(&self) -> usize {
        self.rows.len().checked_div(self.width).unwrap_or(0)
    }

    pub(super) fn row(&self, index: usize) -> &[u8] {
        let at = index.saturating_mul(self.width);
        self.rows.get(at..).and_then(|rest| rest.get(..self.width)).unwrap_or_default()
    }

    /// The block that row `index` points to.
    pub(super) fn pointer(&self, index: usize) -> u32 {
        be32(self.row(index), self.tree.key())
    }

    pub(super) fn order(&self, index: usize) -> Order {
        if self.level == 0 { self.tree.order(self.row(index)) } else { self.tree.order_of_key(self.row(index)) }
    }

    /// The first row that is not less than `order`.
    pub(super) fn first_from(&self, order: Order) -> usize {
        let (mut low, mut high) = (0, self.count());
        while low < high {
            let middle = low.midpoint(high);
            if self.order(middle) < order { low = middle.saturating_add(1) } else { high = middle }
        }
        low
    }

    /// The row below which `order` belongs: the last that is not greater, or the first.
    pub(super) fn child_for(&self, order: Order) -> usize {
        let index = self.first_from(order);
        if index < self.count() && self.order(index) == order { index } else { index.saturating_sub(1) }
    }

    pub(super) fn insert(&mut self, index: usize, row: &[u8]) {
        let at = index.saturating_mul(self.width).min(self.rows.len());
        self.rows.splice(at..at, row.iter().copied());
    }

    pub(super) fn remove(&mut self, index: usize) {
        let at = index.saturating_mul(self.width);
        let end = at.saturating_add(self.width);
        if end <= self.rows.len() {
            self.rows.drain(at..end);
        }
    }

    pub(super) fn set(&mut self, index: usize, row: &[u8]) {
        put(&mut self.rows, index.saturating_mul(self.width), row);
    }

    /// What a parent has for this block: its least key, the greatest that anything in it reaches where the tree keeps that, and
    /// the pointer.
    pub(super) fn parent_row(&self) -> Vec<u8> {
        let mut row = if self.level == 0 {
            self.tree.least_key(self.row(0))
        } else {
            self.row(0).get(..self.tree.least()).unwrap_or_default().to_vec()
        };
        if self.tree == Tree::Rmap {
            let high = |index: usize| {
                if self.level == 0 {
                    self.tree.greatest_key(self.row(index))
                } else {
                    self.row(index).get(20..40).unwrap_or_default().to_vec()
                }
            };
            let highest = (0..self.count()).map(high).max_by_key(|key| self.tree.order_of_key(key));
            row.extend(highest.unwrap_or_else(|| vec![0; 20]));
        }
        row.extend(self.agbno.to_be_bytes());
        row
    }

    /// The block's bytes; header fields of version 5 are as they were.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut raw = self.raw.clone();
        put(&mut raw, 6, &u16::try_from(self.count()).unwrap_or(u16::MAX).to_be_bytes());
        put_be32(&mut raw, 8, self.left);
        put_be32(&mut raw, 12, self.right);
        if self.level == 0 {
            put(&mut raw, self.header, &self.rows);
            return raw;
        }
        let (keys, pointers) = self.areas();
        for index in 0..self.count() {
            let at = |area: usize, each: usize| area.saturating_add(index.saturating_mul(each));
            let (key, pointer) = self.row(index).split_at_checked(self.tree.key()).unwrap_or_default();
            put(&mut raw, at(keys, key.len()), key);
            put(&mut raw, at(pointers, POINTER), pointer);
        }
        raw
    }
}
