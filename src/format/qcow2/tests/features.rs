//! Snapshots, subclusters, data files and bitmaps: as qemu writes them, and damaged.

use super::*;

/// Opens the image at `path` with the data file beside it, if it has one.
fn open_file(path: &Path, snapshot: Option<&str>) -> Result<Arc<dyn Layer>> {
    let session = Session::with_defaults();
    let head = super::super::open(FileSource::open(path)?, &Ask { session: &session, snapshot })?;
    let beside = |name: &Reference| path.with_file_name(String::from_utf8(name.name.clone()).unwrap());
    let files = head.extents.iter().map(|name| Ok(FileSource::open(&beside(name))? as Arc<dyn Disk>));
    (head.build)(files.collect::<Result<_>>()?)
}

/// What qemu reads, as bytes.
fn qemu_reads(image: &Path, more: &[&str]) -> Vec<u8> {
    let raw = image.with_extension("as-raw");
    qemu_img(&[&["convert", "-f", "qcow2", "-O", "raw"], more, &[arg(image), arg(&raw)]].concat());
    #[allow(clippy::disallowed_methods, reason = "a test reads its own file")]
    std::fs::read(raw).unwrap()
}

/// Writes, zeroes and discards that leave every kind of cluster and subcluster, different for each `seed`.
fn scribble(image: &Path, seed: u64, size: u64) {
    let mut commands = Vec::new();
    let numbers = noise(seed, 200);
    for (index, n) in numbers.chunks(5).enumerate() {
        let [a, b, c, d, e] = n else { continue };
        let at = (u64::from(*a) << 8 | u64::from(*b)) * 512 % size;
        let len = ((u64::from(*c) + 1) * if d % 4 == 0 { 4096 } else { 512 }).min(size - at);
        commands.push(match e % 5 {
            0 => format!("write -z {at} {len}"),
            1 => format!("discard {at} {len}"),
            2 => format!("write -z -u {at} {len}"),
            _ => format!("write -P {} {at} {len}", index + 1),
        });
    }
    qemu_io(image, &commands);
}

#[test]
fn subclusters_agree_with_qemu() {
    let dir = tempfile::tempdir().unwrap();
    let size = 4 << 20;
    for (seed, cluster) in ["16k", "64k", "2M"].into_iter().enumerate() {
        let base = dir.path().join("base.qcow2");
        qemu_img(&["create", "-q", "-f", "qcow2", arg(&base), "4M"]);
        let image = dir.path().join("image.qcow2");
        let options = format!("extended_l2=on,cluster_size={cluster}");
        qemu_img(&["create", "-q", "-f", "qcow2", "-o", &options, arg(&image), "4M"]);
        scribble(&image, seed as u64, size);
        let bytes = read(&*open_file(&image, None).unwrap()).unwrap();
        assert!(bytes == qemu_reads(&image, &[]), "{cluster}");
    }
}

#[test]
fn snapshots_agree_with_qemu() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image.qcow2");
    qemu_img(&["create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", arg(&image), "2M"]);
    let mut states = Vec::new();
    for (seed, name) in ["before", "während\u{1b}[2J", "2"].into_iter().enumerate() {
        scribble(&image, seed as u64, 2 << 20);
        qemu_img(&["snapshot", "-c", name, arg(&image)]);
        states.push(qemu_reads(&image, &[]));
    }
    qemu_img(&["resize", "-q", arg(&image), "3M"]);
    scribble(&image, 9, 3 << 20);
    assert!(read(&*open_file(&image, None).unwrap()).unwrap() == qemu_reads(&image, &[]));
    // By id first: the third one is called as the second one is numbered.
    for (wanted, state) in [("before", 0), ("1", 0), ("2", 1), ("3", 2)] {
        let layer = open_file(&image, Some(wanted)).unwrap();
        assert_eq!(layer.len(), 2 << 20, "{wanted}");
        assert!(read(&*layer).unwrap() == states[state], "{wanted}");
        assert!(layer.facts().iter().any(|(key, _)| *key == "snapshot"));
    }
    // qemu gives an old snapshot the size that the disk has now.
    assert!(states[0] == qemu_reads(&image, &["-l", "before"])[..2 << 20]);
    let error = open_file(&image, Some("none")).unwrap_err();
    assert_eq!(error.code(), "format.snapshot");
    assert!(error.to_string().contains("1 (before), 2 (während\\u{1b}[2J), 3 (2)"), "{error}");
}

