//! Blocks in memory within one budget, each made once by whoever wants it first.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};
use crate::session::Session;

/// Bytes that many readers share.
pub type Block = Arc<[u8]>;

/// What identifies a block in the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Who made it: a number from [`Pool::owner`].
    pub owner: u32,
    /// Which of the owner's blocks.
    pub index: u64,
}

/// How much a block is worth keeping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Likely to be wanted again: read before the session began to stream.
    Protected,
    /// Read once, as the one pass goes by.
    Transient,
}

impl Class {
    /// The class of what is read now.
    #[must_use]
    pub fn now(session: &Session) -> Self {
        if session.is_streaming() { Self::Transient } else { Self::Protected }
    }
}

/// The memory that all caches of a session share, bounded by [`crate::session::Budget::cache`].
#[derive(Debug)]
pub struct Pool {
    shards: Vec<Mutex<Shard>>,
    limit: u64,
    protected: AtomicU64,
    transient: AtomicU64,
    owners: AtomicU32,
    hand: AtomicUsize,
}

/// Enough that threads seldom meet at one lock.
const SHARDS: usize = 16;

#[derive(Debug, Default)]
struct Shard {
    slots: HashMap<Key, Slot>,
    /// Keys of ready blocks in order of age. Every ready block is in the queue of its class exactly once.
    protected: VecDeque<Key>,
    transient: VecDeque<Key>,
}

#[derive(Debug)]
enum Slot {
    /// `touched` since it was last considered for eviction.
    Ready { block: Block, touched: bool },
    /// Being made by some thread.
    Flying(Arc<Flight>),
}

/// A block being made, and the threads that wait for it.
#[derive(Debug, Default)]
struct Flight {
    landed: Mutex<Option<Result<Block>>>,
    signal: Condvar,
}

/// The answer to a claim.
#[derive(Debug)]
pub(super) enum Claim<'a> {
    /// Here it is.
    Ready(Block),
    /// Another thread makes it. Never wait while holding a ticket: the other thread may be waiting for yours.
    Wait(Waiting),
    /// The caller must make it and complete the ticket.
    Mine(Ticket<'a>),
}

/// A block that another thread makes.
#[derive(Debug)]
pub(super) struct Waiting(Arc<Flight>);

impl Waiting {
    /// Waits until it is made.
    pub(super) fn wait(self) -> Result<Block> {
        let mut landed = lock(&self.0.landed);
        loop {
            if let Some(result) = &*landed {
                return result.clone();
            }
            landed = self.0.signal.wait(landed).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The duty to make a block. Dropping it uncompleted fails those who wait.
#[derive(Debug)]
pub(super) struct Ticket<'a> {
    pool: &'a Pool,
    key: Key,
    flight: Arc<Flight>,
    done: bool,
}

impl Ticket<'_> {
    /// Hands the outcome to all who wait. A failure is not kept: the next claim tries again.
    pub(super) fn complete(mut self, result: Result<Block>, class: Class) {
        self.land(result, class);
    }

    fn land(&mut self, result: Result<Block>, class: Class) {
        self.done = true;
        self.pool.settle(self.key, result.as_ref().ok(), class);
        *lock(&self.flight.landed) = Some(result);
        self.flight.signal.notify_all();
        self.pool.evict();
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.land(Err(Error::failed("cache.abandoned", "the thread that read a block gave up")), Class::Transient);
        }
    }
}

