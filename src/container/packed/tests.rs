#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::as_conversions,
    reason = "tests build their input"
)]

use super::*;
use crate::disk::{Memory, read_vec};
use crate::session::{Budget, Policy};
use std::io::Write;

const ALL: [Compression; 4] = [Compression::Bzip2, Compression::Gzip, Compression::Xz, Compression::Zstd];

/// Bytes like those of a disk: runs of zeros, text and noise.
fn content(len: usize) -> Vec<u8> {
    let mut state = 7_u64;
    let mut bytes = vec![0; len];
    for (number, part) in bytes.chunks_mut(10_000).enumerate() {
        for (at, byte) in part.iter_mut().enumerate() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = match number % 3 {
                0 => 0,
                1 => b"the quick brown fox "[(at / 3 + number) % 20],
                _ => (state >> 56) as u8,
            };
        }
    }
    bytes
}

/// What a program makes of `bytes` on its standard input.
#[allow(clippy::disallowed_methods, reason = "tests run a second implementation")]
fn pipe_through(command: &[&str], bytes: &[u8]) -> Vec<u8> {
    let mut child = std::process::Command::new(command[0])
        .args(&command[1..])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", command[0]));
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || _ = stdin.write_all(bytes));
        child.wait_with_output().unwrap()
    });
    assert!(output.status.success());
    output.stdout
}

/// A seekable zstd file of frames of `size` bytes.
fn seekable(bytes: &[u8], size: usize) -> Vec<u8> {
    let (mut out, mut table) = (Vec::new(), Vec::new());
    for part in bytes.chunks(size) {
        let frame = ::zstd::bulk::compress(part, 1).unwrap();
        table.extend((frame.len() as u32).to_le_bytes());
        table.extend((part.len() as u32).to_le_bytes());
        out.extend(frame);
    }
    let count = (table.len() / 8) as u32;
    out.extend(0x184d_2a5e_u32.to_le_bytes());
    out.extend((table.len() as u32 + 9).to_le_bytes());
    out.extend(&table);
    out.extend(count.to_le_bytes());
    out.push(0);
    out.extend(0x8f92_eab1_u32.to_le_bytes());
    out
}

/// `bytes` compressed in all ways that there are.
fn files(bytes: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let half = bytes.len() / 2;
    let parts =
        |command: &[&str]| [pipe_through(command, &bytes[..half]), pipe_through(command, &bytes[half..])].concat();
    vec![
        ("gzip -1", pipe_through(&["gzip", "-1"], bytes)),
        ("gzip -9", pipe_through(&["gzip", "-9"], bytes)),
        ("two gzip members", parts(&["gzip"])),
        ("gzip and padding", [pipe_through(&["gzip"], bytes), vec![0; 1000]].concat()),
        ("xz", pipe_through(&["xz", "-1"], bytes)),
        ("xz blocks", pipe_through(&["xz", "-1", "--block-size=100000"], bytes)),
        ("xz sha256", pipe_through(&["xz", "-1", "--check=sha256", "--block-size=300000"], bytes)),
        ("two xz streams", [parts(&["xz", "-1", "--check=crc32"]), vec![0; 8]].concat()),
        ("zstd", pipe_through(&["zstd", "-1"], bytes)),
        ("pzstd", parts(&["zstd", "-1"])),
        (
            "zstd frames with sizes",
            bytes.chunks(70_000).flat_map(|part| ::zstd::bulk::compress(part, 1).unwrap()).collect(),
        ),
        ("seekable zstd", seekable(bytes, 50_000)),
        ("bzip2 -1", pipe_through(&["bzip2", "-1"], bytes)),
        ("bzip2 -9", pipe_through(&["bzip2", "-9"], bytes)),
        ("two bzip2 streams", parts(&["bzip2"])),
    ]
}

fn open(file: Vec<u8>) -> Result<Arc<Checked<Packed>>> {
    open_in(file, &Session::with_defaults())
}

fn open_in(file: Vec<u8>, session: &Arc<Session>) -> Result<Arc<Checked<Packed>>> {
    let compression = Compression::detect(&file).expect("compressed");
    Packed::open(Checked::wrap(Memory::new(file)), compression, session)
}

