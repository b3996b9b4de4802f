//! A mapped disk against a model that moves single bytes.

use proptest::prelude::*;

use super::*;
use crate::disk::{Checked, Memory, Zero, collect_extents};

fn disks(count: u8, len: usize) -> Vec<Arc<dyn DiskMut>> {
    let bytes = |n: u8| (0..len).map(|i| (i as u8).wrapping_mul(7).wrapping_add(n * 50)).collect();
    (0..count).map(|n| Checked::wrap(Memory::new(bytes(n))) as Arc<dyn DiskMut>).collect()
}

fn place(disk: usize, start: u64) -> Place {
    Place { disk, start }
}

fn striped(len: u64, chunk: u64, copies: usize, places: Vec<Option<Place>>) -> Piece {
    Piece { len, how: How::Striped { chunk, copies, places } }
}

/// Every byte's places, byte by byte.
fn model(pieces: &[Piece]) -> Vec<Vec<Place>> {
    let mut bytes = Vec::new();
    for piece in pieces {
        for at in 0..piece.len {
            bytes.push(match &piece.how {
                How::Copies(places) | How::Led(places) => places.iter().map(|p| place(p.disk, p.start + at)).collect(),
                How::Striped { chunk, copies, places } => {
                    let copy = |k: usize| {
                        let slot = (at / chunk) as usize * copies + k;
                        let row = (slot / places.len()) as u64;
                        places[slot % places.len()].map(|p| place(p.disk, p.start + row * chunk + at % chunk))
                    };
                    (0..*copies).filter_map(copy).collect()
                }
                How::Zeros | How::Broken(_) => Vec::new(),
            });
        }
    }
    bytes
}

fn samples() -> Vec<Piece> {
    vec![
        Piece::linear(700, 0, 512),
        striped(3072, 512, 1, vec![Some(place(1, 0)), Some(place(2, 1024)), Some(place(0, 2048))]),
        Piece { len: 100, how: How::Zeros },
        Piece { len: 300, how: How::Copies(vec![place(2, 4), place(1, 4000)]) },
        Piece { len: 50, how: How::Led(vec![place(1, 4400), place(0, 1300)]) },
        striped(4096, 1024, 2, vec![Some(place(0, 3072)), None, Some(place(1, 5120))]),
        Piece::linear(1, 2, 8191),
    ]
}

proptest! {
    #[test]
    fn reads_writes_and_homes_agree_with_a_model(start in 0_u64..8319, len in 0_u64..8319, fill in 1_u8..255) {
        let below = disks(3, 8192);
        let pieces = samples();
        let model = model(&pieces);
        let mapped = Checked::wrap(Mapped::new("test", "x", below.clone(), pieces).unwrap());
        prop_assert_eq!(mapped.len(), model.len() as u64);
        let end = (start + len).min(mapped.len());
        let byte = |p: &Place| {
            let mut one = [0];
            below[p.disk].read_at(&mut one, p.start).unwrap();
            one[0]
        };
        let mut buf = vec![0; (end - start) as usize];
        mapped.read_at(&mut buf, start).unwrap();
        let expected: Vec<u8> = model[start as usize..end as usize].iter().map(|p| p.first().map_or(0, byte)).collect();
        prop_assert_eq!(&buf, &expected);
        let mut homes = vec![Vec::new(); 3];
        mapped.homes(start..end, &mut |disk, range| homes[disk].extend(range));
        let mut listed = vec![Vec::new(); 3];
        model[start as usize..end as usize].iter().flatten().for_each(|p| listed[p.disk].push(p.start));
        homes.iter_mut().chain(listed.iter_mut()).for_each(|list| list.sort_unstable());
        prop_assert_eq!(homes, listed);
        mapped.write_at(&vec![fill; (end - start) as usize], start).unwrap();
        for (at, places) in model.iter().enumerate().filter(|(_, places)| !places.is_empty()) {
            let inside = (start..end).contains(&(at as u64));
            prop_assert!(!inside || places.iter().all(|p| byte(p) == fill));
        }
    }
}

