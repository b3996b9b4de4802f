//! Any bytes from an NBD client: the negotiation ends in bounded steps, each request has one well-formed reply, and reads give
//! the bytes of the export.
#![no_main]

use std::{io, ops::Range, sync::Arc};

use hyper2kvm_nbd::protocol::{
    Action, Catalogue, ExportInfo, Handshake, Outbox, Request, Session, Step, Style, Tls, Wire, respond,
};
use hyper2kvm_nbd::{Allocation, Error, Export, Extent, Visit};
use libfuzzer_sys::fuzz_target;

const SIZE: usize = 200_000;

/// Runs of 10,000 bytes, every third of them a hole.
struct Striped;

impl Export for Striped {
    fn size(&self) -> u64 {
        SIZE as u64
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), Error> {
        (offset..).zip(buf).for_each(|(at, byte)| *byte = if at / 10_000 % 3 == 2 { 0 } else { at as u8 | 1 });
        Ok(())
    }
    fn write_at(&self, _: &[u8], _: u64) -> Result<(), Error> {
        Ok(())
    }
    fn extents(&self, range: Range<u64>, visit: &mut Visit<'_>) -> Result<(), Error> {
        let mut at = range.start;
        while at < range.end {
            let kind = if at / 10_000 % 3 == 2 { Allocation::Hole } else { Allocation::Data };
            let length = 10_000 - at % 10_000;
            if visit(Extent { length, kind }).is_break() {
                break;
            }
            at += length;
        }
        Ok(())
    }
}

struct Sent(Vec<u8>);

impl Wire for Sent {
    fn send(&mut self, bytes: &[u8], _: bool) -> io::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&mode, mut input)) = data.split_first() else { return };
    let style = [Style::Simple, Style::Structured, Style::Extended][usize::from(mode >> 1 & 3).min(2)];
    let contexts = u64::from(style > Style::Simple && mode & 8 != 0);
    let (size, writable) = (SIZE as u64, mode & 16 != 0);
    let known = Session { export: 0, size, style, contexts, writable, trim: mode & 32 != 0, minimum_block: 1 };
    let Some(session) = (if mode & 1 != 0 { Some(known) } else { negotiate(&mut input) }) else { return };
    let mut out = Outbox::new(0);
    while let Some((head, rest)) = input.split_at_checked(session.style.request_size() - 4) {
        let magic = session.style.request_magic().to_be_bytes();
        let request = Request::parse(&[&magic, head].concat(), session.style).expect("a request");
        let Some(payload) = request.payload(session.style) else { return };
        let Some((payload, rest)) = rest.split_at_checked(payload as usize) else { return };
        input = rest;
        let mut sent = Sent(Vec::new());
        respond(&session, &Striped, &request, payload, &mut out, &mut sent).expect("this export does not fail");
        out.flush(&mut sent).expect("memory takes everything");
        check(&session, &request, payload, &sent.0);
    }
});

fn negotiate(input: &mut &[u8]) -> Option<Session> {
    let catalogue = Catalogue::new(vec![ExportInfo::of("a", &Striped), ExportInfo::of("b", &Striped)]);
    let (mut handshake, mut output) = Handshake::new(Arc::new(catalogue), Tls::None);
    loop {
        output.clear();
        let (used, step) = handshake.advance(input, &mut output, &mut || true);
        assert!(output.len() < 1000, "a client gets no more than what there is to say");
        *input = &input[used.min(input.len())..];
        match step {
            Step::Next => assert!(used > 0),
            Step::Transmit(session) => return Some(session),
            Step::More | Step::Close | Step::StartTls => return None,
        }
    }
}

fn check(session: &Session, request: &Request, payload: &[u8], mut sent: &[u8]) {
    let action = session.action(request, payload);
    if action == Action::Disconnect {
        return assert!(sent.is_empty());
    }
    let mut want = Vec::new();
    if let Action::Read { .. } = action {
        want.resize(request.length as usize, 0);
        Striped.read_at(&mut want, request.offset).expect("computed");
    }
    if session.style == Style::Simple {
        assert_eq!((&sent[..4], &sent[8..16]), (&[0x67, 0x44, 0x66, 0x98][..], &request.cookie.to_be_bytes()[..]));
        return assert_eq!(&sent[16..], want);
    }
    let mut got = Vec::new();
    let (magic, len) = if session.style == Style::Extended { (0x6e8a_278c_u32, 32) } else { (0x668e_33ef, 20) };
    loop {
        assert_eq!((&sent[..4], &sent[8..16]), (&magic.to_be_bytes()[..], &request.cookie.to_be_bytes()[..]));
        let body = &sent[len..len + u32::from_be_bytes(sent[len - 4..len].try_into().expect("four")) as usize];
        match sent[6..8] {
            [0, 1] => got.extend_from_slice(&body[8..]),
            [0, 2] => got.resize(got.len() + u32::from_be_bytes(body[8..].try_into().expect("four")) as usize, 0),
            _ => {}
        }
        let last = sent[5] == 1;
        sent = &sent[len + body.len()..];
        assert_eq!(last, sent.is_empty());
        if last {
            break;
        }
    }
    assert_eq!(got, want);
}
