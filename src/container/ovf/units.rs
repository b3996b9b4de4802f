//! Units of quantities: `byte * 2^20` of DSP0004 annex C, and the words of older writers.

/// How many bytes one unit is; `None` for what is not a unit of bytes.
#[must_use]
pub fn bytes_per_unit(text: &str) -> Option<u64> {
    let text: String = text.to_ascii_lowercase().split_whitespace().collect();
    let word = match text.as_str() {
        "byte" | "bytes" => Some(0),
        "kb" | "kib" | "kilobyte" | "kilobytes" => Some(10),
        "mb" | "mib" | "megabyte" | "megabytes" => Some(20),
        "gb" | "gib" | "gigabyte" | "gigabytes" => Some(30),
        "tb" | "tib" | "terabyte" | "terabytes" => Some(40),
        _ => None,
    };
    if let Some(shift) = word {
        return 1_u64.checked_shl(shift);
    }
    let factor = text.strip_prefix("byte")?.trim_start_matches('s').strip_prefix('*')?;
    match factor.split_once('^') {
        Some((base, exponent)) => base.parse::<u64>().ok()?.checked_pow(exponent.parse().ok()?),
        None => factor.parse().ok(),
    }
    .filter(|unit| *unit > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_of_all_writers() {
        let cases = [
            ("byte", Some(1)),
            ("byte * 2^20", Some(1 << 20)),
            ("byte*2^30", Some(1 << 30)),
            ("Byte * 10^6", Some(1_000_000)),
            ("bytes * 1024", Some(1024)),
            ("MegaBytes", Some(1 << 20)),
            ("GB", Some(1 << 30)),
            ("byte * 2^64", None),
            ("byte * 0", None),
            ("byte * 2^-1", None),
            ("hertz * 10^6", None),
            ("", None),
            ("byte * 99999999999^99999999999", None),
        ];
        for (text, unit) in cases {
            assert_eq!(bytes_per_unit(text), unit, "{text}");
        }
    }
}
