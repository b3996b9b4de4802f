#![allow(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::indexing_slicing,
    reason = "tests compute with small numbers"
)]

use super::super::wire::Fields;
use super::*;
use crate::export::{Allocation, Errno, Extent, Visit};
use crate::limits::{LARGE_BUFFER, MAX_PAYLOAD, MAX_RUNS, MIN_HOLE};
use proptest::prelude::*;

/// Bytes in memory with a map, and a range that cannot be read.
#[derive(Debug)]
struct Model {
    bytes: Vec<u8>,
    map: Vec<Extent>,
    bad: Range<u64>,
}

impl Model {
    fn new(map: &[(u64, Allocation)]) -> Self {
        let map: Vec<Extent> = map.iter().map(|&(length, kind)| Extent { length, kind }).collect();
        let mut bytes = Vec::new();
        for extent in &map {
            let start = bytes.len() as u64;
            let byte = |at: u64| if extent.kind.is_zero() { 0 } else { (at % 251) as u8 + 1 };
            bytes.extend((start..start + extent.length).map(byte));
        }
        Self { bytes, map, bad: 0..0 }
    }
}

impl Export for Model {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), Error> {
        if offset < self.bad.end && self.bad.start < offset + buf.len() as u64 {
            return Err(Error::io("bad sector"));
        }
        buf.copy_from_slice(&self.bytes[offset as usize..][..buf.len()]);
        Ok(())
    }

    /// The last extent reaches beyond the range, as the trait allows.
    fn extents(&self, range: Range<u64>, visit: &mut Visit<'_>) -> Result<(), Error> {
        let mut start = 0;
        for extent in &self.map {
            let end = start + extent.length;
            if end > range.start && start < range.end {
                let extent = Extent { length: end - start.max(range.start), ..*extent };
                if visit(extent).is_break() {
                    break;
                }
            }
            start = end;
        }
        Ok(())
    }
}

/// Collects what is sent, and checks that `more` is used only in the middle of a reply.
#[derive(Default)]
struct Collect {
    sent: Vec<u8>,
    calls: usize,
    open: bool,
}

impl Wire for Collect {
    fn send(&mut self, bytes: &[u8], more: bool) -> io::Result<()> {
        self.sent.extend_from_slice(bytes);
        self.calls += 1;
        self.open = more;
        Ok(())
    }
}

/// Bytes of the header of a structured chunk.
const CHUNK: usize = 20;
/// Bytes of the header of one with data.
const DATA_CHUNK: usize = 28;

fn session(export: &dyn Export, structured: bool) -> Session {
    Session {
        export: 0,
        size: export.size(),
        style: if structured { Style::Structured } else { Style::Simple },
        contexts: u64::from(structured),
        writable: false,
        trim: false,
        minimum_block: 1,
    }
}

fn request(command: u16, flags: u16, offset: u64, length: u32) -> Request {
    Request { flags, command, cookie: 0x1122_3344_5566_7788, offset, length: length.into() }
}

fn simple_header(cookie: u64, errno: u32) -> Vec<u8> {
    [&SIMPLE_REPLY_MAGIC.to_be_bytes()[..], &errno.to_be_bytes(), &cookie.to_be_bytes()].concat()
}

fn answer(export: &dyn Export, structured: bool, request: &Request, capacity: usize) -> io::Result<Vec<u8>> {
    let mut wire = Collect::default();
    let mut out = Outbox::new(capacity);
    respond(&session(export, structured), export, request, &[], &mut out, &mut wire)?;
    assert!(!wire.open, "the reply is complete");
    out.flush(&mut wire)?;
    assert!(out.is_empty());
    Ok(wire.sent)
}

#[derive(Debug, PartialEq)]
struct Chunk {
    kind: u16,
    data: Vec<u8>,
}

