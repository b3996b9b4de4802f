//! Network configuration of every manager, and what it comes to.

use std::sync::Arc;

use super::*;
use crate::fs::MemoryFs;

fn tree(files: &[(&str, &str)]) -> Tree {
    let fs = MemoryFs::default();
    for (path, text) in files {
        fs.add_file(path, text).unwrap();
    }
    Tree::new(Arc::new(fs))
}

fn interfaces(files: &[(&str, &str)]) -> Vec<Interface> {
    let tree = tree(files);
    let mut reader = Reader { tree: &tree, notes: Vec::new() };
    let found = find(&mut reader).unwrap();
    assert!(reader.notes.is_empty(), "{:?}", reader.notes);
    found
}

fn leases_of(files: &[(&str, &str)]) -> Vec<Lease> {
    let tree = tree(files);
    leases(&mut Reader { tree: &tree, notes: Vec::new() }).unwrap()
}

/// What an interface comes to: name, kind, methods and addresses in one line.
fn told(nic: &Interface) -> String {
    let name = nic.name.clone().or_else(|| nic.matches.clone().map(|it| format!("~{it}"))).unwrap_or_default();
    let mut text = format!("{name} {:?} {:?}/{:?}", nic.kind, nic.ipv4, nic.ipv6).to_lowercase();
    let mut list = |key: &str, values: &[String]| {
        if !values.is_empty() {
            text.push_str(&format!(" {key}={}", values.join(",")));
        }
    };
    list("at", &nic.addresses);
    list("via", &nic.gateways);
    list("dns", &nic.dns);
    list("in", &nic.search);
    list("of", &nic.members);
    list("on", nic.parent.as_slice());
    list("mac", nic.mac.as_slice());
    list("set", nic.set_mac.as_slice());
    let number = |key: &str, value: Option<u32>| value.map(|value| format!(" {key}={value}")).unwrap_or_default();
    text.push_str(&(number("vlan", nic.vlan) + &number("mtu", nic.mtu)));
    text + if nic.enabled { "" } else { " off" }
}

fn all(files: &[(&str, &str)]) -> Vec<String> {
    interfaces(files).iter().map(told).collect()
}

fn short(nics: &[NicConfig]) -> Vec<(&str, Method, Option<&str>)> {
    nics.iter().map(|nic| (nic.name.as_str(), nic.method, nic.mac.as_deref())).collect()
}

#[test]
fn reads_ifupdown_with_all_that_it_sources() {
    let found = interfaces(&[
        (
            "/etc/network/interfaces",
            "# iface eth9 inet dhcp\nauto lo\niface lo inet loopback\nsource interfaces.d/*.cfg\nsource-directory more\n\
             allow-hotplug ens192\niface ens192 inet \\\n  static\n  address 10.0.0.1/24\n  hwaddress ether 00:50:56:AA:BB:CC\n\
             iface ens192 inet6 auto\niface ens192:1 inet static\n address 10.0.0.2\n netmask 255.255.255.0\niface ens224.5 inet dhcp\n\
             iface br0 inet dhcp\n bridge_ports eth1 none\nsource interfaces\nsource interfaces.d/loop\n",
        ),
        ("/etc/network/interfaces.d/a.cfg", "iface eno1 inet dhcp\nsource /etc/network/interfaces\n"),
        ("/etc/network/interfaces.d/a.bak", "iface eno2 inet dhcp\n"),
        ("/etc/network/more/x", "iface eno3 inet dhcp"),
        ("/etc/network/more/x.dpkg-old", "iface eno4 inet dhcp"),
    ]);
    assert_eq!(
        short(&cards(&found)),
        [
            ("ens192", Method::Static, Some("00:50:56:aa:bb:cc")),
            ("ens224", Method::Unset, None),
            ("eth1", Method::Unset, None),
            ("eno1", Method::Dhcp, None),
            ("eno3", Method::Dhcp, None),
        ]
    );
    let lines: Vec<String> = found.iter().map(told).collect();
    assert_eq!(
        lines,
        [
            "ens192 ethernet static/auto at=10.0.0.1/24,10.0.0.2/24 mac=00:50:56:aa:bb:cc",
            "ens224.5 vlan dhcp/unset on=ens224 vlan=5 off",
            "br0 bridge dhcp/unset of=eth1 off",
            "eno1 ethernet dhcp/unset off",
            "eno3 ethernet dhcp/unset off",
        ]
    );
}

