//! What is asked for, put into synthetic guests.

use super::super::tests::small::volume;
use super::super::{Change, Options, Plan, apply, plan_with};
use super::*;
use crate::fs::{Attributes, Filesystem, MemoryFs, Timestamp};
use crate::inspect::{Machine, Root, find_roots, linux};

const HASH: &str = "$6$saltsalt$QNHn.T3WnhOIlSECRETcXw/";
const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ me@host";
const SYSTEMD: &[(&str, &str)] = &[
    ("/usr/lib/systemd/systemd", "\u{7f}ELF"),
    ("/usr/lib/systemd/system/app@.service", "[Service]\nExecStart=x\n[Install]\nWantedBy=multi-user.target\n"),
    (
        "/usr/lib/systemd/system/ssh.service",
        "[Install]\nWantedBy=multi-user.target\nAlias=sshd.service\nAlso=ssh.socket gone.service\n",
    ),
    ("/usr/lib/systemd/system/ssh.socket", "[Install]\nWantedBy=sockets.target\n"),
    ("/usr/lib/systemd/system/static.service", "[Service]\n"),
];

pub(super) fn guest(files: &[&[(&str, &str)]]) -> Machine {
    let fs = MemoryFs::new("ext4", Some("R"), None);
    let base = [
        ("/etc/fstab", ""),
        ("/bin/bash", ""),
        ("/etc/passwd", "root:x:0:0:root:/root:/bin/bash\nold:x:1000:1000::/home/old:/bin/sh\n+::::::\n"),
        ("/etc/group", "root:x:0:\nsudo:x:27:old\nadm:x:4:\nold:x:1000:\n"),
        ("/etc/gshadow", "root:*::\nsudo:*::old\nadm:*::\nold:!::\n"),
        ("/home/old/.ssh/authorized_keys", "ssh-rsa AAAA old"),
        ("/root/x", ""),
        ("/etc/skel/.profile", "# profile\n"),
        ("/etc/hostname", "before\n"),
        ("/etc/hosts", "127.0.0.1 localhost\n127.0.1.1\tbefore.lan before # own\n10.0.0.1 before\n"),
    ];
    for (path, text) in base.iter().chain(files.iter().copied().flatten()) {
        match path.split_once("->") {
            Some((link, target)) => fs.add_link(link, target).map(drop).unwrap(),
            None => fs.add_file(path, text).map(drop).unwrap(),
        }
    }
    let private = Attributes { mode: 0o640, ..Attributes::default() };
    fs.add_file_with("/etc/shadow", &private, "root:*:19000:0:99999:7:::\nold:$6$a$OLDSECRET:19000:0:99999:7:::\n")
        .unwrap();
    let home = fs.add_dir("/home").unwrap();
    let label = b"system_u:object_r:home_root_t:s0\0";
    fs.writer().unwrap().set_xattr(home, b"security.selinux", label).unwrap();
    Machine { volumes: vec![volume(fs)], ..Machine::default() }
}

fn asked(config: &str) -> Result<Injection> {
    let mut injection = Injection::default();
    injection.add_config(config, &mut |path| match path {
        "hash" => Ok(format!("{HASH}\n").into_bytes()),
        "password" => Ok(b"secret\n".to_vec()),
        "key.pub" => Ok(format!("# mine\n{KEY}\n").into_bytes()),
        "dir/setup.sh" => Ok(b"#!/bin/sh\ntrue\n".to_vec()),
        "dir/agent_1.2-3+b1_amd64.deb" => Ok(b"!<arch>\ndebian-binary".to_vec()),
        "user-data" => Ok(b"#cloud-config\n{}\n".to_vec()),
        other => Err(Error::new(Kind::NotFound, "inject.config", "no such file").found(other)),
    })?;
    Ok(injection)
}

pub(super) fn planned(machine: &Machine, config: &str) -> Result<(Plan, Root)> {
    let root = find_roots(machine)?.remove(0);
    let facts = linux(&root.tree)?;
    let options = Options { inject: asked(config)?, ..Options::default() };
    Ok((plan_with(&facts, machine, &root, &options)?, root))
}