/// Takes apart a structured reply, which must be well formed to the last byte.
fn chunks(bytes: &[u8]) -> Vec<Chunk> {
    let mut fields = Fields(bytes);
    let mut chunks = Vec::new();
    while !fields.is_empty() {
        assert_eq!(fields.u32(), Some(STRUCTURED_REPLY_MAGIC));
        let (flags, kind) = (fields.u16().unwrap(), fields.u16().unwrap());
        assert_eq!(fields.u64(), Some(0x1122_3344_5566_7788));
        let data = fields.string().expect("all of the chunk").to_vec();
        assert_eq!(flags, u16::from(fields.is_empty()), "the last chunk, and no other, is marked as the last");
        chunks.push(Chunk { kind, data });
    }
    chunks
}

/// The bytes that the chunks of a read amount to, each told exactly once, in order.
fn content(chunks: &[Chunk], request: &Request) -> Vec<u8> {
    let mut bytes = Vec::new();
    for chunk in chunks {
        let mut fields = Fields(&chunk.data);
        assert_eq!(fields.u64(), Some(request.offset + bytes.len() as u64));
        match chunk.kind {
            REPLY_TYPE_OFFSET_DATA => bytes.extend_from_slice(fields.0),
            REPLY_TYPE_OFFSET_HOLE => {
                bytes.resize(bytes.len() + fields.u32().unwrap() as usize, 0);
                assert!(fields.is_empty());
            }
            kind => panic!("chunk {kind:#x} in a read"),
        }
    }
    bytes
}

fn errno_of(chunks: &[Chunk]) -> u32 {
    let last = chunks.last().unwrap();
    assert!(last.kind & 0x8000 != 0, "{last:?}");
    Fields(&last.data).u32().unwrap()
}

fn extents_of(bytes: &[u8]) -> Vec<(u32, u32)> {
    let chunks = chunks(bytes);
    assert_eq!((chunks.len(), chunks[0].kind), (1, REPLY_TYPE_BLOCK_STATUS));
    let mut fields = Fields(&chunks[0].data);
    assert_eq!(fields.u32(), Some(Session::ALLOCATION_CONTEXT));
    std::iter::from_fn(|| Some((fields.u32()?, fields.u32()?))).collect()
}

const K: u64 = 1 << 10;

#[test]
fn holes_are_not_sent() {
    let model = Model::new(&[(64 * K, Allocation::Data), (64 * K, Allocation::Hole), (8 * K, Allocation::Zero)]);
    let all = request(CMD_READ, 0, 0, 136 << 10);
    let sent = answer(&model, true, &all, LARGE_BUFFER).unwrap();
    assert_eq!(sent.len(), DATA_CHUNK + (64 << 10) + CHUNK + 12);
    let found = chunks(&sent);
    assert_eq!(
        found.iter().map(|chunk| chunk.kind).collect::<Vec<_>>(),
        [REPLY_TYPE_OFFSET_DATA, REPLY_TYPE_OFFSET_HOLE]
    );
    assert_eq!(content(&found, &all), model.bytes);
}

#[test]
fn df_sends_holes_as_zeros_in_one_chunk() {
    let model = Model::new(&[(100 * K, Allocation::Data), (100 * K, Allocation::Hole)]);
    for capacity in [SMALL_BUFFER, LARGE_BUFFER] {
        let all = request(CMD_READ, CMD_FLAG_DF, 1, (200 << 10) - 1);
        let found = chunks(&answer(&model, true, &all, capacity).unwrap());
        assert_eq!((found.len(), found[0].kind), (1, REPLY_TYPE_OFFSET_DATA));
        assert_eq!(content(&found, &all), model.bytes[1..]);
    }
}

#[test]
fn short_reads_and_short_holes_are_one_chunk() {
    let model = Model::new(&[(K, Allocation::Data), (K, Allocation::Hole)].repeat(32));
    for length in [1, MIN_SPARSE_READ - 1, MIN_SPARSE_READ, 60 << 10] {
        let found = chunks(&answer(&model, true, &request(CMD_READ, 0, 0, length), SMALL_BUFFER).unwrap());
        assert_eq!(found.len(), 1, "{length}");
    }
    for (hole, count) in [(MIN_HOLE - 1, 1), (MIN_HOLE, 3), (MIN_HOLE + 1, 3)] {
        let model = Model::new(&[(16 * K, Allocation::Data), (hole, Allocation::Hole), (16 * K, Allocation::Data)]);
        let found = chunks(&answer(&model, true, &request(CMD_READ, 0, 0, 34 << 10), SMALL_BUFFER).unwrap());
        assert_eq!(found.len(), count, "{hole}");
    }
}