/// Reads all of it forward.
fn forward(file: Vec<u8>, compression: Compression) -> Result<Vec<u8>> {
    let bytes = input::Bytes::new("test".into(), file);
    let mut stream = compression.decode(Box::new(bytes))?;
    let (mut out, mut buf) = (Vec::new(), vec![0; 10_007]);
    loop {
        match stream.read(&mut buf)? {
            0 => return Ok(out),
            count => out.extend_from_slice(&buf[..count]),
        }
    }
}

#[test]
fn forward_and_random_reads_agree_with_the_programs() {
    let bytes = content(3_300_017);
    for (name, file) in files(&bytes) {
        let compression = Compression::detect(&file).unwrap();
        assert!(forward(file.clone(), compression).unwrap() == bytes, "{name}");
        let disk = open(file).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(disk.len(), bytes.len() as u64, "{name}");
        assert!(read_vec(&*disk, 0, bytes.len()).unwrap() == bytes, "{name}");
        let mut state = 3_usize;
        for _ in 0..50 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let offset = (state >> 20) % bytes.len();
            let len = ((state >> 8) % 100_000).min(bytes.len() - offset);
            assert!(read_vec(&*disk, offset as u64, len).unwrap() == bytes[offset..offset + len], "{name} {offset}");
        }
    }
}

#[test]
fn there_are_places_to_begin_at_where_the_format_has_some() {
    let bytes = content(3_300_017);
    let points: Vec<(&str, usize)> =
        files(&bytes).into_iter().map(|(name, file)| (name, open(file).unwrap().inner().points())).collect();
    let of = |name: &str| points.iter().find(|(known, _)| *known == name).unwrap().1;
    assert_eq!((of("gzip -9"), of("xz"), of("xz blocks"), of("two xz streams")), (4, 1, 34, 2), "{points:?}");
    assert_eq!((of("zstd"), of("seekable zstd")), (1, 4), "small frames are decoded together: {points:?}");
    assert!(of("bzip2 -1") > 20, "{points:?}");
}

#[test]
fn several_threads_read_at_once() {
    let bytes = content(3_300_017);
    for (name, file) in files(&bytes) {
        let disk = open(file).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4_usize {
                let (disk, bytes) = (&disk, &bytes);
                scope.spawn(move || {
                    for number in 0..60 {
                        let offset = (number * 4 + thread) * 13_751 % (bytes.len() - 60_000);
                        assert!(
                            read_vec(&**disk, offset as u64, 60_000).unwrap() == bytes[offset..offset + 60_000],
                            "{name}"
                        );
                    }
                });
            }
        });
    }
}

/// One piece that is larger than what is decoded whole, read as the copy engine does: in order, but for several chunks at a time.
#[test]
fn one_large_piece_is_decoded_once_when_read_in_order() {
    let bytes = content(9_000_003);
    let session = Session::new(Budget::new(0), Policy::default(), 2);
    for command in [["xz", "-0"], ["zstd", "-1"]] {
        let disk = open_in(pipe_through(&command, &bytes), &session).unwrap();
        assert_eq!(disk.inner().points(), 1);
        assert!(disk.len() > disk.inner().most);
        // As many chunks at a time as the copy engine reads with this budget, the last one first.
        for (round, part) in bytes.chunks(3 << 21).enumerate() {
            for (number, chunk) in part.chunks(2 << 20).enumerate().rev() {
                let offset = (round * 3 + number) << 21;
                assert!(read_vec(&*disk, offset as u64, chunk.len()).unwrap() == chunk, "{command:?} {offset}");
            }
        }
        let cursors = lock(&disk.inner().cursors);
        assert_eq!(cursors.decoded, bytes.len() as u64, "{command:?}");
    }
}

#[test]
fn what_is_kept_of_a_large_piece_grows_with_the_threads_of_a_copy() {
    for budget in [0, limits::DEFAULT_BUDGET, 16 << 30] {
        let session = Session::new(Budget::new(budget), Policy::default(), 64);
        let disk = open_in(pipe_through(&["zstd", "-1"], &content(1000)), &session).unwrap();
        let kept = disk.inner().recent as u64 * STEP;
        // A copy has so many chunks of 2 MiB under way, and a bit more for each.
        assert!(kept >= session.budget.in_flight() / 17 * 8, "{kept} of {budget}");
    }
}

