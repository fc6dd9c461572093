//! Sends the queue's batches one after another, and never gives up on a collector that may come back.
//!
//! Guarantee: the next batch is not started before the one in front is acknowledged or dropped, so a collector sees
//! batches in order and each batch id any number of times in a row.

use std::{error::Error, sync::Arc, time::Instant};

use emberline_client::cause;
use emberline_model::{BatchId, Signal, time::Clock};
use tokio::sync::mpsc;
use tonic::Status;

use super::{
    DropReason, ExportOptions,
    answer::GuardedChannel,
    backoff::Backoff,
    batch::QueuedBatch,
    client::{Client, Failure, judge},
    debug_info::BuildNews,
    stats::Shared,
};

/// Attempts for a batch on which the collector fails for an unknown reason.
const FEW_TIMES: u32 = 5;

pub(super) struct Sender {
    client: Client,
    endpoint: String,
    backoff: Backoff,
    clock: Arc<dyn Clock>,
    shared: Arc<Shared>,
    builds: Option<mpsc::UnboundedSender<BuildNews>>,
    away_since: Option<Instant>,
    /// The reasons logged so far. A retry may reveal a better one than the first failure: a server that refuses a
    /// certificate can end the connection before its alert is read.
    away_reasons: Vec<String>,
}

/// Distinct reasons logged while the collector is away.
const MAX_REASONS: usize = 4;

impl Sender {
    pub(super) fn new(
        channel: GuardedChannel,
        options: &ExportOptions,
        clock: Arc<dyn Clock>,
        shared: Arc<Shared>,
        builds: Option<mpsc::UnboundedSender<BuildNews>>,
    ) -> Sender {
        let name = BatchId::sender_of(&options.workload, options.component);
        Sender {
            client: Client::new(channel, options.call_timeout),
            endpoint: options.endpoint.clone(),
            backoff: Backoff::new(options.initial_backoff, options.max_backoff, &name),
            clock,
            shared,
            builds,
            away_since: None,
            away_reasons: Vec::new(),
        }
    }

    pub(super) async fn run(mut self) {
        loop {
            let batch = self.shared.next_batch().await;
            self.settle(&batch).await;
        }
    }

    /// Sends a batch until it is acknowledged or dropped.
    async fn settle(&mut self, batch: &QueuedBatch) {
        let mut unexplained = 0;
        loop {
            let status = match self.client.send(batch).await {
                Ok(rejected_items) => return self.acked(batch, rejected_items),
                Err(status) => status,
            };
            let after = match judge(&status) {
                Failure::Retry { after } => after,
                Failure::RetryFewTimes => {
                    unexplained += 1;
                    if unexplained >= FEW_TIMES {
                        return self.drop_batch(DropReason::GaveUp, batch, &status);
                    }
                    None
                }
                Failure::Drop(reason) => return self.drop_batch(reason, batch, &status),
            };
            self.note_away(&status);
            self.shared.count(|stats| stats.retries += 1);
            let wait = self.backoff.failed(after);
            self.shared.wait_before_retry(wait).await;
        }
    }

    fn acked(&mut self, batch: &QueuedBatch, rejected_items: u64) {
        self.backoff.succeeded();
        if rejected_items > 0 {
            tracing::warn!(batch = %batch.id, rejected_items, "the collector dropped part of a batch");
            self.shared
                .count(|stats| stats.items_rejected = stats.items_rejected.saturating_add(rejected_items));
        }
        self.shared.acked(&batch.id, self.clock.now_unix_ms());
        let reconnected = self.note_back();
        let Some(builds) = &self.builds else { return };
        // The debug information task lives as long as this one; if it ended, nobody misses the message.
        if reconnected {
            let _ = builds.send(BuildNews::Reconnected);
        }
        if batch.id.signal == Signal::Profiles {
            let _ = builds.send(BuildNews::ProfilesAcked);
        }
    }

    fn drop_batch(&mut self, reason: DropReason, batch: &QueuedBatch, status: &Status) {
        self.backoff.succeeded();
        let why = format!(
            "the collector at {} responded with {:?}: {}",
            self.endpoint,
            status.code(),
            words(status)
        );
        self.shared.dropped(reason, &batch.id, &why);
    }

    fn note_away(&mut self, status: &Status) {
        let why = words(status);
        if self.away_reasons.len() >= MAX_REASONS || self.away_reasons.contains(&why) {
            return;
        }
        self.away_since.get_or_insert_with(Instant::now);
        self.away_reasons.push(why.clone());
        tracing::warn!(
            endpoint = %self.endpoint,
            code = ?status.code(),
            "the collector is unavailable ({}); traffic is not affected, telemetry is queued and retried",
            why,
        );
    }

    /// True when the collector had been away.
    fn note_back(&mut self) -> bool {
        let Some(since) = self.away_since.take() else {
            return false;
        };
        self.away_reasons.clear();
        self.shared.count(|stats| stats.reconnects += 1);
        tracing::info!(
            endpoint = %self.endpoint,
            away_seconds = since.elapsed().as_secs(),
            batches_waiting = self.shared.waiting_batches(),
            "the collector is available again"
        );
        true
    }
}

/// Why a call failed. The collector's text is sanitised before it is logged.
fn words(status: &Status) -> String {
    let words = match status.source() {
        // Created on this side for a connection that broke or could not be opened; the reason is nested inside.
        Some(source) => cause(source),
        None => status.message().to_owned(),
    };
    let visible = words.chars().map(|c| if c.is_control() { ' ' } else { c });
    visible.take(300).collect()
}
