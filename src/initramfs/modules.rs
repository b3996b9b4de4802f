//! A kernel's modules: the lists that depmod wrote, what a set of modules needs, and the lists for a subset.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write;

use super::index::Index;
use crate::error::Result;
use crate::fs::{FileKind, Tree};
use crate::limits;

/// What depmod's text files in `/lib/modules/RELEASE` say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lists {
    /// `modules.dep`: modules in depmod's order.
    pub(crate) modules: Vec<Module>,
    /// `modules.alias`: alias and module name.
    aliases: Vec<(String, String)>,
    /// `modules.symbols`: the same for `symbol:NAME`.
    symbols: Vec<(String, String)>,
    /// `modules.softdep`: module name, and what stands behind it.
    softdeps: Vec<(String, String)>,
    /// `modules.builtin`: names.
    builtin: BTreeSet<String>,
}

/// A line of `modules.dep`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Module {
    /// Its name: `virtio_blk`.
    pub(crate) name: String,
    /// Its file, relative to the release's directory.
    pub(crate) path: String,
    /// The files of the modules that it needs, nearest first.
    pub(crate) needs: Vec<String>,
}

/// `kernel/drivers/char/hw_random/virtio-rng.ko.xz` is `virtio_rng`; `None` for what is no module.
pub(crate) fn name_of(path: &str) -> Option<String> {
    let name = plain_path(path).rsplit('/').next()?.strip_suffix(".ko")?;
    Some(name.replace('-', "_")).filter(|name| !name.is_empty())
}

/// A module's path without the end that tells its compression.
pub(crate) fn plain_path(path: &str) -> &str {
    [".xz", ".zst", ".gz"].iter().find_map(|end| path.strip_suffix(end)).unwrap_or(path)
}

impl Module {
    fn parse(line: &str) -> Option<Self> {
        let (path, needs) = line.split_once(':')?;
        let path = relative(path.trim())?;
        let name = name_of(path)?;
        let needs = needs.split_ascii_whitespace().filter_map(relative).map(str::to_owned).collect();
        Some(Self { name, path: path.to_owned(), needs })
    }
}

/// Old versions of depmod wrote absolute paths. Nothing may lead out of the release's directory.
fn relative(path: &str) -> Option<&str> {
    let inside = match path.strip_prefix("/lib/modules/") {
        Some(rest) => rest.split_once('/')?.1,
        None => path,
    };
    let is_plain = !inside.starts_with('/') && inside.split('/').all(|part| !matches!(part, "" | "." | ".."));
    Some(inside).filter(|inside| is_plain && inside.len() < limits::MAX_GUEST_PATH)
}

impl Lists {
    /// The lists of the guest's kernel in `dir`. Files that are not there count as empty.
    pub(crate) fn of_guest(tree: &Tree, dir: &str) -> Result<Self> {
        let read = |name| list(tree, dir, name);
        let (dep, alias, symbols) = (read("modules.dep")?, read("modules.alias")?, read("modules.symbols")?);
        Ok(Self::parse(&dep, &alias, &symbols, &read("modules.softdep")?, &read("modules.builtin")?))
    }

    /// Only what the guest's kernel has built in, which is little to read. Kernels before 2.6.33 have no list of that; of them the
    /// configuration in `/boot` tells what matters here.
    pub(crate) fn builtin_of_guest(tree: &Tree, dir: &str) -> Result<Self> {
        let mut lists = Self::parse("", "", "", "", &list(tree, dir, "modules.builtin")?);
        if lists.builtin.is_empty() {
            let release = dir.rsplit('/').next().unwrap_or_default();
            lists.builtin = configured(&list(tree, "/boot", &format!("config-{release}"))?);
        }
        Ok(lists)
    }

    /// Reads the five files. Lines that are none of theirs are left out.
    pub(crate) fn parse(dep: &str, alias: &str, symbols: &str, softdep: &str, builtin: &str) -> Self {
        Self {
            modules: dep.lines().filter_map(Module::parse).collect(),
            aliases: alias.lines().filter_map(|line| pair(line, "alias")).collect(),
            symbols: symbols.lines().filter_map(|line| pair(line, "alias")).collect(),
            softdeps: softdep.lines().filter_map(softdep_of).collect(),
            builtin: builtin.lines().filter_map(name_of).collect(),
        }
    }

    /// The module of that name.
    pub(crate) fn module(&self, name: &str) -> Option<&Module> {
        self.modules.iter().find(|module| module.name == name)
    }

    /// Whether the kernel has it without a module.
    pub(crate) fn is_builtin(&self, name: &str) -> bool {
        self.builtin.contains(name)
    }

