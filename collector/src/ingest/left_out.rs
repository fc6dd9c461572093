//! What was not stored as sent, in one form for every endpoint: what, how much, why, and what to do about it.
//!
//! Guarantees: every reason that a reader or a limit can give is explained here, whichever endpoint the request came
//! through: as JSON in the responses to uploads and pushes, as text in OTLP's `partial_success`, in the header
//! `emberline-left-out` if the protocol's response has no place for it, and in the status of scrapes. A remedy names
//! only what the sender or the operator can actually set.

use std::{borrow::Cow, collections::HashMap};

use emberline_model::otlp::Rejected;
use http::{HeaderMap, HeaderValue};
use serde::{Deserialize, Serialize};

use super::Accepted;

/// The header for responses that cannot say it in their body.
pub(crate) const HEADER: &str = "emberline-left-out";
/// The most characters of that header.
const MOST_HEADER: usize = 2_000;
/// The most items per reason that are named; the others are counted.
const MOST_SAID: usize = 8;

/// One item that was not stored as sent, as responses show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told<'r> {
    /// What it was; empty if the reason says it.
    pub what: Cow<'r, str>,
    /// The shape of a metric.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub shape: Cow<'r, str>,
    /// A fixed word, as in the metrics.
    pub reason: Cow<'r, str>,
    /// How much.
    pub count: u64,
    /// Of what.
    pub unit: Cow<'r, str>,
    /// A sentence.
    pub why: Cow<'r, str>,
    /// What to change.
    pub remedy: Cow<'r, str>,
}

fn is_empty(text: &str) -> bool {
    text.is_empty()
}

impl<'r> Told<'r> {
    pub(crate) fn of(rejected: &'r Rejected) -> Told<'r> {
        let (unit, why, remedy) = explained(rejected.reason);
        Told {
            what: rejected.what.as_str().into(),
            shape: rejected.shape.into(),
            reason: rejected.reason.into(),
            count: rejected.count,
            unit: unit.into(),
            why: why.into(),
            remedy: remedy.into(),
        }
    }

    /// Why, and what to do, as a sentence.
    pub(crate) fn advice(&self) -> String {
        let parts = [&*self.why, &*self.remedy].into_iter().filter(|part| !part.is_empty());
        parts.collect::<Vec<_>>().join("; ")
    }
}

impl std::fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} for reason `{}` ({}", self.count, self.reason, self.unit)?;
        if !self.what.is_empty() {
            write!(f, " of {}", self.what)?;
        }
        if !self.shape.is_empty() {
            write!(f, ", {}", self.shape)?;
        }
        f.write_str(")")?;
        match self.advice() {
            advice if advice.is_empty() => Ok(()),
            advice => write!(f, ": {advice}"),
        }
    }
}

/// All items of a list.
pub(crate) fn told(list: &[Rejected]) -> Vec<Told<'_>> {
    list.iter().map(Told::of).collect()
}

/// All of it as text; empty if everything was stored as sent.
pub(super) fn message(left_out: &[Rejected], changed: &[Rejected]) -> String {
    let words = |list: &[Rejected]| -> String {
        let mut said: HashMap<&str, usize> = HashMap::new();
        let mut told: Vec<String> = Vec::new();
        let mut unsaid = 0;
        for rejected in list {
            let of_reason = said.entry(rejected.reason).or_default();
            *of_reason += 1;
            match *of_reason <= MOST_SAID {
                true => told.push(Told::of(rejected).to_string()),
                false => unsaid += 1,
            }
        }
        if unsaid > 0 {
            told.push(format!("and {unsaid} more for the same reasons"));
        }
        told.join(" | ")
    };
    let mut parts = Vec::new();
    if !left_out.is_empty() {
        parts.push(format!("dropped: {}", words(left_out)));
    }
    if !changed.is_empty() {
        parts.push(format!("changed: {}", words(changed)));
    }
    parts.join("; ")
}

/// Puts it into a header, in ASCII and truncated.
pub(super) fn in_header(accepted: &Accepted, headers: &mut HeaderMap) {
    let message = accepted.message();
    if message.is_empty() {
        return;
    }
    let ascii: String = message
        .chars()
        .take(MOST_HEADER)
        .map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' })
        .collect();
    if let Ok(value) = HeaderValue::from_str(&ascii) {
        headers.insert(HEADER, value);
    }
}

