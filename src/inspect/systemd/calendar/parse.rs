//! From text to a [`Calendar`].
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use super::{Calendar, CalendarZone, Chain, EVERY_DAY, Part, SECOND, WEEKDAYS, YEARS};
use crate::error::Result;
use crate::inspect::systemd::zones::{Zone, Zones};
use crate::limits;

/// Words that stand for an expression.
const WORDS: [(&str, &str); 13] = [
    ("minutely", "*:*:00"),
    ("hourly", "*:00"),
    ("daily", "*-*-*"),
    ("weekly", "Mon"),
    ("monthly", "*-*-1"),
    ("quarterly", "*-1,4,7,10-1"),
    ("annually", "*-1-1"),
    ("anually", "*-1-1"),
    ("yearly", "*-1-1"),
    ("biannually", "*-1,7-1"),
    ("bi-annually", "*-1,7-1"),
    ("semiannually", "*-1,7-1"),
    ("semi-annually", "*-1,7-1"),
];

/// The expression; `None` for what is none.
pub(super) fn calendar(text: &str, zones: &Zones<'_>) -> Result<Option<Calendar>> {
    let (text, zone) = zone(text, zones)?;
    let word = WORDS.iter().find(|(word, _)| word.eq_ignore_ascii_case(text));
    let text = word.map_or(text, |(_, meaning)| meaning);
    Ok((!text.is_empty()).then(|| expression(text, zone)).flatten())
}

/// The text without the zone at its end.
fn zone<'t>(text: &'t str, zones: &Zones<'_>) -> Result<(&'t str, CalendarZone)> {
    let Some((before, last)) = text.rsplit_once(' ') else { return Ok((text, CalendarZone::Local)) };
    if last.eq_ignore_ascii_case("UTC") {
        return Ok((before, CalendarZone::Named(Zone::utc())));
    }
    if let Some((name, is_summer)) = zones.season(last) {
        return Ok((before, CalendarZone::Season { name, is_summer }));
    }
    Ok(match zones.named(last)? {
        Some(zone) => (before, CalendarZone::Named(zone)),
        None => (text, CalendarZone::Local),
    })
}

fn expression(text: &str, zone: CalendarZone) -> Option<Calendar> {
    let (weekdays, rest) = weekdays(text)?;
    let (date, rest) = date(rest)?;
    let time = match date.time {
        Some(time) if rest.is_empty() => time,
        Some(_) => return None,
        None => time(rest)?,
    };
    let zone = if date.is_utc { CalendarZone::Named(Zone::utc()) } else { zone };
    let from_end = date.from_end && !date.day.is_empty();
    Some(Calendar {
        weekdays: if weekdays == 0 { EVERY_DAY } else { weekdays },
        year: normal(date.year.into_iter().map(full_year).collect(), YEARS, false)?,
        month: normal(date.month, (1, 12), false)?,
        day: normal(date.day, (1, 31), from_end)?,
        from_end,
        hour: normal(time.hour, (0, 23), false)?,
        minute: normal(time.minute, (0, 59), false)?,
        second: normal(time.second, (0, 60_i64.checked_mul(SECOND)?.checked_sub(1)?), false)?,
        zone,
    })
}

/// Days of the week at the beginning, as bits, with what comes behind them.
fn weekdays(text: &str) -> Option<(u8, &str)> {
    let (mut mask, mut rest, mut open) = (0_u8, text, None);
    loop {
        let Some((day, after)) = weekday(rest) else {
            // Without any it is the date; behind a comma or a range one must come.
            return (mask == 0).then_some((0, rest));
        };
        if !(after.is_empty() || after.starts_with([' ', '-', '.', ','])) {
            return None;
        }
        let begin: Option<u32> = open.take();
        let first = begin.unwrap_or(day);
        if first > day {
            return None;
        }
        for bit in first..=day {
            mask |= 1_u8.checked_shl(bit)?;
        }
        rest = after;
        if let Some(after) = rest.strip_prefix("..").or_else(|| rest.strip_prefix('-')) {
            if begin.is_some() {
                return None;
            }
            (open, rest) = (Some(day), after);
        } else if let Some(after) = rest.strip_prefix(',') {
            rest = after;
        } else if !(rest.is_empty() || rest.starts_with(' ')) {
            return None;
        }
        // A comma may end the list, a range may not.
        if rest.is_empty() || rest.starts_with(' ') {
            return open.is_none().then(|| (mask, rest.trim_start_matches(' ')));
        }
    }
}

