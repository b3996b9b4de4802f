//! Addresses of interfaces: what the guest's configuration says of one is edited where it says it. Everything else about the
//! interface stays: its name, its card, what it is made of, what it belongs to.
//!
//! IPv4 is replaced where `dhcp` or an IPv4 address is given, IPv6 where an IPv6 address is, name servers and search domains where
//! some are.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

mod dhcpcd;
mod netifrc;
mod netplan;
mod sysconfig;

use std::net::IpAddr;

use serde::Deserialize;

use super::{FIX, WHY, absent, bad_value};
use crate::error::{Error, Result};
use crate::fix::draft::{Draft, Vital};
use crate::limits;

/// How one interface gets its addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NewAddresses {
    /// The interface, by the name that the guest's configuration has for it.
    pub name: String,
    /// IPv4 by DHCP.
    pub dhcp: bool,
    /// `10.0.0.5/24`, `2001:db8::5/64`.
    pub addresses: Vec<String>,
    /// Default gateways, at most one of IPv4 and one of IPv6.
    pub gateways: Vec<String>,
    /// Name servers.
    pub dns: Vec<String>,
    /// Domains that names are looked up in.
    pub search: Vec<String>,
}

/// What is wanted of one version of IP; `None` in its place where nothing is.
#[derive(Debug)]
struct Wanted {
    /// With prefix lengths; none means DHCP.
    addresses: Vec<String>,
    gateway: Option<String>,
}

/// What is wanted of an interface.
#[derive(Debug)]
struct Asked<'a> {
    name: &'a str,
    v4: Option<Wanted>,
    v6: Option<Wanted>,
    dns: &'a [String],
    search: &'a [String],
}

pub(super) fn plan(draft: &mut Draft<'_>, interface: &NewAddresses) -> Result<()> {
    let asked = Asked::of(interface)?;
    let known = draft.facts().interfaces.iter().find(|known| known.name.as_deref() == Some(asked.name));
    let known = known.ok_or_else(|| absent("the guest's configuration has no interface of that name", asked.name))?;
    let (manager, source, addresses) = (known.manager, known.source.clone(), known.addresses.clone());
    let Some((path, text)) = draft.read(&source)? else {
        return Err(absent("the file that configures an interface cannot be read", &source));
    };
    let text = String::from_utf8(text).map_err(|_| impossible(&path, "it is no text"))?;
    let new = match manager {
        "dhcpcd" => dhcpcd::edit(&text, &asked)
            .ok_or_else(|| impossible(&path, "dhcpcd takes one address of a kind, and no gateway of IPv6"))?,
        "ifcfg" if path.starts_with("/etc/sysconfig/network-scripts/") => ifcfg(&text, &asked),
        "ifcfg" if path.starts_with(sysconfig::DIR) => {
            of_the_system(draft, &asked, &path, &addresses)?;
            sysconfig::addresses(&text, &asked)
        }
        "ifupdown" => {
            ifupdown(&text, &asked).ok_or_else(|| impossible(&path, "ifupdown takes one address of a kind"))?
        }
        "netifrc" => netifrc::edit(&text, &asked)
            .ok_or_else(|| impossible(&path, "it is not laid out so that it can be edited safely"))?,
        "networkmanager" => keyfile(&text, &asked).ok_or_else(|| {
            impossible(&path, "name servers of IPv6 go with addresses of IPv6, and those of IPv4 likewise")
        })?,
        "networkd" => {
            networkd(&text, &asked).ok_or_else(|| impossible(&path, "it has sections for addresses or routes"))?
        }
        "netplan" => {
            netplan::edit(&text, &asked).ok_or_else(|| impossible(&path, "the interface is not found in it"))?
        }
        other => return Err(impossible(&path, &format!("{other} is not written"))),
    };
    let what = format!("give {} its addresses", asked.name);
    draft.edit(FIX, &path, new.into_bytes(), &what, WHY, Vital::No)
}

