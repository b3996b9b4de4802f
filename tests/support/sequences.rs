//! Sequences of random changes to volumes of many shapes, each repeatable from its seed.
//!
//! A volume goes through [`AGE`] sequences, one after another, before the next one takes a new copy: so they meet what earlier ones,
//! and the kernel between them, made of it. Which shapes, how many sequences of each and from which seed on is said by variables of
//! the environment that begin with the name of the kind of file system: `XFS_SHAPES`, `XFS_SEQUENCES`, `XFS_FIRST_SEED`.

use std::sync::Mutex;
use std::time::Instant;

/// Sequences that one volume goes through.
const AGE: u64 = 10;

/// A number that a variable of the environment gives.
pub(crate) fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable} is no number: {value}")))
}

/// Whether the variable `KIND_SHAPES` has this name, or is `all`; where it is not there, whether the shape is a `usual` one.
pub(crate) fn is_wanted(kind: &str, shape: &str, usual: bool) -> bool {
    match std::env::var(format!("{kind}_SHAPES")) {
        Ok(names) => names == "all" || names.split(' ').any(|name| name == shape),
        Err(_) => usual,
    }
}

/// Runs `work` on each shape, on as many at once as `HYPER2KVM_JOBS` says, or one by one. A failure ends one of these jobs only.
pub(crate) fn each<T: Send>(shapes: impl IntoIterator<Item = T, IntoIter: Send>, work: impl Fn(T) + Sync) {
    let shapes = Mutex::new(shapes.into_iter());
    let next = || shapes.lock().expect("no panic under the lock").next();
    std::thread::scope(|scope| {
        for _ in 0..number("HYPER2KVM_JOBS").unwrap_or(1) {
            scope.spawn(|| {
                while let Some(shape) = next() {
                    work(shape);
                }
            });
        }
    });
}

/// Sequences of changes to volumes of one shape.
pub(crate) struct Sequences<'a> {
    /// What the names of variables begin with.
    pub(crate) kind: &'a str,
    pub(crate) shape: &'a str,
    /// How many there are if nothing is said.
    pub(crate) usual: u64,
}

impl Sequences<'_> {
    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        number(&format!("{}_SEQUENCES", self.kind)).unwrap_or(self.usual)
    }

    /// Runs `sequence` with one seed after another, on a `fresh` volume for each [`AGE`] of them, and then `last` on that volume.
    pub(crate) fn run<V>(&self, fresh: impl Fn() -> V, sequence: impl Fn(&V, u64), last: impl Fn(&V)) {
        let first = number(&format!("{}_FIRST_SEED", self.kind)).unwrap_or(1);
        let (started, count) = (Instant::now(), self.count());
        let end = first + count;
        for young in (first..end).step_by(AGE as usize) {
            let volume = fresh();
            let old = end.min(young + AGE);
            for seed in young..old {
                let _running = Running { sequences: self, young, seed };
                sequence(&volume, seed);
            }
            let _running = Running { sequences: self, young, seed: old - 1 };
            last(&volume);
        }
        let Self { kind, shape, .. } = self;
        eprintln!("{kind} {shape}: {count} sequences from seed {first} on, in {} s", started.elapsed().as_secs());
    }
}

/// Tells how to repeat a sequence that fails: from the first that its volume went through.
struct Running<'a> {
    sequences: &'a Sequences<'a>,
    young: u64,
    seed: u64,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Sequences { kind, shape, .. } = self.sequences;
            let (young, count) = (self.young, self.seed + 1 - self.young);
            eprintln!("again: {kind}_SHAPES={shape} {kind}_FIRST_SEED={young} {kind}_SEQUENCES={count}");
        }
    }
}
