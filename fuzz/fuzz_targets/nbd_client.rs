//! Any bytes from an NBD server: the client's negotiation ends, what it agrees on makes sense, and a reply gives all of the bytes
//! that were wanted, each once, or an error.
#![no_main]

use std::io;

use hyper2kvm_nbd::protocol::{Assembly, Channel, Dial, ReplyHeader, Style, Take, Want, Wishes};
use libfuzzer_sys::fuzz_target;

struct Said<'a>(&'a [u8]);

impl Channel for Said<'_> {
    fn send(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
    fn receive(&mut self, buf: &mut [u8]) -> io::Result<()> {
        io::Read::read_exact(&mut self.0, buf)
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&mode, input)) = data.split_first() else { return };
    let style = [Style::Simple, Style::Structured, Style::Extended][usize::from(mode & 3).min(2)];
    if mode & 4 == 0 {
        return replies(style, mode, Said(input)).unwrap_or_default();
    }
    let Ok(mut dial) = Dial::greet(Said(input)) else { return };
    if mode & 8 != 0 {
        return drop(dial.list());
    }
    let wishes = Wishes { export: "disk".into(), contexts: vec!["base:allocation".into()], style };
    let Ok((terms, _)) = dial.go(&wishes) else { return };
    assert!(terms.size <= i64::MAX as u64 && terms.size % u64::from(terms.minimum_block) == 0);
    assert!(terms.maximum_block >= terms.minimum_block && terms.maximum_block <= 32 << 20 && terms.contexts.len() <= 1);
});

fn replies(style: Style, mode: u8, mut said: Said<'_>) -> io::Result<()> {
    let want =
        [Want::Done, Want::Data(1000), Want::Status(vec![1], 1 << 40)][usize::from(mode >> 4 & 3).min(2)].clone();
    let (mut reply, mut data, mut got) = (Assembly::new(4096, want.clone()), vec![None; 1000], vec![0; 1000]);
    loop {
        let mut header = [0; ReplyHeader::MAX];
        said.receive(&mut header[..16])?;
        let Ok(len) = ReplyHeader::len(style, &header) else { return Ok(()) };
        said.receive(&mut header[16..len])?;
        let body = ReplyHeader::parse(&header[..len]).expect("all of it is there").body;
        let Ok((take, last)) = reply.begin(style, body) else { return Ok(()) };
        let place = match take {
            Take::Nothing => 0..0,
            Take::All => 0..1000,
            Take::Data(len) => {
                let mut offset = [0; 8];
                said.receive(&mut offset)?;
                let Ok(place) = reply.data(u64::from_be_bytes(offset), len) else { return Ok(()) };
                place
            }
            Take::Digest(len) => {
                assert!(len <= 8 + (16 << 20), "no more than a client takes");
                let Some((bytes, rest)) = said.0.split_at_checked(len) else { return Ok(()) };
                said.0 = rest;
                let Ok(hole) = reply.digest(body, bytes) else { return Ok(()) };
                hole.unwrap_or_default()
            }
        };
        if matches!(take, Take::All | Take::Data(_)) {
            said.receive(&mut got[place.clone()])?;
        }
        data[place].iter_mut().for_each(|byte| assert!(byte.replace(()).is_none(), "no byte twice"));
        if last {
            match (reply.end(), &want) {
                (Ok(_), Want::Data(_)) => assert!(data.iter().all(Option::is_some), "no byte missing"),
                (Ok(told), Want::Status(..)) => {
                    let sum: u64 = told[0].1.iter().map(|status| status.length).sum();
                    assert!(told.len() == 1 && sum > 0 && sum <= 1 << 40);
                }
                _ => {}
            }
            return Ok(());
        }
    }
}
