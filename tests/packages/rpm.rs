//! rpm's databases: what rpm and SQLite write, and what rpm and Berkeley DB read and write.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::{guest_with, only};
use crate::support::{Lab, tools};
use hyper2kvm::inspect::packages::Package;

const SPEC: &str = "\
Name: base
Epoch: 3
Version: 1.2~rc1
Release: 4.el9
Summary: The base of all
Summary(de): Der Grund von allem
Vendor: A Vendor, Inc.
URL: https://example.org/base
License: MIT
%description
What it is.

And more of it.
%package -n small
Summary: A small one
BuildArch: noarch
%description -n small
Small.
%package files
Summary: One with many files, whose header needs many pages
Version: 7
Release: 0
%description files
Many.
%install
mkdir -p %{buildroot}/usr/share/many %{buildroot}/etc
for i in $(seq 3000); do echo $i > %{buildroot}/usr/share/many/a-file-with-a-rather-long-name-$i; done
echo > %{buildroot}/etc/base.conf
truncate -s 70000 %{buildroot}/etc/sized
%files
/etc/base.conf
/etc/sized
%files -n small
%files files
/usr/share/many
";

/// What rpm tells of a package, in this order.
const FORMAT: &str = "%{NAME}\\t%|EPOCH?{%{EPOCH}}|\\t%{VERSION}\\t%{RELEASE}\\t%|ARCH?{%{ARCH}}|\\t%|VENDOR?{%{VENDOR}}|\\t%{INSTALLTIME}\\t%{LONGSIZE}\\t%{SUMMARY}\\t%|URL?{%{URL}}|\\t%{DESCRIPTION}\\n==\\n";

/// The packages of [`SPEC`], installed into a database of rpm. Made once a test run; tests change copies.
struct Made {
    folder: PathBuf,
}

impl Made {
    fn one() -> &'static Self {
        static MADE: OnceLock<Made> = OnceLock::new();
        MADE.get_or_init(Self::make)
    }

    fn make() -> Self {
        let place = Lab::shared();
        let [top, folder, spec] = ["top", "rpm", "base.spec"].map(|name| place.join(name));
        std::fs::write(&spec, SPEC).unwrap();
        let define = format!("_topdir {}", top.display());
        tools::ok("rpmbuild", ["-bb", "--quiet", "--define", &define, spec.to_str().unwrap()]);
        let built = tools::ok("find", [top.join("RPMS").to_str().unwrap(), "-name", "*.rpm"]);
        rpm(&folder, &["--initdb"]);
        let install = ["-i", "--justdb", "--nodeps", "--nosignature", "--ignorearch"];
        for package in built.lines() {
            rpm(&folder, &[&install[..], &[package]].concat());
        }
        Self { folder }
    }

    fn database(&self) -> PathBuf {
        self.folder.join("rpmdb.sqlite")
    }

    /// Every package's header, as rpm exports it.
    fn headers(&self) -> Vec<Vec<u8>> {
        let args = ["rpmdb", "--exportdb", "--dbpath"].map(Path::new).into_iter().chain([&*self.folder]);
        let output = tools::output("env", args);
        assert!(output.status.success());
        let (mut rest, mut headers) = (output.stdout.as_slice(), Vec::new());
        while !rest.is_empty() {
            assert_eq!(rest[..8], [0x8e, 0xad, 0xe8, 1, 0, 0, 0, 0]);
            let number = |at: usize| u32::from_be_bytes(rest[at..at + 4].try_into().unwrap()) as usize;
            let end = 16 + 16 * number(8) + number(12);
            headers.push(rest[8..end].to_vec());
            rest = &rest[end..];
        }
        headers
    }
}

fn rpm(folder: &Path, args: &[&str]) -> String {
    tools::ok("rpm", ["--dbpath", folder.to_str().unwrap()].into_iter().chain(args.iter().copied()))
}

/// What rpm lists of the database in `folder`, sorted.
fn listed(folder: &Path, backend: &str) -> Vec<String> {
    let define = format!("_db_backend {backend}");
    let text = rpm(folder, &["--define", &define, "-qa", "--qf", FORMAT]);
    let mut packages: Vec<_> = text.split("\n==\n").filter(|part| !part.is_empty()).map(str::to_owned).collect();
    packages.sort();
    packages
}

fn as_listed(packages: &[Package]) -> Vec<String> {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let number = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
    let mut lines: Vec<_> = packages
        .iter()
        .map(|package| {
            [
                package.name.clone(),
                number(package.epoch),
                package.version.clone(),
                text(&package.release),
                text(&package.arch),
                text(&package.vendor),
                package.install_time.unwrap().to_string(),
                number(package.size),
                text(&package.summary),
                text(&package.url),
                text(&package.description),
            ]
            .join("\t")
        })
        .collect();
    lines.sort();
    lines
}

