//! A guest's files as a FUSE mount shows them.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use hyper2kvm_fuse::{Attributes, Failure, File, Kind, Listed, Node, Tree as Shown, Xattrs};

use crate::error::Error;
use crate::fs::tree::FileId;
use crate::fs::{FileKind, Inode, Timestamp, Tree};

/// Bits of a node that are the inode's, where that fits.
const INODE_BITS: u32 = 54;

/// The number of a file system that no machine has: its nodes count files whose numbers do not fit.
const WIDE: u64 = (1 << (64 - INODE_BITS)) - 1;

/// A guest's tree, behind the trait of a mount.
///
/// A node is the number of the file system, from 1, above that of the inode in it; the root of all is [`Node::ROOT`], which no
/// file has otherwise. Inodes of many subvolumes may have larger numbers; they get nodes as they are met.
#[derive(Debug)]
pub struct GuestView {
    tree: Arc<Tree>,
    root: FileId,
    /// Bytes and files for `statfs`.
    totals: (u64, u64),
    wide: Mutex<Wide>,
}

/// Files whose numbers do not fit into a node, in the order in which they were met.
#[derive(Debug, Default)]
struct Wide {
    files: Vec<FileId>,
    places: HashMap<FileId, usize>,
}

impl Wide {
    fn place(&mut self, id: FileId) -> usize {
        *self.places.entry(id).or_insert_with(|| {
            self.files.push(id);
            self.files.len() - 1
        })
    }
}

impl GuestView {
    /// Shows `tree`.
    ///
    /// # Errors
    /// When it has no root.
    pub fn new(tree: Tree) -> crate::error::Result<Self> {
        let root = tree.root_id()?;
        let bytes = tree.mounts().map(|(_, fs)| fs.facts().size).fold(0, u64::saturating_add);
        Ok(Self { tree: Arc::new(tree), root, totals: (bytes, 0), wide: Mutex::default() })
    }

    fn id(&self, node: Node) -> Result<FileId, Failure> {
        if node == Node::ROOT {
            return Ok(self.root);
        }
        let (mount, inode) = (node.0 >> INODE_BITS, node.0 & ((1 << INODE_BITS) - 1));
        if mount == WIDE {
            let place = usize::try_from(inode).map_err(|_| Failure::NotFound)?;
            return self.wide().files.get(place).copied().ok_or(Failure::NotFound);
        }
        let mount = mount.checked_sub(1).and_then(|mount| usize::try_from(mount).ok());
        Ok(FileId { mount: mount.ok_or(Failure::NotFound)?, inode: Inode(inode) })
    }

    fn node(&self, id: FileId) -> Node {
        if id == self.root {
            return Node::ROOT;
        }
        let mount = id.mount as u64 + 1;
        if mount < WIDE && id.inode.0 >> INODE_BITS == 0 {
            return Node(mount << INODE_BITS | id.inode.0);
        }
        Node(WIDE << INODE_BITS | self.wide().place(id) as u64)
    }