#[test]
fn jumping_about_in_one_large_piece_is_refused_in_time() {
    let bytes = content(9_000_003);
    let session = Session::new(Budget::new(0), Policy::default(), 2);
    let disk = open_in(pipe_through(&["zstd", "-1"], &bytes), &session).unwrap();
    lock(&disk.inner().cursors).decoded = limits::MAX_PACKED_WASTE - (4 << 20);
    assert!(read_vec(&*disk, 0, 2_000_000).unwrap() == bytes[..2_000_000]);
    let error = read_vec(&*disk, 8_900_000, 10).unwrap_err();
    assert_eq!((error.code(), error.kind().exit_code()), ("packed.random", 4));
}

#[test]
fn every_truncation_is_noticed() {
    let bytes = content(50_000);
    for (name, file) in files(&bytes) {
        let compression = Compression::detect(&file).unwrap();
        let whole = forward(file.clone(), compression).unwrap();
        assert!(whole == bytes);
        for cut in (12..file.len()).step_by(file.len() / 60 + 1).chain(file.len() - 12..file.len()) {
            let part = file[..cut].to_vec();
            // What ends between two members, or inside of padding, is a whole file.
            match forward(part.clone(), compression) {
                Ok(found) => assert!(
                    found.len() == bytes.len()
                        || found.len() == bytes.len() / 2
                        || name.contains("frames")
                        || name == "seekable zstd",
                    "{name} {cut}"
                ),
                Err(error) => assert!(matches!(error.code(), "packed.truncated" | "packed.corrupt"), "{name}: {error}"),
            }
            if let Ok(disk) = open(part)
                && let Ok(found) = read_vec(&*disk, 0, disk.len() as usize)
            {
                assert!(bytes.starts_with(&found), "{name} {cut}");
            }
        }
    }
}

#[test]
fn every_flipped_bit_is_an_error_or_changes_nothing() {
    let bytes = content(40_000);
    for (name, file) in files(&bytes) {
        // Without its option, the program writes no checksum into frames made at once.
        if name.contains("frames") || name.contains("seekable") {
            continue;
        }
        for at in (0..file.len()).step_by(file.len() / 70 + 1) {
            let mut bad = file.clone();
            bad[at] ^= 1 << (at % 8);
            let Some(compression) = Compression::detect(&bad) else { continue };
            if let Ok(found) = forward(bad.clone(), compression) {
                assert!(found == bytes || found.len() == bytes.len() / 2, "{name} {at}");
            }
            if let Ok(disk) = open(bad)
                && let Ok(found) = read_vec(&*disk, 0, disk.len() as usize)
            {
                assert!(found == bytes, "{name} {at}");
            }
        }
    }
}

/// The code for opening a file and reading all of it.
fn code(file: Vec<u8>, compression: Compression) -> &'static str {
    let session = Session::with_defaults();
    let disk = Packed::open(Checked::wrap(Memory::new(file)), compression, &session);
    let read = disk.and_then(|disk| read_vec(&*disk, 0, disk.len().min(1 << 24) as usize));
    read.map_or_else(|error| error.code(), |_| "ok")
}

#[test]
fn hostile_gzip_files_are_refused() {
    let good = pipe_through(&["gzip", "-n"], &content(5000));
    let with = |at: usize, byte: u8| {
        let mut file = good.clone();
        file[at] = byte;
        file
    };
    let end = good.len();
    let raw = |body: &[u8]| [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3][..], body].concat();
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("crc", with(end - 8, good[end - 8] ^ 1), "packed.corrupt"),
        ("length", with(end - 4, good[end - 4] ^ 1), "packed.corrupt"),
        ("reserved flag", with(3, 0x20), "packed.corrupt"),
        ("method", with(2, 7), "packed.corrupt"),
        ("endless name", [&good[..3], &[8], &good[4..10], &vec![b'n'; 10_000][..]].concat(), "packed.corrupt"),
        ("name without end", [&good[..3], &[8], &good[4..10], b"name"].concat(), "packed.truncated"),
        ("extra past the end", [&good[..3], &[4], &good[4..10], &[0xff, 0xff, 1]].concat(), "packed.truncated"),
        ("something behind", [&good[..], b"garbage behind it"].concat(), "packed.corrupt"),
        ("garbage in padding", [&good[..], &[0, 0, 1]].concat(), "packed.corrupt"),
        ("reserved block", raw(&[0b111, 0, 0]), "packed.corrupt"),
        ("distance before the start", raw(&[0x03 | 0x08, 0x00, 0xff, 0xff, 0xff]), "packed.corrupt"),
        ("stored length", raw(&[1, 5, 0, 0, 0, 1]), "packed.corrupt"),
        ("no trailer", good[..end - 8].to_vec(), "packed.truncated"),
        ("header only", good[..10].to_vec(), "packed.truncated"),
        ("nothing inside", pipe_through(&["gzip"], b""), "packed.empty"),
    ];
    for (name, file, expected) in cases {
        assert_eq!(code(file, Compression::Gzip), expected, "{name}");
    }
}

