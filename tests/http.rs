//! Sources on web servers: read there like files, by every command, with nginx as the server.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::support::web::Nginx;
use crate::support::{Lab, Run, Variant, tools};

/// The first 24 MiB of the guest's disk, in the folder that is served.
fn small(lab: &Lab) -> PathBuf {
    if !lab.path("www").exists() {
        lab.folder("www");
    }
    let mut bytes = Vec::new();
    File::open(Variant::Plain.raw()).expect("the guest").take(24 << 20).read_to_end(&mut bytes).expect("reading");
    lab.file("www/small.raw", bytes)
}

/// The same disk in a format, made by qemu-img beside it.
fn image(lab: &Lab, name: &str, format: &str, options: &str) -> PathBuf {
    let (raw, path) = (lab.path("www/small.raw"), lab.path(&format!("www/{name}")));
    let words = ["convert", "-f", "raw", "-O", format].map(Path::new);
    let options = if options.is_empty() { vec![] } else { vec![Path::new("-o"), Path::new(options)] };
    tools::ok("qemu-img", words.into_iter().chain(options).chain([raw.as_path(), path.as_path()]));
    path
}

fn convert(source: &str, target: &Path) -> Run {
    Run::new(["convert", source]).arg(target)
}

#[test]
fn a_guest_on_a_server_is_inspected_and_converted_with_each_byte_sent_once() {
    let lab = Lab::new();
    lab.folder("www");
    let vmdk = lab.link(&Variant::Plain.vmdk("stream"), "www/guest.vmdk");
    let nginx = Nginx::start(&lab);
    let source = nginx.http("guest.vmdk");
    let facts = Run::new(["inspect", "--json", &source]).success().json();
    assert_eq!(facts["guest"]["facts"]["type"], "linux", "{facts}");
    let target = lab.path("guest.qcow2");
    let before = nginx.sent("guest.vmdk").0;
    let json = convert(&source, &target).arg("--json").success().json();
    assert_eq!((&json["source"], &json["output"]["verified"]), (&source.as_str().into(), &true.into()));
    tools::assert_same_content(("raw", &Variant::Plain.raw()), ("qcow2", &target));
    let len = fs::metadata(&vmdk).expect("the source").len();
    let sent = nginx.sent("guest.vmdk").0 - before;
    assert!(sent <= len + len / 20, "{sent} bytes were sent of {len}");
}

#[test]
fn what_was_kept_in_a_folder_is_not_fetched_again() {
    let lab = Lab::new();
    let raw = small(&lab);
    let nginx = Nginx::start(&lab);
    let (source, blocks, target) = (nginx.http("small.raw"), lab.path("blocks"), lab.path("out.qcow2"));
    // Two requests find a source, whose front always comes along.
    const FRONT: u64 = 256 << 10;
    let run = || {
        let before = nginx.sent("small.raw").0;
        convert(&source, &target).args(["--force", "--format", "raw", "--cache-dir"]).arg(&blocks).success();
        tools::assert_same_content(("raw", &raw), ("qcow2", &target));
        nginx.sent("small.raw").0 - before
    };
    let first = run();
    assert!((1..=24 << 20).contains(&first), "{first} bytes");
    let second = run();
    assert!(second <= 2 * FRONT, "{second} bytes were sent again");
    let kept = lab.names("blocks");
    let mut bytes = fs::read(lab.path("blocks").join(&kept[0])).expect("the kept blocks");
    let middle = bytes.len() / 2;
    bytes[middle..].fill(7);
    fs::write(lab.path("blocks").join(&kept[0]), &bytes).expect("damaging them");
    assert!(run() > 2 * FRONT, "damaged blocks are fetched again");
    fs::write(&raw, vec![3; 24 << 20]).expect("another disk");
    assert!(run() > 20 << 20, "another state of the source is another source");
    Run::new(["info", &source, "--cache-dir"]).arg(&raw).fails_with(2).code("cache.folder");
}