#[test]
fn reads_bonds_and_more_of_ifupdown() {
    let text = "auto bond0 vlan7\niface bond0 inet static\n\taddress 192.168.1.5\n\tnetmask 24\n\tgateway 192.168.1.1\n\
                \tdns-nameservers 1.1.1.1 8.8.8.8\n\tdns-search a.example b.example\n\tbond-slaves eth0 eth1\n\tbond-mode 1\n\tmtu 9000\n\
                iface vlan7 inet6 static\n address 2001:db8::5/64\n gateway 2001:db8::1\n vlan-raw-device bond0\n";
    assert_eq!(
        all(&[("/etc/network/interfaces", text)]),
        [
            "bond0 bond static/unset at=192.168.1.5/24 via=192.168.1.1 dns=1.1.1.1,8.8.8.8 in=a.example,b.example of=eth0,eth1 mtu=9000",
            "vlan7 vlan unset/static at=2001:db8::5/64 via=2001:db8::1 on=bond0 vlan=7",
        ]
    );
}

#[test]
fn reads_networkmanagers_connections() {
    let dir = "/etc/NetworkManager/system-connections";
    let file = |name: &str| format!("{dir}/{name}.nmconnection");
    let (a, b, c, d, e) = (file("a"), file("b"), file("c"), file("d"), file("e"));
    let found = all(&[
        (
            &a,
            "[connection]\nid=x\ntype=ethernet\ninterface-name=ens33\n[ethernet]\nmac-address=00:50:56:00:00:01\nmtu=1400\n\
             [ipv4]\nmethod=manual\naddress1=10.0.0.5/24,10.0.0.1\naddress2=10.0.0.6/24\ndns=1.1.1.1;8.8.8.8;\ndns-search=a.example;\n\
             [ipv6]\nmethod=disabled\n",
        ),
        (
            &b,
            "[connection]\nid=bond0\nuuid=U-1\ntype=bond\ninterface-name=bond0\n[ipv4]\nmethod=auto\n[ipv6]\nmethod=auto\n",
        ),
        (&c, "[connection]\ntype=ethernet\ninterface-name=eth1\nmaster=U-1\nslave-type=bond\nautoconnect=false\n"),
        (
            &d,
            "[connection]\ntype=vlan\ninterface-name=v\n[vlan]\nid=12\nparent=bond0\n[ipv6]\nmethod=manual\naddresses=2001:db8::2/64\ngateway=2001:db8::1\n",
        ),
        (&e, "[connection]\ntype=ethernet\n[802-3-ethernet]\ncloned-mac-address=00:50:56:00:00:09\n"),
    ]);
    assert_eq!(
        found,
        [
            "ens33 ethernet static/disabled at=10.0.0.5/24,10.0.0.6/24 via=10.0.0.1 dns=1.1.1.1,8.8.8.8 in=a.example mac=00:50:56:00:00:01 mtu=1400",
            "bond0 bond dhcp/dhcp of=eth1",
            "eth1 ethernet unset/unset off",
            "v vlan unset/static at=2001:db8::2/64 via=2001:db8::1 on=bond0 vlan=12",
            " ethernet unset/unset set=00:50:56:00:00:09",
        ]
    );
    for other in ["[connection]\ntype=loopback\n", "[connection]\ntype=vpn\n", "[connection]\n", ""] {
        assert!(all(&[(&a, other)]).is_empty(), "{other}");
    }
}

#[test]
fn reads_netplan_of_several_files() {
    let first = "network:\n  version: 2\n  renderer: networkd\n  ethernets:\n    # c\n    ens160:\n      dhcp4: true\n      dhcp6: no\n    nic1:\n      match:\n        macaddress: \"00:50:56:00:00:02\"\n      set-name: ens192\n      addresses: [10.0.0.2/24, \"2001:db8::2/64\"]\n      nameservers: {addresses: [1.1.1.1], search: [a.example]}\n      routes:\n      - to: default\n        via: 10.0.0.1\n      - to: 10.9.0.0/16\n        via: 10.0.0.9\n    any:\n      match: {name: \"en*\"}\n      dhcp4: yes\n  bridges:\n    br0:\n      interfaces: [ens160]\n      dhcp4: on\n  vlans:\n    v7: {id: 7, link: br0, addresses: [{10.7.0.1/24: {label: x}}], gateway4: 10.7.0.254}\n";
    let second = "network:\n  ethernets:\n    ens160: {mtu: 9000, dhcp6: true}\n";
    assert_eq!(
        all(&[("/etc/netplan/50-a.yaml", first), ("/etc/netplan/60-b.yaml", second), ("/etc/netplan/70-c.yaml", "")]),
        [
            "~en* ethernet dhcp/unset",
            "ens160 ethernet dhcp/dhcp mtu=9000",
            "ens192 ethernet static/static at=10.0.0.2/24,2001:db8::2/64 via=10.0.0.1 dns=1.1.1.1 in=a.example mac=00:50:56:00:00:02",
            "br0 bridge dhcp/unset of=ens160",
            "v7 vlan static/unset at=10.7.0.1/24 via=10.7.0.254 on=br0 vlan=7",
        ]
    );
}

