//! Entries as `journalctl` writes them.
//!
//! `export` and the JSON formats give every byte as it is; the formats for people escape what could disturb a terminal: beside
//! what `journalctl` holds back (control characters, invalid UTF-8), also characters that reorder or hide text.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::{Entry, Journal};
use crate::error::{Result, is_hidden};

/// A format of `journalctl --output`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `short`: as in syslog files.
    Short,
    /// The same with microseconds.
    ShortPrecise,
    /// The same with times as in ISO 8601.
    ShortIso,
    /// The same, with microseconds.
    ShortIsoPrecise,
    /// The same with weekday, year and time zone.
    ShortFull,
    /// The same with seconds since the machine was started.
    ShortMonotonic,
    /// The same with seconds since 1970.
    ShortUnix,
    /// `short-full` with units instead of names of programs.
    WithUnit,
    /// Every field on a line.
    Verbose,
    /// Journal Export Format: lossless.
    Export,
    /// One object a line.
    Json,
    /// One object on several lines.
    JsonPretty,
    /// For server-sent events.
    JsonSse,
    /// JSON text sequences (RFC 7464).
    JsonSeq,
    /// The messages alone.
    Cat,
}

/// How entries are written.
#[derive(Clone, Debug)]
pub struct Style {
    /// The format.
    pub format: Format,
    /// Where times of day are shown.
    pub zone: TimeZone,
    /// Long and unprintable fields too; what cannot be printed is escaped.
    pub all: bool,
    /// Without host names.
    pub no_hostname: bool,
    /// Only these fields, in `Verbose`, `Export` and the JSON formats; all when it is empty.
    pub fields: BTreeSet<Vec<u8>>,
}

/// What is longer is no name of a program or a host.
const LONGEST_NAME: usize = 300;
/// What JSON leaves out when not everything is wanted.
const LONGEST_JSON: usize = 4096;

impl Entry {
    /// The place of the entry as `journalctl --cursor` takes it.
    #[must_use]
    pub fn cursor(&self) -> String {
        format!(
            "s={};i={:x};b={};m={:x};t={:x};x={:x}",
            self.seqnum_id, self.seqnum, self.boot_id, self.monotonic, self.realtime, self.xor_hash
        )
    }
}

impl Style {
    /// Everything at its default, times in `zone`.
    #[must_use]
    pub fn new(format: Format, zone: TimeZone) -> Self {
        Self { format, zone, all: false, no_hostname: false, fields: BTreeSet::new() }
    }

    /// Appends `entry` to `out`; nothing when the format has nothing to show of it.
    pub fn write(&self, journal: &Journal<'_>, entry: &Entry, out: &mut Vec<u8>) -> Result<()> {
        match self.format {
            Format::Export => self.export(journal, entry, out),
            Format::Json | Format::JsonPretty | Format::JsonSse | Format::JsonSeq => self.json(journal, entry, out),
            Format::Verbose => self.verbose(journal, entry, out),
            Format::Cat => {
                if let Some(message) = journal.value(entry, "MESSAGE")? {
                    out.extend_from_slice(human(&message).as_bytes());
                    out.push(b'\n');
                }
                Ok(())
            }
            _ => self.short(journal, entry, out),
        }
    }

    fn wants(&self, name: &[u8]) -> bool {
        self.fields.is_empty() || self.fields.contains(name)
    }

    fn export(&self, journal: &Journal<'_>, entry: &Entry, out: &mut Vec<u8>) -> Result<()> {
        let head = format!(
            "__CURSOR={}\n__REALTIME_TIMESTAMP={}\n__MONOTONIC_TIMESTAMP={}\n_BOOT_ID={}\n",
            entry.cursor(),
            entry.realtime,
            entry.monotonic,
            entry.boot_id
        );
        out.extend_from_slice(head.as_bytes());
        journal.visit(entry, &mut |field| {
            let Some((name, value)) = split(field).filter(|(name, _)| self.wants(name)) else { return Ok(()) };
            if is_printable(field, false) {
                out.extend_from_slice(field);
            } else {
                out.extend_from_slice(name);
                out.push(b'\n');
                out.extend_from_slice(&u64::try_from(value.len()).unwrap_or(u64::MAX).to_le_bytes());
                out.extend_from_slice(value);
            }
            out.push(b'\n');
            Ok(())
        })?;
        out.push(b'\n');
        Ok(())
    }

