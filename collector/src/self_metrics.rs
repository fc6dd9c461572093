//! The collector's own counters, as OpenMetrics.
//!
//! Guarantee: labels are bounded: signals, outcomes and reasons are fixed words of the program, receivers and jobs are
//! those in the configuration; nothing from a sender becomes a label.

use std::{collections::BTreeMap, sync::Arc};

use emberline_model::metric::{Condition, Kind, Loss, LossCount, Metric, Unit};
use parking_lot::Mutex;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, MetricEncoder},
    metrics::{MetricType, counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit as RegisteredUnit},
};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    signal: &'static str,
    outcome: &'static str,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SignalLabel {
    signal: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct JobLabels {
    job: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct JobStateLabels {
    job: String,
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReceiverLabels {
    receiver: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TableLabels {
    table: &'static str,
    what: &'static str,
}

type Timings<L> = Family<L, Histogram, fn() -> Histogram>;

const SIGNALS: [&str; 2] = ["metrics", "profiles"];

fn ack_buckets() -> Histogram {
    Histogram::new([0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0])
}

fn run_buckets() -> Histogram {
    Histogram::new([0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0])
}

/// A family whose series exist from the start, so that the first count is seen as an increase.
fn outcomes(words: &[&'static str]) -> Family<OutcomeLabel, Counter> {
    let family = Family::<OutcomeLabel, Counter>::default();
    for &outcome in words {
        drop(family.get_or_create(&OutcomeLabel { outcome }));
    }
    family
}

fn requests() -> Family<RequestLabels, Counter> {
    let family = Family::<RequestLabels, Counter>::default();
    for signal in SIGNALS {
        for outcome in ["stored", "duplicate"] {
            drop(family.get_or_create(&RequestLabels {
                signal,
                outcome,
                reason: "",
            }));
        }
    }
    family
}

macro_rules! self_metrics {
    ( $( $field:ident: $type:ty = $new:expr, $kind:ident, $unit:ident, $help:literal, $loss:expr; )* ) => {
        /// The collector's counters; clones share them.
        #[derive(Debug, Clone)]
        pub(crate) struct SelfMetrics {
            $( $field: $type, )*
            /// Totals of the losses, by metric: families cannot be iterated.
            lost: Arc<Mutex<BTreeMap<&'static str, u64>>>,
        }

        /// Every metric of the collector.
        pub const METRICS: &[Metric] = &[
            $( Metric {
                name: concat!("emberline_collector_", stringify!($field)),
                help: $help,
                kind: Kind::$kind,
                unit: Unit::$unit,
                loss: $loss,
            }, )*
        ];

        impl SelfMetrics {
            pub(crate) fn new() -> SelfMetrics {
                SelfMetrics {
                    $( $field: $new, )*
                    lost: Arc::default(),
                }
            }
        }

        impl Collector for SelfMetrics {
            fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
                let mut metrics = METRICS.iter();
                $( self.$field.encode(describe(&mut encoder, metrics.next())?)?; )*
                Ok(())
            }
        }
    };
}

self_metrics! {
    ingest_requests: Family<RequestLabels, Counter> = requests(), Counter, Count,
        "OTLP requests by signal, outcome (stored, duplicate, refused, retry_later, nothing_to_store, not_taken) and reason",
        Loss::only(
            Loss::failed("The response and the log (level debug) say why and name limits that can be raised."),
            &[Condition::is("outcome", &["refused"])],
        );
    ingest_items: Family<RequestLabels, Counter> = Family::default(), Counter, Count,
        "Data points and samples dropped or changed, by signal, outcome and reason",
        Loss::only(
            Loss::failed("The Status page shows what was dropped, from which sender, and what to set."),
            // Data outside this server's scope is not a loss.
            &[Condition::is("outcome", &["left_out"]), Condition::is_not("reason", &["unknown_metric", "not_taken"])],
        );
    ingest_bytes: Family<SignalLabel, Counter> = Family::default(), Counter, Bytes,
        "Bytes of OTLP messages, decompressed", None;
    ingest_ack_seconds: Timings<SignalLabel> = Family::new_with_constructor(ack_buckets), Histogram, Seconds,
        "Time from a decoded message to the batch being on disk", None;
    debuginfo_uploads: Family<OutcomeLabel, Counter> = outcomes(&["stored", "replaced"]), Counter, Count,
        "Debug files received, by outcome",
        Loss::only(
            Loss::failed("Functions of this build have no names: the sender's log says why its file was refused."),
            &[Condition::is_not("outcome", &["stored", "replaced"])],
        );
    symbol_locations: Family<OutcomeLabel, Counter> = outcomes(&["named", "without_symbol", "failed"]), Counter, Count,
        "Locations looked up, by outcome (named, without_symbol, failed)",
        Loss::only(
            Loss::failed("They are shown as addresses: the log names the build and what is wrong with its file."),
            &[Condition::is("outcome", &["failed"])],
        );
    symbol_queue: Family<OutcomeLabel, Gauge> = Family::default(), Gauge, Count,
        "Locations waiting for a name, by cause (worker, file)", None;
    symbol_reads: Family<OutcomeLabel, Counter> = outcomes(&["done", "refused", "killed", "not_started"]), Counter, Count,
        "Lookups in the symbol reader, by outcome (done, refused, killed, not_started)",
        Loss::only(
            Loss::failed("Raise `symbol_memory_mb` or `symbol_seconds` if the log says they were reached."),
            &[Condition::is("outcome", &["killed", "not_started"])],
        );
    verdict_run_seconds: Histogram = run_buckets(), Histogram, Seconds,
        "Duration of a verdict run", None;
    verdict_runs: Family<OutcomeLabel, Counter> = outcomes(&["done", "failed"]), Counter, Count,
        "Verdict runs, by outcome (done, failed)",
        Loss::only(
            Loss::failed("Releases are not judged while this fails; the windows are judged later. The log names the cause."),
            &[Condition::is("outcome", &["failed"])],
        );
    verdict_units: Gauge = Gauge::default(), Gauge, Count,
        "Units (source, service, route) judged in the latest run", None;
    verdict_windows: Gauge = Gauge::default(), Gauge, Count,
        "Windows of these units that the verdicts of the latest run are based on", None;
    alerts: Family<OutcomeLabel, Gauge> = Family::default(), Gauge, Count,
        "Alerts, by state", None;
    notifications: Family<ReceiverLabels, Counter> = Family::default(), Counter, Count,
        "Messages to receivers, by receiver and outcome (delivered, retried, refused)",
        Loss::only(
            Loss::lost("The receiver rejected an alert, which was dropped: its response is in the log; check the address in `alertmanagers` or `webhooks`."),
            &[Condition::is("outcome", &["refused"])],
        );
    scrapes: Family<JobLabels, Counter> = Family::default(), Counter, Count,
        "Profiles scraped, by job and outcome (stored, failed)",
        Loss::only(
            Loss::failed("The Status page shows the failed targets and why they failed."),
            &[Condition::is("outcome", &["failed"])],
        );
    scrape_profiles: Family<JobStateLabels, Gauge> = Family::default(), Gauge, Count,
        "Scraped profile endpoints, by job and state (up, down, unknown)", None;
    cumulative_rows: Gauge = Gauge::default(), Gauge, Count,
        "Stacks tracked for cumulative profiles", None;
    names: Family<TableLabels, Gauge> = Family::default(), Gauge, Count,
        "Entries in the tables of sender-chosen names (workloads, names) and their limits, updated every half minute", None;
}

/// Writes a metric's description, even for empty families: dashboards and rules are checked against it.
fn describe<'e>(
    encoder: &'e mut DescriptorEncoder<'_>,
    metric: Option<&'e Metric>,
) -> Result<MetricEncoder<'e>, std::fmt::Error> {
    let metric = metric.ok_or(std::fmt::Error)?;
    let (stem, unit) = metric.stem();
    let kind = match metric.kind {
        Kind::Counter => MetricType::Counter,
        Kind::Gauge => MetricType::Gauge,
        Kind::Histogram => MetricType::Histogram,
    };
    let unit = match unit {
        Some(Unit::Bytes) => Some(&RegisteredUnit::Bytes),
        Some(Unit::Seconds) => Some(&RegisteredUnit::Seconds),
        Some(Unit::Count) | None => None,
    };
    encoder.encode_descriptor(stem, metric.help, unit, kind)
}

impl SelfMetrics {
    /// Adds the counters to a registry.
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(self.clone()));
    }

    /// The amount of each kind of loss since the start.
    pub(crate) fn losses(&self) -> Vec<LossCount> {
        let lost = self.lost.lock();
        let of = |metric: &Metric| LossCount::of(metric, lost.get(metric.name).copied().unwrap_or(0));
        METRICS.iter().filter_map(of).collect()
    }

    /// Adds to the losses, if the series with these labels is one.
    fn note(&self, name: &'static str, labels: &[(&str, &str)], count: u64) {
        let metric = METRICS.iter().find(|metric| metric.name == name);
        let Some(loss) = metric.and_then(|metric| metric.loss) else {
            return;
        };
        let holds = |condition: &Condition| {
            let value = labels.iter().find(|(label, _)| *label == condition.label);
            value.is_some_and(|(_, value)| condition.holds(value))
        };
        if loss.of.iter().all(holds) {
            *self.lost.lock().entry(name).or_default() += count;
        }
    }

    pub(crate) fn ingest_request(&self, signal: &'static str, outcome: &'static str, reason: &'static str) {
        self.note("emberline_collector_ingest_requests", &[("outcome", outcome)], 1);
        self.ingest_requests
            .get_or_create(&RequestLabels {
                signal,
                outcome,
                reason,
            })
            .inc();
    }

    pub(crate) fn ingest_items(&self, signal: &'static str, outcome: &'static str, reason: &'static str, count: u64) {
        self.note(
            "emberline_collector_ingest_items",
            &[("outcome", outcome), ("reason", reason)],
            count,
        );
        self.ingest_items
            .get_or_create(&RequestLabels {
                signal,
                outcome,
                reason,
            })
            .inc_by(count);
    }

    pub(crate) fn ingest_bytes(&self, signal: &'static str, bytes: usize) {
        self.ingest_bytes
            .get_or_create(&SignalLabel { signal })
            .inc_by(bytes as u64);
    }

    pub(crate) fn ack_seconds(&self, signal: &'static str, seconds: f64) {
        self.ingest_ack_seconds
            .get_or_create(&SignalLabel { signal })
            .observe(seconds);
    }

    pub(crate) fn debuginfo(&self, outcome: &'static str) {
        self.note("emberline_collector_debuginfo_uploads", &[("outcome", outcome)], 1);
        self.debuginfo_uploads.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    pub(crate) fn symbols(&self, outcome: &'static str, locations: usize) {
        self.note(
            "emberline_collector_symbol_locations",
            &[("outcome", outcome)],
            locations as u64,
        );
        self.symbol_locations
            .get_or_create(&OutcomeLabel { outcome })
            .inc_by(locations as u64);
    }

    pub(crate) fn symbol_queue(&self, waits_for: &'static str, locations: usize) {
        let locations = i64::try_from(locations).unwrap_or(i64::MAX);
        self.symbol_queue
            .get_or_create(&OutcomeLabel { outcome: waits_for })
            .set(locations);
    }

    pub(crate) fn symbol_read(&self, outcome: &'static str) {
        self.note("emberline_collector_symbol_reads", &[("outcome", outcome)], 1);
        self.symbol_reads.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    pub(crate) fn verdict_run(&self, outcome: &'static str, seconds: f64, units: u64, windows: u64) {
        self.note("emberline_collector_verdict_runs", &[("outcome", outcome)], 1);
        self.verdict_runs.get_or_create(&OutcomeLabel { outcome }).inc();
        self.verdict_run_seconds.observe(seconds);
        self.verdict_units.set(i64::try_from(units).unwrap_or(i64::MAX));
        self.verdict_windows.set(i64::try_from(windows).unwrap_or(i64::MAX));
    }

    pub(crate) fn alerts(&self, state: &'static str, count: usize) {
        self.alerts
            .get_or_create(&OutcomeLabel { outcome: state })
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub(crate) fn notification(&self, receiver: &str, outcome: &'static str) {
        self.note("emberline_collector_notifications", &[("outcome", outcome)], 1);
        self.notifications
            .get_or_create(&ReceiverLabels {
                receiver: receiver.to_owned(),
                outcome,
            })
            .inc();
    }

    pub(crate) fn scrape(&self, job: &str, outcome: &'static str) {
        self.note("emberline_collector_scrapes", &[("outcome", outcome)], 1);
        let job = job.to_owned();
        self.scrapes.get_or_create(&JobLabels { job, outcome }).inc();
    }

    pub(crate) fn scrape_profiles(&self, job: &str, state: &'static str, profiles: usize) {
        let job = job.to_owned();
        let gauge = self.scrape_profiles.get_or_create(&JobStateLabels { job, state });
        gauge.set(i64::try_from(profiles).unwrap_or(i64::MAX));
    }

    pub(crate) fn cumulative_rows(&self, rows: usize) {
        self.cumulative_rows.set(i64::try_from(rows).unwrap_or(i64::MAX));
    }

    pub(crate) fn names(&self, table: &'static str, used: usize, limit: usize) {
        for (what, entries) in [("used", used), ("limit", limit)] {
            let gauge = self.names.get_or_create(&TableLabels { table, what });
            gauge.set(i64::try_from(entries).unwrap_or(i64::MAX));
        }
    }

    /// Requests of a signal by outcome, for the status page.
    pub(crate) fn requests(&self, signal: &'static str, outcome: &'static str, reason: &'static str) -> u64 {
        self.ingest_requests
            .get(&RequestLabels {
                signal,
                outcome,
                reason,
            })
            .map_or(0, |counter| counter.get())
    }

    /// Bytes of a signal, for the status page.
    pub(crate) fn bytes(&self, signal: &'static str) -> u64 {
        self.ingest_bytes
            .get(&SignalLabel { signal })
            .map_or(0, |counter| counter.get())
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text;

    use super::*;

    #[test]
    fn every_metric_of_the_list_is_at_metrics_with_its_kind() {
        let (metrics, mut registry, mut page) = (SelfMetrics::new(), Registry::default(), String::new());
        metrics.register(&mut registry);
        text::encode(&mut page, &registry).unwrap();
        for metric in METRICS {
            let line = format!("# TYPE {} {}\n", metric.name, metric.kind.word());
            assert!(page.contains(&line), "{line} is not in\n{page}");
        }
        assert_eq!(page.matches("# TYPE ").count(), METRICS.len());
    }

    #[test]
    fn losses_are_the_series_that_the_list_names() {
        let metrics = SelfMetrics::new();
        let lost = |name: &str| {
            let losses = metrics.losses();
            let of = losses
                .iter()
                .find(|loss| loss.name == format!("emberline_collector_{name}"));
            of.unwrap().count
        };
        metrics.ingest_request("metrics", "stored", "");
        metrics.ingest_items("metrics", "changed", "max_routes_per_service", 5);
        metrics.ingest_items("metrics", "left_out", "unknown_metric", 5);
        assert_eq!((lost("ingest_requests"), lost("ingest_items")), (0, 0));
        metrics.ingest_request("metrics", "refused", "too_large");
        metrics.ingest_items("metrics", "left_out", "older_than_retention", 3);
        metrics.debuginfo("stored");
        metrics.debuginfo("stalled");
        metrics.symbols("failed", 9);
        metrics.symbol_read("killed");
        metrics.verdict_run("failed", 0.1, 0, 0);
        metrics.notification("http://a", "refused");
        metrics.scrape("go", "failed");
        assert_eq!(
            (lost("ingest_requests"), lost("ingest_items"), lost("symbol_locations")),
            (1, 3, 9)
        );
        for name in [
            "debuginfo_uploads",
            "symbol_reads",
            "verdict_runs",
            "notifications",
            "scrapes",
        ] {
            assert_eq!(lost(name), 1, "{name}");
        }
        assert_eq!(
            metrics.losses().len(),
            METRICS.iter().filter(|metric| metric.loss.is_some()).count()
        );
    }
}
