//! `guest units`, compared with `systemctl --root`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Lab, Mounted, NOBODY, Run, Variant, tools};

/// Name and state of every unit, and what the preset says.
fn parsed(text: &str) -> BTreeMap<String, (String, String)> {
    let rows = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row.len() == 3 && row[0].contains('.'))
        .map(|row| (row[0].to_owned(), (row[1].to_owned(), row[2].to_owned())))
        .collect()
}

fn assert_same(image: &Path, folder: &Path) -> usize {
    let ours = Run::new(["guest".as_ref(), "units".as_ref(), image.as_os_str()]).success().stdout;
    let theirs = Command::new("systemctl")
        .arg(format!("--root={}", folder.display()))
        .args(["list-unit-files", "--no-pager", "--no-legend"])
        .env("LC_ALL", "C")
        .output()
        .expect("systemctl");
    let (ours, theirs) = (parsed(&ours), parsed(&String::from_utf8_lossy(&theirs.stdout)));
    for (name, theirs) in &theirs {
        assert_eq!(ours.get(name), Some(theirs), "{name}");
    }
    assert_eq!(ours.len(), theirs.len());
    ours.len()
}

#[test]
fn a_real_guests_units() {
    let lab = Lab::new();
    let mounted = Mounted::read_only(&Variant::Plain.raw(), &lab, "mounted");
    assert!(assert_same(&Variant::Plain.raw(), mounted.path()) > 150);
    let target = tools::ok("systemctl", [&format!("--root={}", mounted.path().display()), "get-default"]);
    mounted.close();
    let json = Run::new(["guest".as_ref(), "units".as_ref(), Variant::Plain.raw().as_os_str()]).arg("--json").success();
    assert_eq!(json.json()["default_target"], target.trim());
}

const SCRIPT: &str = r#"
cd "$1"; mkdir -p etc/systemd/system etc/systemd/system-preset bin sbin opt dev usr/lib/systemd/system usr/lib/systemd/system-preset run/systemd/system
ln -s usr/lib lib; echo ID=debian >etc/os-release
c=etc/systemd/system v=usr/lib/systemd/system; s=/lib/systemd/system
unit() { printf '[Unit]\nDescription=x\n[Service]\nExecStart=/bin/true\n%b' "${2-}" >"$1"; }
mkdir -p $c/multi-user.target.wants $c/x.service.requires $v/multi-user.target.wants $c/t20.service.d run/systemd/system/multi-user.target.wants
w='[Install]\nWantedBy=multi-user.target\n'
unit $v/t1.service "$w"; ln -s $s/t1.service $c/multi-user.target.wants
unit $v/t2.service '[Install]\nAlias=t2alias.service\n'; ln -s ../../../lib/systemd/system/t2.service $c/t2alias.service
unit $v/t3.service '[Install]\nAlso=t1.service\n'
unit $v/t4@.service "${w}DefaultInstance=a\n"; ln -s $s/t4@.service $c/multi-user.target.wants/t4@a.service
unit $v/t5@.service "$w"; ln -s $s/t5@.service $c/multi-user.target.wants/t5@q.service
unit $v/t6@.service; ln -s $s/t6@.service $c/t6@inst.service; ln -s t6@.service $v/t6@two.service
unit $v/t7.service; ln -s /dev/null $c/t7.service; : >$c/t8.service; ln -s t7.service $c/t9.service
unit opt/t10.service "$w"; ln -s /opt/t10.service $c/t10.service
unit opt/t11.service "$w"; ln -s /opt/t11.service $c/t11.service; ln -s /opt/t11.service $c/multi-user.target.wants
ln -s /nowhere/t12.service /nowhere/t1.service $c 2>/dev/null; ln -s /nowhere/t1.service $c/t13.service; ln -s t1.socket $c/t14.service; rm $c/t1.service
unit $v/t15.service "$w"; ln -s ../t15.service $v/multi-user.target.wants; ln -s $s/t15.service run/systemd/system/multi-user.target.wants
unit $v/t16.service; ln -s ../t16.service $v/multi-user.target.wants
unit $v/t17.service; ln -s $s/t17.service $c/t17other.service
unit $c/t18.service '[Install]\nRequiredBy=x.service\n'; ln -s /$c/t18.service $c/x.service.requires
unit $v/t19.service "$w"; ln -s $s/t19.service run/systemd/system; unit opt/t29.service; ln -s /opt/t29.service run/systemd/system
unit $v/t20.service; printf '%b' "$w" >$c/t20.service.d/a.conf
ln -s loop2.service $c/loop1.service; ln -s loop1.service $c/loop2.service
ln -s t1.service $v/t21.service; ln -s t21.service $c/t22.service; ln -s /dev/null run/systemd/system/t23.service; ln -s ../../../../dev/null $c/t24.service
unit $v/t25.service "$w"; unit $c/t25.service; unit $v/t26@x.service
unit $v/t27.service; ln -s $s/t27.service $c/multi-user.target.wants
unit $v/t28.service "[Install]\nAlias=t28b.service\n"; ln -s $s/t28.service $c/t28b.service
unit opt/t36@.service "$w"; ln -s /opt/t36@.service $c/t36@a.service; ln -s /opt/t36@.service $c/t37@.service
ln -s /opt/t40.service $c/t38.service; unit opt/t39.service '[Install]\nAlias=t39b.service\n'; ln -s /opt/t39.service $c/t39b.service
mkdir $v/dir.service; unit $v/bad.name.conf; unit "$v/no kind.service"; mkfifo $v/fifo.service
unit $v/multi-user.target; unit $v/z.timer "[Install]\nWantedBy=timers.target\n"; unit $v/Z.socket; unit $v/-.mount
printf 'disable t1.service\nenable t2*\nenable t4@.service a b\ndisable t*\n' >etc/systemd/system-preset/10-x.preset
printf 'enable *\n' >usr/lib/systemd/system-preset/10-x.preset; printf 'disable z*\n' >usr/lib/systemd/system-preset/90-y.preset
"#;

