//! Headers made by hand: what is opened, and what is refused. `tests/volumes.rs` compares with what cryptsetup and QEMU make.

use super::*;
use crate::disk::bytes::{put, put_be32, put32};
use crate::disk::{Memory, collect_extents};
use crate::limits;

const KEY: [u8; 64] = [0x5a; 64];
const SALT: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
const PASSPHRASE: &[u8] = b"open";
const UUID: &str = "00000000-0000-4000-8000-000000000001";
const AREA: usize = 32768;
const DATA: u64 = 512 << 10;

fn encode(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |chunk: &[u8], at: usize| {
        let bits = (0..3).fold(0_u32, |bits, i| (bits << 8) | u32::from(*chunk.get(i).unwrap_or(&0)));
        if at > chunk.len() { '=' } else { char::from(DIGITS[(bits >> (18 - 6 * at)) as usize & 63]) }
    };
    bytes.chunks(3).flat_map(|chunk| (0..4).map(move |at| digit(chunk, at))).collect()
}

/// The key split into stripes and encrypted with the passphrase.
fn area(kdf: &Kdf, cipher: &str, stripes: u32) -> Vec<u8> {
    let mut split = vec![0; KEY.len() * stripes as usize];
    for (i, byte) in split.iter_mut().enumerate() {
        *byte = (i * 7) as u8;
    }
    let last = split.len() - KEY.len();
    split[last..].fill(0);
    let mixed = kdf::merge(&split, KEY.len(), stripes, Hash::Sha256);
    split[last..].iter_mut().zip(mixed.iter().zip(KEY)).for_each(|(byte, (mixed, key))| *byte = mixed ^ key);
    split.resize(split.len().next_multiple_of(512), 0);
    Cipher::new(cipher, &kdf.derive(PASSPHRASE, 64).unwrap(), 512).unwrap().encrypt(&mut split, 0);
    split
}

fn pbkdf2() -> Kdf {
    Kdf::Pbkdf2 { hash: Hash::Sha256, iterations: 1, salt: vec![0; 32] }
}

fn json() -> String {
    let digest = encode(&pbkdf2().derive(&KEY, 32).unwrap());
    format!(
        r#"{{"keyslots":{{"0":{{"type":"luks2","key_size":64,"af":{{"type":"luks1","stripes":4000,"hash":"sha256"}},
        "area":{{"type":"raw","offset":"{AREA}","size":"258048","encryption":"aes-xts-plain64","key_size":64}},
        "kdf":{{"type":"pbkdf2","hash":"sha256","iterations":1,"salt":"{SALT}"}}}}}},
        "tokens":{{"0":{{"type":"systemd-tpm2","keyslots":["0"],"anything":[1,2,{{}}]}}}},
        "segments":{{"0":{{"type":"crypt","offset":"{DATA}","size":"dynamic","iv_tweak":"0","encryption":"aes-xts-plain64","sector_size":4096}}}},
        "digests":{{"0":{{"type":"pbkdf2","keyslots":["0"],"segments":["0"],"hash":"sha256","iterations":1,"salt":"{SALT}","digest":"{digest}"}}}},
        "config":{{"json_size":"12288","keyslots_size":"16744448"}}}}"#
    )
}

/// A header of version 2 and 16 KiB at `offset`.
fn put_header(volume: &mut [u8], offset: usize, seqid: u64, json: &str) {
    let magic = if offset == 0 { MAGIC } else { b"SKUL\xba\xbe" };
    let header = &mut volume[offset..offset + 16384];
    header.fill(0);
    put(header, 0, magic);
    put(header, 6, &2_u16.to_be_bytes());
    put(header, 8, &16384_u64.to_be_bytes());
    put(header, 16, &seqid.to_be_bytes());
    put(header, 24, b"a label");
    put(header, 72, b"sha256");
    put(header, 168, UUID.as_bytes());
    put(header, 256, &(offset as u64).to_be_bytes());
    put(header, 4096, json.as_bytes());
    use sha2::Digest;
    let sum = sha2::Sha256::digest(&*header);
    put(header, 448, &sum);
}

fn volume(json: &str) -> Vec<u8> {
    let mut volume = vec![0; DATA as usize + 65536];
    put_header(&mut volume, 0, 1, json);
    put_header(&mut volume, 16384, 1, json);
    put(&mut volume, AREA, &area(&pbkdf2(), "aes-xts-plain64", 4000));
    volume
}

