//! The proxy's configuration file (YAML).
//!
//! ```yaml
//! workload: {namespace: demo, service: frontend, version: v1, instance: frontend-1}
//! workers: 1                                   # threads of the data path
//! admin: 127.0.0.1:15000                       # /live /ready /metrics /config /profile
//! collector: {endpoint: "http://127.0.0.1:4317"}   # leave out: telemetry stays here, /metrics only
//!   # https://collector:4317 with tls: {ca_file: ca.pem, cert_file: own.pem, key_file: own.key, server_name: collector}
//! profiler: {hz: 99, enabled: true}
//! routes: ["/cart/{id}", "/checkout"]          # this workload's own API
//! inbound:                                     # requests to this workload
//!   - listen: 127.0.0.1:8080
//!     to: 127.0.0.1:9080
//!     protocol: auto                           # auto, http1, http2 or tcp
//!     trusted_callers: [10.0.0.0/8]            # who may introduce itself; or `identity: ignore`, `trusted` or `certificate`
//!     proxy_protocol: [10.1.0.0/24]            # load balancers that say whose connection it is; leave out: none
//!     tls: {cert_file: own.pem, key_file: own.key, client_ca_file: ca.pem}   # mode: strict; leave out: plaintext
//! outbound:                                    # requests of this workload to others
//!   - listen: 127.0.0.1:8081
//!     service: checkout
//!     routes: ["/checkout", "/quote/{id}"]
//!     destinations: [{address: 127.0.0.1:9101, weight: 50}, {address: 127.0.0.1:9102, weight: 50}]
//!     tls: {ca_file: ca.pem, cert_file: own.pem, key_file: own.key}   # towards the destinations; leave out: plaintext
//!     balancer: least_request                  # round_robin (default), random, peak_ewma, or maglev with `hash_on: {header: x-user}`
//!     timeouts: {connect_ms: 1000, request_ms: 30000, idle_ms: 60000, tcp_idle_ms: none}
//!     hosts: [checkout, "*.checkout.example"]  # leave out: every host; entries with the same `listen` share the listener
//!     filters: [{rate_limit: {requests: 100}}, {headers: {request: {set: {x-team: shop}}}}]   # or fault, cors, buffer
//! limits: {memory_bytes: 50000000, max_connections: 2000, max_header_bytes: 16384}
//! trace: {create: true, sampled: 0.01}         # for requests that carry no traceparent, or a stranger's
//! access_log: {path: /dev/stdout, format: json, sampled: 0.01}   # leave out: none
//! drain_seconds: 10
//! drain_delay_seconds: 5                       # not ready, but serving, before a stop; leave out: 0
//! ```
//!
//! Guarantees: an unknown key is an error that names the nearest known one; every message begins with `file:line` and
//! says what to write; a configuration that loads is consistent (no listener twice, no empty set of destinations).
//!
//! Wrong on purpose: of errors in the shape of the file only the first is reported, because the parser stops there.
//!
//! One file because its structs are the shape of the file, in the order in which it is written. How single values are read, and what
//! contradicts what, is in the folder.

mod balancing;
mod contradictions;
mod explain;
mod filters;
mod retries;
mod routing;
mod scalar;
mod timeouts;
mod tls;
mod trust;
mod value_match;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use emberline_client::Tls;
use emberline_model::Workload;
use emberline_yaml::Unreadable;
use serde::{Deserialize, Serialize};

use crate::route::{HostPattern, Template};
pub use balancing::{BalancerKind, BalancerOptions, CheckKind, HashOn, HealthConfig, OutlierConfig};
pub use explain::{ConfigError, Problem};
pub(crate) use filters::may_edit;
pub use filters::{
    BufferConfig, ConcurrencyConfig, CorsConfig, ExtAuthzConfig, ExtAuthzProtocol, FaultConfig, FilterConfig,
    HeaderEdits, HeadersConfig, RateLimitConfig, RateLimitEntryConfig, RateLimitKey, RateLimitServiceConfig,
    RateLimitValue,
};
pub use retries::{RetryConfig, RetryOn};
pub use routing::{ClusterConfig, PathMatch, RuleConfig, ShareConfig};
pub use scalar::Address;
pub use timeouts::Timeouts;
pub use tls::{InboundTls, OutboundTls, TlsMode};
pub(crate) use trust::Trust;
pub use trust::{IdentityRule, Network};
pub use value_match::ValueMatch;

