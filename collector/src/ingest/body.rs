//! Reading a request body over HTTP: bounded before and after decompression.
//!
//! Guarantees: neither the bytes on the wire nor the decompressed ones held in memory ever exceed the limit (by more
//! than one read), for one request and, by [`super::memory`], for all together; a body that ends early is an error and
//! never a shorter message. A turn is taken once the body is complete, so slow senders hold up nobody.

use std::io::Read;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use http::{HeaderMap, Request, header};
use tokio::sync::SemaphorePermit;

use super::{Ingest, memory::Room, rejection::Rejection, sender::SenderKey};

/// A supported compression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// None.
    Identity,
    /// RFC 1952; several members in a row form one body.
    Gzip,
    /// RFC 8878; several frames in a row form one body.
    Zstd,
}

/// The largest zstd window accepted, as a power of two: a frame may not demand more memory than a request may have.
const ZSTD_WINDOW_LOG: u32 = 24;

impl Encoding {
    /// Reads a `Content-Encoding` header.
    pub(crate) fn parse(header: Option<&http::HeaderValue>) -> Result<Encoding, Rejection> {
        let Some(header) = header else {
            return Ok(Encoding::Identity);
        };
        let text = header.to_str().unwrap_or("?").trim().to_ascii_lowercase();
        match text.as_str() {
            "" | "identity" => Ok(Encoding::Identity),
            "gzip" | "x-gzip" => Ok(Encoding::Gzip),
            "zstd" => Ok(Encoding::Zstd),
            _ => Err(Rejection::ContentEncoding(text.chars().take(80).collect())),
        }
    }
}

/// The content type without its parameters; empty if there is none.
pub(crate) fn essence(headers: &HeaderMap) -> &str {
    let content_type = headers
        .get(header::CONTENT_TYPE)
        .map_or("", |v| v.to_str().unwrap_or("?"));
    content_type.split(';').next().unwrap_or_default().trim()
}

/// What a request holds while it is processed: its turn, and memory for its body.
pub(crate) struct Place<'i> {
    /// Who sent it.
    pub(crate) sender: SenderKey,
    _turn: SemaphorePermit<'i>,
    _room: Room,
}

/// Reads the whole body, decompressed, within the time a request may take, and waits for a turn. Both are held until
/// the place is dropped.
pub(crate) async fn receive(
    ingest: &Ingest,
    request: Request<Body>,
) -> Result<(HeaderMap, Bytes, Place<'_>), Rejection> {
    let timeout = ingest.config.request_timeout;
    let receive = async {
        let (parts, body) = request.into_parts();
        let sender = SenderKey::of(&parts.extensions);
        let limit = ingest.config.max_request_bytes;
        let mut room = ingest.memory.body();
        let encoding = Encoding::parse(parts.headers.get(header::CONTENT_ENCODING))?;
        let length = parts.headers.get(header::CONTENT_LENGTH);
        let declared = length.and_then(|v| v.to_str().ok()?.parse().ok());
        let packed = read(body, declared, limit, &mut room, |_| Ok(())).await?;
        let message = unpack(packed, encoding, limit, &mut room).await?;
        let turn = ingest.turn().await?;
        Ok((
            parts.headers,
            message,
            Place {
                sender,
                _turn: turn,
                _room: room,
            },
        ))
    };
    match tokio::time::timeout(timeout, receive).await {
        Ok(received) => received,
        Err(_) => Err(Rejection::TimedOut {
            seconds: timeout.as_secs(),
        }),
    }
}

/// The flag and length that precede a gRPC message.
const GRPC_PREFIX: usize = 5;

/// The same for a gRPC call with one message: returns the request with its message complete and decompressed. Anything
/// but one message is left for the transport to refuse. The caller limits the time.
pub(super) async fn receive_grpc(
    ingest: &Ingest,
    request: Request<Body>,
) -> Result<(Request<Body>, Place<'_>), Rejection> {
    let (mut parts, body) = request.into_parts();
    let limit = ingest.config.max_request_bytes;
    let mut room = ingest.memory.body();
    let claimed = |read: &[u8]| match read.first_chunk::<GRPC_PREFIX>() {
        Some([_, length @ ..]) if u32::from_be_bytes(*length) as usize > limit => Err(Rejection::TooLarge { limit }),
        _ => Ok(()),
    };
    let mut frame = read(body, None, limit.saturating_add(GRPC_PREFIX), &mut room, claimed).await?;
    let encoding = match parts.headers.get("grpc-encoding").map(http::HeaderValue::as_bytes) {
        Some(b"gzip") => Encoding::Gzip,
        Some(b"zstd") => Encoding::Zstd,
        _ => Encoding::Identity,
    };
    if encoding != Encoding::Identity
        && let Some([1, length @ ..]) = frame.first_chunk::<GRPC_PREFIX>()
        && u32::from_be_bytes(*length) as usize == frame.len() - GRPC_PREFIX
    {
        let message = unpack(frame.slice(GRPC_PREFIX..), encoding, limit, &mut room).await?;
        let length = u32::try_from(message.len()).map_err(|_| Rejection::TooLarge { limit })?;
        let mut plain = BytesMut::with_capacity(GRPC_PREFIX + message.len());
        plain.extend_from_slice(&[0]);
        plain.extend_from_slice(&length.to_be_bytes());
        plain.extend_from_slice(&message);
        frame = plain.freeze();
        parts.headers.remove("grpc-encoding");
    }
    let sender = SenderKey::of(&parts.extensions);
    let turn = ingest.turn().await?;
    let request = Request::from_parts(parts, Body::from(frame));
    Ok((
        request,
        Place {
            sender,
            _turn: turn,
            _room: room,
        },
    ))
}

