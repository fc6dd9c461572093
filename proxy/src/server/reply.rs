//! Answers that this process makes itself: refusals and failures to reach a destination.
//!
//! Guarantee: every one carries `x-emberline-error: <reason>`, so that a caller can tell it from the application's own,
//! and a sentence that says what happened. A caller that speaks gRPC gets a gRPC status in a response without a body.

use http::{
    HeaderValue, Response, StatusCode,
    header::{CONNECTION, CONTENT_TYPE},
};

use crate::{body::LocalBody, grpc, telemetry::Protocol};

/// Names the reason in answers of our own.
pub(crate) const ERROR_HEADER: &str = "x-emberline-error";

/// An answer of our own.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    /// For a caller that speaks gRPC, where the HTTP status does not say it.
    pub(crate) grpc_status: Option<u16>,
    /// The caller's connection cannot be trusted to be in step any more.
    pub(crate) close: bool,
}

impl Reply {
    pub(crate) fn into_response(self, protocol: Protocol) -> Response<LocalBody> {
        let mut response = if protocol == Protocol::Grpc {
            let status = self.grpc_status.unwrap_or_else(|| grpc::status_of_http(self.status));
            let mut response = Response::new(LocalBody::default());
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.insert("grpc-status", HeaderValue::from(status));
            if let Ok(message) = HeaderValue::from_str(&grpc_message(&self.message)) {
                headers.insert("grpc-message", message);
            }
            response
        } else {
            let mut response = Response::new(LocalBody::text(format!("{}\n", self.message)));
            *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::BAD_GATEWAY);
            response
                .headers_mut()
                .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
            response
        };
        response
            .headers_mut()
            .insert(ERROR_HEADER, HeaderValue::from_static(self.reason));
        if self.close && protocol == Protocol::Http1 {
            response
                .headers_mut()
                .insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// Percent-encoded as gRPC wants it.
fn grpc_message(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if (0x20..0x7f).contains(&byte) && byte != b'%' {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}
