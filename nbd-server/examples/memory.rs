//! Serves memory that clients may write to: `memory SOCKET_OR_ADDRESS [SIZE [PATTERN [DELAY_US]]]`, the counterpart of `nbdkit memory`.
//!
//! PATTERN is `data` (no byte is zero; the default), `zeros`, or `mixed` (every other 64 KiB is a hole). With DELAY_US each
//! read sleeps, as a remote source would. Stops when standard input ends.

use std::io::Read;
use std::ops::{ControlFlow, Range};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use hyper2kvm_nbd::{Allocation, Error, Export, Extent, Server, Visit};

const RUN: u64 = 64 << 10;

/// Bytes under one lock.
const PAGE: usize = 256 << 10;

struct Memory {
    pages: Vec<RwLock<Vec<u8>>>,
    size: u64,
    pattern: Pattern,
    delay: Duration,
}

#[derive(Clone, Copy, PartialEq)]
enum Pattern {
    Data,
    Mixed,
    Zeros,
}

impl Memory {
    /// Calls with each page of a range, the place in the page, and the part of the range.
    fn each(
        &self,
        offset: u64,
        len: usize,
        mut call: impl FnMut(&RwLock<Vec<u8>>, usize, Range<usize>),
    ) -> Result<(), Error> {
        let offset = usize::try_from(offset).map_err(|_| Error::io("offset"))?;
        let mut done = 0;
        while done < len {
            let (page, at) = ((offset + done) / PAGE, (offset + done) % PAGE);
            let part = done..len.min(done + PAGE - at);
            done = part.end;
            call(self.pages.get(page).ok_or_else(|| Error::io("range"))?, at, part);
        }
        Ok(())
    }
}

impl Export for Memory {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), Error> {
        if !self.delay.is_zero() {
            std::thread::sleep(self.delay);
        }
        self.each(offset, buf.len(), |page, at, part| {
            let page = page.read().unwrap_or_else(PoisonError::into_inner);
            buf[part.clone()].copy_from_slice(&page[at..at + part.len()]);
        })
    }

    fn is_writable(&self) -> bool {
        true
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<(), Error> {
        self.each(offset, buf.len(), |page, at, part| {
            let mut page = page.write().unwrap_or_else(PoisonError::into_inner);
            page[at..at + part.len()].copy_from_slice(&buf[part]);
        })
    }

    fn extents(&self, range: Range<u64>, visit: &mut Visit<'_>) -> Result<(), Error> {
        // What the map says of zeros holds until somebody writes; writers should choose `data`.
        let mut at = range.start;
        while at < range.end {
            let (length, kind) = match self.pattern {
                Pattern::Data => (range.end - at, Allocation::Data),
                Pattern::Zeros => (range.end - at, Allocation::Hole),
                Pattern::Mixed if (at / RUN).is_multiple_of(2) => (RUN - at % RUN, Allocation::Data),
                Pattern::Mixed => (RUN - at % RUN, Allocation::Hole),
            };
            if visit(Extent { length, kind }) == ControlFlow::Break(()) {
                break;
            }
            at += length;
        }
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let address = args.next().ok_or("usage: memory SOCKET_OR_ADDRESS [SIZE [data|mixed|zeros [DELAY_US]]]")?;
    let size: usize = args.next().map_or(Ok(1 << 30), |size| size.parse())?;
    let pattern = match args.next().as_deref() {
        Some("zeros") => Pattern::Zeros,
        Some("mixed") => Pattern::Mixed,
        _ => Pattern::Data,
    };
    let delay = Duration::from_micros(args.next().map_or(Ok(0), |delay| delay.parse())?);

    let mut bytes = vec![0; size];
    if pattern != Pattern::Zeros {
        for (index, run) in bytes.chunks_mut(usize::try_from(RUN)?).enumerate() {
            if pattern == Pattern::Data || index % 2 == 0 {
                run.fill(u8::try_from(index % 251)? + 1);
            }
        }
    }
    let pages = bytes.chunks(PAGE).map(|page| RwLock::new(page.to_vec())).collect();
    let builder =
        Server::builder().export("memory", Arc::new(Memory { pages, size: bytes.len() as u64, pattern, delay }));
    let server = match address.parse() {
        Ok(address) => builder.tcp(address).start()?,
        Err(_) => builder.unix(address).start()?,
    };
    print_uri(&server.uri());
    std::io::stdin().read_to_end(&mut Vec::new())?;
    server.shutdown();
    server.wait();
    Ok(())
}

#[allow(clippy::print_stdout, reason = "the URI is the program's output")]
fn print_uri(uri: &str) {
    println!("{uri}");
}
