//! A source seen through the pool: aligned blocks, fetched once.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use super::ahead::Ahead;
use super::pool::{Block, Claim, Class, Key, Pool, Ticket, Waiting};
use super::store::Store;
use crate::disk::{Checked, Disk, Fingerprint, Hints, HostRange, Latency, SectorSize, Visit, read_vec};
use crate::error::{Error, Result};
use crate::session::Session;

/// Bytes in a block.
pub const BLOCK: u64 = 256 << 10;

/// Blocks that one call claims at a time, so that a large read holds a bounded number of them.
const WINDOW: u64 = 16;

/// Blocks in one request to a source that answers slowly.
pub(super) const MERGE: usize = 16;

/// Sees every block that is fetched, once for each fetch: block `index` begins at `index * BLOCK`. No lock of the cache is
/// held meanwhile, the block can already be read by others, and the calling thread owes no block to anyone: a tap may wait.
pub trait Tap: Send + Sync {
    /// A block arrived.
    fn fetched(&self, index: u64, block: &Block);
}

/// A source behind the session's pool.
#[derive(Debug)]
pub struct BlockCache {
    core: Arc<Core>,
    /// For a source on another machine.
    ahead: Option<Ahead>,
}

/// What fetches blocks, also for those who fetch ahead.
pub(super) struct Core {
    source: Arc<dyn Disk>,
    session: Arc<Session>,
    pool: Arc<Pool>,
    owner: u32,
    len: u64,
    slow: bool,
    /// Where blocks are kept for a later run.
    store: Option<Store>,
    tap: OnceLock<Weak<dyn Tap>>,
    /// Blocks that were wanted and here or on their way.
    hits: AtomicU64,
    /// Blocks that were read.
    misses: AtomicU64,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("source", &self.source).field("owner", &self.owner).finish_non_exhaustive()
    }
}

/// A block that the caller must fetch.
struct Duty<'a> {
    index: u64,
    ticket: Ticket<'a>,
}

impl BlockCache {
    /// Puts the cache around `source`.
    #[must_use]
    pub fn wrap(source: Arc<dyn Disk>, session: &Arc<Session>) -> Arc<Checked<Self>> {
        let pool = Pool::of(session);
        let core = Arc::new(Core {
            owner: pool.owner(),
            len: source.len(),
            slow: source.hints().latency == Latency::Remote,
            store: store(&*source, session),
            session: Arc::clone(session),
            source,
            pool,
            tap: OnceLock::new(),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        });
        // What decodes the bytes of another machine's file is slow too, but would do so twice where readers take turns.
        let far = core.slow && core.source.traffic().is_some();
        let ahead = far.then(|| Ahead::new(Arc::clone(&core), session.budget.cache() / 4));
        Checked::wrap(Self { core, ahead })
    }

    /// Shows every block that is fetched from now on to `tap`, while that lives. The first tap stays; false if there was one.
    pub fn set_tap(&self, tap: Weak<dyn Tap>) -> bool {
        self.core.tap.set(tap).is_ok()
    }

    /// The block `index`, which must begin inside the source.
    ///
    /// # Errors
    /// Those of reading the source.
    pub fn block(&self, index: u64) -> Result<Block> {
        self.core.block(index)
    }

    /// The block `index` if it is here, without reading the source.
    #[must_use]
    pub fn peek(&self, index: u64) -> Option<Block> {
        self.core.pool.peek(self.core.key(index))
    }
}

impl Core {
    /// Length of the source in bytes.
    pub(super) const fn len(&self) -> u64 {
        self.len
    }

    /// Whether block `index` is here or on its way.
    pub(super) fn knows(&self, index: u64) -> bool {
        self.pool.knows(self.key(index))
    }

    /// Fetches those of `blocks` that nobody has asked for; how many bytes that were.
    pub(super) fn fetch_ahead(&self, blocks: Range<u64>) -> Result<u64> {
        self.session.check()?;
        let mine = |index| match self.pool.claim(self.key(index)) {
            Claim::Mine(ticket) => {
                self.misses.fetch_add(1, Ordering::Relaxed);
                Some(Duty { index, ticket })
            }
            Claim::Ready(_) | Claim::Wait(_) => None,
        };
        let duties = blocks.filter_map(mine).collect();
        let mut bytes = 0;
        for (index, block) in self.fetch(duties)? {
            bytes += block.len() as u64;
            self.show(index, &block);
        }
        Ok(bytes)
    }

