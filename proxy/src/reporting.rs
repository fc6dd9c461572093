//! Where a process's telemetry goes: to the collector, or only to its own admin port.
//!
//! Guarantee: a sampler that cannot start costs the process its profiles and nothing else; the reason is logged.

use std::{sync::Arc, time::Duration};

use emberline_model::{Component, Profile, Workload, time::Clock};
use emberline_profiler::{Config, Profiler, StartError};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;

use crate::{
    config::CollectorConfig,
    counters::{CounterMetrics, Counters},
    export::{ExportError, ExportOptions, Exporter, ExporterHandle, FlushReport, model_profile},
    telemetry::{Telemetry, TelemetryOptions},
};

/// Settings of a process's sampler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProfilerOptions {
    /// Whether it runs.
    pub enabled: bool,
    /// Samples per second of CPU time, 1 to 10000.
    pub hz: u32,
}

impl Default for ProfilerOptions {
    fn default() -> Self {
        ProfilerOptions {
            enabled: true,
            hz: Config::default().hz,
        }
    }
}

/// A process's telemetry, and how it is exported.
pub(crate) struct Reporting {
    pub(crate) telemetry: Telemetry,
    pub(crate) counters: Arc<Counters>,
    way: Mutex<Way>,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Reporting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reporting")
            .field("telemetry", &self.telemetry)
            .finish_non_exhaustive()
    }
}

enum Way {
    Collector(ExporterHandle),
    Nowhere(Option<Profiler>),
    Stopped,
}

/// Longest wait for the collector to acknowledge the last windows of a process that ends.
pub(crate) const FLUSH_LIMIT: Duration = Duration::from_secs(5);

impl Reporting {
    /// Starts the sampler and the export.
    pub(crate) fn start(
        collector: Option<&CollectorConfig>,
        workload: &Workload,
        component: Component,
        profiler: ProfilerOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Reporting, ExportError> {
        let windows_kept = if collector.is_some() {
            TelemetryOptions::default().windows_kept
        } else {
            0
        };
        let telemetry = Telemetry::new(
            TelemetryOptions {
                windows_kept,
                ..Default::default()
            },
            Arc::clone(&clock),
        );
        let profiler = start_profiler(profiler);
        let way = match collector {
            None => Way::Nowhere(profiler),
            Some(CollectorConfig { endpoint, tls, spool }) => {
                let options = ExportOptions {
                    tls: tls.clone(),
                    spool: spool.clone(),
                    ..ExportOptions::new(endpoint, workload.clone(), component)
                };
                Way::Collector(Exporter::start(
                    options,
                    telemetry.clone(),
                    profiler,
                    Arc::clone(&clock),
                )?)
            }
        };
        Ok(Reporting {
            telemetry,
            counters: Arc::default(),
            way: Mutex::new(way),
            clock,
        })
    }

    /// The profile of the last window; without a collector, of the time since the previous call.
    pub(crate) fn profile(&self) -> Option<Arc<Profile>> {
        match &*self.way.lock() {
            Way::Collector(exporter) => exporter.last_profile(),
            Way::Nowhere(profiler) => {
                let window = profiler.as_ref()?.take_window();
                let length = i64::try_from(window.duration.as_nanos()).unwrap_or(i64::MAX);
                let start = self.clock.now_unix_ns().saturating_sub(length);
                let label_set = |label| self.telemetry.label_set(label);
                let profile = model_profile(&window, start.div_euclid(1_000_000_000), label_set);
                Some(Arc::new(Profile {
                    start_unix_ns: start,
                    duration_ns: length,
                    ..profile
                }))
            }
            Way::Stopped => None,
        }
    }

    /// All counters in Prometheus text format.
    pub(crate) fn metrics(&self) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self.telemetry.clone()));
        registry.register_collector(Box::new(CounterMetrics(Arc::clone(&self.counters))));
        if let Way::Collector(exporter) = &*self.way.lock() {
            registry.register_collector(Box::new(exporter.metrics()));
        }
        let mut text = String::new();
        match prometheus_client::encoding::text::encode(&mut text, &registry) {
            Ok(()) => text,
            Err(error) => format!("# cannot write the metrics: {error}\n# EOF\n"),
        }
    }

    /// Sends what is left and stops. Call it when nothing more will be recorded.
    pub(crate) async fn stop(&self) -> FlushReport {
        let way = std::mem::replace(&mut *self.way.lock(), Way::Stopped);
        match way {
            Way::Collector(exporter) => exporter.flush_and_stop(FLUSH_LIMIT).await,
            Way::Nowhere(profiler) => {
                if let Some(profiler) = profiler {
                    profiler.stop();
                }
                FlushReport::default()
            }
            Way::Stopped => FlushReport::default(),
        }
    }
}

fn start_profiler(options: ProfilerOptions) -> Option<Profiler> {
    if !options.enabled {
        return None;
    }
    match emberline_profiler::start(Config {
        hz: options.hz,
        ..Config::default()
    }) {
        Ok(profiler) => Some(profiler),
        Err(StartError::Disabled) => {
            tracing::info!("profiler disabled by EMBERLINE_PROFILER");
            None
        }
        Err(error) => {
            tracing::warn!(%error, "cannot start the profiler; continuing without profiles");
            None
        }
    }
}
