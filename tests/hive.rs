//! Registry hives beside hivex: every value is the same, and what is exported comes back as it was. A Windows on NTFS.

use std::collections::BTreeMap;
use std::path::Path;

use hyper2kvm::hive::{Bytes, Hive, Step, export};
use regf::{DataType, HiveBuilder, KeyTreeNode, KeyTreeValue};

use crate::support::{Lab, Run, tools};

type Values = BTreeMap<String, (u32, Vec<u8>)>;

/// A hive with keys and values of all kinds.
fn sample() -> Vec<u8> {
    let mut root = KeyTreeNode::new("ROOT");
    let mut add = |path: &str, name: &str, kind: u32, data: Vec<u8>| {
        let value = KeyTreeValue { name: name.to_owned(), data_type: DataType::from(kind), data };
        root.get_or_create_path(path).values.push(value);
    };
    let utf16 = |text: &str| text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    for kind in 0..12 {
        add("Kinds", &format!("of {kind}"), kind, vec![u8::try_from(kind).unwrap(); 8]);
    }
    add("Kinds", "", 1, utf16("default"));
    add("Kinds", "number", 4, vec![1, 2, 3, 4]);
    // Names are plain: hivexregedit writes others as its locale has them.
    add("Names\\Size", "Length", 1, utf16("größer 🚀"));
    add("Names\\a b-c", "x:y", 2, utf16("%Path%;C:\\x"));
    // Larger ones are in pieces, which hivex takes apart otherwise than regf puts them together.
    for size in [0, 1, 4, 5, 4096, 16_344] {
        add("Sizes", &format!("of {size}"), 3, (0..size).map(|byte| u8::try_from(byte % 251).unwrap()).collect());
    }
    for index in 0..1500 {
        add(&format!("Many\\Key{index}"), "n", 4, u32::to_le_bytes(index).to_vec());
    }
    HiveBuilder::from_tree(root).unwrap().to_bytes().unwrap()
}

fn ours(bytes: &[u8]) -> Values {
    let hive = Hive::open(Box::new(bytes.to_vec()) as Box<dyn Bytes>, Vec::new()).unwrap();
    let (mut values, mut path) = (Values::new(), Vec::new());
    hive.walk(hive.root().unwrap(), &mut |key, depth| {
        let key = key?;
        path.truncate(depth);
        path.push(key.name().to_owned());
        for value in key.values()? {
            let (value, path) = (value?, path[1..].join("\\"));
            let data = value.data()?;
            values.insert(format!("\\{path}\t{}", value.name()), (data.kind, data.bytes));
        }
        Ok(Step::In)
    })
    .unwrap();
    values
}

/// What hivexregedit exports of a hive.
fn theirs(hive: &Path) -> Values {
    let text = tools::ok("hivexregedit", ["--export".as_ref(), hive.as_os_str(), "\\".as_ref()]);
    let (mut values, mut path) = (Values::new(), String::new());
    for line in text.lines() {
        if let Some(key) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            key.clone_into(&mut path);
        } else if let Some((name, data)) = line.split_once('=').filter(|_| line.starts_with(['"', '@'])) {
            let name = name.trim_matches(['"', '@']);
            let (kind, digits) = data.split_once(':').unwrap();
            let hex = |digits: &str| u8::from_str_radix(digits, 16).unwrap();
            let value = match kind {
                "dword" => (4, u32::from_str_radix(digits, 16).unwrap().to_le_bytes().to_vec()),
                kind => {
                    let number = kind.strip_prefix("hex(").map_or(3, |kind| hex(kind.trim_end_matches(')')).into());
                    (number, digits.split(',').filter(|byte| !byte.is_empty()).map(hex).collect())
                }
            };
            values.insert(format!("{path}\t{name}"), value);
        }
    }
    values
}

#[test]
fn values_are_those_of_hivex() {
    let lab = Lab::new();
    let (bytes, path) = (sample(), lab.path("hive"));
    std::fs::write(&path, &bytes).unwrap();
    let (ours, theirs) = (ours(&bytes), theirs(&path));
    assert!(ours.len() > 1500);
    let differ: Vec<_> = ours.iter().filter(|(key, value)| theirs.get(*key) != Some(value)).collect();
    assert!(differ.is_empty() && ours.len() == theirs.len(), "{differ:?}");
    let told = tools::ok("hivexget", [path.as_os_str(), "\\Names\\size".as_ref(), "length".as_ref()]);
    assert_eq!(told.trim_end(), "größer 🚀");
}

