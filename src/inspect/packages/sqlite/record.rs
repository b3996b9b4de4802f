//! Rows and what is in them (file format, section 2.1).
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use super::corrupt;
use crate::disk::bytes::size;
use crate::error::Result;

/// A table: where its b-tree begins, and the names of its columns.
#[derive(Debug)]
pub(crate) struct Table {
    pub(super) root: u32,
    columns: Vec<String>,
    /// The column that is another name for the row's number, and is stored as null.
    rowid: Option<usize>,
}

impl Table {
    /// `sqlite_schema`, the table of all others.
    pub(super) fn schema() -> Self {
        let columns = ["type", "name", "tbl_name", "rootpage", "sql"].map(str::to_owned).to_vec();
        Self { root: 1, columns, rowid: None }
    }

    /// A table by the statement that created it.
    pub(super) fn parse(root: u32, sql: &str) -> Self {
        let sql = without_comments(sql);
        let body = sql.split_once('(').map_or("", |(_, body)| body);
        let mut table = Self { root, columns: Vec::new(), rowid: None };
        // Columns whose type makes them the row's number if they are the primary key.
        let mut integers = Vec::new();
        for definition in definitions(body) {
            let (name, rest) = first_word(definition);
            let rest = rest.split_ascii_whitespace().collect::<Vec<_>>().join(" ").to_ascii_uppercase();
            match name.to_ascii_uppercase().as_str() {
                "PRIMARY" => {
                    let key = definition.split_once('(').map_or("", |(_, key)| first_word(key.trim_start()).0);
                    let is_only = !definition.contains(',');
                    table.rowid = table.column(key).filter(|column| is_only && integers.contains(column));
                }
                "" | "UNIQUE" | "FOREIGN" | "CHECK" | "CONSTRAINT" => {}
                _ => {
                    if rest.starts_with("INTEGER PRIMARY KEY") {
                        table.rowid = Some(table.columns.len());
                    } else if rest == "INTEGER" || rest.starts_with("INTEGER ") {
                        integers.push(table.columns.len());
                    }
                    table.columns.push(name.to_owned());
                }
            }
        }
        table
    }

    fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.eq_ignore_ascii_case(name))
    }
}

/// A statement with a blank for each comment outside of quotes.
fn without_comments(sql: &str) -> String {
    let mut plain = String::with_capacity(sql.len());
    let (mut rest, mut quote) = (sql, None);
    while let Some(c) = rest.chars().next() {
        let comment = match quote {
            None if rest.starts_with("/*") => Some("*/"),
            None if rest.starts_with("--") => Some("\n"),
            _ => None,
        };
        if let Some(end) = comment {
            plain.push(' ');
            rest = rest.get(2..).and_then(|rest| rest.split_once(end)).map_or("", |(_, rest)| rest);
            continue;
        }
        match quote {
            Some(open) if open == c => quote = None,
            None if matches!(c, '"' | '\'' | '`') => quote = Some(c),
            _ => {}
        }
        plain.push(c);
        rest = rest.get(c.len_utf8()..).unwrap_or_default();
    }
    plain
}

/// The parts of a parenthesis that commas separate, up to its end.
fn definitions(body: &str) -> impl Iterator<Item = &str> {
    let (mut depth, mut quote) = (0_u32, None);
    let mut parts = body.split(move |c: char| {
        match (quote, c) {
            (Some(open), _) if open == c => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'' | '`') => quote = Some(c),
            (None, '(') => depth = depth.saturating_add(1),
            (None, ')') => depth = depth.saturating_sub(1),
            (None, ',') => return depth == 0,
            _ => {}
        }
        false
    });
    std::iter::from_fn(move || parts.next().map(str::trim))
}

/// A name, without its quotes, and what follows.
fn first_word(text: &str) -> (&str, &str) {
    let close = match text.chars().next() {
        Some('[') => Some(']'),
        quote => quote.filter(|quote| matches!(quote, '"' | '\'' | '`')),
    };
    match close {
        Some(close) => text.get(1..).and_then(|rest| rest.split_once(close)).unwrap_or((text, "")),
        None => text.split_once(|c: char| c.is_ascii_whitespace() || c == ')').unwrap_or((text, "")),
    }
}

