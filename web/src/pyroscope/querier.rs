//! The calls of `querier.v1.QuerierService`.

use std::collections::{BTreeMap, BTreeSet};

use emberline_model::{
    ProfileType,
    flamebearer::{Flamebearer, flamebearer},
    resolve::{ResolvedStacks, StackValue},
    tree::TreeBuilder,
};
use emberline_storage::{
    Label, ProfileTypesQuery, Range, SampleSeries, SampleSeriesQuery, ServicesQuery, WorkloadFilter,
};
use prost::Message;

use super::{
    connect::RpcError,
    proto::{pprof, querier as pb},
    times::range_ms,
};
use crate::{
    answers::{
        exemplars::{self, Links},
        over_time::{Aggregation, OverTime, Series, step},
        stacks::{Stacks, blocking},
    },
    exports,
    http::error::ApiError,
    query::selector::{Known, PROFILE_TYPE_LABEL, Selector, known, type_value},
    state::Web,
};

/// The default number of nodes in a flame graph.
const DEFAULT_NODES: i64 = 8192;
/// The most nodes in a flame graph.
const MAX_NODES: i64 = 1 << 20;
/// The most series in a response.
const MAX_SERIES: usize = 1000;

/// A label's name in this interface.
fn outer_name(label: Label) -> &'static str {
    match label {
        Label::Service => "service_name",
        other => other.name(),
    }
}

/// The value of a label by any of its names; empty for an unknown label.
fn value_of<'a>(series: &'a SampleSeries, name: &str) -> &'a str {
    match known(name) {
        Some(Known::Stored(label)) => series.label(label),
        Some(Known::Type(at)) => type_value(&series.profile_type, at),
        None => "",
    }
}

/// Series of a range that match one of the selectors; without a selector, all.
pub(super) async fn matching(web: &Web, matchers: &[String], range: Range) -> Result<Vec<SampleSeries>, ApiError> {
    let selectors: Vec<Selector> = matchers
        .iter()
        .map(|text| Selector::lenient(text))
        .collect::<Result<_, _>>()?;
    let mut series = web.store.ask(SampleSeriesQuery { range }).await?;
    series.retain(|one| selectors.is_empty() || selectors.iter().any(|selector| selector.selects(one)));
    Ok(series)
}

pub(super) async fn profile_types(web: &Web, q: pb::ProfileTypesRequest) -> Result<pb::ProfileTypesResponse, RpcError> {
    let types = web.store.ask(ProfileTypesQuery {
        who: WorkloadFilter::default(),
        range: range_ms(q.start, q.end)?,
    });
    let types = types.await.map_err(ApiError::from)?;
    let describe = |id: String| {
        let [name, sample_type, sample_unit, period_type, period_unit] = ProfileType::parts_of(&id).map(str::to_owned);
        pb::ProfileType {
            id,
            name,
            sample_type,
            sample_unit,
            period_type,
            period_unit,
        }
    };
    Ok(pb::ProfileTypesResponse {
        profile_types: types.into_iter().map(describe).collect(),
    })
}

pub(super) async fn label_names(web: &Web, q: pb::LabelNamesRequest) -> Result<pb::LabelNamesResponse, RpcError> {
    let series = matching(web, &q.matchers, range_ms(q.start, q.end)?).await?;
    let carried = Label::ALL
        .into_iter()
        .filter(|&label| series.iter().any(|one| !one.label(label).is_empty()));
    let mut names: BTreeSet<String> = carried.map(|label| outer_name(label).to_owned()).collect();
    if !series.is_empty() {
        names.insert(PROFILE_TYPE_LABEL.to_owned());
    }
    Ok(pb::LabelNamesResponse {
        names: names.into_iter().collect(),
    })
}

/// Non-empty values of a label.
pub(super) fn values(series: &[SampleSeries], name: &str) -> Vec<String> {
    let values: BTreeSet<&str> = series.iter().map(|one| value_of(one, name)).collect();
    let filled = values.into_iter().filter(|value| !value.is_empty());
    filled.map(str::to_owned).collect()
}

pub(super) async fn label_values(web: &Web, q: pb::LabelValuesRequest) -> Result<pb::LabelValuesResponse, RpcError> {
    let series = matching(web, &q.matchers, range_ms(q.start, q.end)?).await?;
    Ok(pb::LabelValuesResponse {
        names: values(&series, &q.name),
    })
}

