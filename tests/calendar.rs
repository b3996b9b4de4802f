//! Calendar expressions and spans of time, compared with `systemd-analyze`.

use std::process::Command;
use std::sync::Arc;

use hyper2kvm::fs::{MemoryFs, Tree};
use hyper2kvm::inspect::journal::show::time_text;
use hyper2kvm::inspect::systemd::calendar::Calendar;
use hyper2kvm::inspect::systemd::time;
use hyper2kvm::inspect::systemd::zones::Zones;
use jiff::Timestamp;

use crate::support::{Lab, Run, tools};

const FORMAT: &str = "%a %Y-%m-%d %H:%M:%S %Z";

/// What systemd-analyze says of the expression: its normal form and when it elapses.
fn theirs(expression: &str, zone: &str, base: i64, count: usize) -> Option<(String, Vec<String>)> {
    let run = Command::new("systemd-analyze")
        .args(["calendar", &format!("--iterations={count}"), &format!("--base-time=@{base}"), expression])
        .env("TZ", format!(":{zone}"))
        .env("LC_ALL", "C")
        .output()
        .expect("systemd-analyze");
    assert!(!String::from_utf8_lossy(&run.stderr).contains("Infinite loop"), "{expression}");
    let text = String::from_utf8_lossy(&run.stdout).into_owned();
    let value = |line: &str, label: &str| Some(line.trim().strip_prefix(label)?.split_once(": ")?.1.to_owned());
    let normal = text.lines().find_map(|line| value(line, "Normalized form"))?;
    let times = text.lines().filter_map(|line| value(line, "Next elapse").or_else(|| value(line, "Iter.")));
    Some((normal, times.collect()))
}

/// A guest with this host's zones, whose clock shows this one.
fn guest(zone: &str) -> Tree {
    let fs = MemoryFs::default();
    for name in ["UTC", "Etc/UTC", "Europe/Berlin", "Europe/London", "America/New_York", "Australia/Lord_Howe"] {
        let path = format!("/usr/share/zoneinfo/{name}");
        fs.add_file(&path, std::fs::read(&path).expect("tzdata")).expect("room");
    }
    fs.add_link("/etc/localtime", &format!("../usr/share/zoneinfo/{zone}")).expect("room");
    Tree::new(Arc::new(fs))
}

fn ours(expression: &str, zone: &str, base: i64, count: usize) -> Option<(String, Vec<String>)> {
    let tree = guest(zone);
    let mut moment = Timestamp::from_second(base).expect("a time");
    let zones = Zones::read(&tree, moment).expect("zones");
    let calendar = Calendar::parse(expression, &zones).ok()?;
    let (mut times, rules) = (Vec::new(), zones.local().rules.clone());
    while let Some(next) = calendar.next(moment, &rules).filter(|_| times.len() < count) {
        times.push(time_text(next.as_microsecond() as u64, &rules, FORMAT));
        moment = next;
    }
    if times.is_empty() {
        times.push("never".to_owned());
    }
    Some((calendar.to_string(), times))
}

fn assert_same(expression: &str, zone: &str, base: i64) -> bool {
    let theirs = theirs(expression, zone, base, 6);
    assert_eq!(ours(expression, zone, base, 6), theirs, "{expression:?} {zone} {base}");
    theirs.is_some()
}

/// 2026-03-27 22:33:20 UTC, two days before clocks change in Europe.
const SPRING: i64 = 1_774_650_800;

/// 2026-10-24 12:00:00 UTC, the day before they change back.
const AUTUMN: i64 = 1_792_843_200;

