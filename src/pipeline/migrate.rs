//! `migrate`: the whole pipeline for one machine.

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::copies::convert_all;
use super::files::{self, Staged};
use super::guest::Guest;
use super::report::{Artifact, Report, Stage};
use super::{digests_json, naming, source};
use crate::chain::{OpenOptions, Opened, OpenedDisk};
use crate::container::digests::Verified;
use crate::container::ovf::{self, Ovf};
use crate::convert::{self, Named, Options, Outcome, Phase, Progress, Update};
use crate::disk::Disk;
use crate::error::{Error, Kind, Result};
use crate::fix::{self, Plan};
use crate::fs::Timestamp;
use crate::inspect::MachineNic;
use crate::inspect::network::mac_address;
use crate::libvirt::{self, Domain};
use crate::session::{Engine, Session};

/// What to migrate and how.
#[derive(Clone, Debug)]
pub struct Request {
    /// The disks of one machine in order: one OVA, or several images.
    pub sources: Vec<String>,
    /// How the images are opened, and which of the disks.
    pub open: OpenOptions,
    /// The directory that gets the results; made if missing.
    pub output: PathBuf,
    /// The machine's name; by default the source's.
    pub name: Option<String>,
    /// Replace existing results.
    pub force: bool,
    /// Discard what an unfinished run left, instead of going on with it.
    pub restart: bool,
    /// Copy the free space of the guest's file systems too.
    pub keep_free_space: bool,
    /// Read the output back and compare.
    pub verify: bool,
    /// Most bytes to read in a second.
    pub rate_limit: Option<NonZeroU64>,
    /// Bus of the disks in the domain XML.
    pub bus: libvirt::DiskBus,
    /// Network of the interfaces in the domain XML.
    pub network: String,
    /// What is wanted of the fixes.
    pub fixes: fix::Options,
}

/// A machine that was migrated.
#[derive(Debug)]
pub struct Migrated {
    /// The disks that were written.
    pub outcomes: Vec<Outcome>,
    /// The domain XML.
    pub xml: PathBuf,
    /// The report.
    pub report: PathBuf,
    /// What was changed in the guest, and what was left.
    pub plan: Plan,
    /// The report's content.
    pub json: Value,
}

/// Memory of a machine whose source does not say.
const DEFAULT_MEMORY: u64 = 2 << 30;

/// Virtual CPUs of a machine whose source does not say.
const DEFAULT_CPUS: u32 = 2;

/// A machine, looked at and planned for.
#[derive(Debug)]
pub struct Planned {
    /// What was opened.
    pub sources: Vec<Opened>,
    /// The machine's disks.
    pub disks: Vec<OpenedDisk>,
    /// The machine and its guest.
    pub guest: Guest,
    /// What to change.
    pub plan: Plan,
    /// How long looking and planning took.
    pub times: (Duration, Duration),
}

impl Planned {
    /// The machine as its container describes it.
    fn described(&self) -> Option<&Ovf> {
        self.sources.first().and_then(|source| source.machine.as_ref())
    }

    /// Bytes that were fetched from the sources so far.
    fn bytes_read(&self) -> u64 {
        bytes_read(&self.sources)
    }
}

fn bytes_read(sources: &[Opened]) -> u64 {
    let files = sources.iter().flat_map(|source| &source.sources);
    files.flat_map(|file| file.below()).filter_map(|file| file.stats()).map(|stats| stats.bytes).sum()
}

/// The disks of one machine, opened.
#[derive(Debug)]
pub struct Machine {
    /// What was opened.
    pub sources: Vec<Opened>,
    /// The machine's disks.
    pub disks: Vec<OpenedDisk>,
}

impl Machine {
    /// Opens `sources` as the disks of one machine, as far as they are wanted.
    pub fn open(sources: &[String], options: &OpenOptions, session: &Arc<Session>) -> Result<Self> {
        let (sources, disks) = source::open_all(sources, options, session)?;
        Ok(Self { sources, disks })
    }

    /// The machine as its container describes it.
    #[must_use]
    pub fn described(&self) -> Option<&Ovf> {
        self.sources.first().and_then(|source| source.machine.as_ref())
    }

