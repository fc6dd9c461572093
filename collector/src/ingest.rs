//! Ingesting batches: one file per protocol around a common core.
//!
//! Guarantees: an OK response means that the batch is on disk; a batch whose id arrived before is answered OK and
//! stored once; a refusal stores nothing of the request; what is dropped from an accepted request is reported in the
//! response and counted by reason. Decoding and checking run on the blocking pool, never on the threads that serve
//! connections.
//!
//! Memory is bounded for all requests together ([`memory`]), and messages that are small on the wire but large in
//! memory are refused by weight before they are decoded.
//!
//! Wrong on purpose: files of other profilers may be compressed inside, so their expanded size is not known in advance;
//! they are decoded one at a time, like JSON.

mod body;
mod cardinality;
pub(crate) mod debuginfo;
mod growing;
mod grpc_guard;
pub(crate) mod left_out;
pub(crate) mod limits;
mod memory;
pub(crate) mod otlp_grpc;
pub(crate) mod otlp_http;
mod payload;
mod profile_limits;
mod pyroscope;
mod raw_grpc;
pub(crate) mod refusals;
pub(crate) mod rejection;
mod rpc;
pub(crate) mod sender;
pub(crate) mod shares;
mod unread;
mod untaken;
pub(crate) mod upload;

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use emberline_model::{
    Batch, BatchId, Signal, Workload, WorkloadWindow,
    otlp::{Decoded, Rejected},
    time::Clock,
    weight::memory_of,
};
use emberline_storage::{Appended, Store};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};

pub(crate) use payload::Payload;

use self::{
    cardinality::Cardinality,
    growing::{Growing, Held},
    limits::{TOO_MANY_WORKLOADS, config::IngestLimits, outcome::Outcome},
    memory::{Memory, Room},
    refusals::Refusals,
    rejection::Rejection,
    sender::SenderKey,
};
use crate::{
    cumulative::{Bounds, Senders, Slot},
    self_metrics::SelfMetrics,
    symbols::reporters::Reporters,
};

/// How long a request may wait for its turn before it is refused as retryable.
const WAIT_FOR_TURN: Duration = Duration::from_secs(2);

/// The reason for points dropped because their buckets took too much memory.
const TOO_MANY_BUCKETS: &str = "too_many_buckets";

/// Settings of ingest.
#[derive(Debug, Clone)]
pub(crate) struct IngestConfig {
    pub(crate) max_request_bytes: usize,
    pub(crate) max_concurrent_requests: usize,
    pub(crate) request_timeout: Duration,
    pub(crate) limits: IngestLimits,
}

/// The core shared by all protocols.
pub(crate) struct Ingest {
    store: Store,
    clock: Arc<dyn Clock>,
    pub(crate) config: IngestConfig,
    names: Arc<Mutex<Cardinality>>,
    turns: Semaphore,
    pub(crate) cumulative: Arc<Senders>,
    growing: Arc<Growing>,
    pub(crate) refusals: Refusals,
    pub(crate) reporters: Arc<Reporters>,
    memory: Memory,
    pub(crate) metrics: SelfMetrics,
}

/// A request that is on disk.
#[derive(Debug)]
pub(crate) struct Accepted {
    /// What was not stored as sent, as far as the sender should know: items dropped, and what was changed.
    pub(crate) outcome: Outcome,
    /// Windows stored.
    pub(crate) windows: usize,
    /// Profiles in them.
    pub(crate) profiles: usize,
    /// Samples in those.
    pub(crate) samples: usize,
    /// Build ids of native code in them.
    pub(crate) builds: BTreeSet<String>,
}

impl Accepted {
    fn of(windows: &[WorkloadWindow], outcome: Outcome) -> Accepted {
        let profiles = windows.iter().flat_map(|window| &window.profiles);
        Accepted {
            outcome,
            windows: windows.len(),
            profiles: profiles.clone().count(),
            samples: profiles.clone().map(|profile| profile.samples.len()).sum(),
            builds: profiles
                .flat_map(|profile| &profile.mappings)
                .filter(|mapping| !mapping.build_id.is_empty())
                .map(|mapping| mapping.build_id.clone())
                .collect(),
        }
    }

