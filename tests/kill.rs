//! Death at any point leaves nothing under a final name, and the same command then succeeds.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::support::{Lab, PARTITION, Run, Variant, only, tools};

/// How many deaths each test tries; `make soak` sets more.
fn rounds() -> u32 {
    std::env::var("HYPER2KVM_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(5)
}

/// A moment for round `round`, spread over `whole` and different in each run of the tests.
fn moment(round: u32, whole: Duration) -> Duration {
    let noise = std::time::UNIX_EPOCH.elapsed().map_or(0, |time| time.subsec_nanos() % 1000);
    whole.mul_f64((f64::from(round) + f64::from(noise) / 1000.0) / f64::from(rounds()))
}

fn migrate(out: &Path) -> Run {
    Run::new(["migrate".as_ref(), Variant::Plain.ova().as_os_str(), "-o".as_ref(), out.as_os_str()])
}

fn final_names(out: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(out).into_iter().flatten().map(|entry| entry.expect("an entry").path());
    let sealed = |path: &PathBuf| path.extension().is_some_and(|found| found != "partial" && found != "journal");
    entries.filter(sealed).collect()
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
        assert!(finished || names.is_empty(), "killed in round {round}, it left {names:?}");
        if !finished {
            migrate(&out).success();
        }
        let disk = only(&out, "qcow2");
        tools::assert_clean_qcow2(&disk);
        let raw = lab.path("result.raw");
        tools::to_raw("qcow2", &disk, &raw);
        tools::assert_clean_ext4(&raw, PARTITION);
        assert_eq!(lab.names("out").iter().filter(|name| name.ends_with(".partial")).count(), 0, "leftovers");
    }
}

#[test]
fn convert_survives_kill() {
    let lab = Lab::new();
    let folder = lab.folder("out");
    let target = folder.join("guest.qcow2");
    let convert = || Run::new(["convert".as_ref(), Variant::Plain.vmdk("stream").as_os_str(), target.as_os_str()]);
    let start = Instant::now();
    convert().success();
    let whole = start.elapsed();
    for round in 0..rounds() {
        fs::remove_file(&target).expect("removing");
        let mut running = convert().start();
        std::thread::sleep(moment(round, whole));
        let finished = !running.is_alive();
        running.kill();
        assert!(finished || !target.exists(), "killed in round {round}, it left its target");
        if !finished {
            convert().success();
        }
        tools::assert_same_content(("raw", &Variant::Plain.raw()), ("qcow2", &target));
    }
}

#[test]
fn a_signal_ends_it_soon_and_says_so() {
    let lab = Lab::new();
    let out = lab.path("out");
    let running = migrate(&out).start();
    std::thread::sleep(Duration::from_millis(700));
    let start = Instant::now();
    let ran = running.terminate().exits_with(7);
    assert!(start.elapsed() < Duration::from_secs(2), "it took {:?} to end: {ran}", start.elapsed());
    assert_eq!(final_names(&out), Vec::<PathBuf>::new());
}

#[test]
fn two_runs_do_not_write_one_output() {
    let lab = Lab::new();
    let out = lab.path("out");
    let first = migrate(&out).start();
    let second = migrate(&out).start();
    let ran = [first.wait(), second.wait()];
    let (done, refused): (Vec<_>, Vec<_>) = ran.iter().partition(|ran| ran.status.success());
    assert_eq!(done.len(), 1, "{}\n{}", ran[0], ran[1]);
    assert!(refused[0].stderr.contains("vmguest.qcow2"), "{}", refused[0]);
    tools::assert_clean_qcow2(&only(&out, "qcow2"));
}
