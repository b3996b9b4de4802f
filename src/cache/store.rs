//! Blocks of sources on other machines, kept in a folder that the user names, so that a later run need not fetch them again.
//!
//! One file for each state of a source: a header that says which, a table with the digest of every block that is there, and the
//! blocks, each at its own place in a sparse file. A block counts when its digest is right, so a run may die, or another may write
//! the same file, at any moment: there is nothing to repair.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::blocks::BLOCK;
use super::pool::Block;
use crate::disk::Fingerprint;
use crate::error::{Error, Kind, Result};

/// What a file begins with: a name and a version of this layout.
const MAGIC: &[u8; 16] = b"hyper2kvm blocks";
const VERSION: u32 = 1;

/// Where the table of digests begins.
const TABLE: u64 = 4096;

/// Bytes of a digest: a part of that of BLAKE3, over the block's number and its bytes.
const DIGEST: usize = 16;

/// Bytes of the file system that are left to others.
const SPARE: u64 = 4 << 30;

/// The kept blocks of one source.
#[derive(Debug)]
pub(super) struct Store {
    file: File,
    path: PathBuf,
    /// Where the blocks begin in the file.
    blocks: u64,
    /// Bytes of the file system that are left free.
    spare: u64,
    /// Whether nothing more is kept: there is no room, or the file cannot be written.
    closed: AtomicBool,
    found: AtomicU64,
    kept: AtomicU64,
}

impl Store {
    /// The file for the source `origin` with `len` bytes, in `folder`.
    ///
    /// # Errors
    /// `cache.folder` when it cannot be made, or others could write what we would believe.
    pub(super) fn open(folder: &Path, origin: Fingerprint, len: u64) -> Result<Self> {
        let name: String = origin.0.iter().take(DIGEST).map(|byte| format!("{byte:02x}")).collect();
        let path = folder.join(format!("{name}.blocks"));
        let file = open_file(&path).map_err(|error| failed(&path, error))?;
        let metadata = file.metadata().map_err(|error| failed(&path, error))?;
        if !metadata.is_file() || metadata.uid() != rustix::process::geteuid().as_raw() || metadata.mode() & 0o022 != 0
        {
            return Err(refused("others could have written these blocks", &path)
                .expected("a file of the user's own that nobody else can write")
                .hint("name a folder of your own with --cache-dir"));
        }
        let header = header(origin, len);
        let mut known = vec![0; header.len()];
        if file.read_exact_at(&mut known, 0).is_err() || known != header {
            file.set_len(0).and_then(|()| file.write_all_at(&header, 0)).map_err(|error| failed(&path, error))?;
        }
        let table = len.div_ceil(BLOCK).saturating_mul(DIGEST as u64);
        let blocks = TABLE.saturating_add(table).next_multiple_of(BLOCK);
        let (closed, found, kept) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
        Ok(Self { file, path, blocks, spare: SPARE, closed, found, kept })
    }

    /// Block `index` with `len` bytes, if it is here.
    pub(super) fn get(&self, index: u64, len: usize) -> Option<Block> {
        let mut said = [0; DIGEST];
        self.file.read_exact_at(&mut said, entry(index)).ok()?;
        if said == [0; DIGEST] {
            return None;
        }
        let mut block: Block = std::iter::repeat_n(0, len).collect();
        self.file.read_exact_at(std::sync::Arc::get_mut(&mut block)?, self.place(index)).ok()?;
        if digest(index, &block) != said {
            return None;
        }
        self.found.fetch_add(1, Ordering::Relaxed);
        Some(block)
    }

    /// Keeps block `index`, as long as there is room: without it, the run goes on as if there were no folder.
    pub(super) fn keep(&self, index: u64, block: &[u8]) {
        /// Blocks between two looks at the room.
        const OFTEN: u64 = 64;
        if self.closed.load(Ordering::Relaxed) {
            return;
        }
        let count = self.kept.fetch_add(1, Ordering::Relaxed);
        let result = if count.is_multiple_of(OFTEN) { self.has_room() } else { Ok(()) }
            .and_then(|()| self.file.write_all_at(block, self.place(index)))
            .and_then(|()| self.file.write_all_at(&digest(index, block), entry(index)));
        if let Err(error) = result
            && !self.closed.swap(true, Ordering::Relaxed)
        {
            tracing::warn!("{}: no more blocks are kept: {error}", self.path.display());
        }
    }

    /// Leaves some room to others: the output may be on the same file system.
    fn has_room(&self) -> io::Result<()> {
        let room = rustix::fs::fstatvfs(&self.file)?;
        let free = room.f_bavail.saturating_mul(room.f_frsize);
        if free > self.spare { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
    }

    /// How many blocks came from here, and how many were put here.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.found.load(Ordering::Relaxed), self.kept.load(Ordering::Relaxed))
    }

    fn place(&self, index: u64) -> u64 {
        self.blocks.saturating_add(index.saturating_mul(BLOCK))
    }
}

