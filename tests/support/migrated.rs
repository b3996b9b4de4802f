//! The fixtures, migrated: once a test run, since many tests look at the same result.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::{Lab, Mounted, Ran, Run, Variant, tools};

/// What `hyper2kvm migrate guest.ova -o OUT` made of a fixture.
pub(crate) struct Migrated {
    /// The folder of the results.
    pub(crate) out: PathBuf,
    /// The disk.
    pub(crate) disk: PathBuf,
    /// The domain XML.
    pub(crate) domain: PathBuf,
    /// The report, read.
    pub(crate) report: serde_json::Value,
    /// The run.
    pub(crate) ran: Ran,
}

impl Migrated {
    /// The migrated fixture.
    pub(crate) fn of(variant: Variant) -> &'static Self {
        static ALL: [OnceLock<Migrated>; 3] = [const { OnceLock::new() }; 3];
        ALL[variant as usize].get_or_init(|| Self::migrate(variant))
    }

    fn migrate(variant: Variant) -> Self {
        let out = Lab::shared().join("out");
        let ran = Run::new(["migrate".as_ref(), variant.ova().as_os_str(), "-o".as_ref(), out.as_os_str()]).success();
        let report = fs::read(only(&out, "json")).expect("the report");
        Self {
            disk: only(&out, "qcow2"),
            domain: only(&out, "xml"),
            report: serde_json::from_slice(&report).expect("the report is JSON"),
            out,
            ran,
        }
    }

    /// The disk as a raw file in `lab`.
    pub(crate) fn raw(&self, lab: &Lab) -> PathBuf {
        let raw = lab.path("migrated.raw");
        tools::to_raw("qcow2", &self.disk, &raw);
        raw
    }
}

/// The only file in a folder with this extension.
pub(crate) fn only(folder: &Path, extension: &str) -> PathBuf {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let mut found: Vec<_> = entries.filter(|path| path.extension().is_some_and(|found| found == extension)).collect();
    assert_eq!(found.len(), 1, "files .{extension} in {}: {found:?}", folder.display());
    found.remove(0)
}

/// The source guest as the kernel sees it, its journal replayed: a copy of the raw disk in `lab`, with a clean file system.
pub(crate) fn replayed_source(variant: Variant, lab: &Lab) -> PathBuf {
    let raw = lab.copy(&variant.raw(), "source.raw");
    Mounted::writable(&raw, lab, "replay").close();
    raw
}
