//! Names in UTF-16, as FAT, exFAT, NTFS and Joliet have them, as the bytes that callers see.
//!
//! Well formed names are UTF-8. A surrogate without its other half is written as the three bytes that it would have as a
//! character of its own, so that every name can be shown, told apart and found again.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

/// The bytes of a name.
pub(super) fn to_bytes(units: &[u16]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(units.len());
    for unit in char::decode_utf16(units.iter().copied()) {
        match unit {
            Ok(char) => bytes.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
            Err(lone) => {
                let [high, low] = lone.unpaired_surrogate().to_be_bytes();
                bytes.extend([0xe0 | high >> 4, 0x80 | (high & 0xf) << 2 | low >> 6, 0x80 | low & 0x3f]);
            }
        }
    }
    bytes
}

/// The name that has these bytes; `None` when no name has them.
pub(super) fn from_bytes(bytes: &[u8]) -> Option<Vec<u16>> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Some(text.encode_utf16().collect()),
        Err(_) => lone_surrogates(bytes),
    }
}

/// The slow way, for names that are not UTF-8.
fn lone_surrogates(bytes: &[u8]) -> Option<Vec<u16>> {
    let mut units = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while !rest.is_empty() {
        if let [0xed, second @ 0xa0..=0xbf, third @ 0x80..=0xbf, after @ ..] = rest {
            units.push(0xd000 | u16::from(second & 0x3f) << 6 | u16::from(third & 0x3f));
            rest = after;
            continue;
        }
        let end = rest.windows(2).position(|pair| matches!(pair, [0xed, 0xa0..=0xbf])).unwrap_or(rest.len());
        let (text, after) = rest.split_at_checked(end)?;
        units.extend(std::str::from_utf8(text).ok().filter(|text| !text.is_empty())?.encode_utf16());
        rest = after;
    }
    // Two halves that stand together are one character, and are written as one.
    (to_bytes(&units) == bytes).then_some(units)
}

/// The unit in upper case, for names that are the same whatever their case. Letters whose upper case has another lower case
/// (`ı`, `ſ`) stay as they are.
pub(super) fn upper(unit: u16) -> u16 {
    if let Ok(ascii) = u8::try_from(unit)
        && ascii.is_ascii()
    {
        return u16::from(ascii.to_ascii_uppercase());
    }
    let Some(char) = char::from_u32(u32::from(unit)) else { return unit };
    let mut upper = char.to_uppercase();
    match (upper.next(), upper.next()) {
        (Some(one), None) if one.to_lowercase().eq([char]) => u16::try_from(u32::from(one)).unwrap_or(unit),
        _ => unit,
    }
}

/// The unit in lower case.
pub(super) fn lower(unit: u16) -> u16 {
    let mut lower = char::from_u32(u32::from(unit)).into_iter().flat_map(char::to_lowercase);
    match (lower.next(), lower.next()) {
        (Some(one), None) => u16::try_from(u32::from(one)).unwrap_or(unit),
        _ => unit,
    }
}

/// Whether two names differ in case at most.
pub(super) fn same(a: &[u16], b: &[u16]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a == b || upper(*a) == upper(*b))
}

/// Whether a name can be that of a file in a directory: not empty, no slash and no NUL, neither `.` nor `..`.
pub(super) fn is_name(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..") && !name.iter().any(|byte| matches!(byte, 0 | b'/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_name_is_found_again(units in proptest::collection::vec(prop_oneof![any::<u16>(), 0xd7f0_u16..0xe010], 0..20)) {
            prop_assert_eq!(from_bytes(&to_bytes(&units)).unwrap(), units);
        }

        #[test]
        fn bytes_are_a_name_only_if_they_are_its_bytes(bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(0xed), 0xa0_u8..0xc0], 0..9)) {
            if let Some(units) = from_bytes(&bytes) {
                prop_assert_eq!(to_bytes(&units), bytes);
            }
        }
    }

    #[test]
    fn well_formed_names_are_text() {
        let units: Vec<u16> = "aß€𝄞".encode_utf16().collect();
        assert_eq!(to_bytes(&units), "aß€𝄞".as_bytes());
        assert_eq!(to_bytes(&[0xd834]), [0xed, 0xa0, 0xb4]);
        assert_eq!(from_bytes(b"\xff"), None);
        assert_eq!(from_bytes(b"\xed\xa0\xb4\xed\xb4\x9e"), None);
    }

    #[test]
    fn case_is_that_of_one_letter() {
        let units = |text: &str| text.encode_utf16().collect::<Vec<_>>();
        for (a, b, equal) in [("Straße", "STRAßE", true), ("ÄÖ", "äö", true), ("ı", "I", false), ("ſ", "S", false)]
        {
            assert_eq!(same(&units(a), &units(b)), equal, "{a} {b}");
        }
    }

    #[test]
    fn names_stay_in_their_directory() {
        for name in [&b""[..], b".", b"..", b"a/b", b"a\0"] {
            assert!(!is_name(name));
        }
        assert!(is_name(b"...") && is_name("ä".as_bytes()));
    }
}
