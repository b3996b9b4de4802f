//! COWD and seSparse extents behind their descriptors.

use super::super::cowd::tests::build as cowd;
use super::super::sesparse::tests::{Is, build as sesparse, poke};
use super::*;

/// A layer of one extent of `kind`, which is `bytes`.
fn open_one(kind: &str, sectors: u64, bytes: Vec<u8>) -> Result<Arc<dyn Layer>> {
    let text = format!("# Disk DescriptorFile\nCID=7\nRW {sectors} {kind} \"x-delta.vmdk\"\n");
    let head = open(Checked::wrap(Memory::new(text.into())), &Ask::current(&Session::with_defaults()))?;
    (head.build)(vec![Checked::wrap(Memory::new(bytes))])
}

fn grain(seed: u64, sectors: usize) -> Vec<u8> {
    noise(seed, sectors * 512)
}

fn cowd_file() -> Vec<u8> {
    cowd(9001, 2, &[(0, grain(1, 2)), (4097, grain(2, 2)), (1, grain(3, 2)), (4500, grain(4, 1))])
}

#[test]
fn cowd_extents_read() {
    let layer = open_one("VMFSSPARSE", 9001, cowd_file()).unwrap();
    let mut expected = vec![0; 9001 * 512];
    for (index, seed, sectors) in [(0, 1, 2), (4097, 2, 2), (1, 3, 2), (4500, 4, 1)] {
        expected[index * 1024..][..sectors * 512].copy_from_slice(&grain(seed, sectors));
    }
    assert!(read(&*layer).unwrap() == expected);
    assert_eq!((layer.unit_size(), layer.identity().as_deref()), (1024, Some("00000007")));
    assert_eq!(layer.map(2048, 4096).unwrap(), Run { len: 4096, place: Place::Parent });
    let facts = layer.facts();
    assert!(facts.contains(&("version", "COWD".into())) && !facts.iter().any(|(key, _)| *key == "note"));
}

#[test]
fn an_unclean_cowd_is_noted() {
    let mut bytes = cowd_file();
    bytes[1648] = 1;
    let layer = open_one("VMFSSPARSE", 9001, bytes).unwrap();
    assert!(layer.facts().iter().any(|(key, value)| *key == "note" && value.contains("shut down")));
}

#[test]
fn hostile_cowd_extents_are_refused() {
    let with = |at: usize, value: u32| {
        let mut bytes = cowd_file();
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        bytes
    };
    let table = 2048 + 512;
    let len = u32::try_from(cowd_file().len() / 512).unwrap();
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("table far away", with(2048, u32::MAX), "vmdk.grain"),
        ("table at the end", with(2048, len), "vmdk.grain"),
        ("grain far away", with(table, u32::MAX), "vmdk.grain"),
        ("grain at the end", with(table, len), "vmdk.grain"),
        ("grain half outside", with(table, len - 1), "vmdk.grain"),
        ("last table outside", with(2048 + 4, 0x8000_0000), "vmdk.grain"),
        ("shorter than the descriptor says", cowd(9000, 2, &[]), "vmdk.extent"),
        ("huge disk", with(12, u32::MAX), "vmdk.header"),
        ("no room for the directory", with(20, len), "vmdk.directory"),
        ("every table the same", cowd_bomb(), "vmdk.directory"),
        ("no bytes", vec![0], "vmdk.header"),
        ("another kind of file", vec![0; 4096], "vmdk.header"),
        ("sound", cowd_file(), "ok"),
    ];
    for (name, bytes, code) in cases {
        let result = open_one("VMFSSPARSE", 9001, bytes).and_then(|layer| read(&*layer));
        assert_eq!(result.map_or_else(|error| error.code(), |_| "ok"), code, "{name}");
    }
}

/// A directory that leads to one table many times.
fn cowd_bomb() -> Vec<u8> {
    let mut bytes = cowd(4096 * 64, 1, &[(0, grain(1, 1))]);
    let table = bytes[2048..2052].to_vec();
    for number in 1..64 {
        bytes[2048 + number * 4..][..4].copy_from_slice(&table);
    }
    bytes
}

fn sesparse_file() -> Vec<u8> {
    let grains = [
        (0, Is::Data(grain(1, 8))),
        (5, Is::Zero),
        (4097, Is::Data(grain(2, 8))),
        (6, Is::Unmapped),
        (1, Is::Data(grain(3, 8))),
    ];
    sesparse(70_000, &[&grains[..], &[(8749, Is::Data(grain(4, 8)))]].concat())
}

#[test]
fn sesparse_extents_read() {
    let layer = open_one("SESPARSE", 70_000, sesparse_file()).unwrap();
    let mut expected = vec![0; 8750 * 4096];
    for (index, seed) in [(0, 1), (4097, 2), (1, 3), (8749, 4)] {
        expected[index * 4096..][..4096].copy_from_slice(&grain(seed, 8));
    }
    assert!(read(&*layer).unwrap() == expected);
    assert_eq!(layer.map(4 * 4096, 1 << 20).unwrap(), Run { len: 4096, place: Place::Parent });
    assert_eq!(layer.map(5 * 4096, 1 << 20).unwrap(), Run { len: 8192, place: Place::Zero }, "not the parent's");
    assert_eq!(layer.map(4098 * 4096, 1 << 20).unwrap().place, Place::Parent);
    assert!(layer.facts().contains(&("version", "seSparse".into())));
}

