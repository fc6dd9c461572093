//! OTLP ⇄ model. Guarantees: what a proxy encodes decodes to an equal [`WorkloadWindow`]; input from others is accepted
//! as far as it has a meaning here, and what is dropped is counted by reason, never silently. Every index of a
//! third-party profile is checked at both ends.
//!
//! All three layouts of profiles that share the package name are supported ([`read_profiles`]), and both kinds of
//! request as JSON.
//!
//! Source: opentelemetry-proto 1.11 (`metrics.v1`, `profiles.v1development`), OpenTelemetry semantic conventions.

mod buckets;
mod called;
mod durations;
mod first_generation;
mod generations;
pub(crate) mod json;
mod json_schemas;
mod points;
mod profiles;
mod requests;
mod shapes;
mod streams;
mod timestamps;
mod untaken;
mod writers;

pub use generations::{read_profiles, read_profiles_counting};
pub use json::{JsonError, metrics_to_protobuf, profiles_to_protobuf};
pub use profiles::{DecodeError, decode_profiles, decode_profiles_within, encode_profiles};
pub use requests::{bucket_room, decode_metrics, decode_metrics_within, encode_requests};
pub use shapes::{weigh_metrics, weigh_profiles};
pub use streams::{CumulativePoint, Growth, Streams, grow};
pub use untaken::{count_items, count_items_in_json};

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    resource::v1::Resource,
};

use crate::{
    batch::WorkloadWindow,
    workload::{Component, Release, UNKNOWN, Workload, clean_name},
};

/// Attribute and metric names on the wire.
pub mod names {
    /// Durations seen by the callee, seconds.
    pub const SERVER_DURATION: &str = "http.server.request.duration";
    /// Durations seen by the caller, seconds.
    pub const CLIENT_DURATION: &str = "http.client.request.duration";
    /// Requests finished in the window; sent for every window, including idle ones.
    pub const WINDOW_REQUESTS: &str = "emberline.window.requests";
    /// Body bytes received, per series.
    pub const REQUEST_BYTES: &str = "emberline.request.body.bytes";
    /// Body bytes sent, per series.
    pub const RESPONSE_BYTES: &str = "emberline.response.body.bytes";
    /// Seconds for which responses and connections continued beyond their latency, per series.
    pub const STREAMING: &str = "emberline.response.streaming.time";
    /// Streams and connections that are open at the end of the window, per series.
    pub const OPEN: &str = "emberline.request.open";
    /// Destination as the caller names it.
    pub const DESTINATION: &str = "server.address";
    /// Route template.
    pub const ROUTE: &str = "http.route";
    /// HTTP method.
    pub const METHOD: &str = "http.request.method";
    /// HTTP status.
    pub const STATUS: &str = "http.response.status_code";
    /// Present when the request failed.
    pub const ERROR_TYPE: &str = "error.type";
    /// The name of a [`Protocol`](crate::protocol::Protocol), or that of what others report.
    pub const PROTOCOL: &str = "network.protocol.name";
    /// Service at the other end.
    pub const PEER_SERVICE: &str = "service.peer.name";
    /// Its namespace.
    pub const PEER_NAMESPACE: &str = "service.peer.namespace";
    /// Its version (no convention names one yet).
    pub const PEER_VERSION: &str = "emberline.peer.version";
    /// `application` or `proxy`.
    pub const COMPONENT: &str = "emberline.component";
    /// `client` or `server`, on samples and byte counts.
    pub const SIDE: &str = "emberline.side";
    /// Number of samples in a row, if it is not value divided by period.
    pub const SAMPLE_COUNT: &str = "emberline.samples";
    /// GNU build id of a mapping.
    pub const BUILD_ID: &str = "process.executable.build_id.gnu";
    /// Samples actually taken per CPU second.
    pub const RATE_HZ: &str = "emberline.profile.rate_hz";
    /// Samples lost.
    pub const DROPPED: &str = "emberline.profile.dropped";
    /// Stacks truncated at the frame limit.
    pub const TRUNCATED: &str = "emberline.profile.truncated";
    /// CPU time of the sampled threads, nanoseconds.
    pub const CPU_NS: &str = "emberline.profile.cpu_ns";
    /// CPU time of the sampler itself, nanoseconds.
    pub const OVERHEAD_NS: &str = "emberline.profile.overhead_ns";
    /// Semantic conventions for the resource.
    pub const SERVICE: &str = "service.name";
    /// Namespace of the service.
    pub const NAMESPACE: &str = "service.namespace";
    /// Version of the service.
    pub const VERSION: &str = "service.version";
    /// Instance of the service.
    pub const INSTANCE: &str = "service.instance.id";
}

