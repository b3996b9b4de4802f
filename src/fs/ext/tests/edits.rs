//! Changes that fail, and changes that go to the edge.

use std::sync::atomic::AtomicU64;

use super::*;
use crate::disk::{Fault, until_it_succeeds};

/// What e2fsck says of an image; it must find nothing.
fn assert_clean(bytes: Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    std::fs::write(&path, bytes).unwrap();
    let text = run("e2fsck", &["-fn", path.to_str().unwrap()]);
    assert!(!text.contains("? no"), "{text}");
}

#[test]
fn a_failure_of_any_read_or_write_is_noticed() {
    for image in [plain(), summed(), mapped()] {
        let calls = until_it_succeeds(
            5000,
            |n, calls: &Arc<AtomicU64>| {
                let memory: Arc<dyn DiskMut> = disk(image.clone());
                let faulty: Arc<dyn DiskMut> = Checked::wrap(Fault::nth_mut(memory, Arc::clone(calls), n));
                let fs = Ext::open_mut(faulty)?;
                let writer = fs.writer()?;
                let file = lookup_checked(&fs, b"file")?;
                let large = lookup_checked(&fs, b"large")?;
                fs.free_ranges(&mut |_| ControlFlow::Continue(()))?;
                writer.replace(file, &[1; 12_345])?;
                writer.append(file, &[2; 3000])?;
                writer.set_xattr(file, b"user.x", &[3; 400])?;
                for index in 0..12 {
                    let name = format!("{index:040}");
                    writer.create(large, name.as_bytes(), &Attributes::default(), b"x")?;
                }
                writer.remove(large, b"5-a-name-that-takes-some-room")?;
                let dir = writer.create_dir(fs.root(), b"dir", &Attributes::default())?;
                writer.rename(fs.root(), b"large", dir, b"larger")?;
                writer.rename(large, b"6-a-name-that-takes-some-room", dir, b"six")?;
                writer.rename(dir, b"larger", fs.root(), b"large")?;
                writer.remove(dir, b"six")?;
                writer.remove_dir(fs.root(), b"dir")?;
                writer.set_owner(file, 0o600, 1, 2)?;
                writer.remove_xattr(file, b"user.x")?;
                fs.read_dir(large, 0, &mut |_| ControlFlow::Continue(()))?;
                let mut buf = vec![0; 20_000];
                fs.read_at(file, &mut buf, 0)?;
                writer.sync()
            },
            |_| (),
        )
        .unwrap();
        assert!(calls > 30);
    }
}

fn lookup_checked(fs: &Ext, name: &[u8]) -> Result<Inode> {
    fs.lookup(fs.root(), name)?.ok_or_else(|| corrupt("not there"))
}

#[test]
fn a_change_without_room_changes_nothing() {
    let memory = disk(summed());
    let fs = Ext::open_mut(memory.clone()).unwrap();
    let before = memory.inner().snapshot();
    let file = lookup(&fs, "file");
    let error = fs.replace(file, &vec![1; 64 << 20]).unwrap_err();
    assert_eq!(error.code(), "ext.space");
    assert_eq!(fs.append(file, &vec![1; 64 << 20]).unwrap_err().code(), "ext.space");
    let big = fs.create(fs.root(), b"new", &Attributes::default(), &vec![1; 64 << 20]);
    assert_eq!(big.unwrap_err().code(), "ext.space");
    assert!(memory.inner().snapshot() == before);
}

