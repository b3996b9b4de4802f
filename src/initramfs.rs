//! What an initramfs holds, read as the kernel reads it, without running any program of the guest.
//!
//! [`look`] tells for one image which drivers a kernel finds in it. [`image`] streams an image, [`modules`] reads and writes the
//! lists that depmod keeps, [`index`] their binary form, [`cpio`] and [`codec`] the archives.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

pub(crate) mod codec;
pub(crate) mod cpio;
pub(crate) mod image;
pub(crate) mod index;
#[cfg(test)]
mod kmod;
mod lzop;
pub(crate) mod modules;
pub(crate) mod unified;

use std::collections::BTreeMap;
use std::io::Read;

use serde::Serialize;

use self::image::{Image, Node};
use self::modules::{Lists, modules_dir, name_of};
use self::unified::Program;
use crate::error::{Error, Kind, Result};
use crate::fs::Tree;
use crate::limits;

/// Drivers of the transports and disks that KVM offers. Each must be in the image or in the kernel; what they need follows.
pub(crate) const TRANSPORTS: &[&str] = &["virtio_pci", "virtio_blk", "virtio_scsi", "sd_mod"];

/// Other drivers for KVM that images may hold.
const OTHERS: &[&str] = &["virtio_net", "virtio_mmio", "virtiofs", "virtio_console", "virtio_rng", "virtio_gpu"];

/// Programs that load modules by their aliases, one of which an image must have for a module to be of use.
const LOADERS: &[&str] = &["udevd", "systemd-udevd", "modprobe", "kmod", "busybox", "nlplug-findfs", "mdev", "udevadm"];

/// What an initramfs offers to the kernel that it is for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Contents {
    /// The image in the guest.
    pub path: String,
    /// Its length in bytes.
    pub size: u64,
    /// The compression of its last segment; `None` when that is a plain archive.
    pub compression: Option<&'static str>,
    /// Whether it only has what the processor gets before the kernel starts (microcode, ACPI tables).
    pub early: bool,
    /// The kernel release that it has modules for, or is used for when it has none.
    pub release: Option<String>,
    /// How many modules it has for that release.
    pub modules: usize,
    /// The drivers for KVM that its kernel has with it, sorted.
    pub virtio: Vec<Driver>,
    /// Drivers that a root on virtio cannot do without and that are in neither the image nor the kernel.
    pub missing: Vec<&'static str>,
    /// Whether it has a program that loads modules by itself.
    pub loads_modules: bool,
    /// What made it, where that left a mark: `dracut`, `initramfs-tools`, `mkinitcpio`, `mkinitfs`.
    pub generator: Option<&'static str>,
    /// Why it could not be read.
    pub problem: Option<String>,
}

/// A driver, and where the kernel finds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Driver {
    /// Its name: `virtio_blk`.
    pub name: &'static str,
    /// Whether it is part of the kernel rather than a module in the image.
    pub builtin: bool,
}

impl Contents {
    /// Whether a kernel that starts with it finds a root on virtio.
    #[must_use]
    pub fn can_boot_virtio(&self) -> bool {
        !self.early && self.problem.is_none() && self.missing.is_empty()
    }
}

/// Looks into the image at `path`, or into the one inside a unified kernel image, which boots the kernel `release`. An image that is damaged, too large or of a compression that
/// is not read gives [`Contents::problem`].
///
/// # Errors
/// `guest.not-found` when there is no such file; what reading the guest's disk gives.
pub fn look(tree: &Tree, path: &str, release: Option<&str>) -> Result<Contents> {
    let mut contents = Contents { path: path.to_owned(), ..Contents::default() };
    let unified = match Program::open(tree, path)? {
        Some(program) => program.stream(".initrd")?,
        None => None,
    };
    let stream: Box<dyn Read> = match unified {
        Some((size, stream)) => {
            contents.size = size;
            Box::new(stream)
        }
        None => {
            let absent = || Error::new(Kind::NotFound, "guest.not-found", "no such file").at(path);
            let file = tree.open(path)?.ok_or_else(absent)?;
            contents.size = file.size();
            Box::new(file)
        }
    };
    if contents.size > limits::MAX_INITRAMFS {
        contents.problem = Some(format!("it has {} bytes, more than any real one", contents.size));
        return Ok(contents);
    }
    match image::read(stream) {
        Ok(image) => contents.fill(tree, &image, release)?,
        Err(error) if matches!(error.kind(), Kind::Corrupt | Kind::Limit | Kind::Unsupported) => {
            contents.problem = Some(error.to_string());
        }
        Err(error) => return Err(error.at(path)),
    }
    Ok(contents)
}

