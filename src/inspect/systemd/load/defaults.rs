//! What units ask of others by default: the sections “Default Dependencies” of the manual's pages.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use super::{Dependency, DependencyKind, Graph, Loaded, Origin};
use DependencyKind::{After, Before, BindsTo, Conflicts, Requires, Requisite, Upholds, Wants};

const START: [(DependencyKind, &str); 2] = [(Requires, "sysinit.target"), (After, "sysinit.target")];
const SHUTDOWN: [(DependencyKind, &str); 2] = [(Conflicts, "shutdown.target"), (Before, "shutdown.target")];

/// Adds them.
pub(super) fn add(graph: &mut Graph) {
    for unit in graph.units.values_mut().filter(|unit| unit.path.is_some() && !unit.is_masked) {
        for (kind, name) in of(unit) {
            push(unit, kind, name);
        }
    }
    for (target, other) in orders(graph) {
        if let Some(target) = graph.units.get_mut(&target) {
            push(target, After, &other);
        }
    }
}

/// A target is after what it pulls in, unless one of both has no default dependencies, or it is before that anyway.
fn orders(graph: &Graph) -> Vec<(String, String)> {
    let has = |unit: &Loaded| unit.is_on("Unit", "DefaultDependencies", true);
    let names = |name: &str, unit: &Loaded| graph.find(name).is_some_and(|found| found.name == unit.name);
    let says =
        |unit: &Loaded, kind, of: &Loaded| unit.dependencies.iter().any(|one| one.kind == kind && names(&one.unit, of));
    let mut orders = Vec::new();
    for target in graph.units.values().filter(|unit| unit.suffix() == "target" && has(unit)) {
        let pulls = |one: &&Dependency| matches!(one.kind, Wants | Requires | Requisite | BindsTo | Upholds);
        for other in target.dependencies.iter().filter(pulls).filter_map(|one| graph.find(&one.unit)) {
            let is_there = has(other) && other.path.is_some() && !other.is_masked;
            if is_there && !says(target, Before, other) && !says(other, After, target) {
                orders.push((target.name.clone(), other.name.clone()));
            }
        }
    }
    orders
}

fn push(unit: &mut Loaded, kind: DependencyKind, name: &str) {
    if unit.name != name && !unit.dependencies.iter().any(|one| one.kind == kind && one.unit == name) {
        unit.dependencies.push(Dependency { kind, unit: name.to_owned(), origin: Origin::Default });
    }
}

/// Those of one unit.
fn of(unit: &Loaded) -> Vec<(DependencyKind, &'static str)> {
    if !unit.is_on("Unit", "DefaultDependencies", true) {
        return Vec::new();
    }
    let mut all: Vec<(DependencyKind, &'static str)> = Vec::new();
    match unit.suffix() {
        "service" => {
            all.extend(START);
            all.push((After, "basic.target"));
            all.extend(SHUTDOWN);
        }
        "target" | "slice" | "scope" => all.extend(SHUTDOWN),
        "socket" => {
            all.push((Before, "sockets.target"));
            all.extend(START);
            all.extend(SHUTDOWN);
        }
        "path" => {
            all.push((Before, "paths.target"));
            all.extend(START);
            all.extend(SHUTDOWN);
        }
        "timer" => {
            all.push((Before, "timers.target"));
            all.extend(START);
            if !unit.list("Timer", "OnCalendar").is_empty() {
                all.extend([(After, "time-set.target"), (After, "time-sync.target")]);
            }
            all.extend(SHUTDOWN);
        }
        "swap" => all.extend([(Before, "umount.target"), (Conflicts, "umount.target")]),
        "automount" => all.extend([
            (Before, "local-fs.target"),
            (After, "local-fs-pre.target"),
            (Before, "umount.target"),
            (Conflicts, "umount.target"),
        ]),
        // What systemd adds to a mount depends on what is mounted where.
        "mount" => all.extend([(Before, "umount.target"), (Conflicts, "umount.target")]),
        _ => {}
    }
    all
}
