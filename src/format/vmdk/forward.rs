//! A stream-optimized extent read forward, by its markers (Virtual Disk Format 5.0, "Stream-Optimized Compressed Sparse
//! Extents"): grains as they come, without the tables behind them.
//!
//! Each marker fills a sector: `val` (u64), `size` (u32). With a size it stands before a compressed grain, `val` is the grain's
//! first sector, and the data follow at once. Without one, `type` (u32) says what follows in the next `val` sectors.
//!
//! A stream that was cut must not pass for a disk that ends in zeros. Where the tables are at the end, an end-of-stream marker
//! tells that all of it came. QEMU puts them before the grains and writes no such marker: then as many grains must come as the
//! tables have entries.

use super::descriptor::Descriptor;
use super::grain;
use super::header::{self, Header, SECTOR};
use super::layout::Layout;
use crate::disk::feed::{Content, Piece};
use crate::disk::{Feed, Stream, read_full};
use crate::error::{Error, Result};
use crate::limits;
use crate::session::Policy;

const END_OF_STREAM: u32 = 0;
const GRAIN_TABLE: u32 = 1;
const GRAIN_DIRECTORY: u32 = 2;
const FOOTER: u32 = 3;

/// The grains of a stream.
#[derive(Debug)]
pub(super) struct Markers {
    stream: Box<dyn Stream>,
    header: Header,
    /// Bytes of the stream that were read.
    at: u64,
    /// Grains that must still come, if the tables were before them.
    awaited: Option<u64>,
    ended: bool,
    stored: Vec<u8>,
}

impl Markers {
    /// Reads the header and the descriptor.
    ///
    /// # Errors
    /// `vmdk.*` codes: among others, when it is not a stream-optimized disk, or has a parent.
    pub(super) fn open(mut stream: Box<dyn Stream>, policy: &Policy) -> Result<Self> {
        let mut start = [0; header::LEN];
        let found = read_full(&mut *stream, &mut start)?;
        if found < start.len() || !start.starts_with(b"KDMV") {
            return Err(only_streams());
        }
        let header = Header::parse(&start)?;
        if !header.compressed || !header.markers || header.capacity == 0 {
            return Err(only_streams());
        }
        let (offset, size) = header.descriptor.ok_or_else(only_streams)?;
        let mut feed = Self { stream, header, at: SECTOR, awaited: None, ended: false, stored: Vec::new() };
        feed.skip_to(offset)?;
        let mut text = vec![0; size];
        feed.fill(&mut text)?;
        let descriptor = Descriptor::parse(&text).map_err(|error| error.at("embedded descriptor"))?;
        super::check_embedded(&descriptor, policy)?;
        if descriptor.has_parent() {
            return Err(Error::unsupported("feed.parent", "the disk has a parent, which a stream does not bring")
                .hint("save the chain to files, and name the last one as the source"));
        }
        let overhead = header::overhead(&start)?;
        if let Some(directory) = feed.header.gd {
            feed.awaited = Some(feed.count_entries(directory, overhead)?);
        }
        feed.skip_to(overhead)?;
        Ok(feed)
    }

    /// Reads the tables, which lie before `overhead`, and counts the grains that they have.
    fn count_entries(&mut self, directory: u64, overhead: u64) -> Result<u64> {
        let layout = Layout::hosted(&self.header);
        if layout.tables() > limits::MAX_VMDK_TABLES {
            return Err(Error::limit("vmdk.directory", "the disk has too many grain tables")
                .expected(format!("at most {}", limits::MAX_VMDK_TABLES))
                .found(layout.tables()));
        }
        let mut offsets = self.entries_at(directory, layout.tables(), overhead)?;
        offsets.retain(|sector| *sector != 0);
        offsets.sort_unstable();
        let mut count: u64 = 0;
        let unused = if self.header.zeroed_grains { 1 } else { 0 };
        for sector in offsets {
            let entries = self.entries_at(u64::from(sector).saturating_mul(SECTOR), self.header.gtes, overhead)?;
            let used = entries.iter().filter(|entry| **entry > unused).count();
            count = count.saturating_add(u64::try_from(used).unwrap_or(u64::MAX));
        }
        Ok(count)
    }

    /// Reads `count` entries of a table at `offset`, which lies ahead.
    fn entries_at(&mut self, offset: u64, count: u64, overhead: u64) -> Result<Vec<u32>> {
        let len = count.saturating_mul(4);
        if offset < self.at || offset.saturating_add(len) > overhead {
            return Err(Error::unsupported("feed.format", "the tables lie where a stream cannot be read forward")
                .offset(offset)
                .hint("save it to a file, and name that as the source"));
        }
        self.skip_to(offset)?;
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        self.fill(&mut bytes)?;
        let (words, _) = bytes.as_chunks::<4>();
        Ok(words.iter().map(|word| u32::from_le_bytes(*word)).collect())
    }

