//! The parent of a snapshot or linked clone.

use super::descriptor::Descriptor;
use crate::error::{Error, Result};
use crate::format::{Layer, Parent};
use crate::source::{Reference, Role};

/// The parent that `descriptor`, found in the file `own_name`, names.
///
/// # Errors
/// `vmdk.parent` when there is one and it has no name.
pub(super) fn of(descriptor: &Descriptor, own_name: &str) -> Result<Option<Parent>> {
    if !descriptor.has_parent() {
        return Ok(None);
    }
    let Some(hint) = descriptor.parent_hint.as_deref().filter(|hint| !hint.is_empty()) else {
        return Err(Error::corrupt("vmdk.parent", "the disk is a snapshot and does not name its parent")
            .hint("consolidate the snapshots in VMware, or export the machine as OVF"));
    };
    let expected = descriptor.parent_cid.map(id);
    let accept = move |parent: &dyn Layer| {
        let found = parent.identity();
        if found.is_some() && found == expected {
            return Ok(());
        }
        Err(Error::corrupt(
            "vmdk.parent",
            "this is not the parent that the snapshot was made for, or it was written to since",
        )
        .expected(format!("CID {}", expected.as_deref().unwrap_or("that is not given")))
        .found(found.unwrap_or_else(|| parent.format().to_owned()))
        .hint("give the right file with --map-path OLD=NEW, or --ignore-parent-id if it is the right one all the same"))
    };
    Ok(Some(Parent { names: names(hint, own_name), accept: Box::new(accept) }))
}

/// A content id as the descriptor writes it.
pub(super) fn id(cid: u32) -> String {
    format!("{cid:08x}")
}

/// The name as written, then the last part of it, beside the image: machines are copied from hosts whose paths do not exist
/// here. A disk is never its own parent.
fn names(hint: &[u8], own_name: &str) -> Vec<Reference> {
    let last = |path: &[u8]| path.rsplit(|b| matches!(b, b'/' | b'\\')).next().unwrap_or_default().to_vec();
    let mut names = vec![Reference::new(hint, Role::Parent)];
    let beside = last(hint);
    if beside != hint && !beside.is_empty() && beside != last(own_name.as_bytes()) {
        names.push(Reference::new(beside, Role::Parent));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(lines: &str) -> Result<Option<Vec<String>>> {
        let text = format!("# Disk DescriptorFile\n{lines}\n");
        let parent = of(&Descriptor::parse(text.as_bytes())?, "/home/u/disk-000001.vmdk")?;
        Ok(parent.map(|parent| parent.names.iter().map(ToString::to_string).collect()))
    }

    #[test]
    fn a_parent_is_looked_for_where_it_is_said_to_be_and_then_beside_its_child() {
        let cases: &[(&str, &[&str])] = &[
            ("disk.vmdk", &["disk.vmdk"]),
            ("/vmfs/volumes/5e/vm/disk.vmdk", &["/vmfs/volumes/5e/vm/disk.vmdk", "disk.vmdk"]),
            ("C:\\vms\\disk.vmdk", &["C:\\vms\\disk.vmdk", "disk.vmdk"]),
            ("../base/disk.vmdk", &["../base/disk.vmdk", "disk.vmdk"]),
            ("/other/disk-000001.vmdk", &["/other/disk-000001.vmdk"]),
            ("/vmfs/", &["/vmfs/"]),
        ];
        for (hint, expected) in cases {
            let names = named(&format!("parentCID=1\nparentFileNameHint=\"{hint}\"")).unwrap().unwrap();
            assert_eq!(names, *expected);
        }
    }

    #[test]
    fn a_parent_needs_a_name() {
        assert!(named("parentCID=ffffffff").unwrap().is_none());
        assert!(named("parentCID=ffffffff\nparentFileNameHint=\"a.vmdk\"").unwrap().is_some());
        for lines in ["parentCID=12345678", "parentCID=fffffffe", "parentCID=1\nparentFileNameHint=\"\""] {
            assert_eq!(named(lines).unwrap_err().code(), "vmdk.parent", "{lines}");
        }
    }
}