#[test]
fn hostile_xz_files_are_refused() {
    let good = pipe_through(&["xz", "--block-size=2000"], &content(5000));
    let end = good.len();
    // The index of a file with one block, changed and sealed again.
    let forged = |unpadded: u64, len: u64| {
        let one = pipe_through(&["xz", "--check=crc32"], &content(5000));
        let backward = u32::from_le_bytes(one[one.len() - 8..one.len() - 4].try_into().unwrap());
        let index_at = one.len() - 12 - (backward as usize + 1) * 4;
        [&one[..index_at], &xz::tests::tail(unpadded, len)].concat()
    };
    let with = |at: usize, byte: u8| {
        let mut file = good.clone();
        file[at] ^= byte;
        file
    };
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("footer magic", with(end - 1, 1), "packed.truncated"),
        ("footer crc", with(end - 12, 1), "packed.truncated"),
        ("backward size", with(end - 8, 1), "packed.truncated"),
        ("index crc", with(end - 13, 1), "packed.corrupt"),
        ("index count", with(end - 30, 1), "packed.corrupt"),
        ("header flags", with(7, 1), "packed.corrupt"),
        ("block header", with(12, 1), "packed.corrupt"),
        ("block data", with(40, 1), "packed.corrupt"),
        ("odd padding", [&good[..], &[0; 3]].concat(), "packed.truncated"),
        ("only padding behind the magic", [&good[..6], &vec![0; 3 << 20][..]].concat(), "packed.truncated"),
        ("garbage behind", [&good[..], b"garbage!"].concat(), "packed.truncated"),
        ("block larger than the file", forged(1 << 40, 5000), "packed.corrupt"),
        ("huge content", forged(1000, 1 << 60), "packed.corrupt"),
        ("tiny block", forged(4, 5000), "packed.corrupt"),
        ("nothing inside", pipe_through(&["xz"], b""), "packed.empty"),
    ];
    for (name, file, expected) in cases {
        assert_eq!(code(file, Compression::Xz), expected, "{name}");
    }
}

#[test]
fn hostile_zstd_files_are_refused() {
    let bytes = content(5000);
    let good = pipe_through(&["zstd", "--check"], &bytes);
    let frame = ::zstd::bulk::compress(&bytes, 1).unwrap();
    let end = good.len();
    let raw = |body: &[u8]| [&[0x28, 0xb5, 0x2f, 0xfd][..], body].concat();
    let mut table_lies = seekable(&bytes, 1000);
    let at = table_lies.len() - 9 - 4;
    table_lies[at] ^= 1;
    let mut table_moves = seekable(&bytes, 1000);
    let at = table_moves.len() - 9 - 8;
    table_moves[at] ^= 1;
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("checksum", [&good[..end - 1], &[good[end - 1] ^ 1]].concat(), "packed.corrupt"),
        ("no checksum", good[..end - 4].to_vec(), "packed.truncated"),
        ("cut block", good[..end / 2].to_vec(), "packed.truncated"),
        ("reserved bit", raw(&[0x08, 0]), "packed.corrupt"),
        ("reserved block type", raw(&[0x20, 10, 7, 0, 0]), "packed.corrupt"),
        ("huge block", raw(&[0x20, 10, 0xfd, 0xff, 0xff]), "packed.corrupt"),
        ("dictionary", raw(&[0x21, 7, 10, 1, 0, 0]), "packed.unsupported"),
        ("header only", raw(&[]), "packed.truncated"),
        ("huge window", raw(&[0, 0xff, 3, 0, 0, 1]), "packed.limit"),
        ("content size lies", raw(&[0xe0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0]), "packed.limit"),
        ("more than it says", raw(&[0x20, 1, 0x11, 0, 0, 1, 2]), "packed.corrupt"),
        ("less than it says", raw(&[0x20, 100, 0x11, 0, 0, 1, 2]), "packed.corrupt"),
        ("garbage behind", [&frame[..], b"garbage"].concat(), "packed.corrupt"),
        ("skippable past the end", [&frame[..], &[0x50, 0x2a, 0x4d, 0x18, 0xff, 0, 0, 0]].concat(), "packed.truncated"),
        ("seek table lies about content", table_lies, "packed.corrupt"),
        ("seek table that does not fit is ignored", table_moves, "ok"),
        ("nothing inside", pipe_through(&["zstd"], b""), "packed.empty"),
    ];
    for (name, file, expected) in cases {
        assert_eq!(code(file, Compression::Zstd), expected, "{name}");
    }
}