/// Plans, applies, and plans again, which must give nothing.
pub(super) fn done(machine: &Machine, config: &str) -> (Plan, Root) {
    let (plan, root) = planned(machine, config).unwrap();
    apply(&plan, &root.tree, Timestamp::default()).unwrap();
    let again = planned(machine, config).unwrap().0;
    assert!(again.is_empty(), "{:#?}", again.actions);
    (plan, root)
}

pub(super) fn text(root: &Root, path: &str) -> String {
    String::from_utf8(root.tree.read(path, 1 << 20).unwrap().unwrap_or_else(|| panic!("{path}"))).unwrap()
}

fn owner(root: &Root, path: &str) -> (u32, u32, u32) {
    let stat = root.tree.find(path).unwrap().unwrap_or_else(|| panic!("{path}")).stat;
    (stat.mode, stat.uid, stat.gid)
}

fn target(root: &Root, path: &str) -> String {
    String::from_utf8(root.tree.read_link(path).unwrap().unwrap_or_else(|| panic!("{path}"))).unwrap()
}

#[test]
fn users_get_accounts_homes_and_keys_and_no_secret_is_shown() {
    let config = "users:\n  - {name: eve, comment: Eve, groups: [sudo, adm], password_hash_file: hash, ssh_key_files: [key.pub]}\n  \
                  - {name: old, groups: [adm], password_hash_file: hash, ssh_keys: ['ssh-rsa AAAA old', 'ssh-rsa AAAAB new']}\n  \
                  - {name: root, ssh_key_files: [key.pub]}\n";
    let (plan, root) = done(&guest(&[SYSTEMD]), config);
    assert_eq!(
        text(&root, "/etc/passwd"),
        "root:x:0:0:root:/root:/bin/bash\nold:x:1000:1000::/home/old:/bin/sh\neve:x:1001:1001:Eve:/home/eve:/bin/bash\n+::::::\n"
    );
    assert_eq!(text(&root, "/etc/group"), "root:x:0:\nsudo:x:27:old,eve\nadm:x:4:eve,old\nold:x:1000:\neve:x:1001:\n");
    assert_eq!(text(&root, "/etc/gshadow"), "root:*::\nsudo:*::old,eve\nadm:*::eve,old\nold:!::\neve:!::\n");
    assert_eq!(
        text(&root, "/etc/shadow"),
        format!("root:*:19000:0:99999:7:::\nold:{HASH}:19000:0:99999:7:::\neve:{HASH}::0:99999:7:::\n")
    );
    assert_eq!(owner(&root, "/etc/shadow").0, 0o640);
    assert_eq!(owner(&root, "/home/eve"), (0o700, 1001, 1001));
    assert_eq!(owner(&root, "/home/eve/.ssh"), (0o700, 1001, 1001));
    assert_eq!(owner(&root, "/home/eve/.ssh/authorized_keys"), (0o600, 1001, 1001));
    assert_eq!(text(&root, "/home/eve/.ssh/authorized_keys"), format!("{KEY}\n"));
    assert_eq!(text(&root, "/home/eve/.profile"), "# profile\n");
    assert_eq!(text(&root, "/home/old/.ssh/authorized_keys"), "ssh-rsa AAAA old\nssh-rsa AAAAB new\n");
    assert_eq!(text(&root, "/root/.ssh/authorized_keys"), format!("{KEY}\n"));
    let label = |path: &str| root.tree.xattrs(path).unwrap().into_iter().next().map(|(_, value)| value);
    assert_eq!(label("/home/eve").unwrap(), b"system_u:object_r:user_home_dir_t:s0\0");
    assert_eq!(label("/home/eve/.ssh/authorized_keys").unwrap(), b"system_u:object_r:ssh_home_t:s0\0");
    assert_eq!(label("/root/.ssh"), None);
    let shown = serde_json::to_string(&plan).unwrap() + &format!("{:?}", asked(config).unwrap());
    assert!(!shown.contains("SECRET"), "{shown}");
}

#[test]
fn the_host_name_is_changed_wherever_it_is() {
    let more = [
        ("/etc/sysconfig/network", "NETWORKING=yes\nHOSTNAME=before\n"),
        ("/etc/conf.d/hostname", "hostname=\"before\"\n"),
    ];
    let (_, root) = done(&guest(&[SYSTEMD, &more]), "hostname: web01.example.org");
    assert_eq!(text(&root, "/etc/hostname"), "web01.example.org\n");
    assert_eq!(
        text(&root, "/etc/hosts"),
        "127.0.0.1 localhost\n127.0.1.1\tbefore.lan web01.example.org #  own\n10.0.0.1 before\n"
            .replace("#  own", "# own")
    );
    assert_eq!(text(&root, "/etc/sysconfig/network"), "NETWORKING=yes\nHOSTNAME=\"web01.example.org\"\n");
    assert_eq!(text(&root, "/etc/conf.d/hostname"), "hostname=\"web01.example.org\"\n");
    assert!(!root.tree.exists("/etc/HOSTNAME").unwrap());
}

