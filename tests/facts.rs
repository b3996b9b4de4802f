//! Facts about configuration beside the programs that read it: sudo's rules, netplan's and ifupdown's interfaces, GRUB's environment.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use hyper2kvm::fs::{MemoryFs, Tree};
use hyper2kvm::inspect::{self, Deep, Linux};
use serde_json::Value;

use crate::support::{Lab, tools};

/// A guest of the given files, with its facts.
fn guest(files: &[(&str, &str)]) -> (Tree, Linux) {
    let fs = MemoryFs::default();
    for (path, text) in files {
        fs.add_file(path, text).unwrap();
    }
    let tree = Tree::new(Arc::new(fs));
    let facts = inspect::linux(&tree).unwrap();
    (tree, facts)
}

fn deep(files: &[(&str, &str)]) -> Deep {
    let (tree, facts) = guest(files);
    inspect::deep(&tree, &facts).unwrap()
}

const SUDOERS: &str = "Defaults env_reset\nUser_Alias ADMINS = joe, %wheel, #1005, \\\n   ann : OTHERS = %#20, !eve\nRunas_Alias OP = root, operator\n\
    Host_Alias SERVERS = web*, 10.0.0.0/8\nCmnd_Alias SHUT = /sbin/shutdown -h now, /sbin/reboot \"\"\nCmnd_Alias ALLBUT = ALL, !SHUT\n\
    root ALL=(ALL:ALL) ALL\n%sudo\tALL=(ALL:ALL) NOPASSWD: ALL # all\nADMINS SERVERS = (OP) NOPASSWD: SHUT, PASSWD: /usr/bin/id, !/usr/bin/su\n\
    bob ALL=(www-data) /bin/ls /a\\:b, /bin/cat : web1 = ALL\nOTHERS, \"a b\" ALL = (:staff) ALLBUT\n#1000 ALL, !web2 = (#0, daemon : adm) NOEXEC: /bin/x -y *\n\
    +net ALL = sudoedit /etc/motd\n";

/// A rule: users, hosts, whom as, groups, commands, and whether a password is asked for.
fn rule(lists: [Vec<String>; 5], password: Option<bool>) -> String {
    let lists: Vec<String> = lists.into_iter().map(|list| list.join(",")).collect();
    format!("{} {password:?}", lists.join("|"))
}

/// The names in one of the lists that cvtsudoers prints.
fn names(list: &Value) -> Vec<String> {
    let name = |item: &Value| {
        let fields = item.as_object().unwrap();
        let (key, value) = fields.iter().find(|(key, _)| *key != "negated").unwrap();
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let value = match key.as_str() {
            "userid" => format!("#{value}"),
            "usergroup" => format!("%{value}"),
            "usergid" => format!("%#{value}"),
            "netgroup" => format!("+{value}"),
            _ => value,
        };
        if fields.get("negated").is_some_and(|negated| negated == true) { format!("!{value}") } else { value }
    };
    list.as_array().into_iter().flatten().map(name).collect()
}

#[test]
fn rules_of_sudo_are_those_that_sudo_reads() {
    let lab = Lab::new();
    let file = lab.file("sudoers", SUDOERS);
    let told = tools::ok("cvtsudoers", ["-e", "-f", "json"].map(Path::new).into_iter().chain([&*file]));
    let told: Value = serde_json::from_str(&told).unwrap();
    let mut theirs = Vec::new();
    for spec in told["User_Specs"].as_array().unwrap() {
        for commands in spec["Cmnd_Specs"].as_array().unwrap() {
            let options = commands["Options"].as_array().into_iter().flatten();
            let password = options.filter_map(|option| option["authenticate"].as_bool()).next();
            let groups =
                names(&commands["runasgroups"]).into_iter().map(|name| name.trim_start_matches('%').to_owned());
            let lists = [
                names(&spec["User_List"]),
                names(&spec["Host_List"]),
                names(&commands["runasusers"]),
                groups.collect(),
                names(&commands["Commands"]),
            ];
            theirs.push(rule(lists, password));
        }
    }
    let ours = deep(&[("/etc/sudoers", SUDOERS)]).privileges.rules;
    let ours: Vec<_> = ours
        .into_iter()
        .map(|it| rule([it.users, it.hosts, it.run_as_users, it.run_as_groups, it.commands], it.password))
        .collect();
    assert!(ours.len() >= 9);
    assert_eq!(ours, theirs);
}

