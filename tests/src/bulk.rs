//! Fills a store with days of generated profiles through its front door, and remembers what must be in it.
//!
//! Guarantee: every row goes through `Store::append` and is sealed as its hour ends and compacted as its day ends, as in a
//! server that ran for as long; only the clock moves faster. The sums that [`Loaded`] holds are the generator's, not the store's, so an answer can be
//! compared with them.

use std::{
    fmt,
    sync::atomic::{AtomicI64, Ordering},
};

use anyhow::{Context, Result, ensure};
use emberline_model::{Batch, BatchId, Profile, Signal, WorkloadWindow, time::Clock};
use emberline_storage::Store;
use serde_json::{Value, json};

use crate::generator::{
    Random,
    mesh::{Build, Shape},
};

const HOUR_S: i64 = 3600;
/// Seconds of data in a batch.
const BATCH_S: i64 = 300;
/// A sealed hour is over for so long.
const SEAL_AFTER_S: i64 = 600;

/// A clock that is moved by hand.
#[derive(Debug)]
pub struct HandClock(AtomicI64);

impl HandClock {
    /// A clock that stands.
    pub fn at(unix_s: i64) -> HandClock {
        HandClock(AtomicI64::new(unix_s))
    }

    /// Moves it.
    pub fn set(&self, unix_s: i64) {
        self.0.store(unix_s, Ordering::SeqCst);
    }
}

impl Clock for HandClock {
    fn now_unix_ns(&self) -> i64 {
        self.0.load(Ordering::SeqCst) * 1_000_000_000
    }
}

/// A release that runs for some hours.
#[derive(Debug, Clone)]
pub struct Phase {
    /// Number of the release.
    pub version: u32,
    /// How long it runs.
    pub hours: i64,
    /// Its instances.
    pub instances: usize,
    /// Seconds from one reported window of an instance to the next.
    pub every_s: i64,
}

/// What is loaded: a busy service, release after release, beside small services.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Name of the busy service.
    pub service: String,
    /// How busy it is.
    pub shape: Shape,
    /// Its releases, one after the other.
    pub phases: Vec<Phase>,
    /// Small services beside it; each has one instance and reports every sixth time.
    pub neighbours: usize,
    /// The busy service reports its requests as well, so that CPU can be divided by them.
    pub requests: bool,
    /// Start of the first hour, seconds since the Unix epoch.
    pub start_s: i64,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "service {}: {}; ", self.service, self.shape)?;
        for phase in &self.phases {
            let (hours, instances, every_s) = (phase.hours, phase.instances, phase.every_s);
            write!(
                f,
                "v{} for {hours} h on {instances} instances, a 10 s window of each every {every_s} s; ",
                phase.version
            )?;
        }
        if self.requests {
            write!(f, "with requests; ")?;
        }
        write!(f, "beside it {} small services: {}", self.neighbours, Shape::SMALL)
    }
}

/// What one hour of the busy service holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HourSum {
    /// Start, seconds since the Unix epoch.
    pub start_s: i64,
    /// Number of the release.
    pub version: u32,
    /// Rows of samples.
    pub rows: u64,
    /// Sum of their values.
    pub value: i64,
}

/// What a store holds after loading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// Rows of samples, those of the small services included.
    pub rows: u64,
    /// Profiles.
    pub profiles: u64,
    /// Hours of the busy service.
    pub hours: Vec<HourSum>,
}

impl Loaded {
    /// Rows and value of the busy service in hours that begin within a range; of one release or of all.
    pub fn sum(&self, from_s: i64, to_s: i64, version: Option<u32>) -> (u64, i64) {
        let hours = self.hours.iter().filter(|hour| {
            (from_s..to_s).contains(&hour.start_s) && version.is_none_or(|version| version == hour.version)
        });
        hours.fold((0, 0), |sum, hour| (sum.0 + hour.rows, sum.1 + hour.value))
    }

    /// As JSON, to be kept beside the store.
    pub fn to_json(&self) -> Value {
        let hours: Vec<Value> = self
            .hours
            .iter()
            .map(|hour| json!([hour.start_s, hour.version, hour.rows, hour.value]))
            .collect();
        json!({"rows": self.rows, "profiles": self.profiles, "hours": hours})
    }

