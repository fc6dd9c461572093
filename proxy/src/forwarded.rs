//! Where a request came from, for the application: `x-forwarded-for`, `-proto` and `-host`, and `forwarded`.
//!
//! Guarantee: with `replace`, nothing in them comes from the caller; with `append`, the last element does not.
//!
//! Source: RFC 7239; common practice for the older headers.

use std::{fmt::Write as _, net::IpAddr};

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{FORWARDED, HOST},
    request::Parts,
};

use crate::config::ForwardedMode;

static FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Adds to the head of a request who sent it, and whether over TLS.
pub(crate) fn tell(mode: ForwardedMode, head: &mut Parts, caller: IpAddr, is_tls: bool) {
    if mode == ForwardedMode::Keep {
        return;
    }
    let caller = caller.to_canonical();
    let proto = if is_tls { "https" } else { "http" };
    let host = head
        .uri
        .authority()
        .and_then(|authority| HeaderValue::from_str(authority.as_str()).ok())
        .or_else(|| head.headers.get(HOST).cloned());
    let headers = &mut head.headers;
    if mode == ForwardedMode::Replace {
        for name in [&FOR, &PROTO, &FORWARDED_HOST, &FORWARDED] {
            headers.remove(name);
        }
    }
    add(headers, &FOR, &caller.to_string());
    if headers.contains_key(FORWARDED) {
        let node = match caller {
            IpAddr::V4(v4) => v4.to_string(),
            IpAddr::V6(v6) => format!("\"[{v6}]\""),
        };
        add(headers, &FORWARDED, &format!("for={node};proto={proto}"));
    }
    headers.entry(&PROTO).or_insert(HeaderValue::from_static(proto));
    if let Some(host) = host {
        headers.entry(&FORWARDED_HOST).or_insert(host);
    }
}

/// Appends to a list, which stays one field: not every application reads more.
fn add(headers: &mut HeaderMap, name: &HeaderName, element: &str) {
    let mut list = String::new();
    for value in headers.get_all(name).iter().filter_map(|value| value.to_str().ok()) {
        if !value.trim().is_empty() {
            let _ = write!(list, "{value}, ");
        }
    }
    list.push_str(element);
    if let Ok(list) = HeaderValue::from_str(&list) {
        headers.insert(name, list);
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn told(mode: ForwardedMode, given: &[(&'static str, &'static str)], caller: &str, is_tls: bool) -> Vec<String> {
        let mut request = Request::get("/").header("host", "cart.shop");
        for (name, value) in given {
            request = request.header(*name, *value);
        }
        let mut head = request.body(()).unwrap().into_parts().0;
        tell(mode, &mut head, caller.parse().unwrap(), is_tls);
        let mut told: Vec<String> = head
            .headers
            .iter()
            .filter(|(name, _)| name.as_str().contains("forwarded"))
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        told.sort();
        told
    }

    #[test]
    fn callers_are_told_as_the_mode_says() {
        let given = [
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-for", "2.2.2.2"),
            ("forwarded", "for=1.1.1.1"),
            ("x-forwarded-proto", "https"),
        ];
        assert_eq!(told(ForwardedMode::Keep, &given, "10.0.0.1", false).len(), 4);
        assert_eq!(
            told(ForwardedMode::Append, &given, "10.0.0.1", false),
            [
                "forwarded: for=1.1.1.1, for=10.0.0.1;proto=http",
                "x-forwarded-for: 1.1.1.1, 2.2.2.2, 10.0.0.1",
                "x-forwarded-host: cart.shop",
                "x-forwarded-proto: https",
            ]
        );
        assert_eq!(
            told(ForwardedMode::Append, &[("forwarded", "for=a")], "2001:db8::1", true),
            [
                "forwarded: for=a, for=\"[2001:db8::1]\";proto=https",
                "x-forwarded-for: 2001:db8::1",
                "x-forwarded-host: cart.shop",
                "x-forwarded-proto: https",
            ]
        );
        assert_eq!(
            told(ForwardedMode::Replace, &given, "::ffff:10.0.0.1", false),
            [
                "x-forwarded-for: 10.0.0.1",
                "x-forwarded-host: cart.shop",
                "x-forwarded-proto: http",
            ]
        );
    }
}
