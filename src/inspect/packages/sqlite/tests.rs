//! Databases that lie, made by hand; what SQLite itself writes is compared in `tests/packages/rpm.rs`.
#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    reason = "tests build their input"
)]

use std::sync::Arc;

use super::*;
use crate::fs::MemoryFs;

const PAGE: usize = 512;
const PATH: &str = "/db";

/// Numbers of up to two bytes are enough here.
fn vint(value: usize) -> Vec<u8> {
    match u8::try_from(value) {
        Ok(byte @ 0..0x80) => vec![byte],
        _ => vec![u8::try_from(value >> 7).unwrap() | 0x80, u8::try_from(value & 0x7f).unwrap()],
    }
}

/// A row of texts and blobs, and of numbers of one byte.
fn record(values: &[&dyn Stored]) -> Vec<u8> {
    let types: Vec<u8> = values.iter().flat_map(|value| vint(value.serial())).collect();
    let bodies: Vec<u8> = values.iter().flat_map(|value| value.body()).collect();
    [vint(types.len() + 1), types, bodies].concat()
}

trait Stored {
    fn serial(&self) -> usize;
    fn body(&self) -> Vec<u8>;
}

impl Stored for &str {
    fn serial(&self) -> usize {
        13 + 2 * self.len()
    }
    fn body(&self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }
}

impl Stored for u8 {
    fn serial(&self) -> usize {
        1
    }
    fn body(&self) -> Vec<u8> {
        vec![*self]
    }
}

impl Stored for Vec<u8> {
    fn serial(&self) -> usize {
        12 + 2 * self.len()
    }
    fn body(&self) -> Vec<u8> {
        self.clone()
    }
}

/// A page of a table whose cells lie at its end.
fn page(number: usize, kind: u8, right: u32, cells: &[Vec<u8>]) -> Vec<u8> {
    let mut page = vec![0; PAGE];
    let start = if number == 1 { HEADER } else { 0 };
    page[start] = kind;
    page[start + 3..start + 5].copy_from_slice(&u16::try_from(cells.len()).unwrap().to_be_bytes());
    let mut at = start + 8;
    if kind == INTERIOR {
        page[at..at + 4].copy_from_slice(&right.to_be_bytes());
        at += 4;
    }
    let mut end = PAGE;
    for cell in cells {
        end -= cell.len();
        page[end..end + cell.len()].copy_from_slice(cell);
        page[at..at + 2].copy_from_slice(&u16::try_from(end).unwrap().to_be_bytes());
        at += 2;
    }
    page
}

fn row(number: usize, payload: &[u8]) -> Vec<u8> {
    [vint(payload.len()), vint(number), payload.to_vec()].concat()
}

/// A row whose payload goes on in another page.
fn far_row(number: usize, payload: &[u8], local: usize, next: u32) -> Vec<u8> {
    [vint(payload.len()), vint(number), payload[..local].to_vec(), next.to_be_bytes().to_vec()].concat()
}

fn child(page: u32, number: usize) -> Vec<u8> {
    [page.to_be_bytes().to_vec(), vint(number)].concat()
}

/// Page 1 with the table `t (a, b)` that begins at page 2, and more pages.
fn database(pages: &[Vec<u8>]) -> Vec<u8> {
    let sql = "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT DEFAULT ',)', \"b\" BLOB, UNIQUE (a, b))";
    let table = record(&[&"table", &"t", &"t", &2_u8, &sql]);
    let mut file = page(1, LEAF, 0, &[row(1, &record(&[&"index", &"t", &"t", &9_u8, &""])), row(2, &table)]);
    file[..16].copy_from_slice(MAGIC);
    file[16..18].copy_from_slice(&512_u16.to_be_bytes());
    file[18..24].copy_from_slice(&[1, 1, 0, 64, 32, 32]);
    file[56..60].copy_from_slice(&1_u32.to_be_bytes());
    [file, pages.concat()].concat()
}

/// Three rows, one of them over two more pages.
fn good() -> Vec<u8> {
    let long = record(&[&0_u8, &"far", &vec![b'x'; 1300]]);
    let mut overflow = [vec![0; PAGE], vec![0; PAGE]];
    let local = {
        let (least, usable) = ((512 - 12) * 32 / 255 - 23, 512 - 4);
        let fitting = least + (long.len() - least) % usable;
        if fitting <= 512 - 35 { fitting } else { least }
    };
    let rest = &long[local..];
    overflow[0][..4].copy_from_slice(&6_u32.to_be_bytes());
    overflow[0][4..].copy_from_slice(&rest[..508]);
    let rest = &rest[508..];
    overflow[1][4..4 + rest.len()].copy_from_slice(rest);
    let [first, second] = overflow;
    let near = |name: &&str| record(&[&Vec::new(), name, &vec![1]]);
    database(&[
        page(2, INTERIOR, 4, &[child(3, 2)]),
        page(3, LEAF, 0, &[row(1, &near(&"one")), row(2, &near(&"two"))]),
        page(4, LEAF, 0, &[far_row(3, &long, local, 5)]),
        first,
        second,
    ])
}

