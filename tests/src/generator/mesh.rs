//! Busy services over days, as Emberline's own sampler sees them: native stacks whose names come from symbols, windows of
//! 10 s, releases that share most of their functions and none of their addresses.

use std::{collections::HashMap, fmt};

use emberline_model::{
    Component, Frame, Histogram, LabelSet, Location, Mapping, Profile, Release, RequestSeries, Sample, Side, Workload,
    WorkloadWindow,
};

use super::{Random, Zipf, function_name, stacks};

/// Nanoseconds of CPU that a sample stands for.
pub const PERIOD_NS: i64 = 10_000_000;
/// Group of all services here.
pub const NAMESPACE: &str = "mesh";

/// How a service is built and how busy one instance is.
#[derive(Debug, Clone)]
pub struct Shape {
    /// Different stacks of a release.
    pub stacks: usize,
    /// Functions of a release.
    pub functions: usize,
    /// Frames of a stack, about.
    pub depth: usize,
    /// Routes; a quarter of the stacks occur on all of them, the others on one.
    pub routes: usize,
    /// Samples of an instance in a window.
    pub samples: usize,
}

impl Shape {
    /// Two busy cores at 85 samples per second and core: about 900 rows in a window.
    pub const BUSY: Shape = Shape {
        stacks: 20_000,
        functions: 8_000,
        depth: 38,
        routes: 12,
        samples: 1_700,
    };

    /// One sidecar of a hundred, or a service that is mostly idle: about 140 rows in a window.
    pub const SMALL: Shape = Shape {
        stacks: 2_000,
        functions: 2_000,
        depth: 38,
        routes: 6,
        samples: 200,
    };
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} native stacks of depth {} over {} functions per release (one in seven differs between releases), \
             {} routes, {} samples per instance and window, weights 1/rank",
            self.stacks, self.depth, self.functions, self.routes, self.samples
        )
    }
}

/// A release of a service: its code and which of it is popular.
pub struct Build {
    /// Who.
    pub release: Release,
    shape: Shape,
    mapping: Mapping,
    /// Function and call site of each location.
    places: Vec<(u32, u32)>,
    /// Indices into `places`, leaf first.
    stacks: Vec<Vec<u32>>,
    popular: Zipf,
    label_sets: Vec<LabelSet>,
}

impl Build {
    /// Builds a release; those of one service differ in one stack of seven.
    pub fn new(service: &str, number: u32, shape: &Shape) -> Build {
        let seed = service.bytes().fold(7u64, |seed, byte| seed * 31 + u64::from(byte));
        let mut of_functions = stacks(&mut Random::new(seed), shape.stacks, shape.functions, shape.depth);
        let mut own = Random::new(seed + u64::from(number));
        for stack in of_functions.iter_mut().skip(3).step_by(7) {
            for frame in stack.iter_mut().take(3) {
                *frame = own.below(shape.functions) as u32;
            }
        }
        let (mut places, mut known) = (Vec::new(), HashMap::new());
        let mut located = |function: u32, site: u32| {
            *known.entry((function, site)).or_insert_with(|| {
                places.push((function, site));
                places.len() as u32 - 1
            })
        };
        let stacks = of_functions.iter().map(|stack| {
            // Where a function was left depends on what it called.
            let called = std::iter::once(0).chain(stack.iter().copied());
            let frames = stack.iter().zip(called);
            frames
                .map(|(&function, called)| located(function, called % 3))
                .collect()
        });
        let stacks = stacks.collect();
        Build {
            release: Release {
                namespace: NAMESPACE.into(),
                service: service.into(),
                version: format!("v{number}"),
            },
            shape: shape.clone(),
            mapping: Mapping {
                build_id: format!("{seed:016x}{number:08x}"),
                path: format!("/opt/mesh/{service}"),
            },
            places,
            stacks,
            popular: Zipf::new(shape.stacks),
            label_sets: (0..shape.routes)
                .map(|route| LabelSet {
                    side: Some(Side::Server),
                    route: format!("/route/{route}/{{id}}"),
                    peer: None,
                })
                .collect(),
        }
    }

