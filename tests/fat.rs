//! The FAT driver beside dosfstools, mtools and 7-Zip: the same trees in both directions, and nothing for fsck.vfat to say
//! after any change.

use std::path::{Path, PathBuf};

use hyper2kvm::fs::fat::Fat;
use hyper2kvm::fs::{Attributes, FileKind, Filesystem, FilesystemMut, Inode, MemoryFs, Timestamp};

use crate::file_disk::{FileDisk, overwrite_free};
use crate::files::{self, Files};
use crate::support::tools;

/// Name, size in KiB and options of mkfs.vfat: each width of the table, each size of sectors, one to three tables.
const SHAPES: &[(&str, u64, &[&str])] = &[
    ("floppy", 1440, &["-F", "12"]),
    ("fat12-2k", 8192, &["-F", "12", "-s", "4"]),
    ("fat12-4k-sectors", 12_000, &["-F", "12", "-S", "4096", "-s", "1"]),
    ("fat16", 32_768, &["-F", "16"]),
    ("fat16-one-table", 16_384, &["-F", "16", "-f", "1", "-s", "1"]),
    ("fat16-small-root", 16_384, &["-F", "16", "-r", "16", "-s", "2"]),
    ("fat32", 40_000, &["-F", "32", "-s", "1"]),
    ("fat32-1k-sectors", 80_000, &["-F", "32", "-S", "1024", "-s", "1"]),
    ("fat32-2k-sectors", 140_000, &["-F", "32", "-S", "2048", "-s", "1"]),
    ("fat32-4k-sectors", 280_000, &["-F", "32", "-S", "4096", "-s", "1"]),
    ("fat32-three-tables", 40_000, &["-F", "32", "-s", "1", "-f", "3", "-n", "THREE"]),
];

struct Image {
    folder: tempfile::TempDir,
    path: PathBuf,
}

impl Image {
    fn make(kib: u64, options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        let image = std::fs::File::create(&path).unwrap();
        image.set_len(kib << 10).unwrap();
        tools::ok("mkfs.vfat", options.iter().map(Path::new).chain([path.as_path()]));
        Self { folder, path }
    }

    fn fs(&self) -> Fat {
        Fat::open_mut(FileDisk::open(&self.path)).unwrap()
    }

    /// Of more than two tables fsck.vfat knows nothing.
    fn assert_clean(&self) {
        let boot = std::fs::File::open(&self.path).map(|file| {
            let mut tables = [0];
            std::os::unix::fs::FileExt::read_exact_at(&file, &mut tables, 16).unwrap();
            tables[0]
        });
        if boot.unwrap() > 2 {
            return;
        }
        let output = tools::output("fsck.vfat", ["-n".as_ref(), self.path.as_os_str()]);
        let text = String::from_utf8_lossy(&output.stdout);
        // A banner and a summary are all that it has to say.
        assert!(output.status.success() && text.lines().count() == 2, "{output:?}");
    }

    /// All files as mtools copies them out.
    fn by_mtools(&self) -> Files {
        let out = self.folder.path().join("mtools");
        std::fs::create_dir(&out).unwrap();
        let arguments = ["LC_ALL=C.UTF-8", "MTOOLS_SKIP_CHECK=1", "mcopy", "-s", "-n", "-Q", "-i"];
        let arguments = arguments.iter().map(Path::new).chain([self.path.as_path(), Path::new("::/")]);
        tools::ok("env", arguments.chain([out.as_path()]));
        let found = files::of_host(&out);
        std::fs::remove_dir_all(out).unwrap();
        found
    }

    /// All files as 7-Zip extracts them.
    fn by_7zip(&self) -> Files {
        let out = self.folder.path().join("7z");
        let to = format!("-o{}", out.display());
        let arguments = ["LC_ALL=C.UTF-8", "7z", "x", "-bd", "-y", "-tfat", &to];
        tools::ok("env", arguments.iter().map(Path::new).chain([self.path.as_path()]));
        let found = files::of_host(&out);
        std::fs::remove_dir_all(out).unwrap();
        found
    }
}

/// Numbers that depend on a seed only.
struct Dice(blake3::OutputReader);

impl Dice {
    fn new(seed: &str) -> Self {
        Self(blake3::Hasher::new().update(seed.as_bytes()).finalize_xof())
    }

    fn below(&mut self, end: usize) -> usize {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes);
        u32::from_le_bytes(bytes) as usize % end
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.0.fill(&mut bytes);
        bytes
    }

    /// A name that differs from every other one by more than its case.
    fn name(&mut self, number: usize) -> String {
        match self.below(7) {
            0 => format!("FILE{number}.TXT"),
            1 => format!("Mixed{number}.Txt"),
            2 => format!("a longer name that has many parts {number} {}.conf", "x".repeat(self.below(180))),
            3 => format!("größe-日本語-{number}"),
            4 => format!(".hidden{number}"),
            5 => format!("{number}"),
            _ => format!("two.dots.{number}"),
        }
    }
}