    fn block(&self, index: u64) -> Result<Block> {
        match self.claim(index) {
            Claim::Ready(block) => Ok(block),
            Claim::Wait(waiting) => waiting.wait(),
            Claim::Mine(ticket) => self.fetch_one(Duty { index, ticket }),
        }
    }

    /// Claims a block that somebody wants now.
    fn claim(&self, index: u64) -> Claim<'_> {
        let claim = self.pool.claim(self.key(index));
        let count = if matches!(claim, Claim::Mine(_)) { &self.misses } else { &self.hits };
        count.fetch_add(1, Ordering::Relaxed);
        claim
    }

    fn key(&self, index: u64) -> Key {
        Key { owner: self.owner, index }
    }

    /// The bytes of the source that block `index` holds.
    fn range(&self, index: u64) -> Range<u64> {
        let start = index * BLOCK;
        start..(start + BLOCK).min(self.len)
    }

    fn tap(&self) -> Option<Arc<dyn Tap>> {
        self.tap.get().and_then(Weak::upgrade)
    }

    /// Blocks that lie wholly in `range`, are not here and will not be wanted again are read past the cache.
    fn may_bypass(&self) -> bool {
        self.session.is_streaming() && !self.slow && self.tap().is_none()
    }

    /// Reads the blocks `first..end`, at most [`WINDOW`] of them, as far as `request` wants them.
    fn read_window(&self, first: u64, end: u64, request: &mut Request<'_>) -> Result<()> {
        if !self.slow {
            for index in first..end {
                request.take(index, &self.block(index)?);
            }
            return Ok(());
        }
        let mut duties: Vec<Duty<'_>> = Vec::new();
        let mut waits: Vec<(u64, Waiting)> = Vec::new();
        for index in first..end {
            match self.claim(index) {
                Claim::Ready(block) => request.take(index, &block),
                Claim::Wait(waiting) => waits.push((index, waiting)),
                Claim::Mine(ticket) => duties.push(Duty { index, ticket }),
            }
        }
        // No ticket is held any more when the tap sees the blocks: it may wait for another thread, and that one for them.
        for (index, block) in self.fetch(duties)? {
            self.show(index, &block);
            request.take(index, &block);
        }
        for (index, waiting) in waits {
            request.take(index, &waiting.wait()?);
        }
        Ok(())
    }

    /// Fetches what the caller took upon itself, neighbours together. The first error ends it, for all.
    fn fetch(&self, duties: Vec<Duty<'_>>) -> Result<Vec<(u64, Block)>> {
        let mut fresh = Vec::with_capacity(duties.len());
        let mut failed = None;
        let duties: Vec<_> = duties.into_iter().filter_map(|duty| self.find(duty, &mut fresh)).collect();
        let mut duties = duties.into_iter().peekable();
        while let Some(duty) = duties.next() {
            let index = duty.index;
            let mut group = vec![duty];
            let mut next = index + 1;
            while group.len() < MERGE
                && let Some(duty) = duties.next_if(|duty| duty.index == next)
            {
                group.push(duty);
                next += 1;
            }
            let range = self.range(index).start..self.range(next - 1).end;
            let result = failed.clone().map_or_else(|| read_vec(&*self.source, range.start, length(&range)), Err);
            match result {
                Ok(bytes) => self.split(group, &bytes, &mut fresh),
                Err(error) => {
                    for duty in group {
                        duty.ticket.complete(Err(error.clone()), Class::Transient);
                    }
                    failed = Some(error);
                }
            }
        }
        failed.map_or(Ok(fresh), Err)
    }

    /// Hands out the block of `duty` if it was kept; else gives the duty back.
    fn find<'a>(&self, duty: Duty<'a>, fresh: &mut Vec<(u64, Block)>) -> Option<Duty<'a>> {
        let kept = self.store.as_ref().and_then(|store| store.get(duty.index, length(&self.range(duty.index))));
        let Some(block) = kept else { return Some(duty) };
        duty.ticket.complete(Ok(Arc::clone(&block)), Class::now(&self.session));
        fresh.push((duty.index, block));
        None
    }

    fn keep(&self, index: u64, block: &[u8]) {
        if let Some(store) = &self.store {
            store.keep(index, block);
        }
    }

    /// Hands out the blocks of neighbours that were read together.
    fn split(&self, group: Vec<Duty<'_>>, bytes: &[u8], fresh: &mut Vec<(u64, Block)>) {
        for (duty, part) in group.into_iter().zip(bytes.chunks(length(&(0..BLOCK)))) {
            let block = Block::from(part);
            duty.ticket.complete(Ok(Arc::clone(&block)), Class::now(&self.session));
            self.keep(duty.index, &block);
            fresh.push((duty.index, block));
        }
    }

    fn fetch_one(&self, duty: Duty<'_>) -> Result<Block> {
        if self.store.is_some() {
            let index = duty.index;
            let block = self.fetch(vec![duty])?.pop().map(|(_, block)| block);
            let block = block.ok_or_else(|| Error::failed("cache.abandoned", "a block was not fetched"))?;
            self.show(index, &block);
            return Ok(block);
        }
        let range = self.range(duty.index);
        let mut block: Block = std::iter::repeat_n(0, length(&range)).collect();
        let result = match Arc::get_mut(&mut block) {
            Some(bytes) => self.source.read_at(bytes, range.start),
            None => Ok(()),
        };
        match result {
            Ok(()) => {
                duty.ticket.complete(Ok(Arc::clone(&block)), Class::now(&self.session));
                self.show(duty.index, &block);
                Ok(block)
            }
            Err(error) => {
                duty.ticket.complete(Err(error.clone()), Class::Transient);
                Err(error)
            }
        }
    }

    fn show(&self, index: u64, block: &Block) {
        if let Some(tap) = self.tap() {
            tap.fetched(index, block);
        }
    }
}

