#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    reason = "tests build their input"
)]

use std::sync::Arc;

use super::*;
use crate::fs::{Filesystem, MemoryFs};
use crate::hive::testing::{Builder, new_log, soil, utf16};
use crate::inspect::network::Method;
use crate::inspect::{MachineDisk, Volume};

mod deep;

const ADAPTER: &str = "{aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee}";
const CLASS: &str = "{4D36E972-E325-11CE-BFC1-08002BE10318}";
const LOADER: &str = "{11111111-2222-3333-4444-555555555555}";
const PARTITION: &str = "0a0b0c0d-1122-3344-5566-778899aabbcc";

fn set(path: &str) -> String {
    format!("ControlSet002\\{path}")
}

fn system() -> Builder {
    let gpt = [b"DMIO:ID:".to_vec(), uuid::Uuid::parse_str(PARTITION).unwrap().to_bytes_le().to_vec()].concat();
    let mbr = [0x1a2b_3c4d_u32.to_le_bytes().to_vec(), (1_u64 << 20).to_le_bytes().to_vec()].concat();
    let interface = set(&format!("Services\\Tcpip\\Parameters\\Interfaces\\{ADAPTER}"));
    let rules = set("Services\\SharedAccess\\Parameters\\FirewallPolicy\\FirewallRules");
    Builder::new()
        .number("Select", "Current", 2)
        .value("MountedDevices", "\\DosDevices\\C:", 3, &gpt)
        .value("MountedDevices", "\\DosDevices\\e:", 3, &mbr)
        .value("MountedDevices", "\\DosDevices\\D:", 3, &utf16(&["\\??\\SCSI#CdRom"])[..28])
        .value("MountedDevices", "\\??\\Volume{0}", 3, &gpt)
        .text(&set("Services\\Tcpip\\Parameters"), "Hostname", "WIN-A")
        .text(&set("Services\\Tcpip\\Parameters"), "Domain", "example.org")
        .number(&interface, "EnableDHCP", 0)
        .texts(&interface, "IPAddress", &["192.168.1.5", "10.0.0.1"])
        .texts(&interface, "SubnetMask", &["255.255.255.0", "255.0.255.0"])
        .texts(&interface, "DefaultGateway", &["192.168.1.1"])
        .text(&interface, "NameServer", "192.168.1.2,192.168.1.3")
        .text(&set(&format!("Control\\Network\\{CLASS}\\{ADAPTER}\\Connection")), "Name", "Ethernet0")
        .text(&set(&format!("Control\\Class\\{CLASS}\\0001")), "NetCfgInstanceId", &ADAPTER.to_uppercase())
        .text(&set(&format!("Control\\Class\\{CLASS}\\0001")), "DriverDesc", "vmxnet3 Ethernet Adapter")
        .text(&set("Control\\TimeZoneInformation"), "TimeZoneKeyName", "W. Europe Standard Time\0\0junk")
        .number(&set("Control\\TimeZoneInformation"), "RealTimeIsUniversal", 1)
        .number(&set("Control"), "PEFirmwareType", 2)
        .number(&set("Control\\SecureBoot\\State"), "UEFISecureBootEnabled", 1)
        .text(&set("Control\\Session Manager\\Environment"), "PROCESSOR_ARCHITECTURE", "AMD64")
        .number(&set("Control\\Session Manager\\Power"), "HiberbootEnabled", 1)
        .number(&set("Services\\VMTools"), "Type", 0x10)
        .number(&set("Services\\VMTools"), "Start", 2)
        .number(&set("Services\\VMTools"), "DelayedAutostart", 1)
        .value(&set("Services\\VMTools"), "ImagePath", 2, &utf16(&["\"C:\\Program Files\\x.exe\""]))
        .number(&set("Services\\pvscsi"), "Type", 1)
        .number(&set("Services\\pvscsi"), "Start", 0)
        .number(&set("Services\\WinDefend"), "Type", 0x20)
        .number(&set("Services\\WinDefend"), "Start", 2)
        .number(&set("Services\\SharedAccess\\Parameters\\FirewallPolicy\\PublicProfile"), "EnableFirewall", 0)
        .text(
            &rules,
            "RDP",
            "v2.30|Action=Allow|Active=TRUE|Dir=In|Protocol=6|Profile=Domain|LPort=3389|App=a=b|Name=@x|",
        )
}

