//! What `check` finds, against qemu-img's.

use super::*;

fn severities(found: &[Finding]) -> Vec<Severity> {
    found.iter().map(|finding| finding.severity).collect()
}

/// A sound image with two data clusters.
fn sound() -> Image {
    let mut image = Image::new();
    let at = image.append(&noise(1, 2 * CLUSTER));
    image
        .u64(L1, L2 as u64 | entry::COPIED)
        .l2(0, at | entry::COPIED)
        .l2(1, (at + CLUSTER as u64) | entry::COPIED)
        .counted();
    image
}

#[test]
fn a_sound_image_is_clean() {
    assert_eq!(sound().check(), []);
}

#[test]
fn each_kind_of_damage_is_found() {
    use Severity::{Corruption, Leak, Note};
    let data = DATA as u64;
    let cases: &[(&str, &[Severity], Change)] = &[
        ("l2-reserved", &[Corruption, Leak], |i| i.l2(0, 2)),
        ("l2-unaligned", &[Corruption, Leak], |i| i.l2(0, 512)),
        ("lost-cluster", &[Leak], |i| i.l2(0, 0)),
        ("flag-missing", &[Corruption], |i| i.l2(0, DATA as u64)),
        ("l1-flag-missing", &[Corruption], |i| i.u64(L1, L2 as u64)),
        ("shared", &[Corruption, Leak], |i| i.l2(1, DATA as u64 | entry::COPIED)),
        ("past-the-end", &[Corruption, Corruption, Leak], |i| i.l2(0, 1 << 40 | entry::COPIED)),
        ("dirty", &[Note], |i| i.u64(72, 1)),
        ("refcount-table-away", &[Corruption], |i| i.u64(48, 1 << 40)),
        ("data-is-the-header", &[Corruption, Corruption, Corruption, Leak], |i| i.l2(0, 0).l2(0, CLUSTER as u64)),
    ];
    for (name, expected, change) in cases {
        let mut image = sound();
        change(&mut image);
        let mut found = severities(&image.check());
        found.sort_by(|a, b| b.cmp(a));
        assert_eq!(found, *expected, "{name}: {:?}", image.check());
    }
    let _ = data;
}

#[test]
fn a_cluster_that_is_two_things_is_found_though_its_refcount_fits() {
    let mut image = sound();
    // The first cluster of data is the L2 table, whose refcount says 2.
    let block = image.0.len() - CLUSTER;
    image.u64(L1, L2 as u64).l2(0, L2 as u64).poke(block + 4, &[0, 2]).poke(block + 6, &[0, 0]);
    let found = image.check();
    assert_eq!(severities(&found), [Severity::Corruption], "{found:?}");
    assert!(found[0].what.contains("two things"), "{found:?}");
}

#[test]
fn check_ends_when_all_l1_entries_name_one_table() {
    let mut image = Image::new();
    let tables = 4096 / 8;
    image.u64(24, tables * 512 * CLUSTER as u64).u32(36, tables as u32);
    for index in 0..512 {
        image.u64(L1 + 8 * index, L2 as u64);
    }
    let found = image.counted().check();
    assert!(found.iter().any(|finding| finding.what == "several L1 entries name one L2 table"), "{found:?}");
}

#[test]
fn small_windows_find_the_same() {
    let mut image = sound();
    image.l2(0, 0).l2(5, 7 << 40);
    let layer = image.open().unwrap();
    let found_with = |window| {
        let mut found = Vec::new();
        check::run(&layer, window, &mut |finding| {
            found.push(finding);
            ControlFlow::Continue(())
        })
        .map(|()| found)
    };
    let all = found_with(1 << 20).unwrap();
    assert!(all.len() > 1);
    for window in 1..8 {
        assert_eq!(found_with(window).unwrap(), all, "{window}");
    }
}

#[test]
fn passes_are_bounded() {
    let clusters = crate::limits::MAX_QCOW2_CHECK_PASSES as usize;
    let mut image = sound();
    let check = |image: &Image| check::run(&image.open().unwrap(), 1, &mut |_| ControlFlow::Continue(()));
    image.0.resize(clusters * CLUSTER, 0);
    assert!(check(&image).is_ok());
    image.0.resize(clusters * CLUSTER + 1, 0);
    assert_eq!(check(&image).unwrap_err().code(), "qcow2.check");
}

#[test]
fn entries_are_bounded() {
    let layer = sound().open().unwrap();
    // One table of a cluster; the limit itself is more than a test can count to.
    let entries = (CLUSTER / 8) as u64;
    let check = |most| check::run_within(&layer, 1 << 20, most, &mut |_| ControlFlow::Continue(()));
    assert!(check(entries + 1).is_ok() && check(entries).is_ok());
    assert_eq!(check(entries - 1).unwrap_err().code(), "qcow2.check");
    assert!(check(crate::limits::MAX_QCOW2_CHECK_ENTRIES).is_ok());
}

#[test]
fn a_check_stops_when_it_is_told_to() {
    let mut image = sound();
    image.l2(0, 2).l2(1, 2).l2(2, 2);
    let mut count = 0;
    let layer = image.open().unwrap();
    layer
        .check(&mut |_| {
            count += 1;
            ControlFlow::Break(())
        })
        .unwrap();
    assert_eq!(count, 1);
}

