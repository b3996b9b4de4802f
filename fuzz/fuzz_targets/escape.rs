//! Text from outside is safe to print once escaped, and stays within its bound.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let safe = hyper2kvm::error::escape_bytes(data);
    assert!(!safe.chars().any(char::is_control));
    // 1,024 characters of at most `\u{10ffff}`, and the ellipsis.
    assert!(safe.len() <= 1024 * 10 + 3);
});
