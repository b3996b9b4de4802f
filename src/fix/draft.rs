//! A plan in the making: reads see what is planned already, and every path gets one action.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::selinux::{self, Contexts, Label};
use super::{Action, Change, Left, Options, Plan, Removed, diff};
use crate::error::{Kind, Result};
use crate::fs::tree::{Found, split_name};
use crate::fs::{Attributes, FileKind, Stat, Tree};
use crate::inspect::{Linux, Machine, Root, SelinuxMode};
use crate::limits;

/// Bytes that each file system keeps free of fixes, so that the guest can still start.
const RESERVE: u64 = 1 << 20;

const BLOCK: u64 = 4096;

/// Whether the guest boots without a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Vital {
    /// It boots, but may lack something.
    No,
    /// It does not find its root.
    Yes,
}

/// What a file that is put into the guest gets, where it is new.
#[derive(Clone, Copy, Debug)]
pub(super) struct Put {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Its content is not shown.
    pub(super) is_private: bool,
    /// Its type in the guest's SELinux policy, where that is not its directory's.
    pub(super) selinux: Option<&'static str>,
}

impl Put {
    pub(super) const fn new(mode: u32) -> Self {
        Self { mode, uid: 0, gid: 0, is_private: false, selinux: None }
    }
}

pub(super) struct Draft<'a> {
    facts: &'a Linux,
    machine: &'a Machine,
    root: &'a Root,
    options: &'a Options,
    plan: Plan,
    taken: BTreeMap<Vec<u8>, u64>,
    /// Labels of SELinux, read when they are first asked for.
    policy: Option<Policy>,
    /// Whether a file gets a label that may not be the policy's.
    unsure: bool,
}

/// What is known of the labels that the guest's SELinux policy gives.
enum Policy {
    /// The guest has none, or it is switched off.
    None,
    /// They are there, and not in text.
    Unread,
    Text(Rc<Contexts>),
}

impl<'a> Draft<'a> {
    pub(super) fn new(facts: &'a Linux, machine: &'a Machine, root: &'a Root, options: &'a Options) -> Self {
        let (plan, taken) = (Plan::default(), BTreeMap::new());
        Self { facts, machine, root, options, plan, taken, policy: None, unsure: false }
    }

