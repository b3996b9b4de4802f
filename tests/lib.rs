//! What the program does on whole images, compared with other programs.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test fails by panicking and says why"
)]

mod file_disk;
mod volume;
