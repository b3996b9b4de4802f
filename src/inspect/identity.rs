//! Where a system thinks it is: machine id, locale, keyboard, time zone, and what cloud-init makes of it.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::Reader;
use super::os::{bounded, shell_value};
use crate::error::Result;

/// What a system is told about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Identity {
    /// machine-id(5): 32 hexadecimal digits. `None` where the next start makes a new one.
    pub machine_id: Option<String>,
    /// machine-info(5): the host name for people, `PRETTY_HOSTNAME`.
    pub pretty_hostname: Option<String>,
    /// Its `CHASSIS`: `vm`, `server` …
    pub chassis: Option<String>,
    /// Its `DEPLOYMENT`: `production` …
    pub deployment: Option<String>,
    /// The time zone's name: `Europe/Berlin`.
    pub time_zone: Option<String>,
    /// Whether the hardware clock keeps local time, where that is said (adjtime(5)).
    pub local_clock: Option<bool>,
    /// `LANG`, `LC_TIME` … of locale.conf(5) or `/etc/default/locale`.
    pub locale: BTreeMap<String, String>,
    /// The keyboard of the console: `KEYMAP` of vconsole.conf(5).
    pub keymap: Option<String>,
    /// The keyboard's layout for X: `XKBLAYOUT`.
    pub keyboard: Option<String>,
    /// cloud-init, where it is installed.
    pub cloud_init: Option<CloudInit>,
}

/// What cloud-init will do at the next start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CloudInit {
    /// The file that switches it off.
    pub disabled_by: Option<String>,
    /// Where it looks for data, in order: `NoCloud`, `VMware` …; empty where that is left to it.
    pub datasources: Vec<String>,
    /// The instance that it took this one for.
    pub instance_id: Option<String>,
    /// The file that tells it to leave the network alone.
    pub network_disabled_by: Option<String>,
}

/// Values of each file that are kept.
const MOST: usize = 64;

pub(super) fn read(reader: &mut Reader<'_>) -> Result<Identity> {
    let machine_id = reader.text("/etc/machine-id")?.unwrap_or_default().trim().to_owned();
    let is_id = machine_id.len() == 32 && machine_id.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mut info = assignments(reader, &["/etc/machine-info"])?;
    let mut locale = assignments(reader, &["/etc/locale.conf", "/etc/default/locale", "/etc/sysconfig/i18n"])?;
    locale.retain(|key, _| key == "LANG" || key == "LANGUAGE" || key.starts_with("LC_"));
    let mut console = assignments(reader, &["/etc/vconsole.conf", "/etc/sysconfig/keyboard"])?;
    let mut keyboard = assignments(reader, &["/etc/default/keyboard"])?;
    Ok(Identity {
        machine_id: Some(machine_id).filter(|_| is_id),
        pretty_hostname: info.remove("PRETTY_HOSTNAME"),
        chassis: info.remove("CHASSIS"),
        deployment: info.remove("DEPLOYMENT"),
        time_zone: time_zone(reader)?,
        local_clock: local_clock(reader)?,
        locale,
        keymap: console.remove("KEYMAP").or_else(|| console.remove("KEYTABLE")),
        keyboard: keyboard.remove("XKBLAYOUT").or_else(|| console.remove("XKBLAYOUT")),
        cloud_init: cloud_init(reader)?,
    })
}

/// The assignments of the first of some files that has any.
fn assignments(reader: &mut Reader<'_>, paths: &[&str]) -> Result<BTreeMap<String, String>> {
    for path in paths {
        let text = reader.text(path)?.unwrap_or_default();
        let lines = text.lines().filter_map(|line| line.trim().split_once('='));
        let values = lines.map(|(key, value)| (bounded(key.trim()), bounded(&shell_value(value))));
        let values: BTreeMap<_, _> = values.filter(|(_, value)| !value.is_empty()).take(MOST).collect();
        if !values.is_empty() {
            return Ok(values);
        }
    }
    Ok(BTreeMap::new())
}

