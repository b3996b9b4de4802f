//! Each bound of `limits` at, below and above it.

use super::*;
use crate::disk::Zero;
use crate::disk::bytes::{put_be32, put16, put32};
use crate::limits::*;

/// A superblock without checksums of `blocks` blocks of 4 KiB in groups of 8 blocks with 8 inodes.
fn superblock(blocks: u64) -> Vec<u8> {
    let mut raw = vec![0; superblock::LEN];
    let groups = blocks.div_ceil(8);
    for (at, value) in [
        (0x0, groups * 8),
        (0x4, blocks & 0xffff_ffff),
        (0x18, 2),
        (0x20, 8),
        (0x28, 8),
        (0x4c, 1),
        (0x54, 11),
        (0x60, 0x80),
        (0x150, blocks >> 32),
    ] {
        put32(&mut raw, at, u32::try_from(value & 0xffff_ffff).unwrap());
    }
    put16(&mut raw, 0x38, 0xef53);
    put16(&mut raw, 0x58, 256);
    put16(&mut raw, 0xfe, 64);
    raw
}

#[test]
fn groups() {
    for (groups, accepted) in [(MAX_EXT_GROUPS - 1, true), (MAX_EXT_GROUPS, true), (MAX_EXT_GROUPS + 1, false)] {
        let parsed = Superblock::parse(&superblock(groups * 8), u64::MAX);
        assert_eq!(parsed.is_ok(), accepted, "{groups}");
    }
}

#[test]
fn directory_bytes() {
    let sb = Superblock::parse(&superblock(1 << 20), u64::MAX).unwrap();
    let blocks = Blocks::new(Checked::wrap(Zero { len: 1 << 32 }), None, &sb);
    let view = View::new(&blocks, Arc::new(sb));
    for (len, accepted) in [(MAX_EXT_DIR - 4096, true), (MAX_EXT_DIR, true), (MAX_EXT_DIR + 4096, false)] {
        let mut dir = Node::new(&view.sb, 12, FileKind::Directory);
        dir.set_size(len);
        assert_eq!(view.dir_blocks(&dir).is_ok(), accepted, "{len}");
    }
}

#[test]
fn runs_and_tables_of_a_file() {
    let mut image = mapped();
    let at = inode_at(&image, "sparse") + 0x28;
    // One table of content, whose blocks never join, is reached over and over through three levels.
    let tables: Vec<usize> = (0..3).map(|index| block_at(&image, "file", index)).collect();
    for slot in 0..256 {
        put32(&mut image, tables[0] + slot * 4, u32::try_from(3000 + slot % 2 * 10).unwrap());
        put32(&mut image, tables[1] + slot * 4, u32::try_from(tables[0] / 1024).unwrap());
        put32(&mut image, tables[2] + slot * 4, u32::try_from(tables[1] / 1024).unwrap());
    }
    put32(&mut image, at + 48, 0);
    put32(&mut image, at + 56, u32::try_from(tables[2] / 1024).unwrap());
    let fs = Ext::open(disk(image)).unwrap();
    let inode = lookup(&fs, "sparse");
    let base = 12 + 256 + 65536;
    fs.reading(|view| {
        let node = view.inode(inode)?;
        let held = |end: u64| view.pieces(&node, base..base + end).map(|(runs, tables)| runs.len() + tables.len());
        // Two tables on the way, and one more for each 256 blocks and each 65,536.
        let counted = |end: u64| 1 + end + end.div_ceil(256) + end.div_ceil(65536);
        let most = (1..).take_while(|end| counted(*end) <= MAX_EXT_RUNS as u64).last().unwrap();
        assert_eq!(held(most - 1).unwrap() as u64, counted(most - 1));
        assert_eq!(held(most).unwrap() as u64, counted(most));
        assert_eq!(held(most + 1).unwrap_err().code(), "ext.limit");
        Ok(())
    })
    .unwrap();
}

#[test]
fn revoked_blocks() {
    // A journal of one transaction that revokes as many blocks, 1,020 in each block of the log.
    let image = make(&["-t", "ext4", "-b", "4096", "-J", "size=8", "-O", "^metadata_csum,^64bit"], 24 << 10);
    let blocks = MAX_EXT_REVOKED.div_ceil(1020) as u64 + 2;
    let fs = Ext::open(disk(image.clone())).unwrap();
    let log: Vec<usize> = fs
        .reading(|view| {
            let node = view.node(8)?;
            (0..=blocks).map(|block| Ok(view.physical(&node, block)?.unwrap() as usize * 4096)).collect()
        })
        .unwrap();
    drop(fs);
    let header = log[0];
    for (count, accepted) in [(MAX_EXT_REVOKED - 1, true), (MAX_EXT_REVOKED, true), (MAX_EXT_REVOKED + 1, false)] {
        let mut image = image.clone();
        image[1024 + 0x60] |= 4;
        put_be32(&mut image, header + 0x18, 1);
        put_be32(&mut image, header + 0x1c, 1);
        put_be32(&mut image, header + 0x28, 1);
        let all: Vec<u32> = (1..=u32::try_from(count).unwrap()).collect();
        let mut places = log[1..].iter();
        for list in all.chunks(1020) {
            let at = places.next().unwrap();
            let fields = [journal::MAGIC, 5, 1, 16 + 4 * u32::try_from(list.len()).unwrap()];
            for (slot, value) in fields.iter().chain(list).enumerate() {
                put_be32(&mut image, at + slot * 4, *value);
            }
        }
        let at = places.next().unwrap();
        for (slot, value) in [journal::MAGIC, 2, 1].into_iter().enumerate() {
            put_be32(&mut image, at + slot * 4, value);
        }
        let fs = Ext::open_mut(disk(image)).unwrap();
        assert_eq!(fs.writer().map_err(|error| error.code()).err(), (!accepted).then_some("ext.limit"), "{count}");
    }
}