fn open(volume: Vec<u8>, passphrase: &[u8]) -> Result<Arc<dyn DiskMut>> {
    let disk: Arc<dyn DiskMut> = Checked::wrap(Memory::new(volume));
    Header::read(&*disk)?.unlock(disk, [&Secret::new(passphrase.to_vec())])
}

fn code(volume: Vec<u8>) -> &'static str {
    open(volume, PASSPHRASE).err().map_or("", |error| error.code())
}

/// The volume with one thing in its JSON changed.
fn with(from: &str, to: &str) -> &'static str {
    let changed = json().replace(from, to);
    assert_ne!(changed, json(), "{from}");
    code(volume(&changed))
}

#[test]
fn the_right_passphrase_opens_it_and_writes_go_through_encrypted() {
    let disk: Arc<Checked<Memory>> = Checked::wrap(Memory::new(volume(&json())));
    let header = Header::read(&*disk).unwrap();
    assert_eq!((header.version(), header.uuid(), header.label()), (2, UUID, Some("a label")));
    let below = Arc::clone(&disk) as Arc<dyn DiskMut>;
    let none = header.unlock(Arc::clone(&below), []).unwrap_err();
    assert_eq!((none.code(), none.next().unwrap()), ("luks.key-missing", &*format!("--key {UUID}:file:PATH")));
    let (wrong, right) = (Secret::new(b"Open".to_vec()), Secret::new(PASSPHRASE.to_vec()));
    assert_eq!(header.unlock(Arc::clone(&below), [&wrong]).unwrap_err().code(), "luks.key-wrong");
    let inside = header.unlock(Arc::clone(&below), [&wrong, &right]).unwrap();
    assert_eq!(inside.len(), 65536);
    let before = disk.inner().snapshot();
    let mut model = vec![0; 65536];
    inside.read_at(&mut model, 0).unwrap();
    for (at, len) in [(0_usize, 1_usize), (4095, 2), (4096, 4096), (5000, 9000), (8192, 40000), (65535, 1), (3, 65000)]
    {
        let data: Vec<u8> = (0..len).map(|i| (i ^ at) as u8).collect();
        inside.write_at(&data, at as u64).unwrap();
        model[at..at + len].copy_from_slice(&data);
        let mut seen = vec![0; 65536];
        inside.read_at(&mut seen, 0).unwrap();
        assert_eq!(seen, model, "{at}+{len}");
        let mut part = vec![0; len];
        inside.read_at(&mut part, at as u64).unwrap();
        assert_eq!(part, data);
    }
    inside.zero(4000..60000).unwrap();
    let mut seen = vec![1; 56000];
    inside.read_at(&mut seen, 4000).unwrap();
    assert!(seen.iter().all(|byte| *byte == 0));
    let after = disk.inner().snapshot();
    assert_eq!(after[..DATA as usize], before[..DATA as usize]);
    assert_ne!(after[DATA as usize..], before[DATA as usize..]);
    assert!(!format!("{header:?} {right:?}").contains("111, 112"));
}

#[test]
fn what_is_free_inside_is_free_outside_in_whole_sectors() {
    let inside = open(volume(&json()), PASSPHRASE).unwrap();
    let homes = |range: Range<u64>| {
        let mut found = Vec::new();
        inside.homes(range, &mut |_, range| found.push((range.start, range.end)));
        found
    };
    assert_eq!(homes(0..8192), [(DATA, DATA + 8192)]);
    assert_eq!(homes(1..12289), [(DATA + 4096, DATA + 12288)]);
    assert_eq!(homes(1..8191), []);
    let extents = collect_extents(&*inside, 0..8192).unwrap();
    assert_eq!(extents[0].place, Some(DATA));
}

#[test]
fn either_header_is_enough_and_the_newer_one_counts() {
    let good = json();
    for damaged in [0, 16384] {
        let mut volume = volume(&good);
        volume[damaged + 5000] ^= 1;
        assert_eq!(code(volume), "", "{damaged}");
    }
    let mut both = volume(&good);
    both[5000] ^= 1;
    both[16384 + 5000] ^= 1;
    assert_eq!(code(both), "luks.header");
    let (older, newer) = (good.replace("\"sector_size\":4096", "\"sector_size\":512"), good.clone());
    for newest in [0, 16384] {
        let mut volume = volume(&older);
        put_header(&mut volume, newest, 9, &newer);
        let disk = Memory::new(volume);
        assert_eq!(Header::read(&disk).unwrap().data.sector, 4096);
    }
    let mut gone = volume(&good);
    gone[..4096].fill(0);
    assert_eq!(code(gone), "");
}

