//! The frame of lzop, as far as the kernel reads it (`lib/decompress_unlzo.c`): a header, then blocks of at most 256 KiB, each with
//! its two lengths and a check of the content, then a length of zero.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::io::{self, BufRead, Read};

use crate::fs::lzo;

const MAGIC: [u8; 9] = [0x89, b'L', b'Z', b'O', 0, 0x0d, 0x0a, 0x1a, 0x0a];

/// Bytes that a block holds at most for the kernel.
const BLOCK: usize = 256 << 10;

/// The versions from which a header has a level, and the upper half of its time.
const WITH_LEVEL: u16 = 0x0940;

/// The flags of a header: a check of each block's content; one of its compressed form, which the kernel does not know; a filter.
const CONTENT_CHECK: u32 = 0x1;
const PACKED_CHECKS: u32 = 0x202;
const FILTER: u32 = 0x800;

/// Reads one frame, and takes exactly its bytes from `input`.
pub(super) struct Decoder<R> {
    input: R,
    block: Vec<u8>,
    taken: usize,
    begun: bool,
    ended: bool,
}

impl<R: BufRead> Decoder<R> {
    pub(super) const fn new(input: R) -> Self {
        Self { input, block: Vec::new(), taken: 0, begun: false, ended: false }
    }

    /// Reads the header: magic, version (2), library (2), needed version (2), method (1), level (1), flags (4), filter (4), mode (4),
    /// time (4), its upper half (4), name with its length (1), check (4).
    fn header(&mut self) -> io::Result<()> {
        if self.array::<9>()? != MAGIC {
            return Err(bad("a frame of LZO begins otherwise"));
        }
        let version = u16::from_be_bytes(self.array()?);
        self.array::<5>()?;
        if version >= WITH_LEVEL {
            self.array::<1>()?;
        }
        let flags = u32::from_be_bytes(self.array()?);
        if flags & CONTENT_CHECK == 0 || flags & PACKED_CHECKS != 0 {
            return Err(bad("blocks of LZO with other checks than the kernel knows"));
        }
        if flags & FILTER != 0 {
            self.array::<4>()?;
        }
        self.array::<8>()?;
        if version >= WITH_LEVEL {
            self.array::<4>()?;
        }
        let [name] = self.array()?;
        let mut rest = vec![0; usize::from(name).saturating_add(4)];
        self.input.read_exact(&mut rest)
    }

    fn next_block(&mut self) -> io::Result<()> {
        if !self.begun {
            self.header()?;
            self.begun = true;
        }
        let size = self.length()?;
        if size == 0 {
            self.ended = true;
            return Ok(());
        }
        let packed_size = self.length()?;
        self.array::<4>()?;
        if size > BLOCK || packed_size == 0 || packed_size > size {
            return Err(bad("a block of LZO of impossible length"));
        }
        let mut packed = vec![0; packed_size];
        self.input.read_exact(&mut packed)?;
        self.block = if packed_size == size {
            packed
        } else {
            lzo::stream(&packed, size)
                .filter(|block| block.len() == size)
                .ok_or_else(|| bad("a damaged block of LZO"))?
        };
        self.taken = 0;
        Ok(())
    }

    fn length(&mut self) -> io::Result<usize> {
        usize::try_from(u32::from_be_bytes(self.array()?)).map_err(|_| bad("a block of LZO of impossible length"))
    }

    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

impl<R: BufRead> Read for Decoder<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while !self.ended && self.taken >= self.block.len() {
            self.next_block()?;
        }
        let mut rest = self.block.get(self.taken..).unwrap_or_default();
        if self.ended {
            rest = &[];
        }
        let count = rest.read(buf)?;
        self.taken = self.taken.saturating_add(count);
        Ok(count)
    }
}

fn bad(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// `content` as one frame of stored blocks.
pub(super) fn stored(content: &[u8]) -> Vec<u8> {
    let mut header = Vec::new();
    for field in [0x1040_u16, 0x20a0, 0x0940] {
        header.extend(field.to_be_bytes());
    }
    // Method LZO1X-1, level 5, the flags, a plain file's mode, no time and no name.
    header.extend([1, 5]);
    header.extend((CONTENT_CHECK | 0x0300_0000).to_be_bytes());
    header.extend(0o100_644_u32.to_be_bytes());
    header.extend([0; 4 + 4 + 1]);
    let mut out = MAGIC.to_vec();
    out.extend(&header);
    out.extend(adler32(&header).to_be_bytes());
    for block in content.chunks(BLOCK) {
        let size = u32::try_from(block.len()).unwrap_or(u32::MAX).to_be_bytes();
        out.extend(size);
        out.extend(size);
        out.extend(adler32(block).to_be_bytes());
        out.extend(block);
    }
    out.extend([0; 4]);
    out
}

fn adler32(content: &[u8]) -> u32 {
    let (a, b) = content.iter().fold((1_u32, 0_u32), |(a, b), byte| {
        let a = a.wrapping_add(u32::from(*byte)) % 65521;
        (a, b.wrapping_add(a) % 65521)
    });
    b << 16 | a
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn decode(file: &[u8]) -> io::Result<(Vec<u8>, usize)> {
        let (mut input, mut out) = (file, Vec::new());
        Decoder::new(&mut input).take(1 << 24).read_to_end(&mut out)?;
        Ok((out, input.len()))
    }

    fn lzop(arguments: &[&str], content: &[u8]) -> Vec<u8> {
        use std::io::Write;
        #[allow(clippy::disallowed_methods, reason = "the second implementation")]
        let mut child =
            Command::new("lzop").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        let content = content.to_vec();
        let writer = std::thread::spawn(move || input.write_all(&content));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap().unwrap();
        assert!(output.status.success());
        output.stdout
    }

    #[test]
    fn reads_what_lzop_writes_and_the_other_way_round() {
        let content: Vec<u8> = (0..150_000_u32).flat_map(|n| (n / 5).to_le_bytes()).collect();
        for level in ["-1", "-3", "-9"] {
            let mut file = lzop(&["-c", level], &content);
            file.extend(b"behind");
            let (out, behind) = decode(&file).unwrap();
            assert!(out == content && behind == 6, "{level}");
        }
        assert!(lzop(&["-d", "-c"], &stored(&content)) == content);
        assert_eq!(decode(&stored(b"")).unwrap(), (Vec::new(), 0));
    }

    #[test]
    fn hostile_frames_are_errors() {
        let good = stored(&[7; 3000]);
        for cut in 0..good.len() {
            assert!(decode(&good[..cut]).is_err(), "{cut}");
        }
        let with = |at: usize, bytes: &[u8]| {
            let mut bad = good.clone();
            bad[at..][..bytes.len()].copy_from_slice(bytes);
            decode(&bad)
        };
        let block = 9 + 8 + 4 + 4 + 9 + 4;
        for (what, result) in [
            ("magic", with(3, b"P")),
            ("no check of the content", with(17, &[0; 4])),
            ("checks of the packed form", with(17, &[3, 0, 0, 3])),
            ("a filter that is not there", with(17, &[3, 0, 8, 1])),
            ("a name beyond the end", with(33, &[0xff])),
            ("a block above the kernel's", with(block, &[0, 4, 0, 1])),
            ("a block of 4 GiB", with(block, &[0xff; 4])),
            ("no packed bytes", with(block + 4, &[0; 4])),
            ("more packed bytes than content", with(block + 4, &[0, 0, 0x0b, 0xb9])),
            ("packed bytes that are none", with(block + 4, &[0, 0, 0x0b, 0xb7])),
        ] {
            assert!(result.is_err(), "{what}");
        }
    }
}