    /// Bytes that were fetched from the sources so far.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        bytes_read(&self.sources)
    }

    /// Looks inside.
    pub fn look(&self, session: &Arc<Session>, spill_dir: Option<&Path>) -> Result<Guest> {
        Guest::open(&self.disks, self.described(), session, spill_dir)
    }

    /// Looks inside and plans what the machine needs.
    pub fn plan(self, fixes: &fix::Options, session: &Arc<Session>, spill_dir: Option<&Path>) -> Result<Planned> {
        let start = Instant::now();
        let mut guest = self.look(session, spill_dir)?;
        let tied = fix::cards_of_guest(guest.linux()?.1, &fixes.macs);
        let described = self.described().map(|machine| machine.nics.as_slice());
        guest.machine.nics = cards(described, std::mem::take(&mut guest.machine.nics), tied, &fixes.macs)?;
        let looked = start.elapsed();
        let start = Instant::now();
        let (root, facts) = guest.linux()?;
        let plan = fix::plan_with(facts, &guest.machine, root, fixes)?;
        let Self { sources, disks } = self;
        Ok(Planned { sources, disks, guest, plan, times: (looked, start.elapsed()) })
    }
}

/// Runs the whole pipeline. Nothing has its final name before every disk is verified; the report is written last.
pub fn run(request: &Request, session: &Arc<Session>, progress: &dyn Progress) -> Result<Migrated> {
    let start = Instant::now();
    // The kernel in an appliance gives times and numbers of its own, so that no two runs come to the same disk.
    let restart = request.restart || session.policy.engine == Engine::Appliance;
    let request = &Request { restart, ..request.clone() };
    std::fs::create_dir_all(&request.output)
        .map_err(|e| Error::write("making the output directory", e).path(&request.output))?;
    progress.update(&Update::start(Phase::Inspect, 0));
    let machine = Machine::open(&request.sources, &request.open, session)?;
    let names = Names::new(request, &machine);
    names.claim(request, session)?;
    let planned = machine.plan(&request.fixes, session, Some(&request.output))?;

    progress.update(&Update::start(Phase::Fix, 0));
    let fixing = Instant::now();
    let (root, _) = planned.guest.linux()?;
    let now = Timestamp { seconds: session.now(), nanoseconds: 0 };
    let applied = fix::apply(&planned.plan, &root.tree, now)?;
    let final_disks = planned.guest.finish(!request.keep_free_space)?;
    let fixed = fixing.elapsed();

    session.begin_streaming();
    let options = Options {
        verify: request.verify,
        force: request.force,
        restart: request.restart,
        rate_limit: request.rate_limit,
        ..Options::default()
    };
    let prepare = |(disk, path): (Arc<dyn Disk>, &PathBuf)| convert::prepare(disk, path, &options, session, progress);
    let prepared = final_disks.into_iter().zip(&names.disks).map(prepare).collect::<Result<_>>()?;
    let (verified, digests) = convert_all(prepared, &planned.sources, progress)?;
    let xml = domain(request, &planned, &names, session).to_xml()?;
    let xml = Staged::write(&names.xml, xml.as_bytes())?;
    let named: Vec<Named> = verified.into_iter().map(|output| output.name(progress)).collect::<Result<_>>()?;
    xml.publish(request.force)?;
    let undo = applied.undo.encode()?;
    Staged::write_private(&names.undo, &undo)?.publish(request.force)?;
    let sealed: Vec<Outcome> = named.iter().map(|output| output.outcome().clone()).collect();

    let done =
        Done { outcomes: &sealed, applied: &applied, undo: &undo, digests: &digests, fixed, total: start.elapsed() };
    let json = report(request, &planned, &names, &done, session).to_json();
    let pretty = serde_json::to_vec_pretty(&json)
        .map_err(|e| Error::failed("output.json", "the report cannot be shown as JSON").because(e))?;
    Staged::write(&names.report, &pretty)?.publish(request.force)?;
    for output in named {
        let _ = output.commit();
    }
    Ok(Migrated { outcomes: sealed, xml: names.xml, report: names.report, plan: planned.plan, json })
}

/// The machine's network cards with their addresses. What the guest's configuration is `tied` to counts for a machine that
/// nobody describes, and for an only card whose address the description does not tell.
///
/// # Errors
/// `usage.mac` when an address is to be changed that no card has.
fn cards(
    described: Option<&[ovf::Nic]>,
    mut cards: Vec<MachineNic>,
    tied: Vec<MachineNic>,
    macs: &fix::MacMap,
) -> Result<Vec<MachineNic>> {
    match (described, cards.as_mut_slice(), tied.as_slice()) {
        (None, ..) => cards = tied,
        (Some([only]), [card], [own]) if only.mac.is_none() => card.mac.clone_from(&own.mac),
        _ => {}
    }
    let known: Vec<String> = cards.iter().filter_map(|card| mac_address(card.mac.as_deref()?)).collect();
    match macs.sources().find(|source| !known.iter().any(|mac| mac == source)) {
        None => Ok(cards),
        Some(source) => {
            Err(Error::new(Kind::Usage, "usage.mac", "--mac names an address that no card of the machine has")
                .expected(known.join(", "))
                .found(source))
        }
    }
}

