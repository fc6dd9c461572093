//! What explains a slowdown: functions, and which end of the edge sees it.
//!
//! Guarantees: functions come from time that both signals cover, for both releases from the windows the verdict
//! rests on; the application's stacks are used, and the proxy's only where the application has none. Where no stacks say
//! the route they worked for, the CPU is that of the whole service, and the alert says so. For what only callers wait longer no
//! function is looked for.

use std::collections::BTreeMap;

use emberline_analysis::{
    attribution::Finding,
    compare::{CompareOptions, Comparison, compare, top_changed},
};
use emberline_model::{
    Component, Histogram, ProfileType, Release, Side,
    alert::{ClientServerSplit, GuiltyFunction},
    comparison::{FunctionRow, Judgement, Per},
    function::OwnCode,
    time::WINDOW_S,
};
use emberline_storage::{BothSides, QueryError, Range, RequestQuery, RequestRow, SideQuery, Store, WorkloadFilter};

use super::folding::{Failing, Slow};

/// Functions quoted in an alert.
const MOST_FUNCTIONS: usize = 10;
/// Below this share of named CPU an alert waits for names.
const NAMED_ENOUGH: f64 = 0.9;
/// A release that takes longer by this share of what its callers wait longer explains it.
const EXPLAINS: f64 = 0.5;

/// Windows that evidence is taken from, `[from, to)` in seconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ranges {
    pub(super) baseline: (i64, i64),
    pub(super) candidate: (i64, i64),
}

impl Ranges {
    /// The windows since the slowdown began, up to `most` windows after its verdict; of a baseline that was gone by
    /// then, its last windows. `None` without a verdict.
    pub(super) fn of(slow: &Slow, to: i64, most: u32, reference_windows: usize) -> Option<Ranges> {
        let window = WINDOW_S;
        let fired = slow.judged.verdict.fired_at_window?;
        let since = slow.judged.verdict.since_window.unwrap_or(fired);
        let end = to.min(fired + window * (i64::from(most) + 1)).max(since + window);
        let candidate = (since, end);
        let last = slow.judged.verdict.last_baseline_window?;
        if last >= since {
            return Some(Ranges {
                baseline: candidate,
                candidate,
            });
        }
        let reference = i64::try_from(reference_windows).unwrap_or(i64::MAX).max(1);
        let baseline = (
            last.saturating_sub(window.saturating_mul(reference - 1)).max(0),
            last + window,
        );
        Some(Ranges { baseline, candidate })
    }
}

/// CPU per request of both releases on the route.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Cpu {
    pub(super) judgement: Judgement,
    /// Candidate minus baseline, nanoseconds per request.
    pub(super) delta_ns: f64,
    /// Upper end of its 95 % interval.
    pub(super) most_ns: f64,
    /// Why it changed.
    pub(super) finding: Finding,
    /// What a growth is spread over, in words.
    pub(super) spread: Option<String>,
    /// Functions that were renamed or inlined, in words.
    pub(super) moved: Option<String>,
    /// Share of the candidate's CPU that has names.
    pub(super) named: f64,
    /// It is that of the whole service.
    pub(super) whole_service: bool,
}

/// Everything besides the verdict itself.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Evidence {
    pub(super) ranges: Ranges,
    /// Whose stacks.
    pub(super) component: Component,
    /// `None` when a release has no stacks in those windows.
    pub(super) cpu: Option<Cpu>,
    pub(super) guilty: Option<GuiltyFunction>,
    pub(super) functions: Vec<FunctionRow>,
    pub(super) client_server: ClientServerSplit,
    /// For what callers wait longer: how much longer the release itself takes at the quantile that shows it, seconds; `None`
    /// where it does not report.
    pub(super) server_shift_seconds: Option<f64>,
}

impl Evidence {
    /// Whether the release itself explains what its callers wait longer: then its own verdict is what says so.
    pub(super) fn is_explained(&self, slow: &Slow) -> bool {
        let client = slow.judged.verdict.shift_seconds;
        let shifts = client.zip(self.server_shift_seconds);
        slow.side == Side::Client && shifts.is_some_and(|(client, server)| server >= EXPLAINS * client)
    }

