//! What the hive `SOFTWARE` tells.

use serde::Serialize;

use super::{Reader, Windows, bounded, bounded_list, text};
use crate::error::Result;
use crate::hive::{Hive, Key};
use crate::inspect::os::Version;
use crate::limits;

/// What a Windows is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Product {
    /// As the registry has it. Windows 11 calls itself `Windows 10` there.
    pub registered_name: Option<String>,
    /// For people.
    pub name: Option<String>,
    /// `Professional`, `ServerStandard` …
    pub edition: Option<String>,
    /// `Client`, `Server`, `Server Core` …
    pub variant: Option<String>,
    /// The version of the kernel.
    pub version: Option<Version>,
    /// `19045`.
    pub build: Option<String>,
    /// What updates add to the build: `4412`.
    pub revision: Option<u64>,
    /// `22H2`.
    pub release: Option<String>,
    /// The service pack, of the versions that had these.
    pub service_pack: Option<String>,
    /// When it was installed, or upgraded to this release last: seconds since the epoch.
    pub installed: Option<u64>,
    /// Whom it is registered to.
    pub owner: Option<String>,
    /// The organisation of that person.
    pub organization: Option<String>,
    /// The short id in libosinfo's database.
    pub osinfo: Option<String>,
}

/// An installed application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Application {
    /// The name of its key: a name or a GUID.
    pub id: String,
    /// What people see.
    pub name: String,
    /// Its version, as it says it.
    pub version: Option<String>,
    /// Who made it.
    pub publisher: Option<String>,
    /// `20240131`, as it says it.
    pub installed: Option<String>,
    /// Where it is.
    pub location: Option<String>,
    /// The command that removes it.
    pub uninstall: Option<String>,
    /// Whether it is for 32 bits on a Windows of 64.
    pub is_wow64: bool,
}

pub(super) fn read(reader: &mut Reader<'_>, hive: &Hive, facts: &mut Windows) -> Result<()> {
    facts.product = reader.part("the product", product(hive))?;
    for (path, is_wow64) in [
        ("Microsoft\\Windows\\CurrentVersion\\Uninstall", false),
        ("Wow6432Node\\Microsoft\\Windows\\CurrentVersion\\Uninstall", true),
    ] {
        let found = applications(hive, path, is_wow64);
        facts.applications.extend(reader.part("the applications", found)?);
    }
    facts.group_policies = reader.part("the group policies", policies(hive))?;
    facts.profiles = reader.part("the profiles", profiles(hive))?;
    Ok(())
}

fn product(hive: &Hive) -> Result<Product> {
    let Some(key) = hive.key("Microsoft\\Windows NT\\CurrentVersion")? else { return Ok(Product::default()) };
    let number = |name| key.number(name).map(|number| number.and_then(|number| u32::try_from(number).ok()));
    let version = match (number("CurrentMajorVersionNumber")?, number("CurrentMinorVersionNumber")?) {
        (Some(major), minor) => Some(Version { major, minor: minor.unwrap_or(0) }),
        (None, _) => text(&key, "CurrentVersion")?.and_then(|text| Version::parse(&text)),
    };
    Ok(Product {
        registered_name: text(&key, "ProductName")?,
        name: None,
        edition: text(&key, "EditionID")?,
        variant: text(&key, "InstallationType")?,
        version,
        build: text(&key, "CurrentBuildNumber")?.or(text(&key, "CurrentBuild")?),
        revision: key.number("UBR")?,
        release: text(&key, "DisplayVersion")?.or(text(&key, "ReleaseId")?),
        service_pack: text(&key, "CSDVersion")?,
        installed: key.number("InstallDate")?,
        owner: text(&key, "RegisteredOwner")?,
        organization: text(&key, "RegisteredOrganization")?,
        osinfo: None,
    })
}

impl Product {
    /// Fills in what follows from the rest.
    pub(super) fn finish(&mut self) {
        let build = self.build.as_deref().and_then(|build| build.parse::<u32>().ok()).unwrap_or(0);
        let is_server = self.variant.as_deref().is_some_and(|variant| variant.contains("Server"))
            || self.registered_name.as_deref().is_some_and(|name| name.contains("Server"));
        let is_eleven = !is_server && build >= 22_000;
        self.name = self.registered_name.as_deref().map(|name| match name.strip_prefix("Windows 10") {
            Some(rest) if is_eleven => format!("Windows 11{rest}"),
            _ => name.to_owned(),
        });
        self.osinfo = self.version.and_then(|version| self.short_id(version, is_server, build));
    }

