//! `/api/v1/series`: a profile type over time, one series per combination of the requested labels.
//!
//! Guarantees: the points of all series, including omitted ones, add up to `/api/v1/merge` for the same query (for
//! `sum`); a step in which nothing was reported has no point. The number of points and of series is bounded.

use axum::extract::{RawQuery, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::merge::{Selection, SelectionQuery, check_type};
use crate::{
    answers::{
        json::Json,
        over_time::{self, Aggregation, OverTime, Series},
    },
    http::error::{ApiError, ErrorBody},
    query::{
        params::{AGGREGATION, FROM, GROUP_BY, PROFILE_TYPE, Parameter, Params, SELECTOR, SERIES_LIMIT, STEP, TO},
        selector::{self, Known},
    },
    state::Web,
};

pub(super) const PARAMETERS: &[Parameter] = &[
    SELECTOR,
    PROFILE_TYPE,
    FROM,
    TO,
    STEP,
    GROUP_BY,
    AGGREGATION,
    SERIES_LIMIT,
];

/// The default and the maximum number of series.
const SERIES: (usize, usize) = (100, 1000);

/// A profile type over time.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct SeriesAnswer {
    /// The query.
    pub query: SelectionQuery,
    /// Seconds per point.
    pub step_s: u32,
    /// `sum` or `average`.
    pub aggregation: String,
    /// Labels that series are grouped by.
    pub group_by: Vec<String>,
    /// Largest first.
    pub series: Vec<OneSeries>,
    /// Series omitted by `series_limit`.
    pub series_cut: SeriesCut,
}

/// One series.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct OneSeries {
    /// Values of the labels of `group_by`, in that order.
    pub labels: Vec<String>,
    /// Sum of all values for any aggregation; for an averaged gauge, the mean of `values`.
    pub total: i64,
    /// Stack samples taken.
    pub samples: u64,
    /// Starts of steps, parallel to `values`.
    pub at_ms: Vec<i64>,
    /// A value per step.
    pub values: Vec<f64>,
}

/// Omitted series.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct SeriesCut {
    /// Series.
    pub count: u64,
    /// Sum of all their values.
    pub total: i64,
}

impl From<Series> for OneSeries {
    fn from(series: Series) -> OneSeries {
        OneSeries {
            total: series.total,
            samples: series.samples,
            at_ms: series.points.iter().map(|p| p.start_s * 1000).collect(),
            values: series.points.iter().map(|p| p.value).collect(),
            labels: series.labels,
        }
    }
}

/// A profile type over time, grouped by labels.
#[utoipa::path(get, path = "/api/v1/series", responses(
    (status = 200, body = SeriesAnswer), (status = "default", body = ErrorBody),
))]
pub(crate) async fn series(State(web): State<Web>, RawQuery(query): RawQuery) -> Result<Json<SeriesAnswer>, ApiError> {
    let params = Params::read(query.as_deref(), PARAMETERS, web.clock.now_unix_ns())?;
    let limit = params.count(&SERIES_LIMIT)?.unwrap_or(SERIES.0).min(SERIES.1);
    let group_by: Vec<String> = params
        .text(&GROUP_BY)
        .map(|text| text.split(',').map(|name| name.trim().to_owned()).collect())
        .unwrap_or_default();
    let mut by = Vec::new();
    for name in &group_by {
        match selector::known(name) {
            Some(Known::Stored(label)) => by.push(label),
            Some(Known::Type(_)) => {
                let message = format!("`group_by={name}`: a query covers one profile type; set it with `profile_type`");
                return Err(ApiError::bad_request("bad_parameter", message));
            }
            None => return Err(selector::unknown_label(name)),
        }
    }
    let selection = Selection::read(&web, &params).await?;
    let step_s = over_time::step(params.count(&STEP)?.map(|step| step as f64), selection.range)?;
    let aggregation = match params.text(&AGGREGATION) {
        Some("average") => Aggregation::Average,
        Some(_) => Aggregation::Sum,
        None => Aggregation::of(&selection.profile_type),
    };
    let asked = OverTime {
        profile_type: selection.profile_type.0.clone(),
        filters: selection.filters.clone(),
        by,
        step_s,
        aggregation,
        range: selection.range,
    };
    let mut all = asked.fetch(&web.store).await?;
    if all.is_empty() {
        check_type(&web, &selection.profile_type, selection.range).await?;
    }
    let cut = all.split_off(limit.min(all.len()));
    Ok(Json(SeriesAnswer {
        query: selection.query(),
        step_s,
        aggregation: aggregation.as_str().to_owned(),
        group_by,
        series: all.into_iter().map(OneSeries::from).collect(),
        series_cut: SeriesCut {
            count: cut.len() as u64,
            total: cut.iter().fold(0i64, |sum, series| sum.saturating_add(series.total)),
        },
    }))
}
