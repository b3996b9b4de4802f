//! The client's side of a negotiation.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::io;

use super::constants::*;
use super::session::Style;
use super::wire::{Fields, append};
use crate::client::{Error, Kind, Result};
use crate::limits::{
    MAX_LISTED, MAX_MINIMUM_BLOCK, MAX_OPTION_REPLIES, MAX_OPTION_REPLY, MAX_PAYLOAD, MAX_SIZE, MAX_STRING,
};

/// Where a client's bytes go, and where the server's come from.
pub trait Channel {
    /// Sends all of `bytes`.
    fn send(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Fills all of `buf`.
    fn receive(&mut self, buf: &mut [u8]) -> io::Result<()>;
}

/// What a client would like.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    /// The export; empty for the default one.
    pub export: String,
    /// Meta contexts, by name.
    pub contexts: Vec<String>,
    /// The most that is asked for.
    pub style: Style,
}

/// What server and client have agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// In bytes.
    pub size: u64,
    /// Transmission flags.
    pub flags: u16,
    /// How requests and replies look.
    pub style: Style,
    /// Numbers and names of the meta contexts that the server has, in its order.
    pub contexts: Vec<(u32, String)>,
    /// What requests are multiples of.
    pub minimum_block: u32,
    /// What they had better be multiples of.
    pub preferred_block: u32,
    /// The largest payload.
    pub maximum_block: u32,
    /// For people; often empty.
    pub description: String,
}

/// An export in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// For people; often empty.
    pub description: String,
}

/// The client's side of a negotiation.
#[derive(Debug)]
pub struct Dial<C> {
    channel: C,
    no_zeroes: bool,
}

/// One reply to an option.
struct OptionReply {
    kind: u32,
    data: Vec<u8>,
}

impl<C: Channel> Dial<C> {
    /// Exchanges greetings.
    ///
    /// # Errors
    /// If the other side is no NBD server, or one from before 2011.
    pub fn greet(mut channel: C) -> Result<Self> {
        let mut greeting = [0; 18];
        channel.receive(&mut greeting)?;
        let mut fields = Fields(&greeting);
        let (magic, second, flags) = (fields.u64(), fields.u64(), fields.u16().unwrap_or_default());
        if magic != Some(INIT_MAGIC) {
            return Err(Error::protocol("its greeting is not NBD's"));
        }
        if second != Some(IHAVEOPT) || flags & FLAG_FIXED_NEWSTYLE == 0 {
            return Err(Error::new(Kind::Refused, "the NBD server only knows the old negotiation of before 2011"));
        }
        let no_zeroes = flags & FLAG_NO_ZEROES != 0;
        let answer = u32::from(FLAG_FIXED_NEWSTYLE | if no_zeroes { FLAG_NO_ZEROES } else { 0 });
        channel.send(&answer.to_be_bytes())?;
        Ok(Self { channel, no_zeroes })
    }

    /// Asks for TLS, and gives the channel to `secure` for it. Nothing said before counts any more.
    ///
    /// # Errors
    /// If the server does not want to, or `secure` fails.
    pub fn start_tls<S: Channel>(mut self, secure: impl FnOnce(C) -> Result<S>) -> Result<Dial<S>> {
        self.say(OPT_STARTTLS, &[])?;
        let reply = self.reply(OPT_STARTTLS)?;
        if reply.kind != REP_ACK {
            return Err(refusal("TLS", &reply));
        }
        Ok(Dial { channel: secure(self.channel)?, no_zeroes: self.no_zeroes })
    }

    /// The server's exports.
    ///
    /// # Errors
    /// If the server does not list them.
    pub fn list(&mut self) -> Result<Vec<Listed>> {
        self.say(OPT_LIST, &[])?;
        let mut listed = Vec::new();
        loop {
            let reply = self.reply(OPT_LIST)?;
            match reply.kind {
                REP_ACK => return Ok(listed),
                REP_SERVER => {
                    let mut fields = Fields(&reply.data);
                    let name = fields.string().ok_or_else(|| Error::protocol("a listed name is cut short"))?;
                    listed.push(Listed { name: text(name)?, description: text(fields.0)? });
                    if listed.len() > MAX_LISTED {
                        return Err(Error::protocol("its list of exports has no end"));
                    }
                }
                _ => return Err(refusal("the list of exports", &reply)),
            }
        }
    }

