//! Every kind of change to version 4, which this kernel does not mount any more, and to version 5: `xfs_repair` finds nothing.

use super::*;
use crate::error::Kind;
use crate::fs::{Attributes, FileKind, Timestamp};

/// `xfs_repair -n` has nothing to say about the image.
#[allow(clippy::disallowed_methods, reason = "the image that the driver changed")]
fn assert_clean(image: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    std::fs::write(&path, image).unwrap();
    let program = std::process::Command::new("xfs_repair")
        .args(["-n", "-f", "-o", "force_geometry"])
        .arg(&path)
        .env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default()))
        .output()
        .unwrap_or_else(|error| panic!("xfs_repair is needed: {error}"));
    let text = [program.stdout, program.stderr].concat();
    assert!(program.status.success(), "{}", String::from_utf8_lossy(&text));
}

/// Works on an image with the writer; gives what it is afterwards, which is clean.
fn changed(image: &[u8], work: impl FnOnce(&Xfs)) -> Vec<u8> {
    let disk = disk(image.to_vec());
    let fs = Xfs::open_mut(disk.clone()).unwrap();
    work(&fs);
    fs.writer().unwrap().sync().unwrap();
    drop(fs);
    let image = disk.inner().snapshot();
    assert_clean(&image);
    assert_eq!(code(&image), "");
    image
}

fn content(fs: &Xfs, inode: Inode) -> Vec<u8> {
    let mut content = vec![0; fs.stat(inode).unwrap().size as usize];
    assert_eq!(fs.read_at(inode, &mut content, 0).unwrap(), content.len());
    content
}

fn attributes() -> Attributes {
    let time = Timestamp { seconds: 1_700_000_000, nanoseconds: 5 };
    Attributes { mode: 0o640, uid: 3, gid: 4, time, xattrs: vec![(b"security.selinux".to_vec(), b"label".to_vec())] }
}

#[test]
fn files_are_replaced_and_appended_to() {
    for image in [plain(), summed()] {
        for len in [30_000_usize, 10, 0, 200_000, 31_000] {
            changed(&image, |fs| {
                let (file, new) = (lookup(fs, "file"), vec![9; len]);
                let before = (fs.stat(file).unwrap(), fs.xattrs(file).unwrap());
                fs.writer().unwrap().replace(file, &new).unwrap();
                assert_eq!(content(fs, file), new);
                fs.writer().unwrap().append(file, &[8; 5000]).unwrap();
                assert_eq!(content(fs, file), [new, vec![8; 5000]].concat());
                let after = fs.stat(file).unwrap();
                assert_eq!((after.mode, after.links, after.mtime), (before.0.mode, before.0.links, before.0.mtime));
                assert_eq!(fs.xattrs(file).unwrap(), before.1);
            });
        }
    }
}

#[test]
fn a_rewrite_of_the_same_length_changes_nothing_but_content() {
    for image in [plain(), summed()] {
        let inode = inode_at(&image, "file");
        let data = block_at(&image, "file", Fork::Data, 0);
        let after = changed(&image, |fs| fs.writer().unwrap().replace(lookup(fs, "file"), &[1; 30_000]).unwrap());
        let changed = (0..image.len()).filter(|at| image[*at] != after[*at]);
        let outside = changed.filter(|at| !(data..data + 30_000).contains(at) && !(inode..inode + 512).contains(at));
        assert_eq!(outside.count(), 0);
    }
}

#[test]
fn directories_grow_through_all_forms_and_shrink_again() {
    for image in [plain(), summed()] {
        let before = Xfs::open(disk(image.clone())).unwrap().free().unwrap();
        let name = |index: usize| format!("{index}-{}", "n".repeat(index % 60)).into_bytes();
        let mut image = changed(&image, |fs| {
            let writer = fs.writer().unwrap();
            let dir = writer.create_dir(fs.root(), b"new", &attributes()).unwrap();
            assert_eq!(fs.stat(fs.root()).unwrap().links, 7);
            for index in 0..900 {
                writer.create(dir, &name(index), &attributes(), b"content").unwrap();
            }
            (0..900).for_each(|index| assert!(fs.lookup(dir, &name(index)).unwrap().is_some()));
        });
        for range in [0..300, 300..700, 700..890, 890..900] {
            image = changed(&image, |fs| {
                let dir = lookup(fs, "new");
                range.clone().for_each(|index| fs.writer().unwrap().remove(dir, &name(index)).unwrap());
                let mut left = 0;
                fs.read_dir(dir, 0, &mut |_| {
                    left += 1;
                    ControlFlow::Continue(())
                })
                .unwrap();
                assert_eq!(left, 900 - range.end);
            });
        }
        image = changed(&image, |fs| fs.writer().unwrap().remove_dir(fs.root(), b"new").unwrap());
        let fs = Xfs::open(disk(image)).unwrap();
        assert_eq!(fs.stat(fs.root()).unwrap().links, 6);
        // Chunks of inodes stay.
        assert!(fs.free().unwrap() <= before && fs.free().unwrap() + (960 * 512) + (64 << 10) > before);
    }
}

