//! Who may act as somebody else, root above all: sudoers(5) with what it includes, and doas.conf(5).
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::collections::VecDeque;

use serde::Serialize;

use super::Reader;
use super::accounts::User;
use super::os::bounded;
use crate::error::Result;
use crate::fs::tree::FileId;
use crate::limits;
use sudoers::{File, Include};

mod sudoers;

/// What is allowed to whom.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Privileges {
    /// The users of this system, root aside, that may run any command as root, with the rules taken as they follow each other. Users of
    /// a directory are not among them.
    pub administrators: Vec<String>,
    /// Whose password sudo asks for: `own`, `target` (of whom the command is run as), `root`, or `none`.
    pub asks_for: &'static str,
    /// The rules in the order in which they count; the last one that matches wins. Aliases are replaced by what they stand for. At most
    /// [`limits::MAX_SUDO_RULES`].
    pub rules: Vec<PrivilegeRule>,
    /// The files that were read, in order.
    pub files: Vec<String>,
}

/// One rule. `ALL` stands for everything; what begins with `!` is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PrivilegeRule {
    /// `sudo` or `doas`.
    pub program: &'static str,
    /// The users: names, `#UID`, `%GROUP`, `%#GID`, `+NETGROUP`.
    pub users: Vec<String>,
    /// The hosts on which it counts.
    pub hosts: Vec<String>,
    /// Whom commands may be run as; empty for root, or for the user's own name where there are groups.
    pub run_as_users: Vec<String>,
    /// The groups that commands may be run with.
    pub run_as_groups: Vec<String>,
    /// The commands.
    pub commands: Vec<String>,
    /// Whether a password is asked for, where the rule says so.
    pub password: Option<bool>,
    /// The file.
    pub source: String,
    /// The line that it begins at, from 1.
    pub line: usize,
}

/// Reads the rules. `users` are those of the system, `hostname` its name.
pub(super) fn read(reader: &mut Reader<'_>, users: &[User], hostname: Option<&str>) -> Result<Privileges> {
    let mut found = Privileges { asks_for: "own", ..Privileges::default() };
    let mut file = File::default();
    // A file's rules stand where it is included: what is to be read comes as a stack of lines.
    let mut stack = Stack::default();
    stack.open(reader, "/etc/sudoers", &mut found)?;
    while let Some(top) = stack.open.last_mut() {
        let Some((line, text)) = top.lines.pop_front() else {
            stack.open.pop();
            continue;
        };
        let path = top.path.clone();
        match file.line(&path, line, &text) {
            None => {}
            Some(Include::File(name)) => stack.open(reader, &absolute(&name, &path, hostname), &mut found)?,
            Some(Include::Folder(name)) => {
                let folder = absolute(&name, &path, hostname);
                // The first one is to be read first, and lies on top.
                for path in reader.files(&folder, "")?.into_iter().rev().filter(|path| is_included(path)) {
                    stack.open(reader, &path, &mut found)?;
                }
            }
        }
    }
    reader.notes.append(&mut file.notes);
    found.asks_for = file.asks_for();
    found.rules = file.rules();
    let doas = reader.text("/etc/doas.conf")?;
    if let Some(text) = doas {
        found.files.push("/etc/doas.conf".to_owned());
        found.rules.extend(text.lines().enumerate().filter_map(|(index, line)| doas_rule(index, line)));
    }
    found.rules.truncate(limits::MAX_SUDO_RULES);
    found.administrators = administrators(&found.rules, users, hostname);
    Ok(found)
}

/// A file that is being read.
struct Open {
    path: String,
    /// Lines with their numbers, those that are continued joined.
    lines: VecDeque<(usize, String)>,
}

/// The files that are being read, each included by the one before, and all that ever were.
#[derive(Default)]
struct Stack {
    open: Vec<Open>,
    known: Vec<FileId>,
}

impl Stack {
    /// Puts a file on top. One that was read already is left out, by whatever path, and so is what exceeds the bound of included files.
    fn open(&mut self, reader: &mut Reader<'_>, path: &str, found: &mut Privileges) -> Result<()> {
        let Some(id) = reader.tree.find(path)?.map(|found| found.id()) else { return Ok(()) };
        if self.known.contains(&id) {
            reader.notes.push(format!("{path} includes itself, or is included twice"));
            return Ok(());
        }
        if self.known.len() >= limits::MAX_SOURCED_FILES {
            return Ok(());
        }
        self.known.push(id);
        if let Some(text) = reader.text(path)? {
            found.files.push(path.to_owned());
            self.open.push(Open { path: path.to_owned(), lines: sudoers::logical_lines(&text).into() });
        }
        Ok(())
    }
}