    /// Agrees on everything and enters transmission.
    ///
    /// # Errors
    /// If the server has no such export or will not give it.
    pub fn go(mut self, wishes: &Wishes) -> Result<(Terms, C)> {
        let style = self.style(wishes.style)?;
        let contexts = match style {
            Style::Simple => Vec::new(),
            _ => self.contexts(&wishes.export, &wishes.contexts)?,
        };
        let mut data = string(&wishes.export);
        append(&mut data, &[&2_u16.to_be_bytes(), &INFO_BLOCK_SIZE.to_be_bytes(), &INFO_DESCRIPTION.to_be_bytes()]);
        self.say(OPT_GO, &data)?;
        let mut terms = Terms {
            size: u64::MAX,
            flags: 0,
            style,
            contexts,
            minimum_block: 1,
            preferred_block: 4096,
            maximum_block: MAX_PAYLOAD,
            description: String::new(),
        };
        for _ in 0..MAX_OPTION_REPLIES {
            let reply = self.reply(OPT_GO)?;
            match reply.kind {
                REP_INFO => terms.note(&reply.data)?,
                REP_ACK => return terms.check().map(|terms| (terms, self.channel)),
                REP_ERR_UNSUP if style != Style::Extended => return self.export_name(&wishes.export, terms),
                _ => return Err(refusal(&format!("the export {:?}", wishes.export), &reply)),
            }
        }
        Err(Error::protocol("its answer to GO has no end"))
    }

    /// The old way, for servers that do not know `OPT_GO`. An unknown name ends the connection.
    fn export_name(mut self, name: &str, mut terms: Terms) -> Result<(Terms, C)> {
        self.say(OPT_EXPORT_NAME, name.as_bytes())?;
        let mut answer = [0; 134];
        let answer = if self.no_zeroes {
            answer.first_chunk_mut::<10>().map_or(&mut [][..], |short| short)
        } else {
            &mut answer
        };
        self.channel.receive(answer)?;
        terms.note(&[&INFO_EXPORT.to_be_bytes()[..], answer.get(..10).unwrap_or_default()].concat())?;
        terms.check().map(|terms| (terms, self.channel))
    }

    fn style(&mut self, most: Style) -> Result<Style> {
        for (style, option) in [(Style::Extended, OPT_EXTENDED_HEADERS), (Style::Structured, OPT_STRUCTURED_REPLY)] {
            if style > most {
                continue;
            }
            self.say(option, &[])?;
            let reply = self.reply(option)?;
            match reply.kind {
                REP_ACK => return Ok(style),
                REP_ERR_TLS_REQD => return Err(refusal("anything", &reply)),
                kind if kind >= REP_ERR_UNSUP => {}
                _ => return Err(Error::protocol("it answers a question that takes yes or no with something else")),
            }
        }
        Ok(Style::Simple)
    }

    fn contexts(&mut self, export: &str, wanted: &[String]) -> Result<Vec<(u32, String)>> {
        let mut found: Vec<(u32, String)> = Vec::new();
        if wanted.is_empty() {
            return Ok(found);
        }
        let mut data = string(export);
        append(&mut data, &[&u32::try_from(wanted.len()).unwrap_or(u32::MAX).to_be_bytes()]);
        wanted.iter().for_each(|name| data.extend(string(name)));
        self.say(OPT_SET_META_CONTEXT, &data)?;
        loop {
            let reply = self.reply(OPT_SET_META_CONTEXT)?;
            match reply.kind {
                REP_META_CONTEXT => {
                    let mut fields = Fields(&reply.data);
                    let number = fields.u32().ok_or_else(|| Error::protocol("a meta context is cut short"))?;
                    let name = text(fields.0)?;
                    let known = found.iter().any(|(other, known)| *other == number || *known == name);
                    if known || !wanted.contains(&name) {
                        return Err(Error::protocol("it gives meta contexts twice, or such that nobody asked for"));
                    }
                    found.push((number, name));
                }
                REP_ACK => return Ok(found),
                REP_ERR_UNSUP => return Ok(Vec::new()),
                _ => return Err(refusal(&format!("the export {export:?}"), &reply)),
            }
        }
    }

    fn say(&mut self, option: u32, data: &[u8]) -> Result<()> {
        let len = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let mut bytes = Vec::new();
        append(&mut bytes, &[&IHAVEOPT.to_be_bytes(), &option.to_be_bytes(), &len.to_be_bytes(), data]);
        Ok(self.channel.send(&bytes)?)
    }

