//! A key and all below it as the text of a `.reg` file, which `reg import` of Windows and hivexregedit read.

use std::fmt::Write as _;
use std::io::Write;

use super::value::lossy;
use super::{Data, Hive, Key, Step};
use crate::error::{Error, Result};

/// What `.reg` files begin with since Windows 2000.
const HEAD: &str = "Windows Registry Editor Version 5.00\n";

/// Bytes of hexadecimal text after which a line is broken.
const LINE: usize = 76;

/// Writes `from` and every key below it to `to` as UTF-8 text with the line ends of this system, each key's path with `prefix`
/// (`HKEY_LOCAL_MACHINE\SYSTEM`) in place of that of `from`. Classes and permissions have no place in such a file.
///
/// # Errors
/// Of the hive, where anything cannot be read: an export that lacks something would be mistaken for all there is.
pub fn export(hive: &Hive, from: Key<'_>, prefix: &str, to: &mut dyn Write) -> Result<()> {
    let failed = |error| Error::write("writing an export of a registry hive", error);
    to.write_all(HEAD.as_bytes()).map_err(failed)?;
    let mut path: Vec<String> = Vec::new();
    hive.walk(from, &mut |key, depth| {
        let key = key?;
        path.truncate(depth);
        path.push(if depth == 0 { prefix.to_owned() } else { key.name().to_owned() });
        to.write_all(one(key, &path)?.as_bytes()).map_err(failed)?;
        Ok(Step::In)
    })
}

fn one(key: &Key<'_>, path: &[String]) -> Result<String> {
    let mut text = format!("\n[{}]\n", path.join("\\"));
    for value in key.values()? {
        let value = value?;
        match value.name() {
            "" => text.push('@'),
            name => text.push_str(&quoted(name)),
        }
        text.push('=');
        data(&value.data()?, &mut text);
        text.push('\n');
    }
    Ok(text)
}

fn data(data: &Data, text: &mut String) {
    match (data.kind, data.number()) {
        (4, Some(number)) => {
            let _ = write!(text, "dword:{number:08x}");
        }
        (1, _) if is_plain(&data.bytes) => text.push_str(&quoted(&data.text().unwrap_or_default())),
        _ => hex(data, text),
    }
}

/// Whether bytes are a text that can stand in quotes and comes back as it was: one NUL at its end, no line breaks, and nothing that
/// readers without UTF-8 take for something else.
fn is_plain(bytes: &[u8]) -> bool {
    let Some(content) = bytes.strip_suffix(&[0, 0]).filter(|content| content.len().is_multiple_of(2)) else {
        return false;
    };
    let text = lossy(content);
    text.chars().all(|c| c.is_ascii() && !c.is_control())
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn hex(data: &Data, text: &mut String) {
    let _ = match data.kind {
        3 => write!(text, "hex:"),
        kind => write!(text, "hex({kind:x}):"),
    };
    let mut width = text.rsplit('\n').next().map_or(0, str::len);
    for (index, byte) in data.bytes.iter().enumerate() {
        if index > 0 {
            text.push(',');
            width = width.saturating_add(1);
        }
        if width >= LINE {
            text.push_str("\\\n  ");
            width = 2;
        }
        let _ = write!(text, "{byte:02x}");
        width = width.saturating_add(2);
    }
}