/// Names of what is written.
#[derive(Clone, Debug)]
struct Names {
    stem: String,
    disks: Vec<PathBuf>,
    xml: PathBuf,
    undo: PathBuf,
    report: PathBuf,
}

impl Names {
    fn new(request: &Request, machine: &Machine) -> Self {
        let described = machine.described().map(|machine| machine.name.clone()).filter(|name| !name.is_empty());
        let by_file = machine.sources.first().and_then(|source| source.location.stem());
        let name = request.name.clone().or(described).or(by_file).unwrap_or_default();
        let stem = naming::file_stem(&name);
        let count = machine.disks.len();
        let disk = |index| request.output.join(naming::disk_file(&stem, index, count, "qcow2"));
        Self {
            disks: (0..count).map(disk).collect(),
            xml: request.output.join(format!("{stem}.xml")),
            undo: request.output.join(format!("{stem}.undo")),
            report: request.output.join(format!("{stem}.report.json")),
            stem,
        }
    }

    /// Finds the names free, or taken by a run that died before its report was written, which this one goes on with.
    fn claim(&self, request: &Request, session: &Session) -> Result<()> {
        let reported = self.report.exists();
        if reported {
            // The report is the commit mark: that run only did not get to tidy up.
            self.disks.iter().for_each(|disk| convert::forget(disk));
        } else if !request.restart {
            convert::resume(&self.disks, session);
        }
        let unfinished: Vec<bool> = self.disks.iter().map(|disk| convert::is_unfinished(disk)).collect();
        files::must_not_exist(&self.report, request.force)?;
        if !unfinished.contains(&true) {
            files::must_not_exist(&self.xml, request.force)?;
            files::must_not_exist(&self.undo, request.force)?;
        }
        let others = self.disks.iter().zip(unfinished).filter(|(_, unfinished)| !unfinished);
        others.into_iter().try_for_each(|(disk, _)| files::must_not_exist(disk, request.force))
    }
}

/// The libvirt domain that runs the result.
fn domain(request: &Request, planned: &Planned, names: &Names, session: &Session) -> Domain {
    let described = planned.described();
    let uefi = planned.guest.machine.uefi;
    let bus = bus(request.bus, &planned.plan.hardware);
    // IDE comes with `pc` only, and secure boot with `q35` only.
    let is_old = bus == libvirt::DiskBus::Ide;
    let secure_boot = described.is_some_and(|machine| machine.secure_boot) && !is_old;
    let disk = |(path, order): (&PathBuf, u32)| libvirt::Disk {
        path: std::path::absolute(path).unwrap_or_else(|_| path.clone()),
        format: "qcow2",
        bus: place(bus, order),
        boot: Some(order),
    };
    Domain {
        name: names.stem.clone(),
        uuid: Some(uuid::Builder::from_random_bytes(session.random("domain uuid")).into_uuid()),
        memory: described.and_then(|machine| machine.memory).unwrap_or(DEFAULT_MEMORY),
        vcpus: described.and_then(|machine| machine.cpus).unwrap_or(DEFAULT_CPUS),
        hypervisor: libvirt::Hypervisor::default(),
        chipset: if is_old { libvirt::Chipset::Pc } else { libvirt::Chipset::Q35 },
        firmware: if uefi { libvirt::Firmware::Uefi { secure_boot } } else { libvirt::Firmware::Bios },
        clock: if planned.plan.hardware.local_clock { libvirt::Clock::LocalTime } else { libvirt::Clock::Utc },
        video: libvirt::Video::default(),
        os: None,
        disks: names.disks.iter().zip(1..).map(disk).collect(),
        nics: nics(request, planned),
    }
}

/// Where the disk goes that is the `order`th: IDE has places for four.
fn place(bus: libvirt::DiskBus, order: u32) -> libvirt::DiskBus {
    if bus == libvirt::DiskBus::Ide && order > IDE_DISKS { libvirt::DiskBus::Sata } else { bus }
}

/// Disks on the two channels of a machine's IDE controller.
const IDE_DISKS: u32 = 4;

