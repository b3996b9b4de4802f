//! One file a command: each takes its arguments and a [`Context`], prints its result, and returns.

use std::process::ExitCode;
use std::sync::Arc;

use super::access;
use super::args::{Command, Global};
use super::help;
use super::keys;
use super::output::Output;
use crate::error::{Error, Kind, Result};
use crate::session::{Budget, Policy, Session};

mod attach;
mod bench;
mod check;
mod convert;
mod device;
mod explain;
mod guest;
mod info;
mod inspect;
mod map;
mod migrate;
mod mount;
mod plan;
mod revert;
mod serve;
mod test;

/// What every command gets.
#[derive(Clone, Debug)]
pub(super) struct Context {
    global: Global,
    output: Output,
    session: Arc<Session>,
}

/// Runs the command and gives the exit code, which is not 0 when the command did what it was asked and its verdict is bad.
pub(super) fn run(command: &Command, global: &Global, output: Output) -> Result<ExitCode> {
    let context =
        Context { global: global.clone(), output, session: session(global, matches!(command, Command::Info(_))) };
    if let Some(now) = epoch()? {
        context.session.pretend(now);
    }
    context.session.give_keys(keys::read(&global.key)?);
    context.session.give_access(access::read(&global.remote)?);
    match command {
        Command::Attach(args) => return attach::attach(args, &context),
        Command::Bench(args) => bench::run(args, &context),
        Command::Check(args) => return check::run(args, &context),
        Command::Completions { shell } => {
            help::completions(*shell);
            Ok(())
        }
        Command::Convert(args) => convert::run(args, &context),
        Command::Detach(args) => attach::detach(args, &context),
        Command::Explain(args) => explain::run(args, &context),
        Command::Guest(args) => return guest::run(args, &context),
        Command::Help(args) => help::run(args.topic.as_deref(), output),
        Command::Info(args) => info::run(args, &context),
        Command::Inspect(args) => inspect::run(args, &context),
        Command::Man { dir } => help::man(dir),
        Command::Map(args) => map::run(args, &context),
        Command::Migrate(args) => migrate::run(args, &context),
        Command::Mount(args) => mount::run(args, &context),
        Command::Plan(args) => plan::run(args, &context),
        Command::Revert(args) => revert::run(args, &context),
        Command::Serve(args) => return serve::run(args, &context),
        Command::Test(args) => test::run(args, &context),
    }
    .map(|()| ExitCode::SUCCESS)
}

/// The time that `SOURCE_DATE_EPOCH` says to write into what is made.
fn epoch() -> Result<Option<i64>> {
    let Some(said) = std::env::var_os("SOURCE_DATE_EPOCH").filter(|said| !said.is_empty()) else { return Ok(None) };
    let seconds = said.to_str().and_then(|said| said.parse::<u32>().ok());
    let wrong = || Error::new(Kind::Usage, "session.epoch", "SOURCE_DATE_EPOCH is no number of seconds since 1970");
    seconds.map(|seconds| Some(seconds.into())).ok_or_else(|| wrong().found(said.display()))
}

/// What the flags mean for the run. `looks_only` says that the command reads nothing of the content.
fn session(global: &Global, looks_only: bool) -> Arc<Session> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let policy = Policy {
        allow_dirs: global.allow_dir.clone(),
        map_path: global.map_path.clone(),
        any_parent: global.ignore_parent_id,
        engine: global.engine.into(),
        allow_running: global.allow_running || looks_only,
        vhd_size: global.vhd_size.into(),
    };
    Session::new(Budget::new(global.memory.0), policy, global.jobs.map_or(cores, usize::from))
}
