//! The parsers of what servers and files say, on anything: what a fuzz target needs, which sees nothing else of this module.

use super::config::{self, Asker, Options};
use super::connect::KINDS;
use super::hosts::{self, Known, Verdict};
use super::sftp::packet::{self, Reply};
use crate::limits;

/// A file of known hosts, configuration files of OpenSSH or a packet of an SFTP server: the first byte says which.
pub fn anything(data: &[u8]) {
    let Some((&what, rest)) = data.split_first() else { return };
    if what > 1 {
        return packet(what, rest);
    }
    let Ok(text) = std::str::from_utf8(rest) else { return };
    let mut pieces = text.split('\0');
    let host = pieces.next().unwrap_or_default();
    let texts: Vec<&str> = pieces.take(40).collect();
    match what {
        0 => known_hosts(texts.first().unwrap_or(&""), host),
        _ => configuration(&texts, host),
    }
}

/// A file of known hosts: what it has for a host is judged as its own, and nothing is trusted beside.
fn known_hosts(text: &str, host: &str) {
    let mut known = Known::default();
    known.add(text, &hosts::name(host, 22));
    for key in known.keys() {
        assert!(matches!(known.judge(key), Verdict::Known | Verdict::Revoked));
        if !KINDS.iter().any(|kind| hosts::is_for_algorithm(key, kind)) {
            continue;
        }
        let mut one = Known::default();
        one.add(&hosts::line("other", key), "other");
        assert_eq!(one.judge(key), Verdict::Known, "a line that is shown is one that is understood");
    }
    assert_eq!(known.prefer(&KINDS).len(), KINDS.len());
}

/// Configuration files of OpenSSH: the first is read for `host`, and each `Include` names the next one.
fn configuration(texts: &[&str], host: &str) {
    let (mut options, mut others) = (Options::default(), texts.iter().skip(1));
    let asker = Asker { host, user: None, local_user: "me" };
    let added = options.add(texts.first().unwrap_or(&""), &asker, &mut |_| {
        Ok(others.next().map(|text| (*text).to_owned()).into_iter().collect())
    });
    assert!(options.identity_files.len() <= limits::MAX_SSH_KEYS);
    if added.is_ok() {
        for value in options.identity_files.iter().chain(&options.host_name) {
            let _ =
                config::expand(value, "/home/me", &|letter| Some(letter.to_string()), &|name| Some(name.to_owned()));
        }
    }
}

/// A packet of an SFTP server: what comes out of it was in it.
fn packet(kind: u8, body: &[u8]) {
    let _ = (packet::greeting(kind, body), packet::read_limit(body));
    match Reply::parse(kind, body.to_vec()) {
        Some(Reply::Data(bytes)) => assert!(body.ends_with(&bytes) && bytes.len().saturating_add(4) == body.len()),
        Some(Reply::Handle(bytes)) => assert!(bytes.len() <= limits::MAX_SFTP_HANDLE && body.ends_with(&bytes)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::anything;

    /// Made by ssh-keygen.
    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIACMi+T8plujp1FzogbV8vt+pbzm+IOxvEPgVBbupUmR";

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn whatever_is_said_is_taken_or_left(
            which in 0..6_usize,
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            noise in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let seeds = [
                format!("\0store\0# keys\nstore,[b]:2 {KEY}\n@revoked * {KEY}\n|1|AAAA|AAAA {KEY}\n").into_bytes(),
                b"\x01store\0Include x\nHost s*e !b \"c d\"\n Port 23\n IdentityFile ~/${A}%h\nMatch host store\0User me\n".to_vec(),
                b"\x69\0\0\0\x0d\0\0\0\0\x40\0\0\0\0\0\x81\xa4\0\0\0\x05\0\0\0\x06".to_vec(),
                b"\x67\0\0\0\x03abc".to_vec(),
                b"\x02\0\0\0\x03\0\0\0\x12limits@openssh.com\0\0\0\x011".to_vec(),
                noise,
            ];
            let mut data = seeds[which].clone();
            anything(&data);
            for (place, byte) in changes.into_iter().filter(|_| which < 5) {
                let at = place.index(data.len());
                data[at] = byte;
                anything(&data);
            }
        }
    }
}
