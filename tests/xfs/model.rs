//! Random changes made through the driver and, side by side, to what the tree should then be.

use std::collections::BTreeMap;

use hyper2kvm::fs::{Attributes, FileKind, Filesystem, Inode, Timestamp};

use super::random::Random;
use crate::ext::fill::noise;
use crate::ext::tree::{self, Entry, Tree};

/// The driver and the expected tree.
pub(crate) struct Model<'a> {
    fs: &'a dyn Filesystem,
    pub(crate) tree: Tree,
    /// The content of files as far as they were changed.
    contents: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) log: Vec<String>,
    clock: i64,
}

fn parent(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() { name.to_vec() } else { [dir, b"/", name].concat() }
}

impl<'a> Model<'a> {
    pub(crate) fn new(fs: &'a dyn Filesystem) -> Self {
        Self { fs, tree: tree::of_driver(fs), contents: BTreeMap::new(), log: Vec::new(), clock: 1_700_000_000 }
    }

    fn find(&self, path: &[u8]) -> Inode {
        path.split(|byte| *byte == b'/')
            .filter(|name| !name.is_empty())
            .fold(self.fs.root(), |dir, name| self.fs.lookup(dir, name).unwrap().expect("a name"))
    }

    fn pick(&self, random: &mut Random, is: impl Fn(&[u8], &Entry) -> bool) -> Option<Vec<u8>> {
        let all: Vec<_> = self.tree.iter().filter(|(path, entry)| is(path, entry)).map(|(path, _)| path).collect();
        (!all.is_empty()).then(|| all[usize::try_from(random.below(all.len() as u64)).unwrap()].clone())
    }

    /// A regular file with one name.
    fn file(&self, random: &mut Random) -> Option<Vec<u8>> {
        self.pick(random, |_, entry| entry.kind == FileKind::Regular && entry.links == 1)
    }

    fn dir(&self, random: &mut Random) -> Vec<u8> {
        self.pick(random, |path, entry| {
            entry.kind == FileKind::Directory && path.iter().filter(|byte| **byte == b'/').count() < 5
        })
        .unwrap()
    }

    fn content(&mut self, path: &[u8]) -> Vec<u8> {
        if let Some(content) = self.contents.get(path) {
            return content.clone();
        }
        let inode = self.find(path);
        let mut content = vec![0; usize::try_from(self.fs.stat(inode).unwrap().size).unwrap()];
        assert_eq!(self.fs.read_at(inode, &mut content, 0).unwrap(), content.len());
        content
    }

    fn attributes(&mut self, random: &mut Random) -> Attributes {
        self.clock += 1;
        let mut xattrs = Vec::new();
        if random.below(2) == 0 {
            xattrs.push((b"security.selinux".to_vec(), b"system_u:object_r:etc_t:s0\0".to_vec()));
        }
        if random.below(8) == 0 {
            xattrs.push((b"trusted.large".to_vec(), noise(7, usize::try_from(random.below(5000)).unwrap())));
        }
        Attributes {
            mode: 0o600 + u32::try_from(random.below(0o177)).unwrap(),
            uid: u32::try_from(random.below(2000)).unwrap(),
            gid: 7,
            time: Timestamp { seconds: self.clock, nanoseconds: 5 },
            xattrs,
        }
    }

    /// A name that is not in `dir`.
    fn fresh(&self, dir: &[u8], random: &mut Random) -> Vec<u8> {
        loop {
            let len = if random.below(6) == 0 { random.below(200) } else { random.below(20) };
            let name = format!("{}-{}", random.below(1_000_000), "n".repeat(usize::try_from(len).unwrap()));
            if !self.tree.contains_key(&join(dir, name.as_bytes())) {
                return name.into_bytes();
            }
        }
    }

    fn length(random: &mut Random) -> usize {
        let bound = [10, 600, 5000, 50_000, 300_000][usize::try_from(random.below(5)).unwrap()];
        usize::try_from(random.below(bound)).unwrap()
    }

