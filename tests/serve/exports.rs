//! What is exported: disks and partitions by name, layers and bitmaps as meta contexts, on every sort of address.

use std::path::Path;
use std::process::Command;

use super::{Server, image_of, small_disk};
use crate::support::{Lab, Run, tools};

/// Extents of a meta context: offset, length, flags.
fn map(uri: &str, context: &str) -> Vec<(u64, u64, u64)> {
    let map = tools::ok("nbdinfo", ["--json", &format!("--map={context}"), uri]);
    let map: serde_json::Value = serde_json::from_str(&map).expect("nbdinfo prints JSON");
    let number = |extent: &serde_json::Value, name: &str| extent[name].as_u64().expect("a number");
    let extents = map.as_array().expect("a list").iter();
    extents.map(|extent| (number(extent, "offset"), number(extent, "length"), number(extent, "type"))).collect()
}

#[test]
fn every_disk_and_partition_has_a_name() {
    let lab = Lab::new();
    let raw = small_disk(&lab);
    let second = image_of(&raw, "vmdk", &lab);
    let first = image_of(&raw, "qcow2", &lab);
    let run = Run::new(["serve".as_ref(), first.as_os_str(), second.as_os_str()]);
    let listed = run.args(["--run", "nbdinfo --list --json $uri"]).success().json();
    let exports = listed["exports"].as_array().expect("a list");
    let names: Vec<_> = exports.iter().map(|export| export["export-name"].as_str().expect("a name")).collect();
    assert_eq!(names, ["", "disk1", "disk1/p1", "disk1/p2", "disk2", "disk2/p1", "disk2/p2"]);
    let sizes: Vec<_> = exports.iter().map(|export| export["export-size"].as_u64().expect("a size") >> 20).collect();
    assert_eq!(sizes, [16, 16, 4, 8, 16, 4, 8]);
    assert_eq!(exports[6]["description"], "partition 2 of small.vmdk");
}

#[test]
fn a_partition_is_its_part_of_the_disk() {
    let lab = Lab::new();
    let raw = small_disk(&lab);
    let server = Server::start(&image_of(&raw, "vmdk", &lab), &lab);
    let copy = lab.path("p2.raw");
    tools::ok("nbdcopy", [server.uri_of("disk1/p2").as_ref(), copy.as_os_str()]);
    let (copy, whole) = (std::fs::read(copy).expect("a copy"), std::fs::read(raw).expect("the disk"));
    assert!(copy == whole[5 << 20..13 << 20]);
}

#[test]
fn the_layer_of_each_byte_is_told() {
    let lab = Lab::new();
    image_of(&small_disk(&lab), "qcow2", &lab);
    let top = lab.path("top.qcow2");
    let create = ["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", "small.qcow2"].map(Path::new);
    tools::ok("qemu-img", create.into_iter().chain([top.as_path()]));
    tools::ok("qemu-io", ["-c", "write -P 9 1m 64k"].map(Path::new).into_iter().chain([top.as_path()]));
    let depth = |args: &[&str]| {
        let run = Run::new(["serve".as_ref(), top.as_os_str()]);
        let run = args.iter().fold(run, Run::arg);
        let ran = run.args(["--run", "nbdinfo --json --map=qemu:allocation-depth $uri"]).success();
        let map: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
        let at = |offset: u64| {
            let extent = map.as_array().expect("a list").iter().rfind(|e| e["offset"].as_u64() <= Some(offset));
            extent.expect("an extent")["type"].as_u64().expect("a depth")
        };
        [0, 300 << 10, 1 << 20].map(at)
    };
    assert_eq!(depth(&[]), [2, 0, 1]);
    // An overlay is a layer too.
    assert_eq!(depth(&["--writable"]), [3, 0, 2]);
}

