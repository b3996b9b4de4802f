//! A name that an image gives to another file: text from outside, which only the resolver of [`crate::chain`] may open.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::fmt;

use crate::error::escape_bytes;
use crate::limits;

/// Another file that an image names, as written there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The bytes as written. Their encoding is unknown.
    pub name: Vec<u8>,
    /// What the file is to the image.
    pub role: Role,
    /// The format that the image says the file has; `None` when it says nothing.
    pub format: Option<String>,
}

/// What a referenced file is to the image that names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It holds some of the layer's bytes.
    Extent,
    /// It is a member of the package: a disk that a descriptor names.
    Member,
    /// It is the layer below.
    Parent,
}

impl Reference {
    /// A reference with no stated format.
    #[must_use]
    pub fn new(name: impl Into<Vec<u8>>, role: Role) -> Self {
        Self { name: name.into(), role, format: None }
    }

    /// Whether the name is a plain relative file name: no directory, no scheme, not `..`, nothing that a path cannot hold.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        let name = self.name.as_slice();
        !name.is_empty()
            && name.len() <= limits::MAX_REFERENCE
            && !name.iter().any(|b| matches!(b, b'/' | b'\\' | 0))
            && name != b"."
            && name != b".."
            && !has_scheme(name)
    }
}

/// Whether `name` begins like a URI or a QEMU pseudo-protocol: `json:`, `nbd:`, `file:`, `C:`.
#[must_use]
pub fn has_scheme(name: &[u8]) -> bool {
    let word = name.iter().take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.' | b'_')).count();
    word > 0 && name.get(word) == Some(&b':')
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escape_bytes(&self.name))
    }
}
