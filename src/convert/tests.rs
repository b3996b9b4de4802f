use std::fs::File;
use std::ops::{ControlFlow, Range};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;

use super::output::Log;
use super::*;
use crate::disk::{Extent, ExtentKind, Fault, HostRange, Visit, until_it_succeeds};
use crate::session::{Budget, Policy};
use crate::testing::{arg, noise, qemu_img};

mod crash;
mod increment;
mod mischief;
mod places;
mod resume;
mod sharing;

use mischief::{Mischief, Mischievous, with_mischief};

const KIB: usize = 1024;

/// Bytes with a map that need not tell everything: data may be zeros, and zeros may be of either kind.
#[derive(Clone, Debug)]
struct Model {
    bytes: Vec<u8>,
    extents: Vec<Extent>,
    changes: Arc<AtomicU64>,
    /// The same bytes in a file.
    file: Option<Arc<File>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Noise,
    /// Half of it is noise: it compresses.
    Text,
    DataZeros,
    Zero,
    Hole,
}

impl Model {
    /// Parts one after the other. Every second one is said to lie before the one before it.
    fn new(parts: &[(Part, usize)]) -> Arc<Self> {
        let mut bytes = Vec::new();
        let mut extents = Vec::new();
        for (index, (part, len)) in parts.iter().enumerate().filter(|(_, (_, len))| *len > 0) {
            let start = bytes.len() as u64;
            let kind = match part {
                Part::Noise | Part::Text | Part::DataZeros => ExtentKind::Data,
                Part::Zero => ExtentKind::Zero,
                Part::Hole => ExtentKind::Hole,
            };
            match part {
                Part::Noise => bytes.extend(noise(index as u64, *len)),
                Part::Text => {
                    let noise = noise(index as u64, *len);
                    bytes.extend(noise.iter().enumerate().map(|(at, byte)| if at % 64 < 32 { *byte } else { b'-' }));
                }
                _ => bytes.resize(bytes.len() + len, 0),
            }
            let place = (index % 3 != 0).then_some(((index as u64) ^ 1) << 40);
            extents.push(Extent { range: start..bytes.len() as u64, kind, depth: 0, place });
        }
        Arc::new(Self { bytes, extents, changes: Arc::default(), file: None })
    }

    /// The same disk, which says that its bytes lie in a file, a mebibyte further on.
    fn in_file(&self) -> Arc<Self> {
        let file = tempfile::tempfile().unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &self.bytes, 1 << 20).unwrap();
        Arc::new(Self { file: Some(Arc::new(file)), ..self.clone() })
    }

    fn noise(len: usize) -> Arc<Self> {
        Self::new(&[(Part::Noise, len)])
    }
}

