//! The domain XML against libvirt's own schema and its own parser (the test driver, which needs no daemon).

use std::path::Path;

use hyper2kvm::libvirt::{
    Chipset, Clock, Disk, DiskBus, Domain, Firmware, Hypervisor, Mac, Nic, NicModel, NicSource, OsId, SourceNic, Video,
};

use crate::support::tools;

#[test]
fn libvirt_takes_every_sort_of_machine() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("domain.xml");
    for (index, domain) in machines().into_iter().enumerate() {
        std::fs::write(&file, domain.to_xml().expect("XML")).expect("a file");
        tools::ok("virt-xml-validate", [file.as_path(), Path::new("domain")]);
        // Defines it in a world of its own, and shows what was understood.
        let script = format!("define --validate {}; dumpxml {}", file.display(), quoted(&domain.plain_name()));
        let dump = tools::ok("virsh", ["--quiet", "--connect", "test:///default", &script]);
        let dump = &dump[dump.find("<domain").unwrap_or_else(|| panic!("machine {index}: {dump}"))..];
        let document = roxmltree::Document::parse(dump.trim_end()).expect("libvirt's XML");
        let disks = document.descendants().filter(|node| node.has_tag_name("disk")).count();
        assert_eq!(disks, domain.disks.len(), "machine {index}");
    }
}

/// One machine of every sort, the last one hostile.
fn machines() -> Vec<Domain> {
    let plain = Domain {
        name: "web01".to_owned(),
        uuid: None,
        memory: 1 << 30,
        vcpus: 2,
        hypervisor: Hypervisor::Kvm,
        chipset: Chipset::Q35,
        firmware: Firmware::Bios,
        clock: Clock::Utc,
        video: Video::Virtio,
        os: Some(OsId { id: "debian".to_owned(), version: "12".to_owned() }),
        disks: vec![disk("a.qcow2", DiskBus::VirtioBlk)],
        nics: vec![Nic {
            mac: Mac::parse("00:50:56:01:02:03"),
            model: NicModel::Virtio,
            source: NicSource::Network("default".to_owned()),
            was: Some(SourceNic { model: "VmxNet3".to_owned(), network: "VM Network".to_owned() }),
        }],
    };
    let e1000e = Nic { mac: None, model: NicModel::E1000e, source: NicSource::Bridge("br0".to_owned()), was: None };
    let evil = "../a</name>\n<x>'\"&\u{1}\u{202e}";
    vec![
        Domain { firmware: Firmware::Uefi { secure_boot: false }, clock: Clock::LocalTime, ..plain.clone() },
        Domain { firmware: Firmware::Uefi { secure_boot: true }, nics: vec![e1000e], ..plain.clone() },
        Domain {
            hypervisor: Hypervisor::Tcg,
            chipset: Chipset::Pc,
            video: Video::Vga,
            disks: vec![
                disk("a.qcow2", DiskBus::VirtioScsi),
                disk("b.qcow2", DiskBus::Sata),
                disk("c.qcow2", DiskBus::VirtioScsi),
            ],
            ..plain.clone()
        },
        Domain { os: None, nics: Vec::new(), ..plain.clone() },
        Domain {
            name: evil.to_owned(),
            disks: vec![disk("<a>&'b\".qcow2", DiskBus::VirtioBlk)],
            nics: vec![Nic {
                was: Some(SourceNic { model: evil.to_owned(), network: evil.to_owned() }),
                ..plain.nics[0].clone()
            }],
            ..plain
        },
    ]
}

fn disk(name: &str, bus: DiskBus) -> Disk {
    Disk { path: Path::new("/images").join(name), format: "qcow2", bus, boot: name.starts_with('a').then_some(1) }
}

fn quoted(name: &str) -> String {
    format!("'{name}'")
}
