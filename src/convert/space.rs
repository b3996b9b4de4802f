//! Whether the output fits, said before the first byte is written.

use std::collections::BTreeMap;

use super::Prepared;
use super::plan::{BLOCK, CHUNK, Planner, WINDOW};
use super::share::Sharing;
use super::sink::{Order, Sink};
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

/// Walks the map of `source`, and refuses as soon as the data alone does not fit into `free` bytes, those that the output has
/// already included.
pub(super) fn needs(
    source: &dyn Disk,
    sink: &dyn Sink,
    sharing: &Sharing,
    free: Option<u64>,
    session: &Session,
) -> Result<Needs> {
    let mut planner = Planner::new(source, Order::Disk);
    let granule = sink.shape().granule;
    let (mut read, mut data, mut windows, mut last) = (0_u64, 0_u64, 0_u64, None);
    while let Some(task) = planner.next()? {
        let window = task.chunk / (WINDOW / CHUNK);
        if last.replace(window) != Some(window) {
            session.check()?;
            check(data, free)?;
            windows += 1;
        }
        let bytes = task.bytes(source.len());
        read = read.saturating_add(bytes);
        if sharing.takes_whole(source, &task)? {
            continue;
        }
        // A cluster is written whole when any block of it has data.
        data = data.saturating_add(if granule > BLOCK { CHUNK } else { bytes.next_multiple_of(granule) });
    }
    let file = data.saturating_add(sink.overhead(data, windows));
    check(file, free)?;
    Ok(Needs { read, file })
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
            sum.0 = sum.0.saturating_add(prepared.needs.file.saturating_sub(output.allocated()));
        }
    }
    sums.into_values().try_for_each(|(needed, free)| check(needed, Some(free)))
}

/// Refuses when `needed` bytes are more than are `free`.
fn check(needed: u64, free: Option<u64>) -> Result<()> {
    let Some(free) = free.filter(|free| *free < needed) else { return Ok(()) };
    Err(Error::new(Kind::NoSpace, "output.space", "the output may not fit where it is to be written")
        .expected(format!("at least {} MiB free", needed.div_ceil(1 << 20)))
        .found(format!("{} MiB", free >> 20))
        .hint("free some space or choose another place for the output"))
}