#[test]
fn neighbours_are_opened_on_the_same_server() {
    let lab = Lab::new();
    let raw = small(&lab);
    image(&lab, "flat.vmdk", "vmdk", "subformat=monolithicFlat");
    image(&lab, "base.qcow2", "qcow2", "");
    for (name, backing, format, size) in
        [("overlay", "base.qcow2", "qcow2", "24M"), ("evil", "/etc/passwd", "raw", "1M")]
    {
        let path = lab.path(&format!("www/{name}.qcow2")).display().to_string();
        tools::ok("qemu-img", ["create", "-q", "-u", "-f", "qcow2", "-F", format, "-b", backing, &path, size]);
    }
    let nginx = Nginx::start(&lab);
    for name in ["flat.vmdk", "overlay.qcow2", "moved/flat.vmdk"] {
        let target = lab.path("out.raw");
        convert(&nginx.http(name), &target).success();
        tools::assert_same_content(("raw", &raw), ("raw", &target));
        fs::remove_file(&target).expect("removing");
    }
    Run::new(["info", &nginx.http("evil.qcow2")]).fails_with(5).code("reference.refused");
    fs::remove_file(lab.path("www/base.qcow2")).expect("removing");
    Run::new(["info", &nginx.http("overlay.qcow2")]).fails_with(3).code("reference.missing");
}

#[test]
fn servers_are_recognised_by_their_certificates() {
    let lab = Lab::new();
    let raw = small(&lab);
    let nginx = Nginx::start(&lab);
    let source = nginx.https("small.raw");
    let certificate = nginx.file("cert.pem");
    Run::new(["info", &source]).fails_with(3).code("http.tls");
    let digest = |kind: &str| {
        let path = certificate.display().to_string();
        let line = tools::ok("openssl", ["x509", "-noout", "-fingerprint", kind, "-in", &path]);
        line.trim().rsplit_once('=').expect("a digest").1.to_owned()
    };
    for kind in ["-sha256", "-sha1"] {
        Run::new(["info", &source, "--thumbprint", &digest(kind)]).success();
    }
    let wrong = digest("-sha256").replace(|c: char| c != ':', "0");
    Run::new(["info", &source, "--thumbprint", &wrong]).fails_with(3).code("http.tls");
    let target = lab.path("out.qcow2");
    convert(&source, &target).arg("--cacert").arg(&certificate).success();
    tools::assert_same_content(("raw", &raw), ("qcow2", &target));
    let (sent, protocols) = nginx.sent("small.raw");
    assert!(protocols.contains(&"HTTP/2.0".to_owned()) && sent > 24 << 20, "{protocols:?}, {sent} bytes");
    Run::new(["info", &source, "--cacert", "/dev/null"]).fails_with(3).code("http.tls");
    let prose = lab.file("prose.pem", "no certificate\n");
    Run::new(["info", &source, "--cacert"]).arg(&prose).fails_with(2).code("http.certificate");
}

#[test]
fn a_server_without_ranges_is_read_in_one_pass_where_that_can_be() {
    let lab = Lab::new();
    let raw = small(&lab);
    image(&lab, "stream.vmdk", "vmdk", "subformat=streamOptimized");
    image(&lab, "sparse.vmdk", "vmdk", "subformat=monolithicSparse");
    let nginx = Nginx::start(&lab);
    let target = lab.path("out.qcow2");
    let json = convert(&nginx.http("whole/stream.vmdk"), &target).arg("--json").success().json();
    assert_eq!(json["source"], nginx.http("whole/stream.vmdk"));
    tools::assert_same_content(("raw", &raw), ("qcow2", &target));
    fs::remove_file(&target).expect("removing");
    convert(&nginx.http("whole/sparse.vmdk"), &target).fails_with(4).code("feed.format");
    Run::new(["info", &nginx.http("whole/stream.vmdk")]).fails_with(4).code("http.no-ranges");
}

#[test]
fn servers_that_cannot_are_left_with_a_word() {
    let lab = Lab::new();
    small(&lab);
    let nginx = Nginx::start(&lab);
    Run::new(["info", &nginx.http("none.raw")]).fails_with(3).code("http.missing");
    Run::new(["info", "--net-retries", "1", &nginx.http("busy/x")]).fails_with(3).code("http.busy");
    Run::new(["info", "ftp://host/x"]).fails_with(4).code("source.scheme");
    Run::new(["info", "http://"]).fails_with(2).code("source.address");
}

#[test]
fn a_file_that_is_replaced_while_it_is_read_ends_the_run() {
    let lab = Lab::new();
    let raw = small(&lab);
    let nginx = Nginx::start(&lab);
    let target = lab.path("out.qcow2");
    let run = convert(&nginx.http("slow/small.raw"), &target).start();
    while !fs::read_to_string(nginx.file("log")).is_ok_and(|log| log.lines().count() > 0) {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let mut bytes = fs::read(&raw).expect("reading");
    bytes.extend([7; 512]);
    fs::write(lab.path("new"), bytes).and_then(|()| fs::rename(lab.path("new"), &raw)).expect("replacing");
    run.wait().exits_with(3).code("source.changed");
    assert!(!target.exists());
}
