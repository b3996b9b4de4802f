//! Which entries are wanted, by the lists that the files keep for each field.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::collections::BTreeMap;

use super::file::JournalFile;
use super::list::List;
use crate::error::Result;

/// A condition on entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// One of the entry's fields is this `FIELD=value`.
    Field(Vec<u8>),
    /// All of these hold; an entry always fits none.
    All(Vec<Filter>),
    /// One of these holds; an entry never fits none.
    Any(Vec<Filter>),
}

impl Filter {
    /// Every entry.
    #[must_use]
    pub fn everything() -> Self {
        Self::All(Vec::new())
    }

    /// The field `name` is `value`.
    #[must_use]
    pub fn field(name: &str, value: impl std::fmt::Display) -> Self {
        Self::Field(format!("{name}={value}").into_bytes())
    }

    /// Everything that concerns a unit: what it logged, what the service manager and privileged daemons say of it, and its
    /// core dumps; for a slice, also what its members logged.
    #[must_use]
    pub fn unit(unit: &str) -> Self {
        let mut any = vec![
            Self::field("_SYSTEMD_UNIT", unit),
            Self::All(vec![Self::core_dump(), Self::field("_UID", 0), Self::field("COREDUMP_UNIT", unit)]),
            Self::All(vec![Self::field("_PID", 1), Self::field("UNIT", unit)]),
            Self::All(vec![Self::field("_UID", 0), Self::field("OBJECT_SYSTEMD_UNIT", unit)]),
        ];
        if unit.ends_with(".slice") {
            any.push(Self::field("_SYSTEMD_SLICE", unit));
        }
        Self::Any(any)
    }

    fn core_dump() -> Self {
        Self::field("MESSAGE_ID", "fc2e22bc6ee647b6b90729ab34a250b1")
    }

    /// `FIELD=value` words as `journalctl` takes them: values of one field are alternatives, different fields must all fit, and
    /// `+` begins another such group.
    #[must_use]
    pub fn words(words: &[Vec<u8>]) -> Self {
        let group = |words: &[Vec<u8>]| {
            let mut fields: BTreeMap<&[u8], Vec<Self>> = BTreeMap::new();
            for word in words {
                let name = word.split(|byte| *byte == b'=').next().unwrap_or_default();
                fields.entry(name).or_default().push(Self::Field(word.clone()));
            }
            Self::All(fields.into_values().map(Self::Any).collect())
        };
        let groups: Vec<Self> = words.split(|word| word == b"+").filter(|words| !words.is_empty()).map(group).collect();
        if groups.is_empty() { Self::everything() } else { Self::Any(groups) }
    }

    /// The condition for one file.
    pub(super) fn plan(&self, file: &JournalFile<'_>) -> Result<Plan> {
        Ok(match self {
            Self::Field(payload) => match file.find_data(payload)? {
                Some(data) => Plan::List(file.entries_of(&data)?),
                None => Plan::Any(Vec::new()),
            },
            Self::All(all) if all.is_empty() => Plan::List(file.all()?),
            Self::All(all) => Plan::All(all.iter().map(|filter| filter.plan(file)).collect::<Result<_>>()?),
            Self::Any(any) => Plan::Any(any.iter().map(|filter| filter.plan(file)).collect::<Result<_>>()?),
        })
    }
}

/// A condition with the lists of one file.
#[derive(Debug)]
pub(super) enum Plan {
    List(List),
    All(Vec<Plan>),
    Any(Vec<Plan>),
}

impl Plan {
    /// The first entry at `from` or after it that fits.
    pub(super) fn next(&self, file: &JournalFile<'_>, from: u64) -> Result<Option<u64>> {
        match self {
            Self::List(list) => list.next(file, from),
            Self::Any(any) => {
                let mut first: Option<u64> = None;
                for plan in any {
                    let found = plan.next(file, from)?;
                    first = first.into_iter().chain(found).min();
                }
                Ok(first)
            }
            Self::All(all) => agree(all, from, |plan, from| plan.next(file, from)),
        }
    }

    /// The last entry at `from` or before it that fits.
    pub(super) fn previous(&self, file: &JournalFile<'_>, from: u64) -> Result<Option<u64>> {
        match self {
            Self::List(list) => list.previous(file, from),
            Self::Any(any) => {
                let mut last: Option<u64> = None;
                for plan in any {
                    let found = plan.previous(file, from)?;
                    last = last.into_iter().chain(found).max();
                }
                Ok(last)
            }
            Self::All(all) => agree(all, from, |plan, from| plan.previous(file, from)),
        }
    }
}

/// Moves on until all give the same. Each step moves in one direction only, so it ends.
fn agree(all: &[Plan], from: u64, find: impl Fn(&Plan, u64) -> Result<Option<u64>>) -> Result<Option<u64>> {
    let mut at = from;
    loop {
        let before = at;
        for plan in all {
            match find(plan, at)? {
                Some(found) => at = found,
                None => return Ok(None),
            }
        }
        if at == before {
            return Ok(Some(at));
        }
    }
}