/// What a caller of `read_at` wants.
struct Request<'a> {
    buf: &'a mut [u8],
    offset: u64,
}

impl Request<'_> {
    fn end(&self) -> u64 {
        self.offset + self.buf.len() as u64
    }

    /// Copies what is wanted of block `index`.
    fn take(&mut self, index: u64, block: &Block) {
        let start = index * BLOCK;
        let from = self.offset.max(start);
        let to = self.end().min(start + block.len() as u64);
        let wanted = self.part(from..to);
        let at = length(&(start..from));
        if let Some(bytes) = block.get(at..at + wanted.len()) {
            wanted.copy_from_slice(bytes);
        }
    }

    /// The part of the buffer for these bytes of the source.
    fn part(&mut self, range: Range<u64>) -> &mut [u8] {
        let at = length(&(self.offset..range.start));
        self.buf.get_mut(at..at + length(&range)).unwrap_or_default()
    }
}

impl Disk for BlockCache {
    fn len(&self) -> u64 {
        self.core.len
    }

    fn sector_size(&self) -> SectorSize {
        self.core.source.sector_size()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let Some(ahead) = &self.ahead else { return self.core.read(buf, offset) };
        let range = offset..offset + buf.len() as u64;
        for index in offset / BLOCK..range.end.div_ceil(BLOCK) {
            if let Some(blocks) = ahead.take(index) {
                // Whatever is wrong, the read finds it as well.
                let _ = self.core.fetch_ahead(blocks);
            }
        }
        self.core.read(buf, offset)?;
        ahead.read(&range);
        Ok(())
    }

    fn extents(&self, range: Range<u64>, visit: &mut Visit<'_>) -> Result<()> {
        self.core.source.extents(range, visit)
    }

    fn host(&self, range: Range<u64>) -> Result<Option<HostRange>> {
        // A tap is to see every byte.
        if self.core.tap().is_some() { Ok(None) } else { self.core.source.host(range) }
    }

