//! Logging in on an SSH server (RFC 4252): with keys that an agent has, with keys in files, then with the user's password.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use russh::client::{AuthResult, Handle, KeyboardInteractiveAuthResponse};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKey};
use russh::{MethodKind, MethodSet};
use tokio::net::UnixStream;
use zeroize::Zeroizing;

use super::super::remote::Failure;
use super::connect::{Guard, failure};
use super::route::{self, Hop};
use crate::error::{Error, Kind, Result};
use crate::limits;
use crate::session::{Access, Secret, Session};

/// Questions that a server may ask before it must have made up its mind.
const ROUNDS: usize = 8;

/// What lets us in at one host. Keys are read once, and stay for connections that follow.
pub(super) struct Login {
    hop: Hop,
    /// Whether the user's password is for this host: the one that the source names, and no other.
    is_for_password: bool,
    known: Mutex<Secrets>,
}

#[derive(Default)]
struct Secrets {
    password: Option<Secret>,
    passphrase: Option<Secret>,
    keys: Option<Result<Keys>>,
    lack: Option<Lack>,
}

/// What may let us in that was not given.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Lack {
    Passphrase(PathBuf),
    Password,
}

#[derive(Clone, Default)]
struct Keys {
    private: Vec<Arc<PrivateKey>>,
    /// Public keys of which an agent may have the private ones.
    public: Vec<PublicKey>,
    /// One that nothing was given to decrypt with.
    locked: Option<PathBuf>,
}

/// What came of one way to log in.
enum Tried {
    In,
    /// The server wants something else, and says what it takes.
    Out(MethodSet),
}

impl From<AuthResult> for Tried {
    fn from(result: AuthResult) -> Self {
        match result {
            AuthResult::Success => Self::In,
            AuthResult::Failure { remaining_methods, .. } => Self::Out(remaining_methods),
        }
    }
}

impl Login {
    /// `is_target`: whether the host is the one that has the source.
    pub(super) fn new(hop: &Hop, access: &Access, is_target: bool) -> Self {
        let is_for_password = is_target && hop.use_password;
        let login = Self { hop: hop.clone(), is_for_password, known: Mutex::default() };
        login.learn(access);
        login
    }

    /// Takes the secrets that are there now.
    fn learn(&self, access: &Access) {
        let password = access.password().cloned().filter(|_| self.is_for_password);
        *self.known() = Secrets { password, passphrase: access.passphrase().cloned(), keys: None, lack: None };
    }

    fn known(&self) -> MutexGuard<'_, Secrets> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the user for what was missing when we were not let in. Whether there is something new.
    ///
    /// # Errors
    /// Those of asking.
    pub(super) fn ask(&self, session: &Session) -> Result<bool> {
        let (lack, access) = (self.known().lack.clone(), session.access());
        let asked = match lack {
            None => false,
            Some(Lack::Passphrase(path)) => access.ask_passphrase(&path.display().to_string(), session)?,
            Some(Lack::Password) => access.ask_password(&format!("{} at {}", self.hop.user, self.hop.name), session)?,
        };
        if asked {
            self.learn(access);
        }
        Ok(asked)
    }