    /// The modules of those names with everything that they need, hard and soft, in depmod's order. Names that are no
    /// modules are left out.
    pub(crate) fn closure<'a>(&'a self, wanted: impl IntoIterator<Item = &'a str>) -> Vec<&'a Module> {
        let by_name: BTreeMap<&str, &Module> =
            self.modules.iter().map(|module| (module.name.as_str(), module)).collect();
        let mut pending: VecDeque<String> = wanted.into_iter().map(str::to_owned).collect();
        let mut names: BTreeSet<String> = BTreeSet::new();
        while let Some(name) = pending.pop_front() {
            let Some(module) = by_name.get(name.as_str()).filter(|_| !names.contains(&name)) else { continue };
            pending.extend(module.needs.iter().filter_map(|path| name_of(path)));
            let soft = self.softdeps.iter().filter(|(of, _)| *of == name);
            for word in soft.flat_map(|(_, rest)| rest.split_ascii_whitespace()).filter(|word| !word.ends_with(':')) {
                let alias = self.aliases.iter().find(|(alias, _)| alias == word);
                pending.push_back(alias.map_or_else(|| word.replace('-', "_"), |(_, module)| module.clone()));
            }
            names.insert(name);
        }
        self.modules.iter().filter(|module| names.contains(&module.name)).collect()
    }

    /// The lists for an image that has the modules of `image` (names with their files' paths) and gets those of `added`.
    ///
    /// What the image's own lists (`own`) say of its modules stays; where they say nothing, and for what is added, these
    /// lists, the guest's, are asked. Added modules lie uncompressed at [`plain_path`].
    pub(crate) fn union(&self, own: &Self, image: &BTreeMap<String, String>, added: &[&Module]) -> Self {
        let mut paths = image.clone();
        paths.extend(added.iter().map(|module| (module.name.clone(), plain_path(&module.path).to_owned())));
        let path_of = |need: &String| paths.get(&name_of(need)?).cloned();
        let mut known: BTreeMap<&str, Module> = BTreeMap::new();
        for module in own.modules.iter().filter(|module| image.contains_key(&module.name)) {
            known.insert(&module.name, module.clone());
        }
        let mut from_guest: BTreeSet<&str> = BTreeSet::new();
        for (name, path) in &paths {
            if known.contains_key(name.as_str()) {
                continue;
            }
            from_guest.insert(name);
            let needs = self.module(name).map(|module| module.needs.iter().filter_map(path_of).collect());
            let module = Module { name: name.clone(), path: path.clone(), needs: needs.unwrap_or_default() };
            known.insert(name, module);
        }
        let mut modules: Vec<Module> = Vec::new();
        let order = self.modules.iter().chain(&own.modules).map(|module| module.name.as_str());
        for name in order.chain(paths.keys().map(String::as_str)) {
            modules.extend(known.remove(name));
        }
        let join = |own: &[(String, String)], guest: &[(String, String)], by_value: bool| {
            let new =
                guest.iter().filter(|(key, value)| from_guest.contains(if by_value { value } else { key }.as_str()));
            own.iter().chain(new).cloned().collect()
        };
        Self {
            modules,
            aliases: join(&own.aliases, &self.aliases, true),
            symbols: join(&own.symbols, &self.symbols, true),
            softdeps: join(&own.softdeps, &self.softdeps, false),
            builtin: BTreeSet::new(),
        }
    }

    /// The files that depmod would write: what libkmod reads (`.bin`) and what busybox reads (text).
    pub(crate) fn files(&self) -> Result<Vec<(&'static str, Vec<u8>)>> {
        let mut dep = String::new();
        let mut dep_index = Index::default();
        let mut priorities: BTreeMap<&str, u32> = BTreeMap::new();
        for (priority, module) in (0_u32..).zip(&self.modules) {
            let mut line = format!("{}:", module.path);
            for need in &module.needs {
                line.push(' ');
                line.push_str(need);
            }
            dep_index.insert(module.name.as_bytes(), line.as_bytes(), priority);
            dep.push_str(&line);
            dep.push('\n');
            priorities.insert(&module.name, priority);
        }
        let pairs = |comment: &str, pairs: &[(String, String)]| {
            let mut text = format!("# {comment}\n");
            let mut index = Index::default();
            for (key, module) in pairs {
                let _ = writeln!(text, "alias {key} {module}");
                let priority = priorities.get(module.as_str()).copied().unwrap_or(0);
                index.insert(normal(key).as_bytes(), module.as_bytes(), priority);
            }
            Ok::<_, crate::Error>((text.into_bytes(), index.to_bytes()?))
        };
        let (alias, alias_index) = pairs("Aliases extracted from modules themselves.", &self.aliases)?;
        let (symbols, symbols_index) = pairs("Aliases for symbols, used by symbol_request().", &self.symbols)?;
        let mut softdep = String::from("# Soft dependencies extracted from modules themselves.\n");
        for (module, rest) in &self.softdeps {
            let _ = writeln!(softdep, "softdep {module} {rest}");
        }
        Ok(vec![
            ("modules.alias", alias),
            ("modules.alias.bin", alias_index),
            ("modules.dep", dep.into_bytes()),
            ("modules.dep.bin", dep_index.to_bytes()?),
            ("modules.softdep", softdep.into_bytes()),
            ("modules.symbols", symbols),
            ("modules.symbols.bin", symbols_index),
        ])
    }
}

