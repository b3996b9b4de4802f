//! Partition tables as sfdisk and parted see them.

use std::path::Path;
use std::process::{Command, Stdio};

use hyper2kvm::disk::Disk;
use hyper2kvm::volume::{Role, Table, scan};

use crate::file_disk::FileDisk;

#[allow(clippy::disallowed_methods, reason = "the second implementation is a program")]
fn run(program: &str, arguments: &[&str], input: &str) -> String {
    use std::io::Write;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program} is needed: {error}"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn ours(path: &Path) -> Table {
    let disk: std::sync::Arc<dyn Disk> = FileDisk::open(path);
    scan(&disk).unwrap().expect("a table")
}

/// Writes `script` with sfdisk to a disk of 256 MiB and compares what sfdisk and parted list with what `scan` lists.
fn compare(script: &str) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    std::fs::File::create(&path).unwrap().set_len(256 << 20).unwrap();
    let name = path.to_str().unwrap();
    run("sfdisk", &["--quiet", name], script);
    let table = ours(&path);
    assert_eq!(table.problems, []);
    against_sfdisk(&table, &run("sfdisk", &["--json", name], ""), name);
    against_parted(&table, &run("parted", &["-sm", name, "unit", "B", "print"], ""));
}

fn against_sfdisk(table: &Table, json: &str, name: &str) {
    let theirs: serde_json::Value = serde_json::from_str(json).unwrap();
    let theirs = &theirs["partitiontable"];
    let is_gpt = theirs["label"] == "gpt";
    assert_eq!(theirs["id"].as_str().unwrap().trim_start_matches("0x").to_lowercase(), table.id);
    let rows = theirs["partitions"].as_array().unwrap();
    assert_eq!(rows.len(), table.partitions.len());
    for (row, partition) in rows.iter().zip(&table.partitions) {
        assert_eq!(row["node"], format!("{name}{}", partition.number));
        assert_eq!(row["start"].as_u64().unwrap() * 512, partition.range.start);
        assert_eq!(row["size"].as_u64().unwrap() * 512, partition.range.end - partition.range.start);
        let legacy = row["attrs"].as_str().is_some_and(|attrs| attrs.contains("LegacyBIOSBootable"));
        assert_eq!(row["bootable"].as_bool().unwrap_or(legacy), partition.bootable);
        if is_gpt {
            assert_eq!(row["type"].as_str().unwrap().to_lowercase(), partition.type_id);
            assert_eq!(row["uuid"].as_str().unwrap().to_lowercase(), partition.partuuid);
            assert_eq!(row["name"].as_str(), partition.label.as_deref());
        } else {
            assert_eq!(format!("{:0>2}", row["type"].as_str().unwrap()), partition.type_id);
        }
    }
}

fn against_parted(table: &Table, listing: &str) {
    let mut rows: Vec<Vec<&str>> =
        listing.lines().skip(2).map(|line| line.trim_end_matches(';').split(':').collect()).collect();
    rows.sort_by_key(|row| row[0].parse::<u32>().unwrap());
    assert_eq!(rows.len(), table.partitions.len());
    for (row, partition) in rows.iter().zip(&table.partitions) {
        assert_eq!(row[0].parse::<u32>().unwrap(), partition.number);
        assert_eq!(row[1].trim_end_matches('B').parse::<u64>().unwrap(), partition.range.start);
        if partition.role != Role::Extended {
            assert_eq!(row[2].trim_end_matches('B').parse::<u64>().unwrap() + 1, partition.range.end);
        }
    }
}

#[test]
fn mbr_with_logical_partitions() {
    compare(
        "label: dos\nlabel-id: 0x1234abcd\n\
         start=2048, size=20480, type=83, bootable\nstart=24576, size=204800, type=5\nstart=300000, size=2048, type=82\n\
         start=26624, size=20480, type=83\nstart=51200, size=20480, type=8e\nstart=90000, size=4096, type=c\n",
    );
}

#[test]
fn gpt_with_names_and_gaps() {
    compare(
        "label: gpt\n\
         1: start=2048, size=2048, type=21686148-6449-6E6F-744E-656564454649, name=\"BIOS\"\n\
         3: start=8192, size=204800, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name=\"EFI system\"\n\
         128: start=300000, size=8, name=\"Ünïcode\", attrs=\"LegacyBIOSBootable\"\n",
    );
}
