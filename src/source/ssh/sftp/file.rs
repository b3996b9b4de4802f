//! A file on a server: opened, found to be the one that it was, and read by many requests at once.

use std::collections::VecDeque;
use std::ops::Range;

use super::super::super::remote::Failure;
use super::packet::{Attributes, Reply, Request, code};
use super::{Asked, Sftp, refusal};
use crate::disk::Fingerprint;
use crate::error::{Error, Kind};

/// Requests of one reader that are under way at once.
const DEPTH: usize = 64;

/// What identifies a file's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Identity {
    /// Length in bytes.
    pub(in super::super) len: u64,
    owner: Option<(u32, u32)>,
    permissions: Option<u32>,
    /// In seconds: there is nothing finer in this version of the protocol.
    modified: Option<u32>,
}

impl Identity {
    /// What a regular file is known by.
    ///
    /// # Errors
    /// `ssh.kind` for anything else.
    fn of(found: &Attributes) -> Result<Self, Error> {
        const TYPE: u32 = 0o170_000;
        const REGULAR: u32 = 0o100_000;
        let kind = found.permissions.map(|permissions| permissions & TYPE);
        let is_file = kind.is_none_or(|kind| kind == REGULAR || kind == 0);
        let len = found.size.filter(|_| is_file).ok_or_else(|| {
            Error::unsupported(
                "ssh.kind",
                "this is no regular file on the server, or the server does not tell its length",
            )
            .hint("block devices have no length in SFTP; serve one with NBD, or copy it to a file first")
        })?;
        Ok(Self { len, owner: found.owner, permissions: found.permissions, modified: found.modified })
    }

    /// Whether a change can be noticed otherwise than by the length.
    pub(in super::super) const fn is_known(&self) -> bool {
        self.modified.is_some()
    }

    /// Whether a later change cannot have the time of this one: it was some time before `now`, in seconds.
    pub(in super::super) fn is_settled(&self, now: u64) -> bool {
        /// Clocks differ.
        const SLACK: u64 = 10;
        self.modified.is_some_and(|modified| u64::from(modified).saturating_add(SLACK) <= now)
    }

    pub(in super::super) fn fingerprint(&self) -> Fingerprint {
        let modified = self.modified.map(u32::to_le_bytes);
        Fingerprint::of(&[b"ssh", &self.len.to_le_bytes(), modified.as_ref().map_or(&[][..], |bytes| bytes)])
    }

    /// # Errors
    /// `source.changed`.
    fn check(&self, now: &Self) -> Result<(), Error> {
        if self == now {
            return Ok(());
        }
        let error =
            Error::new(Kind::Unreadable, "source.changed", "the file was changed on the server while it was read")
                .hint("run the command again, from the beginning, when nobody writes to it");
        Err(if self.len == now.len { error } else { error.expected(format!("{} bytes", self.len)).found(now.len) })
    }
}

/// An open file.
#[derive(Debug)]
pub(in super::super) struct File {
    handle: Vec<u8>,
    /// In which state it was opened.
    pub(in super::super) identity: Identity,
}

/// A read that is under way.
struct Part {
    asked: Asked,
    range: Range<u64>,
}

impl File {
    /// Opens the file at `path`, relative to where the server puts the user.
    pub(in super::super) async fn open(sftp: &Sftp, path: &[u8]) -> Result<Self, Failure> {
        let handle = match sftp.call(Request::Open(path)).await? {
            Reply::Handle(handle) => handle,
            other => return Err(wrong(sftp, &other)),
        };
        let identity = identity(sftp, sftp.ask(Request::Stat(&handle))).await?;
        Ok(Self { handle, identity })
    }

    /// Gives the bytes of `range` to `take`, in order: the last of them once the file is known to be as it was.
    pub(in super::super) async fn read(
        &self,
        sftp: &Sftp,
        range: Range<u64>,
        take: &mut dyn FnMut(&[u8]),
    ) -> Result<(), Failure> {
        let mut held: Option<Vec<u8>> = None;
        let mut hold = |bytes| {
            if let Some(held) = held.replace(bytes) {
                take(&held);
            }
        };
        let read = self.read_parts(sftp, range, &mut hold).await;
        // What came before a failure is not the last of it.
        if read.is_ok() {
            self.check(sftp).await?;
        }
        take(&held.unwrap_or_default());
        read
    }

    /// Gives the bytes of `range` to `take`, in order, as they come.
    async fn read_parts(&self, sftp: &Sftp, range: Range<u64>, take: &mut dyn FnMut(Vec<u8>)) -> Result<(), Failure> {
        let mut next = range.start;
        let mut parts = VecDeque::new();
        loop {
            while parts.len() < DEPTH && next < range.end {
                let end = range.end.min(next.saturating_add(sftp.most.into()));
                parts.push_back(self.ask(sftp, next..end));
                next = end;
            }
            let Some(Part { asked, range }) = parts.pop_front() else { return Ok(()) };
            let bytes = match sftp.answer(asked).await? {
                Reply::Data(bytes) => bytes,
                Reply::Status(status) if status.code == code::EOF => {
                    self.check(sftp).await?;
                    return Err(sftp.break_off("the end of the file before its end"));
                }
                other => return Err(wrong(sftp, &other)),
            };
            let count = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            let missing = (range.end - range.start).checked_sub(count).filter(|_| count > 0);
            let missing = missing.ok_or_else(|| sftp.break_off("data that nobody asked for, or none"))?;
            if missing > 0 {
                // A server may give less than was asked for.
                parts.push_front(self.ask(sftp, range.end - missing..range.end));
            }
            take(bytes);
        }
    }

    /// Lets the server forget it.
    pub(in super::super) fn close(&self, sftp: &Sftp) {
        // Nobody waits for the answer.
        drop(sftp.ask(Request::Close(&self.handle)));
    }

    fn ask(&self, sftp: &Sftp, range: Range<u64>) -> Part {
        let len = u32::try_from(range.end - range.start).unwrap_or(sftp.most);
        Part { asked: sftp.ask(Request::Read(&self.handle, range.start, len)), range }
    }

    /// Finds the file to be as it was when it was opened.
    async fn check(&self, sftp: &Sftp) -> Result<(), Failure> {
        let now = identity(sftp, sftp.ask(Request::Stat(&self.handle))).await?;
        self.identity.check(&now).map_err(Failure::Final)
    }

    /// Finds the file to be the one that was found before, on another connection.
    ///
    /// # Errors
    /// `source.changed`.
    pub(in super::super) fn is(&self, before: &Identity) -> Result<(), Error> {
        before.check(&self.identity)
    }
}

async fn identity(sftp: &Sftp, asked: Asked) -> Result<Identity, Failure> {
    match sftp.answer(asked).await? {
        Reply::Attributes(found) => Identity::of(&found).map_err(Failure::Final),
        other => Err(wrong(sftp, &other)),
    }
}

/// An answer of another kind.
fn wrong(sftp: &Sftp, reply: &Reply) -> Failure {
    match reply {
        Reply::Status(status) if status.code != 0 => refusal(status),
        _ => sftp.break_off("an answer of another kind than was asked for"),
    }
}
