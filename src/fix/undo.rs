//! What it takes to undo a plan: gathered while the plan is applied, kept in a file beside the report, and applied to the
//! migrated guest, last change first.
//!
//! The file is zstd: one line of JSON, which tells the steps and the lengths of what was kept, and then the bytes that were kept,
//! one piece after the other. It holds what guest files held, so whoever may read it must be one who may read the disk.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::io::Read;

use serde::{Deserialize, Serialize};

use super::{Action, Change, Removed};
use crate::disk::bytes::{long, size};
use crate::error::{Error, Kind, Result};
use crate::fs::tree::split_name;
use crate::fs::{Attributes, FileKind, Stat, Timestamp, Tree};
use crate::limits;

/// What the first line says that the file is.
const FORMAT: &str = "hyper2kvm-undo";
const VERSION: u32 = 1;

/// What undoes the changes of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undo {
    steps: Vec<Step>,
    kept: Vec<Vec<u8>>,
    /// Bytes that may still be kept.
    room: u64,
}

/// What undoes one change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Step {
    path: String,
    #[serde(flatten)]
    reverse: Reverse,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "undo")]
enum Reverse {
    /// A file gets its content back.
    Content { size_before: u64, size: u64, pieces: Vec<Piece>, times: Times },
    /// What was made goes. The digest is that of the file's content, or of the link's target.
    Remove { made: Made, digest: Option<String>, dir: Times },
    /// What was removed is made again.
    Make { node: Node, dir: Times },
    /// What was renamed gets its name back.
    Rename { to: String, dir: Times, to_dir: Times },
    /// An extended attribute is as it was; without a value, it is not there.
    Xattr { name: Kept, before: Option<Kept>, after: Option<Kept> },
    /// Permission bits are as they were.
    Mode { before: u32, after: u32 },
    /// There was no room to keep what it takes.
    Lost {},
}

/// A part of a file: `len` bytes with this digest, in whose place was what is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Piece {
    offset: u64,
    len: u64,
    digest: String,
    before: Kept,
}

/// The number of a piece that was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Kept(usize);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Made {
    Directory,
    File,
    Link,
}

/// Access and modification time: seconds and nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Times((i64, u32), (i64, u32));

/// A file, link or directory with all that it had. Of a file the content is kept, of a link the target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Node {
    made: Made,
    mode: u32,
    uid: u32,
    gid: u32,
    times: Times,
    xattrs: Vec<(Kept, Kept)>,
    content: Kept,
}

/// The first line of the file.
#[derive(Serialize, Deserialize)]
struct Head {
    format: String,
    version: u32,
    steps: Vec<Step>,
    /// Lengths of what was kept.
    kept: Vec<u64>,
}

impl Default for Undo {
    fn default() -> Self {
        Self::with_room(limits::MAX_UNDO)
    }
}

impl Undo {
    fn with_room(room: u64) -> Self {
        Self { steps: Vec::new(), kept: Vec::new(), room }
    }

    /// Whether nothing was changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Gathers what undoes `action`, which is about to be done. False when there is no room to keep that.
    pub(super) fn gather(&mut self, action: &Action, tree: &Tree) -> Result<bool> {
        let steps = self.kept.len();
        let room = self.room;
        let reverse = self.reverse(action, tree)?;
        let reverse = if self.kept.iter().skip(steps).map(|kept| long(kept.len())).fold(0, u64::saturating_add) > room {
            self.kept.truncate(steps);
            Reverse::Lost {}
        } else {
            reverse
        };
        let taken = self.kept.iter().skip(steps).map(|kept| long(kept.len())).fold(0, u64::saturating_add);
        self.room = room.saturating_sub(taken);
        let kept = !matches!(reverse, Reverse::Lost {});
        self.steps.push(Step { path: action.path.clone(), reverse });
        Ok(kept)
    }

