//! What a negotiation came to, and the requests that are made under it.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use super::constants::*;
use super::wire::Fields;
use crate::export::Errno;
use crate::limits::MAX_PAYLOAD;

/// What a negotiation came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// Index of the export in its catalogue.
    pub export: usize,
    /// Its size in bytes.
    pub size: u64,
    /// Whether replies are structured.
    pub structured: bool,
    /// Whether the meta context `base:allocation` was chosen.
    pub allocation: bool,
}

/// A request, as it stands on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Command flags.
    pub flags: u16,
    /// Type of the command.
    pub command: u16,
    /// The client's name for the request, which the reply repeats.
    pub cookie: u64,
    /// In bytes.
    pub offset: u64,
    /// In bytes.
    pub length: u32,
}

/// What a request asks for, once it is found to make sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing but a reply.
    Acknowledge,
    /// Extents of `base:allocation`, all of the range or only the first.
    BlockStatus {
        /// Whether one extent is enough.
        one: bool,
    },
    /// Read ahead.
    Cache,
    /// No reply; no more requests.
    Disconnect,
    /// Bytes, in one piece or in several.
    Read {
        /// Whether the answer may come in pieces and with holes.
        fragment: bool,
    },
    /// An error.
    Refuse(Errno, &'static str),
}

impl Request {
    /// Bytes of a request.
    pub const SIZE: usize = 28;

    /// Takes apart the [`Self::SIZE`] bytes of a request; `None` if there are fewer, or if the magic number is wrong, after
    /// which nothing that follows can be trusted.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        if fields.u32()? != REQUEST_MAGIC {
            return None;
        }
        Some(Self {
            flags: fields.u16()?,
            command: fields.u16()?,
            cookie: fields.u64()?,
            offset: fields.u64()?,
            length: fields.u32()?,
        })
    }

    /// Bytes that follow the request; `None` if they are too many to skip.
    #[must_use]
    pub fn payload(&self) -> Option<u32> {
        match self.command {
            CMD_WRITE if self.length > MAX_PAYLOAD => None,
            CMD_WRITE => Some(self.length),
            _ => Some(0),
        }
    }
}

impl Session {
    /// The number that stands for `base:allocation` in replies.
    pub const ALLOCATION_CONTEXT: u32 = 1;

    /// What a request asks for. Ranges of what is not refused lie inside the export.
    #[must_use]
    pub fn action(&self, request: &Request) -> Action {
        let (action, flags) = match request.command {
            CMD_READ => {
                let fragment = self.structured && request.flags & CMD_FLAG_DF == 0;
                (Action::Read { fragment }, if self.structured { CMD_FLAG_DF } else { 0 })
            }
            CMD_DISC => return Action::Disconnect,
            CMD_WRITE | CMD_TRIM | CMD_WRITE_ZEROES => {
                return Action::Refuse(Errno::Perm, "the export is read-only");
            }
            CMD_FLUSH => (Action::Acknowledge, 0),
            CMD_CACHE => (Action::Cache, 0),
            CMD_BLOCK_STATUS => {
                let one = request.flags & CMD_FLAG_REQ_ONE != 0;
                (Action::BlockStatus { one }, CMD_FLAG_REQ_ONE)
            }
            _ => return Action::Refuse(Errno::Inval, "unknown command"),
        };
        if request.flags & !flags != 0 {
            return Action::Refuse(Errno::Inval, "unknown command flag");
        }
        self.check_range(request, action)
    }

    fn check_range(&self, request: &Request, action: Action) -> Action {
        let end = request.offset.checked_add(u64::from(request.length));
        if action == Action::Acknowledge {
            return action;
        }
        if end.is_none_or(|end| end > self.size) {
            return Action::Refuse(Errno::Inval, "the request reaches beyond the end of the export");
        }
        match action {
            Action::Read { .. } if request.length > MAX_PAYLOAD => {
                Action::Refuse(Errno::Inval, "the read is larger than the maximum block size")
            }
            Action::BlockStatus { .. } if !self.allocation => {
                Action::Refuse(Errno::Inval, "no meta context was negotiated")
            }
            Action::BlockStatus { .. } if request.length == 0 => {
                Action::Refuse(Errno::Inval, "the length of a block status request is zero")
            }
            _ => action,
        }
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, clippy::as_conversions, reason = "tests compute with small numbers")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SESSION: Session = Session { export: 0, size: 1 << 40, structured: true, allocation: true };

