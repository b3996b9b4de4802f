//! `guest stat`, and what other commands tell of a file.

use jiff::Timestamp as Instant;
use serde_json::{Value, json};

use super::{Inside, entry, shown};
use crate::cli::args::guest::ManyArgs;
use crate::cli::commands::Context;
use crate::cli::output::table;
use crate::error::Result;
use crate::fs::tree::Found;
use crate::fs::{FileKind, Timestamp, Tree};

pub(super) fn run(args: &ManyArgs, context: &Context) -> Result<()> {
    let inside = Inside::open(&args.inside, context)?;
    let (mut texts, mut values) = (Vec::new(), Vec::new());
    for path in &args.path {
        let found = inside.find_link(path)?;
        let value = entry(&found.path, json(&inside.tree, &found)?);
        texts.push(text(&inside.tree, &found)?);
        values.push(value);
    }
    context.output.result(&json!({ "entries": values }), &texts.join("\n"))
}

/// All facts of a file (`docs/json.md`).
pub(super) fn json(tree: &Tree, found: &Found) -> Result<Value> {
    let stat = &found.stat;
    let target =
        if stat.kind == FileKind::Symlink { Some(super::text(&tree.target(found)?).into_owned()) } else { None };
    let xattrs: serde_json::Map<String, Value> = tree
        .xattrs_of(found)?
        .iter()
        .map(|(name, value)| (super::text(name).into_owned(), json!(hex(value))))
        .collect();
    Ok(json!({
        "kind": kind_name(stat.kind),
        "mode": format!("{:04o}", stat.mode),
        "uid": stat.uid,
        "gid": stat.gid,
        "size": stat.size,
        "allocated": stat.allocated,
        "links": stat.links,
        "inode": stat.inode.0,
        "device": stat.device.map(|(major, minor)| format!("{major}:{minor}")),
        "target": target,
        "accessed": number(stat.atime),
        "modified": number(stat.mtime),
        "changed": number(stat.ctime),
        "created": stat.btime.map(number),
        "xattrs": xattrs,
    }))
}

fn text(tree: &Tree, found: &Found) -> Result<String> {
    let stat = &found.stat;
    let mut rows = vec![
        ("path".to_owned(), shown(&found.path)),
        ("  kind".to_owned(), kind_name(stat.kind).to_owned()),
        ("  size".to_owned(), format!("{} ({} allocated)", stat.size, stat.allocated)),
        ("  mode".to_owned(), format!("{:04o} ({})", stat.mode, permissions(stat.kind, stat.mode))),
        ("  owner".to_owned(), format!("{}:{}", stat.uid, stat.gid)),
        ("  inode".to_owned(), format!("{}, {} links", stat.inode.0, stat.links)),
        ("  modified".to_owned(), time(stat.mtime)),
        ("  changed".to_owned(), time(stat.ctime)),
        ("  accessed".to_owned(), time(stat.atime)),
    ];
    if let Some(created) = stat.btime {
        rows.push(("  created".to_owned(), time(created)));
    }
    if let Some((major, minor)) = stat.device {
        rows.push(("  device".to_owned(), format!("{major}:{minor}")));
    }
    if stat.kind == FileKind::Symlink {
        rows.push(("  target".to_owned(), shown(&tree.target(found)?)));
    }
    for (name, value) in tree.xattrs_of(found)? {
        rows.push((format!("  {}", shown(&name)), readable(&value)));
    }
    Ok(table(&rows))
}

/// One line as `ls -l` has it, with numbers for owners.
pub(super) fn line(tree: &Tree, found: &Found, name: &[u8]) -> Result<String> {
    let stat = &found.stat;
    let size = stat.device.map_or_else(|| stat.size.to_string(), |(major, minor)| format!("{major},{minor}"));
    let arrow = match stat.kind {
        FileKind::Symlink => format!(" -> {}", shown(&tree.target(found)?)),
        _ => String::new(),
    };
    Ok(format!(
        "{} {:>3} {:>5} {:>5} {size:>12} {} {}{arrow}",
        permissions(stat.kind, stat.mode),
        stat.links,
        stat.uid,
        stat.gid,
        time(Timestamp { nanoseconds: 0, ..stat.mtime }),
        shown(name),
    ))
}

/// `drwxr-sr-x`.
fn permissions(kind: FileKind, mode: u32) -> String {
    let mut text = String::from(letter(kind));
    for (shift, special, set, unset) in [(6, 0o4000, 's', 'S'), (3, 0o2000, 's', 'S'), (0, 0o1000, 't', 'T')] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (true, true) => set,
            (true, false) => unset,
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// The letter of a kind, as in `ls -l`.
const fn letter(kind: FileKind) -> char {
    match kind {
        FileKind::BlockDevice => 'b',
        FileKind::CharDevice => 'c',
        FileKind::Directory => 'd',
        FileKind::Fifo => 'p',
        FileKind::Regular => '-',
        FileKind::Socket => 's',
        FileKind::Symlink => 'l',
    }
}

pub(super) const fn kind_name(kind: FileKind) -> &'static str {
    match kind {
        FileKind::BlockDevice => "block device",
        FileKind::CharDevice => "character device",
        FileKind::Directory => "directory",
        FileKind::Fifo => "pipe",
        FileKind::Regular => "file",
        FileKind::Socket => "socket",
        FileKind::Symlink => "link",
    }
}

/// Seconds since the epoch.
#[allow(clippy::cast_precision_loss, reason = "a fraction of a microsecond is lost")]
fn number(time: Timestamp) -> f64 {
    time.seconds as f64 + f64::from(time.nanoseconds) / 1e9
}

/// A moment in UTC, by RFC 3339; one beyond the year 9999 as its number of seconds.
fn time(time: Timestamp) -> String {
    let instant = Instant::new(time.seconds, i32::try_from(time.nanoseconds).unwrap_or(0));
    instant.map_or_else(|_| format!("@{}", time.seconds), |instant| instant.to_string())
}

/// A value as text where it is some, else in hexadecimal.
fn readable(value: &[u8]) -> String {
    let text = value.strip_suffix(&[0]).unwrap_or(value);
    match std::str::from_utf8(text) {
        Ok(text) if !text.chars().any(char::is_control) => shown(text.as_bytes()),
        _ => format!("0x{}", hex(value)),
    }
}

/// Bytes in hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_as_ls_shows_them() {
        for (kind, mode, text) in [
            (FileKind::Regular, 0o644, "-rw-r--r--"),
            (FileKind::Directory, 0o1777, "drwxrwxrwt"),
            (FileKind::Regular, 0o4755, "-rwsr-xr-x"),
            (FileKind::Regular, 0o6644, "-rwSr-Sr--"),
            (FileKind::Symlink, 0o777, "lrwxrwxrwx"),
        ] {
            assert_eq!(permissions(kind, mode), text);
        }
    }

    #[test]
    fn times_have_no_end() {
        let at = |seconds, nanoseconds| time(Timestamp { seconds, nanoseconds });
        assert_eq!(at(0, 0), "1970-01-01T00:00:00Z");
        assert_eq!(at(-1, 500_000_000), "1969-12-31T23:59:59.5Z");
        assert_eq!(at(i64::MAX, 0), format!("@{}", i64::MAX));
    }

    #[test]
    fn values_are_text_or_hexadecimal() {
        assert_eq!(readable(b"system_u:object_r:etc_t:s0\0"), "system_u:object_r:etc_t:s0");
        assert_eq!(readable(&[1, 0, 0, 2]), "0x01000002");
    }
}
