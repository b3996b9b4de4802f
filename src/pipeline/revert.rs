//! `revert`: a migrated machine with its guest as it was before.
//!
//! The report names the disks and the file of the steps back; all of them must lie beside it, wherever it was moved to. What was
//! migrated stays as it is: the disks are written anew, the way that a migration writes them.

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use super::copies::convert_all;
use super::files;
use super::migrate::{Machine, outcome_json};
use crate::chain::OpenOptions;
use crate::convert::{self, Named, Options, Outcome, Phase, Progress, Update};
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::fix::Undo;
use crate::limits;
use crate::session::Session;

/// What to revert, and how.
#[derive(Clone, Debug)]
pub struct Request {
    /// The report of the migration.
    pub report: PathBuf,
    /// The directory that gets the disks; made if missing.
    pub output: PathBuf,
    /// Replace existing results.
    pub force: bool,
    /// Copy the free space of the guest's file systems too.
    pub keep_free_space: bool,
    /// Read the output back and compare.
    pub verify: bool,
    /// Most bytes to read in a second.
    pub rate_limit: Option<NonZeroU64>,
}

/// A machine whose migration was undone.
#[derive(Debug)]
pub struct Reverted {
    /// The disks that were written.
    pub outcomes: Vec<Outcome>,
    /// Paths in the guest, in the order in which their changes were undone.
    pub paths: Vec<String>,
}

impl Reverted {
    /// The same as JSON (`docs/json.md`).
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "reverted": self.paths,
            "disks": self.outcomes.iter().map(outcome_json).collect::<Vec<_>>(),
        })
    }
}

/// Undoes what a migration changed in the guest, and writes the disks.
///
/// # Errors
/// `undo.report` when the report or what it names cannot be used; `undo.changed` when the guest is not as the migration left it;
/// and those of opening the disks and of writing.
pub fn run(request: &Request, session: &Arc<Session>, progress: &dyn Progress) -> Result<Reverted> {
    let made = Made::read(&request.report)?;
    std::fs::create_dir_all(&request.output)
        .map_err(|e| Error::write("making the output directory", e).path(&request.output))?;
    let outputs = outputs(&made, request)?;
    progress.update(&Update::start(Phase::Inspect, 0));
    let sources: Vec<String> = made.disks.iter().map(|disk| disk.display().to_string()).collect();
    let machine = Machine::open(&sources, &OpenOptions::default(), session)?;
    let guest = machine.look(session, Some(&request.output))?;

    progress.update(&Update::start(Phase::Fix, 0));
    let (root, _) = guest.linux()?;
    let paths = made.undo.apply(&root.tree)?.into_iter().map(str::to_owned).collect();
    let disks = guest.finish(!request.keep_free_space)?;

    session.begin_streaming();
    let options = Options {
        verify: request.verify,
        force: request.force,
        restart: true,
        rate_limit: request.rate_limit,
        ..Options::default()
    };
    let prepare = |(disk, path): (Arc<dyn Disk>, &PathBuf)| convert::prepare(disk, path, &options, session, progress);
    let prepared = disks.into_iter().zip(&outputs).map(prepare).collect::<Result<_>>()?;
    let (verified, _) = convert_all(prepared, &machine.sources, progress)?;
    let named: Vec<Named> = verified.into_iter().map(|output| output.name(progress)).collect::<Result<_>>()?;
    let outcomes = named.iter().map(|output| output.outcome().clone()).collect();
    for output in named {
        let _ = output.commit();
    }
    Ok(Reverted { outcomes, paths })
}

/// What a migration made.
#[derive(Debug)]
struct Made {
    /// The disks in the machine's order.
    disks: Vec<PathBuf>,
    undo: Undo,
}

impl Made {
    fn read(report: &Path) -> Result<Self> {
        let bytes = files::read(report, limits::MAX_REPORT)?;
        let json: Value = serde_json::from_slice(&bytes)
            .map_err(|e| unusable("the file is not the report of a migration").path(report).because(e))?;
        let artifacts = json.get("artifacts").and_then(Value::as_array);
        let artifacts = artifacts.ok_or_else(|| unusable("the file is not the report of a migration").path(report))?;
        let mut disks: Vec<(u64, PathBuf)> = Vec::new();
        for disk in artifacts.iter().filter(|artifact| text(artifact, "type") == Some("disk")) {
            let order = disk.get("boot_order_hint").and_then(Value::as_u64).unwrap_or(u64::MAX);
            disks.push((order, beside(report, disk)?));
        }
        disks.sort();
        if disks.is_empty() {
            return Err(unusable("the report names no disk").path(report));
        }
        let undo = artifacts.iter().find(|artifact| text(artifact, "type") == Some("undo"));
        let undo = undo.ok_or_else(|| {
            Error::unsupported("undo.lost", "the report names nothing that undoes the migration").path(report)
        })?;
        let path = beside(report, undo)?;
        let steps = files::read(&path, limits::MAX_UNDO.saturating_add(limits::MAX_UNDO_HEAD))?;
        let digest = format!("blake3:{}", blake3::hash(&steps).to_hex());
        if text(undo, "checksum") != Some(&digest) {
            return Err(Error::corrupt(
                "undo.corrupt",
                "the file that undoes the migration is not the one of the report",
            )
            .path(&path)
            .found(digest));
        }
        let undo = Undo::decode(&steps).map_err(|error| error.path(&path))?;
        Ok(Self { disks: disks.into_iter().map(|(_, path)| path).collect(), undo })
    }
}

