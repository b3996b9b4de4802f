//! Boot loaders with configurations of their own kinds: rEFInd, Limine, and zipl of IBM's mainframes.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use super::parse::{command_line, cut_word, shell_words};
use super::{BootEntry, Bootloader, BootloaderKind, Step};
use crate::inspect::os::bounded;
use crate::limits;

/// The entries of one configuration.
pub(super) fn parse(text: &str, bootloader: &Bootloader) -> Vec<BootEntry> {
    let mut entries = match bootloader.kind {
        BootloaderKind::Limine => limine(text, &bootloader.config),
        BootloaderKind::Refind => refind(text, &bootloader.config),
        BootloaderKind::Zipl => zipl(text, &bootloader.config),
        _ => Vec::new(),
    };
    entries.truncate(limits::MAX_BOOT_ENTRIES.saturating_add(1));
    entries
}

/// `menuentry NAME { loader … initrd … options … submenuentry NAME { … } }` of refind.conf. A submenu has what its entry has, but for
/// what it says itself; `add_options` adds to it. In `refind_linux.conf` beside a kernel, lines of a title and options; their kernels
/// are those that rEFInd finds there.
fn refind(text: &str, config: &str) -> Vec<BootEntry> {
    let new = || BootEntry { kind: BootloaderKind::Refind, config: config.to_owned(), ..BootEntry::default() };
    if config.ends_with("/refind_linux.conf") {
        let line = |(index, line): (usize, &str)| {
            let line = line.trim();
            let words = shell_words(line.strip_prefix('"').map_or("", |_| line));
            let [title, options, ..] = words.as_slice() else { return None };
            let (title, options) = (Some(bounded(title)), command_line(options));
            Some(BootEntry { line: index.saturating_add(1), title, options, ..new() })
        };
        return text.lines().enumerate().filter_map(line).take(limits::MAX_BOOT_ENTRIES).collect();
    }
    let mut entries: Vec<BootEntry> = Vec::new();
    let (mut open, mut sub): (Option<BootEntry>, Option<BootEntry>) = (None, None);
    let (mut is_disabled, mut count) = (false, 0_usize);
    for (index, line) in text.lines().enumerate() {
        let words = shell_words(line.trim());
        let (key, values) = words.split_first().map_or(("", [].as_slice()), |(key, values)| (key.as_str(), values));
        let value = values.first().cloned().unwrap_or_default();
        let step = |place: &mut Vec<Step>, index| place.push(Step { index, title: bounded(&value), id: None });
        match key {
            "menuentry" if entries.len() <= limits::MAX_BOOT_ENTRIES => {
                let mut entry = BootEntry { title: Some(bounded(&value)), ..new() };
                step(&mut entry.place, count);
                (open, sub, is_disabled) = (Some(entry), None, false);
                count = count.saturating_add(1);
            }
            "submenuentry" => {
                sub = open.clone().map(|entry| BootEntry { title: Some(bounded(&value)), ..entry });
                sub.iter_mut().for_each(|entry| step(&mut entry.place, 0));
            }
            "}" => match (sub.take(), open.take()) {
                (Some(entry), outer) => {
                    entries.extend(Some(entry).filter(|entry| !entry.kernel.is_empty() && !is_disabled));
                    open = outer;
                }
                (None, outer) => {
                    // The entry itself stands before its submenus.
                    let Some(entry) = outer.filter(|entry| !entry.kernel.is_empty() && !is_disabled) else { continue };
                    let at = entries.iter().position(|known| known.place.first() == entry.place.first());
                    entries.insert(at.unwrap_or(entries.len()), entry);
                }
            },
            "disabled" => is_disabled = true,
            _ => {}
        }
        let Some(entry) = sub.as_mut().or(open.as_mut()) else { continue };
        match key {
            "loader" => (entry.kernel, entry.line) = (value, index.saturating_add(1)),
            "initrd" => entry.initrds = values.iter().take(limits::MAX_BOOT_ENTRIES).cloned().collect(),
            "options" => entry.options = command_line(&value),
            "add_options" => entry.options = command_line(format!("{} {value}", entry.options).trim()),
            _ => {}
        }
    }
    // A program of Windows or a shell is no kernel of Linux.
    entries.retain(|entry| !entry.kernel.to_ascii_lowercase().ends_with(".efi") || !entry.initrds.is_empty());
    entries
}