    /// Items dropped.
    pub(crate) fn rejected(&self) -> i64 {
        i64::try_from(self.outcome.rejected.iter().map(|r| r.count).sum::<u64>()).unwrap_or(i64::MAX)
    }

    /// What the sender should know, as text; empty if everything was stored as sent.
    pub(crate) fn message(&self) -> String {
        left_out::message(&self.outcome.rejected, &self.outcome.changed)
    }
}

/// The name of a signal in counters and messages.
pub(crate) fn signal_name(signal: Signal) -> &'static str {
    match signal {
        Signal::Requests => "metrics",
        Signal::Profiles => "profiles",
    }
}

impl Ingest {
    pub(crate) fn new(store: Store, clock: Arc<dyn Clock>, config: IngestConfig, metrics: SelfMetrics) -> Ingest {
        let turns = Semaphore::new(config.max_concurrent_requests.max(1));
        let cumulative = Senders::new(Bounds {
            rows: config.limits.max_cumulative_rows,
            rows_per_profile: config.limits.max_cumulative_rows_per_profile,
            senders: config.limits.max_cumulative_senders,
        });
        let growing = Bounds {
            rows: config.limits.max_cumulative_buckets,
            rows_per_profile: config.limits.max_cumulative_buckets_per_process,
            senders: config.limits.max_workloads,
        };
        let growing = Arc::new(Growing::new(growing, config.limits.max_future, clock.now_unix_ns()));
        let memory = Memory::new(config.max_request_bytes, store.pressure().clone());
        let mut names = Cardinality::new(&config.limits);
        names.restore(&store.remembered_names(), clock.now_unix_s());
        Ingest {
            store,
            clock,
            config,
            names: Arc::new(Mutex::new(names)),
            turns,
            cumulative,
            growing,
            refusals: Refusals::default(),
            reporters: Arc::default(),
            memory,
            metrics,
        }
    }

    /// Buckets tracked for cumulative histograms, all processes together; a histogram with the SDKs' default bounds
    /// needs about fifty, including overhead.
    pub(crate) fn cumulative_buckets(&self) -> usize {
        self.growing.buckets()
    }

