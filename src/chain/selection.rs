//! Which disks of a source are wanted.

use std::str::FromStr;

use crate::error::{Error, Kind, Result};

/// One of a source's disks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// By position, from 1.
    Number(usize),
    /// By id, label or file name.
    Name(String),
}

/// The disks of a source that are wanted; by default all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Those and no others, unless there are none here.
    pub only: Vec<Selector>,
    /// Not those.
    pub except: Vec<Selector>,
}

impl Selection {
    /// By what was typed behind `--disk` and `--exclude-disk`.
    ///
    /// # Errors
    /// `source.disk` for a 0.
    pub fn parse(only: &[String], except: &[String]) -> Result<Self> {
        let selectors = |texts: &[String]| texts.iter().map(|text| text.parse()).collect::<Result<_>>();
        Ok(Self { only: selectors(only)?, except: selectors(except)? })
    }

    /// Whether nothing is left out.
    #[must_use]
    pub const fn is_all(&self) -> bool {
        self.only.is_empty() && self.except.is_empty()
    }

    /// The positions of the wanted disks among as many as `names` has, each known by several names.
    ///
    /// # Errors
    /// `source.disk` for a selector that fits no disk, and when none is left.
    pub fn pick(&self, names: &[Vec<&str>]) -> Result<Vec<usize>> {
        let fits = |selector: &Selector, position: usize| match selector {
            Selector::Number(number) => *number == position.saturating_add(1),
            Selector::Name(name) => names.get(position).is_some_and(|names| names.contains(&name.as_str())),
        };
        let positions = || 0..names.len();
        if let Some(missing) =
            self.only.iter().chain(&self.except).find(|selector| !positions().any(|position| fits(selector, position)))
        {
            return Err(no_such_disk(names).found(missing));
        }
        let any = |selectors: &[Selector], position| selectors.iter().any(|selector| fits(selector, position));
        let wanted =
            |position: &usize| (self.only.is_empty() || any(&self.only, *position)) && !any(&self.except, *position);
        let chosen: Vec<usize> = positions().filter(wanted).collect();
        if chosen.is_empty() && !self.is_all() {
            return Err(Error::new(Kind::Usage, "source.disk", "every disk is excluded").expected(listed(names)));
        }
        Ok(chosen)
    }
}

fn no_such_disk(names: &[Vec<&str>]) -> Error {
    let error = Error::new(Kind::Usage, "source.disk", "the source has no such disk");
    if names.is_empty() { error.expected("no disk, since it has none") } else { error.expected(listed(names)) }
}

/// The disks with their numbers, by their first names.
fn listed(names: &[Vec<&str>]) -> String {
    let name = |(index, names): (usize, &Vec<&str>)| format!("{} ({})", index + 1, names.first().unwrap_or(&"?"));
    names.iter().enumerate().map(name).collect::<Vec<_>>().join(", ")
}

impl std::fmt::Display for Selector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl FromStr for Selector {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.parse() {
            Ok(0) => Err(Error::new(Kind::Usage, "source.disk", "disks are counted from 1")),
            Ok(number) => Ok(Self::Number(number)),
            Err(_) => Ok(Self::Name(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pick(only: &[&str], except: &[&str]) -> Result<Vec<usize>> {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let names = [vec!["root.vmdk", "vmdisk1"], vec!["data.vmdk"], vec!["swap.vmdk"]];
        Selection::parse(&texts(only), &texts(except))?.pick(&names)
    }

    #[test]
    fn disks_are_chosen_and_excluded() {
        assert_eq!(pick(&[], &[]).unwrap(), [0, 1, 2]);
        assert_eq!(pick(&["3", "vmdisk1"], &[]).unwrap(), [0, 2], "in the machine's order");
        assert_eq!(pick(&[], &["data.vmdk"]).unwrap(), [0, 2]);
        assert_eq!(pick(&["1", "2"], &["2"]).unwrap(), [0]);
    }

    #[test]
    fn what_is_not_there_is_an_error_that_lists_what_is() {
        for (only, except) in [(&["4"][..], &[][..]), (&[], &["4"]), (&["0"], &[]), (&["x"], &[]), (&["1"], &["1"])] {
            assert_eq!(pick(only, except).unwrap_err().code(), "source.disk");
        }
        assert!(pick(&["4"], &[]).unwrap_err().to_string().contains("1 (root.vmdk), 2 (data.vmdk)"));
        assert_eq!(Selection::default().pick(&[]).unwrap(), [0; 0]);
    }
}
