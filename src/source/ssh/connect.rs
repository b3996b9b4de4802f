//! Connections to SSH servers, through others where need be: only to those whose keys are known.

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use russh::client::{self, Handle};
use russh::keys::{Algorithm, EcdsaCurve, HashAlg, PublicKey, PublicKeyOrCertificate};
use russh::{ChannelMsg, Preferred, cipher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::super::remote::Failure;
use super::super::runtime::within;
use super::hosts::{self, Known, Verdict};
use super::login::Login;
use super::route::{self, Hop};
use super::sftp::Sftp;
use super::silent;
use crate::error::{Error, Kind, Result};
use crate::session::{Access, Patience, Session};

/// Bytes that a server sends before we said that we took them: 50 ms of 2.5 Gbit/s.
const WINDOW: u32 = 16 << 20;

/// Kinds of host keys, the best first. RSA signs with SHA-2.
pub(super) const KINDS: [Algorithm; 6] = [
    Algorithm::Ed25519,
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
    Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
    Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
];

/// A connection on which files are asked for.
pub(super) struct Connection {
    pub(super) sftp: Sftp,
    /// Those that the last one goes through, and it itself: they end when this is dropped.
    _ssh: Vec<Handle<Guard>>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.sftp.fmt(f)
    }
}

/// How to get to a host, and in.
pub(super) struct Way {
    hops: Vec<(Hop, Trust, Login)>,
    patience: Patience,
}

/// Whom we take for a host.
#[derive(Clone, Debug, Default)]
struct Trust(Arc<Trusted>);

#[derive(Debug, Default)]
struct Trusted {
    known: Known,
    /// Digests of the only keys that are trusted, if the user named any.
    only: Vec<String>,
    known_as: String,
    /// How the user gives the key's digest, where that can be.
    flag: bool,
}

impl Way {
    /// Through `hops`, of which the last one has the files.
    ///
    /// # Errors
    /// `ssh.config` for a file of known hosts that the user named and that cannot be read.
    pub(super) fn new(hops: Vec<Hop>, access: &Access) -> Result<Self> {
        let last = hops.len().saturating_sub(1);
        let with_trust = |(number, hop): (usize, Hop)| {
            let is_target = number == last;
            let trust = Trust::of(&hop, access, is_target)?;
            let login = Login::new(&hop, access, is_target);
            Ok((hop, trust, login))
        };
        let hops = hops.into_iter().enumerate().map(with_trust).collect::<Result<_>>()?;
        Ok(Self { hops, patience: access.patience })
    }