    fn set_content(&mut self, path: &[u8], content: Vec<u8>) {
        let entry = self.tree.get_mut(path).unwrap();
        entry.size = Some(content.len() as u64);
        entry.content = Some(blake3::hash(&content));
        self.contents.insert(path.to_vec(), content);
    }

    /// One random change.
    pub(crate) fn step(&mut self, random: &mut Random, kinds: u64) {
        match random.below(kinds) {
            0 => self.rewrite(random),
            1 => self.replace(random),
            2 => self.append(random),
            3 => self.set_times(random),
            4 => self.set_owner(random),
            5 | 6 => self.create(random),
            7 => self.create_dir(random),
            8 => self.symlink(random),
            9 => self.remove(random),
            10 => self.remove_dir(random),
            11 => self.rename(random),
            12 => self.set_xattr(random),
            13 => self.remove_xattr(random),
            14 => self.many(random),
            _ => self.few(random),
        }
    }

    fn note(&mut self, what: String) {
        if std::env::var("XFS_TRACE").is_ok() {
            eprintln!("{what}");
        }
        self.log.push(what);
    }

    fn rewrite(&mut self, random: &mut Random) {
        let Some(path) = self.file(random) else { return };
        let len = self.tree[&path].size.unwrap();
        if len > 2_000_000 {
            return;
        }
        let content = noise(random.below(99), usize::try_from(len).unwrap());
        self.note(format!("rewrite {} {len}", String::from_utf8_lossy(&path)));
        self.fs.writer().unwrap().replace(self.find(&path), &content).unwrap();
        self.set_content(&path, content);
    }

    fn replace(&mut self, random: &mut Random) {
        let Some(path) = self.file(random) else { return };
        let content = noise(random.below(99), Self::length(random));
        self.note(format!("replace {} {}", String::from_utf8_lossy(&path), content.len()));
        self.fs.writer().unwrap().replace(self.find(&path), &content).unwrap();
        self.set_content(&path, content);
    }

    fn append(&mut self, random: &mut Random) {
        let Some(path) = self.file(random) else { return };
        if self.tree[&path].size.unwrap() > 3_000_000 {
            return;
        }
        let content = noise(random.below(99), Self::length(random));
        self.note(format!("append {} {}", String::from_utf8_lossy(&path), content.len()));
        let mut whole = self.content(&path);
        self.fs.writer().unwrap().append(self.find(&path), &content).unwrap();
        whole.extend(content);
        self.set_content(&path, whole);
    }

    fn set_times(&mut self, random: &mut Random) {
        let path = self.pick(random, |_, entry| entry.links == 1).unwrap_or_default();
        let time = Timestamp { seconds: self.clock, nanoseconds: 9 };
        self.note(format!("times {}", String::from_utf8_lossy(&path)));
        self.fs.writer().unwrap().set_times(self.find(&path), time, time).unwrap();
        let entry = self.tree.get_mut(&path).unwrap();
        let time = (time.seconds, time.nanoseconds);
        entry.times = [time, entry.times[1].max(time)];
    }

    fn set_owner(&mut self, random: &mut Random) {
        let path = self.pick(random, |_, entry| entry.links == 1).unwrap_or_default();
        let (mode, uid) = (u32::try_from(random.below(0o7777)).unwrap(), u32::try_from(random.below(70_000)).unwrap());
        self.note(format!("owner {}", String::from_utf8_lossy(&path)));
        self.fs.writer().unwrap().set_owner(self.find(&path), mode, uid, 3).unwrap();
        let entry = self.tree.get_mut(&path).unwrap();
        (entry.mode, entry.owner) = (mode, (uid, 3));
    }

    fn add(&mut self, dir: &[u8], name: &[u8], kind: FileKind, attributes: &Attributes) -> Vec<u8> {
        let time = (attributes.time.seconds, attributes.time.nanoseconds);
        let above = self.tree.get_mut(dir).unwrap();
        above.times = [time, time];
        above.links += u64::from(kind == FileKind::Directory);
        let mut xattrs = attributes.xattrs.clone();
        xattrs.sort();
        let entry = Entry {
            kind,
            mode: if kind == FileKind::Symlink { 0o777 } else { attributes.mode },
            owner: (attributes.uid, attributes.gid),
            links: if kind == FileKind::Directory { 2 } else { 1 },
            size: None,
            times: [time, time],
            content: None,
            target: None,
            xattrs,
        };
        let path = join(dir, name);
        self.tree.insert(path.clone(), entry);
        path
    }