/// What SUSE keeps beside the file of an interface: its routes, and the system's own routes and name servers.
fn of_the_system(draft: &mut Draft<'_>, asked: &Asked<'_>, path: &str, old: &[String]) -> Result<()> {
    let suffix = path.rsplit("ifcfg-").next().unwrap_or(asked.name);
    let mut change = |name: &str, what: &str, edit: &dyn Fn(&str) -> String| -> Result<()> {
        let path = format!("{}{name}", sysconfig::DIR);
        let before = draft.read(&path)?;
        let is_there = before.is_some();
        let (path, before) = before.unwrap_or((path, Vec::new()));
        let before = String::from_utf8(before).map_err(|_| impossible(&path, "it is no text"))?;
        let new = edit(&before);
        let is_same = new.lines().eq(before.lines());
        match (is_same, is_there) {
            (true, _) => Ok(()),
            (false, true) => draft.edit(FIX, &path, new.into_bytes(), what, WHY, Vital::No),
            (false, false) => draft.create(FIX, &path, &new, what, WHY),
        }
    };
    let routes = format!("give {} its default gateways", asked.name);
    change(&format!("ifroute-{suffix}"), &routes, &|text| sysconfig::own_routes(text, asked))?;
    change("routes", &routes, &|text| sysconfig::all_routes(text, asked, old))?;
    change("config", "give the system its name servers", &|text| sysconfig::servers(text, asked))
}

fn impossible(path: &str, why: &str) -> Error {
    Error::unsupported("inject.impossible", "an interface cannot be given its addresses").at(path).found(why)
}

impl<'a> Asked<'a> {
    fn of(interface: &'a NewAddresses) -> Result<Self> {
        let name = interface.name.as_str();
        let is_name = |c: char| c.is_ascii_alphanumeric() || "._-@:".contains(c);
        if name.is_empty() || name.len() > 64 || !name.chars().all(is_name) {
            return Err(bad_value("name of an interface", name));
        }
        let ip = |text: &String| text.parse::<IpAddr>().map_err(|_| bad_value("IP address", text));
        let is_domain = |text: &&String| {
            let is_part = |c: char| c.is_ascii_alphanumeric() || "._-~".contains(c);
            text.is_empty() || text.len() > 253 || !text.chars().all(is_part)
        };
        if let Some(bad) = interface.search.iter().find(is_domain) {
            return Err(bad_value("domain", bad));
        }
        interface.dns.iter().try_for_each(|text| ip(text).map(drop))?;
        let lists = [&interface.addresses, &interface.gateways, &interface.dns, &interface.search];
        if lists.iter().any(|list| list.len() > limits::MAX_NIC_VALUES) {
            return Err(bad_value("list of addresses: it is too long", name));
        }
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for text in &interface.addresses {
            let wrong = || bad_value("address with the length of its prefix (10.0.0.5/24)", text);
            let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
            let prefix: u8 = prefix.parse().map_err(|_| wrong())?;
            match address.parse().map_err(|_| wrong())? {
                IpAddr::V4(address) if prefix <= 32 => v4.push(format!("{address}/{prefix}")),
                IpAddr::V6(address) if prefix <= 128 => v6.push(format!("{address}/{prefix}")),
                _ => return Err(wrong()),
            }
        }
        let gateway = |is_v4: bool| -> Result<Option<String>> {
            let mut found = None;
            for text in &interface.gateways {
                let address = ip(text)?;
                if address.is_ipv4() == is_v4 && found.replace(address.to_string()).is_some() {
                    return Err(bad_value("second default gateway", text));
                }
            }
            Ok(found)
        };
        let (gateway4, gateway6) = (gateway(true)?, gateway(false)?);
        let has_v4 = interface.dhcp || !v4.is_empty();
        if (interface.dhcp && !v4.is_empty())
            || (!has_v4 && v6.is_empty())
            || (gateway4.is_some() && v4.is_empty())
            || (gateway6.is_some() && v6.is_empty())
        {
            let what = "interface that can be followed: it needs addresses or dhcp, and gateways of their kind";
            return Err(bad_value(what, name));
        }
        Ok(Self {
            name,
            v4: has_v4.then_some(Wanted { addresses: v4, gateway: gateway4 }),
            v6: (!v6.is_empty()).then_some(Wanted { addresses: v6, gateway: gateway6 }),
            dns: &interface.dns,
            search: &interface.search,
        })
    }

    /// Whether what `value` is of is replaced.
    fn replaces(&self, value: &str) -> bool {
        let address = value.split('/').next().unwrap_or_default().trim();
        match address.parse::<IpAddr>() {
            Ok(IpAddr::V4(_)) => self.v4.is_some(),
            Ok(IpAddr::V6(_)) => self.v6.is_some(),
            Err(_) => false,
        }
    }
}