    /// True when waiting a little may name a function that has no name yet.
    pub(super) fn is_incomplete(&self) -> bool {
        let Some(cpu) = &self.cpu else { return true };
        match &self.guilty {
            // The application's own function has a name: what else has none does not matter.
            Some(guilty) if !guilty.library => false,
            Some(guilty) => guilty.name.starts_with("0x") || cpu.named < NAMED_ENOUGH,
            None => cpu.named < NAMED_ENOUGH || cpu.judgement == Judgement::TooFewSamples,
        }
    }
}

/// Collects the evidence for a finding.
pub(super) async fn collect(
    store: &Store,
    own_code: &OwnCode,
    slow: &Slow,
    ranges: Ranges,
) -> Result<Evidence, QueryError> {
    if slow.side == Side::Client {
        return of_callers(store, slow, ranges).await;
    }
    let mut component = Component::Application;
    let mut sides = both_sides(store, slow, ranges, component).await?;
    if !has_stacks(&sides) {
        let proxies = both_sides(store, slow, ranges, Component::Proxy).await?;
        if has_stacks(&proxies) {
            (component, sides) = (Component::Proxy, proxies);
        }
    }
    let client_server = client_server(store, slow, ranges).await?;
    let mut evidence = Evidence {
        ranges,
        component,
        cpu: None,
        guilty: None,
        functions: Vec::new(),
        client_server,
        server_shift_seconds: None,
    };
    if has_stacks(&sides) {
        let route = slow.judged.unit.route.clone();
        let own = own_code.of(&sides.candidate.release.service).to_vec();
        // A tree is not shown, but a comparison builds one: off the threads that serve connections.
        let compared = tokio::task::spawn_blocking(move || {
            let options = CompareOptions {
                profile_type: &ProfileType::cpu(),
                per: Per::Request,
                route: Some(&route),
                whole_service: sides.whole_service,
                tree_limit: Some(0),
                own: &own,
            };
            compare(&sides.baseline, &sides.candidate, options)
        });
        let comparison = compared.await.map_err(|error| QueryError::Internal {
            message: error.to_string(),
        })?;
        add_functions(&mut evidence, comparison);
    }
    Ok(evidence)
}

fn add_functions(evidence: &mut Evidence, comparison: Comparison) {
    evidence.cpu = Some(Cpu {
        judgement: comparison.judgement,
        delta_ns: comparison.change.delta,
        most_ns: comparison.change.high,
        finding: comparison.finding,
        spread: comparison.spread,
        moved: comparison.cost_shift,
        named: comparison.candidate.resolved_ratio,
        whole_service: comparison.note.is_some(),
    });
    evidence.functions = top_changed(&comparison.functions, comparison.guilty.as_ref(), MOST_FUNCTIONS);
    evidence.guilty = comparison.guilty;
}

async fn both_sides(store: &Store, slow: &Slow, ranges: Ranges, component: Component) -> Result<BothSides, QueryError> {
    let query = |version: &str, (from_unix_s, to_unix_s): (i64, i64)| SideQuery {
        route: Some(slow.judged.unit.route.clone()),
        component,
        ..SideQuery::new(slow.release(version), Range { from_unix_s, to_unix_s })
    };
    let baseline = query(&slow.baseline, ranges.baseline);
    let candidate = query(&slow.candidate, ranges.candidate);
    store.both_sides(baseline, candidate, false).await
}

/// True when a comparison of the two has something to compare.
fn has_stacks(sides: &BothSides) -> bool {
    [&sides.baseline, &sides.candidate]
        .iter()
        .all(|side| side.is_divisible() && side.windows.iter().any(|w| !w.stacks.is_empty()))
}

/// How much longer the candidate takes at a quantile, seconds.
fn shift(baseline: &Histogram, candidate: &Histogram, quantile: f64) -> Option<f64> {
    Some(candidate.quantile(quantile)? - baseline.quantile(quantile)?)
}

fn median_delta(baseline: &Histogram, candidate: &Histogram) -> Option<f64> {
    shift(baseline, candidate, 0.5).map(|seconds| seconds * 1e3)
}

