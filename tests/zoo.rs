//! Guests of many layouts (tests/fixtures/zoo.sh): their files as the kernel shows them, their facts as virt-inspector tells them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use roxmltree::{Document, Node};

use crate::support::{Lab, Mounted, Run, Tree, Variant, fixtures, tools};

/// A test of this name on each of these guests.
macro_rules! on_each {
    ($check:ident: $($layout:ident)*) => {
        mod $check {
            $(
                #[test]
                #[ignore = "needs guests of many layouts: make zoo"]
                fn $layout() {
                    super::$check(stringify!($layout));
                }
            )*
        }
    };
}

mod boots;
mod crashed;
mod engines;
mod guest;
mod packed;
mod undone;

on_each!(digests_are_those_of_guestfish: lvm uefi luks md sdboot uki extlinux ubuntu);
on_each!(facts_are_those_of_virt_inspector: xfs btrfs lvm uefi dracut luks md sdboot uki extlinux ubuntu plain);

fn disk(layout: &str) -> PathBuf {
    disks(layout).remove(0)
}

/// The disks of a guest, in order. `plain` and `crashed` are of `make test`.
fn disks(layout: &str) -> Vec<PathBuf> {
    match layout {
        "plain" => return vec![Variant::Plain.raw()],
        "crashed" => return vec![fixtures::crashed_xfs()],
        _ => {}
    }
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| match std::env::var_os("HYPER2KVM_ZOO_DIR") {
        Some(folder) => folder.into(),
        None => tools::ok(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/zoo.sh"), ["--path"]).trim().into(),
    });
    let [first, second] = ["guest.raw", "guest2.raw"].map(|name| folder.join(layout).join(name));
    assert!(first.exists(), "{} is missing: run `make zoo`", first.display());
    std::iter::once(first).chain(second.exists().then_some(second)).collect()
}

