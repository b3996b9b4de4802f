#![allow(clippy::all, clippy::disallowed_methods, clippy::unwrap_used, clippy::print_stdout, missing_docs)]
use hyper2kvm::fs::*;
use hyper2kvm::inspect::*;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Instant;
fn load(fs: &MemoryFs, host: &std::path::Path, at: &str) {
    for e in std::fs::read_dir(host).unwrap() {
        let e = e.unwrap();
        let p = format!("{at}/{}", e.file_name().to_str().unwrap());
        let m = e.path().symlink_metadata().unwrap();
        if m.is_symlink() {
            fs.add_link(&p, std::fs::read_link(e.path()).unwrap().to_str().unwrap()).unwrap();
        } else if m.is_dir() {
            fs.add_dir(&p).unwrap();
            load(fs, &e.path(), &p);
        } else if m.is_file() {
            fs.add_file_with(
                &p,
                &Attributes { mode: m.mode(), ..Default::default() },
                std::fs::read(e.path()).unwrap(),
            )
            .unwrap();
        }
    }
}
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let fs = MemoryFs::new("ext4", Some(&a[3]), Some("rootfs"));
    load(&fs, std::path::Path::new(&a[1]), "");
    let fs: Arc<dyn Filesystem> = Arc::new(fs);
    let machine = Machine {
        disks: vec![MachineDisk { name: "sda".into(), size: 3 << 30, controller: Some(0), unit: Some(0) }],
        volumes: vec![Volume {
            disk: 0,
            partition: Some(1),
            partuuid: Some("ca5fb7a5-01".into()),
            fs_kind: Some("ext4".into()),
            fs_uuid: Some(a[3].clone()),
            fs: Some(fs.clone()),
            ..Default::default()
        }],
        nics: vec![MachineNic { mac: None, model: Some("VmxNet3".into()) }],
    };
    let t = Instant::now();
    let roots = find_roots(&machine).unwrap();
    let root = &roots[0];
    let facts = linux(&root.tree).unwrap();
    let t1 = t.elapsed();
    println!("{}", serde_json::to_string_pretty(&facts).unwrap());
    let t = Instant::now();
    let plan = hyper2kvm::fix::plan(&facts, &machine, root).unwrap();
    let t2 = t.elapsed();
    println!("{}", serde_json::to_string_pretty(&plan).unwrap());
    let t = Instant::now();
    hyper2kvm::fix::apply(&plan, &root.tree, Timestamp { seconds: 1_800_000_000, nanoseconds: 0 }).unwrap();
    let t3 = t.elapsed();
    for p in plan.paths() {
        let out = format!("{}{}", a[2], p);
        std::fs::create_dir_all(std::path::Path::new(&out).parent().unwrap()).unwrap();
        if let Some(l) = root.tree.read_link(p).unwrap() {
            let _ = std::fs::remove_file(&out);
            std::os::unix::fs::symlink(std::str::from_utf8(&l).unwrap(), &out).unwrap();
        } else if let Some(c) = root.tree.read(p, 1 << 30).unwrap() {
            std::fs::write(&out, c).unwrap();
        }
    }
    let facts = linux(&root.tree).unwrap();
    let again = hyper2kvm::fix::plan(&facts, &machine, root).unwrap();
    println!("AGAIN {}", serde_json::to_string_pretty(&again).unwrap());
    println!("inspect {t1:?} plan {t2:?} apply {t3:?}");
}
