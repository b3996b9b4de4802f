//! Rock Ridge (IEEE P1282) in the system use areas of directory records (IEEE P1281): POSIX attributes and names.

use super::record::Record;
use super::volume::{both32, long_date, short_date};
use super::{corrupt, feature};
use crate::disk::bytes::{array, is_at, u8_at};
use crate::error::{Error, Result};
use crate::fs::Timestamp;
use crate::fs::pages::Pages;
use crate::limits;

/// What the system use area of a record says.
#[derive(Clone, Debug, Default)]
pub(super) struct Rock {
    /// `NM`.
    pub(super) name: Option<Vec<u8>>,
    /// `PX`: mode with the kind of file, links, owner, group.
    pub(super) posix: Option<[u32; 4]>,
    /// `PN`: major and minor number.
    pub(super) device: Option<(u32, u32)>,
    /// `SL`: the target of a symbolic link.
    pub(super) target: Option<Vec<u8>>,
    /// What is wrong with it: genisoimage is known to write such links, and the rest can be read.
    pub(super) bad_target: Option<Error>,
    /// `TF`: creation, modification, access, attributes.
    pub(super) times: [Option<Timestamp>; 4],
    /// `CL`: the block at which the directory lies that belongs here.
    pub(super) child: Option<u32>,
    /// `RE`: a directory that belongs elsewhere.
    pub(super) relocated: bool,
    /// `ZF`: the algorithm by which the content is compressed.
    pub(super) compressed: bool,
    /// `SF`: the content has holes, by a table.
    pub(super) sparse: bool,
    /// `SP`: bytes to skip in every other system use area.
    pub(super) skip: Option<usize>,
    /// Whether an entry says that this is Rock Ridge.
    pub(super) named: bool,
    /// Whether a link's next component continues the last one.
    open_component: bool,
    /// Whether a link's last component was the root.
    after_root: bool,
}

impl Rock {
    /// Reads the system use area of `record`, without its first `skip` bytes, and where it is continued.
    pub(super) fn read(pages: &Pages, record: &Record, skip: usize, block: u64) -> Result<Self> {
        let mut rock = Self::default();
        let mut area = record.system.get(skip..).unwrap_or_default().to_vec();
        for _ in 0..=limits::MAX_ISO_CONTINUATIONS {
            let Some((at, offset, len)) = rock.take_area(&area)? else { return Ok(rock) };
            let fits = u64::from(offset).checked_add(u64::from(len)).is_some_and(|end| end <= block);
            if !fits {
                return Err(corrupt("a continuation area reaches out of its block").offset(record.place));
            }
            let place = u64::from(at).saturating_mul(block).saturating_add(u64::from(offset));
            area = pages.bytes(place, usize::try_from(len).unwrap_or(0))?;
        }
        Err(Error::limit("iso.limit", "a directory record has too many continuations").offset(record.place))
    }

    /// Reads the entries of one area; where it is continued.
    fn take_area(&mut self, area: &[u8]) -> Result<Option<(u32, u32, u32)>> {
        let mut rest = area;
        let mut more = None;
        while let [a, b, len, _, ..] = *rest {
            let Some((entry, after)) = rest.split_at_checked(usize::from(len)).filter(|_| len >= 4) else { break };
            match &[a, b] {
                b"ST" => break,
                b"CE" => more = Some((both32(entry, 4), both32(entry, 12), both32(entry, 20))),
                signature => self.take(signature, entry)?,
            }
            rest = after;
        }
        Ok(more.filter(|(_, _, len)| *len > 0))
    }

    fn take(&mut self, signature: &[u8; 2], entry: &[u8]) -> Result<()> {
        match signature {
            b"SP" if is_at(entry, 4, &[0xbe, 0xef]) => self.skip = Some(usize::from(u8_at(entry, 6))),
            b"RR" => self.named = true,
            b"ER" => {
                let id = entry.get(8..).unwrap_or_default();
                self.named |= [&b"RRIP_1991A"[..], b"IEEE_P1282", b"IEEE_1282"].iter().any(|name| id.starts_with(name));
            }
            b"PX" => {
                self.named = true;
                self.posix = Some([4, 12, 20, 28].map(|at| both32(entry, at)));
            }
            b"PN" => {
                let (high, low) = (both32(entry, 4), both32(entry, 12));
                // Some programs put the whole number into the lower half.
                let split = high == 0 && low > 0xff;
                self.device = Some(if split { (low >> 8, low & 0xff) } else { (high, low) });
            }
            b"NM" => self.take_name(entry)?,
            b"SL" => {
                if let Err(error) = self.take_link(entry) {
                    self.bad_target.get_or_insert(error);
                }
            }
            b"TF" => self.take_times(entry),
            b"CL" => self.child = Some(both32(entry, 4)),
            b"RE" => self.relocated = true,
            b"ZF" => self.compressed = true,
            b"SF" => self.sparse = true,
            _ => {}
        }
        Ok(())
    }

    fn take_name(&mut self, entry: &[u8]) -> Result<()> {
        // The current and the parent directory have flags of their own, and no name.
        if u8_at(entry, 4) & 6 != 0 {
            return Ok(());
        }
        let name = self.name.get_or_insert_default();
        name.extend_from_slice(entry.get(5..).unwrap_or_default());
        if name.len() > 255 {
            return Err(corrupt("a name is too long").found(name.len()));
        }
        Ok(())
    }

    fn take_link(&mut self, entry: &[u8]) -> Result<()> {
        let target = self.target.get_or_insert_default();
        let mut rest = entry.get(5..).unwrap_or_default();
        while let [flags, len, ..] = *rest {
            let component = rest.get(2..).unwrap_or_default().split_at_checked(usize::from(len));
            let (text, after) = component.ok_or_else(|| corrupt("a part of a link reaches out of its entry"))?;
            if !self.open_component && !self.after_root && !target.is_empty() {
                target.push(b'/');
            }
            match flags & 0xe {
                0 => target.extend_from_slice(text),
                2 => target.push(b'.'),
                4 => target.extend_from_slice(b".."),
                8 => target.push(b'/'),
                _ => return Err(feature("a part of a symbolic link is of an unknown kind")),
            }
            self.open_component = flags & 1 != 0;
            self.after_root = flags & 8 != 0;
            rest = after;
        }
        if target.len() > limits::MAX_GUEST_PATH {
            return Err(corrupt("a link's target is too long").found(target.len()));
        }
        Ok(())
    }

    fn take_times(&mut self, entry: &[u8]) {
        let flags = u8_at(entry, 4);
        let long = flags & 0x80 != 0;
        let mut rest = entry.get(5..).unwrap_or_default();
        for (bit, slot) in self.times.iter_mut().enumerate() {
            if flags >> bit & 1 == 0 {
                continue;
            }
            let Some((date, after)) = rest.split_at_checked(if long { 17 } else { 7 }) else { return };
            *slot = Some(if long { long_date(array(date, 0)) } else { short_date(array(date, 0)) });
            rest = after;
        }
    }
}
