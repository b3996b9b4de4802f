//! Who we are to a server: sent to the server that the user named, and to no other.

use reqwest::header::{COOKIE, HeaderValue};
use reqwest::{RequestBuilder, Url};

use super::super::location::Address;
use super::redirect::literal;
use super::{Dialect, Signed};
use crate::error::{Error, Kind, Result};
use crate::session::{Access, Secret, Session};

/// Credentials for one server.
#[derive(Debug)]
pub(super) struct Login {
    who: Who,
    cookie: Option<HeaderValue>,
}

#[derive(Debug)]
enum Who {
    Anyone,
    User { name: String, password: Hidden },
    Token(Hidden),
}

/// Text that is never shown.
struct Hidden(zeroize::Zeroizing<String>);

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

impl Login {
    /// What the user gave for the server of `address`: a token before a password, and a netrc file where neither was given.
    ///
    /// # Errors
    /// `http.login` for what cannot be sent, and `http.plain` where it would go unencrypted over a network.
    pub(super) fn for_address(address: &Address, access: &Access) -> Result<Option<Self>> {
        let url = address.url();
        let named = user(url, access);
        let who = match (&access.token, access.password()) {
            (Some(token), _) => Who::Token(text(token)?),
            (None, Some(password)) => {
                let name = named
                    .ok_or_else(|| wrong("a password is given, and no user").hint("give the name with --login"))?;
                Who::User { name, password: text(password)? }
            }
            (None, None) => from_netrc(url, named.as_deref(), access)?,
        };
        let cookie = access.cookie.as_ref().map(cookie).transpose()?;
        if matches!(who, Who::Anyone) && cookie.is_none() {
            return Ok(None);
        }
        if url.scheme() != "https" && !is_here(url) {
            return Err(Error::refused("http.plain", "credentials would go over the network for everybody to read")
                .hint("use https://"));
        }
        Ok(Some(Self { who, cookie }))
    }

    /// Adds the credentials to a request.
    pub(super) fn apply(&self, request: RequestBuilder) -> RequestBuilder {
        let request = match &self.who {
            Who::Anyone => request,
            Who::User { name, password } => request.basic_auth(name, Some(&*password.0)),
            Who::Token(token) => request.bearer_auth(&*token.0),
        };
        match &self.cookie {
            Some(cookie) => request.header(COOKIE, cookie.clone()),
            None => request,
        }
    }
}

/// Asks the user for his password, where he said who he is and nothing else, and it would not be seen on the way. Whether there is one
/// now.
///
/// # Errors
/// Those of asking.
pub(super) fn ask(address: &Address, session: &Session) -> Result<bool> {
    let (url, access) = (address.url(), session.access());
    let others = access.token.is_some() || access.cookie.is_some() || access.netrc.is_some();
    match user(url, access) {
        Some(name) if !others && (url.scheme() == "https" || is_here(url)) => {
            access.ask_password(&format!("{name} at {}", url.host_str().unwrap_or_default()), session)
        }
        _ => Ok(false),
    }
}

/// The name that the user gave himself.
fn user(url: &Url, access: &Access) -> Option<String> {
    match url.username() {
        "" => access.user.clone(),
        name => Some(super::super::location::unescape(name)),
    }
}

/// Web servers as they are: they know a login, or nobody.
impl Dialect for Option<Login> {
    fn sign<'a>(&'a self, request: RequestBuilder) -> Signed<'a> {
        let request = match self {
            Some(login) => login.apply(request),
            None => request,
        };
        Box::pin(std::future::ready(Ok(request)))
    }
}

/// Whether requests stay on this host.
pub(in crate::source) fn is_here(url: &Url) -> bool {
    url.host_str() == Some("localhost") || literal(url).is_some_and(|address| address.is_loopback())
}

fn wrong(what: &str) -> Error {
    Error::new(Kind::Usage, "http.login", what)
}

fn text(secret: &Secret) -> Result<Hidden> {
    let text =
        std::str::from_utf8(secret.expose()).ok().filter(|text| !text.is_empty() && !text.contains(['\n', '\r', '\0']));
    let text = text.ok_or_else(|| wrong("a password or token is empty, or no line of text"))?;
    Ok(Hidden(zeroize::Zeroizing::new(text.to_owned())))
}

