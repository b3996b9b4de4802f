//! The byte cache around every source, and the pool of memory that all caches of a session share.
//!
//! A block is fetched by the first thread that wants it; others that want it meanwhile wait for that one read. What was read
//! before the session began to stream stays while the one pass goes by, so that no byte is read twice. Of a source that answers
//! slowly, blocks are fetched ahead: those that the one pass says it will want, and those before readers that go forward; and they are kept
//! in a folder, where the user names one.

mod ahead;
mod blocks;
mod pool;
mod store;

pub use blocks::{BLOCK, BlockCache, Tap};
pub use pool::{Block, Class, Key, Pool};
pub use store::make_folder;