#[test]
fn the_number_of_runs_in_a_read_is_bounded() {
    for pairs in [MAX_RUNS / 2 - 1, MAX_RUNS / 2, MAX_RUNS] {
        let model = Model::new(&[(MIN_HOLE, Allocation::Data), (MIN_HOLE, Allocation::Hole)].repeat(pairs));
        let all = request(CMD_READ, 0, 0, model.bytes.len() as u32);
        let found = chunks(&answer(&model, true, &all, LARGE_BUFFER).unwrap());
        assert!(found.len() <= MAX_RUNS + 4, "{}", found.len());
        assert_eq!(content(&found, &all), model.bytes);
    }
}

#[test]
fn an_error_is_told_with_its_place() {
    let mut model = Model::new(&[(256 * K, Allocation::Data)]);
    model.bad = 100 * K..101 * K;
    let all = request(CMD_READ, 0, 0, 256 << 10);
    let found = chunks(&answer(&model, true, &all, SMALL_BUFFER).unwrap());
    let last = found.last().unwrap();
    assert_eq!((last.kind, errno_of(&found)), (REPLY_TYPE_ERROR_OFFSET, 5));
    assert_eq!(last.data[6..16], *b"bad sector");
    let at = u64::from_be_bytes(last.data[16..].try_into().unwrap());
    assert!(at <= 100 * K && at + SMALL_BUFFER as u64 > 100 * K);
    assert_eq!(content(&found[..found.len() - 1], &all), model.bytes[..at as usize]);

    let simple = answer(&model, false, &all, LARGE_BUFFER).unwrap();
    assert_eq!(simple, simple_header(all.cookie, 5));
}

#[test]
fn an_error_in_the_middle_of_a_streamed_reply_ends_the_connection() {
    let mut model = Model::new(&[(256 * K, Allocation::Data)]);
    model.bad = 100 * K..101 * K;
    for (structured, flags) in [(false, 0), (true, CMD_FLAG_DF)] {
        assert!(answer(&model, structured, &request(CMD_READ, flags, 0, 256 << 10), SMALL_BUFFER).is_err());
    }
}

#[test]
fn a_panic_is_an_error_of_one_request() {
    struct Panics;
    impl Export for Panics {
        fn size(&self) -> u64 {
            1 << 20
        }
        fn read_at(&self, _: &mut [u8], _: u64) -> Result<(), Error> {
            panic!("a bug in a parser")
        }
        fn extents(&self, _: Range<u64>, _: &mut Visit<'_>) -> Result<(), Error> {
            panic!("a bug in a parser")
        }
        fn prefetch(&self, _: Range<u64>) {
            panic!("a bug in a parser")
        }
    }
    for command in [CMD_READ, CMD_CACHE, CMD_BLOCK_STATUS] {
        let found = chunks(&answer(&Panics, true, &request(command, 0, 0, 1 << 20), SMALL_BUFFER).unwrap());
        assert_eq!(errno_of(&found), 5);
    }
}

