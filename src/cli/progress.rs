//! Progress for people and programs: a bar on a terminal, plain lines without one, JSON lines on request.

use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle as BarStyle};
use serde_json::json;

use super::args::{Global, ProgressStyle};
use super::size::Size;
use crate::convert::{Bytes, Phase, Progress, Update};

/// Time between two plain or JSON lines.
const LINE_EVERY: Duration = Duration::from_secs(2);

/// Shows progress on standard error.
#[derive(Debug)]
pub(super) struct Shown {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    style: Style,
    phase: Option<Phase>,
    began: Instant,
    last: Instant,
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
    pub(super) fn new(global: &Global) -> Self {
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
        Self { state: Mutex::new(State { style, phase: None, began: now, last: now }) }
    }
}

impl Progress for Shown {
    fn update(&self, update: &Update) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.update(update);
    }
}

impl Drop for State {
    fn drop(&mut self) {
        if let Style::Bar(bar) = &self.style {
            bar.finish_and_clear();
        }
    }
}

impl State {
    fn update(&mut self, update: &Update) {
        let new_phase = self.phase != Some(update.phase);
        if new_phase {
            self.phase = Some(update.phase);
            self.began = Instant::now();
        }
        match &self.style {
            Style::None => {}
            Style::Bar(bar) => show_bar(bar, update, new_phase),
            Style::Plain | Style::Json if !new_phase && self.last.elapsed() < LINE_EVERY => {}
            Style::Plain => self.line(&plain_line(update, self.began.elapsed())),
            Style::Json => self.line(&json_line(update, self.began.elapsed())),
        }
    }

    fn line(&mut self, line: &str) {
        self.last = Instant::now();
        let _ = writeln!(std::io::stderr().lock(), "{line}");
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

fn show_bar(bar: &ProgressBar, update: &Update, new_phase: bool) {
    if new_phase {
        bar.reset();
        bar.set_message(update.phase.name());
    }
    bar.set_length(update.total);
    bar.set_position(update.done);
    bar.set_prefix(skipped(&update.bytes).map(|text| format!("  {text}")).unwrap_or_default());
}

fn plain_line(update: &Update, elapsed: Duration) -> String {
    let phase = update.phase.name();
    if update.total == 0 || update.done == 0 {
        return format!("{phase} …");
    }
    let percent = u128::from(update.done) * 100 / u128::from(update.total);
    let rate = rate(update.done, elapsed);
    let extra = skipped(&update.bytes).map(|text| format!(", {text}")).unwrap_or_default();
    format!("{phase} {percent} %: {} of {}, {}/s{extra}", Size(update.done), Size(update.total), Size(rate))
}

fn json_line(update: &Update, elapsed: Duration) -> String {
    let rate = rate(update.done, elapsed);
    let left = update.total.saturating_sub(update.done);
    let eta = left.checked_div(rate);
    json!({
        "type": "progress",
        "phase": update.phase.name(),
        "done": update.done,
        "total": update.total,
        "bytes_per_second": rate,
        "eta_seconds": eta,
        "read": update.bytes.read,
        "written": update.bytes.written,
        "zero": update.bytes.zero,
        "hole": update.bytes.hole,
    })
    .to_string()
}

fn skipped(bytes: &Bytes) -> Option<String> {
    match (bytes.hole, bytes.zero) {
        (0, 0) => None,
        (hole, zero) => Some(format!("skipped {}, zero {}", Size(hole), Size(zero))),
    }
}

fn rate(bytes: u64, elapsed: Duration) -> u64 {
    let milliseconds = elapsed.as_millis().max(1);
    u64::try_from(u128::from(bytes) * 1000 / milliseconds).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_say_how_far_and_how_fast() {
        let bytes = Bytes { read: 1 << 20, written: 1 << 20, zero: 0, hole: 3 << 20, resumed: 0 };
        let update = Update { phase: Phase::Copy, done: 1 << 20, total: 4 << 20, bytes };
        let second = Duration::from_secs(1);
        assert_eq!(plain_line(&update, second), "copy 25 %: 1 MiB of 4 MiB, 1 MiB/s, skipped 3 MiB, zero 0 B");
        let json: serde_json::Value = serde_json::from_str(&json_line(&update, second)).unwrap();
        assert_eq!(json["eta_seconds"], 3);
    }
}
