//! POSIX access control lists: ext stores them shorter than the form in which programs set and get them.

use super::corrupt;
use crate::disk::bytes::{le16, le32};
use crate::error::Result;

const DISK_VERSION: u32 = 1;
const USER_VERSION: u32 = 2;
/// Named users and groups have an id.
const NAMED: [u16; 2] = [0x02, 0x08];
const NO_ID: [u8; 4] = [0xff; 4];

/// The form that `getxattr` gives.
pub(super) fn to_user(disk: &[u8]) -> Result<Vec<u8>> {
    if le32(disk, 0) != DISK_VERSION {
        return Err(corrupt("an access control list has an unknown version").found(le32(disk, 0)));
    }
    let mut out = USER_VERSION.to_le_bytes().to_vec();
    let mut rest = disk.get(4..).unwrap_or_default();
    while !rest.is_empty() {
        let len = if NAMED.contains(&le16(rest, 0)) { 8 } else { 4 };
        let entry = rest.get(..len).ok_or_else(|| corrupt("an access control list is cut short"))?;
        out.extend_from_slice(entry);
        if len == 4 {
            out.extend(NO_ID);
        }
        rest = rest.get(len..).unwrap_or_default();
    }
    Ok(out)
}

/// The form on disk.
pub(super) fn to_disk(user: &[u8]) -> Result<Vec<u8>> {
    let (version, entries) = user.split_at_checked(4).unwrap_or_default();
    let (entries, rest) = entries.as_chunks::<8>();
    if le32(version, 0) != USER_VERSION || !rest.is_empty() {
        return Err(corrupt("an access control list has an unknown form"));
    }
    let mut out = DISK_VERSION.to_le_bytes().to_vec();
    for entry in entries {
        let len = if NAMED.contains(&le16(entry, 0)) { 8 } else { 4 };
        out.extend_from_slice(entry.get(..len).unwrap_or_default());
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_hold_the_same() {
        let disk = [&1_u32.to_le_bytes()[..], &[1, 0, 6, 0], &[2, 0, 4, 0, 0xe8, 3, 0, 0], &[0x10, 0, 4, 0]].concat();
        let user = to_user(&disk).unwrap();
        assert_eq!(user.len(), 4 + 3 * 8);
        assert_eq!(to_disk(&user).unwrap(), disk);
        assert!(to_user(&disk[..11]).is_err());
        assert!(to_user(&[2, 0, 0, 0]).is_err());
        assert!(to_disk(&user[..7]).is_err());
    }
}
