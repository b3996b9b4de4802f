//! Editing text line by line without touching a byte that is not meant: line ends, a missing last newline and bytes that are
//! no text stay as they are.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

/// `content` with each line that `change` gives something for replaced by it. `change` gets the line's number from 1 and its
/// text without the line end; lines that are no UTF-8 are not offered.
pub(super) fn edit_lines(content: &[u8], mut change: impl FnMut(usize, &str) -> Option<String>) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len());
    for (index, raw) in content.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let line = raw.strip_suffix(b"\n").unwrap_or(raw);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let end = raw.get(line.len()..).unwrap_or_default();
        let text = std::str::from_utf8(line).ok();
        match text.and_then(|text| change(index.saturating_add(1), text)) {
            Some(new) => out.extend(new.bytes()),
            None => out.extend(line),
        }
        out.extend(end);
    }
    out
}

/// `content` with `lines` added at its end, in its own style of line ends.
pub(super) fn add_lines<'a>(content: &[u8], lines: impl IntoIterator<Item = &'a str>) -> Vec<u8> {
    let newline: &[u8] = if content.windows(2).any(|pair| pair == b"\r\n") { b"\r\n" } else { b"\n" };
    let mut out = content.to_vec();
    for line in lines {
        if !out.is_empty() && !out.ends_with(b"\n") {
            out.extend(newline);
        }
        out.extend(line.bytes());
        out.extend(newline);
    }
    out
}

/// A kernel command line, or a line that holds one, with the value of each `KEY=VALUE` word whose key is in `keys` replaced by
/// what `change` gives. Words end at blanks and quotes. `None` when nothing changes.
pub(super) fn edit_options(
    line: &str,
    keys: &[&str],
    mut change: impl FnMut(&str) -> Option<String>,
) -> Option<String> {
    let ends = |c: char| matches!(c, ' ' | '\t' | '"' | '\'' | ';');
    let mut out = String::with_capacity(line.len());
    let mut changed = false;
    let mut rest = line;
    while !rest.is_empty() {
        let (word, tail) = rest.split_at(rest.find(ends).unwrap_or(rest.len()));
        let new = word.split_once('=').filter(|(key, _)| keys.contains(key)).and_then(|(key, value)| {
            let new = change(value)?;
            Some(format!("{key}={new}"))
        });
        changed |= new.is_some();
        out.push_str(new.as_deref().unwrap_or(word));
        let mut chars = tail.chars();
        out.extend(chars.next());
        rest = chars.as_str();
    }
    changed.then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changed_lines_change() {
        let edit = |content: &[u8]| edit_lines(content, |_, line| (line == "x").then(|| "why".to_owned()));
        for (before, after) in [
            (b"".as_slice(), b"".as_slice()),
            (b"x", b"why"),
            (b"x\r\ny\n\xff\nx", b"why\r\ny\n\xff\nwhy"),
            (b"\n\nx\n", b"\n\nwhy\n"),
            (b" x\nx \n", b" x\nx \n"),
            (b"x\r\r\n", b"x\r\r\n"),
        ] {
            assert_eq!(edit(before), after);
        }
    }

    #[test]
    fn added_lines_follow_the_files_style() {
        assert_eq!(add_lines(b"a", ["b", "c"]), b"a\nb\nc\n");
        assert_eq!(add_lines(b"a\r\n", ["b"]), b"a\r\nb\r\n");
        assert_eq!(add_lines(b"", ["b"]), b"b\n");
        assert_eq!(add_lines(b"a\n", []), b"a\n");
    }

    #[test]
    fn options_change_whole_words_only() {
        let edit = |line: &str| {
            edit_options(line, &["root", "resume"], |value| (value == "/dev/sda1").then(|| "UUID=U".to_owned()))
        };
        for (before, after) in [
            ("linux /vmlinuz root=/dev/sda1 ro", Some("linux /vmlinuz root=UUID=U ro")),
            ("\tlinux\t/v root=/dev/sda1", Some("\tlinux\t/v root=UUID=U")),
            (
                "GRUB_CMDLINE_LINUX=\"quiet root=/dev/sda1\" # root=/dev/sda1",
                Some("GRUB_CMDLINE_LINUX=\"quiet root=UUID=U\" # root=UUID=U"),
            ),
            ("resume='/dev/sda1'", None),
            ("xroot=/dev/sda1 root=/dev/sda10 rootflags=x", None),
            ("root=/dev/sda1  resume=/dev/sda1 ", Some("root=UUID=U  resume=UUID=U ")),
            ("", None),
            ("é root=/dev/sda1 é", Some("é root=UUID=U é")),
        ] {
            assert_eq!(edit(before).as_deref(), after, "{before}");
        }
    }
}
