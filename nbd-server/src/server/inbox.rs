//! Received bytes on their way to becoming requests.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::io;

use crate::protocol::wire::fill;
use crate::protocol::{Request, Style};

/// Room for several hundred requests, which arrive together when a client pipelines them, or a few small writes.
const CAPACITY: usize = 64 << 10;

/// Received bytes that have not been taken as requests yet.
pub(super) struct Inbox {
    style: Style,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Payload bytes to take or to throw away before the next request.
    payload: usize,
}

impl Inbox {
    /// An inbox that holds what the handshake received beyond its own end.
    pub(super) fn new(style: Style, received: &[u8]) -> Self {
        let mut buffer = received.to_vec();
        buffer.resize(received.len().max(CAPACITY), 0);
        Self { style, buffer, start: 0, end: received.len(), payload: 0 }
    }

    /// The next request, if all of it has been received. What has not been taken of the payload of the one before it is thrown away.
    ///
    /// # Errors
    /// If what follows cannot be understood, so that the connection must end.
    pub(super) fn next(&mut self) -> io::Result<Option<Request>> {
        self.drop_payload();
        if self.received().first_chunk().is_some_and(|magic| *magic != self.style.request_magic().to_be_bytes()) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let size = self.style.request_size();
        let Some(bytes) = self.received().get(..size) else { return Ok(None) };
        let request = Request::parse(bytes, self.style).ok_or(io::ErrorKind::InvalidData)?;
        let payload = request.payload(self.style).ok_or(io::ErrorKind::InvalidData)?;
        self.start = self.start.saturating_add(size);
        self.payload = usize::try_from(payload).map_err(|_| io::ErrorKind::InvalidData)?;
        Ok(Some(request))
    }

    /// Bytes of payload that are left of the last request.
    pub(super) const fn payload_len(&self) -> usize {
        self.payload
    }

    /// Fills `buf` with payload of the last request, as much as there is, waiting for it with `receive`; returns how much that was.
    pub(super) fn payload(
        &mut self,
        buf: &mut [u8],
        mut receive: impl FnMut(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let len = self.payload.min(buf.len());
        let buf = buf.get_mut(..len).unwrap_or_default();
        let mut done = len.min(self.received().len());
        fill(buf, &[self.received().get(..done).unwrap_or_default()]);
        self.start = self.start.saturating_add(done);
        while done < len {
            let received = receive(buf.get_mut(done..).unwrap_or_default())?;
            if received == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            done = done.saturating_add(received);
        }
        self.payload = self.payload.saturating_sub(len);
        Ok(len)
    }

    /// Whether another request has begun to arrive.
    pub(super) fn has_more(&self) -> bool {
        self.received().len() > self.payload
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
        let dropped = self.payload.min(self.received().len());
        self.payload = self.payload.saturating_sub(dropped);
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
    use crate::protocol::constants::{CMD_FLAG_PAYLOAD_LEN, CMD_READ, CMD_WRITE};
    use proptest::prelude::*;

    #[test]
    fn a_wrong_magic_number_ends_the_connection() {
        for style in [Style::Simple, Style::Structured, Style::Extended] {
            assert!(Inbox::new(style, &[7; 32]).next().is_err());
            assert!(Inbox::new(style, &[7; 4]).next().is_err(), "as soon as it is there");
            assert!(Inbox::new(style, &[7; 3]).next().unwrap().is_none());
        }
    }

    #[test]
    fn a_payload_that_does_not_come_ends_the_connection() {
        let mut sent = Vec::new();
        Request { flags: 0, command: CMD_WRITE, cookie: 0, offset: 0, length: 100 }.append_to(Style::Simple, &mut sent);
        sent.extend([1; 60]);
        let mut inbox = Inbox::new(Style::Simple, &sent);
        inbox.next().unwrap();
        assert!(inbox.payload(&mut [0; 100], |_| Ok(0)).is_err());
    }

    proptest! {
        /// However the bytes are cut, the same requests come out, with their payloads, or without those that nobody takes.
        #[test]
        fn cuts_do_not_matter(
            writes in prop::collection::vec(prop::option::of((1_u16..30_000, any::<bool>())), 1..8),
            cut in 1_usize..9000,
            extended: bool,
        ) {
            let style = if extended { Style::Extended } else { Style::Structured };
            let mut sent = Vec::new();
            for (cookie, write) in (0_u8..).zip(&writes) {
                let (length, _) = write.unwrap_or((1, false));
                let command = if write.is_some() { CMD_WRITE } else { CMD_READ };
                let flags = if write.is_some() && extended { CMD_FLAG_PAYLOAD_LEN } else { 0 };
                Request { flags, command, cookie: cookie.into(), offset: 0, length: length.into() }.append_to(style, &mut sent);
                sent.extend(vec![cookie; if write.is_some() { length.into() } else { 0 }]);
            }
            let left = std::cell::Cell::new(&sent[..]);
            let receive = |buf: &mut [u8]| {
                let len = buf.len().min(cut).min(left.get().len());
                buf[..len].copy_from_slice(&left.get()[..len]);
                left.set(&left.get()[len..]);
                Ok(len)
            };
            let mut inbox = Inbox::new(style, &[]);
            let mut cookies = Vec::new();
            loop {
                while let Some(request) = inbox.next().unwrap() {
                    let cookie = cookies.len() as u8;
                    cookies.push(request.cookie);
                    if let Some((length, true)) = writes[usize::from(cookie)] {
                        let mut payload = vec![0xee; 20_000];
                        let first = inbox.payload(&mut payload, receive).unwrap();
                        let rest = inbox.payload(&mut payload[..10_000], receive).unwrap();
                        prop_assert_eq!(first + rest, usize::from(length));
                        prop_assert!(payload[..first.max(rest)].iter().all(|&byte| byte == cookie));
                    }
                }
                if !inbox.fill(receive).unwrap() {
                    break;
                }
            }
            prop_assert_eq!(cookies, (0..writes.len() as u64).collect::<Vec<_>>());
            prop_assert!(!inbox.has_more());
        }
    }
}