const GOOD: &[&str] = &[
    "minutely",
    "hourly",
    "Daily",
    "WEEKLY",
    "monthly",
    "quarterly",
    "yearly",
    "annually",
    "anually",
    "biannually",
    "bi-annually",
    "semiannually",
    "semi-annually",
    "daily UTC",
    "weekly utc",
    "Mon",
    "monday",
    "Mon,",
    "Mon..Fri",
    "Mon-Fri",
    "Mon,Tue",
    "Sat,Sun,Mon",
    "Mon..Wed,Fri",
    "Mon..Wed,Fri..Sun",
    "Mon,Mon",
    "Mon..Mon",
    "Mon..Sun",
    "Sat,Thu,Mon..Wed,Sat..Sun",
    "Wed 17:48",
    "Wed..Sat,Tue 12-10-15 1:2:3",
    "*-*-7 0:0:0",
    "10-15",
    "monday *-12-* 17:00",
    "Mon,Fri *-*-3,1,2 *:30:45",
    "12,14,13,12:20,10,30",
    "12..14:10,20,30",
    "mon,fri *-1/2-1,3 *:30:45",
    "03-05 08:05:40",
    "08:05:40",
    "05:40",
    "Sat,Sun 12-05 08:05:40",
    "Sat,Sun 08:05:40",
    "2003-03-05 05:40",
    "05:40:23.4200004/3.1700005",
    "2003-02..04-05",
    "2003-03-05 05:40 UTC",
    "2003-03-05",
    "03-05",
    "*-*~1",
    "*-02~01",
    "*-*~7/1",
    "Mon *-05~07/1",
    "*-*~1..3",
    "*-*~1..3/2",
    "*-*~3,1",
    "*-*~28",
    "*~*",
    "*-*~*",
    "*:*:*",
    "*:0/5",
    "*:0..50/25:0..51/25.5",
    "5..5:00",
    "0..0:00",
    "0..21/7:00",
    "1..2/2:00",
    "*-*~8/5,25/9",
    "0/8:0/20",
    "*-*-1/9",
    "*-*-1..30/7",
    "*-*-31",
    "*-2-29",
    "*-02-30",
    "@86400000",
    "@1790000000",
    "1-2-3",
    "70-1-1",
    "69-1-1",
    "99-1-1",
    "2026..2030/2-1-1",
    "2100-2-29",
    "2199-12-31 23:59:59",
    "12:00:00.1234567",
    "12:0:0/1.5",
    "12:00:00..10/2",
    "9:5:0..59.5/0.5",
    "9:5:1.25..3.75/1",
    "Mon  *-*-*   12:00",
    "Mon 12:0:0,30,30",
    "1..5:00..3/1",
    "*-4,4,1..3/2-1",
    "00012:00",
    "*:*:0/30",
    "Sun *-*-* 2:30",
    "02:30",
    "*:30",
    "2..3:0/30",
    "03:00 Europe/Berlin",
    "Mon 09:30 America/New_York",
    "02:30 Europe/London",
    "*-*-* 01:30 Australia/Lord_Howe",
    "12:00 Etc/UTC",
    "23:59:59.999999",
    "Thu,Fri 2012-*-1,5 11:12:13",
    "Fri *-*-13",
    "*-1..3,7..9-1..7 4:5",
    "20:00..30",
    "*-*-* *:0..59/20:5",
];

const BAD: &[&str] = &[
    "00:00:00..00:00",
    "2-29 Mon",
    "",
    " ",
    "test",
    " utc UTC",
    "UTC",
    " UTC",
    "*~",
    "32..*-1",
    "1-32",
    "13-1",
    "24:00",
    "12:60",
    "12:00:60",
    "2003-03-05 05:40:23.42.",
    "Wed-",
    "Wed..",
    "Mon..Fri..Sun",
    "Sun..Mon",
    "Mon,,Tue",
    ",Mon",
    "12",
    "12:",
    ":12",
    "*-*~29",
    "*-*~8/5,28/9",
    "*-*~1/1",
    "23/1:00",
    "*-2~3..1",
    "*-*-5..1",
    "*-*-1/0",
    "*/5:00",
    "1/*:00",
    "Mon 12:00 Nowhere/City",
    " Mon",
    "Mon 12:00 ",
    "12:00:00.",
    "9:5:1/59.999999",
    "1969-1-1",
    "2200-1-1",
    "99999999999:00",
    "-1:00",
    "1..:00",
    "..3:00",
    "1.5:00",
    "12:00:1..2.",
    "@",
    "@x",
    "@1 12:00",
    "Moon",
    "Mondays",
    "Mon\t12:00",
    "12:00 +02:00",
    "12:00Z",
    "2026-01-01T12:00",
    "\u{1b}[31m",
    "Mon~1",
    "*-*-*-*",
    "1~2~3",
    "~1",
    "12:00:00:00",
    "*-**-*",
    "12:00 ../../etc/passwd",
];

