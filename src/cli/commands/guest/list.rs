//! `guest ls`, `find` and `tree`: names.

use std::io::Write;

use globset::{GlobBuilder, GlobMatcher};
use serde_json::{Value, json};

use super::stat::{self, kind_name};
use super::{Inside, Lines, Problems, entry, failed, finish_json, shown, text};
use crate::browse::{Step, walk};
use crate::cli::args::guest::{FindArgs, KindArg, LsArgs, TreeArgs};
use crate::cli::commands::Context;
use crate::error::{Error, Kind, Result};
use crate::fs::FileKind;
use crate::fs::tree::Found;

pub(super) fn ls(args: &LsArgs, context: &Context) -> Result<()> {
    let inside = Inside::open(&args.inside, context)?;
    let top = inside.find(&args.path)?;
    let is_dir = top.stat.kind == FileKind::Directory;
    let (mut lines, mut problems, mut json) = (Lines::new(), Problems::default(), Vec::new());
    walk(&inside.tree, &top, &context.session, &mut |found, depth| {
        let next = if depth == 0 || args.recursive { Step::In } else { Step::Over };
        let found = match found {
            Ok(_) if depth == 0 && is_dir => return Ok(next),
            Ok(found) => found,
            Err(error) => return problems.add(error, context).map(|()| next),
        };
        if context.output.is_json() {
            json.push(entry(&found.path, stat::json(&inside.tree, found)?));
            return Ok(next);
        }
        // Below the directory that was named, names are enough.
        let name = if args.recursive || !is_dir { &found.path } else { last(&found.path) };
        if args.long {
            lines.line(&stat::line(&inside.tree, found, name)?)?;
        } else {
            lines.line(&shown(name))?;
        }
        Ok(next)
    })?;
    if context.output.is_json() {
        return finish_json(json!({ "path": text(&top.path), "entries": json }), problems, context);
    }
    lines.finish()?;
    problems.finish()
}

pub(super) fn find(args: &FindArgs, context: &Context) -> Result<()> {
    let name = args.name.as_deref().map(pattern).transpose()?;
    let inside = Inside::open(&args.inside, context)?;
    let top = inside.find(&args.path)?;
    let (mut lines, mut problems, mut json) = (Lines::new(), Problems::default(), Vec::new());
    walk(&inside.tree, &top, &context.session, &mut |found, depth| {
        let next = if args.max_depth.is_some_and(|most| depth >= most) { Step::Over } else { Step::In };
        let found = match found {
            Ok(found) => found,
            Err(error) => return problems.add(error, context).map(|()| next),
        };
        if !fits(found, args, name.as_ref()) {
            return Ok(next);
        }
        if context.output.is_json() {
            json.push(entry(&found.path, stat::json(&inside.tree, found)?));
        } else if args.null {
            lines.write_all(&found.path).and_then(|()| lines.write_all(&[0])).map_err(failed)?;
        } else {
            lines.line(&shown(&found.path))?;
        }
        Ok(next)
    })?;
    if context.output.is_json() {
        return finish_json(json!({ "entries": json }), problems, context);
    }
    lines.finish()?;
    problems.finish()
}

fn fits(found: &Found, args: &FindArgs, name: Option<&GlobMatcher>) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let last = std::ffi::OsStr::from_bytes(last(&found.path));
    name.is_none_or(|name| name.is_match(last))
        && args.kind.is_none_or(|kind| kind_of(kind) == found.stat.kind)
        && args.min_size.is_none_or(|size| found.stat.size >= size.0)
}

fn pattern(text: &str) -> Result<GlobMatcher> {
    let glob = GlobBuilder::new(text).literal_separator(true).build();
    let wrong = |e| Error::new(Kind::Usage, "usage.pattern", "not a pattern for names").found(text).because(e);
    glob.map(|glob| glob.compile_matcher()).map_err(wrong)
}

const fn kind_of(kind: KindArg) -> FileKind {
    match kind {
        KindArg::Block => FileKind::BlockDevice,
        KindArg::Char => FileKind::CharDevice,
        KindArg::Dir => FileKind::Directory,
        KindArg::Pipe => FileKind::Fifo,
        KindArg::File => FileKind::Regular,
        KindArg::Link => FileKind::Symlink,
        KindArg::Socket => FileKind::Socket,
    }
}

pub(super) fn tree(args: &TreeArgs, context: &Context) -> Result<()> {
    let inside = Inside::open(&args.inside, context)?;
    let top = inside.find(&args.path)?;
    let (mut lines, mut problems) = (Lines::new(), Problems::default());
    let mut nodes: Vec<Value> = Vec::new();
    walk(&inside.tree, &top, &context.session, &mut |found, depth| {
        let next = if args.level.is_some_and(|most| depth >= most) { Step::Over } else { Step::In };
        let found = match found {
            Ok(found) => found,
            Err(error) => return problems.add(error, context).map(|()| next),
        };
        if context.output.is_json() {
            nodes.push(entry(&found.path, json!({ "depth": depth, "kind": kind_name(found.stat.kind) })));
            return Ok(next);
        }
        let name = if depth == 0 { found.path.as_slice() } else { last(&found.path) };
        let arrow = match found.stat.kind {
            FileKind::Symlink => format!(" -> {}", shown(&inside.tree.target(found)?)),
            FileKind::Directory if depth > 0 => "/".to_owned(),
            _ => String::new(),
        };
        lines.line(&format!("{}{}{arrow}", "  ".repeat(depth), shown(name)))?;
        Ok(next)
    })?;
    if context.output.is_json() {
        return finish_json(json!({ "entries": nodes }), problems, context);
    }
    lines.finish()?;
    problems.finish()
}

/// The last name of a path.
fn last(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().filter(|name| !name.is_empty()).unwrap_or(path)
}
