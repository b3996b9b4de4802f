//! Loop devices, by util-linux's losetup.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, Result};

/// Loop devices that go away when this is dropped, the last one first.
#[derive(Debug, Default)]
pub(super) struct Loops(Vec<(String, PathBuf)>);

impl Loops {
    /// One more, for a file.
    pub(super) fn add(&mut self, name: &str, file: &Path, sector: u64, read_only: bool) -> Result<()> {
        let sector = format!("--sector-size={sector}");
        let mut args: Vec<&OsStr> = ["--find", "--show", "--direct-io=on", &sector].map(OsStr::new).to_vec();
        if read_only {
            args.push("--read-only".as_ref());
        }
        args.push(file.as_os_str());
        let device = losetup(&args)?;
        self.0.push((name.to_owned(), PathBuf::from(device.trim())));
        Ok(())
    }

    /// What is attached, with the names of what it is.
    pub(super) fn names(&self) -> Vec<(String, PathBuf)> {
        self.0.clone()
    }
}

impl Drop for Loops {
    fn drop(&mut self) {
        for (_, device) in self.0.iter().rev() {
            if let Err(error) = remove(device) {
                tracing::warn!(%error, device = %device.display(), "a loop device stays behind");
            }
        }
    }
}

/// Frees a loop device. One that is in use goes away with its last user.
pub(super) fn remove(device: &Path) -> Result<()> {
    losetup(&["--detach".as_ref(), device.as_os_str()]).map(drop)
}

/// Whether a loop device's file lies beneath a folder: it may have been freed, and taken by someone else since.
pub(super) fn is_of(device: &Path, folder: &Path) -> bool {
    let file = losetup(&["--noheadings".as_ref(), "--output=BACK-FILE".as_ref(), device.as_os_str()]);
    file.is_ok_and(|file| Path::new(file.trim()).starts_with(folder))
}

/// Refuses when one of the devices is mounted, here.
pub(super) fn must_not_be_used<'a>(devices: impl Iterator<Item = &'a Path>) -> Result<()> {
    #[allow(clippy::disallowed_methods, reason = "the kernel's table of mounts is no image")]
    let table = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for device in devices {
        let mut lines = table.lines().map(|line| line.split(' '));
        let place = lines.find_map(|mut words| (words.next() == device.to_str()).then(|| words.next()).flatten());
        if let Some(place) = place {
            return Err(Error::failed("attach.busy", "the device is mounted")
                .path(device)
                .found(place)
                .hint(format!("umount {place}")));
        }
    }
    Ok(())
}

fn losetup(args: &[&OsStr]) -> Result<String> {
    let failed = |what: &str| Error::failed("attach.loop", what.to_owned());
    #[allow(clippy::disallowed_methods, reason = "util-linux's tool for loop devices; it sees no image's bytes")]
    let mut command = Command::new("losetup");
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let output = command.args(args).env("PATH", path).env("LC_ALL", "C").output();
    let output = output
        .map_err(|e| failed("losetup cannot be run").because(e).hint("install the package util-linux, or mount"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let why = String::from_utf8_lossy(&output.stderr);
    Err(failed("a loop device cannot be set up or freed").found(why.trim()))
}
