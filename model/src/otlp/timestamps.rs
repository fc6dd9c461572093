//! When the samples of a profile were taken: samples with timestamps are assigned to windows.
//!
//! Guarantees: every non-negative value is in exactly one window; a profile that is split reports each window it
//! covers, so idle windows are known; a timestamp outside its profile counts at the profile's nearer end.
//!
//! Wrong on purpose: within a window, timestamps are kept only for samples with a link, because a row is a sum over its
//! window. In a profile that is split, samples without timestamps go into its first window; a profile longer than ten
//! minutes is not split.

use std::collections::HashMap;

use opentelemetry_proto::tonic::profiles::v1development as otlp;

use crate::time::{WINDOW_SECONDS, whole_seconds, window_start};

const NS: i64 = 1_000_000_000;
/// The longest profile that is split: 61 windows at most.
const LONGEST_CUT_NS: i64 = 600 * NS;

/// The part of a profile in one window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) window_start_s: i64,
    pub(super) length_s: u32,
    pub(super) start_unix_ns: i64,
    pub(super) duration_ns: i64,
    pub(super) rows: Vec<Row>,
    /// The timestamps of samples that have a link.
    pub(super) linked: Vec<Linked>,
}

/// The part of one sample in one window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    /// Index into the samples of the profile.
    pub(super) sample: usize,
    pub(super) value: i64,
    /// The number of timestamps; 0 for a sum without any.
    pub(super) instants: u64,
}

/// One timestamp of a sample that has a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Linked {
    /// Index into the samples of the profile.
    pub(super) sample: usize,
    pub(super) value: i64,
    /// The start of the profile for a sum without timestamps.
    pub(super) unix_ns: i64,
}

/// Splits a profile at the windows. Also returns how many samples were dropped for a negative value.
pub(super) fn parts_of(profile: &otlp::Profile, duration: i64) -> (Vec<Part>, u64) {
    let start = i64::try_from(profile.time_unix_nano).unwrap_or(i64::MAX);
    let mut parts = empty_parts(start, duration, profile.samples.iter().any(has_instants));
    let end = start.saturating_add(duration);
    let mut negative = 0;
    let mut sums: HashMap<usize, (i64, u64)> = HashMap::new();
    for (sample, source) in profile.samples.iter().enumerate() {
        if source.values.iter().any(|&value| value < 0) {
            negative += 1;
            continue;
        }
        if !has_instants(source) {
            let value = source.values.iter().fold(0i64, |sum, &v| sum.saturating_add(v));
            parts[0].rows.push(Row {
                sample,
                value,
                instants: 0,
            });
            if source.link_index > 0 {
                let unix_ns = parts[0].start_unix_ns;
                parts[0].linked.push(Linked { sample, value, unix_ns });
            }
            continue;
        }
        sums.clear();
        for (at, &instant) in source.timestamps_unix_nano.iter().enumerate() {
            let part = match parts.len() {
                1 => 0,
                _ => {
                    let inside = i64::try_from(instant).unwrap_or(i64::MAX).clamp(start, end - 1);
                    let windows = (window_start(inside.div_euclid(NS)) - window_start(start.div_euclid(NS)))
                        / i64::from(WINDOW_SECONDS);
                    usize::try_from(windows).unwrap_or(0).min(parts.len() - 1)
                }
            };
            let value = source.values.get(at).copied().unwrap_or(1);
            let sum = sums.entry(part).or_default();
            sum.0 = sum.0.saturating_add(value);
            sum.1 += 1;
            if source.link_index > 0 {
                let unix_ns = i64::try_from(instant).unwrap_or(i64::MAX);
                parts[part].linked.push(Linked { sample, value, unix_ns });
            }
        }
        for (&part, &(value, instants)) in &sums {
            parts[part].rows.push(Row {
                sample,
                value,
                instants,
            });
        }
    }
    (parts, negative)
}

/// Timestamps count if there is one per value, or no values at all, which makes each worth 1.
fn has_instants(sample: &otlp::Sample) -> bool {
    let instants = sample.timestamps_unix_nano.len();
    instants > 0 && (sample.values.is_empty() || sample.values.len() == instants)
}

