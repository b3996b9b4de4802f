//! Kernels that can be booted, with their initramfs images and their modules.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::io::Read;

use serde::Serialize;

use super::Reader;
use super::bootloader::{BootEntry, BootloaderKind, locate};
use crate::error::Result;
use crate::fs::{FileKind, Tree};
use crate::initramfs::modules::modules_dir;
use crate::limits;

/// A bootable kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Kernel {
    /// The kernel image.
    pub image: String,
    /// Its release (`uname -r`), where the file name or header tells.
    pub release: Option<String>,
    /// Its initramfs images; microcode and the like may be among them.
    pub initramfs: Vec<String>,
    /// The directory of its modules.
    pub modules: Option<String>,
    /// Whether it is a unified kernel image, which has its initramfs inside.
    pub unified: bool,
    /// Whether it is what a boot loader starts when nobody chooses.
    pub default: bool,
}

const KERNEL_NAMES: &[&str] = &["vmlinuz-", "vmlinux-", "kernel-", "bzImage-", "Image-", "linux-"];
const INITRAMFS_NAMES: &[(&str, &str)] = &[
    ("initrd.img-", ""),
    ("initramfs-", ".img"),
    ("initrd-", ""),
    ("initrd-", ".img"),
    ("initramfs-", ""),
    ("initramfs-", "-fallback.img"),
];

/// Kernels of the boot entries first, then those that only lie in `/boot`.
pub(super) fn find(reader: &mut Reader<'_>, entries: &[BootEntry]) -> Result<Vec<Kernel>> {
    let mut kernels: Vec<Kernel> = Vec::new();
    for entry in entries {
        let Some(image) = file(reader.tree, &entry.kernel)? else { continue };
        let mut initramfs = Vec::new();
        for initrd in &entry.initrds {
            initramfs.extend(file(reader.tree, initrd)?);
        }
        merge(reader.tree, &mut kernels, image, initramfs, entry)?;
    }
    for listed in reader.tree.list("/boot")? {
        let Some(name) = listed.text().filter(|_| listed.kind == FileKind::Regular) else { continue };
        if let Some(suffix) = KERNEL_NAMES.iter().find_map(|prefix| name.strip_prefix(prefix)) {
            let Some(image) = file(reader.tree, &format!("/boot/{name}"))? else { continue };
            let initramfs = siblings(reader.tree, suffix)?;
            merge(reader.tree, &mut kernels, image, initramfs, &BootEntry::default())?;
        }
    }
    if kernels.len() > limits::MAX_KERNELS {
        reader.notes.push(format!("only the first {} kernels are considered", limits::MAX_KERNELS));
        kernels.truncate(limits::MAX_KERNELS);
    }
    Ok(kernels)
}

/// Adds what is known of a kernel to what is known of it already.
fn merge(
    tree: &Tree,
    kernels: &mut Vec<Kernel>,
    image: String,
    initramfs: Vec<String>,
    entry: &BootEntry,
) -> Result<()> {
    let unified = entry.kind == BootloaderKind::Uki;
    let place = match kernels.iter().position(|kernel| kernel.image == image) {
        Some(place) => place,
        None => {
            let release = if unified { entry.version.clone() } else { release(tree, &image)? };
            let modules = match &release {
                Some(release) => modules_dir(tree, release)?,
                None => None,
            };
            kernels.push(Kernel { image, release, modules, unified, ..Kernel::default() });
            kernels.len().saturating_sub(1)
        }
    };
    let Some(kernel) = kernels.get_mut(place) else { return Ok(()) };
    kernel.default |= entry.default;
    for path in initramfs {
        if !kernel.initramfs.contains(&path) {
            kernel.initramfs.push(path);
        }
    }
    Ok(())
}

fn file(tree: &Tree, path: &str) -> Result<Option<String>> {
    let found = locate(tree, path)?.filter(|found| found.stat.kind == FileKind::Regular);
    Ok(found.and_then(|found| found.text().map(str::to_owned)))
}

fn siblings(tree: &Tree, suffix: &str) -> Result<Vec<String>> {
    let mut images = Vec::new();
    for (prefix, end) in INITRAMFS_NAMES {
        let path = format!("/boot/{prefix}{suffix}{end}");
        if tree.is_file(&path)? {
            images.extend(file(tree, &path)?);
        }
    }
    Ok(images)
}

/// The file name's end when there are modules for it, else what the kernel's header says, else the file name's end.
fn release(tree: &Tree, image: &str) -> Result<Option<String>> {
    let name = image.rsplit('/').next().unwrap_or_default();
    let by_name = KERNEL_NAMES.iter().find_map(|prefix| name.strip_prefix(prefix)).map(str::to_owned);
    if let Some(release) = &by_name
        && modules_dir(tree, release)?.is_some()
    {
        return Ok(by_name);
    }
    Ok(header_release(tree, image)?.or(by_name))
}

