//! What guards a guest: SELinux, AppArmor, encrypted volumes, Secure Boot, a TPM.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use serde::Serialize;

use super::Reader;
use super::bootloader::{BootEntry, Bootloader, EfiProgram, EfiProgramKind};
use super::os::{bounded, shell_value};
use crate::error::Result;
use crate::inspect::fstab::fields;
use crate::limits;

/// What guards a guest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Security {
    /// SELinux, where it is set up.
    pub selinux: Option<Selinux>,
    /// Whether AppArmor is on, where it is installed.
    pub apparmor: Option<bool>,
    /// The lines of `/etc/crypttab`.
    pub encryption: Vec<Encrypted>,
    /// What is made for Secure Boot.
    pub secure_boot: SecureBoot,
    /// What needs a TPM: the file or command line that says so. Keys that are sealed in one do not move to another machine.
    pub tpm: Vec<String>,
}

/// How SELinux is set up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Selinux {
    /// What the next boot comes to.
    pub mode: SelinuxMode,
    /// `targeted`, `mls` …
    pub policy: Option<String>,
    /// Whether all files get new labels at the next boot.
    pub relabel: bool,
}

/// What SELinux does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum SelinuxMode {
    /// Nothing.
    Disabled,
    /// It refuses what is not allowed.
    Enforcing,
    /// It only tells.
    Permissive,
}

/// A line of crypttab(5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Encrypted {
    /// What the opened volume is called: `/dev/mapper/NAME`.
    pub name: String,
    /// The volume as written.
    pub device: String,
    /// The file with the key; `None` when somebody is asked.
    pub key: Option<String>,
    /// Options, comma-separated.
    pub options: String,
}

/// What is made for Secure Boot. Whether firmware has it on is not on the disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SecureBoot {
    /// Whether shim is there and signed, so that firmware with Microsoft's keys starts it.
    pub shim: bool,
    /// Files with keys of the guest's own, for its kernel or modules.
    pub keys: Vec<String>,
}

/// Where guests keep keys of their own.
const KEYS: &[&str] = &[
    "/var/lib/shim-signed/mok/MOK.der",
    "/var/lib/dkms/mok.pub",
    "/var/lib/sbctl/keys/db/db.key",
    "/usr/share/secureboot/keys/db/db.key",
    "/etc/uefi-keys/db.key",
    "/etc/kernel/secure-boot-private-key.pem",
    "/etc/kernel/secure-boot.key.pem",
];

pub(super) fn find(
    reader: &mut Reader<'_>,
    bootloaders: &[Bootloader],
    entries: &[BootEntry],
    programs: &[EfiProgram],
) -> Result<Security> {
    let command_line = command_line(bootloaders, entries);
    let option = |key: &str| {
        let mut words = command_line.split_ascii_whitespace().filter_map(|word| word.split_once('='));
        words.rfind(|(name, _)| *name == key).map(|(_, value)| value)
    };
    let encryption = crypttab(reader)?;
    let is_shim = |program: &EfiProgram| program.kind == EfiProgramKind::Shim && program.signed;
    let mut keys = Vec::new();
    for path in KEYS {
        if reader.tree.is_file(path)? {
            keys.push((*path).to_owned());
        }
    }
    let mut tpm = Vec::new();
    for volume in encryption.iter().filter(|it| it.options.split(',').any(|option| option.starts_with("tpm2-"))) {
        tpm.push(format!("/etc/crypttab: {}", volume.name));
    }
    if command_line
        .split_ascii_whitespace()
        .any(|word| word.starts_with("rd.luks.options=") && word.contains("tpm2-device"))
    {
        tpm.push("kernel command line: rd.luks.options".to_owned());
    }
    if reader.tree.is_file("/var/lib/systemd/pcrlock.json")? {
        tpm.push("/var/lib/systemd/pcrlock.json".to_owned());
    }
    Ok(Security {
        selinux: selinux(reader, option("selinux"), option("enforcing"))?,
        apparmor: apparmor(reader, option("apparmor"))?,
        encryption,
        secure_boot: SecureBoot { shim: programs.iter().any(is_shim), keys },
        tpm,
    })
}

/// The command line of what boots by default, or of the first entry; GRUB's variables that distributions put there resolved.
fn command_line(bootloaders: &[Bootloader], entries: &[BootEntry]) -> String {
    let Some(entry) = entries.iter().find(|entry| entry.default).or_else(|| entries.first()) else {
        return String::new();
    };
    let variable = |name: &str| bootloaders.iter().find_map(|loader| loader.variables.get(name));
    let words = entry.options.split_ascii_whitespace().map(|word| match word.strip_prefix('$') {
        Some(name) => variable(name.trim_matches(['{', '}'])).map_or("", String::as_str),
        None => word,
    });
    words.collect::<Vec<_>>().join(" ")
}

/// `/etc/selinux/config`, and what the command line says over it.
fn selinux(reader: &mut Reader<'_>, selinux: Option<&str>, enforcing: Option<&str>) -> Result<Option<Selinux>> {
    let Some(text) = reader.text("/etc/selinux/config")? else { return Ok(None) };
    let value = |key: &str| {
        let mut lines = text.lines().filter_map(|line| line.trim().strip_prefix(key)?.trim_start().strip_prefix('='));
        lines.next_back().map(|value| bounded(&shell_value(value)))
    };
    // Without a word about it, libselinux takes it for permissive.
    let configured = match value("SELINUX").unwrap_or_default().to_ascii_lowercase().as_str() {
        "enforcing" => SelinuxMode::Enforcing,
        "disabled" => SelinuxMode::Disabled,
        _ => SelinuxMode::Permissive,
    };
    let mode = match (selinux, enforcing) {
        (Some("0"), _) => SelinuxMode::Disabled,
        _ if configured == SelinuxMode::Disabled => SelinuxMode::Disabled,
        (_, Some("0")) => SelinuxMode::Permissive,
        (_, Some("1")) => SelinuxMode::Enforcing,
        _ => configured,
    };
    let policy = value("SELINUXTYPE").filter(|policy| !policy.is_empty());
    Ok(Some(Selinux { mode, policy, relabel: reader.tree.exists("/.autorelabel")? }))
}

