//! Whether a journal file is what it should be: every object, its hash, the indexes, and the order of the entries.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use serde::Serialize;

use super::file::{Entry, JournalFile};
use super::layout::{Kind, Object};
use super::list::List;
use crate::error::{Error, Result, escape_bytes};

/// What checking one file gave.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// The file.
    pub path: String,
    /// The first fault, where there is one.
    pub fault: Option<String>,
    /// Whether the file was not closed, so that faults at its end are to be expected.
    pub unclean: bool,
    /// Entries that were looked at.
    pub entries: u64,
    /// Objects of all kinds that were looked at.
    pub objects: u64,
}

/// Checks a file. `check` is asked now and then whether to go on; only its errors are returned.
pub(super) fn verify(file: &JournalFile<'_>, check: &mut dyn FnMut() -> Result<()>) -> Result<Verdict> {
    let mut counts = Counts::default();
    let fault = scan(file, &mut counts, check).and_then(|()| {
        compare(file, &counts)?;
        entries(file, &counts, check)
    });
    if let Err(error) = &fault {
        // An interruption is no fault of the file.
        if error.kind() == crate::error::Kind::Interrupted {
            return Err(error.clone());
        }
    }
    file.forget();
    Ok(Verdict {
        path: escape_bytes(file.path()),
        fault: fault.err().map(|error| error.to_string()),
        unclean: file.state() == super::State::Online,
        entries: counts.entries,
        objects: counts.objects,
    })
}

#[derive(Debug, Default)]
struct Counts {
    objects: u64,
    entries: u64,
    data: u64,
    fields: u64,
    tags: u64,
    entry_arrays: u64,
    last: Option<Entry>,
}

/// Goes through all objects in the order in which they lie.
fn scan(file: &JournalFile<'_>, counts: &mut Counts, check: &mut dyn FnMut() -> Result<()>) -> Result<()> {
    let mut offset = file.header.header_size;
    let tail = file.header.tail_object_offset;
    let mut payload = Vec::new();
    if tail == 0 {
        return Ok(());
    }
    loop {
        if counts.objects.is_multiple_of(1024) {
            check()?;
        }
        let object = file.object_at(offset)?;
        counts.objects = counts.objects.saturating_add(1);
        inspect(file, &object, counts, &mut payload)?;
        if offset >= tail {
            break;
        }
        // Sizes are at least 16, and objects begin at multiples of eight.
        offset = offset.saturating_add(object.size).checked_next_multiple_of(8).unwrap_or(u64::MAX);
    }
    if offset != tail {
        return Err(fault(file, "the last object is not where the header says", offset).expected(tail));
    }
    Ok(())
}

fn inspect(file: &JournalFile<'_>, object: &Object, counts: &mut Counts, payload: &mut Vec<u8>) -> Result<()> {
    let add = |count: &mut u64| *count = count.saturating_add(1);
    match object.kind {
        Kind::Data => {
            add(&mut counts.data);
            let data = file.data(object.offset)?;
            file.payload(object, payload)?;
            if file.hash(payload) != data.hash {
                return Err(fault(file, "the hash of a field is wrong", object.offset).expected(hex(data.hash)));
            }
            if (data.entry_offset == 0) != (data.n_entries == 0) {
                return Err(fault(file, "a field's first entry contradicts the number of its entries", object.offset));
            }
        }
        Kind::Field => {
            add(&mut counts.fields);
            let field = file.field(object.offset)?;
            file.payload(object, payload)?;
            if file.hash(payload) != field.hash {
                return Err(fault(file, "the hash of a field's name is wrong", object.offset).expected(hex(field.hash)));
            }
        }
        Kind::Entry => {
            add(&mut counts.entries);
            let entry = file.entry(0, object.offset)?;
            order(file, &entry, counts.last.as_ref())?;
            counts.last = Some(entry);
            for item in file.items(&entry)? {
                file.data(item)?;
            }
        }
        Kind::EntryArray => add(&mut counts.entry_arrays),
        Kind::Tag => add(&mut counts.tags),
        Kind::DataHashTable | Kind::FieldHashTable => {}
    }
    Ok(())
}

