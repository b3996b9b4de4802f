//! Every kind of configuration that is written, with the exact text, and as our own reader understands it.

use super::super::tests::{done, guest, planned, text};
use crate::inspect::{Interface, Method, linux};

const BOTH: &str = "network: [{name: ens192, addresses: [10.0.0.5/24, '2001:db8::5/64'], gateways: [10.0.0.1, '2001:db8::1'], \
                    dns: [10.0.0.2, '2001:db8::2'], search: [example.org, lan]}]\n";
const DHCP: &str = "network: [{name: ens192, dhcp: true}]\n";

/// The file after what is asked for, and what is then known of `ens192`.
fn made(path: &str, before: &str, config: &str) -> (String, Interface) {
    let machine = guest(&[&[("/usr/lib/systemd/systemd", ""), (path, before)]]);
    let (_, root) = done(&machine, config);
    let mut interfaces = linux(&root.tree).unwrap().interfaces;
    interfaces.retain(|interface| interface.name.as_deref() == Some("ens192"));
    assert_eq!(interfaces.len(), 1, "{interfaces:#?}");
    (text(&root, path), interfaces.remove(0))
}

/// What both kinds of wishes make of a file.
fn check(path: &str, before: &str, with_both: &str, with_dhcp: &str) {
    let (text, known) = made(path, before, BOTH);
    assert_eq!(text, with_both, "{path}");
    assert_eq!(known.addresses, ["10.0.0.5/24", "2001:db8::5/64"], "{path}");
    assert_eq!(known.gateways, ["10.0.0.1", "2001:db8::1"], "{path}");
    assert_eq!(known.dns, ["10.0.0.2", "2001:db8::2"], "{path}");
    assert_eq!(known.search, ["example.org", "lan"], "{path}");
    assert_eq!((known.ipv4, known.ipv6), (Method::Static, Method::Static), "{path}");
    let (text, known) = made(path, before, DHCP);
    assert_eq!(text, with_dhcp, "{path}");
    assert_eq!(known.ipv4, Method::Dhcp, "{path}");
}

#[test]
fn ifcfg_files() {
    check(
        "/etc/sysconfig/network-scripts/ifcfg-ens192",
        "# own\nDEVICE=ens192\nBOOTPROTO=static\nIPADDR=192.0.2.7\nNETMASK=255.255.255.0\nIPADDR1=192.0.2.8\nGATEWAY=192.0.2.1\nDNS1=192.0.2.2\nMTU=9000\nONBOOT=yes\n",
        "# own\nDEVICE=ens192\nMTU=9000\nONBOOT=yes\nBOOTPROTO=none\nIPADDR=10.0.0.5\nPREFIX=24\nGATEWAY=10.0.0.1\nIPV6INIT=yes\nIPV6_AUTOCONF=no\n\
         IPV6ADDR=2001:db8::5/64\nIPV6_DEFAULTGW=2001:db8::1\nDNS1=10.0.0.2\nDNS2=2001:db8::2\nDOMAIN=\"example.org lan\"\n",
        "# own\nDEVICE=ens192\nDNS1=192.0.2.2\nMTU=9000\nONBOOT=yes\nBOOTPROTO=dhcp\n",
    );
}

#[test]
fn interfaces_of_ifupdown() {
    check(
        "/etc/network/interfaces",
        "# own\nauto lo ens192\niface lo inet loopback\n\niface ens192 inet static\n    address 192.0.2.7/24\n    gateway 192.0.2.1\n    mtu 9000\n\niface ens224 inet static\n    address 192.0.2.9/24\n",
        "# own\nauto lo ens192\niface lo inet loopback\n\niface ens192 inet static\n    address 10.0.0.5/24\n    gateway 10.0.0.1\n    dns-nameservers 10.0.0.2 2001:db8::2\n    dns-search example.org lan\n    mtu 9000\n\niface ens224 inet static\n    address 192.0.2.9/24\niface ens192 inet6 static\n    address 2001:db8::5/64\n    gateway 2001:db8::1\n",
        "# own\nauto lo ens192\niface lo inet loopback\n\niface ens192 inet dhcp\n    mtu 9000\n\niface ens224 inet static\n    address 192.0.2.9/24\n",
    );
}

