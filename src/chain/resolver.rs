//! The only opener of names that come from an image.
//!
//! By default a reference may be a plain name of a regular file in the image's own directory, and nothing else. `--map-path`
//! and `--allow-dir` widen that, always beneath a directory that is opened once, and never through a symbolic link. Whatever is
//! refused for its name is refused before the host is asked, so a refusal says nothing about the host.
//!
//! An image on a web server has its neighbours there: a plain name is that of a file in the same directory of the same server.
//! `--map-path` leads from either to a directory of this host or of a web server, which the user then names himself.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::running;
use crate::disk::Disk;
use crate::error::{Error, Kind, Result};
use crate::limits;
use crate::session::Session;
use crate::source::{Address, FileSource, Location, Reference, Role, has_scheme, open_remote};

/// Opens the references of one image.
#[derive(Debug)]
pub struct Resolver {
    session: Arc<Session>,
    home: Home,
    depth: u32,
}

/// Where an image lies.
#[derive(Clone, Debug)]
enum Home {
    /// In a directory of this host.
    Directory {
        /// The directory, open.
        fd: Arc<OwnedFd>,
        /// The same as a path, for comparing with allowed directories; never shown.
        path: PathBuf,
    },
    /// On another machine: the image's own address.
    Remote(Address),
}

/// A reference, opened.
#[derive(Debug)]
pub struct Resolved {
    /// Its bytes.
    pub source: Arc<dyn Disk>,
    /// What opens the references that it makes itself.
    pub resolver: Resolver,
    /// The sign that a machine uses it, if it is a disk of one.
    pub lock: Option<String>,
}

impl Resolver {
    /// The resolver for the image at `image`, which the user named.
    ///
    /// # Errors
    /// When the image's directory cannot be opened.
    pub fn beside(image: &Location, session: &Arc<Session>) -> Result<Self> {
        let home = match image {
            Location::Path(path) => Home::of(path)?,
            Location::Remote(address) => Home::Remote(address.clone()),
        };
        Ok(Self { session: Arc::clone(session), home, depth: 0 })
    }

    /// Opens `reference`.
    ///
    /// # Errors
    /// `reference.refused` when policy forbids the name, `reference.missing` when it is allowed and not there,
    /// `reference.depth` when the chain is too long.
    pub fn open(&self, reference: &Reference) -> Result<Resolved> {
        let depth = self.depth.saturating_add(1);
        if depth >= limits::MAX_CHAIN_DEPTH {
            return Err(Error::limit("reference.depth", "the chain of images is too long, or goes round in a circle")
                .at(reference)
                .expected(format!("at most {} layers", limits::MAX_CHAIN_DEPTH)));
        }
        match self.allow(reference)? {
            Allowed::Beside(name) => match &self.home {
                Home::Directory { fd, .. } => self.file(fd.as_fd(), &name, self.home.clone(), reference, depth),
                Home::Remote(address) => self.remote(address.beside(reference)?, reference, depth),
            },
            Allowed::Beneath(dir, name) => self.beneath(&dir, &name, reference, depth),
            Allowed::Remote(address) => self.remote(address, reference, depth),
        }
    }

    /// Opens a file beneath a directory that the user named.
    fn beneath(&self, dir: &Path, name: &Path, reference: &Reference, depth: u32) -> Result<Resolved> {
        let base = rustix::fs::openat(CWD, dir, DIRECTORY, Mode::empty()).map_err(|_| missing(reference))?;
        let parent = name.parent().filter(|parent| !parent.as_os_str().is_empty());
        let path = dir.join(parent.unwrap_or(Path::new("")));
        let fd = match parent {
            Some(parent) => open_beneath(base.as_fd(), parent, DIRECTORY, reference)?,
            None => base.try_clone().map_err(|error| {
                Error::unreadable("cannot open a file that the image refers to", error).at(reference)
            })?,
        };
        self.file(base.as_fd(), name, Home::Directory { fd: Arc::new(fd), path }, reference, depth)
    }

