//! Limits on profiles.
//!
//! Guarantees: profiles of one type are added up before anything is counted; folding keeps the value and the samples of
//! each label set; a stack that is too deep keeps both ends, with a placeholder frame between them; tables remain
//! consistent and contain nothing that no sample refers to. CPU time beyond any machine's must be in another unit, so
//! the whole profile is dropped.
//!
//! Wrong on purpose: if there are too many stacks, the ones with the smallest values fold, so the rarest lose their
//! names first.

use std::{borrow::Cow, collections::HashMap};

use emberline_model::{
    Frame, LabelSet, Location, Profile, ProfileType, Sample, WorkloadWindow, merge, otlp::Rejected, route,
    workload::ROUTE_OTHER,
};

use super::{
    cardinality::Cardinality,
    limits::{
        config::{IngestLimits, MAX_BYTES, MAX_COUNT},
        outcome::{Outcome, count},
    },
    sender::SenderKey,
};

/// Largest value of one sample, in nanoseconds per second of its window: 275 CPUs in one stack.
const MAX_SAMPLE_VALUE: i64 = 1 << 38;
/// The most CPUs that a process can plausibly keep busy.
const MOST_CORES: i64 = 1_024;
/// The longest plausible recording, in seconds.
const LONGEST_S: i64 = 24 * 3600;
/// Stands for the frames between a stack's two ends.
const CUT: &str = "[frames cut]";
/// The stack of samples over the limit.
const OVER_THE_LIMIT: &str = "[over the limit]";

/// Applies the limits to the profiles of a window.
pub(super) fn apply(
    window: &mut WorkloadWindow,
    sender: SenderKey,
    names: &mut Cardinality,
    limits: &IngestLimits,
    now_s: i64,
    outcome: &mut Outcome,
) {
    if has_twins(&window.profiles) {
        window.profiles = merge::add_up(std::mem::take(&mut window.profiles));
    }
    if window.profiles.len() > limits.max_profiles_per_window {
        for over in window.profiles.drain(limits.max_profiles_per_window..) {
            let samples = over.samples.len().max(1) as u64;
            Rejected::of("too_many_profiles", &over.profile_type.0, samples).add_to(&mut outcome.rejected);
        }
    }
    window.profiles.retain(|profile| {
        let is_known = names.admit_profile_type(sender, &window.workload, &profile.profile_type.0, now_s);
        if !is_known {
            let samples = profile.samples.len().max(1) as u64;
            Rejected::of("too_many_profile_types", &profile.profile_type.0, samples).add_to(&mut outcome.rejected);
        }
        is_known
    });
    window.profiles.retain(|profile| {
        let claimed = impossible_cpu(profile, window.length_s);
        if let Some((spent_s, length_s)) = claimed {
            let what = format!("{} ({spent_s} s of CPU in {length_s} s)", profile.profile_type.0);
            let samples = profile.samples.len() as u64;
            Rejected::of("more_cpu_than_cores", &what, samples).add_to(&mut outcome.rejected);
        }
        claimed.is_none()
    });
    let mut emptied: Vec<bool> = Vec::with_capacity(window.profiles.len());
    for profile in &mut window.profiles {
        let limit = if profile.profile_type.unit() == "nanoseconds" {
            MAX_SAMPLE_VALUE
        } else {
            MAX_BYTES
        };
        let limit = limit.saturating_mul(match profile.profile_type.0.as_str() {
            // The whole profile was plausible.
            ProfileType::CPU => LONGEST_S,
            _ => i64::from(window.length_s.max(1)),
        });
        let before = profile.samples.len();
        profile
            .samples
            .retain(|s| (0..=limit).contains(&s.value) && s.count <= MAX_COUNT);
        let out_of_range = (before - profile.samples.len()) as u64;
        Rejected::of("value_out_of_range", &profile.profile_type.0, out_of_range).add_to(&mut outcome.rejected);
        emptied.push(before > 0 && profile.samples.is_empty());
        profile
            .exemplars
            .retain(|exemplar| (0..=limit).contains(&exemplar.value));
        for labels in &mut profile.label_sets {
            if let Cow::Owned(template) = route::normalise(&labels.route) {
                labels.route = template;
            }
            let named = !labels.route.is_empty() && labels.route != ROUTE_OTHER;
            if named && !names.admit_route(sender, &window.workload, &labels.route, now_s) {
                ROUTE_OTHER.clone_into(&mut labels.route);
                count(&mut outcome.changed, "max_routes_per_service", 1);
            }
            if labels
                .peer
                .as_ref()
                .is_some_and(|peer| !names.admit_peer(sender, &window.workload, peer, now_s))
            {
                labels.peer = None;
                count(&mut outcome.changed, "max_peers_per_service", 1);
            }
        }
        merge_label_sets(profile);
        let cut = cut_stacks(profile, limits.max_stack_depth);
        count(&mut outcome.changed, "max_stack_depth", cut);
        let folded = fold_samples(profile, limits.max_samples_per_profile);
        count(&mut outcome.changed, "max_samples_per_profile", folded);
        profile.cut_exemplars(limits.max_exemplars_per_profile);
        count(&mut outcome.changed, "max_exemplars_per_profile", profile.exemplars_cut);
        profile.keep_used();
    }
    // A profile without samples would say that the process was idle, which this one did not.
    let mut emptied = emptied.into_iter();
    window.profiles.retain(|_| !emptied.next().unwrap_or(false));
}