/// A hive of keys at any depth with values of any kind and size, the same for the same seed.
fn generated(seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = |most: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % most
    };
    let mut root = KeyTreeNode::new("ROOT");
    for value in 0..80 {
        let path: Vec<String> = (0..1 + next(6)).map(|_| format!("k{}", next(4))).collect();
        let (kind, size) = (u32::try_from(next(12)).unwrap(), [0, 1, 2, 4, 5, 8, 300, 4096, 16_344][next(9) as usize]);
        // A number has four bytes, and in an export its own form.
        let size = if kind == 4 { 4 } else { size };
        let data = (0..size).map(|_| u8::try_from(next(256)).unwrap()).collect();
        let value = KeyTreeValue { name: format!("v{value}"), data_type: DataType::from(kind), data };
        root.get_or_create_path(&path.join("\\")).values.push(value);
    }
    HiveBuilder::from_tree(root).unwrap().to_bytes().unwrap()
}

#[test]
fn values_of_generated_hives_are_those_of_hivex() {
    let lab = Lab::new();
    for seed in 0..25 {
        let (bytes, path) = (generated(seed), lab.path("hive"));
        std::fs::write(&path, &bytes).unwrap();
        let (ours, theirs) = (ours(&bytes), theirs(&path));
        assert_eq!(ours.len(), 80, "{seed}");
        assert!(ours == theirs, "{seed}: {:?}", ours.iter().find(|(key, value)| theirs.get(*key) != Some(value)));
        // Numbers one by one.
        for (key, (_, data)) in ours.iter().filter(|(_, (kind, _))| *kind == 4).take(3) {
            let (key, name) = key.split_once('\t').unwrap();
            let told = tools::ok("hivexget", [path.as_os_str(), key.as_ref(), name.as_ref()]);
            let number = u32::from_le_bytes(data.as_slice().try_into().unwrap());
            assert_eq!(told.trim_end().parse::<i64>().unwrap() as u32, number, "{seed}: {key}");
        }
    }
}

#[test]
fn an_export_comes_back_as_it_was() {
    let lab = Lab::new();
    let (bytes, text, other) = (sample(), lab.path("all.reg"), lab.path("other"));
    let hive = Hive::open(Box::new(bytes.clone()) as Box<dyn Bytes>, Vec::new()).unwrap();
    let mut file = std::fs::File::create(&text).unwrap();
    export(&hive, hive.root().unwrap(), "P", &mut file).unwrap();
    std::fs::write(&other, HiveBuilder::from_tree(KeyTreeNode::new("ROOT")).unwrap().to_bytes().unwrap()).unwrap();
    let args = ["--merge".as_ref(), "--prefix".as_ref(), "P".as_ref(), other.as_os_str(), text.as_os_str()];
    tools::ok("hivexregedit", args);
    let (theirs, expected) = (theirs(&other), ours(&bytes));
    let differ: Vec<_> = expected.iter().filter(|(key, value)| theirs.get(*key) != Some(value)).collect();
    assert!(differ.is_empty() && expected.len() == theirs.len(), "{differ:?}");
    // What another program wrote is read, too.
    assert!(ours(&std::fs::read(&other).unwrap()) == expected);
}