#[test]
fn extents_are_those_of_the_first_copy() {
    let mapped = Checked::wrap(Mapped::new("test", "x", disks(3, 8192), samples()).unwrap());
    let extents = collect_extents(&*mapped, 0..mapped.len()).unwrap();
    assert_eq!(extents[0], Extent { range: 0..700, kind: ExtentKind::Data, depth: 0, place: Some(512) });
    assert_eq!(extents[1].place, Some(0));
    let hole = extents.iter().find(|extent| extent.kind == ExtentKind::Hole).unwrap();
    assert_eq!(hole.range, 3772..3872);
}

#[test]
fn terabytes_of_nothing_are_one_extent() {
    let empty = |_| -> Arc<dyn DiskMut> {
        Checked::wrap(crate::disk::ReadOnly::new(Checked::wrap(Zero { len: 1 << 50 }), "test"))
    };
    let places = (0..4).map(|disk| Some(place(disk, 4096))).collect();
    let mapped =
        Mapped::new("test", "x", (0..4).map(empty).collect(), vec![striped(1 << 51, 4096, 1, places)]).unwrap();
    let mapped = Checked::wrap(mapped);
    assert_eq!(collect_extents(&*mapped, 0..mapped.len()).unwrap().len(), 1);
    assert!(collect_extents(&*mapped, 77..mapped.len() - 99).unwrap().len() < 20);
}

#[test]
fn a_failing_leg_is_made_up_for_by_the_other() {
    let mut below = disks(2, 4096);
    let bad = Checked::wrap(crate::disk::Fault::range(Checked::wrap(Memory::new(vec![1; 4096])), 0..4096));
    below[0] = Checked::wrap(crate::disk::ReadOnly::new(bad, "test"));
    let pieces = vec![Piece { len: 4096, how: How::Copies(vec![place(0, 0), place(1, 0)]) }];
    let mapped = Checked::wrap(Mapped::new("test", "x", below, pieces).unwrap());
    let mut buf = [0; 2];
    mapped.read_at(&mut buf, 1).unwrap();
    assert_eq!(buf, [57, 64]);
    let led = vec![Piece { len: 4096, how: How::Led(vec![place(0, 0), place(1, 0)]) }];
    let mapped = Checked::wrap(Mapped::new("test", "x", mapped.inner().disks.clone(), led).unwrap());
    assert_eq!(mapped.read_at(&mut buf, 1).unwrap_err().code(), "fault.injected");
}

#[test]
fn what_does_not_fit_is_refused() {
    let broken = |piece: Piece| Mapped::new("test", "x", disks(2, 4096), vec![piece]).unwrap_err().code();
    let two = || vec![Some(place(0, 0)), Some(place(1, 0))];
    for piece in [
        Piece::linear(4097, 0, 0),
        Piece::linear(1, 0, 4096),
        Piece::linear(u64::MAX, 0, 2),
        Piece::linear(1, 2, 0),
        Piece::linear(0, 0, 0),
        Piece { len: 1, how: How::Copies(Vec::new()) },
        striped(8704, 512, 1, two()),
        striped(1000, 512, 1, two()),
        striped(1024, 0, 1, two()),
        striped(1024, 512, 0, two()),
        striped(1024, 512, 3, two()),
        striped(1024, 512, 1, vec![]),
        striped(1024, 512, 1, vec![Some(place(0, 0)), None]),
        striped(1 << 60, 512, 1, two()),
    ] {
        let shown = format!("{piece:?}");
        assert_eq!(broken(piece), "disk.range", "{shown}");
    }
    let many = vec![Piece { len: 1 << 55, how: How::Zeros }; 3];
    assert_eq!(Mapped::new("test", "x", Vec::new(), many).unwrap_err().code(), "disk.range");
    let error = Error::unsupported("lvm.missing", "gone");
    let mapped = Mapped::new("test", "x", Vec::new(), vec![Piece { len: 9, how: How::Broken(error) }]).unwrap();
    assert_eq!(Checked::wrap(mapped).read_at(&mut [0], 3).unwrap_err().code(), "lvm.missing");
}
