//! Against what libselinux says of the same policy.

#![allow(clippy::disallowed_methods, reason = "the second implementation is a program")]

use std::process::Command;

use super::*;

/// In the manner of a policy: from what says little to what says much, with each kind of line.
const CONTEXTS: &str = "# a comment
/.*\tsystem_u:object_r:default_t:s0
/[^/]+\t--\tsystem_u:object_r:etc_runtime_t:s0
/etc/.*\t\tsystem_u:object_r:etc_t:s0
/etc(/.*)?\t-d\tsystem_u:object_r:etc_t:s0
/(a|b)x/.*\tsystem_u:object_r:ab_t:s0
/usr/lib/systemd/system(/.*)?\tsystem_u:object_r:systemd_unit_t:s0
/usr/(.*/)?bin(/.*)?\tsystem_u:object_r:bin_t:s0
/etc/systemd/network/[^/]+\\.link\t--\tsystem_u:object_r:link_t:s0
/etc/systemd/system(/.*)?\t\tsystem_u:object_r:systemd_unit_t:s0
/etc/systemd/system/.*\\.wants/.*\t-l\tsystem_u:object_r:wants_t:s0
/etc/rc\\.d/rc[0-6]\\.d(/.*)?\tsystem_u:object_r:rc_t:s0
/etc/x?y\t\tsystem_u:object_r:xy_t:s0
/etc/z*\t\tsystem_u:object_r:z_t:s0
/etc/exact\\.conf\t\tsystem_u:object_r:exact_t:s0
/etc/exact\\.con.\t\tsystem_u:object_r:less_t:s0
/etc/n{2}\t\tsystem_u:object_r:nn_t:s0
/var/run/.*\t\t<<none>>
/var/run/known\t--\tsystem_u:object_r:known_t:s0
/opt/one|/opt/two\t\tsystem_u:object_r:two_t:s0
/dev/.*\t-c\tsystem_u:object_r:device_t:s0
/short
";
const HOMES: &str = "/home/[^/]+\t-d\tunconfined_u:object_r:user_home_dir_t:s0
/home/[^/]+/.+\tunconfined_u:object_r:user_home_t:s0
/home/[^/]+/\\.ssh(/.*)?\tsystem_u:object_r:ssh_home_t:s0
";
const LOCAL: &str = "/srv/www(/.*)?    system_u:object_r:httpd_sys_content_t:s0\n";
const SUBS: &str = "/export/home /home\n# /etc /x\n";
const SUBS_DIST: &str = "/run /var/run\n/lib /usr/lib\n/usr/local/lib /usr/lib\n/sysroot /\n/run/lock /var/lock\n";

const PATHS: &[&str] = &[
    "/",
    "/x",
    "/.autorelabel",
    "/etc",
    "/etc/hosts",
    "/etc/exact.conf",
    "/etc/exact.conx",
    "/etc/exactXconf",
    "/etc/xy",
    "/etc/y",
    "/etc/zzz",
    "/etc/",
    "/etc/nn",
    "/etc/systemd/network/10-hyper2kvm-ens192.link",
    "/etc/systemd/network/10.link/x",
    "/etc/systemd/system",
    "/etc/systemd/system/a.service",
    "/etc/systemd/system/multi-user.target.wants/a.service",
    "/etc/rc.d/rc3.d/S01x",
    "/etc/rc.d/rc7.d/S01x",
    "/ax/y",
    "/bx/y",
    "/cx/y",
    "/usr/lib/systemd/system/a.service",
    "/lib/systemd/system/a.service",
    "/library/systemd/system/a.service",
    "/usr/local/lib/systemd/system/a",
    "/usr/share/x/bin/y",
    "/run/known",
    "/run/other",
    "/run/lock/x",
    "/sysroot/etc/hosts",
    "/sysroot",
    "/home/eve",
    "/home/eve/.ssh",
    "/home/eve/.ssh/authorized_keys",
    "/home/eve/.profile",
    "/export/home/eve/.ssh/authorized_keys",
    "/srv/www/index.html",
    "/opt/one",
    "/opt/two",
    "/opt/two/x",
    "/dev/x",
    "/short",
];

fn contexts() -> Contexts {
    let texts = [CONTEXTS, HOMES, LOCAL].map(str::to_owned);
    Contexts::parse(&texts, [SUBS, SUBS_DIST])
}

#[test]
fn gives_the_labels_that_libselinux_gives() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file_contexts");
    for (end, text) in
        [("", CONTEXTS), (".homedirs", HOMES), (".local", LOCAL), (".subs", SUBS), (".subs_dist", SUBS_DIST)]
    {
        // The line that is too short is an error for libselinux.
        let text = text.replace("/short\n", "");
        std::fs::write(dir.path().join(format!("file_contexts{end}")), text).unwrap();
    }
    let contexts = contexts();
    for (name, kind) in [("file", FileKind::Regular), ("dir", FileKind::Directory), ("lnk_file", FileKind::Symlink)] {
        let output = Command::new("matchpathcon")
            .args(["-n", "-m", name, "-f"])
            .arg(&file)
            .args(PATHS)
            .env("LC_ALL", "C")
            .output()
            .expect("matchpathcon is needed: apt-get install selinux-utils");
        let shown = String::from_utf8(output.stdout).unwrap();
        let said: Vec<&str> = shown.lines().collect();
        assert_eq!(said.len(), PATHS.len(), "{shown}");
        for (path, said) in PATHS.iter().zip(said) {
            let own = match contexts.label(path.trim_end_matches('/'), kind) {
                Label::Context(context) => context,
                Label::Inherited => "<<none>>",
                Label::Unknown => panic!("{path}"),
            };
            if *path != "/" {
                assert_eq!(own, said, "{name} {path}");
            }
        }
    }
}

#[test]
fn what_is_not_understood_is_unknown_only_where_it_could_match() {
    let texts = ["/etc/.* a:b:c_t:s0\n/etc/(?!x).* a:b:d_t:s0\n/usr/[ a:b:e_t:s0\n".to_owned()];
    let contexts = Contexts::parse(&texts, ["", ""]);
    assert_eq!(contexts.label("/etc/x", FileKind::Regular), Label::Unknown);
    assert_eq!(contexts.label("/usr/x", FileKind::Regular), Label::Unknown);
    assert_eq!(contexts.label("/var/x", FileKind::Regular), Label::Inherited);
}

#[test]
fn hostile_policies_do_no_harm() {
    for text in [
        "",
        "\\",
        "\\ a",
        "/a\\ a:b:c",
        "((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((( a",
        "/(a{1000}){1000} a",
        "/x{99999999} a",
        "/\u{0}\u{7f} -- a",
        "/etc -z a",
        "a b c d e",
        "| a",
        "* a",
        "[[:foo:]] a",
        "/é+ a",
    ] {
        let contexts = Contexts::parse(&[text.to_owned()], [text, text]);
        for path in ["", "/", "/etc", "/a\\", "/aaaa", "/x", "/é"] {
            contexts.label(path, FileKind::Regular);
        }
    }
}
