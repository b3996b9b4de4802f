//! Marvin32, the keyed digest that entries of a hive's log carry. Windows uses a fixed key for them.

use crate::disk::bytes::le32;

/// The key.
const SEED: u64 = 0x82ef_4d88_7a4e_55c5;

/// A digest that is fed piece by piece. All pieces but the last must have a multiple of four bytes.
pub(super) struct Marvin32 {
    low: u32,
    high: u32,
}

impl Default for Marvin32 {
    fn default() -> Self {
        let [a, b, c, d, e, f, g, h] = SEED.to_le_bytes();
        Self { low: u32::from_le_bytes([a, b, c, d]), high: u32::from_le_bytes([e, f, g, h]) }
    }
}

impl Marvin32 {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        for word in bytes.chunks_exact(4) {
            self.mix(le32(word, 0));
        }
    }

    /// The digest of everything, `rest` being fewer than four bytes.
    pub(super) fn finish(mut self, rest: &[u8]) -> u64 {
        // A byte 0x80 ends the message, and fills the last word with what is left.
        let mut last = [0; 4];
        for (to, from) in last.iter_mut().zip(rest.iter().chain([&0x80])) {
            *to = *from;
        }
        self.mix(u32::from_le_bytes(last));
        self.mix(0);
        u64::from(self.high) << 32 | u64::from(self.low)
    }

    fn mix(&mut self, word: u32) {
        self.low = self.low.wrapping_add(word);
        self.high ^= self.low;
        self.low = self.low.rotate_left(20).wrapping_add(self.high);
        self.high = self.high.rotate_left(9) ^ self.low;
        self.low = self.low.rotate_left(27).wrapping_add(self.high);
        self.high = self.high.rotate_left(19);
    }
}
