//! Boot loaders: which there are, which files configure them, and what those files boot.
//!
//! GRUB 2 (`grub.cfg`), GRUB Legacy (`menu.lst`), Boot Loader Specification entries, extlinux. Scripts are not run: a line
//! that starts a kernel is taken as it stands.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use serde::Serialize;

use super::Reader;
use super::os::shell_value;
use crate::error::Result;
use crate::fs::Tree;
use crate::fs::tree::Found;
use crate::limits;

/// A boot loader's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Bootloader {
    /// Which boot loader.
    pub kind: BootloaderKind,
    /// The file that configures it; for Boot Loader Specification entries, one of them.
    pub config: String,
}

/// A boot loader, or a form of its configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BootloaderKind {
    /// A Boot Loader Specification entry, read by systemd-boot and by Fedora's GRUB.
    Bls,
    /// SYSLINUX and its relatives.
    Extlinux,
    /// GRUB 2.
    Grub2,
    /// GRUB 0.97.
    GrubLegacy,
    /// A unified kernel image: kernel, command line and initramfs in one EFI program.
    Uki,
}

/// One kernel that a boot loader can start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BootEntry {
    /// The file that says so.
    pub config: String,
    /// The line that names the kernel, from 1.
    pub line: usize,
    /// The menu title.
    pub title: Option<String>,
    /// The kernel as written.
    pub kernel: String,
    /// Initramfs images as written.
    pub initrds: Vec<String>,
    /// The kernel's command line as written.
    pub options: String,
}

const FIXED: &[(BootloaderKind, &str)] = &[
    (BootloaderKind::Grub2, "/boot/grub/grub.cfg"),
    (BootloaderKind::Grub2, "/boot/grub2/grub.cfg"),
    (BootloaderKind::Grub2, "/boot/grub/custom.cfg"),
    (BootloaderKind::Grub2, "/boot/grub2/custom.cfg"),
    (BootloaderKind::GrubLegacy, "/boot/grub/grub.conf"),
    (BootloaderKind::GrubLegacy, "/boot/grub/menu.lst"),
    (BootloaderKind::Extlinux, "/boot/extlinux/extlinux.conf"),
    (BootloaderKind::Extlinux, "/boot/extlinux.conf"),
    (BootloaderKind::Extlinux, "/boot/syslinux/syslinux.cfg"),
];

pub(super) fn find(reader: &mut Reader<'_>) -> Result<Vec<Bootloader>> {
    let mut found: Vec<Bootloader> = Vec::new();
    let mut add = |tree: &Tree, kind, path: &str| -> Result<()> {
        let Some(config) = tree.find(path)?.and_then(|found| found.text().map(str::to_owned)) else { return Ok(()) };
        if tree.is_file(&config)? && found.iter().all(|known| known.config != config) {
            found.push(Bootloader { kind, config });
        }
        Ok(())
    };
    for (kind, path) in FIXED {
        add(reader.tree, *kind, path)?;
    }
    for esp in ["/boot/efi", "/efi", "/boot"] {
        for vendor in reader.tree.list(format!("{esp}/EFI"))? {
            if let Some(name) = vendor.text() {
                add(reader.tree, BootloaderKind::Grub2, &format!("{esp}/EFI/{name}/grub.cfg"))?;
            }
        }
        for path in reader.files(&format!("{esp}/EFI/Linux"), ".efi")? {
            add(reader.tree, BootloaderKind::Uki, &path)?;
        }
        for path in reader.files(&format!("{esp}/loader/entries"), ".conf")? {
            add(reader.tree, BootloaderKind::Bls, &path)?;
        }
    }
    Ok(found)
}

pub(super) fn entries(reader: &mut Reader<'_>, bootloaders: &[Bootloader]) -> Result<Vec<BootEntry>> {
    let mut all = Vec::new();
    for bootloader in bootloaders {
        if bootloader.kind == BootloaderKind::Uki {
            continue;
        }
        let Some(text) = reader.text(&bootloader.config)? else { continue };
        all.extend(parse(&text, bootloader));
        if all.len() > limits::MAX_BOOT_ENTRIES {
            all.truncate(limits::MAX_BOOT_ENTRIES);
            reader.notes.push(format!("only the first {} boot entries are considered", limits::MAX_BOOT_ENTRIES));
            break;
        }
    }
    Ok(all)
}

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
            _ => Self::Other,
        }
    }
}

/// The entries of one configuration. Xen's `module` lines name kernels and initramfs images alike; a kernel is one that has
/// a command line. Where the order of an entry's lines is free, what stands before its kernel counts as well.
pub(crate) fn parse(text: &str, bootloader: &Bootloader) -> Vec<BootEntry> {
    let kind = bootloader.kind;
    let mut entries: Vec<BootEntry> = Vec::new();
    // What the present entry has, and whether its kernel was named.
    let mut open = BootEntry { config: bootloader.config.clone(), ..BootEntry::default() };
    let mut has_kernel = false;
    for (index, line) in text.lines().enumerate() {
        let (word, rest) = cut_word(line);
        let keyword = Keyword::of(kind, line);
        match keyword {
            Keyword::Title if kind == BootloaderKind::Bls => {
                open.title = Some(rest.trim().to_owned());
                entries.iter_mut().for_each(|entry| entry.title.clone_from(&open.title));
                continue;
            }
            Keyword::Title => {
                let title = if kind == BootloaderKind::Grub2 { shell_value(rest) } else { rest.trim().to_owned() };
                open = BootEntry { config: open.config, title: Some(title), ..BootEntry::default() };
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
            Keyword::Other => continue,
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

/// The file that a boot loader means by `path`: paths are relative to the file system that it boots from, which is `/boot`
/// or the root, and on btrfs may start with a subvolume.
pub(crate) fn locate(tree: &Tree, path: &str) -> Result<Option<Found>> {
    let path = path.rsplit_once(')').map_or(path, |(_, path)| path);
    let has_boot = tree.mounts().any(|(at, _)| at == b"/boot");
    let prefixes = if has_boot { ["/boot", "", "/boot/efi", "/efi"] } else { ["", "/boot", "/boot/efi", "/efi"] };
    let mut rest = path.trim_start_matches('/');
    for _ in 0..3 {
        for prefix in prefixes {
            if let Some(found) = tree.find(format!("{prefix}/{rest}"))? {
                return Ok(Some(found));
            }
        }
        match rest.split_once('/') {
            Some((_, after)) => rest = after.trim_start_matches('/'),
            None => break,
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::fs::MemoryFs;

    fn parse_as(kind: BootloaderKind, text: &str) -> Vec<BootEntry> {
        parse(text, &Bootloader { kind, config: "/c".to_owned() })
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

    #[test]
    fn finds_files_where_the_boot_loader_would() {
        let root = MemoryFs::default();
        root.add_file("/boot/vmlinuz-6", "").unwrap();
        root.add_link("/vmlinuz", "boot/vmlinuz-6").unwrap();
        let tree = Tree::new(Arc::new(root));
        for path in [
            "/boot/vmlinuz-6",
            "/vmlinuz-6",
            "/vmlinuz",
            "(hd0,1)/boot/vmlinuz-6",
            "/@/boot/vmlinuz-6",
            "/@/x/boot/vmlinuz-6",
        ] {
            let found = locate(&tree, path).unwrap().unwrap();
            assert_eq!(found.path, b"/boot/vmlinuz-6", "{path}");
        }
        assert!(locate(&tree, "/nothing").unwrap().is_none());
    }
}
