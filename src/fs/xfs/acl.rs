//! POSIX access control lists: XFS stores them in a form of its own, as attributes of the `trusted` namespace. The kernel
//! shows both these and the form in which programs set and get them; so does this driver.

use super::corrupt;
use crate::disk::bytes::{be16, be32, le16, le32, size};
use crate::error::Result;

const USER_VERSION: u32 = 2;
/// Named users and groups have an id.
const NAMED: [u16; 2] = [0x02, 0x08];
const NO_ID: u32 = u32::MAX;
/// Bytes of an entry on disk.
const ENTRY: usize = 12;

/// The name under which the kernel shows the list that is stored as `name`.
pub(super) fn shown_as(name: &[u8]) -> Option<&'static [u8]> {
    match name {
        b"SGI_ACL_FILE" => Some(b"system.posix_acl_access"),
        b"SGI_ACL_DEFAULT" => Some(b"system.posix_acl_default"),
        _ => None,
    }
}

/// The name under which the list that the kernel shows as `name` is stored.
pub(super) fn stored_as(name: &[u8]) -> Option<Vec<u8>> {
    match name {
        b"system.posix_acl_access" => Some(b"trusted.SGI_ACL_FILE".to_vec()),
        b"system.posix_acl_default" => Some(b"trusted.SGI_ACL_DEFAULT".to_vec()),
        _ => None,
    }
}

/// The form on disk of what `setxattr` takes.
pub(super) fn to_disk(user: &[u8]) -> Result<Vec<u8>> {
    let (version, entries) = user.split_at_checked(4).unwrap_or_default();
    let (entries, rest) = entries.as_chunks::<8>();
    if le32(version, 0) != USER_VERSION || !rest.is_empty() {
        return Err(corrupt("an access control list has an unknown form"));
    }
    let mut out = u32::try_from(entries.len()).unwrap_or(u32::MAX).to_be_bytes().to_vec();
    for entry in entries {
        let (tag, id) = (le16(entry, 0), le32(entry, 4));
        out.extend(u32::from(tag).to_be_bytes());
        out.extend(if NAMED.contains(&tag) { id } else { NO_ID }.to_be_bytes());
        out.extend(le16(entry, 2).to_be_bytes());
        out.extend([0; 2]);
    }
    Ok(out)
}

/// The form that `getxattr` gives.
pub(super) fn to_user(disk: &[u8]) -> Result<Vec<u8>> {
    let count = size(u64::from(be32(disk, 0)));
    let entries = disk.get(4..).unwrap_or_default();
    if count > entries.len() / ENTRY {
        return Err(corrupt("an access control list is cut short"));
    }
    let mut out = USER_VERSION.to_le_bytes().to_vec();
    for entry in entries.chunks_exact(ENTRY).take(count) {
        let Ok(tag) = u16::try_from(be32(entry, 0)) else {
            return Err(corrupt("an access control list has an unknown entry").found(be32(entry, 0)));
        };
        let id = if NAMED.contains(&tag) { be32(entry, 4) } else { NO_ID };
        out.extend(tag.to_le_bytes());
        out.extend(be16(entry, 8).to_le_bytes());
        out.extend(id.to_le_bytes());
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_turned_round() {
        let disk = [
            &[0, 0, 0, 2][..],
            &[0, 0, 0, 1, 255, 255, 255, 255, 0, 6, 0, 0],
            &[0, 0, 0, 2, 0, 0, 3, 0xe8, 0, 4, 0, 0],
        ];
        let disk = disk.concat();
        let expected = [&[2, 0, 0, 0][..], &[1, 0, 6, 0, 255, 255, 255, 255], &[2, 0, 4, 0, 0xe8, 3, 0, 0]].concat();
        assert_eq!(to_user(&disk).unwrap(), expected);
        assert_eq!(to_disk(&expected).unwrap(), disk);
        assert!(to_disk(&expected[..11]).is_err() && to_disk(&[1, 0, 0, 0]).is_err());
        assert!(to_user(&disk[..27]).is_err());
        assert!(to_user(&[0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).is_err());
        assert_eq!(to_user(&[]).unwrap(), [2, 0, 0, 0]);
    }
}