/// A value of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
    Null,
    Int(i64),
    /// Its bits; nothing here is a fraction.
    Real,
    Text(&'a [u8]),
    Blob(&'a [u8]),
}

/// The values of a row in the order of the columns. Columns that were added later may be missing.
#[derive(Debug)]
pub(super) struct Fields<'a>(Vec<Value<'a>>);

impl<'a> Fields<'a> {
    pub(super) fn parse(payload: &'a [u8]) -> Result<Self> {
        let short = || corrupt("a row that contradicts its header");
        let (length, _) = varint(payload).ok_or_else(short)?;
        let length = usize::try_from(length).map_err(|_| short())?;
        let (header, mut body) = payload.split_at_checked(length).ok_or_else(short)?;
        let (_, mut types) = varint(header).ok_or_else(short)?;
        let mut values = Vec::new();
        while !types.is_empty() {
            let (serial, rest) = varint(types).ok_or_else(short)?;
            types = rest;
            let (value, rest) = value(serial, body).ok_or_else(short)?;
            body = rest;
            values.push(value);
        }
        Ok(Self(values))
    }
}

/// One row of a table.
#[derive(Debug)]
pub(crate) struct Row<'a> {
    pub(super) table: &'a Table,
    pub(super) rowid: i64,
    pub(super) fields: Fields<'a>,
}

impl<'a> Row<'a> {
    fn value(&self, column: &str) -> Option<Value<'a>> {
        let index = self.table.column(column)?;
        match self.fields.0.get(index).copied() {
            Some(Value::Null) if self.table.rowid == Some(index) => Some(Value::Int(self.rowid)),
            value => value,
        }
    }

    /// A number; `None` for anything else.
    pub(crate) fn int(&self, column: &str) -> Option<i64> {
        match self.value(column)? {
            Value::Int(value) => Some(value),
            // Columns of loose types hold numbers as text.
            Value::Text(_) => self.text(column)?.parse().ok(),
            _ => None,
        }
    }

    /// Text; `None` for anything else, and for what is not UTF-8.
    pub(crate) fn text(&self, column: &str) -> Option<&'a str> {
        match self.value(column)? {
            Value::Text(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// Bytes; `None` for anything else.
    pub(crate) fn blob(&self, column: &str) -> Option<&'a [u8]> {
        match self.value(column)? {
            Value::Blob(bytes) => Some(bytes),
            _ => None,
        }
    }
}

/// The value of a serial type, and what follows it.
fn value(serial: i64, body: &[u8]) -> Option<(Value<'_>, &[u8])> {
    let integer = |length: usize| {
        let (bytes, rest) = body.split_at_checked(length)?;
        let negative = bytes.first().is_some_and(|byte| *byte >= 0x80);
        let mut wide = [if negative { 0xff } else { 0 }; 8];
        wide.get_mut(8_usize.checked_sub(length)?..)?.copy_from_slice(bytes);
        Some((Value::Int(i64::from_be_bytes(wide)), rest))
    };
    match serial {
        0 => Some((Value::Null, body)),
        1 => integer(1),
        2 => integer(2),
        3 => integer(3),
        4 => integer(4),
        5 => integer(6),
        6 => integer(8),
        7 => Some((Value::Real, body.get(8..)?)),
        8 => Some((Value::Int(0), body)),
        9 => Some((Value::Int(1), body)),
        _ => {
            let length = u64::try_from(serial.checked_sub(12)?).ok()?.wrapping_div(2);
            let (bytes, rest) = body.split_at_checked(size(length))?;
            Some((if serial & 1 == 0 { Value::Blob(bytes) } else { Value::Text(bytes) }, rest))
        }
    }
}

/// A number of one to nine bytes, most significant first, and what follows it.
pub(super) fn varint(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let mut value = 0_u64;
    for (index, byte) in bytes.iter().enumerate().take(9) {
        let rest = bytes.get(index.saturating_add(1)..)?;
        if index == 8 {
            return Some(((value << 8 | u64::from(*byte)).cast_signed(), rest));
        }
        value = value << 7 | u64::from(byte & 0x7f);
        if *byte < 0x80 {
            return Some((value.cast_signed(), rest));
        }
    }
    None
}