#[test]
fn what_is_refused_says_why() {
    let model = Model::new(&[(K, Allocation::Data)]);
    for (command, flags, length, errno) in [
        (CMD_WRITE, 0, 512, Errno::Perm),
        (CMD_TRIM, 0, 512, Errno::Perm),
        (CMD_WRITE_ZEROES, 0, 512, Errno::Perm),
        (CMD_READ, 0, 1025, Errno::Inval),
        (CMD_READ, 1 << 9, 512, Errno::Inval),
        (CMD_BLOCK_STATUS, 0, 0, Errno::Inval),
        (CMD_BLOCK_STATUS, 0, 1025, Errno::Inval),
        (CMD_CACHE, 0, 1025, Errno::Inval),
        (8, 0, 0, Errno::Inval),
        (u16::MAX, 0, 0, Errno::Inval),
    ] {
        let request = request(command, flags, 0, length);
        let found = chunks(&answer(&model, true, &request, SMALL_BUFFER).unwrap());
        assert_eq!(errno_of(&found), errno.number(), "{request:?}");
        let simple = answer(&model, false, &request, SMALL_BUFFER).unwrap();
        assert_eq!(simple, simple_header(request.cookie, errno.number()), "{request:?}");
    }
}

#[test]
fn what_has_no_data_is_acknowledged() {
    let model = Model::new(&[(K, Allocation::Data)]);
    for (command, offset, length) in
        [(CMD_FLUSH, 0, 0), (CMD_CACHE, 0, 1024), (CMD_READ, 1024, 0), (CMD_CACHE, 1024, 0)]
    {
        let request = request(command, 0, offset, length);
        assert_eq!(
            chunks(&answer(&model, true, &request, SMALL_BUFFER).unwrap()),
            [Chunk { kind: 0, data: Vec::new() }]
        );
        assert_eq!(answer(&model, false, &request, SMALL_BUFFER).unwrap(), simple_header(request.cookie, 0));
    }
    assert_eq!(answer(&model, true, &request(CMD_DISC, 0, 0, 0), SMALL_BUFFER).unwrap(), []);
}

#[test]
fn equal_neighbours_are_one_extent() {
    let kinds = [Allocation::Data, Allocation::Data, Allocation::Zero, Allocation::Zero, Allocation::Hole];
    let model = Model::new(&kinds.map(|kind| (K, kind)));
    let status = |flags, offset, length| {
        extents_of(&answer(&model, true, &request(CMD_BLOCK_STATUS, flags, offset, length), SMALL_BUFFER).unwrap())
    };
    assert_eq!(status(0, 0, 5 << 10), [(2048, 0), (2048, 2), (1024, 3)]);
    assert_eq!(status(0, 1, 2048), [(2047, 0), (1, 2)]);
    assert_eq!(status(CMD_FLAG_REQ_ONE, 1, 2048), [(2047, 0)]);
    assert_eq!(status(CMD_FLAG_REQ_ONE, 0, 5), [(5, 0)]);
    assert_eq!(status(0, 5119, 1), [(1, 3)]);
}

#[test]
fn extents_end_where_sectors_end() {
    use Allocation::{Data, Hole, Zero};
    let status = |map: &[(u64, Allocation)]| {
        let model = Model::new(map);
        let all = request(CMD_BLOCK_STATUS, 0, 0, model.bytes.len() as u32);
        extents_of(&answer(&model, true, &all, SMALL_BUFFER).unwrap())
    };
    assert_eq!(status(&[(1000, Data), (1048, Hole)]), [(1024, 0), (1024, 3)]);
    assert_eq!(status(&[(1000, Hole), (1048, Data)]), [(512, 3), (1536, 0)]);
    assert_eq!(status(&[(1000, Hole), (1, Data), (1047, Hole)]), [(512, 3), (512, 0), (1024, 3)]);
    assert_eq!(status(&[(1000, Hole), (24, Zero), (512, Hole)]), [(512, 3), (512, 2), (512, 3)]);
    assert_eq!(status(&[(100, Hole), (100, Zero), (100, Data), (300, Hole)]), [(512, 0), (88, 3)]);
}

#[test]
fn the_number_of_extents_is_bounded() {
    for count in [MAX_EXTENTS - 1, MAX_EXTENTS, MAX_EXTENTS + 1] {
        let map: Vec<_> =
            (0..count).map(|at| (512, if at % 2 == 0 { Allocation::Data } else { Allocation::Hole })).collect();
        let model = Model::new(&map);
        let all = request(CMD_BLOCK_STATUS, 0, 0, count * 512);
        assert_eq!(extents_of(&answer(&model, true, &all, SMALL_BUFFER).unwrap()).len() as u32, count.min(MAX_EXTENTS));
    }
}

