//! Local users and groups of the hive `SAM`. Of passwords nothing is read but when they were set.
//!
//! Sources: [MS-SAMR] for the meaning of fields and flags; the registry knowledge base of libyal ("SAM: Domains") for their places.

use serde::Serialize;

use super::{bounded, filetime};
use crate::disk::bytes::{array, le32, le64, size, u8_at};
use crate::error::Result;
use crate::hive::{Hive, Key};
use crate::limits;

/// A local user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Account {
    /// The name to log in with.
    pub name: String,
    /// The last part of the security identifier.
    pub rid: u32,
    /// The security identifier, where the machine's is known.
    pub sid: Option<String>,
    /// The name for people.
    pub full_name: String,
    /// What is said about the user.
    pub comment: String,
    /// Whether the user is a member of the local group of administrators, by itself and not by another group.
    pub administrator: bool,
    /// Whether the user may not log in.
    pub disabled: bool,
    /// Whether too many wrong passwords locked the user out.
    pub locked: bool,
    /// Whether the password may be empty.
    pub password_optional: bool,
    /// Whether the password never expires.
    pub password_never_expires: bool,
    /// When the password was set last: seconds since the epoch.
    pub password_set: Option<i64>,
    /// When the user logged in last: seconds since the epoch.
    pub last_logon: Option<i64>,
    /// When the account expires: seconds since the epoch; `None` for never.
    pub expires: Option<i64>,
    /// Local groups that the user is in, by name.
    pub groups: Vec<String>,
}

/// A local group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Group {
    /// Its name.
    pub name: String,
    /// The security identifier, where it is known.
    pub sid: Option<String>,
    /// What is said about it.
    pub comment: String,
    /// The security identifiers of its members: users and groups of the machine, of a domain, or well-known ones.
    pub members: Vec<String>,
}

/// What the hive tells.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    pub(super) machine_sid: Option<String>,
    pub(super) users: Vec<Account>,
    pub(super) groups: Vec<Group>,
}

/// The group of administrators on every machine.
const ADMINISTRATORS: &str = "S-1-5-32-544";

/// Values of `UserAccountControl` ([MS-SAMR] 2.2.1.12).
const DISABLED: u32 = 1;
const PASSWORD_NOT_REQUIRED: u32 = 4;
const DONT_EXPIRE_PASSWORD: u32 = 0x200;
const AUTO_LOCKED: u32 = 0x400;

pub(super) fn read(hive: &Hive) -> Result<Accounts> {
    let mut found = Accounts::default();
    let account = hive.key("SAM\\Domains\\Account")?;
    if let Some(account) = &account {
        found.machine_sid = account.bytes("V")?.as_deref().and_then(machine_sid);
        for (rid, key) in numbered(account.subkey("Users")?)? {
            found.users.extend(user(rid, &key, found.machine_sid.as_deref())?);
        }
    }
    let builtin = hive.key("SAM\\Domains\\Builtin")?;
    let domains = [(builtin, Some("S-1-5-32")), (account, found.machine_sid.as_deref())];
    for (domain, sid) in &domains {
        let aliases = domain.as_ref().map_or(Ok(None), |domain| domain.subkey("Aliases"))?;
        for (rid, key) in numbered(aliases)? {
            let sid = sid.map(|domain| format!("{domain}-{rid}"));
            found.groups.extend(key.bytes("C")?.and_then(|data| group(&data, sid)));
        }
    }
    for user in &mut found.users {
        let of = |group: &&Group| user.sid.as_ref().is_some_and(|sid| group.members.contains(sid));
        let groups: Vec<&Group> = found.groups.iter().filter(of).collect();
        user.administrator = groups.iter().any(|group| group.sid.as_deref() == Some(ADMINISTRATORS));
        user.groups = groups.into_iter().map(|group| group.name.clone()).collect();
    }
    Ok(found)
}

/// The subkeys that are named by a number in eight hexadecimal digits.
fn numbered(key: Option<Key<'_>>) -> Result<Vec<(u32, Key<'_>)>> {
    let Some(key) = key else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for key in key.subkeys()?.take(limits::MAX_WINDOWS_ITEMS) {
        let key = key?;
        if let Some(number) =
            Some(key.name()).filter(|name| name.len() == 8).and_then(|name| u32::from_str_radix(name, 16).ok())
        {
            found.push((number, key));
        }
    }
    Ok(found)
}