/// A whole configuration file.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The workload this proxy belongs to.
    pub workload: WorkloadConfig,
    /// Data path threads, 1 to 64.
    #[serde(default = "defaults::workers", deserialize_with = "scalar::workers")]
    pub workers: u16,
    /// Address of the admin port.
    #[serde(default = "defaults::admin", deserialize_with = "scalar::socket_address")]
    pub admin: SocketAddr,
    /// Where to send telemetry; unset keeps it local.
    #[serde(default)]
    pub collector: Option<CollectorConfig>,
    /// The proxy's own sampler.
    #[serde(default)]
    pub profiler: ProfilerConfig,
    /// Path templates of this workload's own API, for inbound requests.
    #[serde(default)]
    pub routes: Vec<Template>,
    /// Listeners for requests to this workload.
    #[serde(default)]
    pub inbound: Vec<Inbound>,
    /// Listeners for this workload's requests to other services.
    #[serde(default)]
    pub outbound: Vec<Outbound>,
    /// Resource limits.
    #[serde(default)]
    pub limits: Limits,
    /// Trace context.
    #[serde(default)]
    pub trace: TraceConfig,
    /// Access log; unset writes none.
    #[serde(default)]
    pub access_log: Option<AccessLogConfig>,
    /// How long a stopping proxy or a removed listener waits for requests in flight, in seconds, 0 to 3600.
    #[serde(default = "defaults::drain_seconds", deserialize_with = "scalar::drain_seconds")]
    pub drain_seconds: u64,
    /// How long a stopping proxy keeps serving while `/ready` answers 503, in seconds, 0 to 3600, so that load
    /// balancers and Kubernetes stop sending traffic before connections are closed. `drain_seconds` begins after it.
    #[serde(default, deserialize_with = "scalar::drain_seconds")]
    pub drain_delay_seconds: u64,
}

/// The workload of a proxy.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct WorkloadConfig {
    /// Namespace of the service; optional.
    #[serde(default, deserialize_with = "scalar::optional_name")]
    pub namespace: String,
    /// Name of the service.
    #[serde(deserialize_with = "scalar::name")]
    pub service: String,
    /// Version of the service; default `unknown`.
    #[serde(default = "defaults::unknown", deserialize_with = "scalar::name")]
    pub version: String,
    /// Name of this instance; default: the host name.
    #[serde(default = "defaults::instance", deserialize_with = "scalar::name")]
    pub instance: String,
}

impl From<&WorkloadConfig> for Workload {
    fn from(config: &WorkloadConfig) -> Workload {
        Workload {
            namespace: config.namespace.clone(),
            service: config.service.clone(),
            version: config.version.clone(),
            instance: config.instance.clone(),
        }
    }
}

/// The collector.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CollectorConfig {
    /// The collector's OTLP/gRPC address, `http://host:port`, or `https://` for TLS.
    #[serde(deserialize_with = "scalar::endpoint")]
    pub endpoint: String,
    /// TLS for an `https` endpoint. Paths are relative to this file's directory; files are reloaded on change.
    #[serde(default, skip_serializing_if = "Tls::is_empty")]
    pub tls: Tls,
    /// Disk on which telemetry waits while the collector is away, and outlives the process; unset keeps it in 8 MiB of memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spool: Option<SpoolConfig>,
}

/// Where telemetry waits on disk.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SpoolConfig {
    /// Directory, relative to this file's; made if it does not exist. Proxies may share it: each has a folder inside, and
    /// takes over those of processes that ended.
    pub directory: PathBuf,
    /// Disk space in bytes, 1048576 to 1099511627776. When it is full, the oldest profiles go first, then the oldest requests.
    #[serde(default = "defaults::spool_bytes", deserialize_with = "scalar::memory")]
    pub max_bytes: u64,
}

