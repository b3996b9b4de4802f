//! The two hashes of a journal: SipHash-2-4 keyed with the file's identity, and Bob Jenkins' lookup3 in older files.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

/// SipHash-2-4 of `data` with a key of 16 bytes.
pub(super) fn siphash24(data: &[u8], key: &[u8; 16]) -> u64 {
    let (low, high) = halves(key);
    let mut v = [
        low ^ 0x736f_6d65_7073_6575,
        high ^ 0x646f_7261_6e64_6f6d,
        low ^ 0x6c79_6765_6e65_7261,
        high ^ 0x7465_6462_7974_6573,
    ];
    let (words, rest) = data.as_chunks::<8>();
    for word in words {
        absorb(&mut v, u64::from_le_bytes(*word));
    }
    let [.., length] = data.len().to_be_bytes();
    let mut last = [0; 8];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    last[7] = length;
    absorb(&mut v, u64::from_le_bytes(last));
    v[2] ^= 0xff;
    for _ in 0..4 {
        round(&mut v);
    }
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

fn halves(key: &[u8; 16]) -> (u64, u64) {
    let key = u128::from_le_bytes(*key);
    let low = key & u128::from(u64::MAX);
    (u64::try_from(low).unwrap_or(0), u64::try_from(key >> 64).unwrap_or(0))
}

fn absorb(v: &mut [u64; 4], word: u64) {
    v[3] ^= word;
    round(v);
    round(v);
    v[0] ^= word;
}

fn round(v: &mut [u64; 4]) {
    let [mut a, mut b, mut c, mut d] = *v;
    a = a.wrapping_add(b);
    b = b.rotate_left(13) ^ a;
    a = a.rotate_left(32);
    c = c.wrapping_add(d);
    d = d.rotate_left(16) ^ c;
    a = a.wrapping_add(d);
    d = d.rotate_left(21) ^ a;
    c = c.wrapping_add(b);
    b = b.rotate_left(17) ^ c;
    c = c.rotate_left(32);
    *v = [a, b, c, d];
}

/// lookup3's `hashlittle2` with zero seeds, the first result in the upper half.
pub(super) fn jenkins(data: &[u8]) -> u64 {
    let [_, _, _, _, length @ ..] = u64::try_from(data.len()).unwrap_or(0).to_be_bytes();
    let start = 0xdead_beef_u32.wrapping_add(u32::from_be_bytes(length));
    let (mut a, mut b, mut c) = (start, start, start);
    // The last 1 to 12 bytes are mixed in another way; nothing is mixed for no bytes.
    let mut blocks = data.chunks(12).peekable();
    while let Some(block) = blocks.next() {
        let [x, y, z] = words(block);
        (a, b, c) = (a.wrapping_add(x), b.wrapping_add(y), c.wrapping_add(z));
        (a, b, c) = if blocks.peek().is_some() { mix(a, b, c) } else { finish(a, b, c) };
    }
    u64::from(c) << 32 | u64::from(b)
}

/// Up to 12 bytes as three numbers, zeros after them.
fn words(block: &[u8]) -> [u32; 3] {
    let mut padded = [0; 12];
    for (to, from) in padded.iter_mut().zip(block) {
        *to = *from;
    }
    let (words, _) = padded.as_chunks::<4>();
    let mut numbers = [0; 3];
    for (to, from) in numbers.iter_mut().zip(words) {
        *to = u32::from_le_bytes(*from);
    }
    numbers
}

fn mix(mut a: u32, mut b: u32, mut c: u32) -> (u32, u32, u32) {
    a = a.wrapping_sub(c) ^ c.rotate_left(4);
    c = c.wrapping_add(b);
    b = b.wrapping_sub(a) ^ a.rotate_left(6);
    a = a.wrapping_add(c);
    c = c.wrapping_sub(b) ^ b.rotate_left(8);
    b = b.wrapping_add(a);
    a = a.wrapping_sub(c) ^ c.rotate_left(16);
    c = c.wrapping_add(b);
    b = b.wrapping_sub(a) ^ a.rotate_left(19);
    a = a.wrapping_add(c);
    c = c.wrapping_sub(b) ^ b.rotate_left(4);
    b = b.wrapping_add(a);
    (a, b, c)
}

fn finish(mut a: u32, mut b: u32, mut c: u32) -> (u32, u32, u32) {
    c = (c ^ b).wrapping_sub(b.rotate_left(14));
    a = (a ^ c).wrapping_sub(c.rotate_left(11));
    b = (b ^ a).wrapping_sub(a.rotate_left(25));
    c = (c ^ b).wrapping_sub(b.rotate_left(16));
    a = (a ^ c).wrapping_sub(c.rotate_left(4));
    b = (b ^ a).wrapping_sub(a.rotate_left(14));
    c = (c ^ b).wrapping_sub(b.rotate_left(24));
    (a, b, c)
}

#[cfg(test)]
#[allow(clippy::as_conversions, reason = "tests build their input")]
mod tests {
    use super::*;

    #[test]
    fn siphash_gives_the_published_values() {
        let key: [u8; 16] = std::array::from_fn(|index| index as u8);
        let data: Vec<u8> = (0..15).collect();
        assert_eq!(siphash24(&data, &key), 0xa129_ca61_49be_45e5);
        assert_eq!(siphash24(&[], &key), 0x726f_db47_dd0e_0e31);
        assert_eq!(siphash24(&data[..8], &key), 0x93f5_f579_9a93_2462);
    }

    #[test]
    fn jenkins_gives_the_published_values() {
        assert_eq!(jenkins(b""), 0xdead_beef_dead_beef);
        // Its author's first two self-tests, which give c then b.
        assert_eq!(jenkins(b"Four score and seven years ago"), 0x1777_0551_ce72_26e6);
    }
}
