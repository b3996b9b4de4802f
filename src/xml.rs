//! A writer of indented XML 1.0 that escapes everything it is given.

use std::fmt::Write;

use crate::error::is_hidden;

/// A document in the making.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    out: String,
    open: Vec<&'static str>,
}

/// An attribute's name and value.
pub(crate) type Attribute<'a> = (&'static str, &'a str);

impl Writer {
    /// `<name a='b'>`, until [`Writer::close`].
    pub(crate) fn open(&mut self, name: &'static str, attributes: &[Attribute<'_>]) {
        self.tag(name, attributes);
        self.out.push_str(">\n");
        self.open.push(name);
    }

    /// The end of what was opened last.
    pub(crate) fn close(&mut self) {
        if let Some(name) = self.open.pop() {
            self.indent();
            let _ = writeln!(self.out, "</{name}>");
        }
    }

    /// `<name a='b'/>`.
    pub(crate) fn leaf(&mut self, name: &'static str, attributes: &[Attribute<'_>]) {
        self.tag(name, attributes);
        self.out.push_str("/>\n");
    }

    /// `<name a='b'>text</name>`.
    pub(crate) fn text(&mut self, name: &'static str, attributes: &[Attribute<'_>], text: &str) {
        self.tag(name, attributes);
        self.out.push('>');
        escape(&mut self.out, text);
        let _ = writeln!(self.out, "</{name}>");
    }

    /// Everything written, with all elements closed.
    pub(crate) fn finish(mut self) -> String {
        while !self.open.is_empty() {
            self.close();
        }
        self.out
    }

    fn tag(&mut self, name: &'static str, attributes: &[Attribute<'_>]) {
        self.indent();
        self.out.push('<');
        self.out.push_str(name);
        for (attribute, value) in attributes {
            let _ = write!(self.out, " {attribute}='");
            escape(&mut self.out, value);
            self.out.push('\'');
        }
    }

    fn indent(&mut self) {
        for _ in &self.open {
            self.out.push_str("  ");
        }
    }
}

/// Whether XML 1.0 can hold `c`, as itself or as a reference (section 2.2).
pub(crate) fn is_allowed(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{fffd}' | '\u{10000}'..)
}

/// Text that reads back as it was, in an element or in an attribute with either quote. What XML cannot hold becomes U+FFFD.
fn escape(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\'' => out.push_str("&apos;"),
            '"' => out.push_str("&quot;"),
            // A parser turns these into spaces, or two of them into one, unless they are references.
            '\t' | '\n' | '\r' => reference(out, c),
            // So are, for the sake of a terminal, those that XML may hold and that steer it or hide text.
            c if is_allowed(c) && (c.is_control() || is_hidden(c)) => reference(out, c),
            c if is_allowed(c) => out.push(c),
            _ => out.push('\u{fffd}'),
        }
    }
}

fn reference(out: &mut String, c: char) {
    let _ = write!(out, "&#{};", u32::from(c));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn writes_nested_elements() {
        let mut xml = Writer::default();
        xml.open("a", &[("b", "1"), ("c", "<'>")]);
        xml.leaf("d", &[]);
        xml.text("e", &[("f", "g")], "x & y");
        assert_eq!(xml.finish(), "<a b='1' c='&lt;&apos;&gt;'>\n  <d/>\n  <e f='g'>x &amp; y</e>\n</a>\n");
    }

    proptest! {
        #[test]
        fn everything_reads_back(text in "\\PC*|(?s:.{0,40})|[\u{80}-\u{9f}\u{200b}-\u{202e}\u{e0001}a]*") {
            let mut xml = Writer::default();
            xml.open("a", &[("b", text.as_str())]);
            xml.text("c", &[], &text);
            let xml = xml.finish();
            prop_assert!(!xml.chars().any(|c| c != '\n' && (c.is_control() || is_hidden(c))));
            let document = roxmltree::Document::parse(&xml).unwrap();
            let expected: String = text.chars().map(|c| if is_allowed(c) { c } else { '\u{fffd}' }).collect();
            prop_assert_eq!(document.root_element().attribute("b").unwrap(), expected.as_str());
            prop_assert_eq!(document.root_element().first_element_child().unwrap().text().unwrap_or(""), expected.as_str());
        }
    }
}
