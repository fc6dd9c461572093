//! The limits themselves: those set by the operator, and those that keep sums from overflowing.

use std::time::Duration;

/// Limits of what senders may send.
#[derive(Debug, Clone, PartialEq)]
pub struct IngestLimits {
    /// Windows that start longer ago are dropped. Must not exceed the store's retention.
    pub retention: Duration,
    /// Windows that start further in the future are dropped.
    pub max_future: Duration,
    /// Longest window, in seconds.
    pub max_window_seconds: u32,
    /// Windows in one request.
    pub max_windows_per_request: usize,
    /// Concurrently reporting processes (workload and component).
    pub max_workloads: usize,
    /// Distinct routes per service; further ones are folded into `other`.
    pub max_routes_per_service: usize,
    /// Distinct peer releases and destinations per service; further ones are counted as unknown.
    pub max_peers_per_service: usize,
    /// Request series in one window; further ones fold into `other`.
    pub max_series_per_window: usize,
    /// Profile types per window; profiles of the same type are added up.
    pub max_profiles_per_window: usize,
    /// Samples in one profile; further ones fold into one stack per label set.
    pub max_samples_per_profile: usize,
    /// Frames per stack; deeper stacks keep both ends, with a placeholder frame between them.
    pub max_stack_depth: usize,
    /// Exemplars kept per profile; further ones only count in the sums.
    pub max_exemplars_per_profile: usize,
    /// Stacks tracked for cumulative profiles, all processes together.
    pub max_cumulative_rows: usize,
    /// Stacks tracked per cumulative profile.
    pub max_cumulative_rows_per_profile: usize,
    /// Processes that may send cumulative profiles at the same time.
    pub max_cumulative_senders: usize,
    /// Buckets tracked for cumulative histograms, all processes together; a histogram with the SDKs' default bounds
    /// needs about fifty, including overhead.
    pub max_cumulative_buckets: usize,
    /// Buckets tracked for cumulative histograms, per process.
    pub max_cumulative_buckets_per_process: usize,
}

impl Default for IngestLimits {
    fn default() -> IngestLimits {
        IngestLimits {
            retention: Duration::from_secs(72 * 3600),
            max_future: Duration::from_secs(600),
            max_window_seconds: emberline_model::time::LONGEST_SECONDS,
            max_windows_per_request: 1_000,
            max_workloads: 10_000,
            max_routes_per_service: 1_000,
            max_peers_per_service: 1_000,
            max_series_per_window: 5_000,
            max_profiles_per_window: 64,
            max_samples_per_profile: 50_000,
            max_stack_depth: 512,
            max_exemplars_per_profile: 1_000,
            max_cumulative_rows: 1_000_000,
            max_cumulative_rows_per_profile: 100_000,
            max_cumulative_senders: 1_000,
            max_cumulative_buckets: 4_000_000,
            max_cumulative_buckets_per_process: 400_000,
        }
    }
}

/// Largest byte count: a day of windows of a thousand processes still fits into 63 bits.
pub(in crate::ingest) const MAX_BYTES: i64 = 1 << 40;
/// Most requests in one histogram, and most samples in one row.
pub(in crate::ingest) const MAX_COUNT: u64 = 1 << 36;