/// Makes the folder in which blocks are to be kept, readable for the user alone, unless it is there.
///
/// # Errors
/// `cache.folder`.
pub fn make_folder(folder: &Path) -> Result<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(_) if folder.is_dir() => Ok(()),
        made => made.map_err(|error| failed(folder, error)),
    }
}

fn failed(path: &Path, error: io::Error) -> Error {
    refused("blocks cannot be kept here", path).because(error)
}

fn refused(what: &str, path: &Path) -> Error {
    Error::new(Kind::Usage, "cache.folder", what).path(path)
}

#[allow(clippy::disallowed_methods, reason = "blocks are kept in the folder that the user named for them")]
fn open_file(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(flags).open(path)
}

fn header(origin: Fingerprint, len: u64) -> Vec<u8> {
    [&MAGIC[..], &VERSION.to_le_bytes(), &BLOCK.to_le_bytes(), &len.to_le_bytes(), &origin.0].concat()
}

fn entry(index: u64) -> u64 {
    TABLE.saturating_add(index.saturating_mul(DIGEST as u64))
}

fn digest(index: u64, block: &[u8]) -> [u8; DIGEST] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&index.to_le_bytes());
    hasher.update(block);
    let mut digest = [0; DIGEST];
    hasher.finalize_xof().fill(&mut digest);
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: u64 = 3 * BLOCK + 100;

    fn open(folder: &Path, origin: u8) -> Store {
        let mut store = Store::open(folder, Fingerprint([origin; 32]), LEN).unwrap();
        store.spare = 0;
        store
    }

    fn block(fill: u8, len: usize) -> Vec<u8> {
        vec![fill; len]
    }

    #[test]
    fn blocks_are_there_in_the_next_run() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("new");
        make_folder(&inner).unwrap();
        make_folder(&inner).unwrap();
        let store = open(&inner, 1);
        assert!(store.get(0, BLOCK as usize).is_none());
        store.keep(0, &block(7, BLOCK as usize));
        store.keep(3, &block(8, 100));
        let again = open(&inner, 1);
        assert_eq!(again.get(0, BLOCK as usize).unwrap()[..], block(7, BLOCK as usize)[..]);
        assert_eq!(again.get(3, 100).unwrap()[..], block(8, 100)[..]);
        assert!(again.get(1, BLOCK as usize).is_none());
        assert_eq!((again.counts(), store.counts()), ((2, 0), (0, 2)));
        assert!(open(&inner, 2).get(0, BLOCK as usize).is_none(), "another state of the source");
        assert_eq!(std::fs::metadata(&inner).unwrap().mode() & 0o777, 0o700);
        assert_eq!(std::fs::metadata(&again.path).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn damaged_and_torn_blocks_are_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path(), 1);
        let bytes = block(7, BLOCK as usize);
        let damages: [(&str, &dyn Fn()); 4] = [
            ("a bit", &|| store.file.write_all_at(&[6], store.place(1) + 1000).unwrap()),
            ("the digest", &|| store.file.write_all_at(&[1], entry(1) + 5).unwrap()),
            ("another block's digest", &|| {
                let mut other = [0; DIGEST];
                store.file.read_exact_at(&mut other, entry(0)).unwrap();
                store.file.write_all_at(&other, entry(1)).unwrap();
            }),
            ("cut off", &|| store.file.set_len(store.place(1) + 10).unwrap()),
        ];
        for (name, damage) in damages {
            store.keep(0, &bytes);
            store.keep(1, &bytes);
            assert!(store.get(1, bytes.len()).is_some(), "{name}");
            damage();
            assert!(store.get(1, bytes.len()).is_none(), "{name}");
            assert!(store.get(0, bytes.len()).is_some(), "{name}");
        }
        store.file.write_all_at(b"something else", 0).unwrap();
        assert!(open(folder.path(), 1).get(0, bytes.len()).is_none(), "a header of something else");
    }

    #[test]
    fn files_that_others_can_write_are_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = open(folder.path(), 1).path;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o622)).unwrap();
        let refused = |origin| Store::open(folder.path(), Fingerprint([origin; 32]), LEN).unwrap_err().code();
        assert_eq!(refused(1), "cache.folder");
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        assert_eq!(refused(1), "cache.folder");
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert_eq!(make_folder(&file).unwrap_err().code(), "cache.folder");
    }

    #[test]
    fn room_is_left_to_others() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = open(folder.path(), 1);
        store.spare = u64::MAX;
        store.keep(0, &block(7, BLOCK as usize));
        assert!(store.closed.load(Ordering::Relaxed) && store.get(0, BLOCK as usize).is_none());
    }

    #[test]
    fn a_file_that_cannot_be_written_is_no_failure() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = open(folder.path(), 1);
        #[allow(clippy::disallowed_methods, reason = "a test")]
        let read_only = File::open(&store.path).unwrap();
        store.file = read_only;
        store.keep(0, &block(7, BLOCK as usize));
        assert!(store.closed.load(Ordering::Relaxed) && store.get(0, BLOCK as usize).is_none());
    }
}
