//! What lets us in at other machines: given in any way it works, and then it is in no output, log, file, argument or environment.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::support::ssh::{PASSPHRASE, Sshd};
use crate::support::web::{Nginx, PASSWORD};
use crate::support::{Lab, Ran, Run, Variant, tools};

/// The secrets of these tests, right and wrong ones. Guests have the word alone in them.
const CANARIES: [&str; 4] = [PASSWORD, PASSPHRASE, "canary-wrong", "canary-again"];

/// The first 24 MiB of the guest's disk, in the folder that is served, and a folder to work in.
fn prepare(lab: &Lab) -> PathBuf {
    lab.folder("www");
    let mut bytes = Vec::new();
    File::open(Variant::Plain.raw()).expect("the guest").take(24 << 20).read_to_end(&mut bytes).expect("reading");
    lab.file("www/small.raw", bytes);
    lab.folder("work")
}

/// A run that says all that it can, in the folder to work in.
fn loud(run: Run, work: &Path) -> Ran {
    run.within(work).arg("-vvv").env("HYPER2KVM_LOG", "trace").ran()
}

/// Nothing that the run said has a secret in it, and nothing in the folder.
fn assert_silent(ran: &Ran, work: &Path) {
    let has_one = |text: &str| CANARIES.iter().any(|canary| text.contains(canary));
    assert!(!has_one(&ran.stdout) && !has_one(&ran.stderr), "{ran}");
    let found = tools::output("grep", ["-rlaE".as_ref(), CANARIES.join("|").as_ref(), work.as_os_str()]);
    assert_eq!(found.status.code(), Some(1), "{} after {}", String::from_utf8_lossy(&found.stdout), ran.line);
}