fn text<'a>(json: &'a Value, key: &str) -> Option<&'a str> {
    json.get(key).and_then(Value::as_str)
}

/// The file of this artifact, which lies in the report's directory.
fn beside(report: &Path, artifact: &Value) -> Result<PathBuf> {
    let named = text(artifact, "path").and_then(|path| Path::new(path).file_name());
    let name = named.ok_or_else(|| unusable("the report names a file without a name").path(report))?;
    let path = report.parent().unwrap_or(Path::new("")).join(name);
    let metadata = std::fs::metadata(&path);
    if metadata.is_ok_and(|metadata| metadata.is_file()) {
        return Ok(path);
    }
    Err(unusable("a file that the report names does not lie beside it").path(&path).hint("keep them together"))
}

/// Where the disks go: under their own names, and never over what was migrated.
fn outputs(made: &Made, request: &Request) -> Result<Vec<PathBuf>> {
    let place = |disk: &PathBuf| {
        let output = request.output.join(disk.file_name().unwrap_or_default());
        let same = |path: &Path| std::fs::canonicalize(path).ok();
        if same(&output).is_some_and(|output| Some(output) == same(disk)) {
            return Err(Error::new(
                crate::error::Kind::Exists,
                "output.exists",
                "that would replace what was migrated",
            )
            .path(&output)
            .hint("give another directory"));
        }
        files::must_not_exist(&output, request.force)?;
        Ok(output)
    };
    made.disks.iter().map(place).collect()
}

fn unusable(what: &str) -> Error {
    Error::unsupported("undo.report", what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(dir: &Path, artifacts: &str) -> PathBuf {
        let path = dir.join("m.report.json");
        std::fs::write(&path, format!(r#"{{"artifacts":[{artifacts}]}}"#)).unwrap();
        path
    }

    #[test]
    fn only_what_lies_beside_the_report_is_used() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("m.qcow2"), "").unwrap();
        let undo = Undo::default().encode().unwrap();
        std::fs::write(dir.path().join("m.undo"), &undo).unwrap();
        let digest = blake3::hash(&undo).to_hex();
        let disk = r#"{"type":"disk","path":"/else/where/m.qcow2","boot_order_hint":0}"#;
        let steps = format!(r#"{{"type":"undo","path":"m.undo","checksum":"blake3:{digest}"}}"#);
        let made = Made::read(&report(dir.path(), &format!("{disk},{steps}"))).unwrap();
        assert_eq!(made.disks, [dir.path().join("m.qcow2")]);
        for (artifacts, code) in [
            (String::new(), "undo.report"),
            (steps.clone(), "undo.report"),
            (disk.to_owned(), "undo.lost"),
            (disk.replace("m.qcow2", "none.qcow2"), "undo.report"),
            (disk.replace("/else/where/m.qcow2", "../.."), "undo.report"),
            (disk.replace("m.qcow2", "/"), "undo.report"),
            (disk.replace(r#""path":"/else/where/m.qcow2""#, r#""path":7"#), "undo.report"),
            (format!("{disk},{}", steps.replace("blake3:", "blake3:0")), "undo.corrupt"),
            (format!("{disk},{}", steps.replace("m.undo", "m.qcow2")), "undo.corrupt"),
            (format!("{disk},{}", steps.replace("checksum", "sum")), "undo.corrupt"),
        ] {
            let error = Made::read(&report(dir.path(), &artifacts)).unwrap_err();
            assert_eq!(error.code(), code, "{artifacts}");
        }
        for content in ["", "[]", "{}", r#"{"artifacts":{}}"#, "\0"] {
            let path = dir.path().join("other.json");
            std::fs::write(&path, content).unwrap();
            assert_eq!(Made::read(&path).unwrap_err().code(), "undo.report", "{content}");
        }
    }

    #[test]
    fn what_was_migrated_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("m.qcow2");
        std::fs::write(&disk, "").unwrap();
        let made = Made { disks: vec![disk], undo: Undo::default() };
        let request = |output: &Path, force| Request {
            report: PathBuf::new(),
            output: output.to_owned(),
            force,
            keep_free_space: false,
            verify: true,
            rate_limit: None,
        };
        assert_eq!(outputs(&made, &request(&dir.path().join("."), true)).unwrap_err().code(), "output.exists");
        let other = tempfile::tempdir().unwrap();
        assert_eq!(outputs(&made, &request(other.path(), false)).unwrap(), [other.path().join("m.qcow2")]);
        std::fs::write(other.path().join("m.qcow2"), "").unwrap();
        assert_eq!(outputs(&made, &request(other.path(), false)).unwrap_err().code(), "output.exists");
        assert!(outputs(&made, &request(other.path(), true)).is_ok());
    }

    #[test]
    fn a_report_is_as_long_as_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.report.json");
        let file = std::fs::File::create(&path).unwrap();
        // One that fits is no report.
        for (more, kind) in [(0, crate::Kind::Unsupported), (1, crate::Kind::Limit)] {
            file.set_len(limits::MAX_REPORT.saturating_add(more)).unwrap();
            assert_eq!(Made::read(&path).unwrap_err().kind(), kind, "{more}");
        }
    }
}