/// Drivers that a root on virtio cannot do without and that the kernel `release` does not have built in.
pub(crate) fn builtin(tree: &Tree, release: Option<&str>) -> Result<Vec<&'static str>> {
    let dir = release.map_or(Ok(None), |release| modules_dir(tree, release))?;
    let lists = dir.map_or_else(|| Ok(Lists::default()), |dir| Lists::builtin_of_guest(tree, &dir))?;
    Ok(TRANSPORTS.iter().copied().filter(|name| !lists.is_builtin(name)).collect())
}

impl Contents {
    fn fill(&mut self, tree: &Tree, image: &Image, release: Option<&str>) -> Result<()> {
        self.compression = image.end.codec.map(codec::Codec::name);
        self.early = image.is_early();
        if self.early {
            return Ok(());
        }
        self.loads_modules = image.can_load();
        self.generator = image.generator();
        let has_modules = match release {
            Some(release) => modules_dir(tree, release)?.is_some(),
            None => false,
        };
        let Some(held) = Held::of(image, release, has_modules) else {
            self.missing = TRANSPORTS.to_vec();
            return Ok(());
        };
        let builtin = match modules_dir(tree, &held.release)? {
            Some(dir) => Lists::builtin_of_guest(tree, &dir)?,
            None => Lists::default(),
        };
        self.modules = held.modules.len();
        for name in TRANSPORTS.iter().chain(OTHERS) {
            if held.modules.contains_key(*name) {
                self.virtio.push(Driver { name, builtin: false });
            } else if held.has(name) || builtin.is_builtin(name) {
                self.virtio.push(Driver { name, builtin: true });
            } else if TRANSPORTS.contains(name) {
                self.missing.push(name);
            }
        }
        self.virtio.sort_by_key(|driver| driver.name);
        self.release = Some(held.release);
        Ok(())
    }
}

/// The modules that an image has for its kernel.
#[derive(Debug)]
pub(crate) struct Held {
    /// The kernel's release.
    pub(crate) release: String,
    /// The directory of the modules in the image.
    pub(crate) dir: String,
    /// The lists that the image has there.
    pub(crate) lists: Lists,
    /// The modules that are there: names, and paths relative to the directory.
    pub(crate) modules: BTreeMap<String, String>,
}

impl Held {
    /// What `image` has for the kernel `release`; `is_sure` when the guest has modules for that, so that there is such a kernel.
    /// `None` when it cannot be told which kernel the image is for.
    pub(crate) fn of(image: &Image, release: Option<&str>, is_sure: bool) -> Option<Self> {
        let (release, dir) = release_of(image, release, is_sure)?;
        let text = |name: &str| image.text(&format!("{dir}/{name}")).unwrap_or_default();
        let lists = Lists::parse(
            &text("modules.dep"),
            &text("modules.alias"),
            &text("modules.symbols"),
            &text("modules.softdep"),
            &text("modules.builtin"),
        );
        let prefix = format!("{dir}/");
        let files = image.nodes().filter(|(_, node)| matches!(node, Node::File | Node::Link(_)));
        let paths = files.filter_map(|(name, _)| std::str::from_utf8(name).ok()?.strip_prefix(prefix.as_str()));
        let modules = paths.filter_map(|path| Some((name_of(path)?, path.to_owned()))).collect();
        Some(Self { release, dir, lists, modules })
    }

    /// Whether the image has a module, or says that its kernel needs none for it.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.modules.contains_key(name) || self.lists.is_builtin(name)
    }
}

