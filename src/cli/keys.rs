//! Keys of encrypted volumes: read from files, descriptors or the terminal, never from the command line.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::terminal;
use crate::error::{Error, Kind, Result};
use crate::session::{Keys, Secret};

/// Bytes of a key file: what cryptsetup reads at most.
const MAX_KEY: u64 = 8 << 20;

/// A key as an argument names it: what it is for, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyArg {
    selector: String,
    from: From,
}

/// Where a key is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum From {
    File(PathBuf),
    Prompt,
}

/// Reads `SELECTOR:file:PATH`, `SELECTOR:fd:N` or `SELECTOR:prompt`.
pub fn parse(text: &str) -> Result<KeyArg, String> {
    let (selector, from) = if let Some(selector) = text.strip_suffix(":prompt") {
        (selector, From::Prompt)
    } else if let Some((selector, path)) = text.split_once(":file:") {
        (selector, From::File(path.into()))
    } else if let Some((selector, number)) = text.split_once(":fd:") {
        let number: u32 = number.parse().map_err(|_| "a descriptor is a number".to_owned())?;
        (selector, From::File(format!("/dev/fd/{number}").into()))
    } else {
        return Err(
            "expected SELECTOR:file:PATH, SELECTOR:fd:N or SELECTOR:prompt; a key itself is never an argument".into()
        );
    };
    let is_empty_path = matches!(&from, From::File(path) if path.as_os_str().is_empty());
    if selector.is_empty() || is_empty_path {
        return Err("neither the selector nor the path may be empty".into());
    }
    Ok(KeyArg { selector: selector.to_owned(), from })
}

/// Reads all keys.
///
/// # Errors
/// `key.read` when one cannot be read.
pub(super) fn read(arguments: &[KeyArg]) -> Result<Keys> {
    let mut keys = Keys::default();
    for argument in arguments {
        let bytes = match &argument.from {
            From::File(path) => read_file(path)?,
            From::Prompt => prompt(&argument.selector)?,
        };
        // A text editor ends the file with a line feed that is no part of the passphrase; a key of random bytes may end so too.
        if let Some(line) = bytes.strip_suffix(b"\n") {
            keys.add(&argument.selector, Secret::new(line.to_vec()));
        }
        keys.add(&argument.selector, Secret::new(bytes));
    }
    Ok(keys)
}

#[allow(clippy::disallowed_methods, reason = "a key is a file of the user's, and no disk image")]
fn read_file(path: &Path) -> Result<Vec<u8>> {
    let unreadable = |e| Error::new(Kind::Usage, "key.read", "the key cannot be read").path(path).because(e);
    let file = File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(MAX_KEY.saturating_add(1)).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_KEY {
        return Err(Error::new(Kind::Usage, "key.read", "the key is larger than any can be").path(path));
    }
    Ok(bytes)
}

/// Asks on the terminal.
fn prompt(selector: &str) -> Result<Vec<u8>> {
    let failed = |e: std::io::Error| {
        Error::new(Kind::Usage, "key.read", "the key cannot be asked for")
            .hint("there is no terminal here: give the key with SELECTOR:file:PATH or SELECTOR:fd:N")
            .because(e)
    };
    terminal::question(&format!("Passphrase of {selector}"), &|| Ok(()), &failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_say_where_and_never_what() {
        let key = |selector: &str, from| KeyArg { selector: selector.to_owned(), from };
        assert_eq!(parse("all:prompt").unwrap(), key("all", From::Prompt));
        assert_eq!(parse("/dev/sda2:file:/a:b").unwrap(), key("/dev/sda2", From::File("/a:b".into())));
        assert_eq!(parse("disk1/p2:fd:3").unwrap(), key("disk1/p2", From::File("/dev/fd/3".into())));
        for bad in ["", "all", "all:key:secret", "secret", ":file:x", "all:file:", "all:fd:", "all:fd:x", ":prompt"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_key_in_a_file_is_taken_with_and_without_its_line_feed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, "open\n").unwrap();
        let keys = read(&[parse(&format!("all:file:{}", path.display())).unwrap()]).unwrap();
        let secrets: Vec<&[u8]> = keys.fitting(&[]).map(Secret::expose).collect();
        assert_eq!(secrets, [&b"open"[..], b"open\n"]);
        let gone = read(&[parse("all:file:/nowhere/at/all").unwrap()]).unwrap_err();
        assert_eq!(gone.code(), "key.read");
    }
}