/// The unit of a count, why, and the remedy.
fn explained(reason: &str) -> (&'static str, &'static str, &'static str) {
    const SAMPLES: &str = "samples";
    const POINTS: &str = "data points";
    const ITEMS: &str = "series and samples";
    match reason {
        "no_service_name" => (
            "items",
            "the service name is missing",
            "set the label `service_name` or the resource attribute `service.name` (`OTEL_SERVICE_NAME`)",
        ),
        "older_than_retention" => (
            ITEMS,
            "they are older than the retention period",
            "send them sooner, correct the sender's clock, upload with `time=received`, or raise `retention_hours`",
        ),
        "in_the_future" => (
            ITEMS,
            "they start further in the future than `max_future_seconds`",
            "correct the sender's clock",
        ),
        "window_too_long" => (
            ITEMS,
            "they cover more than `max_window_seconds`",
            "report more often (metrics: `OTEL_METRIC_EXPORT_INTERVAL`, milliseconds)",
        ),
        "too_many_windows" => (
            ITEMS,
            "the request has more windows than `max_windows_per_request` allows",
            "send several requests",
        ),
        "too_many_workloads" => (
            ITEMS,
            "too many processes are reporting, and this sender and service are at their share",
            "use instance names that stay the same when a process is replaced; `ingest.shares` in the server's status shows who fills the table",
        ),
        "too_many_profile_types" => (
            SAMPLES,
            "the service has reported too many profile types",
            "name profile types by what they measure, without variable parts",
        ),
        "too_many_profiles" => (
            SAMPLES,
            "too many profile types in one window",
            "send only the types you need",
        ),
        "negative_value" => (
            SAMPLES,
            "the profile type contains negative values, as a difference of two profiles does",
            "send the profile itself, not a difference",
        ),
        "value_out_of_range" => (
            SAMPLES,
            "a value is implausibly large for one stack",
            "check the unit of the values",
        ),
        "more_cpu_than_cores" => (
            SAMPLES,
            "this is more CPU time than 1,024 cores could use during the profile, so the unit or the duration is wrong",
            "set the type of the values with `kind` (cpu_nanoseconds, inuse_space, ...) or `sample_rate`, or the time of the recording with `from` and `until`",
        ),
        "other_event" => (
            SAMPLES,
            "the recording has too many events",
            "record a shorter time, or filter events in `perf script`",
        ),
        "stack_not_walked" => (SAMPLES, "the runtime could not walk their stacks", ""),
        "cut_off" => (SAMPLES, "the file is truncated", "let the recording finish"),
        "idle_and_memory_not_in_file" => (
            SAMPLES,
            "the converter dropped all but one of their values",
            "send the profiler's original output",
        ),
        "cumulative_without_instance" => (
            SAMPLES,
            "they are cumulative, but the process has no instance name",
            "set the label `instance`",
        ),
        "cumulative_out_of_order" => (
            SAMPLES,
            "a later profile of the same process has already arrived",
            "send profiles in order",
        ),
        "max_cumulative_rows" | "max_cumulative_rows_per_profile" => (
            SAMPLES,
            "too many stacks in cumulative profiles",
            "configure the process to send deltas",
        ),
        "duration_is_a_moment" => (
            SAMPLES,
            "the duration is implausibly long",
            "set the duration to the nanoseconds between start and end",
        ),
        "unknown_metric" => (
            POINTS,
            "only request durations are accepted",
            "use `http.server.request.duration`, `http.client.request.duration`, `rpc.server.call.duration`, `rpc.client.call.duration`, their older names, or gRPC's own `grpc.server.call.duration` and `grpc.client.call.duration`",
        ),
        "not_a_histogram" => (
            POINTS,
            "request durations are only accepted as histograms",
            "record the metric as a histogram",
        ),
        "no_temporality" => (
            POINTS,
            "the histogram has no temporality",
            "set `OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE=delta` or `cumulative`",
        ),
        "cumulative_base" => (
            POINTS,
            "the process started before this server first saw it, so this export only sets the starting point; the next one counts",
            "with `OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE=delta`, nothing is lost when this server restarts",
        ),
        "max_cumulative_buckets" | "max_cumulative_buckets_per_process" => (
            POINTS,
            "the limit of that name is reached",
            "raise it, send fewer attributes, or set `OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE=delta`, which needs no server memory",
        ),
        "no_buckets" => (
            POINTS,
            "without buckets, only the mean is known",
            "set bucket bounds in this metric's view",
        ),
        "too_many_buckets" => (
            POINTS,
            "too many buckets in one request",
            "export fewer points or coarser buckets (`OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION`)",
        ),
        "bounds_too_wide" => (
            POINTS,
            "most values are in one bucket from below 0.1 s to above 1 s, so quantiles are unknown",
            "set bounds in seconds in this metric's view, or `OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION=base2_exponential_bucket_histogram`",
        ),
        "malformed_histogram" => (POINTS, "bounds are not ascending or do not match the counts", ""),
        "histogram_scale" => (POINTS, "the scale of an exponential histogram must be -10 to 20", ""),
        "negative_duration" => (POINTS, "a duration is negative", "measure with a monotonic clock"),
        "unknown_unit" => (POINTS, "the unit of a duration must be `s`, `ms`, `us` or `ns`", ""),
        "bad_times" => (POINTS, "a data point ends before it starts", ""),
        "count_out_of_range" => (POINTS, "the number of requests in a window is implausibly large", ""),
        "max_routes_per_service" => (
            "series or label sets",
            "the service has too many routes; the others count as `other`",
            "report templates such as /cart/{id} instead of paths",
        ),
        "max_peers_per_service" => (
            "series or label sets",
            "the service has too many peers; the others count as unknown",
            "",
        ),
        "max_series_per_window" => (
            "series",
            "the window has too many series; the others count as `other`",
            "report fewer labels",
        ),
        "max_samples_per_profile" => (
            SAMPLES,
            "the profile has too many stacks; the smallest are folded into `[over the limit]`",
            "report more often",
        ),
        "max_exemplars_per_profile" => (
            SAMPLES,
            "too many samples carry a trace or span ID to keep all individually; all count in the sums",
            "",
        ),
        "go_stack_depth" => (
            SAMPLES,
            "Go's CPU profiler keeps 64 frames from the leaf, so outer functions cost more than is shown",
            "",
        ),
        "max_stack_depth" => (
            SAMPLES,
            "their stacks are too deep; `[frames cut]` replaces the middle",
            "",
        ),
        "invalid_utf8" => (
            "strings",
            "bytes that are not UTF-8 are shown as \u{fffd}",
            "encode text as UTF-8",
        ),
        "foreign_batch_id" => (
            "batches",
            "the batch ID names a different sender; it is stored as a batch without an ID, so resending it counts twice",
            "name the sender `namespace/service/version/instance/component`, as the library does",
        ),
        "duration_is_the_end" => (
            "profiles",
            "the duration is an end time and was read as one",
            "set the duration to the nanoseconds between start and end",
        ),
        "drop_frames_not_applied" => (
            "patterns",
            "`drop_frames` or `keep_frames` is invalid, so no frames were dropped",
            "use an RE2 regular expression",
        ),
        "profiles_added_up" => (
            "profiles",
            "the file has several profiles of one unit; they were added up like threads of one process",
            "if they belong to different processes, send each separately",
        ),
        "ratio_event" => (
            "lines",
            "the event is one quantity divided by another, which cannot be added up",
            "",
        ),
        "period_by_times" => (
            SAMPLES,
            "they have no period, so their timestamps were used",
            "add `period` to `perf script -F`, or set `sample_rate`",
        ),
        "period_assumed" => (
            SAMPLES,
            "they have no period, so 100 samples per second were assumed",
            "add `period` to `perf script -F`, or set `sample_rate`",
        ),
        "allocation_beside_its_sample" => (
            "events",
            "the recording has allocation samples, which already cover these",
            "",
        ),
        "dynamic_labels" => ("parts", "labels sent along with a recording are not supported", ""),
        _ => ("items", "", ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_told_with_what_how_much_why_and_a_remedy() {
        let rejected = Rejected::of("negative_value", "memory:inuse_space:bytes:space:bytes", 3);
        let message = message(std::slice::from_ref(&rejected), &[]);
        for word in [
            "3 for reason",
            "samples of memory:inuse_space",
            "negative_value",
            "difference",
            "send the profile itself",
        ] {
            assert!(message.contains(word), "{message}");
        }
        let json = serde_json::to_value(told(&[rejected])).unwrap();
        for field in ["what", "reason", "count", "unit", "why", "remedy"] {
            assert!(json[0].get(field).is_some_and(|value| value != ""), "{json}");
        }
    }

    #[test]
    fn a_metric_is_told_with_its_shape_and_what_to_set() {
        for (reason, word) in [
            ("unknown_metric", "http.server.request.duration"),
            ("not_a_histogram", "histogram"),
            ("no_temporality", "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"),
            (
                "cumulative_base",
                "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE=delta",
            ),
            ("max_cumulative_buckets", "limit of that name"),
            ("no_buckets", "bounds"),
            ("too_many_buckets", "coarser"),
            ("malformed_histogram", "bounds"),
            ("histogram_scale", "-10 to 20"),
            ("negative_duration", "clock"),
            ("unknown_unit", "`ms`"),
            ("bad_times", "before"),
            ("window_too_long", "OTEL_METRIC_EXPORT_INTERVAL"),
            ("no_service_name", "OTEL_SERVICE_NAME"),
        ] {
            let rejected = Rejected::of(reason, "m", 1).sent_by("shop", "gauge");
            let message = message(std::slice::from_ref(&rejected), &[]);
            assert!(message.contains(word) && message.contains("of m, gauge)"), "{message}");
        }
    }

    #[test]
    fn many_names_of_one_reason_are_counted_and_not_all_said() {
        let list: Vec<Rejected> = (0..11)
            .map(|n| Rejected::of("unknown_metric", &format!("m{n}"), 1))
            .collect();
        let message = message(&list, &[]);
        assert!(message.contains("m7") && !message.contains("m8"), "{message}");
        assert!(message.ends_with("and 3 more for the same reasons"), "{message}");
    }
}