#[test]
fn a_file_system_is_filled_to_the_last_block_and_inode() {
    let memory = disk(summed());
    let fs = Ext::open_mut(memory.clone()).unwrap();
    let mut created = 0;
    let error = loop {
        let name = format!("inode-{created}");
        match fs.create(lookup(&fs, "large"), name.as_bytes(), &Attributes::default(), b"") {
            Ok(_) => created += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.code(), "ext.space");
    let left = fs.reading(|view| Ok((view.sb.free_inodes(), view.sb.free_blocks()))).unwrap();
    assert_eq!(left.0, 0, "every inode is used");
    let file = lookup(&fs, "file");
    while fs.append(file, &[9; 20 << 10]).is_ok() {}
    while fs.append(file, &[9; 1 << 10]).is_ok() {}
    assert_eq!(fs.reading(|view| Ok(view.sb.free_blocks())).unwrap(), 0, "every block is used");
    assert_eq!(fs.available().unwrap(), 0);
    fs.sync().unwrap();
    assert_clean(memory.inner().snapshot());
    fs.replace(file, b"short").unwrap();
    assert_clean(memory.inner().snapshot());
}

#[test]
fn what_cannot_be_is_refused() {
    let fs = Ext::open_mut(disk(plain())).unwrap();
    let (root, file, link) = (fs.root(), lookup(&fs, "file"), lookup(&fs, "link"));
    let plain = Attributes::default();
    assert_eq!(fs.create(root, b"file", &plain, b"").unwrap_err().code(), "ext.exists");
    for name in [&b""[..], b".", b"..", b"a/b", b"a\0b", &[b'x'; 256]] {
        assert_eq!(fs.create(root, name, &plain, b"").unwrap_err().code(), "ext.name");
    }
    assert_eq!(fs.symlink(root, b"l", &[b'x'; 1024], &plain).unwrap_err().code(), "ext.name");
    assert_eq!(fs.remove(root, b"nothing").unwrap_err().code(), "ext.not-found");
    assert_eq!(fs.remove(root, b"large").unwrap_err().code(), "ext.name");
    assert_eq!(fs.replace(link, b"x").unwrap_err().code(), "ext.name");
    assert_eq!(fs.replace(root, b"x").unwrap_err().code(), "ext.name");
    assert_eq!(fs.set_xattr(file, b"nonsense", b"x").unwrap_err().code(), "ext.xattr");
    assert_eq!(fs.set_xattr(file, b"user.x", &[0; 2000]).unwrap_err().code(), "ext.xattr");
    assert!(fs.create(file, b"x", &plain, b"").is_err());
    assert_eq!(fs.remove_dir(root, b"file").unwrap_err().code(), "ext.name");
    assert_eq!(fs.remove_dir(root, b"large").unwrap_err().code(), "ext.not-empty");
    for name in [&b"nothing"[..], b".", b".."] {
        assert_eq!(fs.remove_dir(root, name).unwrap_err().code(), "ext.not-found");
        assert_eq!(fs.rename(root, name, root, b"x").unwrap_err().code(), "ext.not-found");
        assert_eq!(fs.remove(root, name).unwrap_err().code(), "ext.not-found");
    }
    let large = lookup(&fs, "large");
    assert_eq!(fs.rename(root, b"file", root, b"link").unwrap_err().code(), "ext.exists");
    assert_eq!(fs.rename(root, b"file", root, b"file").unwrap_err().code(), "ext.exists");
    assert_eq!(fs.rename(root, b"file", root, b"a/b").unwrap_err().code(), "ext.name");
    assert_eq!(fs.rename(root, b"large", large, b"inside").unwrap_err().code(), "ext.name");
    let inner = fs.create_dir(large, b"inner", &plain).unwrap();
    assert_eq!(fs.rename(root, b"large", inner, b"inside").unwrap_err().code(), "ext.name");
    assert_eq!(fs.set_owner(Inode(900), 0, 0, 0).unwrap_err().code(), "ext.corrupt");
    assert_eq!(fs.remove_xattr(file, b"nonsense").unwrap_err().code(), "ext.xattr");
    fs.remove_xattr(file, b"user.none").unwrap();
    assert!(fs.stat(Inode(0)).is_err() && fs.stat(Inode(u64::MAX)).is_err());
    let read_only = Ext::open(disk(super::plain())).unwrap();
    assert_eq!(read_only.writer().unwrap_err().code(), "ext.read-only");
}

#[test]
fn a_parent_that_is_a_loop_or_elsewhere_is_not_followed_for_ever() {
    let memory = disk(plain());
    let fs = Ext::open_mut(memory.clone()).unwrap();
    let none = Attributes::default();
    let a = fs.create_dir(fs.root(), b"a", &none).unwrap();
    let b = fs.create_dir(a, b"b", &none).unwrap();
    fs.create_dir(fs.root(), b"moved", &none).unwrap();
    let good = memory.inner().snapshot();
    let at = block_at(&good, "a", 0);
    for (parent, code) in [(b.0, "ext.corrupt"), (a.0, "ext.corrupt"), (12, "ext.corrupt"), (0, "ext.corrupt")] {
        let mut bytes = good.clone();
        let parent = u32::try_from(parent).unwrap();
        crate::disk::bytes::put32(&mut bytes, at + 12, parent);
        let fs = Ext::open_mut(disk(bytes)).unwrap();
        assert_eq!(fs.rename(fs.root(), b"moved", b, b"x").unwrap_err().code(), code, "{parent}");
    }
}

#[test]
fn an_index_grows_by_a_level() {
    // 1 KiB blocks: the root of an index has room for 123 leaves of some 20 names.
    let memory = disk(make(&["-t", "ext4", "-b", "1024", "-N", "8000"], 32 << 10));
    let fs = Ext::open_mut(memory.clone()).unwrap();
    let large = lookup(&fs, "large");
    for index in 0..5000 {
        let name = format!("{index:05}-{}", "n".repeat(40));
        fs.create(large, name.as_bytes(), &Attributes::default(), b"").unwrap();
    }
    for index in 0..5000 {
        let name = format!("{index:05}-{}", "n".repeat(40));
        assert!(fs.lookup(large, name.as_bytes()).unwrap().is_some(), "{name}");
    }
    let levels = fs.reading(|view| Ok(view.path_to(&view.inode(large)?, b"x")?.frames.len())).unwrap();
    assert_eq!(levels, 2);
    fs.sync().unwrap();
    assert_clean(memory.inner().snapshot());
}

#[test]
fn readers_and_a_writer_share_a_file_system() {
    let fs = Ext::open_mut(disk(summed())).unwrap();
    let (file, large) = (lookup(&fs, "file"), lookup(&fs, "large"));
    std::thread::scope(|scope| {
        scope.spawn(|| (0..50).for_each(|round: u8| fs.replace(file, &vec![round; 20_000]).unwrap()));
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let mut names = 0;
                    fs.read_dir(large, 0, &mut |entry| {
                        names += usize::from(fs.stat(entry.inode).is_ok());
                        ControlFlow::Continue(())
                    })
                    .unwrap();
                    assert_eq!(names, 200);
                }
            });
        }
    });
}
