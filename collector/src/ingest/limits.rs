//! Limits on decoded requests. Everything a sender can grow is bounded here.
//!
//! Guarantees: nothing disappears silently: what is dropped is counted by reason, what is folded keeps its value (a
//! route over the limit becomes `other`, samples over the limit keep their labels and become the stack `[over the
//! limit]`, profiles of one type and window are added up). A window with nothing left is not stored. After this step no
//! number can overflow a sum over a day, and every histogram's minimum and maximum agree with its buckets.
//!
//! Wrong on purpose: a window that straddles the retention limit is dropped completely.

pub(crate) mod config;
pub(crate) mod outcome;
mod requests;

use self::{config::IngestLimits, outcome::Outcome};
use super::{cardinality::Cardinality, profile_limits, sender::SenderKey};
use emberline_model::{
    WorkloadWindow,
    otlp::{Decoded, Rejected},
    time::seconds_of,
};

/// Reason for windows whose process is not admitted: the only partial refusal that may be retried.
pub(super) const TOO_MANY_WORKLOADS: &str = "too_many_workloads";

/// Applies all limits; the remaining windows can be stored.
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
                    false => Rejected::of(reason, "request durations", items(&window))
                        .sent_by(&window.workload.service, "window"),
                };
                rejected.add_to(&mut outcome.rejected);
            }
            None => {
                requests::apply(&mut window, sender, names, limits, now_unix_s, &mut outcome);
                let held_profiles = !window.profiles.is_empty();
                profile_limits::apply(&mut window, sender, names, limits, now_unix_s, &mut outcome);
                if held_profiles && window.profiles.is_empty() {
                    // None of them could be kept, so this is not a window in which nothing was sampled.
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
    if window.start_unix_s < now_s.saturating_sub(seconds_of(limits.retention)) {
        return Some("older_than_retention");
    }
    if window.start_unix_s > now_s.saturating_add(seconds_of(limits.max_future)) {
        return Some("in_the_future");
    }
    if window.length_s > limits.max_window_seconds {
        return Some("window_too_long");
    }
    let admitted = names.admit_workload(sender, &window.workload, window.component, now_s);
    (!admitted).then_some(TOO_MANY_WORKLOADS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use emberline_model::{
        Component, Frame, Histogram, LabelSet, Location, Profile, ProfileType, RequestSeries, Sample, Side, Workload,
    };

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
}