    fn prefetch(&self, range: Range<u64>) {
        match &self.ahead {
            Some(ahead) => ahead.want(range.start / BLOCK..range.end.div_ceil(BLOCK)),
            None => self.core.source.prefetch(range),
        }
    }

    fn hints(&self) -> Hints {
        self.core.source.hints()
    }

    fn fingerprint(&self) -> Result<Fingerprint> {
        self.core.source.fingerprint()
    }

    fn describe(&self) -> (&'static str, String) {
        let core = &self.core;
        let kept = core.store.as_ref().map(|store| {
            let (found, kept) = store.counts();
            format!(", {found} of them kept before, {kept} kept now")
        });
        let (misses, hits) = (core.misses.load(Ordering::Relaxed), core.hits.load(Ordering::Relaxed));
        let size = BLOCK >> 10;
        ("cache", format!("blocks of {size} KiB: {misses} read{}; {hits} found here", kept.unwrap_or_default()))
    }

    fn name(&self) -> String {
        self.core.source.name()
    }

    fn below(&self) -> Vec<Arc<dyn Disk>> {
        vec![Arc::clone(&self.core.source)]
    }
}

impl Core {
    /// Reads through the cache, or past it where that is better.
    fn read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let mut request = Request { buf, offset };
        let (first, end) = (offset / BLOCK, request.end().div_ceil(BLOCK));
        // A block for each small read far from the last would be many times what is asked for. Whoever taps the blocks hashes a
        // whole pass, which this is not.
        if self.session.is_serving() && !self.slow && !(first..end).any(|index| self.pool.knows(self.key(index))) {
            return self.source.read_at(request.buf, offset);
        }
        let bypass = self.may_bypass();
        let mut index = first;
        while index < end {
            let skipped = if bypass { self.absent(index, end, &request) } else { 0 };
            if skipped > 0 {
                let range = index * BLOCK..self.range(index + skipped - 1).end;
                self.source.read_at(request.part(range.clone()), range.start)?;
                index += skipped;
                continue;
            }
            let stop = if bypass { index + 1 } else { end.min(index + WINDOW) };
            self.read_window(index, stop, &mut request)?;
            index = stop;
        }
        Ok(())
    }

    /// How many blocks from `index` on are wholly wanted and neither here nor on their way.
    fn absent(&self, index: u64, end: u64, request: &Request<'_>) -> u64 {
        let wanted = |index: &u64| {
            let range = self.range(*index);
            range.start >= request.offset && range.end <= request.end() && !self.pool.knows(self.key(*index))
        };
        (index..end).take_while(wanted).count() as u64
    }
}

/// Where blocks of `source` are kept, if it is on another machine, can be told from others, and the user named a folder.
fn store(source: &dyn Disk, session: &Session) -> Option<Store> {
    let folder = session.access().blocks.as_deref()?;
    let origin = source.origin()?;
    Store::open(folder, origin, source.len()).inspect_err(|error| tracing::warn!("{error:?}")).ok()
}

