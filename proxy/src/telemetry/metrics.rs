//! The totals as Prometheus metrics: register a [`Telemetry`] with `Registry::register_collector`.
//!
//! Guarantee: counters never decrease while the process runs, and the duration buckets are exact: their bounds are
//! powers of two, which are also bounds of the exponential histogram.

use std::{collections::BTreeMap, fmt};

use emberline_model::{Histogram, RequestSeries, Side, protocol::StatusKind};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Unit,
};

use super::{ResponseFlags, Telemetry};

/// Bounds of duration buckets are 2^k seconds for these k: 0.12 ms to 128 s.
const BUCKET_EXPONENTS: std::ops::RangeInclusive<i32> = -13..=7;

impl Collector for Telemetry {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let totals = self.totals();
        encode_counts(&mut encoder, &totals)?;
        encode_durations(&mut encoder, &totals)?;

        let mut in_flight = encoder.encode_descriptor(
            "emberline_proxy_requests_in_flight",
            "Requests in flight",
            None,
            MetricType::Gauge,
        )?;
        for side in [Side::Client, Side::Server] {
            let labels = [("side", side.as_str())];
            ConstGauge::new(self.in_flight(side)).encode(in_flight.encode_family(&labels)?)?;
        }

        let counters = self.counters();
        let mut flags = encoder.encode_descriptor(
            "emberline_proxy_response_flags",
            "Failed or aborted requests, by Envoy response flag",
            None,
            MetricType::Counter,
        )?;
        for ((name, _), count) in ResponseFlags::ALL.into_iter().zip(counters.flags) {
            ConstCounter::new(count).encode(flags.encode_family(&[("flag", name)])?)?;
        }
        let mut folded = encoder.encode_descriptor(
            "emberline_proxy_names_folded",
            "Names folded into `other` because a table was full: requests for peers, combinations for labels and series",
            None,
            MetricType::Counter,
        )?;
        let full = [
            ("labels", "full", counters.labels_folded),
            ("series", "full", counters.series_folded),
        ];
        let of_peers = counters.peers_folded.map(|(cause, count)| ("peers", cause, count));
        for (table, cause, count) in of_peers.into_iter().chain(full) {
            ConstCounter::new(count).encode(folded.encode_family(&[("table", table), ("cause", cause)])?)?;
        }
        let peers = encoder.encode_descriptor(
            "emberline_proxy_peers",
            "Peer releases tracked",
            None,
            MetricType::Gauge,
        )?;
        ConstGauge::new(i64::try_from(counters.peers).unwrap_or(i64::MAX)).encode(peers)?;
        let plain = [
            (
                "emberline_proxy_upstream_responses",
                "Response heads received from upstreams",
                counters.upstream_count as f64,
                None,
            ),
            (
                "emberline_proxy_upstream_wait",
                "Time from sending a request upstream to its response head",
                counters.upstream_seconds,
                Some(Unit::Seconds),
            ),
            (
                "emberline_proxy_invalid_peer_headers",
                "Invalid identity headers",
                counters.peers_invalid as f64,
                None,
            ),
            (
                "emberline_proxy_windows_lost",
                "Windows of a thread dropped because the exporter did not collect them",
                counters.windows_lost as f64,
                None,
            ),
        ];
        for (name, help, value, unit) in plain {
            let metric = encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Counter)?;
            ConstCounter::new(value).encode(metric)?;
        }
        Ok(())
    }
}

/// Requests and bytes per series.
fn encode_counts(encoder: &mut DescriptorEncoder<'_>, totals: &[RequestSeries]) -> fmt::Result {
    type Read = fn(&RequestSeries) -> u64;
    let families: [(&str, &str, Option<Unit>, Read); 3] = [
        ("emberline_proxy_requests", "Finished requests", None, |s| {
            s.duration.count()
        }),
        (
            "emberline_proxy_request_size",
            "Body bytes received from callers",
            Some(Unit::Bytes),
            |s| s.request_bytes,
        ),
        (
            "emberline_proxy_response_size",
            "Body bytes sent to callers",
            Some(Unit::Bytes),
            |s| s.response_bytes,
        ),
    ];
    for (name, help, unit, read) in families {
        let mut family = encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Counter)?;
        for series in totals {
            let status = series.status.to_string();
            let (namespace, service, version) = match &series.peer {
                Some(peer) => (peer.namespace.as_str(), peer.service.as_str(), peer.version.as_str()),
                None => ("", "", ""),
            };
            let labels = [
                ("side", series.side.as_str()),
                ("route", series.route.as_str()),
                ("method", series.method.as_str()),
                ("protocol", series.protocol.as_str()),
                ("status", status.as_str()),
                ("error", if series.error { "true" } else { "false" }),
                ("destination", series.destination.as_str()),
                ("peer_namespace", namespace),
                ("peer_service", service),
                ("peer_version", version),
            ];
            ConstCounter::new(read(series)).encode(family.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

/// Durations per side and route.
fn encode_durations(encoder: &mut DescriptorEncoder<'_>, totals: &[RequestSeries]) -> fmt::Result {
    let mut by_route: BTreeMap<(Side, &str), Histogram> = BTreeMap::new();
    let answered = totals
        .iter()
        .filter(|s| !StatusKind::of_name(&s.protocol).is_given_up(s.status));
    for series in answered {
        by_route
            .entry((series.side, series.route.as_str()))
            .or_default()
            .merge(&series.duration);
    }
    let mut family = encoder.encode_descriptor(
        "emberline_proxy_request_duration",
        "Latency from request head to end of response, or to the response head for streams",
        Some(&Unit::Seconds),
        MetricType::Histogram,
    )?;
    for ((side, route), histogram) in &by_route {
        let labels = [("side", side.as_str()), ("route", *route)];
        encode_histogram(&mut family.encode_family(&labels)?, histogram)?;
    }
    Ok(())
}

fn encode_histogram(metric: &mut MetricEncoder<'_>, histogram: &Histogram) -> fmt::Result {
    // The encoder wants counts per bucket and sums them up itself.
    let mut below = 0;
    let mut buckets: Vec<(f64, u64)> = BUCKET_EXPONENTS
        .map(|exponent| {
            // Bucket 32 k - 1 ends at 2^k seconds, bound included.
            let up_to_here = histogram.count() - histogram.count_above((32 * exponent - 1) as i16);
            let here = up_to_here - below;
            below = up_to_here;
            (f64::from(exponent).exp2(), here)
        })
        .collect();
    buckets.push((f64::INFINITY, histogram.count() - below));
    metric.encode_histogram::<NoLabelSet>(histogram.sum(), histogram.count(), &buckets, None)
}
