//! The NBD protocol: a server for anything that implements one small trait, and a [`client`].
//!
//! ```no_run
//! use std::sync::Arc;
//! use hyper2kvm_nbd::{Error, Export, Server};
//!
//! struct Memory(Vec<u8>);
//!
//! impl Export for Memory {
//!     fn size(&self) -> u64 {
//!         self.0.len() as u64
//!     }
//!     fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), Error> {
//!         buf.copy_from_slice(&self.0[offset as usize..][..buf.len()]); // the server checks ranges
//!         Ok(())
//!     }
//! }
//!
//! let server = Server::builder().export("disk", Arc::new(Memory(vec![7; 1 << 20]))).unix("nbd.sock").start()?;
//! println!("nbdinfo --map '{}'", server.uri());
//! server.wait(); // until another thread calls `server.shutdown()`
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # What it speaks
//!
//! Fixed newstyle negotiation, TLS, structured replies with holes, extended headers, block status with `base:allocation` and
//! contexts of the export's own, read ahead, writing for exports that want it, several exports, several connections. [`limits`] names
//! every bound.
//!
//! # How it works
//!
//! ```text
//!  accept, negotiate            transmit (blocking threads, one or more a connection)
//!  one thread, tokio     ──►    reader ──► serves a request itself when it is alone or the export is quick
//!  [`protocol::Handshake`]         └─────► queue ──► up to 16 workers, when requests pile up on a slow export
//!                                              replies in any order, each one write
//! ```
//!
//! At depth 1 a request costs two system calls and no hop to another thread. When many requests arrive at once for an export
//! that answers from memory, they are served and answered in batches. Only when the export takes its time do
//! other threads join in.
//!
//! Nothing that a client sends can make the server panic, allocate without a bound or wait without an end; [`protocol`] is free
//! of I/O and is fuzzed.

pub mod client;
mod export;
mod inherited;
pub mod limits;
pub mod protocol;
mod server;
mod stream;
mod tls;

pub use export::{Allocation, Combine, Context, Errno, Error, Export, Extent, Status, Visit, VisitStatus, Zero};
pub use inherited::systemd_sockets;
pub use server::{Builder, Server, Stats, is_loopback};
pub use tls::{ClientCertificates, TlsClient, TlsServer};
