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
    mounted: Vec<String>,
}

impl<'a> Row<'a> {
    fn new(inside: &'a Inside, index: usize, volume: &'a Volume) -> Option<Self> {
        let facts = volume.fs.as_ref()?.facts();
        let mounts = inside.guest.system().map(|system| system.root.mounts.as_slice()).unwrap_or_default();
        let mounted = mounts.iter().filter(|(_, mounted)| *mounted == index).map(|(at, _)| shown(at.as_bytes()));
        Some(Self { name: inside.guest.machine.name_of(volume), facts, mounted: mounted.collect() })
    }

    fn used(&self) -> u64 {
        self.facts.size.saturating_sub(self.facts.free)
    }

    fn json(&self) -> Value {
        json!({
            "volume": self.name,
            "type": self.facts.kind,
            "uuid": self.facts.uuid,
            "label": self.facts.label,
            "size": self.facts.size,
            "used": self.used(),
            "free": self.facts.free,
            "dirty": self.facts.dirty,
            "features": self.facts.features,
            "mounted_on": self.mounted,
        })
    }

    fn line(&self) -> String {
        let percent = self.used().saturating_mul(100).div_ceil(self.facts.size.max(1));
        let size = |bytes| Size(bytes).to_string();
        format!(
            "{:16} {:8} {:>10} {:>10} {:>10} {percent:>3}%  {}",
            shown(self.name.as_bytes()),
            self.facts.kind,
            size(self.facts.size),
            size(self.used()),
            size(self.facts.free),
            self.mounted.join(", ")
        )
    }
}
