//! A VMware machine's configuration (`.vmx`): which disks it has and what it runs on.
//!
//! Lines of `key = "value"`. Keys do not depend on case; `|22` stands for the byte 22 in hexadecimal. What is not present is left
//! out, as VMware does: a device counts only if its `present` is true.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::collections::BTreeMap;

use super::ovf::{Bus, Controller, Delivery, Firmware, Nic, Ovf, OvfDisk};
use crate::error::{Error, Result, escape_bytes};
use crate::limits;

/// Controllers of each bus and addresses on one of them, in the order in which the firmware looks for disks.
const BUSES: [(&str, Bus, u32, u32); 4] =
    [("scsi", Bus::Scsi, 4, 65), ("sata", Bus::Sata, 4, 30), ("ide", Bus::Ide, 2, 2), ("nvme", Bus::Nvme, 4, 64)];

/// Whether `head`, the first bytes of a file, begins like a configuration.
#[must_use]
pub fn probe(head: &[u8]) -> bool {
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    let head = head.get(..head.len().min(16 << 10)).unwrap_or_default();
    if head.contains(&0) {
        return false;
    }
    head.split(|byte| *byte == b'\n').any(|line| {
        let key = line.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii();
        key.eq_ignore_ascii_case(b"virtualHW.version") || key.eq_ignore_ascii_case(b"config.version")
    })
}

/// The machine that a configuration describes.
///
/// # Errors
/// `vmx.syntax` for a line that is none or a key with two values, `vmx.encrypted` for a configuration that is encrypted.
pub fn parse(bytes: &[u8]) -> Result<Ovf> {
    let settings = Settings::parse(bytes)?;
    if settings.keys.keys().any(|key| key == "encryption.keysafe" || key == "encryption.data") {
        return Err(Error::unsupported("vmx.encrypted", "the machine is encrypted")
            .hint("remove the encryption in VMware, or export the machine as OVF"));
    }
    let mut machine = Ovf {
        name: settings.owned("displayname").unwrap_or_default(),
        os_type: settings.owned("guestos"),
        cpus: Some(settings.number("numvcpus").unwrap_or(1)),
        cores_per_socket: settings.number("cpuid.corespersocket"),
        memory: settings.number("memsize").and_then(|mib: u64| mib.checked_mul(1 << 20)),
        firmware: match settings.get("firmware") {
            Some(firmware) if firmware.eq_ignore_ascii_case("efi") => Firmware::Uefi,
            _ => Firmware::Bios,
        },
        secure_boot: settings.is_true("uefi.secureboot.enabled"),
        hardware: settings.get("virtualhw.version").map(|version| format!("vmx-{version}")),
        ..Ovf::default()
    };
    for (name, bus, controllers, addresses) in BUSES {
        for number in 0..controllers {
            settings.controller(&mut machine, (name, bus, number), addresses)?;
        }
    }
    settings.nics(&mut machine);
    Ok(machine)
}

/// The settings, by their keys in lower case.
#[derive(Debug, Default)]
struct Settings {
    keys: BTreeMap<String, String>,
}

impl Settings {
    fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > limits::MAX_VMX {
            return Err(Error::limit("vmx.syntax", "the configuration is too large")
                .expected(format!("at most {} bytes", limits::MAX_VMX))
                .found(bytes.len()));
        }
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let mut raw: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for line in bytes.split(|byte| matches!(byte, b'\n' | b'\r')).map(<[u8]>::trim_ascii) {
            // A line that begins with `#!` names the program, as in a script.
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let (key, value) = setting(line).ok_or_else(|| {
                Error::corrupt("vmx.syntax", "a line is malformed")
                    .expected("KEY = \"VALUE\"")
                    .found(escape_bytes(line))
            })?;
            match raw.get(&key) {
                Some(known) if *known != value => {
                    return Err(Error::corrupt("vmx.syntax", "a key has two values").found(key));
                }
                Some(_) => {}
                None => _ = raw.insert(key, value),
            }
        }
        let latin = raw.get(".encoding").is_some_and(|name| {
            let name = name.to_ascii_lowercase();
            name.starts_with(b"windows-125") || name.starts_with(b"iso-8859-1")
        });
        let keys = raw.into_iter().map(|(key, value)| (key, text(value, latin))).collect();
        Ok(Self { keys })
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.keys.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn owned(&self, key: &str) -> Option<String> {
        self.get(key).map(str::to_owned)
    }

