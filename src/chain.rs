//! From names to one flat disk: the resolver that opens what images refer to, and the one loop that reads their layers.

mod forward;
mod image;
mod open;
mod resolver;
mod running;
mod selection;
#[cfg(test)]
mod tests;

pub use forward::open_feed;
pub use image::Image;
pub use open::{OpenOptions, Opened, OpenedDisk, open};
pub use resolver::{Resolved, Resolver};
pub use selection::{Selection, Selector};