/// How a secret is given to a web server.
enum Way {
    /// By flags, of which `FILE` is that of the secret.
    Flags(&'static [&'static str]),
    /// By flags, of which descriptor 0 has it.
    Stdin(&'static [&'static str]),
    Variable(&'static str, &'static [&'static str]),
}

/// Each way: where on the server it is needed, and what stands before and behind the secret in the file.
const WAYS: [(&str, Way, [&str; 2]); 13] = [
    ("login/", Way::Flags(&["--login", "me", "--password-file", "FILE"]), ["", "\n"]),
    ("login/", Way::Stdin(&["--login", "me", "--password-fd", "0"]), ["", "\n"]),
    ("login/", Way::Variable("HYPER2KVM_PASSWORD", &["--login", "me"]), ["", ""]),
    ("login/", Way::Flags(&["--netrc-file", "FILE"]), ["machine 127.0.0.1 login me password ", "\n"]),
    ("token/", Way::Flags(&["--token-file", "FILE"]), ["", "\n"]),
    ("token/", Way::Stdin(&["--token-fd", "0"]), ["", ""]),
    ("token/", Way::Variable("HYPER2KVM_TOKEN", &[]), ["", ""]),
    ("cookie/", Way::Flags(&["--cookie-file", "FILE"]), ["session=", "\n"]),
    ("cookie/", Way::Variable("HYPER2KVM_COOKIE", &[]), ["session=", ""]),
    ("away/", Way::Flags(&[]), ["", ""]),
    ("signed/?", Way::Flags(&[]), ["", ""]),
    ("signed/?", Way::Flags(&["--cache-dir", "blocks"]), ["", ""]),
    ("signed/?", Way::Flags(&["--login", "me", "--password-file", "FILE"]), ["", "\n"]),
];

#[test]
fn secrets_let_us_in_on_web_servers_and_are_seen_nowhere() {
    let lab = Lab::new();
    let work = prepare(&lab);
    let nginx = Nginx::start(&lab);
    for (number, (place, way, [before, behind])) in WAYS.iter().enumerate() {
        let (folder, signature) = match place.strip_suffix('?') {
            Some(folder) => (folder, format!("?sv=1&sig={PASSWORD}&se=2")),
            None => (*place, String::new()),
        };
        let give = |run: Run, secret: &str| {
            let text = format!("{before}{secret}{behind}");
            let file = lab.file(&format!("secret-{number}-{}", secret == PASSWORD), &text);
            let with = |run: Run, flags: &[&str]| {
                flags.iter().fold(run, |run, flag| if *flag == "FILE" { run.arg(&file) } else { run.arg(flag) })
            };
            match way {
                Way::Flags(flags) => with(run, flags),
                Way::Stdin(flags) => with(run, flags).stdin(File::open(&file).expect("the secret")),
                Way::Variable(name, flags) => with(run, flags).env(name, &text),
            }
        };
        let url = |file: &str| nginx.http(&format!("{folder}{file}{signature}"));
        let convert = Run::new(["convert", "--force", "--json", &url("small.raw"), "out.qcow2"]);
        let wrong_way = signature.is_empty() && *place != "away/";
        let wrong = if wrong_way { "canary-wrong" } else { PASSWORD };
        let (missing, code) = if wrong_way { ("small.raw", "http.denied") } else { ("none.raw", "http.missing") };
        let runs = [
            (give(convert, PASSWORD), 0, ""),
            (give(Run::new(["explain", "--read", &url("small.raw")]), PASSWORD), 0, ""),
            (give(Run::new(["info", "--json", &url("none.raw")]), PASSWORD), 3, "http.missing"),
            (give(Run::new(["info", &url(missing)]), wrong), 3, code),
        ];
        for (run, exit, code) in runs {
            let ran = loud(run, &work).exits_with(exit);
            assert!(ran.stderr.contains(code) || ran.stdout.contains(code), "{place}: {ran}");
            assert_silent(&ran, &work);
        }
    }
}

#[test]
fn secrets_are_no_part_of_an_address_and_go_nowhere_unencrypted() {
    let lab = Lab::new();
    let work = prepare(&lab);
    let file = lab.file("secret", PASSWORD);
    for scheme in ["https", "ssh", "nbd"] {
        let with_password = format!("{scheme}://me:{PASSWORD}@localhost/x");
        let ran = loud(Run::new(["info", &with_password]), &work).exits_with(2).code("source.secret");
        assert_silent(&ran, &work);
    }
    let plain = Run::new(["info", "http://example.com/x", "--login", "me", "--password-file"]).arg(&file);
    let ran = loud(plain, &work).exits_with(5).code("http.plain");
    assert_silent(&ran, &work);
}

#[test]
fn a_report_of_a_guest_from_a_signed_address_has_no_signature() {
    let lab = Lab::new();
    let work = prepare(&lab);
    lab.link(&Variant::Plain.vmdk("stream"), "www/guest.vmdk");
    let nginx = Nginx::start(&lab);
    let source = nginx.http(&format!("signed/guest.vmdk?sig={PASSWORD}"));
    let migrate = Run::new(["migrate", &source, "-o", "out", "--verify", "off", "--progress", "json"]);
    let ran = loud(migrate, &work).exits_with(0);
    assert_eq!(lab.names("work/out").len(), 4, "disk, domain, report and what undoes it");
    assert_silent(&ran, &work);
}

#[test]
fn programs_that_we_start_get_no_secret() {
    let lab = Lab::new();
    let work = prepare(&lab);
    let sshd = Sshd::start(&lab, "sshd", "");
    let path = |name: &str| sshd.file(name).display().to_string();
    let config = format!("UserKnownHostsFile {}\nIdentityFile {}\nBatchMode yes\n", path("known"), path("key"));
    let config = lab.file("config", config);
    let heard = lab.path("work/heard");
    let program =
        lab.file("program", format!("#!/bin/sh\n{{ echo \"$@\"; env; }} >>{}\nexec ssh \"$@\"\n", heard.display()));
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("its mode");
    let secret = lab.file("secret", PASSWORD);
    let run = Run::new(["convert", &sshd.url(&lab.path("www/small.raw")), "out.qcow2", "--ssh-config"]).arg(&config);
    let run = run.arg("--ssh-program").arg(&program).arg("--password-file").arg(&secret);
    let variables = ["PASSWORD", "TOKEN", "COOKIE", "PASSPHRASE"].map(|name| format!("HYPER2KVM_{name}"));
    let run = variables.iter().fold(run, |run, name| run.env(name, PASSWORD));
    let ran = loud(run, &work).exits_with(0);
    assert!(fs::read_to_string(&heard).expect("what it heard").contains("PATH="));
    assert_silent(&ran, &work);
}

#[test]
fn passwords_let_us_in_on_ssh_servers_and_are_seen_nowhere() {
    let lab = Lab::new();
    let work = prepare(&lab);
    let disk = lab.path("www/small.raw");
    let [right, wrong] = [PASSWORD, "canary-wrong"].map(|secret| lab.file(secret, format!("{secret}\n")));
    for (name, more) in [
        ("plain", "PasswordAuthentication yes"),
        ("asking", "UsePAM yes\nKbdInteractiveAuthentication yes"),
        ("both", "UsePAM yes\nPasswordAuthentication yes\nKbdInteractiveAuthentication yes"),
    ] {
        let sshd = Sshd::start_with_password(&lab, name, more, PASSWORD);
        let info = || sshd.run_without_key(&["info", &sshd.url(&disk)]);
        let stranger = || sshd.run_with("stranger", &["info", &sshd.url(&disk)]);
        let runs = [
            (info().arg("--password-file").arg(&right), 0),
            (stranger().arg("--password-file").arg(&right), 0),
            (info().args(["--password-fd", "0"]).stdin(File::open(&right).expect("the secret")), 0),
            (info().env("HYPER2KVM_PASSWORD", PASSWORD), 0),
            (info().typing(&right), 0),
            (info().typing(&wrong), 3),
            (info().arg("--password-file").arg(&wrong), 3),
            (info(), 3),
        ];
        for (number, (run, exit)) in runs.into_iter().enumerate() {
            let ran = loud(run, &work).exits_with(exit);
            assert!(
                exit == 0 || ran.stderr.contains("ssh.login") || ran.stdout.contains("ssh.login"),
                "{name} {number}: {ran}"
            );
            assert_silent(&ran, &work);
        }
        let (out, url) = (format!("{name}.qcow2"), sshd.url(&disk));
        let convert =
            sshd.run_without_key(&["convert", "--format", "raw", &url, &out]).arg("--password-file").arg(&right);
        assert_silent(&loud(convert, &work).exits_with(0), &work);
        tools::assert_same_content(("raw", &disk), ("qcow2", &work.join(&out)));
        fs::remove_file(work.join(&out)).expect("removing");
    }
}

#[test]
fn a_secret_that_is_needed_is_asked_for_on_a_terminal_and_nowhere_else() {
    let lab = Lab::new();
    let work = prepare(&lab);
    let nginx = Nginx::start(&lab);
    let sshd = Sshd::start(&lab, "sshd", "");
    let right = lab.file("right", format!("{PASSWORD}\n"));
    let wrong = lab.file("wrong", "canary-wrong\ncanary-again\n");
    let given = lab.file("given", "canary-wrong\n");
    let passphrase = lab.file("passphrase", format!("{PASSPHRASE}\n"));
    let source = nginx.http("login/small.raw");
    let info = |more: &[&str]| more.iter().fold(Run::new(["info", &source]), Run::arg);
    let locked = || sshd.run_with("locked", &["info", &sshd.url(&lab.path("www/small.raw"))]);
    let (asks, locks) = ("Password of me at 127.0.0.1: ", "Passphrase of ");
    let cases = [
        (info(&["--login", "me"]).typing(&right), 0, 1, asks),
        (info(&["--login", "me"]).typing(&wrong), 3, 1, asks),
        (info(&["--login", "me", "--password-file"]).arg(&given).typing(&right), 3, 0, asks),
        (info(&[]).typing(&right), 3, 0, asks),
        (info(&["--login", "me"]), 3, 0, asks),
        (locked().typing(&passphrase), 0, 1, locks),
        (locked().arg("--passphrase-file").arg(&given).typing(&passphrase), 2, 0, locks),
        (locked(), 3, 0, locks),
    ];
    for (number, (run, exit, times, question)) in cases.into_iter().enumerate() {
        let ran = loud(run, &work).exits_with(exit);
        assert_eq!(ran.stdout.matches(question).count(), times, "{number}: {ran}");
        assert_silent(&ran, &work);
    }
}