impl Disk for Model {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let at = usize::try_from(offset).unwrap();
        buf.copy_from_slice(&self.bytes[at..at + buf.len()]);
        Ok(())
    }

    fn extents(&self, range: Range<u64>, visit: &mut Visit<'_>) -> Result<()> {
        for extent in &self.extents {
            let cut = extent.range.start.max(range.start)..extent.range.end.min(range.end);
            if cut.start >= cut.end {
                continue;
            }
            let place = extent.place.map(|place| place + cut.start - extent.range.start);
            if visit(Extent { range: cut, place, ..extent.clone() }).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn host(&self, range: Range<u64>) -> Result<Option<HostRange>> {
        let Some(file) = &self.file else { return Ok(None) };
        // In runs, as where an image has its tables between; those at the end are at odd places.
        let run = if range.start < self.len() - (2 << 20) { 704_512 } else { 100_001 };
        let len = (range.end - range.start).min(run);
        Ok(Some(HostRange { file: Arc::clone(file), offset: range.start + (1 << 20), len }))
    }

    fn fingerprint(&self) -> Result<Fingerprint> {
        Ok(Fingerprint([u8::try_from(self.changes.load(Ordering::Relaxed)).unwrap(); 32]))
    }

    fn describe(&self) -> (&'static str, String) {
        ("model", String::new())
    }
}

fn checked(model: &Arc<Model>) -> Arc<dyn Disk> {
    Checked::wrap((**model).clone())
}

fn session(jobs: usize) -> Arc<Session> {
    Session::new(Budget::new(0), Policy::default(), jobs)
}

fn qcow2(cluster_size: u64) -> Options {
    Options { format: Format::Qcow2(Qcow2Options { cluster_size, ..Qcow2Options::default() }), ..Options::default() }
}

fn raw() -> Options {
    Options { format: Format::Raw(RawOptions::default()), ..Options::default() }
}

/// Every format that is written, with some cluster sizes.
fn all_options() -> Vec<Options> {
    let mut all = vec![qcow2(4 << 10), qcow2(64 << 10), qcow2(2 << 20)];
    let others = TARGETS.iter().map(|target| (target.format)()).filter(|format| format.name() != "qcow2");
    let dynamic = Format::Vhd(VhdOptions { subformat: VhdSubformat::Dynamic });
    all.extend(others.chain([dynamic]).map(|format| Options { format, ..Options::default() }));
    for options in &mut all {
        // Compressing takes long without optimization, and is no business of most tests.
        match &mut options.format {
            Format::Ova(ova) => ova.level = 0,
            Format::Vmdk(vmdk) => vmdk.level = 0,
            _ => {}
        }
    }
    all
}

fn with(options: Qcow2Options) -> Options {
    Options { format: Format::Qcow2(options), ..Options::default() }
}

/// Options of the formats, beside [`all_options`].
fn more_options() -> Vec<Options> {
    let plain = Qcow2Options::default;
    let compressed = [(4 << 10, "zlib:1"), (64 << 10, "zlib"), (64 << 10, "zstd"), (2 << 20, "zstd:1")];
    let compressed = compressed.map(|(cluster_size, compression)| {
        let compression = Some(Compression::parse(compression).unwrap());
        with(Qcow2Options { cluster_size, compression, ..plain() })
    });
    let fixed = [Preallocation::Metadata, Preallocation::Falloc, Preallocation::Full];
    let fixed = fixed.map(|preallocation| with(Qcow2Options { preallocation, ..plain() }));
    let subclusters = || Qcow2Options { extended_l2: true, ..plain() };
    let subclusters = [
        subclusters(),
        Qcow2Options { cluster_size: 16 << 10, ..subclusters() },
        Qcow2Options { compression: Some(Compression::Zstd(1)), ..subclusters() },
        Qcow2Options { preallocation: Preallocation::Metadata, ..subclusters() },
    ]
    .map(with);
    let others = [RawPreallocation::Falloc, RawPreallocation::Full]
        .map(|preallocation| Options { format: Format::Raw(RawOptions { preallocation }), ..Options::default() });
    [&all_options()[..], &compressed, &fixed, &subclusters, &others].concat()
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn bytes_of(path: &Path) -> Vec<u8> {
    #[allow(clippy::disallowed_methods, reason = "a test reads its own file")]
    std::fs::read(path).unwrap()
}

fn bytes_at(file: &File, offset: u64, len: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(len).unwrap()];
    std::os::unix::fs::FileExt::read_exact_at(file, &mut bytes, offset).unwrap();
    bytes
}

/// Converts `model` and reads the result back: what verification saw is not taken for granted.
fn convert(model: &Arc<Model>, options: &Options, dir: &Path) -> Outcome {
    let outcome = run(checked(model), &dir.join("out"), options, &session(2), &()).unwrap();
    assert_eq!(outcome.verification, Verification::Passed);
    let unit = usize::try_from(options.format.size_unit().max(512)).unwrap();
    let padded = model.bytes.len().next_multiple_of(unit);
    assert_eq!(outcome.len, padded as u64);
    let bytes = outcome.bytes;
    assert_eq!(bytes.read + bytes.hole, outcome.len);
    let cluster = match &options.format {
        Format::Qcow2(options) => options.cluster_size,
        _ => 512,
    };
    let full = format!("{:?}", options.format).contains("Full");
    let large = cluster > plan::BLOCK || full;
    assert!(bytes.read == bytes.written + bytes.zero || large && bytes.read < bytes.written + bytes.zero, "{bytes:?}");
    let file_len = std::fs::metadata(&outcome.path).unwrap().len();
    assert_eq!(file_len, outcome.file_len);
    if matches!(options.format, Format::Raw(_)) {
        assert!(bytes_of(&outcome.path).starts_with(&model.bytes));
        assert_eq!(file_len, padded as u64);
    } else {
        assert_eq!(file_len % cluster, 0);
    }
    outcome
}

/// `qemu-img` finds nothing wrong with the image, and the bytes of `model` in it.
fn qemu_agrees(model: &Model, outcome: &Outcome, format: &Format, dir: &Path) {
    let raw = dir.join("raw");
    std::fs::write(&raw, &model.bytes).unwrap();
    let format = match format.name() {
        "vhd" => "vpc",
        name => name,
    };
    if ["qcow2", "vdi", "vhdx", "vmdk"].contains(&format) {
        let report = qemu_img(&["check", "-f", format, arg(&outcome.path)]);
        assert!(report.contains("No errors were found"), "{report}");
    }
    if format == "ova" {
        let member = unpacked(&outcome.path, "machine-disk1.vmdk", dir);
        qemu_img(&["check", "-f", "vmdk", arg(&member)]);
        qemu_img(&["compare", "-f", "raw", "-F", "vmdk", arg(&raw), arg(&member)]);
        return;
    }
    qemu_img(&["compare", "-f", "raw", "-F", format, arg(&raw), arg(&outcome.path)]);
}

/// A member of an archive, as tar finds it.
fn unpacked(archive: &Path, member: &str, dir: &Path) -> PathBuf {
    #[allow(clippy::disallowed_methods, reason = "a test runs tar")]
    let mut tar = std::process::Command::new("tar");
    let output = tar.arg("-xf").arg(archive).arg("-C").arg(dir).arg(member).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    dir.join(member)
}

fn parts() -> impl Strategy<Value = Vec<(Part, usize)>> {
    let kind =
        prop_oneof![Just(Part::Noise), Just(Part::Text), Just(Part::DataZeros), Just(Part::Zero), Just(Part::Hole)];
    let len = prop_oneof![1..700_usize, (1..70_usize).prop_map(|n| n * 4 * KIB), 1..3_000_000_usize];
    prop::collection::vec((kind, len), 1..8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_map_is_converted(parts in parts(), which in 0..100_usize) {
        let dir = tempfile::tempdir().unwrap();
        let model = Model::new(&parts);
        let options = more_options();
        let options = &options[which % options.len()];
        let outcome = convert(&model, options, dir.path());
        qemu_agrees(&model, &outcome, &options.format, dir.path());
    }
}

#[test]
fn odd_sizes() {
    let chunk = plan::CHUNK as usize;
    for len in [1, 511, 513, 4095, 65_537, chunk - 1, chunk + 1, 2 * chunk + 700] {
        let model = Model::noise(len);
        for options in more_options() {
            let dir = tempfile::tempdir().unwrap();
            let outcome = convert(&model, &options, dir.path());
            qemu_agrees(&model, &outcome, &options.format, dir.path());
        }
    }
}

#[test]
fn the_digest_depends_on_the_content_only() {
    let dir = tempfile::tempdir().unwrap();
    let mut digests: Vec<Option<String>> = Vec::new();
    let told = Model::new(&[(Part::Noise, 100 * KIB), (Part::Hole, 5000 * KIB), (Part::Noise, 7 * KIB)]);
    let mut untold = (*told).clone();
    untold.extents = vec![Extent { range: 0..told.len(), kind: ExtentKind::Data, depth: 0, place: None }];
    for model in [told, Arc::new(untold)] {
        // What is rounded up to mebibytes is another disk.
        for options in more_options().into_iter().filter(|options| options.format.size_unit() <= 512) {
            digests.push(convert(&model, &Options { force: true, ..options }, dir.path()).digest);
        }
    }
    digests.dedup();
    assert_eq!(digests.len(), 1);
    let other = convert(&Model::noise(100), &Options { force: true, ..Options::default() }, dir.path()).digest;
    assert_ne!(digests[0], other);
}

#[test]
fn the_file_is_the_same_on_every_run() {
    let parts: Vec<_> =
        (0..40).map(|n| ([Part::Noise, Part::DataZeros, Part::Text, Part::Hole][n % 4], 100_000 + n * 7777)).collect();
    let model = Model::new(&parts);
    for options in more_options() {
        let dir = tempfile::tempdir().unwrap();
        let files = [1, 2, 7].map(|jobs| {
            let path = dir.path().join("out");
            run(checked(&model), &path, &options, &session(jobs), &()).unwrap();
            let hash = blake3::hash(&bytes_of(&path));
            std::fs::remove_file(&path).unwrap();
            hash
        });
        assert!(files.windows(2).all(|pair| pair[0] == pair[1]), "{options:?}");
    }
}

#[test]
fn zeros_take_no_space() {
    let dir = tempfile::tempdir().unwrap();
    let model = Model::new(&[(Part::DataZeros, 20 << 20), (Part::Noise, 1), (Part::Zero, 9 << 20)]);
    let outcome = convert(&model, &Options::default(), dir.path());
    assert_eq!(
        outcome.bytes,
        Bytes {
            read: (20 << 20) + 65_536,
            written: 65_536,
            zero: 20 << 20,
            hole: (9 << 20) - 65_536 + 512,
            ..Bytes::default()
        }
    );
    assert_eq!(outcome.file_len, 6 * 65_536, "header, L1, data, L2, refcount table, refcount block");
}

#[test]
fn a_disk_without_bytes_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let error = run(checked(&Model::new(&[])), &dir.path().join("out"), &Options::default(), &session(1), &());
    assert_eq!(error.unwrap_err().code(), "convert.empty");
    assert!(names(dir.path()).is_empty());
}

#[test]
fn impossible_cluster_sizes_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for size in [0, 512, 2048, 5000, 4 << 20, u64::MAX] {
        let error =
            run(checked(&Model::noise(9)), &dir.path().join("out"), &qcow2(size), &session(1), &()).unwrap_err();
        assert_eq!((error.code(), error.kind().exit_code()), ("convert.cluster", 2));
    }
    let huge: Arc<dyn Disk> = Checked::wrap(Zero { len: 64 << 40 });
    let small = qcow2(4 << 10);
    let error = run(huge, &dir.path().join("out"), &small, &session(1), &()).unwrap_err();
    assert_eq!(error.code(), "convert.cluster");
    assert!(names(dir.path()).is_empty());
}

