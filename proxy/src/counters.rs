//! Counters of the data path that belong to no request: connections, refusals, retries, reloads.
//!
//! Guarantee: plain relaxed atomics, so counting never waits; a request that succeeds over a pooled connection touches
//! none of them.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};

/// The resource that ran out; its name in metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full(pub(crate) &'static str);

/// A count that only grows.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A current number.
#[derive(Debug, Default, Clone)]
pub(crate) struct Gauge(Arc<AtomicI64>);

impl Gauge {
    /// One more, until it is dropped.
    pub(crate) fn one(&self) -> InUse {
        self.0.fetch_add(1, Ordering::Relaxed);
        InUse(self.clone())
    }

    pub(crate) fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One unit of a gauge.
#[derive(Debug)]
pub(crate) struct InUse(Gauge);

impl Drop for InUse {
    fn drop(&mut self) {
        (self.0).0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The two sides of TLS connections, as metrics name them.
pub(crate) const INBOUND: &str = "inbound";
pub(crate) const OUTBOUND: &str = "outbound";

/// The counts of one process.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) connections: Count,
    connections_open: Gauge,
    pub(crate) http2_connections: Gauge,
    pub(crate) http2_streams: Gauge,
    pub(crate) http2_waiting: Gauge,
    pub(crate) http2_queue_timeouts: Count,
    pub(crate) endpoints_ejected: Gauge,
    pub(crate) endpoints_unhealthy: Gauge,
    pub(crate) health_checks: Count,
    pub(crate) health_check_failures: Count,
    pub(crate) ejections: Count,
    pub(crate) ejections_withheld: Count,
    pub(crate) accept_errors: Count,
    pub(crate) upstream_connections: Count,
    pub(crate) upstream_failures: Count,
    pub(crate) retries: Count,
    pub(crate) retry_budget_spent: Count,
    pub(crate) access_log_dropped: Count,
    pub(crate) pooled_failures: Count,
    pub(crate) lookups: Count,
    pub(crate) lookup_failures: Count,
    pub(crate) panics: Count,
    pub(crate) reloads: Count,
    pub(crate) reloads_refused: Count,
    pub(crate) tls_reloads: Count,
    pub(crate) tls_reloads_refused: Count,
    pub(crate) identities_refused: Count,
    tls_handshakes: Mutex<BTreeMap<&'static str, u64>>,
    tls_failures: Mutex<BTreeMap<(&'static str, &'static str), u64>>,
    /// When certificates expire, in seconds since 1970, by file.
    certificates: Mutex<BTreeMap<String, u64>>,
    tls_warned: Mutex<Option<Instant>>,
    refused: Mutex<BTreeMap<&'static str, u64>>,
    /// By filter.
    filter_failures: Mutex<BTreeMap<&'static str, u64>>,
    filter_warned: Mutex<Option<Instant>>,
    broken: Mutex<BTreeMap<&'static str, u64>>,
    full: Mutex<BTreeMap<&'static str, u64>>,
    warned: Mutex<Option<Instant>>,
}

/// Time between two warnings of the same kind.
const WARN_EVERY: Duration = Duration::from_secs(60);

impl Counters {
    /// Counts a connection as open until the guard is dropped.
    pub(crate) fn open_connection(&self) -> InUse {
        self.connections.add();
        self.connections_open.one()
    }

    /// Counts a request that was refused before it was forwarded.
    pub(crate) fn refuse(&self, reason: &'static str) {
        *self.refused.lock().entry(reason).or_default() += 1;
    }

    /// Counts a call of a filter that got no answer, and logs at most once a minute why.
    pub(crate) fn filter_failed(&self, filter: &'static str, service: &str, why: &dyn fmt::Display) {
        *self.filter_failures.lock().entry(filter).or_default() += 1;
        let mut warned = self.filter_warned.lock();
        if warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
            *warned = Some(Instant::now());
            tracing::warn!(filter, service, %why, "the service of a filter does not respond");
        }
    }

