//! What the hive `SYSTEM` tells.

use std::io::Read;

use super::{Reader, Windows, bounded, bounded_list, drives, firewall, network, power, resolve, services, text};
use crate::disk::bytes::{is_at, le16, le32, size};
use crate::error::{Error, Kind, Result};
use crate::fs::tree::cause;
use crate::hive::{Hive, Key};
use crate::inspect::machine::Machine;

pub(super) fn read(reader: &mut Reader<'_>, hive: &Hive, machine: &Machine, facts: &mut Windows) -> Result<()> {
    facts.drives = reader.part("the drive letters", drives::read(hive, machine))?;
    let Some((name, set)) = reader.part("the control set", control_set(hive))? else {
        reader.notes.push("the hive SYSTEM names no control set that it has".to_owned());
        return Ok(());
    };
    facts.control_set = Some(name);
    let names = reader.part("the host name", names(&set))?;
    (facts.hostname, facts.domain) = names;
    (facts.time_zone, facts.universal_clock) = reader.part("the time zone", time_zone(&set))?;
    (facts.firmware, facts.secure_boot) = reader.part("the firmware", firmware(&set))?;
    facts.tpm = reader.part("the TPM", tpm(&set))?;
    facts.adapters = reader.part("the network adapters", network::read(&set))?;
    facts.services = reader.part("the services", services::read(&set))?;
    facts.firewall = reader.part("the firewall", firewall::read(&set))?;
    facts.environment = reader.part("the environment", environment(&set))?;
    facts.power = reader.part("the power settings", power::read(&set))?;
    Ok(())
}

/// The control set that `Select\Current` names, which is `CurrentControlSet` when Windows runs.
fn control_set(hive: &Hive) -> Result<Option<(String, Key<'_>)>> {
    let Some(select) = hive.key("Select")? else { return Ok(None) };
    let Some(number) = select.number("Current")? else { return Ok(None) };
    let name = format!("ControlSet{number:03}");
    Ok(hive.key(&name)?.map(|key| (name, key)))
}

/// The key that a path of names leads to from `key`.
pub(super) fn below<'a>(key: &Key<'a>, path: &str) -> Result<Option<Key<'a>>> {
    let mut at = key.clone();
    for name in path.split('\\') {
        match at.subkey(name)? {
            Some(found) => at = found,
            None => return Ok(None),
        }
    }
    Ok(Some(at))
}

fn names(set: &Key<'_>) -> Result<(Option<String>, Option<String>)> {
    let (mut host, mut domain) = (None, None);
    if let Some(key) = below(set, "Services\\Tcpip\\Parameters")? {
        // A host name that is set for the next start is `NV Hostname`; the current one is what it was last.
        host = text(&key, "Hostname")?.or(text(&key, "NV Hostname")?);
        domain = text(&key, "Domain")?.or(text(&key, "NV Domain")?);
    }
    if host.is_none()
        && let Some(key) = below(set, "Control\\ComputerName\\ComputerName")?
    {
        host = text(&key, "ComputerName")?;
    }
    Ok((host, domain))
}

fn time_zone(set: &Key<'_>) -> Result<(Option<String>, bool)> {
    let Some(key) = below(set, "Control\\TimeZoneInformation")? else { return Ok((None, false)) };
    let name = text(&key, "TimeZoneKeyName")?.or(text(&key, "StandardName")?);
    Ok((name, key.number("RealTimeIsUniversal")? == Some(1)))
}

fn firmware(set: &Key<'_>) -> Result<(Option<&'static str>, Option<bool>)> {
    let kind = match below(set, "Control")? {
        Some(key) => key.number("PEFirmwareType")?,
        None => None,
    };
    let secure = match below(set, "Control\\SecureBoot\\State")? {
        Some(key) => key.number("UEFISecureBootEnabled")?.map(|number| number != 0),
        None => None,
    };
    let name = match kind {
        Some(1) => Some("bios"),
        Some(2) => Some("uefi"),
        _ => None,
    };
    Ok((name, secure))
}

/// By the devices of the firmware that it has a driver for: those keep their keys.
fn tpm(set: &Key<'_>) -> Result<Option<&'static str>> {
    for (device, version) in [("MSFT0101", "2.0"), ("PNP0C31", "1.2")] {
        if below(set, &format!("Enum\\ACPI\\{device}"))?.is_some() {
            return Ok(Some(version));
        }
    }
    Ok(None)
}

fn environment(set: &Key<'_>) -> Result<Vec<(String, String)>> {
    let Some(key) = below(set, "Control\\Session Manager\\Environment")? else { return Ok(Vec::new()) };
    bounded_list(key.values()?.map(|value| {
        let value = value?;
        Ok((bounded(value.name().to_owned()), bounded(value.data()?.text().unwrap_or_default())))
    }))
}

/// By the header of a program; where none can be read, as the environment says it.
pub(super) fn arch(reader: &mut Reader<'_>, facts: &Windows) -> Result<Option<String>> {
    for program in ["System32/cmd.exe", "System32/ntoskrnl.exe", "explorer.exe"] {
        let Some(path) = resolve(reader.tree, &format!("{}/{program}", facts.system_root))? else { continue };
        // Programs may be stored in ways that the driver does not read.
        let machine = match program_machine(reader, &path) {
            Err(error) if matches!(error.kind(), Kind::Corrupt | Kind::Limit | Kind::Unsupported) => continue,
            other => other?,
        };
        let name = match machine {
            Some(0x8664) => "x86_64",
            Some(0x014c) => "i686",
            Some(0xaa64) => "aarch64",
            Some(0x01c4) => "armv7l",
            Some(0x0200) => "ia64",
            _ => continue,
        };
        return Ok(Some(name.to_owned()));
    }
    let named = facts.environment.iter().find(|(name, _)| name.eq_ignore_ascii_case("PROCESSOR_ARCHITECTURE"));
    Ok(named.and_then(|(_, value)| match value.to_ascii_uppercase().as_str() {
        "AMD64" => Some("x86_64".to_owned()),
        "X86" => Some("i686".to_owned()),
        "ARM64" => Some("aarch64".to_owned()),
        "IA64" => Some("ia64".to_owned()),
        _ => None,
    }))
}

/// `Machine` of a program's COFF header.
fn program_machine(reader: &Reader<'_>, path: &str) -> Result<Option<u16>> {
    const HEAD: u64 = 4096;
    let Some(file) = reader.tree.open(path)? else { return Ok(None) };
    let mut head = Vec::new();
    file.take(HEAD)
        .read_to_end(&mut head)
        .map_err(|error| cause(error, |error| Error::unreadable("reading a program", error)))?;
    let header = size(u64::from(le32(&head, 0x3c)));
    let is_program = is_at(&head, 0, b"MZ") && is_at(&head, header, b"PE\0\0");
    Ok(is_program.then(|| le16(&head, header.saturating_add(4))))
}
