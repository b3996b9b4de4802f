//! Why a mount failed, with a stable code and what to do next.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why mounting or unmounting failed.
#[derive(Debug)]
pub struct Error {
    reason: Reason,
    dir: PathBuf,
    source: Option<io::Error>,
}

/// What sort of failure it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// Something is mounted there already.
    AlreadyMounted,
    /// The process that served the mount there is gone.
    DeadMount,
    /// This user may not open `/dev/fuse`.
    DeviceDenied,
    /// There is no `/dev/fuse`.
    DeviceMissing,
    /// A plain user needs `fusermount3`, which is not installed.
    HelperMissing,
    /// The operating system refused the mount.
    Mount,
    /// The mount point cannot be looked at.
    Place,
    /// The mount point does not exist.
    PlaceMissing,
    /// The mount point is not a directory.
    PlaceNotDirectory,
    /// The mount point has files in it.
    PlaceNotEmpty,
    /// The kernel connection broke while the mount was served.
    Session,
    /// The operating system refused to unmount.
    Unmount,
}

impl Error {
    pub(crate) fn new(reason: Reason, dir: &Path) -> Self {
        Self { reason, dir: dir.to_owned(), source: None }
    }

    pub(crate) fn because(mut self, source: io::Error) -> Self {
        self.source = Some(source);
        self
    }

    /// What sort of failure it was.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// A stable slug for the reason.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self.reason {
            Reason::AlreadyMounted => "fuse.already-mounted",
            Reason::DeadMount => "fuse.dead-mount",
            Reason::DeviceDenied => "fuse.device-denied",
            Reason::DeviceMissing => "fuse.device-missing",
            Reason::HelperMissing => "fuse.helper-missing",
            Reason::Mount => "fuse.mount",
            Reason::Place => "fuse.place",
            Reason::PlaceMissing => "fuse.place-missing",
            Reason::PlaceNotDirectory => "fuse.place-not-directory",
            Reason::PlaceNotEmpty => "fuse.place-not-empty",
            Reason::Session => "fuse.session",
            Reason::Unmount => "fuse.unmount",
        }
    }

    /// The mount point.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What happened, in one clause without the mount point.
    #[must_use]
    pub fn what(&self) -> &'static str {
        match self.reason {
            Reason::AlreadyMounted => "something is mounted here already",
            Reason::DeadMount => "a mount whose process is gone lies here (transport endpoint is not connected)",
            Reason::DeviceDenied => "this user may not open /dev/fuse",
            Reason::DeviceMissing => "this system has no /dev/fuse",
            Reason::HelperMissing => "a user other than root needs the program fusermount3, which is not installed",
            Reason::Mount => "cannot mount here",
            Reason::Place => "cannot look at the mount point",
            Reason::PlaceMissing => "the mount point does not exist",
            Reason::PlaceNotDirectory => "the mount point is not a directory",
            Reason::PlaceNotEmpty => "the mount point is not empty",
            Reason::Session => "the connection to the kernel broke",
            Reason::Unmount => "cannot unmount",
        }
    }

    /// The operating system's reason, where there is one.
    #[must_use]
    pub fn into_cause(self) -> Option<io::Error> {
        self.source
    }

    /// What the user can do next, where something can be done.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let dir = self.dir.display();
        match self.reason {
            Reason::AlreadyMounted => {
                Some(format!("choose another directory, or unmount this one: fusermount3 -u {dir}"))
            }
            Reason::DeadMount | Reason::Unmount => Some(format!("clear it with: fusermount3 -u {dir}")),
            Reason::DeviceDenied => Some("udev gives it mode 0666 once the package fuse3 is installed".to_owned()),
            Reason::DeviceMissing => {
                Some("load the kernel module (modprobe fuse), or give the container --device /dev/fuse".to_owned())
            }
            Reason::HelperMissing => Some("install the package fuse3, or run as root".to_owned()),
            Reason::Mount => {
                Some("the directory must be yours and writable; in a container the mount may be forbidden".to_owned())
            }
            Reason::PlaceMissing => Some(format!("create it with: mkdir {dir}")),
            Reason::PlaceNotDirectory | Reason::PlaceNotEmpty => Some("choose an empty directory".to_owned()),
            Reason::Place | Reason::Session => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.dir.display(), self.what())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_mount_says_how_to_clear_it() {
        let error = Error::new(Reason::DeadMount, Path::new("/mnt/x"));
        assert_eq!(error.hint().unwrap(), "clear it with: fusermount3 -u /mnt/x");
        assert!(error.to_string().contains("/mnt/x: a mount whose process is gone"));
        assert_eq!(error.code(), "fuse.dead-mount");
    }
}
