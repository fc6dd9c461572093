//! What was not kept as it came, in one shape for every door: what, how much, why, and what to do about it.
//!
//! Guarantees: every reason that a reader or a limit can give is explained here, whichever door the request came through:
//! as JSON in the answers of uploads and pushes, in words in `partial_success` of OTLP, in the header
//! `emberline-left-out` where a protocol's answer has no place for it, and on the board of scrapes. A remedy names only what
//! the sender or the operator can really set.

use emberline_model::otlp::Rejected;
use http::{HeaderMap, HeaderValue};
use serde::Serialize;

use super::Accepted;

/// The header of answers that cannot say it in their body.
pub(crate) const HEADER: &str = "emberline-left-out";
/// Most characters of that header.
const MOST_HEADER: usize = 2_000;

/// One thing that was not kept as it came.
#[derive(Debug, Serialize)]
pub(crate) struct Told<'r> {
    /// What it was; empty when the reason says it.
    what: &'r str,
    /// A fixed word, as in the metrics.
    reason: &'static str,
    /// How much.
    count: u64,
    /// Of what.
    unit: &'static str,
    /// In a sentence.
    why: &'static str,
    /// What to change.
    remedy: &'static str,
}

impl<'r> Told<'r> {
    pub(crate) fn of(rejected: &'r Rejected) -> Told<'r> {
        let (unit, why, remedy) = explained(rejected.reason);
        Told {
            what: &rejected.what,
            reason: rejected.reason,
            count: rejected.count,
            unit,
            why,
            remedy,
        }
    }
}

impl std::fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of reason `{}` ({}", self.count, self.reason, self.unit)?;
        if !self.what.is_empty() {
            write!(f, " of {}", self.what)?;
        }
        f.write_str(")")?;
        if !self.why.is_empty() {
            write!(f, ": {}", self.why)?;
        }
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        Ok(())
    }
}

/// All of a list.
pub(crate) fn told(list: &[Rejected]) -> Vec<Told<'_>> {
    list.iter().map(Told::of).collect()
}

/// All of it in words; empty when everything was taken as it is.
pub(super) fn message(left_out: &[Rejected], changed: &[Rejected]) -> String {
    let words = |list: &[Rejected]| -> String {
        let told: Vec<String> = list.iter().map(|rejected| Told::of(rejected).to_string()).collect();
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
            "send a label `service_name`, or the resource attribute `service.name`",
        ),
        "older_than_retention" => (
            ITEMS,
            "they are older than anything that is kept",
            "send sooner, upload with `time=received`, or raise --retention-hours",
        ),
        "in_the_future" => (
            ITEMS,
            "they begin more than ten minutes from now",
            "set the sender's clock",
        ),
        "window_too_long" => (ITEMS, "they cover more than a day", "report more often"),
        "too_many_windows" => (
            ITEMS,
            "the request has more windows than are taken at once",
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
        // Each of them is named with its metric and what to set (`model::otlp::RefusedMetric`).
        "cumulative_base"
        | "no_temporality"
        | "not_a_histogram"
        | "no_buckets"
        | "malformed_histogram"
        | "unknown_unit"
        | "bad_times"
        | "max_cumulative_buckets"
        | "max_cumulative_buckets_per_process"
        | "histogram_scale"
        | "too_many_buckets"
        | "negative_duration"
        | "unknown_metric"
        | "count_out_of_range" => (POINTS, "", ""),
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
        "dynamic_labels" => (
            "parts",
            "labels that the agent sends beside a recording are not read",
            "",
        ),
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
}
