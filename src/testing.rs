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
