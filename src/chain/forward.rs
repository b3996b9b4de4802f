//! From a stream to the content of a disk: what can be done with a file that comes forward only.

use crate::chain::OpenOptions;
use crate::container::{Compression, ovf, tar, vmx};
use crate::disk::{Feed, Stream, read_full};
use crate::error::{Error, Kind, Result};
use crate::format::{Sample, probe};
use crate::session::Session;

/// Bytes from the front that formats are recognised by.
const HEAD: usize = 68 << 10;

/// The disk in `stream`, which may be compressed.
///
/// # Errors
/// `feed.format` for what can only be read in a file, and those of the formats.
pub fn open_feed(stream: Box<dyn Stream>, options: &OpenOptions, session: &Session) -> Result<Box<dyn Feed>> {
    if !options.disks.is_all() || options.snapshot.is_some() {
        return Err(Error::new(Kind::Usage, "feed.choice", "a stream brings one disk, in one state")
            .at(stream.name())
            .hint("save it to a file, and name that as the source"));
    }
    let stream = Rewound::new(stream)?;
    let Some(compression) = compression(&stream, options) else { return disk(stream, options, session) };
    let stream = Rewound::new(compression.decode(Box::new(stream))?)?;
    if Compression::detect(&stream.head).is_some() {
        return Err(
            Error::unsupported("packed.nested", "what is compressed holds something compressed").at(stream.name())
        );
    }
    disk(stream, options, session)
}

/// How the stream is compressed, unless the user says that it is a disk which only begins like that.
fn compression(stream: &Rewound, options: &OpenOptions) -> Option<Compression> {
    let found = Compression::detect(&stream.head)?;
    let only = probe::marks(&stream.sample()).len() == 1;
    (only || options.format.is_none()).then_some(found)
}

fn disk(stream: Rewound, options: &OpenOptions, session: &Session) -> Result<Box<dyn Feed>> {
    let name = stream.name();
    let sample = stream.sample();
    let driver = match options.format.as_deref() {
        Some(format) if !matches!(format, "ova" | "ovf" | "vmx") => probe::by_name(format)?,
        None if !is_package(&stream.head) => probe::detect(&sample).map_err(|error| error.at(&name))?,
        _ => return Err(only_files("a package").at(name)),
    };
    let feed = driver.feed.ok_or_else(|| only_files(driver.name).at(&name))?;
    feed(Box::new(stream), session).map_err(|error| error.at(name))
}

fn is_package(head: &[u8]) -> bool {
    tar::probe(head) || ovf::probe(head) || vmx::probe(head)
}

fn only_files(what: &str) -> Error {
    Error::unsupported("feed.format", format!("{what} cannot be read forward only"))
        .expected("raw, or a stream-optimized VMDK")
        .hint("save it to a file, and name that as the source")
}

/// A stream of which the front was looked at.
#[derive(Debug)]
struct Rewound {
    head: Vec<u8>,
    /// Bytes of the head that were given.
    given: usize,
    rest: Box<dyn Stream>,
}

impl Rewound {
    fn new(mut rest: Box<dyn Stream>) -> Result<Self> {
        let mut head = vec![0; HEAD];
        let count = read_full(&mut *rest, &mut head)?;
        head.truncate(count);
        if head.is_empty() {
            return Err(Error::new(Kind::Unreadable, "source.empty", "the source is empty")
                .at(rest.name())
                .hint("what should write it failed, or wrote nothing"));
        }
        Ok(Self { head, given: 0, rest })
    }

    /// What formats are recognised by; the end is not known.
    fn sample(&self) -> Sample {
        let len = if self.head.len() < HEAD { self.head.len() as u64 } else { u64::MAX };
        Sample { len, head: self.head.clone(), tail: Vec::new() }
    }
}

impl Stream for Rewound {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        let left = self.head.get(self.given..).unwrap_or_default();
        if left.is_empty() {
            return self.rest.read(buf);
        }
        let count = left.len().min(buf.len());
        buf[..count].copy_from_slice(&left[..count]);
        self.given += count;
        Ok(count)
    }

    fn name(&self) -> String {
        self.rest.name()
    }
}
