//! Header hygiene: what a proxy must refuse in a head that the parser accepted, and what it must not pass on.
//!
//! Guarantees: exactly one authority per request (`Host` or `:authority`, never two that differ) and one length; headers that concern
//! one connection, and those named by `Connection`, are not forwarded in either direction; they are removed before the
//! proxy adds its own. The one exception is the opening handshake of WebSocket, which is rebuilt.
//!
//! Wrong on purpose: methods with lower-case letters are refused, though HTTP allows them; `x-forwarded-*` is left to
//! `forwarded`.
//!
//! Source: RFC 9110 sections 7.2, 7.6.1 and 7.8, RFC 6455 section 4.1, RFC 9112 section 3.2, RFC 9113 section 8.3.1.

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Uri, Version,
    header::{CONNECTION, CONTENT_LENGTH, COOKIE, HOST, SEC_WEBSOCKET_KEY, TE, TRAILER, TRANSFER_ENCODING, UPGRADE},
    request::Parts,
};

/// Why a request is refused: its name in metrics and in the response, and the response's status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadHead {
    pub(crate) status: u16,
    pub(crate) reason: &'static str,
}

const fn bad(reason: &'static str) -> BadHead {
    BadHead { status: 400, reason }
}

/// Checks a parsed head.
pub(crate) fn check_request(head: &Parts) -> Result<(), BadHead> {
    if head.method == Method::CONNECT {
        return Err(BadHead {
            status: 501,
            reason: "connect",
        });
    }
    if head.method.as_str().bytes().any(|b| b.is_ascii_lowercase()) {
        return Err(bad("method_in_lower_case"));
    }
    // Over HTTP/1, `framing` has checked it.
    if head.version == Version::HTTP_2 && head.headers.get_all(CONTENT_LENGTH).iter().nth(1).is_some() {
        return Err(bad("content_length"));
    }
    check_target(&head.method, &head.uri, head.version)?;
    check_authority(head)
}

fn check_target(method: &Method, uri: &Uri, version: Version) -> Result<(), BadHead> {
    if uri
        .scheme_str()
        .is_some_and(|scheme| scheme != "http" && !(version == Version::HTTP_2 && scheme == "https"))
    {
        return Err(bad("scheme"));
    }
    let path = uri.path();
    if path == "*" {
        return if method == Method::OPTIONS {
            Ok(())
        } else {
            Err(bad("target"))
        };
    }
    if path.starts_with('/') {
        Ok(())
    } else {
        Err(bad("target"))
    }
}

fn check_authority(head: &Parts) -> Result<(), BadHead> {
    let mut hosts = head.headers.get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(bad("two_hosts"));
    }
    if let Some(host) = host
        && !is_authority(host.as_bytes())
    {
        return Err(bad("host"));
    }
    match (head.uri.authority(), host) {
        (Some(authority), _) if authority.as_str().contains('@') => Err(bad("authority")),
        (Some(authority), Some(host)) if !is_same(authority.as_str(), host.as_bytes(), head.uri.scheme_str()) => {
            Err(bad("host_is_not_the_authority"))
        }
        (None, None) if head.version != Version::HTTP_10 => Err(bad("no_host")),
        _ => Ok(()),
    }
}

/// True when both are the same; the scheme's default port may be omitted (RFC 9110 section 4.2.3).
fn is_same(authority: &str, host: &[u8], scheme: Option<&str>) -> bool {
    let port: &[u8] = if scheme == Some("https") { b":443" } else { b":80" };
    fn without<'a>(name: &'a [u8], port: &[u8]) -> &'a [u8] {
        name.strip_suffix(port).unwrap_or(name)
    }
    without(authority.as_bytes(), port).eq_ignore_ascii_case(without(host, port))
}

/// Host and port in a form allowed in `Host`.
fn is_authority(host: &[u8]) -> bool {
    !host.is_empty()
        && host
            .iter()
            .all(|&b| b.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(&b))
}

const HOPS: usize = 8;

/// Headers that concern one connection. `te` and `trailer` are not included: see [`strip_connection_headers`].
static HOP_BY_HOP: [HeaderName; HOPS] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("proxy-authenticate"),
    HeaderName::from_static("proxy-authorization"),
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("http2-settings"),
];

