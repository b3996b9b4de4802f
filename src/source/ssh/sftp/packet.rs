//! Packets of the SSH File Transfer Protocol, version 3 (draft-ietf-secsh-filexfer-02): what a reader of files asks, and what a
//! server answers.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use crate::limits;

/// The version that everybody speaks.
pub(super) const VERSION: u32 = 3;

/// The extension by which a server tells how much it gives at once.
const LIMITS: &[u8] = b"limits@openssh.com";

const INIT: u8 = 1;
const OPEN: u8 = 3;
const CLOSE: u8 = 4;
const READ: u8 = 5;
const FSTAT: u8 = 8;
const EXTENDED: u8 = 200;

/// `SSH_FXF_READ`.
const FOR_READING: u32 = 1;

/// A request, but for its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request<'a> {
    /// Opens a file for reading.
    Open(&'a [u8]),
    /// Closes a handle.
    Close(&'a [u8]),
    /// Asks for bytes of a handle: how many, from where on.
    Read(&'a [u8], u64, u32),
    /// Asks for the attributes of a handle.
    Stat(&'a [u8]),
    /// Asks how much the server gives at once.
    Limits,
}

impl Request<'_> {
    /// The packet, with its length in front.
    pub(super) fn encode(&self, id: u32) -> Vec<u8> {
        let (kind, first) = match self {
            Self::Open(path) => (OPEN, *path),
            Self::Close(handle) => (CLOSE, *handle),
            Self::Read(handle, ..) => (READ, *handle),
            Self::Stat(handle) => (FSTAT, *handle),
            Self::Limits => (EXTENDED, LIMITS),
        };
        let mut body = vec![kind];
        body.extend(id.to_be_bytes());
        string(&mut body, first);
        match self {
            Self::Open(_) => {
                body.extend(FOR_READING.to_be_bytes());
                // No attributes.
                body.extend([0; 4]);
            }
            Self::Read(_, offset, len) => {
                body.extend(offset.to_be_bytes());
                body.extend(len.to_be_bytes());
            }
            Self::Close(_) | Self::Stat(_) | Self::Limits => {}
        }
        framed(&body)
    }
}

/// The first packet, which has no number.
pub(super) fn init() -> Vec<u8> {
    let mut body = vec![INIT];
    body.extend(VERSION.to_be_bytes());
    framed(&body)
}

fn framed(body: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    string(&mut packet, body);
    packet
}

/// Names and handles are bounded where they come from, far below 4 GiB.
fn string(to: &mut Vec<u8>, bytes: &[u8]) {
    to.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    to.extend(bytes);
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Reply {
    /// How a request ended.
    Status(Status),
    /// An open file.
    Handle(Vec<u8>),
    /// Bytes of a file.
    Data(Vec<u8>),
    /// What is known of a file.
    Attributes(Attributes),
    /// The answer to an extension.
    Extended(Vec<u8>),
}

/// `SSH_FXP_STATUS`: a code, and the server's word for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Status {
    pub(super) code: u32,
    pub(super) message: String,
}

/// Codes of [`Status`].
pub(super) mod code {
    /// There are no more bytes.
    pub(in super::super) const EOF: u32 = 1;
    /// There is no such file.
    pub(in super::super) const NO_SUCH_FILE: u32 = 2;
    /// The user may not read it.
    pub(in super::super) const PERMISSION_DENIED: u32 = 3;
    /// Nothing better is known.
    pub(in super::super) const FAILURE: u32 = 4;
}

/// `ATTRS`: only what identifies a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Attributes {
    /// Length in bytes.
    pub(super) size: Option<u64>,
    /// Owner and group.
    pub(super) owner: Option<(u32, u32)>,
    /// Type and mode, as `stat` gives them.
    pub(super) permissions: Option<u32>,
    /// When it was changed last, in seconds since 1970.
    pub(super) modified: Option<u32>,
}

impl Reply {
    /// Takes a packet of this kind apart, whose length and number were cut off. Nothing for one that is broken or unknown.
    pub(in super::super) fn parse(kind: u8, body: Vec<u8>) -> Option<Self> {
        let mut rest = body.as_slice();
        let reply = match kind {
            101 => {
                let code = number(&mut rest)?;
                // Old servers send no message.
                let message = text(&mut rest).unwrap_or_default();
                return Some(Self::Status(Status { code, message }));
            }
            102 => {
                let handle = bytes(&mut rest)?;
                (handle.len() <= limits::MAX_SFTP_HANDLE).then(|| Self::Handle(handle.to_vec()))?
            }
            103 => {
                let len = bytes(&mut rest)?.len();
                if !rest.is_empty() {
                    return None;
                }
                // In place: data is what there is most of.
                let mut body = body;
                body.drain(..body.len().checked_sub(len)?);
                return Some(Self::Data(body));
            }
            105 => Self::Attributes(attributes(&mut rest)?),
            201 => return Some(Self::Extended(body)),
            _ => return None,
        };
        rest.is_empty().then_some(reply)
    }
}

fn attributes(rest: &mut &[u8]) -> Option<Attributes> {
    const SIZE: u32 = 1;
    const OWNER: u32 = 2;
    const PERMISSIONS: u32 = 4;
    const TIMES: u32 = 8;
    const EXTENDED: u32 = 1 << 31;
    let flags = number(rest)?;
    let has = |flag: u32| flags & flag != 0;
    let mut found = Attributes::default();
    if has(SIZE) {
        found.size = Some(long(rest)?);
    }
    if has(OWNER) {
        found.owner = Some((number(rest)?, number(rest)?));
    }
    if has(PERMISSIONS) {
        found.permissions = Some(number(rest)?);
    }
    if has(TIMES) {
        let _accessed = number(rest)?;
        found.modified = Some(number(rest)?);
    }
    if has(EXTENDED) {
        for _ in 0..number(rest)? {
            bytes(rest)?;
            bytes(rest)?;
        }
    }
    Some(found)
}

/// Whether a server that greets with the body of this `SSH_FXP_VERSION` (2) knows [`Request::Limits`]; nothing if it is no
/// greeting, or one of another version.
pub(in super::super) fn greeting(kind: u8, body: &[u8]) -> Option<bool> {
    let mut rest = body;
    if kind != 2 || number(&mut rest)? != VERSION {
        return None;
    }
    let mut knows = false;
    while !rest.is_empty() {
        let (name, value) = (bytes(&mut rest)?, bytes(&mut rest)?);
        knows |= (name, value) == (LIMITS, b"1");
    }
    Some(knows)
}

/// The most bytes that a server gives at once, of its answer to [`Request::Limits`]. Nothing where it does not say.
pub(in super::super) fn read_limit(body: &[u8]) -> Option<u64> {
    let mut rest = body;
    let _packet = long(&mut rest)?;
    long(&mut rest).filter(|limit| *limit > 0)
}

fn number(rest: &mut &[u8]) -> Option<u32> {
    let (first, others) = rest.split_first_chunk()?;
    *rest = others;
    Some(u32::from_be_bytes(*first))
}

fn long(rest: &mut &[u8]) -> Option<u64> {
    let (first, others) = rest.split_first_chunk()?;
    *rest = others;
    Some(u64::from_be_bytes(*first))
}

fn bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(number(rest)?).ok()?;
    let (first, others) = rest.split_at_checked(len)?;
    *rest = others;
    Some(first)
}