/// A big disk with a few bytes here and there.
#[derive(Debug)]
struct Dots {
    len: u64,
    every: u64,
}

impl Disk for Dots {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        for (at, byte) in (offset..).zip(buf) {
            *byte = u8::from(at % self.every == 0);
        }
        Ok(())
    }

    fn extents(&self, range: Range<u64>, visit: &mut Visit<'_>) -> Result<()> {
        let mut at = range.start;
        while at < range.end {
            let is_dot = at % self.every < 512;
            let end = if is_dot { at - at % self.every + 512 } else { at - at % self.every + self.every };
            let (end, kind) = (end.min(range.end), if is_dot { ExtentKind::Data } else { ExtentKind::Hole });
            if visit(Extent { range: at..end, kind, depth: 0, place: None }) == ControlFlow::Break(()) {
                break;
            }
            at = end;
        }
        Ok(())
    }

    fn fingerprint(&self) -> Result<Fingerprint> {
        Ok(Fingerprint::of(&[]))
    }

    fn describe(&self) -> (&'static str, String) {
        ("dots", String::new())
    }
}

#[test]
fn a_huge_sparse_disk_stays_small() {
    let dir = tempfile::tempdir().unwrap();
    for (options, name) in [(qcow2(64 << 10), "qcow2"), (raw(), "raw")] {
        let disk: Arc<dyn Disk> = Checked::wrap(Dots { len: 1 << 40, every: 50 << 30 });
        let outcome = run(disk, &dir.path().join(name), &options, &session(2), &()).unwrap();
        assert_eq!(outcome.bytes.read, 21 * 65_536);
        let blocks = std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(&outcome.path).unwrap());
        assert!(blocks * 512 < 4 << 20, "{name} takes {blocks} blocks");
    }
    assert!(qemu_img(&["check", arg(&dir.path().join("qcow2"))]).contains("No errors"));
}

