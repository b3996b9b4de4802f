//! The syslog files of a guest without a journal: lines with a time, a program and a message, from the oldest file to the newest.

use std::collections::VecDeque;

use jiff::Timestamp;
use regex::bytes::Regex;
use serde_json::json;

use super::{Wanted, tell, usage};
use crate::cli::args::guest::{LogArgs, LogFormat};
use crate::cli::commands::Context;
use crate::cli::commands::guest::{Inside, Lines, text};
use crate::cli::output::encode;
use crate::error::{Error, Kind, Result, escape_whole};
use crate::inspect::syslog::{Line, Syslog};
use crate::inspect::systemd::zones::Zones;

/// Lines that are held at once to show the last ones, or to turn them round.
const MOST_LINES: usize = 1 << 16;

pub(super) fn run(args: &LogArgs, wanted: &Wanted, inside: &Inside, context: &Context) -> Result<()> {
    let format = format(args, context)?;
    must_fit(args)?;
    let mut log = Syslog::find(&inside.tree)?.ok_or_else(|| {
        Error::new(Kind::NotFound, "log.none", "the guest has no log")
            .found("no journal in /var/log/journal, no /var/log/syslog, no /var/log/messages")
            .hint("a journal that was kept in memory only is lost; guest ls SRC /var/log shows what there is")
    })?;
    let zones = Zones::read(&inside.tree, Timestamp::now())?;
    let zone = &zones.local().rules;
    let fits = Fits { args, wanted, grep: wanted.grep.as_ref() };
    let files = log.files().to_vec();
    let mut out = Lines::new();
    if wanted.last.is_none() && !args.reverse {
        for file in &files {
            log.read(file, zone, &mut |line| {
                context.session.check()?;
                if fits.line(line) {
                    out.line(&format.line(line))?;
                }
                Ok(true)
            })?;
        }
        tell(log.notes(), context);
        return out.finish();
    }
    let asked = wanted.last.map_or(usize::MAX, |last| usize::try_from(last).unwrap_or(usize::MAX));
    let most = asked.min(MOST_LINES);
    let mut held: VecDeque<String> = VecDeque::new();
    let mut is_cut = false;
    // The newest file first, as long as there is room before what was found.
    for file in files.iter().rev() {
        let room = most - held.len();
        if room == 0 {
            is_cut = asked > most;
            break;
        }
        let mut own = VecDeque::new();
        log.read(file, zone, &mut |line| {
            context.session.check()?;
            if fits.line(line) {
                own.push_back(format.line(line));
                if own.len() > room {
                    own.pop_front();
                    is_cut |= asked > most;
                }
            }
            Ok(true)
        })?;
        own.append(&mut held);
        held = own;
    }
    tell(log.notes(), context);
    if is_cut {
        tell(&[format!("only the last {MOST_LINES} lines are shown")], context);
    }
    if args.reverse {
        held.make_contiguous().reverse();
    }
    held.iter().try_for_each(|line| out.line(line))?;
    out.finish()
}

/// Which lines are asked for.
struct Fits<'a> {
    args: &'a LogArgs,
    wanted: &'a Wanted,
    grep: Option<&'a Regex>,
}

impl Fits<'_> {
    fn line(&self, line: &Line<'_>) -> bool {
        let (since, until) = (self.wanted.span.since, self.wanted.span.until);
        // Without a time, it cannot be said.
        let is_then = line.time.map_or(since.is_none() && until.is_none(), |time| {
            since.is_none_or(|since| time >= since) && until.is_none_or(|until| time <= until)
        });
        let identifiers = &self.args.identifier;
        let is_of =
            identifiers.is_empty() || line.identifier.is_some_and(|name| identifiers.iter().any(|id| id == name));
        is_then && is_of && self.grep.is_none_or(|grep| grep.is_match(line.text))
    }
}

/// How lines are written.
#[derive(Clone, Copy)]
enum Format {
    Whole,
    Message,
    Json,
}

impl Format {
    fn line(self, line: &Line<'_>) -> String {
        match self {
            Self::Whole => escape_whole(&text(line.text)),
            Self::Message => escape_whole(&text(line.message)),
            // The names that these have in the journal.
            Self::Json => encode(&json!({
                "__REALTIME_TIMESTAMP": line.time.map(|time| time.to_string()),
                "_HOSTNAME": line.host,
                "SYSLOG_IDENTIFIER": line.identifier,
                "SYSLOG_PID": line.pid.map(|pid| pid.to_string()),
                "MESSAGE": text(line.message),
            })),
        }
    }
}

fn format(args: &LogArgs, context: &Context) -> Result<Format> {
    match args.output {
        _ if context.output.is_json() => Ok(Format::Json),
        LogFormat::Json => Ok(Format::Json),
        LogFormat::Short => Ok(Format::Whole),
        LogFormat::Cat => Ok(Format::Message),
        _ => Err(usage(
            "the guest keeps no journal, and its syslog files can be shown as short, cat or json",
            "--output",
        )),
    }
}

/// What only a journal can answer is refused, rather than left out of the answer.
fn must_fit(args: &LogArgs) -> Result<()> {
    let asked = [
        ("--unit", !args.unit.is_empty()),
        ("--priority", args.priority.is_some()),
        ("--boot", args.boot.is_some()),
        ("--dmesg", args.dmesg),
        ("--facility", !args.facility.is_empty()),
        ("--list-boots", args.list_boots),
        ("--field", args.field.is_some()),
        ("--fields", args.fields),
        ("--disk-usage", args.disk_usage),
        ("--check", args.check),
        ("FIELD=VALUE", !args.matches.is_empty()),
    ];
    let Some((option, _)) = asked.iter().find(|(_, is_asked)| *is_asked) else { return Ok(()) };
    Err(usage("the guest keeps no journal, and its syslog files have plain lines only", option)
        .hint("-n, -r, -t, --grep, --since, --until and --json work with both"))
}