#[test]
fn links_names_and_attributes() {
    for image in [plain(), summed()] {
        let image = changed(&image, |fs| {
            let writer = fs.writer().unwrap();
            for len in [10, 100, 300, 900, 1023] {
                let (name, target) = (format!("link-{len}"), vec![b'x'; len]);
                let link = writer.symlink(fs.root(), name.as_bytes(), &target, &attributes()).unwrap();
                assert_eq!(fs.read_link(link).unwrap(), target);
                for value in [20, 200] {
                    writer.set_xattr(link, b"trusted.later", &vec![7; value]).unwrap();
                    assert_eq!(fs.xattrs(link).unwrap().len(), 2);
                }
                assert_eq!(fs.read_link(link).unwrap(), target);
            }
            let (leaf, node, file) = (lookup(fs, "leaf"), lookup(fs, "node"), lookup(fs, "file"));
            writer.rename(fs.root(), b"short", node, b"moved").unwrap();
            writer.rename(leaf, b"7-a-name-that-takes-some-room", fs.root(), b"seven").unwrap();
            writer.rename(leaf, b"8-a-name-that-takes-some-room", leaf, b"eight").unwrap();
            assert_eq!(fs.lookup(lookup(fs, "node/moved"), b"one").unwrap(), Some(lookup(fs, "node/moved/one")));
            assert_eq!((fs.stat(node).unwrap().links, fs.stat(fs.root()).unwrap().links), (3, 5));
            for len in [0, 200, 900, 3000, 20_000, 65_536] {
                writer.set_xattr(file, b"user.value", &vec![5; len]).unwrap();
                let all = fs.xattrs(file).unwrap();
                assert_eq!(all.iter().find(|(name, _)| name == b"user.value").unwrap().1.len(), len);
                assert_eq!(all.len(), 41);
            }
            writer.remove_xattr(file, b"user.nothing").unwrap();
        });
        changed(&image, |fs| {
            let (writer, file) = (fs.writer().unwrap(), lookup(fs, "file"));
            for (name, _) in fs.xattrs(file).unwrap() {
                writer.remove_xattr(file, &name).unwrap();
            }
            assert!(fs.xattrs(file).unwrap().is_empty());
            let entry = |tag: u8, rights: u8| [tag, 0, rights, 0, 255, 255, 255, 255];
            let acl = [&[2, 0, 0, 0][..], &entry(1, 6), &entry(4, 4), &entry(0x20, 0)].concat();
            writer.set_xattr(file, b"system.posix_acl_access", &acl).unwrap();
            assert_eq!(fs.xattrs(file).unwrap()[0], (b"system.posix_acl_access".to_vec(), acl));
            writer.set_owner(file, 0o4711, 70_000, 80_000).unwrap();
            let stat = fs.stat(file).unwrap();
            assert_eq!((stat.mode, stat.uid, stat.gid, stat.kind), (0o4711, 70_000, 80_000, FileKind::Regular));
        });
    }
}

