//! A guest's text, line by line, whatever its length.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::io::{BufRead, BufReader, Read};

use crate::disk::bytes::{long, size};
use crate::error::{Error, Result};
use crate::fs::tree::cause;
use crate::limits;

/// Lines without their ends. Of one that is too long, the beginning.
pub(super) struct Lines<R> {
    reader: BufReader<R>,
    line: Vec<u8>,
    /// Bytes that may still be read.
    left: u64,
}

impl<R: Read> Lines<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader: BufReader::with_capacity(1 << 16, reader), line: Vec::new(), left: limits::MAX_PACKAGE_FILE }
    }

    /// The next line; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<&[u8]>> {
        self.line.clear();
        let mut began = false;
        loop {
            let chunk = self
                .reader
                .fill_buf()
                .map_err(|error| cause(error, |error| Error::unreadable("reading a guest's text", error)))?;
            if chunk.is_empty() {
                return Ok(began.then_some(&self.line));
            }
            began = true;
            if self.left == 0 {
                return Err(Error::limit("packages.file", "a file of a package manager that is too large")
                    .expected(format!("at most {} bytes", limits::MAX_PACKAGE_FILE)));
            }
            let chunk = chunk.get(..size(self.left)).unwrap_or(chunk);
            // Looking for it first is far faster where there is none.
            let end = chunk.contains(&b'\n').then(|| chunk.iter().position(|byte| *byte == b'\n')).flatten();
            let part = chunk.get(..end.unwrap_or(chunk.len())).unwrap_or_default();
            let room = limits::MAX_PACKAGE_LINE.saturating_sub(self.line.len());
            self.line.extend_from_slice(part.get(..room).unwrap_or(part));
            let used = part.len().saturating_add(usize::from(end.is_some()));
            self.left = self.left.saturating_sub(long(used));
            self.reader.consume(used);
            if end.is_some() {
                return Ok(Some(&self.line));
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "limits are far from the ends of their types")]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_as_long_as_the_limit() {
        let limit = limits::MAX_PACKAGE_FILE;
        for (length, whole) in [(limit - 1, true), (limit, true), (limit + 1, false)] {
            let mut lines = Lines::new(std::io::repeat(b'x').take(length));
            assert_eq!(lines.next().is_ok(), whole, "{length}");
        }
    }

    #[test]
    fn a_line_is_as_long_as_the_limit() {
        let limit = limits::MAX_PACKAGE_LINE;
        for (length, kept) in [(limit - 1, limit - 1), (limit, limit), (limit + 1, limit)] {
            let content = format!("{}\n\nnext", "x".repeat(length));
            let mut lines = Lines::new(content.as_bytes());
            assert_eq!(lines.next().unwrap().unwrap().len(), kept);
            assert_eq!(lines.next().unwrap().unwrap(), b"");
            assert_eq!(lines.next().unwrap().unwrap(), b"next");
            assert!(lines.next().unwrap().is_none());
        }
    }
}
