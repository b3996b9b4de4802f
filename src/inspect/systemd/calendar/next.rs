//! When a [`Calendar`] elapses next.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use jiff::civil::{Date, DateTime};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Timestamp, ToSpan};

use super::{Calendar, CalendarZone, Part, SECOND, YEARS};
use crate::limits;

impl Calendar {
    /// The first time after `after` that it elapses, on the clock of `local` unless it names another; `None` for never.
    #[must_use]
    pub fn next(&self, after: Timestamp, local: &TimeZone) -> Option<Timestamp> {
        self.next_within(after, local, limits::MAX_CALENDAR_CHANGES)
    }

    /// The same, going through no more than `most` times that the clock may leave out.
    pub(super) fn next_within(&self, after: Timestamp, local: &TimeZone, most: usize) -> Option<Timestamp> {
        let (zone, season) = match &self.zone {
            CalendarZone::Local => (local, None),
            CalendarZone::Season { is_summer, .. } => (local, Some(*is_summer)),
            CalendarZone::Named(zone) => (&zone.rules, None),
        };
        let after = Timestamp::from_microsecond(after.as_microsecond()).ok()?;
        let mut from = shown(zone, after.checked_add(1.microsecond()).ok()?);
        // Every round but the last leaves a change of the clock behind.
        for _ in 0..most {
            let found = self.find(from)?;
            let (first, second) = match zone.to_ambiguous_timestamp(found).offset() {
                AmbiguousOffset::Unambiguous { offset } => (offset, None),
                AmbiguousOffset::Fold { before, after } => (before, Some(after)),
                AmbiguousOffset::Gap { before, after } => {
                    let (least, most) = (after.to_timestamp(found).ok()?, before.to_timestamp(found).ok()?);
                    from = after.to_datetime(change(zone, least, most)?);
                    continue;
                }
            };
            let moments = [Some(first), second].into_iter().flatten().filter_map(|at| at.to_timestamp(found).ok());
            let fits =
                |moment: &Timestamp| season.is_none_or(|summer| zone.to_offset_info(*moment).dst().is_dst() == summer);
            let mut moments = moments.take(if season.is_some() { 2 } else { 1 }).filter(fits);
            match moments.next() {
                Some(moment) if moment > after => return Some(moment),
                Some(_) => from = found.checked_add(1.microsecond()).ok()?,
                None => {
                    let change = zone.following(first.to_timestamp(found).ok()?).next()?.timestamp();
                    from = shown(zone, change);
                }
            }
        }
        None
    }

    /// The first time on the wall from `from` on that fits.
    fn find(&self, from: DateTime) -> Option<DateTime> {
        let mut year = next(&self.year, from.year().into(), YEARS.1, Way::Up)?;
        let is_later = year > i64::from(from.year());
        let mut least = if is_later { Least::default() } else { Least::of(from) };
        loop {
            if let Some(found) = self.in_year(year, &least) {
                return Some(found);
            }
            (year, least) = (next(&self.year, year.checked_add(1)?, YEARS.1, Way::Up)?, Least::default());
        }
    }

    fn in_year(&self, year: i64, least: &Least) -> Option<DateTime> {
        let mut month = next(&self.month, least.month, 12, Way::Up)?;
        let mut least = if month > least.month { Least::default() } else { *least };
        loop {
            let first = Date::new(i16::try_from(year).ok()?, i8::try_from(month).ok()?, 1).ok()?;
            if let Some(found) = self.in_month(first, &least) {
                return Some(found);
            }
            (month, least) = (next(&self.month, month.checked_add(1)?, 12, Way::Up)?, Least::default());
        }
    }

    fn in_month(&self, first: Date, least: &Least) -> Option<DateTime> {
        let days = i64::from(first.days_in_month());
        let way = if self.from_end { Way::Down } else { Way::Up };
        let mut day = next(&self.day, least.day, days, way)?;
        let mut clock = if day > least.day { 0 } else { least.clock };
        loop {
            let date = first.with().day(i8::try_from(day).ok()?).build().ok()?;
            if let Some(clock) = self.clock(clock).filter(|_| self.has_weekday(date)) {
                return at(date, clock);
            }
            (day, clock) = (next(&self.day, day.checked_add(1)?, days, way)?, 0);
        }
    }

    fn has_weekday(&self, date: Date) -> bool {
        let bit = u32::try_from(date.weekday().to_monday_zero_offset()).ok().and_then(|bit| 1_u8.checked_shl(bit));
        bit.is_some_and(|bit| self.weekdays & bit != 0)
    }

