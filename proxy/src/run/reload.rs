//! The configuration in effect, and how it changes while the proxy runs.
//!
//! Guarantees: a configuration that cannot be read, is inconsistent or needs an address that is taken changes nothing,
//! is logged and counted, and is shown at `/config`; what needs a restart is named; of two concurrent reloads, the
//! later one reads the file after the earlier one has ended.
//!
//! Wrong on purpose: the workload changes only with a restart. Windows, batches and stacks are sent in its name, and
//! one that spans a change would belong to two releases; a new release is a new process of the application anyway.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use emberline_model::{Side, Workload};
use parking_lot::Mutex;

use super::{
    Addresses,
    listeners::{Listeners, Listening, Sockets},
    plan::{Parts, PlanError},
};
use crate::{
    budget::Budget,
    choose::ChooseCluster,
    cluster::Groups,
    config::{self, Config},
    filter::list,
    listener::Neighbours,
    reporting::Reporting,
    resolve::Resolver,
    server::HttpSettings,
    state::State,
    tls::Certificates,
};

/// Result of a reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reloaded {
    /// The proxy was started without a file.
    NoFile,
    /// In effect now, except for the settings named here, which need a restart.
    InForce {
        /// Names of settings.
        needs_restart: Vec<&'static str>,
    },
    /// The previous configuration stays in effect.
    Refused {
        /// Why.
        message: String,
    },
}

/// What `/config` shows.
#[derive(Debug, Clone, serde::Serialize)]
pub(super) struct Status {
    /// The file.
    pub(super) file: Option<PathBuf>,
    /// What was read last and is in effect.
    pub(super) config: Config,
    /// Current listeners, and what is left of removed ones.
    pub(super) listeners: Vec<ListenerStatus>,
    /// Settings whose change takes effect only after a restart.
    pub(super) needs_restart: Vec<&'static str>,
    /// Why the file in its present form cannot be used.
    pub(super) last_error: Option<String>,
}

/// A listener as shown at `/config`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(super) struct ListenerStatus {
    /// `inbound` or `outbound`.
    listener: &'static str,
    /// With the actual port.
    address: SocketAddr,
    /// `listening`, or `draining` from its removal until its last connection has ended.
    state: &'static str,
}

/// The configuration in effect.
#[derive(Debug)]
pub(super) struct Reloader {
    /// As it was at the start; what cannot change stays as it says.
    started_with: Config,
    workload: Workload,
    last: Mutex<Last>,
    state: ArcSwap<State>,
    /// Held for the whole of a reload.
    listeners: Mutex<Listeners>,
    http: HttpSettings,
    budget: Arc<Budget>,
    resolver: Resolver,
    groups: Groups,
    filters: list::Shared,
    chooser: Option<Arc<dyn ChooseCluster>>,
    certificates: Certificates,
    file: Option<PathBuf>,
    is_handed_over: AtomicBool,
}

/// The result of the last reload.
#[derive(Debug)]
struct Last {
    config: Config,
    needs_restart: Vec<&'static str>,
    error: Option<String>,
}

/// Shows that a file may have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
    text: Option<String>,
}

