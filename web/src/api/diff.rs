//! `/api/v1/diff`: what changed between two releases, per request.
//!
//! Guarantees: the self values of `functions` add up to each side's `total` at every `limit`, and the table is
//! the same at every `limit`; `per` changes divisors and never raw values; exports are written from the uncut tree.

use std::collections::HashMap;

use axum::{
    extract::{RawQuery, State},
    response::Response,
};
use emberline_analysis::compare::{Comparison, format_amount};
use emberline_model::{
    ProfileType,
    comparison::{CostChange, FunctionRow, Judgement, LatencyEvidence, Per, SideSummary},
    id::HexId,
};
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::comparison::Question;
use crate::{
    answers::{
        stacks::blocking,
        tree_columns::{DiffTree, Shown},
    },
    exports::{self, Format, Labels},
    http::error::{ApiError, ErrorBody},
    query::params::{
        BASELINE, BASELINE_FROM, BASELINE_TO, CANDIDATE, CANDIDATE_FROM, CANDIDATE_TO, COMPONENT, FORMAT, FROM,
        FUNCTIONS_LIMIT, LIMIT, NAMESPACE, NODE, PER, PROFILE_TYPE, Parameter, ROUTE, SERVICE, SIDE, TO,
    },
    state::Web,
};

pub(super) const PARAMETERS: &[Parameter] = &[
    SERVICE,
    NAMESPACE,
    BASELINE,
    CANDIDATE,
    ROUTE,
    COMPONENT,
    SIDE,
    PROFILE_TYPE,
    PER,
    FROM,
    TO,
    BASELINE_FROM,
    BASELINE_TO,
    CANDIDATE_FROM,
    CANDIDATE_TO,
    LIMIT,
    FUNCTIONS_LIMIT,
    NODE,
    FORMAT,
];

/// What changed between two releases.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Diff {
    namespace: String,
    service: String,
    component: String,
    /// Null for all routes.
    route: Option<String>,
    side: String,
    profile_type: String,
    /// Unit of raw values and, per `per`, of costs.
    unit: String,
    per: Per,
    baseline: SideSummary,
    candidate: SideSummary,
    /// Summary in one sentence.
    summary: String,
    /// Note, if the figures differ from what was requested: CPU of the whole service, because no stacks carry the
    /// route.
    note: Option<String>,
    judgement: Judgement,
    /// ID of the guilty function.
    #[schema(value_type = Option<String>)]
    guilty: Option<HexId>,
    /// Note on cost that moved between functions: renamed, inlined, split.
    cost_shift: Option<String>,
    change: CostChange,
    /// Sorted by the size of `contribution`.
    functions: Vec<FunctionRow>,
    /// Rows omitted by `functions_limit`.
    functions_cut: DiffFunctionsCut,
    tree: DiffTree,
    /// Null when no request was seen.
    latency: Option<LatencyEvidence>,
}

/// Rows omitted from a comparison's function table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiffFunctionsCut {
    /// Rows.
    pub count: u64,
    /// Their raw self values of the baseline.
    self_a: i64,
    /// Their raw self values of the candidate.
    self_b: i64,
}

/// Truncates a function table; the sums of the omitted rows are kept.
pub(super) fn cut_functions(functions: &mut Vec<FunctionRow>, limit: Option<usize>) -> DiffFunctionsCut {
    let mut cut = DiffFunctionsCut::default();
    for row in functions.drain(limit.unwrap_or(usize::MAX).min(functions.len())..) {
        cut.count += 1;
        cut.self_a += row.raw_self_a;
        cut.self_b += row.raw_self_b;
    }
    cut
}

/// What changed between two releases: function table, merged tree, latency. Also as pprof, folded stacks, SVG, a
/// self-contained HTML page, and for speedscope and the Firefox Profiler (one profile per side).
#[utoipa::path(get, path = "/api/v1/diff", responses(
    (status = 200, content((Diff = "application/json"), (Vec<u8> = "application/octet-stream"), (String = "text/plain"), (String = "image/svg+xml"), (String = "text/html"))),
    (status = "default", body = ErrorBody),
))]
pub(crate) async fn diff(
    State(web): State<Web>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (params, format) = super::with_format(&web, query.as_deref(), PARAMETERS, &headers)?;
    let limit = super::tree_limit(&params)?;
    let functions_limit = params.count(&FUNCTIONS_LIMIT)?;
    let node = params.node()?;
    let question = Question::read(&web, &params).await?;
    // Exports are never cut, and a part is cut after it was taken from the whole tree.
    let whole = !format.is_answer() || node.is_some();
    let comparison = question.answer(&web, limit.filter(|_| !whole)).await?;
    if !format.is_answer() {
        return blocking(move || export(&question, &comparison, format)).await?;
    }
    let part = node.map(|node| (node, limit));
    let answer = blocking(move || -> Result<Response, ApiError> {
        let described = describe(question, comparison, functions_limit, part)?;
        let tree = |described: &mut Diff| std::mem::take(&mut described.tree).into_columns();
        super::written(described, tree, format, "diff")
    });
    answer.await?
}

