//! Feature words: a name for each bit.

/// The names of the bits that are set, the lowest first; what has none is called `unknown` and its number.
pub(super) fn names(bits: u32, known: &[(u32, &str)], unknown: &str) -> Vec<String> {
    (0..32_u32)
        .filter_map(|shift| {
            let bit = 1_u32.wrapping_shl(shift);
            (bits & bit != 0).then(|| match known.iter().find(|(value, _)| *value == bit) {
                Some((_, name)) => (*name).to_owned(),
                None => format!("{unknown}{shift}"),
            })
        })
        .collect()
}
