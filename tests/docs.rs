//! What is written down and what is there agree: error codes, fuzz targets, make targets, commands.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

use crate::architecture::source_files;
use crate::support::Run;

#[test]
fn every_error_code_is_explained() {
    let constructor = Regex::new(
        r#"(?:Error::new\(\s*[\w:]+,\s*|\b(?:corrupt|unsupported|refused|limit|failed)\(\s*)"([a-z0-9-]+(?:\.[a-z0-9-]+)+)""#,
    )
    .expect("a pattern");
    let mut unknown = Vec::new();
    for file in source_files().iter().filter(|file| !file.path.starts_with("error/codes")) {
        for found in constructor.captures_iter(&file.code) {
            if hyper2kvm::error::explain(&found[1]).is_none() {
                unknown.push(format!("{}: {}", file.path, &found[1]));
            }
        }
    }
    assert!(unknown.is_empty(), "codes that src/error/codes does not explain:\n{}", unknown.join("\n"));
}

#[test]
fn every_explained_error_code_is_used() {
    let files = source_files();
    let mut code: String =
        files.iter().filter(|file| !file.path.starts_with("error/codes")).map(|file| file.code.as_str()).collect();
    code.push_str(&read(FUSE_ERRORS));
    let unused: Vec<_> = hyper2kvm::error::codes()
        .into_iter()
        .map(|(slug, _)| slug)
        .filter(|slug| !code.contains(&format!("\"{slug}\"")))
        .collect();
    assert!(unused.is_empty(), "codes that nothing uses: {unused:?}");
}

/// The package has codes of its own, which the commands pass on.
const FUSE_ERRORS: &str = "fuse/src/error.rs";

#[test]
fn every_error_code_of_a_mount_is_explained() {
    let code = Regex::new(r#"=> "(fuse\.[a-z-]+)""#).expect("a pattern");
    let errors = read(FUSE_ERRORS);
    let codes: Vec<_> = code.captures_iter(&errors).map(|found| found.extract::<1>().1[0]).collect();
    assert!(codes.len() > 5, "the codes are somewhere else");
    let unknown: Vec<_> = codes.iter().filter(|code| hyper2kvm::error::explain(code).is_none()).collect();
    assert!(unknown.is_empty(), "codes that src/error/codes does not explain: {unknown:?}");
}

#[test]
fn every_fuzz_target_is_built_and_smoke_run() {
    let manifest = read("fuzz/Cargo.toml");
    let pattern = Regex::new(r#"path = "fuzz_targets/(\w+)\.rs""#).expect("a pattern");
    let declared: BTreeSet<_> = pattern.captures_iter(&manifest).map(|found| found[1].to_owned()).collect();
    // scripts/fuzz.sh runs what is in the folder.
    let entries = fs::read_dir(root().join("fuzz/fuzz_targets")).expect("a folder");
    let files: BTreeSet<_> = entries
        .map(|entry| entry.expect("an entry").path().file_stem().expect("a name").to_string_lossy().into_owned())
        .collect();
    assert_eq!(declared, files);
}

#[test]
fn the_documents_examples_are_commands_and_flags_that_exist() {
    let example = Regex::new(r"(?m)^(?:\$ )?hyper2kvm (\w+)([^#\n]*)").expect("a pattern");
    let flag = Regex::new(r" (--[a-z-]+)").expect("a pattern");
    let mut seen = 0;
    for (path, text) in documents() {
        for found in example.captures_iter(&text) {
            let help = Run::new([&found[1], "--help"]).success();
            for flag in flag.captures_iter(&found[2]) {
                assert!(help.stdout.contains(&flag[1]), "{path}: `hyper2kvm {}` has no {}", &found[1], &flag[1]);
            }
            seen += 1;
        }
    }
    assert!(seen >= 10, "only {seen} examples were found");
}

#[test]
fn the_documents_make_targets_exist() {
    let makefile = read("Makefile");
    let named = Regex::new(r"(?m)(?:^|`)make ([a-z]+)").expect("a pattern");
    for (path, text) in documents() {
        for found in named.captures_iter(&text) {
            assert!(makefile.contains(&format!("\n{}: ##", &found[1])), "{path}: there is no `make {}`", &found[1]);
        }
    }
}

#[test]
fn the_documents_name_files_that_exist() {
    let named = Regex::new(r"`((?:src|tests|scripts|docs|fuzz|benches|nbd-server|fuse)/[\w./-]*|[\w-]+\.md)")
        .expect("a pattern");
    for (path, text) in documents() {
        let folder = root().join(&path);
        let folder = folder.parent().expect("a folder");
        for found in named.captures_iter(&text) {
            let name = &found[1];
            let is_there = [root().as_path(), folder].iter().any(|base| {
                let place = base.join(name);
                place.exists() || place.with_extension("rs").exists()
            });
            assert!(is_there, "{path}: {name} is not there");
        }
    }
}

/// The README and everything in docs, by path.
fn documents() -> Vec<(String, String)> {
    let docs = fs::read_dir(root().join("docs")).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    let names = docs.map(|name| format!("docs/{}", name.to_string_lossy())).chain(["README.md".to_owned()]);
    names.filter(|name| name.ends_with(".md")).map(|name| (name.clone(), read(&name))).collect()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}
