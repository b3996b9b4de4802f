//! From names to one flat disk: the resolver that opens what images refer to, and the one loop that reads their layers.

mod resolver;

pub use resolver::{Resolved, Resolver};
