//! Groups made by hand: what is read, and what is refused. `tests/volumes.rs` compares with what LVM and the kernel make.

use super::label::checksum;
use super::*;
use crate::disk::bytes::{put, put32};
use crate::disk::{Checked, Memory};
use crate::limits;

const EXTENT: u64 = 1 << 16;
const AREA: u64 = 4096;
const AREA_LEN: u64 = 1 << 16;
const DATA: u64 = 1 << 17;

/// A physical volume of 16 extents: a label in its second sector, one metadata area, data from 128 KiB on.
struct Pv {
    uuid: char,
    bytes: Vec<u8>,
}

fn put64(bytes: &mut [u8], at: usize, value: u64) {
    put(bytes, at, &value.to_le_bytes());
}

impl Pv {
    /// Every byte of its data tells its place.
    fn new(uuid: char) -> Self {
        let len = DATA + 16 * EXTENT;
        let mut bytes = vec![0; len as usize];
        for at in DATA..len {
            bytes[at as usize] = ((at >> 8) as u8) ^ (uuid as u8);
        }
        put(&mut bytes, 512, b"LABELONE");
        put64(&mut bytes, 520, 1);
        put32(&mut bytes, 532, 32);
        put(&mut bytes, 536, b"LVM2 001");
        put(&mut bytes, 544, &[uuid as u8; 32]);
        put64(&mut bytes, 576, len);
        put64(&mut bytes, 584, DATA);
        put64(&mut bytes, 616, AREA);
        put64(&mut bytes, 624, AREA_LEN);
        let mut pv = Self { uuid, bytes };
        pv.sign();
        pv
    }

    fn sign(&mut self) {
        let sum = checksum(&[&self.bytes[532..1024]]);
        put32(&mut self.bytes, 528, sum);
    }

    /// With `text` at `offset` of its area, around its end if need be.
    fn with(mut self, text: &str, offset: u64) -> Self {
        for (i, byte) in text.bytes().enumerate() {
            let at = offset + i as u64;
            let at = if at >= AREA_LEN { at - AREA_LEN + 512 } else { at };
            self.bytes[(AREA + at) as usize] = byte;
        }
        let area = AREA as usize;
        put(&mut self.bytes, area + 4, b" LVM2 x[5A%r0N*>");
        put32(&mut self.bytes, area + 20, 1);
        put64(&mut self.bytes, area + 24, AREA);
        put64(&mut self.bytes, area + 32, AREA_LEN);
        put64(&mut self.bytes, area + 40, offset);
        put64(&mut self.bytes, area + 48, text.len() as u64);
        put32(&mut self.bytes, area + 56, checksum(&[text.as_bytes()]));
        self.sign_area();
        self
    }

    fn sign_area(&mut self) {
        let area = AREA as usize;
        let sum = checksum(&[&self.bytes[area + 4..area + 512]]);
        put32(&mut self.bytes, area, sum);
    }

    fn disk(self) -> Arc<dyn DiskMut> {
        Checked::wrap(Memory::new(self.bytes))
    }
}

/// The metadata of a group `vg-a` on the physical volumes `a` and `b` with these logical volumes.
fn text(seqno: u64, logical: &str) -> String {
    let pv = |name: &str, uuid: char| {
        let uuid = dashed(&uuid.to_string().repeat(32));
        format!(
            "{name} {{ id = \"{uuid}\" device = \"/dev/sdx\" flags = [] pe_start = {} pe_count = 16 }}\n",
            DATA / 512
        )
    };
    format!(
        "vg-a {{ id = \"the-group\" seqno = {seqno} format = \"lvm2\" extent_size = {} # 64 KiB\n physical_volumes {{ {} {} }}\n\
         logical_volumes {{ {logical} }} }}\n",
        EXTENT / 512,
        pv("pv0", 'a'),
        pv("pv1", 'b'),
    )
}

/// A visible volume of these segments, each a count of extents and what else is said.
fn lv(name: &str, segments: &[(u64, &str)]) -> String {
    let mut shown = format!("{name} {{ id = \"id-{name}\" status = [\"READ\", \"WRITE\", \"VISIBLE\"] flags = []\n");
    let mut start = 0;
    for (number, (count, about)) in segments.iter().enumerate() {
        shown.push_str(&format!("segment{} {{ start_extent = {start} extent_count = {count} {about} }}\n", number + 1));
        start = count.wrapping_add(start);
    }
    shown + "}\n"
}

fn linear(name: &str, count: u64, pv: &str, at: u64) -> String {
    lv(name, &[(count, &format!("type = \"striped\" stripe_count = 1 stripes = [\"{pv}\", {at}]"))])
}

