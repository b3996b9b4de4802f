//! The entries of all files in one order, forwards and backwards.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::cmp::Ordering;

use super::Journal;
use super::file::{Entry, JournalFile};
use super::filter::{Filter, Plan};
use crate::error::Result;

/// Which way a walk goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The oldest first.
    Down,
    /// The newest first.
    Up,
}

/// The times that entries may have, both included, in microseconds since the epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Not older than this.
    pub since: Option<u64>,
    /// Not newer than this.
    pub until: Option<u64>,
}

/// Entries that fit a filter, one after the other.
#[derive(Debug)]
pub struct Walk<'a> {
    journal: &'a Journal<'a>,
    span: Span,
    direction: Direction,
    streams: Vec<Stream>,
    last: Option<Entry>,
    notes: Vec<String>,
}

/// One file's part.
#[derive(Debug)]
struct Stream {
    file: usize,
    plan: Plan,
    /// Where to go on from, this place included; `None` at the end.
    from: Option<u64>,
    candidate: Option<Entry>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(journal: &'a Journal<'a>, filter: &Filter, span: Span, direction: Direction) -> Self {
        let mut walk = Self { journal, span, direction, streams: Vec::new(), last: None, notes: Vec::new() };
        for (index, file) in journal.files().iter().enumerate() {
            let plan = filter.plan(file).and_then(|plan| Ok((plan, start(file, span, direction)?)));
            match plan {
                Ok((plan, from)) => walk.streams.push(Stream { file: index, plan, from, candidate: None }),
                Err(error) => walk.notes.push(error.to_string()),
            }
        }
        walk
    }

    /// The next entry.
    #[expect(clippy::should_implement_trait, reason = "an iterator's next cannot fail")]
    pub fn next(&mut self) -> Option<Entry> {
        let mut best: Option<(usize, Entry)> = None;
        for index in 0..self.streams.len() {
            let Some(entry) = self.advance(index) else { continue };
            let is_first = best.is_none_or(|(_, best)| self.order(&entry, &best) == Ordering::Less);
            if is_first {
                best = Some((index, entry));
            }
        }
        let (index, entry) = best?;
        let beyond = match self.direction {
            Direction::Down => self.span.until.is_some_and(|until| entry.realtime > until),
            Direction::Up => self.span.since.is_some_and(|since| entry.realtime < since),
        };
        if beyond {
            return None;
        }
        self.last = Some(entry);
        self.pass(index, &entry);
        Some(entry)
    }

    /// Turns round: what comes next is what came last, and then goes the other way.
    pub fn turn(&mut self) {
        let direction = match self.direction {
            Direction::Down => Direction::Up,
            Direction::Up => Direction::Down,
        };
        let Some(last) = self.last.take() else {
            self.streams.clear();
            return;
        };
        for stream in &mut self.streams {
            let seen = stream.candidate.take().map(|entry| entry.offset);
            stream.from = match (stream.file == last.file, seen.or(stream.from), direction) {
                (true, _, _) => Some(last.offset),
                (_, Some(seen), Direction::Down) => seen.checked_add(1),
                (_, Some(seen), Direction::Up) => seen.checked_sub(1),
                (_, None, Direction::Down) => Some(0),
                (_, None, Direction::Up) => Some(u64::MAX),
            };
        }
        self.direction = direction;
    }

    /// What could not be read so far.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// What the stream would give next: an entry that is really beyond the last one, since several files may hold the same.
    fn advance(&mut self, index: usize) -> Option<Entry> {
        loop {
            let entry = match self.streams.get(index)?.candidate {
                Some(entry) => entry,
                None => self.fetch(index)?,
            };
            let is_new = self
                .last
                .is_none_or(|last| last.file == entry.file || compare(&entry, &last) == self.direction.beyond());
            if is_new {
                return Some(entry);
            }
            self.pass(index, &entry);
        }
    }

    /// Reads a stream's next entry. One that is damaged is passed over; a list that is ends the stream.
    fn fetch(&mut self, index: usize) -> Option<Entry> {
        loop {
            let stream = self.streams.get_mut(index)?;
            let (file, from) = (self.journal.files().get(stream.file)?, stream.from?);
            let found = match self.direction {
                Direction::Down => stream.plan.next(file, from),
                Direction::Up => stream.plan.previous(file, from),
            };
            let found = match found {
                Ok(Some(found)) => found,
                Ok(None) => {
                    file.forget();
                    stream.from = None;
                    return None;
                }
                Err(error) => {
                    note(&mut self.notes, error.to_string());
                    stream.from = None;
                    return None;
                }
            };
            match file.entry(stream.file, found) {
                Ok(entry) => {
                    stream.candidate = Some(entry);
                    return Some(entry);
                }
                Err(error) => {
                    note(&mut self.notes, error.to_string());
                    stream.from = self.direction.after(found);
                }
            }
        }
    }

    fn pass(&mut self, index: usize, entry: &Entry) {
        if let Some(stream) = self.streams.get_mut(index) {
            stream.candidate = None;
            stream.from = self.direction.after(entry.offset);
        }
    }

    /// Which of two comes first in this direction.
    fn order(&self, a: &Entry, b: &Entry) -> Ordering {
        match self.direction {
            Direction::Down => compare(a, b),
            Direction::Up => compare(b, a),
        }
    }
}

impl Direction {
    fn beyond(self) -> Ordering {
        match self {
            Self::Down => Ordering::Greater,
            Self::Up => Ordering::Less,
        }
    }

    fn after(self, offset: u64) -> Option<u64> {
        match self {
            Self::Down => offset.checked_add(1),
            Self::Up => offset.checked_sub(1),
        }
    }
}

const NOTES: usize = 100;

fn note(notes: &mut Vec<String>, text: String) {
    if notes.len() < NOTES {
        notes.push(text);
    }
}

/// Where a file's part begins, by the time of its entries.
fn start(file: &JournalFile<'_>, span: Span, direction: Direction) -> Result<Option<u64>> {
    let all = file.all()?;
    let before = |time: u64, included: bool| {
        let fits = |offset: u64| {
            // What is damaged counts as old.
            Ok(file.entry(0, offset).is_ok_and(|entry| entry.realtime > time || (!included && entry.realtime == time)))
        };
        all.try_partition(|offset| fits(offset).map(|is_newer| !is_newer), file)
    };
    match (direction, span) {
        (Direction::Down, Span { since: Some(since), .. }) => {
            let index = before(since, false)?;
            if index < all.len() { all.get(file, index).map(Some) } else { Ok(None) }
        }
        (Direction::Up, Span { until: Some(until), .. }) => match before(until, true)?.checked_sub(1) {
            Some(index) => all.get(file, index).map(Some),
            None => Ok(None),
        },
        (Direction::Down, _) => Ok(Some(0)),
        (Direction::Up, _) => Ok(Some(u64::MAX)),
    }
}

/// The order of entries of several files: by number where one series numbered both, by the machine's clock since its start where
/// both are of one start, else by the time of day.
fn compare(a: &Entry, b: &Entry) -> Ordering {
    let same_series = a.seqnum_id == b.seqnum_id;
    let same_boot = a.boot_id == b.boot_id;
    let number = if same_series { a.seqnum.cmp(&b.seqnum) } else { Ordering::Equal };
    let clock = || if same_boot { a.monotonic.cmp(&b.monotonic) } else { Ordering::Equal };
    number.then_with(clock).then_with(|| a.realtime.cmp(&b.realtime)).then_with(|| a.xor_hash.cmp(&b.xor_hash))
}