/// Names beside the file that names them, with the host's name for `%h`.
fn absolute(name: &str, from: &str, hostname: Option<&str>) -> String {
    let short = hostname.and_then(|name| name.split('.').next()).unwrap_or_default();
    let name = name.replace("%h", short);
    match from.rsplit_once('/') {
        Some((folder, _)) if !name.starts_with('/') => format!("{folder}/{name}"),
        _ => name.trim_end_matches('/').to_owned(),
    }
}

/// Files of a folder whose names have a dot or end in a tilde are what packages and editors leave.
fn is_included(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    !name.contains('.') && !name.ends_with('~')
}

/// `permit [nopass|persist|keepenv|setenv {…}]… IDENTITY [as TARGET] [cmd COMMAND [args …]]`, or `deny …`.
fn doas_rule(index: usize, line: &str) -> Option<PrivilegeRule> {
    let plain = line.split_once('#').map_or(line, |(plain, _)| plain);
    let mut words = plain.split_ascii_whitespace().map(|word| word.trim_matches('"'));
    let is_permit = match words.next()? {
        "permit" => true,
        "deny" => false,
        _ => return None,
    };
    let mut password = Some(true);
    let mut is_environment = false;
    let identity = words.by_ref().find(|word| match *word {
        "}" => {
            is_environment = false;
            false
        }
        _ if is_environment => false,
        "{" | "setenv" => {
            is_environment |= *word == "{";
            false
        }
        "nopass" => {
            password = Some(false);
            false
        }
        "persist" | "keepenv" | "nolog" => false,
        _ => true,
    })?;
    let (mut target, mut command): (Option<String>, Vec<&str>) = (None, Vec::new());
    while let Some(word) = words.next() {
        match word {
            "as" => target = words.next().map(bounded),
            "cmd" => command.extend(words.by_ref().filter(|word| *word != "args")),
            _ => {}
        }
    }
    let command = if command.is_empty() { "ALL".to_owned() } else { bounded(&command.join(" ")) };
    Some(PrivilegeRule {
        program: "doas",
        // Groups begin with a colon there.
        users: vec![bounded(&identity.strip_prefix(':').map_or(identity.to_owned(), |group| format!("%{group}")))],
        hosts: vec!["ALL".to_owned()],
        // Without a target it is anybody.
        run_as_users: vec![target.unwrap_or_else(|| "ALL".to_owned())],
        commands: vec![if is_permit { command } else { format!("!{command}") }],
        password,
        source: "/etc/doas.conf".to_owned(),
        line: index.saturating_add(1),
        ..PrivilegeRule::default()
    })
}

/// Users that may run any command as root by the last rule of each program that is about that.
fn administrators(rules: &[PrivilegeRule], users: &[User], hostname: Option<&str>) -> Vec<String> {
    let short = hostname.and_then(|name| name.split('.').next()).unwrap_or("localhost");
    let is_host = |host: &str| host == "ALL" || Some(host) == hostname || host == short;
    let mut found = Vec::new();
    for user in users.iter().filter(|user| user.uid != 0) {
        let mut may = [("sudo", false), ("doas", false)];
        for rule in rules {
            let is_root = rule.run_as_users.is_empty() && rule.run_as_groups.is_empty()
                || last(&rule.run_as_users, |name| matches!(name, "ALL" | "root" | "#0")) == Some(true);
            let is_about = is_root
                && last(&rule.users, |name| is_user(user, name)) == Some(true)
                && last(&rule.hosts, is_host) == Some(true);
            let verdict = last(&rule.commands, |command| command == "ALL").filter(|_| is_about);
            for (_, may) in may.iter_mut().filter(|(program, _)| *program == rule.program) {
                *may = verdict.unwrap_or(*may);
            }
        }
        if may.iter().any(|(_, may)| *may) {
            found.push(user.name.clone());
        }
    }
    found
}

/// Whether the last item that matches is one without a `!`; `None` when none matches.
fn last(items: &[String], matches: impl Fn(&str) -> bool) -> Option<bool> {
    items.iter().rev().find_map(|item| {
        let (name, is_wanted) = item.strip_prefix('!').map_or((item.as_str(), true), |name| (name, false));
        matches(name).then_some(is_wanted)
    })
}

fn is_user(user: &User, name: &str) -> bool {
    if name == "ALL" || name == user.name {
        return true;
    }
    if let Some(gid) = name.strip_prefix("%#") {
        return gid.parse() == Ok(user.gid);
    }
    match (name.strip_prefix('#'), name.strip_prefix('%')) {
        (Some(uid), _) => uid.parse() == Ok(user.uid),
        (_, Some(group)) => user.groups.iter().any(|own| own == group) || user.group.as_deref() == Some(group),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
