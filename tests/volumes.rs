//! Volumes that LVM, MD and LUKS made in a small machine (tests/fixtures/volumes.sh): every byte as its kernel read it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use hyper2kvm::disk::{Checked, Disk, DiskMut, Slice};
use hyper2kvm::volume::{lvm, md, scan};
use sha2::{Digest, Sha256};

use crate::file_disk::FileDisk;
use crate::support::tools;

fn folder() -> &'static PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| match std::env::var_os("HYPER2KVM_VOLUME_DIR") {
        Some(folder) => folder.into(),
        None => {
            let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/volumes.sh");
            tools::ok(script, ["--path"]).trim().into()
        }
    })
}

/// The disks of one machine, in order.
fn disks(machine: &str) -> Vec<Arc<dyn DiskMut>> {
    let file = |n: u32| folder().join(machine).join(format!("disk{n}.raw"));
    let disks: Vec<_> = (1..).map(file).take_while(|path| path.exists()).collect();
    assert!(!disks.is_empty(), "{} is missing: run `make fixtures`", folder().display());
    disks.iter().map(|path| FileDisk::open(path) as Arc<dyn DiskMut>).collect()
}

/// What the machine's own kernel read: name, then size and SHA-256.
fn sums(machine: &str) -> BTreeMap<String, (u64, String)> {
    let log = std::fs::read_to_string(folder().join(machine).join("log")).unwrap();
    let lines = log.lines().filter_map(|line| line.strip_prefix("SHA "));
    lines
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            (words[0].to_owned(), (words[1].parse().unwrap(), words[2].to_owned()))
        })
        .collect()
}

fn sum(disk: &dyn Disk) -> (u64, String) {
    // An odd size of reads crosses every sort of boundary.
    let (mut hasher, mut buf, mut at) = (Sha256::new(), vec![0; 1_000_003], 0);
    while at < disk.len() {
        let len = usize::try_from(disk.len() - at).unwrap().min(buf.len());
        disk.read_at(&mut buf[..len], at).unwrap();
        hasher.update(&buf[..len]);
        at += len as u64;
    }
    (disk.len(), hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn partitions(disk: &Arc<dyn DiskMut>) -> Vec<Arc<dyn DiskMut>> {
    let whole = Arc::clone(disk) as Arc<dyn Disk>;
    let table = scan(&whole).unwrap().expect("a table");
    let slice = |range| Checked::wrap(Slice::new_mut("part", Arc::clone(disk), range).unwrap()) as Arc<dyn DiskMut>;
    table.partitions.into_iter().map(|partition| slice(partition.range)).collect()
}

#[test]
fn every_logical_volume_has_the_bytes_that_the_kernel_read() {
    let found = lvm::groups(&disks("lvm"));
    assert!(found.problems.is_empty(), "{:?}", found.problems);
    let [group] = found.groups.as_slice() else { panic!("{:?}", found.groups) };
    let mut expected = sums("lvm");
    // Snapshots of the old kind are refused.
    assert!(expected.remove("vg-a/oldsnap").is_some());
    let snapshot = group.volumes.iter().find(|volume| volume.name == "oldsnap").unwrap();
    assert_eq!(snapshot.disk.as_ref().unwrap_err().code(), "lvm.snapshot");
    for volume in group.volumes.iter().filter(|volume| volume.name != "oldsnap") {
        let name = format!("vg-a/{}", volume.name);
        let disk = volume.disk.as_ref().unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert_eq!(expected.remove(&name), Some(sum(&**disk)), "{name}");
    }
    assert!(expected.is_empty(), "{expected:?}");
}

#[test]
fn without_one_disk_what_has_another_copy_is_still_right() {
    let expected = sums("lvm");
    for gone in 0..disks("lvm").len() {
        let mut disks = disks("lvm");
        disks.remove(gone);
        let found = lvm::groups(&disks);
        let group = &found.groups[0];
        assert_eq!(group.missing.len(), 1);
        let mut read = 0;
        for volume in &group.volumes {
            let is_redundant = volume.kinds.iter().any(|kind| kind.starts_with("raid") && !kind.starts_with("raid0"));
            match &volume.disk {
                Ok(disk) => {
                    assert_eq!(
                        expected[&format!("vg-a/{}", volume.name)],
                        sum(&**disk),
                        "{} without {gone}",
                        volume.name
                    );
                    read += 1;
                }
                Err(error) => {
                    assert!(!is_redundant, "{} without {gone}: {error:?}", volume.name);
                    assert!(["lvm.missing", "lvm.snapshot"].contains(&error.code()), "{error:?}");
                }
            }
        }
        assert!(read >= 10, "{read}");
    }
}

#[test]
fn every_array_has_the_bytes_that_the_kernel_read() {
    let mut members = Vec::new();
    for disk in disks("md").iter().flat_map(partitions) {
        if let Some(member) = md::probe(&*disk).unwrap() {
            members.push((member, disk));
        }
    }
    let mut expected = sums("md");
    let uuids = std::fs::read_to_string(folder().join("md/log")).unwrap();
    for array in md::arrays(members.clone()) {
        assert!(uuids.contains(&format!("UUID : {}", array.uuid)), "{}", array.uuid);
        let disk = array.disk.as_ref().unwrap_or_else(|error| panic!("{array:?}: {error:?}"));
        let found = sum(&**disk);
        // A superblock of 0.90 has no name.
        let name = array.name.clone().unwrap_or_else(|| {
            expected
                .iter()
                .find(|(_, sum)| **sum == found)
                .map(|(name, _)| name.clone())
                .expect("an array without a name")
        });
        assert_eq!(expected.remove(&name), Some(found), "{name}");
    }
    assert!(expected.is_empty(), "{expected:?}");
    without_any_one_member(&members);
}

/// Arrays with copies or parity read the same without any one of their members; the others are refused by name.
fn without_any_one_member(members: &[(md::Member, Arc<dyn DiskMut>)]) {
    let whole: BTreeMap<String, _> =
        md::arrays(members.to_vec()).into_iter().map(|array| (array.uuid.clone(), array)).collect();
    for gone in 0..members.len() {
        let uuid = &members[gone].0.uuid;
        let same = members.iter().enumerate().filter(|(index, (member, _))| *index != gone && member.uuid == *uuid);
        let [array] = &md::arrays(same.map(|(_, pair)| pair.clone()).collect())[..] else { continue };
        let before = &whole[uuid];
        let is_redundant =
            !matches!(array.level.as_str(), "linear" | "raid0") && before.active == before.members as usize;
        match &array.disk {
            Ok(disk) => assert!(sum(&**disk) == sum(&**before.disk.as_ref().unwrap()) || !is_redundant, "{array:?}"),
            Err(error) => {
                assert_eq!(error.code(), "md.degraded");
                assert!(!is_redundant, "{array:?}");
            }
        }
    }
}
