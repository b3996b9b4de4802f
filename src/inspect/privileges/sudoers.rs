//! The grammar of sudoers(5).
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::collections::{HashMap, HashSet};

use super::PrivilegeRule;
use crate::inspect::os::bounded;
use crate::limits;

/// What a line includes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Include {
    File(String),
    Folder(String),
}

/// Everything that is in the files, read line by line.
#[derive(Debug, Default)]
pub(super) struct File {
    /// By kind (`User_Alias` …) and name.
    aliases: HashMap<(&'static str, String), Vec<String>>,
    rules: Vec<PrivilegeRule>,
    /// Items of lists that were kept.
    items: usize,
    asks: bool,
    asks_nobody: bool,
    of_target: bool,
    of_root: bool,
    pub(super) notes: Vec<String>,
}

const KINDS: &[(&str, &str)] = &[
    ("User_Alias", "users"),
    ("Runas_Alias", "run as"),
    ("Host_Alias", "hosts"),
    ("Cmnd_Alias", "commands"),
    ("Cmd_Alias", "commands"),
];

/// Levels of aliases of aliases.
const DEEPEST: usize = 8;

/// The lines of a text with the number at which each begins; a backslash at the end joins the next one.
pub(super) fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (index, line) in text.lines().enumerate() {
        let (at, mut joined) = open.take().unwrap_or((index.saturating_add(1), String::new()));
        match line.strip_suffix('\\') {
            Some(start) => {
                joined.push_str(start);
                joined.push(' ');
                open = Some((at, joined));
            }
            None => {
                joined.push_str(line);
                lines.push((at, joined));
            }
        }
    }
    lines.extend(open);
    lines
}

impl File {
    /// Takes in a line; tells what it includes.
    pub(super) fn line(&mut self, path: &str, number: usize, line: &str) -> Option<Include> {
        let line = line.trim();
        for (word, is_folder) in [("includedir", true), ("include", false)] {
            let rest = line.strip_prefix(['@', '#']).and_then(|rest| rest.strip_prefix(word));
            if let Some(name) = rest.filter(|rest| rest.starts_with([' ', '\t'])) {
                let name = bounded(name.trim().trim_matches('"')).replace("\\ ", " ");
                return Some(if is_folder { Include::Folder(name) } else { Include::File(name) });
            }
        }
        let line = without_comment(line).trim();
        let (word, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
        if line.is_empty() {
            return None;
        }
        if let Some((_, kind)) = KINDS.iter().find(|(name, _)| *name == word) {
            self.alias(kind, rest);
        } else if let Some(scope) = word.strip_prefix("Defaults") {
            // What counts for some users, hosts or commands only is not what counts for all.
            if scope.is_empty() {
                self.defaults(rest);
            }
        } else if !self.rule(path, number, line) {
            self.note(path, number);
        }
        None
    }

    /// Notes the first line of a file that cannot be understood.
    fn note(&mut self, path: &str, number: usize) {
        let start = format!("{path}, line ");
        if self.notes.iter().all(|note| !note.starts_with(&start)) {
            self.notes.push(format!("{start}{number}: this is no rule of sudo"));
        }
    }

    fn defaults(&mut self, rest: &str) {
        for setting in rest.split(',').map(str::trim) {
            let (name, is_on) = setting.strip_prefix('!').map_or((setting, true), |name| (name.trim(), false));
            match name {
                "authenticate" => (self.asks, self.asks_nobody) = (is_on, !is_on),
                "targetpw" => self.of_target = is_on,
                "rootpw" => self.of_root = is_on,
                _ => {}
            }
        }
    }

    /// Whose password is asked for.
    pub(super) const fn asks_for(&self) -> &'static str {
        match (self.asks_nobody, self.of_root, self.of_target) {
            (true, ..) => "none",
            (false, true, _) => "root",
            (false, false, true) => "target",
            (false, false, false) => "own",
        }
    }

    /// `NAME = ITEM, ITEM : NAME = …`.
    fn alias(&mut self, kind: &'static str, text: &str) {
        let mut rest = text;
        while let Some((name, list)) = rest.split_once('=') {
            let mut cursor = Cursor(list);
            let items = match kind {
                "commands" => cursor.commands(),
                // Addresses have colons.
                "hosts" => cursor.list(&[]),
                _ => cursor.list(&[':']),
            };
            let name = name.trim().trim_start_matches(':').trim();
            if self.aliases.len() < limits::MAX_SUDO_RULES && self.take(items.len()) {
                self.aliases.insert((kind, bounded(name)), items);
            }
            rest = cursor.0.trim_start().strip_prefix(':').unwrap_or_default();
        }
    }