/// Headers that `Connection` cannot remove: without them the message would mean something else.
static NEVER_NOMINATED: [HeaderName; 3] = [HOST, CONTENT_LENGTH, TRANSFER_ENCODING];

/// Joins the fields into which HTTP/2 may split cookies: other versions allow only one (RFC 9113, 8.2.3).
pub(crate) fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let fields: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    // Made of valid values, so it is valid.
    if let Ok(joined) = HeaderValue::from_bytes(&fields.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}

/// Removes what concerns only this connection, and what `Connection` names. `te` keeps only `trailers`, which gRPC
/// requires; `trailer` stays, because the trailers it announces are forwarded. A length next to a transfer coding is
/// removed, too: the coding takes precedence.
pub(crate) fn strip_connection_headers(headers: &mut HeaderMap) {
    let mut found = [false; HOPS];
    let mut any = false;
    for name in headers.keys() {
        if let Some(at) = HOP_BY_HOP.iter().position(|hop| hop == name) {
            found[at] = true;
            any = true;
        }
    }
    if let Some(te) = headers.get(TE) {
        let asks_for_trailers = te
            .as_bytes()
            .split(|&b| b == b',')
            .any(|t| t.trim_ascii().eq_ignore_ascii_case(b"trailers"));
        if asks_for_trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        } else {
            headers.remove(TE);
        }
    }
    if !any {
        return;
    }
    if found[0] {
        strip_nominated(headers);
    }
    if headers.contains_key(TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
    }
    for (name, found) in HOP_BY_HOP.iter().zip(found) {
        if found {
            headers.remove(name);
        }
    }
}

fn strip_nominated(headers: &mut HeaderMap) {
    let plain = |value: &HeaderValue| {
        value.as_bytes().eq_ignore_ascii_case(b"keep-alive") || value.as_bytes().eq_ignore_ascii_case(b"close")
    };
    if headers.get_all(CONNECTION).iter().all(plain) {
        return;
    }
    let mut nominated: Vec<HeaderName> = Vec::new();
    for value in headers.get_all(CONNECTION) {
        for token in value.as_bytes().split(|&b| b == b',') {
            if let Ok(name) = HeaderName::from_bytes(token.trim_ascii())
                && !NEVER_NOMINATED.contains(&name)
                && name != TE
            {
                nominated.push(name);
            }
        }
    }
    for name in nominated {
        headers.remove(name);
    }
}

/// True for the opening handshake of WebSocket. Any deviation, or a body, makes it an ordinary request, whose `Upgrade`
/// is not forwarded.
pub(crate) fn asks_for_websocket(head: &Parts) -> bool {
    let headers = &head.headers;
    head.version == Version::HTTP_11
        && head.method == Method::GET
        && names_websocket(headers)
        && headers.contains_key(SEC_WEBSOCKET_KEY)
        && !headers.contains_key(TRANSFER_ENCODING)
        && headers.get(CONTENT_LENGTH).is_none_or(|length| length == "0")
}

