//! AES in the modes of dm-crypt that LUKS uses: XTS and CBC, with the initial vectors `plain`, `plain64` and `essiv`.

use aes::cipher::array::Array;
use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use aes::{Aes128, Aes192, Aes256, Block};
use sha2::{Digest, Sha256};

use crate::disk::bytes::long;
use crate::error::{Error, Result};

const BLOCK: usize = 16;

/// A cipher with its key. Its state is wiped when it is dropped, by the `aes` crate.
pub(super) struct Cipher {
    mode: Mode,
    /// Bytes that are encrypted with one initial vector.
    sector: usize,
}

enum Mode {
    Cbc { data: Aes, iv: Iv },
    Xts { data: Aes, tweak: Aes, is_64: bool },
}

enum Iv {
    /// The sector's number, encrypted with a hash of the key.
    Essiv(Aes),
    /// The low 32 bits of the sector's number.
    Plain,
    /// The sector's number.
    Plain64,
}

enum Aes {
    Aes128(Box<Aes128>),
    Aes192(Box<Aes192>),
    Aes256(Box<Aes256>),
}

impl Aes {
    fn new(key: &[u8]) -> Result<Self> {
        let made = match key.len() {
            16 => Aes128::new_from_slice(key).map(|aes| Self::Aes128(Box::new(aes))),
            24 => Aes192::new_from_slice(key).map(|aes| Self::Aes192(Box::new(aes))),
            _ => Aes256::new_from_slice(key).map(|aes| Self::Aes256(Box::new(aes))),
        };
        made.map_err(|_| unsupported("a key of this length").found(key.len()))
    }

    fn encrypt(&self, blocks: &mut [Block]) {
        match self {
            Self::Aes128(aes) => aes.encrypt_blocks(blocks),
            Self::Aes192(aes) => aes.encrypt_blocks(blocks),
            Self::Aes256(aes) => aes.encrypt_blocks(blocks),
        }
    }

    fn decrypt(&self, blocks: &mut [Block]) {
        match self {
            Self::Aes128(aes) => aes.decrypt_blocks(blocks),
            Self::Aes192(aes) => aes.decrypt_blocks(blocks),
            Self::Aes256(aes) => aes.decrypt_blocks(blocks),
        }
    }
}

impl Cipher {
    /// The cipher that a header calls `name`, such as `aes-xts-plain64`, for sectors of `sector` bytes.
    ///
    /// # Errors
    /// `luks.unsupported` for any that is not known.
    pub(super) fn new(name: &str, key: &[u8], sector: usize) -> Result<Self> {
        let (algorithm, rest) = name.split_once('-').unwrap_or((name, ""));
        let (mode, iv) = rest.split_once('-').unwrap_or((rest, ""));
        let unknown = || unsupported("a cipher that is not known").found(name);
        if algorithm != "aes" {
            return Err(unknown());
        }
        let mode = match (mode, iv) {
            ("xts", "plain" | "plain64") => {
                let (data, tweak) = key.split_at_checked(key.len() / 2).unwrap_or_default();
                if data.len() != tweak.len() {
                    return Err(unknown());
                }
                Mode::Xts { data: Aes::new(data)?, tweak: Aes::new(tweak)?, is_64: iv == "plain64" }
            }
            ("cbc", "plain") => Mode::Cbc { data: Aes::new(key)?, iv: Iv::Plain },
            ("cbc", "plain64") => Mode::Cbc { data: Aes::new(key)?, iv: Iv::Plain64 },
            ("cbc", "essiv:sha256") => {
                Mode::Cbc { data: Aes::new(key)?, iv: Iv::Essiv(Aes::new(&Sha256::digest(key))?) }
            }
            _ => return Err(unknown()),
        };
        Ok(Self { mode, sector })
    }

    /// Bytes that are encrypted together.
    pub(super) fn sector(&self) -> usize {
        self.sector
    }

    /// Encrypts whole sectors, the first of which is number `first`, counted in 512 bytes.
    pub(super) fn encrypt(&self, bytes: &mut [u8], first: u64) {
        self.each(bytes, first, &mut |sector, number| match &self.mode {
            Mode::Cbc { data, iv } => {
                let mut before = vector(iv, number);
                for block in sector {
                    xor(block, &before);
                    data.encrypt(std::slice::from_mut(block));
                    before = *block;
                }
            }
            Mode::Xts { data, tweak, is_64 } => xts(tweak, number, *is_64, sector, |blocks| data.encrypt(blocks)),
        });
    }

    /// Undoes [`Cipher::encrypt`].
    pub(super) fn decrypt(&self, bytes: &mut [u8], first: u64) {
        self.each(bytes, first, &mut |sector, number| match &self.mode {
            Mode::Cbc { data, iv } => {
                let encrypted = sector.to_vec();
                data.decrypt(sector);
                let before = std::iter::once(vector(iv, number)).chain(encrypted);
                sector.iter_mut().zip(before).for_each(|(block, before)| xor(block, &before));
            }
            Mode::Xts { data, tweak, is_64 } => xts(tweak, number, *is_64, sector, |blocks| data.decrypt(blocks)),
        });
    }

