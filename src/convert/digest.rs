//! A digest of what a disk holds: independent of formats, of holes, and of the order in which it is read.
//!
//! ```text
//! chunk  = BLAKE3(its blocks that are not zeros, in order ‖ which ones those are: u32 little-endian, bit n for block n)
//! window = BLAKE3(for each chunk that is not all zeros, ascending: its number in the window, u32 LE ‖ its digest)
//! disk   = BLAKE3("hyper2kvm disk 1" ‖ length, u64 LE ‖ for each window that is not all zeros, ascending:
//!                 its number, u64 LE ‖ its digest)
//! ```
//!
//! with blocks of 64 KiB, chunks of 2 MiB and windows of 1 GiB, each cut at the end of the disk. 40 bytes are kept for a
//! gibibyte: 2.5 MiB for 64 TiB.

use super::plan::{BLOCK, Blocks, CHUNK, WINDOW};

/// A BLAKE3 digest.
type Digest = [u8; 32];

/// The blocks of `chunk` among `candidates` that are not all zeros, and the digest of the chunk when there are any. The
/// other blocks count as zeros.
pub(super) fn chunk(chunk: &[u8], candidates: Blocks) -> (Blocks, Option<Digest>) {
    let mut blocks = Blocks::default();
    let mut hasher = blake3::Hasher::new();
    for number in candidates.iter() {
        let start = (number as usize * BLOCK as usize).min(chunk.len());
        let block = &chunk[start..(start + BLOCK as usize).min(chunk.len())];
        if !is_zero(block) {
            blocks.insert(number);
            hasher.update(block);
        }
    }
    if blocks.is_empty() {
        return (blocks, None);
    }
    hasher.update(&blocks.bits().to_le_bytes());
    (blocks, Some(*hasher.finalize().as_bytes()))
}

/// Whether all bytes are zero.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    // Comparing with a page of zeros is `memcmp`, which is fast in every build.
    const ZEROS: [u8; 4096] = [0; 4096];
    bytes.chunks(ZEROS.len()).all(|part| part == &ZEROS[..part.len()])
}

/// The digests of a disk while its chunks come in, window by window.
#[derive(Debug, Default)]
pub(super) struct Collector {
    window: u64,
    /// Chunks of that window, by their number in it.
    chunks: Vec<(u32, Digest)>,
    windows: Vec<(u64, Digest)>,
}

impl Collector {
    /// Adds a chunk. Windows ascend; the chunks of one may come in any order.
    pub(super) fn add(&mut self, chunk: u64, digest: Option<Digest>) {
        let Some(digest) = digest else { return };
        let per_window = WINDOW / CHUNK;
        if self.window != chunk / per_window {
            self.close_window();
            self.window = chunk / per_window;
        }
        self.chunks.push((u32::try_from(chunk % per_window).unwrap_or(u32::MAX), digest));
    }

    /// The digests of a disk of `len` bytes.
    pub(super) fn finish(mut self, len: u64) -> Content {
        self.close_window();
        Content { len, windows: self.windows }
    }

    fn close_window(&mut self) {
        if self.chunks.is_empty() {
            return;
        }
        self.chunks.sort_unstable();
        let mut hasher = blake3::Hasher::new();
        for (number, digest) in self.chunks.drain(..) {
            hasher.update(&number.to_le_bytes()).update(&digest);
        }
        self.windows.push((self.window, *hasher.finalize().as_bytes()));
    }
}

/// What a disk holds, as digests.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Content {
    len: u64,
    /// Windows that are not all zeros, ascending.
    windows: Vec<(u64, Digest)>,
}

impl Content {
    /// Length of the disk in bytes.
    pub(super) const fn len(&self) -> u64 {
        self.len
    }

    /// The digest of the whole disk.
    pub(super) fn total(&self) -> Digest {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"hyper2kvm disk 1").update(&self.len.to_le_bytes());
        for (number, digest) in &self.windows {
            hasher.update(&number.to_le_bytes()).update(digest);
        }
        *hasher.finalize().as_bytes()
    }

    /// The number of the first window in which the two differ.
    pub(super) fn first_difference(&self, other: &Self) -> Option<u64> {
        let pairs = self.windows.iter().zip(&other.windows);
        let differing = pairs.filter(|(a, b)| a != b).map(|(a, b)| a.0.min(b.0)).next();
        let shorter = self.windows.len().min(other.windows.len());
        let beyond = self.windows.get(shorter).or_else(|| other.windows.get(shorter)).map(|(number, _)| *number);
        differing.or(beyond)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Blocks {
        let mut blocks = Blocks::default();
        (0..32).for_each(|block| blocks.insert(block));
        blocks
    }

    #[test]
    fn zeros_do_not_count_however_they_are_known() {
        let mut bytes = vec![0; 5 * BLOCK as usize + 100];
        bytes[3 * BLOCK as usize] = 1;
        let (found, digest) = chunk(&bytes, all());
        assert_eq!(found.bits(), 1 << 3);
        let mut only = Blocks::default();
        only.insert(3);
        assert_eq!(chunk(&bytes, only), (found, digest));
        assert_eq!(chunk(&[0; 100], all()), (Blocks::default(), None));
    }

    #[test]
    fn place_and_content_count() {
        let digest_of = |at: usize, byte| {
            let mut bytes = vec![0; CHUNK as usize];
            bytes[at] = byte;
            chunk(&bytes, all()).1
        };
        let one = digest_of(0, 1);
        assert!(one.is_some());
        assert_ne!(one, digest_of(1, 1));
        assert_ne!(one, digest_of(BLOCK as usize, 1));
        assert_ne!(one, digest_of(0, 2));
    }

    #[test]
    fn the_order_within_a_window_does_not_count() {
        let content = |order: &[u64]| {
            let mut collector = Collector::default();
            for number in order {
                collector.add(*number, Some([u8::try_from(*number % 7).unwrap(); 32]));
            }
            collector.finish(9 << 30)
        };
        let per_window = WINDOW / CHUNK;
        let content_of = content(&[3, 1, 2, per_window, per_window + 1]);
        assert_eq!(content_of, content(&[1, 2, 3, per_window + 1, per_window]));
        assert_eq!(content_of.first_difference(&content(&[1, 2, 3, per_window])), Some(1));
        assert_eq!(content_of.first_difference(&content(&[1, 2])), Some(0));
        assert_eq!(content(&[1]).first_difference(&content(&[1, 5 * per_window])), Some(5));
        assert_eq!(content_of.first_difference(&content_of), None);
        assert_ne!(content(&[1]).total(), content(&[2]).total());
    }
}
