//! Who calls whom: edges put together from what both ends report.
//!
//! Guarantees: counts are exact; a side that nobody reported is absent, not zero; percentiles come from merged
//! histograms. A caller or callee that did not introduce itself is one external node: an address is no identity.

use std::collections::{BTreeMap, BTreeSet};

use emberline_model::{Release, Side};
use emberline_storage::RequestRow;

use crate::red::Red;

/// One end of an edge.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    /// A release.
    Release(Release),
    /// Callers that did not introduce themselves.
    UnknownCaller,
    /// What was called and did not introduce itself; also what could not be reached.
    UnknownCallee,
}

impl End {
    /// Identifier of the node.
    pub(crate) fn id(&self) -> String {
        match self {
            End::Release(release) => release.to_string(),
            End::UnknownCaller => "external".to_owned(),
            End::UnknownCallee => "unknown destination".to_owned(),
        }
    }
}

/// What one end of an edge reported.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reported {
    /// All routes.
    pub(crate) red: Red,
    /// By route template, as this end names it.
    pub(crate) routes: BTreeMap<String, Red>,
    /// Requests by protocol.
    protocols: BTreeMap<String, u64>,
}

/// All requests from one end to the other.
#[derive(Debug, Clone, Default)]
pub(crate) struct Edge {
    /// The caller's report.
    pub(crate) client: Option<Reported>,
    /// The callee's report.
    pub(crate) server: Option<Reported>,
}

impl Edge {
    /// The report to count by: the callee's, else the caller's.
    pub(crate) fn best(&self) -> Option<&Reported> {
        self.server.as_ref().or(self.client.as_ref())
    }

    /// The protocol of most requests.
    pub(crate) fn protocol(&self) -> &str {
        let protocols = self.best().into_iter().flat_map(|reported| &reported.protocols);
        protocols
            .max_by_key(|(_, count)| **count)
            .map_or("", |(protocol, _)| protocol)
    }
}

/// Edges by (caller, callee).
pub(crate) type Edges = BTreeMap<(End, End), Edge>;

/// Joins the reports of both ends.
pub(crate) fn join(rows: &[RequestRow]) -> Edges {
    let mut edges = Edges::new();
    for row in rows {
        let reporter = End::Release(row.reporter.clone());
        let peer = row.peer.clone().map(End::Release);
        let (key, is_client) = match row.side {
            Side::Client => ((reporter, peer.unwrap_or(End::UnknownCallee)), true),
            Side::Server => ((peer.unwrap_or(End::UnknownCaller), reporter), false),
        };
        let edge = edges.entry(key).or_default();
        let reported = if is_client { &mut edge.client } else { &mut edge.server }.get_or_insert_default();
        reported.red.add(row);
        reported.routes.entry(row.route.clone()).or_default().add(row);
        *reported.protocols.entry(row.protocol.clone()).or_default() += row.duration.count();
    }
    edges
}

/// What each node served: by its own report, else by its callers'.
pub(crate) fn served(rows: &[RequestRow], edges: &Edges) -> BTreeMap<End, Red> {
    let mut served: BTreeMap<End, Red> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.side == Side::Server) {
        served.entry(End::Release(row.reporter.clone())).or_default().add(row);
    }
    let own: BTreeSet<End> = served.keys().cloned().collect();
    for ((_, callee), edge) in edges.iter().filter(|((_, callee), _)| !own.contains(callee)) {
        if let Some(client) = &edge.client {
            let red = served.entry(callee.clone()).or_default();
            red.errors = red.errors.saturating_add(client.red.errors);
            red.duration.merge(&client.red.duration);
        }
    }
    served
}