#[test]
fn every_failure_of_the_source_is_an_error() {
    let model = Model::new(&[(Part::Noise, 3 << 20), (Part::Hole, 1 << 20), (Part::Noise, 100 * KIB)]);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out");
    let calls = until_it_succeeds(
        100,
        |n, calls| {
            let source: Arc<dyn Disk> = Checked::wrap(Fault::nth(checked(&model), Arc::clone(calls), n));
            run(source, &path, &Options::default(), &session(2), &()).map(|_| std::fs::remove_file(&path).unwrap())
        },
        |_| left_nothing_or_all(dir.path()),
    );
    assert!(calls.unwrap() >= 4);
}

/// An unfinished output has its journal, and nothing has the final name; both are removed.
fn left_nothing_or_all(dir: &Path) {
    let names = names(dir);
    assert!(names.is_empty() || names == ["out.journal", "out.partial"], "{names:?}");
    names.iter().for_each(|name| std::fs::remove_file(dir.join(name)).unwrap());
}

/// Several chunks, so that swapped and repeated writes differ.
fn several_chunks() -> Arc<Model> {
    Model::new(&[(Part::Noise, 5 << 20), (Part::Hole, 1 << 20), (Part::Noise, 100 * KIB), (Part::Hole, 99)])
}

#[test]
fn every_failure_of_the_output_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out");
    for options in all_options() {
        let attempt = |n, calls: &Arc<AtomicU64>| {
            with_mischief(&several_chunks(), &path, &options, Mischief::Fail(n), calls)
                .inspect_err(|error| assert_eq!(error.kind(), Kind::NoSpace))
                .map(|_| std::fs::remove_file(&path).unwrap())
        };
        let calls = until_it_succeeds(300, attempt, |_| left_nothing_or_all(dir.path()));
        assert!(calls.unwrap() >= 8, "{options:?}");
    }
}

