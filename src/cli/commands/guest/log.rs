//! `guest log`: the journal as `journalctl` shows it, or the syslog files of a guest that keeps none.

use std::process::ExitCode;

use globset::GlobBuilder;
use jiff::tz::TimeZone;
use regex::bytes::{Regex, RegexBuilder};
use serde_json::json;

use super::{Inside, Lines, failed};
use crate::cli::args::guest::{LogArgs, LogFormat};
use crate::cli::commands::Context;
use crate::error::{Error, Kind, Result, escape, escape_bytes};
use crate::inspect::journal::show::{Format, Style, time_text};
use crate::inspect::journal::{Boot, Direction, Entry, Filter, Id, Journal, Span, Walk};
use crate::inspect::systemd::time;

mod syslog;

pub(super) fn run(args: &LogArgs, context: &Context) -> Result<ExitCode> {
    let wanted = Wanted::parse(args)?;
    let inside = Inside::open(&args.inside, context)?;
    let journal = Journal::open(&inside.tree)?;
    if journal.files().is_empty() && journal.notes().is_empty() {
        return syslog::run(args, &wanted, &inside, context).map(|()| ExitCode::SUCCESS);
    }
    tell(journal.notes(), context);
    if args.check {
        return verify(&journal, context);
    }
    if args.list_boots {
        list_boots(&journal, &wanted.zone, context)
    } else if args.disk_usage {
        disk_usage(&journal, context)
    } else if args.fields {
        list("fields", &journal.fields()?, context)
    } else if let Some(field) = &args.field {
        list("values", &journal.values(field)?, context)
    } else {
        entries(args, &wanted, &journal, context)
    }
    .map(|()| ExitCode::SUCCESS)
}

/// The arguments, understood before anything is opened.
struct Wanted {
    zone: TimeZone,
    span: Span,
    last: Option<u64>,
    grep: Option<Regex>,
    priorities: Vec<u8>,
    facilities: Vec<u8>,
    boot: Option<BootName>,
}

/// Which start of the machine.
#[derive(Debug, PartialEq, Eq)]
enum BootName {
    /// Counted from the first one (1 and above) or from the last one (0 and below).
    Number(i64),
    /// By its identifier, and so many after or before it.
    Identifier(Id, i64),
}

impl Wanted {
    fn parse(args: &LogArgs) -> Result<Self> {
        let zone = if args.utc { TimeZone::UTC } else { TimeZone::system() };
        let now = time::now();
        let point = |text: &Option<String>| text.as_deref().map(|text| time::point(text, &now)).transpose();
        let span = Span { since: point(&args.since)?, until: point(&args.until)? };
        if span.since.zip(span.until).is_some_and(|(since, until)| since > until) {
            return Err(Error::new(Kind::Usage, "log.time", "--since is later than --until"));
        }
        let boot = args.boot.as_deref().or(args.dmesg.then_some("0")).filter(|boot| *boot != "all");
        Ok(Self {
            zone,
            span,
            last: args.lines.as_deref().filter(|lines| *lines != "all").map(count).transpose()?,
            grep: args.grep.as_deref().map(pattern).transpose()?,
            priorities: args.priority.as_deref().map(priorities).transpose()?.unwrap_or_default(),
            facilities: args.facility.iter().map(|name| facility(name)).collect::<Result<_>>()?,
            boot: boot.map(boot_name).transpose()?,
        })
    }
}

fn usage(what: &str, found: &str) -> Error {
    Error::new(Kind::Usage, "log.option", what).found(found)
}

fn count(text: &str) -> Result<u64> {
    text.parse().map_err(|_| usage("this is no number of entries", text).hint("write -n 20, or -n all"))
}

/// A pattern without capitals fits them too.
fn pattern(text: &str) -> Result<Regex> {
    let ignore_case = !text.chars().any(char::is_uppercase);
    RegexBuilder::new(text).case_insensitive(ignore_case).build().map_err(|error| {
        usage("this is no regular expression", text).because(error).hint("put a backslash before brackets and dots")
    })
}

const PRIORITIES: [&str; 8] = ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];

fn priority(text: &str) -> Result<u8> {
    let by_name = || PRIORITIES.iter().position(|name| *name == text).and_then(|at| u8::try_from(at).ok());
    let alias = match text {
        "error" => Some(3),
        "warn" => Some(4),
        _ => None,
    };
    let number = text.parse().ok().filter(|number| *number < 8);
    number.or_else(by_name).or(alias).ok_or_else(|| usage("this is no priority", text).hint(PRIORITIES.join(", ")))
}

