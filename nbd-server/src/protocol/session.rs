//! What a negotiation came to, and the requests that are made under it.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::ops::Range;

use super::constants::*;
use super::wire::{Fields, append};
use crate::export::{Errno, Zero};
use crate::limits::{MAX_CONTEXTS, MAX_PAYLOAD};

/// What a negotiation came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// Index of the export in its catalogue.
    pub export: usize,
    /// Its size in bytes.
    pub size: u64,
    /// How requests and replies look.
    pub style: Style,
    /// The meta contexts that were chosen: bit `n` stands for the context with the number `n + 1`, and bit 0 for
    /// `base:allocation`.
    pub contexts: u64,
    /// Whether writes are allowed.
    pub writable: bool,
    /// Whether trims are.
    pub trim: bool,
    /// What offsets and lengths are multiples of.
    pub minimum_block: u32,
}

/// How requests and replies look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Style {
    /// Compact requests, simple replies.
    #[default]
    Simple,
    /// Compact requests, structured replies.
    Structured,
    /// Extended requests and replies.
    Extended,
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
    /// In bytes: of the range, or of the payload.
    pub length: u64,
}

/// What a request asks for, once it is found to make sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Extents of meta contexts.
    BlockStatus {
        /// Whether one extent is enough.
        one: bool,
        /// In bytes; not the request's own length if that is of a payload.
        length: u64,
        /// The contexts asked for, as in [`Session::contexts`].
        contexts: u64,
    },
    /// Read ahead.
    Cache,
    /// No reply; no more requests.
    Disconnect,
    /// Make everything written durable.
    Flush,
    /// Bytes, in one piece or in several.
    Read {
        /// Whether the answer may come in pieces and with holes.
        fragment: bool,
    },
    /// An error.
    Refuse(Errno, &'static str),
    /// The range is of no more use.
    Trim {
        /// Whether to reply when it is durable.
        fua: bool,
    },
    /// The payload.
    Write {
        /// Whether to reply when it is durable.
        fua: bool,
    },
    /// Zeros.
    Zero {
        /// How to make them.
        how: Zero,
        /// Whether to reply when it is durable.
        fua: bool,
    },
}

impl Style {
    /// Bytes of a request.
    #[must_use]
    pub const fn request_size(self) -> usize {
        match self {
            Self::Extended => Request::EXTENDED_SIZE,
            _ => Request::SIZE,
        }
    }

    /// First word of a request.
    #[must_use]
    pub const fn request_magic(self) -> u32 {
        match self {
            Self::Extended => EXTENDED_REQUEST_MAGIC,
            _ => REQUEST_MAGIC,
        }
    }
}

impl Request {
    /// Bytes of a compact request.
    pub const SIZE: usize = 28;
    /// Bytes of an extended request.
    pub const EXTENDED_SIZE: usize = 32;

    /// Takes a request apart; `None` if there are too few bytes, or if the magic number is wrong, after which nothing that
    /// follows can be trusted.
    #[must_use]
    pub fn parse(bytes: &[u8], style: Style) -> Option<Self> {
        let mut fields = Fields(bytes);
        if fields.u32()? != style.request_magic() {
            return None;
        }
        Some(Self {
            flags: fields.u16()?,
            command: fields.u16()?,
            cookie: fields.u64()?,
            offset: fields.u64()?,
            length: if style == Style::Extended { fields.u64()? } else { u64::from(fields.u32()?) },
        })
    }

    /// Appends the request as it stands on the wire. Compact ones hold the lower 32 bits of the length.
    pub fn append_to(&self, style: Style, out: &mut Vec<u8>) {
        let length = self.length.to_be_bytes();
        let length =
            if style == Style::Extended { &length[..] } else { length.last_chunk::<4>().map_or(&[][..], |low| low) };
        let (magic, flags, command) =
            (style.request_magic().to_be_bytes(), self.flags.to_be_bytes(), self.command.to_be_bytes());
        append(out, &[&magic, &flags, &command, &self.cookie.to_be_bytes(), &self.offset.to_be_bytes(), length]);
    }

