//! Any bytes as units, drop-ins and files of a syslog: they are read to an end, and what is told of them stays within bounds.
#![no_main]

use std::sync::Arc;

use hyper2kvm::fs::{MemoryFs, Tree};
use hyper2kvm::inspect::syslog::Syslog;
use hyper2kvm::inspect::systemd::{Graph, Scope, Units, zones::Zones};
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;

const FILES: [&str; 6] = ["a.service", "a.service.d/a.conf", "a@.service", "b.timer", "c.socket", "default.target"];

fuzz_target!(|data: &[u8]| {
    let fs = MemoryFs::default();
    fs.add_link("/usr/lib/systemd/system/default.target.wants/a@b.service", "../a@.service").expect("room");
    for part in data.split(|byte| *byte == 0xff) {
        let Some((which, content)) = part.split_first() else { continue };
        let file = FILES.get(usize::from(*which) % 8).map(|file| format!("/usr/lib/systemd/system/{file}"));
        fs.add_file(&file.unwrap_or_else(|| format!("/var/log/syslog.{which}")), content).expect("room");
    }
    let tree = Tree::new(Arc::new(fs));
    let base = Timestamp::from_second(1_790_000_000).expect("a time");
    let zones = Zones::read(&tree, base).expect("memory can be read");
    let graph = Graph::read(&tree, Scope::System).expect("memory can be read");
    for unit in graph.units.values() {
        graph.check(unit, &tree, &zones).expect("memory can be read");
        assert!(unit.dependencies.iter().all(|one| !one.unit.contains('/')));
    }
    let timers = graph.timers(&zones, base).expect("memory can be read");
    assert!(timers.iter().all(|timer| timer.next.is_none_or(|next| next > 1_790_000_000_000_000)));
    let _ = (graph.sockets(), graph.mounts(), Units::read(&tree).expect("memory can be read"));
    let Some(mut log) = Syslog::find(&tree).expect("memory can be read") else { return };
    for file in log.files().to_vec() {
        let mut visit = |line: &hyper2kvm::inspect::syslog::Line<'_>| Ok(line.text.ends_with(line.message));
        log.read(&file, &zones.local().rules, &mut visit).expect("memory can be read");
    }
});
