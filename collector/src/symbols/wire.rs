//! The protocol between the worker and the symbol reader process, over the latter's standard input and output.
//!
//! Guarantees: nothing longer than [`MAX_BYTES`] is read, whatever length the other side claims; a name is written once
//! per response, however many locations have it.
//!
//! Format: the process begins with [`HELLO`]; then each message is its length (four bytes, little-endian) and a
//! protobuf.

use std::io::{self, Read, Write};

use emberline_model::Frame;
use emberline_storage::PackedFrames;
use prost::Message;

/// The first bytes from a symbol reader process, which other programs do not send.
pub(super) const HELLO: &[u8; 8] = b"EMBSYMR1";
/// Longest message.
pub(super) const MAX_BYTES: usize = 16 << 20;

/// A query: the functions at some offsets of a file.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Ask {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) path: Vec<u8>,
    /// Address space on top of the program's own and the file's.
    #[prost(uint64, tag = "2")]
    pub(super) memory_bytes: u64,
    /// CPU time for this query.
    #[prost(uint64, tag = "3")]
    pub(super) cpu_seconds: u64,
    #[prost(uint64, repeated, tag = "4")]
    pub(super) offsets: Vec<u64>,
}

/// The response.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Answer {
    /// The error, if the file is at fault.
    #[prost(string, tag = "1")]
    pub(super) error: String,
    /// What could not be forbidden; empty if everything was.
    #[prost(string, tag = "2")]
    pub(super) unconfined: String,
    #[prost(message, optional, tag = "3")]
    found: Option<PackedFrames>,
}

impl Answer {
    pub(super) fn failed(error: String) -> Answer {
        Answer {
            error,
            ..Answer::default()
        }
    }

    pub(super) fn of(found: &[(u64, Vec<Frame>)]) -> Answer {
        Answer {
            found: Some(PackedFrames::of(found)),
            ..Answer::default()
        }
    }

    /// The frames at each offset.
    pub(super) fn frames(self) -> Vec<(u64, Vec<Frame>)> {
        self.found.unwrap_or_default().frames().collect()
    }
}

/// A message preceded by its length.
pub(super) fn framed(message: &impl Message) -> Vec<u8> {
    let mut bytes = (message.encoded_len() as u32).to_le_bytes().to_vec();
    bytes.extend(message.encode_to_vec());
    bytes
}

/// The length of a message, if it is allowed.
pub(super) fn length(prefix: [u8; 4]) -> io::Result<usize> {
    let length = u32::from_le_bytes(prefix) as usize;
    if length > MAX_BYTES {
        return Err(io::Error::other(format!(
            "a message of {length} bytes; at most {MAX_BYTES} are accepted"
        )));
    }
    Ok(length)
}

/// The next message; `None` at the end.
pub(super) fn read<M: Message + Default>(from: &mut impl Read) -> io::Result<Option<M>> {
    let mut prefix = [0; 4];
    match from.read_exact(&mut prefix) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let mut bytes = vec![0; length(prefix)?];
    from.read_exact(&mut bytes)?;
    M::decode(bytes.as_slice()).map(Some).map_err(io::Error::other)
}

/// Writes a message; one that is too long is replaced by an error.
pub(super) fn write(to: &mut impl Write, answer: &Answer) -> io::Result<()> {
    let bytes = match answer.encoded_len() > MAX_BYTES {
        true => framed(&Answer::failed(format!("its names take more than {MAX_BYTES} bytes"))),
        false => framed(answer),
    };
    to.write_all(&bytes)?;
    to.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_arrive_as_they_were_found() {
        let frame = |function: &str, line| Frame {
            function: function.into(),
            file: "src/lib.rs".into(),
            line,
        };
        let found = vec![
            (16, vec![frame("inner", 3), frame("outer", 9)]),
            (32, Vec::new()),
            (48, vec![frame("inner", 4)]),
        ];
        let mut bytes = Vec::new();
        write(&mut bytes, &Answer::of(&found)).unwrap();
        let answer: Answer = read(&mut bytes.as_slice()).unwrap().unwrap();
        assert_eq!(answer.frames(), found);
        assert_eq!(read::<Answer>(&mut &b""[..]).unwrap(), None);
    }

    #[test]
    fn a_length_that_lies_costs_no_memory_and_what_is_too_long_is_said() {
        assert!(read::<Answer>(&mut &u32::MAX.to_le_bytes()[..]).is_err());
        assert!(read::<Answer>(&mut &[9, 0, 0, 0, 1][..]).is_err());
        let long = Frame {
            function: "x".repeat(MAX_BYTES),
            ..Frame::default()
        };
        let mut bytes = Vec::new();
        write(&mut bytes, &Answer::of(&[(1, vec![long])])).unwrap();
        let answer: Answer = read(&mut bytes.as_slice()).unwrap().unwrap();
        assert!(answer.error.contains("16777216 bytes"), "{}", answer.error);
    }
}