#[test]
fn expressions_that_are_understood() {
    for expression in GOOD {
        for (zone, base) in [("UTC", SPRING), ("Europe/Berlin", SPRING), ("Europe/Berlin", AUTUMN)] {
            assert!(assert_same(expression, zone, base), "{expression}");
        }
    }
}

#[test]
fn expressions_that_are_not() {
    for expression in BAD {
        assert!(!assert_same(expression, "Europe/Berlin", SPRING), "{expression}");
    }
    let parts = |count: usize| format!("{}1:00", "1,".repeat(count - 1));
    for (count, fits) in [(240, true), (241, true), (242, false)] {
        assert_eq!(assert_same(&parts(count), "UTC", SPRING), fits, "{count}");
    }
}

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    fn component(&mut self, from: u64, to: u64) -> String {
        let value = |dice: &mut Self| from + dice.roll(to - from + 1);
        if self.roll(3) == 0 {
            return "*".to_owned();
        }
        let count = 1 + self.roll(3);
        let parts = (0..count).map(|_| {
            let (a, b) = (value(self), value(self));
            match self.roll(5) {
                0 => format!("{}..{}", a.min(b), a.max(b)),
                // With a step that ends between two values, systemd 252 leaves out what comes after midnight, or gives up.
                1 if to == 23 => format!("0/{}", [2, 3, 4, 6, 8, 12][self.roll(6) as usize]),
                1 if to == 59 => format!("0/{}", [2, 3, 4, 5, 6, 10, 12, 15, 20][self.roll(9) as usize]),
                1 => format!("{a}/{}", 1 + self.roll(9)),
                2 => format!("{}..{}/{}", a.min(b), a.max(b), 1 + self.roll(5)),
                _ => a.to_string(),
            }
        });
        parts.collect::<Vec<_>>().join(",")
    }

    fn expression(&mut self) -> String {
        const DAYS: [&str; 6] = ["", "", "Mon ", "Tue,Sat ", "Wed..Sun ", "Mon..Fri "];
        let day = DAYS[self.roll(6) as usize];
        let date = match self.roll(4) {
            0 => String::new(),
            1 => format!("{}-{} ", self.component(1, 12), self.component(1, 31)),
            2 => format!("*-{}~{} ", self.component(1, 12), self.component(1, 28)),
            _ => format!("{}-{}-{} ", self.component(2020, 2035), self.component(1, 12), self.component(1, 31)),
        };
        let seconds = if self.roll(2) == 0 { format!(":{}", self.component(0, 59)) } else { String::new() };
        format!("{day}{date}{}:{}{seconds}", self.component(0, 23), self.component(0, 59))
    }
}

#[test]
fn expressions_at_random() {
    let mut dice = Dice(7);
    let mut valid = 0;
    for _ in 0..250 {
        let expression = dice.expression();
        let (zone, base) =
            [("UTC", SPRING), ("America/New_York", SPRING), ("Europe/Berlin", AUTUMN)][dice.roll(3) as usize];
        valid += usize::from(assert_same(&expression, zone, base));
    }
    assert!(valid > 150, "{valid}");
}