impl SpoolConfig {
    /// The default space, 64 MiB, in a directory.
    pub fn new(directory: impl Into<PathBuf>) -> SpoolConfig {
        SpoolConfig {
            directory: directory.into(),
            max_bytes: defaults::spool_bytes(),
        }
    }
}

/// Settings of the proxy's own sampler.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ProfilerConfig {
    /// Samples per second of CPU time, 1 to 10000.
    #[serde(default = "defaults::hz", deserialize_with = "scalar::hz")]
    pub hz: u32,
    /// Whether the sampler runs.
    #[serde(default = "defaults::yes")]
    pub enabled: bool,
}

impl Default for ProfilerConfig {
    fn default() -> Self {
        ProfilerConfig {
            hz: defaults::hz(),
            enabled: true,
        }
    }
}

/// Protocol of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Detected per connection from its first bytes. A listener with routes expects HTTP: HTTP/2 is recognised by its
    /// preface, and anything that is not HTTP/1 either is refused. Elsewhere, anything but HTTP is forwarded as TCP. If
    /// the client is silent for `limits.detect_ms`, the destination is connected and the side that speaks first
    /// decides; protocols in which the server speaks first lose that time: use `tcp` for them.
    #[default]
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge (h2c), gRPC included.
    Http2,
    /// Opaque bytes.
    Tcp,
}

/// What requests are sent on over, whatever their callers speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum UpstreamProtocol {
    /// Over what they came: HTTP/1.1, or HTTP/2 with prior knowledge.
    #[default]
    Same,
    /// HTTP/1.1. gRPC, which needs HTTP/2, is refused (`grpc_over_http1`).
    Http1,
    /// HTTP/2 with prior knowledge. WebSocket over HTTP/1.1 is refused (`upgrade_over_http2`).
    Http2,
}

/// What the application is told of where a request came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ForwardedMode {
    /// What the caller says, if anything.
    #[default]
    Keep,
    /// The caller's address behind what the caller says, in `x-forwarded-for`, and in `forwarded` where that is there;
    /// `x-forwarded-proto` and `x-forwarded-host` where they are not.
    Append,
    /// The caller's address, protocol and host, and nothing of what the caller says.
    Replace,
}

/// A listener for requests to this workload.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Inbound {
    /// Address to listen on.
    #[serde(deserialize_with = "scalar::socket_address")]
    pub listen: SocketAddr,
    /// Address of the application.
    pub to: Address,
    /// Protocol.
    #[serde(default)]
    pub protocol: Protocol,
    /// HTTP version towards the application: `same` as the caller's, `http1` or `http2`.
    #[serde(default)]
    pub upstream_protocol: UpstreamProtocol,
    /// Whether caller identity headers are trusted. An untrusted caller cannot choose what is sampled and does not
    /// learn who responds. Default: callers with private addresses are trusted if the listener's own address is private
    /// or unspecified.
    #[serde(default)]
    pub identity: Option<IdentityRule>,
    /// What the application is told about the origin of a request, in `x-forwarded-for`, `x-forwarded-proto`,
    /// `x-forwarded-host` and `forwarded`: what the caller says (`keep`), the same followed by the caller's address
    /// (`append`), or only what the proxy knows (`replace`).
    #[serde(default)]
    pub forwarded: ForwardedMode,
    /// Trusted caller networks (CIDR).
    #[serde(default)]
    pub trusted_callers: Vec<Network>,
    /// Networks (CIDR) of load balancers whose connections begin with a PROXY protocol header, version 1 or 2. The
    /// address that it names counts as the caller's in everything but `limits`. From these networks, a connection
    /// without one is closed (`no_proxy_header`); from others, a header is not accepted.
    #[serde(default)]
    pub proxy_protocol: Vec<Network>,
    /// Filters that requests pass before the application, in order, and responses in reverse.
    #[serde(default)]
    pub filters: Vec<FilterConfig>,
    /// TLS; unset accepts plaintext. Paths are relative to this file's directory.
    #[serde(default)]
    pub tls: Option<InboundTls>,
    /// Timeouts.
    #[serde(default)]
    pub timeouts: Timeouts,
}