/// The day that the text begins with, Monday being 0.
fn weekday(text: &str) -> Option<(u32, &str)> {
    let begins = |name: &str| {
        let (head, rest) = text.split_at_checked(name.len())?;
        head.eq_ignore_ascii_case(name).then_some(rest)
    };
    let long = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
    (0..).zip(long).zip(WEEKDAYS).find_map(|((day, long), short)| Some((day, begins(long).or_else(|| begins(short))?)))
}

#[derive(Default)]
struct DatePart {
    year: Chain,
    month: Chain,
    day: Chain,
    from_end: bool,
    /// Of `@SECONDS`, which is a date and a time in UTC.
    time: Option<TimePart>,
    is_utc: bool,
}

struct TimePart {
    hour: Chain,
    minute: Chain,
    second: Chain,
}

/// `[YEAR-]MONTH-DAY`, or nothing where a time comes.
fn date(text: &str) -> Option<(DatePart, &str)> {
    if text.is_empty() {
        return Some((DatePart::default(), text));
    }
    if let Some(seconds) = text.strip_prefix('@') {
        return moment(seconds);
    }
    let (first, rest) = chain(text, 1)?;
    if rest.is_empty() || rest.starts_with(':') {
        return Some((DatePart::default(), text));
    }
    let (from_end, rest) = dash(rest)?;
    let (second, rest) = chain(rest, 1)?;
    if rest.is_empty() || rest.starts_with(' ') {
        let date = DatePart { month: first, day: second, from_end, ..DatePart::default() };
        return Some((date, rest.trim_start_matches(' ')));
    }
    if from_end {
        return None;
    }
    let (from_end, rest) = dash(rest)?;
    let (third, rest) = chain(rest, 1)?;
    if !(rest.is_empty() || rest.starts_with(' ')) {
        return None;
    }
    let date = DatePart { year: first, month: second, day: third, from_end, ..DatePart::default() };
    Some((date, rest.trim_start_matches(' ')))
}

/// `-`, or `~` for days from the end.
fn dash(text: &str) -> Option<(bool, &str)> {
    match text.strip_prefix('~') {
        Some(rest) => Some((true, rest)),
        None => Some((false, text.strip_prefix('-')?)),
    }
}

/// `@SECONDS` since 1970.
fn moment(text: &str) -> Option<(DatePart, &str)> {
    let digits = text.len().checked_sub(text.trim_start_matches(|c: char| c.is_ascii_digit()).len())?;
    let (seconds, rest) = text.split_at_checked(digits)?;
    let moment = jiff::Timestamp::from_second(seconds.parse().ok()?).ok()?;
    let moment = jiff::tz::TimeZone::UTC.to_datetime(moment);
    let one = |value: i64| vec![Part { start: value, stop: None, step: None }];
    let time = TimePart {
        hour: one(moment.hour().into()),
        minute: one(moment.minute().into()),
        second: one(i64::from(moment.second()).checked_mul(SECOND)?),
    };
    let date = DatePart {
        year: one(moment.year().into()),
        month: one(moment.month().into()),
        day: one(moment.day().into()),
        from_end: false,
        time: Some(time),
        is_utc: true,
    };
    Some((date, rest))
}

/// `HOUR:MINUTE[:SECOND]`, or nothing, which is midnight.
fn time(text: &str) -> Option<TimePart> {
    let zero = || vec![Part { start: 0, stop: None, step: None }];
    if text.is_empty() {
        return Some(TimePart { hour: zero(), minute: zero(), second: zero() });
    }
    let (hour, rest) = chain(text, 1)?;
    let (minute, rest) = chain(rest.strip_prefix(':')?, 1)?;
    if rest.is_empty() {
        return Some(TimePart { hour, minute, second: zero() });
    }
    let (mut second, rest) = chain(rest.strip_prefix(':')?, SECOND)?;
    if second.is_empty() {
        second.push(Part { start: 0, stop: None, step: Some(SECOND) });
    }
    rest.is_empty().then_some(TimePart { hour, minute, second })
}

