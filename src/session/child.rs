//! Programs that are spoken to.

use std::io::{ErrorKind, Read};

/// The most that is read at once, in bytes.
pub(crate) const CHUNK: usize = 64 << 10;

/// Sends on what a program says until it says no more, or `send` says that nobody listens.
pub(crate) fn forward(mut from: impl Read, send: impl Fn(Vec<u8>) -> bool) {
    loop {
        let mut chunk = vec![0; CHUNK];
        match from.read(&mut chunk) {
            Ok(0) => return,
            Ok(len) => {
                chunk.truncate(len);
                if !send(chunk) {
                    return;
                }
            }
            Err(cause) if cause.kind() == ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}
