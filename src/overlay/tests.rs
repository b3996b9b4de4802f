use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use proptest::prelude::*;

use super::*;
use crate::disk::{Fault, Memory, Zero, collect_extents, read_vec};

fn memory(bytes: &[u8]) -> Arc<dyn Disk> {
    Checked::wrap(Memory::new(bytes.to_vec()))
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from(at % 251).unwrap() | 1).collect()
}

#[derive(Clone, Debug)]
enum Op {
    Write(usize, Vec<u8>),
    Zero(usize, usize),
    Read(usize, usize),
}

const LEN: usize = 5 * BLOCK_LEN + 700;

fn op() -> impl Strategy<Value = Op> {
    let span = || (0..LEN).prop_flat_map(|at| (Just(at), 0..=(LEN - at).min(3 * BLOCK_LEN)));
    prop_oneof![
        (span(), any::<u8>()).prop_map(|((at, len), byte)| Op::Write(at, vec![byte; len])),
        span().prop_map(|(at, len)| Op::Zero(at, len)),
        Just(Op::Zero(BLOCK_LEN, LEN - BLOCK_LEN)),
        span().prop_map(|(at, len)| Op::Read(at, len)),
    ]
}

/// Every change of `ops` on an overlay and on a vector; the overlay must read as the vector afterwards.
fn run(ops: &[Op], share: u64) {
    let dir = tempfile::tempdir().unwrap();
    let base = pattern(LEN);
    let overlay = Overlay::with_share(memory(&base), share, Some(dir.path()));
    let mut model = base.clone();
    for op in ops {
        match op {
            Op::Write(at, data) => {
                overlay.write_at(data, *at as u64).unwrap();
                model[*at..at + data.len()].copy_from_slice(data);
            }
            Op::Zero(at, len) => {
                overlay.zero(*at as u64..(at + len) as u64).unwrap();
                model[*at..at + len].fill(0);
            }
            Op::Read(at, len) => assert_eq!(read_vec(&*overlay, *at as u64, *len).unwrap(), model[*at..at + len]),
        }
    }
    assert_eq!(read_vec(&*overlay, 0, LEN).unwrap(), model);
    let changes = overlay.inner().changes();
    let mut next = 0;
    for extent in collect_extents(&*overlay, 0..LEN as u64).unwrap() {
        assert_eq!(extent.range.start, next);
        next = extent.range.end;
        let bytes = &model[usize::try_from(extent.range.start).unwrap()..usize::try_from(next).unwrap()];
        assert!(extent.kind == ExtentKind::Data || bytes.iter().all(|byte| *byte == 0));
        let changed = changes.iter().any(|range| range.start <= extent.range.start && next <= range.end);
        assert_eq!(extent.place.is_none(), changed, "only the base knows a place");
    }
    assert_eq!(next, LEN as u64);
    for (at, (now, before)) in model.iter().zip(&base).enumerate() {
        assert!(now == before || changes.iter().any(|range| range.contains(&(at as u64))));
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

proptest! {
    #[test]
    fn reads_as_a_vector_would(ops in prop::collection::vec(op(), 1..24)) {
        run(&ops, 1 << 20);
    }

    #[test]
    fn reads_as_a_vector_would_when_it_spills(ops in prop::collection::vec(op(), 1..24)) {
        run(&ops, 2 * BLOCK);
    }
}

#[test]
fn zeros_take_no_memory() {
    let base: Arc<dyn Disk> = Checked::wrap(Zero { len: 64 << 40 });
    let overlay = Overlay::with_share(base, 1 << 20, None);
    overlay.zero(0..64 << 40).unwrap();
    overlay.write_at(b"x", 1 << 40).unwrap();
    assert_eq!(overlay.inner().read().in_memory, 1);
    assert_eq!(overlay.inner().changed_bytes(), 64 << 40);
    assert_eq!(collect_extents(&*overlay, 0..64 << 40).unwrap().len(), 3);
}

#[test]
fn a_zeroed_block_gives_its_memory_back() {
    let overlay = Overlay::with_share(memory(&pattern(LEN)), 2 * BLOCK, None);
    for _ in 0..10 {
        overlay.write_at(&[1; BLOCK_LEN], BLOCK).unwrap();
        overlay.zero(BLOCK..2 * BLOCK).unwrap();
    }
    assert_eq!(overlay.inner().changed_bytes(), BLOCK);
}

#[test]
fn a_full_share_without_a_directory_is_an_error() {
    let overlay = Overlay::with_share(memory(&pattern(LEN)), 2 * BLOCK, None);
    overlay.write_at(&[1; BLOCK_LEN], 0).unwrap();
    let error = overlay.write_at(&[1; BLOCK_LEN], BLOCK).unwrap_err();
    assert_eq!(error.code(), "overlay.full");
    overlay.write_at(b"again", 0).unwrap();
    assert_eq!(read_vec(&*overlay, BLOCK, 4).unwrap(), pattern(LEN)[BLOCK_LEN..BLOCK_LEN + 4]);
}

#[test]
fn the_list_of_blocks_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let base: Arc<dyn Disk> = Checked::wrap(Zero { len: 1 << 30 });
    let overlay = Overlay::with_share(base, 4 * OVERLAY_ENTRY, Some(dir.path()));
    for number in 0..4 {
        overlay.write_at(b"x", 2 * number * BLOCK).unwrap();
    }
    assert_eq!(overlay.write_at(b"x", 9 * BLOCK).unwrap_err().code(), "overlay.full");
}

#[test]
fn a_frozen_overlay_refuses_writes() {
    let overlay = Overlay::with_share(memory(&pattern(LEN)), 1 << 20, None);
    overlay.write_at(b"before", 0).unwrap();
    overlay.inner().freeze();
    let before = overlay.fingerprint().unwrap();
    assert_eq!(overlay.write_at(b"after", 0).unwrap_err().code(), "overlay.frozen");
    assert_eq!(overlay.zero(0..9).unwrap_err().code(), "overlay.frozen");
    assert_eq!(read_vec(&*overlay, 0, 6).unwrap(), b"before");
    assert_eq!(overlay.fingerprint().unwrap(), before);
}

#[test]
fn the_fingerprint_of_a_frozen_overlay_depends_on_its_content_only() {
    let spill = tempfile::tempdir().unwrap();
    let frozen = |share: u64, writes: &[(&[u8], u64)], zeros: Range<u64>| {
        let overlay = Overlay::with_share(memory(&pattern(LEN)), share, Some(spill.path()));
        writes.iter().for_each(|(data, offset)| overlay.write_at(data, *offset).unwrap());
        overlay.zero(zeros).unwrap();
        overlay.inner().freeze();
        overlay.fingerprint().unwrap()
    };
    let one = frozen(1 << 20, &[(b"one", 0), (b"two", 2 * BLOCK)], BLOCK..2 * BLOCK);
    assert_eq!(one, frozen(1 << 20, &[(b"two", 2 * BLOCK), (b"oNe", 0), (b"one", 0)], BLOCK..2 * BLOCK));
    assert_eq!(one, frozen(256, &[(b"one", 0), (b"two", 2 * BLOCK)], BLOCK..2 * BLOCK), "where blocks are kept counts");
    assert_ne!(one, frozen(1 << 20, &[(b"one", 0), (b"twO", 2 * BLOCK)], BLOCK..2 * BLOCK));
    assert_ne!(one, frozen(1 << 20, &[(b"one", 0), (b"two", 2 * BLOCK)], BLOCK..BLOCK + 1));
}

#[test]
fn a_failing_base_leaves_the_overlay_as_it_was() {
    let bad: Arc<dyn Disk> = Checked::wrap(Fault::range(memory(&pattern(LEN)), 0..BLOCK));
    let overlay = Overlay::with_share(bad, 1 << 20, None);
    assert_eq!(overlay.write_at(b"part", 10).unwrap_err().code(), "fault.injected");
    assert!(overlay.inner().changes().is_empty());
    overlay.write_at(&[7; BLOCK_LEN], 0).unwrap();
    assert_eq!(read_vec(&*overlay, 0, 2).unwrap(), [7, 7]);
}

#[test]
fn a_visitor_may_read_the_disk_it_visits() {
    let overlay = Overlay::with_share(memory(&pattern(LEN)), 1 << 20, None);
    overlay.write_at(b"x", BLOCK).unwrap();
    overlay
        .extents(0..LEN as u64, &mut |extent| {
            overlay.write_at(b"y", extent.range.start).unwrap();
            ControlFlow::Continue(())
        })
        .unwrap();
}

#[test]
fn extents_stop_when_told() {
    let overlay = Overlay::with_share(memory(&pattern(LEN)), 1 << 20, None);
    overlay.write_at(b"x", BLOCK).unwrap();
    let mut seen = 0;
    overlay
        .extents(0..LEN as u64, &mut |_| {
            seen += 1;
            ControlFlow::Break(())
        })
        .unwrap();
    assert_eq!(seen, 1);
}

#[test]
fn blocks_in_memory_make_room_for_the_list_of_those_that_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let base: Arc<dyn Disk> = Checked::wrap(Zero { len: 1 << 30 });
    let share = 64 * BLOCK;
    let overlay = Overlay::with_share(base, share, Some(dir.path()));
    let most = share / OVERLAY_ENTRY;
    for number in 0..most {
        overlay.write_at(&number.to_le_bytes(), number * BLOCK).unwrap();
    }
    assert_eq!(overlay.inner().read().in_memory, 0);
    let error = overlay.write_at(b"x", most * BLOCK).unwrap_err();
    assert_eq!(error.code(), "overlay.full");
    for number in 0..most {
        assert_eq!(read_vec(&*overlay, number * BLOCK, 8).unwrap(), number.to_le_bytes());
    }
}