/// Reads a body of at most `limit` bytes; `judge` sees what has been read so far.
async fn read(
    body: Body,
    declared: Option<u64>,
    limit: usize,
    room: &mut Room,
    judge: impl Fn(&[u8]) -> Result<(), Rejection>,
) -> Result<Bytes, Rejection> {
    if declared.is_some_and(|bytes| bytes > limit as u64) {
        return Err(Rejection::TooLarge { limit });
    }
    let mut chunks = body.into_data_stream();
    let mut read = BytesMut::new();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| Rejection::BrokenBody(error.to_string()))?;
        let length = read.len() + chunk.len();
        if length > limit {
            return Err(Rejection::TooLarge { limit });
        }
        room.grow_to(length).await?;
        read.extend_from_slice(&chunk);
        judge(&read)?;
    }
    Ok(read.freeze())
}

/// Decompresses on the blocking pool, with room for the largest message until its length is known.
async fn unpack(packed: Bytes, encoding: Encoding, limit: usize, room: &mut Room) -> Result<Bytes, Rejection> {
    if encoding == Encoding::Identity {
        return Ok(packed);
    }
    room.grow_to(packed.len().saturating_add(limit)).await?;
    match tokio::task::spawn_blocking(move || decompress(packed, encoding, limit)).await {
        Ok(message) => {
            let message = message?;
            room.shrink_to(message.len());
            Ok(message)
        }
        Err(error) => Err(Rejection::BrokenBody(error.to_string())),
    }
}

/// Decompresses to at most `limit` bytes.
fn decompress(body: Bytes, encoding: Encoding, limit: usize) -> Result<Bytes, Rejection> {
    match encoding {
        Encoding::Identity => Ok(body),
        Encoding::Gzip => bounded(flate2::read::MultiGzDecoder::new(&body[..]), "gzip", limit),
        Encoding::Zstd => {
            let unreadable = |error: std::io::Error| Rejection::Compression {
                encoding: "zstd",
                reason: error.to_string(),
            };
            let mut decoder = zstd::stream::read::Decoder::with_buffer(&body[..]).map_err(unreadable)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(unreadable)?;
            bounded(decoder, "zstd", limit)
        }
    }
}

fn bounded(decoder: impl Read, encoding: &'static str, limit: usize) -> Result<Bytes, Rejection> {
    let mut out = Vec::new();
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    match decoder.take(most).read_to_end(&mut out) {
        Ok(_) if out.len() > limit => Err(Rejection::TooLarge { limit }),
        Ok(_) => Ok(Bytes::from(out)),
        Err(error) => Err(Rejection::Compression {
            encoding,
            reason: error.to_string(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn bombs_stop_at_the_limit_in_every_encoding() {
        let zeros = vec![0u8; 4 << 20];
        for (encoding, packed) in [
            (Encoding::Gzip, gzip(&zeros)),
            (Encoding::Zstd, zstd::encode_all(&zeros[..], 19).unwrap()),
        ] {
            let body = Bytes::from(packed);
            assert!(matches!(
                decompress(body.clone(), encoding, 1 << 20),
                Err(Rejection::TooLarge { .. })
            ));
            assert_eq!(decompress(body, encoding, 4 << 20).unwrap().len(), 4 << 20);
        }
    }

    #[test]
    fn several_members_are_one_body_and_torn_ones_are_refused() {
        let two = [gzip(b"ab"), gzip(b"cd")].concat();
        assert_eq!(
            decompress(Bytes::from(two.clone()), Encoding::Gzip, 10).unwrap(),
            "abcd"
        );
        assert!(matches!(
            decompress(Bytes::from(two), Encoding::Gzip, 3),
            Err(Rejection::TooLarge { .. })
        ));
        let whole = gzip(&(0..=255u8).collect::<Vec<_>>());
        for at in [0, 5, whole.len() / 2, whole.len() - 1] {
            let torn = Bytes::copy_from_slice(&whole[..at]);
            assert!(
                matches!(
                    decompress(torn, Encoding::Gzip, 1000),
                    Err(Rejection::Compression { .. })
                ),
                "{at}"
            );
        }
        let whole = zstd::encode_all(&b"some bytes that are long enough"[..], 3).unwrap();
        for at in [3, 8, whole.len() - 1] {
            let torn = Bytes::copy_from_slice(&whole[..at]);
            assert!(
                matches!(
                    decompress(torn, Encoding::Zstd, 1000),
                    Err(Rejection::Compression { .. })
                ),
                "{at}"
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn changed_bodies_are_refused_or_within_the_limit(
            plain in proptest::collection::vec(proptest::sample::select(vec![0u8, 1, b'a', 255]), 0..400),
            changes in proptest::collection::vec((proptest::prelude::any::<proptest::sample::Index>(), proptest::prelude::any::<u8>()), 0..4),
            cut in proptest::prelude::any::<proptest::sample::Index>(),
            zstd in proptest::prelude::any::<bool>(),
        ) {
            let (encoding, mut packed) = match zstd {
                true => (Encoding::Zstd, zstd::encode_all(plain.as_slice(), 1).unwrap()),
                false => (Encoding::Gzip, gzip(&plain)),
            };
            let whole = decompress(packed.clone().into(), encoding, 400).unwrap();
            proptest::prop_assert_eq!(&whole[..], plain.as_slice());
            for (at, byte) in changes {
                let at = at.index(packed.len());
                packed[at] = byte;
            }
            for bytes in [&packed[..], &packed[..cut.index(packed.len())]] {
                if let Ok(read) = decompress(Bytes::copy_from_slice(bytes), encoding, 300) {
                    proptest::prop_assert!(read.len() <= 300);
                }
            }
        }
    }
}