/// An `ifcfg` file of Red Hat's: keys are taken out and added at its end.
fn ifcfg(text: &str, asked: &Asked<'_>) -> String {
    let is_one = |key: &str, names: &[&str]| names.contains(&key.trim_end_matches(|c: char| c.is_ascii_digit()));
    let kept = text.lines().filter(|line| {
        let key = line.split('=').next().unwrap_or_default().trim();
        let is_v4 = is_one(key, &["BOOTPROTO", "IPADDR", "PREFIX", "NETMASK", "GATEWAY", "BROADCAST", "NETWORK"]);
        // The trailing digit belongs to the name.
        let is_v6 = key.starts_with("IPV6ADDR") || matches!(key, "IPV6INIT" | "IPV6_AUTOCONF" | "IPV6_DEFAULTGW");
        let is_dns = is_one(key, &["DNS"]) && !asked.dns.is_empty() || key == "DOMAIN" && !asked.search.is_empty();
        !(is_v4 && asked.v4.is_some() || is_v6 && asked.v6.is_some() || is_dns)
    });
    let mut lines: Vec<String> = kept.map(str::to_owned).collect();
    if let Some(wanted) = &asked.v4 {
        lines.push(format!("BOOTPROTO={}", if wanted.addresses.is_empty() { "dhcp" } else { "none" }));
        for (number, address) in wanted.addresses.iter().enumerate() {
            let (address, prefix) = address.split_once('/').unwrap_or((address, "32"));
            let number = if number == 0 { String::new() } else { number.to_string() };
            lines.push(format!("IPADDR{number}={address}"));
            lines.push(format!("PREFIX{number}={prefix}"));
        }
        lines.extend(wanted.gateway.iter().map(|gateway| format!("GATEWAY={gateway}")));
    }
    if let Some(wanted) = &asked.v6 {
        lines.extend(["IPV6INIT=yes".to_owned(), "IPV6_AUTOCONF=no".to_owned()]);
        lines.extend(wanted.addresses.first().map(|address| format!("IPV6ADDR={address}")));
        let others: Vec<&str> = wanted.addresses.iter().skip(1).map(String::as_str).collect();
        if !others.is_empty() {
            lines.push(format!("IPV6ADDR_SECONDARIES=\"{}\"", others.join(" ")));
        }
        lines.extend(wanted.gateway.iter().map(|gateway| format!("IPV6_DEFAULTGW={gateway}")));
    }
    lines.extend((1_usize..).zip(asked.dns).map(|(number, server)| format!("DNS{number}={server}")));
    if !asked.search.is_empty() {
        lines.push(format!("DOMAIN=\"{}\"", asked.search.join(" ")));
    }
    joined(&lines)
}

