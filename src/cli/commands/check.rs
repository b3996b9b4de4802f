//! `check`: verifies the metadata of every layer of a source, and writes nothing.

use std::ops::ControlFlow;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::Context;
use crate::chain::{Opened, OpenedDisk};
use crate::cli::args::SourceArgs;
use crate::cli::signals;
use crate::error::{Kind, Result, escape};
use crate::format::{Finding, Layer, Place, Severity};
use crate::limits::MAX_FINDINGS;
use crate::pipeline::source;
use crate::session::Session;

pub(super) fn run(args: &SourceArgs, context: &Context) -> Result<ExitCode> {
    signals::cancel_on_signal(&context.session, || ())?;
    let opened = source::open_one(&args.src, args.disk.as_deref(), &context.global.open_options(), &context.session)?;
    let disks: Vec<Checked> =
        opened.disks.iter().map(|disk| Checked::of(disk, &context.session)).collect::<Result<_>>()?;
    let total = disks.iter().flat_map(|disk| &disk.layers).fold(Counts::default(), |sum, layer| sum + layer.counts);
    context.output.result(&json_of(&opened, &disks, total), &text_of(&opened, &disks, total, context))?;
    let verdict = if total.corruptions > 0 { Kind::Corrupt.exit_code() } else { 0 };
    Ok(ExitCode::from(verdict))
}

/// What was found in a disk's layers.
struct Checked {
    name: String,
    layers: Vec<CheckedLayer>,
}

struct CheckedLayer {
    format: &'static str,
    file: String,
    virtual_size: u64,
    unit_size: u64,
    counts: Counts,
    /// The first [`MAX_FINDINGS`].
    findings: Vec<Finding>,
    /// `None` where the tables cannot be read to their end.
    units: Option<Units>,
}

#[derive(Clone, Copy, Default)]
struct Counts {
    corruptions: u64,
    leaks: u64,
    notes: u64,
}

impl std::ops::Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            corruptions: self.corruptions.saturating_add(other.corruptions),
            leaks: self.leaks.saturating_add(other.leaks),
            notes: self.notes.saturating_add(other.notes),
        }
    }
}

/// Units of a layer: what `qemu-img check` calls clusters.
#[derive(Clone, Copy, Default)]
struct Units {
    total: u64,
    allocated: u64,
    encoded: u64,
}

impl Checked {
    fn of(disk: &OpenedDisk, session: &Session) -> Result<Self> {
        let layers = disk.image.inner().layers().map(|layer| CheckedLayer::of(&**layer, session));
        Ok(Self { name: disk.name.clone(), layers: layers.collect::<Result<_>>()? })
    }
}