fn on_both(logical: &str) -> Found {
    let text = text(1, logical);
    groups(&[Pv::new('a').with(&text, 512).disk(), Pv::new('b').with(&text, 512).disk()])
}

/// The error of the volume `x`.
fn refusal(logical: &str) -> &'static str {
    let found = on_both(logical);
    let Some(group) = found.groups.first() else { return found.problems[0].code() };
    let volume = group.volumes.iter().find(|volume| volume.name == "x").unwrap();
    match &volume.disk {
        Err(error) => error.code(),
        Ok(disk) => disk.read_at(&mut vec![0; disk.len().min(4096) as usize], 0).err().map_or("", |error| error.code()),
    }
}

/// What the byte at `at` of extent `extent` of a physical volume is.
fn byte(uuid: char, extent: u64, at: u64) -> u8 {
    (((DATA + extent * EXTENT + at) >> 8) as u8) ^ (uuid as u8)
}

fn read(disk: &Arc<dyn DiskMut>, at: u64) -> u8 {
    let mut one = [0];
    disk.read_at(&mut one, at).unwrap();
    one[0]
}

#[test]
fn linear_and_striped_volumes_are_where_the_metadata_says() {
    let stripes = "type = \"striped\" stripe_count = 2 stripe_size = 8 stripes = [\"pv0\", 4, \"pv1\", 2]";
    let logical = linear("root", 3, "pv1", 5)
        + &lv("x-y", &[(1, "type = \"striped\" stripe_count = 1 stripes = [\"pv0\", 9]"), (4, stripes)]);
    let found = on_both(&logical);
    assert!(found.problems.is_empty(), "{:?}", found.problems);
    let group = &found.groups[0];
    assert_eq!((group.name.as_str(), group.uuid.as_str(), group.seqno), ("vg-a", "the-group", 1));
    let [root, other] = group.volumes.as_slice() else { panic!() };
    assert_eq!(
        (group.mapper_name(other), other.kinds.join(",")),
        ("vg--a-x--y".to_owned(), "linear,striped".to_owned())
    );
    let (root, other) = (root.disk.as_ref().unwrap(), other.disk.as_ref().unwrap());
    assert_eq!((root.len(), other.len()), (3 * EXTENT, 5 * EXTENT));
    assert_eq!(read(root, 2 * EXTENT + 300), byte('b', 7, 300));
    assert_eq!(read(other, 5000), byte('a', 9, 5000));
    assert_eq!(read(other, EXTENT + 5000), byte('b', 2, 904));
    assert_eq!(read(other, EXTENT + 8192 + 7), byte('a', 4, 4096 + 7));
    root.write_at(b"!", 1).unwrap();
    assert_eq!(read(root, 1), b'!');
    let mut homes = Vec::new();
    root.homes(0..10, &mut |disk, range| homes.push((disk, range)));
    assert_eq!(homes, [(0, DATA + 5 * EXTENT..DATA + 5 * EXTENT + 10)]);
}

#[test]
fn text_may_wrap_around_its_area_and_the_newest_counts() {
    let (old, new) = (text(4, &linear("old", 1, "pv0", 0)), text(5, &linear("new", 1, "pv0", 0)));
    for offset in [512, 1024, AREA_LEN - 1, AREA_LEN - 100, AREA_LEN - new.len() as u64] {
        let found = groups(&[Pv::new('a').with(&new, offset).disk(), Pv::new('b').with(&old, 512).disk()]);
        assert_eq!(found.groups[0].volumes[0].name, "new", "{offset}");
        let found = groups(&[Pv::new('a').with(&old, 512).disk(), Pv::new('b').with(&new, offset).disk()]);
        assert_eq!(found.groups[0].volumes[0].name, "new", "{offset}");
    }
}

#[test]
fn a_missing_disk_is_named_and_only_its_volumes_are_refused() {
    let logical = linear("here", 2, "pv0", 0)
        + &linear("there", 1, "pv1", 0)
        + &lv(
            "both",
            &[
                (1, "type = \"striped\" stripe_count = 1 stripes = [\"pv0\", 3]"),
                (1, "type = \"striped\" stripe_count = 1 stripes = [\"pv1\", 3]"),
            ],
        );
    let found = groups(&[Pv::new('a').with(&text(1, &logical), 512).disk()]);
    let group = &found.groups[0];
    assert_eq!(group.missing, [dashed(&"b".repeat(32))]);
    let codes: Vec<_> =
        group.volumes.iter().map(|v| (v.name.as_str(), v.disk.as_ref().err().map(Error::code))).collect();
    assert_eq!(codes, [("both", Some("lvm.missing")), ("here", None), ("there", Some("lvm.missing"))]);
}

