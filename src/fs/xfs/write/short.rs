//! Directories in the inode ("Short Form Directories").

use super::data::{Name, Shape};
use crate::disk::bytes::{be16, be32, be64, u8_at};
use crate::error::Result;
use crate::fs::xfs::corrupt;

/// A directory in an inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Short {
    pub(super) parent: u64,
    /// Names with the place that each would have in a block.
    pub(super) entries: Vec<(usize, Name)>,
}

impl Short {
    pub(super) fn new(parent: u64, names: Vec<Name>) -> Self {
        Self { parent, entries: names.into_iter().map(|name| (0, name)).collect() }
    }

    pub(super) fn parse(bytes: &[u8], shape: Shape) -> Result<Self> {
        let cut = || corrupt("a directory in an inode is cut short");
        let number = |bytes: &[u8], wide: bool| if wide { be64(bytes, 0) } else { u64::from(be32(bytes, 0)) };
        let wide = u8_at(bytes, 1) != 0;
        let width = if wide { 8 } else { 4 };
        let (parent, mut rest) = bytes.get(2..).and_then(|rest| rest.split_at_checked(width)).ok_or_else(cut)?;
        let mut short = Self { parent: number(parent, wide), entries: Vec::new() };
        for _ in 0..u8_at(bytes, 0) {
            let len = usize::from(u8_at(rest, 0));
            let place = usize::from(be16(rest, 1));
            let (name, after) = rest.get(3..).and_then(|rest| rest.split_at_checked(len)).ok_or_else(cut)?;
            let (ftype, after) = after.split_at_checked(usize::from(shape.has_ftype)).ok_or_else(cut)?;
            let (inode, next) = after.split_at_checked(width).ok_or_else(cut)?;
            let name = Name { name: name.to_vec(), inode: number(inode, wide), ftype: u8_at(ftype, 0) };
            short.entries.push((place, name));
            rest = next;
        }
        Ok(short)
    }

    /// All names, `.` and `..` first; `inode` is the directory's own.
    pub(super) fn names(&self, inode: u64) -> Vec<Name> {
        let own = |name: &[u8], inode| Name { name: name.to_vec(), inode, ftype: 2 };
        let mut names = vec![own(b".", inode), own(b"..", self.parent)];
        names.extend(self.entries.iter().map(|(_, name)| name.clone()));
        names
    }

    pub(super) fn push(&mut self, name: Name, shape: Shape) {
        let end = self
            .entries
            .last()
            .map_or_else(|| first_place(shape), |(place, last)| place.saturating_add(shape.entry_len(last.name.len())));
        self.entries.push((end, name));
    }

    /// The bytes; none if they would not fit in a directory block either.
    pub(super) fn bytes(mut self, shape: Shape) -> Option<Vec<u8>> {
        if shape.one_block_len(&self.names(0)) > shape.len || self.entries.len() > 255 {
            return None;
        }
        self.settle(shape);
        let wide_count = self.entries.iter().filter(|(_, name)| name.inode > u64::from(u32::MAX)).count();
        let wide_count = wide_count.saturating_add(usize::from(self.parent > u64::from(u32::MAX)));
        let wide = wide_count > 0;
        let number = |out: &mut Vec<u8>, inode: u64| {
            let bytes = inode.to_be_bytes();
            out.extend_from_slice(bytes.get(if wide { 0 } else { 4 }..).unwrap_or_default());
        };
        let byte = |value: usize| u8::try_from(value).unwrap_or(u8::MAX);
        let mut out = vec![byte(self.entries.len()), byte(wide_count)];
        number(&mut out, self.parent);
        for (place, name) in &self.entries {
            out.push(byte(name.name.len()));
            out.extend(u16::try_from(*place).unwrap_or(0).to_be_bytes());
            out.extend_from_slice(&name.name);
            out.extend(shape.has_ftype.then_some(name.ftype));
            number(&mut out, name.inode);
        }
        Some(out)
    }

    /// Gives every name a place in a block that has room for all, and for their index.
    fn settle(&mut self, shape: Shape) {
        let index = self.entries.len().saturating_add(2).saturating_mul(8).saturating_add(8);
        let mut next = first_place(shape);
        let in_order = self.entries.iter().all(|(place, name)| {
            let right = *place >= next;
            next = place.saturating_add(shape.entry_len(name.name.len()));
            right
        });
        if in_order && next.saturating_add(index) <= shape.len {
            return;
        }
        let mut next = first_place(shape);
        for (place, name) in &mut self.entries {
            *place = next;
            next = next.saturating_add(shape.entry_len(name.name.len()));
        }
    }
}

/// Behind `.` and `..`.
fn first_place(shape: Shape) -> usize {
    shape.header().saturating_add(shape.entry_len(1)).saturating_add(shape.entry_len(2))
}
