//! A run goes on where an earlier one ended, whatever ended that, and comes to the same file.

use super::*;
use crate::disk::Stats;

/// A source whose reads are counted, with the bytes of `model`.
fn counted(model: &Arc<Model>) -> (Arc<dyn Disk>, impl Fn() -> u64 + use<>) {
    let disk: Arc<dyn Disk> = checked(model);
    let count = Arc::clone(&disk);
    (disk, move || count.stats().map_or(0, |stats: Stats| stats.bytes))
}

/// What an undisturbed run comes to.
fn undisturbed(model: &Arc<Model>, options: &Options) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    bytes_of(&run(checked(model), &dir.path().join("out"), options, &session(2), &()).unwrap().path)
}

/// Runs until the copy was told `at` updates.
fn interrupted(model: &Arc<Model>, path: &Path, options: &Options, at: usize) -> Error {
    let session = session(1);
    let watch = Watch { updates: Mutex::default(), cancel_at: Some((at, Arc::clone(&session))) };
    run(checked(model), path, options, &session, &watch).unwrap_err()
}

/// Noise, zeros that are not known as such, and holes.
fn varied() -> Arc<Model> {
    Model::new(&[
        (Part::Noise, 5 << 20),
        (Part::Hole, 3 << 20),
        (Part::DataZeros, 3 << 20),
        (Part::Noise, 100 * KIB),
        (Part::Hole, 5 << 20),
        (Part::Noise, (4 << 20) + 700),
    ])
}

#[test]
fn what_was_read_is_not_read_again() {
    let model = varied();
    for options in all_options() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let whole = undisturbed(&model, &options);
        for at in [3, 6, 12] {
            assert_eq!(interrupted(&model, &path, &options, at).kind(), Kind::Interrupted);
            assert_eq!(names(dir.path()), ["out.journal", "out.partial"]);
            let (source, read) = counted(&model);
            let outcome = run(source, &path, &options, &session(2), &()).unwrap();
            let bytes = outcome.bytes;
            assert!(bytes.resumed > 0 && bytes.read + bytes.resumed + bytes.hole == outcome.len, "{bytes:?}");
            // What is added to fill the last sector or mebibyte is read, too, but not of the source.
            let added = outcome.len - model.len();
            assert!(bytes.read - read() <= added, "{} bytes were read for {bytes:?}", read());
            assert!(bytes_of(&path) == whole, "{options:?} after {at} updates");
            assert_eq!(names(dir.path()), ["out"]);
            std::fs::remove_file(&path).unwrap();
        }
    }
}

#[test]
fn it_can_be_interrupted_again_and_again() {
    let model = varied();
    for options in all_options() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let mut runs = 0;
        let outcome = loop {
            runs += 1;
            let session = session(1);
            // The first update is that of the plan, the second that of the copy's start, and then there is one for each chunk.
            let watch = Watch { updates: Mutex::default(), cancel_at: Some((1 + 2 * runs, Arc::clone(&session))) };
            match run(checked(&model), &path, &options, &session, &watch) {
                Ok(outcome) => break outcome,
                Err(error) => assert_eq!(error.kind(), Kind::Interrupted),
            }
        };
        assert!(runs > 3);
        assert_eq!(outcome.verification, Verification::Passed);
        assert!(bytes_of(&path) == undisturbed(&model, &options), "{options:?}");
    }
}

#[test]
fn windows_that_are_done_are_not_looked_at_again() {
    let options = Options::default();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out");
    let disk = || -> Arc<dyn Disk> { Checked::wrap(Dots { len: 5 << 30, every: 400 << 20 }) };
    let whole = bytes_of(&run(disk(), &dir.path().join("whole"), &options, &session(2), &()).unwrap().path);
    for at in [4, 7, 10, 12] {
        let session = session(1);
        let watch = Watch { updates: Mutex::default(), cancel_at: Some((at, Arc::clone(&session))) };
        run(disk(), &path, &options, &session, &watch).unwrap_err();
        let outcome = run(disk(), &path, &options, &super::session(2), &()).unwrap();
        assert_eq!((outcome.bytes.read + outcome.bytes.resumed, outcome.bytes.resumed > 0), (13 * 65_536, true));
        assert!(bytes_of(&path) == whole);
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn after_every_failure_of_the_source_it_goes_on() {
    let model = several_chunks();
    for options in all_options() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let whole = undisturbed(&model, &options);
        let calls = until_it_succeeds(
            100,
            |n, calls| {
                let source: Arc<dyn Disk> = Checked::wrap(Fault::nth(checked(&model), Arc::clone(calls), n));
                run(source, &path, &options, &session(2), &()).map(|_| std::fs::remove_file(&path).unwrap())
            },
            |_| {
                run(checked(&model), &path, &options, &session(2), &()).unwrap();
                assert!(bytes_of(&path) == whole, "{options:?}");
                assert_eq!(names(dir.path()), ["out"]);
                std::fs::remove_file(&path).unwrap();
            },
        );
        assert!(calls.unwrap() >= 6);
    }
}

#[test]
fn after_every_failure_of_the_output_it_goes_on() {
    let model = several_chunks();
    for options in all_options() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let whole = undisturbed(&model, &options);
        let attempt = |n, calls: &Arc<AtomicU64>| {
            with_mischief(&model, &path, &options, Mischief::Fail(n), calls)
                .map(|_| std::fs::remove_file(&path).unwrap())
        };
        let after = |n| {
            let outcome = run(checked(&model), &path, &options, &session(2), &()).unwrap();
            assert!(bytes_of(&path) == whole, "{options:?}: after the failure of call {n}: {outcome:?}");
            assert_eq!(names(dir.path()), ["out"]);
            std::fs::remove_file(&path).unwrap();
        };
        assert!(until_it_succeeds(300, attempt, after).unwrap() >= 20, "{options:?}");
    }
}