    /// Waits for a turn among the requests processed concurrently.
    pub(crate) async fn turn(&self) -> Result<SemaphorePermit<'_>, Rejection> {
        match tokio::time::timeout(WAIT_FOR_TURN, self.turns.acquire()).await {
            Ok(Ok(permit)) => Ok(permit),
            // The semaphore is never closed, so this was the timeout.
            _ => Err(Rejection::Overloaded {
                limit: self.config.max_concurrent_requests,
            }),
        }
    }

    /// How full the tables of names are, who fills them, and who was refused.
    pub(crate) fn shares(&self) -> serde_json::Value {
        self.names.lock().json()
    }

    /// Stores the names that lasted, for the next start. Blocks on the disk.
    pub(crate) fn keep_names(&self) {
        let (records, sizes) = {
            let mut names = self.names.lock();
            (names.records(), names.sizes())
        };
        for (table, used, limit) in sizes {
            self.metrics.names(table, used, limit);
        }
        if let Some(records) = records
            && let Err(error) = self.store.remember_names(&records)
        {
            tracing::warn!(%error, "cannot save the known names; a restart may forget some");
        }
    }

    /// The slot of a process that pushes its counters; a refusal is counted.
    pub(crate) fn place_of(&self, sender: SenderKey, workload: &Workload, kind: &str) -> Result<Slot, Rejection> {
        let slot = self.cumulative.slot(sender, workload, kind, self.clock.now_unix_s());
        slot.ok_or_else(|| {
            let refused = Rejection::NoPlace("`max_cumulative_senders` reached".to_owned());
            self.count_refusal(signal_name(Signal::Profiles), &refused);
            refused
        })
    }

    /// Stores a request; resolves when it is on disk. `id` is the text of the batch id header.
    pub(crate) async fn accept(
        &self,
        sender: SenderKey,
        id: Option<&[u8]>,
        payload: Payload,
        wire_bytes: usize,
    ) -> Result<Accepted, Rejection> {
        let signal = payload.signal();
        let name = signal_name(signal);
        self.metrics.ingest_bytes(name, wire_bytes);
        let started = Instant::now();
        let result = self.accept_uncounted(sender, id, payload).await;
        match &result {
            Ok((accepted, appended)) => {
                let outcome = match appended {
                    Some(Appended::Stored { .. }) => "stored",
                    Some(Appended::Duplicate) => "duplicate",
                    None => "nothing_to_store",
                };
                self.metrics.ingest_request(name, outcome, "");
                for rejected in &accepted.outcome.rejected {
                    self.metrics
                        .ingest_items(name, "left_out", rejected.reason, rejected.count);
                }
                for changed in &accepted.outcome.changed {
                    self.metrics
                        .ingest_items(name, "changed", changed.reason, changed.count);
                }
                self.metrics.ack_seconds(name, started.elapsed().as_secs_f64());
            }
            Err(refused) => self.count_refusal(name, refused),
        }
        result.map(|(accepted, _)| accepted)
    }

    /// Counts a request that never reached [`Ingest::accept`].
    pub(crate) fn count_refusal(&self, signal: &'static str, refused: &Rejection) {
        let outcome = if refused.retry_after().is_some() {
            "retry_later"
        } else {
            "refused"
        };
        self.metrics.ingest_request(signal, outcome, refused.reason());
        tracing::debug!(signal, reason = refused.reason(), "request refused: {refused}");
    }

    async fn accept_uncounted(
        &self,
        sender: SenderKey,
        id: Option<&[u8]>,
        payload: Payload,
    ) -> Result<(Accepted, Option<Appended>), Rejection> {
        let signal = payload.signal();
        let is_third_party = payload.is_third_party();
        let id = parse_batch_id(id, signal)?;
        let (names, limits) = (Arc::clone(&self.names), self.config.limits.clone());
        let received_unix_ms = self.clock.now_unix_ms();
        let received_unix_ns = received_unix_ms.saturating_mul(1_000_000);
        let (decoded, mut room, most_memory) = self.decode(payload, received_unix_ns).await?;
        let (id, decoded) = own_id(id, decoded);
        let mut held = self.growing.hold(sender, &decoded.cumulative, received_unix_ns).await;
        let check = move || {
            let mut decoded = decoded;
            held.grow(&mut decoded, most_memory);
            let now_unix_s = received_unix_ms.div_euclid(1000);
            let (windows, outcome) = limits::apply(decoded, sender, &mut names.lock(), &limits, now_unix_s);
            Ok((windows, outcome, held))
        };
        let (windows, outcome, held) = reading(signal, check).await?;
        if signal == Signal::Requests {
            self.refusals.add(sender, &outcome.rejected, received_unix_ms);
        }
        room.shrink_to(memory::held_by(&windows));
        let accepted = Accepted::of(&windows, outcome);
        let is_full = |rejected: &Rejected| rejected.reason == TOO_MANY_WORKLOADS;
        // Nothing is stored, so it can be retried. If a part is stored, the rest is reported but not to be retried: the
        // stored part would arrive twice.
        if windows.is_empty() && !accepted.outcome.rejected.is_empty() && accepted.outcome.rejected.iter().all(is_full)
        {
            return Err(Rejection::NoPlace(accepted.message()));
        }
        if is_third_party && windows.is_empty() && accepted.rejected() > 0 {
            return Err(Rejection::NothingKept(accepted.message()));
        }
        // An empty batch with an id is stored, too: its sequence number must not look like a gap.
        if windows.is_empty() && id.is_none() {
            self.growing.stored(held);
            return Ok((accepted, None));
        }
        let batch = Batch {
            id,
            received_unix_ms,
            windows,
        };
        let appended = self.append(batch, held).await?;
        Ok((accepted, Some(appended)))
    }

    /// Decodes a message in as much memory as its plan says, and if that is too little, in all that a message may have.
    /// Returns the room it holds, and how much may be built from it.
    async fn decode(&self, payload: Payload, received_unix_ns: i64) -> Result<(Decoded, Room, u64), Rejection> {
        let signal = payload.signal();
        let most_memory = memory_of(self.config.max_request_bytes as u64);
        let plan = if payload.is_short() {
            payload.plan(most_memory)?
        } else {
            let planned = payload.clone();
            reading(signal, move || planned.plan(most_memory)).await?
        };
        if let Some(plan) = plan {
            let room = self.memory.decoding(Some(plan)).await?;
            let first = payload.clone();
            let decoded = reading(signal, move || first.decode(received_unix_ns, plan.made)).await;
            let is_cut = |decoded: &Decoded| decoded.rejected.iter().any(|r| r.reason == TOO_MANY_BUCKETS);
            match decoded {
                Err(Rejection::TooHeavy(_) | Rejection::TooLarge { .. }) => {}
                Ok(decoded) if is_cut(&decoded) => {}
                decoded => return Ok((decoded?, room, plan.made)),
            }
        }
        let room = self.memory.decoding(None).await?;
        let decoded = reading(signal, move || payload.decode(received_unix_ns, most_memory)).await?;
        Ok((decoded, room, most_memory))
    }

    /// Records that what was accepted came from an address.
    pub(crate) fn came_from(&self, sender: SenderKey, accepted: &Accepted) {
        if let Some(address) = sender.address() {
            let builds = accepted.builds.iter().map(String::as_str);
            self.reporters.note(address, builds, self.clock.now_unix_ms());
        }
    }

    /// Puts a batch on disk, and keeps the counters that its increase was computed from.
    async fn append(&self, batch: Batch, held: Held) -> Result<Appended, Rejection> {
        if held.is_empty() {
            return Ok(self.store.append(batch).await?);
        }
        let (store, growing) = (self.store.clone(), Arc::clone(&self.growing));
        // The two must stay consistent even if the sender leaves in between.
        let storing = tokio::spawn(async move {
            let appended = store.append(batch).await?;
            growing.stored(held);
            Ok::<_, Rejection>(appended)
        });
        match storing.await {
            Ok(appended) => appended,
            Err(error) => Err(Rejection::Undecodable {
                what: signal_name(Signal::Requests),
                reason: error.to_string(),
            }),
        }
    }
}