#[test]
fn odd_yaml_is_noted_and_left_out() {
    let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\ng: &g [*f,*f,*f,*f,*f,*f,*f,*f,*f]\nnetwork: {ethernets: {eth0: {addresses: *g}}}\n";
    let deep = format!("network: {}{}", "[".repeat(100_000), "]".repeat(100_000));
    for text in
        [bomb, &deep, "network: [", "network: 1", "- a\n", "\t", "a: b: c", "network:\n  ethernets: {eth0: {}", "\0"]
    {
        let tree = tree(&[("/etc/netplan/a.yaml", text)]);
        let mut reader = Reader { tree: &tree, notes: Vec::new() };
        let found = find(&mut reader).unwrap();
        assert!(
            found.is_empty() && reader.notes.len() == usize::from(!text.trim().is_empty()),
            "{}",
            text.escape_debug()
        );
    }
    for text in
        ["network: {}", "network: {ethernets: 1}", "network: {ethernets: {renderer: x}}", "network:\n  bonds:\n"]
    {
        assert!(all(&[("/etc/netplan/a.yaml", text)]).is_empty(), "{text}");
    }
}

#[test]
fn reads_networkds_networks_and_devices() {
    let dir = "/etc/systemd/network";
    let files = [
        ("10-a.network", "[Match]\nName=ens192 ens224\n[Network]\nDHCP=ipv4\nBond=bond0\n"),
        (
            "20-b.network",
            "[Match]\nName=bond0\n[Link]\nMTUBytes=9000\n[Network]\nAddress=10.0.0.5/24\nGateway=10.0.0.1\nDNS=1.1.1.1\nDNS=8.8.8.8\nDomains=a.example\nVLAN=v5 v6\n[Address]\nAddress=2001:db8::5/64\n[Route]\nGateway=2001:db8::1\n",
        ),
        ("20-b.network.d/x.conf", "[Network]\nDNS=9.9.9.9\n"),
        ("30-c.network", "[Match]\nName=en*\nMACAddress=00:50:56:00:00:04\n[Network]\nDHCP=yes\n"),
        ("bond0.netdev", "[NetDev]\nName=bond0\nKind=bond\nMACAddress=00:50:56:00:00:05\n"),
        ("v5.netdev", "[NetDev]\nName=v5\nKind=vlan\n[VLAN]\nId=5\n"),
    ];
    let paths: Vec<(String, &str)> = files.iter().map(|(name, text)| (format!("{dir}/{name}"), *text)).collect();
    let files: Vec<(&str, &str)> = paths.iter().map(|(path, text)| (path.as_str(), *text)).collect();
    assert_eq!(
        all(&files),
        [
            "ens192 ethernet dhcp/unset",
            "ens224 ethernet dhcp/unset",
            "bond0 bond static/static at=10.0.0.5/24,2001:db8::5/64 via=10.0.0.1,2001:db8::1 dns=1.1.1.1,8.8.8.8,9.9.9.9 in=a.example of=ens192,ens224 set=00:50:56:00:00:05 mtu=9000",
            "~en* ethernet dhcp/dhcp mac=00:50:56:00:00:04",
            "v5 vlan unset/unset on=bond0 vlan=5",
        ]
    );
}

