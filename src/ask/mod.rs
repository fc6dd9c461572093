//! Asking a running server: what `emberline query` and `emberline export` have in common.
//!
//! Guarantees: what the server refuses is told in its own words; an answer is bounded. What it gets wrong on purpose:
//! only `http:` is spoken, as the server does.

pub(crate) mod export;
pub(crate) mod query;
mod table;
#[cfg(test)]
mod tests;

use std::time::Duration;

use anyhow::{Context, Result, bail};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};

use crate::cli::{RangeArgs, SelectionArgs, ServerArgs};

/// The longest answer.
const MAX_ANSWER_BYTES: usize = 1 << 30;

/// The address of a question, being put together.
pub(crate) struct Question {
    path: &'static str,
    parameters: Vec<(&'static str, String)>,
}

impl Question {
    pub(crate) fn new(path: &'static str) -> Question {
        Question {
            path,
            parameters: Vec::new(),
        }
    }

    /// Adds a parameter.
    pub(crate) fn with(mut self, name: &'static str, value: &(impl ToString + ?Sized)) -> Question {
        self.parameters.push((name, value.to_string()));
        self
    }

    /// Adds a parameter when there is a value.
    pub(crate) fn maybe(self, name: &'static str, value: Option<&impl ToString>) -> Question {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    pub(crate) fn range(self, range: &RangeArgs) -> Question {
        self.with("from", &range.from).with("to", &range.to)
    }

    pub(crate) fn selection(self, selection: &SelectionArgs) -> Question {
        self.maybe("selector", selection.selector.as_ref())
            .maybe("profile_type", selection.profile_type.as_ref())
            .range(&selection.range)
    }

    fn address(&self, server: &str) -> String {
        let pairs = self
            .parameters
            .iter()
            .map(|(name, value)| format!("{name}={}", percent_encoded(value)));
        format!(
            "{}{}?{}",
            server.trim_end_matches('/'),
            self.path,
            pairs.collect::<Vec<_>>().join("&")
        )
    }

    /// Asks; the body of an answer that is not a refusal.
    pub(crate) fn ask(&self, server: &ServerArgs) -> Result<Vec<u8>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let limit = Duration::from_secs(server.timeout_seconds);
        runtime.block_on(async {
            tokio::time::timeout(limit, self.fetch(&server.server))
                .await
                .with_context(|| {
                    format!("no answer within {limit:?}: raise --timeout-seconds or ask for a shorter range")
                })?
        })
    }

    /// Asks for JSON.
    pub(crate) fn ask_json(&self, server: &ServerArgs) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.ask(server)?)
            .context("the server's answer is not JSON; is it an emberline server?")
    }

    async fn fetch(&self, server: &str) -> Result<Vec<u8>> {
        let address: http::Uri = self
            .address(server)
            .parse()
            .with_context(|| format!("`{server}` is not an address: use one like http://127.0.0.1:4040"))?;
        if address.scheme_str() != Some("http") {
            bail!("`{server}` is not an address with http: use one like http://127.0.0.1:4040");
        }
        let client = Client::builder(TokioExecutor::new()).build_http::<Empty<bytes::Bytes>>();
        let response = client.get(address).await.with_context(|| {
            format!("cannot reach {server}: is `emberline serve` running there? Choose another with --server")
        })?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
        let body = match body {
            Ok(body) => body.to_bytes().to_vec(),
            Err(error) => bail!("the answer did not arrive whole: {error}"),
        };
        if status.is_success() {
            return Ok(body);
        }
        let error: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        match error["error"]["message"].as_str() {
            Some(message) => bail!("{message}"),
            None => bail!("{server} answered {status}; is it an emberline server?"),
        }
    }
}

/// Text as the value of a parameter.
fn percent_encoded(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(b).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

/// Writes to standard output; the reader of a pipe may have seen enough.
pub(crate) fn print(bytes: &[u8]) -> Result<std::process::ExitCode> {
    match std::io::Write::write_all(&mut std::io::stdout(), bytes) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error).context("cannot write the answer"),
        _ => Ok(std::process::ExitCode::SUCCESS),
    }
}

#[cfg(test)]
mod address {
    use super::*;

    #[test]
    fn values_cannot_add_parameters() {
        let question = Question::new("/api/v1/merge")
            .with("selector", "{a=\"b&c=d #é\"}")
            .maybe("to", None::<&String>);
        assert_eq!(
            question.address("http://127.0.0.1:4040/"),
            "http://127.0.0.1:4040/api/v1/merge?selector=%7Ba%3D%22b%26c%3Dd%20%23%C3%A9%22%7D"
        );
    }
}
