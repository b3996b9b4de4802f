//! `serve --overlay`: what is written is kept in a qcow2 file, which QEMU opens too.

use std::path::Path;

use super::{Server, image_of, small_disk};
use crate::support::{Bus, Lab, Machine, Run, Variant, tools};

fn qemu_io(format: &str, disk: &str, commands: &[&str]) {
    let commands = commands.iter().flat_map(|command| ["-c", command]);
    let told = tools::ok("qemu-io", ["-f", format].into_iter().chain(commands).chain([disk]));
    assert!(!told.contains("failed") && !told.contains("error"), "{told}");
}

const WRITES: [&str; 6] = [
    "write -P 7 1m 1m",
    "write -P 9 1536k 512",
    "write -z 3m 256k",
    "write -P 5 100k 3k",
    "write -z 8000k 1500",
    "flush",
];

#[test]
fn what_was_written_is_there_again_for_us_and_for_qemu() {
    let lab = Lab::new();
    let raw = small_disk(&lab);
    let overlay = lab.folder_of(crate::support::NOBODY, "kept").join("day1.qcow2");
    let path = overlay.display().to_string();
    for format in ["vmdk", "qcow2", "vdi", "vhdx"] {
        let image = image_of(&raw, format, &lab);
        let model = lab.copy(&raw, "model.raw");
        let server = Server::start_with(&image, &["--overlay", &path], &lab);
        qemu_io("raw", &server.uri(), &WRITES);
        qemu_io("raw", &model.display().to_string(), &WRITES);
        server.running.terminate().exits_with(0);
        tools::assert_clean_qcow2(&overlay);
        tools::assert_same_content(("raw", &model), ("qcow2", &overlay));

        // QEMU goes on with it, and then we do.
        qemu_io("qcow2", &path, &["write -P 3 6m 100k", "discard 1m 64k", "write -P 4 12m 1536"]);
        tools::to_raw("qcow2", &overlay, &model);
        let image = lab.path("source.img");
        let again = Run::new(["serve".as_ref(), image.as_os_str()]).args(["--overlay", &path]);
        again.args(["--run", &format!("qemu-img compare -f raw -F raw $uri {}", model.display())]).success();
        let late = Run::new(["serve".as_ref(), image.as_os_str()]).args(["--overlay", &path, "--run"]);
        late.args(["qemu-io -f raw -c 'write -P 8 15m 64k' -c flush $uri"]).success();
        qemu_io("raw", &model.display().to_string(), &["write -P 8 15m 64k"]);
        tools::assert_clean_qcow2(&overlay);
        tools::assert_same_content(("raw", &model), ("qcow2", &overlay));
        std::fs::remove_file(&overlay).expect("removing");
        std::fs::remove_file(&image).expect("removing");
        std::fs::remove_dir_all(lab.path("run")).expect("removing");
    }
}

#[test]
fn a_killed_server_leaves_what_was_flushed_and_no_corruption() {
    let lab = Lab::new();
    let raw = small_disk(&lab);
    let image = image_of(&raw, "vmdk", &lab);
    let overlay = lab.folder_of(crate::support::NOBODY, "kept").join("day1.qcow2");
    let server = Server::start_with(&image, &["--overlay", &overlay.display().to_string()], &lab);
    qemu_io("raw", &server.uri(), &WRITES);
    // Nobody asks for a flush of these.
    let uri = format!("--uri={}", server.uri());
    let late = ["--name=late", "--ioengine=nbd", &uri, "--rw=randwrite", "--bs=4k", "--offset=9m", "--size=4m"];
    tools::ok("fio", late);
    server.running.kill();
    // Clusters that nothing points to may be left; nothing else.
    let check = tools::output("qemu-img", ["check".as_ref(), "-f".as_ref(), "qcow2".as_ref(), overlay.as_os_str()]);
    assert!(matches!(check.status.code(), Some(0 | 3)), "{}", String::from_utf8_lossy(&check.stdout));
    qemu_io(
        "qcow2",
        &overlay.display().to_string(),
        &["read -P 9 1536k 512", "read -P 0 3m 256k", "read -P 7 1m 512k"],
    );
}

#[test]
fn a_fixed_guest_boots_from_its_kept_overlay_without_us() {
    let lab = Lab::new();
    let overlay = lab.folder_of(crate::support::NOBODY, "kept").join("fixed.qcow2");
    let path = overlay.display().to_string();
    let server = Server::start_with(&Variant::Plain.ova(), &["--fix", "--overlay", &path], &lab);
    server.running.terminate().exits_with(0);
    tools::assert_clean_qcow2(&overlay);
    assert!(overlay.metadata().expect("the overlay").len() < 200 << 20);
    let machine = Machine::new(&overlay, "qcow2", Bus::VirtioBlk);
    assert_eq!(machine.boot().up()["root"], "/dev/vda1 ext4");
    // The fixes are in it: going on with it needs no --fix, and another one is refused.
    let source = lab.path("source.img");
    let run = || Run::new(["serve".as_ref(), source.as_os_str()]).args(["--overlay", &path, "--run", "true"]);
    run().arg("--fix").fails_with(5).code("overlay.exists");
    run().success();
}

#[test]
fn an_overlay_belongs_to_one_source_and_one_program() {
    let lab = Lab::new();
    let raw = small_disk(&lab);
    let (vmdk, qcow2) = (image_of(&raw, "vmdk", &lab), image_of(&raw, "qcow2", &lab));
    let overlay = lab.path("day1.qcow2").display().to_string();
    let run = |image: &Path, command: &str| {
        Run::new(["serve".as_ref(), image.as_os_str()]).args(["--overlay", &overlay, "--run", command])
    };
    run(&vmdk, &format!("! qemu-io -f qcow2 -c 'write 0 512' {overlay}")).success();
    run(&qcow2, "true").fails_with(4).code("overlay.other");
    let gzip = lab.path("small.raw.gz");
    tools::ok("sh", ["-c", &format!("gzip -c {} > {}", raw.display(), gzip.display())]);
    let packed = Run::new(["serve", "--format", "raw", "--run", "true", "--overlay"]).arg(lab.path("b.qcow2"));
    packed.arg(gzip).fails_with(4).code("overlay.backing");
    run(&vmdk, "true").arg("--overlay").arg(lab.path("b.qcow2")).fails_with(2).code("overlay.count");
}
