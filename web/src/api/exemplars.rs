//! `/api/v1/exemplars`: individual samples linked to a request, by trace, by span, or by a selector.
//!
//! Guarantees: `found` and `value` are exact at any `exemplars_limit`; what exceeded a window's limit is in `cut`, so
//! that nobody mistakes the samples kept for all of them. Stacks and functions are written once and referred to by
//! index.

use std::collections::HashMap;

use axum::extract::{RawQuery, State};
use emberline_model::{Side, resolve::ResolvedStacks};
use emberline_storage::Exemplars as Found;
use serde::Serialize;
use utoipa::ToSchema;

use super::merge::{Selection, SelectionQuery, check_type};
use crate::{
    answers::{
        exemplars::{Links, query},
        json::Json,
        stacks::blocking,
    },
    http::error::{ApiError, ErrorBody},
    query::params::{EXEMPLARS_LIMIT, FROM, PROFILE_TYPE, Parameter, Params, SELECTOR, SPAN_ID, TO, TRACE_ID},
    state::Web,
};

pub(super) const PARAMETERS: &[Parameter] = &[TRACE_ID, SPAN_ID, SELECTOR, PROFILE_TYPE, FROM, TO, EXEMPLARS_LIMIT];

/// The default number of samples.
const DEFAULT_LIMIT: usize = 100;
/// The most samples.
const MAX_LIMIT: usize = 10_000;

/// Samples of requests.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Exemplars {
    query: SelectionQuery,
    /// Number of matching samples, without the limit.
    found: u64,
    /// Sum of the values of all of them.
    value: i64,
    /// Number of further samples of the selected series in the range that were not kept, of any trace or span.
    cut: u64,
    /// Oldest first.
    exemplars: Vec<ExemplarSample>,
    /// Stacks, leaf first, as indices into `functions`. Empty if the stack is no longer known.
    stacks: Vec<Vec<u32>>,
    /// Functions of the stacks.
    functions: Vec<ExemplarFunction>,
}

/// One sample.
#[derive(Debug, Serialize, ToSchema)]
struct ExemplarSample {
    /// Time of the sample, or the start of its profile if the sender did not say.
    at_ms: i64,
    /// The same in nanoseconds since the Unix epoch, as text, because JSON numbers have too few digits.
    at_unix_ns: String,
    namespace: String,
    service: String,
    version: String,
    instance: String,
    /// `application` or `proxy`.
    component: String,
    /// `server` or `client`; null for samples without a side.
    side: Option<String>,
    /// Empty for samples without a route.
    route: String,
    /// 32 hexadecimal digits; null when only the span is known.
    trace_id: Option<String>,
    /// 16 hexadecimal digits; null when only the trace is known.
    span_id: Option<String>,
    /// In the unit of the profile type.
    value: i64,
    /// Index into `stacks`.
    stack: u32,
}

/// A function of a stack.
#[derive(Debug, Serialize, ToSchema)]
struct ExemplarFunction {
    /// 16 hexadecimal digits.
    id: String,
    name: String,
    module: String,
}

/// Samples one by one with the trace and span they worked for.
#[utoipa::path(get, path = "/api/v1/exemplars", responses(
    (status = 200, body = Exemplars), (status = "default", body = ErrorBody),
))]
pub(crate) async fn exemplars(State(web): State<Web>, RawQuery(text): RawQuery) -> Result<Json<Exemplars>, ApiError> {
    let params = Params::read(text.as_deref(), PARAMETERS, web.clock.now_unix_ns())?;
    let limit = match params.count(&EXEMPLARS_LIMIT)?.unwrap_or(DEFAULT_LIMIT) {
        limit @ 1..=MAX_LIMIT => limit,
        other => {
            let message = format!("`{}={other}`: use 1 to {MAX_LIMIT}", EXEMPLARS_LIMIT.name);
            return Err(ApiError::bad_request("bad_parameter", message));
        }
    };
    let each = |parameter| params.text(parameter).into_iter().flat_map(|text| text.split(','));
    let links = Links::read((TRACE_ID.name, each(&TRACE_ID)), (SPAN_ID.name, each(&SPAN_ID)))?;
    let selection = Selection::read(&web, &params).await?;
    let found = match &selection.filters {
        None => Found::default(),
        Some(filters) => {
            let (profile_type, range) = (&selection.profile_type.0, selection.range);
            let query = query(&links, profile_type, filters.clone(), range, limit as u32);
            web.store.ask(query).await?
        }
    };
    if found.rows.is_empty() {
        check_type(&web, &selection.profile_type, selection.range).await?;
    }
    let ids: Vec<u64> = found.rows.iter().map(|row| row.stack_id).collect();
    let resolved = web.store.resolve(&ids).await?;
    let query = selection.query();
    Ok(Json(blocking(move || describe(query, found, &resolved)).await?))
}

fn describe(query: SelectionQuery, found: Found, resolved: &ResolvedStacks) -> Exemplars {
    let mut answer = Exemplars {
        query,
        found: found.found,
        value: found.value,
        cut: found.cut,
        exemplars: Vec::with_capacity(found.rows.len()),
        stacks: Vec::new(),
        functions: Vec::new(),
    };
    let (mut stack_index, mut function_index) = (HashMap::new(), HashMap::new());
    for row in found.rows {
        let stack = *stack_index.entry(row.stack_id).or_insert_with(|| {
            let frames = resolved.frames(row.stack_id).map(|function| {
                *function_index.entry(function).or_insert_with(|| {
                    let info = &resolved.functions[function as usize];
                    answer.functions.push(ExemplarFunction {
                        id: format!("{:016x}", info.id),
                        name: info.name.clone(),
                        module: info.module.clone(),
                    });
                    answer.functions.len() as u32 - 1
                })
            });
            answer.stacks.push(frames.collect());
            answer.stacks.len() as u32 - 1
        });
        let trace = u128::from_be_bytes(row.trace_id);
        answer.exemplars.push(ExemplarSample {
            at_ms: row.unix_ns.div_euclid(1_000_000),
            at_unix_ns: row.unix_ns.to_string(),
            namespace: row.workload.namespace,
            service: row.workload.service,
            version: row.workload.version,
            instance: row.workload.instance,
            component: row.component.as_str().to_owned(),
            side: row.side.map(|side: Side| side.as_str().to_owned()),
            route: row.route,
            trace_id: (trace != 0).then(|| format!("{trace:032x}")),
            span_id: (row.span_id != 0).then(|| format!("{:016x}", row.span_id)),
            value: row.value,
            stack,
        });
    }
    answer
}
