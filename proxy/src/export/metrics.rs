//! The exporter's counters as Prometheus metrics.

use std::{fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Unit,
};

use super::stats::Shared;

#[derive(Debug)]
pub(super) struct ExportMetrics {
    shared: Arc<Shared>,
}

impl ExportMetrics {
    pub(super) fn new(shared: Arc<Shared>) -> ExportMetrics {
        ExportMetrics { shared }
    }
}

/// Name of [`Signal::code`](emberline_model::Signal::code).
fn signal_name(code: u32) -> &'static str {
    match code {
        1 => "requests",
        2 => "profiles",
        // A file that could not be read does not say.
        _ => "unknown",
    }
}

impl Collector for ExportMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let stats = self.shared.stats();

        let mut acked = encoder.encode_descriptor(
            "emberline_export_batches_acked",
            "Batches acknowledged by the collector",
            None,
            MetricType::Counter,
        )?;
        for (signal, count) in [("requests", stats.requests_acked), ("profiles", stats.profiles_acked)] {
            ConstCounter::new(count).encode(acked.encode_family(&[("signal", signal)])?)?;
        }

        let mut dropped = encoder.encode_descriptor(
            "emberline_export_batches_dropped",
            "Batches dropped, by reason",
            None,
            MetricType::Counter,
        )?;
        for ((reason, signal), count) in &stats.batches_dropped {
            let labels = [("reason", reason.as_str()), ("signal", signal_name(*signal))];
            ConstCounter::new(*count).encode(dropped.encode_family(&labels)?)?;
        }

        let counters = [
            (
                "emberline_export_windows_cut",
                "Windows closed, including empty ones",
                stats.windows_cut,
                None,
            ),
            (
                "emberline_export_windows_late",
                "Windows closed late because the thread could not run",
                stats.windows_late,
                None,
            ),
            (
                "emberline_export_retries",
                "Failed attempts that were retried",
                stats.retries,
                None,
            ),
            (
                "emberline_export_items_rejected",
                "Items in batches that the collector dropped",
                stats.items_rejected,
                None,
            ),
            (
                "emberline_export_spool_taken_over",
                "Batches taken over from processes that had ended",
                stats.spool_taken_over,
                None,
            ),
            (
                "emberline_export_spool_errors",
                "Batches that could not be written to the spool and wait in memory",
                stats.spool_errors,
                None,
            ),
            (
                "emberline_export_reconnects",
                "Times the collector became available again",
                stats.reconnects,
                None,
            ),
            (
                "emberline_export_builds_asked",
                "Builds announced to the collector",
                stats.builds_asked,
                None,
            ),
            (
                "emberline_export_builds_uploaded",
                "Builds whose debug information was sent",
                stats.builds_uploaded,
                None,
            ),
            (
                "emberline_export_upload",
                "Debug information sent",
                stats.upload_bytes,
                Some(Unit::Bytes),
            ),
            (
                "emberline_export_upload_wrong_file",
                "Builds whose file was removed or replaced",
                stats.upload_wrong_file,
                None,
            ),
            (
                "emberline_export_upload_errors",
                "Failed queries and uploads of debug information",
                stats.upload_errors,
                None,
            ),
        ];
        for (name, help, value, unit) in counters {
            let metric = encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Counter)?;
            ConstCounter::new(value).encode(metric)?;
        }

        let last_ack = stats.last_ack_unix_ms.map_or(0.0, |ms| ms as f64 / 1e3);
        let gauges = [
            (
                "emberline_export_queue",
                "Memory used by queued batches",
                stats.queue_bytes as f64,
                Some(Unit::Bytes),
            ),
            (
                "emberline_export_queue_batches",
                "Queued batches, in memory and on disk",
                stats.queue_batches as f64,
                None,
            ),
            (
                "emberline_export_spool",
                "Disk space used by queued batches",
                stats.spool_bytes as f64,
                Some(Unit::Bytes),
            ),
            (
                "emberline_export_spool_batches",
                "Queued batches that are on disk",
                stats.spool_batches as f64,
                None,
            ),
            (
                "emberline_export_waiting_to_retry",
                "Delay before the next attempt after a failure",
                stats.waiting_to_retry.as_secs_f64(),
                Some(Unit::Seconds),
            ),
            (
                "emberline_export_last_ack_timestamp",
                "Time of the last acknowledged batch",
                last_ack,
                Some(Unit::Seconds),
            ),
        ];
        for (name, help, value, unit) in gauges {
            let metric = encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
            ConstGauge::new(value).encode(metric)?;
        }
        Ok(())
    }
}
