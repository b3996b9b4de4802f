//! Death at any point leaves nothing under a final name, and the same command then goes on and comes to the same result.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::support::{Lab, Mounted, PARTITION, Run, Variant, only, tools};

/// How many deaths each test tries; `make soak` sets more.
fn rounds() -> u32 {
    std::env::var("HYPER2KVM_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(2)
}

/// A moment for round `round`, spread over `whole` and different in each run of the tests.
fn moment(round: u32, whole: Duration) -> Duration {
    let noise = std::time::UNIX_EPOCH.elapsed().map_or(0, |time| time.subsec_nanos() % 1000);
    whole.mul_f64((f64::from(round) + f64::from(noise) / 1000.0) / f64::from(rounds()))
}

fn migrate(out: &Path) -> Run {
    Run::new(["migrate".as_ref(), Variant::Plain.ova().as_os_str(), "-o".as_ref(), out.as_os_str()])
}

fn convert(source: &Path, target: &Path) -> Run {
    Run::new(["convert".as_ref(), source.as_os_str(), target.as_os_str()])
}

fn final_names(out: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(out).into_iter().flatten().map(|entry| entry.expect("an entry").path());
    let sealed = |path: &PathBuf| path.extension().is_some_and(|found| found != "partial" && found != "journal");
    entries.filter(sealed).collect()
}

/// Waits until so many chunks, of 2 MiB each, are noted in a journal.
fn wait_for_chunks(output: &Path, count: usize) {
    let journal = beside(output, "journal");
    let start = Instant::now();
    while fs::read(&journal).map_or(0, |bytes| chunks(&bytes)) < count {
        assert!(start.elapsed() < Duration::from_secs(120), "{} does not grow", journal.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The number of whole chunk records in a journal: frames of length, checksum and body, of which the first byte is the kind.
fn chunks(mut journal: &[u8]) -> usize {
    let mut count = 0;
    while let Some((head, rest)) = journal.split_at_checked(8) {
        let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        let Some((body, rest)) = rest.split_at_checked(len as usize) else { break };
        count += usize::from(body.first() == Some(&3));
        journal = rest;
    }
    count
}

/// `OUTPUT.SUFFIX`.
fn beside(output: &Path, suffix: &str) -> PathBuf {
    let mut name = output.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

/// Bytes that a run did not read since an earlier one had, from the JSON of `convert`.
fn resumed(json: &serde_json::Value) -> u64 {
    json["output"]["bytes"]["resumed"].as_u64().expect("a number")
}

fn assert_same_file(a: &Path, b: &Path) {
    tools::ok("cmp", [a, b]);
}

#[test]
fn migrate_survives_kill() {
    let lab = Lab::new();
    let out = lab.path("out");
    let start = Instant::now();
    migrate(&out).success();
    let whole = start.elapsed();
    for round in 0..rounds() {
        fs::remove_dir_all(&out).expect("removing");
        let mut running = migrate(&out).start();
        std::thread::sleep(moment(round, whole));
        let finished = !running.is_alive();
        running.kill();
        let names = final_names(&out);
        let reported = names.iter().any(|name| name.extension().is_some_and(|found| found == "json"));
        assert!(finished || !reported || lab.names("out").len() == 4, "killed in round {round}, it left {names:?}");
        if !reported {
            migrate(&out).success();
        }
        let disk = only(&out, "qcow2");
        tools::assert_clean_qcow2(&disk);
        let raw = lab.path("result.raw");
        tools::to_raw("qcow2", &disk, &raw);
        tools::assert_clean_ext4(&raw, PARTITION);
        assert_eq!(lab.names("out").len(), 4, "leftovers: {:?}", lab.names("out"));
    }
}

/// Kills conversions of `source` into a file with this suffix, and compares each with one that nothing disturbed.
fn convert_survives_kill(source: &Path, suffix: &str, flags: &[&str]) {
    let lab = Lab::new();
    let folder = lab.folder("out");
    lab.folder("undisturbed");
    // The name is part of what the ids in an output are made of.
    let [undisturbed, target] = ["undisturbed", "out"].map(|folder| lab.path(&format!("{folder}/guest.{suffix}")));
    let convert = |source: &Path, target: &Path| flags.iter().fold(convert(source, target), Run::arg);
    let start = Instant::now();
    convert(source, &undisturbed).success();
    let whole = start.elapsed();
    for round in 0..rounds() {
        // Twice in a row, so that a resumed run dies, too.
        for _ in 0..=round % 2 {
            let mut running = convert(source, &target).start();
            std::thread::sleep(moment(round, whole));
            let finished = !running.is_alive();
            running.kill();
            // Between the name and the end, the journal says that it may be taken back.
            let named = target.exists() && !beside(&target, "journal").exists();
            assert!(finished || !target.exists() || named || beside(&target, "journal").exists());
            if finished || named {
                break;
            }
        }
        if !target.exists() || beside(&target, "journal").exists() {
            convert(source, &target).success();
        }
        assert_same_file(&undisturbed, &target);
        fs::remove_file(&target).expect("removing");
        assert!(lab.names("out").is_empty(), "leftovers in {}: {:?}", folder.display(), lab.names("out"));
    }
}

/// The first 200 MiB of the guest's disk.
fn beginning(lab: &Lab) -> PathBuf {
    let target = lab.path("beginning.raw");
    let ends = [format!("if={}", Variant::Plain.raw().display()), format!("of={}", target.display())];
    let rest = ["bs=1M", "count=200", "conv=sparse", "status=none"].map(str::to_owned);
    tools::ok("dd", ends.into_iter().chain(rest));
    target
}

#[test]
fn convert_to_every_other_format_survives_kill() {
    let lab = Lab::new();
    let source = beginning(&lab);
    let kinds: [(&str, &[&str]); 8] = [
        ("qcow2", &["--compress=zlib"]),
        ("qcow2", &["--compress=zstd", "--extended-l2"]),
        ("vhd", &["--subformat=fixed"]),
        ("vhd", &["--subformat=dynamic"]),
        ("vhdx", &[]),
        ("vdi", &[]),
        ("vmdk", &[]),
        ("ova", &[]),
    ];
    for (suffix, flags) in kinds {
        convert_survives_kill(&source, suffix, flags);
    }
}

#[test]
fn convert_of_a_stream_to_qcow2_survives_kill() {
    convert_survives_kill(&Variant::Plain.vmdk("stream"), "qcow2", &[]);
}

#[test]
fn convert_of_a_sparse_image_to_raw_survives_kill() {
    convert_survives_kill(&Variant::Plain.vmdk("sparse"), "raw", &[]);
}

#[test]
fn convert_of_a_raw_disk_to_qcow2_survives_kill() {
    convert_survives_kill(&Variant::Plain.vmdk("flat"), "qcow2", &[]);
}

#[test]
fn a_resumed_migration_comes_out_as_its_first_run_would_have() {
    let lab = Lab::new();
    let out = lab.path("out");
    let running = migrate(&out).arg("--rate-limit=100M").start();
    let disk = out.join("vmguest.qcow2");
    wait_for_chunks(&disk, 16);
    running.kill();
    let twin = lab.path("twin");
    tools::ok("cp", ["-a".as_ref(), out.as_path(), twin.as_path()]);
    std::thread::sleep(Duration::from_millis(1100));
    let reports = [&out, &twin].map(|out| {
        let report = migrate(out).arg("--json").success().json();
        assert!(report["pipeline"]["stages"]["convert"]["result"]["disks"][0]["resumed"].as_u64() > Some(10 << 20));
        report
    });
    assert_eq!(reports[0]["timestamp"], reports[1]["timestamp"], "the time is the first run's");
    assert_same_file(&disk, &twin.join("vmguest.qcow2"));
    let [one, two] = [&out, &twin].map(|out| fs::read_to_string(only(out, "xml")).expect("a domain"));
    assert_eq!(one, two.replace("/twin/", "/out/"));
}

/// The disks, the domain and the report get their names one after the other; the process dies at each of these moments.
#[test]
fn migrate_survives_death_between_the_names() {
    let lab = Lab::new();
    let (out, log) = (lab.path("out"), lab.path("strace.log"));
    let second = lab.file("data.raw", vec![7; 1 << 20]);
    let qcow2 = lab.path("data.qcow2");
    tools::ok("qemu-img", ["convert", "-O", "qcow2"].map(Path::new).into_iter().chain([second.as_path(), &qcow2]));
    let (first, named) = (Variant::Plain.vmdk("stream"), ["--name=vmguest", "--json"]);
    let migrate = || Run::new(["migrate"]).arg(&first).arg(&qcow2).args(named).arg("-o").arg(&out);
    for name in 1..10 {
        if migrate().killed_at("renameat2", name, &log).ran().status.success() {
            assert!(name > 5, "it has fewer outputs than five");
            return;
        }
        assert!(!out.join("vmguest.report.json").exists(), "the report came before its time");
        let again = migrate().success().json();
        let disks = again["pipeline"]["stages"]["convert"]["result"]["disks"].as_array().expect("disks").clone();
        for disk in &disks {
            assert_eq!((disk["read"].as_u64(), disk["resumed"].as_u64() > Some(0)), (Some(0), true), "{disk}");
            tools::assert_clean_qcow2(Path::new(disk["path"].as_str().expect("a path")));
        }
        assert_eq!((disks.len(), lab.names("out").len()), (2, 5), "leftovers: {:?}", lab.names("out"));
        fs::remove_dir_all(&out).expect("removing");
    }
    panic!("it renames without end");
}

#[test]
fn a_signal_ends_it_soon_and_the_same_command_goes_on() {
    let lab = Lab::new();
    lab.folder("out");
    let target = lab.path("out/guest.qcow2");
    let source = Variant::Plain.ova();
    let running = convert(&source, &target).arg("--rate-limit=50M").start();
    wait_for_chunks(&target, 8);
    let start = Instant::now();
    let ran = running.terminate().exits_with(7);
    // A busy machine may take longer than the two seconds that are promised; the copy would take a quarter of a minute.
    assert!(start.elapsed() < Duration::from_secs(7), "it took {:?} to end: {ran}", start.elapsed());
    assert_eq!(lab.names("out"), ["guest.qcow2.journal", "guest.qcow2.partial"]);
    let json = convert(&source, &target).arg("--json").success().json();
    assert!(resumed(&json) >= 10 << 20, "{json}");
    tools::assert_same_content(("raw", &Variant::Plain.raw()), ("qcow2", &target));
    assert_eq!(lab.names("out"), ["guest.qcow2"]);
}

#[test]
fn what_changed_meanwhile_is_not_gone_on_with() {
    let lab = Lab::new();
    let source = lab.copy(&Variant::Plain.vmdk("stream"), "guest.vmdk");
    lab.folder("out");
    let target = lab.path("out/guest.qcow2");
    let running = convert(&source, &target).arg("--rate-limit=50M").start();
    wait_for_chunks(&target, 8);
    running.kill();
    convert(&source, &target).arg("--to=raw").fails_with(2).code("resume.changed").stderr_contains("--restart");
    tools::ok("touch", [&source]);
    convert(&source, &target).fails_with(3).code("resume.changed").stderr_contains("--restart");
    assert_eq!(lab.names("out"), ["guest.qcow2.journal", "guest.qcow2.partial"]);
    let json = convert(&source, &target).args(["--restart", "--json"]).success().json();
    assert_eq!(resumed(&json), 0);
}

#[test]
fn a_full_disk_ends_it_and_room_lets_it_go_on() {
    let lab = Lab::new();
    let small = Mounted::tmpfs(1200 << 20, &lab, "small");
    let (target, ballast) = (small.path().join("guest.qcow2"), small.path().join("ballast"));
    let source = Variant::Plain.vmdk("stream");
    let running = convert(&source, &target).arg("--rate-limit=100M").start();
    wait_for_chunks(&target, 8);
    tools::output("dd", ["if=/dev/zero", &format!("of={}", ballast.display()), "bs=1M", "status=none"]);
    let ran = running.wait().exits_with(1).code("output.full");
    assert_eq!(lab.names("small"), ["ballast", "guest.qcow2.journal", "guest.qcow2.partial"], "{ran}");
    fs::remove_file(ballast).expect("removing");
    let json = convert(&source, &target).arg("--json").success().json();
    assert!(resumed(&json) > 0, "{json}");
    tools::assert_same_content(("raw", &Variant::Plain.raw()), ("qcow2", &target));
    assert_eq!(lab.names("small"), ["guest.qcow2"]);
}

#[test]
fn two_runs_do_not_write_one_output() {
    let lab = Lab::new();
    let out = lab.path("out");
    let first = migrate(&out).start();
    wait_for_chunks(&out.join("vmguest.qcow2"), 1);
    let holder = format!("process {}", first.id());
    migrate(&out).fails_with(1).code("output.locked").stderr_contains("vmguest.qcow2").stderr_contains(&holder);
    first.wait().exits_with(0);
    tools::assert_clean_qcow2(&only(&out, "qcow2"));
}

#[test]
fn progress_tells_how_far_it_is() {
    let lab = Lab::new();
    let target = lab.path("guest.qcow2");
    let running = convert(&Variant::Plain.vmdk("stream"), &target).arg("--rate-limit=100M").start();
    wait_for_chunks(&target, 8);
    running.kill();
    let ran = convert(&Variant::Plain.vmdk("stream"), &target).args(["--progress=json", "--rate-limit=200M"]).success();
    let lines: Vec<serde_json::Value> =
        ran.stderr.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    assert!(lines.iter().all(|line| line["type"] == "progress" && line["done"].as_u64() <= line["total"].as_u64()));
    let phases: Vec<&str> = lines.iter().filter_map(|line| line["phase"].as_str()).collect();
    assert!(["plan", "copy", "sync", "verify", "seal"].iter().all(|phase| phases.contains(phase)), "{phases:?}");
    let copies: Vec<_> = lines.iter().filter(|line| line["phase"] == "copy").collect();
    assert!(copies.len() >= 2 && copies.iter().skip(1).all(|line| line["resumed"].as_u64() > Some(0)), "{copies:?}");
    for field in ["bytes_per_second", "read", "written", "zero", "hole"] {
        assert!(copies.iter().all(|line| line[field].is_u64()), "{field} of {copies:?}");
    }
}

#[test]
fn it_is_never_silent_for_long() {
    let lab = Lab::new();
    let target = lab.path("guest.qcow2");
    // One chunk goes through; the next would have to wait for half an hour.
    let running =
        convert(&Variant::Plain.vmdk("stream"), &target).args(["--progress=plain", "--rate-limit=1K"]).start();
    wait_for_chunks(&target, 1);
    std::thread::sleep(Duration::from_secs(13));
    let ran = running.terminate().exits_with(7);
    let copying = ran.stderr.lines().filter(|line| line.starts_with("copy ")).count();
    assert!(copying >= 2, "{ran}");
}
