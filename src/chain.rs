//! From names to one flat disk: the resolver that opens what images refer to, and the one loop that reads their layers.

mod image;
mod open;
mod resolver;
#[cfg(test)]
mod tests;

pub use image::Image;
pub use open::{OpenOptions, Opened, OpenedDisk, Selector, open};
pub use resolver::{Resolved, Resolver};
