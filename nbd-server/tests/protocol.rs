//! What a well-behaved client sees.

use std::sync::Arc;

use hyper2kvm_nbd::protocol::constants::*;
use hyper2kvm_nbd::{Allocation, Error, Export, Extent, Server, Visit};

use crate::client::{Client, FIXED, NO_ZEROES, contexts, details};
use crate::fixture::{Memory, serve, socket};

#[test]
fn structured_reads_give_the_bytes() {
    let memory = Memory::mixed();
    let bytes = memory.bytes.clone();
    let (_folder, path, _server) = serve(memory);
    let mut client = Client::ready(&path);
    let size = bytes.len();
    for (offset, length) in [(0, size), (1, 100), (size - 1, 1), ((1 << 20) - 3, 600_000), (2_097_000, 2_000_000)] {
        for flags in [0, CMD_FLAG_DF] {
            assert!(client.read(flags, offset as u64, length as u32) == bytes[offset..offset + length], "{offset}");
        }
    }
}

#[test]
fn simple_reads_give_the_bytes() {
    let memory = Memory::mixed();
    let bytes = memory.bytes.clone();
    let (_folder, path, _server) = serve(memory);
    for flags in [0, FIXED, FIXED | NO_ZEROES] {
        let mut client = Client::unix(&path);
        client.greet(flags);
        client.send_option(OPT_EXPORT_NAME, b"disk");
        assert_eq!(client.receive(8), (bytes.len() as u64).to_be_bytes());
        let transmission = u16::from_be_bytes(client.receive(2).try_into().unwrap());
        assert_eq!(transmission & FLAG_SEND_DF, 0);
        if flags & NO_ZEROES == 0 {
            assert_eq!(client.receive(124), [0; 124]);
        }
        for length in [1, 4096, bytes.len()] {
            client.request(CMD_READ, 0, 77, 0, length as u32);
            assert_eq!(client.simple_reply(), (0, 77));
            assert!(client.receive(length) == bytes[..length]);
        }
        client.request(CMD_READ, 0, 78, bytes.len() as u64, 1);
        assert_eq!(client.simple_reply(), (22, 78));
        client.request(CMD_DISC, 0, 79, 0, 0);
        assert!(client.is_closed());
    }
}

#[test]
fn holes_travel_as_holes_unless_df_forbids() {
    let (_folder, path, _server) = serve(Memory::mixed());
    let mut client = Client::ready(&path);
    client.request(CMD_READ, 0, 1, (1 << 20) - 65536, 131_072);
    let kinds: Vec<_> = client.reply(1).iter().map(|chunk| (chunk.kind, chunk.data.len())).collect();
    assert_eq!(kinds, [(REPLY_TYPE_OFFSET_DATA, 65536 + 8), (REPLY_TYPE_OFFSET_HOLE, 12)]);
    client.request(CMD_READ, CMD_FLAG_DF, 2, (1 << 20) - 65536, 131_072);
    let kinds: Vec<_> = client.reply(2).iter().map(|chunk| (chunk.kind, chunk.data.len())).collect();
    assert_eq!(kinds, [(REPLY_TYPE_OFFSET_DATA, 131_072 + 8)]);
}

#[test]
fn go_tells_flags_and_block_sizes() {
    let (_folder, path, _server) = serve(Memory::mixed());
    let mut client = Client::greeted(&path);
    client.structured();
    let replies = client.option(OPT_GO, &details(b"disk", &[INFO_BLOCK_SIZE, INFO_NAME, INFO_DESCRIPTION]));
    let data: Vec<&[u8]> = replies.iter().map(|reply| &reply.data[..]).collect();
    assert_eq!(data[0][10..], (1_u16 | 2 | 4 | 128 | 256 | 1024).to_be_bytes());
    assert_eq!(data[1], b"\0\x01disk");
    assert_eq!(data[2], b"\0\x02a disk of every kind");
    assert_eq!(data[3], [0, 3, 0, 0, 0, 1, 0, 1, 0, 0, 2, 0, 0, 0]);
}

