//! LVM's text metadata: `key = value` and `name { … }`, as `lvm2`'s `libdm/libdm-config.c` reads it.

use std::collections::BTreeMap;

use crate::error::{Error, Result};

/// Sections inside of each other. A volume group has four levels.
const DEPTH: u32 = 16;

/// What stands between braces. Of two entries of one name, the first counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Section(BTreeMap<String, Node>);

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    List(Vec<Value>),
    Section(Section),
    Value(Value),
}

/// A single value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// A number without a fraction.
    Number(i64),
    /// In quotes, or a word.
    Text(String),
}

impl Value {
    /// A number that counts something.
    pub(super) fn count(&self) -> Option<u64> {
        match self {
            Self::Number(number) => u64::try_from(*number).ok(),
            Self::Text(_) => None,
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Number(_) => None,
            Self::Text(text) => Some(text),
        }
    }
}

impl Section {
    /// Parses a whole text. A NUL ends it.
    pub(super) fn parse(text: &[u8]) -> Result<Self> {
        let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
        let mut parser = Parser { text: text.get(..end).unwrap_or_default(), at: 0 };
        parser.section(0)
    }

    pub(super) fn section(&self, name: &str) -> Option<&Self> {
        match self.0.get(name)? {
            Node::Section(section) => Some(section),
            Node::List(_) | Node::Value(_) => None,
        }
    }

    /// The sections in it, by name.
    pub(super) fn sections(&self) -> impl Iterator<Item = (&str, &Self)> {
        self.0.iter().filter_map(|(name, node)| match node {
            Node::Section(section) => Some((name.as_str(), section)),
            Node::List(_) | Node::Value(_) => None,
        })
    }

    /// The values of a list; one value is a list too.
    pub(super) fn list(&self, name: &str) -> &[Value] {
        match self.0.get(name) {
            Some(Node::List(list)) => list,
            Some(Node::Value(value)) => std::slice::from_ref(value),
            Some(Node::Section(_)) | None => &[],
        }
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        match self.0.get(name)? {
            Node::Value(value) => value.text(),
            Node::List(_) | Node::Section(_) => None,
        }
    }

    /// A number that counts something.
    pub(super) fn count(&self, name: &str) -> Option<u64> {
        match self.0.get(name)? {
            Node::Value(value) => value.count(),
            Node::List(_) | Node::Section(_) => None,
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Whether a list of words holds `word`.
    pub(super) fn says(&self, name: &str, word: &str) -> bool {
        self.list(name).iter().any(|value| value.text() == Some(word))
    }
}

/// Goes through the text once, a byte at a time.
struct Parser<'a> {
    text: &'a [u8],
    at: usize,
}

impl Parser<'_> {
    /// Entries up to the closing brace, or up to the end of the text on the outermost level.
    fn section(&mut self, depth: u32) -> Result<Section> {
        if depth > DEPTH {
            return Err(self.wrong("sections are nested too deeply"));
        }
        let mut entries = BTreeMap::new();
        loop {
            match self.peek() {
                None if depth == 0 => return Ok(Section(entries)),
                Some(b'}') if depth > 0 => {
                    self.skip();
                    return Ok(Section(entries));
                }
                None | Some(b'}') => return Err(self.wrong("braces do not match")),
                Some(_) => {}
            }
            let name = self.name()?;
            let node = match self.peek() {
                Some(b'{') => {
                    self.skip();
                    Node::Section(self.section(depth.saturating_add(1))?)
                }
                Some(b'=') => {
                    self.skip();
                    self.value_or_list()?
                }
                _ => return Err(self.wrong("neither a value nor a section follows a name")),
            };
            entries.entry(name).or_insert(node);
        }
    }

    fn value_or_list(&mut self) -> Result<Node> {
        if self.peek() != Some(b'[') {
            return Ok(Node::Value(self.value()?));
        }
        self.skip();
        let mut list = Vec::new();
        loop {
            match self.peek() {
                Some(b']') => {
                    self.skip();
                    return Ok(Node::List(list));
                }
                Some(b',') => self.skip(),
                Some(_) => list.push(self.value()?),
                None => return Err(self.wrong("a list does not end")),
            }
        }
    }