    fn request(command: u16, flags: u16, offset: u64, length: u32) -> Request {
        Request { flags, command, cookie: 7, offset, length }
    }

    fn refused(session: &Session, request: Request) -> bool {
        matches!(session.action(&request), Action::Refuse(Errno::Inval, _))
    }

    #[test]
    fn a_range_may_touch_the_end_and_not_pass_it() {
        for command in [CMD_READ, CMD_CACHE, CMD_BLOCK_STATUS] {
            assert!(!refused(&SESSION, request(command, 0, (1 << 40) - 512, 512)));
            assert!(refused(&SESSION, request(command, 0, (1 << 40) - 511, 512)));
            assert!(refused(&SESSION, request(command, 0, u64::MAX, 1)));
            assert!(refused(&SESSION, request(command, 0, u64::MAX, u32::MAX)));
        }
    }

    #[test]
    fn the_largest_read_is_the_maximum_block_size() {
        assert!(!refused(&SESSION, request(CMD_READ, 0, 0, MAX_PAYLOAD - 1)));
        assert!(!refused(&SESSION, request(CMD_READ, 0, 0, MAX_PAYLOAD)));
        assert!(refused(&SESSION, request(CMD_READ, 0, 0, MAX_PAYLOAD + 1)));
    }

    #[test]
    fn the_largest_payload_that_is_skipped_is_the_maximum_block_size() {
        assert_eq!(request(CMD_WRITE, 0, 0, MAX_PAYLOAD - 1).payload(), Some(MAX_PAYLOAD - 1));
        assert_eq!(request(CMD_WRITE, 0, 0, MAX_PAYLOAD).payload(), Some(MAX_PAYLOAD));
        assert_eq!(request(CMD_WRITE, 0, 0, MAX_PAYLOAD + 1).payload(), None);
        assert_eq!(request(CMD_TRIM, 0, 0, u32::MAX).payload(), Some(0));
    }

    #[test]
    fn flags_are_known_or_refused() {
        assert_eq!(SESSION.action(&request(CMD_READ, CMD_FLAG_DF, 0, 1)), Action::Read { fragment: false });
        let simple = Session { structured: false, allocation: false, ..SESSION };
        assert!(refused(&simple, request(CMD_READ, CMD_FLAG_DF, 0, 1)));
        assert_eq!(simple.action(&request(CMD_READ, 0, 0, 1)), Action::Read { fragment: false });
        assert!(refused(&simple, request(CMD_BLOCK_STATUS, 0, 0, 1)));
        assert!(refused(&SESSION, request(CMD_BLOCK_STATUS, CMD_FLAG_DF, 0, 1)));
        assert!(refused(&SESSION, request(CMD_CACHE, 1 << 15, 0, 1)));
        assert!(refused(&SESSION, request(9, 0, 0, 1)));
    }

    proptest! {
        #[test]
        fn a_request_survives_the_wire(flags: u16, command: u16, cookie: u64, offset: u64, length: u32) {
            let mut bytes = Vec::new();
            bytes.extend(REQUEST_MAGIC.to_be_bytes());
            bytes.extend(flags.to_be_bytes());
            bytes.extend(command.to_be_bytes());
            bytes.extend(cookie.to_be_bytes());
            bytes.extend(offset.to_be_bytes());
            bytes.extend(length.to_be_bytes());
            prop_assert_eq!(bytes.len(), Request::SIZE);
            prop_assert_eq!(Request::parse(&bytes), Some(Request { flags, command, cookie, offset, length }));
            for len in 0..Request::SIZE {
                prop_assert_eq!(Request::parse(&bytes[..len]), None);
            }
            bytes[0] ^= 1;
            prop_assert_eq!(Request::parse(&bytes), None);
        }

        #[test]
        fn what_is_not_refused_lies_inside(command in 0_u16..10, flags in 0_u16..16, offset: u64, length: u32, size: u64) {
            let session = Session { size, ..SESSION };
            let inside = u128::from(offset) + u128::from(length) <= u128::from(size);
            let action = session.action(&request(command, flags, offset, length));
            let ranged = matches!(action, Action::Read { .. } | Action::BlockStatus { .. } | Action::Cache);
            prop_assert!(inside || !ranged);
        }
    }
}
