//! Exports of NBD servers: read by every command like files, with qemu-nbd, nbdkit and our own server.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::support::line::Line;
use crate::support::nbd::Server;
use crate::support::{Lab, Run, Variant, tools};

/// The first 24 MiB of the guest's disk.
fn small(lab: &Lab) -> PathBuf {
    let mut bytes = Vec::new();
    File::open(Variant::Plain.raw()).expect("the guest").take(24 << 20).read_to_end(&mut bytes).expect("reading");
    lab.file("small.raw", bytes)
}

fn convert(source: &str, target: &Path) -> Run {
    Run::new(["convert", source]).arg(target)
}

/// A line to a server at `to`, in the lab.
fn line(lab: &Lab, to: &str) -> Line {
    Line::unix(&lab.path("line"), &lab.path(to))
}

#[test]
fn a_guest_behind_qemu_nbd_is_inspected_and_converted_with_each_byte_sent_once() {
    let lab = Lab::new();
    let image = lab.path("guest.qcow2");
    Run::new(["convert"]).arg(Variant::Plain.vmdk("stream")).arg(&image).success();
    let _server = Server::qemu(&lab.path("qemu"), "qcow2", &image, &["-r", "-x", "disk"]);
    let line = line(&lab, "qemu");
    let facts = Run::new(["inspect", "--json", &line.uri("disk")]).success().json();
    assert_eq!(facts["guest"]["facts"]["type"], "linux", "{facts}");
    let target = lab.path("out.qcow2");
    let before = line.sent();
    let json = convert(&line.uri("disk"), &target).arg("--json").success().json();
    assert_eq!((&json["source"], &json["output"]["verified"]), (&line.uri("disk").as_str().into(), &true.into()));
    tools::assert_same_content(("raw", &Variant::Plain.raw()), ("qcow2", &target));
    let (sent, read) = (line.sent() - before, json["output"]["bytes"]["read"].as_u64().expect("a number"));
    assert!(sent <= read + read / 20, "{sent} bytes were sent for {read}");
    assert!(json["output"]["bytes"]["hole"].as_u64() > Some(0), "holes are not asked for: {json}");
}

#[test]
fn connections_that_are_cut_cost_little_and_change_nothing() {
    let lab = Lab::new();
    let raw = small(&lab);
    // nbdkit 1.32 aborts when several of its threads are at a connection that is cut.
    let server = Server::nbdkit(&lab.path("kit"), ["--threads=1".as_ref(), "file".as_ref(), raw.as_os_str()]);
    let line = line(&lab, "kit");
    line.cut_after(3 << 20);
    let target = lab.path("out.raw");
    let json = convert(&line.uri(""), &target).arg("--json").success().json();
    tools::assert_same_content(("raw", &raw), ("raw", &target));
    let (sent, read) = (line.sent(), json["output"]["bytes"]["read"].as_u64().expect("a number"));
    assert!(line.cuts() > 3, "{} cuts", line.cuts());
    assert!(sent <= read + read / 20, "{sent} bytes were sent for {read}, with {} cuts", line.cuts());
    drop(server);
    Run::new(["info", "--net-retries", "1", &line.uri("")]).fails_with(3).code("nbd.connection");
}