/// True when `Upgrade` is exactly `websocket`, and `Connection` names it.
pub(crate) fn names_websocket(headers: &HeaderMap) -> bool {
    let mut protocols = headers.get_all(UPGRADE).iter();
    protocols
        .next()
        .is_some_and(|one| one.as_bytes().eq_ignore_ascii_case(b"websocket"))
        && protocols.next().is_none()
        && headers
            .get_all(CONNECTION)
            .iter()
            .flat_map(|value| value.as_bytes().split(|&b| b == b','))
            .any(|token| token.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
}

/// Writes for one connection what [`names_websocket`] found on the other.
pub(crate) fn insert_websocket(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
}

/// Removes fields that are not allowed in trailers (RFC 9110 section 6.5.1): framing, routing, identity.
pub(crate) fn strip_forbidden_trailers(trailers: &mut HeaderMap) {
    static FORBIDDEN: [HeaderName; 5] = [
        CONTENT_LENGTH,
        HOST,
        TE,
        TRAILER,
        HeaderName::from_static("content-encoding"),
    ];
    for name in HOP_BY_HOP.iter().chain(&FORBIDDEN) {
        trailers.remove(name);
    }
    trailers.remove(crate::telemetry::PEER_HEADER);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(version: Version, target: &str, hosts: &[&str]) -> Parts {
        let mut request = http::Request::builder().version(version).uri(target);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn reason(version: Version, target: &str, hosts: &[&str]) -> Option<&'static str> {
        check_request(&head(version, target, hosts)).err().map(|bad| bad.reason)
    }

    #[test]
    fn a_request_has_exactly_one_authority() {
        for (version, target, hosts, expected) in [
            (Version::HTTP_11, "/", &["a"][..], None),
            (Version::HTTP_11, "/", &["[::1]:80"], None),
            (Version::HTTP_10, "/", &[], None),
            (Version::HTTP_11, "http://A:80/x", &["a:80"], None),
            (Version::HTTP_11, "http://a:80/x", &["a"], None),
            (Version::HTTP_11, "http://a/x", &["a:80"], None),
            (Version::HTTP_11, "http://[::1]:80/x", &["[::1]"], None),
            (Version::HTTP_2, "https://a:443/x", &["a"], None),
            (Version::HTTP_2, "http://a/x", &[], None),
            (Version::HTTP_2, "http://a/x", &["a"], None),
            (Version::HTTP_11, "/", &[], Some("no_host")),
            (Version::HTTP_11, "/", &["a", "a"], Some("two_hosts")),
            (Version::HTTP_10, "/", &["a", "b"], Some("two_hosts")),
            (Version::HTTP_11, "/", &["a/b?c"], Some("host")),
            (Version::HTTP_11, "/", &["u@a"], Some("host")),
            (Version::HTTP_11, "/", &[""], Some("host")),
            (
                Version::HTTP_11,
                "http://a/x",
                &["b"],
                Some("host_is_not_the_authority"),
            ),
            (Version::HTTP_2, "http://a/x", &["b"], Some("host_is_not_the_authority")),
            (
                Version::HTTP_11,
                "http://a:443/x",
                &["a"],
                Some("host_is_not_the_authority"),
            ),
            (
                Version::HTTP_2,
                "https://a:80/x",
                &["a"],
                Some("host_is_not_the_authority"),
            ),
            (Version::HTTP_2, "/x", &[], Some("no_host")),
            (Version::HTTP_11, "https://a/x", &["a"], Some("scheme")),
            (Version::HTTP_11, "*", &["a"], Some("target")),
        ] {
            assert_eq!(
                reason(version, target, hosts),
                expected,
                "{version:?} {target} {hosts:?}"
            );
        }
    }

    #[test]
    fn methods_in_lower_case_and_connect_are_refused() {
        let mut parts = head(Version::HTTP_11, "/", &["a"]);
        parts.method = Method::from_bytes(b"get").unwrap();
        assert_eq!(check_request(&parts), Err(bad("method_in_lower_case")));
        parts.method = Method::CONNECT;
        assert_eq!(check_request(&parts).unwrap_err().status, 501);
    }

    fn stripped(pairs: &[(&'static str, &'static str)]) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        strip_connection_headers(&mut headers);
        let mut left: Vec<String> = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        left.sort();
        left
    }

    #[test]
    fn connection_headers_and_what_they_name_go_no_further() {
        let left = stripped(&[
            ("connection", "X-Auth, keep-alive"),
            ("connection", "authorization"),
            ("x-auth", "1"),
            ("authorization", "2"),
            ("keep-alive", "timeout=5"),
            ("upgrade", "websocket"),
            ("proxy-authorization", "x"),
            ("http2-settings", "x"),
            ("x-kept", "3"),
        ]);
        assert_eq!(left, ["x-kept: 3"]);
    }

    #[test]
    fn framing_headers_cannot_be_nominated_away() {
        let left = stripped(&[
            ("connection", "host, content-length"),
            ("host", "a"),
            ("content-length", "3"),
        ]);
        assert_eq!(left, ["content-length: 3", "host: a"]);
    }

    #[test]
    fn a_length_beside_a_transfer_coding_goes() {
        assert_eq!(
            stripped(&[("content-length", "3"), ("transfer-encoding", "chunked")]),
            Vec::<String>::new()
        );
    }

    #[test]
    fn te_keeps_only_trailers() {
        assert_eq!(
            stripped(&[("te", "trailers, deflate;q=0.5"), ("connection", "te")]),
            ["te: trailers"]
        );
        assert_eq!(stripped(&[("te", "gzip")]), Vec::<String>::new());
    }
}
