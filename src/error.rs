//! One error type: a small kind to match on, a stable code, where it happened, and what to do next.
//!
//! `Display` prints one line of what and where; causes follow through [`std::error::Error::source`].
//! Text that comes from an image is escaped on the way in, so an error can be printed anywhere.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

mod codes;

pub use codes::{codes, explain};

/// The result of nearly everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What sort of failure it was. Callers match on this; the exit code follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The bytes contradict their format's specification.
    Corrupt,
    /// The output exists and replacing it was not allowed.
    Exists,
    /// An operation on this host failed: a write, a spawn, a rename.
    Failed,
    /// The user or a signal asked to stop.
    Interrupted,
    /// A named bound of [`crate::limits`] was reached.
    Limit,
    /// The output read back differs from what was written.
    Mismatch,
    /// The output's file system is too full.
    NoSpace,
    /// A file or name inside the guest or container is not there.
    NotFound,
    /// Policy forbids it, and a flag can allow it.
    Refused,
    /// The source cannot be read.
    Unreadable,
    /// Well formed, but this program does not handle it.
    Unsupported,
    /// The command line or a parameter is wrong.
    Usage,
}

impl Kind {
    /// The process exit code that this kind ends with (`cli` documents the table).
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Failed | Self::NoSpace => 1,
            Self::Usage => 2,
            Self::Unreadable => 3,
            Self::Corrupt | Self::Limit | Self::NotFound | Self::Unsupported => 4,
            Self::Exists | Self::Refused => 5,
            Self::Mismatch => 6,
            Self::Interrupted => 7,
        }
    }

    /// The kind's name in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Corrupt => "corrupt",
            Self::Exists => "exists",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
            Self::Limit => "limit",
            Self::Mismatch => "mismatch",
            Self::NoSpace => "no-space",
            Self::NotFound => "not-found",
            Self::Refused => "refused",
            Self::Unreadable => "unreadable",
            Self::Unsupported => "unsupported",
            Self::Usage => "usage",
        }
    }
}

