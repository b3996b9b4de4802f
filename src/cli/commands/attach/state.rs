//! What is attached, in a folder for each under `/run/hyper2kvm`: the mount point, and a record that a crash leaves behind.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::{Value, json};

use super::loops;
use crate::error::{Error, Result};

/// Where the folders are.
const FOLDER: &str = "/run/hyper2kvm";

/// How long a process that is asked to end may take.
const PATIENCE: Timespec = Timespec { tv_sec: 30, tv_nsec: 0 };

/// The folder of what this process attaches; removed when dropped.
pub(super) struct Attached {
    folder: PathBuf,
    sources: Vec<String>,
}

/// What was attached.
#[derive(Debug)]
pub(super) struct Record {
    folder: PathBuf,
    pub(super) sources: Vec<String>,
    /// Names as exports have them, and the devices.
    pub(super) devices: Vec<(String, PathBuf)>,
    read_only: bool,
    pid: u32,
    /// When the process began, in the kernel's ticks: its number alone may be another's by now.
    began: u64,
}

impl Attached {
    pub(super) fn new(sources: &[String]) -> Result<Self> {
        let folder = Path::new(FOLDER).join(std::process::id().to_string());
        let mut private = DirBuilder::new();
        private.recursive(true).mode(0o700);
        // A folder of that name is of a dead process that had our number.
        if folder.exists()
            && let Some(old) = Record::read(&folder)
        {
            old.end()?;
        }
        private.create(folder.join("mount")).map_err(|e| Error::write("making the mount point", e).path(&folder))?;
        Ok(Self { folder, sources: sources.to_vec() })
    }

    pub(super) fn mount_point(&self) -> PathBuf {
        self.folder.join("mount")
    }

    /// Writes down what is attached.
    pub(super) fn record(&self, devices: &[(String, PathBuf)], read_only: bool) -> Result<Record> {
        let pid = std::process::id();
        let record = Record {
            folder: self.folder.clone(),
            sources: self.sources.clone(),
            devices: devices.to_vec(),
            read_only,
            pid,
            began: began(pid).unwrap_or(0),
        };
        let path = self.folder.join("record.json");
        std::fs::write(&path, record.json().to_string())
            .map_err(|e| Error::write("writing the record", e).path(&path))?;
        Ok(record)
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        clear(&self.folder);
    }
}

impl Record {
    /// As `docs/json.md` has it.
    pub(super) fn json(&self) -> Value {
        let device =
            |(name, device): &(String, PathBuf)| json!({ "name": name, "device": device.display().to_string() });
        json!({
            "sources": self.sources,
            "devices": self.devices.iter().map(device).collect::<Vec<_>>(),
            "read_only": self.read_only,
            "alive": self.is_alive(),
            "pid": self.pid,
            "began": self.began,
        })
    }

    fn read(folder: &Path) -> Option<Self> {
        #[allow(clippy::disallowed_methods, reason = "reads back what this program writes")]
        let text = std::fs::read_to_string(folder.join("record.json")).ok()?;
        Some(Self { folder: folder.to_owned(), ..Self::parse(&text)? })
    }

    /// The record in a text; without its folder.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let json: Value = serde_json::from_str(text).ok()?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let device = |value: &Value| Some((text(value.get("name")?)?, PathBuf::from(value.get("device")?.as_str()?)));
        Some(Self {
            folder: PathBuf::new(),
            sources: json.get("sources")?.as_array()?.iter().filter_map(text).collect(),
            devices: json.get("devices")?.as_array()?.iter().filter_map(device).collect(),
            read_only: json.get("read_only")?.as_bool()?,
            pid: u32::try_from(json.get("pid")?.as_u64()?).ok()?,
            began: json.get("began")?.as_u64()?,
        })
    }

    /// Whether the process that serves it is there.
    pub(super) fn is_alive(&self) -> bool {
        began(self.pid) == Some(self.began)
    }

    pub(super) fn has(&self, device: &Path) -> bool {
        self.devices.iter().any(|(_, own)| own == device)
    }

    /// Ends the process, which takes everything along; what a dead one left is cleared.
    pub(super) fn end(&self) -> Result<()> {
        let failed = |what: &str| Error::failed("attach.end", what.to_owned()).found(format!("process {}", self.pid));
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        if let Some(handle) = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok())
            && self.is_alive()
        {
            let signalled = pidfd_send_signal(&handle, Signal::TERM);
            signalled.map_err(|e| {
                failed("the process that serves it cannot be asked to end").because(std::io::Error::from(e))
            })?;
            let mut ends = [PollFd::new(&handle, PollFlags::IN)];
            if !poll(&mut ends, Some(&PATIENCE)).is_ok_and(|ready| ready > 0) {
                return Err(failed("the process that serves it does not end"));
            }
        }
        for (_, device) in self.devices.iter().rev().filter(|(_, device)| loops::is_of(device, &self.folder)) {
            loops::remove(device)?;
        }
        clear(&self.folder);
        Ok(())
    }
}

/// Everything that is attached, and what crashes left.
pub(super) fn all() -> Result<Vec<Record>> {
    let entries = match std::fs::read_dir(FOLDER) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::failed("attach.state", "the records cannot be read").because(error)),
    };
    let mut records: Vec<Record> = entries.filter_map(|entry| Record::read(&entry.ok()?.path())).collect();
    records.sort_by_key(|record| record.pid);
    Ok(records)
}

/// Removes a folder and what is mounted in it.
fn clear(folder: &Path) {
    let mount = folder.join("mount");
    let _ = rustix::mount::unmount(&mount, rustix::mount::UnmountFlags::DETACH);
    let _ = std::fs::remove_dir(mount);
    let _ = std::fs::remove_file(folder.join("record.json"));
    let _ = std::fs::remove_dir(folder);
}

/// When a process began, from `/proc/PID/stat`: field 22, counted behind the program's name, which may hold anything.
fn began(pid: u32) -> Option<u64> {
    #[allow(clippy::disallowed_methods, reason = "the kernel's word about a process is no image")]
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    // A process that has ended and was not waited for is not there any more.
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_when_it_began() {
        let pid = std::process::id();
        let own = began(pid).unwrap();
        let record = |pid, began| Record {
            folder: PathBuf::new(),
            sources: Vec::new(),
            devices: vec![("disk1".to_owned(), PathBuf::from("/dev/loop7"))],
            read_only: true,
            pid,
            began,
        };
        assert!(record(pid, own).is_alive());
        assert!(!record(pid, own + 1).is_alive());
        assert!(record(pid, own).has(Path::new("/dev/loop7")) && !record(pid, own).has(Path::new("/dev/loop8")));
    }

    #[test]
    fn records_are_read_as_they_were_written() {
        let dir = tempfile::tempdir().unwrap();
        let attached = Attached { folder: dir.path().join("1"), sources: vec!["a.ova".to_owned()] };
        std::fs::create_dir(&attached.folder).unwrap();
        let record = attached.record(&[("disk1".to_owned(), PathBuf::from("/dev/loop7"))], true).unwrap();
        let read = Record::read(&attached.folder).unwrap();
        assert_eq!(read.json(), record.json());
        std::fs::write(attached.folder.join("record.json"), "{\"pid\": 1}").unwrap();
        assert!(Record::read(&attached.folder).is_none());
    }
}
