//! Sources on SSH servers: read there like files, by every command, with OpenSSH as the server.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use crate::support::line::Line;
use crate::support::ssh::{PASSPHRASE, Sshd};
use crate::support::{Lab, Run, Variant, tools};

/// The first 24 MiB of the guest's disk.
fn small(lab: &Lab) -> PathBuf {
    let mut bytes = Vec::new();
    File::open(Variant::Plain.raw()).expect("the guest").take(24 << 20).read_to_end(&mut bytes).expect("reading");
    lab.file("small.raw", bytes)
}

fn digest(key: &Path) -> String {
    let line = tools::ok("ssh-keygen", [Path::new("-lf"), key]);
    line.split(' ').nth(1).expect("a digest").to_owned()
}

#[test]
fn a_guest_on_an_ssh_server_is_inspected_and_converted_with_each_byte_sent_once() {
    let lab = Lab::new();
    let vmdk = lab.link(&Variant::Plain.vmdk("stream"), "guest.vmdk");
    // Keys change often here, so that it happens while data is on its way.
    let sshd = Sshd::start(&lab, "sshd", "RekeyLimit 3M");
    let sent = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&sent);
    let (port, connections) = in_between(sshd.port, 1 << 20, move |_, _| {
        count.fetch_add(1 << 20, Ordering::Relaxed);
        true
    });
    let host_key = digest(&sshd.file("host.pub"));
    let source = format!("ssh://root@127.0.0.1:{port}{}", vmdk.display());
    let facts = sshd.run(&["inspect", "--json", &source, "--ssh-host-key", &host_key]).success().json();
    assert_eq!(facts["guest"]["facts"]["type"], "linux", "{facts}");
    let target = lab.path("guest.qcow2");
    let before = (sent.load(Ordering::Relaxed), connections.load(Ordering::Relaxed));
    let json = sshd.run(&["convert", &source, "--ssh-host-key", &host_key, "--json"]).arg(&target).success().json();
    assert_eq!(json["output"]["verified"], true);
    tools::assert_same_content(("raw", &Variant::Plain.raw()), ("qcow2", &target));
    let len = fs::metadata(&vmdk).expect("the source").len();
    // Less than a MiB of each connection is not counted.
    let least = sent.load(Ordering::Relaxed) - before.0;
    let most = least + ((connections.load(Ordering::Relaxed) - before.1) << 20);
    assert!(least > len / 2 && most <= len + len / 20, "{least} to {most} bytes were sent of {len}");
}

#[test]
fn what_was_kept_in_a_folder_is_not_fetched_again() {
    let lab = Lab::new();
    let raw = small(&lab);
    let sshd = Sshd::start(&lab, "sshd", "");
    let line = Line::tcp(sshd.port);
    let source = format!("ssh://root@127.0.0.1:{}{}", line.port(), raw.display());
    let target = lab.path("out.qcow2");
    let run = || {
        let before = line.sent();
        let run = sshd.run(&["convert", &source, "--force", "--format", "raw", "--ssh-host-key", &sshd.host_key()]);
        run.arg("--cache-dir").arg(lab.path("blocks")).arg(&target).success();
        tools::assert_same_content(("raw", &raw), ("qcow2", &target));
        line.sent() - before
    };
    let file = File::options().write(true).open(&raw).expect("the disk");
    let changed = |time| file.set_times(fs::FileTimes::new().set_modified(time)).expect("another time");
    // As if it had been changed when the run looks at it, however long it takes to get there.
    changed(SystemTime::now() + Duration::from_secs(3600));
    run();
    assert!(lab.names("blocks").is_empty(), "a file of just now could change within the second");
    changed(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000));
    let first = run();
    let second = run();
    assert!(first > 2 << 20 && second < 1 << 20, "{first} and then {second} bytes were sent");
}

#[test]
fn neighbours_are_opened_on_the_same_server() {
    let lab = Lab::new();
    let raw = small(&lab);
    let path = |name: &str| lab.path(name).display().to_string();
    tools::ok(
        "qemu-img",
        ["convert", "-O", "vmdk", "-o", "subformat=monolithicFlat", &path("small.raw"), &path("flat.vmdk")],
    );
    tools::ok("qemu-img", ["convert", "-O", "qcow2", &path("small.raw"), &path("base.qcow2")]);
    for (name, backing, format) in [("overlay", "base.qcow2", "qcow2"), ("evil", "/etc/passwd", "raw")] {
        let path = path(&format!("{name}.qcow2"));
        tools::ok("qemu-img", ["create", "-q", "-u", "-f", "qcow2", "-F", format, "-b", backing, &path, "24M"]);
    }
    let sshd = Sshd::start(&lab, "sshd", "");
    for name in ["flat.vmdk", "overlay.qcow2"] {
        let target = lab.path("out.raw");
        sshd.run(&["convert", &sshd.url(&lab.path(name))]).arg(&target).success();
        tools::assert_same_content(("raw", &raw), ("raw", &target));
        fs::remove_file(&target).expect("removing");
    }
    sshd.run(&["info", &sshd.url(&lab.path("evil.qcow2"))]).fails_with(5).code("reference.refused");
    fs::remove_file(lab.path("base.qcow2")).expect("removing");
    sshd.run(&["info", &sshd.url(&lab.path("overlay.qcow2"))]).fails_with(3).code("reference.missing");
}

