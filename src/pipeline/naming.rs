//! Names for what is written, from names that strangers chose.

/// Longest name, in bytes: leaves room for suffixes within the 255 of common file systems.
const LONGEST: usize = 120;

/// A machine's name as a file name: letters, digits, `.`, `_` and `-` stay, anything else becomes `-`; no leading dot or dash;
/// `guest` when nothing is left.
#[must_use]
pub fn file_stem(name: &str) -> String {
    let keep = |c: char| if c.is_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '-' };
    let mut stem = String::new();
    for c in name.chars().map(keep) {
        if stem.len() + c.len_utf8() > LONGEST {
            break;
        }
        stem.push(c);
    }
    let stem = stem.trim_matches(['-', '.']);
    if stem.is_empty() { "guest".to_owned() } else { stem.to_owned() }
}

/// The file name of disk `index` (from 0) of `count`: `NAME.qcow2`, or `NAME-1.qcow2` and so on for several.
#[must_use]
pub fn disk_file(stem: &str, index: usize, count: usize, extension: &str) -> String {
    if count == 1 { format!("{stem}.{extension}") } else { format!("{stem}-{}.{extension}", index + 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_become_plain_ones() {
        for (name, stem) in [
            ("web 01", "web-01"),
            ("../../etc/passwd", "etc-passwd"),
            ("", "guest"),
            ("..", "guest"),
            ("a\0b\nc", "a-b-c"),
            ("-rf", "rf"),
            ("größe", "größe"),
            ("\u{202e}x", "x"),
        ] {
            assert_eq!(file_stem(name), stem, "{name:?}");
        }
        assert!(file_stem(&"ä".repeat(500)).len() <= LONGEST);
    }

    #[test]
    fn several_disks_are_numbered() {
        assert_eq!(disk_file("web", 0, 1, "qcow2"), "web.qcow2");
        assert_eq!(disk_file("web", 1, 2, "qcow2"), "web-2.qcow2");
    }
}