    /// `USERS HOSTS = COMMANDS : HOSTS = COMMANDS …`; false when it is none.
    fn rule(&mut self, path: &str, number: usize, line: &str) -> bool {
        let mut cursor = Cursor(line);
        let users = cursor.list(&['=']);
        loop {
            let hosts = cursor.list(&['=']);
            let Some(rest) = cursor.0.trim_start().strip_prefix('=').filter(|_| !users.is_empty() && !hosts.is_empty())
            else {
                return false;
            };
            cursor = Cursor(rest);
            let mut open = PrivilegeRule {
                program: "sudo",
                users: users.clone(),
                hosts,
                source: path.to_owned(),
                line: number,
                ..PrivilegeRule::default()
            };
            let mut is_first = true;
            while is_first || cursor.eat(',') {
                is_first = false;
                if let Some(group) = cursor.run_as() {
                    self.finish(&mut open);
                    (open.run_as_users, open.run_as_groups) = group;
                }
                while let Some(tag) = cursor.tag() {
                    let password = match tag {
                        "PASSWD" => Some(true),
                        "NOPASSWD" => Some(false),
                        _ => continue,
                    };
                    if password != open.password {
                        self.finish(&mut open);
                        open.password = password;
                    }
                }
                match cursor.command() {
                    Some(command) => open.commands.push(command),
                    None => return false,
                }
            }
            self.finish(&mut open);
            if !cursor.eat(':') {
                return cursor.0.trim().is_empty();
            }
        }
    }

    /// Ends a rule whose commands are there; the next one begins as it did.
    fn finish(&mut self, open: &mut PrivilegeRule) {
        if open.commands.is_empty() || self.rules.len() >= limits::MAX_SUDO_RULES {
            open.commands.clear();
            return;
        }
        let rule = open.clone();
        open.commands.clear();
        let parts = [&rule.users, &rule.hosts, &rule.run_as_users, &rule.run_as_groups, &rule.commands];
        if self.take(parts.map(Vec::len).iter().sum()) {
            self.rules.push(rule);
        }
    }

    /// Whether so many more items may be kept.
    fn take(&mut self, count: usize) -> bool {
        self.items = self.items.saturating_add(count);
        self.items <= limits::MAX_SUDO_ITEMS
    }

    /// The rules, with what aliases stand for.
    pub(super) fn rules(self) -> Vec<PrivilegeRule> {
        let Self { aliases, rules, items, .. } = self;
        let mut left = limits::MAX_SUDO_ITEMS.saturating_sub(items);
        let mut expand = |kind: &'static str, list: &[String]| {
            let mut expanded = Vec::new();
            let mut seen = HashSet::new();
            list.iter().for_each(|item| put(&aliases, kind, item, false, &mut seen, &mut left, &mut expanded));
            expanded
        };
        let with = |rule: PrivilegeRule| PrivilegeRule {
            users: expand("users", &rule.users),
            hosts: expand("hosts", &rule.hosts),
            run_as_users: expand("run as", &rule.run_as_users),
            run_as_groups: expand("run as", &rule.run_as_groups),
            commands: expand("commands", &rule.commands),
            ..rule
        };
        rules.into_iter().map(with).collect()
    }
}

/// Puts what an item stands for into a list; `seen` has the aliases on the way to it.
fn put<'a>(
    aliases: &'a HashMap<(&'static str, String), Vec<String>>,
    kind: &'static str,
    item: &'a str,
    is_negated: bool,
    seen: &mut HashSet<&'a str>,
    left: &mut usize,
    into: &mut Vec<String>,
) {
    // Every step counts, since aliases of nothing multiply as well.
    let Some(less) = left.checked_sub(1) else { return };
    *left = less;
    let (name, is_negated) = item.strip_prefix('!').map_or((item, is_negated), |name| (name, !is_negated));
    let members = aliases.get(&(kind, name.to_owned())).filter(|_| seen.len() < DEEPEST && !seen.contains(name));
    if let Some(members) = members {
        seen.insert(name);
        members.iter().for_each(|member| put(aliases, kind, member, is_negated, seen, left, into));
        seen.remove(name);
    } else {
        into.push(if is_negated { format!("!{name}") } else { name.to_owned() });
    }
}

/// A line without the comment at its end. A hash sign before a number is a user's number.
fn without_comment(line: &str) -> &str {
    let (mut is_escaped, mut is_quoted) = (false, false);
    let mut chars = line.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => {
                is_escaped = !is_escaped;
                continue;
            }
            '"' if !is_escaped => is_quoted = !is_quoted,
            '#' if !is_escaped && !is_quoted && !chars.peek().is_some_and(|(_, next)| next.is_ascii_digit()) => {
                return line.get(..at).unwrap_or(line);
            }
            _ => {}
        }
        is_escaped = false;
    }
    line
}

