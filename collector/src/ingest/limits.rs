//! What is taken from a decoded request. Everything a sender can grow is bounded here.
//!
//! Guarantees: nothing disappears in silence: what is left out is counted by reason, what is folded keeps its value (a
//! route over the limit becomes `other`, samples over the limit keep their labels and become the stack
//! `[over the limit]`, profiles of one type and window are added up). A window of which nothing is left is not stored. After this step no number can overflow a sum over a day, and every histogram's minimum and
//! maximum agree with its buckets.
//!
//! Wrong on purpose: a window that straddles the oldest kept instant is left out whole.

pub(crate) mod config;
pub(crate) mod outcome;

use std::{borrow::Cow, collections::HashMap, time::Duration};

use self::{
    config::{IngestLimits, MAX_BYTES, MAX_COUNT},
    outcome::{Outcome, count},
};
use super::{cardinality::Cardinality, profile_limits, sender::SenderKey};
use emberline_model::{
    Histogram, Release, RequestSeries, WorkloadWindow,
    histogram::{bucket_lower, bucket_upper},
    otlp::{Decoded, Rejected},
    route,
    workload::ROUTE_OTHER,
};

/// Methods and protocols kept by name; senders may invent others without end.
const METHODS: [&str; 10] = [
    "", "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
];
const PROTOCOLS: [&str; 4] = ["http/1.1", "http/2", "grpc", "tcp"];
/// Method that is not among those.
const OTHER_METHOD: &str = "_OTHER";

/// Reason of windows whose process gets no place: the one refusal of a part that may be sent again.
pub(super) const TOO_MANY_WORKLOADS: &str = "too_many_workloads";

/// Applies all limits; the windows that remain can be stored.
pub(crate) fn apply(
    decoded: Decoded,
    sender: SenderKey,
    names: &mut Cardinality,
    limits: &IngestLimits,
    now_unix_s: i64,
) -> (Vec<WorkloadWindow>, Outcome) {
    let mut outcome = Outcome {
        rejected: decoded.rejected,
        changed: decoded.changed,
    };
    let mut windows = Vec::with_capacity(decoded.windows.len().min(limits.max_windows_per_request));
    for mut window in decoded.windows {
        let refused = if windows.len() >= limits.max_windows_per_request {
            Some("too_many_windows")
        } else {
            refuse_window(&window, sender, names, limits, now_unix_s)
        };
        match refused {
            Some(reason) => {
                let rejected = match window.requests.is_empty() {
                    true => Rejected::from((reason, items(&window))),
                    false => Rejected::of(reason, "durations of requests", items(&window))
                        .sent_by(&window.workload.service, "window"),
                };
                rejected.add_to(&mut outcome.rejected);
            }
            None => {
                limit_requests(&mut window, sender, names, limits, now_unix_s, &mut outcome);
                let held_profiles = !window.profiles.is_empty();
                profile_limits::apply(&mut window, sender, names, limits, now_unix_s, &mut outcome);
                if held_profiles && window.profiles.is_empty() {
                    // None of them could be kept, so this is no window in which nothing was sampled.
                    window.has_profiles = false;
                }
                if window.has_requests || window.has_profiles || !held_profiles {
                    windows.push(window);
                }
            }
        }
    }
    (windows, outcome)
}

/// Series and samples of a window; an empty one counts as one item.
fn items(window: &WorkloadWindow) -> u64 {
    let samples: usize = window.profiles.iter().map(|p| p.samples.len()).sum();
    (window.requests.len() + samples).max(1) as u64
}

fn refuse_window(
    window: &WorkloadWindow,
    sender: SenderKey,
    names: &mut Cardinality,
    limits: &IngestLimits,
    now_s: i64,
) -> Option<&'static str> {
    let seconds = |d: Duration| i64::try_from(d.as_secs()).unwrap_or(i64::MAX);
    if window.start_unix_s < now_s.saturating_sub(seconds(limits.retention)) {
        return Some("older_than_retention");
    }
    if window.start_unix_s > now_s.saturating_add(seconds(limits.max_future)) {
        return Some("in_the_future");
    }
    if window.length_s > limits.max_window_seconds {
        return Some("window_too_long");
    }
    let admitted = names.admit_workload(sender, &window.workload, window.component, now_s);
    (!admitted).then_some(TOO_MANY_WORKLOADS)
}

