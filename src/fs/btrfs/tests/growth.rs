//! Chunks that are added: one of each kind, and those that tell where the tree of chunks is.

use super::*;
use crate::fs::btrfs::superblock::SYS_CHUNKS_LEN;

/// A file system that has room on its device.
#[allow(clippy::disallowed_methods, reason = "btrfs-progs is the second implementation")]
fn roomy() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    std::fs::File::create(&image).unwrap().set_len(160 << 20).unwrap();
    mkfs(["-m", "dup", "-d", "single"].map(Path::new).into_iter().chain([&*image]));
    std::fs::read(image).unwrap()
}

fn changing<T>(fs: &Btrfs, work: impl FnOnce(&mut Core) -> T) -> T {
    work(&mut fs.shared.core.write().unwrap())
}

fn chunks(fs: &Btrfs, kind: u64) -> usize {
    fs.core().store.chunks.iter().filter(|chunk| chunk.flags & kind != 0).count()
}

#[test]
fn a_chunk_of_each_kind_is_added_as_the_checker_likes_it() {
    let disk = Checked::wrap(Memory::new(roomy()));
    for kind in [chunk::SYSTEM, chunk::METADATA, chunk::DATA] {
        let fs = Btrfs::open_mut(disk.clone()).unwrap();
        let (before, listed) = (chunks(&fs, kind), fs.core().store.sb.sys_chunks.len());
        assert!(changing(&fs, |core| core.grow(kind)).unwrap());
        fs.writer().unwrap().sync().unwrap();
        drop(fs);
        let again = Btrfs::open(disk.clone()).unwrap();
        assert_eq!(chunks(&again, kind), before + 1);
        let grown = again.core().store.sb.sys_chunks.len() > listed;
        assert_eq!(grown, kind == chunk::SYSTEM);
        assert_clean(&disk.inner().snapshot());
    }
}

#[test]
fn nodes_of_the_tree_of_chunks_go_into_a_new_chunk_when_the_old_ones_are_full() {
    let disk = Checked::wrap(Memory::new(roomy()));
    let fs = Btrfs::open_mut(disk.clone()).unwrap();
    let nodesize = u64::from(fs.core().store.sb.nodesize);
    // All nodes but one, which are given back before anything is stored.
    let mut taken = Vec::new();
    while changing(&fs, |core| core.writing.unused(chunk::SYSTEM)) > nodesize {
        taken.push(changing(&fs, |core| core.allocate_node(chunk::SYSTEM)).unwrap());
    }
    assert_eq!(chunks(&fs, chunk::SYSTEM), 1);
    for _ in 0..3 {
        taken.push(changing(&fs, |core| core.allocate_node(chunk::SYSTEM)).unwrap());
    }
    assert_eq!(chunks(&fs, chunk::SYSTEM), 2);
    let first = taken.len() - 2;
    assert!(taken[first..].iter().all(|at| *at > taken[0] + (8 << 20)), "{taken:?}");
    // The tree of chunks changes, and lies in the new chunk.
    let given_back = taken.split_off(first);
    changing(&fs, |core| given_back.into_iter().try_for_each(|at| core.writing.give_back(at..at + nodesize))).unwrap();
    fs.writer().unwrap().sync().unwrap();
    let place = fs.core().store.sb.chunk_root.bytenr;
    let last = fs.core().store.chunks.iter().filter(|chunk| chunk.flags & chunk::SYSTEM != 0).last().unwrap().clone();
    assert!((last.start..last.end()).contains(&place));
    let again = Btrfs::open(disk).unwrap();
    assert_eq!((chunks(&again, chunk::SYSTEM), again.core().store.sb.chunk_root.bytenr), (2, place));
}

#[test]
fn the_superblock_lists_as_many_chunks_as_it_has_room_for() {
    let disk = Checked::wrap(Memory::new(roomy()));
    let each = Btrfs::open(disk.clone()).unwrap().core().store.sb.sys_chunks.len();
    for (left, is_added) in [(each - 1, false), (each, true), (each + 1, true)] {
        let fs = Btrfs::open_mut(disk.clone()).unwrap();
        let added = changing(&fs, |core| {
            core.store.sb.sys_chunks.resize(SYS_CHUNKS_LEN - left, 0);
            core.grow(chunk::SYSTEM).unwrap()
        });
        assert_eq!(added, is_added, "{left}");
    }
}
