use proptest::prelude::*;

use super::*;
use crate::disk::{Memory, collect_extents};

const LEN: u64 = (3 << 20) + 512;

fn backing() -> Backing {
    Backing { name: "/images/base.raw".to_owned(), format: "raw" }
}

fn base() -> Arc<dyn Disk> {
    Checked::wrap(Memory::new((0..LEN).map(|at| u8::try_from(at / 512 % 251).unwrap()).collect()))
}

fn open(path: &Path) -> Result<Arc<Checked<Kept>>> {
    Kept::open(base(), path, &backing(), &Session::with_defaults())
}

fn bytes(disk: &dyn Disk) -> Vec<u8> {
    let mut bytes = vec![0; index(disk.len())];
    disk.read_at(&mut bytes, 0).unwrap();
    bytes
}

#[derive(Clone, Debug)]
enum Op {
    Write(u64, usize, u8),
    Zero(u64, u64),
    Flush,
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    let place = 0..LEN;
    prop_oneof![
        4 => (place.clone(), 1..200_000_usize, any::<u8>()).prop_map(|(at, len, byte)| Op::Write(at, len, byte)),
        2 => (place.clone(), 1..5000_usize, any::<u8>()).prop_map(|(at, len, byte)| Op::Write(at / 512 * 512, len / 512 * 512 + 512, byte)),
        3 => (place, 1..400_000_u64).prop_map(|(at, len)| Op::Zero(at, len)),
        1 => Just(Op::Flush),
        1 => Just(Op::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    #[test]
    fn it_reads_as_what_was_written(ops in prop::collection::vec(op(), 1..25)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kept.qcow2");
        let mut kept = open(&path).unwrap();
        let mut model = bytes(&*base());
        for op in ops {
            match op {
                Op::Write(at, len, byte) => {
                    let end = (at + len as u64).min(LEN);
                    model[index(at)..index(end)].fill(byte);
                    kept.write_at(&model[index(at)..index(end)], at).unwrap();
                }
                Op::Zero(at, len) => {
                    let end = (at + len).min(LEN);
                    model[index(at)..index(end)].fill(0);
                    kept.zero(at..end).unwrap();
                }
                Op::Flush => kept.flush().unwrap(),
                Op::Reopen => {
                    drop(kept);
                    kept = open(&path).unwrap();
                }
            }
            prop_assert!(bytes(&*kept) == model);
        }
        for extent in collect_extents(&*kept, 0..LEN).unwrap() {
            let part = &model[index(extent.range.start)..index(extent.range.end)];
            prop_assert!(extent.kind == ExtentKind::Data || part.iter().all(|&byte| byte == 0));
        }
    }
}

#[test]
fn tables_that_do_not_fit_into_memory_are_written_and_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let len = 20 * L2_SPAN;
    let base: Arc<dyn Disk> = Checked::wrap(crate::disk::Zero { len });
    let kept = Kept::open_with(base, &dir.path().join("a"), &backing(), 3).unwrap();
    for number in 0..20 {
        kept.write_at(&[number as u8 + 1; 4096], number * L2_SPAN + 8192).unwrap();
    }
    for number in 0..20 {
        let mut buf = [0; 4096];
        kept.read_at(&mut buf, number * L2_SPAN + 8192).unwrap();
        assert_eq!(buf, [number as u8 + 1; 4096]);
        assert!(kept.inner().read().tables.len() <= 3);
    }
}

#[test]
fn two_cannot_have_it_at_once_and_only_its_own_source_can() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kept.qcow2");
    open(&path).unwrap().write_at(b"x", 5).unwrap();
    let other = Backing { name: "/images/other.raw".to_owned(), format: "raw" };
    let error = Kept::open(base(), &path, &other, &Session::with_defaults()).unwrap_err();
    assert_eq!(error.code(), "overlay.other");
    let smaller: Arc<dyn Disk> = Checked::wrap(Memory::new(vec![0; 1 << 20]));
    let error = Kept::open(smaller, &path, &backing(), &Session::with_defaults()).unwrap_err();
    assert_eq!(error.code(), "overlay.other");
    let odd: Arc<dyn Disk> = Checked::wrap(Memory::new(vec![0; 1000]));
    let error = Kept::open(odd, &dir.path().join("odd"), &backing(), &Session::with_defaults()).unwrap_err();
    assert_eq!(error.code(), "overlay.size");
}

#[test]
fn headers_of_every_damage_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kept.qcow2");
    open(&path).unwrap().write_at(b"x", 5).unwrap();
    #[allow(clippy::disallowed_methods, reason = "a test looks at its own file")]
    let sound = std::fs::read(&path).unwrap();
    for at in (4..160).filter(|at| !(56..60).contains(at)) {
        let mut damaged = sound.clone();
        damaged[at] ^= 0xff;
        std::fs::write(&path, &damaged).unwrap();
        // An error, or what changed does not matter; never a panic.
        let _ = open(&path).map(|kept| kept.read_at(&mut [0; 100], 0));
    }
    for len in [1, 50, 103, 112, 200, 65_536, 70_000, 196_608] {
        std::fs::write(&path, &sound[..len]).unwrap();
        assert!(open(&path).is_err(), "cut to {len}");
    }
    // A compressed cluster, a shared one, and a subcluster that is there and zero.
    let state = open_sound(&path, &sound);
    for (at, value) in [(0, 0x40_u8), (0, 0x00), (11, 0x01)] {
        let mut damaged = sound.clone();
        damaged[index(state) + at] = value;
        std::fs::write(&path, &damaged).unwrap();
        let kept = open(&path).unwrap();
        assert_eq!(kept.read_at(&mut [0; 100], 0).unwrap_err().code(), "overlay.other", "{at} {value}");
    }
}

/// Where the first L2 table of an overlay lies.
fn open_sound(path: &Path, sound: &[u8]) -> u64 {
    std::fs::write(path, sound).unwrap();
    let kept = open(path).unwrap();
    let state = kept.inner().read();
    state.l1[0]
}

#[test]
fn a_slow_base_holds_up_only_who_needs_it() {
    let dir = tempfile::tempdir().unwrap();
    let opened = std::sync::atomic::AtomicUsize::new(0);
    crate::overlay::tests::nobody_waits_for_the_base_of_others(|base| {
        let number = opened.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = dir.path().join(format!("{number}.qcow2"));
        Kept::open(base, &path, &backing(), &Session::with_defaults()).unwrap()
    });
}

#[test]
fn the_refcount_table_is_as_long_as_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kept.qcow2");
    drop(open(&path).unwrap());
    let most = crate::limits::MAX_QCOW2_REFCOUNT_BLOCKS / (CLUSTER / 8);
    for (clusters, fits) in [(most - 1, true), (most, true), (most + 1, false)] {
        let file = File::options().read(true).write(true).open(&path).unwrap();
        file.set_len(32 << 20).unwrap();
        file.write_all_at(&u32::try_from(clusters).unwrap().to_be_bytes(), 56).unwrap();
        let code = Header::read(&file, LEN, &backing()).map_or_else(|error| error.code(), |_| "ok");
        assert_eq!(code, if fits { "ok" } else { "overlay.other" }, "{clusters}");
    }
}