#[test]
fn spans_of_time() {
    for span in [
        "1.5h",
        "2y",
        "0",
        "infinity",
        "300us",
        "1M 3d",
        "61s 1us",
        "1h30",
        "5 5",
        ".5s",
        "5µs",
        "0.1us",
        "1.5ms",
        "1.5",
        "1s1",
        "90d",
        "59.5s",
        "1 h",
        "5 minutes 3sec",
        "400d 25h 61min",
        "0.000001s",
        "0.0",
        "5h5",
        "1week 2months",
        "3hr",
        "7sec9ms",
    ] {
        let theirs = tools::ok("systemd-analyze", ["timespan", span]).replace("us: ", "μs: ");
        let micros = time::span(span).unwrap_or_else(|| panic!("{span}"));
        let ours = format!("Original: {span}\n      μs: {micros}\n   Human: {}\n", time::span_text(micros));
        assert_eq!(ours.trim(), theirs.trim());
    }
    for span in ["", "1.h", "1e5", ".", "1..5", "1hd", "1secs", "18446744073710s", "1h-", "0.0.0", "-5", "x", "5 x"] {
        let theirs = Command::new("systemd-analyze").args(["timespan", "--", span]).output().expect("systemd-analyze");
        assert_eq!((time::span(span), theirs.status.success()), (None, false), "{span}");
    }
}

#[test]
fn the_guests_own_clock() {
    let lab = Lab::new();
    let folder = lab.folder("guest");
    let script = "cd \"$1\"; mkdir -p etc bin sbin usr/share/zoneinfo/Europe usr/share/zoneinfo/Asia; echo ID=debian >etc/os-release
        cp /usr/share/zoneinfo/Europe/Berlin usr/share/zoneinfo/Europe; cp /usr/share/zoneinfo/Asia/Kolkata usr/share/zoneinfo/Asia
        ln -s ../usr/share/zoneinfo/Europe/Berlin etc/localtime";
    tools::ok("bash", ["-euc".as_ref(), script.as_ref(), "bash".as_ref(), folder.as_os_str()]);
    let image = lab.path("guest.raw");
    tools::ok("mkfs.ext4", ["-q".as_ref(), "-d".as_ref(), folder.as_os_str(), image.as_os_str(), "16M".as_ref()]);
    let run = |args: &[&str]| {
        let run = Run::new(["guest".as_ref(), "units".as_ref(), image.as_os_str()]);
        args.iter().fold(run, |run, arg| run.arg(arg))
    };
    let args = ["--base-time", "2026-03-28 00:00", "--iterations", "3"];
    let told = run(&["--calendar", "02:30", "--calendar", "Mon *-*-* 00:00:00 Asia/Kolkata"]);
    let told = args.iter().fold(told, |run, arg| run.arg(arg)).success().stdout;
    let theirs = Command::new("systemd-analyze")
        .args([
            "calendar",
            "--base-time=2026-03-28 00:00",
            "--iterations=3",
            "02:30",
            "Mon *-*-* 00:00:00 Asia/Kolkata",
        ])
        .env("TZ", ":Europe/Berlin")
        .output()
        .expect("systemd-analyze");
    let theirs = String::from_utf8_lossy(&theirs.stdout);
    let lines: Vec<&str> = theirs.lines().filter(|line| !line.contains("From now: ")).collect();
    assert_eq!(told.lines().collect::<Vec<_>>(), lines);
    let json = run(&["--calendar", "@1790000000", "--base-time", "@1"]).arg("--json").success().json();
    assert_eq!(json["time_zone"], "Europe/Berlin");
    assert_eq!(json["calendars"][0]["elapses"][0], 1_790_000_000_000_000_u64);
    // A zone that this host has and the guest has not.
    run(&["--calendar", "02:30 America/New_York"]).fails_with(2).stderr_contains("units.calendar");
    run(&["--timespan", "x"]).fails_with(2).stderr_contains("units.timespan");
    let span = run(&["--timespan", "90min"]).arg("--json").success().json();
    assert_eq!(span["spans"][0]["normalized"], "1h 30min");
}
