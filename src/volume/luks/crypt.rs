//! The inside of an encrypted volume: decrypts what is read and encrypts what is written.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::cipher::Cipher;
use crate::disk::bytes::{long, size};
use crate::disk::{Disk, DiskMut, Extent, ExtentKind, Fingerprint, Hints, SectorSize, Visit, readable};
use crate::error::{Error, Result};

/// Bytes that are encrypted at once on their way down.
const CHUNK: usize = 64 << 10;

/// The decrypted segment of a volume.
pub(super) struct Crypt {
    label: String,
    disk: Arc<dyn DiskMut>,
    /// Where the segment begins on the disk.
    start: u64,
    len: u64,
    /// Added to sector numbers.
    tweak: u64,
    cipher: Cipher,
    /// Held while a sector is read to be written.
    writing: Mutex<()>,
}

impl fmt::Debug for Crypt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Crypt({}, {:?})", self.label, self.disk)
    }
}

impl Crypt {
    /// The segment `range` of `disk`; a part at its end that makes no whole sector is left out.
    pub(super) fn new(
        label: String,
        disk: Arc<dyn DiskMut>,
        range: Range<u64>,
        tweak: u64,
        cipher: Cipher,
    ) -> Result<Self> {
        if range.end > disk.len() || range.start >= range.end {
            return Err(Error::corrupt("luks.header", "the encrypted data lies outside of its volume")
                .expected(format!("an end of at most {:#x}", disk.len()))
                .found(format!("{:#x}..{:#x}", range.start, range.end)));
        }
        let len = range.end.saturating_sub(range.start);
        let len = len.saturating_sub(len.checked_rem(long(cipher.sector())).unwrap_or(0));
        Ok(Self { label, disk, start: range.start, len, tweak, cipher, writing: Mutex::default() })
    }

    fn place(&self, offset: u64) -> u64 {
        self.start.saturating_add(offset)
    }

    /// The number of the sector that begins at `offset`.
    fn number(&self, offset: u64) -> u64 {
        self.tweak.wrapping_add(offset / 512)
    }

    /// The start of the sector that holds `offset`.
    fn floor(&self, offset: u64) -> u64 {
        offset.saturating_sub(offset.checked_rem(long(self.cipher.sector())).unwrap_or(0))
    }

    /// Reads whole sectors.
    fn read_sectors(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.disk.read_at(buf, self.place(offset))?;
        self.cipher.decrypt(buf, self.number(offset));
        Ok(())
    }

    /// Encrypts and writes whole sectors.
    fn write_sectors(&self, mut data: Vec<u8>, offset: u64) -> Result<()> {
        self.cipher.encrypt(&mut data, self.number(offset));
        self.disk.write_at(&data, self.place(offset))
    }

    /// The next piece of what lies from `offset` on: a run of whole sectors, or a part of one with where it begins in it.
    fn piece(&self, offset: u64, left: usize, most: usize) -> (usize, Option<usize>) {
        let sector = self.cipher.sector();
        let inside = size(offset.saturating_sub(self.floor(offset)));
        if inside == 0 && left >= sector {
            let most = left.min(most);
            return (most.saturating_sub(most.checked_rem(sector).unwrap_or(0)), None);
        }
        (left.min(sector.saturating_sub(inside)), Some(inside))
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_piece(&self, data: &[u8], offset: u64, inside: Option<usize>) -> Result<()> {
        let Some(inside) = inside else { return self.write_sectors(data.to_vec(), offset) };
        let start = self.floor(offset);
        let mut sector = vec![0; self.cipher.sector()];
        self.read_sectors(&mut sector, start)?;
        if let Some(to) = sector.get_mut(inside..).and_then(|rest| rest.get_mut(..data.len())) {
            to.copy_from_slice(data);
        }
        self.write_sectors(sector, start)
    }
}

impl Disk for Crypt {
    fn len(&self) -> u64 {
        self.len
    }

    fn sector_size(&self) -> SectorSize {
        if self.cipher.sector() == 4096 { SectorSize::B4096 } else { self.disk.sector_size() }
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let (mut rest, mut at) = (buf, offset);
        while !rest.is_empty() {
            let (len, inside) = self.piece(at, rest.len(), usize::MAX);
            let (head, tail) = std::mem::take(&mut rest).split_at_mut_checked(len).unwrap_or_default();
            match inside {
                None => self.read_sectors(head, at)?,
                Some(inside) => {
                    let mut sector = vec![0; self.cipher.sector()];
                    self.read_sectors(&mut sector, self.floor(at))?;
                    if let Some(from) = sector.get(inside..).and_then(|rest| rest.get(..len)) {
                        head.copy_from_slice(from);
                    }
                }
            }
            rest = tail;
            at = at.saturating_add(long(len));
        }
        Ok(())
    }

    fn extents(&self, range: Range<u64>, visit: &mut Visit<'_>) -> Result<()> {
        // What reads as zeros below does not decrypt to zeros.
        self.disk.extents(self.place(range.start)..self.place(range.end), &mut |extent| {
            let shift = |there: u64| there.saturating_sub(self.start);
            let range = shift(extent.range.start)..shift(extent.range.end);
            visit(Extent { range, kind: ExtentKind::Data, ..extent })
        })
    }

    fn homes(&self, range: Range<u64>, visit: &mut dyn FnMut(usize, Range<u64>)) {
        // Only whole sectors: what shares one with other bytes is needed to decrypt them.
        let end = self.floor(range.end);
        let start = self.floor(range.start.saturating_add(long(self.cipher.sector())).saturating_sub(1));
        if start < end {
            visit(0, self.place(start)..self.place(end));
        }
    }

    fn prefetch(&self, range: Range<u64>) {
        self.disk.prefetch(self.place(range.start)..self.place(range.end));
    }

    fn hints(&self) -> Hints {
        self.disk.hints()
    }

    fn fingerprint(&self) -> Result<Fingerprint> {
        let below = self.disk.fingerprint()?;
        Ok(Fingerprint::of(&[&below.0, b"luks", &self.start.to_le_bytes(), &self.len.to_le_bytes()]))
    }

    fn describe(&self) -> (&'static str, String) {
        ("luks", self.label.clone())
    }

    fn below(&self) -> Vec<Arc<dyn Disk>> {
        vec![readable(&self.disk)]
    }
}

impl DiskMut for Crypt {
    fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        let _held = self.lock();
        let (mut rest, mut at) = (data, offset);
        while !rest.is_empty() {
            let (len, inside) = self.piece(at, rest.len(), CHUNK);
            let (head, tail) = rest.split_at_checked(len).unwrap_or_default();
            self.write_piece(head, at, inside)?;
            rest = tail;
            at = at.saturating_add(long(len));
        }
        Ok(())
    }

    fn zero(&self, range: Range<u64>) -> Result<()> {
        let mut at = range.start;
        let zeros = vec![0; CHUNK];
        while at < range.end {
            let len = size(range.end.saturating_sub(at)).min(CHUNK);
            self.write_at(zeros.get(..len).unwrap_or_default(), at)?;
            at = at.saturating_add(long(len));
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        self.disk.flush()
    }

    fn can_write(&self) -> bool {
        self.disk.can_write()
    }
}
