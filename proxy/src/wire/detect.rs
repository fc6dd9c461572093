//! Which protocol a connection speaks, from its first bytes.
//!
//! Policy: biased towards availability. HTTP/2 is its whole 24-byte preface; HTTP/1 is a first line that begins with a
//! known method and names HTTP, or that ends in `HTTP/1.0` or `HTTP/1.1`; everything else is TCP, forwarded without
//! inspection: RTSP, SIP, ICAP and many other text protocols begin like HTTP.
//!
//! If the listener has routes, HTTP is expected, and nothing bypasses the checks of HTTP: whatever does not begin with
//! the preface of HTTP/2 is given to the HTTP/1 parser, which answers 400 if it is not HTTP ([`Expected::Http`]).
//!
//! Silence says nothing: HTTP clients open connections before they need them. On a silent connection, the side that
//! speaks first decides (`server::tcp`).
//!
//! Wrong on purpose: without routes, a client that makes up a method and sends its request line in pieces more than
//! `limits.detect_ms` apart is forwarded as TCP.

use std::{io, time::Duration};

use bytes::{Bytes, BytesMut};
use memchr::{memchr, memmem};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The connection preface of HTTP/2 (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Methods whose requests count as HTTP/1 whatever version they name, so that invalid ones get a response.
const METHODS: [&[u8]; 9] = [
    b"GET ",
    b"POST ",
    b"PUT ",
    b"HEAD ",
    b"DELETE ",
    b"PATCH ",
    b"OPTIONS ",
    b"TRACE ",
    b"CONNECT ",
];

/// Longest first line awaited.
const MAX_LINE: usize = 8192;
/// Most bytes of empty lines before it.
const MAX_EMPTY_LINES: usize = 8;

/// What a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Detected {
    /// HTTP/1.
    Http1,
    /// HTTP/2.
    Http2,
    /// Anything else.
    Tcp,
    /// Nothing yet.
    Silent,
    /// Nothing: the connection ended without a byte.
    Nothing,
}

/// What may be spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    /// HTTP and any other protocol.
    Anything,
    /// Only HTTP.
    Http,
}

/// Classifies the first bytes where only HTTP is allowed; `None` when more are needed.
fn classify_http(bytes: &[u8]) -> Option<Detected> {
    if bytes.starts_with(PREFACE) {
        return Some(Detected::Http2);
    }
    (!PREFACE.starts_with(bytes)).then_some(Detected::Http1)
}

/// Classifies the first bytes; `None` when more are needed. A result for fewer bytes remains valid, so that it does not
/// depend on how they arrive.
pub(crate) fn classify(bytes: &[u8]) -> Option<Detected> {
    if bytes.starts_with(PREFACE) {
        return Some(Detected::Http2);
    }
    if bytes.is_empty() || PREFACE.starts_with(bytes) {
        return None;
    }
    // HTTP allows empty lines before a request line.
    let line_start = bytes.iter().take_while(|&&b| b == b'\r' || b == b'\n').count();
    if line_start > MAX_EMPTY_LINES {
        return Some(Detected::Tcp);
    }
    let bytes = &bytes[line_start..];
    if !is_token(*bytes.first()?) {
        return Some(Detected::Tcp);
    }
    let end = memchr(b'\n', bytes);
    let line = &bytes[..end.unwrap_or(bytes.len())];
    if METHODS.iter().any(|method| bytes.starts_with(method)) {
        if line.len() > MAX_LINE || (end.is_some() && memmem::find(line, b" HTTP/").is_some()) {
            return Some(Detected::Http1);
        }
        end?;
        return Some(Detected::Tcp);
    }
    // A binary protocol reveals itself before its first line feed.
    let is_binary = line.iter().any(|&b| b < b' ' && b != b'\r' && b != b'\t');
    if is_binary || line.len() > MAX_LINE {
        return Some(Detected::Tcp);
    }
    end?;
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let is_http = line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0");
    Some(if is_http { Detected::Http1 } else { Detected::Tcp })
}

/// Characters of a method (RFC 9110 section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// What a pause after these bytes means.
fn classify_silent(bytes: &[u8]) -> Detected {
    if bytes.is_empty() {
        Detected::Silent
    } else if METHODS
        .iter()
        .any(|method| method.starts_with(bytes) || bytes.starts_with(method))
    {
        Detected::Http1
    } else {
        Detected::Tcp
    }
}

