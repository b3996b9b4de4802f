//! Memory stays within the budget and 64 MiB more, however large the disk.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::support::{Lab, Migrated, Ran, Run, Variant, tools};

const MIB: u64 = 1 << 20;

fn assert_within(ran: &Ran, budget: u64) {
    let allowed = budget + 64 * MIB;
    assert!(ran.peak <= allowed, "{} MiB were resident, {} MiB are allowed: {ran}", ran.peak / MIB, allowed / MIB);
    assert!(ran.peak > MIB, "nothing was measured");
}

#[test]
fn migrate_stays_within_the_default_budget() {
    for variant in Variant::ALL {
        assert_within(&Migrated::of(variant).ran, 256 * MIB);
    }
}

#[test]
fn migrate_stays_within_a_small_budget() {
    let lab = Lab::new();
    let run =
        Run::new(["migrate", "--memory", "64M", "--jobs", "16", "-o"]).arg(lab.path("out")).arg(Variant::Deleted.ova());
    assert_within(&run.success(), 64 * MIB);
}

#[test]
fn a_terabyte_costs_no_more() {
    let lab = Lab::new();
    let vmdk = lab.path("big.vmdk");
    tools::ok(
        "qemu-img",
        ["create", "-q", "-f", "vmdk"].map(Path::new).into_iter().chain([vmdk.as_path(), "1T".as_ref()]),
    );
    // Something at the beginning, in the middle and at the end.
    for offset in ["0", "512G", "1099511562240"] {
        let write = format!("write -P 0x5a {offset} 64k");
        tools::ok("qemu-io", ["-f", "vmdk", "-c", &write].map(Path::new).into_iter().chain([vmdk.as_path()]));
    }
    let qcow2 = lab.path("big.qcow2");
    assert_within(&Run::new(["convert".as_ref(), vmdk.as_os_str(), qcow2.as_os_str()]).success(), 256 * MIB);
    assert_within(&Run::new(["info".as_ref(), vmdk.as_os_str()]).success(), 256 * MIB);
    assert_within(&Run::new(["map".as_ref(), qcow2.as_os_str()]).success(), 256 * MIB);
    tools::assert_clean_qcow2(&qcow2);
    tools::assert_same_content(("vmdk", &vmdk), ("qcow2", &qcow2));
}

#[test]
fn a_guest_on_a_terabyte_disk_costs_no_more() {
    let lab = Lab::new();
    let raw = lab.copy(&Variant::Plain.raw(), "guest.raw");
    let file = File::options().write(true).open(&raw).expect("the disk");
    file.set_len(1 << 40).expect("a terabyte, on paper");
    file.write_all_at(b"end", (1 << 40) - 3).expect("its last bytes");
    let run = Run::new(["migrate", "--format", "raw", "-o"]).arg(lab.path("out")).arg(&raw);
    assert_within(&run.success(), 256 * MIB);
}
