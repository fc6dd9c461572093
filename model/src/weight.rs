//! How much memory a decoded message needs, estimated from its bytes without decoding it.
//!
//! Protobuf encodes an empty element in two bytes, while a program needs a hundred: a limit on the wire does not yet
//! limit memory. Guarantees: weighing allocates nothing, follows no nesting beyond [`MAX_DEPTH`] and takes time linear
//! in the bytes; a message below a limit needs less memory than that limit to decode. What readers build from a decoded
//! message is charged to a limit of the same size as it is built ([`Allowance`]).
//!
//! Wrong on purpose: weights are upper estimates, based on struct sizes with room for growing vectors; invalid bytes
//! get the weight of what could be read, for the decoder to refuse.

use crate::profile::Frame;

/// How much larger than its bytes a message may become in memory. Real profiles take two to five times.
pub const MEMORY_FACTOR: u64 = 8;

/// Memory limit for a message, derived from its size limit. Small limits apply to bytes, not to memory.
pub fn memory_of(most_bytes: u64) -> u64 {
    most_bytes.saturating_mul(MEMORY_FACTOR).saturating_add(1 << 20)
}

/// The message size for which this much memory is enough: the inverse of [`memory_of`].
pub fn bytes_of(most_memory: u64) -> u64 {
    most_memory.saturating_sub(1 << 20) / MEMORY_FACTOR
}

/// Deepest nesting that is followed; the decoder refuses deeper ones.
const MAX_DEPTH: u32 = 100;
/// Weight of a number outside a packed list.
const NUMBER: u64 = 8;

/// A message that would need too much memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("decoding needs more than {limit} bytes of memory: too many small elements; send less at once")]
pub struct TooHeavy {
    /// The most it may need.
    pub limit: u64,
}

/// The weight of a length-delimited field.
#[derive(Debug)]
pub(crate) struct Shape {
    /// Per element.
    pub(crate) each: u64,
    /// Per byte.
    pub(crate) per_byte: u64,
    /// Length-delimited fields inside, by number; others are skipped by the decoder and weigh nothing.
    pub(crate) fields: &'static [(u64, &'static Shape)],
}

/// A field of text or bytes.
pub(crate) static TEXT: Shape = Shape {
    each: 64,
    per_byte: 1,
    fields: &[],
};

/// A packed list of numbers, at least a byte each.
pub(crate) static NUMBERS: Shape = Shape {
    each: 32,
    per_byte: 12,
    fields: &[],
};

/// Weighs a message; stops with an error as soon as it exceeds the limit.
pub(crate) fn weigh(message: &[u8], shape: &Shape, limit: u64) -> Result<u64, TooHeavy> {
    let mut weight = 0;
    add(message, shape, limit, MAX_DEPTH, &mut weight)?;
    Ok(weight)
}

fn charge(weight: &mut u64, more: u64, limit: u64) -> Result<(), TooHeavy> {
    *weight = weight.saturating_add(more);
    if *weight > limit {
        return Err(TooHeavy { limit });
    }
    Ok(())
}

fn add(mut rest: &[u8], shape: &Shape, limit: u64, depth: u32, weight: &mut u64) -> Result<(), TooHeavy> {
    if depth == 0 {
        return Ok(());
    }
    while let Some(tag) = varint(&mut rest) {
        let length = match tag & 7 {
            0 => {
                charge(weight, NUMBER, limit)?;
                if varint(&mut rest).is_none() {
                    return Ok(());
                }
                continue;
            }
            1 => 8,
            5 => 4,
            2 => match varint(&mut rest) {
                Some(length) => length,
                None => return Ok(()),
            },
            _ => return Ok(()),
        };
        let Some((content, after)) = usize::try_from(length).ok().and_then(|at| rest.split_at_checked(at)) else {
            return Ok(());
        };
        rest = after;
        if tag & 7 != 2 {
            charge(weight, NUMBER, limit)?;
            continue;
        }
        let known = shape.fields.iter().find(|(number, _)| *number == tag >> 3);
        if let Some((_, inner)) = known {
            let bytes = inner.per_byte.saturating_mul(content.len() as u64);
            charge(weight, inner.each.saturating_add(bytes), limit)?;
            if !inner.fields.is_empty() {
                add(content, inner, limit, depth - 1, weight)?;
            }
        }
    }
    Ok(())
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..70).step_by(7) {
        let (&byte, after) = rest.split_first()?;
        *rest = after;
        if shift < 64 {
            value |= u64::from(byte & 0x7f) << shift;
        }
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// What may still be built from a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allowance {
    limit: u64,
    used: u64,
}