/// An export of any size that is all hole, but for what `data` says.
struct Huge {
    size: u64,
    data: Range<u64>,
}

impl Export for Huge {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buf: &mut [u8], _: u64) -> Result<(), Error> {
        buf.fill(0);
        Ok(())
    }

    fn extents(&self, range: Range<u64>, visit: &mut Visit<'_>) -> Result<(), Error> {
        let cuts = [0, self.data.start, self.data.end, self.size];
        let kinds = [Allocation::Hole, Allocation::Data, Allocation::Hole];
        for (ends, kind) in cuts.windows(2).zip(kinds) {
            let (start, end) = (ends[0].max(range.start), ends[1]);
            if start < end && start < range.end && visit(Extent { length: end - start, kind }).is_break() {
                break;
            }
        }
        Ok(())
    }
}

#[test]
fn block_status_is_right_beyond_32_bits() {
    const G4: u64 = 1 << 32;
    let size = i64::MAX as u64;
    let export = Huge { size, data: G4 - 1..G4 + 1 };
    let status = |offset, length| {
        extents_of(&answer(&export, true, &request(CMD_BLOCK_STATUS, 0, offset, length), SMALL_BUFFER).unwrap())
    };
    assert_eq!(status(0, u32::MAX), [(u32::MAX, 3)]);
    assert_eq!(status(1, u32::MAX), [(u32::MAX - 512, 3), (512, 0)]);
    assert_eq!(status(2, u32::MAX), [(u32::MAX - 513, 3), (513, 0)]);
    assert_eq!(status(3, u32::MAX), [(u32::MAX - 514, 3), (514, 0)]);
    assert_eq!(status(G4 - 1, 1024), [(513, 0), (511, 3)]);
    assert_eq!(status(G4, 1024), [(512, 0), (512, 3)]);
    assert_eq!(status(G4 + 1, u32::MAX - 511), [(u32::MAX - 511, 3)]);
    assert_eq!(status(size - 512, 512), [(512, 3)]);
    assert_eq!(status(size - 511, 511), [(511, 3)]);
    assert_eq!(status(size - u64::from(u32::MAX), u32::MAX), [(u32::MAX, 3)]);
    let beyond = request(CMD_BLOCK_STATUS, 0, size - 511, 512);
    assert_eq!(errno_of(&chunks(&answer(&export, true, &beyond, SMALL_BUFFER).unwrap())), 22);
}

#[test]
fn the_largest_read_of_a_hole_is_one_small_chunk() {
    let export = Huge { size: 1 << 50, data: 0..0 };
    let read = request(CMD_READ, 0, 1 << 40, MAX_PAYLOAD);
    assert_eq!(answer(&export, true, &read, SMALL_BUFFER).unwrap().len(), CHUNK + 12);
}

#[test]
fn an_export_that_says_too_little_has_data() {
    struct Silent;
    impl Export for Silent {
        fn size(&self) -> u64 {
            1 << 20
        }
        fn read_at(&self, buf: &mut [u8], _: u64) -> Result<(), Error> {
            buf.fill(9);
            Ok(())
        }
        fn extents(&self, _: Range<u64>, visit: &mut Visit<'_>) -> Result<(), Error> {
            let _ = visit(Extent { length: 0, kind: Allocation::Hole });
            let _ = visit(Extent { length: 4096, kind: Allocation::Hole });
            Ok(())
        }
    }
    let status = request(CMD_BLOCK_STATUS, 0, 0, 1 << 20);
    assert_eq!(extents_of(&answer(&Silent, true, &status, SMALL_BUFFER).unwrap()), [(4096, 3), ((1 << 20) - 4096, 0)]);
    let read = request(CMD_READ, 0, 0, 1 << 20);
    let bytes = content(&chunks(&answer(&Silent, true, &read, SMALL_BUFFER).unwrap()), &read);
    assert!(bytes[..4096].iter().all(|&byte| byte == 0) && bytes[4096..].iter().all(|&byte| byte == 9));
}

