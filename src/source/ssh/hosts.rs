//! Keys of hosts that are known, and what a key that a server shows is to them (`sshd(8)`, "SSH_KNOWN_HOSTS FILE FORMAT").

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use pbkdf2::hmac::{Hmac, KeyInit, Mac};
use russh::keys::ssh_key::Algorithm;
use russh::keys::{PublicKey, PublicKeyBase64};
use sha1::Sha1;

use super::config;

/// What is known of one host.
#[derive(Debug, Default)]
pub(super) struct Known {
    keys: Vec<PublicKey>,
    revoked: Vec<PublicKey>,
    /// Whether an authority may speak for it, which is not asked here.
    pub(super) has_authority: bool,
}

/// What a key is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is the host's.
    Known,
    /// Nothing is known of the host.
    Unknown,
    /// The host has others.
    Changed,
    /// Nobody may use it any more.
    Revoked,
}

impl Known {
    /// Adds what a file of known hosts has for `name`: a host, or `[HOST]:PORT` where the port is another than 22. Lines that
    /// cannot be read are left, as they trust nobody.
    pub(super) fn add(&mut self, text: &str, name: &str) {
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            let Some(mut hosts) = words.next().filter(|word| !word.starts_with('#')) else { continue };
            let marker = hosts.starts_with('@').then_some(hosts);
            if marker.is_some() {
                let Some(word) = words.next() else { continue };
                hosts = word;
            }
            if !is_for(hosts, name) {
                continue;
            }
            let (Some(_kind), Some(key)) = (words.next(), words.next()) else { continue };
            let Ok(key) = russh::keys::parse_public_key_base64(key) else { continue };
            match marker {
                None => self.keys.push(key),
                Some("@revoked") => self.revoked.push(key),
                Some("@cert-authority") => self.has_authority = true,
                Some(_) => {}
            }
        }
    }

    /// All keys that are the host's, or were.
    pub(super) fn keys(&self) -> impl Iterator<Item = &PublicKey> {
        self.keys.iter().chain(&self.revoked)
    }

    /// What `key` is.
    pub(super) fn judge(&self, key: &PublicKey) -> Verdict {
        let is_in = |keys: &[PublicKey]| keys.iter().any(|known| known.key_data() == key.key_data());
        if is_in(&self.revoked) {
            Verdict::Revoked
        } else if is_in(&self.keys) {
            Verdict::Known
        } else if self.keys.is_empty() {
            Verdict::Unknown
        } else {
            Verdict::Changed
        }
    }

    /// `algorithms` with those first for which a key is known: a server shows one key only, and should show that one.
    pub(super) fn prefer(&self, algorithms: &[Algorithm]) -> Vec<Algorithm> {
        let is_known = |algorithm: &Algorithm| self.keys.iter().any(|key| is_for_algorithm(key, algorithm));
        let (mut first, others): (Vec<_>, Vec<_>) = algorithms.iter().cloned().partition(is_known);
        first.extend(others);
        first
    }
}

/// Whether signatures of this algorithm can be made with `key`.
pub(super) fn is_for_algorithm(key: &PublicKey, algorithm: &Algorithm) -> bool {
    match (key.algorithm(), algorithm) {
        (Algorithm::Rsa { .. }, Algorithm::Rsa { .. }) => true,
        (own, algorithm) => own == *algorithm,
    }
}

/// What a host is called in files: its name in lower case, with its port where that is another than 22.
pub(super) fn name(host: &str, port: u16) -> String {
    let host = host.to_ascii_lowercase();
    if port == 22 { host } else { format!("[{host}]:{port}") }
}

/// Whether a list of names, or a digest of one, is for `name`.
fn is_for(hosts: &str, name: &str) -> bool {
    if let Some(rest) = hosts.strip_prefix("|1|") {
        return rest.split_once('|').is_some_and(|(salt, digest)| is_digest(salt, digest, name).unwrap_or(false));
    }
    let patterns: Vec<String> = hosts.split(',').map(str::to_ascii_lowercase).collect();
    config::is_in_list(name, &patterns)
}

/// HMAC-SHA1 of the name, by the salt.
fn is_digest(salt: &str, digest: &str, name: &str) -> Option<bool> {
    let (salt, digest) = (base64(salt)?, base64(digest)?);
    let mut mac = <Hmac<Sha1> as KeyInit>::new_from_slice(&salt).ok()?;
    mac.update(name.as_bytes());
    Some(mac.verify_slice(&digest).is_ok())
}

/// Base64 with padding (RFC 4648, section 4).
fn base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    let mut out = Vec::new();
    let (mut bits, mut count) = (0_u32, 0_u32);
    for byte in digits.bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte.checked_sub(b'A')?,
            b'a'..=b'z' => byte.checked_sub(b'a')?.checked_add(26)?,
            b'0'..=b'9' => byte.checked_sub(b'0')?.checked_add(52)?,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = ((bits & 0xffff) << 6) | u32::from(value);
        count = count.checked_add(6)?;
        if let Some(left) = count.checked_sub(8) {
            count = left;
            out.push(u8::try_from((bits >> left) & 0xff).ok()?);
        }
    }
    Some(out)
}

/// SHA-256 of a key, as `ssh-keygen -l` shows it.
pub(super) fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(russh::keys::HashAlg::Sha256).to_string()
}

/// The line of a file of known hosts for a key.
pub(super) fn line(name: &str, key: &PublicKey) -> String {
    format!("{name} {} {}", key.algorithm().as_str(), key.public_key_base64())
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "tests build their input")]
mod tests {
    use super::*;

