//! Gives an initramfs the drivers that its kernel needs to find its root on KVM, and the names by which its programs find it,
//! without running any program of the guest.
//!
//! First the image is read as the kernel reads it. If the drivers are there, or built into the kernel, and nothing in it names a
//! disk by its bus, nothing is touched. Otherwise a segment is appended: the missing modules, uncompressed, a module index of the
//! union of what the image has and what it gets, and the changed files. Nothing in the image is changed, so cutting the file at its
//! old length undoes it. Where the kernel would not read on, or there is no space, the last segment is packed anew.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

mod rewrite;
mod segment;
mod settings;
mod unified;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io::Read;

use super::draft::{Draft, Vital};
use super::hardware::{Bus, Hardware};
use super::names::Names;
use super::{Change, Left};
use crate::error::{Error, Kind, Result, escape};
use crate::fs::FileKind;
use crate::fs::tree::FileReader;
use crate::initramfs::Held;
use crate::initramfs::image::{self, Image};
use crate::initramfs::modules::{Lists, Module, modules_dir, name_of};

use crate::inspect::Kernel;
use crate::limits;
use segment::Segment;
use settings::Settings;

/// What came of all images.
pub(super) struct Outcome {
    /// Whether any image lacked drivers of virtio.
    pub(super) lacked: bool,
    /// What the kernel that is started by default works with.
    pub(super) hardware: Hardware,
}

/// What came of one image.
#[derive(Clone, Debug, Default)]
struct Served {
    /// Whether it lacked drivers of virtio.
    lacked: bool,
    /// Where the kernel finds its root with it; `None` when that is not known.
    buses: Option<Vec<Bus>>,
}

/// Plans the segments for every kernel.
pub(super) fn plan(draft: &mut Draft<'_>) -> Result<Outcome> {
    let mut lacked = false;
    let mut seen: BTreeMap<String, Served> = BTreeMap::new();
    let mut started: Option<(&Kernel, Vec<Bus>)> = None;
    for kernel in &draft.facts().kernels {
        let mut buses = None;
        if kernel.unified {
            let served = unified::plan(draft, kernel)?;
            lacked |= served.lacked;
            buses = served.buses;
        } else if kernel.initramfs.is_empty() {
            buses = check_builtin(draft, kernel)?;
        }
        for path in &kernel.initramfs {
            let served = match seen.get(path) {
                Some(served) => served.clone(),
                None => plan_image(draft, kernel, path)?,
            };
            seen.insert(path.clone(), served.clone());
            lacked |= served.lacked;
            buses = buses.or(served.buses);
        }
        for path in of_kdump(draft, kernel)? {
            let Entry::Vacant(place) = seen.entry(path) else { continue };
            let before = draft.left_so_far().len();
            let served = plan_image(draft, kernel, place.key())?;
            draft.not_vital_since(before);
            place.insert(served);
        }
        let is_first = started.as_ref().is_none_or(|(known, _)| kernel.default && !known.default);
        if let Some(buses) = buses.filter(|_| is_first) {
            started = Some((kernel, buses));
        }
    }
    let hardware = match started {
        Some((kernel, buses)) => Hardware::of(draft, kernel, buses)?,
        None => Hardware::default(),
    };
    Ok(Outcome { lacked, hardware })
}

/// Images from which kdump starts a kernel after a crash, to write down what was in memory.
fn of_kdump(draft: &Draft<'_>, kernel: &Kernel) -> Result<Vec<String>> {
    let Some(release) = &kernel.release else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for path in [
        format!("/boot/initramfs-{release}kdump.img"),
        format!("/boot/initrd-{release}kdump.img"),
        format!("/boot/initrd-{release}-kdump"),
        format!("/var/lib/kdump/initrd.img-{release}"),
        format!("/var/lib/kdump/initramfs-{release}kdump.img"),
    ] {
        let image = draft.tree().find(&path)?.filter(|found| found.stat.kind == FileKind::Regular);
        found.extend(image.and_then(|found| found.text().map(str::to_owned)));
    }
    Ok(found)
}

/// A kernel without an initramfs must have everything built in.
fn check_builtin(draft: &mut Draft<'_>, kernel: &Kernel) -> Result<Option<Vec<Bus>>> {
    let lists = match &kernel.modules {
        Some(dir) => Lists::builtin_of_guest(draft.tree(), dir)?,
        None => Lists::default(),
    };
    let buses: Vec<Bus> = Bus::ALL.into_iter().filter(|bus| bus.works(|name| lists.is_builtin(name))).collect();
    if buses.iter().any(|bus| bus.is_virtio()) {
        return Ok(Some(buses));
    }
    let why = match buses.first() {
        Some(bus) => format!("its drivers for {} are built in, but none for virtio", bus.name()),
        None => {
            "its drivers for virtio are not known to be built in; without them it finds no root on virtio".to_owned()
        }
    };
    draft.left(Left {
        path: kernel.image.clone(),
        what: "the kernel has no initramfs that could be given virtio drivers".to_owned(),
        why,
        stops_boot: buses.is_empty(),
    });
    Ok((!buses.is_empty()).then_some(buses))
}

