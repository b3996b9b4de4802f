//! `migrate`: nothing is lost, nothing but the plan is changed, and what is left out was free, or never read.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::tools::Piece;
use crate::support::{Lab, Migrated, Mounted, PARTITION, Run, Tree, Variant, idle, only, replayed_source, tools};

#[test]
fn results_are_clean() {
    for variant in Variant::ALL {
        let lab = Lab::new();
        let migrated = Migrated::of(variant);
        tools::assert_clean_qcow2(&migrated.disk);
        let raw = migrated.raw(&lab);
        assert_eq!(raw.metadata().expect("the disk").len(), 3 << 30);
        assert!(!tools::needs_replay(&raw, PARTITION), "{variant:?}: the journal was left dirty");
        tools::assert_clean_ext4(&raw, PARTITION);
        assert_eq!(head(&raw), head(&variant.raw()), "{variant:?}: boot code or partition table changed");
    }
}

/// What lies before the partition: boot code, partition table, GRUB's core.
fn head(raw: &Path) -> Vec<u8> {
    let mut head = vec![0; usize::try_from(PARTITION).expect("a small number")];
    fs::File::open(raw).expect("the disk").read_exact_at(&mut head, 0).expect("its beginning");
    head
}

#[test]
fn only_what_is_planned_differs_in_plain() {
    only_what_is_planned_differs(Variant::Plain);
}

#[test]
fn only_what_is_planned_differs_in_deleted() {
    only_what_is_planned_differs(Variant::Deleted);
}

#[test]
fn only_what_is_planned_differs_in_dirty() {
    only_what_is_planned_differs(Variant::Dirty);
}

fn only_what_is_planned_differs(variant: Variant) {
    let lab = Lab::new();
    let migrated = Migrated::of(variant);
    let planned = planned_paths(&migrated.report["plan"]);
    assert!(!planned.is_empty(), "the plan lists no file: {:#}", migrated.report["plan"]);
    let (source, result) = (replayed_source(variant, &lab), migrated.raw(&lab));
    let (before, after) = (Mounted::read_only(&source, &lab, "before"), Mounted::read_only(&result, &lab, "after"));
    let (before, after) = (Tree::read(before.path()), Tree::read(after.path()));
    assert!(before.len() > 5000, "only {} files were compared", before.len());

    let changes = before.changes(&after);
    let touched: BTreeSet<&Path> =
        changes.iter().filter(|(_, change)| change.is_structural()).filter_map(|(path, _)| path.parent()).collect();
    for (path, change) in &changes {
        // A folder whose entries are planned to come or go has a new time, and nothing else.
        let is_parent = touched.contains(path) && change.is_of_times_only();
        assert!(planned.contains(*path) || is_parent, "{} is not in the plan: {change:?}", path.display());
        if let (Some(before), Some(after)) = (change.before, change.after)
            && before.kind == after.kind
        {
            let kept = |node: &crate::support::tree::Node| (node.mode, node.owner, node.attributes.clone());
            assert_eq!(kept(before), kept(after), "{}: owner, mode or attributes changed", path.display());
        }
    }
    for path in ["etc/fstab", "boot/grub/grub.cfg"] {
        assert!(changes.contains_key(Path::new(path)), "{path} was not fixed");
    }
}

/// Every path that a plan changes, relative to the guest's root.
fn planned_paths(plan: &Value) -> BTreeSet<PathBuf> {
    let actions = plan["actions"].as_array().unwrap_or_else(|| panic!("no actions in {plan:#}"));
    let path = |action: &Value| action["path"].as_str().expect("a path").trim_start_matches('/').to_owned();
    let renamed = actions.iter().filter_map(|action| action["change"]["to"].as_str());
    let renamed = renamed.map(|path| PathBuf::from(path.trim_start_matches('/')));
    actions.iter().map(|action| PathBuf::from(path(action))).chain(renamed).collect()
}

#[test]
fn what_is_left_out_was_free() {
    for variant in Variant::ALL {
        let lab = Lab::new();
        // The same migration with free space kept is what elision is judged by: it has the same fixes.
        let out = lab.path("out");
        let ova = variant.ova();
        Run::new(["migrate".as_ref(), ova.as_os_str(), "--keep-free-space".as_ref(), "-o".as_ref(), out.as_os_str()])
            .success();
        let whole = lab.path("whole.raw");
        tools::to_raw("qcow2", &only(&out, "qcow2"), &whole);
        fs::remove_dir_all(&out).expect("removing");

        let left_out: Vec<_> =
            tools::map("qcow2", &Migrated::of(variant).disk).into_iter().filter(|piece| !piece.data).collect();
        let idle = idle::idle(&whole, PARTITION).into_iter().map(|range| Piece {
            start: range.start,
            length: range.end - range.start,
            data: false,
        });
        let idle: Vec<Piece> = idle.collect();
        let trimmed = trimmed(&whole, &lab);
        let file = fs::File::open(&whole).expect("the disk");
        let mut bytes = 0;
        for piece in subtract(&subtract(&left_out, &trimmed), &idle) {
            let mut content = vec![0; usize::try_from(piece.length).expect("memory")];
            file.read_exact_at(&mut content, piece.start).expect("the disk");
            assert!(
                content.iter().all(|byte| *byte == 0),
                "{variant:?}: {piece:?} is in use, holds data, and was left out"
            );
            bytes += piece.length;
        }
        assert!(bytes < 3 << 30, "nothing that FITRIM frees was left out");
        if variant == Variant::Deleted {
            let saved: u64 = {
                let kept: u64 =
                    tools::map("raw", &whole).iter().filter(|piece| piece.data).map(|piece| piece.length).sum();
                let left: u64 = left_out.iter().map(|piece| piece.length).sum();
                kept.saturating_sub((3 << 30) - left)
            };
            assert!(saved > 200 << 20, "256 MiB of garbage lay in free blocks; only {saved} bytes were left out");
        }
    }
}

