//! HTTP/2 frame by frame, for callers that no library would be.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// The preface of a connection and empty settings.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
const ACK: u8 = 1;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// Name and value.
pub(crate) type Field = (Vec<u8>, Vec<u8>);

pub(crate) fn field(name: &str, value: &str) -> Field {
    (name.as_bytes().to_vec(), value.as_bytes().to_vec())
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Fields as literals that nobody remembers, not compressed (RFC 7541, 6.2.2).
pub(crate) fn block(fields: &[Field]) -> Vec<u8> {
    let text = |bytes: &[u8]| [&[u8::try_from(bytes.len()).unwrap()], bytes].concat();
    let one = |(name, value): &Field| [&[0][..], &text(name), &text(value)].concat();
    fields.iter().flat_map(one).collect()
}

/// A `GET` that is one frame.
pub(crate) fn get_frame(stream: u32, path: &str) -> Vec<u8> {
    let fields = [
        field(":method", "GET"),
        field(":scheme", "http"),
        field(":authority", "a"),
        field(":path", path),
    ];
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&fields))
}

/// Kind, flags and stream of the next frame, whose ping is answered; `None` at the end of the connection.
pub(crate) async fn read_frame(stream: &mut TcpStream) -> Option<(u8, u8, u32)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; usize::try_from(length).ok()?];
    stream.read_exact(&mut payload).await.ok()?;
    let (kind, flags) = (head[3], head[4]);
    if (kind, flags & ACK) == (PING, 0) {
        stream.write_all(&frame(PING, ACK, 0, &payload)).await.ok()?;
    }
    Some((kind, flags, u32::from_be_bytes([head[5], head[6], head[7], head[8]])))
}
