//! Bytes that the file system shares, read or unread: the same content, and the same care when something fails.

use super::*;

fn varied() -> Arc<Model> {
    Model::new(&[
        (Part::Noise, 3 << 20),
        (Part::Hole, 1 << 20),
        (Part::DataZeros, 1 << 20),
        (Part::Noise, 200 * KIB),
        (Part::Hole, 5000),
        (Part::Noise, (1 << 20) + 700),
    ])
}

/// Those that take plain bytes, verified and not.
fn able(all: &[Options]) -> Vec<Options> {
    let able = || all.iter().filter(|options| options.format.takes_plain()).cloned();
    able().chain(able().map(|options| Options { verify: false, ..options })).collect()
}

fn shared(model: &Arc<Model>, path: &Path, options: &Options, mischief: Mischief) -> Result<Outcome> {
    with_mischief(model, path, options, mischief, &Arc::default())
}

#[test]
fn what_is_shared_is_the_same_disk() {
    let model = varied();
    let subclusters = with(Qcow2Options { extended_l2: true, ..Qcow2Options::default() });
    for options in able(&[more_options(), vec![subclusters]].concat()) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let read = run(checked(&model), &path, &options, &session(2), &()).unwrap();
        let whole = bytes_of(&path);
        std::fs::remove_file(&path).unwrap();
        let outcome = shared(&model.in_file(), &path, &options, Mischief::Room(u64::MAX)).unwrap();
        let bytes = outcome.bytes;
        assert!(bytes.shared > 1 << 20, "{options:?}: {bytes:?}");
        qemu_agrees(&model, &outcome, &options.format, dir.path());
        if options.verify {
            assert_eq!((&outcome.digest, outcome.verification), (&read.digest, Verification::Passed));
            assert!(bytes_of(&path) == whole, "{options:?}");
            assert_eq!((bytes.read, bytes.zero), (read.bytes.read, read.bytes.zero));
            assert_eq!(bytes.written + bytes.shared, read.bytes.written);
        } else {
            assert_eq!((&outcome.digest, outcome.verification), (&None, Verification::Off));
            assert!(bytes.read < 3 << 20, "only chunks at odd places were read: {bytes:?}");
            assert_eq!(bytes.hole, read.bytes.hole);
        }
    }
}

#[test]
fn what_is_shared_survives_every_failure() {
    let model = varied().in_file();
    for options in able(&[qcow2(64 << 10), raw()]) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        shared(&model, &path, &options, Mischief::Room(u64::MAX)).unwrap();
        let whole = bytes_of(&path);
        std::fs::remove_file(&path).unwrap();
        let attempt = |n, calls: &Arc<AtomicU64>| {
            with_mischief(&model, &path, &options, Mischief::Fail(n), calls)
                .map(|_| std::fs::remove_file(&path).unwrap())
        };
        let calls = until_it_succeeds(300, attempt, |_| {
            shared(&model, &path, &options, Mischief::Room(u64::MAX)).unwrap();
            assert!(bytes_of(&path) == whole, "{options:?}");
            assert_eq!(names(dir.path()), ["out"]);
            std::fs::remove_file(&path).unwrap();
        });
        assert!(calls.unwrap() >= 8, "{options:?}");
    }
}

#[test]
fn unread_and_read_do_not_mix() {
    let model = varied().in_file();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out");
    let unread = Options { verify: false, ..raw() };
    let mut ended = None;
    for n in 10.. {
        let result = shared(&model, &path, &unread, Mischief::Fail(n));
        let error = result.expect_err("it fails before its end");
        if names(dir.path()).len() == 2 {
            ended = Some(error);
            break;
        }
    }
    assert_eq!(ended.unwrap().kind(), Kind::NoSpace);
    let error = shared(&model, &path, &raw(), Mischief::Room(u64::MAX)).unwrap_err();
    assert_eq!(error.code(), "resume.changed");
    let outcome = shared(&model, &path, &unread, Mischief::Room(u64::MAX)).unwrap();
    assert_eq!((outcome.digest, bytes_of(&path).len() as u64), (None, outcome.len));
}

#[test]
fn sharing_is_not_held_to_the_rate() {
    let dir = tempfile::tempdir().unwrap();
    let model = Model::noise(12 << 20).in_file();
    let options = Options { verify: false, rate_limit: NonZeroU64::new(1 << 20), ..raw() };
    let start = Instant::now();
    let outcome = shared(&model, &dir.path().join("out"), &options, Mischief::Room(u64::MAX)).unwrap();
    assert!(outcome.bytes.shared > 1 << 20);
    assert!(start.elapsed() < Duration::from_secs(8), "12 MiB at 1 MiB a second");
}
