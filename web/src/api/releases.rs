//! `/api/v1/releases`: the releases of one service with what they served and what it cost.
//!
//! Guarantee: `cpu_ns_per_request` is `complete_cpu_ns / complete_requests`, from the time that both signals cover.

use std::collections::BTreeMap;

use axum::extract::{RawQuery, State};
use emberline_model::{ProfileType, Side, workload::Component};
use emberline_storage::{
    Complete, Range, ReportQuery, ReportRow, RequestQuery, RequestRow, StackQuery, Step, WorkloadFilter,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{services::Release, workloads_of};
use crate::{
    answers::{
        cost::{self, Cost, Costs, CpuFigures},
        json::Json,
        red::{Quantiles, Red},
    },
    http::error::{ApiError, ErrorBody},
    query::{
        catalog::{self, KnownService},
        params::{FROM, NAMESPACE, Parameter, Params, SERVICE, TO},
    },
    state::Web,
};

pub(super) const PARAMETERS: &[Parameter] = &[SERVICE, NAMESPACE, FROM, TO];

/// Releases of a service.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Releases {
    namespace: String,
    service: String,
    /// Newest first.
    releases: Vec<ReleaseStats>,
}

/// A release with its requests and their cost.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ReleaseStats {
    #[serde(flatten)]
    release: Release,
    instances: Vec<String>,
    /// Component of the figures below: the application if it reports, else the proxy.
    component: Component,
    /// Requests served.
    requests: u64,
    errors: u64,
    #[serde(flatten)]
    quantiles: Quantiles,
    #[serde(flatten)]
    cpu: CpuFigures,
    /// Windows reported.
    windows: u64,
    /// Profile windows that count, fully or in part, when CPU is divided by requests.
    complete_windows: u64,
    /// Seconds covered by both signals.
    covered_s: u64,
    /// Seconds covered by request windows.
    requests_s: u64,
    /// Share of CPU whose leaf function has a name, 0 to 1.
    resolved_ratio: f64,
}

/// What is known about a service's releases in a range.
pub(super) struct Figures {
    pub(super) known: KnownService,
    pub(super) range: Range,
    /// Requests served, each counted once.
    pub(super) served: Vec<RequestRow>,
    /// CPU of all windows.
    pub(super) cpu: Costs,
    /// CPU and requests in the time that both signals cover.
    pub(super) complete: Costs,
    /// Windows reported.
    pub(super) reports: Vec<ReportRow>,
    /// By version.
    resolved_ratios: BTreeMap<String, f64>,
}

impl Figures {
    /// Queries the store; different steps are kept separate.
    pub(super) async fn fetch(web: &Web, known: KnownService, range: Range, step: Step) -> Result<Figures, ApiError> {
        let who = workloads_of(&known);
        let served = RequestQuery {
            side: Some(Side::Server),
            step,
            ..RequestQuery::new(who.clone(), range)
        };
        let ratios = futures_util::future::try_join_all(known.releases.iter().map(|release| {
            let component = component_of(&release.components);
            let of_release = WorkloadFilter::release(&known.release(&release.version));
            async move {
                let ratio = resolved_ratio(web, of_release, component, range).await?;
                Ok::<_, ApiError>((release.version.clone(), ratio))
            }
        }));
        let store = async {
            Ok::<_, ApiError>(tokio::try_join!(
                web.store.ask(served),
                cost::cpu(&web.store, &who, step, range),
                cost::complete(&web.store, &who, step, range),
                web.store.ask(ReportQuery {
                    who: who.clone(),
                    step,
                    range
                }),
            )?)
        };
        let ((served, cpu, complete, reports), ratios) = tokio::try_join!(store, ratios)?;
        Ok(Figures {
            range,
            served,
            cpu,
            complete,
            reports,
            resolved_ratios: ratios.into_iter().collect(),
            known,
        })
    }

