//! The lines of boot loaders' configurations.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use super::{BootEntry, Bootloader, BootloaderKind, Step};
use crate::inspect::os::{bounded, shell_value};
use crate::limits;

/// What a line of a boot loader's configuration does. Keywords stand first on a line in all of these formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keyword {
    /// Names a kernel; a command line may follow.
    Kernel,
    /// Holds a command line only.
    Options,
    /// Names initramfs images.
    Initrd,
    /// Starts an entry.
    Title,
    /// Anything else.
    Other,
}

impl Keyword {
    /// The keyword that starts `line`.
    pub(crate) fn of(kind: BootloaderKind, line: &str) -> Self {
        let word = line.split_ascii_whitespace().next().unwrap_or_default();
        match (kind, word) {
            (BootloaderKind::Grub2, "linux" | "linux16" | "linuxefi" | "module" | "module2") => Self::Kernel,
            (BootloaderKind::Grub2, "initrd" | "initrd16" | "initrdefi") => Self::Initrd,
            (BootloaderKind::Grub2, "menuentry") => Self::Title,
            (BootloaderKind::GrubLegacy, "kernel" | "module") => Self::Kernel,
            (BootloaderKind::GrubLegacy, "initrd") => Self::Initrd,
            (BootloaderKind::GrubLegacy, "title") => Self::Title,
            (BootloaderKind::Bls, "linux") => Self::Kernel,
            (BootloaderKind::Bls, "options") => Self::Options,
            (BootloaderKind::Bls, "initrd") => Self::Initrd,
            (BootloaderKind::Bls, "title") => Self::Title,
            (BootloaderKind::Extlinux, _) => match word.to_ascii_lowercase().as_str() {
                "kernel" | "linux" => Self::Kernel,
                "append" => Self::Options,
                "initrd" => Self::Initrd,
                "label" => Self::Title,
                _ => Self::Other,
            },
            (BootloaderKind::Refind, "loader") => Self::Kernel,
            (BootloaderKind::Refind, "options" | "add_options") => Self::Options,
            (BootloaderKind::Refind, "initrd") => Self::Initrd,
            (BootloaderKind::Refind, "menuentry" | "submenuentry") => Self::Title,
            (BootloaderKind::Refind, word) if word.starts_with('"') => Self::Options,
            (BootloaderKind::Limine, _) => match word.to_ascii_lowercase().as_str() {
                "cmdline:" | "kernel_cmdline:" => Self::Options,
                _ => Self::Other,
            },
            (BootloaderKind::Lilo, _) => match word.split('=').next().unwrap_or_default() {
                "image" => Self::Kernel,
                "append" | "root" => Self::Options,
                "initrd" => Self::Initrd,
                "label" => Self::Title,
                _ => Self::Other,
            },
            _ => Self::Other,
        }
    }
}

