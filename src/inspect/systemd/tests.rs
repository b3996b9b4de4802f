//! Units of trees made here. `tests/units.rs` compares with `systemctl --root`.
#![allow(clippy::arithmetic_side_effects, reason = "tests build their input")]

use std::sync::Arc;

use super::*;
use crate::fs::{MemoryFs, Tree};
use crate::limits;

const VENDOR: &str = "/usr/lib/systemd/system";
const CONFIG: &str = "/etc/systemd/system";
const WANTED: &str = "[Install]\nWantedBy=multi-user.target\n";

fn read(fs: MemoryFs) -> Units {
    Units::read(&Tree::new(Arc::new(fs))).unwrap()
}

fn state(units: &Units, name: &str) -> Option<UnitState> {
    units.units.iter().find(|unit| unit.name == name).map(|unit| unit.state)
}

#[test]
fn links_tell_states() {
    let fs = MemoryFs::default();
    fs.add_link("/lib", "usr/lib").unwrap();
    let file = |path: &str, text: &str| fs.add_file(path, text).map(drop).unwrap();
    let link = |path: &str, target: &str| fs.add_link(path, target).map(drop).unwrap();
    for name in ["on", "off", "masked", "behind"] {
        file(&format!("{VENDOR}/{name}.service"), WANTED);
    }
    link(&format!("{CONFIG}/multi-user.target.wants/on.service"), "/lib/systemd/system/on.service");
    link(&format!("{VENDOR}/multi-user.target.wants/behind.service"), "../behind.service");
    link(&format!("{CONFIG}/masked.service"), "/dev/null");
    link(&format!("{CONFIG}/masked-too.service"), "masked.service");
    file(&format!("{CONFIG}/empty.service"), "");
    file(&format!("{VENDOR}/fixed.service"), "[Service]\n");
    file(&format!("{VENDOR}/also.service"), "[Install]\nAlso=on.service\n");
    file(&format!("{VENDOR}/g@.service"), "[Install]\nWantedBy=a.target\nDefaultInstance=tty1\n");
    link(&format!("{CONFIG}/a.target.wants/g@tty1.service"), "/lib/systemd/system/g@.service");
    file(&format!("{VENDOR}/h@.service"), WANTED);
    link(&format!("{CONFIG}/a.target.wants/h@x.service"), "/lib/systemd/system/h@.service");
    link(&format!("{CONFIG}/other.service"), "/lib/systemd/system/off.service");
    file("/opt/far.service", WANTED);
    link(&format!("{CONFIG}/far.service"), "/opt/far.service");
    link(&format!("{CONFIG}/lost.service"), "/opt/lost.service");
    link(&format!("{CONFIG}/kind.service"), "/lib/systemd/system/g@.service");
    link(&format!("{CONFIG}/a.service"), "b.service");
    link(&format!("{CONFIG}/b.service"), "a.service");
    link(&format!("{CONFIG}/self.service"), "self.service");
    link("/run/systemd/system/late.service", "/dev/null");
    file(&format!("{VENDOR}/dropped.service"), "[Service]\n");
    file(&format!("{CONFIG}/dropped.service.d/a.conf"), WANTED);
    file(&format!("{VENDOR}/graphical.target"), "[Unit]\n");
    link(&format!("{CONFIG}/default.target"), "/lib/systemd/system/graphical.target");
    file("/etc/systemd/system-preset/1.preset", "# x\ndisable o*\nenable on.service\nwrong\nenable\n");
    file("/usr/lib/systemd/system-preset/2.preset", "ignore masked.service\nenable h@.service a\n");
    let units = read(fs);
    for (name, expected) in [
        ("on.service", UnitState::Enabled),
        ("off.service", UnitState::Indirect),
        ("behind.service", UnitState::Disabled),
        ("masked.service", UnitState::Masked),
        ("masked-too.service", UnitState::Masked),
        ("empty.service", UnitState::Masked),
        ("fixed.service", UnitState::Static),
        ("also.service", UnitState::Indirect),
        ("g@.service", UnitState::Enabled),
        ("h@.service", UnitState::Indirect),
        ("other.service", UnitState::Alias),
        ("far.service", UnitState::Linked),
        ("lost.service", UnitState::Bad),
        ("kind.service", UnitState::Bad),
        ("a.service", UnitState::Bad),
        ("self.service", UnitState::Bad),
        ("late.service", UnitState::MaskedRuntime),
        ("dropped.service", UnitState::Disabled),
    ] {
        assert_eq!(state(&units, name), Some(expected), "{name}");
    }
    assert_eq!(units.default_target.as_deref(), Some("graphical.target"));
    let preset = |name: &str| units.units.iter().find(|unit| unit.name == name).and_then(|unit| unit.preset);
    assert_eq!(preset("on.service"), Some(Preset::Disabled));
    assert_eq!(preset("masked.service"), Some(Preset::Ignored));
    assert_eq!(preset("far.service"), Some(Preset::Enabled));
    assert_eq!(preset("fixed.service"), None);
}

