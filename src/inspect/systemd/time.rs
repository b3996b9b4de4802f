//! Points in time and spans of time as systemd writes them (`systemd.time(7)`).
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, Zoned};

use crate::error::{Error, Kind, Result};

const SECOND: u64 = 1_000_000;
const DAY: u64 = 86_400 * SECOND;

/// Names of units with their microseconds. A month is a twelfth of a year, and a year has 365.25 days.
const UNITS: &[(&[&str], u64)] = &[
    (&["seconds", "second", "sec", "s"], SECOND),
    (&["minutes", "minute", "min", "m"], 60 * SECOND),
    (&["hours", "hour", "hr", "h"], 3600 * SECOND),
    (&["days", "day", "d"], DAY),
    (&["weeks", "week", "w"], 7 * DAY),
    (&["months", "month", "M"], 2_629_800 * SECOND),
    (&["years", "year", "y"], 31_557_600 * SECOND),
    (&["msec", "ms"], 1000),
    (&["usec", "us", "µs", "μs"], 1),
];

/// A span such as `1h 30min` in microseconds; a number alone is in seconds, and `infinity` is [`u64::MAX`]. `None` for what is no span.
#[must_use]
pub fn span(text: &str) -> Option<u64> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    if rest == "infinity" {
        return Some(u64::MAX);
    }
    let mut sum = 0_u64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
        let (number, after) = rest.split_at_checked(end)?;
        let after = after.trim_start();
        let end = after.find(|c: char| !c.is_alphabetic()).unwrap_or(after.len());
        let (name, after) = after.split_at_checked(end)?;
        let unit = match name {
            "" => SECOND,
            name => UNITS.iter().find(|(names, _)| names.contains(&name))?.1,
        };
        sum = sum.checked_add(scaled(number, unit)?)?;
        rest = after.trim_start();
    }
    Some(sum)
}

/// A span of so many microseconds as systemd writes it: `1h 30min`. [`u64::MAX`] stands for ever.
#[must_use]
pub fn span_text(micros: u64) -> String {
    const NAMES: [(&str, u64, usize); 9] = [
        ("y", 31_557_600 * SECOND, 0),
        ("month", 2_629_800 * SECOND, 0),
        ("w", 7 * DAY, 0),
        ("d", DAY, 0),
        ("h", 3600 * SECOND, 0),
        ("min", 60 * SECOND, 0),
        ("s", SECOND, 6),
        ("ms", 1000, 3),
        ("us", 1, 0),
    ];
    if micros == u64::MAX {
        return "infinity".to_owned();
    }
    let (mut rest, mut words) = (micros, Vec::new());
    for (name, unit, digits) in NAMES {
        let (count, left) = (rest.checked_div(unit).unwrap_or(0), rest.checked_rem(unit).unwrap_or(0));
        match (count, left) {
            (0, _) => {}
            // What is less than a minute is one number.
            (_, 1..) if digits > 0 => {
                words.push(format!("{count}.{left:0digits$}{name}"));
                rest = 0;
            }
            _ => {
                words.push(format!("{count}{name}"));
                rest = left;
            }
        }
    }
    if words.is_empty() { "0".to_owned() } else { words.join(" ") }
}

/// `1.5` of a unit.
fn scaled(number: &str, unit: u64) -> Option<u64> {
    let (whole, part) = match number.split_once('.') {
        Some((_, "")) => return None,
        Some(parts) => parts,
        None => (number, ""),
    };
    if whole.is_empty() && part.is_empty() {
        return None;
    }
    let mut sum = if whole.is_empty() { 0 } else { whole.parse::<u64>().ok()?.checked_mul(unit)? };
    let mut place = unit;
    for digit in part.chars() {
        place /= 10;
        sum = sum.checked_add(place.checked_mul(u64::from(digit.to_digit(10)?))?)?;
    }
    Some(sum)
}

