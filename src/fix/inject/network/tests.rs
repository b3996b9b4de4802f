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
    assert!(text.contains("\"link\": \"lan\""), "{text}");
}

#[test]
fn what_cannot_be_followed_is_an_error() {
    let ens = [("/etc/network/interfaces", "iface ens192 inet dhcp\n")];
    let suse = [("/etc/sysconfig/network/ifcfg-ens192", "BOOTPROTO='dhcp'\nSTARTMODE='auto'\n")];
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
        (&suse, "name: ens192, dhcp: true", "inject.impossible"),
        (&parts, "name: ens192, dhcp: true", "inject.impossible"),
        (&keyfile, "name: ens192, addresses: [10.0.0.5/24], dns: ['2001:db8::2']", "inject.impossible"),
    ] {
        let error = planned(&guest(&[files]), &format!("network: [{{{wish}}}]")).unwrap_err();
        assert_eq!(error.code(), code, "{wish}: {error}");
    }
}
