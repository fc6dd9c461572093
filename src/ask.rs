//! Querying a running server: what `emberline query` and `emberline export` have in common.
//!
//! Guarantees: the server's refusals are passed on verbatim; a response is bounded, and parsed as the types that the
//! server writes.

pub(crate) mod export;
pub(crate) mod query;
pub(crate) mod table;
#[cfg(test)]
mod tests;

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use crate::{
    cli::{RangeArgs, SelectionArgs, ServerArgs},
    client::{self, Server, Target},
};

/// The longest response.
const MAX_ANSWER_BYTES: usize = 1 << 30;

impl Target {
    pub(crate) fn range(self, range: &RangeArgs) -> Target {
        self.with("from", &range.from).with("to", &range.to)
    }

    pub(crate) fn selection(self, selection: &SelectionArgs) -> Target {
        self.maybe("selector", selection.selector.as_ref())
            .maybe("profile_type", selection.profile_type.as_ref())
            .range(&selection.range)
    }

    /// Sends the query; returns the body of a response that is not a refusal.
    pub(crate) fn ask(self, server: &ServerArgs) -> Result<Vec<u8>> {
        let limit = Duration::from_secs(server.timeout_seconds);
        let advice = ": raise --timeout-seconds or use a shorter range";
        let server = Server::new(&server.server, "--server", &server.tls, limit, advice)?;
        client::run(async { Ok(server.get(self, MAX_ANSWER_BYTES).await?.to_vec()) })
    }

    /// Queries JSON of a known shape.
    pub(crate) fn ask_json<T: DeserializeOwned>(self, server: &ServerArgs) -> Result<T> {
        read(&self.ask(server)?)
    }
}

/// Parses a response. One without a required field is refused by the field's name, never filled in.
pub(crate) fn read<T: DeserializeOwned>(answer: &[u8]) -> Result<T> {
    serde_json::from_slice(answer).map_err(|error| match error.classify() {
        Category::Data => {
            anyhow!("unexpected response from the server: {error}: use the same version of `emberline` as the server")
        }
        Category::Io | Category::Syntax | Category::Eof => {
            anyhow!("the server's response is not JSON: {error}: is it an emberline server?")
        }
    })
}

/// Writes to standard output; the reader of a pipe may have closed it.
pub(crate) fn print(bytes: &[u8]) -> Result<std::process::ExitCode> {
    match std::io::Write::write_all(&mut std::io::stdout(), bytes) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error).context("cannot write the output"),
        _ => Ok(std::process::ExitCode::SUCCESS),
    }
}
