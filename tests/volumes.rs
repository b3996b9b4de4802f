//! Volumes that LVM, MD and LUKS made in a small machine (tests/fixtures/volumes.sh): every byte as its kernel read it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use hyper2kvm::chain::OpenOptions;
use hyper2kvm::disk::{Checked, Disk, DiskMut, Slice, readable};
use hyper2kvm::error::Result;
use hyper2kvm::pipeline::migrate::Machine;
use hyper2kvm::session::{Keys, Secret, Session};
use hyper2kvm::volume::stack::{Stack, Whole};
use hyper2kvm::volume::{luks, lvm, md, scan};
use sha2::{Digest, Sha256};

use crate::file_disk::FileDisk;
use crate::support::{Lab, Run, tools};

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
    assert!(!disks.is_empty(), "{} is missing: run `make zoo`", folder().display());
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
#[ignore = "needs disks that an emulated machine makes: make zoo"]
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
#[ignore = "needs disks that an emulated machine makes: make zoo"]
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
#[ignore = "needs disks that an emulated machine makes: make zoo"]
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

const PASSPHRASE: &[u8] = b"correct horse";

fn unlock(disk: &Arc<dyn DiskMut>, key: &[u8]) -> Result<Arc<dyn DiskMut>> {
    luks::Header::read(&**disk)?.unlock(Arc::clone(disk), [&Secret::new(key.to_vec())])
}

#[test]
#[ignore = "needs disks that an emulated machine makes: make zoo"]
fn every_encrypted_volume_has_the_bytes_that_the_kernel_read() {
    let (expected, partitions) = (sums("luks"), partitions(&disks("luks")[0]));
    assert_eq!(expected.len(), 9);
    for (number, partition) in (1..).zip(&partitions).take(9) {
        // The eighth lost its first key when it got a second, with line feeds in it.
        let key = if number == 8 { b"line one\nline two\n" } else { PASSPHRASE };
        let inside = unlock(partition, key).unwrap_or_else(|error| panic!("{number}: {error:?}"));
        assert_eq!(expected[&format!("c{number}")], sum(&*inside), "{number}");
        assert_eq!(unlock(partition, b"wrong").unwrap_err().code(), "luks.key-wrong", "{number}");
    }
    assert_eq!(unlock(&partitions[7], PASSPHRASE).unwrap_err().code(), "luks.key-wrong");
    for partition in &partitions[9..] {
        // Serpent, and integrity, as far as that kernel had them.
        let error = unlock(partition, PASSPHRASE).unwrap_err();
        assert!(["luks.unsupported", "luks.header"].contains(&error.code()), "{error:?}");
    }
}