#[test]
fn a_database_in_sqlite_is_what_rpm_lists() {
    let made = Made::one();
    let theirs = listed(&made.folder, "sqlite");
    assert_eq!(theirs.len(), 3);
    for folder in ["/var/lib/rpm", "/usr/lib/sysimage/rpm"] {
        let database = only(&guest_with(&made.folder, folder));
        assert_eq!((database.format, database.backend), ("rpm", Some("sqlite")));
        assert_eq!(as_listed(&database.packages), theirs);
    }
}

/// Changes a copy of the database by a program that keeps it open while another copy is made, as a snapshot of a running
/// machine does.
fn snapshot(made: &Made, lab: &Lab, script: &str) -> PathBuf {
    let [work, copy] = ["work", "copy"].map(|name| lab.path(name));
    tools::ok("cp", [Path::new("-a"), &made.folder, &work]);
    let script = format!(
        "import os, shutil, sqlite3\ndb = sqlite3.connect('{0}/rpmdb.sqlite', isolation_level=None)\n{script}\n\
         shutil.copytree('{0}', '{1}')\nos._exit(0)\n",
        work.display(),
        copy.display(),
    );
    tools::ok("python3", ["-c", &script]);
    copy
}

const COPIES: &str = "\
for i in range(40): db.execute('insert into Packages(blob) select blob from Packages where hnum=(select max(hnum) from Packages where length(blob) > 90000)')
db.execute('delete from Packages where hnum % 3 = 0')";

#[test]
fn what_waits_in_a_write_ahead_log_counts() {
    let (made, lab) = (Made::one(), Lab::new());
    let script = format!(
        "db.execute('pragma journal_mode=wal')\ndb.execute('pragma wal_autocheckpoint=0')\n{COPIES}\ndb.execute('begin')\ndb.execute('pragma cache_size=1')\ndb.execute('delete from Packages')"
    );
    let copy = snapshot(made, &lab, &script);
    assert!(copy.join("rpmdb.sqlite-wal").metadata().unwrap().len() > 1 << 20);
    let ours = as_listed(&only(&guest_with(&copy, "/var/lib/rpm")).packages);
    assert!(ours.len() > 20);
    assert_eq!(ours, listed(&copy, "sqlite"));
}

#[test]
fn a_log_that_was_torn_counts_up_to_its_last_whole_transaction() {
    let (made, lab) = (Made::one(), Lab::new());
    let script = format!("db.execute('pragma journal_mode=wal')\ndb.execute('pragma wal_autocheckpoint=0')\n{COPIES}");
    let copy = snapshot(made, &lab, &script);
    let wal = copy.join("rpmdb.sqlite-wal");
    let mut bytes = std::fs::read(&wal).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&wal, bytes).unwrap();
    std::fs::remove_file(copy.join("rpmdb.sqlite-shm")).unwrap();
    let ours = as_listed(&only(&guest_with(&copy, "/var/lib/rpm")).packages);
    assert!(ours.len() > 10);
    assert_eq!(ours, listed(&copy, "sqlite"));
}

#[test]
fn a_transaction_that_did_not_end_is_rolled_back() {
    let (made, lab) = (Made::one(), Lab::new());
    let script = format!(
        "db.execute('pragma journal_mode=delete')\n{COPIES}\ndb.execute('pragma cache_size=1')\ndb.execute('begin')\n\
         db.execute('update Packages set blob = zeroblob(length(blob))')\ndb.execute('delete from Packages where hnum > 9')"
    );
    let copy = snapshot(made, &lab, &script);
    assert!(copy.join("rpmdb.sqlite-journal").metadata().unwrap().len() > 1 << 20);
    let ours = as_listed(&only(&guest_with(&copy, "/var/lib/rpm")).packages);
    assert!(ours.len() > 20);
    // rpm only reads, and leaves it to others to roll back.
    let script =
        format!("import sqlite3\nsqlite3.connect('{}/rpmdb.sqlite').execute('select * from Packages')", copy.display());
    tools::ok("python3", ["-c", &script]);
    assert!(!copy.join("rpmdb.sqlite-journal").exists());
    assert_eq!(ours, listed(&copy, "sqlite"));
}

