//! ifupdown's interfaces(5), with the files that it sources.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::collections::VecDeque;

use super::interface::{Interface, InterfaceKind, Method};
use super::mac_address;
use crate::error::Result;
use crate::inspect::Reader;
use crate::limits;

/// The interfaces of all files. What several stanzas say of one interface is put together.
pub(super) fn read(reader: &mut Reader<'_>) -> Result<Vec<Interface>> {
    let mut queue = VecDeque::from(["/etc/network/interfaces".to_owned()]);
    let mut seen: Vec<String> = Vec::new();
    let mut found = Found::default();
    while let Some(path) = queue.pop_front() {
        if seen.contains(&path) || seen.len() >= limits::MAX_SOURCED_FILES {
            continue;
        }
        let text = reader.text(&path)?.unwrap_or_default();
        let sources = found.read(&text, &path);
        seen.push(path);
        for source in sources {
            queue.extend(expand(reader, &source)?);
        }
    }
    let Found { mut nics, started } = found;
    for nic in &mut nics {
        nic.enabled = nic.name.as_ref().is_some_and(|name| started.contains(name));
        nic.vlan_by_name();
    }
    Ok(nics)
}

/// What was read so far.
#[derive(Default)]
struct Found {
    nics: Vec<Interface>,
    /// The names that are brought up at boot or when the card appears.
    started: Vec<String>,
}

impl Found {
    /// The interface of that name, an alias being what it is an alias of. Loopback and what exceeds the limit are nobody.
    fn interface(&mut self, name: &str, path: &str) -> Option<usize> {
        let name = name.split(':').next().unwrap_or_default();
        if name.is_empty() || name == "lo" {
            return None;
        }
        if let Some(index) = self.nics.iter().position(|nic| nic.name.as_deref() == Some(name)) {
            return Some(index);
        }
        if self.nics.len() > limits::MAX_NICS {
            return None;
        }
        self.nics.push(Interface::new("ifupdown", path).named(name));
        self.nics.len().checked_sub(1)
    }

    /// Reads one file, and gives what it sources.
    fn read(&mut self, text: &str, path: &str) -> Vec<Source> {
        let mut sources = Vec::new();
        let mut current: Option<usize> = None;
        let mut address: Option<(String, Option<String>)> = None;
        for line in logical_lines(text).into_iter().chain([String::from("end")]) {
            let (key, rest) = line.trim().split_once([' ', '\t']).unwrap_or((line.trim(), ""));
            let rest = rest.trim();
            let is_stanza = matches!(key, "iface" | "mapping" | "auto" | "end")
                || ["allow-", "source", "no-auto-down", "no-scripts"].iter().any(|start| key.starts_with(start));
            if is_stanza {
                if let (Some((address, mask)), Some(nic)) = (address.take(), self.open(current)) {
                    nic.add_address(&address, mask.as_deref());
                }
                current = None;
            }
            match key {
                "iface" => current = self.stanza(rest, path),
                "source" => sources.extend(rest.split_ascii_whitespace().map(|word| Source::Files(word.to_owned()))),
                "source-directory" => {
                    sources.extend(rest.split_ascii_whitespace().map(|word| Source::Directory(word.to_owned())));
                }
                "auto" | "allow-auto" | "allow-hotplug" => {
                    let names = rest.split_ascii_whitespace().take(limits::MAX_NICS);
                    self.started.extend(names.map(|name| name.split(':').next().unwrap_or_default().to_owned()));
                }
                "address" => address = Some((rest.to_owned(), address.and_then(|(_, mask)| mask))),
                "netmask" => {
                    let (own, _) = address.unwrap_or_default();
                    address = Some((own, Some(rest.to_owned())));
                }
                _ => {
                    if let Some(nic) = self.open(current) {
                        option(nic, key, rest);
                    }
                }
            }
        }
        sources
    }

    fn open(&mut self, current: Option<usize>) -> Option<&mut Interface> {
        current.and_then(|index| self.nics.get_mut(index))
    }