#[test]
fn every_state_that_links_can_tell() {
    let lab = Lab::new();
    let folder = lab.folder("guest");
    tools::ok("bash", ["-euc".as_ref(), SCRIPT.as_ref(), "bash".as_ref(), folder.as_os_str()]);
    let image = lab.path("guest.raw");
    tools::ok("mkfs.ext4", ["-q".as_ref(), "-d".as_ref(), folder.as_os_str(), image.as_os_str(), "16M".as_ref()]);
    assert!(assert_same(&image, &folder) > 40);
    let run = |args: &[&str]| {
        let run = Run::new(["guest".as_ref(), "units".as_ref(), image.as_os_str()]);
        args.iter().fold(run, |run, arg| run.arg(arg))
    };
    let some = run(&["t1*.service", "--state", "masked,enabled"]).success().stdout;
    assert_eq!(some.lines().count(), 6, "{some}");
    run(&["[a"]).fails_with(2).stderr_contains("units.pattern");
}

/// A tree as a disk, in the laboratory's file of that name.
fn image_of(lab: &Lab, folder: &Path) -> PathBuf {
    let image = lab.path("guest.raw");
    tools::ok("mkfs.ext4", ["-q".as_ref(), "-d".as_ref(), folder.as_os_str(), image.as_os_str(), "32M".as_ref()]);
    image
}

/// `KEY: VALUE` of a unit that systemd loaded, with where it comes from.
type Dump = BTreeMap<String, Vec<(String, String, String)>>;

/// What systemd itself makes of the units of a tree, run as in a test, by nobody, up to a target.
fn dump(folder: &Path, target: &str) -> Dump {
    let path = format!("{0}/etc/systemd/system:{0}/usr/lib/systemd/system", folder.display());
    let run = Command::new("setpriv")
        .args([&format!("--reuid={NOBODY}"), &format!("--regid={NOBODY}"), "--clear-groups", "/lib/systemd/systemd"])
        .args(["--test", "--system", "--no-pager", &format!("--unit={target}")])
        .env("SYSTEMD_UNIT_PATH", path)
        .env("LC_ALL", "C")
        .output()
        .expect("systemd");
    let text = String::from_utf8_lossy(&run.stdout).into_owned();
    let mut dump = Dump::new();
    let mut unit = String::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("\t-> Unit ") {
            name.trim_end_matches(':').clone_into(&mut unit);
        } else if let Some((key, value)) = line.strip_prefix("\t\t").and_then(|line| line.split_once(": ")) {
            let (value, origin) = value.rsplit_once(" (").unwrap_or((value, ""));
            dump.entry(unit.clone()).or_default().push((key.to_owned(), value.to_owned(), origin.to_owned()));
        }
    }
    dump
}

