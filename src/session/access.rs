//! What lets the run in where its sources lie on other machines, and how patient it is with them.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::{Secret, Session};
use crate::error::Result;

/// Variables of the environment that may have a password, a token, cookies and a passphrase in them, and those of object stores with
/// secrets. Programs that we start do not get them.
pub const VARIABLES: [&str; 10] = [
    "HYPER2KVM_PASSWORD",
    "HYPER2KVM_TOKEN",
    "HYPER2KVM_COOKIE",
    "HYPER2KVM_PASSPHRASE",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AZURE_CLIENT_SECRET",
    "AZURE_STORAGE_CONNECTION_STRING",
    "AZURE_STORAGE_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
];

/// Credentials, trust and patience for remote sources. Without any, sources are read that are open to everybody.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// The name to log in with, where the source's own name has none.
    pub user: Option<String>,
    /// The password of that user.
    pub password: Option<Secret>,
    /// A bearer token (RFC 6750).
    pub token: Option<Secret>,
    /// The value of a `Cookie` header (RFC 6265).
    pub cookie: Option<Secret>,
    /// The text of a netrc file, whose entries are used for the hosts that they name.
    pub netrc: Option<Secret>,
    /// Certificates in PEM that are trusted beside the system's.
    pub authorities: Vec<u8>,
    /// Digests of the only server certificates that are trusted, whoever signed them.
    pub thumbprints: Vec<Thumbprint>,
    /// The client's own certificate with its chain, and its key, in PEM.
    pub identity: Option<(Vec<u8>, Secret)>,
    /// What is for object stores alone.
    pub objects: ObjectAccess,
    /// What is for SSH alone.
    pub ssh: SshAccess,
    /// How long to wait.
    pub patience: Patience,
    /// The folder in which what was fetched is kept for later runs.
    pub blocks: Option<PathBuf>,
    /// Who knows the secrets that turn out to be needed and were not given.
    pub asked: Asked,
}

/// Somebody who can be asked for a secret.
pub trait Ask: Debug + Send + Sync {
    /// The secret that `what` names; an end as soon as the session is cancelled.
    ///
    /// # Errors
    /// If it cannot be asked for.
    fn ask(&self, what: &str, session: &Session) -> Result<Secret>;
}

/// Somebody who can be asked, once for each secret, and what was said.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    who: Option<Arc<dyn Ask>>,
    password: OnceLock<Secret>,
    passphrase: OnceLock<Secret>,
}

impl Asked {
    /// Has `who` be asked.
    #[must_use]
    pub fn of(who: Arc<dyn Ask>) -> Self {
        Self { who: Some(who), ..Self::default() }
    }

    fn ask(&self, what: &str, answer: &OnceLock<Secret>, session: &Session) -> Result<bool> {
        match &self.who {
            Some(who) if answer.get().is_none() => Ok(answer.set(who.ask(what, session)?).is_ok()),
            _ => Ok(false),
        }
    }
}

impl Access {
    /// The password, given or asked for.
    #[must_use]
    pub fn password(&self) -> Option<&Secret> {
        self.password.as_ref().or_else(|| self.asked.password.get())
    }

    /// What private keys are encrypted with, given or asked for.
    #[must_use]
    pub fn passphrase(&self) -> Option<&Secret> {
        self.ssh.passphrase.as_ref().or_else(|| self.asked.passphrase.get())
    }

    /// Asks for the password of `whose`, where there is none and somebody can be asked. Whether there is one now.
    ///
    /// # Errors
    /// Those of asking.
    pub fn ask_password(&self, whose: &str, session: &Session) -> Result<bool> {
        let lacks = self.password.is_none();
        Ok(lacks && self.asked.ask(&format!("Password of {whose}"), &self.asked.password, session)?)
    }

    /// The same for the passphrase of the private key `of`.
    ///
    /// # Errors
    /// Those of asking.
    pub fn ask_passphrase(&self, of: &str, session: &Session) -> Result<bool> {
        let lacks = self.ssh.passphrase.is_none();
        Ok(lacks && self.asked.ask(&format!("Passphrase of {of}"), &self.asked.passphrase, session)?)
    }
}

/// Who we are on SSH servers, and which of them are trusted: without any of it, none is.
#[derive(Clone, Debug, Default)]
pub struct SshAccess {
    /// The user's home directory, in which the usual files are.
    pub home: Option<PathBuf>,
    /// The name of the user here, who has the same one there if nothing else is said.
    pub local_user: String,
    /// Configuration files of OpenSSH, the first one first; those that are not there are left.
    pub configs: Vec<PathBuf>,
    /// A configuration file that must be there, and is the only one.
    pub config: Option<PathBuf>,
    /// Files with private keys, which must be there.
    pub keys: Vec<PathBuf>,
    /// What those of them are encrypted with that are.
    pub passphrase: Option<Secret>,
    /// The socket of an agent, which signs.
    pub agent: Option<PathBuf>,
    /// Files of known hosts beside those of the configuration, which must be there.
    pub known_hosts: Vec<PathBuf>,
    /// Digests of the only host keys that are trusted at the source's host, as `ssh-keygen -l` shows them.
    pub host_keys: Vec<String>,
    /// Hosts to go through, as in `ProxyJump`.
    pub jump: Option<String>,
    /// A program that makes the connection, like OpenSSH's `ssh`.
    pub program: Option<PathBuf>,
}

