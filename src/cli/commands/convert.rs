//! `convert`: copies a disk as it is.

use std::num::NonZeroU64;

use serde_json::json;

use super::Context;
use crate::cli::args::{ConvertArgs, Switch};
use crate::cli::progress::Shown;
use crate::cli::signals;
use crate::cli::size::Size;
use crate::convert::{self, Options, Outcome, Verification};
use crate::disk::Disk;
use crate::error::Result;
use crate::pipeline::{self, guest, source};

mod wanted;

use wanted::wanted;

pub(super) fn run(args: &ConvertArgs, context: &Context) -> Result<()> {
    let from = &args.source;
    signals::cancel_on_signal(&context.session, || ())?;
    if !args.restart && !args.is_stdout() {
        convert::resume(std::slice::from_ref(&args.dst), &context.session);
    }
    let single = source::open_disk(&from.src, from.disk.as_deref(), &context.global.open_options(), &context.session)?;
    let mut disk = single.disk.disk();
    if args.skip_free_space {
        disk = guest::without_free_space(&single.disk, &context.session)?;
    }
    let (format, base) = wanted(args, &context.session)?;
    let options = Options {
        format,
        base,
        size: args.size.map(|size| size.0),
        verify: context.global.verify == Switch::On,
        force: args.force,
        restart: args.restart,
        rate_limit: context.global.rate_limit.and_then(|rate| NonZeroU64::new(rate.0)),
    };
    if context.global.dry_run {
        return dry_run(&*disk, args, context);
    }
    context.session.begin_streaming();
    let shown = Shown::new(&context.global);
    let prepared = if args.is_stdout() {
        convert::prepare_stdout(disk, &options, &context.session, &shown)?
    } else {
        convert::prepare(disk, &args.dst, &options, &context.session, &shown)?
    };
    let unfinished = prepared.unfinished();
    let copied = prepared.copy(&shown)?;
    let digests = pipeline::finish_digests(&single.opened).inspect_err(|error| unfinished.give_up(error))?;
    let outcome = copied.verify(&shown)?.seal(&shown)?;
    drop(shown);
    let json = json!({
        "source": from.src,
        "digests": pipeline::digests_json(&digests),
        "output": outcome_json(&outcome),
    });
    context.output.result(&json, &outcome_text(&outcome))
}

fn dry_run(disk: &dyn Disk, args: &ConvertArgs, context: &Context) -> Result<()> {
    let data = pipeline::export::data_bytes(disk)?;
    let text = format!("would write {}: {} of {} hold data", args.dst.display(), Size(data), Size(disk.len()));
    let json = json!({ "dry_run": true, "virtual_size": disk.len(), "data_bytes": data });
    context.output.result(&json, &text)
}

/// An output as JSON.
pub(super) fn outcome_json(outcome: &Outcome) -> serde_json::Value {
    let times = &outcome.times;
    json!({
        "path": outcome.path.display().to_string(),
        "virtual_size": outcome.len,
        "file_size": outcome.file_len,
        "bytes": {
            "read": outcome.bytes.read,
            "written": outcome.bytes.written,
            "zero": outcome.bytes.zero,
            "hole": outcome.bytes.hole,
            "resumed": outcome.bytes.resumed,
        },
        "digest": format!("blake3:{}", outcome.digest),
        "verified": outcome.verification == Verification::Passed,
        "seconds": {
            "plan": times.plan.as_secs_f64(),
            "copy": times.copy.as_secs_f64(),
            "sync": times.sync.as_secs_f64(),
            "verify": times.verify.as_secs_f64(),
            "seal": times.seal.as_secs_f64(),
        },
    })
}

/// An output in one line.
pub(super) fn outcome_text(outcome: &Outcome) -> String {
    let verified = match outcome.verification {
        Verification::Passed => "verified",
        Verification::Off => "not verified",
    };
    let resumed = match outcome.bytes.resumed {
        0 => String::new(),
        resumed => format!(" {} done before,", Size(resumed)),
    };
    format!(
        "{}: {} virtual, {} on disk;{resumed} {} copied, {} zero, {} skipped; {verified}, blake3 {}",
        crate::error::escape(&outcome.path.display().to_string()),
        Size(outcome.len),
        Size(outcome.file_len),
        Size(outcome.bytes.written),
        Size(outcome.bytes.zero),
        Size(outcome.bytes.hole),
        outcome.digest.get(..16).unwrap_or(&outcome.digest)
    )
}
