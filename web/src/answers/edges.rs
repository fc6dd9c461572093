//! Who calls whom: edges assembled from what both ends report.
//!
//! Guarantees: counts are exact; a side that nobody reported is absent, not zero; percentiles come from merged
//! histograms. A callee that did not introduce itself, because it has no proxy or could not be reached, has the name
//! that its callers use, in their namespace unless they name another; callees that nobody named are one external node,
//! as are callers that did not introduce themselves: an address is not an identity.

use std::collections::{BTreeMap, HashMap};

use emberline_model::{Release, Side};
use emberline_storage::{OpenRow, RequestRow};

use crate::answers::red::Red;

/// One end of an edge.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum End {
    /// A release.
    Release(Release),
    /// Named by its callers, but did not introduce itself: a database, a third party, a service that is down.
    Named {
        /// The callers' namespace.
        namespace: String,
        /// As named by the callers.
        service: String,
    },
    /// Callers that did not introduce themselves.
    UnknownCaller,
    /// Called, but neither introduced nor named.
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
    /// Streams and connections open at the end of the range.
    pub(crate) open: u64,
    /// By route template, as named by this end; sorted. An edge has few: a map would take ten times the memory.
    pub(crate) routes: Vec<(String, Red)>,
    /// Requests by protocol.
    protocols: Vec<(String, u64)>,
}

impl Reported {
    /// All routes.
    pub(crate) fn red(&self) -> Red {
        let mut all = Red::default();
        self.add_to(&mut all);
        all
    }

    fn add_to(&self, sum: &mut Red) {
        self.routes.iter().for_each(|(_, red)| sum.merge(red));
    }
}

/// The value of a key in a short sorted list; a new one starts empty.
fn entry<'a, V: Default>(list: &'a mut Vec<(String, V)>, key: &str) -> &'a mut V {
    let at = match list.binary_search_by(|(known, _)| known.as_str().cmp(key)) {
        Ok(at) => at,
        Err(at) => {
            list.reserve_exact(1);
            list.insert(at, (key.to_owned(), V::default()));
            at
        }
    };
    &mut list[at].1
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
    /// The report to count by: the callee's, otherwise the caller's.
    pub(crate) fn best(&self) -> Option<&Reported> {
        self.server.as_ref().or(self.client.as_ref())
    }

    /// The protocol of most requests.
    pub(crate) fn protocol(&self) -> &str {
        let protocols = self.best().into_iter().flat_map(|reported| &reported.protocols);
        protocols
            .max_by_key(|(_, count)| *count)
            .map_or("", |(protocol, _)| protocol)
    }

    /// The report of the end that sent a row, in its edge of `edges`.
    fn of<'a>(
        edges: &'a mut Edges,
        release: &Release,
        side: Side,
        peer: Option<&Release>,
        destination: &str,
    ) -> &'a mut Reported {
        let reporter = End::Release(release.clone());
        let peer = peer.cloned().map(End::Release);
        match side {
            Side::Client => {
                let callee = peer.unwrap_or_else(|| callee_of(release, destination));
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

/// The callee if the responder gave no name: `service` in the caller's own namespace, or `namespace/service`.
fn callee_of(caller: &Release, destination: &str) -> End {
    if destination.is_empty() {
        return End::UnknownCallee;
    }
    let (namespace, service) = match destination.split_once('/') {
        Some((namespace, service)) if !service.is_empty() => (namespace, service),
        _ => (caller.namespace.as_str(), destination),
    };
    End::Named {
        namespace: namespace.to_owned(),
        service: service.to_owned(),
    }
}

/// Edges by (caller, callee).
pub(crate) type Edges = BTreeMap<(End, End), Edge>;

/// Joins the reports of both ends. Rows are freed as they are added.
pub(crate) fn join(rows: Vec<RequestRow>) -> Edges {
    let mut edges = Edges::new();
    for mut row in rows {
        let requests = row.duration.count();
        let reported = Edge::of(&mut edges, &row.reporter, row.side, row.peer.as_ref(), &row.destination);
        *entry(&mut reported.protocols, &row.protocol) += requests;
        entry(&mut reported.routes, &row.route).take(&mut row);
    }
    edges
}

/// Adds the numbers of open streams.
pub(crate) fn add_open(edges: &mut Edges, rows: &[OpenRow]) {
    for row in rows {
        Edge::of(edges, &row.reporter, row.side, row.peer.as_ref(), &row.destination).open += row.open;
    }
}

/// One end's report about a node's requests, and what is open.
#[derive(Debug, Clone, Default)]
pub(crate) struct Report {
    /// All of them.
    pub(crate) red: Red,
    /// Streams and connections open at the end of the range.
    pub(crate) open: u64,
}

/// What a node served, by both ends.
#[derive(Debug, Clone, Default)]
pub(crate) struct Served {
    /// Each edge to it, by the callee's report if there is one, otherwise by the caller's.
    pub(crate) all: Red,
    /// Its own report.
    pub(crate) own: Option<Report>,
    /// What its callers report.
    pub(crate) callers: Option<Report>,
}

impl Served {
    /// Adds up the edges to a node.
    pub(crate) fn of(edges: &[&Edge]) -> Served {
        let mut served = Served::default();
        for edge in edges {
            if let Some(best) = edge.best() {
                best.add_to(&mut served.all);
            }
            for (report, into) in [(&edge.server, &mut served.own), (&edge.client, &mut served.callers)] {
                if let Some(report) = report {
                    let into = into.get_or_insert_default();
                    report.add_to(&mut into.red);
                    into.open += report.open;
                }
            }
        }
        served
    }
}

/// Edges by their callee.
pub(crate) fn by_callee(edges: &Edges) -> HashMap<&End, Vec<&Edge>> {
    let mut to: HashMap<&End, Vec<&Edge>> = HashMap::new();
    for ((_, callee), edge) in edges {
        to.entry(callee).or_default().push(edge);
    }
    to
}
