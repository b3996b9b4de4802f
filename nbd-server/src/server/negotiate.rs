//! The steps of a handshake, for whoever moves the bytes.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::OwnedSemaphorePermit;

use super::Shared;
use crate::protocol::{self, Handshake, Session, Step};
use crate::stream::Socket;
use crate::tls::Tls;

/// What a handshake leaves for the transmission.
pub(super) struct Agreed {
    pub(super) session: Session,
    pub(super) permit: OwnedSemaphorePermit,
    pub(super) tls: Option<Tls>,
    /// Bytes received beyond the handshake's end.
    pub(super) received: Vec<u8>,
}

/// A handshake between what was received and what is to be sent.
struct Negotiation<'a> {
    shared: &'a Shared,
    handshake: Handshake,
    received: Vec<u8>,
    output: Vec<u8>,
    permit: Option<OwnedSemaphorePermit>,
}

/// What to do after sending the output.
enum Next {
    Receive,
    /// Go on.
    Again,
    StartTls,
    Transmit(Session),
    Close,
}

impl<'a> Negotiation<'a> {
    fn new(shared: &'a Shared) -> Self {
        let tls = if shared.tls.is_some() { protocol::Tls::Required } else { protocol::Tls::None };
        let (handshake, output) = Handshake::new(Arc::clone(&shared.catalogue), tls);
        Self { shared, handshake, received: Vec::new(), output, permit: None }
    }

    fn next(&mut self) -> Next {
        self.output.clear();
        let mut admit = || {
            self.permit = Arc::clone(&self.shared.slots).try_acquire_owned().ok();
            self.permit.is_some()
        };
        let (used, step) = self.handshake.advance(&self.received, &mut self.output, &mut admit);
        self.received.drain(..used.min(self.received.len()));
        match step {
            Step::More => Next::Receive,
            Step::Next => Next::Again,
            Step::StartTls => Next::StartTls,
            Step::Transmit(session) => Next::Transmit(session),
            Step::Close => Next::Close,
        }
    }

    /// A TLS session that begins with what has been received beyond the client's wish for it: never words in the open.
    fn start_tls(&mut self) -> io::Result<Tls> {
        let mut tls = self.shared.tls.as_ref().ok_or(io::ErrorKind::InvalidData)?.session()?;
        tls.feed(&std::mem::take(&mut self.received));
        Ok(tls)
    }

    fn agree(self, session: Session, tls: Option<Tls>) -> Option<Agreed> {
        self.permit.map(|permit| Agreed { session, permit, tls, received: self.received })
    }
}

/// Negotiates over a socket of the runtime; `None` if the client went away.
pub(super) async fn negotiate<S>(shared: &Shared, stream: &mut S) -> io::Result<Option<Agreed>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut negotiation = Negotiation::new(shared);
    let mut channel = Channel { stream, tls: None };
    channel.send(&negotiation.output).await?;
    loop {
        let next = negotiation.next();
        channel.send(&negotiation.output).await?;
        match next {
            Next::Again => {}
            Next::Receive => {
                if channel.receive(&mut negotiation.received).await? == 0 {
                    return Ok(None);
                }
            }
            Next::StartTls => channel.start_tls(negotiation.start_tls()?).await?,
            Next::Transmit(session) => return Ok(negotiation.agree(session, channel.tls)),
            Next::Close => {
                channel.stream.shutdown().await?;
                return Ok(None);
            }
        }
    }
}

/// A socket of the runtime, with or without TLS.
struct Channel<'a, S> {
    stream: &'a mut S,
    tls: Option<Tls>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Channel<'_, S> {
    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.tls {
            _ if bytes.is_empty() => Ok(()),
            None => self.stream.write_all(bytes).await,
            Some(tls) => {
                let mut records = Vec::new();
                tls.send(bytes, &mut records)?;
                self.stream.write_all(&records).await
            }
        }
    }

    async fn receive(&mut self, into: &mut Vec<u8>) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else {
            into.reserve(4096);
            return self.stream.read_buf(into).await;
        };
        let mut buf = [0; 4096];
        loop {
            if let Some(len) = tls.receive(&mut buf)? {
                into.extend_from_slice(&buf[..len]);
                return Ok(len);
            }
            let len = self.stream.read(&mut buf).await?;
            if len == 0 {
                return Ok(0);
            }
            tls.feed(&buf[..len]);
        }
    }

    async fn start_tls(&mut self, mut tls: Tls) -> io::Result<()> {
        let mut buf = [0; 4096];
        loop {
            let mut records = Vec::new();
            let done = tls.handshake(&mut records);
            self.stream.write_all(&records).await?;
            if done? {
                self.tls = Some(tls);
                return Ok(());
            }
            let len = self.stream.read(&mut buf).await?;
            if len == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            tls.feed(&buf[..len]);
        }
    }
}

/// Negotiates over a connection that this process was started with; the same in blocking calls and without a deadline.
pub(super) fn negotiate_blocking(shared: &Shared, socket: &Socket) -> io::Result<Option<Agreed>> {
    let mut negotiation = Negotiation::new(shared);
    let mut tls: Option<Tls> = None;
    let mut records = Vec::new();
    socket.send(&negotiation.output)?;
    loop {
        let next = negotiation.next();
        records.clear();
        match &mut tls {
            None => socket.send(&negotiation.output)?,
            Some(tls) => {
                tls.send(&negotiation.output, &mut records)?;
                socket.send(&records)?;
            }
        }
        match next {
            Next::Again => {}
            Next::Receive => {
                let mut buf = [0; 4096];
                let len = match &mut tls {
                    None => socket.receive(&mut buf)?,
                    Some(tls) => crate::stream::receive_through(tls, socket, &mut buf)?,
                };
                if len == 0 {
                    return Ok(None);
                }
                negotiation.received.extend_from_slice(&buf[..len]);
            }
            Next::StartTls => tls = Some(crate::stream::start_tls(negotiation.start_tls()?, socket)?),
            Next::Transmit(session) => return Ok(negotiation.agree(session, tls)),
            Next::Close => return Ok(None),
        }
    }
}
