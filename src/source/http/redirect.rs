//! Where a server may send us: to other web servers, and nowhere that only this host or its network can reach unless the user
//! named such a place himself. A server elsewhere must not make us ask what it cannot ask itself.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{HeaderMap, LOCATION};

use crate::error::Error;

/// Who can reach an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    /// This host only.
    Host,
    /// Neighbours on the same line; clouds keep their metadata there.
    Link,
    /// A network of its own.
    Network,
    /// Everybody.
    World,
}

impl Reach {
    fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::of_v4(address),
            IpAddr::V6(address) => Self::of_v6(address),
        }
    }

    fn of_v4(address: Ipv4Addr) -> Self {
        let [first, second, ..] = address.octets();
        if address.is_loopback() || first == 0 {
            Self::Host
        } else if address.is_link_local() || address.is_multicast() || first >= 240 {
            Self::Link
        } else if address.is_private()
            || (first == 100 && (64..128).contains(&second))
            || (first == 198 && second & 0xfe == 18)
        {
            Self::Network
        } else {
            Self::World
        }
    }

    fn of_v6(address: Ipv6Addr) -> Self {
        let parts = address.segments();
        let last = || {
            let [.., high, low] = parts;
            Ipv4Addr::from((u32::from(high) << 16) | u32::from(low))
        };
        match parts {
            // An IPv4 address in another dress: mapped (RFC 4291), or translated (RFC 6052).
            [0, 0, 0, 0, 0, 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => Self::of_v4(last()),
            [0, 0, 0, 0, 0, 0, 0, 0 | 1] => Self::Host,
            [first, ..] if first & 0xffc0 == 0xfe80 || first & 0xff00 == 0xff00 => Self::Link,
            [first, ..] if first & 0xfe00 == 0xfc00 || first & 0xffc0 == 0xfec0 || first == 0 => Self::Network,
            [0x64, 0xff9b, 1, ..] => Self::Network,
            // 6to4 (RFC 3056) has an IPv4 address in it.
            [0x2002, high, low, ..] => Self::of_v4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low))),
            _ => Self::World,
        }
    }
}

/// Finds the addresses of hosts, and holds redirections to what they may reach. The check is made for every connection, so a name
/// cannot come to mean another address later.
#[derive(Clone, Debug)]
pub(in crate::source) struct Guard(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Hosts that the user did not name.
    foreign: BTreeSet<String>,
    /// The host that he named.
    own: String,
    /// Where that is.
    reach: BTreeSet<Reach>,
}

impl Guard {
    pub(in crate::source) fn new(url: &Url) -> Self {
        let mut state = State { own: host(url), ..State::default() };
        state.reach.extend(literal(url).map(Reach::of));
        Self(Arc::new(Mutex::new(state)))
    }

    /// Lets a redirection from one place to another pass, as far as that can be told without looking for its host.
    ///
    /// # Errors
    /// `http.redirect`.
    pub(super) fn allow(&self, from: &Url, to: &Url) -> Result<(), Error> {
        if from.scheme() == "https" && to.scheme() == "http" {
            return Err(refused("the server redirects to an address without encryption"));
        }
        let mut state = self.state();
        let name = host(to);
        if name != state.own {
            state.foreign.insert(name);
        }
        match literal(to) {
            Some(address) if !state.may(Reach::of(address)) => Err(refused(INNER)),
            _ => Ok(()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of the addresses of a host, those that may be asked; nothing when there are addresses and none may.
    fn filter(&self, name: &str, found: Vec<SocketAddr>) -> Option<Vec<SocketAddr>> {
        let mut state = self.state();
        if name == state.own {
            let reach = found.iter().map(|address| Reach::of(address.ip()));
            state.reach.extend(reach);
            return Some(found);
        }
        if !state.foreign.contains(name) {
            // A proxy, which the user named.
            return Some(found);
        }
        let any = !found.is_empty();
        let kept: Vec<SocketAddr> = found.into_iter().filter(|address| state.may(Reach::of(address.ip()))).collect();
        (!any || !kept.is_empty()).then_some(kept)
    }
}

impl State {
    fn may(&self, reach: Reach) -> bool {
        reach == Reach::World || self.reach.contains(&reach)
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let kept = guard.filter(&name.as_str().to_ascii_lowercase(), found).ok_or(Refused)?;
            Ok(Box::new(kept.into_iter()) as Addrs)
        })
    }
}

/// A redirection leads to where it may not.
#[derive(Debug)]
pub(super) struct Refused;

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(INNER)
    }
}

impl std::error::Error for Refused {}

const INNER: &str = "the server redirects to an address of this host or of its own network";

/// The error for a redirection that is not followed.
pub(super) fn refused(what: &str) -> Error {
    Error::refused("http.redirect", what).hint("if you trust it, give the address that it leads to as the source")
}

