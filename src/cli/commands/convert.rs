//! `convert`: copies a disk as it is.

use std::ffi::OsString;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;

use super::Context;
use crate::chain::{OpenOptions, OpenedDisk, open_feed};
use crate::cli::args::{ConvertArgs, Switch};
use crate::cli::progress::Shown;
use crate::cli::signals;
use crate::cli::size::Size;
use crate::convert::{self, Format, Named, Options, Outcome, Verification};
use crate::disk::{Disk, Stream};
use crate::error::{Error, Kind, Result};
use crate::pipeline::copies::convert_all;
use crate::pipeline::{self, guest, source};
use crate::source::Pipe;

mod names;
mod package;
mod wanted;

use names::Destination;
use wanted::wanted;

pub(super) fn run(args: &ConvertArgs, context: &Context) -> Result<()> {
    let (sources, destination) = ends(&args.paths)?;
    signals::cancel_on_signal(&context.session, || ())?;
    if let Destination::Directory(_) = destination {
        let flags = [("--size", args.size.is_some()), ("--backing", args.backing.is_some())];
        without(&flags, "for one disk, not for all of a directory", "give the destination as a file")?;
    }
    if let Destination::Export(_) | Destination::Object(_) = destination {
        without(&[("--backing", args.backing.is_some())], "for an image in a file", "give the destination as a file")?;
    }
    let (mut format, base) = wanted(args, &destination, &context.session)?;
    let open = args.disks.open_options(&context.global)?;
    if sources == [source::STDIN] {
        let stream = Pipe::stdin(&context.session)?;
        return forward(Box::new(stream), source::STDIN, &destination, &open, args, format, base, context);
    }
    let (opened, disks) = match source::open_all(&sources, &open, &context.session) {
        Err(error) if error.code() == "http.no-ranges" => {
            let stream = source::stream(&sources, &context.session)?.ok_or(error)?;
            let name = source::shown(&sources).join(" ");
            return forward(stream, &name, &destination, &open, args, format, base, context);
        }
        opened => opened?,
    };
    let packaged = matches!(format, Format::Ova(_));
    let paths = match packaged {
        true => vec![destination.package(&opened, &disks)?],
        false => destination.paths(&opened, &disks, &format)?,
    };
    if !args.restart && matches!(destination, Destination::File(_) | Destination::Directory(_)) {
        convert::resume(&paths, &context.session);
    }
    let mut flat = flat_disks(&disks, args, context)?;
    if let (Format::Ova(ova), [path]) = (&mut format, paths.as_slice()) {
        flat = vec![package::fill(ova, path, &opened, &disks, flat, args.size.map(|size| size.0))?];
    }
    let copies: Vec<(Arc<dyn Disk>, PathBuf)> = flat.into_iter().zip(paths).collect();
    if context.global.dry_run {
        return dry_run(&copies, context);
    }
    destination.make()?;
    context.session.begin_streaming();
    let options = options(args, format, base, context);
    let shown = Shown::new(&context.global, &context.session);
    let prepare = |(disk, path): (Arc<dyn Disk>, PathBuf)| {
        convert::prepare(disk, destination.place(&path), &options, &context.session, &shown)
    };
    let prepared = copies.into_iter().map(prepare).collect::<Result<_>>()?;
    let (verified, digests) = convert_all(prepared, &opened, &shown)?;
    let named: Vec<Named> = verified.into_iter().map(|output| output.name(&shown)).collect::<Result<_>>()?;
    let outcomes: Vec<Outcome> = named.into_iter().map(Named::commit).collect();
    drop(shown);
    let mut json = json!({ "source": source::shown(&sources).join(" "), "digests": pipeline::digests_json(&digests), "network": pipeline::network_json(&context.session) });
    json[destination.key()] = destination.shown(outcomes.iter().map(outcome_json).collect());
    let lines: Vec<String> = outcomes.iter().map(outcome_text).collect();
    context.output.result(&json, &lines.join("\n"))
}

