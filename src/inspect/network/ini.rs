//! INI files, as NetworkManager and systemd write them.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

/// Sections, keys and values of an INI file, in order.
pub(crate) struct Ini<'a>(Vec<(&'a str, &'a str, &'a str)>);

impl<'a> Ini<'a> {
    pub(crate) fn parse(text: &'a str) -> Self {
        let mut section = "";
        let mut values = Vec::new();
        for line in text.lines().map(str::trim) {
            if line.starts_with('#') || line.starts_with(';') {
                continue;
            }
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                section = name;
            } else if let Some((key, value)) = line.split_once('=') {
                values.push((section, key.trim(), value.trim()));
            }
        }
        Self(values)
    }

    /// The last value of a key.
    pub(crate) fn get(&self, section: &str, key: &str) -> Option<&'a str> {
        self.all(section, key).last()
    }

    /// All values of a key.
    pub(crate) fn all<'s>(&'s self, section: &'s str, key: &'s str) -> impl Iterator<Item = &'a str> + 's {
        let found = self.0.iter().filter(move |(in_section, name, _)| *in_section == section && *name == key);
        found.map(|(_, _, value)| *value)
    }

    /// The keys of a section with their values.
    pub(crate) fn section<'s>(&'s self, section: &'s str) -> impl Iterator<Item = (&'a str, &'a str)> + 's {
        self.0.iter().filter(move |(in_section, _, _)| *in_section == section).map(|(_, key, value)| (*key, *value))
    }
}
