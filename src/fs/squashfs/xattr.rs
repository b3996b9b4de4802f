//! Extended attributes: sets of them in a table, which inodes share, with values that may be kept once for several names.

use super::metadata::Stream;
use super::superblock::NONE;
use super::{Squashfs, corrupt, limit};
use crate::disk::bytes::{le16, le32, le64, size};
use crate::error::Result;
use crate::limits;

/// In an attribute's type: its value is a reference to the value.
const ELSEWHERE: u16 = 0x100;

/// Bytes of a value: the kernel's own bound.
const MAX_VALUE: usize = 64 << 10;

impl Squashfs {
    /// Set `index` of the table.
    pub(super) fn xattrs_of(&self, index: u32) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let table = self.sb.xattr_id_table_start;
        if table == NONE {
            return Err(corrupt("there is no table of attributes"));
        }
        let head = self.metadata.plain(table, 16)?;
        let (start, count) = (le64(&head, 0), le32(&head, 8));
        if index >= count {
            return Err(corrupt("an attribute is not in the table").found(index));
        }
        let set = self.entry(table.saturating_add(16), u64::from(index), 16)?;
        let (place, names) = (le64(&set, 0), le32(&set, 8));
        let mut stream = self.reference(start, place)?;
        let (mut all, mut held) = (Vec::new(), 0_usize);
        for _ in 0..names {
            let entry = stream.take(4)?;
            let prefix: &[u8] = match le16(&entry, 0) & 0xff {
                0 => b"user.",
                1 => b"trusted.",
                2 => b"security.",
                other => return Err(corrupt("an attribute's name has an unknown prefix").found(other)),
            };
            let name = [prefix, &stream.take(usize::from(le16(&entry, 2)))?].concat();
            let value = if le16(&entry, 0) & ELSEWHERE == 0 {
                value(&mut stream)?
            } else {
                let reference = value(&mut stream)?;
                value(&mut self.reference(start, le64(&reference, 0))?)?
            };
            held = hold(held, name.len(), value.len())?;
            all.push((name, value));
        }
        all.sort();
        Ok(all)
    }

    /// The metadata from a place on, which is told from the start of a table.
    fn reference(&self, start: u64, place: u64) -> Result<Stream<'_>> {
        self.metadata.at(start.saturating_add(place >> 16), place & 0xffff)
    }
}

/// Bytes that are held with one attribute more.
fn hold(held: usize, name: usize, value: usize) -> Result<usize> {
    let held = held.saturating_add(name).saturating_add(value).saturating_add(64);
    if held > limits::MAX_SQUASHFS_XATTRS {
        return Err(limit("a file has too many attributes"));
    }
    Ok(held)
}

fn value(stream: &mut Stream<'_>) -> Result<Vec<u8>> {
    let len = size(u64::from(le32(&stream.take(4)?, 0)));
    if len > MAX_VALUE {
        return Err(limit("an attribute's value is too long").found(len));
    }
    stream.take(len)
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "tests build their input")]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_as_many_attributes_as_the_limit() {
        let room = limits::MAX_SQUASHFS_XATTRS - 64 - 10 - 20;
        for held in [room - 1, room] {
            assert_eq!(hold(held, 10, 20).unwrap(), held + 94);
        }
        for held in [room + 1, usize::MAX] {
            assert_eq!(hold(held, 10, 20).unwrap_err().code(), "squashfs.limit");
        }
    }
}
