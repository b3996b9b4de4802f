//! Directories: sets of entries of 32 bytes, of which the first tells what the others are (sections 6 and 7).

use std::ops::ControlFlow;
use std::sync::Arc;

use super::boot::checksum;
use super::{Exfat, LIMIT, corrupt};
use crate::disk::bytes::{array, le16, le32, le64, long, u8_at};
use crate::error::{Error, Kind, Result};
use crate::fs::clusters::Chain;
use crate::fs::{FileKind, Inode, Timestamp, dos_time, utf16};
use crate::limits;

/// Bytes of an entry.
pub(super) const SLOT: u64 = 32;

/// The directory that has no entry.
pub(super) const ROOT: Inode = Inode(1);

/// In an inode: the clusters of the directory that has its entry lie one after the other.
const STRAIGHT: u64 = 1 << 62;

const END: u8 = 0;
const BITMAP: u8 = 0x81;
const UPCASE: u8 = 0x82;
const LABEL: u8 = 0x83;
const FILE: u8 = 0x85;
const STREAM: u8 = 0xc0;
const NAME: u8 = 0xc1;

const ATTRIBUTE_READ_ONLY: u16 = 1;
const ATTRIBUTE_DIRECTORY: u16 = 0x10;

/// Characters in an entry for a name.
const PER_SLOT: usize = 15;

/// Where a directory's entries lie.
#[derive(Clone, Debug)]
pub(super) struct Dir {
    chain: Arc<Chain>,
    /// Bytes.
    len: u64,
    straight: bool,
}

/// A set of entries: a file.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) inode: Inode,
    pub(super) name: Vec<u16>,
    attributes: u16,
    pub(super) created: Timestamp,
    pub(super) modified: Timestamp,
    pub(super) accessed: Timestamp,
    pub(super) first: u32,
    /// Bytes of the content, and those that were written; zeros follow.
    pub(super) len: u64,
    pub(super) valid: u64,
    /// Whether its clusters lie one after the other, and the table does not tell of them.
    pub(super) straight: bool,
    /// Number of entries.
    slots: u64,
}

/// What the root directory tells of the volume.
#[derive(Debug, Default)]
pub(super) struct System {
    /// The bitmap of clusters: the first one and its bytes.
    pub(super) bitmap: Option<(u32, u64)>,
    /// The table of upper case: checksum, first cluster, bytes.
    pub(super) upcase: Option<(u32, u32, u64)>,
    pub(super) label: Option<String>,
}

impl Node {
    pub(super) fn kind(&self) -> FileKind {
        if self.attributes & ATTRIBUTE_DIRECTORY != 0 { FileKind::Directory } else { FileKind::Regular }
    }

    pub(super) fn mode(&self) -> u32 {
        let read_only = self.attributes & ATTRIBUTE_READ_ONLY != 0 && self.kind() == FileKind::Regular;
        if read_only { 0o555 } else { 0o755 }
    }
}

/// What an entry of a directory must have to be looked at: the length and the hash of its name.
pub(super) type Wanted = (u8, u16);

impl Exfat {
    /// What to look for to find `name`.
    pub(super) fn wanted(&self, name: &[u16]) -> Option<Wanted> {
        let bytes = name.iter().flat_map(|unit| self.upper(*unit).to_le_bytes());
        let hash = bytes.fold(0_u16, |sum, byte| sum.rotate_right(1).wrapping_add(u16::from(byte)));
        u8::try_from(name.len()).ok().map(|len| (len, hash))
    }

    /// Where the entries of a directory lie.
    pub(super) fn dir(&self, inode: Inode) -> Result<Dir> {
        let cluster = self.boot.heap.cluster.get();
        if inode == ROOT {
            let chain = self.whole_chain(self.boot.root, limits::MAX_EXFAT_DIR / self.boot.heap.cluster)?;
            let len = u64::from(chain.len()).saturating_mul(cluster);
            return Ok(Dir { chain: Arc::new(chain), len, straight: false });
        }
        let node = self.node(inode)?;
        if node.kind() != FileKind::Directory {
            return Err(Error::new(Kind::NotFound, "exfat.name", "not a directory").at(format!("inode {}", inode.0)));
        }
        if node.len > limits::MAX_EXFAT_DIR {
            return Err(Error::limit(LIMIT, "a directory is too large").found(node.len));
        }
        Ok(Dir { chain: self.content_chain(&node, node.len)?, len: node.len, straight: node.straight })
    }

    /// The file whose first entry lies at the place that `inode` names.
    pub(super) fn node(&self, inode: Inode) -> Result<Node> {
        let place = (inode.0 & !STRAIGHT).saturating_mul(SLOT);
        self.set(place, inode.0 & STRAIGHT != 0)
    }

