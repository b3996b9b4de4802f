//! `convert`: the same bytes, in another shape, as qemu-img judges it.

use crate::support::tools::Piece;
use crate::support::{Lab, Run, Variant, tools};

fn convert(source: &std::path::Path, target: &std::path::Path) {
    Run::new(["convert".as_ref(), source.as_os_str(), target.as_os_str()]).success();
}

#[test]
fn every_shape_becomes_the_same_qcow2() {
    let lab = Lab::new();
    let raw = Variant::Plain.raw();
    let vmdks = ["sparse", "flat", "stream"].map(|kind| Variant::Plain.vmdk(kind));
    for source in vmdks.into_iter().chain([Variant::Plain.ova()]) {
        let target = lab.path("guest.qcow2");
        convert(&source, &target);
        tools::assert_clean_qcow2(&target);
        tools::assert_same_content(("raw", &raw), ("qcow2", &target));
        std::fs::remove_file(target).expect("removing");
    }
}

#[test]
fn garbage_in_free_blocks_and_unreplayed_journals_are_copied_as_they_are() {
    let lab = Lab::new();
    for variant in [Variant::Deleted, Variant::Dirty] {
        let target = lab.path("guest.qcow2");
        convert(&variant.ova(), &target);
        tools::assert_clean_qcow2(&target);
        tools::assert_same_content(("raw", &variant.raw()), ("qcow2", &target));
        std::fs::remove_file(target).expect("removing");
    }
}

#[test]
fn a_raw_result_is_sparse_and_the_same() {
    let lab = Lab::new();
    let target = lab.path("guest.img");
    Run::new(["convert", "--to", "raw"]).arg(Variant::Plain.ova()).arg(&target).success();
    tools::assert_same_content(("raw", &Variant::Plain.raw()), ("raw", &target));
    let blocks =
        |path: &std::path::Path| std::os::unix::fs::MetadataExt::blocks(&path.metadata().expect("a file")) * 512;
    assert!(blocks(&target) < 1 << 30, "{} bytes are on the disk", blocks(&target));
}

#[test]
fn qcow2_is_read_as_it_is_written_and_as_qemu_writes_it() {
    let lab = Lab::new();
    let raw = lab.path("back.raw");
    for options in ["compat=v3", "compression_type=zlib", "compression_type=zstd", "cluster_size=4096,extended_l2=off"]
    {
        let qcow2 = lab.path("qemu.qcow2");
        let compressed = options.contains("compression").then_some("-c");
        let mut args = vec!["convert", "-O", "qcow2", "-o", options];
        args.extend(compressed);
        let source = lab.path("small.raw");
        if !source.exists() {
            // The guest's first 96 MiB: boot code, partition table, a file system's beginning, and holes.
            tools::ok(
                "dd",
                [
                    format!("if={}", Variant::Plain.raw().display()),
                    format!("of={}", source.display()),
                    "bs=1M".into(),
                    "count=96".into(),
                    "conv=sparse".into(),
                    "status=none".into(),
                ],
            );
        }
        tools::ok("qemu-img", args.into_iter().map(std::path::Path::new).chain([source.as_path(), &qcow2]));
        Run::new(["convert", "--to", "raw", "--force"]).arg(&qcow2).arg(&raw).success();
        tools::assert_same_content(("raw", &source), ("raw", &raw));
    }
}

#[test]
fn maps_agree_with_qemus() {
    for kind in ["sparse", "stream"] {
        let image = Variant::Plain.vmdk(kind);
        let ran = Run::new(["map", "--json"]).arg(&image).success();
        let map = ran.json();
        let extents = map["extents"].as_array().expect("extents").iter().map(|extent| {
            let number = |name: &str| extent[name].as_u64().expect("a number");
            Piece { start: number("offset"), length: number("length"), data: extent["kind"] == "data" }
        });
        assert_eq!(tools::merge(extents), tools::map("vmdk", &image), "{kind}");
    }
}

/// A machine of three disks, the second of which is missing.
fn machine(lab: &Lab) -> std::path::PathBuf {
    let disk = |unit: u32, name: &str| format!("scsi0:{unit}.present = \"TRUE\"\nscsi0:{unit}.fileName = \"{name}\"\n");
    let disks: Vec<String> =
        [(0, "root.vmdk"), (1, "lost.vmdk"), (2, "data.vmdk")].map(|(n, name)| disk(n, name)).into();
    lab.file(
        "web.vmx",
        format!("config.version = \"8\"\ndisplayName = \"web\"\nscsi0.present = \"TRUE\"\n{}", disks.concat()),
    );
    for (name, byte) in [("root", 1), ("data", 2)] {
        let raw = lab.file(&format!("{name}.raw"), vec![byte; 3 << 20]);
        let vmdk = lab.path(&format!("{name}.vmdk"));
        tools::ok(
            "qemu-img",
            ["convert", "-O", "vmdk"].map(std::path::Path::new).into_iter().chain([raw.as_path(), &vmdk]),
        );
    }
    lab.path("web.vmx")
}

#[test]
fn all_disks_of_a_machine_go_into_a_directory() {
    let lab = Lab::new();
    let vmx = machine(&lab);
    let out = lab.path("new/out/");
    let convert = || Run::new(["convert".as_ref(), vmx.as_os_str()]).args(["--json", "--to=vhdx"]).arg(&out);
    convert().fails_with(3).code("reference.missing").stderr_contains("lost.vmdk");
    assert!(!out.exists(), "nothing is made before it is known to work");
    for chosen in [["--exclude-disk=2", "--exclude-disk=scsi0:1"], ["--disk=root.vmdk", "--disk=3"]] {
        let json = convert().args(chosen).success().json();
        let outputs = json["outputs"].as_array().expect("a list");
        assert_eq!(outputs.len(), 2, "{json}");
        for (number, name) in [(1, "root"), (2, "data")] {
            let written = out.join(format!("web-{number}.vhdx"));
            assert_eq!(outputs[number - 1]["path"], written.display().to_string());
            tools::assert_same_content(("raw", &lab.path(&format!("{name}.raw"))), ("vhdx", &written));
        }
        assert_eq!(lab.names("new/out").len(), 2);
        std::fs::remove_dir_all(&out).expect("removing");
    }
    Run::new(["convert".as_ref(), vmx.as_os_str()])
        .args(["--exclude-disk=2"])
        .arg(lab.path("one.qcow2"))
        .fails_with(2)
        .code("source.disk")
        .stderr_contains("DIR/");
}

#[test]
fn several_images_are_each_named_like_their_own_file() {
    let lab = Lab::new();
    machine(&lab);
    lab.folder("out");
    let run = || Run::new(["convert"]).arg(lab.path("root.vmdk")).arg(lab.path("data.vmdk"));
    run().arg(lab.path("out")).success();
    assert_eq!(lab.names("out"), ["data.qcow2", "root.qcow2"]);
    for name in ["data", "root"] {
        tools::assert_same_content(
            ("raw", &lab.path(&format!("{name}.raw"))),
            ("qcow2", &lab.path(&format!("out/{name}.qcow2"))),
        );
    }
    run().arg(lab.path("out")).fails_with(5).code("output.exists");
    run()
        .arg(lab.path("root.vmdk"))
        .arg(lab.path("out"))
        .fails_with(2)
        .code("convert.names")
        .stderr_contains("root.qcow2");
    run().arg("--size=1G").arg(lab.path("out")).fails_with(2).code("convert.options");
}
