//! Opening what the user named: `PATH`, `PATH#N`, several paths as the disks of one machine.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::chain::{OpenOptions, Opened, OpenedDisk, Selection, Selector, open};
use crate::error::{Error, Kind, Result};
use crate::session::Session;

/// The name of standard input.
pub const STDIN: &str = "-";

/// How the user named a source: its path, and which disk of it, if that was said with `#`.
#[must_use]
pub fn split(source: &str) -> (PathBuf, Option<Selector>) {
    if let Some((path, disk)) = source.rsplit_once('#')
        && !Path::new(source).exists()
        && let Ok(selector) = disk.parse::<Selector>()
    {
        return (PathBuf::from(path), Some(selector));
    }
    (PathBuf::from(source), None)
}

/// Opens one source; `disk` is what `--disk` said, and like `SRC#N` it goes before the selection of `options`.
pub fn open_one(source: &str, disk: Option<&str>, options: &OpenOptions, session: &Arc<Session>) -> Result<Opened> {
    if source == STDIN {
        return Err(Error::new(
            Kind::Usage,
            "source.stdin",
            "standard input comes forward only, so it can only be converted",
        )
        .hint("save it to a file, and name that as the source"));
    }
    let (path, named) = split(source);
    let selector = match (named, disk) {
        (Some(_), Some(_)) => {
            return Err(Error::new(Kind::Usage, "source.disk", "the disk is named twice, with # and with --disk"));
        }
        (Some(selector), None) => Some(selector),
        (None, Some(disk)) => Some(disk.parse()?),
        (None, None) => None,
    };
    let disks = match selector {
        Some(selector) => Selection { only: vec![selector], except: Vec::new() },
        None => options.disks.clone(),
    };
    open(&path, &OpenOptions { disks, ..options.clone() }, session)
}

/// Opens `sources`, in order, and gives the wanted ones of all their disks, which are counted through. What is not wanted of a
/// single source is not touched.
pub fn open_all(
    sources: &[String],
    options: &OpenOptions,
    session: &Arc<Session>,
) -> Result<(Vec<Opened>, Vec<OpenedDisk>)> {
    let selection = &options.disks;
    let each = OpenOptions { disks: Selection::default(), ..options.clone() };
    let each = if sources.len() == 1 { options } else { &each };
    let mut opened: Vec<Opened> =
        sources.iter().map(|name| open_one(name, None, each, session)).collect::<Result<_>>()?;
    let disks: Vec<OpenedDisk> = opened.iter_mut().flat_map(|source| std::mem::take(&mut source.disks)).collect();
    if sources.len() == 1 {
        return Ok((opened, disks));
    }
    let names: Vec<Vec<&str>> = disks.iter().map(|disk| vec![disk.name.as_str()]).collect();
    let wanted = selection.pick(&names)?;
    let disks = disks.into_iter().enumerate().filter(|(position, _)| wanted.contains(position)).map(|(_, disk)| disk);
    Ok((opened, disks.collect()))
}

/// Opens one source that must come down to one disk.
pub fn open_disk(source: &str, disk: Option<&str>, options: &OpenOptions, session: &Arc<Session>) -> Result<Single> {
    let mut opened = open_one(source, disk, options, session)?;
    let names: Vec<String> = opened.disks.iter().map(|disk| disk.name.clone()).collect();
    match (opened.disks.pop(), opened.disks.is_empty()) {
        (Some(disk), true) => Ok(Single { disk, opened }),
        (Some(_), false) => Err(Error::new(Kind::Usage, "source.disk", "the source has several disks")
            .path(&opened.path)
            .found(names.join(", "))
            .hint("choose one with --disk N, or SRC#N")),
        (None, _) => Err(Error::unsupported("source.no-disk", "the source has no disk").path(&opened.path)),
    }
}

/// A source of one disk.
#[derive(Debug)]
pub struct Single {
    /// The disk.
    pub disk: OpenedDisk,
    /// The rest of what was opened; its `disks` are empty.
    pub opened: Opened,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_can_be_named_after_a_hash() {
        let (path, disk) = split("/no/such/guest.ova#2");
        assert_eq!((path.as_path(), disk), (Path::new("/no/such/guest.ova"), Some(Selector::Number(2))));
        let (path, disk) = split("/no/such/guest.ova");
        assert_eq!((path.as_path(), disk), (Path::new("/no/such/guest.ova"), None));
    }
}
