//! Changes of inputs, the same ones for the same seed.
//!
//! Guarantee: an input is a function of the seeds, the number of the run and nothing else, so that a failure is repeated
//! by its number. Bounded: no input grows beyond [`MOST_BYTES`].

/// Longest input.
pub const MOST_BYTES: usize = 64 * 1024;

/// Numbers at the ends of ranges, as decoders meet them.
const NUMBERS: [u64; 12] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    1 << 32,
    i64::MAX as u64,
    u64::MAX,
];

/// Pieces that mean something in some format.
const PIECES: [&[u8]; 24] = [
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b"\\u0000",
    b"\n",
    b"\r\n",
    b";",
    b":",
    b",",
    b" ",
    b"\0",
    b"-1",
    b"NaN",
    b"1e400",
    b"0x",
    b"%",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"\xc3\xa9",
    b"\xed\xa0\x80",
    b"null",
    b"+",
    b"@",
];

/// Numbers that look random and are the same in every run (SplitMix64).
#[derive(Debug, Clone)]
pub struct Numbers(pub u64);

impl Numbers {
    /// The next one.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One below `bound`, or 0.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.number() % bound.max(1) as u64) as usize
    }
}

/// A changed input: one of the seeds with some changes.
pub fn changed(seeds: &[Vec<u8>], run: u64) -> Vec<u8> {
    let mut numbers = Numbers(run);
    let mut bytes = match numbers.below(seeds.len().max(1)) {
        // Noise now and then: beginnings that no seed has.
        _ if numbers.below(50) == 0 => (0..numbers.below(64)).map(|_| numbers.number() as u8).collect(),
        at => seeds.get(at).cloned().unwrap_or_default(),
    };
    for _ in 0..=numbers.below(5) {
        change(&mut bytes, seeds, &mut numbers);
    }
    bytes.truncate(MOST_BYTES);
    bytes
}

fn change(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], numbers: &mut Numbers) {
    let at = numbers.below(bytes.len() + 1);
    let end = (at + 1 + numbers.below(64)).min(bytes.len());
    let here = at.min(end);
    match numbers.below(11) {
        0 if at < bytes.len() => bytes[at] ^= 1 << numbers.below(8),
        1 if at < bytes.len() => bytes[at] = numbers.number() as u8,
        2 => drop(bytes.drain(here..end)),
        3 => {
            let piece = bytes[here..end].repeat(1 + numbers.below(4));
            bytes.splice(at..at, piece);
        }
        4 => {
            let piece = bytes[here..end].to_vec();
            let to = numbers.below(bytes.len() + 1);
            bytes.splice(to..to, piece);
        }
        5 => bytes.truncate(at),
        6 => {
            let piece = PIECES[numbers.below(PIECES.len())];
            bytes.splice(at..at, piece.iter().copied());
        }
        7 => {
            let number = NUMBERS[numbers.below(NUMBERS.len())].to_le_bytes();
            let width = 1 << numbers.below(4);
            let end = (at + width).min(bytes.len());
            bytes.splice(at.min(end)..end, number[..width].iter().copied());
        }
        8 => {
            let mut varint = Vec::new();
            let mut number = NUMBERS[numbers.below(NUMBERS.len())];
            while number >= 0x80 {
                varint.push(number as u8 | 0x80);
                number >>= 7;
            }
            varint.push(number as u8);
            let end = (at + 1).min(bytes.len());
            bytes.splice(at.min(end)..end, varint);
        }
        9 => {
            // A number in text, replaced whole.
            let is_digit = |byte: &u8| byte.is_ascii_digit();
            let Some(start) = bytes[at..].iter().position(is_digit).map(|skip| at + skip) else {
                return;
            };
            let length = bytes[start..].iter().take_while(|byte| is_digit(byte)).count();
            let number = NUMBERS[numbers.below(NUMBERS.len())].to_string();
            bytes.splice(start..start + length, number.into_bytes());
        }
        _ => {
            let other = seeds
                .get(numbers.below(seeds.len().max(1)))
                .map_or(&[][..], Vec::as_slice);
            let from = numbers.below(other.len() + 1);
            let to = (from + numbers.below(256)).min(other.len());
            bytes.splice(at..at, other[from..to].iter().copied());
        }
    }
    bytes.truncate(MOST_BYTES);
}
