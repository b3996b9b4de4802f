//! The other engine: libguestfs reads and writes a guest's files, for file systems that the own drivers refuse.
//!
//! Volumes reach its appliance, a small virtual machine with a kernel of the host's distribution, over NBD, each as a drive with
//! one file system: arrays, LVM and encryption are taken off before, so no key leaves this process. Only file operations are
//! asked for; no program of the guest's runs, neither here nor there. A file system in the appliance is a [`Filesystem`] like
//! any other ([`Appliance::open`]), so facts, plans, changes, reports and what undoes them come from the same code.
//!
//! What is trusted: guestfish, which is told everything by words that no name in a guest can break out of, and whose answers
//! are told apart by a line that no guest can know. What it prints of names is read again from files where it could be ambiguous.

use std::path::Path;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk::Disk;
use crate::error::{Error, Kind, Result};
use crate::fs::Filesystem;
use crate::limits::MAX_APPLIANCE_DRIVES;
use crate::session::{PrivateFolder, Session};
use crate::volume::signature::Signature;

mod files;
mod guestfish;
mod words;

use files::Mounted;
use guestfish::{Answer, Guestfish};

/// An appliance with its drives.
#[derive(Debug)]
pub struct Appliance {
    guestfish: Mutex<Guestfish>,
    session: Arc<Session>,
    /// How many file systems were mounted so far.
    mounts: AtomicU32,
    /// What passes between here and guestfish; dropped after it.
    _folder: PrivateFolder,
}

/// A volume that an NBD server exports.
#[derive(Clone, Debug)]
pub struct Drive {
    /// The export's name.
    pub export: String,
    /// Whether the export takes writes.
    pub can_write: bool,
}

impl Appliance {
    /// Starts an appliance whose drives are the exports of the server that listens on `socket`.
    ///
    /// # Errors
    /// `appliance.missing` without guestfish, `appliance.drives` for too many drives, `appliance.start` when the appliance does not
    /// come up.
    pub fn start(socket: &Path, drives: &[Drive], session: &Arc<Session>) -> Result<Arc<Self>> {
        can_take(drives.len())?;
        let folder = PrivateFolder::new()?;
        let mut failed = None;
        // Where /dev/kvm is there and of no use, QEMU gives up instead of emulating.
        let settings: &[bool] =
            if std::env::var_os("LIBGUESTFS_BACKEND_SETTINGS").is_some() { &[false] } else { &[false, true] };
        for is_emulated in settings {
            let mut guestfish = Guestfish::start(folder.path(), *is_emulated)?;
            match launch(&mut guestfish, socket, drives, session) {
                Ok(()) => {
                    let (guestfish, session, mounts) = (Mutex::new(guestfish), Arc::clone(session), AtomicU32::new(0));
                    return Ok(Arc::new(Self { guestfish, session, mounts, _folder: folder }));
                }
                Err(error) => {
                    session.check()?;
                    tracing::info!(%error, "the appliance did not start");
                    failed = Some(error);
                }
            }
        }
        Err(failed.unwrap_or_else(|| not_started("")))
    }

    /// The file system on the drive `index`, which was found there by its `signature`. Of several drives with one file system
    /// any will do.
    ///
    /// # Errors
    /// `appliance.mount` when the appliance cannot mount it.
    pub fn open(
        self: &Arc<Self>,
        index: usize,
        drive: &Drive,
        volume: &Arc<dyn Disk>,
        signature: &Signature,
    ) -> Result<Arc<dyn Filesystem>> {
        Ok(Arc::new(Mounted::open(self, index, drive.can_write, volume.len(), signature)?))
    }

    /// Unmounts everything and ends the appliance. Nothing can be read or written after that.
    ///
    /// # Errors
    /// `appliance.lost` when it does not end well.
    pub fn finish(&self) -> Result<()> {
        self.lock().finish(&self.session)
    }

    fn lock(&self) -> MutexGuard<'_, Guestfish> {
        self.guestfish.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs one command. What it complains about is in the answer.
    fn ask(&self, name: &str, words: &[&[u8]]) -> Result<Answer> {
        self.lock().ask(&[words::command(name, words)?], &self.session)
    }

