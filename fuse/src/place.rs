//! Is the mount point fit to be one? Asked before the kernel is, since the kernel's own answers explain little.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, FileType, StatxAttributes, StatxFlags};
use rustix::io::Errno;

use crate::error::{Error, Reason};

/// The resolved path of `dir`, once it is an empty directory on which nothing is mounted.
pub(crate) fn check(dir: &Path) -> Result<PathBuf, Error> {
    let error = |reason| Error::new(reason, dir);
    let stat = rustix::fs::statx(CWD, dir, AtFlags::empty(), StatxFlags::TYPE).map_err(|errno| match errno {
        Errno::NOENT => error(Reason::PlaceMissing),
        Errno::NOTCONN => error(Reason::DeadMount),
        Errno::NOTDIR => error(Reason::PlaceNotDirectory),
        errno => error(Reason::Place).because(errno.into()),
    })?;
    if FileType::from_raw_mode(stat.stx_mode.into()) != FileType::Directory {
        return Err(error(Reason::PlaceNotDirectory));
    }
    if stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
        return Err(error(Reason::AlreadyMounted));
    }
    let mut entries = std::fs::read_dir(dir).map_err(|cause| error(Reason::Place).because(cause))?;
    if entries.next().is_some() {
        return Err(error(Reason::PlaceNotEmpty));
    }
    dir.canonicalize().map_err(|cause| error(Reason::Place).because(cause))
}

/// Whether this user can open the kernel's device; `dir` is for the error.
pub(crate) fn check_device(dir: &Path) -> Result<(), Error> {
    rustix::fs::accessat(CWD, "/dev/fuse", Access::READ_OK | Access::WRITE_OK, AtFlags::EACCESS).map_err(|errno| {
        match errno {
            Errno::NOENT => Error::new(Reason::DeviceMissing, dir),
            errno => Error::new(Reason::DeviceDenied, dir).because(errno.into()),
        }
    })
}

/// Whether `dir`, a resolved path, is a mount point now. Asks the kernel's table, which no file system can block.
pub(crate) fn is_mounted(dir: &Path) -> io::Result<bool> {
    #[allow(clippy::disallowed_methods, reason = "the kernel's table of mounts is no image")]
    let table = std::fs::read("/proc/self/mountinfo")?;
    Ok(table
        .split(|&byte| byte == b'\n')
        .filter_map(mount_point)
        .any(|point| point == dir.as_os_str().as_encoded_bytes()))
}

/// The mount point of a line of `mountinfo`: the fifth field, in which space, tab, newline and backslash are octal.
fn mount_point(line: &[u8]) -> Option<Vec<u8>> {
    let field = line.split(|&byte| byte == b' ').nth(4)?;
    let mut point = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        if let (b'\\', Some((&[a, b, c], after))) = (byte, tail.split_first_chunk::<3>()) {
            let value = [a, b, c].iter().fold(0_u8, |value, digit| (value << 3) | (digit & 7));
            point.push(value);
            rest = after;
        } else {
            point.push(byte);
            rest = tail;
        }
    }
    Some(point)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_directory_is_fit() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(check(dir.path()).unwrap(), dir.path().canonicalize().unwrap());
    }

    #[test]
    fn says_what_is_wrong_with_a_place() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "x").unwrap();
        for (path, reason) in [
            (dir.path().join("missing"), Reason::PlaceMissing),
            (file.clone(), Reason::PlaceNotDirectory),
            (file.join("below"), Reason::PlaceNotDirectory),
            (dir.path().to_owned(), Reason::PlaceNotEmpty),
            (PathBuf::from("/proc"), Reason::AlreadyMounted),
        ] {
            assert_eq!(check(&path).unwrap_err().reason(), reason, "{}", path.display());
        }
    }

    #[test]
    fn reads_the_mount_table() {
        assert_eq!(
            mount_point(br"36 35 98:0 /m /mnt/a\040b\134c rw,noatime - ext3 /dev/root rw").unwrap(),
            br"/mnt/a b\c"
        );
        for odd in [&b""[..], b"1 2 3 4", br"1 2 3 4 \", br"1 2 3 4 \0", br"1 2 3 4 \999"] {
            let _ = mount_point(odd);
        }
        assert!(is_mounted(Path::new("/proc")).unwrap());
        assert!(!is_mounted(Path::new("/proc/self")).unwrap());
    }
}