    fn short_id(&self, version: Version, is_server: bool, build: u32) -> Option<String> {
        let is_second = self.registered_name.as_deref().is_some_and(|name| name.contains("R2"));
        let is_xp = self.registered_name.as_deref().is_some_and(|name| name.contains("XP"));
        let id = match (version.major, version.minor, is_server) {
            (4, 0, _) => "winnt4.0",
            (5, 0, _) => "win2k",
            (5, 1, _) => "winxp",
            (5, 2, _) if is_xp => "winxp",
            (5, 2, _) if is_second => "win2k3r2",
            (5, 2, _) => "win2k3",
            (6, 0, false) => "winvista",
            (6, 0, true) => "win2k8",
            (6, 1, false) => "win7",
            (6, 1, true) => "win2k8r2",
            (6, 2, false) => "win8",
            (6, 2, true) => "win2k12",
            (6, 3, false) => "win8.1",
            (6, 3, true) => "win2k12r2",
            (10, 0, false) if build >= 22_000 => "win11",
            (10, 0, false) => "win10",
            // The names of servers say the year; the builds that went with it tell where they do not.
            (10, 0, true) => match build {
                26_100.. => "win2k25",
                20_348.. => "win2k22",
                17_763.. => "win2k19",
                _ => "win2k16",
            },
            _ => return None,
        };
        Some(id.to_owned())
    }
}

pub(super) fn applications(hive: &Hive, path: &str, is_wow64: bool) -> Result<Vec<Application>> {
    let mut applications = Vec::new();
    let Some(key) = hive.key(path)? else { return Ok(applications) };
    for key in key.subkeys()?.take(limits::MAX_WINDOWS_ITEMS) {
        let key = key?;
        // Without a name for people it is a part of something else, or of Windows.
        let Some(name) = text(&key, "DisplayName")? else { continue };
        applications.push(Application {
            id: bounded(key.name().to_owned()),
            name,
            version: text(&key, "DisplayVersion")?,
            publisher: text(&key, "Publisher")?,
            installed: text(&key, "InstallDate")?,
            location: text(&key, "InstallLocation")?,
            uninstall: text(&key, "UninstallString")?,
            is_wow64,
        });
    }
    Ok(applications)
}

/// Policies in the history of those that apply to the machine: a key for each extension that applied them, with one for each policy.
fn policies(hive: &Hive) -> Result<Vec<String>> {
    let mut names: Vec<String> = Vec::new();
    let Some(key) = hive.key("Microsoft\\Windows\\CurrentVersion\\Group Policy\\History")? else { return Ok(names) };
    let is_guid = |name: &str| name.starts_with('{') && name.ends_with('}');
    for extension in key.subkeys()?.take(limits::MAX_WINDOWS_ITEMS) {
        let extension = extension?;
        if !is_guid(extension.name()) {
            continue;
        }
        let mut applied =
            bounded_list(extension.subkeys()?.map(|policy| policy.and_then(|policy| policy_name(&policy))))?;
        if applied.is_empty() {
            applied.push(bounded(extension.name().to_owned()));
        }
        for name in applied {
            if !names.contains(&name) && names.len() < limits::MAX_WINDOWS_ITEMS {
                names.push(name);
            }
        }
    }
    Ok(names)
}

fn policy_name(policy: &Key<'_>) -> Result<String> {
    let name = text(policy, "DisplayName")?.or(text(policy, "GPOName")?);
    Ok(name.unwrap_or_else(|| bounded(policy.name().to_owned())))
}

fn profiles(hive: &Hive) -> Result<Vec<(String, String)>> {
    let Some(key) = hive.key("Microsoft\\Windows NT\\CurrentVersion\\ProfileList")? else { return Ok(Vec::new()) };
    let mut profiles = Vec::new();
    for key in key.subkeys()?.take(limits::MAX_WINDOWS_ITEMS) {
        let key = key?;
        if let Some(path) = text(&key, "ProfileImagePath")? {
            profiles.push((bounded(key.name().to_owned()), path));
        }
    }
    Ok(profiles)
}

/// Words in the names and makers of applications that protect against malware.
const GUARDS: &[&str] = &[
    "antivirus",
    "anti-virus",
    "virusscan",
    "virus scan",
    "avast",
    "avg technologies",
    "bitdefender",
    "crowdstrike",
    "endpoint security",
    "eset ",
    "f-secure",
    "kaspersky",
    "mcafee",
    "norton",
    "officescan",
    "apex one",
    "sentinelone",
    "sophos",
    "symantec endpoint",
    "trellix",
    "trend micro",
];

/// Applications that protect against malware by their name or maker, and Defender where it is started.
pub(super) fn antivirus(facts: &Windows) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let defender = facts.services.iter().find(|service| service.name.eq_ignore_ascii_case("WinDefend"));
    if defender.is_some_and(|service| service.start != super::Start::Disabled) {
        found.push("Windows Defender".to_owned());
    }
    for application in &facts.applications {
        let text =
            format!("{} {}", application.name, application.publisher.as_deref().unwrap_or_default()).to_lowercase();
        if GUARDS.iter().any(|word| text.contains(word)) && !found.contains(&application.name) {
            found.push(application.name.clone());
        }
    }
    found
}
