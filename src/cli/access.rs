//! What lets us in at remote sources: read from files, descriptors and the environment, never from the command line.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::args::remote::RemoteArgs;
use super::terminal;
use crate::error::{Error, Kind, Result};
use crate::limits;
use crate::session::{Access, Asked, ObjectAccess, Patience, Secret, SshAccess, VARIABLES};

/// Reads all that the flags and the environment name.
///
/// # Errors
/// `http.login` for a file that cannot be read, `cache.folder` for a folder that cannot be made.
pub(super) fn read(args: &RemoteArgs) -> Result<Access> {
    args.cache_dir.as_deref().map(crate::cache::make_folder).transpose()?;
    let silence = Duration::from_secs(args.net_timeout.into());
    let patience = Patience { silence, retries: args.net_retries, ..Patience::default() };
    let identity = match (&args.client_cert, &args.client_key) {
        (Some(chain), Some(key)) => Some((file(chain)?, Secret::new(file(key)?))),
        _ => None,
    };
    let [password, token, cookie, ..] = VARIABLES;
    Ok(Access {
        user: args.login.clone(),
        password: secret(args.password_file.as_ref(), args.password_fd, password)?,
        token: secret(args.token_file.as_ref(), args.token_fd, token)?,
        cookie: secret(args.cookie_file.as_ref(), None, cookie)?,
        netrc: args.netrc_file.as_deref().map(file).transpose()?.map(Secret::new),
        authorities: args.cacert.as_deref().map_or_else(|| Ok(Vec::new()), file)?,
        thumbprints: args.thumbprint.clone(),
        identity,
        objects: objects(args),
        ssh: ssh(args)?,
        patience,
        blocks: args.cache_dir.clone(),
        asked: terminal::person().map(Asked::of).unwrap_or_default(),
    })
}

/// What the variables of the clouds' own programs begin with, and those that they share.
const CLOUD_VARIABLES: [&str; 6] = ["AWS_", "AZURE_", "GOOGLE_", "HOME", "STORAGE_EMULATOR_HOST", "XDG_CONFIG_HOME"];

fn objects(args: &RemoteArgs) -> ObjectAccess {
    let of_clouds = |name: &String| CLOUD_VARIABLES.iter().any(|start| name.starts_with(start));
    let variables = std::env::vars_os().filter_map(|(name, value)| {
        let name = name.into_string().ok().filter(of_clouds)?;
        let value = std::os::unix::ffi::OsStringExt::into_vec(value);
        (!value.is_empty()).then(|| (name, Secret::new(value)))
    });
    ObjectAccess {
        variables: variables.collect(),
        home: std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from),
        endpoint: args.endpoint_url.clone(),
        addressing: args.s3_addressing.into(),
        anonymous: args.anonymous,
        instance: args.instance_credentials,
    }
}

fn ssh(args: &RemoteArgs) -> Result<SshAccess> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let home = variable("HOME").map(PathBuf::from);
    let local_user =
        ["USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok().filter(|name| !name.is_empty()));
    let is_root = rustix::process::getuid().is_root();
    let of_user = home.iter().map(|home| home.join(".ssh/config"));
    let [_, _, _, passphrase, ..] = VARIABLES;
    Ok(SshAccess {
        configs: of_user.chain([PathBuf::from("/etc/ssh/ssh_config")]).collect(),
        home,
        local_user: local_user.unwrap_or_else(|| if is_root { "root" } else { "nobody" }.to_owned()),
        config: args.ssh_config.clone(),
        keys: args.ssh_identity.clone(),
        passphrase: secret(args.passphrase_file.as_ref(), args.passphrase_fd, passphrase)?,
        agent: variable("SSH_AUTH_SOCK").map(PathBuf::from),
        known_hosts: args.ssh_known_hosts.clone(),
        host_keys: args.ssh_host_key.clone(),
        jump: args.ssh_jump.clone(),
        program: args.ssh_program.clone(),
    })
}

/// A secret from where the user says, or from the variable `name`: one line without its end.
fn secret(path: Option<&PathBuf>, fd: Option<u32>, name: &str) -> Result<Option<Secret>> {
    let path = path.cloned().or_else(|| fd.map(|number| PathBuf::from(format!("/dev/fd/{number}"))));
    let mut bytes = match path {
        Some(path) => file(&path)?,
        None => match std::env::var_os(name).filter(|value| !value.is_empty()) {
            Some(value) => std::os::unix::ffi::OsStringExt::into_vec(value),
            None => return Ok(None),
        },
    };
    if bytes.ends_with(b"\n") {
        bytes.pop();
    }
    if bytes.ends_with(b"\r") {
        bytes.pop();
    }
    Ok(Some(Secret::new(bytes)))
}

#[allow(clippy::disallowed_methods, reason = "credentials are files of the user's, and no disk images")]
fn file(path: &Path) -> Result<Vec<u8>> {
    let wrong = |what: &str| Error::new(Kind::Usage, "http.login", what).path(path);
    let unreadable = |error| wrong("a file with credentials cannot be read").because(error);
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(limits::MAX_CREDENTIAL_FILE + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > limits::MAX_CREDENTIAL_FILE {
        return Err(wrong("a file with credentials is larger than any can be")
            .expected(format!("at most {} bytes", limits::MAX_CREDENTIAL_FILE)));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_len(len: u64) -> Result<Vec<u8>> {
        let found = tempfile::NamedTempFile::new().unwrap();
        found.as_file().set_len(len).unwrap();
        file(found.path())
    }

    #[test]
    fn files_are_bounded() {
        assert!(of_len(limits::MAX_CREDENTIAL_FILE - 1).is_ok());
        assert!(of_len(limits::MAX_CREDENTIAL_FILE).is_ok());
        assert_eq!(of_len(limits::MAX_CREDENTIAL_FILE + 1).unwrap_err().code(), "http.login");
        assert_eq!(file(Path::new("/nowhere/at/all")).unwrap_err().code(), "http.login");
    }

    #[test]
    fn a_secret_is_a_line() {
        let found = tempfile::NamedTempFile::new().unwrap();
        for (text, expected) in [("a b\r\n", "a b"), ("a", "a"), ("a\n\n", "a\n")] {
            std::fs::write(found.path(), text).unwrap();
            let secret = secret(Some(&found.path().to_owned()), None, "NO_SUCH_VARIABLE").unwrap().unwrap();
            assert_eq!(secret.expose(), expected.as_bytes());
        }
        assert!(secret(None, None, "NO_SUCH_VARIABLE").unwrap().is_none());
    }
}
