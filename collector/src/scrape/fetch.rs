//! One GET of a profile.
//!
//! Guarantees: an attempt ends after its limit, whatever the target does; no more bytes than the limit are read;
//! redirects are not followed. The actual address is checked, not the name: link-local addresses (where clouds keep
//! credentials), unspecified and multicast ones are never connected to, and this machine only if the operator
//! configured its address or `localhost`, so that no name server can lead a scrape there.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use bytes::Bytes;
use emberline_client::{Client, Error};
use http::{HeaderValue, Request, StatusCode, header};
use tokio::sync::Semaphore;

use super::{address::Address, config::Scheme, target::Trust};

/// Why a profile was not fetched.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error(transparent)]
    Exchange(Error),
    #[error("the target responded with {status}: {words}")]
    Status { status: StatusCode, words: String },
    #[error("the target responded with a redirect ({0}), which is not followed; scrape the final address")]
    Redirect(StatusCode),
    #[error("the response has content encoding `{0}`, which was not requested")]
    Encoding(String),
    #[error("the response exceeds {0} bytes; raise `max_profile_bytes` in the scrape configuration")]
    TooLarge(usize),
    #[error("response incomplete after {0:?} (`scrape_timeout`)")]
    TimedOut(Duration),
}

impl From<Error> for FetchError {
    fn from(error: Error) -> FetchError {
        match error {
            Error::TooLarge(limit) => FetchError::TooLarge(limit),
            Error::TimedOut(limit) => FetchError::TimedOut(limit),
            error => FetchError::Exchange(error),
        }
    }
}

/// The limits of an attempt.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds<'a> {
    /// Longest attempt, from the lookup of the name to the last byte.
    pub(super) time: Duration,
    /// The most bytes.
    pub(super) bytes: usize,
    /// Limits the responses read at the same time.
    pub(super) reads: &'a Semaphore,
}

/// How the targets of a job are reached.
#[derive(Debug, Clone)]
pub(super) struct Fetcher {
    pub(super) client: Client,
    pub(super) scheme: Scheme,
}

impl Fetcher {
    /// Fetches a path.
    pub(super) async fn get(
        &self,
        address: &Address,
        trust: Trust,
        path: &str,
        bounds: Bounds<'_>,
    ) -> Result<Bytes, FetchError> {
        // Waiting for the turn below may take long.
        match tokio::time::timeout(bounds.time, self.attempt(address, trust, path, bounds)).await {
            Ok(fetched) => fetched,
            Err(_) => Err(FetchError::TimedOut(bounds.time)),
        }
    }

    async fn attempt(
        &self,
        address: &Address,
        trust: Trust,
        path: &str,
        bounds: Bounds<'_>,
    ) -> Result<Bytes, FetchError> {
        let named_here = address.host.parse::<IpAddr>().is_ok() || address.host.eq_ignore_ascii_case("localhost");
        let client = self
            .client
            .clone()
            .refusing(match trust == Trust::Written && named_here {
                true => |ip| forbidden(ip, true),
                false => |ip| forbidden(ip, false),
            });
        let is_https = self.scheme == Scheme::Https;
        let target = emberline_client::Address::new(is_https, &address.host, address.port).with_path(path);
        let mut request = Request::new(Bytes::new());
        let identity = HeaderValue::from_static("identity");
        request.headers_mut().insert(header::ACCEPT_ENCODING, identity);
        let reply = client.send(&target, request, bounds.time).await?;
        let status = reply.status;
        if status.is_redirection() {
            return Err(FetchError::Redirect(status));
        }
        // Waiting for the head takes only a socket; from here on it takes memory.
        let _turn = bounds.reads.acquire().await.expect("the semaphore is never closed");
        if status != StatusCode::OK {
            let words = reply.words().await;
            return Err(FetchError::Status { status, words });
        }
        if let Some(encoding) = reply.headers.get(header::CONTENT_ENCODING) {
            let encoding = String::from_utf8_lossy(encoding.as_bytes());
            if !encoding.eq_ignore_ascii_case("identity") {
                return Err(FetchError::Encoding(encoding.chars().take(40).collect()));
            }
        }
        Ok(reply.read(bounds.bytes).await?)
    }
}