/// The release that the image is for, and the directory of its modules in the image.
fn release_of(image: &Image, release: Option<&str>, is_sure: bool) -> Option<(String, String)> {
    let mut releases = image.releases();
    if let Some(release) = release {
        if let Some(found) = releases.iter().find(|(known, _)| known == release) {
            return Some(found.clone());
        }
        if releases.is_empty() || is_sure {
            return Some((release.to_owned(), image.canonical(&format!("lib/modules/{release}"))?));
        }
    }
    if releases.len() == 1 { releases.pop() } else { None }
}

impl Image {
    /// Whether it holds nothing but what the processor gets before the kernel starts, or nothing at all.
    pub(crate) fn is_early(&self) -> bool {
        self.nodes().all(|(name, _)| {
            name.is_empty() || name.split(|byte| *byte == b'/').next() == Some(b"kernel") || name == b"early_cpio"
        })
    }

    /// Whether it has a program that loads modules by their aliases.
    pub(crate) fn can_load(&self) -> bool {
        self.nodes().any(|(name, node)| {
            let last = name.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
            matches!(node, Node::File | Node::Link(_)) && LOADERS.iter().any(|loader| loader.as_bytes() == last)
        })
    }

    /// Whether its first program is nash of Red Hat's old mkinitrd, which loads exactly the drivers that it names, from `/lib`.
    pub(crate) fn is_nash(&self) -> bool {
        ["bin/nash", "sbin/nash"].iter().any(|path| self.node(path).is_some())
    }

    /// The program that made it, by files that no other leaves.
    fn generator(&self) -> Option<&'static str> {
        const MARKS: &[(&str, &str)] = &[
            ("bin/nash", "mkinitrd"),
            ("sbin/nash", "mkinitrd"),
            ("lib/mkinitrd", "mkinitrd"),
            ("usr/lib/dracut", "dracut"),
            ("lib/dracut", "dracut"),
            ("conf/initramfs.conf", "initramfs-tools"),
            ("scripts/init-top", "initramfs-tools"),
            ("hooks", "mkinitcpio"),
            ("buildconfig", "mkinitcpio"),
            ("init_functions", "mkinitcpio"),
            ("etc/mkinitfs", "mkinitfs"),
            ("sbin/nlplug-findfs", "mkinitfs"),
        ];
        MARKS.iter().find(|(path, _)| self.node(path).is_some()).map(|(_, name)| *name)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use super::codec::Codec;
    use super::*;
    use crate::fs::MemoryFs;

    /// An initramfs as a distribution makes it: merged `/usr`, udev, and modules with their index.
    pub(crate) fn image(codec: Option<&str>, release: &str, modules: &[&str]) -> Vec<u8> {
        let mut writer = cpio::Writer::default();
        let base = format!("usr/lib/modules/{release}");
        for dir in ["usr", "usr/bin", "usr/lib", "usr/lib/modules", &base, &format!("{base}/kernel")] {
            writer.dir(dir).unwrap();
        }
        writer.link("lib", "usr/lib").unwrap();
        writer.file("usr/bin/modprobe", b"").unwrap();
        let mut dep = String::new();
        for module in modules {
            writer.file(&format!("{base}/kernel/{module}.ko"), b"\x7fELF").unwrap();
            dep.push_str(&format!("kernel/{module}.ko:\n"));
        }
        writer.file(&format!("{base}/modules.dep"), dep.as_bytes()).unwrap();
        let archive = writer.finish().unwrap();
        match codec {
            Some(name) => [Codec::Bzip2, Codec::Gzip, Codec::Lz4, Codec::Lzma, Codec::Lzo, Codec::Xz, Codec::Zstd]
                .into_iter()
                .find(|codec| codec.name() == name)
                .unwrap()
                .encode(&archive)
                .unwrap(),
            None => archive,
        }
    }

    /// The files of an image below a release's module directory.
    pub(crate) fn modules_in(image: &[u8], release: &str) -> Vec<String> {
        let image = image::read(image).unwrap();
        Held::of(&image, Some(release), true).unwrap().modules.into_values().collect()
    }

    fn guest(files: &[(&str, &[u8])]) -> Tree {
        let fs = MemoryFs::default();
        for (path, content) in files {
            fs.add_file(path, content).unwrap();
        }
        Tree::new(Arc::new(fs))
    }

