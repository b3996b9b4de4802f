//! One journal file: its objects, and the lists of entries that it keeps for each field.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::cell::RefCell;

use super::hash::{jenkins, siphash24};
use super::layout::{
    Data, ENTRY_FIXED, Field, HEADER_READ, Header, INCOMPATIBLE_COMPACT, INCOMPATIBLE_KEYED_HASH, Id, Kind,
    OBJECT_HEADER, Object, State, id_at, u32_at, u64_at,
};
use super::list::List;
use super::payload;
use crate::error::{Error, Result, escape_bytes};
use crate::fs::Tree;
use crate::fs::tree::{FileId, Found};
use crate::limits;

/// A journal file that is open for reading.
#[derive(Debug)]
pub struct JournalFile<'a> {
    pub(super) path: Vec<u8>,
    pub(super) header: Header,
    /// Bytes that the file takes on its file system.
    pub(super) allocated: u64,
    source: Source<'a>,
}

/// `EntryObject` without its items: when and where it was logged, and which of a series it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The file, in the order of [`super::Journal::files`].
    pub(super) file: usize,
    pub(super) offset: u64,
    pub(super) size: u64,
    /// The series that `seqnum` counts in.
    pub seqnum_id: Id,
    /// Its number, counted over the files of one series.
    pub seqnum: u64,
    /// Microseconds since the epoch.
    pub realtime: u64,
    /// Microseconds since the machine was started.
    pub monotonic: u64,
    /// The start of the machine that it belongs to.
    pub boot_id: Id,
    /// The hashes of all its fields together.
    pub xor_hash: u64,
}

