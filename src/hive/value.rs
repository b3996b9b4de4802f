//! Values and what their data mean.

use super::Hive;
use super::cell::ValueCell;
use crate::disk::bytes::{le16, le32, le64};
use crate::error::Result;

/// A value of a key.
#[derive(Clone, Debug)]
pub struct Value<'a> {
    hive: &'a Hive,
    cell: ValueCell,
}

impl<'a> Value<'a> {
    pub(super) fn new(hive: &'a Hive, cell: ValueCell) -> Self {
        Self { hive, cell }
    }

    /// Its name; empty for the default value.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.cell.name
    }

    /// Its type, as the registry numbers them ([`type_name`]).
    #[must_use]
    pub fn kind(&self) -> u32 {
        self.cell.kind
    }

    /// Bytes of its data.
    #[must_use]
    pub fn size(&self) -> usize {
        self.cell.size()
    }

    /// Its data.
    pub fn data(&self) -> Result<Data> {
        Ok(Data { kind: self.cell.kind, bytes: self.cell.data(self.hive)? })
    }
}

/// A value's data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Data {
    /// The type.
    pub kind: u32,
    /// As they are stored.
    pub bytes: Vec<u8>,
}

impl Data {
    /// The text of a `REG_SZ`, `REG_EXPAND_SZ` or `REG_LINK`, up to the first NUL.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        matches!(self.kind, 1 | 2 | 6).then(|| text(&self.bytes))
    }

    /// The number of a `REG_DWORD`, `REG_DWORD_BIG_ENDIAN` or `REG_QWORD`.
    #[must_use]
    pub fn number(&self) -> Option<u64> {
        match (self.kind, self.bytes.len()) {
            (4, 4) => Some(u64::from(le32(&self.bytes, 0))),
            (5, 4) => Some(u64::from(le32(&self.bytes, 0).swap_bytes())),
            (11, 8) => Some(le64(&self.bytes, 0)),
            _ => None,
        }
    }

    /// The texts of a `REG_MULTI_SZ`, up to the first that is empty; one text for those types that have one.
    #[must_use]
    pub fn texts(&self) -> Vec<String> {
        if self.kind != 7 {
            return self.text().filter(|text| !text.is_empty()).into_iter().collect();
        }
        let units: Vec<u16> = units(&self.bytes).collect();
        let texts = units.split(|unit| *unit == 0).take_while(|text| !text.is_empty());
        texts.map(String::from_utf16_lossy).collect()
    }
}

/// What a type is called: `REG_SZ`; `None` for one without a name.
#[must_use]
pub const fn type_name(kind: u32) -> Option<&'static str> {
    Some(match kind {
        0 => "REG_NONE",
        1 => "REG_SZ",
        2 => "REG_EXPAND_SZ",
        3 => "REG_BINARY",
        4 => "REG_DWORD",
        5 => "REG_DWORD_BIG_ENDIAN",
        6 => "REG_LINK",
        7 => "REG_MULTI_SZ",
        8 => "REG_RESOURCE_LIST",
        9 => "REG_FULL_RESOURCE_DESCRIPTOR",
        10 => "REG_RESOURCE_REQUIREMENTS_LIST",
        11 => "REG_QWORD",
        _ => return None,
    })
}

/// UTF-16 up to the first NUL.
pub(super) fn text(bytes: &[u8]) -> String {
    let units: Vec<u16> = units(bytes).take_while(|unit| *unit != 0).collect();
    String::from_utf16_lossy(&units)
}

/// UTF-16 with all its NULs.
pub(super) fn lossy(bytes: &[u8]) -> String {
    String::from_utf16_lossy(&units(bytes).collect::<Vec<_>>())
}

fn units(bytes: &[u8]) -> impl Iterator<Item = u16> {
    bytes.chunks_exact(2).map(|unit| le16(unit, 0))
}