/// `*`, or parts with commas between; with what comes behind.
fn chain(text: &str, unit: i64) -> Option<(Chain, &str)> {
    if let Some(rest) = text.strip_prefix('*') {
        return Some((Vec::new(), rest));
    }
    let (mut parts, mut rest) = (Vec::new(), text);
    loop {
        let (part, after) = part(rest, unit)?;
        parts.push(part);
        match after.strip_prefix(',') {
            Some(_) if parts.len() >= limits::MAX_CALENDAR_PARTS => return None,
            Some(after) => rest = after,
            None => return Some((parts, after)),
        }
    }
}

fn part(text: &str, unit: i64) -> Option<(Part, &str)> {
    let (start, mut rest) = number(text, unit)?;
    let (mut stop, mut step) = (None, None);
    if let Some(after) = rest.strip_prefix("..") {
        let (value, after) = number(after, unit)?;
        (stop, step, rest) = (Some(value), Some(unit), after);
    }
    if let Some(after) = rest.strip_prefix('/') {
        let (value, after) = number(after, unit)?;
        (step, rest) = (Some(value).filter(|value| *value > 0), after);
        step?;
    }
    let ends = rest.is_empty() || rest.starts_with([' ', ',', '-', '~', ':']);
    ends.then_some((Part { start, stop, step }, rest))
}

/// A number in units of `unit`; of seconds also with a decimal part, which is rounded to microseconds.
fn number(text: &str, unit: i64) -> Option<(i64, &str)> {
    let (digits, rest) = digits(text);
    // Ten digits are more than any component takes, and no overflow.
    let significant = digits.trim_start_matches('0');
    if digits.is_empty() || significant.len() > 10 {
        return None;
    }
    let whole = if significant.is_empty() { 0 } else { significant.parse::<i64>().ok()? };
    let whole = whole.checked_mul(unit)?;
    let fraction = rest.strip_prefix('.').filter(|after| unit == SECOND && !after.starts_with('.'));
    let Some(fraction) = fraction else { return Some((whole, rest)) };
    let (digits, rest) = self::digits(fraction);
    if digits.is_empty() {
        return None;
    }
    let mut six = digits.chars().chain(std::iter::repeat('0')).filter_map(|digit| digit.to_digit(10));
    let micros = six.by_ref().take(6).try_fold(0_i64, |sum, digit| sum.checked_mul(10)?.checked_add(digit.into()))?;
    let rounding = i64::from(six.next().is_some_and(|digit| digit >= 5));
    Some((whole.checked_add(micros)?.checked_add(rounding)?, rest))
}

fn digits(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

/// Years of two digits belong to 1970 to 2069.
fn full_year(part: Part) -> Part {
    let full = |year: i64| match year {
        0..70 => year.saturating_add(2000),
        70..100 => year.saturating_add(1900),
        year => year,
    };
    Part { start: full(part.start), stop: part.stop.map(full), ..part }
}

/// The chain sorted, each part once; `None` if one of them can never be.
fn normal(mut chain: Chain, (from, to): (i64, i64), from_end: bool) -> Option<Chain> {
    for part in &mut chain {
        let Some((stop, step)) = part.stop.zip(part.step) else { continue };
        if stop > part.start {
            let over = stop.checked_sub(part.start)?.checked_rem(step)?;
            part.stop = Some(stop.checked_sub(over)?);
        }
        // A range that holds one value only.
        if part.stop == Some(part.start) {
            (part.stop, part.step) = (None, None);
        }
    }
    chain.sort();
    chain.dedup();
    let mut to = to;
    for part in &chain {
        // No more than 28 days from the month's end; systemd takes three days more from each further part.
        to = if from_end { to.checked_sub(3)? } else { to };
        let step = part.step.unwrap_or(0);
        let second = match (from_end, part.stop) {
            // The second value of a step without an end is nearer to the month's end.
            (true, None) => part.start.checked_sub(step)?,
            _ => part.start.checked_add(step)?,
        };
        let last = part.stop.unwrap_or(to);
        let fits = (from..=to).contains(&part.start) && (from..=to).contains(&last);
        if !fits || step > to.checked_sub(from)? || second > last || second < from {
            return None;
        }
    }
    Some(chain)
}