#[test]
fn a_database_of_every_page_size_is_read() {
    let (made, lab) = (Made::one(), Lab::new());
    let theirs = listed(&made.folder, "sqlite");
    for size in [512, 1024, 4096, 65_536] {
        let path = lab.folder(&size.to_string()).join("rpmdb.sqlite");
        let script = "import sqlite3, sys\ndb = sqlite3.connect(sys.argv[1])\ndb.execute('pragma page_size=%s' % sys.argv[3])\n\
                      db.execute('pragma auto_vacuum=full')\ndb.execute('vacuum')\n\
                      db.executescript(\"create table Packages (hnum integer primary key, blob blob not null)\")\n\
                      db.execute('attach ? as old', [sys.argv[2]])\ndb.execute('insert into Packages select * from old.Packages')\ndb.commit()";
        let size = size.to_string();
        tools::ok(
            "python3",
            ["-c".as_ref(), script.as_ref(), path.as_os_str(), made.database().as_os_str(), size.as_ref()],
        );
        assert_eq!(as_listed(&only(&guest_with(path.parent().unwrap(), "/var/lib/rpm")).packages), theirs, "{size}");
    }
}

#[test]
fn a_database_of_berkeley_db_is_what_rpm_lists() {
    let (made, lab) = (Made::one(), Lab::new());
    let theirs = listed(&made.folder, "sqlite");
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    for (order, page) in [("1234", 4096), ("4321", 4096), ("1234", 512), ("4321", 65_536)] {
        let number = |number: u32| if order == "1234" { number.to_le_bytes() } else { number.to_be_bytes() };
        // More packages than fit into a few buckets.
        let headers = made.headers();
        let mut dump =
            format!("VERSION=3\nformat=bytevalue\ntype=hash\ndb_lorder={order}\ndb_pagesize={page}\nHEADER=END\n");
        dump.push_str(&format!(" {}\n {}\n", hex(&number(0)), hex(&number(300))));
        for index in 1..=90_u32 {
            let header = &headers[if index == 1 { 0 } else { index as usize % 3 }];
            dump.push_str(&format!(" {}\n {}\n", hex(&number(index)), hex(header)));
        }
        dump.push_str("DATA=END\n");
        let folder = lab.folder(&format!("{order}-{page}"));
        let (text, packages) = (lab.file("dump", dump), folder.join("Packages"));
        tools::ok("db_load", ["-f".as_ref(), text.as_path(), &packages]);
        let database = only(&guest_with(&folder, "/var/lib/rpm"));
        assert_eq!((database.backend, database.packages.len()), (Some("bdb"), 90));
        let ours = as_listed(&database.packages);
        // rpm takes the numbers of packages in the order of this host.
        if order == "1234" {
            assert_eq!(ours, listed(&folder, "bdb_ro"), "{order} {page}");
        }
        let kinds: std::collections::BTreeSet<_> = ours.into_iter().collect();
        assert!(kinds.into_iter().eq(theirs.iter().cloned()));
    }
}

/// A database of rpm's own kind, by the description of its format: slots in any order, with free ones between.
fn ndb(headers: &[Vec<u8>]) -> Vec<u8> {
    let le = |number: usize| u32::try_from(number).unwrap().to_le_bytes();
    let pages = (2 + headers.len() * 2) * 16 / 4096 + 1;
    let mut file = [b"RpmP".as_slice(), &le(0), &le(7), &le(pages), &le(headers.len() + 1), &[0; 12]].concat();
    let mut blobs = Vec::new();
    for (index, header) in headers.iter().enumerate() {
        let blocks = (header.len() + 28).div_ceil(16);
        let first = pages * 256 + blobs.len() / 16;
        file.extend([b"Slot".as_slice(), &le(index + 1), &le(first), &le(blocks)].concat());
        file.extend([b"Slot".as_slice(), &[0; 12]].concat());
        blobs.extend([b"BlbS".as_slice(), &le(index + 1), &le(7), &le(header.len()), header].concat());
        blobs.resize((first - pages * 256 + blocks) * 16 - 12, 0);
        blobs.extend([le(0).as_slice(), &le(header.len()), b"BlbE"].concat());
    }
    while file.len() < pages * 4096 {
        file.extend([b"Slot".as_slice(), &[0; 12]].concat());
    }
    file.extend(blobs);
    file
}

#[test]
fn a_database_of_ndb_holds_the_same_packages() {
    let (made, lab) = (Made::one(), Lab::new());
    let headers: Vec<_> = made.headers().into_iter().cycle().take(300).collect();
    let folder = lab.folder("ndb");
    std::fs::write(folder.join("Packages.db"), ndb(&headers)).unwrap();
    let database = only(&guest_with(&folder, "/usr/lib/sysimage/rpm"));
    assert_eq!((database.backend, database.packages.len()), (Some("ndb"), 300));
    let kinds: std::collections::BTreeSet<_> = as_listed(&database.packages).into_iter().collect();
    assert!(kinds.into_iter().eq(listed(&made.folder, "sqlite")));
}