#[test]
fn connections_of_networkmanager() {
    check(
        "/etc/NetworkManager/system-connections/a.nmconnection",
        "[connection]\nid=a\ntype=ethernet\ninterface-name=ens192\n\n[ipv4]\n# own\nmethod=manual\naddress1=192.0.2.7/24,192.0.2.1\nroute1=192.0.2.128/25\n\n[ipv6]\nmethod=ignore\n",
        "[connection]\nid=a\ntype=ethernet\ninterface-name=ens192\n\n[ipv4]\nmethod=manual\naddress1=10.0.0.5/24,10.0.0.1\ndns=10.0.0.2;\ndns-search=example.org;lan;\n# own\nroute1=192.0.2.128/25\n\n\
         [ipv6]\nmethod=manual\naddress1=2001:db8::5/64,2001:db8::1\ndns=2001:db8::2;\ndns-search=example.org;lan;\n",
        "[connection]\nid=a\ntype=ethernet\ninterface-name=ens192\n\n[ipv4]\nmethod=auto\n# own\nroute1=192.0.2.128/25\n\n[ipv6]\nmethod=ignore\n",
    );
}

#[test]
fn files_of_networkd() {
    check(
        "/etc/systemd/network/10-lan.network",
        "[Match]\nName=ens192\n\n[Network]\nDHCP=no\nAddress=192.0.2.7/24\nGateway=192.0.2.1\nVLAN=v5\n",
        "[Match]\nName=ens192\n\n[Network]\nAddress=10.0.0.5/24\nGateway=10.0.0.1\nAddress=2001:db8::5/64\nGateway=2001:db8::1\nDHCP=no\nDNS=10.0.0.2\nDNS=2001:db8::2\nDomains=example.org lan\nVLAN=v5\n",
        "[Match]\nName=ens192\n\n[Network]\nDHCP=ipv4\nVLAN=v5\n",
    );
}

#[test]
fn files_of_netplan() {
    let path = "/etc/netplan/50-cloud-init.yaml";
    let before = "# own\nnetwork:\n  version: 2\n  ethernets:\n    lan:\n      match: {macaddress: 00:50:56:ab:00:01}\n      set-name: ens192\n      addresses: [192.0.2.7/24]\n      gateway4: 192.0.2.1\n      mtu: 9000\n  vlans:\n    v5: {id: 5, link: lan}\n";
    let (_, known) = made(path, before, BOTH);
    assert_eq!(known.addresses, ["10.0.0.5/24", "2001:db8::5/64"]);
    assert_eq!(known.gateways, ["10.0.0.1", "2001:db8::1"]);
    assert_eq!((known.dns.len(), known.search.len(), known.mtu), (2, 2, Some(9000)));
    assert_eq!(known.mac.as_deref(), Some("00:50:56:ab:00:01"));
    let (text, known) = made(path, before, DHCP);
    assert_eq!((known.ipv4, known.addresses.len(), known.gateways.len()), (Method::Dhcp, 0, 0));
    assert!(text.starts_with("# own\n") && text.ends_with("  vlans:\n    v5: {id: 5, link: lan}\n"), "{text}");
}

#[test]
fn a_file_of_netplan_keeps_its_layout_but_for_what_changes() {
    let path = "/etc/netplan/01.yaml";
    let before = "network:\n  version: 2\n  # all cards\n  ethernets:\n    # uplink\n    \"ens192\":  # own\n      mtu: 9000 # jumbo\n      routes:\n      - to: default\n        via: 192.0.2.1\n      - {to: 198.51.100.0/24, via: 192.0.2.9}\n      # fixed\n      addresses:\n        - 192.0.2.7/24\n        - 2001:db8:1::7/64\n\n    ens224: {dhcp4: true} # last\n";
    let (text, _) = made(path, before, DHCP);
    assert_eq!(
        text,
        "network:\n  version: 2\n  # all cards\n  ethernets:\n    # uplink\n    \"ens192\":  # own\n      mtu: 9000 # jumbo\n      routes: [{\"to\":\"198.51.100.0/24\",\"via\":\"192.0.2.9\"}]\n      # fixed\n      addresses: [\"2001:db8:1::7/64\"]\n      dhcp4: true\n\n    ens224: {dhcp4: true} # last\n"
    );
    // What is all in braces becomes JSON.
    let (text, known) = made(path, "network: {ethernets: {ens192: {addresses: [192.0.2.7/24]}}}\n", DHCP);
    assert!(text.starts_with("{\n") && known.ipv4 == Method::Dhcp, "{text}");
}

