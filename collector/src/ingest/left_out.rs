//! What was not kept as it came, in one shape for every door: what, how much, why, and what to do about it.
//!
//! Guarantees: every reason that a reader or a limit can give is explained here, whichever door the request came through:
//! as JSON in the answers of uploads and pushes, in words in `partial_success` of OTLP, in the header
//! `emberline-left-out` where a protocol's answer has no place for it, and on the board of scrapes. A remedy names only what
//! the sender or the operator can really set.

use std::{borrow::Cow, collections::HashMap};

use emberline_model::otlp::Rejected;
use http::{HeaderMap, HeaderValue};
use serde::{Deserialize, Serialize};

use super::Accepted;

/// The header of answers that cannot say it in their body.
pub(crate) const HEADER: &str = "emberline-left-out";
/// Most characters of that header.
const MOST_HEADER: usize = 2_000;
/// Most things of one reason that are said in words; the others are counted.
const MOST_SAID: usize = 8;

/// One thing that was not kept as it came, as answers say it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told<'r> {
    /// What it was; empty when the reason says it.
    pub what: Cow<'r, str>,
    /// The shape that a metric came in.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub shape: Cow<'r, str>,
    /// A fixed word, as in the metrics.
    pub reason: Cow<'r, str>,
    /// How much.
    pub count: u64,
    /// Of what.
    pub unit: Cow<'r, str>,
    /// In a sentence.
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

    /// Why, and what to do, in a sentence.
    pub(crate) fn advice(&self) -> String {
        let parts = [&*self.why, &*self.remedy].into_iter().filter(|part| !part.is_empty());
        parts.collect::<Vec<_>>().join("; ")
    }
}

impl std::fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of reason `{}` ({}", self.count, self.reason, self.unit)?;
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

/// All of a list.
pub(crate) fn told(list: &[Rejected]) -> Vec<Told<'_>> {
    list.iter().map(Told::of).collect()
}

/// All of it in words; empty when everything was taken as it is.
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
            told.push(format!("and {unsaid} more of the same reasons"));
        }
        told.join(" | ")
    };
    let mut parts = Vec::new();
    if !left_out.is_empty() {
        parts.push(format!("left out: {}", words(left_out)));
    }
    if !changed.is_empty() {
        parts.push(format!("kept in another form: {}", words(changed)));
    }
    parts.join("; ")
}