    fn number<T: std::str::FromStr>(&self, key: &str) -> Option<T> {
        self.get(key)?.trim().parse().ok()
    }

    fn is_true(&self, key: &str) -> bool {
        self.get(key).is_some_and(|value| value.eq_ignore_ascii_case("true") || value == "1")
    }

    /// A controller that is present, with its disks.
    fn controller(&self, machine: &mut Ovf, (name, bus, number): (&str, Bus, u32), addresses: u32) -> Result<()> {
        let id = format!("{name}{number}");
        // VMware always has both IDE channels and says nothing of them.
        if bus != Bus::Ide && !self.is_true(&format!("{id}.present")) {
            return Ok(());
        }
        let place = machine.controllers.len();
        let model = self.owned(&format!("{id}.virtualdev"));
        let mut disks = Vec::new();
        for address in 0..addresses {
            let slot = format!("{id}:{address}");
            if let Some(href) = self.disk(&slot, &mut machine.notes)? {
                disks.push(OvfDisk {
                    id: slot,
                    label: None,
                    href: Some(href),
                    delivery: Delivery::default(),
                    capacity: None,
                    format: None,
                    attached: Some((bus, place, address)),
                });
            }
        }
        if bus != Bus::Ide || !disks.is_empty() {
            machine.controllers.push(Controller { id, bus, model, address: Some(number) });
        }
        machine.disks.extend(disks);
        Ok(())
    }

    /// The file of the disk at `slot`, if there is a disk.
    fn disk(&self, slot: &str, notes: &mut Vec<String>) -> Result<Option<String>> {
        if !self.is_true(&format!("{slot}.present")) {
            return Ok(None);
        }
        let kind = self.get(&format!("{slot}.devicetype")).unwrap_or("disk").to_ascii_lowercase();
        if kind.contains("cdrom") {
            return Ok(None);
        }
        if !matches!(kind.as_str(), "disk" | "scsi-harddisk" | "ata-harddisk") {
            return Err(Error::unsupported("vmx.device", "a disk of the machine is a device of its host")
                .at(slot)
                .found(kind)
                .hint("leave it out in VMware, or copy its content to a disk of its own"));
        }
        let file = self.owned(&format!("{slot}.filename"));
        if file.is_none() {
            notes.push(format!("{slot} has no file and is left out"));
        }
        Ok(file)
    }

    fn nics(&self, machine: &mut Ovf) {
        for number in 0..limits::MAX_VMX_NICS {
            let card = format!("ethernet{number}");
            if !self.is_true(&format!("{card}.present")) {
                continue;
            }
            let fixed =
                self.get(&format!("{card}.addresstype")).is_some_and(|kind| kind.eq_ignore_ascii_case("static"));
            let (first, second) = if fixed { ("address", "generatedaddress") } else { ("generatedaddress", "address") };
            let address = self.get(&format!("{card}.{first}")).or_else(|| self.get(&format!("{card}.{second}")));
            let network = self.owned(&format!("{card}.networkname"));
            machine.nics.push(Nic {
                label: Some(card.clone()),
                model: self.owned(&format!("{card}.virtualdev")),
                network: network.or_else(|| self.owned(&format!("{card}.connectiontype"))),
                mac: address.map(str::to_ascii_lowercase),
            });
        }
    }
}

/// Key and value of a line; the value with its escapes undone.
fn setting(line: &[u8]) -> Option<(String, Vec<u8>)> {
    let equals = line.iter().position(|byte| *byte == b'=')?;
    let (key, value) = line.split_at_checked(equals)?;
    let key = std::str::from_utf8(key.trim_ascii()).ok().filter(|key| !key.is_empty())?.to_ascii_lowercase();
    let value = value.get(1..)?.trim_ascii();
    let value = match value.strip_prefix(b"\"") {
        None if value.contains(&b'"') => return None,
        None => value,
        Some(rest) => {
            let end = rest.iter().position(|byte| *byte == b'"')?;
            let (inside, behind) = rest.split_at_checked(end)?;
            let behind = behind.get(1..)?.trim_ascii();
            if !behind.is_empty() && !behind.starts_with(b"#") {
                return None;
            }
            inside
        }
    };
    Some((key, unescape(value)))
}