fn apparmor(reader: &mut Reader<'_>, option: Option<&str>) -> Result<Option<bool>> {
    let is_there = reader.tree.is_file("/sbin/apparmor_parser")? || reader.tree.is_file("/usr/sbin/apparmor_parser")?;
    if !is_there || !reader.tree.is_dir("/etc/apparmor.d")? {
        return Ok(None);
    }
    let mask = reader.tree.read_link("/etc/systemd/system/apparmor.service")?;
    Ok(Some(option != Some("0") && mask.is_none_or(|target| target != b"/dev/null")))
}

fn crypttab(reader: &mut Reader<'_>) -> Result<Vec<Encrypted>> {
    let text = reader.text("/etc/crypttab")?.unwrap_or_default();
    let line = |line: &str| {
        let fields = fields(line);
        let mut texts = fields.iter().filter_map(|range| line.get(range.clone())).map(bounded);
        let (name, device) = (texts.next()?, texts.next()?);
        let key = texts.next().filter(|key| !matches!(key.as_str(), "none" | "-"));
        Some(Encrypted { name, device, key, options: texts.next().unwrap_or_default() })
    };
    Ok(text.lines().filter_map(line).take(limits::MAX_CRYPTTAB).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::fs::{MemoryFs, Tree};
    use crate::inspect::linux;

    fn security(files: &[(&str, &str)]) -> Security {
        let fs = MemoryFs::default();
        for (path, text) in files {
            fs.add_file(path, text).unwrap();
        }
        linux(&Tree::new(Arc::new(fs))).unwrap().security
    }

    #[test]
    fn selinux_is_what_file_and_command_line_come_to() {
        use SelinuxMode::{Disabled, Enforcing, Permissive};
        for (config, options, mode) in [
            ("SELINUX=enforcing\nSELINUXTYPE=targeted\n", "ro quiet", Enforcing),
            ("# SELINUX=disabled\n SELINUX = permissive # x\n", "", Permissive),
            ("SELINUX=disabled\n", "selinux=1 enforcing=1", Disabled),
            ("SELINUX=enforcing\n", "selinux=0", Disabled),
            ("SELINUX=enforcing\n", "selinux=1 enforcing=0", Permissive),
            ("SELINUX=permissive\n", "enforcing=1", Enforcing),
            ("SELINUX=enforcing\n", "$kernelopts", Disabled),
            ("", "", Permissive),
        ] {
            let cfg = format!("menuentry x {{\nlinux /v {options}\n}}\n");
            let env = format!("{:#<1024}", "# GRUB Environment Block\nkernelopts=root=/dev/sda1 selinux=0\n");
            let found = security(&[
                ("/etc/selinux/config", config),
                ("/boot/grub2/grub.cfg", &cfg),
                ("/boot/grub2/grubenv", &env),
            ]);
            assert_eq!(found.selinux.unwrap().mode, mode, "{config} {options}");
        }
        let found = security(&[("/etc/selinux/config", "SELINUXTYPE=mls\n"), ("/.autorelabel", "")]).selinux.unwrap();
        assert_eq!((found.policy.as_deref(), found.relabel), (Some("mls"), true));
        assert_eq!(security(&[]), Security::default());
    }

    #[test]
    fn apparmor_is_on_unless_it_is_switched_off() {
        let files = [("/usr/sbin/apparmor_parser", ""), ("/etc/apparmor.d/x", "")];
        assert_eq!(security(&files).apparmor, Some(true));
        assert_eq!(security(&files[..1]).apparmor, None);
        let cfg = ("/boot/grub/grub.cfg", "linux /v apparmor=0\n");
        assert_eq!(security(&[files[0], files[1], cfg]).apparmor, Some(false));
    }

    #[test]
    fn encrypted_volumes_tell_their_keys_and_tpms() {
        let found = security(&[
            (
                "/etc/crypttab",
                "# c\nroot UUID=1 none luks,discard\n\nswap /dev/sda2 /dev/urandom swap\ndata /dev/sdb1 - tpm2-device=auto\nonly\n",
            ),
            ("/var/lib/dkms/mok.pub", ""),
        ]);
        let short: Vec<_> = found.encryption.iter().map(|it| (it.name.as_str(), it.key.as_deref())).collect();
        assert_eq!(short, [("root", None), ("swap", Some("/dev/urandom")), ("data", None)]);
        assert_eq!(found.encryption[0].options, "luks,discard");
        assert_eq!(found.tpm, ["/etc/crypttab: data"]);
        assert_eq!(found.secure_boot.keys, ["/var/lib/dkms/mok.pub"]);
        let sealed = ("/boot/grub/grub.cfg", "linux /v rd.luks.options=UUID=tpm2-device=auto\n");
        assert_eq!(security(&[sealed]).tpm.len(), 1);
    }

    #[test]
    fn as_many_encrypted_volumes_as_the_limit() {
        let limit = limits::MAX_CRYPTTAB;
        for (count, kept) in [(limit - 1, limit - 1), (limit, limit), (limit + 1, limit)] {
            let text: String = (0..count).map(|index| format!("c{index} UUID={index}\n")).collect();
            assert_eq!(security(&[("/etc/crypttab", &text)]).encryption.len(), kept);
        }
    }
}
