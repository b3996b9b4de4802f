//! An initramfs read as the kernel reads it: zero bytes, plain cpio archives at four-byte boundaries, and compressed archives,
//! in any order (`init/initramfs.c`). What is later replaces what was earlier.
//!
//! The image streams by. Names and kinds are kept, and the content of the few files that say which modules it has.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::collections::BTreeMap;
use std::io::{self, BufRead, Read};

use super::codec::Codec;
use super::cpio::{self, Entry};
use crate::error::{Error, Result};
use crate::limits;

/// What an initramfs holds.
#[derive(Debug, Default)]
pub(crate) struct Image {
    /// Files by name, without a leading `/`.
    nodes: BTreeMap<Vec<u8>, Node>,
    /// Content of the module lists, by name.
    kept: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Files that may name devices, by name, with their permissions.
    settings: BTreeMap<Vec<u8>, (u32, Vec<u8>)>,
    names_size: usize,
    kept_size: usize,
    unpacked: u64,
    /// How the image ends.
    pub(crate) end: End,
}

/// A file of the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    /// A directory.
    Dir,
    /// A regular file.
    File,
    /// A symbolic link with its target.
    Link(Vec<u8>),
    /// A device, a socket …
    Other,
}

/// Where something can be appended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct End {
    /// Bytes of the image.
    pub(crate) size: u64,
    /// The compression of the last segment; `None` when it is a plain archive.
    pub(crate) codec: Option<Codec>,
    /// Where the last segment begins.
    pub(crate) start: u64,
    /// Bytes that the last segment decodes to.
    pub(crate) decoded: u64,
    /// Zero bytes behind the last segment.
    pub(crate) padding: u64,
}

/// Reads an image. `input` starts at its first byte.
pub(crate) fn read(input: impl Read) -> Result<Image> {
    let mut image = Image::default();
    let mut input = Window::new(input);
    loop {
        let zeros = input.skip_zeros()?;
        image.end.padding = image.end.padding.saturating_add(zeros);
        let start = input.peek(6)?;
        if start.is_empty() {
            break;
        }
        let at = input.position;
        if start.starts_with(b"0") && at.is_multiple_of(4) {
            cpio::read(&mut input, &mut |entry, body| image.add(entry, body)).map_err(|error| error.offset(at))?;
            image.end.codec = None;
        } else if let Some(codec) = Codec::detect(&start) {
            let decoded = image.add_compressed(codec, &mut input).map_err(|error| error.offset(at))?;
            image.end.codec = Some(codec);
            image.end.decoded = decoded;
        } else {
            return Err(Error::corrupt("initramfs.format", "the initramfs holds bytes that no kernel reads").offset(at));
        }
        image.end.padding = 0;
        image.end.start = at;
        image.end.size = input.position;
    }
    image.end.size = input.position;
    Ok(image)
}

impl Image {
    /// What `path` is, without following a link at its end.
    pub(crate) fn node(&self, path: &str) -> Option<&Node> {
        self.nodes.get(path.as_bytes())
    }

