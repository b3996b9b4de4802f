//! What a boot loader starts when nobody chooses.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::cmp::Ordering;

use globset::GlobBuilder;

use super::parse::{cut_word, shell_words};
use super::version::compare;
use super::{BootEntry, Bootloader, BootloaderKind, Step, others};
use crate::error::Result;
use crate::inspect::Reader;
use crate::inspect::os::bounded;

/// What a configuration says is to be booted, as written, variables of GRUB's environment block put in.
pub(super) fn wanted(bootloader: &Bootloader, text: &str) -> Option<String> {
    let value = match bootloader.kind {
        BootloaderKind::Grub2 => grub2(bootloader, text),
        BootloaderKind::GrubLegacy | BootloaderKind::SystemdBoot | BootloaderKind::Extlinux => setting(text, "default"),
        BootloaderKind::Lilo => setting(text, "default").or_else(|| setting(text, "default=")),
        BootloaderKind::Limine | BootloaderKind::Refind | BootloaderKind::Zipl => others::wanted(bootloader, text),
        BootloaderKind::Bls | BootloaderKind::Uki => None,
    };
    value.map(|value| bounded(&value)).filter(|value| !value.is_empty())
}

/// `KEY VALUE` or `KEY=VALUE`, in any case; the last one counts.
fn setting(text: &str, key: &str) -> Option<String> {
    let mut lines = text.lines().filter_map(|line| {
        let line = line.trim();
        let rest =
            line.get(key.len()..).filter(|_| line.get(..key.len()).is_some_and(|at| at.eq_ignore_ascii_case(key)))?;
        let is_end = rest.starts_with([' ', '\t', '=']);
        let value = rest.trim_start_matches([' ', '\t', '=']).trim_end();
        (is_end && !value.is_empty()).then(|| value.trim_matches('"').to_owned())
    });
    lines.next_back()
}

/// `set default=` of `grub.cfg`: what is for the next boot only, if anything is, else the last one.
fn grub2(bootloader: &Bootloader, text: &str) -> Option<String> {
    let variable = |name: &str| bootloader.variables.get(name).filter(|value| !value.is_empty()).cloned();
    let mut next = None;
    let mut last = None;
    for line in text.lines() {
        let words = shell_words(line.trim());
        let value = match words.as_slice() {
            [set, value, ..] if set == "set" => value.strip_prefix("default="),
            _ => None,
        };
        let Some(value) = value else { continue };
        let name = value.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')).or_else(|| value.strip_prefix('$'));
        match name {
            Some("next_entry") => next = variable("next_entry"),
            Some(name) => last = variable(name).or(last),
            None => last = Some(value.to_owned()),
        }
    }
    next.or(last)
}

/// What must be known of a configuration's text when all entries are there.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Menu {
    /// Whether GRUB takes in the entries of the Boot Loader Specification.
    has_bls: bool,
    /// Whether the text has an entry of the name that is to be booted.
    has_wanted: bool,
}

impl Menu {
    pub(super) fn of(bootloader: &Bootloader, text: &str) -> Self {
        let wanted = bootloader.default.as_deref().and_then(|wanted| wanted.rsplit('>').next());
        Self {
            has_bls: text.lines().any(|line| cut_word(line).0 == "blscfg"),
            has_wanted: wanted.is_some_and(|wanted| text.contains(wanted.trim())),
        }
    }
}

/// Marks the entry that `bootloader` starts by default.
pub(super) fn mark(reader: &mut Reader<'_>, bootloader: &Bootloader, menu: &Menu, all: &mut [BootEntry]) -> Result<()> {
    let wanted = bootloader.default.as_deref();
    let own: Vec<usize> = places(all, |entry| entry.config == bootloader.config && entry.kind == bootloader.kind);
    let found = match bootloader.kind {
        BootloaderKind::Grub2 => {
            let own = if menu.has_bls { [sorted(all, is_bls), own.clone()].concat() } else { own.clone() };
            in_menu(all, &own, wanted.unwrap_or("0"), *menu)
        }
        BootloaderKind::GrubLegacy => {
            let saved = match wanted {
                Some("saved") => reader.text("/boot/grub/default")?.unwrap_or_default(),
                other => other.unwrap_or("0").to_owned(),
            };
            let index = saved.lines().next().and_then(|line| line.trim().parse::<usize>().ok()).unwrap_or(0);
            find(all, &own, |entry| entry.place.first().is_some_and(|step| step.index == index))
        }
        BootloaderKind::Extlinux | BootloaderKind::Lilo => {
            let named = find(all, &own, |entry| entry.id.is_some() && entry.id.as_deref() == wanted);
            let marked = find(all, &own, |entry| entry.default);
            named.or(marked).or_else(|| own.first().copied())
        }
        BootloaderKind::SystemdBoot => {
            let own = sorted(all, |entry| is_bls(entry) || entry.kind == BootloaderKind::Uki);
            match wanted {
                // What firmware variables say is not on the disk.
                Some("@saved") => None,
                Some(pattern) => matching(all, &own, pattern).or_else(|| own.first().copied()),
                None => own.first().copied(),
            }
        }
        BootloaderKind::Limine | BootloaderKind::Refind | BootloaderKind::Zipl => {
            let found = find(all, &own, |entry| others::is_wanted(entry, wanted));
            found.or_else(|| find(all, &own, |entry| others::is_wanted(entry, None)))
        }
        BootloaderKind::Bls | BootloaderKind::Uki => return Ok(()),
    };
    if bootloader.kind == BootloaderKind::Extlinux {
        own.iter().filter_map(|index| all.get_mut(*index).map(|entry| entry.default = false)).for_each(drop);
    }
    if let Some(entry) = found.and_then(|index| all.get_mut(index)) {
        entry.default = true;
    }
    Ok(())
}