/// Says it in a header, in ASCII and cut where it is long.
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
            "they do not say whose they are",
            "send a label `service_name`, or the resource attribute `service.name` (`OTEL_SERVICE_NAME`)",
        ),
        "older_than_retention" => (
            ITEMS,
            "they are older than anything that is kept",
            "send sooner, set the sender's clock, upload with `time=received`, or raise `retention_hours`",
        ),
        "in_the_future" => (
            ITEMS,
            "they begin further in the future than `max_future_seconds`",
            "set the sender's clock",
        ),
        "window_too_long" => (
            ITEMS,
            "they cover more than `max_window_seconds`",
            "report more often (metrics: `OTEL_METRIC_EXPORT_INTERVAL`, milliseconds)",
        ),
        "too_many_windows" => (
            ITEMS,
            "the request has more windows than `max_windows_per_request`",
            "send several requests",
        ),
        "too_many_workloads" => (
            ITEMS,
            "more processes report than are kept apart, and this sender and service have their share",
            "name instances by what stays the same when a process is replaced; `ingest.shares` of the server's status says \
             who fills the table",
        ),
        "too_many_profile_types" => (
            SAMPLES,
            "the service has reported more types of profiles than are kept apart",
            "name types by what they measure, without numbers that change",
        ),
        "too_many_profiles" => (
            SAMPLES,
            "more types of profiles than a window holds",
            "send only the types that are looked at",
        ),
        "negative_value" => (
            SAMPLES,
            "the type holds negative values, as differences of what is in use do",
            "send the profile itself instead of a difference of two",
        ),
        "value_out_of_range" => (
            SAMPLES,
            "no program has so much in one stack",
            "check the unit of the values",
        ),
        "more_cpu_than_cores" => (
            SAMPLES,
            "that is more CPU time than 1,024 cores have while the profile lasted, so the unit is another one or the \
             recording is longer",
            "say what the numbers are with `kind` (cpu_nanoseconds, inuse_space, ...) or `sample_rate`, or when it was \
             recorded with `from` and `until`",
        ),
        "other_event" => (
            SAMPLES,
            "the recording has more events than are read",
            "write fewer with `perf script`",
        ),
        "stack_not_walked" => (SAMPLES, "the runtime could not walk their stacks", ""),
        "cut_off" => (SAMPLES, "the file ends in the middle of them", "record to the end"),
        "idle_and_memory_not_in_file" => (
            SAMPLES,
            "the converter dropped all but one of their numbers",
            "send what the sampler itself wrote",
        ),
        "cumulative_without_instance" => (
            SAMPLES,
            "they count from the start of a process that has no name",
            "send a label `instance`",
        ),
        "cumulative_out_of_order" => (
            SAMPLES,
            "a later count of that process was here before",
            "send in order",
        ),
        "max_cumulative_rows" | "max_cumulative_rows_per_profile" => (
            SAMPLES,
            "more stacks of counters than are remembered",
            "let the process send differences",
        ),
        "duration_is_a_moment" => (
            SAMPLES,
            "the duration is longer than any recording",
            "write the nanoseconds between start and end as the duration",
        ),
        "unknown_metric" => (
            POINTS,
            "only durations of requests are taken",
            "`http.server.request.duration`, `http.client.request.duration`, `rpc.server.call.duration`, \
             `rpc.client.call.duration` and their older names are",
        ),
        "not_a_histogram" => (
            POINTS,
            "a duration of requests is taken as a histogram only",
            "record it with one",
        ),
        "no_temporality" => (
            POINTS,
            "the histogram does not say what its counts begin with",
            "set `OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE=delta` or `cumulative`",
        ),
        "cumulative_base" => (
            POINTS,
            "the process counted before this server knew it, so this only says where to begin, and the next export counts",
            "`OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE=delta` loses nothing when this server restarts",
        ),
        "max_cumulative_buckets" | "max_cumulative_buckets_per_process" => (
            POINTS,
            "more to remember than the limit of that name allows",
            "raise it, send fewer attributes, or set `OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE=delta`, which needs \
             no memory here",
        ),
        "no_buckets" => (
            POINTS,
            "without buckets nothing is known but a mean",
            "give the view of this metric bounds",
        ),
        "too_many_buckets" => (
            POINTS,
            "more buckets than are taken at once",
            "export fewer points or coarser buckets (`OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION`)",
        ),
        "malformed_histogram" => (POINTS, "bounds do not rise, or do not fit the counts", ""),
        "histogram_scale" => (POINTS, "the scale of an exponential histogram is -10 to 20", ""),
        "negative_duration" => (
            POINTS,
            "no request takes less than nothing",
            "measure with a monotonic clock",
        ),
        "unknown_unit" => (POINTS, "the unit of a duration is `s`, `ms`, `us` or `ns`", ""),
        "bad_times" => (POINTS, "a point ends before it begins", ""),
        "count_out_of_range" => (POINTS, "no service answers so many requests in a window", ""),
        "max_routes_per_service" => (
            "series or label sets",
            "the service has more routes than are kept apart; the others are `other`",
            "report templates such as /cart/{id} instead of paths",
        ),
        "max_peers_per_service" => (
            "series or label sets",
            "the service has more peers than are kept apart",
            "",
        ),
        "max_series_per_window" => (
            "series",
            "the window has more series than are kept apart",
            "report fewer labels",
        ),
        "max_samples_per_profile" => (
            SAMPLES,
            "the profile has more stacks than are kept by name; the smallest are `[over the limit]`",
            "report more often",
        ),
        "max_exemplars_per_profile" => (
            SAMPLES,
            "more samples name a request than are kept one by one; all of them are in the sums",
            "",
        ),
        "max_stack_depth" => (
            SAMPLES,
            "their stacks are deeper than are kept; `[frames cut]` stands for the middle",
            "",
        ),
        "invalid_utf8" => (
            "strings",
            "what was no UTF-8 is shown as \u{fffd}",
            "write text as UTF-8",
        ),
        "foreign_batch_id" => (
            "batches",
            "the id names another sender than the batch is of; it is stored as a batch without an id, once more each time it is sent",
            "name the sender `namespace/service/version/instance/component`, as the library does",
        ),
        "duration_is_the_end" => (
            "profiles",
            "the duration was the moment of the end, and is read as that",
            "write the nanoseconds between start and end",
        ),
        "drop_frames_not_applied" => (
            "patterns",
            "`drop_frames` or `keep_frames` cannot be used, so nothing was dropped",
            "write a regular expression of RE2",
        ),
        "profiles_added_up" => (
            "profiles",
            "the file has several of one unit, and they were added up as threads of one process are",
            "send each by itself if they are not",
        ),
        "period_by_times" => (
            SAMPLES,
            "they carry no period, and were counted as the distance of their times",
            "add `period` to `perf script -F`, or give `sample_rate`",
        ),
        "period_assumed" => (
            SAMPLES,
            "they carry no period, and were counted as 100 in a second",
            "add `period` to `perf script -F`, or give `sample_rate`",
        ),
        "allocation_beside_its_sample" => (
            "events",
            "the recording has samples of allocations, which stand for these, too",
            "",
        ),
        "dynamic_labels" => ("parts", "labels that the agent sends with a recording are not read", ""),
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
            "3 of reason",
            "samples of memory:inuse_space",
            "negative_value",
            "differences",
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
        assert!(message.ends_with("and 3 more of the same reasons"), "{message}");
    }
}
