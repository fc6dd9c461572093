//! Values of Python's `marshal`, as far as `pstats` files contain them: dictionaries, tuples, numbers, text.
//!
//! Guarantees: nesting is bounded, even through references, which lead only to plain values and tuples of them; every
//! value is charged to an allowance.

use std::rc::Rc;

use super::read_error::ReadError;
use crate::weight::Allowance;

/// Deepest nesting; `pstats` files have four levels.
const MAX_DEPTH: usize = 8;
/// Set on the type of values that may be referred to later.
const MAY_BE_REFERRED_TO: u8 = 0x80;

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value<'a> {
    /// `None` and other singletons.
    Nothing,
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// Text; invalid UTF-8 is replaced.
    Text(std::borrow::Cow<'a, str>),
    /// A tuple or list.
    Tuple(Rc<[Value<'a>]>),
    /// A dictionary.
    Dict(Rc<[(Value<'a>, Value<'a>)]>),
}

/// A file being read.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    references: Vec<Value<'a>>,
    allowance: Allowance,
}

impl Value<'_> {
    fn is_plain(&self) -> bool {
        !matches!(self, Value::Tuple(_) | Value::Dict(_))
    }

    /// Whether references may lead to it: the depth of its nesting is known.
    fn may_be_referred_to(&self) -> bool {
        match self {
            Value::Tuple(values) => values.iter().all(Value::is_plain),
            other => other.is_plain(),
        }
    }
}

impl<'a> Reader<'a> {
    /// From the beginning of the bytes; values may take at most `memory` bytes.
    pub(super) fn new(bytes: &'a [u8], memory: u64) -> Reader<'a> {
        Reader {
            bytes,
            at: 0,
            references: Vec::new(),
            allowance: Allowance::new(memory),
        }
    }

    /// The current position.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], ReadError> {
        let cut = || ReadError::byte(self.at, "the file ends unexpectedly");
        let bytes = self
            .bytes
            .get(self.at..self.at.saturating_add(length))
            .ok_or_else(cut)?;
        self.at += length;
        Ok(bytes)
    }

    fn byte(&mut self) -> Result<u8, ReadError> {
        Ok(self.take(1)?[0])
    }

    fn four(&mut self) -> Result<i32, ReadError> {
        let bytes = self.take(4)?;
        Ok(i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    fn length(&mut self) -> Result<usize, ReadError> {
        let at = self.at;
        usize::try_from(self.four()?).map_err(|_| ReadError::byte(at, "a length is negative"))
    }

    /// The next value.
    pub(super) fn value(&mut self) -> Result<Value<'a>, ReadError> {
        let at = self.at;
        self.next(0)?.ok_or_else(|| ReadError::byte(at, "a value is missing"))
    }

    /// `None` for the end of a dictionary.
    fn next(&mut self, depth: usize) -> Result<Option<Value<'a>>, ReadError> {
        let at = self.at;
        if depth > MAX_DEPTH {
            return Err(ReadError::byte(at, format!("values nest deeper than {MAX_DEPTH}")));
        }
        let code = self.byte()?;
        self.allowance.bytes(120)?;
        let kept = code & MAY_BE_REFERRED_TO != 0;
        // Its number is assigned before its contents are read.
        let slot = self.references.len();
        if kept {
            self.references.push(Value::Nothing);
        }
        let value = match code & !MAY_BE_REFERRED_TO {
            b'0' => return Ok(None),
            b'N' | b'T' | b'F' | b'.' | b'S' => Value::Nothing,
            b'i' => Value::Int(self.four()?.into()),
            b'l' => self.long(at)?,
            b'g' => {
                let bytes = self.take(8)?;
                let bytes = bytes
                    .try_into()
                    .map_err(|_| ReadError::byte(at, "a number is too short"))?;
                Value::Float(f64::from_le_bytes(bytes))
            }
            b'f' => {
                let length = self.byte()?.into();
                let text = String::from_utf8_lossy(self.take(length)?);
                let number = text.parse().map_err(|_| ReadError::byte(at, "not a number"))?;
                Value::Float(number)
            }
            b'z' | b'Z' => {
                let length = self.byte()?.into();
                Value::Text(String::from_utf8_lossy(self.take(length)?))
            }
            b'a' | b'A' | b'u' | b't' | b's' => {
                let length = self.length()?;
                Value::Text(String::from_utf8_lossy(self.take(length)?))
            }
            b')' => {
                let length = self.byte()?.into();
                self.tuple(length, depth)?
            }
            b'(' | b'[' => {
                let length = self.length()?;
                self.tuple(length, depth)?
            }
            b'{' => {
                let mut entries = Vec::new();
                while let Some(key) = self.next(depth + 1)? {
                    let at = self.at;
                    let value = self.next(depth + 1)?;
                    entries.push((key, value.ok_or_else(|| ReadError::byte(at, "a key has no value"))?));
                }
                Value::Dict(entries.into())
            }
            b'r' => {
                let index = self.length()?;
                let known = self.references.get(index).cloned();
                known.ok_or_else(|| ReadError::byte(at, format!("a reference to undefined value {index}")))?
            }
            other => {
                return Err(ReadError::byte(
                    at,
                    format!("values of type {:?} are not supported", other as char),
                ));
            }
        };
        if kept && value.may_be_referred_to() {
            self.references[slot] = value.clone();
        }
        Ok(Some(value))
    }

    fn tuple(&mut self, length: usize, depth: usize) -> Result<Value<'a>, ReadError> {
        let mut values = Vec::new();
        for _ in 0..length {
            let at = self.at;
            let value = self.next(depth + 1)?;
            values.push(value.ok_or_else(|| ReadError::byte(at, "a tuple has fewer values than declared"))?);
        }
        Ok(Value::Tuple(values.into()))
    }

    /// An integer of any size, in digits of 15 bits.
    fn long(&mut self, at: usize) -> Result<Value<'a>, ReadError> {
        let digits = self.four()?;
        let mut value: i64 = 0;
        for digit in 0..digits.unsigned_abs() {
            let bytes = self.take(2)?;
            let bits = i64::from(u16::from_le_bytes([bytes[0], bytes[1]]));
            if digit >= 4 && bits != 0 {
                return Err(ReadError::byte(at, "an integer has more than 60 bits"));
            }
            if digit < 4 {
                value |= bits << (15 * digit);
            }
        }
        Ok(Value::Int(if digits < 0 { -value } else { value }))
    }
}
