//! What is sent to the collector.

use bytes::Bytes;
use emberline_model::BatchId;

/// A batch ready to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct QueuedBatch {
    /// The same on every attempt.
    pub(super) id: BatchId,
    /// The encoded request.
    pub(super) body: Bytes,
}