impl CheckedLayer {
    fn of(layer: &dyn Layer, session: &Session) -> Result<Self> {
        let mut counts = Counts::default();
        let mut findings = Vec::new();
        let file = layer.files().first().map(|file| file.name()).unwrap_or_default();
        let result = layer.check(&mut |finding| {
            let count = match finding.severity {
                Severity::Corruption => &mut counts.corruptions,
                Severity::Leak => &mut counts.leaks,
                Severity::Note => &mut counts.notes,
            };
            *count = count.saturating_add(1);
            if findings.len() < MAX_FINDINGS {
                findings.push(finding);
            }
            if session.check().is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        result.map_err(|error| error.at(&file))?;
        session.check()?;
        Ok(Self {
            format: layer.format(),
            file,
            virtual_size: layer.len(),
            unit_size: layer.unit_size(),
            counts,
            findings,
            units: Units::of(layer, session)?,
        })
    }
}

impl Units {
    fn of(layer: &dyn Layer, session: &Session) -> Result<Option<Self>> {
        let (len, unit) = (layer.len(), layer.unit_size().max(1));
        let mut units = Self { total: len.div_ceil(unit), ..Self::default() };
        let mut at = 0_u64;
        // The first unit that is not counted yet: runs may begin and end inside of one.
        let mut next = 0_u64;
        while at < len {
            session.check()?;
            let Ok(run) = layer.map(at, len.saturating_sub(at)) else { return Ok(None) };
            let end = at.saturating_add(run.len.max(1));
            if matches!(run.place, Place::Data { .. } | Place::Encoded(_)) {
                let fresh = end.div_ceil(unit).saturating_sub(next.max(at / unit));
                next = end.div_ceil(unit);
                units.allocated = units.allocated.saturating_add(fresh);
                if matches!(run.place, Place::Encoded(_)) {
                    units.encoded = units.encoded.saturating_add(fresh);
                }
            }
            at = end;
        }
        Ok(Some(units))
    }
}

fn json_of(opened: &Opened, disks: &[Checked], total: Counts) -> Value {
    let disks: Vec<Value> = disks
        .iter()
        .map(|disk| json!({ "name": disk.name, "layers": disk.layers.iter().map(layer_json).collect::<Vec<_>>() }))
        .collect();
    json!({
        "source": opened.location.to_string(),
        "container": opened.container,
        "corruptions": total.corruptions,
        "leaks": total.leaks,
        "notes": opened.notes,
        "disks": disks,
    })
}

fn layer_json(layer: &CheckedLayer) -> Value {
    let findings: Vec<Value> = layer
        .findings
        .iter()
        .map(|finding| {
            let severity = finding.severity.name();
            json!({ "severity": severity, "what": escape(&finding.what), "offset": finding.offset })
        })
        .collect();
    let units = layer.units;
    json!({
        "format": layer.format,
        "file": layer.file,
        "virtual_size": layer.virtual_size,
        "unit_size": layer.unit_size,
        "total_units": layer.virtual_size.div_ceil(layer.unit_size.max(1)),
        "allocated_units": units.map(|units| units.allocated),
        "encoded_units": units.map(|units| units.encoded),
        "corruptions": layer.counts.corruptions,
        "leaks": layer.counts.leaks,
        "findings": findings,
    })
}

fn text_of(opened: &Opened, disks: &[Checked], total: Counts, context: &Context) -> String {
    let mut text = String::new();
    for disk in disks {
        if disks.len() > 1 {
            text.push_str(&format!("{}\n", context.output.bold(&escape(&disk.name))));
        }
        for layer in &disk.layers {
            text.push_str(&layer_text(layer, context));
        }
    }
    for note in &opened.notes {
        text.push_str(&format!("note: {}\n", escape(note)));
    }
    text.push_str(&match (total.corruptions, total.leaks) {
        (0, 0) => context.output.green("no errors were found") + "\n",
        (0, leaks) => format!("{leaks} leaks were found: space is lost, data is not\n"),
        (corruptions, 0) => format!("{corruptions} corruptions were found: data may be lost or wrong\n"),
        (corruptions, leaks) => {
            format!("{corruptions} corruptions and {leaks} leaks were found: data may be lost or wrong\n")
        }
    });
    text
}

fn layer_text(layer: &CheckedLayer, context: &Context) -> String {
    let mut text = format!("{} ({})\n", context.output.bold(&escape(&layer.file)), layer.format);
    for finding in &layer.findings {
        let severity = context.output.yellow(finding.severity.name());
        text.push_str(&format!("  {severity}: {}", escape(&finding.what)));
        if let Some(offset) = finding.offset {
            text.push_str(&format!(" at offset {offset:#x}"));
        }
        text.push('\n');
    }
    let Counts { corruptions, leaks, notes } = layer.counts;
    let told = u64::try_from(layer.findings.len()).unwrap_or(u64::MAX);
    let more = corruptions.saturating_add(leaks).saturating_add(notes).saturating_sub(told);
    if more > 0 {
        text.push_str(&format!("  and {more} findings more\n"));
    }
    if let Some(units) = layer.units {
        text.push_str(&format!(
            "  {} of {} units of {} bytes are allocated, {} of them encoded\n",
            units.allocated, units.total, layer.unit_size, units.encoded
        ));
    }
    text
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "limits are far from the ends of their types")]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::disk::Disk;
    use crate::format::{Report, Run};

    /// A layer in which so much is wrong.
    #[derive(Debug)]
    struct Wrong(usize);

    impl Layer for Wrong {
        fn format(&self) -> &'static str {
            "wrong"
        }

        fn len(&self) -> u64 {
            512
        }

        fn unit_size(&self) -> u64 {
            512
        }

        fn map(&self, _offset: u64, max: u64) -> Result<Run> {
            Ok(Run { len: max, place: Place::Zero })
        }

        fn files(&self) -> &[Arc<dyn Disk>] {
            &[]
        }

        fn facts(&self) -> Vec<(&'static str, String)> {
            Vec::new()
        }

        fn check(&self, found: &mut Report<'_>) -> Result<()> {
            let mut findings = (0..self.0).map(|number| Finding::new(Severity::Leak, number.to_string()));
            findings.find(|finding| found(finding.clone()).is_break());
            Ok(())
        }
    }

    #[test]
    fn as_many_findings_are_kept_as_the_limit_and_all_are_counted() {
        let session = Session::with_defaults();
        for (count, kept) in [
            (0, 0),
            (MAX_FINDINGS - 1, MAX_FINDINGS - 1),
            (MAX_FINDINGS, MAX_FINDINGS),
            (MAX_FINDINGS + 1, MAX_FINDINGS),
        ] {
            let checked = CheckedLayer::of(&Wrong(count), &session).unwrap();
            assert_eq!((checked.findings.len(), checked.counts.leaks), (kept, u64::try_from(count).unwrap()));
        }
    }
}
