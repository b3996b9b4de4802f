//! What the user named: a file of this host, or an address on another one.

use std::fmt;
use std::path::{Path, PathBuf};

use reqwest::Url;

use super::reference::Reference;
use crate::error::{Error, Kind, Result};

/// Parameters of an address that name a thing and grant nothing: those of vSphere's datastore URLs.
const PLAIN_PARAMETERS: [&str; 2] = ["dcPath", "dsName"];

/// A source as the user named it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A file or block device of this host.
    Path(PathBuf),
    /// A file on another machine.
    Remote(Address),
}

impl Location {
    /// Takes a name that the user gave: what begins with `SCHEME://` is an address, everything else a path.
    ///
    /// # Errors
    /// `source.scheme` for a scheme that is not read, `source.address` for an address that is none, `source.secret` for one
    /// with a password in it.
    pub fn parse(name: &str) -> Result<Self> {
        match scheme(name) {
            None => Ok(Self::Path(PathBuf::from(name))),
            Some(scheme) if Protocol::of(scheme).is_some() => Address::parse(name).map(Self::Remote),
            Some(other) => Err(Error::unsupported("source.scheme", "sources of this kind are not read")
                .found(format!("{other}://"))
                .expected(
                    "a path, http://, https://, s3://, gs://, azblob://, ssh://, sftp://, nbd://, nbds://, nbd+unix:// or \
                     nbds+unix://",
                )
                .hint("name a file by its path; ./NAME is one in any case")),
        }
    }

    /// The path on this host, if it is one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Path(path) => Some(path),
            Self::Remote(_) => None,
        }
    }

    /// The name of the file, without its directory.
    #[must_use]
    pub fn file_name(&self) -> String {
        match self {
            Self::Path(path) => path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned(),
            Self::Remote(address) => address.file_name(),
        }
    }

    /// The name of the file without its last suffix.
    #[must_use]
    pub fn stem(&self) -> Option<String> {
        let name = self.file_name();
        Path::new(&name).file_stem().map(|stem| stem.to_string_lossy().into_owned())
    }
}

impl From<&Path> for Location {
    fn from(path: &Path) -> Self {
        Self::Path(path.to_owned())
    }
}

impl From<&PathBuf> for Location {
    fn from(path: &PathBuf) -> Self {
        Self::Path(path.clone())
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Remote(address) => address.fmt(f),
        }
    }
}

/// The scheme of a name that begins like an address.
#[must_use]
fn scheme(name: &str) -> Option<&str> {
    let (scheme, _) = name.split_once("://")?;
    let mut bytes = scheme.bytes();
    let is_scheme = bytes.next().is_some_and(|first| first.is_ascii_alphabetic())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    is_scheme.then_some(scheme)
}

/// How files on another machine are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// As a blob of Azure.
    Azure,
    /// As an object of Google Cloud Storage.
    Google,
    /// By requests to a web server.
    Http,
    /// By a client of an NBD server, which has exports instead of files.
    Nbd,
    /// As an object of S3, or of a store that speaks like it.
    S3,
    /// Through SFTP on an SSH server.
    Ssh,
}

impl Protocol {
    /// The one of a scheme, in lower case or upper case.
    #[must_use]
    pub fn of(scheme: &str) -> Option<Self> {
        match scheme.to_ascii_lowercase().as_str() {
            "azblob" => Some(Self::Azure),
            "gs" => Some(Self::Google),
            "http" | "https" => Some(Self::Http),
            "nbd" | "nbds" | "nbd+unix" | "nbds+unix" => Some(Self::Nbd),
            "s3" => Some(Self::S3),
            "ssh" | "sftp" => Some(Self::Ssh),
            _ => None,
        }
    }

    /// The parameters that an object's address may have: they name one state of it. Nothing for other files.
    const fn versions(self) -> Option<&'static [&'static str]> {
        match self {
            Self::Azure => Some(&["snapshot", "versionid"]),
            Self::Google => Some(&["generation"]),
            Self::S3 => Some(&["versionId"]),
            Self::Http | Self::Nbd | Self::Ssh => None,
        }
    }
}

