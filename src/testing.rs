//! What several modules' tests need: other programs as a second opinion, and bytes that compress badly or well.

use std::path::Path;
use std::process::Command;

/// Runs `qemu-img` with `args` and gives its standard output. Fails the test when the program is missing or fails.
#[allow(clippy::disallowed_methods, reason = "tests compare with a second implementation")]
pub(crate) fn qemu_img(args: &[&str]) -> String {
    let output = Command::new("qemu-img").args(args).output().expect("qemu-img is needed: apt-get install qemu-utils");
    assert!(output.status.success(), "qemu-img {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs the commands in `commands` with qemu-io on the image at `path`, in its own format.
#[allow(clippy::disallowed_methods, reason = "tests let a second implementation write")]
pub(crate) fn qemu_io(path: &Path, commands: &[String]) {
    let mut io = Command::new("qemu-io");
    for command in commands {
        io.args(["-c", command]);
    }
    let output = io.arg(path).output().expect("qemu-io is needed: apt-get install qemu-utils");
    assert!(output.status.success(), "qemu-io {commands:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A path as an argument.
pub(crate) fn arg(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// `len` bytes that look random and depend on `seed` only.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}
