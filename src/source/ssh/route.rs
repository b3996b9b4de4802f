//! Which hosts to go through, as whom, and by which files: from the address, the flags and the configuration of OpenSSH.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::super::location::{Address, unescape_bytes};
use super::config::{self, Asker, Options, Proxy};
use super::hosts;
use crate::error::{Error, Kind, Result};
use crate::limits;
use crate::session::{Access, SshAccess};

/// A host on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hop {
    /// Its name as the user knows it.
    pub(super) name: String,
    /// Where it is.
    pub(super) host: String,
    pub(super) port: u16,
    /// Who we are there.
    pub(super) user: String,
    /// What files of known hosts call it.
    pub(super) known_as: String,
    /// Those files.
    pub(super) known_hosts: Vec<PathBuf>,
    /// Files with private keys; those that the user named must be there.
    pub(super) keys: Vec<PathBuf>,
    pub(super) keys_must_be: bool,
    /// The socket of an agent.
    pub(super) agent: Option<PathBuf>,
    /// Whether only the agent's keys that also lie in `keys` are shown.
    pub(super) only_these: bool,
    pub(super) use_keys: bool,
    pub(super) use_password: bool,
}

/// Names of private keys in `~/.ssh`, the newest kind first.
const KEYS: [&str; 3] = ["id_ed25519", "id_ecdsa", "id_rsa"];

/// The parts of an address of a file on an SSH server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    user: Option<String>,
    host: String,
    port: Option<u16>,
    /// What the server is asked for: a path from its root, or from the user's home.
    pub(super) path: Vec<u8>,
}

impl Place {
    /// # Errors
    /// `source.address` for what names no file on a host.
    pub(super) fn of(address: &Address) -> Result<Self> {
        let wrong = |what: &str| {
            Error::new(Kind::Usage, "source.address", "this is not the address of a file on an SSH server")
                .found(what)
                .expected("ssh://[USER@]HOST[:PORT]/PATH, or …/~/PATH below the user's home directory")
        };
        let url = address.url();
        if url.query().is_some() {
            return Err(wrong("a question mark, which is %3F in a path"));
        }
        let host = url.host_str().unwrap_or_default();
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let user = unescape_bytes(url.username());
        let user = String::from_utf8(user).ok().filter(|user| is_user(user) || user.is_empty());
        let user = user.ok_or_else(|| wrong("a user of that name"))?;
        let path = unescape_bytes(url.path());
        let path = match path.strip_prefix(b"/~/") {
            Some(below) => below.to_vec(),
            None => path,
        };
        if !is_host(host) {
            return Err(wrong("a host of that name"));
        }
        if path.is_empty() || path.ends_with(b"/") || path.contains(&0) || path.len() > limits::MAX_REFERENCE {
            return Err(wrong("no file"));
        }
        Ok(Self { user: Some(user).filter(|user| !user.is_empty()), host: host.to_owned(), port: url.port(), path })
    }

    /// Words for a program like OpenSSH's `ssh`, which has its own configuration, to open the server of files there.
    pub(super) fn words(&self, access: &Access) -> Vec<String> {
        let seconds = access.patience.silence.as_secs().max(1);
        let mut words =
            vec!["-oForwardX11=no".to_owned(), "-oForwardAgent=no".to_owned(), "-oPermitLocalCommand=no".to_owned()];
        words.extend(["-oClearAllForwardings=yes".to_owned(), "-oRequestTTY=no".to_owned()]);
        words.push(format!("-oConnectTimeout={}", access.patience.connect.as_secs().max(1)));
        words.push(format!("-oServerAliveInterval={seconds}"));
        let ssh = &access.ssh;
        let path = |path: &Path| path.display().to_string();
        words.extend(ssh.config.iter().flat_map(|config| ["-F".to_owned(), path(config)]));
        words.extend(ssh.keys.iter().flat_map(|key| ["-i".to_owned(), path(key)]));
        words.extend(ssh.jump.iter().flat_map(|jump| ["-J".to_owned(), jump.clone()]));
        words.extend(self.port.iter().flat_map(|port| ["-p".to_owned(), port.to_string()]));
        let user = self.user.as_ref().or(access.user.as_ref());
        words.extend(user.iter().flat_map(|user| ["-l".to_owned(), (*user).clone()]));
        words.extend(["-s".to_owned(), "--".to_owned(), self.host.clone(), "sftp".to_owned()]);
        words
    }
}