fn joined(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// interfaces(5). `None` for more addresses than one stanza holds.
fn ifupdown(text: &str, asked: &Asked<'_>) -> Option<String> {
    const STANZAS: &[&str] = &["iface", "auto", "mapping", "source", "source-directory", "rename", "template"];
    const KEYS: &[&str] = &["address", "netmask", "broadcast", "network", "gateway"];
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let mut is_first = true;
    for (family, wanted) in [("inet", &asked.v4), ("inet6", &asked.v6)] {
        let Some(wanted) = wanted else { continue };
        if wanted.addresses.len() > 1 {
            return None;
        }
        let method = if wanted.addresses.is_empty() { "dhcp" } else { "static" };
        let header = format!("iface {} {family} {method}", asked.name);
        let mut new = vec![header];
        new.extend(wanted.addresses.iter().map(|address| format!("    address {address}")));
        new.extend(wanted.gateway.iter().map(|gateway| format!("    gateway {gateway}")));
        if is_first && !asked.dns.is_empty() {
            new.push(format!("    dns-nameservers {}", asked.dns.join(" ")));
        }
        if is_first && !asked.search.is_empty() {
            new.push(format!("    dns-search {}", asked.search.join(" ")));
        }
        let replaces_dns = is_first;
        is_first = false;
        let mut out: Vec<String> = Vec::new();
        let (mut inside, mut done) = (false, false);
        for line in &lines {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let word = words.first().copied().unwrap_or_default();
            if STANZAS.contains(&word) || word.starts_with("allow-") || word.starts_with("no-") {
                inside = word == "iface" && words.get(1) == Some(&asked.name) && words.get(2) == Some(&family);
                if inside {
                    // Further stanzas of the same kind had further addresses.
                    out.extend(if done { Vec::new() } else { new.clone() });
                    done = true;
                    continue;
                }
            }
            let is_dns =
                word == "dns-nameservers" && !asked.dns.is_empty() || word == "dns-search" && !asked.search.is_empty();
            if !(inside && (KEYS.contains(&word) || is_dns && replaces_dns)) {
                out.push(line.clone());
            }
        }
        if !done {
            out.append(&mut new);
        }
        lines = out;
    }
    Some(joined(&lines))
}

/// A connection of NetworkManager. `None` for name servers of a version of IP that stays as it is, and has lists of its own.
fn keyfile(text: &str, asked: &Asked<'_>) -> Option<String> {
    let is_homeless = |server: &String| if server.contains(':') { asked.v6.is_none() } else { asked.v4.is_none() };
    if asked.dns.iter().any(is_homeless) {
        return None;
    }
    let mut text = text.to_owned();
    for (section, wanted, is_v4) in [("ipv4", &asked.v4, true), ("ipv6", &asked.v6, false)] {
        let Some(wanted) = wanted else { continue };
        let list = |values: &[String]| values.iter().map(|value| format!("{value};")).collect::<String>();
        let dns: Vec<String> = asked.dns.iter().filter(|server| server.contains(':') != is_v4).cloned().collect();
        let mut new = vec![format!("method={}", if wanted.addresses.is_empty() { "auto" } else { "manual" })];
        for (number, address) in (1_usize..).zip(&wanted.addresses) {
            let gateway = wanted.gateway.as_ref().filter(|_| number == 1);
            new.push(format!("address{number}={address}{}", gateway.map(|it| format!(",{it}")).unwrap_or_default()));
        }
        if !dns.is_empty() {
            new.push(format!("dns={}", list(&dns)));
        }
        if !asked.search.is_empty() {
            new.push(format!("dns-search={}", list(asked.search)));
        }
        let goes = |key: &str, _: &str| {
            let name = key.trim_end_matches(|c: char| c.is_ascii_digit());
            matches!(name, "method" | "address" | "addresses" | "gateway")
                || key == "dns" && !dns.is_empty()
                || key == "dns-search" && !asked.search.is_empty()
        };
        text = with_section(&text, section, &new, goes);
    }
    Some(text)
}

/// A `.network` file of systemd-networkd; `None` where addresses or routes have sections of their own.
fn networkd(text: &str, asked: &Asked<'_>) -> Option<String> {
    if text.lines().any(|line| matches!(line.trim(), "[Address]" | "[Route]")) {
        return None;
    }
    let mut dhcp = None;
    let mut new: Vec<String> = Vec::new();
    for wanted in [&asked.v4, &asked.v6].into_iter().flatten() {
        new.extend(wanted.addresses.iter().map(|address| format!("Address={address}")));
        new.extend(wanted.gateway.iter().map(|gateway| format!("Gateway={gateway}")));
    }
    if let Some(wanted) = &asked.v4 {
        let mut values = text.lines().filter_map(|line| line.trim().strip_prefix("DHCP=")).map(str::trim);
        let has_v6 = matches!(values.next_back(), Some("yes" | "true" | "1" | "both" | "ipv6" | "v6"));
        dhcp = Some(match (wanted.addresses.is_empty(), has_v6) {
            (true, true) => "yes",
            (true, false) => "ipv4",
            (false, true) => "ipv6",
            (false, false) => "no",
        });
    }
    new.extend(dhcp.map(|value| format!("DHCP={value}")));
    new.extend(asked.dns.iter().map(|server| format!("DNS={server}")));
    if !asked.search.is_empty() {
        new.push(format!("Domains={}", asked.search.join(" ")));
    }
    let goes = |key: &str, value: &str| match key {
        "DHCP" => dhcp.is_some(),
        "Address" | "Gateway" => asked.replaces(value),
        "DNS" => !asked.dns.is_empty(),
        "Domains" => !asked.search.is_empty(),
        _ => false,
    };
    Some(with_section(text, "Network", &new, goes))
}

/// `text` with `new` lines at the beginning of a section, and those of its keys taken out that `goes` says.
fn with_section(text: &str, section: &str, new: &[String], goes: impl Fn(&str, &str) -> bool) -> String {
    let header = format!("[{section}]");
    let (mut out, mut inside, mut done) = (Vec::new(), false, false);
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.starts_with('[') {
            inside = trimmed == header;
            out.push(line.to_owned());
            if inside && !std::mem::replace(&mut done, true) {
                out.extend(new.iter().cloned());
            }
            continue;
        }
        let is_one = trimmed.split_once('=').is_some_and(|(key, value)| goes(key.trim(), value.trim()));
        if !(inside && is_one) {
            out.push(line.to_owned());
        }
    }
    if !done {
        out.push(header);
        out.extend(new.iter().cloned());
    }
    joined(&out)
}

#[cfg(test)]
mod tests;