impl Reloader {
    /// Starts the workers of `listeners` with the initial configuration, on the `sockets` of its state.
    pub(super) fn new(
        config: Config,
        file: Option<&Path>,
        reporting: &Reporting,
        (resolver, groups, chooser): (Resolver, Groups, Option<Arc<dyn ChooseCluster>>),
        (listeners, sockets): (Listeners, Sockets),
    ) -> Result<Reloader, PlanError> {
        let state = State::from(&config);
        let reloader = Reloader {
            http: HttpSettings::new(config.limits),
            workload: Workload::from(&config.workload),
            budget: Budget::new(&config.limits, &reporting.counters),
            last: Mutex::new(Last {
                config: config.clone(),
                needs_restart: Vec::new(),
                error: None,
            }),
            started_with: config,
            state: ArcSwap::from_pointee(state.clone()),
            listeners: Mutex::new(listeners),
            resolver,
            groups,
            filters: list::Shared::default(),
            chooser,
            certificates: Certificates::new(&reporting.counters),
            file: file.map(|path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned())),
            is_handed_over: AtomicBool::new(false),
        };
        {
            let parts = reloader.parts(&state, reporting);
            let mut listeners = reloader.listeners.lock();
            let plans = listeners.plan(&state, &parts)?;
            listeners.apply(&state, (plans, sockets), &parts);
        }
        reloader.certificates.note_ends();
        Ok(reloader)
    }

    /// What `/config` shows.
    pub(super) fn status(&self) -> Status {
        let listeners = {
            let listeners = self.listeners.lock();
            let of = |state| {
                move |listening: &Arc<Listening>| ListenerStatus {
                    listener: listening.id().side_name(),
                    address: listening.at(),
                    state,
                }
            };
            let current = listeners.current().map(of("listening"));
            current.chain(listeners.draining().map(of("draining"))).collect()
        };
        let last = self.last.lock();
        Status {
            file: self.file.clone(),
            config: last.config.clone(),
            listeners,
            needs_restart: last.needs_restart.clone(),
            last_error: last.error.clone(),
        }
    }

    /// Where it listens, with the address of `admin`, which it does not know.
    pub(super) fn addresses(&self, admin: SocketAddr) -> Addresses {
        let listeners = self.listeners.lock();
        let of = |side: Side| {
            let those = listeners.current().filter(|listening| listening.id().side == side);
            those.map(|listening| listening.at()).collect()
        };
        Addresses {
            admin,
            inbound: of(Side::Server),
            outbound: of(Side::Client),
        }
    }

    /// Gives up all listeners. Nothing is reloaded from then on: the file is for the process that has them now.
    pub(super) fn hand_over(&self) {
        let mut listeners = self.listeners.lock();
        self.is_handed_over.store(true, Ordering::Release);
        listeners.hand_over();
    }

    pub(super) fn is_handed_over(&self) -> bool {
        self.is_handed_over.load(Ordering::Acquire)
    }

    /// True when it was handed over and no connection is left.
    pub(super) fn is_left(&self) -> bool {
        self.is_handed_over() && self.listeners.lock().draining().next().is_none()
    }

    /// How long a process that stops serves on.
    pub(super) fn drain_delay(&self) -> Duration {
        self.state.load().drain_delay
    }

    /// How long requests in flight may go on when their listener closes.
    pub(super) fn drain(&self) -> Duration {
        self.state.load().drain
    }

    /// The current state of the file. Reading its few kilobytes also finds changes within the clock's resolution.
    pub(super) fn stamp(&self) -> Option<Stamp> {
        let file = self.file.as_ref()?;
        let metadata = std::fs::metadata(file).ok();
        Some(Stamp {
            modified: metadata.as_ref().and_then(|m| m.modified().ok()),
            length: metadata.as_ref().map_or(0, std::fs::Metadata::len),
            text: metadata
                .filter(|m| m.len() < 1 << 20)
                .and_then(|_| std::fs::read_to_string(file).ok()),
        })
    }

    /// Reads certificates that have changed.
    pub(super) fn refresh_certificates(&self) {
        self.certificates.refresh();
    }

    /// Applies the file.
    pub(super) fn reload(&self, reporting: &Reporting) -> Reloaded {
        let Some(file) = &self.file else {
            return Reloaded::NoFile;
        };
        match self.try_reload(file, reporting) {
            Ok(needs_restart) => {
                reporting.counters.reloads.add();
                if needs_restart.is_empty() {
                    tracing::info!("configuration reloaded");
                } else {
                    tracing::warn!(
                        settings = needs_restart.join(", "),
                        "configuration reloaded; some changed settings need a restart"
                    );
                }
                Reloaded::InForce { needs_restart }
            }
            Err(message) => {
                reporting.counters.reloads_refused.add();
                tracing::error!(%message, "configuration not reloaded; the previous one stays in effect");
                self.last.lock().error = Some(message.clone());
                Reloaded::Refused { message }
            }
        }
    }

    fn try_reload(&self, file: &Path, reporting: &Reporting) -> Result<Vec<&'static str>, String> {
        let mut listeners = self.listeners.lock();
        if self.is_handed_over() {
            return Err("the listeners were handed over to another process".to_owned());
        }
        let config = config::load(file).map_err(|error| error.to_string())?;
        let needs_restart = needs_restart(&self.started_with, &config);
        self.follow(&mut listeners, State::from(&config), reporting)?;
        let mut last = self.last.lock();
        last.config = config;
        last.needs_restart.clone_from(&needs_restart);
        last.error = None;
        Ok(needs_restart)
    }

    /// Makes the listeners follow a state; changes nothing if they cannot.
    fn follow(&self, listeners: &mut Listeners, state: State, reporting: &Reporting) -> Result<(), String> {
        let parts = self.parts(&state, reporting);
        let plans = listeners.plan(&state, &parts).map_err(|error| error.to_string())?;
        let sockets = listeners
            .bind(&state, |_| Neighbours::None)
            .map_err(|error| error.to_string())?;
        let changes = listeners.apply(&state, (plans, sockets), &parts);
        for added in &changes.added {
            tracing::info!(listener = added.id().side_name(), address = %added.at(), "listener added");
        }
        for removed in &changes.removed {
            let (listener, address) = (removed.id().side_name(), removed.at());
            tracing::info!(listener, %address, "listener removed; draining requests in flight");
        }
        self.state.store(Arc::new(state));
        self.certificates.note_ends();
        Ok(())
    }

    /// Workload and limits stay as the process started with them.
    fn parts<'a>(&'a self, state: &State, reporting: &'a Reporting) -> Parts<'a> {
        let limits = &self.started_with.limits;
        let pools = state.endpoints().max(1) * usize::from(self.started_with.workers.max(1));
        // A power of two, so that a few endpoints more or less do not resize the pools of the others.
        let room = 1 << (self.budget.room().idle_upstreams / pools).max(1).ilog2();
        Parts {
            telemetry: &reporting.telemetry,
            counters: &reporting.counters,
            http: &self.http,
            budget: &self.budget,
            resolver: &self.resolver,
            groups: &self.groups,
            filters: &self.filters,
            certificates: &self.certificates,
            workload: &self.workload,
            max_idle: limits.max_idle_connections.min(room),
            trace: state.trace,
            chooser: self.chooser.as_ref(),
        }
    }
}