/// Whether a name can be that of a host, and nothing else: no option of a program, no pattern.
fn is_host(host: &str) -> bool {
    !host.is_empty()
        && host.len() <= 255
        && !host.starts_with('-')
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':'))
}

fn is_user(user: &str) -> bool {
    !user.is_empty() && !user.starts_with('-') && !user.chars().any(|c| c.is_control())
}

/// The hosts to go through to the one of `place`, which is the last.
///
/// # Errors
/// `ssh.config` for what the configuration says and is not done here.
pub(super) fn hops(place: &Place, access: &Access) -> Result<Vec<Hop>> {
    let user = place.user.clone().or_else(|| access.user.clone());
    let target = Named { user, host: place.host.clone(), port: place.port };
    let mut hops = Vec::new();
    way(&target, access.ssh.jump.as_deref(), &access.ssh, &mut hops)?;
    hops.reverse();
    Ok(hops)
}

/// A host as a user names it.
struct Named {
    user: Option<String>,
    host: String,
    port: Option<u16>,
}

/// Adds a host and those before it, in reverse.
fn way(target: &Named, jump: Option<&str>, ssh: &SshAccess, hops: &mut Vec<Hop>) -> Result<()> {
    if hops.len() >= limits::MAX_SSH_HOPS {
        return Err(wrong("there are too many hosts on the way, or they go round in a circle")
            .expected(format!("at most {}", limits::MAX_SSH_HOPS)));
    }
    let options = options(target, ssh)?;
    hops.push(hop(target, &options, ssh)?);
    let jump = match (jump.filter(|jump| !jump.eq_ignore_ascii_case("none")), &options.proxy) {
        (Some(jump), _) => jump,
        (None, Some(Proxy::Jump(jump))) => jump,
        (None, Some(Proxy::Command)) => {
            return Err(wrong("ProxyCommand: the host is reached by a program").at(&target.host));
        }
        (None, Some(Proxy::None) | None) => return Ok(()),
    };
    // The last one is the next to the target, and is itself reached through those before it.
    let (before, last) = jump.rsplit_once(',').map_or((None, jump), |(before, last)| (Some(before), last));
    way(&named(last)?, before, ssh, hops)
}

/// `[ssh://][USER@]HOST[:PORT]`.
fn named(text: &str) -> Result<Named> {
    let bad = || wrong("a host to go through that is none").expected("[USER@]HOST[:PORT]");
    let text = text.trim();
    let text = text.strip_prefix("ssh://").unwrap_or(text).trim_end_matches('/');
    let (user, rest) = text.rsplit_once('@').map_or((None, text), |(user, rest)| (Some(user), rest));
    let (host, port) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, port)) => (host, Some(port.strip_prefix(':').ok_or_else(bad)?)),
        None => match rest.split_once(':') {
            Some((host, port)) if !port.contains(':') => (host, Some(port)),
            _ => (rest, None),
        },
    };
    let port = port.map(|port| port.parse().ok().filter(|port| *port != 0).ok_or_else(bad)).transpose()?;
    let fits = is_host(host) && user.is_none_or(is_user);
    fits.then(|| Named { user: user.map(str::to_owned), host: host.to_owned(), port }).ok_or_else(bad)
}