fn is_bls(entry: &BootEntry) -> bool {
    entry.kind == BootloaderKind::Bls
}

fn places(all: &[BootEntry], belongs: impl Fn(&BootEntry) -> bool) -> Vec<usize> {
    all.iter().enumerate().filter(|(_, entry)| belongs(entry)).map(|(index, _)| index).collect()
}

fn find(all: &[BootEntry], among: &[usize], matches: impl Fn(&BootEntry) -> bool) -> Option<usize> {
    among.iter().copied().find(|index| all.get(*index).is_some_and(&matches))
}

/// Entries in the order of the Boot Loader Specification: those with a sort key first, by key, machine and version, the newest
/// first; the others by file name, the highest first.
fn sorted(all: &[BootEntry], belongs: impl Fn(&BootEntry) -> bool) -> Vec<usize> {
    let mut found: Vec<(usize, &BootEntry)> = all.iter().enumerate().filter(|(_, entry)| belongs(entry)).collect();
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    found.sort_by(|(_, a), (_, b)| {
        let by_key = match (&a.sort.key, &b.sort.key) {
            (Some(_), None) => return Ordering::Less,
            (None, Some(_)) => return Ordering::Greater,
            (None, None) => Ordering::Equal,
            (Some(left), Some(right)) => left
                .cmp(right)
                .then_with(|| a.sort.machine_id.cmp(&b.sort.machine_id))
                .then_with(|| compare(&text(&b.version), &text(&a.version))),
        };
        by_key.then_with(|| compare(&text(&b.id), &text(&a.id)))
    });
    found.into_iter().map(|(index, _)| index).collect()
}

/// The entry that `wanted` leads to: an index, a title or an id for each menu on the way, with `>` between them. An entry that is
/// gone leaves GRUB with the first one; one that is there and boots something else is nobody's here.
fn in_menu(all: &[BootEntry], own: &[usize], wanted: &str, menu: Menu) -> Option<usize> {
    let names: Vec<String> = wanted.replace(">>", "\0").split('>').map(|name| name.trim().replace('\0', ">")).collect();
    let is_step = |step: &Step, name: &String| {
        step.index.to_string() == *name || step.title == *name || step.id.as_ref() == Some(name)
    };
    let leads = |(position, entry): (usize, &BootEntry)| match names.as_slice() {
        // An entry of the Boot Loader Specification stands in the outermost menu.
        [name] if is_bls(entry) => {
            position.to_string() == *name || entry.id.as_ref() == Some(name) || entry.title.as_ref() == Some(name)
        }
        _ => entry.place.len() >= names.len() && names.iter().zip(&entry.place).all(|(name, step)| is_step(step, name)),
    };
    let mut entries = own.iter().enumerate().filter_map(|(position, index)| Some((position, *index, all.get(*index)?)));
    let found = entries.find(|(position, _, entry)| leads((*position, entry))).map(|(_, index, _)| index);
    let last = names.last().map_or("", String::as_str);
    let is_elsewhere = last.bytes().all(|byte| byte.is_ascii_digit()) || menu.has_wanted;
    if found.is_some() || is_elsewhere {
        return found;
    }
    find(all, own, |entry| is_bls(entry) || entry.place.first().is_some_and(|step| step.index == 0))
}

/// The first entry whose file name matches a pattern of loader.conf(5).
fn matching(all: &[BootEntry], own: &[usize], pattern: &str) -> Option<usize> {
    let glob = GlobBuilder::new(pattern).case_insensitive(true).build().ok()?.compile_matcher();
    let names = |entry: &BootEntry| {
        let id = entry.id.clone().unwrap_or_default();
        let end = if entry.kind == BootloaderKind::Uki { ".efi" } else { ".conf" };
        [format!("{id}{end}"), id]
    };
    find(all, own, |entry| names(entry).iter().any(|name| glob.is_match(name)))
}
