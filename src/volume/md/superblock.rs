//! The superblocks of Linux MD: 0.90 (`include/uapi/linux/raid/md_p.h`, `mdp_super_t`) and 1.x (`mdp_superblock_1`).

use crate::disk::bytes::{array, be32, le16, le32, le64, size, text};
use crate::disk::{Disk, read_vec};
use crate::error::{Error, Result};
use crate::limits;

const MAGIC: u32 = 0xa92b_4efc;
/// Bytes of a superblock: 1,024 words in 0.90, the fixed part and two bytes a role in 1.x.
const LEN: u64 = 4096;
const ROLES: usize = 256;
/// The most roles that fit behind the fixed part of a superblock of 4 KiB.
const MAX_ROLES: u32 = 1920;
/// Descriptors of disks in 0.90.
const DISKS_0_90: u32 = 27;
/// As a role, and as a position that was reached: all of it.
const ALL: u64 = u64::MAX;

const FEATURE_RECOVERY_OFFSET: u32 = 2;
const FEATURE_RESHAPE_ACTIVE: u32 = 4;
const FEATURE_BAD_BLOCKS: u32 = 8;
const FEATURE_REPLACEMENT: u32 = 16;
const FEATURE_JOURNAL: u32 = 512;
/// Features that change nothing for who reads: a bitmap, a partial parity log, the layout of level 0.
const FEATURES_HARMLESS: u32 = 1 | 64 | 128 | 1024 | 2048 | 4096;

/// What a member says of its array and of itself. Sizes are in bytes.
#[derive(Clone, Debug)]
pub struct Member {
    /// The array's UUID, as mdadm shows it: four groups of eight hex digits.
    pub uuid: String,
    /// The array's name as it is written, usually `host:name`; empty in 0.90.
    pub name: String,
    /// The number of its device, where the superblock has it: `/dev/md0`.
    pub number: Option<u32>,
    /// `0.90`, `1.0` …
    pub version: &'static str,
    /// Counts the changes of the array's state.
    pub events: u64,
    /// Where the superblock is.
    pub offset: u64,
    pub(super) level: i32,
    pub(super) layout: u32,
    pub(super) chunk: u64,
    /// What each member contributes to arrays of level 1 and up.
    pub(super) used: u64,
    pub(super) raid_disks: u32,
    pub(super) data_offset: u64,
    /// What this member has room for.
    pub(super) data_size: u64,
    /// Its place in the list of roles.
    pub(super) device: u32,
    /// What each device's part is, as this superblock knows it.
    pub(super) roles: Vec<Role>,
    /// Why it cannot be read, for all members of the array.
    pub(super) refused: Option<Error>,
    /// Whether it holds all that it should.
    pub(super) is_filled: bool,
    /// Whether parity is right everywhere.
    pub(super) is_clean: bool,
}

/// A device's part in its array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// In this place.
    Active(u32),
    /// Failed or removed.
    Faulty,
    /// Waits, or keeps a journal.
    Spare,
}

impl Member {
    /// Whether what the array takes of each member is there on this one.
    pub(in crate::volume) fn fits(&self) -> bool {
        self.level < 1 || self.used <= self.data_size
    }
}