/// What the configuration has for a host.
fn options(target: &Named, ssh: &SshAccess) -> Result<Options> {
    let mut options = Options::default();
    let asker = Asker { host: &target.host, user: target.user.as_deref(), local_user: &ssh.local_user };
    let paths: Vec<&PathBuf> = match &ssh.config {
        Some(path) => vec![path],
        None => ssh.configs.iter().collect(),
    };
    for path in paths {
        let text = match text(path) {
            Ok(text) => text,
            Err(error) if ssh.config.is_none() && error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(wrong("the file cannot be read").because(error).path(path)),
        };
        let folder = path.parent().unwrap_or(Path::new("/"));
        let mut include = |name: &str| included(name, folder, ssh);
        options.add(&text, &asker, &mut include).map_err(|error| error.path(path))?;
    }
    Ok(options)
}

/// The texts of the files that an `Include` names: relative ones lie beside the file, and the last part may be a pattern.
fn included(name: &str, folder: &Path, ssh: &SshAccess) -> Result<Vec<String>> {
    let name = config::expand(name, &home(ssh), &|_| None, &variable)?;
    let path = folder.join(name);
    let (Some(pattern), Some(parent)) = (path.file_name().and_then(|name| name.to_str()), path.parent()) else {
        return Ok(Vec::new());
    };
    let mut paths = BTreeSet::new();
    if pattern.contains(['*', '?']) {
        let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
        let fits = |name: &str| config::fits(pattern, name) && (!name.starts_with('.') || pattern.starts_with('.'));
        paths.extend(entries.filter(|entry| entry.file_name().to_str().is_some_and(fits)).map(|entry| entry.path()));
    } else {
        paths.insert(path);
    }
    // What is not there is left, as OpenSSH has it.
    Ok(paths.iter().filter_map(|path| text(path).ok()).collect())
}

fn hop(target: &Named, options: &Options, ssh: &SshAccess) -> Result<Hop> {
    let home = home(ssh);
    let user = target.user.as_ref().or(options.user.as_ref()).unwrap_or(&ssh.local_user);
    let token = |letter| match letter {
        'h' | 'n' => Some(target.host.clone()),
        _ => None,
    };
    let host = match &options.host_name {
        Some(name) => config::expand(name, &home, &token, &|_| None)?,
        None => target.host.clone(),
    };
    let port = target.port.or(options.port).unwrap_or(22);
    if !is_host(&host) {
        return Err(wrong("a name of a host that is none").at(&target.host));
    }
    if options.revoked_host_keys.as_deref().is_some_and(|value| !value.eq_ignore_ascii_case("none")) {
        return Err(wrong("RevokedHostKeys, which are not looked at here").at(&target.host));
    }
    let file = |value: &String| -> Result<PathBuf> {
        let token = |letter| match letter {
            'h' => Some(host.clone()),
            'n' => Some(target.host.clone()),
            'p' => Some(port.to_string()),
            'r' => Some(user.clone()),
            'u' => Some(ssh.local_user.clone()),
            'd' => Some(home.clone()),
            'k' => Some(options.host_key_alias.clone().unwrap_or_else(|| target.host.clone())),
            'i' => Some(rustix::process::getuid().as_raw().to_string()),
            _ => None,
        };
        config::expand(value, &home, &token, &variable).map(PathBuf::from)
    };
    let files = |values: &[String]| -> Result<Vec<PathBuf>> {
        values.iter().filter(|value| !value.eq_ignore_ascii_case("none")).map(file).collect()
    };
    let beneath = |names: &[&str]| -> Vec<PathBuf> {
        ssh.home.iter().flat_map(|home| names.iter().map(move |name| home.join(".ssh").join(name))).collect()
    };
    let mut known_hosts = ssh.known_hosts.clone();
    known_hosts.extend(match &options.user_known_hosts {
        Some(values) => files(values)?,
        None => beneath(&["known_hosts", "known_hosts2"]),
    });
    known_hosts.extend(match &options.global_known_hosts {
        Some(values) => files(values)?,
        None if ssh.home.is_some() => {
            ["known_hosts", "known_hosts2"].map(|name| PathBuf::from(format!("/etc/ssh/ssh_{name}"))).to_vec()
        }
        None => Vec::new(),
    });
    let keys_must_be = !ssh.keys.is_empty();
    let keys = if keys_must_be {
        ssh.keys.clone()
    } else if options.identity_files.is_empty() {
        beneath(&KEYS)
    } else {
        files(&options.identity_files)?
    };
    let agent = match options.identity_agent.as_deref() {
        None | Some("SSH_AUTH_SOCK") => ssh.agent.clone(),
        Some(value) if value.eq_ignore_ascii_case("none") => None,
        Some(value) => match value.strip_prefix('$').filter(|name| !name.starts_with('{')) {
            Some(name) => variable(name).map(PathBuf::from),
            None => Some(file(&value.to_owned())?),
        },
    };
    let known_as = match &options.host_key_alias {
        Some(alias) => alias.to_ascii_lowercase(),
        None => hosts::name(&host, port),
    };
    Ok(Hop {
        name: target.host.clone(),
        host,
        port,
        user: user.clone(),
        known_as,
        known_hosts,
        keys,
        keys_must_be,
        agent,
        only_these: keys_must_be || options.identities_only == Some(true),
        use_keys: options.public_key != Some(false),
        use_password: options.password != Some(false),
    })
}

