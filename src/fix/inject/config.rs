//! What can be asked for, and the file that asks for it.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::fmt;

use serde::Deserialize;

use super::{NewAddresses, bad_value};
use crate::error::{Error, Kind, Result};

/// Everything that is put into a guest.
#[derive(Clone, Debug, Default)]
pub struct Injection {
    /// The host name.
    pub hostname: Option<String>,
    /// Users that are made, or get groups, a password and keys.
    pub users: Vec<NewUser>,
    /// How interfaces get their addresses.
    pub network: Vec<NewAddresses>,
    /// Files.
    pub files: Vec<NewFile>,
    /// Scripts that run once, in order, at the first boot.
    pub first_boot: Vec<Script>,
    /// Services.
    pub services: Services,
    /// cloud-init.
    pub cloud_init: Option<CloudInit>,
    /// The QEMU guest agent, where the guest has none.
    pub guest_agent: Option<GuestAgent>,
}

/// Where the guest agent comes from. The first boot installs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GuestAgent {
    /// The guest's own repositories.
    Install,
    /// A package of the guest's kind.
    Package {
        /// Its file name.
        name: String,
        /// Its content.
        content: Vec<u8>,
    },
}

impl GuestAgent {
    /// `install`, or the path of a package, which `read` gives.
    ///
    /// # Errors
    /// What `read` gives.
    pub fn parse(text: &str, read: &mut ReadFile<'_>) -> Result<Self> {
        if text == "install" {
            return Ok(Self::Install);
        }
        let name = text.rsplit('/').next().unwrap_or_default().to_owned();
        Ok(Self::Package { name, content: read(text)? })
    }
}

/// A user.
#[derive(Clone, Debug, Default)]
pub struct NewUser {
    /// The name to log in with.
    pub name: String,
    /// The number of a new user; by default the next free one.
    pub uid: Option<u32>,
    /// The name for people, of a new user.
    pub comment: String,
    /// The home directory of a new user.
    pub home: Option<String>,
    /// The shell of a new user.
    pub shell: Option<String>,
    /// Groups of the guest that the user becomes a member of.
    pub groups: Vec<String>,
    /// The password, as crypt(5) hashes it.
    pub password: Option<PasswordHash>,
    /// Lines for `authorized_keys`.
    pub ssh_keys: Vec<String>,
}

/// A password's hash. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(String);

impl PasswordHash {
    /// Reads what `openssl passwd -6` and mkpasswd(1) print.
    ///
    /// # Errors
    /// `inject.value` for anything else, such as a password itself.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(text).unwrap_or_default().trim_end_matches(['\n', '\r']);
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"$./=,-+_".contains(&byte);
        let is_hash = text.starts_with('$') && text.matches('$').count() >= 3 && text.bytes().all(is_plain);
        if is_hash && text.len() <= 512 {
            Ok(Self(text.to_owned()))
        } else {
            let error = Error::new(Kind::Usage, "inject.value", "that is no hash of a password");
            Err(error.hint("`openssl passwd -6` makes one from a password"))
        }
    }

    pub(super) fn text(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

/// A file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewFile {
    /// Its path in the guest.
    pub path: String,
    /// Its content.
    pub content: Vec<u8>,
    /// Its permissions; by default 0644.
    pub mode: Option<u32>,
    /// Its owner and group, by name or number: `root`, `0:0`, `app:app`.
    pub owner: Option<String>,
}

/// A script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// What it is called in the guest.
    pub name: String,
    /// Its text; the first line says what runs it (`#!/bin/sh`).
    pub content: Vec<u8>,
}

/// Services, by the names of their units (or of their scripts, without systemd).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Services {
    /// Started at boot.
    pub enable: Vec<String>,
    /// Not started at boot, unless something else asks for them.
    pub disable: Vec<String>,
    /// Never started, by whatever asks for them.
    pub mask: Vec<String>,
}

/// What cloud-init is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloudInit {
    /// It does nothing.
    Disabled,
    /// A seed of NoCloud.
    Seed {
        /// `user-data`.
        user_data: Vec<u8>,
        /// `meta-data`; by default an instance identity made of the rest.
        meta_data: Option<Vec<u8>>,
        /// `network-config`.
        network_config: Option<Vec<u8>>,
    },
}

/// Reads a file of the user's: what a configuration names, relative to itself.
type ReadFile<'a> = dyn FnMut(&str) -> Result<Vec<u8>> + 'a;