#[test]
fn a_disk_that_the_group_went_on_without_is_not_read() {
    let text = text(1, &linear("x", 1, "pv1", 0)).replace("pv1 { id", "pv1 { status = [\"MISSING\"] id");
    let found = groups(&[Pv::new('a').with(&text, 512).disk(), Pv::new('b').disk()]);
    assert_eq!(found.groups[0].volumes[0].disk.as_ref().unwrap_err().code(), "lvm.missing");
}

#[test]
fn a_copied_disk_is_told_and_neither_is_used() {
    let text = text(1, &linear("x", 1, "pv0", 0));
    let found = groups(&[Pv::new('a').with(&text, 512).disk(), Pv::new('a').with(&text, 512).disk()]);
    assert_eq!(found.problems[0].code(), "lvm.duplicate");
    assert_eq!(found.groups[0].volumes[0].disk.as_ref().unwrap_err().code(), "lvm.missing");
}

#[test]
fn damage_to_label_header_or_text_is_found() {
    let text = text(1, &linear("x", 1, "pv0", 0));
    for (at, code) in [
        (515, "lvm.label"),
        (600, "lvm.label"),
        (1023, "lvm.label"),
        (4100, "lvm.metadata"),
        (4096 + 700, "lvm.metadata"),
    ] {
        let mut pv = Pv::new('a').with(&text, 512);
        pv.bytes[at] ^= 1;
        let found = groups(&[pv.disk()]);
        assert!(found.groups.is_empty(), "{at}");
        assert_eq!(found.problems[0].code(), code, "{at}");
    }
    let pv = Pv::new('a').with(&text, 512);
    for len in (0..2048).step_by(7) {
        let cut: Arc<dyn DiskMut> = Checked::wrap(Memory::new(pv.bytes[..len].to_vec()));
        assert!(groups(&[cut]).groups.is_empty(), "{len}");
    }
}

#[test]
fn hostile_areas_are_refused() {
    let with = |change: &dyn Fn(&mut [u8])| {
        let mut pv = Pv::new('a').with(&text(1, ""), 512);
        change(&mut pv.bytes);
        pv.sign();
        pv.sign_area();
        let found = groups(&[pv.disk()]);
        (found.groups.len(), found.problems.first().map_or("", Error::code))
    };
    let area = AREA as usize;
    assert_eq!(with(&|_| {}), (1, ""));
    // An area at the end of the address space, one that is longer than its disk, one that is too short.
    assert_eq!(with(&|b| put64(b, 616, u64::MAX - 5)), (0, "lvm.metadata"));
    assert_eq!(with(&|b| put64(b, 624, u64::MAX)), (0, "lvm.metadata"));
    assert_eq!(with(&|b| put64(b, 624, 600)), (0, "lvm.metadata"));
    // Text of 2^60 bytes, text that begins in the header or behind the area, a ring that is longer than its area.
    assert_eq!(with(&|b| put64(b, area + 48, 1 << 60)), (0, "lvm.metadata"));
    assert_eq!(with(&|b| put64(b, area + 48, limits::MAX_LVM_TEXT + 1)), (0, "lvm.metadata"));
    assert_eq!(with(&|b| put64(b, area + 40, 511)), (0, "lvm.metadata"));
    assert_eq!(with(&|b| put64(b, area + 40, AREA_LEN)), (0, "lvm.metadata"));
    assert_eq!(with(&|b| put64(b, area + 32, 1 << 50)), (1, ""));
    // A header that belongs elsewhere, and one that is to be ignored.
    assert_eq!(with(&|b| put64(b, area + 24, 8192)), (0, "lvm.metadata"));
    assert_eq!(with(&|b| put32(b, area + 60, 1)), (0, ""));
    // Lists of areas that never end.
    let endless = |b: &mut [u8], from: usize| (from..1024).step_by(8).for_each(|at| put64(b, at, 1));
    assert_eq!(with(&|b| endless(b, 584)), (0, "lvm.label"));
    assert_eq!(with(&|b| endless(b, 616)), (0, "lvm.metadata"));
}

