//! A running server, as queried by the commands.
//!
//! Guarantees: a response is bounded in bytes and in time; an unreachable server, an invalid address and an invalid
//! response are reported with the option to change; the server's refusals are passed on verbatim.

use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use bytes::Bytes;
use emberline_client::{Address, Client, Error};
use emberline_web::types::ErrorBody;
use http::{HeaderMap, Method, Request, StatusCode, header};
use serde::Deserialize;

use crate::cli::TlsArgs;

/// A server, from an option of a command.
pub(crate) struct Server {
    client: Client,
    address: Address,
    /// The option that selects it.
    option: &'static str,
    /// How long a response may take.
    limit: Duration,
    /// What to do if it takes longer.
    advice: &'static str,
}

/// A server's response.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Path and parameters of a request. Guarantee: a value cannot add parameters.
pub(crate) struct Target {
    path: String,
    parameters: form_urlencoded::Serializer<'static, String>,
}

/// Why a server refused a request.
#[derive(Deserialize)]
#[serde(untagged)]
enum Refusal {
    /// From the port of the pages.
    OfAQuestion(ErrorBody),
    /// From the port for telemetry: `google.rpc.Status`, as in OTLP over HTTP.
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

    /// Adds a parameter if there is a value.
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
    /// Refuses invalid addresses and unusable certificates.
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

    /// Sends a request and reads at most `max_bytes` of the response.
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

    /// Sends a query; returns the body of a response that is not a refusal.
    pub(crate) async fn get(&self, target: Target, max_bytes: usize) -> Result<Bytes> {
        let answer = self.send(Method::GET, target, Bytes::new(), max_bytes).await?;
        match answer.status.is_success() {
            true => Ok(answer.body),
            false => Err(self.refusal(&answer)),
        }
    }

    /// The message of a refusal; the two ports of a server put it in different places.
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