/// A base whose reads of the first block say that they have begun, and wait until they may go on.
#[derive(Debug)]
struct Gate {
    begun: Mutex<Sender<()>>,
    go_on: Mutex<Receiver<()>>,
}

impl Disk for Gate {
    fn len(&self) -> u64 {
        8 * BLOCK
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        if offset < BLOCK {
            self.begun.lock().unwrap().send(()).unwrap();
            self.go_on.lock().unwrap().recv().unwrap();
        }
        buf.fill(1);
        Ok(())
    }

    fn extents(&self, range: Range<u64>, visit: &mut Visit<'_>) -> Result<()> {
        let _ = visit(Extent { range, kind: ExtentKind::Data, depth: 0, place: None });
        Ok(())
    }

    fn fingerprint(&self) -> Result<Fingerprint> {
        Ok(Fingerprint::of(&[b"gate"]))
    }

    fn describe(&self) -> (&'static str, String) {
        ("gate", String::new())
    }
}

/// While a write, a zeroing or a read waits for the base, others write and read elsewhere.
pub(super) fn nobody_waits_for_the_base_of_others(open: impl Fn(Arc<dyn Disk>) -> Arc<dyn DiskMut>) {
    for what in 0..3 {
        let (begun, has_begun) = channel();
        let (may_go_on, go_on) = channel();
        let overlay = open(Arc::new(Gate { begun: Mutex::new(begun), go_on: Mutex::new(go_on) }));
        std::thread::scope(|scope| {
            let slow = scope.spawn(|| match what {
                0 => overlay.write_at(b"slow", 10),
                1 => overlay.zero(10..14),
                _ => overlay.read_at(&mut [0; 4], 10),
            });
            has_begun.recv().unwrap();
            overlay.write_at(b"quick", 3 * BLOCK + 10).unwrap();
            assert_eq!(read_vec(&*overlay, 3 * BLOCK + 9, 7).unwrap(), b"\x01quick\x01");
            // It reads what lies before what it writes, and what lies behind.
            (0..2).for_each(|_| may_go_on.send(()).unwrap());
            slow.join().unwrap().unwrap();
        });
        // What was read of the base is in the overlay now, but after the read.
        if what < 2 {
            let expected: &[u8] = if what == 0 { b"\x01slow\x01" } else { b"\x01\0\0\0\0\x01" };
            assert_eq!(read_vec(&*overlay, 9, 6).unwrap(), expected);
        }
    }
}

#[test]
fn a_slow_base_holds_up_only_who_needs_it() {
    nobody_waits_for_the_base_of_others(|base| Overlay::with_share(base, 1 << 20, None));
}
