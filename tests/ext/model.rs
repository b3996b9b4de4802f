//! Changes made through the driver and, side by side, to what the tree should then be.

use hyper2kvm::fs::{Attributes, FileKind, Filesystem, Inode, Timestamp};

use super::tree::{Entry, Tree};

/// The driver and the expected tree.
pub(crate) struct Model<'a> {
    fs: &'a dyn Filesystem,
    pub(crate) tree: Tree,
}

impl<'a> Model<'a> {
    pub(crate) fn new(fs: &'a dyn Filesystem) -> Self {
        Self { fs, tree: super::tree::of_driver(fs) }
    }

    pub(crate) fn has(&self, path: &str) -> bool {
        self.tree.contains_key(path.as_bytes())
    }

    fn find(&self, path: &str) -> Inode {
        path.split('/').filter(|name| !name.is_empty()).fold(self.fs.root(), |dir, name| {
            self.fs.lookup(dir, name.as_bytes()).unwrap().unwrap_or_else(|| panic!("no {name} of {path}"))
        })
    }

    /// All names of the file, since hard links share what changes.
    fn entries(&mut self, inode: Inode) -> Vec<Vec<u8>> {
        let fs = self.fs;
        let lookup = |path: &[u8]| {
            path.split(|c| *c == b'/')
                .filter(|name| !name.is_empty())
                .try_fold(fs.root(), |dir, name| fs.lookup(dir, name).unwrap())
        };
        let one = self.tree.iter().filter(|(_, entry)| entry.links > 1 || entry.kind == FileKind::Directory);
        one.map(|(path, _)| path.clone()).filter(|path| lookup(path) == Some(inode)).collect()
    }

    fn change(&mut self, path: &str, inode: Inode, change: impl Fn(&mut Entry)) {
        let mut paths = vec![path.as_bytes().to_vec()];
        if self.tree[path.as_bytes()].links > 1 {
            paths.extend(self.entries(inode));
        }
        paths.sort();
        paths.dedup();
        paths.iter().for_each(|path| change(self.tree.get_mut(path).unwrap()));
    }

    pub(crate) fn content(&self, path: &str) -> Vec<u8> {
        let inode = self.find(path);
        let mut content = vec![0; usize::try_from(self.fs.stat(inode).unwrap().size).unwrap()];
        let len = self.fs.read_at(inode, &mut content, 0).unwrap();
        assert_eq!(len, content.len());
        content
    }

    pub(crate) fn replace(&mut self, path: &str, content: &[u8]) {
        let inode = self.find(path);
        self.fs.writer().unwrap().replace(inode, content).unwrap();
        self.change(path, inode, |entry| {
            entry.size = Some(content.len() as u64);
            entry.content = Some(blake3::hash(content));
        });
    }

    pub(crate) fn append(&mut self, path: &str, content: &[u8]) {
        let mut whole = self.content(path);
        let inode = self.find(path);
        self.fs.writer().unwrap().append(inode, content).unwrap();
        whole.extend_from_slice(content);
        self.change(path, inode, |entry| {
            entry.size = Some(whole.len() as u64);
            entry.content = Some(blake3::hash(&whole));
        });
    }

    fn add(&mut self, dir: &str, name: &str, kind: FileKind, attributes: &Attributes) -> Vec<u8> {
        let time = (attributes.time.seconds, attributes.time.nanoseconds);
        let parent = self.tree.get_mut(dir.as_bytes()).unwrap();
        parent.times = [time, time];
        parent.links += u64::from(kind == FileKind::Directory);
        let path = [dir.as_bytes(), if dir.is_empty() { b"" } else { b"/" }, name.as_bytes()].concat();
        let mut xattrs = attributes.xattrs.clone();
        xattrs.sort();
        let entry = Entry {
            kind,
            mode: attributes.mode,
            owner: (attributes.uid, attributes.gid),
            links: if kind == FileKind::Directory { 2 } else { 1 },
            size: None,
            times: [time, time],
            content: None,
            target: None,
            xattrs,
        };
        self.tree.insert(path.clone(), entry);
        path
    }

    pub(crate) fn create(&mut self, dir: &str, name: &str, attributes: &Attributes, content: &[u8]) {
        let parent = self.find(dir);
        self.fs.writer().unwrap().create(parent, name.as_bytes(), attributes, content).unwrap();
        let path = self.add(dir, name, FileKind::Regular, attributes);
        let entry = self.tree.get_mut(&path).unwrap();
        entry.size = Some(content.len() as u64);
        entry.content = Some(blake3::hash(content));
    }