#[test]
fn reads_the_red_hat_familys_ifcfg() {
    let dir = "/etc/sysconfig/network-scripts";
    let files = [
        ("ifcfg-lo", "DEVICE=lo\n"),
        (
            "ifcfg-eth0",
            "DEVICE=\"eth0\"\nHWADDR=00:50:56:00:00:03\nBOOTPROTO=none\nIPADDR=10.0.0.3\nNETMASK=255.255.255.0\nIPADDR1=10.0.0.4\nPREFIX1=16\nDNS1=1.1.1.1\nDOMAIN=\"a.example b.example\"\nONBOOT=yes\n",
        ),
        ("ifcfg-eth0:1", "DEVICE=eth0:1\nIPADDR=10.0.0.9\nPREFIX=24\n"),
        ("ifcfg-eth1", "BOOTPROTO='dhcp'\nMASTER=bond0\nSLAVE=yes\nONBOOT=no\n"),
        (
            "ifcfg-bond0",
            "DEVICE=bond0\nTYPE=Bond\nBONDING_MASTER=yes\nIPV6INIT=yes\nIPV6ADDR=2001:db8::3/64\nIPV6_DEFAULTGW=2001:db8::1%bond0\n",
        ),
        ("ifcfg-bond0.20", "DEVICE=bond0.20\nVLAN=yes\nBOOTPROTO=dhcp\nBRIDGE=br0\n"),
        ("ifcfg-br0", "DEVICE=br0\nTYPE=Bridge\n"),
        ("ifcfg-eth9.bak", "DEVICE=eth9\n"),
        ("route-eth0", "default via 10.0.0.254 dev eth0\n10.1.0.0/16 via 10.0.0.253\n"),
        ("../network", "NETWORKING=yes\nGATEWAY=10.0.0.1\n"),
    ];
    let paths: Vec<(String, &str)> =
        files.iter().map(|(name, text)| (format!("{dir}/{name}").replace("/network-scripts/..", ""), *text)).collect();
    let files: Vec<(&str, &str)> = paths.iter().map(|(path, text)| (path.as_str(), *text)).collect();
    assert_eq!(
        all(&files),
        [
            "bond0 bond unset/static at=2001:db8::3/64 via=2001:db8::1 of=eth1",
            "bond0.20 vlan dhcp/unset on=bond0 vlan=20",
            "br0 bridge unset/unset of=bond0.20",
            "eth0 ethernet static/unset at=10.0.0.3/24,10.0.0.4/16,10.0.0.9/24 via=10.0.0.254,10.0.0.1 dns=1.1.1.1 in=a.example,b.example mac=00:50:56:00:00:03",
            "eth1 ethernet dhcp/unset off",
        ]
    );
}

#[test]
fn reads_suses_ifcfg_and_wickeds_xml() {
    let dir = "/etc/sysconfig/network";
    let files = [
        (
            "ifcfg-eth0",
            "BOOTPROTO='static'\nSTARTMODE='auto'\nIPADDR='10.0.0.5/24'\nIPADDR_x='10.0.0.6'\nPREFIXLEN_x='16'\n",
        ),
        ("ifcfg-eth1", "BOOTPROTO='dhcp'\nSTARTMODE='off'\nLLADDR='00:50:56:00:00:07'\n"),
        ("ifcfg-vlan3", "ETHERDEVICE='eth0'\nVLAN_ID='3'\nBOOTPROTO='dhcp4'\n"),
        (
            "ifcfg-bond0",
            "BONDING_MASTER='yes'\nBONDING_SLAVE0='eth2'\nBONDING_SLAVE_1='eth3'\nBONDING_MODULE_OPTS='mode=1'\n",
        ),
        ("ifcfg-br0", "BRIDGE='yes'\nBRIDGE_PORTS='eth4 eth5'\n"),
        ("ifcfg.template", "x"),
        ("routes", "default 10.0.0.1 - -\n"),
        ("ifroute-eth1", "default 10.2.0.1 - eth1\n"),
    ];
    let xml = "<?xml version=\"1.0\"?>\n<interface><name>lo</name></interface><interface origin=\"x\"><name>eth6</name><control><mode>boot</mode></control>\n\
        <ipv4:static><address><local>10.6.0.1/24</local></address><route><nexthop><gateway>10.6.0.254</gateway></nexthop></route></ipv4:static>\n\
        <ipv6:dhcp><enabled>true</enabled></ipv6:dhcp></interface>\n\
        <interface><name>v</name><vlan><device>eth6</device><tag>9</tag></vlan></interface>";
    let mut paths: Vec<(String, &str)> = files.iter().map(|(name, text)| (format!("{dir}/{name}"), *text)).collect();
    paths.push(("/etc/wicked/ifconfig/a.xml".to_owned(), xml));
    let files: Vec<(&str, &str)> = paths.iter().map(|(path, text)| (path.as_str(), *text)).collect();
    assert_eq!(
        all(&files),
        [
            "bond0 bond unset/unset of=eth2,eth3",
            "br0 bridge unset/unset of=eth4,eth5",
            "eth0 ethernet static/unset at=10.0.0.5/24,10.0.0.6/16 via=10.0.0.1",
            "eth1 ethernet dhcp/dhcp via=10.2.0.1 set=00:50:56:00:00:07 off",
            "vlan3 vlan dhcp/unset on=eth0 vlan=3",
            "eth6 ethernet static/dhcp at=10.6.0.1/24 via=10.6.0.254",
            "v vlan unset/unset on=eth6 vlan=9",
        ]
    );
    let tree = tree(&[("/etc/wicked/ifconfig/a.xml", "<interface>")]);
    let mut reader = Reader { tree: &tree, notes: Vec::new() };
    assert!(find(&mut reader).unwrap().is_empty() && reader.notes.len() == 1);
}

