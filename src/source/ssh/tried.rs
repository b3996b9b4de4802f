//! The parsers of what servers and files say, on anything: what a fuzz target needs, which sees nothing else of this module.

use super::config::{self, Asker, Options};
use super::connect::KINDS;
use super::hosts::{self, Known, Verdict};
use super::sftp::packet::{self, Reply};
use crate::limits;

/// A file of known hosts: what it has for a host is judged as its own, and nothing is trusted beside.
pub fn known_hosts(text: &str, host: &str) {
    let mut known = Known::default();
    known.add(text, &hosts::name(host, 22));
    for key in known.keys() {
        assert!(matches!(known.judge(key), Verdict::Known | Verdict::Revoked));
        let mut one = Known::default();
        one.add(&hosts::line("other", key), "other");
        assert_eq!(one.judge(key), Verdict::Known, "a line that is shown is one that is understood");
    }
    assert_eq!(known.prefer(&KINDS).len(), KINDS.len());
}

/// Configuration files of OpenSSH: the first is read for `host`, and each `Include` names the next one.
pub fn configuration(texts: &[&str], host: &str) {
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
pub fn packet(kind: u8, body: &[u8]) {
    let _ = (packet::greeting(kind, body), packet::read_limit(body));
    match Reply::parse(kind, body.to_vec()) {
        Some(Reply::Data(bytes)) => assert!(body.ends_with(&bytes) && bytes.len().saturating_add(4) == body.len()),
        Some(Reply::Handle(bytes)) => assert!(bytes.len() <= limits::MAX_SFTP_HANDLE && body.ends_with(&bytes)),
        _ => {}
    }
}