#[test]
fn inline_bytes() {
    let sb = Superblock::parse(&superblock(1024), u64::MAX).unwrap();
    let blocks = Blocks::new(Checked::wrap(Zero { len: 1 << 30 }), None, &sb);
    let view = View::new(&blocks, Arc::new(sb));
    let bound = MAX_EXT_INLINE as u64;
    for (len, accepted) in [(bound - 1, true), (bound, true), (bound + 1, false)] {
        let mut node = Node::new(&view.sb, 12, FileKind::Regular);
        node.set_size(len);
        assert_eq!(view.read_inline(&node, &mut [0], len - 1).is_ok(), accepted, "{len}");
    }
}

#[test]
fn attribute_bytes() {
    for (len, accepted) in [(MAX_EXT_XATTR - 1, true), (MAX_EXT_XATTR, true), (MAX_EXT_XATTR + 1, false)] {
        let mut image = plain();
        // The file `sparse` becomes the value of an attribute of `file`.
        let number = lookup(&Ext::open(disk(image.clone())).unwrap(), "sparse").0;
        let (value, file) = (inode_at(&image, "sparse"), inode_at(&image, "file"));
        let flags =
            u32::from_le_bytes([image[value + 0x20], image[value + 0x21], image[value + 0x22], image[value + 0x23]]);
        put32(&mut image, value + 0x20, flags | node::FLAG_EA_INODE);
        put32(&mut image, value + 0x4, len);
        put32(&mut image, file + 160, 0xea02_0000);
        image[file + 164..file + 168].copy_from_slice(&[4, 1, 0, 0]);
        put32(&mut image, file + 168, u32::try_from(number).unwrap());
        put32(&mut image, file + 172, len);
        image[file + 180..file + 184].copy_from_slice(b"name");
        let fs = Ext::open(disk(image)).unwrap();
        let xattrs = fs.xattrs(lookup(&fs, "file"));
        assert_eq!(xattrs.is_ok(), accepted, "{len}");
        if accepted {
            assert_eq!(xattrs.unwrap()[0].1.len(), len as usize);
        }
    }
}

#[test]
fn cached_bytes() {
    let sb = Superblock::parse(&superblock(1 << 14), u64::MAX).unwrap();
    let blocks = Blocks::new(Checked::wrap(Zero { len: 1 << 30 }), None, &sb);
    let view = View::new(&blocks, Arc::new(sb));
    for number in 0..EXT_CACHE / 4096 * 3 {
        view.block(number).unwrap();
        assert!(blocks.cached_bytes() <= EXT_CACHE);
    }
    assert!(blocks.cached_bytes() > 0);
}

/// A disk that only measures what is written to it.
#[derive(Debug)]
struct Gauge(std::sync::atomic::AtomicU64);

impl Disk for Gauge {
    fn len(&self) -> u64 {
        1 << 30
    }
    fn read_at(&self, buf: &mut [u8], _: u64) -> Result<()> {
        buf.fill(0);
        Ok(())
    }
    fn extents(&self, _: Range<u64>, _: &mut crate::disk::Visit<'_>) -> Result<()> {
        Ok(())
    }
    fn fingerprint(&self) -> Result<crate::disk::Fingerprint> {
        Ok(crate::disk::Fingerprint::of(&[]))
    }
    fn describe(&self) -> (&'static str, String) {
        ("gauge", String::new())
    }
}

impl DiskMut for Gauge {
    fn write_at(&self, data: &[u8], _: u64) -> Result<()> {
        self.0.fetch_max(data.len() as u64, std::sync::atomic::Ordering::Relaxed);
        Ok(())
    }
    fn zero(&self, _: Range<u64>) -> Result<()> {
        Ok(())
    }
    fn flush(&self) -> Result<()> {
        Ok(())
    }
}

#[test]
fn written_bytes() {
    for (blocks_written, largest) in [(255, 255), (256, 256), (257, 256)] {
        let sb = Superblock::parse(&superblock(1 << 14), u64::MAX).unwrap();
        let gauge = Arc::new(Gauge(std::sync::atomic::AtomicU64::new(0)));
        let blocks = Blocks::new(gauge.clone(), Some(gauge.clone()), &sb);
        let mut view = View::new(&blocks, Arc::new(sb));
        (0..blocks_written).for_each(|number| view.put(number, vec![1; 4096]));
        view.commit().unwrap();
        assert_eq!(gauge.0.load(std::sync::atomic::Ordering::Relaxed), largest * 4096);
        assert!(largest * 4096 <= EXT_WRITE);
    }
}
