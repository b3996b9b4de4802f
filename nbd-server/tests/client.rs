//! A client in the smallest number of lines, which does as it is told, right or wrong.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use hyper2kvm_nbd::protocol::constants::*;

pub(crate) const FIXED: u32 = 1;
pub(crate) const NO_ZEROES: u32 = 2;

trait Socket: Read + Write + Send {}
impl<T: Read + Write + Send> Socket for T {}

pub(crate) struct Client(Box<dyn Socket>);

/// One reply to an option.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct OptionReply {
    pub(crate) option: u32,
    pub(crate) kind: u32,
    pub(crate) data: Vec<u8>,
}

/// One chunk of a structured reply.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Chunk {
    pub(crate) last: bool,
    pub(crate) kind: u16,
    pub(crate) cookie: u64,
    pub(crate) data: Vec<u8>,
}

impl Client {
    /// Connects; nothing is sent or received.
    pub(crate) fn unix(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
        Self(Box::new(stream))
    }

    pub(crate) fn tcp(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(Box::new(stream))
    }

    /// Connects and exchanges flags.
    pub(crate) fn greeted(path: &Path) -> Self {
        let mut client = Self::unix(path);
        client.greet(FIXED | NO_ZEROES);
        client
    }

    /// Connects and is ready to transmit, with structured replies and block status.
    pub(crate) fn ready(path: &Path) -> Self {
        let mut client = Self::greeted(path);
        client.structured();
        assert_eq!(client.set_contexts("", &["base:allocation"]), [REP_META_CONTEXT, REP_ACK]);
        client.go("");
        client
    }

    pub(crate) fn greet(&mut self, flags: u32) {
        assert_eq!(self.receive(18), b"NBDMAGICIHAVEOPT\0\x03");
        self.send(&flags.to_be_bytes());
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    pub(crate) fn receive(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Whether the server has closed the connection, after `0` or more bytes.
    pub(crate) fn is_closed(&mut self) -> bool {
        match self.0.read_to_end(&mut Vec::new()) {
            Ok(_) => true,
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        }
    }

    pub(crate) fn send_option(&mut self, option: u32, data: &[u8]) {
        let mut bytes = IHAVEOPT.to_be_bytes().to_vec();
        bytes.extend(option.to_be_bytes());
        bytes.extend((data.len() as u32).to_be_bytes());
        bytes.extend(data);
        self.send(&bytes);
    }

    pub(crate) fn option_reply(&mut self) -> OptionReply {
        assert_eq!(self.receive(8), REP_MAGIC.to_be_bytes());
        let [option, kind, len] = [self.u32(), self.u32(), self.u32()];
        OptionReply { option, kind, data: self.receive(len as usize) }
    }

    /// All replies to an option, up to the acknowledgement or the error.
    pub(crate) fn option(&mut self, option: u32, data: &[u8]) -> Vec<OptionReply> {
        self.send_option(option, data);
        let mut replies = Vec::new();
        loop {
            let reply = self.option_reply();
            assert_eq!(reply.option, option);
            let last = reply.kind == REP_ACK || reply.kind >= REP_ERR_UNSUP;
            replies.push(reply);
            if last {
                return replies;
            }
        }
    }

    pub(crate) fn kinds(&mut self, option: u32, data: &[u8]) -> Vec<u32> {
        self.option(option, data).iter().map(|reply| reply.kind).collect()
    }

    pub(crate) fn structured(&mut self) {
        assert_eq!(self.kinds(OPT_STRUCTURED_REPLY, &[]), [REP_ACK]);
    }

    pub(crate) fn set_contexts(&mut self, export: &str, queries: &[&str]) -> Vec<u32> {
        self.kinds(OPT_SET_META_CONTEXT, &contexts(export, queries))
    }

    /// Enters transmission; returns the size and the flags.
    pub(crate) fn go(&mut self, export: &str) -> (u64, u16) {
        let replies = self.option(OPT_GO, &details(export.as_bytes(), &[]));
        assert_eq!(replies.last().unwrap().kind, REP_ACK, "{replies:?}");
        let data = &replies[0].data;
        assert_eq!((replies[0].kind, data.len(), &data[..2]), (REP_INFO, 12, &[0, 0][..]));
        (u64::from_be_bytes(data[2..10].try_into().unwrap()), u16::from_be_bytes([data[10], data[11]]))
    }

    pub(crate) fn request(&mut self, command: u16, flags: u16, cookie: u64, offset: u64, length: u32) {
        self.send(&request(command, flags, cookie, offset, length));
    }

    /// The error number and the cookie of a simple reply.
    pub(crate) fn simple_reply(&mut self) -> (u32, u64) {
        assert_eq!(self.u32(), SIMPLE_REPLY_MAGIC);
        (self.u32(), self.u64())
    }

    pub(crate) fn chunk(&mut self) -> Chunk {
        assert_eq!(self.u32(), STRUCTURED_REPLY_MAGIC);
        let [flags, kind] = [self.u16(), self.u16()];
        let (cookie, len) = (self.u64(), self.u32());
        Chunk { last: flags & REPLY_FLAG_DONE != 0, kind, cookie, data: self.receive(len as usize) }
    }

    /// All chunks of the reply to the only request in flight.
    pub(crate) fn reply(&mut self, cookie: u64) -> Vec<Chunk> {
        let mut chunks = Vec::new();
        loop {
            let chunk = self.chunk();
            assert_eq!(chunk.cookie, cookie);
            let last = chunk.last;
            chunks.push(chunk);
            if last {
                return chunks;
            }
        }
    }

    /// Requests and awaits a structured reply that is one error; returns its number.
    pub(crate) fn error(&mut self, command: u16, flags: u16, offset: u64, length: u32) -> u32 {
        self.request(command, flags, 99, offset, length);
        let chunks = self.reply(99);
        assert!(chunks.len() == 1 && chunks[0].kind & 0x8000 != 0, "{chunks:?}");
        u32::from_be_bytes(chunks[0].data[..4].try_into().unwrap())
    }

    /// Reads with structured replies.
    pub(crate) fn read(&mut self, flags: u16, offset: u64, length: u32) -> Vec<u8> {
        self.request(CMD_READ, flags, offset, offset, length);
        let mut bytes = vec![0xee; length as usize];
        for chunk in self.reply(offset) {
            place(&chunk, offset, &mut bytes);
        }
        bytes
    }

    pub(crate) fn block_status(&mut self, flags: u16, offset: u64, length: u32) -> Vec<(u32, u32)> {
        self.request(CMD_BLOCK_STATUS, flags, 5, offset, length);
        let chunks = self.reply(5);
        assert_eq!((chunks.len(), chunks[0].kind), (1, REPLY_TYPE_BLOCK_STATUS), "{chunks:?}");
        let words: Vec<u32> =
            chunks[0].data.chunks(4).map(|word| u32::from_be_bytes(word.try_into().unwrap())).collect();
        words[1..].chunks(2).map(|pair| (pair[0], pair[1])).collect()
    }

    fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.receive(2).try_into().unwrap())
    }

    fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.receive(4).try_into().unwrap())
    }

    fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.receive(8).try_into().unwrap())
    }
}

/// Puts the bytes of a chunk of a read where they belong.
pub(crate) fn place(chunk: &Chunk, offset: u64, bytes: &mut [u8]) {
    assert!(matches!(chunk.kind, REPLY_TYPE_OFFSET_DATA | REPLY_TYPE_OFFSET_HOLE), "{:#x}", chunk.kind);
    let at = (u64::from_be_bytes(chunk.data[..8].try_into().unwrap()) - offset) as usize;
    if chunk.kind == REPLY_TYPE_OFFSET_HOLE {
        let len = u32::from_be_bytes(chunk.data[8..].try_into().unwrap()) as usize;
        bytes[at..at + len].fill(0);
    } else {
        bytes[at..at + chunk.data.len() - 8].copy_from_slice(&chunk.data[8..]);
    }
}

pub(crate) fn request(command: u16, flags: u16, cookie: u64, offset: u64, length: u32) -> Vec<u8> {
    let mut bytes = REQUEST_MAGIC.to_be_bytes().to_vec();
    bytes.extend(flags.to_be_bytes());
    bytes.extend(command.to_be_bytes());
    bytes.extend(cookie.to_be_bytes());
    bytes.extend(offset.to_be_bytes());
    bytes.extend(length.to_be_bytes());
    bytes
}

/// The data of `OPT_GO` and `OPT_INFO`.
pub(crate) fn details(export: &[u8], kinds: &[u16]) -> Vec<u8> {
    let mut data = (export.len() as u32).to_be_bytes().to_vec();
    data.extend(export);
    data.extend((kinds.len() as u16).to_be_bytes());
    data.extend(kinds.iter().flat_map(|kind| kind.to_be_bytes()));
    data
}

/// The data of `OPT_SET_META_CONTEXT` and `OPT_LIST_META_CONTEXT`.
pub(crate) fn contexts(export: &str, queries: &[&str]) -> Vec<u8> {
    let mut data = (export.len() as u32).to_be_bytes().to_vec();
    data.extend(export.bytes());
    data.extend((queries.len() as u32).to_be_bytes());
    for query in queries {
        data.extend((query.len() as u32).to_be_bytes());
        data.extend(query.bytes());
    }
    data
}

/// Connects a raw stream, for tests that only half close it.
pub(crate) fn half_closed(path: &Path, sent: &[u8]) -> UnixStream {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.write_all(sent).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    stream
}
