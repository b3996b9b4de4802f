//! Sizes and rates as people type and read them.

use std::fmt;
use std::str::FromStr;

/// A number of bytes: `512`, `64K`, `1.5G`, `2TiB`; powers of 1024.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

/// Bytes a second: a [`Size`], with or without `/s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate(pub u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is not a size such as 512M or 1.5G");
        let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let factor = unit_factor(unit).ok_or_else(wrong)?;
        let bytes = match number.split_once('.') {
            None => number.parse::<u64>().ok().and_then(|whole| whole.checked_mul(factor)),
            Some((whole, part)) => fraction(whole, part, factor),
        };
        bytes.map(Self).ok_or_else(wrong)
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let size: Size = text.strip_suffix("/s").unwrap_or(text).parse()?;
        if size.0 == 0 { Err("a rate of 0 would never finish".to_owned()) } else { Ok(Self(size.0)) }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        let mut unit = 0;
        let mut rest = self.0;
        let mut tenths = 0;
        while rest >= 1024 && unit + 1 < UNITS.len() {
            tenths = (rest % 1024) * 10 / 1024;
            rest /= 1024;
            unit += 1;
        }
        let name = UNITS.get(unit).copied().unwrap_or_default();
        if unit == 0 || tenths == 0 { write!(f, "{rest} {name}") } else { write!(f, "{rest}.{tenths} {name}") }
    }
}

fn unit_factor(unit: &str) -> Option<u64> {
    let letter = match unit.to_ascii_uppercase().as_str() {
        "" | "B" => return Some(1),
        "K" | "KB" | "KIB" => 1,
        "M" | "MB" | "MIB" => 2,
        "G" | "GB" | "GIB" => 3,
        "T" | "TB" | "TIB" => 4,
        "P" | "PB" | "PIB" => 5,
        _ => return None,
    };
    Some(1 << (10 * letter))
}

fn fraction(whole: &str, part: &str, factor: u64) -> Option<u64> {
    if whole.is_empty() || part.is_empty() || part.len() > 6 {
        return None;
    }
    let scale = 10_u64.pow(u32::try_from(part.len()).ok()?);
    let whole = whole.parse::<u64>().ok()?.checked_mul(factor)?;
    let part = u128::from(part.parse::<u64>().ok()?) * u128::from(factor) / u128::from(scale);
    whole.checked_add(u64::try_from(part).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_shown() {
        for (text, bytes) in [("0", 0), ("512", 512), ("64K", 65536), ("1.5G", 3 << 29), ("2TiB", 2 << 40)] {
            assert_eq!(text.parse::<Size>().unwrap().0, bytes, "{text}");
        }
        for (bytes, text) in [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 << 30, "3 GiB")] {
            assert_eq!(Size(bytes).to_string(), text);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "x", "1.2.3G", "-1", "1Q", ".5G", "99999999999999999999", "99999999P"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
        assert!("0".parse::<Rate>().is_err());
        assert_eq!("10M/s".parse::<Rate>().unwrap().0, 10 << 20);
    }
}