#[test]
fn wrong_bytes_are_caught() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out");
    let model = several_chunks();
    for options in all_options() {
        let calls = Arc::default();
        with_mischief(&model, &path, &options, Mischief::Room(u64::MAX), &calls).unwrap();
        let right = bytes_of(&path);
        std::fs::remove_file(&path).unwrap();
        let mut caught = 0;
        for n in 1..calls.load(Ordering::Relaxed) {
            for mischief in [Mischief::Flip(n), Mischief::Skip(n), Mischief::Swap(n), Mischief::Repeat(n)] {
                match with_mischief(&model, &path, &options, mischief, &Arc::default()) {
                    Err(error) => {
                        let kind = error.kind();
                        assert!(
                            matches!(
                                kind,
                                Kind::Mismatch | Kind::Corrupt | Kind::Limit | Kind::NotFound | Kind::Unsupported
                            ),
                            "{error:?}"
                        );
                        assert!(names(dir.path()).is_empty());
                        caught += 1;
                    }
                    Ok(_) => {
                        assert!(bytes_of(&path) == right, "{options:?} {mischief:?} went unnoticed");
                        std::fs::remove_file(&path).unwrap();
                    }
                }
            }
        }
        assert!(caught >= 12, "{options:?}: {caught}");
    }
}

#[test]
fn a_mismatch_says_where() {
    let dir = tempfile::tempdir().unwrap();
    let (raw, path) = (raw(), dir.path().join("out"));
    let flipped = (0..).filter_map(|n| {
        let done = with_mischief(&Model::noise(9 << 20), &path, &raw, Mischief::Flip(n), &Arc::default());
        done.map(|_| std::fs::remove_file(&path).unwrap()).err()
    });
    let error = flipped.take(3).last().unwrap();
    assert_eq!((error.code(), error.kind().exit_code()), ("verify.mismatch", 6));
    let places = (0..5_u64).map(|chunk| chunk * plan::CHUNK);
    let mut messages = places.map(|at| format!("offset {at:#x}: found different bytes up to {:#x}", at + 1));
    assert!(messages.any(|message| error.to_string().contains(&message)), "{error}");
}

#[test]
fn too_little_space_is_said_before_the_first_byte() {
    let dir = tempfile::tempdir().unwrap();
    let calls = Arc::default();
    let path = dir.path().join("out");
    for options in all_options() {
        let error = with_mischief(&Model::noise(9 << 20), &path, &options, Mischief::Room(9 << 20), &calls);
        if options.format == raw().format {
            error.unwrap();
            std::fs::remove_file(&path).unwrap();
        } else {
            let error = error.unwrap_err();
            assert_eq!((error.code(), error.kind()), ("output.space", Kind::NoSpace));
        }
    }
}

#[test]
fn a_map_without_end_does_not_hold_up_the_space_check() {
    let dir = tempfile::tempdir().unwrap();
    let partial = Partial::create(&dir.path().join("out"), false, false).unwrap();
    let output =
        Mischievous { partial, mischief: Mischief::Room(1 << 30), calls: Arc::default(), last: Mutex::default() };
    let disk: Arc<dyn Disk> = Checked::wrap(Dots { len: 1 << 50, every: 1 << 20 });
    let error =
        prepare_output(Ends::new(disk, Arc::new(output)), &Options::default(), Interval::default(), &session(1), &())
            .unwrap_err();
    assert_eq!(error.code(), "output.space");
}