    /// Opens the file `name` beneath `base`; its own references are seen from `home`.
    fn file(
        &self,
        base: BorrowedFd<'_>,
        name: &Path,
        home: Home,
        reference: &Reference,
        depth: u32,
    ) -> Result<Resolved> {
        let fd = open_beneath(base, name, FILE, reference)?;
        let lock = lock_of(base, name, &fd, reference);
        let source = FileSource::from_regular(fd, reference.to_string())?;
        Ok(Resolved { source, resolver: Self { session: Arc::clone(&self.session), home, depth }, lock })
    }

    /// Opens a file on another machine.
    fn remote(&self, address: Address, reference: &Reference, depth: u32) -> Result<Resolved> {
        let source = open_remote(&address, &self.session).map_err(|error| match error.code() {
            "http.missing" | "nbd.missing" | "object.missing" | "ssh.missing" => missing(reference),
            _ => error,
        })?;
        let resolver = Self { session: Arc::clone(&self.session), home: Home::Remote(address), depth };
        Ok(Resolved { source, resolver, lock: None })
    }

    /// The sign that a machine uses the image called `name`, which the user named, in the resolver's directory.
    #[must_use]
    pub fn lock(&self, name: &OsStr) -> Option<String> {
        let Home::Directory { fd, .. } = &self.home else { return None };
        let stat = rustix::fs::statat(fd, name, AtFlags::empty()).ok()?;
        running::lock(fd.as_fd(), Path::new(name), stat.st_ino)
    }

    /// Decides by the name alone.
    fn allow(&self, reference: &Reference) -> Result<Allowed> {
        let name = reference.name.as_slice();
        if name.is_empty() || name.contains(&0) || name.len() > limits::MAX_REFERENCE {
            return Err(refused(reference));
        }
        if let Some(allowed) = self.mapped(name) {
            return allowed.ok_or_else(|| refused(reference));
        }
        if reference.is_plain() {
            return Ok(Allowed::Beside(PathBuf::from(OsStr::from_bytes(name))));
        }
        self.in_allowed_dir(name).ok_or_else(|| refused(reference))
    }

    /// The place that `--map-path` gives to a name; `Some(None)` when a mapping fits but what follows it climbs out.
    #[expect(clippy::option_option, reason = "no mapping and a bad one are different answers")]
    fn mapped(&self, name: &[u8]) -> Option<Option<Allowed>> {
        for (old, new) in &self.session.policy.map_path {
            let Some(rest) = name.strip_prefix(old.as_bytes()) else { continue };
            if rest.is_empty() {
                if let Some(address) = remote_place(new) {
                    return Some(address.map(Allowed::Remote));
                }
                let parent = new.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
                let file_name = new.file_name().map(PathBuf::from);
                return Some(file_name.map(|name| Allowed::Beneath(parent.to_path_buf(), name)));
            }
            let at_boundary = old.ends_with(['/', '\\']) || matches!(rest.first(), Some(b'/' | b'\\'));
            if !at_boundary {
                continue;
            }
            let rest = if old.contains('\\') {
                rest.iter().map(|b| if *b == b'\\' { b'/' } else { *b }).collect()
            } else {
                rest.to_vec()
            };
            let first = rest.iter().position(|b| *b != b'/').unwrap_or(rest.len());
            let rest = Path::new(OsStr::from_bytes(rest.get(first..).unwrap_or_default()));
            if !descending(rest) {
                return Some(None);
            }
            return Some(match remote_place(new) {
                Some(address) => address.and_then(|address| address.beneath(rest.to_str()?)).map(Allowed::Remote),
                None => Some(Allowed::Beneath(new.clone(), rest.to_path_buf())),
            });
        }
        None
    }

