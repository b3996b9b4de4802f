//! POSIX access control lists: XFS stores them in a form of its own, as attributes of the `trusted` namespace. The kernel
//! shows both these and the form in which programs set and get them; so does this driver.

use super::corrupt;
use crate::disk::bytes::{be16, be32, size};
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
        let disk = [&[0, 0, 0, 2][..], &[0, 0, 0, 1, 0, 0, 0, 0, 0, 6, 0, 0], &[0, 0, 0, 2, 0, 0, 3, 0xe8, 0, 4, 0, 0]];
        let disk = disk.concat();
        let expected = [&[2, 0, 0, 0][..], &[1, 0, 6, 0, 255, 255, 255, 255], &[2, 0, 4, 0, 0xe8, 3, 0, 0]].concat();
        assert_eq!(to_user(&disk).unwrap(), expected);
        assert!(to_user(&disk[..27]).is_err());
        assert!(to_user(&[0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).is_err());
        assert_eq!(to_user(&[]).unwrap(), [2, 0, 0, 0]);
    }
}
