//! The writing half: each change by the system call that a program would use.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use super::{Mounted, absent};
use crate::error::{Error, Kind, Result, escape_bytes};
use crate::fs::{Attributes, FileKind, Filesystem, FilesystemMut, Inode, Stat, Timestamp};

impl Mounted {
    /// Mounts it so that it takes changes.
    fn begin(&self) -> Result<()> {
        if self.state().is_writable {
            return Ok(());
        }
        self.remount("rw")?;
        self.state().is_writable = true;
        Ok(())
    }

    fn remount(&self, how: &str) -> Result<()> {
        self.appliance.tell("umount", &[self.at.as_bytes()])?;
        self.mount_as(how)
    }

    /// The place of a name that is to be new.
    fn fresh(&self, dir: Inode, name: &[u8]) -> Result<Vec<u8>> {
        let path = self.join(dir, name)?;
        if self.ask_stat(&path)?.is_some() {
            return Err(Error::new(Kind::Exists, "guest.exists", "the name exists already").at(escape_bytes(&path)));
        }
        self.begin()?;
        Ok(path)
    }

    /// Gives a new file what it is to have, and its directory the time at which it got a name.
    fn dress(&self, dir: Inode, path: Vec<u8>, attributes: &Attributes) -> Result<Inode> {
        self.state().forget();
        let (stat, device) = self.ask_stat(&path)?.ok_or_else(|| absent(&path))?;
        self.state().paths.insert(stat.inode.0, path.clone());
        let inode = Inode(self.keep(path, stat, device)?);
        // Labels that the appliance's kernel gives by itself are none of the guest's.
        self.own(inode, &stat, attributes.mode, attributes.uid, attributes.gid)?;
        for (name, value) in &attributes.xattrs {
            self.set_xattr(inode, name, value)?;
        }
        self.set_times(inode, attributes.time, attributes.time)?;
        let parent = self.stat(dir)?;
        self.set_times(dir, parent.atime, attributes.time)?;
        Ok(inode)
    }

    fn own(&self, inode: Inode, stat: &Stat, mode: u32, uid: u32, gid: u32) -> Result<()> {
        let there = self.there(&self.path_of(inode)?);
        if (stat.uid, stat.gid) != (uid, gid) {
            let words = [uid.to_string(), gid.to_string()];
            let [uid, gid] = words.each_ref().map(String::as_bytes);
            self.appliance.tell("lchown", &[uid, gid, &there])?;
        }
        // A change of the owner takes bits away.
        if stat.kind != FileKind::Symlink {
            self.appliance.tell("chmod", &[format!("0{mode:o}").as_bytes(), &there])?;
        }
        self.state().forget();
        Ok(())
    }

    /// A regular file that is to get other content, and what a write may take from it.
    fn regular(&self, inode: Inode) -> Result<Before> {
        let stat = self.stat(inode)?;
        if stat.kind != FileKind::Regular {
            return Err(Error::new(Kind::NotFound, "guest.not-regular", "not a regular file"));
        }
        let before = Before { path: self.path_of(inode)?, stat, xattrs: self.xattrs(inode)? };
        self.begin()?;
        Ok(before)
    }

    /// Gives back what the kernel takes away when a file is written: bits of its mode, capabilities.
    fn give_back(&self, inode: Inode, before: &Before) -> Result<()> {
        self.state().forget();
        let now = self.stat(inode)?;
        if now.mode != before.stat.mode {
            self.own(inode, &now, before.stat.mode, now.uid, now.gid)?;
        }
        let left = self.xattrs(inode)?;
        let lost = before.xattrs.iter().filter(|xattr| !left.contains(xattr));
        lost.into_iter().try_for_each(|(name, value)| self.set_xattr(inode, name, value))
    }

    /// The name of something that is there and goes.
    fn going(&self, dir: Inode, name: &[u8]) -> Result<(Vec<u8>, Inode, Stat)> {
        let inode = self.lookup(dir, name)?.ok_or_else(|| absent(name))?;
        let stat = self.stat(inode)?;
        self.begin()?;
        Ok((self.join(dir, name)?, inode, stat))
    }

    /// Forgets the path `path` and all below it.
    fn gone(&self, path: &[u8]) {
        let mut state = self.state();
        state.forget();
        state.paths.retain(|_, known| !is_within(known, path));
    }
}

struct Before {
    path: Vec<u8>,
    stat: Stat,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

fn is_within(path: &[u8], above: &[u8]) -> bool {
    path.strip_prefix(above).is_some_and(|rest| matches!(rest, [] | [b'/', ..]))
}

impl FilesystemMut for Mounted {
    fn replace(&self, inode: Inode, content: &[u8]) -> Result<()> {
        let before = self.regular(inode)?;
        self.appliance.give("upload", content, &[&self.there(&before.path)])?;
        self.give_back(inode, &before)
    }

