//! Without other programs; `tests/calendar.rs` compares with `systemd-analyze`.

#![allow(clippy::as_conversions, clippy::arithmetic_side_effects, reason = "tests build their input")]

use std::sync::Arc;

use jiff::Timestamp;

use super::*;
use crate::fs::{MemoryFs, Tree};
use crate::limits;

fn tree() -> Tree {
    let fs = MemoryFs::default();
    // Two changes a year for ever, by the rule at the table's end.
    let rule = b"\nCET-1CEST,M3.5.0,M10.5.0/3\n";
    let mut table = Vec::new();
    for version in 0..2 {
        table.extend_from_slice(b"TZif2");
        table.extend_from_slice(&[0; 15]);
        for count in [0_u32, 0, 0, 0, 1, 4] {
            table.extend_from_slice(&count.to_be_bytes());
        }
        table.extend_from_slice(&3600_i32.to_be_bytes());
        table.extend_from_slice(&[0, 0]);
        table.extend_from_slice(b"CET\0");
        if version == 1 {
            table.extend_from_slice(rule);
        }
    }
    fs.add_file("/etc/localtime", table).unwrap();
    Tree::new(Arc::new(fs))
}

/// The seconds at which the expression elapses after `base`, and its normal form.
fn told(expression: &str, base: i64, count: usize) -> (String, Vec<i64>) {
    let (tree, mut moment) = (tree(), Timestamp::from_second(base).unwrap());
    let zones = Zones::read(&tree, moment).unwrap();
    let calendar = Calendar::parse(expression, &zones).unwrap();
    let mut moments = Vec::new();
    while let Some(next) = calendar.next(moment, &zones.local().rules).filter(|_| moments.len() < count) {
        moments.push(next.as_second());
        moment = next;
    }
    (calendar.to_string(), moments)
}

#[test]
fn a_clock_that_leaves_out_an_hour_and_shows_one_twice() {
    // 2026-03-29 00:30 UTC, half an hour before 02:00 becomes 03:00.
    let spring = 1_774_744_200;
    assert_eq!(told("*:15", spring, 2).1, [spring + 2700, spring + 6300]);
    let (_, days) = told("02:30", spring, 1);
    assert_eq!(days, [spring + 86_400]);
    // 2026-10-25 00:00 UTC, 02:00 for the first time.
    let autumn = 1_792_886_400;
    assert_eq!(told("*:30", autumn, 3).1, [autumn + 1800, autumn + 9000, autumn + 12_600]);
    // Inside the hour that is shown for the second time.
    assert_eq!(told("*:*:*", autumn + 4000, 2).1, [autumn + 7200, autumn + 7201]);
    assert_eq!(told("02:30", autumn + 4000, 1).1, [autumn + 1800 + 3600 + 86_400]);
    // While the clock shows winter time only.
    assert_eq!(told("02:30 CET", autumn, 1), ("*-*-* 02:30:00 CET".to_owned(), vec![autumn + 5400]));
    assert_eq!(told("*:*:0 CEST", autumn + 3600, 1).1, [1_806_195_600]);
}

#[test]
fn bounds_of_parts() {
    let text = |count: usize| format!("{}1:00", "1,".repeat(count - 1));
    let tree = tree();
    let zones = Zones::read(&tree, Timestamp::UNIX_EPOCH).unwrap();
    for (count, fits) in [
        (limits::MAX_CALENDAR_PARTS - 1, true),
        (limits::MAX_CALENDAR_PARTS, true),
        (limits::MAX_CALENDAR_PARTS + 1, false),
    ] {
        assert_eq!(Calendar::parse(&text(count), &zones).is_ok(), fits, "{count}");
    }
    assert_eq!(Calendar::parse("\u{1b}[31m", &zones).unwrap_err().code(), "units.calendar");
}

#[test]
fn hostile_zones_are_none() {
    for content in [Vec::new(), b"TZif2".to_vec(), vec![0xff; 4096], vec![b'T'; limits::MAX_TIME_ZONE as usize + 1]] {
        let fs = MemoryFs::default();
        fs.add_file("/etc/localtime", content.clone()).unwrap();
        fs.add_file("/usr/share/zoneinfo/Europe/Berlin", content).unwrap();
        let tree = Tree::new(Arc::new(fs));
        let zones = Zones::read(&tree, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(zones.local().name, "UTC");
        for name in ["Europe/Berlin", "../../etc/passwd", "/etc/passwd", "", "a\0b", "\u{1b}", &"a".repeat(300)] {
            assert!(zones.named(name).unwrap().is_none(), "{name:?}");
        }
    }
}

#[test]
fn dates_that_never_come() {
    for expression in ["*-2-30", "2199-12-31 23:59:59", "Mon 1970-1-2"] {
        let base = if expression.starts_with('2') { 7_258_118_399 } else { 0 };
        assert_eq!(told(expression, base, 1).1, Vec::<i64>::new(), "{expression}");
    }
}

#[test]
fn as_many_changes_of_the_clock_are_gone_through_as_the_limit() {
    let zone = jiff::tz::TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
    let tree = tree();
    let zones = Zones::read(&tree, Timestamp::from_second(1_790_000_000).unwrap()).unwrap();
    // The clock leaves it out in 2027, and not in 2028.
    let calendar = Calendar::parse("*-03-28 02:30:00", &zones).unwrap();
    let after: Timestamp = "2027-01-01T00:00:00Z".parse().unwrap();
    let found: Timestamp = "2028-03-28T00:30:00Z".parse().unwrap();
    let next = |most| calendar.next_within(after, &zone, most);
    assert_eq!((next(1), next(2), next(3)), (None, Some(found), Some(found)));
    assert_eq!(next(limits::MAX_CALENDAR_CHANGES), Some(found));
}