/// Drivers of disks and cards that a virtual machine may have, with what they are called in a kernel's configuration.
const CONFIGURED: &[(&str, &str)] = &[
    ("8139CP", "8139cp"),
    ("ATA_PIIX", "ata_piix"),
    ("BLK_DEV_IDEDISK", "ide_disk"),
    ("BLK_DEV_PIIX", "piix"),
    ("BLK_DEV_SD", "sd_mod"),
    ("E1000", "e1000"),
    ("E1000E", "e1000e"),
    ("IDE_GD_ATA", "ide_gd_mod"),
    ("SATA_AHCI", "ahci"),
    ("SCSI_VIRTIO", "virtio_scsi"),
    ("VIRTIO_BLK", "virtio_blk"),
    ("VIRTIO_NET", "virtio_net"),
    ("VIRTIO_PCI", "virtio_pci"),
];

/// The drivers that a kernel's configuration has built in.
fn configured(config: &str) -> BTreeSet<String> {
    let on = config.lines().filter_map(|line| line.trim_end().strip_prefix("CONFIG_")?.strip_suffix("=y"));
    on.filter_map(|option| CONFIGURED.iter().find(|(known, _)| *known == option))
        .map(|(_, name)| (*name).to_owned())
        .collect()
}

/// The directory of a release's modules, as a canonical path.
pub(crate) fn modules_dir(tree: &Tree, release: &str) -> Result<Option<String>> {
    let found = tree.find(format!("/lib/modules/{release}"))?;
    let found = found.filter(|found| found.stat.kind == FileKind::Directory);
    Ok(found.and_then(|found| found.text().map(str::to_owned)))
}

/// One of a guest's lists as text.
fn list(tree: &Tree, dir: &str, name: &str) -> Result<String> {
    let content = tree.read(format!("{dir}/{name}"), limits::MAX_MODULE_LIST)?.unwrap_or_default();
    Ok(String::from_utf8_lossy(&content).into_owned())
}

/// `KEYWORD KEY VALUE`, three words exactly.
fn pair(line: &str, keyword: &str) -> Option<(String, String)> {
    let mut words = line.split_ascii_whitespace();
    words.next().filter(|word| *word == keyword)?;
    let found = (words.next()?.to_owned(), words.next()?.to_owned());
    if words.next().is_some() { None } else { Some(found) }
}

fn softdep_of(line: &str) -> Option<(String, String)> {
    let rest = line.trim().strip_prefix("softdep ")?;
    let (module, rest) = rest.trim_start().split_once(' ')?;
    Some((module.replace('-', "_"), rest.to_owned()))
}

/// An alias as the index has it: `-` and `_` are one, except inside brackets.
fn normal(alias: &str) -> String {
    let mut inside = false;
    let letter = |c| {
        inside = (inside || c == '[') && c != ']';
        if c == '-' && !inside { '_' } else { c }
    };
    alias.chars().map(letter).collect()
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "limits are far from the ends of their types")]
pub(crate) mod tests {
    use super::super::index::tests::lookup;
    use super::*;

    pub(crate) fn guest() -> Lists {
        Lists::parse(
            "kernel/fs/ext4.ko.xz: kernel/lib/crc16.ko.xz kernel/fs/jbd2.ko.xz\nkernel/lib/crc16.ko.xz:\nkernel/fs/jbd2.ko.xz:\n\
             kernel/v/virtio.ko.xz:\nkernel/v/virtio_ring.ko.xz:\n\
             kernel/v/virtio_pci.ko.xz: kernel/v/virtio_ring.ko.xz kernel/v/virtio.ko.xz\n\
             kernel/b/virtio-blk.ko.xz: kernel/v/virtio_ring.ko.xz kernel/v/virtio.ko.xz\n../evil.ko:\n/etc/x.ko:\nno module\n",
            "# c\nalias pci:v00001AF4d*sv*sd*bc*sc*i* virtio_pci\nalias virtio:d00000002v* virtio_blk\nalias fs-ext4 ext4\nbad\n",
            "alias symbol:register_virtio_driver virtio\n",
            "softdep virtio_blk pre: fs-ext4\n",
            "kernel/drivers/scsi/sd_mod.ko\n",
        )
    }

