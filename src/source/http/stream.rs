//! A file of a server that knows no ranges: read forward only, once.

use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::Response;

use super::super::location::Address;
use super::super::remote::Failure;
use super::super::remote::retry::Clock;
use super::{First, Line, client, silent};
use crate::disk::Stream;
use crate::error::{Error, Kind, Result};
use crate::session::Session;

use super::super::runtime::within;

/// The bytes of a file on a web server, in order. A connection that breaks ends it: there is no way to go on at the byte.
#[derive(Debug)]
pub struct WebStream {
    line: Line,
    label: String,
    response: Mutex<Response>,
    /// What came and was not given yet.
    left: std::io::Cursor<Vec<u8>>,
    at: u64,
}

impl WebStream {
    pub(super) fn begin(address: &Address, clock: &dyn Clock, session: &Arc<Session>) -> Result<Self> {
        match Line::to(address, None, clock, session)? {
            (line, First::Whole(response), _) => Ok(Self {
                line,
                label: address.to_string(),
                response: Mutex::new(response),
                left: std::io::Cursor::default(),
                at: 0,
            }),
            _ => Err(Error::new(Kind::Unreadable, "http.status", "the server gives a part where all was asked for")),
        }
    }

    /// The next bytes that the server sends; none at the end.
    fn receive(&mut self) -> Result<Vec<u8>> {
        let response = self.response.get_mut().unwrap_or_else(PoisonError::into_inner);
        let patience = self.line.patience.silence;
        let chunk = self.line.runtime.wait(&self.line.session, within(patience, response.chunk()))?;
        let failure = match chunk {
            None => Failure::again(silent("the server stopped in the middle of an answer")),
            Some(Err(error)) => client::failure(error, true),
            Some(Ok(chunk)) => return Ok(chunk.map(Vec::from).unwrap_or_default()),
        };
        let (Failure::Again { error, .. } | Failure::Final(error)) = failure;
        let hint = "without ranges the server cannot go on where it stopped; run the same command again";
        Err(error.at(&self.label).offset(self.at).hint(hint))
    }
}

impl Stream for WebStream {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        loop {
            let count = self.left.read(buf).unwrap_or(0);
            if count > 0 || buf.is_empty() {
                self.at = self.at.saturating_add(count as u64);
                return Ok(count);
            }
            let more = self.receive()?;
            if more.is_empty() {
                return Ok(0);
            }
            self.left = std::io::Cursor::new(more);
        }
    }

    fn name(&self) -> String {
        self.label.clone()
    }
}
