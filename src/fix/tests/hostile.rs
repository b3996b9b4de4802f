//! What no file of a guest may do to the parsers of text: each gets at least ten hostile contents, and everything that is known of
//! the guest, planned and done for it ends, within bounds.

use jiff::Timestamp as Moment;

use super::*;
use crate::inspect::deep;
use crate::inspect::systemd::calendar::Calendar;
use crate::inspect::systemd::zones::Zones;
use crate::inspect::systemd::{Graph, Scope};
use crate::limits::MAX_GUEST_CONFIG;

/// A parser: the file that it reads, a sound content, and hostile ones that only it could take amiss.
struct Parser {
    path: &'static str,
    sound: &'static str,
    own: &'static [(&'static str, &'static str)],
}

const fn parser(path: &'static str, sound: &'static str, own: &'static [(&'static str, &'static str)]) -> Parser {
    Parser { path, sound, own }
}

const PARSERS: &[Parser] = &[
    parser(
        "/etc/fstab",
        "/dev/sda1 / ext4 defaults 0 1\nUUID=U /data xfs nofail 0 2\n/swap none swap sw 0 0\n",
        &[
            ("leads out", "/dev/sda1 /../../etc ext4\n../../dev/sda1 .. ext4\n"),
            ("octal", "/dev/sda1 /a\\040\\777\\0\\ ext4\n"),
            ("one field", "/dev/sda1\n/\nUUID=\nLABEL=\"\n"),
            ("numbers", "/dev/sda99999999999999999999 / ext4 defaults 99999999999999999999 -1\n"),
            ("subvolume", "/dev/sda1 / btrfs subvol=../../..,subvolid=18446744073709551616 0 0\n"),
            ("root many times", "/dev/sda1 / ext4\n/dev/sda1 / xfs\n/dev/sdb1 / btrfs\n"),
        ],
    ),
    parser(
        "/etc/os-release",
        "ID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME='Debian GNU/Linux 12'\n",
        &[
            ("commands", "ID=$(id)\nVERSION_ID=`id`\nNAME=\"${HOME}\"\n"),
            ("path", "ID=../../etc/passwd\nVERSION_ID=/etc/shadow\n"),
            ("open quote", "ID=\"debian\nVERSION_ID='\n"),
            ("version", "ID=debian\nVERSION_ID=99999999999999999999.99999999999999999999\n"),
        ],
    ),
    parser(
        "/etc/crypttab",
        "luks-a UUID=U none luks\nb /dev/sda2 /etc/key luks,keyfile-offset=1\n",
        &[
            ("key leads out", "a /dev/sda1 ../../../etc/shadow luks\n"),
            ("name leads out", "../../a /dev/sda1 none\n/ / /\n"),
            ("one field", "a\n\\040\n"),
            ("itself", "a /dev/mapper/a none\nb /dev/mapper/c none\nc /dev/mapper/b none\n"),
        ],
    ),
    parser(
        "/etc/selinux/config",
        "SELINUX=enforcing\nSELINUXTYPE=targeted\n",
        &[
            ("type leads out", "SELINUX=enforcing\nSELINUXTYPE=../../../etc\n"),
            ("many", "SELINUX=a\nSELINUX=b\nSELINUX=\n"),
        ],
    ),
    parser(
        "/etc/sudoers",
        "Defaults env_reset\nUser_Alias A = a, b\nA ALL=(ALL:ALL) NOPASSWD: /bin/sh, ALL\n%sudo ALL=(ALL) ALL\n@includedir /etc/sudoers.d\n",
        &[
            ("includes itself", "@include /etc/sudoers\n#include /etc/sudoers\n@includedir /etc\n"),
            ("alias of itself", "User_Alias A = B\nUser_Alias B = A\nUser_Alias C = C, !C\nA ALL = ALL\nC C = C\n"),
            (
                "aliases multiply",
                "Cmnd_Alias A = x,x,x,x,x,x,x,x\nCmnd_Alias B = A,A,A,A,A,A,A,A\nCmnd_Alias C = B,B,B,B,B,B,B,B\nCmnd_Alias D = C,C,C,C,C,C,C,C\nCmnd_Alias E = D,D,D,D,D,D,D,D\nCmnd_Alias F = E,E,E,E,E,E,E,E\na ALL = F, F\n",
            ),
            ("host name", "@include /etc/%h%h%h\n@include %\n"),
        ],
    ),
    parser(
        "/etc/sudoers.d/a",
        "a ALL=(root) /bin/a\n",
        &[("includes its folder", "@includedir /etc/sudoers.d\n@includedir .\n@include ../sudoers\n")],
    ),
    parser(
        "/etc/doas.conf",
        "permit nopass keepenv a as root cmd /bin/sh args a b\ndeny b\n",
        &[("braces", "permit setenv { a { b\n")],
    ),
    parser(
        "/etc/passwd",
        "root:x:0:0:root:/root:/bin/bash\na:x:1000:1000:A,,,:/home/a:/bin/sh\n",
        &[
            ("home leads out", "a:x:0:0::/../../../root:/bin/sh\nb:x:0:0::../..:\n"),
            ("numbers", "a:x:-1:99999999999999999999::/:\n:::::::\na:x\n"),
        ],
    ),
    parser("/etc/group", "root:x:0:\nsudo:x:27:a,b,,a\n", &[("numbers", "a:x:-1:a\nb:x:99999999999999999999:\n:::\n")]),
    parser(
        "/etc/shadow",
        "root:*:19000:0:99999:7:::\na:$6$s$h:19000:0:99999:7:::\n",
        &[("numbers", "a:!!$9$:99999999999999999999:-1::\n")],
    ),
    parser(
        "/etc/hostname",
        "a-name\n",
        &[
            ("path", "../../etc/passwd\n"),
            ("long", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.b\n"),
        ],
    ),
    parser("/etc/lsb-release", "DISTRIB_ID=Ubuntu\nDISTRIB_RELEASE=22.04\n", &[("open quote", "DISTRIB_ID=\"\n")]),
    parser("/etc/SuSE-release", "SUSE Linux Enterprise Server 11 (x86_64)\nVERSION = 11\nPATCHLEVEL = 4\n", &[]),
    parser(
        "/etc/lilo.conf",
        "boot=/dev/sda\nroot=/dev/sda1\nimage=/boot/vmlinuz\n\tlabel=a\n\tappend=\"quiet\"\n",
        &[
            ("image leads out", "image=/boot/../../../etc/passwd\ninitrd=../../x\n"),
            ("open quote", "image=\"a\nappend=\"\n"),
        ],
    ),
    parser(
        "/boot/grub/grub.cfg",
        "set default=\"0\"\nmenuentry 'a' {\n\tlinux /boot/vmlinuz-6.1 root=/dev/sda1 ro\n\tinitrd /boot/initrd.img-6.1\n}\n",
        &[
            ("deep menus", "submenu a { submenu b { submenu c { submenu d { submenu e { submenu f { submenu g {\n"),
            ("closed too often", "} } } menuentry a } { linux\n"),
            ("image leads out", "menuentry a {\n linux /../../../etc/passwd\n initrd ../../../etc/shadow\n}\n"),
            ("itself", "configfile /boot/grub/grub.cfg\nsource /boot/grub/grub.cfg\n. $prefix/grub.cfg\n"),
            ("variables", "set a=$a$a$a$a\nset default=${default}${default}\nmenuentry $a { linux $a $a }\n"),
        ],
    ),
    parser(
        "/boot/grub/menu.lst",
        "default 0\ntitle a\nroot (hd0,0)\nkernel /boot/vmlinuz-6.1 root=/dev/sda1\ninitrd /boot/initrd\n",
        &[("disk", "title a\nroot (hd99999999999999999999,-1)\nkernel (hd0,0\n")],
    ),
    parser(
        "/boot/loader/entries/a.conf",
        "title a\nversion 6.1\nlinux /vmlinuz-6.1\ninitrd /initrd-6.1\noptions root=/dev/sda1 $kernelopts\n",
        &[
            ("leads out", "linux ../../../etc/passwd\ninitrd /../x\n"),
            ("variables", "options $a $$ ${ $kernelopts$kernelopts\n"),
        ],
    ),
    parser(
        "/boot/extlinux/extlinux.conf",
        "DEFAULT a\nLABEL a\n KERNEL /vmlinuz-6.1\n APPEND root=/dev/sda1 initrd=/i\n",
        &[("itself", "INCLUDE /boot/extlinux/extlinux.conf\nCONFIG extlinux.conf\n")],
    ),
    parser(
        "/boot/grub/grubenv",
        "# GRUB Environment Block\nsaved_entry=a\nkernelopts=root=/dev/sda1 ro\n",
        &[("backslashes", "saved_entry=\\\\\\\n\\\nkernelopts=$kernelopts\n")],
    ),
    parser(
        "/etc/default/grub",
        "GRUB_DEFAULT=0\nGRUB_CMDLINE_LINUX=\"root=/dev/sda1 quiet\"\n",
        &[("shell", "GRUB_CMDLINE_LINUX=\"$(cat /etc/passwd)\" \\\n'a\"b\n")],
    ),
    parser("/etc/kernel/cmdline", "root=/dev/sda1 ro quiet\n", &[("quotes", "root=\"/dev/sda1 ro a=\"b\n")]),
    parser("/efi/loader/loader.conf", "default a.conf\ntimeout 3\n", &[("leads out", "default ../../../*\n")]),
    parser("/efi/EFI/Linux/a.efi", "MZ no program", &[("cut", "MZ")]),
    parser("/etc/initramfs-tools/modules", "ext4\nsd_mod a=b\n", &[("path", "../../x\n/x\n")]),
    parser("/etc/initramfs-tools/conf.d/resume", "RESUME=/dev/sda2\n", &[("shell", "RESUME=$(x)\nRESUME=\"\n")]),
    parser(
        "/etc/network/interfaces",
        "auto ens192\niface ens192 inet static\n address 10.0.0.2/24\n gateway 10.0.0.1\nsource /etc/network/interfaces.d/*\n",
        &[
            ("itself", "source /etc/network/interfaces\nsource-directory /etc/network\n"),
            ("pattern", "source /*/*/*/*/*\nsource [\nsource *{a,b}*\n"),
            ("numbers", "iface a inet static\n address 999.0.0.1/99999999999\n mtu -1\n vlan-id 99999999999\n"),
        ],
    ),
    parser(
        "/etc/netplan/a.yaml",
        "network:\n  version: 2\n  ethernets:\n    ens192:\n      dhcp4: true\n      match: {macaddress: 00:50:56:00:00:01}\n",
        &[
            (
                "laughs",
                "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c]\nnetwork: *d\n",
            ),
            ("itself", "network: &a\n  ethernets: *a\n"),
            ("tabs", "network:\n\tethernets:\n\t\ta: {}\n"),
            ("kinds", "network: 1\n---\nnetwork: [~, true, .inf, 0x]\n--- !!binary a\n"),
        ],
    ),
    parser(
        "/etc/NetworkManager/system-connections/a",
        "[connection]\nid=a\ntype=ethernet\n[ipv4]\nmethod=manual\naddress1=10.0.0.2/24,10.0.0.1\n",
        &[("sections", "[connection\n]\n[]\n[ipv4]address1=/,/\naddresses=;;;,;\n")],
    ),
    parser(
        "/etc/systemd/network/a.network",
        "[Match]\nName=ens192\n[Network]\nDHCP=yes\n[Address]\nAddress=10.0.0.2/24\n",
        &[("sections", "[Match\nName\n=\n[Network]\nVLAN=a\nBond=a\nBridge=a\n")],
    ),
    parser(
        "/etc/systemd/network/a.netdev",
        "[NetDev]\nName=br0\nKind=bridge\n",
        &[("itself", "[NetDev]\nName=a\nKind=vlan\n[VLAN]\nId=99999999999\n")],
    ),
    parser(
        "/etc/sysconfig/network-scripts/ifcfg-eth0",
        "DEVICE=eth0\nONBOOT=yes\nBOOTPROTO=none\nIPADDR=10.0.0.2\nPREFIX=24\n",
        &[
            ("itself", "DEVICE=eth0\nMASTER=eth0\nSLAVE=yes\nBRIDGE=eth0\nVLAN=yes\nPHYSDEV=eth0\n"),
            ("numbers", "PREFIX=99999999999\nIPADDR256=1\nIPADDR-1=2\n"),
        ],
    ),
    parser(
        "/etc/sysconfig/network/ifcfg-eth1",
        "STARTMODE=auto\nBOOTPROTO=static\nIPADDR=10.0.0.2/24\n",
        &[("itself", "BONDING_SLAVE_0=eth1\nBRIDGE_PORTS='eth1 eth1'\nETHERDEVICE=eth1\n")],
    ),
    parser(
        "/etc/sysconfig/network/routes",
        "default 10.0.0.1 - -\n",
        &[("numbers", "default\n10.0.0.0/999 - 999.1.1.1 eth1\n")],
    ),
    parser(
        "/etc/wicked/ifconfig/a.xml",
        "<interface><name>eth0</name><ipv4:static><address><local>10.0.0.2/24</local></address></ipv4:static></interface>",
        &[
            (
                "laughs",
                "<!DOCTYPE a [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;&a;\">]><interface><name>&b;</name></interface>",
            ),
            ("file", "<!DOCTYPE a [<!ENTITY x SYSTEM \"file:///etc/passwd\">]><interface><name>&x;</name></interface>"),
            ("unclosed", "<interface><name><interface><name>"),
        ],
    ),
    parser(
        "/etc/udev/rules.d/a.rules",
        "SUBSYSTEM==\"net\", ATTR{address}==\"00:50:56:00:00:01\", NAME=\"eth0\"\n",
        &[("operators", "SUBSYSTEM==\"net\", ATTR{address==\"\", NAME=\"\", NAME==\\\n\"a\n")],
    ),
    parser(
        "/var/lib/dhcp/a.leases",
        "lease {\n interface \"eth0\";\n fixed-address 10.0.0.2;\n expire 1 2026/01/01 00:00:00;\n}\n",
        &[("braces", "lease { lease { lease {\n} } } }\nlease { expire 9 9999/99/99 99:99:99; }\n")],
    ),
    parser("/var/lib/dhcpcd/eth0.lease", "\u{1}\u{1}\u{6}", &[("options", "\u{1}\u{1}\u{6}\0cSc5\u{7f}\u{7f}\u{7f}")]),
    parser(
        "/etc/systemd/system/a.service",
        "[Unit]\nDescription=a\nAfter=network.target\n[Service]\nExecStart=/bin/sh -c 'a' \\\n  b\n[Install]\nWantedBy=multi-user.target\n",
        &[
            (
                "itself",
                "[Unit]\nRequires=a.service\nAfter=a.service\nBefore=a.service\n[Install]\nAlias=a.service\nAlso=a.service\n",
            ),
            ("specifiers", "[Unit]\nDescription=%%%n%N%p%P%i%I%f%\n[Service]\nExecStart=%\n"),
            ("leads out", "[Unit]\nRequires=../../etc/passwd ..\n[Install]\nWantedBy=../../..\nAlias=../x.service\n"),
            ("times", "[Service]\nRestartSec=99999999999999999999y -1 .5.5 infinity\nTimeoutStartSec=\n"),
        ],
    ),
    parser(
        "/etc/systemd/system/b.timer",
        "[Timer]\nOnCalendar=Mon..Fri *-*-* 02:30:00\nOnBootSec=15min\nUnit=a.service\n[Install]\nWantedBy=timers.target\n",
        &[
            ("never", "[Timer]\nOnCalendar=2026-02-30\nOnCalendar=*-*-* 24:60:61\nOnCalendar=1969-*-*\n"),
            ("ranges", "[Timer]\nOnCalendar=Fri..Mon *-12..1-31..1 23..0:59..0:59..0\nOnCalendar=*:0/0\n"),
            ("zone", "[Timer]\nOnCalendar=daily ../../etc/passwd\nOnCalendar=daily /etc/localtime\n"),
            ("unit", "[Timer]\nUnit=b.timer\nUnit=../x\nUnit=\n"),
        ],
    ),
    parser(
        "/etc/systemd/system/c.socket",
        "[Socket]\nListenStream=/run/c\nListenStream=[::1]:80\n",
        &[("addresses", "[Socket]\nListenStream=99999\nListenStream=[::\nListenStream=@\nListenFIFO=..\n")],
    ),
    parser(
        "/etc/systemd/system-preset/a.preset",
        "enable a.service\ndisable *\n",
        &[("patterns", "enable [\nenable *?*?*?*?*?*?*?*?*?*?*\ndisable \\\n")],
    ),
];

/// Makes a hostile content of a sound one.
type Shape = fn(&str) -> Vec<u8>;

/// What any text may be like: made of a sound one.
const SHAPES: &[(&str, Shape)] = &[
    ("empty", |_| Vec::new()),
    ("zeros", |_| vec![0; 4096]),
    ("not UTF-8", |sound| sound.bytes().map(|byte| if byte == b' ' { 0xfe } else { byte }).collect()),
    ("escapes", |sound| sound.replace(['a', 'e'], "\u{1b}]0;x\u{7}\u{202e}\r").into_bytes()),
    ("a long line", |sound| whole(sound.trim_end().bytes().filter(|byte| *byte != b'\n').collect())),
    ("many lines", |sound| whole(sound.as_bytes().to_vec())),
    ("many empty lines", |_| whole(b"\n".to_vec())),
    ("too long", |_| vec![b'#'; usize::try_from(MAX_GUEST_CONFIG).unwrap() + 1]),
    ("carriage returns", |sound| sound.replace('\n', "\r").into_bytes()),
    ("byte order mark", |sound| [b"\xef\xbb\xbf", sound.as_bytes()].concat()),
    ("continued lines", |sound| sound.replace('\n', "\\\n").into_bytes()),
    ("no ends", |sound| sound.replace(['"', '\'', '}', ']', ')', '>', ';'], "").into_bytes()),
    ("no values", |sound| sound.replace(|c: char| c.is_ascii_alphanumeric(), "").into_bytes()),
    ("every sign twice", |sound| {
        sound.chars().flat_map(|c| [c; 2]).filter(|c| *c != '\n').collect::<String>().into_bytes()
    }),
    ("brackets", |sound| format!("{}{sound}", "{[(<\"".repeat(LONG / 5)).into_bytes()),
];

/// Bytes of the contents that are made long: what takes a square of the time would show, and unoptimised tests stay short.
const LONG: usize = 24 << 10;

/// As many of `part` as fit into a long content.
fn whole(part: Vec<u8>) -> Vec<u8> {
    let mut content = part.repeat(LONG / part.len());
    content.truncate(LONG);
    content
}

/// A small guest in which most of the files count.
fn guest() -> MemoryFs {
    let fs = MemoryFs::new("ext4", Some(UUID), None);
    for path in
        ["/usr/bin/sh", "/usr/lib/systemd/systemd", "/usr/lib/udev/rules.d/80-net-setup-link.rules", "/etc/hosts"]
    {
        fs.add_file(path, "x").unwrap();
    }
    for (path, target) in
        [("/lib", "usr/lib"), ("/bin", "usr/bin"), ("/sbin", "usr/bin"), ("/usr/bin/init", "/lib/systemd/systemd")]
    {
        fs.add_link(path, target).unwrap();
    }
    fs.add_file("/etc/initramfs-tools/initramfs.conf", "MODULES=list\n").unwrap();
    fs
}

/// Looks at a guest with this file in every way, and mends it.
fn survive(path: &str, content: &[u8], what: &str) {
    let fs = guest();
    fs.add_file(path, content).unwrap();
    let machine = machine(vec![volume(1, "ext4", UUID, Some(fs))]);
    let (plan, root) = plan_for(&machine);
    let facts = linux(&root.tree).unwrap();
    let further = deep(&root.tree, &facts).unwrap();
    let now = Moment::from_second(1_790_000_000).unwrap();
    let zones = Zones::read(&root.tree, now).unwrap();
    let graph = Graph::read(&root.tree, Scope::System).unwrap();
    for unit in graph.units.values() {
        graph.check(unit, &root.tree, &zones).unwrap();
    }
    graph.timers(&zones, now).unwrap();
    for line in String::from_utf8_lossy(content).lines().take(20) {
        let line: String = line.chars().take(200).collect();
        let _ = Calendar::parse(&line, &zones);
    }
    for told in [serde_json::to_vec(&facts), serde_json::to_vec(&further)] {
        assert!(told.unwrap().len() < 64 << 20, "{path}: {what}: too much is told");
    }
    // A plan that cannot be applied, or that does not come to an end, would be one for a guest that is not there.
    apply(&plan, &root.tree, NOW).unwrap_or_else(|error| panic!("{path}: {what}: {error}"));
    let (again, _) = plan_for(&machine);
    assert!(again.is_empty(), "{path}: {what}: planned again: {:#?}", again.actions);
}

#[test]
fn every_parser_has_ten_hostile_contents() {
    // What the fuzzer has parsers read is here too.
    let fuzzed = include_str!("../../../fuzz/fuzz_targets/guest_files.rs");
    let (_, list) = fuzzed.split_once("const FILES: &[&str] = &[").unwrap();
    let list = list.split_once("];").unwrap().0;
    let fuzzed: Vec<&str> = list.split('"').filter(|part| part.starts_with('/')).collect();
    assert!(fuzzed.len() > 20, "{fuzzed:?}");
    for path in fuzzed {
        assert!(PARSERS.iter().any(|parser| parser.path == path), "{path} has no hostile contents");
    }
    for parser in PARSERS {
        let names: std::collections::BTreeSet<_> =
            parser.own.iter().map(|(name, _)| name).chain(SHAPES.iter().map(|(name, _)| name)).collect();
        assert!(names.len() >= 10 && names.len() == parser.own.len() + SHAPES.len(), "{}", parser.path);
    }
}

#[test]
fn hostile_contents_are_survived() {
    for parser in PARSERS {
        survive(parser.path, parser.sound.as_bytes(), "sound");
        for (what, content) in parser.own {
            survive(parser.path, content.as_bytes(), what);
        }
        for (what, make) in SHAPES {
            survive(parser.path, &make(parser.sound), what);
        }
    }
}

#[test]
fn contents_that_are_cut_anywhere_are_survived() {
    for parser in PARSERS {
        for len in (1..parser.sound.len()).step_by(11) {
            survive(parser.path, &parser.sound.as_bytes()[..len], &format!("cut to {len}"));
        }
    }
}