fn empty_parts(start: i64, duration: i64, instants: bool) -> Vec<Part> {
    let first = window_start(start.div_euclid(NS));
    let end = start.saturating_add(duration);
    let last = window_start((end - 1).div_euclid(NS));
    if !instants || duration <= 0 || duration > LONGEST_CUT_NS || first == last || end == i64::MAX {
        // A profile without a length is as long as our own: nothing else says when the next one begins.
        let covered_ns = match duration {
            0 => i64::from(WINDOW_SECONDS) * NS,
            duration => duration,
        };
        let (window_start_s, length_s) = whole_seconds(start, start.saturating_add(covered_ns));
        return vec![Part {
            window_start_s,
            length_s,
            start_unix_ns: start,
            duration_ns: duration,
            rows: Vec::new(),
            linked: Vec::new(),
        }];
    }
    let windows = (first..=last).step_by(WINDOW_SECONDS as usize);
    let part = |window: i64| {
        let from = start.max(window * NS);
        let until = end.min((window + i64::from(WINDOW_SECONDS)) * NS);
        // The first and the last cover no more of their window than the profile does.
        let (window_start_s, length_s) = whole_seconds(from, until);
        Part {
            window_start_s,
            length_s,
            start_unix_ns: from,
            duration_ns: until - from,
            rows: Vec::new(),
            linked: Vec::new(),
        }
    };
    windows.map(part).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn duration_of(profile: &otlp::Profile) -> i64 {
        i64::try_from(profile.duration_nano).unwrap_or(i64::MAX)
    }

    fn sample(values: Vec<i64>, timestamps_unix_nano: Vec<u64>) -> otlp::Sample {
        otlp::Sample {
            values,
            timestamps_unix_nano,
            ..otlp::Sample::default()
        }
    }

    #[test]
    fn instants_put_values_into_their_windows_and_idle_ones_are_known() {
        let at = |s: f64| (s * 1e9) as u64;
        let profile = otlp::Profile {
            time_unix_nano: at(1003.0),
            duration_nano: at(30.0),
            samples: vec![
                sample(vec![5, 7, 9], vec![at(1003.5), at(1012.0), at(1012.5)]),
                sample(vec![], vec![at(1032.9), at(0.0)]),
                sample(vec![100], vec![]),
                sample(vec![-1], vec![]),
            ],
            ..otlp::Profile::default()
        };
        let (parts, negative) = parts_of(&profile, duration_of(&profile));
        assert_eq!(negative, 1);
        let shown: Vec<_> = parts
            .iter()
            .map(|p| {
                (
                    p.window_start_s,
                    p.duration_ns / NS,
                    p.rows.iter().map(|r| r.value).sum::<i64>(),
                )
            })
            .collect();
        assert_eq!(shown, [(1003, 7, 106), (1010, 10, 16), (1020, 10, 0), (1030, 3, 1)]);
        assert_eq!(parts[1].rows[0].instants, 2);
    }

    proptest! {
        #[test]
        fn no_value_is_lost_whatever_the_times_are(
            start in any::<u64>(), duration in prop_oneof![any::<u64>(), 0u64..700_000_000_000],
            samples in prop::collection::vec((prop::collection::vec(0i64..1000, 0..4), prop::collection::vec(any::<u64>(), 0..4)), 0..6),
        ) {
            let samples: Vec<_> = samples.into_iter().map(|(values, instants)| sample(values, instants)).collect();
            let expected: i64 = samples.iter().map(|s| if s.values.is_empty() { s.timestamps_unix_nano.len() as i64 } else { s.values.iter().sum() }).sum();
            let profile = otlp::Profile { time_unix_nano: start, duration_nano: duration, samples, ..otlp::Profile::default() };
            let (parts, _) = parts_of(&profile, duration_of(&profile));
            prop_assert!(parts.len() <= 62);
            prop_assert_eq!(parts.iter().flat_map(|p| &p.rows).map(|r| r.value).sum::<i64>(), expected);
        }
    }
}
