//! The configuration in force, and how it changes while the proxy runs.
//!
//! Guarantees: a listener's plan is replaced in one step; a configuration that cannot be read or does not hold together
//! changes nothing, is logged and counted, and is shown at `/config`; what needs a restart is named.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use arc_swap::ArcSwap;
use emberline_model::Workload;
use parking_lot::Mutex;

use super::plan::{Parts, wanted};
use crate::{
    budget::Budget,
    cluster::Groups,
    config::{self, Config},
    reporting::Reporting,
    resolve::Resolver,
    route::DuplicateTemplate,
    server::{HttpSettings, forward::Forwarder},
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
    /// What was read last and holds together.
    pub(super) config: Config,
    /// Settings whose change waits for a restart.
    pub(super) needs_restart: Vec<&'static str>,
    /// Why the file as it is now cannot be used.
    pub(super) last_error: Option<String>,
}

/// The configuration in force.
#[derive(Debug)]
pub(super) struct Reloader {
    /// As it was at the start: what cannot change is as it says.
    started_with: Config,
    status: Mutex<Status>,
    /// By worker, then by listener: inbound ones first.
    forwarders: Vec<Vec<Arc<Forwarder>>>,
    budget: Arc<Budget>,
    resolver: Resolver,
    groups: Groups,
    file: Option<PathBuf>,
}

/// What tells that a file may have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
    text: Option<String>,
}

impl Reloader {
    pub(super) fn new(
        config: Config,
        file: Option<&Path>,
        reporting: &Reporting,
        (resolver, groups): (Resolver, Groups),
    ) -> Result<Reloader, DuplicateTemplate> {
        let http = HttpSettings::new(config.limits);
        let workload = Workload::from(&config.workload);
        let budget = Budget::new(&config.limits, &reporting.counters);
        let parts = parts_of(&config, &workload, reporting, (&budget, &resolver, &groups));
        let mut forwarders = Vec::new();
        for _ in 0..config.workers {
            let mut listeners = Vec::new();
            for listener in wanted(&config) {
                listeners.push(Arc::new(Forwarder {
                    plan: ArcSwap::from_pointee(listener.plan(&parts, None)?),
                    telemetry: reporting.telemetry.clone(),
                    counters: Arc::clone(&reporting.counters),
                    http: http.clone(),
                    budget: Arc::clone(&budget),
                }));
            }
            forwarders.push(listeners);
        }
        let file = file.map(|path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned()));
        let status = Status {
            file: file.clone(),
            config: config.clone(),
            needs_restart: Vec::new(),
            last_error: None,
        };
        Ok(Reloader {
            started_with: config,
            status: Mutex::new(status),
            forwarders,
            budget,
            resolver,
            groups,
            file,
        })
    }

    pub(super) fn workers(&self) -> usize {
        self.forwarders.len()
    }

    pub(super) fn listeners_of(&self, worker: usize) -> Vec<Arc<Forwarder>> {
        self.forwarders[worker].clone()
    }

    pub(super) fn status(&self) -> Status {
        self.status.lock().clone()
    }

    pub(super) fn drain_seconds(&self) -> u64 {
        self.status.lock().config.drain_seconds
    }

    /// What the file is like now. Reading its few kilobytes finds changes within the clock's grain, too.
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

    /// Takes the file over.
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
                self.status.lock().last_error = Some(message.clone());
                Reloaded::Refused { message }
            }
        }
    }

    fn try_reload(&self, file: &Path, reporting: &Reporting) -> Result<Vec<&'static str>, String> {
        let config = config::load(file).map_err(|error| error.to_string())?;
        let needs_restart = needs_restart(&self.started_with, &config);
        // Identity and limits stay those that the process started with.
        let workload = Workload::from(&self.started_with.workload);
        let parts = Parts {
            trace: config.trace,
            ..parts_of(
                &self.started_with,
                &workload,
                reporting,
                (&self.budget, &self.resolver, &self.groups),
            )
        };
        let started = addresses(&self.started_with);
        let new = addresses(&config);
        let wanted = wanted(&config);
        let mut plans = Vec::new();
        for forwarders in &self.forwarders {
            for (forwarder, address) in forwarders.iter().zip(&started) {
                // A listener that is gone from the file keeps its plan until the restart that closes it.
                let Some(position) = new.iter().position(|a| a == address) else {
                    continue;
                };
                let previous = forwarder.plan.load_full();
                let plan = wanted[position]
                    .plan(&parts, Some(&previous))
                    .map_err(|error| error.to_string())?;
                plans.push((Arc::clone(forwarder), plan));
            }
        }
        for (forwarder, plan) in plans {
            forwarder.plan.store(Arc::new(plan));
        }
        let mut status = self.status.lock();
        status.config = config;
        status.needs_restart.clone_from(&needs_restart);
        status.last_error = None;
        Ok(needs_restart)
    }

    /// Closes connections to destinations that nobody used for too long.
    pub(super) fn sweep(&self, worker: usize) {
        for forwarder in &self.forwarders[worker] {
            forwarder.plan.load().cluster.sweep();
        }
    }
}