/// Corruptions and leaks as `qemu-img check` counts them; `None` where it cannot open the image.
#[allow(clippy::disallowed_methods, reason = "the oracle is another program, which may fail")]
fn qemu_counts(image: &Path) -> Option<(u64, u64)> {
    let output = std::process::Command::new("qemu-img")
        .args(["check", "--output=json", "-f", "qcow2", arg(image)])
        .output()
        .expect("qemu-img is needed: apt-get install qemu-utils");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
    let number = |name: &str| json[name].as_u64().unwrap_or(0);
    (number("check-errors") == 0).then(|| (number("corruptions"), number("leaks")))
}

/// The same by this check.
fn our_counts(image: &Path) -> Option<(u64, u64)> {
    let layer = Qcow2::open(FileSource::open(image).unwrap(), &Session::with_defaults()).ok()?;
    let (mut corruptions, mut leaks) = (0, 0);
    let result = layer.check(&mut |finding| {
        match finding.severity {
            Severity::Corruption => corruptions += 1,
            Severity::Leak => leaks += 1,
            Severity::Note => {}
        }
        ControlFlow::Continue(())
    });
    result.ok().map(|()| (corruptions, leaks))
}

/// Images of many kinds, each with data, holes and something to share.
fn images(dir: &Path) -> Vec<std::path::PathBuf> {
    let kinds = [
        "compat=0.10",
        "compat=1.1",
        "cluster_size=512",
        "cluster_size=4k,refcount_bits=1",
        "cluster_size=4k,refcount_bits=2",
        "cluster_size=4k,refcount_bits=4",
        "cluster_size=4k,refcount_bits=8",
        "refcount_bits=32",
        "refcount_bits=64",
        "extended_l2=on",
        "preallocation=metadata",
    ];
    let mut all = Vec::new();
    for (index, options) in kinds.iter().enumerate() {
        let image = dir.join(format!("{index}.qcow2"));
        qemu_img(&["create", "-q", "-f", "qcow2", "-o", options, arg(&image), "4M"]);
        let writes = ["write -P 1 0 600k", "write -z 1M 70k", "write -P 2 3000k 5k"].map(str::to_owned);
        qemu_io(&image, &writes);
        if !options.contains("refcount_bits=1") {
            qemu_img(&["snapshot", "-c", "one", arg(&image)]);
            qemu_io(&image, &["write -P 3 100k 100k".to_owned()]);
        }
        if !options.contains("0.10") {
            qemu_img(&["bitmap", "--add", arg(&image), "bits"]);
            qemu_io(&image, &["write -P 4 2M 1k".to_owned()]);
        }
        all.push(image);
    }
    let raw = dir.join("raw");
    std::fs::write(&raw, sample(1_500_672)).unwrap();
    for (index, options) in ["cluster_size=64k", "compression_type=zstd,cluster_size=4k"].iter().enumerate() {
        let image = dir.join(format!("c{index}.qcow2"));
        qemu_img(&["convert", "-f", "raw", "-O", "qcow2", "-c", "-o", options, arg(&raw), arg(&image)]);
        all.push(image);
    }
    all
}

#[test]
fn agrees_with_qemu_img_check() {
    let dir = tempfile::tempdir().unwrap();
    let damaged = dir.path().join("damaged.qcow2");
    for (number, image) in images(dir.path()).iter().enumerate() {
        assert_eq!((our_counts(image), qemu_counts(image)), (Some((0, 0)), Some((0, 0))), "{}", image.display());
        #[allow(clippy::disallowed_methods, reason = "a test reads its own file")]
        let bytes = std::fs::read(image).unwrap();
        let field = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap()) & entry::OFFSET;
        let l1 = usize::try_from(field(40)).unwrap();
        let l2 = usize::try_from(field(l1)).unwrap();
        let table = usize::try_from(field(48)).unwrap();
        let block = usize::try_from(field(table)).unwrap();
        let values = noise(number as u64, 64 * 8);
        // One entry at a time: to nothing, to another cluster, to nonsense.
        for (index, value) in values.as_chunks::<8>().0.iter().enumerate().take(24) {
            let value = u64::from_be_bytes(*value);
            let place = [l1, l2, l2 + 8, l2 + 16, table, block, block + 8, block + 32][index % 8];
            let value = match index / 8 {
                0 => 0,
                1 => (value % 16 * 4096) | (value & entry::COPIED),
                _ => value,
            };
            let mut bytes = bytes.clone();
            bytes[place..place + 8].copy_from_slice(&value.to_be_bytes());
            std::fs::write(&damaged, &bytes).unwrap();
            let (ours, qemus) = (our_counts(&damaged), qemu_counts(&damaged));
            let what = format!("{} with {value:#x} at {place:#x}: {ours:?}, qemu {qemus:?}", image.display());
            let (Some(ours), Some(qemus)) = (ours, qemus) else { continue };
            assert_eq!(ours.0 > 0, qemus.0 > 0, "{what}");
            if qemus.0 == 0 {
                assert_eq!(ours.1, qemus.1, "{what}");
            }
        }
    }
}
