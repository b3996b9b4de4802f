//! A file of settings as systemd reads it (`systemd.syntax(7)`): sections, keys, values.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use serde::Serialize;

/// `KEY=VALUE` in a section; the header of a section has no key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) section: String,
    pub(super) key: String,
    /// Without white space around it; lines that were put together have a space between.
    pub(super) value: String,
    /// The line where it ends, from 1.
    pub(super) line: u32,
}

/// Something that systemd would not take.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Problem {
    /// The file; the unit's name where it is the unit as a whole.
    pub path: String,
    /// From 1.
    pub line: Option<u32>,
    /// What is wrong.
    pub what: String,
}

/// What is said of a header that does not end; systemd takes nothing of such a file.
pub(super) const BAD_HEADER: &str = "a section's name does not end, so nothing of this file counts";

/// The settings in order, and lines that are none with what is wrong.
pub(super) fn parse(text: &str) -> (Vec<Setting>, Vec<(u32, String)>) {
    let (mut settings, mut problems) = (Vec::new(), Vec::new());
    let (mut section, mut open): (Option<String>, Option<String>) = (None, None);
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut line = 0_u32;
    let mut is_over = false;
    let mut take = |whole: &str, line: u32| {
        let whole = whole.trim();
        if whole.is_empty() || is_over {
            return;
        }
        if let Some(name) = whole.strip_prefix('[') {
            match name.strip_suffix(']') {
                Some(name) => {
                    let (key, value) = (String::new(), String::new());
                    settings.push(Setting { section: name.to_owned(), key, value, line });
                    section = Some(name.to_owned());
                }
                None => {
                    problems.push((line, BAD_HEADER.to_owned()));
                    is_over = true;
                }
            }
            return;
        }
        match (whole.split_once('='), &section) {
            (None, _) => problems.push((line, "there is no = in this line".to_owned())),
            (Some(_), None) => problems.push((line, "this stands before any section".to_owned())),
            (Some((key, _)), _) if key.trim().is_empty() => {
                problems.push((line, "there is no key before the =".to_owned()))
            }
            (Some((key, value)), Some(section)) => settings.push(Setting {
                section: section.clone(),
                key: key.trim().to_owned(),
                value: value.trim().to_owned(),
                line,
            }),
        }
    };
    for part in text.lines() {
        line = line.saturating_add(1);
        if part.trim_start().starts_with(['#', ';']) {
            continue;
        }
        let mut whole = open.take().unwrap_or_default();
        match part.strip_suffix('\\') {
            Some(part) => {
                whole.push_str(part);
                whole.push(' ');
                open = Some(whole);
            }
            None => {
                whole.push_str(part);
                take(&whole, line);
            }
        }
    }
    if let Some(whole) = open {
        take(&whole, line);
    }
    if problems.iter().any(|(_, what)| what == BAD_HEADER) {
        settings.clear();
    }
    (settings, problems)
}

/// The words of a value: apart by white space, with quotes around what holds some.
pub(super) fn words(value: &str) -> Vec<String> {
    let (mut words, mut word, mut quote): (Vec<String>, Option<String>, Option<char>) = (Vec::new(), None, None);
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            // The escapes that matter in names stay as they are.
            (_, '\\') => {
                let word = word.get_or_insert_default();
                word.push('\\');
                word.extend(chars.next());
            }
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// The values of a list: an empty one takes back those before it.
pub(super) fn list<'s>(settings: impl Iterator<Item = &'s Setting>) -> Vec<&'s Setting> {
    let mut list = Vec::new();
    for setting in settings {
        if setting.value.is_empty() {
            list.clear();
        } else {
            list.push(setting);
        }
    }
    list
}

/// Whether a value says yes; `None` for what is neither yes nor no.
pub(super) fn boolean(value: &str) -> Option<bool> {
    let is_in = |words: &[&str]| words.iter().any(|word| word.eq_ignore_ascii_case(value));
    match () {
        () if is_in(&["1", "yes", "y", "true", "t", "on"]) => Some(true),
        () if is_in(&["0", "no", "n", "false", "f", "off"]) => Some(false),
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_have_lines() {
        let text =
            "\u{feff}# c\nlost=1\n[Unit]\n A = b c \n; d\nX=1\\\n# between\n 2\\\n\n=3\n\nnone\n[]\nY=\n[Z]\nQ=\\";
        let (settings, problems) = parse(text);
        let keys = settings.iter().filter(|s| !s.key.is_empty());
        let told: Vec<_> = keys.map(|s| (s.section.as_str(), s.key.as_str(), s.value.as_str(), s.line)).collect();
        assert_eq!(told, [("Unit", "A", "b c", 4), ("Unit", "X", "1  2", 9), ("", "Y", "", 14), ("Z", "Q", "", 16)]);
        assert_eq!(problems.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [2, 10, 12]);
        let (settings, problems) = parse("[Unit]\nA=1\n[Open\nB=2\n");
        assert_eq!((settings.len(), problems.len(), problems[0].0), (0, 1, 3));
    }

    #[test]
    fn values_have_words() {
        assert_eq!(words(" a  'b c'\td\"e f\"g a\\x2d1 \"\" 'open"), ["a", "b c", "de fg", "a\\x2d1", "", "open"]);
        assert_eq!(words("\\"), ["\\"]);
        assert_eq!((boolean("Yes"), boolean("off"), boolean("2"), boolean("")), (Some(true), Some(false), None, None));
    }

    #[test]
    fn hostile_texts_end() {
        let long = "[".repeat(1 << 20);
        for text in [
            "",
            "\0",
            "[",
            "]",
            "=",
            "[]\n=",
            "\\\n\\\n\\",
            "[a]\nb=\u{1b}[2J",
            &long,
            "\u{feff}\u{feff}[x]",
            "[a\n]b=c",
        ] {
            let (settings, problems) = parse(text);
            assert!(settings.len() + problems.len() <= 3, "{settings:?}");
        }
    }
}
