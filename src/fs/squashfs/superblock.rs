//! The superblock: 96 bytes at the start of the volume.

use super::codec::Codec;
use super::corrupt;
use crate::disk::bytes::{is_at, le16, le32, le64};
use crate::disk::{Disk, read_vec};
use crate::error::{Error, Result};

/// Bytes of the superblock.
const LEN: usize = 96;

/// A table that is not there.
pub(super) const NONE: u64 = u64::MAX;

/// What the superblock says.
#[derive(Clone, Debug)]
pub(super) struct Superblock {
    pub(super) block_size: u32,
    pub(super) fragments: u32,
    pub(super) codec: Codec,
    pub(super) no_ids: u16,
    pub(super) root_inode: u64,
    /// Bytes of all of it.
    pub(super) bytes_used: u64,
    pub(super) id_table_start: u64,
    pub(super) xattr_id_table_start: u64,
    pub(super) inode_table_start: u64,
    pub(super) directory_table_start: u64,
    pub(super) fragment_table_start: u64,
}

impl Superblock {
    pub(super) fn read(volume: &dyn Disk) -> Result<Self> {
        if volume.len() < 96 {
            return Err(geometry("the volume is shorter than a superblock").found(volume.len()));
        }
        let bytes = read_vec(volume, 0, LEN)?;
        if !is_at(&bytes, 0, b"hsqs") {
            return Err(corrupt("there is no superblock"));
        }
        let version = (le16(&bytes, 28), le16(&bytes, 30));
        if version != (4, 0) {
            return Err(Error::unsupported("squashfs.feature", "a squashfs of another version than 4.0")
                .found(format!("{}.{}", version.0, version.1)));
        }
        let sb = Self {
            block_size: le32(&bytes, 12),
            fragments: le32(&bytes, 16),
            codec: Codec::of(le16(&bytes, 20))?,
            no_ids: le16(&bytes, 26),
            root_inode: le64(&bytes, 32),
            bytes_used: le64(&bytes, 40),
            id_table_start: le64(&bytes, 48),
            xattr_id_table_start: le64(&bytes, 56),
            inode_table_start: le64(&bytes, 64),
            directory_table_start: le64(&bytes, 72),
            fragment_table_start: le64(&bytes, 80),
        };
        if !sb.block_size.is_power_of_two()
            || !(4096..=1 << 20).contains(&sb.block_size)
            || sb.block_size.ilog2() != u32::from(le16(&bytes, 22))
        {
            return Err(geometry("the block size is impossible").found(sb.block_size));
        }
        if sb.bytes_used < 96 || sb.bytes_used > volume.len() {
            let error = geometry("the file system does not fit the volume");
            return Err(error.expected(format!("at most {}", volume.len())).found(sb.bytes_used));
        }
        let tables = [sb.inode_table_start, sb.directory_table_start, sb.id_table_start];
        let optional = [sb.xattr_id_table_start, sb.fragment_table_start];
        let all = tables.into_iter().chain(optional.into_iter().filter(|start| *start != NONE));
        for start in all {
            if !(96..sb.bytes_used).contains(&start) {
                return Err(geometry("a table lies outside of the file system").found(start));
            }
        }
        if sb.inode_table_start > sb.directory_table_start {
            return Err(geometry("the table of inodes lies behind that of directories").found(sb.inode_table_start));
        }
        Ok(sb)
    }
}

/// Sizes that cannot be.
fn geometry(what: impl Into<String>) -> Error {
    Error::corrupt("squashfs.geometry", what)
}