    fn create(&mut self, random: &mut Random) {
        let dir = self.dir(random);
        let (name, attributes) = (self.fresh(&dir, random), self.attributes(random));
        let content = noise(random.below(99), Self::length(random));
        self.note(format!("create {} in {}", String::from_utf8_lossy(&name), String::from_utf8_lossy(&dir)));
        self.fs.writer().unwrap().create(self.find(&dir), &name, &attributes, &content).unwrap();
        let path = self.add(&dir, &name, FileKind::Regular, &attributes);
        self.set_content(&path, content);
    }

    fn create_dir(&mut self, random: &mut Random) {
        let dir = self.dir(random);
        let (name, attributes) = (self.fresh(&dir, random), self.attributes(random));
        self.note(format!("mkdir {} in {}", String::from_utf8_lossy(&name), String::from_utf8_lossy(&dir)));
        self.fs.writer().unwrap().create_dir(self.find(&dir), &name, &attributes).unwrap();
        self.add(&dir, &name, FileKind::Directory, &attributes);
    }

    fn symlink(&mut self, random: &mut Random) {
        let dir = self.dir(random);
        let (name, attributes) = (self.fresh(&dir, random), self.attributes(random));
        let attributes = Attributes { mode: 0o777, ..attributes };
        let bound = if random.below(3) == 0 { 1022 } else { 60 };
        let target = "t".repeat(usize::try_from(random.below(bound)).unwrap() + 1).into_bytes();
        self.note(format!(
            "symlink {} in {} {}",
            String::from_utf8_lossy(&name),
            String::from_utf8_lossy(&dir),
            target.len()
        ));
        self.fs.writer().unwrap().symlink(self.find(&dir), &name, &target, &attributes).unwrap();
        let path = self.add(&dir, &name, FileKind::Symlink, &attributes);
        let entry = self.tree.get_mut(&path).unwrap();
        (entry.size, entry.target) = (Some(target.len() as u64), Some(target));
    }

    fn remove(&mut self, random: &mut Random) {
        let path = self.pick(random, |_, entry| entry.kind != FileKind::Directory && entry.links == 1);
        let Some(path) = path else { return };
        self.remove_path(&path);
    }

    fn remove_path(&mut self, path: &[u8]) {
        let (dir, name) = parent(path);
        self.note(format!("remove {}", String::from_utf8_lossy(path)));
        self.fs.writer().unwrap().remove(self.find(dir), name).unwrap();
        self.tree.remove(path).unwrap();
        self.contents.remove(path);
    }

    fn is_empty(&self, path: &[u8]) -> bool {
        let inside = [path, b"/"].concat();
        self.tree.range(inside.clone()..).next().is_none_or(|(other, _)| !other.starts_with(&inside))
    }

    fn remove_dir(&mut self, random: &mut Random) {
        let path = self
            .pick(random, |path, entry| entry.kind == FileKind::Directory && !path.is_empty() && self.is_empty(path));
        let Some(path) = path else { return };
        let (dir, name) = parent(&path);
        self.note(format!("rmdir {}", String::from_utf8_lossy(&path)));
        self.fs.writer().unwrap().remove_dir(self.find(dir), name).unwrap();
        self.tree.get_mut(dir).unwrap().links -= 1;
        self.tree.remove(&path).unwrap();
    }

