//! Hostile images: `info`, `map` and `check` of each end soon, in little memory, with the exit code that is expected, and without
//! a word about files of the host.
//!
//! Each image is built here from a sound one by changing what its name says; `reference` is about names that lead elsewhere.

use hyper2kvm::format::FORMATS;

use crate::support::{Lab, Run};
use image::Image;

mod image;
mod qcow2;
mod reference;
mod vdi;
mod vhd;
mod vhdx;
mod vmdk;

/// What a strict address space and a short time leave: far less than the budget would allow, far more than is needed.
const LIMITS: [&str; 2] = ["--as=268435456", "--cpu=2"];

/// A hostile image.
pub(crate) struct Hostile {
    /// What is wrong with it, or the vulnerability that was like it.
    id: &'static str,
    /// Makes it.
    build: fn() -> Image,
    /// Exit codes of `info` and of `map`.
    exits: [i32; 2],
}

/// A hostile image that is refused at once.
const fn refused(id: &'static str, build: fn() -> Image) -> Hostile {
    Hostile { id, build, exits: [4, 4] }
}

/// One whose header is sound, so that only walking its tables finds out.
const fn found_late(id: &'static str, build: fn() -> Image) -> Hostile {
    Hostile { id, build, exits: [0, 4] }
}

/// One that is odd and read all the same.
const fn harmless(id: &'static str, build: fn() -> Image) -> Hostile {
    Hostile { id, build, exits: [0, 0] }
}

const FAMILIES: &[(&str, &[Hostile])] =
    &[("qcow2", qcow2::ALL), ("vdi", vdi::ALL), ("vhd", vhd::ALL), ("vhdx", vhdx::ALL), ("vmdk", vmdk::ALL)];

#[test]
fn every_format_has_ten_hostile_images() {
    for driver in FORMATS.iter().filter(|driver| driver.name != "raw") {
        let count = FAMILIES.iter().find(|(name, _)| *name == driver.name).map_or(0, |(_, all)| all.len());
        assert!(count >= 10, "{} has {count}", driver.name);
    }
}

#[test]
fn hostile_images_end_soon_and_in_little_memory() {
    let lab = Lab::new();
    let mut wrong = Vec::new();
    for (format, family) in FAMILIES {
        for hostile in *family {
            let path = lab.file(&format!("{format}-{}", hostile.id), (hostile.build)().bytes());
            for (command, exit) in [("info", hostile.exits[0]), ("map", hostile.exits[1])] {
                let ran = run(command, format, &path);
                if ran.status.code() != Some(exit) {
                    wrong.push(format!("{format} {}: expected {exit}: {ran}", hostile.id));
                }
            }
            // It may find nothing or something; it ends like the others.
            let checked = run("check", format, &path);
            assert!(matches!(checked.status.code(), Some(0..=5)), "{checked}");
            std::fs::remove_file(path).expect("removing");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn run(command: &str, format: &str, path: &std::path::Path) -> crate::support::Ran {
    let run = Run::new([command, "--format", format]).arg(path);
    LIMITS.iter().fold(run, |run, limit| run.limit(limit)).ran()
}
