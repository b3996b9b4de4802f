//! Full file systems: block groups are added while the devices have room, what is said to be available is, and beyond that a call is
//! refused and changes nothing. `btrfs check` and the kernel like what comes of it.

use std::fs;
use std::path::Path;

use hyper2kvm::fs::btrfs::{Btrfs, Usage};
use hyper2kvm::fs::{Attributes, Filesystem};

use super::image::Image;
use super::model::Model;
use super::{SINCE, Shape, shape};
use crate::ext::fill::noise;
use crate::ext::tree;
use crate::support::kernel;
use crate::support::sequences::{self, is_wanted};

/// Each is made on devices of 128 MiB, or 256 MiB where mkfs.btrfs wants them, or nodes are large or many. Without `BTRFS_SHAPES`, which may be `all`, only the first four are.
const SHAPES: &[Shape] = &[
    shape("default", 1, &[], "rw"),
    shape("mixed", 1, &["-M"], "rw"),
    shape("raid0", 2, &["-m", "raid0", "-d", "raid0"], "rw"),
    shape("raid1", 3, &["-m", "raid1", "-d", "raid1"], "rw"),
    shape("node-64k", 1, &["-n", "64k", "--csum", "sha256"], "rw"),
    shape("group-tree", 1, &["-O", "block-group-tree"], "rw"),
    shape("no-features", 1, &["-O", "^no-holes,^skinny-metadata,^extref", "-R", "^free-space-tree"], "rw"),
    shape("dup", 1, &["-m", "dup", "-d", "dup"], "rw"),
    shape("single", 1, &["-m", "single", "-d", "single"], "rw,nodatasum"),
    shape("raid1c34", 4, &["-m", "raid1c4", "-d", "raid1c3"], "rw"),
    shape("raid10", 4, &["-m", "raid10", "-d", "raid10"], "rw"),
];

fn each(work: impl Fn(&Shape, Image) + Sync) {
    let is_wanted = |(index, shape): &(usize, &Shape)| is_wanted("BTRFS", shape.name, *index < 4);
    let wanted = SHAPES.iter().enumerate().filter(is_wanted).filter(|(_, shape)| kernel::knows(shape.options, SINCE));
    sequences::each(wanted, |(_, shape)| {
        eprintln!("{}", shape.name);
        let mib = if ["dup", "node-64k", "raid1c34"].contains(&shape.name) { 256 } else { 128 };
        let image = Image::make(shape.devices, mib, shape.options);
        image.mounted(shape.mount, some_files);
        work(shape, image);
    });
}

fn some_files(root: &Path) {
    for index in 0..300 {
        fs::write(root.join(format!("{index}")), noise(index, 100 + 37 * usize::try_from(index).unwrap())).unwrap();
    }
}

/// Bytes that all groups can hold, by kind.
fn totals(fs: &Btrfs) -> Vec<(&'static str, u64)> {
    fs.usage().unwrap().iter().map(|Usage { kind, total, .. }| (*kind, *total)).collect()
}

fn available(fs: &Btrfs) -> u64 {
    fs.writer().unwrap().available().unwrap()
}

/// Creates files of so many bytes until there is no room. How many.
fn create_until_full(fs: &Btrfs, name: &str, len: usize) -> usize {
    let content = noise(7, len);
    for index in 0.. {
        let name = format!("{name} {index}");
        match fs.writer().unwrap().create(fs.root(), name.as_bytes(), &Attributes::default(), &content) {
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error.code(), "btrfs.space", "{error}");
                assert_eq!(fs.lookup(fs.root(), name.as_bytes()).unwrap(), None);
                return index;
            }
        }
    }
    unreachable!()
}

fn kernel_makes_room(root: &Path) {
    for index in 0..100 {
        fs::remove_file(root.join(format!("{index}"))).unwrap();
    }
    drop(fs::remove_file(root.join("all of it")));
}

