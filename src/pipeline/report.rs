//! The report of a migration: the JSON that existing monitors read, with the plan and the figures added.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

/// Version of the report's shape.
const VERSION: &str = "1.0";

/// One stage of the pipeline, done.
#[derive(Clone, Debug, Serialize)]
pub struct Stage {
    /// `inspect`, `plan`, `fix`, `convert`, `validate`.
    pub name: &'static str,
    /// How long it took.
    #[serde(skip)]
    pub duration: Duration,
    /// What it found or did.
    pub result: Value,
}

/// A file that the migration wrote.
#[derive(Clone, Debug, Serialize)]
pub struct Artifact {
    /// `disk`, `libvirt-xml` or `undo`.
    pub kind: &'static str,
    /// Which disk, from `disk1`.
    pub disk_id: Option<String>,
    /// Where it lies.
    pub path: String,
    /// `qcow2`, `xml`, `zstd`.
    pub format: &'static str,
    /// Length in bytes.
    pub size_bytes: u64,
    /// 0 boots first.
    pub boot_order_hint: u32,
    /// Digest of the flattened disk's content, or of the file that undoes the migration.
    pub checksum: Option<String>,
}

/// Everything that a report tells.
#[derive(Clone, Debug)]
pub struct Report {
    /// Where the machine came from.
    pub source: Value,
    /// When the run began, seconds since the epoch.
    pub timestamp: i64,
    /// How long all of it took.
    pub duration: Duration,
    /// The stages in order.
    pub stages: Vec<Stage>,
    /// The files written.
    pub artifacts: Vec<Artifact>,
    /// What the user should know, with the stage that says it.
    pub warnings: Vec<(&'static str, String)>,
    /// The plan as it was carried out.
    pub plan: Value,
}

impl Report {
    /// The report as JSON (`docs/json.md`).
    #[must_use]
    pub fn to_json(&self) -> Value {
        let stages: serde_json::Map<String, Value> =
            self.stages.iter().map(|stage| (stage.name.to_owned(), stage_json(stage))).collect();
        let disks = self.artifacts.iter().filter(|artifact| artifact.kind == "disk").count();
        json!({
            "version": VERSION,
            "hyper2kvm_version": env!("CARGO_PKG_VERSION"),
            "timestamp": self.timestamp,
            "source": self.source,
            "pipeline": { "success": true, "duration_seconds": seconds(self.duration), "stages": stages },
            "artifacts": self.artifacts.iter().map(artifact_json).collect::<Vec<_>>(),
            "warnings": self.warnings.iter().map(|warning| self.warning_json(warning)).collect::<Vec<_>>(),
            "errors": [],
            "plan": self.plan,
            "summary": {
                "total_stages": self.stages.len(),
                "successful_stages": self.stages.len(),
                "failed_stages": 0,
                "total_warnings": self.warnings.len(),
                "total_errors": 0,
                "total_artifacts": self.artifacts.len(),
                "input_disks": disks,
                "output_disks": disks,
            },
        })
    }

    fn warning_json(&self, (stage, message): &(&'static str, String)) -> Value {
        json!({ "stage": stage, "message": message, "timestamp": self.timestamp })
    }
}

fn stage_json(stage: &Stage) -> Value {
    json!({ "success": true, "duration": seconds(stage.duration), "result": stage.result })
}

fn artifact_json(artifact: &Artifact) -> Value {
    json!({
        "type": artifact.kind,
        "disk_id": artifact.disk_id,
        "path": artifact.path,
        "format": artifact.format,
        "size_bytes": artifact.size_bytes,
        "compressed": false,
        "boot_order_hint": artifact.boot_order_hint,
        "checksum": artifact.checksum,
    })
}

/// Seconds with millisecond precision.
fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}
