//! Whole files through `open`, compared with what qemu-img makes of them.

use std::path::{Path, PathBuf};

use super::*;
use crate::container::ova::tests::{archive, mf, ovf};
use crate::disk::{Disk, ExtentKind, collect_extents};
use crate::error::Result;
use crate::session::Session;

/// Runs qemu-img; a test that needs it fails without it.
#[allow(clippy::disallowed_methods, reason = "tests run a second implementation")]
pub(super) fn qemu_img(args: &[&std::ffi::OsStr]) {
    let output = std::process::Command::new("qemu-img").args(args).output().expect("qemu-img is installed");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[allow(clippy::disallowed_methods, reason = "tests read what they wrote")]
pub(super) fn bytes_of(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

pub(super) fn read_all(disk: &dyn Disk, step: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0xa5; usize::try_from(disk.len()).unwrap()];
    let mut offset = 0;
    for part in bytes.chunks_mut(step) {
        disk.read_at(part, offset)?;
        offset += part.len() as u64;
    }
    Ok(bytes)
}

fn noise(len: usize, mut state: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend((state ^ state >> 31).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Disks worth trying: name and bytes.
fn contents() -> Vec<(&'static str, Vec<u8>)> {
    const MIB: usize = 1 << 20;
    let mut sparse = vec![0; 36 * MIB];
    for (at, len) in [(0, 512), (MIB - 100, 300), (33 * MIB, 200_000), (34 * MIB + 512, 64 << 10)] {
        sparse[at..at + len].copy_from_slice(&noise(len, at as u64));
    }
    let mut last = vec![0; 5 * MIB + 512];
    let end = last.len() - 512;
    last[end..].fill(7);
    let text = b"some text that compresses well ".iter().copied().cycle().take(3 * MIB + 1024).collect();
    vec![
        ("empty", vec![0; 2 * MIB]),
        ("full", noise(4 * MIB, 1)),
        ("sparse", sparse),
        ("last sector", last),
        ("text of an odd size", text),
        ("one sector", vec![9; 512]),
    ]
}

fn convert(raw: &Path, to: &Path, subformat: &str) {
    let options = format!("subformat={subformat}");
    let args = ["convert", "-f", "raw", "-O", "vmdk", "-o", &options].map(std::ffi::OsStr::new);
    qemu_img(&[&args[..], &[raw.as_os_str(), to.as_os_str()]].concat());
}

/// The disk of that number or name.
fn only(disk: &str) -> Selection {
    Selection::parse(&[disk.to_owned()], &[]).unwrap()
}

#[test]
fn every_subformat_reads_as_qemu_img_reads_it() {
    let dir = tempfile::tempdir().unwrap();
    let raw = dir.path().join("disk.raw");
    for (name, bytes) in contents() {
        std::fs::write(&raw, &bytes).unwrap();
        for subformat in
            ["monolithicSparse", "monolithicFlat", "streamOptimized", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat"]
        {
            let path = dir.path().join(format!("{subformat}.vmdk"));
            convert(&raw, &path, subformat);
            let back = dir.path().join("back.raw");
            let args = ["convert", "-O", "raw"].map(std::ffi::OsStr::new);
            qemu_img(&[&args[..], &[path.as_os_str(), back.as_os_str()]].concat());
            let opened = open(&path, &OpenOptions::default(), &Session::with_defaults()).unwrap();
            let disk = opened.disks[0].disk();
            let expected = bytes_of(&back);
            assert_eq!(disk.len(), expected.len() as u64, "{name} {subformat}");
            for step in [1 << 20, 70_000] {
                assert!(read_all(&*disk, step).unwrap() == expected, "{name} {subformat} in steps of {step}");
            }
            check_extents(&*disk, &expected);
        }
    }
}

/// What the extents call zero reads as zeros in the oracle.
fn check_extents(disk: &dyn Disk, expected: &[u8]) {
    for extent in collect_extents(disk, 0..disk.len()).unwrap() {
        let range = usize::try_from(extent.range.start).unwrap()..usize::try_from(extent.range.end).unwrap();
        if extent.kind != ExtentKind::Data {
            assert!(expected[range].iter().all(|byte| *byte == 0), "{extent:?}");
        }
    }
}

#[test]
fn many_threads_read_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let (raw, path) = (dir.path().join("disk.raw"), dir.path().join("disk.vmdk"));
    let (_, bytes) = contents().swap_remove(2);
    std::fs::write(&raw, &bytes).unwrap();
    convert(&raw, &path, "streamOptimized");
    let session = Session::with_defaults();
    let disk = open(&path, &OpenOptions::default(), &session).unwrap().disks[0].disk();
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let (disk, bytes) = (&disk, &bytes);
            scope.spawn(move || {
                for at in noise(400, thread).chunks_exact(4) {
                    let offset = u32::from_le_bytes(at.try_into().unwrap()) as usize % (bytes.len() - 100_000);
                    let part = crate::disk::read_vec(&**disk, offset as u64, 100_000).unwrap();
                    assert!(part == bytes[offset..offset + 100_000]);
                }
            });
        }
    });
}

