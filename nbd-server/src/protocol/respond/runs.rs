//! What to send of a read as data and what as holes.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::ops::{ControlFlow, Range};

use super::guarded;
use crate::export::Export;
use crate::limits::{MAX_RUNS, MIN_HOLE};

/// A part of a read that is sent as data, or as a hole.
pub(super) struct Run {
    pub(super) length: u64,
    pub(super) zero: bool,
}

/// What to send of `range` as data and what as holes. Short holes are data, and so is everything if the export cannot tell.
pub(super) fn runs(export: &dyn Export, range: Range<u64>) -> Vec<Run> {
    let length = range.end.saturating_sub(range.start);
    let mut left = length;
    let mut found: Vec<Run> = Vec::new();
    let told = guarded(|| {
        export.extents(range, &mut |extent| {
            let run = Run { length: extent.length.min(left), zero: extent.kind.is_zero() };
            left = left.saturating_sub(run.length);
            append_run(&mut found, run);
            if left == 0 || found.len() >= MAX_RUNS { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
    });
    if told.is_err() {
        return vec![Run { length, zero: false }];
    }
    append_run(&mut found, Run { length: left, zero: false });
    let mut runs = Vec::new();
    for Run { length, zero } in found {
        append_run(&mut runs, Run { length, zero: zero && length >= MIN_HOLE });
    }
    runs
}

fn append_run(runs: &mut Vec<Run>, run: Run) {
    match runs.last_mut() {
        _ if run.length == 0 => {}
        Some(last) if last.zero == run.zero => last.length = last.length.saturating_add(run.length),
        _ => runs.push(run),
    }
}
