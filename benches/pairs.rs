//! `hyper2kvm` against `qemu-img` with its best flags, in alternating pairs on one machine: `migrate` of an OVA against `convert`
//! of its VMDK, and `convert` of each format, plain, compressed, and shared by the file system.
//!
//! Both are timed from start through `fsync` of the output file. After a warm-up of each, pairs alternate which goes first, so
//! that slow drift of the machine falls on both; the page cache is in the same state before every run, and no dirty page of a
//! former run is left. What counts is the median of the pairs' ratios, with its spread: single times on a shared machine do not.
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a program for developers, which runs others and fails loudly"
)]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use rustix::fs::SeekFrom;
use serde_json::{Value, json};

fn main() {
    let options = Options::parse();
    fs::create_dir_all(&options.out).expect("the folder of the figures");
    make_sources(&options);
    let mut mounts: Vec<Mount> = Vec::new();
    let mut results = Vec::new();
    for case in CASES.iter().filter(|case| options.only.as_ref().is_none_or(|only| case.name.contains(only.as_str()))) {
        if let Some(kind) = case.on
            && !mounts.iter().any(|mount| mount.kind == kind)
        {
            mounts.push(Mount::new(kind, &options));
        }
        let verified = |verify: &&&str| options.verify.as_ref().is_none_or(|wanted| wanted == **verify);
        for verify in case.verify.iter().filter(verified) {
            println!(
                "{} --verify {verify} against qemu-img, {} pairs, {} cache",
                case.name, options.pairs, options.cache
            );
            let result = compare(&options, case, verify);
            println!("{}", result.text());
            results.push(result.json(case, verify));
        }
    }
    let all = json!({ "machine": machine(), "cache": options.cache, "comparisons": results });
    let path = options.out.join("pairs.json");
    fs::write(&path, format!("{all:#}\n")).expect("writing the figures");
    println!("figures: {}", path.display());
}

/// One comparison.
struct Case {
    name: &'static str,
    /// What each reads.
    sources: [&'static str; 2],
    ours: &'static [&'static str],
    /// Behind `qemu-img convert`, before source and target.
    peer: &'static [&'static str],
    /// Format of both outputs.
    to: &'static str,
    /// The file system on which both work, made for that; none for the folder of the figures.
    on: Option<&'static str>,
    /// With verification off, on, or both.
    verify: &'static [&'static str],
}

/// What most cases have in common.
const PLAIN: Case =
    Case { name: "", sources: [""; 2], ours: CONVERT, peer: &[], to: "qcow2", on: None, verify: &["off", "on"] };

const MIGRATE: &[&str] = &["migrate", "--name", "bench", "-o"];
const CONVERT: &[&str] = &["convert"];
const RAW: &[&str] = &["convert", "--format", "raw"];
const ZLIB: &[&str] = &["convert", "--compress", "zlib"];
const ZSTD: &[&str] = &["convert", "--compress", "zstd"];

/// `-W -m 16`: writes out of order, with as many requests as it can have.
const QUICK_RAW: &[&str] = &["-f", "raw", "-W", "-m", "16"];