    fn reverse(&mut self, action: &Action, tree: &Tree) -> Result<Reverse> {
        let path = action.path.as_str();
        Ok(match &action.change {
            Change::Append { size_before, content } => {
                let size = size_before.saturating_add(long(content.len()));
                let pieces = vec![self.piece(*size_before, b"", content)];
                Reverse::Content { size_before: *size_before, size, pieces, times: times(&stat(path, tree)?) }
            }
            Change::Edit { before, content, .. } => {
                let pieces = vec![self.piece(0, before, content)];
                let (size_before, size) = (long(before.len()), long(content.len()));
                Reverse::Content { size_before, size, pieces, times: times(&stat(path, tree)?) }
            }
            Change::Create { content, .. } => {
                Reverse::Remove { made: Made::File, digest: Some(digest(content)), dir: dir_times(path, tree)? }
            }
            Change::CreateDir { .. } => {
                Reverse::Remove { made: Made::Directory, digest: None, dir: dir_times(path, tree)? }
            }
            Change::Link { target, .. } => {
                let digest = Some(digest(target.as_bytes()));
                Reverse::Remove { made: Made::Link, digest, dir: dir_times(path, tree)? }
            }
            Change::Remove { was } => Reverse::Make { node: self.node(path, was, tree)?, dir: dir_times(path, tree)? },
            Change::Rename { to } => {
                Reverse::Rename { to: to.clone(), dir: dir_times(path, tree)?, to_dir: dir_times(to, tree)? }
            }
            Change::Xattr { name, before, value } => Reverse::Xattr {
                name: self.keep(name.as_bytes()),
                before: before.as_ref().map(|value| self.keep(value)),
                after: value.as_ref().map(|value| self.keep(value)),
            },
            Change::Patch { size_before, size, pieces } => {
                let pieces = pieces.iter().map(|piece| self.piece(piece.offset, &piece.before, &piece.after)).collect();
                Reverse::Content { size_before: *size_before, size: *size, pieces, times: times(&stat(path, tree)?) }
            }
            Change::Mode { before, mode } => Reverse::Mode { before: *before, after: *mode },
        })
    }

    fn keep(&mut self, bytes: &[u8]) -> Kept {
        self.kept.push(bytes.to_vec());
        Kept(self.kept.len().saturating_sub(1))
    }

    fn piece(&mut self, offset: u64, before: &[u8], after: &[u8]) -> Piece {
        Piece { offset, len: long(after.len()), digest: digest(after), before: self.keep(before) }
    }

    fn node(&mut self, path: &str, was: &Removed, tree: &Tree) -> Result<Node> {
        let stat = stat(path, tree)?;
        let (made, content) = match was {
            Removed::Directory => (Made::Directory, &[][..]),
            Removed::File { content } => (Made::File, &content[..]),
            Removed::Link { target } => (Made::Link, target.as_bytes()),
        };
        let xattrs = tree.xattrs(path)?.iter().map(|(name, value)| (self.keep(name), self.keep(value))).collect();
        let content = self.keep(content);
        Ok(Node { made, mode: stat.mode, uid: stat.uid, gid: stat.gid, times: times(&stat), xattrs, content })
    }

