//! Other programs, which are oracles here.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Output};

/// Runs a program to its end.
pub(crate) fn output<I>(program: &str, args: I) -> Output
where
    I: IntoIterator,
    I::Item: AsRef<OsStr>,
{
    // Administration programs are not always on a user's path.
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    Command::new(program)
        .args(args)
        .env("PATH", path)
        .env("LC_ALL", "C")
        .output()
        .unwrap_or_else(|error| panic!("cannot run {program}, which scripts/install-deps.sh installs: {error}"))
}

/// Runs a program that must succeed, and gives what it printed.
pub(crate) fn ok<I>(program: &str, args: I) -> String
where
    I: IntoIterator,
    I::Item: AsRef<OsStr>,
{
    let args: Vec<_> = args.into_iter().map(|arg| arg.as_ref().to_owned()).collect();
    let output = output(program, &args);
    let [stdout, stderr] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    assert!(output.status.success(), "{program} {args:?} ended with {}\n{stdout}\n{stderr}", output.status);
    stdout
}

/// Runs a program as a plain user, who must succeed with it.
pub(crate) fn ok_as(uid: u32, program: &str, args: &[&Path]) -> String {
    let flags = [format!("--reuid={uid}"), format!("--regid={uid}"), "--clear-groups".to_owned(), program.to_owned()];
    ok("setpriv", flags.iter().map(OsStr::new).chain(args.iter().map(|arg| arg.as_os_str())))
}

/// `qemu-img check` finds nothing, leaks included.
pub(crate) fn assert_clean_qcow2(image: &Path) {
    ok("qemu-img", ["check", "-f", "qcow2"].map(Path::new).into_iter().chain([image]));
}

/// `qemu-img compare` finds the same bytes.
pub(crate) fn assert_same_content(a: (&str, &Path), b: (&str, &Path)) {
    let args = ["compare", "-f", a.0, "-F", b.0].map(Path::new).into_iter().chain([a.1, b.1]);
    ok("qemu-img", args);
}

/// A raw copy of an image, sparse where the image is.
pub(crate) fn to_raw(format: &str, image: &Path, raw: &Path) {
    ok("qemu-img", ["convert", "-f", format, "-O", "raw"].map(Path::new).into_iter().chain([image, raw]));
}

/// The ranges of an image, as `qemu-img map` sees them.
pub(crate) fn map(format: &str, image: &Path) -> Vec<Piece> {
    let json = ok("qemu-img", ["map", "--output=json", "-f", format].map(Path::new).into_iter().chain([image]));
    let json: serde_json::Value = serde_json::from_str(&json).expect("qemu-img prints JSON");
    let pieces = json.as_array().expect("a list").iter();
    let number = |piece: &serde_json::Value, name: &str| piece[name].as_u64().expect("a number");
    merge(pieces.map(|piece| Piece {
        start: number(piece, "start"),
        length: number(piece, "length"),
        data: piece["data"].as_bool().expect("a flag"),
    }))
}

/// Neighbours of one kind made one; there must be no gap and no overlap.
pub(crate) fn merge(pieces: impl IntoIterator<Item = Piece>) -> Vec<Piece> {
    let mut merged: Vec<Piece> = Vec::new();
    for piece in pieces {
        assert_eq!(piece.start, merged.last().map_or(0, |last| last.start + last.length), "a gap in a map");
        match merged.last_mut() {
            Some(last) if last.data == piece.data => last.length += piece.length,
            _ => merged.push(piece),
        }
    }
    merged
}

/// A range of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Where it starts, in bytes.
    pub(crate) start: u64,
    /// How long it is, in bytes.
    pub(crate) length: u64,
    /// Whether it holds data; otherwise it reads as zeros.
    pub(crate) data: bool,
}

/// `e2fsck -fn` finds nothing in the file system of a raw disk's partition.
pub(crate) fn assert_clean_ext4(raw: &Path, offset: u64) {
    ok("e2fsck", ["-fn".to_owned(), format!("{}?offset={offset}", raw.display())]);
}

/// Whether the journal of the file system of a raw disk's partition needs a replay.
pub(crate) fn needs_replay(raw: &Path, offset: u64) -> bool {
    ok("dumpe2fs", ["-h".to_owned(), format!("{}?offset={offset}", raw.display())]).contains("needs_recovery")
}
