//! The value that a request is hashed by.
//!
//! Guarantee: the same value gives the same key in every worker, process and version.
//!
//! Wrong on purpose: the hash has no secret, because proxies have to agree on it; callers that choose the value can all
//! choose the same endpoint.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, header::COOKIE};
use xxhash_rust::xxh3::xxh3_64;

use crate::config::HashOn;

/// Where the key comes from.
#[derive(Debug)]
pub(super) enum HashKey {
    Header(HeaderName),
    Cookie(String),
    SourceAddress,
}

impl HashKey {
    pub(super) fn new(on: &HashOn) -> Option<HashKey> {
        Some(match on {
            HashOn::Header(name) => HashKey::Header(name.parse().ok()?),
            HashOn::Cookie(name) => HashKey::Cookie(name.clone()),
            HashOn::SourceAddress => HashKey::SourceAddress,
        })
    }

    /// The key of a request, if it has one; for a connection without `headers`, only the caller is known.
    pub(super) fn of(&self, headers: Option<&HeaderMap>, caller: IpAddr) -> Option<u64> {
        match self {
            HashKey::Header(name) => headers?.get(name).map(|value| xxh3_64(value.as_bytes())),
            HashKey::Cookie(name) => {
                let lines = headers?
                    .get_all(COOKIE)
                    .into_iter()
                    .filter_map(|line| line.to_str().ok());
                let mut cookies = lines
                    .flat_map(|line| line.split(';'))
                    .filter_map(|c| c.trim().split_once('='));
                let (_, value) = cookies.find(|(key, _)| key == name)?;
                Some(xxh3_64(value.as_bytes()))
            }
            HashKey::SourceAddress => Some(match caller.to_canonical() {
                IpAddr::V4(ip) => xxh3_64(&ip.octets()),
                IpAddr::V6(ip) => xxh3_64(&ip.octets()),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_the_header_the_cookie_or_the_caller() {
        let caller: IpAddr = "10.0.0.1".parse().unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("x-user", "ann".parse().unwrap());
        headers.append(COOKIE, "theme=dark; session=ann".parse().unwrap());
        let key = |on: &HashOn, headers| HashKey::new(on).unwrap().of(headers, caller);
        let ann = Some(xxh3_64(b"ann"));
        assert_eq!(key(&HashOn::Header("X-User".into()), Some(&headers)), ann);
        assert_eq!(key(&HashOn::Cookie("session".into()), Some(&headers)), ann);
        assert_eq!(key(&HashOn::Cookie("Session".into()), Some(&headers)), None);
        assert_eq!(key(&HashOn::Header("x-other".into()), Some(&headers)), None);
        assert_eq!(key(&HashOn::Header("x-user".into()), None), None);
        let source = key(&HashOn::SourceAddress, None);
        assert!(source.is_some());
        let mapped = "::ffff:10.0.0.1".parse().unwrap();
        assert_eq!(HashKey::SourceAddress.of(None, mapped), source);
    }
}