    /// All names with their kinds, sorted.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = (&[u8], &Node)> {
        self.nodes.iter().map(|(name, node)| (name.as_slice(), node))
    }

    /// The content of a kept file as text.
    pub(crate) fn text(&self, path: &str) -> Option<String> {
        self.kept.get(path.as_bytes()).map(|content| String::from_utf8_lossy(content).into_owned())
    }

    /// The files that may name devices: name, permissions and content.
    pub(crate) fn settings(&self) -> impl Iterator<Item = (&str, u32, &[u8])> {
        self.settings
            .iter()
            .filter_map(|(name, (mode, content))| Some((std::str::from_utf8(name).ok()?, *mode, content.as_slice())))
    }

    /// `path` with the links in it resolved, as far as the image has them; names that are not there stay as they are.
    pub(crate) fn canonical(&self, path: &str) -> Option<String> {
        let mut pending: Vec<String> =
            path.split('/').rev().filter(|part| !part.is_empty()).map(str::to_owned).collect();
        let mut done: Vec<String> = Vec::new();
        let mut links = 0_usize;
        while let Some(part) = pending.pop() {
            match part.as_str() {
                "." => continue,
                ".." => {
                    done.pop();
                    continue;
                }
                _ => done.push(part),
            }
            let Some(Node::Link(target)) = self.node(&done.join("/")) else { continue };
            links = links.saturating_add(1);
            if links > limits::MAX_GUEST_LINKS {
                return None;
            }
            let target = std::str::from_utf8(target).ok()?;
            done.pop();
            if target.starts_with('/') {
                done.clear();
            }
            pending.extend(target.split('/').rev().filter(|part| !part.is_empty()).map(str::to_owned));
        }
        Some(done.join("/"))
    }

    /// The releases that the image has module directories for, with the directories.
    pub(crate) fn releases(&self) -> Vec<(String, String)> {
        let Some(modules) = self.canonical("lib/modules") else { return Vec::new() };
        let prefix = format!("{modules}/");
        let start = prefix.as_bytes();
        let below = self.nodes.range(start.to_vec()..).take_while(|(name, _)| name.starts_with(start));
        let mut releases: Vec<(String, String)> = Vec::new();
        for (name, node) in below {
            let Some(release) = name.get(start.len()..).and_then(|rest| std::str::from_utf8(rest).ok()) else {
                continue;
            };
            if *node == Node::Dir && !release.is_empty() && !release.contains('/') {
                releases.push((release.to_owned(), format!("{prefix}{release}")));
            }
        }
        releases
    }

    fn add_compressed(&mut self, codec: Codec, input: &mut impl BufRead) -> Result<u64> {
        let mut stream = Window::new(codec.decoder(input)?);
        loop {
            stream.skip_zeros()?;
            let start = stream.peek(1)?;
            if start.is_empty() {
                return Ok(stream.position);
            }
            let at = stream.position;
            if !start.starts_with(b"0") || !at.is_multiple_of(4) {
                return Err(Error::corrupt("initramfs.format", "junk inside a compressed archive of the initramfs"));
            }
            cpio::read(&mut stream, &mut |entry, body| self.add(entry, body))?;
        }
    }

    fn add(&mut self, entry: &Entry, body: &mut dyn Read) -> Result<()> {
        self.unpacked = self.unpacked.saturating_add(u64::from(entry.size)).saturating_add(512);
        self.names_size = self.names_size.saturating_add(entry.name.len()).saturating_add(64);
        if self.unpacked > limits::MAX_INITRAMFS_UNPACKED || self.names_size > limits::MAX_INITRAMFS_NAMES {
            return Err(Error::limit("initramfs.size", "the initramfs holds more than any real one")
                .expected(format!("at most {} bytes", limits::MAX_INITRAMFS_UNPACKED)));
        }
        let node = if entry.is_dir() {
            Node::Dir
        } else if entry.is_file() {
            Node::File
        } else if entry.is_link() {
            Node::Link(self.body(entry, body, limits::MAX_GUEST_PATH)?)
        } else {
            Node::Other
        };
        self.kept.remove(&entry.name);
        self.settings.remove(&entry.name);
        if node == Node::File && is_wanted(&entry.name) {
            let left = limits::MAX_INITRAMFS_KEPT.saturating_sub(self.kept_size);
            let content = self.body(entry, body, left)?;
            self.kept_size = self.kept_size.saturating_add(content.len());
            self.kept.insert(entry.name.clone(), content);
        } else if node == Node::File && is_setting(&entry.name) && u64::from(entry.size) <= limits::MAX_GUEST_CONFIG {
            let left = limits::MAX_INITRAMFS_KEPT.saturating_sub(self.kept_size);
            let content = self.body(entry, body, left)?;
            self.kept_size = self.kept_size.saturating_add(content.len());
            self.settings.insert(entry.name.clone(), (entry.mode & 0o7777, content));
        }
        self.nodes.insert(entry.name.clone(), node);
        Ok(())
    }

    fn body(&self, entry: &Entry, body: &mut dyn Read, most: usize) -> Result<Vec<u8>> {
        let size = usize::try_from(entry.size).unwrap_or(usize::MAX);
        if size > most {
            return Err(Error::limit("initramfs.size", "a file of the initramfs is larger than any real one")
                .at(crate::error::escape_bytes(&entry.name)));
        }
        let mut content = vec![0; size];
        body.read_exact(&mut content).map_err(broken)?;
        Ok(content)
    }
}