    pub(crate) fn create_dir(&mut self, dir: &str, name: &str, attributes: &Attributes) {
        let parent = self.find(dir);
        self.fs.writer().unwrap().create_dir(parent, name.as_bytes(), attributes).unwrap();
        self.add(dir, name, FileKind::Directory, attributes);
    }

    pub(crate) fn symlink(&mut self, dir: &str, name: &str, target: &[u8], attributes: &Attributes) {
        let parent = self.find(dir);
        let attributes = Attributes { mode: 0o777, ..attributes.clone() };
        self.fs.writer().unwrap().symlink(parent, name.as_bytes(), target, &attributes).unwrap();
        let path = self.add(dir, name, FileKind::Symlink, &attributes);
        let entry = self.tree.get_mut(&path).unwrap();
        entry.size = Some(target.len() as u64);
        entry.target = Some(target.to_vec());
    }

    pub(crate) fn remove(&mut self, path: &str) {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        let (parent, inode) = (self.find(dir), self.find(path));
        self.change(path, inode, |entry| entry.links -= 1);
        self.fs.writer().unwrap().remove(parent, name.as_bytes()).unwrap();
        self.tree.remove(path.as_bytes()).unwrap();
    }

    pub(crate) fn remove_dir(&mut self, path: &str) {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        self.fs.writer().unwrap().remove_dir(self.find(dir), name.as_bytes()).unwrap();
        self.tree.get_mut(dir.as_bytes()).unwrap().links -= 1;
        self.tree.remove(path.as_bytes()).unwrap();
    }

    /// Moves a file, or a directory with all that is in it.
    pub(crate) fn rename(&mut self, path: &str, new_path: &str) {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        let (new_dir, new_name) = new_path.rsplit_once('/').unwrap_or(("", new_path));
        let (from, to) = (self.find(dir), self.find(new_dir));
        self.fs.writer().unwrap().rename(from, name.as_bytes(), to, new_name.as_bytes()).unwrap();
        let entry = self.tree.remove(path.as_bytes()).unwrap();
        if entry.kind == FileKind::Directory {
            self.tree.get_mut(dir.as_bytes()).unwrap().links -= 1;
            self.tree.get_mut(new_dir.as_bytes()).unwrap().links += 1;
        }
        let below = [path.as_bytes(), b"/"].concat();
        let moved: Vec<_> = self.tree.keys().filter(|path| path.starts_with(&below)).cloned().collect();
        for old in moved {
            let entry = self.tree.remove(&old).unwrap();
            self.tree.insert([new_path.as_bytes(), &old[path.len()..]].concat(), entry);
        }
        self.tree.insert(new_path.as_bytes().to_vec(), entry);
    }

    pub(crate) fn set_owner(&mut self, path: &str, mode: u32, uid: u32, gid: u32) {
        let inode = self.find(path);
        self.fs.writer().unwrap().set_owner(inode, mode, uid, gid).unwrap();
        self.change(path, inode, |entry| (entry.mode, entry.owner) = (mode, (uid, gid)));
    }

    pub(crate) fn remove_xattr(&mut self, path: &str, name: &str) {
        let inode = self.find(path);
        self.fs.writer().unwrap().remove_xattr(inode, name.as_bytes()).unwrap();
        self.change(path, inode, |entry| entry.xattrs.retain(|(known, _)| known != name.as_bytes()));
    }

    pub(crate) fn set_xattr(&mut self, path: &str, name: &str, value: &[u8]) {
        let inode = self.find(path);
        self.fs.writer().unwrap().set_xattr(inode, name.as_bytes(), value).unwrap();
        self.change(path, inode, |entry| {
            entry.xattrs.retain(|(known, _)| known != name.as_bytes());
            entry.xattrs.push((name.as_bytes().to_vec(), value.to_vec()));
            entry.xattrs.sort();
        });
    }

    pub(crate) fn set_times(&mut self, path: &str, time: Timestamp) {
        let inode = self.find(path);
        self.fs.writer().unwrap().set_times(inode, time, time).unwrap();
        let time = (time.seconds, time.nanoseconds);
        self.change(path, inode, |entry| entry.times = [time, entry.times[1].max(time)]);
    }
}