#[test]
fn reads_what_servers_gave() {
    let dhclient = "lease {\n  interface \"eth0\";\n  fixed-address 10.0.0.4;\n}\nlease {\n  interface \"eth0\";\n  fixed-address 10.0.0.5;\n  option subnet-mask 255.255.255.0;\n\
        option routers 10.0.0.1;\n  option domain-name-servers 10.0.0.2,10.0.0.3;\n  option domain-name \"a.example\";\n  expire 2 2026/01/06 10:00:00;\n}\n\
        lease6 {\n  interface \"eth0\";\n}\nlease {\n option subnet-mask 255.0.0.0;\n fixed-address 10.9.9.9;\n interface \"eth1\";\n}\nlease {\n interface \"eth2\";\n";
    let internal = "# This is private data. Do not parse.\nADDRESS=192.168.122.7\nNETMASK=255.255.255.0\nROUTER=192.168.122.1\nDNS=192.168.122.1 9.9.9.9\nDOMAINNAME=b.example\n";
    let leases = leases_of(&[
        ("/var/lib/dhcp/dhclient.leases", dhclient),
        ("/var/lib/NetworkManager/internal-6604b755-b04f-33a3-8a74-8eec86f491b6-enp0s1.lease", internal),
        ("/var/lib/NetworkManager/internal-x.lease", internal),
        ("/var/lib/NetworkManager/secret_key", "ADDRESS=1.1.1.1"),
    ]);
    let short: Vec<_> =
        leases.iter().map(|it| (it.interface.as_str(), it.address.as_str(), it.dns.join(" "))).collect();
    assert_eq!(
        short,
        [
            ("eth0", "10.0.0.5/24", "10.0.0.2 10.0.0.3".to_owned()),
            ("eth1", "10.9.9.9/8", String::new()),
            ("enp0s1", "192.168.122.7/24", "192.168.122.1 9.9.9.9".to_owned()),
        ]
    );
    assert_eq!(leases[0].expires.as_deref(), Some("2026/01/06 10:00:00"));
    assert_eq!(
        (leases[0].domain.as_deref(), leases[0].gateways.as_slice()),
        (Some("a.example"), ["10.0.0.1".to_owned()].as_slice())
    );
}

#[test]
fn reads_dhcpcds_messages_whole_or_not_at_all() {
    let mut message = vec![0; 236];
    message[16..20].copy_from_slice(&[10, 0, 0, 9]);
    message.extend([
        99, 130, 83, 99, 53, 1, 5, 0, 1, 4, 255, 255, 0, 0, 3, 4, 10, 0, 0, 1, 6, 8, 1, 1, 1, 1, 8, 8, 8, 8, 15, 1,
        b'x', 255,
    ]);
    let of = |content: &[u8]| {
        let fs = MemoryFs::default();
        fs.add_file("/var/lib/dhcpcd/eth0.lease", content).unwrap();
        let tree = Tree::new(Arc::new(fs));
        leases(&mut Reader { tree: &tree, notes: Vec::new() }).unwrap()
    };
    let found = of(&message);
    assert_eq!((found[0].interface.as_str(), found[0].address.as_str()), ("eth0", "10.0.0.9/16"));
    assert_eq!(
        (found[0].gateways.join(" "), found[0].dns.join(" ")),
        ("10.0.0.1".to_owned(), "1.1.1.1 8.8.8.8".to_owned())
    );
    for cut in 0..message.len() {
        assert!(of(&message[..cut]).is_empty(), "{cut}");
    }
}

