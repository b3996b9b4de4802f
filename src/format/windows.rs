//! What the formats of Windows share: text of 16-bit units, and the several names that a child gives to its parent.

use crate::source::{Reference, Role};

/// Text up to the first NUL; `order` makes a unit of two bytes.
pub(super) fn utf16(bytes: &[u8], order: fn([u8; 2]) -> u16) -> String {
    let units = bytes.as_chunks().0.iter().map(|unit| order(*unit)).take_while(|unit| *unit != 0);
    char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}

/// References to a parent of these names, each with backslashes: first those of a file beside the child, then the names as they
/// are, relative ones with the slashes of this side.
pub(super) fn parents(names: &[String]) -> Vec<Reference> {
    let beside = names.iter().map(|name| name.rsplit(['\\', '/']).next().unwrap_or_default().to_owned());
    let written = names.iter().map(|name| {
        let name = name.strip_prefix(".\\").unwrap_or(name);
        if name.contains(":\\") || name.starts_with('\\') { name.to_owned() } else { name.replace('\\', "/") }
    });
    let mut found: Vec<String> = Vec::new();
    for name in beside.chain(written) {
        if !name.is_empty() && !found.contains(&name) {
            found.push(name);
        }
    }
    found.into_iter().map(|name| Reference::new(name, Role::Parent)).collect()
}