fn place(files: &[(&str, &[u8])]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        std::fs::write(dir.path().join(name), bytes).unwrap();
    }
    let path = dir.path().join(files[0].0);
    (dir, path)
}

fn code_of(files: &[(&str, &[u8])]) -> (&'static str, u8) {
    let (_dir, path) = place(files);
    let error = open(&path, &OpenOptions::default(), &Session::with_defaults()).unwrap_err();
    (error.code(), error.kind().exit_code())
}

#[test]
fn bad_sources_are_clear_errors() {
    let flat = |name: &str| format!("# Disk DescriptorFile\nRW 1 FLAT \"{name}\" 0\n");
    assert_eq!(code_of(&[("a.vmdk", flat("/etc/passwd").as_bytes())]), ("reference.refused", 5));
    assert_eq!(code_of(&[("a.vmdk", flat("../x").as_bytes())]), ("reference.refused", 5));
    assert_eq!(code_of(&[("a.vmdk", flat("x").as_bytes())]), ("reference.missing", 3));
    assert_eq!(code_of(&[("a.vmdk", flat("x").as_bytes()), ("x", &[0; 100])]), ("vmdk.extent", 4));
    assert_eq!(code_of(&[("a.txt", b"just some text")]), ("format.unknown", 4));
    assert_eq!(code_of(&[("a.vmdk", b"")]), ("source.empty", 3));
    let dir = tempfile::tempdir().unwrap();
    let error = open(dir.path(), &OpenOptions::default(), &Session::with_defaults()).unwrap_err();
    assert_eq!(error.code(), "source.type");
}

#[test]
fn a_named_format_is_never_guessed() {
    let (_dir, path) = place(&[("disk", &[1; 1000])]);
    let options = OpenOptions { format: Some("raw".into()), ..OpenOptions::default() };
    let opened = open(&path, &options, &Session::with_defaults()).unwrap();
    assert_eq!(opened.disks[0].disk().len(), 1000);
    let options = OpenOptions { format: Some("vmdk".into()), ..OpenOptions::default() };
    assert_eq!(open(&path, &options, &Session::with_defaults()).unwrap_err().code(), "vmdk.descriptor");
}

/// A package of one streamOptimized disk, as files to put in an archive or a directory.
struct Package {
    disk: Vec<u8>,
    raw: Vec<u8>,
}

