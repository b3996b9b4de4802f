//! `mdadm.conf`: arrays are found by their UUIDs, whatever their disks are called.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use super::draft::{Draft, Vital};
use super::spec::is_disk_pattern;
use super::text::edit_lines;
use crate::error::Result;
use crate::inspect::fstab::fields;

const WHY: &str = "disks have other names on virtio, and mdadm leaves out those that it is not told to look at";

pub(super) fn plan(draft: &mut Draft<'_>) -> Result<()> {
    let mut paths = vec!["/etc/mdadm.conf".to_owned(), "/etc/mdadm/mdadm.conf".to_owned()];
    for dir in ["/etc/mdadm.conf.d", "/etc/mdadm/mdadm.conf.d"] {
        let names = draft.tree().list(dir)?;
        let names = names.iter().filter_map(|listed| listed.text()).filter(|name| name.ends_with(".conf"));
        paths.extend(names.map(|name| format!("{dir}/{name}")));
    }
    for path in paths {
        let Some((path, text)) = draft.read(&path)? else { continue };
        let Edited { content, kept } = edit(&text);
        for line in kept {
            draft.leave(
                &path,
                format!("the array of line {line} is named by its disks"),
                "nothing else in the line tells it",
            );
        }
        draft.edit("raid", &path, content, "find arrays by UUID on all disks", WHY, Vital::Yes)?;
    }
    Ok(())
}

/// A file after its edit, and the lines that name disks still.
pub(super) struct Edited {
    pub(super) content: Vec<u8>,
    pub(super) kept: Vec<usize>,
}

/// What the keyword of a line, which may go on over lines that start with a blank, says (mdadm.conf(5)).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Array { has_identity: bool },
    Device { has_all: bool },
    Other,
}

/// `DEVICE` lines look at all partitions; `devices=` goes where the array is known by something that lasts.
pub(super) fn edit(text: &[u8]) -> Edited {
    let parts = parts(text);
    let mut kept = Vec::new();
    let mut told = None;
    let content = edit_lines(text, |number, line| match *parts.get(number.checked_sub(1)?)? {
        (Part::Device { has_all }, start) => {
            let mut needs_all = !has_all && told != Some(start);
            let new = replace(line, |word| {
                if !is_disk_pattern(word) {
                    return None;
                }
                Some(if std::mem::take(&mut needs_all) { "partitions" } else { "" })
            })?;
            told = Some(start);
            Some(new)
        }
        (Part::Array { has_identity }, _) => replace(line, |word| {
            let names_disks = option(word, "devices").is_some_and(|list| list.split(',').any(is_disk_pattern));
            if names_disks && !has_identity {
                kept.push(number);
            }
            (names_disks && has_identity).then_some("")
        }),
        (Part::Other, _) => None,
    });
    Edited { content, kept }
}

/// For each line what it is part of, and the line where that begins.
fn parts(text: &[u8]) -> Vec<(Part, usize)> {
    let lines: Vec<String> =
        text.split(|byte| *byte == b'\n').map(|line| String::from_utf8_lossy(line).into_owned()).collect();
    let is_more = |line: &String| line.starts_with([' ', '\t']);
    let mut parts: Vec<(Part, usize)> = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        if is_more(line) && index > 0 {
            parts.push(parts.last().copied().unwrap_or((Part::Other, 0)));
            continue;
        }
        let more = lines.iter().skip(index.saturating_add(1)).take_while(|line| is_more(line));
        let whole: Vec<&str> = std::iter::once(line).chain(more).flat_map(|line| words(line)).collect();
        parts.push((part(&whole), index));
    }
    parts
}

fn part(words: &[&str]) -> Part {
    let Some((keyword, rest)) = words.split_first() else { return Part::Other };
    // Three letters tell a keyword.
    let is = |name: &str| {
        let keyword = keyword.to_ascii_lowercase();
        keyword.len() >= 3 && name.starts_with(&keyword)
    };
    if is("device") {
        let has_all = rest.iter().any(|word| word.eq_ignore_ascii_case("partitions"));
        Part::Device { has_all }
    } else if is("array") {
        let lasts = ["uuid", "name", "super-minor", "member"];
        Part::Array { has_identity: rest.iter().any(|word| lasts.iter().any(|key| option(word, key).is_some())) }
    } else {
        Part::Other
    }
}