#[test]
fn files_get_their_owner_and_mode_or_keep_them() {
    let config = "files:\n  - {path: /opt/app/config, content: \"a: b\\n\", mode: \"0600\", owner: \"old:sudo\"}\n  \
                  - {path: /etc/hosts, content: new}\n  - {path: /opt/app/x, source: dir/setup.sh, mode: '0755'}\n";
    let (plan, root) = done(&guest(&[SYSTEMD]), config);
    assert_eq!(
        (text(&root, "/opt/app/config"), owner(&root, "/opt/app/config")),
        ("a: b\n".to_owned(), (0o600, 1000, 27))
    );
    assert_eq!(owner(&root, "/opt/app"), (0o755, 0, 0));
    assert_eq!(text(&root, "/etc/hosts"), "new");
    assert_eq!(owner(&root, "/opt/app/x"), (0o755, 0, 0));
    let shown = |path: &str| {
        let action = plan.actions.iter().find(|action| action.path == path).unwrap();
        assert_eq!(action.fix, "inject");
        match &action.change {
            Change::Create { diff, .. } | Change::Edit { diff, .. } => diff.clone(),
            other => panic!("{other:?}"),
        }
    };
    assert!(!shown("/opt/app/config").contains("a: b") && shown("/etc/hosts").contains("+new"));
}

#[test]
fn scripts_of_the_first_boot_run_by_whatever_init_there_is() {
    let config = "first_boot:\n  - source: dir/setup.sh\n  - {name: second, content: \"#!/bin/sh\\n\"}\n";
    let dir = "/usr/local/lib/hyper2kvm/first-boot";
    let (_, root) = done(&guest(&[SYSTEMD]), config);
    assert_eq!(text(&root, &format!("{dir}/scripts/001-setup.sh")), "#!/bin/sh\ntrue\n");
    assert_eq!(owner(&root, &format!("{dir}/scripts/002-second")).0, 0o700);
    let unit = "/etc/systemd/system/hyper2kvm-first-boot.service";
    assert_eq!(target(&root, "/etc/systemd/system/multi-user.target.wants/hyper2kvm-first-boot.service"), unit);
    assert!(text(&root, unit).contains(&format!("ExecStart=/bin/sh {dir}/run\n")));

    let (_, root) = done(&guest(&[&[("/sbin/openrc", ""), ("/etc/runlevels/default/x", "")]]), config);
    assert_eq!(target(&root, "/etc/runlevels/default/hyper2kvm-first-boot"), "/etc/init.d/hyper2kvm-first-boot");
    assert_eq!(owner(&root, "/etc/init.d/hyper2kvm-first-boot").0, 0o755);

    let sysv: Vec<(String, &str)> = (2..6).map(|level| (format!("/etc/rc.d/rc{level}.d/S10x"), "")).collect();
    let mut files: Vec<(&str, &str)> = sysv.iter().map(|(path, text)| (path.as_str(), *text)).collect();
    files.push(("/etc/inittab", ""));
    let (_, root) = done(&guest(&[&files]), config);
    assert_eq!(target(&root, "/etc/rc.d/rc3.d/S99hyper2kvm-first-boot"), "/etc/init.d/hyper2kvm-first-boot");
    assert_eq!(planned(&guest(&[]), config).unwrap_err().code(), "inject.absent");
}

#[test]
fn services_are_enabled_and_masked_by_the_links_that_systemctl_makes() {
    let config = "services: {enable: [ssh, 'app@one.service'], mask: [ctrl-alt-del.target]}";
    let (_, root) = done(&guest(&[SYSTEMD]), config);
    for (link, to) in [
        ("multi-user.target.wants/ssh.service", "/usr/lib/systemd/system/ssh.service"),
        ("sshd.service", "/usr/lib/systemd/system/ssh.service"),
        ("sockets.target.wants/ssh.socket", "/usr/lib/systemd/system/ssh.socket"),
        ("multi-user.target.wants/app@one.service", "/usr/lib/systemd/system/app@.service"),
        ("ctrl-alt-del.target", "/dev/null"),
    ] {
        assert_eq!(target(&root, &format!("/etc/systemd/system/{link}")), to, "{link}");
    }
}

