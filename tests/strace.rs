//! What `migrate` asks of the host, as the kernel saw it: no program run, nothing read but the input, nothing written but the
//! output, no network; all of it as a user without any right.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

use crate::support::{Lab, NOBODY, Run, Variant};

/// What a program of this platform reads by itself.
const USUAL: &[&str] = &[
    "/lib/",
    "/lib64/",
    "/usr/lib/",
    "/usr/share/locale/",
    "/etc/ld.so.cache",
    "/etc/ld.so.preload",
    "/proc/",
    "/sys/",
    "/dev/null",
];

#[test]
fn migrate_touches_the_input_and_the_output_only() {
    let lab = Lab::new();
    let home = lab.folder_of(NOBODY, "home");
    let input = lab.folder("input");
    let ova = lab.link(&Variant::Plain.ova(), "input/guest.ova");
    let (out, log) = (home.join("out"), home.join("strace.log"));
    Run::new(["migrate".as_ref(), ova.as_os_str(), "-o".as_ref(), out.as_os_str()])
        .user(NOBODY, &lab)
        .strace("%file,%desc,%process,%network", &log)
        .env("TMPDIR", "/nonexistent")
        .success();

    let calls = Call::read(&log);
    assert!(calls.len() > 100, "strace saw {} calls only", calls.len());
    let programs: Vec<_> = calls.iter().filter(|call| call.name.starts_with("execve")).map(|call| &call.line).collect();
    assert_eq!(programs.len(), 1, "programs were run: {programs:#?}");

    let mut wrong = Vec::new();
    for call in &calls {
        let usual = |path: &Path| USUAL.iter().any(|usual| path.to_string_lossy().starts_with(usual));
        // The folder itself may be looked at, to open the input beneath it.
        let read = |path: &Path| {
            path == ova || path == input || usual(path) || path.starts_with(&out) || out.starts_with(path)
        };
        let verdict = match call.effect() {
            Effect::None => true,
            Effect::Network => false,
            Effect::Reads(path) => read(&path),
            Effect::Writes(path) => path.starts_with(&out) || path == Path::new("/dev/null"),
        };
        if !verdict {
            wrong.push(call.line.as_str());
        }
    }
    assert!(wrong.is_empty(), "calls that reach beyond input and output:\n{}", wrong.join("\n"));
    assert!(out.join("vmguest.qcow2").exists() || fs::read_dir(&out).expect("the output").count() >= 3);
}

#[test]
fn migrate_reads_each_byte_of_the_ova_at_most_once() {
    let lab = Lab::new();
    let log = lab.path("strace.log");
    let ova = Variant::Plain.ova();
    let size = fs::metadata(&ova).expect("the fixture").len();
    Run::new(["migrate".as_ref(), ova.as_os_str(), "-o".as_ref(), lab.path("out").as_os_str()])
        .strace("%desc,io_uring_setup", &log)
        .success();
    let mut read = 0;
    let on_ova = format!("<{}>", ova.display());
    for call in Call::read(&log) {
        assert_ne!(call.name, "io_uring_setup", "reads by io_uring cannot be counted here");
        if !call.line.contains(&on_ova) {
            continue;
        }
        match call.name.as_str() {
            "read" | "pread64" | "readv" | "preadv" | "preadv2" => read += u64::try_from(call.result).unwrap_or(0),
            "mmap" | "copy_file_range" | "sendfile" | "splice" => panic!("not counted here: {}", call.line),
            _ => {}
        }
    }
    assert!(read > size / 2, "only {read} of {size} bytes were seen");
    assert!(read <= size, "{read} bytes were read of {size}");
}

/// One system call.
struct Call {
    name: String,
    args: String,
    result: i64,
    line: String,
}

/// What a call does to the world outside of the process.
enum Effect {
    None,
    Network,
    Reads(PathBuf),
    Writes(PathBuf),
}

impl Call {
    fn read(log: &Path) -> Vec<Self> {
        let call = Regex::new(r"^(\d+) +(\w+)\((.*)\) += (-?\d+|\?|0x[0-9a-f]+)").expect("a pattern");
        let text = String::from_utf8_lossy(&fs::read(log).expect("strace's log")).into_owned();
        // A call that another thread's interrupts is printed in two halves, told apart by the thread.
        let mut halves: BTreeMap<String, String> = BTreeMap::new();
        let mut calls = Vec::new();
        for line in text.lines() {
            let Some((thread, rest)) = line.split_once(' ') else { continue };
            if let Some(first) = line.strip_suffix(" <unfinished ...>") {
                halves.insert(thread.to_owned(), first.to_owned());
                continue;
            }
            let whole = match rest.trim_start().strip_prefix("<... ").and_then(|rest| rest.split_once(" resumed>")) {
                Some((_, second)) => halves.remove(thread).unwrap_or_default() + second,
                None => line.to_owned(),
            };
            if let Some(found) = call.captures(&whole) {
                calls.push(Self {
                    name: found[2].to_owned(),
                    args: found[3].to_owned(),
                    result: found[4].parse().unwrap_or(0),
                    line: whole.clone(),
                });
            }
        }
        calls
    }

    fn effect(&self) -> Effect {
        match self.name.as_str() {
            "open" | "openat" | "openat2" | "creat" => {
                let writes = ["O_WRONLY", "O_RDWR", "O_CREAT", "O_TMPFILE", "O_TRUNC", "O_APPEND"];
                let path = self.path();
                if writes.iter().any(|flag| self.args.contains(flag)) {
                    Effect::Writes(path)
                } else {
                    Effect::Reads(path)
                }
            }
            "mkdir" | "mkdirat" | "unlink" | "unlinkat" | "rmdir" | "rename" | "renameat" | "renameat2" | "link"
            | "linkat" | "symlink" | "symlinkat" | "chmod" | "fchmodat" | "chown" | "lchown" | "fchownat"
            | "truncate" | "mknod" | "mknodat" | "utimensat" | "setxattr" | "lsetxattr" => Effect::Writes(self.path()),
            "stat" | "lstat" | "newfstatat" | "statx" | "access" | "faccessat" | "faccessat2" | "readlink"
            | "readlinkat" | "statfs" | "getxattr" | "chdir" => Effect::Reads(self.path()),
            "socket" | "connect" | "bind" | "listen" | "accept" | "accept4" | "sendto" => Effect::Network,
            _ => Effect::None,
        }
    }

    /// The path that the call names: `"path"`, beneath `FD</folder>` if there is one and the path is relative.
    fn path(&self) -> PathBuf {
        let quoted = Regex::new(r#""([^"]*)""#).expect("a pattern");
        let folder = Regex::new(r"^(?:AT_FDCWD|\d+)<([^>]*)>").expect("a pattern");
        let name = quoted.captures(&self.args).map(|found| found[1].to_owned()).unwrap_or_default();
        match folder.captures(&self.args) {
            Some(found) if !name.starts_with('/') && !name.is_empty() => Path::new(&found[1]).join(name),
            Some(found) if name.is_empty() => PathBuf::from(&found[1]),
            _ => PathBuf::from(name),
        }
    }
}
