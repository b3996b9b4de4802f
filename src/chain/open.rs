//! From what the user names to flat disks.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::image::Image;
use super::resolver::{Resolved, Resolver};
use super::running;
use super::selection::Selection;
use crate::cache::BlockCache;
use crate::container::manifest::Manifest;
use crate::container::ova::{self, Ova};
use crate::container::ovf::{self, Delivery, Ovf, OvfDisk};
use crate::container::{Bundle, Compression, Digests, Members, Packed, digests::Verified, tar, vmx};
use crate::disk::{Checked, Concat, Disk, Zero, read_vec};
use crate::error::{Error, Result};
use crate::format::{Ask, Driver, Layer, Parent, Sample, probe, raw};
use crate::limits;
use crate::session::Session;
use crate::source::{FileSource, Location, Reference, Role, open_remote};

/// How to open a source.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// The format of the file (`--format`), `ova` and `ovf` included; `None` looks for magic numbers.
    pub format: Option<String>,
    /// The state to read instead of the current one, by id or name (`--snapshot`).
    pub snapshot: Option<String>,
    /// Which disks to open; the others are left alone.
    pub disks: Selection,
}

/// A source, opened.
#[derive(Debug)]
pub struct Opened {
    /// As the user gave it.
    pub location: Location,
    /// `ova` or `ovf` for a package.
    pub container: Option<&'static str>,
    /// The machine that the package describes.
    pub machine: Option<Ovf>,
    /// The disks in the machine's order.
    pub disks: Vec<OpenedDisk>,
    /// The manifest's digests, which the pass over the disks computes; [`Digests::finish`] reads the rest and compares.
    pub digests: Option<Arc<Digests>>,
    /// Files whose digests were compared already.
    pub verified: Vec<Verified>,
    /// Every file that was opened, behind its cache; the one that the user named is the first.
    pub sources: Vec<Arc<dyn Disk>>,
    /// What is worth telling the user, one sentence each.
    pub notes: Vec<String>,
}

/// One disk of a source.
#[derive(Debug)]
pub struct OpenedDisk {
    /// The name of the disk's file, or its id where it has none.
    pub name: String,
    /// The flat disk.
    pub image: Arc<Checked<Image>>,
    /// What the package says of it.
    pub described: Option<OvfDisk>,
}

impl OpenedDisk {
    /// The flat disk, as the boxes above take it.
    #[must_use]
    pub fn disk(&self) -> Arc<dyn Disk> {
        Arc::clone(&self.image) as Arc<dyn Disk>
    }
}

/// Opens the source at `location`: a disk image in any known format, an OVA, or an OVF descriptor with its files beside it.
///
/// # Errors
/// Those of the source, the package, the format and the references; every one has a place.
pub fn open(location: impl Into<Location>, options: &OpenOptions, session: &Arc<Session>) -> Result<Opened> {
    let location = &location.into();
    let opener = Opener {
        session,
        snapshot: options.snapshot.as_deref(),
        resolver: Resolver::beside(location, session)?,
        files: Mutex::default(),
        notes: Mutex::default(),
        unpacked: AtomicBool::new(false),
    };
    let source: Arc<dyn Disk> = match location {
        Location::Path(path) => FileSource::open(path)?,
        Location::Remote(address) => open_remote(address, session)?,
    };
    let file = BlockCache::wrap(source, session);
    let name = location.file_name();
    let mut opened = opener.file(location, name, &file, options).map_err(|error| error.at(location))?;
    opened.sources.push(file);
    let others = opener.files.into_inner().unwrap_or_else(PoisonError::into_inner);
    opened.sources.extend(others.into_iter().map(|(_, file)| file as Arc<dyn Disk>));
    opened.notes.extend(opener.notes.into_inner().unwrap_or_else(PoisonError::into_inner));
    Ok(opened)
}

