//! Power cuts: what was written since the last sync is dropped, partly or as a whole, and torn; a later run comes to the same file.

use std::collections::BTreeSet;

use super::*;
use crate::disk::Memory;

/// A file that knows what a power cut would leave of it.
#[derive(Debug, Default)]
struct Image {
    live: Vec<u8>,
    durable: Vec<u8>,
    /// Since the last sync, in order.
    changes: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Write(Vec<u8>, usize),
    Len(usize),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(data, at) => {
                bytes.resize(bytes.len().max(at + data.len()), 0);
                bytes[*at..at + data.len()].copy_from_slice(data);
            }
            Self::Len(len) => bytes.resize(*len, 0),
        }
    }
}

/// What happens to what was not synced.
#[derive(Clone, Copy, Debug)]
enum Cut {
    /// All of it is lost.
    DropAll,
    /// A random half of the writes is lost.
    DropHalf,
    /// Each sector of 512 bytes is written or not.
    Tear,
    /// Nothing: the process was killed, and the machine went on.
    Kill,
}

impl Image {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.live);
        self.changes.push(change);
    }

    fn sync(&mut self) {
        self.durable.clone_from(&self.live);
        self.changes.clear();
    }

    /// What is found after the machine was started again.
    fn after(&self, cut: Cut, dice: &mut Dice) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        match cut {
            Cut::Kill => bytes.clone_from(&self.live),
            Cut::DropAll => {}
            Cut::DropHalf => self.changes.iter().filter(|_| dice.throw()).for_each(|change| change.apply(&mut bytes)),
            Cut::Tear => {
                for change in &self.changes {
                    match change {
                        Change::Write(data, at) => {
                            let mut place = *at;
                            for sector in data.chunks(512) {
                                if dice.throw() {
                                    Change::Write(sector.to_vec(), place).apply(&mut bytes);
                                }
                                place += sector.len();
                            }
                        }
                        Change::Len(_) if dice.throw() => change.apply(&mut bytes),
                        Change::Len(_) => {}
                    }
                }
            }
        }
        bytes
    }
}

/// Reproducible chance.
struct Dice(u64);

impl Dice {
    fn throw(&mut self) -> bool {
        // Knuth's constants for a linear congruential generator.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 60 & 1 == 1
    }
}

/// An output and its journal on a machine whose power fails at sync number `fail_at`, before or after it has an effect.
#[derive(Debug)]
struct Machine {
    file: Mutex<Image>,
    journal: JournalImage,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct JournalImage(Mutex<Image>, Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    syncs: AtomicU64,
    fail_at: Option<u64>,
    published: std::sync::atomic::AtomicBool,
}

impl Shared {
    /// Counts a sync; the power is off from the chosen one on.
    fn sync(&self) -> Result<()> {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.power()
    }

    fn power(&self) -> Result<()> {
        match self.fail_at {
            Some(at) if self.syncs.load(Ordering::Relaxed) > at => Err(Error::failed("fault.injected", "power cut")),
            _ => Ok(()),
        }
    }
}

impl Machine {
    fn new(file: Vec<u8>, journal: Vec<u8>, fail_at: Option<u64>) -> Arc<Self> {
        let shared = Arc::new(Shared { fail_at, ..Shared::default() });
        let image = |bytes: Vec<u8>| Mutex::new(Image { durable: bytes.clone(), live: bytes, changes: Vec::new() });
        Arc::new(Self { file: image(file), journal: JournalImage(image(journal), Arc::clone(&shared)), shared })
    }

    /// What the next run finds, and whether the output has its name.
    fn after(&self, cut: Cut, seed: u64) -> (Vec<u8>, Vec<u8>) {
        let dice = &mut Dice(seed);
        (self.file.lock().unwrap().after(cut, dice), self.journal.0.lock().unwrap().after(cut, dice))
    }
}

impl Output for Machine {
    fn name(&self) -> String {
        "out".to_owned()
    }

    fn device(&self) -> Option<u64> {
        None
    }

    fn free_space(&self) -> Result<Option<u64>> {
        Ok(None)
    }

    fn log(&self) -> Option<&dyn Log> {
        Some(&self.journal)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        self.shared.power()?;
        self.file.lock().unwrap().change(Change::Write(data.to_vec(), usize::try_from(offset).unwrap()));
        Ok(())
    }

    fn shares(&self, _from: &File) -> Option<u64> {
        Some(512)
    }

    fn share(&self, from: &File, from_offset: u64, offset: u64, len: u64) -> Result<bool> {
        self.write_at(&bytes_at(from, from_offset, len), offset).map(|()| true)
    }

    fn written(&self, _range: Range<u64>) {}

    fn set_len(&self, len: u64) -> Result<()> {
        self.shared.power()?;
        self.file.lock().unwrap().change(Change::Len(usize::try_from(len).unwrap()));
        Ok(())
    }

    fn allocate(&self, len: u64) -> Result<()> {
        self.set_len(len)
    }

    fn sync(&self) -> Result<()> {
        self.shared.sync()?;
        self.file.lock().unwrap().sync();
        Ok(())
    }

