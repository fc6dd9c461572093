//! `/api/v1/labels`, `/api/v1/label_values` and `/api/v1/profile_types`: what can be selected by.
//!
//! Guarantee: only what samples in the range (and in the selector) actually have is listed; a label is listed if a
//! sample has a non-empty value for it.

use std::collections::BTreeMap;

use axum::extract::{RawQuery, State};
use emberline_model::ProfileType;
use emberline_storage::{Label, SampleSeries, SampleSeriesQuery};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    answers::json::Json,
    http::error::{ApiError, ErrorBody},
    query::{
        params::{FROM, LABEL, Parameter, Params, SELECTOR, TO},
        selector::{self, Known, Selector},
    },
    state::Web,
};

pub(super) const PARAMETERS: &[Parameter] = &[SELECTOR, FROM, TO];
pub(super) const VALUES_PARAMETERS: &[Parameter] = &[LABEL, SELECTOR, FROM, TO];

/// Labels that samples carry.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LabelNames {
    /// By name.
    labels: Vec<LabelName>,
}

/// One label.
#[derive(Debug, Serialize, ToSchema)]
struct LabelName {
    name: String,
    /// Number of distinct values.
    values: u64,
}

/// Values of a label.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LabelValues {
    label: String,
    /// By value; empty for samples without the label.
    values: Vec<LabelValue>,
}

/// One value of a label.
#[derive(Debug, Serialize, ToSchema)]
struct LabelValue {
    value: String,
    /// Samples taken.
    samples: u64,
    /// Series: combinations of labels and profile type.
    series: u64,
}

/// Profile types.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProfileTypes {
    /// By id.
    profile_types: Vec<ProfileTypeInfo>,
}

/// One profile type.
#[derive(Debug, Serialize, ToSchema)]
struct ProfileTypeInfo {
    /// `name:sample_type:unit:period_type:period_unit`.
    id: String,
    name: String,
    sample_type: String,
    unit: String,
    period_type: String,
    period_unit: String,
    samples: u64,
    series: u64,
}

async fn selected(web: &Web, params: &Params) -> Result<Vec<SampleSeries>, ApiError> {
    let selector = Selector::strict(params.text(&SELECTOR).unwrap_or_default())?;
    let mut series = web
        .store
        .ask(SampleSeriesQuery {
            range: params.shared_range()?,
        })
        .await?;
    series.retain(|one| selector.selects(one));
    Ok(series)
}

/// Samples and series per value.
fn counts<'a>(
    series: &'a [SampleSeries],
    value: impl Fn(&'a SampleSeries) -> &'a str,
) -> BTreeMap<&'a str, (u64, u64)> {
    let mut counts: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for one in series {
        let (samples, count) = counts.entry(value(one)).or_default();
        *samples = samples.saturating_add(one.samples);
        *count += 1;
    }
    counts
}

/// Which labels samples carry.
#[utoipa::path(get, path = "/api/v1/labels", responses(
    (status = 200, body = LabelNames), (status = "default", body = ErrorBody),
))]
pub(crate) async fn labels(State(web): State<Web>, RawQuery(query): RawQuery) -> Result<Json<LabelNames>, ApiError> {
    let params = Params::read(query.as_deref(), PARAMETERS, web.clock.now_unix_ns())?;
    let series = selected(&web, &params).await?;
    let mut labels: Vec<LabelName> = Label::ALL
        .iter()
        .map(|&label| {
            let values = counts(&series, |one| one.label(label));
            LabelName {
                name: label.name().to_owned(),
                values: values.keys().filter(|value| !value.is_empty()).count() as u64,
            }
        })
        .filter(|label| label.values > 0)
        .collect();
    labels.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Json(LabelNames { labels }))
}

/// Values of one label.
#[utoipa::path(get, path = "/api/v1/label_values", responses(
    (status = 200, body = LabelValues), (status = "default", body = ErrorBody),
))]
pub(crate) async fn label_values(
    State(web): State<Web>,
    RawQuery(query): RawQuery,
) -> Result<Json<LabelValues>, ApiError> {
    let params = Params::read(query.as_deref(), VALUES_PARAMETERS, web.clock.now_unix_ns())?;
    let label = params.text(&LABEL).unwrap_or_default();
    let known = selector::known(label).ok_or_else(|| selector::unknown_label(label))?;
    let series = selected(&web, &params).await?;
    let values = counts(&series, |one| match known {
        Known::Stored(label) => one.label(label),
        Known::Type(at) => selector::type_value(&one.profile_type, at),
    });
    let values = values.into_iter().map(|(value, (samples, series))| LabelValue {
        value: value.to_owned(),
        samples,
        series,
    });
    Ok(Json(LabelValues {
        label: label.to_owned(),
        values: values.collect(),
    }))
}

/// Profile types that samples have.
#[utoipa::path(get, path = "/api/v1/profile_types", responses(
    (status = 200, body = ProfileTypes), (status = "default", body = ErrorBody),
))]
pub(crate) async fn profile_types(
    State(web): State<Web>,
    RawQuery(query): RawQuery,
) -> Result<Json<ProfileTypes>, ApiError> {
    let params = Params::read(query.as_deref(), PARAMETERS, web.clock.now_unix_ns())?;
    let series = selected(&web, &params).await?;
    let types = counts(&series, |one| &one.profile_type);
    let types = types.into_iter().map(|(id, (samples, series))| {
        let [name, sample_type, unit, period_type, period_unit] = ProfileType::parts_of(id).map(str::to_owned);
        ProfileTypeInfo {
            id: id.to_owned(),
            name,
            sample_type,
            unit,
            period_type,
            period_unit,
            samples,
            series,
        }
    });
    Ok(Json(ProfileTypes {
        profile_types: types.collect(),
    }))
}