#[test]
fn numbers_of_sesparse_grains_have_two_halves() {
    let mut bytes = sesparse(8 * 4097, &[(0, Is::Data(grain(1, 8)))]);
    let grains_at = (16 + 2 * 64) * 512;
    poke(&mut bytes, 200, 8 * 4098);
    poke(&mut bytes, 16 * 512, 3 << 60 | 1 << 48 | 1);
    bytes.resize(grains_at + 4098 * 4096, 0);
    bytes[grains_at + 4097 * 4096..].copy_from_slice(&grain(9, 8));
    let layer = open_one("SESPARSE", 8 * 4097, bytes).unwrap();
    assert!(read(&*layer).unwrap()[..4096] == grain(9, 8));
}

#[test]
fn hostile_sesparse_extents_are_refused() {
    let with = |at: usize, value: u64| {
        let mut bytes = sesparse_file();
        poke(&mut bytes, at, value);
        bytes
    };
    let (directory, table) = (8 * 512, 16 * 512);
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("directory entry without its mark", with(directory, 1), "vmdk.grain"),
        ("directory entry of another kind", with(directory, 2 << 60), "vmdk.grain"),
        ("table outside of its region", with(directory, 0x1000_0000 << 32 | 3), "vmdk.grain"),
        ("table number of all ones", with(directory, 0x1fff_ffff_ffff_ffff), "vmdk.grain"),
        ("grain of kind 0", with(table, 1), "vmdk.grain"),
        ("grain of kind 4", with(table, 4 << 60), "vmdk.grain"),
        ("grain outside of its region", with(table, 3 << 60 | 4 << 48), "vmdk.grain"),
        ("grain number of all ones", with(table, 0x3fff_ffff_ffff_ffff), "vmdk.grain"),
        ("regions outside of the file", with(144, 1 << 40), "vmdk.grain"),
        ("grains outside of the file", with(192, 1 << 40), "vmdk.grain"),
        ("a dirty journal", with(536, 1), "vmdk.journal"),
        ("shorter than the descriptor says", sesparse(69_992, &[]), "vmdk.extent"),
        ("cut off", sesparse_file()[..sesparse_file().len() - 1].to_vec(), "vmdk.grain"),
        ("sound", sesparse_file(), "ok"),
    ];
    for (name, bytes, code) in cases {
        let result = open_one("SESPARSE", 70_000, bytes).and_then(|layer| read(&*layer));
        assert_eq!(result.map_or_else(|error| error.code(), |_| "ok"), code, "{name}");
    }
}

#[test]
fn a_bare_extent_says_that_its_descriptor_is_needed() {
    for bytes in [cowd_file(), sesparse_file()] {
        let sample = Sample::take(&Memory::new(bytes.clone())).unwrap();
        assert_eq!(crate::format::probe::detect(&sample).unwrap().name, "vmdk");
        let error = layer(bytes).unwrap_err();
        assert_eq!(error.code(), "vmdk.descriptor");
        assert!(error.next().unwrap().contains("descriptor"));
    }
}

#[test]
fn the_header_and_not_the_descriptor_says_what_kind_an_extent_is() {
    assert!(read(&*open_one("SPARSE", 9001, cowd_file()).unwrap()).is_ok());
    assert!(read(&*open_one("VMFSSPARSE", 70_000, sesparse_file()).unwrap()).is_ok());
}

#[test]
fn every_truncation_of_the_tables_fails_or_reads_the_same() {
    let small = cowd(91, 2, &[(0, grain(1, 2)), (45, grain(4, 1))]);
    let smaller = sesparse(96, &[(11, Is::Data(grain(1, 8))), (5, Is::Zero)]);
    for (kind, sectors, bytes) in [("VMFSSPARSE", 91, small), ("SESPARSE", 96, smaller)] {
        let whole = read(&*open_one(kind, sectors, bytes.clone()).unwrap()).unwrap();
        for len in (1..bytes.len()).step_by(61) {
            if let Ok(read) = open_one(kind, sectors, bytes[..len].to_vec()).and_then(|layer| read(&*layer)) {
                assert!(read == whole, "{kind} cut at {len}");
            }
        }
    }
}

#[test]
#[allow(clippy::disallowed_methods, reason = "tests read what a second implementation wrote")]
fn qemu_img_reads_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let cases = [
        ("vmfsSparse", "VMFSSPARSE", 9001, cowd_file()),
        ("vmfsSparse", "VMFSSPARSE", 77, cowd(77, 1, &[(76, grain(1, 1)), (0, grain(2, 1))])),
        ("vmfsSparse", "VMFSSPARSE", 4096, cowd(4096, 128, &[])),
        ("seSparse", "SESPARSE", 70_000, sesparse_file()),
        ("seSparse", "SESPARSE", 4096 * 8, sesparse(4096 * 8, &[(0, Is::Unmapped), (4095, Is::Data(grain(1, 8)))])),
        ("seSparse", "SESPARSE", 64, sesparse(64, &[])),
    ];
    for (create, kind, sectors, bytes) in cases {
        let (descriptor, raw) = (dir.path().join("d.vmdk"), dir.path().join("d.raw"));
        let text = format!(
            "# Disk DescriptorFile\nversion=1\nCID=7\nparentCID=ffffffff\ncreateType=\"{create}\"\nRW {sectors} {kind} \"x-delta.vmdk\"\n"
        );
        std::fs::write(&descriptor, text).unwrap();
        std::fs::write(dir.path().join("x-delta.vmdk"), &bytes).unwrap();
        let args = ["convert", "-f", "vmdk", "-O", "raw", arg(&descriptor), arg(&raw)];
        qemu_img(&args);
        assert!(read(&*open_one(kind, sectors, bytes).unwrap()).unwrap() == std::fs::read(&raw).unwrap(), "{create}");
    }
}