    fn rename(&mut self, random: &mut Random) {
        let Some(path) = self.pick(random, |path, _| !path.is_empty()) else { return };
        let to = self.dir(random);
        let inside = [&path[..], b"/"].concat();
        if to == path || to.starts_with(&inside) {
            return;
        }
        let (dir, name) = parent(&path);
        let new = self.fresh(&to, random);
        self.note(format!(
            "rename {} to {} in {}",
            String::from_utf8_lossy(&path),
            String::from_utf8_lossy(&new),
            String::from_utf8_lossy(&to)
        ));
        self.fs.writer().unwrap().rename(self.find(dir), name, self.find(&to), &new).unwrap();
        if self.tree[&path].kind == FileKind::Directory {
            self.tree.get_mut(dir).unwrap().links -= 1;
            self.tree.get_mut(&to).unwrap().links += 1;
        }
        let target = join(&to, &new);
        let moved: Vec<Vec<u8>> =
            self.tree.keys().filter(|key| **key == path || key.starts_with(&inside)).cloned().collect();
        for key in moved {
            let new = [&target[..], &key[path.len()..]].concat();
            let entry = self.tree.remove(&key).unwrap();
            self.tree.insert(new.clone(), entry);
            if let Some(content) = self.contents.remove(&key) {
                self.contents.insert(new, content);
            }
        }
    }

    fn set_xattr(&mut self, random: &mut Random) {
        let path = self.pick(random, |_, entry| entry.links == 1 || entry.kind == FileKind::Directory).unwrap();
        let name = match random.below(3) {
            0 => "security.selinux".to_owned(),
            // The kernel shows no others of links.
            1 if self.tree[&path].kind != FileKind::Symlink => format!("user.{}", random.below(30)),
            _ => format!("trusted.{}-{}", random.below(30), "a".repeat(usize::try_from(random.below(100)).unwrap())),
        };
        let bound = [40, 40, 40, 300, 3000, 30_000][usize::try_from(random.below(6)).unwrap()];
        let value = noise(random.below(99), usize::try_from(random.below(bound)).unwrap());
        self.note(format!("setxattr {} {name} {}", String::from_utf8_lossy(&path), value.len()));
        self.fs.writer().unwrap().set_xattr(self.find(&path), name.as_bytes(), &value).unwrap();
        let entry = self.tree.get_mut(&path).unwrap();
        entry.xattrs.retain(|(known, _)| known != name.as_bytes());
        entry.xattrs.push((name.into_bytes(), value));
        entry.xattrs.sort();
    }

    fn remove_xattr(&mut self, random: &mut Random) {
        let path = self.pick(random, |_, entry| {
            !entry.xattrs.is_empty() && (entry.links == 1 || entry.kind == FileKind::Directory)
        });
        let Some(path) = path else { return };
        let entry = self.tree.get_mut(&path).unwrap();
        let index = usize::try_from(random.below(entry.xattrs.len() as u64)).unwrap();
        let (name, _) = entry.xattrs.remove(index);
        self.note(format!("rmxattr {} {}", String::from_utf8_lossy(&path), String::from_utf8_lossy(&name)));
        self.fs.writer().unwrap().remove_xattr(self.find(&path), &name).unwrap();
    }

    /// Many names at once: directories grow through all their forms.
    fn many(&mut self, random: &mut Random) {
        let dir = self.dir(random);
        let inode = self.find(&dir);
        let count = random.below(120);
        self.note(format!("many {count} in {}", String::from_utf8_lossy(&dir)));
        for _ in 0..count {
            let (name, attributes) = (self.fresh(&dir, random), self.attributes(random));
            let attributes = Attributes { xattrs: Vec::new(), ..attributes };
            self.fs.writer().unwrap().create(inode, &name, &attributes, b"").unwrap();
            let path = self.add(&dir, &name, FileKind::Regular, &attributes);
            self.set_content(&path, Vec::new());
        }
    }

    /// Most files of a directory at once: it shrinks.
    fn few(&mut self, random: &mut Random) {
        let dir = self.dir(random);
        let inside = if dir.is_empty() { Vec::new() } else { [&dir[..], b"/"].concat() };
        let all: Vec<Vec<u8>> = self
            .tree
            .iter()
            .filter(|(path, entry)| {
                path.starts_with(&inside)
                    && !path[inside.len()..].contains(&b'/')
                    && entry.kind != FileKind::Directory
                    && entry.links == 1
            })
            .map(|(path, _)| path.clone())
            .collect();
        for path in all {
            if random.below(10) != 0 {
                self.remove_path(&path);
            }
        }
    }
}
