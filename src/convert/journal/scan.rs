//! A journal as an earlier run left it.

use std::collections::VecDeque;

use super::record::FRAME;
use super::{Chunk, Header, Log, Record, Sealing};
use crate::convert::plan::{CHUNK, WINDOW};
use crate::error::Result;
use crate::limits::MAX_JOURNAL_RECORD;
use crate::session::Moment;

/// Where a journal stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::convert) struct Journal {
    /// Chunks that it has, and where the last of them ends.
    pub(in crate::convert) chunks: Mark,
    /// Those that are durable, and where the last of them ends.
    pub(in crate::convert) durable: Mark,
    /// Where the next record goes.
    pub(in crate::convert) end: u64,
}

/// A place in a journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::convert) struct Mark {
    /// Chunks before it.
    pub(in crate::convert) count: u64,
    /// Its offset.
    pub(in crate::convert) end: u64,
}

impl Journal {
    /// Goes on with the journal in `log`, cut after its last whole record, or begins one when there is nothing to go on with.
    ///
    /// # Errors
    /// `resume.changed` when there is something and `header` says otherwise; those of reading and writing it.
    pub(in crate::convert) fn open(log: &dyn Log, header: &Header) -> Result<Self> {
        let mut found = Self::default();
        let mut records = Records::new(log);
        let mut began = None;
        let mut window = 0;
        // Where the chunks end that are not known to be durable.
        let mut ends = VecDeque::new();
        while let Some(record) = records.next()? {
            match record {
                Record::Header(header) if began.is_none() => began = Some(header),
                Record::Chunk(chunk)
                    if chunk.chunk / (WINDOW / CHUNK) >= window
                        && began.as_ref().is_some_and(|began| chunk.fits(began.len)) =>
                {
                    window = chunk.chunk / (WINDOW / CHUNK);
                    found.chunks = Mark { count: found.chunks.count + 1, end: records.at };
                    ends.push_back(records.at);
                }
                Record::Durable { chunks } if (found.durable.count..=found.chunks.count).contains(&chunks) => {
                    while found.durable.count < chunks {
                        found.durable = Mark { count: found.durable.count + 1, end: ends.pop_front().unwrap_or(0) };
                    }
                }
                Record::Run { .. } | Record::Sealing(_) if began.is_some() => {}
                _ => break,
            }
            found.end = records.at;
            if found.chunks.count == 0 {
                (found.chunks.end, found.durable.end) = (found.end, found.end);
            }
        }
        match began {
            Some(began) if found.chunks.count > 0 => began.check(header)?,
            _ => found = Self::default(),
        }
        log.truncate(found.end)?;
        if found.end == 0 {
            found.append(log, &Record::Header(Box::new(header.clone())))?;
        }
        found.append(log, &Record::Run { pid: std::process::id() })?;
        if found.chunks.count == 0 {
            found.chunks.end = found.end;
            found.durable.end = found.end;
        }
        Ok(found)
    }

    /// Adds a record.
    pub(in crate::convert) fn append(&mut self, log: &dyn Log, record: &Record) -> Result<()> {
        let bytes = record.encode();
        log.write_at(&bytes, self.end)?;
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// Forgets all chunks behind `mark`.
    pub(in crate::convert) fn cut(&mut self, log: &dyn Log, mark: Mark) -> Result<()> {
        log.truncate(mark.end)?;
        (self.chunks, self.end) = (mark, mark.end);
        if self.durable.count > mark.count {
            self.durable = mark;
        }
        let chunks = self.durable.count;
        self.append(log, &Record::Durable { chunks })
    }
}

/// The records of a journal, in order.
pub(in crate::convert) struct Records<'a> {
    log: &'a dyn Log,
    /// Where the next record begins.
    pub(in crate::convert) at: u64,
    buffer: Vec<u8>,
    /// Bytes of the buffer that were used.
    used: usize,
}

/// Bytes that are read of a journal at a time.
const READ: usize = 256 << 10;

impl<'a> Records<'a> {
    pub(in crate::convert) fn new(log: &'a dyn Log) -> Self {
        Self { log, at: 0, buffer: Vec::new(), used: 0 }
    }

    /// The next record; nothing at the end and where the rest is torn.
    pub(in crate::convert) fn next(&mut self) -> Result<Option<Record>> {
        let Some(frame) = self.peek(FRAME)?.and_then(|bytes| bytes.first_chunk().copied()) else { return Ok(None) };
        let Some(len) = Record::body_len(frame) else { return Ok(None) };
        let Some(record) = self.peek(FRAME + len)?.and_then(|bytes| Record::decode(frame, bytes.get(FRAME..)?)) else {
            return Ok(None);
        };
        self.used += FRAME + len;
        self.at += (FRAME + len) as u64;
        Ok(Some(record))
    }

    /// The next `len` bytes, when there are as many.
    fn peek(&mut self, len: usize) -> Result<Option<&[u8]>> {
        debug_assert!(len <= FRAME + MAX_JOURNAL_RECORD, "frames are bounded");
        if self.buffer.len() - self.used < len {
            self.buffer.drain(..self.used);
            self.used = 0;
            let (have, from) = (self.buffer.len(), self.at + self.buffer.len() as u64);
            self.buffer.resize(have + READ, 0);
            let read = self.log.read_at(&mut self.buffer[have..], from)?;
            self.buffer.truncate(have + read);
        }
        Ok(self.buffer.get(self.used..self.used + len))
    }

    /// The next chunk.
    pub(in crate::convert) fn next_chunk(&mut self) -> Result<Option<Chunk>> {
        while let Some(record) = self.next()? {
            if let Record::Chunk(chunk) = record {
                return Ok(Some(chunk));
            }
        }
        Ok(None)
    }
}

/// When the run began that has something to go on with, and its seed.
pub(in crate::convert) fn moment(log: &dyn Log) -> Result<Option<Moment>> {
    let mut records = Records::new(log);
    let Some(Record::Header(header)) = records.next()? else { return Ok(None) };
    Ok(records.next_chunk()?.map(|_| header.moment()))
}

/// The process that wrote to the journal last.
pub(in crate::convert) fn holder(log: &dyn Log) -> Result<Option<u32>> {
    last(log, |record| if let Record::Run { pid } = record { Some(pid) } else { None })
}

/// What was about to get its name.
pub(in crate::convert) fn read_sealing(log: &dyn Log) -> Result<Option<Sealing>> {
    last(log, |record| if let Record::Sealing(sealing) = record { Some(sealing) } else { None })
}

fn last<T>(log: &dyn Log, wanted: impl Fn(Record) -> Option<T>) -> Result<Option<T>> {
    let mut records = Records::new(log);
    let mut found = None;
    while let Some(record) = records.next()? {
        found = wanted(record).or(found);
    }
    Ok(found)
}
