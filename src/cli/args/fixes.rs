//! How the guest is changed: options that `migrate` and `plan` share.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use crate::error::{Error, Kind};
use crate::fix::{
    CloudInit, GuestAgent, Injection, MacMap, NetworkLevel, NewUser, Options, PasswordHash, Script, key_lines,
};
use crate::limits;

/// What is wanted of the fixes.
#[derive(Args, Clone, Debug)]
pub struct FixArgs {
    /// How far the network's configuration is changed.
    #[arg(long, value_enum, value_name = "LEVEL", default_value_t = NetworkFixes::Moderate)]
    pub network_fixes: NetworkFixes,

    /// Give a card of the source another address, in the domain XML and in what the guest ties to it; without =NEW, tell the
    /// address of a card that the source does not describe; repeatable.
    #[arg(long, value_name = "SOURCE[=NEW]", value_parser = mac)]
    pub mac: Vec<String>,

    /// Put into the guest what this YAML or JSON file asks for: users, files, services, scripts, network, cloud-init; repeatable.
    #[arg(long, value_name = "FILE")]
    pub config: Vec<PathBuf>,

    /// Give the guest this host name.
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<String>,

    /// Let the public key in this file in as a user of the guest (who is made if need be); repeatable.
    #[arg(long, value_name = "USER:file:PATH", value_parser = given)]
    pub ssh_key: Vec<Given>,

    /// Set a user's password to the hash in this file (`openssl passwd -6` makes one); repeatable.
    #[arg(long, value_name = "USER:file:PATH", value_parser = given)]
    pub password_hash: Vec<Given>,

    /// Run this script once, at the guest's first boot; repeatable.
    #[arg(long, value_name = "FILE")]
    pub first_boot: Vec<PathBuf>,

    /// Give the guest's cloud-init this user-data, as a seed of NoCloud.
    #[arg(long, value_name = "FILE")]
    pub cloud_init: Option<PathBuf>,

    /// Install the QEMU guest agent at the guest's first boot: from the guest's own repositories, or this package of its kind
    /// (.deb, .rpm, .apk, .pkg.tar.zst).
    #[arg(long, value_name = "install|PACKAGE")]
    pub guest_agent: Option<String>,
}

/// A file of the user's, and whose it is in the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    user: String,
    path: PathBuf,
}

/// Reads `USER:file:PATH` or `USER:fd:N`.
fn given(text: &str) -> Result<Given, String> {
    let wrong = || "expected USER:file:PATH or USER:fd:N; what is in it is never an argument".to_owned();
    let (user, path) = match (text.split_once(":file:"), text.split_once(":fd:")) {
        (Some((user, path)), _) => (user, PathBuf::from(path)),
        (None, Some((user, number))) => {
            let number: u32 = number.parse().map_err(|_| wrong())?;
            (user, PathBuf::from(format!("/dev/fd/{number}")))
        }
        (None, None) => return Err(wrong()),
    };
    let is_empty = user.is_empty() || path.as_os_str().is_empty();
    if is_empty { Err(wrong()) } else { Ok(Given { user: user.to_owned(), path }) }
}

/// How far the network's configuration is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum NetworkFixes {
    /// Add files that keep the names of cards, and edit none but for --mac.
    Conservative,
    /// Edit also what would match no card on KVM: drivers, places on the PCI bus.
    Moderate,
    /// Remove also what is tied to an address that no card of the machine has.
    Aggressive,
}

/// The user of that name, asked for already or from now on.
fn user<'a>(injection: &'a mut Injection, name: &str) -> &'a mut NewUser {
    let users = &mut injection.users;
    let place = users.iter().position(|user| user.name == name).unwrap_or_else(|| {
        users.push(NewUser { name: name.to_owned(), ..NewUser::default() });
        users.len() - 1
    });
    &mut users[place]
}