impl<'a> JournalFile<'a> {
    /// Opens the regular file `found` of `tree`.
    pub(super) fn open(tree: &'a Tree, found: &Found) -> Result<Self> {
        let source = Source { tree, id: found.id(), blocks: RefCell::default() };
        let size = found.stat.size;
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(HEADER_READ).min(HEADER_READ)];
        source.read(&mut bytes, 0)?;
        let header = Header::parse(&bytes, size).map_err(|error| error.at(escape_bytes(&found.path)))?;
        Ok(Self { path: found.path.clone(), header, allocated: found.stat.allocated, source })
    }

    /// Where it is in the guest.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// How it was left.
    #[must_use]
    pub fn state(&self) -> State {
        self.header.state
    }

    /// The machine that wrote it.
    #[must_use]
    pub fn machine_id(&self) -> Id {
        self.header.machine_id
    }

    pub(super) fn is_compact(&self) -> bool {
        self.header.has(INCOMPATIBLE_COMPACT)
    }

    pub(super) fn corrupt(&self, what: &str, offset: u64) -> Error {
        Error::corrupt("journal.corrupt", what).at(escape_bytes(&self.path)).offset(offset)
    }

    /// The object at `offset`, whatever it is.
    pub(super) fn object_at(&self, offset: u64) -> Result<Object> {
        let mut bytes = [0; OBJECT_HEADER];
        self.header_of(offset, &mut bytes)
    }

    /// Reads the start of an object of this kind into `bytes`, which have at most the length of the smallest one.
    fn object(&self, offset: u64, kind: Kind, bytes: &mut [u8]) -> Result<Object> {
        let object = self.header_of(offset, bytes)?;
        if object.kind == kind {
            Ok(object)
        } else {
            Err(self.corrupt("a journal's object is of another kind", offset))
        }
    }

    fn header_of(&self, offset: u64, bytes: &mut [u8]) -> Result<Object> {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let inside =
            offset >= self.header.header_size && offset.checked_add(length).is_some_and(|end| end <= self.header.end());
        if !offset.is_multiple_of(8) || !inside {
            return Err(self.corrupt("a journal refers to what is no object", offset));
        }
        self.source.read(bytes, offset)?;
        let kind = bytes.first().copied().and_then(Kind::of);
        let kind = kind.ok_or_else(|| self.corrupt("an object of a journal is of no known kind", offset))?;
        let size = u64_at(bytes, 8)?;
        let ends = offset.checked_add(size).is_some_and(|end| end <= self.header.end());
        if size < kind.smallest(self.is_compact()) || !ends {
            return Err(self.corrupt("an object of a journal has an impossible size", offset).found(size));
        }
        Ok(Object { offset, kind, flags: bytes.get(1).copied().unwrap_or(0), size })
    }

    /// The entry at `offset`. `file` is this file's number.
    pub(super) fn entry(&self, file: usize, offset: u64) -> Result<Entry> {
        let mut bytes = [0; ENTRY_FIXED];
        let object = self.object(offset, Kind::Entry, &mut bytes)?;
        Ok(Entry {
            file,
            offset,
            size: object.size,
            seqnum_id: self.header.seqnum_id,
            seqnum: u64_at(&bytes, 16)?,
            realtime: u64_at(&bytes, 24)?,
            monotonic: u64_at(&bytes, 32)?,
            boot_id: id_at(&bytes, 40)?,
            xor_hash: u64_at(&bytes, 56)?,
        })
    }

    /// Where the fields of an entry are, in its order.
    pub(super) fn items(&self, entry: &Entry) -> Result<Vec<u64>> {
        let width = self.entry_item();
        let bytes = usize::try_from(entry.size.saturating_sub(64)).unwrap_or(usize::MAX);
        let count = bytes.checked_div(width).unwrap_or(0);
        if count > limits::MAX_JOURNAL_FIELDS {
            return Err(Error::limit("journal.fields", "an entry of a journal has more fields than any real one")
                .at(escape_bytes(&self.path))
                .offset(entry.offset)
                .expected(format!("at most {}", limits::MAX_JOURNAL_FIELDS))
                .found(count));
        }
        let mut bytes = vec![0; count.saturating_mul(width)];
        self.source.read(&mut bytes, entry.offset.saturating_add(64))?;
        bytes.chunks_exact(width).map(|item| self.reference(item)).collect()
    }

    fn entry_item(&self) -> usize {
        if self.is_compact() { 4 } else { 16 }
    }

    fn reference(&self, item: &[u8]) -> Result<u64> {
        if self.is_compact() { u32_at(item, 0).map(u64::from) } else { u64_at(item, 0) }
    }

    /// The data object at `offset`, without its payload.
    pub(super) fn data(&self, offset: u64) -> Result<Data> {
        let mut bytes = [0; Data::FIXED];
        let object = self.object(offset, Kind::Data, &mut bytes)?;
        Data::parse(object, &bytes)
    }

    /// The field object at `offset`, without its payload.
    pub(super) fn field(&self, offset: u64) -> Result<Field> {
        let mut bytes = [0; Field::FIXED];
        let object = self.object(offset, Kind::Field, &mut bytes)?;
        Field::parse(object, &bytes)
    }

    /// Puts `FIELD=value` of the data object `object`, or the name of a field object, into `out`.
    pub(super) fn payload(&self, object: &Object, out: &mut Vec<u8>) -> Result<()> {
        let fixed = match object.kind {
            Kind::Field => 40,
            _ if self.is_compact() => 72,
            _ => 64,
        };
        let length = usize::try_from(object.size.saturating_sub(fixed)).unwrap_or(usize::MAX);
        if length > limits::MAX_JOURNAL_DATA {
            return Err(payload::too_large().at(escape_bytes(&self.path)).offset(object.offset));
        }
        let at = object.offset.saturating_add(fixed);
        if object.flags & 7 == 0 {
            out.resize(length, 0);
            return self.source.read(out, at);
        }
        let mut stored = vec![0; length];
        self.source.read(&mut stored, at)?;
        payload::decode(object.flags, &stored, out)
            .map_err(|error| error.at(escape_bytes(&self.path)).offset(object.offset))
    }

    /// The hash that this file uses for its tables.
    pub(super) fn hash(&self, payload: &[u8]) -> u64 {
        if self.header.has(INCOMPATIBLE_KEYED_HASH) {
            siphash24(payload, &self.header.file_id.0)
        } else {
            jenkins(payload)
        }
    }

    /// The data object that holds `payload` (`FIELD=value`).
    pub(super) fn find_data(&self, payload: &[u8]) -> Result<Option<Data>> {
        let (at, size) = (self.header.data_hash_table_offset, self.header.data_hash_table_size);
        let hash = self.hash(payload);
        let mut found = None;
        let mut content = Vec::new();
        self.walk_chain(self.bucket(at, size, hash)?, |offset| {
            let data = self.data(offset)?;
            if data.hash == hash {
                self.payload(&data.object, &mut content)?;
                if content == payload {
                    found = Some(data);
                    return Ok(0);
                }
            }
            Ok(data.next_hash_offset)
        })?;
        Ok(found)
    }

    /// The field object of the field `name`.
    pub(super) fn find_field(&self, name: &[u8]) -> Result<Option<Field>> {
        let (at, size) = (self.header.field_hash_table_offset, self.header.field_hash_table_size);
        let hash = self.hash(name);
        let mut found = None;
        let mut content = Vec::new();
        self.walk_chain(self.bucket(at, size, hash)?, |offset| {
            let field = self.field(offset)?;
            if field.hash == hash {
                self.payload(&field.object, &mut content)?;
                if content == name {
                    found = Some(field);
                    return Ok(0);
                }
            }
            Ok(field.next_hash_offset)
        })?;
        Ok(found)
    }

    /// The names of all fields.
    pub(super) fn visit_fields(&self, visit: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut content = Vec::new();
        for bucket in 0..self.header.field_hash_table_size / 16 {
            let head = self.bucket(self.header.field_hash_table_offset, self.header.field_hash_table_size, bucket)?;
            self.walk_chain(head, |offset| {
                let field = self.field(offset)?;
                self.payload(&field.object, &mut content)?;
                visit(&content)?;
                Ok(field.next_hash_offset)
            })?;
        }
        Ok(())
    }

    /// The data objects of a field, the newest first.
    pub(super) fn visit_values(&self, name: &[u8], visit: &mut dyn FnMut(&Data) -> Result<()>) -> Result<()> {
        let Some(field) = self.find_field(name)? else { return Ok(()) };
        // They are linked in any order, so only their number can be bounded.
        let mut offset = field.head_data_offset;
        let mut left = self.header.end() / 64;
        while offset != 0 {
            left = left.checked_sub(1).ok_or_else(|| self.corrupt("a list of a journal's fields is a loop", offset))?;
            let data = self.data(offset)?;
            visit(&data)?;
            offset = data.next_field_offset;
        }
        Ok(())
    }

    /// The first object of the chain that `hash` belongs to in a table of `size` bytes; 0 when there is none.
    pub(super) fn bucket(&self, table: u64, size: u64, hash: u64) -> Result<u64> {
        let Some(number) = hash.checked_rem(size / 16) else { return Ok(0) };
        let at = number.checked_mul(16).and_then(|at| table.checked_add(at));
        let at = at.filter(|at| at.checked_add(16).is_some_and(|end| end <= self.header.end()));
        let at = at.ok_or_else(|| self.corrupt("a hash table of a journal lies outside of it", table))?;
        let mut bytes = [0; 8];
        self.source.read(&mut bytes, at)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Follows a chain of a hash table from `offset`; `visit` gives the next offset, 0 at the end.
    fn walk_chain(&self, mut offset: u64, mut visit: impl FnMut(u64) -> Result<u64>) -> Result<()> {
        for _ in 0..limits::MAX_JOURNAL_CHAIN {
            if offset == 0 {
                return Ok(());
            }
            let next = visit(offset)?;
            // New objects are added at the end of both the file and the chain.
            if next != 0 && next <= offset {
                return Err(self.corrupt("a chain of a journal's hash table leads back", offset));
            }
            offset = next;
        }
        Err(Error::limit("journal.chain", "a chain of a journal's hash table is longer than any real one")
            .at(escape_bytes(&self.path))
            .offset(offset))
    }

    /// All entries, in the order in which they were written.
    pub(super) fn all(&self) -> Result<List> {
        List::read(self, None, self.header.entry_array_offset, self.header.n_entries)
    }

    /// The entries that have this field.
    pub(super) fn entries_of(&self, data: &Data) -> Result<List> {
        let more = data.n_entries.saturating_sub(1);
        let first = (data.n_entries > 0).then_some(data.entry_offset);
        List::read(self, first, data.entry_array_offset, more)
    }

    /// Where the next entry array is, and how many items this one has.
    pub(super) fn entry_array(&self, offset: u64) -> Result<(u64, u64)> {
        let mut bytes = [0; 24];
        let object = self.object(offset, Kind::EntryArray, &mut bytes)?;
        let items = object.size.saturating_sub(24).checked_div(self.array_item()).unwrap_or(0);
        Ok((u64_at(&bytes, 16)?, items))
    }

    fn array_item(&self) -> u64 {
        if self.is_compact() { 4 } else { 8 }
    }

    /// The item `index` of the entry array at `array`, which has as many.
    pub(super) fn array_reference(&self, array: u64, index: u64) -> Result<u64> {
        let width = self.array_item();
        let mut bytes = [0; 8];
        let bytes = bytes.get_mut(..usize::try_from(width).unwrap_or(8)).unwrap_or_default();
        let at = index.saturating_mul(width).saturating_add(24).saturating_add(array);
        self.source.read(bytes, at)?;
        self.reference(bytes)
    }

    /// Gives back the memory that reading took.
    pub(super) fn forget(&self) {
        self.source.blocks.borrow_mut().clear();
    }
}

