//! How much memory all requests may hold together.
//!
//! Guarantees: bodies being read or decompressed hold at most [`BODIES`] times `max_request_mb`, counted as they
//! arrive, so that a sender that stalls holds what it has sent, not what it has announced; decoded requests hold at
//! most [`MEMORY_FACTOR`] times as much, plus an eighth for small ones; large ones wait while the process already holds
//! too much. Senders that would have to wait longer than a moment are told to retry; decoding never waits for a request
//! that has yet to be read, so there is always progress.
//!
//! Wrong on purpose: connection buffers are not counted (hyper bounds each), nor are batches that the store has taken
//! over (it bounds them itself). Senders that stall after many megabytes keep that room until `request_timeout_seconds`
//! cuts them off; meanwhile, others are told to retry.

use std::{sync::Arc, time::Duration};

use emberline_model::{Location, RequestSeries, WorkloadWindow, weight::MEMORY_FACTOR};
use emberline_storage::Pressure;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::rejection::Rejection;

/// How many bodies of the largest size fit at the same time.
const BODIES: usize = 4;
/// How long a request may wait for room before it is refused as retryable.
const WAIT_FOR_ROOM: Duration = Duration::from_secs(2);
/// The unit of counting.
const PIECE: usize = 1024;
/// What is built from a message may initially hold this many times what the message itself does: real profiles need
/// half of it, and a histogram with bounds needs half of it when converted to buckets.
const MADE_FACTOR: u64 = 8;
/// The minimum for a message of any weight.
const LEAST_MADE: u64 = 1 << 20;

/// A message that takes no more than this part of the room is decoded even while the process holds too much.
const SMALL_PART: usize = 8;
/// Messages up to this part of it have a room of their own, another [`SMALL_PART`] of the size: large messages wait for
/// everything in progress, and small ones queued behind them would be told to retry.
const TINY_PART: usize = 32;

/// The room for requests.
#[derive(Debug)]
pub(super) struct Memory {
    bodies: Arc<Semaphore>,
    decoding: Arc<Semaphore>,
    tiny: Arc<Semaphore>,
    body_pieces: usize,
    decoding_pieces: usize,
    pressure: Pressure,
    wait: Duration,
}

/// How much of the room a message is decoded in, in bytes. Most messages need a small part of the maximum, and so do
/// not wait for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    /// What the decoded message itself holds.
    weight: u64,
    /// What may be built from it.
    pub(super) made: u64,
}

impl Plan {
    /// For a message of this weight, if that takes less than the maximum for any message.
    pub(super) fn of(weight: u64, most: u64) -> Option<Plan> {
        let made = weight.saturating_mul(MADE_FACTOR).max(LEAST_MADE);
        (weight.saturating_add(made) < most).then_some(Plan { weight, made })
    }

    /// For a message that is converted piece by piece, so that only the result counts.
    pub(super) fn all_made(made: u64, most: u64) -> Option<Plan> {
        (made < most).then_some(Plan { weight: 0, made })
    }

    /// The total, in bytes.
    pub(super) fn bytes(self) -> u64 {
        self.weight.saturating_add(self.made)
    }
}

/// A part of the room; given back when dropped.
#[derive(Debug)]
pub(super) struct Room {
    of: Arc<Semaphore>,
    held: Option<OwnedSemaphorePermit>,
    limit: usize,
    wait: Duration,
}

impl Memory {
    pub(super) fn new(max_request_bytes: usize, pressure: Pressure) -> Memory {
        let pieces = |factor: usize| {
            let pieces = max_request_bytes.div_ceil(PIECE).max(1).saturating_mul(factor);
            pieces.min(Semaphore::MAX_PERMITS).min(u32::MAX as usize)
        };
        let (body_pieces, decoding_pieces) = (pieces(BODIES), pieces(MEMORY_FACTOR as usize));
        Memory {
            bodies: Arc::new(Semaphore::new(body_pieces)),
            decoding: Arc::new(Semaphore::new(decoding_pieces)),
            tiny: Arc::new(Semaphore::new(decoding_pieces / SMALL_PART)),
            body_pieces,
            decoding_pieces,
            pressure,
            wait: WAIT_FOR_ROOM,
        }
    }

    /// Room for a body; empty at first.
    pub(super) fn body(&self) -> Room {
        Room {
            of: Arc::clone(&self.bodies),
            held: None,
            limit: self.body_pieces,
            wait: self.wait,
        }
    }

    /// Room to decode a message: that of its plan, or the maximum.
    pub(super) async fn decoding(&self, plan: Option<Plan>) -> Result<Room, Rejection> {
        let most = self.decoding_pieces.saturating_mul(PIECE);
        let bytes = plan.map_or(most, |plan| usize::try_from(plan.bytes()).unwrap_or(most));
        let (of, limit) = if bytes <= most / TINY_PART {
            (&self.tiny, self.decoding_pieces / SMALL_PART)
        } else {
            (&self.decoding, self.decoding_pieces)
        };
        let mut room = Room {
            of: Arc::clone(of),
            held: None,
            limit,
            wait: self.wait,
        };
        if bytes > most / SMALL_PART {
            let relief = tokio::time::timeout(self.wait, self.pressure.relief());
            relief.await.map_err(|_| Rejection::NoRoom { bytes: most })?;
        }
        room.grow_to(bytes).await?;
        Ok(room)
    }
}

impl Room {
    fn pieces(&self) -> usize {
        self.held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits)
    }

    /// Waits until there is room for this many bytes in total.
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
            // The semaphore is never closed, so this was the timeout.
            _ => Err(full),
        }
    }

    /// Gives back everything above this many bytes.
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
    use emberline_model::weight::memory_of;

    use super::*;

    #[tokio::test]
    async fn who_holds_nothing_waits_and_is_told_to_send_again() {
        let memory = Memory {
            wait: Duration::from_millis(10),
            ..Memory::new(1 << 20, Pressure::default())
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
        let small = Some(Plan {
            weight: 1000,
            made: 1 << 19,
        });
        let all = memory.decoding(None).await.unwrap();
        assert!(memory.decoding(small).await.is_err());
        // And so do tiny messages.
        let tiny = Some(Plan {
            weight: 1000,
            made: 1 << 17,
        });
        let mut held = Vec::new();
        for _ in 0..7 {
            held.push(memory.decoding(tiny).await.unwrap());
        }
        assert!(memory.decoding(tiny).await.is_err(), "which is bounded, too");
        drop((all, held));
        memory.pressure.set(true);
        assert!(memory.decoding(None).await.is_err());
        let one = memory.decoding(small).await.unwrap();
        let _two = memory.decoding(small).await.unwrap();
        drop(one);
        assert_eq!(
            Plan::of(2 << 20, memory_of(1 << 20)),
            None,
            "takes all the room, as everything did"
        );
    }
}