/// The same changes made to the driver and to a model.
struct Both<'a> {
    fat: &'a Fat,
    memory: MemoryFs,
    dirs: Vec<String>,
    files: Vec<String>,
}

impl Both<'_> {
    fn find(fs: &dyn Filesystem, path: &str) -> Inode {
        let names = path.split('/').filter(|name| !name.is_empty());
        names.fold(fs.root(), |dir, name| fs.lookup(dir, name.as_bytes()).unwrap().expect(path))
    }

    /// One random change; one for which there is no room changes neither.
    fn change(&mut self, dice: &mut Dice, number: usize) {
        let writer = self.fat.writer().unwrap();
        let time = Timestamp { seconds: 1_700_000_000 + 2 * number as i64, nanoseconds: 0 };
        let attributes = Attributes { mode: 0o644, time, ..Attributes::default() };
        let most = [10, 600, 5000, 40_000][dice.below(4)];
        let len = dice.below(most);
        let content = dice.bytes(len);
        let model = self.memory.writer().unwrap();
        match dice.below(14) {
            10 => self.remove_dir(dice),
            11 | 12 if !self.files.is_empty() => self.rename(dice, number),
            13 => self.rename_dir(dice, number),
            0 => {
                let dir = self.dirs[dice.below(self.dirs.len())].clone();
                let name = dice.name(number);
                if writer.create_dir(Self::find(self.fat, &dir), name.as_bytes(), &attributes).is_ok() {
                    model.create_dir(Self::find(&self.memory, &dir), name.as_bytes(), &attributes).unwrap();
                    self.dirs.push(format!("{dir}/{name}"));
                }
            }
            1..5 => {
                let dir = self.dirs[dice.below(self.dirs.len())].clone();
                let name = dice.name(number);
                match writer.create(Self::find(self.fat, &dir), name.as_bytes(), &attributes, &content) {
                    Ok(_) => {
                        let parent = Self::find(&self.memory, &dir);
                        model.create(parent, name.as_bytes(), &attributes, &content).unwrap();
                        self.files.push(format!("{dir}/{name}"));
                    }
                    Err(error) => assert_eq!(error.code(), "fat.space"),
                }
            }
            _ if self.files.is_empty() => {}
            5 | 6 => {
                let path = self.files[dice.below(self.files.len())].clone();
                if writer.replace(Self::find(self.fat, &path), &content).is_ok() {
                    model.replace(Self::find(&self.memory, &path), &content).unwrap();
                }
            }
            7 => {
                let path = self.files[dice.below(self.files.len())].clone();
                if writer.append(Self::find(self.fat, &path), &content).is_ok() {
                    model.append(Self::find(&self.memory, &path), &content).unwrap();
                }
            }
            _ => {
                let path = self.files.swap_remove(dice.below(self.files.len()));
                let (dir, name) = path.rsplit_once('/').unwrap();
                // Any case will do.
                let given = name.to_ascii_uppercase();
                writer.remove(Self::find(self.fat, dir), given.as_bytes()).unwrap();
                model.remove(Self::find(&self.memory, dir), name.as_bytes()).unwrap();
            }
        }
    }

    /// An empty directory goes, any other one stays.
    fn remove_dir(&mut self, dice: &mut Dice) {
        let at = dice.below(self.dirs.len());
        let Some((dir, name)) = self.dirs[at].rsplit_once('/') else { return };
        let ours = self.fat.remove_dir(Self::find(self.fat, dir), name.as_bytes());
        let theirs = self.memory.remove_dir(Self::find(&self.memory, dir), name.as_bytes());
        assert_eq!(ours.is_ok(), theirs.is_ok());
        match ours {
            Ok(()) => drop(self.dirs.swap_remove(at)),
            Err(error) => assert_eq!(error.code(), "fat.not-empty"),
        }
    }

    fn rename(&mut self, dice: &mut Dice, number: usize) {
        let at = dice.below(self.files.len());
        let to = format!("{}/{}", self.dirs[dice.below(self.dirs.len())], dice.name(number));
        if self.renamed(&self.files[at], &to) {
            self.files[at] = to;
        }
    }

    fn rename_dir(&mut self, dice: &mut Dice, number: usize) {
        let from = self.dirs[dice.below(self.dirs.len())].clone();
        let above = self.dirs[dice.below(self.dirs.len())].clone();
        let to = format!("{above}/{}", dice.name(number));
        if from.is_empty() || !self.renamed(&from, &to) {
            return;
        }
        let below = format!("{from}/");
        for path in self.dirs.iter_mut().chain(&mut self.files) {
            if *path == from {
                path.clone_from(&to);
            } else if let Some(rest) = path.strip_prefix(&below) {
                *path = format!("{to}/{rest}");
            }
        }
    }

    fn renamed(&self, from: &str, to: &str) -> bool {
        let ((dir, name), (new_dir, new_name)) = (from.rsplit_once('/').unwrap(), to.rsplit_once('/').unwrap());
        let rename = |fs: &dyn Filesystem| {
            let (old, new) = (Self::find(fs, dir), Self::find(fs, new_dir));
            fs.writer().unwrap().rename(old, name.as_bytes(), new, new_name.as_bytes())
        };
        match rename(self.fat) {
            Ok(()) => rename(&self.memory).is_ok() || panic!("{from} to {to}"),
            Err(error) if error.code() == "fat.name" => rename(&self.memory).is_ok_and(|()| panic!("{from} to {to}")),
            Err(error) => {
                assert_eq!(error.code(), "fat.space");
                false
            }
        }
    }
}

