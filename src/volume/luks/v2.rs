//! The header of version 2: a binary one with a checksum over itself and over JSON behind it, twice.

use std::collections::BTreeMap;

use serde::Deserialize;
use sha2::{Digest, Sha256, Sha512};

use super::kdf::{Hash, Kdf, MAX_KEY};
use super::{Data, DigestOf, Header, MAGIC, Slot, checked_uuid, unsupported, version, wrong};
use crate::disk::bytes::{array, is_at, size, text};
use crate::disk::{Disk, read_vec};
use crate::error::{Error, Result};
use crate::limits;

/// Bytes of the binary header.
pub(super) const BINARY: u64 = 4096;
const SECOND_MAGIC: &[u8; 6] = b"SKUL\xba\xbe";
/// The sizes that a header may have, with its JSON; the second one begins where the first ends.
const SIZES: [u64; 9] =
    [0x4000, 0x8000, 0x1_0000, 0x2_0000, 0x4_0000, 0x8_0000, 0x10_0000, 0x20_0000, limits::MAX_LUKS_HEADER];
const CHECKSUM: usize = 448;

/// Reads both headers and believes the newer one that is whole.
pub(super) fn read(disk: &dyn Disk) -> Result<Header> {
    let mut failure = None;
    let mut best: Option<(u64, Header)> = None;
    let mut take = |copy: Result<(u64, Header)>| match copy {
        Ok((seqid, header)) if best.as_ref().is_none_or(|(best, _)| *best < seqid) => best = Some((seqid, header)),
        Ok(_) => {}
        Err(error) => failure = failure.take().or(Some(error)),
    };
    take(copy(disk, 0, MAGIC));
    for offset in SIZES {
        let end = offset.saturating_add(BINARY);
        if end <= disk.len() && is_at(&read_vec(disk, offset, 6)?, 0, SECOND_MAGIC) {
            take(copy(disk, offset, SECOND_MAGIC));
        }
    }
    let nothing = || wrong("is damaged");
    best.map(|(_, header)| header).ok_or_else(|| failure.unwrap_or_else(nothing))
}

/// One of the headers, with its sequence number.
fn copy(disk: &dyn Disk, offset: u64, magic: &[u8]) -> Result<(u64, Header)> {
    if offset.saturating_add(BINARY) > disk.len() {
        return Err(wrong("is cut off"));
    }
    let binary = read_vec(disk, offset, size(BINARY))?;
    let be64 = |at: usize| u64::from_be_bytes(array(&binary, at));
    let number = if magic == MAGIC { version(&binary) } else { Some(u16::from_be_bytes(array(&binary, 6))) };
    if !is_at(&binary, 0, magic) || number != Some(2) || be64(256) != offset {
        return Err(wrong("is of a version that is not known, or belongs elsewhere").offset(offset));
    }
    let len = be64(8);
    if !SIZES.contains(&len) || offset.saturating_add(len) > disk.len() {
        return Err(wrong("has an impossible size").offset(offset).found(len));
    }
    let mut whole = read_vec(disk, offset, size(len))?;
    let expected: [u8; 64] = array(&whole, CHECKSUM);
    if let Some(checksum) = whole.get_mut(CHECKSUM..).and_then(|rest| rest.get_mut(..64)) {
        checksum.fill(0);
    }
    let is_right = match text(binary.get(72..104).unwrap_or_default()).as_deref() {
        Some("sha256") => Sha256::digest(&whole).as_slice() == &expected[..32],
        Some("sha512") => Sha512::digest(&whole).as_slice() == &expected[..],
        other => return Err(unsupported("a checksum that is not known").found(other.unwrap_or(""))),
    };
    if !is_right {
        return Err(wrong("has a wrong checksum").offset(offset));
    }
    let json = whole.get(size(BINARY)..).unwrap_or_default();
    let json = json.get(..json.iter().position(|byte| *byte == 0).unwrap_or(json.len())).unwrap_or_default();
    let metadata: Metadata =
        serde_json::from_slice(json).map_err(|e| wrong("has JSON that cannot be read").because(e))?;
    let uuid = checked_uuid(binary.get(168..208).unwrap_or_default())?;
    let label = text(binary.get(24..72).unwrap_or_default());
    Ok((be64(16), metadata.header(uuid, label)?))
}

