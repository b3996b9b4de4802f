//! Bounds of memory and of what is believed.

use super::*;
use crate::limits;

#[test]
fn the_cache_of_nodes_is_bounded() {
    let fs = open(&image()).unwrap();
    walk(&fs, &mut |error| panic!("{error}"));
    assert!(fs.core.store.cached_bytes() > 0);
    assert!(fs.core.store.cached_bytes() <= limits::BTRFS_CACHE);
}

#[test]
fn numbers_of_inodes_do_not_collide() {
    let fs = open(&image()).unwrap();
    let core = &fs.core;
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
