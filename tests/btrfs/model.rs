//! Random changes made through the driver and, side by side, to what the tree should then be.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use hyper2kvm::error::Result;
use hyper2kvm::fs::btrfs::Btrfs;
use hyper2kvm::fs::{Attributes, FileKind, Filesystem, FilesystemMut, Inode, Timestamp};

use crate::ext::fill::noise;
use crate::ext::tree::{Entry, Tree, of_driver};

/// The driver and the expected tree.
pub(crate) struct Model<'a> {
    fs: &'a Btrfs,
    pub(crate) tree: Tree,
    /// Where every path leads, but for what cannot be written.
    inodes: BTreeMap<Vec<u8>, Inode>,
    seed: u64,
    random: u64,
    made: u64,
    /// Changes that were refused for want of room, and that are to have changed nothing.
    pub(crate) refused: usize,
}

impl<'a> Model<'a> {
    pub(crate) fn new(fs: &'a Btrfs, seed: u64) -> Self {
        let read_only: Vec<u64> =
            fs.subvolumes().unwrap().iter().filter(|volume| volume.read_only).map(|volume| volume.id).collect();
        let sealed = |inode: Inode| read_only.contains(&volume_of(fs, inode)) || inode.0 >> 47 & 1 == 1;
        let (mut inodes, mut pending) = (BTreeMap::new(), vec![(Vec::new(), fs.root())]);
        while let Some((path, inode)) = pending.pop() {
            if fs.stat(inode).unwrap().kind == FileKind::Directory {
                fs.read_dir(inode, 0, &mut |entry| {
                    pending.push((join(&path, &entry.name), entry.inode));
                    ControlFlow::Continue(())
                })
                .unwrap();
            }
            if !sealed(inode) {
                inodes.insert(path, inode);
            }
        }
        Self { fs, tree: of_driver(fs), inodes, seed, random: seed | 1, made: 0, refused: 0 }
    }

    /// Every path that can be written.
    pub(crate) fn writable(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.inodes.keys()
    }

    /// Paths of directories that stand where a subvolume was.
    pub(crate) fn stubs(&self) -> Vec<String> {
        let (mut stubs, mut pending) = (Vec::new(), vec![(Vec::new(), self.fs.root())]);
        while let Some((path, inode)) = pending.pop() {
            if inode.0 >> 47 & 1 == 1 {
                stubs.push(String::from_utf8(path).unwrap());
            } else if self.fs.stat(inode).unwrap().kind == FileKind::Directory {
                self.fs
                    .read_dir(inode, 0, &mut |entry| {
                        pending.push((join(&path, &entry.name), entry.inode));
                        ControlFlow::Continue(())
                    })
                    .unwrap();
            }
        }
        stubs
    }

    fn below(&mut self, end: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        usize::try_from((self.random >> 11) % end.max(1) as u64).unwrap()
    }

    /// Makes `count` changes.
    pub(crate) fn run(&mut self, count: usize) {
        for _ in 0..count {
            self.step();
        }
    }

