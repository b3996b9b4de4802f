//! A decoder that goes bit by bit and takes nothing that any reader might refuse: no match from outside the window or of an
//! undefined length, no incomplete code, nothing behind the end.

const LENGTHS: [(usize, u32); 29] = [
    (3, 0),
    (4, 0),
    (5, 0),
    (6, 0),
    (7, 0),
    (8, 0),
    (9, 0),
    (10, 0),
    (11, 1),
    (13, 1),
    (15, 1),
    (17, 1),
    (19, 2),
    (23, 2),
    (27, 2),
    (31, 2),
    (35, 3),
    (43, 3),
    (51, 3),
    (59, 3),
    (67, 4),
    (83, 4),
    (99, 4),
    (115, 4),
    (131, 5),
    (163, 5),
    (195, 5),
    (227, 5),
    (258, 0),
];

struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn take(&mut self, count: u32) -> Option<usize> {
        let mut value = 0;
        for bit in 0..count {
            let byte = self.bytes.get(self.at / 8)?;
            value |= usize::from(byte >> (self.at % 8) & 1) << bit;
            self.at += 1;
        }
        Some(value)
    }

    /// Words of one length are numbers in a row, and those of the next length go on where they end (RFC 1951, 3.2.2).
    fn symbol(&mut self, code: &Code) -> Option<usize> {
        let (mut word, mut first, mut before) = (0, 0, 0);
        for count in &code.counts[1..] {
            word = word << 1 | self.take(1)?;
            first <<= 1;
            if word < first + count {
                return code.symbols.get(before + word - first).copied();
            }
            first += count;
            before += count;
        }
        None
    }
}

/// How many words there are of each length, and their symbols in the order of the words.
struct Code {
    counts: [usize; 16],
    symbols: Vec<usize>,
}

/// The code of `lengths`, if it is complete.
fn code(lengths: &[u8]) -> Option<Code> {
    let mut counts = [0; 16];
    lengths.iter().for_each(|&length| counts[usize::from(length)] += 1);
    let mut symbols: Vec<_> = (0..lengths.len()).filter(|&symbol| lengths[symbol] != 0).collect();
    symbols.sort_by_key(|&symbol| lengths[symbol]);
    let used: usize = (1..16).map(|length| counts[length] << (15 - length)).sum();
    (used == 1 << 15).then_some(Code { counts, symbols })
}

/// What `stream` decodes to.
pub(super) fn inflate(stream: &[u8], window: usize) -> Option<Vec<u8>> {
    let mut bits = Bits { bytes: stream, at: 0 };
    let mut out = Vec::new();
    loop {
        let last = bits.take(1)? == 1;
        match bits.take(2)? {
            0 => stored(&mut bits, &mut out)?,
            2 => {
                let (litlens, distances) = codes(&mut bits)?;
                block(&mut bits, &litlens, &distances, window, &mut out)?;
            }
            _ => return None,
        }
        if last {
            return (bits.at.div_ceil(8) == stream.len()).then_some(out);
        }
    }
}

fn stored(bits: &mut Bits<'_>, out: &mut Vec<u8>) -> Option<()> {
    bits.at = bits.at.next_multiple_of(8);
    let (len, not) = (bits.take(16)?, bits.take(16)?);
    let start = bits.at / 8;
    out.extend_from_slice(bits.bytes.get(start..start + len)?);
    bits.at += len * 8;
    (len ^ not == 0xffff).then_some(())
}

fn codes(bits: &mut Bits<'_>) -> Option<(Code, Code)> {
    let (litlens, distances, given) = (bits.take(5)? + 257, bits.take(5)? + 1, bits.take(4)? + 4);
    let mut lengths = [0; 19];
    for symbol in [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15].into_iter().take(given) {
        lengths[symbol] = bits.take(3)? as u8;
    }
    let outer = code(&lengths)?;
    let mut all: Vec<u8> = Vec::new();
    while all.len() < litlens + distances {
        let (length, times) = match bits.symbol(&outer)? {
            16 => (*all.last()?, 3 + bits.take(2)?),
            17 => (0, 3 + bits.take(3)?),
            18 => (0, 11 + bits.take(7)?),
            length => (length as u8, 1),
        };
        all.extend(std::iter::repeat_n(length, times));
    }
    let (litlens, distances) = (all.get(..litlens)?, all.get(litlens..litlens + distances)?);
    (all.len() == litlens.len() + distances.len() && litlens.len() <= 286 && distances.len() <= 30).then_some(())?;
    Some((code(litlens)?, code(distances)?))
}

fn block(bits: &mut Bits<'_>, litlens: &Code, distances: &Code, window: usize, out: &mut Vec<u8>) -> Option<()> {
    loop {
        match bits.symbol(litlens)? {
            256 => return Some(()),
            literal @ 0..256 => out.push(literal as u8),
            symbol => {
                let (base, extra) = LENGTHS[symbol - 257];
                let len = base + bits.take(extra)?;
                // The longest has a symbol of its own.
                (len < 258 || symbol == 285).then_some(())?;
                let symbol = bits.symbol(distances)?;
                let extra = (symbol as u32 / 2).saturating_sub(1);
                let base = if symbol < 2 { symbol } else { (2 + symbol % 2) << extra };
                let distance = base + bits.take(extra)? + 1;
                (distance <= window.min(out.len())).then_some(())?;
                (0..len).for_each(|_| out.push(out[out.len() - distance]));
            }
        }
    }
}