#[test]
fn files_of_suse() {
    let files = [
        ("/usr/lib/systemd/systemd", ""),
        (
            "/etc/sysconfig/network/ifcfg-ens192",
            "BOOTPROTO='static'\n# own\nIPADDR='192.0.2.7/24'\nIPADDR_1='192.0.2.8'\nNETMASK_1='255.255.255.0'\nIPADDR_x='2001:db8:1::7/64'\nSTARTMODE='auto'\nMTU='9000'\n",
        ),
        (
            "/etc/sysconfig/network/routes",
            "default 192.0.2.1 - -\ndefault 203.0.113.1 - -\n198.51.100.0/24 192.0.2.9 - -\n",
        ),
        (
            "/etc/sysconfig/network/config",
            "# own\nNETCONFIG_DNS_STATIC_SERVERS=\"192.0.2.2\"\nNETCONFIG_DNS_POLICY=\"auto\"\n",
        ),
    ];
    let machine = guest(&[&files]);
    let (_, root) = done(&machine, BOTH);
    assert_eq!(
        text(&root, "/etc/sysconfig/network/ifcfg-ens192"),
        "# own\nSTARTMODE='auto'\nMTU='9000'\nBOOTPROTO='static'\nIPADDR='10.0.0.5/24'\nIPADDR_1='2001:db8::5/64'\n"
    );
    assert_eq!(
        text(&root, "/etc/sysconfig/network/ifroute-ens192"),
        "default 10.0.0.1 - ens192\ndefault 2001:db8::1 - ens192\n"
    );
    // The other gateway may be another card's.
    assert_eq!(
        text(&root, "/etc/sysconfig/network/routes"),
        "default 203.0.113.1 - -\n198.51.100.0/24 192.0.2.9 - -\n"
    );
    assert_eq!(
        text(&root, "/etc/sysconfig/network/config"),
        "# own\nNETCONFIG_DNS_STATIC_SERVERS=\"10.0.0.2 2001:db8::2\"\nNETCONFIG_DNS_POLICY=\"auto\"\nNETCONFIG_DNS_STATIC_SEARCHLIST=\"example.org lan\"\n"
    );
    let known = linux(&root.tree).unwrap().interfaces.remove(0);
    assert_eq!((known.addresses.len(), known.ipv4, known.mtu), (2, Method::Static, Some(9000)));
    assert!(known.gateways.contains(&"10.0.0.1".to_owned()) && known.gateways.contains(&"2001:db8::1".to_owned()));

    let (_, root) = done(&guest(&[&files]), DHCP);
    assert_eq!(
        text(&root, "/etc/sysconfig/network/ifcfg-ens192"),
        "# own\nIPADDR_x='2001:db8:1::7/64'\nSTARTMODE='auto'\nMTU='9000'\nBOOTPROTO='dhcp4'\n"
    );
    assert!(!root.tree.exists("/etc/sysconfig/network/ifroute-ens192").unwrap());
    let by_both = [("/etc/sysconfig/network/ifcfg-ens192", "BOOTPROTO=dhcp\nSTARTMODE=auto\n")];
    for (wish, expected) in [
        (BOTH, "STARTMODE=auto\nBOOTPROTO='static'\nIPADDR='10.0.0.5/24'\nIPADDR_1='2001:db8::5/64'\n"),
        (DHCP, "STARTMODE=auto\nBOOTPROTO='dhcp'\n"),
        (
            "network: [{name: ens192, addresses: [10.0.0.5/24]}]",
            "STARTMODE=auto\nBOOTPROTO='dhcp6'\nIPADDR='10.0.0.5/24'\n",
        ),
        (
            "network: [{name: ens192, addresses: ['2001:db8::5/64']}]",
            "STARTMODE=auto\nBOOTPROTO='dhcp4'\nIPADDR='2001:db8::5/64'\n",
        ),
    ] {
        let (_, root) = done(&guest(&[&by_both]), wish);
        assert_eq!(text(&root, "/etc/sysconfig/network/ifcfg-ens192"), expected, "{wish}");
    }
}

#[test]
fn the_file_of_netifrc() {
    check(
        "/etc/conf.d/net",
        "# own\nconfig_ens192=\"192.0.2.7/24 brd 192.0.2.255\n2001:db8:1::7/64\"\nroutes_ens192='default via 192.0.2.1\n198.51.100.0/24 via 192.0.2.9'\nmtu_ens192=\"9000\"\nconfig_ens224=\"dhcp\"\n",
        "# own\nconfig_ens192=\"10.0.0.5/24\n2001:db8::5/64\"\nroutes_ens192=\"198.51.100.0/24 via 192.0.2.9\ndefault via 10.0.0.1\ndefault via 2001:db8::1\"\nmtu_ens192=\"9000\"\nconfig_ens224=\"dhcp\"\n\
         dns_servers_ens192=\"10.0.0.2 2001:db8::2\"\ndns_search_ens192=\"example.org lan\"\n",
        "# own\nconfig_ens192=\"dhcp\n2001:db8:1::7/64\"\nroutes_ens192=\"198.51.100.0/24 via 192.0.2.9\"\nmtu_ens192=\"9000\"\nconfig_ens224=\"dhcp\"\n",
    );
}