/// The entries of one configuration. Xen's `module` lines name kernels and initramfs images alike; a kernel is one that has
/// a command line. Where the order of an entry's lines is free, what stands before its kernel counts as well.
pub(crate) fn parse(text: &str, bootloader: &Bootloader) -> Vec<BootEntry> {
    if bootloader.kind == BootloaderKind::Lilo {
        return lilo(text, &bootloader.config);
    }
    if matches!(bootloader.kind, BootloaderKind::Limine | BootloaderKind::Refind | BootloaderKind::Zipl) {
        return super::others::parse(text, bootloader);
    }
    let kind = bootloader.kind;
    let mut entries: Vec<BootEntry> = Vec::new();
    // What the present entry has, and whether its kernel was named.
    let mut open = BootEntry { kind, config: bootloader.config.clone(), ..BootEntry::default() };
    if kind == BootloaderKind::Bls {
        open.id = file_id(&bootloader.config);
    }
    let mut menus = Menus::default();
    let mut has_kernel = false;
    for (index, line) in text.lines().enumerate() {
        if entries.len() > limits::MAX_BOOT_ENTRIES {
            break;
        }
        let (word, rest) = cut_word(line);
        let keyword = Keyword::of(kind, line);
        if kind == BootloaderKind::Grub2 {
            menus.follow(line);
        }
        match keyword {
            Keyword::Title if kind == BootloaderKind::Bls => {
                open.title = Some(bounded(rest.trim()));
                entries.iter_mut().for_each(|entry| entry.title.clone_from(&open.title));
                continue;
            }
            Keyword::Title => {
                open = BootEntry { kind, config: open.config, ..BootEntry::default() };
                match kind {
                    BootloaderKind::Grub2 => {
                        open.place = menus.place();
                        let own = open.place.last();
                        open.title = own.map(|own| own.title.clone());
                        open.id = own.and_then(|own| own.id.clone());
                    }
                    BootloaderKind::Extlinux => {
                        open.title = Some(bounded(rest.trim()));
                        open.id.clone_from(&open.title);
                    }
                    _ => open.title = Some(bounded(rest.trim())),
                }
                if kind == BootloaderKind::GrubLegacy {
                    open.place = vec![menus.count()];
                }
                has_kernel = false;
                continue;
            }
            Keyword::Kernel => {
                let (path, options) = cut_word(rest);
                let is_image = word.starts_with("module") && options.trim().is_empty();
                if is_image {
                    if let Some(entry) = entries.last_mut().filter(|_| has_kernel) {
                        entry.initrds.push(path.to_owned());
                    }
                    continue;
                }
                let mut entry = if has_kernel {
                    BootEntry { initrds: Vec::new(), options: String::new(), ..open.clone() }
                } else {
                    open.clone()
                };
                entry.line = index.saturating_add(1);
                path.clone_into(&mut entry.kernel);
                add_options(&mut entry, options);
                entries.push(entry);
                has_kernel = true;
                continue;
            }
            Keyword::Options | Keyword::Initrd => {}
            Keyword::Other => {
                let entry = if has_kernel { entries.last_mut() } else { None };
                other(kind, word, rest, entry.unwrap_or(&mut open));
                continue;
            }
        }
        let Some(entry) = (if has_kernel { entries.last_mut() } else { Some(&mut open) }) else { continue };
        if keyword == Keyword::Options {
            add_options(entry, rest);
        } else {
            let words = rest.split([' ', '\t', ',']).filter(|word| !word.is_empty() && !word.starts_with('$'));
            entry.initrds.extend(words.map(str::to_owned));
        }
    }
    entries
}

/// Lines that tell something about an entry beside what it boots.
fn other(kind: BootloaderKind, word: &str, rest: &str, entry: &mut BootEntry) {
    let value = || Some(bounded(rest.trim())).filter(|value| !value.is_empty());
    match (kind, word) {
        (BootloaderKind::Bls, "version") => entry.version = value(),
        (BootloaderKind::Bls, "machine-id") => entry.sort.machine_id = value(),
        (BootloaderKind::Bls, "sort-key") => entry.sort.key = value(),
        (BootloaderKind::Bls, "id") => {}
        (BootloaderKind::Extlinux, word) if word.eq_ignore_ascii_case("menu") => {
            let (what, rest) = cut_word(rest);
            if what.eq_ignore_ascii_case("label") && !rest.trim().is_empty() {
                entry.title = Some(bounded(&rest.trim().replace('^', "")));
            } else if what.eq_ignore_ascii_case("default") {
                entry.default = true;
            }
        }
        _ => {}
    }
}

/// A file name without its end, and without the counters of boot attempts (`+3-1`).
pub(super) fn file_id(config: &str) -> Option<String> {
    let name = config.rsplit('/').next()?;
    let name = name.strip_suffix(".conf").or_else(|| name.strip_suffix(".efi")).unwrap_or(name);
    let is_counter = |end: &str| !end.is_empty() && end.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    let name = name.rsplit_once('+').filter(|(_, end)| is_counter(end)).map_or(name, |(name, _)| name);
    Some(name.to_owned()).filter(|name| !name.is_empty())
}

/// Menus deeper than this are not told apart.
const DEEPEST_MENU: usize = 8;

/// Where in GRUB's menus a line stands. Blocks begin with a line that ends in `{` and end with `}`.
#[derive(Default)]
struct Menus {
    /// Open blocks; `None` for one that is no menu.
    open: Vec<Option<Step>>,
    /// Open blocks inside of those that are not told apart.
    deeper: usize,
    /// How many entries each open menu has so far, the outermost first.
    counts: Vec<usize>,
}