#[test]
fn qemu_reads_what_was_written_through_the_encryption_and_the_other_way_round() {
    let lab = Lab::new();
    let plain: Vec<u8> = (0..2_097_152_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let raw = lab.file("plain.raw", &plain);
    for (options, name) in
        [("", "a"), (",cipher-alg=aes-128,cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=sha256", "b")]
    {
        let image = lab.path(&format!("{name}.luks"));
        let secret = "secret,id=s,data=correct horse";
        let options = format!("key-secret=s,iter-time=10{options}");
        let to = ["convert", "--object", secret, "-f", "raw", "-O", "luks", "-o", &options];
        tools::ok(
            "qemu-img",
            to.map(std::ffi::OsString::from).into_iter().chain([raw.clone().into(), image.clone().into()]),
        );
        let disk: Arc<dyn DiskMut> = FileDisk::open(&image);
        let inside = unlock(&disk, PASSPHRASE).unwrap();
        let mut seen = vec![0; plain.len()];
        inside.read_at(&mut seen, 0).unwrap();
        assert!(seen == plain, "{name}");
        let mut model = plain.clone();
        for (at, len) in [(0, 1), (511, 2), (4096, 8192), (1_000_001, 700_001)] {
            let data: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
            inside.write_at(&data, at as u64).unwrap();
            model[at..at + len].copy_from_slice(&data);
        }
        inside.zero(900_000..1_000_000).unwrap();
        model[900_000..1_000_000].fill(0);
        let back = lab.path(&format!("{name}.raw"));
        let source = format!("driver=luks,key-secret=s,file.filename={}", image.display());
        tools::ok(
            "qemu-img",
            ["convert", "--object", secret, "--image-opts", &source, "-O", "raw", back.to_str().unwrap()],
        );
        assert!(std::fs::read(&back).unwrap() == model, "{name}");
    }
}

/// The machine whose root is on LVM in LUKS on RAID 1.
fn stacked(lab: &Lab) -> Vec<String> {
    let copy = |n| lab.copy(&folder().join(format!("stacked/disk{n}.raw")), &format!("disk{n}.raw"));
    [1, 2].map(|n| copy(n).to_str().unwrap().to_owned()).into()
}

#[test]
#[ignore = "needs disks that an emulated machine makes: make zoo"]
fn a_root_on_lvm_in_luks_on_raid_is_found_with_its_key() {
    let lab = Lab::new();
    let sources = stacked(&lab);
    let key = lab.file("key", [PASSPHRASE, b"\n"].concat());
    let key = format!("00000000-0000-4000-8000-000000000099:file:{}", key.display());
    let seen = Run::new(["inspect", "--json", "--key", &key])
        .arg(&sources[0])
        .arg(&sources[1])
        .success()
        .stdout_contains("stacked");
    drop(seen);
    let without = Run::new(["plan"]).arg(&sources[0]).arg(&sources[1]).fails_with(4);
    drop(without.code("guest.none").stderr_contains("--key 00000000-0000-4000-8000-000000000099:file:PATH"));
    // One disk of a mirror has all of it; the journal's volume is its own.
    for also in [&sources[1..], &[]] {
        let guest = |command: &str| {
            let run = Run::new(["guest", command, "--key", &key, "--format", "raw"]).arg(&sources[0]);
            also.iter().fold(run, |run, disk| run.arg("--also").arg(disk))
        };
        let expected = &sums("stacked")["bin/sh"].1;
        assert!(guest("sha256").arg("/bin/sh").success().stdout.starts_with(expected.as_str()));
        let mounted = guest("df").success().stdout;
        assert!(mounted.contains("/var/log") && mounted.contains("/boot"), "{mounted}");
        guest("ls").args(["--volume", "vg-guest/var-log", "/journal"]).success();
    }
    let listed = Run::new(["serve", "--stdio", "--dry-run", "--json", "--key", &key])
        .arg(&sources[0])
        .arg(&sources[1])
        .success();
    let listed = listed.json();
    let names: Vec<&str> = listed["exports"].as_array().unwrap().iter().map(|e| e["name"].as_str().unwrap()).collect();
    for name in [
        "disk1/p1",
        "disk2/p2",
        "md0",
        "luks-00000000-0000-4000-8000-000000000099",
        "vg-guest/root",
        "vg-guest/var-log",
    ] {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
}

#[test]
#[ignore = "needs disks that an emulated machine makes: make zoo"]
fn free_space_of_stacked_volumes_is_elided_on_every_disk_and_nothing_else_is() {
    let lab = Lab::new();
    let session = Session::with_defaults();
    let mut keys = Keys::default();
    keys.add("all", Secret::new(PASSPHRASE.to_vec()));
    session.give_keys(keys.clone());
    let machine = Machine::open(&stacked(&lab), &OpenOptions::default(), &session).unwrap();
    let guest = machine.look(&session, None).unwrap();
    assert!(guest.notes.is_empty(), "{:?}", guest.notes);
    let expected = sums("stacked");
    let check = |tree: &hyper2kvm::fs::Tree| {
        for file in ["var/log/journal", "boot/vmlinuz", "bin/sh"] {
            let bytes = tree.read(format!("/{file}"), 1 << 30).unwrap().unwrap_or_else(|| panic!("{file}"));
            assert_eq!(expected[file], sum(&hyper2kvm::disk::Memory::new(bytes)), "{file}");
        }
    };
    let system = guest.system().unwrap();
    check(&system.root.tree);
    let mapper = guest.machine.resolve("/dev/mapper/sealed").expect("the name that crypttab gives");
    assert_eq!(guest.machine.volumes[mapper].disks, [0, 1]);
    // What is copied is the disk with zeros where its file systems have nothing: the same files, the same volumes.
    let trimmed = guest.finish(true).unwrap();
    let holes = |disk: &Arc<dyn Disk>| {
        let mut bytes = 0;
        disk.extents(0..disk.len(), &mut |extent| {
            bytes += if extent.kind.is_zero() { extent.range.end - extent.range.start } else { 0 };
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
        bytes
    };
    let copies: Vec<Arc<dyn DiskMut>> = trimmed
        .iter()
        .map(|disk| {
            assert!(holes(disk) > 30 << 20, "{}", holes(disk));
            let mut bytes = vec![0; usize::try_from(disk.len()).unwrap()];
            disk.read_at(&mut bytes, 0).unwrap();
            Checked::wrap(hyper2kvm::disk::Memory::new(bytes)) as Arc<dyn DiskMut>
        })
        .collect();
    for only in [vec![0, 1], vec![0], vec![1]] {
        let disks: Vec<Arc<dyn DiskMut>> = only.iter().map(|index| Arc::clone(&copies[*index])).collect();
        let tables: Vec<_> = disks.iter().map(|disk| scan(&readable(disk)).unwrap()).collect();
        let whole =
            disks.iter().zip(&tables).map(|(disk, table)| Whole { disk: Arc::clone(disk), table: table.as_ref() });
        let stack = Stack::find(&whole.collect::<Vec<_>>(), &keys).unwrap();
        let open = |name: &str| {
            let layer = stack.layers.iter().find(|layer| layer.name == name).unwrap_or_else(|| panic!("{name}"));
            hyper2kvm::fs::open::open("ext4", readable(&layer.disk)).unwrap().unwrap()
        };
        let mut tree = hyper2kvm::fs::Tree::new(open("vg-guest/root"));
        tree.mount("/boot", open("md0")).unwrap();
        tree.mount("/var/log", open("vg-guest/var-log")).unwrap();
        check(&tree);
    }
}
