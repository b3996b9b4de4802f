//! Any bytes as a package manager's databases and what lies beside them: what is listed is bounded and sorted.
#![no_main]

use std::sync::Arc;

use hyper2kvm::fs::{MemoryFs, Tree};
use hyper2kvm::inspect::packages;
use hyper2kvm::limits;
use libfuzzer_sys::fuzz_target;

const FILES: &[&str] = &[
    "/usr/lib/sysimage/rpm/rpmdb.sqlite",
    "/usr/lib/sysimage/rpm/Packages.db",
    "/usr/lib/sysimage/rpm/Packages",
    "/var/lib/dpkg/status",
    "/lib/apk/db/installed",
    "/var/lib/pacman/local/a/desc",
];
const BESIDE: &[&str] = &[
    "/usr/lib/sysimage/rpm/rpmdb.sqlite-wal",
    "/usr/lib/sysimage/rpm/rpmdb.sqlite-journal",
    "/var/lib/dpkg/updates/0",
];

fuzz_target!(|data: &[u8]| {
    let [which, low, high, content @ ..] = data else { return };
    let fs = MemoryFs::default();
    let (main, beside) = content.split_at(content.len().min(usize::from(*low) | usize::from(*high) << 8));
    fs.add_file(FILES[usize::from(*which) % FILES.len()], main).expect("room");
    if !beside.is_empty() {
        fs.add_file(BESIDE[usize::from(*which >> 4) % BESIDE.len()], beside).expect("room");
    }
    for database in packages::find(&Tree::new(Arc::new(fs))).expect("memory can be read") {
        assert!(database.packages.is_sorted());
        assert!(database.packages.len() <= limits::MAX_PACKAGES);
        assert!(database.packages.iter().all(|package| !package.name.is_empty() && package.name.len() <= 1024));
    }
});