    /// Every release, newest first.
    pub(super) fn releases(&self, now_s: i64) -> Vec<ReleaseStats> {
        let mut reds: BTreeMap<&str, Red> = BTreeMap::new();
        for row in &self.served {
            reds.entry(&row.reporter.version).or_default().add(row);
        }
        let stats = self.known.releases.iter().map(|info| {
            let component = component_of(&info.components);
            let red = reds.remove(info.version.as_str()).unwrap_or_default();
            let all = sum(&self.cpu, &info.version, component);
            let complete = sum(&self.complete, &info.version, component);
            let seen = Seen::of(&self.reports, &info.version, component);
            ReleaseStats {
                release: Release::of(info.clone(), self.range, now_s),
                instances: info.instances.clone(),
                component,
                requests: red.requests(),
                errors: red.errors,
                quantiles: red.quantiles(),
                cpu: CpuFigures::of(&all, &complete),
                windows: seen.windows,
                complete_windows: seen.complete.windows,
                covered_s: seen.complete.covered_s,
                requests_s: seen.requests_s,
                resolved_ratio: self.resolved_ratios.get(&info.version).copied().unwrap_or(1.0),
            }
        });
        stats.collect()
    }
}

/// The component whose CPU is shown for a release: the application if it reports.
pub(super) fn component_of(components: &[Component]) -> Component {
    if components.contains(&Component::Application) {
        Component::Application
    } else {
        Component::Proxy
    }
}

fn sum(costs: &Costs, version: &str, component: Component) -> Cost {
    let mut sum = Cost::default();
    for (key, cost) in costs {
        if key.release.version == version && key.component == component {
            sum.add(cost);
        }
    }
    sum
}

/// What a release reported, and how much of it counts when the CPU of a component is divided by requests.
#[derive(Default)]
struct Seen {
    windows: u64,
    requests_s: u64,
    complete: Complete,
}

impl Seen {
    fn of(reports: &[ReportRow], version: &str, component: Component) -> Seen {
        let mut seen = Seen::default();
        for row in reports.iter().filter(|row| row.release.version == version) {
            let complete = match component {
                Component::Application => row.application,
                Component::Proxy => row.proxy,
            };
            seen.windows += row.windows;
            seen.requests_s += row.requests_s;
            seen.complete.windows += complete.windows;
            seen.complete.covered_s += complete.covered_s;
        }
        seen
    }
}

/// Share of a release's CPU whose leaf function has a name.
async fn resolved_ratio(web: &Web, who: WorkloadFilter, component: Component, range: Range) -> Result<f64, ApiError> {
    let query = StackQuery {
        component: Some(component),
        ..StackQuery::new(who, ProfileType::CPU, range)
    };
    let sums = web.store.ask(query).await?;
    let ids: Vec<u64> = sums.rows.iter().map(|row| row.stack_id).collect();
    let resolved = web.store.resolve(&ids).await?;
    let unnamed = sums.rows.iter().filter(|row| {
        let leaf = resolved.frames(row.stack_id).next();
        leaf.is_none_or(|leaf| resolved.functions[leaf as usize].unresolved)
    });
    let unnamed = unnamed.fold(0i64, |sum, row| sum.saturating_add(row.value));
    Ok(if sums.value > 0 {
        1.0 - unnamed as f64 / sums.value as f64
    } else {
        1.0
    })
}

/// Releases of a service with requests, latency and CPU per request.
#[utoipa::path(get, path = "/api/v1/releases", responses(
    (status = 200, body = Releases), (status = "default", body = ErrorBody),
))]
pub(crate) async fn releases(State(web): State<Web>, RawQuery(query): RawQuery) -> Result<Json<Releases>, ApiError> {
    let params = Params::read(query.as_deref(), PARAMETERS, web.clock.now_unix_ns())?;
    let range = params.shared_range()?;
    let known = catalog::find_service(&web.store, &params, range).await?;
    let figures = Figures::fetch(&web, known, range, Step::Range).await?;
    let releases = figures.releases(web.clock.now_unix_s());
    Ok(Json(Releases {
        namespace: figures.known.namespace,
        service: figures.known.service,
        releases,
    }))
}
