//! What was installed, upgraded and removed when, from the logs of package managers, rotated and compressed ones too.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::collections::VecDeque;
use std::io::Read;

use serde::Serialize;

use super::lines::Lines;
use super::{LONGEST_WORD, problem, text};
use crate::error::{Error, Kind, Result};
use crate::fs::{FileKind, Tree};
use crate::limits;

/// What the logs of package managers tell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct History {
    /// The last changes, the oldest first within each package manager: at most [`limits::MAX_PACKAGE_CHANGES`].
    pub changes: VecDeque<Change>,
    /// The logs that told something.
    pub logs: Vec<String>,
    /// What could not be read, and why.
    pub notes: Vec<String>,
}

/// One package that was changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Change {
    /// When, as the log has it: the guest's local time, with the offset where the log has one. yum's log has no year.
    pub time: String,
    /// `install`, `upgrade`, `downgrade`, `reinstall`, `remove` or `purge`.
    pub action: &'static str,
    /// The package.
    pub name: String,
    /// Its architecture.
    pub arch: Option<String>,
    /// The version that came, or went.
    pub version: Option<String>,
    /// The version before.
    pub from: Option<String>,
}

type Parse = fn(&str) -> Option<Change>;

/// Folder, name and form of the logs. apt's and dnf's other logs repeat what these say.
const LOGS: &[(&str, &str, Parse)] = &[
    ("/var/log", "dpkg.log", dpkg),
    ("/var/log", "yum.log", yum),
    ("/var/log", "dnf.rpm.log", dnf),
    ("/var/log/zypp", "history", zypp),
    ("/var/log", "pacman.log", pacman),
];

/// Reads the logs.
pub fn history(tree: &Tree) -> Result<History> {
    let mut history = History::default();
    for (folder, name, parse) in LOGS {
        for path in rotated(tree, folder, name)? {
            let before = history.changes.len();
            let read = read(tree, &path, *parse, &mut history.changes).map_err(|error| error.at(&path));
            if let Some(problem) = problem(read)? {
                history.notes.push(problem);
            }
            if history.changes.len() > before || before >= limits::MAX_PACKAGE_CHANGES {
                history.logs.push(path);
            }
        }
    }
    Ok(history)
}