/// Where an answer redirects to.
///
/// # Errors
/// `http.redirect` when that is no web server.
pub(super) fn target(from: &Url, headers: &HeaderMap) -> Result<Url, Error> {
    let text = headers.get(LOCATION).and_then(|value| value.to_str().ok());
    let url = text.and_then(|text| from.join(text).ok());
    let url = url.ok_or_else(|| refused("the server redirects to what is no address"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err(refused("the server redirects to what is no web server").found(format!("{}:", url.scheme())));
    }
    let mut url = without_user(&url);
    url.set_fragment(None);
    Ok(url)
}

/// The address without user information, which the client would make a header of.
pub(super) fn without_user(url: &Url) -> Url {
    let mut url = url.clone();
    // Web addresses have a place for both, so neither can fail.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url
}

/// Whether credentials for one are for the other, too (RFC 6454).
pub(super) fn is_same_origin(one: &Url, other: &Url) -> bool {
    one.origin() == other.origin()
}

fn host(url: &Url) -> String {
    url.host_str().unwrap_or_default().to_ascii_lowercase()
}

/// The address of a host that is given by number.
pub(in crate::source) fn literal(url: &Url) -> Option<IpAddr> {
    let host = url.host_str()?;
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    fn allow(own: &str, to: &str) -> bool {
        Guard::new(&url(own)).allow(&url(own), &url(to)).is_ok()
    }

    #[test]
    fn addresses_are_sorted_by_who_reaches_them() {
        let cases = [
            (
                Reach::Host,
                &["127.0.0.1", "127.8.8.8", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1", "64:ff9b::7f00:1"][..],
            ),
            (
                Reach::Link,
                &["169.254.169.254", "fe80::1", "224.0.0.1", "255.255.255.255", "ff02::1", "::ffff:169.254.169.254"],
            ),
            (
                Reach::Network,
                &[
                    "10.0.0.1",
                    "172.31.0.1",
                    "192.168.1.1",
                    "100.64.0.1",
                    "198.19.0.1",
                    "fd00::1",
                    "fec0::1",
                    "2002:a00:1::",
                ],
            ),
            (
                Reach::World,
                &["1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1", "2002:101:101::", "64:ff9b::101:101"],
            ),
        ];
        for (reach, addresses) in cases {
            for address in addresses {
                assert_eq!(Reach::of(address.parse().unwrap()), reach, "{address}");
            }
        }
    }

    #[test]
    fn a_server_elsewhere_leads_nowhere_inside() {
        for inside in [
            "http://127.0.0.1/",
            "http://[::1]/",
            "http://169.254.169.254/latest/meta-data",
            "http://10.0.0.1/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://[::ffff:10.0.0.1]/",
        ] {
            assert!(!allow("http://93.184.216.34/a", inside), "{inside}");
        }
        assert!(allow("http://93.184.216.34/a", "https://1.1.1.1/b"));
        assert!(allow("http://10.0.0.1/a", "http://192.168.0.1/b"));
        assert!(!allow("http://10.0.0.1/a", "http://127.0.0.1/b"));
        assert!(!allow("http://127.0.0.1/a", "http://169.254.169.254/b"));
        assert!(!allow("https://1.1.1.1/a", "http://1.1.1.1/a"), "encryption is not given up");
    }

    #[test]
    fn names_are_judged_by_what_they_mean_when_a_connection_is_made() {
        let guard = Guard::new(&url("https://own.example/a"));
        let socket = |text: &str| SocketAddr::new(text.parse().unwrap(), 0);
        let inside = vec![socket("10.0.0.1"), socket("127.0.0.1")];
        assert_eq!(guard.filter("proxy.example", inside.clone()), Some(inside.clone()));
        guard.allow(&url("https://own.example/a"), &url("https://Other.example/b")).unwrap();
        assert_eq!(guard.filter("other.example", inside.clone()), None);
        let mixed = vec![socket("1.1.1.1"), socket("10.0.0.1")];
        assert_eq!(guard.filter("other.example", mixed), Some(vec![socket("1.1.1.1")]));
        assert_eq!(guard.filter("own.example", vec![socket("10.9.9.9")]), Some(vec![socket("10.9.9.9")]));
        assert_eq!(
            guard.filter("other.example", inside),
            Some(vec![socket("10.0.0.1")]),
            "the user's own is such a one"
        );
    }

    #[test]
    fn only_web_servers_are_targets() {
        let target = |text: &str| {
            let headers = [(LOCATION, text.parse().unwrap())].into_iter().collect();
            target(&url("https://h/a/b?sig=1"), &headers).map(|url| url.to_string())
        };
        assert_eq!(target("../c#x").unwrap(), "https://h/c");
        assert_eq!(target("//other/d").unwrap(), "https://other/d");
        assert_eq!(target("https://u:p@other/d").unwrap(), "https://other/d");
        for bad in ["file:///etc/passwd", "ftp://h/x", "javascript:x", "http://", "gopher://h", "data:,x"] {
            assert_eq!(target(bad).unwrap_err().code(), "http.redirect", "{bad}");
        }
    }
}