#[test]
fn every_shape_is_filled_to_the_last_byte() {
    each(|shape, image| {
        let fs = image.open_mut();
        let (before, free) = (totals(&fs), available(&fs));
        let none = Attributes::default();
        // All but what metadata takes.
        let copies = fs.free().unwrap() / free;
        assert!((1..=4).contains(&copies), "{}: {free} of {}", shape.name, fs.free().unwrap());
        let content = noise(3, usize::try_from(free).unwrap());
        fs.writer().unwrap().create(fs.root(), b"all of it", &none, &content).unwrap();
        fs.writer().unwrap().sync().unwrap();
        let after = totals(&fs);
        let grown = after.iter().zip(&before).filter(|(after, before)| after.1 > before.1).count();
        assert!(grown > 0 && after.len() == before.len(), "{}: {before:?} {after:?}", shape.name);
        image.assert_clean();
        // What is removed can be used again.
        fs.writer().unwrap().remove(fs.root(), b"all of it").unwrap();
        fs.writer().unwrap().create(fs.root(), b"all of it", &none, &content[..content.len() / 2]).unwrap();
        fs.writer().unwrap().sync().unwrap();
        // What is left is room for metadata, which short files have too.
        let counts = [60_000, 5000, 900, 0].map(|len| create_until_full(&fs, &format!("{len}"), len));
        assert!(counts[3] < 20_000 && available(&fs) < 4 << 20, "{}: {counts:?} {}", shape.name, available(&fs));
        let expected = tree::of_driver(&fs);
        fs.writer().unwrap().sync().unwrap();
        tree::assert_same(&tree::of_driver(&image.open()), &expected);
        image.assert_clean();
        image.mounted("ro", |root| tree::assert_same(&expected, &tree::of_kernel(root)));
        image.mounted("rw", kernel_makes_room);
        image.assert_clean();
    });
}

#[test]
fn what_is_refused_for_want_of_room_changes_nothing() {
    each(|shape, image| {
        let fs = image.open_mut();
        let most = usize::try_from(available(&fs).saturating_sub(2 << 20)).unwrap();
        fs.writer().unwrap().create(fs.root(), b"much", &Attributes::default(), &noise(5, most)).unwrap();
        create_until_full(&fs, "more", 60_000);
        let mut model = Model::new(&fs, 0x9e37_79b9_7f4a_7c15);
        for _ in 0..4 {
            model.run(150);
            tree::assert_same(&tree::of_driver(&fs), &model.tree);
            fs.writer().unwrap().sync().unwrap();
        }
        assert!(model.refused > 3, "{}: {}", shape.name, model.refused);
        image.assert_clean();
        image.mounted("ro", |root| tree::assert_same(&model.tree, &tree::of_kernel(root)));
    });
}

/// Makes files until there is no room for content, and then until there is none for metadata; some of each length are there first.
fn fill_up(root: &Path) {
    for (name, len) in LENGTHS {
        (0..6).for_each(|index| fs::write(root.join(format!("{name} {index}")), noise(index, len)).unwrap());
    }
    for (name, len) in LENGTHS {
        let name = |index: u64| root.join(format!("{name} {index}"));
        let last = (6..).find(|index| fs::write(name(*index), noise(*index, len)).is_err()).unwrap();
        drop(fs::remove_file(name(last)));
        rustix::fs::syncfs(fs::File::open(root).unwrap()).unwrap();
    }
}

/// Names that files begin with, and their lengths.
const LENGTHS: [(&str, usize); 3] = [("large", 1 << 20), ("page", 4096), ("short", 1000)];

/// What the kernel filled is made less, as the kernel can.
#[test]
fn what_frees_room_works_where_there_is_none() {
    each(|shape, image| {
        image.mounted(shape.mount, fill_up);
        let mut expected = image.mounted("ro", tree::of_kernel);
        let fs = image.open_mut();
        let writer = fs.writer().unwrap();
        let none = Attributes::default();
        let refused = writer.create(fs.root(), b"no room", &none, &noise(1, 3 << 20)).unwrap_err();
        assert_eq!(refused.code(), "btrfs.space", "{}: {refused}", shape.name);
        for (name, len) in
            [("large 0", 1 << 20), ("large 1", 900_000), ("large 2", 0), ("page 0", 4096), ("short 0", 1000)]
        {
            let content = noise(99, len);
            writer.replace(fs.lookup(fs.root(), name.as_bytes()).unwrap().unwrap(), &content).unwrap();
            let entry = expected.get_mut(name.as_bytes()).unwrap();
            entry.size = Some(content.len() as u64);
            entry.content = Some(blake3::hash(&content));
        }
        for name in ["large 3", "large 4", "page 1", "short 1", "short 2"] {
            writer.remove(fs.root(), name.as_bytes()).unwrap();
            expected.remove(name.as_bytes()).unwrap();
        }
        tree::assert_same(&tree::of_driver(&fs), &expected);
        writer.create(fs.root(), b"room", &none, &noise(1, 1 << 20)).unwrap();
        writer.sync().unwrap();
        let expected = tree::of_driver(&fs);
        image.assert_clean();
        image.mounted("rw", |root| {
            tree::assert_same(&expected, &tree::of_kernel(root));
            kernel_makes_room(root);
        });
        image.assert_clean();
    });
}