fn text(rest: &mut &[u8]) -> Option<String> {
    Some(String::from_utf8_lossy(bytes(rest)?).into_owned())
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "tests build their input")]
mod tests {
    use super::*;

    fn numbers(values: &[u32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_be_bytes()).collect()
    }

    fn named(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        string(&mut out, bytes);
        out
    }

    #[test]
    fn requests_are_as_the_draft_has_them() {
        assert_eq!(init(), [0, 0, 0, 5, 1, 0, 0, 0, 3]);
        let open = Request::Open(b"/a").encode(7);
        assert_eq!(open, [0, 0, 0, 19, 3, 0, 0, 0, 7, 0, 0, 0, 2, b'/', b'a', 0, 0, 0, 1, 0, 0, 0, 0]);
        let read = Request::Read(b"h", 1 << 40, 0x8000).encode(1);
        assert_eq!(read[4..], [5, 0, 0, 0, 1, 0, 0, 0, 1, b'h', 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0x80, 0]);
        assert_eq!(Request::Stat(b"h").encode(2)[4..], [8, 0, 0, 0, 2, 0, 0, 0, 1, b'h']);
        assert_eq!(Request::Close(b"h").encode(2)[4..], [4, 0, 0, 0, 2, 0, 0, 0, 1, b'h']);
        assert_eq!(Request::Limits.encode(2)[9..], named(b"limits@openssh.com"));
    }