/// Bytes that are read together, and how many such blocks are kept of a file.
const BLOCK: usize = 16 << 10;
const BLOCKS: usize = 64;

/// The number of a block, and its bytes.
type Block = (u64, Box<[u8]>);

/// A file's bytes, by way of some blocks of it.
#[derive(Debug)]
struct Source<'a> {
    tree: &'a Tree,
    id: FileId,
    /// Block `n` has the place `n` modulo [`BLOCKS`].
    blocks: RefCell<Vec<Option<Block>>>,
}

impl Source<'_> {
    fn read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        if buf.len() > BLOCK {
            return self.read_whole(buf, offset);
        }
        let (mut done, block) = (0_usize, u64::try_from(BLOCK).unwrap_or(u64::MAX));
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let at = offset.saturating_add(u64::try_from(done).unwrap_or(u64::MAX));
            let within = usize::try_from(at.checked_rem(block).unwrap_or(0)).unwrap_or(0);
            let copied = self.with_block(at.checked_div(block).unwrap_or(0), |bytes| {
                let bytes = bytes.get(within..).unwrap_or_default();
                let length = bytes.len().min(rest.len());
                for (to, from) in rest.iter_mut().zip(bytes) {
                    *to = *from;
                }
                length
            })?;
            if copied == 0 {
                return Err(short(at));
            }
            done = done.saturating_add(copied);
        }
        Ok(())
    }

    fn read_whole(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        if self.tree.read_at(self.id, buf, offset)? == buf.len() { Ok(()) } else { Err(short(offset)) }
    }

    fn with_block<T>(&self, number: u64, use_it: impl FnOnce(&[u8]) -> T) -> Result<T> {
        let mut blocks = self.blocks.borrow_mut();
        if blocks.is_empty() {
            blocks.resize_with(BLOCKS, || None);
        }
        let (count, size) = (u64::try_from(BLOCKS).unwrap_or(1), u64::try_from(BLOCK).unwrap_or(1));
        let place = usize::try_from(number.checked_rem(count).unwrap_or(0)).unwrap_or(0);
        let Some(slot) = blocks.get_mut(place) else { return Err(short(0)) };
        if slot.as_ref().is_none_or(|(held, _)| *held != number) {
            let mut bytes = vec![0; BLOCK];
            let length = self.tree.read_at(self.id, &mut bytes, number.saturating_mul(size))?;
            bytes.truncate(length);
            *slot = Some((number, bytes.into_boxed_slice()));
        }
        Ok(use_it(slot.as_ref().map(|(_, bytes)| &**bytes).unwrap_or_default()))
    }
}

fn short(offset: u64) -> Error {
    Error::corrupt("journal.corrupt", "a journal file ends early").offset(offset)
}
