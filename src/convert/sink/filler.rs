//! Zeros between pieces, for files that must not have holes.

use crate::convert::output::Output;
use crate::error::Result;

/// Bytes of zeros in one write.
const PART: usize = 256 << 10;

/// How far a file is filled. Pieces ascend.
#[derive(Debug)]
pub(super) struct Filler {
    at: u64,
}

impl Filler {
    /// A file that needs no filling before `at`.
    pub(super) const fn new(at: u64) -> Self {
        Self { at }
    }

    /// Fills up to `host`, where `len` bytes are going to be written.
    pub(super) fn piece(&mut self, host: u64, len: u64, output: &dyn Output) -> Result<()> {
        static ZEROS: [u8; PART] = [0; PART];
        while self.at < host {
            let part = usize::try_from(host - self.at).map_or(PART, |left| left.min(PART));
            output.write_at(ZEROS.get(..part).unwrap_or_default(), self.at)?;
            self.at += part as u64;
        }
        self.at = host + len;
        Ok(())
    }
}