/// A point in time in microseconds since the epoch: `2026-01-31 12:00:00`, `today`, `-1h`, `2 days ago`, `@1700000000` and the
/// like. What has no time zone of its own is in the zone of `now`.
pub fn point(text: &str, now: &Zoned) -> Result<u64> {
    parse(text.trim(), now).ok_or_else(|| {
        Error::new(Kind::Usage, "log.time", "this is no time")
            .found(text)
            .hint("write it as 2026-01-31 12:00:00, 12:00, today, yesterday, -1h, \"2 days ago\" or @1700000000")
    })
}

fn parse(text: &str, now: &Zoned) -> Option<u64> {
    if let Some(seconds) = text.strip_prefix('@') {
        return scaled(seconds, SECOND);
    }
    let present = u64::try_from(now.timestamp().as_microsecond()).ok()?;
    if let Some(text) = text.strip_prefix('+') {
        return present.checked_add(span(text)?);
    }
    if let Some(text) = text.strip_prefix('-').or_else(|| text.strip_suffix(" ago")) {
        return present.checked_sub(span(text)?);
    }
    if let Some(text) = text.strip_suffix(" left") {
        return present.checked_add(span(text)?);
    }
    let day = |offset: i64| {
        let date = now.date().checked_add(Span::new().try_days(offset).ok()?).ok()?;
        micros(&date.to_datetime(Time::midnight()).to_zoned(now.time_zone().clone()).ok()?)
    };
    match text {
        "now" => Some(present),
        "today" => day(0),
        "yesterday" => day(-1),
        "tomorrow" => day(1),
        text => calendar(text, now),
    }
}

/// `[WEEKDAY] [DATE] [TIME] [ZONE]`.
fn calendar(text: &str, now: &Zoned) -> Option<u64> {
    let mut words: Vec<&str> = text.split_whitespace().collect();
    let zone = match words.last().and_then(|word| zone(word)) {
        Some(zone) => {
            words.pop();
            zone
        }
        None => now.time_zone().clone(),
    };
    let mut weekday = None;
    if let Some(day) = words.first().and_then(|word| weekday_of(word)) {
        weekday = Some(day);
        words.remove(0);
    }
    let moment = match words.as_slice() {
        [word] => match word.split_once('T') {
            Some((day, clock)) => date(day)?.to_datetime(time(clock)?),
            None => match date(word) {
                Some(date) => date.to_datetime(Time::midnight()),
                None => now.with_time_zone(zone.clone()).date().to_datetime(time(word)?),
            },
        },
        [day, clock] => date(day)?.to_datetime(time(clock)?),
        _ => return None,
    };
    if weekday.is_some_and(|weekday| moment.weekday() != weekday) {
        return None;
    }
    micros(&moment.to_zoned(zone).ok()?)
}

fn micros(zoned: &Zoned) -> Option<u64> {
    u64::try_from(zoned.timestamp().as_microsecond()).ok()
}

/// `UTC`, or the name of a time zone that this host knows.
pub(super) fn zone(word: &str) -> Option<TimeZone> {
    if word.eq_ignore_ascii_case("UTC") || word == "Z" {
        return Some(TimeZone::UTC);
    }
    let plain = word.starts_with(|c: char| c.is_ascii_alphabetic())
        && word.chars().all(|c| c.is_ascii_alphanumeric() || "/_+-".contains(c));
    let named =
        plain && weekday_of(word).is_none() && (word.contains('/') || word.chars().all(|c| c.is_ascii_uppercase()));
    if named { TimeZone::get(word).ok() } else { None }
}

/// A weekday by its English name or the first three letters of it.
pub(super) fn weekday_of(word: &str) -> Option<jiff::civil::Weekday> {
    use jiff::civil::Weekday::{Friday, Monday, Saturday, Sunday, Thursday, Tuesday, Wednesday};
    let days = [
        ("Monday", Monday),
        ("Tuesday", Tuesday),
        ("Wednesday", Wednesday),
        ("Thursday", Thursday),
        ("Friday", Friday),
        ("Saturday", Saturday),
        ("Sunday", Sunday),
    ];
    let fits = |name: &str| {
        word.eq_ignore_ascii_case(name) || name.get(..3).is_some_and(|short| word.eq_ignore_ascii_case(short))
    };
    days.into_iter().find(|(name, _)| fits(name)).map(|(_, day)| day)
}