#[test]
fn any_changes_leave_what_the_model_has_and_nothing_to_repair() {
    for (shape, kib, options) in SHAPES {
        let image = Image::make(*kib, options);
        let mut dice = Dice::new(shape);
        let fat = image.fs();
        let mut both = Both { fat: &fat, memory: MemoryFs::default(), dirs: vec![String::new()], files: Vec::new() };
        for number in 0..300 {
            both.change(&mut dice, number);
            if number < 40 || number % 20 == 0 {
                image.assert_clean();
            }
        }
        fat.writer().unwrap().sync().unwrap();
        image.assert_clean();
        let expected = files::of_driver(&both.memory);
        files::assert_same(&files::of_driver(&fat), &expected);
        let again = image.fs();
        assert_eq!(again.free().unwrap(), again.writer().unwrap().available().unwrap(), "{shape}");
        files::assert_same(&files::of_driver(&again), &expected);
        files::assert_same(&image.by_mtools(), &expected);
        files::assert_same(&image.by_7zip(), &expected);
    }
}

#[test]
fn a_tree_that_mtools_wrote_is_read() {
    for (shape, kib, options) in SHAPES {
        let image = Image::make(*kib, options);
        let root = image.folder.path().join("root");
        let mut dice = Dice::new(shape);
        std::fs::create_dir_all(root.join("deep/er/and/deeper/Still")).unwrap();
        for number in 0..150 {
            // mtools does not put a name into more than two clusters.
            let name = Some(dice.name(number)).filter(|name| name.len() < 150).unwrap_or(format!("{number:0>150}"));
            let len = dice.below(9000);
            let dir = if number % 3 == 0 { "deep/er" } else { "deep" };
            std::fs::write(root.join(dir).join(name), dice.bytes(len)).unwrap();
        }
        std::fs::write(root.join("deep/er/and/deeper/Still/empty"), "").unwrap();
        std::fs::write(root.join("large"), dice.bytes(300_000)).unwrap();
        let arguments = ["LC_ALL=C.UTF-8", "TZ=UTC", "mcopy", "-s", "-m", "-Q", "-i"].iter().map(Path::new);
        let (deep, large) = (root.join("deep"), root.join("large"));
        tools::ok("env", arguments.chain([image.path.as_path(), &deep, &large, Path::new("::")]));
        let fat = image.fs();
        files::assert_same(&files::of_driver(&fat), &files::of_host(&root));
        let inode = fat.lookup(fat.root(), b"LARGE").unwrap().unwrap();
        let (stat, meta) = (fat.stat(inode).unwrap(), std::fs::metadata(&large).unwrap());
        let modified = std::os::unix::fs::MetadataExt::mtime(&meta);
        assert!((stat.mtime.seconds - modified).abs() < 2, "{} {modified}", stat.mtime.seconds);
        assert_eq!((stat.kind, stat.mode, stat.size), (FileKind::Regular, 0o755, 300_000));
        assert!(!fat.facts().dirty && fat.facts().features[0].starts_with("FAT"));
    }
}

/// Every cluster that 7-Zip and mtools need is outside of what is called free: they read the same after it was overwritten.
#[test]
fn what_is_free_is_not_needed_by_anyone() {
    for (shape, kib, options) in SHAPES {
        let image = Image::make(*kib, options);
        let fat = image.fs();
        let mut both = Both { fat: &fat, memory: MemoryFs::default(), dirs: vec![String::new()], files: Vec::new() };
        let mut dice = Dice::new(&format!("free {shape}"));
        (0..100).for_each(|number| both.change(&mut dice, number));
        let expected = files::of_driver(&fat);
        let freed = overwrite_free(&image.fs(), &image.path);
        assert_eq!(freed, image.fs().writer().unwrap().available().unwrap(), "{shape}");
        image.assert_clean();
        files::assert_same(&image.by_mtools(), &expected);
        files::assert_same(&image.by_7zip(), &expected);
    }
}