    /// `iface NAME FAMILY METHOD`.
    fn stanza(&mut self, rest: &str, path: &str) -> Option<usize> {
        let mut words = rest.split_ascii_whitespace();
        let (name, family, method) = (words.next()?, words.next(), words.next());
        let index = self.interface(name, path)?;
        let nic = self.nics.get_mut(index)?;
        let method = match method {
            Some("dhcp" | "bootp") => Method::Dhcp,
            Some("static") => Method::Static,
            Some("auto") => Method::Auto,
            Some("manual") => Method::Disabled,
            Some(_) => Method::Other,
            None => Method::Unset,
        };
        let of_family = if family == Some("inet6") { &mut nic.ipv6 } else { &mut nic.ipv4 };
        if matches!(*of_family, Method::Unset | Method::Disabled) {
            *of_family = method;
        }
        Some(index)
    }
}

/// A line inside a stanza. Options of packages are written with a dash or an underscore.
fn option(nic: &mut Interface, key: &str, rest: &str) {
    match key.replace('_', "-").as_str() {
        "gateway" => nic.add_gateways(rest),
        "dns-nameservers" | "dns-nameserver" => nic.add_dns(rest),
        "dns-search" | "dns-domain" => nic.add_search(rest),
        "mtu" => nic.mtu = rest.parse().ok(),
        "hwaddress" => {
            let mac = rest.split_ascii_whitespace().filter(|word| *word != "ether").find_map(mac_address);
            nic.mac = nic.mac.take().or(mac);
        }
        "bridge-ports" => {
            nic.kind = InterfaceKind::Bridge;
            nic.add_members(rest);
        }
        "slaves" | "bond-slaves" => {
            nic.kind = InterfaceKind::Bond;
            nic.add_members(rest);
        }
        "bond-mode" => nic.kind = InterfaceKind::Bond,
        "vlan-raw-device" => {
            nic.kind = InterfaceKind::Vlan;
            nic.parent = Some(crate::inspect::os::bounded(rest));
        }
        "vlan-id" => nic.vlan = rest.parse().ok(),
        _ => {}
    }
}

/// Files that an interfaces(5) file includes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    /// All files of a directory with plain names.
    Directory(String),
    /// A path whose last name may hold `*`.
    Files(String),
}

fn expand(reader: &mut Reader<'_>, source: &Source) -> Result<Vec<String>> {
    let absolute = |path: &str| if path.starts_with('/') { path.to_owned() } else { format!("/etc/network/{path}") };
    match source {
        Source::Directory(dir) => {
            let dir = absolute(dir.trim_end_matches('/'));
            let is_plain = |path: &String| {
                let name = path.rsplit('/').next().unwrap_or_default();
                name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
            };
            Ok(reader.files(&dir, "")?.into_iter().filter(is_plain).collect())
        }
        Source::Files(pattern) => {
            let pattern = absolute(pattern);
            let Some((dir, name)) = pattern.rsplit_once('/') else { return Ok(Vec::new()) };
            match name.split_once('*') {
                None => Ok(vec![pattern]),
                Some((start, end)) => {
                    let matches = |path: &String| {
                        path.rsplit('/').next().is_some_and(|name| {
                            name.strip_prefix(start).is_some_and(|rest| rest.ends_with(end.trim_start_matches('*')))
                        })
                    };
                    Ok(reader.files(dir, "")?.into_iter().filter(matches).collect())
                }
            }
        }
    }
}

/// Lines with continuations joined; comments and blank lines left out.
fn logical_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut open: Option<String> = None;
    for line in text.lines() {
        if open.is_none() && line.trim_start().starts_with('#') {
            continue;
        }
        let mut joined = open.take().unwrap_or_default();
        match line.strip_suffix('\\') {
            Some(start) => {
                joined.push_str(start);
                joined.push(' ');
                open = Some(joined);
            }
            None => {
                joined.push_str(line);
                lines.push(joined);
            }
        }
    }
    lines.extend(open);
    lines
}
