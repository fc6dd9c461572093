//! The sampler's window as the profile that is shipped.
//!
//! Guarantees: the values of the profile sum to the CPU time of the window's samples, even if some cannot be attributed
//! to a file; every index is valid; start and length are the window's own, so that CPU and requests can be joined.
//!
//! Wrong on purpose: an address in no known module becomes one frame `[unknown]`, because such an address means nothing
//! to anyone else and would give every process stacks of its own.

use std::collections::HashMap;

use emberline_model::{Frame, LabelSet, Location, Mapping, Profile, ProfileStats, ProfileType, Sample};
use emberline_profiler::{Label, Window};

use super::WINDOW_NS;

/// Function name of addresses outside every module, and of stacks without any frame.
const UNKNOWN_FRAME: &str = "[unknown]";

/// Converts a sampler's window that belongs to the window starting at `start_unix_s`; `label_set` names labels.
pub fn model_profile(window: &Window, start_unix_s: i64, label_set: impl Fn(Label) -> LabelSet) -> Profile {
    let mut profile = Profile {
        profile_type: ProfileType::cpu(),
        period: i64::try_from(window.period_ns).unwrap_or(i64::MAX),
        stats: ProfileStats {
            rate_hz: window.hz,
            dropped: window.stats.dropped,
            truncated: window.stats.truncated,
            cpu_ns: window.stats.thread_cpu_ns,
            overhead_ns: window.stats.overhead_ns,
        },
        ..Profile::empty_cpu(start_unix_s.saturating_mul(1_000_000_000), WINDOW_NS)
    };
    profile.mappings = window
        .modules
        .iter()
        .map(|module| Mapping {
            build_id: module.build_id.clone(),
            path: module.path.to_string_lossy().into_owned(),
        })
        .collect();

    let mut locations: HashMap<Location, u32> = HashMap::new();
    let mut location_index = |location: Location, table: &mut Vec<Location>| {
        *locations.entry(location).or_insert_with_key(|new| {
            table.push(new.clone());
            (table.len() - 1) as u32
        })
    };
    let unknown = || Location::Named {
        frames: vec![Frame {
            function: UNKNOWN_FRAME.to_owned(),
            file: String::new(),
            line: 0,
        }],
    };
    for stack in &window.stacks {
        let mut frames: Vec<u32> = Vec::with_capacity(stack.len().max(1));
        for frame in stack {
            let location = match (frame.module as usize) < profile.mappings.len() {
                true => Location::Native {
                    mapping: frame.module,
                    offset: frame.offset,
                },
                false => unknown(),
            };
            frames.push(location_index(location, &mut profile.locations));
        }
        if frames.is_empty() {
            frames.push(location_index(unknown(), &mut profile.locations));
        }
        profile.stacks.push(frames);
    }

    // Two labels may stand for the same set (an overflow, or another telemetry's label), so sets are interned by
    // content.
    let mut set_of_label: HashMap<Label, u32> = HashMap::new();
    let mut sets: HashMap<LabelSet, u32> = HashMap::new();
    for sample in &window.samples {
        let set = *set_of_label.entry(sample.label).or_insert_with(|| {
            *sets.entry(label_set(sample.label)).or_insert_with_key(|set| {
                profile.label_sets.push(set.clone());
                (profile.label_sets.len() - 1) as u32
            })
        });
        profile.samples.push(Sample {
            stack: sample.stack,
            label_set: set,
            value: i64::try_from(sample.cpu_ns).unwrap_or(i64::MAX),
            count: sample.count,
        });
    }
    profile
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use emberline_model::Side;
    use emberline_profiler::{Frame as Address, Module, Sample as Taken, WindowStats};

    use super::*;

    fn named(label: Label) -> LabelSet {
        match label.get() {
            0 => LabelSet::none(),
            _ => LabelSet {
                side: Some(Side::Server),
                route: "/x".into(),
                peer: None,
            },
        }
    }

    #[test]
    fn nothing_is_lost_between_sampler_and_profile() {
        let at = |module, offset| Address { module, offset };
        let taken = |label, stack, weight, count, cpu_ns| Taken {
            label: Label::new(label),
            stack,
            weight,
            count,
            cpu_ns,
        };
        let window = Window {
            started: SystemTime::UNIX_EPOCH,
            duration: Duration::from_secs(10),
            hz: 99.0,
            period_ns: 10_101_010,
            samples: vec![
                taken(0, 0, 1, 1, 10),
                taken(5, 1, 2, 1, 20),
                taken(6, 1, 1, 1, 30),
                taken(5, 2, 1, 1, 40),
            ],
            stacks: vec![
                vec![at(0, 16), at(1, 32)],
                vec![at(Address::NO_MODULE, 0xdead), at(0, 16)],
                vec![],
            ],
            modules: vec![
                Module {
                    path: "/bin/app".into(),
                    build_id: "aa".into(),
                    size: 1,
                },
                Module {
                    path: "/lib/libc.so".into(),
                    build_id: String::new(),
                    size: 1,
                },
            ],
            stats: WindowStats {
                dropped: 3,
                truncated: 2,
                thread_cpu_ns: 100,
                overhead_ns: 7,
                ..Default::default()
            },
        };
        let profile = model_profile(&window, 1_700_000_000, named);
        profile.validate().unwrap();
        assert_eq!(profile.total(), 100);
        assert_eq!(profile.locations.len(), 3, "equal places are one location");
        assert_eq!(profile.label_sets.len(), 2, "labels 5 and 6 mean the same");
        assert_eq!(profile.stacks[2].len(), 1, "a stack without frames is shown as unknown");
        assert_eq!(
            (profile.start_unix_ns, profile.duration_ns),
            (1_700_000_000_000_000_000, 10_000_000_000)
        );
        assert_eq!(
            (profile.stats.dropped, profile.stats.truncated, profile.stats.cpu_ns),
            (3, 2, 100)
        );
        let native = profile
            .locations
            .iter()
            .filter(|l| matches!(l, Location::Native { .. }))
            .count();
        assert_eq!(native, 2);
    }
}