impl Pool {
    /// A pool that holds at most `limit` bytes.
    #[must_use]
    pub fn new(limit: u64) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            limit,
            protected: AtomicU64::new(0),
            transient: AtomicU64::new(0),
            owners: AtomicU32::new(0),
            hand: AtomicUsize::new(0),
        }
    }

    /// The session's pool. A quarter of the cache's share is left for blocks that digests hold.
    #[must_use]
    pub fn of(session: &Session) -> Arc<Self> {
        session.shared(|session| Self::new(session.budget.cache() / 4 * 3))
    }

    /// A number that no other owner of blocks has.
    pub fn owner(&self) -> u32 {
        self.owners.fetch_add(1, Ordering::Relaxed)
    }

    /// Bytes held now.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.protected.load(Ordering::Relaxed) + self.transient.load(Ordering::Relaxed)
    }

    /// The block, if it is there.
    #[must_use]
    pub fn peek(&self, key: Key) -> Option<Block> {
        match self.shard(key).slots.get_mut(&key) {
            Some(Slot::Ready { block, touched, .. }) => {
                *touched = true;
                Some(Arc::clone(block))
            }
            _ => None,
        }
    }

    /// The block, made by `make` if it is not there. One thread makes it; the others wait and share an error too.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn get(&self, key: Key, class: Class, make: impl FnOnce() -> Result<Block>) -> Result<Block> {
        match self.claim(key) {
            Claim::Ready(block) => Ok(block),
            Claim::Wait(waiting) => waiting.wait(),
            Claim::Mine(ticket) => {
                let result = make();
                ticket.complete(result.clone(), class);
                result
            }
        }
    }

    /// Whether the block is there or on its way.
    pub(super) fn knows(&self, key: Key) -> bool {
        self.shard(key).slots.contains_key(&key)
    }

    /// Asks for a block, or for the duty to make it.
    pub(super) fn claim(&self, key: Key) -> Claim<'_> {
        let mut shard = self.shard(key);
        match shard.slots.get_mut(&key) {
            Some(Slot::Ready { block, touched, .. }) => {
                *touched = true;
                Claim::Ready(Arc::clone(block))
            }
            Some(Slot::Flying(flight)) => Claim::Wait(Waiting(Arc::clone(flight))),
            None => {
                let flight = Arc::new(Flight::default());
                shard.slots.insert(key, Slot::Flying(Arc::clone(&flight)));
                Claim::Mine(Ticket { pool: self, key, flight, done: false })
            }
        }
    }

    /// Puts a made block in place of its flight, or removes the flight.
    fn settle(&self, key: Key, block: Option<&Block>, class: Class) {
        let mut shard = self.shard(key);
        let Some(block) = block else {
            shard.slots.remove(&key);
            return;
        };
        // A new block counts as touched: where all older ones are, it would be the first to go otherwise, before its reader is done.
        let slot = Slot::Ready { block: Arc::clone(block), touched: true };
        shard.slots.insert(key, slot);
        shard.queue(class).push_back(key);
        self.held(class).fetch_add(block.len() as u64, Ordering::Relaxed);
    }

    /// Drops blocks until the pool is within its limit: transient ones, unless they are down to a quarter of it.
    fn evict(&self) {
        while self.bytes() > self.limit {
            let plenty = self.transient.load(Ordering::Relaxed) > self.limit / 4;
            let classes =
                if plenty { [Class::Transient, Class::Protected] } else { [Class::Protected, Class::Transient] };
            if !classes.into_iter().any(|class| self.evict_one(class)) {
                return;
            }
        }
    }

    /// Drops the oldest untouched block of `class` in the next shard that has one.
    fn evict_one(&self, class: Class) -> bool {
        let first = self.hand.fetch_add(1, Ordering::Relaxed);
        (0..SHARDS).any(|step| {
            let shard = self.shards.get(first.wrapping_add(step) % SHARDS);
            let freed = shard.and_then(|shard| lock(shard).drop_one(class));
            if let Some(freed) = freed {
                self.held(class).fetch_sub(freed, Ordering::Relaxed);
            }
            freed.is_some()
        })
    }

    fn held(&self, class: Class) -> &AtomicU64 {
        match class {
            Class::Protected => &self.protected,
            Class::Transient => &self.transient,
        }
    }

    #[expect(clippy::indexing_slicing, reason = "the index is taken modulo the number of shards")]
    fn shard(&self, key: Key) -> MutexGuard<'_, Shard> {
        let mixed = (key.index ^ u64::from(key.owner).rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        lock(&self.shards[(mixed >> 60) as usize % SHARDS])
    }
}

impl Shard {
    fn queue(&mut self, class: Class) -> &mut VecDeque<Key> {
        match class {
            Class::Protected => &mut self.protected,
            Class::Transient => &mut self.transient,
        }
    }