/// Settings that differ and cannot change while running.
fn needs_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let changes = [
        ("workload", old.workload != new.workload),
        ("workers", old.workers != new.workers),
        ("admin", old.admin != new.admin),
        ("collector", old.collector != new.collector),
        ("profiler", old.profiler != new.profiler),
        ("access_log", old.access_log != new.access_log),
        ("limits", old.limits != new.limits),
    ];
    changes
        .into_iter()
        .filter(|(_, changed)| *changed)
        .map(|(name, _)| name)
        .collect()
}

#[cfg(test)]
pub(super) mod tests {
    use emberline_model::{Component, time::SystemClock};

    use super::*;
    use crate::{reporting::ProfilerOptions, resolve::System, run::listeners::Starts};

    /// A small configuration in effect, without threads, and the listeners its worker would receive.
    pub(in crate::run) fn reloader() -> (Reloader, Starts) {
        let text = "workload: {service: a}\ninbound: [{listen: 127.0.0.1:0, to: 127.0.0.1:2}]";
        let config = config::parse("test.yaml".as_ref(), text).unwrap();
        let workload = Workload::from(&config.workload);
        let profiler = ProfilerOptions { enabled: false, hz: 1 };
        let reporting = Reporting::start(None, &workload, Component::Proxy, profiler, Arc::new(SystemClock)).unwrap();
        let (resolver, _) = Resolver::new(Arc::new(System), Arc::default());
        let (groups, _) = Groups::new(Arc::default());
        let (listeners, mut starts) = Listeners::new(1);
        let sockets = listeners.bind(&State::from(&config), |_| Neighbours::None).unwrap();
        let reloader = Reloader::new(config, None, &reporting, (resolver, groups, None), (listeners, sockets)).unwrap();
        (reloader, starts.remove(0))
    }

    #[test]
    fn every_setting_that_cannot_change_while_running_is_named() {
        let old = reloader().0.status().config;
        assert_eq!(needs_restart(&old, &old), Vec::<&str>::new());
        let mut new = old.clone();
        new.workload.version = "v2".into();
        new.workers = 2;
        new.admin.set_port(1);
        new.collector = Some(config::CollectorConfig {
            endpoint: "http://127.0.0.1:1".into(),
            tls: Default::default(),
            spool: None,
        });
        new.profiler.hz = 7;
        new.access_log = Some(config::AccessLogConfig {
            path: "/dev/stdout".into(),
            format: config::AccessLogFormat::Text,
            sampled: 0.5,
        });
        new.limits.header_ms = 7;
        // These can change.
        new.inbound.clear();
        new.drain_seconds = 7;
        new.trace.create = false;
        let named = [
            "workload",
            "workers",
            "admin",
            "collector",
            "profiler",
            "access_log",
            "limits",
        ];
        assert_eq!(needs_restart(&old, &new), named);
    }
}