const CASES: &[Case] = &[
    Case {
        name: "migrate OVA",
        sources: ["guest.ova", "guest-stream.vmdk"],
        ours: MIGRATE,
        peer: &["-f", "vmdk", "-W", "-m", "16"],
        ..PLAIN
    },
    Case {
        name: "convert OVA",
        sources: ["guest.ova", "guest-stream.vmdk"],
        ours: CONVERT,
        peer: &["-f", "vmdk", "-W", "-m", "16"],
        ..PLAIN
    },
    Case {
        name: "convert stream-optimized VMDK",
        sources: ["guest-stream.vmdk"; 2],
        ours: CONVERT,
        peer: &["-f", "vmdk", "-W", "-m", "16"],
        ..PLAIN
    },
    Case {
        name: "convert sparse VMDK",
        sources: ["guest-sparse.vmdk"; 2],
        ours: CONVERT,
        peer: &["-f", "vmdk", "-W", "-m", "16"],
        ..PLAIN
    },
    Case {
        name: "convert VHD",
        sources: ["guest.vhd"; 2],
        ours: CONVERT,
        peer: &["-f", "vpc", "-W", "-m", "16"],
        ..PLAIN
    },
    Case {
        name: "convert VHDX",
        sources: ["guest.vhdx"; 2],
        ours: CONVERT,
        peer: &["-f", "vhdx", "-W", "-m", "16"],
        ..PLAIN
    },
    Case { name: "convert raw", sources: ["guest.raw"; 2], ours: RAW, peer: &["-f", "raw", "-W", "-m", "16"], ..PLAIN },
    Case {
        name: "convert to zlib",
        sources: ["guest-sparse.vmdk"; 2],
        ours: ZLIB,
        peer: &["-f", "vmdk", "-W", "-m", "16", "-c"],
        ..PLAIN
    },
    Case {
        name: "convert to zstd",
        sources: ["guest-sparse.vmdk"; 2],
        ours: ZSTD,
        peer: &["-f", "vmdk", "-W", "-m", "16", "-c", "-o", "compression_type=zstd"],
        ..PLAIN
    },
    Case {
        name: "share flat to raw on XFS",
        sources: ["flat.raw"; 2],
        ours: RAW,
        peer: QUICK_RAW,
        to: "raw",
        on: Some("xfs"),
        ..PLAIN
    },
    Case {
        name: "share flat to qcow2 on XFS",
        sources: ["flat.raw"; 2],
        ours: RAW,
        peer: QUICK_RAW,
        on: Some("xfs"),
        ..PLAIN
    },
    Case {
        name: "share flat to raw on btrfs",
        sources: ["flat.raw"; 2],
        ours: RAW,
        peer: QUICK_RAW,
        to: "raw",
        on: Some("btrfs"),
        ..PLAIN
    },
    Case {
        name: "share flat to qcow2 on btrfs",
        sources: ["flat.raw"; 2],
        ours: RAW,
        peer: QUICK_RAW,
        on: Some("btrfs"),
        ..PLAIN
    },
    Case { name: "convert 1 TiB with 1 GiB of data", sources: ["huge.raw"; 2], ours: RAW, peer: QUICK_RAW, ..PLAIN },
];

/// Makes the sources that the fixture has not.
fn make_sources(options: &Options) {
    let huge = options.out.join("huge.raw");
    if !huge.exists() {
        let file = File::create(&huge).expect("a disk");
        file.set_len(1 << 40).expect("a length");
        let guest = File::open(options.fixture.join("guest.raw")).expect("the guest");
        let mut part = vec![0; 1 << 20];
        for number in 0..1024 {
            // From where the guest has data, and no two of them alike.
            guest.read_exact_at(&mut part, (number % 512) << 20).expect("reading the guest");
            part.chunks_mut(4096).for_each(|page| page[..8].copy_from_slice(&(number + 1).to_le_bytes()));
            file.write_all_at(&part, number << 30).expect("writing");
        }
    }
    for (name, format) in [("guest.vhd", "vpc"), ("guest.vhdx", "vhdx")] {
        let made = options.out.join(name);
        if !made.exists() {
            let mut command = Command::new("qemu-img");
            command.args(["convert", "-f", "raw", "-O", format]).arg(options.fixture.join("guest.raw")).arg(&made);
            assert!(command.status().expect("running qemu-img").success(), "{command:?} failed");
        }
    }
}

/// A new file system of one kind in a file, with a copy of the guest's disk that has no hole, as flat disks come from elsewhere.
struct Mount {
    kind: &'static str,
    point: PathBuf,
}

impl Mount {
    fn new(kind: &'static str, options: &Options) -> Self {
        let (image, point) = (options.out.join(format!("{kind}.img")), options.out.join(kind));
        fs::create_dir_all(&point).expect("a mount point");
        let _ = fs::remove_file(&image);
        File::create(&image).and_then(|file| file.set_len(24 << 30)).expect("a file for the file system");
        run("mkfs.".to_owned() + kind, &["-q".as_ref(), &image]);
        run("mount", &["-o".as_ref(), "loop".as_ref(), &image, &point]);
        let mount = Self { kind, point };
        let flat = mount.point.join("flat.raw");
        run("cp", &["--sparse=never".as_ref(), "--reflink=never".as_ref(), &options.fixture.join("guest.raw"), &flat]);
        mount
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        run("umount", &[&self.point]);
        let _ = fs::remove_file(self.point.with_extension("img"));
    }
}

