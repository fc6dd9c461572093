//! How much memory requests may hold together.
//!
//! Guarantees: bodies that are being read or unpacked hold at most [`BODIES`] times `max_request_mb`, counted as they
//! arrive, so that a sender that stalls holds what it has sent and not what it has announced; what is decoded holds at
//! most [`MEMORY_FACTOR`] times as much. Who has to wait longer than a moment is told to send again; whoever decodes
//! waits for nobody who has yet to read, so somebody always gets on.
//!
//! Wrong on purpose: the buffers of connections are not counted (hyper bounds each), nor the batches that the store has
//! taken over (it bounds them itself). Senders that stall after many megabytes keep that room until `request_timeout_seconds`
//! cuts them off; others are told to send again meanwhile.

use std::{sync::Arc, time::Duration};

use emberline_model::{Location, RequestSeries, WorkloadWindow, weight::MEMORY_FACTOR};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::rejection::Rejection;

/// Bodies of the largest size that fit at the same time.
const BODIES: usize = 4;
/// How long a request may wait for room before it is refused as retryable.
const WAIT_FOR_ROOM: Duration = Duration::from_secs(2);
/// What is counted in one piece.
const PIECE: usize = 1024;
/// What a byte of OTLP may become at most: an empty element is two bytes long and takes a hundred times that.
const WORST_FACTOR: usize = 512;

/// The room for requests.
#[derive(Debug)]
pub(super) struct Memory {
    bodies: Arc<Semaphore>,
    decoding: Arc<Semaphore>,
    body_pieces: usize,
    decoding_pieces: usize,
    wait: Duration,
}

/// A part of it; given back when dropped.
#[derive(Debug)]
pub(super) struct Room {
    of: Arc<Semaphore>,
    held: Option<OwnedSemaphorePermit>,
    limit: usize,
    wait: Duration,
}

impl Memory {
    pub(super) fn new(max_request_bytes: usize) -> Memory {
        let pieces = |factor: usize| {
            let pieces = max_request_bytes.div_ceil(PIECE).max(1).saturating_mul(factor);
            pieces.min(Semaphore::MAX_PERMITS).min(u32::MAX as usize)
        };
        let (body_pieces, decoding_pieces) = (pieces(BODIES), pieces(MEMORY_FACTOR as usize));
        Memory {
            bodies: Arc::new(Semaphore::new(body_pieces)),
            decoding: Arc::new(Semaphore::new(decoding_pieces)),
            body_pieces,
            decoding_pieces,
            wait: WAIT_FOR_ROOM,
        }
    }

    /// Room for a body; none of it yet.
    pub(super) fn body(&self) -> Room {
        Room {
            of: Arc::clone(&self.bodies),
            held: None,
            limit: self.body_pieces,
            wait: self.wait,
        }
    }

    /// Room to decode a message: by its length, or all there is when it may be packed once more inside.
    pub(super) async fn decoding(&self, bytes: usize, packed_inside: bool) -> Result<Room, Rejection> {
        let mut room = Room {
            of: Arc::clone(&self.decoding),
            held: None,
            limit: self.decoding_pieces,
            wait: self.wait,
        };
        let most = self.decoding_pieces.saturating_mul(PIECE);
        let bytes = if packed_inside {
            most
        } else {
            bytes.saturating_mul(WORST_FACTOR).min(most)
        };
        room.grow_to(bytes).await?;
        Ok(room)
    }
}

impl Room {
    fn pieces(&self) -> usize {
        self.held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits)
    }

    /// Waits until there is room for so many bytes in all.
    pub(super) async fn grow_to(&mut self, bytes: usize) -> Result<(), Rejection> {
        let wanted = bytes.div_ceil(PIECE).min(self.limit);
        let more = wanted.saturating_sub(self.pieces());
        if more == 0 {
            return Ok(());
        }
        let full = Rejection::NoRoom {
            bytes: self.limit.saturating_mul(PIECE),
        };
        let Ok(more) = u32::try_from(more) else {
            return Err(full);
        };
        let waiting = Arc::clone(&self.of).acquire_many_owned(more);
        match tokio::time::timeout(self.wait, waiting).await {
            Ok(Ok(permit)) => {
                match &mut self.held {
                    Some(held) => held.merge(permit),
                    None => self.held = Some(permit),
                }
                Ok(())
            }
            // The semaphore is never closed, so this is the wait that took too long.
            _ => Err(full),
        }
    }

    /// Gives back what is more than so many bytes.
    pub(super) fn shrink_to(&mut self, bytes: usize) {
        let over = self.pieces().saturating_sub(bytes.div_ceil(PIECE));
        drop(self.held.as_mut().and_then(|held| held.split(over)));
    }
}

/// What windows hold, roughly.
pub(super) fn held_by(windows: &[WorkloadWindow]) -> usize {
    let mut bytes = 0;
    for window in windows {
        let buckets = |series: &RequestSeries| 16 * series.duration.buckets().len();
        bytes += 512
            + window
                .requests
                .iter()
                .map(|series| 400 + buckets(series))
                .sum::<usize>();
        for profile in &window.profiles {
            bytes += 512 + 40 * profile.samples.len() + 160 * profile.label_sets.len();
            bytes += profile.stacks.iter().map(|stack| 48 + 4 * stack.len()).sum::<usize>();
            for location in &profile.locations {
                let Location::Named { frames } = location else {
                    bytes += 32;
                    continue;
                };
                bytes += frames
                    .iter()
                    .map(|frame| 150 + frame.function.len() + frame.file.len())
                    .sum::<usize>();
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_holds_nothing_waits_and_is_told_to_send_again() {
        let memory = Memory {
            wait: Duration::from_millis(10),
            ..Memory::new(1 << 20)
        };
        let mut first = memory.body();
        first.grow_to(3 << 20).await.unwrap();
        let mut second = memory.body();
        second.grow_to(1 << 20).await.unwrap();
        let refused = second.grow_to(2 << 20).await.unwrap_err();
        assert!(refused.retry_after().is_some(), "{refused}");
        assert!(refused.to_string().contains("`max_request_mb`"), "{refused}");
        first.shrink_to(1 << 20);
        second.grow_to(3 << 20).await.unwrap();
        drop(second);
        first.grow_to(4 << 20).await.unwrap();
        // Decoding has room of its own.
        let all = memory.decoding(0, true).await.unwrap();
        assert!(memory.decoding(1, false).await.is_err());
        drop(all);
        assert!(memory.decoding(1, false).await.is_ok());
    }
}