/// The bus of the disks: the one asked for, if the guest finds its root there.
fn bus(asked: libvirt::DiskBus, hardware: &fix::Hardware) -> libvirt::DiskBus {
    let wanted = match asked {
        libvirt::DiskBus::Ide => fix::Bus::Ide,
        libvirt::DiskBus::Sata => fix::Bus::Sata,
        libvirt::DiskBus::VirtioBlk => fix::Bus::VirtioBlk,
        libvirt::DiskBus::VirtioScsi => fix::Bus::VirtioScsi,
    };
    // What other drivers the kernel has is only looked at where virtio is missing.
    if !wanted.is_virtio() {
        return asked;
    }
    match hardware.bus(wanted) {
        fix::Bus::Ide => libvirt::DiskBus::Ide,
        fix::Bus::Sata => libvirt::DiskBus::Sata,
        fix::Bus::VirtioBlk => libvirt::DiskBus::VirtioBlk,
        fix::Bus::VirtioScsi => libvirt::DiskBus::VirtioScsi,
    }
}

/// The network cards of the source, with their addresses or those that the user gives them. Of a machine that nobody
/// describes, those that its guest is tied to; else one card.
fn nics(request: &Request, planned: &Planned) -> Vec<libvirt::Nic> {
    let model = match planned.plan.hardware.nic() {
        fix::Card::Virtio => libvirt::NicModel::Virtio,
        fix::Card::E1000e => libvirt::NicModel::E1000e,
        fix::Card::E1000 => libvirt::NicModel::E1000,
        fix::Card::Rtl8139 => libvirt::NicModel::Rtl8139,
    };
    let card = |mac: Option<&str>, was| libvirt::Nic {
        mac: mac.and_then(libvirt::Mac::parse),
        model,
        source: libvirt::NicSource::Network(request.network.clone()),
        was,
    };
    let cards = &planned.guest.machine.nics;
    let address = |nic: &MachineNic| {
        let own = nic.mac.as_deref()?;
        Some(request.fixes.macs.target(&own.to_ascii_lowercase()).unwrap_or(own).to_owned())
    };
    let Some(described) = planned.described() else {
        let found: Vec<_> = cards.iter().map(|nic| card(address(nic).as_deref(), None)).collect();
        return if found.is_empty() { vec![card(None, None)] } else { found };
    };
    let cards = cards.iter().zip(&described.nics);
    let was = |nic: &ovf::Nic| libvirt::SourceNic {
        model: nic.model.clone().unwrap_or_default(),
        network: nic.network.clone().unwrap_or_default(),
    };
    cards.map(|(nic, source)| card(address(nic).as_deref(), Some(was(source)))).collect()
}

/// What the stages came to.
struct Done<'a> {
    outcomes: &'a [Outcome],
    applied: &'a fix::Report,
    undo: &'a [u8],
    digests: &'a [Verified],
    fixed: Duration,
    total: Duration,
}

fn report(request: &Request, planned: &Planned, names: &Names, done: &Done<'_>, session: &Session) -> Report {
    let outcomes = done.outcomes;
    let sum = |part: fn(&Outcome) -> Duration| outcomes.iter().map(part).sum::<Duration>();
    let stage = |name, duration, result| Stage { name, duration, result };
    let facts = planned.guest.system().map(|system| &system.facts);
    let converted: Vec<Value> = outcomes.iter().map(outcome_json).collect();
    let verified = if request.verify { "passed" } else { "off" };
    let left = planned.plan.left.iter().map(|left| ("plan", format!("{}: {}: {}", left.path, left.what, left.why)));
    let chosen = bus(request.bus, &planned.plan.hardware);
    let other = (chosen != request.bus).then(|| {
        ("plan", format!("the disks are attached to {chosen:?}, since the guest finds no root on {:?}", request.bus))
    });
    let disks = u32::try_from(names.disks.len()).unwrap_or(u32::MAX);
    let crowded = (place(chosen, disks) != chosen)
        .then(|| ("plan", format!("IDE has places for {IDE_DISKS} disks; the others are attached to SATA")));
    let notes = planned.guest.notes.iter().map(|note| ("inspect", note.clone()));
    let (mut plan, mut applied) = (json!(planned.plan), json!(done.applied));
    fix::hide_private(&mut plan);
    fix::hide_private(&mut applied);
    Report {
        source: json!({
            "paths": source::shown(&request.sources),
            "machine": planned.described().map(super::describe_machine),
            "digests": digests_json(done.digests),
            "bytes_read": planned.bytes_read(),
            "network": super::network_json(session),
        }),
        timestamp: session.now(),
        duration: done.total,
        stages: vec![
            stage("inspect", planned.times.0, json!({ "facts": facts })),
            stage("plan", planned.times.1, json!({ "actions": planned.plan.actions.len() })),
            stage("fix", done.fixed, applied),
            stage("convert", sum(|o| o.times.plan + o.times.copy + o.times.sync), json!({ "disks": converted })),
            stage("validate", sum(|o| o.times.verify), json!({ "verification": verified })),
        ],
        artifacts: artifacts(names, done),
        warnings: notes.chain(other).chain(crowded).chain(left).collect(),
        plan,
    }
}

