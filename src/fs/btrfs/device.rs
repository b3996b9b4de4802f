//! Devices: reading logical addresses from whichever copy is there, and writing all of them.

use super::checksum::Checksum;
use super::chunk::{Chunks, Piece};
use super::superblock::{self, Found, OFFSETS, Superblock};
use super::{corrupt, missing, read_only};
use crate::disk::bytes::{long, put, size};
use crate::disk::{Disk, DiskMut, read_vec};
use crate::error::Result;
use std::sync::Arc;

/// One device of a file system.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) devid: u64,
    pub(super) uuid: [u8; 16],
    /// Whether it was away while the others went on: its copies are asked last.
    stale: bool,
    /// The same disk, if it may be written.
    writer: Option<Arc<dyn DiskMut>>,
}

/// What a file system is on: to be read, or to be written too.
#[derive(Clone, Debug)]
pub(super) enum Volume {
    Read(Arc<dyn Disk>),
    Write(Arc<dyn DiskMut>),
}

impl Volume {
    pub(super) fn disk(&self) -> Arc<dyn Disk> {
        match self {
            Self::Read(disk) => Arc::clone(disk),
            Self::Write(disk) => Arc::<dyn DiskMut>::clone(disk),
        }
    }

    fn writer(self) -> Option<Arc<dyn DiskMut>> {
        match self {
            Self::Read(_) => None,
            Self::Write(disk) => Some(disk).filter(|disk| disk.can_write()),
        }
    }
}

/// All devices that are there.
#[derive(Debug)]
pub(super) struct Devices(Vec<Device>);

impl Devices {
    /// `found` are the superblocks of `volumes`; `newest` is the generation that counts.
    pub(super) fn new(volumes: Vec<Volume>, found: &[Found], newest: u64) -> Self {
        let devices = volumes.into_iter().zip(found).map(|(volume, Found { sb, .. })| Device {
            disk: volume.disk(),
            writer: volume.writer(),
            devid: sb.devid,
            uuid: sb.device_uuid,
            stale: sb.generation < newest,
        });
        Self(devices.collect())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Device> {
        self.0.iter()
    }

    /// The copies of the bytes at `logical` in the order in which to ask for them.
    pub(super) fn order(&self, chunks: &Chunks, logical: u64, len: u64) -> Result<Vec<usize>> {
        let copies = chunks.copies(logical..logical.saturating_add(len))?;
        let chunk = chunks.at(logical)?;
        let rank = |copy: usize| {
            let device = chunk.place(logical, copy).and_then(|piece| self.device(&piece));
            device.map_or(2_u8, |device| u8::from(device.stale))
        };
        let mut order: Vec<usize> = (0..copies).collect();
        order.sort_by_key(|copy| rank(*copy));
        Ok(order)
    }

    /// Fills `buf` from copy `copy` of the bytes at `logical`.
    pub(super) fn read(&self, chunks: &Chunks, buf: &mut [u8], logical: u64, copy: usize) -> Result<()> {
        let mut done = 0_usize;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let at = logical.saturating_add(long(done));
            let chunk = chunks.at(at)?;
            let outside = || corrupt("an address without a place on a device").offset(at);
            let take = if chunk.has_parity() && copy == 1 {
                let pieces = chunk.parity_of(at).ok_or_else(outside)?;
                let len = pieces.iter().map(|piece| piece.len).min().unwrap_or(0).min(long(rest.len()));
                let part = rest.get_mut(..size(len)).unwrap_or_default();
                self.read_parity(&pieces, part)?;
                part.len()
            } else {
                let piece = chunk.place(at, copy).ok_or_else(outside)?;
                let part = rest.get_mut(..size(piece.len.min(long(rest.len())))).unwrap_or_default();
                self.read_piece(&piece, part)?;
                part.len()
            };
            if take == 0 {
                return Err(outside());
            }
            done = done.saturating_add(take);
        }
        Ok(())
    }

    fn read_parity(&self, pieces: &[Piece], buf: &mut [u8]) -> Result<()> {
        let mut other = vec![0; buf.len()];
        buf.fill(0);
        for piece in pieces {
            self.read_piece(piece, &mut other)?;
            buf.iter_mut().zip(&other).for_each(|(sum, byte)| *sum ^= byte);
        }
        Ok(())
    }