#[test]
fn what_fails_changes_nothing() {
    let image = summed();
    let disk = disk(image.clone());
    let fs = Xfs::open_mut(disk.clone()).unwrap();
    let (writer, root, file) = (fs.writer().unwrap(), fs.root(), lookup(&fs, "file"));
    let none = Attributes::default();
    let node = lookup(&fs, "node");
    let errors = [
        writer.create(root, b"file", &none, b"").unwrap_err(),
        writer.create(root, b"a/b", &none, b"").unwrap_err(),
        writer.create(root, b"..", &none, b"").unwrap_err(),
        writer.create(file, b"b", &none, b"").unwrap_err(),
        writer.create(root, b"huge", &none, &vec![1; 20 << 20]).unwrap_err(),
        writer.replace(root, b"").unwrap_err(),
        writer.remove(root, b"nothing").unwrap_err(),
        writer.remove(root, b"node").unwrap_err(),
        writer.remove_dir(root, b"node").unwrap_err(),
        writer.remove_dir(root, b"file").unwrap_err(),
        writer.rename(root, b"node", node, b"self").unwrap_err(),
        writer.rename(root, b"node", root, b"leaf").unwrap_err(),
        writer.symlink(root, b"long", &[1; 1024], &none).unwrap_err(),
        writer.set_xattr(file, b"system.other", b"").unwrap_err(),
        writer.set_xattr(file, b"user.", b"").unwrap_err(),
        writer.set_xattr(file, b"user.long", &vec![0; 65_537]).unwrap_err(),
    ];
    let codes: Vec<&str> = errors.iter().map(Error::code).collect();
    let expected = "xfs.exists xfs.name xfs.name xfs.name xfs.space xfs.name xfs.not-found xfs.name xfs.name xfs.name \
                    xfs.name xfs.exists xfs.name xfs.name xfs.name xfs.limit";
    assert_eq!(codes.join(" "), expected);
    assert_eq!(errors[4].kind(), Kind::NoSpace);
    assert!(disk.inner().snapshot() == image);
    assert!(writer.available().unwrap() < fs.free().unwrap());
}

#[test]
fn a_full_file_system_says_so_and_stays_clean() {
    for image in [plain(), summed()] {
        let image = changed(&image, |fs| {
            let writer = fs.writer().unwrap();
            let refused = (0..2000).find_map(|index| {
                let name = format!("fill-{index}");
                writer.create(fs.root(), name.as_bytes(), &attributes(), &vec![1; 30_000 + index]).err()
            });
            assert_eq!(refused.unwrap().code(), "xfs.space");
            assert!(writer.available().unwrap() < 64 << 10);
        });
        changed(&image, |fs| {
            (0..50).for_each(|index| {
                fs.writer().unwrap().remove(fs.root(), format!("fill-{index}").as_bytes()).unwrap();
            });
        });
    }
}

/// Trees that were damaged are never written on.
#[test]
fn damaged_trees_are_refused() {
    // AGF: root and levels by block, by size; counts of free blocks and of the list; AGI: root, levels.
    for (sector, at, value) in [
        (1, 16, 0xffff),
        (1, 16, 0),
        (1, 20, 7),
        (1, 28, 0),
        (1, 28, 99),
        (1, 32, 2),
        (1, 48, 0),
        (1, 48, 127),
        (2, 20, 0),
        (2, 20, 9),
        (2, 24, 3),
    ] {
        let mut image = plain();
        put_be32(&mut image, sector * 512 + at, value);
        let target = disk(image.clone());
        let fs = Xfs::open_mut(target.clone()).unwrap();
        // Enough to need a chunk of inodes, and blocks for trees.
        let done = (0..80).try_for_each(|index| {
            let name = format!("new-{index}");
            fs.writer()?.create(fs.root(), name.as_bytes(), &attributes(), &[1; 3000]).map(drop)
        });
        let error = done.err();
        let is_known = error.as_ref().is_none_or(|error| matches!(error.kind(), Kind::Corrupt | Kind::NoSpace));
        assert!(is_known, "{sector} {at} {value}: {error:?}");
        // A list that is too short is filled.
        assert!(error.is_some() || at == 48, "{sector} {at} {value}");
    }
}

/// Kernels before 4.5 have a place less in the ring of free blocks of version 5, and refuse one that reaches the last place.
#[test]
fn rings_of_older_kernels_are_read_and_left_as_all_kernels_read_them() {
    for (places, first) in [(118, 116), (119, 117), (119, 115), (118, 0)] {
        let mut image = summed();
        let (agf, agfl) = (512, 3 * 512);
        let [old_first, count] = [40, 48].map(|at| be32(&image, agf + at) as usize);
        let blocks: Vec<u32> = (0..count).map(|i| be32(&image, agfl + 36 + (old_first + i) % 119 * 4)).collect();
        put(&mut image, agfl + 36, &[0xff; 119 * 4]);
        for (index, block) in blocks.iter().enumerate() {
            put_be32(&mut image, agfl + 36 + (first + index) % places * 4, *block);
        }
        put_be32(&mut image, agf + 40, first as u32);
        put_be32(&mut image, agf + 44, ((first + count - 1) % places) as u32);
        block::seal(&mut image[agf..agf + 512], 216);
        block::seal(&mut image[agfl..agfl + 512], 32);
        let after = changed(&image, |fs| {
            for index in 0..200 {
                let name = format!("new-{index}");
                fs.writer().unwrap().create(fs.root(), name.as_bytes(), &attributes(), &[7; 1500]).unwrap();
            }
        });
        let [new_first, last, count] = [40, 44, 48].map(|at| be32(&after, agf + at));
        assert!(new_first == 0 && last + 1 == count && last < 117, "{new_first} {last} {count}");
    }
}