    /// The other way.
    pub fn from_json(json: &Value) -> Result<Loaded> {
        let number = |value: &Value| value.as_i64().context("not what was written here");
        let hours = json["hours"].as_array().context("no hours")?.iter().map(|hour| {
            Ok(HourSum {
                start_s: number(&hour[0])?,
                version: u32::try_from(number(&hour[1])?)?,
                rows: number(&hour[2])?.unsigned_abs(),
                value: number(&hour[3])?,
            })
        });
        Ok(Loaded {
            rows: number(&json["rows"])?.unsigned_abs(),
            profiles: number(&json["profiles"])?.unsigned_abs(),
            hours: hours.collect::<Result<_>>()?,
        })
    }

    fn add(&mut self, profile: &Profile) {
        self.rows += profile.samples.len() as u64;
        self.profiles += 1;
    }
}

/// Loads and seals all of it; `progress` hears of every hour. The store keeps time by `clock`, and keeps at least as many
/// days as the plan has.
pub async fn load(store: &Store, clock: &HandClock, plan: &Plan, mut progress: impl FnMut(&Loaded)) -> Result<Loaded> {
    let mut random = Random::new(1);
    let neighbours: Vec<Build> = (0..plan.neighbours)
        .map(|number| Build::new(&format!("small-{number}"), 1, &Shape::SMALL))
        .collect();
    for build in &neighbours {
        put_symbols(store, build)?;
    }
    let mut loaded = Loaded {
        rows: 0,
        profiles: 0,
        hours: Vec::new(),
    };
    let (mut hour_s, mut sequence) = (plan.start_s, 0);
    for phase in &plan.phases {
        let build = Build::new(&plan.service, phase.version, &plan.shape);
        put_symbols(store, &build)?;
        for _ in 0..phase.hours {
            let mut hour = HourSum {
                start_s: hour_s,
                version: phase.version,
                rows: 0,
                value: 0,
            };
            for from_s in (hour_s..hour_s + HOUR_S).step_by(BATCH_S as usize) {
                let mut windows: Vec<WorkloadWindow> = Vec::new();
                // Counted from the hour, so that intervals longer than a batch keep their rhythm.
                let reported = |every_s: i64| (from_s..from_s + BATCH_S).filter(move |s| (s - hour_s) % every_s == 0);
                for start_s in reported(phase.every_s) {
                    for instance in 0..phase.instances {
                        windows.push(build.window(&mut random, instance, start_s));
                    }
                }
                for profile in windows.iter().flat_map(|window| &window.profiles) {
                    loaded.add(profile);
                    hour.rows += profile.samples.len() as u64;
                    hour.value += profile.total();
                }
                for start_s in reported(phase.every_s * 6) {
                    for build in &neighbours {
                        let window = build.window(&mut random, 0, start_s);
                        window.profiles.iter().for_each(|profile| loaded.add(profile));
                        windows.push(window);
                    }
                }
                let mut requests = Vec::new();
                if plan.requests {
                    for start_s in reported(phase.every_s) {
                        let of_instance = |instance| build.requests(&mut random, instance, start_s);
                        requests.extend((0..phase.instances).map(of_instance));
                    }
                }
                clock.set(from_s + BATCH_S);
                sequence += 1;
                for (signal, windows) in [(Signal::Profiles, windows), (Signal::Requests, requests)] {
                    let batch = Batch {
                        id: Some(BatchId {
                            sender: "bulk".into(),
                            epoch: 1,
                            sequence,
                            signal,
                        }),
                        received_unix_ms: (from_s + BATCH_S) * 1000,
                        windows,
                    };
                    if !batch.windows.is_empty() {
                        store.append(batch).await?;
                    }
                }
            }
            hour_s += HOUR_S;
            loaded.hours.push(hour);
            store.flush_applied().await?;
            clock.set(hour_s + SEAL_AFTER_S);
            store.seal().await?;
            store.compact().await?;
            progress(&loaded);
        }
    }
    let stats = store.stats();
    ensure!(
        stats.seal_failures == 0 && stats.hours == stats.sealed_hours,
        "hours were not sealed: see the log"
    );
    Ok(loaded)
}

fn put_symbols(store: &Store, build: &Build) -> Result<()> {
    let (key, located) = build.symbols();
    Ok(store.put_symbols(&key, located)?)
}
