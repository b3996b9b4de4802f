//! Pools made by hand: what is mapped, and what is refused.

use super::*;
use crate::disk::bytes::{put, put32};
use crate::disk::{Checked, Memory, collect_extents};

const CHUNK: u64 = 65536;

/// A metadata device of eight blocks: the superblock, then nodes.
struct Meta(Vec<u8>);

impl Meta {
    /// Volume 1 has the tree of block 3; its chunks 0, 5 and 6 are the pool's 2, 0 and 1.
    fn new() -> Self {
        let mut meta = Self(vec![0; 8 * BLOCK_LEN]);
        put(&mut meta.0, 32, &MAGIC.to_le_bytes());
        put32(&mut meta.0, 40, 2);
        put(&mut meta.0, 320, &1_u64.to_le_bytes());
        put(&mut meta.0, 328, &2_u64.to_le_bytes());
        put32(&mut meta.0, 336, (CHUNK / 512) as u32);
        meta.sign(0, SUPERBLOCK_XOR);
        meta.node(1, LEAF, 8, &[(1, 3)]);
        meta.node(2, LEAF, 24, &[(1, 0)]);
        meta.node(3, LEAF, 8, &[(0, 2 << 24 | 9), (5, 0), (6, 1 << 24)]);
        meta
    }

    fn node(&mut self, block: u64, flags: u32, value: usize, entries: &[(u64, u64)]) {
        let most = (BLOCK_LEN - NODE_HEADER) / (8 + value);
        let at = block as usize * BLOCK_LEN;
        self.0[at..at + BLOCK_LEN].fill(0);
        put32(&mut self.0, at + 4, flags);
        put(&mut self.0, at + 8, &block.to_le_bytes());
        put32(&mut self.0, at + 16, entries.len() as u32);
        put32(&mut self.0, at + 20, most as u32);
        put32(&mut self.0, at + 24, value as u32);
        for (i, (key, held)) in entries.iter().enumerate() {
            put(&mut self.0, at + NODE_HEADER + 8 * i, &key.to_le_bytes());
            put(&mut self.0, at + NODE_HEADER + 8 * most + value * i, &held.to_le_bytes());
        }
        self.sign(block, NODE_XOR);
    }

    fn sign(&mut self, block: u64, xor: u32) {
        let at = block as usize * BLOCK_LEN;
        let sum = checksum(&self.0[at..at + BLOCK_LEN], xor);
        put32(&mut self.0, at, sum);
    }

    /// The volume of 8 chunks with this device id, over a pool of three chunks.
    fn open(self, id: u64) -> Result<Arc<Checked<Thin>>> {
        let data = (0..3 * CHUNK).map(|at| (at / CHUNK) as u8 + 1).collect();
        let pool = Pool::open(Checked::wrap(Memory::new(self.0)), Checked::wrap(Memory::new(data)), CHUNK)?;
        Ok(Checked::wrap(Thin::open(Arc::new(pool), id, 8 * CHUNK)?))
    }

    /// The error of opening volume 1 and reading all of it.
    fn code(self) -> &'static str {
        let read = self.open(1).and_then(|thin| thin.read_at(&mut vec![0; 8 * CHUNK as usize], 0));
        read.err().map_or("", |error| error.code())
    }
}

/// The error of a pool with one change.
fn with(change: impl Fn(&mut Meta)) -> &'static str {
    let mut meta = Meta::new();
    change(&mut meta);
    meta.code()
}

#[test]
fn what_was_never_written_is_a_hole() {
    let thin = Meta::new().open(1).unwrap();
    let mut bytes = vec![9; 8 * CHUNK as usize];
    thin.read_at(&mut bytes, 0).unwrap();
    let firsts: Vec<u8> = bytes.chunks(CHUNK as usize).map(|chunk| chunk[7]).collect();
    assert_eq!(firsts, [3, 0, 0, 0, 0, 1, 2, 0]);
    let kinds: Vec<_> = collect_extents(&*thin, 10..thin.len()).unwrap();
    let ends: Vec<u64> = kinds.iter().map(|extent| extent.range.end / CHUNK).collect();
    assert_eq!(ends, [1, 5, 6, 7, 8]);
    assert_eq!((kinds[0].place, kinds[1].kind), (Some(2 * CHUNK + 10), ExtentKind::Hole));
    let mut homes = 0;
    thin.homes(0..thin.len(), &mut |_, _| homes += 1);
    assert_eq!(homes, 0, "other volumes may share its chunks");
}

#[test]
fn trees_of_several_levels_are_walked() {
    let mut meta = Meta::new();
    meta.node(3, INTERNAL, 8, &[(0, 4), (5, 5)]);
    meta.node(4, LEAF, 8, &[(0, 2 << 24)]);
    meta.node(5, LEAF, 8, &[(5, 0), (6, 1 << 24)]);
    let thin = meta.open(1).unwrap();
    let mut bytes = vec![9; 8 * CHUNK as usize];
    thin.read_at(&mut bytes, 0).unwrap();
    let firsts: Vec<u8> = bytes.chunks(CHUNK as usize).map(|chunk| chunk[7]).collect();
    assert_eq!(firsts, [3, 0, 0, 0, 0, 1, 2, 0]);
}

