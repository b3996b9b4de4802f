//! NBD URIs: <https://github.com/NetworkBlockDevice/nbd/blob/master/doc/uri.md>.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::str::FromStr;

use super::error::{Error, Kind};
use crate::limits::MAX_STRING;

/// The port of `nbd://` URIs without one.
pub const DEFAULT_PORT: u16 = 10809;

/// Where an export is: `nbd://HOST[:PORT]/EXPORT` or `nbd+unix:///EXPORT?socket=PATH`, with `nbds` for TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uri {
    /// How to get to the server.
    pub transport: Transport,
    /// The export's name; empty for the default one.
    pub export: String,
    /// Whether TLS is a must.
    pub tls: bool,
    /// `tls-certificates`: the folder of [`crate::TlsClient::from_folder`].
    pub certificates: Option<PathBuf>,
    /// `tls-hostname`: what the server's certificate must be for, if not for the host.
    pub server_name: Option<String>,
}

/// How to get to a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A name or an address, and a port.
    Tcp(String, u16),
    /// The path of a socket.
    Unix(PathBuf),
}

impl FromStr for Uri {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (scheme, rest) = text.split_once("://").ok_or_else(|| wrong("it has no scheme such as nbd://"))?;
        let (tls, unix) = match scheme {
            "nbd" => (false, false),
            "nbds" => (true, false),
            "nbd+unix" => (false, true),
            "nbds+unix" => (true, true),
            _ => return Err(wrong("the scheme is none of nbd, nbds, nbd+unix and nbds+unix")),
        };
        if rest.contains('#') {
            return Err(wrong("it has a fragment"));
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, export) = rest.split_once('/').unwrap_or((rest, ""));
        let export = String::from_utf8(decode(export)?).map_err(|_| wrong("the export's name is not UTF-8"))?;
        if export.len() > MAX_STRING || export.contains('\0') {
            return Err(wrong("the export's name is longer than 4096 bytes or contains NUL"));
        }
        let parameters = Parameters::parse(query)?;
        let transport = match (unix, parameters.socket) {
            (true, Some(socket)) if authority.is_empty() => Transport::Unix(socket),
            (true, Some(_)) => return Err(wrong("a Unix socket has no host; write nbd+unix:///EXPORT?socket=PATH")),
            (true, None) => return Err(wrong("a Unix socket needs ?socket=PATH")),
            (false, Some(_)) => return Err(wrong("socket= belongs to nbd+unix://")),
            (false, None) => tcp(authority)?,
        };
        let (certificates, server_name) = (parameters.certificates, parameters.server_name);
        Ok(Self { transport, export, tls, certificates, server_name })
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

#[derive(Default)]
struct Parameters {
    socket: Option<PathBuf>,
    certificates: Option<PathBuf>,
    server_name: Option<String>,
}

impl Parameters {
    fn parse(query: &str) -> Result<Self, Error> {
        let mut parameters = Self::default();
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let value = decode(value)?;
            if value.is_empty() || value.contains(&0) {
                return Err(wrong("a parameter is empty or contains NUL"));
            }
            let path = |value| Some(PathBuf::from(OsString::from_vec(value)));
            match name {
                "socket" if parameters.socket.is_none() => parameters.socket = path(value),
                "tls-certificates" if parameters.certificates.is_none() => parameters.certificates = path(value),
                "tls-hostname" if parameters.server_name.is_none() => {
                    let name = String::from_utf8(value).map_err(|_| wrong("tls-hostname is not UTF-8"))?;
                    parameters.server_name = Some(name);
                }
                _ => return Err(wrong("only socket, tls-certificates and tls-hostname are understood, each once")),
            }
        }
        Ok(parameters)
    }
}