/// Why an address must not be connected to.
fn forbidden(ip: IpAddr, may_be_here: bool) -> Option<&'static str> {
    let ip = ip.to_canonical();
    // A gateway reaches the embedded address.
    if let Some(inner) = embedded(ip) {
        return forbidden(IpAddr::V4(inner), false);
    }
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    match ip {
        _ if ip.is_unspecified() => Some("an unspecified address"),
        _ if ip.is_multicast() => Some("a multicast address"),
        IpAddr::V4(ip) if ip.is_broadcast() => Some("a broadcast address"),
        _ if link_local => Some("a link-local address"),
        IpAddr::V6(ip) if METADATA.contains(&ip) => Some("a cloud metadata address"),
        _ if ip.is_loopback() && !may_be_here => Some(
            "this machine, which may only be named by an IP address or `localhost` in the configuration, or by a file in `file_sd_configs` with `allow_this_machine: true`",
        ),
        _ => None,
    }
}

/// Where AWS and Google Cloud machines read their credentials over IPv6.
const METADATA: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
];

/// The IPv4 address embedded in an IPv6 address: NAT64 (RFC 6052, RFC 8215), 6to4 (RFC 3056), or IPv4-compatible (RFC
/// 4291, section 2.5.5.1).
fn embedded(ip: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(ip) = ip else { return None };
    let of = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match ip.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x64, 0xff9b, 1, _, _, _, high, low] => Some(of(high, low)),
        [0x2002, high, low, ..] => Some(of(high, low)),
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => Some(of(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_a_name_server_must_not_give_are_forbidden_in_every_spelling() {
        for text in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            let ip: IpAddr = text.parse().unwrap();
            assert!(forbidden(ip, false).is_some(), "{text}");
            assert!(forbidden(ip, true).is_none(), "{text}");
        }
        for text in [
            "0.0.0.0",
            "::",
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "fe80::1",
            "224.0.0.1",
            "ff02::1",
            "255.255.255.255",
            "fd00:ec2::254",
            "fd20:ce::254",
            "64:ff9b::169.254.169.254",
            "64:ff9b::127.0.0.1",
            "64:ff9b:1::169.254.169.254",
            "2002:a9fe:a9fe::1",
            "::169.254.169.254",
        ] {
            assert!(forbidden(text.parse().unwrap(), true).is_some(), "{text}");
        }
        for text in [
            "10.0.0.1",
            "192.168.1.1",
            "8.8.8.8",
            "fd00::1",
            "2001:db8::1",
            "64:ff9b::10.0.0.1",
        ] {
            assert!(forbidden(text.parse().unwrap(), false).is_none(), "{text}");
        }
    }

    #[tokio::test]
    async fn a_name_of_this_machine_is_not_enough() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            // Closed at once, which is an unreadable response.
            while listener.accept().await.is_ok() {}
        });
        let fetcher = Fetcher {
            client: Client::new(&emberline_client::Tls::default()).unwrap(),
            scheme: Scheme::Http,
        };
        let reads = Semaphore::new(1);
        let get = async |host: &str, trust| {
            let address = Address {
                host: host.to_owned(),
                port,
            };
            let bounds = Bounds {
                time: Duration::from_secs(60),
                bytes: 1,
                reads: &reads,
            };
            fetcher.get(&address, trust, "/", bounds).await.unwrap_err()
        };
        let error = get("127.0.0.1", Trust::Written).await;
        assert!(matches!(error, FetchError::Exchange(Error::Http(_))), "{error}");
        for (host, trust) in [("127.0.0.1", Trust::Looked), ("169.254.169.254", Trust::Written)] {
            let error = get(host, trust).await;
            assert!(matches!(error, FetchError::Exchange(Error::Forbidden(..))), "{error}");
        }
        // Numbers that the system's resolver accepts as an address are checked afterwards.
        let error = get("2130706433", Trust::Written).await;
        assert!(
            matches!(error, FetchError::Exchange(Error::Forbidden(..) | Error::Lookup(..))),
            "{error}"
        );
    }
}
