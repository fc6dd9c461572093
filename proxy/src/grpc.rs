//! What gRPC means by its headers, by HTTP statuses and by the codes of HTTP/2 resets.
//!
//! Source: gRPC, "HTTP to gRPC status code mapping" and "gRPC over HTTP2".

use std::{error::Error, time::Duration};

use http::{HeaderMap, header::CONTENT_TYPE};

pub(crate) const CANCELLED: u16 = 1;
pub(crate) const UNKNOWN: u16 = 2;
pub(crate) const DEADLINE_EXCEEDED: u16 = 4;
const PERMISSION_DENIED: u16 = 7;
const RESOURCE_EXHAUSTED: u16 = 8;
pub(crate) const UNIMPLEMENTED: u16 = 12;
pub(crate) const INTERNAL: u16 = 13;
pub(crate) const UNAVAILABLE: u16 = 14;
const UNAUTHENTICATED: u16 = 16;

/// True when a head speaks gRPC.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// The status in headers or trailers.
pub(crate) fn status(headers: &HeaderMap) -> Option<u16> {
    headers.get("grpc-status")?.to_str().ok()?.trim().parse().ok()
}

/// The caller's limit: `grpc-timeout` is up to eight digits and a unit.
pub(crate) fn deadline(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(amount * 3600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

/// What a response without a `grpc-status` means.
pub(crate) fn status_of_http(status: u16) -> u16 {
    match status {
        400 => INTERNAL,
        401 => UNAUTHENTICATED,
        403 => PERMISSION_DENIED,
        404 => UNIMPLEMENTED,
        429 | 502..=504 => UNAVAILABLE,
        _ => UNKNOWN,
    }
}

/// What a reset of the stream means.
pub(crate) fn status_of_reset(reason: h2::Reason) -> u16 {
    match reason {
        h2::Reason::REFUSED_STREAM => UNAVAILABLE,
        h2::Reason::CANCEL => CANCELLED,
        h2::Reason::ENHANCE_YOUR_CALM => RESOURCE_EXHAUSTED,
        h2::Reason::INADEQUATE_SECURITY => PERMISSION_DENIED,
        h2::Reason::STREAM_CLOSED => UNKNOWN,
        _ => INTERNAL,
    }
}

/// The code with which the other end reset the stream, if that is what caused the error.
pub(crate) fn reset_of(error: &(dyn Error + 'static)) -> Option<h2::Reason> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(http2) = error.downcast_ref::<h2::Error>() {
            return http2.reason().filter(|_| http2.is_reset());
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn timeouts_are_read_in_every_unit_and_refused_where_they_are_none() {
        let read = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", HeaderValue::from_static(text));
            deadline(&headers)
        };
        for (text, expected) in [
            ("1H", Duration::from_secs(3600)),
            ("2M", Duration::from_secs(120)),
            ("3S", Duration::from_secs(3)),
            ("99999999m", Duration::from_millis(99_999_999)),
            ("5u", Duration::from_micros(5)),
            ("0n", Duration::ZERO),
        ] {
            assert_eq!(read(text), Some(expected), "{text}");
        }
        for text in ["", "S", "1", "1s", "-1S", "1.5S", "123456789S", "1 S"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn every_status_maps_as_grpc_says() {
        let http: Vec<u16> = [200, 400, 401, 403, 404, 429, 500, 502, 503, 504]
            .map(status_of_http)
            .to_vec();
        assert_eq!(http, [2, 13, 16, 7, 12, 14, 2, 14, 14, 14]);
        let resets: Vec<u16> = (0..14).map(|code: u32| status_of_reset(code.into())).collect();
        assert_eq!(resets, [13, 13, 13, 13, 13, 2, 13, 14, 1, 13, 13, 8, 7, 13]);
    }
}
