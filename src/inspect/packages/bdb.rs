//! Hash databases of Berkeley DB, versions 8 to 10, as rpm kept its packages until 2020.
//!
//! A page has 26 bytes of header: its number at 8, the next page at 16, the number of entries at 20, the bytes used (of an
//! overflow page) at 22, its type at 25. Offsets of entries follow; keys and values take turns, from the end of the page
//! towards its beginning. All numbers have the byte order of the machine that made the file.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use super::rpm::corrupt;
use crate::disk::bytes::{be16, be32, le16, le32, long, size, u8_at};
use crate::error::{Error, Result};
use crate::fs::Tree;
use crate::fs::tree::FileReader;
use crate::limits;

const MAGIC: u32 = 0x0006_1561;
const PAGE_HEADER: usize = 26;
const HASH_UNSORTED: u8 = 2;
const OVERFLOW: u8 = 7;
const HASH_META: u8 = 8;
const HASH: u8 = 13;

struct Bdb {
    file: FileReader,
    big: bool,
    page_size: usize,
    last_page: u32,
    max_bucket: u32,
    /// What to add to the number of a bucket to get its page, for each power of two.
    spares: [u32; 32],
    /// Pages that may still be read: each belongs to one place only.
    left: u32,
}

/// Visits the values of all entries but the one that counts them, bucket by bucket.
pub(super) fn headers(tree: &Tree, path: &str, visit: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let Some(file) = tree.open(path)? else { return Ok(()) };
    let mut bdb = Bdb::open(file)?;
    let mut bucket = 0_u32;
    loop {
        let mut number = bdb.page_of(bucket);
        loop {
            let page = bdb.page(number)?;
            if !matches!(u8_at(&page, 25), HASH | HASH_UNSORTED) {
                return Err(bdb.damaged(number, "a page that is none of a hash").found(u8_at(&page, 25)));
            }
            bdb.entries(number, &page, visit)?;
            number = bdb.long(&page, 16);
            if number == 0 {
                break;
            }
        }
        if bucket >= bdb.max_bucket {
            return Ok(());
        }
        bucket = bucket.saturating_add(1);
    }
}

impl Bdb {
    fn open(file: FileReader) -> Result<Self> {
        let mut meta = [0; 512];
        file.read_exact_at(&mut meta, 0)?;
        let big = match (le32(&meta, 12), be32(&meta, 12)) {
            (MAGIC, _) => false,
            (_, MAGIC) => true,
            (found, _) => {
                return Err(corrupt("no hash database of Berkeley DB").found(format!("{found:#x}")));
            }
        };
        let long = |at| if big { be32(&meta, at) } else { le32(&meta, at) };
        if !(8..=10).contains(&long(16)) {
            return Err(unsupported("another version of Berkeley DB").expected("8, 9 or 10").found(long(16)));
        }
        if u8_at(&meta, 24) != 0 {
            return Err(unsupported("an encrypted database"));
        }
        // Checksums make the header of every page longer.
        if u8_at(&meta, 26) & 1 != 0 {
            return Err(unsupported("a database with checksums"));
        }
        let (page_size, kind) = (long(20), u8_at(&meta, 25));
        if !page_size.is_power_of_two() || !(512..=65_536).contains(&page_size) || kind != HASH_META {
            return Err(corrupt("an impossible first page").found(format!("pages of {page_size} bytes, type {kind}")));
        }
        let mut spares = [0; 32];
        for (index, spare) in spares.iter_mut().enumerate() {
            *spare = long(96_usize.saturating_add(index.saturating_mul(4)));
        }
        let on_disk = u32::try_from(file.size().div_ceil(u64::from(page_size))).unwrap_or(u32::MAX);
        let (last_page, max_bucket) = (long(32), long(72));
        Ok(Self { file, big, page_size: size(u64::from(page_size)), last_page, max_bucket, spares, left: on_disk })
    }

