//! The header of version 1: `struct luks_phdr`, big-endian.

use super::kdf::{Hash, Kdf};
use super::{Data, DigestOf, Header, SECTOR, Slot, checked_uuid, length, wrong};
use crate::disk::bytes::{be32, size, text};
use crate::error::Result;

const LEN: usize = 592;
const SLOTS: usize = 8;
const ENABLED: u32 = 0x00ac_71f3;

pub(super) fn read(head: &[u8]) -> Result<Header> {
    if head.len() < LEN {
        return Err(wrong("is cut off"));
    }
    let part = |at: usize, len: usize| head.get(at..at.saturating_add(len)).unwrap_or_default();
    let word = |at: usize, len: usize| text(part(at, len)).unwrap_or_default();
    let cipher = format!("{}-{}", word(8, 32), word(40, 32));
    let hash = Hash::named(&word(72, 32))?;
    let key = size(length(head, 108));
    let mut slots = Vec::new();
    for slot in (0..SLOTS).map(|number| part(number.saturating_mul(48).saturating_add(208), 48)) {
        if be32(slot, 0) != ENABLED {
            continue;
        }
        let salt = slot.get(8..40).unwrap_or_default().to_vec();
        slots.push(Slot {
            kdf: Kdf::Pbkdf2 { hash, iterations: be32(slot, 4), salt },
            area_key: key,
            cipher: cipher.clone(),
            area: length(slot, 40).saturating_mul(SECTOR)..u64::MAX,
            key,
            stripes: be32(slot, 44),
            hash,
        });
    }
    Ok(Header {
        version: 1,
        uuid: checked_uuid(part(168, 40))?,
        label: None,
        slots,
        data: Data { start: length(head, 104).saturating_mul(SECTOR), len: None, cipher, sector: 512, tweak: 0 },
        digest: DigestOf {
            kdf: Kdf::Pbkdf2 { hash, iterations: be32(head, 164), salt: part(132, 32).to_vec() },
            digest: part(112, 20).to_vec(),
        },
    })
}