/// A service that this workload sends requests to, and the listener for them. Entries with the same address share a listener.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Outbound {
    /// Address to listen on. Entries with the same address share a listener, and are distinguished by `hosts`; with
    /// port 0, each has its own.
    #[serde(deserialize_with = "scalar::socket_address")]
    pub listen: SocketAddr,
    /// Name of the destination service.
    #[serde(deserialize_with = "scalar::name")]
    pub service: String,
    /// Hosts (`Host`, `:authority`) whose requests are for this service: `cart`, `cart.shop.svc`, or `*.cart.example`
    /// for all names that end like that. Exact ones win, then the longest wildcard. With a port (`cart:8080`) only for
    /// that port; a request without one means port 80. Default: every host that no other entry of the listener lists. A
    /// request for a host that no entry matches is answered 404 (`no_route`). `[]` is for a service that only rules of
    /// other entries lead to.
    #[serde(default)]
    pub hosts: Option<Vec<HostPattern>>,
    /// Path templates of the destination service's API.
    #[serde(default)]
    pub routes: Vec<Template>,
    /// Addresses of the service's instances.
    pub destinations: Vec<DestinationConfig>,
    /// More clusters of the service, such as a canary, which get the requests that `rules` send to them.
    #[serde(default)]
    pub clusters: Vec<ClusterConfig>,
    /// Which cluster gets a request. The first rule whose conditions all hold decides; without one it is `destinations`.
    #[serde(default)]
    pub rules: Vec<RuleConfig>,
    /// Filters that requests pass before the service, in order, and responses in reverse.
    #[serde(default)]
    pub filters: Vec<FilterConfig>,
    /// TLS towards the destinations; unset sends plaintext. Paths are relative to this file's directory.
    #[serde(default)]
    pub tls: Option<OutboundTls>,
    /// Which endpoint gets the next request or TCP connection: each in turn, one at random, the less busy of two, the
    /// faster of two, or by the hash of a key (`ring_hash`, `maglev`). All respect weights.
    #[serde(default)]
    pub balancer: BalancerKind,
    /// The key of `ring_hash` and `maglev`. Requests without it go to a random endpoint, as do TCP connections unless it is
    /// `source_address`.
    #[serde(default)]
    pub hash_on: Option<HashOn>,
    /// Details of balancers.
    #[serde(default)]
    pub balancer_options: BalancerOptions,
    /// Ejects endpoints that fail; `outlier: {}` does so with the defaults. Off by default, as in Envoy and Linkerd: an endpoint
    /// that fails keeps its share, so the errors of a release are seen where they arise.
    #[serde(default)]
    pub outlier: Option<OutlierConfig>,
    /// Checks the health of endpoints; off by default.
    #[serde(default)]
    pub health: Option<HealthConfig>,
    /// Retries.
    #[serde(default)]
    pub retries: RetryConfig,
    /// Protocol.
    #[serde(default)]
    pub protocol: Protocol,
    /// HTTP version towards the destinations: `same` as the caller's, `http1` or `http2`.
    #[serde(default)]
    pub upstream_protocol: UpstreamProtocol,
    /// Timeouts.
    #[serde(default)]
    pub timeouts: Timeouts,
}

/// One address of a service.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DestinationConfig {
    /// `host:port`; a name stands for all its addresses, which are looked up again when its TTL expires.
    pub address: Address,
    /// Share of the requests, relative to the other destinations' weights; 0 sends none. At most 1000000.
    #[serde(default = "defaults::weight", deserialize_with = "scalar::weight")]
    pub weight: u32,
}