    fn page_of(&self, bucket: u32) -> u32 {
        let power = size(u64::from(u32::BITS.saturating_sub(bucket.leading_zeros())));
        bucket.saturating_add(self.spares.get(power).copied().unwrap_or(0))
    }

    fn page(&mut self, number: u32) -> Result<Vec<u8>> {
        let left = self.left.checked_sub(1).ok_or_else(|| self.damaged(number, "a page that is used twice"))?;
        self.left = left;
        if number == 0 || number > self.last_page {
            return Err(corrupt("a page outside the database")
                .expected(format!("1 to {}", self.last_page))
                .found(number));
        }
        let mut page = vec![0; self.page_size];
        self.file.read_exact_at(&mut page, self.offset(number))?;
        if self.long(&page, 8) != number {
            return Err(self.damaged(number, "a page with another number").found(self.long(&page, 8)));
        }
        Ok(page)
    }

    fn entries(&mut self, number: u32, page: &[u8], visit: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let offset = |index: usize| {
            let at = PAGE_HEADER.saturating_add(index.saturating_mul(2));
            usize::from(self.short(page, at))
        };
        let count = usize::from(self.short(page, 20));
        if PAGE_HEADER.saturating_add(count.saturating_mul(2)) > page.len() {
            return Err(self.damaged(number, "more entries than a page holds").found(count));
        }
        // Where each key ends, since its value lies before it.
        let pairs: Vec<_> = (1..count)
            .step_by(2)
            .map(|value| {
                let key = value.saturating_sub(1);
                let end = if key == 0 { page.len() } else { offset(key.saturating_sub(1)) };
                (page.get(offset(key)..end), page.get(offset(value)..offset(key)))
            })
            .collect();
        for pair in pairs {
            let (Some(key), Some(value)) = pair else {
                return Err(self.damaged(number, "an entry outside its page"));
            };
            // Number 0 is no package: it says which number the next one gets.
            if key != [1, 0, 0, 0, 0] {
                self.value(number, value, visit)?;
            }
        }
        Ok(())
    }

    /// A value in its page, or in a chain of pages of its own.
    fn value(&mut self, number: u32, item: &[u8], visit: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        const HERE: u8 = 1;
        const ELSEWHERE: u8 = 3;
        match (u8_at(item, 0), item) {
            (HERE, [_, value @ ..]) => return visit(value),
            (ELSEWHERE, item) if item.len() == 12 => {}
            (kind, _) => return Err(self.damaged(number, "a value of an unknown kind").found(kind)),
        }
        let (mut next, length) = (self.long(item, 4), self.long(item, 8));
        if u64::from(length) > limits::MAX_DATABASE_ROW {
            return Err(Error::limit("rpm.header", "a package's header that is too long")
                .expected(format!("at most {} bytes", limits::MAX_DATABASE_ROW))
                .found(length));
        }
        let length = size(u64::from(length));
        let mut value = Vec::new();
        while value.len() < length {
            let page = self.page(next)?;
            let used = usize::from(self.short(&page, 22));
            let part = page.get(PAGE_HEADER..PAGE_HEADER.saturating_add(used));
            let Some(part) =
                part.filter(|_| u8_at(&page, 25) == OVERFLOW && used <= length.saturating_sub(value.len()))
            else {
                return Err(self.damaged(next, "a page that does not continue a value"));
            };
            value.extend_from_slice(part);
            next = self.long(&page, 16);
        }
        visit(&value)
    }

    fn short(&self, bytes: &[u8], at: usize) -> u16 {
        if self.big { be16(bytes, at) } else { le16(bytes, at) }
    }

    fn long(&self, bytes: &[u8], at: usize) -> u32 {
        if self.big { be32(bytes, at) } else { le32(bytes, at) }
    }

    fn offset(&self, number: u32) -> u64 {
        u64::from(number).saturating_mul(long(self.page_size))
    }

    fn damaged(&self, number: u32, what: &str) -> Error {
        corrupt(what).offset(self.offset(number))
    }
}

fn unsupported(what: &str) -> Error {
    Error::unsupported("rpm.version", what)
}