    fn writer(&self) -> &'a dyn FilesystemMut {
        self.fs.writer().unwrap()
    }

    /// What a change gave, or nothing if there was no room for it, as there always is for one that frees some.
    fn done<T>(&mut self, result: Result<T>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                assert_eq!(error.code(), "btrfs.space", "{error}");
                self.refused += 1;
                None
            }
        }
    }

    fn step(&mut self) {
        match self.below(20) {
            0..=3 => self.create(),
            4 => self.create_dir(),
            5 => self.symlink(),
            6..=8 => self.replace(),
            9..=11 => self.append(),
            12..=13 => self.remove(),
            14 => self.remove_dir(),
            15..=16 => self.rename(),
            17 => self.xattr(),
            18 => self.owner(),
            _ => self.times(),
        }
    }

    /// A path of something of this kind.
    fn pick(&mut self, kind: FileKind) -> Option<(Vec<u8>, Inode)> {
        let start = self.below(self.inodes.len());
        let all = self.inodes.iter().skip(start).chain(self.inodes.iter().take(start));
        let mut all = all.filter(|(path, _)| self.tree[*path].kind == kind);
        all.next().map(|(path, inode)| (path.clone(), *inode))
    }

    fn len(&mut self) -> usize {
        match self.below(8) {
            0 => 0,
            1..=3 => self.below(3000),
            4..=6 => self.below(40_000),
            _ => self.below(400_000),
        }
    }

    fn time(&mut self) -> Timestamp {
        Timestamp { seconds: self.below(1 << 31) as i64, nanoseconds: self.below(1_000_000_000) as u32 }
    }

    fn attributes(&mut self) -> Attributes {
        let xattrs = match self.below(3) {
            0 => vec![(b"user.new".to_vec(), noise(self.random, 40))],
            _ => Vec::new(),
        };
        Attributes {
            mode: self.below(0o10000) as u32,
            uid: self.below(70_000) as u32,
            gid: 5,
            time: self.time(),
            xattrs,
        }
    }

    fn name(&mut self) -> Vec<u8> {
        self.made += 1;
        let len = match self.below(10) {
            0 => 200 + self.below(40),
            _ => self.below(30),
        };
        format!("{}-{:x}-{}", self.made, self.seed >> 48, "n".repeat(len)).into_bytes()
    }

    /// Changes what all names of a file show.
    fn change(&mut self, inode: Inode, change: impl Fn(&mut Entry)) {
        let paths = self.inodes.iter().filter(|(_, other)| **other == inode).map(|(path, _)| path);
        for path in paths {
            change(self.tree.get_mut(path).unwrap());
        }
    }

    fn add(
        &mut self,
        dir: &[u8],
        parent: Inode,
        name: &[u8],
        inode: Inode,
        kind: FileKind,
        with: &Attributes,
    ) -> Vec<u8> {
        let time = (with.time.seconds, with.time.nanoseconds);
        self.change(parent, |entry| entry.times = [time, time]);
        let path = join(dir, name);
        let entry = Entry {
            kind,
            mode: with.mode,
            owner: (with.uid, with.gid),
            links: 1,
            size: None,
            times: [time, time],
            content: None,
            target: None,
            xattrs: self.property(dir, kind).into_iter().chain(with.xattrs.clone()).collect(),
        };
        self.tree.insert(path.clone(), entry);
        self.inodes.insert(path.clone(), inode);
        path
    }

    /// How a folder has what is new in it compressed.
    fn property(&self, dir: &[u8], kind: FileKind) -> Option<(Vec<u8>, Vec<u8>)> {
        let mut all = self.tree[dir].xattrs.iter();
        let found = all.find(|(name, value)| name == b"btrfs.compression" && value != b"none");
        found.filter(|_| matches!(kind, FileKind::Regular | FileKind::Directory)).cloned()
    }

    fn create(&mut self) {
        let (dir, parent) = self.pick(FileKind::Directory).unwrap();
        let (name, with, len) = (self.name(), self.attributes(), self.len());
        let content = noise(self.random, len);
        let made = self.writer().create(parent, &name, &with, &content);
        let Some(inode) = self.done(made) else { return };
        let path = self.add(&dir, parent, &name, inode, FileKind::Regular, &with);
        let entry = self.tree.get_mut(&path).unwrap();
        entry.size = Some(content.len() as u64);
        entry.content = Some(blake3::hash(&content));
    }

    fn create_dir(&mut self) {
        let (dir, parent) = self.pick(FileKind::Directory).unwrap();
        let (name, with) = (self.name(), self.attributes());
        let made = self.writer().create_dir(parent, &name, &with);
        let Some(inode) = self.done(made) else { return };
        self.add(&dir, parent, &name, inode, FileKind::Directory, &with);
    }

    fn symlink(&mut self) {
        let (dir, parent) = self.pick(FileKind::Directory).unwrap();
        let (name, with, len) = (self.name(), self.attributes(), 1 + self.below(2000));
        let with = Attributes { mode: 0o777, ..with };
        // The kernel has no attributes of users on links.
        let with = Attributes { xattrs: Vec::new(), ..with };
        let target = "t".repeat(len).into_bytes();
        let made = self.writer().symlink(parent, &name, &target, &with);
        let Some(inode) = self.done(made) else { return };
        let path = self.add(&dir, parent, &name, inode, FileKind::Symlink, &with);
        let entry = self.tree.get_mut(&path).unwrap();
        entry.size = Some(target.len() as u64);
        entry.target = Some(target);
    }

    fn replace(&mut self) {
        let Some((path, inode)) = self.pick(FileKind::Regular) else { return };
        let same = self.tree[&path].size.unwrap_or(0).min(1 << 20) as usize;
        let len = if self.below(3) == 0 { same } else { self.len() };
        let content = noise(self.random, len);
        let done = self.writer().replace(inode, &content);
        if content.len() <= same {
            done.unwrap();
        } else if self.done(done).is_none() {
            return;
        }
        self.set_content(inode, &content);
    }

    fn append(&mut self) {
        let Some((path, inode)) = self.pick(FileKind::Regular) else { return };
        let size = self.tree[&path].size.unwrap_or(0);
        if size > 8 << 20 {
            return;
        }
        let mut content = vec![0; size as usize];
        assert_eq!(self.fs.read_at(inode, &mut content, 0).unwrap(), content.len());
        let len = self.len();
        let more = noise(self.random, len);
        let done = self.writer().append(inode, &more);
        let Some(()) = self.done(done) else { return };
        content.extend(more);
        self.set_content(inode, &content);
    }

    fn set_content(&mut self, inode: Inode, content: &[u8]) {
        let hash = blake3::hash(content);
        self.change(inode, |entry| {
            entry.size = Some(content.len() as u64);
            entry.content = Some(hash);
        });
    }

    fn parent(&self, path: &[u8]) -> (Inode, Vec<u8>) {
        let (dir, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (&path[..at], &path[at + 1..]),
            None => (&path[..0], path),
        };
        (self.inodes[dir], name.to_vec())
    }

    fn remove(&mut self) {
        let kind = if self.below(3) == 0 { FileKind::Symlink } else { FileKind::Regular };
        let Some((path, inode)) = self.pick(kind) else { return };
        let (parent, name) = self.parent(&path);
        self.writer().remove(parent, &name).unwrap();
        self.change(inode, |entry| entry.links -= 1);
        self.tree.remove(&path).unwrap();
        self.inodes.remove(&path).unwrap();
    }

    fn remove_dir(&mut self) {
        let Some((path, inode)) = self.pick(FileKind::Directory) else { return };
        if path.is_empty() || volume_of(self.fs, inode) != volume_of(self.fs, self.parent(&path).0) {
            return;
        }
        let (parent, name) = self.parent(&path);
        let below = [path.as_slice(), b"/"].concat();
        let is_empty = !self.tree.keys().any(|other| other.starts_with(&below));
        match self.writer().remove_dir(parent, &name) {
            Ok(()) => assert!(is_empty),
            Err(error) => {
                assert!(!is_empty && error.code() == "btrfs.not-empty", "{error}");
                return;
            }
        }
        self.tree.remove(&path).unwrap();
        self.inodes.remove(&path).unwrap();
    }

    fn rename(&mut self) {
        let kind = match self.below(4) {
            0 => FileKind::Directory,
            1 => FileKind::Symlink,
            _ => FileKind::Regular,
        };
        let Some((path, inode)) = self.pick(kind) else { return };
        let Some((to, to_dir)) = self.pick(FileKind::Directory) else { return };
        if path.is_empty() {
            return;
        }
        let ((from_dir, name), new_name) = (self.parent(&path), self.name());
        let volumes = [inode, from_dir, to_dir].map(|inode| volume_of(self.fs, inode));
        let below = [path.as_slice(), b"/"].concat();
        let into_itself = kind == FileKind::Directory && (to == path || to.starts_with(&below));
        let renamed = self.writer().rename(from_dir, &name, to_dir, &new_name);
        if volumes.iter().any(|volume| *volume != volumes[0]) || into_itself {
            let error = renamed.unwrap_err();
            assert!(matches!(error.code(), "btrfs.feature" | "btrfs.name"), "{error}");
            return;
        }
        let Some(()) = self.done(renamed) else { return };
        let new = join(&to, &new_name);
        let moved: Vec<Vec<u8>> =
            self.tree.keys().filter(|other| **other == path || other.starts_with(&below)).cloned().collect();
        for old in moved {
            let place = [&new, &old[path.len()..]].concat();
            let entry = self.tree.remove(&old).unwrap();
            self.tree.insert(place.clone(), entry);
            if let Some(inode) = self.inodes.remove(&old) {
                self.inodes.insert(place, inode);
            }
        }
    }

    fn xattr(&mut self) {
        let kind = if self.below(2) == 0 { FileKind::Directory } else { FileKind::Regular };
        let Some((_, inode)) = self.pick(kind) else { return };
        let name = [&b"user.a"[..], b"security.selinux", b"trusted.c"][self.below(3)];
        if self.below(3) == 0 {
            self.writer().remove_xattr(inode, name).unwrap();
            self.change(inode, |entry| entry.xattrs.retain(|(known, _)| known != name));
            return;
        }
        let most = if self.below(4) == 0 { 3000 } else { 60 };
        let len = self.below(most);
        let value = noise(self.random, len);
        let done = self.writer().set_xattr(inode, name, &value);
        let Some(()) = self.done(done) else { return };
        self.change(inode, |entry| {
            entry.xattrs.retain(|(known, _)| known != name);
            entry.xattrs.push((name.to_vec(), value.clone()));
            entry.xattrs.sort();
        });
    }

    fn owner(&mut self) {
        let Some((_, inode)) = self.pick(FileKind::Regular) else { return };
        let (mode, uid, gid) = (self.below(0o10000) as u32, self.below(1 << 20) as u32, self.below(99) as u32);
        let done = self.writer().set_owner(inode, mode, uid, gid);
        let Some(()) = self.done(done) else { return };
        self.change(inode, |entry| (entry.mode, entry.owner) = (mode, (uid, gid)));
    }

    fn times(&mut self) {
        let Some((_, inode)) = self.pick(FileKind::Regular) else { return };
        let time = self.time();
        let done = self.writer().set_times(inode, time, time);
        let Some(()) = self.done(done) else { return };
        let time = (time.seconds, time.nanoseconds);
        self.change(inode, |entry| entry.times = [time, entry.times[1].max(time)]);
    }
}

/// The subvolume that an inode's number tells of, as far as two of them can be compared.
fn volume_of(fs: &Btrfs, inode: Inode) -> u64 {
    match inode.0 >> 48 {
        0 => fs.root_subvolume(),
        slot => fs.subvolumes().unwrap()[slot as usize - 1].id,
    }
}

fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path.is_empty() { name.to_vec() } else { [path, b"/", name].concat() }
}
