//! Swap space.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use serde::Serialize;

use super::Reader;
use super::bootloader::BootEntry;
use super::fstab::Entry;
use crate::error::Result;

/// Swap space of a guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Swap {
    /// What is used, as written.
    pub spec: String,
    /// What that is.
    pub kind: SwapKind,
    /// Whether a kernel command line names it as what a hibernated machine wakes from.
    pub resume: bool,
    /// The file that says so.
    pub source: String,
}

/// What swap space is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum SwapKind {
    /// A volume.
    Device,
    /// A file in a file system.
    File,
    /// Compressed memory.
    Zram,
}

pub(super) fn find(reader: &mut Reader<'_>, fstab: &[Entry], entries: &[BootEntry]) -> Result<Vec<Swap>> {
    let words = entries.iter().flat_map(|entry| entry.options.split_ascii_whitespace());
    let resume: Vec<&str> = words.filter_map(|word| word.strip_prefix("resume=")).collect();
    let mut found: Vec<Swap> = Vec::new();
    for entry in fstab.iter().filter(|entry| entry.is_swap()) {
        let is_file = entry.spec.starts_with('/') && !entry.spec.starts_with("/dev/");
        let is_zram = entry.spec.starts_with("/dev/zram");
        found.push(Swap {
            spec: entry.spec.clone(),
            kind: if is_file {
                SwapKind::File
            } else if is_zram {
                SwapKind::Zram
            } else {
                SwapKind::Device
            },
            resume: resume.contains(&entry.spec.as_str()),
            source: "/etc/fstab".to_owned(),
        });
    }
    // A file of the administrator's that says nothing switches off what the distribution says.
    for path in ["/etc/systemd/zram-generator.conf", "/usr/lib/systemd/zram-generator.conf"] {
        let Some(text) = reader.text(path)? else { continue };
        let names = text.lines().filter_map(|line| line.trim().strip_prefix('[')?.strip_suffix(']'));
        let devices = names.filter(|name| name.strip_prefix("zram").is_some_and(|number| number.parse::<u8>().is_ok()));
        found.extend(devices.map(|name| Swap {
            spec: format!("/dev/{name}"),
            kind: SwapKind::Zram,
            resume: false,
            source: path.to_owned(),
        }));
        break;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::fs::{MemoryFs, Tree};
    use crate::inspect::linux;

    #[test]
    fn tells_volumes_files_and_memory_apart() {
        let fs = MemoryFs::default();
        fs.add_file(
            "/etc/fstab",
            "UUID=1 none swap sw\n/swapfile none swap sw\n/dev/zram0 none swap x\nUUID=2 / ext4\n",
        )
        .unwrap();
        fs.add_file("/boot/grub/grub.cfg", "linux /v resume=UUID=1\n").unwrap();
        fs.add_file("/usr/lib/systemd/zram-generator.conf", "[zram0]\nzram-size = 1\n[x]\n[zram999]\n").unwrap();
        let swap = linux(&Tree::new(Arc::new(fs))).unwrap().swap;
        let short: Vec<_> = swap.iter().map(|it| (it.spec.as_str(), it.kind, it.resume)).collect();
        assert_eq!(
            short,
            [
                ("UUID=1", SwapKind::Device, true),
                ("/swapfile", SwapKind::File, false),
                ("/dev/zram0", SwapKind::Zram, false),
                ("/dev/zram0", SwapKind::Zram, false),
            ]
        );
    }
}
