//! Installed packages: the same as each package manager lists of the same database.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use hyper2kvm::fs::{MemoryFs, Timestamp, Tree};
use hyper2kvm::inspect::packages::{self, Database, Package};

use crate::support::{Lab, Run, Variant, tools};

mod history;
mod rpm;

/// A guest that holds the folder `from` of this host at `to`.
fn guest_with(from: &Path, to: &str) -> Tree {
    let fs = MemoryFs::default();
    let mut times = Vec::new();
    let mut pending = vec![(from.to_owned(), to.to_owned())];
    while let Some((folder, at)) = pending.pop() {
        fs.add_dir(&at).unwrap();
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = format!("{at}/{}", entry.file_name().to_str().unwrap());
            if entry.path().is_dir() {
                pending.push((entry.path(), path));
                continue;
            }
            fs.add_file(&path, std::fs::read(entry.path()).unwrap()).unwrap();
            let modified = entry.metadata().unwrap().modified().unwrap();
            times.push((path, modified.duration_since(std::time::UNIX_EPOCH).unwrap()));
        }
    }
    let tree = Tree::new(Arc::new(fs));
    for (path, time) in times {
        let time = Timestamp { seconds: i64::try_from(time.as_secs()).unwrap(), nanoseconds: 0 };
        tree.set_times(path, time, time).unwrap();
    }
    tree
}

/// The only database of a guest, which is whole.
fn only(tree: &Tree) -> Database {
    let mut databases = packages::find(tree).unwrap();
    assert_eq!(databases.len(), 1, "{databases:?}");
    let database = databases.remove(0);
    assert_eq!(database.problem, None);
    database
}

/// The same lines, or a few that differ.
fn assert_same(ours: &BTreeSet<String>, theirs: &BTreeSet<String>) {
    let [more, less]: [Vec<_>; 2] = [(ours, theirs), (theirs, ours)].map(|(a, b)| a.difference(b).take(3).collect());
    assert!(more.is_empty() && less.is_empty(), "only ours: {more:#?}\nonly theirs: {less:#?}");
}

fn full_version(package: &Package) -> String {
    let epoch = package.epoch.map(|epoch| format!("{epoch}:")).unwrap_or_default();
    let release = package.release.as_ref().map(|release| format!("-{release}")).unwrap_or_default();
    format!("{epoch}{}{release}", package.version)
}

fn or_empty(text: Option<&String>) -> &str {
    text.map_or("", String::as_str)
}

/// What dpkg-query lists of packages that are there wholly or in part.
fn dpkg_lines(admin: &Path) -> BTreeSet<String> {
    let format = "${db:Status-Status}\t${Package}\t${Version}\t${Architecture}\t${Installed-Size}\t${Maintainer}\t\
                  ${Homepage}\t${db-fsys:Last-Modified}\t${source:Package}\t${binary:Summary}\n";
    let listed =
        tools::ok("dpkg-query", [format!("--admindir={}", admin.display()), "-W".into(), "-f".into(), format.into()]);
    let there = listed.lines().filter(|line| !line.starts_with("config-files") && !line.starts_with("not-installed"));
    there.map(|line| line.trim_end_matches(' ').to_owned()).collect()
}

fn lines_as_dpkg(database: &Database) -> BTreeSet<String> {
    let line = |package: &Package| {
        [
            package.state.clone().unwrap_or_else(|| "installed".into()),
            package.name.clone(),
            full_version(package),
            or_empty(package.arch.as_ref()).to_owned(),
            package.size.map(|size| (size / 1024).to_string()).unwrap_or_default(),
            or_empty(package.vendor.as_ref()).to_owned(),
            or_empty(package.url.as_ref()).to_owned(),
            package.install_time.map(|time| time.to_string()).unwrap_or_default(),
            package.source.clone().unwrap_or_else(|| package.name.clone()),
            or_empty(package.summary.as_ref()).to_owned(),
        ]
        .join("\t")
    };
    database.packages.iter().map(line).collect()
}