/// Resource limits on what callers can make the proxy hold.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Memory for callers: connections, heads and requests in flight, together. Default: half of what the cgroup's memory limit
    /// leaves after the proxy's own needs.
    #[serde(deserialize_with = "scalar::optional_memory")]
    pub memory_bytes: Option<usize>,
    /// Connections from callers, across all listeners and workers. Default: as many as file descriptors allow. At the limit, the
    /// longest idle connection is closed to make room, otherwise the new one.
    #[serde(deserialize_with = "scalar::optional_positive")]
    pub max_connections: Option<usize>,
    /// Share of these limits that one caller address may use on inbound listeners, 0.01 to 1.
    #[serde(deserialize_with = "scalar::share_of_caller")]
    pub share_of_caller: f64,
    /// Size of a request or response head, or of an HTTP/2 header list, in bytes.
    #[serde(deserialize_with = "scalar::header_bytes")]
    pub max_header_bytes: usize,
    /// Time to receive a whole request head, or the HTTP/2 preface, or to complete a TLS handshake, in milliseconds.
    #[serde(deserialize_with = "scalar::milliseconds")]
    pub header_ms: u64,
    /// How long a caller's connection may stay open without a request, in milliseconds. Over HTTP/2, a GOAWAY is sent then or up to a
    /// quarter of that time later.
    #[serde(deserialize_with = "scalar::milliseconds")]
    pub keep_alive_ms: u64,
    /// How long a caller's connection is used, give or take a tenth, in milliseconds, or `none`. Requests in flight
    /// complete: over HTTP/1.1 the next response says `Connection: close`, over HTTP/2 a GOAWAY is sent. TCP and
    /// WebSocket connections do not retire.
    #[serde(
        deserialize_with = "scalar::milliseconds_or_none",
        serialize_with = "scalar::or_none"
    )]
    pub connection_age_ms: Option<u64>,
    /// How long a caller may neither send its body nor read its response, in milliseconds.
    #[serde(deserialize_with = "scalar::milliseconds")]
    pub body_idle_ms: u64,
    /// How long `protocol: auto` waits for the client's first bytes before it also listens to the destination, in milliseconds.
    #[serde(deserialize_with = "scalar::milliseconds")]
    pub detect_ms: u64,
    /// Idle connections kept per destination and worker; fewer if file descriptors are scarce.
    #[serde(deserialize_with = "scalar::positive")]
    pub max_idle_connections: usize,
    /// Concurrent streams per HTTP/2 connection.
    #[serde(deserialize_with = "scalar::positive_u32")]
    pub max_streams: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            memory_bytes: None,
            max_connections: None,
            share_of_caller: 0.75,
            max_header_bytes: 16_384,
            header_ms: 10_000,
            keep_alive_ms: 75_000,
            connection_age_ms: None,
            body_idle_ms: 60_000,
            detect_ms: 1_000,
            max_idle_connections: 256,
            max_streams: 100,
        }
    }
}

/// How entries of the access log are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AccessLogFormat {
    /// One JSON object per line, with Envoy's names; times in milliseconds.
    #[default]
    Json,
    /// Envoy's default text format, with the caller's address where it has X-Forwarded-For.
    Text,
}

/// The access log: a line per request, written when it has ended.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AccessLogConfig {
    /// File to append to, relative to this file's directory, or `/dev/stdout`. If log rotation moves the file, it is
    /// created again within a second.
    pub path: PathBuf,
    /// Format.
    #[serde(default)]
    pub format: AccessLogFormat,
    /// Share of successful requests that are written, 0 to 1. Failed requests and those with a response flag always are.
    #[serde(default = "defaults::all", deserialize_with = "scalar::share")]
    pub sampled: f64,
}

/// Whose `sampled` flag is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TraceTrust {
    /// That of callers whose identity is trusted.
    #[default]
    Identity,
    /// Everybody's.
    Everybody,
    /// Nobody's.
    Nobody,
}