    /// Drops the oldest block of `class` that was not touched since it was last passed over, or since it came; its length.
    fn drop_one(&mut self, class: Class) -> Option<u64> {
        loop {
            let key = self.queue(class).pop_front()?;
            if let Some(Slot::Ready { touched, .. }) = self.slots.get_mut(&key)
                && std::mem::take(touched)
            {
                self.queue(class).push_back(key);
                continue;
            }
            return match self.slots.remove(&key) {
                Some(Slot::Ready { block, .. }) => Some(block.len() as u64),
                _ => None,
            };
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    fn key(index: u64) -> Key {
        Key { owner: 0, index }
    }

    fn block(len: usize) -> Result<Block> {
        Ok(vec![1; len].into())
    }

    #[test]
    fn stays_within_its_limit() {
        let pool = Pool::new(1000);
        for index in 0..100 {
            pool.get(key(index), Class::Protected, || block(100)).unwrap();
            assert!(pool.bytes() <= 1000);
        }
        assert_eq!(pool.bytes(), 1000);
        pool.get(key(1000), Class::Protected, || block(5000)).unwrap();
        assert!(pool.bytes() <= 1000, "what is larger than the pool is not kept");
    }

    #[test]
    fn protected_blocks_outlive_transient_ones() {
        let pool = Pool::new(1000);
        for index in 0..7 {
            pool.get(key(index), Class::Protected, || block(100)).unwrap();
        }
        for index in 100..400 {
            pool.get(key(index), Class::Transient, || block(100)).unwrap();
        }
        assert!((0..7).all(|index| pool.peek(key(index)).is_some()));
    }

    #[test]
    fn a_new_block_outlives_older_ones_that_were_used() {
        let pool = Pool::new(u64::MAX);
        let shard_of =
            |index| pool.shards.iter().position(|shard| lock(shard).slots.contains_key(&key(index))).unwrap();
        for index in 0..100 {
            pool.get(key(index), Class::Transient, || block(1)).unwrap();
            assert!(pool.peek(key(index)).is_some());
        }
        let newest = (100..).find(|index| {
            pool.get(key(*index), Class::Transient, || block(1)).unwrap();
            shard_of(*index) == shard_of(0)
        });
        lock(&pool.shards[shard_of(0)]).drop_one(Class::Transient).unwrap();
        assert!(pool.peek(key(0)).is_none() && pool.peek(key(newest.unwrap())).is_some());
    }

    #[test]
    fn transient_blocks_keep_a_quarter() {
        let pool = Pool::new(1000);
        for index in 0..10 {
            pool.get(key(index), Class::Protected, || block(100)).unwrap();
        }
        for index in 100..102 {
            pool.get(key(index), Class::Transient, || block(100)).unwrap();
        }
        assert!((100..102).all(|index| pool.peek(key(index)).is_some()));
    }

    #[test]
    fn threads_that_want_one_block_make_it_once() {
        let pool = Pool::new(1 << 20);
        let made = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for index in 0..50 {
                        let make = || {
                            made.fetch_add(1, Ordering::Relaxed);
                            std::thread::yield_now();
                            block(16)
                        };
                        pool.get(key(index), Class::Protected, make).unwrap();
                    }
                });
            }
        });
        assert_eq!(made.load(Ordering::Relaxed), 50);
    }

    #[test]
    fn a_failure_is_shared_and_not_kept() {
        let pool = Pool::new(1000);
        let error = pool.get(key(1), Class::Protected, || Err(Error::interrupted())).unwrap_err();
        assert_eq!(error.code(), "session.interrupted");
        assert!(pool.get(key(1), Class::Protected, || block(1)).is_ok());
    }

    #[test]
    fn an_abandoned_ticket_fails_those_who_wait() {
        let pool = Pool::new(1000);
        let Claim::Mine(ticket) = pool.claim(key(1)) else { panic!("the first claim is the maker's") };
        let Claim::Wait(waiting) = pool.claim(key(1)) else { panic!("the second waits") };
        drop(ticket);
        assert_eq!(waiting.wait().unwrap_err().code(), "cache.abandoned");
        assert!(matches!(pool.claim(key(1)), Claim::Mine(_)));
    }
}
