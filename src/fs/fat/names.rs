//! Names: eleven characters of the code page in each entry, and long ones in UTF-16 in the entries before it.

use std::collections::HashSet;

use crate::disk::bytes::{array, le16, put, put16, size, u8_at};
use crate::fs::utf16;

/// A name of eight characters and three.
pub(super) type Short = [u8; 11];

/// UTF-16 units in one entry of a long name, and where they are.
pub(super) const UNITS: usize = 13;
const PLACES: [usize; UNITS] = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];

/// The longest name in UTF-16 units.
pub(super) const LONGEST: usize = 255;

/// The flag of the entry that holds the end of a long name.
pub(super) const LAST: u8 = 0x40;

/// The upper half of code page 437, the kernel's default.
const UPPER_HALF: &str = "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}";

/// A character of the code page in UTF-16.
fn unit(byte: u8) -> u16 {
    let Some(index) = byte.checked_sub(0x80) else { return u16::from(byte) };
    let char = UPPER_HALF.chars().nth(usize::from(index)).unwrap_or(char::REPLACEMENT_CHARACTER);
    u16::try_from(u32::from(char)).unwrap_or(0xfffd)
}

/// A short name as it is shown. `flags` (`DIR_NTRes`) says which part is in lower case.
pub(super) fn shown(short: &Short, flags: u8) -> Vec<u16> {
    let mut short = *short;
    // 0xE5 marks an entry as free, so that character is written as 0x05.
    if let Some(first) = short.first_mut().filter(|first| **first == 5) {
        *first = 0xe5;
    }
    let part = |bytes: &[u8], lower: bool| -> Vec<u16> {
        let end = bytes.iter().rposition(|byte| *byte != b' ').map_or(0, |last| last.saturating_add(1));
        let letters = bytes.get(..end).unwrap_or_default().iter();
        letters.map(|byte| if lower { utf16::lower(unit(*byte)) } else { unit(*byte) }).collect()
    };
    let (base, extension) = short.split_at_checked(8).unwrap_or_default();
    let mut name = part(base, flags & 8 != 0);
    let extension = part(extension, flags & 0x10 != 0);
    if !extension.is_empty() {
        name.push(u16::from(b'.'));
        name.extend(extension);
    }
    name
}

/// The checksum of a short name that each entry of its long name carries.
pub(super) fn checksum(short: &Short) -> u8 {
    short.iter().fold(0_u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte))
}

/// A long name as it comes together from its entries, the last part first.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// Of the part that was met last; 0 when no name has begun.
    order: u8,
    checksum: u8,
    units: Vec<u16>,
}

impl Parts {
    /// Takes an entry of a long name. One that does not continue what came before makes the name void.
    pub(super) fn take(&mut self, slot: &[u8; 32]) {
        let (order, checksum) = (u8_at(slot, 0), u8_at(slot, 13));
        let number = order & !LAST;
        if order & LAST != 0 {
            *self = Self::default();
            if !(1..=20).contains(&number) {
                return;
            }
            self.checksum = checksum;
        } else if self.order == 0 || number.saturating_add(1) != self.order || checksum != self.checksum || number == 0
        {
            *self = Self::default();
            return;
        }
        self.order = number;
        let mut units: Vec<u16> = PLACES.iter().map(|at| le16(slot, *at)).collect();
        units.append(&mut self.units);
        self.units = units;
    }

    /// The name, if it is whole and that of `short`; the next one can begin.
    pub(super) fn finish(&mut self, short: &Short) -> Option<Vec<u16>> {
        let parts = std::mem::take(self);
        if parts.order != 1 || parts.checksum != checksum(short) {
            return None;
        }
        let end = parts.units.iter().position(|unit| *unit == 0).unwrap_or(parts.units.len());
        let name = parts.units.get(..end)?.to_vec();
        (name.len() <= LONGEST && utf16::is_name(&utf16::to_bytes(&name))).then_some(name)
    }
}

