//! A package's digests, computed in the pass that reads it anyway.
//!
//! A file is hashed in its own order while the blocks come in the order in which they are wanted. Each block that the cache
//! fetches is seen once: the thread that fetched it hashes it if it is next, else it is held until what is before it came. What
//! nobody wants (padding, free blocks) is fetched when the readers have moved on, or at the end.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};

use super::manifest::{Algorithm, Expected};
use crate::cache::{BLOCK, Block, BlockCache, Tap};
use crate::disk::Checked;
use crate::error::{Error, Result};
use crate::session::Session;

/// The digests of a package's files.
#[derive(Debug, Default)]
pub struct Digests {
    groups: Vec<Arc<Group>>,
}

/// A file whose digest was as the manifest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The file's name in the package.
    pub name: String,
    /// Such as `SHA256`.
    pub algorithm: &'static str,
    /// The digest in hexadecimal.
    pub digest: String,
}

impl Digests {
    /// Watches the files of one source. `files` are ranges of it with the digests that they should have.
    pub fn watch(
        &mut self,
        cache: &Arc<Checked<BlockCache>>,
        files: Vec<(Range<u64>, Expected)>,
        session: &Arc<Session>,
    ) {
        let share = session.budget.cache() / 4 / (files.len() as u64).max(1);
        let files = files.into_iter().map(|(range, expected)| Watched::new(range, expected)).collect();
        let group =
            Arc::new(Group { cache: Arc::clone(cache), session: Arc::clone(session), share: share.max(BLOCK), files });
        let tap: Arc<dyn Tap> = Arc::<Group>::clone(&group);
        cache.inner().set_tap(Arc::downgrade(&tap));
        self.groups.push(group);
    }

    /// An error as soon as one file is known to be wrong; cheap.
    ///
    /// # Errors
    /// `ova.digest`.
    pub fn check(&self) -> Result<()> {
        self.files().filter_map(|file| file.front.try_lock().ok()).try_for_each(|front| match &front.outcome {
            Some(Err(error)) => Err(error.clone()),
            _ => Ok(()),
        })
    }

    /// Bytes hashed so far, and bytes to hash in all.
    #[must_use]
    pub fn progress(&self) -> (u64, u64) {
        self.files().fold((0, 0), |(done, all), file| {
            let next = lock(&file.front).next;
            (done + next - file.range.start, all + file.range.end - file.range.start)
        })
    }

    /// Reads what nobody wanted, and compares.
    ///
    /// # Errors
    /// `ova.digest` when a file is not what the manifest says; those of reading.
    pub fn finish(&self) -> Result<Vec<Verified>> {
        let mut verified = Vec::new();
        for group in &self.groups {
            for file in &group.files {
                verified.push(group.finish(file)?);
            }
        }
        Ok(verified)
    }

    fn files(&self) -> impl Iterator<Item = &Watched> {
        self.groups.iter().flat_map(|group| &group.files)
    }
}

/// Compares the digest of a file that is in memory.
///
/// # Errors
/// `ova.digest`.
pub fn verify(bytes: &[u8], expected: &Expected) -> Result<Verified> {
    let mut hasher = Hasher::new(expected.algorithm);
    hasher.update(bytes);
    hasher.compare(expected)
}

/// The watched files of one source.
#[derive(Debug)]
struct Group {
    cache: Arc<Checked<BlockCache>>,
    session: Arc<Session>,
    /// Bytes that each file may hold back.
    share: u64,
    files: Vec<Watched>,
}

#[derive(Debug)]
struct Watched {
    range: Range<u64>,
    expected: Expected,
    front: Mutex<Front>,
    /// Blocks that came before their turn, by index.
    ahead: Mutex<BTreeMap<u64, Block>>,
}

/// How far a file is hashed. Whoever holds the lock hashes.
#[derive(Debug)]
struct Front {
    /// Offset in the source of the next byte.
    next: u64,
    hasher: Hasher,
    outcome: Option<Result<Verified>>,
}