/// `HOST`, `HOST:PORT`, `[IPV6]` or `[IPV6]:PORT`. User names say nothing to NBD.
fn tcp(authority: &str) -> Result<Transport, Error> {
    if authority.contains('@') {
        return Err(wrong("NBD has no users; remove USER@"));
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or_else(|| wrong("an IPv6 address lacks its ]"))?;
            let port = if rest.is_empty() {
                None
            } else {
                Some(rest.strip_prefix(':').ok_or_else(|| wrong("what follows ] is no port"))?)
            };
            (host, port)
        }
        None => authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
    };
    let port = match port {
        None => DEFAULT_PORT,
        Some(port) => {
            port.parse().ok().filter(|&port| port != 0).ok_or_else(|| wrong("the port is no number from 1 to 65535"))?
        }
    };
    let host = String::from_utf8(decode(host)?).map_err(|_| wrong("the host is not UTF-8"))?;
    if host.is_empty() || host.contains('\0') {
        return Err(wrong("there is no host"));
    }
    Ok(Transport::Tcp(host, port))
}

/// Percent-decoding.
fn decode(text: &str) -> Result<Vec<u8>, Error> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::new();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit =
            || bytes.next().and_then(|byte| char::from(byte).to_digit(16)).and_then(|digit| u8::try_from(digit).ok());
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err(wrong("a % is not followed by two hexadecimal digits"));
        };
        decoded.push(high << 4 | low);
    }
    Ok(decoded)
}

fn wrong(why: &str) -> Error {
    Error::new(Kind::Uri, format!("this is no NBD URI: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn uri(text: &str) -> Uri {
        text.parse().unwrap()
    }

    #[test]
    fn tcp_uris() {
        let tcp = |host: &str, port| Transport::Tcp(host.into(), port);
        for (text, transport, export) in [
            ("nbd://example.org", tcp("example.org", 10809), ""),
            ("nbd://example.org/", tcp("example.org", 10809), ""),
            ("nbd://127.0.0.1:1/a%20b/c", tcp("127.0.0.1", 1), "a b/c"),
            ("nbd://[::1]//x", tcp("::1", 10809), "/x"),
            ("nbd://[fe80::1%25eth0]:65535/%c3%9f", tcp("fe80::1%eth0", 65535), "ß"),
        ] {
            let parsed = uri(text);
            assert_eq!((parsed.transport, parsed.export.as_str(), parsed.tls), (transport, export, false), "{text}");
        }
        assert!(uri("nbds://h").tls);
    }

    #[test]
    fn unix_uris() {
        let parsed = uri("nbds+unix:///disk?socket=/run/a%20b&tls-certificates=/etc/pki&tls-hostname=server");
        assert_eq!(parsed.transport, Transport::Unix("/run/a b".into()));
        assert_eq!((parsed.export.as_str(), parsed.tls), ("disk", true));
        assert_eq!((parsed.certificates, parsed.server_name), (Some("/etc/pki".into()), Some("server".into())));
    }

    #[test]
    fn what_is_no_uri() {
        let long = format!("nbd://h/{}", "x".repeat(MAX_STRING + 1));
        for text in [
            "",
            "disk.raw",
            "/nbd",
            "http://h/",
            "nbd:h",
            "nbd://",
            "nbd:///x",
            "nbd://h:0",
            "nbd://h:65536",
            "nbd://h:x",
            "nbd://u@h",
            "nbd://[::1",
            "nbd://[::1]x",
            "nbd://h/%0",
            "nbd://h/%zz",
            "nbd://h/%00",
            "nbd://h/%ff",
            "nbd://h?socket=/x",
            "nbd+unix:///x",
            "nbd+unix://h/x?socket=/x",
            "nbd+unix:///x?socket=",
            "nbd+unix:///?socket=a&socket=b",
            "nbd://h?unknown=1",
            "nbd://h/#f",
            &long,
        ] {
            assert!(text.parse::<Uri>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "nbds?(\\+unix)?://[\\[\\]:/?&%a-f0-9=@]{0,40}") {
            let _ = text.parse::<Uri>();
        }
    }
}
