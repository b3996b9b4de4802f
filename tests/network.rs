//! What the network's fixes write, beside what netplan makes of the same wishes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use hyper2kvm::fix::{self, Change, Options};
use hyper2kvm::fs::{Filesystem, MemoryFs, Timestamp};
use hyper2kvm::inspect::{Machine, MachineNic, Root, Volume, find_roots, linux};

use crate::support::{Lab, tools};

const NETPLAN: &str = "# of the installer
network:
  version: 2
  renderer: networkd
  ethernets:
    lan:   # the first
      match:
        macaddress: \"00:50:56:AB:00:01\"
        driver: [vmxnet3, e1000]
      set-name: lan0
      addresses: [10.0.0.5/24]
      routes: [{to: default, via: 10.0.0.1}]
    any: {match: {driver: 'vmxnet*'}, dhcp4: true}
    two: {match: {driver: vmxnet3}, macaddress: '00:50:56:ab:00:01', dhcp6: true}
  bonds:
    bond0: {interfaces: [two], parameters: {mode: active-backup}}
  vlans:
    v5: {id: 5, link: bond0, addresses: [10.5.0.5/24]}
";

/// A guest with these files, after its fixes; and the paths that were changed.
fn fixed(files: &[(&str, &str)], macs: &[&str], map: &[&str]) -> (Root, Vec<String>) {
    let fs = MemoryFs::new("ext4", Some("R"), None);
    for (path, text) in [("/etc/fstab", ""), ("/bin/sh", ""), ("/usr/lib/udev/rules.d/x", "")].iter().chain(files) {
        fs.add_file(path, text).expect("a file");
    }
    let fs: Arc<dyn Filesystem> = Arc::new(fs);
    let volume = Volume {
        partition: Some(1),
        fs_kind: Some("ext4".to_owned()),
        fs_uuid: Some("R".to_owned()),
        fs: Some(fs),
        ..Volume::default()
    };
    let card = |mac: &&str| MachineNic { mac: Some((*mac).to_owned()), model: None };
    let machine = Machine { volumes: vec![volume], nics: macs.iter().map(card).collect(), ..Machine::default() };
    let root = find_roots(&machine).expect("a root").remove(0);
    let facts = linux(&root.tree).expect("facts");
    let mut options = Options::default();
    map.iter().for_each(|mac| options.macs.add(mac).expect("addresses"));
    let plan = fix::plan_with(&facts, &machine, &root, &options).expect("a plan");
    fix::apply(&plan, &root.tree, Timestamp::default()).expect("the plan is done");
    let is_file = |change: &Change| matches!(change, Change::Edit { .. } | Change::Create { .. });
    let changed = plan.actions.into_iter().filter(|action| is_file(&action.change)).map(|action| action.path);
    (root, changed.collect())
}

/// A folder with this as netplan's only file.
fn netplan(lab: &Lab, name: &str, text: &str) -> std::path::PathBuf {
    let root = lab.folder(name);
    let path = root.join("etc/netplan/a.yaml");
    fs::create_dir_all(root.join("etc/netplan")).expect("a folder");
    fs::write(&path, text).expect("a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("its mode");
    root
}

fn get(root: &Path) -> String {
    tools::ok("netplan", ["get".as_ref(), "--root-dir".as_ref(), root.as_os_str()])
}

#[test]
fn netplan_reads_what_was_meant_and_nothing_else_changed() {
    let lab = Lab::new();
    let map = "00:50:56:ab:00:01=52:54:00:cd:00:01";
    let (root, changed) = fixed(&[("/etc/netplan/a.yaml", NETPLAN)], &["00:50:56:ab:00:01"], &[map]);
    assert!(changed.contains(&"/etc/netplan/a.yaml".to_owned()), "{changed:?}");
    let edited = root.tree.read("/etc/netplan/a.yaml", 1 << 20).expect("a file").expect("a file");
    let edited = String::from_utf8(edited).expect("text");
    assert!(edited.contains("# of the installer") && edited.contains("# the first"), "{edited}");

    // What is meant, by netplan's own writing of the original.
    let drivers = ["[vmxnet3, e1000]", "'vmxnet*'", "vmxnet3"];
    let text = drivers.iter().fold(NETPLAN.to_owned(), |text, old| text.replace(old, "virtio_net"));
    let before = get(&netplan(&lab, "before", &text));
    let meant = before.replace("macaddress: \"00:50:56:AB:00:01\"", "macaddress: \"52:54:00:CD:00:01\"");
    let after = netplan(&lab, "after", &edited);
    assert_eq!(get(&after), meant);

    tools::ok("netplan", ["generate".as_ref(), "--root-dir".as_ref(), after.as_os_str()]);
    let link = fs::read_to_string(after.join("run/systemd/network/10-netplan-lan.link")).expect("netplan's link");
    assert!(link.contains("Driver=virtio_net\nPermanentMACAddress=52:54:00:CD:00:01\n"), "{link}");
}

#[test]
fn a_name_is_given_as_netplan_gives_it() {
    let lab = Lab::new();
    let wish = "network:\n  version: 2\n  ethernets:\n    a:\n      match: {macaddress: '52:54:00:cd:00:01', driver: virtio_net}\n      set-name: ens192\n";
    let theirs = netplan(&lab, "theirs", wish);
    tools::ok("netplan", ["generate".as_ref(), "--root-dir".as_ref(), theirs.as_os_str()]);
    let read = |path: &str| fs::read_to_string(theirs.join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));

    let interfaces =
        ("/etc/network/interfaces", "iface ens192 inet dhcp\n hwaddress 52:54:00:cd:00:01\niface ens224 inet dhcp\n");
    let macs = ["52:54:00:cd:00:01", "52:54:00:cd:00:02"];
    let (root, _) = fixed(&[interfaces], &macs, &[]);
    let rules = root.tree.read("/etc/udev/rules.d/70-hyper2kvm-net.rules", 1 << 20).expect("rules").expect("rules");
    let rules = String::from_utf8(rules).expect("text");
    let line = read("run/udev/rules.d/99-netplan-a.rules");
    assert!(rules.lines().any(|rule| Some(rule) == line.lines().find(|line| !line.is_empty())), "{rules}\n{line}");

    let links = ("/usr/lib/udev/rules.d/80-net-setup-link.rules", "");
    let (root, _) = fixed(&[interfaces, links], &macs, &[]);
    let link =
        root.tree.read("/etc/systemd/network/10-hyper2kvm-ens192.link", 1 << 20).expect("a link").expect("a link");
    let sorted = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| line.contains('=') && !line.starts_with("WakeOnLan"));
        let mut lines: Vec<String> = lines.map(|line| line.replace("PermanentMACAddress", "MACAddress")).collect();
        lines.sort();
        lines
    };
    let theirs = read("run/systemd/network/10-netplan-a.link");
    assert_eq!(sorted(&String::from_utf8(link).expect("text")), sorted(&theirs));
}
