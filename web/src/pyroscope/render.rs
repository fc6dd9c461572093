//! `/pyroscope/render`, `/pyroscope/render-diff` and `/pyroscope/label-values`: the older interface, GET with JSON.
//!
//! Wrong on purpose: `format=dot` is refused, heat maps and watermarks are always null, and unknown parameters are
//! ignored, since older clients send many.

use std::collections::HashMap;

use axum::extract::{Query, State};
use emberline_model::{
    ProfileType,
    flamebearer::{Flamebearer, flamebearer},
};
use emberline_storage::Range;
use http::StatusCode;
use serde_json::{Value, json};

use super::{
    querier::{matching, node_limit, over_time, stacks, tree_of_both, values},
    times,
};
use crate::{
    answers::{
        json::Json,
        over_time::{Aggregation, Series, step},
        stacks::blocking,
    },
    http::error::ApiError,
    query::selector::Selector,
    state::Web,
};

type Given = Query<HashMap<String, String>>;

/// The range from two parameters; default: the last hour.
fn range(web: &Web, given: &Given, from: &str, until: &str) -> Result<Range, ApiError> {
    let now = web.clock.now_unix_ns();
    let read = |name: &str, default: &str| {
        let text = given.get(name).map_or("", String::as_str);
        times::parse(name, if text.is_empty() { default } else { text }, now)
    };
    times::range_s(read(from, "now-1h")?, read(until, "now")?)
}

/// The profile type and the selector of a query `<type>{...}`.
fn query<'a>(given: &'a Given, name: &str) -> Result<(String, &'a str), ApiError> {
    let text = given.get(name).map_or("", String::as_str);
    match Selector::lenient(text)?.profile_type {
        Some(profile_type) => Ok((profile_type, text)),
        None => {
            let message = format!(
                "`{name}` must begin with a profile type, for example `{}{{}}`",
                ProfileType::CPU
            );
            Err(ApiError::bad_request("bad_parameter", message))
        }
    }
}

fn limit(given: &Given) -> Result<usize, ApiError> {
    let Some(text) = given.get("maxNodes").or_else(|| given.get("max-nodes")) else {
        return node_limit(None).map_err(ApiError::from);
    };
    match text.parse::<i64>() {
        Ok(nodes) => node_limit(Some(nodes)).map_err(ApiError::from),
        Err(_) => Err(ApiError::bad_request("bad_parameter", "`maxNodes` is not an integer")),
    }
}

fn only_json(given: &Given) -> Result<(), ApiError> {
    match given.get("format").map_or("json", String::as_str) {
        "json" | "" => Ok(()),
        _ => Err(ApiError {
            status: StatusCode::NOT_IMPLEMENTED,
            code: "unknown_format",
            message: "`format` must be json; use /api/v1/merge for pprof, folded stacks, SVG and others".to_owned(),
            retry: false,
        }),
    }
}

/// A graph with its metadata.
fn described(graph: &Flamebearer, profile_type: &str, double: bool) -> Value {
    let parts = ProfileType::parts_of(profile_type);
    let (units, rate) = match parts[2] {
        "nanoseconds" => ("samples", 1_000_000_000),
        "bytes" => ("bytes", 100),
        _ => ("objects", 100),
    };
    json!({
        "version": 1,
        "flamebearer": {
            "names": graph.names, "levels": graph.levels, "numTicks": graph.total, "maxSelf": graph.max_self,
        },
        "metadata": {
            "format": if double { "double" } else { "single" },
            "spyName": "emberline", "sampleRate": rate, "units": units, "name": parts[1],
        },
        "timeline": null, "groups": null, "heatmap": null,
        "leftTicks": if double { graph.ticks[0] } else { 0 },
        "rightTicks": if double { graph.ticks[1] } else { 0 },
    })
}