fn rows_of(files: &[(&str, &[u8])]) -> Result<Vec<String>> {
    let fs = MemoryFs::default();
    for (path, content) in files {
        fs.add_file(path, content).unwrap();
    }
    let tree = Tree::new(Arc::new(fs));
    let mut rows = Vec::new();
    let Some(database) = Database::open(&tree, PATH)? else { return Ok(rows) };
    let table = database.table("t")?.ok_or_else(|| corrupt("no table"))?;
    database.rows(&table, &mut |row| {
        let blob = row.blob("b").map_or(0, <[u8]>::len);
        rows.push(format!("{} {blob}", row.text("a").unwrap_or("-")));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(rows)
}

#[test]
fn rows_come_in_order_wherever_they_lie() {
    assert_eq!(rows_of(&[(PATH, &good())]).unwrap(), ["one 1", "two 1", "far 1300"]);
    assert!(rows_of(&[(PATH, b"")]).unwrap().is_empty());
    assert!(rows_of(&[]).unwrap().is_empty());
}

#[test]
fn hostile_databases_end_with_an_error() {
    let good = good();
    let cell = |page: usize, index: usize| {
        let start = (page - 1) * PAGE + if good[(page - 1) * PAGE] == INTERIOR { 12 } else { 8 } + index * 2;
        (page - 1) * PAGE + usize::from(u16::from_be_bytes([good[start], good[start + 1]]))
    };
    for (what, at, bytes) in [
        ("another magic", 0, &b"sqlite"[..]),
        ("pages of no size", 16, &[0, 0]),
        ("pages of an odd size", 16, &[2, 1]),
        ("pages too small", 16, &[1, 0]),
        ("a newer version", 19, &[3]),
        ("too many reserved bytes", 20, &[200]),
        ("text in UTF-16", 59, &[2]),
        ("a first page of another kind", HEADER, &[2]),
        ("more cells than a page holds", 2 * PAGE + 3, &[0xff, 0xff]),
        ("a cell outside its page", HEADER + 8, &[0xff, 0xff]),
        ("a cell at the end of its page", 2 * PAGE + 8, &[1, 255]),
        ("a child of itself", cell(2, 0), &[0, 0, 0, 2]),
        ("a child outside", cell(2, 0), &[0, 0, 1, 0]),
        ("no child", cell(2, 0), &[0, 0, 0, 0]),
        ("a child that has parents", PAGE + 8, &[0, 0, 0, 2]),
        ("a child that is no table", PAGE + 8, &[0, 0, 0, 5]),
        ("a payload longer than the database", cell(3, 0), &[0xff, 0x7f]),
        ("a payload without end", cell(3, 1), &[0xff; 12]),
        ("a header longer than its row", cell(3, 0) + 2, &[0x70]),
        ("a value longer than its row", cell(3, 0) + 4, &[0x70]),
        ("a chain that begins nowhere", 4 * PAGE - 4, &[0, 0, 0, 0]),
        ("a chain that leads outside", 4 * PAGE, &[0, 0, 0, 99]),
        ("a chain that ends too early", 4 * PAGE, &[0, 0, 0, 0]),
    ] {
        let mut bad = good.clone();
        bad[at..at + bytes.len()].copy_from_slice(bytes);
        let found = rows_of(&[(PATH, &bad)]);
        assert!(found.is_err(), "{what}: {found:?}");
    }
    for length in [1, 99, 100, 511, 512, 1024, good.len() - 1] {
        assert!(rows_of(&[(PATH, &good[..length])]).is_err(), "{length}");
    }
}

#[test]
fn a_tree_has_as_many_levels_as_the_limit() {
    for (levels, whole) in [(MAX_DEPTH - 1, true), (MAX_DEPTH, true), (MAX_DEPTH + 1, false)] {
        let mut pages: Vec<_> =
            (2..=levels).map(|number| page(number, INTERIOR, u32::try_from(number + 1).unwrap(), &[])).collect();
        pages.push(page(9, LEAF, 0, &[row(1, &record(&[&0_u8, &"x", &0_u8]))]));
        assert_eq!(rows_of(&[(PATH, &database(&pages))]).is_ok(), whole, "{levels}");
    }
}

#[test]
fn a_log_that_is_none_does_not_count() {
    let good = good();
    let whole = rows_of(&[(PATH, &good)]).unwrap();
    for log in [&b""[..], &[0; 32], &[0xff; 600], &[0x37, 0x7f, 0x06, 0x82, 0, 0, 0, 0]] {
        assert_eq!(rows_of(&[(PATH, &good), ("/db-wal", log)]).unwrap(), whole);
        assert_eq!(rows_of(&[(PATH, &good), ("/db-journal", log)]).unwrap(), whole);
    }
}

/// A rollback journal of these pages, each of zeros, for a database of pages of 512 bytes.
fn journal(count: u32, pages: u32) -> Vec<u8> {
    let number = |number: u32| number.to_be_bytes();
    let mut file = [&[0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7][..], &number(count), &number(0)].concat();
    for field in [pages, 512, 512] {
        file.extend(number(field));
    }
    file.resize(512, 0);
    for page in 1..=count {
        file.extend(number(page));
        file.resize(file.len() + PAGE + 4, 0);
    }
    file
}

#[test]
fn a_log_has_as_many_pages_as_the_limit() {
    let limit = u32::try_from(limits::MAX_DATABASE_LOG_PAGES).unwrap();
    for (count, whole) in [(limit - 1, true), (limit, true), (limit + 1, false)] {
        let error = rows_of(&[(PATH, &good()), ("/db-journal", &journal(count, limit * 2))]).unwrap_err();
        // With its pages the database is full of zeros.
        assert_eq!(error.code(), if whole { "sqlite.corrupt" } else { "sqlite.log" }, "{count}");
    }
}

#[test]
fn a_journal_that_is_not_whole_counts_as_far_as_it_is() {
    let good = good();
    let mut torn = journal(9, 6);
    torn.truncate(700);
    assert_eq!(rows_of(&[(PATH, &good), ("/db-journal", &torn)]).unwrap().len(), 3);
    torn = journal(1, 6);
    let last = torn.len() - 1;
    torn[last] = 1;
    assert_eq!(rows_of(&[(PATH, &good), ("/db-journal", &torn)]).unwrap().len(), 3);
    // One page of zeros in place of the first one: no database any more.
    assert!(rows_of(&[(PATH, &good), ("/db-journal", &journal(1, 6))]).is_err());
}

#[test]
fn columns_are_told_by_their_statement() {
    let columns = |sql: &str| {
        let table = Table::parse(2, sql);
        format!("{table:?}").split("columns: ").nth(1).unwrap().split(", rowid").next().unwrap().to_owned()
    };
    for (sql, expected) in [
        ("CREATE TABLE 'Packages' (hnum INTEGER PRIMARY KEY AUTOINCREMENT,blob BLOB NOT NULL)", r#"["hnum", "blob"]"#),
        (
            "CREATE TABLE x(a, b INT CHECK (b IN (1,2)), [c d] TEXT, `e`, PRIMARY KEY (a, b))",
            r#"["a", "b", "c d", "e"]"#,
        ),
        ("CREATE TABLE x (\n  a TEXT DEFAULT 'it''s, (',\n  b)", r#"["a", "b"]"#),
        ("CREATE TABLE x (a /* one, two ( */, -- 'it, (\n b)", r#"["a", "b"]"#),
        ("CREATE TABLE x (a DEFAULT '/*', b, c /* open", r#"["a", "b", "c"]"#),
        ("", "[]"),
        ("(", "[]"),
        ("x(\"open, b)", r#"["\"open, b)"]"#),
    ] {
        assert_eq!(columns(sql), expected, "{sql}");
    }
}

#[test]
fn a_column_may_be_the_number_of_the_row() {
    for (sql, rowid) in [
        ("x(a, b INTEGER PRIMARY KEY)", "Some(1)"),
        ("x(a INTEGER, b INTEGER, PRIMARY KEY(\"b\" AUTOINCREMENT))", "Some(1)"),
        ("x(a integer, PRIMARY KEY (a))", "Some(0)"),
        ("x(a INT, PRIMARY KEY(a))", "None"),
        ("x(a INTEGER, b INTEGER, PRIMARY KEY(a, b))", "None"),
        ("x(a INTEGER, PRIMARY KEY(gone))", "None"),
        ("x(a TEXT PRIMARY KEY)", "None"),
    ] {
        assert!(format!("{:?}", Table::parse(2, sql)).ends_with(&format!("rowid: {rowid} }}")), "{sql}");
    }
}