fn parts_of<'a>(
    config: &Config,
    workload: &'a Workload,
    reporting: &'a Reporting,
    (budget, resolver, groups): (&'a Arc<Budget>, &'a Resolver, &'a Groups),
) -> Parts<'a> {
    let destinations = config.inbound.len() + config.outbound.iter().map(|o| o.destinations.len()).sum::<usize>();
    let pools = destinations.max(1) * usize::from(config.workers.max(1));
    Parts {
        telemetry: &reporting.telemetry,
        budget,
        resolver,
        groups,
        workload,
        limits: config.limits,
        max_idle: config
            .limits
            .max_idle_connections
            .min((budget.room().idle_upstreams / pools).max(1)),
        trace: config.trace,
    }
}

/// Addresses of all listeners in the order of [`wanted`]; kind and address tell a listener.
fn addresses(config: &Config) -> Vec<(bool, std::net::SocketAddr)> {
    let inbound = config.inbound.iter().map(|inbound| (true, inbound.listen));
    inbound
        .chain(config.outbound.iter().map(|outbound| (false, outbound.listen)))
        .collect()
}

/// Settings that differ and cannot change while running.
fn needs_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let sorted = |config: &Config, inbound: bool| {
        let mut all: Vec<_> = addresses(config).into_iter().filter(|a| a.0 == inbound).collect();
        all.sort();
        all
    };
    let changes = [
        ("workload", old.workload != new.workload),
        ("workers", old.workers != new.workers),
        ("admin", old.admin != new.admin),
        ("collector", old.collector != new.collector),
        ("profiler", old.profiler != new.profiler),
        ("limits", old.limits != new.limits),
        ("inbound.listen", sorted(old, true) != sorted(new, true)),
        ("outbound.listen", sorted(old, false) != sorted(new, false)),
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
    use crate::{reporting::ProfilerOptions, resolve::System};

    /// A small configuration in force, without threads.
    pub(in crate::run) fn reloader() -> Reloader {
        let text = "workload: {service: a}\ninbound: [{listen: 127.0.0.1:1, to: 127.0.0.1:2}]";
        let config = config::parse("test.yaml".as_ref(), text).unwrap();
        let workload = Workload::from(&config.workload);
        let profiler = ProfilerOptions { enabled: false, hz: 1 };
        let reporting = Reporting::start(None, &workload, Component::Proxy, profiler, Arc::new(SystemClock)).unwrap();
        let (resolver, _) = Resolver::new(Arc::new(System), Arc::default());
        let (groups, _) = Groups::new(Arc::default());
        Reloader::new(config, None, &reporting, (resolver, groups)).unwrap()
    }

    #[test]
    fn every_setting_that_cannot_change_while_running_is_named() {
        let old = reloader().status().config;
        assert_eq!(needs_restart(&old, &old), Vec::<&str>::new());
        let mut new = old.clone();
        new.workload.version = "v2".into();
        new.workers = 2;
        new.admin.set_port(1);
        new.collector = Some(config::CollectorConfig {
            endpoint: "http://127.0.0.1:1".into(),
            tls: Default::default(),
        });
        new.profiler.hz = 7;
        new.limits.header_ms = 7;
        new.inbound.clear();
        // These can change.
        new.drain_seconds = 7;
        new.trace.create = false;
        let named = [
            "workload",
            "workers",
            "admin",
            "collector",
            "profiler",
            "limits",
            "inbound.listen",
        ];
        assert_eq!(needs_restart(&old, &new), named);
    }
}
