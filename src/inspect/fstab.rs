//! `/etc/fstab` (fstab(5)), and tables like it, line by line and without losing a byte.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::ops::Range;

use serde::Serialize;

/// A line of fstab that names a file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Entry {
    /// Line number, from 1.
    pub line: usize,
    /// What is mounted: `UUID=…`, `/dev/sda1`, `server:/path` …
    pub spec: String,
    /// Where; `none` for swap. Octal escapes (`\040`) are resolved.
    pub mount_point: String,
    /// The file system's kind, or `auto`.
    pub kind: String,
    /// Options, comma-separated.
    pub options: String,
}

impl Entry {
    /// Whether the options hold `name`, with or without a value.
    #[must_use]
    pub fn has_option(&self, name: &str) -> bool {
        self.options.split(',').any(|option| option.split('=').next() == Some(name))
    }

    /// Whether the line is swap space.
    #[must_use]
    pub fn is_swap(&self) -> bool {
        self.kind == "swap"
    }
}

/// The entries of an fstab. Comments, blank lines and lines with fewer than two fields are not entries.
#[must_use]
pub fn parse(text: &str) -> Vec<Entry> {
    let lines = text.split('\n').enumerate();
    lines.filter_map(|(index, line)| entry(line, index.saturating_add(1))).collect()
}

/// The entry on one line.
#[must_use]
pub fn entry(line: &str, number: usize) -> Option<Entry> {
    let fields = fields(line);
    let mut texts = fields.iter().map(|range| line.get(range.clone()).unwrap_or_default());
    let spec = unescape(texts.next()?);
    let mount_point = unescape(texts.next()?);
    let kind = texts.next().unwrap_or("auto").to_owned();
    let options = texts.next().unwrap_or("defaults").to_owned();
    Some(Entry { line: number, spec, mount_point, kind, options })
}

/// Where a line's fields are; none when it is blank or a comment. Fields are separated by blanks and tabs.
#[must_use]
pub fn fields(line: &str) -> Vec<Range<usize>> {
    let mut fields = Vec::new();
    if line.trim_start().starts_with('#') {
        return fields;
    }
    let mut start = None;
    for (index, c) in line.char_indices() {
        let blank = matches!(c, ' ' | '\t' | '\r');
        match (start, blank) {
            (None, false) => start = Some(index),
            (Some(from), true) => {
                fields.push(from..index);
                start = None;
            }
            _ => {}
        }
    }
    fields.extend(start.map(|from| from..line.len()));
    fields
}

/// Resolves the octal escapes of fstab(5): `\040` is a blank.
#[must_use]
pub fn unescape(field: &str) -> String {
    let mut out = String::with_capacity(field.len());
    let mut rest = field;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let code = after.get(..3).and_then(|octal| u8::from_str_radix(octal, 8).ok()).filter(u8::is_ascii);
        match (code, after.get(3..)) {
            (Some(code), Some(tail)) => {
                out.push(char::from(code));
                rest = tail;
            }
            _ => {
                out.push('\\');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_fields_whatever_separates_them() {
        let text = "# c\n\n/dev/sda1\t/  ext4   errors=remount-ro 0 1\r\n  LABEL=a /my\\040data xfs\nonly\nUUID=x none swap sw";
        let entries = parse(text);
        assert_eq!(entries.len(), 3);
        assert_eq!((entries[0].line, entries[0].spec.as_str(), entries[0].mount_point.as_str()), (3, "/dev/sda1", "/"));
        assert_eq!(entries[1].mount_point, "/my data");
        assert_eq!(entries[1].options, "defaults");
        assert!(entries[2].is_swap());
    }

    #[test]
    fn finds_options_by_name() {
        let entry = entry("/dev/sda1 / ext4 noauto,x-systemd.device-timeout=5s", 1).unwrap();
        assert!(entry.has_option("noauto"));
        assert!(entry.has_option("x-systemd.device-timeout"));
        assert!(!entry.has_option("auto"));
    }

    #[test]
    fn unescapes_only_what_is_an_escape() {
        for (from, to) in [
            ("a\\040b", "a b"),
            ("a\\", "a\\"),
            ("a\\0", "a\\0"),
            ("\\999", "\\999"),
            ("\\134x", "\\x"),
            ("é\\0é", "é\\0é"),
        ] {
            assert_eq!(unescape(from), to, "{from}");
        }
    }
}