#[test]
fn dirty_bitmaps_are_contexts() {
    let lab = Lab::new();
    let image = image_of(&small_disk(&lab), "qcow2", &lab);
    let path = image.as_path();
    let bitmap = ["bitmap", "--add", "-g", "65536"].map(Path::new).into_iter();
    tools::ok("qemu-img", bitmap.chain([path, Path::new("monday")]));
    tools::ok("qemu-io", ["-c", "write 1m 64k", "-c", "write 6m 128k"].map(Path::new).into_iter().chain([path]));
    let server = Server::start(&image, &lab);
    let context = "qemu:dirty-bitmap:monday";
    let (k, m) = (1_u64 << 10, 1_u64 << 20);
    assert_eq!(
        map(&server.uri(), context),
        [
            (0, m, 0),
            (m, 64 * k, 1),
            (m + 64 * k, 5 * m - 64 * k, 0),
            (6 * m, 128 * k, 1),
            (6 * m + 128 * k, 10 * m - 128 * k, 0)
        ]
    );
    // The second partition begins at 5 MiB.
    assert_eq!(
        map(&server.uri_of("disk1/p2"), context),
        [(0, m, 0), (m, 128 * k, 1), (m + 128 * k, 7 * m - 128 * k, 0)]
    );
}

/// The largest disk that is read at all, with bytes around 4 GiB and at its end.
#[test]
fn requests_reach_4_gib_and_the_end_of_64_pib() {
    let lab = Lab::new();
    let image = lab.path("huge.qcow2");
    let image = image.as_path();
    let size = 64_u64 << 50;
    let (border, last) = (4_u64 << 30, size - 512);
    tools::ok(
        "qemu-img",
        ["create", "-q", "-f", "qcow2", "-o", "cluster_size=2M"]
            .map(Path::new)
            .into_iter()
            .chain([image, Path::new("64P")]),
    );
    let writes = [format!("write -P 1 {} 1k", border - 512), format!("write -P 2 {last} 512")];
    tools::ok("qemu-io", writes.iter().flat_map(|write| ["-c", write]).map(Path::new).chain([image]));
    let server = Server::start(image, &lab);
    let uri = server.uri();
    assert_eq!(tools::ok("nbdinfo", ["--size", &uri]).trim(), size.to_string());
    let read = |pattern: u8, at: u64, len: u64| format!("read -P {pattern} {at} {len}");
    let reads = [
        read(0, 0, 1),
        read(0, border - 513, 1),
        read(1, border - 1, 1),
        read(1, border - 1, 2),
        read(1, border + 1, 1),
        read(0, border + 512, 1),
        read(0, last - 1, 1),
        read(2, last, 512),
        read(2, size - 1, 1),
    ];
    let told = tools::ok(
        "qemu-io",
        ["-r", "-f", "raw"].into_iter().chain(reads.iter().flat_map(|read| ["-c", read])).chain([&*uri]),
    );
    assert!(!told.contains("failed"), "{told}");
}

#[test]
fn one_client_on_standard_input_and_output() {
    let lab = Lab::new();
    let raw = small_disk(&lab);
    let image = image_of(&raw, "vmdk", &lab);
    let copy = lab.path("copy.raw");
    let serve = [env!("CARGO_BIN_EXE_hyper2kvm"), "serve", "--stdio"].map(Path::new);
    let args = ["--", "["].map(Path::new).into_iter().chain(serve).chain([image.as_path(), Path::new("]"), &copy]);
    tools::ok("nbdcopy", args);
    tools::assert_same_content(("raw", &raw), ("raw", &copy));
}

#[test]
fn systemd_passes_its_socket() {
    let lab = Lab::new();
    let image = image_of(&small_disk(&lab), "vmdk", &lab);
    let script = format!(
        "h.connect_systemd_socket_activation([{:?}, 'serve', {:?}])\nassert h.get_size() == 16 << 20\nh.shutdown()",
        env!("CARGO_BIN_EXE_hyper2kvm"),
        image.display().to_string(),
    );
    nbdsh(&script);
}

