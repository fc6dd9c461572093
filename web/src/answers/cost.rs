//! CPU and the requests it was spent on. Guarantee: a cost per request divides CPU by requests of the same instances,
//! side, route and time: the time that both signals cover. Application CPU is divided by the requests the application
//! served, whoever counted them; proxy CPU by those the proxy forwarded.
//!
//! CPU labelled with the client side is left out, since the divisor is served requests; CPU without a label is kept
//! separately under no route.

use std::collections::BTreeMap;

use emberline_model::{ProfileType, Release, Side, workload::Component};
use emberline_storage::{CostQuery, CostRow, QueryError, Range, Step, Store, TotalsQuery, WorkloadFilter};
use serde::Serialize;
use utoipa::ToSchema;

/// The key of a sum.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    /// The release.
    pub(crate) release: Release,
    /// The component whose CPU it is.
    pub(crate) component: Component,
    /// Route; `None` for CPU that belongs to no request.
    pub(crate) route: Option<String>,
    /// Start of the step, seconds since the Unix epoch; 0 if all windows are added up.
    pub(crate) start_s: i64,
}

/// A sum.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Cost {
    /// CPU nanoseconds.
    pub(crate) cpu_ns: i64,
    /// Stack samples.
    pub(crate) samples: u64,
    /// Requests served meanwhile; a partly covered window contributes its share.
    pub(crate) requests: f64,
}

impl Cost {
    /// Adds another sum.
    pub(crate) fn add(&mut self, other: &Cost) {
        self.cpu_ns = self.cpu_ns.saturating_add(other.cpu_ns);
        self.samples = self.samples.saturating_add(other.samples);
        self.requests += other.requests;
    }

    /// `None` without requests.
    pub(crate) fn cpu_ns_per_request(&self) -> Option<f64> {
        (self.requests > 0.0).then(|| self.cpu_ns as f64 / self.requests)
    }
}

/// CPU, and the part of it that is divided by requests.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub(crate) struct CpuFigures {
    /// CPU for requests served and outside of requests, all windows.
    cpu_ns: i64,
    /// `complete_cpu_ns / complete_requests`; null without requests.
    cpu_ns_per_request: Option<f64>,
    /// CPU in the time covered by both signals.
    complete_cpu_ns: i64,
    /// Requests in that time, rounded for partly covered windows.
    complete_requests: u64,
    /// Stack samples of `cpu_ns`.
    samples: u64,
}

impl CpuFigures {
    /// From the sums of all windows, and of the time that both signals cover.
    pub(crate) fn of(all: &Cost, complete: &Cost) -> CpuFigures {
        CpuFigures {
            cpu_ns: all.cpu_ns,
            cpu_ns_per_request: complete.cpu_ns_per_request(),
            complete_cpu_ns: complete.cpu_ns,
            complete_requests: complete.requests.round() as u64,
            samples: all.samples,
        }
    }
}

/// Costs by release, component, route and step.
pub(crate) type Costs = BTreeMap<Key, Cost>;

/// CPU and requests of the time that both signals cover.
pub(crate) async fn complete(
    store: &Store,
    who: &WorkloadFilter,
    step: Step,
    range: Range,
) -> Result<Costs, QueryError> {
    let query = CostQuery {
        who: who.clone(),
        step,
        range,
    };
    let cost = |row: CostRow| {
        let key = Key {
            release: row.release,
            component: row.component,
            route: row.route,
            start_s: row.window_start_s,
        };
        let cost = Cost {
            cpu_ns: row.cpu_ns,
            samples: row.samples,
            requests: row.requests,
        };
        (key, cost)
    };
    Ok(store.ask(query).await?.into_iter().map(cost).collect())
}

/// CPU of all windows; without requests.
pub(crate) async fn cpu(store: &Store, who: &WorkloadFilter, step: Step, range: Range) -> Result<Costs, QueryError> {
    let query = TotalsQuery {
        who: who.clone(),
        component: None,
        profile_type: ProfileType::CPU.to_owned(),
        only_complete: false,
        step,
        by_route: true,
        range,
    };
    let mut costs = Costs::new();
    for row in store.ask(query).await? {
        let route = match row.side {
            Some(Side::Server) => Some(row.route),
            Some(Side::Client) => continue,
            None => None,
        };
        let key = Key {
            release: row.release,
            component: row.component,
            route,
            start_s: row.window_start_s,
        };
        costs.entry(key).or_default().add(&Cost {
            cpu_ns: row.value,
            samples: row.samples,
            requests: 0.0,
        });
    }
    Ok(costs)
}