    /// Asks the user for what was missing at one of the hosts. Whether there is something new.
    ///
    /// # Errors
    /// Those of asking.
    pub(super) fn ask(&self, session: &Session) -> Result<bool> {
        for (_, _, login) in &self.hops {
            if login.ask(session)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Connects.
    pub(super) async fn connect(&self) -> Result<Connection, Failure> {
        let mut ssh: Vec<Handle<Guard>> = Vec::new();
        for (hop, trust, login) in &self.hops {
            let place = |failure: Failure| failure.at(&hop.name);
            let mut handle = match ssh.last() {
                None => self.greet(self.tcp(hop).await?, trust).await.map_err(place)?,
                Some(before) => {
                    let opening = before.channel_open_direct_tcpip(&hop.host, hop.port.into(), "127.0.0.1", 0);
                    let channel = self.in_time(opening).await.map_err(place)?;
                    self.greet(channel.into_stream(), trust).await.map_err(place)?
                }
            };
            let entered = within(self.patience.silence, login.enter(&mut handle)).await;
            entered.unwrap_or_else(|| Err(Failure::again(silent("the server does not say whether it lets us in"))))?;
            ssh.push(handle);
        }
        let last = ssh.last().ok_or_else(|| Failure::again(lost("there is no way")))?;
        let mut channel = self.in_time(last.channel_open_session()).await?;
        self.in_time(channel.request_subsystem(true, "sftp")).await?;
        let agreed = within(self.patience.silence, async {
            loop {
                match channel.wait().await {
                    Some(ChannelMsg::Success) => return true,
                    Some(ChannelMsg::Failure | ChannelMsg::Close | ChannelMsg::Eof) | None => return false,
                    Some(_) => {}
                }
            }
        });
        match agreed.await {
            None => return Err(Failure::again(silent("the server does not answer"))),
            Some(false) => return Err(Failure::Final(no_files())),
            Some(true) => {}
        }
        let sftp = Sftp::start(channel.into_stream(), self.patience.silence, self.patience.silence).await?;
        Ok(Connection { sftp, _ssh: ssh })
    }

    async fn tcp(&self, hop: &Hop) -> Result<TcpStream, Failure> {
        let error = |error: std::io::Error| {
            let found = Error::new(Kind::Unreadable, "ssh.connection", "cannot connect to the SSH server");
            Failure::again(found.at(format_args!("{}:{}", hop.host, hop.port)).because(error))
        };
        let stream = within(self.patience.connect, TcpStream::connect((hop.host.as_str(), hop.port))).await;
        let stream = stream.unwrap_or_else(|| Err(std::io::ErrorKind::TimedOut.into())).map_err(error)?;
        stream.set_nodelay(true).map_err(error)?;
        Ok(stream)
    }

    /// Agrees on keys with the server at the other end, and finds it to be the right one.
    async fn greet<S>(&self, stream: S, trust: &Trust) -> Result<Handle<Guard>, Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let refusal = Arc::default();
        let guard = Guard { trust: trust.clone(), refusal: Arc::clone(&refusal) };
        let config = Arc::new(config(self.patience, trust));
        let greeted = within(self.patience.silence, client::connect_stream(config, stream, guard)).await;
        let refused = refusal.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (greeted, refused) {
            (_, Some(error)) => Err(Failure::Final(error)),
            (None, None) => Err(Failure::again(silent("the server does not agree on keys"))),
            (Some(handle), None) => handle.map_err(failure),
        }
    }

    async fn in_time<T>(&self, work: impl Future<Output = Result<T, russh::Error>>) -> Result<T, Failure> {
        match within(self.patience.silence, work).await {
            Some(done) => done.map_err(failure),
            None => Err(Failure::again(silent("the server does not answer"))),
        }
    }
}

fn config(patience: Patience, trust: &Trust) -> client::Config {
    client::Config {
        window_size: WINDOW,
        maximum_packet_size: 65_535,
        preferred: Preferred {
            key: Cow::Owned(trust.0.known.prefer(&KINDS)),
            cipher: Cow::Borrowed(&CIPHERS),
            ..Preferred::default()
        },
        keepalive_interval: Some(patience.silence / 2),
        keepalive_max: 2,
        nodelay: true,
        ..client::Config::default()
    }
}

/// The fastest first, where the processor knows AES.
const CIPHERS: [cipher::Name; 5] =
    [cipher::AES_256_GCM, cipher::CHACHA20_POLY1305, cipher::AES_256_CTR, cipher::AES_192_CTR, cipher::AES_128_CTR];

impl Trust {
    fn of(hop: &Hop, access: &Access, is_target: bool) -> Result<Self> {
        let mut known = Known::default();
        for path in &hop.known_hosts {
            match route::text(path) {
                Ok(text) => known.add(&text, &hop.known_as),
                Err(error) if access.ssh.known_hosts.contains(path) => {
                    let wrong = Error::new(Kind::Usage, "ssh.config", "a file of known hosts cannot be read");
                    return Err(wrong.because(error).path(path));
                }
                Err(_) => {}
            }
        }
        let only = if is_target { access.ssh.host_keys.clone() } else { Vec::new() };
        Ok(Self(Arc::new(Trusted { known, only, known_as: hop.known_as.clone(), flag: is_target })))
    }

