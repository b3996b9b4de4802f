//! Databases that lie, and the bounds: at, below and above.
#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    reason = "tests build their input"
)]

use std::sync::Arc;

use super::*;
use crate::fs::MemoryFs;

/// Tag, type, count and data.
type Entry<'a> = (u32, u32, u32, &'a [u8]);

const RPM_NDB: &str = "/usr/lib/sysimage/rpm/Packages.db";
const RPM_BDB: &str = "/var/lib/rpm/Packages";

fn guest(files: &[(&str, &[u8])]) -> Tree {
    let fs = MemoryFs::default();
    for (path, content) in files {
        fs.add_file(path, content).unwrap();
    }
    Tree::new(Arc::new(fs))
}

fn only(path: &str, content: &[u8]) -> Database {
    let mut databases = find(&guest(&[(path, content)])).unwrap();
    assert_eq!(databases.len(), 1);
    databases.remove(0)
}

fn names(database: &Database) -> Vec<&str> {
    database.packages.iter().map(|package| package.name.as_str()).collect()
}

fn header(entries: &[Entry<'_>]) -> Vec<u8> {
    let (mut index, mut data) = (Vec::new(), Vec::new());
    for (tag, kind, count, bytes) in entries {
        for number in [*tag, *kind, u32::try_from(data.len()).unwrap(), *count] {
            index.extend(number.to_be_bytes());
        }
        data.extend_from_slice(bytes);
    }
    let counts = [index.len() / 16, data.len()].map(|count| u32::try_from(count).unwrap().to_be_bytes());
    [counts.concat(), index, data].concat()
}

fn named(name: &str) -> Vec<u8> {
    header(&[(1000, 6, 1, format!("{name}\0").as_bytes()), (1001, 6, 1, b"1\0")])
}

fn ndb(headers: &[Vec<u8>]) -> Vec<u8> {
    let le = |number: usize| u32::try_from(number).unwrap().to_le_bytes();
    let mut file = [b"RpmP".as_slice(), &le(0), &le(1), &le(1), &[0; 16]].concat();
    let mut blobs: Vec<u8> = Vec::new();
    for (index, header) in headers.iter().enumerate() {
        let blocks = (header.len() + 28).div_ceil(16);
        let first = 256 + blobs.len() / 16;
        file.extend([b"Slot".as_slice(), &le(index + 1), &le(first), &le(blocks)].concat());
        blobs.extend([b"BlbS".as_slice(), &le(index + 1), &le(1), &le(header.len()), header].concat());
        blobs.resize((first - 256 + blocks) * 16 - 8, 0);
        blobs.extend([le(header.len()).as_slice(), b"BlbE"].concat());
    }
    while file.len() < 4096 {
        file.extend([b"Slot".as_slice(), &[0; 12]].concat());
    }
    [file, blobs].concat()
}

/// One bucket with one package that lies in its page, and one that lies in pages of its own.
fn bdb() -> Vec<u8> {
    let mut file = vec![0; 512 * 5];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    for (at, number) in [(12, 0x0006_1561_u32), (16, 9), (20, 512), (32, 4), (72, 0), (96, 1)] {
        put(at, &number.to_le_bytes());
    }
    put(25, &[8]);
    let (near, far) = (named("near"), header(&[(1000, 6, 1, b"far\0"), (1005, 6, 1, &[b'x'; 700])]));
    let page = 512;
    put(page + 8, &1_u32.to_le_bytes());
    put(page + 20, &4_u16.to_le_bytes());
    put(page + 25, &[13]);
    let mut end = 512;
    let chain = [&[3, 0, 0, 0][..], &2_u32.to_le_bytes(), &u32::try_from(far.len()).unwrap().to_le_bytes()].concat();
    for (index, item) in
        [&[1, 1, 0, 0, 0][..], &[&[1], &near[..]].concat(), &[1, 2, 0, 0, 0], &chain].iter().enumerate()
    {
        end -= item.len();
        put(page + end, item);
        put(page + 26 + index * 2, &u16::try_from(end).unwrap().to_le_bytes());
    }
    for (index, part) in far.chunks(400).enumerate() {
        let number = u32::try_from(index + 2).unwrap();
        let page = 512 * (index + 2);
        put(page + 8, &number.to_le_bytes());
        put(page + 16, &(if part.len() < 400 { 0 } else { number + 1 }).to_le_bytes());
        put(page + 22, &u16::try_from(part.len()).unwrap().to_le_bytes());
        put(page + 25, &[7]);
        put(page + 26, part);
    }
    file
}

#[test]
fn a_header_is_read_by_tag_and_type() {
    let package = only(
        RPM_NDB,
        &ndb(&[header(&[
            (63, 7, 16, &[0; 16]),
            (1000, 6, 1, b"name\0"),
            (1001, 6, 1, b"1.2\0"),
            (1002, 6, 1, b"3\0"),
            (1003, 4, 1, &[0, 0, 0, 7]),
            (1004, 9, 2, b"about\0von\0"),
            (1009, 4, 1, &[0, 0, 1, 0]),
            (1022, 6, 1, b"x86_64\0"),
            (1044, 6, 1, b"the-source-1.2-3.src.rpm\0"),
            (5009, 5, 1, &[0, 0, 0, 1, 0, 0, 0, 0]),
            (1008, 4, 1, &[0x80, 0, 0, 0]),
            // What installation adds comes after what the package brought.
            (1011, 6, 1, b"a vendor\0"),
            (1011, 6, 1, b"the vendor\0"),
        ])]),
    );
    assert_eq!(package.problem, None);
    assert_eq!(
        package.packages,
        [Package {
            name: "name".into(),
            arch: Some("x86_64".into()),
            epoch: Some(7),
            version: "1.2".into(),
            release: Some("3".into()),
            vendor: Some("the vendor".into()),
            install_time: Some(1 << 31),
            size: Some(1 << 32),
            summary: Some("about".into()),
            source: Some("the-source".into()),
            ..Package::default()
        }]
    );
}

#[test]
fn hostile_headers_end_the_list_with_a_reason() {
    let good = named("good");
    let mut none = good.clone();
    none[..4].fill(0);
    let mut many = good.clone();
    many[..4].copy_from_slice(&0x1_0000_u32.to_be_bytes());
    let mut long = good.clone();
    long[7] += 1;
    let outside = header(&[(1000, 6, 1, b"")]);
    let mut far = header(&[(1000, 6, 1, b"x\0")]);
    far[16] = 0xff;
    for (what, bad) in [
        ("empty", Vec::new()),
        ("short", vec![0; 7]),
        ("no entries", none),
        ("too many entries", many),
        ("data longer than the header", long),
        ("no name", header(&[(1001, 6, 1, b"1\0")])),
        ("a name of no type", header(&[(1000, 4, 1, b"name")])),
        ("a name outside", outside),
        ("a name far outside", far),
        ("an empty name", header(&[(1000, 6, 1, b"\0")])),
    ] {
        let database = only(RPM_NDB, &ndb(&[good.clone(), bad, good.clone()]));
        assert_eq!(names(&database), ["good"], "{what}");
        assert!(database.problem.is_some(), "{what}");
    }
    let database = only(RPM_NDB, &ndb(&[header(&[(1000, 6, 1, b"no end")])]));
    assert_eq!((names(&database), database.problem.as_deref()), (vec!["no end"], None));
}

#[test]
fn hostile_databases_of_ndb_end_with_a_reason() {
    let good = ndb(&[named("good"), named("next")]);
    assert_eq!(names(&only(RPM_NDB, &good)), ["good", "next"]);
    let second = 4096 + usize::from(good[44]) * 16;
    for (what, at, bytes) in [
        ("another magic", 0, &b"RpmQ"[..]),
        ("another version", 4, &[1]),
        ("more pages of slots than there are", 12, &[0xff; 4]),
        ("a slot without its mark", 48, b"slot"),
        ("a slot of another package", 52, &[9]),
        ("a blob outside the file", 56, &[0xff; 4]),
        ("a blob over another", 56, &[0, 1]),
        ("a blob without blocks", 60, &[0; 4]),
        ("a blob of more blocks than the file", 60, &[0xff; 4]),
        ("a blob without its mark", second, b"blob"),
        ("a blob with another length", second + 12, &[0xff]),
        ("a blob with a length past everything", second + 12, &[0xff; 4]),
        ("a blob without its end", good.len() - 4, b"blob"),
        ("a blob with another length at its end", good.len() - 8, &[1]),
    ] {
        let mut bad = good.clone();
        bad[at..at + bytes.len()].copy_from_slice(bytes);
        let database = only(RPM_NDB, &bad);
        assert!(database.problem.is_some(), "{what}: {:?}", names(&database));
    }
    for length in [0, 31, 32, 4095, 4096, good.len() - 1] {
        assert!(only(RPM_NDB, &good[..length]).problem.is_some(), "{length}");
    }
}

#[test]
fn hostile_databases_of_berkeley_db_end_with_a_reason() {
    let good = bdb();
    let database = only(RPM_BDB, &good);
    assert_eq!((names(&database), database.problem.as_deref()), (vec!["far", "near"], None));
    for (what, at, bytes) in [
        ("another magic", 12, &[0_u8; 4][..]),
        ("another version", 16, &[7]),
        ("encrypted", 24, &[1]),
        ("checksums", 26, &[1]),
        ("pages of no size", 20, &[0; 4]),
        ("pages of an odd size", 20, &[3]),
        ("a B-tree", 25, &[9]),
        ("more buckets than pages", 72, &[9]),
        ("a bucket outside", 96, &[9]),
        ("a bucket at the first page", 96, &[0]),
        ("a bucket in an overflow page", 96, &[2]),
        ("a page with another number", 512 + 8, &[3]),
        ("a page that follows itself", 512 + 16, &[1]),
        ("more entries than a page holds", 512 + 20, &[0xff, 0xff]),
        ("an entry outside its page", 512 + 26, &[0xff, 0xff]),
        ("entries that overlap", 512 + 28, &[0xfe, 1]),
        ("a value of another kind", 1024 - 5 - named("near").len() - 1, &[2]),
        ("a chain that ends too early", 1024 + 16, &[0]),
        ("a chain in a loop", 1024 + 16, &[2]),
        ("a chain into a bucket", 1024 + 16, &[1]),
        ("a chain that uses more than its page", 1024 + 22, &[0xff, 0xff]),
        ("a chain that uses more than the value", 3 * 512 + 22, &[0xff, 1]),
        ("a chain of another type", 1024 + 25, &[6]),
    ] {
        let mut bad = good.clone();
        bad[at..at + bytes.len()].copy_from_slice(bytes);
        let database = only(RPM_BDB, &bad);
        assert!(database.problem.is_some(), "{what}: {:?}", names(&database));
    }
    for length in [0, 511, 512, 1023, 2047] {
        assert!(only(RPM_BDB, &good[..length]).problem.is_some(), "{length}");
    }
}

#[test]
fn hostile_text_is_read_as_far_as_it_makes_sense() {
    const STATUS: &str = "/var/lib/dpkg/status";
    const APK: &str = "/lib/apk/db/installed";
    for (path, text, found) in [
        (STATUS, &b""[..], &[][..]),
        (STATUS, b"\n\n\n", &[]),
        (STATUS, b"Package", &[]),
        (STATUS, b"Package:\nStatus: install ok installed\n", &[]),
        (STATUS, b"Status: install ok installed\n\nPackage: a\n", &["a"]),
        (STATUS, b" continued\nPackage: a\nVersion: x:y:z\nInstalled-Size: -1\n", &["a"]),
        (STATUS, b"PACKAGE: a\nStatus: x\nInstalled-Size: 18446744073709551615", &["a"]),
        (STATUS, b"Package: \xff\x00\x1b[2J\n", &["\u{fffd}\0\u{1b}[2J"]),
        (STATUS, b"Description: x\n y\n\tz\n.\n\nPackage: b", &["b"]),
        (STATUS, b":\n:\nPackage: c\n", &["c"]),
        (APK, b"P:a\nV:1\n\nP:\n\nX\n\nP:b", &["a", "b"]),
        (APK, b"V:-\nP:a\nI:x\n", &["a"]),
    ] {
        let database = only(path, text);
        assert_eq!((names(&database), &database.problem), (found.to_vec(), &None), "{}", text.escape_ascii());
    }
    let long = format!("Package: {}\nDescription: {0}\n {}\n", "x".repeat(1 << 20), "y\n ".repeat(1 << 18));
    let package = only(STATUS, long.as_bytes()).packages.remove(0);
    assert_eq!((package.name.len(), package.summary.unwrap().len()), (LONGEST_WORD, LONGEST_LINE));
    assert!(package.description.unwrap().len() <= LONGEST_TEXT);
}

#[test]
fn apk_lists_what_is_installed() {
    let text = "C:Q1abc=\nP:musl-utils\nV:1.2.4-r2\nA:x86_64\nS:36000\nI:143360\nT:the musl utilities\nU:https://musl.libc.org/\n\
                L:MIT\no:musl\nm:T <t@example.org>\nt:1700000000\nF:sbin\nR:ldconfig\nZ:Q1x=\n\nP:busybox\nV:1\no:busybox\n\n";
    for path in ["/lib/apk/db/installed", "/usr/lib/apk/db/installed"] {
        let database = only(path, text.as_bytes());
        assert_eq!(names(&database), ["busybox", "musl-utils"]);
        assert_eq!(
            database.packages[1],
            Package {
                name: "musl-utils".into(),
                arch: Some("x86_64".into()),
                version: "1.2.4".into(),
                release: Some("r2".into()),
                vendor: Some("T <t@example.org>".into()),
                size: Some(143_360),
                summary: Some("the musl utilities".into()),
                url: Some("https://musl.libc.org/".into()),
                source: Some("musl".into()),
                ..Package::default()
            }
        );
        assert_eq!(database.packages[0].source, None);
    }
}

#[test]
fn images_without_dpkg_keep_a_file_a_package() {
    let tree = guest(&[
        ("/var/lib/dpkg/status.d/base", b"Package: base-files\nVersion: 12\n"),
        ("/var/lib/dpkg/status.d/base.md5sums", b"Package: no\n"),
        ("/var/lib/dpkg/status.d/netbase", b"Package: netbase\nVersion: 6.4\nStatus: x"),
    ]);
    let databases = find(&tree).unwrap();
    assert_eq!(names(&databases[0]), ["base-files", "netbase"]);
}

#[test]
fn a_machine_may_have_several_databases() {
    let tree = guest(&[
        ("/var/lib/dpkg/status", b"Package: a\n"),
        ("/var/lib/rpm/rpmdb.sqlite", b""),
        ("/lib/apk/db/installed", b"P:c\n"),
        ("/var/lib/pacman/local/d-1-1/desc", b"%NAME%\nd\n\n%VERSION%\n1:1-1\n"),
        ("/var/lib/pacman/local/ALPM_DB_VERSION", b"9\n"),
    ]);
    let found: Vec<_> = find(&tree).unwrap().into_iter().map(|found| (found.format, found.packages.len())).collect();
    assert_eq!(found, [("deb", 1), ("rpm", 0), ("apk", 1), ("pacman", 1)]);
    assert!(find(&guest(&[("/etc/hosts", b"")])).unwrap().is_empty());
}

#[test]
fn as_many_packages_as_the_limit() {
    let limit = limits::MAX_PACKAGES;
    for (count, whole) in [(limit - 1, true), (limit, true), (limit + 1, false)] {
        let database = only("/lib/apk/db/installed", "P:x\n\n".repeat(count).as_bytes());
        assert_eq!((database.packages.len(), database.problem.is_none()), (count.min(limit), whole));
    }
}

#[test]
fn as_much_text_as_the_limit() {
    let mut database = Database::default();
    let half = Package { name: "n".repeat(limits::MAX_PACKAGE_TEXT / 2), ..Package::default() };
    database.push(half.clone()).unwrap();
    database.push(Package { name: half.name[1..].into(), ..Package::default() }).unwrap();
    database.push(Package { name: "n".into(), ..Package::default() }).unwrap();
    assert_eq!(database.push(Package { name: "n".into(), ..Package::default() }).unwrap_err().code(), "packages.size");
}

#[test]
fn a_header_is_as_long_as_the_limit() {
    let limit = size(limits::MAX_DATABASE_ROW);
    for (length, whole) in [(limit - 16, true), (limit, true), (limit + 16, false)] {
        let mut long = named("long");
        let more = length - 28 - long.len();
        long[4..8].copy_from_slice(&u32::try_from(7 + more).unwrap().to_be_bytes());
        long.resize(length - 28, 0);
        let database = only(RPM_NDB, &ndb(&[long]));
        assert_eq!((database.packages.len(), database.problem.is_none()), (usize::from(whole), whole), "{length}");
    }
}

fn size(value: u64) -> usize {
    usize::try_from(value).unwrap()
}