/// The entries that hold a long name, in the order in which they lie.
pub(super) fn slots(name: &[u16], short: &Short) -> Vec<[u8; 32]> {
    let count = name.len().div_ceil(UNITS);
    let slot = |(index, part): (usize, &[u16])| {
        let mut slot = [0; 32];
        let number = index.saturating_add(1);
        let last = if number == count { LAST } else { 0 };
        put(&mut slot, 0, &[u8::try_from(number).unwrap_or(0) | last]);
        put(&mut slot, 11, &[super::dir::ATTR_LONG]);
        put(&mut slot, 13, &[checksum(short)]);
        let end = [0].iter().chain(std::iter::repeat(&u16::MAX));
        for (at, unit) in PLACES.iter().zip(part.iter().chain(end)) {
            put16(&mut slot, *at, *unit);
        }
        slot
    };
    let mut slots: Vec<[u8; 32]> = name.chunks(UNITS).enumerate().map(slot).collect();
    slots.reverse();
    slots
}

/// Whether a file may be given this name.
pub(super) fn is_allowed(name: &[u16]) -> bool {
    let forbidden = |unit: &u16| u8::try_from(*unit).is_ok_and(|byte| byte < 0x20 || b"\"*/:<>?\\|".contains(&byte));
    let ends_badly = name.last().is_none_or(|last| matches!(u8::try_from(*last), Ok(b'.' | b' ')));
    !ends_badly && name.len() <= LONGEST && !name.iter().any(forbidden)
}

fn is_short_char(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte.is_ascii_digit() || b"!#$%&'()-@^_`{}~".contains(&byte)
}

/// The short name that is exactly `name`, which then needs no long one.
pub(super) fn exact(name: &[u16]) -> Option<Short> {
    let mut bytes = Vec::with_capacity(name.len());
    for unit in name {
        bytes.push(u8::try_from(*unit).ok()?);
    }
    let dot = bytes.iter().position(|byte| *byte == b'.');
    let (base, extension) = match dot {
        Some(dot) => (bytes.get(..dot)?, bytes.get(dot.checked_add(1)?..).filter(|extension| !extension.is_empty())?),
        None => (bytes.as_slice(), &[][..]),
    };
    let fits = (1..=8).contains(&base.len()) && extension.len() <= 3;
    let plain = base.iter().chain(extension).all(|byte| is_short_char(*byte));
    (fits && plain).then(|| assembled(base, extension))
}

fn assembled(base: &[u8], extension: &[u8]) -> Short {
    let mut short = [b' '; 11];
    put(&mut short, 0, base.get(..8).unwrap_or(base));
    put(&mut short, 8, extension.get(..3).unwrap_or(extension));
    short
}

/// A short name for a long one: in upper case where that is all that it needs, else with a number that makes it unique.
pub(super) fn alias(name: &[u16], taken: &HashSet<Short>) -> Option<Short> {
    let upper: Vec<u16> = name.iter().map(|unit| utf16::upper(*unit)).collect();
    if let Some(short) = exact(&upper).filter(|short| !taken.contains(short)) {
        return Some(short);
    }
    let dot = upper.iter().rposition(|unit| *unit == u16::from(b'.')).filter(|dot| *dot > 0);
    let simple = |units: &[u16]| -> Vec<u8> {
        let kept = units.iter().filter(|unit| !matches!(u8::try_from(**unit), Ok(b' ' | b'.')));
        kept.map(|unit| u8::try_from(*unit).ok().filter(|byte| is_short_char(*byte)).unwrap_or(b'_')).collect()
    };
    let mut base = simple(upper.get(..dot.unwrap_or(upper.len()))?);
    let extension = dot.and_then(|dot| upper.get(dot.checked_add(1)?..)).map(simple).unwrap_or_default();
    if base.is_empty() {
        base.push(b'_');
    }
    (1..1_000_000_u32).map(|number| numbered(&base, &extension, number)).find(|short| !taken.contains(short))
}

fn numbered(base: &[u8], extension: &[u8], number: u32) -> Short {
    let tail = format!("~{number}");
    let kept = base.len().min(size(8).saturating_sub(tail.len()));
    let base = [base.get(..kept).unwrap_or_default(), tail.as_bytes()].concat();
    assembled(&base, extension)
}

/// The short name of an entry.
pub(super) fn short(slot: &[u8; 32]) -> Short {
    array(slot, 0)
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "tests build their input")]
mod tests {
    use super::*;

    fn units(name: &str) -> Vec<u16> {
        name.encode_utf16().collect()
    }

