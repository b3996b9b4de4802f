//! Members made by hand: what is put together, and what is refused. `tests/volumes.rs` compares with what the kernel makes.

use super::superblock::sum_of_words;
use super::*;
use crate::disk::Memory;
use crate::disk::bytes::{put, put16, put32};

const LEN: usize = 1 << 20;
const DATA: u64 = 128 << 10;
const SIZE: u64 = 512 << 10;

fn put64(bytes: &mut [u8], at: usize, value: u64) {
    put(bytes, at, &value.to_le_bytes());
}

/// A member with a superblock of version 1.2.
#[derive(Clone)]
struct Device(Vec<u8>);

impl Device {
    fn new(level: i32, disks: u32, place: u16) -> Self {
        let mut bytes: Vec<u8> = (0..LEN).map(|at| ((at >> 9) as u8) ^ (place as u8).wrapping_mul(85)).collect();
        bytes[..8192].fill(0);
        let mut device = Self(bytes);
        device.set32(0, 0xa92b_4efc).set32(4, 1).set64(16, 7).set32(72, level as u32).set64(80, SIZE / 512);
        put(&mut device.0, 4096 + 32, b"host:data");
        device.set32(88, 8).set32(92, disks).set64(128, DATA / 512).set64(136, SIZE / 512).set64(144, 8);
        device.set32(160, u32::from(place)).set64(200, 10).set64(208, u64::MAX).set32(220, 8);
        for number in 0..8 {
            put16(
                &mut device.0,
                4096 + 256 + 2 * usize::from(number),
                if u32::from(number) < disks { number } else { 0xffff },
            );
        }
        device.sign();
        device
    }

    fn sign(&mut self) -> &mut Self {
        let count = crate::disk::bytes::le32(&self.0, 4096 + 220) as usize;
        let sum = sum_of_words(&self.0[4096..(4096 + 256 + 2 * count).min(LEN)], 216);
        put32(&mut self.0, 4096 + 216, sum);
        self
    }

    fn set32(&mut self, at: usize, value: u32) -> &mut Self {
        put32(&mut self.0, 4096 + at, value);
        self.sign()
    }

    fn set64(&mut self, at: usize, value: u64) -> &mut Self {
        put64(&mut self.0, 4096 + at, value);
        self.sign()
    }

    fn role(&mut self, of: usize, role: u16) -> &mut Self {
        put16(&mut self.0, 4096 + 256 + 2 * of, role);
        self.sign()
    }

    fn found(&self) -> Result<Option<Found>> {
        let disk: Arc<dyn DiskMut> = Checked::wrap(Memory::new(self.0.clone()));
        Ok(probe(&*disk)?.map(|member| (member, disk)))
    }
}

fn set(level: i32, disks: u16) -> Vec<Device> {
    (0..disks).map(|place| Device::new(level, u32::from(disks), place)).collect()
}

fn assemble(devices: &[Device]) -> Array {
    let members = devices.iter().map(|device| device.found().unwrap().unwrap()).collect();
    let [array] = <[Array; 1]>::try_from(arrays(members)).unwrap();
    array
}

fn code(devices: &[Device]) -> &'static str {
    assemble(devices).disk.err().map_or("", |error| error.code())
}

fn read(devices: &[Device], at: u64) -> u8 {
    let mut one = [0];
    assemble(devices).disk.unwrap().read_at(&mut one, at).unwrap();
    one[0]
}

fn byte(place: u64, at: u64) -> u8 {
    (((DATA + at) >> 9) as u8) ^ (place as u8).wrapping_mul(85)
}

/// The code of a superblock with one field changed.
fn damaged(change: impl Fn(&mut Device)) -> &'static str {
    let mut devices = set(1, 2);
    devices.iter_mut().for_each(change);
    match devices[0].found() {
        Err(error) => error.code(),
        Ok(None) => "none",
        Ok(Some(_)) => code(&devices),
    }
}

#[test]
fn mirrors_stripes_and_lines_are_where_they_should_be() {
    let array = assemble(&set(1, 2));
    assert_eq!(
        (array.name.as_deref(), array.full_name.as_deref(), array.number),
        (Some("data"), Some("host:data"), None)
    );
    assert_eq!((array.level.as_str(), array.members, array.active), ("raid1", 2, 2));
    assert_eq!(array.disk.unwrap().len(), SIZE);
    assert_eq!(read(&set(1, 2), 700), byte(0, 700));
    assert_eq!(read(&set(1, 2)[1..], 700), byte(1, 700));
    assert_eq!(read(&set(0, 3), 4096 * 4 + 5), byte(1, 4096 + 5));
    assert_eq!(read(&set(-1, 3), SIZE + 5), byte(1, 5));
    let mut near: Vec<Device> = set(10, 4);
    near.iter_mut().for_each(|device| {
        device.set32(76, 0x102);
    });
    assert_eq!(read(&near, 4096 * 3 + 5), byte(2, 4096 + 5));
    near.remove(2);
    assert_eq!(read(&near, 4096 * 3 + 5), byte(3, 4096 + 5));
    near.pop();
    assert_eq!(code(&near), "md.degraded");
}