#[test]
fn data_files_agree_with_qemu() {
    let dir = tempfile::tempdir().unwrap();
    for (seed, raw) in ["off", "on"].into_iter().enumerate() {
        let image = dir.path().join(format!("{raw}.qcow2"));
        let data = dir.path().join(format!("{raw}.data"));
        let options = format!("data_file={},data_file_raw={raw}", arg(&data));
        qemu_img(&["create", "-q", "-f", "qcow2", "-o", &options, arg(&image), "4M"]);
        scribble(&image, seed as u64, 4 << 20);
        let expected = qemu_reads(&image, &[]);
        qemu_img(&["amend", "-f", "qcow2", "-o", &format!("data_file={raw}.data"), arg(&image)]);
        let layer = open_file(&image, None).unwrap();
        assert_eq!(layer.files().len(), 2);
        assert!(read(&*layer).unwrap() == expected, "data_file_raw={raw}");
        let mut found = Vec::new();
        layer
            .check(&mut |finding| {
                found.push(finding);
                ControlFlow::Continue(())
            })
            .unwrap();
        assert!(found.is_empty(), "{found:?}");
    }
}

#[test]
fn a_data_file_is_a_name_and_nothing_else() {
    let mut image = Image::new();
    image.u64(72, 4).u32(112, 0x4441_5441).u32(116, 11).poke(120, b"/etc/passwd");
    let file = Checked::wrap(Memory::new(image.0.clone()));
    let head = super::super::open(file, &Ask::current(&Session::with_defaults())).unwrap();
    assert_eq!(head.extents.len(), 1);
    assert_eq!((&*head.extents[0].name, head.extents[0].role), (&b"/etc/passwd"[..], Role::Extent));
    // A cluster at 0 is one when its flag says so; one past the end of the data file is not read as zeros.
    image.l2(0, 1 << 63).l2(1, 1 << 63 | CLUSTER as u64);
    let file = Checked::wrap(Memory::new(image.0.clone()));
    let head = super::super::open(file, &Ask::current(&Session::with_defaults())).unwrap();
    let layer = (head.build)(vec![Checked::wrap(Memory::new(vec![1; CLUSTER]))]).unwrap();
    assert_eq!(layer.map(0, 100).unwrap().place, Place::Data { file: 1, offset: 0 });
    assert_eq!(layer.map(CLUSTER as u64, 1).unwrap_err().code(), "qcow2.truncated");
    image.l2(0, 1 << 62);
    let file = Checked::wrap(Memory::new(image.0.clone()));
    let head = super::super::open(file, &Ask::current(&Session::with_defaults())).unwrap();
    let layer = (head.build)(vec![Checked::wrap(Memory::new(vec![1; CLUSTER]))]).unwrap();
    assert_eq!(layer.map(0, 1).unwrap_err().code(), "qcow2.entry", "compressed clusters lie in the image only");
}