#[test]
fn several_exports_are_found_by_name() {
    let (_folder, path) = socket();
    let export = |length| Arc::new(Memory::new(&[(length, Allocation::Data)]));
    let builder = Server::builder().export("one", export(512)).export("two", export(1024)).export("drei ß", export(1));
    let _server = builder.unix(&path).start().unwrap();
    for (name, size) in [("one", 512), ("two", 1024), ("drei ß", 1), ("", 512)] {
        assert_eq!(Client::greeted(&path).go(name).0, size);
    }
    let listed = Client::greeted(&path).option(OPT_LIST, &[]);
    let names: Vec<_> = listed.iter().map(|reply| reply.data.get(4..).unwrap_or_default().to_vec()).collect();
    assert_eq!(names[1], [&b"two"[..], b"a disk of every kind"].concat());
    assert_eq!(Client::greeted(&path).kinds(OPT_GO, &details(b"three", &[])), [REP_ERR_UNKNOWN]);
}

#[test]
fn an_export_may_have_the_empty_name() {
    let (_folder, path) = socket();
    let export = |length| Arc::new(Memory::new(&[(length, Allocation::Data)]));
    let _server = Server::builder().export("one", export(512)).export("", export(9)).unix(&path).start().unwrap();
    assert_eq!(Client::greeted(&path).go("").0, 9);
    assert_eq!(Client::greeted(&path).go("one").0, 512);
}

/// Every order of six options, each of which must be answered the same way wherever it stands, but for the one that depends
/// on another.
#[test]
fn options_come_in_any_order() {
    let memory = Memory::mixed();
    let first = memory.bytes[..64].to_vec();
    let (_folder, path, _server) = serve(memory);
    let mut orders = Vec::new();
    permutations(&mut [0, 1, 2, 3, 4, 5], 0, &mut orders);
    assert_eq!(orders.len(), 720);
    for order in orders {
        let mut client = Client::greeted(&path);
        let mut structured = false;
        let mut allocation = false;
        for option in order {
            match option {
                0 => assert_eq!(client.kinds(OPT_LIST, &[]), [REP_SERVER, REP_ACK]),
                1 => {
                    client.structured();
                    structured = true;
                }
                2 if structured => {
                    assert_eq!(client.set_contexts("disk", &["base:allocation"]), [REP_META_CONTEXT, REP_ACK]);
                    allocation = true;
                }
                2 => assert_eq!(client.set_contexts("disk", &["base:allocation"]), [REP_ERR_INVALID]),
                3 => assert_eq!(client.kinds(OPT_INFO, &details(b"", &[])), [REP_INFO, REP_INFO, REP_ACK]),
                4 => assert_eq!(client.kinds(0xfeed, b"???"), [REP_ERR_UNSUP]),
                _ => {
                    let listed = client.kinds(OPT_LIST_META_CONTEXT, &contexts("disk", &[]));
                    assert_eq!(listed, [REP_META_CONTEXT, REP_ACK]);
                }
            }
        }
        client.go("disk");
        if allocation {
            assert_eq!(client.block_status(CMD_FLAG_REQ_ONE, 0, 512), [(512, 0)]);
        } else {
            assert_eq!(client.error(CMD_BLOCK_STATUS, 0, 0, 512), 22);
        }
        assert_eq!(client.read(0, 0, 64), first);
    }
}

fn permutations(items: &mut [u8; 6], from: usize, all: &mut Vec<[u8; 6]>) {
    if from == items.len() {
        all.push(*items);
    }
    for at in from..items.len() {
        items.swap(from, at);
        permutations(items, from + 1, all);
        items.swap(from, at);
    }
}

#[test]
fn commands_without_data_are_acknowledged() {
    let (_folder, path, _server) = serve(Memory::mixed());
    let mut client = Client::ready(&path);
    for (command, length) in [(CMD_FLUSH, 0), (CMD_CACHE, 4096), (CMD_CACHE, 0), (CMD_READ, 0)] {
        client.request(command, 0, 3, 0, length);
        let reply = client.reply(3);
        assert_eq!((reply.len(), reply[0].kind, reply[0].data.len()), (1, REPLY_TYPE_NONE, 0));
    }
}

