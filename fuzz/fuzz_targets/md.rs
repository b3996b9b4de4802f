//! Up to four devices with superblocks made of the input, checksums made right: what is put together can be read to its end.
#![no_main]

use std::sync::Arc;

use hyper2kvm::disk::{Checked, DiskMut, Memory};
use hyper2kvm::volume::md;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((kind, data)) = data.split_first() else { return };
    let mut members = Vec::new();
    for number in 0..u32::from(kind % 4) + 1 {
        let mut bytes = vec![number as u8; 1 << 20];
        bytes[..8192].fill(0);
        let (at, skip) = if kind & 8 == 0 { (4096, 216) } else { ((1 << 20) - (1 << 16), 152) };
        let sb = &mut bytes[at..at + 4096];
        sb.fill(0);
        let len = data.len().min(4000);
        sb[..len].copy_from_slice(&data[..len]);
        sb[..4].copy_from_slice(&0xa92b_4efc_u32.to_le_bytes());
        // What tells the members apart, and what has to be right for anything to be read.
        let (version, this) = if kind & 8 == 0 { (1_u32, 160) } else { (0, 3968) };
        sb[4..8].copy_from_slice(&version.to_le_bytes());
        sb[this..this + 4].copy_from_slice(&number.to_le_bytes());
        if kind & 8 == 0 {
            sb[144..152].copy_from_slice(&8_u64.to_le_bytes());
        }
        let used = if kind & 8 == 0 { 256 + 2 * (sb[220] as usize | (sb[221] as usize) << 8).min(1920) } else { 4096 };
        let sum: u64 = sb[..used]
            .chunks(4)
            .enumerate()
            .filter(|(i, _)| i * 4 != skip)
            .map(|(_, w)| w.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
            .sum();
        sb[skip..skip + 4].copy_from_slice(&(((sum & 0xffff_ffff) + (sum >> 32)) as u32).to_le_bytes());
        let disk: Arc<dyn DiskMut> = Checked::wrap(Memory::new(bytes));
        members.extend(md::probe(&*disk).ok().flatten().map(|member| (member, disk)));
    }
    for disk in md::arrays(members).into_iter().filter_map(|array| array.disk.ok()) {
        let mut buf = vec![0; 100_000];
        let len = (disk.len() as usize).min(buf.len());
        disk.read_at(&mut buf[..len], disk.len() - len as u64).expect("memory can be read");
        disk.extents(0..disk.len(), &mut |_| std::ops::ControlFlow::Continue(())).expect("and mapped");
    }
});