#[test]
fn bitmaps_tell_what_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image.qcow2");
    // With clusters of 512 bytes and a granularity of 512, a bitmap's cluster stands for 2 MiB.
    qemu_img(&["create", "-q", "-f", "qcow2", "-o", "cluster_size=512", arg(&image), "8M"]);
    qemu_img(&["bitmap", "--add", "-g", "512", arg(&image), "fine"]);
    qemu_img(&["bitmap", "--add", "-g", "64k", arg(&image), "coarse"]);
    qemu_img(&["bitmap", "--add", "--disable", arg(&image), "off"]);
    qemu_io(&image, &["write 1M 1k".to_owned(), "write 2096640 2048".to_owned(), "write 6M 2M".to_owned()]);
    let layer = open_file(&image, None).unwrap();
    let names: Vec<_> = layer.bitmaps().iter().map(|it| (&*it.name, it.granularity, it.auto, it.in_use)).collect();
    assert_eq!(names, [("fine", 512, true, false), ("coarse", 65536, true, false), ("off", 4096, false, false)]);
    let dirty_from = |index, from| {
        let mut ranges = Vec::new();
        layer
            .dirty(index, from, &mut |range| {
                ranges.push(range);
                ControlFlow::Continue(())
            })
            .unwrap();
        ranges
    };
    let dirty = |index| dirty_from(index, 0);
    let mib = 1 << 20;
    assert_eq!(dirty(0), [mib..mib + 1024, 2_096_640..2_098_688, 6 * mib..8 * mib]);
    assert_eq!(dirty(1), [mib..mib + 65536, 2 * mib - 65536..2 * mib + 65536, 6 * mib..8 * mib]);
    assert_eq!(dirty(2), []);
    // A byte of the finer bitmap stands for 4 KiB, of the coarser for 512 KiB.
    assert_eq!(dirty_from(0, mib + 600), [mib..mib + 1024, 2_096_640..2_098_688, 6 * mib..8 * mib]);
    assert_eq!(dirty_from(0, mib + 4096), [2_096_640..2_098_688, 6 * mib..8 * mib]);
    assert_eq!(dirty_from(0, 2_098_000), [2 * mib..2_098_688, 6 * mib..8 * mib]);
    assert_eq!(dirty_from(0, 7 * mib + 4095).first(), Some(&(7 * mib..8 * mib)));
    assert_eq!(dirty_from(0, 8 * mib), []);
    assert_eq!(dirty_from(1, u64::MAX), []);
    assert!(layer.dirty(3, 0, &mut |_| ControlFlow::Continue(())).is_err());
    let facts = layer.facts();
    let fact = facts.iter().find(|(key, _)| *key == "bitmaps").unwrap();
    assert!(fact.1.starts_with("fine (granularity 512, enabled), coarse"), "{fact:?}");
    let mut found = Vec::new();
    layer
        .check(&mut |finding| {
            found.push(finding);
            ControlFlow::Continue(())
        })
        .unwrap();
    assert!(found.is_empty(), "{found:?}");
}

/// An image with clusters of 16 KiB and extended L2 entries, whose entries are `entries`.
fn extended(entries: &[(u64, u64)]) -> Vec<u8> {
    let cluster = 16 << 10;
    let mut image = Image(vec![0; 4 * cluster]);
    image.poke(0, &header::MAGIC).u32(4, 3).u32(20, 14).u64(24, 8 * cluster as u64).u32(36, 1);
    image.u64(40, cluster as u64).u64(72, 16).u32(96, 4).u32(100, 112).u64(cluster, 2 * cluster as u64);
    for (index, (entry, bitmap)) in entries.iter().enumerate() {
        image.u64(2 * cluster + 16 * index, *entry).u64(2 * cluster + 16 * index + 8, *bitmap);
    }
    image.0[3 * cluster..].fill(7);
    image.0
}

fn open_bytes(bytes: Vec<u8>) -> Arc<Qcow2> {
    Qcow2::open(Checked::wrap(Memory::new(bytes)), &Session::with_defaults()).unwrap()
}

#[test]
fn runs_of_subclusters_join_where_they_continue() {
    let cluster = 16 << 10;
    let data = 3 * cluster;
    let top = 1_u64 << 31;
    let layer = open_bytes(extended(&[(data, top), (0, 0), (0, u64::MAX << 32), (data, 0xffff_ffff)]));
    let map = |at: u64| layer.map(at, layer.len() - at).unwrap();
    let sub = cluster / 32;
    assert_eq!(map(0), Run { len: 31 * sub, place: Place::Parent });
    assert_eq!(map(31 * sub), Run { len: sub, place: Place::Data { file: 0, offset: data + 31 * sub } });
    assert_eq!(map(cluster), Run { len: cluster, place: Place::Parent });
    assert_eq!(map(2 * cluster + 5), Run { len: cluster - 5, place: Place::Zero });
    assert_eq!(map(3 * cluster + 5), Run { len: cluster - 5, place: Place::Data { file: 0, offset: data + 5 } });
}

