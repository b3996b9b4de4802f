//! The stable error codes and what `hyper2kvm help CODE` says of each.

mod data;
mod guest;
mod program;

const TABLES: [&[(&str, &str)]; 3] = [data::CODES, guest::CODES, program::CODES];

/// Every code with its explanation, sorted by code. A test fails when the source uses one that is not here.
#[must_use]
pub fn codes() -> Vec<(&'static str, &'static str)> {
    let mut codes = TABLES.concat();
    codes.sort_unstable();
    codes
}

/// What `code` means, if it is one of ours.
#[must_use]
pub fn explain(code: &str) -> Option<&'static str> {
    TABLES.iter().find_map(|table| {
        let index = table.binary_search_by_key(&code, |(known, _)| known).ok()?;
        table.get(index).map(|(_, text)| *text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_sorted_unique_and_explained() {
        for table in TABLES {
            assert!(table.windows(2).all(|pair| pair[0].0 < pair[1].0), "keep the codes sorted");
            assert!(table.iter().all(|(_, text)| text.len() > 20));
        }
        assert!(codes().windows(2).all(|pair| pair[0].0 < pair[1].0), "a code is in two tables");
        assert!(codes().iter().all(|(code, text)| explain(code) == Some(text)));
        assert!(explain("no-such-code").is_none());
    }
}
