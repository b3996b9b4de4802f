//! Journals from anywhere, played back without a file: what a fuzz target needs, which sees nothing else of this module.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::journal::{Chunk, Header, Journal, Record, Records};
use super::output::{Log, Output};
use super::plan::CHUNK;
use super::sink::{Make, Piece, Sink};
use super::{Format, Options, Sharing};
use crate::disk::{Disk, Fingerprint, Memory, SectorSize};
use crate::error::{Error, Result};
use crate::session::Moment;

/// What was found in a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// Chunks that it has.
    pub chunks: u64,
    /// Those that are said to be durable.
    pub durable: u64,
    /// Bytes that a run would go on behind.
    pub end: u64,
}

/// How a journal begins, of a disk of `len` bytes that becomes a qcow2 image, or a raw one.
#[must_use]
pub fn beginning(len: u64, raw: bool) -> Vec<u8> {
    Record::Header(Box::new(header(len, raw))).encode()
}

fn format(raw: bool) -> Format {
    if raw { Format::Raw(super::RawOptions::default()) } else { Format::default() }
}

fn header(len: u64, raw: bool) -> Header {
    let options = Options { format: format(raw), ..Options::default() };
    let moment = Moment { now: 0, seed: [0; 32] };
    Header::new(options.identity(&Sharing::default()), len, Fingerprint([0; 32]), moment)
}

/// Goes on with the journal in `bytes` as a run would, twice, and has a sink find the places of its chunks, twice.
///
/// # Errors
/// `resume.journal` when the second time differs from the first, and those of opening it.
pub fn replay(bytes: &[u8], len: u64, raw: bool) -> Result<Replayed> {
    let bytes = Bytes(Mutex::new(bytes.to_vec()));
    let open = || Journal::open(&bytes, &header(len, raw));
    let (first, second) = (open()?, open()?);
    let found =
        |journal: Journal| Replayed { chunks: journal.chunks.count, durable: journal.durable.count, end: journal.end };
    let same = Replayed { end: first.end, ..found(second) } == found(first);
    if !same || places(&bytes, &first, len, raw)? != places(&bytes, &second, len, raw)? {
        return Err(Error::failed("resume.journal", "the same journal is not the same twice"));
    }
    Ok(found(first))
}

/// Where the chunks of `journal` go.
fn places(bytes: &Bytes, journal: &Journal, len: u64, raw: bool) -> Result<Vec<Vec<Piece>>> {
    let output = Bytes(Mutex::default());
    let make =
        Make { len, sector_size: SectorSize::B512, identity: [0; 32], name: String::new(), surface: output.surface() };
    let mut sink: Box<dyn Sink> = format(raw).sink(&make)?;
    let mut records = Records::new(bytes);
    let mut places = Vec::new();
    while (places.len() as u64) < journal.chunks.count
        && let Some(Chunk { chunk, mut pieces, .. }) = records.next_chunk()?
    {
        sink.place(chunk * CHUNK, &mut pieces, &output)?;
        places.push(pieces);
    }
    Ok(places)
}

/// A journal in memory, and a file of which nothing is kept.
#[derive(Debug)]
struct Bytes(Mutex<Vec<u8>>);

impl Bytes {
    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log for Bytes {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        let bytes = self.lock();
        let rest = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..)).unwrap_or_default();
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        let mut bytes = self.lock();
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = at.saturating_add(data.len());
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[at..end].copy_from_slice(data);
        Ok(())
    }

    fn truncate(&self, len: u64) -> Result<()> {
        self.lock().truncate(usize::try_from(len).unwrap_or(usize::MAX));
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }
}

impl Output for Bytes {
    fn name(&self) -> String {
        "nothing".to_owned()
    }

    fn device(&self) -> Option<u64> {
        None
    }

    fn free_space(&self) -> Result<Option<u64>> {
        Ok(None)
    }

    fn write_at(&self, _data: &[u8], _offset: u64) -> Result<()> {
        Ok(())
    }

    fn written(&self, _range: Range<u64>) {}

    fn set_len(&self, _len: u64) -> Result<()> {
        Ok(())
    }

    fn allocate(&self, _len: u64) -> Result<()> {
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn reopen(&self) -> Result<Arc<dyn Disk>> {
        Ok(Arc::new(Memory::new(Vec::new())))
    }

    fn publish(&self, _force: bool) -> Result<PathBuf> {
        Ok(PathBuf::new())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::sink::Form;
    use super::*;

    fn journal(chunks: &[(u64, usize, usize)]) -> Vec<u8> {
        let mut bytes = beginning(LEN, true);
        for (chunk, start, len) in chunks {
            let pieces = vec![Piece { start: *start, len: *len, form: Form::Plain, host: 0 }];
            let chunk = Chunk { chunk: *chunk, read: 1, unread: 0, shared: 0, digest: None, stored: None, pieces };
            bytes.extend(Record::Chunk(chunk).encode());
        }
        bytes
    }

    const LEN: u64 = 3 * CHUNK + 512;

    proptest! {
        /// What the fuzz target does, with fewer and shorter inputs.
        #[test]
        fn what_is_accepted_plays_back_the_same(
            bodies in prop::collection::vec((1..6_u8, prop::collection::vec(prop_oneof![0..4_u8, any::<u8>()], 0..90)), 0..8),
            raw in any::<bool>(),
        ) {
            let mut bytes = beginning(LEN, raw);
            for (kind, rest) in bodies {
                let body = [&[kind][..], &rest].concat();
                bytes.extend(u32::try_from(body.len()).unwrap().to_le_bytes());
                bytes.extend(crc32c::crc32c(&body).to_le_bytes());
                bytes.extend(body);
            }
            match replay(&bytes, LEN, raw) {
                Ok(found) => prop_assert!(found.durable <= found.chunks && found.chunks <= bytes.len() as u64 / 16),
                Err(error) => prop_assert!(!["resume.journal", "resume.changed"].contains(&error.code()), "{error:?}"),
            }
        }
    }

    #[test]
    fn chunks_of_the_disk_count() {
        let found = replay(&journal(&[(0, 0, 4096), (2, 7, 1), (3, 0, 512)]), LEN, true).unwrap();
        assert_eq!((found.chunks, found.durable), (3, 0));
        assert_eq!(replay(b"", LEN, false).unwrap().chunks, 0);
    }

    #[test]
    fn chunks_that_the_disk_does_not_have_end_it() {
        for wrong in [(3, 0, 513), (3, 512, 1), (4, 0, 1), (u64::MAX, 0, 1), (u64::MAX / CHUNK + 1, 0, 1)] {
            let found = replay(&journal(&[(0, 0, 4096), wrong, (1, 0, 4096)]), LEN, true).unwrap();
            assert_eq!(found.chunks, 1, "{wrong:?}");
        }
    }
}
