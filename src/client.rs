//! A running server, as the commands ask it.
//!
//! Guarantees: an answer is bounded in bytes and in time; a server that cannot be reached, an address that cannot work
//! and an answer that is none are told with the option to change; what the server refuses is told in its own words.

use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use bytes::Bytes;
use emberline_client::{Address, Client, Error};
use emberline_web::types::ErrorBody;
use http::{HeaderMap, Method, Request, StatusCode, header};
use serde::Deserialize;

use crate::cli::TlsArgs;

/// A server, as an option of a command names it.
pub(crate) struct Server {
    client: Client,
    address: Address,
    /// The option that chooses another.
    option: &'static str,
    /// How long an answer may take.
    limit: Duration,
    /// What to do when it takes longer.
    advice: &'static str,
}

/// What a server answered.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Path and parameters of a request, being put together. Guarantee: a value cannot add parameters.
pub(crate) struct Target {
    path: String,
    parameters: form_urlencoded::Serializer<'static, String>,
}

/// Why a server did not do what it was asked.
#[derive(Deserialize)]
#[serde(untagged)]
enum Refusal {
    /// By the port of the pages.
    OfAQuestion(ErrorBody),
    /// By the port that telemetry is sent to: `google.rpc.Status`, as OTLP over HTTP answers.
    OfTelemetry { message: String },
}

impl Target {
    pub(crate) fn new(path: &str) -> Target {
        Target {
            path: path.to_owned(),
            parameters: form_urlencoded::Serializer::new(String::new()),
        }
    }

    /// Adds a parameter.
    pub(crate) fn with(mut self, name: &str, value: &(impl ToString + ?Sized)) -> Target {
        self.parameters.append_pair(name, &value.to_string());
        self
    }

    /// Adds a parameter when there is a value.
    pub(crate) fn maybe(self, name: &str, value: Option<&impl ToString>) -> Target {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    fn finish(mut self) -> String {
        let parameters = self.parameters.finish();
        match parameters.is_empty() {
            true => self.path,
            false => format!("{}?{parameters}", self.path),
        }
    }
}

impl Server {
    /// Refuses what is no address, and certificates that cannot be used.
    pub(crate) fn new(
        address: &str,
        option: &'static str,
        tls: &TlsArgs,
        limit: Duration,
        advice: &'static str,
    ) -> Result<Server> {
        let read = Address::parse(address);
        let read = read.map_err(|error| anyhow!("{option}: {error}; use, for example, http://127.0.0.1:4040"))?;
        if read.path().contains('?') {
            bail!("{option} {read}: use only a host and a path, for example http://127.0.0.1:4040");
        }
        Ok(Server {
            client: Client::new(&tls.settings())?,
            address: read,
            option,
            limit,
            advice,
        })
    }

    /// Sends a request and reads the answer, at most `max_bytes` of it.
    pub(crate) async fn send(&self, method: Method, target: Target, body: Bytes, max_bytes: usize) -> Result<Answer> {
        let path = format!("{}{}", self.address.path().trim_end_matches('/'), target.finish());
        let mut request = Request::new(body);
        *request.method_mut() = method;
        if !request.body().is_empty() {
            let bytes = header::HeaderValue::from_static("application/octet-stream");
            request.headers_mut().insert(header::CONTENT_TYPE, bytes);
        }
        let address = self.address.clone().with_path(&path);
        let exchange = async {
            let reply = self.client.send(&address, request, self.limit).await?;
            let (status, headers) = (reply.status, reply.headers.clone());
            let body = reply.read(max_bytes).await?;
            Ok(Answer { status, headers, body })
        };
        exchange.await.map_err(|error| self.explain(&error))
    }

    /// A failure, with the option to change.
    fn explain(&self, error: &Error) -> anyhow::Error {
        let Server { address, option, .. } = self;
        match error {
            Error::TimedOut(limit) => anyhow!("no response from {address} within {limit:?}{}", self.advice),
            Error::TooLarge(_) => anyhow!("the response from {address} is incomplete: {error}"),
            Error::Lookup(..) | Error::Connect(..) | Error::ConnectTimedOut(..) => anyhow!(
                "cannot reach {address}: {error}: is `emberline serve` running there? Choose another with {option}"
            ),
            _ => anyhow!("cannot query {address}: {error} ({option})"),
        }
    }

    /// Asks a question; the body of an answer that is not a refusal.
    pub(crate) async fn get(&self, target: Target, max_bytes: usize) -> Result<Bytes> {
        let answer = self.send(Method::GET, target, Bytes::new(), max_bytes).await?;
        match answer.status.is_success() {
            true => Ok(answer.body),
            false => Err(self.refusal(&answer)),
        }
    }

    /// What a refusal says; the two ports of a server put it in different places.
    pub(crate) fn refusal(&self, answer: &Answer) -> anyhow::Error {
        match serde_json::from_slice(&answer.body) {
            Ok(Refusal::OfAQuestion(ErrorBody { error })) => anyhow!("{}", error.message),
            Ok(Refusal::OfTelemetry { message }) => anyhow!("{message}"),
            Err(_) => anyhow!(
                "{} responded with {}: is it an emberline server, and is {} the right port?",
                self.address,
                answer.status,
                self.option
            ),
        }
    }

    /// The server, for messages.
    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }
}

/// Runs the requests of a command to their end.
pub(crate) fn run<T>(requests: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(requests)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_cannot_add_parameters() {
        let target = Target::new("/api/v1/merge")
            .with("selector", "{a=\"b&c=d #é\"}")
            .maybe("to", None::<&String>);
        assert_eq!(
            target.finish(),
            "/api/v1/merge?selector=%7Ba%3D%22b%26c%3Dd+%23%C3%A9%22%7D"
        );
        assert_eq!(Target::new("/api/v1/status").finish(), "/api/v1/status");
    }

    #[test]
    fn addresses_that_cannot_work_name_the_option() {
        let new =
            |address| Server::new(address, "--server", &TlsArgs::default(), Duration::from_secs(1), "").map(|_| ());
        for right in ["http://[::1]:4040/behind/a/proxy/", "https://example.org"] {
            assert!(new(right).is_ok(), "{right}");
        }
        for wrong in ["ftp://example.org", "localhost:4040", "http://", "x y", "http://h/?a=b"] {
            let error = new(wrong).unwrap_err().to_string();
            assert!(error.contains("--server") && error.contains("http"), "{wrong}: {error}");
        }
    }
}