#[test]
fn replies_gather_until_the_buffer_is_full() {
    let model = Model::new(&[(64 * K, Allocation::Data)]);
    let mut wire = Collect::default();
    let mut out = Outbox::new(SMALL_BUFFER);
    for _ in 0..15 {
        respond(&session(&model, true), &model, &request(CMD_READ, 0, 0, 4096), &[], &mut out, &mut wire).unwrap();
    }
    assert_eq!((wire.calls, out.len()), (0, 15 * (DATA_CHUNK + 4096)));
    respond(&session(&model, true), &model, &request(CMD_READ, 0, 0, 4096), &[], &mut out, &mut wire).unwrap();
    assert_eq!((wire.calls, out.len()), (1, DATA_CHUNK + 4096));
}

fn any_map() -> impl Strategy<Value = Vec<(u64, Allocation)>> {
    let kind = prop_oneof![Just(Allocation::Data), Just(Allocation::Zero), Just(Allocation::Hole)];
    let length = prop_oneof![1_u64..600, 4000_u64..4200, 1_u64..90_000];
    prop::collection::vec((length, kind), 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    /// Whatever the map, the range and the kind of reply, the client gets the bytes of the export.
    #[test]
    fn reads_give_the_bytes(map in any_map(), at in 0.0..1.0_f64, part in 0.0..=1.0_f64, kind in 0..3, large: bool) {
        let model = Model::new(&map);
        let offset = (model.bytes.len() as f64 * at) as usize;
        let length = ((model.bytes.len() - offset) as f64 * part) as usize;
        let flags = if kind == 1 { CMD_FLAG_DF } else { 0 };
        let request = request(CMD_READ, flags, offset as u64, length as u32);
        let sent = answer(&model, kind < 2, &request, if large { LARGE_BUFFER } else { SMALL_BUFFER }).unwrap();
        let want = &model.bytes[offset..offset + length];
        if kind == 2 {
            prop_assert_eq!(&sent[..SIMPLE], simple_header(request.cookie, 0));
            prop_assert_eq!(&sent[SIMPLE..], want);
        } else if length == 0 {
            prop_assert_eq!(chunks(&sent), [Chunk { kind: 0, data: Vec::new() }]);
        } else {
            prop_assert_eq!(content(&chunks(&sent), &request), want);
        }
    }

    /// Block status covers the request from its start on, each extent differs from its neighbours and tells the truth.
    #[test]
    fn block_status_is_the_map(map in any_map(), at in 0.0..1.0_f64, part in 0.0..=1.0_f64, one: bool) {
        let model = Model::new(&map);
        let exact: Vec<Allocation> = map.iter().flat_map(|&(len, kind)| vec![kind; len as usize]).collect();
        let offset = (model.bytes.len() as f64 * at) as usize;
        let length = 1 + ((model.bytes.len() - offset - 1) as f64 * part) as usize;
        let command_flags = if one { CMD_FLAG_REQ_ONE } else { 0 };
        let request = request(CMD_BLOCK_STATUS, command_flags, offset as u64, length as u32);
        let extents = extents_of(&answer(&model, true, &request, SMALL_BUFFER).unwrap());
        let told: Vec<u32> = extents.iter().flat_map(|&(len, flags)| vec![flags; len as usize]).collect();
        let mut at = offset;
        while at < offset + told.len() {
            let end = (at + 1).next_multiple_of(512).min(offset + length);
            let sector = exact[at..end].iter().map(|kind| kind.flags()).reduce(|a, b| a & b).unwrap();
            prop_assert!(told[at - offset..end - offset].iter().all(|&flags| flags == sector), "{}..{}", at, end);
            at = end;
        }
        prop_assert!(extents.windows(2).all(|pair| pair[0].1 != pair[1].1));
        let whole = told.len() == length;
        prop_assert!(whole || (one && extents.len() == 1));
        prop_assert!(!one || extents.len() == 1);
    }
}