impl Injection {
    /// Adds what a configuration in YAML or JSON asks for. `read` gives the files that it names.
    ///
    /// # Errors
    /// `inject.config` with the line for what is no configuration, has unknown fields, or says too little; `inject.value` for
    /// what cannot be a hash; what `read` gives.
    pub fn add_config(&mut self, text: &str, read: &mut ReadFile<'_>) -> Result<()> {
        let config: Config = serde_saphyr::from_str(text).map_err(|error| {
            Error::new(Kind::Usage, "inject.config", "the configuration cannot be followed").found(error)
        })?;
        self.hostname = config.hostname.or(self.hostname.take());
        for user in config.users {
            self.users.push(user.resolve(read)?);
        }
        self.network.extend(config.network);
        for file in config.files {
            let content = one_of(&file.path, file.content, file.source, read)?;
            let mode = file.mode.as_deref().map(mode).transpose()?;
            self.files.push(NewFile { path: file.path, content, mode, owner: file.owner });
        }
        for script in config.first_boot {
            let by_path = script.source.as_deref().map(|path| path.rsplit('/').next().unwrap_or_default().to_owned());
            let name = script.name.or(by_path).unwrap_or_else(|| "script".to_owned());
            let content = one_of(&name, script.content, script.source, read)?;
            self.first_boot.push(Script { name, content });
        }
        self.services.enable.extend(config.services.enable);
        self.services.disable.extend(config.services.disable);
        self.services.mask.extend(config.services.mask);
        if let Some(agent) = config.guest_agent {
            self.guest_agent = Some(GuestAgent::parse(&agent, read)?);
        }
        if let Some(cloud) = config.cloud_init {
            self.cloud_init = Some(cloud.resolve(read)?);
        }
        Ok(())
    }
}

/// The configuration as it is written.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    hostname: Option<String>,
    users: Vec<UserConfig>,
    network: Vec<NewAddresses>,
    files: Vec<FileConfig>,
    first_boot: Vec<ScriptConfig>,
    services: Services,
    cloud_init: Option<CloudConfig>,
    guest_agent: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UserConfig {
    name: String,
    uid: Option<u32>,
    #[serde(default)]
    comment: String,
    home: Option<String>,
    shell: Option<String>,
    #[serde(default)]
    groups: Vec<String>,
    password_hash_file: Option<String>,
    #[serde(default)]
    ssh_keys: Vec<String>,
    #[serde(default)]
    ssh_key_files: Vec<String>,
}

impl UserConfig {
    fn resolve(self, read: &mut ReadFile<'_>) -> Result<NewUser> {
        let password = self.password_hash_file.map(|path| PasswordHash::parse(&read(&path)?)).transpose()?;
        let mut ssh_keys = self.ssh_keys;
        for path in &self.ssh_key_files {
            ssh_keys.extend(key_lines(&read(path)?));
        }
        let Self { name, uid, comment, home, shell, groups, .. } = self;
        Ok(NewUser { name, uid, comment, home, shell, groups, password, ssh_keys })
    }
}

/// The keys of a file in the manner of `authorized_keys` or `id_ed25519.pub`.
#[must_use]
pub fn key_lines(content: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(content);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(str::to_owned).collect()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileConfig {
    path: String,
    source: Option<String>,
    content: Option<String>,
    mode: Option<String>,
    owner: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScriptConfig {
    name: Option<String>,
    source: Option<String>,
    content: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CloudConfig {
    #[serde(default)]
    disable: bool,
    user_data: Option<String>,
    meta_data: Option<String>,
    network_config: Option<String>,
}

impl CloudConfig {
    fn resolve(self, read: &mut ReadFile<'_>) -> Result<CloudInit> {
        match (self.disable, self.user_data) {
            (true, None) if self.meta_data.is_none() && self.network_config.is_none() => Ok(CloudInit::Disabled),
            (false, Some(path)) => Ok(CloudInit::Seed {
                user_data: read(&path)?,
                meta_data: self.meta_data.map(|path| read(&path)).transpose()?,
                network_config: self.network_config.map(|path| read(&path)).transpose()?,
            }),
            _ => Err(incomplete("cloud_init needs either disable: true or user_data: FILE")),
        }
    }
}

fn one_of(what: &str, content: Option<String>, source: Option<String>, read: &mut ReadFile<'_>) -> Result<Vec<u8>> {
    match (content, source) {
        (Some(content), None) => Ok(content.into_bytes()),
        (None, Some(path)) => read(&path),
        _ => Err(incomplete(&format!("{what} needs either content or source"))),
    }
}

fn incomplete(what: &str) -> Error {
    Error::new(Kind::Usage, "inject.config", "the configuration cannot be followed").found(crate::error::escape(what))
}

/// Permissions in octal digits. Unquoted in YAML they would be a decimal number, so they are a text.
fn mode(text: &str) -> Result<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let value = if digits { u32::from_str_radix(text, 8).ok() } else { None };
    value.filter(|mode| *mode <= 0o7777).ok_or_else(|| bad_value("file mode in octal digits, such as \"0644\"", text))
}
