//! The proxy as a process: workers, admin thread, reload, stop.
//!
//! Guarantees: every socket is bound before any thread starts, so a start fails whole and with a message; each worker is
//! one thread with its own sockets, its own connections to destinations and its own share of the telemetry; the admin
//! port, the export and the reload run on other threads, so nobody's scrape or upload delays traffic; a configuration
//! that cannot be used leaves the one in force untouched.
//!
//! Wrong on purpose: the workload, workers, limits, collector, profiler and admin port change with a restart only; a
//! reload says so ([`reload`]).

mod admin;
mod hand_over;
mod listeners;
mod plan;
mod reload;
mod worker;

use std::{
    io,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use emberline_model::{Component, Workload, time::SystemClock};
use tokio::sync::watch;

pub use crate::listener::BindError;
use crate::{
    access_log::AccessLog,
    choose::ChooseCluster,
    cluster::Groups,
    config::Config,
    drain::Drain,
    export::ExportError,
    listener::{self, Neighbours},
    reporting::{ProfilerOptions, Reporting},
    resolve::{LookUp, Resolver, System},
    route::DuplicateTemplate,
    state::State,
};
pub use hand_over::{HAND_OVER, NoProxy, OtherProcess};
use listeners::Listeners;
use plan::PlanError;
pub use reload::Reloaded;
use reload::Reloader;

/// Why a proxy does not start: a setting is wrong; the message names it.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address is already in use.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The export cannot start.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// Two routes are identical.
    #[error(transparent)]
    Duplicate(DuplicateTemplate),
    /// A certificate cannot be used.
    #[error("{0}")]
    Tls(String),
    /// The access log cannot be written.
    #[error("{0}")]
    AccessLog(io::Error),
    /// The process that was to be taken over cannot be asked.
    #[error(transparent)]
    TakeOver(#[from] NoProxy),
    /// The operating system refuses.
    #[error("cannot start a thread or its runtime: {0}; raise this service's limits on threads and open files")]
    System(#[from] io::Error),
}

impl From<PlanError> for StartError {
    fn from(error: PlanError) -> StartError {
        match error {
            PlanError::Duplicate(duplicate) => StartError::Duplicate(duplicate),
            error @ PlanError::Tls { .. } => StartError::Tls(error.to_string()),
        }
    }
}

/// Where a running proxy listens; ports that were 0 are known here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// The admin port.
    pub admin: SocketAddr,
    /// In the order of the configuration.
    pub inbound: Vec<SocketAddr>,
    /// In the order of the configuration.
    pub outbound: Vec<SocketAddr>,
}

/// Result of a stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StopReport {
    /// All requests in flight finished within `drain_seconds`.
    pub drained: bool,
    /// Batches that the collector acknowledged during the stop.
    pub acked: u64,
    /// Batches lost because it did not acknowledge them.
    pub unacked: u64,
    /// Batches that it did not acknowledge and that wait on disk for the next process.
    pub spooled: u64,
}

/// What a program that carries a proxy brings; it stays until the proxy stops, also over reloads.
#[derive(Debug)]
pub struct Extensions {
    /// Addresses of names; default: this machine's resolver.
    pub names: Arc<dyn LookUp>,
    /// Is asked for the cluster of each request on an outbound listener, before `rules` are; default: nobody.
    pub chooser: Option<Arc<dyn ChooseCluster>>,
    /// The process whose listeners this one takes over; default: nobody's.
    pub take_over: Option<OtherProcess>,
}

impl Default for Extensions {
    fn default() -> Extensions {
        Extensions {
            names: Arc::new(System),
            chooser: None,
            take_over: None,
        }
    }
}

/// What the threads of a proxy share.
#[derive(Debug)]
struct Shared {
    reporting: Reporting,
    reloader: Reloader,
    drain: Drain,
    is_ready: AtomicBool,
    started: std::time::Instant,
}

/// A running proxy. Call [`Proxy::stop`]; dropping it aborts requests in flight.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    /// Address of the admin port.
    admin: SocketAddr,
    workers: Vec<JoinHandle<bool>>,
    admin_thread: Option<JoinHandle<()>>,
    admin_leaves: watch::Sender<bool>,
    end_admin: watch::Sender<bool>,
}

impl Proxy {
    /// Binds, starts the threads and serves. `file` is where the configuration came from, to be watched.
    ///
    /// # Errors
    /// When an address is taken or the system refuses; nothing runs then.
    pub fn start(config: Config, file: Option<&Path>) -> Result<Proxy, StartError> {
        Proxy::start_with(config, file, Extensions::default())
    }