const KINDS: [&str; 11] = [
    "Wants",
    "Requires",
    "Requisite",
    "BindsTo",
    "PartOf",
    "Upholds",
    "Conflicts",
    "Before",
    "After",
    "OnFailure",
    "OnSuccess",
];

/// What is said to be left out: what follows from mounts, slices, devices, and settings of how programs run.
fn is_left_out(name: &str) -> bool {
    [".slice", ".mount", ".device", ".scope"].iter().any(|suffix| name.ends_with(suffix))
        || [
            "systemd-journald.socket",
            "dbus.socket",
            "systemd-tmpfiles-setup.service",
            "network.target",
            "local-fs.target",
        ]
        .contains(&name)
        || name.starts_with("blockdev@")
}

/// Ours and systemd's agree on every unit that systemd loaded; how many there were.
fn assert_same_dependencies(image: &Path, folder: &Path, target: &str) -> usize {
    let json = Run::new(["guest".as_ref(), "units".as_ref(), image.as_os_str()])
        .args(["--dependencies", "--json", "*"])
        .success()
        .json();
    let theirs = dump(folder, target);
    let mut count = 0;
    for unit in json["units"].as_array().expect("units") {
        let name = unit["name"].as_str().expect("a name");
        let Some(dump) = theirs.get(name) else { continue };
        if !dump.iter().any(|(key, _, _)| key == "Fragment Path")
            || name.ends_with(".mount")
            || name.ends_with(".slice")
        {
            continue;
        }
        count += 1;
        let files = dump.iter().filter(|(key, _, _)| key == "Fragment Path" || key == "DropIn Path");
        let said: String = files.map(|(_, path, _)| std::fs::read_to_string(path).expect("a unit's file")).collect();
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let all = unit["dependencies"].as_array().expect("dependencies");
        let ours: BTreeSet<(String, String)> = all.iter().map(|one| (text(&one["kind"]), text(&one["unit"]))).collect();
        let is_kind = |key: &str| KINDS.contains(&key);
        let known = dump.iter().filter(|(key, _, _)| is_kind(key));
        let any: BTreeSet<(String, String)> =
            known.clone().map(|(key, value, _)| (key.clone(), value.clone())).collect();
        for one in ours.iter().filter(|(kind, other)| is_kind(kind) && other != name) {
            // Systemd tells the other unit by its first name.
            assert!(any.contains(one) || !theirs.contains_key(&one.1), "{name}: {one:?} is not so: {any:?}");
        }
        for (key, value, origin) in known {
            // What follows from settings has that origin too, but its name stands nowhere.
            let is_own =
                origin.contains("origin-file") && said.contains(value.as_str()) || origin.contains("origin-default");
            let one = (key.clone(), value.clone());
            assert!(!is_own || is_left_out(value) || ours.contains(&one), "{name}: {one:?} ({origin} is missing");
        }
    }
    count
}