fn plan_image(draft: &mut Draft<'_>, kernel: &Kernel, path: &str) -> Result<Served> {
    let examined = match open(draft, path).and_then(|(size, file)| examine(draft, kernel, size, file)) {
        Ok(examined) => examined,
        Err(error) if matches!(error.kind(), Kind::Corrupt | Kind::Limit | Kind::Unsupported) => {
            cannot(draft, path, error.to_string(), &[]);
            return Ok(Served { lacked: true, buses: None });
        }
        Err(error) => return Err(error.at(path)),
    };
    let Examined { image, before, after, lacked, wanted, problem, names, settings } = examined;
    names.report(draft, path);
    if let Some(why) = problem {
        cannot(draft, path, why, &before);
    }
    let Some(segment) = wanted else {
        return Ok(Served { lacked, buses: (!before.is_empty()).then_some(before) });
    };
    let what = describe(&segment, &settings);
    let why = if segment.modules.is_empty() {
        "disks have other names on virtio"
    } else {
        "without them it finds no disk on KVM"
    };
    let is_done = match put(draft, path, &image, &segment, &what, why) {
        Err(error) if matches!(error.kind(), Kind::Corrupt | Kind::Limit | Kind::Unsupported) => {
            cannot(draft, path, error.to_string(), &before);
            false
        }
        other => other?,
    };
    let buses = if is_done { after } else { before };
    Ok(Served { lacked, buses: (!buses.is_empty()).then_some(buses) })
}

fn describe(segment: &Segment, settings: &Settings) -> String {
    let modules = &segment.modules;
    let drivers = (!modules.is_empty())
        .then(|| format!("append {} drivers and an index of them: {}", modules.len(), modules.join(" ")));
    let files =
        (!settings.is_empty()).then(|| format!("name devices by what stays in {}", settings.names().join(", ")));
    [drivers, files].into_iter().flatten().collect::<Vec<_>>().join("; ")
}

/// Lists an image that stays as it is. With a bus of another kind its kernel boots all the same.
fn cannot(draft: &mut Draft<'_>, path: &str, why: String, buses: &[Bus]) {
    let why = match buses.first() {
        Some(bus) => format!("{why}; it finds its root on {}", bus.name()),
        None => why,
    };
    draft.left(Left {
        path: path.to_owned(),
        what: "the initramfs is not given virtio drivers".to_owned(),
        why,
        stops_boot: buses.is_empty(),
    });
}

/// Plans the segment: behind the image, or inside of its last part where the kernel would not get behind it or there is no space.
/// Gives whether it is planned.
fn put(draft: &mut Draft<'_>, path: &str, image: &Image, segment: &Segment, what: &str, why: &str) -> Result<bool> {
    let size = draft.size_of(path)?;
    let Some(appended) = segment::join(image, &segment.archive)? else {
        let change = rewrite::plan(draft, path, image, &segment.archive)?;
        return draft.act("initramfs", path, format!("{what} (packed anew)"), why, change, Vital::Yes);
    };
    let change = Change::Append { size_before: size, content: appended };
    if draft.lacks_space(path, &change)? && image.end.codec.is_some() {
        let rewritten = rewrite::plan(draft, path, image, &segment.archive)?;
        if !draft.lacks_space(path, &rewritten)? {
            return draft.act("initramfs", path, format!("{what} (packed anew)"), why, rewritten, Vital::Yes);
        }
    }
    draft.act("initramfs", path, what, why, change, Vital::Yes)
}

/// What is to be done with an image.
struct Examined<'a> {
    image: Image,
    /// Buses that it finds its root on as it is.
    before: Vec<Bus>,
    /// Those with what it gets.
    after: Vec<Bus>,
    /// Whether its kernel has drivers of virtio that it lacks.
    lacked: bool,
    /// What it gets.
    wanted: Option<Segment>,
    /// Why it gets no drivers although it lacks them.
    problem: Option<String>,
    names: Names<'a>,
    settings: Settings,
}

fn open(draft: &Draft<'_>, path: &str) -> Result<(u64, FileReader)> {
    let absent = || Error::new(Kind::NotFound, "guest.not-found", "no such file").at(path);
    let file = draft.tree().open(path)?.ok_or_else(absent)?;
    Ok((file.size(), file))
}

/// Reads an image of `size` bytes.
fn examine<'a>(draft: &Draft<'a>, kernel: &Kernel, size: u64, file: impl Read) -> Result<Examined<'a>> {
    if size > limits::MAX_INITRAMFS {
        return Err(Error::limit("initramfs.size", format!("it has {size} bytes, more than any real one")));
    }
    let image = image::read(file)?;
    let mut names = Names::new(draft)?;
    let settings = if image.is_early() { Settings::default() } else { settings::of(draft, &image, &mut names)? };
    let mut examined = Examined {
        image,
        before: Vec::new(),
        after: Vec::new(),
        lacked: false,
        wanted: None,
        problem: None,
        names,
        settings,
    };
    if examined.image.is_early() {
        return Ok(examined);
    }
    if examined.image.nodes().any(|(name, _)| SQUASHED.contains(&name)) {
        examined.problem =
            Some("its files lie in a squashfs inside of it, which covers what would be added".to_owned());
        return Ok(examined);
    }
    let drivers = drivers(draft, kernel, &mut examined)?;
    let added = drivers.as_ref().map(Drivers::closure).unwrap_or_default();
    if !added.is_empty() || !examined.settings.is_empty() {
        let segment = segment::build(draft, &examined.image, drivers.as_ref(), &added, &examined.settings)?;
        examined.wanted = Some(segment);
    }
    Ok(examined)
}

