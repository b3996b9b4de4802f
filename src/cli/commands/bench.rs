//! `bench`: latency and throughput of a source, as it lies there.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::Context;
use crate::cli::args::BenchArgs;
use crate::cli::size::Size;
use crate::disk::Disk;
use crate::error::Result;
use crate::pipeline::bench::{Figures, Load, measure};
use crate::source::{FileSource, Location, open_remote};

/// Bytes of the requests that tell how long a way it is to the source.
const SMALL: u64 = 4 << 10;

pub(super) fn run(args: &BenchArgs, context: &Context) -> Result<()> {
    let location = Location::parse(&args.src)?;
    let disk: Arc<dyn Disk> = match &location {
        Location::Path(path) => FileSource::open(path)?,
        Location::Remote(address) => open_remote(address, &context.session)?,
    };
    let time = Duration::from_secs(args.seconds.into());
    let load = |depth, request| Load { depth, request, time };
    let loads: Vec<Load> =
        std::iter::once(load(1, SMALL)).chain(args.depth.iter().map(|depth| load(*depth, args.request.0))).collect();
    context.output.text(
        &context
            .output
            .bold("depth  request     requests  retries  rate          latency: least, half, 90 %, 99 %, most"),
    )?;
    let mut shown = Ok(());
    let all = measure(&disk, &loads, &context.session, &mut |figures| {
        shown = std::mem::replace(&mut shown, Ok(())).and_then(|()| context.output.text(&line(figures)));
    })?;
    shown?;
    let runs: Vec<Value> = all.iter().map(figures_json).collect();
    if context.output.is_json() {
        context.output.json(&json!({ "source": location.to_string(), "size": disk.len(), "runs": runs }))?;
    }
    Ok(())
}

/// How many of the reads took no longer, in percent.
const RANKS: [usize; 5] = [0, 50, 90, 99, 100];

fn line(figures: &Figures) -> String {
    let Load { depth, request, .. } = figures.load;
    let latencies =
        RANKS.map(|percent| format!("{:.1} ms", figures.latency(percent).as_secs_f64() * 1000.0)).join(", ");
    let rate = format!("{}/s", Size(figures.rate()));
    format!(
        "{depth:<6} {:<11} {:<9} {:<8} {rate:<13} {latencies}",
        Size(request).to_string(),
        figures.requests,
        figures.retries
    )
}

fn figures_json(figures: &Figures) -> Value {
    let [min, p50, p90, p99, max] = RANKS.map(|percent| figures.latency(percent).as_secs_f64());
    json!({
        "depth": figures.load.depth,
        "request": figures.load.request,
        "requests": figures.requests,
        "retries": figures.retries,
        "bytes": figures.bytes,
        "seconds": figures.elapsed.as_secs_f64(),
        "bytes_per_second": figures.rate(),
        "latency": { "min": min, "p50": p50, "p90": p90, "p99": p99, "max": max },
    })
}
