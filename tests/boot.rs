//! Real boots: none of the guests boots on virtio as it is, each does after `migrate`.

use std::collections::BTreeMap;

use crate::support::{Bus, Machine, Migrated, Run, Variant};

fn does_not_boot_before(variant: Variant) {
    let disk = variant.raw();
    let death = Machine::new(&disk, "raw", Bus::VirtioBlk).boot().dead();
    assert_eq!(death, "Gave up waiting for root");
}

fn boots_after(variant: Variant, bus: Bus) -> BTreeMap<String, String> {
    let migrated = Migrated::of(variant);
    let facts = Machine::new(&migrated.disk, "qcow2", bus).boot().up();
    let (root, driver) = match bus {
        Bus::VirtioBlk => ("/dev/vda1 ext4", "vda:virtio_blk"),
        _ => ("/dev/sda1 ext4", "sda:sd"),
    };
    assert_eq!(facts["root"], root);
    assert!(facts["blk"].contains(driver), "{facts:?}");
    assert!(facts["nic"].contains(":virtio_net"), "{facts:?}");
    assert!(facts["cmdline"].contains("root=UUID="), "{facts:?}");
    // QEMU's own network hands out 10.0.2.15 to whoever asks.
    assert!(facts["ip"].contains("=10.0.2.15/24"), "no address: {facts:?}");
    assert_eq!(facts["failed"], "", "failed units: {facts:?}");
    assert_ne!(facts["vmtools"], "enabled");
    assert_eq!(facts["fresh"], if variant == Variant::Dirty { "50" } else { "0" });
    facts
}

#[test]
fn plain_does_not_boot_on_virtio_before() {
    does_not_boot_before(Variant::Plain);
}

#[test]
fn deleted_does_not_boot_on_virtio_before() {
    does_not_boot_before(Variant::Deleted);
}

#[test]
fn dirty_does_not_boot_on_virtio_before() {
    does_not_boot_before(Variant::Dirty);
}

#[test]
fn plain_boots_on_virtio_blk_after() {
    boots_after(Variant::Plain, Bus::VirtioBlk);
}

#[test]
fn plain_boots_on_virtio_scsi_after() {
    boots_after(Variant::Plain, Bus::VirtioScsi);
}

#[test]
fn deleted_boots_on_virtio_blk_after() {
    boots_after(Variant::Deleted, Bus::VirtioBlk);
}

#[test]
fn deleted_boots_on_virtio_scsi_after() {
    boots_after(Variant::Deleted, Bus::VirtioScsi);
}

#[test]
fn dirty_boots_on_virtio_blk_after() {
    boots_after(Variant::Dirty, Bus::VirtioBlk);
}

#[test]
fn dirty_boots_on_virtio_scsi_after() {
    boots_after(Variant::Dirty, Bus::VirtioScsi);
}

#[test]
fn the_test_command_sees_the_same() {
    let lab = crate::support::Lab::new();
    let before = lab.path("before.log");
    Run::new(["test", "--format", "raw", "--console"]).arg(&before).arg(Variant::Plain.raw()).fails_with(1);
    let console = std::fs::read_to_string(before).expect("the console log is kept");
    assert!(console.contains("Gave up waiting for root"), "{console}");

    let after = lab.path("after.log");
    let migrated = Migrated::of(Variant::Plain);
    let digest = blake3::hash(&std::fs::read(&migrated.disk).expect("the disk"));
    Run::new(["test", "--expect", r"BOOTMARK .*ip=\[\S+=10\.0\.2\.15/24\]", "--console"])
        .arg(&after)
        .arg(&migrated.disk)
        .success();
    assert_eq!(digest, blake3::hash(&std::fs::read(&migrated.disk).expect("the disk")), "the test wrote to the disk");
}