/// The files whose content says which modules there are.
fn is_wanted(name: &[u8]) -> bool {
    let wanted =
        [b"modules.dep".as_slice(), b"modules.alias", b"modules.symbols", b"modules.softdep", b"modules.builtin"];
    name.rsplitn(2, |byte| *byte == b'/').next().is_some_and(|last| wanted.contains(&last))
}

/// The files by which programs in an image look for devices.
fn is_setting(name: &[u8]) -> bool {
    const NAMES: &[&str] = &[
        "conf/param.conf",
        "cryptroot/crypttab",
        "etc/cmdline",
        "etc/crypttab",
        "etc/crypttab.initramfs",
        "etc/fstab",
        "etc/lvm/devices/system.devices",
        "etc/lvm/lvm.conf",
        "etc/lvm/lvmlocal.conf",
        "etc/mdadm.conf",
        "etc/mdadm/mdadm.conf",
    ];
    const DIRS: &[&str] = &["conf/conf.d/", "config/", "etc/cmdline.d/"];
    let Ok(name) = std::str::from_utf8(name) else { return false };
    NAMES.contains(&name)
        || DIRS.iter().any(|dir| name.strip_prefix(dir).is_some_and(|rest| !rest.contains('/')))
        || name.contains("/initqueue/finished/devexists-")
}

/// A buffered stream that knows how far it has come and can look ahead.
struct Window<R> {
    input: R,
    buffer: Vec<u8>,
    start: usize,
    position: u64,
    ended: bool,
}

const CHUNK: usize = 128 << 10;

impl<R: Read> Window<R> {
    const fn new(input: R) -> Self {
        Self { input, buffer: Vec::new(), start: 0, position: 0, ended: false }
    }

    /// Takes all zero bytes that come next, and says how many they were.
    fn skip_zeros(&mut self) -> Result<u64> {
        let start = self.position;
        loop {
            let buffer = self.fill_buf().map_err(broken)?;
            let zeros = buffer.iter().take_while(|byte| **byte == 0).count();
            if zeros == 0 {
                return Ok(self.position.saturating_sub(start));
            }
            self.consume(zeros);
            if self.position.saturating_sub(start) > limits::MAX_INITRAMFS_UNPACKED {
                return Err(Error::limit("initramfs.size", "the initramfs is padded beyond any sense"));
            }
        }
    }

    /// The next `count` bytes, fewer only at the end, without taking them.
    fn peek(&mut self, count: usize) -> Result<Vec<u8>> {
        while !self.ended && self.ahead().len() < count {
            self.refill().map_err(broken)?;
        }
        Ok(self.ahead().iter().take(count).copied().collect())
    }

    fn ahead(&self) -> &[u8] {
        self.buffer.get(self.start..).unwrap_or_default()
    }

    fn refill(&mut self) -> io::Result<()> {
        self.buffer.drain(..self.start.min(self.buffer.len()));
        self.start = 0;
        let kept = self.buffer.len();
        self.buffer.resize(kept.saturating_add(CHUNK), 0);
        let read = loop {
            match self.input.read(self.buffer.get_mut(kept..).unwrap_or_default()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        let count = *read.as_ref().unwrap_or(&0);
        self.buffer.truncate(kept.saturating_add(count));
        self.ended = count == 0;
        read.map(drop)
    }
}

impl<R: Read> Read for Window<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buf)?;
        self.consume(count);
        Ok(count)
    }
}

