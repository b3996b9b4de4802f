//! A sparse file as a disk that can be written, for images made by other programs.

use std::fs::{File, OpenOptions};
use std::ops::{ControlFlow, Range};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use hyper2kvm::disk::{Checked, Disk, DiskMut, ExtentKind, Fingerprint, Visit, whole};
use hyper2kvm::error::{Error, Result};
use hyper2kvm::fs::Filesystem;

/// The bytes of a file.
#[derive(Debug)]
pub(crate) struct FileDisk {
    file: File,
    len: u64,
}

impl FileDisk {
    /// Opens `path` for reading and writing.
    pub(crate) fn open(path: &Path) -> Arc<Checked<Self>> {
        let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
        let len = file.metadata().unwrap().len();
        Checked::wrap(Self { file, len })
    }
}

/// Overwrites all that is free in a file system, of which `image` is the file. The number of bytes.
pub(crate) fn overwrite_free(fs: &dyn Filesystem, image: &Path) -> u64 {
    let disk = FileDisk::open(image);
    let mut freed = 0;
    fs.free_ranges(&mut |range| {
        let len = usize::try_from(range.end - range.start).unwrap();
        disk.write_at(&vec![0xa5; len], range.start).unwrap();
        freed += range.end - range.start;
        ControlFlow::Continue(())
    })
    .unwrap();
    freed
}

impl Disk for FileDisk {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.file.read_exact_at(buf, offset).map_err(|error| Error::unreadable("test file", error))
    }

    fn extents(&self, range: Range<u64>, visit: &mut Visit<'_>) -> Result<()> {
        whole(range, ExtentKind::Data, None, visit);
        Ok(())
    }

    fn fingerprint(&self) -> Result<Fingerprint> {
        Ok(Fingerprint::of(&[]))
    }

    fn describe(&self) -> (&'static str, String) {
        ("file", "test".to_owned())
    }
}

impl DiskMut for FileDisk {
    fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        self.file.write_all_at(data, offset).map_err(|error| Error::write("test file", error))
    }

    fn zero(&self, range: Range<u64>) -> Result<()> {
        let len = usize::try_from(range.end - range.start).unwrap();
        self.write_at(&vec![0; len], range.start)
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }
}