    fn wide(&self) -> MutexGuard<'_, Wide> {
        self.wide.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shown for GuestView {
    fn lookup(&self, dir: Node, name: &OsStr) -> Result<Node, Failure> {
        let found = self.tree.child(self.id(dir)?, name.as_bytes()).map_err(failed)?;
        Ok(self.node(found.ok_or(Failure::NotFound)?))
    }

    fn attributes(&self, node: Node) -> Result<Attributes, Failure> {
        let stat = self.tree.found(self.id(node)?).map_err(failed)?.stat;
        Ok(Attributes {
            kind: kind(stat.kind),
            len: stat.size,
            allocated: stat.allocated,
            mode: u16::try_from(stat.mode & 0o7777).unwrap_or(0),
            links: stat.links,
            owner: Some((stat.uid, stat.gid)),
            accessed: time(stat.atime),
            modified: time(stat.mtime),
            changed: time(stat.ctime),
            device: stat.device.unwrap_or_default(),
        })
    }

    fn list(&self, dir: Node, after: u64, visit: &mut dyn FnMut(Listed<'_>) -> bool) -> Result<(), Failure> {
        let mut outcome = Ok(());
        let mut each = |id: FileId, entry: crate::fs::DirEntry| {
            let entry_kind = match entry.kind {
                Some(kind) => Ok(kind),
                None => self.tree.found(id).map(|found| found.stat.kind).map_err(failed),
            };
            match entry_kind {
                Ok(of) => {
                    let (name, node) = (OsStr::from_bytes(&entry.name), self.node(id));
                    if visit(Listed { name, node, kind: kind(of), next: entry.cursor }) {
                        return ControlFlow::Continue(());
                    }
                }
                Err(failure) => outcome = Err(failure),
            }
            ControlFlow::Break(())
        };
        self.tree.visit_dir(self.id(dir)?, after, &mut each).map_err(failed)?;
        outcome
    }

    fn read_link(&self, node: Node) -> Result<Vec<u8>, Failure> {
        let found = self.tree.found(self.id(node)?).map_err(failed)?;
        if found.stat.kind != FileKind::Symlink {
            return Err(Failure::Invalid);
        }
        self.tree.target(&found).map_err(failed)
    }

    fn xattrs(&self, node: Node) -> Result<Option<Xattrs>, Failure> {
        let found = self.tree.found(self.id(node)?).map_err(failed)?;
        self.tree.xattrs_of(&found).map(Some).map_err(failed)
    }

    fn open(&self, node: Node) -> Result<Arc<dyn File>, Failure> {
        let found = self.tree.found(self.id(node)?).map_err(failed)?;
        match found.stat.kind {
            FileKind::Regular => {
                Ok(Arc::new(GuestFile { tree: Arc::clone(&self.tree), id: found.id(), len: found.stat.size }))
            }
            FileKind::Directory => Err(Failure::IsDirectory),
            _ => Err(Failure::Invalid),
        }
    }

    fn totals(&self) -> (u64, u64) {
        self.totals
    }
}

/// A regular file of the guest.
#[derive(Debug)]
struct GuestFile {
    tree: Arc<Tree>,
    id: FileId,
    len: u64,
}

impl File for GuestFile {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), Failure> {
        let mut filled = 0;
        while filled < buf.len() {
            let at = offset + filled as u64;
            match self.tree.read_at(self.id, &mut buf[filled..], at).map_err(failed)? {
                // Its inode promises more than the file has.
                0 => return Err(Failure::Io),
                read => filled += read,
            }
        }
        Ok(())
    }
}

const fn kind(kind: FileKind) -> Kind {
    match kind {
        FileKind::BlockDevice => Kind::BlockDevice,
        FileKind::CharDevice => Kind::CharDevice,
        FileKind::Directory => Kind::Directory,
        FileKind::Fifo => Kind::Pipe,
        FileKind::Regular => Kind::File,
        FileKind::Socket => Kind::Socket,
        FileKind::Symlink => Kind::Symlink,
    }
}

/// A moment as this host keeps it; the epoch for one that it cannot.
fn time(time: Timestamp) -> SystemTime {
    let whole = Duration::from_secs(time.seconds.unsigned_abs());
    let at = match time.seconds {
        0.. => SystemTime::UNIX_EPOCH.checked_add(whole),
        _ => SystemTime::UNIX_EPOCH.checked_sub(whole),
    };
    let at = at.and_then(|at| at.checked_add(Duration::from_nanos(u64::from(time.nanoseconds))));
    at.unwrap_or(SystemTime::UNIX_EPOCH)
}

fn failed(error: Error) -> Failure {
    if error.kind() == crate::error::Kind::Interrupted {
        return Failure::Interrupted;
    }
    tracing::warn!(%error, code = error.code(), "a request of a mount failed");
    Failure::Io
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::MemoryFs;

    #[test]
    fn every_file_has_a_node_of_its_own() {
        let fs = MemoryFs::default();
        fs.add_file("/etc/fstab", "").unwrap();
        let mut tree = Tree::new(Arc::new(fs));
        let boot = MemoryFs::default();
        boot.add_file("/vmlinuz", "").unwrap();
        tree.mount("/etc", Arc::new(boot)).unwrap();
        let view = GuestView::new(tree).unwrap();
        let id = |mount, inode| FileId { mount, inode: Inode(inode) };
        assert_eq!(view.node(view.root), Node::ROOT);
        let files =
            [id(0, 1), id(1, 2), id(1, (1 << INODE_BITS) - 1), id(1, 1 << INODE_BITS), id(0, u64::MAX), id(2000, 7)];
        let nodes: std::collections::BTreeSet<u64> = files.iter().map(|file| view.node(*file).0).collect();
        assert_eq!(nodes.len(), files.len());
        for file in files {
            assert_eq!(view.id(view.node(file)).unwrap(), file);
            assert_eq!(view.node(file), view.node(file));
        }
        assert_eq!(view.id(Node(WIDE << INODE_BITS | 99)), Err(Failure::NotFound));
        let etc = view.lookup(Node::ROOT, "etc".as_ref()).unwrap();
        assert!(view.lookup(etc, "vmlinuz".as_ref()).is_ok(), "what is mounted covers what was there");
        assert_eq!(view.lookup(etc, "fstab".as_ref()), Err(Failure::NotFound));
    }
}