#[test]
fn neighbours_are_exports_of_the_same_server() {
    let lab = Lab::new();
    let raw = small(&lab);
    let folder = lab.folder("exports");
    let path = |name: &str| folder.join(name).display().to_string();
    let raw_path = raw.display().to_string();
    let flat = ["convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=monolithicFlat", &raw_path, &path("flat.vmdk")];
    tools::ok("qemu-img", flat);
    tools::ok("qemu-img", ["convert", "-f", "raw", "-O", "qcow2", &raw_path, &path("base.qcow2")]);
    for (name, backing, format, size) in
        [("overlay", "base.qcow2", "qcow2", "24M"), ("evil", "/etc/passwd", "raw", "1M")]
    {
        let image = path(&format!("{name}.qcow2"));
        tools::ok("qemu-img", ["create", "-q", "-u", "-f", "qcow2", "-F", format, "-b", backing, &image, size]);
    }
    let server = Server::nbdkit(&lab.path("kit"), ["file".into(), format!("dir={}", folder.display())]);
    for name in ["flat.vmdk", "overlay.qcow2"] {
        let target = lab.path("out.raw");
        convert(&server.uri(name), &target).success();
        tools::assert_same_content(("raw", &raw), ("raw", &target));
        fs::remove_file(&target).expect("removing");
    }
    Run::new(["info", &server.uri("evil.qcow2")]).fails_with(5).code("reference.refused");
    Run::new(["info", &server.uri("none.qcow2")])
        .fails_with(3)
        .code("nbd.missing")
        .stderr_contains("base.qcow2")
        .stderr_contains("flat.vmdk");
    fs::remove_file(folder.join("base.qcow2")).expect("removing");
    Run::new(["info", &server.uri("overlay.qcow2")]).fails_with(3).code("reference.missing");
}

#[test]
fn servers_are_recognised_by_their_certificates_and_recognise_us() {
    let lab = Lab::new();
    let raw = small(&lab);
    let folder = certificates(&lab);
    let certificates = format!("--tls-certificates={}", folder.display());
    let arguments = |verify: &str| {
        let raw = raw.display().to_string();
        ["--tls=require".to_owned(), certificates.clone(), verify.to_owned(), "file".to_owned(), raw]
    };
    let server = Server::nbdkit(&lab.path("kit"), arguments("-v").into_iter().filter(|word| word != "-v"));
    let plain = server.uri("");
    Run::new(["info", &plain]).fails_with(3).code("nbd.refused").stderr_contains("TLS");
    let secret = format!("{}&tls-hostname=localhost", plain.replace("nbd+unix", "nbds+unix"));
    Run::new(["info", &secret]).fails_with(3).code("nbd.tls");
    let ca = folder.join("ca-cert.pem");
    let target = lab.path("out.raw");
    convert(&secret, &target).arg("--cacert").arg(&ca).success();
    tools::assert_same_content(("raw", &raw), ("raw", &target));
    Run::new(["info", &secret.replace("localhost", "other"), "--cacert"]).arg(&ca).fails_with(3).code("nbd.tls");
    let certificate = folder.join("server-cert.pem").display().to_string();
    let line = tools::ok("openssl", ["x509", "-noout", "-fingerprint", "-sha256", "-in", &certificate]);
    let digest = line.trim().rsplit_once('=').expect("a digest").1.to_owned();
    Run::new(["info", &secret, "--thumbprint", &digest]).success();
    let wrong = digest.replace(|c: char| c != ':', "0");
    Run::new(["info", &secret, "--thumbprint", &wrong]).fails_with(3).code("nbd.tls");
    drop(server);
    let server = Server::nbdkit(&lab.path("kit"), arguments("--tls-verify-peer"));
    let known = format!("{secret}&tls-certificates={}", folder.display());
    Run::new(["info", &known]).success();
    let shown = [folder.join("client-cert.pem"), folder.join("client-key.pem")];
    let run = Run::new(["info", &secret, "--cacert"]).arg(&ca).arg("--client-cert").arg(&shown[0]);
    run.arg("--client-key").arg(&shown[1]).success();
    Run::new(["info", "--net-retries", "0", &secret, "--cacert"]).arg(&ca).fails_with(3).stderr_contains("nbd.");
    drop(server);
    Run::new(["info", "nbds://h/x?tls-psk-file=/k"]).fails_with(4).code("nbd.tls").stderr_contains("PSK");
}

