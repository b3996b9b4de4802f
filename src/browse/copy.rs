//! Copying a guest's files out into a folder of this host, without trusting a name or a link of theirs.
//!
//! Everything is made new, beneath a folder that stays open: the kernel is told to leave it by no `..`, link or mount, so a
//! guest's link that was copied before is no way out for a file that comes after.

use std::ffi::OsStr;
use std::fs::File;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, Timespec, Timestamps};
use rustix::io::Errno;

use super::walk::{Step, walk};
use super::{each_part, each_piece_of};
use crate::error::{Error, Kind, Result, escape_bytes};
use crate::fs::tree::Found;
use crate::fs::{FileKind, Stat, Tree};
use crate::session::Session;

/// What was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Regular files.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Symbolic links.
    pub links: u64,
    /// Bytes of the files.
    pub bytes: u64,
    /// Device files, pipes and sockets, which are left out.
    pub skipped: u64,
}

/// Copies `top`, with all that is in it, to the new name `to`. Modes without set-id bits and times come along, owners do not:
/// everything belongs to who copies. Links are copied as they are. `problem` hears of what cannot be read or made.
///
/// # Errors
/// `output.exists` when `to` is there, and what `problem` returns.
pub fn copy_out(
    tree: &Tree,
    top: &Found,
    to: &Path,
    session: &Session,
    problem: &mut dyn FnMut(Error) -> Result<()>,
) -> Result<Copied> {
    let name = to.file_name().ok_or_else(|| Error::new(Kind::Usage, "guest.copy", "a copy needs a name").path(to))?;
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(parent, flags, Mode::empty());
    let dir = dir.map_err(|e| Error::write("opening the folder to copy to", e.into()).path(parent))?;
    let mut copy = Copy { tree, session, dir, shown: to.to_owned(), done: Copied::default(), times: Vec::new() };
    walk(tree, top, session, &mut |found, depth| {
        let found = match found {
            Ok(found) => found,
            Err(error) => return problem(error).map(|()| Step::In),
        };
        let path = below(name, &found.path, &top.path);
        match copy.add(found, &path) {
            Ok(()) => Ok(Step::In),
            // Nothing has its place when the top has none, and nothing goes on that was asked to stop.
            Err(error) if depth == 0 || matches!(error.kind(), Kind::Interrupted | Kind::NoSpace) => Err(error),
            Err(error) => problem(error.at(escape_bytes(&found.path))).map(|()| Step::Over),
        }
    })?;
    copy.finish()
}

/// `name`, and below it what `path` is called below `top`.
fn below(name: &OsStr, path: &[u8], top: &[u8]) -> PathBuf {
    let rest = path.strip_prefix(top).unwrap_or(path);
    let rest = rest.strip_prefix(b"/").unwrap_or(rest);
    if rest.is_empty() { PathBuf::from(name) } else { Path::new(name).join(OsStr::from_bytes(rest)) }
}

struct Copy<'a> {
    tree: &'a Tree,
    session: &'a Session,
    /// The folder that everything is made beneath.
    dir: OwnedFd,
    /// What people know the copy as.
    shown: PathBuf,
    done: Copied,
    /// Directories get their mode and times when all is in them.
    times: Vec<(PathBuf, Stat)>,
}