    fn append(&self, inode: Inode, content: &[u8]) -> Result<()> {
        let before = self.regular(inode)?;
        let end = before.stat.size.to_string();
        self.appliance.give("upload-offset", content, &[&self.there(&before.path), end.as_bytes()])?;
        self.give_back(inode, &before)
    }

    fn create(&self, dir: Inode, name: &[u8], attributes: &Attributes, content: &[u8]) -> Result<Inode> {
        let path = self.fresh(dir, name)?;
        self.appliance.give("upload", content, &[&self.there(&path)])?;
        self.dress(dir, path, attributes)
    }

    fn create_dir(&self, dir: Inode, name: &[u8], attributes: &Attributes) -> Result<Inode> {
        let path = self.fresh(dir, name)?;
        self.appliance.tell("mkdir", &[&self.there(&path)])?;
        self.dress(dir, path, attributes)
    }

    fn symlink(&self, dir: Inode, name: &[u8], target: &[u8], attributes: &Attributes) -> Result<Inode> {
        let path = self.fresh(dir, name)?;
        self.appliance.tell("ln-s", &[target, &self.there(&path)])?;
        self.dress(dir, path, attributes)
    }

    fn remove(&self, dir: Inode, name: &[u8]) -> Result<()> {
        let (path, inode, stat) = self.going(dir, name)?;
        if stat.kind == FileKind::Directory {
            return Err(
                Error::failed("guest.not-regular", "a directory is not removed like a file").at(escape_bytes(&path))
            );
        }
        self.appliance.tell("rm", &[&self.there(&path)])?;
        self.gone(&path);
        // Other names of the file are found again when they are looked up.
        self.state().paths.remove(&inode.0);
        Ok(())
    }

    fn remove_dir(&self, dir: Inode, name: &[u8]) -> Result<()> {
        let (path, ..) = self.going(dir, name)?;
        self.appliance.tell("rmdir", &[&self.there(&path)])?;
        self.gone(&path);
        Ok(())
    }

    fn rename(&self, dir: Inode, name: &[u8], new_dir: Inode, new_name: &[u8]) -> Result<()> {
        let new = self.fresh(new_dir, new_name)?;
        let (path, ..) = self.going(dir, name)?;
        self.appliance.tell("rename", &[&self.there(&path), &self.there(&new)])?;
        let mut state = self.state();
        state.forget();
        for known in state.paths.values_mut().filter(|known| is_within(known, &path)) {
            let rest = known.get(path.len()..).unwrap_or_default();
            *known = [&new, rest].concat();
        }
        Ok(())
    }

    fn set_owner(&self, inode: Inode, mode: u32, uid: u32, gid: u32) -> Result<()> {
        let stat = self.stat(inode)?;
        self.begin()?;
        self.own(inode, &stat, mode, uid, gid)
    }

    fn set_xattr(&self, inode: Inode, name: &[u8], value: &[u8]) -> Result<()> {
        let there = self.there(&self.path_of(inode)?);
        // libguestfs takes values as text: what ends one, and nothing else, may be a byte 0.
        let text = value.strip_suffix(b"\0").unwrap_or(value);
        if text.contains(&0) {
            return Err(Error::unsupported(
                "appliance.xattr",
                "libguestfs cannot set an attribute with a byte 0 in it",
            )
            .at(escape_bytes(name)));
        }
        self.begin()?;
        self.appliance.tell("lsetxattr", &[name, text, value.len().to_string().as_bytes(), &there])?;
        self.state().forget();
        Ok(())
    }

    fn remove_xattr(&self, inode: Inode, name: &[u8]) -> Result<()> {
        if !self.xattrs(inode)?.iter().any(|(known, _)| known == name) {
            return Ok(());
        }
        self.begin()?;
        self.appliance.tell("lremovexattr", &[name, &self.there(&self.path_of(inode)?)])?;
        self.state().forget();
        Ok(())
    }

    fn set_times(&self, inode: Inode, atime: Timestamp, mtime: Timestamp) -> Result<()> {
        let there = self.there(&self.path_of(inode)?);
        let words = [
            atime.seconds.to_string(),
            atime.nanoseconds.to_string(),
            mtime.seconds.to_string(),
            mtime.nanoseconds.to_string(),
        ];
        let [a, b, c, d] = words.each_ref().map(String::as_bytes);
        self.begin()?;
        self.appliance.tell("utimens", &[&there, a, b, c, d])?;
        self.state().forget();
        Ok(())
    }

    fn available(&self) -> Result<u64> {
        Ok(self.space()?.2)
    }

    fn sync(&self) -> Result<()> {
        if !self.state().is_writable {
            return Ok(());
        }
        self.remount("ro")?;
        self.state().is_writable = false;
        Ok(())
    }
}