    fn json(&self, journal: &Journal<'_>, entry: &Entry, out: &mut Vec<u8>) -> Result<()> {
        let mut object = Object::default();
        object.add(b"__CURSOR", quoted(&entry.cursor()));
        object.add(b"__REALTIME_TIMESTAMP", quoted(&entry.realtime.to_string()));
        object.add(b"__MONOTONIC_TIMESTAMP", quoted(&entry.monotonic.to_string()));
        object.add(b"_BOOT_ID", quoted(&entry.boot_id.to_string()));
        journal.visit(entry, &mut |field| {
            let Some((name, value)) = split(field).filter(|(name, _)| self.wants(name)) else { return Ok(()) };
            let value = if !self.all && field.len() >= LONGEST_JSON {
                "null".to_owned()
            } else if let Some(text) = printable(value, true) {
                quoted(text)
            } else {
                let numbers: Vec<String> = value.iter().map(u8::to_string).collect();
                format!("[{}]", numbers.join(","))
            };
            object.add(name, value);
            Ok(())
        })?;
        match self.format {
            Format::JsonPretty => out.extend_from_slice(object.pretty().as_bytes()),
            Format::JsonSse => out.extend_from_slice(format!("data: {}\n\n", object.line()).as_bytes()),
            Format::JsonSeq => out.extend_from_slice(format!("\u{1e}{}\n", object.line()).as_bytes()),
            _ => out.extend_from_slice(format!("{}\n", object.line()).as_bytes()),
        }
        Ok(())
    }

    fn verbose(&self, journal: &Journal<'_>, entry: &Entry, out: &mut Vec<u8>) -> Result<()> {
        let source = journal.value(entry, "_SOURCE_REALTIME_TIMESTAMP")?;
        let time = self.time(best_time(source.as_deref(), entry), "%a %Y-%m-%d %H:%M:%S.%6f %Z");
        out.extend_from_slice(format!("{time} [{}]\n", entry.cursor()).as_bytes());
        journal.visit(entry, &mut |field| {
            let name = field.split(|byte| *byte == b'=').next().unwrap_or_default();
            let value = field.get(name.len().saturating_add(1)..).unwrap_or_default();
            if !self.wants(name) {
                return Ok(());
            }
            out.extend_from_slice(format!("    {}=", human(name)).as_bytes());
            if self.all || is_printable(field, true) {
                lines(value, name.len().saturating_add(5), out);
            } else {
                out.extend_from_slice(format!("[{} blob data]\n", size_of(value)).as_bytes());
            }
            Ok(())
        })
    }

    fn short(&self, journal: &Journal<'_>, entry: &Entry, out: &mut Vec<u8>) -> Result<()> {
        let mut found: HashMap<&'static str, Vec<u8>> = HashMap::new();
        journal.visit(entry, &mut |field| {
            let name = SHORT_FIELDS.iter().find_map(|name| Some((*name, super::value_of(field, name)?)));
            if let Some((name, value)) = name {
                found.insert(name, value.to_vec());
            }
            Ok(())
        })?;
        let value = |name: &str| found.get(name).map(Vec::as_slice);
        let Some(message) = value("MESSAGE") else { return Ok(()) };
        let message = if self.all { Cow::Borrowed(message) } else { without_escapes(message) };
        let start = out.len();
        out.extend_from_slice(self.stamp(&value, entry).as_bytes());
        let shown = |name: &str| value(name).filter(|text| self.all || is_name(text));
        if let Some(host) = shown("_HOSTNAME").filter(|_| !self.no_hostname) {
            out.push(b' ');
            out.extend_from_slice(word(host).as_bytes());
        }
        out.push(b' ');
        // journalctl does not indent by the word that stands for a missing name.
        let who = self.who(&shown);
        let uncounted = if who.is_none() { UNKNOWN.len().saturating_add(1) } else { 0 };
        out.extend_from_slice(who.as_deref().unwrap_or(UNKNOWN).as_bytes());
        if let Some(pid) = shown("_PID").or_else(|| shown("SYSLOG_PID")) {
            out.extend_from_slice(format!("[{}]", word(pid)).as_bytes());
        }
        out.extend_from_slice(b": ");
        let indent = out.len().saturating_sub(start).saturating_sub(uncounted);
        if self.all || is_printable(&message, true) {
            lines(&message, indent, out);
        } else {
            out.extend_from_slice(format!("[{} blob data]\n", size_of(&message)).as_bytes());
        }
        Ok(())
    }