fn home(ssh: &SshAccess) -> String {
    ssh.home.as_ref().map(|home| home.display().to_string()).unwrap_or_default()
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// What a file of the user's says.
#[allow(clippy::disallowed_methods, reason = "configuration and keys are files of the user's, and no disk images")]
pub(super) fn text(path: &Path) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limits::MAX_CREDENTIAL_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limits::MAX_CREDENTIAL_FILE {
        return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, "larger than any can be"));
    }
    Ok(String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

fn wrong(what: &str) -> Error {
    Error::new(Kind::Usage, "ssh.config", "the configuration of SSH cannot be used").found(what).hint(
        "name another file with --ssh-config (/dev/null is none), or let the system's ssh do it: --ssh-program ssh",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Result<Place> {
        Place::of(&Address::parse(text)?)
    }

    /// The way to `text` with this configuration.
    fn route(text: &str, config: &str, jump: Option<&str>) -> Result<Vec<Hop>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        std::fs::write(&path, config).unwrap();
        let ssh = SshAccess {
            home: Some("/home/me".into()),
            local_user: "me".to_owned(),
            config: Some(path),
            agent: Some("/agent".into()),
            jump: jump.map(str::to_owned),
            ..SshAccess::default()
        };
        hops(&place(text)?, &Access { ssh, ..Access::default() })
    }

    fn names(hops: &[Hop]) -> Vec<String> {
        hops.iter().map(|hop| format!("{}@{}:{}", hop.user, hop.host, hop.port)).collect()
    }

    #[test]
    fn addresses_name_a_file_on_a_host() {
        let found = place("ssh://a%40b@Store_1:2222/vms/a%20b%3F.vmdk").unwrap();
        assert_eq!((found.user.as_deref(), found.host.as_str(), found.port), (Some("a@b"), "Store_1", Some(2222)));
        assert_eq!(found.path, b"/vms/a b?.vmdk");
        assert_eq!(place("sftp://[::1]/~/x/%ff").unwrap().path, b"x/\xff");
        assert_eq!(place("sftp://[::1]/x").unwrap().host, "::1");
        for bad in [
            "ssh://h",
            "ssh://h/",
            "ssh://h/d/",
            "ssh://h/~/",
            "ssh://h/a%00b",
            "ssh://h/x?y",
            "ssh://-h/x",
            "ssh://-l@h/x",
            "ssh://h%20x/y",
            "ssh://a%0ab@h/x",
            "ssh://h*/x",
        ] {
            assert_eq!(place(bad).unwrap_err().code(), "source.address", "{bad}");
        }
        let words = place("ssh://u@h:7/x").unwrap().words(&Access::default()).join(" ");
        assert!(words.ends_with("-p 7 -l u -s -- h sftp"), "{words}");
    }

    #[test]
    fn hosts_are_found_and_gone_through() {
        let config =
            "Host a\n HostName a.example\n ProxyJump x@b:7,[::1]\nHost b\n ProxyJump c\n User bee\nHost *\n Port 44\n";
        assert_eq!(
            names(&route("ssh://u@a/x", config, None).unwrap()),
            ["me@c:44", "x@b:7", "me@::1:44", "u@a.example:44"]
        );
        assert_eq!(names(&route("ssh://a:1/x", config, Some("none")).unwrap()).len(), 4, "a flag cannot take it away");
        assert_eq!(names(&route("ssh://b/x", config, Some("d")).unwrap()), ["me@d:44", "bee@b:44"]);
        assert_eq!(names(&route("ssh://h/x", "", None).unwrap()), ["me@h:22"]);
        for (config, jump) in [
            ("ProxyCommand nc", None),
            ("RevokedHostKeys /x", None),
            ("HostName -x", None),
            ("HostName %z", None),
            ("ProxyJump a,,b", None),
            ("", Some("a:0")),
            ("", Some("-x")),
            ("", Some("a:b:c@")),
        ] {
            assert_eq!(route("ssh://h/x", config, jump).unwrap_err().code(), "ssh.config", "{config} {jump:?}");
        }
        assert_eq!(limits::MAX_SSH_HOPS, 8);
        for count in [limits::MAX_SSH_HOPS - 1, limits::MAX_SSH_HOPS, limits::MAX_SSH_HOPS + 1] {
            let jump = vec!["j"; count - 1].join(",");
            assert_eq!(route("ssh://h/x", "", Some(&jump)).is_ok(), count <= limits::MAX_SSH_HOPS, "{count}");
        }
        assert_eq!(
            route("ssh://a/x", "Host a\nProxyJump b\nHost b\nProxyJump a\n", None).unwrap_err().code(),
            "ssh.config"
        );
    }

    #[test]
    fn files_are_those_of_the_configuration() {
        let paths = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        let found = route("ssh://h:2/x", "", None).unwrap().remove(0);
        assert_eq!(found.keys, KEYS.map(|name| Path::new("/home/me/.ssh").join(name)));
        assert_eq!((found.known_as.as_str(), found.known_hosts.len(), found.only_these), ("[h]:2", 4, false));
        let config = "HostName H\nHostKeyAlias Alias\nIdentityFile ~/%r-%h\nIdentitiesOnly yes\nUserKnownHostsFile ~/a %d/b\n\
                      GlobalKnownHostsFile none\nIdentityAgent none\nPubkeyAuthentication no\nPasswordAuthentication no\n";
        let found = route("ssh://u@h/x", config, None).unwrap().remove(0);
        assert_eq!(found.keys, paths(&["/home/me/u-H"]));
        assert_eq!(found.known_hosts, paths(&["/home/me/a", "/home/me/b"]));
        assert_eq!((found.known_as.as_str(), found.agent), ("alias", None));
        assert!(found.only_these && !found.use_keys && !found.use_password && !found.keys_must_be);
        let found = route("ssh://h/x", "IdentityAgent ~/s\n", None).unwrap().remove(0);
        assert_eq!(found.agent.as_deref(), Some(Path::new("/home/me/s")));
    }

    #[test]
    fn includes_are_read_beside_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        for (name, port) in [("b.conf", 2), ("a.conf", 1), (".c.conf", 3), ("a.txt", 4)] {
            write(name, &format!("Port {port}\n"));
        }
        let ssh = SshAccess::default();
        let texts = |name: &str| included(name, folder.path(), &ssh).unwrap();
        assert_eq!(texts("*.conf"), ["Port 1\n", "Port 2\n"]);
        assert_eq!(texts("a.txt"), ["Port 4\n"]);
        assert!(texts("none").is_empty() && texts("none/*").is_empty() && texts("..").is_empty());
    }
}