#[test]
fn reads_pins_of_old_and_new_udev() {
    let fs = MemoryFs::default();
    fs.add_file(
        "/etc/udev/rules.d/70-persistent-net.rules",
        "# PCI device\nSUBSYSTEM==\"net\", ACTION==\"add\", DRIVERS==\"?*\", ATTR{address}==\"00:50:56:00:00:01\", KERNEL==\"eth*\", NAME=\"eth0\"\n",
    )
    .unwrap();
    fs.add_file("/etc/systemd/network/10-x.link", "[Match]\nMACAddress=00-50-56-00-00-02\n[Link]\nName=lan0\n")
        .unwrap();
    let tree = Tree::new(Arc::new(fs));
    let pins = pins(&mut Reader { tree: &tree, notes: Vec::new() }).unwrap();
    let short: Vec<_> = pins.iter().map(|pin| (pin.name.as_str(), pin.mac.as_str())).collect();
    assert_eq!(short, [("eth0", "00:50:56:00:00:01"), ("lan0", "00:50:56:00:00:02")]);
}

#[test]
fn knows_when_names_are_the_kernels() {
    let names = |files: &[&str], masks: &[&str], options: &[&str]| {
        let fs = MemoryFs::default();
        for path in files {
            fs.add_file(path, "rule").unwrap();
        }
        for path in masks {
            fs.add_link(path, "/dev/null").unwrap();
        }
        let tree = Tree::new(Arc::new(fs));
        let entries: Vec<_> = options
            .iter()
            .map(|options| BootEntry { options: (*options).to_owned(), ..BootEntry::default() })
            .collect();
        kernel_names(&mut Reader { tree: &tree, notes: Vec::new() }, &entries).unwrap()
    };
    let link = "/lib/udev/rules.d/80-net-setup-link.rules";
    assert!(!names(&[link], &[], &["quiet"]));
    assert!(names(&[link], &[], &["quiet net.ifnames=0"]));
    assert!(!names(&[link], &[], &["net.ifnames=0", "quiet"]));
    assert!(names(&[link], &["/etc/systemd/network/99-default.link"], &[]));
    assert!(names(&[], &[], &[]));
}

#[test]
fn tells_names_of_cards() {
    for name in ["eth0", "ens192", "enp11s0", "eno16777728", "enx005056000001", "enP1p1s0"] {
        assert!(is_ethernet(name), "{name}");
    }
    for name in
        ["", "lo", "eth", "ethx", "en", "ens", "br0", "bond0", "en*", "ens1/../x", "ens192 x", "enp0s31f6aaaaaaaaaaaaa"]
    {
        assert!(!is_ethernet(name), "{name}");
    }
}

#[test]
fn odd_input_is_only_odd() {
    for text in [
        "",
        "\\",
        "iface",
        "iface \\\n",
        "source\n",
        "source *",
        "source /*\\",
        "[",
        "address 1\nnetmask 2\n",
        "auto\0\n",
        "[Match\nName=x",
        "DEVICE=\n",
        "ATTR{address}==\"",
        "NAME=\"",
        "=",
        "default via",
        "lease {",
        "lease {\n}\n}",
        "iface lo inet static\naddress 1\n",
    ] {
        let files: Vec<(&str, &str)> = [
            "/etc/network/interfaces",
            "/etc/NetworkManager/system-connections/a",
            "/etc/systemd/network/a.network",
            "/etc/systemd/network/a.netdev",
            "/etc/sysconfig/network-scripts/ifcfg-",
            "/etc/sysconfig/network-scripts/ifcfg-lo",
            "/etc/sysconfig/network/routes",
            "/var/lib/dhcp/a.leases",
            "/var/lib/dhcpcd/a.lease",
        ]
        .map(|path| (path, text))
        .to_vec();
        assert!(all(&files).is_empty(), "{text}");
        assert!(leases_of(&files).is_empty(), "{text}");
        assert!(text.lines().all(|line| udev_pin(line).is_none()), "{text}");
    }
}