#[test]
fn services_are_disabled_by_removing_the_links_that_start_them() {
    let links = [
        ("/etc/systemd/system/multi-user.target.wants/ssh.service->/usr/lib/systemd/system/ssh.service", ""),
        ("/etc/systemd/system/sshd.service->/usr/lib/systemd/system/ssh.service", ""),
        ("/etc/systemd/system/x.target.requires/app@one.service->/usr/lib/systemd/system/app@.service", ""),
        ("/usr/lib/systemd/system/sockets.target.wants/ssh.socket->../ssh.socket", ""),
        ("/etc/init.d/old", "#!/bin/sh\n"),
        ("/etc/rc3.d/S07old->../init.d/old", ""),
        ("/etc/rc0.d/K07old->../init.d/old", ""),
    ];
    let machine = guest(&[SYSTEMD, &links]);
    let (_, root) = done(&machine, "services: {disable: [ssh, 'app@one', old]}");
    for (path, is_there) in [
        ("/etc/systemd/system/multi-user.target.wants/ssh.service", false),
        ("/etc/systemd/system/sshd.service", false),
        ("/etc/systemd/system/x.target.requires/app@one.service", false),
        ("/etc/rc3.d/S07old", false),
        ("/etc/rc3.d/K93old", true),
        ("/usr/lib/systemd/system/ssh.service", true),
    ] {
        assert_eq!(root.tree.find_link(path).unwrap().is_some(), is_there, "{path}");
    }
    for (config, says) in [
        ("services: {disable: [ssh.socket]}", "ssh.socket"),
        ("services: {disable: [nothing]}", "nothing"),
        ("services: {disable: [ssh], enable: [ssh]}", "ssh"),
    ] {
        assert!(planned(&machine, config).unwrap_err().to_string().contains(says), "{config}");
    }
    let openrc = [
        ("/sbin/openrc", ""),
        ("/etc/init.d/sshd", "#!/sbin/openrc-run\n"),
        ("/etc/runlevels/default/sshd->/etc/init.d/sshd", ""),
    ];
    let (_, root) = done(&guest(&[&openrc]), "services: {disable: [sshd]}");
    assert!(root.tree.find_link("/etc/runlevels/default/sshd").unwrap().is_none());
}

#[test]
fn the_guest_agent_is_installed_at_the_first_boot_where_there_is_none() {
    const SCRIPT: &str = "/usr/local/lib/hyper2kvm/first-boot/scripts/001-guest-agent";
    let (_, root) = done(&guest(&[SYSTEMD]), "guest_agent: install");
    let script = text(&root, SCRIPT);
    assert!(script.starts_with("#!/bin/sh\n") && script.contains("apt-get -q -y install \"$name\"\n"), "{script}");
    let dpkg = [("/usr/bin/dpkg", "")];
    let (_, root) = done(&guest(&[SYSTEMD, &dpkg]), "guest_agent: dir/agent_1.2-3+b1_amd64.deb");
    let script = text(&root, SCRIPT);
    let package = "/usr/local/lib/hyper2kvm/packages/agent_1.2-3+b1_amd64.deb";
    assert!(script.contains(&format!("dpkg -i {package}\n")), "{script}");
    assert_eq!(text(&root, package), "!<arch>\ndebian-binary");
    let has = [("/usr/sbin/qemu-ga", "")];
    assert!(planned(&guest(&[SYSTEMD, &has]), "guest_agent: install").unwrap().0.is_empty());
    let error = planned(&guest(&[SYSTEMD]), "guest_agent: dir/agent_1.2-3+b1_amd64.deb").unwrap_err();
    assert_eq!(error.code(), "inject.absent");
    for bad in ["hash", "dir/setup.sh"] {
        let error = planned(&guest(&[SYSTEMD]), &format!("guest_agent: {bad}")).unwrap_err();
        assert_eq!(error.code(), "inject.value", "{bad}");
    }
}

