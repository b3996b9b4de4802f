//! What decoders read from: bytes of a stream, a buffer at a time.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::collections::VecDeque;
use std::fmt;
use std::ops::{Deref, DerefMut, Range};
use std::sync::Arc;

use crate::disk::{Disk, Stream};
use crate::error::{Error, Result};

/// Bytes that are asked for at a time.
const BUFFER: usize = 128 << 10;

/// A stream with a buffer.
#[derive(Debug)]
pub(in crate::container) struct Input {
    stream: Box<dyn Stream>,
    buf: Vec<u8>,
    at: usize,
    end: usize,
    /// Bytes of the stream before `buf`.
    before: u64,
}

impl Input {
    pub(in crate::container) fn new(stream: Box<dyn Stream>) -> Self {
        Self { stream, buf: Vec::new(), at: 0, end: 0, before: 0 }
    }

    /// The bytes at hand; none at the end of the stream.
    pub(in crate::container) fn fill(&mut self) -> Result<&[u8]> {
        if self.at == self.end {
            self.buf.resize(BUFFER, 0);
            self.before = self.before.saturating_add(u64::try_from(self.end).unwrap_or(u64::MAX));
            (self.at, self.end) = (0, 0);
            self.end = self.stream.read(&mut self.buf)?;
        }
        Ok(self.buf.get(self.at..self.end).unwrap_or_default())
    }

    /// Passes over bytes that [`Input::fill`] gave.
    pub(in crate::container) fn take(&mut self, count: usize) {
        self.at = self.at.saturating_add(count).min(self.end);
    }

    /// Bytes of the stream that were taken.
    pub(in crate::container) fn offset(&self) -> u64 {
        self.before.saturating_add(u64::try_from(self.at).unwrap_or(u64::MAX))
    }

    pub(in crate::container) fn byte(&mut self) -> Result<u8> {
        let byte = self.fill()?.first().copied();
        self.take(1);
        byte.ok_or_else(|| self.truncated())
    }

    pub(in crate::container) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        for byte in &mut bytes {
            *byte = self.byte()?;
        }
        Ok(bytes)
    }

    pub(in crate::container) fn skip(&mut self, mut count: u64) -> Result<()> {
        while count > 0 {
            let len = self.fill()?.len();
            if len == 0 {
                return Err(self.truncated());
            }
            let step = usize::try_from(count).unwrap_or(usize::MAX).min(len);
            self.take(step);
            count = count.saturating_sub(u64::try_from(step).unwrap_or(u64::MAX));
        }
        Ok(())
    }

    pub(in crate::container) fn name(&self) -> String {
        self.stream.name()
    }

    /// The stream ended inside of something.
    pub(in crate::container) fn truncated(&self) -> Error {
        Error::corrupt("packed.truncated", "the compressed file ends too early")
            .at(self.name())
            .offset(self.offset())
            .hint("the file may be incomplete; get it again")
    }

    /// What is here makes no sense.
    pub(in crate::container) fn corrupt(&self, what: impl Into<String>) -> Error {
        Error::corrupt("packed.corrupt", what).at(self.name()).offset(self.offset())
    }
}

/// A range of a disk as a stream.
#[derive(Debug)]
pub(in crate::container) struct Part {
    disk: Arc<dyn Disk>,
    range: Range<u64>,
}

impl Part {
    /// `range` of `disk`, as far as it lies inside.
    pub(in crate::container) fn new(disk: &Arc<dyn Disk>, range: Range<u64>) -> Self {
        let end = range.end.min(disk.len());
        Self { disk: Arc::clone(disk), range: range.start.min(end)..end }
    }
}

impl Stream for Part {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        let left = usize::try_from(self.range.end.saturating_sub(self.range.start)).unwrap_or(usize::MAX);
        let count = buf.len().min(left);
        let part = buf.get_mut(..count).unwrap_or_default();
        if !part.is_empty() {
            self.disk.read_at(part, self.range.start)?;
        }
        self.range.start = self.range.start.saturating_add(u64::try_from(count).unwrap_or(0));
        Ok(count)
    }

    fn name(&self) -> String {
        self.disk.name()
    }
}

/// Bytes in memory as a stream.
#[derive(Debug)]
pub(in crate::container) struct Bytes {
    name: String,
    bytes: VecDeque<u8>,
}

impl Bytes {
    pub(in crate::container) fn new(name: String, bytes: Vec<u8>) -> Self {
        Self { name, bytes: bytes.into() }
    }
}

impl Stream for Bytes {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        std::io::Read::read(&mut self.bytes, buf)
            .map_err(|error| Error::failed("packed.corrupt", "bytes in memory cannot be read").because(error))
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}

/// Streams, one after the other.
#[derive(Debug)]
pub(in crate::container) struct Chain {
    name: String,
    parts: VecDeque<Box<dyn Stream>>,
}

impl Chain {
    pub(in crate::container) fn new(name: String, parts: Vec<Box<dyn Stream>>) -> Self {
        Self { name, parts: parts.into() }
    }
}

impl Stream for Chain {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        while let Some(first) = self.parts.front_mut() {
            match first.read(buf)? {
                0 => _ = self.parts.pop_front(),
                count => return Ok(count),
            }
        }
        Ok(0)
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}

/// A decoder's state, of which there is nothing to show.
pub(in crate::container) struct Opaque<T>(pub(in crate::container) T);

impl<T> fmt::Debug for Opaque<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::any::type_name::<T>())
    }
}

impl<T> Deref for Opaque<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Opaque<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}