thread_local! {
    /// This thread is hashing: blocks that it fetches itself must not make it wait for itself.
    static HASHING: Cell<bool> = const { Cell::new(false) };
}

impl Tap for Group {
    fn fetched(&self, index: u64, block: &Block) {
        // What comes before the pass is kept by the cache, and found there in its turn.
        if !self.session.is_streaming() {
            return;
        }
        let range = index * BLOCK..index * BLOCK + block.len() as u64;
        for file in self.files.iter().filter(|file| file.range.start < range.end && range.start < file.range.end) {
            let held = file.hold(index, block);
            let front = match file.front.try_lock() {
                Ok(front) => front,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) if held > self.share && !HASHING.get() => lock(&file.front),
                Err(TryLockError::WouldBlock) => continue,
            };
            self.advance(file, front);
        }
    }
}

impl Group {
    /// Hashes what is there, and beyond gaps while too much is held back. An error of reading is left to whoever reads there
    /// next.
    fn advance(&self, file: &Watched, mut front: MutexGuard<'_, Front>) {
        let before = HASHING.replace(true);
        // Blocks that were fetched again come when their turn is over.
        file.forget_before(front.next);
        while front.next < file.range.end {
            let index = front.next / BLOCK;
            let block = match file.release(index).or_else(|| self.cache.inner().peek(index)) {
                Some(block) => Ok(block),
                None if file.held() > self.share / 2 => self.fetch(file, index),
                None => break,
            };
            let Ok(block) = block else { break };
            front.take(file, index, &block);
        }
        HASHING.set(before);
    }

    /// Reads a block that nobody brought. The tap has seen it too, and held it.
    fn fetch(&self, file: &Watched, index: u64) -> Result<Block> {
        let block = self.cache.inner().block(index);
        file.release(index);
        block
    }

    fn finish(&self, file: &Watched) -> Result<Verified> {
        let mut front = lock(&file.front);
        let before = HASHING.replace(true);
        let result = self.hash_rest(file, &mut front);
        HASHING.set(before);
        result?;
        if front.outcome.is_none() {
            front.conclude(file);
        }
        let name = &file.expected.name;
        front.outcome.clone().unwrap_or_else(|| Err(Error::failed("ova.digest", "a digest was not computed").at(name)))
    }

    fn hash_rest(&self, file: &Watched, front: &mut Front) -> Result<()> {
        while front.next < file.range.end {
            self.session.check()?;
            let index = front.next / BLOCK;
            let block = match file.release(index) {
                Some(block) => block,
                None => self.fetch(file, index).map_err(|error| error.at(&file.expected.name))?,
            };
            front.take(file, index, &block);
        }
        file.forget_before(front.next);
        Ok(())
    }
}

impl Watched {
    fn new(range: Range<u64>, expected: Expected) -> Self {
        let hasher = Hasher::new(expected.algorithm);
        let front = Front { next: range.start, hasher, outcome: None };
        Self { front: Mutex::new(front), range, expected, ahead: Mutex::default() }
    }

    /// Keeps a block for its turn; bytes held then.
    fn hold(&self, index: u64, block: &Block) -> u64 {
        let mut ahead = lock(&self.ahead);
        ahead.insert(index, Arc::clone(block));
        ahead.len() as u64 * BLOCK
    }

    fn release(&self, index: u64) -> Option<Block> {
        lock(&self.ahead).remove(&index)
    }

    /// Drops blocks that hold nothing from `next` on.
    fn forget_before(&self, next: u64) {
        let first = if next >= self.range.end { u64::MAX } else { next / BLOCK };
        let mut ahead = lock(&self.ahead);
        *ahead = ahead.split_off(&first);
    }

    fn held(&self) -> u64 {
        lock(&self.ahead).len() as u64 * BLOCK
    }
}