const NETPLAN: &str = "network:\n  version: 2\n  renderer: networkd\n  ethernets:\n    ens3:\n      dhcp4: true\n    ens4:\n      addresses: [10.0.0.5/24, \"fd00::5/64\"]\n      \
    routes:\n        - to: default\n          via: 10.0.0.1\n      nameservers:\n        addresses: [10.0.0.2, 10.0.0.3]\n        search: [example.org]\n      mtu: 1400\n    \
    ens5: {}\n    ens6: {}\n    ens7:\n      match: {macaddress: \"00:11:22:33:44:55\"}\n      set-name: lan0\n      dhcp6: true\n  \
    bonds:\n    bond0:\n      interfaces: [ens5, ens6]\n      addresses: [192.168.7.1/24]\n  \
    vlans:\n    vlan7:\n      id: 7\n      link: bond0\n      addresses: [172.16.0.1/16]\n  bridges:\n    br0:\n      interfaces: [vlan7]\n      dhcp4: yes\n";

/// What an interface comes to, in one line.
fn interfaces(facts: &Linux) -> BTreeSet<String> {
    let line = |nic: &inspect::Interface| {
        let (name, list) = (nic.name.clone().unwrap_or_default(), |list: &[String]| {
            let mut list = list.to_vec();
            list.sort();
            list.join(",")
        });
        format!(
            "{name} {:?} {:?}/{:?} {} via {} dns {} in {} of {} on {:?} vlan {:?} mtu {:?} mac {:?}",
            nic.kind,
            nic.ipv4,
            nic.ipv6,
            list(&nic.addresses),
            list(&nic.gateways),
            list(&nic.dns),
            list(&nic.search),
            list(&nic.members),
            nic.parent,
            nic.vlan,
            nic.mtu,
            nic.mac,
        )
    };
    facts.interfaces.iter().map(line).collect()
}

#[test]
fn netplans_files_mean_what_netplan_makes_of_them() {
    let lab = Lab::new();
    let root = lab.folder("root");
    std::fs::create_dir_all(root.join("etc/netplan")).unwrap();
    std::fs::write(root.join("etc/netplan/a.yaml"), NETPLAN).unwrap();
    tools::ok("netplan", ["generate", "--root-dir"].map(Path::new).into_iter().chain([&*root]));
    // What netplan made for networkd is read as networkd's own configuration.
    let made = root.join("run/systemd/network");
    let mut files = Vec::new();
    for entry in std::fs::read_dir(made).unwrap().map(Result::unwrap) {
        let name = format!("/etc/systemd/network/{}", entry.file_name().to_str().unwrap());
        files.push((name, std::fs::read_to_string(entry.path()).unwrap()));
    }
    let files: Vec<_> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let (_, ours) = guest(&[("/etc/netplan/a.yaml", NETPLAN)]);
    let (_, theirs) = guest(&files);
    assert_eq!(ours.interfaces.len(), 8);
    assert_eq!(interfaces(&ours), interfaces(&theirs));
}

const INTERFACES: &str = "# comment\nauto lo eth0\niface lo inet loopback\nallow-hotplug eth1\niface eth0 inet static\n  address 192.168.1.5\n  netmask 255.255.255.0\n  \
    gateway 192.168.1.1\n  dns-nameservers 8.8.8.8 \\\n    9.9.9.9\n  mtu 1400\niface eth0 inet6 static\n  address fd00::5/64\n  gateway fd00::1\n\
    iface eth1 inet dhcp\nauto br0\niface br0 inet static\n  address 10.0.0.1/8\n  bridge_ports eth2 eth3\niface eth9 inet manual\nsource more/*\n";