/// True if there are two profiles of one type.
fn has_twins(profiles: &[Profile]) -> bool {
    let mut types: Vec<&str> = profiles.iter().map(|profile| profile.profile_type.0.as_str()).collect();
    types.sort_unstable();
    types.windows(2).any(|pair| pair[0] == pair[1])
}

/// The CPU time that a profile claims and its duration, both in seconds, if no machine has that many CPUs.
fn impossible_cpu(profile: &Profile, window_s: u32) -> Option<(i64, i64)> {
    const NS: i64 = 1_000_000_000;
    if profile.profile_type.0 != ProfileType::CPU {
        return None;
    }
    let length_s = (profile.duration_ns / NS).clamp(i64::from(window_s.max(1)), LONGEST_S);
    let most = length_s.saturating_mul(MOST_CORES).saturating_mul(NS);
    let total = profile.total();
    (total > most).then_some((total / NS, length_s))
}

/// Merges label sets that became equal.
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

/// Removes the middle of stacks that are too deep. Returns how many samples have such a stack.
fn cut_stacks(profile: &mut Profile, depth: usize) -> u64 {
    let depth = depth.max(3);
    if profile.stacks.iter().all(|stack| stack.len() <= depth) {
        return 0;
    }
    profile.locations.push(Location::Named {
        frames: vec![Frame {
            function: CUT.to_owned(),
            ..Frame::default()
        }],
    });
    let mark = profile.locations.len() as u32 - 1;
    let outer = depth / 2;
    let inner = depth - 1 - outer;
    let is_cut: Vec<bool> = profile
        .stacks
        .iter_mut()
        .map(|stack| {
            if stack.len() <= depth {
                return false;
            }
            // Leaf first: what follows the marker are the outermost frames, which show what the samples worked for.
            stack.splice(inner..stack.len() - outer, [mark]);
            true
        })
        .collect();
    let stacks = is_cut.iter().filter(|&&cut| cut).count() as u64;
    profile.stats.truncated = profile.stats.truncated.saturating_add(stacks);
    profile
        .samples
        .iter()
        .filter(|sample| is_cut[sample.stack as usize])
        .count() as u64
}

/// Keeps the largest samples; the others become one sample per label set. Returns how many were folded.
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

    fn stacks(depths: &[usize]) -> Profile {
        let mut profile = Profile::empty_cpu(0, 0);
        let frame = |name: String| Location::Named {
            frames: vec![Frame {
                function: name,
                ..Frame::default()
            }],
        };
        profile.locations = vec![
            frame("main".to_owned()),
            frame("walk".to_owned()),
            frame("leaf".to_owned()),
        ];
        profile.label_sets = vec![LabelSet::none()];
        for (at, &depth) in depths.iter().enumerate() {
            let mut stack = vec![2];
            stack.extend(std::iter::repeat_n(1, depth - 2));
            stack.push(0);
            profile.stacks.push(stack);
            profile.samples.push(Sample {
                stack: at as u32,
                label_set: 0,
                value: 1,
                count: 1,
            });
        }
        profile
    }

    #[test]
    fn the_root_and_the_leaf_of_a_deep_stack_stay() {
        let mut profile = stacks(&[4, 512, 513, 2000]);
        assert_eq!(cut_stacks(&mut profile, 512), 2);
        for (stack, cut) in profile.stacks.iter().zip([false, false, true, true]) {
            assert!(stack.len() <= 512);
            assert_eq!((stack.first(), stack.last()), (Some(&2), Some(&0)));
            assert_eq!(stack.iter().filter(|&&at| at == 3).count(), usize::from(cut));
        }
        assert_eq!((profile.total(), profile.stats.truncated), (4, 2));
        assert!(profile.validate().is_ok());
    }

    #[test]
    fn cpu_time_that_no_machine_has_is_impossible() {
        let mut profile = stacks(&[4]);
        profile.samples[0].value = 10_240_000_000_000;
        assert_eq!(impossible_cpu(&profile, 10), None);
        profile.samples[0].value += 1;
        assert_eq!(impossible_cpu(&profile, 10), Some((10_240, 10)));
        profile.duration_ns = 3600 * 1_000_000_000;
        assert_eq!(impossible_cpu(&profile, 10), None, "it lasted an hour");
        profile.duration_ns = i64::MAX;
        profile.samples[0].value = i64::MAX;
        assert!(impossible_cpu(&profile, 10).is_some());
    }

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