/// Runs Python with a handle `h` of libnbd.
pub(super) fn nbdsh(script: &str) {
    // nbdsh is a script that must not find another Python first.
    let path = format!("/usr/bin:{}", std::env::var("PATH").unwrap_or_default());
    let output = Command::new("nbdsh").args(["-c", script]).env("PATH", path).output().expect("nbdsh (libnbd-bin)");
    assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_command_gets_the_address_and_gives_the_exit_code() {
    let lab = Lab::new();
    let image = image_of(&small_disk(&lab), "vmdk", &lab);
    let run = |command: &str| Run::new(["serve", "--run", command]).arg(&image);
    run("test $(nbdinfo --size \"$uri\") = 16777216 && test -S \"$unixsocket\"").success();
    let ran = run("echo $unixsocket; exit 9").ran().exits_with(9);
    assert!(!Path::new(ran.stdout.trim()).exists(), "the socket stays");
    let ran = run("test -n \"$port\" && nbdinfo --size nbd://localhost:$port").args(["--tcp", "127.0.0.1:0"]).success();
    assert_eq!(ran.stdout.trim(), "16777216");
}

#[test]
fn tls_lets_in_who_has_a_certificate() {
    let lab = Lab::new();
    let image = image_of(&small_disk(&lab), "vmdk", &lab);
    let folder = certificates(&lab);
    let serve = |command: &str, more: &[&str]| {
        let run = Run::new(["serve", "--tcp", "0.0.0.0:0", "--run", command]).arg(&image).env("CERTS", &folder);
        let run = run.arg("--tls-certificates").arg(&folder);
        more.iter().fold(run, Run::arg)
    };
    let size = |query: &str| format!("nbdinfo --size \"nbds://localhost:$port/{query}\"");
    let ran = serve(&size("?tls-certificates=$CERTS"), &[]).success();
    assert_eq!(ran.stdout.trim(), "16777216");
    let plain = serve("nbdinfo --size nbd://localhost:$port", &[]).ran();
    assert_ne!(plain.status.code(), Some(0), "a client came in without TLS");
    std::fs::create_dir(lab.path("ca")).expect("a folder");
    std::fs::copy(folder.join("ca-cert.pem"), lab.path("ca/ca-cert.pem")).expect("a copy");
    let nobody = size(&format!("?tls-certificates={}", lab.path("ca").display()));
    assert_ne!(serve(&nobody, &[]).ran().status.code(), Some(0), "a client came in without a certificate");
    serve("true", &["--tls-any-client"]).fails_with(5).code("serve.open");
    serve(&nobody, &["--tls-any-client", "--i-know-this-is-open"]).success();
    Run::new(["serve", "--run", "true", "--tls-certificates"]).arg(lab.path("ca")).arg(&image).fails_with(1);
}

/// An authority, a server's certificate for localhost and a client's, in a folder of `lab`.
fn certificates(lab: &Lab) -> std::path::PathBuf {
    let folder = lab.folder("pki");
    let at = |name: &str| folder.join(name).display().to_string();
    for (name, extensions) in [
        ("ca", "basicConstraints = critical,CA:TRUE\nkeyUsage = critical,keyCertSign"),
        ("server", "basicConstraints = critical,CA:FALSE\nsubjectAltName = DNS:localhost,IP:127.0.0.1"),
        ("client", "basicConstraints = critical,CA:FALSE\nextendedKeyUsage = clientAuth"),
    ] {
        let config = lab.file(
            "openssl.cnf",
            format!("[req]\ndistinguished_name = name\nx509_extensions = ext\n[name]\n[ext]\n{extensions}\n"),
        );
        let mut args: Vec<String> = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
            .into_iter()
            .chain(["-nodes", "-days", "2", "-config"])
            .map(str::to_owned)
            .collect();
        args.extend([config.display().to_string(), "-subj".to_owned(), format!("/CN={name}")]);
        args.extend(["-keyout".to_owned(), at(&format!("{name}-key.pem"))]);
        args.extend(["-out".to_owned(), at(&format!("{name}-cert.pem"))]);
        if name != "ca" {
            args.extend(["-CA".to_owned(), at("ca-cert.pem"), "-CAkey".to_owned(), at("ca-key.pem")]);
        }
        tools::ok("openssl", args);
    }
    folder
}