    /// Made by ssh-keygen.
    const ONE: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIACMi+T8plujp1FzogbV8vt+pbzm+IOxvEPgVBbupUmR";
    const TWO: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIGfV0tEKUX+jWCHYDgovKPL3i61GbCd5ei6/WsPpZu6M";

    fn key(text: &str) -> PublicKey {
        russh::keys::parse_public_key_base64(text).unwrap()
    }

    fn known(text: &str, name: &str) -> Known {
        let mut known = Known::default();
        known.add(text, name);
        known
    }

    #[test]
    fn hosts_are_found_by_name_pattern_and_digest() {
        // Digest of the name "store" by a salt of twenty bytes, as `ssh-keygen -H` makes it.
        let hashed = "|1|AAECAwQFBgcICQoLDA0ODxAREhM=|DIGEST";
        let digest = {
            let salt: Vec<u8> = (0..20).collect();
            let mut mac = <Hmac<Sha1> as KeyInit>::new_from_slice(&salt).unwrap();
            mac.update(b"store");
            mac.finalize().into_bytes()
        };
        let encoded: String = {
            const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
            let bits: String = digest.iter().map(|byte| format!("{byte:08b}")).collect::<String>() + "00";
            let digit = |six: &[u8]| {
                let value = usize::from_str_radix(std::str::from_utf8(six).unwrap(), 2).unwrap();
                char::from(DIGITS[value])
            };
            bits.as_bytes().chunks(6).map(digit).collect::<String>() + "="
        };
        let hashed = hashed.replace("DIGEST", &encoded);
        for (hosts, name, expected) in [
            ("store", "store", Verdict::Known),
            ("a,STORE,b", "store", Verdict::Known),
            ("st*", "store", Verdict::Known),
            ("*,!store", "store", Verdict::Unknown),
            ("store", "[store]:2222", Verdict::Unknown),
            ("[store]:2222", "[store]:2222", Verdict::Known),
            (&hashed, "store", Verdict::Known),
            (&hashed, "other", Verdict::Unknown),
            ("|1|!|x", "store", Verdict::Unknown),
            ("|2|x|y", "store", Verdict::Unknown),
        ] {
            let text = format!("# all\n\n{hosts} ssh-ed25519 {ONE} comment\n");
            assert_eq!(known(&text, name).judge(&key(ONE)), expected, "{hosts} {name}");
        }
        assert_eq!(name("Store", 22), "store");
        assert_eq!(name("::1", 2222), "[::1]:2222");
    }

    #[test]
    fn a_key_is_known_changed_or_revoked() {
        let text = format!("h ssh-ed25519 {ONE}\n");
        assert_eq!(known(&text, "h").judge(&key(TWO)), Verdict::Changed);
        let both = format!("{text}h ssh-ed25519 {TWO}\n");
        assert_eq!(known(&both, "h").judge(&key(TWO)), Verdict::Known);
        let revoked = format!("{both}@revoked * ssh-ed25519 {TWO}\n");
        assert_eq!(known(&revoked, "h").judge(&key(TWO)), Verdict::Revoked);
        assert_eq!(known(&revoked, "h").judge(&key(ONE)), Verdict::Known);
        let authority = known(&format!("@cert-authority * ssh-ed25519 {ONE}\n"), "h");
        assert_eq!(authority.judge(&key(ONE)), Verdict::Unknown, "an authority is no host");
        assert!(authority.has_authority);
        assert_eq!(fingerprint(&key(ONE)).len(), "SHA256:".len() + 43);
        assert_eq!(known(&line("h", &key(ONE)), "h").judge(&key(ONE)), Verdict::Known);
    }

    #[test]
    fn hostile_lines_trust_nobody() {
        for line in [
            "h",
            "h ssh-ed25519",
            "h ssh-ed25519 !!!!",
            "h ssh-ed25519 AAAA",
            &format!("h ssh-ed25519 {}", &ONE[..40]),
            "@revoked",
            "@evil h ssh-ed25519 x",
            &format!("@evil h ssh-ed25519 {ONE}"),
            &format!("#h ssh-ed25519 {ONE}"),
            &format!("h 1024 35 {ONE}"),
            "|1| ssh-ed25519 x",
            "|1|a|b|c ssh-ed25519 x",
            "\u{feff}h",
            "h ssh-rsa AAAAB3NzaC1yc2EAAAAD/////w==",
        ] {
            assert_eq!(known(line, "h").judge(&key(ONE)), Verdict::Unknown, "{line}");
        }
    }

    #[test]
    fn keys_of_any_kind_are_known_but_nobody_signs_with_them() {
        // Of a kind that is called "x y@z".
        const OTHER: &str = "AAAABXggeUB6AAAAA2tleQ==";
        let known = known(&format!("h x {OTHER}\n"), "h");
        assert_eq!((known.judge(&key(OTHER)), known.judge(&key(ONE))), (Verdict::Known, Verdict::Changed));
        assert!(
            !is_for_algorithm(&key(OTHER), &Algorithm::Ed25519) && is_for_algorithm(&key(ONE), &Algorithm::Ed25519)
        );
    }

    #[test]
    fn kinds_of_known_keys_are_asked_for_first() {
        let all = [Algorithm::Rsa { hash: None }, Algorithm::Ed25519];
        assert_eq!(known(&format!("h ssh-ed25519 {ONE}\n"), "h").prefer(&all), [Algorithm::Ed25519, all[0].clone()]);
        assert_eq!(Known::default().prefer(&all), all);
    }
}
