//! Scheduled tasks: those that the scheduler's cache in the registry names, with what their files say.
//!
//! Sources: [MS-TSCH] 2.5 (the XML of a task); the registry knowledge base of libyal ("Task scheduler") for the cache.

use roxmltree::{Document, Node, ParsingOptions};
use serde::Serialize;

use super::{Reader, bounded, resolve, text};
use crate::disk::bytes::array;
use crate::error::Result;
use crate::hive::{Hive, Step};
use crate::limits;

/// A scheduled task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Task {
    /// Its path among the tasks: `\Microsoft\Windows\Defrag\ScheduledDefrag`.
    pub path: String,
    /// The GUID that the cache has it under, with braces.
    pub id: String,
    /// Whether it may run; `None` when its file cannot be read.
    pub enabled: Option<bool>,
    /// Who made it.
    pub author: Option<String>,
    /// What it is for; it may refer to a string in a file (`$(@…)`).
    pub description: Option<String>,
    /// The user or group that it runs as, by name or security identifier.
    pub run_as: Option<String>,
    /// Whether it runs with all the rights that this user can have.
    pub elevated: bool,
    /// What starts it: `boot`, `calendar`, `event`, `idle`, `logon`, `registration`, `session`, `time`, `wnf`.
    pub triggers: Vec<String>,
    /// Commands with their arguments, and handlers by their class identifiers.
    pub actions: Vec<String>,
}

const CACHE: &str = "Microsoft\\Windows NT\\CurrentVersion\\Schedule\\TaskCache\\Tree";

/// The tasks by their paths.
pub(super) fn read(reader: &mut Reader<'_>, software: &Hive, system_root: &str) -> Result<Vec<Task>> {
    let mut tasks = Vec::new();
    let named = names(software, &mut tasks);
    reader.part("the scheduled tasks", named)?;
    for task in &mut tasks {
        let file = format!("{system_root}/System32/Tasks{}", task.path);
        let read = read_file(reader, &file);
        if let Some(content) = reader.part(&file, read)? {
            match describe(&content, task) {
                Some(()) => {}
                None => reader.notes.push(format!("{file} is no task's file")),
            }
        }
    }
    tasks.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(tasks)
}

/// Keys of the tree that name a task; the others are folders.
fn names(software: &Hive, tasks: &mut Vec<Task>) -> Result<()> {
    let Some(top) = software.key(CACHE)? else { return Ok(()) };
    let mut trail: Vec<String> = Vec::new();
    software.walk(top, &mut |key, depth| {
        let key = key?;
        trail.truncate(depth.saturating_sub(1));
        if depth > 0 {
            trail.push(key.name().to_owned());
            if let Some(id) = text(key, "Id")? {
                tasks.push(Task { path: bounded(format!("\\{}", trail.join("\\"))), id, ..Task::default() });
            }
        }
        Ok(if tasks.len() < limits::MAX_WINDOWS_ITEMS { Step::In } else { Step::Over })
    })
}

fn read_file(reader: &Reader<'_>, path: &str) -> Result<Option<String>> {
    let Some(path) = resolve(reader.tree, path)? else { return Ok(None) };
    let content = reader.tree.read(path, limits::MAX_GUEST_CONFIG)?;
    Ok(content.map(|bytes| match bytes.strip_prefix(&[0xff, 0xfe]) {
        Some(rest) => {
            let units: Vec<u16> = rest.chunks_exact(2).map(|unit| u16::from_le_bytes(array(unit, 0))).collect();
            String::from_utf16_lossy(&units)
        }
        None => String::from_utf8_lossy(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes)).into_owned(),
    }))
}

/// What a task's file says.
fn describe(content: &str, task: &mut Task) -> Option<()> {
    /// Those of Windows have some fifty.
    const MOST_NODES: u32 = 10_000;
    let options = ParsingOptions { allow_dtd: false, nodes_limit: MOST_NODES, ..ParsingOptions::default() };
    let document = Document::parse_with_options(content, options).ok()?;
    let root = Some(document.root_element()).filter(|root| root.has_tag_name("Task"))?;
    let says = |part: &str, name: &str| child(root, part).and_then(|part| value(part, name));
    // What is not said has a default; tasks are enabled.
    task.enabled = Some(says("Settings", "Enabled").is_none_or(|enabled| is_true(&enabled)));
    task.author = says("RegistrationInfo", "Author");
    task.description = says("RegistrationInfo", "Description");
    let triggers = child(root, "Triggers").into_iter().flat_map(|triggers| triggers.children());
    task.triggers = triggers.filter_map(trigger).take(MOST).collect();
    let actions = child(root, "Actions");
    let context = actions.and_then(|actions| actions.attribute("Context"));
    let principals = || {
        let all = child(root, "Principals").into_iter().flat_map(|all| all.children());
        all.filter(|part| part.has_tag_name("Principal"))
    };
    let named = principals().find(|principal| context.is_some() && principal.attribute("id") == context);
    if let Some(principal) = named.or_else(|| principals().next()) {
        task.run_as = value(principal, "UserId").or_else(|| value(principal, "GroupId"));
        task.elevated = value(principal, "RunLevel").is_some_and(|level| level == "HighestAvailable");
    }
    task.actions = actions.into_iter().flat_map(|all| all.children()).filter_map(action).take(MOST).collect();
    Some(())
}

/// Triggers and actions of one task that are told; the scheduler takes 48 and 32.
const MOST: usize = 64;

fn is_true(text: &str) -> bool {
    matches!(text, "true" | "1")
}

fn trigger(node: Node<'_, '_>) -> Option<String> {
    let kind = node.tag_name().name().strip_suffix("Trigger")?;
    if value(node, "Enabled").is_some_and(|enabled| !is_true(&enabled)) {
        return None;
    }
    Some(match kind {
        "SessionStateChange" => "session".to_owned(),
        kind => bounded(kind.to_lowercase()),
    })
}

fn action(node: Node<'_, '_>) -> Option<String> {
    match node.tag_name().name() {
        "Exec" => {
            let command = value(node, "Command")?;
            Some(value(node, "Arguments").map_or_else(|| command.clone(), |arguments| format!("{command} {arguments}")))
        }
        "ComHandler" => value(node, "ClassId"),
        "SendEmail" => Some("a mail".to_owned()),
        "ShowMessage" => Some("a message".to_owned()),
        _ => None,
    }
}

fn child<'a, 'input>(node: Node<'a, 'input>, name: &str) -> Option<Node<'a, 'input>> {
    node.children().find(|child| child.has_tag_name(name))
}

fn value(node: Node<'_, '_>, name: &str) -> Option<String> {
    let text = child(node, name)?.text()?.trim();
    (!text.is_empty()).then(|| bounded(text.to_owned()))
}