/// What FITRIM punches out of a copy of a disk on which every block was allocated.
fn trimmed(raw: &Path, lab: &Lab) -> Vec<Piece> {
    let full = lab.path("full.raw");
    tools::ok("cp", [Path::new("--sparse=never"), raw, &full]);
    let mounted = Mounted::writable(&full, lab, "full");
    tools::ok("fstrim", [mounted.path()]);
    mounted.close();
    let holes: Vec<_> = tools::map("raw", &full).into_iter().filter(|piece| !piece.data).collect();
    fs::remove_file(full).expect("removing");
    assert!(holes.iter().map(|piece| piece.length).sum::<u64>() > 1 << 30, "FITRIM freed nearly nothing: no oracle");
    holes
}

/// What of `pieces` lies in none of `holes`; both are sorted.
fn subtract(pieces: &[Piece], holes: &[Piece]) -> Vec<Piece> {
    let mut rest = Vec::new();
    for piece in pieces {
        let end = piece.start + piece.length;
        let mut start = piece.start;
        for hole in holes.iter().filter(|hole| hole.start < end && hole.start + hole.length > piece.start) {
            if hole.start > start {
                rest.push(Piece { start, length: hole.start - start, data: piece.data });
            }
            start = start.max(hole.start + hole.length);
        }
        if start < end {
            rest.push(Piece { start, length: end - start, data: piece.data });
        }
    }
    rest
}

#[test]
fn a_second_migration_changes_nothing() {
    let lab = Lab::new();
    let first = Migrated::of(Variant::Plain);
    let out = lab.path("again");
    Run::new(["migrate".as_ref(), first.disk.as_os_str(), "-o".as_ref(), out.as_os_str()]).success();
    let again = lab.path("again.raw");
    tools::to_raw("qcow2", &only(&out, "qcow2"), &again);
    let once = first.raw(&lab);
    let (once, again) = (Mounted::read_only(&once, &lab, "once"), Mounted::read_only(&again, &lab, "twice"));
    let changes = (Tree::read(once.path()), Tree::read(again.path()));
    let changes = changes.0.changes(&changes.1);
    assert!(changes.is_empty(), "{changes:?}");
}

#[test]
fn a_migration_is_undone_exactly() {
    for variant in [Variant::Plain, Variant::Dirty] {
        let lab = Lab::new();
        let migrated = Migrated::of(variant);
        let stamp = tools::ok("sha256sum", [&migrated.disk]);
        let (report, out) = (only(&migrated.out, "json"), lab.path("reverted"));
        let revert = |out: &Path| Run::new(["revert".as_ref(), report.as_os_str(), "-o".as_ref(), out.as_os_str()]);
        revert(&migrated.out).arg("--force").fails_with(5).code("output.exists");
        let json = revert(&out).arg("--json").success().json();
        assert_eq!(stamp, tools::ok("sha256sum", [&migrated.disk]));
        let count = migrated.report["plan"]["actions"].as_array().expect("actions").len();
        assert_eq!(json["reverted"].as_array().expect("paths").len(), count);
        let raw = lab.path("reverted.raw");
        let disk = only(&out, "qcow2");
        tools::assert_clean_qcow2(&disk);
        tools::to_raw("qcow2", &disk, &raw);
        tools::assert_clean_ext4(&raw, PARTITION);
        let source = replayed_source(variant, &lab);
        let (before, after) = (Mounted::read_only(&source, &lab, "before"), Mounted::read_only(&raw, &lab, "after"));
        let (before, after) = (Tree::read(before.path()), Tree::read(after.path()));
        let changes = before.changes(&after);
        assert!(before.len() > 5000 && changes.is_empty(), "{changes:?}");
    }
}