/// How many windows are searched for an existing one; requests with more are refused later.
const WINDOWS_SEARCHED: usize = 2048;

/// Part of a request that was dropped or changed, counted by reason.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rejected {
    /// A fixed text per reason, fit for a metric label.
    pub reason: &'static str,
    /// What it was, if the reason alone does not say: a profile type, an event, a metric; at most 200 characters.
    pub what: String,
    /// The shape that a metric came in (`gauge`, `cumulative histogram`, ...); empty for everything else.
    pub shape: &'static str,
    /// The sending service, if that helps to find the sender; otherwise empty.
    pub service: String,
    /// How many data points or samples.
    pub count: u64,
}

impl Rejected {
    /// With the name of what was dropped.
    pub fn of(reason: &'static str, what: &str, count: u64) -> Rejected {
        Rejected {
            reason,
            what: clean_name(what).chars().take(MOST_WHAT).collect(),
            count,
            ..Rejected::default()
        }
    }

    /// Adds the sending service and the shape.
    pub fn sent_by(self, service: &str, shape: &'static str) -> Rejected {
        Rejected {
            service: service.to_owned(),
            shape,
            ..self
        }
    }

    /// Adds to a list: existing entries are incremented, and the number of names per reason is limited, so that a
    /// sender cannot inflate the response.
    pub fn add_to(self, list: &mut Vec<Rejected>) {
        if self.count == 0 {
            return;
        }
        let same_reason = |r: &&mut Rejected| r.reason == self.reason;
        let same = |r: &&mut Rejected| {
            (r.reason, r.shape) == (self.reason, self.shape) && r.what == self.what && r.service == self.service
        };
        if let Some(known) = list.iter_mut().find(same) {
            known.count = known.count.saturating_add(self.count);
        } else if list.iter_mut().filter(same_reason).count() < MOST_NAMES {
            list.push(self);
        } else if let Some(last) = list.iter_mut().rfind(same_reason) {
            *last = Rejected {
                reason: self.reason,
                what: OTHERS.to_owned(),
                count: last.count.saturating_add(self.count),
                ..Rejected::default()
            };
        }
    }
}

/// The most characters of the name.
const MOST_WHAT: usize = 200;
/// The most names per reason.
const MOST_NAMES: usize = 32;
/// Stands for further names.
const OTHERS: &str = "others";

impl From<(&'static str, u64)> for Rejected {
    fn from((reason, count): (&'static str, u64)) -> Rejected {
        Rejected {
            reason,
            count,
            ..Rejected::default()
        }
    }
}

/// Contents of a request.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Decoded {
    /// Windows with at least one signal.
    pub windows: Vec<WorkloadWindow>,
    /// What was dropped.
    pub rejected: Vec<Rejected>,
    /// What was changed: text replaced, a unit or a rate assumed, profiles added up.
    pub changed: Vec<Rejected>,
    /// Cumulative points whose increase is not known yet.
    pub cumulative: Vec<CumulativePoint>,
}

impl Decoded {
    pub(crate) fn reject(&mut self, reason: &'static str, count: u64) {
        Rejected::from((reason, count)).add_to(&mut self.rejected);
    }

    /// Counts points of a metric that are dropped.
    fn refuse(&mut self, service: &str, metric: &str, shape: &'static str, reason: &'static str, points: u64) {
        self.leave_out(Rejected::of(reason, metric, points).sent_by(service, shape));
    }

    /// Counts points of a metric that are accepted but less reliable than they seem.
    fn doubt(&mut self, service: &str, metric: &str, shape: &'static str, reason: &'static str, points: u64) {
        self.change(Rejected::of(reason, metric, points).sent_by(service, shape));
    }

