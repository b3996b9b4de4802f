//! Where results go: text or one JSON object on standard output, errors and notes on standard error.

use std::borrow::Cow;
use std::io::{IsTerminal, Write};

use serde_json::Value;

use super::args::{Choice, Global};
use crate::error::{Error, Result, is_hidden};

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
        if self.json { self.json(value) } else { self.text(text) }
    }

    /// Prints `value` as JSON.
    pub(super) fn json(self, value: &Value) -> Result<()> {
        self.line(&encode(value))
    }

    /// Prints text, unless quiet or JSON.
    pub(super) fn text(self, text: &str) -> Result<()> {
        if self.quiet || self.json { Ok(()) } else { self.line(&harmless(text.trim_end_matches('\n'), self.color)) }
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

    /// Tells of errors, or passes on what another process of this program said of them.
    pub(super) fn errors(self, text: &str) {
        let _ = std::io::stderr().lock().write_all(harmless(text, false).as_bytes());
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
            let _ = self.json(&error.to_json());
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

/// The colours of this program, and the end of them.
const PAINT: [&str; 4] = ["\u{1b}[1m", "\u{1b}[32m", "\u{1b}[33m", "\u{1b}[0m"];

/// Text as a terminal may have it. Whoever writes a guest's text escapes it; this is the last door, for what was forgotten: only line
/// ends, tabs and, where `painted`, this program's own colours go through as they are.
pub(super) fn harmless(text: &str, painted: bool) -> Cow<'_, str> {
    let is_harmless = |c: char| matches!(c, '\n' | '\t') || !(c.is_control() || is_hidden(c));
    if text.chars().all(is_harmless) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let paint = PAINT.iter().find(|code| painted && rest.starts_with(**code));
        let length = match paint {
            Some(code) => {
                out.push_str(code);
                code.len()
            }
            None if is_harmless(c) => {
                out.push(c);
                c.len_utf8()
            }
            None => {
                out.extend(c.escape_unicode());
                c.len_utf8()
            }
        };
        rest = rest.get(length..).unwrap_or_default();
    }
    Cow::Owned(out)
}

/// JSON on one line, in which what could disturb a terminal or mislead its user is written as an escape.
pub(super) fn encode(value: &Value) -> String {
    let text = value.to_string();
    let is_plain = |c: char| !(c.is_control() || is_hidden(c));
    if text.chars().all(is_plain) {
        return text;
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        // Such a character is inside a string: all others of JSON are plain.
        match is_plain(c) {
            true => out.push(c),
            false => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}"))),
        }
    }
    out
}

/// Rows of two columns, the first padded.
#[must_use]
pub(super) fn table(rows: &[(String, String)]) -> String {
    let width = rows.iter().map(|(key, _)| key.chars().count()).max().unwrap_or(0);
    rows.iter().map(|(key, value)| format!("{key:width$}  {value}\n")).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_our_own_colours_pass_and_only_where_there_are_some() {
        let text = "\u{1b}[1mbold\u{1b}[0m\ta\n\u{1b}[2J\u{9b}31m\u{202e}\u{7f}";
        let rest = "\ta\n\\u{1b}[2J\\u{9b}31m\\u{202e}\\u{7f}";
        assert_eq!(harmless(text, true), format!("\u{1b}[1mbold\u{1b}[0m{rest}"));
        assert_eq!(harmless(text, false), format!("\\u{{1b}}[1mbold\\u{{1b}}[0m{rest}"));
    }

    proptest! {
        #[test]
        fn json_is_what_it_was_and_plain(text in "\\PC*|(?s:.{0,40})|[\u{7f}-\u{ad}\u{200b}-\u{202e}\u{e0001}]*") {
            let value = Value::from(vec![text.as_str()]);
            let line = encode(&value);
            prop_assert!(!line.chars().any(|c| c.is_control() || is_hidden(c)));
            prop_assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), value);
        }
    }
}