impl Menus {
    fn follow(&mut self, line: &str) {
        let line = line.trim();
        let word = line.split_ascii_whitespace().next().unwrap_or_default();
        if matches!(word, "menuentry" | "submenu") {
            let index = self.count().index;
            let words = shell_words(line);
            let id = words.iter().position(|word| word == "--id" || word == "$menuentry_id_option");
            let id = id.and_then(|at| words.get(at.saturating_add(1)).cloned());
            let id = id.or_else(|| words.iter().find_map(|word| word.strip_prefix("--id=").map(str::to_owned)));
            let title = words.get(1).map(|title| bounded(title)).unwrap_or_default();
            self.push(Some(Step { index, title, id: id.map(|id| bounded(&id)) }));
            if !line.ends_with('{') && line.ends_with('}') {
                self.pop();
            }
        } else if line.ends_with('{') {
            self.push(None);
        } else if line.starts_with('}') {
            self.pop();
        }
    }

    fn push(&mut self, step: Option<Step>) {
        if self.open.len() < DEEPEST_MENU {
            self.open.push(step);
        } else {
            self.deeper = self.deeper.saturating_add(1);
        }
    }

    fn pop(&mut self) {
        match self.deeper.checked_sub(1) {
            Some(deeper) => self.deeper = deeper,
            None => drop(self.open.pop()),
        }
    }

    /// The next place in the menu that is open, which is taken with this.
    fn count(&mut self) -> Step {
        let depth = self.open.iter().flatten().count();
        self.counts.truncate(depth.saturating_add(1));
        self.counts.resize(depth.saturating_add(1), 0);
        let Some(next) = self.counts.last_mut() else { return Step::default() };
        let index = *next;
        *next = index.saturating_add(1);
        Step { index, ..Step::default() }
    }

    fn place(&self) -> Vec<Step> {
        self.open.iter().flatten().cloned().collect()
    }
}