#[test]
fn contradicting_subclusters_are_errors() {
    let data = 3 << 14;
    for (name, entry, bitmap) in [
        ("both-set", data, 1 << 32 | 1),
        ("allocated-nowhere", 0, 1),
        ("compressed-with-bitmap", 1 << 62 | data, 1),
        ("zero-flag", data | 1, 1),
        ("unaligned", data | 512, 1),
        ("reserved", 1 << 60, 0),
    ] {
        let layer = open_bytes(extended(&[(entry, bitmap)]));
        assert_eq!(layer.map(0, 1).unwrap_err().code(), "qcow2.entry", "{name}");
        let mut found = 0;
        layer
            .check(&mut |finding| {
                found += u32::from(finding.severity == Severity::Corruption);
                ControlFlow::Continue(())
            })
            .unwrap();
        assert!(found > 0, "{name}");
    }
}

/// An image whose snapshot table, one cluster, begins with `table`.
fn with_snapshots(count: u32, table: &[u8]) -> Image {
    let mut image = Image::new();
    let at = image.append(table);
    image.u32(60, count).u64(64, at);
    image
}

/// A snapshot's entry: L1 table, its length, lengths of id and name and extra data, and what follows.
fn entry(l1: u64, l1_size: u32, lengths: (u16, u16, u32), rest: &[u8]) -> Vec<u8> {
    let mut bytes = [&l1.to_be_bytes()[..], &l1_size.to_be_bytes()].concat();
    bytes.extend([lengths.0.to_be_bytes(), lengths.1.to_be_bytes()].concat());
    bytes.extend([0; 20]);
    bytes.extend(lengths.2.to_be_bytes());
    bytes.extend(rest);
    bytes
}

#[test]
fn hostile_snapshot_tables_hurt_only_who_asks_for_a_snapshot() {
    let good = entry(L1 as u64, 1, (1, 1, 0), b"1a");
    let huge = [&0_u64.to_be_bytes()[..], &(1_u64 << 60).to_be_bytes(), b"1a"].concat();
    let cases = [
        ("snapshots-65537", with_snapshots(65537, &good), "qcow2.snapshots"),
        ("snapshots-ffffffff", with_snapshots(u32::MAX, &good), "qcow2.snapshots"),
        (
            "beyond-eof",
            {
                let mut i = with_snapshots(1, &good);
                i.u64(64, 1 << 40);
                i
            },
            "qcow2.truncated",
        ),
        (
            "overflow",
            {
                let mut i = with_snapshots(1, &good);
                i.u64(64, u64::MAX - 3);
                i
            },
            "qcow2.truncated",
        ),
        ("extra-ffffffff", with_snapshots(1, &entry(L1 as u64, 1, (1, 1, u32::MAX), b"1a")), "qcow2.snapshots"),
        ("extra-beyond-eof", with_snapshots(1, &entry(L1 as u64, 1, (1, 1, 1 << 20), b"1a")), "qcow2.truncated"),
        ("names-beyond-eof", with_snapshots(1, &entry(L1 as u64, 1, (65535, 65535, 0), b"1a")), "qcow2.truncated"),
        ("l1-beyond-eof", with_snapshots(1, &entry(1 << 40, 1, (1, 1, 0), b"1a")), "qcow2.truncated"),
        ("l1-unaligned", with_snapshots(1, &entry(L1 as u64 + 8, 1, (1, 1, 0), b"1a")), "qcow2.header"),
        ("l1-empty", with_snapshots(1, &entry(L1 as u64, 0, (1, 1, 0), b"1a")), "qcow2.header"),
        ("l1-huge", with_snapshots(1, &entry(L1 as u64, u32::MAX, (1, 1, 0), b"1a")), "qcow2.l1"),
        ("disk-size-huge", with_snapshots(1, &entry(L1 as u64, 1, (1, 1, 16), &huge)), "disk.too-large"),
        ("no-such", with_snapshots(1, &entry(L1 as u64, 1, (1, 1, 0), b"2b")), "format.snapshot"),
        ("none", Image::new(), "format.snapshot"),
    ];
    let session = Session::with_defaults();
    for (name, image, code) in cases {
        let open = |snapshot| {
            let file = Checked::wrap(Memory::new(image.0.clone()));
            super::super::open(file, &Ask { session: &session, snapshot })
        };
        assert_eq!(open(Some("1")).unwrap_err().code(), code, "{name}");
        assert!(open(None).is_ok(), "{name}: the current state can be read");
        let _ = image.check();
    }
    let image = with_snapshots(1, &good);
    let file = Checked::wrap(Memory::new(image.0.clone()));
    assert!(super::super::open(file, &Ask { session: &session, snapshot: Some("a") }).is_ok());
}

