//! What each service served, across routes, callers and releases.
//!
//! Guarantee: memory grows with the number of services, not with their routes, callers and releases, as it does for
//! rows of [`RequestQuery`].

use std::collections::BTreeMap;

use emberline_model::{Histogram, Side};

use crate::{
    questions::{
        Question, View,
        requests::{self, RequestQuery},
        selection::WorkloadFilter,
    },
    range::Range,
    readers::Failure,
};

/// Memory of a service with its names, here and in an answer, in bytes. Its buckets are counted as they come.
const SERVICE_BYTES: usize = 768;

/// Requests that each service served in a range, counted as for [`RequestQuery`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServedQuery {
    /// Who served them.
    pub who: WorkloadFilter,
    /// When.
    pub range: Range,
}

/// What a service served.
#[derive(Debug, Clone, PartialEq)]
pub struct ServedRow {
    /// Namespace.
    pub namespace: String,
    /// Service name.
    pub service: String,
    /// Requests that failed.
    pub errors: u64,
    /// Requests that their callers gave up on; not among the latencies.
    pub given_up: u64,
    /// Latencies of all other requests, in seconds.
    pub latency: Histogram,
}

#[derive(Default)]
struct Sums {
    errors: u64,
    given_up: u64,
    latency: Histogram,
}

impl Question for ServedQuery {
    type Answer = Vec<ServedRow>;

    fn range(&self) -> Range {
        self.range
    }

    fn run(&self, view: &View<'_>) -> Result<Vec<ServedRow>, Failure> {
        if view.span.is_empty() {
            return Ok(Vec::new());
        }
        let (reader, span) = (view.reader, view.span);
        let served = RequestQuery {
            side: Some(Side::Server),
            ..RequestQuery::new(self.who.clone(), self.range)
        };
        let mut services: BTreeMap<String, BTreeMap<String, Sums>> = BTreeMap::new();
        requests::each(reader, span, &served, None, |columns, row, _| {
            let (namespaces, names) = (columns.text(1)?, columns.text(2)?);
            let namespace = namespaces.get(row).unwrap_or_default();
            let name = names.get(row).unwrap_or_default();
            if !services.get(namespace).is_some_and(|named| named.contains_key(name)) {
                reader.hold(SERVICE_BYTES)?;
                let named = services.entry(namespace.to_owned()).or_default();
                named.insert(name.to_owned(), Sums::default());
            }
            let Some(sums) = services.get_mut(namespace).and_then(|named| named.get_mut(name)) else {
                return Ok(());
            };
            let count = requests::count(columns, row)?;
            if columns.flag(14)?.value(row) {
                sums.errors = sums.errors.saturating_add(count);
            }
            if requests::given_up(columns, row)? {
                sums.given_up = sums.given_up.saturating_add(count);
                return Ok(());
            }
            let before = sums.latency.buckets().len();
            sums.latency.merge(&requests::duration(columns, row)?);
            // A vector grows by doubling.
            let more = sums.latency.buckets().len().saturating_sub(before);
            reader.hold(2 * size_of::<(i16, u64)>() * more)
        })?;
        let rows = services.into_iter().flat_map(|(namespace, named)| {
            named.into_iter().map(move |(service, sums)| ServedRow {
                namespace: namespace.clone(),
                service,
                errors: sums.errors,
                given_up: sums.given_up,
                latency: sums.latency,
            })
        });
        Ok(rows.collect())
    }
}
