//! One POST of JSON to an alert receiver.
//!
//! Guarantees: an attempt ends after [`LIMIT`]; a bounded part of the response is read; redirects are not followed. The
//! outcome says whether retrying can help. An invalid certificate can be fixed without a restart, so it is retried.

use std::time::Duration;

use bytes::Bytes;
use emberline_client::{Address, Client, InvalidAddress};
use http::{Request, StatusCode, header};

/// Longest attempt.
const LIMIT: Duration = Duration::from_secs(10);

/// Where to send.
#[derive(Debug, Clone)]
pub(super) struct Target {
    address: Address,
    client: Client,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Status 2xx.
    Delivered,
    /// A retry can help.
    Retry(String),
    /// Retrying cannot help.
    Refused(String),
}

impl Target {
    /// Parses an address.
    pub(super) fn parse(url: &str, client: &Client) -> Result<Target, InvalidAddress> {
        Ok(Target {
            address: Address::parse(url)?,
            client: client.clone(),
        })
    }

    /// The same host with a path appended, unless it already ends with it.
    pub(super) fn with_path(mut self, path: &str) -> Target {
        self.address = self.address.below(path);
        self
    }

    /// Host and port, for logs and counters.
    pub(super) fn name(&self) -> String {
        self.address.authority()
    }

    /// Path and query; may contain a secret.
    pub(super) fn path(&self) -> &str {
        self.address.path()
    }

    /// Posts a JSON document.
    pub(super) async fn post(&self, body: Vec<u8>) -> Outcome {
        let mut request = Request::new(Bytes::from(body));
        *request.method_mut() = http::Method::POST;
        let json = header::HeaderValue::from_static("application/json");
        request.headers_mut().insert(header::CONTENT_TYPE, json);
        match self.client.send(&self.address, request, LIMIT).await {
            Ok(reply) => outcome(reply.status, &reply.words().await),
            Err(error) => Outcome::Retry(error.to_string()),
        }
    }
}

fn outcome(status: StatusCode, words: &str) -> Outcome {
    let said = || format!("{status}: {words}");
    let try_again = [
        StatusCode::REQUEST_TIMEOUT,
        StatusCode::TOO_EARLY,
        StatusCode::TOO_MANY_REQUESTS,
    ];
    match status {
        _ if status.is_success() => Outcome::Delivered,
        _ if status.is_server_error() || try_again.contains(&status) => Outcome::Retry(said()),
        _ if status.is_redirection() => Outcome::Refused(format!(
            "{status}: redirects are not followed; configure the final address"
        )),
        _ => Outcome::Refused(said()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_from_troubles() {
        assert_eq!(outcome(StatusCode::NO_CONTENT, ""), Outcome::Delivered);
        for status in [StatusCode::BAD_GATEWAY, StatusCode::TOO_MANY_REQUESTS] {
            assert!(matches!(outcome(status, ""), Outcome::Retry(_)));
        }
        for status in [StatusCode::FOUND, StatusCode::BAD_REQUEST, StatusCode::NOT_FOUND] {
            assert!(matches!(outcome(status, ""), Outcome::Refused(_)));
        }
    }
}
