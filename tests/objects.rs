//! Sources in object stores: read there like files, with emulators of S3, Azure and Google behind a proxy that counts.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::support::clouds::{ACCOUNT, ACCOUNT_KEY, Asked, BUCKET, Cloud};
use crate::support::{Lab, Variant, tools};

const MIB: u64 = 1 << 20;

/// The first 24 MiB of the guest's disk, in the folder that becomes a bucket.
fn small(lab: &Lab) -> PathBuf {
    lab.folder("store");
    let mut bytes = Vec::new();
    File::open(Variant::Plain.raw()).expect("the guest").take(24 * MIB).read_to_end(&mut bytes).expect("reading");
    lab.file("store/small.raw", bytes)
}

/// The small disk in a format, made by qemu-img beside it.
fn image(lab: &Lab, name: &str, format: &str, options: &str) {
    let (raw, path) = (lab.path("store/small.raw"), lab.path(&format!("store/{name}")));
    let words = ["convert", "-f", "raw", "-O", format, "-o", options].map(Path::new);
    tools::ok("qemu-img", words.into_iter().chain([raw.as_path(), path.as_path()]));
}

fn address(scheme: &str, name: &str) -> String {
    match scheme {
        "azblob" => format!("azblob://{ACCOUNT}/{BUCKET}/d/{name}"),
        scheme => format!("{scheme}://{BUCKET}/d/{name}"),
    }
}

/// Inspects the fixture's stream-optimized VMDK in a store and converts it. What was fetched for that is hardly more than its bytes.
fn guest_is_read_once(lab: &Lab, cloud: &Cloud, scheme: &str) {
    let source = address(scheme, "guest.vmdk");
    let facts = cloud.run(["inspect", "--json", &source]).success().json();
    assert_eq!(facts["guest"]["facts"]["type"], "linux", "{facts}");
    let target = lab.path("guest.qcow2");
    cloud.seen();
    let json = cloud.run(["convert", "--json", &source]).arg(&target).success().json();
    assert_eq!((&json["source"], &json["output"]["verified"]), (&source.as_str().into(), &true.into()));
    tools::assert_same_content(("raw", &Variant::Plain.raw()), ("qcow2", &target));
    let len = fs::metadata(Variant::Plain.vmdk("stream")).expect("the source").len();
    let sent: u64 = cloud.seen().iter().map(|exchange| exchange.sent).sum();
    assert!(sent <= len + len / 20, "{sent} bytes were sent of {len}");
}

/// Files that images name are opened beside them, and nothing else is.
fn neighbours_are_opened(lab: &Lab, cloud: &Cloud, scheme: &str) {
    let target = lab.path("neighbours.raw");
    for name in ["flat.vmdk", "overlay.qcow2"] {
        cloud.run(["convert", &address(scheme, name)]).arg(&target).arg("--force").success();
        tools::assert_same_content(("raw", &lab.path("store/small.raw")), ("raw", &target));
    }
    cloud.run(["info", &address(scheme, "evil.qcow2")]).fails_with(5).code("reference.refused");
}

/// A small disk, in formats that need neighbours, and what they name.
fn neighbours(lab: &Lab) -> PathBuf {
    let raw = small(lab);
    image(lab, "flat.vmdk", "vmdk", "subformat=monolithicFlat");
    image(lab, "base.qcow2", "qcow2", "compat=1.1");
    for (name, backing, format, size) in
        [("overlay", "base.qcow2", "qcow2", "24M"), ("evil", "/etc/passwd", "raw", "1M")]
    {
        let path = lab.path(&format!("store/{name}.qcow2")).display().to_string();
        tools::ok("qemu-img", ["create", "-q", "-u", "-f", "qcow2", "-F", format, "-b", backing, &path, size]);
    }
    raw
}