    #[test]
    fn tells_the_drivers_of_image_and_kernel_apart() {
        let held = image(Some("zstd"), "6.1", &["virtio_blk", "virtio-pci", "ext4"]);
        let builtin = b"kernel/drivers/scsi/sd_mod.ko\nkernel/net/virtio_net.ko\n";
        let tree = guest(&[("/boot/initrd", &held), ("/lib/modules/6.1/modules.builtin", builtin)]);
        let contents = look(&tree, "/boot/initrd", Some("6.1")).unwrap();
        let drivers: Vec<_> = contents.virtio.iter().map(|driver| (driver.name, driver.builtin)).collect();
        assert_eq!(drivers, [("sd_mod", true), ("virtio_blk", false), ("virtio_net", true), ("virtio_pci", false)]);
        assert_eq!((contents.modules, contents.missing.as_slice()), (3, ["virtio_scsi"].as_slice()));
        assert_eq!((contents.compression, contents.release.as_deref()), (Some("zstd"), Some("6.1")));
        assert!(contents.loads_modules && !contents.early && !contents.can_boot_virtio());
        let all = image(None, "6.1", &["virtio_blk", "virtio_pci", "virtio_scsi", "sd_mod"]);
        let tree = guest(&[("/i", &all)]);
        assert!(look(&tree, "/i", None).unwrap().can_boot_virtio());
    }

    #[test]
    fn an_image_for_another_kernel_lacks_everything() {
        let tree = guest(&[("/i", &image(None, "5.10", TRANSPORTS)), ("/lib/modules/6.1/modules.dep", b"")]);
        let contents = look(&tree, "/i", Some("6.1")).unwrap();
        assert_eq!((contents.missing.as_slice(), contents.release.as_deref()), (TRANSPORTS, Some("6.1")));
        assert_eq!(look(&tree, "/i", Some("6.2")).unwrap().release.as_deref(), Some("5.10"));
    }

    #[test]
    fn microcode_is_early_and_nothing_else() {
        let mut writer = cpio::Writer::default();
        writer.dir("kernel").unwrap();
        writer.file("kernel/x86/microcode/GenuineIntel.bin", b"x").unwrap();
        let tree = guest(&[("/ucode.img", &writer.finish().unwrap())]);
        let contents = look(&tree, "/ucode.img", Some("6.1")).unwrap();
        assert!(contents.early && contents.missing.is_empty() && !contents.can_boot_virtio());
    }

    #[test]
    fn looks_into_unified_kernel_images() {
        let initrd = image(Some("gzip"), "6.1", TRANSPORTS);
        let program = unified::tests::program(&[(".linux", b"kernel"), (".initrd", &initrd)], false);
        let contents = look(&guest(&[("/u.efi", &program)]), "/u.efi", Some("6.1")).unwrap();
        assert!(contents.can_boot_virtio());
        assert_eq!(contents.size, u64::try_from(initrd.len()).unwrap());
    }

    #[test]
    fn what_cannot_be_read_is_told_and_no_error() {
        let tree = guest(&[("/junk", b"no image"), ("/bz", b"BZh91AY"), ("/cut", &image(Some("xz"), "6", &[])[..99])]);
        for path in ["/junk", "/bz", "/cut"] {
            let contents = look(&tree, path, None).unwrap();
            assert!(contents.problem.is_some() && !contents.can_boot_virtio(), "{path}");
        }
        assert_eq!(look(&tree, "/none", None).unwrap_err().code(), "guest.not-found");
    }

    #[test]
    fn an_image_is_as_long_as_the_limit() {
        let fs = Arc::new(MemoryFs::default());
        let file = fs.add_file("/junk", "no image".repeat(100)).unwrap();
        let shared: Arc<dyn crate::fs::Filesystem> = fs.clone();
        let tree = Tree::new(shared);
        let most = limits::MAX_INITRAMFS;
        for (size, fits) in [(most - 1, true), (most, true), (most + 1, false)] {
            fs.pretend(file, size);
            let problem = look(&tree, "/junk", None).unwrap().problem.expect("it is none");
            assert_eq!(!problem.contains("more than any real one"), fits, "{problem}");
        }
    }
}