/// Drivers that an image is to get.
struct Drivers {
    held: Held,
    guest: Lists,
    guest_dir: String,
    builtin: Lists,
    /// Those asked for; what they need comes with them.
    missing: Vec<&'static str>,
}

impl Drivers {
    fn closure(&self) -> Vec<&Module> {
        let has = |name: &str| self.held.has(name) || self.builtin.is_builtin(name);
        let all = self.guest.closure(self.missing.iter().copied());
        all.into_iter().filter(|module| !has(&module.name)).collect()
    }
}

/// Finds out which drivers the image lacks for a bus of KVM: both of virtio's, if the kernel has any of those, else SATA or IDE.
fn drivers(draft: &Draft<'_>, kernel: &Kernel, examined: &mut Examined<'_>) -> Result<Option<Drivers>> {
    let (tree, image) = (draft.tree(), &examined.image);
    let Some(held) = Held::of(image, kernel.release.as_deref(), kernel.modules.is_some()) else {
        examined.problem = Some("the release of its kernel is not known".to_owned());
        return Ok(None);
    };
    let guest_dir = modules_dir(tree, &held.release)?;
    let builtin = match &guest_dir {
        Some(dir) => Lists::builtin_of_guest(tree, dir)?,
        None => Lists::default(),
    };
    let flat = if image.is_nash() { flat_modules(image) } else { Vec::new() };
    let has = |name: &str| held.has(name) || builtin.is_builtin(name) || flat.iter().any(|known| known == name);
    examined.before = Bus::ALL.into_iter().filter(|bus| bus.works(has)).collect();
    examined.after.clone_from(&examined.before);
    if [Bus::VirtioBlk, Bus::VirtioScsi].iter().all(|bus| examined.before.contains(bus)) {
        return Ok(None);
    }
    let guest = match &guest_dir {
        Some(dir) => Lists::of_guest(tree, dir)?,
        None => Lists::default(),
    };
    let can_load = image.can_load() && !image.is_nash();
    let reachable = |bus: &Bus| bus.works(|name| has(name) || guest.module(name).is_some());
    let virtio: Vec<Bus> = [Bus::VirtioBlk, Bus::VirtioScsi].into_iter().filter(reachable).collect();
    examined.lacked = virtio.iter().any(|bus| !examined.before.contains(bus));
    let others = [Bus::Sata, Bus::Ide].into_iter().filter(reachable);
    let goal: Vec<Bus> =
        if virtio.is_empty() && examined.before.is_empty() { others.take(1).collect() } else { virtio };
    let has_virtio = examined.before.iter().any(|bus| bus.is_virtio());
    if goal.iter().all(|bus| examined.before.contains(bus)) {
        if !has_virtio {
            let absent: Vec<&str> = TRANSPORT.iter().copied().filter(|name| !has(name)).collect();
            let release = escape(&held.release);
            examined.problem = Some(format!("the kernel {release} has no module {}", absent.join(", ")));
        }
        return Ok(None);
    }
    if !can_load {
        if !has_virtio {
            let nash = "its first program, nash, loads no drivers but those that it names";
            let none = "it has no program that loads modules by itself";
            examined.problem = Some(if image.is_nash() { nash } else { none }.to_owned());
        }
        return Ok(None);
    }
    let fits = |set: &&&[&str]| set.iter().all(|name| has(name) || guest.module(name).is_some());
    let sets = goal.iter().filter_map(|bus| bus.needs().iter().find(fits));
    let missing: Vec<&str> = sets.flat_map(|set| set.iter().copied()).filter(|name| !has(name)).collect();
    let has_then = |name: &str| has(name) || missing.contains(&name);
    examined.after = Bus::ALL.into_iter().filter(|bus| bus.works(has_then)).collect();
    let Some(guest_dir) = guest_dir else { return Ok(None) };
    Ok(Some(Drivers { held, guest, guest_dir, builtin, missing }))
}

/// Where dracut's module `squash` puts most files, as it does for kdump.
const SQUASHED: &[&[u8]] = &[b"squash-root.img", b"squashfs-root.img", b"squash/root.img"];

/// What virtio-blk needs.
const TRANSPORT: &[&str] = &["virtio_pci", "virtio_blk"];

/// The modules of an image of nash, which lie in `lib` and are all loaded.
fn flat_modules(image: &Image) -> Vec<String> {
    let names = image.nodes().filter_map(|(name, _)| std::str::from_utf8(name).ok()?.strip_prefix("lib/"));
    names.filter(|name| !name.contains('/')).filter_map(name_of).collect()
}