#[test]
fn the_space_estimate_is_an_upper_bound() {
    let chunk = plan::CHUNK as usize;
    for parts in [
        vec![(Part::Noise, 40 << 20)],
        vec![(Part::Noise, 1); 1],
        vec![(Part::Noise, 1), (Part::Hole, chunk), (Part::Noise, 1)],
    ] {
        for options in more_options() {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("out");
            let prepared = prepare(checked(&Model::new(&parts)), &path, &options, &session(1), &()).unwrap();
            let bound = prepared.needs.file;
            let outcome = prepared.copy(&()).unwrap().verify(&()).unwrap().seal(&()).unwrap();
            let used = std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(&outcome.path).unwrap()) * 512;
            assert!(used <= bound, "{options:?}: {used} > {bound}");
        }
    }
}

#[test]
fn several_outputs_must_fit_together() {
    let dir = tempfile::tempdir().unwrap();
    let prepared: Vec<Prepared> = (0..2)
        .map(|n| {
            let partial = Partial::create(&dir.path().join(format!("{n}")), false, false).unwrap();
            let mischief = Mischief::Room(15 << 20);
            let output = Mischievous { partial, mischief, calls: Arc::default(), last: Mutex::default() };
            let source = checked(&Model::noise(9 << 20));
            prepare_output(
                Ends::new(source, Arc::new(output)),
                &Options::default(),
                Interval::default(),
                &session(1),
                &(),
            )
            .unwrap()
        })
        .collect();
    assert!(check_space(&prepared[..1]).is_ok());
    assert_eq!(check_space(&prepared).unwrap_err().code(), "output.space");
}

#[test]
fn a_source_that_changes_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    for len in [1 << 20, (1 << 20) + 1] {
        let model = Model::noise(len);
        let prepared =
            prepare(checked(&model), &dir.path().join("out"), &Options::default(), &session(1), &()).unwrap();
        model.changes.store(1, Ordering::Relaxed);
        assert_eq!(prepared.copy(&()).unwrap_err().code(), "source.changed");
        assert!(names(dir.path()).is_empty());
    }
}

/// Cancels the session at the n-th update and keeps them all.
struct Watch {
    updates: Mutex<Vec<Update>>,
    cancel_at: Option<(usize, Arc<Session>)>,
}

impl Progress for Watch {
    fn update(&self, update: &Update) {
        let mut updates = self.updates.lock().unwrap();
        updates.push(*update);
        if let Some((at, session)) = &self.cancel_at
            && updates.len() > *at
        {
            session.cancel();
        }
    }
}

#[test]
fn progress_tells_every_phase_and_ends_at_the_total() {
    let dir = tempfile::tempdir().unwrap();
    let watch = Watch { updates: Mutex::default(), cancel_at: None };
    run(checked(&several_chunks()), &dir.path().join("out"), &Options::default(), &session(2), &watch).unwrap();
    let updates = watch.updates.into_inner().unwrap();
    assert!(updates.is_sorted_by_key(|update| (update.phase, update.done)));
    for phase in [Phase::Plan, Phase::Copy, Phase::Sync, Phase::Verify, Phase::Seal] {
        let last = updates.iter().rfind(|update| update.phase == phase).unwrap();
        assert_eq!(last.done, last.total, "{}", phase.name());
    }
}

#[test]
fn whenever_it_is_cancelled_it_can_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut finished = false;
    for at in 0.. {
        let session = session(2);
        let watch = Watch { updates: Mutex::default(), cancel_at: Some((at, Arc::clone(&session))) };
        match run(checked(&several_chunks()), &dir.path().join("out"), &Options::default(), &session, &watch) {
            Err(error) => {
                assert_eq!((error.kind(), error.kind().exit_code()), (Kind::Interrupted, 7));
                left_nothing_or_all(dir.path());
            }
            Ok(_) => {
                finished = true;
                break;
            }
        }
    }
    assert!(finished);
}

#[test]
fn unverified_is_said_so() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { verify: false, ..Options::default() };
    let outcome = run(checked(&several_chunks()), &dir.path().join("out"), &options, &session(2), &()).unwrap();
    assert_eq!(outcome.verification, Verification::Off);
}

#[test]
fn two_conversions_to_one_name_do_not_mix() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out");
    let first = prepare(checked(&several_chunks()), &path, &Options::default(), &session(1), &()).unwrap();
    let second = prepare(checked(&several_chunks()), &path, &Options::default(), &session(1), &());
    assert_eq!(second.unwrap_err().code(), "output.locked");
    first.copy(&()).unwrap().verify(&()).unwrap().seal(&()).unwrap();
    assert_eq!(names(dir.path()), ["out"]);
}