fn words(line: &str) -> Vec<&str> {
    let ranges = fields(line).into_iter();
    ranges.filter_map(|range| line.get(range)).take_while(|word| !word.starts_with('#')).collect()
}

fn option<'a>(word: &'a str, key: &str) -> Option<&'a str> {
    let (found, value) = word.split_once('=')?;
    found.eq_ignore_ascii_case(key).then_some(value)
}

/// A line with the words replaced that `change` gives something for; one that gets nothing goes with the blank before it.
fn replace<'a>(line: &str, mut change: impl FnMut(&str) -> Option<&'a str>) -> Option<String> {
    let mut out = String::with_capacity(line.len());
    let (mut at, mut changed) = (0, false);
    let mut is_comment = false;
    for range in fields(line) {
        let word = line.get(range.clone())?;
        is_comment |= word.starts_with('#');
        let Some(new) = change(word).filter(|_| !is_comment) else { continue };
        let before = line.get(at..range.start)?;
        out.push_str(if new.is_empty() { before.trim_end_matches([' ', '\t']) } else { before });
        out.push_str(new);
        (at, changed) = (range.end, true);
    }
    // What goes on over several lines must still begin with a blank.
    let goes_on = line.starts_with([' ', '\t']) && !out.starts_with([' ', '\t']) && at > 0;
    out.push_str(line.get(at..)?);
    changed.then(|| if goes_on { format!(" {}", out.trim_start()) } else { out })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_are_found_on_any_disk() {
        for (before, after) in [
            ("DEVICE /dev/sda1 /dev/sdb1\n", "DEVICE partitions\n"),
            ("DEVICE partitions containers\n", "DEVICE partitions containers\n"),
            ("DEVICE partitions /dev/sd*\n", "DEVICE partitions\n"),
            ("dev /dev/sd[ab]* containers # /dev/sda\n", "dev partitions containers # /dev/sda\n"),
            ("DEVICE /dev/sda1\n  /dev/sdb1\n\t/dev/sdc1 containers\n", "DEVICE partitions\n \n containers\n"),
            ("DEVICE\n  /dev/sda1 /dev/sdb1\n", "DEVICE\n  partitions\n"),
            ("DEVICE /dev/disk/by-path/pci-0 /dev/loop0\n", "DEVICE partitions /dev/loop0\n"),
            ("ARRAY /dev/md0 devices=/dev/sda1,/dev/sdb1 UUID=a:b:c:d\n", "ARRAY /dev/md0 UUID=a:b:c:d\n"),
            (
                "ARRAY /dev/md0 level=raid1\n   devices=/dev/sda1,/dev/sdb1\n   uuid=a:b\n",
                "ARRAY /dev/md0 level=raid1\n \n   uuid=a:b\n",
            ),
            ("ARRAY /dev/md0 devices=/dev/sda1\n", "ARRAY /dev/md0 devices=/dev/sda1\n"),
            (
                "# DEVICE /dev/sda\nMAILADDR root\nHOMEHOST <system>\n",
                "# DEVICE /dev/sda\nMAILADDR root\nHOMEHOST <system>\n",
            ),
            ("", ""),
        ] {
            let edited = edit(before.as_bytes());
            assert_eq!(String::from_utf8(edited.content.clone()).unwrap(), after, "{before}");
            assert_eq!(edit(&edited.content).content, edited.content, "{before}");
        }
        assert_eq!(edit(b"\nARRAY /dev/md0 devices=/dev/sda1\n").kept, [2]);
    }

    #[test]
    fn hostile_files_stay() {
        for content in [b"\xff\xfe\0\n DEVICE".as_slice(), b"DEV\n\n\n \n", b" /dev/sda", b"DEVICE #/dev/sda", b"=\n=="]
        {
            assert_eq!(edit(content).content, content);
        }
    }
}
