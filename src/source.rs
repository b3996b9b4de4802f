//! Where bytes come from: a file or block device of this host, and the names by which images refer to other files.

mod file;
mod pipe;
mod reference;

pub use file::FileSource;
pub use pipe::Pipe;
pub use reference::{Reference, Role, has_scheme};