#[test]
fn servers_are_recognised_by_their_keys() {
    let lab = Lab::new();
    let sshd = Sshd::start(&lab, "sshd", "");
    let source = sshd.url(&small(&lab));
    let info = || sshd.run(&["info", &source]);
    let digests = ["host.pub", "host-rsa.pub", "stranger.pub"].map(|name| digest(&sshd.file(name)));
    sshd.write_known_hosts(&[]);
    let unknown = info().fails_with(5).code("ssh.host-key");
    assert!(unknown.stderr.contains(&digests[0]), "{unknown}");
    let line = fs::read_to_string(sshd.file("host.pub")).expect("a key");
    let line = format!("[127.0.0.1]:{} {}", sshd.port, line.trim());
    assert!(unknown.stderr.contains(&line), "the line to add is shown: {unknown}");
    info().arg("--ssh-host-key").arg(&digests[0]).success();
    info().arg("--ssh-host-key").arg(&digests[2]).fails_with(5).code("ssh.host-key-changed");
    sshd.write_known_hosts(&["stranger"]);
    let changed = info().fails_with(5).code("ssh.host-key-changed");
    assert!(changed.stderr.contains("ssh-keygen -R"), "{changed}");
    sshd.write_known_hosts(&["stranger", "host"]);
    info().success();
    // Of a server with several keys, that one is asked for which is known.
    sshd.write_known_hosts(&["host-rsa"]);
    info().success();
    let known = sshd.file("known").display().to_string();
    tools::ok("ssh-keygen", ["-q", "-H", "-f", &known]);
    assert!(!fs::read_to_string(&known).expect("reading").contains("127.0.0.1"));
    info().success();
    sshd.write_known_hosts(&["host"]);
    let revoked =
        format!("{}@revoked * {}", fs::read_to_string(&known).expect("reading"), line.split_once(' ').expect("two").1);
    fs::write(&known, revoked).expect("writing");
    info().fails_with(5).code("ssh.host-key-changed");
    info().arg("--ssh-known-hosts").arg(lab.path("none")).fails_with(2).code("ssh.config");
}

#[test]
fn keys_and_agents_let_us_in_and_secrets_are_seen_nowhere() {
    let lab = Lab::new();
    let sshd = Sshd::start(&lab, "sshd", "");
    let source = sshd.url(&small(&lab));
    let info = |key: &str| sshd.run_with(key, &["info", &source]);
    for key in ["key", "rsa", "ecdsa"] {
        info(key).success();
    }
    let denied = info("stranger").fails_with(3).code("ssh.login");
    assert!(denied.stderr.contains("publickey"), "what the server takes is told: {denied}");
    info("none").fails_with(2).code("ssh.key");
    info("host.pub").fails_with(3).code("ssh.login");
    let good = lab.file("passphrase", format!("{PASSPHRASE}\n"));
    let bad = lab.file("bad", "canary-wrong\n");
    let out = lab.path("out.qcow2");
    let runs = [
        (info("locked"), 3, "ssh.login"),
        (info("locked").arg("--passphrase-file").arg(&good), 0, ""),
        (info("locked").env("HYPER2KVM_PASSPHRASE", PASSPHRASE), 0, ""),
        (sshd.run_with("locked", &["convert", &source]).arg(&out).arg("--passphrase-file").arg(&good), 0, ""),
        (info("locked").arg("--passphrase-file").arg(&bad), 2, "ssh.key"),
        (info("stranger").env("HYPER2KVM_PASSWORD", "canary-password"), 3, "ssh.login"),
    ];
    for (run, code, word) in runs {
        let ran = run.arg("-vvv").env("HYPER2KVM_LOG", "trace").ran();
        assert!(ran.status.code() == Some(code) && ran.stderr.contains(word), "{ran}");
        assert!(!ran.stdout.contains("canary") && !ran.stderr.contains("canary"), "{ran}");
    }
    assert!(!sshd.log().contains("canary"));
    let socket = lab.path("agent").display().to_string();
    let mut agent = Command::new("ssh-agent")
        .args(["-D", "-a", &socket])
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("ssh-agent");
    while !lab.path("agent").exists() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let added = Command::new("ssh-add")
        .arg("-q")
        .arg(sshd.file("rsa"))
        .arg(sshd.file("key"))
        .env("SSH_AUTH_SOCK", &socket)
        .status();
    assert!(added.is_ok_and(|status| status.success()));
    let by_agent =
        Run::new(["info", &source, "--ssh-config", "/dev/null", "--ssh-known-hosts"]).arg(sshd.file("known"));
    by_agent.env("HOME", "/nonexistent").env("SSH_AUTH_SOCK", &socket).success();
    info("stranger").env("SSH_AUTH_SOCK", &socket).fails_with(3).code("ssh.login");
    agent.kill().and_then(|()| agent.wait()).expect("ending the agent");
}

