//! What the fuzz targets share.

pub mod changes;
pub mod images;
pub mod windows;

use std::ops::ControlFlow;
use std::sync::Arc;

use hyper2kvm::disk::{Checked, Disk, Memory};
use hyper2kvm::error::Result;
use hyper2kvm::format::{Ask, Head, Layer, Place};
use hyper2kvm::fs::Filesystem;
use hyper2kvm::limits::MAX_UNIT;
use hyper2kvm::session::Session;

/// Opens any bytes as an image whose other files, if it names any, are the same bytes; then maps, decodes and checks it. Every
/// run stays inside what was asked and inside the file, and everything ends.
pub fn walk(open: fn(Arc<dyn Disk>, &Ask<'_>) -> Result<Head>, data: Vec<u8>) {
    let file: Arc<dyn Disk> = Checked::wrap(Memory::new(data));
    let Ok(head) = open(Arc::clone(&file), &Ask::current(&Session::with_defaults())) else { return };
    let extents = head.extents.iter().map(|_| Arc::clone(&file)).collect();
    let Ok(layer) = (head.build)(extents) else { return };
    let mut at = 0;
    for _ in 0..256 {
        let left = layer.len() - at;
        if left == 0 {
            break;
        }
        at += step(&*layer, at, left);
    }
    assert!(!layer.facts().is_empty());
    let mut left = 64;
    let _ = layer.check(&mut |_| {
        left -= 1;
        if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
}

/// Maps and decodes what is at `at`; gives how far to go on. A bad entry hides one unit.
fn step(layer: &dyn Layer, at: u64, left: u64) -> u64 {
    let Ok(run) = layer.map(at, left) else { return left.min(layer.unit_size() - at % layer.unit_size()) };
    assert!(run.len > 0 && run.len <= left);
    match run.place {
        Place::Data { file, offset } => assert!(offset + run.len <= layer.files()[file].len()),
        Place::Encoded(unit) => {
            let file = &layer.files()[unit.file];
            assert!(unit.len as usize <= MAX_UNIT && unit.offset + u64::from(unit.stored) <= file.len());
            let _ = layer.decode(&unit, &mut vec![0; unit.len as usize]);
        }
        Place::Parent | Place::Zero => {}
    }
    run.len
}

/// Reads what a caller would of a file system, within a caller's bounds: names stay in their directory, and free ranges are in
/// order and inside of the file system.
pub fn walk_files(fs: &dyn Filesystem) {
    let (mut pending, mut left) = (vec![fs.root()], 150);
    while let Some(inode) = pending.pop().filter(|_| left > 0) {
        left -= 1;
        let _ = (fs.stat(inode), fs.xattrs(inode), fs.read_link(inode), fs.read_at(inode, &mut [0; 40_000], 100));
        let _ = fs.read_dir(inode, 0, &mut |entry| {
            assert!(!entry.name.is_empty() && !entry.name.iter().any(|byte| matches!(byte, 0 | b'/')));
            pending.push(entry.inode);
            if pending.len() > 500 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let _ = fs.lookup(inode, b"no such name");
    }
    let mut last = 0;
    let _ = fs.free_ranges(&mut |range| {
        assert!(last <= range.start && range.start < range.end && range.end <= fs.facts().size);
        last = range.end;
        ControlFlow::Continue(())
    });
}
