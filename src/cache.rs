//! The byte cache around every source, and the pool of memory that all caches of a session share.
//!
//! A block is fetched by the first thread that wants it; others that want it meanwhile wait for that one read. What was read
//! before the session began to stream stays while the one pass goes by, so that no byte is read twice.

mod blocks;
mod pool;

pub use blocks::{BLOCK, BlockCache, Tap};
pub use pool::{Block, Class, Key, Pool};
