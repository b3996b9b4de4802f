//! What a guest needs to run on KVM: planned from its files, listed, then applied as planned.
//!
//! Planning only reads. A [`Plan`] carries everything that [`apply`] writes, so that what was shown is what is done. Fixes are
//! idempotent: planning on a fixed guest gives no action. What is deliberately not done is listed as well, with the reason.

mod bootloader;
mod crypttab;
mod diff;
mod draft;
mod esp;
mod fstab;
mod hardware;
mod initramfs;
mod inject;
mod lvm;
mod names;
mod network;
mod options;
mod patch;
mod persist;
mod raid;
mod spec;
mod text;
mod tools;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::fs::{Attributes, Timestamp, Tree};
use crate::inspect::{Linux, Machine, Root};
use crate::limits;
use draft::Draft;
pub use hardware::{Bus, Card, Hardware};
pub use patch::Piece;

pub use inject::{CloudInit, Injection, NewFile, NewUser, PasswordHash, Script, Services, key_lines};
pub use network::of_guest as cards_of_guest;
pub use options::{MacMap, NetworkLevel, Options};

/// What will be done to a guest, in order, and what will not.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Plan {
    /// Changes, each to one path.
    pub actions: Vec<Action>,
    /// What is left as it is although it may matter, and why.
    pub left: Vec<Left>,
    /// What the machine must have so that the guest finds it.
    pub hardware: Hardware,
}

/// One change to one path.
#[derive(Clone, Debug, Serialize)]
pub struct Action {
    /// The canonical path in the guest.
    pub path: String,
    /// The fix that it belongs to: `inject` for what was asked for, `fstab`, `crypttab`, `raid`, `lvm`, `bootloader`, `initramfs`, `network`, `tools`.
    pub fix: &'static str,
    /// What is done.
    pub what: String,
    /// Why.
    pub why: String,
    /// Whether it can be undone with what the report keeps.
    pub reversible: bool,
    /// The change itself.
    pub change: Change,
}

/// How a path changes. File contents are carried, but not serialised.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Change {
    /// Bytes are added behind a file's end.
    Append {
        /// The file's length before.
        size_before: u64,
        /// What is added.
        #[serde(rename = "bytes", serialize_with = "length")]
        content: Vec<u8>,
    },
    /// A file is made.
    Create {
        /// Its text.
        diff: String,
        /// Owner, mode and extended attributes.
        #[serde(skip)]
        attributes: Attributes,
        /// Its content.
        #[serde(rename = "bytes", serialize_with = "length")]
        content: Vec<u8>,
    },
    /// A directory is made.
    CreateDir {
        /// Owner, mode and extended attributes.
        #[serde(skip)]
        attributes: Attributes,
    },
    /// A file's content is replaced in place; owner, mode, links and extended attributes stay.
    Edit {
        /// Changed lines in unified form.
        diff: String,
        /// The content that was planned with.
        #[serde(rename = "bytes_before", serialize_with = "length")]
        before: Vec<u8>,
        /// The new content.
        #[serde(rename = "bytes", serialize_with = "length")]
        content: Vec<u8>,
    },
    /// A symbolic link is made.
    Link {
        /// What it points to.
        target: String,
        /// Owner and extended attributes.
        #[serde(skip)]
        attributes: Attributes,
    },
    /// Parts of a file are replaced where they lie, and its length may change.
    Patch {
        /// The file's length before.
        size_before: u64,
        /// Its length after.
        size: u64,
        /// What is replaced, ascending.
        pieces: Vec<Piece>,
    },
}

impl Change {
    /// Bytes that are written into a file.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Append { content, .. } | Self::Create { content, .. } | Self::Edit { content, .. } => {
                u64::try_from(content.len()).unwrap_or(u64::MAX)
            }
            Self::CreateDir { .. } | Self::Link { .. } => 0,
            Self::Patch { pieces, .. } => {
                let bytes = pieces.iter().map(|piece| u64::try_from(piece.after.len()).unwrap_or(u64::MAX));
                bytes.fold(0, u64::saturating_add)
            }
        }
    }
}

fn length<S: serde::Serializer>(content: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(content.len()).unwrap_or(u64::MAX))
}