/// A folder as qemu and nbdkit have it: an authority, a server of the name `localhost`, and a client.
fn certificates(lab: &Lab) -> PathBuf {
    let folder = lab.folder("pki");
    let path = |name: &str| folder.join(name).display().to_string();
    let request = |more: &str| {
        format!(
            "[req]\ndistinguished_name = name\nx509_extensions = extensions\nprompt = no\n[name]\nCN = x\n[extensions]\n{more}\n"
        )
    };
    fs::write(path("ca.cnf"), request("basicConstraints = critical, CA:TRUE\nkeyUsage = keyCertSign"))
        .expect("writing");
    let made = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-config"];
    let ca = [path("ca.cnf"), "-keyout".into(), path("ca-key.pem"), "-out".into(), path("ca-cert.pem")];
    tools::ok("openssl", made.map(str::to_owned).into_iter().chain(ca));
    for (name, more) in
        [("server", "subjectAltName = DNS:localhost, IP:127.0.0.1"), ("client", "keyUsage = digitalSignature")]
    {
        fs::write(path(&format!("{name}.cnf")), request(&format!("basicConstraints = critical, CA:FALSE\n{more}")))
            .expect("writing");
        let own = [
            path(&format!("{name}.cnf")),
            "-keyout".into(),
            path(&format!("{name}-key.pem")),
            "-out".into(),
            path(&format!("{name}-cert.pem")),
            "-CA".into(),
            path("ca-cert.pem"),
            "-CAkey".into(),
            path("ca-key.pem"),
        ];
        tools::ok("openssl", made.map(str::to_owned).into_iter().chain(own));
    }
    folder
}

#[test]
fn errors_of_the_server_are_met_with_further_attempts() {
    let lab = Lab::new();
    let raw = small(&lab);
    let raw = raw.display().to_string();
    let kit = lab.path("kit");
    let server = Server::nbdkit(&kit, ["--filter=error", "file", &raw, "error=EIO", "error-pread-rate=20%"]);
    let target = lab.path("out.raw");
    convert(&server.uri(""), &target).args(["--net-retries", "30"]).success();
    tools::assert_same_content(("raw", Path::new(&raw)), ("raw", &target));
    drop(server);
    for (error, code) in [("error=EIO", "nbd.error"), ("error=EINVAL", "nbd.error")] {
        let server = Server::nbdkit(&kit, ["--filter=error", "file", &raw, error, "error-pread-rate=100%"]);
        Run::new(["info", "--net-retries", "1", &server.uri("")]).fails_with(3).code(code);
    }
    let server = Server::nbdkit(&kit, ["--filter=error", "file", &raw, "error=EINVAL", "error-extents-rate=100%"]);
    fs::remove_file(&target).expect("removing");
    convert(&server.uri(""), &target).success();
    tools::assert_same_content(("raw", Path::new(&raw)), ("raw", &target));
}

