//! The arrows between the library's modules: each may use what stands to its left (docs/architecture.md), never the reverse.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The modules from left to right; those on one line may use each other.
const ORDER: &[&[&str]] = &[
    &["error", "limits", "session", "xml"],
    &["disk"],
    &["cache"],
    &["source"],
    &["container"],
    &["format"],
    &["chain"],
    &["overlay"],
    &["volume"],
    &["fs"],
    &["hive", "initramfs"],
    &["browse", "registry", "inspect"],
    &["fix"],
    &["convert"],
    &["appliance", "boot", "libvirt"],
    &["pipeline"],
    &["job"],
    &["cli"],
];

#[test]
fn arrows_point_left() {
    let mut wrong = Vec::new();
    for file in source_files() {
        let from = file.module();
        for to in uses(&file.code) {
            if rank(&to) > rank(&from) {
                wrong.push(format!("{}: {from} uses {to}", file.path));
            }
        }
    }
    assert!(wrong.is_empty(), "wrong arrows:\n{}", wrong.join("\n"));
}

#[test]
fn only_the_packages_made_for_it_know_tokio() {
    let offenders: Vec<_> =
        source_files().into_iter().filter(|file| file.code.contains("tokio::")).map(|file| file.path).collect();
    let is_home = |path: &String| {
        path == "source/runtime.rs"
            || ["source/http/", "source/object/", "source/ssh/"].iter().any(|home| path.starts_with(home))
            || path == "source/ssh.rs"
    };
    let offenders: Vec<_> = offenders.into_iter().filter(|path| !is_home(path)).collect();
    assert!(offenders.is_empty(), "the core is synchronous, but these use tokio: {offenders:?}");
}

#[test]
fn uses_are_found_however_they_are_written() {
    let code = "use crate::disk::Disk;\npub use crate::{cache, Error,\n    source::{self, file}};\nlet x = crate::chain::open();\n// crate::cli\n";
    assert_eq!(uses(code), ["cache", "chain", "disk", "source"].map(String::from).into());
}

#[test]
fn every_bound_is_named_by_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let limits = fs::read_to_string(root.join("limits.rs")).expect("the bounds");
    let bounds: BTreeSet<&str> =
        limits.lines().filter_map(|line| line.strip_prefix("pub const ")?.split(':').next()).collect();
    assert!(bounds.len() > 100, "the bounds are written in another way");
    let mut named: BTreeSet<&str> = BTreeSet::new();
    for (path, code) in rust_files(&root) {
        let is_test = path.ends_with("tests.rs") || path.contains("tests/");
        let tests = if is_test { code.as_str() } else { &code[without_tests(&code).len()..] };
        let words = tests.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        named.extend(words.filter_map(|word| bounds.get(word).copied()));
    }
    let forgotten: Vec<_> = bounds.difference(&named).collect();
    assert!(forgotten.is_empty(), "no test is at, below and above {forgotten:?}");
}

/// A file of the library, without its tests.
pub(crate) struct SourceFile {
    /// Its path beneath `src`.
    pub(crate) path: String,
    /// Its code; unit tests, which may look to the right, are cut off.
    pub(crate) code: String,
}

impl SourceFile {
    fn module(&self) -> String {
        self.path.split(['/', '.']).next().unwrap_or_default().to_owned()
    }
}

/// Every file of the library but the two that hold it together.
pub(crate) fn source_files() -> Vec<SourceFile> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let is_code =
        |path: &str| !["lib.rs", "main.rs"].contains(&path) && !path.ends_with("tests.rs") && !path.contains("/tests/");
    let files = rust_files(&root).into_iter().filter(|(path, _)| is_code(path));
    let files: Vec<_> = files.map(|(path, code)| SourceFile { path, code: without_tests(&code).to_owned() }).collect();
    assert!(files.len() > 5, "the source is somewhere else");
    files
}

/// Every file of Rust beneath `root`: its path there, and what it holds.
fn rust_files(root: &Path) -> Vec<(String, String)> {
    let mut pending = vec![root.to_path_buf()];
    let mut files = Vec::new();
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).expect("beneath src").display().to_string();
                files.push((name, fs::read_to_string(&path).expect("a source file")));
            }
        }
    }
    files
}

/// The code before the file's test module, which stands last.
fn without_tests(code: &str) -> &str {
    let begins = ["\nmod tests {", "\npub(crate) mod tests {", "\npub(super) mod tests {"];
    let Some(tests) = begins.iter().find_map(|begin| code.find(begin)) else { return code };
    let attribute = code[..tests].rfind("#[cfg(test)]").expect("the test module is for tests only");
    &code[..attribute]
}

fn rank(module: &str) -> usize {
    let rank = ORDER.iter().position(|group| group.contains(&module));
    rank.unwrap_or_else(|| panic!("module {module} has no place in the order of tests/architecture.rs"))
}

/// The modules of the library that some code names, by `use` or by path; comments do not count.
fn uses(code: &str) -> BTreeSet<String> {
    let code: String =
        code.lines().filter(|line| !line.trim_start().starts_with("//")).flat_map(|line| [line, "\n"]).collect();
    let mut names = BTreeSet::new();
    for (start, marker) in code.match_indices("crate::") {
        let rest = &code[start + marker.len()..];
        match rest.strip_prefix('{') {
            Some(group) => names.extend(group_members(group)),
            None => names.extend(first_name(rest)),
        }
    }
    // Re-exports of the error module: `crate::Error`, `crate::Result`.
    names.retain(|name| name.starts_with(|c: char| c.is_ascii_lowercase()));
    names
}

/// The first names of `a::{b, c}, d}` outside of inner braces.
fn group_members(group: &str) -> Vec<String> {
    let mut members = Vec::new();
    let (mut depth, mut begins) = (0, true);
    for (index, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => begins = true,
            c if c.is_whitespace() => {}
            _ if begins => {
                members.extend(first_name(&group[index..]));
                begins = false;
            }
            _ => {}
        }
    }
    members
}

fn first_name(text: &str) -> Option<String> {
    let name: String = text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (!name.is_empty()).then_some(name)
}