/// An image whose bitmap directory, one cluster, begins with `directory`.
fn with_bitmaps(count: u32, len: u64, directory: &[u8]) -> Image {
    let mut image = Image::new();
    let at = image.append(directory);
    image.u64(88, 1).u32(112, 0x2385_2875).u32(116, 24).u32(120, count).u64(128, len).u64(136, at);
    image
}

/// A bitmap's entry of 32 bytes.
fn bitmap(table: u64, entries: u32, flags: u32, kind_and_bits: [u8; 2], extra: u32) -> Vec<u8> {
    let mut bytes = [&table.to_be_bytes()[..], &entries.to_be_bytes(), &flags.to_be_bytes(), &kind_and_bits].concat();
    bytes.extend([0, 1]);
    bytes.extend(extra.to_be_bytes());
    bytes.extend(*b"b\0\0\0\0\0\0\0");
    bytes
}

#[test]
fn hostile_bitmaps_are_noted_and_left_out() {
    let table = L1 as u64;
    let cases = [
        ("good", with_bitmaps(1, 32, &bitmap(table, 1, 0, [1, 16], 0)), 1),
        ("count-65536", with_bitmaps(65536, 32, &bitmap(table, 1, 0, [1, 16], 0)), 0),
        ("directory-huge", with_bitmaps(1, 1 << 40, &bitmap(table, 1, 0, [1, 16], 0)), 0),
        ("directory-short", with_bitmaps(2, 32, &bitmap(table, 1, 0, [1, 16], 0)), 0),
        ("directory-cut", with_bitmaps(1, 20, &bitmap(table, 1, 0, [1, 16], 0)), 0),
        ("table-huge", with_bitmaps(1, 32, &bitmap(table, u32::MAX, 0, [1, 16], 0)), 0),
        ("table-beyond-eof", with_bitmaps(1, 32, &bitmap(1 << 40, 1, 0, [1, 16], 0)), 0),
        ("table-unaligned", with_bitmaps(1, 32, &bitmap(table + 8, 1, 0, [1, 16], 0)), 0),
        ("type-2", with_bitmaps(1, 32, &bitmap(table, 1, 0, [2, 16], 0)), 0),
        ("granularity-63", with_bitmaps(1, 32, &bitmap(table, 1, 0, [1, 63], 0)), 0),
        ("granularity-255", with_bitmaps(1, 32, &bitmap(table, 1, 0, [1, 255], 0)), 0),
        ("flags", with_bitmaps(1, 32, &bitmap(table, 1, 1 << 31, [1, 16], 0)), 0),
        ("extra-unknown", with_bitmaps(1, 40, &bitmap(table, 1, 0, [1, 16], 8)), 0),
        ("extra-ffffffff", with_bitmaps(1, 32, &bitmap(table, 1, 4, [1, 16], u32::MAX)), 0),
        ("in-use", with_bitmaps(1, 32, &bitmap(table, 1, 1, [1, 16], 0)), 1),
    ];
    for (name, image, count) in cases {
        let layer = image.open().unwrap();
        assert_eq!(layer.bitmaps().len(), count, "{name}");
        assert_eq!(layer.facts().iter().any(|(key, _)| *key == "note"), count == 0, "{name}");
        let dirty = layer.dirty(0, 0, &mut |_| ControlFlow::Continue(()));
        // The L1 table is no table of a bitmap: its first entry names a cluster, though.
        assert_eq!(dirty.is_ok(), name == "good", "{name}");
    }
    let mut stale = with_bitmaps(1, 32, &bitmap(table, 1, 0, [1, 16], 0));
    assert!(stale.u64(88, 0).open().unwrap().bitmaps().is_empty());
}

