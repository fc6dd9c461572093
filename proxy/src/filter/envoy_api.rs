//! Messages of the services that Envoy asks, as far as they are used here.
//!
//! Source: Envoy's API v3, `envoy/service/auth/v3`, `envoy/service/ratelimit/v3` and what these import. Fields that are
//! left out are skipped when they are read.

use std::collections::HashMap;

use http::{HeaderMap, HeaderName, HeaderValue, header::SET_COOKIE};
use prost::Message;

/// Method of the authorization service.
pub(super) const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";
/// Method of the rate limit service.
pub(super) const SHOULD_RATE_LIMIT: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";

#[derive(Clone, PartialEq, Message)]
pub(super) struct CheckRequest {
    #[prost(message, optional, tag = "1")]
    pub(super) attributes: Option<AttributeContext>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct AttributeContext {
    #[prost(message, optional, tag = "1")]
    pub(super) source: Option<Peer>,
    #[prost(message, optional, tag = "4")]
    pub(super) request: Option<AttributeRequest>,
    #[prost(map = "string, string", tag = "10")]
    pub(super) context_extensions: HashMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Peer {
    #[prost(message, optional, tag = "1")]
    pub(super) address: Option<EnvoyAddress>,
    /// The SPIFFE id of its certificate.
    #[prost(string, tag = "4")]
    pub(super) principal: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct EnvoyAddress {
    #[prost(message, optional, tag = "1")]
    pub(super) socket_address: Option<SocketAddress>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct SocketAddress {
    #[prost(string, tag = "2")]
    pub(super) address: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct AttributeRequest {
    #[prost(message, optional, tag = "2")]
    pub(super) http: Option<HttpRequest>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct HttpRequest {
    /// `x-request-id`.
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(string, tag = "2")]
    pub(super) method: String,
    /// Names in lower case; several values of one are joined by commas.
    #[prost(map = "string, string", tag = "3")]
    pub(super) headers: HashMap<String, String>,
    /// With its query.
    #[prost(string, tag = "4")]
    pub(super) path: String,
    #[prost(string, tag = "5")]
    pub(super) host: String,
    #[prost(string, tag = "6")]
    pub(super) scheme: String,
    /// Bytes of the body, or -1 where nobody knows.
    #[prost(int64, tag = "9")]
    pub(super) size: i64,
    #[prost(string, tag = "10")]
    pub(super) protocol: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct CheckResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) status: Option<RpcStatus>,
    #[prost(message, optional, tag = "2")]
    pub(super) denied_response: Option<DeniedHttpResponse>,
    #[prost(message, optional, tag = "3")]
    pub(super) ok_response: Option<OkHttpResponse>,
}

/// `google.rpc.Status`; 0 is OK.
#[derive(Clone, PartialEq, Message)]
pub(super) struct RpcStatus {
    #[prost(int32, tag = "1")]
    pub(super) code: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct DeniedHttpResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) status: Option<HttpStatus>,
    #[prost(message, repeated, tag = "2")]
    pub(super) headers: Vec<HeaderValueOption>,
    #[prost(string, tag = "3")]
    pub(super) body: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct HttpStatus {
    #[prost(int32, tag = "1")]
    pub(super) code: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct OkHttpResponse {
    #[prost(message, repeated, tag = "2")]
    pub(super) headers: Vec<HeaderValueOption>,
    #[prost(string, repeated, tag = "5")]
    pub(super) headers_to_remove: Vec<String>,
    #[prost(message, repeated, tag = "6")]
    pub(super) response_headers_to_add: Vec<HeaderValueOption>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct HeaderValueOption {
    #[prost(message, optional, tag = "1")]
    pub(super) header: Option<EnvoyHeader>,
    /// Deprecated there, and what most servers set.
    #[prost(message, optional, tag = "2")]
    pub(super) append: Option<BoolValue>,
    #[prost(int32, tag = "3")]
    pub(super) append_action: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct EnvoyHeader {
    #[prost(string, tag = "1")]
    pub(super) key: String,
    #[prost(string, tag = "2")]
    pub(super) value: String,
    #[prost(bytes = "vec", tag = "3")]
    pub(super) raw_value: Vec<u8>,
}

/// `google.protobuf.BoolValue`.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct BoolValue {
    #[prost(bool, tag = "1")]
    pub(super) value: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct RateLimitRequest {
    #[prost(string, tag = "1")]
    pub(super) domain: String,
    #[prost(message, repeated, tag = "2")]
    pub(super) descriptors: Vec<RateLimitDescriptor>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct RateLimitDescriptor {
    #[prost(message, repeated, tag = "1")]
    pub(super) entries: Vec<RateLimitEntry>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct RateLimitEntry {
    #[prost(string, tag = "1")]
    pub(super) key: String,
    #[prost(string, tag = "2")]
    pub(super) value: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct RateLimitResponse {
    /// [`OVER_LIMIT`], or anything else for a request that may go on.
    #[prost(int32, tag = "1")]
    pub(super) overall_code: i32,
    #[prost(message, repeated, tag = "3")]
    pub(super) response_headers_to_add: Vec<EnvoyHeader>,
    #[prost(message, repeated, tag = "4")]
    pub(super) request_headers_to_add: Vec<EnvoyHeader>,
}

/// A code of the rate limit service.
pub(super) const OVER_LIMIT: i32 = 2;

impl EnvoyHeader {
    /// As a header that a filter may write; `None` for any other.
    pub(super) fn parse(&self) -> Option<(HeaderName, HeaderValue)> {
        let name: HeaderName = self.key.parse().ok()?;
        let value = if self.raw_value.is_empty() {
            self.value.as_bytes()
        } else {
            &self.raw_value
        };
        let value = HeaderValue::from_bytes(value).ok()?;
        crate::config::may_edit(&name).then_some((name, value))
    }
}

/// Writes headers. One that says nothing of what is there already takes its place, as the API has it for these messages:
/// what a caller says of itself must not stay with what the service says of it.
pub(super) fn write(options: &[HeaderValueOption], headers: &mut HeaderMap) {
    const ADD_IF_ABSENT: i32 = 1;
    const OVERWRITE_IF_EXISTS: i32 = 3;
    for option in options {
        let Some((name, value)) = option.header.as_ref().and_then(EnvoyHeader::parse) else {
            continue;
        };
        let is_there = headers.contains_key(&name);
        match (option.append, option.append_action) {
            // Its values cannot be joined, so each has a line of its own.
            _ if name == SET_COOKIE => {
                headers.append(name, value);
            }
            (Some(BoolValue { value: true }), _) => {
                headers.append(name, value);
            }
            (None, ADD_IF_ABSENT) if is_there => {}
            (None, OVERWRITE_IF_EXISTS) if !is_there => {}
            _ => {
                headers.insert(name, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_takes_the_callers_place_unless_it_says_otherwise() {
        let option = |append: Option<bool>, append_action| HeaderValueOption {
            header: Some(EnvoyHeader {
                key: "X-User".to_owned(),
                value: "ours".to_owned(),
                raw_value: Vec::new(),
            }),
            append: append.map(|value| BoolValue { value }),
            append_action,
        };
        for (append, action, there, absent) in [
            (None, 0, "ours", "ours"),
            (Some(false), 0, "ours", "ours"),
            (Some(true), 0, "caller,ours", "ours"),
            (None, 1, "caller", "ours"),
            (None, 2, "ours", "ours"),
            (None, 3, "ours", ""),
        ] {
            let written = |mut headers: HeaderMap| {
                write(&[option(append, action)], &mut headers);
                let values: Vec<_> = headers.get_all("x-user").iter().map(|v| v.to_str().unwrap()).collect();
                values.join(",")
            };
            let callers =
                HeaderMap::from_iter([(HeaderName::from_static("x-user"), HeaderValue::from_static("caller"))]);
            assert_eq!(written(callers), there, "{append:?} {action}");
            assert_eq!(written(HeaderMap::new()), absent, "{append:?} {action}");
        }
    }

    #[test]
    fn headers_of_the_connection_are_not_written() {
        for key in [
            "Content-Length",
            "transfer-encoding",
            "host",
            "x-emberline-peer",
            "no header",
            "",
        ] {
            let header = EnvoyHeader {
                key: key.to_owned(),
                value: "1".to_owned(),
                raw_value: Vec::new(),
            };
            assert_eq!(header.parse(), None, "{key}");
        }
    }
}