/// Describes a comparison; `part` is a node and a limit, if only the tree below that node is requested.
fn describe(
    question: Question,
    comparison: Comparison,
    functions_limit: Option<usize>,
    part: Option<(u64, Option<usize>)>,
) -> Result<Diff, ApiError> {
    let shown = match part {
        None => Shown::whole(comparison.tree),
        Some((node, limit)) => Shown::below(comparison.tree, node, limit)?,
    };
    let mut functions = comparison.functions;
    let functions_cut = cut_functions(&mut functions, functions_limit);
    let places: HashMap<u64, usize> = functions.iter().enumerate().map(|(at, row)| (row.id.0, at)).collect();
    Ok(Diff {
        namespace: question.known.namespace,
        service: question.known.service,
        component: question.component.as_str().to_owned(),
        route: question.route,
        side: question.side.as_str().to_owned(),
        unit: question.profile_type.unit().to_owned(),
        profile_type: question.profile_type.0,
        per: comparison.per,
        baseline: comparison.baseline,
        candidate: comparison.candidate,
        summary: comparison.summary,
        note: comparison.note,
        judgement: comparison.judgement,
        guilty: comparison.guilty.map(|guilty| guilty.id),
        cost_shift: comparison.cost_shift,
        change: comparison.change,
        tree: DiffTree::of(&shown, &places, &comparison.program),
        functions,
        functions_cut,
        latency: comparison.latency,
    })
}

fn export(question: &Question, comparison: &Comparison, format: Format) -> Result<Response, ApiError> {
    let (baseline, candidate) = (&comparison.baseline, &comparison.candidate);
    let title = match &question.route {
        Some(route) => format!(
            "{} {route}: {} → {}",
            question.known.service, baseline.version, candidate.version
        ),
        None => format!(
            "{}: {} → {}",
            question.known.service, baseline.version, candidate.version
        ),
    };
    let per = match comparison.per {
        _ if question.profile_type.is_gauge() => " on average",
        Per::Request => " per request",
        Per::Second => " per second",
        Per::Total => " in total",
    };
    let unit = question.profile_type.unit();
    let what = match question.profile_type == ProfileType::cpu() {
        true => "CPU",
        false => question.profile_type.parts()[1],
    };
    let subtitle = format!(
        "{} {what}{per}: {} → {}. Width: candidate; colour: difference{per}.",
        question.component.as_str(),
        format_amount(comparison.change.baseline, unit),
        format_amount(comparison.change.candidate, unit),
    );
    let labels = Labels {
        title: &title,
        subtitle: &subtitle,
        unit: question.profile_type.unit(),
    };
    let names = [&baseline.version, &candidate.version].map(|version| format!("{} {version}", question.known.service));
    let sides = [names[0].as_str(), names[1].as_str()];
    let divisors = [baseline.divisor, candidate.divisor];
    let body = match format {
        Format::Pprof => exports::pprof::write(&comparison.tree, &question.profile_type, question.whole_range(), true),
        Format::Folded => exports::folded::comparison(&comparison.tree).into_bytes(),
        Format::Speedscope => exports::speedscope::write(&comparison.tree, &title, &sides, labels.unit)?,
        Format::Firefox => {
            let from_ms = question.whole_range().from_unix_s.saturating_mul(1000);
            exports::firefox::write(&comparison.tree, &title, &sides, labels.unit, from_ms)?
        }
        Format::Svg | Format::Json | Format::Columns => exports::svg::diff(&comparison.tree, divisors, &labels)?,
        Format::Html => {
            let svg = exports::svg::diff(&comparison.tree, divisors, &labels)?;
            exports::html::page(svg, &labels, &comparison.summary)?
        }
    };
    let name = format!("{}-{}-{}", question.known.service, baseline.version, candidate.version);
    Ok(exports::answer(body, format, &name))
}