fn software() -> Builder {
    let version = "Microsoft\\Windows NT\\CurrentVersion";
    let uninstall = "Microsoft\\Windows\\CurrentVersion\\Uninstall";
    Builder::new()
        .text(version, "ProductName", "Windows 10 Pro")
        .text(version, "CurrentVersion", "6.3")
        .number(version, "CurrentMajorVersionNumber", 10)
        .number(version, "CurrentMinorVersionNumber", 0)
        .text(version, "CurrentBuildNumber", "22631")
        .number(version, "UBR", 3007)
        .text(version, "EditionID", "Professional")
        .text(version, "InstallationType", "Client")
        .number(version, "InstallDate", 1_700_000_000)
        .text(&format!("{version}\\ProfileList\\S-1-5-21-1"), "ProfileImagePath", "C:\\Users\\a")
        .text(&format!("{uninstall}\\Tool"), "DisplayName", "A tool")
        .text(&format!("{uninstall}\\Tool"), "DisplayVersion", "1.2")
        .text(&format!("{uninstall}\\Part"), "ParentKeyName", "Tool")
        .text(&format!("Wow6432Node\\{uninstall}\\AV"), "DisplayName", "Sophos Endpoint")
        .text(
            "Microsoft\\Windows\\CurrentVersion\\Group Policy\\History\\{0}\\0",
            "DisplayName",
            "Default Domain Policy",
        )
}

fn bcd() -> Builder {
    let mut device = vec![0; 0x48];
    device[0x10] = 6;
    device[0x20..0x30].copy_from_slice(&uuid::Uuid::parse_str(PARTITION).unwrap().to_bytes_le());
    let manager = "Objects\\{9dea862c-5cdd-4e70-acc1-f32b344d4795}\\Elements";
    let loader = format!("Objects\\{LOADER}");
    Builder::new()
        .text(&format!("{manager}\\23000003"), "Element", LOADER)
        .texts(&format!("{manager}\\24000001"), "Element", &[LOADER])
        .value(&format!("{manager}\\25000004"), "Element", 3, &30_u64.to_le_bytes())
        .number("Objects\\{00000000-0000-0000-0000-000000000000}\\Description", "Type", 0x1020_0003)
        .number(&format!("{loader}\\Description"), "Type", 0x1020_0003)
        .text(&format!("{loader}\\Elements\\12000004"), "Element", "Windows 11")
        .text(&format!("{loader}\\Elements\\12000002"), "Element", "\\Windows\\system32\\winload.efi")
        .value(&format!("{loader}\\Elements\\21000001"), "Element", 3, &device)
}

/// A volume with a Windows in `root`, whose names have any case.
fn tree(root: &str, system: Vec<u8>, software: Vec<u8>) -> MemoryFs {
    let fs = MemoryFs::new("ntfs", None, None);
    fs.add_file(&format!("/{root}/System32/config/SYSTEM"), system).unwrap();
    fs.add_file(&format!("/{root}/System32/config/SOFTWARE"), software).unwrap();
    fs
}

fn machine(volumes: Vec<(MemoryFs, &str, u64)>) -> Machine {
    let volume = |(fs, partuuid, start): (MemoryFs, &str, u64)| Volume {
        fs_kind: Some(fs.facts().kind.to_owned()),
        partuuid: Some(partuuid.to_owned()),
        start: Some(start),
        fs: Some(Arc::new(fs)),
        ..Volume::default()
    };
    let disks = vec![MachineDisk { name: "sda".to_owned(), ..MachineDisk::default() }];
    Machine { disks, volumes: volumes.into_iter().map(volume).collect(), ..Machine::default() }
}

fn facts(machine: &Machine) -> Windows {
    windows(machine, &find_windows(machine).unwrap()[0]).unwrap()
}

