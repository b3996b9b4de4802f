//! Exports of NBD servers, through the client of `hyper2kvm-nbd`.
//!
//! The client makes one attempt at a time; asking again, with pauses, is what [`Remote`] does. An export tells its size and what it can
//! do, which must be the same whenever a connection is made anew. Nothing tells whether its bytes changed.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::time::Duration;

use hyper2kvm_nbd::client::{self, Client, Options, Stop, Style, Uri};
use hyper2kvm_nbd::{Allocation, Errno, Extent, TlsClient};

use super::location::Address;
use super::map::Run;
use super::remote::retry::{Clock, Retry, SystemClock};
use super::remote::{Failure, Found, Remote, Transport};
use super::tls;
use crate::disk::{Checked, ExtentKind, Fingerprint, Traffic};
use crate::error::{Error, Kind, Result, escape};
use crate::limits::SHOWN_EXPORTS;
use crate::session::Session;

/// The most that is asked about holes at once: what compact requests can name.
const TOLD_AT_ONCE: u64 = 4 << 30;

/// Opens the export at `address`.
///
/// # Errors
/// `nbd.missing` with the names of exports that there are, `nbd.connection`, `nbd.tls` and others of the server.
pub(super) fn open(address: &Address, session: &Arc<Session>) -> Result<Arc<Checked<Remote>>> {
    let clock = SystemClock::new();
    let began = clock.now();
    let options = options(&uri(address)?, session)?;
    let (client, requests) = connect(address, options, session, &clock, Kind::Unreadable)?;
    let nanoseconds = u64::try_from(clock.now().saturating_sub(began).as_nanos()).unwrap_or(u64::MAX);
    let traffic = Traffic { requests, bytes: 0, retries: requests - 1, nanoseconds, waited: nanoseconds };
    remote(Arc::new(client), address, traffic, Arc::new(clock), session)
}

fn remote(
    client: Arc<Client>,
    address: &Address,
    traffic: Traffic,
    clock: Arc<dyn Clock>,
    session: &Arc<Session>,
) -> Result<Arc<Checked<Remote>>> {
    let len = client.size();
    let export = uri(address)?.export;
    let fingerprint = Fingerprint::of(&[b"nbd", export.as_bytes(), &len.to_le_bytes()]);
    let found = Found { len, fingerprint, head: Vec::new(), traffic };
    let export = Export { client, address: address.clone() };
    Ok(Checked::wrap(Remote::new(Box::new(export), found, clock, session)?))
}

/// A client that is to write to the export at `address`, tries again by itself, and ends when `stop` says so.
///
/// # Errors
/// As [`open`], as failures of this host's own.
pub(crate) fn attach(address: &Address, session: &Arc<Session>, stop: Stop) -> Result<Arc<Client>> {
    let patience = session.access().patience;
    let retry_for = if patience.retries == 0 { Duration::ZERO } else { patience.silence.saturating_mul(2) };
    let options = Options { retry_for, stop: Some(stop), ..options(&uri(address)?, session)? };
    connect(address, options, session, &SystemClock::new(), Kind::Failed).map(|(client, _)| Arc::new(client))
}

/// What the export at `address` holds, read by a client that writes to it, too.
///
/// # Errors
/// `source.empty` for an export without bytes.
pub(crate) fn reader(client: &Arc<Client>, address: &Address, session: &Arc<Session>) -> Result<Arc<Checked<Remote>>> {
    remote(Arc::clone(client), address, Traffic::default(), Arc::new(SystemClock::new()), session)
}

/// What an error means to whoever writes.
pub(crate) fn explain(error: &client::Error) -> Error {
    let (Failure::Again { error, .. } | Failure::Final(error)) = failure(error, Kind::Failed);
    error
}

/// Connects, and says how many attempts that took.
fn connect(
    address: &Address,
    options: Options,
    session: &Session,
    clock: &dyn Clock,
    kind: Kind,
) -> Result<(Client, u64)> {
    let uri = uri(address)?;
    let mut retry = Retry::new(session.access().patience);
    for attempts in 1.. {
        session.check()?;
        let error = match Client::with_options(uri.clone(), options.clone()) {
            Ok(client) => return Ok((client, attempts)),
            Err(error) => error,
        };
        let failed = match error.kind() {
            client::Kind::Missing => Failure::Final(missing(&uri, &options, kind)),
            _ => failure(&error, kind),
        };
        retry.wait(failed, clock, session).map_err(|error| error.at(address))?;
    }
    Err(Error::failed("nbd.connection", "no connection to the NBD server").at(address))
}

fn uri(address: &Address) -> Result<Uri> {
    address
        .url()
        .as_str()
        .parse()
        .map_err(|error: client::Error| Error::new(Kind::Usage, "source.address", error.to_string()).at(address))
}

fn options(uri: &Uri, session: &Arc<Session>) -> Result<Options> {
    let access = session.access();
    // A folder that the address names goes before the flags, as with other programs.
    let tls = match uri.tls && uri.certificates.is_none() {
        true => Some(TlsClient::from_config(Arc::new(tls::config(access, true)?))),
        false => None,
    };
    let of = Arc::clone(session);
    Ok(Options {
        contexts: vec!["base:allocation".into()],
        tls,
        wait_for: Duration::ZERO,
        retry_for: Duration::ZERO,
        connect_within: access.patience.connect.min(access.patience.silence),
        patience: access.patience.silence,
        stop: Some(Stop::when(move || of.check().is_err())),
        style: Style::Extended,
        ..Options::default()
    })
}