fn time_zone(reader: &mut Reader<'_>) -> Result<Option<String>> {
    let link = reader.tree.read_link("/etc/localtime")?.unwrap_or_default();
    if let Some((_, zone)) = String::from_utf8_lossy(&link).split_once("/zoneinfo/") {
        return Ok(Some(bounded(zone)));
    }
    let text = reader.text("/etc/timezone")?.unwrap_or_default();
    if let Some(zone) = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#')) {
        return Ok(Some(bounded(zone)));
    }
    let mut clock = assignments(reader, &["/etc/sysconfig/clock"])?;
    Ok(clock.remove("ZONE").or_else(|| clock.remove("TIMEZONE")))
}

/// The third line of adjtime(5).
fn local_clock(reader: &mut Reader<'_>) -> Result<Option<bool>> {
    let text = reader.text("/etc/adjtime")?.unwrap_or_default();
    Ok(match text.lines().nth(2).map(str::trim) {
        Some("LOCAL") => Some(true),
        Some("UTC") => Some(false),
        _ => None,
    })
}

fn cloud_init(reader: &mut Reader<'_>) -> Result<Option<CloudInit>> {
    let (config, off) = ("/etc/cloud/cloud.cfg", "/etc/cloud/cloud-init.disabled");
    if !reader.tree.is_file(config)? && !reader.tree.is_file("/usr/bin/cloud-init")? {
        return Ok(None);
    }
    let mut found = CloudInit {
        disabled_by: reader.tree.exists(off)?.then(|| off.to_owned()),
        instance_id: reader.text("/var/lib/cloud/data/instance-id")?.map(|id| bounded(id.trim())),
        ..CloudInit::default()
    };
    let more = reader.files("/etc/cloud/cloud.cfg.d", ".cfg")?;
    for path in std::iter::once(config.to_owned()).chain(more) {
        let text = reader.text(&path)?.unwrap_or_default();
        let options = serde_saphyr::options! { duplicate_keys: serde_saphyr::DuplicateKeyPolicy::LastWins };
        let Ok(value) = serde_saphyr::from_str_with_options::<Value>(&text, options) else {
            reader.notes.push(format!("{path} is ignored, since it is no YAML"));
            continue;
        };
        if let Some(names) = value.get("datasource_list").and_then(Value::as_array) {
            found.datasources = names.iter().filter_map(Value::as_str).take(MOST).map(bounded).collect();
        }
        if let Some(network) = value.get("network") {
            let disabled = network.get("config").and_then(Value::as_str) == Some("disabled");
            found.network_disabled_by = disabled.then_some(path);
        }
    }
    Ok(Some(found))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::fs::{MemoryFs, Tree};

    fn told(files: &[(&str, &str)], links: &[(&str, &str)]) -> (Identity, Vec<String>) {
        let fs = MemoryFs::default();
        for (path, text) in files {
            fs.add_file(path, text).unwrap();
        }
        for (path, target) in links {
            fs.add_link(path, target).unwrap();
        }
        let tree = Tree::new(Arc::new(fs));
        let mut reader = Reader { tree: &tree, notes: Vec::new() };
        (read(&mut reader).unwrap(), reader.notes)
    }

    #[test]
    fn what_systemd_keeps() {
        let (found, notes) = told(
            &[
                ("/etc/machine-id", "0123456789abcdef0123456789ABCDEF\n"),
                ("/etc/machine-info", "PRETTY_HOSTNAME=\"My box\"\nCHASSIS=vm\n"),
                ("/etc/locale.conf", "LANG=de_DE.UTF-8\nLC_TIME='C'\nEVIL=1\n"),
                ("/etc/vconsole.conf", "KEYMAP=de-latin1\n"),
                ("/etc/adjtime", "0.0 0 0.0\n0\nLOCAL\n"),
            ],
            &[("/etc/localtime", "../usr/share/zoneinfo/Europe/Berlin")],
        );
        assert_eq!(found.machine_id.as_deref(), Some("0123456789abcdef0123456789ABCDEF"));
        assert_eq!((found.pretty_hostname.as_deref(), found.chassis.as_deref()), (Some("My box"), Some("vm")));
        assert_eq!(
            found.locale.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>(),
            ["LANG=de_DE.UTF-8", "LC_TIME=C"]
        );
        assert_eq!((found.time_zone.as_deref(), found.local_clock), (Some("Europe/Berlin"), Some(true)));
        assert_eq!(found.keymap.as_deref(), Some("de-latin1"));
        assert_eq!((found.cloud_init, notes.len()), (None, 0));
    }

    #[test]
    fn what_older_systems_keep() {
        let (found, _) = told(
            &[
                ("/etc/machine-id", "uninitialized\n"),
                ("/etc/timezone", "# mine\nEtc/UTC\n"),
                ("/etc/default/locale", "# File\nLANG=\"C.UTF-8\"\n"),
                ("/etc/default/keyboard", "XKBMODEL=pc105\nXKBLAYOUT=\"us\"\n"),
                ("/etc/adjtime", "0.0 0 0.0\n0\nUTC\n"),
            ],
            &[],
        );
        assert_eq!((found.machine_id.as_deref(), found.time_zone.as_deref()), (None, Some("Etc/UTC")));
        assert_eq!(found.locale.get("LANG").map(String::as_str), Some("C.UTF-8"));
        assert_eq!((found.keyboard.as_deref(), found.local_clock), (Some("us"), Some(false)));
        let (found, _) = told(&[("/etc/sysconfig/clock", "ZONE=\"Asia/Tokyo\"\n")], &[]);
        assert_eq!(found.time_zone.as_deref(), Some("Asia/Tokyo"));
    }

    #[test]
    fn what_cloud_init_will_do() {
        let (found, notes) = told(
            &[
                ("/etc/cloud/cloud.cfg", "users: [default]\ndatasource_list: [Ec2]\n"),
                ("/etc/cloud/cloud.cfg.d/90_dpkg.cfg", "datasource_list:\n  - NoCloud\n  - VMware\n"),
                ("/etc/cloud/cloud.cfg.d/99-net.cfg", "network: {config: disabled}\n"),
                ("/etc/cloud/cloud.cfg.d/bad.cfg", "a: [b\n"),
                ("/var/lib/cloud/data/instance-id", "iid-1\n"),
            ],
            &[],
        );
        let found = found.cloud_init.unwrap();
        assert_eq!(found.datasources, ["NoCloud", "VMware"]);
        assert_eq!((found.instance_id.as_deref(), found.disabled_by), (Some("iid-1"), None));
        assert_eq!(found.network_disabled_by.as_deref(), Some("/etc/cloud/cloud.cfg.d/99-net.cfg"));
        assert_eq!(notes, ["/etc/cloud/cloud.cfg.d/bad.cfg is ignored, since it is no YAML"]);
        let (found, _) = told(&[("/usr/bin/cloud-init", ""), ("/etc/cloud/cloud-init.disabled", "")], &[]);
        assert_eq!(found.cloud_init.unwrap().disabled_by.as_deref(), Some("/etc/cloud/cloud-init.disabled"));
    }

    #[test]
    fn hostile_values_are_cut() {
        let long = format!("LANG={}\n", "x".repeat(1 << 19));
        let many: String = (0..1000).map(|index| format!("LC_{index}=x\n")).collect();
        let (found, _) = told(&[("/etc/locale.conf", &(long + &many)), ("/etc/machine-id", &"0".repeat(1 << 20))], &[]);
        assert_eq!((found.locale.len(), found.machine_id), (MOST, None));
        assert!(found.locale.values().all(|value| value.len() <= 256));
    }
}