#[test]
fn reads_netifrc() {
    let net = "# Gentoo\nconfig_eth0=\"192.168.0.2/24 brd 192.168.0.255\n10.0.0.2 netmask 255.0.0.0\nfe80::5/64\"\nroutes_eth0=\"default via 192.168.0.1\n10.1.0.0/16 via 10.0.0.9\"\n\
        dns_servers_eth0=\"192.168.0.1 8.8.8.8\" # mine\ndns_search_eth0='a.org b.org'\nmac_eth0=\"00:11:22:33:44:55\"\nmtu_eth0=1400\n\
        config_eth1=( \"dhcp\" \"dhcpv6\" )\nconfig_eth0_5=\"null\"\nconfig_br0=\"10.9.0.1/16\"\nbridge_br0=\"eth2 eth3\"\nslaves_bond0=\"eth4\neth5\"\n";
    let files: &[(&str, &str)] = &[
        ("/etc/conf.d/net", net),
        ("/etc/runlevels/default/net.eth0", ""),
        ("/etc/runlevels/default/net.eth0.5", ""),
        ("/etc/runlevels/boot/net.lo", ""),
        ("/etc/runlevels/default/net.eth9", ""),
    ];
    assert_eq!(
        all(files),
        [
            "bond0 bond dhcp/unset of=eth4,eth5 off",
            "br0 bridge static/unset at=10.9.0.1/16 of=eth2,eth3 off",
            "eth0 ethernet static/static at=192.168.0.2/24,10.0.0.2/8,fe80::5/64 via=192.168.0.1 dns=192.168.0.1,8.8.8.8 in=a.org,b.org set=00:11:22:33:44:55 mtu=1400",
            "eth0.5 vlan disabled/unset on=eth0 vlan=5",
            "eth1 ethernet dhcp/dhcp off",
            "eth9 ethernet dhcp/unset",
        ]
    );
}

#[test]
fn reads_dhcpcds_blocks() {
    let conf = "hostname\nstatic routers=1.1.1.1\ndenyinterfaces eth2\ninterface eth0\nstatic ip_address=192.168.0.10/24\n\
        static ip6_address=fd51::7/64\nstatic routers=192.168.0.1\nstatic domain_name_servers=192.168.0.1 8.8.8.8\n# no\n\
        interface eth1\nmetric 5\ninterface eth2\nnodhcp\nssid x\nstatic routers=9.9.9.9\n";
    assert_eq!(
        all(&[("/etc/dhcpcd.conf", conf)]),
        [
            "eth0 ethernet static/static at=192.168.0.10/24,fd51::7/64 via=192.168.0.1 dns=192.168.0.1,8.8.8.8",
            "eth1 ethernet dhcp/unset",
            "eth2 ethernet disabled/unset off",
        ]
    );
}

#[test]
fn reads_wickeds_leases() {
    let lease = "<lease>\n  <family>ipv4</family><type>dhcp</type><state>granted</state>\n  <ipv4:dhcp>\n    <server-id>10.0.2.2</server-id>\n\
        <addresses><address><local>10.0.2.15/24</local><broadcast>10.0.2.255</broadcast></address></addresses>\n\
        <routes><route><nexthop><gateway>10.0.2.2</gateway></nexthop></route><route><destination>10.9.0.0/16</destination>\
        <nexthop><gateway>10.0.2.9</gateway></nexthop></route></routes>\n<dns><domain>example.org</domain><server>10.0.2.3</server>\
        <server>10.0.2.4</server><search>example.org</search></dns>\n  </ipv4:dhcp>\n</lease>\n";
    let found = leases_of(&[
        ("/var/lib/wicked/lease-eth0-dhcp-ipv4.xml", lease),
        ("/var/lib/wicked/lease-lo-static-ipv4.xml", lease),
        ("/var/lib/wicked/state.xml", lease),
        ("/var/lib/wicked/lease-eth1-dhcp-ipv4.xml", "<lease"),
    ]);
    assert_eq!(found.len(), 1);
    let Lease { interface, address, gateways, dns, domain, .. } = &found[0];
    assert_eq!(
        (interface.as_str(), address.as_str(), domain.as_deref()),
        ("eth0", "10.0.2.15/24", Some("example.org"))
    );
    assert_eq!((gateways.join(","), dns.join(",")), ("10.0.2.2".to_owned(), "10.0.2.3,10.0.2.4".to_owned()));
}