#[test]
fn a_real_guests_dependencies() {
    let lab = Lab::new();
    let mounted = Mounted::read_only(&Variant::Plain.raw(), &lab, "mounted");
    let folder = lab.folder("units");
    let script = r#"cd "$2"; mkdir -p etc/systemd usr/lib/systemd; cp -a "$1/etc/systemd/system" etc/systemd; cp -a "$1/usr/lib/systemd/system" usr/lib/systemd
        find . -type l | while read -r link; do
            target=$(readlink "$link")
            case $target in
            /lib/systemd/system/*) ln -sfn "$2/usr$target" "$link" ;;
            /usr/lib/systemd/system/*) ln -sfn "$2$target" "$link" ;;
            esac
        done; chmod -R a+rX "$2""#;
    let args = ["-euc".as_ref(), script.as_ref(), "bash".as_ref(), mounted.path().as_os_str(), folder.as_os_str()];
    tools::ok("bash", args);
    mounted.close();
    assert!(assert_same_dependencies(&Variant::Plain.raw(), &folder, "multi-user.target") > 60);
}

const DEPENDING: &str = r#"
cd "$1"; mkdir -p etc/systemd/system bin sbin usr/lib/systemd/system; ln -s usr/lib lib; echo ID=debian >etc/os-release; touch bin/true; chmod +x bin/true
v=usr/lib/systemd/system c=etc/systemd/system
mkdir -p $v/service.d $v/b-.service.d $v/q@.service.d $v/q@1.service.d $v/x.target.wants $c/x.target.wants $c/x.target.requires $c/b-c.service.d $v/b-c.service.d $v/alias.service.wants
unit() { printf '%b
[Service]
ExecStart=/bin/true
' "$2" >"$1"; }
printf '[Unit]
Description=x
Wants=a.service n.service other.target
Requires=b-c.service
' >$v/x.target
unit $v/a.service '[Unit]
Wants=b-c.service q@1.service sp.service
After=%N-%p.service q@%n.service
Conflicts=z.target
Before=x.target'
unit $v/b-c.service '[Unit]
OnFailure=f.service
OnSuccess=s.service
Requisite=a.service'
unit $v/n.service '[Unit]
DefaultDependencies=no
BindsTo=a.service \
# between
  b-c.service'
unit $v/sp.service ''; unit $v/f.service ''; unit $v/s.service ''; unit $v/q@.service '[Unit]
PartOf=%i.service
After=%j.target'
printf '[Unit]
PartOf=a.service
' >$v/b-.service.d/z.conf; printf '[Unit]
Upholds=sp.service
' >$v/service.d/10.conf
printf '[Unit]
Wants=hidden.service
' >$v/b-c.service.d/1.conf; printf '[Unit]
Wants=seen.service
' >$c/b-c.service.d/1.conf
printf '[Unit]
Wants=template.service
' >$v/q@.service.d/1.conf; printf '[Unit]
Wants=instance.service
' >$v/q@1.service.d/1.conf
for unit in seen template instance hidden real w t off; do unit $v/$unit.service ''; done
for target in sysinit basic shutdown sockets timers paths umount; do printf '[Unit]\nDefaultDependencies=no\n' >$v/$target.target; done
ln -s real.service $v/alias.service; ln -s ../w.service $v/alias.service.wants/w.service
ln -s ../real.service $v/x.target.wants; ln -s ../off.service $v/x.target.wants; ln -s /dev/null $c/x.target.wants/off.service
ln -s ../../../../$v/t.timer $c/x.target.requires/t.timer; printf '[Unit]
Description=x
[Timer]
OnCalendar=daily
' >$v/t.timer
ln -s ../s.socket $v/x.target.wants; printf '[Socket]
ListenStream=/run/test-s
Service=sp.service
' >$v/s.socket
ln -s ../p.path $v/x.target.wants; printf '[Path]
PathExists=/p
Unit=w.service
' >$v/p.path
ln -s ../boot.timer $v/x.target.wants; printf '[Timer]
OnBootSec=5
Unit=w.service
' >$v/boot.timer
printf '[Unit]
Description=x
' >$v/other.target; printf '[Unit]
DefaultDependencies=no
' >$v/z.target
chmod -R a+rX .
"#;

#[test]
fn every_kind_of_dependency() {
    let lab = Lab::new();
    let folder = lab.folder("guest");
    tools::ok("bash", ["-euc".as_ref(), DEPENDING.as_ref(), "bash".as_ref(), folder.as_os_str()]);
    let image = image_of(&lab, &folder);
    let count = assert_same_dependencies(&image, &folder, "x.target");
    assert!(count >= 14, "{count}");
    let run = |args: &[&str]| {
        let run = Run::new(["guest".as_ref(), "units".as_ref(), image.as_os_str()]);
        args.iter().fold(run, |run, arg| run.arg(arg)).success().stdout
    };
    // Drop-ins in the order in which systemd has them.
    let theirs = dump(&folder, "x.target");
    for name in ["a.service", "b-c.service", "q@1.service"] {
        let paths = theirs[name].iter().filter(|(key, _, _)| key == "Fragment Path" || key == "DropIn Path");
        let theirs: Vec<&str> =
            paths.map(|(_, path, _)| path.trim_start_matches(folder.to_str().expect("text"))).collect();
        let ours = run(&["--cat", name]);
        let ours: Vec<&str> = ours.lines().filter_map(|line| line.strip_prefix("# /")).collect();
        let theirs: Vec<&str> = theirs.iter().map(|path| path.trim_start_matches('/')).collect();
        let plain = |path: &&str| path.trim_start_matches("usr/").to_owned();
        assert_eq!(ours.iter().map(plain).collect::<Vec<_>>(), theirs.iter().map(plain).collect::<Vec<_>>(), "{name}");
    }
    let by = run(&["--dependencies", "--reverse", "sp"]);
    assert!(by.contains("WantedBy") && by.contains("TriggeredBy  s.socket"), "{by}");
    assert!(run(&["--sockets"]).contains("/run/test-s  Stream  s.socket  sp.service"), "{}", run(&["--sockets"]));
    let timers = run(&["--timers", "--base-time", "2026-11-21 12:00"]);
    assert!(timers.contains("Sun 2026-11-22 00:00:00 UTC  t.timer     t.service"), "{timers}");
}

const WRONG: &str = r#"
cd "$1"; mkdir -p etc bin sbin usr/lib/systemd/system; ln -s usr/lib lib; echo ID=debian >etc/os-release; cp /bin/true bin; cd usr/lib/systemd/system
w() { printf "$2" >"$1"; }
w k1.service '[Unit]
Foo=1
X-Foo=1
DefaultDependencies=maybe
After=a.target
[Service]
ExecStart=/bin/true
Restart=sometimes
UMask=99
TimeoutSec=abc
RestartSec=1hh
KillMode=soft
RemainAfterExit=ja
ListenStream=1
[Socket]
ListenStream=1
[X-Mine]
a=b
[Install]
WantedBy=a.target
Bar=2
'
w k2.service 'Lost=1
[Service
ExecStart=/bin/true
'
w k3.service '[Service]
nonsense
=x
ExecStart=/bin/true
ExecStartPre=-/bin/gone
'
w k4.service '[Service]
Type=simple
'
w k5.service '[Service]
ExecStart=/bin/true
ExecStart=/bin/true
'
w k6.service '[Service]
Type=dbus
ExecStart=/bin/true
'
w k7.timer '[Timer]
OnCalendar=never ever
OnBootSec=5
AccuracySec=x
Persistent=2
'
w k7.service '[Service]
ExecStart=/bin/true
'
w k8.socket '[Socket]
ListenStream=
SocketMode=9
Accept=no
'
w k8.service '[Service]
ExecStart=/bin/true
'
w k9.path '[Path]
Unit=k8.service
'
w k10.mount '[Mount]
Where=/k10
'
w k11.service '[Service]
ExecStop=/bin/true
'
w k12.service '[Service]
Type=oneshot
ExecStop=/bin/true
'
w k13.service '[Service]
ExecStart=/bin/true
ExecStart=
Type=exec
'
w k14.service '[Service]
ExecStart=/bin/true
Type=other
NotifyAccess=some
'
w k15.target '[Target]
A=b
[Unit]
AllowIsolate=x
'
w k16.timer '[Timer]
Unit=k8.service
'
w k17.service '[Service]
Type=oneshot
ExecStop=/bin/true
RemainAfterExit=yes
'
w k18.service '[Unit]
SuccessAction=none
[Service]
Type=oneshot
ExecStart=/bin/true \
  x
 # c
Bad=\
1
'
w k19.slice '[Slice]
CPUAccounting=5
MemoryMax=1G
No=1
'
w k20.service '[Service]
ExecStart=/bin/true
TimeoutStartSec=1min 5x
WatchdogSec=5
RuntimeMaxSec=infinity
Environment=A=B
PrivateDevices=si
'
"#;

#[test]
fn what_systemd_would_not_take() {
    let lab = Lab::new();
    let folder = lab.folder("guest");
    tools::ok("bash", ["-euc".as_ref(), WRONG.as_ref(), "bash".as_ref(), folder.as_os_str()]);
    let image = image_of(&lab, &folder);
    let names: Vec<String> = std::fs::read_dir(folder.join("usr/lib/systemd/system"))
        .expect("the folder")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("text"))
        .collect();
    let run = Command::new("systemd-analyze")
        .arg(format!("--root={}", folder.display()))
        .args(["--man=no", "--recursive-errors=no", "verify"])
        .args(&names)
        .env("LC_ALL", "C")
        .output()
        .expect("systemd-analyze");
    // `FILE:LINE` of what is wrong in a line, and the name of a unit that is refused as a whole.
    let place = |line: &str| -> Option<String> {
        let (place, _) = line.split_once(": ")?;
        let place = place.rsplit('/').next()?;
        place.starts_with('k').then(|| place.to_owned())
    };
    let told = String::from_utf8_lossy(&run.stderr).into_owned();
    let theirs: BTreeSet<String> = told.lines().filter_map(place).collect();
    let ours = Run::new(["guest".as_ref(), "units".as_ref(), image.as_os_str()]).arg("--check").ran().exits_with(4);
    let ours: BTreeSet<String> = ours.stdout.lines().filter_map(place).collect();
    assert_eq!(ours, theirs, "{told}");
    assert!(ours.len() > 35, "{}", ours.len());
    let checked = Run::new(["guest".as_ref(), "units".as_ref(), image.as_os_str()]).args(["--check", "k17"]).success();
    assert_eq!(checked.stdout, "1 units looked at, 0 problems.\n");
}

#[test]
fn a_real_guests_units_are_fine() {
    let json = Run::new(["guest".as_ref(), "units".as_ref(), Variant::Plain.raw().as_os_str()])
        .args(["--check", "--json"])
        .ran()
        .json();
    assert!(json["units"].as_u64() > Some(200), "{json}");
    assert_eq!(json["problems"], serde_json::json!([]));
}

#[test]
fn every_key_that_systemd_knows() {
    // A unit of each kind with every key: none is unknown.
    let items = tools::ok("/lib/systemd/systemd", ["--dump-configuration-items"]);
    let (mut sections, mut section): (BTreeMap<String, String>, String) = (BTreeMap::new(), String::new());
    for line in items.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[') {
            name.trim_end_matches(']').clone_into(&mut section);
        } else if let Some((key, _)) = line.split_once('=') {
            sections.entry(section.clone()).or_default().push_str(&format!("{key}=\n"));
        }
    }
    let lab = Lab::new();
    let folder = lab.folder("guest");
    for path in ["etc", "bin", "sbin", "usr/lib/systemd/system"] {
        std::fs::create_dir_all(folder.join(path)).expect("a folder");
    }
    std::fs::write(folder.join("etc/os-release"), "ID=debian\n").expect("writing");
    for (section, keys) in &sections {
        let (name, own) = match section.as_str() {
            "Unit" | "Install" => ("a.target".to_owned(), String::new()),
            other => (format!("a.{}", other.to_lowercase()), format!("[{other}]\n{keys}")),
        };
        let text = format!("[Unit]\n{}[Install]\n{}{own}", sections["Unit"], sections["Install"]);
        std::fs::write(folder.join("usr/lib/systemd/system").join(name), text).expect("writing");
    }
    let image = image_of(&lab, &folder);
    let run =
        Run::new(["guest".as_ref(), "units".as_ref(), image.as_os_str()]).args(["--check", "--json"]).ran().json();
    let problems = run["problems"].as_array().expect("problems");
    let unknown: Vec<_> =
        problems.iter().filter(|one| one["what"].as_str().is_some_and(|what| what.contains("unknown"))).collect();
    assert!(unknown.is_empty() && sections.len() >= 11, "{unknown:?}");
}

#[test]
fn units_of_users() {
    let lab = Lab::new();
    let mounted = Mounted::read_only(&Variant::Plain.raw(), &lab, "mounted");
    let theirs = Command::new("systemctl")
        .arg(format!("--root={}", mounted.path().display()))
        .args(["--global", "list-unit-files", "--no-pager", "--no-legend"])
        .env("LC_ALL", "C")
        .output()
        .expect("systemctl");
    mounted.close();
    let ours = Run::new(["guest".as_ref(), "units".as_ref(), Variant::Plain.raw().as_os_str()]).arg("--user").success();
    let (ours, theirs) = (parsed(&ours.stdout), parsed(&String::from_utf8_lossy(&theirs.stdout)));
    assert_eq!(ours, theirs);
    assert!(ours.len() > 10, "{}", ours.len());
}