    /// Visits the files of a directory from entry number `cursor` on, each with the number of the entry after it; only those
    /// that may be `wanted`.
    pub(super) fn walk(
        &self,
        dir: &Dir,
        cursor: u64,
        wanted: Option<Wanted>,
        visit: &mut dyn FnMut(Node, u64) -> ControlFlow<()>,
    ) -> Result<()> {
        self.each(dir, cursor, &mut |place, slot, number| {
            if u8_at(slot, 0) != FILE {
                return Ok(ControlFlow::Continue(1));
            }
            let count = u8_at(slot, 1);
            if let (Some(wanted), 2..=18) = (wanted, count) {
                let stream = self.after(place, dir.straight)?.map(|place| self.slot(place)).transpose()?;
                let stream = stream.filter(|stream| u8_at(stream, 0) == STREAM);
                if stream.is_some_and(|stream| (u8_at(&stream, 3), le16(&stream, 4)) != wanted) {
                    return Ok(ControlFlow::Continue(u64::from(count).saturating_add(1)));
                }
            }
            let node = self.set(place, dir.straight)?;
            let slots = node.slots;
            let is_name = utf16::is_name(&utf16::to_bytes(&node.name));
            if is_name && visit(node, number.saturating_add(slots)).is_break() {
                return Ok(ControlFlow::Break(()));
            }
            Ok(ControlFlow::Continue(slots))
        })
    }

    /// What the root directory says of the volume, up to where all of it was said.
    pub(super) fn system(&self) -> Result<System> {
        let mut system = System::default();
        self.each(&self.dir(ROOT)?, 0, &mut |_, slot, _| {
            match u8_at(slot, 0) {
                BITMAP if u8_at(slot, 1) & 1 == self.boot.bitmap && system.bitmap.is_none() => {
                    system.bitmap = Some((le32(slot, 20), le64(slot, 24)));
                }
                UPCASE => system.upcase = Some((le32(slot, 4), le32(slot, 20), le64(slot, 24))),
                LABEL => {
                    let len = usize::from(u8_at(slot, 1).min(11));
                    let units: Vec<u16> =
                        (0..len).map(|at| le16(slot, at.saturating_mul(2).saturating_add(2))).collect();
                    let label = String::from_utf8_lossy(&utf16::to_bytes(&units)).into_owned();
                    system.label = (!label.is_empty()).then_some(label);
                }
                _ => {}
            }
            let all = system.bitmap.is_some() && system.upcase.is_some() && system.label.is_some();
            Ok(if all { ControlFlow::Break(()) } else { ControlFlow::Continue(1) })
        })?;
        Ok(system)
    }

    /// Visits entries from number `cursor` on, until one says that there are no more.
    fn each(&self, dir: &Dir, cursor: u64, visit: &mut Visit<'_>) -> Result<()> {
        let heap = self.boot.heap;
        let mut number = cursor;
        while number < dir.len / SLOT {
            let offset = number.saturating_mul(SLOT);
            let index = u32::try_from(offset / heap.cluster).unwrap_or(u32::MAX);
            let Some((cluster, _)) = dir.chain.at(index) else { break };
            let place = heap.place(cluster).saturating_add(offset % heap.cluster);
            let slot = self.slot(place)?;
            if u8_at(&slot, 0) == END {
                break;
            }
            match visit(place, &slot, number)? {
                ControlFlow::Break(()) => break,
                ControlFlow::Continue(slots) => number = number.saturating_add(slots),
            }
        }
        Ok(())
    }

    fn slot(&self, place: u64) -> Result<[u8; 32]> {
        let mut slot = [0; 32];
        self.pages.read(&mut slot, place).map(|()| slot)
    }

    /// The place of the entry after the one at `place`; `None` where the clusters end.
    fn after(&self, place: u64, straight: bool) -> Result<Option<u64>> {
        let heap = self.boot.heap;
        let next = place.saturating_add(SLOT);
        let within = next.saturating_sub(heap.start);
        if within % heap.cluster != 0 {
            return Ok(Some(next));
        }
        let index = u32::try_from(within / heap.cluster).unwrap_or(u32::MAX);
        // That is the number of the cluster that ends here: they count from 2, and the next one has index `index`.
        let cluster = index.saturating_add(1);
        let next = if straight { cluster.checked_add(1) } else { self.next(cluster)? };
        Ok(next.filter(|next| self.boot.numbers().contains(next)).map(|next| heap.place(next)))
    }