    /// A workload's window, created if missing.
    pub(crate) fn window(
        &mut self,
        workload: &Workload,
        component: Component,
        start_unix_s: i64,
        length_s: u32,
    ) -> &mut WorkloadWindow {
        let is_it = |w: &WorkloadWindow| {
            (w.start_unix_s, w.length_s, w.component) == (start_unix_s, length_s, component) && w.workload == *workload
        };
        // Only among the last ones, or a request of tiny windows would take quadratic time. A window that is not found
        // is duplicated, which adds up to the same.
        let first = self.windows.len().saturating_sub(WINDOWS_SEARCHED);
        let found = self.windows[first..].iter().rposition(is_it).map(|at| first + at);
        let at = found.unwrap_or_else(|| {
            self.windows.push(WorkloadWindow {
                workload: workload.clone(),
                component,
                start_unix_s,
                length_s,
                has_requests: false,
                has_profiles: false,
                requests: Vec::new(),
                profiles: Vec::new(),
            });
            self.windows.len() - 1
        });
        &mut self.windows[at]
    }

    /// Adds the contents of another request.
    pub fn append(&mut self, other: Decoded) {
        other.rejected.into_iter().for_each(|r| r.add_to(&mut self.rejected));
        other.changed.into_iter().for_each(|c| c.add_to(&mut self.changed));
        self.cumulative.extend(other.cumulative);
        for mut window in other.windows {
            let known = self.window(&window.workload, window.component, window.start_unix_s, window.length_s);
            known.has_requests |= window.has_requests;
            known.has_profiles |= window.has_profiles;
            known.requests.append(&mut window.requests);
            known.profiles.append(&mut window.profiles);
        }
    }

    /// Counts items dropped before they could be decoded.
    pub fn leave_out(&mut self, rejected: impl Into<Rejected>) {
        rejected.into().add_to(&mut self.rejected);
    }

    /// Counts what was changed.
    pub fn change(&mut self, changed: impl Into<Rejected>) {
        changed.into().add_to(&mut self.changed);
    }

    /// Number of dropped items.
    pub fn rejected_total(&self) -> u64 {
        self.rejected.iter().map(|r| r.count).sum()
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

fn find<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a Value> {
    attributes.iter().find(|a| a.key == key)?.value.as_ref()?.value.as_ref()
}

fn find_text(attributes: &[KeyValue], key: &str) -> Option<String> {
    value_text(find(attributes, key)?)
}

fn value_text(value: &Value) -> Option<String> {
    match value {
        Value::StringValue(text) => Some(clean_name(text)),
        Value::IntValue(number) => Some(number.to_string()),
        _ => None,
    }
}

fn find_int(attributes: &[KeyValue], key: &str) -> Option<i64> {
    match find(attributes, key)? {
        Value::IntValue(number) => Some(*number),
        Value::StringValue(text) => text.parse().ok(),
        _ => None,
    }
}

fn peer_attributes(peer: Option<&Release>) -> Vec<KeyValue> {
    let Some(peer) = peer else { return Vec::new() };
    vec![
        text(names::PEER_NAMESPACE, &peer.namespace),
        text(names::PEER_SERVICE, &peer.service),
        text(names::PEER_VERSION, &peer.version),
    ]
}

fn find_peer(attributes: &[KeyValue]) -> Option<Release> {
    Some(Release {
        service: find_text(attributes, names::PEER_SERVICE)?,
        namespace: find_text(attributes, names::PEER_NAMESPACE).unwrap_or_default(),
        version: find_text(attributes, names::PEER_VERSION).unwrap_or_else(|| UNKNOWN.to_owned()),
    })
}

fn resource(workload: &Workload, component: Component) -> Resource {
    Resource {
        attributes: vec![
            text(names::SERVICE, &workload.service),
            text(names::NAMESPACE, &workload.namespace),
            text(names::VERSION, &workload.version),
            text(names::INSTANCE, &workload.instance),
            text(names::COMPONENT, component.as_str()),
        ],
        ..Resource::default()
    }
}

/// The workload of a resource; `None` if it does not name its service.
fn workload_of(resource: Option<&Resource>) -> Option<(Workload, Component)> {
    let attributes = &resource?.attributes;
    let known = |key| find_text(attributes, key).filter(|text| !text.is_empty());
    let workload = Workload {
        service: known(names::SERVICE)?,
        namespace: known(names::NAMESPACE).unwrap_or_default(),
        version: known(names::VERSION).unwrap_or_else(|| UNKNOWN.to_owned()),
        instance: known(names::INSTANCE).unwrap_or_else(|| UNKNOWN.to_owned()),
    };
    let component = known(names::COMPONENT).and_then(|c| c.parse().ok()).unwrap_or_default();
    Some((workload, component))
}

fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "emberline".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    }
}