#[test]
fn hostile_bzip2_files_are_refused() {
    let good = pipe_through(&["bzip2"], &content(40_000));
    let end = good.len();
    let with = |at: usize, byte: u8| {
        let mut file = good.clone();
        file[at] ^= byte;
        file
    };
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("level", with(3, 0x30), "packed.corrupt"),
        ("block mark", with(4, 1), "packed.corrupt"),
        ("block crc", with(10, 1), "packed.corrupt"),
        ("randomised flag and origin", with(15, 0xff), "packed.corrupt"),
        ("data", with(60, 1), "packed.corrupt"),
        ("stream crc", with(end - 2, 0xff), "packed.corrupt"),
        ("cut in the block", good[..end / 2].to_vec(), "packed.truncated"),
        ("cut in the end mark", good[..end - 8].to_vec(), "packed.truncated"),
        ("cut in the checksum", good[..end - 2].to_vec(), "packed.truncated"),
        ("garbage behind", [&good[..], b"garbage"].concat(), "packed.corrupt"),
        ("a block without end", [&good[..20], &vec![0x55; 3 << 20][..]].concat(), "packed.corrupt"),
        ("header only", good[..10].to_vec(), "packed.truncated"),
        ("nothing inside", pipe_through(&["bzip2"], b""), "packed.empty"),
    ];
    for (name, file, expected) in cases {
        assert_eq!(code(file, Compression::Bzip2), expected, "{name}");
    }
}

#[test]
fn a_small_budget_gives_wider_spaced_points_and_the_same_bytes() {
    let bytes: Vec<u8> = content(12_000_000).into_iter().rev().collect();
    let session = Session::new(Budget::new(0), Policy::default(), 1);
    let source: Arc<dyn Disk> = Checked::wrap(Memory::new(pipe_through(&["gzip", "-1"], &bytes)));
    let index = gzip::index(&source, &session).unwrap();
    assert_eq!(index.len, bytes.len() as u64);
    assert!(index.starts.len() > 5 && index.starts[0] == 0);
    for unit in [0, index.starts.len() / 2, index.starts.len() - 1] {
        let mut buf = vec![0; 100_000];
        let mut stream = index.units.open(unit, &source).unwrap();
        read_full(&mut *stream, &mut buf).unwrap();
        let at = index.starts[unit] as usize;
        assert!(buf[..1000] == bytes[at..at + 1000]);
    }
}

#[test]
fn a_cancelled_session_stops_the_pass() {
    let bytes = content(3_000_000);
    let session = Session::with_defaults();
    let files = files(&bytes);
    session.cancel();
    for (name, file) in
        files.into_iter().filter(|(name, _)| name.starts_with("gzip -1") || name.starts_with("bzip2 -1"))
    {
        assert_eq!(open_in(file, &session).err().map(|error| error.code()), Some("session.interrupted"), "{name}");
    }
}

#[test]
fn names_are_told_apart() {
    for compression in ALL {
        assert!(!compression.name().is_empty());
    }
    assert_eq!(Compression::detect(b"BZh91AY&SY"), Some(Compression::Bzip2));
    assert_eq!(Compression::detect(b"BZh9"), None);
}
