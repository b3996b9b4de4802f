//! Sound images to spoil.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock};

use crate::support::{Lab, tools};

/// The bytes of an image file.
#[derive(Clone)]
pub(crate) struct Image(Vec<u8>);

impl Image {
    /// What qemu-img makes of four mebibytes, half of them data.
    pub(super) fn made(format: &'static str, options: &'static str) -> Self {
        static MADE: OnceLock<Mutex<HashMap<(&str, &str), Image>>> = OnceLock::new();
        let made = MADE.get_or_init(Mutex::default);
        let mut made = made.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        made.entry((format, options)).or_insert_with(|| Self::make(format, options)).clone()
    }

    fn make(format: &str, options: &str) -> Self {
        let lab = Lab::new();
        let content: Vec<u8> =
            (0_u32..1 << 19).flat_map(|word| (word.wrapping_mul(2_654_435_761) >> 7).to_le_bytes()).collect();
        let raw = lab.file("raw", [content, vec![0; 2 << 20]].concat());
        let image = lab.path("image");
        let mut args: Vec<String> = ["convert", "-f", "raw", "-O", format].map(Into::into).into();
        match options {
            "" => {}
            "-c" => args.push("-c".into()),
            options => args.extend(["-o".into(), options.into()]),
        }
        args.extend([raw.display().to_string(), image.display().to_string()]);
        tools::ok("qemu-img", args);
        Self(std::fs::read(image).expect("the image"))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn of(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// Overwrites bytes.
    pub(super) fn put(mut self, at: usize, bytes: &[u8]) -> Self {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    pub(super) fn be32(self, at: usize, value: u32) -> Self {
        self.put(at, &value.to_be_bytes())
    }

    pub(super) fn be64(self, at: usize, value: u64) -> Self {
        self.put(at, &value.to_be_bytes())
    }

    pub(super) fn le32(self, at: usize, value: u32) -> Self {
        self.put(at, &value.to_le_bytes())
    }

    pub(super) fn le64(self, at: usize, value: u64) -> Self {
        self.put(at, &value.to_le_bytes())
    }

    /// Cuts the end off.
    pub(super) fn cut(mut self, len: usize) -> Self {
        self.0.truncate(len);
        self
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn get_be64(&self, at: usize) -> u64 {
        u64::from_be_bytes(self.0[at..at + 8].try_into().expect("eight bytes"))
    }

    pub(super) fn get_le64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.0[at..at + 8].try_into().expect("eight bytes"))
    }

    pub(super) fn get_le32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.0[at..at + 4].try_into().expect("four bytes"))
    }
}
