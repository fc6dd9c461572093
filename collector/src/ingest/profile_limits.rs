//! The part of the limits that is about profiles.
//!
//! Guarantees: folding keeps the value and the samples of each label set; tables still fit together afterwards and hold
//! nothing that no sample mentions.
//!
//! Wrong on purpose: which stacks fold when there are too many is decided by their values, so the rarest lose their
//! names first.

use std::collections::HashMap;

use emberline_model::{Frame, LabelSet, Location, Profile, Sample, WorkloadWindow, workload::ROUTE_OTHER};

use super::{
    cardinality::Cardinality,
    limits::{IngestLimits, MAX_BYTES, MAX_COUNT, Outcome, count},
};

/// Largest value of one sample, in nanoseconds per second of its window: 275 CPUs in one stack.
const MAX_SAMPLE_VALUE: i64 = 1 << 38;
/// Stack of samples over the limit.
const OVER_THE_LIMIT: &str = "[over the limit]";

/// Applies the limits to the profiles of a window.
pub(super) fn apply(
    window: &mut WorkloadWindow,
    names: &mut Cardinality,
    limits: &IngestLimits,
    now_s: i64,
    outcome: &mut Outcome,
) {
    if window.profiles.len() > limits.max_profiles_per_window {
        let over: usize = window
            .profiles
            .drain(limits.max_profiles_per_window..)
            .map(|p| p.samples.len().max(1))
            .sum();
        count(&mut outcome.rejected, "too_many_profiles", over as u64);
    }
    for profile in &mut window.profiles {
        let limit = if profile.profile_type.unit() == "nanoseconds" {
            MAX_SAMPLE_VALUE
        } else {
            MAX_BYTES
        };
        let limit = limit.saturating_mul(i64::from(window.length_s.max(1)));
        let before = profile.samples.len();
        profile
            .samples
            .retain(|s| (0..=limit).contains(&s.value) && s.count <= MAX_COUNT);
        count(
            &mut outcome.rejected,
            "value_out_of_range",
            (before - profile.samples.len()) as u64,
        );
        profile
            .exemplars
            .retain(|exemplar| (0..=limit).contains(&exemplar.value));
        for labels in &mut profile.label_sets {
            let named = !labels.route.is_empty() && labels.route != ROUTE_OTHER;
            if named && !names.admit_route(&window.workload, &labels.route, limits, now_s) {
                ROUTE_OTHER.clone_into(&mut labels.route);
                count(&mut outcome.folded, "max_routes_per_service", 1);
            }
            if labels
                .peer
                .as_ref()
                .is_some_and(|peer| !names.admit_peer(&window.workload, peer, limits, now_s))
            {
                labels.peer = None;
                count(&mut outcome.folded, "max_peers_per_service", 1);
            }
        }
        merge_label_sets(profile);
        cut_stacks(profile, limits.max_stack_depth);
        let folded = fold_samples(profile, limits.max_samples_per_profile);
        count(&mut outcome.folded, "max_samples_per_profile", folded);
        profile.cut_exemplars(limits.max_exemplars_per_profile);
        count(&mut outcome.folded, "max_exemplars_per_profile", profile.exemplars_cut);
        profile.keep_used();
    }
}

/// Makes label sets that became equal one.
fn merge_label_sets(profile: &mut Profile) {
    let mut merged: Vec<LabelSet> = Vec::with_capacity(profile.label_sets.len());
    let mut known: HashMap<LabelSet, u32> = HashMap::new();
    let mapped: Vec<u32> = std::mem::take(&mut profile.label_sets)
        .into_iter()
        .map(|labels| {
            *known.entry(labels.clone()).or_insert_with(|| {
                merged.push(labels);
                merged.len() as u32 - 1
            })
        })
        .collect();
    profile.label_sets = merged;
    for sample in &mut profile.samples {
        // Decoding checked the index.
        sample.label_set = mapped[sample.label_set as usize];
    }
    for exemplar in &mut profile.exemplars {
        exemplar.label_set = mapped[exemplar.label_set as usize];
    }
}

fn cut_stacks(profile: &mut Profile, depth: usize) {
    for stack in profile.stacks.iter_mut().filter(|s| s.len() > depth.max(1)) {
        // Leaf first: what is cut is the outermost.
        stack.truncate(depth.max(1));
        profile.stats.truncated = profile.stats.truncated.saturating_add(1);
    }
}

/// Keeps the largest samples; the others become one sample per label set. Says how many were folded.
fn fold_samples(profile: &mut Profile, limit: usize) -> u64 {
    if profile.samples.len() <= limit {
        return 0;
    }
    profile.samples.sort_by_key(|s| std::cmp::Reverse(s.value));
    let over = profile.samples.split_off(limit);
    profile.locations.push(Location::Named {
        frames: vec![Frame {
            function: OVER_THE_LIMIT.to_owned(),
            ..Frame::default()
        }],
    });
    profile.stacks.push(vec![profile.locations.len() as u32 - 1]);
    let stack = profile.stacks.len() as u32 - 1;
    let mut sums: Vec<Option<Sample>> = vec![None; profile.label_sets.len()];
    for sample in &over {
        let sum = sums[sample.label_set as usize].get_or_insert(Sample {
            stack,
            value: 0,
            count: 0,
            ..*sample
        });
        sum.value = sum.value.saturating_add(sample.value);
        sum.count = sum.count.saturating_add(sample.count);
    }
    profile.samples.extend(sums.into_iter().flatten());
    over.len() as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn folding_samples_keeps_the_total_per_label_set(
            samples in prop::collection::vec((0u32..3, 0i64..1000), 0..60), limit in 0usize..40,
        ) {
            let mut profile = Profile::empty_cpu(0, 0);
            profile.locations = vec![Location::Named { frames: vec![Frame::default()] }];
            profile.stacks = vec![vec![0]];
            profile.label_sets = ["/a", "/b", "/c"].map(|r| LabelSet { route: r.into(), ..LabelSet::none() }).to_vec();
            profile.samples = samples.iter().map(|&(label_set, value)| Sample { stack: 0, label_set, value, count: 1 }).collect();
            let sums = |p: &Profile| (0..3).map(|l| p.samples.iter().filter(|s| s.label_set == l).map(|s| (s.value, s.count)).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1))).collect::<Vec<_>>();
            let before = sums(&profile);
            fold_samples(&mut profile, limit);
            prop_assert_eq!(before, sums(&profile));
            prop_assert!(profile.samples.len() <= limit + 3);
            prop_assert!(profile.validate().is_ok());
        }
    }
}
