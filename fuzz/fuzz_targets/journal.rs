//! Journals: any bytes, and records with a right checksum around any bytes. What is accepted is played back the same every time.
#![no_main]

use hyper2kvm::convert::replay::{beginning, replay};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some(([len, kind], rest)) = data.split_first_chunk::<2>().map(|(first, rest)| (*first, rest)) else { return };
    let (len, raw) = (u64::from(len) * 700_928 + 512, kind & 1 == 0);
    let mut journal = beginning(len, raw);
    let whole = journal.len() as u64;
    if kind & 2 == 0 {
        journal.extend_from_slice(rest);
    } else {
        let mut rest = rest;
        while let Some((&count, after)) = rest.split_first() {
            let (body, after) = after.split_at(usize::from(count).min(after.len()));
            journal.extend((body.len() as u32).to_le_bytes());
            journal.extend(crc32c::crc32c(body).to_le_bytes());
            journal.extend_from_slice(body);
            rest = after;
        }
    }
    let before = journal.len() as u64;
    match replay(&journal, len, raw) {
        Ok(found) => {
            assert!(found.durable <= found.chunks);
            // The header, what was accepted, and who goes on.
            assert!(found.end > whole && found.end <= before + 64 && found.chunks <= before / 16);
        }
        Err(error) => assert!(error.code() != "resume.journal" && error.code() != "resume.changed", "{error:?}"),
    }
    // Without a beginning of ours.
    let _ = replay(&data[2..], len, raw);
});
