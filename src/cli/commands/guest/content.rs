//! `guest cat`, `cp`, `tar` and `sha256`: what is in files.

use std::io::{BufWriter, IsTerminal};
use std::path::Path;

use serde_json::json;

use super::stat::hex;
use super::{Inside, Lines, Problems, entry, finish_json, shown};
use crate::browse::archive::archive;
use crate::browse::copy::copy_out;
use crate::browse::{self, Step, walk};
use crate::cli::args::guest::{CatArgs, CpArgs, ManyArgs, TarArgs};
use crate::cli::commands::Context;
use crate::cli::size::Size;
use crate::error::{Error, Kind, Result, escape, escape_bytes};
use crate::fs::FileKind;
use crate::fs::tree::Found;
use crate::pipeline::files::{Staged, must_not_exist};

pub(super) fn cat(args: &CatArgs, context: &Context) -> Result<()> {
    let inside = Inside::open(&args.inside, context)?;
    let mut out = Lines::new();
    for path in &args.path {
        let found = inside.find(path)?;
        if found.stat.kind != FileKind::Regular {
            return Err(Error::new(Kind::NotFound, "guest.not-regular", "not a regular file").at(path));
        }
        browse::read_to(&inside.tree, &found, &context.session, &mut out)?;
    }
    out.finish()
}

pub(super) fn cp(args: &CpArgs, context: &Context) -> Result<()> {
    let inside = Inside::open(&args.inside, context)?;
    let top = inside.find(&args.path)?;
    let to = if args.to.is_dir() { args.to.join(name(&top)?) } else { args.to.clone() };
    if context.global.dry_run {
        let text = format!("would copy {} to {}", shown(&top.path), escape(&to.display().to_string()));
        return context.output.result(&json!({ "dry_run": true, "to": to.display().to_string() }), &text);
    }
    let mut problems = Problems::default();
    let copied = copy_out(&inside.tree, &top, &to, &context.session, &mut |error| problems.add(error, context))?;
    let json = json!({
        "to": to.display().to_string(),
        "files": copied.files,
        "directories": copied.directories,
        "links": copied.links,
        "bytes": copied.bytes,
        "skipped": copied.skipped,
    });
    if context.output.is_json() {
        return finish_json(json, problems, context);
    }
    let skipped = match copied.skipped {
        0 => String::new(),
        count => format!("; {count} devices, pipes and sockets left out"),
    };
    context.output.text(&format!(
        "copied {} files, {} directories and {} links, {}{skipped}",
        copied.files,
        copied.directories,
        copied.links,
        Size(copied.bytes)
    ))?;
    problems.finish()
}

/// The last name of what is copied, where it is one for this host.
fn name(top: &Found) -> Result<&str> {
    let last = top.path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let name = std::str::from_utf8(last).ok().filter(|name| !name.is_empty());
    name.ok_or_else(|| {
        Error::new(Kind::Usage, "guest.copy", "a copy needs a name")
            .at(escape_bytes(&top.path))
            .hint("name a file or directory that is not there yet")
    })
}

pub(super) fn tar(args: &TarArgs, context: &Context) -> Result<()> {
    if args.output.is_none() && std::io::stdout().is_terminal() {
        return Err(Error::new(Kind::Usage, "usage.terminal", "an archive is nothing for a terminal")
            .hint("name a file with -o, or pipe it into a program"));
    }
    let inside = Inside::open(&args.inside, context)?;
    let top = inside.find(&args.path)?;
    let mut problems = Problems::default();
    let mut problem = |error| problems.add(error, context);
    match &args.output {
        Some(path) => to_file(&inside, &top, path, !args.no_sparse, context, &mut problem)?,
        None => {
            let mut out = Lines::new();
            archive(&inside.tree, &top, &context.session, !args.no_sparse, &mut out, &mut problem)?;
            out.finish()?;
        }
    }
    problems.finish()
}

/// An archive in a new file, which has its name only when it is complete and durable.
fn to_file(
    inside: &Inside,
    top: &Found,
    path: &Path,
    holes: bool,
    context: &Context,
    problem: &mut dyn FnMut(Error) -> Result<()>,
) -> Result<()> {
    let failed = |e| Error::write("writing the archive", e).path(path);
    must_not_exist(path, false)?;
    let (staged, file) = Staged::create(path)?;
    let mut file = BufWriter::with_capacity(1 << 20, file);
    archive(&inside.tree, top, &context.session, holes, &mut file, problem)?;
    let file = file.into_inner().map_err(|e| failed(e.into_error()))?;
    file.sync_all().map_err(failed)?;
    staged.publish(false)
}

pub(super) fn sha256(args: &ManyArgs, context: &Context) -> Result<()> {
    let inside = Inside::open(&args.inside, context)?;
    let (mut lines, mut problems, mut json) = (Lines::new(), Problems::default(), Vec::new());
    for path in &args.path {
        let top = inside.find(path)?;
        walk(&inside.tree, &top, &context.session, &mut |found, _| {
            let found = match found {
                Ok(found) if found.stat.kind != FileKind::Regular => return Ok(Step::In),
                Ok(found) => found,
                Err(error) => return problems.add(error, context).map(|()| Step::In),
            };
            let digest = match browse::sha256(&inside.tree, found, &context.session) {
                Ok(digest) => hex(&digest),
                Err(error) => {
                    return problems.add(error.at(escape_bytes(&found.path)), context).map(|()| Step::In);
                }
            };
            if context.output.is_json() {
                json.push(entry(&found.path, json!({ "sha256": digest, "size": found.stat.size })));
            } else {
                lines.line(&format!("{digest}  {}", shown(&found.path)))?;
            }
            Ok(Step::In)
        })?;
    }
    if context.output.is_json() {
        return finish_json(json!({ "entries": json }), problems, context);
    }
    lines.finish()?;
    problems.finish()
}