/// A Windows on a volume that mkntfs made.
#[test]
fn a_windows_is_found_and_its_registry_shown() {
    let lab = Lab::new();
    let image = lab.path("windows.raw");
    std::fs::File::create(&image).unwrap().set_len(24 << 20).unwrap();
    tools::ok("mkntfs", ["-q", "-F", "-f"].map(Path::new).into_iter().chain([image.as_path()]));
    let point = lab.folder("mounted");
    tools::ok("ntfs-3g", [&image, &point]);
    let config = point.join("Windows/System32/config");
    std::fs::create_dir_all(&config).unwrap();
    let mut software = KeyTreeNode::new("ROOT");
    let value = |name: &str, text: &str| KeyTreeValue {
        name: name.to_owned(),
        data_type: DataType::from(1),
        data: text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect(),
    };
    let version = software.get_or_create_path("Microsoft\\Windows NT\\CurrentVersion");
    version.values.extend([value("ProductName", "Windows Server 2022 \u{1b}[2J"), value("CurrentVersion", "6.3")]);
    let mut system = KeyTreeNode::new("ROOT");
    let current =
        KeyTreeValue { name: "Current".to_owned(), data_type: DataType::from(4), data: 1_u32.to_le_bytes().to_vec() };
    system.get_or_create_path("Select").values.push(current);
    system.get_or_create_path("ControlSet001\\Services\\Tcpip\\Parameters").values.push(value("Hostname", "WIN"));
    for (name, tree) in [("SYSTEM", system), ("SOFTWARE", software)] {
        std::fs::write(config.join(name), HiveBuilder::from_tree(tree).unwrap().to_bytes().unwrap()).unwrap();
    }
    tools::ok("umount", [&point]);
    let told = Run::new(["inspect".as_ref(), image.as_os_str()]).success().stdout;
    assert!(told.contains("Windows Server 2022 \\u{1b}[2J") && told.contains("WIN"), "{told}");
    let hive = |args: &[&str]| {
        let run = Run::new(["guest".as_ref(), "hive".as_ref(), image.as_os_str()]);
        args.iter().fold(run, |run, arg| run.arg(arg))
    };
    let listed = hive(&[]).success().stdout;
    assert!(listed.contains("SOFTWARE") && listed.contains("/Windows/System32/config/SYSTEM"), "{listed}");
    let key = "CurrentControlSet\\Services\\Tcpip\\Parameters";
    assert_eq!(hive(&["system", key, "--value", "hostname"]).success().stdout.trim(), "WIN");
    assert!(hive(&["/windows/system32/config/SYSTEM", "Select"]).success().stdout.contains("REG_DWORD  1 (0x1)"));
    let exported = hive(&["SYSTEM", "Select", "--export"]).success().stdout;
    assert!(exported.contains("[HKEY_LOCAL_MACHINE\\SYSTEM\\Select]\n\"Current\"=dword:00000001\n"), "{exported}");
    hive(&["SYSTEM", "None"]).fails_with(4);
    hive(&["SAM"]).fails_with(4);
}

/// A `SAM` with users: number, flags, name, name for people, and whether they are administrators.
fn sam(users: &[(u32, u32, &str, &str, bool)]) -> Vec<u8> {
    let mut root = KeyTreeNode::new("ROOT");
    let mut add = |path: &str, name: &str, kind: u32, data: Vec<u8>| {
        let value = KeyTreeValue { name: name.to_owned(), data_type: DataType::from(kind), data };
        root.get_or_create_path(&format!("SAM\\Domains\\{path}")).values.push(value);
    };
    let sid = |rid: Option<u32>| -> Vec<u8> {
        let parts: Vec<u32> = [21, 1, 2, 3].into_iter().chain(rid).collect();
        let head = [1, u8::try_from(parts.len()).unwrap(), 0, 0, 0, 0, 0, 5];
        head.into_iter().chain(parts.iter().flat_map(|part| part.to_le_bytes())).collect()
    };
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    // The identifier comes last, and its length is told without its first four bytes.
    let mut account = vec![0; 0x40];
    account[0x3c] = 20;
    add("Account", "V", 3, [account, sid(None)].concat());
    // Where the place and the length of each piece are noted, then the pieces, which begin at even places.
    let packed = |base: usize, pieces: &[(usize, Vec<u8>)]| {
        let mut data = vec![0; base];
        for (place, piece) in pieces {
            let (at, length) = (u32::try_from(data.len() - base).unwrap(), u32::try_from(piece.len()).unwrap());
            data[*place..place + 4].copy_from_slice(&at.to_le_bytes());
            data[place + 4..place + 8].copy_from_slice(&length.to_le_bytes());
            data.extend(piece);
            data.resize(data.len().next_multiple_of(4), 0);
        }
        data
    };
    for (rid, flags, name, full, administrator) in users {
        let mut fixed = vec![0; 80];
        fixed[48..52].copy_from_slice(&rid.to_le_bytes());
        fixed[56..60].copy_from_slice(&flags.to_le_bytes());
        add(&format!("Account\\Users\\{rid:08X}"), "F", 3, fixed);
        let pieces = [(12, utf16(name)), (24, utf16(full)), (0x9c, vec![0; 4]), (0xa8, vec![0; 4])];
        add(&format!("Account\\Users\\{rid:08X}"), "V", 3, packed(0xcc, &pieces));
        add(&format!("Account\\Users\\Names\\{name}"), "", *rid, Vec::new());
        // What a user is a member of is kept at the user too; the type of the value is how many groups that are.
        let groups: Vec<u32> = if *administrator { vec![0x220, 0x221] } else { vec![0x221] };
        let count = u32::try_from(groups.len()).unwrap();
        let groups = groups.iter().flat_map(|group| group.to_le_bytes()).collect();
        add(&format!("Builtin\\Aliases\\Members\\S-1-5-21-1-2-3\\{rid:08X}"), "", count, groups);
    }
    for (rid, name, only) in [(0x220_u32, "Administrators", true), (0x221, "Users", false)] {
        let members: Vec<u32> = users.iter().filter(|user| user.4 || !only).map(|user| user.0).collect();
        let all = members.iter().flat_map(|member| sid(Some(*member))).collect();
        let mut data = packed(52, &[(16, utf16(name)), (28, Vec::new()), (40, all)]);
        data[..4].copy_from_slice(&rid.to_le_bytes());
        data[48..52].copy_from_slice(&u32::try_from(members.len()).unwrap().to_le_bytes());
        add(&format!("Builtin\\Aliases\\{rid:08X}"), "C", 3, data);
    }
    HiveBuilder::from_tree(root).unwrap().to_bytes().unwrap()
}

