//! Files of a fixed length in a FUSE mount, for anything that implements one small trait.
//!
//! This package knows no image format. A [`Tree`] says what there is; [`Mount`] shows it, as root or, through the setuid
//! helper `fusermount3`, as any user. Only the user who mounted can look inside.
//!
//! ```no_run
//! use std::sync::Arc;
//! use hyper2kvm_fuse::{Failure, File, Files, Mount, Options};
//!
//! struct Zeros;
//!
//! impl File for Zeros {
//!     fn len(&self) -> u64 {
//!         1 << 20
//!     }
//!     fn read_at(&self, buf: &mut [u8], _offset: u64) -> Result<(), Failure> {
//!         buf.fill(0);
//!         Ok(())
//!     }
//! }
//!
//! let files = Files::new().with("disk.raw", Arc::new(Zeros));
//! let mount = Mount::new(files, "/mnt/disk".as_ref(), &Options::default())?;
//! let stopper = mount.stopper(); // for a signal handler's thread
//! mount.wait()?; // until `fusermount3 -u /mnt/disk` or `stopper.stop()`
//! # Ok::<(), hyper2kvm_fuse::Error>(())
//! ```
//!
//! | file | what |
//! |---|---|
//! | `tree.rs` | the traits that a user implements |
//! | `files.rs` | a directory of named files, the simplest tree |
//! | `mount.rs` | mount, wait, unmount |
//! | `place.rs` | is the mount point fit to be one? |
//! | `kernel.rs` | the only file that knows `fuser` |
//! | `error.rs` | why a mount failed, with stable codes and what to do |

mod error;
mod files;
mod kernel;
mod mount;
mod place;
mod tree;

pub use error::{Error, Reason};
pub use files::Files;
pub use mount::{Ended, Mount, Options, Stopper};
pub use tree::{Attributes, Failure, File, Kind, Listed, Node, Tree, Xattrs};
