//! Text: OSTA's compressed Unicode, fields of a fixed size, links' targets (UDF 2.1.1, 2.1.3, 2.3.13).

use crate::disk::bytes::{array, u8_at};
use crate::fs::utf16;

/// The bytes of a name; `None` for one that was removed, or in no known form.
pub(super) fn decode(name: &[u8]) -> Option<Vec<u8>> {
    let (kind, rest) = name.split_first()?;
    let units: Vec<u16> = match kind {
        8 => rest.iter().map(|byte| u16::from(*byte)).collect(),
        16 => rest.chunks_exact(2).map(|pair| u16::from_be_bytes(array(pair, 0))).collect(),
        _ => return None,
    };
    Some(utf16::to_bytes(&units))
}

/// A field that ends with the length of the text in it.
pub(super) fn dstring(field: &[u8]) -> Option<String> {
    let (len, text) = field.split_last()?;
    let text = decode(text.get(..usize::from(*len))?)?;
    let text = String::from_utf8_lossy(&text).trim_end_matches(['\0', ' ']).to_owned();
    (!text.is_empty()).then_some(text)
}

/// What stands for a UUID: the first sixteen digits of the identifier of the set of volumes or, as far as these are none, the bytes
/// in hexadecimal.
pub(super) fn uuid(set: &[u8]) -> Option<String> {
    let digits = set.iter().take(16).take_while(|byte| byte.is_ascii_hexdigit()).count();
    let plain = match digits {
        16 => 16,
        8..16 => 8,
        _ => 0,
    };
    let coded = if plain == 0 { 8 } else { (16_usize).saturating_sub(plain) / 2 };
    let (head, tail) = set.split_at_checked(plain)?;
    let tail = tail.get(..coded)?;
    let mut text = String::from_utf8_lossy(head).to_ascii_lowercase();
    tail.iter().for_each(|byte| text.push_str(&format!("{byte:02x}")));
    Some(text)
}

/// The target of a link as a path; `None` for one that makes no sense.
pub(super) fn target(mut components: &[u8]) -> Option<Vec<u8>> {
    let mut path: Vec<u8> = Vec::new();
    while !components.is_empty() {
        let len = usize::from(u8_at(components, 1));
        let name = components.get(4..)?.get(..len)?;
        match u8_at(components, 0) {
            // A root that two parties have agreed upon; with a name it is nothing that is known.
            1 if len > 0 => {}
            1 | 2 => path = b"/".to_vec(),
            3 => path.extend(b"../"),
            4 => path.extend(b"./"),
            5 => {
                path.extend(decode(name)?);
                path.push(b'/');
            }
            _ => return None,
        }
        components = components.get(len.checked_add(4)?..)?;
    }
    if path.len() > 1 {
        path.pop();
    }
    (!path.is_empty() && !path.contains(&0)).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_become_what_blkid_makes_of_them() {
        for (set, expected) in [
            ("5FA1234567890ABCrest", Some("5fa1234567890abc")),
            ("5FA12345LinuxUDF", Some("5fa123454c696e75")),
            ("5FA123456LinuxUDF", Some("5fa12345364c696e")),
            ("LinuxUDF", Some("4c696e7578554446")),
            ("short", None),
            ("12345678abc", None),
        ] {
            assert_eq!(uuid(set.as_bytes()).as_deref(), expected, "{set}");
        }
    }

    #[test]
    fn text_is_in_either_width() {
        assert_eq!(decode(b"\x08a\xe4").unwrap(), "aä".as_bytes());
        assert_eq!(decode(b"\x10\x65\xe5\0a").unwrap(), "日a".as_bytes());
        assert_eq!(decode(b"\xfea"), None);
        assert_eq!(decode(b""), None);
        assert_eq!(dstring(b"\x08ab\0\0\x03").as_deref(), Some("ab"));
        assert_eq!(dstring(&[0; 32]), None);
    }

    #[test]
    fn targets_are_paths_of_components() {
        let part = |kind: u8, name: &[u8]| [&[kind, u8::try_from(name.len()).unwrap(), 0, 0], name].concat();
        for (parts, expected) in [
            (vec![part(2, b""), part(5, b"\x08etc"), part(5, b"\x08x")], Some("/etc/x")),
            (vec![part(3, b""), part(4, b""), part(5, b"\x08x")], Some(".././x")),
            (vec![part(2, b"")], Some("/")),
            (vec![part(1, b"\x08x"), part(5, b"\x08y")], Some("y")),
            (vec![part(5, b"\x08a"), part(1, b""), part(5, b"\x08b")], Some("/b")),
            (vec![part(7, b"")], None),
            (vec![part(5, b"\x08a\0b")], None),
            (vec![vec![5, 9, 0, 0, 8]], None),
            (vec![vec![5]], None),
            (vec![], None),
        ] {
            let found = target(&parts.concat());
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{parts:?}");
        }
    }
}
