//! Ships each window to the collector, on a thread and runtime of its own.
//!
//! Guarantees:
//! - **Traffic never waits for it.** The data path calls nothing here; a collector that is slow, hostile or away costs
//!   memory up to [`ExportOptions::queue_bytes`] and nothing else.
//! - **At least once, recognisably.** A batch is encoded once and keeps its id over all retries, so the collector can
//!   store it once. Batches are sent in order; one leaves the queue only when it was acknowledged, refused for good, or
//!   dropped for lack of room, and each of these is counted.
//! - **Every window is reported**, even if nothing happened in it: the requests signal always, the profiles signal
//!   whenever the sampler runs.
//!
//! Wrong on purpose: without a spool the queue is in memory, so what a killed process had not sent is lost. If this thread could not
//! run for more than a window (a suspended machine), the CPU of the missed windows is reported in the last of them; the
//! requests are always in their own.

mod answer;
mod backoff;
mod batch;
mod channel;
mod client;
mod debug_info;
mod elf;
mod metrics;
mod profile;
mod queue;
mod sender;
mod spool;
mod stats;
mod windows;

use std::{
    path::PathBuf,
    sync::{Arc, Weak},
    time::Duration,
};

use emberline_client::{InvalidAddress, Tls, TlsError};
use emberline_model::{
    Component, Profile, Workload,
    time::{Clock, WINDOW_SECONDS},
};
use emberline_profiler::Profiler;
pub use profile::model_profile;
use stats::Shared;
pub use stats::{DropReason, ExportStats};
use tokio::sync::{mpsc, oneshot};

use crate::{config::SpoolConfig, telemetry::Telemetry};

/// What to export, where to, and within which limits.
#[derive(Debug, Clone)]
pub struct ExportOptions {
    /// Where the collector listens for OTLP/gRPC, for example `http://127.0.0.1:4317`; `https://` for TLS.
    pub endpoint: String,
    /// TLS settings, if it is `https`.
    pub tls: Tls,
    /// Who reports.
    pub workload: Workload,
    /// Whose process it is: the application's (embedded library) or the proxy's.
    pub component: Component,
    /// Memory for batches that wait for the collector, in bytes. When it is full, the oldest profiles are dropped
    /// first, then the oldest requests.
    pub queue_bytes: usize,
    /// Disk for them, which outlives the process; `None` for memory alone.
    pub spool: Option<SpoolConfig>,
    /// The longest one export call may take.
    pub call_timeout: Duration,
    /// Wait after the first failure; doubles with each further one.
    pub initial_backoff: Duration,
    /// The longest wait between two attempts, unless the collector asks for more (at most five minutes).
    pub max_backoff: Duration,
    /// Offer the debug information of sampled builds to the collector.
    pub upload_debug_info: bool,
    /// Pause between two pieces (256 KiB) of an upload, so that it does not compete with traffic.
    pub upload_pause: Duration,
    /// The shortest time after which, following a reconnect, the collector is asked again about the same build.
    pub ask_again_after: Duration,
    /// The longest sleep between two checks of the clock: how soon a clock step is noticed.
    pub clock_check: Duration,
}

impl ExportOptions {
    /// The defaults for a workload: 8 MiB queue, 10 s per call, back-off of 0.5 s to 30 s.
    pub fn new(endpoint: impl Into<String>, workload: Workload, component: Component) -> ExportOptions {
        ExportOptions {
            endpoint: endpoint.into(),
            tls: Tls::default(),
            workload,
            component,
            queue_bytes: 8 << 20,
            spool: None,
            call_timeout: Duration::from_secs(10),
            initial_backoff: Duration::from_millis(500),
            max_backoff: Duration::from_secs(30),
            upload_debug_info: true,
            upload_pause: Duration::from_millis(20),
            ask_again_after: Duration::from_secs(600),
            clock_check: Duration::from_secs(1),
        }
    }
}

/// Why an exporter did not start. Retrying does not help; the settings have to change.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The endpoint is not a usable URL.
    #[error("collector.endpoint: {0}; use `http://HOST:4317` or `https://HOST:4317`")]
    Endpoint(InvalidAddress),
    /// The TLS settings cannot be used.
    #[error("collector.tls: {0}")]
    Tls(TlsError),
    /// The directory for batches on disk cannot be used.
    #[error("collector.spool.directory: cannot use {path}: {error}; it must be a directory this process may write to", path = directory.display())]
    Spool {
        /// The directory.
        directory: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The operating system refused a thread or runtime.
    #[error("cannot start the export thread: {0}; check this service's limits on processes and open files")]
    Thread(#[from] std::io::Error),
}

/// Starts exporters.
#[derive(Debug)]
pub struct Exporter;

/// A running exporter. Dropping it stops the export without sending what is queued; use
/// [`ExporterHandle::flush_and_stop`] for an orderly end.
#[derive(Debug)]
pub struct ExporterHandle {
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
    profiler: Option<Weak<Profiler>>,
}

/// What the last flush achieved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FlushReport {
    /// Batches acknowledged during the flush.
    pub acked: u64,
    /// Batches that were still waiting in memory when the time was up, and are lost with the process.
    pub unacked: u64,
    /// Batches that wait on disk for the next process.
    pub spooled: u64,
}