fn priorities(text: &str) -> Result<Vec<u8>> {
    let (from, to) = match text.split_once("..") {
        Some((from, to)) => (priority(from)?, priority(to)?),
        None => (0, priority(text)?),
    };
    Ok((from.min(to)..=from.max(to)).collect())
}

const FACILITIES: [&str; 12] =
    ["kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp"];

fn facility(text: &str) -> Result<u8> {
    let by_name = || FACILITIES.iter().position(|name| *name == text).and_then(|at| u8::try_from(at).ok());
    let local = || Some(16 + text.strip_prefix("local")?.parse::<u8>().ok().filter(|number| *number < 8)?);
    let number = text.parse().ok().filter(|number| *number < 128);
    let hint = || format!("{}, local0 to local7", FACILITIES.join(", "));
    number.or_else(by_name).or_else(local).ok_or_else(|| usage("this is no facility", text).hint(hint()))
}

fn boot_name(text: &str) -> Result<BootName> {
    if let Some(number) = text.parse().ok().filter(|_| text.len() < 32) {
        return Ok(BootName::Number(number));
    }
    let (id, offset) = match text.get(..32).zip(text.get(32..)) {
        Some((id, "")) => (Id::parse(id), Some(0)),
        Some((id, offset)) => (Id::parse(id), offset.parse().ok()),
        None => (None, None),
    };
    id.zip(offset).map(|(id, offset)| BootName::Identifier(id, offset)).ok_or_else(|| {
        usage("this names no start of the machine", text)
            .hint("guest log SRC --list-boots lists them: write -b -1, or -b ID")
    })
}

pub(super) fn tell(notes: &[String], context: &Context) {
    for note in notes {
        context.output.errors(&format!("hyper2kvm: {}\n", escape(note)));
    }
}

fn verify(journal: &Journal<'_>, context: &Context) -> Result<ExitCode> {
    let verdicts = journal.verify(&mut || context.session.check())?;
    let mut text = String::new();
    for verdict in &verdicts {
        match &verdict.fault {
            None => text.push_str(&format!("PASS: {}\n", escape(&verdict.path))),
            Some(fault) => {
                let unclean = if verdict.unclean { ", which was not closed" } else { "" };
                text.push_str(&format!("FAIL: {}{unclean}: {}\n", escape(&verdict.path), escape(&fault.to_string())));
            }
        }
    }
    let sound = journal.notes().is_empty() && verdicts.iter().all(|verdict| verdict.fault.is_none());
    context.output.result(&json!({ "files": verdicts, "unreadable": journal.notes() }), &text)?;
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::from(Kind::Corrupt.exit_code()) })
}

fn list_boots(journal: &Journal<'_>, zone: &TimeZone, context: &Context) -> Result<()> {
    let boots = journal.boots()?;
    let numbered = || (0_i64..).zip(&boots).map(|(index, boot)| (index - boots.len() as i64 + 1, boot));
    let json: Vec<_> = numbered()
        .map(|(index, boot)| json!({ "index": index, "boot_id": boot.boot_id, "first": boot.first, "last": boot.last }))
        .collect();
    let time = |micros| time_text(micros, zone, "%a %Y-%m-%d %H:%M:%S %Z");
    let rows: Vec<[String; 4]> = numbered()
        .map(|(index, boot)| [index.to_string(), boot.boot_id.to_string(), time(boot.first), time(boot.last)])
        .collect();
    let width = |column: usize, least: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0).max(least);
    let (first, third) = (width(0, 3), width(2, 11));
    let mut text = format!("{:>first$} {:32} {:third$} LAST ENTRY\n", "IDX", "BOOT ID", "FIRST ENTRY");
    for [index, id, from, to] in &rows {
        text.push_str(&format!("{index:>first$} {id} {from:third$} {to}\n"));
    }
    context.output.result(&json!({ "boots": json }), &text)
}

fn disk_usage(journal: &Journal<'_>, context: &Context) -> Result<()> {
    let bytes = journal.disk_usage();
    let text = format!(
        "Archived and active journals take up {} in the file system.",
        crate::inspect::journal::show::size(bytes)
    );
    context.output.result(&json!({ "files": journal.files().len(), "bytes": bytes }), &text)
}

