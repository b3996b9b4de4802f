//! Names of directories that are asked for again and again, for formats whose directories are read from the front.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Inode;
use crate::error::Result;
use crate::limits;

/// Bytes counted for a name beside its own.
const ENTRY: usize = 64;

/// Directories that something is remembered of.
const DIRS: usize = 4096;

/// What is remembered of a directory.
#[derive(Clone, Debug)]
enum Dir {
    /// It was asked for a name.
    Asked,
    /// It has more names than are kept.
    Large,
    Names(Arc<Names>),
}

/// Names of one directory, in the form in which those are equal that are the same name.
#[derive(Debug, Default)]
pub(super) struct Names {
    inodes: HashMap<Vec<u8>, Inode>,
    bytes: usize,
}

impl Names {
    /// Adds a name; of several that are the same the first one counts. Whether there is room for more.
    pub(super) fn add(&mut self, key: Vec<u8>, inode: Inode) -> bool {
        self.bytes = self.bytes.saturating_add(key.len()).saturating_add(ENTRY);
        if self.bytes <= limits::KNOWN_NAMES {
            self.inodes.entry(key).or_insert(inode);
        }
        self.bytes <= limits::KNOWN_NAMES
    }
}

/// Names of directories that were asked for more than once.
#[derive(Debug, Default)]
pub(super) struct Known(Mutex<(HashMap<Inode, Dir>, usize)>);

impl Known {
    /// The entry `key` of a directory: by `one`, which looks for it from the front, the first time, and among what `all` lists later.
    /// `all` may stop when there is no more room.
    pub(super) fn find(
        &self,
        dir: Inode,
        key: &[u8],
        one: impl FnOnce() -> Result<Option<Inode>>,
        all: impl FnOnce(&mut Names) -> Result<()>,
    ) -> Result<Option<Inode>> {
        let known = self.lock().0.get(&dir).cloned();
        match known {
            Some(Dir::Names(names)) => return Ok(names.inodes.get(key).copied()),
            Some(Dir::Large) => return one(),
            None => {
                self.keep(dir, Dir::Asked, 0);
                return one();
            }
            Some(Dir::Asked) => {}
        }
        let mut names = Names::default();
        // What is damaged at its end has names at its front.
        if all(&mut names).is_err() {
            return one();
        }
        if names.bytes > limits::KNOWN_NAMES {
            self.keep(dir, Dir::Large, 0);
            return one();
        }
        let found = names.inodes.get(key).copied();
        let bytes = names.bytes;
        self.keep(dir, Dir::Names(Arc::new(names)), bytes);
        Ok(found)
    }

    fn keep(&self, dir: Inode, what: Dir, bytes: usize) {
        let mut kept = self.lock();
        if kept.0.len() >= DIRS || kept.1.saturating_add(bytes) > limits::KNOWN_NAMES {
            *kept = (HashMap::new(), 0);
        }
        kept.1 = kept.1.saturating_add(bytes);
        kept.0.insert(dir, what);
    }

    fn lock(&self) -> MutexGuard<'_, (HashMap<Inode, Dir>, usize)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "tests build their input")]
mod tests {
    use super::*;
    use crate::error::Error;

    /// Looks for a name in a directory of `count` names of eight bytes: what is found, and how often it was read in which way.
    fn find(known: &Known, dir: u64, name: u64, count: u64, reads: &mut (u32, u32)) -> Option<Inode> {
        let found = known.find(
            Inode(dir),
            &name.to_be_bytes(),
            || {
                reads.0 += 1;
                Ok((name < count).then_some(Inode(name)))
            },
            |names| {
                reads.1 += 1;
                for name in 0..count {
                    if !names.add(name.to_be_bytes().to_vec(), Inode(name)) {
                        break;
                    }
                }
                Ok(())
            },
        );
        found.unwrap()
    }

    #[test]
    fn as_many_names_are_kept_as_there_is_room_for() {
        let limit = u64::try_from(limits::KNOWN_NAMES / (ENTRY + 8)).unwrap();
        for (count, expected) in [(1, (1, 1)), (limit - 1, (1, 1)), (limit, (1, 1)), (limit + 1, (4, 1))] {
            let (known, mut reads) = (Known::default(), (0, 0));
            for name in [0, count - 1, count, 0] {
                assert_eq!(find(&known, 7, name, count, &mut reads), (name < count).then_some(Inode(name)));
            }
            assert_eq!(reads, expected, "{count}");
        }
    }

    #[test]
    fn what_is_kept_has_a_bound() {
        let (known, mut reads) = (Known::default(), (0, 0));
        let half = u64::try_from(limits::KNOWN_NAMES / (ENTRY + 8) / 2).unwrap();
        for dir in 0..5 {
            for _ in 0..3 {
                find(&known, dir, 1, half, &mut reads);
            }
            assert!(known.lock().1 <= limits::KNOWN_NAMES);
        }
        for dir in 0..u64::try_from(DIRS).unwrap() * 2 {
            find(&known, dir, 1, 2, &mut reads);
        }
        assert!(known.lock().0.len() <= DIRS);
    }

    #[test]
    fn a_damaged_directory_is_read_from_its_front() {
        let known = Known::default();
        for _ in 0..4 {
            let all = |_: &mut Names| Err(Error::corrupt("iso.corrupt", "its end"));
            assert_eq!(known.find(Inode(1), b"a", || Ok(Some(Inode(2))), all).unwrap(), Some(Inode(2)));
        }
    }
}
