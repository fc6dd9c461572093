//! Limits on a window's request series: names within the limits, consistent numbers.
//!
//! Guarantee: a series over a limit keeps its counts; it loses names, and is added to the series with the remaining
//! names.

use std::{borrow::Cow, collections::HashMap};

use emberline_model::{
    Histogram, Release, RequestSeries, WorkloadWindow,
    histogram::{bucket_lower, bucket_upper},
    protocol::Protocol,
    route,
    workload::ROUTE_OTHER,
};

use super::{
    super::{cardinality::Cardinality, sender::SenderKey},
    config::{IngestLimits, MAX_BYTES, MAX_COUNT},
    outcome::{Outcome, count},
};

/// Methods kept by name; senders may invent any number of others.
const METHODS: [&str; 10] = [
    "", "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
];
/// Stands for all other methods.
const OTHER_METHOD: &str = "_OTHER";

/// Applies the limits of series.
pub(super) fn apply(
    window: &mut WorkloadWindow,
    sender: SenderKey,
    names: &mut Cardinality,
    limits: &IngestLimits,
    now_s: i64,
    outcome: &mut Outcome,
) {
    let mut kept: Vec<RequestSeries> = Vec::with_capacity(window.requests.len());
    // Index by all labels: folding makes different series equal.
    let mut known: HashMap<SeriesKey, usize> = HashMap::new();
    for mut series in std::mem::take(&mut window.requests) {
        let counts = series
            .duration
            .buckets()
            .iter()
            .map(|b| b.1)
            .chain([series.duration.zero_count()]);
        if counts.fold(0u64, u64::saturating_add) > MAX_COUNT {
            count(&mut outcome.rejected, "count_out_of_range", 1);
            continue;
        }
        repair_bounds(&mut series.duration);
        series.request_bytes = series.request_bytes.min(MAX_BYTES as u64);
        series.response_bytes = series.response_bytes.min(MAX_BYTES as u64);
        if !METHODS.contains(&series.method.as_str()) {
            OTHER_METHOD.clone_into(&mut series.method);
        }
        if Protocol::of_name(&series.protocol).is_none() {
            ROUTE_OTHER.clone_into(&mut series.protocol);
        }
        // Frameworks and proxies write a template in many ways.
        if let Cow::Owned(template) = route::normalise(&series.route) {
            series.route = template;
        }
        if series.route != ROUTE_OTHER && !names.admit_route(sender, &window.workload, &series.route, now_s) {
            ROUTE_OTHER.clone_into(&mut series.route);
            count(&mut outcome.changed, "max_routes_per_service", 1);
        }
        if series
            .peer
            .as_ref()
            .is_some_and(|peer| !names.admit_peer(sender, &window.workload, peer, now_s))
        {
            series.peer = None;
            count(&mut outcome.changed, "max_peers_per_service", 1);
        }
        if !series.destination.is_empty()
            && !names.admit_peer(sender, &window.workload, &named(&series.destination), now_s)
        {
            series.destination.clear();
            count(&mut outcome.changed, "max_peers_per_service", 1);
        }
        series.open = series.open.min(MAX_COUNT);
        series.streaming_s = series.streaming_s.clamp(0.0, MAX_COUNT as f64);
        let known_already = known.contains_key(&SeriesKey::of(&series));
        if !known_already && known.len() >= limits.max_series_per_window {
            ROUTE_OTHER.clone_into(&mut series.route);
            series.method.clear();
            series.peer = None;
            series.destination.clear();
            count(&mut outcome.changed, "max_series_per_window", 1);
        }
        match known.get(&SeriesKey::of(&series)) {
            Some(&at) => {
                let into: &mut RequestSeries = &mut kept[at];
                into.duration.merge(&series.duration);
                into.request_bytes = into.request_bytes.saturating_add(series.request_bytes);
                into.response_bytes = into.response_bytes.saturating_add(series.response_bytes);
                into.streaming_s += series.streaming_s;
                into.open = into.open.saturating_add(series.open);
            }
            None => {
                known.insert(SeriesKey::of(&series), kept.len());
                kept.push(series);
            }
        }
    }
    window.requests = kept;
}

/// A destination, counted among the peers that a service may name.
fn named(destination: &str) -> Release {
    Release {
        service: destination.to_owned(),
        ..Release::default()
    }
}

/// All labels of a series.
#[derive(PartialEq, Eq, Hash)]
struct SeriesKey(u8, String, String, Option<Release>, String, String, u16, bool);

impl SeriesKey {
    fn of(series: &RequestSeries) -> SeriesKey {
        SeriesKey(
            series.side.code(),
            series.route.clone(),
            series.method.clone(),
            series.peer.clone(),
            series.destination.clone(),
            series.protocol.clone(),
            series.status,
            series.error,
        )
    }
}

/// Third-party senders may omit minimum, maximum and sum, or send ones that contradict the buckets; quantiles are
/// clamped to them, so they are corrected from the buckets.
fn repair_bounds(histogram: &mut Histogram) {
    let (Some(first), Some(last)) = (
        histogram.buckets().first().copied(),
        histogram.buckets().last().copied(),
    ) else {
        return;
    };
    let lowest = if histogram.zero_count() > 0 {
        0.0
    } else {
        bucket_lower(first.0)
    };
    let highest = bucket_upper(last.0);
    let (min, max) = (histogram.min(), histogram.max());
    // Bounds at exact powers differ from the recorded value by rounding.
    let slack = 1.0 + 1e-6;
    let agrees = min * slack >= lowest && min <= max && max * slack >= bucket_lower(last.0) && max <= highest * slack;
    let sum_agrees = histogram.sum() > 0.0 && histogram.sum() <= highest * slack * histogram.count() as f64;
    if agrees && sum_agrees {
        return;
    }
    let middle = |index: i16| f64::midpoint(bucket_lower(index), bucket_upper(index));
    let estimated: f64 = histogram
        .buckets()
        .iter()
        .map(|&(index, n)| middle(index) * n as f64)
        .sum();
    let sum = if sum_agrees { histogram.sum() } else { estimated };
    let (min, max) = if agrees { (min, max) } else { (lowest, highest) };
    *histogram = Histogram::from_parts(histogram.zero_count(), sum, min, max, histogram.buckets().to_vec());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_histogram_without_bounds_still_has_quantiles() {
        let mut histogram = Histogram::from_parts(0, 0.0, 0.0, 0.0, [(-200, 4), (-100, 4)]);
        repair_bounds(&mut histogram);
        let p90 = histogram.quantile(0.9).unwrap();
        assert!(p90 > bucket_lower(-100) && p90 <= bucket_upper(-100), "{p90}");
        assert!(histogram.sum() > 0.0);
    }

    proptest! {
        #[test]
        fn bounds_that_were_recorded_are_left_alone(values in prop::collection::vec(0u64..10_000_000_000, 1..50)) {
            let mut histogram = Histogram::new();
            values.iter().for_each(|&v| histogram.record_ns(v));
            let before = histogram.clone();
            repair_bounds(&mut histogram);
            prop_assert_eq!(before, histogram);
        }
    }
}
