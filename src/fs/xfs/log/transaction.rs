//! Transactions: the operations of records put together to items, each of one or more regions.

use std::collections::HashMap;

use super::head::End;
use super::record::Header;
use super::{Log, damaged, too_much};
use crate::disk::bytes::{be32, le16, le32, size, u8_at};
use crate::error::Result;
use crate::limits;

/// Bytes before an operation's data.
const HEADER: usize = 12;
/// Who an operation is from: a transaction or the log itself.
const CLIENTS: [u8; 2] = [0x69, 0xaa];
const START: u8 = 0x01;
const COMMIT: u8 = 0x02;
const CONTINUES: u8 = 0x04;
const CONTINUED: u8 = 0x08;
const END: u8 = 0x10;
const UNMOUNT: u8 = 0x20;

/// A transaction begins with a header that says nothing more.
pub(super) const TRANSACTION_MAGIC: u32 = 0x5452_414e;
pub(super) const TRANSACTION_HEADER: usize = 16;
/// Regions of the largest item: every second chunk of 128 bytes of a block of 64 KiB, and the item's description.
const MAX_REGIONS: u16 = 257;
/// Bytes of memory that a region takes beside its own.
const REGION: usize = 64;

/// One item: its description first, then what it describes.
#[derive(Clone, Debug, Default)]
pub(super) struct Item {
    pub(super) regions: Vec<Vec<u8>>,
    expected: usize,
}

impl Item {
    /// What it is (`XFS_LI_…`).
    pub(super) fn kind(&self) -> u16 {
        le16(self.description(), 0)
    }

    pub(super) fn description(&self) -> &[u8] {
        self.region(0)
    }

    pub(super) fn region(&self, index: usize) -> &[u8] {
        self.regions.get(index).map(Vec::as_slice).unwrap_or_default()
    }
}

/// What was committed at once.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    /// Where the log was when it began.
    pub(super) lsn: u64,
    pub(super) items: Vec<Item>,
    /// Bytes of the header that were seen.
    header: usize,
    /// Bytes that it takes in memory.
    held: usize,
}

/// Transactions that were begun, by their number.
#[derive(Default)]
struct Open {
    transactions: HashMap<u32, Transaction>,
    held: usize,
}

impl Log<'_> {
    /// Visits the committed transactions from the tail to the head, in the order of their commits.
    pub(super) fn each_transaction(&self, end: &End, visit: &mut dyn FnMut(Transaction) -> Result<()>) -> Result<()> {
        let mut open = Open::default();
        self.each_record(end, &mut |header, data| {
            let mut rest = data;
            for _ in 0..header.operations {
                let len = size(u64::from(be32(rest, 4)));
                let (head, after) = rest.split_at_checked(HEADER).ok_or_else(|| damaged("a record is cut short"))?;
                let (body, next) = after.split_at_checked(len).ok_or_else(|| damaged("an operation is cut short"))?;
                if !CLIENTS.contains(&u8_at(head, 8)) {
                    return Err(damaged("an operation is from nobody").found(u8_at(head, 8)));
                }
                if let Some(transaction) = open.operation(header, be32(head, 0), u8_at(head, 9), body)? {
                    visit(transaction)?;
                }
                rest = next;
            }
            Ok(())
        })
    }
}

impl Open {
    /// Takes one operation; gives a transaction that it commits.
    fn operation(&mut self, record: &Header, number: u32, flags: u8, body: &[u8]) -> Result<Option<Transaction>> {
        let Some(transaction) = self.transactions.get_mut(&number) else {
            // The rest of a transaction that began before the tail is in place already.
            if flags & START != 0 {
                let transaction = Transaction { lsn: record.lsn, held: REGION, ..Transaction::default() };
                self.transactions.insert(number, transaction);
                self.hold(REGION)?;
            }
            return Ok(None);
        };
        let flags = flags & !END;
        let flags = if flags & CONTINUED != 0 { flags & !CONTINUES } else { flags };
        match flags {
            0 | CONTINUES => transaction.add(body)?,
            CONTINUED => transaction.add_to_last(body)?,
            COMMIT => return Ok(self.close(number)),
            UNMOUNT => drop(self.close(number)),
            START => return Err(damaged("a transaction begins twice")),
            other => return Err(damaged("an operation has unknown flags").found(other)),
        }
        let bytes = body.len().saturating_add(REGION);
        if let Some(transaction) = self.transactions.get_mut(&number) {
            transaction.held = transaction.held.saturating_add(bytes);
            self.hold(bytes)?;
        }
        Ok(None)
    }

    fn hold(&mut self, bytes: usize) -> Result<()> {
        self.held = self.held.saturating_add(bytes);
        if self.held > limits::MAX_XFS_REPLAYED { Err(too_much(self.held)) } else { Ok(()) }
    }

    fn close(&mut self, number: u32) -> Option<Transaction> {
        let closed = self.transactions.remove(&number);
        self.held = self.held.saturating_sub(closed.as_ref().map_or(0, |transaction| transaction.held));
        closed
    }
}

impl Transaction {
    /// A region, or the part of one that had room in its record.
    fn add(&mut self, body: &[u8]) -> Result<()> {
        if body.is_empty() {
            return Ok(());
        }
        if self.header == 0 {
            if le32(body, 0) != TRANSACTION_MAGIC || body.len() > TRANSACTION_HEADER {
                return Err(damaged("a transaction has no header"));
            }
            self.header = body.len();
            return Ok(());
        }
        if self.header != TRANSACTION_HEADER {
            return Err(damaged("a transaction's header is cut short"));
        }
        match self.items.last_mut() {
            Some(item) if item.regions.len() < item.expected => item.regions.push(body.to_vec()),
            _ => {
                let expected = le16(body, 2);
                if body.len() < 4 || !(1..=MAX_REGIONS).contains(&expected) {
                    return Err(damaged("an item has an impossible number of regions").found(expected));
                }
                self.items.push(Item { regions: vec![body.to_vec()], expected: usize::from(expected) });
            }
        }
        Ok(())
    }

    /// More of what came last.
    fn add_to_last(&mut self, body: &[u8]) -> Result<()> {
        if let Some(region) = self.items.last_mut().and_then(|item| item.regions.last_mut()) {
            region.extend_from_slice(body);
            return Ok(());
        }
        self.header = self.header.saturating_add(body.len());
        if self.header == 0 || self.header > TRANSACTION_HEADER {
            return Err(damaged("a transaction's header is too long"));
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "limits are far from the ends of their types")]
mod tests {
    use super::*;

    #[test]
    fn as_much_is_held_as_the_limit() {
        let most = limits::MAX_XFS_REPLAYED;
        for (before, fits) in [(most - 11, true), (most - 10, true), (most - 9, false)] {
            let mut open = Open { held: before, ..Open::default() };
            assert_eq!(open.hold(10).is_ok(), fits, "{before}");
        }
        // What was committed is held no more.
        let mut open = Open { held: most, ..Open::default() };
        open.transactions.insert(7, Transaction { held: 10, ..Transaction::default() });
        assert!(open.close(7).is_some() && open.hold(10).is_ok() && open.hold(1).is_err());
    }
}