/// `V` of the machine's own domain ends with its identifier, which has four parts.
fn machine_sid(data: &[u8]) -> Option<String> {
    const LENGTH: usize = 24;
    let (text, length) = sid(data.get(data.len().checked_sub(LENGTH)?..)?)?;
    (length == LENGTH && text.starts_with("S-1-5-21-")).then_some(text)
}

/// Places in `F`.
const LAST_LOGON: usize = 8;
const PASSWORD_SET: usize = 24;
const EXPIRES: usize = 32;
const CONTROL: usize = 56;

/// Which of the descriptors in `V` is about what.
const NAME: usize = 1;
const FULL_NAME: usize = 2;
const COMMENT: usize = 3;

fn user(rid: u32, key: &Key<'_>, machine: Option<&str>) -> Result<Option<Account>> {
    let (Some(fixed), Some(texts)) = (key.bytes("F")?, key.bytes("V")?) else { return Ok(None) };
    if fixed.len() < CONTROL.saturating_add(4) {
        return Ok(None);
    }
    let name = described(&texts, NAME);
    if name.is_empty() {
        return Ok(None);
    }
    let control = le32(&fixed, CONTROL);
    Ok(Some(Account {
        name,
        rid,
        sid: machine.map(|machine| format!("{machine}-{rid}")),
        full_name: described(&texts, FULL_NAME),
        comment: described(&texts, COMMENT),
        administrator: false,
        disabled: control & DISABLED != 0,
        locked: control & AUTO_LOCKED != 0,
        password_optional: control & PASSWORD_NOT_REQUIRED != 0,
        password_never_expires: control & DONT_EXPIRE_PASSWORD != 0,
        password_set: filetime(le64(&fixed, PASSWORD_SET)),
        last_logon: filetime(le64(&fixed, LAST_LOGON)),
        expires: filetime(le64(&fixed, EXPIRES)),
        groups: Vec::new(),
    }))
}

/// The text of a descriptor in `V`: an offset from the end of all 17 of them, and a length.
fn described(data: &[u8], index: usize) -> String {
    const DESCRIPTOR: usize = 12;
    const DATA: usize = 17 * DESCRIPTOR;
    let at = index.saturating_mul(DESCRIPTOR);
    text(data, DATA, le32(data, at), le32(data, at.saturating_add(4)))
}

/// UTF-16 at `offset` from `base`; nothing where it is not whole.
fn text(data: &[u8], base: usize, offset: u32, length: u32) -> String {
    let bytes = piece(data, base, offset, length).unwrap_or_default();
    let units: Vec<u16> = bytes.chunks_exact(2).map(|unit| u16::from_le_bytes(array(unit, 0))).collect();
    bounded(String::from_utf16_lossy(&units))
}

fn piece(data: &[u8], base: usize, offset: u32, length: u32) -> Option<&[u8]> {
    let from = base.checked_add(size(u64::from(offset)))?;
    data.get(from..from.checked_add(size(u64::from(length)))?)
}

fn group(data: &[u8], sid: Option<String>) -> Option<Group> {
    const DATA: usize = 52;
    let name = text(data, DATA, le32(data, 16), le32(data, 20));
    if name.is_empty() {
        return None;
    }
    let count = size(u64::from(le32(data, 48))).min(limits::MAX_WINDOWS_ITEMS);
    let mut rest = piece(data, DATA, le32(data, 40), le32(data, 44)).unwrap_or_default();
    let mut members = Vec::new();
    while members.len() < count
        && let Some((member, length)) = self::sid(rest)
    {
        members.push(member);
        rest = rest.get(length..).unwrap_or_default();
    }
    Some(Group { name, sid, comment: text(data, DATA, le32(data, 28), le32(data, 32)), members })
}

/// A security identifier as text, and its length ([MS-DTYP] 2.4.2.2).
pub(super) fn sid(data: &[u8]) -> Option<(String, usize)> {
    const PARTS: usize = 8;
    const MOST: u8 = 15;
    let count = u8_at(data, 1);
    if u8_at(data, 0) != 1 || count > MOST {
        return None;
    }
    let end = PARTS.checked_add(usize::from(count).checked_mul(4)?)?;
    let parts = data.get(PARTS..end)?;
    let authority: [u8; 6] = array(data, 2);
    let authority = authority.iter().fold(0_u64, |all, byte| all << 8 | u64::from(*byte));
    let mut text = format!("S-1-{authority}");
    parts.chunks_exact(4).for_each(|part| text.push_str(&format!("-{}", le32(part, 0))));
    Some((text, end))
}
