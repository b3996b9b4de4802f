//! A guest whose every text is hostile: none of it steers the terminal of who looks, and what is for programs stays well formed.
//!
//! Bytes as they are come from `guest cat`, `cp`, `tar`, `find -0` and the formats of `guest log` for programs only.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use regf::{DataType, HiveBuilder, KeyTreeNode, KeyTreeValue};

use crate::support::{Lab, Ran, Run, tools};

/// A colour, a title, CSI as one character, an override and a mark of direction, a backspace, a delete, a tag, a line separator.
const EVIL: &str = "\u{1b}[31m\u{1b}]0;t\u{7}\u{9b}2J\u{202e}\u{61c}\u{8}\u{7f}\u{e0041}\u{2028}z";

/// In names of files, which have everything but `/` and NUL: line ends too, after which something pretends to be a line of ours.
const FORGED: &str = "forged line";

fn evil_name() -> Vec<u8> {
    [EVIL.as_bytes(), b"\xff\r\n", FORGED.as_bytes()].concat()
}

/// Nothing in `text` acts on a terminal, and no line of it is the guest's own.
fn assert_harmless(text: &str, of: &Ran) {
    let acts = |c: char| {
        (c.is_control() && c != '\n' && c != '\t')
            || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
            || matches!(c, '\u{e0000}'..='\u{e007f}')
    };
    let found = text.chars().find(|c| acts(*c));
    assert!(found.is_none(), "{found:?} in what `{}` says:\n{}", of.line.escape_debug(), text.escape_debug());
    let forged = text.lines().find(|line| line.starts_with(FORGED));
    assert!(forged.is_none(), "`{}` lets a guest write lines:\n{text}", of.line.escape_debug());
}

/// Runs it, whatever comes of it; what it says is harmless.
fn harmless(run: Run) -> Ran {
    let ran = run.ran();
    assert!(matches!(ran.status.code(), Some(0 | 2 | 4 | 5 | 6)), "{ran}");
    assert_harmless(&ran.stdout, &ran);
    assert_harmless(&ran.stderr, &ran);
    ran
}

struct Files(PathBuf);

impl Files {
    /// A file; `@` stands for the hostile text, in its path too.
    fn add(&self, path: &str, text: &str) -> &Self {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text.replace('@', EVIL)).expect("writing");
        self
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.join(path.replace('@', EVIL))
    }
}

