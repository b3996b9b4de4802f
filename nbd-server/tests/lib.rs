//! The server over real sockets: a hand-written client that can misbehave, and other people's programs.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "helpers of tests are not marked as tests")]

mod client;
mod fixture;
mod given;
mod hostile;
mod lifecycle;
mod peers;
mod protocol;
mod remote;
mod rogue;
mod servers;
mod threads;
mod tls;
