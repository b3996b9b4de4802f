//! Metadata that contradicts itself below right checksums: changes to such file systems end, in an error or not.

use super::*;
use crate::disk::bytes::{be16, put_be64};
use crate::fs::xfs::{block, node};
use crate::fs::{Attributes, FileKind};

/// With all trees.
fn all_trees() -> Vec<u8> {
    static IMAGE: OnceLock<Vec<u8>> = OnceLock::new();
    IMAGE.get_or_init(|| make(&["-m", "rmapbt=1", "-i", "nrext64=1"], true)).clone()
}

/// A small generator, so that a failure can be repeated from its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

/// Where metadata lies, how long it is, and where its checksum is.
fn places(image: &[u8]) -> Vec<(usize, usize, usize)> {
    let mut places = Vec::new();
    for at in (512..image.len()).step_by(512) {
        let bytes = &image[at..image.len().min(at + 1024)];
        match block::layout(bytes) {
            Some(layout) if be32(bytes, 0) == block::AGFL || layout.crc > 200 => places.push((at, 512, layout.crc)),
            Some(layout) if bytes.len() == 1024 && at % 1024 == 0 => places.push((at, 1024, layout.crc)),
            _ if be16(bytes, 0) == node::MAGIC && bytes[2] != 0 => places.push((at, 512, block::INODE_CRC)),
            _ => {}
        }
    }
    places
}

fn damage(image: &mut [u8], places: &[(usize, usize, usize)], random: &mut Random) {
    for _ in 0..1 + random.below(3) {
        let (at, len, crc) = places[random.below(places.len())];
        let field = if random.below(3) == 0 { random.below(len - 8) } else { random.below(96) };
        let value = match random.below(5) {
            0 => 0,
            1 => u64::MAX,
            2 => 1 << random.below(64),
            3 => random.below(300) as u64,
            _ => random.0,
        };
        let piece = &mut image[at..at + len];
        match random.below(3) {
            0 => put(piece, field, &[value as u8]),
            1 => put_be32(piece, field & !3, value as u32),
            _ => put_be64(piece, field & !7, value),
        }
        block::seal(piece, crc);
    }
}

/// Changes what it meets, within a caller's bounds.
fn change(fs: &Xfs, random: &mut Random) {
    let Ok(writer) = fs.writer() else { return };
    let (mut pending, mut left) = (vec![fs.root()], 40);
    while let Some(inode) = pending.pop().filter(|_| left > 0) {
        left -= 1;
        let is_dir = fs.stat(inode).is_ok_and(|stat| stat.kind == FileKind::Directory);
        let mut names = Vec::new();
        let _ = fs.read_dir(inode, 0, &mut |entry| {
            if names.len() < 8 {
                pending.push(entry.inode);
            }
            names.push(entry.name);
            if names.len() > 700 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        if is_dir {
            let name = format!("a-new-name-{}", random.below(1000));
            let _ = writer.create(inode, name.as_bytes(), &Attributes::default(), &vec![1; random.below(20_000)]);
            let _ = writer.symlink(inode, b"to", &vec![b't'; 900], &Attributes::default());
            if let Some(name) = (!names.is_empty()).then(|| &names[random.below(names.len())]) {
                let _ = writer.rename(inode, name, fs.root(), b"moved").or(writer.remove(inode, name));
                let _ = writer.remove_dir(inode, name);
            }
        } else {
            let _ = (writer.append(inode, &[2; 3000]), writer.replace(inode, &vec![3; random.below(9000)]));
        }
        let _ = writer.set_xattr(inode, b"user.x", &vec![4; random.below(2000)]);
        let _ = (writer.remove_xattr(inode, b"user.x"), writer.available(), fs.free());
    }
}

#[test]
fn changes_to_damaged_file_systems_end() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let first = number("XFS_FIRST_SEED").unwrap_or(1);
    for image in [summed(), all_trees()] {
        let places = places(&image);
        assert!(places.len() > 50);
        for seed in first..first + number("XFS_DAMAGED").unwrap_or(40) {
            let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
            let mut image = image.clone();
            damage(&mut image, &places, &mut random);
            let _ = Xfs::open_mut(disk(image)).map(|fs| change(&fs, &mut random));
        }
    }
}