#[test]
fn hostile_metadata_is_refused() {
    let striped = |more: &str| lv("x", &[(1, &format!("type = \"striped\" {more}"))]);
    let linear = |stripes: &str| striped(&format!("stripe_count = 1 stripes = [{stripes}]"));
    assert_eq!(refusal(&linear("\"pv0\", 15")), "");
    // Past the end of the physical volume, by one extent, by 2^60, by more than can be counted.
    assert_eq!(refusal(&linear("\"pv0\", 16")), "lvm.metadata");
    assert_eq!(refusal(&linear("\"pv0\", 1152921504606846976")), "lvm.metadata");
    assert_eq!(refusal(&linear("\"pv0\", -1")), "lvm.metadata");
    let many = "type = \"striped\" stripe_count = 1 stripes = [\"pv0\", 0]";
    assert_eq!(refusal(&lv("x", &[(1 << 60, many)])), "lvm.metadata");
    assert_eq!(refusal(&lv("x", &[(i64::MAX as u64, many), (i64::MAX as u64, many), (9, many)])), "lvm.metadata");
    // Made of itself, straight and around a corner; made of nothing; of what is not there.
    assert_eq!(refusal(&linear("\"x\", 0")), "lvm.metadata");
    assert_eq!(refusal(&(linear("\"y\", 0") + &super::tests::linear("y", 1, "x", 0))), "lvm.metadata");
    assert_eq!(refusal(&linear("\"nobody\", 0")), "lvm.metadata");
    assert_eq!(refusal(&striped("stripe_count = 0 stripes = []")), "lvm.metadata");
    assert_eq!(refusal(&striped("stripe_count = 2 stripes = [\"pv0\", 0]")), "lvm.metadata");
    assert_eq!(refusal(&striped("stripe_count = 1 stripes = [\"pv0\"]")), "lvm.metadata");
    assert_eq!(refusal(&striped("stripe_count = 1 stripes = [0, 0]")), "lvm.metadata");
    // Chunks of nothing, and of more than there is.
    let two = "stripe_count = 2 stripes = [\"pv0\", 0, \"pv1\", 0]";
    let chunks = |sectors: &str| lv("x", &[(2, &format!("type = \"striped\" {two} {sectors}"))]);
    assert_eq!(refusal(&chunks("stripe_size = 8")), "");
    for bad in [
        "",
        "stripe_size = 0",
        "stripe_size = 1",
        "stripe_size = 9000000000000000000",
        "stripe_size = 24",
        "stripe_size = \"8\"",
    ] {
        assert_eq!(refusal(&chunks(bad)), "lvm.metadata", "{bad}");
    }
    // Segments that overlap, leave a gap, are empty.
    assert_eq!(refusal(&linear("\"pv0\", 0").replace("start_extent = 0", "start_extent = 1")), "lvm.metadata");
    assert_eq!(refusal(&linear("\"pv0\", 0").replace("extent_count = 1", "extent_count = 0")), "lvm.metadata");
    // Names that would lead elsewhere.
    for name in ["../x", "a/b", "-x", "..", "x y", "\\u{7}", &"n".repeat(128)] {
        assert_eq!(refusal(&super::tests::linear(&format!("\"{name}\""), 1, "pv0", 0)), "lvm.metadata", "{name}");
    }
    // Raid legs that are one short, or the volume itself.
    assert_eq!(refusal(&lv("x", &[(1, "type = \"raid1\" device_count = 1 raids = [\"x\"]")])), "lvm.metadata");
    assert_eq!(refusal(&lv("x", &[(1, "type = \"raid1\" device_count = 1 raids = [\"x\", \"x\"]")])), "lvm.metadata");
    assert_eq!(refusal(&lv("x", &[(1, "type = \"raid5\" raids = []")])), "lvm.metadata");
    assert_eq!(refusal(&lv("x", &[(1, "type = \"thin\" thin_pool = \"x\" device_id = 1")])), "lvm.metadata");
    assert_eq!(refusal(&lv("x", &[(1, "type = \"thin\" thin_pool = \"nobody\" device_id = 1")])), "lvm.metadata");
}

#[test]
fn volumes_of_volumes_are_bounded_in_depth_and_width() {
    // Each made of the one before, many times over: without a bound, reading a byte would visit 16^12 places.
    let legs = |of: &str| format!("type = \"mirror\" mirrors = [{}]", vec![format!("\"{of}\", 0"); 16].join(","));
    let mut logical = linear("l0", 1, "pv0", 0);
    for level in 1..8 {
        logical += &lv(&format!("l{level}"), &[(1, &legs(&format!("l{}", level - 1)))]);
    }
    assert_eq!(refusal(&(logical + &lv("x", &[(1, &legs("l7"))]))), "lvm.metadata");
    let mut chain = linear("l0", 1, "pv0", 0);
    for level in 1..20 {
        chain += &linear(&format!("l{level}"), 1, &format!("l{}", level - 1), 0);
    }
    assert_eq!(refusal(&(chain + &linear("x", 1, "l19", 0))), "lvm.metadata");
}

