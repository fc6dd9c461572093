//! Choosing the cluster of a request in code, when the configuration's rules cannot express it: a site that fails over,
//! clients that are diverted.
//!
//! Guarantee: a choice can only name configured clusters, so code can pick among them but never add an address.

use std::{borrow::Cow, fmt, net::IpAddr};

use http::request::Parts;

/// A request whose cluster is chosen.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The service that its host belongs to.
    pub service: &'a str,
    /// Its head, which has passed the checks; the body is not known yet.
    pub head: &'a Parts,
    /// Address of the caller.
    pub caller: IpAddr,
}

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// Where the configuration says: to the rules of the service, or to its own destinations.
    Configured,
    /// The cluster of this name, as rules name it: one of the service's `clusters`, or a service of the same listener. If there is
    /// none, the request is answered 503 (`no_cluster`).
    Cluster(Cow<'static, str>),
}

/// Chooses the clusters of requests on outbound listeners; see [`Extensions`](crate::Extensions).
pub trait ChooseCluster: fmt::Debug + Send + Sync + 'static {
    /// Called once per request by the worker that handles it, which does nothing else meanwhile: it must not block.
    fn choose(&self, asked: &Asked<'_>) -> Choice;
}
