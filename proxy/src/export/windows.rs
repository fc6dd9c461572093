//! Cuts windows at their boundaries and makes batches of them.
//!
//! Guarantees: one requests batch per window and, with a sampler, one profiles batch; both have the window's own start
//! and length, so that the store can join them. Sequences start at 1 without gaps: a gap at the collector means a
//! dropped batch.

use std::{
    collections::{BTreeMap, HashSet},
    hash::{BuildHasher, Hasher, RandomState},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use emberline_model::{
    BatchId, Component, Mapping, Profile, RequestSeries, Signal, Workload, WorkloadWindow, otlp,
    time::{Clock, WINDOW_SECONDS, window_start},
};
use emberline_profiler::Profiler;
use prost::Message;
use tokio::sync::mpsc;

use super::{ExportOptions, WINDOW_NS, batch::QueuedBatch, debug_info::BuildNews, profile, stats::Shared};
use crate::telemetry::{Cut, Telemetry};

/// Missed windows without requests that are still reported; after a longer sleep of the machine they are skipped.
const MOST_EMPTY_WINDOWS: i64 = 6;

const STEP: i64 = WINDOW_SECONDS as i64;

/// A number that nobody else can guess: the standard library seeds this hasher with the system's random numbers.
pub(super) fn random_epoch() -> u64 {
    RandomState::new().build_hasher().finish()
}

pub(super) struct Cutter {
    workload: Workload,
    component: Component,
    sender: String,
    epoch: u64,
    sequences: [u64; 2],
    /// The first window not cut yet, seconds since the Unix epoch.
    next_start: i64,
    clock_check: Duration,
    telemetry: Telemetry,
    profiler: Option<Arc<Profiler>>,
    clock: Arc<dyn Clock>,
    shared: Arc<Shared>,
    builds: Option<mpsc::UnboundedSender<BuildNews>>,
    builds_named: HashSet<String>,
}

impl Cutter {
    pub(super) fn new(
        options: &ExportOptions,
        epoch: u64,
        telemetry: Telemetry,
        profiler: Option<Arc<Profiler>>,
        clock: Arc<dyn Clock>,
        shared: Arc<Shared>,
        builds: Option<mpsc::UnboundedSender<BuildNews>>,
    ) -> Cutter {
        Cutter {
            workload: options.workload.clone(),
            component: options.component,
            sender: BatchId::sender_of(&options.workload, options.component),
            epoch,
            sequences: [0, 0],
            next_start: window_start(clock.now_unix_s()),
            clock_check: options.clock_check,
            telemetry,
            profiler,
            clock,
            shared,
            builds,
            builds_named: HashSet::new(),
        }
    }

    /// How long to sleep before checking the clock again: to the end of the current window, but not so long that a
    /// clock step goes unnoticed.
    pub(super) fn until_next_look(&self) -> Duration {
        let now_ns = self.clock.now_unix_ns();
        let left = WINDOW_NS - now_ns.rem_euclid(WINDOW_NS);
        Duration::from_nanos(left as u64).min(self.clock_check)
    }

    /// Cuts the windows that have ended.
    pub(super) fn cut_ended(&mut self) {
        let running = window_start(self.clock.now_unix_s());
        if running < self.next_start - STEP {
            // The clock was set back: continue from where it is now.
            self.next_start = running;
        }
        if running <= self.next_start {
            return;
        }
        let late = (running - self.next_start) / STEP - 1;
        self.shared.count(|stats| stats.windows_late += late.unsigned_abs());
        let requests = self.telemetry.take_windows(Cut::Ended);
        self.shared.take_over();
        self.cut(requests, running - STEP);
        self.next_start = running;
    }

    /// Cuts everything, including the current window: the last export.
    pub(super) fn cut_all(&mut self) {
        self.cut_ended();
        let requests = self.telemetry.take_windows(Cut::All);
        let last = self.next_start;
        self.cut(requests, last);
        self.next_start = last + STEP;
    }

    /// Makes batches of all windows from `next_start` to `last`, and of any others in `requests`.
    fn cut(&mut self, mut requests: BTreeMap<i64, Vec<RequestSeries>>, last: i64) {
        let profile = self.profiler.as_ref().map(|profiler| {
            let window = profiler.take_window();
            profile::model_profile(&window, last, |label| self.telemetry.label_set(label))
        });
        let first_reported = self.next_start.max(last - MOST_EMPTY_WINDOWS * STEP);
        for start in (first_reported..=last).step_by(STEP as usize) {
            requests.entry(start).or_default();
        }
        for (start, requests) in requests {
            self.batch(start, Signal::Requests, requests, Vec::new());
            if self.profiler.is_some() && start != last {
                let empty = Profile::empty_cpu(start.saturating_mul(1_000_000_000), WINDOW_NS);
                self.batch(start, Signal::Profiles, Vec::new(), vec![empty]);
            }
        }
        if let Some(profile) = profile {
            self.name_builds(&profile);
            self.shared.set_last_profile(profile.clone());
            self.batch(last, Signal::Profiles, Vec::new(), vec![profile]);
        }
    }

    /// Announces builds that this process has not sampled before.
    fn name_builds(&mut self, profile: &Profile) {
        let Some(builds) = &self.builds else { return };
        let new = profile
            .mappings
            .iter()
            .filter(|m| !m.build_id.is_empty() && !self.builds_named.contains(&m.build_id));
        let new: Vec<Mapping> = new.cloned().collect();
        if new.is_empty() {
            return;
        }
        self.builds_named.extend(new.iter().map(|m| m.build_id.clone()));
        // The receiver ends with this thread; then nobody misses the message.
        let _ = builds.send(BuildNews::Seen(new));
    }

    fn batch(&mut self, start_unix_s: i64, signal: Signal, requests: Vec<RequestSeries>, profiles: Vec<Profile>) {
        let window = WorkloadWindow {
            workload: self.workload.clone(),
            component: self.component,
            start_unix_s,
            length_s: WINDOW_SECONDS,
            has_requests: signal == Signal::Requests,
            has_profiles: signal == Signal::Profiles,
            requests,
            profiles,
        };
        let body = match signal {
            Signal::Requests => otlp::encode_requests(&window).encode_to_vec(),
            Signal::Profiles => otlp::encode_profiles(&window).encode_to_vec(),
        };
        let sequence = &mut self.sequences[usize::from(signal == Signal::Profiles)];
        *sequence += 1;
        let id = BatchId {
            sender: self.sender.clone(),
            epoch: self.epoch,
            sequence: *sequence,
            signal,
        };
        if signal == Signal::Requests {
            self.shared.count(|stats| stats.windows_cut += 1);
        }
        self.shared.push(QueuedBatch {
            id,
            body: Bytes::from(body),
        });
    }
}