/// The superblock of `disk`, wherever one may be; the one that is furthest on when there are several.
///
/// # Errors
/// `md.superblock` when there is one that is damaged, and no other.
pub fn probe(disk: &dyn Disk) -> Result<Option<Member>> {
    let len = disk.len();
    let at_end = |back: u64, align: u64| len.checked_sub(back).map(|at| at & !align.saturating_sub(1));
    let places = [
        (Some(0), "1.1"),
        (Some(4096), "1.2"),
        (at_end(16 * 512, 4096), "1.0"),
        ((len & !0xffff).checked_sub(0x1_0000), "0.90"),
    ];
    let (mut best, mut failure): (Option<Member>, Option<Error>) = (None, None);
    for (offset, version) in places {
        let Some(offset) = offset.filter(|offset| offset.checked_add(LEN).is_some_and(|end| end <= len)) else {
            continue;
        };
        let bytes = read_vec(disk, offset, size(LEN))?;
        if le32(&bytes, 0) != MAGIC && (version != "0.90" || be32(&bytes, 0) != MAGIC) {
            continue;
        }
        let read = if version == "0.90" { old(&bytes, offset) } else { new(&bytes, offset, version, len) };
        match read.map_err(|error| error.offset(offset)) {
            Ok(member) if best.as_ref().is_none_or(|best| best.events < member.events) => best = Some(member),
            Ok(_) => {}
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    match (best, failure) {
        (None, Some(error)) => Err(error),
        (best, _) => Ok(best),
    }
}

/// Version 0.90, in the byte order of the machine that made it: little-endian ones are read.
fn old(bytes: &[u8], offset: u64) -> Result<Member> {
    if be32(bytes, 0) == MAGIC {
        return Err(Error::unsupported("md.unsupported", "the superblock is of a big-endian machine")
            .hint("mdadm --assemble --update=byteorder, on a machine of that kind"));
    }
    let word = |index: usize| le32(bytes, index.saturating_mul(4));
    let pair = |low: usize| u64::from(word(low)) | (u64::from(word(low.saturating_add(1))) << 32);
    if word(1) != 0 || !matches!(word(2), 90 | 91) {
        return Err(wrong("is of a version that is not known").found(format!("{}.{}", word(1), word(2))));
    }
    check(sum_of_words(bytes, 38 * 4), word(38))?;
    let (raid_disks, this) = (word(10), word(992));
    if raid_disks == 0 || raid_disks > DISKS_0_90 || this >= DISKS_0_90 {
        return Err(wrong("has an impossible number of disks"));
    }
    let role = |number: u32| {
        let at = size(u64::from(number)).saturating_mul(32).saturating_add(128);
        let (place, state) = (word(at.saturating_add(3)), word(at.saturating_add(4)));
        match state {
            state if state & 0b1001 != 0 => Role::Faulty,
            state if state & 0b100 != 0 && place < raid_disks => Role::Active(place),
            _ => Role::Spare,
        }
    };
    let is_clean = word(33) & 1 != 0;
    let reshaping =
        || Error::unsupported("md.reshape", "the array is being reshaped").hint("let the reshape end in the guest");
    Ok(Member {
        uuid: format!("{:08x}:{:08x}:{:08x}:{:08x}", word(5), word(13), word(14), word(15)),
        name: String::new(),
        number: Some(word(11)).filter(|number| *number < (1 << 20)),
        version: "0.90",
        events: pair(39),
        offset,
        level: i32::from_le_bytes(array(bytes, 28)),
        layout: word(64),
        chunk: u64::from(word(65)),
        used: u64::from(word(8)).saturating_mul(1024),
        raid_disks,
        data_offset: 0,
        data_size: offset,
        device: this,
        roles: (0..DISKS_0_90).map(role).collect(),
        refused: (word(2) == 91).then(reshaping),
        is_filled: true,
        is_clean,
    })
}

/// Version 1, whose three minor versions differ in their place.
fn new(bytes: &[u8], offset: u64, version: &'static str, len: u64) -> Result<Member> {
    if le32(bytes, 4) != 1 {
        return Err(wrong("is of a version that is not known").found(le32(bytes, 4)));
    }
    let count = le32(bytes, 220);
    if count > MAX_ROLES {
        return Err(wrong("has too many roles").found(count));
    }
    let used_len = size(u64::from(count)).saturating_mul(2).saturating_add(ROLES);
    check(sum_of_words(bytes.get(..used_len).unwrap_or_default(), 216), le32(bytes, 216))?;
    let sectors = |at: usize| le64(bytes, at).checked_mul(512).ok_or_else(|| wrong("has numbers that are too large"));
    if sectors(144)? != offset {
        return Err(wrong("belongs elsewhere")
            .expected(format!("{offset:#x}"))
            .found(format!("{:#x}", le64(bytes, 144))));
    }
    let (features, raid_disks, device) = (le32(bytes, 8), le32(bytes, 92), le32(bytes, 160));
    let (data_offset, data_size) = (sectors(128)?, sectors(136)?);
    if data_offset.checked_add(data_size).is_none_or(|end| end > len) {
        return Err(wrong("has data past the end of its device"));
    }
    if raid_disks == 0 || size(u64::from(raid_disks)) > limits::MAX_RAID_MEMBERS {
        return Err(wrong("has an impossible number of disks").found(raid_disks));
    }
    let role = |number: u32| match le16(bytes, size(u64::from(number)).saturating_mul(2).saturating_add(ROLES)) {
        0xfffe => Role::Faulty,
        place if u32::from(place) < raid_disks => Role::Active(u32::from(place)),
        _ => Role::Spare,
    };
    let is_behind = features & FEATURE_RECOVERY_OFFSET != 0 && le64(bytes, 152) != ALL;
    let has_bad_blocks = features & FEATURE_BAD_BLOCKS != 0 && le16(bytes, 186) != 0;
    Ok(Member {
        uuid: shown_uuid(bytes),
        name: text(bytes.get(32..64).unwrap_or_default()).unwrap_or_default(),
        number: None,
        version,
        events: le64(bytes, 200),
        offset,
        level: i32::from_le_bytes(array(bytes, 72)),
        layout: le32(bytes, 76),
        chunk: u64::from(le32(bytes, 88)).saturating_mul(512),
        used: sectors(80)?,
        raid_disks,
        data_offset,
        data_size,
        device,
        roles: (0..count).map(role).collect(),
        refused: refused(features),
        is_filled: !is_behind && features & FEATURE_REPLACEMENT == 0 && !has_bad_blocks,
        is_clean: le64(bytes, 208) == ALL,
    })
}

fn refused(features: u32) -> Option<Error> {
    let known = FEATURES_HARMLESS | FEATURE_RECOVERY_OFFSET | FEATURE_BAD_BLOCKS | FEATURE_REPLACEMENT;
    if features & (FEATURE_RESHAPE_ACTIVE | 32) != 0 {
        let error = Error::unsupported("md.reshape", "the array is being reshaped");
        return Some(error.hint("let the reshape end in the guest; /proc/mdstat shows it"));
    }
    if features & FEATURE_JOURNAL != 0 {
        return Some(Error::unsupported("md.unsupported", "the array has a write journal, which may hold newer data"));
    }
    let unknown = features & !known;
    (unknown != 0).then(|| {
        Error::unsupported("md.unsupported", "the array has features that are not known").found(format!("{unknown:#x}"))
    })
}

fn shown_uuid(bytes: &[u8]) -> String {
    let group = |at: usize| be32(bytes, at);
    format!("{:08x}:{:08x}:{:08x}:{:08x}", group(16), group(20), group(24), group(28))
}

/// The sum of all words but the one at `skip`, with what carries over added once, as both versions have it.
pub(super) fn sum_of_words(bytes: &[u8], skip: usize) -> u32 {
    let words = bytes.chunks_exact(4);
    let rest = u64::from(le16(words.remainder(), 0));
    let sum = words
        .enumerate()
        .filter(|(index, _)| index.saturating_mul(4) != skip)
        .map(|(_, word)| u64::from(le32(word, 0)));
    let sum = sum.fold(rest, u64::saturating_add);
    let folded = (sum & 0xffff_ffff).saturating_add(sum >> 32) & 0xffff_ffff;
    u32::try_from(folded).unwrap_or(0)
}

fn check(found: u32, expected: u32) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(wrong("has a wrong checksum").expected(format!("{expected:#x}")).found(format!("{found:#x}")))
}

fn wrong(what: &str) -> Error {
    Error::corrupt("md.superblock", format!("a superblock of MD {what}"))
}

/// `bytes`, less what does not make a whole chunk.
pub(super) fn whole_chunks(bytes: u64, chunk: u64) -> u64 {
    bytes.saturating_sub(bytes.checked_rem(chunk).unwrap_or(0))
}