/// The length of a range that lies inside a buffer.
fn length(range: &Range<u64>) -> usize {
    usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Fault, Memory, until_it_succeeds};
    use crate::session::{Budget, Policy};
    use std::sync::Mutex;

    /// A source that answers slowly, in so far as it says so.
    #[derive(Debug)]
    struct Remote(Memory);

    impl Disk for Remote {
        fn len(&self) -> u64 {
            self.0.len()
        }
        fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
            self.0.read_at(buf, offset)
        }
        fn extents(&self, range: Range<u64>, visit: &mut Visit<'_>) -> Result<()> {
            self.0.extents(range, visit)
        }
        fn hints(&self) -> Hints {
            Hints { latency: Latency::Remote, ..Hints::default() }
        }
        fn fingerprint(&self) -> Result<Fingerprint> {
            self.0.fingerprint()
        }
        fn describe(&self) -> (&'static str, String) {
            ("remote", String::new())
        }
    }

    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|at| (at / 7 + at / 4099 * 31) as u8).collect()
    }

    fn read(disk: &dyn Disk, offset: usize, len: usize) -> Vec<u8> {
        crate::disk::read_vec(disk, offset as u64, len).unwrap()
    }

    const LEN: usize = 5 * BLOCK as usize + 12_345;

    #[test]
    fn small_reads_for_others_are_as_small_below() {
        let model = bytes(LEN);
        let local: Arc<dyn Disk> = Checked::wrap(Memory::new(model.clone()));
        let session = Session::with_defaults();
        let cache = BlockCache::wrap(Arc::clone(&local), &session);
        assert_eq!(read(&*cache, 5, 10), model[5..15]);
        let before = local.stats().unwrap().bytes;
        session.begin_serving();
        assert_eq!(read(&*cache, 100, 10), model[100..110]);
        assert_eq!(local.stats().unwrap().bytes, before, "it was here");
        let far = 3 * BLOCK as usize - 5;
        assert_eq!(read(&*cache, far, 10), model[far..far + 10]);
        assert_eq!(local.stats().unwrap().bytes, before + 10);
    }

    #[test]
    fn random_reads_by_several_threads_fetch_no_byte_twice() {
        let model = bytes(LEN);
        let local: Arc<dyn Disk> = Checked::wrap(Memory::new(model.clone()));
        let remote: Arc<dyn Disk> = Checked::wrap(Remote(Memory::new(model.clone())));
        for source in [local, remote] {
            let cache = BlockCache::wrap(Arc::clone(&source), &Session::with_defaults());
            std::thread::scope(|scope| {
                for thread in 0..4_usize {
                    let (cache, model) = (&cache, &model);
                    scope.spawn(move || {
                        let mut state = thread * 977 + 1;
                        for _ in 0..200 {
                            state =
                                state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                            let offset = (state >> 20) % LEN;
                            let len = ((state >> 8) % (3 * BLOCK as usize)).min(LEN - offset);
                            assert_eq!(read(&**cache, offset, len), model[offset..offset + len]);
                        }
                    });
                }
            });
            assert_eq!(read(&*cache, 0, LEN), model);
            assert_eq!(source.stats().unwrap().bytes, LEN as u64);
        }
    }

    #[test]
    fn a_slow_source_gets_few_large_requests() {
        let source: Arc<dyn Disk> = Checked::wrap(Remote(Memory::new(bytes(LEN))));
        let cache = BlockCache::wrap(Arc::clone(&source), &Session::with_defaults());
        read(&*cache, 3 * BLOCK as usize, 1);
        read(&*cache, 0, LEN);
        assert_eq!(source.stats().unwrap().reads, 3);
    }

    #[test]
    fn what_was_read_before_streaming_is_not_read_again() {
        let model = bytes(LEN);
        let source: Arc<dyn Disk> = Checked::wrap(Memory::new(model.clone()));
        let session = Session::with_defaults();
        let cache = BlockCache::wrap(Arc::clone(&source), &session);
        read(&*cache, 2 * BLOCK as usize + 5, 10);
        session.begin_streaming();
        for offset in (0..LEN).step_by(BLOCK as usize * 5 / 2) {
            let len = (BLOCK as usize * 5 / 2).min(LEN - offset);
            assert_eq!(read(&*cache, offset, len), model[offset..offset + len]);
        }
        assert_eq!(source.stats().unwrap().bytes, LEN as u64);
    }

    #[test]
    fn a_small_pool_gives_the_same_bytes() {
        let model = bytes(LEN);
        let session = Session::new(Budget::new(0), Policy::default(), 1);
        session.shared(|_| Pool::new(2 * BLOCK));
        let cache = BlockCache::wrap(Checked::wrap(Memory::new(model.clone())), &session);
        for _ in 0..3 {
            assert_eq!(read(&*cache, 0, LEN), model);
            assert_eq!(read(&*cache, 100, LEN - 200), model[100..LEN - 100]);
        }
        assert!(Pool::of(&session).bytes() <= 2 * BLOCK);
    }

    #[derive(Default)]
    struct Seen(Mutex<Vec<(u64, usize)>>);

    impl Tap for Seen {
        fn fetched(&self, index: u64, block: &Block) {
            self.0.lock().unwrap().push((index, block.len()));
        }
    }

    #[test]
    fn the_tap_sees_every_block_once() {
        let session = Session::with_defaults();
        let cache = BlockCache::wrap(Checked::wrap(Memory::new(bytes(LEN))), &session);
        let seen = Arc::new(Seen::default());
        let tap: Arc<dyn Tap> = Arc::<Seen>::clone(&seen);
        assert!(cache.inner().set_tap(Arc::downgrade(&tap)));
        read(&*cache, BLOCK as usize + 1, 1);
        session.begin_streaming();
        read(&*cache, 0, LEN);
        read(&*cache, 0, LEN);
        let mut seen = seen.0.lock().unwrap().clone();
        seen.sort_unstable();
        let expected: Vec<(u64, usize)> = (0..5).map(|i| (i, BLOCK as usize)).chain([(5, 12_345)]).collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_failed_fetch_is_an_error_and_is_not_cached() {
        let model = bytes(LEN);
        let runs = until_it_succeeds(
            20,
            |n, calls: &Arc<AtomicU64>| {
                let memory: Arc<dyn Disk> = Checked::wrap(Memory::new(model.clone()));
                let fault = Checked::wrap(Fault::nth(memory, Arc::clone(calls), n));
                let cache = BlockCache::wrap(fault, &Session::with_defaults());
                let result = cache.read_at(&mut vec![0; LEN], 0);
                assert_eq!(read(&*cache, 0, LEN), model, "the next try succeeds");
                if calls.load(Ordering::Relaxed) <= 6 { Ok(()) } else { result }
            },
            |_| (),
        );
        assert_eq!(runs.unwrap(), 6);
    }

    /// A source on another machine, in so far as it says so; counts what is read of it.
    #[derive(Debug)]
    struct Far(Memory, Arc<AtomicU64>);

    impl Disk for Far {
        fn len(&self) -> u64 {
            self.0.len()
        }

        fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
            self.1.fetch_add(buf.len() as u64, Ordering::Relaxed);
            std::thread::yield_now();
            self.0.read_at(buf, offset)
        }

        fn extents(&self, range: Range<u64>, visit: &mut Visit<'_>) -> Result<()> {
            self.0.extents(range, visit)
        }

        fn hints(&self) -> Hints {
            Hints { preferred: 4 << 20, latency: Latency::Remote }
        }

        fn fingerprint(&self) -> Result<Fingerprint> {
            self.0.fingerprint()
        }

        fn describe(&self) -> (&'static str, String) {
            ("far", String::new())
        }

        fn traffic(&self) -> Option<crate::disk::Traffic> {
            Some(crate::disk::Traffic::default())
        }
    }

    #[test]
    fn what_is_fetched_ahead_is_fetched_once() {
        const MUCH: usize = 3 * LEN + 77;
        let model = bytes(MUCH);
        for told in [false, true] {
            let read = Arc::new(AtomicU64::new(0));
            let far = Checked::wrap(Far(Memory::new(model.clone()), Arc::clone(&read)));
            let cache = BlockCache::wrap(far, &Session::with_defaults());
            if told {
                cache.prefetch(0..MUCH as u64);
            }
            for at in (0..MUCH).step_by(100_000) {
                let len = 100_000.min(MUCH - at);
                assert!(self::read(&*cache, at, len) == model[at..at + len], "{at}");
            }
            assert_eq!(read.load(Ordering::Relaxed), MUCH as u64, "each byte once");
        }
    }

    #[test]
    fn a_reader_that_jumps_fetches_nothing_ahead() {
        const MUCH: usize = 12 * LEN;
        let read = Arc::new(AtomicU64::new(0));
        let far = Checked::wrap(Far(Memory::new(bytes(MUCH)), Arc::clone(&read)));
        let cache = BlockCache::wrap(far, &Session::with_defaults());
        for block in [40, 3, 17, 9, 30, 22] {
            self::read(&*cache, block * BLOCK as usize, 4096);
        }
        assert_eq!(read.load(Ordering::Relaxed), 6 * BLOCK);
    }
}