#[test]
fn the_number_of_volumes_is_bounded() {
    let bound = limits::MAX_LVM_VOLUMES;
    for (count, code) in [(bound - 1, ""), (bound, ""), (bound + 1, "lvm.metadata")] {
        let volumes: String = (0..count).map(|n| format!("v{n} {{ status = [] }}\n")).collect();
        let described = Described::read(&text::Section::parse(text(1, &volumes).as_bytes()).unwrap());
        assert_eq!(described.err().map_or("", |error| error.code()), code, "{count}");
    }
}

#[test]
fn what_is_not_read_is_refused_by_name() {
    for kind in ["cache", "writecache", "vdo", "integrity", "cache+METADATA_FORMAT", "striped+WHATEVER", "error"] {
        assert_eq!(
            refusal(&lv("x", &[(1, &format!("type = \"{kind}\" stripe_count = 1 stripes = [\"pv0\", 0]"))])),
            "lvm.unsupported",
            "{kind}"
        );
    }
    let snapshot = |store: &str| {
        linear("x", 1, "pv0", 0)
            + &linear("o", 1, "pv0", 1)
            + &lv("snapshot0", &[(1, &format!("type = \"snapshot\" chunk_size = 8 {store}"))])
                .replace(", \"VISIBLE\"", "")
    };
    assert_eq!(refusal(&snapshot("origin = \"o\" cow_store = \"x\"")), "lvm.snapshot");
    assert_eq!(refusal(&snapshot("origin = \"x\" merging_store = \"o\"")), "lvm.snapshot");
    assert_eq!(refusal(&snapshot("origin = \"x\" cow_store = \"o\"")), "");
    let found = on_both(&snapshot("origin = \"x\" cow_store = \"o\""));
    let origin = found.groups[0].volumes.iter().find(|v| v.name == "x").unwrap();
    assert_eq!(origin.disk.as_ref().unwrap().write_at(b"x", 0).unwrap_err().code(), "disk.read-only");
    let read_only = linear("x", 1, "pv0", 0).replace("\"WRITE\", ", "");
    let disk = on_both(&read_only).groups[0].volumes[0].disk.clone().unwrap();
    assert_eq!(disk.write_at(b"x", 0).unwrap_err().code(), "disk.read-only");
}

/// `raid1` of two legs on two disks, whose states are given as event count, failed legs, and how far each was filled.
fn raid1(states: [Option<(u64, u64, u64)>; 2]) -> Result<u8> {
    let hidden = |text: String| text.replace(", \"VISIBLE\"", "");
    let logical = lv("x", &[(1, "type = \"raid1\" device_count = 2 raids = [\"m0\", \"i0\", \"m1\", \"i1\"]")])
        + &hidden(
            linear("m0", 1, "pv0", 0)
                + &linear("i0", 1, "pv0", 1)
                + &linear("m1", 1, "pv1", 0)
                + &linear("i1", 1, "pv1", 1),
        );
    let text = text(1, &logical);
    let pvs = ['a', 'b'].into_iter().zip(states).map(|(uuid, state)| {
        let mut pv = Pv::new(uuid).with(&text, 512);
        if let Some((events, failed, recovered)) = state {
            let at = DATA as usize;
            pv.bytes[at..at + 512].fill(0);
            put32(&mut pv.bytes, at, 0x6452_6d44);
            put64(&mut pv.bytes, at + 16, events);
            put64(&mut pv.bytes, at + 24, failed);
            put64(&mut pv.bytes, at + 32, recovered);
            put64(&mut pv.bytes, at + 40, u64::MAX);
        }
        assert_eq!(pv.uuid, uuid);
        pv.disk()
    });
    let found = groups(&pvs.collect::<Vec<_>>());
    found.groups[0].volumes[0].disk.clone().map(|disk| read(&disk, 9))
}

#[test]
fn legs_that_are_not_in_sync_are_not_read() {
    let all = u64::MAX;
    let (a, b) = (byte('a', 1, 9), byte('b', 1, 9));
    assert_eq!(raid1([None, None]).unwrap(), a);
    assert_eq!(raid1([Some((5, 0, all)), Some((5, 0, all))]).unwrap(), a);
    assert_eq!(raid1([Some((3, 0, all)), Some((5, 0, all))]).unwrap(), b);
    assert_eq!(raid1([Some((5, 1, all)), Some((5, 1, all))]).unwrap(), b);
    assert_eq!(raid1([Some((5, 0, 17)), Some((5, 0, all))]).unwrap(), b);
    assert_eq!(raid1([None, Some((5, 0, all))]).unwrap(), b);
    assert_eq!(raid1([Some((5, 3, all)), Some((5, 3, all))]).unwrap_err().code(), "lvm.degraded");
}
