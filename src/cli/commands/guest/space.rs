//! `guest df`: file systems and how full they are.

use serde_json::{Value, json};

use super::{Inside, shown};
use crate::cli::args::guest::InsideArgs;
use crate::cli::commands::Context;
use crate::cli::size::Size;
use crate::error::Result;
use crate::fs::FsFacts;
use crate::inspect::Volume;

pub(super) fn run(args: &InsideArgs, context: &Context) -> Result<()> {
    let inside = Inside::open(args, context)?;
    let volumes = &inside.guest.machine.volumes;
    let rows: Vec<Row<'_>> =
        volumes.iter().enumerate().filter_map(|(index, volume)| Row::new(&inside, index, volume)).collect();
    let json = json!({ "file_systems": rows.iter().map(Row::json).collect::<Vec<_>>() });
    let header =
        format!("{:16} {:8} {:>10} {:>10} {:>10} {:>4}  mounted on", "volume", "type", "size", "used", "free", "use");
    let text: Vec<String> = std::iter::once(header).chain(rows.iter().map(Row::line)).collect();
    context.output.result(&json, &text.join("\n"))
}

struct Row<'a> {
    name: String,
    facts: &'a FsFacts,
    /// Bytes free; `None` where that cannot be told.
    free: Option<u64>,
    mounted: Vec<String>,
}

impl<'a> Row<'a> {
    fn new(inside: &'a Inside, index: usize, volume: &'a Volume) -> Option<Self> {
        let fs = volume.fs.as_ref()?;
        let mounts = inside.guest.system().map(|system| system.root.mounts.as_slice()).unwrap_or_default();
        let mounted = mounts.iter().filter(|mount| mount.volume == index).map(|mount| mount.at.clone());
        let (name, mounted) = (inside.guest.machine.name_of(volume), mounted.collect());
        let free = fs.free().inspect_err(|error| tracing::warn!(volume = shown(name.as_bytes()), %error, "free space"));
        Some(Self { name, facts: fs.facts(), free: free.ok(), mounted })
    }

    fn used(&self) -> Option<u64> {
        self.free.map(|free| self.facts.size.saturating_sub(free))
    }

    fn json(&self) -> Value {
        json!({
            "volume": self.name,
            "type": self.facts.kind,
            "uuid": self.facts.uuid,
            "label": self.facts.label,
            "size": self.facts.size,
            "used": self.used(),
            "free": self.free,
            "dirty": self.facts.dirty,
            "features": self.facts.features,
            "mounted_on": self.mounted,
        })
    }

    fn line(&self) -> String {
        let percent = self.used().map(|used| used.saturating_mul(100).div_ceil(self.facts.size.max(1)).to_string());
        let percent = percent.unwrap_or_else(|| "?".to_owned());
        let size = |bytes: Option<u64>| bytes.map_or_else(|| "?".to_owned(), |bytes| Size(bytes).to_string());
        format!(
            "{:16} {:8} {:>10} {:>10} {:>10} {percent:>3}%  {}",
            shown(self.name.as_bytes()),
            self.facts.kind,
            size(Some(self.facts.size)),
            size(self.used()),
            size(self.free),
            shown(self.mounted.join(", ").as_bytes())
        )
    }
}