    fn reply(&mut self, asked: u32) -> Result<OptionReply> {
        let mut header = [0; 20];
        self.channel.receive(&mut header)?;
        let mut fields = Fields(&header);
        let (magic, option) = (fields.u64(), fields.u32());
        if magic != Some(REP_MAGIC) || option != Some(asked) {
            return Err(Error::protocol("it answers something that was not asked"));
        }
        let (kind, len) = (fields.u32().unwrap_or_default(), fields.u32().unwrap_or_default());
        let len = usize::try_from(len).ok().filter(|&len| len <= MAX_OPTION_REPLY);
        let mut data = vec![0; len.ok_or_else(|| Error::protocol("an answer in its negotiation is too long"))?];
        self.channel.receive(&mut data)?;
        Ok(OptionReply { kind, data })
    }
}

impl Terms {
    /// Takes a detail of the export.
    fn note(&mut self, data: &[u8]) -> Result<()> {
        let mut fields = Fields(data);
        let kind = fields.u16().ok_or_else(|| Error::protocol("a detail of the export is cut short"))?;
        match kind {
            INFO_EXPORT => {
                let (Some(size), Some(flags), true) = (fields.u64(), fields.u16(), fields.is_empty()) else {
                    return Err(Error::protocol("size and flags of the export are malformed"));
                };
                (self.size, self.flags) = (size, flags);
            }
            INFO_BLOCK_SIZE => {
                let (Some(minimum), Some(preferred), Some(maximum), true) =
                    (fields.u32(), fields.u32(), fields.u32(), fields.is_empty())
                else {
                    return Err(Error::protocol("the block sizes are malformed"));
                };
                (self.minimum_block, self.preferred_block, self.maximum_block) = (minimum, preferred, maximum);
            }
            INFO_DESCRIPTION => self.description = text(fields.0)?,
            _ => {}
        }
        Ok(())
    }

    fn check(mut self) -> Result<Self> {
        let (minimum, preferred, maximum) = (self.minimum_block, self.preferred_block, self.maximum_block);
        if self.size > MAX_SIZE {
            return Err(Error::protocol("it tells no size, or one of more than 8 EiB"));
        }
        if self.flags & FLAG_HAS_FLAGS == 0 {
            return Err(Error::protocol("the export has no flags"));
        }
        if !minimum.is_power_of_two() || minimum > MAX_MINIMUM_BLOCK || preferred < minimum || maximum < minimum {
            return Err(Error::protocol("the block sizes make no sense"));
        }
        if !self.size.is_multiple_of(minimum.into()) {
            return Err(Error::protocol("the size is no multiple of the minimum block size"));
        }
        let maximum = maximum.min(MAX_PAYLOAD);
        self.maximum_block = maximum.saturating_sub(maximum.checked_rem(minimum).unwrap_or(0));
        Ok(self)
    }
}

/// A length and a text. Texts that are sent are at most [`MAX_STRING`] long.
fn string(text: &str) -> Vec<u8> {
    let mut bytes = u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes().to_vec();
    bytes.extend(text.bytes());
    bytes
}

fn text(bytes: &[u8]) -> Result<String> {
    if bytes.len() > MAX_STRING {
        return Err(Error::protocol("a text is longer than 4096 bytes"));
    }
    Ok(String::from_utf8_lossy(bytes).into_owned())
}

fn refusal(what: &str, reply: &OptionReply) -> Error {
    let why = match reply.kind {
        REP_ERR_UNSUP => "it does not know how",
        REP_ERR_POLICY => "its policy forbids it",
        REP_ERR_INVALID => "it finds the question invalid",
        REP_ERR_PLATFORM => "its platform cannot do it",
        REP_ERR_TLS_REQD => "it wants TLS: use nbds:// with tls-certificates",
        REP_ERR_UNKNOWN => "it has no such export",
        REP_ERR_SHUTDOWN => "it is shutting down",
        REP_ERR_BLOCK_SIZE_REQD => "it wants its block sizes to be respected",
        REP_ERR_TOO_BIG => "the question is too big for it",
        REP_ERR_EXT_HEADER_REQD => "it wants extended headers",
        kind if kind < REP_ERR_UNSUP => return Error::protocol("it gives an answer that belongs to another question"),
        _ => "it does not say why in words of the protocol",
    };
    let data = reply.data.get(..reply.data.len().min(MAX_STRING)).unwrap_or_default();
    let said = String::from_utf8_lossy(data);
    let said: String = said.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let said = if said.is_empty() { said } else { format!(" ({said})") };
    let kind = match reply.kind {
        REP_ERR_SHUTDOWN => Kind::Lost,
        REP_ERR_UNKNOWN => Kind::Missing,
        _ => Kind::Refused,
    };
    Error::new(kind, format!("the NBD server refuses {what}: {why}{said}"))
}

#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::indexing_slicing,
    reason = "tests compute with small numbers"
)]
mod tests {
    use super::*;

