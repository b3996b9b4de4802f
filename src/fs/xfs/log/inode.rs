//! Inode items: the core in the byte order of the machine, and forks as they are on disk but for the roots of trees.

use super::damaged;
use super::item::InodeItem;
use super::transaction::Item;
use crate::disk::bytes::{array, be16, be64, le16, le64, put, put_be32, put_be64, u8_at};
use crate::error::Result;
use crate::fs::xfs::node::{self, Fork};
use crate::fs::xfs::superblock::Superblock;
use crate::fs::xfs::{block, unsupported};

/// Which fields were logged (`XFS_ILOG_…`): data, extents, root of a tree; device; the same of attributes; new owner.
const DATA_LOCAL: u32 = 0x002;
const DATA_EXTENTS: u32 = 0x004;
const DATA_ROOT: u32 = 0x008;
const DEVICE: u32 = 0x010;
const ATTR_LOCAL: u32 = 0x040;
const ATTR_EXTENTS: u32 = 0x080;
const ATTR_ROOT: u32 = 0x100;
const NEW_OWNER: u32 = 0x600;
const FLAG2_BIGTIME: u64 = 0x8;
const FLAG2_NREXT64: u64 = 0x10;
/// The greatest `di_flushiter`, after which it starts anew.
const MAX_FLUSH: u16 = 0xffff;

/// Fields that both forms of the core have at the same place: offset and length.
const FIELDS: &[(usize, usize)] = &[
    (0, 2),
    (2, 2),
    (4, 1),
    (5, 1),
    (8, 4),
    (12, 4),
    (16, 4),
    (20, 2),
    (22, 2),
    (56, 8),
    (64, 8),
    (72, 4),
    (76, 4),
    (80, 2),
    (82, 1),
    (83, 1),
    (84, 4),
    (88, 2),
    (90, 2),
    (92, 4),
];
/// The same of version 3.
const FIELDS_V3: &[(usize, usize)] = &[(104, 8), (120, 8), (128, 4), (152, 8)];
const TIMES: [usize; 3] = [32, 40, 48];
const CREATED: usize = 144;

/// Puts an inode item over `raw`, the inode on disk. Nothing changes if that is newer.
pub(super) fn apply(raw: &mut [u8], item: &Item, form: &InodeItem, sb: &Superblock, lsn: u64) -> Result<()> {
    let core = item.region(1);
    if be16(raw, 0) != node::MAGIC || le16(core, 0) != node::MAGIC {
        return Err(damaged("an inode is not one").found(form.number));
    }
    let len = if sb.has_crc() { node::core_len(3) } else { 96 };
    let version = u8_at(core, 4);
    if core.len() != len || (version == 3) != sb.has_crc() || !(1..=3).contains(&version) {
        return Err(damaged("the core of an inode has an impossible form").found(form.number));
    }
    if form.fields & NEW_OWNER != 0 {
        return Err(unsupported("the log changes the owner of a tree of extents")
            .hint("mount and unmount the file system in the guest"));
    }
    if is_newer(raw, core, sb, lsn) {
        return Ok(());
    }
    put_core(raw, core, lsn);
    let attr_at = usize::from(u8_at(raw, 82)).saturating_mul(8);
    if attr_at.saturating_add(node::core_len(version)) > raw.len() {
        return Err(damaged("a fork of an inode is outside of it").found(form.number));
    }
    if form.fields & DEVICE != 0 {
        put_be32(raw, node::core_len(version), form.device);
    }
    if form.regions > 2 {
        put_forks(raw, item, form, sb)?;
    }
    if sb.has_crc() {
        block::seal(raw, block::INODE_CRC);
    }
    Ok(())
}

fn is_newer(raw: &[u8], core: &[u8], sb: &Superblock, lsn: u64) -> bool {
    if sb.has_crc() {
        let present = be64(raw, 112);
        return present != 0 && present != u64::MAX && present > lsn;
    }
    let (present, logged) = (be16(raw, 30), le16(core, 30));
    let turned = present == MAX_FLUSH && logged < MAX_FLUSH / 2;
    logged < present && !turned
}

fn put_core(raw: &mut [u8], core: &[u8], lsn: u64) {
    let is_v3 = u8_at(core, 4) == 3;
    let flags2 = if is_v3 { le64(core, 120) } else { 0 };
    for (at, len) in FIELDS.iter().chain(if is_v3 { FIELDS_V3 } else { &[] }) {
        swap(raw, core, *at, *len);
    }
    put(raw, 6, &[0; 2]);
    for at in TIMES.iter().chain(is_v3.then_some(&CREATED)) {
        if flags2 & FLAG2_BIGTIME != 0 {
            swap(raw, core, *at, 8);
        } else {
            swap(raw, core, *at, 4);
            swap(raw, core, at.saturating_add(4), 4);
        }
    }
    // A pad, wide counters or the count of flushes, which begins anew.
    put(raw, 24, &[0; 8]);
    if flags2 & FLAG2_NREXT64 != 0 {
        swap(raw, core, 24, 8);
    }
    if is_v3 {
        put(raw, 132, &[0; 12]);
        put(raw, 160, &array::<16>(core, 160));
        put_be64(raw, 112, lsn);
    }
}

/// Copies the field at `at` from little-endian to big-endian.
fn swap(raw: &mut [u8], core: &[u8], at: usize, len: usize) {
    if let Some(field) = core.get(at..).and_then(|rest| rest.get(..len)) {
        let mut field = field.to_vec();
        field.reverse();
        put(raw, at, &field);
    }
}

fn put_forks(raw: &mut [u8], item: &Item, form: &InodeItem, sb: &Superblock) -> Result<()> {
    let mut next = 2;
    for (fork, plain, root) in
        [(Fork::Data, DATA_LOCAL | DATA_EXTENTS, DATA_ROOT), (Fork::Attr, ATTR_LOCAL | ATTR_EXTENTS, ATTR_ROOT)]
    {
        let logged = form.fields & (plain | root);
        if logged == 0 {
            continue;
        }
        let range = node::fork_range(raw, fork);
        let room = raw.get_mut(range).unwrap_or_default();
        let fits = if logged == root {
            put_root(room, item.region(next), sb)
        } else {
            let bytes = item.region(next);
            room.get_mut(..bytes.len()).map(|room| room.copy_from_slice(bytes)).is_some()
        };
        if !fits || !logged.is_power_of_two() {
            return Err(damaged("a fork of an inode does not fit").found(form.number));
        }
        next = next.saturating_add(1);
    }
    Ok(())
}

/// The root of a tree of extents has the form of a block in memory, with pointers after as many keys as it had room for.
fn put_root(room: &mut [u8], root: &[u8], sb: &Superblock) -> bool {
    let header = if sb.has_crc() { 72 } else { 24 };
    let (level, count) = (be16(root, 4), be16(root, 6));
    let area = root.get(header..).unwrap_or_default();
    let keys = usize::from(count).saturating_mul(8);
    let from = (area.len() / 16).saturating_mul(8);
    let to = (room.len().saturating_sub(4) / 16).saturating_mul(8);
    let (Some(all), Some(pointers)) = (area.get(..keys), area.get(from..).and_then(|rest| rest.get(..keys))) else {
        return false;
    };
    if level == 0 || keys > to || keys > from {
        return false;
    }
    put(room, 0, &level.to_be_bytes());
    put(room, 2, &count.to_be_bytes());
    put(room, 4, all);
    put(room, to.saturating_add(4), pointers);
    true
}