/// Trace context (W3C `traceparent`): new ones for requests that carry none. One that is there is passed on untouched,
/// but for the `sampled` flag of callers that are not trusted, which is drawn anew, and their `tracestate`.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct TraceConfig {
    /// Whose `sampled` flag is kept; for other callers the proxy decides.
    pub trust: TraceTrust,
    /// Whether to start a trace for requests without trace context.
    pub create: bool,
    /// Whether requests without `x-request-id` get one (a random UUID), and untrusted callers' requests a new one. It
    /// is in the access log.
    pub request_id: bool,
    /// Share of new traces with the `sampled` flag set, 0 to 1: what applications with a parent-based sampler will record.
    #[serde(deserialize_with = "scalar::share")]
    pub sampled: f64,
}

impl Default for TraceConfig {
    fn default() -> Self {
        TraceConfig {
            trust: TraceTrust::default(),
            create: true,
            request_id: false,
            sampled: 0.01,
        }
    }
}

mod defaults {
    use std::net::{Ipv4Addr, SocketAddr};

    pub(super) fn workers() -> u16 {
        1
    }
    pub(super) fn admin() -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, 15_000))
    }
    pub(super) fn drain_seconds() -> u64 {
        10
    }
    pub(super) fn spool_bytes() -> u64 {
        64 << 20
    }
    pub(super) fn hz() -> u32 {
        99
    }
    pub(super) fn yes() -> bool {
        true
    }
    pub(super) fn weight() -> u32 {
        1
    }
    pub(super) fn all() -> f64 {
        1.0
    }
    pub(super) fn unknown() -> String {
        emberline_model::workload::UNKNOWN.to_owned()
    }
    /// The host's name: within a release it tells instances apart, and it survives a restart.
    pub(super) fn instance() -> String {
        std::fs::read_to_string("/proc/sys/kernel/hostname")
            .map(|name| name.trim().to_owned())
            .ok()
            .filter(|name| !name.is_empty())
            .unwrap_or_else(unknown)
    }
}

/// Reads and checks a configuration file.
///
/// # Errors
/// When it cannot be read, is not YAML of this shape, or contradicts itself.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let text = emberline_yaml::read_file(path).map_err(|error| match error {
        Unreadable::Io(source) => ConfigError::Unreadable {
            path: path.to_owned(),
            source,
        },
        Unreadable::TooLarge => ConfigError::TooLarge {
            path: path.to_owned(),
            limit: emberline_yaml::MAX_FILE_BYTES,
        },
    })?;
    let mut config = parse(path, &text)?;
    // Absolute, so that the same file says the same from every working directory.
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    if let Some(folder) = absolute.parent() {
        if let Some(collector) = &mut config.collector {
            collector.tls = collector.tls.in_folder(folder);
            if let Some(spool) = &mut collector.spool {
                spool.directory = folder.join(&spool.directory);
            }
        }
        if let Some(log) = &mut config.access_log {
            log.path = folder.join(&log.path);
        }
        let inbound = config.inbound.iter_mut().filter_map(|inbound| inbound.tls.as_mut());
        inbound.for_each(|tls| tls.in_folder(folder));
        let outbound = config.outbound.iter_mut().filter_map(|outbound| outbound.tls.as_mut());
        outbound.for_each(|tls| tls.in_folder(folder));
    }
    Ok(config)
}

/// Checks the text of a configuration; `path` only names it in messages.
///
/// # Errors
/// As [`load`].
pub fn parse(path: &Path, text: &str) -> Result<Config, ConfigError> {
    if text.trim().is_empty() {
        return Err(ConfigError::one(
            path,
            Problem::new(1, "the file is empty: add at least `workload` and a listener"),
        ));
    }
    let one = |problem| ConfigError::one(path, problem);
    let config: Config = emberline_yaml::from_str_with_examples(text, explain::example_of).map_err(one)?;
    let places = emberline_yaml::parse(text).map_err(one)?;
    let problems = contradictions::find(&config, &places);
    if problems.is_empty() {
        Ok(config)
    } else {
        Err(ConfigError::Invalid {
            path: path.to_owned(),
            problems,
        })
    }
}
