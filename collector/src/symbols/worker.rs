//! The background worker that symbolises locations.
//!
//! Guarantees: one file is read at a time, in a process of its own with the lowest priority, which is ended after a
//! minute without work. An uploaded file may be hostile: its size is limited before it is stored, and so is the
//! decompressed size of its sections; reading it is limited in memory and time ([`super::child`], [`super::confine`]).
//! A file that exceeds a limit is removed and its build refused, with the reason. If the process is killed from
//! outside, it is retried [`MOST_KILLS`] times, with growing delays.
//!
//! A build is queried again only after twenty times as long as its last query took: services that keep running new code
//! cost at most a twentieth of a CPU.

use std::{
    collections::HashMap,
    ffi::OsString,
    sync::Arc,
    time::{Duration, Instant},
};

use emberline_model::Mapping;
use emberline_storage::Store;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{
    child::{ReadError, ReadLimits, SymbolReader},
    files::DebugFiles,
};
use crate::self_metrics::SelfMetrics;

/// How often new locations are looked for.
const EVERY: Duration = Duration::from_secs(2);
/// The process is ended after this long without work.
const IDLE: Duration = Duration::from_secs(60);
/// Locations of one build looked up at a time.
const BATCH: usize = 2_000;
/// A build rests for this many times the duration of its last query.
const REST: u32 = 20;
/// How often a process that reads a file may be killed from outside before the file is refused.
const MOST_KILLS: u32 = 3;
/// How long nothing is read if no process can be started.
const NOT_STARTED: Duration = Duration::from_secs(60);

/// What the worker needs.
pub(crate) struct SymbolWorker {
    pub(crate) store: Store,
    pub(crate) files: Arc<DebugFiles>,
    pub(crate) metrics: SelfMetrics,
    /// Notified when a file has arrived.
    pub(crate) arrived: Arc<Notify>,
    /// The program that reads files, with its arguments; without one, nothing is read.
    pub(crate) reader: Option<Vec<OsString>>,
    pub(crate) memory_bytes: u64,
    pub(crate) seconds: u64,
}

/// The worker's state between rounds.
struct Memory {
    reader: SymbolReader,
    /// Builds that rest, and until when.
    resting: HashMap<String, Instant>,
    /// How often a process reading a build was killed.
    kills: HashMap<String, u32>,
    last_read: Instant,
    /// No process can be started before this.
    not_before: Option<Instant>,
    /// A warning was logged that a right could not be given up.
    told_unconfined: bool,
}

/// The outcome of a lookup.
enum Outcome {
    /// Names were stored; there may be more to look up.
    Stored,
    /// Names are looked up later.
    Waits,
    /// There is no file.
    NoFile,
    /// This file will yield no names.
    Over,
}

