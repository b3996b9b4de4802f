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