    fn value(&mut self) -> Result<Value> {
        if let Some(quote @ (b'"' | b'\'')) = self.peek() {
            self.skip();
            return Ok(Value::Text(self.quoted(quote)?));
        }
        let word = self.word()?;
        Ok(word.parse().map_or(Value::Text(word), Value::Number))
    }

    fn name(&mut self) -> Result<String> {
        match self.peek() {
            Some(quote @ b'"') => {
                self.skip();
                self.quoted(quote)
            }
            _ => self.word(),
        }
    }

    /// Up to the closing quote; a backslash takes the byte behind it as it is.
    fn quoted(&mut self, quote: u8) -> Result<String> {
        let mut bytes = Vec::new();
        while let Some(byte) = self.text.get(self.at).copied() {
            self.skip();
            match byte {
                b'\\' if quote == b'"' => {
                    bytes.extend(self.text.get(self.at));
                    self.skip();
                }
                _ if byte == quote => {
                    return String::from_utf8(bytes).map_err(|_| self.wrong("a string is not UTF-8"));
                }
                _ => bytes.push(byte),
            }
        }
        Err(self.wrong("a string does not end"))
    }

    fn word(&mut self) -> Result<String> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let ends = |byte: &u8| byte.is_ascii_whitespace() || b"={}[],#\"'".contains(byte);
        let word = rest.get(..rest.iter().position(ends).unwrap_or(rest.len())).unwrap_or_default();
        if word.is_empty() {
            return Err(self.wrong("a name or value is missing"));
        }
        self.at = self.at.saturating_add(word.len());
        String::from_utf8(word.to_vec()).map_err(|_| self.wrong("a name is not UTF-8"))
    }

    /// The next byte that is neither space nor part of a comment.
    fn peek(&mut self) -> Option<u8> {
        loop {
            let byte = self.text.get(self.at).copied()?;
            if byte == b'#' {
                let rest = self.text.get(self.at..).unwrap_or_default();
                self.at = self.at.saturating_add(rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len()));
            } else if byte.is_ascii_whitespace() {
                self.skip();
            } else {
                return Some(byte);
            }
        }
    }

    fn skip(&mut self) {
        self.at = self.at.saturating_add(1);
    }

    fn wrong(&self, what: &str) -> Error {
        Error::corrupt("lvm.metadata", format!("LVM's text metadata cannot be parsed: {what}"))
            .offset(crate::disk::bytes::long(self.at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_lists_sections_and_comments_are_read() {
        let text = b"# made by hand\nvg-a {\n\tid = \"a\\\"b\\\\\" # why not\n seqno=7 flags = []\n\
            inner { n = -3 w = word s = [\"pv0\", 0, \"pv1\",16] }\n}\ncontents = \"x\"\0junk {";
        let all = Section::parse(text).unwrap();
        assert_eq!(all.text("contents"), Some("x"));
        let vg = all.section("vg-a").unwrap();
        assert_eq!((vg.text("id"), vg.count("seqno"), vg.list("flags").len()), (Some("a\"b\\"), Some(7), 0));
        let inner = vg.section("inner").unwrap();
        assert_eq!((inner.count("n"), inner.text("w")), (None, Some("word")));
        let list: Vec<_> = inner.list("s").iter().map(|v| (v.text(), v.count())).collect();
        assert_eq!(list, [(Some("pv0"), None), (None, Some(0)), (Some("pv1"), None), (None, Some(16))]);
        assert_eq!(vg.sections().count(), 1);
        assert!(vg.says("id", "a\"b\\") && !vg.says("id", "a") && vg.has("seqno") && !vg.has("x"));
    }

    #[test]
    fn nonsense_is_an_error() {
        let deep = "a{".repeat(1 << 20);
        for text in
            ["}", "a", "a =", "a = \"", "a = [", "a = [1", "a { b", "a { b = 1", "= 1", "a = ]", "a = }", "{", &deep]
        {
            assert_eq!(Section::parse(text.as_bytes()).unwrap_err().code(), "lvm.metadata", "{:.20}", text);
        }
        assert!(Section::parse(b"a = \"\xff\"").is_err());
        let levels = |n: usize| format!("{}{}", "a{".repeat(n), "}".repeat(n));
        assert!(Section::parse(levels(15).as_bytes()).is_ok());
        assert!(Section::parse(levels(16).as_bytes()).is_ok());
        assert!(Section::parse(levels(17).as_bytes()).is_err());
    }
}