pub(super) async fn series(web: &Web, q: pb::SeriesRequest) -> Result<pb::SeriesResponse, RpcError> {
    let series = matching(web, &q.matchers, range_ms(q.start, q.end)?).await?;
    let names: Vec<String> = match q.label_names.is_empty() {
        false => q.label_names,
        true => {
            let stored = Label::ALL.into_iter().map(|label| outer_name(label).to_owned());
            stored.chain([PROFILE_TYPE_LABEL.to_owned()]).collect()
        }
    };
    let rows: BTreeSet<Vec<(&str, &str)>> = series
        .iter()
        .map(|one| {
            let pairs = names.iter().map(|name| (name.as_str(), value_of(one, name)));
            pairs.filter(|(_, value)| !value.is_empty()).collect()
        })
        .collect();
    let labels_set = rows
        .into_iter()
        .filter(|row: &Vec<_>| !row.is_empty())
        .map(|row| pb::Labels {
            labels: row.into_iter().map(|(name, value)| pair(name, value)).collect(),
        });
    Ok(pb::SeriesResponse {
        labels_set: labels_set.collect(),
    })
}

fn pair(name: &str, value: &str) -> pb::LabelPair {
    pb::LabelPair {
        name: name.to_owned(),
        value: value.to_owned(),
    }
}

/// Stacks of one profile type that a selector matches; `shown` nodes of their tree will be shown.
pub(super) async fn stacks(
    web: &Web,
    profile_type: &str,
    selector: &str,
    range: Range,
    shown: Option<usize>,
) -> Result<Stacks, ApiError> {
    let selector = Selector::lenient(selector)?;
    let filters = selector.filters(&web.store, profile_type, range).await?;
    Stacks::selected(&web.store, profile_type, filters, range, shown).await
}

/// Keeps the stacks that begin with these functions, from the outermost.
fn keep_call_site(stacks: &mut Stacks, selector: Option<pb::StackTraceSelector>) {
    let site: Vec<String> = selector
        .map(|s| s.call_site.into_iter().map(|location| location.name).collect())
        .unwrap_or_default();
    let resolved: &ResolvedStacks = &stacks.resolved;
    let begins = |row: &StackValue| {
        let frames: Vec<u32> = resolved.frames(row.stack_id).collect();
        frames.len() >= site.len()
            && frames
                .iter()
                .rev()
                .zip(&site)
                .all(|(&f, name)| resolved.functions[f as usize].name == *name)
    };
    stacks.rows.retain(begins);
}

/// The display limit: 0 or missing means the default.
pub(super) fn node_limit(asked: Option<i64>) -> Result<usize, RpcError> {
    match asked.filter(|&nodes| nodes != 0).unwrap_or(DEFAULT_NODES) {
        nodes @ 1..=MAX_NODES => Ok(usize::try_from(nodes).expect("checked above")),
        other => Err(RpcError::invalid(format!(
            "`maxNodes` is {other}: use 1 to {MAX_NODES}"
        ))),
    }
}

fn no_profile_ids(ids: &[String]) -> Result<(), RpcError> {
    if ids.is_empty() {
        return Ok(());
    }
    Err(RpcError::unimplemented(
        "`profileIdSelector` is not supported, because the store keeps sums per window, route and release: remove it",
    ))
}

fn only_flame_graphs(format: i32) -> Result<(), RpcError> {
    match pb::ProfileFormat::try_from(format) {
        Ok(pb::ProfileFormat::Unspecified | pb::ProfileFormat::Flamegraph) => Ok(()),
        Ok(other) => Err(RpcError::unimplemented(format!(
            "`{}` is not supported: use PROFILE_FORMAT_FLAMEGRAPH, or SelectMergeProfile for pprof",
            other.as_str_name()
        ))),
        Err(_) => Err(RpcError::unimplemented(format!("unknown profile format {format}"))),
    }
}

fn levels(levels: Vec<Vec<i64>>) -> Vec<pb::Level> {
    levels.into_iter().map(|values| pb::Level { values }).collect()
}

fn flame_graph(graph: Flamebearer) -> pb::FlameGraph {
    pb::FlameGraph {
        names: graph.names,
        levels: levels(graph.levels),
        total: graph.total,
        max_self: graph.max_self,
    }
}