    /// [`Proxy::start`] with code of one's own for what the configuration does not say.
    ///
    /// # Errors
    /// As [`Proxy::start`].
    pub fn start_with(config: Config, file: Option<&Path>, extensions: Extensions) -> Result<Proxy, StartError> {
        let Extensions {
            names,
            chooser,
            take_over,
        } = extensions;
        let state = State::from(&config);
        if let Some(other) = &take_over {
            let of_listeners = state.listeners.iter().map(|listener| listener.id.address);
            other.expect_any(of_listeners.map(|address| address.port()))?;
        }
        // Only addresses of the process that is taken over may be shared.
        let others = |address: SocketAddr| match &take_over {
            Some(other) if other.listens_on(address.port()) => Neighbours::Leaving,
            _ => Neighbours::None,
        };
        let names_of_admin = ("the admin port", "admin");
        let (admin, admin_socket) = listener::bind_one(config.admin, others(config.admin), names_of_admin)?;
        let (listeners, starts) = Listeners::new(config.workers);
        let sockets = listeners.bind(&state, others)?;
        let workload = Workload::from(&config.workload);
        let profiler = ProfilerOptions {
            enabled: config.profiler.enabled,
            hz: config.profiler.hz,
        };
        let reporting = Reporting::start(
            config.collector.as_ref(),
            &workload,
            Component::Proxy,
            profiler,
            Arc::new(SystemClock),
        )?;
        if let Some(log) = &config.access_log {
            let log = AccessLog::start(log, &reporting.counters).map_err(StartError::AccessLog)?;
            reporting.telemetry.log_to(log);
        }
        let (resolver, lookups) = Resolver::new(names, Arc::clone(&reporting.counters));
        let (groups, to_check) = Groups::new(Arc::clone(&reporting.counters));
        let reloader = Reloader::new(
            config,
            file,
            &reporting,
            (resolver, groups, chooser),
            (listeners, sockets),
        )?;
        let shared = Arc::new(Shared {
            reporting,
            reloader,
            drain: Drain::new(),
            is_ready: AtomicBool::new(true),
            started: std::time::Instant::now(),
        });

        let mut workers = Vec::new();
        for (number, starts) in starts.into_iter().enumerate() {
            workers.push(worker::start(number, starts, Arc::clone(&shared))?);
        }
        let (end_admin, admin_ends) = watch::channel(false);
        let (admin_leaves, leaves) = watch::channel(false);
        let admin_thread = admin::start(
            admin_socket,
            Arc::clone(&shared),
            (lookups, to_check),
            (leaves, admin_ends),
        )?;
        if let Some(other) = take_over {
            other.ask()?;
        }
        Ok(Proxy {
            shared,
            admin,
            workers,
            admin_thread: Some(admin_thread),
            admin_leaves,
            end_admin,
        })
    }

    /// Where it listens now.
    pub fn addresses(&self) -> Addresses {
        self.shared.reloader.addresses(self.admin)
    }

    /// The telemetry of this process.
    pub fn telemetry(&self) -> &crate::telemetry::Telemetry {
        &self.shared.reporting.telemetry
    }

    /// All metrics, in Prometheus text format.
    pub fn metrics(&self) -> String {
        self.shared.reporting.metrics()
    }

    /// Reloads the configuration file and changed certificates now, and applies what can change at run time.
    pub fn reload(&self) -> Reloaded {
        self.shared.reloader.refresh_certificates();
        self.shared.reloader.reload(&self.shared.reporting)
    }

    /// Leaves its addresses to a process that listens there as well: stops accepting, there and on the admin port, and goes
    /// on with the connections it has, which tell their callers to connect anew. Call [`Proxy::stop`] when
    /// [`Proxy::is_left`], or earlier to end what is left within `drain_seconds`.
    pub fn hand_over(&self) {
        self.shared.reloader.hand_over();
        self.admin_leaves.send_replace(true);
    }

    /// True when it was handed over and its last connection has ended.
    pub fn is_left(&self) -> bool {
        self.shared.reloader.is_left()
    }

    /// Serves on for `drain_delay_seconds` while `/ready` answers 503, then stops accepting, waits up to `drain_seconds` for requests in
    /// flight, exports the last window and waits up to 5 s for its acknowledgement. Blocks; do not call it on a runtime's worker
    /// thread.
    pub fn stop(mut self) -> StopReport {
        self.shared.is_ready.store(false, Ordering::Release);
        if !self.shared.reloader.is_handed_over() {
            std::thread::sleep(self.shared.reloader.drain_delay());
        }
        self.shared.drain.start(self.shared.reloader.drain());
        let mut drained = true;
        for worker in self.workers.drain(..) {
            drained &= worker.join().unwrap_or(false);
        }
        if let Some(log) = self.telemetry().access_log() {
            log.stop();
        }
        let flushed = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(self.shared.reporting.stop()),
            Err(error) => {
                tracing::error!(%error, "cannot start a runtime; the last window is dropped");
                crate::export::FlushReport::default()
            }
        };
        self.end_admin.send_replace(true);
        if let Some(admin) = self.admin_thread.take() {
            // Its panic, if it had one, was printed; nothing depends on it now.
            let _ = admin.join();
        }
        StopReport {
            drained,
            acked: flushed.acked,
            unacked: flushed.unacked,
            spooled: flushed.spooled,
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.drain.start(Duration::ZERO);
        self.end_admin.send_replace(true);
    }
}

/// Longest that a thread of this process takes to notice a request to end.
const NOTICE: Duration = Duration::from_secs(1);
