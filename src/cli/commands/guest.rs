//! `guest`: the files inside, by the guest's own paths.

use std::borrow::Cow;
use std::io::{BufWriter, IsTerminal, StdoutLock, Write};
use std::process::ExitCode;

use serde_json::{Value, json};

use super::{Context, device};
use crate::cli::args::guest::{GuestCommand, GuestFilesArgs, InsideArgs};
use crate::cli::output::harmless;
use crate::error::{Error, Kind, Result, escape_whole};
use crate::fs::Tree;
use crate::fs::tree::Found;
use crate::pipeline::guest::Guest;
use crate::pipeline::migrate::Machine;

mod content;
mod diff;
mod hive;
mod list;
mod log;
mod space;
mod stat;
mod units;

pub(super) fn run(args: &GuestFilesArgs, context: &Context) -> Result<ExitCode> {
    crate::cli::signals::cancel_on_signal(&context.session, || ())?;
    match &args.command {
        GuestCommand::Cat(args) => content::cat(args, context),
        GuestCommand::Cp(args) => content::cp(args, context),
        GuestCommand::Df(args) => space::run(args, context),
        GuestCommand::Diff(args) => return diff::run(args, context),
        GuestCommand::Find(args) => list::find(args, context),
        GuestCommand::Hive(args) => hive::run(args, context),
        GuestCommand::Log(args) => return log::run(args, context),
        GuestCommand::Ls(args) => list::ls(args, context),
        GuestCommand::Sha256(args) => content::sha256(args, context),
        GuestCommand::Stat(args) => stat::run(args, context),
        GuestCommand::Tar(args) => content::tar(args, context),
        GuestCommand::Tree(args) => list::tree(args, context),
        GuestCommand::Units(args) => return units::run(args, context),
    }
    .map(|()| ExitCode::SUCCESS)
}

/// A guest that is open, with the tree that was asked for.
struct Inside {
    guest: Guest,
    tree: Tree,
}

impl Inside {
    fn open(args: &InsideArgs, context: &Context) -> Result<Self> {
        let machine = Machine::open(&args.sources(), &args.disks.open_options(&context.global)?, &context.session)?;
        let guest = machine.look(&context.session, Some(&device::spill_dir()))?;
        let tree = guest.files(args.part, args.volume.as_deref())?;
        Ok(Self { guest, tree })
    }

    /// What `path` leads to, through links.
    fn find(&self, path: &str) -> Result<Found> {
        self.tree.find(path)?.ok_or_else(|| absent(path))
    }

    /// What `path` names, which may be a link.
    fn find_link(&self, path: &str) -> Result<Found> {
        self.tree.find_link(path)?.ok_or_else(|| absent(path))
    }
}

fn absent(path: &str) -> Error {
    Error::new(Kind::NotFound, "guest.not-found", "no such file in the guest").at(path)
}

/// What could not be read while the rest was.
#[derive(Default)]
struct Problems(Vec<Error>);

impl Problems {
    /// Tells it now, and remembers it for the end.
    fn add(&mut self, error: Error, context: &Context) -> Result<()> {
        if error.kind() == Kind::Interrupted {
            return Err(error);
        }
        if !context.output.is_json() {
            context.output.errors(&format!("hyper2kvm: {error}\n"));
        }
        self.0.push(error);
        Ok(())
    }

    fn json(&self) -> Value {
        self.0.iter().map(Error::to_json).collect()
    }

    /// The error that the command ends with, if there were any.
    fn finish(self) -> Result<()> {
        let count = self.0.len();
        match self.0.into_iter().next() {
            None => Ok(()),
            Some(first) => Err(Error::new(first.kind(), "guest.incomplete", "not everything could be read")
                .found(format!("{count} problems, the first: {first}"))
                .because(first)),
        }
    }
}

/// Standard output for much text or bytes. When who reads it has gone, that is the end of it, and no failure.
struct Lines(BufWriter<StdoutLock<'static>>);

impl Lines {
    fn new() -> Self {
        Self(BufWriter::with_capacity(64 << 10, std::io::stdout().lock()))
    }

    /// A line, or several, for people.
    fn line(&mut self, line: &str) -> Result<()> {
        writeln!(self.0, "{}", harmless(line, false)).map_err(failed)
    }

    /// What is for programs: as it is, but for people's eyes where a terminal shows it.
    fn data(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match std::io::stdout().is_terminal() {
            true => self.0.write_all(harmless(&text(bytes), false).as_bytes()),
            false => self.0.write_all(bytes),
        }
    }

    fn finish(mut self) -> Result<()> {
        self.0.flush().map_err(failed)
    }
}

impl Write for Lines {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        self.0.write(buf)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

fn failed(error: std::io::Error) -> Error {
    Error::write("writing to standard output", error)
}

/// A guest's path as people may see it, whole however long it is.
fn shown(path: &[u8]) -> String {
    escape_whole(&text(path))
}

/// A guest's name as JSON has it, which escapes by itself.
fn text(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// Entries and problems as one JSON object.
fn finish_json(mut value: Value, problems: Problems, context: &Context) -> Result<()> {
    if let Value::Object(fields) = &mut value {
        fields.insert("problems".to_owned(), problems.json());
    }
    context.output.json(&value)?;
    // The object says what is missing; the exit code too.
    problems.finish()
}

/// `{ "path": … }` and what `fields` add.
fn entry(path: &[u8], mut fields: Value) -> Value {
    if let Value::Object(map) = &mut fields {
        map.insert("path".to_owned(), json!(text(path)));
    }
    fields
}