/// Sums per step, with zeros for steps without reports.
fn timeline(series: Option<&Series>, step_s: u32, range: Range, aggregation: Aggregation) -> Value {
    let step = i64::from(step_s);
    let points = series.map(|series| series.points.as_slice()).unwrap_or_default();
    let first = points.first().map_or(range.from_unix_s, |point| point.start_s);
    let last = points.last().map_or(first, |point| point.start_s);
    let length = usize::try_from((last - first) / step + 1).unwrap_or_default();
    let mut samples = vec![0i64; length];
    for point in points {
        let at = usize::try_from((point.start_s - first) / step).unwrap_or_default();
        samples[at] = match aggregation {
            Aggregation::Sum => point.sum,
            Aggregation::Average => point.value as i64,
        };
    }
    json!({ "startTime": first, "samples": samples, "durationDelta": step, "watermarks": null })
}

/// One profile with its timeline.
pub(super) async fn render(State(web): State<Web>, given: Given) -> Result<Json<Value>, ApiError> {
    only_json(&given)?;
    let (profile_type, selector) = query(&given, "query")?;
    let range = range(&web, &given, "from", "until")?;
    let limit = limit(&given)?;
    let step_s = step(None, range)?;
    let aggregation = match given.get("aggregation").map_or("", String::as_str) {
        "" => Aggregation::of(&ProfileType(profile_type.clone())),
        "sum" => Aggregation::Sum,
        "avg" => Aggregation::Average,
        _ => {
            return Err(ApiError::bad_request(
                "bad_parameter",
                "`aggregation` must be `sum` or `avg`",
            ));
        }
    };
    let line = |by: &'static [String]| over_time(&web, &profile_type, selector, by, step_s, aggregation, range);
    let (found, all) = tokio::try_join!(stacks(&web, &profile_type, selector, range, Some(limit)), line(&[]))?;
    let graph = blocking(move || flamebearer(&found.tree().finish(Some(limit)), false)).await?;
    let mut answer = described(&graph, &profile_type, false);
    answer["timeline"] = timeline(all.first(), step_s, range, aggregation);
    // Only the first label counts.
    let group_by = given.get("groupBy").map_or("", String::as_str);
    let first = group_by.split(',').next().unwrap_or_default().trim();
    if !first.is_empty() {
        let by = [first.to_owned()];
        let groups = over_time(&web, &profile_type, selector, &by, step_s, aggregation, range).await?;
        let groups = groups.iter().map(|series| {
            let name = series.labels.first().cloned().unwrap_or_default();
            (name, timeline(Some(series), step_s, range, aggregation))
        });
        answer["groups"] = Value::Object(groups.collect());
    }
    Ok(Json(answer))
}

/// Two profiles in one graph.
pub(super) async fn render_diff(State(web): State<Web>, given: Given) -> Result<Json<Value>, ApiError> {
    only_json(&given)?;
    let (left_type, left) = query(&given, "leftQuery")?;
    let (right_type, right) = query(&given, "rightQuery")?;
    if left_type != right_type {
        let message = "`leftQuery` and `rightQuery` must have the same profile type";
        return Err(ApiError::bad_request("bad_parameter", message));
    }
    let left_range = range(&web, &given, "leftFrom", "leftUntil")?;
    let right_range = range(&web, &given, "rightFrom", "rightUntil")?;
    let limit = limit(&given)?;
    let (left, right) = tokio::try_join!(
        stacks(&web, &left_type, left, left_range, Some(limit)),
        stacks(&web, &left_type, right, right_range, Some(limit))
    )?;
    let graph = blocking(move || tree_of_both(&left, &right, limit)).await?;
    Ok(Json(described(&graph, &left_type, true)))
}

/// Values of a label.
pub(super) async fn label_values(State(web): State<Web>, given: Given) -> Result<Json<Vec<String>>, ApiError> {
    let Some(label) = given.get("label").filter(|label| !label.is_empty()) else {
        return Err(ApiError::bad_request(
            "missing_parameter",
            "missing `label`: pass a label name",
        ));
    };
    let matchers: Vec<String> = given
        .get("query")
        .filter(|text| !text.is_empty())
        .cloned()
        .into_iter()
        .collect();
    let range = range(&web, &given, "from", "until")?;
    Ok(Json(values(&matching(&web, &matchers, range).await?, label)))
}