impl Package {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (raw, path) = (dir.path().join("disk.raw"), dir.path().join("disk.vmdk"));
        let bytes = contents().swap_remove(2).1;
        std::fs::write(&raw, &bytes).unwrap();
        convert(&raw, &path, "streamOptimized");
        Self { disk: bytes_of(&path), raw: bytes }
    }

    fn files(&self, wrong: bool) -> [(&'static str, Vec<u8>); 3] {
        let text = ovf("disk.vmdk");
        let mut vouched = self.disk.clone();
        vouched[self.disk.len() / 2] ^= u8::from(wrong);
        let manifest = mf(&[("g.ovf", text.as_bytes()), ("disk.vmdk", &vouched)]);
        [("g.ovf", text.into_bytes()), ("g.mf", manifest.into_bytes()), ("disk.vmdk", self.disk.clone())]
    }

    fn ova(&self, wrong: bool) -> (tempfile::TempDir, PathBuf) {
        let files = self.files(wrong);
        let members: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (*name, bytes.as_slice())).collect();
        place(&[("guest.ova", &archive(&members))])
    }
}

/// One pass over a disk by several threads, as a copy does it: data only, in pieces.
fn pass(disk: &dyn Disk, expected: &[u8]) {
    let pieces: Vec<(u64, u64)> = collect_extents(disk, 0..disk.len())
        .unwrap()
        .into_iter()
        .filter(|extent| extent.kind == ExtentKind::Data)
        .flat_map(|extent| {
            let range = extent.range;
            range.clone().step_by(1 << 20).map(move |at| (at, (range.end - at).min(1 << 20)))
        })
        .collect();
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while let Some((at, len)) = pieces.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    let (at, len) = (usize::try_from(*at).unwrap(), usize::try_from(*len).unwrap());
                    assert!(crate::disk::read_vec(disk, at as u64, len).unwrap() == expected[at..at + len]);
                }
            });
        }
    });
}

#[test]
fn an_ova_is_read_in_place_and_at_most_once() {
    let package = Package::new();
    let (_dir, path) = package.ova(false);
    let session = Session::with_defaults();
    let opened = open(&path, &OpenOptions::default(), &session).unwrap();
    assert_eq!((opened.container, opened.disks.len(), opened.verified.len()), (Some("ova"), 1, 1));
    let disk = opened.disks[0].disk();
    crate::disk::read_vec(&*disk, 33 << 20, 5000).unwrap();
    session.begin_streaming();
    pass(&*disk, &package.raw);
    let verified = opened.digests.as_ref().unwrap().finish().unwrap();
    assert_eq!(verified[0].name, "disk.vmdk");
    let read = opened.sources[0].below()[0].stats().unwrap().bytes;
    assert_eq!(read, opened.sources[0].len());
    assert!(opened.notes.iter().any(|note| note.contains("another size")), "{:?}", opened.notes);
}

#[test]
fn without_a_manifest_only_what_is_wanted_is_read() {
    let package = Package::new();
    let files = package.files(false);
    let (_dir, path) = place(&[("guest.ova", &archive(&[(files[0].0, &files[0].1), (files[2].0, &files[2].1)]))]);
    let session = Session::with_defaults();
    let opened = open(&path, &OpenOptions::default(), &session).unwrap();
    assert!(opened.digests.is_none());
    session.begin_streaming();
    pass(&*opened.disks[0].disk(), &package.raw);
    assert!(opened.sources[0].below()[0].stats().unwrap().bytes <= opened.sources[0].len());
}

#[test]
fn a_wrong_digest_is_found_in_the_same_pass() {
    let (_dir, path) = Package::new().ova(true);
    let session = Session::with_defaults();
    let opened = open(&path, &OpenOptions::default(), &session).unwrap();
    let error = opened.digests.unwrap().finish().unwrap_err();
    assert_eq!((error.code(), error.kind().exit_code()), ("ova.digest", 4));
}

#[test]
fn an_ovf_with_its_files_beside_it() {
    let package = Package::new();
    let files = package.files(false);
    let (_dir, path) = place(&files.each_ref().map(|(name, bytes)| (*name, bytes.as_slice())));
    let session = Session::with_defaults();
    let opened = open(&path, &OpenOptions::default(), &session).unwrap();
    assert_eq!((opened.container, opened.sources.len()), (Some("ovf"), 2));
    session.begin_streaming();
    pass(&*opened.disks[0].disk(), &package.raw);
    assert_eq!(opened.digests.unwrap().finish().unwrap().len(), 1);
    assert_eq!(opened.sources[1].below()[0].stats().unwrap().bytes, package.disk.len() as u64);
}

