//! From a passphrase to a key: PBKDF2 and Argon2 within bounds, and the anti-forensic splitter.

use argon2::{Algorithm, Argon2, Params, Version};
use pbkdf2::pbkdf2_hmac;
use ripemd::Ripemd160;
use sha1::Sha1;
use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};
use zeroize::Zeroizing;

use crate::disk::bytes::long;
use crate::error::{Error, Result};
use crate::limits;

/// Longest key that any cipher here takes, of two halves of 256 bits.
pub(super) const MAX_KEY: usize = 64;
/// The one number of stripes that is ever written.
pub(super) const MAX_STRIPES: u32 = 4000;

/// A hash that a header may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hash {
    Ripemd160,
    Sha1,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    pub(super) fn named(name: &str) -> Result<Self> {
        Ok(match name.to_ascii_lowercase().as_str() {
            "ripemd160" => Self::Ripemd160,
            "sha1" => Self::Sha1,
            "sha224" => Self::Sha224,
            "sha256" => Self::Sha256,
            "sha384" => Self::Sha384,
            "sha512" => Self::Sha512,
            _ => {
                return Err(Error::unsupported(
                    "luks.unsupported",
                    "the encrypted volume uses a hash that is not known",
                )
                .found(name));
            }
        })
    }

    fn digest(self, parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
        fn of<D: Digest>(parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
            let mut hasher = D::new();
            parts.iter().for_each(|part| hasher.update(part));
            Zeroizing::new(hasher.finalize().to_vec())
        }
        match self {
            Self::Ripemd160 => of::<Ripemd160>(parts),
            Self::Sha1 => of::<Sha1>(parts),
            Self::Sha224 => of::<Sha224>(parts),
            Self::Sha256 => of::<Sha256>(parts),
            Self::Sha384 => of::<Sha384>(parts),
            Self::Sha512 => of::<Sha512>(parts),
        }
    }
}

/// How a key is derived.
#[derive(Clone, Debug)]
pub(super) enum Kdf {
    Argon2 { is_id: bool, passes: u32, memory: u32, lanes: u32, salt: Vec<u8> },
    Pbkdf2 { hash: Hash, iterations: u32, salt: Vec<u8> },
}

impl Kdf {
    /// Iterations, or KiB in all passes.
    pub(super) fn work(&self) -> u64 {
        match self {
            Self::Argon2 { passes, memory, .. } => u64::from(*memory).saturating_mul(u64::from(*passes)),
            Self::Pbkdf2 { iterations, .. } => u64::from(*iterations),
        }
    }

    /// Whether a header asks for no more memory or time than is given.
    fn check_cost(&self) -> Result<()> {
        match self {
            Self::Pbkdf2 { iterations, .. } => {
                if *iterations == 0 || *iterations > limits::MAX_LUKS_ITERATIONS {
                    return Err(too_costly("iterations", u64::from(limits::MAX_LUKS_ITERATIONS)).found(iterations));
                }
            }
            Self::Argon2 { memory, lanes, .. } => {
                if *memory > limits::MAX_LUKS_MEMORY {
                    return Err(too_costly("KiB of memory", u64::from(limits::MAX_LUKS_MEMORY)).found(memory));
                }
                let work = self.work();
                if work > limits::MAX_LUKS_WORK || *lanes > 64 {
                    return Err(too_costly("KiB in all passes", limits::MAX_LUKS_WORK).found(work));
                }
            }
        }
        Ok(())
    }

    /// The key of `len` bytes.
    ///
    /// # Errors
    /// `luks.cost` when a header asks for more memory or time than is given.
    pub(super) fn derive(&self, secret: &[u8], len: usize) -> Result<Zeroizing<Vec<u8>>> {
        self.check_cost()?;
        let mut key = Zeroizing::new(vec![0; len.min(MAX_KEY)]);
        match self {
            Self::Pbkdf2 { hash, iterations, salt } => {
                let (rounds, out) = (*iterations, key.as_mut_slice());
                match hash {
                    Hash::Ripemd160 => pbkdf2_hmac::<Ripemd160>(secret, salt, rounds, out),
                    Hash::Sha1 => pbkdf2_hmac::<Sha1>(secret, salt, rounds, out),
                    Hash::Sha224 => pbkdf2_hmac::<Sha224>(secret, salt, rounds, out),
                    Hash::Sha256 => pbkdf2_hmac::<Sha256>(secret, salt, rounds, out),
                    Hash::Sha384 => pbkdf2_hmac::<Sha384>(secret, salt, rounds, out),
                    Hash::Sha512 => pbkdf2_hmac::<Sha512>(secret, salt, rounds, out),
                }
            }
            Self::Argon2 { is_id, passes, memory, lanes, salt } => {
                let wrong = |_| Error::corrupt("luks.header", "a key slot has impossible parameters of Argon2");
                let params = Params::new(*memory, *passes, *lanes, Some(key.len())).map_err(wrong)?;
                let algorithm = if *is_id { Algorithm::Argon2id } else { Algorithm::Argon2i };
                let argon = Argon2::new(algorithm, Version::V0x13, params);
                argon.hash_password_into(secret, salt, &mut key).map_err(wrong)?;
            }
        }
        Ok(key)
    }
}