/// A failure with its context. Cheap to clone, so that single-flight readers can share one.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: Kind,
    code: &'static str,
    what: String,
    place: Option<String>,
    offset: Option<u64>,
    expected: Option<String>,
    found: Option<String>,
    hint: Option<String>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind`. `code` is a stable slug listed in [`codes`]; `what` is one clause without a full stop.
    #[must_use]
    pub fn new(kind: Kind, code: &'static str, what: impl Into<String>) -> Self {
        Self(Arc::new(Inner {
            kind,
            code,
            what: escape(&what.into()),
            place: None,
            offset: None,
            expected: None,
            found: None,
            hint: None,
            source: None,
        }))
    }

    /// The bytes contradict their specification.
    #[must_use]
    pub fn corrupt(code: &'static str, what: impl Into<String>) -> Self {
        Self::new(Kind::Corrupt, code, what)
    }

    /// Well formed, not handled.
    #[must_use]
    pub fn unsupported(code: &'static str, what: impl Into<String>) -> Self {
        Self::new(Kind::Unsupported, code, what)
    }

    /// Forbidden by policy.
    #[must_use]
    pub fn refused(code: &'static str, what: impl Into<String>) -> Self {
        Self::new(Kind::Refused, code, what)
    }

    /// A named bound was reached.
    #[must_use]
    pub fn limit(code: &'static str, what: impl Into<String>) -> Self {
        Self::new(Kind::Limit, code, what)
    }

    /// A host operation failed.
    #[must_use]
    pub fn failed(code: &'static str, what: impl Into<String>) -> Self {
        Self::new(Kind::Failed, code, what)
    }

    /// The work was asked to stop.
    #[must_use]
    pub fn interrupted() -> Self {
        Self::new(Kind::Interrupted, "session.interrupted", "interrupted").hint("run the same command again")
    }

    /// A read of the source failed with an operating-system error.
    #[must_use]
    pub fn unreadable(what: impl Into<String>, source: std::io::Error) -> Self {
        Self::new(Kind::Unreadable, "source.read", what).because(source)
    }

    /// A write to the output failed; a full file system gets its own kind.
    #[must_use]
    pub fn write(what: impl Into<String>, source: std::io::Error) -> Self {
        match source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                Self::new(Kind::NoSpace, "output.full", what)
                    .hint("free some space or choose another output directory")
                    .because(source)
            }
            _ => Self::new(Kind::Failed, "output.write", what).because(source),
        }
    }

    /// Where: the path or layer as the user knows it. The first place wins, since it is the closest.
    #[must_use]
    pub fn at(mut self, place: impl fmt::Display) -> Self {
        let inner = Arc::make_mut(&mut self.0);
        inner.place.get_or_insert_with(|| escape(&place.to_string()));
        self
    }

    /// Where: a path of this host that the user named.
    #[must_use]
    pub fn path(self, path: &Path) -> Self {
        self.at(path.display())
    }

    /// Where: the byte offset in that place. The first one wins.
    #[must_use]
    pub fn offset(mut self, offset: u64) -> Self {
        Arc::make_mut(&mut self.0).offset.get_or_insert(offset);
        self
    }

    /// What the specification wants there.
    #[must_use]
    pub fn expected(mut self, expected: impl fmt::Display) -> Self {
        Arc::make_mut(&mut self.0).expected = Some(escape(&expected.to_string()));
        self
    }

    /// What is there.
    #[must_use]
    pub fn found(mut self, found: impl fmt::Display) -> Self {
        Arc::make_mut(&mut self.0).found = Some(escape(&found.to_string()));
        self
    }

    /// What the user can do next.
    #[must_use]
    pub fn hint(mut self, hint: impl fmt::Display) -> Self {
        Arc::make_mut(&mut self.0).hint = Some(escape(&hint.to_string()));
        self
    }

    /// The cause.
    #[must_use]
    pub fn because(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Arc::make_mut(&mut self.0).source = Some(Arc::new(source));
        self
    }

    /// What sort of failure it was.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The stable code, which `hyper2kvm help CODE` explains.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.0.code
    }

    /// What the user can do next, when there is something.
    #[must_use]
    pub fn next(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// The error as the JSON object that `--json` prints (`docs/json.md`).
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let inner = &self.0;
        serde_json::json!({
            "error": {
                "kind": inner.kind.name(),
                "code": inner.code,
                "message": inner.what,
                "place": inner.place,
                "offset": inner.offset,
                "expected": inner.expected,
                "found": inner.found,
                "hint": inner.hint,
                "cause": inner.source.as_ref().map(|cause| escape(&cause.to_string())),
                "exit_code": inner.kind.exit_code(),
            }
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &self.0;
        if let Some(place) = &inner.place {
            write!(f, "{place}: ")?;
        }
        f.write_str(&inner.what)?;
        if let Some(offset) = inner.offset {
            write!(f, " at offset {offset:#x}")?;
        }
        match (&inner.expected, &inner.found) {
            (Some(expected), Some(found)) => write!(f, ": expected {expected}, found {found}"),
            (Some(expected), None) => write!(f, ": expected {expected}"),
            (None, Some(found)) => write!(f, ": found {found}"),
            (None, None) => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {self}", self.0.code)?;
        if let Some(source) = &self.0.source {
            write!(f, " ({source})")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        let source = self.0.source.as_deref()?;
        Some(source)
    }
}

/// Makes text from outside safe to print: control characters, and the Unicode ones that reorder or hide text,
/// become `\u{…}`; at most 1,024 characters survive.
#[must_use]
pub fn escape(text: &str) -> String {
    const LONGEST: usize = 1024;
    match text.char_indices().nth(LONGEST) {
        None => escape_whole(text),
        Some((end, _)) => format!("{}…", escape_whole(text.get(..end).unwrap_or(text))),
    }
}

/// [`escape`] for text that is the result itself, and stays as long as it is.
#[must_use]
pub fn escape_whole(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || is_hidden(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

/// Whether a character reorders text or hides it: bidirectional marks, overrides and isolates, zero-width and annotation
/// characters, soft hyphens, tags, and line separators.
pub(crate) fn is_hidden(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
    )
}

/// [`escape`] for bytes that should have been text.
#[must_use]
pub fn escape_bytes(bytes: &[u8]) -> String {
    escape(&String::from_utf8_lossy(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_place_offset_expected_and_found() {
        let error = Error::corrupt("disk.range", "bad magic")
            .at("a.vmdk")
            .at("outer")
            .offset(512)
            .expected("KDMV")
            .found("\u{1b}[2J");
        assert_eq!(error.to_string(), "a.vmdk: bad magic at offset 0x200: expected KDMV, found \\u{1b}[2J");
        assert_eq!(error.kind().exit_code(), 4);
    }

    #[test]
    fn a_full_disk_has_its_own_kind() {
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        assert_eq!(Error::write("writing", full).kind(), Kind::NoSpace);
    }
}