    /// The set of entries that begins at `place`, in a directory whose clusters lie one after the other if it is `straight`.
    fn set(&self, place: u64, straight: bool) -> Result<Node> {
        let heap = self.boot.heap;
        if place < heap.start {
            return Err(corrupt("there is no file").offset(place));
        }
        let mut bytes = self.slot(place)?.to_vec();
        let count = u8_at(&bytes, 1);
        if u8_at(&bytes, 0) != FILE || !(2..=18).contains(&count) {
            return Err(corrupt("there is no file").offset(place));
        }
        let mut next = self.after(place, straight)?;
        for _ in 0..count {
            let at = next.ok_or_else(|| corrupt("the entries of a file are not all there").offset(place))?;
            bytes.extend(self.slot(at)?);
            next = self.after(at, straight)?;
        }
        let sum = set_checksum(&bytes);
        if sum != le16(&bytes, 2) {
            let error = corrupt("the checksum of a file's entries is wrong").offset(place);
            return Err(error.expected(le16(&bytes, 2)).found(sum));
        }
        parse(&bytes, place, straight)
    }

    /// The table of upper case, as the volume has it; `None` where it is damaged.
    pub(super) fn read_upcase(&self, system: &System) -> Result<Option<Vec<u16>>> {
        let Some((expected, first, len)) = system.upcase.filter(|(_, _, len)| *len <= 2 << 16) else { return Ok(None) };
        let chain = match self.clusters(first, len, false) {
            Ok(chain) => chain,
            Err(error) if error.kind() == Kind::Corrupt => return Ok(None),
            Err(error) => return Err(error),
        };
        let bytes = self.content(&chain, len)?;
        if checksum(bytes.iter().copied()) != expected {
            return Ok(None);
        }
        let mut units = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes(array(pair, 0)));
        let mut upper: Vec<u16> = Vec::with_capacity(1 << 16);
        while let (Some(unit), true) = (units.next(), upper.len() < 1 << 16) {
            if unit == 0xffff && upper.len() < 0xffff {
                // So many units are their own upper case.
                let from = u16::try_from(upper.len()).unwrap_or(u16::MAX);
                let count = units.next().unwrap_or(0);
                upper.extend(from..from.saturating_add(count));
            } else {
                upper.push(unit);
            }
        }
        Ok(Some(upper))
    }

    /// All of a small content.
    fn content(&self, chain: &Chain, len: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        let read = self.boot.heap.read(&self.pages, chain, &mut bytes, 0)?;
        read.map(|()| bytes).ok_or_else(|| corrupt("a file has too few clusters"))
    }
}

/// Looks at an entry, its place and its number in the directory; says how many entries further the next one is.
type Visit<'a> = dyn FnMut(u64, &[u8], u64) -> Result<ControlFlow<(), u64>> + 'a;

fn parse(bytes: &[u8], place: u64, straight: bool) -> Result<Node> {
    let (primary, others) = bytes.split_at_checked(32).unwrap_or_default();
    let (stream, names) = others.split_at_checked(32).unwrap_or_default();
    if u8_at(stream, 0) != STREAM {
        return Err(corrupt("a file's entries do not tell where it lies").offset(place));
    }
    let len = usize::from(u8_at(stream, 3));
    let names = names.chunks_exact(32).take_while(|slot| u8_at(slot, 0) == NAME);
    let units = names.flat_map(|slot| (0..PER_SLOT).map(|at| le16(slot, at.saturating_mul(2).saturating_add(2))));
    let name: Vec<u16> = units.take(len).collect();
    if len == 0 || name.len() < len {
        return Err(corrupt("a file's name is not all there").offset(place).expected(len).found(name.len()));
    }
    let time = |at: usize, hundredths: u8, zone: usize| {
        let local = dos_time::read(le16(primary, at.saturating_add(2)), le16(primary, at), hundredths);
        Timestamp { seconds: local.seconds.saturating_sub(east(u8_at(primary, zone))), ..local }
    };
    let valid = le64(stream, 8);
    let size = le64(stream, 24);
    Ok(Node {
        inode: Inode((place / SLOT) | if straight { STRAIGHT } else { 0 }),
        name,
        attributes: le16(primary, 4),
        created: time(8, u8_at(primary, 20), 22),
        modified: time(12, u8_at(primary, 21), 23),
        accessed: time(16, 0, 24),
        first: le32(stream, 20),
        len: size,
        valid: valid.min(size),
        straight: u8_at(stream, 1) & 2 != 0,
        slots: long(bytes.len()) / SLOT,
    })
}

/// Seconds that a local time is ahead of universal time: seven bits with a sign count quarters of an hour, where the eighth says
/// that they count.
fn east(zone: u8) -> i64 {
    let quarters = i64::from(i8::from_le_bytes([zone << 1]) / 2);
    if zone & 0x80 == 0 { 0 } else { quarters.saturating_mul(900) }
}

/// The sum of section 6.3.3, over all of a set but itself.
pub(super) fn set_checksum(bytes: &[u8]) -> u16 {
    let counted = bytes.iter().enumerate().filter(|(at, _)| !matches!(at, 2 | 3));
    counted.fold(0_u16, |sum, (_, byte)| sum.rotate_right(1).wrapping_add(u16::from(*byte)))
}
