//! The files that a syslog daemon writes: `/var/log/syslog` or `/var/log/messages` with the older ones that logrotate keeps,
//! compressed or not, from the oldest line to the newest.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use jiff::tz::TimeZone;

use crate::container::packed::Compression;
use crate::disk::Stream;
use crate::error::{Error, Kind, Result};
use crate::fs::tree::FileReader;
use crate::fs::{FileKind, Tree};
use crate::limits;

mod line;
#[cfg(test)]
mod tests;

pub use line::Line;

/// Names of the log, the first of them first. Where there are both, the second holds less of the same.
const NAMES: [&str; 2] = ["syslog", "messages"];

const FOLDER: &str = "/var/log";

/// Bytes that are read at a time.
const CHUNK: usize = 64 << 10;

/// The log's files.
#[derive(Debug)]
pub struct Syslog<'a> {
    tree: &'a Tree,
    files: Vec<LogFile>,
    notes: Vec<String>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFile {
    /// Its path.
    pub path: String,
    /// When it was last written, in seconds since 1970.
    pub modified: i64,
    age: Age,
}

/// The place of a file in the order, by its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Age {
    /// `-20261101`, as digits.
    Dated(String),
    /// `.3`: higher ones are older.
    Numbered(std::cmp::Reverse<u32>),
    Current,
}

impl<'a> Syslog<'a> {
    /// Finds them; `None` for a guest that has none.
    pub fn find(tree: &'a Tree) -> Result<Option<Self>> {
        let listed = tree.list(FOLDER)?;
        for base in NAMES {
            let (mut files, mut notes) = (Vec::new(), Vec::new());
            for entry in &listed {
                let Some((name, age)) = entry.text().and_then(|name| Some((name, age(name, base)?))) else { continue };
                let path = format!("{FOLDER}/{name}");
                let Some(found) = tree.find(&path)?.filter(|found| found.stat.kind == FileKind::Regular) else {
                    continue;
                };
                if files.len() == limits::MAX_SYSLOG_FILES {
                    notes.push(format!("only {} files of the log are looked at", limits::MAX_SYSLOG_FILES));
                    break;
                }
                files.push(LogFile { path, modified: found.stat.mtime.seconds, age });
            }
            if !files.is_empty() {
                sort(&mut files);
                return Ok(Some(Self { tree, files, notes }));
            }
        }
        Ok(None)
    }

    /// The files, the oldest first.
    #[must_use]
    pub fn files(&self) -> &[LogFile] {
        &self.files
    }

