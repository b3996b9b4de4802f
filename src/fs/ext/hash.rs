//! The hashes of directory names: legacy, half MD4 and TEA, with signed or unsigned characters.

use super::superblock::Superblock;

/// The last hash; no name has it.
const EOF: u32 = 0x7fff_ffff << 1;

/// The hash of `name` by the index's `version`, its lowest bit clear; `None` for a version that is not known.
pub(super) fn of_name(sb: &Superblock, version: u8, name: &[u8]) -> Option<u32> {
    hash(version, sb.hash_is_unsigned(), sb.hash_seed(), name)
}

fn hash(version: u8, sb_unsigned: bool, seed: [u32; 4], name: &[u8]) -> Option<u32> {
    let (version, unsigned) = match version {
        0..=2 => (version, sb_unsigned),
        3..=5 => (version.wrapping_sub(3), true),
        _ => return None,
    };
    let seed = if seed == [0; 4] { [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476] } else { seed };
    let hash = match version {
        0 => legacy(name, unsigned),
        1 => half_md4(name, unsigned, seed),
        _ => tea(name, unsigned, seed),
    } & !1;
    Some(if hash == EOF { EOF.wrapping_sub(2) } else { hash })
}

/// A character as the hash adds it.
fn widen(byte: u8, unsigned: bool) -> u32 {
    if unsigned { u32::from(byte) } else { i32::from(i8::from_le_bytes([byte])).cast_unsigned() }
}

fn legacy(name: &[u8], unsigned: bool) -> u32 {
    let (mut hash0, mut hash1) = (0x12a3_fe2d_u32, 0x37ab_e8f9_u32);
    for byte in name {
        let mut hash = hash1.wrapping_add(hash0 ^ widen(*byte, unsigned).wrapping_mul(7_152_373));
        if hash & 0x8000_0000 != 0 {
            hash = hash.wrapping_sub(0x7fff_ffff);
        }
        hash1 = hash0;
        hash0 = hash;
    }
    hash0 << 1
}

/// `N` words of `chunk`, padded with its length. `left` is how much of the name is left, the chunk included.
fn words<const N: usize>(chunk: &[u8], left: usize, unsigned: bool) -> [u32; N] {
    let low = u32::from(u8::try_from(left & 0xff).unwrap_or(0));
    let pad = low | low << 8;
    let pad = pad | pad << 16;
    let mut out = [pad; N];
    for (word, bytes) in out.iter_mut().zip(chunk.chunks(4)) {
        *word = bytes.iter().fold(pad, |value, byte| widen(*byte, unsigned).wrapping_add(value << 8));
    }
    out
}

fn half_md4(name: &[u8], unsigned: bool, seed: [u32; 4]) -> u32 {
    let mut state = seed;
    let mut left = name.len();
    for chunk in name.chunks(32) {
        half_md4_round(&mut state, words::<8>(chunk, left, unsigned));
        left = left.saturating_sub(32);
    }
    state[1]
}

fn half_md4_round(state: &mut [u32; 4], input: [u32; 8]) {
    const K2: u32 = 0x5a82_7999;
    const K3: u32 = 0x6ed9_eba1;
    let f = |x: u32, y: u32, z: u32| z ^ (x & (y ^ z));
    let g = |x: u32, y: u32, z: u32| (x & y).wrapping_add((x ^ y) & z);
    let h = |x: u32, y: u32, z: u32| x ^ y ^ z;
    let [mut a, mut b, mut c, mut d] = *state;
    let [i0, i1, i2, i3, i4, i5, i6, i7] = input;
    let step = |a: u32, mixed: u32, word: u32, shift: u32| a.wrapping_add(mixed).wrapping_add(word).rotate_left(shift);
    for [w0, w1, w2, w3] in [[i0, i1, i2, i3], [i4, i5, i6, i7]] {
        a = step(a, f(b, c, d), w0, 3);
        d = step(d, f(a, b, c), w1, 7);
        c = step(c, f(d, a, b), w2, 11);
        b = step(b, f(c, d, a), w3, 19);
    }
    for [w0, w1, w2, w3] in [[i1, i3, i5, i7], [i0, i2, i4, i6]] {
        a = step(a, g(b, c, d), w0.wrapping_add(K2), 3);
        d = step(d, g(a, b, c), w1.wrapping_add(K2), 5);
        c = step(c, g(d, a, b), w2.wrapping_add(K2), 9);
        b = step(b, g(c, d, a), w3.wrapping_add(K2), 13);
    }
    for [w0, w1, w2, w3] in [[i3, i7, i2, i6], [i1, i5, i0, i4]] {
        a = step(a, h(b, c, d), w0.wrapping_add(K3), 3);
        d = step(d, h(a, b, c), w1.wrapping_add(K3), 9);
        c = step(c, h(d, a, b), w2.wrapping_add(K3), 11);
        b = step(b, h(c, d, a), w3.wrapping_add(K3), 15);
    }
    for (word, added) in state.iter_mut().zip([a, b, c, d]) {
        *word = word.wrapping_add(added);
    }
}

fn tea(name: &[u8], unsigned: bool, seed: [u32; 4]) -> u32 {
    let [mut s0, mut s1, _, _] = seed;
    let mut left = name.len();
    for chunk in name.chunks(16) {
        let [a, b, c, d] = words::<4>(chunk, left, unsigned);
        let (mut b0, mut b1, mut sum) = (s0, s1, 0_u32);
        for _ in 0..16 {
            sum = sum.wrapping_add(0x9e37_79b9);
            b0 = b0.wrapping_add((b1 << 4).wrapping_add(a) ^ b1.wrapping_add(sum) ^ (b1 >> 5).wrapping_add(b));
            b1 = b1.wrapping_add((b0 << 4).wrapping_add(c) ^ b0.wrapping_add(sum) ^ (b0 >> 5).wrapping_add(d));
        }
        s0 = s0.wrapping_add(b0);
        s1 = s1.wrapping_add(b1);
        left = left.saturating_sub(16);
    }
    s0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values are those of `debugfs -R "dx_hash -h VERSION -s SEED NAME"`.
    #[test]
    fn hashes_are_those_of_debugfs() {
        VECTORS.iter().for_each(|(version, name, expected)| {
            assert_eq!(hash(*version, false, SEED, name.as_bytes()), Some(*expected), "{version} {name}");
        });
        assert_eq!(hash(6, false, SEED, b"a"), None);
    }

    const SEED: [u32; 4] = [0x0403_0201, 0x0807_0605, 0x0c0b_0a09, 0x100f_0e0d];
    const VECTORS: &[(u8, &str, u32)] = &[
        (0, "a", 0xe74b_53e2),
        (0, "fstab", 0x7092_4ae2),
        (0, "Ünïcödé-ñame-with-high-bytes-ÿÿÿÿ", 0x2d2b_801e),
        (1, "a", 0x8d08_ec4c),
        (1, "fstab", 0x28e2_75ee),
        (1, "kernel-6.1.0-28-amd64.conf", 0x6200_83b8),
        (1, "0123456789abcdef0123456789abcdef0123456789", 0x5e62_6912),
        (1, "Ünïcödé-ñame-with-high-bytes-ÿÿÿÿ", 0xb24b_5e2c),
        (2, "fstab", 0xab35_4ce0),
        (2, "0123456789abcdef0123456789abcdef0123456789", 0x523b_8bc0),
        (2, "Ünïcödé-ñame-with-high-bytes-ÿÿÿÿ", 0xd4a6_e424),
    ];
}
