//! The fixture guests are what the other tests take them for.

use crate::support::{Bus, Lab, Machine, Mounted, Nic, PARTITION, Tree, Variant, tools};

#[test]
fn every_shape_holds_the_same_disk() {
    let raw = Variant::Plain.raw();
    for kind in ["sparse", "flat", "stream"] {
        tools::assert_same_content(("raw", &raw), ("vmdk", &Variant::Plain.vmdk(kind)));
    }
}

#[test]
fn only_the_snapshot_needs_a_replay() {
    assert!(!tools::needs_replay(&Variant::Plain.raw(), PARTITION));
    assert!(!tools::needs_replay(&Variant::Deleted.raw(), PARTITION));
    assert!(tools::needs_replay(&Variant::Dirty.raw(), PARTITION));
}

#[test]
fn what_was_fsynced_is_in_the_snapshots_journal_only() {
    let lab = Lab::new();
    let raw = lab.copy(&Variant::Dirty.raw(), "dirty.raw");
    let mounted = Mounted::writable(&raw, &lab, "replayed");
    let tree = Tree::read(mounted.path());
    assert!(tree.get("srv/fresh/50").is_some());
    assert!(tree.get("etc/motd").is_none());
    assert!(tree.get("etc/motd.moved").is_some());
    mounted.close();

    let unreplayed = format!("{}?offset={PARTITION}", Variant::Dirty.raw().display());
    let listing = tools::output("debugfs", ["-c", "-R", "ls -l /srv", &unreplayed]);
    assert!(!String::from_utf8_lossy(&listing.stdout).contains("fresh"), "the changes reached their home already");
}

#[test]
fn removed_files_left_garbage() {
    let blocks = |variant: Variant| {
        tools::map("raw", &variant.raw()).iter().filter(|piece| piece.data).map(|p| p.length).sum::<u64>()
    };
    assert!(blocks(Variant::Deleted) > blocks(Variant::Plain) + (200 << 20));
}

#[test]
fn boots_as_vmware_runs_it() {
    let disk = Variant::Plain.raw();
    let facts = Machine::new(&disk, "raw", Bus::Pvscsi).nic(Nic::Vmxnet3).boot().up();
    assert_eq!(facts["root"], "/dev/sda1 ext4");
    assert_eq!(facts["nic"], "ens192:vmxnet3");
    assert!(facts["ip"].starts_with("ens192="), "{facts:?}");
    assert_eq!(facts["failed"], "");
}
