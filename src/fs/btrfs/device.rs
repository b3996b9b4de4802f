//! Devices: reading logical addresses from whichever copy is there.

use super::chunk::{Chunks, Piece};
use super::superblock::Found;
use super::{corrupt, missing};
use crate::disk::Disk;
use crate::disk::bytes::{long, size};
use crate::error::Result;
use std::sync::Arc;

/// One device of a file system.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) devid: u64,
    uuid: [u8; 16],
    /// Whether it was away while the others went on: its copies are asked last.
    stale: bool,
}

/// All devices that are there.
#[derive(Debug)]
pub(super) struct Devices(Vec<Device>);

impl Devices {
    /// `found` are the superblocks of `disks`; `newest` is the generation that counts.
    pub(super) fn new(disks: Vec<Arc<dyn Disk>>, found: &[Found], newest: u64) -> Self {
        let devices = disks.into_iter().zip(found).map(|(disk, Found { sb, .. })| Device {
            disk,
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
}