impl Allowance {
    pub(crate) fn new(limit: u64) -> Allowance {
        Allowance { limit, used: 0 }
    }

    /// Charges for frames that stacks will refer to.
    pub(crate) fn location(&mut self, frames: &[Frame]) -> Result<(), TooHeavy> {
        let bytes = |frame: &Frame| 120 + frame.function.len() + frame.file.len();
        let frames: usize = frames.iter().map(bytes).sum();
        charge(&mut self.used, 80 + frames as u64, self.limit)
    }

    /// Charges for a stack with this many frames, once in its table and once in that table's index.
    pub(crate) fn stack(&mut self, frames: usize) -> Result<(), TooHeavy> {
        charge(&mut self.used, 160 + 8 * frames as u64, self.limit)
    }

    /// Charges for this many bytes.
    pub(crate) fn bytes(&mut self, bytes: usize) -> Result<(), TooHeavy> {
        charge(&mut self.used, bytes as u64, self.limit)
    }

    /// Charges for `times` copies of everything.
    pub(crate) fn copies(&mut self, times: usize) -> Result<(), TooHeavy> {
        let more = self.used.saturating_mul(times.saturating_sub(1) as u64);
        charge(&mut self.used, more, self.limit)
    }
}

/// Weighs text by lines and separators: collapsed stacks, `perf script`.
pub(crate) fn weigh_text(text: &[u8], limit: u64) -> Result<u64, TooHeavy> {
    let mut weight = 2 * text.len() as u64;
    for byte in text {
        weight += match byte {
            b'\n' => 300,
            b';' => 32,
            _ => 0,
        };
    }
    charge(&mut weight, 0, limit)?;
    Ok(weight)
}

/// Weighs JSON by its brackets and commas.
pub(crate) fn weigh_json(text: &[u8], limit: u64) -> Result<u64, TooHeavy> {
    let mut weight = 2 * text.len() as u64;
    for byte in text {
        weight += match byte {
            b'{' => 200,
            b'[' => 160,
            b',' => 24,
            _ => 0,
        };
    }
    charge(&mut weight, 0, limit)?;
    Ok(weight)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    static LEAF: Shape = Shape {
        each: 100,
        per_byte: 0,
        fields: &[],
    };
    static ROOT: Shape = Shape {
        each: 0,
        per_byte: 0,
        fields: &[(1, &LEAF), (2, &NUMBERS)],
    };

    #[test]
    fn empty_elements_weigh_what_they_become() {
        let empties = [0x0a, 0].repeat(1000);
        assert_eq!(weigh(&empties, &ROOT, u64::MAX), Ok(100_000));
        assert_eq!(weigh(&empties, &ROOT, 99_999), Err(TooHeavy { limit: 99_999 }));
        let packed = [&[0x12, 3, 1, 2, 3][..], &[0x18, 5]].concat();
        assert_eq!(weigh(&packed, &ROOT, u64::MAX), Ok(32 + 36 + 8));
        let unknown = [0x1a, 2, 0xff, 0xff];
        assert_eq!(weigh(&unknown, &ROOT, u64::MAX), Ok(0));
    }

    proptest! {
        #[test]
        fn bytes_of_any_kind_are_weighed(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let weight = weigh(&bytes, &ROOT, u64::MAX).unwrap();
            prop_assert!(weight <= 100 * bytes.len() as u64);
            prop_assert_eq!(weigh(&bytes, &ROOT, weight), Ok(weight));
        }
    }
}
