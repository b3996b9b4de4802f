//! `guest units --calendar` and `--timespan`: what expressions of time mean in the guest.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::super::Inside;
use crate::cli::args::guest::UnitsArgs;
use crate::cli::commands::Context;
use crate::error::{Error, Kind, Result};
use crate::inspect::journal::show::time_text;
use crate::inspect::systemd::calendar::Calendar;
use crate::inspect::systemd::time;
use crate::inspect::systemd::zones::Zones;

/// Times that an expression elapses that are told at most.
const MOST: u32 = 10_000;

pub(super) fn spans(args: &UnitsArgs, context: &Context) -> Result<()> {
    let (mut json, mut text): (Vec<Value>, Vec<String>) = (Vec::new(), Vec::new());
    for span in &args.timespan {
        let micros = time::span(span).ok_or_else(|| {
            Error::new(Kind::Usage, "units.timespan", "this is no span of time")
                .found(span)
                .hint("write it as 1h 30min, 2 weeks, 300ms or infinity; a number alone is seconds")
        })?;
        let human = time::span_text(micros);
        text.push(format!("Original: {span}\n      μs: {micros}\n   Human: {human}\n"));
        json.push(json!({ "span": span, "microseconds": micros, "normalized": human }));
    }
    context.output.result(&json!({ "spans": json }), &text.join("\n"))
}

pub(super) fn calendars(args: &UnitsArgs, context: &Context) -> Result<()> {
    if !(1..=MOST).contains(&args.iterations) {
        return Err(Error::new(Kind::Usage, "units.calendar", "--iterations is from 1 to 10000"));
    }
    let inside = Inside::open(&args.inside, context)?;
    let zones = Zones::read(&inside.tree, Timestamp::now())?;
    let local = zones.local();
    let base = base(args, &local.rules)?;
    let (mut json, mut text): (Vec<Value>, Vec<String>) = (Vec::new(), Vec::new());
    for expression in &args.calendar {
        let calendar = Calendar::parse(expression, &zones)?;
        let (mut moments, mut moment) = (Vec::new(), base);
        for _ in 0..args.iterations {
            context.session.check()?;
            let Some(next) = calendar.next(moment, &local.rules) else { break };
            moments.push(u64::try_from(next.as_microsecond()).unwrap_or(0));
            moment = next;
        }
        text.push(told(expression, &calendar, &moments, &local.rules));
        json.push(json!({ "expression": expression, "normalized": calendar.to_string(), "elapses": moments }));
    }
    context.output.result(&json!({ "time_zone": local.name, "calendars": json }), &text.join("\n"))
}

/// The time that `--base-time` names on the guest's clock.
pub(super) fn base(args: &UnitsArgs, local: &TimeZone) -> Result<Timestamp> {
    let now = Timestamp::now();
    let Some(text) = &args.base_time else { return Ok(now) };
    let micros = time::point(text, &now.to_zoned(local.clone()))?;
    i64::try_from(micros)
        .ok()
        .and_then(|micros| Timestamp::from_microsecond(micros).ok())
        .ok_or_else(|| Error::new(Kind::Usage, "log.time", "this time is too far off").found(text))
}

fn told(expression: &str, calendar: &Calendar, moments: &[u64], local: &TimeZone) -> String {
    const FORMAT: &str = "%a %Y-%m-%d %H:%M:%S %Z";
    let normal = calendar.to_string();
    let mut text = String::new();
    if normal != expression {
        text.push_str(&format!("  Original form: {expression}\n"));
    }
    text.push_str(&format!("Normalized form: {normal}\n"));
    if moments.is_empty() {
        text.push_str("    Next elapse: never\n");
    }
    for (number, moment) in (1..).zip(moments) {
        let label = if number == 1 { "Next elapse".to_owned() } else { format!("Iter. #{number}") };
        text.push_str(&format!("{label:>15}: {}\n", time_text(*moment, local, FORMAT)));
        if *local != TimeZone::UTC && local.iana_name() != Some("UTC") {
            text.push_str(&format!("       (in UTC): {}\n", time_text(*moment, &TimeZone::UTC, FORMAT)));
        }
    }
    text
}