#[test]
fn packages_cannot_lead_outside() {
    for (href, code) in [
        ("../x", "reference.refused"),
        ("/etc/passwd", "reference.refused"),
        ("http://169.254.169.254/x", "reference.refused"),
        ("file:///etc/passwd", "reference.refused"),
        ("absent.vmdk", "reference.missing"),
    ] {
        assert_eq!(code_of(&[("g.ovf", ovf(href).as_bytes())]).0, code, "{href}");
        let bytes = archive(&[("g.ovf", ovf(href).as_bytes())]);
        assert_eq!(code_of(&[("g.ova", &bytes)]).0, "ova.missing", "{href}");
    }
    let flat = b"# Disk DescriptorFile\nRW 8 FLAT \"../x\" 0\n";
    let bytes = archive(&[("g.ovf", ovf("d.vmdk").as_bytes()), ("d.vmdk", flat)]);
    assert_eq!(code_of(&[("g.ova", &bytes)]), ("reference.refused", 5));
    let flat = b"# Disk DescriptorFile\nRW 8 FLAT \"f\" 0\n";
    let bytes = archive(&[("g.ovf", ovf("d.vmdk").as_bytes()), ("d.vmdk", flat), ("f", &[3; 4096])]);
    let (_dir, path) = place(&[("g.ova", &bytes)]);
    let opened = open(&path, &OpenOptions::default(), &Session::with_defaults()).unwrap();
    assert_eq!(read_all(&*opened.disks[0].disk(), 999).unwrap(), [3; 4096]);
}

#[test]
fn disks_are_selected_by_number_and_name() {
    let (_dir, path) = Package::new().ova(false);
    let with = |selector: &str| {
        let options = OpenOptions { disks: only(selector), ..OpenOptions::default() };
        open(&path, &options, &Session::with_defaults()).map(|opened| opened.disks.len())
    };
    for selector in ["1", "d", "disk.vmdk"] {
        assert_eq!(with(selector).unwrap(), 1);
    }
    for selector in ["2", "other"] {
        assert_eq!(with(selector).unwrap_err().kind().exit_code(), 2, "{selector}");
    }
}

#[test]
fn a_truncated_package_is_an_error() {
    let (dir, path) = Package::new().ova(false);
    let bytes = bytes_of(&path);
    for len in [100, 512, 1000, 3000, bytes.len() / 2, bytes.len() - 2000] {
        let cut = dir.path().join("cut.ova");
        std::fs::write(&cut, &bytes[..len]).unwrap();
        let error = open(&cut, &OpenOptions::default(), &Session::with_defaults()).unwrap_err();
        assert_eq!(error.kind().exit_code(), 4, "{len}: {error:?}");
    }
}

/// What a program makes of `bytes`.
#[allow(clippy::disallowed_methods, reason = "tests run a second implementation")]
fn compressed(program: &str, bytes: &[u8]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, bytes).unwrap();
    let output = std::process::Command::new(program).args(["-1", "-c"]).arg(&path).output().unwrap();
    assert!(output.status.success(), "{program}");
    output.stdout
}