    /// The place beneath an `--allow-dir` directory to which a name leads, by its text alone.
    fn in_allowed_dir(&self, name: &[u8]) -> Option<Allowed> {
        if has_scheme(name) || name.contains(&b'\\') {
            return None;
        }
        let Home::Directory { path, .. } = &self.home else { return None };
        let target = normalize(&path.join(OsStr::from_bytes(name)))?;
        self.session.policy.allow_dirs.iter().find_map(|dir| {
            let dir = std::fs::canonicalize(dir).ok()?;
            let rest = target.strip_prefix(&dir).ok()?.to_path_buf();
            descending(&rest).then_some(Allowed::Beneath(dir, rest))
        })
    }
}

/// Opens a directory as a place only.
const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Opens a file for reading; NONBLOCK keeps a fifo from blocking the open.
const FILE: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NOCTTY).union(OFlags::NONBLOCK);

impl Home {
    /// The directory of the file at `path`.
    fn of(path: &Path) -> Result<Self> {
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let cannot = |error| Error::unreadable("cannot open the source's directory", error).path(parent);
        let fd = rustix::fs::openat(CWD, parent, DIRECTORY, Mode::empty()).map_err(|errno| cannot(errno.into()))?;
        let path = std::fs::canonicalize(parent).map_err(cannot)?;
        Ok(Self::Directory { fd: Arc::new(fd), path })
    }
}

/// Where policy lets a name lead.
#[derive(Debug)]
enum Allowed {
    /// To a file in the image's own directory.
    Beside(PathBuf),
    /// To a file beneath a directory, which it may not leave.
    Beneath(PathBuf, PathBuf),
    /// To a file on another machine.
    Remote(Address),
}

/// The address that the new place of a mapping is, if it is none of this host; `Some(None)` when it is one that is not read.
#[expect(clippy::option_option, reason = "a path and a bad address are different answers")]
fn remote_place(new: &Path) -> Option<Option<Address>> {
    match Location::parse(new.to_str()?) {
        Ok(Location::Path(_)) => None,
        Ok(Location::Remote(address)) => Some(Some(address)),
        Err(_) => Some(None),
    }
}

/// Whether `path` is relative, not empty, and only goes down.
fn descending(path: &Path) -> bool {
    !path.as_os_str().is_empty() && path.components().all(|part| matches!(part, Component::Normal(_)))
}

/// An absolute path without `.` and `..`, by its text alone; `None` when it climbs above the root.
fn normalize(path: &Path) -> Option<PathBuf> {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                if !out.pop() {
                    return None;
                }
            }
            part => out.push(part),
        }
    }
    Some(out)
}

/// The sign that a machine uses a disk of its own. Parents are only read by it, and extents belong to a descriptor.
fn lock_of(dir: BorrowedFd<'_>, name: &Path, file: &OwnedFd, reference: &Reference) -> Option<String> {
    if reference.role != Role::Member {
        return None;
    }
    running::lock(dir, name, rustix::fs::fstat(file).ok()?.st_ino)
}

fn open_beneath(dir: BorrowedFd<'_>, name: &Path, flags: OFlags, reference: &Reference) -> Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(dir, name, flags, Mode::empty(), resolve).map_err(|errno| match errno {
        Errno::NOENT | Errno::NOTDIR => missing(reference),
        Errno::LOOP | Errno::XDEV => refused(reference),
        Errno::NOSYS => Error::refused("reference.kernel", "this kernel cannot open references safely")
            .at(reference)
            .hint("use Linux 5.6 or newer, which has openat2"),
        errno => Error::unreadable("cannot open a file that the image refers to", errno.into()).at(reference),
    })
}

fn refused(reference: &Reference) -> Error {
    Error::refused("reference.refused", "the image refers to a file that it may not name")
        .at(reference)
        .expected("a plain name of a file in the image's own directory")
        .hint("if you trust the image, allow the place with --allow-dir DIR or --map-path OLD=NEW")
}

