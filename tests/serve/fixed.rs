//! `serve --fix`: a guest made for VMware boots on virtio straight from its OVA, which nobody has copied or changed.

use std::path::Path;

use super::Server;
use crate::support::{Bus, Lab, Machine, Nic, Variant};

#[test]
fn it_boots_on_virtio_before_a_byte_is_copied() {
    let lab = Lab::new();
    let server = Server::start_with(&Variant::Dirty.ova(), &["--fix"], &lab);
    let uri = server.uri();
    // QEMU keeps what the guest writes in a file of its own.
    let machine = Machine { disk: Path::new(&uri), format: "raw", bus: Bus::VirtioBlk, nic: Nic::Virtio };
    let facts = machine.boot().up();
    assert_eq!(facts["root"], "/dev/vda1 ext4");
    assert!(facts["ip"].contains("=10.0.2.15/24"), "no address: {facts:?}");
    assert_eq!((facts["failed"].as_str(), facts["fresh"].as_str()), ("", "50"));
}

#[test]
fn it_boots_and_writes_into_the_overlay() {
    let lab = Lab::new();
    let server = Server::start_with(&Variant::Plain.ova(), &["--fix", "--writable"], &lab);
    let uri = server.uri();
    let facts =
        Machine { disk: Path::new(&uri), format: "raw", bus: Bus::VirtioScsi, nic: Nic::Virtio }.boot_in_place();
    let facts = facts.up();
    assert_eq!(facts["root"], "/dev/sda1 ext4");
    assert_eq!(facts["failed"], "");
    server.running.terminate().exits_with(0);
}