/// A canary is in nothing that runs print, however much they are to say.
fn is_seen_nowhere(lab: &Lab, cloud: &Cloud, scheme: &str, canary: &str) {
    let out = lab.path("canary.qcow2");
    let good = address(scheme, "small.raw");
    for run in [
        cloud.run(["info", "--json", &good]),
        cloud.run(["explain", &good]),
        cloud.run(["convert", "--json", &good]).arg(&out),
        cloud.run(["info", "--json", &address(scheme, "none.raw")]),
    ] {
        let ran = run.arg("-vvv").env("HYPER2KVM_LOG", "trace").ran();
        assert!(!ran.stdout.contains(canary) && !ran.stderr.contains(canary), "{ran}");
    }
    let bytes = fs::read(&out).expect("reading");
    assert!(!bytes.windows(canary.len()).any(|window| window == canary.as_bytes()));
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

#[test]
fn a_guest_in_s3_is_read_in_place_with_each_byte_sent_once() {
    let lab = Lab::new();
    neighbours(&lab);
    lab.link(&Variant::Plain.vmdk("stream"), "store/guest.vmdk");
    let cloud = Cloud::s3(&lab, &lab.path("store"));
    guest_is_read_once(&lab, &cloud, "s3");
    neighbours_are_opened(&lab, &cloud, "s3");
}

#[test]
fn s3_says_why_it_gives_nothing() {
    let lab = Lab::new();
    small(&lab);
    let cloud = Cloud::s3(&lab, &lab.path("store"));
    let source = address("s3", "small.raw");
    cloud.run(["info", &address("s3", "none.raw")]).fails_with(3).code("object.missing");
    cloud.run(["info", "s3://no-bucket/x"]).fails_with(3).code("object.missing");
    cloud.run(["info", &address("s3", "cold.raw")]).fails_with(3).code("object.archived");
    cloud.run(["info", &source, "--anonymous"]).fails_with(3).code("object.denied");
    cloud.run(["info", &source]).env("AWS_SECRET_ACCESS_KEY", "canary").fails_with(3).code("object.denied");
    let none = cloud.run(["info", &source]).env("AWS_SECRET_ACCESS_KEY", "").env("AWS_PROFILE", "nobody");
    none.env("HOME", lab.path("")).fails_with(2).code("object.credentials");
    cloud.run(["info", "s3://bucket/"]).fails_with(2).code("source.address");
    cloud.meddle(|_| Some(answer("301 Moved", "x-amz-bucket-region: eu-north-1\r\n", "")));
    let elsewhere = cloud.run(["info", &source]).fails_with(3).code("object.region");
    assert!(elsewhere.stderr.contains("AWS_REGION=eu-north-1"), "{elsewhere}");
    cloud.meddle(|_| Some(answer("302 Found", "location: http://169.254.169.254/\r\n", "")));
    cloud.run(["info", &source]).fails_with(3).code("object.region");
}

#[test]
fn credentials_for_s3_come_from_the_usual_files_and_are_seen_nowhere() {
    let lab = Lab::new();
    small(&lab);
    let mut cloud = Cloud::s3(&lab, &lab.path("store"));
    let secret = cloud.env[1].1.clone();
    is_seen_nowhere(&lab, &cloud, "s3", &secret);
    let [id, secret, endpoint] = [0, 1, 2].map(|index| cloud.env[index].1.clone());
    let aws = lab.folder(".aws");
    fs::write(aws.join("credentials"), format!("[lab]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n"))
        .expect("credentials");
    fs::write(aws.join("config"), format!("[profile lab]\nendpoint_url = {endpoint}\n")).expect("configuration");
    cloud.env.clear();
    let home = lab.path("");
    let info = || cloud.run(["info", &address("s3", "small.raw"), "--format", "raw"]).env("HOME", &home);
    info().env("AWS_PROFILE", "lab").success();
    info().env("AWS_ENDPOINT_URL", &endpoint).fails_with(3).code("object.denied");
    is_seen_nowhere_in(&lab, &cloud, &home, &secret);
}

/// The same, with the secret in a file.
fn is_seen_nowhere_in(lab: &Lab, cloud: &Cloud, home: &Path, secret: &str) {
    let run = cloud.run(["info", &address("s3", "none.raw")]).env("HOME", home).env("AWS_PROFILE", "lab");
    let ran = run.arg("-vvv").env("HYPER2KVM_LOG", "trace").ran();
    assert!(!ran.stderr.contains(secret), "{ran}");
    let _ = lab;
}

#[test]
fn an_object_that_is_replaced_while_it_is_read_ends_the_run() {
    let lab = Lab::new();
    let raw = small(&lab);
    let cloud = Cloud::s3(&lab, &lab.path("store"));
    let (target, other) = (lab.path("out.qcow2"), lab.file("other.raw", vec![7; 24 << 20]));
    // Every answer but the first comes when the other one is there.
    let (replaced, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let first = std::sync::atomic::AtomicUsize::new(0);
    cloud.meddle(move |_: &Asked| {
        if first.fetch_add(1, std::sync::atomic::Ordering::SeqCst) > 0 {
            let _ = wait.lock().map(|wait| wait.recv());
        }
        None
    });
    let run = cloud.run(["convert", "--format", "raw", &address("s3", "small.raw")]).arg(&target).start();
    let mut exchanges = Vec::new();
    while exchanges.is_empty() {
        std::thread::sleep(std::time::Duration::from_millis(5));
        exchanges = cloud.seen();
    }
    cloud.put("d/small.raw", &other);
    drop(replaced);
    run.wait().exits_with(3).code("source.changed");
    assert!(!target.exists());
    let asked = cloud.seen();
    assert!(asked.iter().all(|exchange| exchange.asked.head.contains("\nif-match: \"")), "{asked:?}");
    assert!(asked.iter().any(|exchange| exchange.status == 412), "{asked:?}");
    assert!(raw.exists());
}

#[test]
fn a_busy_store_is_asked_again_when_it_says() {
    let lab = Lab::new();
    let raw = small(&lab);
    let cloud = Cloud::s3(&lab, &lab.path("store"));
    let body = "<?xml version=\"1.0\"?><Error><Code>SlowDown</Code></Error>";
    cloud.meddle(move |asked| {
        let busy = matches!(asked.number % 4, 0 | 2);
        busy.then(|| answer("503 Slow Down", "retry-after: 1\r\n", body))
    });
    let target = lab.path("out.raw");
    let before = std::time::Instant::now();
    cloud.run(["convert", "--format", "raw", &address("s3", "small.raw")]).arg(&target).success();
    tools::assert_same_content(("raw", &raw), ("raw", &target));
    assert!(before.elapsed() >= std::time::Duration::from_secs(1), "it was left alone for a second");
    cloud.meddle(move |_| Some(answer("503 Slow Down", "retry-after: 4000\r\n", body)));
    cloud.run(["info", &address("s3", "small.raw")]).fails_with(3).code("http.busy");
}

/// What was asked of a store, by method and by what beside a name.
fn asked(cloud: &Cloud, word: &str) -> usize {
    cloud.seen().iter().filter(|exchange| exchange.asked.line.contains(word)).count()
}

#[test]
fn an_object_appears_whole_and_is_read_back() {
    let lab = Lab::new();
    let raw = small(&lab);
    let cloud = Cloud::s3(&lab, &lab.path("store"));
    for (name, format) in [("out.raw", "raw"), ("out.qcow2", "qcow2"), ("out.vmdk", "vmdk")] {
        let (target, back) = (address("s3", name), lab.path(name));
        let json = cloud.run(["convert", "--json", "--format", "raw"]).arg(&raw).arg(&target).success().json();
        assert_eq!((&json["output"]["path"], &json["output"]["verified"]), (&target.as_str().into(), &true.into()));
        cloud.run(["convert", "--to", "raw", &target]).arg(&back).success();
        tools::assert_same_content(("raw", &raw), ("raw", &back));
        let again = cloud.run(["convert", "--format", "raw"]).arg(&raw).arg(&target);
        again.fails_with(5).code("output.exists");
        cloud.run(["convert", "--force", "--format", "raw"]).arg(&raw).arg(&target).success();
        let listed = cloud.list();
        assert!(listed.0.contains(&format!("d/{name}")) && listed.1.is_empty(), "{format}: {listed:?}");
    }
    for options in [["--to", "vhdx"], ["--to", "ova"], ["--compress", "zlib"]] {
        let run = cloud.run(["convert", "--format", "raw"]).arg(&raw).arg(address("s3", "no.qcow2")).args(options);
        run.fails_with(2).code("convert.stream");
    }
    let itself =
        cloud.run(["convert", "--force", "--format", "raw", &address("s3", "small.raw"), &address("s3", "small.raw")]);
    itself.fails_with(2).code("output.source");
    let elsewhere = cloud.run(["convert", "--format", "raw"]).arg(&raw).arg("azblob://account/c/b");
    elsewhere.fails_with(2).code("convert.destination");
}

#[test]
fn an_upload_that_fails_leaves_nothing() {
    let lab = Lab::new();
    let raw = small(&lab);
    let cloud = Cloud::s3(&lab, &lab.path("store"));
    let convert =
        |name: &str| cloud.run(["convert", "--net-retries", "2", "--format", "raw"]).arg(&raw).arg(address("s3", name));
    let failing = |word: &'static str, status: &'static str| {
        move |asked: &Asked| {
            asked.line.contains(word).then(|| answer(status, "", "<Error><Code>AccessDenied</Code></Error>"))
        }
    };
    let nothing_is_left = |name: &str| {
        let (objects, uploads) = cloud.list();
        assert!(!objects.contains(&format!("d/{name}")) && uploads.is_empty(), "{objects:?} {uploads:?}");
    };
    cloud.meddle(failing("partNumber=2", "403 Forbidden"));
    convert("a.raw").fails_with(3).code("object.denied");
    nothing_is_left("a.raw");

    cloud.meddle(failing("partNumber=2", "503 Slow Down"));
    convert("b.raw").fails_with(3).code("http.busy");
    nothing_is_left("b.raw");

    // Once is no failure.
    let failed = std::sync::atomic::AtomicBool::new(false);
    cloud.meddle(move |asked| {
        let now = asked.line.contains("partNumber=2") && !failed.swap(true, std::sync::atomic::Ordering::SeqCst);
        now.then(|| answer("500 Internal Server Error", "", ""))
    });
    cloud.seen();
    convert("c.raw").success();
    assert_eq!(asked(&cloud, "partNumber=2"), 2);

    // What comes back is not what was sent.
    cloud.meddle(|asked| {
        let range = asked.head.lines().find(|line| line.starts_with("range: bytes=0-"))?;
        let last: usize = range.rsplit('-').next()?.trim().parse().ok()?;
        let last = last.min((24 << 20) - 1);
        let headers = format!("etag: \"1\"\r\ncontent-range: bytes 0-{last}/{}\r\n", 24 << 20);
        asked.line.starts_with("GET").then(|| answer("206 Partial", &headers, &"x".repeat(last + 1)))
    });
    let ran = convert("d.raw").ran();
    assert!(matches!(ran.status.code(), Some(3 | 6)), "{ran}");
    cloud.meddle(|_| None);
    nothing_is_left("d.raw");
}

#[test]
fn an_upload_that_is_interrupted_leaves_nothing() {
    let lab = Lab::new();
    let raw = small(&lab);
    let cloud = Cloud::s3(&lab, &lab.path("store"));
    // The second part is never taken.
    let (held, hold) = std::sync::mpsc::channel::<()>();
    let hold = std::sync::Mutex::new(hold);
    cloud.meddle(move |asked| {
        if asked.line.contains("partNumber=2") {
            let _ = hold.lock().map(|hold| hold.recv());
        }
        None
    });
    let run = cloud.run(["convert", "--format", "raw"]).arg(&raw).arg(address("s3", "e.raw")).start();
    while !cloud.seen().iter().any(|exchange| exchange.asked.line.contains("?uploads")) {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    run.terminate().exits_with(7);
    drop(held);
    let (objects, uploads) = cloud.list();
    assert!(!objects.contains(&"d/e.raw".to_owned()) && uploads.is_empty(), "{objects:?} {uploads:?}");
}

#[test]
fn a_guest_in_azure_is_read_in_place_and_holes_of_page_blobs_are_not() {
    let lab = Lab::new();
    let raw = neighbours(&lab);
    lab.link(&Variant::Plain.vmdk("stream"), "store/guest.vmdk");
    // A disk of 64 MiB with three pieces of data in it.
    let mut bytes = vec![0; 64 << 20];
    for at in [0, 17 << 20, 63 << 20] {
        bytes[at..at + (1 << 20)].fill(0x5a);
    }
    lab.file("store/holes.page", &bytes);
    let cloud = Cloud::azure(&lab, &lab.path("store"));
    guest_is_read_once(&lab, &cloud, "azblob");
    neighbours_are_opened(&lab, &cloud, "azblob");

    let (source, target) = (address("azblob", "holes.page"), lab.path("holes.raw"));
    cloud.seen();
    cloud.run(["convert", "--format", "raw", &source]).arg(&target).success();
    tools::assert_same_content(("raw", &lab.path("store/holes.page")), ("raw", &target));
    let sent: u64 = cloud.seen().iter().map(|exchange| exchange.sent).sum();
    assert!(sent <= 3 * MIB + 3 * MIB / 20 + 4096, "{sent} bytes were sent for 3 MiB of pages");

    is_seen_nowhere(&lab, &cloud, "azblob", ACCOUNT_KEY);
    azure_says_why(&lab, &cloud);
    assert!(raw.exists());
}

fn azure_says_why(lab: &Lab, cloud: &Cloud) {
    let source = address("azblob", "small.raw");
    cloud.run(["info", &address("azblob", "none.raw")]).fails_with(3).code("object.missing");
    cloud.run(["info", &source, "--anonymous"]).fails_with(3).code("object.denied");
    let connection = cloud.env[0].1.replace("Y2Fu", "AAAA");
    cloud.run(["info", &source]).env("AZURE_STORAGE_CONNECTION_STRING", connection).fails_with(3).code("object.denied");
    let token = lab.file("token", "sv=2021-12-02&sp=r&se=2030-01-01&sr=c&sig=Y2FuYXJ5\n");
    let by_token = cloud.run(["info", &source, "-vvv", "--token-file"]).arg(&token).env("HYPER2KVM_LOG", "trace");
    let denied = by_token.fails_with(3).code("object.denied");
    assert!(!denied.stderr.contains("Y2FuYXJ5"), "{denied}");
    cloud.meddle(|_| Some(answer("409 Conflict", "x-ms-error-code: BlobArchived\r\n", "")));
    cloud.run(["info", &source]).fails_with(3).code("object.archived");
    cloud.meddle(|_| None);
}

#[test]
fn a_guest_in_google_is_read_in_place() {
    let lab = Lab::new();
    neighbours(&lab);
    lab.link(&Variant::Plain.vmdk("stream"), "store/guest.vmdk");
    let cloud = Cloud::google(&lab, &lab.path("store"));
    guest_is_read_once(&lab, &cloud, "gs");
    neighbours_are_opened(&lab, &cloud, "gs");
    cloud.run(["info", &address("gs", "none.raw")]).fails_with(3).code("object.missing");
    let asked = cloud.seen();
    assert!(
        asked.iter().all(|exchange| !exchange.asked.head.contains("authorization:")),
        "emulators see no credentials"
    );
}