#[test]
fn the_file_of_dhcpcd() {
    let path = "/etc/dhcpcd.conf";
    let before = "# own\nhostname\ninterface ens192\n\tstatic ip_address=192.0.2.7/24\n\tstatic routers=192.0.2.1\n\tmetric 5\n\ninterface ens224\nstatic ip_address=192.0.2.9/24\n";
    let wish = "network: [{name: ens192, addresses: [10.0.0.5/24, '2001:db8::5/64'], gateways: [10.0.0.1], dns: [10.0.0.2], search: [lan]}]";
    let (text, known) = made(path, before, wish);
    assert_eq!(
        text,
        "# own\nhostname\ninterface ens192\nstatic ip_address=10.0.0.5/24\nstatic routers=10.0.0.1\nstatic ip6_address=2001:db8::5/64\nstatic domain_name_servers=10.0.0.2\nstatic domain_search=lan\n\tmetric 5\n\ninterface ens224\nstatic ip_address=192.0.2.9/24\n"
    );
    assert_eq!(
        (known.addresses.len(), known.gateways, known.dns),
        (2, vec!["10.0.0.1".to_owned()], vec!["10.0.0.2".to_owned()])
    );
    let (text, known) = made(path, before, DHCP);
    assert_eq!(
        text,
        "# own\nhostname\ninterface ens192\n\tmetric 5\n\ninterface ens224\nstatic ip_address=192.0.2.9/24\n"
    );
    assert_eq!(known.ipv4, Method::Dhcp);
}

#[test]
fn what_cannot_be_followed_is_an_error() {
    let ens = [("/etc/network/interfaces", "iface ens192 inet dhcp\n")];
    let wicked = [("/etc/wicked/ifconfig/a.xml", "<interface><name>ens192</name></interface>\n")];
    let netifrc = [("/etc/conf.d/net", "config_ens192=( \"192.0.2.7/24\" )\n")];
    let dhcpcd = [("/etc/dhcpcd.conf", "interface ens192\n")];
    let parts = [("/etc/systemd/network/a.network", "[Match]\nName=ens192\n[Address]\nAddress=10.0.0.9/24\n")];
    let keyfile = [(
        "/etc/NetworkManager/system-connections/a",
        "[connection]\ntype=ethernet\ninterface-name=ens192\n[ipv4]\nmethod=auto\n",
    )];
    for (files, wish, code) in [
        (&ens[..], "name: ens192", "inject.value"),
        (&ens, "name: ens192, dhcp: true, addresses: [10.0.0.5/24]", "inject.value"),
        (&ens, "name: ens192, addresses: [10.0.0.5]", "inject.value"),
        (&ens, "name: ens192, addresses: [10.0.0.5/33]", "inject.value"),
        (&ens, "name: ens192, addresses: ['2001:db8::5/129']", "inject.value"),
        (&ens, "name: ens192, addresses: [10.0.0.5/24], gateways: [10.0.0.1, 10.0.0.2]", "inject.value"),
        (&ens, "name: ens192, addresses: [10.0.0.5/24], gateways: ['2001:db8::1']", "inject.value"),
        (&ens, "name: ens192, addresses: [10.0.0.5/24], dns: [here]", "inject.value"),
        (&ens, "name: ens192, dhcp: true, search: [\"a\\nb\"]", "inject.value"),
        (&ens, "name: 'ens 192', dhcp: true", "inject.value"),
        (&ens, "name: ens224, dhcp: true", "inject.absent"),
        (&ens, "name: ens192, addresses: [10.0.0.5/24, 10.0.0.6/24]", "inject.impossible"),
        (&ens, "name: ens192, dhcp: true, mtu: 9000", "inject.config"),
        (&wicked, "name: ens192, dhcp: true", "inject.impossible"),
        (&netifrc, "name: ens192, dhcp: true", "inject.impossible"),
        (&dhcpcd, "name: ens192, addresses: ['2001:db8::5/64'], gateways: ['2001:db8::1']", "inject.impossible"),
        (&dhcpcd, "name: ens192, addresses: [10.0.0.5/24, 10.0.0.6/24]", "inject.impossible"),
        (&parts, "name: ens192, dhcp: true", "inject.impossible"),
        (&keyfile, "name: ens192, addresses: [10.0.0.5/24], dns: ['2001:db8::2']", "inject.impossible"),
    ] {
        let error = planned(&guest(&[files]), &format!("network: [{{{wish}}}]")).unwrap_err();
        assert_eq!(error.code(), code, "{wish}: {error}");
    }
}