/// limine.conf: `/Title`, `//Title` below it, `key: value`; limine.cfg of before version 8: `:Title`, `KEY=value`.
fn limine(text: &str, config: &str) -> Vec<BootEntry> {
    let is_old = config.to_ascii_lowercase().ends_with(".cfg");
    let (mark, between) = if is_old { (':', '=') } else { ('/', ':') };
    let mut entries: Vec<BootEntry> = Vec::new();
    let mut open: Option<(BootEntry, bool)> = None;
    let mut hidden_below: Option<usize> = None;
    let mut count = 0_usize;
    let close = |open: &mut Option<(BootEntry, bool)>, entries: &mut Vec<BootEntry>| {
        let entry =
            open.take().filter(|(entry, is_linux)| *is_linux && !entry.kernel.is_empty()).map(|(entry, _)| entry);
        entries.extend(entry.filter(|_| entries.len() <= limits::MAX_BOOT_ENTRIES));
    };
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(title) = line.strip_prefix(mark) {
            close(&mut open, &mut entries);
            let name = title.trim_start_matches(mark);
            let depth = title.len().saturating_sub(name.len());
            // A plus sign shows what is below; what is hidden has no number.
            let is_hidden = hidden_below.is_some_and(|above| depth > above);
            if !is_hidden {
                hidden_below = (!name.starts_with('+')).then_some(depth);
            }
            let index = if is_hidden { usize::MAX } else { count };
            count = count.saturating_add(usize::from(!is_hidden));
            let title = bounded(name.trim_start_matches('+').trim());
            let place = vec![Step { index, title: title.clone(), id: None }];
            let kind = BootloaderKind::Limine;
            open = Some((
                BootEntry { kind, config: config.to_owned(), title: Some(title), place, ..BootEntry::default() },
                false,
            ));
            continue;
        }
        let Some((key, value)) = line.split_once(between).filter(|_| !line.starts_with('#')) else { continue };
        let (Some((entry, is_linux)), value) = (open.as_mut(), value.trim()) else { continue };
        // A digest of the file may follow its name.
        let file = || value.rsplit_once('#').map_or(value, |(file, _)| file).to_owned();
        match key.trim().to_ascii_lowercase().as_str() {
            "protocol" => *is_linux = value.eq_ignore_ascii_case("linux"),
            "path" | "kernel_path" => (entry.kernel, entry.line) = (file(), index.saturating_add(1)),
            "cmdline" | "kernel_cmdline" => entry.options = command_line(value),
            "module_path" if entry.initrds.len() < limits::MAX_BOOT_ENTRIES => entry.initrds.push(file()),
            _ => {}
        }
    }
    close(&mut open, &mut entries);
    entries
}

/// zipl.conf(5): a section for each configuration, and menus of them.
fn zipl(text: &str, config: &str) -> Vec<BootEntry> {
    let mut entries: Vec<BootEntry> = Vec::new();
    let mut is_open = false;
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with('#')) {
        let line = line.trim();
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            is_open = name.trim() != "defaultboot" && entries.len() <= limits::MAX_BOOT_ENTRIES;
            if is_open {
                let id = Some(bounded(name.trim()));
                let (title, kind) = (id.clone(), BootloaderKind::Zipl);
                entries.push(BootEntry { kind, config: config.to_owned(), id, title, ..BootEntry::default() });
            }
            continue;
        }
        is_open &= !line.starts_with(':');
        let Some((key, value)) = line.split_once('=').filter(|_| is_open) else { continue };
        let (Some(entry), value) = (entries.last_mut(), value.trim().trim_matches('"')) else { continue };
        // An address in memory may follow the name of a file.
        let file = || value.split(',').next().unwrap_or_default().to_owned();
        match key.trim() {
            "image" => (entry.kernel, entry.line) = (file(), index.saturating_add(1)),
            "ramdisk" => entry.initrds = vec![file()],
            "parameters" => entry.options = command_line(value),
            _ => {}
        }
    }
    // Dumps and what is loaded from other disks have no kernel here.
    entries.retain(|entry| !entry.kernel.is_empty());
    entries
}

/// What a configuration says is to be booted, as written.
pub(super) fn wanted(bootloader: &Bootloader, text: &str) -> Option<String> {
    let value = |line: &str, between: &[char], key: &str| {
        let (found, value) = line.trim().split_once(between)?;
        found.trim().eq_ignore_ascii_case(key).then(|| value.trim().trim_matches('"').to_owned())
    };
    let mut section = "";
    let mut found = None;
    for line in text.lines() {
        let line = line.trim();
        if line.starts_with(['[', ':', '/']) {
            section = line;
        }
        found = match bootloader.kind {
            BootloaderKind::Limine if section.is_empty() => value(line, &[':', '='], "default_entry"),
            BootloaderKind::Refind if cut_word(line).0 == "default_selection" => {
                shell_words(line).get(1).map(|value| value.trim_end_matches(',').to_owned())
            }
            BootloaderKind::Zipl if section == "[defaultboot]" => value(line, &['='], "default"),
            _ => None,
        }
        .or(found);
    }
    found
}

/// Whether an entry is what `wanted` means; without that, whether it is the one to start.
pub(super) fn is_wanted(entry: &BootEntry, wanted: Option<&str>) -> bool {
    let title = entry.title.as_deref().unwrap_or_default();
    let index = entry.place.first().map_or(0, |step| step.index);
    match (entry.kind, wanted) {
        // From 1.
        (BootloaderKind::Limine, Some(wanted)) => {
            wanted.rsplit('/').next() == Some(title) || wanted.parse() == Ok(index.saturating_add(1))
        }
        // Parts of titles, several of them apart by commas; a plus sign is what was booted last, which the firmware knows.
        (BootloaderKind::Refind, Some(wanted)) => {
            wanted.split(',').map(str::trim).any(|part| !part.is_empty() && part != "+" && title.contains(part))
        }
        (BootloaderKind::Zipl, Some(wanted)) => entry.id.as_deref() == Some(wanted),
        (_, None) => entry.kind != BootloaderKind::Refind,
        _ => false,
    }
}
