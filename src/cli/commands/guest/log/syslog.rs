//! The syslog file of a guest without a journal: plain lines, so only their number and their text can be asked for.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};

use super::{count, pattern, usage};
use crate::cli::args::guest::LogArgs;
use crate::cli::commands::Context;
use crate::cli::commands::guest::{Inside, Lines};
use crate::error::{Error, Kind, Result, escape_bytes};

const FILES: [&str; 2] = ["/var/log/syslog", "/var/log/messages"];

/// Bytes of a line that are kept; what is longer goes on in the next one.
const LONGEST_LINE: u64 = 64 << 10;

/// Lines that are held at once to show the last ones, or to turn them round.
const MOST_LINES: usize = 1 << 16;

pub(super) fn run(args: &LogArgs, inside: &Inside, context: &Context) -> Result<()> {
    must_fit(args, context)?;
    let mut opened = None;
    for path in FILES {
        opened = inside.tree.open(path)?;
        if opened.is_some() {
            break;
        }
    }
    let file = opened.ok_or_else(|| {
        Error::new(Kind::NotFound, "log.none", "the guest has no log")
            .found(format!("no journal in /var/log/journal, no {}", FILES.join(", no ")))
            .hint("a journal that was kept in memory only is lost; guest ls SRC /var/log shows what there is")
    })?;
    let (mut lines, mut out) = (BufReader::new(file), Lines::new());
    let grep = args.grep.as_deref().map(pattern).transpose()?;
    let last = match args.lines.as_deref().filter(|lines| *lines != "all").map(count).transpose()? {
        Some(last) => Some(usize::try_from(last).unwrap_or(usize::MAX)),
        None => args.reverse.then_some(usize::MAX),
    };
    let (mut held, mut line) = (VecDeque::new(), Vec::new());
    loop {
        context.session.check()?;
        line.clear();
        let read = (&mut lines).take(LONGEST_LINE).read_until(b'\n', &mut line);
        if read.map_err(|error| Error::unreadable("reading the guest's log", error))? == 0 {
            break;
        }
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        if grep.as_ref().is_some_and(|grep| !grep.is_match(text)) {
            continue;
        }
        let Some(last) = last else {
            out.line(&escape_bytes(text))?;
            continue;
        };
        held.push_back(escape_bytes(text));
        if held.len() > last.min(MOST_LINES) {
            held.pop_front();
        }
    }
    if args.reverse {
        held.make_contiguous().reverse();
    }
    held.iter().try_for_each(|line| out.line(line))?;
    out.finish()
}

/// What only a journal can answer is refused, rather than left out of the answer.
fn must_fit(args: &LogArgs, context: &Context) -> Result<()> {
    let asked = [
        ("--unit", !args.unit.is_empty()),
        ("--priority", args.priority.is_some()),
        ("--boot", args.boot.is_some()),
        ("--dmesg", args.dmesg),
        ("--identifier", !args.identifier.is_empty()),
        ("--facility", !args.facility.is_empty()),
        ("--since", args.since.is_some()),
        ("--until", args.until.is_some()),
        ("--list-boots", args.list_boots),
        ("--field", args.field.is_some()),
        ("--fields", args.fields),
        ("--disk-usage", args.disk_usage),
        ("--check", args.check),
        ("FIELD=VALUE", !args.matches.is_empty()),
        ("--json", context.output.is_json()),
    ];
    let Some((option, _)) = asked.iter().find(|(_, is_asked)| *is_asked) else { return Ok(()) };
    Err(usage("the guest keeps no journal, and its syslog file has plain lines only", option)
        .hint("-n, -r and --grep work with both"))
}