#[test]
fn what_a_failed_sync_covered_is_not_trusted() {
    let model = Model::noise(9 << 20);
    let raw = raw();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out");
    let mut failed_syncs = 0;
    for n in 0.. {
        let calls = Arc::new(AtomicU64::new(0));
        let result = with_mischief(&model, &path, &raw, Mischief::FailSync(n), &calls);
        match result {
            Ok(_) if calls.load(Ordering::Relaxed) <= n => break,
            Ok(_) => {}
            Err(error) => {
                failed_syncs += 1;
                assert_eq!(error.kind(), Kind::Failed);
                let (source, read) = counted(&model);
                run(source, &path, &raw, &session(2), &()).unwrap();
                assert_eq!(read(), 9 << 20, "all of it was read again, since nothing was known to be durable");
            }
        }
        std::fs::remove_file(&path).unwrap();
    }
    assert!(failed_syncs >= 1);
}

#[test]
fn another_source_other_options_or_another_length_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out");
    let model = several_chunks();
    let qcow2 = Options::default();
    interrupted(&model, &path, &qcow2, 5);
    let before = (bytes_of(&dir.path().join("out.partial")), names(dir.path()));

    let changed = Arc::new((*model).clone());
    changed.changes.store(1, Ordering::Relaxed);
    let again = |model: &Arc<Model>, options: &Options| run(checked(model), &path, options, &session(2), &());
    let error = again(&changed, &qcow2).unwrap_err();
    assert_eq!((error.code(), error.kind().exit_code()), ("resume.changed", 3));
    changed.changes.store(0, Ordering::Relaxed);
    for options in [raw(), super::qcow2(4 << 10)] {
        let error = again(&model, &options).unwrap_err();
        assert_eq!((error.code(), error.kind().exit_code()), ("resume.changed", 2));
        assert!(error.next().unwrap().contains("--restart"));
    }
    assert_eq!(again(&Model::noise(5 << 20), &qcow2).unwrap_err().code(), "resume.changed");
    assert_eq!((bytes_of(&dir.path().join("out.partial")), names(dir.path())), before, "it stays as it was");

    // What does not change the output does not matter.
    let rate_limit = NonZeroU64::new(1 << 40);
    let other = Options { verify: false, force: true, rate_limit, ..qcow2.clone() };
    assert!(again(&model, &other).unwrap().bytes.resumed > 0);
    std::fs::remove_file(&path).unwrap();

    interrupted(&model, &path, &qcow2, 5);
    let restarted = again(&changed, &Options { restart: true, ..qcow2 }).unwrap();
    assert_eq!(restarted.bytes.resumed, 0);
}

#[test]
fn time_and_seed_are_those_of_the_first_run() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out");
    let model = several_chunks();
    let first = session(2);
    let moment = first.resume(crate::session::Moment { now: 77, seed: [7; 32] });
    let watch = Watch { updates: Mutex::default(), cancel_at: Some((5, Arc::clone(&first))) };
    run(checked(&model), &path, &Options::default(), &first, &watch).unwrap_err();
    let second = session(2);
    resume(&[dir.path().join("absent"), path.clone()], &second);
    assert_eq!(second.moment(), moment);
    let third = session(2);
    run(checked(&model), &path, &Options::default(), &third, &()).unwrap();
    assert_eq!(third.moment(), moment);

    interrupted(&model, &path.with_extension("other"), &Options::default(), 5);
    let late = session(2);
    let _ = late.now();
    let error = run(checked(&model), &path.with_extension("other"), &Options::default(), &late, &()).unwrap_err();
    assert_eq!(error.code(), "resume.changed", "what it wrote with another time is not gone on with");
}

