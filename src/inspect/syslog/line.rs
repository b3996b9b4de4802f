//! One line of a log: `Nov 21 16:45:25 host sshd[812]: message` (RFC 3164), or with a time as of RFC 3339.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use jiff::Timestamp;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// What BusyBox writes before the program's name: facility and priority.
const FACILITIES: [&str; 20] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "local0",
    "local1", "local2", "local3", "local4", "local5", "local6", "local7",
];
const PRIORITIES: [&str; 9] = ["emerg", "alert", "crit", "err", "warn", "warning", "notice", "info", "debug"];

const DAY: i64 = 86_400;

/// A line, and what can be told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// All of it.
    pub text: &'a [u8],
    /// In microseconds since 1970.
    pub time: Option<u64>,
    /// The machine that it came from.
    pub host: Option<&'a str>,
    /// The program.
    pub identifier: Option<&'a str>,
    /// Its process.
    pub pid: Option<u32>,
    /// What it said; the whole line where it is not in the usual form.
    pub message: &'a [u8],
}

impl<'a> Line<'a> {
    /// Understands a line of a file that was last written at `modified`, in seconds since 1970.
    #[must_use]
    pub fn parse(text: &'a [u8], zone: &TimeZone, modified: i64) -> Self {
        let mut line = Self { text, time: None, host: None, identifier: None, pid: None, message: text };
        let head = text.get(..text.len().min(512)).unwrap_or_default();
        // The head may end inside a character.
        let head = match std::str::from_utf8(head) {
            Ok(head) => head,
            Err(error) => {
                head.get(..error.valid_up_to()).and_then(|head| std::str::from_utf8(head).ok()).unwrap_or_default()
            }
        };
        let Some((time, rest)) = exact(head).or_else(|| yearless(head, zone, modified)) else { return line };
        line.time = u64::try_from(time.as_microsecond()).ok();
        let Some((host, rest)) = rest.split_once(' ') else { return line };
        line.host = Some(host);
        let rest = without_priority(rest.trim_start_matches(' '));
        let from_end = |rest: &str| {
            let at = head.len().checked_sub(rest.len())?;
            text.get(at..)
        };
        line.message = from_end(rest).unwrap_or(text);
        if let Some((identifier, pid, rest)) = tag(rest) {
            (line.identifier, line.pid) = (Some(identifier), pid);
            line.message = from_end(rest).unwrap_or(text);
        }
        line
    }
}

/// `2026-11-21T16:45:25.123456+01:00 `.
fn exact(head: &str) -> Option<(Timestamp, &str)> {
    let (word, rest) = head.split_once(' ')?;
    let is_date = word.len() >= 20 && word.as_bytes().get(10) == Some(&b'T');
    Some((word.parse().ok().filter(|_| is_date)?, rest))
}

/// `Nov 21 16:45:25 `, in the latest year that is no day after the file was last written.
fn yearless<'h>(head: &'h str, zone: &TimeZone, modified: i64) -> Option<(Timestamp, &'h str)> {
    let (month, rest) = head.split_once(' ')?;
    let month = i8::try_from(MONTHS.iter().position(|name| *name == month)?).ok()?.checked_add(1)?;
    let (day, rest) = rest.trim_start_matches(' ').split_once(' ')?;
    let (clock, rest) = rest.split_once(' ')?;
    let small =
        |text: &str| text.parse::<i8>().ok().filter(|_| matches!(text.len(), 1 | 2) && !text.starts_with(['-', '+']));
    let mut parts = clock.split(':').map(small);
    let time = Time::new(parts.next()??, parts.next()??, parts.next()??, 0).ok().filter(|_| parts.next().is_none())?;
    let day = small(day)?;
    let latest = Timestamp::from_second(modified.checked_add(DAY)?).ok()?;
    let year = zone.to_datetime(latest).year();
    // A 29th of February may be eight years back.
    let moment = (0..=8_i16).filter_map(|back| {
        let date = Date::new(year.checked_sub(back)?, month, day).ok()?;
        zone.to_timestamp(DateTime::from_parts(date, time)).ok()
    });
    moment.into_iter().find(|moment| *moment <= latest).map(|moment| (moment, rest))
}

fn without_priority(rest: &str) -> &str {
    let known = |word: &str| {
        word.split_once('.')
            .is_some_and(|(facility, priority)| FACILITIES.contains(&facility) && PRIORITIES.contains(&priority))
    };
    rest.split_once(' ').filter(|(word, _)| known(word)).map_or(rest, |(_, rest)| rest)
}

/// `sshd[812]: ` or `kernel: `, with what comes behind.
fn tag(rest: &str) -> Option<(&str, Option<u32>, &str)> {
    let end = rest.find([':', '[', ' '])?;
    let (name, after) = rest.split_at_checked(end)?;
    let (pid, after) = match after.strip_prefix('[') {
        Some(inside) => {
            let (pid, after) = inside.split_once(']')?;
            (Some(pid.parse().ok()?), after)
        }
        None => (None, after),
    };
    let message = after.strip_prefix(':').filter(|_| !name.is_empty())?;
    Some((name, pid, message.strip_prefix(' ').unwrap_or(message)))
}