    #[test]
    fn the_code_page_is_whole() {
        assert_eq!(UPPER_HALF.chars().count(), 128);
        assert_eq!((unit(0xe1), unit(0x80), unit(b'A')), (0xdf, 0xc7, 65));
    }

    #[test]
    fn short_names_are_shown_with_their_case() {
        for (short, flags, name) in [
            (b"FILE    TXT", 0, "FILE.TXT"),
            (b"FILE    TXT", 8, "file.TXT"),
            (b"FILE    TXT", 0x18, "file.txt"),
            (b"\x8eB      TXT", 8, "äb.TXT"),
            (b"A B        ", 0, "A B"),
            (b"\x05       X  ", 0, "σ.X"),
        ] {
            assert_eq!(String::from_utf16(&shown(short, flags)).unwrap(), name);
        }
    }

    #[test]
    fn long_names_come_together_only_in_order_and_for_their_short_name() {
        let name = units("a name that needs three of them");
        let short = *b"ANAMET~1   ";
        let slots = slots(&name, &short);
        assert_eq!(slots.len(), 3);
        let read = |slots: &[[u8; 32]], short: &Short| {
            let mut parts = Parts::default();
            slots.iter().for_each(|slot| parts.take(slot));
            parts.finish(short)
        };
        assert_eq!(read(&slots, &short), Some(name.clone()));
        assert_eq!(read(&slots, b"ANAMET~2   "), None);
        assert_eq!(read(&slots[1..], &short), None);
        assert_eq!(read(&slots[..2], &short), None);
        assert_eq!(read(&[slots[0], slots[2], slots[1]], &short), None);
        assert_eq!(read(&[slots[0], slots[0], slots[1], slots[2]], &short), Some(name));
        for bad in ["a/b", "..", ""] {
            assert_eq!(read(&self::slots(&units(bad), &short), &short), None, "{bad}");
        }
        let exact = units("thirteenchars");
        assert_eq!(read(&self::slots(&exact, &short), &short), Some(exact));
    }

    #[test]
    fn short_names_are_made_as_elsewhere() {
        let mut taken = HashSet::new();
        let mut made = |name: &str| {
            let short = alias(&units(name), &taken).unwrap();
            taken.insert(short);
            String::from_utf8(short.to_vec()).unwrap()
        };
        assert_eq!(made("readme.txt"), "README  TXT");
        assert_eq!(made("ReadMe.Txt"), "README~1TXT");
        assert_eq!(made("a long name.html"), "ALONGN~1HTM");
        assert_eq!(made("a long nose.html"), "ALONGN~2HTM");
        assert_eq!(made(".profile"), "PROFIL~1   ");
        assert_eq!(made("ä+b.tar.gz"), "__BTAR~1GZ ");
        assert_eq!(made("日本語"), "___~1      ");
        assert_eq!(made("..x"), "X~1        ".replace("X~1        ", "_~1     X  "));
        for number in 3..12 {
            assert_eq!(made("a long nose.html"), format!("{:8}HTM", numbered_base(number)));
        }
    }

    fn numbered_base(number: u32) -> String {
        let tail = format!("~{number}");
        format!("{}{tail}", &"ALONGN"[..8 - tail.len()])
    }

    #[test]
    fn only_plain_upper_case_needs_no_long_name() {
        assert_eq!(exact(&units("BOOTX64.EFI")), Some(*b"BOOTX64 EFI"));
        assert_eq!(exact(&units("EFI")), Some(*b"EFI        "));
        for name in ["bootx64.efi", "A.B.C", "A B", "TOOLONGNAME", "A.LONG", "", ".A", "A.", "Ä", "A+B"] {
            assert_eq!(exact(&units(name)), None, "{name}");
        }
    }

    #[test]
    fn names_that_no_system_takes_are_refused() {
        let longest = "x".repeat(255);
        for (name, allowed) in
            [("a", true), (&longest, true), (".hidden", true), ("a b", true), ("a:b", false), ("a\\b", false)]
                .into_iter()
                .chain([("a.", false), ("a ", false), ("", false), ("a\u{1}", false), ("..", false)])
        {
            assert_eq!(is_allowed(&units(name)), allowed, "{name}");
        }
        assert!(!is_allowed(&units(&"x".repeat(256))));
    }
}