/// A file that is put into the guest, or says what is.
#[allow(clippy::disallowed_methods, reason = "a file of the user's, and no disk image")]
fn read(path: &Path) -> crate::error::Result<Vec<u8>> {
    let file = File::open(path).map_err(|e| Error::unreadable("opening a file to put into the guest", e).path(path))?;
    let mut content = Vec::new();
    file.take(limits::MAX_INJECTED_FILE + 1)
        .read_to_end(&mut content)
        .map_err(|e| Error::unreadable("reading a file to put into the guest", e).path(path))?;
    if content.len() as u64 > limits::MAX_INJECTED_FILE {
        return Err(Error::limit("inject.size", "a file is larger than any that is put into a guest")
            .path(path)
            .expected(format!("at most {} bytes", limits::MAX_INJECTED_FILE)));
    }
    Ok(content)
}

fn mac(text: &str) -> Result<String, String> {
    MacMap::default().add(text).map(|()| text.to_owned())
}

impl FixArgs {
    /// What is wanted.
    ///
    /// # Errors
    /// `usage.mac` when two cards have one address.
    pub fn options(&self) -> crate::error::Result<Options> {
        let mut options = Options {
            network: match self.network_fixes {
                NetworkFixes::Conservative => NetworkLevel::Conservative,
                NetworkFixes::Moderate => NetworkLevel::Moderate,
                NetworkFixes::Aggressive => NetworkLevel::Aggressive,
            },
            ..Options::default()
        };
        for text in &self.mac {
            options
                .macs
                .add(text)
                .map_err(|why| Error::new(Kind::Usage, "usage.mac", "--mac cannot be followed").found(why))?;
        }
        options.inject = self.injection()?;
        Ok(options)
    }

    /// What is put into the guest: what configurations ask for, then what options add.
    fn injection(&self) -> crate::error::Result<Injection> {
        let mut injection = Injection::default();
        for path in &self.config {
            let text = String::from_utf8_lossy(&read(path)?).into_owned();
            let dir = path.parent().unwrap_or(Path::new(""));
            let mut read_beside = |name: &str| read(&dir.join(name));
            injection.add_config(&text, &mut read_beside).map_err(|error| error.path(path))?;
        }
        injection.hostname = self.hostname.clone().or(injection.hostname);
        for given in &self.ssh_key {
            user(&mut injection, &given.user).ssh_keys.extend(key_lines(&read(&given.path)?));
        }
        for given in &self.password_hash {
            let hash = PasswordHash::parse(&read(&given.path)?).map_err(|error| error.path(&given.path))?;
            user(&mut injection, &given.user).password = Some(hash);
        }
        for path in &self.first_boot {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            injection.first_boot.push(Script { name, content: read(path)? });
        }
        if let Some(agent) = &self.guest_agent {
            injection.guest_agent = Some(GuestAgent::parse(agent, &mut |path| read(Path::new(path)))?);
        }
        if let Some(path) = &self.cloud_init {
            let user_data = read(path)?;
            injection.cloud_init = Some(CloudInit::Seed { user_data, meta_data: None, network_config: None });
        }
        Ok(injection)
    }
}

/// Plan options.
#[derive(Args, Clone, Debug)]
pub struct PlanArgs {
    /// The machine.
    #[command(flatten)]
    pub guest: super::GuestArgs,

    /// What is wanted of the fixes.
    #[command(flatten)]
    pub fixes: FixArgs,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_named_and_never_given() {
        let of = |user: &str, path: &str| Given { user: user.to_owned(), path: path.into() };
        assert_eq!(given("a:file:/b:c").unwrap(), of("a", "/b:c"));
        assert_eq!(given("a:fd:3").unwrap(), of("a", "/dev/fd/3"));
        for bad in ["", "a", "a:file:", ":file:b", "a:fd:x", "a:$6$x$y", "a:secret"] {
            assert!(given(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_file_is_as_large_as_the_limit_and_no_larger() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        for (size, fits) in [
            (limits::MAX_INJECTED_FILE - 1, true),
            (limits::MAX_INJECTED_FILE, true),
            (limits::MAX_INJECTED_FILE + 1, false),
        ] {
            File::create(&path).unwrap().set_len(size).unwrap();
            assert_eq!(read(&path).is_ok(), fits, "{size}");
        }
    }
}