    /// Counts a connection or request refused for lack of resources, and logs at most once a minute.
    pub(crate) fn refuse_connection(&self, full: Full) {
        *self.full.lock().entry(full.0).or_default() += 1;
        let mut warned = self.warned.lock();
        if warned.is_some_and(|at| at.elapsed() < WARN_EVERY) {
            return;
        }
        *warned = Some(Instant::now());
        drop(warned);
        tracing::warn!(
            cause = full.0,
            "callers are refused because others use all available memory or connections: if that load is legitimate, raise the process's memory limit, \
             LimitNOFILE, or limits.memory_bytes, limits.max_connections and limits.share_of_caller"
        );
    }

    /// Counts a successful TLS handshake on one of the two sides.
    pub(crate) fn tls_handshake(&self, end: &'static str) {
        *self.tls_handshakes.lock().entry(end).or_default() += 1;
    }

    /// Counts a TLS failure, and logs at most once a minute.
    pub(crate) fn tls_failed(&self, end: &'static str, reason: &'static str, error: &dyn fmt::Display) {
        *self.tls_failures.lock().entry((end, reason)).or_default() += 1;
        let mut warned = self.tls_warned.lock();
        if warned.is_some_and(|at| at.elapsed() < WARN_EVERY) {
            return;
        }
        *warned = Some(Instant::now());
        drop(warned);
        tracing::warn!(listener = end, reason, %error, "TLS failed; further failures within a minute are only counted");
    }

    /// Replaces what is known about the expiry of certificates.
    pub(crate) fn certificates_end(&self, ends: BTreeMap<String, u64>) {
        *self.certificates.lock() = ends;
    }