#[test]
fn a_real_guest_has_the_packages_that_dpkg_lists_of_it() {
    let lab = Lab::new();
    let folder = lab.folder("guest");
    let source = Variant::Plain.ova();
    Run::new(["guest".as_ref(), "cp".as_ref(), source.as_os_str()]).arg("/var/lib/dpkg").arg(&folder).success();
    let theirs = dpkg_lines(&folder.join("dpkg"));
    assert!(theirs.len() > 150, "{}", theirs.len());
    assert_same(&lines_as_dpkg(&only(&guest_with(&folder.join("dpkg"), "/var/lib/dpkg"))), &theirs);
    // And as the program tells it, from the disk.
    let told =
        Run::new(["inspect".as_ref(), "--deep".as_ref(), "--json".as_ref(), source.as_os_str()]).success().json();
    let database = &told["guest"]["deep"]["packages"][0];
    assert_eq!(database["format"], "deb");
    let names: BTreeMap<_, _> = database["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| (package["name"].as_str().unwrap().to_owned(), package["install_time"].as_i64().unwrap()))
        .collect();
    assert_eq!(names.len(), theirs.len());
    for line in &theirs {
        let fields: Vec<_> = line.split('\t').collect();
        assert_eq!(names[fields[1]].to_string(), fields[7], "{line}");
    }
}

#[test]
fn the_packages_of_this_host_are_those_that_dpkg_lists() {
    // Hundreds of packages of every kind, packages of several architectures among them.
    let admin = Path::new("/var/lib/dpkg");
    let lab = Lab::new();
    let copy = lab.folder("copy");
    tools::ok("cp", [Path::new("-a"), &admin.join("status"), &admin.join("info"), &copy]);
    assert_same(&lines_as_dpkg(&only(&guest_with(&copy, "/var/lib/dpkg"))), &dpkg_lines(&copy));
}

#[test]
fn updates_that_dpkg_has_not_merged_count() {
    let lab = Lab::new();
    let admin = lab.folder("dpkg");
    for folder in ["info", "updates"] {
        std::fs::create_dir(admin.join(folder)).unwrap();
    }
    let paragraph = |name: &str, status: &str, version: &str, more: &str| {
        format!(
            "Package: {name}\nStatus: {status}\nMaintainer: M <m@example.org>\nArchitecture: amd64\nVersion: {version}\n\
             {more}Description: about {name}\n More of it.\n .\n The end.\n\n"
        )
    };
    let status: String = [
        paragraph("stays", "install ok installed", "1:2-3", "Installed-Size: 7\nSource: other (5)\n"),
        paragraph("upgraded", "install ok installed", "1", ""),
        paragraph("gone", "deinstall ok config-files", "1", ""),
        paragraph("half", "install reinstreq half-installed", "1-1", ""),
        paragraph("lib", "hold ok installed", "1", "Multi-Arch: same\n"),
        paragraph("lib", "install ok installed", "1", "Multi-Arch: same\n").replace("amd64", "i386"),
        paragraph("removed", "install ok installed", "1", ""),
    ]
    .concat();
    std::fs::write(admin.join("status"), status).unwrap();
    std::fs::write(admin.join("updates/0000"), paragraph("upgraded", "install ok unpacked", "2", "")).unwrap();
    std::fs::write(admin.join("updates/0001"), paragraph("upgraded", "install ok installed", "3", "")).unwrap();
    std::fs::write(admin.join("updates/0002"), paragraph("new", "install ok installed", "4~rc1-0+b1", "")).unwrap();
    std::fs::write(admin.join("updates/0003"), paragraph("removed", "purge ok not-installed", "1", "")).unwrap();
    std::fs::write(admin.join("info/format"), "1\n").unwrap();
    std::fs::write(admin.join("info/stays.list"), "/.\n").unwrap();
    std::fs::write(admin.join("info/lib:i386.list"), "/.\n").unwrap();
    let ours = only(&guest_with(&admin, "/var/lib/dpkg"));
    let names: Vec<_> = ours.packages.iter().map(|package| (package.name.as_str(), package.version.as_str())).collect();
    assert_eq!(names, [("half", "1"), ("lib", "1"), ("lib", "1"), ("new", "4~rc1"), ("stays", "2"), ("upgraded", "3")]);
    assert_eq!(ours.packages[4].description.as_deref(), Some("More of it.\n\nThe end."));
    assert_same(&lines_as_dpkg(&ours), &dpkg_lines(&admin));
}

#[test]
fn a_database_of_pacman_is_what_pacman_lists() {
    let lab = Lab::new();
    let (root, db) = (lab.folder("root"), lab.folder("db"));
    for (name, version, more) in [
        ("plain", "1.2-3", ""),
        ("epoch", "2:1.2.3.r4-1.1", "url = https://example.org\npackager = P <p@example.org>\n"),
        ("lib32-x", "1-1", "pkgbase = x\nsize = 123456\n"),
    ] {
        let folder = lab.folder(name);
        let info = format!(
            "pkgname = {name}\npkgver = {version}\npkgdesc = About {name}\narch = any\nbuilddate = 1700000000\n{more}"
        );
        std::fs::write(folder.join(".PKGINFO"), info).unwrap();
        let archive = lab.path(&format!("{name}.pkg.tar"));
        let args = ["-cf".as_ref(), archive.as_path(), "-C".as_ref(), &folder, ".PKGINFO".as_ref()];
        tools::ok("bsdtar", args);
        let args = ["-U", "--noconfirm", "--dbonly", "--nodeps", "--nodeps", "--root"].map(Path::new);
        tools::ok("pacman", args.into_iter().chain([&*root, "--dbpath".as_ref(), &db, &archive]));
    }
    let listed = tools::ok("pacman", ["-Qi", "--dbpath"].map(Path::new).into_iter().chain([&*db]));
    let ours = only(&guest_with(&db.join("local"), "/var/lib/pacman/local"));
    let blocks: Vec<BTreeMap<_, _>> = listed
        .trim()
        .split("\n\n")
        .map(|block| block.lines().filter_map(|line| line.split_once(':')).map(|(k, v)| (k.trim(), v.trim())).collect())
        .collect();
    assert_eq!((blocks.len(), ours.packages.len()), (3, 3));
    for (package, theirs) in ours.packages.iter().zip(&blocks) {
        assert_eq!(package.name, theirs["Name"]);
        assert_eq!(full_version(package), theirs["Version"]);
        assert_eq!(package.arch.as_deref(), Some(theirs["Architecture"]));
        assert_eq!(package.summary.as_deref(), Some(theirs["Description"]));
        assert_eq!(package.url.as_deref().unwrap_or("None"), theirs["URL"]);
        assert_eq!(package.vendor.as_deref().unwrap_or("None"), theirs["Packager"]);
        let mut format = tools::ok("date", [format!("--date=@{}", package.install_time.unwrap()), "+%c".into()]);
        format.truncate(format.trim_end().len());
        assert_eq!(format, theirs["Install Date"]);
    }
    assert_eq!(ours.packages[1].source.as_deref(), Some("x"));
    assert_eq!(ours.packages[1].size, Some(123_456));
}
