//! Images of file systems that programs make, and damage to them that checksums do not show.

use std::process::Command;

/// What a Bash script prints, given one argument.
pub fn made(script: &str, argument: &str) -> Vec<u8> {
    let start =
        "d=$(mktemp -d); trap 'rm -r $d' EXIT; PATH=$PATH:/usr/sbin; head -c 30000 /dev/zero >$d/c; exec 2>/dev/null\n";
    Command::new("bash").args(["-c", &format!("{start}{script}"), "-", argument]).output().unwrap().stdout
}

/// An image with metadata in it.
#[derive(Clone)]
pub struct Image {
    pub bytes: Vec<u8>,
    /// Where pieces of it are that have a checksum each.
    places: Vec<Sealed>,
}

/// A piece that has a checksum of `body` at `sum`; both are places in the image.
#[derive(Clone)]
struct Sealed {
    body: std::ops::Range<usize>,
    sum: usize,
}

impl Image {
    /// Puts any bytes into the metadata: eight bytes of `patches` say which piece, where in it, and what. Checksums are right.
    pub fn patch(&mut self, patches: &[u8]) {
        for patch in patches.chunks_exact(8) {
            let Sealed { body, sum } = self.places[usize::from(patch[0]) % self.places.len()].clone();
            let field = body.start + usize::from(u16::from_le_bytes([patch[1], patch[2]])) % (body.len() - 5);
            self.bytes[field..field + 5].copy_from_slice(&patch[3..]);
            if body.contains(&sum) {
                self.bytes[sum..sum + 4].fill(0);
            }
            let crc = crc32c::crc32c(&self.bytes[body]).to_le_bytes();
            self.bytes[sum..sum + 4].copy_from_slice(&crc);
        }
    }
}

/// A small XFS with small blocks, which mkfs.xfs makes with these options.
pub fn xfs(options: &str) -> Image {
    let script =
        "(printf '/dev/null\n0 0\nd--755 0 0\nfile ---644 0 0 %s/c\nlink l--777 0 0 %0900d\nlarge d--755 0 0\n' $d 7
        seq -f 'a-longer-name-%g ---644 0 0 /dev/null' 300; printf '$\n$\n') >$d/p; truncate -s 16M $d/i
        mkfs.xfs --unsupported -q -f $1 -b size=1024 -d agcount=1 -p $d/p $d/i >&2; cat $d/i";
    let bytes = made(script, options);
    assert_eq!(bytes.len(), 16 << 20, "xfsprogs is needed");
    let found = |at: usize| {
        let (len, sum) = match &bytes[at..at + 10] {
            [b'I', b'N', mode, ..] if *mode > 0 => (512, 100),
            [b'X', b'A', b'G', b'F', ..] => (512, 216),
            [b'X', b'A', b'G', b'I', ..] => (512, 312),
            [b'X', b'A', b'F', b'L', ..] => (512, 32),
            [b'A', b'B', b'3', ..] | [b'I' | b'F', .., b'3', _, _, _, _, _, _] | [b'R', b'M' | b'3', ..] => (1024, 52),
            [b'X', b'D', _, b'3', ..] => (4096, 4),
            [.., 0x3d | 0x3e | 0x3b, _] => (4096, 12),
            _ => return None,
        };
        Some(Sealed { body: at..at + len, sum: at + sum })
    };
    let places = (512..bytes.len() - 4096).step_by(512).filter_map(found).collect();
    Image { bytes, places }
}

/// A small btrfs with the smallest nodes, which mkfs.btrfs makes with these options.
pub fn btrfs(options: &str) -> Image {
    let script = "mkdir -p $d/r/large; seq -f $d/r/large/a-longer-name-%g 99 | xargs touch; cp $d/c $d/r/file; echo x >$d/r/short
        ln -s $(printf %100s | tr ' ' x) $d/r/link; truncate -s 16M $d/i; id=3f2504e0-4f89-11d3-9a0c-0305e82c3301
        mkfs.btrfs -qfM -n 4096 -m single -d single -U $id $1 --rootdir $d/r $d/i >&2; cat $d/i";
    let bytes = made(script, options);
    assert!(bytes.len() > 1 << 20, "btrfs-progs is needed");
    // All that begin with its UUID: the superblock and nodes.
    let is_one = |at: &usize| bytes[at + 32..at + 48] == bytes[0x1_0020..0x1_0030];
    let places = (0..bytes.len()).step_by(4096).filter(is_one);
    let places = places.map(|at| Sealed { body: at + 32..at + 4096, sum: at }).collect();
    Image { bytes, places }
}