/// A log with its older parts, the oldest first: `NAME-DATE`, then `NAME.N` from large numbers to small ones, then `NAME`.
fn rotated(tree: &Tree, folder: &str, name: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in tree.list(folder)?.iter().filter(|entry| entry.kind == FileKind::Regular) {
        let Some(rest) = entry.text().and_then(|entry| entry.strip_prefix(name)) else { continue };
        let (stem, _) = rest.rsplit_once('.').filter(|(_, end)| matches!(*end, "gz" | "xz")).unwrap_or((rest, ""));
        let digits = stem.get(1..).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
        let order = match (stem.as_bytes().first(), digits.and_then(|digits| digits.parse::<i64>().ok())) {
            (None, _) => (2, 0),
            (Some(b'.'), Some(number)) => (1, number.saturating_neg()),
            (Some(b'-'), Some(date)) => (0, date),
            _ => continue,
        };
        found.push((order, format!("{folder}/{name}{rest}")));
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

fn read(tree: &Tree, path: &str, parse: Parse, changes: &mut VecDeque<Change>) -> Result<()> {
    let Some(file) = tree.open(path)? else { return Ok(()) };
    let reader: Box<dyn Read> = if path.ends_with(".gz") {
        Box::new(flate2::read::MultiGzDecoder::new(file))
    } else if path.ends_with(".xz") {
        Box::new(liblzma::read::XzDecoder::new_multi_decoder(file))
    } else {
        Box::new(file)
    };
    let mut lines = Lines::new(reader);
    loop {
        let line = match lines.next() {
            Ok(Some(line)) => line,
            Ok(None) => return Ok(()),
            // A decoder's own complaint: what it unpacks is damaged. Those of the disk keep their codes.
            Err(error) if error.kind() == Kind::Unreadable && path.ends_with('z') => {
                return Err(Error::corrupt("packages.log", "a compressed log that does not decompress"));
            }
            Err(error) => return Err(error),
        };
        if let Some(change) = std::str::from_utf8(line).ok().and_then(parse).filter(|change| !change.name.is_empty()) {
            changes.push_back(change);
            if changes.len() > limits::MAX_PACKAGE_CHANGES {
                changes.pop_front();
            }
        }
    }
}

fn word(word: &str) -> Option<String> {
    text(word.as_bytes(), LONGEST_WORD)
}

/// `2024-01-02 10:20:30 upgrade NAME:ARCH OLD NEW`; `<none>` is no version.
fn dpkg(line: &str) -> Option<Change> {
    let mut words = line.split(' ');
    let time = word(line.get(..19)?)?.replacen(' ', "T", 1);
    let action = match words.nth(2)? {
        "install" => "install",
        "upgrade" => "upgrade",
        "remove" => "remove",
        "purge" => "purge",
        _ => return None,
    };
    let (name, arch) = words.next()?.split_once(':')?;
    let mut version = || words.next().filter(|version| *version != "<none>").and_then(word);
    let (old, new) = (version(), version());
    let (version, from) = if new.is_some() { (new, old) } else { (old, None) };
    Some(Change { time, action, name: word(name)?, arch: word(arch), version, from })
}

/// `[2024-01-02T10:20:30+0000] [ALPM] upgraded NAME (OLD -> NEW)`; before 2015 `[2014-01-02 10:20]`.
fn pacman(line: &str) -> Option<Change> {
    let (time, rest) = line.strip_prefix('[')?.split_once("] ")?;
    let rest = rest.strip_prefix("[ALPM] ").unwrap_or(rest);
    let (action, rest) = rest.split_once(' ')?;
    let action = match action {
        "installed" => "install",
        "upgraded" => "upgrade",
        "downgraded" => "downgrade",
        "reinstalled" => "reinstall",
        "removed" => "remove",
        _ => return None,
    };
    let (name, versions) = rest.strip_suffix(')')?.split_once(" (")?;
    let (from, version) = match versions.split_once(" -> ") {
        Some((old, new)) => (word(old), new),
        None => (None, versions),
    };
    let time = word(time)?.replacen(' ', "T", 1);
    Some(Change { time, action, name: word(name)?, arch: None, version: word(version), from })
}

/// `2024-01-02 10:20:30|install|NAME|VERSION-RELEASE|ARCH|…`.
fn zypp(line: &str) -> Option<Change> {
    let mut fields = line.split('|');
    let time = word(fields.next()?)?.replacen(' ', "T", 1);
    let action = match fields.next()?.trim() {
        "install" => "install",
        "remove" => "remove",
        _ => return None,
    };
    let mut next = || fields.next().and_then(word);
    Some(Change { time, action, name: next()?, version: next(), arch: next(), from: None })
}

/// `2024-01-02T10:20:30+0000 SUBDEBUG Installed: NAME-VERSION-RELEASE.ARCH`.
fn dnf(line: &str) -> Option<Change> {
    let mut words = line.split(' ').filter(|word| !word.is_empty());
    let (time, _level) = (word(words.next()?)?, words.next()?);
    rpm(time, words.next()?, words.next()?)
}

/// `Jan 02 10:20:30 Updated: NAME-VERSION-RELEASE.ARCH`.
fn yum(line: &str) -> Option<Change> {
    let (time, rest) = line.split_at_checked(15)?;
    let mut words = rest.split(' ').filter(|word| !word.is_empty());
    rpm(word(time)?, words.next()?, words.next()?)
}

fn rpm(time: String, action: &str, package: &str) -> Option<Change> {
    let action = match action {
        "Installed:" => "install",
        "Upgrade:" | "Updated:" => "upgrade",
        "Downgrade:" => "downgrade",
        "Reinstall:" => "reinstall",
        "Erase:" | "Erased:" | "Removed:" => "remove",
        _ => return None,
    };
    // yum names what it erased alone, and puts an epoch before the name.
    let mut parts = package.rsplitn(3, '-');
    let (last, version, name) = (parts.next()?, parts.next(), parts.next());
    let (Some(version), Some(name)) = (version, name) else {
        return Some(Change { time, action, name: word(package)?, ..Change::default() });
    };
    let (release, arch) = last.rsplit_once('.').unwrap_or((last, ""));
    let (epoch, name) = match name.split_once(':') {
        Some((epoch, name)) => (format!("{epoch}:"), name),
        None => (String::new(), name),
    };
    let version = word(&format!("{epoch}{version}-{release}"));
    Some(Change { time, action, name: word(name)?, arch: word(arch), version, from: None })
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, clippy::indexing_slicing, reason = "tests build their input")]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use super::*;
    use crate::fs::MemoryFs;

    fn told(files: &[(&str, &[u8])]) -> History {
        let fs = MemoryFs::default();
        for (path, content) in files {
            fs.add_file(path, content).unwrap();
        }
        history(&Tree::new(Arc::new(fs))).unwrap()
    }

    fn line(change: &Change) -> String {
        let or = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
        let Change { time, action, name, .. } = change;
        format!("{time} {action} {name} {} {} {}", or(&change.arch), or(&change.from), or(&change.version))
    }

    #[test]
    fn each_log_is_read_in_its_own_form() {
        for (path, text, expected) in [
            (
                "/var/log/dpkg.log",
                "2024-01-02 10:20:30 startup archives unpack\n2024-01-02 10:20:30 install a:amd64 <none> 1:2-3\n\
                 2024-01-02 10:20:31 status half-installed a:amd64 1:2-3\n2024-01-02 10:20:32 upgrade a:all 1 2\n\
                 2024-01-02 10:20:33 purge a:all 2 <none>\n",
                "2024-01-02T10:20:30 install a amd64 - 1:2-3|2024-01-02T10:20:32 upgrade a all 1 2|\
                 2024-01-02T10:20:33 purge a all - 2",
            ),
            (
                "/var/log/pacman.log",
                "[2024-01-02T10:20:30+0000] [PACMAN] Running 'pacman -Syu'\n\
                 [2024-01-02T10:20:30+0000] [ALPM] upgraded a (1:1-1 -> 1:2-1)\n[2014-01-02 10:20] removed b (1-1)\n\
                 [2024-01-02T10:20:30+0000] [ALPM] transaction started\n",
                "2024-01-02T10:20:30+0000 upgrade a - 1:1-1 1:2-1|2014-01-02T10:20 remove b - - 1-1",
            ),
            (
                "/var/log/zypp/history",
                "# 2024-01-02 10:20:30 a installed ok\n2024-01-02 10:20:30|command|root@h|'zypper'|\n\
                 2024-01-02 10:20:31|install|a|1-2.3|x86_64|root@h|repo|sum|\n2024-01-02 10:20:32|remove |b|1-1|noarch|root@h|\n",
                "2024-01-02T10:20:31 install a x86_64 - 1-2.3|2024-01-02T10:20:32 remove b noarch - 1-1",
            ),
            (
                "/var/log/dnf.rpm.log",
                "2024-01-02T10:20:30+0000 INFO --- logging initialized ---\n\
                 2024-01-02T10:20:30+0000 SUBDEBUG Installed: a-b-1.2-3.el9.x86_64\n\
                 2024-01-02T10:20:31+0000 SUBDEBUG Upgraded: a-b-1.1-1.el9.x86_64\n2024-01-02T10:20:32+0000 SUBDEBUG Erase: c-1-1.noarch\n",
                "2024-01-02T10:20:30+0000 install a-b x86_64 - 1.2-3.el9|2024-01-02T10:20:32+0000 remove c noarch - 1-1",
            ),
            (
                "/var/log/yum.log",
                "Jan 02 10:20:30 Updated: 1:a-1.2-3.el6.x86_64\nJan 02 10:20:31 Erased: b\n",
                "Jan 02 10:20:30 upgrade a x86_64 - 1:1.2-3.el6|Jan 02 10:20:31 remove b - - -",
            ),
        ] {
            let history = told(&[(path, text.as_bytes())]);
            let lines: Vec<_> = history.changes.iter().map(line).collect();
            assert_eq!(lines.join("|"), expected, "{path}");
            assert_eq!((history.logs, history.notes), (vec![path.to_owned()], Vec::new()));
        }
    }

    #[test]
    fn older_parts_come_first_and_are_unpacked() {
        let entry = |name: &str| format!("2024-01-02 10:20:30 install {name}:all <none> 1\n");
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(entry("a").as_bytes()).unwrap();
        let gzip = gzip.finish().unwrap();
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 0);
        xz.write_all(entry("z").as_bytes()).unwrap();
        let xz = xz.finish().unwrap();
        let history = told(&[
            ("/var/log/dpkg.log", entry("d").as_bytes()),
            ("/var/log/dpkg.log.1", entry("c").as_bytes()),
            ("/var/log/dpkg.log.2.gz", &gzip[..gzip.len() / 2]),
            ("/var/log/dpkg.log.10.gz", &gzip),
            ("/var/log/dpkg.log-20230101.xz", &xz),
            ("/var/log/dpkg.log.old", entry("no").as_bytes()),
            ("/var/log/dpkg.logger", entry("no").as_bytes()),
        ]);
        let names: Vec<_> = history.changes.iter().map(|change| change.name.as_str()).collect();
        assert_eq!(names, ["z", "a", "c", "d"]);
        assert_eq!((history.notes.len(), history.logs.len()), (1, 4), "{:?}", history.notes);
    }

    #[test]
    fn hostile_lines_are_left_out() {
        for text in [
            "",
            "\n",
            "x",
            "2024",
            "2024-01-02 10:20:30",
            "2024-01-02 10:20:30 install",
            "2024-01-02 10:20:30 install x",
            "2024-01-02 10:20:30 install : 1 2",
            "2024-01-02 10:20:3\u{e9} install a:b",
            "\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}",
        ] {
            for (folder, name, _) in LOGS {
                let history = told(&[(&format!("{folder}/{name}"), text.as_bytes())]);
                assert!(history.changes.is_empty() && history.notes.is_empty(), "{name}: {text}");
            }
        }
    }

    #[test]
    fn as_many_changes_as_the_limit() {
        let limit = limits::MAX_PACKAGE_CHANGES;
        for (count, kept) in [(limit - 1, limit - 1), (limit, limit), (limit + 1, limit)] {
            let text: String = (1..=count).map(|index| format!("2024-01-02|install|p{index}|1|a|\n")).collect();
            let history = told(&[("/var/log/zypp/history", text.as_bytes())]);
            assert_eq!(history.changes.len(), kept);
            assert_eq!(history.changes.back().unwrap().name, format!("p{count}"));
        }
    }
}