    /// What debug information says: the key of the build, and the frame of every address.
    pub fn symbols(&self) -> (String, Vec<(u64, Vec<Frame>)>) {
        let located = self.places.iter().map(|&(function, site)| {
            let (name, file) = function_name(&self.release.service, function);
            let frame = Frame {
                function: name,
                file,
                line: function % 900 + site,
            };
            (offset(function, site), vec![frame])
        });
        (self.mapping.key().into_owned(), located.collect())
    }

    fn workload(&self, instance: usize) -> Workload {
        Workload {
            namespace: self.release.namespace.clone(),
            service: self.release.service.clone(),
            version: self.release.version.clone(),
            instance: format!("{}-{instance}", self.release.service),
        }
    }

    /// What one instance reports of one window: its profile.
    pub fn window(&self, random: &mut Random, instance: usize, start_unix_s: i64) -> WorkloadWindow {
        let routes = self.shape.routes;
        let mut picked: Vec<u64> = (0..self.shape.samples)
            .map(|_| {
                // Popular stacks do not lie side by side.
                let stack = self.popular.pick(random) * 7919 % self.stacks.len();
                let route = match stack % 4 {
                    0 => random.below(routes),
                    _ => stack % routes,
                };
                (stack as u64) << 16 | route as u64
            })
            .collect();
        picked.sort_unstable();
        let mut profile = Profile::empty_cpu(start_unix_s * 1_000_000_000, 10_000_000_000);
        profile.period = PERIOD_NS;
        profile.stats.rate_hz = 100.0;
        profile.mappings = vec![self.mapping.clone()];
        profile.label_sets.clone_from(&self.label_sets);
        let mut index_of = vec![u32::MAX; self.places.len()];
        let mut last_stack = None;
        for same in picked.chunk_by(|a, b| a == b) {
            let (stack, route) = ((same[0] >> 16) as usize, (same[0] & 0xffff) as u32);
            if last_stack.replace(stack) != Some(stack) {
                let frames = self.stacks[stack].iter().map(|&place| {
                    let index = &mut index_of[place as usize];
                    if *index == u32::MAX {
                        *index = profile.locations.len() as u32;
                        let (function, site) = self.places[place as usize];
                        profile.locations.push(Location::Native {
                            mapping: 0,
                            offset: offset(function, site),
                        });
                    }
                    *index
                });
                let frames = frames.collect();
                profile.stacks.push(frames);
            }
            profile.samples.push(Sample {
                stack: profile.stacks.len() as u32 - 1,
                label_set: route,
                value: same.len() as i64 * PERIOD_NS,
                count: same.len() as u64,
            });
        }
        WorkloadWindow {
            workload: self.workload(instance),
            component: Component::Application,
            start_unix_s,
            length_s: 10,
            has_requests: false,
            has_profiles: true,
            requests: Vec::new(),
            profiles: vec![profile],
        }
    }

    /// What one instance reports of the requests of one window: a series for each route.
    pub fn requests(&self, random: &mut Random, instance: usize, start_unix_s: i64) -> WorkloadWindow {
        let series = self.label_sets.iter().map(|labels| {
            let mut duration = Histogram::new();
            (0..25).for_each(|_| duration.record_ns(1_000_000 + random.below(20_000_000) as u64));
            RequestSeries {
                side: Side::Server,
                route: labels.route.clone(),
                method: "GET".into(),
                peer: None,
                destination: String::new(),
                protocol: "http/1.1".into(),
                status: 200,
                error: false,
                duration,
                streaming_s: 0.0,
                request_bytes: 2_500,
                response_bytes: 25_000,
                open: 0,
            }
        });
        WorkloadWindow {
            requests: series.collect(),
            workload: self.workload(instance),
            component: Component::Application,
            start_unix_s,
            length_s: 10,
            has_requests: true,
            has_profiles: false,
            profiles: Vec::new(),
        }
    }
}

/// Where a function's call lies in its file.
fn offset(function: u32, site: u32) -> u64 {
    0x1000 + u64::from(function) * 512 + u64::from(site) * 48
}
