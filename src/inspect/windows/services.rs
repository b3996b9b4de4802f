//! Services and drivers, and what belongs to a hypervisor among them.

use serde::Serialize;

use super::system::below;
use super::text;
use crate::error::Result;
use crate::hive::Key;
use crate::limits;

/// A service or driver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Service {
    /// The name of its key.
    pub name: String,
    /// What it is.
    pub kind: ServiceKind,
    /// When it is started.
    pub start: Start,
    /// Whether an automatic start waits until the others are done.
    pub delayed: bool,
    /// The file that it runs, as the registry has it.
    pub image: Option<String>,
    /// What people see; it may refer to a string in a file (`@…`).
    pub display_name: Option<String>,
    /// The group that it is loaded with.
    pub group: Option<String>,
    /// The account that it runs as.
    pub account: Option<String>,
}

/// What a service is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ServiceKind {
    /// A driver of a device.
    Driver,
    /// A driver of a file system.
    FileSystem,
    /// Anything else that the kernel loads.
    Adapter,
    /// A program of its own.
    Process,
    /// A part of a program that several share.
    Shared,
    /// One of each user's.
    User,
    /// A number without a meaning here.
    Unknown,
}

/// When a service is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// By the boot loader.
    Boot,
    /// When the kernel starts.
    System,
    /// When the machine is up.
    Auto,
    /// When something asks for it.
    Manual,
    /// Never.
    Disabled,
    /// It does not say.
    Unknown,
}

pub(super) fn read(set: &Key<'_>) -> Result<Vec<Service>> {
    let mut services = Vec::new();
    let Some(key) = below(set, "Services")? else { return Ok(services) };
    for key in key.subkeys()?.take(limits::MAX_WINDOWS_ITEMS) {
        let key = key?;
        // Some keys only hold settings.
        let Some(kind) = key.number("Type")? else { continue };
        let start = match key.number("Start")? {
            Some(0) => Start::Boot,
            Some(1) => Start::System,
            Some(2) => Start::Auto,
            Some(3) => Start::Manual,
            Some(4) => Start::Disabled,
            _ => Start::Unknown,
        };
        services.push(Service {
            name: super::bounded(key.name().to_owned()),
            kind: kind_of(kind),
            start,
            delayed: key.number("DelayedAutostart")? == Some(1),
            image: text(&key, "ImagePath")?,
            display_name: text(&key, "DisplayName")?,
            group: text(&key, "Group")?,
            account: text(&key, "ObjectName")?,
        });
    }
    Ok(services)
}

/// Bits of `Type`.
fn kind_of(bits: u64) -> ServiceKind {
    match bits {
        _ if bits & 0x40 != 0 => ServiceKind::User,
        _ if bits & 1 != 0 => ServiceKind::Driver,
        _ if bits & 2 != 0 => ServiceKind::FileSystem,
        _ if bits & 0xc != 0 => ServiceKind::Adapter,
        _ if bits & 0x10 != 0 => ServiceKind::Process,
        _ if bits & 0x20 != 0 => ServiceKind::Shared,
        _ => ServiceKind::Unknown,
    }
}

/// Services that only the tools of one hypervisor have. Those of Hyper-V are a part of Windows.
const TOOLS: &[(&str, &str)] = &[
    ("kvm", "BalloonService"),
    ("kvm", "QEMU-GA"),
    ("kvm", "spice-agent"),
    ("kvm", "vdservice"),
    ("kvm", "netkvm"),
    ("kvm", "vioscsi"),
    ("kvm", "viostor"),
    ("parallels", "prl_tools"),
    ("parallels", "prl_tools_service"),
    ("parallels", "Parallels Tools Service"),
    ("virtualbox", "VBoxGuest"),
    ("virtualbox", "VBoxService"),
    ("vmware", "VGAuthService"),
    ("vmware", "VMTools"),
    ("vmware", "VMware Physical Disk Helper Service"),
    ("vmware", "vm3dservice"),
    ("vmware", "VMMemCtl"),
    ("xen", "XenSvc"),
    ("xen", "xenagent"),
    ("xen", "xenbus"),
    ("xen", "xenevtchn"),
];

pub(super) fn tools(services: &[Service]) -> Vec<(&'static str, String)> {
    let of = |service: &Service| {
        let (hypervisor, _) = TOOLS.iter().find(|(_, name)| service.name.eq_ignore_ascii_case(name))?;
        Some((*hypervisor, service.name.clone()))
    };
    services.iter().filter_map(of).collect()
}
