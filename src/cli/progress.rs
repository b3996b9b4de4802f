//! Progress for people and programs: a bar on a terminal, plain lines without one, JSON lines on request.

use std::io::{IsTerminal, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle as BarStyle};
use serde_json::json;

use super::args::{Global, ProgressStyle};
use super::size::Size;
use crate::convert::{Bytes, Progress, Update};
use crate::disk::Traffic;
use crate::pipeline;
use crate::session::Session;
use crate::source::Network;

/// Time between two plain or JSON lines.
const LINE_EVERY: Duration = Duration::from_secs(2);

/// Longest silence: a line says that work goes on even when nothing moves.
const SILENCE: Duration = Duration::from_secs(10);

/// Shows progress on standard error.
#[derive(Debug)]
pub(super) struct Shown {
    shared: Arc<Shared>,
    heart: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug)]
struct State {
    style: Style,
    /// What the sources take.
    network: Arc<Network>,
    last: Option<Update>,
    /// When the phase began.
    began: Instant,
    /// When the last line was printed.
    printed: Instant,
    ended: bool,
}

#[derive(Debug)]
enum Style {
    Bar(ProgressBar),
    Plain,
    Json,
    None,
}

impl Shown {
    /// In the style that the flags and the terminal ask for.
    pub(super) fn new(global: &Global, session: &Session) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let style = match global.progress {
            _ if global.quiet => Style::None,
            ProgressStyle::None => Style::None,
            ProgressStyle::Json => Style::Json,
            ProgressStyle::Auto if global.json => Style::None,
            ProgressStyle::Auto if terminal => Style::Bar(bar()),
            ProgressStyle::Auto | ProgressStyle::Plain => Style::Plain,
            ProgressStyle::Bar => Style::Bar(bar()),
        };
        let now = Instant::now();
        let network = Network::of(session);
        let state = State { style, network, last: None, began: now, printed: now, ended: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), ended: Condvar::new() });
        let beating = Arc::clone(&shared);
        // Without the thread there is less to see, and nothing else.
        let heart = std::thread::Builder::new().name("progress".to_owned()).spawn(move || beating.beat()).ok();
        Self { shared, heart }
    }
}

