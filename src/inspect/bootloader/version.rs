//! Versions compared as the Version Format Specification of the UAPI group has it, which is how boot menus are sorted.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::cmp::Ordering;

/// Compares two versions: `6.10` is newer than `6.9`, `6.1~rc1` older than `6.1`.
pub(super) fn compare(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        (a, b) = (skip(a), skip(b));
        // What comes first here is what is older: a tilde, the end, a dash, a caret, a dot.
        for mark in [Some(b'~'), None, Some(b'-'), Some(b'^'), Some(b'.')] {
            let is_at = |text: &[u8]| text.first().copied() == mark;
            match (is_at(a), is_at(b)) {
                (true, true) if mark.is_none() => return Ordering::Equal,
                (true, true) => {
                    (a, b) = (tail(a), tail(b));
                    break;
                }
                (true, false) => return Ordering::Less,
                (false, true) => return Ordering::Greater,
                (false, false) => {}
            }
        }
        let is_digit = |text: &[u8]| text.first().is_some_and(u8::is_ascii_digit);
        let order = if is_digit(a) || is_digit(b) {
            let ((left, rest_a), (right, rest_b)) = (cut(a, u8::is_ascii_digit), cut(b, u8::is_ascii_digit));
            (a, b) = (rest_a, rest_b);
            let (left, right) = (plain(left), plain(right));
            left.len().cmp(&right.len()).then_with(|| left.cmp(right))
        } else {
            let ((left, rest_a), (right, rest_b)) = (cut(a, u8::is_ascii_alphabetic), cut(b, u8::is_ascii_alphabetic));
            (a, b) = (rest_a, rest_b);
            left.cmp(right)
        };
        if order.is_ne() {
            return order;
        }
    }
}

/// Characters that no version has mean nothing.
fn skip(text: &[u8]) -> &[u8] {
    cut(text, |byte| !byte.is_ascii_alphanumeric() && !b"~-^.".contains(byte)).1
}

fn cut(text: &[u8], belongs: impl Fn(&u8) -> bool) -> (&[u8], &[u8]) {
    let end = text.iter().position(|byte| !belongs(byte)).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, &[]))
}

fn plain(digits: &[u8]) -> &[u8] {
    cut(digits, |byte| *byte == b'0').1
}

fn tail(text: &[u8]) -> &[u8] {
    text.get(1..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn follows_the_specifications_examples() {
        for (newer, older) in [
            ("11", "1"),
            ("123.45", "123.4"),
            ("124", "123.45"),
            ("1.2.3", "1.2"),
            ("1.0", "1.0~rc1"),
            ("6.10.3-200.fc40", "6.9.11-200.fc40"),
            ("122.1", "122"),
            ("123^post", "123"),
            ("123-3", "123"),
            ("123.1", "123-3"),
            ("b", "a"),
            ("1", "a"),
        ] {
            assert_eq!(compare(newer, older), Ordering::Greater, "{newer} {older}");
            assert_eq!(compare(older, newer), Ordering::Less, "{newer} {older}");
        }
        assert_eq!(compare("1.02", "1.2"), Ordering::Equal);
        assert_eq!(compare("a_b", "ab"), Ordering::Less);
    }

    proptest! {
        #[test]
        fn orders_every_text(a in "[01a~.^_-]{0,8}", b in "[01a~.^_-]{0,8}") {
            prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
            prop_assert_eq!(compare(&a, &a), Ordering::Equal);
        }
    }
}