impl Copy<'_> {
    fn add(&mut self, found: &Found, path: &Path) -> Result<()> {
        let (parent, name) = (path.parent().unwrap_or(Path::new("")), path.file_name().unwrap_or_default());
        match found.stat.kind {
            FileKind::Directory => {
                let parent = self.open_dir(parent)?;
                self.told("making a folder", rustix::fs::mkdirat(&parent, name, Mode::RWXU))?;
                self.times.push((path.to_owned(), found.stat));
                self.done.directories = self.done.directories.saturating_add(1);
            }
            FileKind::Symlink => {
                let parent = self.open_dir(parent)?;
                let target = self.tree.target(found)?;
                self.told("making a link", rustix::fs::symlinkat(OsStr::from_bytes(&target), &parent, name))?;
                let times = times(&found.stat);
                self.told("dating a link", rustix::fs::utimensat(&parent, name, &times, AtFlags::SYMLINK_NOFOLLOW))?;
                self.done.links = self.done.links.saturating_add(1);
            }
            FileKind::Regular => {
                let file = self.file(found, path)?;
                self.told("setting the mode of a file", rustix::fs::fchmod(&file, mode(&found.stat)))?;
                self.told("dating a file", rustix::fs::futimens(&file, &times(&found.stat)))?;
                self.done.files = self.done.files.saturating_add(1);
            }
            FileKind::BlockDevice | FileKind::CharDevice | FileKind::Fifo | FileKind::Socket => {
                self.done.skipped = self.done.skipped.saturating_add(1);
            }
        }
        Ok(())
    }

    /// A new file with the content of `found`, and a hole wherever that has one or a piece of it is zeros.
    fn file(&mut self, found: &Found, path: &Path) -> Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = File::from(self.told("making a file", self.open(path, flags, Mode::RUSR | Mode::WUSR))?);
        let failed = |e| Error::write("writing a file", e);
        let reader = self.tree.reader(found)?;
        each_part(&reader, self.session, |part| {
            each_piece_of(&reader, part, self.session, |at, piece| {
                let is_zero = piece.iter().all(|byte| *byte == 0);
                if is_zero { Ok(()) } else { file.write_all_at(piece, at).map_err(failed) }
            })
            .map(ControlFlow::Continue)
        })?;
        file.set_len(reader.size()).map_err(failed)?;
        self.done.bytes = self.done.bytes.saturating_add(reader.size());
        Ok(file)
    }

    fn open(&self, path: &Path, flags: OFlags, mode: Mode) -> rustix::io::Result<OwnedFd> {
        let stay = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        rustix::fs::openat2(&self.dir, path, flags, mode, stay)
    }

    fn open_dir(&self, path: &Path) -> Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        self.told("opening a folder", self.open(path, flags, Mode::empty()))
    }

    fn told<T>(&self, what: &str, result: rustix::io::Result<T>) -> Result<T> {
        result.map_err(|errno| match errno {
            Errno::EXIST => Error::new(Kind::Exists, "output.exists", "the name to copy to exists already")
                .path(&self.shown)
                .hint("name another, or remove it first"),
            other => Error::write(what, other.into()).path(&self.shown),
        })
    }

    /// Gives directories their modes and times, the innermost first.
    fn finish(mut self) -> Result<Copied> {
        for (path, stat) in std::mem::take(&mut self.times).into_iter().rev() {
            let dir = self.open_dir(&path)?;
            self.told("dating a folder", rustix::fs::futimens(&dir, &times(&stat)))?;
            self.told("setting the mode of a folder", rustix::fs::fchmod(&dir, mode(&stat)))?;
        }
        Ok(self.done)
    }
}

/// The permission bits, without those that give others an owner's rights.
fn mode(stat: &Stat) -> Mode {
    Mode::from_raw_mode(stat.mode & 0o777)
}

fn times(stat: &Stat) -> Timestamps {
    let spec = |time: crate::fs::Timestamp| Timespec { tv_sec: time.seconds, tv_nsec: i64::from(time.nanoseconds) };
    Timestamps { last_access: spec(stat.atime), last_modification: spec(stat.mtime) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::MemoryFs;

    /// A damaged directory may name one thing twice: first as a link, then as a directory.
    #[test]
    fn a_link_that_was_copied_is_no_way_out() {
        let host = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        let fs = MemoryFs::default();
        fs.add_link("/link", outside.path().to_str().unwrap()).unwrap();
        fs.add_file("/file", "content").unwrap();
        fs.add_dir("/dir").unwrap();
        let tree = Tree::new(std::sync::Arc::new(fs));
        let [link, file, dir] = ["/link", "/file", "/dir"].map(|path| tree.find_link(path).unwrap().unwrap());
        let session = Session::with_defaults();
        let flags = OFlags::DIRECTORY | OFlags::RDONLY;
        let mut copy = Copy {
            tree: &tree,
            session: &session,
            dir: rustix::fs::open(host.path(), flags, Mode::empty()).unwrap(),
            shown: host.path().to_owned(),
            done: Copied::default(),
            times: Vec::new(),
        };
        copy.add(&link, Path::new("a")).unwrap();
        for (found, path) in
            [(&file, "a/file"), (&dir, "a/dir"), (&link, "a/link"), (&file, "../file"), (&file, "/file")]
        {
            assert_eq!(copy.add(found, Path::new(path)).unwrap_err().kind(), Kind::Failed, "{path}");
        }
        assert_eq!(copy.add(&file, Path::new("a")).unwrap_err().code(), "output.exists");
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    }
}