fn cookie(secret: &Secret) -> Result<HeaderValue> {
    let value = HeaderValue::from_bytes(secret.expose()).ok().filter(|value| value.as_bytes().contains(&b'='));
    let mut value = value.ok_or_else(|| wrong("the cookie is no line of NAME=VALUE").hint("NAME=VALUE; NAME=VALUE"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn from_netrc(url: &Url, named: Option<&str>, access: &Access) -> Result<Who> {
    let Some(netrc) = &access.netrc else { return Ok(Who::Anyone) };
    let netrc = std::str::from_utf8(netrc.expose()).map_err(|_| wrong("the netrc file is no text"))?;
    let host = url.host_str().unwrap_or_default();
    let Some((name, password)) = entry(netrc, host, named) else { return Ok(Who::Anyone) };
    Ok(Who::User { name, password: text(&Secret::new(password.into_bytes()))? })
}

/// The user and password that a netrc file has for `host`, and for the user of that name if there is one: the first entry that
/// fits. Words stand apart by white space; quoted ones may have some in them; `#` begins a comment, and a `macdef` goes on to an
/// empty line.
fn entry(netrc: &str, host: &str, named: Option<&str>) -> Option<(String, String)> {
    let words = words(netrc);
    let mut words = words.iter().map(String::as_str);
    let (mut fits, mut login, mut password) = (false, None, None);
    let found = |fits: bool, login: &Option<&str>, password: &Option<&str>| {
        let login = login.or(named)?;
        (fits && named.is_none_or(|named| named == login)).then_some((login.to_owned(), (*password)?.to_owned()))
    };
    while let Some(word) = words.next() {
        match word {
            "machine" | "default" => {
                if let Some(entry) = found(fits, &login, &password) {
                    return Some(entry);
                }
                fits = word == "default" || words.next().is_some_and(|name| name.eq_ignore_ascii_case(host));
                (login, password) = (None, None);
            }
            "login" => login = words.next(),
            "password" => password = words.next(),
            "account" => _ = words.next(),
            _ => {}
        }
    }
    found(fits, &login, &password)
}

fn words(netrc: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut in_macro = false;
    for line in netrc.lines() {
        if in_macro {
            in_macro = !line.trim().is_empty();
            continue;
        }
        let mut chars = line.chars().peekable();
        loop {
            while chars.next_if(|c| c.is_whitespace()).is_some() {}
            match chars.peek() {
                None | Some('#') => break,
                Some('"') => {
                    chars.next();
                    let mut word = String::new();
                    while let Some(c) = chars.next().filter(|c| *c != '"') {
                        word.extend(if c == '\\' { chars.next() } else { Some(c) });
                    }
                    words.push(word);
                }
                Some(_) => {
                    let mut word = String::new();
                    while let Some(c) = chars.next_if(|c| !c.is_whitespace()) {
                        word.push(c);
                    }
                    in_macro |= word == "macdef";
                    words.push(word);
                }
            }
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Option<Secret> {
        Some(Secret::new(text.into()))
    }

    fn login(address: &str, access: &Access) -> Result<Option<Login>> {
        Login::for_address(&Address::parse(address).unwrap(), access)
    }

    fn user(login: Option<Login>) -> Option<(String, String)> {
        match login?.who {
            Who::User { name, password } => Some((name, password.0.to_string())),
            _ => None,
        }
    }

    #[test]
    fn entries_are_found_by_host_and_user() {
        let netrc = "# machine h login no password no\nmachine other login o password p\nmachine H\n  login a\n  password \"x \\\" y\"\n\
                     macdef init\nmachine h login evil password evil\n\nmachine h login b account c password d\ndefault login any password z";
        let pair = |one: &str, two: &str| Some((one.to_owned(), two.to_owned()));
        assert_eq!(entry(netrc, "h", None), pair("a", "x \" y"));
        assert_eq!(entry(netrc, "h", Some("b")), pair("b", "d"));
        assert_eq!(entry(netrc, "elsewhere", None), pair("any", "z"));
        assert_eq!(entry(netrc, "elsewhere", Some("me")), None);
        assert_eq!(entry("machine h password p", "h", Some("me")), pair("me", "p"));
        for odd in
            ["machine", "machine h login", "machine h login a", "password p", "\"", "machine h login \"a password p"]
        {
            assert_eq!(entry(odd, "h", None), None, "{odd}");
        }
    }

    #[test]
    fn what_was_given_for_this_run_goes_before_files() {
        let netrc = secret("machine h login n password np");
        let access = Access { user: Some("u".into()), password: secret("p"), netrc, ..Access::default() };
        let pair = |one: &str, two: &str| Some((one.to_owned(), two.to_owned()));
        assert_eq!(user(login("https://h/x", &access).unwrap()), pair("u", "p"));
        assert_eq!(user(login("https://me%40d@h/x", &access).unwrap()), pair("me@d", "p"));
        let access = Access { user: None, password: None, ..access };
        assert_eq!(user(login("https://h/x", &access).unwrap()), pair("n", "np"));
        assert!(login("https://elsewhere/x", &access).unwrap().is_none());
        let token = Access { token: secret("t"), ..access };
        assert!(matches!(login("https://h/x", &token).unwrap().unwrap().who, Who::Token(_)));
        assert!(login("https://h/x", &Access::default()).unwrap().is_none());
    }

    #[test]
    fn what_cannot_be_sent_or_would_be_seen_is_refused() {
        let password = Access { password: secret("p"), ..Access::default() };
        assert_eq!(login("https://h/x", &password).unwrap_err().code(), "http.login");
        let password = Access { user: Some("u".into()), ..password };
        assert_eq!(login("http://h/x", &password).unwrap_err().code(), "http.plain");
        for here in ["http://127.0.0.1/x", "http://[::1]:80/x", "http://localhost:8080/x"] {
            assert!(login(here, &password).is_ok(), "{here}");
        }
        for bad in ["", "a\nb", "a\r\nX-Evil: 1", "a\0"] {
            let access = Access { token: secret(bad), ..Access::default() };
            assert_eq!(login("https://h/x", &access).unwrap_err().code(), "http.login", "{bad:?}");
            let access = Access { cookie: secret(bad), ..Access::default() };
            assert_eq!(login("https://h/x", &access).unwrap_err().code(), "http.login", "{bad:?}");
        }
    }

    #[test]
    fn credentials_are_never_shown() {
        let access = Access {
            user: Some("u".into()),
            password: secret("canary-1"),
            cookie: secret("a=canary-2"),
            ..Access::default()
        };
        let shown = format!("{:?}{access:?}", login("https://h/x", &access).unwrap());
        assert!(!shown.contains("canary"), "{shown}");
    }
}
