//! The header in which a load balancer names the origin of a connection (PROXY protocol, versions 1 and 2).
//!
//! Guarantees: exactly the header is read, so what follows it, TLS or not, is untouched; a connection that should begin
//! with one and does not is closed; it may take as long as a request's head. A balancer's own connections (`LOCAL`,
//! `UNKNOWN`) keep its address.
//!
//! Wrong on purpose: version 2's additional fields (TLVs) are skipped, and destination addresses are ignored.
//!
//! Source: <https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt>, sections 2.1 and 2.2.

use std::{io, net::IpAddr, time::Duration};

use ppp::{v1, v2};
use tokio::{io::AsyncReadExt, net::TcpStream};

/// No version has a shorter header: `PROXY UNKNOWN\r\n` is 15 bytes.
const LEAST: usize = 12;
/// Longest header of version 1, with its line end.
const MOST_V1: usize = 107;
/// The beginning of version 2: signature, version, family and length.
const FIXED_V2: usize = 16;
/// Longest header of version 2 that is read: addresses of Unix sockets take 216 bytes, the rest is for TLVs.
const MOST_V2: usize = 2_048;

/// Why a connection has no source address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoHeader {
    /// It does not begin with a header, or ended within it.
    Malformed,
    /// It did not arrive in time.
    Late,
}

impl NoHeader {
    /// Name in metrics.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            NoHeader::Malformed => "no_proxy_header",
            NoHeader::Late => "proxy_header_timeout",
        }
    }
}

/// Reads the header of a new connection within `limit`; returns the address that it names, or `peer` if it names none.
///
/// # Errors
/// When there is no header; the connection must be closed.
pub(crate) async fn read(stream: &mut TcpStream, peer: IpAddr, limit: Duration) -> Result<IpAddr, NoHeader> {
    let header = tokio::time::timeout(limit, take(stream)).await;
    let header = header.map_err(|_| NoHeader::Late)?.map_err(|_| NoHeader::Malformed)?;
    source_of(&header)
        .map(|source| source.unwrap_or(peer))
        .ok_or(NoHeader::Malformed)
}

/// The bytes of a header, and no more.
async fn take(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut header = vec![0; LEAST];
    stream.read_exact(&mut header).await?;
    if header == v2::PROTOCOL_PREFIX {
        header.resize(FIXED_V2, 0);
        stream.read_exact(&mut header[LEAST..]).await?;
        let length = usize::from(u16::from_be_bytes([header[14], header[15]]));
        if FIXED_V2 + length > MOST_V2 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        header.resize(FIXED_V2 + length, 0);
        stream.read_exact(&mut header[FIXED_V2..]).await?;
        return Ok(header);
    }
    if !header.starts_with(b"PROXY ") {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // What follows the line is not ours, so peek before reading.
    let mut ahead = [0; MOST_V1];
    while header.len() < MOST_V1 && !header.ends_with(b"\n") {
        let seen = stream.peek(&mut ahead[..MOST_V1 - header.len()]).await?;
        let end = memchr::memchr(b'\n', &ahead[..seen]).map_or(seen, |end| end + 1);
        if end == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let begun = header.len();
        header.resize(begun + end, 0);
        stream.read_exact(&mut header[begun..]).await?;
    }
    Ok(header)
}

/// The address that a header names, if any; `None` if it is not a header.
fn source_of(header: &[u8]) -> Option<Option<IpAddr>> {
    if header.starts_with(v2::PROTOCOL_PREFIX) {
        let header = v2::Header::try_from(header).ok()?;
        return Some(match (header.command, header.addresses) {
            (v2::Command::Local, _) => None,
            (_, v2::Addresses::IPv4(of)) => Some(of.source_address.into()),
            (_, v2::Addresses::IPv6(of)) => Some(IpAddr::from(of.source_address).to_canonical()),
            (_, v2::Addresses::Unix(_) | v2::Addresses::Unspecified) => None,
        });
    }
    let header = v1::Header::try_from(header).ok()?;
    Some(match header.addresses {
        v1::Addresses::Tcp4(of) => Some(of.source_address.into()),
        v1::Addresses::Tcp6(of) => Some(IpAddr::from(of.source_address).to_canonical()),
        v1::Addresses::Unknown => None,
    })
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncWriteExt, net::TcpListener};

    use super::*;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    /// The result for bytes that arrive one by one, and what is left of them.
    async fn read_of(bytes: &'static [u8]) -> (Result<IpAddr, NoHeader>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut balancer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        balancer.set_nodelay(true).unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        let writing = tokio::spawn(async move {
            for byte in bytes {
                balancer.write_all(&[*byte]).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        let read = read(&mut stream, PEER, Duration::from_secs(30)).await;
        writing.await.unwrap();
        let mut left = Vec::new();
        stream.read_to_end(&mut left).await.unwrap();
        (read, left)
    }

    #[tokio::test]
    async fn exactly_the_header_is_read_in_both_versions() {
        for (bytes, source) in [
            (&b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\nGET /"[..], "192.0.2.7"),
            (b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\nGET /", "2001:db8::7"),
            (b"PROXY TCP6 ::ffff:192.0.2.7 ::1 4711 443\r\nGET /", "192.0.2.7"),
            (b"PROXY UNKNOWN\r\nGET /", "127.0.0.1"),
            (
                b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\xc6\x33\x64\x01\x12\x67\x01\xbbGET /",
                "192.0.2.7",
            ),
            // With a TLV after the addresses, and a balancer's own connection.
            (
                b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x10\xc0\0\x02\x07\xc6\x33\x64\x01\x12\x67\x01\xbb\x04\0\x01\0GET /",
                "192.0.2.7",
            ),
            (b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0GET /", "127.0.0.1"),
        ] {
            let source: IpAddr = source.parse().unwrap();
            assert_eq!(read_of(bytes).await, (Ok(source), b"GET /".to_vec()), "{bytes:?}");
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused() {
        for bytes in [
            &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..],
            b"PROXY",
            b"PROXY TCP4 192.0.2.7\r\n",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\n",
            b"PROXY TCP4 192.0.2.300 198.51.100.1 4711 443\r\n",
            b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c\xc0\0\x02\x07\xc6\x33\x64\x01\x12\x67\x01\xbb",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x04\xc0\0\x02\x07",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
        ] {
            assert_eq!(read_of(bytes).await.0, Err(NoHeader::Malformed), "{bytes:?}");
        }
    }
}
