//! Going through a tree, depth first and in name order.

use std::collections::HashSet;

use crate::error::{Error, Result, escape_bytes};
use crate::fs::tree::{FileId, Found};
use crate::fs::{FileKind, Tree};
use crate::limits;
use crate::session::Session;

/// What comes after a file that was visited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// What is in it, when it is a directory.
    In,
    /// The next one beside it.
    Over,
}

/// Visits `top` and, as far as `visit` says [`Step::In`], everything in it: each directory before what it holds, in name order,
/// with how many names below `top` it is. Links are not followed. What cannot be read is visited as an error.
///
/// No directory is entered twice, which only a damaged file system asks for; a second way in is an error of that name.
///
/// # Errors
/// Those of `visit`, which end the walk; `guest.walk-size` for a tree with more than [`limits::MAX_GUEST_DIRS`] directories.
pub fn walk(
    tree: &Tree,
    top: &Found,
    session: &Session,
    visit: &mut dyn FnMut(Result<&Found>, usize) -> Result<Step>,
) -> Result<()> {
    walk_within(tree, top, session, limits::MAX_GUEST_DIRS, visit)
}

/// The same into no more than `most` directories.
pub(super) fn walk_within(
    tree: &Tree,
    top: &Found,
    session: &Session,
    most: usize,
    visit: &mut dyn FnMut(Result<&Found>, usize) -> Result<Step>,
) -> Result<()> {
    let mut entered = HashSet::new();
    let mut pending = vec![(Ok(top.clone()), 0_usize)];
    while let Some((found, depth)) = pending.pop() {
        session.check()?;
        let step = visit(found.as_ref().map_err(Error::clone), depth)?;
        let Ok(dir) = found else { continue };
        if step == Step::Over || dir.stat.kind != FileKind::Directory {
            continue;
        }
        if entered.len() >= most {
            return Err(Error::limit("guest.walk-size", "a tree with too many directories")
                .at(escape_bytes(&dir.path))
                .expected(format!("at most {most}")));
        }
        let below = depth.saturating_add(1);
        match children(tree, &dir, &mut entered) {
            Ok(children) => pending.extend(children.into_iter().rev().map(|child| (child, below))),
            Err(error) => pending.push((Err(error), below)),
        }
    }
    Ok(())
}

fn children(tree: &Tree, dir: &Found, entered: &mut HashSet<FileId>) -> Result<Vec<Result<Found>>> {
    if !entered.insert(dir.id()) {
        return Err(Error::corrupt("guest.directory-loop", "a directory that has two names")
            .at(escape_bytes(&dir.path))
            .hint("check the file system in the guest; what is below was listed under the other name"));
    }
    if dir.path.len() > limits::MAX_GUEST_PATH {
        return Err(Error::limit("guest.walk-size", "a path that is too long").at(escape_bytes(&dir.path)));
    }
    let within = |name: &[u8], error: Error| error.at(escape_bytes(name)).at(escape_bytes(&dir.path));
    let children = tree.children(dir).map_err(|error| error.at(escape_bytes(&dir.path)))?;
    Ok(children.into_iter().map(|(name, found)| found.map_err(|error| within(&name, error))).collect())
}