    #[test]
    fn a_closure_holds_all_that_is_needed() {
        let guest = guest();
        let names: Vec<_> =
            guest.closure(["virtio_blk", "nothing"]).into_iter().map(|module| module.name.as_str()).collect();
        assert_eq!(names, ["ext4", "crc16", "jbd2", "virtio", "virtio_ring", "virtio_blk"]);
        assert!(guest.is_builtin("sd_mod"));
        assert!(guest.module("evil").is_none() && guest.module("x").is_none());
    }

    #[test]
    fn a_union_keeps_the_images_own_lines() {
        let guest = guest();
        let own = Lists::parse("kernel/fs/jbd2.ko: kernel/own.ko\n", "alias own jbd2\n", "", "", "");
        let image: BTreeMap<String, String> = [("jbd2", "kernel/fs/jbd2.ko"), ("crc16", "kernel/lib/crc16.ko")]
            .map(|(name, path)| (name.to_owned(), path.to_owned()))
            .into();
        let added: Vec<_> =
            guest.closure(["virtio_blk"]).into_iter().filter(|m| m.name.starts_with("virtio")).collect();
        let union = guest.union(&own, &image, &added);
        let files: BTreeMap<_, _> = union.files().unwrap().into_iter().collect();
        let text = |name: &str| String::from_utf8(files[name].clone()).unwrap();
        assert_eq!(
            text("modules.dep"),
            "kernel/lib/crc16.ko:\nkernel/fs/jbd2.ko: kernel/own.ko\nkernel/v/virtio.ko:\nkernel/v/virtio_ring.ko:\n\
             kernel/b/virtio-blk.ko: kernel/v/virtio_ring.ko kernel/v/virtio.ko\n"
        );
        assert!(text("modules.alias").ends_with("themselves.\nalias own jbd2\nalias virtio:d00000002v* virtio_blk\n"));
        assert!(text("modules.symbols").ends_with("\nalias symbol:register_virtio_driver virtio\n"));
        assert!(text("modules.softdep").ends_with("\nsoftdep virtio_blk pre: fs-ext4\n"));
        let found = lookup(&files["modules.dep.bin"], b"virtio_blk");
        assert_eq!(found, [(4, b"kernel/b/virtio-blk.ko: kernel/v/virtio_ring.ko kernel/v/virtio.ko".to_vec())]);
        assert_eq!(lookup(&files["modules.symbols.bin"], b"symbol:register_virtio_driver"), [(2, b"virtio".to_vec())]);
    }

    #[test]
    fn a_configuration_tells_what_is_built_in() {
        let config = "# CONFIG_SATA_AHCI is not set\nCONFIG_VIRTIO_BLK=y\nCONFIG_E1000=m\nCONFIG_BLK_DEV_SD=y\r\nCONFIG_X=y\n=y\n";
        assert_eq!(configured(config).into_iter().collect::<Vec<_>>(), ["sd_mod", "virtio_blk"]);
    }

    #[test]
    fn names_and_aliases_follow_kmod() {
        assert_eq!(name_of("a/virtio-rng.ko.zst").as_deref(), Some("virtio_rng"));
        for none in ["a/b.o", "a/.ko", "a/b.ko.bz2", ""] {
            assert_eq!(name_of(none), None, "{none}");
        }
        assert_eq!(normal("a-b[c-d]e-f"), "a_b[c-d]e_f");
        assert_eq!(relative("/lib/modules/2.6/kernel/a.ko"), Some("kernel/a.ko"));
    }

    #[test]
    fn a_list_is_as_long_as_the_limit() {
        let fs = std::sync::Arc::new(crate::fs::MemoryFs::default());
        let file = fs.add_file("/lib/modules/6.1/modules.dep", "a.ko:\n").unwrap();
        let shared: std::sync::Arc<dyn crate::fs::Filesystem> = fs.clone();
        let tree = Tree::new(shared);
        let most = limits::MAX_MODULE_LIST;
        for (size, expected) in [(most - 1, Ok("a.ko:\n")), (most, Ok("a.ko:\n")), (most + 1, Err("guest.file-size"))] {
            fs.pretend(file, size);
            let found = list(&tree, "/lib/modules/6.1", "modules.dep").map_err(|error| error.code());
            assert_eq!(found.as_deref().map_err(|code| *code), expected, "{size}");
        }
    }
}