impl<R: Read> BufRead for Window<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.ahead().is_empty() && !self.ended {
            self.refill()?;
        }
        Ok(self.ahead())
    }

    fn consume(&mut self, count: usize) {
        self.start = self.start.saturating_add(count);
        self.position = self.position.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
    }
}

fn broken(error: io::Error) -> Error {
    crate::fs::tree::cause(error, |error| {
        Error::corrupt("initramfs.decode", "the initramfs does not decode").because(error)
    })
}

#[cfg(test)]
mod tests {
    use super::super::cpio::Writer;
    use super::*;

    fn archive(files: &[(&str, &str)]) -> Vec<u8> {
        let mut writer = Writer::default();
        for (name, content) in files {
            if name.ends_with('/') {
                writer.dir(name.trim_end_matches('/'))
            } else {
                writer.file(name, content.as_bytes())
            }
            .unwrap();
        }
        writer.finish().unwrap()
    }

    fn names(image: &Image) -> Vec<String> {
        image.nodes().map(|(name, _)| String::from_utf8_lossy(name).into_owned()).collect()
    }

    #[test]
    fn reads_segments_of_every_kind_in_one_image() {
        for codec in [Codec::Bzip2, Codec::Gzip, Codec::Lzo, Codec::Xz, Codec::Zstd] {
            let mut file = archive(&[("kernel/", ""), ("kernel/ucode", "x")]);
            file.resize(file.len().next_multiple_of(512), 0);
            let mut payload = archive(&[("init", "1"), ("lib/modules/6/modules.dep", "old")]);
            payload.resize(payload.len().next_multiple_of(512), 0);
            payload.extend(archive(&[("second", "")]));
            let start = file.len();
            file.extend(codec.encode(&payload).unwrap());
            let decoded = u64::try_from(payload.len()).unwrap();
            let image = read(file.as_slice()).unwrap();
            let size = u64::try_from(file.len()).unwrap();
            let start = u64::try_from(start).unwrap();
            assert_eq!(image.end, End { start, size, codec: Some(codec), decoded, padding: 0 });
            file.resize(file.len().next_multiple_of(4), 0);
            file.extend(archive(&[("lib/modules/6/modules.dep", "new")]));
            let image = read(file.as_slice()).unwrap();
            assert_eq!(names(&image), ["init", "kernel", "kernel/ucode", "lib/modules/6/modules.dep", "second"]);
            assert_eq!(image.text("lib/modules/6/modules.dep").unwrap(), "new");
            assert_eq!(image.end.codec, None);
        }
    }

    #[test]
    fn lz4_may_be_followed_by_lz4_or_by_zeros_and_anything() {
        let first = Codec::Lz4.encode(&archive(&[("a", "1")])).unwrap();
        let second = Codec::Lz4.encode(&archive(&[("b", "2")])).unwrap();
        let image = read([first.clone(), second].concat().as_slice()).unwrap();
        assert_eq!(names(&image), ["a", "b"]);
        let mut padded = first.clone();
        padded.resize(padded.len().next_multiple_of(4).checked_add(8).unwrap(), 0);
        padded.extend(archive(&[("c", "3")]));
        assert_eq!(names(&read(padded.as_slice()).unwrap()), ["a", "c"]);
        assert!(read([first, archive(&[("c", "3")])].concat().as_slice()).is_err());
    }