/// There is no export of that name: which ones are there?
fn missing(uri: &Uri, options: &Options, kind: Kind) -> Error {
    let error = Error::new(kind, "nbd.missing", "the NBD server has no such export").found(&uri.export);
    let Ok(listed) = Client::list_with(uri.clone(), options.clone()) else {
        return error.hint("the server does not list its exports; ask whoever runs it for the name");
    };
    let (most, longest) = SHOWN_EXPORTS;
    let names = listed.iter().take(most).map(|export| export.name.chars().take(longest).collect::<String>());
    let mut names: Vec<String> = names.map(|name| format!("\"{}\"", escape(&name))).collect();
    if listed.len() > most {
        names.push(format!("{} more", listed.len() - most));
    }
    if names.is_empty() { error.hint("the server has no exports at all") } else { error.expected(names.join(", ")) }
}

/// What an error of the client means to whoever reads or writes, who gives the kind.
fn failure(error: &client::Error, kind: Kind) -> Failure {
    let told = |code, what: &str| Error::new(kind, code, what).because(error.clone());
    match error.kind() {
        client::Kind::Stopped => Failure::Final(Error::interrupted()),
        client::Kind::Connect => Failure::again(told("nbd.connection", "no connection to the NBD server")),
        client::Kind::Lost => Failure::again(told("nbd.connection", "the connection to the NBD server ended")),
        client::Kind::TimedOut => Failure::again(told("nbd.silent", "the NBD server does not answer")),
        client::Kind::Export(Errno::Io | Errno::NoMem | Errno::Shutdown) => {
            Failure::again(told("nbd.error", "the NBD server answers with an error"))
        }
        client::Kind::Export(Errno::NoSpc) if kind == Kind::Failed => {
            Failure::Final(Error::new(Kind::NoSpace, "output.space", "the NBD server has no more room").because(error.clone()))
        }
        client::Kind::Export(_) => Failure::Final(told("nbd.error", "the NBD server answers with an error")),
        client::Kind::Missing => Failure::Final(told("nbd.missing", "the NBD server has no such export")),
        client::Kind::Refused => Failure::Final(told("nbd.refused", "the NBD server does not want to")),
        client::Kind::Tls => Failure::Final(told("nbd.tls", "no encrypted connection to the NBD server").hint(
            "trust its authority with --cacert FILE, or its certificate with --thumbprint DIGEST; it may want --client-cert",
        )),
        client::Kind::Changed => {
            let code = if kind == Kind::Failed { "output.changed" } else { "source.changed" };
            Failure::Final(told(code, "the NBD server came back with another export under that name"))
        }
        client::Kind::Unflushed => {
            Failure::Final(told("nbd.unflushed", "the connection ended after writes that may not have reached the disk"))
        }
        client::Kind::Unsupported => Failure::Final(told("nbd.unsupported", "the NBD server cannot do that")),
        _ => Failure::Final(told("nbd.protocol", "the NBD server breaks the protocol").hint("report it to whoever makes it")),
    }
}

/// An export that is read.
#[derive(Debug)]
struct Export {
    client: Arc<Client>,
    address: Address,
}

impl Transport for Export {
    fn fetch(&self, range: Range<u64>, take: &mut dyn FnMut(&[u8])) -> Result<(), Failure> {
        let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap_or(0)];
        let (came, result) = self.client.read_front(&mut bytes, range.start);
        take(bytes.get(..came).unwrap_or_default());
        result.map_err(|error| failure(&error, Kind::Unreadable))
    }

    fn fill(&self, offset: u64, buf: &mut [u8], came: &mut dyn FnMut(usize)) -> Result<(), Failure> {
        let block = u64::from(self.client.terms().minimum_block);
        if !offset.is_multiple_of(block) || !(buf.len() as u64).is_multiple_of(block) {
            self.client.read_at(buf, offset).map_err(|error| failure(&error, Kind::Unreadable))?;
            came(buf.len());
            return Ok(());
        }
        let (count, result) = self.client.read_front(buf, offset);
        // What follows after a cut must begin at a block again.
        came(count - count % usize::try_from(block).unwrap_or(1));
        result.map_err(|error| failure(&error, Kind::Unreadable))
    }

    fn told(&self, range: Range<u64>) -> Result<Option<Vec<Run>>, Failure> {
        if !self.client.has_context("base:allocation") {
            return Ok(None);
        }
        let (mut runs, end) = (Vec::new(), range.end.min(range.start.saturating_add(TOLD_AT_ONCE)));
        let told = self.client.extents_once(range.start..end, &mut |Extent { length, kind }| {
            let kind = match kind {
                Allocation::Data => ExtentKind::Data,
                Allocation::Zero => ExtentKind::Zero,
                Allocation::Hole => ExtentKind::Hole,
            };
            runs.push(Run { len: length, kind });
            ControlFlow::Continue(())
        });
        match told {
            Ok(()) => Ok(Some(runs)),
            // It offered to tell, and cannot.
            Err(error) if matches!(error.kind(), client::Kind::Export(Errno::Inval | Errno::NotSup)) => Ok(None),
            Err(error) => Err(failure(&error, Kind::Unreadable)),
        }
    }

    fn describe(&self) -> (&'static str, String) {
        ("nbd", self.address.to_string())
    }
}

#[cfg(test)]
mod tests;
