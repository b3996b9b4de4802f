//! The guests that `make fixtures` builds (tests/fixtures/guest.sh says what is in them).

use std::path::PathBuf;
use std::sync::OnceLock;

use super::tools;

/// One fixture guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Variant {
    /// Free blocks hold garbage.
    Deleted,
    /// A crash-consistent snapshot, whose journal needs a replay.
    Dirty,
    /// Cleanly shut down, and trimmed.
    Plain,
}

impl Variant {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Plain, Self::Deleted, Self::Dirty];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::Dirty => "dirty",
            Self::Plain => "plain",
        }
    }

    /// The OVA: OVF, manifest and a streamOptimized VMDK.
    pub(crate) fn ova(self) -> PathBuf {
        self.file("guest.ova")
    }

    /// The disk itself.
    pub(crate) fn raw(self) -> PathBuf {
        self.file("guest.raw")
    }

    /// The disk as a VMDK: `sparse`, `flat` or `stream`.
    pub(crate) fn vmdk(self, kind: &str) -> PathBuf {
        self.file(&format!("guest-{kind}.vmdk"))
    }

    fn file(self, name: &str) -> PathBuf {
        file(self.name(), name)
    }
}

/// The disk of a guest on XFS: a crash-consistent snapshot, whose log needs a replay.
pub(crate) fn crashed_xfs() -> PathBuf {
    file("xfs", "guest.raw")
}

/// A program of an xfsprogs or btrfs-progs that knows what the newest make by default.
pub(crate) fn newer(program: &str) -> String {
    static FOLDER: OnceLock<String> = OnceLock::new();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/newer.sh");
    let folder = FOLDER.get_or_init(|| tools::ok(script, [""; 0]).trim().to_owned());
    if folder.is_empty() { program.to_owned() } else { format!("{folder}/{program}") }
}

fn file(guest: &str, name: &str) -> PathBuf {
    let path = folder().join(guest).join(name);
    assert!(path.exists(), "{} is missing: run `make fixtures`", path.display());
    path
}

/// Where all of them are.
pub(crate) fn folder() -> &'static PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| match std::env::var_os("HYPER2KVM_FIXTURE_DIR") {
        Some(folder) => folder.into(),
        None => {
            let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/build.sh");
            tools::ok(script, ["--path"]).trim().into()
        }
    })
}