/// Some of every kind of change.
fn changes(fs: &Xfs) -> Result<()> {
    let writer = fs.writer()?;
    let find = |dir, name: &str| fs.lookup(dir, name.as_bytes())?.ok_or_else(|| corrupt("not there"));
    let (root, file) = (fs.root(), find(fs.root(), "file")?);
    writer.replace(file, &[1; 12_345])?;
    writer.append(file, &[2; 30_000])?;
    writer.set_xattr(file, b"user.x", &[3; 2000])?;
    let dir = writer.create_dir(root, b"new-dir", &attributes())?;
    for index in 0..6 {
        writer.create(dir, format!("{index:0100}").as_bytes(), &attributes(), &[index; 500])?;
    }
    writer.rename(root, b"file", dir, b"moved")?;
    writer.remove(dir, format!("{:0100}", 3).as_bytes())?;
    writer.symlink(dir, b"to", &[b't'; 700], &attributes())?;
    writer.sync()
}

/// Whichever read or write fails: what was stored until then is sound, or nothing is written any more and nothing is free.
#[test]
fn a_failure_of_any_read_or_write_is_noticed_and_never_written_upon() {
    let memory = std::sync::Mutex::new(disk(Vec::new()));
    let stopped = std::sync::atomic::AtomicU64::new(0);
    let calls = crate::disk::until_it_succeeds(
        2000,
        |n, calls| {
            let disk = disk(summed());
            *memory.lock().unwrap() = disk.clone();
            let faulty: Arc<dyn DiskMut> = Checked::wrap(crate::disk::Fault::nth_mut(disk, Arc::clone(calls), n));
            let fs = Xfs::open_mut(faulty)?;
            let done = changes(&fs);
            if done.is_err() {
                let next = fs.writer()?.create(fs.root(), b"next", &attributes(), b"more");
                let free = fs.free_ranges(&mut |_| ControlFlow::Break(()));
                match next {
                    Ok(_) => free.unwrap(),
                    Err(error) => {
                        assert_eq!(error.code(), "xfs.aborted", "{n}: {error}");
                        let codes = [fs.writer()?.sync().unwrap_err().code(), free.unwrap_err().code()];
                        assert_eq!(codes, ["xfs.aborted"; 2]);
                        stopped.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        *memory.lock().unwrap() = self::disk(Vec::new());
                    }
                }
            }
            done
        },
        |n| {
            let image = memory.lock().unwrap().inner().snapshot();
            if !image.is_empty() && n % 40 == 0 {
                assert_clean(&image);
            }
        },
    );
    assert!(calls.unwrap() > 50 && stopped.into_inner() > 10);
}

/// A target that attributes drove out of the inode comes back when they go, or become fewer or too many to be beside it.
#[test]
fn the_target_of_a_link_is_in_the_inode_whenever_it_has_room() {
    for image in [plain(), summed()] {
        for (target, counts) in
            [(250, [1, 0]), (300, [1, 0]), (250, [9, 0]), (250, [9, 1]), (120, [3, 60]), (200, [2, 60])]
        {
            let after = changed(&image, |fs| {
                let writer = fs.writer().unwrap();
                let link = writer.symlink(fs.root(), b"to", &vec![b't'; target], &Attributes::default()).unwrap();
                let [more, fewer] = counts;
                (0..more).for_each(|n| writer.set_xattr(link, format!("trusted.{n}").as_bytes(), &[7; 50]).unwrap());
                (fewer..more).for_each(|n| writer.remove_xattr(link, format!("trusted.{n}").as_bytes()).unwrap());
                (more..fewer)
                    .for_each(|n| writer.set_xattr(link, format!("trusted.{n}").as_bytes(), &[7; 50]).unwrap());
                assert_eq!(fs.read_link(link).unwrap(), vec![b't'; target]);
                assert_eq!(fs.xattrs(link).unwrap().len(), fewer);
            });
            let fs = Xfs::open(disk(after)).unwrap();
            assert_eq!(fs.read_link(lookup(&fs, "to")).unwrap(), vec![b't'; target]);
        }
    }
}