    /// What could not be read, and why.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Gives each line of a file to `visit`, until that says no more by `false`. Times without a zone are on the clock of `zone`, and without
    /// a year in the latest one that is no day after the file was last written. A line without a time has that of the one before.
    /// What is damaged ends the file with a note.
    pub fn read(
        &mut self,
        file: &LogFile,
        zone: &TimeZone,
        visit: &mut dyn FnMut(&Line<'_>) -> Result<bool>,
    ) -> Result<()> {
        let (mut lines, mut time) =
            (Lines { stream: self.open(file)?, buf: Vec::new(), read: 0, is_over: false }, None);
        loop {
            let text = match lines.next() {
                Ok(Some(text)) => text,
                Ok(None) => return Ok(()),
                Err(error) if error.kind() == Kind::Interrupted => return Err(error),
                Err(error) => {
                    self.notes.push(format!("{} is not read to its end: {error}", file.path));
                    return Ok(());
                }
            };
            let mut line = Line::parse(&text, zone, file.modified);
            line.time = line.time.or(time);
            time = line.time;
            if !visit(&line)? {
                return Ok(());
            }
        }
    }

    fn open(&self, file: &LogFile) -> Result<Box<dyn Stream>> {
        let gone = || Error::new(Kind::NotFound, "guest.not-found", "no such file in the guest").at(&file.path);
        let reader = self.tree.open(&file.path)?.ok_or_else(gone)?;
        let mut head = [0; 16];
        let length = reader.read_at(&mut head, 0)?;
        let compression = Compression::detect(head.get(..length).unwrap_or_default());
        let stream: Box<dyn Stream> = Box::new(Plain { reader, offset: 0, path: file.path.clone() });
        match compression {
            Some(compression) => compression.decode(stream),
            None => Ok(stream),
        }
    }
}

/// What the name says of a file of the log `base`; `None` for a file of something else.
fn age(name: &str, base: &str) -> Option<Age> {
    let rest = name.strip_prefix(base)?;
    if rest.is_empty() {
        return Some(Age::Current);
    }
    let rest = [".gz", ".xz", ".zst", ".bz2"].iter().find_map(|suffix| rest.strip_suffix(suffix)).unwrap_or(rest);
    if let Some(number) = rest.strip_prefix('.') {
        let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        return Some(Age::Numbered(std::cmp::Reverse(number.parse().ok().filter(|_| is_number)?)));
    }
    let date = rest.strip_prefix('-')?;
    let digits: String = date.chars().filter(char::is_ascii_digit).collect();
    let fits = digits.len() >= 6 && date.chars().all(|c| c.is_ascii_digit() || "-_".contains(c));
    fits.then_some(Age::Dated(digits))
}

/// The oldest first. Dates and numbers do not compare, so where there are both, it goes by when files were written.
fn sort(files: &mut [LogFile]) {
    let dated = files.iter().any(|file| matches!(file.age, Age::Dated(_)));
    let numbered = files.iter().any(|file| matches!(file.age, Age::Numbered(_)));
    if dated && numbered {
        files.sort_by(|a, b| {
            (a.age == Age::Current, a.modified, &a.age).cmp(&(b.age == Age::Current, b.modified, &b.age))
        });
    } else {
        files.sort_by(|a, b| (&a.age, &a.path).cmp(&(&b.age, &b.path)));
    }
}

/// A file as it is.
#[derive(Debug)]
struct Plain {
    reader: FileReader,
    offset: u64,
    path: String,
}

impl Stream for Plain {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        let count = self.reader.read_at(buf, self.offset)?;
        self.offset = self.offset.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        Ok(count)
    }

    fn name(&self) -> String {
        self.path.clone()
    }
}

/// A stream in lines.
struct Lines {
    stream: Box<dyn Stream>,
    /// What was read and not yet given.
    buf: Vec<u8>,
    /// Bytes in all.
    read: u64,
    is_over: bool,
}

impl Lines {
    /// The next line without its end. One that is too long goes on in the next.
    fn next(&mut self) -> Result<Option<Vec<u8>>> {
        let mut looked_at = 0;
        loop {
            let unseen = self.buf.get(looked_at..).unwrap_or_default();
            if let Some(at) = unseen.iter().position(|byte| *byte == b'\n') {
                let rest = self.buf.split_off(looked_at.saturating_add(at).saturating_add(1));
                let mut line = std::mem::replace(&mut self.buf, rest);
                line.pop();
                return Ok(Some(line));
            }
            if self.buf.len() >= limits::MAX_SYSLOG_LINE {
                let rest = self.buf.split_off(limits::MAX_SYSLOG_LINE);
                return Ok(Some(std::mem::replace(&mut self.buf, rest)));
            }
            if self.is_over {
                let line = std::mem::take(&mut self.buf);
                return Ok(Some(line).filter(|line| !line.is_empty()));
            }
            looked_at = self.buf.len();
            self.buf.resize(looked_at.saturating_add(CHUNK), 0);
            let read = self.stream.read(self.buf.get_mut(looked_at..).unwrap_or_default());
            let count = *read.as_ref().unwrap_or(&0);
            self.buf.truncate(looked_at.saturating_add(count));
            read?;
            self.is_over = count == 0;
            self.read = self.read.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
            if self.read > limits::MAX_SYSLOG_BYTES {
                return Err(Error::new(Kind::Limit, "log.size", "a file of the log is longer than is read")
                    .expected(format!("at most {} bytes", limits::MAX_SYSLOG_BYTES)));
            }
        }
    }
}
