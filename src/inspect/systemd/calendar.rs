//! Calendar expressions: `Mon..Fri *-*-* 03:00`, `*-*~1`, `*:0/15`, `weekly` (`systemd.time(7)`, “Calendar Events”).
//!
//! An expression is a set of times of the clock on the wall. [`Calendar::next`] tells when the clock of a time zone next shows one
//! of them: times that a change of that clock leaves out do not come, and those that it shows twice come once, the first time.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::fmt;

use super::zones::{Zone, Zones};
use crate::error::{Error, Kind, Result};

mod next;
mod parse;
#[cfg(test)]
mod tests;

/// The years that can be asked for.
const YEARS: (i64, i64) = (1970, 2199);

/// Microseconds of a second: seconds are counted in them.
const SECOND: i64 = 1_000_000;

/// Short names in order, the first of them bit 0 of [`Calendar::weekdays`].
const WEEKDAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// Every day of the week.
const EVERY_DAY: u8 = 0x7f;

/// A calendar expression. It prints itself in its normal form.
#[derive(Clone, Debug)]
pub struct Calendar {
    /// Bit 0 is Monday.
    weekdays: u8,
    year: Chain,
    month: Chain,
    day: Chain,
    /// Days are counted back from the month's last, which is 1.
    from_end: bool,
    hour: Chain,
    minute: Chain,
    /// In microseconds.
    second: Chain,
    zone: CalendarZone,
}

/// Whose clock it is.
#[derive(Clone, Debug)]
enum CalendarZone {
    /// The guest's own.
    Local,
    /// The guest's own, while it shows this abbreviation: summer time, or not.
    Season { name: String, is_summer: bool },
    /// By name.
    Named(Zone),
}

/// Values of one component, sorted; any value when there are none.
type Chain = Vec<Part>;

/// `START..STOP/STEP`. Without a stop, it goes on to the component's highest value; without a step, there is only one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Part {
    start: i64,
    stop: Option<i64>,
    step: Option<i64>,
}

impl Calendar {
    /// Understands an expression; `zones` are those of the guest.
    pub fn parse(text: &str, zones: &Zones<'_>) -> Result<Self> {
        parse::calendar(text, zones)?.ok_or_else(|| {
            Error::new(Kind::Usage, "units.calendar", "this is no calendar expression").found(text).hint(
                "write it as [WEEKDAYS] [YEAR-MONTH-DAY] [HOUR:MINUTE[:SECOND]] [ZONE]: Mon..Fri *-*-* 03:00, *:0/15, weekly",
            )
        })
    }
}

impl fmt::Display for Calendar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.weekdays != EVERY_DAY {
            write!(f, "{} ", weekdays(self.weekdays))?;
        }
        let (year, month, day) = (chain(&self.year, 4, 1), chain(&self.month, 2, 1), chain(&self.day, 2, 1));
        let before_day = if self.from_end { '~' } else { '-' };
        let (hour, minute, second) =
            (chain(&self.hour, 2, 1), chain(&self.minute, 2, 1), chain(&self.second, 2, SECOND));
        write!(f, "{year}-{month}{before_day}{day} {hour}:{minute}:{second}")?;
        match &self.zone {
            CalendarZone::Local => Ok(()),
            CalendarZone::Season { name, .. } => write!(f, " {name}"),
            CalendarZone::Named(zone) => write!(f, " {}", zone.name),
        }
    }
}

/// `Mon..Wed,Fri`; two days that follow one another are named both.
fn weekdays(mask: u8) -> String {
    let mut groups: Vec<Vec<&str>> = vec![Vec::new()];
    for (bit, name) in (0_u32..).zip(WEEKDAYS) {
        let is_in = 1_u8.checked_shl(bit).is_some_and(|bit| mask & bit != 0);
        match groups.last_mut() {
            Some(group) if is_in => group.push(name),
            Some(group) if !group.is_empty() => groups.push(Vec::new()),
            _ => {}
        }
    }
    let groups = groups.iter().filter(|group| !group.is_empty()).map(|group| match group.as_slice() {
        [first, _, .., last] => format!("{first}..{last}"),
        few => few.join(","),
    });
    groups.collect::<Vec<_>>().join(",")
}

/// The values of a component with `width` digits, in units of `unit`.
fn chain(chain: &[Part], width: usize, unit: i64) -> String {
    let every_second = [Part { start: 0, stop: None, step: Some(SECOND) }];
    if chain.is_empty() || (unit == SECOND && chain == every_second) {
        return "*".to_owned();
    }
    let number = |value: i64, width: usize| {
        let whole = value.checked_div(unit).unwrap_or(0);
        match value.checked_rem(unit).unwrap_or(0) {
            0 => format!("{whole:0width$}"),
            part => format!("{whole:0width$}.{part:06}"),
        }
    };
    let part = |part: &Part| {
        let stop = part.stop.map(|stop| format!("..{}", number(stop, width))).unwrap_or_default();
        let is_plain = part.stop.is_some() && part.step == Some(unit);
        let step = part.step.filter(|_| !is_plain).map(|step| format!("/{}", number(step, 0))).unwrap_or_default();
        format!("{}{stop}{step}", number(part.start, width))
    };
    chain.iter().map(part).collect::<Vec<_>>().join(",")
}
