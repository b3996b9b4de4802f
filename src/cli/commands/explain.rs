//! `explain`: the tree of layers, with bytes, reads and latency of each.

use std::sync::Arc;

use serde_json::{Value, json};

use super::Context;
use crate::cli::args::ExplainArgs;
use crate::cli::size::Size;
use crate::disk::Disk;
use crate::error::{Result, escape};
use crate::pipeline::source;

/// Bytes read at a time with `--read`.
const CHUNK: usize = 1 << 20;

/// Bytes that the source is told of ahead of what is read.
const LEAD: u64 = 8 << 20;

pub(super) fn run(args: &ExplainArgs, context: &Context) -> Result<()> {
    let from = &args.source;
    let single = source::open_disk(&from.src, from.disk.as_deref(), &context.global.open_options(), &context.session)?;
    let disk = single.disk.disk();
    if args.read {
        context.session.begin_streaming();
        read_all(&*disk, context)?;
    }
    let mut text = String::new();
    draw(&disk, 0, &mut text);
    context.output.result(&json!({ "layers": node(&disk) }), &text)
}

fn read_all(disk: &dyn Disk, context: &Context) -> Result<()> {
    let mut buf = vec![0; CHUNK];
    let mut offset = 0;
    disk.prefetch(0..LEAD.min(disk.len()));
    while offset < disk.len() {
        context.session.check()?;
        let len = usize::try_from(disk.len().saturating_sub(offset)).unwrap_or(CHUNK).min(CHUNK);
        let (head, _) = buf.split_at_mut(len);
        let ahead = offset.saturating_add(LEAD);
        disk.prefetch(ahead.min(disk.len())..ahead.saturating_add(len as u64).min(disk.len()));
        disk.read_at(head, offset)?;
        offset = offset.saturating_add(len as u64);
    }
    Ok(())
}

fn node(disk: &Arc<dyn Disk>) -> Value {
    let (kind, label) = disk.describe();
    let stats = disk.stats().unwrap_or_default();
    let mut json = json!({
        "kind": kind,
        "label": label,
        "size": disk.len(),
        "bytes_read": stats.bytes,
        "reads": stats.reads,
        "nanoseconds": stats.nanoseconds,
        "below": disk.below().iter().map(node).collect::<Vec<_>>(),
    });
    if let Some(traffic) = disk.traffic() {
        json["traffic"] = crate::pipeline::traffic_json(traffic);
    }
    json
}

fn draw(disk: &Arc<dyn Disk>, depth: usize, text: &mut String) {
    let (kind, label) = disk.describe();
    let stats = disk.stats().unwrap_or_default();
    let latency = stats.nanoseconds.checked_div(stats.reads).unwrap_or(0) / 1000;
    let indent = "  ".repeat(depth);
    text.push_str(&format!("{indent}{kind} {}, {}", escape(&label), Size(disk.len())));
    text.push_str(&format!(": {} read in {} reads, {latency} µs each\n", Size(stats.bytes), stats.reads));
    if let Some(traffic) = disk.traffic() {
        let wait = traffic.waited.checked_div(traffic.requests).unwrap_or(0) / 1000;
        let busy = traffic.nanoseconds.saturating_sub(traffic.waited).max(1);
        let rate = u128::from(traffic.bytes) * 1_000_000_000 / u128::from(busy);
        let rate = Size(u64::try_from(rate).unwrap_or(u64::MAX));
        let (bytes, requests, retries) = (Size(traffic.bytes), traffic.requests, traffic.retries);
        text.push_str(&format!("{indent}  {bytes} in {requests} requests and {retries} retries; first byte after {wait} µs, then {rate}/s each\n"));
    }
    for below in disk.below() {
        draw(&below, depth + 1, text);
    }
}
