//! Who calls whom: edges put together from what both ends report.
//!
//! Guarantees: counts are exact; a side that nobody reported is absent, not zero; percentiles come from merged
//! histograms. A callee that did not introduce itself, because it has no proxy or could not be reached, has the name that
//! its callers use, in their namespace unless they name another; one that nobody named is one external node, as are callers that did not
//! introduce themselves: an address is no identity.

use std::collections::{BTreeMap, HashMap};

use emberline_model::{Release, Side};
use emberline_storage::RequestRow;

use crate::answers::red::Red;

/// One end of an edge.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    /// A release.
    Release(Release),
    /// What its callers name, and which did not introduce itself: a database, a third party, a service that is down.
    Named {
        /// That of the callers.
        namespace: String,
        /// As the callers name it.
        service: String,
    },
    /// Callers that did not introduce themselves.
    UnknownCaller,
    /// What was called, introduced itself to nobody and was named by nobody.
    UnknownCallee,
}

impl End {
    /// Identifier of the node.
    pub(crate) fn id(&self) -> String {
        match self {
            End::Release(release) => release.to_string(),
            End::Named { namespace, service } if namespace.is_empty() => service.clone(),
            End::Named { namespace, service } => format!("{namespace}/{service}"),
            End::UnknownCaller => "external".to_owned(),
            End::UnknownCallee => "unknown destination".to_owned(),
        }
    }
}

/// What one side of an edge reported.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reported {
    /// All routes.
    pub(crate) red: Red,
    /// Streams and connections open at the end of the range.
    pub(crate) open: u64,
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

    /// The report of the end that reports a row, and which edge of `edges` it belongs to.
    fn of<'a>(edges: &'a mut Edges, row: &RequestRow) -> &'a mut Reported {
        let reporter = End::Release(row.reporter.clone());
        let peer = row.peer.clone().map(End::Release);
        match row.side {
            Side::Client => {
                let callee = peer.unwrap_or_else(|| callee_of(row));
                let edge = edges.entry((reporter, callee)).or_default();
                edge.client.get_or_insert_default()
            }
            Side::Server => {
                let edge = edges.entry((peer.unwrap_or(End::UnknownCaller), reporter)).or_default();
                edge.server.get_or_insert_default()
            }
        }
    }
}

/// Whom a caller called that got no name from whoever answered: `service` of its own namespace, or `namespace/service`.
fn callee_of(row: &RequestRow) -> End {
    if row.destination.is_empty() {
        return End::UnknownCallee;
    }
    let (namespace, service) = match row.destination.split_once('/') {
        Some((namespace, service)) if !service.is_empty() => (namespace, service),
        _ => (row.reporter.namespace.as_str(), row.destination.as_str()),
    };
    End::Named {
        namespace: namespace.to_owned(),
        service: service.to_owned(),
    }
}

/// Edges by (caller, callee).
pub(crate) type Edges = BTreeMap<(End, End), Edge>;

/// Joins the reports of both ends.
pub(crate) fn join(rows: &[RequestRow]) -> Edges {
    let mut edges = Edges::new();
    for row in rows {
        let reported = Edge::of(&mut edges, row);
        reported.red.add(row);
        reported.routes.entry(row.route.clone()).or_default().add(row);
        *reported.protocols.entry(row.protocol.clone()).or_default() += row.duration.count();
    }
    edges
}

/// Adds what is open, from rows by window and instance: the last window of each instance counts.
pub(crate) fn add_open(edges: &mut Edges, rows: &[RequestRow]) {
    let instance = |row: &RequestRow| (row.reporter.clone(), row.instance.clone(), row.component);
    let mut last: HashMap<_, i64> = HashMap::new();
    for row in rows {
        let last = last.entry(instance(row)).or_insert(row.window_start_s);
        *last = row.window_start_s.max(*last);
    }
    for row in rows {
        if row.open > 0 && last.get(&instance(row)) == Some(&row.window_start_s) {
            Edge::of(edges, row).open += row.open;
        }
    }
}

/// What a node served, by both ends.
#[derive(Debug, Clone, Default)]
pub(crate) struct Served {
    /// Each edge to it by the callee's report where there is one, else by the caller's.
    pub(crate) all: Red,
    /// Its own report.
    pub(crate) own: Option<Reported>,
    /// What its callers report.
    pub(crate) callers: Option<Reported>,
}

/// What each node served, from all edges to it.
pub(crate) fn served(edges: &Edges) -> BTreeMap<End, Served> {
    let mut served: BTreeMap<End, Served> = BTreeMap::new();
    for ((_, callee), edge) in edges {
        let node = served.entry(callee.clone()).or_default();
        if let Some(best) = edge.best() {
            node.all.merge(&best.red);
        }
        for (report, into) in [(&edge.server, &mut node.own), (&edge.client, &mut node.callers)] {
            if let Some(report) = report {
                let into = into.get_or_insert_default();
                into.red.merge(&report.red);
                into.open += report.open;
            }
        }
    }
    served
}