/// Who we are to object stores, and where those are.
#[derive(Clone, Debug, Default)]
pub struct ObjectAccess {
    /// The variables of the environment that the programs of the clouds take for theirs.
    pub variables: BTreeMap<String, Secret>,
    /// The user's home directory, in which the usual files are.
    pub home: Option<PathBuf>,
    /// The address of the store, where it is not the cloud's own.
    pub endpoint: Option<String>,
    /// How buckets are named there.
    pub addressing: Addressing,
    /// Whether credentials are not even looked for.
    pub anonymous: bool,
    /// Whether the machine that this runs on is asked for its own credentials.
    pub instance: bool,
}

impl ObjectAccess {
    /// The value of a variable, if it is text.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).and_then(|value| std::str::from_utf8(value.expose()).ok())
    }
}

/// How a bucket is named in requests to S3.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Addressing {
    /// As a part of the host's name on AWS, and of the path elsewhere.
    #[default]
    Auto,
    /// As the first part of the path.
    Path,
    /// As the first part of the host's name.
    Virtual,
}

/// A digest of a certificate in DER.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thumbprint {
    /// SHA-1, as vSphere shows it.
    Sha1([u8; 20]),
    /// SHA-256.
    Sha256([u8; 32]),
}

impl Thumbprint {
    /// Reads hexadecimal digits, with colons between the bytes or without.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b':').collect();
        let byte = |pair: &[u8]| {
            let digits = std::str::from_utf8(pair).ok().filter(|pair| pair.bytes().all(|b| b.is_ascii_hexdigit()))?;
            u8::from_str_radix(digits, 16).ok()
        };
        let bytes: Option<Vec<u8>> = digits.chunks(2).map(byte).collect();
        let bytes = bytes.filter(|_| digits.len().is_multiple_of(2))?;
        match bytes.len() {
            20 => bytes.try_into().ok().map(Self::Sha1),
            32 => bytes.try_into().ok().map(Self::Sha256),
            _ => None,
        }
    }
}

/// How long a remote source may be silent, and how often it is asked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Until a connection stands.
    pub connect: Duration,
    /// Until the first byte of an answer, and between two bytes of it.
    pub silence: Duration,
    /// Tries after the first one that bring nothing.
    pub retries: u32,
}

impl Default for Patience {
    fn default() -> Self {
        Self { connect: Duration::from_secs(10), silence: Duration::from_secs(30), retries: 5 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Answers;

    impl Ask for Answers {
        fn ask(&self, what: &str, _session: &Session) -> Result<Secret> {
            Ok(Secret::new(what.as_bytes().to_vec()))
        }
    }

    #[test]
    fn what_was_not_given_is_asked_for_once() {
        let session = Session::with_defaults();
        let nobody = Access::default();
        assert!(!nobody.ask_password("me", &session).unwrap() && nobody.password().is_none());
        let asking = Access { asked: Asked::of(Arc::new(Answers)), ..Access::default() };
        assert!(asking.ask_password("me", &session).unwrap() && !asking.ask_password("me", &session).unwrap());
        assert!(asking.ask_passphrase("key", &session).unwrap());
        let said = [asking.password(), asking.passphrase()].map(|secret| secret.unwrap().expose().to_vec());
        assert_eq!(said, [b"Password of me".to_vec(), b"Passphrase of key".to_vec()]);
        let given = Access { password: Some(Secret::new(vec![1])), ..asking.clone() };
        assert!(!given.ask_password("me", &session).unwrap());
        assert_eq!(given.password().unwrap().expose(), [1]);
        assert!(!format!("{asking:?}").contains("of me"));
    }

    #[test]
    fn thumbprints_are_read_as_they_are_shown() {
        let with_colons = ["ab"; 20].join(":");
        assert_eq!(Thumbprint::parse(&with_colons), Some(Thumbprint::Sha1([0xab; 20])));
        assert_eq!(Thumbprint::parse(&"5C".repeat(32)), Some(Thumbprint::Sha256([0x5c; 32])));
        for bad in ["", "ab", &"ab".repeat(21), &"+a".repeat(20), &"a".repeat(41), "zz"] {
            assert_eq!(Thumbprint::parse(bad), None, "{bad}");
        }
    }
}
