//! What btrfs has beyond the tree that the ext tests make.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{FallocateFlags, XattrFlags, fallocate, ioctl_ficlone, lsetxattr};

use crate::ext::fill::{everything, noise};
use crate::support::tools;

/// Fills a mounted file system.
pub(crate) fn all(root: &Path) {
    everything(root, true);
    more(root);
}

/// The same with fewer and smaller files.
pub(crate) fn little(root: &Path) {
    everything(root, false);
    more(root);
}

fn more(root: &Path) {
    collisions(root);
    extents(root);
    inline(root);
    many_links(root);
    volumes(root);
}

/// Text that every compression makes shorter.
pub(crate) fn text(seed: u64, len: usize) -> Vec<u8> {
    let words = noise(seed, len / 4 + 1);
    words.iter().flat_map(|byte| format!("{:02} ", byte % 50).into_bytes()).cycle().take(len).collect()
}

/// Names whose hashes are the same.
const COLLISIONS: &[(&str, &str)] = &[
    ("f1876cb36e292d8f", "cbc7c5238280b586"),
    ("e79410ced399f722", "458e05e4fba372b8"),
    ("bd72a2943e0eb857", "129819f9d38cc892"),
];

/// Names whose hashes are the same share an item.
fn collisions(root: &Path) {
    let dir = root.join("collisions");
    fs::create_dir(&dir).unwrap();
    for (one, other) in COLLISIONS {
        assert_eq!(crc32c::crc32c_append(1, one.as_bytes()), crc32c::crc32c_append(1, other.as_bytes()));
        for name in [one, other] {
            fs::write(dir.join(name), name).unwrap();
            lsetxattr(&dir, format!("user.{name}"), name.as_bytes(), XattrFlags::empty()).unwrap();
        }
        // What is left of an item keeps its place.
        fs::write(dir.join("removed"), one).unwrap();
    }
    fs::remove_file(dir.join(COLLISIONS[0].0)).unwrap();
}

fn extents(root: &Path) {
    let dir = root.join("extents");
    fs::create_dir(&dir).unwrap();
    for (index, len) in [5_000, 40_000, 131_072, 131_073, 500_000, 3_000_001].into_iter().enumerate() {
        fs::write(dir.join(format!("text-{len}")), text(index as u64, len)).unwrap();
    }
    // Overwritten in the middle, so that extents are used in part.
    let file = File::options().write(true).open(dir.join("text-500000")).unwrap();
    rustix::fs::fsync(&file).unwrap();
    for offset in [4096, 70_000, 131_072, 300_001] {
        file.write_all_at(&noise(offset, 5000), offset).unwrap();
        rustix::fs::fsync(&file).unwrap();
    }
    file.set_len(480_123).unwrap();
    let from = File::open(dir.join("text-3000001")).unwrap();
    let clone = File::create(dir.join("reflinked")).unwrap();
    ioctl_ficlone(&clone, &from).unwrap();
    clone.write_all_at(b"changed", 1_000_000).unwrap();
    let prealloc = File::create(dir.join("prealloc")).unwrap();
    fallocate(&prealloc, FallocateFlags::empty(), 0, 1 << 20).unwrap();
    prealloc.write_all_at(&noise(1, 10_000), 300_000).unwrap();
    let holes = File::create(dir.join("holes")).unwrap();
    holes.write_all_at(&noise(2, 1 << 20), 0).unwrap();
    fallocate(&holes, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 100_000, 300_000).unwrap();
    let nocow = dir.join("nocow");
    File::create(&nocow).unwrap();
    tools::ok("chattr", ["+C".as_ref(), nocow.as_os_str()]);
    fs::write(&nocow, noise(3, 200_000)).unwrap();
    let property = dir.join("property");
    File::create(&property).unwrap();
    // Not where nothing has a checksum.
    tools::output("btrfs", ["property", "set", property.to_str().unwrap(), "compression", "zlib"]);
    fs::write(&property, text(9, 300_000)).unwrap();
    folders(root);
}

/// Folders whose files are compressed in some way, or not, or are not copied on write.
pub(crate) fn folders(root: &Path) {
    for name in ["zlib", "lzo", "zstd", "none"] {
        let dir = root.join(format!("folder-{name}"));
        fs::create_dir(&dir).unwrap();
        btrfs(&["property", "set"], &[&dir, "compression".as_ref(), name.as_ref()]);
    }
    let dir = root.join("folder-nocow");
    fs::create_dir(&dir).unwrap();
    tools::ok("chattr", ["+C".as_ref(), dir.as_os_str()]);
}

fn inline(root: &Path) {
    let dir = root.join("inline");
    fs::create_dir(&dir).unwrap();
    for len in [0, 1, 100, 1000, 2000, 2047, 2048, 2049, 3000, 3900, 4095, 4096] {
        fs::write(dir.join(format!("noise-{len}")), noise(7, len)).unwrap();
        fs::write(dir.join(format!("text-{len}")), text(7, len)).unwrap();
    }
    // An inline file that was made longer.
    let file = dir.join("longer");
    fs::write(&file, "short").unwrap();
    rustix::fs::syncfs(File::open(root).unwrap()).unwrap();
    File::options().write(true).open(&file).unwrap().set_len(10_000).unwrap();
    tools::ok("ln", ["--symbolic".as_ref(), "x".repeat(3900).as_ref(), dir.join("long-link").as_os_str()]);
}

/// More links than one item has room for.
fn many_links(root: &Path) {
    let dir = root.join("links");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("0"), "linked").unwrap();
    for index in 1..60 {
        fs::hard_link(dir.join("0"), dir.join(format!("{index}"))).unwrap();
    }
}

/// Runs `btrfs` with a path as the last argument.
pub(crate) fn btrfs(words: &[&str], paths: &[&Path]) -> String {
    tools::ok("btrfs", words.iter().map(Path::new).chain(paths.iter().copied()))
}

/// Subvolumes in subvolumes, a snapshot of one that has others in it, a removed one, and inodes of the same numbers in all.
fn volumes(root: &Path) {
    let at = |name: &str| root.join(name);
    for name in ["@", "@/var", "@/var/lib", "@home", "gone"] {
        btrfs(&["subvolume", "create"], &[&at(name)]);
        fs::write(at(name).join("file"), name).unwrap();
        fs::create_dir(at(name).join("dir")).unwrap();
        fs::write(at(name).join("dir/deeper"), noise(name.len() as u64, 10_000)).unwrap();
    }
    btrfs(&["subvolume", "snapshot"], &[&at("@"), &at("@home/dir/snapshot")]);
    btrfs(&["subvolume", "snapshot", "-r"], &[&at("@"), &at("read-only")]);
    btrfs(&["subvolume", "delete"], &[&at("gone")]);
    fs::write(at("@/file"), "changed after the snapshot").unwrap();
    fs::create_dir(at("plain")).unwrap();
    btrfs(&["subvolume", "create"], &[&at("plain/inner")]);
    fs::rename(at("plain/inner"), at("plain/renamed")).unwrap();
}
