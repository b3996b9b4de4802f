//! What a guest needs to run on KVM: planned from its files, listed, then applied as planned.
//!
//! Planning only reads. A [`Plan`] carries everything that [`apply`] writes, so that what was shown is what is done. Fixes are
//! idempotent: planning on a fixed guest gives no action. What is deliberately not done is listed as well, with the reason.

mod bootloader;
mod clock;
mod console;
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
mod runlevel;
mod selinux;
mod spec;
mod text;
mod tools;
mod undo;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::fs::{Attributes, FileKind, Timestamp, Tree};
use crate::inspect::{Linux, Machine, Root};
use crate::limits;
use draft::Draft;
pub use hardware::{Bus, Card, Hardware};
pub use patch::Piece;
pub use undo::Undo;

pub use inject::{
    CloudInit, GuestAgent, Injection, NewAddresses, NewFile, NewUser, PasswordHash, Script, Services, key_lines,
};
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
    /// The fix that it belongs to: `inject` for what was asked for, `fstab`, `crypttab`, `raid`, `lvm`, `bootloader`, `initramfs`, `network`,
    /// `tools`, `console`, `selinux`.
    pub fix: &'static str,
    /// What is done.
    pub what: String,
    /// Why.
    pub why: String,
    /// Whether it can be undone with what is kept beside the report.
    pub reversible: bool,
    /// Whether not everyone in the guest may read the file. A report does not show what is in it.
    pub private: bool,
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
    /// Permission bits are set; owner and group stay.
    Mode {
        /// Those that were there.
        #[serde(rename = "mode_before", serialize_with = "octal")]
        before: u32,
        /// The new ones.
        #[serde(serialize_with = "octal")]
        mode: u32,
    },
    /// A file, link or empty directory is removed.
    Remove {
        /// What it is.
        was: Removed,
    },
    /// A file, link or directory gets another name in the same file system.
    Rename {
        /// The new path.
        to: String,
    },
    /// An extended attribute is set or, without a value, removed.
    Xattr {
        /// Its full name.
        name: String,
        /// The value that was there.
        #[serde(rename = "value_before", serialize_with = "shown")]
        before: Option<Vec<u8>>,
        /// The new value.
        #[serde(serialize_with = "shown")]
        value: Option<Vec<u8>>,
    },
}

/// What is removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "type")]
pub enum Removed {
    /// An empty directory.
    Directory,
    /// A regular file with one name.
    File {
        /// Its content.
        #[serde(rename = "bytes", serialize_with = "length")]
        content: Vec<u8>,
    },
    /// A symbolic link.
    Link {
        /// What it points to.
        target: String,
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
            Self::CreateDir { .. }
            | Self::Link { .. }
            | Self::Mode { .. }
            | Self::Remove { .. }
            | Self::Rename { .. }
            | Self::Xattr { .. } => 0,
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

fn octal<S: serde::Serializer>(mode: &u32, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format!("{mode:04o}"))
}

/// An attribute's value as text, with what is none escaped.
fn shown<S: serde::Serializer>(value: &Option<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
    value.as_ref().map(|value| crate::error::escape_bytes(value)).serialize(serializer)
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
    /// What undoes the changes.
    #[serde(skip)]
    pub undo: Undo,
}

/// Takes what private files hold out of a plan or report that was made JSON.
pub fn hide_private(json: &mut serde_json::Value) {
    for list in ["actions", "applied"] {
        for action in json.get_mut(list).and_then(serde_json::Value::as_array_mut).into_iter().flatten() {
            let private = action.get("private") == Some(&serde_json::Value::Bool(true));
            let Some(change) = action.get_mut("change").and_then(serde_json::Value::as_object_mut) else { continue };
            if private {
                change.retain(|key, _| !matches!(key.as_str(), "diff" | "value" | "value_before"));
            }
        }
    }
}

impl Plan {
    /// Whether nothing will be changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty()
    }

    /// Every path that changes, sorted. A name that comes or goes also changes the times of the directory that it lies in.
    #[must_use]
    pub fn paths(&self) -> Vec<&str> {
        let renamed = self.actions.iter().filter_map(|action| match &action.change {
            Change::Rename { to } => Some(to.as_str()),
            _ => None,
        });
        let mut paths: Vec<&str> = self.actions.iter().map(|action| action.path.as_str()).chain(renamed).collect();
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
    network::plan(&mut draft, outcome.hardware.nic())?;
    tools::plan(&mut draft)?;
    console::plan(&mut draft)?;
    clock::plan(&mut draft);
    let local_clock = clock::is_local(&mut draft)?;
    inject::plan(&mut draft)?;
    draft.relabel_where_unsure()?;
    Ok(Plan { hardware: Hardware { local_clock, ..outcome.hardware }, ..draft.finish() })
}

/// Applies a plan to the tree that it was made for, and leaves the file systems clean. Changed and new files get `now` as
/// their modification time; access times stay.
///
/// # Errors
/// `fix.changed` when a file is not as it was when the plan was made; what stands before it in the plan is done by then.
pub fn apply(plan: &Plan, tree: &Tree, now: Timestamp) -> Result<Report> {
    let mut undo = Undo::default();
    let mut applied = Vec::with_capacity(plan.actions.len());
    for action in &plan.actions {
        let reversible = undo.gather(action, tree).map_err(|error| error.at(&action.path))?;
        apply_one(action, tree, now).map_err(|error| error.at(&action.path))?;
        applied.push(Action { reversible, ..action.clone() });
    }
    tree.sync()?;
    Ok(Report { applied, left: plan.left.clone(), undo })
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
        Change::Mode { before, mode } => {
            let found = tree.find_link(path)?.filter(|found| found.stat.mode == *before).ok_or_else(changed)?;
            tree.set_owner(path, *mode, found.stat.uid, found.stat.gid)
        }
        Change::Remove { was } => remove(path, was, tree),
        Change::Rename { to } => tree.rename(path, to),
        Change::Xattr { name, before, value } => {
            let is = tree.xattrs(path)?.into_iter().find(|(known, _)| known == name.as_bytes());
            if is.map(|(_, value)| value) != *before {
                return Err(changed());
            }
            match value {
                Some(value) => tree.set_xattr(path, name.as_bytes(), value),
                None => tree.remove_xattr(path, name.as_bytes()),
            }
        }
    }
}

fn remove(path: &str, was: &Removed, tree: &Tree) -> Result<()> {
    let found = tree.find_link(path)?.ok_or_else(changed)?;
    let is = match (was, found.stat.kind) {
        (Removed::Directory, FileKind::Directory) => return tree.remove_dir(path),
        (Removed::File { content }, FileKind::Regular) => {
            found.stat.links == 1 && tree.read(path, limits::MAX_GUEST_CONFIG)?.as_ref() == Some(content)
        }
        (Removed::Link { target }, FileKind::Symlink) => tree.target(&found)? == target.as_bytes(),
        _ => false,
    };
    if is { tree.remove(path) } else { Err(changed()) }
}

fn changed() -> Error {
    Error::failed("fix.changed", "the file is not as it was when the fix was planned").hint("plan again")
}

#[cfg(test)]
mod tests;
