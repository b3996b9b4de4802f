//! guestfish's language: words that are nothing but themselves, and what it prints.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::error::{Error, Result, escape_bytes};
use crate::fs::FileKind;

/// A command with its words, each quoted so that no byte of it means anything to guestfish.
///
/// # Errors
/// `appliance.name` for a word with a byte 0, which no such word can have.
pub(super) fn command(name: &str, words: &[&[u8]]) -> Result<String> {
    let mut line = name.to_owned();
    for word in words {
        line.push_str(" \"");
        for byte in *word {
            match byte {
                0 => {
                    return Err(Error::unsupported("appliance.name", "libguestfs takes no byte 0 here")
                        .found(escape_bytes(word)));
                }
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' | b':' | b'=' | b',' => {
                    line.push(char::from(*byte));
                }
                // Writing to a string does not fail.
                other => _ = write!(line, "\\{other:03o}"),
            }
        }
        line.push('"');
    }
    Ok(line)
}

/// Fields of a structure of numbers: `name: value` in each line.
pub(super) fn numbers(printed: &[u8]) -> BTreeMap<&str, i64> {
    let lines = std::str::from_utf8(printed).unwrap_or_default().lines();
    lines.filter_map(|line| line.split_once(": ").and_then(|(name, value)| Some((name, value.parse().ok()?)))).collect()
}

/// Names and values of a structure.
pub(super) type Fields<'a> = Vec<(&'a [u8], &'a [u8])>;

/// The structures of a list: `[0] = {`, lines of `  name: value`, `}`. `None` when it is none, which a value with a line break
/// can bring about.
pub(super) fn list(printed: &[u8]) -> Option<Vec<Fields<'_>>> {
    let (mut found, mut open) = (Vec::new(), None);
    for line in printed.split(|byte| *byte == b'\n') {
        match (line, &mut open) {
            (b"", None) => {}
            (b"}", Some(_)) => found.extend(open.take()),
            (line, None) if *line == *format!("[{}] = {{", found.len()).as_bytes() => open = Some(Vec::new()),
            (line, Some(fields)) => {
                let line = line.strip_prefix(b"  ")?;
                let end = line.windows(2).position(|pair| pair == b": ")?;
                fields.push((line.get(..end)?, line.get(end.checked_add(2)?..)?));
            }
            _ => return None,
        }
    }
    open.is_none().then_some(found)
}

/// The value of the field `name`.
pub(super) fn field<'a>(fields: &[(&[u8], &'a [u8])], name: &str) -> Option<&'a [u8]> {
    fields.iter().find(|(known, _)| *known == name.as_bytes()).map(|(_, value)| *value)
}

/// A field that is a number.
pub(super) fn number(fields: &[(&[u8], &[u8])], name: &str) -> Option<u64> {
    std::str::from_utf8(field(fields, name)?).ok()?.parse().ok()
}

/// The letter that readdir gives for a kind of file.
pub(super) const fn kind_of(letter: u8) -> Option<FileKind> {
    match letter {
        b'b' => Some(FileKind::BlockDevice),
        b'c' => Some(FileKind::CharDevice),
        b'd' => Some(FileKind::Directory),
        b'f' => Some(FileKind::Fifo),
        b'l' => Some(FileKind::Symlink),
        b'r' => Some(FileKind::Regular),
        b's' => Some(FileKind::Socket),
        _ => None,
    }
}

/// The kind of a file by its `st_mode`.
pub(super) const fn kind_of_mode(mode: u64) -> Option<FileKind> {
    match mode >> 12 {
        0o01 => Some(FileKind::Fifo),
        0o02 => Some(FileKind::CharDevice),
        0o04 => Some(FileKind::Directory),
        0o06 => Some(FileKind::BlockDevice),
        0o10 => Some(FileKind::Regular),
        0o12 => Some(FileKind::Symlink),
        0o14 => Some(FileKind::Socket),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_word_means_anything() {
        let line = command("ls0", &[b"/v0/a b\"\n!|<\\#", "ä{a,b}*~".as_bytes(), b""]).unwrap();
        let quoted =
            "ls0 \"/v0/a\\040b\\042\\012\\041\\174\\074\\134\\043\" \"\\303\\244\\173a,b\\175\\052\\176\" \"\"";
        assert_eq!(line, quoted);
        assert_eq!(command("rm", &[b"a\0b"]).unwrap_err().code(), "appliance.name");
    }

    #[test]
    fn lists_of_structures_are_read_strictly() {
        let good = b"[0] = {\n  ino: 12\n  ftyp: d\n  name: a: b\n}\n[1] = {\n  name: \n}\n";
        let read = list(good).unwrap();
        assert_eq!((read.len(), number(&read[0], "ino")), (2, Some(12)));
        assert_eq!((field(&read[0], "name"), field(&read[1], "name")), (Some(&b"a: b"[..]), Some(&b""[..])));
        assert_eq!(list(b""), Some(Vec::new()));
        for bad in [&b"[1] = {\n}\n"[..], b"[0] = {\n", b"}\n", b"x\n", b"[0] = {\nname: x\n}\n", b"[0] = {\n  x\n}\n"]
        {
            assert_eq!(list(bad), None, "{}", escape_bytes(bad));
        }
        assert_eq!(numbers(b"st_ino: 5\nfsid: -3\nx\ny: z\n"), BTreeMap::from([("st_ino", 5), ("fsid", -3)]));
    }

    #[test]
    fn kinds_are_the_same_by_letter_and_mode() {
        for (letter, mode) in b"bcdflrs".iter().zip([0o6, 0o2, 0o4, 0o1, 0o12, 0o10, 0o14]) {
            assert_eq!(kind_of(*letter), kind_of_mode(mode << 12 | 0o644));
            assert!(kind_of(*letter).is_some());
        }
        assert_eq!((kind_of(b'?'), kind_of_mode(0)), (None, None));
    }
}
