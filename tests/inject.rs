//! What is asked for is in the guest afterwards, as the guest's own kind of tools see it; and the user's secrets are nowhere else.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use crate::support::{Lab, Mounted, Run, Tree, Variant, only, tools};

const HASH: &str = "$6$saltsalt$NeverShownAnywhereNeverShownAnywhere/";
const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ eve@host";

#[test]
fn what_is_asked_for_is_in_the_guest() {
    let lab = Lab::new();
    let (hash, key) = (lab.file("hash", format!("{HASH}\n")), lab.file("key.pub", format!("{KEY}\n")));
    lab.file("setup.sh", "#!/bin/sh\ntouch /ran\n");
    let config = lab.file(
        "guest.yaml",
        "hostname: web01\nusers:\n  - name: eve\n    comment: Eve\n    groups: [adm]\n    ssh_key_files: [key.pub]\n\
         services:\n  enable: [systemd-networkd]\n  mask: [ctrl-alt-del.target]\n\
         files:\n  - path: /opt/app/app.conf\n    content: |\n      a = 1\n    mode: \"0600\"\n    owner: daemon\n\
         first_boot:\n  - source: setup.sh\n",
    );
    let out = lab.path("out");
    let run = Run::new(["migrate", "-v", "--network-fixes", "conservative", "--mac", "00:50:56:0a:0b:0c", "--config"])
        .arg(&config)
        .arg("--ssh-key")
        .arg(format!("root:file:{}", key.display()))
        .arg("--password-hash")
        .arg(format!("eve:file:{}", hash.display()))
        .args(["--format", "raw"])
        .arg(Variant::Plain.raw())
        .arg("-o")
        .arg(&out)
        .success();
    let report = fs::read_to_string(only(&out, "json")).expect("the report");
    for shown in [&report, &run.stdout, &run.stderr] {
        assert!(!shown.contains("NeverShown"), "a hash is shown: {shown}");
    }
    let domain = fs::read_to_string(only(&out, "xml")).expect("the domain");
    assert!(domain.contains("00:50:56:0a:0b:0c"), "{domain}");

    // All of it can be undone.
    let (back, raw) = (lab.path("back"), lab.path("back.raw"));
    Run::new(["revert".as_ref(), only(&out, "json").as_os_str(), "-o".as_ref(), back.as_os_str()]).success();
    tools::to_raw("qcow2", &only(&back, "qcow2"), &raw);
    tools::assert_clean_ext4(&raw, crate::support::PARTITION);
    let trees = [(Variant::Plain.raw(), "before"), (raw, "after")].map(|(disk, name)| {
        let mounted = Mounted::read_only(&disk, &lab, name);
        Tree::read(mounted.path())
    });
    let changes = trees[0].changes(&trees[1]);
    assert!(trees[0].len() > 5000 && changes.is_empty(), "{changes:?}");

    let raw = lab.path("result.raw");
    tools::to_raw("qcow2", &only(&out, "qcow2"), &raw);
    tools::assert_clean_ext4(&raw, crate::support::PARTITION);
    let guest = Mounted::writable(&raw, &lab, "guest");
    let root = guest.path();
    // GRUB's own reader takes what was changed for a script.
    tools::ok("grub-script-check", [root.join("boot/grub/grub.cfg")]);
    let text = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
    assert_eq!(text("etc/hostname"), "web01\n");
    assert!(text("etc/shadow").contains(&format!("\neve:{HASH}:")));
    assert_eq!(text("opt/app/app.conf"), "a = 1\n");
    assert_eq!(text("root/.ssh/authorized_keys"), format!("{KEY}\n"));
    let home = fs::metadata(root.join("home/eve/.ssh/authorized_keys")).expect("the keys");
    assert_eq!((home.mode() & 0o7777, home.uid() >= 1000), (0o600, true));
    assert_eq!(fs::metadata(root.join("opt/app/app.conf")).expect("the file").uid(), 1);

    // Shadow's own checks of the four tables.
    for check in ["pwck", "grpck"] {
        let said = Command::new(check).args(["-r", "-q", "-R"]).arg(root).output().expect(check);
        let said = String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
        assert!(!said.contains("eve") && !said.contains("invalid"), "{check}: {said}");
    }
    // systemd's own idea of what is enabled, and of the links that enabling makes.
    let enabled = |unit: &str| {
        let said =
            Command::new("systemctl").arg("--root").arg(root).args(["is-enabled", unit]).output().expect("systemctl");
        String::from_utf8_lossy(&said.stdout).trim().to_owned()
    };
    assert_eq!(enabled("hyper2kvm-first-boot.service"), "enabled");
    assert_eq!(enabled("systemd-networkd.service"), "enabled");
    assert_eq!(enabled("ctrl-alt-del.target"), "masked");
    let ours = links(&root.join("etc/systemd/system"));
    guest.close();
    let source = lab.copy(&Variant::Plain.raw(), "source.raw");
    let theirs = Mounted::writable(&source, &lab, "theirs");
    let before = links(&theirs.path().join("etc/systemd/system"));
    tools::ok(
        "systemctl",
        ["--root".as_ref(), theirs.path().as_os_str(), "enable".as_ref(), "systemd-networkd".as_ref()],
    );
    let after = links(&theirs.path().join("etc/systemd/system"));
    assert!(after.len() > before.len(), "systemctl made no links");
    let missing: Vec<_> = after.difference(&ours).collect();
    assert!(missing.is_empty(), "systemctl made these links too: {missing:?}");
    theirs.close();

    // The job of the first boot is one that a shell can run, and it marks what it ran.
    assert_eq!(
        Run::new(["guest", "cat", "--format", "raw"])
            .arg(&raw)
            .arg("/usr/local/lib/hyper2kvm/first-boot/run")
            .success()
            .stdout
            .lines()
            .next(),
        Some("#!/bin/sh")
    );
}

/// Where links lie below a folder, and the last name of what each leads to.
fn links(folder: &Path) -> BTreeSet<(String, String)> {
    let (mut found, mut pending) = (BTreeSet::new(), vec![folder.to_path_buf()]);
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            if let Ok(target) = fs::read_link(&entry) {
                let name = entry.strip_prefix(folder).expect("below it").display().to_string();
                found.insert((name, target.file_name().unwrap_or_default().to_string_lossy().into_owned()));
            } else if entry.is_dir() {
                pending.push(entry);
            }
        }
    }
    found
}

#[test]
fn what_cannot_be_asked_for_is_refused_before_anything_is_written() {
    let lab = Lab::new();
    let out = lab.path("out");
    let config = lab.file("guest.yaml", "hostname: web01\nusres: []\n");
    let migrate = |option: &str, value: &str| {
        let run = Run::new(["migrate", option, value, "--format", "raw"]).arg(Variant::Plain.raw()).arg("-o").arg(&out);
        run.fails_with(2).stderr
    };
    let said = migrate("--config", config.to_str().expect("a path"));
    assert!(said.contains("inject.config") && said.contains("usres") && said.contains("line 2"), "{said}");
    assert!(migrate("--hostname", "a b").contains("inject.value"));
    assert!(migrate("--mac", "00:50:56").contains("address"));
    assert!(migrate("--password-hash", "root:secret").contains("never an argument"));
    let left = fs::read_dir(&out).map_or(0, Iterator::count);
    assert_eq!(left, 0, "something was written");
}