    fn read_piece(&self, piece: &Piece, buf: &mut [u8]) -> Result<()> {
        let device = self.device(piece).ok_or_else(|| missing(piece.stripe.devid))?;
        let end = piece.physical.checked_add(long(buf.len()));
        if end.is_none_or(|end| end > device.disk.len()) {
            return Err(corrupt("a chunk lies outside of its device").offset(piece.physical));
        }
        device.disk.read_at(buf, piece.physical)
    }

    fn device(&self, piece: &Piece) -> Option<&Device> {
        self.0.iter().find(|device| device.devid == piece.stripe.devid && device.uuid == piece.stripe.uuid)
    }

    /// Refuses to write unless every device is there, up to date and writable.
    pub(super) fn check_writable(&self, count: u64) -> Result<()> {
        if long(self.0.len()) != count || self.0.iter().any(|device| device.stale) {
            return Err(read_only("devices of the file system are missing, or were when it was last written")
                .hint("give all of the machine's disks"));
        }
        if self.0.iter().all(|device| device.writer.is_some()) {
            return Ok(());
        }
        Err(read_only("the volume was opened for reading"))
    }

    /// Writes `bytes` to all places of `logical`.
    pub(super) fn write(&self, chunks: &Chunks, bytes: &[u8], logical: u64) -> Result<()> {
        let mut done = 0_usize;
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
            let at = logical.saturating_add(long(done));
            let chunk = chunks.at(at)?;
            let mut take = 0;
            for copy in 0..chunk.copies() {
                let piece = chunk.place(at, copy).filter(|piece| piece.len > 0);
                let piece = piece.ok_or_else(|| corrupt("an address without a place on a device").offset(at))?;
                take = size(piece.len).min(rest.len());
                self.write_piece(&piece, rest.get(..take).unwrap_or_default())?;
            }
            if take == 0 {
                return Err(corrupt("an address without a place on a device").offset(at));
            }
            done = done.saturating_add(take);
        }
        Ok(())
    }

    fn write_piece(&self, piece: &Piece, bytes: &[u8]) -> Result<()> {
        let device = self.device(piece).ok_or_else(|| missing(piece.stripe.devid))?;
        let end = piece.physical.checked_add(long(bytes.len()));
        if end.is_none_or(|end| end > device.disk.len()) {
            return Err(corrupt("a chunk lies outside of its device").offset(piece.physical));
        }
        device.writer()?.write_at(bytes, piece.physical)
    }

    /// Makes what was written durable.
    pub(super) fn flush(&self) -> Result<()> {
        self.0.iter().try_for_each(|device| device.writer()?.flush())
    }

    /// Changes the superblocks of all devices, and their mirrors to be the same.
    pub(super) fn store_superblocks(&self, checksum: Checksum, change: &dyn Fn(&mut [u8], u64)) -> Result<()> {
        for device in &self.0 {
            let (mut bytes, sb) = device.superblock()?;
            change(&mut bytes, device.devid);
            let fits = |at: &u64| at.saturating_add(long(superblock::LEN)) <= sb.device_len.min(device.disk.len());
            for at in OFFSETS.into_iter().filter(fits) {
                put(&mut bytes, 0x30, &at.to_le_bytes());
                put(&mut bytes, 0, &[0; 32]);
                let sum = checksum.of(bytes.get(32..).unwrap_or_default());
                put(&mut bytes, 0, &sum);
                device.writer()?.write_at(&bytes, at)?;
            }
        }
        self.flush()
    }
}

impl Device {
    fn writer(&self) -> Result<&dyn DiskMut> {
        self.writer.as_deref().ok_or_else(|| read_only("the volume was opened for reading"))
    }

    /// The superblock as it is on the device: the one that [`superblock::find`] finds.
    fn superblock(&self) -> Result<(Vec<u8>, Superblock)> {
        let mut newest: Option<(Vec<u8>, Superblock)> = None;
        for at in OFFSETS {
            if at.saturating_add(long(superblock::LEN)) > self.disk.len() {
                break;
            }
            let bytes = read_vec(&*self.disk, at, superblock::LEN)?;
            let Ok(sb) = Superblock::parse(&bytes, at) else { continue };
            let is_first = OFFSETS.first() == Some(&at);
            if newest.as_ref().is_none_or(|(_, known)| known.generation < sb.generation) {
                newest = Some((bytes, sb));
            }
            if is_first {
                break;
            }
        }
        newest.ok_or_else(|| corrupt("there is no superblock"))
    }
}