    /// Bytes that follow the request; `None` if they are too many to take. Writes always have a payload: qemu's client leaves out the
    /// flag that should say so with extended headers.
    #[must_use]
    pub fn payload(&self, style: Style) -> Option<u32> {
        let flagged = style == Style::Extended && self.flags & CMD_FLAG_PAYLOAD_LEN != 0;
        let has_payload = self.command == CMD_WRITE || flagged;
        if !has_payload {
            return Some(0);
        }
        u32::try_from(self.length).ok().filter(|&length| length <= MAX_PAYLOAD)
    }

    /// The bytes that the request is about, if they are as many as its length says.
    #[must_use]
    pub const fn range(&self) -> Range<u64> {
        self.offset..self.offset.saturating_add(self.length)
    }
}

const UNKNOWN_FLAG: Action = Action::Refuse(Errno::Inval, "unknown command flag");

impl Session {
    /// The number that stands for `base:allocation` in replies.
    pub const ALLOCATION_CONTEXT: u32 = 1;

    /// What a request with this payload asks for. Ranges of what is not refused lie inside the export. Only block status requests are
    /// told by their payload.
    #[must_use]
    pub fn action(&self, request: &Request, payload: &[u8]) -> Action {
        let structured = self.style >= Style::Structured;
        let fua = request.flags & CMD_FLAG_FUA != 0;
        let mut flags = if self.writable { CMD_FLAG_FUA } else { 0 };
        let action = match request.command {
            CMD_DISC => return Action::Disconnect,
            CMD_READ => {
                flags |= if structured { CMD_FLAG_DF } else { 0 };
                Action::Read { fragment: structured && request.flags & CMD_FLAG_DF == 0 }
            }
            CMD_WRITE | CMD_TRIM | CMD_WRITE_ZEROES if !self.writable => {
                return Action::Refuse(Errno::Perm, "the export is read-only");
            }
            CMD_WRITE => {
                flags |= if self.style == Style::Extended { CMD_FLAG_PAYLOAD_LEN } else { 0 };
                Action::Write { fua }
            }
            CMD_TRIM if !self.trim => return Action::Refuse(Errno::NotSup, "the export cannot trim"),
            CMD_TRIM => Action::Trim { fua },
            CMD_WRITE_ZEROES => {
                flags |= CMD_FLAG_NO_HOLE | CMD_FLAG_FAST_ZERO;
                let may_punch = request.flags & CMD_FLAG_NO_HOLE == 0;
                Action::Zero { how: Zero { may_punch, fast: request.flags & CMD_FLAG_FAST_ZERO != 0 }, fua }
            }
            CMD_FLUSH if request.flags & !flags != 0 => return UNKNOWN_FLAG,
            CMD_FLUSH => return Action::Flush,
            CMD_CACHE => Action::Cache,
            CMD_BLOCK_STATUS => return self.block_status(request, payload, flags),
            _ => return Action::Refuse(Errno::Inval, "unknown command"),
        };
        if request.flags & !flags != 0 {
            return UNKNOWN_FLAG;
        }
        if matches!(action, Action::Read { .. }) && request.length > u64::from(MAX_PAYLOAD) {
            return Action::Refuse(Errno::Inval, "the read is larger than the maximum block size");
        }
        let writes = matches!(action, Action::Write { .. } | Action::Zero { .. } | Action::Trim { .. });
        self.check_range(request.offset, request.length, writes).unwrap_or(action)
    }

    /// With `CMD_FLAG_PAYLOAD_LEN`, the payload is a 64-bit length and the 32-bit numbers of the contexts that are wanted.
    fn block_status(&self, request: &Request, payload: &[u8], flags: u16) -> Action {
        let (mut length, mut contexts) = (request.length, self.contexts);
        let mut flags = flags | CMD_FLAG_REQ_ONE;
        if self.style == Style::Extended && request.flags & CMD_FLAG_PAYLOAD_LEN != 0 {
            flags |= CMD_FLAG_PAYLOAD_LEN;
            let Some((effect, wanted)) = self.selection(payload) else {
                return Action::Refuse(Errno::Inval, "the payload names no meta contexts, or not those negotiated");
            };
            (length, contexts) = (effect, wanted);
        }
        if request.flags & !flags != 0 {
            return UNKNOWN_FLAG;
        }
        if contexts == 0 {
            return Action::Refuse(Errno::Inval, "no meta context was negotiated");
        }
        if length == 0 {
            return Action::Refuse(Errno::Inval, "the length of a block status request is zero");
        }
        let one = request.flags & CMD_FLAG_REQ_ONE != 0;
        self.check_range(request.offset, length, false).unwrap_or(Action::BlockStatus { one, length, contexts })
    }

