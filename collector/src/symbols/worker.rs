//! The background worker that names locations.
//!
//! Guarantees: one file is read at a time, on a thread of the lowest priority, so that it never competes with ingest
//! or with the services on the same machine; what was parsed is dropped after a minute without work.
//!
//! A sent file may be hostile. Its size is bounded before it is stored; a panic while reading it is caught; reading
//! that takes longer than [`LIMIT`] is given up: the thread is abandoned (it cannot be stopped), the file is removed
//! and its build refused. After [`MAX_ABANDONED`] such threads no further file is read until the next start.
//!
//! Wrong on purpose: a file that makes the reader allocate without bound is not caught. Whoever may send telemetry may
//! also send files; a subprocess with a memory limit is what would change that.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{Arc, mpsc},
    time::Duration,
};

use emberline_model::{Frame, Mapping};
use emberline_storage::Store;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use super::{files::DebugFiles, symbolise::Symboliser};
use crate::self_metrics::SelfMetrics;

/// How long one batch of locations of one file may take.
const LIMIT: Duration = Duration::from_secs(60);
/// Threads given up before symbolisation stops.
const MAX_ABANDONED: usize = 3;
/// How often new locations are looked for.
const EVERY: Duration = Duration::from_secs(2);
/// After so long without work the parsed files are dropped.
const IDLE: Duration = Duration::from_secs(60);
/// Locations of one build looked up at a time.
const BATCH: usize = 2_000;
/// Files kept parsed at the same time.
const MAX_FILES: usize = 4;

type Located = Vec<(u64, Vec<Frame>)>;

struct Job {
    path: PathBuf,
    offsets: Vec<u64>,
    answer: oneshot::Sender<Result<Located, String>>,
}

/// What the worker needs.
pub(crate) struct SymbolWorker {
    pub(crate) store: Store,
    pub(crate) files: Arc<DebugFiles>,
    pub(crate) metrics: SelfMetrics,
    /// Told when a file has arrived.
    pub(crate) arrived: Arc<Notify>,
}

impl SymbolWorker {
    /// Runs until cancelled.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut thread: Option<mpsc::Sender<Job>> = None;
        let mut abandoned = 0;
        loop {
            let more = tokio::select! {
                more = self.round(&mut thread, &mut abandoned) => more,
                () = stop.cancelled() => return,
            };
            if more {
                continue;
            }
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = self.arrived.notified() => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Looks up one batch of each build that has a file; true when there is more to do.
    async fn round(&self, thread: &mut Option<mpsc::Sender<Job>>, abandoned: &mut usize) -> bool {
        let (mut waiting, mut without_file, mut more) = (0, 0, false);
        for (mapping, offsets) in self.store.unresolved(BATCH) {
            let Some(path) = self.files.find(&mapping.build_id) else {
                without_file += offsets.len();
                continue;
            };
            waiting += offsets.len();
            if *abandoned >= MAX_ABANDONED {
                continue;
            }
            let full = offsets.len() >= BATCH;
            let named = self.look_up(thread, abandoned, &mapping, path, offsets).await;
            more |= named && full;
        }
        self.metrics.symbol_queue("worker", waiting);
        self.metrics.symbol_queue("file", without_file);
        more
    }

    /// Looks up some locations of one build; true when names were stored.
    async fn look_up(
        &self,
        thread: &mut Option<mpsc::Sender<Job>>,
        abandoned: &mut usize,
        mapping: &Mapping,
        path: PathBuf,
        offsets: Vec<u64>,
    ) -> bool {
        let count = offsets.len();
        let (answer, answered) = oneshot::channel();
        let job = Job { path, offsets, answer };
        if let Err(error) = send(thread, job) {
            tracing::error!("cannot start the symbol thread: {error}; addresses have no names until that works");
            return false;
        }
        let located = match tokio::time::timeout(LIMIT, answered).await {
            Ok(Ok(Ok(located))) => located,
            Ok(answer) => {
                // Without an answer the thread is gone; the next job starts another.
                let why = match answer {
                    Ok(Err(why)) => why,
                    _ => "the thread that reads it ended".to_owned(),
                };
                self.give_up(mapping, count, &why);
                return false;
            }
            Err(_) => {
                *thread = None;
                *abandoned += 1;
                self.metrics.symbol_threads_abandoned(*abandoned);
                self.give_up(
                    mapping,
                    count,
                    &format!("reading it took longer than {} s", LIMIT.as_secs()),
                );
                if *abandoned >= MAX_ABANDONED {
                    tracing::error!(
                        "{MAX_ABANDONED} files could not be read in time; no more files are read until the next start"
                    );
                }
                return false;
            }
        };
        let named = located.iter().filter(|(_, frames)| !frames.is_empty()).count();
        let (store, key) = (self.store.clone(), mapping.key().to_owned());
        let stored = tokio::task::spawn_blocking(move || store.put_symbols(&key, located)).await;
        match stored {
            Ok(Ok(())) => {
                self.metrics.symbols("named", named);
                self.metrics.symbols("without_symbol", count - named);
                tracing::debug!(build = mapping.key(), count, named, "looked up locations");
                true
            }
            Ok(Err(error)) => {
                tracing::warn!("symbols were not stored: {error}");
                false
            }
            Err(error) => {
                tracing::error!("storing symbols failed: {error}");
                false
            }
        }
    }

    fn give_up(&self, mapping: &Mapping, count: usize, why: &str) {
        self.metrics.symbols("failed", count);
        tracing::warn!(
            build = mapping.build_id,
            path = mapping.path,
            "the debug information is of no use: {why}"
        );
        self.files.refuse(&mapping.build_id, why.to_owned());
    }
}

/// Hands a job to the thread, which is started when there is none.
fn send(thread: &mut Option<mpsc::Sender<Job>>, job: Job) -> std::io::Result<()> {
    let job = match thread {
        None => job,
        Some(jobs) => match jobs.send(job) {
            Ok(()) => return Ok(()),
            // The thread has ended; the job comes back.
            Err(mpsc::SendError(job)) => job,
        },
    };
    let (jobs, queue) = mpsc::channel();
    std::thread::Builder::new()
        .name("symbols".to_owned())
        .spawn(move || serve(&queue))?;
    // The thread has just begun to listen.
    let _ = jobs.send(job);
    *thread = Some(jobs);
    Ok(())
}

fn serve(queue: &mpsc::Receiver<Job>) {
    // Failing to is no reason to fail: the thread is then as important as any other.
    let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), 19);
    let mut symboliser: Option<Symboliser> = None;
    let mut files: Vec<PathBuf> = Vec::new();
    loop {
        let job = match queue.recv_timeout(IDLE) {
            Ok(job) => job,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                symboliser = None;
                files.clear();
                continue;
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => return,
        };
        if !files.contains(&job.path) {
            if files.len() >= MAX_FILES {
                symboliser = None;
                files.clear();
            }
            files.push(job.path.clone());
        }
        let reader = symboliser.get_or_insert_with(Symboliser::new);
        let read = catch_unwind(AssertUnwindSafe(|| reader.frames(&job.path, &job.offsets)));
        let answer = read.unwrap_or_else(|_| {
            // What a panic left behind is not used again.
            symboliser = None;
            files.clear();
            Err("reading it failed in a way that is a mistake of the reader".to_owned())
        });
        // Nobody waits any more when the time was up.
        let _ = job.answer.send(answer);
    }
}