fn run(program: impl AsRef<OsStr>, args: &[&Path]) {
    let mut command = Command::new(program);
    assert!(command.args(args).status().expect("running").success(), "{command:?} failed");
}

impl Options {
    fn source(&self, name: &str) -> PathBuf {
        let made = self.out.join(name);
        if made.exists() { made } else { self.fixture.join(name) }
    }
}

/// What was typed: `FIXTURE [--pairs N] [--cache warm|cold] [--only PART-OF-A-NAME] [--verify on|off] [--out DIR]`. Cargo adds `--bench`.
struct Options {
    fixture: PathBuf,
    pairs: usize,
    only: Option<String>,
    verify: Option<String>,
    cache: String,
    out: PathBuf,
}

impl Options {
    fn parse() -> Self {
        let mut options = Self {
            fixture: PathBuf::new(),
            pairs: 10,
            only: None,
            verify: None,
            cache: "warm".to_owned(),
            out: PathBuf::from("target/bench"),
        };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().expect("a value");
            match word.as_str() {
                "--bench" => {}
                "--pairs" => options.pairs = value().parse().expect("a number of pairs"),
                "--only" => options.only = Some(value()),
                "--verify" => options.verify = Some(value()),
                "--cache" => options.cache = value(),
                "--out" => options.out = value().into(),
                _ => options.fixture = word.into(),
            }
        }
        assert!(options.fixture.is_dir(), "usage: pairs FIXTURE [--pairs N] [--cache warm|cold] [--out DIR]");
        assert!(options.pairs > 0 && ["warm", "cold"].contains(&options.cache.as_str()));
        options
    }
}

/// Times of the pairs, in seconds, and the sizes of what each wrote.
struct Pairs {
    ours: Vec<f64>,
    peer: Vec<f64>,
    our_bytes: u64,
    peer_bytes: u64,
}

fn compare(options: &Options, case: &Case, verify: &str) -> Pairs {
    let place = case.on.map_or_else(|| options.out.clone(), |kind| options.out.join(kind));
    let folder = place.join("work");
    let [our_source, peer_source] = case.sources.map(|name| {
        let here = place.join(name);
        if here.exists() { here } else { options.source(name) }
    });
    let [ours_name, peers_name] = ["bench", "peer"].map(|name| format!("{name}.{}", case.to));
    let ours = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hyper2kvm"));
        let (subcommand, flags) = case.ours.split_first().expect("a subcommand");
        command.args([subcommand, "--quiet", "--progress", "none", "--verify", verify]).args(flags);
        if case.ours == MIGRATE {
            command.arg(&folder).arg(&our_source);
        } else {
            command.arg(&our_source).arg(folder.join(&ours_name));
        }
        timed(options, &our_source, command, &folder, &ours_name)
    };
    let peer = || {
        let mut command = Command::new("qemu-img");
        command.args(["convert", "-O", case.to]).args(case.peer).arg(&peer_source).arg(folder.join(&peers_name));
        timed(options, &peer_source, command, &folder, &peers_name)
    };
    let (_, our_bytes) = ours();
    let (_, peer_bytes) = peer();
    let mut pairs = Pairs { ours: Vec::new(), peer: Vec::new(), our_bytes, peer_bytes };
    for pair in 0..options.pairs {
        let (our_time, peer_time) = if pair % 2 == 0 {
            let first = ours().0;
            (first, peer().0)
        } else {
            let first = peer().0;
            (ours().0, first)
        };
        println!(
            "  pair {:2}: ours {our_time:6.2} s, peer {peer_time:6.2} s, ratio {:.2}",
            pair + 1,
            our_time / peer_time
        );
        pairs.ours.push(our_time);
        pairs.peer.push(peer_time);
    }
    pairs
}

