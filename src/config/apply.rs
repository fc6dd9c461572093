//! Passes settings to the parts of the server.

use std::time::Duration;

use emberline_client::Tls;
use emberline_collector::{CollectorConfig, IngestLimits, VerdictConfig};
use emberline_storage::Options;

use super::{Loaded, Settings};
use crate::budget::Budget;

fn size(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

fn windows(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn hours(count: u64) -> Duration {
    Duration::from_secs(count.saturating_mul(3600))
}

/// Settings of the store; unset ones come from the budget.
pub(crate) fn store_options(settings: &Settings, budget: &Budget) -> Options {
    let (store, retention) = (&settings.store, &settings.retention);
    Options {
        data_dir: settings.server.data_dir.clone(),
        memory_limit_mb: store.memory_limit_mb.unwrap_or(budget.engine_mb),
        duckdb_threads: size(store.query_threads),
        temp_limit_mb: store.temp_limit_mb,
        reader_connections: size(store.reader_connections),
        retention: hours(retention.retention_hours),
        rollup_retention: hours(retention.rollup_retention_days.saturating_mul(24)),
        samples_limit_mb: retention.samples_limit_mb,
        rollup_limit_mb: retention.rollup_limit_mb,
        seal_after: Duration::from_secs(store.seal_after_seconds),
        compact_after: Duration::from_secs(store.compact_after_seconds),
        compaction_locations: size(store.compaction_locations),
        max_future: Duration::from_secs(settings.ingest.max_future_seconds),
        dedup_horizon: hours(store.dedup_horizon_hours),
        queue_bytes: size(store.queue_bytes),
        max_batch_bytes: size(store.max_batch_bytes),
        segment_bytes: store.segment_bytes,
        group_wait: Duration::from_millis(store.group_wait_ms),
        apply_interval: Duration::from_millis(store.apply_interval_ms),
        checkpoint_bytes: store.checkpoint_bytes,
        min_free_mb: store.min_free_mb,
        max_query_seconds: store.max_query_seconds,
        dictionary_cache_bytes: size(store.dictionary_cache_bytes.unwrap_or(budget.dictionary_cache_bytes)),
    }
}

/// Settings of the collector; `web_address` is the default for links to the pages. Unset ones come from the budget.
pub(crate) fn collector_config(loaded: &Loaded, budget: &Budget, web_address: &str) -> CollectorConfig {
    let settings = &loaded.settings;
    let (ingest, symbols) = (&settings.ingest, &settings.symbols);
    let external_url = settings.web.external_url.clone();
    CollectorConfig {
        data_dir: settings.server.data_dir.clone(),
        max_request_bytes: size(ingest.max_request_mb.unwrap_or(budget.request_mb)) << 20,
        max_concurrent_requests: size(ingest.max_concurrent_requests),
        request_timeout: Duration::from_secs(ingest.request_timeout_seconds),
        limits: limits(settings),
        debuginfo_max_bytes: symbols.max_debug_file_mb << 20,
        debuginfo_total_bytes: symbols.max_debug_files_mb << 20,
        debuginfo_unpacked_max_bytes: symbols.max_unpacked_debug_mb << 20,
        min_free_mb: settings.store.min_free_mb,
        symbol_reader: Some(vec!["/proc/self/exe".into(), "read-symbols".into()]),
        symbol_memory_bytes: symbols.symbol_memory_mb << 20,
        symbol_seconds: symbols.symbol_seconds,
        lookback: Duration::from_secs(settings.verdicts.lookback_seconds),
        external_url: external_url.unwrap_or_else(|| format!("http://{web_address}")),
        alertmanager_urls: settings.alerts.alertmanagers.clone(),
        alertmanager_tls: Tls {
            ca_file: settings.alerts.alertmanager_ca_file.clone(),
            cert_file: settings.alerts.alertmanager_cert_file.clone(),
            key_file: settings.alerts.alertmanager_key_file.clone(),
            server_name: settings.alerts.alertmanager_server_name.clone(),
        },
        webhook_urls: settings.alerts.webhooks.clone(),
        webhook_tls: Tls {
            ca_file: settings.alerts.webhook_ca_file.clone(),
            cert_file: settings.alerts.webhook_cert_file.clone(),
            key_file: settings.alerts.webhook_key_file.clone(),
            server_name: settings.alerts.webhook_server_name.clone(),
        },
        verdict: verdicts(settings),
        scrape: loaded.scrape.clone(),
    }
}

fn limits(settings: &Settings) -> IngestLimits {
    let ingest = &settings.ingest;
    IngestLimits {
        retention: hours(settings.retention.retention_hours),
        max_future: Duration::from_secs(ingest.max_future_seconds),
        max_window_seconds: windows(ingest.max_window_seconds),
        max_windows_per_request: size(ingest.max_windows_per_request),
        max_workloads: size(ingest.max_workloads),
        max_routes_per_service: size(ingest.max_routes_per_service),
        max_peers_per_service: size(ingest.max_peers_per_service),
        max_series_per_window: size(ingest.max_series_per_window),
        max_profiles_per_window: size(ingest.max_profiles_per_window),
        max_samples_per_profile: size(ingest.max_samples_per_profile),
        max_stack_depth: size(ingest.max_stack_depth),
        max_exemplars_per_profile: size(ingest.max_exemplars_per_profile),
        max_cumulative_rows: size(ingest.max_cumulative_rows),
        max_cumulative_rows_per_profile: size(ingest.max_cumulative_rows_per_profile),
        max_cumulative_senders: size(ingest.max_cumulative_senders),
        max_cumulative_buckets: size(ingest.max_cumulative_buckets),
        max_cumulative_buckets_per_process: size(ingest.max_cumulative_buckets_per_process),
    }
}

fn verdicts(settings: &Settings) -> VerdictConfig {
    let verdicts = &settings.verdicts;
    let mut config = VerdictConfig::with_warm_up(Duration::from_secs(verdicts.warm_up_seconds));
    config.watch = Duration::from_secs(verdicts.watch_seconds);
    config.grace = Duration::from_secs(verdicts.grace_seconds);
    config.wait_for_symbols = Duration::from_secs(verdicts.wait_for_symbols_seconds);
    config.evidence_windows = windows(verdicts.evidence_windows);
    config.min_source_requests = verdicts.min_source_requests;
    config.own_code = settings.web.own_code.clone();
    config.latency.alpha = verdicts.latency_alpha;
    config.latency.block_alpha = verdicts.latency_block_alpha;
    config.latency.floor_relative = verdicts.latency_floor_relative;
    config.latency.floor_seconds = verdicts.latency_floor_ms / 1_000.0;
    config.latency.min_requests = verdicts.latency_min_requests;
    config.errors.alpha = verdicts.errors_alpha;
    config.errors.floor_share = verdicts.errors_floor_share;
    config.errors.min_errors = verdicts.min_errors;
    config.alert.confirm_windows = windows(verdicts.confirm_windows);
    config.alert.quiet_windows = windows(verdicts.quiet_windows);
    config.alert.resolve_windows = windows(verdicts.resolve_windows);
    config.alert.again_windows = windows(verdicts.again_windows);
    config.alert.gone_windows = windows(verdicts.gone_windows);
    config
}