#[test]
#[ignore = "needs guests of many layouts: make zoo"]
fn every_file_is_as_the_kernel_shows_it() {
    for (layout, mounts) in [
        ("xfs", &[("", 2, "ro"), ("boot", 1, "ro")][..]),
        ("btrfs", &[("", 2, "ro,subvol=@"), ("home", 2, "ro,subvol=@home")]),
        ("dracut", &[("", 1, "ro")]),
    ] {
        let (lab, disk) = (Lab::new(), disk(layout));
        let archive = lab.path("guest.tar");
        Run::new(["guest", "tar", "--format", "raw", "-o"]).arg(&archive).arg(&disk).success();
        let unpacked = lab.folder("unpacked");
        let args =
            ["--extract", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--preserve-permissions", "--file"];
        tools::ok("tar", args.map(Path::new).into_iter().chain([&*archive, Path::new("--directory"), &unpacked]));

        let root = lab.folder("mounted");
        let mounts: Vec<Mounted> = mounts
            .iter()
            .map(|(at, partition, options)| Mounted::part(&disk, *partition, options, &root.join(at)))
            .collect();
        let (ours, kernels) = (Tree::read(&unpacked), Tree::read(&root));
        assert!(kernels.len() > 10_000);
        let mut changes = kernels.changes(&ours);
        if layout == "btrfs" {
            // btrfs counts no links of folders.
            changes.retain(|_, change| match (change.before, change.after) {
                (Some(before), Some(after)) => {
                    let mut same = after.clone();
                    same.links = before.links;
                    before.kind != "folder" || *before != same
                }
                _ => true,
            });
        }
        assert!(changes.is_empty(), "{layout}: {} differ, such as {:?}", changes.len(), changes.iter().next());
        mounts.into_iter().rev().for_each(Mounted::close);
    }
}

/// This kernel may have no device mapper, so libguestfs's reads the logical volumes; and no FAT, so it reads the EFI partition.
fn digests_are_those_of_guestfish(layout: &str) {
    let lab = Lab::new();
    let sums = lab.path("sums");
    let out = format!("checksums-out sha256 / {}", sums.display());
    appliance("guestfish", &["--ro", "-i"], layout, &[&out]);
    let theirs = std::fs::read_to_string(&sums).expect("checksums");
    // sha256sum marks a line whose name it escaped with a backslash.
    let unescaped = |line: &str| match line.strip_prefix('\\') {
        Some(line) => line.replace("\\\\", "\\"),
        None => line.to_owned(),
    };
    let theirs: BTreeMap<String, String> = theirs
        .lines()
        .map(unescaped)
        .filter_map(|line| line.split_once("  ").map(|(sum, path)| (sum.to_owned(), path.to_owned())))
        .map(|(sum, path)| (path.trim_start_matches('.').to_owned(), sum))
        .collect();
    // One disk of a mirror has all of it.
    let ours = ours(&["guest", "sha256", "--json"], layout).arg(disk(layout)).arg("/").success().json();
    let ours = ours["entries"].as_array().expect("entries").iter();
    let text = |value: &serde_json::Value| value.as_str().expect("text").to_owned();
    let ours: BTreeMap<String, String> = ours.map(|entry| (text(&entry["path"]), text(&entry["sha256"]))).collect();
    assert!(theirs.len() > 5000, "{layout}: {}", theirs.len());
    let differs = |path: &&String| ours.get(*path) != theirs.get(*path);
    let odd: Vec<_> = theirs.keys().chain(ours.keys()).filter(differs).take(5).collect();
    assert!(odd.is_empty(), "{layout}: {odd:?}");
}

fn facts_are_those_of_virt_inspector(name: &str) {
    let theirs = appliance("virt-inspector", &["--no-icon"], name, &[]);
    let ours = disks(name).into_iter().fold(ours(&["inspect", "--xml"], name), Run::arg).success().stdout;
    let (ours, theirs) = (fields(&ours), fields(&theirs));
    assert!(theirs.len() > 200, "{name}: {theirs:#?}");
    let mut differences: BTreeMap<&str, _> = BTreeMap::new();
    for key in ours.keys().chain(theirs.keys()) {
        if ours.get(key) != theirs.get(key) {
            differences.insert(key, (ours.get(key).map(String::as_str), theirs.get(key).map(String::as_str)));
        }
    }
    // What virt-inspector takes for the product's name is the content of /etc/debian_version; os-release has the name.
    let named = differences.remove("product_name").expect("a difference that is known");
    let release = match name {
        "md" => "Debian GNU/Linux 11 (bullseye)",
        "sdboot" | "uki" => "Debian GNU/Linux 13 (trixie)",
        "ubuntu" => "Ubuntu 24.04 LTS",
        _ => "Debian GNU/Linux 12 (bookworm)",
    };
    assert_eq!(named.0, Some(release));
    assert!(named.1.is_some_and(|version| release.contains(version.split('.').next().unwrap_or(version))), "{named:?}");
    assert!(differences.is_empty(), "{name}: {differences:#?}");
}

/// Every leaf of a document about one system, by where it is: `product_name`, `mountpoints / /boot dev`, `applications / apt version`.
fn fields(xml: &str) -> BTreeMap<String, String> {
    // The name that the appliance happens to give the one disk of a machine when it opens btrfs.
    let xml = xml.replace("btrfsvol:/dev/sdb", "btrfsvol:/dev/sda");
    let document = Document::parse(&xml).expect("XML");
    let systems: Vec<Node<'_, '_>> = document.root_element().children().filter(Node::is_element).collect();
    assert_eq!(systems.len(), 1, "{xml}");
    let text = |node: Node<'_, '_>| node.text().unwrap_or_default().trim().to_owned();
    let mut fields = BTreeMap::new();
    for field in systems[0].children().filter(Node::is_element) {
        let group = field.tag_name().name();
        let parts: Vec<Node<'_, '_>> = field.children().filter(Node::is_element).collect();
        if parts.is_empty() {
            fields.insert(group.to_owned(), text(field));
        }
        for part in parts {
            let own = part.attribute("dev").map(str::to_owned);
            if group == "mountpoints" {
                fields.insert(format!("{group} / {}", text(part)), own.unwrap_or_default());
                continue;
            }
            let leaves: Vec<Node<'_, '_>> = part.children().filter(Node::is_element).collect();
            let named = |name: &str| leaves.iter().find(|leaf| leaf.has_tag_name(name)).map(|leaf| text(*leaf));
            let name = own.unwrap_or_else(|| format!("{:?} {:?}", named("name"), named("arch")));
            fields.insert(format!("{group} / {name}"), String::new());
            // virt-inspector cuts a version at its first hyphen, where Debian's policy (5.6.12) says the last one.
            let version = [named("version"), named("release")].into_iter().flatten().collect::<Vec<_>>().join("-");
            fields.insert(format!("{group} / {name} version and release"), version);
            for leaf in leaves.iter().filter(|leaf| !leaf.has_tag_name("version") && !leaf.has_tag_name("release")) {
                // It also leaves the full stops that stand for empty lines (5.6.13).
                let text = text(*leaf).replace("\n.\n", "\n\n");
                fields.insert(format!("{group} / {name} {}", leaf.tag_name().name()), text);
            }
        }
    }
    fields
}

/// One of our commands on a guest, with its key if it needs one; the disks are still to be named.
fn ours(command: &[&str], layout: &str) -> Run {
    let run = Run::new(command).args(["--format", "raw"]);
    match key(layout) {
        Some(key) => run.arg("--key").arg(format!("all:file:{}", key.display())),
        None => run,
    }
}

/// The passphrase that lies beside a guest.
fn key(layout: &str) -> Option<PathBuf> {
    Some(disk(layout).with_file_name("passphrase")).filter(|path| path.exists())
}

/// Runs a program of libguestfs on a guest, again if need be: emulation now and then hangs at boot.
fn appliance(program: &str, options: &[&str], layout: &str, commands: &[&str]) -> String {
    let environment = [
        "LIBGUESTFS_BACKEND=direct",
        "LIBGUESTFS_BACKEND_SETTINGS=force_tcg",
        "timeout",
        "600",
        program,
        "--format=raw",
    ];
    let mut words: Vec<OsString> = environment.iter().chain(options).map(OsString::from).collect();
    for disk in disks(layout) {
        words.extend(["-a".into(), disk.into_os_string()]);
    }
    words.extend(key(layout).map(|key| format!("--key=/dev/sda3:file:{}", key.display()).into()));
    words.extend(commands.iter().flat_map(|command| command.split(' ')).map(OsString::from));
    let mut last = None;
    for _ in 0..3 {
        let output = tools::output("env", &words);
        if output.status.success() {
            return String::from_utf8_lossy(&output.stdout).into_owned();
        }
        last = Some(output);
    }
    panic!("{program}: {last:?}");
}
