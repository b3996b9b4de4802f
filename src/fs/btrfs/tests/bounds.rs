//! Bounds of memory and of what is believed.

use super::dir::Target;
use super::tree::Changes;
use super::*;
use crate::limits;

/// A tree with `items` on top.
fn changed(tree: &Tree, items: impl IntoIterator<Item = (Key, Vec<u8>)>) -> Tree {
    let changes: Changes = items.into_iter().map(|(key, item)| (key, Some(item))).collect();
    Tree { changes: Arc::new(changes), ..tree.clone() }
}

#[test]
fn as_many_subvolumes_as_the_limit_and_no_more() {
    let fs = open(&image()).unwrap();
    let store = &fs.core().store;
    let mut item = vec![0; 439];
    put(&mut item, 176, &4096_u64.to_le_bytes());
    put(&mut item, 216, &1_u32.to_le_bytes());
    let limit = limits::MAX_BTRFS_SUBVOLUMES;
    // One is there already.
    for (count, is_fine) in [(limit - 2, true), (limit - 1, true), (limit, false)] {
        let items = (0..count as u64).map(|index| (Key::new(1000 + index, kind::ROOT_ITEM, 0), item.clone()));
        let volumes = store.volumes(&changed(&store.root_tree(), items));
        match volumes {
            Ok(volumes) => assert!(is_fine && volumes.len() == count + 1),
            Err(error) => assert!(!is_fine && error.code() == "btrfs.limit", "{error}"),
        }
    }
}

#[test]
fn attributes_have_a_largest_size() {
    let limit = limits::MAX_BTRFS_XATTRS;
    for (bytes, is_fine) in [(limit - 1, true), (limit, true), (limit + 1, false)] {
        let mut fs = open(&image()).unwrap();
        let core = Arc::get_mut(&mut fs.shared).unwrap().core.get_mut().unwrap();
        let value = |len: usize| {
            let mut item = dir::encode(Key::new(0, 0, 0), 8, b"user.x");
            item.resize(len, 7);
            let data = len - 36;
            put(&mut item, 25, &u16::try_from(data).unwrap().to_le_bytes());
            item
        };
        let each = 1 << 15;
        let key = |index: usize| Key::new(256, kind::XATTR_ITEM, index as u64);
        let mut items: Vec<_> = (0..limit / each - 1).map(|index| (key(index), value(each))).collect();
        items.push((key(1 << 20), value(bytes - (limit - each))));
        let volume = core.volumes.get_mut(&id::FS_TREE).unwrap();
        volume.tree = changed(&volume.tree, items);
        let all = fs.xattrs(fs.root());
        assert_eq!(all.is_ok(), is_fine, "{bytes}");
        assert!(all.map_or_else(|error| error.code() == "btrfs.limit", |all| all.len() == limit / each));
    }
}

#[test]
fn a_log_has_a_largest_size() {
    let fs = open(&image()).unwrap();
    let store = &fs.core().store;
    // What the tree has by itself counts too.
    let mut own = 0;
    log::items(store, &fs.core().volumes[&id::FS_TREE].tree, &mut own).unwrap();
    let limit = limits::MAX_BTRFS_LOG;
    for (bytes, is_fine) in [(limit - 1, true), (limit, true), (limit + 1, false)] {
        let item = vec![0; bytes - own - limits::BTRFS_LOG_ITEM];
        let tree = changed(&fs.core().volumes[&id::FS_TREE].tree, [(Key::new(1 << 40, 1, 0), item)]);
        let items = log::items(store, &tree, &mut 0);
        assert_eq!(items.is_ok(), is_fine, "{bytes}");
    }
}

#[test]
fn the_cache_of_nodes_is_bounded() {
    let fs = open(&image()).unwrap();
    walk(&fs, &mut |error| panic!("{error}"));
    assert!(fs.core().store.cached_bytes() > 0);
    assert!(fs.core().store.cached_bytes() <= limits::BTRFS_CACHE);
}

#[test]
fn numbers_of_inodes_do_not_collide() {
    let fs = open(&image()).unwrap();
    let core = &*fs.core();
    let target = |volume, inode, is_stub| Target { volume, inode, is_stub };
    for target in [target(5, 256, false), target(5, 256, true), target(5, (1 << 47) - 1, false)] {
        for root in [5, 300] {
            let number = core.number(root, target).unwrap();
            if root == 5 {
                assert_eq!(core.target_of(5, number).unwrap(), target);
            }
            assert_eq!(number.0 >> 48, u64::from(root != 5));
        }
    }
    assert_eq!(core.number(5, target(5, 1 << 47, false)).unwrap_err().code(), "btrfs.limit");
    assert_eq!(core.target_of(5, Inode(2 << 48 | 256)).unwrap_err().code(), "btrfs.corrupt");
}

#[test]
fn an_image_that_is_cut_short_anywhere_is_an_error() {
    let whole = image();
    let mut lens: Vec<usize> = (0..40).collect();
    lens.extend([SUPER, SUPER + 1, SUPER + 4095, SUPER + 4096, 1 << 20, whole.len() / 2, whole.len() - NODE]);
    for len in lens {
        for code in codes(&whole[..len]) {
            assert!(code.starts_with("btrfs."), "{len}: {code}");
        }
    }
    assert_eq!(codes(&whole[..SUPER + 4095]), ["btrfs.corrupt"]);
}
