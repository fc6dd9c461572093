//! Metrics that are left out: which, in what shape, why, and what to set so that they are taken.
//!
//! Guarantees: reasons, shapes and remedies are fixed texts; names that senders chose are cut and cleaned, and at most
//! [`MOST_NAMED`] are kept of a request (all are counted).

use super::Decoded;
use crate::workload::clean_name;

/// Metrics of one request that are named.
const MOST_NAMED: usize = 32;
/// Characters kept of a metric's name.
const MOST_CHARS: usize = 80;

/// A metric that was left out of a request, or some of its points.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedMetric {
    /// Service that sent it; empty when it did not say.
    pub service: String,
    /// Name of the metric.
    pub metric: String,
    /// `cumulative histogram`, `gauge`, ...
    pub shape: &'static str,
    /// Why, in one word.
    pub reason: &'static str,
    /// Data points.
    pub points: u64,
}

impl RefusedMetric {
    /// What that means, and what to do.
    pub fn remedy(&self) -> &'static str {
        match self.reason {
            "unknown_metric" => {
                "only durations of requests are taken: `http.server.request.duration`, `http.client.request.duration`, \
                 `rpc.server.call.duration`, `rpc.client.call.duration` and their older names"
            }
            "not_a_histogram" => "a duration of requests is taken as a histogram only: record it with one",
            "no_temporality" => {
                "the histogram does not say what its counts begin with: set \
                 `OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE=delta` or `cumulative`"
            }
            "cumulative_base" => {
                "the process counted before this server knew it, so this only says where to begin; the next export counts. \
                 `OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE=delta` loses nothing when this server starts anew"
            }
            "max_cumulative_buckets" | "max_cumulative_buckets_per_process" => {
                "too much to remember: raise the limit of that name, send fewer attributes, or set \
                 `OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE=delta`, which needs no memory here"
            }
            "no_buckets" => "without buckets nothing is known but a mean: give the view of this metric bounds",
            "too_many_buckets" => {
                "more buckets than are taken at once: export fewer points or coarser buckets \
                 (`OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION`)"
            }
            "malformed_histogram" => "its bounds do not rise, or do not fit its counts",
            "histogram_scale" => "the scale of an exponential histogram is -10 to 20",
            "negative_duration" => "no request takes less than nothing; measure with a monotonic clock",
            "unknown_unit" => "the unit of a duration is `s`, `ms`, `us` or `ns`",
            "bad_times" => "a point ends before it begins",
            "older_than_retention" => {
                "it lies before everything that is kept (`retention`): is the sender's clock right?"
            }
            "in_the_future" => "it lies further in the future than `max_future`: is the sender's clock right?",
            "window_too_long" => {
                "it covers more than `max_window_seconds`: export more often (`OTEL_METRIC_EXPORT_INTERVAL`, milliseconds)"
            }
            "too_many_windows" => "more windows than `max_windows_per_request`: export fewer at once",
            "too_many_workloads" => "more processes report than `max_workloads` allows",
            "no_service_name" => "set `OTEL_SERVICE_NAME`",
            _ => "",
        }
    }
}

impl RefusedMetric {
    /// Adds it to those that are named.
    pub fn add_to(self, named: &mut Vec<RefusedMetric>) {
        let same = |known: &&mut RefusedMetric| {
            (known.reason, known.shape) == (self.reason, self.shape)
                && known.metric == self.metric
                && known.service == self.service
        };
        if let Some(known) = named.iter_mut().find(same) {
            known.points = known.points.saturating_add(self.points);
        } else if named.len() < MOST_NAMED {
            named.push(self);
        }
    }
}

impl Decoded {
    /// Counts points that are left out and names their metric.
    pub(super) fn refuse(
        &mut self,
        service: &str,
        metric: &str,
        shape: &'static str,
        reason: &'static str,
        points: u64,
    ) {
        if points == 0 {
            return;
        }
        self.reject(reason, points);
        let refused = RefusedMetric {
            service: service.to_owned(),
            metric: clean_name(metric).chars().take(MOST_CHARS).collect(),
            shape,
            reason,
            points,
        };
        refused.add_to(&mut self.refused);
    }
}
