//! Increments over a backing file.

use super::*;

/// An increment of `model` over `base`, as QEMU reads it.
fn increment(model: &Model, base: &Model, options: Qcow2Options) -> Outcome {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("base"), &base.bytes).unwrap();
    let backing = Some(BackingName { file: "base".to_owned(), format: "raw".to_owned() });
    let below: Arc<dyn Disk> = Checked::wrap(base.clone());
    let options = Options { base: Some(below), ..with(Qcow2Options { backing, ..options }) };
    let source: Arc<dyn Disk> = Checked::wrap(model.clone());
    let outcome = run(source, &dir.path().join("out"), &options, &session(2), &()).unwrap();
    assert_eq!(outcome.verification, Verification::Passed);
    qemu_agrees(model, &outcome, &options.format, dir.path());
    outcome
}

#[test]
fn an_increment_has_what_differs() {
    let base = Model::new(&[(Part::Noise, 3 << 20), (Part::Hole, 2 << 20), (Part::Noise, 1 << 20)]);
    let mut changed = (*base).clone();
    changed.bytes[1 << 20] ^= 1;
    changed.bytes[(2 << 20)..(2 << 20) + 200_000].fill(0);
    changed.bytes[(4 << 20) + 77] = 1;
    changed.extents = vec![Extent { range: 0..6 << 20, kind: ExtentKind::Data, depth: 0, place: None }];
    let plain = Qcow2Options::default;
    for options in [
        plain(),
        Qcow2Options { cluster_size: 4 << 10, ..plain() },
        Qcow2Options { cluster_size: 2 << 20, ..plain() },
        Qcow2Options { extended_l2: true, ..plain() },
        Qcow2Options { compression: Some(Compression::Zstd(3)), ..plain() },
    ] {
        let outcome = increment(&changed, &base, options.clone());
        assert!(outcome.bytes.written <= 5 * options.cluster_size.max(65_536), "{outcome:?}");
    }
}

#[test]
fn an_increment_may_be_longer_or_shorter_than_its_base() {
    let (long, short) = (Model::noise(5 << 20), Model::noise((2 << 20) + 512));
    let holes = Model::new(&[(Part::Hole, 3 << 20), (Part::Noise, 512)]);
    for (model, base) in [(&long, &short), (&short, &long), (&holes, &long), (&long, &holes), (&long, &long)] {
        increment(model, base, Qcow2Options::default());
    }
}
