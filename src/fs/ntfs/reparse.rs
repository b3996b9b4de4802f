//! Reparse points: links, and files whose content is elsewhere.

use super::{corrupt, feature};
use crate::disk::bytes::{array, le16, le32};
use crate::error::Result;
use crate::fs::utf16;

const MOUNT_POINT: u32 = 0xa000_0003;
const SYMLINK: u32 = 0xa000_000c;
const LX_SYMLINK: u32 = 0xa000_001d;

/// What a reparse point makes of a file.
pub(super) enum Reparse {
    /// A link with this target.
    Link(Vec<u8>),
    /// A file that is read as it is.
    Plain,
    /// Content that another program would have to bring.
    Elsewhere(&'static str),
}

/// Reads the value of `$REPARSE_POINT`.
pub(super) fn read(value: &[u8]) -> Result<Reparse> {
    Ok(match le32(value, 0) {
        MOUNT_POINT => Reparse::Link(target(value, 16)?),
        SYMLINK => Reparse::Link(target(value, 20)?),
        LX_SYMLINK => Reparse::Link(value.get(12..).filter(|text| !text.is_empty()).ok_or_else(empty)?.to_vec()),
        0x8000_0013 => Reparse::Elsewhere("deduplicated"),
        0x8000_0017 => Reparse::Elsewhere("compressed by the Windows Overlay Filter (WOF, compact.exe)"),
        0x8000_0006 | 0xc000_0004 => Reparse::Elsewhere("moved to remote storage"),
        tag if tag & 0xffff_0fff == 0x9000_001a => Reparse::Elsewhere("kept in a cloud"),
        _ => Reparse::Plain,
    })
}

fn empty() -> crate::error::Error {
    corrupt("a link has no target")
}

/// The target of a link of Windows, in the form of Unix: a path on a drive is one from the root, since which file system a
/// letter stands for is not told here.
fn target(value: &[u8], names: usize) -> Result<Vec<u8>> {
    let (at, len) = (usize::from(le16(value, 8)), usize::from(le16(value, 10)));
    let bytes = value.get(names..).and_then(|names| names.get(at..)).and_then(|rest| rest.get(..len));
    let bytes = bytes.filter(|bytes| !bytes.is_empty()).ok_or_else(empty)?;
    let units: Vec<u16> = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes(array(pair, 0))).collect();
    let mut text = utf16::to_bytes(&units);
    if text.contains(&0) {
        return Err(feature("a link's target is no path"));
    }
    text.iter_mut().filter(|byte| **byte == b'\\').for_each(|byte| *byte = b'/');
    let path = text.strip_prefix(b"/??/").unwrap_or(&text);
    Ok(match path {
        [letter, b':', rest @ ..] if letter.is_ascii_alphabetic() => {
            if rest.is_empty() {
                b"/".to_vec()
            } else {
                rest.to_vec()
            }
        }
        path => path.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(tag: u32, names: usize, target: &str) -> Vec<u8> {
        let units: Vec<u8> = target.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let mut value = tag.to_le_bytes().to_vec();
        value.extend([0; 4]);
        value.extend([0, 0]);
        value.extend(u16::try_from(units.len()).unwrap().to_le_bytes());
        value.resize(names, 0);
        value.extend(units);
        value
    }

    #[test]
    fn targets_have_the_form_of_unix() {
        for (target, expected) in [
            ("\\??\\C:\\Users\\me", "/Users/me"),
            ("\\??\\C:", "/"),
            ("..\\up\\file", "../up/file"),
            ("\\??\\Volume{1234}\\x", "Volume{1234}/x"),
        ] {
            for (tag, names) in [(MOUNT_POINT, 16), (SYMLINK, 20)] {
                let Reparse::Link(found) = read(&link(tag, names, target)).unwrap() else { panic!("{target}") };
                assert_eq!(String::from_utf8(found).unwrap(), expected);
            }
        }
        assert!(matches!(read(&0x8000_0017_u32.to_le_bytes()).unwrap(), Reparse::Elsewhere(_)));
        assert!(matches!(read(&[1; 40]).unwrap(), Reparse::Plain));
        assert!(read(&link(SYMLINK, 20, "")).is_err());
        assert!(read(&link(SYMLINK, 20, "long target")[..30]).is_err());
        assert!(read(&link(SYMLINK, 20, "a\0b")).is_err());
    }
}
