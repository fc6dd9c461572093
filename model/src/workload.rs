//! Who did the work: workloads, releases, and the labels that join requests with stacks.
//!
//! Guarantee: an address is never part of an identity; workloads introduce themselves by name.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Version or instance of an unidentified workload.
pub const UNKNOWN: &str = "unknown";

/// The route of requests beyond a cardinality limit: visible, never dropped.
pub const ROUTE_OTHER: &str = "other";

/// The most characters kept of a name (service, version, route, ...); longer ones are cut.
pub const MAX_NAME_CHARS: usize = 256;

/// One running process of a service: where telemetry comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Default)]
pub struct Workload {
    /// Group of services; may be empty.
    #[serde(default)]
    pub namespace: String,
    /// Name of the service.
    pub service: String,
    /// Version of the service this process runs.
    pub version: String,
    /// Name of the process, unique within its release.
    pub instance: String,
}

impl Workload {
    /// The release this workload is an instance of.
    pub fn release(&self) -> Release {
        Release {
            namespace: self.namespace.clone(),
            service: self.service.clone(),
            version: self.version.clone(),
        }
    }
}

/// One version of one service.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Default)]
pub struct Release {
    /// Group of services; may be empty.
    #[serde(default)]
    pub namespace: String,
    /// Name of the service.
    pub service: String,
    /// Version of the service.
    pub version: String,
}

impl std::fmt::Display for Release {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        write!(f, "{}@{}", self.service, self.version)
    }
}

/// Side of an edge that observed something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The caller's end.
    Client,
    /// The callee's end.
    Server,
}

impl Side {
    /// `client` or `server`.
    pub fn as_str(self) -> &'static str {
        match self {
            Side::Client => "client",
            Side::Server => "server",
        }
    }

    /// Number used in stored rows and on the wire: 1 client, 2 server.
    pub fn code(self) -> u8 {
        match self {
            Side::Client => 1,
            Side::Server => 2,
        }
    }

    /// The side of a stored code; `None` for 0 (no side) and for unknown codes.
    pub fn from_code(code: u32) -> Option<Side> {
        match code {
            1 => Some(Side::Client),
            2 => Some(Side::Server),
            _ => None,
        }
    }
}

/// Component whose CPU a profile shows. Always kept apart: a sidecar's cost is not its application's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Default, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Component {
    /// The service's own process, with the embedded library or other instrumentation.
    #[default]
    Application,
    /// The sidecar proxy.
    Proxy,
}

impl Component {
    /// `application` or `proxy`.
    pub fn as_str(self) -> &'static str {
        match self {
            Component::Application => "application",
            Component::Proxy => "proxy",
        }
    }

    /// Number used in stored rows and on the wire: 1 application, 2 proxy.
    pub fn code(self) -> u8 {
        match self {
            Component::Application => 1,
            Component::Proxy => 2,
        }
    }

    /// The component of a stored code; unknown codes are the application's.
    pub fn from_code(code: u32) -> Component {
        if code == 2 {
            Component::Proxy
        } else {
            Component::Application
        }
    }
}

impl std::str::FromStr for Component {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "application" => Ok(Component::Application),
            "proxy" => Ok(Component::Proxy),
            other => Err(format!("unknown component `{other}`: use `application` or `proxy`")),
        }
    }
}

/// What a stack sample was working for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Default)]
pub struct LabelSet {
    /// Side of the edge this process was on; `None` if the sample has no label.
    pub side: Option<Side>,
    /// Route template; empty when the sample carries no label.
    pub route: String,
    /// The peer release, if it identified itself.
    pub peer: Option<Release>,
}

impl LabelSet {
    /// The label set of samples outside of requests.
    pub fn none() -> LabelSet {
        LabelSet::default()
    }

    /// True for samples outside of requests.
    pub fn is_none(&self) -> bool {
        self.side.is_none() && self.route.is_empty()
    }
}

/// Cuts a name to [`MAX_NAME_CHARS`] characters and replaces control characters and direction marks, so that no stored
/// name can break a terminal, a log line or a page.
pub fn clean_name(name: &str) -> String {
    name.chars()
        .take(MAX_NAME_CHARS)
        .map(|c| if misleads(c) { '\u{fffd}' } else { c })
        .collect()
}

/// Characters that affect their surroundings instead of being shown: controls, and marks that change the direction of
/// text, by which a name can be made to look like another.
pub(crate) fn misleads(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