/// Runs CPU-bound work away from the threads that serve connections.
async fn reading<T: Send + 'static>(
    signal: Signal,
    read: impl FnOnce() -> Result<T, Rejection> + Send + 'static,
) -> Result<T, Rejection> {
    match tokio::task::spawn_blocking(read).await {
        Ok(read) => read,
        // A panic while decoding is this program's fault; the sender must not resend the same bytes forever.
        Err(error) => Err(Rejection::Undecodable {
            what: signal_name(signal),
            reason: error.to_string(),
        }),
    }
}

/// The id of a batch, if it is the sender's own: that of the one workload in all its windows. Someone else's id would
/// make that sender's next batch a duplicate; such a batch is stored as one without an id.
fn own_id(id: Option<BatchId>, mut decoded: Decoded) -> (Option<BatchId>, Decoded) {
    let Some(id) = id else { return (None, decoded) };
    let is_own = |window: &WorkloadWindow| id.sender == BatchId::sender_of(&window.workload, window.component);
    if !decoded.windows.is_empty() && decoded.windows.iter().all(is_own) {
        return (Some(id), decoded);
    }
    decoded.change(Rejected::of("foreign_batch_id", &id.sender, 1));
    (None, decoded)
}

fn parse_batch_id(header: Option<&[u8]>, signal: Signal) -> Result<Option<BatchId>, Rejection> {
    let Some(header) = header else { return Ok(None) };
    let id: BatchId = String::from_utf8_lossy(header)
        .parse()
        .map_err(|invalid: emberline_model::batch::InvalidBatchId| Rejection::BatchId(invalid.to_string()))?;
    if id.signal != signal {
        return Err(Rejection::wrong_signal(signal_name(signal), id.signal.code()));
    }
    Ok(Some(id))
}
