//! Encodes what bytes describe: copies and new bytes. Another decoder gives the same again, and the limit is kept.
#![no_main]

use hyper2kvm::convert::deflate::{Encoder, Level};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&first, rest)) = data.split_first() else { return };
    // One byte in four stands for a copy of what was there before, so that inputs are larger than what describes them.
    let mut input = Vec::new();
    for part in rest.chunks(4) {
        match *part {
            [low, high, len, op] if op < 64 && !input.is_empty() => {
                let distance = usize::from(u16::from_le_bytes([low, high])) % input.len() + 1;
                (0..usize::from(len) << (op % 4)).for_each(|_| input.push(input[input.len() - distance]));
            }
            _ => input.extend_from_slice(part),
        }
    }
    input.truncate(2 << 20);
    let mut encoder = Encoder::new(if first & 1 == 0 { Level::Fast } else { Level::Best });
    let mut out = Vec::new();
    let len = encoder.encode(&input, &mut out, usize::MAX).expect("there is no limit");
    assert_eq!(out.len(), len);
    assert!(len <= input.len() + input.len() / 1000 + 16);
    let mut back = vec![0; input.len() + 1];
    let written = libdeflater::Decompressor::new().deflate_decompress(&out, &mut back).expect("a stream");
    assert!(back[..written] == input);
    for limit in [len - 1, len / 2] {
        assert_eq!(encoder.encode(&input, &mut Vec::new(), limit), None);
    }
});