#[test]
fn a_directory_or_table_cut_anywhere_is_an_error_and_ends() {
    let snapshots = with_snapshots(1, &entry(L1 as u64, 1, (1, 1, 16), &[&[0; 16][..], b"1a"].concat()));
    let bitmaps = with_bitmaps(1, 32, &bitmap(L1 as u64, 1, 0, [1, 16], 0));
    let session = Session::with_defaults();
    for len in DATA..DATA + 64 {
        let file = Checked::wrap(Memory::new(snapshots.0[..len].to_vec()));
        let opened = super::super::open(file, &Ask { session: &session, snapshot: Some("a") });
        assert_eq!(opened.is_ok(), len >= DATA + 58, "{len}");
        let layer = Image(bitmaps.0[..len].to_vec()).open().unwrap();
        assert_eq!(layer.bitmaps().len(), usize::from(len >= DATA + 32), "{len}");
    }
}

#[test]
fn snapshots_and_their_table_have_bounds() {
    use crate::limits::{MAX_QCOW2_SNAPSHOT_TABLE, MAX_QCOW2_SNAPSHOTS};
    let session = Session::with_defaults();
    // No snapshot is called so: the whole table was read when that is all there is to complain of.
    let code = |image: Image| {
        let ask = Ask { session: &session, snapshot: Some("none of them") };
        super::super::open(Checked::wrap(Memory::new(image.0)), &ask).unwrap_err().code()
    };
    let plain = entry(L1 as u64, 1, (0, 0, 0), b"");
    for (count, expected) in [(0, "format.snapshot"), (1, "qcow2.snapshots")] {
        let count = MAX_QCOW2_SNAPSHOTS + count;
        assert_eq!(code(with_snapshots(count, &plain.repeat(count as usize))), expected, "{count}");
    }
    assert_eq!(code(with_snapshots(MAX_QCOW2_SNAPSHOTS - 1, &plain.repeat(1 << 16))), "format.snapshot");
    let table = u32::try_from(MAX_QCOW2_SNAPSHOT_TABLE).unwrap();
    let long = |extra: u32| entry(L1 as u64, 1, (0, 0, extra), &vec![0; extra as usize]);
    for (extra, expected) in [(48, "format.snapshot"), (40, "format.snapshot"), (39, "qcow2.snapshots")] {
        assert_eq!(code(with_snapshots(1, &long(table - extra))), expected, "{extra}");
    }
    for (extra, expected) in [(88, "format.snapshot"), (80, "format.snapshot"), (72, "qcow2.snapshots")] {
        let entries = [long(table - extra), plain.clone()].concat();
        assert_eq!(code(with_snapshots(2, &entries)), expected, "{extra}");
    }
}

#[test]
fn bitmaps_and_their_directory_have_bounds() {
    use crate::limits::{MAX_QCOW2_BITMAP_DIRECTORY, MAX_QCOW2_BITMAPS};
    let mut nameless = bitmap(L1 as u64, 1, 0, [1, 16], 0);
    nameless.truncate(24);
    nameless[19] = 0;
    let found =
        |count: u32, len: u64, directory: &[u8]| with_bitmaps(count, len, directory).open().unwrap().bitmaps().len();
    for (count, expected) in [(MAX_QCOW2_BITMAPS - 1, true), (MAX_QCOW2_BITMAPS, true), (MAX_QCOW2_BITMAPS + 1, false)]
    {
        let directory = nameless.repeat(count as usize);
        let all = found(count, directory.len() as u64, &directory);
        assert_eq!(all, if expected { count as usize } else { 0 }, "{count}");
    }
    let most = MAX_QCOW2_BITMAP_DIRECTORY;
    for (len, expected) in [(most - 8, 1), (most, 1), (most + 8, 0)] {
        let mut directory = nameless.clone();
        directory.resize(usize::try_from(len).unwrap(), 0);
        assert_eq!(found(1, len, &directory), expected, "{len}");
    }
}
