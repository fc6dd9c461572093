//! Numbers and text in a chunk.
//!
//! Guarantee: nothing is read outside the chunk, and no length from the file determines an allocation.

use std::borrow::Cow;

use crate::formats::read_error::ReadError;

/// Longest text kept, in bytes; longer text is truncated.
const MAX_TEXT: usize = 16 << 10;

/// A text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Text<'a> {
    /// No text.
    None,
    /// The text itself.
    Plain(Cow<'a, str>),
    /// Its number in the pool of texts.
    Pooled(i64),
}

/// A position in a chunk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'a> {
    /// The chunk.
    pub(super) bytes: &'a [u8],
    /// The current position.
    pub(super) at: usize,
    /// Where the chunk begins in the file, for messages.
    pub(super) base: usize,
    /// Integers take only the bytes they need.
    pub(super) compressed: bool,
}

impl<'a> Cursor<'a> {
    pub(super) fn error(&self, what: impl Into<String>) -> ReadError {
        ReadError::byte(self.base + self.at, what)
    }

    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], ReadError> {
        let end = self.at.checked_add(length);
        let bytes = end.and_then(|end| self.bytes.get(self.at..end));
        let bytes = bytes.ok_or_else(|| self.error("the chunk ends in the middle of a value"))?;
        self.at += length;
        Ok(bytes)
    }

    pub(super) fn byte(&mut self) -> Result<u8, ReadError> {
        Ok(self.take(1)?[0])
    }

    /// An integer, of `bytes` bytes if numbers are not compressed.
    pub(super) fn whole(&mut self, bytes: usize) -> Result<i64, ReadError> {
        if !self.compressed {
            let sign = bytes.min(8) * 8;
            let value = self
                .take(bytes)?
                .iter()
                .fold(0u64, |value, byte| (value << 8) | u64::from(*byte));
            return Ok(if sign == 64 {
                value as i64
            } else {
                ((value << (64 - sign)) as i64) >> (64 - sign)
            });
        }
        let mut value = 0u64;
        for shift in (0..56).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value as i64);
            }
        }
        // The ninth byte is used whole.
        Ok((value | (u64::from(self.byte()?) << 56)) as i64)
    }

    pub(super) fn long(&mut self) -> Result<i64, ReadError> {
        self.whole(8)
    }

    pub(super) fn int(&mut self) -> Result<i64, ReadError> {
        Ok(i64::from(self.whole(4)? as i32))
    }

    /// A number of items that take at least a byte each.
    pub(super) fn count(&mut self) -> Result<usize, ReadError> {
        let at = self.at;
        let count = usize::try_from(self.int()?)
            .ok()
            .filter(|count| *count <= self.bytes.len());
        count.ok_or_else(|| ReadError::byte(self.base + at, "a count is too large for the chunk"))
    }

    /// A text.
    pub(super) fn text(&mut self) -> Result<Text<'a>, ReadError> {
        let encoding = self.byte()?;
        let cut = |bytes: &'a [u8]| &bytes[..bytes.len().min(MAX_TEXT)];
        Ok(match encoding {
            0 => Text::None,
            1 => Text::Plain(Cow::Borrowed("")),
            2 => Text::Pooled(self.long()?),
            3 => {
                let length = self.count()?;
                Text::Plain(String::from_utf8_lossy(cut(self.take(length)?)))
            }
            4 => {
                let length = self.count()?;
                let mut text = String::new();
                for _ in 0..length {
                    let unit = self.whole(2)? as u16;
                    if text.len() < MAX_TEXT {
                        text.push(char::from_u32(unit.into()).unwrap_or('\u{fffd}'));
                    }
                }
                Text::Plain(text.into())
            }
            5 => {
                let length = self.count()?;
                Text::Plain(cut(self.take(length)?).iter().map(|&byte| char::from(byte)).collect())
            }
            other => return Err(self.error(format!("unknown string encoding {other}"))),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cursor(bytes: &[u8], compressed: bool) -> Cursor<'_> {
        Cursor {
            bytes,
            at: 0,
            base: 0,
            compressed,
        }
    }

    /// As the JDK writes numbers: seven bits per byte, the ninth byte whole.
    fn compress(value: i64) -> Vec<u8> {
        let mut rest = value as u64;
        let mut bytes = Vec::new();
        for _ in 0..8 {
            if rest < 0x80 {
                bytes.push(rest as u8);
                return bytes;
            }
            bytes.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        bytes.push(rest as u8);
        bytes
    }

    proptest! {
        #[test]
        fn numbers_are_read_as_they_are_written(value in any::<i64>(), small in any::<i32>()) {
            prop_assert_eq!(cursor(&compress(value), true).long().unwrap(), value);
            prop_assert_eq!(cursor(&value.to_be_bytes(), false).long().unwrap(), value);
            prop_assert_eq!(cursor(&small.to_be_bytes(), false).int().unwrap(), i64::from(small));
            prop_assert_eq!(cursor(&compress(i64::from(small)), true).int().unwrap(), i64::from(small));
        }

        #[test]
        fn bytes_of_any_kind_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..40), compressed in any::<bool>()) {
            let mut cursor = cursor(&bytes, compressed);
            while cursor.text().is_ok() {}
            prop_assert!(cursor.at <= bytes.len());
        }
    }
}