#[test]
fn labels_are_those_of_the_guests_policy() {
    const POLICY: &str = "/etc/selinux/targeted/contexts/files/file_contexts";
    let contexts = "/home(/.*)? system_u:object_r:home_root_t:s0\n/home/[^/]+ -d u:object_r:user_home_dir_t:s0\n\
        /home/[^/]+/.+ u:object_r:user_home_t:s0\n/home/[^/]+/\\.ssh(/.*)? u:object_r:ssh_home_t:s0\n";
    let config = ("/etc/selinux/config", "SELINUX=enforcing\nSELINUXTYPE=targeted\n");
    let wanted = "files: [{path: /home/eve/.x/y, content: z}]\nusers: [{name: old, ssh_keys: ['ssh-rsa AAAAB n']}]\n";
    let label = |root: &Root, path: &str| {
        let label = root.tree.xattrs(path).unwrap().into_iter().find(|(name, _)| name == b"security.selinux");
        label.map(|(_, label)| String::from_utf8(label).unwrap())
    };
    let mark = |machine: &Machine| {
        let root = find_roots(machine).unwrap().remove(0);
        for path in ["/home/old/.ssh", "/home/old/.ssh/authorized_keys"] {
            root.tree.set_xattr(path, b"security.selinux", b"u:object_r:default_t:s0\0").unwrap();
        }
        root.tree.set_owner("/home/old/.ssh", 0o777, 1000, 1000).unwrap();
    };
    let machine = guest(&[SYSTEMD, &[config, (POLICY, contexts)]]);
    mark(&machine);
    let (plan, root) = done(&machine, wanted);
    assert_eq!(label(&root, "/home/eve").unwrap(), "u:object_r:user_home_dir_t:s0\0");
    assert_eq!(label(&root, "/home/eve/.x").unwrap(), "u:object_r:user_home_t:s0\0");
    assert_eq!(label(&root, "/home/eve/.x/y").unwrap(), "u:object_r:user_home_t:s0\0");
    assert_eq!(label(&root, "/home/old/.ssh").unwrap(), "u:object_r:ssh_home_t:s0\0");
    assert_eq!(label(&root, "/home/old/.ssh/authorized_keys").unwrap(), "u:object_r:ssh_home_t:s0\0");
    assert_eq!(owner(&root, "/home/old/.ssh").0, 0o700);
    assert!(!plan.paths().contains(&"/.autorelabel"));
    // Without its text, or where that is not understood, the guest labels its files itself.
    for files in [
        vec![config, ("/etc/selinux/targeted/contexts/files/file_contexts.bin", "")],
        vec![config, (POLICY, "/home/(?!x).* u:object_r:x_t:s0\n")],
    ] {
        let machine = guest(&[SYSTEMD, &files]);
        let (plan, root) = done(&machine, wanted);
        assert_eq!(label(&root, "/home/eve/.x/y").unwrap(), "system_u:object_r:home_root_t:s0\0");
        assert_eq!(plan.actions.iter().filter(|action| action.fix == "selinux").count(), 1);
        assert!(root.tree.is_file("/.autorelabel").unwrap());
    }
    let off = ("/etc/selinux/config", "SELINUX=disabled\n");
    let (plan, _) = done(&guest(&[SYSTEMD, &[off, (POLICY, contexts)]]), wanted);
    assert!(!plan.paths().contains(&"/.autorelabel"));
}

#[test]
fn cloud_init_gets_a_seed_or_is_switched_off() {
    let cloud = [("/etc/cloud/cloud.cfg", "{}\n")];
    let (_, root) = done(&guest(&[SYSTEMD, &cloud]), "cloud_init: {user_data: user-data}");
    assert_eq!(text(&root, "/var/lib/cloud/seed/nocloud/user-data"), "#cloud-config\n{}\n");
    assert_eq!(owner(&root, "/var/lib/cloud/seed/nocloud/user-data").0, 0o600);
    let meta = text(&root, "/var/lib/cloud/seed/nocloud/meta-data");
    assert!(meta.starts_with("instance-id: hyper2kvm-") && meta.len() == 40, "{meta}");
    assert!(text(&root, "/etc/cloud/cloud.cfg.d/99-hyper2kvm.cfg").contains("datasource_list: [NoCloud, None]\n"));
    let (_, root) = done(&guest(&[SYSTEMD, &cloud]), "cloud_init: {disable: true}");
    assert!(root.tree.is_file("/etc/cloud/cloud-init.disabled").unwrap());
}