    /// Runs one command that must do what it is told.
    fn tell(&self, name: &str, words: &[&[u8]]) -> Result<Vec<u8>> {
        let answer = self.ask(name, words)?;
        if answer.complaint.is_empty() { Ok(answer.printed) } else { Err(refused(&answer.complaint)) }
    }

    /// Runs a command that reads a file of the host's as its first word: one with this content.
    fn give(&self, name: &str, content: &[u8], words: &[&[u8]]) -> Result<()> {
        let mut guestfish = self.lock();
        let path = guestfish.hand_over(content)?;
        let words: Vec<&[u8]> =
            std::iter::once(path.as_os_str().as_encoded_bytes()).chain(words.iter().copied()).collect();
        let answer = guestfish.ask(&[words::command(name, &words)?], &self.session)?;
        if answer.complaint.is_empty() { Ok(()) } else { Err(refused(&answer.complaint)) }
    }

    /// Runs a command that writes at most `max` bytes to a file of the host's, its second word.
    fn take(&self, name: &str, from: &[u8], words: &[&[u8]], max: u64) -> Result<Vec<u8>> {
        let mut guestfish = self.lock();
        let path = guestfish.passing("out");
        let first = [from, path.as_os_str().as_encoded_bytes()];
        let words: Vec<&[u8]> = first.into_iter().chain(words.iter().copied()).collect();
        let answer = guestfish.ask(&[words::command(name, &words)?], &self.session)?;
        let content = guestfish.take("out", max)?;
        if answer.complaint.is_empty() { Ok(content.unwrap_or_default()) } else { Err(refused(&answer.complaint)) }
    }
}

fn can_take(drives: usize) -> Result<()> {
    if drives <= MAX_APPLIANCE_DRIVES {
        return Ok(());
    }
    Err(Error::limit("appliance.drives", "the machine has more volumes than an appliance takes")
        .expected(format!("at most {MAX_APPLIANCE_DRIVES}"))
        .found(drives))
}

fn launch(guestfish: &mut Guestfish, socket: &Path, drives: &[Drive], session: &Session) -> Result<()> {
    let server = [b"server:unix:", socket.as_os_str().as_encoded_bytes()].concat();
    let mut commands = Vec::new();
    for drive in drives {
        let read_only: &[u8] = if drive.can_write { b"readonly:false" } else { b"readonly:true" };
        let words: [&[u8]; 5] = [drive.export.as_bytes(), b"format:raw", b"protocol:nbd", &server, read_only];
        commands.push(words::command("add-drive", &words)?);
    }
    commands.push("run".to_owned());
    let answer = guestfish.ask(&commands, session).map_err(|error| not_started("").because(error))?;
    if answer.complaint.is_empty() { Ok(()) } else { Err(not_started(&answer.complaint)) }
}

fn not_started(complaint: &str) -> Error {
    Error::failed("appliance.start", "libguestfs's appliance does not start")
        .found(if complaint.is_empty() { "no reason" } else { complaint })
        .hint("libguestfs-test-tool tells why; --engine own does without an appliance")
}

/// What the kernel in the appliance did not do.
fn refused(complaint: &str) -> Error {
    let full = complaint.contains("No space left on device") || complaint.contains("Disk quota exceeded");
    let kind = if full { Kind::NoSpace } else { Kind::Failed };
    Error::new(kind, "appliance.refused", "the appliance could not do that").found(complaint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drives_are_bounded() {
        assert!(can_take(MAX_APPLIANCE_DRIVES - 1).is_ok() && can_take(MAX_APPLIANCE_DRIVES).is_ok());
        assert_eq!(can_take(MAX_APPLIANCE_DRIVES + 1).unwrap_err().code(), "appliance.drives");
    }

    #[test]
    fn a_full_file_system_is_told_from_other_refusals() {
        assert_eq!(refused("upload: write: /m0/x: No space left on device").kind(), Kind::NoSpace);
        assert_eq!(refused("rm: /m0/x: Operation not permitted").kind(), Kind::Failed);
    }
}