    /// Who logged it, if that is known.
    fn who<'f>(&self, shown: &dyn Fn(&str) -> Option<&'f [u8]>) -> Option<String> {
        if self.format == Format::WithUnit {
            let units: Vec<String> =
                [shown("_SYSTEMD_UNIT"), shown("_SYSTEMD_USER_UNIT")].into_iter().flatten().map(word).collect();
            if !units.is_empty() {
                return Some(units.join("/"));
            }
        }
        let name = shown("SYSLOG_IDENTIFIER").or_else(|| shown("_COMM"));
        name.map(word)
    }

    fn stamp<'f>(&self, value: &dyn Fn(&str) -> Option<&'f [u8]>, entry: &Entry) -> String {
        if self.format == Format::ShortMonotonic {
            let source = value("_SOURCE_MONOTONIC_TIMESTAMP").and_then(number);
            let time = source.unwrap_or(entry.monotonic);
            return format!("[{:5}.{:06}]", time / MICRO, time % MICRO);
        }
        let time = best_time(value("_SOURCE_REALTIME_TIMESTAMP"), entry);
        match self.format {
            Format::ShortUnix => format!("{:10}.{:06}", time / MICRO, time % MICRO),
            Format::ShortPrecise => self.time(time, "%b %d %H:%M:%S.%6f"),
            Format::ShortIso => self.time(time, "%Y-%m-%dT%H:%M:%S%z"),
            Format::ShortIsoPrecise => self.time(time, "%Y-%m-%dT%H:%M:%S.%6f%z"),
            Format::ShortFull | Format::WithUnit => self.time(time, "%a %Y-%m-%d %H:%M:%S %Z"),
            _ => self.time(time, "%b %d %H:%M:%S"),
        }
    }

    fn time(&self, micros: u64, format: &str) -> String {
        time_text(micros, &self.zone, format)
    }
}

const UNKNOWN: &str = "unknown";

const MICRO: u64 = 1_000_000;

/// Microseconds since the epoch by a `strftime` format; `-` for what is no time.
#[must_use]
pub fn time_text(micros: u64, zone: &TimeZone, format: &str) -> String {
    let time = i64::try_from(micros).ok().filter(|_| is_time(micros)).and_then(|m| Timestamp::from_microsecond(m).ok());
    let text = time.and_then(|time| jiff::fmt::strtime::format(format, &time.to_zoned(zone.clone())).ok());
    text.unwrap_or_else(|| "-".to_owned())
}

const SHORT_FIELDS: [&str; 10] = [
    "MESSAGE",
    "SYSLOG_IDENTIFIER",
    "_COMM",
    "_PID",
    "SYSLOG_PID",
    "_HOSTNAME",
    "_SYSTEMD_UNIT",
    "_SYSTEMD_USER_UNIT",
    "_SOURCE_REALTIME_TIMESTAMP",
    "_SOURCE_MONOTONIC_TIMESTAMP",
];

/// The time at which it happened, where the source said so, else when it was logged.
fn best_time(source: Option<&[u8]>, entry: &Entry) -> u64 {
    source.and_then(number).filter(|time| is_time(*time)).unwrap_or(entry.realtime)
}

/// Times that systemd takes for such: until the year 3111.
fn is_time(micros: u64) -> bool {
    micros > 0 && micros < 1 << 55
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Name and value of a field that formats for programs show: the boot's identifier they have already.
fn split(field: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = field.iter().position(|byte| *byte == b'=')?;
    let (name, value) = (field.get(..end)?, field.get(end.checked_add(1)?..)?);
    let valid = name.len() <= 64
        && name.first().is_some_and(|first| !first.is_ascii_digit())
        && name.iter().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b'_');
    (valid && name != b"_BOOT_ID").then_some((name, value))
}

/// The text, if it is UTF-8 without control characters. Tabs are none, nor are line ends if `newline` says so.
fn printable(bytes: &[u8], newline: bool) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    let fits = |c: char| c == '\t' || (newline && c == '\n') || !c.is_control();
    text.chars().all(fits).then_some(text)
}

fn is_printable(bytes: &[u8], newline: bool) -> bool {
    printable(bytes, newline).is_some()
}

fn is_name(bytes: &[u8]) -> bool {
    bytes.len() < LONGEST_NAME && is_printable(bytes, true)
}

/// Text for people's eyes: whatever could disturb a terminal, or mislead, as `\u{…}`; lines and tabs stay.
fn human(bytes: &[u8]) -> Cow<'_, str> {
    let text = String::from_utf8_lossy(bytes);
    let harmless = |c: char| matches!(c, '\t' | '\n') || !(c.is_control() || is_hidden(c));
    if text.chars().all(harmless) {
        return text;
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if harmless(c) { out.push(c) } else { out.extend(c.escape_unicode()) }
    }
    Cow::Owned(out)
}

/// The same for what stands before a message, where a line end would make two lines of one.
fn word(bytes: &[u8]) -> String {
    human(bytes).replace('\n', "\\n")
}