    pub(super) fn facts(&self) -> &'a Linux {
        self.facts
    }

    pub(super) fn machine(&self) -> &'a Machine {
        self.machine
    }

    pub(super) fn options(&self) -> &'a Options {
        self.options
    }

    pub(super) fn root(&self) -> &'a Root {
        self.root
    }

    pub(super) fn tree(&self) -> &'a Tree {
        &self.root.tree
    }

    /// What is left so far.
    pub(super) fn left_so_far(&self) -> &[Left] {
        &self.plan.left
    }

    pub(super) fn finish(self) -> Plan {
        self.plan
    }

    pub(super) fn left(&mut self, left: Left) {
        if !self.plan.left.contains(&left) {
            self.plan.left.push(left);
        }
    }

    /// Takes it that what is left since `before` of it was does not keep the guest from booting.
    pub(super) fn not_vital_since(&mut self, before: usize) {
        self.plan.left.iter_mut().skip(before).for_each(|left| left.stops_boot = false);
    }

    /// Notes something that is left and does not keep the guest from booting.
    pub(super) fn leave(&mut self, path: &str, what: impl Into<String>, why: impl Into<String>) {
        self.left(Left { path: path.to_owned(), what: what.into(), why: why.into(), stops_boot: false });
    }

    /// The length of the file at `path`.
    pub(super) fn size_of(&self, path: &str) -> Result<u64> {
        Ok(self.tree().find(path)?.map_or(0, |found| found.stat.size))
    }

    /// A configuration file with its canonical path, as it will be after what is planned. A file that is too large is left.
    pub(super) fn read(&mut self, path: &str) -> Result<Option<(String, Vec<u8>)>> {
        let canonical = self.tree().find(path)?.and_then(|found| found.text().map(str::to_owned));
        let canonical = canonical.unwrap_or_else(|| path.to_owned());
        let planned = self.plan.actions.iter().find(|action| action.path == canonical);
        match planned.map(|action| &action.change) {
            Some(Change::Edit { content, .. } | Change::Create { content, .. }) => {
                return Ok(Some((canonical, content.clone())));
            }
            Some(Change::Remove { .. } | Change::Rename { .. }) => return Ok(None),
            _ => {}
        }
        match self.tree().read(&canonical, limits::MAX_GUEST_CONFIG) {
            Err(error) if error.kind() == Kind::Limit => {
                self.leave(&canonical, "the file is not looked at", error.to_string());
                Ok(None)
            }
            other => Ok(other?.map(|content| (canonical, content))),
        }
    }

    /// Plans new content for a file that exists. Nothing happens when it is the same; a second edit joins the first.
    pub(super) fn edit(
        &mut self,
        fix: &'static str,
        path: &str,
        content: Vec<u8>,
        what: &str,
        why: &str,
        vital: Vital,
    ) -> Result<()> {
        if let Some(action) = self.plan.actions.iter_mut().find(|action| action.path == path) {
            if let Change::Edit { before, content: old, diff: shown } = &mut action.change
                && *old != content
            {
                *shown = shown_diff(path, before, &content);
                *old = content;
                action.what = format!("{}; {what}", action.what);
                action.why = if action.why == why { action.why.clone() } else { format!("{}; {why}", action.why) };
            }
            return Ok(());
        }
        let Some(before) = self.tree().read(path, limits::MAX_GUEST_CONFIG)?.filter(|before| *before != content) else {
            return Ok(());
        };
        let diff = shown_diff(path, &before, &content);
        self.act(fix, path, what, why, Change::Edit { diff, before, content }, vital).map(drop)
    }

    /// Plans a new text file of mode 0644, with the directories above it. Nothing happens when the path exists.
    pub(super) fn create(&mut self, fix: &'static str, path: &str, content: &str, what: &str, why: &str) -> Result<()> {
        if self.is_taken(path)? {
            return Ok(());
        }
        let attributes = self.attributes(fix, path, FileKind::Regular, 0o644, why)?;
        let content = content.as_bytes().to_vec();
        let diff = diff::unified(&[], &content);
        self.act(fix, path, what, why, Change::Create { diff, attributes, content }, Vital::No).map(drop)
    }

    /// Plans a copy of a file, with the directories above it. Nothing happens when the path exists. One that is too large for what
    /// firmware starts is left.
    pub(super) fn copy(&mut self, fix: &'static str, from: &str, path: &str, what: &str, why: &str) -> Result<()> {
        if self.is_taken(path)? {
            return Ok(());
        }
        let size = self.size_of(from)?;
        if size > limits::MAX_EFI_COPY {
            self.leave(path, what, format!("{from} has {size} bytes, more than a boot loader can have"));
            return Ok(());
        }
        let Some(content) = self.tree().read(from, limits::MAX_EFI_COPY)? else { return Ok(()) };
        let attributes = self.attributes(fix, path, FileKind::Regular, 0o755, why)?;
        let diff = format!("a copy of {from}, {} bytes\n", content.len());
        let change = Change::Create { diff, attributes, content };
        self.act(fix, path, what, why, change, Vital::Yes).map(drop)
    }

    /// Plans a file with this content, whatever is there. One that is there keeps its owner, mode and attributes.
    pub(super) fn put(
        &mut self,
        fix: &'static str,
        path: &str,
        put: &Put,
        content: Vec<u8>,
        what: &str,
        why: &str,
    ) -> Result<()> {
        let found = self.tree().find(path)?;
        let planned = self.plan.actions.iter_mut().find(|action| action.path == path).map(|action| &mut action.change);
        if let Some(Change::Create { diff, content: old, .. }) = planned {
            *diff = private_diff(put, &[], &content);
            *old = content;
        } else if let Some(found) = found {
            match found.text().filter(|_| found.stat.kind == FileKind::Regular).map(str::to_owned) {
                Some(canonical) => {
                    self.edit(fix, &canonical, content, what, why, Vital::No)?;
                    self.hide(&canonical, put);
                }
                None => self.leave(path, what, "something that is no file is there"),
            }
        } else if self.tree().find_link(path)?.is_some() {
            self.leave(path, what, "a link that leads nowhere is there");
        } else {
            let attributes = self.new_attributes(fix, path, FileKind::Regular, put, why)?;
            let diff = private_diff(put, &[], &content);
            self.act(fix, path, what, why, Change::Create { diff, attributes, content }, Vital::No)?;
        }
        Ok(())
    }

    /// Plans a directory, with those above it. Nothing happens when it exists.
    pub(super) fn put_dir(&mut self, fix: &'static str, path: &str, put: &Put, what: &str, why: &str) -> Result<()> {
        if self.is_taken(path)? {
            return Ok(());
        }
        let attributes = self.new_attributes(fix, path, FileKind::Directory, put, why)?;
        self.act(fix, path, what, why, Change::CreateDir { attributes }, Vital::No).map(drop)
    }

    /// Whether there is a file, or will be.
    pub(super) fn has_file(&self, path: &str) -> Result<bool> {
        let is_planned = |action: &Action| action.path == path && matches!(action.change, Change::Create { .. });
        Ok(self.plan.actions.iter().any(is_planned) || self.tree().is_file(path)?)
    }

    fn hide(&mut self, path: &str, put: &Put) {
        let action = self.plan.actions.iter_mut().find(|action| action.path == path && put.is_private);
        if let Some(Change::Edit { diff, .. }) = action.map(|action| &mut action.change) {
            HIDDEN.clone_into(diff);
        }
    }

    fn new_attributes(
        &mut self,
        fix: &'static str,
        path: &str,
        kind: FileKind,
        put: &Put,
        why: &str,
    ) -> Result<Attributes> {
        let mut attributes = self.attributes(fix, path, kind, put.mode, why)?;
        (attributes.uid, attributes.gid) = (put.uid, put.gid);
        for (name, value) in &mut attributes.xattrs {
            // user:role:TYPE:level
            let mut parts: Vec<&[u8]> = value.split(|byte| *byte == b':').collect();
            if let (b"security.selinux", Some(wanted), Some(part)) = (name.as_slice(), put.selinux, parts.get_mut(2)) {
                *part = wanted.as_bytes();
                *value = parts.join(&b':');
            }
        }
        Ok(attributes)
    }

    /// Plans a symbolic link, with the directories above it. Nothing happens when the path exists.
    pub(super) fn link(&mut self, fix: &'static str, path: &str, target: &str, what: &str, why: &str) -> Result<()> {
        if self.is_taken(path)? {
            return Ok(());
        }
        let attributes = self.attributes(fix, path, FileKind::Symlink, 0o777, why)?;
        self.act(fix, path, what, why, Change::Link { target: target.to_owned(), attributes }, Vital::No).map(drop)
    }

    /// Plans the removal of a file, a link, or a directory of which nothing is left. What could not be made again is left.
    pub(super) fn remove(&mut self, fix: &'static str, path: &str, what: &str, why: &str) -> Result<()> {
        let Some((path, found)) = self.named(path)? else { return Ok(()) };
        let was = match found.stat.kind {
            FileKind::Regular if found.stat.links > 1 => Err("the file has other names"),
            FileKind::Regular => match self.tree().read(&path, limits::MAX_GUEST_CONFIG) {
                Ok(content) => Ok(Removed::File { content: content.unwrap_or_default() }),
                Err(error) if error.kind() == Kind::Limit => Err("the file is too large to be kept"),
                Err(error) => return Err(error),
            },
            FileKind::Symlink => String::from_utf8(self.tree().target(&found)?)
                .map(|target| Removed::Link { target })
                .map_err(|_| "the link's target is no text"),
            FileKind::Directory if self.will_be_empty(&path)? => Ok(Removed::Directory),
            FileKind::Directory => Err("the directory is not empty"),
            _ => Err("it is not a file, a link or a directory"),
        };
        match was {
            Ok(was) => self.act(fix, &path, what, why, Change::Remove { was }, Vital::No).map(drop),
            Err(reason) => {
                self.leave(&path, what, reason);
                Ok(())
            }
        }
    }

    /// Plans another name in the same directory or file system. Nothing happens when the new one exists.
    pub(super) fn rename(&mut self, fix: &'static str, path: &str, to: &str, what: &str, why: &str) -> Result<()> {
        let Some((path, _)) = self.named(path)? else { return Ok(()) };
        if self.is_taken(to)? {
            return Ok(());
        }
        self.act(fix, &path, what, why, Change::Rename { to: to.to_owned() }, Vital::No).map(drop)
    }

    /// Plans an extended attribute, or its removal without a `value`. Nothing happens when it is so already.
    pub(super) fn xattr(
        &mut self,
        fix: &'static str,
        path: &str,
        name: &str,
        value: Option<&[u8]>,
        (what, why): (&str, &str),
    ) -> Result<()> {
        let Some(path) = self.tree().find_link(path)?.and_then(|found| found.text().map(str::to_owned)) else {
            return Ok(());
        };
        let before = self.tree().xattrs(&path)?.into_iter().find(|(known, _)| known == name.as_bytes());
        let (before, value) = (before.map(|(_, value)| value), value.map(<[u8]>::to_vec));
        // A change of what is in a file, or who may read it, goes together with one of its attributes.
        let stays = |action: &Action| matches!(action.change, Change::Edit { .. } | Change::Mode { .. });
        if before == value || self.plan.actions.iter().any(|action| action.path == path && !stays(action)) {
            return Ok(());
        }
        self.act(fix, &path, what, why, Change::Xattr { name: name.to_owned(), before, value }, Vital::No).map(drop)
    }

    /// Plans permission bits. Nothing happens when the file has them.
    pub(super) fn mode(&mut self, fix: &'static str, path: &str, mode: u32, what: &str, why: &str) -> Result<()> {
        let Some((path, found)) = self.named(path)? else { return Ok(()) };
        let before = found.stat.mode;
        if before == mode || found.stat.kind == FileKind::Symlink {
            return Ok(());
        }
        self.act(fix, &path, what, why, Change::Mode { before, mode }, Vital::No).map(drop)
    }

    /// The file, link or directory itself with its canonical path, if nothing is planned for it yet.
    fn named(&self, path: &str) -> Result<Option<(String, Found)>> {
        let found = self.tree().find_link(path)?;
        let named = found.and_then(|found| Some((found.text()?.to_owned(), found)));
        Ok(named.filter(|(path, _)| self.plan.actions.iter().all(|action| action.path != *path)))
    }

    /// Whether a directory has nothing but what is planned to go.
    fn will_be_empty(&self, dir: &str) -> Result<bool> {
        let goes = |path: &str| {
            let gone = |action: &Action| matches!(action.change, Change::Remove { .. } | Change::Rename { .. });
            self.plan.actions.iter().any(|action| action.path == path && gone(action))
        };
        let below = format!("{dir}/");
        let arrives = |action: &Action| match &action.change {
            Change::Create { .. } | Change::CreateDir { .. } | Change::Link { .. } => action.path.starts_with(&below),
            Change::Rename { to } => to.starts_with(&below),
            _ => false,
        };
        let is_mounted = self.tree().mounts().any(|(at, _)| at == dir.as_bytes());
        let entries = self.tree().list(dir)?;
        let all_go = entries.iter().all(|entry| entry.text().is_some_and(|name| goes(&format!("{below}{name}"))));
        Ok(all_go && !is_mounted && !self.plan.actions.iter().any(arrives))
    }

    /// Plans any change, or leaves it when the file system cannot take it. Gives whether it is planned.
    pub(super) fn act(
        &mut self,
        fix: &'static str,
        path: &str,
        what: impl Into<String>,
        why: &str,
        change: Change,
        vital: Vital,
    ) -> Result<bool> {
        let what = what.into();
        if let Some(reason) = self.reserve(path, growth(&change))? {
            self.left(Left { path: path.to_owned(), what, why: reason, stops_boot: vital == Vital::Yes });
            return Ok(false);
        }
        let private = self.is_private(path, &change)?;
        self.plan.actions.push(Action {
            private,
            path: path.to_owned(),
            fix,
            what,
            why: why.to_owned(),
            reversible: true,
            change,
        });
        Ok(true)
    }

    /// Whether the file system of `path` has no space for a change.
    pub(super) fn lacks_space(&mut self, path: &str, change: &Change) -> Result<bool> {
        let taken = self.taken.clone();
        let lacks = self.reserve(path, growth(change))?.is_some();
        self.taken = taken;
        Ok(lacks)
    }

    fn is_taken(&self, path: &str) -> Result<bool> {
        let planned = self
            .plan
            .actions
            .iter()
            .any(|action| action.path == path || matches!(&action.change, Change::Rename { to } if to == path));
        Ok(planned || self.tree().find_link(path)?.is_some())
    }

    /// Whether someone in the guest may not read the file that is changed, or made.
    fn is_private(&self, path: &str, change: &Change) -> Result<bool> {
        if matches!(change, Change::Create { attributes, .. } if attributes.mode & 0o004 == 0) {
            return Ok(true);
        }
        let mut at = path.as_bytes();
        loop {
            let closed = |stat: Stat| match stat.kind {
                FileKind::Directory => stat.mode & 0o001 == 0,
                FileKind::Regular => stat.mode & 0o004 == 0,
                _ => false,
            };
            if self.tree().find_link(at)?.is_some_and(|found| closed(found.stat)) {
                return Ok(true);
            }
            match split_name(at) {
                Some((dir, _)) => at = dir,
                None => return Ok(false),
            }
        }
    }

    /// What a new file gets. Where the guest's files have labels of SELinux, it gets the one that the policy gives it, or that of
    /// its directory, as a new file in a running guest would.
    fn attributes(
        &mut self,
        fix: &'static str,
        path: &str,
        kind: FileKind,
        mode: u32,
        why: &str,
    ) -> Result<Attributes> {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        let dir = if dir.is_empty() { "/" } else { dir };
        if !self.is_taken(dir)? {
            let attributes = self.attributes(fix, dir, FileKind::Directory, 0o755, why)?;
            self.act(fix, dir, "create the directory", why, Change::CreateDir { attributes }, Vital::No)?;
        }
        let above = self.tree().xattrs(self.existing(dir)?).unwrap_or_default();
        let Some(above) = above.into_iter().find(|(name, _)| name == selinux::XATTR.as_bytes()) else {
            return Ok(Attributes { mode, ..Attributes::default() });
        };
        let found = self.tree().find(dir)?;
        let dir = found.as_ref().and_then(|found| found.text()).unwrap_or(dir);
        let canonical = format!("{}/{name}", dir.trim_end_matches('/'));
        let label = self.policys_label(&canonical, kind)?.unwrap_or(above.1);
        Ok(Attributes { mode, xattrs: vec![(above.0, label)], ..Attributes::default() })
    }

    /// The label that the policy gives to a file, as it is stored; `None` where it gives none, or where that is not known.
    fn policys_label(&mut self, canonical: &str, kind: FileKind) -> Result<Option<Vec<u8>>> {
        let policy = match self.policy.take() {
            Some(policy) => policy,
            None => self.read_policy()?,
        };
        let label = match &policy {
            Policy::None => None,
            Policy::Unread => Some(Label::Unknown),
            Policy::Text(contexts) => Some(contexts.label(canonical, kind)),
        };
        let label = match label {
            Some(Label::Context(context)) => Some([context.as_bytes(), b"\0"].concat()),
            Some(Label::Unknown) => {
                self.unsure = true;
                None
            }
            Some(Label::Inherited) | None => None,
        };
        self.policy = Some(policy);
        Ok(label)
    }

    fn read_policy(&mut self) -> Result<Policy> {
        let selinux = self.facts.security.selinux.as_ref();
        let Some(selinux) = selinux.filter(|selinux| selinux.mode != SelinuxMode::Disabled) else {
            return Ok(Policy::None);
        };
        let policy = selinux.policy.as_deref().unwrap_or("targeted");
        if policy.contains('/') || policy.starts_with('.') {
            return Ok(Policy::None);
        }
        let path = format!("/etc/selinux/{policy}/contexts/files/file_contexts");
        if !self.tree().is_file(&path)? {
            let is_compiled = self.tree().is_file(format!("{path}.bin"))?;
            return Ok(if is_compiled { Policy::Unread } else { Policy::None });
        }
        let mut contexts = Vec::new();
        for end in ["", ".homedirs", ".local"] {
            let file = format!("{path}{end}");
            match self.text(&file)? {
                Some(text) => contexts.push(text),
                None if self.tree().is_file(&file)? => return Ok(Policy::Unread),
                None => {}
            }
        }
        let (own, packaged) = (self.text(&format!("{path}.subs"))?, self.text(&format!("{path}.subs_dist"))?);
        let substitutes = [own.unwrap_or_default(), packaged.unwrap_or_default()];
        Ok(Policy::Text(Rc::new(Contexts::parse(&contexts, substitutes.each_ref().map(String::as_str)))))
    }

    fn text(&mut self, path: &str) -> Result<Option<String>> {
        Ok(self.read(path)?.map(|(_, text)| String::from_utf8_lossy(&text).into_owned()))
    }

    /// Plans the policy's label for a file or directory that has one of another type.
    pub(super) fn relabel(&mut self, fix: &'static str, path: &str, why: &str) -> Result<()> {
        let Some(found) = self.tree().find(path)? else { return Ok(()) };
        let Some(canonical) = found.text() else { return Ok(()) };
        let known = self.tree().xattrs(canonical)?.into_iter().find(|(name, _)| name == selinux::XATTR.as_bytes());
        let Some((_, label)) = known else { return Ok(()) };
        let Some(wanted) = self.policys_label(canonical, found.stat.kind)? else { return Ok(()) };
        let kind_of = |label: &[u8]| label.split(|byte| *byte == b':').nth(2).map(<[u8]>::to_vec);
        if kind_of(&label) == kind_of(&wanted) {
            return Ok(());
        }
        let what = "give it the label that the policy says";
        self.xattr(fix, canonical, selinux::XATTR, Some(&wanted), (what, why))
    }

    /// Lets the guest label all files anew where new ones may have a wrong label.
    pub(super) fn relabel_where_unsure(&mut self) -> Result<()> {
        if !self.unsure {
            return Ok(());
        }
        let why = "files were made, and which labels the guest's SELinux policy gives them cannot be read";
        self.create("selinux", "/.autorelabel", "", "label all files anew at the next boot", why)
    }

    /// The nearest path upward that exists.
    fn existing<'p>(&self, path: &'p str) -> Result<&'p [u8]> {
        let mut path = path.as_bytes();
        while self.tree().find(path)?.is_none() {
            path = split_name(path).map_or(b"/", |(dir, _)| dir);
        }
        Ok(path)
    }

    /// Takes `bytes` of the file system that `path` is on; `Some` says why they cannot be had.
    fn reserve(&mut self, path: &str, bytes: u64) -> Result<Option<String>> {
        let place = self.existing(path)?;
        let available = match self.tree().available(place) {
            Ok(available) => available,
            Err(error) if matches!(error.kind(), Kind::Unsupported | Kind::Refused | Kind::Corrupt) => {
                return Ok(Some(format!("its file system cannot be written: {error}")));
            }
            Err(error) => return Err(error),
        };
        let mount = self.tree().mount_of(place)?.to_vec();
        let taken = self.taken.entry(mount).or_default();
        let wanted = taken.saturating_add(bytes);
        if bytes > 0 && wanted.saturating_add(RESERVE) > available {
            return Ok(Some(format!("its file system has {available} bytes left, and {wanted} are needed")));
        }
        *taken = wanted;
        Ok(None)
    }
}