    /// Logs in.
    pub(super) async fn enter(&self, handle: &mut Handle<Guard>) -> Result<(), Failure> {
        let (keys, password) = {
            let mut known = self.known();
            let passphrase = known.passphrase.clone();
            let keys = known.keys.get_or_insert_with(|| self.read_keys(passphrase.as_ref())).clone();
            (keys.map_err(Failure::Final)?, known.password.clone())
        };
        let user = self.hop.user.as_str();
        // The first try tells what the server takes.
        let mut state: Tried = handle.authenticate_none(user).await.map_err(failure)?.into();
        let mut tried = 0;
        if self.hop.use_keys && takes(&state, MethodKind::PublicKey) {
            state = self.by_agent(handle, &keys, state, &mut tried).await?;
            state = self.by_files(handle, &keys, state, &mut tried).await?;
        }
        if let Some(password) = &password {
            state = self.by_password(handle, password, state).await?;
        }
        match state {
            Tried::In => Ok(()),
            Tried::Out(_) if handle.is_closed() => Err(self.denied("the server ended the connection", tried, &keys)),
            Tried::Out(methods) => {
                let wants = |method| methods.contains(&method);
                let by_password = wants(MethodKind::Password) || wants(MethodKind::KeyboardInteractive);
                self.known().lack = match &keys.locked {
                    Some(path) => Some(Lack::Passphrase(path.clone())),
                    None if by_password && self.is_for_password && password.is_none() => Some(Lack::Password),
                    None => None,
                };
                let names: Vec<&str> = methods.iter().map(<&'static str>::from).collect();
                Err(self.denied(&format!("it takes {}", names.join(", ")), tried, &keys))
            }
        }
    }

    async fn by_agent(
        &self,
        handle: &mut Handle<Guard>,
        keys: &Keys,
        mut state: Tried,
        tried: &mut usize,
    ) -> Result<Tried, Failure> {
        let Some(path) = &self.hop.agent else { return Ok(state) };
        // An agent that is not there is as good as none.
        let Ok(stream) = UnixStream::connect(path).await else { return Ok(state) };
        let mut agent = AgentClient::connect(stream);
        let Ok(identities) = agent.request_identities().await else { return Ok(state) };
        for identity in identities.into_iter().take(limits::MAX_SSH_KEYS) {
            let AgentIdentity::PublicKey { key, .. } = identity else { continue };
            let is_meant = keys.public.iter().any(|public| public.key_data() == key.key_data());
            if !takes(&state, MethodKind::PublicKey) || handle.is_closed() {
                return Ok(state);
            }
            if self.hop.only_these && !is_meant {
                continue;
            }
            *tried += 1;
            let hash = hash(handle, key.algorithm().is_rsa()).await?;
            // An agent may refuse to sign, and has another key then.
            if let Ok(result) = handle.authenticate_publickey_with(&self.hop.user, key, hash, &mut agent).await {
                state = result.into();
            }
        }
        Ok(state)
    }

    async fn by_files(
        &self,
        handle: &mut Handle<Guard>,
        keys: &Keys,
        mut state: Tried,
        tried: &mut usize,
    ) -> Result<Tried, Failure> {
        for key in &keys.private {
            if !takes(&state, MethodKind::PublicKey) || handle.is_closed() {
                break;
            }
            *tried += 1;
            let hash = hash(handle, key.algorithm().is_rsa()).await?;
            let key = PrivateKeyWithHashAlg::new(Arc::clone(key), hash);
            state = handle.authenticate_publickey(&self.hop.user, key).await.map_err(failure)?.into();
        }
        Ok(state)
    }

    async fn by_password(
        &self,
        handle: &mut Handle<Guard>,
        password: &Secret,
        mut state: Tried,
    ) -> Result<Tried, Failure> {
        let text = || {
            let text = std::str::from_utf8(password.expose())
                .map_err(|_| Failure::Final(Error::new(Kind::Usage, "ssh.login", "the password is no text in UTF-8")));
            text.map(str::to_owned)
        };
        if takes(&state, MethodKind::Password) {
            state = handle.authenticate_password(&self.hop.user, text()?).await.map_err(failure)?.into();
        }
        if !takes(&state, MethodKind::KeyboardInteractive) || handle.is_closed() {
            return Ok(state);
        }
        let mut asked = handle.authenticate_keyboard_interactive_start(&self.hop.user, None).await.map_err(failure)?;
        let mut given = false;
        for _ in 0..ROUNDS {
            let prompts = match asked {
                KeyboardInteractiveAuthResponse::Success => return Ok(Tried::In),
                KeyboardInteractiveAuthResponse::Failure { remaining_methods, .. } => {
                    return Ok(Tried::Out(remaining_methods));
                }
                KeyboardInteractiveAuthResponse::InfoRequest { prompts, .. } => prompts,
            };
            let answers = match prompts.as_slice() {
                [] => Vec::new(),
                [one] if !one.echo && !given => vec![text()?],
                _ => return Err(self.denied("it asks for more than a password", 0, &Keys::default())),
            };
            given |= !answers.is_empty();
            asked = handle.authenticate_keyboard_interactive_respond(answers).await.map_err(failure)?;
        }
        Err(self.denied("it asks without end", 0, &Keys::default()))
    }

    fn denied(&self, found: &str, tried: usize, keys: &Keys) -> Failure {
        let error = Error::new(Kind::Unreadable, "ssh.login", "the SSH server does not let us in")
            .at(format_args!("{}@{}", self.hop.user, self.hop.name))
            .found(format!("{found}; keys tried: {tried}"));
        Failure::Final(if keys.locked.is_some() {
            error.hint("a private key is encrypted: give its passphrase with --passphrase-file, or add it to an agent")
        } else {
            error.hint("name the user (ssh://USER@HOST/PATH), a key (--ssh-identity), or a password (--password-file)")
        })
    }

    /// Reads the keys in files.
    ///
    /// # Errors
    /// `ssh.key` where a file that the user named has none that can be used.
    fn read_keys(&self, passphrase: Option<&Secret>) -> Result<Keys> {
        let mut keys = Keys::default();
        for path in self.hop.keys.iter().take(limits::MAX_SSH_KEYS) {
            let read = read_key(path, passphrase, &mut keys);
            read.or_else(|error| if self.hop.keys_must_be { Err(error) } else { Ok(()) })?;
        }
        Ok(keys)
    }
}

fn read_key(path: &Path, passphrase: Option<&Secret>, keys: &mut Keys) -> Result<()> {
    let unusable = || Error::new(Kind::Usage, "ssh.key", "the private key cannot be used").path(path);
    let mut beside = path.as_os_str().to_owned();
    beside.push(".pub");
    let public = route::text(Path::new(&beside)).ok();
    let public = public.and_then(|text| PublicKey::from_openssh(text.trim()).ok());
    let has_public = public.is_some();
    keys.public.extend(public);
    let text = Zeroizing::new(route::text(path).map_err(|error| unusable().because(error))?);
    if let Ok(public) = PublicKey::from_openssh(text.trim()) {
        // Of this one an agent has the other half.
        keys.public.push(public);
        return Ok(());
    }
    let opens = passphrase.and_then(|secret| std::str::from_utf8(secret.expose()).ok());
    let key = match (russh::keys::decode_secret_key(&text, None), opens) {
        (Err(_), Some(passphrase)) => russh::keys::decode_secret_key(&text, Some(passphrase)),
        (key, _) => key,
    };
    match key {
        Ok(key) if key.is_encrypted() => {
            if passphrase.is_some() {
                return Err(unusable().found("another passphrase, or none"));
            }
            keys.locked = Some(path.to_owned());
        }
        Ok(key) => {
            if !has_public {
                keys.public.push(key.public_key().clone());
            }
            keys.private.push(Arc::new(key));
        }
        Err(russh::keys::Error::KeyIsEncrypted) if passphrase.is_none() => keys.locked = Some(path.to_owned()),
        Err(error) => return Err(unusable().because(error)),
    }
    Ok(())
}

fn takes(state: &Tried, method: MethodKind) -> bool {
    match state {
        Tried::In => false,
        Tried::Out(methods) => methods.contains(&method),
    }
}

/// By which digest the server takes signatures of RSA keys: never SHA-1.
async fn hash(handle: &Handle<Guard>, is_rsa: bool) -> Result<Option<HashAlg>, Failure> {
    if !is_rsa {
        return Ok(None);
    }
    let best = handle.best_supported_rsa_hash().await.map_err(failure)?;
    Ok(best.flatten().or(Some(HashAlg::Sha512)))
}
