//! Keys, as callers see them.

use super::cell::{self, Node, ValueCell};
use super::{Hive, Value, base};
use crate::error::Result;
use crate::fs::Timestamp;

/// A key of a hive.
#[derive(Clone, Debug)]
pub struct Key<'a> {
    hive: &'a Hive,
    offset: u32,
    node: Node,
}

impl<'a> Key<'a> {
    pub(super) fn read(hive: &'a Hive, offset: u32) -> Result<Self> {
        Ok(Self { hive, offset, node: Node::read(hive, offset)? })
    }

    pub(super) fn offset(&self) -> u32 {
        self.offset
    }

    pub(super) fn subkey_offsets(&self) -> Result<Vec<u32>> {
        let entries = cell::subkeys(self.hive, self.node.subkey_list, self.node.subkeys)?;
        Ok(entries.into_iter().map(|entry| entry.offset).collect())
    }

    /// Its name, as it was given; halves of surrogate pairs that stand alone are replaced.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.node.name
    }

    /// When it, its values or its list of subkeys were changed last.
    #[must_use]
    pub fn written(&self) -> Timestamp {
        base::time(self.node.written)
    }

    /// Its class, which most keys do not have.
    pub fn class(&self) -> Result<Option<String>> {
        cell::class(self.hive, &self.node)
    }

    /// Whether it stands for another key, which its value `SymbolicLinkValue` names.
    #[must_use]
    pub fn is_link(&self) -> bool {
        self.node.flags & 0x10 != 0
    }

    /// Its subkeys in the order of their list: by name, in upper case.
    pub fn subkeys(&self) -> Result<impl Iterator<Item = Result<Key<'a>>> + use<'a>> {
        let hive = self.hive;
        Ok(self.subkey_offsets()?.into_iter().map(move |offset| Key::read(hive, offset)))
    }

    /// The subkey `name`, whatever its case.
    pub fn subkey(&self, name: &str) -> Result<Option<Key<'a>>> {
        let entries = cell::subkeys(self.hive, self.node.subkey_list, self.node.subkeys)?;
        let wanted = cell::hash(name);
        let is_hinted = |entry: &&cell::Entry| wanted.is_some() && entry.hash == wanted;
        // First those whose hash is right; then, in case that the hashes are not, the others.
        let others = entries.iter().filter(|entry| !is_hinted(entry));
        for entry in entries.iter().filter(is_hinted).chain(others) {
            let key = Key::read(self.hive, entry.offset)?;
            if is_same(key.name(), name) {
                return Ok(Some(key));
            }
        }
        Ok(None)
    }

    /// Its values, in the order in which they were made.
    pub fn values(&self) -> Result<impl Iterator<Item = Result<Value<'a>>> + use<'a>> {
        let hive = self.hive;
        let offsets = cell::values(hive, self.node.value_list, self.node.values)?;
        Ok(offsets.into_iter().map(move |offset| Ok(Value::new(hive, ValueCell::read(hive, offset)?))))
    }

    /// The value `name`, whatever its case; the default value for an empty name.
    pub fn value(&self, name: &str) -> Result<Option<Value<'a>>> {
        for value in self.values()? {
            let value = value?;
            if is_same(value.name(), name) {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    /// The text of the value `name`: `None` when there is no such value, or it is no text.
    pub fn text(&self, name: &str) -> Result<Option<String>> {
        self.value(name)?.map_or(Ok(None), |value| Ok(value.data()?.text()))
    }

    /// The number of the value `name`: `None` when there is no such value, or it is no number.
    pub fn number(&self, name: &str) -> Result<Option<u64>> {
        self.value(name)?.map_or(Ok(None), |value| Ok(value.data()?.number()))
    }

    /// The texts of the value `name`: none when there is no such value, one for a value of a single text.
    pub fn texts(&self, name: &str) -> Result<Vec<String>> {
        self.value(name)?.map_or(Ok(Vec::new()), |value| Ok(value.data()?.texts()))
    }

    /// The bytes of the value `name`, of whatever type.
    pub fn bytes(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.value(name)?.map_or(Ok(None), |value| Ok(Some(value.data()?.bytes)))
    }
}

/// Whether two names differ in case at most.
fn is_same(a: &str, b: &str) -> bool {
    if a.is_ascii() || b.is_ascii() {
        return a.eq_ignore_ascii_case(b);
    }
    a.chars().flat_map(char::to_uppercase).eq(b.chars().flat_map(char::to_uppercase))
}
