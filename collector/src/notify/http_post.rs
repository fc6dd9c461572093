//! One POST of JSON over plain HTTP.
//!
//! Guarantees: an attempt ends after [`LIMIT`]; at most [`MAX_REPLY_BYTES`] of the reply are read; redirects are not
//! followed. The outcome says whether trying again can help.

use std::time::Duration;

use bytes::Bytes;
use emberline_model::workload::clean_name;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Longest attempt.
const LIMIT: Duration = Duration::from_secs(10);
/// Bytes of a reply that are read.
const MAX_REPLY_BYTES: usize = 64 * 1024;

/// A receiver's address that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUrl {
    /// TLS is not spoken.
    #[error("`{0}`: https is not supported; use http through a local TLS client proxy")]
    Https(String),
    /// Something else than an address.
    #[error("`{url}` is not an http address: {why}")]
    NotHttp {
        /// As configured.
        url: String,
        /// What is wrong.
        why: String,
    },
}

/// Where to send.
#[derive(Debug, Clone)]
pub(super) struct Target {
    host: String,
    port: u16,
    authority: String,
    path: String,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Status 2xx.
    Delivered,
    /// Trying again can help.
    Retry(String),
    /// It cannot.
    Refused(String),
}

impl Target {
    /// Reads an address.
    pub(super) fn parse(url: &str) -> Result<Target, InvalidUrl> {
        let not_http = |why: &str| InvalidUrl::NotHttp {
            url: url.to_owned(),
            why: why.to_owned(),
        };
        let uri: Uri = url
            .parse()
            .map_err(|error: http::uri::InvalidUri| not_http(&error.to_string()))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(InvalidUrl::Https(url.to_owned())),
            _ => return Err(not_http("it must begin with http://")),
        }
        let authority = uri.authority().ok_or_else(|| not_http("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(not_http("user and password in the address are not supported"));
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let port = authority.port_u16().unwrap_or(80);
        Ok(Target {
            host,
            port,
            authority: authority.as_str().to_owned(),
            path,
        })
    }

    /// The same host with a path appended, unless it ends with it already.
    pub(super) fn with_path(mut self, path: &str) -> Target {
        let base = self.path.trim_end_matches('/');
        if !base.ends_with(path) {
            self.path = format!("{base}{path}");
        }
        self
    }

    /// Host and port, for logs and counters.
    pub(super) fn name(&self) -> &str {
        &self.authority
    }

    /// Path and query; may hold a secret.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Posts a JSON document.
    pub(super) async fn post(&self, body: Vec<u8>) -> Outcome {
        match tokio::time::timeout(LIMIT, self.attempt(body)).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => Outcome::Retry(error),
            Err(_) => Outcome::Retry(format!("no answer within {} s", LIMIT.as_secs())),
        }
    }

    async fn attempt(&self, body: Vec<u8>) -> Result<Outcome, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let stream = TcpStream::connect((self.host.as_str(), self.port))
            .await
            .map_err(|e| text(&e))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| text(&e))?;
        // Ends with the sender, at the latest when the attempt is over.
        let connection = tokio::spawn(connection);
        let request = Request::post(&self.path)
            .header(header::HOST, &self.authority)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, concat!("emberline/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(Bytes::from(body)))
            .map_err(|e| text(&e))?;
        let reply = sender.send_request(request).await.map_err(|e| text(&e))?;
        let status = reply.status();
        let words = match Limited::new(reply.into_body(), MAX_REPLY_BYTES).collect().await {
            Ok(body) => quoted(&body.to_bytes()),
            // The status says enough.
            Err(_) => String::new(),
        };
        connection.abort();
        Ok(outcome(status, &words))
    }
}

/// The beginning of a reply, fit for one line of a log.
fn quoted(reply: &[u8]) -> String {
    let words = clean_name(&String::from_utf8_lossy(reply));
    words.chars().take(200).collect()
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
    fn addresses_are_checked_when_configured() {
        assert!(matches!(Target::parse("https://a/b"), Err(InvalidUrl::Https(_))));
        for bad in ["", "a/b", "ftp://a", "http://", "http://u:p@a/"] {
            assert!(matches!(Target::parse(bad), Err(InvalidUrl::NotHttp { .. })), "{bad}");
        }
        let target = Target::parse("http://[::1]:9093/am/")
            .unwrap()
            .with_path("/api/v2/alerts");
        assert_eq!(
            (target.host.as_str(), target.port, target.path.as_str()),
            ("::1", 9093, "/am/api/v2/alerts")
        );
        assert_eq!(target.clone().with_path("/api/v2/alerts").path, target.path);
        assert_eq!(Target::parse("http://a").unwrap().with_path("/x").path, "/x");
    }

    #[test]
    fn a_reply_cannot_write_lines_of_the_log() {
        let reply = quoted(b"no\n2026-01-01 INFO all is well\x1b[2J\r\xff");
        assert!(reply.starts_with("no") && reply.contains("all is well"), "{reply}");
        assert!(!reply.chars().any(char::is_control), "{reply}");
        assert_eq!(quoted(&[b'a'; 1000]).len(), 200);
    }

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