/// The stacks of one side of a query, selected by its fields; `shown` nodes of their tree will be shown.
async fn merged(web: &Web, q: pb::SelectMergeStacktracesRequest, shown: Option<usize>) -> Result<Stacks, RpcError> {
    only_flame_graphs(q.format)?;
    no_profile_ids(&q.profile_id_selector)?;
    let links = Links::read(
        ("traceIdSelector", q.trace_id_selector.iter().map(String::as_str)),
        ("spanSelector", q.span_selector.iter().map(String::as_str)),
    )?;
    let range = range_ms(q.start, q.end)?;
    let mut found = match links.is_empty() {
        true => stacks(web, &q.profile_type_id, &q.label_selector, range, shown).await?,
        false => {
            let selector = Selector::lenient(&q.label_selector)?;
            let filters = selector.filters(&web.store, &q.profile_type_id, range).await?;
            exemplars::stacks(&web.store, &links, &q.profile_type_id, filters, range).await?
        }
    };
    keep_call_site(&mut found, q.stack_trace_selector);
    Ok(found)
}

pub(super) async fn select_merge_stacktraces(
    web: &Web,
    q: pb::SelectMergeStacktracesRequest,
) -> Result<pb::SelectMergeStacktracesResponse, RpcError> {
    let limit = node_limit(q.max_nodes)?;
    let found = merged(web, q, Some(limit)).await?;
    let graph = blocking(move || flamebearer(&found.tree().finish(Some(limit)), false)).await?;
    Ok(pb::SelectMergeStacktracesResponse {
        flamegraph: Some(flame_graph(graph)),
    })
}

pub(super) async fn select_merge_span_profile(
    web: &Web,
    q: pb::SelectMergeSpanProfileRequest,
) -> Result<pb::SelectMergeSpanProfileResponse, RpcError> {
    let merge = pb::SelectMergeStacktracesRequest {
        profile_type_id: q.profile_type_id,
        label_selector: q.label_selector,
        start: q.start,
        end: q.end,
        max_nodes: q.max_nodes,
        format: q.format,
        span_selector: q.span_selector,
        ..pb::SelectMergeStacktracesRequest::default()
    };
    let answer = select_merge_stacktraces(web, merge).await?;
    Ok(pb::SelectMergeSpanProfileResponse {
        flamegraph: answer.flamegraph,
    })
}

pub(super) async fn select_merge_profile(
    web: &Web,
    q: pb::SelectMergeProfileRequest,
) -> Result<pprof::Profile, RpcError> {
    let range = range_ms(q.start, q.end)?;
    let profile_type = ProfileType(q.profile_type_id.clone());
    let found = merged(
        web,
        pb::SelectMergeStacktracesRequest {
            profile_type_id: q.profile_type_id,
            label_selector: q.label_selector,
            start: q.start,
            end: q.end,
            stack_trace_selector: q.stack_trace_selector,
            profile_id_selector: q.profile_id_selector,
            ..pb::SelectMergeStacktracesRequest::default()
        },
        None,
    )
    .await?;
    let written = blocking(move || -> Result<pprof::Profile, ApiError> {
        let file = exports::pprof::write(&found.tree().finish(None), &profile_type, range, false);
        let mut unpacked = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(file.as_slice()), &mut unpacked)
            .map_err(|error| ApiError::internal(format!("cannot decompress the profile: {error}")))?;
        pprof::Profile::decode(unpacked.as_slice())
            .map_err(|error| ApiError::internal(format!("cannot read the profile back: {error}")))
    });
    Ok(written.await??)
}

/// Series by names of labels; unknown names group nothing.
pub(super) async fn over_time(
    web: &Web,
    profile_type: &str,
    selector: &str,
    group_by: &[String],
    step_s: u32,
    aggregation: Aggregation,
    range: Range,
) -> Result<Vec<Series>, ApiError> {
    let selector = Selector::lenient(selector)?;
    let stored = group_by.iter().filter_map(|name| match known(name) {
        Some(Known::Stored(label)) => Some(label),
        _ => None,
    });
    let asked = OverTime {
        profile_type: profile_type.to_owned(),
        filters: selector.filters(&web.store, profile_type, range).await?,
        by: stored.collect(),
        step_s,
        aggregation,
        range,
    };
    asked.fetch(&web.store).await
}

