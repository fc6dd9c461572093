//! The one HTTP client of the commands.
//!
//! Guarantees: an answer is bounded in bytes and in time; a server that cannot be reached, an address that cannot work
//! and an answer that is none are told with the option to change; what the server refuses is told in its own words.
//! What it gets wrong on purpose: only `http:` is spoken, as the server does, and each request has a connection of
//! its own.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::Value;

/// A server, as an option of a command names it.
pub(crate) struct Server {
    /// Its address, without a slash at the end.
    base: String,
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
    /// Refuses what is no address with `http:` and a host.
    pub(crate) fn new(address: &str, option: &'static str, limit: Duration, advice: &'static str) -> Result<Server> {
        let uri: Uri = address
            .parse()
            .with_context(|| format!("{option} {address} is not an address: use one like http://127.0.0.1:4040"))?;
        if uri.scheme_str() != Some("http") {
            bail!("{option} {address}: it must begin with http: (TLS is not spoken), as http://127.0.0.1:4040");
        }
        if uri.host().is_none_or(str::is_empty) || uri.query().is_some() {
            bail!("{option} {address}: give a host and at most a path, as http://127.0.0.1:4040");
        }
        Ok(Server {
            base: address.trim_end_matches('/').to_owned(),
            option,
            limit,
            advice,
        })
    }

    /// Sends a request and reads the answer, at most `max_bytes` of it.
    pub(crate) async fn send(&self, method: Method, target: Target, body: Bytes, max_bytes: usize) -> Result<Answer> {
        let sent = self.send_without_limit(method, target, body, max_bytes);
        tokio::time::timeout(self.limit, sent)
            .await
            .with_context(|| format!("no answer from {} within {:?}{}", self.base, self.limit, self.advice))?
    }

    async fn send_without_limit(
        &self,
        method: Method,
        target: Target,
        body: Bytes,
        max_bytes: usize,
    ) -> Result<Answer> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{}", self.base, target.finish()));
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/octet-stream");
        }
        let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
        let response = client.request(request.body(Full::new(body))?).await.with_context(|| {
            format!(
                "cannot reach {}: is `emberline serve` running there? Choose another with {}",
                self.base, self.option
            )
        })?;
        let (head, body) = response.into_parts();
        match Limited::new(body, max_bytes).collect().await {
            Ok(body) => Ok(Answer {
                status: head.status,
                headers: head.headers,
                body: body.to_bytes(),
            }),
            Err(error) => bail!("the answer of {} did not arrive whole: {error}", self.base),
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
        let told: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        match told["error"]["message"].as_str().or(told["message"].as_str()) {
            Some(message) => anyhow::anyhow!("{message}"),
            None => anyhow::anyhow!(
                "{} answered {}: is it an emberline server, and {} its right port?",
                self.base,
                answer.status,
                self.option
            ),
        }
    }

    /// The server, for messages.
    pub(crate) fn address(&self) -> &str {
        &self.base
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
        let new = |address| Server::new(address, "--server", Duration::from_secs(1), "").map(|_| ());
        assert!(new("http://[::1]:4040/behind/a/proxy/").is_ok());
        for wrong in [
            "https://example.org",
            "localhost:4040",
            "http://",
            "x y",
            "http://h/?a=b",
        ] {
            let error = new(wrong).unwrap_err().to_string();
            assert!(error.contains("--server") && error.contains("http"), "{wrong}: {error}");
        }
    }
}
