//! netifrc's `/etc/conf.d/net`: assignments of a shell, whose values have a line for each address or route.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::ops::Range;

use super::{Asked, joined};

/// `None` where a line of `config_NAME` holds more than one address, or the file is laid out in the old way, in parentheses.
pub(super) fn edit(text: &str, asked: &Asked<'_>) -> Option<String> {
    let variable: String = asked.name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let is_default =
        |line: &str| matches!(line.split_ascii_whitespace().next(), Some("default" | "0.0.0.0/0" | "::/0"));
    let gateway =
        |line: &str| line.split_ascii_whitespace().skip(1).find(|word| word.contains(['.', ':'])).map(str::to_owned);

    let key = format!("config_{variable}");
    let mut config = Vec::new();
    for line in value(&lines, &key)?.unwrap_or_default() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        if words.iter().filter(|word| word.contains('/') && word.contains(['.', ':'])).count() > 1 {
            return None;
        }
        let first = words.first().copied().unwrap_or_default();
        let goes = match first {
            "dhcpv6" => asked.v6.is_some(),
            _ if first.contains(['.', ':']) => asked.replaces(first),
            _ => asked.v4.is_some(),
        };
        config.extend((!goes).then_some(line));
    }
    let mut routes: Vec<String> = value(&lines, &format!("routes_{variable}"))?.unwrap_or_default();
    routes.retain(|line| !(is_default(line) && gateway(line).is_some_and(|gateway| asked.replaces(&gateway))));
    for wanted in [&asked.v4, &asked.v6].into_iter().flatten() {
        config.extend(wanted.addresses.iter().cloned());
        routes.extend(wanted.gateway.iter().map(|gateway| format!("default via {gateway}")));
    }
    if asked.v4.as_ref().is_some_and(|wanted| wanted.addresses.is_empty()) {
        config.insert(0, "dhcp".to_owned());
    }
    put(&mut lines, &key, &config)?;
    put(&mut lines, &format!("routes_{variable}"), &routes)?;
    for (key, list) in [("dns_servers", asked.dns), ("dns_search", asked.search)] {
        if !list.is_empty() {
            put(&mut lines, &format!("{key}_{variable}"), &[list.join(" ")])?;
        }
    }
    Some(joined(&lines))
}

/// The lines of the assignment to `key`; the last one counts. `None` for one that does not end, or is a list in parentheses.
fn place(lines: &[String], key: &str) -> Option<Option<Range<usize>>> {
    let (mut found, mut number) = (None, 0_usize);
    while let Some(line) = lines.get(number) {
        let start = number;
        number = number.saturating_add(1);
        let Some((known, value)) = line.trim_start().split_once('=').filter(|(key, _)| !key.starts_with('#')) else {
            continue;
        };
        let is_wanted = known == key;
        if let Some(quote) = value.chars().next().filter(|c| matches!(c, '"' | '\'')) {
            let mut rest = value.get(1..).unwrap_or_default();
            while !rest.contains(quote) {
                rest = match lines.get(number) {
                    Some(next) => next,
                    None if is_wanted => return None,
                    None => "\"'",
                };
                number = number.saturating_add(1);
            }
        } else if value.starts_with('(') && is_wanted {
            return None;
        }
        if is_wanted {
            found = Some(start..number);
        }
    }
    Some(found)
}

/// The lines of a value that are not empty.
fn value(lines: &[String], key: &str) -> Option<Option<Vec<String>>> {
    let Some(place) = place(lines, key)? else { return Some(None) };
    let text = lines.get(place).unwrap_or_default().join("\n");
    let value = text.split_once('=').map(|(_, value)| value).unwrap_or_default();
    let value = match value.chars().next().filter(|c| matches!(c, '"' | '\'')) {
        Some(quote) => value.split(quote).nth(1).unwrap_or_default(),
        None => value.split_ascii_whitespace().next().unwrap_or_default(),
    };
    Some(Some(value.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect()))
}

/// Puts an assignment where it was, or at the end. One without a value goes.
fn put(lines: &mut Vec<String>, key: &str, value: &[String]) -> Option<()> {
    let new: Vec<String> = if value.is_empty() {
        Vec::new()
    } else {
        format!("{key}=\"{}\"", value.join("\n")).lines().map(str::to_owned).collect()
    };
    let range = place(lines, key)?.unwrap_or(lines.len()..lines.len());
    drop(lines.splice(range, new));
    Some(())
}