    /// The next grain; nothing at the end of the stream.
    fn grain(&mut self) -> Result<Option<Piece>> {
        loop {
            let marker_at = self.at;
            let mut marker = [0; header::LEN];
            if self.awaited == Some(0) {
                // QEMU writes nothing behind the last grain.
                return Ok(None);
            }
            self.fill(&mut marker)?;
            let (value, size) = (header::u64_at(&marker, 0), header::u32_at(&marker, 8));
            if size > 0 {
                return self.data(value, size, &marker, marker_at).map(Some);
            }
            match header::u32_at(&marker, 12) {
                END_OF_STREAM if self.awaited.is_none() => return Ok(None),
                END_OF_STREAM => return Err(bad("the stream ends before all grains of its tables came", marker_at)),
                kind @ (GRAIN_TABLE | GRAIN_DIRECTORY | FOOTER) => {
                    // The longest is a directory.
                    let most = limits::MAX_VMDK_TABLES.saturating_mul(4) / SECTOR;
                    if value > most {
                        return Err(bad("a marker's length is impossible", marker_at)
                            .expected(format!("at most {most} sectors"))
                            .found(format!("{value} for type {kind}")));
                    }
                    self.skip_to(self.at.saturating_add(value.saturating_mul(SECTOR)))?;
                }
                kind => return Err(bad("a marker's type is not known", marker_at).expected("0 to 3").found(kind)),
            }
        }
    }

    /// The grain at sector `lba`, whose `size` bytes began in the marker's sector.
    fn data(&mut self, lba: u64, size: u32, marker: &[u8; header::LEN], marker_at: u64) -> Result<Piece> {
        let (grain, capacity) = (self.header.grain, self.header.capacity);
        let offset = lba.checked_mul(SECTOR).filter(|offset| *offset < capacity && offset.is_multiple_of(grain));
        let Some(offset) = offset else {
            return Err(bad("a grain lies nowhere on the disk", marker_at)
                .expected(format!("a multiple of {:#x} below {:#x}", grain / SECTOR, capacity / SECTOR))
                .found(format!("sector {lba:#x}")));
        };
        let most = grain::largest_stored(grain);
        let len = usize::try_from(size).ok().filter(|_| u64::from(size) <= most);
        let Some(len) = len else {
            return Err(bad("a compressed grain's size is impossible", marker_at)
                .expected(format!("at most {most}"))
                .found(size));
        };
        let mut stored = std::mem::take(&mut self.stored);
        stored.clear();
        stored.extend(marker.get(grain::MARKER..).unwrap_or_default());
        let whole = grain::MARKER.saturating_add(len).next_multiple_of(header::LEN).saturating_sub(grain::MARKER);
        let begun = stored.len();
        stored.resize(whole, 0);
        self.fill(stored.get_mut(begun..).unwrap_or_default())?;
        let left = capacity.saturating_sub(offset).min(grain);
        let mut bytes = vec![0; usize::try_from(grain).unwrap_or(0)];
        let left = usize::try_from(left).unwrap_or(0);
        grain::decode(stored.get(..len).unwrap_or_default(), &mut bytes, left).map_err(|e| e.offset(marker_at))?;
        bytes.truncate(left);
        self.stored = stored;
        if let Some(awaited) = &mut self.awaited {
            *awaited = awaited.checked_sub(1).ok_or_else(|| bad("a grain is in no table", marker_at))?;
        }
        Ok(Piece { offset, content: Content::Data(bytes) })
    }

    /// Passes over everything before `target`.
    fn skip_to(&mut self, target: u64) -> Result<()> {
        let mut buffer = [0; 4096];
        while self.at < target {
            let step = usize::try_from(target.saturating_sub(self.at)).unwrap_or(usize::MAX).min(buffer.len());
            self.fill(buffer.get_mut(..step).unwrap_or_default())?;
        }
        Ok(())
    }

    /// Fills all of `buf`.
    fn fill(&mut self, buf: &mut [u8]) -> Result<()> {
        let count = read_full(&mut *self.stream, buf)?;
        self.at = self.at.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        if count < buf.len() {
            return Err(Error::corrupt("vmdk.stream", "the stream ended before its end-of-stream marker")
                .offset(self.at)
                .hint("what wrote it failed, or was stopped"));
        }
        Ok(())
    }

    /// Reads what is behind the end, so that whoever writes it does not fail.
    fn drain(&mut self) -> Result<()> {
        let mut buffer = [0; 4096];
        while self.stream.read(&mut buffer)? > 0 {}
        Ok(())
    }
}

impl Feed for Markers {
    fn disk_len(&self) -> Option<u64> {
        Some(self.header.capacity)
    }

    fn next_piece(&mut self) -> Result<Option<Piece>> {
        if self.ended {
            return Ok(None);
        }
        let name = self.stream.name();
        let piece = self.grain().map_err(|error| error.at(&name))?;
        if piece.is_none() {
            self.ended = true;
            self.drain()?;
        }
        Ok(piece)
    }

    fn name(&self) -> String {
        self.stream.name()
    }
}

fn only_streams() -> Error {
    Error::unsupported("feed.format", "of VMDK disks, only stream-optimized ones can be read forward")
        .hint("save it to a file, and name that as the source")
}

fn bad(what: &str, at: u64) -> Error {
    Error::corrupt("vmdk.marker", what).offset(at)
}
