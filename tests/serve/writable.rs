//! `serve --writable`: what clients write stays beside the source.

use super::{Server, image_of, small_disk};
use crate::support::{Lab, Run, tools};

fn qemu_io(uri: &str, commands: &[&str]) {
    let commands = commands.iter().flat_map(|command| ["-c", command]);
    let told = tools::ok("qemu-io", ["-f", "raw"].into_iter().chain(commands).chain([uri]));
    assert!(!told.contains("failed") && !told.contains("error"), "{told}");
}

#[test]
fn writes_are_read_back_and_the_source_stays() {
    let lab = Lab::new();
    let raw = small_disk(&lab);
    let image = image_of(&raw, "vmdk", &lab);
    let before = blake3::hash(&std::fs::read(&image).expect("the image"));
    let server = Server::start_with(&image, &["--writable"], &lab);
    let commands = [
        "write -P 7 1m 1m",
        "write -P 9 1536k 512",
        "write -z 3m 256k",
        "discard 4m 64k",
        "write -P 5 100k 3k",
        "flush",
    ];
    qemu_io(&server.uri(), &commands);
    qemu_io(&raw.display().to_string(), &[&commands[..], &["write -z 4m 64k"]].concat());
    let copy = lab.path("copy.raw");
    tools::ok("nbdcopy", [server.uri().as_ref(), copy.as_os_str()]);
    tools::assert_same_content(("raw", &raw), ("raw", &copy));
    // Partitions are parts of the same disk.
    qemu_io(&server.uri_of("disk1/p1"), &["read -P 7 0 512k", "read -P 9 512k 512", "write -P 3 0 512"]);
    qemu_io(&server.uri(), &["read -P 3 1m 512"]);
    server.running.terminate().exits_with(0);
    assert_eq!(before, blake3::hash(&std::fs::read(&image).expect("the image")), "the source was written");
}

#[test]
fn what_does_not_fit_into_memory_spills() {
    let lab = Lab::new();
    let raw = lab.path("empty.raw");
    std::fs::File::create(&raw).expect("a file").set_len(256 << 20).expect("its length");
    let image = image_of(&raw, "vmdk", &lab);
    let server = Server::start_with(&image, &["--writable", "--memory", "64M"], &lab);
    // The overlay's share is 8 MiB.
    qemu_io(&server.uri(), &["write -P 7 0 64m", "write -P 8 100m 32m"]);
    qemu_io(&server.uri(), &["read -P 7 0 64m", "read -P 0 64m 36m", "read -P 8 100m 32m"]);
    let open = std::fs::read_dir(format!("/proc/{}/fd", server.running.id())).expect("its descriptors");
    let targets = open.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
    let spilled = targets.filter(|target| target.to_string_lossy().contains("(deleted)")).count();
    assert!(spilled >= 1, "nothing was spilled");
    let ran = server.running.terminate();
    assert!(ran.peak < 300 << 20, "{} bytes", ran.peak);
}

#[test]
fn read_only_is_the_default() {
    let lab = Lab::new();
    let image = image_of(&small_disk(&lab), "vmdk", &lab);
    let run = |args: &[&str]| args.iter().fold(Run::new(["serve".as_ref(), image.as_os_str()]), Run::arg);
    run(&["--run", "nbdinfo --is read-only $uri"]).success();
    let can = "for what in write zero fast-zero trim flush fua multi-conn; do nbdinfo --can $what $uri || exit 5; done";
    run(&["--writable", "--run", can]).success();
}