fn too_costly(what: &str, most: u64) -> Error {
    Error::limit("luks.cost", "a key slot asks for more work than is done for one")
        .expected(format!("at most {most} {what}"))
}

/// Puts a key together that was split into `stripes` pieces, each of `len` bytes: each is needed, mixed by `hash`.
pub(super) fn merge(split: &[u8], len: usize, stripes: u32, hash: Hash) -> Zeroizing<Vec<u8>> {
    let mut key = Zeroizing::new(vec![0_u8; len]);
    let last = usize::try_from(stripes).unwrap_or(0).saturating_sub(1);
    for (index, stripe) in split.chunks_exact(len.max(1)).take(last.saturating_add(1)).enumerate() {
        key.iter_mut().zip(stripe).for_each(|(byte, other)| *byte ^= other);
        if index < last {
            diffuse(&mut key, hash);
        }
    }
    key
}

/// Every part of the key, as long as a digest, becomes the digest of its number and itself.
fn diffuse(key: &mut [u8], hash: Hash) {
    let digest_len = hash.digest(&[]).len();
    for (number, part) in (0_u32..).zip(key.chunks_mut(digest_len)) {
        let digest = hash.digest(&[&number.to_be_bytes(), part]);
        part.iter_mut().zip(digest.iter()).for_each(|(byte, other)| *byte = *other);
    }
}

/// Whether two digests are the same, in a time that does not tell where they differ.
pub(super) fn is_same(a: &[u8], b: &[u8]) -> bool {
    long(a.len()) == long(b.len()) && a.iter().zip(b).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "limits are far from the ends of their types")]
mod tests {
    use super::*;

    #[test]
    fn costs_are_bounded() {
        let pbkdf2 = |iterations| Kdf::Pbkdf2 { hash: Hash::Sha256, iterations, salt: vec![0; 32] };
        let argon2 = |memory, passes, lanes| Kdf::Argon2 { is_id: true, passes, memory, lanes, salt: vec![0; 32] };
        let code = |kdf: Kdf| kdf.derive(b"x", 64).err().map_or("", |error| error.code());
        let cost = |kdf: Kdf| kdf.check_cost().is_ok();
        let (iterations, memory) = (limits::MAX_LUKS_ITERATIONS, limits::MAX_LUKS_MEMORY);
        assert_eq!([iterations - 1, iterations, iterations + 1].map(|most| cost(pbkdf2(most))), [true, true, false]);
        assert_eq!([memory - 1, memory, memory + 1].map(|most| cost(argon2(most, 1, 4))), [true, true, false]);
        let passes = u32::try_from(limits::MAX_LUKS_WORK / 1024).unwrap();
        assert_eq!([passes - 1, passes, passes + 1].map(|most| cost(argon2(1024, most, 4))), [true, true, false]);
        assert_eq!(code(pbkdf2(1000)), "");
        assert_eq!(code(pbkdf2(0)), "luks.cost");
        assert_eq!(code(pbkdf2(limits::MAX_LUKS_ITERATIONS + 1)), "luks.cost");
        assert_eq!(code(argon2(64, 1, 4)), "");
        // 4 GiB, as the largest that cryptsetup makes.
        assert_eq!(code(argon2(4 << 20, 1, 4)), "luks.cost");
        assert_eq!(code(argon2(limits::MAX_LUKS_MEMORY + 1, 1, 4)), "luks.cost");
        assert_eq!(code(argon2(64, u32::MAX, 4)), "luks.cost");
        assert_eq!(code(argon2(64, 1, 65)), "luks.cost");
        assert_eq!(code(argon2(0, 1, 1)), "luks.header");
        assert_eq!(code(argon2(64, 0, 1)), "luks.header");
        assert_eq!(code(argon2(64, 1, 0)), "luks.header");
    }

    #[test]
    fn hashes_are_known_by_name() {
        for name in ["ripemd160", "sha1", "sha224", "SHA256", "sha384", "sha512"] {
            assert!(Hash::named(name).is_ok(), "{name}");
        }
        assert_eq!(Hash::named("whirlpool").unwrap_err().code(), "luks.unsupported");
    }
}
