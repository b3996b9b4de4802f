//! All that a caller may ask of a file system, within the bounds that a caller has: for tests with damaged images.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use super::{FileKind, Filesystem, Inode, utf16};
use crate::error::Result;

/// More names than this are not waiting at once.
const WAITING: usize = 2000;

/// Reads names, attributes and content of up to `most` files, looks for `name` in each folder, and asks for what is free. The first
/// error.
pub(super) fn read(fs: &dyn Filesystem, most: usize, name: &[u8]) -> Result<()> {
    let start = Instant::now();
    let (mut pending, mut seen, mut first) = (vec![fs.root()], HashSet::new(), Ok(()));
    while let Some(inode) = pending.pop().filter(|_| seen.len() <= most) {
        if seen.insert(inode) {
            first = first.and(fs.xattrs(inode).map(drop)).and(file(fs, inode, name, &mut pending));
        }
    }
    let first = first.and(free(fs));
    assert!(start.elapsed() < Duration::from_secs(20), "took {:?}", start.elapsed());
    first
}

fn file(fs: &dyn Filesystem, inode: Inode, name: &[u8], pending: &mut Vec<Inode>) -> Result<()> {
    let stat = fs.stat(inode)?;
    match stat.kind {
        FileKind::Directory => {
            let listed = fs.read_dir(inode, 0, &mut |entry| {
                assert!(utf16::is_name(&entry.name));
                pending.push(entry.inode);
                if pending.len() > WAITING { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            listed.and(fs.lookup(inode, name).map(drop))
        }
        FileKind::Symlink => fs.read_link(inode).map(drop),
        FileKind::Regular => {
            let at = |offset| fs.read_at(inode, &mut [0; 100_000], offset).map(drop);
            at(3).and(at(stat.size.saturating_sub(1000)))
        }
        _ => Ok(()),
    }
}

fn free(fs: &dyn Filesystem) -> Result<()> {
    let mut last = 0;
    fs.free_ranges(&mut |range| {
        assert!(last <= range.start && range.start < range.end && range.end <= fs.facts().size);
        last = range.end;
        ControlFlow::Continue(())
    })?;
    let idle = fs.idle_ranges()?;
    assert!(idle.iter().all(|range| range.start < range.end && range.end <= fs.facts().size));
    assert!(idle.is_sorted_by(|one, next| one.end < next.start));
    Ok(())
}
