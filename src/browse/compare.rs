//! What differs between two trees, name by name.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::io::Read;

use crate::error::{Error, Result, escape_bytes};
use crate::fs::tree::{Found, cause};
use crate::fs::{FileKind, Tree};
use crate::limits;
use crate::session::Session;

use super::PIECE;

/// A name that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The path, as both trees call it.
    pub path: Vec<u8>,
    /// How it differs.
    pub change: Change,
}

/// How a name differs between two trees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Only the second tree has it.
    Added,
    /// Only the first tree has it.
    Removed,
    /// Both have it, and these differ: `kind`, `mode`, `owner`, `size`, `content`, `target`, `device`, `xattrs`, `mtime`.
    Changed(Vec<&'static str>),
}

/// What to look at.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Read and compare the content of files of one length. Without it, such files differ when their times do.
    pub content: bool,
    /// Compare modification times of files.
    pub times: bool,
}

/// A tree and where in it to begin.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    /// The tree.
    pub tree: &'a Tree,
    /// A file or directory of it.
    pub top: &'a Found,
}

/// Calls `visit` with every difference between two trees, in name order. What is in a directory that only one has is not told
/// one by one.
///
/// # Errors
/// The first that reading either tree, or `visit`, fails with.
pub fn compare(
    a: Side<'_>,
    b: Side<'_>,
    options: Options,
    session: &Session,
    visit: &mut dyn FnMut(Difference) -> Result<()>,
) -> Result<()> {
    compare_within(a, b, options, session, limits::MAX_GUEST_DIRS, visit)
}

/// The same in no more than `most` directories.
pub(super) fn compare_within(
    a: Side<'_>,
    b: Side<'_>,
    options: Options,
    session: &Session,
    most: usize,
    visit: &mut dyn FnMut(Difference) -> Result<()>,
) -> Result<()> {
    let mut entered = HashSet::new();
    let mut pending = vec![Pair::Both(a.top.clone(), b.top.clone())];
    while let Some(pair) = pending.pop() {
        session.check()?;
        let (was, is) = match pair {
            Pair::Only(found, change) => {
                visit(Difference { path: found.path, change })?;
                continue;
            }
            Pair::Both(was, is) => (was, is),
        };
        let changed = changed(a.tree, &was, b.tree, &is, options, session)?;
        if !changed.is_empty() {
            visit(Difference { path: is.path.clone(), change: Change::Changed(changed) })?;
        }
        let are_directories = was.stat.kind == FileKind::Directory && is.stat.kind == FileKind::Directory;
        // Only a damaged file system has two ways into a directory.
        if are_directories && entered.insert((was.id(), is.id())) {
            if entered.len() > most {
                return Err(Error::limit("guest.walk-size", "a tree with too many directories"));
            }
            let pairs = merge(children(a.tree, &was)?, children(b.tree, &is)?);
            pending.extend(pairs.into_iter().rev());
        }
    }
    Ok(())
}

enum Pair {
    Both(Found, Found),
    Only(Found, Change),
}

type Children = Vec<(Vec<u8>, Found)>;

fn children(tree: &Tree, dir: &Found) -> Result<Children> {
    if dir.path.len() > limits::MAX_GUEST_PATH {
        return Err(Error::limit("guest.walk-size", "a path that is too long").at(escape_bytes(&dir.path)));
    }
    let children = tree.children(dir)?.into_iter();
    children.map(|(name, found)| Ok((name, found.map_err(|error| error.at(escape_bytes(&dir.path)))?))).collect()
}

/// Two sorted lists as pairs, in order.
fn merge(was: Children, is: Children) -> Vec<Pair> {
    let mut pairs = Vec::with_capacity(was.len().max(is.len()));
    let (mut was, mut is) = (was.into_iter().peekable(), is.into_iter().peekable());
    loop {
        let order = match (was.peek(), is.peek()) {
            (Some((a, _)), Some((b, _))) => a.cmp(b),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return pairs,
        };
        let a = if order.is_le() { was.next() } else { None };
        let b = if order.is_ge() { is.next() } else { None };
        pairs.extend(match (a, b) {
            (Some((_, a)), Some((_, b))) => Some(Pair::Both(a, b)),
            (Some((_, a)), None) => Some(Pair::Only(a, Change::Removed)),
            (None, Some((_, b))) => Some(Pair::Only(b, Change::Added)),
            (None, None) => None,
        });
    }
}

fn changed(
    a: &Tree,
    was: &Found,
    b: &Tree,
    is: &Found,
    options: Options,
    session: &Session,
) -> Result<Vec<&'static str>> {
    let (x, y) = (&was.stat, &is.stat);
    if x.kind != y.kind {
        return Ok(vec!["kind"]);
    }
    let is_file = x.kind == FileKind::Regular;
    let is_dated = is_file && (options.times || !options.content);
    let content = match x.kind {
        FileKind::Regular if x.size == y.size && options.content => !same_content(a, was, b, is, session)?,
        _ => false,
    };
    let target = x.kind == FileKind::Symlink && a.target(was)? != b.target(is)?;
    let fields = [
        // Nobody asks for a link's mode, and drivers differ in what they keep.
        ("mode", x.kind != FileKind::Symlink && x.mode != y.mode),
        ("owner", (x.uid, x.gid) != (y.uid, y.gid)),
        ("size", is_file && x.size != y.size),
        ("content", content),
        ("target", target),
        ("device", x.device != y.device),
        ("xattrs", a.xattrs_of(was)? != b.xattrs_of(is)?),
        ("mtime", is_dated && x.mtime != y.mtime),
    ];
    Ok(fields.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect())
}

fn same_content(a: &Tree, was: &Found, b: &Tree, is: &Found, session: &Session) -> Result<bool> {
    let (mut a, mut b) = (a.reader(was)?, b.reader(is)?);
    let (mut one, mut other) = (vec![0; PIECE], vec![0; PIECE]);
    loop {
        session.check()?;
        let (x, y) = (fill(&mut a, &mut one)?, fill(&mut b, &mut other)?);
        if one.get(..x) != other.get(..y) {
            return Ok(false);
        }
        if x < PIECE {
            return Ok(true);
        }
    }
}

/// Reads until `buf` is full or the file ends, and gives how much that was.
fn fill(reader: &mut impl Read, buf: &mut [u8]) -> Result<usize> {
    let mut filled = 0_usize;
    while let Some(rest) = buf.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let read = reader.read(rest).map_err(|e| cause(e, |e| Error::unreadable("cannot read a guest file", e)))?;
        if read == 0 {
            break;
        }
        filled = filled.saturating_add(read);
    }
    Ok(filled)
}
