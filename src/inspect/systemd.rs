//! What systemd would say of a guest that does not run, from its files: which units it has and whether they are enabled, what they
//! ask of each other, what is wrong with them, and times as it writes them.

pub mod calendar;
pub mod time;
pub mod zones;

mod check;
mod file;
mod install;
mod load;
mod names;
mod preset;
mod tables;
mod units;

pub use file::Problem;
pub use load::{Dependency, DependencyKind, Graph, Loaded, Origin};
pub use preset::Preset;
pub use tables::{MountUnit, Socket, Timer};
pub use units::{Scope, Unit, UnitState, Units};

#[cfg(test)]
mod tests;