/// An address of a file on another machine. Neither `Display` nor `Debug` shows what could let someone else in: user information and
/// the values of parameters.
#[derive(Clone, PartialEq, Eq)]
pub struct Address(Url);

impl Address {
    /// Reads an address.
    ///
    /// # Errors
    /// As [`Location::parse`].
    pub fn parse(text: &str) -> Result<Self> {
        let mut url = Url::parse(text).map_err(|_| invalid())?;
        if url.password().is_some() {
            return Err(Error::new(Kind::Usage, "source.secret", "a password does not belong into an address").hint(
                "leave it out, and give it with --password-file, --password-fd, a netrc file or HYPER2KVM_PASSWORD",
            ));
        }
        let protocol = Protocol::of(url.scheme());
        if protocol == Some(Protocol::Nbd) {
            check_nbd(&url)?;
        } else if let Some(versions) = protocol.and_then(Protocol::versions) {
            check_object(&url, versions)?;
        } else if url.host_str().is_none_or(str::is_empty) {
            return Err(invalid());
        }
        url.set_fragment(None);
        Ok(Self(url))
    }

    /// How the file is read.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        Protocol::of(self.0.scheme()).unwrap_or(Protocol::Http)
    }

    /// The address itself, for the one who sends the request.
    pub(super) const fn url(&self) -> &Url {
        &self.0
    }

    /// The address of a file beside this one: the same with another last segment. Parameters stay where they name the place
    /// (vSphere's datastores), and not where they grant access to this one file.
    ///
    /// # Errors
    /// `reference.refused` for anything but a plain name.
    pub fn beside(&self, reference: &Reference) -> Result<Self> {
        let refused = || {
            Error::refused("reference.refused", "the image refers to a file that it may not name")
                .at(reference)
                .expected("a plain name of a file in the image's own directory")
        };
        let name = std::str::from_utf8(&reference.name).ok().filter(|_| reference.is_plain()).ok_or_else(refused)?;
        self.replace_last(name).ok_or_else(refused)
    }

    /// The address of `rest` beneath this one, which is taken for a directory. `rest` only goes down.
    #[must_use]
    pub fn beneath(&self, rest: &str) -> Option<Self> {
        let mut url = self.0.clone();
        let parts = rest.split('/').filter(|part| !part.is_empty());
        let mut segments = url.path_segments_mut().ok()?;
        segments.pop_if_empty();
        for part in parts {
            if matches!(part, "." | "..") {
                return None;
            }
            segments.push(part);
        }
        drop(segments);
        Some(Self(url))
    }

    fn replace_last(&self, name: &str) -> Option<Self> {
        let mut url = self.0.clone();
        url.path_segments_mut().ok()?.pop().push(name);
        // Versions are those of one object.
        if !self.has_plain_parameters() || self.protocol().versions().is_some() {
            url.set_query(None);
        }
        Some(Self(url))
    }

    /// Whether the parameters only say where the file is, and grant nothing.
    fn has_plain_parameters(&self) -> bool {
        if self.protocol() == Protocol::Nbd || self.protocol().versions().is_some() {
            return true;
        }
        let mut pairs = self.0.query_pairs();
        self.0.query().is_some() && pairs.all(|(key, _)| PLAIN_PARAMETERS.contains(&&*key))
    }

    /// The last segment of the path, with percent escapes resolved.
    #[must_use]
    pub fn file_name(&self) -> String {
        let segments = self.0.path_segments();
        let last = segments.and_then(|mut segments| segments.rfind(|part| !part.is_empty())).unwrap_or_default();
        let name = unescape(last);
        let host = || self.0.host_str().filter(|host| !host.is_empty()).unwrap_or("disk").to_owned();
        if name.is_empty() { host() } else { name }
    }
}