/// Undoes `|XX`; what is no such escape stays as it is.
fn unescape(value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((first, after)) = rest.split_first() {
        let escaped = match (first, after) {
            (b'|', [high, low, ..]) => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16);
                digit(high).zip(digit(low)).and_then(|(high, low)| u8::try_from((high << 4) | low).ok())
            }
            _ => None,
        };
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    bytes
}

/// A value as text. Western encodings are told by `.encoding`; of others, what is not UTF-8 is replaced.
fn text(value: Vec<u8>, latin: bool) -> String {
    match String::from_utf8(value) {
        Ok(text) => text,
        Err(error) if latin => error.as_bytes().iter().map(|byte| char::from(*byte)).collect(),
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "tests build their input")]
mod tests {
    use super::*;

    const GOOD: &str = r#"#!/usr/bin/vmware
.encoding = "UTF-8"
config.version = "8"
virtualHW.version = "19"
displayName = "web |22one|22"
guestOS = "debian11-64"
firmware = "efi"
uefi.secureBoot.enabled = "TRUE"
memsize = "2048"
numvcpus = "4"
cpuid.coresPerSocket = "2"
sata0.present = "TRUE"
sata0:1.present = "TRUE"
sata0:1.deviceType = "cdrom-image"
sata0:1.fileName = "debian.iso"
sata0:0.present = "TRUE"
sata0:0.fileName = "data.vmdk"
SCSI0.present = "true"
scsi0.virtualDev = "pvscsi"
scsi0:1.present = "TRUE"
scsi0:1.fileName = "second.vmdk"
scsi0:0.present = "TRUE"
scsi0:0.deviceType = "scsi-hardDisk"
scsi0:0.fileName = "web-000001.vmdk"
scsi0:2.present = "FALSE"
scsi0:2.fileName = "gone.vmdk"
scsi1:0.present = "TRUE"
scsi1:0.fileName = "no controller.vmdk"
ethernet0.present = "TRUE"
ethernet0.virtualDev = "vmxnet3"
ethernet0.networkName = "VM Network"
ethernet0.addressType = "vpx"
ethernet0.generatedAddress = "00:50:56:AB:CD:01"
ethernet1.present = "TRUE"
ethernet1.connectionType = "nat"
ethernet1.addressType = "static"
ethernet1.address = "00:50:56:00:00:02"
ethernet1.generatedAddress = "00:0c:29:00:00:03"
"#;

    fn good() -> Ovf {
        parse(GOOD.as_bytes()).unwrap()
    }

    #[test]
    fn a_good_configuration_parses() {
        let machine = good();
        assert_eq!((machine.name.as_str(), machine.os_type.as_deref()), ("web \"one\"", Some("debian11-64")));
        assert_eq!((machine.cpus, machine.cores_per_socket, machine.memory), (Some(4), Some(2), Some(2 << 30)));
        assert_eq!((machine.firmware, machine.secure_boot), (Firmware::Uefi, true));
        assert_eq!(machine.hardware.as_deref(), Some("vmx-19"));
        let nics: Vec<_> =
            machine.nics.iter().map(|n| (n.model.as_deref(), n.network.as_deref(), n.mac.as_deref())).collect();
        assert_eq!(
            nics,
            [
                (Some("vmxnet3"), Some("VM Network"), Some("00:50:56:ab:cd:01")),
                (None, Some("nat"), Some("00:50:56:00:00:02")),
            ]
        );
    }

    #[test]
    fn disks_come_in_the_order_of_their_controllers() {
        let machine = good();
        let disks: Vec<_> = machine.disks.iter().map(|d| (d.id.as_str(), d.href.as_deref(), d.attached)).collect();
        assert_eq!(
            disks,
            [
                ("scsi0:0", Some("web-000001.vmdk"), Some((Bus::Scsi, 0, 0))),
                ("scsi0:1", Some("second.vmdk"), Some((Bus::Scsi, 0, 1))),
                ("sata0:0", Some("data.vmdk"), Some((Bus::Sata, 1, 0))),
            ]
        );
        let models: Vec<_> = machine.controllers.iter().map(|c| (c.id.as_str(), c.model.as_deref())).collect();
        assert_eq!(models, [("scsi0", Some("pvscsi")), ("sata0", None)]);
    }