#[test]
fn several_outputs_are_sealed_after_all_are_verified() {
    let dir = tempfile::tempdir().unwrap();
    let verified: Vec<Verified> = (0..3)
        .map(|n| {
            let path = dir.path().join(format!("disk{n}"));
            let prepared = prepare(checked(&several_chunks()), &path, &Options::default(), &session(1), &()).unwrap();
            prepared.copy(&()).unwrap().verify(&()).unwrap()
        })
        .collect();
    assert!(names(dir.path()).iter().all(|name| name.ends_with(".partial") || name.ends_with(".journal")));
    verified.into_iter().for_each(|verified| {
        verified.seal(&()).unwrap();
    });
    assert_eq!(names(dir.path()), ["disk0", "disk1", "disk2"]);
}

#[test]
fn disks_grow_and_are_never_cut() {
    let dir = tempfile::tempdir().unwrap();
    let model = Model::noise(100_000);
    for options in more_options() {
        let options = Options { size: Some(5 << 20), force: true, ..options };
        let outcome = run(checked(&model), &dir.path().join("out"), &options, &session(2), &()).unwrap();
        assert_eq!((outcome.len, outcome.verification), (5 << 20, Verification::Passed));
        let mut grown = (*model).clone();
        grown.bytes.resize(5 << 20, 0);
        qemu_agrees(&grown, &outcome, &options.format, dir.path());
    }
    for size in [0, 512, 99_840, (1 << 20) + 1, u64::MAX - 511] {
        let options = Options { size: Some(size), ..Options::default() };
        let error = run(checked(&model), &dir.path().join("other"), &options, &session(1), &()).unwrap_err();
        assert_eq!((error.code(), error.kind().exit_code()), ("convert.size", 2));
    }
}

#[test]
fn packed_clusters_leave_no_gaps() {
    let dir = tempfile::tempdir().unwrap();
    let parts: Vec<_> = (0..64).map(|n| ([Part::Noise, Part::Text][n % 2], 3 * 65_536)).collect();
    let model = Model::new(&parts);
    for compression in ["zlib:1", "zstd:1"] {
        let compression = Some(Compression::parse(compression).unwrap());
        let options = Options { force: true, ..with(Qcow2Options { compression, ..Qcow2Options::default() }) };
        let outcome = convert(&model, &options, dir.path());
        qemu_agrees(&model, &outcome, &options.format, dir.path());
        // Half of the clusters come down to little more than half.
        let most = model.bytes.len() as u64 * 80 / 100;
        assert!(outcome.file_len < most, "{} of at most {most}", outcome.file_len);
    }
}

#[test]
fn compressions_are_named() {
    assert_eq!(Compression::parse("zlib").unwrap(), Compression::Zlib(6));
    assert_eq!(Compression::parse("zstd:19").unwrap(), Compression::Zstd(19));
    for text in ["", "gzip", "zlib:", "zlib:0", "zlib:10", "zstd:20", "zstd:-1", "zlib:1:2"] {
        assert_eq!(Compression::parse(text).unwrap_err().code(), "convert.compress", "{text}");
    }
}

#[test]
fn options_that_exclude_each_other_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let plain = Qcow2Options::default;
    let name = |file: &str| Some(BackingName { file: file.to_owned(), format: "raw".to_owned() });
    let cases = [
        (Qcow2Options { extended_l2: true, cluster_size: 8 << 10, ..plain() }, "convert.cluster"),
        (
            Qcow2Options { preallocation: Preallocation::Full, compression: Some(Compression::Zlib(1)), ..plain() },
            "convert.options",
        ),
        (Qcow2Options { preallocation: Preallocation::Metadata, backing: name("b"), ..plain() }, "convert.options"),
        (Qcow2Options { backing: name(""), ..plain() }, "convert.backing"),
        (Qcow2Options { backing: name(&"x".repeat(1024)), ..plain() }, "convert.backing"),
    ];
    for (options, code) in cases {
        let error = run(checked(&Model::noise(9)), &dir.path().join("out"), &with(options), &session(1), &());
        let error = error.unwrap_err();
        assert_eq!((error.code(), error.kind().exit_code()), (code, 2));
    }
}
