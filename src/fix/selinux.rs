//! The labels that a guest's SELinux policy gives to files by their paths (selabel_file(5)): what setfiles would set.
//!
//! Only the policy's text is read: `file_contexts` with what semanage and users' homes add, and the lists of paths that stand for
//! others.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use regex::bytes::RegexBuilder;

use crate::fs::FileKind;

/// The extended attribute that holds a label: a context and a zero byte.
pub(super) const XATTR: &str = "security.selinux";

/// What a policy says of paths.
#[derive(Debug, Default)]
pub(super) struct Contexts {
    /// Later ones count before earlier ones, and those without wildcards before all others.
    specs: Vec<Spec>,
    /// Paths that stand for others, `.subs` and then `.subs_dist`: later ones first.
    substitutes: [Vec<(String, String)>; 2],
}

#[derive(Debug)]
struct Spec {
    pattern: String,
    kind: Option<FileKind>,
    /// `None` where files keep the label that they are made with.
    context: Option<String>,
    /// What every path begins with that can match.
    start: String,
    is_literal: bool,
}

/// What is known of a path.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Label<'c> {
    /// It gets this context.
    Context(&'c str),
    /// It is made with the label that the kernel chooses.
    Inherited,
    /// The policy cannot be understood there.
    Unknown,
}

impl Contexts {
    /// Of the texts of `file_contexts`, `.homedirs` and `.local`, and of `.subs` and `.subs_dist`.
    pub(super) fn parse(contexts: &[String], substitutes: [&str; 2]) -> Self {
        let specs = contexts.iter().flat_map(|text| text.lines()).filter_map(Spec::parse).collect();
        let list = |text: &str| {
            let pair = |line: &str| {
                let mut words = line.split_ascii_whitespace().filter(|_| !line.trim_start().starts_with('#'));
                Some((words.next()?.to_owned(), words.next()?.to_owned()))
            };
            text.lines().rev().filter_map(pair).collect()
        };
        Self { specs, substitutes: substitutes.map(list) }
    }

    /// What the file of this kind at `path`, which has no links in it, gets.
    pub(super) fn label(&self, path: &str, kind: FileKind) -> Label<'_> {
        let mut path = path.to_owned();
        for list in &self.substitutes {
            path = substituted(list, &path).unwrap_or(path);
        }
        let fits = |spec: &&Spec| path.starts_with(&spec.start) && spec.kind.is_none_or(|wanted| wanted == kind);
        let (literal, others): (Vec<&Spec>, Vec<&Spec>) =
            self.specs.iter().rev().filter(fits).partition(|spec| spec.is_literal);
        for spec in literal.into_iter().chain(others) {
            match spec.matches(&path) {
                Some(true) => return spec.context.as_deref().map_or(Label::Inherited, Label::Context),
                Some(false) => {}
                None => return Label::Unknown,
            }
        }
        Label::Inherited
    }
}

/// A path with its beginning replaced, where the list has it.
fn substituted(list: &[(String, String)], path: &str) -> Option<String> {
    list.iter().find_map(|(from, to)| {
        let rest = path.strip_prefix(from.as_str()).filter(|rest| rest.is_empty() || rest.starts_with('/'))?;
        let rest = if to == "/" { rest.strip_prefix('/').unwrap_or(rest) } else { rest };
        Some(format!("{to}{rest}"))
    })
}

impl Spec {
    /// `PATTERN [TYPE] CONTEXT`.
    fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let (pattern, kind, context) = match words.as_slice() {
            [pattern, ..] if pattern.starts_with('#') => return None,
            [pattern, context] => (pattern, None, context),
            [pattern, kind, context] => (pattern, Some(kind_of(kind)?), context),
            _ => return None,
        };
        let (start, is_literal) = beginning(pattern);
        let context = (*context != "<<none>>").then(|| (*context).to_owned());
        Some(Self { pattern: (*pattern).to_owned(), kind, context, start, is_literal })
    }

    /// Whether the whole path matches; `None` when the pattern is not understood.
    fn matches(&self, path: &str) -> Option<bool> {
        let pattern = format!("^{}$", self.pattern);
        let pattern = RegexBuilder::new(&pattern).unicode(false).dot_matches_new_line(true).build().ok()?;
        Some(pattern.is_match(path.as_bytes()))
    }
}

fn kind_of(text: &str) -> Option<FileKind> {
    Some(match text {
        "--" => FileKind::Regular,
        "-d" => FileKind::Directory,
        "-l" => FileKind::Symlink,
        // Nothing of these kinds is made here, but a line for them is none for files.
        "-b" => FileKind::BlockDevice,
        "-c" => FileKind::CharDevice,
        "-p" => FileKind::Fifo,
        "-s" => FileKind::Socket,
        _ => return None,
    })
}

/// What every path begins with that a pattern matches, and whether that is all of it.
fn beginning(pattern: &str) -> (String, bool) {
    let (mut start, mut chars) = (String::new(), pattern.chars().peekable());
    while let Some(c) = chars.next() {
        let literal = match c {
            '\\' => match chars.next().filter(|next| !next.is_ascii_alphanumeric()) {
                Some(next) => next,
                None => return (start, false),
            },
            '.' | '^' | '$' | '?' | '*' | '+' | '|' | '[' | '(' | '{' | ')' => {
                // Anything may come in place of what stands before a bar.
                let start = if has_bar(pattern) { String::new() } else { start };
                return (start, false);
            }
            c => c,
        };
        if matches!(chars.peek(), Some('?' | '*' | '{')) {
            let start = if has_bar(pattern) { String::new() } else { start };
            return (start, false);
        }
        start.push(literal);
    }
    (start, true)
}

/// Whether there is a choice that is not in parentheses.
fn has_bar(pattern: &str) -> bool {
    let (mut depth, mut escaped) = (0_usize, false);
    for c in pattern.chars() {
        match c {
            _ if escaped => {}
            '(' | '[' => depth = depth.saturating_add(1),
            ')' | ']' => depth = depth.saturating_sub(1),
            '|' if depth == 0 => return true,
            _ => {}
        }
        escaped = c == '\\' && !escaped;
    }
    false
}

#[cfg(test)]
mod tests;
