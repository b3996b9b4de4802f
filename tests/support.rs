//! What the tests are written with: say what to run, then what must hold of it.

pub(crate) mod boot;
pub(crate) mod clouds;
pub(crate) mod device;
pub(crate) mod fixtures;
pub(crate) mod idle;
pub(crate) mod kernel;
pub(crate) mod lab;
pub(crate) mod line;
pub(crate) mod migrated;
pub(crate) mod mount;
pub(crate) mod nbd;
pub(crate) mod run;
pub(crate) mod sequences;
pub(crate) mod ssh;
pub(crate) mod tools;
pub(crate) mod tree;
pub(crate) mod web;

pub(crate) use boot::{Bus, Machine, Nic};
pub(crate) use device::Loop;
pub(crate) use fixtures::Variant;
pub(crate) use lab::Lab;
pub(crate) use migrated::{Migrated, only, replayed_source};
pub(crate) use mount::Mounted;
pub(crate) use run::{Ran, Run};
pub(crate) use tree::Tree;

/// An ordinary user, who owns nothing: `nobody` on Debian.
pub(crate) const NOBODY: u32 = 65534;

/// Where the guest's only partition begins.
pub(crate) const PARTITION: u64 = 2048 * 512;
