//! Mounts a file `disk.raw` of a known pattern: even mebibytes hold data, odd ones are holes.
//!
//! `pattern DIR LEN [--cache] [--threads N] [--delay MICROSECONDS] [--fail]
//! [--backing FILE]` says `mounted`, and stops on SIGINT or SIGTERM
//! or when it is unmounted. `--fail` makes reads of the third mebibyte fail, `--backing` tells the kernel to read FILE instead. Tests use it, and so does anyone who measures.

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use hyper2kvm_fuse::{Ended, Failure, File, Files, Mount, Options};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

const MIB: u64 = 1 << 20;

struct Pattern {
    len: u64,
    block: Vec<u8>,
    delay: Duration,
    fail: bool,
    backing: Option<Arc<std::fs::File>>,
}

impl File for Pattern {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), Failure> {
        std::thread::sleep(self.delay);
        let mut at = offset;
        for piece in (Pieces { rest: buf, offset }) {
            if self.fail && at / MIB == 2 {
                return Err(Failure::Io);
            }
            if (at / MIB).is_multiple_of(2) {
                let from = (at % MIB) as usize;
                piece.copy_from_slice(&self.block[from..from + piece.len()]);
            } else {
                piece.fill(0);
            }
            at += piece.len() as u64;
        }
        Ok(())
    }

    fn backing(&self) -> Option<Arc<std::fs::File>> {
        self.backing.clone()
    }

    fn next_data(&self, offset: u64) -> Result<Option<u64>, Failure> {
        let data = if (offset / MIB).is_multiple_of(2) { offset } else { (offset / MIB + 1) * MIB };
        Ok(Some(data).filter(|&data| data < self.len))
    }

    fn next_hole(&self, offset: u64) -> Result<u64, Failure> {
        let hole = if (offset / MIB).is_multiple_of(2) { (offset / MIB + 1) * MIB } else { offset };
        Ok(hole.min(self.len))
    }
}

/// A buffer in pieces that do not cross a mebibyte.
struct Pieces<'a> {
    rest: &'a mut [u8],
    offset: u64,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a mut [u8];

    fn next(&mut self) -> Option<&'a mut [u8]> {
        let len = self.rest.len().min((MIB - self.offset % MIB) as usize);
        let (piece, rest) = std::mem::take(&mut self.rest).split_at_mut(len);
        self.rest = rest;
        self.offset += len as u64;
        (len > 0).then_some(piece)
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(Ended::Unmounted) => ExitCode::SUCCESS,
        Ok(Ended::Busy) => {
            let _ = writeln!(std::io::stderr(), "busy");
            ExitCode::from(3)
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<Ended, Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let dir = PathBuf::from(args.next().ok_or("DIR")?);
    let len: u64 = args.next().ok_or("LEN")?.parse()?;
    let mut options = Options::default();
    let (mut delay, mut fail, mut backing) = (Duration::ZERO, false, None);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--cache" => options.page_cache = true,
            "--threads" => options.threads = args.next().ok_or("--threads N")?.parse::<NonZeroUsize>()?,
            "--delay" => delay = Duration::from_micros(args.next().ok_or("--delay N")?.parse()?),
            "--fail" => fail = true,
            "--backing" => backing = Some(Arc::new(open(&args.next().ok_or("--backing FILE")?)?)),
            other => return Err(format!("unknown argument {other}").into()),
        }
    }
    let block = (0..MIB / 8).flat_map(|word| word.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()).collect();
    let files =
        Files::new().with_allocated("disk.raw", Arc::new(Pattern { len, block, delay, fail, backing }), len / 2);
    let mount = Mount::new(files, &dir, &options).map_err(|error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(" ({cause})")).unwrap_or_default();
        format!("[{}] {error}{cause}; {}", error.code(), error.hint().unwrap_or_default())
    })?;
    let stopper = mount.stopper();
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    std::thread::spawn(move || signals.forever().for_each(|_| stopper.stop()));
    writeln!(std::io::stdout(), "mounted")?;
    Ok(mount.wait()?)
}

#[allow(clippy::disallowed_methods, reason = "the file that the user names")]
fn open(path: &str) -> std::io::Result<std::fs::File> {
    std::fs::File::open(path)
}