    /// # Errors
    /// `ssh.host-key` and `ssh.host-key-changed` for a key that is not the host's, `ssh.protocol` for one that nobody asked for.
    fn judge(&self, key: &PublicKey) -> Result<()> {
        let Trusted { known, only, known_as, flag } = &*self.0;
        // The names of others may be any text, which a line to add must not hold.
        if !KINDS.iter().any(|kind| hosts::is_for_algorithm(key, kind)) {
            let other = "the SSH server shows a key of a kind that it was not asked for";
            return Err(Error::refused("ssh.protocol", other).at(known_as));
        }
        let digest = hosts::fingerprint(key);
        let shown = format!("{} {digest}", key.algorithm().as_str());
        let verdict = known.judge(key);
        if verdict == Verdict::Revoked {
            return Err(Error::refused("ssh.host-key-changed", "the SSH server shows a key that is marked as revoked")
                .at(known_as)
                .found(shown));
        }
        if !only.is_empty() {
            let fits = only.iter().any(|only| only.trim_end_matches('=') == digest);
            let other = || Error::refused("ssh.host-key-changed", "the SSH server shows another key than was named");
            return if fits { Ok(()) } else { Err(other().at(known_as).expected(only.join(", ")).found(shown)) };
        }
        match verdict {
            Verdict::Known => Ok(()),
            Verdict::Changed => {
                let hint = "somebody may be in between, or the server was installed anew: ask who runs it, and mend the file \
                            of known hosts then (ssh-keygen -R HOST)";
                let changed = "the SSH server shows another key than the one that is known of it";
                Err(Error::refused("ssh.host-key-changed", changed).at(known_as).found(shown).hint(hint))
            }
            Verdict::Unknown | Verdict::Revoked => {
                let line = hosts::line(known_as, key);
                let flag = if *flag { format!(", or give --ssh-host-key {digest}") } else { String::new() };
                let authority = if known.has_authority { " (certificates of hosts are not looked at)" } else { "" };
                let hint = format!(
                    "compare it with what `ssh-keygen -lf` shows on the server; then add to ~/.ssh/known_hosts: {line}{flag}"
                );
                let unknown = format!("nothing is known of the SSH server's key{authority}");
                Err(Error::refused("ssh.host-key", unknown).at(known_as).found(shown).hint(hint))
            }
        }
    }
}

/// Looks at the key that a server shows.
pub(super) struct Guard {
    trust: Trust,
    refusal: Arc<Mutex<Option<Error>>>,
}

impl client::Handler for Guard {
    type Error = russh::Error;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        // Certificates are not asked for.
        let PublicKeyOrCertificate::PublicKey { key, .. } = shown else { return Ok(false) };
        match self.trust.judge(key) {
            Ok(()) => Ok(true),
            Err(error) => {
                *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                Ok(false)
            }
        }
    }
}

/// What an error of the connection means.
pub(super) fn failure(error: russh::Error) -> Failure {
    match error {
        russh::Error::NoCommonAlgo { kind, theirs, .. } => Failure::Final(
            Error::unsupported("ssh.algorithm", "the SSH server knows none of the algorithms that are used here")
                .found(format!("{kind:?}: {}", theirs.join(", ")))
                .hint("let the system's ssh make the connection: --ssh-program ssh"),
        ),
        russh::Error::ChannelOpenFailure(why) => Failure::again(lost(&format!("it opens no channel: {why:?}"))),
        russh::Error::Version => {
            Failure::again(Error::new(Kind::Unreadable, "ssh.connection", "there is no SSH server at that port"))
        }
        error => Failure::again(lost("it broke off").because(error)),
    }
}

fn lost(what: &str) -> Error {
    Error::new(Kind::Unreadable, "ssh.connection", "the connection to the SSH server failed").found(what)
}

pub(super) fn no_files() -> Error {
    Error::unsupported("ssh.sftp", "the SSH server gives no files (it has no SFTP)")
        .hint("switch that on at the server: Subsystem sftp internal-sftp")
}
