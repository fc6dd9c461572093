//! What the collector counts about itself, as OpenMetrics.
//!
//! Guarantee: labels are bounded: signals, outcomes and reasons are fixed words of the program, receivers and jobs are
//! those of the configuration; nothing a sender writes becomes a label.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
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

/// The collector's counters; a clone counts into the same ones.
#[derive(Debug, Clone)]
pub(crate) struct SelfMetrics {
    ingest_requests: Family<RequestLabels, Counter>,
    ingest_items: Family<RequestLabels, Counter>,
    ingest_bytes: Family<SignalLabel, Counter>,
    ack_seconds: Timings<SignalLabel>,
    debuginfo: Family<OutcomeLabel, Counter>,
    symbol_locations: Family<OutcomeLabel, Counter>,
    symbol_queue: Family<OutcomeLabel, Gauge>,
    symbol_reads: Family<OutcomeLabel, Counter>,
    verdict_seconds: Histogram,
    verdict_runs: Family<OutcomeLabel, Counter>,
    verdict_units: Gauge,
    alerts: Family<OutcomeLabel, Gauge>,
    notifications: Family<ReceiverLabels, Counter>,
    scrapes: Family<JobLabels, Counter>,
    scrape_profiles: Family<JobStateLabels, Gauge>,
    cumulative_rows: Gauge,
    names: Family<TableLabels, Gauge>,
}

impl SelfMetrics {
    pub(crate) fn new() -> SelfMetrics {
        let ack_buckets: fn() -> Histogram =
            || Histogram::new([0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0]);
        SelfMetrics {
            ingest_requests: Family::default(),
            ingest_items: Family::default(),
            ingest_bytes: Family::default(),
            ack_seconds: Family::new_with_constructor(ack_buckets),
            debuginfo: Family::default(),
            symbol_locations: Family::default(),
            symbol_queue: Family::default(),
            symbol_reads: Family::default(),
            verdict_seconds: Histogram::new([0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0]),
            verdict_runs: Family::default(),
            verdict_units: Gauge::default(),
            alerts: Family::default(),
            notifications: Family::default(),
            scrapes: Family::default(),
            scrape_profiles: Family::default(),
            cumulative_rows: Gauge::default(),
            names: Family::default(),
        }
    }

    /// Makes the counters part of a registry.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let r = registry.sub_registry_with_prefix("emberline_collector");
        r.register(
            "ingest_requests",
            "OTLP requests by signal, outcome (stored, duplicate, refused, retry_later) and reason",
            self.ingest_requests.clone(),
        );
        r.register(
            "ingest_items",
            "Data points and samples left out or kept in another form, by signal and reason",
            self.ingest_items.clone(),
        );
        r.register_with_unit(
            "ingest",
            "Bytes of OTLP messages, decompressed",
            Unit::Bytes,
            self.ingest_bytes.clone(),
        );
        r.register_with_unit(
            "ingest_ack",
            "Time from a decoded message to the batch being on disk",
            Unit::Seconds,
            self.ack_seconds.clone(),
        );
        r.register(
            "debuginfo_uploads",
            "Debug information files received, by outcome",
            self.debuginfo.clone(),
        );
        r.register(
            "symbol_locations",
            "Locations looked up, by outcome (named, without_symbol, failed)",
            self.symbol_locations.clone(),
        );
        r.register(
            "symbol_queue",
            "Locations without a name, by what they wait for (worker, file)",
            self.symbol_queue.clone(),
        );
        r.register(
            "symbol_reads",
            "Questions to the process that reads symbols, by outcome (done, refused, killed, not_started)",
            self.symbol_reads.clone(),
        );
        r.register_with_unit(
            "verdict_run",
            "Time of a verdict run",
            Unit::Seconds,
            self.verdict_seconds.clone(),
        );
        r.register(
            "verdict_runs",
            "Verdict runs, by outcome (done, failed)",
            self.verdict_runs.clone(),
        );
        r.register(
            "verdict_units",
            "Units (source, service, route) judged in the newest run",
            self.verdict_units.clone(),
        );
        r.register("alerts", "Alerts on the board, by state", self.alerts.clone());
        r.register(
            "notifications",
            "Messages to receivers, by receiver and outcome (delivered, retried, refused)",
            self.notifications.clone(),
        );
        r.register(
            "scrapes",
            "Profiles scraped, by job and outcome (stored, failed)",
            self.scrapes.clone(),
        );
        r.register(
            "scrape_profiles",
            "Profiles of targets that are scraped, by job and state (up, down, unknown)",
            self.scrape_profiles.clone(),
        );
        r.register(
            "cumulative_rows",
            "Stacks remembered of counters that grow from the start of a process",
            self.cumulative_rows.clone(),
        );
        r.register(
            "names",
            "Entries of the tables of names that senders choose (workloads, names), and their limits, every half minute",
            self.names.clone(),
        );
    }

    pub(crate) fn ingest_request(&self, signal: &'static str, outcome: &'static str, reason: &'static str) {
        self.ingest_requests
            .get_or_create(&RequestLabels {
                signal,
                outcome,
                reason,
            })
            .inc();
    }

    pub(crate) fn ingest_items(&self, signal: &'static str, outcome: &'static str, reason: &'static str, count: u64) {
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
        self.ack_seconds.get_or_create(&SignalLabel { signal }).observe(seconds);
    }

    pub(crate) fn debuginfo(&self, outcome: &'static str) {
        self.debuginfo.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    pub(crate) fn symbols(&self, outcome: &'static str, locations: usize) {
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
        self.symbol_reads.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    pub(crate) fn verdict_run(&self, outcome: &'static str, seconds: f64, units: usize) {
        self.verdict_runs.get_or_create(&OutcomeLabel { outcome }).inc();
        self.verdict_seconds.observe(seconds);
        self.verdict_units.set(i64::try_from(units).unwrap_or(i64::MAX));
    }

    pub(crate) fn alerts(&self, state: &'static str, count: usize) {
        self.alerts
            .get_or_create(&OutcomeLabel { outcome: state })
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub(crate) fn notification(&self, receiver: &str, outcome: &'static str) {
        self.notifications
            .get_or_create(&ReceiverLabels {
                receiver: receiver.to_owned(),
                outcome,
            })
            .inc();
    }

    pub(crate) fn scrape(&self, job: &str, outcome: &'static str) {
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
