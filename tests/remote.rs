//! One guest at every kind of place: migrated from there, it is the same as from a file, and each byte comes once, whatever goes
//! wrong on the way.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::support::line::Line;
use crate::support::nbd::Server;
use crate::support::ssh::Sshd;
use crate::support::web::Nginx;
use crate::support::{Bus, Lab, Machine, Run, Variant, only, tools};

/// Migrates with the same time written into the guest each time, so that the results are the same.
fn migrate(run: Run, out: &Path) -> PathBuf {
    run.arg("-o").arg(out).args(["--verify", "off"]).env("SOURCE_DATE_EPOCH", "1700000000").success();
    only(out, "qcow2")
}

/// What the guest becomes that lies in a file of this host.
fn local() -> &'static Path {
    static LOCAL: OnceLock<PathBuf> = OnceLock::new();
    LOCAL.get_or_init(|| {
        let out = Lab::shared().join("local");
        migrate(Run::new(["migrate"]).arg(Variant::Plain.vmdk("stream")), &out)
    })
}

/// A place where the guest lies, behind a line.
struct Place<'a> {
    name: &'a str,
    line: &'a Line,
    /// The run that migrates it.
    run: Run,
    /// Connections are cut.
    is_cut: bool,
}

/// Migrates from each place, and gives the last result.
fn all_the_same(lab: &Lab, places: Vec<Place<'_>>) -> PathBuf {
    let len = fs::metadata(Variant::Plain.vmdk("stream")).expect("the guest").len();
    let mut last = None;
    for Place { name, line, run, is_cut } in places {
        let before = line.sent();
        let out = lab.path(name);
        let disk = migrate(run, &out);
        let sent = line.sent() - before;
        assert!(sent >= len / 2 && sent <= len + len / 20, "{name}: {sent} bytes were sent of {len}");
        assert_eq!(line.cuts() > 3, is_cut, "{name}: {} cuts", line.cuts());
        tools::ok("cmp", [local(), &disk]);
        last = Some(disk);
    }
    last.expect("a place")
}

#[test]
fn on_web_servers_that_are_slow_busy_or_broken_off() {
    let lab = Lab::new();
    lab.folder("www");
    lab.link(&Variant::Plain.vmdk("stream"), "www/guest.vmdk");
    let nginx = Nginx::start(&lab);
    let [http, https] = nginx.ports();
    let (plain, secret, cut) = (Line::tcp(http), Line::tcp(https), Line::tcp(http));
    cut.cut_after(15 << 20);
    let run = |source: &str| {
        let run = Run::new(["migrate", source]).args(["--net-retries", "20"]);
        run.arg("--cacert").arg(nginx.file("cert.pem"))
    };
    let at = |line: &Line, folder: &str| run(&format!("http://127.0.0.1:{}/{folder}guest.vmdk", line.port()));
    let by_tls = run(&format!("https://localhost:{}/guest.vmdk", secret.port()));
    let places = vec![
        Place { name: "tls", line: &secret, run: by_tls, is_cut: false },
        Place { name: "limited", line: &plain, run: at(&plain, "limited/"), is_cut: false },
        Place { name: "busy", line: &plain, run: at(&plain, "now-and-then/"), is_cut: false },
        Place { name: "cut", line: &cut, run: at(&cut, ""), is_cut: true },
    ];
    let disk = all_the_same(&lab, places);
    let facts = Machine::new(&disk, "qcow2", Bus::VirtioBlk).boot().up();
    assert_eq!(facts["failed"], "", "{facts:?}");
}

#[test]
fn on_ssh_servers_whose_connections_break() {
    let lab = Lab::new();
    let vmdk = lab.link(&Variant::Plain.vmdk("stream"), "guest.vmdk");
    let sshd = Sshd::start(&lab, "sshd", "");
    let (whole, cut) = (Line::tcp(sshd.port), Line::tcp(sshd.port));
    cut.cut_after(40 << 20);
    let at = |line: &Line| {
        let source = format!("ssh://root@127.0.0.1:{}{}", line.port(), vmdk.display());
        sshd.run(&["migrate", &source, "--ssh-host-key", &sshd.host_key()])
    };
    let places = vec![
        Place { name: "whole", line: &whole, run: at(&whole), is_cut: false },
        Place { name: "cut", line: &cut, run: at(&cut), is_cut: true },
    ];
    all_the_same(&lab, places);
}

#[test]
fn on_nbd_servers_that_are_slow_or_fail() {
    let lab = Lab::new();
    let vmdk = Variant::Plain.vmdk("stream");
    let text = vmdk.display().to_string();
    let kit = |name: &str, args: &[&str]| {
        let words: Vec<&str> = args.iter().map(|word| if *word == "FILE" { text.as_str() } else { *word }).collect();
        Server::nbdkit(&lab.path(&format!("{name}.socket")), words)
    };
    let _servers = [
        Server::qemu(&lab.path("qemu.socket"), "raw", &vmdk, &["-r"]),
        kit("delayed", &["--filter=delay", "file", "FILE", "rdelay=10ms"]),
        kit("failing", &["--filter=error", "file", "FILE", "error=EIO", "error-pread-rate=5%"]),
        kit("limited", &["--filter=rate", "file", "FILE", "rate=400M"]),
    ];
    let names = ["qemu", "delayed", "failing", "limited"];
    let lines = names.map(|name| Line::unix(&lab.path(&format!("{name}.line")), &lab.path(&format!("{name}.socket"))));
    let places = names.into_iter().zip(&lines).map(|(name, line)| {
        let run = Run::new(["migrate", &line.uri("")]).args(["--net-retries", "20"]);
        Place { name, line, run, is_cut: false }
    });
    all_the_same(&lab, places.collect());
}