fn linux(lab: &Lab) -> PathBuf {
    let files = Files(lab.folder("guest"));
    files
        .add("etc/os-release", "ID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME=\"Debian @\"\nNAME=\"@\"\nVARIANT=\"v@\"\n")
        .add("etc/hostname", "h@\n")
        .add("etc/passwd", "root:x:0:0:root:/root:/bin/bash\nu@:x:1000:1000:@:/home/u:/bin/@\n")
        .add("etc/shadow", "root:$6$a$b:1::::::\nu@:$6$x$y:1::::::\n")
        .add("etc/group", "root:x:0:\ng@:x:5:u@\nsudo:x:27:u@\n")
        .add("etc/sudoers", "u@ ALL=(ALL) NOPASSWD: /bin/@\n%sudo ALL=(ALL) ALL\nbad @ line\n")
        .add("etc/fstab", "/dev/sda / ext4 defaults 0 1\nLABEL=@ /m@ xfs defaults 0 0\n/dev/sdb@ none swap sw 0 0\n/dev/sdc1 /d ext4 x@ 0 0\n")
        .add("etc/crypttab", "c@ /dev/sd@ none luks\n")
        .add("etc/machine-info", "PRETTY_HOSTNAME=\"p@\"\n")
        .add("etc/timezone", "E@\n")
        .add("etc/locale.conf", "LANG=l@\n")
        .add("etc/vconsole.conf", "KEYMAP=k@\n")
        .add("etc/cloud/cloud.cfg", "datasource_list: [ NoCloud, None ]\n")
        .add("etc/default/grub", "GRUB_CMDLINE_LINUX=\"console=ttyS0 x@\"\n")
        .add("etc/network/interfaces", "auto e@\niface e@ inet static\n  address 1.2.3.4/24\n  gateway @\n")
        .add("etc/NetworkManager/system-connections/n.nmconnection", "[connection]\nid=n@\ntype=ethernet\ninterface-name=en@\n")
        .add("etc/systemd/network/@.network", "[Match]\nName=e\n")
        .add("etc/systemd/network/1.network", "[Match]\nName=e@\nDriver=vmxnet3\n[Network]\nAddress=1.1.1.2/24\n")
        .add("etc/udev/rules.d/70-persistent-net.rules", "SUBSYSTEM==\"net\", ATTR{address}==\"00:11:22:33:44:55\", NAME=\"e@\"\n")
        .add("etc/selinux/config", "SELINUX=@\nSELINUXTYPE=@\n")
        .add("boot/vmlinuz-6.1-@", "kernel")
        .add("boot/vmlinuz-6.1-1", "kernel")
        .add("boot/initrd.img-6.1-1", "junk")
        .add("lib/modules/6.1-@/modules.dep", "")
        .add("boot/grub/grub.cfg", "menuentry 'm@' --class x {\n linux /boot/vmlinuz-6.1-@ root=/dev/sda ro x@\n initrd /boot/initrd.img-6.1-1\n}\n")
        .add("boot/loader/entries/1.conf", "title t@\nlinux /vmlinuz-6.1-@\noptions root=/dev/sda @\n")
        .add("var/lib/dpkg/status", "Package: p@\nStatus: install ok installed\nVersion: 1@\nArchitecture: a@\nDescription: d@\n more @\n")
        .add("var/log/apt/history.log", "\nStart-Date: 2026-01-01  00:00:00\nCommandline: apt @\nInstall: p@:amd64 (1@)\nEnd-Date: 2026-01-01  00:00:01\n")
        .add("var/log/syslog", "Jan  1 00:00:00 h@ prog@[1]: m@\n")
        .add("var/lib/dhcp/dhclient.leases", "lease {\n interface \"e@\";\n fixed-address 1.2.3.4;\n option host-name \"@\";\n}\n")
        .add("usr/lib/systemd/systemd", "")
        .add("etc/systemd/system/default.target", "[Unit]\nWants=x@.service a.service\n")
        .add("etc/systemd/system/a.service", "[Unit]\nDescription=d@\nAfter=a@.service\nWants=w\\x1b.service\n[Service]\nExecStart=/bin/@\nBad@=1\n[Install]\nWantedBy=x@.target\n[Se@]\n")
        .add("etc/systemd/system/u@.service", "[Service]\nExecStart=/bin/@\n")
        .add("etc/systemd/system/a.timer", "[Timer]\nOnCalendar=bad@\nOnCalendar=daily\nUnit=u@.service\n")
        .add("etc/systemd/system/a.socket", "[Socket]\nListenStream=/run/@\nService=s@.service\n")
        .add("etc/systemd/system/d.mount", "[Mount]\nWhat=/dev/@\nWhere=/d\nType=x@\n")
        .add("bin/sh", "")
        .add("sbin/init", "")
        .add("home/u@/f", "content \u{1b}[31m");
    let name = evil_name();
    let name = OsStr::from_bytes(&name);
    let odd = files.0.join("home").join(name);
    fs::create_dir(&odd).expect("a folder");
    fs::write(odd.join(name), "x").expect("writing");
    symlink(name, files.0.join("home/link")).expect("a link");
    symlink(name, odd.join(EVIL)).expect("a link");
    let attributes = [OsString::from("-n"), format!("user.{EVIL}").into(), "-v".into(), EVIL.into(), odd.into()];
    tools::ok("setfattr", attributes);
    image(lab, &files.0, "guest.raw")
}

