#![allow(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::indexing_slicing,
    reason = "tests compute with small numbers"
)]

use std::ops::ControlFlow;
use std::sync::Mutex;

use super::super::wire::Fields;
use super::*;
use crate::export::{Allocation, Context, Extent, Visit, VisitStatus};
use proptest::prelude::*;

const SIZE: u64 = 300_000;

/// Bytes that can be written, which notes what is done to them.
struct Model {
    bytes: Mutex<Vec<u8>>,
    calls: Mutex<Vec<String>>,
    /// Whether it zeroes by itself.
    zeroes: bool,
}

impl Model {
    fn new(zeroes: bool) -> Self {
        Self { bytes: Mutex::new(vec![7; SIZE as usize]), calls: Mutex::default(), zeroes }
    }

    fn note(&self, call: String) {
        self.calls.lock().unwrap().push(call);
    }

    fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }
}

impl Export for Model {
    fn size(&self) -> u64 {
        SIZE
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), Error> {
        buf.copy_from_slice(&self.bytes.lock().unwrap()[offset as usize..][..buf.len()]);
        Ok(())
    }
    fn extents(&self, range: Range<u64>, visit: &mut Visit<'_>) -> Result<(), Error> {
        let _ = visit(Extent { length: range.end - range.start + 5, kind: Allocation::Zero });
        Ok(())
    }
    fn is_writable(&self) -> bool {
        true
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<(), Error> {
        self.note(format!("write {offset} {}", buf.len()));
        self.bytes.lock().unwrap()[offset as usize..][..buf.len()].copy_from_slice(buf);
        Ok(())
    }
    fn zero(&self, range: Range<u64>, how: Zero) -> Result<(), Error> {
        if !self.zeroes {
            return Err(Error::new(Errno::NotSup, "no"));
        }
        self.note(format!("zero {} {} {how:?}", range.start, range.end));
        self.bytes.lock().unwrap()[range.start as usize..range.end as usize].fill(0);
        Ok(())
    }
    fn can_trim(&self) -> bool {
        true
    }
    fn trim(&self, range: Range<u64>) -> Result<(), Error> {
        self.note(format!("trim {} {}", range.start, range.end));
        Ok(())
    }
    fn flush(&self) -> Result<(), Error> {
        self.note("flush".into());
        Ok(())
    }
    fn contexts(&self) -> Vec<Context> {
        let context = |name: &str, combine| Context { name: name.into(), combine };
        vec![context("x:dirty", Combine::Any), context("x:depth", Combine::Largest)]
    }
    /// Runs of 300 bytes that count up.
    fn status(&self, context: usize, range: Range<u64>, visit: &mut VisitStatus<'_>) -> Result<(), Error> {
        let mut at = range.start;
        while at < range.end {
            let (length, run) = (300 - at % 300, at / 300);
            let flags = if context == 0 { 1 << (run % 3) } else { run };
            if visit(Status { length, flags }) == ControlFlow::Break(()) {
                break;
            }
            at += length;
        }
        Ok(())
    }
}

#[derive(Default)]
struct Collect(Vec<u8>);

impl Wire for Collect {
    fn send(&mut self, bytes: &[u8], _: bool) -> io::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

fn session(style: Style) -> Session {
    Session { export: 0, size: SIZE, style, contexts: 0b111, writable: true, trim: true, minimum_block: 1 }
}

fn answer(export: &dyn Export, style: Style, request: &Request, payload: &[u8]) -> Vec<u8> {
    let (mut wire, mut out) = (Collect::default(), Outbox::new(SMALL_BUFFER));
    respond(&session(style), export, request, payload, &mut out, &mut wire).unwrap();
    out.flush(&mut wire).unwrap();
    wire.0
}

fn request(command: u16, flags: u16, offset: u64, length: u64) -> Request {
    Request { flags, command, cookie: 0xabcd_ef00, offset, length }
}

/// The kinds and contents of the chunks of an extended reply, which must be well formed to the last byte.
fn chunks(bytes: &[u8], request: &Request) -> Vec<(u16, Vec<u8>)> {
    let mut fields = Fields(bytes);
    let mut chunks = Vec::new();
    loop {
        assert_eq!(fields.u32(), Some(EXTENDED_REPLY_MAGIC));
        let (flags, kind) = (fields.u16().unwrap(), fields.u16().unwrap());
        assert_eq!((fields.u64(), fields.u64()), (Some(request.cookie), Some(request.offset)));
        let len = fields.u64().unwrap() as usize;
        chunks.push((kind, fields.bytes(len).unwrap().to_vec()));
        assert_eq!(flags & REPLY_FLAG_DONE != 0, fields.is_empty());
        if fields.is_empty() {
            return chunks;
        }
    }
}

fn errno(bytes: &[u8], request: &Request) -> u32 {
    let chunks = chunks(bytes, request);
    assert_eq!((chunks.len(), chunks[0].0), (1, REPLY_TYPE_ERROR), "{chunks:?}");
    u32::from_be_bytes(chunks[0].1[..4].try_into().unwrap())
}

const EXTENDED: Style = Style::Extended;
const DONE: [(u16, Vec<u8>); 1] = [(REPLY_TYPE_NONE, Vec::new())];

#[test]
fn writes_reach_the_export() {
    let model = Model::new(true);
    let write = request(CMD_WRITE, CMD_FLAG_PAYLOAD_LEN, 10, 5);
    assert_eq!(chunks(&answer(&model, EXTENDED, &write, b"hello"), &write), DONE);
    let durable = request(CMD_WRITE, CMD_FLAG_FUA, 20, 5);
    assert_eq!(answer(&model, Style::Simple, &durable, b"there").len(), 16);
    assert_eq!(model.calls(), ["write 10 5", "write 20 5", "flush"]);
    assert_eq!(model.bytes.lock().unwrap()[8..26], *b"\x07\x07hello\x07\x07\x07\x07\x07there\x07");
}

#[test]
fn flush_trim_and_nothing() {
    let model = Model::new(true);
    for (command, flags, length) in
        [(CMD_FLUSH, 0, 0), (CMD_TRIM, CMD_FLAG_FUA, 100), (CMD_TRIM, 0, 0), (CMD_WRITE_ZEROES, 0, 0), (CMD_READ, 0, 0)]
    {
        let request = request(command, flags, 512, length);
        assert_eq!(chunks(&answer(&model, EXTENDED, &request, &[]), &request), DONE);
    }
    assert_eq!(model.calls(), ["flush", "trim 512 612", "flush"]);
}

#[test]
fn zeros_are_made_by_the_export_or_written() {
    let model = Model::new(true);
    let zero = request(CMD_WRITE_ZEROES, CMD_FLAG_NO_HOLE | CMD_FLAG_FAST_ZERO, 10, 200_000);
    assert_eq!(chunks(&answer(&model, EXTENDED, &zero, &[]), &zero), DONE);
    assert_eq!(model.calls(), ["zero 10 200010 Zero { may_punch: false, fast: true }"]);

    let model = Model::new(false);
    assert_eq!(errno(&answer(&model, EXTENDED, &zero, &[]), &zero), Errno::NotSup.number());
    assert_eq!(model.calls(), [""; 0], "nothing has changed");
    let zero = request(CMD_WRITE_ZEROES, CMD_FLAG_FUA, 10, 100_000);
    assert_eq!(chunks(&answer(&model, EXTENDED, &zero, &[]), &zero), DONE);
    assert_eq!(model.calls(), ["write 10 65536", "write 65546 34464", "flush"]);
    let bytes = model.bytes.lock().unwrap();
    assert!(bytes[10..100_010].iter().all(|&byte| byte == 0));
    assert_eq!((bytes[9], bytes[100_010]), (7, 7));
}

#[test]
fn zeros_without_end_are_not_written() {
    struct Endless;
    impl Export for Endless {
        fn size(&self) -> u64 {
            1 << 60
        }
        fn read_at(&self, _: &mut [u8], _: u64) -> Result<(), Error> {
            Ok(())
        }
        fn write_at(&self, _: &[u8], offset: u64) -> Result<(), Error> {
            if offset > 1 << 20 { Err(Error::io("far enough")) } else { Ok(()) }
        }
    }
    for (length, error) in
        [(MAX_WRITTEN_ZEROS - 1, Errno::Io), (MAX_WRITTEN_ZEROS, Errno::Io), (MAX_WRITTEN_ZEROS + 1, Errno::Overflow)]
    {
        let how = Zero { may_punch: true, fast: false };
        assert_eq!(zero(&Endless, 0..length, how).unwrap_err().errno(), error, "{length}");
    }
}

/// The context and the extents of a wide status chunk.
fn extents((kind, data): &(u16, Vec<u8>)) -> (u32, Vec<(u64, u64)>) {
    assert_eq!(*kind, REPLY_TYPE_BLOCK_STATUS_EXT);
    let mut fields = Fields(data);
    let (context, count) = (fields.u32().unwrap(), fields.u32().unwrap());
    let extents: Vec<_> = std::iter::from_fn(|| Some((fields.u64()?, fields.u64()?))).collect();
    assert_eq!(extents.len(), count as usize);
    (context, extents)
}

#[test]
fn each_context_has_a_chunk() {
    let model = Model::new(true);
    let status = request(CMD_BLOCK_STATUS, 0, 0, 1024);
    let found: Vec<_> = chunks(&answer(&model, EXTENDED, &status, &[]), &status).iter().map(extents).collect();
    // Runs of 300 bytes are 0, 1 in the first sector and 1, 2, 3 in the second.
    assert_eq!(found, [(1, vec![(1024, 2)]), (2, vec![(512, 0b011), (512, 0b111)]), (3, vec![(512, 1), (512, 3)])]);
    let one = request(CMD_BLOCK_STATUS, CMD_FLAG_REQ_ONE, 0, 1024);
    let found: Vec<_> = chunks(&answer(&model, EXTENDED, &one, &[]), &one).iter().map(extents).collect();
    assert_eq!(found, [(1, vec![(1024, 2)]), (2, vec![(512, 0b011)]), (3, vec![(512, 1)])]);
}

#[test]
fn a_payload_chooses_contexts_and_the_length() {
    let model = Model::new(true);
    let status = request(CMD_BLOCK_STATUS, CMD_FLAG_PAYLOAD_LEN, 300, 12);
    let payload = [&300_u64.to_be_bytes()[..], &3_u32.to_be_bytes()].concat();
    let found: Vec<_> = chunks(&answer(&model, EXTENDED, &status, &payload), &status).iter().map(extents).collect();
    assert_eq!(found, [(3, vec![(212, 1), (88, 1)].into_iter().fold(Vec::new(), merge))]);
    assert_eq!(errno(&answer(&model, EXTENDED, &status, &payload[1..]), &status), 22);
}

fn merge(mut all: Vec<(u64, u64)>, (length, flags): (u64, u64)) -> Vec<(u64, u64)> {
    match all.last_mut() {
        Some(last) if last.1 == flags => last.0 += length,
        _ => all.push((length, flags)),
    }
    all
}

#[test]
fn reads_have_extended_headers_too() {
    let model = Model::new(true);
    for flags in [0, CMD_FLAG_DF] {
        for length in [1, 65_536 - 40, 65_536, 200_000] {
            let read = request(CMD_READ, flags, 3, length);
            let chunks = chunks(&answer(&model, EXTENDED, &read, &[]), &read);
            let data = chunks.iter().map(|(kind, data)| match *kind {
                REPLY_TYPE_OFFSET_DATA => data.len() as u64 - 8,
                REPLY_TYPE_OFFSET_HOLE => u64::from(u32::from_be_bytes(data[8..].try_into().unwrap())),
                kind => panic!("{kind:#x}"),
            });
            assert_eq!(data.sum::<u64>(), length);
            assert!(flags == 0 || chunks.len() == 1);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    /// Whatever is written, zeroed and read, in whatever style, the bytes are those of an array.
    #[test]
    fn operations_are_those_of_an_array(
        ops in prop::collection::vec((0..3, 0..SIZE, 1_u64..100_000, any::<u8>(), 0_u16..2), 1..12),
        style in prop_oneof![Just(Style::Simple), Just(Style::Structured), Just(Style::Extended)],
        zeroes: bool,
    ) {
        let model = Model::new(zeroes);
        let mut want = vec![7; SIZE as usize];
        for (op, offset, length, fill, fua) in ops {
            let length = length.min(SIZE - offset);
            let range = offset as usize..(offset + length) as usize;
            match op {
                0 => {
                    let payload = if style == EXTENDED { CMD_FLAG_PAYLOAD_LEN } else { 0 };
                    let bytes = vec![fill; length as usize];
                    answer(&model, style, &request(CMD_WRITE, fua | payload, offset, length), &bytes);
                    want[range].fill(fill);
                }
                1 => {
                    answer(&model, style, &request(CMD_WRITE_ZEROES, fua, offset, length), &[]);
                    want[range].fill(0);
                }
                _ => {
                    let sent = answer(&model, style, &request(CMD_READ, 0, offset, length), &[]);
                    let simple = sent.get(16..).filter(|_| style == Style::Simple);
                    prop_assert!(simple.is_none_or(|data| *data == want[range]));
                }
            }
        }
        prop_assert!(*model.bytes.lock().unwrap() == want);
    }
}