/// What the release itself took while its callers waited longer: on their route or, where it calls that by another name, on
/// all its routes.
async fn of_callers(store: &Store, slow: &Slow, ranges: Ranges) -> Result<Evidence, QueryError> {
    let (unit, verdict) = (&slow.judged.unit, &slow.judged.verdict);
    let mut server = [Histogram::new(), Histogram::new()];
    for route in [Some(unit.route.as_str()), None] {
        server = [
            server_side(store, slow, &slow.baseline, route, ranges.baseline).await?,
            server_side(store, slow, &slow.candidate, route, ranges.candidate).await?,
        ];
        if server.iter().all(|side| side.count() > 0) {
            break;
        }
    }
    let [baseline, candidate] = &server;
    let quantile = verdict.leading_quantile.unwrap_or(0.5);
    Ok(Evidence {
        ranges,
        component: Component::Application,
        cpu: None,
        guilty: None,
        functions: Vec::new(),
        client_server: ClientServerSplit {
            client_delta_ms: median_delta(&verdict.baseline, &verdict.candidate),
            server_delta_ms: median_delta(baseline, candidate),
        },
        server_shift_seconds: shift(baseline, candidate, quantile),
    })
}

/// Durations of requests to a release from the unit's caller, as the release saw them.
async fn server_side(
    store: &Store,
    slow: &Slow,
    version: &str,
    route: Option<&str>,
    (from_unix_s, to_unix_s): (i64, i64),
) -> Result<Histogram, QueryError> {
    let query = RequestQuery {
        side: Some(Side::Server),
        route: route.map(str::to_owned),
        source: slow.judged.unit.source.clone(),
        ..RequestQuery::new(
            WorkloadFilter::release(&slow.release(version)),
            Range { from_unix_s, to_unix_s },
        )
    };
    Ok(latencies(&store.ask(query).await?))
}

fn latencies(rows: &[RequestRow]) -> Histogram {
    let mut all = Histogram::new();
    let of = rows.iter().filter_map(RequestRow::latency);
    of.for_each(|latency| all.merge(latency));
    all
}

/// Difference of the medians at both ends, milliseconds. The client's end is known for a caller that is judged alone.
async fn client_server(store: &Store, slow: &Slow, ranges: Ranges) -> Result<ClientServerSplit, QueryError> {
    let (unit, verdict) = (&slow.judged.unit, &slow.judged.verdict);
    let server_delta_ms = median_delta(&verdict.baseline, &verdict.candidate);
    let Some(source) = &unit.source else {
        return Ok(ClientServerSplit {
            client_delta_ms: None,
            server_delta_ms,
        });
    };
    let baseline = client_side(store, source, slow, &slow.baseline, ranges.baseline).await?;
    let candidate = client_side(store, source, slow, &slow.candidate, ranges.candidate).await?;
    Ok(ClientServerSplit {
        client_delta_ms: median_delta(&baseline, &candidate),
        server_delta_ms,
    })
}

/// Durations of calls to a release on the route, as the caller saw them.
async fn client_side(
    store: &Store,
    source: &Release,
    slow: &Slow,
    version: &str,
    (from_unix_s, to_unix_s): (i64, i64),
) -> Result<Histogram, QueryError> {
    let query = RequestQuery {
        side: Some(Side::Client),
        route: Some(slow.judged.unit.route.clone()),
        source: Some(slow.release(version)),
        ..RequestQuery::new(WorkloadFilter::release(source), Range { from_unix_s, to_unix_s })
    };
    Ok(latencies(&store.ask(query).await?))
}

/// Durations of requests to both releases in a range, warm-ups of the candidate included.
pub(super) async fn latency_of_failing(
    store: &Store,
    failing: &Failing,
    (from_unix_s, to_unix_s): (i64, i64),
) -> Result<[Histogram; 2], QueryError> {
    let mut both = [Histogram::new(), Histogram::new()];
    for (all, version) in both.iter_mut().zip([&failing.baseline, &failing.candidate]) {
        let range = Range { from_unix_s, to_unix_s };
        let query = RequestQuery {
            side: Some(Side::Server),
            route: Some(failing.unit.route.clone()),
            source: failing.unit.source.clone(),
            ..RequestQuery::new(WorkloadFilter::release(&failing.release(version)), range)
        };
        let is_apart = |peer: &Option<Release>| peer.as_ref().is_some_and(|peer| failing.apart.contains(peer));
        for row in store.ask(query).await?.iter().filter(|row| !is_apart(&row.peer)) {
            row.latency().into_iter().for_each(|latency| all.merge(latency));
        }
    }
    Ok(both)
}

/// Latencies of failing routes that were collected before, by alert, with their ranges.
pub(super) type RememberedLatency = BTreeMap<u64, ((i64, i64), [Histogram; 2])>;

/// Evidence that was collected before, by alert.
pub(super) type Remembered = BTreeMap<u64, Evidence>;