    fn each(&self, bytes: &mut [u8], first: u64, work: &mut dyn FnMut(&mut [Block], u64)) {
        let mut number = first;
        for sector in bytes.chunks_mut(self.sector) {
            let (blocks, _) = Array::slice_as_chunks_mut(sector);
            work(blocks, number);
            number = number.wrapping_add(long(self.sector / 512));
        }
    }
}

fn number_block(number: u64) -> Block {
    let mut block = Block::default();
    block.iter_mut().zip(number.to_le_bytes()).for_each(|(to, from)| *to = from);
    block
}

fn vector(iv: &Iv, number: u64) -> Block {
    match iv {
        Iv::Essiv(aes) => {
            let mut block = number_block(number);
            aes.encrypt(std::slice::from_mut(&mut block));
            block
        }
        Iv::Plain => number_block(number & 0xffff_ffff),
        Iv::Plain64 => number_block(number),
    }
}

fn xor(block: &mut Block, other: &Block) {
    block.iter_mut().zip(other).for_each(|(byte, other)| *byte ^= other);
}

/// IEEE 1619: every block is masked before and after with the encrypted sector number times a power of two.
fn xts(tweak: &Aes, number: u64, is_64: bool, sector: &mut [Block], work: impl FnOnce(&mut [Block])) {
    let mut first = number_block(if is_64 { number } else { number & 0xffff_ffff });
    tweak.encrypt(std::slice::from_mut(&mut first));
    let mut mask = u128::from_le_bytes(first.into());
    let mut masks = Vec::with_capacity(sector.len());
    for block in sector.iter_mut() {
        masks.push(mask);
        mix(block, mask);
        let carry = mask >> 127;
        mask = (mask << 1) ^ (carry.wrapping_mul(0x87));
    }
    work(sector);
    sector.iter_mut().zip(masks).for_each(|(block, mask)| mix(block, mask));
}

fn mix(block: &mut Block, mask: u128) {
    let mixed = u128::from_le_bytes((*block).into()) ^ mask;
    *block = mixed.to_le_bytes().into();
}

fn unsupported(what: &str) -> Error {
    Error::unsupported("luks.unsupported", format!("the encrypted volume uses {what}"))
}

const _: () = assert!(BLOCK == size_of::<Block>());

#[cfg(test)]
mod tests {
    use super::*;

    /// IEEE 1619-2007, appendix B, vector 4 (its first blocks): XTS-AES-128 of the bytes 0 to 255 and again.
    #[test]
    fn xts_agrees_with_the_standard() {
        let key = [
            0x27, 0x18, 0x28, 0x18, 0x28, 0x45, 0x90, 0x45, 0x23, 0x53, 0x60, 0x28, 0x74, 0x71, 0x35, 0x26, 0x31, 0x41,
            0x59, 0x26, 0x53, 0x58, 0x97, 0x93, 0x23, 0x84, 0x62, 0x64, 0x33, 0x83, 0x27, 0x95,
        ];
        let cipher = Cipher::new("aes-xts-plain64", &key, 512).unwrap();
        let plain: Vec<u8> = (0..512).map(|i: u32| i.to_le_bytes()[0]).collect();
        let mut bytes = plain.clone();
        cipher.encrypt(&mut bytes, 0);
        assert_eq!(&bytes[..8], [0x27, 0xa7, 0x47, 0x9b, 0xef, 0xa1, 0xd4, 0x76]);
        cipher.decrypt(&mut bytes, 0);
        assert_eq!(bytes, plain);
    }

    #[test]
    fn every_mode_undoes_itself_sector_by_sector() {
        for (name, keys) in [
            ("aes-xts-plain64", &[32, 64][..]),
            ("aes-xts-plain", &[32, 64]),
            ("aes-cbc-plain", &[16, 24, 32]),
            ("aes-cbc-plain64", &[16, 24, 32]),
            ("aes-cbc-essiv:sha256", &[16, 24, 32]),
        ] {
            for (len, sector) in keys.iter().flat_map(|len| [(*len, 512), (*len, 4096)]) {
                let key: Vec<u8> = (0..len).map(|i: u8| i.wrapping_mul(37)).collect();
                let cipher = Cipher::new(name, &key, sector).unwrap();
                let plain: Vec<u8> = (0_u32..8192).map(|i| i.to_be_bytes()[2]).collect();
                let (mut whole, mut parts) = (plain.clone(), plain.clone());
                cipher.encrypt(&mut whole, 77);
                for (index, part) in parts.chunks_mut(4096).enumerate() {
                    cipher.encrypt(part, 77 + 8 * long(index));
                }
                assert_eq!(whole, parts, "{name}");
                assert_ne!(whole, plain);
                cipher.decrypt(&mut whole, 77);
                assert_eq!(whole, plain, "{name}");
            }
        }
    }

    #[test]
    fn others_are_refused_by_name() {
        for (name, len) in [
            ("serpent-xts-plain64", 64),
            ("aes-xts-plain64", 33),
            ("aes-xts-plain64", 16),
            ("aes-xts-benbi", 64),
            ("aes-ecb", 16),
            ("aes-cbc-essiv:sha1", 32),
            ("aes-cbc-plain", 31),
            ("aes", 16),
            ("xchacha12,aes-adiantum-plain64", 32),
            ("", 0),
        ] {
            let error = Cipher::new(name, &vec![0; len], 512).err().unwrap();
            assert_eq!(error.code(), "luks.unsupported", "{name}");
        }
    }
}
