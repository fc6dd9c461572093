//! Records of a dictionary part: messages, compressed, framed.
//!
//! Guarantee: what was written decodes to an equal message; other bytes decode to an error, and no record makes the
//! reader allocate more than [`MAX_PAYLOAD_BYTES`] for it.

use std::io::{self, Read, Write};

use prost::Message;

use crate::framing::{self, MAX_PAYLOAD_BYTES};

/// Dictionaries are written once an hour and read whole.
const ZSTD_LEVEL: i32 = 12;

/// Identifies the kind of record; never reused.
pub(super) trait Record: Message + Default {
    const STAMP: u32;
}

/// Writes records one after another.
pub(super) struct Records<'a, W: Write> {
    out: &'a mut W,
    sequence: u64,
}

impl<'a, W: Write> Records<'a, W> {
    pub(super) fn new(out: &'a mut W) -> Records<'a, W> {
        Records { out, sequence: 0 }
    }

    pub(super) fn push<R: Record>(&mut self, record: &R) -> io::Result<()> {
        let compressed = zstd::bulk::compress(&record.encode_to_vec(), ZSTD_LEVEL)?;
        self.copy(R::STAMP, &compressed)
    }

    /// Writes a record as it was read, still compressed.
    pub(super) fn copy(&mut self, stamp: u32, compressed: &[u8]) -> io::Result<()> {
        self.sequence += 1;
        let mut framed = Vec::with_capacity(framing::HEADER_BYTES + compressed.len());
        framing::encode(&mut framed, self.sequence, stamp, compressed);
        self.out.write_all(&framed)
    }
}

/// The records of one kind, in order.
pub(super) fn records<R: Record>(bytes: &[u8]) -> impl Iterator<Item = io::Result<R>> {
    framing::scan(bytes, 0, 0)
        .frames
        .into_iter()
        .filter(|frame| frame.stamp == R::STAMP)
        .map(|frame| {
            let mut message = Vec::new();
            zstd::stream::Decoder::new(&bytes[frame.payload])?
                .take(MAX_PAYLOAD_BYTES as u64 + 1)
                .read_to_end(&mut message)?;
            R::decode(message.as_slice()).map_err(io::Error::other)
        })
}