#[test]
fn a_server_that_is_started_again_goes_on_and_another_size_ends_the_run() {
    let lab = Lab::new();
    let raw = small(&lab);
    let kit = lab.path("kit");
    let start = |image: &Path, rate: &str| {
        let image = image.display().to_string();
        Server::nbdkit(&kit, ["--filter=rate", "file", &image, &format!("rate={rate}")])
    };
    let target = lab.path("out.raw");
    for (change, code) in [(false, 0), (true, 3)] {
        let slow = start(&raw, "32M");
        let line = Line::unix(&lab.path(&format!("line-{code}")), &kit);
        let run = convert(&line.uri(""), &target).args(["--net-retries", "20"]).start();
        while line.sent() < 4 << 20 {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        drop(slow);
        if change {
            File::options().write(true).open(&raw).and_then(|file| file.set_len(25 << 20)).expect("growing");
        }
        let _fast = start(&raw, "8G");
        let ran = run.wait().exits_with(code);
        if change {
            ran.code("source.changed");
            assert!(!target.exists());
        } else {
            tools::assert_same_content(("raw", &raw), ("raw", &target));
            fs::remove_file(&target).expect("removing");
        }
    }
}

#[test]
fn a_silent_server_is_left_and_a_conversion_goes_on_where_it_stopped() {
    let lab = Lab::new();
    let raw = small(&lab);
    let _server = Server::nbdkit(&lab.path("kit"), ["--filter=rate", "file", &raw.display().to_string(), "rate=64M"]);
    let line = line(&lab, "kit");
    let target = lab.path("out.raw");
    let run = convert(&line.uri(""), &target).args(["--net-timeout", "1", "--net-retries", "0"]).start();
    while line.sent() < 12 << 20 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    line.hold(true);
    run.wait().exits_with(3).code("nbd.silent");
    let run = convert(&line.uri(""), &target).start();
    std::thread::sleep(std::time::Duration::from_millis(300));
    run.terminate().exits_with(7);
    line.hold(false);
    let json = convert(&line.uri(""), &target).arg("--json").success().json();
    tools::assert_same_content(("raw", &raw), ("raw", &target));
    assert!(json["output"]["bytes"]["resumed"].as_u64() > Some(0), "{json}");
}

#[test]
fn our_own_server_and_explain() {
    let lab = Lab::new();
    let raw = lab.path("sparse.raw");
    let file = File::create(&raw).expect("a file");
    file.set_len(1 << 30).expect("its length");
    file.write_all_at(&[7; 1 << 20], 700 << 20).expect("writing");
    let socket = lab.path("own");
    let _server = Run::new(["serve", "--format", "raw"]).arg(&raw).arg("--unix").arg(&socket).start();
    while !socket.exists() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let line = line(&lab, "own");
    let target = lab.path("out.raw");
    convert(&line.uri(""), &target).args(["--format", "raw"]).success();
    tools::assert_same_content(("raw", &raw), ("raw", &target));
    assert!(line.sent() < 2 << 20, "{} bytes for one mebibyte", line.sent());
    Run::new(["explain", "--read", "--format", "raw", &line.uri("")])
        .success()
        .stdout_contains("nbd")
        .stdout_contains("requests");
    let mapped = Run::new(["map", "--json", "--format", "raw", &line.uri("")]).success().json();
    assert!(mapped.to_string().contains("hole"), "{mapped}");
}

/// A file of `len` bytes that are not zeros, as something that was on a disk before.
fn used(lab: &Lab, len: u64) -> PathBuf {
    lab.file("used.raw", vec![0xee; usize::try_from(len).expect("small")])
}

/// What a file begins with.
fn front(path: &Path, len: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    File::open(path).expect("a file").take(len).read_to_end(&mut bytes).expect("reading");
    bytes
}

#[test]
fn a_guest_is_converted_onto_a_server_with_an_empty_image() {
    let lab = Lab::new();
    let image = lab.path("target.qcow2");
    let len = fs::metadata(Variant::Plain.raw()).expect("the guest").len().to_string();
    tools::ok("qemu-img", ["create", "-q", "-f", "qcow2", &image.display().to_string(), &len]);
    // One client at a time, as qemu-nbd does it by default.
    let server = Server::qemu(&lab.path("qemu"), "qcow2", &image, &["-e", "1"]);
    let json = Run::new(["convert", "--json"]).arg(Variant::Plain.vmdk("stream")).arg(server.uri("")).success().json();
    assert_eq!(json["output"]["path"], server.uri(""), "{json}");
    assert_eq!(json["output"]["verified"], true, "{json}");
    server.stop();
    tools::assert_same_content(("raw", &Variant::Plain.raw()), ("qcow2", &image));
    tools::assert_clean_qcow2(&image);
    let (disk, wrote) = (fs::metadata(&image).expect("the image").len(), json["output"]["bytes"]["written"].as_u64());
    assert!(disk < wrote.expect("a number") * 11 / 10 + (8 << 20), "{disk} bytes for {wrote:?}: holes were filled");
}

#[test]
fn what_was_on_an_export_is_gone_however_it_makes_zeros() {
    let lab = Lab::new();
    let raw = small(&lab);
    let len = fs::metadata(&raw).expect("the source").len();
    let old = used(&lab, len + (4 << 20));
    let filters: [&[&str]; 4] = [
        &[],
        &["--filter=nozero"],
        &["--filter=fua", "--filter=nozero", "zeromode=plugin", "fuamode=emulate"],
        &[
            "--filter=blocksize-policy",
            "blocksize-minimum=64k",
            "blocksize-preferred=64k",
            "blocksize-error-policy=error",
        ],
    ];
    for filter in filters {
        let target = lab.copy(&old, "target.raw");
        let (flags, settings): (Vec<&str>, Vec<&str>) =
            filter.iter().copied().partition(|word: &&str| word.starts_with("--"));
        let target_text = target.display().to_string();
        let words = [flags, vec!["file", &target_text], settings].concat();
        let server = Server::nbdkit(&lab.path("kit"), words);
        Run::new(["convert"]).arg(&raw).arg(server.uri("")).fails_with(5).code("output.exists");
        let stream = File::open(&raw).expect("the source");
        match filter.is_empty() {
            true => Run::new(["convert", "--force", "--format", "raw", "--size", &len.to_string(), "-"]).stdin(stream),
            false => Run::new(["convert", "--force"]).arg(&raw),
        }
        .arg(server.uri(""))
        .success();
        server.stop();
        let found = fs::read(&target).expect("the target");
        let split = usize::try_from(len).expect("small");
        assert!(found[..split] == fs::read(&raw).expect("the source"), "{filter:?}");
        let mebibyte = 1 << 20;
        let [next, last] = [&found[split..split + mebibyte], &found[found.len() - mebibyte..]];
        assert!(next.iter().chain(last).all(|byte| *byte == 0), "{filter:?}: old labels are left");
        assert!(found[split + mebibyte..found.len() - mebibyte].iter().all(|byte| *byte == 0xee), "{filter:?}");
    }
}

#[test]
fn what_does_not_fit_or_is_not_to_be_written_is_left_alone() {
    let lab = Lab::new();
    let raw = small(&lab);
    let target = used(&lab, 8 << 20);
    let text = target.display().to_string();
    let server = Server::nbdkit(&lab.path("kit"), ["file", &text]);
    let onto = |force: bool| {
        let run = Run::new(["convert"]).arg(&raw).arg(server.uri(""));
        if force { run.arg("--force") } else { run }
    };
    onto(true).fails_with(1).code("output.space");
    onto(false).fails_with(5).code("output.exists");
    Run::new(["convert", "--force", "--format", "raw", &server.uri(""), &server.uri("")])
        .fails_with(2)
        .code("output.source");
    onto(true).args(["--to", "vhd"]).fails_with(2).code("convert.stream");
    drop(server);
    let server = Server::nbdkit(&lab.path("kit"), ["-r", "file", &text]);
    Run::new(["convert", "--force"]).arg(&raw).arg(server.uri("")).fails_with(1).code("nbd.unsupported");
    Run::new(["convert", "--force"]).arg(&raw).arg("https://h/x").fails_with(2).code("convert.destination");
    Run::new(["convert", "--force"]).arg(&raw).arg("gs://b/x").fails_with(2).code("convert.destination");
    assert!(front(&target, 8 << 20).iter().all(|byte| *byte == 0xee));
}

#[test]
fn a_target_that_fails_has_nothing_to_be_found_and_one_that_comes_back_has_all() {
    let lab = Lab::new();
    let raw = small(&lab);
    let target = used(&lab, fs::metadata(&raw).expect("the source").len());
    let (text, kit) = (target.display().to_string(), lab.path("kit"));
    let broken = Server::nbdkit(&kit, ["--filter=error", "file", &text, "error=ENOSPC", "error-pwrite-rate=50%"]);
    let onto = |server: &str| Run::new(["convert", "--force"]).arg(&raw).arg(server);
    onto(&broken.uri("")).fails_with(1).code("output.space");
    drop(broken);
    assert!(front(&target, 1 << 20).iter().all(|byte| *byte == 0), "a part of a disk is found");
    let slow = |rate: &str| Server::nbdkit(&kit, ["--filter=rate", "file", &text, rate]);
    let server = slow("rate=24M");
    let mut run = onto(&server.uri("")).start();
    // Something of the guest beyond the beginning shows that it writes.
    let begun = || front(&target, 4 << 20)[2 << 20..] != front(&raw, 4 << 20)[2 << 20..];
    while begun() && run.is_alive() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    drop(server);
    let server = slow("rate=8G");
    run.wait().exits_with(0);
    server.stop();
    tools::assert_same_content(("raw", &raw), ("raw", &target));
}