#[test]
fn writes_are_refused_and_their_payload_skipped() {
    let memory = Memory::mixed();
    let first = memory.bytes[..64].to_vec();
    let (_folder, path, _server) = serve(memory);
    let mut client = Client::ready(&path);
    for length in [0, 1, 512, 1 << 20, 32 << 20] {
        client.request(CMD_WRITE, 0, 4, 0, length);
        client.send(&vec![0x25; length as usize]);
        let reply = client.reply(4);
        assert_eq!(reply[0].data[..4], 1_u32.to_be_bytes(), "{length}");
        assert_eq!(client.read(0, 0, 64), first);
    }
    assert_eq!(client.error(CMD_TRIM, 0, 0, 512), 1);
    assert_eq!(client.error(CMD_WRITE_ZEROES, 0, 0, u32::MAX), 1);
    assert_eq!(client.read(0, 0, 64), first);
}

#[test]
fn requests_that_make_no_sense_are_errors() {
    let memory = Memory::mixed();
    let (size, first) = (memory.bytes.len() as u64, memory.bytes[..64].to_vec());
    let (_folder, path, _server) = serve(memory);
    let mut client = Client::ready(&path);
    for command in [CMD_READ, CMD_CACHE, CMD_BLOCK_STATUS] {
        for (offset, length) in [(size, 1), (size - 1, 2), (0, size as u32 + 1), (u64::MAX, 1), (u64::MAX, u32::MAX)] {
            assert_eq!(client.error(command, 0, offset, length), 22, "{command} {offset} {length}");
        }
    }
    assert_eq!(client.error(CMD_READ, 0, 0, (32 << 20) + 1), 22);
    assert_eq!(client.error(CMD_BLOCK_STATUS, 0, 0, 0), 22);
    assert_eq!(client.error(CMD_READ, 1 << 12, 0, 512), 22);
    for command in [8, 9, 100, u16::MAX] {
        assert_eq!(client.error(command, 0, 0, 512), 22);
    }
    assert_eq!(client.read(0, 0, 64), first);
}

/// An export of nearly 8 EiB that is all hole but for two bytes around 4 GiB and the last sector.
struct Huge;

const HUGE: u64 = i64::MAX as u64 - 511;
const G4: u64 = 1 << 32;

impl Export for Huge {
    fn size(&self) -> u64 {
        HUGE
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), Error> {
        for (at, byte) in (offset..).zip(buf) {
            *byte = u8::from((G4 - 1..G4 + 1).contains(&at) || at >= HUGE - 512);
        }
        Ok(())
    }

    fn extents(&self, range: std::ops::Range<u64>, visit: &mut Visit<'_>) -> Result<(), Error> {
        use Allocation::{Data, Hole};
        let mut at = range.start;
        for (end, kind) in [(G4 - 1, Hole), (G4 + 1, Data), (HUGE - 512, Hole), (HUGE, Data)] {
            if at < end && at < range.end {
                if visit(Extent { length: end - at, kind }).is_break() {
                    break;
                }
                at = end;
            }
        }
        Ok(())
    }
}

#[test]
fn offsets_beyond_32_bits_and_near_8_eib_are_right() {
    let (_folder, path, _server) = serve(Huge);
    let mut client = Client::ready(&path);
    let most = u32::MAX;
    assert_eq!(client.block_status(0, 0, most), [(most, 3)]);
    assert_eq!(client.block_status(0, 1, most), [(most - 512, 3), (512, 0)]);
    assert_eq!(client.block_status(0, G4 - 1, most), [(513, 0), (most - 513, 3)]);
    assert_eq!(client.block_status(0, G4, most), [(512, 0), (most - 512, 3)]);
    assert_eq!(client.block_status(0, G4 + 512, most), [(most, 3)]);
    assert_eq!(client.block_status(CMD_FLAG_REQ_ONE, G4 - 1, most), [(513, 0)]);
    assert_eq!(client.block_status(0, HUGE - u64::from(most), most), [(most - 512, 3), (512, 0)]);
    assert_eq!(client.block_status(0, HUGE - 512, 512), [(512, 0)]);
    assert_eq!(client.error(CMD_BLOCK_STATUS, 0, HUGE - 511, 512), 22);
    assert_eq!(client.error(CMD_READ, 0, HUGE, 1), 22);
    assert_eq!(client.read(0, G4 - 2, 4), [0, 1, 1, 0]);
    assert_eq!(client.read(0, HUGE - 513, 513), [&[0][..], &[1; 512]].concat());
    let around = client.read(0, G4 - (16 << 20), 32 << 20);
    assert_eq!(around.iter().filter(|&&byte| byte == 1).count(), 2);
}
