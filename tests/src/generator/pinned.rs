//! The data set that bytes per sample are measured on, in the shape of the published block of another store: 10,000
//! profiles of 362 series in 30 minutes, 148 samples each.

use std::{collections::BTreeMap, fmt};

use emberline_model::{
    Batch, BatchId, Component, Frame, LabelSet, Location, Mapping, Profile, Sample, Side, Signal, Workload,
    WorkloadWindow,
};

use super::{Random, Zipf, function_name, stacks};

/// Start of the data: 2026-11-18T12:00:00Z, a whole hour.
pub const START: i64 = 1_795_003_200;
const PERIOD_NS: i64 = 10_000_000;

/// How much of what.
#[derive(Debug, Clone)]
pub struct Pinned {
    /// Profiles in all.
    pub profiles: usize,
    /// Instances that send them.
    pub series: usize,
    /// Rows of a profile: different pairs of stack and route.
    pub samples: usize,
    /// Different stacks in all services.
    pub stacks: usize,
    /// Different functions in all services.
    pub functions: usize,
    /// Frames of a stack, about.
    pub depth: usize,
    /// Services.
    pub services: usize,
    /// Routes of a service.
    pub routes: usize,
}

impl Default for Pinned {
    fn default() -> Pinned {
        Pinned {
            profiles: 10_000,
            series: 362,
            samples: 148,
            stacks: 85_000,
            functions: 19_000,
            depth: 40,
            services: 36,
            routes: 12,
        }
    }
}

impl fmt::Display for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} profiles, {} series, 30 min, {} samples each, {} stacks of depth {} over {} functions; {} services that \
             share a fifth of their stacks, two releases with nine tenths in common, weights 1/rank, {} routes, values in \
             hits × 10 ms",
            self.profiles,
            self.series,
            self.samples,
            self.stacks,
            self.depth,
            self.functions,
            self.services,
            self.routes
        )
    }
}

impl Pinned {
    /// The batches, one per step in time; every row of a profile is a row of the store.
    pub fn batches(&self) -> impl Iterator<Item = Batch> + use<> {
        let shape = self.clone();
        let mut random = Random::new(1);
        let all = stacks(&mut random, shape.stacks, shape.functions, shape.depth);
        let per_service = shape.stacks * 4 / 5 / shape.services;
        let shared = shape.stacks - per_service * shape.services;
        let popular = Zipf::new(per_service + shared / 4);
        let steps = shape.profiles.div_ceil(shape.series);
        let step_s = (1800 / steps as i64).max(10) / 10 * 10;
        (0..steps).map(move |step| {
            let count = shape.series.min(shape.profiles - step * shape.series);
            let windows = (0..count).map(|number| {
                let (service, release) = (number % shape.services, number / shape.services % 2);
                let mut picked: BTreeMap<(u32, u32), u64> = BTreeMap::new();
                while picked.len() < shape.samples {
                    let rank = popular.pick(&mut random);
                    // An order of its own for each service; a release differs in every tenth stack.
                    let moved = if release == 1 && rank % 10 == 9 { rank / 2 } else { rank };
                    let at = (moved * 7919 + service * 31) % (per_service + shared / 4);
                    let stack = if at < per_service {
                        service * per_service + at
                    } else {
                        shape.services * per_service + (at - per_service) * 4 + service % 4
                    };
                    let route = match stack % 4 {
                        0 => random.below(shape.routes),
                        _ => stack % shape.routes,
                    };
                    let key = (stack.min(shape.stacks - 1) as u32, route as u32);
                    *picked.entry(key).or_default() += 1;
                }
                let workload = Workload {
                    namespace: "mesh".into(),
                    service: format!("service-{service}"),
                    version: format!("v{release}"),
                    instance: format!("instance-{number}"),
                };
                window(START + step as i64 * step_s, workload, &picked, &all, shape.routes)
            });
            Batch {
                id: Some(BatchId {
                    sender: "pinned".into(),
                    epoch: 1,
                    sequence: step as u64 + 1,
                    signal: Signal::Profiles,
                }),
                received_unix_ms: START * 1000,
                windows: windows.collect(),
            }
        })
    }
}

fn window(
    start_unix_s: i64,
    workload: Workload,
    picked: &BTreeMap<(u32, u32), u64>,
    all: &[Vec<u32>],
    routes: usize,
) -> WorkloadWindow {
    let mut profile = Profile::empty_cpu(start_unix_s * 1_000_000_000, 10_000_000_000);
    profile.period = PERIOD_NS;
    profile.mappings = vec![Mapping {
        build_id: format!("{}{}", workload.service, workload.version),
        path: format!("/opt/mesh/{}", workload.service),
    }];
    profile.label_sets = (0..routes)
        .map(|route| LabelSet {
            side: Some(Side::Server),
            route: format!("/route/{route}/{{id}}"),
            peer: None,
        })
        .collect();
    let mut known: BTreeMap<u32, u32> = BTreeMap::new();
    for (&(stack, route), &count) in picked {
        let locations = all[stack as usize].iter().map(|&function| {
            *known.entry(function).or_insert_with(|| {
                let (name, file) = function_name("service", function);
                let frame = Frame {
                    function: name,
                    file,
                    line: function % 900,
                };
                profile.locations.push(Location::Named { frames: vec![frame] });
                profile.locations.len() as u32 - 1
            })
        });
        let locations = locations.collect();
        profile.stacks.push(locations);
        profile.samples.push(Sample {
            stack: profile.stacks.len() as u32 - 1,
            label_set: route,
            value: count as i64 * PERIOD_NS,
            count,
        });
    }
    WorkloadWindow {
        workload,
        component: Component::Application,
        start_unix_s,
        length_s: 10,
        has_requests: false,
        has_profiles: true,
        requests: Vec::new(),
        profiles: vec![profile],
    }
}