    fn selection(&self, payload: &[u8]) -> Option<(u64, u64)> {
        let mut fields = Fields(payload);
        let length = fields.u64()?;
        let mut contexts = 0_u64;
        while !fields.is_empty() {
            let bit = 1_u64.checked_shl(fields.u32()?.checked_sub(1)?)?;
            if self.contexts & bit == 0 || contexts & bit != 0 {
                return None;
            }
            contexts |= bit;
        }
        (contexts != 0).then_some((length, contexts))
    }

    /// The refusal of a range that is not addressable.
    fn check_range(&self, offset: u64, length: u64, writes: bool) -> Option<Action> {
        if offset.checked_add(length).is_none_or(|end| end > self.size) {
            let errno = if writes { Errno::NoSpc } else { Errno::Inval };
            return Some(Action::Refuse(errno, "the request reaches beyond the end of the export"));
        }
        let aligned = |value: u64| value.is_multiple_of(u64::from(self.minimum_block.max(1)));
        if !(aligned(offset) && aligned(length)) {
            return Some(Action::Refuse(Errno::Inval, "the request is not aligned to the minimum block size"));
        }
        None
    }

    /// The numbers of contexts as they stand in replies, and their index among the export's own; `None` for `base:allocation`.
    pub(crate) fn numbers(contexts: u64) -> impl Iterator<Item = (u32, Option<usize>)> {
        let bits = 0..=u32::try_from(MAX_CONTEXTS).unwrap_or(63);
        let set = bits.filter(move |&bit| contexts.checked_shr(bit).is_some_and(|rest| rest & 1 != 0));
        set.map(|bit| (bit.saturating_add(1), bit.checked_sub(1).and_then(|index| usize::try_from(index).ok())))
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, clippy::as_conversions, reason = "tests compute with small numbers")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SESSION: Session = Session {
        export: 0,
        size: 1 << 40,
        style: Style::Structured,
        contexts: 1,
        writable: false,
        trim: false,
        minimum_block: 1,
    };
    const EXTENDED: Session =
        Session { style: Style::Extended, contexts: 0b1011, writable: true, trim: true, size: 1 << 60, ..SESSION };

    fn request(command: u16, flags: u16, offset: u64, length: u64) -> Request {
        Request { flags, command, cookie: 7, offset, length }
    }

    fn refused(session: &Session, request: Request) -> bool {
        matches!(session.action(&request, &[]), Action::Refuse(Errno::Inval, _))
    }

    #[test]
    fn a_range_may_touch_the_end_and_not_pass_it() {
        for command in [CMD_READ, CMD_CACHE, CMD_BLOCK_STATUS] {
            assert!(!refused(&SESSION, request(command, 0, (1 << 40) - 512, 512)));
            assert!(refused(&SESSION, request(command, 0, (1 << 40) - 511, 512)));
            assert!(refused(&SESSION, request(command, 0, u64::MAX, 1)));
            assert!(refused(&SESSION, request(command, 0, u64::MAX, u64::MAX)));
        }
        for (command, flags) in [(CMD_WRITE, CMD_FLAG_PAYLOAD_LEN), (CMD_TRIM, 0), (CMD_WRITE_ZEROES, 0)] {
            let action = EXTENDED.action(&request(command, flags, (1 << 60) - 511, 512), &[]);
            assert!(matches!(action, Action::Refuse(Errno::NoSpc, _)), "{command}: {action:?}");
        }
    }