fn list(key: &str, items: &[Vec<u8>], context: &Context) -> Result<()> {
    if context.output.is_json() {
        let items: Vec<_> = items.iter().map(|item| super::text(item)).collect();
        return context.output.json(&json!({ key: items }));
    }
    let mut out = Lines::new();
    for item in items {
        out.line(&escape_bytes(item))?;
    }
    out.finish()
}

fn entries(args: &LogArgs, wanted: &Wanted, journal: &Journal<'_>, context: &Context) -> Result<()> {
    let filter = filter(args, wanted, journal)?;
    let style = Style {
        all: args.all,
        no_hostname: args.no_hostname,
        fields: args.output_fields.iter().map(|name| name.clone().into_bytes()).collect(),
        ..Style::new(if context.output.is_json() { Format::Json } else { format(args.output) }, wanted.zone.clone())
    };
    let for_people = !matches!(
        style.format,
        Format::Export | Format::Json | Format::JsonPretty | Format::JsonSse | Format::JsonSeq | Format::Cat
    );
    let mut found = Found { journal, grep: wanted.grep.as_ref(), context, walk: None, left: None };
    found.start(&filter, wanted, args.reverse)?;
    let (mut out, mut bytes, mut boot, mut shown) = (Lines::new(), Vec::new(), None, false);
    while let Some(entry) = found.next()? {
        bytes.clear();
        if for_people && boot.replace(entry.boot_id).is_some_and(|before| before != entry.boot_id) {
            bytes.extend_from_slice(format!("-- Boot {} --\n", entry.boot_id).as_bytes());
        }
        if let Err(error) = style.write(journal, &entry, &mut bytes) {
            context.output.errors(&format!("hyper2kvm: {error}\n"));
            continue;
        }
        out.data(&bytes).map_err(failed)?;
        shown = true;
    }
    if for_people && !shown {
        out.line("-- No entries --")?;
    }
    tell(found.notes(), context);
    out.finish()
}

fn format(format: LogFormat) -> Format {
    match format {
        LogFormat::Short => Format::Short,
        LogFormat::ShortPrecise => Format::ShortPrecise,
        LogFormat::ShortIso => Format::ShortIso,
        LogFormat::ShortIsoPrecise => Format::ShortIsoPrecise,
        LogFormat::ShortFull => Format::ShortFull,
        LogFormat::ShortMonotonic => Format::ShortMonotonic,
        LogFormat::ShortUnix => Format::ShortUnix,
        LogFormat::WithUnit => Format::WithUnit,
        LogFormat::Verbose => Format::Verbose,
        LogFormat::Export => Format::Export,
        LogFormat::Json => Format::Json,
        LogFormat::JsonPretty => Format::JsonPretty,
        LogFormat::JsonSse => Format::JsonSse,
        LogFormat::JsonSeq => Format::JsonSeq,
        LogFormat::Cat => Format::Cat,
    }
}

/// The walk that the arguments ask for, with what the journal's indexes cannot tell.
struct Found<'j> {
    journal: &'j Journal<'j>,
    grep: Option<&'j Regex>,
    context: &'j Context,
    walk: Option<Walk<'j>>,
    left: Option<u64>,
}

impl<'j> Found<'j> {
    /// The last so many entries are found backwards, and then shown forwards.
    fn start(&mut self, filter: &Filter, wanted: &Wanted, reverse: bool) -> Result<()> {
        let backwards = reverse || wanted.last.is_some();
        let direction = if backwards { Direction::Up } else { Direction::Down };
        self.walk = Some(self.journal.walk(filter, wanted.span, direction));
        self.left = wanted.last;
        if let (false, Some(_)) = (reverse, wanted.last) {
            let (mut seen, last) = (0, wanted.last);
            while self.next()?.is_some() {
                seen += 1;
            }
            if let Some(walk) = self.walk.as_mut().filter(|_| seen > 0) {
                walk.turn();
            }
            self.left = last.map(|last| last.min(seen));
        }
        Ok(())
    }