#[test]
fn hostile_json_is_refused() {
    // A key slot that asks for 4 GiB, for ever, or for nothing.
    let argon = |memory: u64, time: u64, cpus: u64| {
        let kdf =
            format!(r#""kdf":{{"type":"argon2id","time":{time},"memory":{memory},"cpus":{cpus},"salt":"{SALT}"}}"#);
        with(&format!(r#""kdf":{{"type":"pbkdf2","hash":"sha256","iterations":1,"salt":"{SALT}"}}"#), &kdf)
    };
    assert_eq!(argon(4 << 20, 4, 4), "luks.cost");
    assert_eq!(argon(1 << 10, u64::from(u32::MAX), 4), "luks.cost");
    assert_eq!(argon(1 << 40, 1, 1), "luks.header");
    assert_eq!(argon(0, 1, 1), "luks.header");
    assert_eq!(with("\"iterations\":1,\"salt\"", "\"iterations\":4294967295,\"salt\""), "luks.cost");
    // Areas outside of the volume, of nothing, at the end of all numbers.
    assert_eq!(with("\"offset\":\"32768\"", "\"offset\":\"999999999999\""), "luks.header");
    assert_eq!(with("\"offset\":\"32768\"", "\"offset\":\"18446744073709551615\""), "luks.header");
    assert_eq!(with("\"offset\":\"32768\"", "\"offset\":\"-1\""), "luks.header");
    assert_eq!(with("\"size\":\"258048\"", "\"size\":\"511\""), "luks.header");
    assert_eq!(with("\"stripes\":4000", "\"stripes\":4294967295"), "luks.header");
    assert_eq!(with("\"stripes\":4000", "\"stripes\":0"), "luks.header");
    assert_eq!(with("\"key_size\":64,\"af\"", "\"key_size\":1000000000,\"af\""), "luks.header");
    assert_eq!(with("\"key_size\":64}", "\"key_size\":65}"), "luks.unsupported");
    // Data outside of the volume, in sectors of nothing.
    assert_eq!(with(&format!("\"offset\":\"{DATA}\""), "\"offset\":\"1152921504606846976\""), "luks.header");
    assert_eq!(with("\"size\":\"dynamic\"", "\"size\":\"18446744073709551615\""), "luks.header");
    assert_eq!(with("\"sector_size\":4096", "\"sector_size\":0"), "luks.header");
    assert_eq!(with("\"sector_size\":4096", "\"sector_size\":513"), "luks.header");
    // No digest, none that fits, a digest of nothing.
    assert_eq!(with("\"segments\":[\"0\"]", "\"segments\":[]"), "luks.header");
    assert_eq!(with("\"digest\":\"", "\"digest\":\"AAAA\",\"x\":\""), "luks.unsupported");
    assert_eq!(with("\"keyslots\":[\"0\"],\"segments\"", "\"keyslots\":[\"7\"],\"segments\""), "luks.key-wrong");
    // What is not read.
    assert_eq!(with("\"type\":\"crypt\"", "\"type\":\"linear\""), "luks.unsupported");
    assert_eq!(
        with("\"sector_size\":4096", "\"sector_size\":4096,\"integrity\":{\"type\":\"hmac(sha256)\"}"),
        "luks.unsupported"
    );
    assert_eq!(
        with("\"keyslots_size\"", "\"requirements\":{\"mandatory\":[\"online-reencrypt\"]},\"keyslots_size\""),
        "luks.unsupported"
    );
    assert_eq!(
        with(
            "\"sector_size\":4096}",
            "\"sector_size\":4096},\"1\":{\"type\":\"crypt\",\"offset\":\"0\",\"size\":\"0\"}"
        ),
        "luks.unsupported"
    );
    assert_eq!(
        with("\"encryption\":\"aes-xts-plain64\",\"sector", "\"encryption\":\"serpent-xts-plain64\",\"sector"),
        "luks.unsupported"
    );
    // A bomb, and half an object.
    assert_eq!(code(volume(&"[".repeat(12288))), "luks.header");
    assert_eq!(code(volume(&format!("{{\"a\":{}", "{\"a\":".repeat(2000)))), "luks.header");
    assert_eq!(code(volume("{")), "luks.header");
}

#[test]
fn the_number_of_slots_is_bounded() {
    let slots = |count: usize| {
        let json = json();
        let slot = json.split_once("\"0\":").unwrap().1.split_once("},\n        \"tokens\"").unwrap().0;
        let many: String = (1..count).map(|n| format!(",\"{n}\":{slot}")).collect();
        let json = json.replacen("},\n        \"tokens\"", &format!("{many}}},\n        \"tokens\""), 1);
        let disk = {
            let mut volume = volume(&json);
            volume.truncate(DATA as usize);
            Memory::new(volume)
        };
        Header::read(&disk).err().map_or("", |error| error.code())
    };
    assert_eq!((slots(1), slots(20)), ("", ""));
    let over = limits::MAX_LUKS_SLOTS + 1;
    let tiny: Vec<String> = (0..over).map(|n| format!("\"{n}\":{{\"type\":\"x\"}}")).collect();
    for (count, expected) in [(over - 2, ""), (over - 1, ""), (over, "luks.header")] {
        let json = json();
        let start = json.find("{\"0\":").unwrap();
        let end = json.find(",\n        \"tokens\"").unwrap();
        let json = format!("{}{{{}}}{}", &json[..start], tiny[..count].join(","), &json[end..]);
        let found = Header::read(&Memory::new(volume(&json))).err().map_or("", |error| error.code());
        assert_eq!(found, expected, "{count}");
    }
}

#[test]
fn damaged_and_cut_headers_are_refused() {
    let whole = volume(&json());
    for len in (0..16384 + 4096).step_by(511) {
        assert_eq!(code(whole[..len].to_vec()), "luks.header", "{len}");
    }
    for (at, value) in [(6, 3), (8, 1), (263, 1), (72, b'x'), (168, b'/')] {
        let mut volume = whole.clone();
        volume[16384..16390].fill(0);
        volume[at] = value;
        assert!(code(volume).starts_with("luks."), "{at}");
    }
}

/// A header of version 1 with one key slot.
fn first_version() -> Vec<u8> {
    let mut volume = vec![0; DATA as usize + 8192];
    put(&mut volume, 0, MAGIC);
    put(&mut volume, 6, &1_u16.to_be_bytes());
    put(&mut volume, 8, b"aes");
    put(&mut volume, 40, b"xts-plain64");
    put(&mut volume, 72, b"sha256");
    put_be32(&mut volume, 104, (DATA / 512) as u32);
    put_be32(&mut volume, 108, 64);
    put(&mut volume, 112, &pbkdf2().derive(&KEY, 20).unwrap());
    put_be32(&mut volume, 164, 1);
    put(&mut volume, 168, UUID.as_bytes());
    let slot = 208 + 3 * 48;
    put_be32(&mut volume, slot, 0x00ac_71f3);
    put_be32(&mut volume, slot + 4, 1);
    put_be32(&mut volume, slot + 40, 8);
    put_be32(&mut volume, slot + 44, 4000);
    put(&mut volume, 4096, &area(&pbkdf2(), "aes-xts-plain64", 4000));
    volume
}

#[test]
fn version_1_is_opened_and_its_damage_found() {
    assert_eq!(open(first_version(), PASSPHRASE).unwrap().len(), 8192);
    let slot = 208 + 3 * 48;
    for (at, value, expected) in [
        (104, u32::MAX, "luks.header"),
        (108, 0, "luks.header"),
        (108, u32::MAX, "luks.header"),
        (164, u32::MAX, "luks.cost"),
        (slot, 0xdead, "luks.key-wrong"),
        (slot + 4, u32::MAX, "luks.cost"),
        (slot + 4, 0, "luks.cost"),
        (slot + 40, u32::MAX, "luks.header"),
        (slot + 44, 0, "luks.header"),
        (slot + 44, 4001, "luks.header"),
        (72, 0, "luks.unsupported"),
        (8, 0x6e6f_7065, "luks.unsupported"),
        (168, 0, "luks.header"),
    ] {
        let mut volume = first_version();
        put_be32(&mut volume, at, value);
        assert_eq!(code(volume), expected, "{at} {value:#x}");
    }
    let mut swapped = first_version();
    put32(&mut swapped, 0, 0);
    assert_eq!(code(swapped), "luks.header");
}

#[test]
fn a_header_is_as_long_as_the_format_allows() {
    use sha2::Digest;
    let read = |len: u64| {
        let mut header = vec![0; usize::try_from(len).unwrap()];
        put_header(&mut header, 0, 1, &json());
        put(&mut header, 8, &len.to_be_bytes());
        header[448..512].fill(0);
        let sum = sha2::Sha256::digest(&header);
        put(&mut header, 448, &sum);
        Header::read(&Memory::new(header)).map_or_else(|error| error.code(), |_| "ok")
    };
    let most = limits::MAX_LUKS_HEADER;
    assert_eq!((read(most / 2), read(most), read(most * 2)), ("ok", "ok", "luks.header"));
}
