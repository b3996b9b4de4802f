//! Whether the output fits, said before the first byte is written.

use std::collections::BTreeMap;

use super::Prepared;
use super::output::Output;
use super::plan::{BLOCK, CHUNK, Planner, WINDOW};
use super::sink::Sink;
use crate::disk::Disk;
use crate::error::{Error, Kind, Result};
use crate::session::Session;

/// What a conversion will read and at most write, by the source's map. Zeros among the data are not known yet, so the output
/// may well become smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Needs {
    /// Bytes to read.
    pub(super) read: u64,
    /// Upper bound of the output file's allocated bytes.
    pub(super) file: u64,
}

/// Walks the map of `source`.
pub(super) fn needs(source: &dyn Disk, sink: &dyn Sink, session: &Session) -> Result<Needs> {
    let mut planner = Planner::new(source);
    let (mut read, mut data, mut windows, mut last) = (0_u64, 0_u64, 0_u64, None);
    while let Some(task) = planner.next()? {
        let window = task.chunk / (WINDOW / CHUNK);
        if last.replace(window) != Some(window) {
            session.check()?;
            windows += 1;
        }
        let bytes = task.bytes(source.len());
        read = read.saturating_add(bytes);
        // A cluster is written whole when any block of it has data.
        data = data.saturating_add(if sink.granule() > BLOCK { CHUNK } else { bytes.next_multiple_of(sink.granule()) });
    }
    Ok(Needs { read, file: data.saturating_add(sink.overhead(data, windows)) })
}

impl Needs {
    /// Refuses when the output's file system has less room than that.
    pub(super) fn check_free(self, output: &dyn Output) -> Result<()> {
        match output.free_space()? {
            Some(free) if free < self.file => Err(too_little(self.file, free).at(output.name())),
            _ => Ok(()),
        }
    }
}

/// Refuses when several prepared outputs do not fit together, where they share a file system.
///
/// # Errors
/// `output.space` with the figures.
pub fn check_space(outputs: &[Prepared]) -> Result<()> {
    let mut sums: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for prepared in outputs {
        let output = &prepared.job.output;
        if let (Some(device), Some(free)) = (output.device(), output.free_space()?) {
            let sum = sums.entry(device).or_insert((0, free));
            sum.0 = sum.0.saturating_add(prepared.needs.file);
        }
    }
    match sums.into_values().find(|(needed, free)| needed > free) {
        Some((needed, free)) => Err(too_little(needed, free)),
        None => Ok(()),
    }
}

fn too_little(needed: u64, free: u64) -> Error {
    Error::new(Kind::NoSpace, "output.space", "the output may not fit into its file system")
        .expected(format!("{} MiB free", needed.div_ceil(1 << 20)))
        .found(format!("{} MiB", free >> 20))
        .hint("free some space or choose another output directory")
}
