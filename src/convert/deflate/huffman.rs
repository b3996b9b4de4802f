//! Length-limited Huffman codes.

/// Longest code of literals, lengths and distances (RFC 1951, 3.2.7).
pub(super) const MAX_BITS: usize = 15;

/// Most symbols of one alphabet.
const MAX_SYMBOLS: usize = 288;

/// Sets `lengths` to those of a code for symbols that occur `counts` times, none longer than `limit`. At least two symbols get
/// a code, since not every reader takes a code of one.
pub(super) fn lengths(counts: &[u32], limit: usize, lengths: &mut [u8]) {
    lengths.fill(0);
    let mut keys = [0u32; MAX_SYMBOLS];
    let mut used = 0;
    for (symbol, &count) in counts.iter().enumerate() {
        // Branch-free: a symbol that does not occur is overwritten by the next.
        keys[used] = count << 9 | symbol as u32;
        used += usize::from(count != 0);
    }
    let keys = &mut keys[..used];
    if used < 2 {
        let only = keys.first().map_or(0, |key| (key & 511) as usize);
        lengths[only] = 1;
        lengths[usize::from(only == 0)] = 1;
        return;
    }
    keys.sort_unstable();
    let mut left = leaves_by_depth(keys, limit);
    let mut depth = limit;
    for key in keys {
        while left[depth] == 0 {
            depth -= 1;
        }
        left[depth] -= 1;
        lengths[(*key & 511) as usize] = depth as u8;
    }
}

/// How many of `keys`, sorted by count, get a code of each length.
fn leaves_by_depth(keys: &[u32], limit: usize) -> [u32; MAX_BITS + 1] {
    let leaves = keys.len();
    let mut weight = [0u32; MAX_SYMBOLS];
    let mut parent = [0u16; MAX_SYMBOLS * 2];
    let (mut leaf, mut node) = (0, 0);
    for made in 0..leaves - 1 {
        let mut sum = 0;
        for _ in 0..2 {
            let take_leaf = leaf < leaves && (node == made || keys[leaf] >> 9 <= weight[node]);
            if take_leaf {
                sum += keys[leaf] >> 9;
                parent[leaf] = made as u16;
                leaf += 1;
            } else {
                sum += weight[node];
                parent[MAX_SYMBOLS + node] = made as u16;
                node += 1;
            }
        }
        weight[made] = sum;
    }
    let mut depth = [0u16; MAX_SYMBOLS];
    for node in (0..leaves - 2).rev() {
        depth[node] = depth[parent[MAX_SYMBOLS + node] as usize] + 1;
    }
    let mut found = [0u32; MAX_BITS + 1];
    for &parent in &parent[..leaves] {
        found[(depth[parent as usize] as usize + 1).min(limit)] += 1;
    }
    shorten(&mut found, limit);
    found
}

/// Makes a code of `found` lengths, some of which were cut to `limit`, one that can be told apart again.
fn shorten(found: &mut [u32; MAX_BITS + 1], limit: usize) {
    let used: u32 = (1..=limit).map(|depth| found[depth] << (limit - depth)).sum();
    for _ in 1 << limit..used {
        let Some(depth) = (1..limit).rev().find(|&depth| found[depth] != 0) else { return };
        // A leaf becomes a node with two leaves: itself and one of the deepest.
        found[depth] -= 1;
        found[depth + 1] += 2;
        found[limit] -= 1;
    }
}

/// The code words of `lengths`, first bit lowest (RFC 1951, 3.2.2).
pub(super) fn words(lengths: &[u8], words: &mut [u16]) {
    let mut next = [0u16; MAX_BITS + 2];
    for &length in lengths {
        next[usize::from(length) + 1] += 1;
    }
    next[1] = 0;
    for length in 1..MAX_BITS {
        next[length + 1] = (next[length] + next[length + 1]) << 1;
    }
    for (word, &length) in words.iter_mut().zip(lengths) {
        let length = usize::from(length);
        if length != 0 {
            *word = next[length].reverse_bits() >> (16 - length);
            next[length] += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lengths_of(counts: &[u32], limit: usize) -> Vec<u8> {
        let mut found = vec![0; counts.len()];
        lengths(counts, limit, &mut found);
        found
    }

    /// Of the room that a code has, how many parts of 2^-15 are used.
    fn room(lengths: &[u8]) -> u32 {
        lengths.iter().filter(|&&length| length != 0).map(|&length| 1 << (15 - length)).sum()
    }

    fn bits(counts: &[u32], lengths: &[u8]) -> u64 {
        counts.iter().zip(lengths).map(|(&count, &length)| u64::from(count) * u64::from(length)).sum()
    }

    #[test]
    fn well_known_codes() {
        assert_eq!(lengths_of(&[5, 1, 1, 2], 15), [1, 3, 3, 2]);
        assert_eq!(lengths_of(&[1, 1, 1, 1], 15), [2, 2, 2, 2]);
        assert_eq!(lengths_of(&[1, 1, 2, 4, 8, 16], 4).iter().max(), Some(&4));
    }

    #[test]
    fn fewer_than_two_symbols_still_make_a_whole_code() {
        assert_eq!(lengths_of(&[0, 0, 0], 15), [1, 1, 0]);
        assert_eq!(lengths_of(&[9, 0, 0], 15), [1, 1, 0]);
        assert_eq!(lengths_of(&[0, 0, 9], 15), [1, 0, 1]);
    }

    #[test]
    fn words_are_those_of_the_specification() {
        // RFC 1951, 3.2.2: the lengths (3, 3, 3, 3, 3, 2, 4, 4), with the bits of each word turned around.
        let mut found = [0; 8];
        words(&[3, 3, 3, 3, 3, 2, 4, 4], &mut found);
        assert_eq!(found, [0b010, 0b110, 0b001, 0b101, 0b011, 0b00, 0b0111, 0b1111]);
    }

    proptest! {
        #[test]
        fn codes_are_whole_and_short(
            counts in prop::collection::vec(prop_oneof![Just(0), 1_u32..4, 1_u32..70_000], 2..286),
            limit in 9_usize..=15,
        ) {
            let found = lengths_of(&counts, limit);
            prop_assert_eq!(room(&found), 1 << 15);
            prop_assert!(found.iter().all(|&length| usize::from(length) <= limit));
            let total: u32 = counts.iter().sum();
            if counts.iter().filter(|&&count| count != 0).count() >= 2 {
                for (&count, &length) in counts.iter().zip(&found) {
                    prop_assert_eq!(count == 0, length == 0);
                }
                // A Huffman code takes less than one bit more a symbol than the entropy; the limit may cost something.
                let entropy: f64 = counts.iter().filter(|&&count| count != 0)
                    .map(|&count| f64::from(count) * (f64::from(total) / f64::from(count)).log2()).sum();
                prop_assert!(bits(&counts, &found) as f64 >= entropy - 0.1);
                if limit == 15 {
                    prop_assert!(bits(&counts, &found) as f64 <= entropy + f64::from(total));
                }
            }
        }

        /// No code of four symbols is shorter.
        #[test]
        fn small_codes_are_the_shortest(counts in prop::array::uniform4(1_u32..100)) {
            let found = bits(&counts, &lengths_of(&counts, 15));
            for trial in 0..256_u32 {
                let lengths: Vec<u8> = (0..4).map(|at| (trial >> (2 * at) & 3) as u8 + 1).collect();
                prop_assert!(room(&lengths) > 1 << 15 || bits(&counts, &lengths) >= found);
            }
        }
    }
}
