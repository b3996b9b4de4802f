//! A directory of named files: the simplest tree.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use crate::tree::{Attributes, Failure, File, Kind, Listed, Node, Tree};

/// One directory with files in it, shown in the order in which they were added.
pub struct Files {
    modified: SystemTime,
    files: Vec<Named>,
}

struct Named {
    name: OsString,
    file: Arc<dyn File>,
    allocated: u64,
}

impl Files {
    /// A directory without files, last changed now.
    #[must_use]
    pub fn new() -> Self {
        Self { modified: SystemTime::now(), files: Vec::new() }
    }

    /// Sets the time that every file shows as its last change.
    #[must_use]
    pub fn modified(mut self, time: SystemTime) -> Self {
        self.modified = time;
        self
    }

    /// Adds `file`, all of whose bytes count as taking up space. Of two files with one name the first is found.
    #[must_use]
    pub fn with(self, name: impl Into<OsString>, file: Arc<dyn File>) -> Self {
        let allocated = file.len();
        self.with_allocated(name, file, allocated)
    }

    /// Adds `file`, of which `allocated` bytes take up space: the sum of its data extents, where that is known.
    #[must_use]
    pub fn with_allocated(mut self, name: impl Into<OsString>, file: Arc<dyn File>, allocated: u64) -> Self {
        self.files.push(Named { name: name.into(), file, allocated });
        self
    }

    fn named(&self, node: Node) -> Result<&Named, Failure> {
        let index = node.0.checked_sub(FIRST_FILE).and_then(|index| usize::try_from(index).ok());
        index.and_then(|index| self.files.get(index)).ok_or(Failure::NotFound)
    }

    fn entries(&self) -> impl Iterator<Item = (Node, &Named)> {
        (FIRST_FILE..).map(Node).zip(&self.files)
    }
}

impl Default for Files {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.files.iter().map(|named| (&named.name, named.file.len()))).finish()
    }
}

/// The node of the first file; the others follow.
const FIRST_FILE: u64 = Node::ROOT.0 + 1;

impl Tree for Files {
    fn lookup(&self, dir: Node, name: &OsStr) -> Result<Node, Failure> {
        if dir != Node::ROOT {
            return Err(Failure::NotDirectory);
        }
        self.entries().find(|(_, named)| named.name == name).map(|(node, _)| node).ok_or(Failure::NotFound)
    }

    fn attributes(&self, node: Node) -> Result<Attributes, Failure> {
        if node == Node::ROOT {
            return Ok(Attributes { links: 2, ..Attributes::new(Kind::Directory, 0, 0o500, self.modified) });
        }
        let named = self.named(node)?;
        let mode = if named.file.is_writable() { 0o600 } else { 0o400 };
        let attributes = Attributes::new(Kind::File, named.file.len(), mode, self.modified);
        Ok(Attributes { allocated: named.allocated, ..attributes })
    }

    fn list(&self, dir: Node, after: u64, visit: &mut dyn FnMut(Listed<'_>) -> bool) -> Result<(), Failure> {
        if dir != Node::ROOT {
            return Err(Failure::NotDirectory);
        }
        for (node, named) in self.entries().skip_while(|(node, _)| node.0 <= after) {
            if !visit(Listed { name: &named.name, node, kind: Kind::File, next: node.0 }) {
                break;
            }
        }
        Ok(())
    }

    fn open(&self, node: Node) -> Result<Arc<dyn File>, Failure> {
        if node == Node::ROOT {
            return Err(Failure::IsDirectory);
        }
        Ok(Arc::clone(&self.named(node)?.file))
    }

    fn totals(&self) -> (u64, u64) {
        let bytes = self.files.iter().fold(0_u64, |sum, named| sum.saturating_add(named.file.len()));
        (bytes, u64::try_from(self.files.len()).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Empty(u64);

    impl File for Empty {
        fn len(&self) -> u64 {
            self.0
        }

        fn read_at(&self, _buf: &mut [u8], _offset: u64) -> Result<(), Failure> {
            Err(Failure::Io)
        }
    }

    fn three() -> Files {
        Files::new()
            .with("disk.raw", Arc::new(Empty(4096)))
            .with_allocated("b", Arc::new(Empty(8192)), 512)
            .with("c", Arc::new(Empty(0)))
    }

    fn names(files: &Files, after: u64, most: usize) -> Vec<(OsString, u64)> {
        let mut names = Vec::new();
        files
            .list(Node::ROOT, after, &mut |listed| {
                names.push((listed.name.to_owned(), listed.next));
                names.len() < most
            })
            .unwrap();
        names
    }

    #[test]
    fn a_listing_goes_on_where_it_stopped() {
        let files = three();
        let all = names(&files, 0, 9);
        assert_eq!(all.iter().map(|(name, _)| name.to_str().unwrap()).collect::<Vec<_>>(), ["disk.raw", "b", "c"]);
        let first = names(&files, 0, 1);
        assert_eq!([first.clone(), names(&files, first[0].1, 9)].concat(), all);
        assert!(names(&files, all[2].1, 9).is_empty());
        assert!(names(&files, u64::MAX, 9).is_empty());
    }

    #[test]
    fn finds_by_name_and_describes() {
        let files = three();
        let node = files.lookup(Node::ROOT, OsStr::new("b")).unwrap();
        let attributes = files.attributes(node).unwrap();
        assert_eq!((attributes.len, attributes.allocated, attributes.mode), (8192, 512, 0o400));
        assert_eq!(files.attributes(Node::ROOT).unwrap().kind, Kind::Directory);
        assert_eq!(files.totals(), (12288, 3));
    }

    #[test]
    fn says_what_is_wrong() {
        let files = three();
        let file = files.lookup(Node::ROOT, OsStr::new("c")).unwrap();
        assert_eq!(files.lookup(Node::ROOT, OsStr::new("d")), Err(Failure::NotFound));
        assert_eq!(files.lookup(file, OsStr::new("c")), Err(Failure::NotDirectory));
        assert_eq!(files.list(file, 0, &mut |_| true), Err(Failure::NotDirectory));
        assert_eq!(files.open(Node::ROOT).err(), Some(Failure::IsDirectory));
        for node in [0, 5, u64::MAX] {
            assert_eq!(files.attributes(Node(node)), Err(Failure::NotFound));
        }
    }
}
