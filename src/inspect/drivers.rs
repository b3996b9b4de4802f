//! Which drivers each kernel has when it looks for its root: in its initramfs, or built in. This reads all images.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use serde::Serialize;

use super::Linux;
use crate::error::{Kind, Result};
use crate::fs::Tree;
use crate::initramfs::{self, Contents};

/// What a kernel has for KVM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct KernelDrivers {
    /// The kernel image.
    pub kernel: String,
    /// Its release, where known.
    pub release: Option<String>,
    /// Its initramfs images with what they hold.
    pub images: Vec<Contents>,
    /// Drivers that a root on virtio cannot do without and that it has nowhere.
    pub missing: Vec<&'static str>,
    /// Whether it finds a root on virtio.
    pub boots_on_virtio: bool,
}

/// Looks into the initramfs images of all kernels, each once.
pub fn drivers(tree: &Tree, facts: &Linux) -> Result<Vec<KernelDrivers>> {
    let mut known: Vec<Contents> = Vec::new();
    let mut found = Vec::new();
    for kernel in &facts.kernels {
        let release = kernel.release.as_deref();
        let paths = if kernel.unified { std::slice::from_ref(&kernel.image) } else { kernel.initramfs.as_slice() };
        let mut images = Vec::new();
        for path in paths {
            // An image that two kernels share is read once, if it is the same release's.
            let same =
                known.iter().find(|known| known.path == *path && (known.early || known.release.as_deref() == release));
            let contents = match same {
                Some(contents) => contents.clone(),
                None => match initramfs::look(tree, path, release) {
                    Err(error) if error.kind() == Kind::NotFound => continue,
                    other => other?,
                },
            };
            known.push(contents.clone());
            images.push(contents);
        }
        let alone = initramfs::builtin(tree, release)?;
        let missing =
            match images.iter().filter(|image| !image.early).map(|image| &image.missing).min_by_key(|it| it.len()) {
                Some(missing) => missing.clone(),
                None => alone,
            };
        let is_readable = images.iter().all(|image| image.early || image.problem.is_none());
        found.push(KernelDrivers {
            kernel: kernel.image.clone(),
            release: kernel.release.clone(),
            images,
            boots_on_virtio: missing.is_empty() && is_readable,
            missing,
        });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::fs::MemoryFs;
    use crate::initramfs::TRANSPORTS;
    use crate::initramfs::tests::image;
    use crate::inspect::linux;

    #[test]
    fn every_kernel_has_its_own() {
        let fs = MemoryFs::default();
        for release in ["5.10", "6.1", "6.6", "6.9"] {
            fs.add_file(&format!("/boot/vmlinuz-{release}"), "").unwrap();
        }
        fs.add_file("/boot/initrd.img-6.1", image(Some("zstd"), "6.1", TRANSPORTS)).unwrap();
        fs.add_file("/boot/initrd.img-6.6", image(Some("xz"), "6.6", &["virtio_pci"])).unwrap();
        fs.add_file("/boot/initrd.img-6.9", "damaged").unwrap();
        let builtin: String = TRANSPORTS.iter().map(|name| format!("kernel/{name}.ko\n")).collect();
        fs.add_file("/lib/modules/5.10/modules.builtin", builtin).unwrap();
        let tree = Tree::new(Arc::new(fs));
        let found = drivers(&tree, &linux(&tree).unwrap()).unwrap();
        let short: Vec<_> =
            found.iter().map(|it| (it.release.as_deref().unwrap(), it.boots_on_virtio, it.missing.len())).collect();
        assert_eq!(short, [("5.10", true, 0), ("6.1", true, 0), ("6.6", false, 3), ("6.9", false, 0)]);
        assert!(found[3].images[0].problem.is_some());
    }
}