fn image(lab: &Lab, folder: &Path, name: &str) -> PathBuf {
    let image = lab.path(name);
    let label = ["-q", "-L", "l\u{1b}[31m\u{9b}1m", "-d"].map(OsString::from);
    let rest = [folder.as_os_str().to_owned(), image.clone().into(), "64M".into()];
    tools::ok("mkfs.ext4", label.into_iter().chain(rest));
    image
}

fn guest(command: &[&str], image: &Path) -> Run {
    command.iter().fold(Run::new(["guest"]), Run::arg).arg(image)
}

#[test]
fn no_text_of_a_guest_reaches_the_terminal_as_it_is() {
    let lab = Lab::new();
    let image = linux(&lab);
    let deep = harmless(Run::new(["inspect", "--deep"]).arg(&image));
    for expected in ["Debian \\u{1b}[31m", "host name    h\\u{1b}", "u\\u{1b}[31m", "last command", "\\u{9b}1m"] {
        assert!(deep.stdout.contains(expected), "{expected} in {deep}");
    }
    harmless(Run::new(["inspect", "-vv"]).arg(&image));
    // With colours, those are all that there is.
    let painted = Run::new(["inspect", "--color", "always"]).arg(&image).success();
    assert!(painted.stdout.contains("\u{1b}[1mguest\n\u{1b}[0m"), "{painted}");
    assert_harmless(
        &["\u{1b}[1m", "\u{1b}[0m"].iter().fold(painted.stdout.clone(), |text, code| text.replace(code, "")),
        &painted,
    );
    for level in ["conservative", "aggressive"] {
        harmless(Run::new(["plan", "-v", "--network-fixes", level]).arg(&image)).exits_with(0);
    }
    for command in [["info"], ["check"], ["map"], ["explain"]] {
        harmless(Run::new(command).arg(&image));
    }
    harmless(Run::new(["serve", "--dry-run", "--stdio"]).arg(&image));
    harmless(Run::new(["mount", "--guest", "--dry-run"]).arg(&image).arg(lab.folder("point")));
    assert!(harmless(guest(&["ls", "-lR"], &image)).stdout.contains("-> \\u{1b}[31m"));
    assert!(harmless(guest(&["tree"], &image)).stdout.contains("\\u{d}\\u{a}forged line/"));
    for command in ["find", "df"] {
        harmless(guest(&[command], &image)).exits_with(0);
    }
    harmless(guest(&["sha256"], &image).arg("/")).exits_with(0);
    let folder = format!("/home/u{EVIL}");
    let stat = harmless(guest(&["stat"], &image).args([&folder, "/home/link"])).exits_with(0);
    assert!(stat.stdout.contains("target") && stat.stdout.contains("\\u{202e}"), "{stat}");
    harmless(guest(&["ls"], &image).arg("/home")).exits_with(0);
    for missing in ["/none@", "/etc/hostname/@", "@"] {
        for command in ["ls", "cat", "stat", "tar"] {
            harmless(guest(&[command], &image).arg(missing.replace('@', EVIL))).exits_with(4);
        }
    }
    // A path of a guest that is no text cannot be named, and is refused in words.
    harmless(guest(&["ls"], &image).arg(OsStr::from_bytes(&evil_name()))).exits_with(2);
    harmless(guest(&["hive"], &image).arg("/etc/hostname")).exits_with(4);
    harmless(guest(&["cp", "--dry-run"], &image).arg(&folder).arg(lab.folder("copies"))).exits_with(0);
    harmless(guest(&["cp"], &image).arg("/home").arg(lab.path("home"))).exits_with(0);
    units(&image);
    for args in [&[][..], &["-o", "cat"], &["-r"], &["-n", "1"], &["-t", "@"]] {
        harmless(args.iter().fold(guest(&["log"], &image), |run, arg| run.arg(arg.replace('@', EVIL)))).exits_with(0);
    }
    let empty = lab.folder("empty");
    let other = self::image(&lab, &empty, "other.raw");
    harmless(guest(&["diff"], &image).arg(&other).arg("/")).exits_with(6);
}