    #[test]
    fn ide_channels_need_not_be_told() {
        let machine = parse(b"ide1:0.present=TRUE\nide1:0.fileName = \"a.vmdk\"\r\nconfig.version = \"8\"").unwrap();
        assert_eq!(machine.disks[0].attached, Some((Bus::Ide, 0, 0)));
        assert_eq!((machine.firmware, machine.cpus, machine.memory), (Firmware::Bios, Some(1), None));
    }

    #[test]
    fn encodings_are_told_apart() {
        let name = |encoding: &str, value: &[u8]| {
            let head = format!(".encoding = \"{encoding}\"\ndisplayName = \"").into_bytes();
            parse(&[&head, value, b"\"\n"].concat()).unwrap().name
        };
        assert_eq!(name("UTF-8", "é".as_bytes()), "é");
        assert_eq!(name("windows-1252", b"\xe9"), "é");
        assert_eq!(name("GBK", b"\xc4\xe3"), "\u{fffd}\u{fffd}");
    }

    #[test]
    fn a_configuration_is_recognised() {
        assert!(probe(GOOD.as_bytes()));
        assert!(probe(b"\xef\xbb\xbfVIRTUALHW.VERSION=\"4\""));
        assert!(!probe(b"# Disk DescriptorFile\nversion=1\n"));
        assert!(!probe(b"config.version = \"8\"\n\0"));
        assert!(!probe(b""));
    }

    #[test]
    fn hostile_configurations_are_refused() {
        let with = |line: &str| [GOOD, line].concat();
        let cases: Vec<(&str, String, &str)> = vec![
            ("no equals sign", with("garbage"), "vmx.syntax"),
            ("no key", with("= \"1\""), "vmx.syntax"),
            ("open quote", with("a = \"1"), "vmx.syntax"),
            ("text behind the quote", with("a = \"1\" b"), "vmx.syntax"),
            ("quote inside", with("a = 1\"2"), "vmx.syntax"),
            ("two disks in one slot", with("scsi0:0.fileName = \"other.vmdk\""), "vmx.syntax"),
            ("the same in capitals", with("SCSI0:0.FILENAME = \"other.vmdk\""), "vmx.syntax"),
            ("encrypted", with("encryption.keySafe = \"vmware:key/list\""), "vmx.encrypted"),
            ("encrypted data", with("encryption.data = \"x\""), "vmx.encrypted"),
            ("a device of the host", with("scsi0:3.present=1\nscsi0:3.deviceType = \"rawDisk\""), "vmx.device"),
            (
                "a passed-through device",
                with("scsi0:3.present=1\nscsi0:3.deviceType = \"scsi-passthru\""),
                "vmx.device",
            ),
            ("too large", with(&" ".repeat(limits::MAX_VMX)), "vmx.syntax"),
        ];
        for (name, text, code) in cases {
            assert_eq!(parse(text.as_bytes()).unwrap_err().code(), code, "{name}");
        }
    }

    #[test]
    fn odd_values_do_no_harm() {
        for line in
            ["memsize = \"18446744073709551615\"", "numvcpus = \"-1\"", "memsize = \"x\"", "scsi0:5.present = \"TRUE\""]
        {
            let text = GOOD.replace("memsize = \"2048\"\n", "").replace("numvcpus = \"4\"\n", "");
            let machine = parse([text.as_str(), line].concat().as_bytes()).unwrap();
            assert_eq!((machine.disks.len(), machine.memory), (3, None), "{line}");
        }
        assert_eq!(unescape(b"a|22|7|zz|"), b"a\"|7|zz|");
    }

    #[test]
    fn bounds_hold() {
        let sized = |len: usize| parse(&vec![b'\n'; len]);
        assert!(sized(limits::MAX_VMX - 1).is_ok() && sized(limits::MAX_VMX).is_ok());
        assert_eq!(sized(limits::MAX_VMX + 1).unwrap_err().code(), "vmx.syntax");
        let card = |number: usize| format!("ethernet{number}.present = \"TRUE\"\n");
        let cards: String = (0..limits::MAX_VMX_NICS + 2).map(card).collect();
        assert_eq!(parse(cards.as_bytes()).unwrap().nics.len(), limits::MAX_VMX_NICS);
    }

    #[test]
    fn every_truncation_ends() {
        for len in 0..GOOD.len() {
            let _ = parse(&GOOD.as_bytes()[..len]);
        }
    }
}
