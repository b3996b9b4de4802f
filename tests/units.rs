//! `guest units`, compared with `systemctl --root`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use crate::support::{Lab, Mounted, Run, Variant, tools};

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