    /// The file's bytes.
    ///
    /// # Errors
    /// When they cannot be compressed.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let head = Head {
            format: FORMAT.to_owned(),
            version: VERSION,
            steps: self.steps.clone(),
            kept: self.kept.iter().map(|kept| long(kept.len())).collect(),
        };
        let mut bytes = serde_json::to_vec(&head)
            .map_err(|e| Error::failed("output.json", "the steps back cannot be told as JSON").because(e))?;
        if long(bytes.len()) > limits::MAX_UNDO_HEAD {
            return Err(Error::limit("undo.lost", "there are too many changes to tell how they are undone"));
        }
        bytes.push(b'\n');
        self.kept.iter().for_each(|kept| bytes.extend_from_slice(kept));
        zstd::bulk::compress(&bytes, 3).map_err(|e| Error::failed("undo.corrupt", "compressing failed").because(e))
    }

    /// Reads the file's bytes.
    ///
    /// # Errors
    /// `undo.corrupt` when they are not such a file.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        Self::decode_within(bytes, limits::MAX_UNDO)
    }

    fn decode_within(bytes: &[u8], room: u64) -> Result<Self> {
        let mut decoder = zstd::stream::Decoder::new(bytes).map_err(|e| corrupt("it is not zstd").because(e))?;
        decoder.window_log_max(limits::MAX_DECODE_WINDOW.ilog2()).map_err(|e| corrupt("it is not zstd").because(e))?;
        let most = room.saturating_add(limits::MAX_UNDO_HEAD);
        let mut content = Vec::new();
        let read = decoder.take(most.saturating_add(1)).read_to_end(&mut content);
        read.map_err(|e| corrupt("it cannot be unpacked").because(e))?;
        let end = content.iter().position(|byte| *byte == b'\n').filter(|end| long(*end) <= limits::MAX_UNDO_HEAD);
        let end = end.ok_or_else(|| corrupt("it has no first line"))?;
        let (line, rest) = content.split_at(end);
        let head: Head = serde_json::from_slice(line).map_err(|e| corrupt("its steps cannot be read").because(e))?;
        if head.format != FORMAT || head.version != VERSION {
            return Err(corrupt("it is of another format or version").found(head.version));
        }
        let mut rest = rest.get(1..).unwrap_or_default();
        let mut undo = Self { steps: head.steps, kept: Vec::new(), room };
        for len in head.kept {
            let (kept, others) = rest.split_at_checked(size(len)).ok_or_else(|| corrupt("it is cut short"))?;
            undo.kept.push(kept.to_vec());
            undo.room = undo.room.checked_sub(len).ok_or_else(|| corrupt("it keeps too much"))?;
            rest = others;
        }
        if rest.is_empty() { Ok(undo) } else { Err(corrupt("it goes on behind its end")) }
    }

    /// Undoes the changes in `tree`, and leaves its file systems clean. The paths, in the order in which they were undone.
    ///
    /// # Errors
    /// `undo.changed` when something is not as the changes left it; others are undone by then, and nothing should be kept of that.
    pub fn apply(&self, tree: &Tree) -> Result<Vec<&str>> {
        if let Some(lost) = self.steps.iter().find(|step| step.reverse == Reverse::Lost {}) {
            let what = "what it takes to undo a change was too large to be kept";
            return Err(Error::unsupported("undo.lost", what).at(&lost.path));
        }
        for step in self.steps.iter().rev() {
            self.undo(step, tree).map_err(|error| error.at(&step.path))?;
        }
        tree.sync()?;
        Ok(self.steps.iter().rev().map(|step| step.path.as_str()).collect())
    }

    fn undo(&self, step: &Step, tree: &Tree) -> Result<()> {
        let path = step.path.as_str();
        match &step.reverse {
            Reverse::Content { size_before, size, pieces, times } => {
                self.put_content(path, tree, (*size_before, *size), pieces)?;
                times.set(path, tree)
            }
            Reverse::Remove { made, digest, dir } => {
                remove(path, tree, *made, digest.as_deref())?;
                set_dir(path, tree, *dir)
            }
            Reverse::Make { node, dir } => {
                self.make(path, tree, node)?;
                set_dir(path, tree, *dir)
            }
            Reverse::Rename { to, dir, to_dir } => {
                tree.rename(to, path).map_err(as_changed)?;
                set_dir(to, tree, *to_dir)?;
                set_dir(path, tree, *dir)
            }
            Reverse::Xattr { name, before, after } => {
                let name = self.get(*name)?;
                let is = tree.xattrs(path).map_err(as_changed)?.into_iter().find(|(known, _)| known == name);
                if is.as_ref().map(|(_, value)| value.as_slice()) != after.map(|after| self.get(after)).transpose()? {
                    return Err(changed());
                }
                match before {
                    Some(before) => tree.set_xattr(path, name, self.get(*before)?),
                    None => tree.remove_xattr(path, name),
                }
            }
            Reverse::Mode { before, after } => {
                let stat = stat(path, tree).map_err(as_changed)?;
                if stat.mode != *after {
                    return Err(changed());
                }
                tree.set_owner(path, *before, stat.uid, stat.gid)
            }
            Reverse::Lost {} => Err(corrupt("a step was not kept")),
        }
    }

    fn get(&self, kept: Kept) -> Result<&[u8]> {
        self.kept.get(kept.0).map(Vec::as_slice).ok_or_else(|| corrupt("it names what it does not keep"))
    }

    fn put_content(&self, path: &str, tree: &Tree, sizes: (u64, u64), pieces: &[Piece]) -> Result<()> {
        let found = tree.find_link(path)?.filter(|found| found.stat.size == sizes.1).ok_or_else(changed)?;
        if found.stat.kind != FileKind::Regular {
            return Err(changed());
        }
        let mut content = tree.read(path, limits::MAX_INITRAMFS)?.ok_or_else(changed)?;
        // From the back, so that what lies before keeps its place.
        for piece in pieces.iter().rev() {
            let start = size(piece.offset);
            let end = start.saturating_add(size(piece.len));
            let now = content.get(start..end).ok_or_else(changed)?;
            if digest(now) != piece.digest {
                return Err(changed());
            }
            content.splice(start..end, self.get(piece.before)?.iter().copied());
        }
        if long(content.len()) != sizes.0 {
            return Err(corrupt("its pieces do not make the file that was there"));
        }
        tree.write(path, &content)
    }

    fn make(&self, path: &str, tree: &Tree, node: &Node) -> Result<()> {
        if tree.find_link(path)?.is_some() {
            return Err(changed());
        }
        let xattr = |(name, value): &(Kept, Kept)| Ok((self.get(*name)?.to_vec(), self.get(*value)?.to_vec()));
        let xattrs = node.xattrs.iter().map(xattr).collect::<Result<_>>()?;
        let time = node.times.modified();
        let attributes = Attributes { mode: node.mode, uid: node.uid, gid: node.gid, time, xattrs };
        let content = self.get(node.content)?;
        match node.made {
            Made::Directory => tree.create_dir(path, &attributes),
            Made::File => tree.create_file(path, &attributes, content),
            Made::Link => tree.symlink(path, content, &attributes),
        }?;
        node.times.set(path, tree)
    }
}