/// The rest of a line.
struct Cursor<'a>(&'a str);

impl Cursor<'_> {
    fn eat(&mut self, c: char) -> bool {
        let rest = self.0.trim_start().strip_prefix(c);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    /// Words between commas, up to a blank that none is next to, or to one of `ends`.
    fn list(&mut self, ends: &[char]) -> Vec<String> {
        let mut items = Vec::new();
        loop {
            let mut negations = 0_usize;
            while self.eat('!') {
                negations = negations.saturating_add(1);
            }
            let Some(word) = self.word(ends) else { return items };
            items.push(if negations.is_multiple_of(2) { word } else { format!("!{word}") });
            if !self.eat(',') {
                return items;
            }
        }
    }

    /// A word, which may be quoted in part; backslashes protect what follows.
    fn word(&mut self, ends: &[char]) -> Option<String> {
        self.0 = self.0.trim_start();
        let (mut word, mut is_quoted, mut end) = (String::new(), false, self.0.len());
        let mut chars = self.0.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => word.extend(chars.next().map(|(_, c)| c)),
                '"' => is_quoted = !is_quoted,
                _ if is_quoted => word.push(c),
                // Groups that are none of Unix begin with `%:`.
                ':' if word == "%" => word.push(c),
                _ if c.is_whitespace() || c == ',' || ends.contains(&c) => {
                    end = at;
                    break;
                }
                _ => word.push(c),
            }
        }
        self.0 = self.0.get(end..).unwrap_or_default();
        Some(bounded(&word)).filter(|word| !word.is_empty())
    }

    /// `(USERS : GROUPS)`.
    fn run_as(&mut self) -> Option<(Vec<String>, Vec<String>)> {
        if !self.eat('(') {
            return None;
        }
        let users = self.list(&[':', ')']);
        let groups = if self.eat(':') { self.list(&[')']) } else { Vec::new() };
        self.eat(')');
        Some((users, groups))
    }

    /// `NOPASSWD:`, or an option (`ROLE=x`), which is skipped.
    fn tag(&mut self) -> Option<&'static str> {
        let rest = self.0.trim_start();
        let length = rest.bytes().take_while(|byte| byte.is_ascii_uppercase() || *byte == b'_').count();
        let (name, rest) = rest.split_at_checked(length).filter(|(name, _)| !name.is_empty())?;
        if let Some(value) = rest.strip_prefix('=') {
            self.0 = value;
            self.word(&[]);
            return Some("");
        }
        self.0 = rest.trim_start().strip_prefix(':')?;
        Some(match name {
            "PASSWD" => "PASSWD",
            "NOPASSWD" => "NOPASSWD",
            _ => "",
        })
    }

    /// A command with its arguments, up to a comma, a colon or the end.
    fn command(&mut self) -> Option<String> {
        let mut negations = 0_usize;
        while self.eat('!') {
            negations = negations.saturating_add(1);
        }
        self.0 = self.0.trim_start();
        self.skip_digests();
        let (mut command, mut end) = (String::new(), self.0.len());
        let mut chars = self.0.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => match chars.next() {
                    Some((_, c @ (',' | ':' | '=' | '\\' | '#' | ' '))) => command.push(c),
                    Some((_, c)) => command.extend(['\\', c]),
                    None => {}
                },
                ',' | ':' | '=' | '#' => {
                    end = at;
                    break;
                }
                _ if c.is_whitespace() => command.push(' '),
                _ => command.push(c),
            }
        }
        self.0 = self.0.get(end..).unwrap_or_default();
        let words: Vec<&str> = command.split_ascii_whitespace().collect();
        let command = Some(bounded(&words.join(" "))).filter(|command| !command.is_empty())?;
        Some(if negations.is_multiple_of(2) { command } else { format!("!{command}") })
    }

    /// Commands between commas.
    fn commands(&mut self) -> Vec<String> {
        let mut commands = Vec::new();
        while let Some(command) = self.command() {
            commands.push(command);
            if !self.eat(',') {
                break;
            }
        }
        commands
    }

    /// `sha256:DIGEST`, of which several may stand before a command.
    fn skip_digests(&mut self) {
        while let Some(rest) = self.0.strip_prefix("sha") {
            let Some((_, rest)) =
                rest.split_once(':').filter(|(bits, _)| bits.bytes().all(|byte| byte.is_ascii_digit()))
            else {
                return;
            };
            let end = rest.trim_start().split_once([' ', '\t', ',']).map_or("", |(_, rest)| rest);
            self.0 = end.trim_start_matches([' ', '\t', ',']);
        }
    }
}