/// Appends lines, the second and all that follow with `indent` spaces before them.
fn lines(text: &[u8], indent: usize, out: &mut Vec<u8>) {
    let text = human(text);
    let text = text.strip_suffix('\n').unwrap_or(&text);
    for (number, line) in text.split('\n').enumerate() {
        if number > 0 {
            out.resize(out.len().saturating_add(indent), b' ');
        }
        out.extend_from_slice(line.as_bytes());
        out.push(b'\n');
    }
}

/// A number of bytes with one decimal, cut.
#[must_use]
pub fn size(bytes: u64) -> String {
    const UNITS: [(u32, char); 4] = [(40, 'T'), (30, 'G'), (20, 'M'), (10, 'K')];
    for (shift, letter) in UNITS {
        let whole = bytes >> shift;
        if whole > 0 {
            let rest = bytes.wrapping_sub(whole << shift);
            return format!("{whole}.{}{letter}", rest.saturating_mul(10) >> shift);
        }
    }
    format!("{bytes}B")
}

fn size_of(text: &[u8]) -> String {
    size(u64::try_from(text.len()).unwrap_or(u64::MAX))
}

/// A message without tabs, carriage returns at the end of lines, colours (`ESC [ … m`) and operating system commands (`ESC ] … BEL`).
fn without_escapes(message: &[u8]) -> Cow<'_, [u8]> {
    if !message.iter().any(|byte| matches!(byte, b'\t' | b'\r' | 0x1b)) {
        return Cow::Borrowed(message);
    }
    let mut out = Vec::with_capacity(message.len());
    let mut rest = message;
    while let Some((first, after)) = rest.split_first() {
        rest = match (first, after) {
            (b'\t', _) => {
                out.extend_from_slice(b"        ");
                after
            }
            (b'\r', _) => {
                let end = rest.iter().position(|byte| *byte != b'\r').unwrap_or(rest.len());
                let (returns, after) = rest.split_at_checked(end).unwrap_or((rest, &[]));
                if !matches!(after.first(), None | Some(b'\n')) {
                    out.extend_from_slice(returns);
                }
                after
            }
            (0x1b, [b'[', sequence @ ..]) => sequence_end(sequence, b'm', |byte| byte.is_ascii_digit() || byte == b';')
                .unwrap_or_else(|| kept(&mut out, after)),
            (0x1b, [b']', sequence @ ..]) => {
                sequence_end(sequence, 7, |byte| (32..=126).contains(&byte)).unwrap_or_else(|| kept(&mut out, after))
            }
            _ => {
                out.push(*first);
                after
            }
        };
    }
    Cow::Owned(out)
}

/// What follows a control sequence, if it is complete.
fn sequence_end(sequence: &[u8], end: u8, within: impl Fn(u8) -> bool) -> Option<&[u8]> {
    let length = sequence.iter().position(|byte| !within(*byte))?;
    (sequence.get(length) == Some(&end)).then(|| sequence.get(length.saturating_add(1)..)).flatten()
}

fn kept<'m>(out: &mut Vec<u8>, after: &'m [u8]) -> &'m [u8] {
    out.push(0x1b);
    after
}

/// A JSON object in the order of its fields; several values of one become an array.
#[derive(Default)]
struct Object {
    fields: Vec<(String, Vec<String>)>,
    places: HashMap<Vec<u8>, usize>,
}

impl Object {
    fn add(&mut self, name: &[u8], value: String) {
        let place = self.places.get(name).and_then(|place| self.fields.get_mut(*place));
        match place {
            Some((_, values)) => values.push(value),
            None => {
                self.places.insert(name.to_vec(), self.fields.len());
                self.fields.push((String::from_utf8_lossy(name).into_owned(), vec![value]));
            }
        }
    }

    fn line(&self) -> String {
        let field = |(name, values): &(String, Vec<String>)| match values.as_slice() {
            [one] => format!("\"{name}\":{one}"),
            several => format!("\"{name}\":[{}]", several.join(",")),
        };
        let fields: Vec<String> = self.fields.iter().map(field).collect();
        format!("{{{}}}", fields.join(","))
    }

    fn pretty(&self) -> String {
        let field = |(name, values): &(String, Vec<String>)| match values.as_slice() {
            [one] => format!("\t\"{name}\" : {one}"),
            several => format!("\t\"{name}\" : [\n\t\t{}\n\t]", several.join(",\n\t\t")),
        };
        let fields: Vec<String> = self.fields.iter().map(field).collect();
        format!("{{\n{}\n}}\n", fields.join(",\n"))
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len().saturating_add(2));
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}