fn units(image: &Path) {
    assert!(harmless(guest(&["units"], image)).exits_with(0).stdout.contains("a.service"));
    for args in [
        &["--cat", "a*"][..],
        &["--dependencies"],
        &["--dependencies", "*"],
        &["--dependencies", "--reverse", "*"],
        &["--timers"],
        &["--sockets"],
        &["--mounts"],
        &["--check"],
        &["--cat", "@"],
        &["--calendar", "@"],
        &["--timespan", "@"],
        &["--state", "@"],
        &["@"],
    ] {
        harmless(args.iter().fold(guest(&["units"], image), |run, arg| run.arg(arg.replace('@', EVIL))));
    }
}

#[test]
fn what_is_for_programs_stays_well_formed() {
    let lab = Lab::new();
    let image = linux(&lab);
    for command in [&["inspect"][..], &["inspect", "--deep"], &["plan"], &["info"], &["check"], &["map"]] {
        harmless(Run::new(command).arg("--json").arg(&image)).json();
    }
    let inspected = harmless(Run::new(["inspect", "--json"]).arg(&image)).json();
    assert_eq!(inspected["guest"]["facts"]["hostname"], format!("h{EVIL}"), "JSON says what is there");
    for command in [&["ls", "/", "-R"][..], &["tree"], &["find"], &["df"], &["sha256", "/"], &["stat", "/home/link"]] {
        let (name, rest) = command.split_first().expect("a command");
        harmless(rest.iter().fold(guest(&[name, "--json"], &image), Run::arg)).json();
    }
    let found = harmless(guest(&["find", "--json"], &image).arg("/home")).json();
    let entries = found["entries"].as_array().expect("entries");
    assert!(entries.iter().any(|entry| entry["path"] == format!("/home/u{EVIL}/f")), "{found}");
    for args in [
        &[][..],
        &["--dependencies", "*"],
        &["--cat", "a*"],
        &["--timers"],
        &["--sockets"],
        &["--mounts"],
        &["--check"],
    ] {
        harmless(args.iter().fold(guest(&["units", "--json"], &image), Run::arg)).json();
    }
    let log = harmless(guest(&["log", "--json"], &image)).json();
    assert!(log["MESSAGE"].as_str().is_some_and(|message| message.ends_with(&format!("m{EVIL}"))), "{log}");
    harmless(guest(&["cat", "--json"], &image).arg("/none")).exits_with(4).json();
    let xml = harmless(Run::new(["inspect", "--xml"]).arg(&image)).exits_with(0).stdout;
    let document = roxmltree::Document::parse(&xml).expect("XML");
    let name = document.descendants().find(|node| node.has_tag_name("hostname")).and_then(|node| node.text());
    // XML has no way to write some characters.
    let expected: String =
        EVIL.chars().map(|c| if matches!(c, '\u{1b}' | '\u{7}' | '\u{8}') { '\u{fffd}' } else { c }).collect();
    assert_eq!(name, Some(format!("h{expected}").as_str()));
    let out = lab.path("out");
    harmless(Run::new(["migrate", "-v", "--json"]).arg(&image).arg("-o").arg(&out)).json();
    let domain = fs::read_to_string(crate::support::only(&out, "xml")).expect("the domain");
    roxmltree::Document::parse(&domain).expect("XML");
    serde_json::from_str::<serde_json::Value>(
        &fs::read_to_string(crate::support::only(&out, "json")).expect("the report"),
    )
    .expect("JSON");
}