#[test]
fn the_configuration_of_openssh_says_where_a_host_is() {
    let lab = Lab::new();
    let raw = small(&lab);
    let (inner, outer) = (Sshd::start(&lab, "inner", ""), Sshd::start(&lab, "outer", ""));
    let path = |path: PathBuf| path.display().to_string();
    let home = lab.folder("home");
    fs::create_dir(home.join(".ssh")).expect("a folder");
    fs::write(home.join(".ssh/config"), "Include conf.d/*.conf\nHost *\n  User root\n  UserKnownHostsFile ~/known\n")
        .expect("writing");
    fs::create_dir(home.join(".ssh/conf.d")).expect("a folder");
    let host = |sshd: &Sshd, name: &str, more: &str| {
        format!(
            "Host {name}\n HostName 127.0.0.1\n Port {}\n IdentityFile {}\n HostKeyAlias {name}\n{more}",
            sshd.port,
            path(sshd.file("key"))
        )
    };
    let config =
        host(&inner, "inner", " ProxyJump outer\n") + &host(&outer, "outer", "") + "Host lost\n ProxyCommand true\n";
    fs::write(home.join(".ssh/conf.d/a.conf"), config).expect("writing");
    let key = |sshd: &Sshd, name: &str| format!("{name} {}", fs::read_to_string(sshd.file("host.pub")).expect("a key"));
    fs::write(home.join("known"), key(&inner, "inner") + &key(&outer, "outer")).expect("writing");
    let run = |args: &[&str]| Run::new(args).env("HOME", &home).env("SSH_AUTH_SOCK", "");
    let target = lab.path("out.raw");
    run(&["convert", &format!("sftp://inner{}", raw.display())]).arg(&target).success();
    tools::assert_same_content(("raw", &raw), ("raw", &target));
    assert!(outer.log().contains("direct-tcpip") || outer.log().contains("Accepted publickey"), "{}", outer.log());
    let direct = format!("ssh://outer{}", raw.display());
    // The one on the way is itself behind another one.
    run(&["info", &direct, "--ssh-jump", "inner"]).success();
    run(&["info", &direct, "--ssh-jump", "a,-b"]).fails_with(2).code("ssh.config");
    run(&["info", &direct]).success();
    run(&["info", &format!("ssh://lost{}", raw.display())]).fails_with(2).code("ssh.config");
    fs::write(home.join("known"), key(&inner, "inner")).expect("writing");
    run(&["info", &format!("ssh://inner{}", raw.display())]).fails_with(5).code("ssh.host-key");
}

#[test]
fn the_systems_ssh_makes_the_connection_where_it_is_wanted() {
    let lab = Lab::new();
    let raw = small(&lab);
    let sshd = Sshd::start(&lab, "sshd", "");
    let path = |name: &str| sshd.file(name).display().to_string();
    let config = format!("UserKnownHostsFile {}\nIdentityFile {}\nBatchMode yes\n", path("known"), path("key"));
    let config = lab.file("config", config);
    let target = lab.path("out.raw");
    let run = |args: &[&str]| Run::new(args).arg("--ssh-config").arg(&config);
    run(&["convert", &sshd.url(&raw), "--ssh-program", "ssh"]).arg(&target).success();
    tools::assert_same_content(("raw", &raw), ("raw", &target));
    run(&["info", &sshd.url(&raw), "--ssh-program", "/none"]).fails_with(1).code("ssh.program");
    run(&["info", &sshd.url(&lab.path("none")), "--ssh-program", "ssh"]).fails_with(3).code("ssh.missing");
    sshd.write_known_hosts(&[]);
    run(&["info", &sshd.url(&raw), "--ssh-program", "ssh"]).fails_with(3).code("ssh.connection");
}

