//! How a qcow2 image is written.

use crate::convert::plan::CHUNK;
use crate::error::{Error, Kind, Result};
use crate::limits::MAX_QCOW2_BACKING_NAME;

/// How a qcow2 image is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Qcow2Options {
    /// Bytes of a cluster: a power of two from 4 KiB to 2 MiB, and at least 16 KiB for extended L2 entries.
    pub cluster_size: u64,
    /// How clusters are compressed, if they are.
    pub compression: Option<Compression>,
    /// Whether L2 entries tell the state of each 32nd of a cluster.
    pub extended_l2: bool,
    /// Whether clusters that have no data get a place too.
    pub preallocation: Preallocation,
    /// The backing file that the image is an increment of.
    pub backing: Option<BackingName>,
}

/// How clusters are compressed. Those that do not become smaller are left as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Deflate, which every reader knows; levels 1 to 9.
    Zlib(u8),
    /// Zstandard, which is faster on both sides; QEMU reads it since version 5.1. Levels 1 to 19.
    Zstd(u8),
}

/// What is done beforehand for what will be written later, by the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preallocation {
    /// Nothing: the file grows.
    #[default]
    Off,
    /// Every cluster has its place; those without data are holes of the file.
    Metadata,
    /// As well, the file system keeps room for all of them.
    Falloc,
    /// As well, zeros are written to those that have no data.
    Full,
}

/// A backing file as the image names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackingName {
    /// Its name, which readers take from the image's own directory if it is relative.
    pub file: String,
    /// Its format, without which readers would have to guess.
    pub format: String,
}

impl Default for Qcow2Options {
    fn default() -> Self {
        Self {
            cluster_size: 64 << 10,
            compression: None,
            extended_l2: false,
            preallocation: Preallocation::Off,
            backing: None,
        }
    }
}

impl Compression {
    /// By what `--compress` takes: `zlib`, `zstd`, `zlib:9`.
    ///
    /// # Errors
    /// `convert.compress` for anything else.
    pub fn parse(text: &str) -> Result<Self> {
        let (name, level) = text.split_once(':').map_or((text, None), |(name, level)| (name, Some(level)));
        let level = |default: u8, most: u8| {
            let level = level.map_or(Some(default), |level| level.parse().ok());
            level.filter(|level| (1..=most).contains(level))
        };
        let parsed = match name {
            "zlib" => level(6, 9).map(Self::Zlib),
            "zstd" => level(3, 19).map(Self::Zstd),
            _ => None,
        };
        parsed.ok_or_else(|| {
            Error::new(Kind::Usage, "convert.compress", "no such compression")
                .found(text)
                .expected("zlib or zstd, with a level if need be: zlib:1 to zlib:9, zstd:1 to zstd:19")
        })
    }
}

impl Qcow2Options {
    /// Bytes of an L2 entry.
    pub(super) const fn entry(&self) -> u64 {
        if self.extended_l2 { 16 } else { 8 }
    }

    /// Bytes of the unit that can be zeros while its neighbours are not.
    pub(super) const fn unit(&self) -> u64 {
        if self.extended_l2 { self.cluster_size / 32 } else { self.cluster_size }
    }

    pub(super) fn validate(&self) -> Result<()> {
        let least = if self.extended_l2 { 16 << 10 } else { 4 << 10 };
        if !(self.cluster_size.is_power_of_two() && (least..=CHUNK).contains(&self.cluster_size)) {
            return Err(Error::new(Kind::Usage, "convert.cluster", "the cluster size is not possible")
                .expected(format!("a power of two from {} KiB to 2 MiB", least >> 10))
                .found(self.cluster_size));
        }
        if self.preallocation != Preallocation::Off && (self.compression.is_some() || self.backing.is_some()) {
            return Err(Error::new(
                Kind::Usage,
                "convert.options",
                "preallocation goes neither with compression nor with a backing file",
            ));
        }
        match &self.backing {
            Some(backing) if backing.file.is_empty() || backing.file.len() > MAX_QCOW2_BACKING_NAME as usize => {
                Err(Error::new(Kind::Usage, "convert.backing", "the backing file's name cannot be kept")
                    .expected(format!("1 to {MAX_QCOW2_BACKING_NAME} bytes"))
                    .found(backing.file.len()))
            }
            _ => Ok(()),
        }
    }
}
