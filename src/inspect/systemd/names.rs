//! Names of units (`systemd.unit(5)`): a prefix, perhaps `@` and an instance, and a suffix that tells the kind.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

/// Suffixes of units that have files.
const SUFFIXES: [&str; 11] =
    ["service", "socket", "target", "device", "mount", "automount", "swap", "timer", "path", "slice", "scope"];

/// What sort of name it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// `ssh.service`
    Plain,
    /// `getty@tty1.service`
    Instance,
    /// `getty@.service`
    Template,
}

/// The sort of the name; `None` for what is no name of a unit.
pub(super) fn shape(name: &str) -> Option<Shape> {
    let (stem, suffix) = name.rsplit_once('.')?;
    let valid = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    if name.len() > 255 || !SUFFIXES.contains(&suffix) || stem.is_empty() || !stem.chars().all(valid) {
        return None;
    }
    match stem.split_once('@') {
        None => Some(Shape::Plain),
        Some(("", _)) => None,
        Some((_, "")) => Some(Shape::Template),
        Some(_) => Some(Shape::Instance),
    }
}

/// `getty@.service` of `getty@tty1.service`.
pub(super) fn template(name: &str) -> Option<String> {
    let (prefix, rest) = name.split_once('@')?;
    let (_, suffix) = rest.rsplit_once('.')?;
    Some(format!("{prefix}@.{suffix}"))
}

/// `tty1` of `getty@tty1.service`.
pub(super) fn instance(name: &str) -> Option<&str> {
    let (_, rest) = name.split_once('@')?;
    rest.rsplit_once('.').map(|(instance, _)| instance)
}

/// `getty@tty1.service` of `getty@.service` and `tty1`.
pub(super) fn with_instance(template: &str, instance: &str) -> Option<String> {
    let (prefix, rest) = template.split_once('@')?;
    let (_, suffix) = rest.rsplit_once('.')?;
    Some(format!("{prefix}@{instance}.{suffix}"))
}

/// Whether both are of one kind.
pub(super) fn same_kind(a: &str, b: &str) -> bool {
    a.rsplit('.').next() == b.rsplit('.').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_shapes() {
        for (name, expected) in [
            ("ssh.service", Some(Shape::Plain)),
            ("getty@tty1.service", Some(Shape::Instance)),
            ("getty@.service", Some(Shape::Template)),
            ("a@b@c.service", Some(Shape::Instance)),
            ("dev-disk-by\\x2duuid-a.swap", Some(Shape::Plain)),
            ("-.mount", Some(Shape::Plain)),
            ("ssh", None),
            (".service", None),
            ("@a.service", None),
            ("a b.service", None),
            ("a/b.service", None),
            ("a\u{1b}.service", None),
            ("a.conf", None),
        ] {
            assert_eq!(shape(name), expected, "{name}");
        }
        assert_eq!(shape(&format!("{}.service", "a".repeat(247))), Some(Shape::Plain));
        assert_eq!(shape(&format!("{}.service", "a".repeat(248))), None);
        assert_eq!(template("a@b.c.service").as_deref(), Some("a@.service"));
        assert_eq!(instance("a@b.c.service"), Some("b.c"));
        assert_eq!(with_instance("a@.service", "x").as_deref(), Some("a@x.service"));
    }
}