#[test]
fn servers_that_cannot_are_left_with_a_word() {
    let lab = Lab::new();
    let raw = small(&lab);
    let sshd = Sshd::start(&lab, "sshd", "");
    let info = |path: &Path| sshd.run(&["info", "--net-retries", "1", &sshd.url(path)]);
    info(&lab.path("none.raw")).fails_with(3).code("ssh.missing");
    info(&lab.folder("folder")).fails_with(4).code("ssh.kind");
    info(Path::new("/dev/null")).fails_with(4).code("ssh.kind");
    info(&lab.file("empty", "")).fails_with(3).code("source.empty");
    for bad in ["ssh://h", "ssh://h/d/", "ssh://-oProxyCommand=x/y", "ssh://h/x?y", "sftp:///x", "ssh://-l@h/x"] {
        Run::new(["info", bad]).fails_with(2).code("source.address");
    }
    let without = Sshd::start(&lab, "without", "ForceCommand false");
    without.run(&["info", "--net-retries", "0", &without.url(&raw)]).fails_with(3).code("ssh.connection");
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address").port();
    let absent = format!("ssh://127.0.0.1:{nobody}/x");
    sshd.run(&["info", "--net-retries", "1", &absent]).fails_with(3).code("ssh.connection");
}

/// Passes bytes on to a server, and does something each time so many have come from it on one connection.
fn in_between(
    port: u16,
    every: u64,
    action: impl Fn(&TcpStream, u64) -> bool + Send + Sync + 'static,
) -> (u16, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let own = listener.local_addr().expect("its address").port();
    let connections = Arc::new(AtomicU64::new(0));
    let (count, action) = (Arc::clone(&connections), Arc::new(action));
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let client = client.expect("a connection");
            let number = count.fetch_add(1, Ordering::Relaxed);
            let server = TcpStream::connect(("127.0.0.1", port)).expect("the server");
            let (mut from, mut to) = (client.try_clone().expect("a copy"), server.try_clone().expect("a copy"));
            std::thread::spawn(move || _ = std::io::copy(&mut from, &mut to));
            let action = Arc::clone(&action);
            std::thread::spawn(move || {
                let (mut server, mut client, mut passed) = (server, client, 0);
                let mut buffer = vec![0; 32 << 10];
                while let Ok(count @ 1..) = server.read(&mut buffer) {
                    if client.write_all(&buffer[..count]).is_err() {
                        break;
                    }
                    let before = passed / every;
                    passed += count as u64;
                    if passed / every > before && !action(&client, number) {
                        break;
                    }
                }
                let _ = client.shutdown(Shutdown::Both);
                let _ = server.shutdown(Shutdown::Both);
            });
        }
    });
    (own, connections)
}

#[test]
fn connections_that_break_or_stall_are_made_anew() {
    let lab = Lab::new();
    let raw = small(&lab);
    let sshd = Sshd::start(&lab, "sshd", "");
    let host_key = digest(&sshd.file("host.pub"));
    let through = |port: u16, target: &Path| {
        let source = format!("ssh://root@127.0.0.1:{port}{}", raw.display());
        sshd.run(&["convert", &source, "--ssh-host-key", &host_key]).arg(target)
    };
    let (port, connections) = in_between(sshd.port, 5 << 20, |_, _| false);
    let target = lab.path("cut.raw");
    through(port, &target).success();
    tools::assert_same_content(("raw", &raw), ("raw", &target));
    assert!(connections.load(Ordering::Relaxed) >= 4);
    // The first one is never heard of again, and is not closed either.
    let (port, connections) = in_between(sshd.port, 5 << 20, |_, number| {
        if number > 0 {
            return true;
        }
        loop {
            std::thread::park();
        }
    });
    let target = lab.path("stalled.raw");
    through(port, &target).args(["--net-timeout", "5"]).success();
    tools::assert_same_content(("raw", &raw), ("raw", &target));
    assert!(connections.load(Ordering::Relaxed) >= 2);
}

#[test]
fn a_file_that_changes_while_it_is_read_ends_the_run() {
    let lab = Lab::new();
    let raw = small(&lab);
    let sshd = Sshd::start(&lab, "sshd", "");
    let host_key = digest(&sshd.file("host.pub"));
    let path = raw.clone();
    let changes: [fn(&Path); 3] = [
        |path| File::options().write(true).open(path).and_then(|file| file.set_len(25 << 20)).expect("growing"),
        |path| File::options().write(true).open(path).and_then(|file| file.set_len(6 << 20)).expect("cutting"),
        |path| {
            let file = File::options().write(true).open(path).expect("opening");
            let times = fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH);
            file.set_times(times).expect("another time");
        },
    ];
    for (number, change) in changes.into_iter().enumerate() {
        fs::write(&path, vec![7; 24 << 20]).expect("writing");
        let changed = path.clone();
        let (port, _) = in_between(sshd.port, 4 << 20, move |_, _| {
            change(&changed);
            true
        });
        let source = format!("ssh://root@127.0.0.1:{port}{}", path.display());
        let target = lab.path(&format!("out-{number}.raw"));
        let run = sshd.run(&["convert", &source, "--format", "raw", "--ssh-host-key", &host_key]).arg(&target);
        run.fails_with(3).code("source.changed");
        assert!(!target.exists());
    }
}
