//! `map`: the extents of the flattened disk.

use std::ops::ControlFlow;

use serde_json::json;

use super::Context;
use crate::cli::args::SourceArgs;
use crate::disk::{Disk, Extent, ExtentKind};
use crate::error::Result;
use crate::pipeline::source;

pub(super) fn run(args: &SourceArgs, context: &Context) -> Result<()> {
    let single = source::open_disk(&args.src, args.disk.as_deref(), &context.global.open_options(), &context.session)?;
    let disk = single.disk.disk();
    let mut printer = Printer { context, first: true, result: Ok(()) };
    printer.begin();
    merged(&*disk, &mut |extent| printer.extent(extent), context)?;
    printer.end();
    printer.result
}

/// Visits the disk's extents with neighbours of one kind and depth, lying one after the other, as one.
fn merged(disk: &dyn Disk, visit: &mut dyn FnMut(&Extent) -> ControlFlow<()>, context: &Context) -> Result<()> {
    let mut held: Option<Extent> = None;
    let mut flow = ControlFlow::Continue(());
    disk.extents(0..disk.len(), &mut |extent| {
        if context.session.check().is_err() {
            return ControlFlow::Break(());
        }
        match &mut held {
            Some(before) if continues(before, &extent) => before.range.end = extent.range.end,
            _ => {
                if let Some(before) = held.replace(extent) {
                    flow = visit(&before);
                }
            }
        }
        flow
    })?;
    context.session.check()?;
    if let (Some(last), ControlFlow::Continue(())) = (held, flow) {
        let _ = visit(&last);
    }
    Ok(())
}

fn continues(before: &Extent, next: &Extent) -> bool {
    let len = before.range.end.saturating_sub(before.range.start);
    before.kind == next.kind
        && before.depth == next.depth
        && (before.kind.is_zero() || before.place.map(|place| place.saturating_add(len)) == next.place)
}

struct Printer<'a> {
    context: &'a Context,
    first: bool,
    result: Result<()>,
}

impl Printer<'_> {
    fn begin(&mut self) {
        if self.context.output.is_json() {
            self.put("{\"extents\":[");
        } else {
            self.put(&format!(
                "{:>18} {:>18}  {:5} {:>5}  {}",
                "offset", "length", "kind", "depth", "place in the source"
            ));
        }
    }

    fn extent(&mut self, extent: &Extent) -> ControlFlow<()> {
        let length = extent.range.end.saturating_sub(extent.range.start);
        let kind = match extent.kind {
            ExtentKind::Data => "data",
            ExtentKind::Zero => "zero",
            ExtentKind::Hole => "hole",
        };
        let line = if self.context.output.is_json() {
            let comma = if self.first { "" } else { "," };
            let object = json!({
                "offset": extent.range.start,
                "length": length,
                "kind": kind,
                "depth": extent.depth,
                "place": extent.place,
            });
            format!("{comma}{object}")
        } else {
            let place = extent.place.map(|place| format!("{place:#x}")).unwrap_or_default();
            format!("{:>#18x} {:>#18x}  {:5} {:>5}  {}", extent.range.start, length, kind, extent.depth, place)
        };
        self.first = false;
        self.put(&line);
        if self.result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }

    fn end(&mut self) {
        if self.context.output.is_json() {
            self.put("]}");
        }
    }

    fn put(&mut self, line: &str) {
        if self.result.is_ok() {
            self.result = self.context.output.line(line);
        }
    }
}