#[test]
fn raw_bytes_come_from_those_commands_that_are_for_them() {
    let lab = Lab::new();
    let image = linux(&lab);
    let file = format!("/home/u{EVIL}/f");
    assert_eq!(guest(&["cat"], &image).arg(&file).success().stdout, "content \u{1b}[31m");
    let found = guest(&["find", "-0"], &image).arg("/home").success().stdout;
    assert!(found.split('\0').any(|path| path == file), "{found:?}");
    let to = lab.path("copy");
    guest(&["cp"], &image).arg("/home").arg(&to).success();
    assert!(to.join(format!("u{EVIL}/f")).exists() && to.join(OsStr::from_bytes(&evil_name())).is_dir());
    // On a terminal, what is for programs is shown as text is.
    let program = env!("CARGO_BIN_EXE_hyper2kvm");
    let image = image.display();
    for command in [format!("guest ls -lR {image} /"), format!("inspect --deep {image}"), format!("guest log {image}")]
    {
        let shown = Command::new("script")
            .args(["-qec", &format!("{program} {command} --color never </dev/null"), "/dev/null"])
            .output()
            .expect("script");
        let shown = String::from_utf8_lossy(&shown.stdout).replace("\r\n", "\n");
        assert!(
            shown.contains("\\u{1b}[31m") && !shown.contains(['\u{1b}', '\u{9b}', '\u{202e}']),
            "{command}: {shown:?}"
        );
    }
}

/// A key's values: name and text.
type Texts<'a> = &'a [(&'a str, &'a str)];