/// A boot sector with one partition.
fn mbr() -> [u8; 512] {
    let mut sector = [0; 512];
    sector[446..462].copy_from_slice(&[0x80, 0, 2, 0, 0x83, 0, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0]);
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

#[test]
fn compression_around_an_image_is_undone() {
    let package = Package::new();
    for (program, suffix) in [("gzip", "gz"), ("xz", "xz"), ("zstd", "zst"), ("bzip2", "bz2")] {
        let name = format!("disk.vmdk.{suffix}");
        let (_dir, path) = place(&[(&name, &compressed(program, &package.disk))]);
        let opened = open(&path, &OpenOptions::default(), &Session::with_defaults()).unwrap();
        assert_eq!(
            (opened.container, opened.disks[0].name.as_str()),
            (Some(if program == "zstd" { "zstd" } else { program }), "disk.vmdk")
        );
        assert!(read_all(&*opened.disks[0].disk(), 1 << 20).unwrap() == package.raw, "{program}");
        assert_eq!(opened.sources[0].name(), path.display().to_string());
    }
}

#[test]
fn a_raw_disk_in_an_archive_in_gzip() {
    let mut disk = noise(3 << 20, 5);
    disk[..512].copy_from_slice(&mbr());
    let tar = archive(&[("readme.txt", b"some text"), ("disk.raw", &disk)]);
    for (name, bytes) in [("image.tar.gz", compressed("gzip", &tar)), ("image.tar", tar.clone())] {
        let (_dir, path) = place(&[(name, &bytes)]);
        let opened = open(&path, &OpenOptions::default(), &Session::with_defaults()).unwrap();
        assert_eq!((opened.container, opened.disks.len(), opened.disks[0].name.as_str()), (Some("tar"), 1, "disk.raw"));
        assert!(read_all(&*opened.disks[0].disk(), 1 << 20).unwrap() == disk);
    }
    let unmarked = archive(&[("a.raw", &[1; 4096]), ("b.raw", &[2; 4096])]);
    let (_dir, path) = place(&[("images.tar", &unmarked)]);
    let with = |format: Option<&str>, disk: Option<&str>| OpenOptions {
        format: format.map(str::to_owned),
        disks: disk.map(only).unwrap_or_default(),
        ..OpenOptions::default()
    };
    let session = Session::with_defaults();
    assert_eq!(open(&path, &with(None, None), &session).unwrap_err().code(), "tar.no-image");
    let names = |disk: Option<&str>| -> Vec<String> {
        open(&path, &with(Some("raw"), disk), &session).unwrap().disks.into_iter().map(|disk| disk.name).collect()
    };
    assert_eq!(names(None), ["a.raw", "b.raw"]);
    assert_eq!((names(Some("2")), names(Some("a.raw"))), (vec!["b.raw".to_owned()], vec!["a.raw".to_owned()]));
    assert_eq!(open(&path, &with(Some("raw"), Some("3")), &session).unwrap_err().code(), "source.disk");
}

#[test]
fn compression_goes_one_level_deep_and_is_never_guessed() {
    let package = Package::new();
    let once = compressed("gzip", &package.disk);
    assert_eq!(code_of(&[("a.gz", &compressed("gzip", &once))]), ("format.unsupported", 4));
    assert_eq!(code_of(&[("a.xz", &compressed("xz", &once))]), ("format.unsupported", 4));
    assert_eq!(code_of(&[("a.gz", &compressed("gzip", b"just some text"))]), ("format.unknown", 4));
    // A guest can write the mark of gzip where its boot code is.
    let mut disk = mbr().to_vec();
    disk.resize(4096, 0);
    disk[..3].copy_from_slice(&[0x1f, 0x8b, 8]);
    assert_eq!(code_of(&[("a.raw", &disk)]), ("format.ambiguous", 4));
    let (_dir, path) = place(&[("a.raw", &disk)]);
    let options = OpenOptions { format: Some("raw".into()), ..OpenOptions::default() };
    let opened = open(&path, &options, &Session::with_defaults()).unwrap();
    assert_eq!((opened.container, opened.disks[0].disk().len()), (None, 4096));
}

#[test]
fn disks_of_a_package_may_be_compressed_and_split() {
    let package = Package::new();
    let zipped = compressed("gzip", &package.disk);
    let descriptor =
        |attributes: &str| ovf("disk.vmdk").replace("href='disk.vmdk'", &format!("href='disk.vmdk' {attributes}"));
    let size = zipped.len() / 3 + 1;
    let plain = descriptor("compression='gzip'");
    let split = descriptor(&format!("compression='gzip' chunkSize='{size}' size='{}'", zipped.len()));
    let names: Vec<String> = (0..3).map(|number| format!("disk.vmdk.{number:09}")).collect();
    let chunks: Vec<(&str, &[u8])> = names.iter().map(String::as_str).zip(zipped.chunks(size)).collect();
    let manifest = mf(&chunks);
    let whole: Vec<(&str, &[u8])> = vec![("g.ovf", plain.as_bytes()), ("disk.vmdk", &zipped)];
    let mut parts: Vec<(&str, &[u8])> = vec![("g.ovf", split.as_bytes()), ("g.mf", manifest.as_bytes())];
    parts.extend(&chunks);
    for files in [&whole, &parts] {
        for (dir, path) in [place(files), place(&[("g.ova", &archive(files))])] {
            let opened = open(&path, &OpenOptions::default(), &Session::with_defaults()).unwrap();
            assert!(read_all(&*opened.disks[0].disk(), 1 << 20).unwrap() == package.raw);
            if files.len() > 2 {
                assert_eq!(opened.digests.unwrap().finish().unwrap().len(), 3);
            }
            drop(dir);
        }
    }
    let lied: Vec<(&str, &[u8])> = vec![("g.ovf", plain.as_bytes()), ("disk.vmdk", &package.disk)];
    let (_dir, path) = place(&lied);
    let opened = open(&path, &OpenOptions::default(), &Session::with_defaults()).unwrap();
    assert!(opened.notes.iter().any(|note| note.contains("it is not")), "{:?}", opened.notes);
    let with = |chunks: &[(&str, &[u8])]| code_of(&[&parts[..1], chunks].concat());
    assert_eq!(with(&chunks[..2]), ("ovf.chunk", 4), "the last one is missing");
    assert_eq!(with(&[chunks[0], chunks[2]]), ("ovf.chunk", 4), "one in the middle is missing");
    assert_eq!(with(&[chunks[0], (chunks[1].0, b"short"), chunks[2]]), ("ovf.chunk", 4));
    assert_eq!(with(&chunks[1..]), ("reference.missing", 3), "the first one is missing");
    let nested = compressed("gzip", &archive(&whole));
    assert_eq!(code_of(&[("g.ova.gz", &nested)]), ("packed.nested", 4));
}

#[test]
fn a_machine_of_vmware_with_its_disks() {
    let package = Package::new();
    let text = |file: &str| {
        format!(
            "config.version = \"8\"\ndisplayName = \"web\"\nmemsize = \"512\"\nscsi0.present = \"TRUE\"\n\
             scsi0:0.present = \"TRUE\"\nscsi0:0.fileName = \"{file}\"\n"
        )
    };
    let (_dir, path) = place(&[("web.vmx", text("disk.vmdk").as_bytes()), ("disk.vmdk", &package.disk)]);
    let session = Session::with_defaults();
    let opened = open(&path, &OpenOptions::default(), &session).unwrap();
    let machine = opened.machine.as_ref().unwrap();
    assert_eq!((opened.container, machine.name.as_str(), machine.memory), (Some("vmx"), "web", Some(512 << 20)));
    assert!(read_all(&*opened.disks[0].disk(), 1 << 20).unwrap() == package.raw);
    let by_slot = OpenOptions { disks: only("scsi0:0"), ..OpenOptions::default() };
    assert_eq!(open(&path, &by_slot, &session).unwrap().disks.len(), 1);
    for (file, code) in [
        ("/etc/passwd", ("reference.refused", 5)),
        ("/vmfs/volumes/x/disk.vmdk", ("reference.refused", 5)),
        ("../disk.vmdk", ("reference.refused", 5)),
        ("C:|5cdisk.vmdk", ("reference.refused", 5)),
        ("absent.vmdk", ("reference.missing", 3)),
        ("web.vmx", ("format.unknown", 4)),
    ] {
        assert_eq!(code_of(&[("web.vmx", text(file).as_bytes())]), code, "{file}");
    }
}
