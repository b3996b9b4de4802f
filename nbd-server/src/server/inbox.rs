//! Received bytes on their way to becoming requests.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::io;

use crate::protocol::Request;
use crate::protocol::constants::REQUEST_MAGIC;

/// Room for several hundred requests, which arrive together when a client pipelines them.
const CAPACITY: usize = 16 << 10;

/// Received bytes that have not been taken as requests yet.
pub(super) struct Inbox {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Payload bytes to throw away before the next request.
    skip: usize,
}

impl Inbox {
    /// An inbox that holds what the handshake received beyond its own end.
    pub(super) fn new(received: &[u8]) -> Self {
        let mut buffer = received.to_vec();
        buffer.resize(received.len().max(CAPACITY), 0);
        Self { buffer, start: 0, end: received.len(), skip: 0 }
    }

    /// The next request, if all of it has been received. Its payload, if it has one, is thrown away.
    ///
    /// # Errors
    /// If what follows cannot be understood, so that the connection must end.
    pub(super) fn next(&mut self) -> io::Result<Option<Request>> {
        self.drop_payload();
        if self.received().first_chunk().is_some_and(|magic| *magic != REQUEST_MAGIC.to_be_bytes()) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let Some(bytes) = self.received().get(..Request::SIZE) else { return Ok(None) };
        let request = Request::parse(bytes).ok_or(io::ErrorKind::InvalidData)?;
        let payload = request.payload().ok_or(io::ErrorKind::InvalidData)?;
        self.start = self.start.saturating_add(Request::SIZE);
        self.skip = usize::try_from(payload).map_err(|_| io::ErrorKind::InvalidData)?;
        Ok(Some(request))
    }

    /// Whether another request has begun to arrive.
    pub(super) fn has_more(&self) -> bool {
        self.received().len() > self.skip
    }

    /// Adds what `receive` puts into the free part of the buffer; false at the end of the connection.
    pub(super) fn fill(&mut self, receive: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<bool> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end = self.end.saturating_sub(self.start);
        self.start = 0;
        let received = receive(self.buffer.get_mut(self.end..).unwrap_or_default())?;
        self.end = self.end.saturating_add(received).min(self.buffer.len());
        Ok(received > 0)
    }

    fn drop_payload(&mut self) {
        let dropped = self.skip.min(self.received().len());
        self.skip = self.skip.saturating_sub(dropped);
        self.start = self.start.saturating_add(dropped);
    }

    fn received(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, clippy::as_conversions, reason = "tests compute with small numbers")]
mod tests {
    use super::*;
    use crate::protocol::constants::{CMD_READ, CMD_WRITE};
    use proptest::prelude::*;

    fn bytes(command: u16, cookie: u64, length: u32) -> Vec<u8> {
        let mut bytes = REQUEST_MAGIC.to_be_bytes().to_vec();
        bytes.extend(0_u16.to_be_bytes());
        bytes.extend(command.to_be_bytes());
        bytes.extend(cookie.to_be_bytes());
        bytes.extend(0_u64.to_be_bytes());
        bytes.extend(length.to_be_bytes());
        bytes
    }

    #[test]
    fn a_wrong_magic_number_ends_the_connection() {
        assert!(Inbox::new(&[7; Request::SIZE]).next().is_err());
        assert!(Inbox::new(&[7; 4]).next().is_err(), "as soon as it is there");
        assert!(Inbox::new(&[7; 3]).next().unwrap().is_none());
    }

    proptest! {
        /// However the bytes are cut, the same requests come out, and payloads do not.
        #[test]
        fn cuts_do_not_matter(writes in prop::collection::vec(prop::option::of(0_u32..40_000), 1..8), cut in 1_usize..9000) {
            let mut sent = Vec::new();
            for (cookie, write) in writes.iter().enumerate() {
                sent.extend(bytes(if write.is_some() { CMD_WRITE } else { CMD_READ }, cookie as u64, write.unwrap_or(1)));
                sent.extend(vec![0x25; write.unwrap_or(0) as usize]);
            }
            let mut inbox = Inbox::new(&[]);
            let mut left = &sent[..];
            let mut cookies = Vec::new();
            loop {
                while let Some(request) = inbox.next().unwrap() {
                    cookies.push(request.cookie);
                }
                let more = inbox.fill(|buf| {
                    let len = buf.len().min(cut).min(left.len());
                    buf[..len].copy_from_slice(&left[..len]);
                    left = &left[len..];
                    Ok(len)
                });
                if !more.unwrap() {
                    break;
                }
            }
            prop_assert_eq!(cookies, (0..writes.len() as u64).collect::<Vec<_>>());
            prop_assert!(!inbox.has_more());
        }
    }
}