/// Refuses what is no NBD URI.
fn check_nbd(url: &Url) -> Result<()> {
    let psk = url.query_pairs().any(|(name, _)| name.starts_with("tls-psk"));
    if psk || url.scheme().starts_with("nbds") && !url.username().is_empty() {
        return Err(Error::unsupported(
            "nbd.tls",
            "keys that both sides know (PSK) are not supported for NBD over TLS",
        )
        .hint("use certificates: --cacert or --thumbprint, and --client-cert with --client-key"));
    }
    let uri: std::result::Result<hyper2kvm_nbd::client::Uri, _> = url.as_str().parse();
    uri.map(drop).map_err(|error| {
        // Such an address has no secret in it.
        Error::new(Kind::Usage, "source.address", error.to_string())
            .expected("nbd://HOST[:PORT]/EXPORT or nbd+unix:///EXPORT?socket=PATH")
    })
}

/// Refuses what is no object's address: the bucket has a plain name, and nothing but a version is said beside it.
fn check_object(url: &Url, versions: &[&str]) -> Result<()> {
    let bucket = url.host_str().unwrap_or_default();
    let is_name = bucket.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
    let has_name = is_name && !bucket.trim_matches('.').is_empty();
    let is_plain = url.username().is_empty() && url.port().is_none();
    if has_name && is_plain && url.query_pairs().all(|(name, _)| versions.contains(&&*name)) {
        return Ok(());
    }
    Err(invalid().expected(match url.scheme() {
        "azblob" => "azblob://ACCOUNT/CONTAINER/BLOB[?snapshot=TIME]",
        "gs" => "gs://BUCKET/OBJECT[?generation=NUMBER]",
        _ => "s3://BUCKET/KEY[?versionId=ID]",
    }))
}