/// Stands for what is not shown.
const HIDDEN: &str = "(not shown)\n";

/// Files whose content is nobody's business but the guest's.
const SECRETS: &[&str] = &["/etc/gshadow", "/etc/shadow"];

fn shown_diff(path: &str, before: &[u8], after: &[u8]) -> String {
    if SECRETS.contains(&path) { HIDDEN.to_owned() } else { diff::unified(before, after) }
}

fn private_diff(put: &Put, before: &[u8], after: &[u8]) -> String {
    if put.is_private { HIDDEN.to_owned() } else { diff::unified(before, after) }
}

/// Bytes that a change may allocate.
fn growth(change: &Change) -> u64 {
    let size = |content: &[u8]| u64::try_from(content.len()).unwrap_or(u64::MAX);
    let blocks = |bytes: u64| bytes.div_ceil(BLOCK).saturating_mul(BLOCK);
    match change {
        Change::Append { content, .. } | Change::Create { content, .. } => blocks(size(content)).saturating_add(BLOCK),
        Change::CreateDir { .. } | Change::Link { .. } | Change::Rename { .. } | Change::Xattr { .. } => 2 * BLOCK,
        Change::Mode { .. } | Change::Remove { .. } => 0,
        Change::Edit { before, content, .. } => blocks(size(content)).saturating_sub(blocks(size(before))),
        Change::Patch { size_before, size, .. } => blocks(*size).saturating_sub(blocks(*size_before)),
    }
}