#[derive(Deserialize)]
struct Metadata {
    keyslots: BTreeMap<String, JsonSlot>,
    segments: BTreeMap<String, JsonSegment>,
    digests: BTreeMap<String, JsonDigest>,
    config: JsonConfig,
}

#[derive(Deserialize)]
struct JsonSlot {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    key_size: usize,
    af: Option<JsonAf>,
    area: Option<JsonArea>,
    kdf: Option<JsonKdf>,
    priority: Option<u8>,
}

#[derive(Deserialize)]
struct JsonAf {
    #[serde(default)]
    stripes: u32,
    #[serde(default)]
    hash: String,
}

#[derive(Deserialize)]
struct JsonArea {
    offset: String,
    size: String,
    #[serde(default)]
    encryption: String,
    #[serde(default)]
    key_size: usize,
}

#[derive(Deserialize)]
struct JsonKdf {
    #[serde(rename = "type")]
    kind: String,
    salt: String,
    #[serde(default)]
    hash: String,
    #[serde(default)]
    iterations: u32,
    #[serde(default)]
    time: u32,
    #[serde(default)]
    memory: u32,
    #[serde(default)]
    cpus: u32,
}

#[derive(Deserialize)]
struct JsonSegment {
    #[serde(rename = "type")]
    kind: String,
    offset: String,
    size: String,
    #[serde(default)]
    iv_tweak: String,
    #[serde(default)]
    encryption: String,
    #[serde(default)]
    sector_size: usize,
    integrity: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    flags: Vec<String>,
}

#[derive(Deserialize)]
struct JsonDigest {
    #[serde(rename = "type")]
    kind: String,
    keyslots: Vec<String>,
    segments: Vec<String>,
    hash: String,
    iterations: u32,
    salt: String,
    digest: String,
}

#[derive(Deserialize)]
struct JsonConfig {
    requirements: Option<JsonRequirements>,
}

#[derive(Deserialize)]
struct JsonRequirements {
    #[serde(default)]
    mandatory: Vec<String>,
}

impl Metadata {
    fn header(self, uuid: String, label: Option<String>) -> Result<Header> {
        let mandatory = self.config.requirements.map(|requirements| requirements.mandatory).unwrap_or_default();
        if let Some(requirement) = mandatory.first() {
            return Err(Error::unsupported(
                "luks.unsupported",
                "the encrypted volume has a requirement that is not met",
            )
            .found(requirement)
            .hint("a re-encryption that was begun has to be finished in the guest"));
        }
        // Segments that only serve as a backup do not count.
        let counts = |segment: &JsonSegment| !segment.flags.iter().any(|flag| flag.starts_with("backup-"));
        let mut segments = self.segments.iter().filter(|(_, segment)| counts(segment));
        let (Some((number, segment)), None) = (segments.next(), segments.next()) else {
            return Err(unsupported("several segments, or none"));
        };
        let digest = self.digests.values().find(|digest| digest.segments.contains(number));
        let digest = digest.ok_or_else(|| wrong("has no digest of its key"))?;
        if self.keyslots.len() > limits::MAX_LUKS_SLOTS || digest.keyslots.len() > limits::MAX_LUKS_SLOTS {
            return Err(Error::limit("luks.header", "an encrypted volume has too many key slots"));
        }
        let mut slots: Vec<(bool, Slot)> = Vec::new();
        for slot in digest.keyslots.iter().filter_map(|number| self.keyslots.get(number)) {
            // Slots of other kinds, and those that are only used when they are asked for, are left out.
            if slot.kind == "luks2" && slot.priority != Some(0) {
                slots.push((slot.priority != Some(2), slot.read()?));
            }
        }
        slots.sort_by_key(|(is_later, _)| *is_later);
        Ok(Header {
            version: 2,
            uuid,
            label,
            slots: slots.into_iter().map(|(_, slot)| slot).collect(),
            data: segment.read()?,
            digest: digest.read()?,
        })
    }
}

