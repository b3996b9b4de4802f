//! The deflate encoder against zlib with a window of 12 bits, which is how QEMU reads compressed clusters.

use std::fs::{File, read};
use std::os::unix::fs::FileExt;

use hyper2kvm::convert::deflate::{Encoder, Level};

use crate::support::{Variant, tools};

/// Decodes each stream of a file at once and, so that zlib has nothing but its window to copy from, in pieces of 1000 bytes.
/// That it then refuses what is farther away is tried first.
const READER: &str = r#"
import os, struct, sys, zlib

def in_pieces(stream):
    decoder, out = zlib.decompressobj(-12), b""
    while not decoder.eof:
        piece = decoder.decompress(stream, 1000)
        assert piece or decoder.eof, "the stream ends too soon"
        stream = decoder.unconsumed_tail
        out += piece
    assert not decoder.unused_data and not stream
    return out

noise = os.urandom(5000)
far = zlib.compressobj(9, zlib.DEFLATED, -15)
try:
    in_pieces(far.compress(noise + noise) + far.flush())
    sys.exit("a match from 5000 bytes back was not refused")
except zlib.error:
    pass

count = 0
with open(sys.argv[1], "rb") as file:
    while head := file.read(8):
        stream, data = (file.read(size) for size in struct.unpack("<II", head))
        assert zlib.decompress(stream, -12) == data, count
        assert in_pieces(stream) == data, count
        count += 1
print(count)
"#;

#[test]
fn zlib_with_a_small_window_reads_what_the_encoder_writes() {
    let guest = File::open(Variant::Plain.raw()).expect("the fixture guest");
    let program = read(std::env::current_exe().expect("this program")).expect("this program");
    let mut inputs: Vec<Vec<u8>> = (0..200).map(|number| cluster(&guest, number * (14 << 20), 64 << 10)).collect();
    inputs.extend(program.chunks(64 << 10).step_by(50).map(<[u8]>::to_vec));
    inputs.push(cluster(&guest, 1 << 20, 2 << 20));
    inputs.extend((1..300).step_by(7).map(|len| program[1000..1000 + len].to_vec()));

    let mut streams = Vec::new();
    for level in [Level::Fast, Level::Best] {
        let mut encoder = Encoder::new(level);
        for input in &inputs {
            let mut stream = Vec::new();
            encoder.encode(input, &mut stream, usize::MAX).expect("no limit");
            streams.extend_from_slice(&u32::try_from(stream.len()).unwrap().to_le_bytes());
            streams.extend_from_slice(&u32::try_from(input.len()).unwrap().to_le_bytes());
            streams.extend_from_slice(&stream);
            streams.extend_from_slice(input);
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("streams");
    std::fs::write(&path, streams).unwrap();
    let count = tools::ok("python3", ["-c".as_ref(), READER.as_ref(), path.as_os_str()]);
    assert_eq!(count.trim(), (2 * inputs.len()).to_string());
}

fn cluster(guest: &File, offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    guest.read_exact_at(&mut bytes, offset).expect("a cluster of the guest");
    bytes
}
