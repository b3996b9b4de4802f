//! Internal snapshots (specification, "Snapshots"): each has an L1 table of its own.

use super::header::{Header, State, u32_at, u64_at};
use super::{beyond, bytes_at};
use crate::disk::Disk;
use crate::error::{Error, Result, escape_bytes};
use crate::limits::{MAX_QCOW2_SNAPSHOT_TABLE, MAX_QCOW2_SNAPSHOTS};

/// Bytes of an entry before its extra data, id and name.
const FIXED: u64 = 40;

/// An internal snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its id, escaped; QEMU counts from 1.
    pub id: String,
    /// Its name, escaped.
    pub name: String,
    /// When it was taken, in seconds since the epoch.
    pub date_sec: u32,
    /// Bytes of the machine's memory and devices that were saved with it.
    pub vm_state_size: u64,
    /// Virtual size in bytes when it was taken.
    pub disk_size: u64,
    /// Where the entry is.
    at: u64,
    l1_table_offset: u64,
    l1_size: u32,
}

/// The snapshot table.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    pub(super) snapshots: Vec<Snapshot>,
    /// Its length in bytes.
    pub(super) len: u64,
}

impl Table {
    /// Reads the whole table.
    pub(super) fn read(file: &dyn Disk, header: &Header) -> Result<Self> {
        if header.nb_snapshots > MAX_QCOW2_SNAPSHOTS {
            return Err(Error::limit("qcow2.snapshots", "there are too many snapshots")
                .offset(60)
                .expected(format!("at most {MAX_QCOW2_SNAPSHOTS}"))
                .found(header.nb_snapshots));
        }
        let mut table = Self::default();
        for _ in 0..header.nb_snapshots {
            let at = header.snapshots_offset.checked_add(table.len).ok_or_else(|| beyond(table.len))?;
            let (snapshot, len) = Snapshot::read(file, header, at)?;
            table.len = table.len.saturating_add(len);
            if table.len > MAX_QCOW2_SNAPSHOT_TABLE {
                return Err(Error::limit("qcow2.snapshots", "the snapshot table is too long")
                    .offset(at)
                    .expected(format!("at most {MAX_QCOW2_SNAPSHOT_TABLE} bytes")));
            }
            table.snapshots.push(snapshot);
        }
        Ok(table)
    }

    /// The snapshot with this id, else the first one with this name.
    pub(super) fn find(&self, wanted: &str) -> Option<&Snapshot> {
        let all = self.snapshots.iter();
        all.clone().find(|snapshot| snapshot.id == wanted).or_else(|| all.clone().find(|it| it.name == wanted))
    }

    /// All of them, for a message.
    pub(super) fn list(&self) -> String {
        const MOST: usize = 32;
        let names = self.snapshots.iter().take(MOST).map(|snapshot| format!("{} ({})", snapshot.id, snapshot.name));
        let more = self.snapshots.len().saturating_sub(MOST);
        names.chain((more > 0).then(|| format!("{more} more"))).collect::<Vec<_>>().join(", ")
    }
}

impl Snapshot {
    /// The entry at `at`, and its length with its padding.
    fn read(file: &dyn Disk, header: &Header, at: u64) -> Result<(Self, u64)> {
        let fixed = bytes_at(file, at, FIXED)?;
        let lengths = u32_at(&fixed, 12)?;
        let (id_len, name_len) = (u64::from(lengths >> 16), u64::from(lengths & 0xffff));
        let extra_len = u64::from(u32_at(&fixed, 36)?);
        let len = FIXED.saturating_add(extra_len).saturating_add(id_len).saturating_add(name_len);
        if len > MAX_QCOW2_SNAPSHOT_TABLE {
            return Err(Error::limit("qcow2.snapshots", "a snapshot's extra data is too long")
                .offset(at)
                .expected(format!("at most {MAX_QCOW2_SNAPSHOT_TABLE} bytes"))
                .found(extra_len));
        }
        // What is known of the extra data: the size of the saved machine in 64 bits, and that of the disk.
        let extra_at = at.checked_add(FIXED).ok_or_else(|| beyond(at))?;
        let extra = bytes_at(file, extra_at, extra_len.min(16))?;
        let names_at = extra_at.checked_add(extra_len).ok_or_else(|| beyond(at))?;
        let names = bytes_at(file, names_at, id_len.saturating_add(name_len))?;
        let (id, name) = names.split_at_checked(usize::try_from(id_len).unwrap_or(0)).unwrap_or_default();
        let snapshot = Self {
            id: escape_bytes(id),
            name: escape_bytes(name),
            date_sec: u32_at(&fixed, 16)?,
            vm_state_size: if extra.len() >= 8 { u64_at(&extra, 0)? } else { u64::from(u32_at(&fixed, 32)?) },
            disk_size: if extra.len() >= 16 { u64_at(&extra, 8)? } else { header.state.size },
            at,
            l1_table_offset: u64_at(&fixed, 0)?,
            l1_size: u32_at(&fixed, 8)?,
        };
        Ok((snapshot, len.next_multiple_of(8)))
    }

    /// The disk as it was.
    pub(super) fn state(&self) -> State {
        State { size: self.disk_size, l1_table_offset: self.l1_table_offset, l1_size: self.l1_size }
    }

    /// [`Snapshot::state`], validated.
    pub(super) fn sound_state(&self, header: &Header) -> Result<State> {
        let state = self.state();
        let places = [self.at.saturating_add(FIXED).saturating_add(8), self.at.saturating_add(8), self.at];
        state.validate(header, places)?;
        Ok(state)
    }
}