#[test]
fn a_guest_that_went_on_is_not_reverted() {
    let lab = Lab::new();
    let migrated = Migrated::of(Variant::Plain);
    let folder = lab.folder("moved");
    for file in fs::read_dir(&migrated.out).expect("the results").map(|entry| entry.expect("an entry").path()) {
        fs::copy(&file, folder.join(file.file_name().expect("a name"))).expect("a copy");
    }
    let raw = migrated.raw(&lab);
    let mounted = Mounted::writable(&raw, &lab, "edit");
    fs::write(mounted.path().join("etc/fstab"), "# all new\n").expect("an edit");
    mounted.close();
    let disk = only(&folder, "qcow2");
    tools::ok("qemu-img", ["convert", "-O", "qcow2"].map(Path::new).into_iter().chain([raw.as_path(), &disk]));
    let out = lab.path("reverted");
    let report = only(&folder, "json");
    Run::new(["revert".as_ref(), report.as_os_str(), "-o".as_ref(), out.as_os_str()])
        .fails_with(1)
        .code("undo.changed");
    assert!(fs::read_dir(&out).expect("the folder").next().is_none(), "a disk was written");
}

#[test]
fn the_plan_is_what_is_done_and_touches_nothing() {
    let ova = Variant::Dirty.ova();
    let stamp = |path: &Path| {
        let meta = path.metadata().expect("the fixture");
        (meta.len(), meta.modified().expect("a time"))
    };
    let before = stamp(&ova);
    let plan = Run::new(["plan", "--json"]).arg(&ova).success().json();
    assert_eq!(stamp(&ova), before);
    assert_eq!(planned_paths(&plan["plan"]), planned_paths(&Migrated::of(Variant::Dirty).report["plan"]));

    // The plan counts without the fixes, which are written when it is carried out.
    let report = &Migrated::of(Variant::Dirty).report;
    let read = report["pipeline"]["stages"]["convert"]["result"]["disks"][0]["read"].as_u64().expect("bytes");
    let (data, fixes) = (plan["needs"]["data_bytes"].as_u64().expect("bytes"), &plan["needs"]["fixes"]);
    assert!(read.abs_diff(data) <= fixes.as_u64().expect("bytes") + (4 << 20), "{read} {data} {fixes}");
    let file = report["artifacts"][0]["size_bytes"].as_u64().expect("bytes");
    assert!(file <= plan["needs"]["free_space"].as_u64().expect("bytes"), "{file} {}", plan["needs"]);
    assert_eq!(plan["needs"]["will_boot"], true);
}

#[test]
fn an_unknown_distribution_is_fixed_as_far_as_can_be_proved() {
    let lab = Lab::new();
    let raw = lab.copy(&Variant::Plain.raw(), "unknown.raw");
    let mounted = Mounted::writable(&raw, &lab, "edit");
    fs::write(mounted.path().join("usr/lib/os-release"), "NAME=\"Unheard Of\"\nID=unheardof\nVERSION_ID=7\n")
        .expect("an edit");
    fs::remove_file(mounted.path().join("etc/debian_version")).expect("an edit");
    mounted.close();
    let plan = Run::new(["plan", "--json", "--format", "raw"]).arg(&raw).success().json();
    let paths = planned_paths(&plan["plan"]);
    for path in ["etc/fstab", "boot/grub/grub.cfg"] {
        assert!(paths.contains(Path::new(path)), "{path} is not in {plan:#}");
    }
}

#[test]
fn the_domain_is_that_of_the_source() {
    let migrated = Migrated::of(Variant::Plain);
    let value = |path: &str| {
        let expression = format!("string({path})");
        tools::ok("xmllint", ["--xpath".as_ref(), expression.as_ref(), migrated.domain.as_os_str()]).trim().to_owned()
    };
    assert_eq!(value("/domain/name"), "vmguest");
    assert_eq!(value("/domain/vcpu"), "2");
    assert_eq!(value("/domain/devices/disk[@device='disk']/driver/@type"), "qcow2");
    assert_eq!(value("/domain/devices/disk[@device='disk']/source/@file"), migrated.disk.display().to_string());
    assert_eq!(value("/domain/devices/interface/model/@type"), "virtio");
    let unit = match value("/domain/memory/@unit").as_str() {
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "bytes" | "b" => 1,
        _ => 1024,
    };
    assert_eq!(value("/domain/memory").parse::<u64>().expect("a number") * unit, 1 << 30);
}

#[test]
fn the_report_lists_what_was_written() {
    let migrated = Migrated::of(Variant::Plain);
    let artifacts = migrated.report["artifacts"].as_array().expect("a list");
    for artifact in artifacts {
        let path = migrated.out.join(artifact["path"].as_str().expect("a path"));
        assert_eq!(path.metadata().expect("an artifact").len(), artifact["size_bytes"].as_u64().expect("a number"));
    }
    assert!(artifacts.len() >= 2);
    assert_eq!(migrated.report["pipeline"]["success"], true);
}

#[test]
fn facts_are_those_of_the_guest() {
    let facts = Run::new(["inspect", "--json"]).arg(Variant::Dirty.ova()).success();
    for fact in ["debian", "12", "vmguest", "6.1.0-", "ens192", "ext4"] {
        assert!(facts.stdout.contains(fact), "{fact} is not in {facts}");
    }
    facts.json();
}