impl Progress for Shown {
    fn update(&self, update: &Update) {
        self.shared.state().update(update);
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.shared.state().end();
        self.shared.ended.notify_all();
        if let Some(heart) = self.heart.take() {
            let _ = heart.join();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Breaks each silence until the end.
    fn beat(&self) {
        let mut state = self.state();
        while !state.ended {
            state = self.ended.wait_timeout(state, LINE_EVERY).unwrap_or_else(PoisonError::into_inner).0;
            if !state.ended && state.printed.elapsed() >= SILENCE {
                state.show();
            }
        }
    }
}

impl State {
    fn update(&mut self, update: &Update) {
        let new_phase = self.last.is_none_or(|last| last.phase != update.phase || last.done > update.done);
        self.last = Some(*update);
        if new_phase {
            self.began = Instant::now();
        }
        match &self.style {
            Style::Bar(bar) => show_bar(bar, update, new_phase, self.network.total()),
            _ if new_phase || self.printed.elapsed() >= LINE_EVERY => self.show(),
            _ => {}
        }
    }

    /// Shows the last update, again if need be.
    fn show(&mut self) {
        self.printed = Instant::now();
        let (Some(update), elapsed) = (&self.last, self.began.elapsed()) else { return };
        let traffic = self.network.total();
        let line = match &self.style {
            Style::None => return,
            Style::Bar(bar) => return bar.tick(),
            Style::Plain => plain_line(update, elapsed, traffic),
            Style::Json => json_line(update, elapsed, traffic),
        };
        let _ = writeln!(std::io::stderr().lock(), "{line}");
    }

    fn end(&mut self) {
        self.ended = true;
        if let Style::Bar(bar) = &self.style {
            bar.finish_and_clear();
        }
    }
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(10));
    if let Ok(style) =
        BarStyle::with_template("{msg:7} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} ETA {eta}{prefix}")
    {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

fn show_bar(bar: &ProgressBar, update: &Update, new_phase: bool, traffic: Option<Traffic>) {
    if new_phase {
        bar.reset();
        bar.set_message(update.phase.name());
    }
    bar.set_length(update.total);
    bar.set_position(update.done);
    bar.set_prefix(extra(&update.bytes, traffic).map(|text| format!("  {text}")).unwrap_or_default());
}

fn plain_line(update: &Update, elapsed: Duration, traffic: Option<Traffic>) -> String {
    let phase = update.phase.name();
    if update.total == 0 || update.done == 0 {
        return format!("{phase} …");
    }
    let percent = u128::from(update.done) * 100 / u128::from(update.total);
    let rate = rate(update, elapsed);
    let eta = eta(update, rate).map(|seconds| format!(", {} left", clock(seconds))).unwrap_or_default();
    let extra = extra(&update.bytes, traffic).map(|text| format!(", {text}")).unwrap_or_default();
    format!("{phase} {percent} %: {} of {}, {}/s{eta}{extra}", Size(update.done), Size(update.total), Size(rate))
}

fn json_line(update: &Update, elapsed: Duration, traffic: Option<Traffic>) -> String {
    let rate = rate(update, elapsed);
    json!({
        "type": "progress",
        "phase": update.phase.name(),
        "done": update.done,
        "total": update.total,
        "bytes_per_second": rate,
        "eta_seconds": eta(update, rate),
        "read": update.bytes.read,
        "written": update.bytes.written,
        "zero": update.bytes.zero,
        "hole": update.bytes.hole,
        "resumed": update.bytes.resumed,
        "network": traffic.map(pipeline::traffic_json),
    })
    .to_string()
}

/// What was not copied, and what came over the network.
fn extra(bytes: &Bytes, traffic: Option<Traffic>) -> Option<String> {
    let parts: Vec<_> = [skipped(bytes), traffic.map(network)].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// Bytes, requests and retries, and how far away the sources are.
fn network(traffic: Traffic) -> String {
    let away = traffic.waited.checked_div(traffic.requests).unwrap_or(0) / 1_000_000;
    let retries = match traffic.retries {
        0 => String::new(),
        1 => " and 1 retry".to_owned(),
        retries => format!(" and {retries} retries"),
    };
    format!("network {} in {} requests{retries}, {away} ms away", Size(traffic.bytes), traffic.requests)
}

/// What was not copied, and why.
fn skipped(bytes: &Bytes) -> Option<String> {
    let parts = [("skipped", bytes.hole), ("zero", bytes.zero), ("done before", bytes.resumed)];
    let parts: Vec<String> = parts
        .into_iter()
        .filter(|(_, bytes)| *bytes > 0)
        .map(|(what, bytes)| format!("{what} {}", Size(bytes)))
        .collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// Bytes a second; what an earlier run did took no time.
fn rate(update: &Update, elapsed: Duration) -> u64 {
    let bytes = u128::from(update.done.saturating_sub(update.bytes.resumed));
    u64::try_from(bytes * 1000 / elapsed.as_millis().max(1)).unwrap_or(u64::MAX)
}

/// Seconds until the phase ends, if it goes on like that.
fn eta(update: &Update, rate: u64) -> Option<u64> {
    if update.total == 0 {
        return None;
    }
    update.total.saturating_sub(update.done).checked_div(rate)
}

/// `1:02:03`, or `2:03`.
fn clock(seconds: u64) -> String {
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, minutes, seconds) => format!("{minutes}:{seconds:02}"),
        (hours, minutes, seconds) => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::Phase;

    #[test]
    fn lines_say_how_far_and_how_fast() {
        let bytes = Bytes { read: 1 << 20, written: 1 << 20, hole: 3 << 20, ..Bytes::default() };
        let update = Update { phase: Phase::Copy, done: 1 << 20, total: 4 << 20, bytes };
        let second = Duration::from_secs(1);
        assert_eq!(plain_line(&update, second, None), "copy 25 %: 1 MiB of 4 MiB, 1 MiB/s, 0:03 left, skipped 3 MiB");
        let json: serde_json::Value = serde_json::from_str(&json_line(&update, second, None)).unwrap();
        assert_eq!((&json["eta_seconds"], &json["resumed"]), (&json!(3), &json!(0)));
    }

    #[test]
    fn what_was_done_before_is_said_and_does_not_count_as_fast() {
        let bytes = Bytes { read: 1 << 20, written: 1 << 20, resumed: 100 << 20, ..Bytes::default() };
        let update = Update { phase: Phase::Copy, done: 101 << 20, total: 4000 << 20, bytes };
        let line = plain_line(&update, Duration::from_secs(1), None);
        assert_eq!(line, "copy 2 %: 101 MiB of 3.9 GiB, 1 MiB/s, 1:04:59 left, done before 100 MiB");
    }

    #[test]
    fn what_came_over_the_network_is_said() {
        let bytes = Bytes { read: 1 << 20, written: 1 << 20, ..Bytes::default() };
        let update = Update { phase: Phase::Copy, done: 1 << 20, total: 4 << 20, bytes };
        let traffic =
            Traffic { requests: 4, bytes: 3 << 20, retries: 1, nanoseconds: 900_000_000, waited: 200_000_000 };
        let line = plain_line(&update, Duration::from_secs(1), Some(traffic));
        let end = "0:03 left, network 3 MiB in 4 requests and 1 retry, 50 ms away";
        assert!(line.ends_with(end), "{line}");
        let json: serde_json::Value =
            serde_json::from_str(&json_line(&update, Duration::from_secs(1), Some(traffic))).unwrap();
        assert_eq!((&json["network"]["requests"], &json["network"]["retries"]), (&json!(4), &json!(1)));
        assert_eq!(network(Traffic::default()), "network 0 B in 0 requests, 0 ms away");
    }

    #[test]
    fn nothing_is_divided_by_zero() {
        let update = Update::start(Phase::Sync, 0);
        assert_eq!(plain_line(&update, Duration::ZERO, None), "sync …");
        let json: serde_json::Value = serde_json::from_str(&json_line(&update, Duration::ZERO, None)).unwrap();
        assert_eq!(json["eta_seconds"], json!(null));
    }
}