#[test]
fn damage_to_the_journal_costs_what_is_behind_it() {
    let model = several_chunks();
    for options in all_options() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let whole = undisturbed(&model, &options);
        interrupted(&model, &path, &options, 5);
        let [journal, partial] = ["out.journal", "out.partial"].map(|name| bytes_of(&dir.path().join(name)));
        for at in (0..journal.len()).step_by((journal.len() / 24) | 1) {
            for damage in ["cut", "flip", "zeros"] {
                let mut damaged = journal.clone();
                match damage {
                    "cut" => damaged.truncate(at),
                    "flip" => damaged[at] ^= 0x40,
                    _ => damaged[at..].fill(0),
                }
                std::fs::write(dir.path().join("out.journal"), damaged).unwrap();
                std::fs::write(dir.path().join("out.partial"), &partial).unwrap();
                let outcome =
                    run(checked(&model), &path, &Options { verify: false, ..options.clone() }, &session(1), &());
                assert_eq!(outcome.unwrap().verification, Verification::Off);
                assert!(bytes_of(&path) == whole, "{options:?}: {damage} at {at}");
                std::fs::remove_file(&path).unwrap();
            }
        }
    }
}

#[test]
fn damage_to_the_unfinished_file_is_noticed_and_repaired() {
    let model = varied();
    for options in all_options() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let whole = undisturbed(&model, &options);
        for part in 0..6 {
            interrupted(&model, &path, &options, 4);
            let mut partial = bytes_of(&dir.path().join("out.partial"));
            let at = partial.len() * part / 6;
            match part % 3 {
                0 => partial.truncate(at),
                1 => partial[at..].fill(0),
                _ => {
                    // A byte that was written: those between the tables are nobody's.
                    let mut nearby = (at..partial.len()).chain((0..at).rev());
                    let written = nearby.find(|at| partial[*at] != 0).unwrap();
                    partial[written] ^= 1;
                }
            }
            std::fs::write(dir.path().join("out.partial"), partial).unwrap();
            run(checked(&model), &path, &options, &session(2), &()).unwrap();
            assert!(bytes_of(&path) == whole, "{options:?}: {part}");
            std::fs::remove_file(&path).unwrap();
        }
    }
}

#[test]
fn a_run_that_died_after_giving_the_name_is_gone_on_with() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out");
    let model = several_chunks();
    let named = |force| {
        let options = Options { force, ..Options::default() };
        let verified = prepare(checked(&model), &path, &options, &session(2), &())?.copy(&())?.verify(&())?;
        verified.name(&()).map(|_| ())
    };
    named(false).unwrap();
    assert_eq!(names(dir.path()), ["out", "out.journal"]);
    assert!(is_unfinished(&path));
    let (source, read) = counted(&model);
    let outcome = run(source, &path, &Options::default(), &session(2), &()).unwrap();
    assert_eq!((read(), outcome.verification), (0, Verification::Passed));
    assert_eq!(names(dir.path()), ["out"]);
    assert!(!is_unfinished(&path));

    // Somebody uses it: it is not ours any more.
    named(true).unwrap();
    std::fs::write(&path, "a guest's new data").unwrap();
    assert!(!is_unfinished(&path));
    assert_eq!(named(false).unwrap_err().code(), "output.exists");
    assert_eq!(bytes_of(&path), b"a guest's new data");
}

#[test]
fn errors_that_will_not_pass_leave_nothing() {
    #[derive(Debug)]
    struct Corrupt(Arc<dyn Disk>);

    impl Disk for Corrupt {
        fn len(&self) -> u64 {
            self.0.len()
        }

        fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
            if offset >= 4 << 20 {
                return Err(Error::corrupt("disk.range", "planted"));
            }
            self.0.read_at(buf, offset)
        }

        fn extents(&self, range: Range<u64>, visit: &mut Visit<'_>) -> Result<()> {
            self.0.extents(range, visit)
        }

        fn fingerprint(&self) -> Result<Fingerprint> {
            self.0.fingerprint()
        }

        fn describe(&self) -> (&'static str, String) {
            self.0.describe()
        }
    }

    let dir = tempfile::tempdir().unwrap();
    let source: Arc<dyn Disk> = Checked::wrap(Corrupt(checked(&Model::noise(9 << 20))));
    let path = dir.path().join("out");
    assert_eq!(run(source, &path, &Options::default(), &session(1), &()).unwrap_err().kind(), Kind::Corrupt);
    assert!(names(dir.path()).is_empty());
}

#[test]
fn the_holder_of_the_lock_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out");
    let _first = prepare(checked(&several_chunks()), &path, &Options::default(), &session(1), &()).unwrap();
    let second = prepare(checked(&several_chunks()), &path, &Options::default(), &session(1), &()).unwrap_err();
    assert_eq!(second.code(), "output.locked");
    assert!(second.to_string().contains(&format!("process {}", std::process::id())), "{second}");
}
