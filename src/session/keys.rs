//! Passphrases for encrypted volumes: held in memory that is wiped, and never shown.

use std::fmt;

use zeroize::Zeroizing;

/// Bytes that nobody may see: a passphrase or key. Shown as nothing, wiped when dropped.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes over `bytes`.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes, for those who turn them into keys.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Secrets with what each is for.
#[derive(Clone, Debug, Default)]
pub struct Keys(Vec<(String, Secret)>);

impl Keys {
    /// Adds a secret for what `selector` names: `all`, a UUID, a device (`/dev/sda2`) or a volume as it is called here
    /// (`disk1/p2`).
    pub fn add(&mut self, selector: impl Into<String>, secret: Secret) {
        self.0.push((selector.into(), secret));
    }

    /// Those for something that has all of these names.
    pub fn fitting<'a>(&'a self, names: &'a [&'a str]) -> impl Iterator<Item = &'a Secret> {
        let fits = |selector: &str| selector == "all" || names.iter().any(|name| name.eq_ignore_ascii_case(selector));
        self.0.iter().filter(move |(selector, _)| fits(selector)).map(|(_, secret)| secret)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_shown() {
        let mut keys = Keys::default();
        keys.add("all", Secret::new(b"hunter2".to_vec()));
        assert!(!format!("{keys:?}").contains("hunter"));
        assert!(!format!("{keys:#?}").contains("104"));
    }

    #[test]
    fn keys_fit_by_any_name() {
        let mut keys = Keys::default();
        for (selector, secret) in [("ABCD-1", "a"), ("/dev/sda2", "b"), ("all", "c"), ("disk1/p2", "d")] {
            keys.add(selector, Secret::new(secret.into()));
        }
        let fit = |names: &[&str]| -> String {
            keys.fitting(names).map(|secret| String::from_utf8_lossy(secret.expose()).into_owned()).collect()
        };
        assert_eq!(fit(&["abcd-1", "disk1/p1"]), "ac");
        assert_eq!(fit(&["x", "disk1/p2", "/dev/sda2"]), "bcd");
        assert_eq!(fit(&[]), "c");
    }
}