fn missing(reference: &Reference) -> Error {
    Error::new(Kind::Unreadable, "reference.missing", "a file that the image refers to is not there").at(reference)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{Budget, Policy};

    struct Place {
        dir: tempfile::TempDir,
    }

    impl Place {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let place = Self { dir };
            for name in ["home", "home/sub", "other", "other/deep"] {
                std::fs::create_dir(place.path(name)).unwrap();
            }
            for name in ["home/a.vmdk", "home/sub/b.vmdk", "other/c.vmdk", "other/deep/d.vmdk"] {
                std::fs::write(place.path(name), name).unwrap();
            }
            std::os::unix::fs::symlink("a.vmdk", place.path("home/link")).unwrap();
            std::os::unix::fs::symlink("/nowhere", place.path("home/dangling")).unwrap();
            place
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn open(&self, name: &str, policy: Policy) -> Result<Vec<u8>> {
            let session = Session::new(Budget::new(0), policy, 1);
            let resolver = Resolver::beside(&Location::Path(self.path("home/image.vmdk")), &session)?;
            let source = resolver.open(&Reference::new(name, Role::Extent))?.source;
            crate::disk::read_vec(&*source, 0, usize::try_from(source.len()).unwrap())
        }

        fn allowing(&self, dir: &str) -> Policy {
            Policy { allow_dirs: vec![self.path(dir)], ..Policy::default() }
        }

        fn mapping(&self, old: &str, new: &str) -> Policy {
            Policy { map_path: vec![(old.into(), self.path(new))], ..Policy::default() }
        }
    }

    #[test]
    fn images_on_web_servers_name_their_neighbours_and_nothing_of_this_host() {
        let place = Place::new();
        let image = Location::parse("http://127.0.0.1:1/d/image.vmdk").unwrap();
        let web = |policy: Policy| Resolver::beside(&image, &Session::new(Budget::new(0), policy, 1)).unwrap();
        let allow = |policy: Policy, name: &str| web(policy).allow(&Reference::new(name, Role::Extent));
        let absolute = place.path("other/c.vmdk");
        for name in ["../a.vmdk", "/etc/passwd", "http://127.0.0.1:1/d/b.vmdk", absolute.to_str().unwrap()] {
            assert_eq!(allow(place.allowing("other"), name).unwrap_err().code(), "reference.refused", "{name}");
        }
        assert!(matches!(allow(Policy::default(), "b.vmdk").unwrap(), Allowed::Beside(_)));
        let mapped = |new: &str| Policy { map_path: vec![("/vmfs/".into(), new.into())], ..Policy::default() };
        let Allowed::Remote(address) = allow(mapped("https://h/store/"), "/vmfs/x/y z.vmdk").unwrap() else { panic!() };
        assert_eq!(address.to_string(), "https://h/store/x/y%20z.vmdk");
        assert!(matches!(allow(mapped("/srv"), "/vmfs/x.vmdk").unwrap(), Allowed::Beneath(..)));
        for (new, name) in [("https://h/store/", "/vmfs/../x"), ("ftp://h/", "/vmfs/x"), ("https://u:p@h/", "/vmfs/x")]
        {
            assert_eq!(allow(mapped(new), name).unwrap_err().code(), "reference.refused", "{new} {name}");
        }
        assert!(web(Policy::default()).lock(OsStr::new("image.vmdk")).is_none());
    }

    #[test]
    fn a_plain_name_beside_the_image_opens() {
        assert_eq!(Place::new().open("a.vmdk", Policy::default()).unwrap(), b"home/a.vmdk");
    }

    #[test]
    fn everything_else_is_refused_by_default() {
        let place = Place::new();
        let absolute = place.path("other/c.vmdk");
        for name in [
            "",
            "/etc/passwd",
            "/etc/no-such-file",
            "../other/c.vmdk",
            "..",
            ".",
            "./a.vmdk",
            "sub/b.vmdk",
            "a.vmdk\0.txt",
            "json:{\"driver\":\"file\"}",
            "nbd:localhost:10809",
            "http://169.254.169.254/latest/meta-data",
            "file:a.vmdk",
            "C:\\a.vmdk",
            "sub\\b.vmdk",
            "link",
            "dangling",
            "/proc/self/root/etc/passwd",
            absolute.to_str().unwrap(),
        ] {
            let error = place.open(name, Policy::default()).unwrap_err();
            assert_eq!((error.code(), error.kind().exit_code()), ("reference.refused", 5), "{name}");
        }
        assert_eq!(place.open("sub", Policy::default()).unwrap_err().code(), "reference.refused");
        assert_eq!(place.open("absent.vmdk", Policy::default()).unwrap_err().code(), "reference.missing");
        assert_eq!(place.open(&"x".repeat(5000), Policy::default()).unwrap_err().code(), "reference.refused");
    }

    #[test]
    fn a_refusal_is_the_same_whether_the_target_exists_or_not() {
        let place = Place::new();
        let there = place.open("/etc/passwd", Policy::default()).unwrap_err();
        let absent = place.open("/etc/passwx", Policy::default()).unwrap_err();
        assert_eq!(there.to_json().to_string().replace("passwd", "passwx"), absent.to_json().to_string());
        let text = place.open("../other/c.vmdk", Policy::default()).unwrap_err().to_json().to_string();
        assert!(!text.contains(place.dir.path().to_str().unwrap()), "{text}");
    }

    #[test]
    fn allowed_directories_open_what_lies_beneath_them() {
        let place = Place::new();
        let absolute = place.path("other/deep/d.vmdk");
        for name in [absolute.to_str().unwrap(), "../other/deep/d.vmdk", "sub/../../other/./deep/d.vmdk"] {
            assert_eq!(place.open(name, place.allowing("other")).unwrap(), b"other/deep/d.vmdk", "{name}");
        }
        for name in ["/etc/passwd", "../home/../../x", "sub/b.vmdk", "file:///etc/passwd"] {
            assert_eq!(place.open(name, place.allowing("other")).unwrap_err().code(), "reference.refused", "{name}");
        }
        assert_eq!(place.open("sub/b.vmdk", place.allowing("home")).unwrap(), b"home/sub/b.vmdk");
        assert_eq!(place.open("sub/../link", place.allowing("home")).unwrap_err().code(), "reference.refused");
    }

    #[test]
    fn mapped_prefixes_lead_beneath_their_new_place() {
        let place = Place::new();
        let cases = [
            ("/vmfs/volumes/X", "other", "/vmfs/volumes/X/deep/d.vmdk", "other/deep/d.vmdk"),
            ("C:\\", "other", "C:\\deep\\d.vmdk", "other/deep/d.vmdk"),
            ("C:\\vm", "other", "C:\\vm\\c.vmdk", "other/c.vmdk"),
            ("base.vmdk", "other/c.vmdk", "base.vmdk", "other/c.vmdk"),
        ];
        for (old, new, name, found) in cases {
            assert_eq!(place.open(name, place.mapping(old, new)).unwrap(), found.as_bytes(), "{name}");
        }
        let policy = || place.mapping("/vmfs", "other");
        for name in ["/vmfs/../home/a.vmdk", "/vmfs/", "/vmfsx/c.vmdk", "/other/vmfs/c.vmdk"] {
            assert_eq!(place.open(name, policy()).unwrap_err().code(), "reference.refused", "{name}");
        }
        assert_eq!(place.open("/vmfs/absent", policy()).unwrap_err().code(), "reference.missing");
    }

    #[test]
    fn the_depth_is_bounded() {
        let place = Place::new();
        let mut resolver =
            Resolver::beside(&Location::Path(place.path("home/image")), &Session::with_defaults()).unwrap();
        let reference = Reference::new("a.vmdk", Role::Parent);
        for _ in 1..limits::MAX_CHAIN_DEPTH {
            resolver = resolver.open(&reference).unwrap().resolver;
        }
        assert_eq!(resolver.open(&reference).unwrap_err().code(), "reference.depth");
    }
}
