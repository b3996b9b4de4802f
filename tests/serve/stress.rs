//! Writers that verify what they wrote, through the overlay and its spill file, while other clients are killed at random moments.
//! For HYPER2KVM_STRESS_SECONDS: 20 in an ordinary run, an hour in `make soak`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{Server, image_of, small_disk};
use crate::support::{Lab, tools};

const MIB: u64 = 1 << 20;

/// The disk: what nobody writes, what the verifier has for itself, and what the victims write, 64 MiB each.
const PART: u64 = 64 * MIB;

/// What fio needs to verify what it writes to a part of the disk.
fn fio(uri: &str, part: u64, seed: u64) -> Vec<String> {
    let words = [
        "--name=verify",
        // One process: a killed fio leaves the jobs that it forked.
        "--thread",
        "--ioengine=nbd",
        "--rw=randrw",
        "--bsrange=4k-64k",
        "--iodepth=16",
        "--verify=crc32c",
        "--verify_fatal=1",
        "--verify_state_save=0",
        "--output-format=terse",
    ];
    let own = [
        format!("--uri={uri}"),
        format!("--offset={}", part * PART),
        format!("--size={PART}"),
        format!("--randseed={seed}"),
    ];
    words.into_iter().map(str::to_owned).chain(own).collect()
}

/// A client that does not live long.
struct Victim {
    child: Child,
    end: Instant,
}

impl Victim {
    fn new(uri: &str, random: &mut Random) -> Self {
        let mut command = Command::new(if random.below(4) == 0 { "nbdcopy" } else { "fio" });
        if command.get_program() == "nbdcopy" {
            command.args([uri, "null:"]);
        } else {
            command.args(fio(uri, 2, random.next()));
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let life = Duration::from_millis(50 + random.below(900));
        Self {
            child: child.expect("fio and nbdcopy, which scripts/install-deps.sh installs"),
            end: Instant::now() + life,
        }
    }

    /// Kills it when its time has come; gives whether it died by that.
    fn reap(&mut self) -> Option<bool> {
        if self.child.try_wait().expect("waiting").is_some() {
            return Some(false);
        }
        (Instant::now() >= self.end).then(|| {
            let _ = self.child.kill();
            let _ = self.child.wait();
            true
        })
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Numbers that look random and are the same in each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// What a process holds: resident bytes, descriptors, threads.
fn held(pid: u32) -> BTreeMap<&'static str, u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let number = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line");
        line.split_whitespace().next().expect("a number").parse::<u64>().expect("a number")
    };
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("its descriptors").count() as u64;
    [("memory", number("VmRSS:") * 1024), ("descriptors", descriptors), ("threads", number("Threads:"))].into()
}

/// Rounds of fio that verify what they write, and clients that are killed meanwhile: how many there were of each.
fn stress(uri: &str, time: Duration, random: &mut Random) -> (u32, u32) {
    let end = Instant::now() + time;
    let (mut rounds, mut killed) = (0, 0);
    let mut victims: Vec<Victim> = Vec::new();
    while Instant::now() < end || rounds == 0 || killed == 0 {
        let mut verifier = Command::new("fio")
            .args(fio(uri, 1, random.next()))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("fio, which scripts/install-deps.sh installs");
        while verifier.try_wait().expect("waiting").is_none() {
            if victims.len() < 3 {
                victims.push(Victim::new(uri, random));
            }
            victims.retain_mut(|victim| match victim.reap() {
                Some(by_us) => {
                    killed += u32::from(by_us);
                    false
                }
                None => true,
            });
            std::thread::sleep(Duration::from_millis(10));
        }
        let told = verifier.wait_with_output().expect("its output");
        let text = String::from_utf8_lossy(&told.stdout).into_owned() + &String::from_utf8_lossy(&told.stderr);
        assert!(told.status.success() && !text.contains("verify:"), "a wrong byte in round {rounds}: {text}");
        rounds += 1;
    }
    (rounds, killed)
}

#[test]
fn clients_die_at_random_moments_and_no_byte_is_wrong() {
    let seconds = std::env::var("HYPER2KVM_STRESS_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(20);
    let lab = Lab::new();
    let raw = small_disk(&lab);
    let file = std::fs::OpenOptions::new().write(true).open(&raw).expect("the disk");
    file.set_len(3 * PART).expect("its length");
    let image = image_of(&raw, "vmdk", &lab);
    let server = Server::start_with(&image, &["--writable", "--memory", "64M"], &lab);
    let (uri, pid) = (server.uri(), server.running.id());
    let mut random = Random(seconds);
    let fresh = held(pid);

    // Both parts are written once, so that what the overlay holds does not grow any more.
    for part in [1, 2] {
        tools::ok("fio", fio(&uri, part, 1).iter().map(|word| word.replace("randrw", "write")));
    }
    // Every connection has ended, and with it every request; the spill file is one more than at first.
    let idle = || {
        let start = Instant::now();
        let busy = |now: BTreeMap<&str, u64>| {
            now["descriptors"] > fresh["descriptors"] + 1 || now["threads"] > fresh["threads"]
        };
        while busy(held(pid)) && start.elapsed() < Duration::from_secs(30) {
            std::thread::sleep(Duration::from_millis(50));
        }
        held(pid)
    };
    // Buffers and threads come with the load, so a third of the time passes before it is measured.
    stress(&uri, Duration::from_secs(seconds / 3), &mut random);
    let before = idle();
    let (rounds, killed) = stress(&uri, Duration::from_secs(seconds - seconds / 3), &mut random);
    // What a dead client had sent may still be written for a moment.
    let after = idle();
    eprintln!("{rounds} rounds of fio with verification, {killed} clients killed; {before:?}, then {after:?}");

    // What the victims left behind can be written and verified like anything else.
    tools::ok("fio", fio(&uri, 2, 7));
    let copy = lab.path("untouched.raw");
    let part = ["dd", "-f", "raw", "-O", "raw", "bs=1M", "count=64"].map(str::to_owned).into_iter();
    tools::ok("qemu-img", part.chain([format!("if={uri}"), format!("of={}", copy.display())]));
    let whole = std::fs::read(&raw).expect("the disk");
    let untouched = std::fs::read(copy).expect("the copy");
    assert!(untouched == whole[..untouched.len()] && untouched.len() as u64 == PART, "what nobody wrote has changed");

    assert_eq!(after["descriptors"], fresh["descriptors"] + 1, "{after:?}");
    assert_eq!(after["threads"], fresh["threads"], "{after:?}");
    // The budget, what a process may take besides, and the server's own buffers, which are pooled (64 MiB).
    assert!(after["memory"] <= (64 + 64 + 64) * MIB, "{after:?}");
    if seconds >= 300 {
        assert!(after["memory"] <= before["memory"] + 16 * MIB, "{before:?}, then {after:?}");
    }
    server.running.terminate().exits_with(0);
    tools::assert_same_content(("raw", &raw), ("vmdk", Path::new(&image)));
}