#[test]
fn what_cannot_be_followed_is_an_error_that_says_where() {
    for (config, code, says) in [
        ("hostname: a\nusres: []\n", "inject.config", "line 2"),
        ("users:\n  - name: a\n    pasword: x\n", "inject.config", "line 3"),
        ("users: [{name: a, password_hash_file: password}]", "inject.value", "openssl"),
        ("users: [{name: a, password_hash_file: none}]", "inject.config", "none"),
        ("users: [{name: 'A:0'}]", "inject.value", "A:0"),
        ("users: [{name: a, shell: 'x:y'}]", "inject.value", "x:y"),
        ("users: [{name: a, uid: 1000}]", "inject.value", "1000"),
        ("users: [{name: a, groups: [none]}]", "inject.absent", "none"),
        ("users: [{name: a, ssh_keys: ['-----BEGIN OPENSSH PRIVATE KEY-----']}]", "inject.value", ".pub"),
        ("users: [{name: a, ssh_keys: [\"ssh-rsa AAAA\\nssh-rsa AAAA\"]}]", "inject.value", ".pub"),
        ("hostname: 'a b'", "inject.value", "a b"),
        ("hostname: -a", "inject.value", "-a"),
        ("files: [{path: /a/../b, content: x}]", "inject.value", ".."),
        ("files: [{path: rel, content: x}]", "inject.value", "rel"),
        ("files: [{path: /a}]", "inject.config", "content or source"),
        ("files: [{path: /a, content: x, source: y}]", "inject.config", "content or source"),
        ("files: [{path: /a, content: x, mode: '999'}]", "inject.value", "999"),
        ("files: [{path: /a, content: x, owner: nobody}]", "inject.absent", "nobody"),
        ("files: [{path: /etc/hosts, content: x, mode: '0600'}]", "inject.impossible", "mode"),
        ("files: [{path: /etc, content: x}]", "inject.impossible", "/etc"),
        ("first_boot: [{name: ../x, content: '#!/bin/sh'}]", "inject.value", "../x"),
        ("first_boot: [{name: x, content: 'true'}]", "inject.value", "first line"),
        ("services: {enable: [nothing]}", "inject.absent", "nothing"),
        ("services: {enable: [static]}", "inject.absent", "static"),
        ("services: {enable: ['../x']}", "inject.value", "../x"),
        ("services: {stop: [ssh]}", "inject.config", "stop"),
        ("cloud_init: {user_data: user-data}", "inject.absent", "cloud.cfg"),
        ("cloud_init: {}", "inject.config", "disable: true"),
        ("[", "inject.config", "line"),
        ("a: &a [*a, *a]", "inject.config", ""),
    ] {
        let error = planned(&guest(&[SYSTEMD]), config).unwrap_err();
        let text = format!("{error} {}", error.next().unwrap_or_default());
        assert_eq!(error.code(), code, "{config}: {text}");
        assert!(text.contains(says), "{config}: {text}");
    }
}

#[test]
fn a_full_file_system_refuses_everything() {
    let config = format!("files: [{{path: /a, content: '{}'}}]", "x".repeat(100_000));
    let fs = MemoryFs::new("ext4", Some("R"), None);
    fs.add_file("/etc/fstab", "").unwrap();
    fs.add_dir("/bin").unwrap();
    let machine = Machine { volumes: vec![volume(fs.with_capacity(1 << 20))], ..Machine::default() };
    assert_eq!(planned(&machine, &config).unwrap_err().code(), "inject.impossible");
}

#[test]
fn hashes_are_told_from_passwords() {
    for hash in [HASH, "$y$j9T$abc$def", "$2b$12$abcdefghijklmnopqrstuv", "$5$rounds=5000$salt$hash"] {
        assert!(PasswordHash::parse(hash.as_bytes()).is_ok(), "{hash}");
    }
    let long = format!("$6$a${}", "x".repeat(600));
    for bad in ["", "secret", "$6$", "$6$a:b$c", "$6$a$b\n$c", "!", "*", "x", &long, "$a$b$ü"] {
        assert!(PasswordHash::parse(bad.as_bytes()).is_err(), "{bad}");
    }
}