/// Reads until the protocol is known, for at most `wait`; returns what was read. Input that ends before it can be
/// classified is TCP.
pub(crate) async fn detect<T: AsyncRead + Unpin>(
    io: &mut T,
    expected: Expected,
    wait: Duration,
) -> io::Result<(Detected, Bytes)> {
    let mut bytes = BytesMut::with_capacity(1024);
    let reading = async {
        loop {
            let found = match expected {
                Expected::Anything => classify(&bytes),
                Expected::Http => classify_http(&bytes),
            };
            if let Some(detected) = found {
                return Ok::<_, io::Error>(detected);
            }
            if io.read_buf(&mut bytes).await? == 0 {
                return Ok(match expected {
                    _ if bytes.is_empty() => Detected::Nothing,
                    Expected::Anything => Detected::Tcp,
                    Expected::Http => Detected::Http1,
                });
            }
        }
    };
    let detected = match tokio::time::timeout(wait, reading).await {
        Ok(result) => result?,
        Err(_) if expected == Expected::Http && !bytes.is_empty() => Detected::Http1,
        Err(_) => classify_silent(&bytes),
    };
    Ok((detected, bytes.freeze()))
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, sample::select};

    use super::*;

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let known = [
            PREFACE,
            &PREFACE[..16],
            b"GET ",
            b"OPTIONS sip:a",
            b"PURGE /x",
            b" HTTP/1.1\r\n",
            b" HTTP/1.0\n",
            b"\r\n",
            b"\n",
            b"\r\n\r\n\r\n\r\n",
            b"\0",
            b"\t",
            b"\x16\x03\x01",
            &[b'x'; MAX_LINE - 3],
        ];
        let piece = prop_oneof![
            4 => select(known.to_vec()).prop_map(<[u8]>::to_vec),
            1 => prop::collection::vec(any::<u8>(), 0..6),
        ];
        prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        // Cases are short, and few of them hit the places where results change.
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn the_answer_does_not_depend_on_the_cuts(bytes in bytes(), cut in any::<prop::sample::Index>()) {
            let whole = classify(&bytes);
            // Results change where pieces meet.
            let cuts = (0..bytes.len().min(64)).chain([cut.index(bytes.len() + 1)]);
            for cut in cuts {
                if let Some(early) = classify(&bytes[..cut]) {
                    prop_assert_eq!(whole, Some(early), "after {} of {} bytes", cut, bytes.len());
                }
            }
            prop_assert!(whole.is_some() || bytes.len() <= MAX_LINE + MAX_EMPTY_LINES);
        }
    }

    #[test]
    fn first_bytes_tell_the_protocol() {
        for (bytes, expected) in [
            (&b""[..], None),
            (PREFACE, Some(Detected::Http2)),
            (&PREFACE[..20], None),
            (b"P", None),
            (b"PO", None),
            (b"POST ", None),
            (b"POST / HTTP/9.9\r\n", Some(Detected::Http1)),
            (b"GET /\x01 HTTP/1.1\r\n", Some(Detected::Http1)),
            (b"OPTIONS rtsp://cam/1 RTSP/1.0\r\n", Some(Detected::Tcp)),
            (b"OPTIONS sip:a@b SIP/2.0\r\n", Some(Detected::Tcp)),
            (b"OPTIONS icap://a/reqmod ICAP/1.0\r\n", Some(Detected::Tcp)),
            (b"GET key\r\n", Some(Detected::Tcp)),
            (b"CONNECT {\"verbose\":false}\r\nPING\r\n", Some(Detected::Tcp)),
            (b"CONNECT\naccept-version:1.2\n\n\0", Some(Detected::Tcp)),
            (b"GET /\r\n", Some(Detected::Tcp)),
            (b"PRI * HTTP/2.0\r\n\r\nXX", Some(Detected::Tcp)),
            (b"GET / HTTP/1.1\r\n", Some(Detected::Http1)),
            (b"\r\nGET / HTTP/1.1\r\n", Some(Detected::Http1)),
            (b"get / HTTP/1.1\r\n", Some(Detected::Http1)),
            (b"PURGE /x HTTP/1.1\r\nHost: a", Some(Detected::Http1)),
            (b"PURGE /x", None),
            (b"\x16\x03\x01\x02\x00\x01", Some(Detected::Tcp)),
            (b"*1\r\n$4\r\nPING\r\n", Some(Detected::Tcp)),
            (b"SSH-2.0-OpenSSH_9\r\n", Some(Detected::Tcp)),
            (b"EHLO a\r\n", Some(Detected::Tcp)),
            (b"ab\x00", Some(Detected::Tcp)),
        ] {
            assert_eq!(classify(bytes), expected, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn where_http_is_expected_everything_else_is_left_to_its_parser() {
        for (bytes, expected) in [
            (&b""[..], None),
            (&PREFACE[..23], None),
            (PREFACE, Some(Detected::Http2)),
            (b"PRI * HTTP/2.0\r\n\r\nXX", Some(Detected::Http1)),
            (b"\r\n", Some(Detected::Http1)),
            (b" ", Some(Detected::Http1)),
            (b"\x16\x03\x01", Some(Detected::Http1)),
            (b"PURGE", Some(Detected::Http1)),
        ] {
            assert_eq!(classify_http(bytes), expected, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn silence_says_nothing_and_half_a_word_is_tcp_unless_a_method_has_begun() {
        assert_eq!(classify_silent(b""), Detected::Silent);
        assert_eq!(classify_silent(b"PO"), Detected::Http1);
        assert_eq!(classify_silent(b"GET /slowly"), Detected::Http1);
        assert_eq!(classify_silent(b"HELLO"), Detected::Tcp);
    }
}