#[test]
fn hostile_files_are_bounded() {
    let long = "x".repeat(200 << 10);
    let places = [
        "/etc/network/interfaces",
        "/etc/NetworkManager/system-connections/a",
        "/etc/netplan/a.yaml",
        "/etc/systemd/network/a.network",
        "/etc/systemd/network/a.netdev",
        "/etc/systemd/network/a.link",
        "/etc/sysconfig/network-scripts/ifcfg-a",
        "/etc/sysconfig/network/ifcfg-a",
        "/etc/sysconfig/network/routes",
        "/etc/wicked/ifconfig/a.xml",
        "/etc/conf.d/net",
        "/etc/dhcpcd.conf",
        "/etc/udev/rules.d/70-a.rules",
        "/var/lib/dhcp/dhclient.eth0.leases",
        "/var/lib/NetworkManager/internal-0-1-2-3-4-eth0.lease",
        "/var/lib/dhcpcd/eth0.lease",
        "/var/lib/wicked/lease-eth0-dhcp-ipv4.xml",
    ];
    let deep = "<interface>".repeat(5000);
    let many: String = (0..5000).map(|index| format!("iface n{index} inet static\ninterface n{index}\nconfig_n{index}=\"1.1.1.1/8\"\n[Match]\nName=n{index}\n")).collect();
    for place in places {
        for text in [
            String::new(),
            "\0\0\0\u{fffd}\0=\0\n".to_owned(),
            long.clone(),
            format!("iface {long} inet static\naddress {long}\ngateway {long}\nsource {long}\n"),
            format!("[connection]\ntype=ethernet\ninterface-name={long}\n[ipv4]\naddress1={long}\ndns={long}\n"),
            format!(
                "[Match]\nName={long}\n[Network]\nAddress={long}\nDNS={long}\n[NetDev]\nName={long}\nKind=vlan\n[VLAN]\nId=99999999999\n"
            ),
            format!("DEVICE={long}\nIPADDR={long}\nPREFIX=99999999999\nNETMASK=-1\nGATEWAY={long}\n"),
            format!("network:\n  ethernets:\n    {long}:\n      addresses: [{long}]\n      mtu: 1e99\n"),
            "a: &a [*a]\nnetwork: &n\n  ethernets: *n\n".to_owned(),
            format!("network: {}{}\n", "[".repeat(3000), "]".repeat(3000)),
            "source /etc/network/interfaces\nsource-directory /etc/network\nsource ../../../*\nsource *\n".to_owned(),
            many.clone(),
            deep.clone(),
            format!("<interface><name>{long}</name><mtu>99999999999</mtu></interface>"),
            "<!DOCTYPE a [<!ENTITY b \"cccccccccc\"><!ENTITY d \"&b;&b;&b;&b;\">]><lease><local>&d;</local></lease>"
                .to_owned(),
            format!("lease {{\ninterface \"{long}\";\nfixed-address {long};\noption routers {long};\n}}\n"),
            format!("ADDRESS={long}\nNETMASK=300.1.1.1\nROUTER={long}\n"),
            format!("config_eth0=(\"{long}\nconfig_eth1='\nmac_eth0=\"\u{1b}[31m\""),
            "interface\ninterface \u{1b}[2J\nstatic ip_address\nstatic =\nstatic ip_address==\n".to_owned(),
            format!("ATTR{{address}}==\"{long}\", NAME=\"{long}\"\nATTR{{address}}==\"00:11:22:33:44:55\", NAME=\"\n"),
        ] {
            let tree = tree(&[(place, &text)]);
            let mut reader = Reader { tree: &tree, notes: Vec::new() };
            let found = find(&mut reader).unwrap();
            assert!(found.len() <= limits::MAX_NICS && cards(&found).len() <= limits::MAX_NICS, "{place}");
            let short = |text: &String| text.chars().count() <= 1024;
            for nic in &found {
                let lists = [&nic.addresses, &nic.gateways, &nic.dns, &nic.search, &nic.members];
                assert!(
                    lists.iter().all(|list| list.len() <= limits::MAX_NIC_VALUES && list.iter().all(short)),
                    "{place}"
                );
                assert!(nic.name.iter().chain(&nic.matches).chain(&nic.parent).all(short), "{place}");
            }
            let found = leases(&mut reader).unwrap();
            assert!(found.len() <= limits::MAX_NICS, "{place}");
            assert!(found.iter().all(|lease| short(&lease.address) && short(&lease.interface)), "{place}");
            assert!(pins(&mut reader).unwrap().len() <= 2, "{place}");
            assert!(reader.notes.iter().all(|note| note.len() < 4096), "{place}");
        }
    }
}