/// Labels of a series with this interface's names: those requested, without empty ones.
fn labels_of(series: &Series, group_by: &[String], profile_type: &str) -> Vec<pb::LabelPair> {
    let mut values = series.labels.iter();
    let mut labels = BTreeMap::new();
    for name in group_by {
        let value = match known(name) {
            Some(Known::Stored(_)) => values.next().map_or("", String::as_str),
            Some(Known::Type(at)) => type_value(profile_type, at),
            None => "",
        };
        if !value.is_empty() {
            labels.insert(name.as_str(), value);
        }
    }
    labels.into_iter().map(|(name, value)| pair(name, value)).collect()
}

pub(super) async fn select_series(web: &Web, q: pb::SelectSeriesRequest) -> Result<pb::SelectSeriesResponse, RpcError> {
    if q.stack_trace_selector.as_ref().is_some_and(|s| !s.call_site.is_empty()) {
        let message = "`stackTraceSelector` is not supported for series: remove it, or use SelectMergeStacktraces";
        return Err(RpcError::unimplemented(message));
    }
    let range = range_ms(q.start, q.end)?;
    let step_s = step(Some(q.step).filter(|step| step.is_finite()), range)?;
    let aggregation = match q.aggregation {
        Some(1) => Aggregation::Average,
        Some(0) => Aggregation::Sum,
        None => Aggregation::of(&ProfileType(q.profile_type_id.clone())),
        Some(other) => return Err(RpcError::invalid(format!("unknown aggregation {other}"))),
    };
    let all = over_time(
        web,
        &q.profile_type_id,
        &q.label_selector,
        &q.group_by,
        step_s,
        aggregation,
        range,
    )
    .await?;
    let limit = q
        .limit
        .and_then(|limit| usize::try_from(limit).ok())
        .filter(|&limit| limit > 0);
    let series = all
        .iter()
        .take(limit.unwrap_or(MAX_SERIES).min(MAX_SERIES))
        .map(|series| pb::TimeSeries {
            labels: labels_of(series, &q.group_by, &q.profile_type_id),
            points: series
                .points
                .iter()
                .map(|point| pb::Point {
                    value: point.value,
                    timestamp: point.start_s * 1000,
                })
                .collect(),
        });
    Ok(pb::SelectSeriesResponse {
        series: series.collect(),
    })
}

/// The tree of two selections.
pub(super) fn tree_of_both(left: &Stacks, right: &Stacks, limit: usize) -> Flamebearer {
    let mut tree = TreeBuilder::new();
    left.add_to(&mut tree, 0);
    right.add_to(&mut tree, 1);
    flamebearer(&tree.finish(Some(limit)), true)
}

pub(super) async fn diff(web: &Web, q: pb::DiffRequest) -> Result<pb::DiffResponse, RpcError> {
    let (Some(left), Some(right)) = (q.left, q.right) else {
        return Err(RpcError::invalid("`left` and `right` must both be set"));
    };
    if left.profile_type_id != right.profile_type_id {
        return Err(RpcError::invalid("`left` and `right` must have the same profile type"));
    }
    let limit = node_limit(left.max_nodes)?.max(node_limit(right.max_nodes)?);
    let (left, right) = tokio::try_join!(merged(web, left, Some(limit)), merged(web, right, Some(limit)))?;
    let graph = blocking(move || tree_of_both(&left, &right, limit)).await?;
    Ok(pb::DiffResponse {
        flamegraph: Some(pb::FlameGraphDiff {
            left_ticks: graph.ticks[0],
            right_ticks: graph.ticks[1],
            names: graph.names,
            levels: levels(graph.levels),
            total: graph.total,
            max_self: graph.max_self,
        }),
    })
}

pub(super) async fn get_profile_stats(
    web: &Web,
    _: pb::GetProfileStatsRequest,
) -> Result<pb::GetProfileStatsResponse, RpcError> {
    let services = web
        .store
        .ask(ServicesQuery::new(Range::ALL))
        .await
        .map_err(ApiError::from)?;
    let releases = || services.services.iter().flat_map(|service| &service.releases);
    let oldest_s = releases().map(|release| release.first_window_s).min();
    let newest_s = releases().map(|release| release.last_seen_s).max();
    Ok(pb::GetProfileStatsResponse {
        data_ingested: oldest_s.is_some(),
        oldest_profile_time: oldest_s.unwrap_or_default() * 1000,
        newest_profile_time: newest_s.unwrap_or_default() * 1000,
    })
}