impl JsonSlot {
    fn read(&self) -> Result<Slot> {
        let (Some(af), Some(area), Some(kdf)) = (&self.af, &self.area, &self.kdf) else {
            return Err(wrong("has a key slot without its parts"));
        };
        let start = number(&area.offset)?;
        if area.key_size > MAX_KEY {
            return Err(unsupported("a key of this length").found(area.key_size));
        }
        Ok(Slot {
            kdf: kdf.read()?,
            area_key: area.key_size,
            cipher: area.encryption.clone(),
            area: start..start.saturating_add(number(&area.size)?),
            key: self.key_size,
            stripes: af.stripes,
            hash: Hash::named(&af.hash)?,
        })
    }
}

impl JsonKdf {
    fn read(&self) -> Result<Kdf> {
        let salt = base64(&self.salt)?;
        Ok(match self.kind.as_str() {
            "pbkdf2" => Kdf::Pbkdf2 { hash: Hash::named(&self.hash)?, iterations: self.iterations, salt },
            "argon2i" | "argon2id" => Kdf::Argon2 {
                is_id: self.kind == "argon2id",
                passes: self.time,
                memory: self.memory,
                lanes: self.cpus,
                salt,
            },
            kind => return Err(unsupported("a key derivation that is not known").found(kind)),
        })
    }
}

impl JsonSegment {
    fn read(&self) -> Result<Data> {
        if self.kind != "crypt" {
            return Err(unsupported("a segment that is not of this kind: crypt").found(&self.kind));
        }
        if self.integrity.is_some() {
            return Err(unsupported("integrity protection"));
        }
        if !matches!(self.sector_size, 512 | 1024 | 2048 | 4096) {
            return Err(wrong("has an impossible sector size").found(self.sector_size));
        }
        let len = if self.size == "dynamic" { None } else { Some(number(&self.size)?) };
        let (start, tweak) = (number(&self.offset)?, number(&self.iv_tweak)?);
        Ok(Data { start, len, cipher: self.encryption.clone(), sector: self.sector_size, tweak })
    }
}

impl JsonDigest {
    fn read(&self) -> Result<DigestOf> {
        let digest = base64(&self.digest)?;
        if self.kind != "pbkdf2" || digest.len() < 16 || digest.len() > MAX_KEY {
            return Err(unsupported("a digest that is not known").found(&self.kind));
        }
        let hash = Hash::named(&self.hash)?;
        Ok(DigestOf { kdf: Kdf::Pbkdf2 { hash, iterations: self.iterations, salt: base64(&self.salt)? }, digest })
    }
}

/// Numbers of 64 bits are written as text.
fn number(text: &str) -> Result<u64> {
    text.parse().map_err(|_| wrong("has a number that is none").found(text))
}

/// Salts and digests: base64 with padding.
fn base64(text: &str) -> Result<Vec<u8>> {
    let damaged = || wrong("has base64 that cannot be decoded");
    let body = text.trim_end_matches('=');
    let mut bytes = Vec::with_capacity(body.len());
    let (mut bits, mut have) = (0_u32, 0_u32);
    for c in body.bytes() {
        let value = match c {
            b'A'..=b'Z' => c.wrapping_sub(b'A'),
            b'a'..=b'z' => c.wrapping_sub(b'a').wrapping_add(26),
            b'0'..=b'9' => c.wrapping_sub(b'0').wrapping_add(52),
            b'+' => 62,
            b'/' => 63,
            _ => return Err(damaged()),
        };
        bits = (bits << 6) | u32::from(value);
        have = have.saturating_add(6);
        if have >= 8 {
            have = have.saturating_sub(8);
            bytes.push((bits >> have).to_le_bytes()[0]);
            bits &= (1_u32 << have).wrapping_sub(1);
        }
    }
    if text.len().is_multiple_of(4) { Ok(bytes) } else { Err(damaged()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_decoded() {
        for (text, bytes) in
            [("", &b""[..]), ("Zg==", b"f"), ("Zm8=", b"fo"), ("Zm9v", b"foo"), ("/+8A", &[0xff, 0xef, 0])]
        {
            assert_eq!(base64(text).unwrap(), bytes);
        }
        for text in ["Z", "Zm9", "Zm9v\n", "Z*==", "Zm=v"] {
            assert!(base64(text).is_err(), "{text:?}");
        }
    }
}