    fn next(&mut self) -> Result<Option<Entry>> {
        while self.left != Some(0) {
            self.context.session.check()?;
            let Some(entry) = self.walk.as_mut().and_then(Walk::next) else { return Ok(None) };
            let fits = match self.grep {
                Some(grep) => self.journal.value(&entry, "MESSAGE")?.is_some_and(|message| grep.is_match(&message)),
                None => true,
            };
            if fits {
                self.left = self.left.map(|left| left - 1);
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    fn notes(&self) -> &[String] {
        self.walk.as_ref().map(Walk::notes).unwrap_or_default()
    }
}

fn filter(args: &LogArgs, wanted: &Wanted, journal: &Journal<'_>) -> Result<Filter> {
    let mut all = Vec::new();
    if let Some(name) = &wanted.boot {
        let boot = match name {
            BootName::Identifier(id, 0) => *id,
            _ => find_boot(name, &journal.boots()?)?,
        };
        all.push(Filter::field("_BOOT_ID", boot));
    }
    if args.dmesg {
        all.push(Filter::field("_TRANSPORT", "kernel"));
    }
    if !args.unit.is_empty() {
        let units = units(&args.unit, journal)?;
        all.push(Filter::Any(units.iter().map(|unit| Filter::unit(unit)).collect()));
    }
    let any_of = |name: &str, values: &mut dyn Iterator<Item = String>| {
        let any: Vec<Filter> = values.map(|value| Filter::field(name, value)).collect();
        (!any.is_empty()).then_some(Filter::Any(any))
    };
    all.extend(any_of("SYSLOG_IDENTIFIER", &mut args.identifier.iter().cloned()));
    all.extend(any_of("PRIORITY", &mut wanted.priorities.iter().map(u8::to_string)));
    all.extend(any_of("SYSLOG_FACILITY", &mut wanted.facilities.iter().map(u8::to_string)));
    if let Some(word) = args.matches.iter().find(|word| !word.contains('=') && *word != "+") {
        return Err(usage("a condition is a field and its value", word).hint("write it as _UID=1000, for example"));
    }
    if !args.matches.is_empty() {
        let words: Vec<Vec<u8>> = args.matches.iter().map(|word| word.clone().into_bytes()).collect();
        all.push(Filter::words(&words));
    }
    Ok(Filter::All(all))
}

fn find_boot(name: &BootName, boots: &[Boot]) -> Result<Id> {
    let count = boots.len() as i64;
    let index = match name {
        BootName::Number(number) if *number > 0 => Some(number - 1),
        BootName::Number(number) => (count - 1).checked_add(*number),
        BootName::Identifier(id, offset) => {
            boots.iter().position(|boot| boot.boot_id == *id).and_then(|at| (at as i64).checked_add(*offset))
        }
    };
    let boot = index.and_then(|index| boots.get(usize::try_from(index).ok()?));
    boot.map(|boot| boot.boot_id).ok_or_else(|| {
        Error::new(Kind::NotFound, "log.boot", "the journal has no such start of the machine")
            .found(format!("{count} in all"))
            .hint("guest log SRC --list-boots lists them")
    })
}

const SUFFIXES: [&str; 11] = [
    ".service",
    ".socket",
    ".target",
    ".device",
    ".mount",
    ".automount",
    ".swap",
    ".timer",
    ".path",
    ".slice",
    ".scope",
];

/// Names of units: with `.service` where there is no suffix, and all that the journal knows for a pattern.
fn units(names: &[String], journal: &Journal<'_>) -> Result<Vec<String>> {
    let mut units = Vec::new();
    for name in names {
        let has_suffix = SUFFIXES.iter().any(|suffix| name.ends_with(suffix));
        let name = if has_suffix { name.clone() } else { format!("{name}.service") };
        if !name.contains(['*', '?', '[']) {
            units.push(name);
            continue;
        }
        let glob = GlobBuilder::new(&name).build();
        let glob = glob.map_err(|error| usage("this is no pattern of units", &name).because(error))?.compile_matcher();
        for field in ["_SYSTEMD_UNIT", "COREDUMP_UNIT", "UNIT", "OBJECT_SYSTEMD_UNIT", "_SYSTEMD_SLICE"] {
            let values = journal.values(field)?;
            let known = values.iter().filter_map(|value| std::str::from_utf8(value).ok());
            units.extend(known.filter(|unit| glob.is_match(unit)).map(str::to_owned));
        }
        if units.is_empty() {
            return Err(
                Error::new(Kind::NotFound, "log.unit", "the journal knows no unit that fits").found(escape(&name))
            );
        }
    }
    units.sort();
    units.dedup();
    Ok(units)
}