#[derive(Debug)]
enum Command {
    FlushAndStop {
        deadline: Duration,
        reply: oneshot::Sender<FlushReport>,
    },
}

impl Exporter {
    /// Starts the export thread. From now on, `profiler` is sampled at the end of every window, and stopped at the end.
    /// Windows follow `clock`, which should be the telemetry's own.
    pub fn start(
        options: ExportOptions,
        telemetry: Telemetry,
        profiler: Option<Profiler>,
        clock: Arc<dyn Clock>,
    ) -> Result<ExporterHandle, ExportError> {
        let channel = channel::Plan::new(&options)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let epoch = windows::random_epoch();
        let spool = options.spool.as_ref().map(|spool| {
            let opened = spool::Spool::open(&spool.directory, epoch);
            let named = |error| ExportError::Spool {
                directory: spool.directory.clone(),
                error,
            };
            opened.map(|opened| (opened, spool.max_bytes)).map_err(named)
        });
        let shared = Arc::new(Shared::new(options.queue_bytes, spool.transpose()?));
        let profiler = profiler.map(Arc::new);
        let (commands, inbox) = mpsc::channel(1);
        let handle = ExporterHandle {
            commands,
            shared: Arc::clone(&shared),
            profiler: profiler.as_ref().map(Arc::downgrade),
        };
        let (news, builds) = mpsc::unbounded_channel();
        let news = options.upload_debug_info.then_some(news);
        // Created here and not on the thread: the first window is that of this call.
        let cutter = windows::Cutter::new(
            &options,
            epoch,
            telemetry,
            profiler.clone(),
            Arc::clone(&clock),
            Arc::clone(&shared),
            news.clone(),
        );
        // The thread ends when the handle's sender is dropped.
        std::thread::Builder::new()
            .name("emberline-export".to_owned())
            .spawn(move || {
                runtime.block_on(run(options, channel, cutter, clock, shared, inbox, news, builds));
                // Uploads and calls in flight end here; nobody waits for them.
                runtime.shutdown_timeout(Duration::from_millis(100));
                if let Some(Ok(profiler)) = profiler.map(Arc::try_unwrap) {
                    profiler.stop();
                }
            })?;
        Ok(handle)
    }
}

impl ExporterHandle {
    /// Cuts the current window, exports it with everything queued, and returns when all is acknowledged or the time is
    /// up; the exporter has stopped by then. Call it after the data path has drained: what is recorded later is not
    /// exported.
    pub async fn flush_and_stop(self, deadline: Duration) -> FlushReport {
        let (reply, answer) = oneshot::channel();
        let lost = self.shared.left(0);
        if self
            .commands
            .send(Command::FlushAndStop { deadline, reply })
            .await
            .is_err()
        {
            return lost;
        }
        answer.await.unwrap_or(lost)
    }

    /// The state of the export.
    pub fn stats(&self) -> ExportStats {
        self.shared.stats()
    }

    /// The profile of the last window cut, as exported.
    pub fn last_profile(&self) -> Option<Arc<Profile>> {
        self.shared.last_profile()
    }

    /// The state of the sampler; `None` if there is none.
    pub fn profiler_stats(&self) -> Option<emberline_profiler::Stats> {
        Some(self.profiler.as_ref()?.upgrade()?.stats())
    }

    /// The counters as Prometheus metrics: register it with `Registry::register_collector`.
    pub fn metrics(&self) -> impl prometheus_client::collector::Collector + use<> {
        metrics::ExportMetrics::new(Arc::clone(&self.shared))
    }
}

/// The export thread.
async fn run(
    options: ExportOptions,
    channel: channel::Plan,
    mut cutter: windows::Cutter,
    clock: Arc<dyn Clock>,
    shared: Arc<Shared>,
    mut inbox: mpsc::Receiver<Command>,
    news: Option<mpsc::UnboundedSender<debug_info::BuildNews>>,
    builds: mpsc::UnboundedReceiver<debug_info::BuildNews>,
) {
    let channel = channel.open_when_used();
    debug_info::spawn(channel.clone(), &options, Arc::clone(&shared), builds);
    shared.take_over();
    let sender = sender::Sender::new(channel, &options, clock, Arc::clone(&shared), news);
    let sending = tokio::spawn(sender.run());
    loop {
        tokio::select! {
            () = tokio::time::sleep(cutter.until_next_look()) => cutter.cut_ended(),
            command = inbox.recv() => {
                if let Some(Command::FlushAndStop { deadline, reply }) = command {
                    cutter.cut_all();
                    // The caller may have stopped waiting for the report; then nothing is lost.
                    let _ = reply.send(flush(&shared, deadline).await);
                }
                break;
            }
        }
    }
    sending.abort();
}

/// Waits until the queue is empty or the time is up.
async fn flush(shared: &Shared, deadline: Duration) -> FlushReport {
    let acked_before = shared.stats().batches_acked();
    shared.begin_flush();
    // Out of time: the report says what is left.
    let _ = tokio::time::timeout(deadline, shared.queue_is_empty()).await;
    shared.left(shared.stats().batches_acked() - acked_before)
}

/// Length of a window in nanoseconds.
const WINDOW_NS: i64 = WINDOW_SECONDS as i64 * 1_000_000_000;