#[test]
fn reads_a_windows_of_today() {
    let esp = MemoryFs::new("vfat", None, None);
    esp.add_file("/EFI/Microsoft/Boot/BCD", bcd().build()).unwrap();
    let fs = tree("Windows", system().build(), software().build());
    fs.add_file("/hiberfil.sys", "HIBR….").unwrap();
    let data = MemoryFs::new("ntfs", None, None);
    let machine = machine(vec![(esp, "esp", 512), (fs, PARTITION, 9 << 20), (data, "1a2b3c4d-01", 1 << 20)]);
    let facts = facts(&machine);
    assert_eq!(facts.notes, Vec::<String>::new());
    assert_eq!(facts.product.name.as_deref(), Some("Windows 11 Pro"));
    assert_eq!(facts.product.registered_name.as_deref(), Some("Windows 10 Pro"));
    assert_eq!(facts.product.osinfo.as_deref(), Some("win11"));
    assert_eq!(facts.product.version.map(|version| (version.major, version.minor)), Some((10, 0)));
    assert_eq!((facts.product.revision, facts.product.installed), (Some(3007), Some(1_700_000_000)));
    assert_eq!(facts.arch.as_deref(), Some("x86_64"));
    assert_eq!((facts.system_root.as_str(), facts.control_set.as_deref()), ("/Windows", Some("ControlSet002")));
    assert_eq!((facts.hostname.as_deref(), facts.domain.as_deref()), (Some("WIN-A"), Some("example.org")));
    assert_eq!((facts.time_zone.as_deref(), facts.universal_clock), (Some("W. Europe Standard Time"), true));
    assert_eq!((facts.firmware, facts.secure_boot), (Some("uefi"), Some(true)));
    let drives: Vec<_> = facts.drives.iter().map(|drive| (drive.letter, drive.volume)).collect();
    assert_eq!(drives, [('C', Some(1)), ('D', None), ('E', Some(2))]);
    let [adapter] = &*facts.adapters else { panic!("{:?}", facts.adapters) };
    assert_eq!((adapter.method, adapter.name.as_deref()), (Method::Static, Some("Ethernet0")));
    assert_eq!(adapter.description.as_deref(), Some("vmxnet3 Ethernet Adapter"));
    assert_eq!(adapter.addresses, ["192.168.1.5/24", "10.0.0.1"]);
    assert_eq!((adapter.gateways.len(), adapter.dns.len()), (1, 2));
    let names: Vec<_> = facts.applications.iter().map(|it| (it.name.as_str(), it.is_wow64)).collect();
    assert_eq!(names, [("A tool", false), ("Sophos Endpoint", true)]);
    assert_eq!(facts.antivirus, ["Windows Defender", "Sophos Endpoint"]);
    assert_eq!(facts.tools, [("vmware", "VMTools".to_owned())]);
    let service = facts.services.iter().find(|service| service.name == "VMTools").unwrap();
    assert_eq!((service.kind, service.start, service.delayed), (ServiceKind::Process, Start::Auto, true));
    assert_eq!(facts.services.len(), 3);
    assert_eq!(facts.firewall.profiles, [Profile { name: "public", enabled: Some(false) }]);
    let rule = &facts.firewall.rules[0];
    assert_eq!((rule.protocol, rule.active, rule.program.as_deref()), (Some(6), true, Some("a=b")));
    assert_eq!((&*rule.local_ports, &*rule.profiles), (&["3389".to_owned()][..], &["domain".to_owned()][..]));
    assert_eq!(facts.group_policies, ["Default Domain Policy"]);
    assert_eq!((facts.power.fast_startup, facts.power.hibernation), (Some(true), Hibernation::Hibernated));
    assert_eq!(facts.profiles, [("S-1-5-21-1".to_owned(), "C:\\Users\\a".to_owned())]);
    let boot = facts.boot.unwrap();
    assert_eq!((boot.volume, boot.firmware, boot.timeout), (0, "uefi", Some(30)));
    assert_eq!(boot.default.as_deref(), Some(LOADER));
    assert_eq!(
        (boot.loaders[0].id.as_str(), boot.loaders[0].volume, boot.loaders[0].is_offered),
        (LOADER, Some(1), true)
    );
    assert!(!boot.loaders[1].is_offered);
    assert!(facts.hives.iter().all(|hive| hive.state == "clean"));
}

#[test]
fn names_have_any_case_and_logs_count() {
    let (before, after) = (system().build(), system().number("Select", "LastKnownGood", 1));
    let after = after.text(&set("Services\\Tcpip\\Parameters"), "NV Hostname", "x").build();
    let mut dirty = before.clone();
    soil(&mut dirty, 3);
    // The kind of a file system that knows case, which a Windows is not on, but a copy of its files may be.
    let fs = MemoryFs::new("btrfs", None, None);
    fs.add_file("/WINDOWS/system32/Config/system", dirty).unwrap();
    fs.add_file("/WINDOWS/system32/Config/System.log1", new_log(&[&before, &after], 3)).unwrap();
    fs.add_file("/WINDOWS/system32/Config/software", software().build()).unwrap();
    let facts = facts(&machine(vec![(fs, "x", 0)]));
    assert_eq!((facts.system_root.as_str(), facts.hostname.as_deref()), ("/WINDOWS", Some("WIN-A")));
    let states: Vec<_> = facts.hives.iter().map(|hive| (hive.path.as_str(), hive.state)).collect();
    assert_eq!(
        states,
        [("/WINDOWS/system32/Config/system", "recovered"), ("/WINDOWS/system32/Config/software", "clean")]
    );
}

