//! What the store counts about itself. Guarantee: nothing that is refused, cut, skipped or repaired goes uncounted. The
//! counters start at zero with the process; sizes and LSNs are read on request.
//!
//! The list in this file is the only one: it makes the counters, their snapshot, the status answer and `/metrics`.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use emberline_model::metric::{Kind, Loss, LossCount, Metric, Unit};
use parking_lot::Mutex;
use serde::Serialize;

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! store_metrics {
    (
        gauges { $( $gauge:ident: $gauge_unit:ident, $gauge_help:literal; )* }
        counters { $( $counter:ident: $unit:ident, $help:literal, $loss:expr; )* }
    ) => {
        /// Shared by all threads of a store.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $( pub(crate) $counter: Counter, )*
            rejected: Mutex<BTreeMap<&'static str, u64>>,
            last_hot_error: Mutex<Option<String>>,
        }

        /// Values read on request.
        #[derive(Debug)]
        pub(crate) struct Gauges {
            $( pub(crate) $gauge: u64, )*
            pub(crate) hot_available: bool,
        }

        /// The state of a store at one moment.
        #[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
        pub struct StoreStats {
            $( #[doc = $gauge_help] pub $gauge: u64, )*
            /// The query engine is open.
            pub hot_available: bool,
            /// The last error of the query engine; cleared when it works again.
            pub hot_error: Option<String>,
            /// Batches refused, by reason.
            pub rejected: BTreeMap<&'static str, u64>,
            $( #[doc = $help] pub $counter: u64, )*
        }

        impl StoreStats {
            /// Every metric of the store.
            pub const METRICS: &[Metric] = &[
                $( Metric {
                    name: concat!("emberline_store_", stringify!($gauge)),
                    help: $gauge_help,
                    kind: Kind::Gauge,
                    unit: Unit::$gauge_unit,
                    loss: None,
                }, )*
                HOT_AVAILABLE,
                StoreStats::REJECTED,
                $( Metric {
                    name: concat!("emberline_store_", stringify!($counter)),
                    help: $help,
                    kind: Kind::Counter,
                    unit: Unit::$unit,
                    loss: $loss,
                }, )*
            ];

            pub(crate) fn of(gauges: &Gauges, counters: &Counters) -> StoreStats {
                StoreStats {
                    $( $gauge: gauges.$gauge, )*
                    hot_available: gauges.hot_available,
                    hot_error: counters.last_hot_error.lock().clone(),
                    rejected: counters.rejected.lock().clone(),
                    $( $counter: counters.$counter.get(), )*
                }
            }

            /// The value of a metric in the list; for refused batches, the sum over all reasons.
            pub fn value(&self, metric: &Metric) -> u64 {
                match metric.name {
                    $( concat!("emberline_store_", stringify!($gauge)) => self.$gauge, )*
                    $( concat!("emberline_store_", stringify!($counter)) => self.$counter, )*
                    name if name == HOT_AVAILABLE.name => u64::from(self.hot_available),
                    name if name == StoreStats::REJECTED.name => self.rejected.values().sum(),
                    _ => 0,
                }
            }
        }
    };
}

const HOT_AVAILABLE: Metric = Metric {
    name: "emberline_store_hot_available",
    help: "1 while the query engine is open",
    kind: Kind::Gauge,
    unit: Unit::Count,
    loss: None,
};

const CHECK_DISK: &str = "Check the disk and its file system (`dmesg`, SMART); copies of the damaged data are in the directory `quarantine`.";
const SEE_LOG: &str = "The server's log names the cause; it is retried automatically.";

store_metrics! {
    gauges {
        journal_bytes: Bytes, "Bytes of all journal segments";
        journal_segments: Count, "Journal segments";
        hot_bytes: Bytes, "Bytes of the query engine's file and its write-ahead log";
        free_bytes: Bytes, "Bytes free on the disk of the data directory";
        queued_bytes: Bytes, "Bytes of batches waiting for the journal";
        lsn_durable: Count, "Number of the last batch on disk";
        lsn_applied: Count, "Number of the last batch visible to queries";
        hours: Count, "Hours held";
        sealed_hours: Count, "Hours with at least one sealed part";
        sealed_files: Count, "Files of sealed parts";
        sealed_bytes: Bytes, "Bytes of sealed parts";
        sealed_rows: Count, "Rows of sealed parts: samples, requests and windows";
        deletion_files_left: Count, "Sealed files that still contain data of a deleted service; they are rewritten one by one";
        dictionary_stacks: Count, "Stacks in the dictionary";
        dictionary_locations: Count, "Locations in the dictionary";
        queries_running: Count, "Queries in progress in the query engine";
    }
    counters {
        batches_stored: Count, "Batches stored", None;
        duplicates: Count, "Duplicate batches, acknowledged again", None;
        journal_groups: Count, "Groups of batches written with one sync", None;
        journal_sync_failures: Count, "Failed writes or syncs of the journal",
            Loss::failed("Batches are refused and senders retry until the disk works: check it and its free space.");
        journal_segments_removed: Count, "Journal segments removed because everything in them is sealed", None;
        journal_records_lost: Count, "Batches known to be lost to journal damage", Loss::lost(CHECK_DISK);
        journal_bytes_damaged: Bytes, "Damaged bytes between intact records of the journal", Loss::lost(CHECK_DISK);
        journal_tail_bytes_cut: Bytes, "Bytes truncated from the end of the journal at start-up: torn, zero or damaged",
            Loss::failed("Expected once after a machine crash, when they contain no acknowledged batch. Otherwise check the disk.");
        journal_unreadable_batches: Count, "Intact records of the journal that do not decode to a batch",
            Loss::lost("A different version of the server may have written them: start that version, or report a bug.");
        dedup_rebuilds: Count, "Times the sender state was rebuilt because its checkpoint was damaged", Loss::failed(CHECK_DISK);
        symbol_records_damaged: Count, "Damaged places in symbol files; these locations are resolved again", Loss::failed(CHECK_DISK);
        hot_rebuilds: Count, "Times the query engine's file was quarantined and rebuilt from the journal and the sealed parts",
            Loss::failed("No data is lost. If it happens again, check the disk and the memory limit of the process.");
        hot_reopens: Count, "Times the query engine was reopened after a fatal error",
            Loss::failed("No data is lost. If it happens again, raise `memory_limit_mb` or report the error in the log.");
        hot_failures: Count, "Failed transactions of the query engine", Loss::failed(SEE_LOG);
        batches_skipped: Count, "Batches that could not be applied and were skipped; they stay in the journal until their hours are sealed",
            Loss::lost("Keep a copy of the directory `journal`, which still contains them, and report the error in the log.");
        sample_rows: Count, "Sample rows applied", None;
        request_rows: Count, "Request rows applied", None;
        window_rows: Count, "Window rows applied", None;
        expired_windows: Count, "Windows dropped because their hour is past retention",
            Loss::lost("Their senders were disconnected for longer than `retention_hours`: raise it, or find out why they were.");
        hours_dropped: Count, "Hours dropped by retention", None;
        sample_parts_dropped: Count, "Sample parts dropped by retention whose hours are kept as sums", None;
        seals: Count, "Times an hour was sealed", None;
        seal_failures: Count, "Times sealing an hour failed; retried after a minute",
            Loss::failed("The journal grows until it succeeds: check free disk space and `memory_limit_mb`; the log names the cause.");
        compactions: Count, "Compactions of parts of several hours into one", None;
        compaction_failures: Count, "Failed compactions; they are retried", Loss::failed(SEE_LOG);
        parts_quarantined: Count, "Sealed files that were damaged or missing", Loss::lost(CHECK_DISK);
        sealed_rows_lost: Count, "Rows of sealed files that were damaged or missing", Loss::lost(CHECK_DISK);
        services_deleted: Count, "Services deleted by name", None;
        deletion_failures: Count, "Times deleting a service failed; retried after a minute", Loss::failed(SEE_LOG);
        deletions_lost: Count, "Deletions of services lost to damage: remaining data of these services is visible again",
            Loss::lost("Delete these services again, then check the disk.");
        releases_forgotten: Count, "Releases whose start time was lost to damage; it is rebuilt from their windows",
            Loss::lost("Declare them again if CI declared them (`POST /api/v1/releases`), then check the disk.");
        alerts_forgotten: Count, "Alerts whose delivery state was lost to damage",
            Loss::lost("Receivers may be notified twice, or not when an alert ends: check open alerts, then the disk.");
        id_collisions: Count, "Dictionary rows whose identifier collided with different content; they are kept apart",
            Loss::failed("No data is lost, but collisions do not occur by chance: a sender is making up names.");
        queries: Count, "Queries", None;
        query_timeouts: Count, "Queries interrupted because they exceeded `max_query_seconds`",
            Loss::failed("Use shorter ranges, or raise `max_query_seconds` or `query_threads`.");
        query_failures: Count, "Queries that failed for other reasons", Loss::failed("The log and the response name the cause.");
    }
}

impl Counters {
    pub(crate) fn reject(&self, reason: &'static str) {
        *self.rejected.lock().entry(reason).or_default() += 1;
    }

    pub(crate) fn set_hot_error(&self, error: Option<String>) {
        *self.last_hot_error.lock() = error;
    }
}

impl StoreStats {
    /// The one family with a label (`reason`). The sender is told of each refusal, and the collector counts what
    /// becomes of its request.
    pub const REJECTED: Metric = Metric {
        name: "emberline_store_rejected",
        help: "Batches refused, by reason",
        kind: Kind::Counter,
        unit: Unit::Count,
        loss: None,
    };

    /// How much of each kind of loss there was since the start.
    pub fn losses(&self) -> Vec<LossCount> {
        let of = |metric: &Metric| LossCount::of(metric, self.value(metric));
        StoreStats::METRICS.iter().filter_map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_of_the_status_is_a_metric_with_its_value() {
        let mut status = serde_json::to_value(StoreStats::default()).unwrap();
        let fields = status.as_object_mut().unwrap();
        fields.remove("hot_error");
        assert_eq!(fields.len(), StoreStats::METRICS.len());
        for metric in StoreStats::METRICS {
            let field = metric.name.strip_prefix("emberline_store_").unwrap();
            assert!(fields.remove(field).is_some(), "{field} is not in the status");
        }
        let counters = Counters::default();
        counters.sealed_rows_lost.add(7);
        let gauges = Gauges {
            journal_bytes: 3,
            journal_segments: 0,
            hot_bytes: 0,
            free_bytes: 0,
            queued_bytes: 0,
            lsn_durable: 0,
            lsn_applied: 0,
            hours: 0,
            sealed_hours: 0,
            sealed_files: 0,
            sealed_bytes: 0,
            sealed_rows: 0,
            deletion_files_left: 0,
            dictionary_stacks: 0,
            dictionary_locations: 0,
            queries_running: 0,
            hot_available: true,
        };
        let stats = StoreStats::of(&gauges, &counters);
        let of = |name| {
            let metric = StoreStats::METRICS.iter().find(|metric| metric.name == name).unwrap();
            stats.value(metric)
        };
        assert_eq!(of("emberline_store_sealed_rows_lost"), 7);
        assert_eq!(
            (of("emberline_store_journal_bytes"), of("emberline_store_hot_available")),
            (3, 1)
        );
        assert_eq!(stats.losses().iter().map(|loss| loss.count).sum::<u64>(), 7);
    }

    #[test]
    fn only_counters_are_losses_and_each_says_what_to_do() {
        for metric in StoreStats::METRICS {
            assert!(metric.loss.is_none() || metric.kind == Kind::Counter, "{}", metric.name);
            assert!(metric.loss.is_none_or(|loss| loss.remedy.len() > 20), "{}", metric.name);
        }
    }
}