    /// The first time of a day from `from` on, in microseconds since midnight.
    fn clock(&self, from: i64) -> Option<i64> {
        let mut from = from;
        // At most: the minute is over, the hour is over, and then the first of a later hour.
        for _ in 0..4 {
            let (seconds, micros) = (from.checked_div(SECOND)?, from.checked_rem(SECOND)?);
            let (minutes, second) = (seconds.checked_div(60)?, seconds.checked_rem(60)?);
            let (hour_of, minute_of) = (minutes.checked_div(60)?, minutes.checked_rem(60)?);
            let hour = next(&self.hour, hour_of, 23, Way::Up)?;
            let least_minute = if hour > hour_of { 0 } else { minute_of };
            let Some(minute) = next(&self.minute, least_minute, 59, Way::Up) else {
                from = micros_of(hour.checked_add(1)?, 0, 0)?;
                continue;
            };
            let is_later = hour > hour_of || minute > minute_of;
            let least = if is_later { 0 } else { second.checked_mul(SECOND)?.checked_add(micros)? };
            let Some(second) = next(&self.second, least, 60_i64.checked_mul(SECOND)?.checked_sub(1)?, Way::Up) else {
                from = micros_of(hour, minute.checked_add(1)?, 0)?;
                continue;
            };
            return micros_of(hour, minute, second);
        }
        None
    }
}

/// What the clock of a zone shows; where it shows that for the second time, where it first shows something new.
fn shown(zone: &TimeZone, moment: Timestamp) -> DateTime {
    let shown = zone.to_datetime(moment);
    let AmbiguousOffset::Fold { before, .. } = zone.to_ambiguous_timestamp(shown).offset() else { return shown };
    let Some(first) = before.to_timestamp(shown).ok().filter(|first| *first != moment) else { return shown };
    change(zone, first, moment).map_or(shown, |change| before.to_datetime(change))
}

/// The second of a change of the clock between two moments that it lies between.
fn change(zone: &TimeZone, before: Timestamp, after: Timestamp) -> Option<Timestamp> {
    let (mut low, mut high) = (before.as_second(), after.as_second());
    let offset = |second: i64| Some(zone.to_offset(Timestamp::from_second(second).ok()?));
    let last = offset(high)?;
    while high.checked_sub(low)? > 1 {
        let middle = low.midpoint(high);
        if offset(middle)? == last { high = middle } else { low = middle }
    }
    Timestamp::from_second(high).ok()
}

/// The least month, day and time of day that count.
#[derive(Clone, Copy, Debug)]
struct Least {
    month: i64,
    day: i64,
    clock: i64,
}

impl Default for Least {
    fn default() -> Self {
        Self { month: 1, day: 1, clock: 0 }
    }
}

impl Least {
    fn of(from: DateTime) -> Self {
        let micros = i64::from(from.subsec_nanosecond()).checked_div(1000).unwrap_or(0);
        let second = i64::from(from.second()).saturating_mul(SECOND).saturating_add(micros);
        let clock = micros_of(from.hour().into(), from.minute().into(), second).unwrap_or(0);
        Self { month: from.month().into(), day: from.day().into(), clock }
    }
}

fn micros_of(hour: i64, minute: i64, second: i64) -> Option<i64> {
    let minutes = hour.checked_mul(60)?.checked_add(minute)?;
    minutes.checked_mul(60)?.checked_mul(SECOND)?.checked_add(second)
}

fn at(date: Date, clock: i64) -> Option<DateTime> {
    let (seconds, micros) = (clock.checked_div(SECOND)?, clock.checked_rem(SECOND)?);
    let (minutes, second) = (seconds.checked_div(60)?, seconds.checked_rem(60)?);
    let (hour, minute) = (minutes.checked_div(60)?, minutes.checked_rem(60)?);
    let small = |value: i64| i8::try_from(value).ok();
    let nanos = i32::try_from(micros.checked_mul(1000)?).ok()?;
    let time = jiff::civil::Time::new(small(hour)?, small(minute)?, small(second)?, nanos).ok()?;
    Some(date.to_datetime(time))
}

/// From where days are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Up,
    /// From the highest value, which is 1.
    Down,
}

/// The first value from `least` to `highest` that a chain holds.
fn next(chain: &[Part], least: i64, highest: i64, way: Way) -> Option<i64> {
    if chain.is_empty() {
        return Some(least).filter(|least| *least <= highest);
    }
    let first = |part: &Part| {
        let (mut start, mut stop) = (part.start, part.stop);
        if way == Way::Down {
            let counted = |value: i64| highest.checked_add(1)?.checked_sub(value);
            start = counted(start)?;
            if let Some(end) = stop {
                (start, stop) = (counted(end)?, Some(start));
            }
        }
        let value = match part.step {
            _ if start >= least => start,
            Some(step) => {
                let behind = least.checked_sub(start)?;
                let steps = behind.checked_add(step)?.checked_sub(1)?.checked_div(step)?;
                start.checked_add(steps.checked_mul(step)?)?
            }
            None => return None,
        };
        (value <= stop.unwrap_or(highest).min(highest)).then_some(value)
    };
    chain.iter().filter_map(first).min()
}