#[test]
fn finds_every_windows() {
    let both = tree("WINNT", system().build(), software().build());
    for hive in ["SYSTEM", "SOFTWARE"] {
        both.add_file(&format!("/old/xp/System32/config/{hive}"), "").unwrap();
    }
    both.add_file("/boot.ini", "multi(0)disk(0)rdisk(0)partition(1)\\old\\xp=\"XP\"\n").unwrap();
    both.add_dir("/Windows/System32/config").unwrap();
    let found = find_windows(&machine(vec![(both, "x", 0), (tree("Windows", vec![], vec![]), "y", 1)])).unwrap();
    let found: Vec<_> = found.iter().map(|it| (it.root.volume, it.system_root.as_str())).collect();
    assert_eq!(found, [(0, "/WINNT"), (0, "/old/xp"), (1, "/Windows")]);
}

#[test]
fn what_is_damaged_is_noted_and_the_rest_is_there() {
    let facts = facts(&machine(vec![(tree("Windows", b"regf".to_vec(), software().build()), "x", 0)]));
    assert_eq!(facts.product.edition.as_deref(), Some("Professional"));
    assert_eq!(facts.notes.len(), 1, "{:?}", facts.notes);
    // A byte anywhere in a hive changes some facts at most.
    let good = system().build();
    for at in (4096..good.len()).step_by(61) {
        let mut bad = good.clone();
        bad[at] ^= 0xff;
        let machine = machine(vec![(tree("Windows", bad, software().build()), "x", 0)]);
        assert_eq!(super::tests::facts(&machine).product.edition.as_deref(), Some("Professional"));
    }
}

#[test]
fn short_ids_follow_from_version_and_name() {
    for (major, minor, build, variant, name, id) in [
        (5, 1, 2600, "", "Microsoft Windows XP", Some("winxp")),
        (5, 2, 3790, "", "Windows Server 2003 R2", Some("win2k3r2")),
        (6, 1, 7601, "Client", "Windows 7 Professional", Some("win7")),
        (6, 1, 7601, "Server", "Windows Server 2008 R2 Standard", Some("win2k8r2")),
        (6, 3, 9600, "Server Core", "Windows Server 2012 R2", Some("win2k12r2")),
        (10, 0, 14393, "Server", "Windows Server 2016 Standard", Some("win2k16")),
        (10, 0, 17763, "Server Core", "Windows Server 2019", Some("win2k19")),
        (10, 0, 20348, "Server", "Windows Server 2022", Some("win2k22")),
        (10, 0, 26100, "Server", "Windows Server 2025", Some("win2k25")),
        (10, 0, 19045, "Client", "Windows 10 Enterprise", Some("win10")),
        (10, 0, 22000, "Client", "Windows 10 Enterprise", Some("win11")),
        (3, 51, 1057, "", "Windows NT", None),
    ] {
        let mut product = Product {
            registered_name: Some(name.to_owned()),
            variant: Some(variant.to_owned()),
            version: Some(crate::inspect::Version { major, minor }),
            build: Some(build.to_string()),
            ..Product::default()
        };
        product.finish();
        assert_eq!(product.osinfo.as_deref(), id, "{name}");
    }
}

#[test]
fn as_many_things_as_the_limit() {
    for (count, kept) in [
        (limits::MAX_WINDOWS_ITEMS - 1, limits::MAX_WINDOWS_ITEMS - 1),
        (limits::MAX_WINDOWS_ITEMS, limits::MAX_WINDOWS_ITEMS),
        (limits::MAX_WINDOWS_ITEMS + 1, limits::MAX_WINDOWS_ITEMS),
    ] {
        let path = set("Control\\Session Manager\\Environment");
        let hive = (0..count).fold(Builder::new().number("Select", "Current", 2), |it, index| {
            it.value(&path, &format!("v{index}"), 0, &[])
        });
        let facts = facts(&machine(vec![(tree("Windows", hive.build(), software().build()), "x", 0)]));
        assert_eq!(facts.environment.len(), kept, "{:?}", facts.notes);
    }
}
