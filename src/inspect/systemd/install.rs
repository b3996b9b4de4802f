//! The `[Install]` section of a unit: what enabling it would link.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use super::names::{Shape, shape, with_instance};

/// `[Install]` of a unit and its drop-ins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Install {
    pub(super) aliases: Vec<String>,
    pub(super) wanted_by: Vec<String>,
    pub(super) required_by: Vec<String>,
    pub(super) upheld_by: Vec<String>,
    pub(super) also: Vec<String>,
    pub(super) default_instance: Option<String>,
}

impl Install {
    /// Adds what a file says.
    pub(super) fn add(&mut self, text: &str) {
        let mut inside = false;
        for line in joined(text) {
            let line = line.trim();
            if let Some(section) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                inside = section == "Install";
                continue;
            }
            let Some((key, value)) = line.split_once('=').filter(|_| inside && !line.starts_with(['#', ';'])) else {
                continue;
            };
            let value = value.trim();
            let list = match key.trim() {
                "Alias" => &mut self.aliases,
                "WantedBy" => &mut self.wanted_by,
                "RequiredBy" => &mut self.required_by,
                "UpheldBy" => &mut self.upheld_by,
                "Also" => &mut self.also,
                "DefaultInstance" => {
                    self.default_instance = Some(value.to_owned()).filter(|value| !value.is_empty());
                    continue;
                }
                _ => continue,
            };
            if value.is_empty() {
                list.clear();
            }
            list.extend(value.split_whitespace().map(|word| word.trim_matches(['"', '\'']).to_owned()));
        }
    }

    /// Whether enabling would link anything.
    pub(super) fn has_rules(&self) -> bool {
        [&self.aliases, &self.wanted_by, &self.required_by, &self.upheld_by].iter().any(|list| !list.is_empty())
    }

    /// Whether enabling the unit `name` would make a link called `link`.
    pub(super) fn makes(&self, name: &str, link: &str) -> bool {
        let by_default = || {
            let instance = self.default_instance.as_deref().filter(|_| shape(name) == Some(Shape::Template))?;
            with_instance(name, instance)
        };
        link == name || self.aliases.iter().any(|alias| alias == link) || by_default().is_some_and(|made| made == link)
    }
}

/// Lines, with those put together that end in a backslash; comments between them are left out.
pub(super) fn joined(text: &str) -> Vec<String> {
    let (mut lines, mut open): (Vec<String>, Option<String>) = (Vec::new(), None);
    for line in text.lines() {
        let is_comment = line.trim_start().starts_with(['#', ';']);
        if is_comment {
            continue;
        }
        let mut whole = open.take().unwrap_or_default();
        match line.strip_suffix('\\') {
            Some(part) => {
                whole.push_str(part);
                whole.push(' ');
                open = Some(whole);
            }
            None => {
                whole.push_str(line);
                lines.push(whole);
            }
        }
    }
    lines.extend(open);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_install_sections() {
        let mut install = Install::default();
        install.add(
            "[Unit]\nAlias=no.service\n[Install]\n# Alias=c.service\nAlias=a.service \\\n; between\n  b.service\n\
             WantedBy=x.target\nWantedBy=\nWantedBy = y.target z.target\nDefaultInstance=tty1\nAlso=c.socket\nX=1\nno line\n",
        );
        assert_eq!(install.aliases, ["a.service", "b.service"]);
        assert_eq!(install.wanted_by, ["y.target", "z.target"]);
        assert_eq!(install.also, ["c.socket"]);
        assert!(install.makes("g@.service", "g@tty1.service") && !install.makes("g@.service", "g@tty2.service"));
        assert!(install.makes("g@.service", "a.service"));
        install.add("[Install]\nDefaultInstance=\nAlias=\nWantedBy=\n");
        assert!(!install.has_rules() && install.default_instance.is_none());
    }
}