/// What the file at hand is.
enum Container {
    None(&'static Driver),
    Ova,
    Ovf,
    /// A tar archive that is no OVA.
    Tar,
    Vmx,
}

/// A source behind its cache.
type Cached = Arc<Checked<BlockCache>>;

struct Opener<'a> {
    session: &'a Arc<Session>,
    /// What the topmost layer of each disk is asked for.
    snapshot: Option<&'a str>,
    resolver: Resolver,
    /// The other files that were opened: those beside the source with their names, so that each is opened once.
    files: Mutex<Vec<(Option<Vec<u8>>, Cached)>>,
    /// What is worth telling the user of the layers.
    notes: Mutex<Vec<String>>,
    /// Whether the source itself was compressed: what is in it must not be.
    unpacked: AtomicBool,
}

impl Opener<'_> {
    /// The file that the user named, with its compression undone.
    fn file(&self, location: &Location, name: String, file: &Cached, options: &OpenOptions) -> Result<Opened> {
        let Some(compression) = compression(&**file, options)? else {
            return self.content(location, &name, file, options);
        };
        let packed = Packed::open(Arc::<Checked<BlockCache>>::clone(file), compression, self.session)?;
        let content = BlockCache::wrap(packed, self.session);
        self.unpacked.store(true, Ordering::Relaxed);
        let stem = name.rsplit_once('.').map_or(name.as_str(), |(stem, _)| stem);
        let mut opened = self.content(location, stem, &content, options)?;
        match opened.container {
            None => opened.container = Some(compression.name()),
            Some(_) => opened.notes.push(format!("the package is compressed with {}", compression.name())),
        }
        Ok(opened)
    }

    fn content(&self, location: &Location, name: &str, source: &Cached, options: &OpenOptions) -> Result<Opened> {
        let container = self.container(source, options)?;
        if matches!(container, Container::Vmx) || matches!(container, Container::None(driver) if driver.name == "vmdk")
        {
            let name = location.path().and_then(Path::file_name);
            let lock = name.and_then(|name| self.resolver.lock(name));
            self.running(lock)?;
        }
        match container {
            Container::None(driver) => {
                options.disks.pick(&[vec![name]])?;
                self.disk(location, name.to_owned(), source, driver)
            }
            Container::Ova => self.ova(location, source, options),
            Container::Ovf => self.ovf(location, name, source, options),
            Container::Tar => self.bundle(location, source, options),
            Container::Vmx => self.vmx(location, source, options),
        }
    }

    /// Decides by `--format` or by magic numbers, once.
    fn container(&self, source: &Cached, options: &OpenOptions) -> Result<Container> {
        match options.format.as_deref() {
            Some("ova") => return Ok(Container::Ova),
            Some("ovf") => return Ok(Container::Ovf),
            Some("vmx") => return Ok(Container::Vmx),
            Some(name) => {
                let driver = probe::by_name(name)?;
                let sample = Sample::take(&**source)?;
                let archive = tar::probe(&sample.head) && probe::marks(&sample).is_empty();
                return Ok(if archive { Container::Tar } else { Container::None(driver) });
            }
            None => {}
        }
        let sample = Sample::take(&**source)?;
        let (ova, ovf, vmx) = (tar::probe(&sample.head), ovf::probe(&sample.head), vmx::probe(&sample.head));
        if !ova && !ovf && !vmx {
            return Ok(Container::None(probe::detect(&sample)?));
        }
        let marks = probe::marks(&sample);
        if !marks.is_empty() {
            return Err(probe::ambiguous(&marks.join(", ")));
        }
        Ok(match ova {
            false if vmx => Container::Vmx,
            false => Container::Ovf,
            true if Bundle::has_descriptor(source)? => Container::Ova,
            true => Container::Tar,
        })
    }

    fn opened(&self, location: &Location, disks: Vec<OpenedDisk>) -> Opened {
        Opened {
            location: location.clone(),
            container: None,
            machine: None,
            disks,
            digests: None,
            verified: Vec::new(),
            sources: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// The file is a disk itself.
    fn disk(&self, location: &Location, name: String, source: &Cached, driver: &'static Driver) -> Result<Opened> {
        let file = Arc::<Checked<BlockCache>>::clone(source);
        let layers = self.layers(file, Some(driver), &self.top(), &Names::Beside(&self.resolver))?;
        Ok(self.opened(location, vec![OpenedDisk { name, image: self.image(layers)?, described: None }]))
    }

    /// The file is an archive of images, such as a cloud's `disk.raw` in a `.tar.gz`.
    fn bundle(&self, location: &Location, source: &Cached, options: &OpenOptions) -> Result<Opened> {
        let bundle = Bundle::open(source)?;
        let driver = options.format.as_deref().map(probe::by_name).transpose()?;
        let mut images = Vec::new();
        for (name, file) in bundle.files()? {
            let found = match driver {
                Some(driver) => Some(driver),
                None => match probe::detect(&Sample::take(&*file)?) {
                    Ok(driver) => Some(driver),
                    Err(error) if error.code() == "format.unknown" => None,
                    Err(error) => return Err(error.at(name)),
                },
            };
            if let Some(driver) = found {
                images.push((name, file, driver));
            }
        }
        if images.is_empty() {
            return Err(Error::unsupported("tar.no-image", "the archive holds no disk image that is recognised")
                .hint("if it holds a raw disk without a partition table, say so: --format raw"));
        }
        let named: Vec<Vec<&str>> = images.iter().map(|(name, ..)| vec![name.as_str()]).collect();
        let chosen = options.disks.pick(&named)?;
        let mut disks = Vec::new();
        for (position, (name, file, driver)) in images.into_iter().enumerate() {
            if chosen.contains(&position) {
                let layers = self
                    .layers(file, Some(driver), &self.top(), &Names::Inside(&bundle))
                    .map_err(|error| error.at(&name))?;
                disks.push(OpenedDisk { name, image: self.image(layers)?, described: None });
            }
        }
        Ok(Opened { container: Some("tar"), notes: bundle.notes(), ..self.opened(location, disks) })
    }

    fn ova(&self, location: &Location, source: &Cached, options: &OpenOptions) -> Result<Opened> {
        let ova = Ova::open(source)?;
        let mut disks = Vec::new();
        for described in select(&ova.ovf.disks, &options.disks)? {
            let open = |href: &str| ova.file(href);
            disks.push(self.described(described, &open, &Names::Inside(&ova))?);
        }
        let only = (!options.disks.is_all()).then(|| names(&disks));
        let digests = ova.digests(&|name| is_wanted(only.as_deref(), name), self.session)?;
        let notes = [ova.notes.clone(), size_notes(&disks)].concat();
        Ok(Opened {
            container: Some("ova"),
            verified: ova.verified.clone(),
            machine: Some(ova.ovf),
            digests: digests.map(Arc::new),
            notes,
            ..self.opened(location, disks)
        })
    }

    /// The file is a descriptor; disks and manifest lie beside it.
    fn ovf(&self, location: &Location, name: &str, source: &Cached, options: &OpenOptions) -> Result<Opened> {
        let bytes = text(&**source, limits::MAX_OVF)?;
        let manifest = self.manifest(name)?;
        let verified = ova::check_descriptor(manifest.as_ref(), name, &bytes)?;
        let machine = Ovf::parse(&bytes)?;
        let mut disks = Vec::new();
        for described in select(&machine.disks, &options.disks)? {
            let open = |href: &str| -> Result<Arc<dyn Disk>> { Ok(self.member(href)?) };
            disks.push(self.described(described, &open, &Names::Beside(&self.resolver))?);
        }
        let mut digests = manifest.as_ref().map(|_| Digests::default());
        let wanted = manifest.iter().flat_map(|manifest| &manifest.digests).filter(|expected| expected.name != name);
        let only = (!options.disks.is_all()).then(|| names(&disks));
        for expected in wanted.filter(|expected| is_wanted(only.as_deref(), &expected.name)) {
            let file = self.member(&expected.name)?;
            if let Some(digests) = &mut digests {
                digests.watch(&file, vec![(0..file.len(), expected.clone())], self.session);
            }
        }
        let mut notes = [machine.notes.clone(), size_notes(&disks)].concat();
        if manifest.is_none() {
            notes.push("the package has no manifest, so nothing vouches for its bytes".into());
        }
        Ok(Opened {
            container: Some("ovf"),
            machine: Some(machine),
            digests: digests.map(Arc::new),
            verified,
            notes,
            ..self.opened(location, disks)
        })
    }

    /// The file is a machine's configuration; its disks lie beside it, or where the user lets its names lead.
    fn vmx(&self, location: &Location, source: &Cached, options: &OpenOptions) -> Result<Opened> {
        let machine = vmx::parse(&text(&**source, limits::MAX_VMX)?)?;
        let mut disks = Vec::new();
        for described in select(&machine.disks, &options.disks)? {
            let name = described.href.clone().unwrap_or_default();
            let reference = Reference::new(name.as_str(), Role::Member);
            let layers =
                self.resolver.open(&reference).and_then(|found| self.top_in(found)).map_err(|e| e.at(&name))?;
            disks.push(OpenedDisk { name, image: self.image(layers)?, described: Some(described.clone()) });
        }
        let notes = machine.notes.clone();
        Ok(Opened { container: Some("vmx"), machine: Some(machine), notes, ..self.opened(location, disks) })
    }

    /// The layers from a machine's disk on, which may lie in a directory of its own.
    fn top_in(&self, resolved: Resolved) -> Result<Vec<Arc<dyn Layer>>> {
        self.running(resolved.lock)?;
        let file = BlockCache::wrap(resolved.source, self.session);
        self.files.lock().unwrap_or_else(PoisonError::into_inner).push((None, Arc::clone(&file)));
        self.layers(file, None, &self.top(), &Names::Beside(&resolved.resolver))
    }

    /// The manifest beside the descriptor `name`, if there is one.
    fn manifest(&self, name: &str) -> Result<Option<Manifest>> {
        let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
        let reference = Reference::new(format!("{stem}.mf"), Role::Member);
        let file = match self.resolver.open(&reference) {
            Ok(resolved) => resolved.source,
            Err(error) if error.code() == "reference.missing" => return Ok(None),
            Err(error) => return Err(error),
        };
        Manifest::parse(&text(&*file, limits::MAX_MANIFEST)?).map(Some).map_err(|error| error.at(&reference))
    }

    /// A file of a package that lies beside its descriptor: by the name as written, else with percent escapes resolved.
    fn member(&self, href: &str) -> Result<Cached> {
        let plain = href.strip_prefix("./").unwrap_or(href);
        match self.beside(&self.resolver, &Reference::new(plain, Role::Member)) {
            Err(error) if error.code() == "reference.missing" => match ova::unescape(plain) {
                Some(unescaped) if unescaped != plain => {
                    self.beside(&self.resolver, &Reference::new(unescaped, Role::Member)).map_err(|_| error)
                }
                _ => Err(error),
            },
            result => result,
        }
    }

    /// A disk that a package describes.
    fn described(
        &self,
        described: &OvfDisk,
        open: &dyn Fn(&str) -> Result<Arc<dyn Disk>>,
        names: &Names<'_>,
    ) -> Result<OpenedDisk> {
        let layers = match &described.href {
            Some(href) => self
                .delivered(href, &described.delivery, open)
                .and_then(|file| self.layers(file, None, &self.top(), names))
                .map_err(|error| error.at(href))?,
            None => vec![self.empty(described)?],
        };
        let name = described.href.clone().unwrap_or_else(|| described.id.clone());
        Ok(OpenedDisk { name, image: self.image(layers)?, described: Some(described.clone()) })
    }

    /// A file of a package, its chunks put together and its compression undone.
    fn delivered(
        &self,
        href: &str,
        delivery: &Delivery,
        open: &dyn Fn(&str) -> Result<Arc<dyn Disk>>,
    ) -> Result<Arc<dyn Disk>> {
        let file = match delivery.chunk_size {
            Some(size) => chunks(href, size, open)?,
            None => open(href)?,
        };
        if delivery.chunk_size.is_some() && delivery.size.is_some_and(|size| size > file.len()) {
            return Err(Error::corrupt("ovf.chunk", "the last chunks of a file are missing")
                .expected(format!("{} bytes in all", delivery.size.unwrap_or(0)))
                .found(file.len()));
        }
        if delivery.size.is_some_and(|size| size != file.len()) {
            self.note(format!("{href}: the descriptor gives another file size than the file has"));
        }
        if !delivery.gzip {
            return Ok(file);
        }
        let sample = Sample::take(&*file)?;
        if Compression::detect(&sample.head) != Some(Compression::Gzip) {
            self.note(format!("{href}: the descriptor says that it is compressed, and it is not"));
            return Ok(file);
        }
        if self.unpacked.load(Ordering::Relaxed) {
            return Err(Error::unsupported("packed.nested", "a compressed package holds a compressed disk")
                .hint("decompress the package first"));
        }
        Ok(BlockCache::wrap(Packed::open(file, Compression::Gzip, self.session)?, self.session))
    }

    /// Refuses a disk that a machine uses, or notes it.
    fn running(&self, lock: Option<String>) -> Result<()> {
        running::check(lock, self.session)?.into_iter().for_each(|note| self.note(note));
        Ok(())
    }

    fn note(&self, note: String) {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).push(note);
    }

    /// A disk that is delivered without content.
    fn empty(&self, described: &OvfDisk) -> Result<Arc<dyn Layer>> {
        let capacity = described.capacity.filter(|capacity| (1..=limits::MAX_DISK_LEN).contains(capacity));
        let len = capacity.ok_or_else(|| {
            Error::corrupt("ovf.descriptor", "a disk has neither a file nor a size").at(&described.id)
        })?;
        (raw::open(Checked::wrap(Zero { len }), &Ask::current(self.session))?.build)(Vec::new())
    }

    /// What a topmost layer is asked for.
    fn top(&self) -> Ask<'_> {
        Ask { session: self.session, snapshot: self.snapshot }
    }

    fn image(&self, layers: Vec<Arc<dyn Layer>>) -> Result<Arc<Checked<Image>>> {
        Ok(Checked::wrap(Image::new(layers, self.session)?))
    }

    /// The layer that `file` holds and all layers below it. The resolver bounds how many there are.
    fn layers(
        &self,
        file: Arc<dyn Disk>,
        driver: Option<&'static Driver>,
        ask: &Ask<'_>,
        names: &Names<'_>,
    ) -> Result<Vec<Arc<dyn Layer>>> {
        self.session.check()?;
        let driver = match driver {
            Some(driver) => driver,
            None => probe::detect(&Sample::take(&*file)?)?,
        };
        let head = (driver.open)(file, ask)?;
        let extents = head.extents.iter().map(|reference| self.extent(names, reference));
        let mut layers = vec![(head.build)(extents.collect::<Result<_>>()?)?];
        if let Some(parent) = &head.parent {
            layers.extend(self.parent(names, parent)?);
        }
        Ok(layers)
    }

    /// A file that holds bytes of a layer.
    fn extent(&self, names: &Names<'_>, reference: &Reference) -> Result<Arc<dyn Disk>> {
        match names {
            Names::Beside(resolver) => Ok(self.beside(resolver, reference)?),
            Names::Inside(package) => inside(*package, reference),
        }
    }

    /// The layers from a parent on: those of the first of its names that leads to the one that was meant.
    fn parent(&self, names: &Names<'_>, parent: &Parent) -> Result<Vec<Arc<dyn Layer>>> {
        let Names::Beside(resolver) = names else {
            return Err(Error::unsupported("ovf.unsupported", "a disk of the package is based on another image"));
        };
        let mut first_failure = None;
        for reference in &parent.names {
            let resolved = match resolver.open(reference) {
                Ok(resolved) => resolved,
                Err(error) if matches!(error.code(), "reference.missing" | "reference.refused") => {
                    first_failure.get_or_insert(error);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let layers = self.parent_in(resolved, reference).map_err(|error| error.at(reference))?;
            match self.accept(parent, reference, &layers) {
                Ok(()) => return Ok(layers),
                Err(error) => _ = first_failure.get_or_insert(error),
            }
        }
        Err(first_failure.unwrap_or_else(|| Error::corrupt("reference.missing", "the image does not name its parent")))
    }

    /// The layers from the file on that a parent's name led to.
    fn parent_in(&self, resolved: Resolved, reference: &Reference) -> Result<Vec<Arc<dyn Layer>>> {
        let driver = reference.format.as_deref().map(probe::by_name).transpose()?;
        let below = BlockCache::wrap(resolved.source, self.session);
        self.files.lock().unwrap_or_else(PoisonError::into_inner).push((None, Arc::clone(&below)));
        self.layers(below, driver, &Ask::current(self.session), &Names::Beside(&resolved.resolver))
    }

    /// Whether what was found is the parent that was meant.
    fn accept(&self, parent: &Parent, reference: &Reference, layers: &[Arc<dyn Layer>]) -> Result<()> {
        let Some(top) = layers.first() else { return Ok(()) };
        match (parent.accept)(&**top) {
            Err(error) if self.session.policy.any_parent => {
                let note = format!("{reference}: used as it was asked for, though {error}");
                self.notes.lock().unwrap_or_else(PoisonError::into_inner).push(note);
                Ok(())
            }
            result => result.map_err(|error| error.at(reference)),
        }
    }

    /// Opens a file beside `resolver`'s image; one beside the source itself once only.
    fn beside(&self, resolver: &Resolver, reference: &Reference) -> Result<Cached> {
        let name = std::ptr::eq(resolver, &self.resolver).then(|| reference.name.clone());
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let known = files.iter().find(|(known, _)| name.is_some() && *known == name);
        if let Some((_, file)) = known {
            return Ok(Arc::clone(file));
        }
        let file = BlockCache::wrap(resolver.open(reference)?.source, self.session);
        files.push((name, Arc::clone(&file)));
        Ok(file)
    }
}

/// Where the names in an image lead.
enum Names<'a> {
    /// To files beside it.
    Beside(&'a Resolver),
    /// To members of the package that holds it, and nowhere else.
    Inside(&'a dyn Members),
}

fn inside(package: &dyn Members, reference: &Reference) -> Result<Arc<dyn Disk>> {
    let name = std::str::from_utf8(&reference.name).ok().filter(|_| reference.is_plain());
    let name = name.ok_or_else(|| {
        Error::refused("reference.refused", "a disk of the package refers to a file that it may not name")
            .at(reference)
            .expected("a member of the package")
    })?;
    package.file(name)
}

/// How a file is compressed, if that is what it is. A disk whose guest wrote such a mark to its first bytes has others too.
fn compression(file: &dyn Disk, options: &OpenOptions) -> Result<Option<Compression>> {
    let sample = Sample::take(file)?;
    let Some(found) = Compression::detect(&sample.head) else { return Ok(None) };
    match probe::marks(&sample).as_slice() {
        [_] => Ok(Some(found)),
        names if options.format.is_none() => Err(probe::ambiguous(&names.join(", "))),
        _ => Ok(None),
    }
}

/// The chunks of a file, one after the other (DSP0243 2.1.1, section 7.1): each of `size` bytes but the last.
fn chunks(href: &str, size: u64, open: &dyn Fn(&str) -> Result<Arc<dyn Disk>>) -> Result<Arc<dyn Disk>> {
    let mut parts: Vec<Arc<dyn Disk>> = Vec::new();
    loop {
        let name = format!("{href}.{:09}", parts.len());
        let part = match open(&name) {
            Err(error) if !parts.is_empty() && matches!(error.code(), "ova.missing" | "reference.missing") => break,
            result => result.map_err(|error| error.at(&name))?,
        };
        if parts.last().is_some_and(|last| last.len() != size) || part.len() > size {
            return Err(Error::corrupt("ovf.chunk", "a chunk of a file has not the size that the descriptor gives")
                .at(name)
                .expected(size));
        }
        if parts.len() >= limits::MAX_OVF_CHUNKS {
            return Err(Error::limit("ovf.chunk", "a file has too many chunks")
                .expected(format!("at most {}", limits::MAX_OVF_CHUNKS)));
        }
        parts.push(part);
    }
    Ok(Checked::wrap(Concat::new(href, parts)))
}

/// Whether the manifest's file `name` is one of the disks' files, or a chunk of one.
fn is_wanted(only: Option<&[String]>, name: &str) -> bool {
    let chunk_of = |file: &String| {
        let number = name.strip_prefix(file.as_str()).and_then(|rest| rest.strip_prefix('.'));
        number.is_some_and(|number| number.len() == 9 && number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    only.is_none_or(|only| only.iter().any(|file| file == name || chunk_of(file)))
}

/// The disks that were asked for: by id, label or file name.
fn select<'a>(disks: &'a [OvfDisk], selection: &Selection) -> Result<Vec<&'a OvfDisk>> {
    let names = |disk: &'a OvfDisk| -> Vec<&'a str> {
        let known = [disk.href.as_deref(), Some(disk.id.as_str()), disk.label.as_deref()];
        known.into_iter().flatten().collect()
    };
    let named: Vec<Vec<&str>> = disks.iter().map(names).collect();
    Ok(selection.pick(&named)?.into_iter().filter_map(|position| disks.get(position)).collect())
}

fn names(disks: &[OpenedDisk]) -> Vec<String> {
    disks.iter().map(|disk| disk.name.strip_prefix("./").unwrap_or(&disk.name).to_owned()).collect()
}

/// Writers get the size in the descriptor wrong; the disk's own counts.
fn size_notes(disks: &[OpenedDisk]) -> Vec<String> {
    let odd = |disk: &&OpenedDisk| {
        let said = disk.described.as_ref().and_then(|described| described.capacity);
        said.is_some_and(|said| said != disk.image.len())
    };
    let note = |disk: &OpenedDisk| format!("{}: the descriptor gives another size than the disk itself has", disk.name);
    disks.iter().filter(odd).map(note).collect()
}

/// A small file's bytes.
fn text(disk: &dyn Disk, most: usize) -> Result<Vec<u8>> {
    let len = usize::try_from(disk.len()).ok().filter(|len| *len <= most).ok_or_else(|| {
        Error::limit("ova.descriptor", "a text file of the package is too large")
            .expected(format!("at most {most} bytes"))
            .found(disk.len())
    })?;
    read_vec(disk, 0, len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Memory;

    #[test]
    fn a_file_has_as_many_chunks_as_the_limit() {
        let most = limits::MAX_OVF_CHUNKS;
        for (count, fits) in [(most.saturating_sub(1), true), (most, true), (most.saturating_add(1), false)] {
            let open = |name: &str| -> Result<Arc<dyn Disk>> {
                let number: usize = name.rsplit('.').next().and_then(|digits| digits.parse().ok()).unwrap();
                if number < count {
                    Ok(Checked::wrap(Memory::new(vec![0; 4])))
                } else {
                    Err(Error::corrupt("ova.missing", ""))
                }
            };
            let found = chunks("disk", 4, &open).map(|disk| disk.len()).map_err(|error| error.code());
            assert_eq!(found, if fits { Ok(4 * u64::try_from(count).unwrap()) } else { Err("ovf.chunk") }, "{count}");
        }
    }
}