impl SymbolWorker {
    /// Runs until cancelled.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let limits = ReadLimits {
            memory_bytes: self.memory_bytes,
            seconds: self.seconds,
        };
        let mut memory = Memory {
            reader: SymbolReader::new(self.reader.clone().unwrap_or_default(), limits),
            resting: HashMap::new(),
            kills: HashMap::new(),
            last_read: Instant::now(),
            not_before: None,
            told_unconfined: false,
        };
        loop {
            tokio::select! {
                () = self.round(&mut memory) => {}
                () = stop.cancelled() => return,
            }
            if memory.last_read.elapsed() >= IDLE {
                memory.reader.rest();
            }
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = self.arrived.notified() => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Looks up pending locations of each build that has a file.
    async fn round(&self, memory: &mut Memory) {
        let (mut waiting, mut without_file) = (0, 0);
        let now = Instant::now();
        memory.resting.retain(|_, until| *until > now);
        for (mapping, offsets) in self.store.unresolved(BATCH) {
            let build = mapping.build_id.as_str();
            let may_read = self.reader.is_some() && memory.not_before.is_none_or(|at| at <= Instant::now());
            if !may_read || memory.resting.contains_key(build) {
                waiting += offsets.len();
                continue;
            }
            let mut offsets = offsets;
            // To the end, because the process for this file may have to make room for the next one.
            let left = loop {
                let more = match self.look_up(memory, &mapping, &offsets).await {
                    Outcome::NoFile => {
                        without_file += offsets.len();
                        break 0;
                    }
                    Outcome::Waits => break offsets.len(),
                    Outcome::Over => break 0,
                    Outcome::Stored if offsets.len() < BATCH => break 0,
                    Outcome::Stored => self.store.unresolved(BATCH),
                };
                let key = mapping.key();
                match more.into_iter().find(|(other, _)| other.key() == key) {
                    Some((_, more)) => offsets = more,
                    None => break 0,
                }
            };
            waiting += left;
        }
        self.metrics.symbol_queue("worker", waiting);
        self.metrics.symbol_queue("file", without_file);
    }

    /// Looks up some locations of one build.
    async fn look_up(&self, memory: &mut Memory, mapping: &Mapping, offsets: &[u64]) -> Outcome {
        let build = mapping.build_id.as_str();
        let file = match self.files.begin_reading(build) {
            None => return Outcome::NoFile,
            Some(Err(why)) => {
                self.give_up(mapping, offsets.len(), "refused", &why);
                return Outcome::Over;
            }
            Some(Ok(file)) => file,
        };
        let started = Instant::now();
        let read = memory.reader.frames(&file.path, offsets).await;
        memory.last_read = Instant::now();
        memory
            .resting
            .insert(build.to_owned(), Instant::now() + started.elapsed() * REST);
        let located = match read {
            Ok((located, unconfined)) => {
                if !unconfined.is_empty() && !memory.told_unconfined {
                    tracing::warn!("the symbol reader is not fully sandboxed: {unconfined}");
                    memory.told_unconfined = true;
                }
                located
            }
            Err(ReadError::File(why)) => {
                self.give_up(mapping, offsets.len(), "refused", &why);
                return Outcome::Over;
            }
            Err(ReadError::Killed(why)) => {
                self.metrics.symbol_read("killed");
                let kills = memory.kills.entry(build.to_owned()).or_default();
                *kills += 1;
                tracing::warn!(build, kills, "{why}");
                if *kills >= MOST_KILLS {
                    memory.kills.remove(build);
                    self.give_up(
                        mapping,
                        offsets.len(),
                        "refused",
                        &format!(
                            "{why} {MOST_KILLS} times: too little memory on this machine, or another program kills it"
                        ),
                    );
                } else {
                    memory.resting.insert(build.to_owned(), Instant::now() + EVERY * *kills);
                }
                return Outcome::Waits;
            }
            Err(ReadError::NotStarted(why)) => {
                self.metrics.symbol_read("not_started");
                tracing::error!("cannot resolve addresses: {why}");
                memory.not_before = Some(Instant::now() + NOT_STARTED);
                return Outcome::Waits;
            }
        };
        memory.kills.remove(build);
        self.metrics.symbol_read("done");
        let count = offsets.len();
        let named = located.iter().filter(|(_, frames)| !frames.is_empty()).count();
        let (store, files, key) = (self.store.clone(), Arc::clone(&self.files), mapping.key().into_owned());
        let owned_build = build.to_owned();
        let stored = tokio::task::spawn_blocking(move || {
            // Another file may have replaced it meanwhile: these names are then not trustworthy.
            match files.is_current(&owned_build, &file) {
                true => store.put_symbols(&key, located).map(|()| true),
                false => Ok(false),
            }
        });
        match stored.await {
            Ok(Ok(true)) => {
                self.metrics.symbols("named", named);
                self.metrics.symbols("without_symbol", count - named);
                tracing::debug!(build, count, named, "looked up locations");
                Outcome::Stored
            }
            Ok(Ok(false)) => Outcome::Waits,
            Ok(Err(error)) => {
                tracing::warn!("symbols were not stored: {error}");
                Outcome::Waits
            }
            Err(error) => {
                tracing::error!("cannot store symbols: {error}");
                Outcome::Waits
            }
        }
    }

    fn give_up(&self, mapping: &Mapping, count: usize, outcome: &'static str, why: &str) {
        self.metrics.symbol_read(outcome);
        self.metrics.symbols("failed", count);
        tracing::warn!(
            build = mapping.build_id,
            path = mapping.path,
            "the debug information is unusable: {why}"
        );
        self.files.refuse(&mapping.build_id, why.to_owned());
    }
}