/// The release in an x86 kernel's setup header (`kernel_version` of the boot protocol).
fn header_release(tree: &Tree, image: &str) -> Result<Option<String>> {
    let Some(file) = tree.open(image)? else { return Ok(None) };
    let mut start = Vec::new();
    if file.take(SETUP).read_to_end(&mut start).is_err() {
        return Ok(None);
    }
    Ok(parse_header(&start))
}

/// Enough for the header and the largest 16-bit offset in it.
const SETUP: u64 = 0x200 + 0x10000 + 256;

fn parse_header(start: &[u8]) -> Option<String> {
    if start.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let pointer = u16::from_le_bytes(start.get(0x20e..0x210)?.try_into().ok()?);
    let text = start.get(usize::from(pointer).checked_add(0x200)?..)?;
    let end = text.iter().take(128).position(|byte| matches!(byte, 0 | b' '))?;
    let release = std::str::from_utf8(text.get(..end)?).ok()?;
    let plain = release.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_+~".contains(&byte));
    Some(release.to_owned()).filter(|release| plain && !release.is_empty())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::fs::MemoryFs;

    pub(crate) fn bzimage(release: &str) -> Vec<u8> {
        let mut image = vec![0; 0x400];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x20e..0x210].copy_from_slice(&0x100_u16.to_le_bytes());
        let text = format!("{release} (builder@host)");
        image[0x300..][..text.len()].copy_from_slice(text.as_bytes());
        image
    }

    #[test]
    fn joins_boot_entries_and_what_lies_in_boot() {
        let fs = MemoryFs::default();
        fs.add_file("/boot/vmlinuz-6.1", "").unwrap();
        fs.add_file("/boot/initrd.img-6.1", "").unwrap();
        fs.add_file("/boot/vmlinuz-5.10", "").unwrap();
        fs.add_file("/boot/initramfs-5.10.img", "").unwrap();
        fs.add_file("/boot/initramfs-5.10kdump.img", "").unwrap();
        fs.add_file("/boot/ucode.img", "").unwrap();
        fs.add_file("/boot/vmlinuz-linux", bzimage("6.9.1-arch1-1")).unwrap();
        fs.add_file("/boot/initramfs-linux.img", "").unwrap();
        fs.add_link("/boot/vmlinuz", "vmlinuz-6.1").unwrap();
        fs.add_dir("/usr/lib/modules/6.1").unwrap();
        fs.add_dir("/usr/lib/modules/6.9.1-arch1-1").unwrap();
        fs.add_link("/lib", "usr/lib").unwrap();
        let tree = Tree::new(Arc::new(fs));
        let entry = BootEntry {
            kernel: "/boot/vmlinuz".to_owned(),
            initrds: vec!["/ucode.img".to_owned(), "/initrd.img-6.1".to_owned(), "/gone".to_owned()],
            default: true,
            ..BootEntry::default()
        };
        let kernels = find(&mut Reader { tree: &tree, notes: Vec::new() }, &[entry.clone(), entry]).unwrap();
        let short: Vec<_> = kernels
            .iter()
            .map(|kernel| {
                (kernel.image.as_str(), kernel.release.as_deref(), kernel.initramfs.len(), kernel.modules.as_deref())
            })
            .collect();
        assert_eq!(
            short,
            [
                ("/boot/vmlinuz-6.1", Some("6.1"), 2, Some("/usr/lib/modules/6.1")),
                ("/boot/vmlinuz-5.10", Some("5.10"), 1, None),
                ("/boot/vmlinuz-linux", Some("6.9.1-arch1-1"), 1, Some("/usr/lib/modules/6.9.1-arch1-1")),
            ]
        );
    }

    #[test]
    fn a_unified_image_is_a_kernel_with_its_own_release() {
        let fs = MemoryFs::default();
        fs.add_file("/efi/EFI/Linux/arch.efi", bzimage("1.1")).unwrap();
        fs.add_dir("/lib/modules/6.9").unwrap();
        let tree = Tree::new(Arc::new(fs));
        let path = "/efi/EFI/Linux/arch.efi".to_owned();
        let entry = BootEntry {
            kind: BootloaderKind::Uki,
            kernel: path.clone(),
            version: Some("6.9".to_owned()),
            ..BootEntry::default()
        };
        let kernels = find(&mut Reader { tree: &tree, notes: Vec::new() }, &[entry]).unwrap();
        let modules = Some("/lib/modules/6.9".to_owned());
        let wanted =
            Kernel { image: path, release: Some("6.9".to_owned()), modules, unified: true, ..Kernel::default() };
        assert_eq!(kernels, [wanted]);
    }

    #[test]
    fn a_hostile_header_gives_no_release() {
        let good = bzimage("6.1");
        assert_eq!(parse_header(&good).as_deref(), Some("6.1"));
        for cut in 0..0x304 {
            assert!(parse_header(&good[..cut]).is_none_or(|release| release == "6.1"), "{cut}");
        }
        let mut far = good.clone();
        far[0x20e..0x210].copy_from_slice(&[0xff, 0xff]);
        assert_eq!(parse_header(&far), None);
        assert_eq!(parse_header(&bzimage("../../etc")), None);
        assert_eq!(parse_header(&bzimage("")), None);
    }
}