    #[test]
    fn the_largest_read_is_the_maximum_block_size() {
        let most = u64::from(MAX_PAYLOAD);
        for session in [SESSION, EXTENDED] {
            assert!(!refused(&session, request(CMD_READ, 0, 0, most - 1)));
            assert!(!refused(&session, request(CMD_READ, 0, 0, most)));
            assert!(refused(&session, request(CMD_READ, 0, 0, most + 1)));
        }
    }

    #[test]
    fn the_largest_payload_that_is_taken_is_the_maximum_block_size() {
        let most = u64::from(MAX_PAYLOAD);
        for (style, flags) in [(Style::Simple, 0), (Style::Structured, 0), (Style::Extended, CMD_FLAG_PAYLOAD_LEN)] {
            assert_eq!(request(CMD_WRITE, flags, 0, most - 1).payload(style), Some(MAX_PAYLOAD - 1));
            assert_eq!(request(CMD_WRITE, flags, 0, most).payload(style), Some(MAX_PAYLOAD));
            assert_eq!(request(CMD_WRITE, flags, 0, most + 1).payload(style), None);
            assert_eq!(request(CMD_TRIM, 0, 0, u64::MAX).payload(style), Some(0));
        }
        assert_eq!(request(CMD_WRITE, 0, 0, 512).payload(Style::Extended), Some(512), "as qemu sends it");
        assert_eq!(request(99, CMD_FLAG_PAYLOAD_LEN, 0, 512).payload(Style::Extended), Some(512));
        assert_eq!(request(99, CMD_FLAG_PAYLOAD_LEN, 0, u64::MAX).payload(Style::Extended), None);
    }

    #[test]
    fn flags_are_known_or_refused() {
        assert_eq!(SESSION.action(&request(CMD_READ, CMD_FLAG_DF, 0, 1), &[]), Action::Read { fragment: false });
        let simple = Session { style: Style::Simple, contexts: 0, ..SESSION };
        assert!(refused(&simple, request(CMD_READ, CMD_FLAG_DF, 0, 1)));
        assert_eq!(simple.action(&request(CMD_READ, 0, 0, 1), &[]), Action::Read { fragment: false });
        assert!(refused(&simple, request(CMD_BLOCK_STATUS, 0, 0, 1)));
        assert!(refused(&SESSION, request(CMD_BLOCK_STATUS, CMD_FLAG_DF, 0, 1)));
        assert!(refused(&SESSION, request(CMD_CACHE, 1 << 15, 0, 1)));
        assert!(refused(&SESSION, request(CMD_FLUSH, CMD_FLAG_FUA, 0, 0)), "FUA was not offered");
        assert!(!refused(&EXTENDED, request(CMD_FLUSH, CMD_FLAG_FUA, 0, 0)));
        assert!(refused(&SESSION, request(9, 0, 0, 1)));
        assert!(refused(&EXTENDED, request(CMD_READ, CMD_FLAG_PAYLOAD_LEN, 0, 1)));
        let compact = Session { style: Style::Structured, ..EXTENDED };
        assert!(refused(&compact, request(CMD_WRITE, CMD_FLAG_PAYLOAD_LEN, 0, 1)));
        assert!(refused(&compact, request(CMD_BLOCK_STATUS, CMD_FLAG_PAYLOAD_LEN, 0, 1)));
    }

    #[test]
    fn writes_need_a_writable_export() {
        for command in [CMD_WRITE, CMD_TRIM, CMD_WRITE_ZEROES] {
            assert!(matches!(SESSION.action(&request(command, 0, 0, 1), &[]), Action::Refuse(Errno::Perm, _)));
        }
        let both = CMD_FLAG_FUA | CMD_FLAG_PAYLOAD_LEN;
        assert_eq!(EXTENDED.action(&request(CMD_WRITE, both, 0, 1), &[]), Action::Write { fua: true });
        assert_eq!(EXTENDED.action(&request(CMD_TRIM, 0, 0, 1 << 50), &[]), Action::Trim { fua: false });
        let how = Zero { may_punch: false, fast: true };
        let flags = CMD_FLAG_NO_HOLE | CMD_FLAG_FAST_ZERO;
        assert_eq!(EXTENDED.action(&request(CMD_WRITE_ZEROES, flags, 0, 1), &[]), Action::Zero { how, fua: false });
        let untrimmed = Session { trim: false, ..EXTENDED };
        assert!(matches!(untrimmed.action(&request(CMD_TRIM, 0, 0, 1), &[]), Action::Refuse(Errno::NotSup, _)));
    }