#[test]
fn hostile_pools_are_refused() {
    assert_eq!(with(|_| {}), "");
    assert_eq!(Meta::new().open(2).err().unwrap().code(), "lvm.thin");
    // Checksums, places and numbers that are wrong.
    assert_eq!(with(|meta| meta.0[40] ^= 1), "lvm.thin");
    assert_eq!(with(|meta| meta.0[3 * BLOCK_LEN + 40] ^= 1), "lvm.thin");
    assert_eq!(
        with(|meta| {
            put32(&mut meta.0, 336, 0);
            meta.sign(0, SUPERBLOCK_XOR)
        }),
        "lvm.thin"
    );
    assert_eq!(
        with(|meta| {
            put32(&mut meta.0, 360, 1);
            meta.sign(0, SUPERBLOCK_XOR)
        }),
        "lvm.unsupported"
    );
    assert_eq!(
        with(|meta| {
            put32(&mut meta.0, 320, u32::MAX);
            meta.sign(0, SUPERBLOCK_XOR)
        }),
        "lvm.thin"
    );
    // A tree that leads to itself, past the end, into the pool's own superblock.
    assert_eq!(with(|meta| meta.node(3, INTERNAL, 8, &[(0, 3)])), "lvm.thin");
    assert_eq!(with(|meta| meta.node(3, INTERNAL, 8, &[(0, 8)])), "lvm.thin");
    assert_eq!(with(|meta| meta.node(3, INTERNAL, 8, &[(0, u64::MAX)])), "lvm.thin");
    assert_eq!(with(|meta| meta.node(3, INTERNAL, 8, &[(0, 0)])), "lvm.thin");
    // A chunk past the end of the data, keys that go backwards, nodes of impossible size and kind.
    assert_eq!(with(|meta| meta.node(3, LEAF, 8, &[(0, 3 << 24)])), "lvm.thin");
    assert_eq!(with(|meta| meta.node(3, LEAF, 8, &[(0, u64::MAX)])), "lvm.thin");
    assert_eq!(with(|meta| meta.node(3, LEAF, 8, &[(5, 0), (0, 1 << 24)])), "lvm.thin");
    assert_eq!(with(|meta| meta.node(3, 3, 8, &[(0, 0)])), "lvm.thin");
    assert_eq!(
        with(|meta| {
            put32(&mut meta.0, 3 * BLOCK_LEN + 16, u32::MAX);
            meta.sign(3, NODE_XOR)
        }),
        "lvm.thin"
    );
    assert_eq!(
        with(|meta| {
            put32(&mut meta.0, 3 * BLOCK_LEN + 20, u32::MAX);
            meta.sign(3, NODE_XOR)
        }),
        "lvm.thin"
    );
    assert_eq!(
        with(|meta| {
            put32(&mut meta.0, 3 * BLOCK_LEN + 24, 0);
            meta.sign(3, NODE_XOR)
        }),
        "lvm.thin"
    );
    // Leaves that are empty, one after the other, never make the search go on for ever.
    assert_eq!(
        with(|meta| {
            meta.node(3, INTERNAL, 8, &[(0, 4), (1, 4), (2, 4)]);
            meta.node(4, LEAF, 8, &[])
        }),
        "lvm.thin"
    );
    // An empty tree is a volume that nobody wrote to.
    assert_eq!(with(|meta| meta.node(3, LEAF, 8, &[])), "");
    let cut = Pool::open(Checked::wrap(Memory::new(vec![0; 100])), Checked::wrap(Memory::new(vec![0; 100])), CHUNK);
    assert_eq!(cut.unwrap_err().code(), "lvm.thin");
}

#[test]
fn as_many_nodes_are_kept_as_the_limit() {
    let most = limits::MAX_THIN_NODES as u64;
    let mut meta = Meta::new();
    meta.0.resize((most as usize + 16) * BLOCK_LEN, 0);
    (8..most + 16).for_each(|block| meta.node(block, LEAF, 8, &[]));
    let pool = Pool::open(Checked::wrap(Memory::new(meta.0)), Checked::wrap(Memory::new(vec![0; 512])), CHUNK).unwrap();
    let kept = || pool.nodes.lock().unwrap().len() as u64;
    for block in 8..8 + most {
        pool.node(block).unwrap();
        assert_eq!(kept(), block - 7);
    }
    // One that is there takes no room; one more has all others forgotten.
    pool.node(8).unwrap();
    assert_eq!(kept(), most);
    pool.node(8 + most).unwrap();
    assert_eq!(kept(), 1);
}
