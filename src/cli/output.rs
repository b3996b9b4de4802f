//! Where results go: text or one JSON object on standard output, errors and notes on standard error.

use std::io::{IsTerminal, Write};

use serde_json::Value;

use super::args::{Choice, Global};
use crate::error::{Error, Result};

/// How a command shows what it found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    json: bool,
    quiet: bool,
    color: bool,
    /// Standard output is for a disk: everything goes to standard error.
    taken: bool,
}

impl Output {
    /// By the flags and the terminal. `taken` says that standard output is where a disk goes.
    #[must_use]
    pub(super) fn new(global: &Global, taken: bool) -> Self {
        let color = match global.color {
            Choice::Always => true,
            Choice::Never => false,
            Choice::Auto => std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
        };
        Self { json: global.json, quiet: global.quiet, color, taken }
    }

    /// Whether JSON was asked for.
    #[must_use]
    pub(super) fn is_json(self) -> bool {
        self.json
    }

    /// Prints the result: `value` as JSON, or `text`.
    pub(super) fn result(self, value: &Value, text: &str) -> Result<()> {
        if self.json { self.line(&value.to_string()) } else { self.text(text) }
    }

    /// Prints text, unless quiet or JSON.
    pub(super) fn text(self, text: &str) -> Result<()> {
        if self.quiet || self.json { Ok(()) } else { self.line(text.trim_end_matches('\n')) }
    }

    /// Prints one line on standard output in any case, unless that is taken.
    pub(super) fn line(self, line: &str) -> Result<()> {
        if self.taken {
            let written = writeln!(std::io::stderr().lock(), "{line}");
            return written.map_err(|e| Error::write("writing to standard error", e));
        }
        let mut out = std::io::stdout().lock();
        writeln!(out, "{line}").and_then(|()| out.flush()).map_err(|e| Error::write("writing to standard output", e))
    }

    /// Passes on what another process of this program said of errors.
    pub(super) fn errors(self, text: &str) {
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
    }

    /// `text` in bold, when colours are on.
    #[must_use]
    pub(super) fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    /// `text` in green, when colours are on.
    #[must_use]
    pub(super) fn green(self, text: &str) -> String {
        self.paint("32", text)
    }

    /// `text` in yellow, when colours are on.
    #[must_use]
    pub(super) fn yellow(self, text: &str) -> String {
        self.paint("33", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.color { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    /// Prints an error with its causes, hint and code; with `--json`, as an object on standard output.
    pub(super) fn error(self, error: &Error) {
        if self.json {
            let _ = self.line(&error.to_json().to_string());
        }
        let mut err = std::io::stderr().lock();
        let _ = writeln!(err, "hyper2kvm: {error}");
        let mut cause = std::error::Error::source(error);
        while let Some(inner) = cause {
            let _ = writeln!(err, "  because: {}", crate::error::escape(&inner.to_string()));
            cause = inner.source();
        }
        if let Some(next) = error.next() {
            let _ = writeln!(err, "  next: {next}");
        }
        let _ = writeln!(err, "  code: {} (hyper2kvm help {})", error.code(), error.code());
    }
}

/// Rows of two columns, the first padded.
#[must_use]
pub(super) fn table(rows: &[(String, String)]) -> String {
    let width = rows.iter().map(|(key, _)| key.chars().count()).max().unwrap_or(0);
    rows.iter().map(|(key, value)| format!("{key:width$}  {value}\n")).collect()
}