fn hive(keys: &[(&str, Texts<'_>)]) -> Vec<u8> {
    let mut root = KeyTreeNode::new("ROOT");
    for (path, values) in keys {
        let key = root.get_or_create_path(&path.replace('@', EVIL));
        for (name, text) in *values {
            let (data_type, data) = match text.strip_prefix("dword:") {
                Some(number) => (4, number.parse::<u32>().expect("a number").to_le_bytes().to_vec()),
                None => (1, text.replace('@', EVIL).encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()),
            };
            let name = name.replace('@', EVIL);
            key.values.push(KeyTreeValue { name, data_type: DataType::from(data_type), data });
        }
    }
    HiveBuilder::from_tree(root).expect("a hive").to_bytes().expect("a hive")
}

/// A `SAM` with one user.
fn sam() -> Vec<u8> {
    let mut root = KeyTreeNode::new("ROOT");
    let key = root.get_or_create_path("SAM\\Domains\\Account\\Users\\000003E9");
    let name: Vec<u8> = format!("u{EVIL}").encode_utf16().flat_map(u16::to_le_bytes).collect();
    let mut texts = vec![0; 204];
    // Name, name for people and comment are the same bytes.
    for place in [12, 24, 36] {
        texts[place + 4..place + 8].copy_from_slice(&u32::try_from(name.len()).expect("a length").to_le_bytes());
    }
    texts.extend(name);
    for (name, data) in [("F", vec![0; 80]), ("V", texts)] {
        key.values.push(KeyTreeValue { name: name.to_owned(), data_type: DataType::from(3), data });
    }
    HiveBuilder::from_tree(root).expect("a hive").to_bytes().expect("a hive")
}

fn windows(lab: &Lab) -> PathBuf {
    let (image, point) = (lab.path("windows.raw"), lab.folder("mounted"));
    fs::File::create(&image).and_then(|file| file.set_len(24 << 20)).expect("an image");
    tools::ok("mkntfs", ["-q", "-F", "-f"].map(Path::new).into_iter().chain([image.as_path()]));
    tools::ok("ntfs-3g", [&image, &point]);
    let config = point.join("Windows/System32/config");
    fs::create_dir_all(&config).expect("a folder");
    let set = |path: &str| format!("ControlSet001\\{path}");
    let [parameters, service, card, variables, rules] = [
        "Services\\Tcpip\\Parameters",
        "Services\\VMTools@",
        "Services\\Tcpip\\Parameters\\Interfaces\\{a@}",
        "Control\\Session Manager\\Environment",
        "Services\\SharedAccess\\Parameters\\FirewallPolicy\\FirewallRules",
    ]
    .map(set);
    let system = hive(&[
        ("Select", &[("Current", "dword:1")]),
        (&parameters, &[("Hostname", "W@"), ("Domain", "d@")]),
        (&service, &[("Type", "dword:16"), ("ImagePath", "@"), ("DisplayName", "@")]),
        (&card, &[("IPAddress", "1.2.3.4@"), ("NameServer", "@")]),
        (&variables, &[("a@", "@")]),
        (&rules, &[("r@", "v2|Action=Allow|Name=@|")]),
    ]);
    let version = "Microsoft\\Windows NT\\CurrentVersion";
    let software = hive(&[
        (version, &[("ProductName", "Windows 10 @"), ("CurrentVersion", "6.3"), ("RegisteredOwner", "o@")]),
        (&format!("{version}\\ProfileList\\S-1-5-21-1"), &[("ProfileImagePath", "C:\\Users\\u")]),
        (&format!("{version}\\Schedule\\TaskCache\\Tree\\t@"), &[("Id", "{0}")]),
        (&format!("{version}\\Schedule\\TaskCache\\Tasks\\{{0}}"), &[("Path", "\\t@"), ("Author", "@")]),
        (
            "Microsoft\\Windows\\CurrentVersion\\Uninstall\\@",
            &[("DisplayName", "Sophos Endpoint @"), ("Publisher", "@")],
        ),
        ("Microsoft\\Windows\\CurrentVersion\\Group Policy\\History\\{0}\\0", &[("DisplayName", "p@")]),
        (
            "Microsoft\\Windows\\CurrentVersion\\Component Based Servicing\\Packages\\Package_for_KB1~@~~~@",
            &[("CurrentState", "dword:112"), ("InstallClient", "@")],
        ),
        ("@\\key", &[("@", "@")]),
    ]);
    let user = hive(&[("Software\\Microsoft\\Windows\\CurrentVersion\\Uninstall\\@", &[("DisplayName", "hers @")])]);
    fs::create_dir_all(point.join("Users/u")).expect("a folder");
    fs::write(point.join("Users/u/NTUSER.DAT"), user).expect("writing");
    for (name, bytes) in [("SYSTEM", system), ("SOFTWARE", software), ("SAM", sam())] {
        fs::write(config.join(name), bytes).expect("writing");
    }
    tools::ok("umount", [&point]);
    image
}

#[test]
fn nor_does_the_text_of_a_windows() {
    let lab = Lab::new();
    let image = windows(&lab);
    let told = harmless(Run::new(["inspect"]).arg(&image)).exits_with(0).stdout;
    assert!(told.contains("Windows 10 \\u{1b}[31m") && told.contains("W\\u{1b}[31m"), "{told}");
    let deep = harmless(Run::new(["inspect", "--deep"]).arg(&image)).exits_with(0).stdout;
    for expected in [" (1001)", " \\t\\u{1b}[31m", "KB1", "Users\\u: hers \\u{1b}"] {
        assert!(deep.contains(expected), "{expected} in {deep}");
    }
    harmless(Run::new(["inspect", "--deep", "--json"]).arg(&image)).exits_with(0).json();
    let xml = harmless(Run::new(["inspect", "--xml"]).arg(&image)).exits_with(0).stdout;
    roxmltree::Document::parse(&xml).expect("XML");
    harmless(Run::new(["plan"]).arg(&image));
    for args in
        [&[][..], &["SOFTWARE"], &["SOFTWARE", "@"], &["SOFTWARE", "@\\key"], &["SOFTWARE", "@\\key", "--value", "@"]]
    {
        let run = || args.iter().fold(guest(&["hive"], &image), |run, arg| run.arg(arg.replace('@', EVIL)));
        harmless(run()).exits_with(0);
        harmless(run().arg("--json")).exits_with(0).json();
    }
    for args in [&["@"][..], &["SOFTWARE", "none@"], &["SOFTWARE", "@", "--value", "none@"]] {
        harmless(args.iter().fold(guest(&["hive"], &image), |run, arg| run.arg(arg.replace('@', EVIL)))).exits_with(4);
    }
}
