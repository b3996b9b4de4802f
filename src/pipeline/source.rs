//! Opening what the user named: `PATH` or an address, either with `#N`, several of them as the disks of one machine.

use std::path::Path;
use std::sync::Arc;

use crate::chain::{OpenOptions, Opened, OpenedDisk, Selection, Selector, open};
use crate::disk::Stream;
use crate::error::{Error, Kind, Result};
use crate::session::Session;
use crate::source::{Location, Protocol, stream_web};

/// The name of standard input.
pub const STDIN: &str = "-";

/// How the user named a source: where it is, and which disk of it, if that was said with `#`.
///
/// # Errors
/// Those of [`Location::parse`].
pub fn split(source: &str) -> Result<(Location, Option<Selector>)> {
    if let Some((name, disk)) = source.rsplit_once('#')
        && !Path::new(source).exists()
        && let Ok(selector) = disk.parse::<Selector>()
    {
        return Ok((Location::parse(name)?, Some(selector)));
    }
    Ok((Location::parse(source)?, None))
}

/// Sources as they may be shown: without the secrets that an address can have.
#[must_use]
pub fn shown(sources: &[String]) -> Vec<String> {
    let shown = |source: &String| match split(source) {
        Ok((Location::Remote(address), None)) => address.to_string(),
        Ok((Location::Remote(address), Some(_))) => {
            format!("{address}#{}", source.rsplit_once('#').map_or("", |(_, disk)| disk))
        }
        _ => source.clone(),
    };
    sources.iter().map(shown).collect()
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
    let (location, named) = split(source)?;
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
    open(location, &OpenOptions { disks, ..options.clone() }, session)
}

/// The one source as what can be read forward only, if it lies on a web server.
///
/// # Errors
/// Those of the server.
pub fn stream(sources: &[String], session: &Arc<Session>) -> Result<Option<Box<dyn Stream>>> {
    let [source] = sources else { return Ok(None) };
    match split(source)? {
        (Location::Remote(address), None) if address.protocol() == Protocol::Http => {
            Ok(Some(Box::new(stream_web(&address, session)?)))
        }
        _ => Ok(None),
    }
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
            .at(&opened.location)
            .found(names.join(", "))
            .hint("choose one with --disk N, or SRC#N")),
        (None, _) => Err(Error::unsupported("source.no-disk", "the source has no disk").at(&opened.location)),
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
        let named = |text: &str| {
            let (location, disk) = split(text).unwrap();
            (location.to_string(), disk)
        };
        assert_eq!(named("/no/such/guest.ova#2"), ("/no/such/guest.ova".into(), Some(Selector::Number(2))));
        assert_eq!(named("/no/such/guest.ova"), ("/no/such/guest.ova".into(), None));
        assert_eq!(named("http://h/guest.ova?s=1#2"), ("http://h/guest.ova?…".into(), Some(Selector::Number(2))));
        assert_eq!(shown(&["https://me@h/a?sig=canary#2".into(), "b".into()]), ["https://h/a?…#2", "b"]);
    }
}