    #[test]
    fn blocks_are_not_divided() {
        let session = Session { minimum_block: 4096, ..EXTENDED };
        for (command, flags) in [(CMD_READ, 0), (CMD_WRITE, CMD_FLAG_PAYLOAD_LEN), (CMD_TRIM, 0), (CMD_BLOCK_STATUS, 0)]
        {
            assert!(!refused(&session, request(command, flags, 4096, 8192)));
            for (offset, length) in [(4095, 4096), (4097, 4096), (4096, 4095), (4096, 4097), (512, 512)] {
                assert!(refused(&session, request(command, flags, offset, length)), "{command} {offset} {length}");
            }
        }
    }

    #[test]
    fn a_payload_selects_contexts() {
        let flags = CMD_FLAG_PAYLOAD_LEN;
        let payload = |length: u64, contexts: &[u32]| {
            let mut payload = length.to_be_bytes().to_vec();
            payload.extend(contexts.iter().flat_map(|context| context.to_be_bytes()));
            payload
        };
        let action =
            |payload: &[u8]| EXTENDED.action(&request(CMD_BLOCK_STATUS, flags, 512, payload.len() as u64), payload);
        let status = |contexts| Action::BlockStatus { one: false, length: 1 << 40, contexts };
        assert_eq!(action(&payload(1 << 40, &[1])), status(1));
        assert_eq!(action(&payload(1 << 40, &[4, 2])), status(0b1010));
        for wrong in [&[][..], &[3], &[0], &[1, 1], &[65], &[u32::MAX], &[1, 2, 4, 5]] {
            assert!(matches!(action(&payload(512, wrong)), Action::Refuse(Errno::Inval, _)), "{wrong:?}");
        }
        let good = payload(512, &[1]);
        for len in 0..good.len() {
            assert!(matches!(action(&good[..len]), Action::Refuse(Errno::Inval, _)), "{len}");
        }
        for length in [0, (1 << 60) - 511, u64::MAX] {
            assert!(matches!(action(&payload(length, &[1])), Action::Refuse(Errno::Inval, _)), "{length}");
        }
    }

    #[test]
    fn contexts_are_numbered_from_one() {
        assert_eq!(Session::numbers(0b1011).collect::<Vec<_>>(), [(1, None), (2, Some(0)), (4, Some(2))]);
        assert_eq!(Session::numbers(1 << 63).collect::<Vec<_>>(), [(64, Some(62))]);
    }

    proptest! {
        #[test]
        fn a_request_survives_the_wire(flags: u16, command: u16, cookie: u64, offset: u64, length: u64, extended: bool) {
            let style = if extended { Style::Extended } else { Style::Structured };
            let length = if extended { length } else { length >> 32 };
            let request = Request { flags, command, cookie, offset, length };
            let mut bytes = Vec::new();
            request.append_to(style, &mut bytes);
            prop_assert_eq!(bytes.len(), style.request_size());
            prop_assert_eq!(Request::parse(&bytes, style), Some(request));
            for len in 0..bytes.len() {
                prop_assert_eq!(Request::parse(&bytes[..len], style), None);
            }
            bytes[0] ^= 1;
            prop_assert_eq!(Request::parse(&bytes, style), None);
        }

        #[test]
        fn what_is_not_refused_lies_inside(command in 0_u16..10, flags in 0_u16..64, offset: u64, length: u64, size: u64) {
            for session in [SESSION, EXTENDED] {
                let session = Session { size, ..session };
                let inside = u128::from(offset) + u128::from(length) <= u128::from(size);
                let action = session.action(&request(command, flags, offset, length), &[]);
                let ranged = !matches!(action, Action::Refuse(..) | Action::Disconnect | Action::Flush);
                prop_assert!(inside || !ranged);
            }
        }
    }
}