impl Front {
    /// Hashes the file's part of block `index`, in which the next byte lies.
    fn take(&mut self, file: &Watched, index: u64, block: &[u8]) {
        let start = index * BLOCK;
        let end = file.range.end.min(start + block.len() as u64);
        let part = usize::try_from(self.next - start).unwrap_or(usize::MAX)..usize::try_from(end - start).unwrap_or(0);
        self.hasher.update(block.get(part).unwrap_or_default());
        self.next = end;
        if self.next == file.range.end {
            self.conclude(file);
        }
    }

    fn conclude(&mut self, file: &Watched) {
        let hasher = std::mem::replace(&mut self.hasher, Hasher::new(file.expected.algorithm));
        self.outcome = Some(hasher.compare(&file.expected));
    }
}

/// A running digest of any kind.
#[derive(Clone, Debug)]
enum Hasher {
    Sha1(Sha1),
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hasher {
    fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha1 => Self::Sha1(Sha1::new()),
            Algorithm::Sha256 => Self::Sha256(Sha256::new()),
            Algorithm::Sha512 => Self::Sha512(Sha512::new()),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha1(hasher) => hasher.update(bytes),
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
        }
    }

    fn compare(self, expected: &Expected) -> Result<Verified> {
        let digest = match self {
            Self::Sha1(hasher) => hasher.finalize().to_vec(),
            Self::Sha256(hasher) => hasher.finalize().to_vec(),
            Self::Sha512(hasher) => hasher.finalize().to_vec(),
        };
        let algorithm = expected.algorithm.name();
        if digest != expected.digest {
            return Err(Error::corrupt("ova.digest", format!("the file's {algorithm} is not what the manifest says"))
                .at(&expected.name)
                .expected(hex(&expected.digest))
                .found(hex(&digest))
                .hint("the package was damaged or changed after it was made; get it again"));
        }
        Ok(Verified { name: expected.name.clone(), algorithm, digest: hex(&digest) })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Disk, Fault, Memory, read_vec};
    use crate::session::{Budget, Policy};
    use std::sync::atomic::{AtomicU64, Ordering};

    const BLOCKS: u64 = 60;
    const LEN: usize = BLOCKS as usize * BLOCK as usize + 777;

    fn bytes() -> Vec<u8> {
        (0..LEN).map(|at| (at / 3 + at / 5003 * 17) as u8).collect()
    }

    fn expected(name: &str, algorithm: Algorithm, bytes: &[u8]) -> Expected {
        let digest = match algorithm {
            Algorithm::Sha1 => Sha1::digest(bytes).to_vec(),
            Algorithm::Sha256 => Sha256::digest(bytes).to_vec(),
            Algorithm::Sha512 => Sha512::digest(bytes).to_vec(),
        };
        Expected { name: name.into(), algorithm, digest }
    }

    /// A source of two files and the digests that watch it.
    struct Package {
        source: Arc<dyn Disk>,
        cache: Arc<Checked<BlockCache>>,
        digests: Digests,
        session: Arc<Session>,
    }

    fn package(bytes: &[u8], wrong: bool) -> Package {
        let session = Session::new(Budget::new(0), Policy::default(), 2);
        let source: Arc<dyn Disk> = Checked::wrap(Memory::new(bytes.to_vec()));
        let cache = BlockCache::wrap(Arc::clone(&source), &session);
        let (first, second) = (700..LEN / 2, LEN / 2 + 512..LEN - 3);
        let mut files = Vec::new();
        for (name, range, algorithm) in [("a", first, Algorithm::Sha256), ("b", second, Algorithm::Sha1)] {
            let mut expected = expected(name, algorithm, &bytes[range.clone()]);
            expected.digest[0] ^= u8::from(wrong && name == "b");
            files.push((range.start as u64..range.end as u64, expected));
        }
        let mut digests = Digests::default();
        digests.watch(&cache, files, &session);
        Package { source, cache, digests, session }
    }

    #[test]
    fn without_any_read_finish_reads_all_of_it_once() {
        let bytes = bytes();
        let package = package(&bytes, false);
        let verified = package.digests.finish().unwrap();
        assert_eq!(
            verified.iter().map(|v| (v.name.as_str(), v.algorithm)).collect::<Vec<_>>(),
            [("a", "SHA256"), ("b", "SHA1")]
        );
        assert_eq!(package.source.stats().unwrap().bytes, LEN as u64);
        let all = (LEN / 2 - 700 + LEN - 3 - LEN / 2 - 512) as u64;
        assert_eq!(package.digests.progress(), (all, all));
    }

    #[test]
    fn a_pass_with_gaps_by_several_threads_reads_every_byte_once() {
        let bytes = bytes();
        let package = package(&bytes, false);
        // Inspection looks here and there.
        for block in [0, 50, 13, 59] {
            read_vec(&*package.cache, block * BLOCK + 5, 100).unwrap();
        }
        package.session.begin_streaming();
        let next = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    loop {
                        let block = next.fetch_add(1, Ordering::Relaxed);
                        // Every third block is free space that nobody reads; both files advance together.
                        let at = (block % 2) * (BLOCKS / 2) + block / 2;
                        if block >= BLOCKS {
                            break;
                        }
                        if at % 3 != 1 {
                            let range = (at * BLOCK) as usize..((at + 1) * BLOCK) as usize;
                            assert!(read_vec(&*package.cache, at * BLOCK, BLOCK as usize).unwrap() == bytes[range]);
                        }
                    }
                });
            }
        });
        assert!(package.digests.progress().0 > 0, "hashing keeps up with reading");
        package.digests.finish().unwrap();
        assert_eq!(package.source.stats().unwrap().bytes, LEN as u64);
    }

    #[test]
    fn a_pass_in_reverse_is_right_too() {
        let bytes = bytes();
        let package = package(&bytes, false);
        package.session.begin_streaming();
        for block in (0..BLOCKS).rev() {
            read_vec(&*package.cache, block * BLOCK, 1000).unwrap();
        }
        package.digests.finish().unwrap();
    }

    #[test]
    fn a_wrong_digest_is_corruption() {
        let package = package(&bytes(), true);
        package.digests.check().unwrap();
        let error = package.digests.finish().unwrap_err();
        assert_eq!((error.code(), error.kind().exit_code()), ("ova.digest", 4));
        assert_eq!(package.digests.check().unwrap_err().code(), "ova.digest");
    }

    #[test]
    fn what_is_held_back_is_bounded() {
        let package = package(&bytes(), false);
        package.session.begin_streaming();
        let group = &package.digests.groups[0];
        for block in 10..30 {
            read_vec(&*package.cache, block * BLOCK, 1).unwrap();
            assert!(group.files[0].held() <= group.share + BLOCK, "{}", group.files[0].held());
        }
    }

    #[test]
    fn an_empty_file_has_a_digest() {
        let session = Session::with_defaults();
        let cache = BlockCache::wrap(Checked::wrap(Memory::new(vec![1; 10])), &session);
        let mut digests = Digests::default();
        digests.watch(&cache, vec![(5..5, expected("empty", Algorithm::Sha512, b""))], &session);
        assert_eq!(digests.finish().unwrap().len(), 1);
    }

    #[test]
    fn an_unreadable_gap_is_an_error() {
        let session = Session::with_defaults();
        let bytes = bytes();
        let memory: Arc<dyn Disk> = Checked::wrap(Memory::new(bytes.clone()));
        let cache = BlockCache::wrap(Checked::wrap(Fault::range(memory, 5 * BLOCK..5 * BLOCK + 1)), &session);
        let mut digests = Digests::default();
        digests.watch(&cache, vec![(0..LEN as u64, expected("a", Algorithm::Sha256, &bytes))], &session);
        session.begin_streaming();
        for block in 6..BLOCKS {
            read_vec(&*cache, block * BLOCK, 1).unwrap();
        }
        assert_eq!(digests.finish().unwrap_err().code(), "fault.injected");
    }
}