fn date(word: &str) -> Option<Date> {
    let mut parts = word.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    let number = |text: &str| text.parse::<u16>().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    let year = match (year.len(), number(year)?) {
        // As strptime has it: 69 to 99 belong to the last century.
        (2, year) if year >= 69 => year.checked_add(1900)?,
        (2, year) => year.checked_add(2000)?,
        (4, year) => year,
        _ => return None,
    };
    let small = |text: &str| number(text).and_then(|number| i8::try_from(number).ok());
    if parts.next().is_some() {
        return None;
    }
    Date::new(i16::try_from(year).ok()?, small(month)?, small(day)?).ok()
}

fn time(word: &str) -> Option<Time> {
    let mut parts = word.split(':');
    let small = |text: &str| {
        text.parse::<i8>().ok().filter(|_| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let (hour, minute) = (small(parts.next()?)?, small(parts.next()?)?);
    let (second, part) = match parts.next() {
        None => (0, 0),
        Some(seconds) => {
            let (second, part) = seconds.split_once('.').unwrap_or((seconds, ""));
            (small(second)?, if part.is_empty() { 0 } else { scaled(&format!("0.{part}"), SECOND)? })
        }
    };
    if parts.next().is_some() {
        return None;
    }
    let nanoseconds = i32::try_from(part.checked_mul(1000)?).ok()?;
    Time::new(hour, minute, second, nanoseconds).ok()
}

/// The present in the time zone of this host.
#[must_use]
pub fn now() -> Zoned {
    Timestamp::now().to_zoned(TimeZone::system())
}

/// A point in time in some zone.
#[must_use]
pub fn at(datetime: DateTime, zone: &TimeZone) -> Option<Zoned> {
    datetime.to_zoned(zone.clone()).ok()
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "tests build their input")]
mod tests {
    use super::*;

    #[test]
    fn spans() {
        for (text, micros) in [
            ("1h 30min", 5400 * SECOND),
            ("90", 90 * SECOND),
            ("1.5s", 1_500_000),
            ("2 days 3 hours", 2 * DAY + 3 * 3600 * SECOND),
            ("1y", 31_557_600 * SECOND),
            ("300ms20usec", 300_020),
            ("1M", 2_629_800 * SECOND),
        ] {
            assert_eq!(span(text), Some(micros), "{text}");
        }
        for text in ["", "h", "1x", "-1", "1 . s", "99999999999999999999", "9999999999999y", "."] {
            assert_eq!(span(text), None, "{text}");
        }
    }

    #[test]
    fn points() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let now = DateTime::constant(2026, 11, 21, 13, 30, 15, 0).to_zoned(zone).unwrap();
        let present = 1_795_260_615 * SECOND;
        assert_eq!(micros(&now), Some(present));
        let midnight = present - (13 * 3600 + 30 * 60 + 15) * SECOND;
        for (text, micros) in [
            ("now", present),
            ("today", midnight),
            ("yesterday", midnight - DAY),
            ("tomorrow", midnight + DAY),
            ("@1700000000.5", 1_700_000_000_500_000),
            ("-1h", present - 3600 * SECOND),
            ("+2min", present + 120 * SECOND),
            ("2 days ago", present - 2 * DAY),
            ("1h left", present + 3600 * SECOND),
            ("2026-11-21", midnight),
            ("26-11-21 13:30", present - 15 * SECOND),
            ("2026-11-21 13:30:15.25", present + 250_000),
            ("2026-11-21T13:30:15", present),
            ("Sat 2026-11-21 11:30:15 UTC", present),
            ("13:30:15", present),
            ("11:30 UTC", present - 15 * SECOND),
        ] {
            assert_eq!(point(text, &now).unwrap(), micros, "{text}");
        }
        for text in
            ["", "Sun 2026-11-21", "2026-13-01", "25:00", "1:2:3:4", "@", "2026-11-21 12:00 x y", "+", "\u{1b}["]
        {
            assert_eq!(point(text, &now).unwrap_err().code(), "log.time", "{text}");
        }
    }
}