/// Numbers grow, and so does the clock of one start of the machine.
fn order(file: &JournalFile<'_>, entry: &Entry, last: Option<&Entry>) -> Result<()> {
    let seqnums = file.header.head_entry_seqnum..=file.header.tail_entry_seqnum;
    if entry.seqnum == 0 || !seqnums.contains(&entry.seqnum) {
        return Err(
            fault(file, "an entry's number is outside of what the header says", entry.offset).found(entry.seqnum)
        );
    }
    let Some(last) = last else { return Ok(()) };
    if entry.seqnum <= last.seqnum {
        return Err(
            fault(file, "an entry's number is not larger than the one before", entry.offset).found(entry.seqnum)
        );
    }
    if entry.boot_id == last.boot_id && entry.monotonic < last.monotonic {
        return Err(fault(file, "an entry is older than the one before it", entry.offset));
    }
    Ok(())
}

fn compare(file: &JournalFile<'_>, counts: &Counts) -> Result<()> {
    let header = &file.header;
    let pairs = [
        ("objects", Some(header.n_objects), counts.objects),
        ("entries", Some(header.n_entries), counts.entries),
        ("data objects", header.n_data, counts.data),
        ("field objects", header.n_fields, counts.fields),
        ("tags", header.n_tags, counts.tags),
        ("entry arrays", header.n_entry_arrays, counts.entry_arrays),
    ];
    for (what, said, found) in pairs {
        if let Some(said) = said.filter(|said| *said != found) {
            let text = format!("the header has another number of {what}");
            return Err(fault(file, &text, 0).expected(said).found(found));
        }
    }
    let times = counts.last.map(|last| (last.seqnum, last.realtime));
    if let Some((seqnum, realtime)) = times
        && (seqnum, realtime) != (header.tail_entry_seqnum, header.tail_entry_realtime)
    {
        return Err(fault(file, "the header tells another last entry", 160)
            .expected(header.tail_entry_seqnum)
            .found(seqnum));
    }
    Ok(())
}

/// The list of all entries, and that each field of theirs can be found by its hash and knows them.
fn entries(file: &JournalFile<'_>, counts: &Counts, check: &mut dyn FnMut() -> Result<()>) -> Result<()> {
    let all = file.all()?;
    if all.len() != counts.entries {
        return Err(fault(file, "the list of entries has another length", file.header.entry_array_offset)
            .expected(counts.entries)
            .found(all.len()));
    }
    let mut before = 0;
    for index in 0..all.len() {
        let offset = all.get(file, index)?;
        if offset <= before {
            return Err(fault(file, "the list of entries is not sorted", offset));
        }
        before = offset;
        file.entry(0, offset)?;
    }
    indexes(file, check)
}

/// Every chain of the hash table of fields with the lists of entries.
fn indexes(file: &JournalFile<'_>, check: &mut dyn FnMut() -> Result<()>) -> Result<()> {
    let (table, size) = (file.header.data_hash_table_offset, file.header.data_hash_table_size);
    // Each item belongs to one list.
    let mut left = file.header.end() / 4;
    for number in 0..size / 16 {
        if number.is_multiple_of(1024) {
            check()?;
        }
        let mut offset = file.bucket(table, size, number)?;
        while offset != 0 {
            let data = file.data(offset)?;
            if data.hash.checked_rem(size / 16) != Some(number) {
                return Err(fault(file, "a field is in the wrong place of the hash table", offset));
            }
            let list = file.entries_of(&data)?;
            if list.len() != data.n_entries {
                return Err(fault(file, "a field's list of entries has another length", offset)
                    .expected(data.n_entries)
                    .found(list.len()));
            }
            left = left.checked_sub(list.len()).ok_or_else(|| fault(file, "fields share lists of entries", offset))?;
            ascending(file, &list)?;
            if data.next_hash_offset != 0 && data.next_hash_offset <= offset {
                return Err(fault(file, "a chain of the hash table leads back", offset));
            }
            offset = data.next_hash_offset;
        }
    }
    Ok(())
}

fn ascending(file: &JournalFile<'_>, list: &List) -> Result<()> {
    let mut before = 0;
    for index in 0..list.len() {
        let offset = list.get(file, index)?;
        if offset <= before {
            return Err(fault(file, "a field's list of entries is not sorted", offset));
        }
        before = offset;
    }
    Ok(())
}

fn fault(file: &JournalFile<'_>, what: &str, offset: u64) -> Error {
    file.corrupt(what, offset)
}

fn hex(hash: u64) -> String {
    format!("{hash:016x}")
}