impl Times {
    fn set(self, path: &str, tree: &Tree) -> Result<()> {
        let time = |(seconds, nanoseconds)| Timestamp { seconds, nanoseconds };
        tree.set_times(path, time(self.0), time(self.1))
    }

    const fn modified(self) -> Timestamp {
        Timestamp { seconds: self.1.0, nanoseconds: self.1.1 }
    }
}

fn times(stat: &Stat) -> Times {
    let time = |time: Timestamp| (time.seconds, time.nanoseconds);
    Times(time(stat.atime), time(stat.mtime))
}

/// Attributes of the file, link or directory itself.
fn stat(path: &str, tree: &Tree) -> Result<Stat> {
    Ok(tree.find_link(path)?.ok_or_else(super::changed)?.stat)
}

fn dir_of(path: &str) -> &[u8] {
    split_name(path.as_bytes()).map_or(b"/", |(dir, _)| dir)
}

fn dir_times(path: &str, tree: &Tree) -> Result<Times> {
    Ok(times(&tree.find(dir_of(path))?.ok_or_else(super::changed)?.stat))
}

fn set_dir(path: &str, tree: &Tree, dir: Times) -> Result<()> {
    let found = tree.find(dir_of(path))?.ok_or_else(changed)?;
    let time = |(seconds, nanoseconds)| Timestamp { seconds, nanoseconds };
    tree.set_times(&found.path, time(dir.0), time(dir.1))
}

/// Removes what was made, if it is still that.
fn remove(path: &str, tree: &Tree, made: Made, made_of: Option<&str>) -> Result<()> {
    let found = tree.find_link(path)?.ok_or_else(changed)?;
    match (made, found.stat.kind) {
        (Made::Directory, FileKind::Directory) => tree.remove_dir(path).map_err(as_changed),
        (Made::File, FileKind::Regular) => {
            let content = tree.read(path, limits::MAX_INITRAMFS)?.ok_or_else(changed)?;
            if made_of != Some(digest(&content).as_str()) {
                return Err(changed());
            }
            tree.remove(path)
        }
        (Made::Link, FileKind::Symlink) => {
            if made_of != Some(digest(&tree.target(&found)?).as_str()) {
                return Err(changed());
            }
            tree.remove(path)
        }
        _ => Err(changed()),
    }
}

fn digest(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

fn corrupt(what: &str) -> Error {
    Error::corrupt("undo.corrupt", format!("the file that undoes a migration is damaged: {what}"))
}

fn changed() -> Error {
    Error::failed("undo.changed", "the guest is not as the migration left it")
        .hint("it was changed since; undo that first, or go back to the original disk")
}

/// What is not there, or in the way, was changed by someone.
fn as_changed(error: Error) -> Error {
    match error.kind() {
        Kind::NotFound | Kind::Exists | Kind::Failed => changed().because(error),
        _ => error,
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "tests build their input")]
mod tests;
