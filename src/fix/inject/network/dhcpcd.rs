//! dhcpcd.conf(5): what it gives an interface stands in a block of that.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use super::{Asked, joined};

/// `None` for what dhcpcd cannot be told: several addresses of a kind, and gateways of IPv6, which come from routers.
pub(super) fn edit(text: &str, asked: &Asked<'_>) -> Option<String> {
    let mut new: Vec<String> = Vec::new();
    for (wanted, key) in [(&asked.v4, "ip_address"), (&asked.v6, "ip6_address")] {
        let Some(wanted) = wanted else { continue };
        if wanted.addresses.len() > 1 || wanted.gateway.as_ref().is_some_and(|gateway| gateway.contains(':')) {
            return None;
        }
        new.extend(wanted.addresses.iter().map(|address| format!("static {key}={address}")));
        new.extend(wanted.gateway.iter().map(|gateway| format!("static routers={gateway}")));
    }
    for (key, list) in [("domain_name_servers", asked.dns), ("domain_search", asked.search)] {
        new.extend((!list.is_empty()).then(|| format!("static {key}={}", list.join(" "))));
    }
    let goes = |line: &str| {
        let (key, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
        match (key, rest.trim().split('=').next().unwrap_or_default()) {
            ("static", "ip_address" | "routers") | ("inform" | "nodhcp" | "noipv4", _) => asked.v4.is_some(),
            ("static", "ip6_address") | ("noipv6", _) => asked.v6.is_some(),
            ("static", "domain_name_servers") => !asked.dns.is_empty(),
            ("static", "domain_search" | "domain_name") => !asked.search.is_empty(),
            _ => false,
        }
    };
    let (mut lines, mut inside, mut done) = (Vec::new(), false, false);
    for line in text.lines() {
        let trimmed = line.trim();
        let mut words = trimmed.split_ascii_whitespace();
        match words.next() {
            Some("interface") => inside = words.next() == Some(asked.name),
            Some("ssid" | "profile" | "arping") => inside = false,
            _ if inside && goes(trimmed) => continue,
            _ => {}
        }
        lines.push(line.to_owned());
        if inside && trimmed.starts_with("interface") && !std::mem::replace(&mut done, true) {
            lines.extend(new.iter().cloned());
        }
    }
    done.then(|| joined(&lines))
}