/// Something that is not changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Left {
    /// Where it is.
    pub path: String,
    /// What is left.
    pub what: String,
    /// Why.
    pub why: String,
    /// Whether the guest is expected not to boot on virtio because of it.
    pub stops_boot: bool,
}

/// What was done.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The changes made.
    pub applied: Vec<Action>,
    /// What was left.
    pub left: Vec<Left>,
}

impl Plan {
    /// Whether nothing will be changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty()
    }

    /// Every path that changes, sorted. A new file also changes the times of the directory that it lies in.
    #[must_use]
    pub fn paths(&self) -> Vec<&str> {
        let mut paths: Vec<&str> = self.actions.iter().map(|action| action.path.as_str()).collect();
        paths.sort_unstable();
        paths
    }

    /// Whether something is left that keeps the guest from booting on virtio.
    #[must_use]
    pub fn stops_boot(&self) -> bool {
        self.left.iter().any(|left| left.stops_boot)
    }
}

/// Plans everything that the guest under `root` needs.
pub fn plan(facts: &Linux, machine: &Machine, root: &Root) -> Result<Plan> {
    plan_with(facts, machine, root, &Options::default())
}

/// Plans everything that the guest under `root` needs, as the user wants it.
pub fn plan_with(facts: &Linux, machine: &Machine, root: &Root, options: &Options) -> Result<Plan> {
    let mut draft = Draft::new(facts, machine, root, options);
    fstab::plan(&mut draft)?;
    crypttab::plan(&mut draft)?;
    raid::plan(&mut draft)?;
    lvm::plan(&mut draft)?;
    bootloader::plan(&mut draft)?;
    esp::plan(&mut draft)?;
    let outcome = initramfs::plan(&mut draft)?;
    persist::plan(&mut draft, outcome.lacked)?;
    network::plan(&mut draft)?;
    tools::plan(&mut draft)?;
    inject::plan(&mut draft)?;
    Ok(Plan { hardware: outcome.hardware, ..draft.finish() })
}

/// Applies a plan to the tree that it was made for, and leaves the file systems clean. Changed and new files get `now` as
/// their modification time; access times stay.
///
/// # Errors
/// `fix.changed` when a file is not as it was when the plan was made; what stands before it in the plan is done by then.
pub fn apply(plan: &Plan, tree: &Tree, now: Timestamp) -> Result<Report> {
    for action in &plan.actions {
        apply_one(action, tree, now).map_err(|error| error.at(&action.path))?;
    }
    tree.sync()?;
    Ok(Report { applied: plan.actions.clone(), left: plan.left.clone() })
}

fn apply_one(action: &Action, tree: &Tree, now: Timestamp) -> Result<()> {
    let path = action.path.as_str();
    let dated = |attributes: &Attributes| Attributes { time: now, ..attributes.clone() };
    match &action.change {
        Change::Create { attributes, content, .. } => tree.create_file(path, &dated(attributes), content),
        Change::CreateDir { attributes } => tree.create_dir(path, &dated(attributes)),
        Change::Link { target, attributes } => tree.symlink(path, target.as_bytes(), &dated(attributes)),
        Change::Edit { before, content, .. } => {
            if tree.read(path, limits::MAX_GUEST_CONFIG)?.as_ref() != Some(before) {
                return Err(changed());
            }
            let found = tree.find(path)?.ok_or_else(changed)?;
            tree.write(path, content)?;
            tree.set_times(path, found.stat.atime, now)
        }
        Change::Patch { size_before, size, pieces } => {
            let found = tree.find(path)?.filter(|found| found.stat.size == *size_before).ok_or_else(changed)?;
            let old = tree.read(path, limits::MAX_INITRAMFS)?.ok_or_else(changed)?;
            tree.write(path, &patch::apply(old, *size, pieces).ok_or_else(changed)?)?;
            tree.set_times(path, found.stat.atime, now)
        }
        Change::Append { size_before, content } => {
            let found = tree.find(path)?.filter(|found| found.stat.size == *size_before).ok_or_else(changed)?;
            tree.append(path, content)?;
            tree.set_times(path, found.stat.atime, now)
        }
    }
}

fn changed() -> Error {
    Error::failed("fix.changed", "the file is not as it was when the fix was planned").hint("plan again")
}

#[cfg(test)]
mod tests;