fn artifacts(names: &Names, done: &Done<'_>) -> Vec<Artifact> {
    let disk = |(index, outcome): (usize, &Outcome)| Artifact {
        kind: "disk",
        disk_id: Some(format!("disk{}", index + 1)),
        path: outcome.path.display().to_string(),
        format: "qcow2",
        size_bytes: outcome.file_len,
        boot_order_hint: u32::try_from(index).unwrap_or(u32::MAX),
        checksum: outcome.digest.as_ref().map(|digest| format!("blake3:{digest}")),
    };
    let xml = Artifact {
        kind: "libvirt-xml",
        disk_id: None,
        path: names.xml.display().to_string(),
        format: "xml",
        size_bytes: std::fs::metadata(&names.xml).map_or(0, |meta| meta.len()),
        boot_order_hint: 999,
        checksum: None,
    };
    let undo = Artifact {
        kind: "undo",
        disk_id: None,
        path: names.undo.display().to_string(),
        format: "zstd",
        size_bytes: u64::try_from(done.undo.len()).unwrap_or(u64::MAX),
        boot_order_hint: 999,
        checksum: Some(format!("blake3:{}", blake3::hash(done.undo).to_hex())),
    };
    done.outcomes.iter().enumerate().map(disk).chain([xml, undo]).collect()
}

pub(super) fn outcome_json(outcome: &Outcome) -> Value {
    json!({
        "path": outcome.path.display().to_string(),
        "virtual_size": outcome.len,
        "file_size": outcome.file_len,
        "read": outcome.bytes.read,
        "written": outcome.bytes.written,
        "zero": outcome.bytes.zero,
        "hole": outcome.bytes.hole,
        "resumed": outcome.bytes.resumed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ide_takes_four_disks() {
        use libvirt::DiskBus::{Ide, Sata, VirtioBlk};
        assert_eq!([3, 4, 5, 6].map(|order| place(Ide, order)), [Ide, Ide, Sata, Sata]);
        assert_eq!(place(VirtioBlk, 5), VirtioBlk);
    }

    #[test]
    fn cards_have_the_addresses_that_are_known() {
        const A: &str = "00:50:56:00:00:01";
        const B: &str = "52:54:00:00:00:02";
        let nic = |mac: Option<&str>| ovf::Nic { label: None, model: None, network: None, mac: mac.map(str::to_owned) };
        let card = |mac: &str| MachineNic { mac: Some(mac.to_owned()), model: None };
        let map = |text: &str| {
            let mut macs = fix::MacMap::default();
            macs.add(text).unwrap();
            macs
        };
        let none = fix::MacMap::default();
        let macs = |found: Result<Vec<MachineNic>>| -> Vec<String> {
            found.unwrap().into_iter().filter_map(|card| card.mac).collect()
        };
        assert_eq!(macs(cards(None, Vec::new(), vec![card(A)], &none)), [A]);
        assert_eq!(macs(cards(Some(&[nic(None)]), vec![card(B)], vec![card(A)], &none)), [A]);
        assert_eq!(macs(cards(Some(&[nic(Some(B))]), vec![card(B)], vec![card(A)], &none)), [B]);
        assert_eq!(macs(cards(Some(&[nic(None)]), vec![card(B)], vec![card(A), card(B)], &none)), [B]);
        assert_eq!(macs(cards(Some(&[nic(None)]), vec![card(B)], Vec::new(), &none)), [B]);
        let found = cards(Some(&[nic(Some(B))]), vec![card(&B.to_uppercase())], Vec::new(), &map(B));
        assert_eq!(macs(found).len(), 1);
        let error = cards(Some(&[nic(Some(B))]), vec![card(B)], Vec::new(), &map(A)).unwrap_err();
        assert_eq!(error.code(), "usage.mac");
    }
}