    #[test]
    fn answers_are_taken_apart() {
        let status = [numbers(&[2]), named(b"No such file"), named(b"")].concat();
        let expected = Status { code: 2, message: "No such file".to_owned() };
        assert_eq!(Reply::parse(101, status), Some(Reply::Status(expected)));
        assert_eq!(
            Reply::parse(101, numbers(&[1])),
            Some(Reply::Status(Status { code: 1, message: String::new() })),
            "old servers send no message"
        );
        assert_eq!(Reply::parse(102, named(b"h")), Some(Reply::Handle(b"h".to_vec())));
        assert_eq!(Reply::parse(103, named(b"bytes")), Some(Reply::Data(b"bytes".to_vec())));
        let all = [numbers(&[0x8000_000f, 1, 2, 3, 4, 0o100_644, 5, 6, 1]), named(b"x@y"), named(b"z")].concat();
        let found = Attributes {
            size: Some((1 << 32) | 2),
            owner: Some((3, 4)),
            permissions: Some(0o100_644),
            modified: Some(6),
        };
        assert_eq!(Reply::parse(105, all), Some(Reply::Attributes(found)));
        assert_eq!(Reply::parse(105, numbers(&[0])), Some(Reply::Attributes(Attributes::default())));
        assert_eq!(Reply::parse(201, vec![1]), Some(Reply::Extended(vec![1])));
    }

    #[test]
    fn hostile_answers_are_none() {
        let cases: &[(&str, u8, Vec<u8>)] = &[
            ("a kind that nobody asked for", 104, numbers(&[0])),
            ("a request", 5, numbers(&[0])),
            ("a greeting out of place", 2, numbers(&[3])),
            ("no status code", 101, vec![0; 3]),
            ("a handle longer than the packet", 102, [numbers(&[9]), vec![0; 8]].concat()),
            ("a handle of 4 GiB", 102, numbers(&[u32::MAX])),
            ("a handle longer than any may be", 102, named(&[0; limits::MAX_SFTP_HANDLE + 1])),
            ("something after a handle", 102, [named(b"h"), vec![0]].concat()),
            ("data longer than the packet", 103, [numbers(&[4]), vec![0; 3]].concat()),
            ("data shorter than the packet", 103, [numbers(&[4]), vec![0; 5]].concat()),
            ("no attributes", 105, vec![]),
            ("half a size", 105, numbers(&[1, 0])),
            ("something after the attributes", 105, numbers(&[0, 0])),
            ("extensions without end", 105, numbers(&[1 << 31, u32::MAX])),
        ];
        for (what, kind, body) in cases {
            assert_eq!(Reply::parse(*kind, body.clone()), None, "{what}");
        }
        for len in [limits::MAX_SFTP_HANDLE - 1, limits::MAX_SFTP_HANDLE] {
            assert!(Reply::parse(102, named(&vec![0; len])).is_some());
        }
    }

    #[test]
    fn answers_that_are_cut_or_changed_anywhere_are_told() {
        let attributes = [numbers(&[0x8000_000f, 1, 2, 3, 4, 5, 6, 7, 1]), named(b"x@y"), named(b"z")].concat();
        for (kind, body) in [(102, named(b"handle")), (103, named(&[7; 40])), (105, attributes)] {
            assert!(Reply::parse(kind, body.clone()).is_some());
            for len in 0..body.len() {
                assert_eq!(Reply::parse(kind, body[..len].to_vec()), None, "{kind} cut to {len}");
                for bit in 0..8 {
                    let mut changed = body.clone();
                    changed[len] ^= 1 << bit;
                    if let Some(Reply::Data(data) | Reply::Handle(data)) = Reply::parse(kind, changed) {
                        assert!(data.len() < body.len());
                    }
                }
            }
        }
        let greeting_body = [numbers(&[3]), named(LIMITS), named(b"1")].concat();
        for len in 0..greeting_body.len() {
            assert!(matches!(greeting(2, &greeting_body[..len]), None | Some(false)), "{len}");
        }
    }

    #[test]
    fn greetings_and_limits() {
        let extension = |name: &[u8], value: &[u8]| [named(name), named(value)].concat();
        let with = [numbers(&[3]), extension(b"x@y", b"2"), extension(LIMITS, b"1")].concat();
        assert_eq!(greeting(2, &with), Some(true));
        assert_eq!(greeting(2, &numbers(&[3])), Some(false));
        assert_eq!(greeting(2, &[numbers(&[3]), extension(LIMITS, b"2")].concat()), Some(false));
        for (kind, body) in [(2, numbers(&[6])), (2, vec![0]), (101, numbers(&[3])), (2, numbers(&[3, 9]))] {
            assert_eq!(greeting(kind, &body), None);
        }
        assert_eq!(read_limit(&numbers(&[0, 262_144, 0, 261_120, 0, 261_120, 0, 0])), Some(261_120));
        assert_eq!(read_limit(&numbers(&[0, 0, 0, 0])), None);
        assert_eq!(read_limit(&[0; 15]), None);
    }
}