/// Reads what a file has, so that the page cache holds it.
fn warm(source: &Path) {
    let file = File::open(source).expect("the source");
    let mut at = 0;
    while let Ok(data) = rustix::fs::seek(&file, SeekFrom::Data(at)) {
        at = rustix::fs::seek(&file, SeekFrom::Hole(data)).expect("where the data ends");
        rustix::fs::seek(&file, SeekFrom::Start(data)).expect("going there");
        std::io::copy(&mut (&file).take(at - data), &mut std::io::sink()).expect("reading the source");
    }
}

/// Runs a command on a source; gives the seconds until its output is on the disk, and the output's size.
fn timed(options: &Options, source: &Path, mut command: Command, folder: &Path, output: &str) -> (f64, u64) {
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder).expect("a folder for the output");
    rustix::fs::sync();
    if options.cache == "cold" {
        fs::write("/proc/sys/vm/drop_caches", "3").expect("dropping the page cache, which needs root");
    } else {
        warm(source);
    }
    let start = Instant::now();
    let status = command.stdout(Stdio::null()).status().expect("running");
    let file = File::open(folder.join(output)).expect("the output");
    file.sync_all().expect("syncing the output");
    let seconds = start.elapsed().as_secs_f64();
    assert!(status.success(), "{command:?} failed");
    (seconds, file.metadata().expect("its size").len())
}

impl Pairs {
    fn ratios(&self) -> Vec<f64> {
        self.ours.iter().zip(&self.peer).map(|(ours, peer)| ours / peer).collect()
    }

    fn text(&self) -> String {
        let line = |name: &str, unit: &str, values: &[f64]| {
            let [min, low, median, high, max] = five(values);
            format!(
                "  {name:6} median {median:6.2}{unit}   quartiles {low:.2} – {high:.2}   range {min:.2} – {max:.2}\n"
            )
        };
        let sizes = format!("  written: ours {} MiB, peer {} MiB", self.our_bytes >> 20, self.peer_bytes >> 20);
        line("ours", " s", &self.ours) + &line("peer", " s", &self.peer) + &line("ratio", "×", &self.ratios()) + &sizes
    }

    fn json(&self, case: &Case, verify: &str) -> Value {
        let summary = |values: &[f64]| {
            let [min, low, median, high, max] = five(values);
            json!({ "min": min, "lower_quartile": low, "median": median, "upper_quartile": high, "max": max })
        };
        json!({
            "name": case.name,
            "verify": verify,
            "ours": { "command": format!("hyper2kvm {} {}", case.ours.join(" "), case.sources[0]), "seconds": self.ours, "summary": summary(&self.ours), "output_bytes": self.our_bytes },
            "peer": { "command": format!("qemu-img convert -O {} {} {}", case.to, case.peer.join(" "), case.sources[1]), "seconds": self.peer, "summary": summary(&self.peer), "output_bytes": self.peer_bytes },
            "ratio": { "pairs": self.ratios(), "summary": summary(&self.ratios()) },
        })
    }
}

/// Minimum, lower quartile, median, upper quartile, maximum; between two values, their mean by distance.
fn five(values: &[f64]) -> [f64; 5] {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    [0, 1, 2, 3, 4].map(|quarter| {
        let scaled = (sorted.len() - 1) * quarter;
        let (index, rest) = (scaled / 4, scaled % 4);
        let next = sorted[(index + 1).min(sorted.len() - 1)];
        sorted[index] + (next - sorted[index]) * f64::from(u8::try_from(rest).expect("less than 4")) / 4.0
    })
}

/// What the figures depend on.
fn machine() -> Value {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).and_then(|line| line.split_once(':'));
        line.map(|(_, value)| value.trim().to_owned())
    };
    let version = Command::new("qemu-img").arg("--version").output().expect("qemu-img");
    json!({
        "processor": field(&read("/proc/cpuinfo"), "model name"),
        "processors": std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        "memory": field(&read("/proc/meminfo"), "MemTotal"),
        "kernel": read("/proc/sys/kernel/osrelease"),
        "qemu_img": String::from_utf8_lossy(&version.stdout).lines().next(),
        "hyper2kvm": env!("CARGO_PKG_VERSION"),
    })
}
