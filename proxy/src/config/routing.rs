//! Which cluster of a service gets a request: clusters besides the service's own, and the rules that lead to them.

use serde::{Deserialize, Serialize};

use super::{DestinationConfig, FilterConfig, RetryConfig, Timeouts, ValueMatch, scalar};
use crate::route::Template;

/// More destinations of a service, apart from its own ones.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterConfig {
    /// Its name in rules. The service's own `destinations` are the cluster with the name of the service.
    #[serde(deserialize_with = "scalar::name")]
    pub name: String,
    /// Its addresses. Balancer, health, retries and timeouts are the service's.
    pub destinations: Vec<DestinationConfig>,
}

/// Leads requests to a cluster: those for which all of `path`, `methods`, `headers` and `query` hold.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RuleConfig {
    /// The path, as sent and without its query: as a whole, by its first segments (`/api` for `/api` and `/api/x`), or
    /// by a template as in `routes`.
    #[serde(default)]
    pub path: Option<PathMatch>,
    /// Methods, such as `GET`; default: any.
    #[serde(default)]
    pub methods: Vec<String>,
    /// Headers that must all be present.
    #[serde(default)]
    pub headers: Vec<ValueMatch>,
    /// Query parameters that must all be present, as sent.
    #[serde(default)]
    pub query: Vec<ValueMatch>,
    /// Name of the cluster that gets the requests: one of `clusters`, or a service of the same listener.
    #[serde(default)]
    pub cluster: Option<String>,
    /// Clusters that share the requests by weight, in turn.
    #[serde(default)]
    pub split: Vec<ShareConfig>,
    /// A header whose value is the name of the cluster. Requests without it do not match this rule; those with an
    /// unknown name are answered 503 (`no_cluster`).
    #[serde(default)]
    pub cluster_header: Option<String>,
    /// Timeouts of these requests, instead of the service's, except for `pool_idle_ms`.
    #[serde(default)]
    pub timeouts: Option<Timeouts>,
    /// Filters for these requests, instead of the service's; `[]` for none.
    #[serde(default)]
    pub filters: Option<Vec<FilterConfig>>,
    /// Retries of these requests, instead of the service's, with a budget of their own.
    #[serde(default)]
    pub retries: Option<RetryConfig>,
}

/// A cluster's share of requests.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ShareConfig {
    /// Name of the cluster, as in `cluster`.
    #[serde(deserialize_with = "scalar::name")]
    pub cluster: String,
    /// Its share, relative to the other weights; 0 sends none.
    #[serde(deserialize_with = "scalar::weight")]
    pub weight: u32,
}

/// A condition on a path.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PathMatch {
    /// The whole path.
    Exact(String),
    /// Its first segments.
    Prefix(String),
    /// As routes are told.
    Template(Template),
}