#[test]
fn hostile_trees_end() {
    let fs = MemoryFs::default();
    let link = |path: &str, target: &str| fs.add_link(path, target).map(drop).unwrap();
    link(&format!("{CONFIG}/up.service"), "../../../../../../etc/shadow");
    link(&format!("{CONFIG}/empty.service"), "x");
    link(&format!("{CONFIG}/null.service"), "a//..///./dev/null");
    link(&format!("{CONFIG}/folder.service"), "/etc");
    fs.add_dir(&format!("{CONFIG}/dir.service")).unwrap();
    fs.add_dir("/etc/systemd/system-preset/x.preset").unwrap();
    fs.add_file(&format!("{VENDOR}/a b.service"), "x").unwrap();
    fs.add_file(&format!("{VENDOR}/esc\u{1b}.service"), "x").unwrap();
    fs.add_file(&format!("{VENDOR}/binary.service"), [0xff, 0, b'\n', b'[', b'=', b']', 0x1b]).unwrap();
    fs.add_file(&format!("{VENDOR}/open.service"), "[Install]\nWantedBy=a\\").unwrap();
    fs.add_file(&format!("{VENDOR}/large.service"), vec![b'x'; limits::MAX_GUEST_CONFIG as usize + 1]).unwrap();
    link(&format!("{CONFIG}/multi-user.target.wants"), "/");
    let units = read(fs);
    let names: Vec<&str> = units.units.iter().map(|unit| unit.name.as_str()).collect();
    let expected = [
        "binary.service",
        "empty.service",
        "folder.service",
        "large.service",
        "null.service",
        "open.service",
        "up.service",
    ];
    assert_eq!(names, expected);
    assert_eq!(state(&units, "open.service"), Some(UnitState::Disabled));
    assert_eq!(units.notes.len(), 1);
}

#[test]
fn chains_of_links_are_bounded() {
    // As many names are tried, and from each as many links are followed.
    let longest = 2 * limits::MAX_UNIT_LINKS - 2;
    for (length, expected) in
        [(longest - 1, UnitState::Masked), (longest, UnitState::Masked), (longest + 1, UnitState::Bad)]
    {
        let fs = MemoryFs::default();
        for number in 0..length {
            let path = format!("{CONFIG}/u{number}.service");
            fs.add_link(&path, &format!("u{}.service", number + 1)).unwrap();
        }
        fs.add_link(&format!("{CONFIG}/u{length}.service"), "/dev/null").unwrap();
        assert_eq!(state(&read(fs), "u0.service"), Some(expected), "{length}");
    }
}

#[test]
fn numbers_are_bounded() {
    for (count, notes) in [(limits::MAX_UNITS - 1, 0), (limits::MAX_UNITS, 0), (limits::MAX_UNITS + 1, 1)] {
        let fs = MemoryFs::default();
        for number in 0..count {
            fs.add_file(&format!("{VENDOR}/{number}.service"), "").unwrap();
        }
        let units = read(fs);
        assert_eq!((units.units.len(), units.notes.len()), (count.min(limits::MAX_UNITS), notes));
    }
    for (count, expected) in [
        (limits::MAX_PRESETS - 1, Preset::Disabled),
        (limits::MAX_PRESETS, Preset::Disabled),
        (limits::MAX_PRESETS + 1, Preset::Enabled),
    ] {
        let fs = MemoryFs::default();
        fs.add_file(&format!("{VENDOR}/a.service"), WANTED).unwrap();
        let rules = format!("{}disable a.service\n", "enable b.service\n".repeat(count - 1));
        fs.add_file("/usr/lib/systemd/system-preset/a.preset", rules).unwrap();
        assert_eq!(read(fs).units[0].preset, Some(expected), "{count}");
    }
}