    #[test]
    fn refuses_what_the_kernel_would_not_read() {
        let good = archive(&[("a", "1")]);
        let mut unaligned = good.clone();
        unaligned.push(0);
        unaligned.extend(&good);
        let mut junk = good.clone();
        junk.extend(b"junk");
        let inside = Codec::Gzip.encode(&[good.clone(), b"junk".to_vec()].concat()).unwrap();
        let cut = Codec::Gzip.encode(&good[..good.len().checked_sub(130).unwrap()]).unwrap();
        for (what, file) in [
            ("not aligned", unaligned),
            ("junk", junk),
            ("junk inside", inside),
            ("cut inside", cut),
            ("bzip2 cut off", b"BZh91AY".to_vec()),
            ("LZO cut off", b"\x89LZO\0\r\n\x1a\n".to_vec()),
            ("text", b"no image".to_vec()),
        ] {
            let error = read(file.as_slice()).unwrap_err();
            assert!(error.code().starts_with("initramfs."), "{what}: {error}");
        }
        assert_eq!(read([].as_slice()).unwrap().end, End::default());
        assert_eq!(read([0; 5000].as_slice()).unwrap().end.padding, 5000);
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        // Two files, each counted with 512 bytes beside its body.
        let most = limits::MAX_INITRAMFS_UNPACKED.checked_sub(2 * 512).unwrap();
        let first = most / 2;
        for (over, accepted) in [(-1, true), (0, true), (1, false)] {
            let rest = most.checked_sub(first).unwrap().checked_add_signed(over).unwrap();
            let mut image = Image::default();
            let mut add = |size: u64| {
                let entry = Entry { name: b"a".to_vec(), mode: 0o100_644, size: u32::try_from(size).unwrap() };
                image.add(&entry, &mut io::empty()).map_err(|error| error.code())
            };
            add(first).unwrap();
            assert_eq!(add(rest), if accepted { Ok(()) } else { Err("initramfs.size") });
        }
    }

    #[test]
    fn as_many_names_as_the_limit_and_no_more() {
        let each = 64 + 4;
        let most = limits::MAX_INITRAMFS_NAMES / each;
        for (count, accepted) in [(most - 1, true), (most, true), (most + 1, false)] {
            let mut image = Image::default();
            let mut result = Ok(());
            for index in 0..count {
                let entry = Entry { name: vec![b'x'; 4], mode: 0o100_644, size: 0 };
                assert!(result.is_ok(), "{index}");
                result = image.add(&entry, &mut io::empty());
            }
            assert_eq!(result.is_ok(), accepted, "{count}");
        }
    }

    #[test]
    fn module_lists_as_long_as_the_limit_are_kept() {
        for (over, accepted) in [(-1, true), (0, true), (1, false)] {
            let size = u64::try_from(limits::MAX_INITRAMFS_KEPT).unwrap().checked_add_signed(over).unwrap();
            let entry = |name: &[u8], size: u64| Entry {
                name: name.to_vec(),
                mode: 0o100_644,
                size: u32::try_from(size).unwrap(),
            };
            let mut image = Image::default();
            let half = size / 2;
            image.add(&entry(b"a/modules.dep", half), &mut io::repeat(b'x').take(half)).unwrap();
            let rest = size.checked_sub(half).unwrap();
            let result = image.add(&entry(b"a/modules.alias", rest), &mut io::repeat(b'x').take(rest));
            assert_eq!(result.is_ok(), accepted, "{over}");
        }
    }

    #[test]
    fn links_resolve_inside_the_image() {
        let mut image = Image::default();
        for (name, target) in [("lib", "usr/lib"), ("abs", "/usr/lib"), ("loop", "loop"), ("up", "../../usr")] {
            image.nodes.insert(name.as_bytes().to_vec(), Node::Link(target.as_bytes().to_vec()));
        }
        for release in ["6.1", "6.2"] {
            image.nodes.insert(format!("usr/lib/modules/{release}").into_bytes(), Node::Dir);
            image.nodes.insert(format!("usr/lib/modules/{release}/kernel").into_bytes(), Node::Dir);
        }
        for (path, to) in [
            ("lib/modules", Some("usr/lib/modules")),
            ("abs/x", Some("usr/lib/x")),
            ("up/lib", Some("usr/lib")),
            ("none/./x/../y", Some("none/y")),
            ("loop/x", None),
        ] {
            assert_eq!(image.canonical(path).as_deref(), to, "{path}");
        }
        let releases = image.releases();
        assert_eq!(releases[1], ("6.2".to_owned(), "usr/lib/modules/6.2".to_owned()));
        assert_eq!(releases.len(), 2);
    }
}
