#![allow(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions, reason = "tests")]

use proptest::prelude::*;

use super::*;

fn decode(bytes: &[u8]) -> Option<Record> {
    let (frame, rest) = bytes.split_first_chunk()?;
    Record::decode(*frame, rest.get(..Record::body_len(*frame)?)?)
}

fn records() -> impl Strategy<Value = Record> {
    let pieces = prop::collection::vec((1..4000_usize, 1..4000_usize), 0..200).prop_map(|steps| {
        let mut at = 0;
        let mut piece = |(gap, len)| {
            at += gap + len;
            let form = [Form::Plain, Form::Encoded(7), Form::Zero][len % 3];
            Piece { start: at - len, len, form, host: (at as u64) << 30 }
        };
        steps.into_iter().map(&mut piece).collect()
    });
    let chunk = (any::<u64>(), any::<[u32; 3]>(), any::<[Option<[u8; 32]>; 2]>(), pieces).prop_map(
        |(chunk, [read, unread, shared], [digest, stored], pieces)| {
            Record::Chunk(Chunk { chunk, read, unread, shared, digest, stored, pieces })
        },
    );
    let sealing = (any::<u64>(), any::<u64>(), any::<(i64, i64)>())
        .prop_map(|(inode, len, modified)| Record::Sealing(Sealing { inode, len, modified }));
    let header =
        (any::<String>(), any::<u64>(), any::<[u8; 32]>(), any::<i64>()).prop_map(|(options, len, source, now)| {
            let moment = crate::session::Moment { now, seed: source };
            Record::Header(Box::new(Header::new(options, len, crate::disk::Fingerprint(source), moment)))
        });
    prop_oneof![
        header,
        chunk,
        sealing,
        any::<u32>().prop_map(|pid| Record::Run { pid }),
        any::<u64>().prop_map(|chunks| Record::Durable { chunks }),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read(record in records()) {
        prop_assert_eq!(decode(&record.encode()), Some(record));
    }

    #[test]
    fn a_changed_byte_or_a_missing_end_is_noticed(record in records(), at in any::<prop::sample::Index>(), flip in 1..=255_u8) {
        let bytes = record.encode();
        let at = at.index(bytes.len());
        prop_assert_eq!(decode(&bytes[..at]), None);
        let mut changed = bytes;
        changed[at] ^= flip;
        prop_assert_eq!(decode(&changed), None);
    }

    #[test]
    fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let body = &bytes[bytes.len().min(FRAME)..];
        let mut frame = [0; FRAME];
        frame[4..].copy_from_slice(&crc32c::crc32c(body).to_le_bytes());
        let _ = Record::decode(frame, body);
        let _ = decode(&bytes);
    }
}

#[test]
fn chunks_that_no_run_wrote_are_refused() {
    let piece = |start, len| Piece { start, len, form: Form::Plain, host: 0 };
    let end = usize::try_from(crate::convert::plan::CHUNK).unwrap();
    for (pieces, good) in [
        (vec![piece(0, end)], true),
        (vec![piece(1, end)], false),
        (vec![piece(0, 0)], false),
        (vec![piece(0, 8), piece(8, 8)], true),
        (vec![piece(0, 8), piece(7, 8)], false),
        (vec![piece(8, 8), piece(0, 8)], false),
    ] {
        let record =
            Record::Chunk(Chunk { chunk: 0, read: 1, unread: 0, shared: 0, digest: None, stored: None, pieces });
        assert_eq!(decode(&record.encode()).is_some(), good, "{record:?}");
    }
}

#[test]
fn lengths_are_bounded() {
    let frame = |len: usize| {
        let mut frame = [0; FRAME];
        frame[..4].copy_from_slice(&u32::try_from(len).unwrap().to_le_bytes());
        frame
    };
    for (len, good) in [(0, false), (1, true), (MAX_JOURNAL_RECORD, true), (MAX_JOURNAL_RECORD + 1, false)] {
        assert_eq!(Record::body_len(frame(len)).is_some(), good, "{len}");
    }
    let pieces = (0..2048).map(|n| Piece { start: n * 1024, len: 512, form: Form::Encoded(9), host: 0 }).collect();
    let longest = Record::Chunk(Chunk {
        chunk: 0,
        read: 0,
        unread: 0,
        shared: 0,
        digest: Some([0; 32]),
        stored: Some([0; 32]),
        pieces,
    })
    .encode();
    assert!(longest.len() < MAX_JOURNAL_RECORD, "the longest that can be has {} bytes", longest.len());
}