    /// Counts a caller's connection that ended with an error.
    pub(crate) fn connection_broke(&self, reason: &'static str) {
        *self.broken.lock().entry(reason).or_default() += 1;
    }
}

/// The counts as Prometheus metrics.
#[derive(Debug)]
pub(crate) struct CounterMetrics(pub(crate) Arc<Counters>);

impl Collector for CounterMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let counters = &self.0;
        let gauges: [(&str, &str, &Gauge); 6] = [
            (
                "emberline_proxy_connections_open",
                "Open connections from callers",
                &counters.connections_open,
            ),
            (
                "emberline_proxy_http2_connections",
                "Open HTTP/2 connections to endpoints",
                &counters.http2_connections,
            ),
            (
                "emberline_proxy_http2_streams",
                "HTTP/2 streams to endpoints in use",
                &counters.http2_streams,
            ),
            (
                "emberline_proxy_http2_waiting",
                "Requests waiting for an HTTP/2 stream or for the connection it needs",
                &counters.http2_waiting,
            ),
            (
                "emberline_proxy_endpoints_ejected",
                "Endpoints that are ejected after consecutive errors",
                &counters.endpoints_ejected,
            ),
            (
                "emberline_proxy_endpoints_unhealthy",
                "Endpoints that fail their health checks",
                &counters.endpoints_unhealthy,
            ),
        ];
        for (name, help, gauge) in gauges {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(gauge.get()).encode(metric)?;
        }
        let plain: [(&str, &str, &Count); 21] = [
            (
                "emberline_proxy_http2_queue_timeouts",
                "Requests that found no HTTP/2 stream within timeouts.queue_ms",
                &counters.http2_queue_timeouts,
            ),
            (
                "emberline_proxy_connections",
                "Connections accepted from callers",
                &counters.connections,
            ),
            (
                "emberline_proxy_accept_errors",
                "Failed attempts to accept a connection",
                &counters.accept_errors,
            ),
            (
                "emberline_proxy_upstream_connections",
                "Connections opened to endpoints",
                &counters.upstream_connections,
            ),
            (
                "emberline_proxy_upstream_connection_failures",
                "Failed attempts to connect to an endpoint, even if another one was used instead",
                &counters.upstream_failures,
            ),
            (
                "emberline_proxy_health_checks",
                "Health checks of endpoints",
                &counters.health_checks,
            ),
            (
                "emberline_proxy_health_check_failures",
                "Failed health checks of endpoints",
                &counters.health_check_failures,
            ),
            (
                "emberline_proxy_outlier_ejections",
                "Ejections of endpoints after consecutive errors",
                &counters.ejections,
            ),
            (
                "emberline_proxy_outlier_ejections_withheld",
                "Errors that would have ejected an endpoint if outlier.max_ejected_percent allowed it",
                &counters.ejections_withheld,
            ),
            (
                "emberline_proxy_retries",
                "Requests resent: a pooled connection was closed, HTTP/2 reported them as not processed, or `retries` applied",
                &counters.retries,
            ),
            (
                "emberline_proxy_retry_budget_spent",
                "Requests that failed and were not retried because the retry budget was spent",
                &counters.retry_budget_spent,
            ),
            (
                "emberline_proxy_pooled_connection_failures",
                "Requests that failed and could not be resent because an endpoint closed a pooled connection under them: set \
                 timeouts.pool_idle_ms below its keep-alive time",
                &counters.pooled_failures,
            ),
            (
                "emberline_proxy_dns_lookups",
                "Lookups of names in `destinations`",
                &counters.lookups,
            ),
            (
                "emberline_proxy_dns_lookup_failures",
                "Failed lookups of names in `destinations`; the previous addresses are kept",
                &counters.lookup_failures,
            ),
            (
                "emberline_proxy_access_log_dropped",
                "Requests that are not in the access log because it could not be written, or not fast enough",
                &counters.access_log_dropped,
            ),
            (
                "emberline_proxy_panics",
                "Panics of the application that embeds the library",
                &counters.panics,
            ),
            (
                "emberline_proxy_config_reloads",
                "Configuration reloads that succeeded",
                &counters.reloads,
            ),
            (
                "emberline_proxy_config_reloads_refused",
                "Configuration reloads that failed",
                &counters.reloads_refused,
            ),
            (
                "emberline_proxy_tls_reloads",
                "Reloads of changed certificates that succeeded",
                &counters.tls_reloads,
            ),
            (
                "emberline_proxy_tls_reloads_refused",
                "Changes of certificates that could not be used; the previous ones stay in effect",
                &counters.tls_reloads_refused,
            ),
            (
                "emberline_proxy_tls_identities_refused",
                "Requests whose identity header does not fit the caller's certificate",
                &counters.identities_refused,
            ),
        ];
        for (name, help, count) in plain {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(count.get()).encode(metric)?;
        }
        let families = [
            (
                "emberline_proxy_overloads",
                "Connections closed and requests refused for lack of resources, by resource",
                &counters.full,
            ),
            (
                "emberline_proxy_requests_refused",
                "Requests refused, by reason",
                &counters.refused,
            ),
            (
                "emberline_proxy_connections_broken",
                "Connections from callers that ended with an error",
                &counters.broken,
            ),
        ];
        for (name, help, counts) in families {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (reason, count) in counts.lock().iter() {
                ConstCounter::new(*count).encode(family.encode_family(&[("reason", *reason)])?)?;
            }
        }
        let mut family = encoder.encode_descriptor(
            "emberline_proxy_filter_failures",
            "Calls of filters to other services that got no answer",
            None,
            MetricType::Counter,
        )?;
        for (filter, count) in counters.filter_failures.lock().iter() {
            ConstCounter::new(*count).encode(family.encode_family(&[("filter", *filter)])?)?;
        }
        let mut family = encoder.encode_descriptor(
            "emberline_proxy_tls_handshakes",
            "TLS handshakes that succeeded",
            None,
            MetricType::Counter,
        )?;
        for (listener, count) in counters.tls_handshakes.lock().iter() {
            ConstCounter::new(*count).encode(family.encode_family(&[("listener", *listener)])?)?;
        }
        let mut family = encoder.encode_descriptor(
            "emberline_proxy_tls_failures",
            "TLS connections that failed, by reason",
            None,
            MetricType::Counter,
        )?;
        for ((listener, reason), count) in counters.tls_failures.lock().iter() {
            let labels = [("listener", *listener), ("reason", *reason)];
            ConstCounter::new(*count).encode(family.encode_family(&labels)?)?;
        }
        let mut family = encoder.encode_descriptor(
            "emberline_proxy_tls_certificate_not_after_seconds",
            "When the certificate in a file expires, in seconds since 1970",
            None,
            MetricType::Gauge,
        )?;
        for (file, at) in counters.certificates.lock().iter() {
            let at = i64::try_from(*at).unwrap_or(i64::MAX);
            ConstGauge::new(at).encode(family.encode_family(&[("file", file.as_str())])?)?;
        }
        Ok(())
    }
}