/// The words of a line as a shell would split them: quotes hold blanks, backslashes are resolved.
pub(super) fn shell_words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (None, ' ' | '\t') => words.extend(word.take()),
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (Some(open), _) if open == c => quote = None,
            (None | Some('"'), '\\') => word.get_or_insert_default().extend(chars.next()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// LILO's configuration: `key=value` lines, of which those before the first `image=` count for all.
fn lilo(text: &str, config: &str) -> Vec<BootEntry> {
    let mut entries: Vec<BootEntry> = Vec::new();
    let mut common = BootEntry { kind: BootloaderKind::Lilo, config: config.to_owned(), ..BootEntry::default() };
    let mut is_other = false;
    for (index, line) in text.lines().enumerate() {
        let (key, value) = line.trim().split_once('=').unwrap_or((line.trim(), ""));
        let (key, value) = (key.trim(), shell_value(value));
        match key {
            "image" => {
                if entries.len() > limits::MAX_BOOT_ENTRIES {
                    break;
                }
                is_other = false;
                entries.push(BootEntry { line: index.saturating_add(1), kernel: value, ..common.clone() });
                continue;
            }
            "other" => is_other = true,
            _ => {}
        }
        if is_other {
            continue;
        }
        let entry = entries.last_mut().unwrap_or(&mut common);
        match key {
            "label" => {
                entry.id = Some(bounded(&value));
                entry.title.clone_from(&entry.id);
            }
            "initrd" => entry.initrds = vec![value],
            "root" => set_option(entry, "root", &value),
            "append" | "addappend" => {
                let words = entry.options.split_ascii_whitespace().filter(|word| word.starts_with("root="));
                let root: Vec<&str> = words.collect();
                entry.options = format!("{} {}", root.join(" "), command_line(&value)).trim().to_owned();
            }
            _ => {}
        }
    }
    entries
}

/// As much of a command line as any kernel takes.
pub(super) fn command_line(text: &str) -> String {
    text.chars().take(4096).collect()
}

fn set_option(entry: &mut BootEntry, key: &str, value: &str) {
    let others = entry.options.split_ascii_whitespace().filter(|word| word.split('=').next() != Some(key));
    let words: Vec<&str> = others.collect();
    entry.options = format!("{key}={} {}", bounded(value), words.join(" ")).trim().to_owned();
}

fn add_options(entry: &mut BootEntry, options: &str) {
    let joined = format!("{} {}", entry.options, options.trim());
    joined.trim().clone_into(&mut entry.options);
    add_option_initrds(entry);
}

/// extlinux may give the image as `initrd=` on the command line.
fn add_option_initrds(entry: &mut BootEntry) {
    let images = entry.options.split_ascii_whitespace().filter_map(|word| word.strip_prefix("initrd="));
    let images: Vec<String> = images.flat_map(|list| list.split(',')).map(str::to_owned).collect();
    for image in images {
        if !entry.initrds.contains(&image) {
            entry.initrds.push(image);
        }
    }
}

/// The first word of a line and what follows it.
pub(crate) fn cut_word(line: &str) -> (&str, &str) {
    let line = line.trim_start_matches([' ', '\t']);
    match line.find([' ', '\t']) {
        Some(at) => line.split_at(at),
        None => (line.trim_end_matches('\r'), ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_as(kind: BootloaderKind, text: &str) -> Vec<BootEntry> {
        parse(text, &Bootloader { kind, config: "/c".to_owned(), ..Bootloader::default() })
    }

    #[test]
    fn reads_grub2() {
        let entries = parse_as(
            BootloaderKind::Grub2,
            "menuentry 'Debian, with \"x\"' --class debian {\n\tlinux\t/vmlinuz-6 root=/dev/sda1 ro\n\tinitrd /ucode.img /initrd-6 $extra\n}\n\
             menuentry \"Xen\" {\n multiboot2 /xen.gz dom0\n module2 /vmlinuz-6 placeholder root=/dev/sda1\n module2 /initrd-6\n}\n\
             # linux /no\n",
        );
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0].title.as_deref(), Some("Debian, with \"x\""));
        assert_eq!(entries[0].kernel, "/vmlinuz-6");
        assert_eq!(entries[0].initrds, ["/ucode.img", "/initrd-6"]);
        assert_eq!(entries[0].options, "root=/dev/sda1 ro");
        assert_eq!((entries[0].line, entries[1].initrds.as_slice()), (2, ["/initrd-6".to_owned()].as_slice()));
    }

    #[test]
    fn reads_the_other_formats() {
        let bls = "title Fedora\nversion 6\nlinux /vmlinuz-6\ninitrd /initramfs-6.img\noptions root=/dev/sda1 ro\n";
        let entry = &parse_as(BootloaderKind::Bls, bls)[0];
        assert_eq!((entry.title.as_deref(), entry.options.as_str()), (Some("Fedora"), "root=/dev/sda1 ro"));
        let legacy = "default=0\ntitle CentOS\n\troot (hd0,0)\n\tkernel /vmlinuz-2.6 ro root=/dev/sda2\n\tinitrd /initrd-2.6.img\n";
        let entry = &parse_as(BootloaderKind::GrubLegacy, legacy)[0];
        assert_eq!((entry.kernel.as_str(), entry.initrds[0].as_str()), ("/vmlinuz-2.6", "/initrd-2.6.img"));
        let extlinux =
            "LABEL l\n  LINUX ../vmlinuz-lts\n  INITRD ../initramfs-lts\n  APPEND root=/dev/sda3 initrd=a,b\n";
        let entry = &parse_as(BootloaderKind::Extlinux, extlinux)[0];
        assert_eq!(entry.initrds, ["../initramfs-lts", "a", "b"]);
        assert!(parse_as(BootloaderKind::Grub2, "linux\ninitrd x\nlinux /a").len() == 2);
        let bls = "initrd /i\noptions a\nlinux /v\noptions b\ntitle T\n";
        let entry = &parse_as(BootloaderKind::Bls, bls)[0];
        assert_eq!((entry.title.as_deref(), entry.options.as_str(), entry.initrds.len()), (Some("T"), "a b", 1));
        let two = parse_as(BootloaderKind::Extlinux, "label a\nappend x\nlinux /a\nlabel b\nlinux /b\n");
        assert_eq!((two[0].options.as_str(), two[1].options.as_str(), two[1].title.as_deref()), ("x", "", Some("b")));
    }
}