/// Converts what comes forward only: on standard input, or from a server without ranges.
#[expect(clippy::too_many_arguments, reason = "all that was asked for goes one way or the other")]
fn forward(
    stream: Box<dyn Stream>,
    name: &str,
    destination: &Destination<'_>,
    open: &OpenOptions,
    args: &ConvertArgs,
    format: Format,
    base: Option<Arc<dyn Disk>>,
    context: &Context,
) -> Result<()> {
    let flags = [
        ("--backing", args.backing.is_some()),
        ("--skip-free-space", args.skip_free_space),
        ("--to ova", matches!(format, Format::Ova(_))),
    ];
    without(&flags, "not for a disk that comes forward only", "save it to a file, and name that as the source")?;
    let options = options(args, format, base, context);
    let path = destination.file()?;
    let feed = open_feed(stream, open, &context.session)?;
    context.session.begin_streaming();
    let shown = Shown::new(&context.global, &context.session);
    let prepared = convert::prepare_feed(feed, destination.place(&path), &options, &context.session, &shown)?;
    let outcome = prepared.copy(&shown)?.verify(&shown)?.seal(&shown)?;
    drop(shown);
    let json = json!({ "source": name, "digests": [], "network": [], "output": outcome_json(&outcome) });
    context.output.result(&json, &outcome_text(&outcome))
}

/// The sources and the destination.
fn ends(paths: &[OsString]) -> Result<(Vec<String>, Destination<'_>)> {
    let Some((last, sources @ [_, ..])) = paths.split_last() else {
        let error = Error::new(Kind::Usage, "convert.destination", "a source and a destination are needed");
        return Err(error.hint("hyper2kvm convert SRC DST, or SRC... DIR/"));
    };
    let text = |path: &OsString| {
        let bad = || Error::new(Kind::Usage, "source.name", "the name of a source is not UTF-8").path(Path::new(path));
        path.to_str().map(str::to_owned).ok_or_else(bad)
    };
    Ok((sources.iter().map(text).collect::<Result<_>>()?, Destination::of(Path::new(last))?))
}

/// The disks as they are to be copied.
fn flat_disks(disks: &[OpenedDisk], args: &ConvertArgs, context: &Context) -> Result<Vec<Arc<dyn Disk>>> {
    let flat = |disk: &OpenedDisk| match args.skip_free_space {
        true => guest::without_free_space(disk, &context.session),
        false => Ok(disk.disk()),
    };
    disks.iter().map(flat).collect()
}

fn options(args: &ConvertArgs, format: Format, base: Option<Arc<dyn Disk>>, context: &Context) -> Options {
    Options {
        format,
        base,
        size: args.size.map(|size| size.0),
        verify: context.global.verify == Switch::On,
        force: args.force,
        restart: args.restart,
        rate_limit: context.global.rate_limit.and_then(|rate| NonZeroU64::new(rate.0)),
    }
}

/// Refuses flags that were given and do not go with the rest.
fn without(flags: &[(&str, bool)], why: &str, hint: &'static str) -> Result<()> {
    match flags.iter().find(|(_, given)| *given) {
        None => Ok(()),
        Some((flag, _)) => Err(Error::new(Kind::Usage, "convert.options", format!("{flag} is {why}")).hint(hint)),
    }
}

fn dry_run(copies: &[(Arc<dyn Disk>, PathBuf)], context: &Context) -> Result<()> {
    let (mut lines, mut outputs, mut all) = (Vec::new(), Vec::new(), [0, 0]);
    for (disk, path) in copies {
        let data = pipeline::export::data_bytes(&**disk)?;
        let path = path.display().to_string();
        let shown = crate::error::escape(&path);
        lines.push(format!("would write {shown}: {} of {} hold data", Size(data), Size(disk.len())));
        outputs.push(json!({ "path": path, "virtual_size": disk.len(), "data_bytes": data }));
        all = [all[0] + disk.len(), all[1] + data];
    }
    let json = json!({ "dry_run": true, "virtual_size": all[0], "data_bytes": all[1], "outputs": outputs });
    context.output.result(&json, &lines.join("\n"))
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
            "shared": outcome.bytes.shared,
            "zero": outcome.bytes.zero,
            "hole": outcome.bytes.hole,
            "resumed": outcome.bytes.resumed,
        },
        "digest": outcome.digest.as_ref().map(|digest| format!("blake3:{digest}")),
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
    let shared = match outcome.bytes.shared {
        0 => String::new(),
        shared => format!(" {} shared,", Size(shared)),
    };
    let digest = outcome.digest.as_deref().map_or_else(
        || "not read, so without a digest".to_owned(),
        |digest| format!("blake3 {}", digest.get(..16).unwrap_or(digest)),
    );
    format!(
        "{}: {} virtual, {} on disk;{resumed}{shared} {} copied, {} zero, {} skipped; {verified}, {digest}",
        crate::error::escape(&outcome.path.display().to_string()),
        Size(outcome.len),
        Size(outcome.file_len),
        Size(outcome.bytes.written),
        Size(outcome.bytes.zero),
        Size(outcome.bytes.hole)
    )
}