const MORE: &str =
    "auto eth5\niface eth5 inet6 auto\niface bond0 inet static\n\taddress 172.16.0.9/12\n\tbond-slaves eth6 eth7\n";

#[test]
fn ifupdowns_files_mean_what_ifquery_tells() {
    let lab = Lab::new();
    let folder = lab.folder("network");
    std::fs::create_dir(folder.join("more")).unwrap();
    std::fs::write(folder.join("interfaces"), INTERFACES).unwrap();
    std::fs::write(folder.join("more/one"), MORE).unwrap();
    let file = folder.join("interfaces");
    let state = lab.file("state", "");
    let query = |words: &[&str]| {
        let own = ["-i".as_ref(), file.as_os_str(), "--state-dir".as_ref(), state.parent().unwrap().as_os_str()];
        tools::ok("ifquery", own.into_iter().chain(words.iter().map(AsRef::as_ref)))
    };
    let (_, facts) = guest(&[("/etc/network/interfaces", INTERFACES), ("/etc/network/more/one", MORE)]);
    let started: BTreeSet<String> = ["--list", "--allow=hotplug"]
        .iter()
        .flat_map(|flag| {
            let listed = if *flag == "--list" { query(&["--list"]) } else { query(&["--list", flag]) };
            listed.lines().filter(|name| *name != "lo").map(str::to_owned).collect::<Vec<_>>()
        })
        .collect();
    let enabled = facts.interfaces.iter().filter(|nic| nic.enabled).filter_map(|nic| nic.name.clone());
    assert_eq!(enabled.collect::<BTreeSet<_>>(), started);
    for nic in &facts.interfaces {
        let told = query(&[nic.name.as_deref().unwrap()]);
        let all = |key: &str| -> BTreeSet<String> {
            let values = told.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
            values.flat_map(str::split_ascii_whitespace).map(str::to_owned).collect()
        };
        let bare = |address: &String| address.split('/').next().unwrap().to_owned();
        let ours = nic.addresses.iter().map(bare).collect::<BTreeSet<_>>();
        assert_eq!(ours, all("address").iter().map(bare).collect::<BTreeSet<_>>(), "{told}");
        assert_eq!(nic.gateways.iter().cloned().collect::<BTreeSet<_>>(), all("gateway"), "{told}");
        assert_eq!(nic.dns.iter().cloned().collect::<BTreeSet<_>>(), all("dns-nameservers"), "{told}");
        let members =
            ["bridge_ports", "bridge-ports", "bond-slaves"].iter().flat_map(|key| all(key)).collect::<BTreeSet<_>>();
        assert_eq!(nic.members.iter().cloned().collect::<BTreeSet<_>>(), members, "{told}");
    }
    assert_eq!(facts.interfaces.len(), 6);
}

#[test]
fn grubs_environment_is_what_grub_lists() {
    let lab = Lab::new();
    let file = lab.path("grubenv");
    let edit =
        |words: &[&str]| tools::ok("grub-editenv", [file.to_str().unwrap()].into_iter().chain(words.iter().copied()));
    edit(&["create"]);
    edit(&[
        "set",
        "saved_entry=Debian>6.1",
        "kernelopts=root=UUID=1 ro quiet",
        "boot_success=1",
        "path=a\\b",
        "empty=",
    ]);
    edit(&["unset", "boot_success"]);
    let block = std::fs::read_to_string(&file).unwrap();
    let (_, facts) =
        guest(&[("/boot/grub/grub.cfg", "set default=\"${saved_entry}\"\n"), ("/boot/grub/grubenv", &block)]);
    let ours: BTreeSet<String> =
        facts.bootloaders[0].variables.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let theirs: BTreeSet<String> = edit(&["list"]).lines().map(str::to_owned).collect();
    assert_eq!((ours, facts.bootloaders[0].default.as_deref()), (theirs, Some("Debian>6.1")));
}
