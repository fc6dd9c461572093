//! One HTTP/1.1 exchange on a connection of its own.
//!
//! Guarantees: from the lookup of the name to the last byte of the response, no more than the given time passes; the
//! task that drives the connection does not outlive the exchange.

use std::{net::IpAddr, time::Duration};

use bytes::Bytes;
use emberline_model::workload::clean_name;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::{task::JoinHandle, time::Instant};

use crate::{
    Address, Connector, Error, Speaks, Tls, TlsError,
    error::{SPEAKS_TLS, cause},
};

/// The most bytes read of an error page.
const MAX_PAGE_BYTES: usize = 64 * 1024;
/// The most characters shown of an error page.
const MAX_WORDS: usize = 200;

/// HTTP client for peers. Cheap to clone; clones share the certificates.
#[derive(Debug, Clone)]
pub struct Client {
    connector: Connector,
}

/// A response head whose body has not been read yet.
#[derive(Debug)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    body: Incoming,
    until: Instant,
    time: Duration,
    _connection: Driver,
}

/// Ends the task of a connection.
#[derive(Debug)]
struct Driver(JoinHandle<hyper::Result<()>>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Client {
    /// Reads the files in the settings.
    ///
    /// # Errors
    /// When the settings contradict themselves or a file cannot be used.
    pub fn new(tls: &Tls) -> Result<Client, TlsError> {
        let connector = Connector::new(tls, Speaks::Http1)?;
        Ok(Client { connector })
    }

    /// Refuses addresses for which the function returns a reason.
    #[must_use]
    pub fn refusing(mut self, refused: fn(IpAddr) -> Option<&'static str>) -> Client {
        self.connector = self.connector.refusing(refused);
        self
    }

    /// Sends a request to the path of an address, whatever the request's own path, and waits for the response head.
    /// `time` limits the whole exchange, including the response body.
    ///
    /// # Errors
    /// When the peer cannot be reached or does not respond. An HTTP error status is not an error here.
    pub async fn send(&self, address: &Address, request: Request<Bytes>, time: Duration) -> Result<Reply, Error> {
        let until = Instant::now() + time;
        let asked = tokio::time::timeout_at(until, self.ask(address, request)).await;
        let (answer, connection) = asked.unwrap_or(Err(Error::TimedOut(time)))?;
        let (head, body) = answer.into_parts();
        Ok(Reply {
            status: head.status,
            headers: head.headers,
            body,
            until,
            time,
            _connection: connection,
        })
    }

    async fn ask(
        &self,
        address: &Address,
        request: Request<Bytes>,
    ) -> Result<(http::Response<Incoming>, Driver), Error> {
        let (mut head, body) = request.into_parts();
        head.uri = address.path().parse().map_err(unsendable)?;
        let host = HeaderValue::from_str(&address.authority()).map_err(unsendable)?;
        head.headers.insert(header::HOST, host);
        let name = HeaderValue::from_static(concat!("emberline/", env!("CARGO_PKG_VERSION")));
        head.headers.insert(header::USER_AGENT, name);
        let stream = self.connector.connect(address).await?;
        let broken = |error: hyper::Error| Error::Http(cause(&error));
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        let mut connection = Driver(tokio::spawn(connection));
        let request = Request::from_parts(head, Full::new(body));
        match sender.send_request(request).await {
            Ok(answer) => Ok((answer, connection)),
            // The connection ended before it accepted the request; its own task has the reason.
            Err(error) if error.is_canceled() => match (&mut connection.0).await {
                Ok(Err(reason)) => Err(broken(reason)),
                _ => Err(broken(error)),
            },
            Err(error) => Err(broken(error)),
        }
    }
}

impl Reply {
    /// Reads the body, up to a maximum size.
    ///
    /// # Errors
    /// When it is longer, ends early, or does not arrive in time.
    pub async fn read(self, most: usize) -> Result<Bytes, Error> {
        let body = tokio::time::timeout_at(self.until, Limited::new(self.body, most).collect()).await;
        let body = body.map_err(|_| Error::TimedOut(self.time))?;
        let body = body.map_err(|error| match error.is::<LengthLimitError>() {
            true => Error::TooLarge(most),
            false => Error::Http(cause(&*error)),
        })?;
        Ok(body.to_bytes())
    }

    /// The beginning of an error page, fit for one log line; empty if it cannot be read.
    pub async fn words(self) -> String {
        let status = self.status;
        let page = self.read(MAX_PAGE_BYTES).await.unwrap_or_default();
        let words = words(&page);
        // Responses of Go and nginx to plain HTTP on their TLS port.
        let lower = words.to_lowercase();
        if status == StatusCode::BAD_REQUEST && lower.contains("http request") && lower.contains("https") {
            return format!("{words}: {SPEAKS_TLS}");
        }
        words
    }
}

fn unsendable(error: impl Into<http::Error>) -> Error {
    Error::Request(error.into().to_string())
}

fn words(page: &[u8]) -> String {
    let words = clean_name(String::from_utf8_lossy(page).trim());
    words.chars().take(MAX_WORDS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_cannot_write_lines_of_the_log() {
        let reply = words(b"no\n2026-01-01 INFO all is well\x1b[2J\r\xff");
        assert!(reply.starts_with("no") && reply.contains("all is well"), "{reply}");
        assert!(!reply.chars().any(char::is_control), "{reply}");
        assert_eq!(words(&[b'a'; 1000]).len(), 200);
    }
}
