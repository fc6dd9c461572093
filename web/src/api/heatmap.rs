//! `/api/v1/heatmap`: totals over time. How many windows of processes had which total, step by step: it shows whether
//! an increase is everyone's or that of a few instances, which a sum does not.
//!
//! Guarantees: every window with selected samples is counted, once; the totals add up to `/api/v1/merge` for the same
//! query (for summed types). Buckets are the same for all queries, four per doubling; those between the lowest and the
//! highest in use are listed. Cells come as columns; empty ones are omitted.

use axum::extract::{RawQuery, State};
use emberline_storage::{HeatCell, HeatMapQuery, SelectedQuery};
use serde::Serialize;
use utoipa::ToSchema;

use super::merge::{Selection, SelectionQuery, check_type};
use crate::{
    answers::{json::Json, over_time},
    http::error::{ApiError, ErrorBody},
    query::params::{FROM, PROFILE_TYPE, Parameter, Params, SELECTOR, STEP, TO},
    state::Web,
};

pub(super) const PARAMETERS: &[Parameter] = &[SELECTOR, PROFILE_TYPE, FROM, TO, STEP];

/// Totals of windows over time.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HeatMap {
    query: SelectionQuery,
    /// Seconds of a step.
    step_s: u32,
    /// Lower bounds of the buckets, ascending, in the unit of the profile type; each bucket ends where the next
    /// begins.
    bounds: Vec<f64>,
    /// Windows counted.
    windows: u64,
    /// Sum of their totals.
    total: i64,
    /// Most windows in one cell.
    most: u64,
    /// Start of the step of each cell.
    at_ms: Vec<i64>,
    /// Its bucket, as an index into `bounds`.
    bucket: Vec<u32>,
    /// Its windows.
    count: Vec<u64>,
    /// Sum of their totals.
    value: Vec<i64>,
}

/// How the totals of windows of processes are spread, step by step.
#[utoipa::path(get, path = "/api/v1/heatmap", responses(
    (status = 200, body = HeatMap), (status = "default", body = ErrorBody),
))]
pub(crate) async fn heatmap(State(web): State<Web>, RawQuery(query): RawQuery) -> Result<Json<HeatMap>, ApiError> {
    let params = Params::read(query.as_deref(), PARAMETERS, web.clock.now_unix_ns())?;
    let selection = Selection::read(&web, &params).await?;
    let step_s = over_time::step(params.count(&STEP)?.map(|step| step as f64), selection.range)?;
    let cells = match &selection.filters {
        None => Vec::new(),
        Some(filters) => {
            let query = SelectedQuery {
                step_s,
                ..SelectedQuery::new(&selection.profile_type.0, filters.clone(), selection.range)
            };
            web.store.ask(HeatMapQuery { selected: query }).await?
        }
    };
    if cells.is_empty() {
        check_type(&web, &selection.profile_type, selection.range).await?;
    }
    let lowest = cells.iter().map(|cell| cell.bucket).min().unwrap_or(0);
    let highest = cells.iter().map(|cell| cell.bucket).max().unwrap_or(-1);
    Ok(Json(HeatMap {
        query: selection.query(),
        step_s,
        bounds: (lowest..=highest).map(HeatCell::lower_bound).collect(),
        windows: cells.iter().map(|cell| cell.windows).sum(),
        total: cells.iter().fold(0i64, |sum, cell| sum.saturating_add(cell.value)),
        most: cells.iter().map(|cell| cell.windows).max().unwrap_or(0),
        at_ms: cells.iter().map(|cell| cell.start_s * 1000).collect(),
        bucket: cells
            .iter()
            .map(|cell| u32::try_from(i32::from(cell.bucket) - i32::from(lowest)).unwrap_or(0))
            .collect(),
        count: cells.iter().map(|cell| cell.windows).collect(),
        value: cells.iter().map(|cell| cell.value).collect(),
    }))
}