#[test]
fn stale_failed_and_unfilled_members_are_left_out() {
    let mut two = set(1, 2);
    two[0].set64(200, 8);
    assert_eq!(read(&two, 0), byte(1, 0));
    two[0].set64(200, 9);
    assert_eq!(read(&two, 0), byte(0, 0));
    two[1].role(0, 0xfffe).set64(200, 11);
    assert_eq!(read(&two, 0), byte(1, 0));
    let mut filling = set(1, 2);
    filling[0].set32(8, 2).set64(152, 100);
    assert_eq!(read(&filling, 0), byte(1, 0));
    filling[0].set64(152, u64::MAX);
    assert_eq!(read(&filling, 0), byte(0, 0));
    let mut bad_blocks = set(1, 2);
    bad_blocks[0].set32(8, 8);
    put16(&mut bad_blocks[0].0, 4096 + 186, 8);
    bad_blocks[0].sign();
    assert_eq!(read(&bad_blocks, 0), byte(1, 0));
    assert_eq!(code(&set(0, 3)[..2]), "md.degraded");
    let mut dirty = set(5, 3);
    dirty.iter_mut().for_each(|device| {
        device.set32(76, 2).set64(208, 0);
    });
    assert_eq!((code(&dirty), code(&dirty[1..])), ("", "md.degraded"));
}

#[test]
fn what_is_not_read_is_refused_by_name() {
    for (features, expected) in
        [(4, "md.reshape"), (512, "md.unsupported"), (1 << 20, "md.unsupported"), (1 | 1024 | 4096, "")]
    {
        assert_eq!(
            damaged(|device| {
                device.set32(8, features);
            }),
            expected,
            "{features}"
        );
    }
    for (level, expected) in [(-4, "md.unsupported"), (7, "md.unsupported"), (i32::MIN, "md.unsupported")] {
        assert_eq!(
            damaged(|device| {
                device.set32(72, level as u32);
            }),
            expected
        );
    }
    for layout in [0x201, 0x1_0102, 0, 0xff] {
        let mut far = set(10, 4);
        far.iter_mut().for_each(|device| {
            device.set32(76, layout);
        });
        assert_eq!(code(&far), "md.unsupported", "{layout:#x}");
    }
    let mut parity = set(5, 3);
    parity.iter_mut().for_each(|device| {
        device.set32(76, 99);
    });
    assert_eq!(code(&parity), "md.unsupported");
    let mut zones = set(0, 3);
    zones[1].set64(136, SIZE / 1024);
    assert_eq!(code(&zones), "md.unsupported", "the order of turns behind the shortest member is not known");
}

#[test]
fn hostile_superblocks_are_refused() {
    // Sizes and places past the end, of nothing, at the end of all numbers.
    assert_eq!(
        damaged(|device| {
            device.set64(128, u64::MAX);
        }),
        "md.superblock"
    );
    assert_eq!(
        damaged(|device| {
            device.set64(128, 1 << 60);
        }),
        "md.superblock"
    );
    assert_eq!(
        damaged(|device| {
            device.set64(136, 1 << 50);
        }),
        "md.superblock"
    );
    assert_eq!(
        damaged(|device| {
            device.set64(80, 1 << 50);
        }),
        "md.superblock"
    );
    assert_eq!(
        damaged(|device| {
            device.set64(80, 0);
        }),
        "md.superblock"
    );
    assert_eq!(
        damaged(|device| {
            device.set64(144, 16);
        }),
        "md.superblock"
    );
    // Members without number, and roles without end.
    assert_eq!(
        damaged(|device| {
            device.set32(92, 0);
        }),
        "md.superblock"
    );
    assert_eq!(
        damaged(|device| {
            device.set32(92, u32::MAX);
        }),
        "md.superblock"
    );
    assert_eq!(damaged(|device| put32(&mut device.0, 4096 + 220, u32::MAX)), "md.superblock");
    assert_eq!(
        damaged(|device| {
            device.set32(220, 0);
        }),
        "md.degraded"
    );
    assert_eq!(
        damaged(|device| {
            device.set32(160, u32::MAX);
        }),
        "md.degraded"
    );
    assert_eq!(
        damaged(|device| {
            device.set32(4, 9);
        }),
        "md.superblock"
    );
    assert_eq!(damaged(|device| device.0[4096 + 40] ^= 1), "md.superblock");
    // Chunks of nothing, of one sector, of more than there is.
    for chunk in [0, 1, u32::MAX] {
        let mut striped = set(0, 2);
        striped.iter_mut().for_each(|device| {
            device.set32(88, chunk);
        });
        assert_eq!(code(&striped), "md.superblock", "{chunk}");
    }
    // Members that disagree, and a member twice.
    let mut other = set(0, 2);
    other[1].set32(88, 16);
    assert_eq!(code(&other), "md.superblock");
    let twice = [set(1, 2)[0].clone(), set(1, 2)[0].clone()];
    assert_eq!(code(&twice), "md.duplicate");
    for bound in [limits::MAX_RAID_MEMBERS, limits::MAX_RAID_MEMBERS + 1] {
        let expected = if bound > limits::MAX_RAID_MEMBERS { "md.superblock" } else { "" };
        assert_eq!(
            damaged(|device| {
                device.set32(92, bound as u32);
            }),
            expected
        );
    }
}

#[test]
fn hostile_names_are_not_used() {
    for name in ["../../etc", "a/b", "-x", ".", "a\u{7}b", "h:../x"] {
        let mut device = Device::new(1, 1, 0);
        device.0[4096 + 32..4096 + 64].fill(0);
        put(&mut device.0, 4096 + 32, name.as_bytes());
        let array = assemble(&[device.sign().clone()]);
        assert!(array.name.as_deref().is_none_or(|name| !name.contains('/') && !name.starts_with('.')), "{name}");
    }
}

#[test]
fn short_and_cut_devices_have_no_superblock() {
    let whole = Device::new(1, 1, 0);
    for len in (0..16384).step_by(509) {
        let cut = Device(whole.0[..len].to_vec());
        assert!(cut.found().is_err() || cut.found().unwrap().is_none(), "{len}");
    }
}