    fn reopen(&self) -> Result<Arc<dyn Disk>> {
        self.shared.power()?;
        Ok(Checked::wrap(Memory::new(self.file.lock().unwrap().live.clone())))
    }

    fn publish(&self, _force: bool) -> Result<PathBuf> {
        self.shared.sync()?;
        self.shared.published.store(true, Ordering::Relaxed);
        Ok(PathBuf::from("out"))
    }
}

impl Log for JournalImage {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        self.1.power()?;
        let image = self.0.lock().unwrap();
        let rest = image.live.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        self.1.power()?;
        self.0.lock().unwrap().change(Change::Write(data.to_vec(), usize::try_from(offset).unwrap()));
        Ok(())
    }

    fn truncate(&self, len: u64) -> Result<()> {
        self.1.power()?;
        self.0.lock().unwrap().change(Change::Len(usize::try_from(len).unwrap()));
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        self.1.sync()?;
        self.0.lock().unwrap().sync();
        Ok(())
    }
}

/// Small enough that a small disk is synced several times.
const INTERVAL: Interval = Interval { sync: 2 << 20, most: 6 << 20 };

/// A run, and how many bytes its copy read of the source. Verification reads that only to explain a difference.
fn attempt(model: &Arc<Model>, machine: &Arc<Machine>, options: &Options) -> (Result<Outcome>, u64) {
    let source = checked(model);
    let ends = Ends::new(Arc::clone(&source), Arc::clone(machine) as Arc<dyn Output>);
    let copied = prepare_output(ends, options, INTERVAL, &session(2), &()).and_then(|prepared| prepared.copy(&()));
    let read = source.stats().map_or(0, |stats| stats.bytes);
    (copied.and_then(|copied| copied.verify(&())?.seal(&())), read)
}

fn varied() -> Arc<Model> {
    Model::new(&[
        (Part::Noise, 5 << 20),
        (Part::Hole, 1 << 20),
        (Part::DataZeros, 2 << 20),
        (Part::Noise, (5 << 20) + 700),
    ])
}

/// Each sink loses its power at each of its syncs, in each way.
#[test]
fn after_every_power_cut_it_goes_on() {
    every_power_cut(&varied(), &all_options());
}

/// The same where the file system shares bytes, read or unread.
#[test]
fn what_is_shared_survives_power_cuts() {
    let able = || all_options().into_iter().filter(|options| options.format.takes_plain());
    let unread = able().map(|options| Options { verify: false, ..options });
    every_power_cut(&varied().in_file(), &able().chain(unread).collect::<Vec<_>>());
}

fn every_power_cut(model: &Arc<Model>, options: &[Options]) {
    let seeds = std::env::var("HYPER2KVM_CRASH_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1_u64);
    for options in options {
        let whole = Machine::new(Vec::new(), Vec::new(), None);
        let outcome = attempt(model, &whole, options).0.unwrap();
        let syncs = whole.shared.syncs.load(Ordering::Relaxed);
        let unread = outcome.digest.is_none();
        // The thread that makes things durable in between may come to one sync less before a short run is over.
        assert!(syncs >= if unread { 2 } else { 4 }, "{options:?}: {syncs} syncs");
        let mut resumed = BTreeSet::new();
        for at in 0..syncs {
            let cuts = [Cut::DropAll, Cut::DropHalf, Cut::Tear, Cut::Kill];
            for (cut, seed) in cuts.into_iter().flat_map(|cut| (0..seeds).map(move |seed| (cut, seed))) {
                let machine = Machine::new(Vec::new(), Vec::new(), Some(at));
                let (died, before) = attempt(model, &machine, options);
                if died.is_ok() {
                    // There is one sync less when threads happen to meet in another way.
                    continue;
                }
                assert!(!machine.shared.published.load(Ordering::Relaxed));
                let (file, journal) = machine.after(cut, seed);
                let again = Machine::new(file, journal, None);
                let (found, read) = attempt(model, &again, options);
                let place = format!("{options:?}: power cut {cut:?} at sync {at} of {syncs}, seed {seed}");
                let found = found.unwrap_or_else(|error| panic!("{place}: {error:?}"));
                assert_eq!((&found.digest, found.file_len), (&outcome.digest, outcome.file_len), "{place}");
                assert!(again.file.lock().unwrap().durable == whole.file.lock().unwrap().durable, "{place}");
                assert_eq!(found.bytes.read + found.bytes.resumed, outcome.bytes.read, "{place}");
                // After a kill only what was on its way is read again: a chunk for each of four threads.
                let most = if matches!(cut, Cut::Kill) { 4 * plan::CHUNK } else { INTERVAL.most };
                let twice = (before + read).saturating_sub(outcome.bytes.read);
                assert!(twice <= most, "{place}: {twice} bytes were read twice");
                assert_eq!(found.bytes.shared, outcome.bytes.shared, "{place}");
                resumed.insert(found.bytes.resumed);
            }
        }
        assert!(unread || resumed.len() > 3, "{options:?}: {resumed:?}");
    }
}
