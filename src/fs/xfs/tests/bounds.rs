//! Each bound at its value, below and above it.

use super::*;
use crate::limits;

#[test]
fn groups() {
    // Only the superblock counts: the groups themselves are never looked at.
    let parse = |count: u32| {
        let mut raw = plain()[..512].to_vec();
        put_be32(&mut raw, 84, 64);
        put(&mut raw, 124, &[6]);
        put_be32(&mut raw, 88, count);
        put_be64(&mut raw, 8, u64::from(count) * 64);
        Superblock::parse(raw, u64::MAX).map(|sb| sb.agcount)
    };
    for count in [limits::MAX_XFS_GROUPS - 1, limits::MAX_XFS_GROUPS] {
        assert_eq!(parse(count).unwrap(), count);
    }
    assert_eq!(parse(limits::MAX_XFS_GROUPS + 1).unwrap_err().code(), "xfs.limit");
}

#[test]
fn levels() {
    let check = |level: u32| {
        let mut image = plain();
        put_be32(&mut image, 512 + 28, level);
        let fs = opened(&image);
        fs.reading(|view| view.agf(0).and_then(|agf| view.prove(0, &agf))).unwrap_err().to_string()
    };
    for level in [u32::from(limits::MAX_XFS_LEVELS) - 1, u32::from(limits::MAX_XFS_LEVELS)] {
        assert!(check(level).contains("contradicts itself"));
    }
    assert!(check(u32::from(limits::MAX_XFS_LEVELS) + 1).contains("number of levels"));
}

#[test]
fn directories() {
    let at = inode_at(&plain(), "leaf");
    let list = |size: u64| {
        let mut image = plain();
        put_be64(&mut image, at + 56, size);
        let fs = opened(&image);
        let dir = lookup(&fs, "leaf");
        fs.read_dir(dir, 0, &mut |_| ControlFlow::Continue(())).map_err(|error| error.code())
    };
    for size in [limits::MAX_XFS_DIR - 1024, limits::MAX_XFS_DIR] {
        assert_eq!(list(size), Ok(()));
    }
    assert_eq!(list(limits::MAX_XFS_DIR + 1024), Err("xfs.limit"));
}

#[test]
fn logs() {
    let open = |blocks: u32| {
        let mut raw = plain()[..512].to_vec();
        // A group that has room for it.
        put_be64(&mut raw, 8, 1 << 24);
        put_be32(&mut raw, 84, 1 << 24);
        put(&mut raw, 124, &[24]);
        put_be64(&mut raw, 48, 16);
        put_be32(&mut raw, 96, blocks);
        let sb = Superblock::parse(raw, u64::MAX).unwrap();
        let disk = disk(vec![0; 512]);
        Log::new(&*disk, &sb).map(drop).map_err(|error| error.code())
    };
    let most = limits::MAX_XFS_LOG / 2;
    assert_eq!((open(most - 1), open(most)), (Ok(()), Ok(())));
    assert_eq!(open(most + 1), Err("xfs.log"));
    assert_eq!((open(31), open(32)), (Err("xfs.log"), Ok(())));
}
