//! What `--deep` adds, of hives made by hand.

use super::*;
use crate::inspect::windows::accounts;

const MACHINE: &str = "S-1-5-21-1-2-3";
const USERS: &str = "SAM\\Domains\\Account\\Users";

/// The bytes of a security identifier.
fn sid(authority: u8, parts: &[u32]) -> Vec<u8> {
    let head = [1, u8::try_from(parts.len()).unwrap(), 0, 0, 0, 0, 0, authority];
    head.into_iter().chain(parts.iter().flat_map(|part| part.to_le_bytes())).collect()
}

fn units(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// `F` of a user.
fn fixed(rid: u32, control: u32, password_set: u64) -> Vec<u8> {
    let mut data = vec![0; 80];
    data[24..32].copy_from_slice(&password_set.to_le_bytes());
    data[32..40].copy_from_slice(&(i64::MAX as u64).to_le_bytes());
    data[48..52].copy_from_slice(&rid.to_le_bytes());
    data[56..60].copy_from_slice(&control.to_le_bytes());
    data
}

/// `V` of a user: descriptors, then texts, and last what stands for the hashes.
fn texts(name: &str, full: &str, comment: &str) -> Vec<u8> {
    let mut data = vec![0; 17 * 12];
    let mut end = 0_u32;
    for (index, bytes) in [
        (1, units(name)),
        (2, units(full)),
        (3, units(comment)),
        (13, b"LMLMLMLM".to_vec()),
        (14, b"NTNTNTNT".to_vec()),
    ] {
        let length = u32::try_from(bytes.len()).unwrap();
        data[index * 12..index * 12 + 4].copy_from_slice(&end.to_le_bytes());
        data[index * 12 + 4..index * 12 + 8].copy_from_slice(&length.to_le_bytes());
        data.extend(&bytes);
        end += length;
    }
    data
}

/// `C` of a group.
fn group(name: &str, comment: &str, members: &[Vec<u8>]) -> Vec<u8> {
    let (name, comment, all) = (units(name), units(comment), members.concat());
    let mut data = vec![0; 52];
    let mut at = 0;
    for (place, bytes) in [(16, &name), (28, &comment), (40, &all)] {
        data[place..place + 4].copy_from_slice(&u32::to_le_bytes(at));
        let length = u32::try_from(bytes.len()).unwrap();
        data[place + 4..place + 8].copy_from_slice(&length.to_le_bytes());
        at += length;
    }
    data[48..52].copy_from_slice(&u32::try_from(members.len()).unwrap().to_le_bytes());
    [data, name, comment, all].concat()
}

fn sam() -> Builder {
    let own = |rid| sid(5, &[21, 1, 2, 3, rid]);
    let user = |rid: u32, it: Builder, control, set, v: Vec<u8>| {
        let key = format!("{USERS}\\{rid:08X}");
        it.value(&key, "F", 3, &fixed(rid, control, set)).value(&key, "V", 3, &v)
    };
    let domain = [vec![7; 40], sid(5, &[21, 1, 2, 3])].concat();
    let builder = Builder::new().value("SAM\\Domains\\Account", "V", 3, &domain).key(&format!("{USERS}\\Names\\alice"));
    let builder = user(500, builder, 0x211, 0, texts("Administrator", "", "Built-in"));
    let builder = user(1001, builder, 0x414, 116_444_736_000_000_000 + 10_000_000, texts("alice", "Älice 🚀", "x"));
    let aliases = "SAM\\Domains\\Builtin\\Aliases";
    builder
        .value(
            &format!("{aliases}\\00000220"),
            "C",
            3,
            &group("Administrators", "all", &[own(500), own(1001), own(512)]),
        )
        .value(&format!("{aliases}\\00000221"), "C", 3, &group("Users", "", &[sid(5, &[4]), own(1001)]))
        .value("SAM\\Domains\\Account\\Aliases\\000003E9", "C", 3, &group("own", "", &[]))
}

const CACHE: &str = "Microsoft\\Windows NT\\CurrentVersion\\Schedule\\TaskCache\\Tree";
const PACKAGES: &str = "Microsoft\\Windows\\CurrentVersion\\Component Based Servicing\\Packages";

fn more_software() -> Builder {
    let list = "Microsoft\\Windows NT\\CurrentVersion\\ProfileList";
    let fix = format!("{PACKAGES}\\Package_for_KB5005039~31bf3856ad364e35~amd64~~22000.132.1.1");
    software()
        .text(&format!("{CACHE}\\Own\\job"), "Id", "{A}")
        .text(&format!("{CACHE}\\off"), "Id", "{B}")
        .text(&format!("{CACHE}\\bad"), "Id", "{C}")
        .text(&format!("{CACHE}\\gone"), "Id", "{D}")
        .number(&fix, "CurrentState", 0x70)
        .number(&fix, "InstallTimeHigh", 0x01d7_8e00)
        .number(&fix, "InstallTimeLow", 0)
        .text(&fix, "InstallClient", "UpdateAgentLCU")
        .number(&format!("{PACKAGES}\\Package_for_RollupFix~31bf3856ad364e35~amd64~~19041.1.1.1"), "CurrentState", 0x50)
        .number(&format!("{PACKAGES}\\Package_1_for_KB5005039~31bf3856ad364e35~amd64~~1"), "CurrentState", 0x70)
        .number("Microsoft\\Windows NT\\CurrentVersion\\HotFix\\KB123456", "Installed", 1)
        .text(&format!("{list}\\S-1-5-18"), "ProfileImagePath", "%systemroot%\\system32\\config\\systemprofile")
        .text(&format!("{list}\\S-1-5-21-1-2-3-1001"), "ProfileImagePath", "C:\\Users\\alice")
        .text(&format!("{list}\\S-1-5-21-1-2-3-1002"), "ProfileImagePath", "E:\\Users\\bob")
}

const JOB: &str = "<?xml version=\"1.0\" encoding=\"UTF-16\"?>\r\n\
    <Task version=\"1.2\" xmlns=\"http://schemas.microsoft.com/windows/2004/02/mit/task\">\
    <RegistrationInfo><Author>WIN\\älice</Author><Description>does it</Description></RegistrationInfo>\
    <Triggers><LogonTrigger/><CalendarTrigger><Enabled>true</Enabled></CalendarTrigger><BootTrigger><Enabled>false</Enabled></BootTrigger>\
    <SessionStateChangeTrigger/></Triggers>\
    <Principals><Principal id=\"other\"><UserId>x</UserId></Principal>\
    <Principal id=\"Author\"><UserId>S-1-5-18</UserId><RunLevel>HighestAvailable</RunLevel></Principal></Principals>\
    <Settings><Hidden>true</Hidden></Settings>\
    <Actions Context=\"Author\"><Exec><Command>C:\\a.exe</Command><Arguments>/x &amp; y</Arguments></Exec>\
    <ComHandler><ClassId>{0}</ClassId></ComHandler></Actions></Task>";

fn deep_of(sam: Vec<u8>, software: Vec<u8>, files: &[(&str, Vec<u8>)]) -> WindowsDeep {
    let fs = tree("Windows", system().build(), software);
    fs.add_file("/Windows/System32/config/SAM", sam).unwrap();
    for (path, bytes) in files {
        fs.add_file(path, bytes).unwrap();
    }
    let data = MemoryFs::new("ntfs", None, None);
    let machine = machine(vec![(fs, PARTITION, 9 << 20), (data, "1a2b3c4d-01", 1 << 20)]);
    let found = find_windows(&machine).unwrap();
    deep(&found[0].root, &windows(&machine, &found[0]).unwrap()).unwrap()
}

fn everything() -> WindowsDeep {
    let job = [vec![0xff, 0xfe], units(JOB)].concat();
    let off = b"<Task><Settings><Enabled>false</Enabled></Settings><Actions/></Task>".to_vec();
    let uninstall = "Software\\Microsoft\\Windows\\CurrentVersion\\Uninstall\\Tool";
    let user = Builder::new().text(uninstall, "DisplayName", "Her tool").text(uninstall, "DisplayVersion", "3").build();
    deep_of(
        sam().build(),
        more_software().build(),
        &[
            ("/Windows/System32/Tasks/Own/job", job),
            ("/Windows/System32/Tasks/off", off),
            ("/Windows/System32/Tasks/bad", b"<Task><!DOCTYPE".to_vec()),
            ("/Users/alice/NTUSER.DAT", user),
        ],
    )
}

#[test]
fn users_and_groups_are_those_of_the_machine() {
    let deep = everything();
    assert_eq!(deep.machine_sid.as_deref(), Some(MACHINE));
    let [root, alice] = &*deep.users else { panic!("{:?}", deep.users) };
    assert_eq!((root.name.as_str(), root.rid, root.comment.as_str()), ("Administrator", 500, "Built-in"));
    assert_eq!(
        (root.administrator, root.disabled, root.password_never_expires, root.locked),
        (true, true, true, false)
    );
    assert_eq!((root.password_set, root.expires), (None, None));
    assert_eq!((alice.name.as_str(), alice.full_name.as_str()), ("alice", "Älice 🚀"));
    assert_eq!(alice.sid.as_deref(), Some("S-1-5-21-1-2-3-1001"));
    assert_eq!((alice.disabled, alice.locked, alice.password_optional), (false, true, true));
    assert_eq!((alice.password_set, alice.administrator), (Some(1), true));
    assert_eq!(alice.groups, ["Administrators", "Users"]);
    let groups: Vec<_> = deep.groups.iter().map(|it| (it.name.as_str(), it.sid.as_deref(), it.members.len())).collect();
    assert_eq!(
        groups,
        [
            ("Administrators", Some("S-1-5-32-544"), 3),
            ("Users", Some("S-1-5-32-545"), 2),
            ("own", Some("S-1-5-21-1-2-3-1001"), 0)
        ]
    );
    assert_eq!(deep.groups[1].members, ["S-1-5-4", "S-1-5-21-1-2-3-1001"]);
    // Nothing of a password is told.
    let told = serde_json::to_string(&deep).unwrap();
    assert!(!told.contains("LMLM") && !told.contains("NTNT"), "{told}");
}

#[test]
fn tasks_have_what_their_files_say() {
    let deep = everything();
    let paths: Vec<_> = deep.tasks.iter().map(|task| (task.path.as_str(), task.enabled)).collect();
    assert_eq!(paths, [("\\Own\\job", Some(true)), ("\\bad", None), ("\\gone", None), ("\\off", Some(false))]);
    let job = &deep.tasks[0];
    assert_eq!((job.id.as_str(), job.author.as_deref()), ("{A}", Some("WIN\\älice")));
    assert_eq!((job.run_as.as_deref(), job.elevated), (Some("S-1-5-18"), true));
    assert_eq!(job.triggers, ["logon", "calendar", "session"]);
    assert_eq!(job.actions, ["C:\\a.exe /x & y", "{0}"]);
    assert!(deep.notes.iter().any(|note| note.contains("Tasks\\bad")), "{:?}", deep.notes);
}

#[test]
fn updates_and_applications_of_users() {
    let deep = everything();
    let fixes: Vec<_> = deep.hotfixes.iter().map(|fix| (fix.id.as_str(), fix.state, fix.version.as_deref())).collect();
    assert_eq!(
        fixes,
        [
            ("KB5005039", "installed", Some("22000.132.1.1")),
            ("RollupFix", "superseded", Some("19041.1.1.1")),
            ("KB123456", "installed", None)
        ]
    );
    // 0x01d78e0000000000 is the 10th of August 2021, 15:54:28.
    assert_eq!(
        (deep.hotfixes[0].installed, deep.hotfixes[0].client.as_deref()),
        (Some(1_628_610_868), Some("UpdateAgentLCU"))
    );
    let [hers] = &*deep.user_applications else { panic!("{:?}", deep.user_applications) };
    assert_eq!((hers.sid.as_str(), hers.applications[0].name.as_str()), ("S-1-5-21-1-2-3-1001", "Her tool"));
    // E: is another volume.
    assert!(deep.notes.iter().any(|note| note.contains("E:\\Users\\bob")), "{:?}", deep.notes);
    let hives: Vec<_> = deep.hives.iter().map(|hive| hive.path.as_str()).collect();
    assert_eq!(hives, ["/Windows/System32/config/SAM", "/Windows/System32/config/SOFTWARE", "/Users/alice/NTUSER.DAT"]);
}

#[test]
fn ipv6_addresses_and_the_tpm() {
    let class = set(&format!("Control\\Class\\{CLASS}\\0001"));
    let store = set("Control\\Nsi\\{eb004a01-9b1a-11d4-9123-0050047759bc}\\10");
    let mut data = vec![0xff; 48];
    data[16] = 64;
    let system = system()
        .number(&class, "*IfType", 6)
        .number(&class, "NetLuidIndex", 9)
        .value(&store, "000000090000060020010db8000000000000000000000001", 3, &data)
        .value(&store, "00000009000006002001:db8::2", 3, &data)
        .value(&store, "000000080000060020010db8000000000000000000000003", 3, &data)
        .value(&store, "0000000900000600fd000000000000000000000000000005", 3, &[])
        .text(
            &set(&format!("Services\\Tcpip6\\Parameters\\Interfaces\\{ADAPTER}")),
            "NameServer",
            "2001:db8::53,2001:db8::54",
        )
        .key(&set("Enum\\ACPI\\MSFT0101\\1"));
    let facts = facts(&machine(vec![(tree("Windows", system.build(), software().build()), PARTITION, 0)]));
    assert_eq!(facts.notes, Vec::<String>::new());
    assert_eq!(facts.adapters[0].ipv6_addresses, ["2001:db8::1/64", "fd00::5"]);
    assert_eq!(facts.adapters[0].ipv6_dns, ["2001:db8::53", "2001:db8::54"]);
    assert_eq!(facts.tpm, Some("2.0"));
}

/// Values that contradict themselves give less, and nothing else.
#[test]
fn hostile_accounts() {
    let key = format!("{USERS}\\000003E9");
    let long = |at: usize, value: u32, mut data: Vec<u8>| {
        data[at..at + 4].copy_from_slice(&value.to_le_bytes());
        data
    };
    let (f, v) = (fixed(1001, 0x10, 0), texts("alice", "full", "comment"));
    let users = |f: &[u8], v: &[u8]| {
        let hive = Builder::new().value(&key, "F", 3, f).value(&key, "V", 3, v).build();
        deep_of(hive, software().build(), &[]).users
    };
    assert_eq!(users(&f, &v).len(), 1);
    for (name, f, v, left) in [
        ("no bytes at all", vec![], vec![], None),
        ("a short F", f[..59].to_vec(), v.clone(), None),
        ("F that ends with the flags", f[..60].to_vec(), v.clone(), Some("full")),
        ("a V of descriptors only", f.clone(), v[..204].to_vec(), None),
        ("a name beyond the end", f.clone(), long(12, u32::MAX, v.clone()), None),
        ("a name that is too long", f.clone(), long(16, u32::MAX, v.clone()), None),
        ("a name of no length", f.clone(), long(16, 0, v.clone()), None),
        ("a full name beyond the end", f.clone(), long(24, u32::MAX - 204, v.clone()), Some("")),
        ("a full name of an odd length", f.clone(), long(28, 7, v.clone()), Some("ful")),
        (
            "halves of surrogates",
            f.clone(),
            long(24, 0, v.iter().map(|b| if *b == b'u' { 0xd8 } else { *b }).collect()),
            Some("alic"),
        ),
        ("a V cut within its texts", f.clone(), v[..216].to_vec(), Some("")),
    ] {
        let users = users(&f, &v);
        assert_eq!(users.first().map(|user| user.full_name.as_str()), left, "{name}");
    }
    let alias = "SAM\\Domains\\Builtin\\Aliases\\00000220";
    let c = group("Administrators", "", &[sid(5, &[4]), sid(5, &[21, 1, 2, 3, 500])]);
    let members = c.len() - 12 - 28;
    for (name, c, left) in [
        ("sound", c.clone(), Some(2)),
        ("nothing", vec![], None),
        ("a header only", c[..52].to_vec(), None),
        ("more members than there are", long(48, u32::MAX, c.clone()), Some(2)),
        ("fewer members than there are", long(48, 1, c.clone()), Some(1)),
        ("members beyond the end", long(40, u32::MAX, c.clone()), Some(0)),
        ("members cut short", long(44, 20, c.clone()), Some(1)),
        ("an identifier of 255 parts", long(members, 0xff01, c.clone()), Some(0)),
        ("an identifier of another revision", long(members, 0x0102, c.clone()), Some(0)),
        ("a name that wraps round", long(16, u32::MAX - 51, c.clone()), None),
    ] {
        let hive = Builder::new().value(alias, "C", 3, &c).build();
        let groups = deep_of(hive, software().build(), &[]).groups;
        assert_eq!(groups.first().map(|group| group.members.len()), left, "{name}");
    }
}

/// A byte anywhere in a hive changes some facts at most.
#[test]
fn damaged_hives_give_what_they_have() {
    let (sam, software) = (sam().build(), more_software().build());
    for at in (4096..sam.len()).step_by(97) {
        let mut bad = sam.clone();
        bad[at] ^= 0xff;
        assert_eq!(deep_of(bad, software.clone(), &[]).hotfixes.len(), 3, "{at}");
    }
    for at in (4096..software.len()).step_by(211) {
        let mut bad = software.clone();
        bad[at] ^= 0xff;
        assert_eq!(deep_of(sam.clone(), bad, &[]).users.len(), 2, "{at}");
    }
    let none = deep_of(b"regf".to_vec(), software, &[]);
    assert!(none.users.is_empty() && none.notes.iter().any(|note| note.contains("SAM")), "{:?}", none.notes);
}

#[test]
fn hostile_tasks() {
    for (name, file) in [
        ("nothing", String::new()),
        ("no XML", "\0\0\0".to_owned()),
        ("another document", "<Job/>".to_owned()),
        ("no end", "<Task><Actions>".to_owned()),
        ("a document type", "<!DOCTYPE Task [<!ENTITY a \"b\">]><Task>&a;</Task>".to_owned()),
        ("an unknown entity", "<Task>&a;</Task>".to_owned()),
        ("an external entity", "<!DOCTYPE Task SYSTEM \"file:///etc/passwd\"><Task/>".to_owned()),
        ("too many elements", format!("<Task>{}</Task>", "<a/>".repeat(10_001))),
        ("two roots", "<Task/><Task/>".to_owned()),
        ("a prefix of no name space", "<x:Task/>".to_owned()),
    ] {
        let files = [("/Windows/System32/Tasks/off", file.into_bytes())];
        let deep = deep_of(sam().build(), more_software().build(), &files);
        let task = deep.tasks.iter().find(|task| task.path == "\\off").unwrap();
        assert_eq!((task.enabled, deep.notes.iter().any(|note| note.contains("Tasks\\off"))), (None, true), "{name}");
    }
    let many = format!("<Task><Actions>{}</Actions></Task>", "<SendEmail/>".repeat(65));
    let files = [("/Windows/System32/Tasks/off", many.into_bytes())];
    let deep = deep_of(sam().build(), more_software().build(), &files);
    assert_eq!(deep.tasks.iter().find(|task| task.path == "\\off").unwrap().actions.len(), 64);
}

#[test]
fn identifiers_are_written_as_windows_does() {
    for (bytes, text) in [
        (sid(5, &[18]), Some("S-1-5-18")),
        (sid(1, &[0]), Some("S-1-1-0")),
        (sid(16, &[]), Some("S-1-16")),
        (
            sid(5, &[u32::MAX; 15]),
            Some(
                "S-1-5-4294967295-4294967295-4294967295-4294967295-4294967295-4294967295-4294967295-4294967295-4294967295-4294967295-4294967295-4294967295-4294967295-4294967295-4294967295",
            ),
        ),
        (sid(5, &[1; 16]), None),
        (sid(5, &[1, 2])[..15].to_vec(), None),
    ] {
        assert_eq!(accounts::sid(&bytes).map(|(text, _)| text).as_deref(), text);
    }
}

#[test]
fn as_many_members_as_the_limit() {
    for (count, kept) in [
        (limits::MAX_WINDOWS_ITEMS - 1, limits::MAX_WINDOWS_ITEMS - 1),
        (limits::MAX_WINDOWS_ITEMS, limits::MAX_WINDOWS_ITEMS),
        (limits::MAX_WINDOWS_ITEMS + 1, limits::MAX_WINDOWS_ITEMS),
    ] {
        let c = group("many", "", &vec![sid(5, &[]); count]);
        let hive = Builder::new().value("SAM\\Domains\\Builtin\\Aliases\\00000220", "C", 3, &c).build();
        let deep = deep_of(hive, software().build(), &[]);
        assert_eq!(deep.groups.first().map(|group| group.members.len()), Some(kept), "{:?}", deep.notes);
    }
}
