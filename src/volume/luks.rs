//! LUKS 1 and 2: an encrypted volume, opened with a passphrase.
//!
//! `cryptsetup`'s on-disk format documents name the fields. Anything written to the inside goes encrypted to the outside; the
//! header is never written.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::disk::bytes::{be32, is_at, long, size, text};
use crate::disk::{Checked, Disk, DiskMut, read_vec};
use crate::error::{Error, Result};
use crate::session::Secret;

mod cipher;
mod crypt;
mod kdf;
mod v1;
mod v2;

use cipher::Cipher;
use crypt::Crypt;
use kdf::{Hash, Kdf};

const MAGIC: &[u8; 6] = b"LUKS\xba\xbe";
const SECTOR: u64 = 512;

/// The header of an encrypted volume.
#[derive(Clone, Debug)]
pub struct Header {
    version: u16,
    uuid: String,
    label: Option<String>,
    /// Those that lead to the key of the data.
    slots: Vec<Slot>,
    data: Data,
    digest: DigestOf,
}

/// Where a copy of the key is, encrypted with a passphrase.
#[derive(Clone, Debug)]
struct Slot {
    kdf: Kdf,
    /// Bytes of what the passphrase becomes.
    area_key: usize,
    /// The cipher of the area.
    cipher: String,
    /// Where the area begins, and how long it may be.
    area: Range<u64>,
    /// Bytes of the key.
    key: usize,
    stripes: u32,
    hash: Hash,
}

/// The encrypted data.
#[derive(Clone, Debug)]
struct Data {
    start: u64,
    /// All that follows where there is none.
    len: Option<u64>,
    cipher: String,
    sector: usize,
    tweak: u64,
}

/// What the right key's digest is.
#[derive(Clone)]
struct DigestOf {
    kdf: Kdf,
    digest: Vec<u8>,
}

impl fmt::Debug for DigestOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DigestOf").field("kdf", &self.kdf).finish_non_exhaustive()
    }
}

impl Header {
    /// Reads the header of an encrypted volume; of two copies, the newer one that is whole.
    ///
    /// # Errors
    /// `luks.header` when it is damaged, `luks.unsupported` for what is not read.
    pub fn read(disk: &dyn Disk) -> Result<Self> {
        let head = read_vec(disk, 0, size(disk.len().min(v2::BINARY)))?;
        match version(&head) {
            Some(1) => v1::read(&head),
            _ => v2::read(disk),
        }
    }

    /// As it is written in the header.
    #[must_use]
    pub fn uuid(&self) -> &str {
        &self.uuid
    }

    /// 1 or 2.
    #[must_use]
    pub fn version(&self) -> u16 {
        self.version
    }

    /// The label, which version 2 may have.
    #[must_use]
    pub fn label(&self) -> Option<&str> {
        self.label.as_deref()
    }

    /// What trying one secret on all slots costs: iterations of a hash, and KiB that are gone over.
    #[must_use]
    pub fn work(&self) -> u64 {
        self.slots
            .iter()
            .map(|slot| slot.kdf.work().saturating_add(self.digest.kdf.work()))
            .fold(0, u64::saturating_add)
    }

    /// The inside of the volume on `disk`, with the first of `secrets` that opens it.
    ///
    /// # Errors
    /// `luks.key-missing` when there are no secrets, `luks.key-wrong` when none of them fits any slot.
    pub fn unlock<'a>(
        &self,
        disk: Arc<dyn DiskMut>,
        secrets: impl IntoIterator<Item = &'a Secret>,
    ) -> Result<Arc<dyn DiskMut>> {
        let (mut tried, mut failure) = (false, None);
        for secret in secrets {
            tried = true;
            for slot in &self.slots {
                match self.try_slot(&*disk, slot, secret) {
                    Ok(Some(key)) => return self.open(disk, &key),
                    Ok(None) => {}
                    Err(error) => failure = failure.or(Some(error)),
                }
            }
        }
        let option = format!("--key {}:file:PATH", self.uuid);
        Err(match failure {
            Some(error) => error,
            None if tried => {
                Error::refused("luks.key-wrong", "none of the keys opens the encrypted volume").hint(option)
            }
            None => Error::refused("luks.key-missing", "there is no key for the encrypted volume").hint(option),
        })
    }

    /// The data's key, if `secret` is the one of `slot`.
    fn try_slot(&self, disk: &dyn Disk, slot: &Slot, secret: &Secret) -> Result<Option<Zeroizing<Vec<u8>>>> {
        let split_len = long(slot.key).saturating_mul(u64::from(slot.stripes));
        let area_len = split_len.next_multiple_of(SECTOR);
        if slot.key == 0 || slot.key > kdf::MAX_KEY || slot.stripes == 0 || slot.stripes > kdf::MAX_STRIPES {
            return Err(wrong("has a key slot of impossible size"));
        }
        let end = slot.area.start.checked_add(area_len);
        if end.is_none_or(|end| end > slot.area.end || end > disk.len()) {
            return Err(wrong("has a key slot outside of its place").offset(slot.area.start));
        }
        let cipher = Cipher::new(&slot.cipher, &slot.kdf.derive(secret.expose(), slot.area_key)?, 512)?;
        let mut split = Zeroizing::new(read_vec(disk, slot.area.start, size(area_len))?);
        cipher.decrypt(&mut split, 0);
        let key = kdf::merge(split.get(..size(split_len)).unwrap_or_default(), slot.key, slot.stripes, slot.hash);
        let found = self.digest.kdf.derive(&key, self.digest.digest.len())?;
        Ok(kdf::is_same(&found, &self.digest.digest).then_some(key))
    }

    fn open(&self, disk: Arc<dyn DiskMut>, key: &[u8]) -> Result<Arc<dyn DiskMut>> {
        let cipher = Cipher::new(&self.data.cipher, key, self.data.sector)?;
        let end = match self.data.len {
            Some(len) => self.data.start.saturating_add(len),
            None => disk.len(),
        };
        let label = format!("luks-{}", self.uuid);
        Ok(Checked::wrap(Crypt::new(label, disk, self.data.start..end, self.data.tweak, cipher)?))
    }
}

fn version(head: &[u8]) -> Option<u16> {
    is_at(head, 0, MAGIC).then(|| crate::disk::bytes::array(head, 6)).map(u16::from_be_bytes)
}

/// A UUID becomes part of names, so nothing else is let through.
fn checked_uuid(bytes: &[u8]) -> Result<String> {
    let uuid = text(bytes).unwrap_or_default();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if uuid.is_empty() || !uuid.bytes().all(is_plain) { Err(wrong("has no UUID")) } else { Ok(uuid) }
}

fn wrong(what: &str) -> Error {
    Error::corrupt("luks.header", format!("the header of the encrypted volume {what}"))
}

fn unsupported(what: &str) -> Error {
    Error::unsupported("luks.unsupported", format!("the encrypted volume uses {what}"))
}

/// A number of four bytes, big-endian, as a length.
fn length(bytes: &[u8], at: usize) -> u64 {
    u64::from(be32(bytes, at))
}

#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::indexing_slicing,
    reason = "tests build their input"
)]
mod tests;
