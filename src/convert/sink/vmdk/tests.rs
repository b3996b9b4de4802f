use super::*;
use crate::disk::SectorSize;
use crate::testing::noise;

use super::super::Surface;

fn make(len: u64) -> Make {
    Make { len, sector_size: SectorSize::B512, identity: [7; 32], name: String::new(), surface: Surface::Stream }
}

/// What stands for a grain, and what a decoder that shares no code makes of it.
fn encoded(offset: u64, grain: &[u8], level: u8) -> (Vec<u8>, Vec<u8>) {
    let sink = VmdkSink::new(&make(1 << 20), &VmdkOptions { level }).unwrap();
    let mut out = b"before".to_vec();
    assert!(sink.encoder().unwrap().unwrap().encode(offset, grain, &mut out).unwrap());
    let out = out.split_off(6);
    let size = usize::try_from(le32(&out, 8)).unwrap();
    let decoded = miniz_oxide::inflate::decompress_to_vec_zlib(&out[12..12 + size]).unwrap();
    assert!(out[12 + size..].iter().all(|byte| *byte == 0) && out.len() == (12 + size).next_multiple_of(512));
    (out, decoded)
}

#[test]
fn grains_are_zlib_behind_a_marker() {
    for grain in [noise(3, 65_536), vec![b'a'; 65_536], noise(9, 700).repeat(94)[..65_536].to_vec()] {
        for level in [0, 1, 9] {
            let (stored, decoded) = encoded(5 << 16, &grain, level);
            assert_eq!(stored[..8], (5_u64 << 7).to_le_bytes());
            assert!(decoded == grain);
            assert!(stored.len() as u64 <= GRAIN + GRAIN_EXTRA);
        }
    }
}

#[test]
fn disks_that_do_not_fit_are_refused() {
    let new = |make: &Make| VmdkSink::new(make, &VmdkOptions::default());
    assert!(new(&make(MAX_VMDK_TABLES * SPAN)).is_ok());
    assert_eq!(new(&make(MAX_VMDK_TABLES * SPAN + 512)).unwrap_err().code(), "convert.size");
    let large = Make { sector_size: SectorSize::B4096, ..make(1 << 20) };
    assert_eq!(new(&large).unwrap_err().code(), "convert.size");
}

#[test]
fn a_file_that_its_tables_cannot_name_is_refused() {
    let sink = VmdkSink::new(&make(1 << 20), &VmdkOptions::default()).unwrap();
    assert_eq!(sink.sector(u64::from(u32::MAX) * SECTOR).unwrap(), u32::MAX);
    assert_eq!(sink.sector((u64::from(u32::MAX) + 1) * SECTOR).unwrap_err().code(), "convert.size");
}