fn limit_requests(
    window: &mut WorkloadWindow,
    sender: SenderKey,
    names: &mut Cardinality,
    limits: &IngestLimits,
    now_s: i64,
    outcome: &mut Outcome,
) {
    let mut kept: Vec<RequestSeries> = Vec::with_capacity(window.requests.len());
    // Index by every label: folding makes series equal that were not.
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
        if !PROTOCOLS.contains(&series.protocol.as_str()) {
            ROUTE_OTHER.clone_into(&mut series.protocol);
        }
        // Frameworks and proxies write one template in many ways.
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

/// A destination among the peers that a service may name.
fn named(destination: &str) -> Release {
    Release {
        service: destination.to_owned(),
        ..Release::default()
    }
}

/// Every label of a series.
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

/// Foreign senders may leave out minimum, maximum and sum, or send ones that contradict the buckets; quantiles are
/// clamped to them, so they are put right from the buckets.
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
    use emberline_model::{Component, Frame, LabelSet, Location, Profile, ProfileType, Sample, Side, Workload};
    use proptest::prelude::*;

    use super::*;

    fn series(route: &str, nanoseconds: u64) -> RequestSeries {
        let mut duration = Histogram::new();
        duration.record_ns(nanoseconds);
        RequestSeries {
            side: Side::Server,
            route: route.into(),
            method: "GET".into(),
            peer: None,
            destination: String::new(),
            protocol: "http/1.1".into(),
            status: 200,
            error: false,
            duration,
            streaming_s: 0.0,
            request_bytes: 1,
            response_bytes: 2,
            open: 0,
        }
    }

    fn window(start_unix_s: i64) -> WorkloadWindow {
        WorkloadWindow {
            workload: Workload {
                service: "shop".into(),
                version: "1".into(),
                ..Workload::default()
            },
            component: Component::Application,
            start_unix_s,
            length_s: 10,
            has_requests: true,
            has_profiles: true,
            requests: Vec::new(),
            profiles: Vec::new(),
        }
    }

    fn decoded(windows: Vec<WorkloadWindow>) -> Decoded {
        Decoded {
            windows,
            ..Decoded::default()
        }
    }

    fn reasons(list: &[Rejected]) -> Vec<(&str, u64)> {
        list.iter().map(|r| (r.reason, r.count)).collect()
    }

    #[test]
    fn windows_outside_time_are_left_out_with_a_reason() {
        let now = 1_000_000;
        let limits = IngestLimits::default();
        let mut long = window(now);
        long.length_s = limits.max_window_seconds + 1;
        let windows = vec![
            window(now),
            window(0),
            window(now + 700),
            window(i64::MAX - 10),
            window(now + 590),
            long,
        ];
        let (kept, outcome) = apply(
            decoded(windows),
            SenderKey::Unknown,
            &mut Cardinality::new(&limits),
            &limits,
            now,
        );
        assert_eq!(
            kept.iter().map(|w| w.start_unix_s).collect::<Vec<_>>(),
            [now, now + 590]
        );
        assert_eq!(
            reasons(&outcome.rejected),
            [
                ("older_than_retention", 1),
                ("in_the_future", 2),
                ("window_too_long", 1)
            ]
        );
    }

    #[test]
    fn spellings_of_one_route_are_one_route_on_both_signals() {
        let mut window = window(100);
        window.requests = vec![series("/quote/<int:id>", 5), series("/quote/{id}", 7)];
        let mut profile = Profile::empty_cpu(0, 0);
        profile.locations = vec![Location::Named {
            frames: vec![Frame::default()],
        }];
        profile.stacks = vec![vec![0]];
        let labels = |route: &str| LabelSet {
            side: Some(Side::Server),
            route: route.into(),
            peer: None,
        };
        profile.label_sets = vec![labels("/quote/:id"), labels("GET /quote/[id]"), LabelSet::none()];
        profile.samples = (0..3)
            .map(|label_set| Sample {
                stack: 0,
                label_set,
                value: 10,
                count: 1,
            })
            .collect();
        window.profiles = vec![profile];
        let limits = IngestLimits::default();
        let (kept, outcome) = apply(
            decoded(vec![window]),
            SenderKey::Unknown,
            &mut Cardinality::new(&limits),
            &limits,
            100,
        );
        assert!(outcome.changed.is_empty());
        let routes: Vec<_> = kept[0]
            .requests
            .iter()
            .map(|s| (s.route.as_str(), s.duration.count()))
            .collect();
        assert_eq!(routes, [("/quote/{id}", 2)]);
        let profile = &kept[0].profiles[0];
        let routes: Vec<_> = profile.label_sets.iter().map(|l| l.route.as_str()).collect();
        assert_eq!(routes, ["/quote/{id}", ""]);
        assert_eq!(profile.samples.iter().map(|s| s.value).sum::<i64>(), 30);
    }

    #[test]
    fn routes_over_the_limit_fold_into_other_on_both_signals() {
        let limits = IngestLimits {
            max_routes_per_service: 1,
            ..IngestLimits::default()
        };
        let mut window = window(100);
        window.requests = vec![series("/a", 5), series("/b", 7), series("/c", 9)];
        let mut profile = Profile::empty_cpu(0, 0);
        profile.locations = vec![Location::Named {
            frames: vec![Frame::default()],
        }];
        profile.stacks = vec![vec![0]];
        let labels = |route: &str| LabelSet {
            side: Some(Side::Server),
            route: route.into(),
            peer: None,
        };
        profile.label_sets = vec![labels("/c"), labels("/a"), labels("/b"), LabelSet::none()];
        profile.samples = (0..4)
            .map(|label_set| Sample {
                stack: 0,
                label_set,
                value: 10,
                count: 1,
            })
            .collect();
        window.profiles = vec![profile];
        let (kept, outcome) = apply(
            decoded(vec![window]),
            SenderKey::Unknown,
            &mut Cardinality::new(&limits),
            &limits,
            100,
        );
        let routes: Vec<_> = kept[0]
            .requests
            .iter()
            .map(|s| (s.route.as_str(), s.duration.count()))
            .collect();
        assert_eq!(routes, [("/a", 1), ("other", 2)]);
        let profile = &kept[0].profiles[0];
        let routes: Vec<_> = profile.label_sets.iter().map(|l| l.route.as_str()).collect();
        assert_eq!(routes, ["other", "/a", ""]);
        assert_eq!(profile.total(), 40);
        assert_eq!(profile.samples.iter().filter(|s| s.label_set == 0).count(), 2);
        assert_eq!(reasons(&outcome.changed), [("max_routes_per_service", 4)]);
        assert!(profile.validate().is_ok());
    }

    #[test]
    fn series_over_the_limit_keep_their_counts() {
        let limits = IngestLimits {
            max_series_per_window: 2,
            ..IngestLimits::default()
        };
        let mut window = window(100);
        window.requests = (0..10).map(|n| series(&format!("/{n}"), 5)).collect();
        let (kept, outcome) = apply(
            decoded(vec![window]),
            SenderKey::Unknown,
            &mut Cardinality::new(&limits),
            &limits,
            100,
        );
        assert_eq!(kept[0].requests.len(), 3);
        assert_eq!(kept[0].requests.iter().map(|s| s.duration.count()).sum::<u64>(), 10);
        assert_eq!(kept[0].requests.iter().map(|s| s.response_bytes).sum::<u64>(), 20);
        assert_eq!(reasons(&outcome.changed), [("max_series_per_window", 8)]);
    }

    #[test]
    fn absurd_numbers_are_left_out() {
        let mut window = window(100);
        let mut huge = series("/a", 5);
        huge.duration = Histogram::from_parts(u64::MAX, 1.0, 0.0, 1.0, [(3, u64::MAX)]);
        window.requests = vec![huge, series("/a", 5)];
        let mut profile = Profile::empty_cpu(0, 0);
        profile.profile_type = ProfileType::cpu();
        profile.locations = vec![Location::Named {
            frames: vec![Frame::default()],
        }];
        profile.stacks = vec![vec![0; 2000]];
        profile.label_sets = vec![LabelSet::none()];
        profile.samples = [5, i64::MAX]
            .map(|value| Sample {
                stack: 0,
                label_set: 0,
                value,
                count: 1,
            })
            .to_vec();
        let mut bytes = profile.clone();
        bytes.profile_type = ProfileType("memory:alloc_space:bytes:space:bytes".to_owned());
        window.profiles = vec![profile, bytes];
        let (kept, outcome) = apply(
            decoded(vec![window]),
            SenderKey::Unknown,
            &mut Cardinality::new(&IngestLimits::default()),
            &IngestLimits::default(),
            100,
        );
        assert_eq!(kept[0].requests.len(), 1);
        assert_eq!(kept[0].profiles.len(), 1, "CPU time of 292 years is of another unit");
        assert_eq!(kept[0].profiles[0].total(), 5);
        assert_eq!(kept[0].profiles[0].stacks[0].len(), 512);
        assert_eq!(
            reasons(&outcome.rejected),
            [
                ("count_out_of_range", 1),
                ("more_cpu_than_cores", 2),
                ("value_out_of_range", 1)
            ]
        );
    }

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
