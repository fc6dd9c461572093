//! A chunk of a recording: its header, its types, and its events.
//!
//! Guarantee: an event is read within its own bytes; fields of its type that are not needed are skipped.

use std::borrow::Cow;

use super::{
    MAGIC,
    cursor::{Cursor, Text},
    types::{Kind, Types},
};
use crate::formats::{read_error::ReadError, table::Table};

/// Length of the header.
const HEAD: usize = 68;

/// One chunk.
#[derive(Debug)]
pub(super) struct Chunk<'a> {
    /// At the start of the chunk.
    cursor: Cursor<'a>,
    /// Its bytes.
    pub(super) length: usize,
    /// Position of its last pool.
    pub(super) pools_at: usize,
    /// When it began, nanoseconds since the Unix epoch.
    pub(super) start_ns: i64,
    /// How long it is.
    pub(super) duration_ns: i64,
    ticks_per_second: i64,
    /// Its types.
    pub(super) types: Types<'a>,
}

/// The fields read from an event; those that its type does not have are `None`.
#[derive(Debug, Default)]
pub(super) struct Event<'a> {
    pub(super) stack: Option<i64>,
    pub(super) duration_ns: Option<i64>,
    pub(super) period_ns: Option<i64>,
    pub(super) weight: Option<i64>,
    pub(super) tlab_size: Option<i64>,
    pub(super) allocation_size: Option<i64>,
    pub(super) samples: Option<i64>,
    pub(super) failed: Option<bool>,
    /// For a setting: the event that it concerns.
    pub(super) about: Option<i64>,
    pub(super) name: Option<Cow<'a, str>>,
    pub(super) value: Option<Cow<'a, str>>,
}

impl<'a> Chunk<'a> {
    /// Reads the chunk that begins at a position in the file.
    pub(super) fn read(file: &'a [u8], base: usize, table: &mut Table) -> Result<Chunk<'a>, ReadError> {
        let rest = &file[base..];
        let head = rest.get(..HEAD).filter(|head| head.starts_with(MAGIC));
        let head = head.ok_or_else(|| ReadError::byte(base, "the chunk header is missing"))?;
        let two = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        let eight = |at: usize| {
            head[at..at + 8]
                .iter()
                .fold(0u64, |value, byte| (value << 8) | u64::from(*byte)) as i64
        };
        if !matches!(two(4), 1 | 2) {
            return Err(ReadError::byte(
                base + 4,
                format!(
                    "format version {}.{} is not supported; versions 1 and 2 are",
                    two(4),
                    two(6)
                ),
            ));
        }
        let length = usize::try_from(eight(8))
            .ok()
            .filter(|length| (HEAD..=rest.len()).contains(length));
        let length = length.ok_or_else(|| {
            ReadError::byte(
                base + 8,
                format!(
                    "the chunk declares {} bytes, but {} are present: the recording is unfinished or truncated (`jfr assemble` finishes it)",
                    eight(8),
                    rest.len()
                ),
            )
        })?;
        let cursor = Cursor {
            bytes: &rest[..length],
            at: 0,
            base,
            compressed: head[67] & 1 != 0,
        };
        let place = |at: usize| {
            let place = usize::try_from(eight(at))
                .ok()
                .filter(|place| (HEAD..length).contains(place));
            place.ok_or_else(|| ReadError::byte(base + at, "an offset points outside the chunk"))
        };
        let types = Types::read(
            Cursor {
                at: place(24)?,
                ..cursor
            },
            table,
        )?;
        Ok(Chunk {
            cursor,
            length,
            pools_at: place(16)?,
            start_ns: eight(32),
            duration_ns: eight(40).max(0),
            ticks_per_second: eight(56).max(1),
            types,
        })
    }

    /// A cursor at a position in the chunk.
    pub(super) fn at(&self, at: usize) -> Cursor<'a> {
        Cursor { at, ..self.cursor }
    }

    fn ticks_as_ns(&self, ticks: i64) -> i64 {
        let ns = i128::from(ticks) * 1_000_000_000 / i128::from(self.ticks_per_second);
        i64::try_from(ns).unwrap_or(i64::MAX)
    }

    /// Calls `each` with every event of that name.
    pub(super) fn events(
        &self,
        name: &str,
        mut each: impl FnMut(Event<'a>) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        let Some(wanted) = self.types.id_of(name) else {
            return Ok(());
        };
        let mut at = HEAD;
        while at < self.length {
            let mut cursor = self.at(at);
            let size = cursor.int()?;
            let end = usize::try_from(size)
                .ok()
                .filter(|size| *size > 0)
                .and_then(|size| at.checked_add(size));
            let end = end.filter(|end| *end <= self.length && *end >= cursor.at);
            let end = end.ok_or_else(|| {
                self.at(at)
                    .error(format!("an event has an invalid size of {size} bytes"))
            })?;
            if cursor.long()? == wanted {
                let event = self.event(
                    &mut Cursor {
                        bytes: &cursor.bytes[..end],
                        ..cursor
                    },
                    wanted,
                );
                each(event?)?;
            }
            at = end;
        }
        Ok(())
    }

    fn event(&self, cursor: &mut Cursor<'a>, class: i64) -> Result<Event<'a>, ReadError> {
        let mut event = Event::default();
        for field in &self.types.class(cursor, class)?.fields {
            let class = self.types.class(cursor, field.class)?;
            if field.array {
                self.types.skip_field(cursor, field, 0)?;
                continue;
            }
            if field.pooled {
                let index = cursor.long()?;
                if field.name == "stackTrace" {
                    event.stack = Some(index);
                }
                continue;
            }
            match class.kind {
                Kind::Whole(bytes) => {
                    let number = cursor.whole(bytes)?;
                    let ns = if field.ticks { self.ticks_as_ns(number) } else { number };
                    match &*field.name {
                        "duration" => event.duration_ns = Some(ns),
                        "samplingPeriod" => event.period_ns = Some(ns),
                        "weight" => event.weight = Some(number),
                        "tlabSize" => event.tlab_size = Some(number),
                        "allocationSize" => event.allocation_size = Some(number),
                        "samples" => event.samples = Some(number),
                        "id" => event.about = Some(number),
                        _ => {}
                    }
                }
                Kind::Fixed(bytes) => {
                    let value = cursor.take(bytes)?;
                    if field.name == "failed" {
                        event.failed = Some(value != [0]);
                    }
                }
                Kind::Text => {
                    let text = match cursor.text()? {
                        Text::Plain(text) => Some(text),
                        Text::None | Text::Pooled(_) => None,
                    };
                    match &*field.name {
                        "name" => event.name = text,
                        "value" => event.value = text,
                        _ => {}
                    }
                }
                Kind::Fields => self.types.skip_field(cursor, field, 0)?,
            }
        }
        Ok(event)
    }
}