fn invalid() -> Error {
    // The text may hold a secret, so it is not shown.
    Error::new(Kind::Usage, "source.address", "this is not the address of a file on another machine")
        .expected("SCHEME://HOST/PATH")
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = &self.0;
        write!(f, "{}://{}", url.scheme(), url.host_str().unwrap_or_default())?;
        if let Some(port) = url.port() {
            write!(f, ":{port}")?;
        }
        f.write_str(url.path())?;
        match url.query() {
            Some(query) if self.has_plain_parameters() => write!(f, "?{query}"),
            Some(_) => f.write_str("?…"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Resolves percent escapes; what is no escape, or no UTF-8, stays or is replaced.
pub(super) fn unescape(text: &str) -> String {
    String::from_utf8_lossy(&unescape_bytes(text)).into_owned()
}

/// Resolves percent escapes; what is no escape stays.
pub(super) fn unescape_bytes(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let digits = text.get(at + 1..at + 3).filter(|pair| pair.bytes().all(|b| b.is_ascii_hexdigit()));
        let escaped = digits.filter(|_| *byte == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok());
        out.push(escaped.unwrap_or(*byte));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Role;

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    #[test]
    fn paths_addresses_and_what_is_not_read() {
        assert_eq!(Location::parse("a/b.vmdk").unwrap(), Location::Path("a/b.vmdk".into()));
        assert_eq!(Location::parse("C:\\x").unwrap(), Location::Path("C:\\x".into()));
        assert_eq!(Location::parse("./http:/x").unwrap(), Location::Path("./http:/x".into()));
        assert!(matches!(Location::parse("https://h/x").unwrap(), Location::Remote(_)));
        for (text, code) in [
            ("ftp://h/x", "source.scheme"),
            ("nbd+unix://x", "source.address"),
            ("nbd://h/x?unknown=1", "source.address"),
            ("nbd://user@h/x", "source.address"),
            ("nbds://user@h/x?tls-psk-file=/k", "nbd.tls"),
            ("file:///etc/passwd", "source.scheme"),
            ("http://", "source.address"),
            ("https://h:99999/x", "source.address"),
            ("https://user:canary@h/x", "source.secret"),
            ("s3://key:canary@b/k", "source.secret"),
            ("s3://canary@b/k", "source.address"),
            ("s3://b:80/k", "source.address"),
            ("s3://b%2Fevil/k", "source.address"),
            ("s3:///k", "source.address"),
            ("s3://../k", "source.address"),
            ("azblob://a/c/b?sv=1&sig=canary", "source.address"),
            ("gs://b/o?alt=media", "source.address"),
        ] {
            let error = Location::parse(text).unwrap_err();
            assert_eq!(error.code(), code, "{text}");
            assert!(!error.to_json().to_string().contains("canary"));
        }
    }

    #[test]
    fn secrets_of_an_address_are_never_shown() {
        let signed = address("https://me@host:8443/d/a%20b.vmdk?X-Amz-Signature=canary&x=1#2");
        assert_eq!(signed.to_string(), "https://host:8443/d/a%20b.vmdk?…");
        assert_eq!(format!("{signed:?}"), signed.to_string());
        let version = "s3://b.1/d/a%20b.raw?versionId=7";
        assert_eq!(address(version).to_string(), version);
        let folder = address("https://esx/folder/vm/a.vmdk?dcPath=ha-datacenter&dsName=store%201");
        let socket = "nbd+unix:///disk?socket=/run/a%20b&tls-hostname=h";
        assert_eq!(address(socket).to_string(), socket);
        assert!(folder.to_string().ends_with("?dcPath=ha-datacenter&dsName=store%201"));
    }

    #[test]
    fn names_and_stems() {
        for (text, name, stem) in [
            ("http://h/d/guest%20one.vmdk?x=a.b", "guest one.vmdk", "guest one"),
            ("http://h/d/", "d", "d"),
            ("http://host", "host", "host"),
            ("http://h/%zz%4", "%zz%4", "%zz%4"),
            ("nbd://h:10/d/a%20b.raw", "a b.raw", "a b"),
            ("nbd+unix:///?socket=/run/s", "disk", "disk"),
        ] {
            let location = Location::parse(text).unwrap();
            assert_eq!((location.file_name().as_str(), location.stem().as_deref()), (name, Some(stem)));
        }
    }

    #[test]
    fn neighbours_lie_in_the_same_directory() {
        let open = |base: &str, name: &[u8]| {
            address(base).beside(&Reference::new(name, Role::Extent)).map(|found| found.url().to_string())
        };
        assert_eq!(open("http://h/d/a.vmdk?sig=1", b"a b?c#.vmdk").unwrap(), "http://h/d/a%20b%3Fc%23.vmdk");
        let folder = "https://esx/folder/vm/a.vmdk?dcPath=dc&dsName=ds";
        assert_eq!(open(folder, b"b.vmdk").unwrap(), "https://esx/folder/vm/b.vmdk?dcPath=dc&dsName=ds");
        for name in [&b"../x"[..], b"/etc/passwd", b"http://other/x", b"..", b"", b"\xff", b"a\\b"] {
            assert_eq!(open("http://h/d/a.vmdk", name).unwrap_err().code(), "reference.refused");
        }
        assert_eq!(open("nbd://h/d/a.vmdk", b"b c.vmdk").unwrap(), "nbd://h/d/b%20c.vmdk");
        assert_eq!(open("azblob://a/c/d/x.vmdk?snapshot=1", b"y z.vmdk").unwrap(), "azblob://a/c/d/y%20z.vmdk");
        assert_eq!(open("nbd+unix:///a?socket=/s", b"b").unwrap(), "nbd+unix:///b?socket=/s");
        let beneath = |rest| address("http://h/d/").beneath(rest).map(|found| found.url().to_string());
        assert_eq!(beneath("/e/f.vmdk").as_deref(), Some("http://h/d/e/f.vmdk"));
        assert_eq!(beneath("e/../../f"), None);
    }
}
