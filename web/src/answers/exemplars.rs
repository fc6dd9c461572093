//! Samples linked to a request, as the API selects them: by trace, by span and by a selector.
//!
//! Guarantees: identifiers are parsed strictly, so that a typo is refused and never selects nothing; the stacks of a
//! selection are complete, or the query is refused with what to do. Wrong on purpose: a window keeps a limited number
//! per series, so a tree of exemplars is a part of what a request used, not all of it.

use std::collections::BTreeMap;

use emberline_model::resolve::StackValue;
use emberline_storage::{ExemplarQuery, LabelFilter, Range, Store};
use http::StatusCode;

use crate::{
    answers::stacks::Stacks,
    http::error::{ApiError, shorten},
    query::params::id,
};

/// The most samples in one tree.
const MAX_IN_TREE: u32 = 50_000;

/// Requests whose samples are queried; all if both are empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Links {
    pub(crate) trace_ids: Vec<[u8; 16]>,
    pub(crate) span_ids: Vec<u64>,
}

impl Links {
    /// Parses identifiers, each with the name of its field or parameter.
    pub(crate) fn read<'a>(
        traces: (&str, impl Iterator<Item = &'a str>),
        spans: (&str, impl Iterator<Item = &'a str>),
    ) -> Result<Links, ApiError> {
        let mut links = Links::default();
        for text in traces.1 {
            let read = trace_id(text).ok_or_else(|| refuse(traces.0, text, 32))?;
            links.trace_ids.push(read);
        }
        for text in spans.1 {
            let read = id(text).filter(|&span| span != 0);
            links.span_ids.push(read.ok_or_else(|| refuse(spans.0, text, 16))?);
        }
        Ok(links)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.trace_ids.is_empty() && self.span_ids.is_empty()
    }
}

fn refuse(name: &str, text: &str, digits: usize) -> ApiError {
    let message = format!(
        "`{name}` contains `{}`: expected {digits} hexadecimal digits, not all zero",
        shorten(text)
    );
    ApiError::bad_request("bad_parameter", message)
}

fn trace_id(text: &str) -> Option<[u8; 16]> {
    let (high, low) = text.split_at_checked(16)?;
    let whole = (u128::from(id(high)?) << 64) | u128::from(id(low)?);
    (whole != 0).then(|| whole.to_be_bytes())
}

/// The query for the samples of some requests.
pub(crate) fn query(
    links: &Links,
    profile_type: &str,
    filters: Vec<LabelFilter>,
    range: Range,
    limit: u32,
) -> ExemplarQuery {
    ExemplarQuery {
        profile_type: Some(profile_type.to_owned()),
        filters,
        trace_ids: links.trace_ids.clone(),
        span_ids: links.span_ids.clone(),
        ..ExemplarQuery::new(range, limit)
    }
}

/// The stacks of the samples of some requests; `None` selects nothing.
pub(crate) async fn stacks(
    store: &Store,
    links: &Links,
    profile_type: &str,
    filters: Option<Vec<LabelFilter>>,
    range: Range,
) -> Result<Stacks, ApiError> {
    let Some(filters) = filters else {
        return Ok(Stacks::default());
    };
    let query = query(links, profile_type, filters, range, MAX_IN_TREE);
    let found = store.ask(query).await?;
    if found.found > u64::from(MAX_IN_TREE) {
        let message = format!(
            "{} samples match these traces and spans, but a tree holds {MAX_IN_TREE} at most: select fewer, or a shorter range",
            found.found
        );
        return Err(ApiError {
            status: StatusCode::UNPROCESSABLE_ENTITY,
            code: "query_too_large",
            message,
            retry: false,
        });
    }
    let mut sums: BTreeMap<u64, StackValue> = BTreeMap::new();
    for row in &found.rows {
        let sum = sums.entry(row.stack_id).or_insert(StackValue {
            stack_id: row.stack_id,
            side: 0,
            value: 0,
            samples: 0,
        });
        sum.value = sum.value.saturating_add(row.value);
        sum.samples += 1;
    }
    Stacks::named(store, sums.into_values().collect(), None).await
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(trace: &str, span: &str) -> Result<Links, ApiError> {
        Links::read(("trace_id", [trace].into_iter()), ("span_id", [span].into_iter()))
    }

    proptest! {
        #[test]
        fn identifiers_round_trip(trace in 1u128.., span in 1u64..) {
            let links = read(&format!("{trace:032x}"), &format!("{span:016X}")).unwrap();
            prop_assert_eq!(links, Links { trace_ids: vec![trace.to_be_bytes()], span_ids: vec![span] });
        }

        #[test]
        fn whatever_else_is_refused(text in "\\PC{0,40}") {
            let is = |digits| text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit()) && text.bytes().any(|b| b != b'0');
            prop_assert_eq!(read(&text, "1234567890abcdef").is_ok(), is(32));
            prop_assert_eq!(read(&"1".repeat(32), &text).is_ok(), is(16));
        }
    }

    #[test]
    fn zeros_name_no_request() {
        assert!(read(&"0".repeat(32), "1234567890abcdef").is_err());
        let error = read(&"1".repeat(32), &"0".repeat(16)).unwrap_err();
        assert!(error.message.contains("`span_id`"), "{}", error.message);
    }
}