    /// A server that has said everything beforehand.
    struct Said(Vec<u8>);

    impl Channel for Said {
        fn send(&mut self, _: &[u8]) -> io::Result<()> {
            Ok(())
        }
        fn receive(&mut self, buf: &mut [u8]) -> io::Result<()> {
            let rest = self.0.split_off(buf.len().min(self.0.len()));
            let head = std::mem::replace(&mut self.0, rest);
            if head.len() < buf.len() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            buf.copy_from_slice(&head);
            Ok(())
        }
    }

    fn reply(option: u32, kind: u32, data: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let len = (data.len() as u32).to_be_bytes();
        append(&mut bytes, &[&REP_MAGIC.to_be_bytes(), &option.to_be_bytes(), &kind.to_be_bytes(), &len, data]);
        bytes
    }

    fn dial(said: Vec<u8>) -> Dial<Said> {
        Dial { channel: Said(said), no_zeroes: true }
    }

    #[test]
    fn lists_have_an_end() {
        for (count, ok) in [(MAX_LISTED - 1, true), (MAX_LISTED, true), (MAX_LISTED + 1, false)] {
            let entries = reply(OPT_LIST, REP_SERVER, b"\0\0\0\x01xwhat").repeat(count);
            let listed = dial([entries, reply(OPT_LIST, REP_ACK, b"")].concat()).list();
            assert_eq!(listed.map(|listed| listed.len()).ok(), ok.then_some(count));
        }
    }

    #[test]
    fn texts_and_replies_have_a_length() {
        let list = |name: usize, description: usize| {
            let entry = [&(name as u32).to_be_bytes()[..], &vec![b'n'; name], &vec![b'd'; description]].concat();
            dial([reply(OPT_LIST, REP_SERVER, &entry), reply(OPT_LIST, REP_ACK, b"")].concat()).list().is_ok()
        };
        for (len, ok) in [(MAX_STRING - 1, true), (MAX_STRING, true), (MAX_STRING + 1, false)] {
            assert_eq!((list(len, 0), list(0, len)), (ok, ok), "{len}");
        }
        for (len, kind) in [
            (MAX_OPTION_REPLY - 1, Kind::Refused),
            (MAX_OPTION_REPLY, Kind::Refused),
            (MAX_OPTION_REPLY + 1, Kind::Protocol),
        ] {
            let error = dial(reply(OPT_LIST, REP_ERR_POLICY, &vec![b'\x1b'; len])).list().unwrap_err();
            assert_eq!(error.kind(), kind, "{len}");
            assert!(!error.to_string().contains('\x1b'), "what a server says does not steer a terminal");
        }
    }

    #[test]
    fn a_server_from_before_go_is_used_by_name() {
        let said = [
            &reply(OPT_STRUCTURED_REPLY, REP_ERR_UNSUP, b"")[..],
            &reply(OPT_GO, REP_ERR_UNSUP, b""),
            &512_u64.to_be_bytes(),
            &FLAG_HAS_FLAGS.to_be_bytes(),
        ];
        let wishes = Wishes { style: Style::Structured, ..Wishes::default() };
        let (terms, _) = dial(said.concat()).go(&wishes).unwrap();
        assert_eq!((terms.size, terms.style, terms.flags), (512, Style::Simple, FLAG_HAS_FLAGS));
    }

    #[test]
    fn a_negotiation_may_end_at_any_byte() {
        let info = [&[0, 0][..], &512_u64.to_be_bytes(), &FLAG_HAS_FLAGS.to_be_bytes()].concat();
        let said = [
            &b"NBDMAGICIHAVEOPT\0\x03"[..],
            &reply(OPT_EXTENDED_HEADERS, REP_ACK, b""),
            &reply(OPT_SET_META_CONTEXT, REP_META_CONTEXT, b"\0\0\0\x01a:b"),
            &reply(OPT_SET_META_CONTEXT, REP_ACK, b""),
            &reply(OPT_GO, REP_INFO, &info),
            &reply(OPT_GO, REP_ACK, b""),
        ];
        let said = said.concat();
        let wishes = Wishes { style: Style::Extended, contexts: vec!["a:b".into()], ..Wishes::default() };
        let go = |len: usize| {
            Dial::greet(Said(said[..len].to_vec())).and_then(|dial| dial.go(&wishes)).map(|(terms, _)| terms)
        };
        for len in 0..said.len() {
            assert_eq!(go(len).unwrap_err().kind(), Kind::Lost, "{len}");
        }
        assert_eq!(go(said.len()).unwrap().contexts, [(1, "a:b".to_owned())]);
    }
}