/// Users, administrators and who may not log in, beside chntpw.
#[test]
fn users_of_a_windows_are_those_of_chntpw() {
    let lab = Lab::new();
    let users = [
        (500, 0x211, "Administrator", "", true),
        (501, 0x215, "Guest", "", false),
        (1001, 0x210, "alice", "Alice A.", true),
        (1002, 0x410, "bob", "", false),
        (1003, 0x014, "carol", "Carol", false),
    ];
    let (image, point) = (lab.path("windows.raw"), lab.folder("mounted"));
    std::fs::File::create(&image).unwrap().set_len(24 << 20).unwrap();
    tools::ok("mkntfs", ["-q", "-F", "-f"].map(Path::new).into_iter().chain([image.as_path()]));
    tools::ok("ntfs-3g", [&image, &point]);
    let config = point.join("Windows/System32/config");
    std::fs::create_dir_all(&config).unwrap();
    let empty = HiveBuilder::from_tree(KeyTreeNode::new("ROOT")).unwrap().to_bytes().unwrap();
    for (name, bytes) in [("SYSTEM", &empty), ("SOFTWARE", &empty), ("SAM", &sam(&users))] {
        std::fs::write(config.join(name), bytes).unwrap();
    }
    let listed = tools::output("chntpw", ["-l".as_ref(), config.join("SAM").as_os_str()]);
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    tools::ok("umount", [&point]);
    let theirs: BTreeMap<u32, (String, bool, bool)> = listed
        .lines()
        .filter_map(|line| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let rid = u32::from_str_radix(cells.get(1)?, 16).ok()?;
            Some((rid, (cells[2].to_owned(), cells[3] == "ADMIN", cells[4] == "dis/lock")))
        })
        .collect();
    assert_eq!(theirs.len(), users.len(), "{listed}");
    let facts = Run::new(["inspect", "--deep", "--json"]).arg(&image).success().json();
    let deep = &facts["guest"]["deep"];
    assert_eq!(deep["machine_sid"], "S-1-5-21-1-2-3");
    let ours: BTreeMap<u32, (String, bool, bool)> = deep["users"]
        .as_array()
        .unwrap()
        .iter()
        .map(|user| {
            let is = |name: &str| user[name].as_bool().unwrap();
            let rid = user["rid"].as_u64().unwrap() as u32;
            let name = user["name"].as_str().unwrap().to_owned();
            (rid, (name, is("administrator"), is("disabled")))
        })
        .collect();
    assert_eq!(ours, theirs, "{listed}");
    let told = Run::new(["inspect", "--deep"]).arg(&image).success().stdout;
    assert!(told.contains("alice (1001): administrator\n") && told.contains("Guest (501): disabled\n"), "{told}");
}
