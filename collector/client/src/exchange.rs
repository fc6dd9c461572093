//! One HTTP/1.1 exchange on a connection of its own.
//!
//! Guarantees: from the look-up of the name to the last byte of the answer no more than the given time passes; a task that drives
//! the connection does not outlive the exchange.

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

/// Bytes of an error page that are read.
const MAX_PAGE_BYTES: usize = 64 * 1024;
/// Characters of an error page that are shown.
const MAX_WORDS: usize = 200;

/// Asks peers. Cheap to clone; clones share the certificates.
#[derive(Debug, Clone)]
pub struct Client {
    connector: Connector,
}

/// The head of an answer; the body is still to be read.
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
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Client {
    /// Reads the files of the settings.
    ///
    /// # Errors
    /// When the settings contradict themselves or a file cannot be used.
    pub fn new(tls: &Tls) -> Result<Client, TlsError> {
        let connector = Connector::new(tls, Speaks::Http1)?;
        Ok(Client { connector })
    }

    /// Refuses addresses for which the function says why.
    #[must_use]
    pub fn refusing(mut self, refused: fn(IpAddr) -> Option<&'static str>) -> Client {
        self.connector = self.connector.refusing(refused);
        self
    }

    /// Sends a request to the path of an address, whatever that of the request is, and waits for the head of the answer. `time` is
    /// for the whole exchange, the body of the answer included.
    ///
    /// # Errors
    /// When the peer cannot be reached or does not answer. A status that tells of an error is none.
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
        head.uri = address.path().parse().map_err(http::Error::from)?;
        let host = HeaderValue::from_str(&address.authority()).map_err(http::Error::from)?;
        head.headers.insert(header::HOST, host);
        let name = HeaderValue::from_static(concat!("emberline/", env!("CARGO_PKG_VERSION")));
        head.headers.insert(header::USER_AGENT, name);
        let stream = self.connector.connect(address).await?;
        let broken = |error: hyper::Error| Error::Http(cause(&error));
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        let connection = Driver(tokio::spawn(async move {
            // What went wrong is told to the request.
            let _ = connection.await;
        }));
        let request = Request::from_parts(head, Full::new(body));
        let answer = sender.send_request(request).await.map_err(broken)?;
        Ok((answer, connection))
    }
}

impl Reply {
    /// Reads the body, at most so many bytes of it.
    ///
    /// # Errors
    /// When it is longer, ends early, or does not come in time.
    pub async fn read(self, most: usize) -> Result<Bytes, Error> {
        let body = tokio::time::timeout_at(self.until, Limited::new(self.body, most).collect()).await;
        let body = body.map_err(|_| Error::TimedOut(self.time))?;
        let body = body.map_err(|error| match error.is::<LengthLimitError>() {
            true => Error::TooLarge(most),
            false => Error::Http(cause(&*error)),
        })?;
        Ok(body.to_bytes())
    }

    /// The beginning of an error page, fit for one line of a log; the status says enough where it cannot be read.
    pub async fn words(self) -> String {
        let status = self.status;
        let page = self.read(MAX_PAGE_BYTES).await.unwrap_or_default();
        let words = words(&page);
        // What Go's and nginx's servers say to plain HTTP at their port for TLS.
        let lower = words.to_lowercase();
        if status == StatusCode::BAD_REQUEST && lower.contains("http request") && lower.contains("https") {
            return format!("{words}: {SPEAKS_TLS}");
        }
        words
    }
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
