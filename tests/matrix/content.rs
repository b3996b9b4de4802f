//! What is on the disks: known bytes, made anew from a seed for each test.

/// Bytes of a disk and what is special about them.
pub(super) struct Content {
    pub(super) name: &'static str,
    pub(super) bytes: Vec<u8>,
}

/// Whole sectors in every case.
pub(super) fn all() -> Vec<Content> {
    let content = |name, bytes| Content { name, bytes };
    vec![
        content("one sector", noise(1, 512)),
        content("empty", vec![0; 3 << 20]),
        content("full", noise(2, 3 << 20)),
        content("text", text(2 << 20)),
        content("mixed", [text(300 << 10), noise(3, 200 << 10), vec![0; 700 << 10], noise(4, 65 << 10)].concat()),
        content("sparse", islands(21 << 20, &[0, 511 << 10, (1 << 20) + 512, 7_340_032, 13_000_192, 20 << 20])),
        content("odd", [noise(5, (2 << 20) + 512), vec![0; 64 << 10], noise(6, 3 * 512)].concat()),
        content("last sector", islands(9 << 20, &[(9 << 20) - 512])),
    ]
}

/// Bytes that no encoder makes shorter; the same for the same seed.
pub(super) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut word = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(&mut word).flatten().take(len).collect()
}

/// Bytes that encoders make much shorter.
fn text(len: usize) -> Vec<u8> {
    (0..)
        .flat_map(|line: u32| format!("{line:08} the quick brown fox, {}\n", line * line % 977).into_bytes())
        .take(len)
        .collect()
}

/// Zeros with a sector of noise at each place.
fn islands(len: usize, places: &[usize]) -> Vec<u8> {
    let mut bytes = vec![0; len];
    for (seed, place) in (100..).zip(places) {
        bytes[*place..*place + 512].copy_from_slice(&noise(seed, 512));
    }
    bytes
}
