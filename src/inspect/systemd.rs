//! What systemd would say of a guest that does not run, from its files: which units it has and whether they are enabled, and times
//! as it writes them.

pub mod calendar;
pub mod time;
pub mod zones;

mod install;
mod names;
mod preset;
mod units;

pub use preset::Preset;
pub use units::{Unit, UnitState, Units};

#[cfg(test)]
mod tests;
